//! An operational event as a test describes it, and its texts: the socket's frame, the history's row, and the key that
//! identifies it in both.
//!
//! Events with the same template share its texts, so that a million of them fit into a few dozen MiB.

use std::io::Write;
use std::sync::Arc;

use super::definitions::{Definition, self_uri};
use crate::clock::{Millis, format_millis};

/// The format of the event's time in the socket's frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SocketTime {
    /// `timestamp`: an integer, milliseconds since 1970.
    #[default]
    Millis,
    /// `timestamp`: ISO 8601 text.
    Iso,
    /// No `timestamp`; [`Event::extra`] can add one in any format.
    Absent,
}

/// An event. The fields are named as in the socket's event body; the history's row has other names for some.
///
/// In every text, `{n}` is replaced by the event's number (twelve digits, to fit the end of a UUID) and `{uuid}` by a
/// UUID derived from the event's salt. Events that differ only in these and in their time share one template.
#[derive(Clone, Debug, Default)]
pub struct Event {
    /// `eventEntity.id`, such as `AUDIOHOOK-0001`.
    pub definition: String,
    /// Milliseconds since 1970; `None`: the service's time when it is issued.
    pub time_ms: Option<Millis>,
    /// The time in the history; `None`: `time_ms`, shifted by the knobs.
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
    /// More fields of the socket's body: name and raw JSON value, appended unchanged.
    pub extra: Vec<(String, String)>,
}

impl Event {
    /// An event of this definition with an integration, a conversation of its own and its number.
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

    /// The same event with this time in the history.
    pub fn row_at(mut self, time_ms: Millis) -> Self {
        self.row_time_ms = Some(time_ms);
        self
    }
}

/// Identifies an event, apart from its time, in both socket and history: definition, entity, conversation, error code,
/// previous and current value; absent and empty are equal.
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

/// Placeholders in a template's texts for an event's own values. JSON contains no bare control characters.
const NUMBER: char = '\u{1}';
const UUID: char = '\u{2}';
const MILLIS: char = '\u{3}';
const ISO: char = '\u{4}';
const SLOTS: [char; 4] = [NUMBER, UUID, MILLIS, ISO];

/// An event and its texts, with placeholders.
pub(super) struct Template {
    pub event: Event,
    frame: String,
    row: String,
    key: String,
}

impl Template {
    pub fn new(event: Event, definition: &Definition) -> Self {
        let slotted = |text: String| text.replace("{n}", "\u{1}").replace("{uuid}", "\u{2}");
        let key = content_key(
            &event.definition,
            event.entity_id.as_deref(),
            event.conversation_id.as_deref(),
            event.error_code.as_deref(),
            event.previous_value.as_deref(),
            event.current_value.as_deref(),
        );
        let (frame, row) = (slotted(frame_text(&event, definition)), slotted(row_text(&event)));
        Self { event, frame, row, key: slotted(key) }
    }
}

/// An issued event: its own values and its template.
#[derive(Clone)]
pub(super) struct Stored {
    pub time_ms: Millis,
    pub number: u32,
    pub salt: u32,
    pub template: Arc<Template>,
}

impl Stored {
    /// Appends the socket's frame.
    pub fn push_frame(&self, out: &mut Vec<u8>) {
        self.push(&self.template.frame, self.time_ms, out);
    }

    /// Appends the history's row, with `created` as `dateCreated`.
    pub fn push_row(&self, created: Millis, out: &mut Vec<u8>) {
        self.push(&self.template.row, created, out);
    }

    /// The event's [`content_key`].
    pub fn key(&self) -> String {
        let mut key = Vec::new();
        self.push(&self.template.key, self.time_ms, &mut key);
        String::from_utf8_lossy(&key).into_owned()
    }

    /// Appends a text with its placeholders replaced.
    fn push(&self, text: &str, time_ms: Millis, out: &mut Vec<u8>) {
        for part in text.split_inclusive(SLOTS) {
            let literal = part.trim_end_matches(SLOTS);
            out.extend_from_slice(literal.as_bytes());
            // Writing to memory cannot fail.
            let _ = match part[literal.len()..].chars().next() {
                Some(NUMBER) => write!(out, "{:012}", self.number),
                Some(UUID) => write!(out, "{}", uuid(u64::from(self.salt))),
                Some(MILLIS) => write!(out, "{time_ms}"),
                Some(_) => write!(out, "{}", format_millis(time_ms)),
                None => Ok(()),
            };
        }
    }
}

/// A UUID in the format of version 4, derived from the seed alone.
pub(super) fn uuid(seed: u64) -> String {
    let (high, low) = (mix(seed ^ 0x5bd1_e995_9e37_79b9), mix(mix(seed)));
    let text = format!("{high:016x}{low:016x}");
    format!("{}-{}-4{}-a{}-{}", &text[..8], &text[8..12], &text[13..16], &text[17..20], &text[20..])
}

/// SplitMix64's mixing step: every input bit affects every output bit.
pub(super) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Reads a field of an event.
type Field = fn(&Event) -> &Option<String>;

/// The fields with their names on the socket and in the history; an empty name: absent there, or in another format.
const FIELDS: [(&str, &str, Field); 13] = [
    ("entityId", "entityId", |event| &event.entity_id),
    ("entityName", "entityName", |event| &event.entity_name),
    ("entityType", "", |event| &event.entity_type),
    ("entityToken", "entityToken", |event| &event.entity_token),
    ("previousValue", "previousValue", |event| &event.previous_value),
    ("currentValue", "currentValue", |event| &event.current_value),
    ("errorCode", "errorCode", |event| &event.error_code),
    ("parentEntity", "parentEntityId", |event| &event.parent_entity),
    ("conversationId", "", |event| &event.conversation_id),
    ("version", "entityVersion", |event| &event.version),
    ("phoneNumber", "phoneNumber", |event| &event.phone_number),
    ("externalContactId", "externalContactId", |event| &event.external_contact_id),
    ("entityModifiedBy", "entityModifiedBy", |event| &event.entity_modified_by),
];

/// The socket's frame.
fn frame_text(event: &Event, definition: &Definition) -> String {
    let entity = object([
        ("id", Some(quoted(&event.definition))),
        ("name", Some(quoted(&definition.name))),
        ("description", Some(quoted(&definition.description))),
    ]);
    let timestamp = match event.socket_time {
        SocketTime::Millis => Some(MILLIS.to_string()),
        SocketTime::Iso => Some(format!("\"{ISO}\"")),
        SocketTime::Absent => None,
    };
    let fields = FIELDS.iter().map(|(name, _, field)| (*name, field(event).as_deref().map(quoted)));
    let extra = event.extra.iter().map(|(name, value)| (name.as_str(), Some(value.clone())));
    let body = [("eventEntity", Some(entity)), ("timestamp", timestamp)].into_iter().chain(fields).chain(extra);
    object([
        ("topicName", Some(quoted(&format!("v2.operations.events.{}", event.definition)))),
        ("version", Some(quoted("2"))),
        ("eventBody", Some(object(body))),
        ("metadata", Some(format!("{{\"CorrelationId\":\"{UUID}\"}}"))),
    ])
}

/// The history's row, which has no event id, entity type, name or description.
fn row_text(event: &Event) -> String {
    let reference = |id: &str, uri: String| object([("id", Some(quoted(id))), ("selfUri", Some(quoted(&uri)))]);
    let conversation = event.conversation_id.as_ref();
    let created = Some(format!("\"{ISO}\""));
    let fields = FIELDS.iter().filter(|(_, name, _)| !name.is_empty());
    let fields = fields.map(|(_, name, field)| (*name, field(event).as_deref().map(quoted)));
    let references = [
        ("eventDefinition", Some(reference(&event.definition, self_uri(&event.definition)))),
        ("conversation", conversation.map(|id| reference(id, format!("/api/v2/conversations/{id}")))),
        ("dateCreated", created.clone()),
        ("dateModified", created),
    ];
    object(references.into_iter().chain(fields))
}

/// A JSON object of the present fields, in order.
fn object<'a>(fields: impl IntoIterator<Item = (&'a str, Option<String>)>) -> String {
    let present = fields.into_iter().filter_map(|(name, value)| Some(format!("{}:{}", quoted(name), value?)));
    format!("{{{}}}", present.collect::<Vec<_>>().join(","))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_and_the_row_carry_the_same_event_under_their_own_names() {
        let event = Event {
            parent_entity: Some("p".to_owned()),
            error_code: Some("4\"08".to_owned()),
            ..Event::numbered("AUDIOHOOK-0002")
        };
        let definition = Definition::new("AUDIOHOOK-0002", "Connection timeout", "It \"timed\" out.");
        let template = Arc::new(Template::new(event, &definition));
        let stored = Stored { time_ms: 1_795_430_645_123, number: 42, salt: 7, template };
        let (mut frame, mut row) = (Vec::new(), Vec::new());
        stored.push_frame(&mut frame);
        stored.push_row(1_795_430_645_124, &mut row);
        let json = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
        let (frame, row) = (json(&frame), json(&row));
        let body = &frame["eventBody"];
        assert_eq!(frame["topicName"], "v2.operations.events.AUDIOHOOK-0002");
        assert_eq!(body["eventEntity"]["description"], "It \"timed\" out.");
        assert_eq!(body["eventEntity"]["id"], row["eventDefinition"]["id"]);
        assert_eq!(body["timestamp"], 1_795_430_645_123i64);
        assert_eq!(row["dateCreated"], "2026-11-23T10:44:05.124Z");
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
    fn a_uuid_has_the_right_format_and_is_derived_from_the_seed() {
        assert_eq!(uuid(1), uuid(1));
        assert_ne!(uuid(1), uuid(2));
        assert_eq!((uuid(1).len(), uuid(1).as_bytes()[14]), (36, b'4'));
    }
}
