//! REDACT_FIELDS: values that must not leave Genesys's event for any field, file, page or document.
//!
//! A name hides the value of that key at any depth of what Genesys sent. The two ways name some fields differently, and
//! the record names them a third way; hiding one name of a field hides them all, or the same value would be masked on
//! the socket and in clear from the history.
//!
//! Lines that stand in a file already, written before the setting was made or by the predecessor, are hidden when they
//! are shown and sent; the file keeps them as they are.

use std::borrow::Cow;
use std::collections::HashSet;

use super::Field;
use crate::json::{Kind, Part, Result, Scanner, Step, Text, Value, push_string};
use crate::secret::mask;

/// What stands in a hidden value's place.
pub const REDACTED: &str = "[redacted]";

/// One field's names: on the socket, in the history, in the record.
const SAME_FIELD: [&[&str]; 12] = [
    &["eventEntity", "eventDefinition", "event_id"],
    &["name", "event_name"],
    &["conversationId", "conversation", "conversation_id"],
    &["entityType", "entity_type"],
    &["entityId", "entity_id"],
    &["entityName", "entity_name"],
    &["version", "entityVersion"],
    &["errorCode", "error_code"],
    &["previousValue", "previous_value"],
    &["currentValue", "current_value"],
    &["parentEntity", "parentEntityId"],
    &["timestamp", "dateCreated"],
];

/// What a hidden `id` hides with it: a row's conversation is an object with an id, which the socket writes flat, and
/// the address beside an id ends with it.
const SAME_AS_AN_ID: [&str; 2] = ["conversationId", "selfUri"];

/// The record's fields that are taken out of the event, each with the names that hide it; of one field's names one is
/// enough. A row has neither name nor description: its definition's stand there.
const RECORD_FIELDS: [(&str, &[&str]); 12] = [
    ("event_id", &["event_id", "id"]),
    ("event_name", &["event_name", "event_id"]),
    ("description", &["description", "event_id"]),
    ("conversation_id", &["conversation_id"]),
    ("entity_type", &["entity_type"]),
    ("entity_id", &["entity_id"]),
    ("entity_name", &["entity_name"]),
    ("version", &["version"]),
    // It ends with the definition's id.
    ("topic", &["topic", "topicName", "event_id", "id"]),
    ("error_code", &["error_code"]),
    ("previous_value", &["previous_value"]),
    ("current_value", &["current_value"]),
];

/// The record's fields that are the collector's own, whatever the event's are called.
const OWN_FIELDS: [&str; 5] = ["timestamp", "event_type", "received_at", "source", "@timestamp"];

/// The names whose values are hidden; case counts.
#[derive(Clone, Debug, Default)]
pub struct Redaction {
    names: HashSet<String>,
}

impl Redaction {
    pub fn new(names: &[String]) -> Self {
        let mut all: HashSet<String> = names.iter().cloned().collect();
        if all.contains("id") {
            all.extend(SAME_AS_AN_ID.map(str::to_owned));
        }
        for group in SAME_FIELD {
            if group.iter().any(|name| all.contains(*name)) {
                all.extend(group.iter().map(|name| (*name).to_owned()));
            }
        }
        Self { names: all }
    }

    /// Whether anything is to be hidden at all.
    pub fn is_on(&self) -> bool {
        !self.names.is_empty()
    }

    /// A field of the record as it may be shown; what an event does not have stays absent.
    pub fn shown<'a>(&self, name: &str, field: Field<'a>) -> Field<'a> {
        if self.is_on() && !matches!(field, Field::Absent) && self.hides_record_field(name) {
            return Field::Text(Text::from_raw(REDACTED));
        }
        field
    }

    /// Whether a field of the record is hidden.
    pub fn hides_record_field(&self, name: &str) -> bool {
        let field = RECORD_FIELDS.iter().find(|(field, _)| *field == name);
        field.is_some_and(|(_, names)| names.iter().any(|name| self.names.contains(*name)))
    }

    /// The JSON with each hidden value replaced, and without white space outside its strings.
    ///
    /// # Errors
    /// When it is not JSON.
    pub fn apply(&self, json: &str) -> Result<String> {
        let mut out = String::with_capacity(json.len());
        let mut hidden = false;
        Scanner::new(json).walk(|part| {
            match part {
                Part::Mark(mark) => out.push(mark),
                Part::Key(key) => {
                    hidden = self.names.contains(&*key.decoded());
                    out.push('"');
                    out.push_str(key.raw());
                    out.push_str("\":");
                    if hidden {
                        return Step::Over;
                    }
                }
                Part::Value(_) if std::mem::take(&mut hidden) => {
                    out.push('"');
                    out.push_str(REDACTED);
                    out.push('"');
                }
                Part::Value(value) => out.push_str(value.raw),
            }
            Step::In
        })?;
        Ok(out)
    }

    /// A line of the file as it may be shown and sent; `id` is the record's, made of the line as it stands. `None` for a
    /// line in which nobody can tell where the hidden values stand.
    pub fn line<'a>(&self, line: &'a str, id: &str) -> Option<Cow<'a, str>> {
        if self.is_on() { self.redacted_line(line, id).ok().map(Cow::Owned) } else { Some(with_masked_channel(line)) }
    }

    /// The line with each hidden value replaced. The predecessor's lines are given their id: what it is made of may be
    /// hidden.
    fn redacted_line(&self, line: &str, id: &str) -> Result<String> {
        let mut out = String::with_capacity(line.len() + id.len());
        let mut has_id = false;
        let mut scanner = Scanner::new(line);
        scanner.object(|scanner, key| {
            let value = scanner.value()?;
            let name = key.decoded();
            if name == "id" && std::mem::replace(&mut has_id, true) {
                return Ok(());
            }
            out.push_str(if out.is_empty() { "{\"" } else { ",\"" });
            out.push_str(key.raw());
            out.push_str("\":");
            match &*name {
                "id" => push_text(&mut out, id),
                "channel" => push_channel(&mut out, value),
                own if OWN_FIELDS.contains(&own) => out.push_str(value.raw),
                field if self.hides_record_field(field) && value.kind != Kind::Null => push_text(&mut out, REDACTED),
                field if RECORD_FIELDS.iter().any(|(name, _)| *name == field) => out.push_str(value.raw),
                other if self.names.contains(other) => push_text(&mut out, REDACTED),
                _ => out.push_str(&self.apply(value.raw)?),
            }
            Ok(())
        })?;
        scanner.end()?;
        if !has_id {
            out.push_str(if out.is_empty() { "{\"id\":" } else { ",\"id\":" });
            push_text(&mut out, id);
        }
        out.push('}');
        Ok(out)
    }
}

/// The line with its channel masked: the predecessor wrote the id in clear. A line that is no JSON stays as it is.
fn with_masked_channel(line: &str) -> Cow<'_, str> {
    let mut shown = String::new();
    let mut done = 0;
    let mut scanner = Scanner::new(line);
    let read = scanner.object(|scanner, key| {
        let value = scanner.value()?;
        if key.is("channel") && is_in_clear(value) {
            let to = scanner.position();
            shown.push_str(&line[done..to - value.raw.len()]);
            push_channel(&mut shown, value);
            done = to;
        }
        Ok(())
    });
    if read.is_err() || done == 0 {
        return line.into();
    }
    shown.push_str(&line[done..]);
    shown.into()
}

/// Whether it is a channel's id that no mask hides yet.
fn is_in_clear(channel: Value<'_>) -> bool {
    channel.text().is_some_and(|text| !text.decoded().starts_with('…') && !text.raw().is_empty())
}

fn push_channel(out: &mut String, channel: Value<'_>) {
    match channel.text().filter(|_| is_in_clear(channel)) {
        Some(text) => push_text(out, &mask(&text.decoded())),
        None => out.push_str(channel.raw),
    }
}

fn push_text(out: &mut String, text: &str) {
    let mut json = Vec::with_capacity(text.len() + 2);
    push_string(&mut json, text);
    out.push_str(&String::from_utf8_lossy(&json));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_hides_its_value_at_any_depth_under_all_its_names() {
        let redaction = Redaction::new(&["phoneNumber".into(), "conversationId".into()]);
        let json = r#"{"phone\u004eumber": {"a":1}, "x":[{"phoneNumber":null,"phonenumber":"kept"}], "conversation":{"id":"c"}, "n":1.0}"#;
        assert_eq!(
            redaction.apply(json).unwrap(),
            r#"{"phone\u004eumber":"[redacted]","x":[{"phoneNumber":"[redacted]","phonenumber":"kept"}],"conversation":"[redacted]","n":1.0}"#
        );
        assert!(redaction.hides_record_field("conversation_id") && !redaction.hides_record_field("entity_id"));
        assert!(!Redaction::new(&[]).is_on());
    }

    #[test]
    fn whoever_hides_the_definition_hides_what_is_made_of_it() {
        for name in ["eventEntity", "eventDefinition", "event_id"] {
            let redaction = Redaction::new(&[name.into()]);
            for field in ["event_id", "event_name", "description", "topic"] {
                assert!(redaction.hides_record_field(field), "{name}: {field}");
            }
            assert_eq!(
                redaction.apply(r#"{"eventEntity":{"id":"a"},"eventDefinition":{"id":"a"}}"#).unwrap(),
                r#"{"eventEntity":"[redacted]","eventDefinition":"[redacted]"}"#
            );
        }
        let of_id = Redaction::new(&["id".into()]);
        for field in ["event_id", "topic", "conversation_id"] {
            assert!(of_id.hides_record_field(field), "{field}");
        }
        assert!(!of_id.hides_record_field("event_name") && !of_id.hides_record_field("entity_id"));
        let times = Redaction::new(&["timestamp".into()]);
        assert_eq!(times.apply(r#"{"dateCreated":1}"#).unwrap(), r#"{"dateCreated":"[redacted]"}"#);
    }

    #[test]
    fn a_line_of_the_file_is_hidden_as_its_event_would_be_and_keeps_its_id() {
        let redaction = Redaction::new(&["phoneNumber".into(), "conversationId".into(), "timestamp".into()]);
        let line = r#"{"timestamp": "t", "conversation_id": "c", "entity_id": null, "channel": "streaming-12345", "phoneNumber": 1, "raw_event": {"conversationId": "c", "timestamp": 5, "a": 1.0}}"#;
        assert_eq!(
            redaction.line(line, "abc").unwrap(),
            r#"{"timestamp":"t","conversation_id":"[redacted]","entity_id":null,"channel":"…2345","phoneNumber":"[redacted]","raw_event":{"conversationId":"[redacted]","timestamp":"[redacted]","a":1.0},"id":"abc"}"#
        );
        let ours = r#"{"channel":"…abcd","id":"abc","raw_event":{"phoneNumber":"+1"}}"#;
        let shown = redaction.line(ours, "abc").unwrap();
        assert_eq!(shown, r#"{"channel":"…abcd","id":"abc","raw_event":{"phoneNumber":"[redacted]"}}"#);
        assert_eq!(redaction.line(&shown, "abc").unwrap(), shown, "once hidden it stays as it is");
        assert_eq!(redaction.line("{\"torn\":", "abc"), None);
    }

    #[test]
    fn the_predecessors_channel_is_masked_and_nothing_else_of_its_line_changes() {
        let off = Redaction::default();
        let line = r#"{"topic": "x", "channel": "streaming-channel-12345", "raw_event": {"channel": "streaming-channel-12345", "n": 1.0}}"#;
        assert_eq!(
            off.line(line, "abc").unwrap(),
            r#"{"topic": "x", "channel": "…2345", "raw_event": {"channel": "streaming-channel-12345", "n": 1.0}}"#
        );
        for other in [r#"{"channel":"…2345"}"#, r#"{"channel":null}"#, r#"{"a":NaN,"channel":"x"}"#, "torn"] {
            assert!(matches!(off.line(other, "abc"), Some(Cow::Borrowed(same)) if same == other), "{other}");
        }
    }
}
