//! Notification topics: which exist, and whether a channel may subscribe to them. There are no wildcards.

use serde_json::{Value, json};

use super::fault::Rejection;
use super::http::Answer;
use super::state::State;

const OPERATIONAL: &str = "v2.operations.events.";

/// Some of the service's topic templates: id, description, permissions.
const TEMPLATES: [(&str, &str, &[&str]); 2] = [
    ("v2.operations.events.{id}", "Operational events of one definition", &["usage:events:view"]),
    ("v2.users.{id}.presence", "Presence of a user", &[]),
];

/// `GET availabletopics`: without `expand`, a template has only its id and description.
pub(super) fn available(state: &State, expand: &str) -> Answer {
    let template = |(id, description, permissions): &(&str, &str, &[&str])| {
        let all = [
            ("transports", json!(transports(state, id))),
            ("requiresPermissions", json!(permissions)),
            ("permissionDetails", json!([{"type": "requiresPermissions", "permissions": permissions}])),
            ("topicParameters", json!(["id"])),
        ];
        let mut entity = json!({"id": id, "description": description});
        for (name, value) in all {
            if expand.split(',').any(|part| part.trim().eq_ignore_ascii_case(name)) {
                entity[name] = value;
            }
        }
        entity
    };
    Answer::json(200, json!({"entities": TEMPLATES.iter().map(template).collect::<Vec<Value>>()}))
}

/// Why a channel may not subscribe to the topic; `None` if it may.
pub(super) fn rejection(state: &State, topic: &str) -> Option<Rejection> {
    let rejected = |reason: &str| {
        let reason = reason.to_owned();
        Some(Rejection { prefix: topic.to_owned(), reason, missing_permissions: Vec::new() })
    };
    if let Some(rejection) = state.rejections.iter().find(|rejection| topic.starts_with(&rejection.prefix)) {
        return Some(rejection.clone());
    }
    let Some((template, ..)) = TEMPLATES.iter().find(|(template, ..)| matches(template, topic)) else {
        return rejected("The topic is not known.");
    };
    if topic.strip_prefix(OPERATIONAL).is_some_and(|id| !state.definitions.contains_key(id) || state.gone.contains(id))
    {
        return rejected("The topic is not known: no such event definition.");
    }
    if !transports(state, template).iter().any(|transport| transport == "All" || transport == "Websocket") {
        return rejected("The topic is not available on the Websocket transport.");
    }
    None
}

fn transports(state: &State, template: &str) -> Vec<String> {
    if template.starts_with(OPERATIONAL) { state.knobs.transports.clone() } else { vec!["All".to_owned()] }
}

/// Whether the topic is the template with an actual id in place of `{id}`.
fn matches(template: &str, topic: &str) -> bool {
    let Some((before, after)) = template.split_once("{id}") else { return template == topic };
    let id = topic.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
    id.is_some_and(|id| !id.is_empty() && !id.contains(['.', '*', '{']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_matches_its_template_and_wildcards_do_not() {
        assert!(matches("v2.operations.events.{id}", "v2.operations.events.AUDIOHOOK-0001"));
        for topic in ["v2.operations.events.*", "v2.operations.events.", "v2.operations.events.{id}", "v2.operations"] {
            assert!(!matches("v2.operations.events.{id}", topic), "{topic}");
        }
    }
}
