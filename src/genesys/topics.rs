//! Which topics to subscribe to, and which definitions to request from the history: those of TOPICS_FILE, else the
//! AudioHook definitions, else a built-in list.
//!
//! Pure, except for reading the file. Must never: request different definitions from the socket and the history.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::channel::TOPICS_MAX;
use crate::message::Definition;

/// Prefix of the operational events' topics, followed by the definition's id.
pub const TOPIC_PREFIX: &str = "v2.operations.events.";
/// Prefix of the ids of AudioHook's definitions.
pub const ID_PREFIX: &str = "AUDIOHOOK-";

/// The topics of earlier collectors, unknown to the service.
const FORMER_TOPICS: [&str; 3] =
    ["platform.integration.audiohook", "platform.operations.audiohook", "v2.auditing.integration.audiohook"];

/// The built-in list ends at AUDIOHOOK-0032. The service rejects ids that do not exist; they cost nothing.
const BUILT_IN_MAX: u32 = 32;

/// The names of the known definitions.
const BUILT_IN_NAMES: [&str; 3] =
    ["AudioHook integration error", "AudioHook connection time-out", "AudioHook authentication error"];

/// The definitions to use until some have been fetched.
pub fn built_in() -> Vec<Definition> {
    (1..=BUILT_IN_MAX)
        .map(|number| Definition {
            id: format!("{ID_PREFIX}{number:04}"),
            name: BUILT_IN_NAMES.get(number as usize - 1).map(|name| (*name).to_owned()),
            description: None,
        })
        .collect()
}

/// Whether the id is an AudioHook definition's, ignoring case.
pub fn is_audiohook_id(id: &str) -> bool {
    starts_with_ignoring_case(id, ID_PREFIX)
}

fn starts_with_ignoring_case(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
}

/// The topics to subscribe to and the definitions to request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub topics: Vec<String>,
    /// The definitions that the topics name.
    pub ids: Vec<String>,
    /// Entries that were left out or changed, for the log.
    pub notices: Vec<String>,
}

/// Makes the plan from the file's entries and the definitions, if there are any.
pub fn plan(file: Option<&[String]>, definitions: Option<&[Definition]>) -> Plan {
    let built_in = built_in();
    let everything = format!("{TOPIC_PREFIX}{ID_PREFIX}*");
    let mut notices = Vec::new();
    let mut topics = BTreeSet::new();
    let mut taken = Vec::new();
    for entry in file.unwrap_or_default() {
        let entry = entry.trim();
        if entry.is_empty() {
        } else if entry == "channel.metadata" || entry.starts_with("v2.system.") {
            notices.push(format!("the topic {entry} is left out: it comes by itself"));
        } else if FORMER_TOPICS.contains(&entry) {
            notices.push(format!("the topic {entry} does not exist: it is taken as {everything}"));
            taken.push(everything.clone());
        } else if entry.starts_with(ID_PREFIX) {
            notices.push(format!("{entry} is the id of a definition: it is taken as the topic {TOPIC_PREFIX}{entry}"));
            taken.push(format!("{TOPIC_PREFIX}{entry}"));
        } else {
            taken.push(entry.to_owned());
        }
    }
    if taken.is_empty() {
        if file.is_some() {
            notices.push(format!("TOPICS_FILE names no topic to subscribe to: {everything} is taken"));
        }
        taken.push(everything);
    }
    for entry in taken {
        match entry.strip_suffix('*') {
            // Uses the service's spelling.
            None => {
                let is_it = |topic: &String| topic.eq_ignore_ascii_case(&entry);
                let known = definitions.unwrap_or_default().iter().map(|one| format!("{TOPIC_PREFIX}{}", one.id));
                let spelled = known.into_iter().find(is_it).unwrap_or(entry);
                topics.insert(spelled);
            }
            Some(prefix) => {
                let matching = |known: &[Definition]| -> Vec<String> {
                    let named = known.iter().map(|definition| format!("{TOPIC_PREFIX}{}", definition.id));
                    named.filter(|topic| starts_with_ignoring_case(topic, prefix)).collect()
                };
                let mut found = definitions.map(matching).unwrap_or_default();
                if found.is_empty() {
                    found = matching(&built_in);
                    notices.push(if found.is_empty() {
                        format!("{entry} matches no definition that is known: there is nothing to collect for it")
                    } else if definitions.is_some() {
                        format!(
                            "{entry} matches no definition: {} built-in ones are taken; see whether the organization has an AudioHook integration (Admin > Integrations), and whether TOPICS_FILE names what it should",
                            found.len()
                        )
                    } else {
                        format!("{entry} cannot be expanded yet: {} built-in ones are taken", found.len())
                    });
                }
                topics.extend(found);
            }
        }
    }
    if topics.len() > TOPICS_MAX {
        notices.push(format!("{} topics are too many for a channel: the first {TOPICS_MAX} are taken", topics.len()));
    }
    let topics: Vec<String> = topics.into_iter().take(TOPICS_MAX).collect();
    let ids = topics.iter().filter_map(|topic| topic.strip_prefix(TOPIC_PREFIX)).map(str::to_owned).collect();
    Plan { topics, ids, notices }
}

#[derive(Deserialize)]
struct Available {
    entities: Option<Vec<Template>>,
}

#[derive(Deserialize)]
struct Template {
    id: Option<String>,
    transports: Option<Vec<String>>,
}

/// Transports of the operational events' topic, from an `availabletopics` answer; `None` if it has none.
///
/// # Errors
/// If it is not such an answer.
pub fn understand_transports(body: &str) -> Result<Option<Vec<String>>, String> {
    let answer: Available = serde_json::from_str(body).map_err(|error| format!("it lists no topics ({error})"))?;
    let wanted = TOPIC_PREFIX.trim_end_matches('.');
    let is_wanted = |template: &Template| template.id.as_ref().is_some_and(|id| id.starts_with(wanted));
    Ok(answer.entities.unwrap_or_default().into_iter().find(is_wanted).and_then(|found| found.transports))
}

/// Whether the transports include a socket.
pub fn allow_socket(transports: &[String]) -> bool {
    transports
        .iter()
        .any(|transport| transport.eq_ignore_ascii_case("all") || transport.eq_ignore_ascii_case("websocket"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definitions(ids: &[&str]) -> Vec<Definition> {
        ids.iter().map(|id| Definition { id: (*id).to_owned(), ..Definition::default() }).collect()
    }

    fn entries(list: &[&str]) -> Vec<String> {
        list.iter().map(|entry| (*entry).to_owned()).collect()
    }

    #[test]
    fn a_star_stands_for_every_known_definition() {
        let known = definitions(&["AUDIOHOOK-0001", "AUDIOHOOK-0042", "BOTS-0001"]);
        let from_file = plan(Some(&entries(&["v2.operations.events.AUDIOHOOK-*"])), Some(&known));
        assert_eq!(from_file.ids, ["AUDIOHOOK-0001", "AUDIOHOOK-0042"]);
        assert_eq!(from_file, plan(None, Some(&known)));
        let all = plan(Some(&entries(&["v2.operations.events.*"])), Some(&known));
        assert_eq!(all.ids, ["AUDIOHOOK-0001", "AUDIOHOOK-0042", "BOTS-0001"]);
        let built_in = plan(None, None).ids;
        assert_eq!((built_in.len(), built_in[31].as_str()), (32, "AUDIOHOOK-0032"));
    }

    #[test]
    fn the_predecessors_file_works_with_a_notice_for_each_change() {
        let file = entries(&[
            "platform.integration.audiohook",
            "platform.operations.audiohook",
            "v2.auditing.integration.audiohook",
            "channel.metadata",
        ]);
        let made = plan(Some(&file), Some(&definitions(&["AUDIOHOOK-0001"])));
        assert_eq!(made.topics, ["v2.operations.events.AUDIOHOOK-0001"]);
        assert_eq!(made.notices.len(), 4);
    }

    #[test]
    fn other_topics_stay_as_they_are_and_the_history_is_asked_for_what_they_name() {
        let file = entries(&["v2.operations.events.BOTS-0007", "v2.users.1.presence", "v2.system.x", "AUDIOHOOK-0009"]);
        let made = plan(Some(&file), None);
        assert_eq!(
            made.topics,
            ["v2.operations.events.AUDIOHOOK-0009", "v2.operations.events.BOTS-0007", "v2.users.1.presence"]
        );
        assert_eq!(made.ids, ["AUDIOHOOK-0009", "BOTS-0007"]);
    }

    #[test]
    fn transports_are_found_by_the_template() {
        let body = r#"{"entities":[{"id":"v2.users.{id}.presence","transports":["All"]},
            {"id":"v2.operations.events.{id}","transports":["EventBridge"]}]}"#;
        let transports = understand_transports(body).unwrap().unwrap();
        assert!(
            !allow_socket(&transports) && allow_socket(&["Websocket".to_owned()]) && allow_socket(&["All".to_owned()])
        );
        assert_eq!(understand_transports(r#"{"entities":[]}"#), Ok(None));
        assert!(understand_transports("[]").is_err());
    }
}
