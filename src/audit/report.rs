//! The report of an audit: counts, and the events that only one side has.

use serde::Serialize;

use crate::clock::{Millis, format_millis};
use crate::event::{Event, Fields, Identity, REDACTED, Redaction, text};

/// The counts of one definition; each event counts once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Counted {
    pub id: String,
    pub genesys: u64,
    pub file: u64,
}

/// An event that only one side has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    pub event_id: String,
    pub timestamp: String,
    pub entity_id: String,
    pub conversation_id: String,
    /// The record's id.
    pub id: String,
}

impl Entry {
    /// Hides the fields named in REDACT_FIELDS.
    pub(super) fn hide(&mut self, redaction: &Redaction) {
        let fields = [
            ("event_id", &mut self.event_id),
            ("entity_id", &mut self.entity_id),
            ("conversation_id", &mut self.conversation_id),
        ];
        for (name, field) in fields {
            if !field.is_empty() && redaction.hides_record_field(name) {
                REDACTED.clone_into(field);
            }
        }
    }
}

/// The result of an audit: the document of `audit --json`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The compared interval. Both ends are equal if the files no longer hold any of it.
    pub from: String,
    pub to: String,
    /// Whether nothing is missing in the files.
    pub complete: bool,
    pub definitions: Vec<Counted>,
    /// The first missing events; [`Report::missing_count`] is their total number.
    pub missing: Vec<Entry>,
    pub extra: Vec<Entry>,
    #[serde(skip)]
    pub missing_count: u64,
    #[serde(skip)]
    pub extra_count: u64,
    /// The number of events that are counted but not listed; omitted from the document if 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub missing_unlisted: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub extra_unlisted: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

pub(super) fn entry(event: &Event<'_>, identity: Identity, received: Millis) -> Entry {
    let time = event.time.unwrap_or(received);
    Entry {
        event_id: event.definition.decoded().into_owned(),
        timestamp: format_millis(time),
        entity_id: event.entity_id.decoded().into_owned(),
        conversation_id: event.conversation_id.decoded().into_owned(),
        id: identity.at(time).to_string(),
    }
}

pub(super) fn record_entry(line: &str) -> Entry {
    let fields = Fields::read(line.as_bytes()).unwrap_or_default();
    let text = |field| text(field).into_owned();
    Entry {
        event_id: text(fields.event_id),
        timestamp: text(fields.timestamp),
        entity_id: text(fields.entity_id),
        conversation_id: text(fields.conversation_id),
        id: text(fields.id),
    }
}
