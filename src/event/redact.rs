//! REDACT_FIELDS: values of an event that must not appear in any field, file, page or document.
//!
//! A name hides that key's value at any depth of what Genesys sent. Socket, history and record use different names for
//! some fields. Hiding one name hides all of them; otherwise a value could be masked on the socket and in clear from
//! the history.
//!
//! Lines already in a file, written before the setting was made or by the predecessor, are redacted when they are shown
//! or sent; the file does not change.

use std::borrow::Cow;
use std::collections::HashSet;

use super::Field;
use crate::json::{Kind, Part, Result, Scanner, Step, Text, Value, push_string};
use crate::secret::mask;

/// Replaces a hidden value.
pub const REDACTED: &str = "[redacted]";

/// Names of the same field: on the socket, in the history, in the record.
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

/// Names hidden together with `id`: a row's conversation is an object with an id, which the socket sends as
/// `conversationId`, and an object's `selfUri` ends with its id.
const SAME_AS_AN_ID: [&str; 2] = ["conversationId", "selfUri"];

/// The record's fields copied from the event, each with the names that hide it; one name of a field stands for all. A
/// row has neither name nor description, so these come from its definition.
const RECORD_FIELDS: [(&str, &[&str]); 12] = [
    ("event_id", &["event_id", "id"]),
    ("event_name", &["event_name", "event_id"]),
    ("description", &["description", "event_id"]),
    ("conversation_id", &["conversation_id"]),
    ("entity_type", &["entity_type"]),
    ("entity_id", &["entity_id"]),
    ("entity_name", &["entity_name"]),
    ("version", &["version"]),
    // The topic ends with the definition's id.
    ("topic", &["topic", "topicName", "event_id", "id"]),
    ("error_code", &["error_code"]),
    ("previous_value", &["previous_value"]),
    ("current_value", &["current_value"]),
];

/// The record's fields that the collector itself sets, even if fields of the event have these names.
const OWN_FIELDS: [&str; 5] = ["timestamp", "event_type", "received_at", "source", "@timestamp"];

/// The names whose values are hidden; case-sensitive.
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

    /// Whether any name is hidden.
    pub fn is_on(&self) -> bool {
        !self.names.is_empty()
    }

    /// A field of the record, redacted if necessary; an absent field stays absent.
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

    /// Replaces each hidden value in a JSON text and removes white space outside strings.
    ///
    /// # Errors
    /// When the text is not valid JSON.
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

    /// A line of the file, redacted so that it may be shown or sent. `id` is the record's id, derived from the original
    /// line. `None` if the line is not valid JSON, so that hidden values cannot be found.
    pub fn line<'a>(&self, line: &'a str, id: &str) -> Option<Cow<'a, str>> {
        if self.is_on() { self.redacted_line(line, id).ok().map(Cow::Owned) } else { Some(with_masked_channel(line)) }
    }

    /// The line with each hidden value replaced. A line of the predecessor gets its id, as the values from which the id
    /// is derived may be hidden.
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

/// The line with its channel masked: the predecessor wrote the channel's id in clear. Invalid JSON stays unchanged.
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

/// Whether the value is a channel's id that is not masked yet.
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
    fn hiding_the_definition_hides_the_fields_derived_from_it() {
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
    fn a_line_of_the_file_is_redacted_as_its_event_would_be_and_keeps_its_id() {
        let redaction = Redaction::new(&["phoneNumber".into(), "conversationId".into(), "timestamp".into()]);
        let line = r#"{"timestamp": "t", "conversation_id": "c", "entity_id": null, "channel": "streaming-12345", "phoneNumber": 1, "raw_event": {"conversationId": "c", "timestamp": 5, "a": 1.0}}"#;
        assert_eq!(
            redaction.line(line, "abc").unwrap(),
            r#"{"timestamp":"t","conversation_id":"[redacted]","entity_id":null,"channel":"…2345","phoneNumber":"[redacted]","raw_event":{"conversationId":"[redacted]","timestamp":"[redacted]","a":1.0},"id":"abc"}"#
        );
        let ours = r#"{"channel":"…abcd","id":"abc","raw_event":{"phoneNumber":"+1"}}"#;
        let shown = redaction.line(ours, "abc").unwrap();
        assert_eq!(shown, r#"{"channel":"…abcd","id":"abc","raw_event":{"phoneNumber":"[redacted]"}}"#);
        assert_eq!(redaction.line(&shown, "abc").unwrap(), shown, "redacting again changes nothing");
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
