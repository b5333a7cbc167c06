//! The event definitions that the service offers: `GET /api/v2/usage/events/definitions`, all or one.
//!
//! Deals with: the catalogue and its JSON. Must never: tell AudioHook's definitions from the others; that is the
//! asker's business.

use std::sync::Arc;

use serde_json::{Value, json};

/// One definition: the API gives neither a severity nor a category.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    pub id: String,
    pub name: String,
    pub description: String,
}

impl Definition {
    pub fn new(id: &str, name: &str, description: &str) -> Self {
        Self { id: id.to_owned(), name: name.to_owned(), description: description.to_owned() }
    }

    pub(super) fn self_uri(&self) -> String {
        format!("/api/v2/usage/events/definitions/{}", self.id)
    }

    pub(super) fn to_json(&self) -> Value {
        json!({"id": self.id, "name": self.name, "description": self.description, "selfUri": self.self_uri()})
    }
}

/// What the service offers at the start: AudioHook's, and some of other features.
const CATALOGUE: [(&str, &str, &str); 13] = [
    ("AUDIOHOOK-0001", "AudioHook invalid server address", "The address of the AudioHook server is invalid."),
    ("AUDIOHOOK-0002", "AudioHook connection timeout", "The AudioHook server did not accept the connection in time."),
    (
        "AUDIOHOOK-0003",
        "AudioHook authentication failure",
        "The AudioHook server refused the API key or the signature.",
    ),
    ("AUDIOHOOK-0004", "AudioHook protocol error", "The AudioHook server sent a message that breaks the protocol."),
    ("AUDIOHOOK-0005", "AudioHook disconnected", "The AudioHook server closed the session before the call ended."),
    ("AUDIOHOOK-0006", "AudioHook ping timeout", "The AudioHook server did not answer a ping in time."),
    ("AUDIOHOOK-0007", "AudioHook session rate limited", "The AudioHook server refused the session: too many at once."),
    ("AUDIOHOOK-0008", "AudioHook session recovered", "Audio streaming to the AudioHook server works again."),
    ("DATAACTIONS-0001", "Data action timeout", "A data action did not answer in time."),
    ("DATAACTIONS-0002", "Data action error", "A data action answered with an error."),
    ("TELEPHONY-0001", "Trunk out of service", "A trunk does not answer OPTIONS any more."),
    ("TELEPHONY-0002", "Trunk in service", "A trunk answers OPTIONS again."),
    ("ARCHITECT-0001", "Flow error", "A flow left through its error handling."),
];

/// All definitions, in the order in which they are listed.
pub(super) struct Definitions(Vec<Arc<Definition>>);

impl Definitions {
    pub fn catalogue() -> Self {
        Self(CATALOGUE.iter().map(|(id, name, text)| Arc::new(Definition::new(id, name, text))).collect())
    }

    /// Adds one, or replaces the one with this id.
    pub fn add(&mut self, definition: Definition) -> Arc<Definition> {
        let definition = Arc::new(definition);
        self.0.retain(|other| other.id != definition.id);
        self.0.push(definition.clone());
        definition
    }

    pub fn find(&self, id: &str) -> Option<Arc<Definition>> {
        self.0.iter().find(|definition| definition.id == id).cloned()
    }

    pub fn to_json(&self) -> Value {
        let entities: Vec<Value> = self.0.iter().map(|definition| definition.to_json()).collect();
        json!({"entities": entities, "selfUri": "/api/v2/usage/events/definitions"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::event_code;

    #[test]
    fn audiohooks_definitions_have_the_names_that_are_explained() {
        for (id, name, _) in CATALOGUE.iter().filter(|(id, ..)| id.starts_with("AUDIOHOOK-")) {
            assert_eq!(event_code(id).map(|code| code.name), Some(*name), "{id}");
        }
    }
}
