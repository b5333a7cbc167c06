//! The fields of a record that are shown and filtered by, read from its line without copying.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::clock::{Millis, parse_instant};

/// A record's fields; null and absent ones are `None`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Fields<'a> {
    #[serde(borrow)]
    pub id: Option<FieldText<'a>>,
    #[serde(borrow)]
    pub timestamp: Option<FieldText<'a>>,
    #[serde(borrow)]
    pub received_at: Option<FieldText<'a>>,
    #[serde(borrow)]
    pub source: Option<FieldText<'a>>,
    #[serde(borrow)]
    pub event_id: Option<FieldText<'a>>,
    #[serde(borrow)]
    pub event_name: Option<FieldText<'a>>,
    #[serde(borrow)]
    pub description: Option<FieldText<'a>>,
    #[serde(borrow)]
    pub entity_id: Option<FieldText<'a>>,
    #[serde(borrow)]
    pub entity_name: Option<FieldText<'a>>,
    #[serde(borrow)]
    pub conversation_id: Option<FieldText<'a>>,
    #[serde(borrow)]
    pub error_code: Option<FieldText<'a>>,
}

impl<'a> Fields<'a> {
    /// Reads a line; `None` if it is not a record.
    pub fn read(line: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    /// The field with this name, if records can be selected by it.
    pub fn get(&self, name: &str) -> Option<FieldText<'a>> {
        match name {
            "id" => self.id,
            "event_id" => self.event_id,
            "entity_id" => self.entity_id,
            "conversation_id" => self.conversation_id,
            _ => None,
        }
    }

    /// The event's own time, else its time of receipt.
    pub fn event_time(&self) -> Option<Millis> {
        [self.timestamp, self.received_at].into_iter().flatten().find_map(|text| parse_instant(&text.decoded()))
    }

    /// The time of receipt. In the predecessor's records, that is `timestamp`.
    pub fn received(&self) -> Option<Millis> {
        parse_instant(&self.received_at.or(self.timestamp)?.decoded())
    }
}

/// A value of a record, as source text.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(transparent)]
pub struct FieldText<'a>(#[serde(borrow)] &'a RawValue);

impl<'a> FieldText<'a> {
    /// The value's JSON.
    pub fn raw(self) -> &'a str {
        self.0.get()
    }

    /// A string's decoded characters, or another value's JSON. With an unpaired surrogate, escapes stay undecoded.
    pub fn decoded(self) -> Cow<'a, str> {
        let raw = self.raw();
        let Some(inner) = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return raw.into() };
        if !inner.contains('\\') {
            return inner.into();
        }
        serde_json::from_str::<String>(raw).map_or(inner.into(), Cow::Owned)
    }
}

/// A field's decoded text; empty if the field is `None`.
pub fn text(field: Option<FieldText<'_>>) -> Cow<'_, str> {
    field.map_or("".into(), FieldText::decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_and_decoded() {
        let line = format!(
            r#"{{"timestamp":"2026-11-23T10:44:05.123Z","event_id":"A\u00e9","entity_id":"\ud800","error_code":null,"raw_event":{}{}}}"#,
            "[".repeat(5000),
            "]".repeat(5000)
        );
        let fields = Fields::read(line.as_bytes()).unwrap();
        assert_eq!(
            (text(fields.event_id), text(fields.entity_id), text(fields.error_code)),
            ("Aé".into(), r"\ud800".into(), "".into())
        );
        assert_eq!(fields.event_time(), fields.received());
        assert_eq!(fields.event_time(), parse_instant("2026-11-23T10:44:05.123Z"));
        assert!(Fields::read(b"{\"torn").is_none());
    }
}
