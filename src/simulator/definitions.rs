//! The service's event definitions: `GET /api/v2/usage/events/definitions`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

/// A definition. The API has neither severity nor category.
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
}

pub(super) fn self_uri(id: &str) -> String {
    format!("/api/v2/usage/events/definitions/{id}")
}

/// The initial definitions: AudioHook's and some of other features.
const CATALOGUE: [(&str, &str, &str); 12] = [
    ("AUDIOHOOK-0001", "AudioHook invalid server address", "The address of the AudioHook server is invalid."),
    ("AUDIOHOOK-0002", "AudioHook connection timeout", "The AudioHook server did not accept the connection in time."),
    (
        "AUDIOHOOK-0003",
        "AudioHook authentication failure",
        "The AudioHook server refused the API key or the signature.",
    ),
    ("AUDIOHOOK-0004", "AudioHook protocol error", "The AudioHook server sent a message out of sequence."),
    ("AUDIOHOOK-0005", "AudioHook disconnected", "The AudioHook server closed the session before the call ended."),
    ("AUDIOHOOK-0006", "AudioHook ping timeout", "The AudioHook server answered pings late or not at all."),
    ("AUDIOHOOK-0007", "AudioHook session rate limited", "The AudioHook server refused the session: too many at once."),
    ("AUDIOHOOK-0008", "AudioHook session recovered", "Audio streaming to the AudioHook server works again."),
    ("AUDIOHOOK-0009", "AudioHook invalid server message", "The AudioHook server sent a message that is invalid."),
    (
        "AUDIOHOOK-0012",
        "AudioHook message rate exceeded",
        "The AudioHook server sent too many messages: 5/s, bursts of 25.",
    ),
    ("DATAACTIONS-0001", "Data action timeout", "A data action did not answer in time."),
    ("TELEPHONY-0001", "Trunk out of service", "A trunk does not answer OPTIONS any more."),
];

/// All definitions, by id.
pub(super) type Definitions = BTreeMap<String, Definition>;

pub(super) fn catalogue() -> Definitions {
    CATALOGUE.iter().map(|(id, name, text)| ((*id).to_owned(), Definition::new(id, name, text))).collect()
}

/// The answer that lists all definitions except the removed ones.
pub(super) fn list_json(definitions: &Definitions, gone: &BTreeSet<String>) -> Value {
    let listed = definitions.iter().filter(|(id, _)| !gone.contains(*id));
    let to_json = |(id, of): (&String, &Definition)| json!({"id": id, "name": of.name, "description": of.description, "selfUri": self_uri(id)});
    let entities: Vec<Value> = listed.map(to_json).collect();
    json!({"entities": entities, "selfUri": "/api/v2/usage/events/definitions"})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EVENT_CODES;

    #[test]
    fn the_audiohook_definitions_are_the_documented_codes() {
        let offered =
            CATALOGUE.iter().filter(|(id, ..)| id.starts_with("AUDIOHOOK-")).map(|(id, name, _)| (*id, *name));
        let explained = EVENT_CODES.iter().map(|code| (code.id, code.name));
        assert_eq!(offered.collect::<Vec<_>>(), explained.collect::<Vec<_>>());
    }
}
