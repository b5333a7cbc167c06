//! Notification topics: which exist, and whether a channel may have them.
//!
//! Deals with: templates with `{id}` in them, and the verdict on each asked topic. Must never: know a wildcard; the
//! service has none.

use serde_json::{Map, Value, json};

use super::http::Answer;
use super::state::State;

const OPERATIONAL: &str = "v2.operations.events.";

/// Some of the service's templates: id, description, permissions.
const TEMPLATES: [(&str, &str, &[&str]); 6] = [
    ("v2.operations.events.{id}", "Operational events of one definition", &["usage:events:view"]),
    ("v2.users.{id}.presence", "Presence of a user", &[]),
    ("v2.users.{id}.conversations", "Conversations of a user", &[]),
    ("v2.routing.queues.{id}.users", "Members of a queue", &["routing:queue:view"]),
    ("v2.detail.events.conversation.{id}.customer.start", "A customer joins", &["analytics:conversationDetail:view"]),
    ("v2.flows.{id}", "A flow was changed", &["architect:flow:view"]),
];

/// What becomes of an asked topic.
pub(super) enum Verdict {
    Permitted,
    Rejected { reason: String, missing: Vec<String> },
}

impl Verdict {
    pub fn to_json(&self, topic: &str) -> Value {
        match self {
            Self::Permitted => json!({"id": topic, "state": "Permitted"}),
            Self::Rejected { reason, missing } => {
                let mut entity = json!({"id": topic, "state": "Rejected", "rejectionReason": reason});
                if !missing.is_empty() {
                    entity["missingPermissions"] = json!(missing);
                }
                entity
            }
        }
    }
}

/// `GET availabletopics`: without `expand` a template has its id and its description alone.
pub(super) fn available(state: &State, expand: &[String]) -> Answer {
    let expanded = |name: &str| expand.iter().any(|part| part.eq_ignore_ascii_case(name));
    let entities: Vec<Value> = TEMPLATES
        .iter()
        .map(|(id, description, permissions)| {
            let mut entity = Map::new();
            entity.insert("id".to_owned(), json!(id));
            entity.insert("description".to_owned(), json!(description));
            if expanded("transports") {
                entity.insert("transports".to_owned(), json!(transports(state, id)));
            }
            if expanded("requiresPermissions") {
                entity.insert("requiresPermissions".to_owned(), json!(permissions));
            }
            if expanded("permissionDetails") {
                let details = json!([{"type": "requiresPermissions", "permissions": permissions}]);
                entity.insert("permissionDetails".to_owned(), details);
            }
            if expanded("topicParameters") {
                entity.insert("topicParameters".to_owned(), json!(["id"]));
            }
            Value::Object(entity)
        })
        .collect();
    Answer::json(200, json!({"entities": entities}))
}

/// Whether a channel may have the topic.
pub(super) fn judge(state: &State, topic: &str) -> Verdict {
    let rejected = |reason: &str| Verdict::Rejected { reason: reason.to_owned(), missing: Vec::new() };
    if let Some(rejection) = state.faults.rejection(topic) {
        return Verdict::Rejected { reason: rejection.reason.clone(), missing: rejection.missing_permissions.clone() };
    }
    let Some(template) = TEMPLATES.iter().map(|(id, ..)| *id).find(|template| matches(template, topic)) else {
        return rejected("The topic is not known.");
    };
    if let Some(id) = topic.strip_prefix(OPERATIONAL)
        && state.definitions.find(id).is_none()
    {
        return rejected("The topic is not known: no such event definition.");
    }
    let transports = transports(state, template);
    if !transports.iter().any(|t| t == "All" || t == "Websocket") {
        return rejected("The topic is not available on the Websocket transport.");
    }
    Verdict::Permitted
}

fn transports(state: &State, template: &str) -> Vec<String> {
    if template.starts_with(OPERATIONAL) { state.faults.knobs.transports.clone() } else { vec!["All".to_owned()] }
}

/// Whether the topic is the template with something for its `{id}`.
fn matches(template: &str, topic: &str) -> bool {
    let (template, topic): (Vec<&str>, Vec<&str>) = (template.split('.').collect(), topic.split('.').collect());
    template.len() == topic.len()
        && template.iter().zip(&topic).all(|(part, word)| {
            if *part == "{id}" { !word.is_empty() && *word != "{id}" && !word.contains('*') } else { part == word }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_known_by_its_template_and_wildcards_are_not() {
        assert!(matches("v2.operations.events.{id}", "v2.operations.events.AUDIOHOOK-0001"));
        for topic in ["v2.operations.events.*", "v2.operations.events.", "v2.operations.events.{id}", "v2.operations"] {
            assert!(!matches("v2.operations.events.{id}", topic), "{topic}");
        }
    }
}
