//! REDACT_FIELDS: values that must not leave Genesys's event for any field, file, page or document.
//!
//! A name hides the value of that key at any depth of what Genesys sent. The two ways name some fields differently, and
//! the record names them a third way; hiding one name of a field hides them all, or the same value would be masked on
//! the socket and in clear from the history.

use std::collections::HashSet;

use crate::json::{Part, Result, Scanner, Step};

/// What stands in a hidden value's place.
pub const REDACTED: &str = "[redacted]";

/// One field's names: on the socket, in the history, in the record.
const SAME_FIELD: [&[&str]; 9] = [
    &["conversationId", "conversation", "conversation_id"],
    &["entityType", "entity_type"],
    &["entityId", "entity_id"],
    &["entityName", "entity_name"],
    &["version", "entityVersion"],
    &["errorCode", "error_code"],
    &["previousValue", "previous_value"],
    &["currentValue", "current_value"],
    &["parentEntity", "parentEntityId"],
];

/// The names whose values are hidden; case counts.
#[derive(Clone, Debug, Default)]
pub struct Redaction {
    names: HashSet<String>,
}

impl Redaction {
    pub fn new(names: &[String]) -> Self {
        let mut all: HashSet<String> = names.iter().cloned().collect();
        for group in SAME_FIELD {
            if group.iter().any(|name| names.iter().any(|listed| listed == name)) {
                all.extend(group.iter().map(|name| (*name).to_owned()));
            }
        }
        Self { names: all }
    }

    /// Whether anything is to be hidden at all.
    pub fn is_on(&self) -> bool {
        !self.names.is_empty()
    }

    /// Whether a field of the record is hidden whatever the event's own keys are called: a row's name and description
    /// come from the definitions, not from the row.
    pub(super) fn hides_record_field(&self, name: &str) -> bool {
        if !self.is_on() {
            return false;
        }
        let source = match name {
            "event_name" => "name",
            "description" => "description",
            "topic" => "topicName",
            _ => name,
        };
        self.names.contains(name) || self.names.contains(source)
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
}
