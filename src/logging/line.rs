//! Formats a log record as one line.

use std::fmt::Write;

use log::kv::{Error, Key, Value, VisitSource, VisitValue};
use log::{Level, Record};

use crate::clock::{Millis, push_millis};
use crate::config::LogFormat;

/// Formats a record, including the line feed. `prefix` adds the journal's priority.
pub fn format(format: LogFormat, prefix: bool, now: Millis, record: &Record<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    if prefix {
        out.extend_from_slice(priority(record.level()).as_bytes());
    }
    match format {
        LogFormat::Json => json(&mut out, now, record),
        LogFormat::Text => text(&mut out, now, record),
    }
    out.push(b'\n');
    out
}

/// The priority that the journal reads from the beginning of a line.
pub fn priority(level: Level) -> &'static str {
    match level {
        Level::Error => "<3>",
        Level::Warn => "<4>",
        Level::Info => "<6>",
        Level::Debug | Level::Trace => "<7>",
    }
}

fn json(out: &mut Vec<u8>, now: Millis, record: &Record<'_>) {
    out.extend_from_slice(b"{\"timestamp\":\"");
    push_millis(out, now);
    out.extend_from_slice(b"\",\"level\":\"");
    out.extend_from_slice(record.level().as_str().as_bytes());
    out.extend_from_slice(b"\",\"message\":");
    push_json(out, &record.args().to_string());
    // A field that cannot be formatted is omitted: logging must not fail.
    let _ = record.key_values().visit(&mut JsonFields(out));
    out.push(b'}');
}

fn push_json(out: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) {
    let start = out.len();
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.truncate(start);
        out.extend_from_slice(b"null");
    }
}

struct JsonFields<'a>(&'a mut Vec<u8>);

impl<'kvs> VisitSource<'kvs> for JsonFields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        if !matches!(key.as_str(), "timestamp" | "level" | "message") {
            self.0.push(b',');
            push_json(self.0, key.as_str());
            self.0.push(b':');
            push_json(self.0, &json_value(&value)?);
        }
        Ok(())
    }
}

/// A field's value, as JSON.
fn json_value(value: &Value<'_>) -> Result<serde_json::Value, Error> {
    struct Visitor(serde_json::Value);

    impl<'v> VisitValue<'v> for Visitor {
        fn visit_any(&mut self, value: Value<'_>) -> Result<(), Error> {
            self.0 = value.to_string().into();
            Ok(())
        }

        fn visit_null(&mut self) -> Result<(), Error> {
            Ok(())
        }

        fn visit_u64(&mut self, value: u64) -> Result<(), Error> {
            self.0 = value.into();
            Ok(())
        }

        fn visit_i64(&mut self, value: i64) -> Result<(), Error> {
            self.0 = value.into();
            Ok(())
        }

        fn visit_f64(&mut self, value: f64) -> Result<(), Error> {
            self.0 = value.into();
            Ok(())
        }

        fn visit_bool(&mut self, value: bool) -> Result<(), Error> {
            self.0 = value.into();
            Ok(())
        }
    }

    let mut visitor = Visitor(serde_json::Value::Null);
    value.visit(&mut visitor)?;
    Ok(visitor.0)
}

fn text(out: &mut Vec<u8>, now: Millis, record: &Record<'_>) {
    push_millis(out, now);
    let mut line = format!(" {:5} ", record.level());
    escape(&mut line, &record.args().to_string());
    let _ = record.key_values().visit(&mut TextFields(&mut line));
    out.extend_from_slice(line.as_bytes());
}

struct TextFields<'a>(&'a mut String);

impl<'kvs> VisitSource<'kvs> for TextFields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        // JSON shows an absent field as null; text omits it.
        if !json_value(&value)?.is_null() {
            let _ = write!(self.0, " {key}=");
            escape(self.0, &value.to_string());
        }
        Ok(())
    }
}

/// Escapes control characters, so that text from an event cannot start a new line or colour the terminal.
fn escape(line: &mut String, text: &str) {
    for c in text.chars() {
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
            line.extend(c.escape_default())
        } else {
            line.push(c)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_of(
        as_format: LogFormat,
        prefix: bool,
        level: Level,
        message: &str,
        fields: &[(&str, Value<'_>)],
    ) -> String {
        let line = format(
            as_format,
            prefix,
            1_795_430_645_123,
            &Record::builder().level(level).args(format_args!("{message}")).key_values(&fields).build(),
        );
        String::from_utf8(line).expect("UTF-8")
    }

    #[test]
    fn a_json_line_has_the_predecessors_fields_and_the_records() {
        let fields = [
            ("event_id", Value::from("AUDIOHOOK-0001")),
            ("count", Value::from(3u64)),
            ("late", Value::from(-1.5)),
            ("ok", Value::from(true)),
            ("none", Value::null()),
            ("level", Value::from("hidden")),
        ];
        assert_eq!(
            line_of(LogFormat::Json, false, Level::Info, "AudioHook event processed", &fields),
            "{\"timestamp\":\"2026-11-23T10:44:05.123Z\",\"level\":\"INFO\",\"message\":\"AudioHook event processed\",\
             \"event_id\":\"AUDIOHOOK-0001\",\"count\":3,\"late\":-1.5,\"ok\":true,\"none\":null}\n"
        );
    }

    #[test]
    fn a_text_line_stays_one_line() {
        let fields = [("none", Value::null()), ("name", Value::from("a\nb\u{1b}[31m"))];
        let line = line_of(LogFormat::Text, false, Level::Warn, "two\nlines", &fields);
        assert_eq!(line, "2026-11-23T10:44:05.123Z WARN  two\\nlines name=a\\nb\\u{1b}[31m\n");
        let line = line_of(LogFormat::Json, false, Level::Warn, "two\nlines", &fields);
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[test]
    fn the_journal_gets_its_own_levels() {
        for (level, expected) in
            [(Level::Error, "<3>"), (Level::Warn, "<4>"), (Level::Info, "<6>"), (Level::Debug, "<7>")]
        {
            assert!(line_of(LogFormat::Json, true, level, "x", &[]).starts_with(expected));
        }
    }
}
