//! An event as JSON: the frame on the socket and the row of the history, as the public API describes the two.
//!
//! Deals with: which field stands where, and its name. What is an event's own (its number, its UUID, its time) stays a
//! slot: `{n}`, `{uuid}`, `{millis}`, `{iso}`. Must never: give the row what only the socket has, such as a name.

use super::definitions::Definition;
use super::event::{Event, SocketTime};

/// The socket's frame.
pub(super) fn frame_text(event: &Event, definition: &Definition) -> String {
    let mut body = Object::new();
    let mut entity = Object::new();
    entity.text("id", Some(&event.definition));
    entity.text("name", Some(&definition.name));
    entity.text("description", Some(&definition.description));
    body.raw("eventEntity", &entity.close());
    body.text("entityId", event.entity_id.as_deref());
    body.text("entityName", event.entity_name.as_deref());
    body.text("entityType", event.entity_type.as_deref());
    body.text("entityToken", event.entity_token.as_deref());
    body.text("previousValue", event.previous_value.as_deref());
    body.text("currentValue", event.current_value.as_deref());
    body.text("errorCode", event.error_code.as_deref());
    body.text("parentEntity", event.parent_entity.as_deref());
    body.text("conversationId", event.conversation_id.as_deref());
    body.text("version", event.version.as_deref());
    match event.socket_time {
        SocketTime::Millis => body.raw("timestamp", "{millis}"),
        SocketTime::Iso => body.raw("timestamp", "\"{iso}\""),
        SocketTime::Absent => {}
    }
    body.text("phoneNumber", event.phone_number.as_deref());
    body.text("externalContactId", event.external_contact_id.as_deref());
    body.text("entityModifiedBy", event.entity_modified_by.as_deref());
    for (name, value) in &event.extra {
        body.raw(name, value);
    }
    let mut frame = Object::new();
    frame.text("topicName", Some(&format!("v2.operations.events.{}", event.definition)));
    frame.text("version", Some("2"));
    frame.raw("eventBody", &body.close());
    frame.raw("metadata", "{\"CorrelationId\":\"{uuid}\"}");
    frame.close()
}

/// The history's row: no event id, no entity type, no name or description.
pub(super) fn row_text(event: &Event, definition: &Definition) -> String {
    let mut row = Object::new();
    let mut reference = Object::new();
    reference.text("id", Some(&event.definition));
    reference.text("selfUri", Some(&definition.self_uri()));
    row.raw("eventDefinition", &reference.close());
    row.text("entityId", event.entity_id.as_deref());
    row.text("entityToken", event.entity_token.as_deref());
    row.text("entityName", event.entity_name.as_deref());
    row.text("previousValue", event.previous_value.as_deref());
    row.text("currentValue", event.current_value.as_deref());
    row.text("errorCode", event.error_code.as_deref());
    row.text("parentEntityId", event.parent_entity.as_deref());
    if let Some(id) = &event.conversation_id {
        let mut conversation = Object::new();
        conversation.text("id", Some(id));
        conversation.text("selfUri", Some(&format!("/api/v2/conversations/{id}")));
        row.raw("conversation", &conversation.close());
    }
    row.raw("dateCreated", "\"{iso}\"");
    row.raw("dateModified", "\"{iso}\"");
    row.text("entityModifiedBy", event.entity_modified_by.as_deref());
    row.text("entityVersion", event.version.as_deref());
    row.text("phoneNumber", event.phone_number.as_deref());
    row.text("externalContactId", event.external_contact_id.as_deref());
    row.close()
}

/// A JSON object that keeps the order of its fields; a slot in a text passes through untouched.
struct Object(String);

impl Object {
    fn new() -> Self {
        Self("{".to_owned())
    }

    fn raw(&mut self, name: &str, value: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(&quoted(name));
        self.0.push(':');
        self.0.push_str(value);
    }

    fn text(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.raw(name, &quoted(value));
        }
    }

    fn close(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
