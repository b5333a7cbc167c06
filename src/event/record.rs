//! Writes a record: one line of the output file.
//!
//! The predecessor's fields in its order, then ours. Strings are copied with their escapes, without decoding.

use super::{Event, Field, Id, Redaction};
use crate::clock::{Millis, Stamp};
use crate::json::{push_compact, push_string};

/// Where an event came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin<'a> {
    /// The channel's id is masked.
    Websocket {
        channel: &'a str,
    },
    History,
}

/// Writes records.
pub struct RecordWriter<'r> {
    pub redaction: &'r Redaction,
    pub stamps: &'r mut Stamps,
}

/// Formatted times, reused between records of the same second.
#[derive(Debug, Default)]
pub struct Stamps {
    own: Stamp,
    received: Stamp,
}

impl RecordWriter<'_> {
    /// Appends the event's line with its line feed. `raw` must already be redacted; `id` is the original event's.
    pub fn push(&mut self, out: &mut Vec<u8>, event: &Event<'_>, origin: Origin<'_>, id: Id, received: Millis) {
        out.extend_from_slice(b"{\"timestamp\":\"");
        self.stamps.own.push(out, event.time.unwrap_or(received));
        out.extend_from_slice(b"\",\"event_type\":\"audiohook_operational\",\"event_id\":");
        self.field(out, "event_id", event.definition);
        out.extend_from_slice(b",\"event_name\":");
        self.field(out, "event_name", event.name);
        out.extend_from_slice(b",\"description\":");
        self.field(out, "description", event.description);
        out.extend_from_slice(b",\"conversation_id\":");
        self.field(out, "conversation_id", event.conversation_id);
        out.extend_from_slice(b",\"entity_type\":");
        self.field(out, "entity_type", event.entity_type);
        out.extend_from_slice(b",\"entity_id\":");
        self.field(out, "entity_id", event.entity_id);
        out.extend_from_slice(b",\"entity_name\":");
        self.field(out, "entity_name", event.entity_name);
        out.extend_from_slice(b",\"version\":");
        self.field(out, "version", event.version);
        out.extend_from_slice(b",\"topic\":");
        match origin {
            Origin::Websocket { .. } => self.field(out, "topic", event.topic),
            Origin::History => self.history_topic(out, event),
        }
        out.extend_from_slice(b",\"channel\":");
        match origin {
            Origin::Websocket { channel } => push_string(out, channel),
            Origin::History => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"error_code\":");
        self.field(out, "error_code", event.error_code);
        out.extend_from_slice(b",\"previous_value\":");
        self.field(out, "previous_value", event.previous_value);
        out.extend_from_slice(b",\"current_value\":");
        self.field(out, "current_value", event.current_value);
        out.extend_from_slice(b",\"received_at\":\"");
        self.stamps.received.push(out, received);
        out.extend_from_slice(match origin {
            Origin::Websocket { .. } => b"\",\"source\":\"websocket\",\"id\":\"".as_slice(),
            Origin::History => b"\",\"source\":\"history\",\"id\":\"",
        });
        id.push(out);
        out.extend_from_slice(b"\",\"raw_event\":");
        if event.raw_spaced {
            push_compact(out, event.raw);
        } else {
            out.extend_from_slice(event.raw.as_bytes());
        }
        out.extend_from_slice(b"}\n");
    }

    #[inline]
    fn field(&self, out: &mut Vec<u8>, name: &str, field: Field<'_>) {
        match self.redaction.shown(name, field) {
            Field::Absent => out.extend_from_slice(b"null"),
            Field::Text(text) => {
                out.push(b'"');
                out.extend_from_slice(text.raw().as_bytes());
                out.push(b'"');
            }
            Field::Literal(text) => push_string(out, text),
        }
    }

    /// The topic on which the socket would have sent the event.
    fn history_topic(&self, out: &mut Vec<u8>, event: &Event<'_>) {
        if matches!(event.definition, Field::Absent) {
            out.extend_from_slice(b"null");
        } else if self.redaction.hides_record_field("topic") {
            push_string(out, super::redact::REDACTED);
        } else {
            push_string(out, &format!("{}{}", super::TOPIC_PREFIX, event.definition.decoded()));
        }
    }
}
