//! Turns a line of the file into a document: its text, `_id` and timestamp. The text is exactly the line, unless fields
//! are redacted.

use std::borrow::Cow;

use twox_hash::XxHash3_128;

use crate::event::{Redaction, read_line};
use crate::json::{Fault, Kind, Scanner};

/// Maximum length of an `_id` that every cluster accepts.
const ID_BYTES_MAX: usize = 512;

/// The fields of a line that a document needs, as slices of the line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields<'a> {
    /// The value of `timestamp`, with its quotes.
    pub timestamp: Option<&'a [u8]>,
    /// The value of `id`, without its quotes.
    pub id: Option<&'a [u8]>,
    /// Whether the line already has an `@timestamp`.
    pub has_at_timestamp: bool,
}

/// A document to index.
pub struct Document<'a> {
    pub text: Cow<'a, [u8]>,
    pub id: Cow<'a, [u8]>,
    /// The fields of `text`, if it is the unchanged line.
    fields: Option<Fields<'a>>,
}

impl<'a> Document<'a> {
    /// Builds the document of a line, written by this program or by its predecessor; `None` if the line is not a
    /// record.
    pub fn of(line: &'a [u8], redaction: &Redaction) -> Option<Self> {
        let fields = fields(line)?;
        let id = id_of(line, &fields);
        if fields.id.is_some() && !redaction.is_on() {
            return Some(Self { text: line.into(), id, fields: Some(fields) });
        }
        let (text, shown_id) = (std::str::from_utf8(line).ok()?, std::str::from_utf8(&id).ok()?);
        let text = match redaction.line(text, shown_id)? {
            Cow::Borrowed(text) => text.as_bytes().into(),
            Cow::Owned(text) => text.into_bytes().into(),
        };
        Some(Self { text, id, fields: None })
    }

    pub fn fields(&self) -> Fields<'_> {
        self.fields.or_else(|| fields(&self.text)).unwrap_or_default()
    }
}

/// The record's id. A record without one, which the predecessor wrote, gets the id of its event, the same in every run.
pub fn id_of<'a>(line: &[u8], fields: &Fields<'a>) -> Cow<'a, [u8]> {
    if let Some(id) = fields.id {
        return id.into();
    }
    let text = std::str::from_utf8(line).ok();
    let read = text.and_then(|text| read_line(text, &mut Vec::new()).ok().map(|record| record.id.to_string()));
    // The id of an object that is not a record is a hash of its text.
    read.unwrap_or_else(|| format!("{:032x}", XxHash3_128::oneshot(line))).into_bytes().into()
}

/// Reads the fields of a line without its line feed; `None` if the line is not a JSON object, such as a torn or foreign
/// line.
///
/// The large `raw_event` comes last in a record and is not parsed. The cluster reports any errors in it.
pub fn fields(line: &[u8]) -> Option<Fields<'_>> {
    /// Stops the scan early.
    const ENOUGH: Fault = Fault { what: "", at: usize::MAX };
    if line.last() != Some(&b'}') {
        return None;
    }
    let mut found = Fields::default();
    let mut scanner = Scanner::new(std::str::from_utf8(line).ok()?);
    let walked = scanner.object(|scanner, key| {
        if key.raw() == "raw_event" && found.id.is_some() {
            return Err(ENOUGH);
        }
        let value = scanner.value()?;
        match key.raw() {
            "timestamp" => {
                let is_text = value.kind == Kind::String && value.raw.len() > 2;
                found.timestamp = is_text.then_some(value.raw.as_bytes());
            }
            "id" => found.id = value.text().map(|text| text.raw().as_bytes()).filter(|id| is_fit_for_id(id)),
            "@timestamp" => found.has_at_timestamp = true,
            _ => {}
        }
        Ok(())
    });
    match walked {
        Err(fault) => (fault == ENOUGH).then_some(found),
        Ok(()) => scanner.end().is_ok().then_some(found),
    }
}

/// Whether the string has no escapes and every cluster accepts it as an `_id`.
fn is_fit_for_id(text: &[u8]) -> bool {
    (1..=ID_BYTES_MAX).contains(&text.len()) && text.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_and_the_id_are_found_wherever_they_stand() {
        let ours =
            br#"{"timestamp":"2026-11-20T10:30:45.123Z","event_id":"x \" } \\","id":"abc","raw_event":{"id":"no"}}"#;
        let found = fields(ours).unwrap();
        assert_eq!(found.timestamp, Some(&br#""2026-11-20T10:30:45.123Z""#[..]));
        assert_eq!((found.id, found.has_at_timestamp), (Some(&b"abc"[..]), false));
        let legacy = br#"{"timestamp": "t", "version": "1.0", "n": -1.5e3, "raw_event": {"a": [1, {"id": "}"}]}}"#;
        assert_eq!(fields(legacy).unwrap().timestamp, Some(&br#""t""#[..]));
        assert_eq!(fields(legacy).unwrap().id, None);
        let late = br#"{"raw_event":{"id":"no"},"id":"yes","@timestamp":"t"}"#;
        assert_eq!(fields(late), Some(Fields { timestamp: None, id: Some(b"yes"), has_at_timestamp: true }));
        assert_eq!(fields(b"{}"), Some(Fields::default()));
    }

    #[test]
    fn an_id_that_no_cluster_takes_is_none() {
        for id in [r#""""#, "null", "7", r#""with blank""#, r#""esc\u0041""#] {
            let line = format!(r#"{{"timestamp":null,"id":{id}}}"#);
            assert_eq!(fields(line.as_bytes()), Some(Fields::default()), "{line}");
        }
        let long = format!(r#"{{"id":"{}"}}"#, "x".repeat(513));
        assert_eq!(fields(long.as_bytes()).unwrap().id, None);
    }

    #[test]
    fn torn_and_foreign_lines_are_no_records() {
        for line in [
            "",
            "{",
            "}",
            "plain text",
            "[1,2]",
            r#"{"timestamp":"2026"#,
            r#"{"a":1,"raw_event":{"b":2}"#,
            r#"{"a":1}{"b":2}"#,
            r#"{"timestamp":"20{"timestamp":"2026","id":"a"}"#,
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{a:1}"#,
            r#"{"a":nope}"#,
            r#"{"a":"\}"#,
        ] {
            assert_eq!(fields(line.as_bytes()), None, "{line}");
        }
    }
}
