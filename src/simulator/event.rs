//! An operational event as the service holds it, and its three texts: the socket's frame, the history's row, the key
//! that identifies it on both ways.
//!
//! Deals with: templates that many events share, so that a million of them fit into a few dozen MiB. Must never: know
//! who receives an event, or when.

use std::sync::Arc;

use crate::clock::{Millis, push_millis};

use super::definitions::Definition;
use super::wire::{frame_text, row_text};

/// How the socket's frame carries the event's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SocketTime {
    /// `timestamp`: an integer, milliseconds since 1970.
    #[default]
    Millis,
    /// `timestamp`: ISO 8601 text.
    Iso,
    /// No `timestamp` at all.
    Absent,
}

/// What happened. Field names are those of the socket's event body; the history's row has its own names for the same.
///
/// In every text `{n}` stands for the event's number (twelve digits, so that it fits the end of a UUID) and `{uuid}` for
/// a UUID that follows from the event's salt: events that differ in these and in their time alone share one template.
#[derive(Clone, Debug, Default)]
pub struct Event {
    /// `eventEntity.id`, such as `AUDIOHOOK-0001`.
    pub definition: String,
    /// Milliseconds since 1970; `None`: when it is issued, by the service's clock.
    pub time_ms: Option<Millis>,
    /// The time that the history gives it; `None`: the same, moved as the knobs say.
    pub row_time_ms: Option<Millis>,
    pub entity_id: Option<String>,
    pub entity_name: Option<String>,
    pub entity_type: Option<String>,
    pub entity_token: Option<String>,
    pub previous_value: Option<String>,
    pub current_value: Option<String>,
    pub error_code: Option<String>,
    pub parent_entity: Option<String>,
    pub conversation_id: Option<String>,
    pub version: Option<String>,
    pub phone_number: Option<String>,
    pub external_contact_id: Option<String>,
    pub entity_modified_by: Option<String>,
    pub socket_time: SocketTime,
    /// Further fields of the socket's body: name and raw JSON value, appended as they are.
    pub extra: Vec<(String, String)>,
}

impl Event {
    /// An event of this definition that names an integration, a conversation of its own and its number.
    pub fn numbered(definition: &str) -> Self {
        Self {
            definition: definition.to_owned(),
            entity_id: Some("0f8f91f9-a27d-4ddf-9026-7e1e3a8d73a6".to_owned()),
            entity_name: Some("Voice analytics".to_owned()),
            entity_type: Some("integration".to_owned()),
            current_value: Some("event {n}".to_owned()),
            conversation_id: Some("{uuid}".to_owned()),
            version: Some("1".to_owned()),
            ..Self::default()
        }
    }

    /// The same event at this instant.
    pub fn at(mut self, time_ms: Millis) -> Self {
        self.time_ms = Some(time_ms);
        self
    }

    /// The same event, at this instant in the history.
    pub fn row_at(mut self, time_ms: Millis) -> Self {
        self.row_time_ms = Some(time_ms);
        self
    }
}

/// An event and, where many share it, its texts cut at their slots.
pub(super) struct Template {
    pub event: Event,
    pub definition: Arc<Definition>,
    compiled: Option<Compiled>,
}

struct Compiled {
    frame: Vec<Piece>,
    row: Vec<Piece>,
}

enum Piece {
    Literal(Box<str>),
    Number,
    Uuid,
    Millis,
    Iso,
}

/// One event: what it shares with others, and what is its own.
#[derive(Clone)]
pub(super) struct Stored {
    pub time_ms: Millis,
    pub number: u32,
    pub salt: u32,
    pub template: Arc<Template>,
}

impl Template {
    /// `shared`: many events will be made of it, so its texts are prepared once and kept.
    pub fn new(event: Event, definition: Arc<Definition>, shared: bool) -> Self {
        let compiled = shared.then(|| Compiled {
            frame: compile(&frame_text(&event, &definition)),
            row: compile(&row_text(&event, &definition)),
        });
        Self { event, definition, compiled }
    }
}

impl Stored {
    /// Appends the frame that the socket carries.
    pub fn push_frame(&self, out: &mut Vec<u8>) {
        match &self.template.compiled {
            Some(compiled) => self.push(&compiled.frame, self.time_ms, out),
            None => {
                self.push(&compile(&frame_text(&self.template.event, &self.template.definition)), self.time_ms, out);
            }
        }
    }

    /// Appends the row of the history, which gives this instant as `dateCreated`.
    pub fn push_row(&self, created: Millis, out: &mut Vec<u8>) {
        match &self.template.compiled {
            Some(compiled) => self.push(&compiled.row, created, out),
            None => self.push(&compile(&row_text(&self.template.event, &self.template.definition)), created, out),
        }
    }

    /// What identifies the event apart from its time: see [`content_key`].
    pub fn key(&self) -> String {
        let event = &self.template.event;
        let text = content_key(
            &event.definition,
            event.entity_id.as_deref(),
            event.conversation_id.as_deref(),
            event.error_code.as_deref(),
            event.previous_value.as_deref(),
            event.current_value.as_deref(),
        );
        let mut key = Vec::with_capacity(text.len() + 16);
        self.push(&compile(&text), self.time_ms, &mut key);
        String::from_utf8_lossy(&key).into_owned()
    }

    fn push(&self, pieces: &[Piece], time_ms: Millis, out: &mut Vec<u8>) {
        for piece in pieces {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Number => push_digits(u64::from(self.number), 12, out),
                Piece::Uuid => push_uuid(self.salt, out),
                Piece::Millis => out.extend_from_slice(time_ms.to_string().as_bytes()),
                Piece::Iso => push_millis(out, time_ms),
            }
        }
    }
}

/// What identifies an event on both ways, apart from its time: definition, entity, conversation, error code, previous
/// and current value; absent and empty are equal.
pub fn content_key(
    definition: &str,
    entity_id: Option<&str>,
    conversation_id: Option<&str>,
    error_code: Option<&str>,
    previous_value: Option<&str>,
    current_value: Option<&str>,
) -> String {
    let parts = [Some(definition), entity_id, conversation_id, error_code, previous_value, current_value];
    parts.map(Option::unwrap_or_default).join("|")
}

/// Cuts a text at its slots.
fn compile(text: &str) -> Vec<Piece> {
    let slots = [("{n}", 0), ("{uuid}", 1), ("{millis}", 2), ("{iso}", 3)];
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((at, slot, kind)) =
        slots.iter().filter_map(|(slot, kind)| rest.find(slot).map(|at| (at, slot, kind))).min_by_key(|found| found.0)
    {
        if at > 0 {
            pieces.push(Piece::Literal(rest[..at].into()));
        }
        pieces.push(match kind {
            0 => Piece::Number,
            1 => Piece::Uuid,
            2 => Piece::Millis,
            _ => Piece::Iso,
        });
        rest = &rest[at + slot.len()..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Literal(rest.into()));
    }
    pieces
}

fn push_digits(value: u64, width: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + width, b'0');
    let mut left = value;
    for digit in out[start..].iter_mut().rev() {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
    }
}

/// A UUID of version 4's shape that follows from the salt alone.
fn push_uuid(salt: u32, out: &mut Vec<u8>) {
    let high = mix(u64::from(salt) ^ 0x5bd1_e995_9e37_79b9);
    let low = mix(high ^ u64::from(salt));
    let bits = ((u128::from(high) << 64 | u128::from(low)) & !(0xf << 76 | 0b11 << 62)) | 0x4 << 76 | 0b10 << 62;
    for nibble in 0..32 {
        if matches!(nibble, 8 | 12 | 16 | 20) {
            out.push(b'-');
        }
        out.push(b"0123456789abcdef"[(bits >> (124 - 4 * nibble) & 0xf) as usize]);
    }
}

/// SplitMix64's last step: every bit of the value moves every bit of the result.
pub(super) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(event: Event, shared: bool) -> Stored {
        let definition = Arc::new(Definition::new(&event.definition, "Connection timeout", "It \"timed\" out."));
        let time_ms = event.time_ms.unwrap();
        Stored { time_ms, number: 42, salt: 7, template: Arc::new(Template::new(event, definition, shared)) }
    }

    fn json(bytes: &[u8]) -> serde_json::Value {
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn a_shared_template_gives_the_same_texts_as_a_single_event() {
        let event = Event::numbered("AUDIOHOOK-0002").at(1_795_430_645_123);
        let (single, shared) = (stored(event.clone(), false), stored(event, true));
        for created in [0, 1_795_430_645_999] {
            let (mut a, mut b) = (Vec::new(), Vec::new());
            single.push_row(created, &mut a);
            shared.push_row(created, &mut b);
            assert_eq!(a, b);
            single.push_frame(&mut a);
            shared.push_frame(&mut b);
            assert_eq!(a, b);
        }
        assert_eq!(single.key(), shared.key());
    }

    #[test]
    fn the_frame_and_the_row_carry_the_same_event_under_their_own_names() {
        let event = Event {
            parent_entity: Some("p".to_owned()),
            error_code: Some("4\"08".to_owned()),
            ..Event::numbered("AUDIOHOOK-0002").at(1_795_430_645_123)
        };
        let stored = stored(event, false);
        let (mut frame, mut row) = (Vec::new(), Vec::new());
        stored.push_frame(&mut frame);
        stored.push_row(1_795_430_645_123, &mut row);
        let (frame, row) = (json(&frame), json(&row));
        let body = &frame["eventBody"];
        assert_eq!(frame["topicName"], "v2.operations.events.AUDIOHOOK-0002");
        assert_eq!(body["eventEntity"]["description"], "It \"timed\" out.");
        assert_eq!(body["eventEntity"]["id"], row["eventDefinition"]["id"]);
        assert_eq!(body["timestamp"], 1_795_430_645_123i64);
        assert_eq!(row["dateCreated"], "2026-11-23T10:44:05.123Z");
        assert_eq!(body["currentValue"], "event 000000000042");
        for (ours, theirs) in [
            (&body["conversationId"], &row["conversation"]["id"]),
            (&body["parentEntity"], &row["parentEntityId"]),
            (&body["errorCode"], &row["errorCode"]),
            (&body["version"], &row["entityVersion"]),
        ] {
            assert!(ours.is_string());
            assert_eq!(ours, theirs);
        }
        assert!(row.get("entityType").is_none());
        assert!(stored.key().ends_with("|4\"08||event 000000000042"), "{}", stored.key());
    }

    #[test]
    fn a_uuid_has_its_shape_and_follows_from_the_salt() {
        let text = |salt| {
            let mut out = Vec::new();
            push_uuid(salt, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(1), text(1));
        assert_ne!(text(1), text(2));
        assert_eq!(text(1).len(), 36);
        assert_eq!(text(1).as_bytes()[14], b'4');
        assert!(matches!(text(1).as_bytes()[19], b'8'..=b'b'));
    }
}
