//! Checks the cluster's settings that refuse documents, and writes a test document, which is deleted again. If that
//! fails, the document's id is reported.

use std::time::Duration;

use serde_json::Value;
use ureq::http::Method;

use super::Findings;
use crate::clock::{Clock, format_millis};
use crate::elastic::verdict;
use crate::status::Problem;

/// Timeout of a request: longer than [`SERVER_TIME`], so that the outcome is known.
pub(super) const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);
/// The server's own timeout for a write, after which no document can appear later.
const SERVER_TIME: &str = "5s";

/// Status and body, or why there is no response.
pub(super) type Answer = Result<(u16, Vec<u8>), String>;

/// A node of the cluster, and the index for the events.
pub(super) struct Cluster<'a> {
    pub ask: &'a dyn Fn(Method, &str, Option<&str>) -> Answer,
    pub index: &'a str,
    /// The index's name, encoded for a path.
    pub encoded: &'a str,
}

impl Cluster<'_> {
    fn get(&self, path: &str) -> Option<Value> {
        let (status, body) = (self.ask)(Method::GET, path, None).ok()?;
        (status == 200).then(|| serde_json::from_slice(&body).ok()).flatten()
    }

    /// Whether a server that does not identify itself is a cluster. A cluster refuses an empty bulk request with its
    /// own kind of error. A proxy in front of it may allow only bulk requests.
    pub fn is_one(&self) -> bool {
        let Ok((status, body)) = (self.ask)(Method::POST, "/_bulk", Some("\n")) else { return false };
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        match status {
            200..=299 => body["items"].is_array(),
            _ => status != 404 && body["error"].is_object(),
        }
    }

    fn exists(&self) -> bool {
        (self.ask)(Method::HEAD, &format!("/{}", self.encoded), None).is_ok_and(|(status, _)| status != 404)
    }

    /// Checks settings that refuse documents from every user. If the login may not read them, only the test document
    /// can show this.
    pub fn check_settings(&self, out: &Findings) {
        const NAME: &str = "cluster settings";
        let index = self.index;
        let settings = self.get("/_cluster/settings?include_defaults=true&flat_settings=true").unwrap_or_default();
        let mut problems = Vec::new();
        if setting(&settings, "rest.action.multi.allow_explicit_index") == Some("false") {
            problems.push(Problem::new(
                "rest.action.multi.allow_explicit_index is false: the cluster refuses every bulk request",
                "Set it to true in the configuration file of every node.",
            ));
        }
        let auto_create = setting(&settings, "action.auto_create_index").unwrap_or("true");
        if !allows(auto_create, index) && !self.exists() {
            problems.push(Problem::new(
                format!("action.auto_create_index is {auto_create}: the index {index} does not exist and will not be created"),
                format!("Create the index {index}, or allow it in action.auto_create_index."),
            ));
        }
        let health =
            self.get(&format!("/_cluster/health/{}?level=indices&timeout=1s", self.encoded)).unwrap_or_default();
        if health["indices"].as_object().is_some_and(|all| all.values().any(|one| one["status"] == "red")) {
            problems.push(Problem::new(
                format!("the index {index} is red: a primary shard is not allocated and accepts no documents"),
                "Check the cluster's nodes and disks (GET _cluster/allocation/explain).",
            ));
        }
        for problem in &problems {
            out.problem(NAME, problem);
        }
        if problems.is_empty() {
            out.ok(
                NAME,
                if settings.is_null() { "not visible for this login" } else { "no setting refuses documents" },
            );
        }
    }

    /// Tests the right to write by creating a document and deleting it.
    pub fn check_write(&self, clock: &Clock, out: &Findings) {
        const NAME: &str = "cluster write";
        let index = self.index;
        if !self.exists() {
            return out.ok(NAME, format_args!("not tried: the index {index} does not exist yet"));
        }
        let id = format!("audiohook-collector-check-{}", clock.wall());
        let now = format_millis(clock.wall());
        let document =
            format!(r#"{{"@timestamp":"{now}","timestamp":"{now}","event_type":"audiohook_collector_check"}}"#);
        let create = format!("/{}/_create/{id}?timeout={SERVER_TIME}", self.encoded);
        let made = (self.ask)(Method::PUT, &create, Some(&document));
        // A document of a data stream is deleted from its backing index, which the response names.
        let answer: Value =
            made.as_ref().map(|(_, body)| serde_json::from_slice(body).unwrap_or_default()).unwrap_or_default();
        let backing = answer["_index"].as_str().unwrap_or(self.encoded);
        let delete = || (self.ask)(Method::DELETE, &format!("/{backing}/_doc/{id}?timeout={SERVER_TIME}"), None);
        let cure = match &made {
            Ok((200..=299, _)) => {
                return match delete() {
                    Ok((200..=299, _)) => out.ok(NAME, format_args!("a document was created in {index} and deleted")),
                    other => out.bad(
                        NAME,
                        format_args!(
                            "a document was created in {index} and could not be deleted: {}",
                            describe(&other)
                        ),
                        format_args!(
                            "Delete the document {id} yourself. The collector itself needs no right to delete."
                        ),
                    ),
                };
            }
            // A gateway may time out before the cluster does.
            Ok((408 | 500.., _)) | Err(_) => {
                let cure = "Check the cluster's log and load.";
                return match delete() {
                    Ok((200..=299, _)) => out.bad(NAME, describe(&made), cure),
                    _ => out.bad(
                        NAME,
                        describe(&made),
                        format_args!("{cure} Then delete the document {id} from {index}, if it exists."),
                    ),
                };
            }
            Ok((status, _)) => {
                let blocked = answer["error"]["type"].as_str() == Some("cluster_block_exception");
                match status {
                    _ if blocked => {
                        "Check the free space of the cluster's disks, then remove the block (index.blocks.*)."
                    }
                    401 | 403 => "Give the user the rights to create the index and documents in it.",
                    _ => "Check the cluster's log.",
                }
            }
        };
        out.bad(NAME, describe(&made), cure);
    }
}

/// A cluster setting: the transient value, else the persistent one, else the default.
fn setting<'a>(settings: &'a Value, name: &str) -> Option<&'a str> {
    ["transient", "persistent", "defaults"].iter().find_map(|layer| settings[layer][name].as_str())
}

/// Whether `action.auto_create_index` allows this index: its value is true, false, or patterns with + and -, of which
/// the first match counts.
fn allows(auto_create: &str, index: &str) -> bool {
    if matches!(auto_create, "true" | "false") {
        return auto_create == "true";
    }
    let rule = auto_create.split(',').map(str::trim).find(|rule| matches(rule.trim_start_matches(['+', '-']), index));
    rule.is_some_and(|rule| !rule.starts_with('-'))
}

/// Whether a name matches a pattern with `*`.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => {
            let Some(rest) = name.strip_prefix(before) else { return false };
            (0..=rest.len()).any(|at| rest.is_char_boundary(at) && matches(after, &rest[at..]))
        }
    }
}

/// Describes a response in one line.
fn describe(answer: &Answer) -> String {
    match answer {
        Ok((status, body)) => {
            let mut text = verdict::body_text(body);
            verdict::shorten(&mut text);
            let text = if text.is_empty() { text } else { format!(" ({text})") };
            format!("the cluster responded with status {status}{text}")
        }
        Err(why) => why.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_create_index_is_true_false_or_patterns() {
        for (value, expected) in [
            ("true", true),
            ("false", false),
            ("+genesys-*", true),
            ("-genesys-*,+*", false),
            ("other,*audio*", true),
            ("logs", false),
        ] {
            assert_eq!(allows(value, "genesys-audiohook"), expected, "{value}");
        }
    }
}
