//! Judges responses of OpenSearch and Elasticsearch, for the whole request and for each document. All functions are
//! pure: the result depends only on the status and body.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

/// Maximum length of a cluster's message that is shown.
const MESSAGE_CHARS_MAX: usize = 600;

/// An HTTP response of any status.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub status: u16,
    /// The `Retry-After` header, as a time from now.
    pub retry_after: Option<Duration>,
    pub body: Vec<u8>,
}

/// The verdict on a bulk request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A verdict on each document, in the order of the request.
    Items(Vec<Item>),
    /// The request was too large: send fewer documents at once.
    TooLarge(String),
    /// The cluster did not understand the request. The cause may be one of its documents, or a wrong address.
    Malformed(String),
    /// No document was accepted.
    Held(Held),
}

/// The verdict on one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Created,
    /// The document is in the cluster already, which counts as success.
    Exists,
    /// The document is rejected for good.
    Dead {
        status: u16,
        reason: String,
    },
    Held(Held),
}

/// Why documents have to be retried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub cause: Cause,
    /// What is wrong, with the cluster's message.
    pub why: String,
    /// A fix more specific than that of the cause: a sentence.
    pub advice: Option<String>,
}

/// The kind of cause, which decides about the fix and the retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No response.
    Unreachable(Lost),
    /// The response does not come from a cluster.
    NotACluster,
    Redirect,
    /// The cluster, a shard or a queue is overloaded or not ready yet.
    Busy,
    /// The index is missing, closed or configured to accept no documents.
    Index,
    /// 401.
    Login,
    /// 403: the user lacks a right.
    Rights,
    /// Writes are blocked, by a setting or because of a full disk.
    Blocked,
    /// The dead letters cannot be written to the local disk.
    Letters,
}

/// What is known about a request without a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It did not reach the cluster, or it is unknown whether it did.
    Unsent,
    /// It timed out while the connection was open, so the cluster may still be processing it.
    TimedOut,
    /// The connection broke while it was being sent. It may be larger than a proxy allows.
    Broke,
}

/// Texts that identify a block in a `cluster_block_exception`, with the fix.
const BLOCKS: [(&str, &str); 7] = [
    ("FORBIDDEN/5/", "Set index.blocks.read_only to null. It was set by hand."),
    ("FORBIDDEN/6/", "Set cluster.blocks.read_only to null in the cluster's settings. It was set by hand."),
    ("FORBIDDEN/8/", "Set index.blocks.write to null. It was set by hand."),
    (
        "FORBIDDEN/9/",
        "Set index.blocks.metadata to null, or map the new fields first. The block forbids mapping changes.",
    ),
    ("FORBIDDEN/10/", "Allow the creation of indexes (cluster.blocks.create_index), or create the index yourself."),
    ("FORBIDDEN/13/", "Make room on the cluster's disks, then set cluster.blocks.read_only_allow_delete to null."),
    ("/12/", "Make room on the cluster's disks, then set index.blocks.read_only_allow_delete to null."),
];

impl Held {
    pub fn new(cause: Cause, why: impl Into<String>) -> Self {
        Self { cause, why: why.into(), advice: None }
    }

    pub fn cure(&self) -> &str {
        if let Some(advice) = &self.advice {
            return advice;
        }
        match self.cause {
            Cause::Unreachable(_) => "Check that the cluster is up and that ELASTIC_URL is right.",
            Cause::NotACluster => "Check ELASTIC_URL: it may lead to a proxy's login page, or its path may be missing.",
            Cause::Redirect => "Set ELASTIC_URL to the target of the redirect.",
            Cause::Busy => {
                "Check the cluster's load, disks and log. If the response comes from a gateway, check ELASTIC_URL too."
            }
            Cause::Index => "Fix the index or its settings. The cluster's message names the cause.",
            Cause::Login => "Check ELASTIC_AUTH.",
            Cause::Rights => "Give the user of ELASTIC_AUTH the rights to create the index and documents in it.",
            Cause::Blocked => block_cure(&self.why).unwrap_or("Remove the block of the index or the cluster."),
            Cause::Letters => "Free or fix the disk that holds OUTPUT_FILE.",
        }
    }

    /// Whether this is reported as `elastic_refused`; everything else is reported as `elastic_unreachable`.
    pub fn is_refusal(&self) -> bool {
        matches!(self.cause, Cause::Login | Cause::Rights | Cause::Blocked)
    }
}

impl Verdict {
    /// Applies `change` to every text, to mask secrets that a cluster repeats.
    #[must_use]
    pub fn map_texts(mut self, change: impl Fn(&mut String)) -> Self {
        match &mut self {
            Self::TooLarge(why) | Self::Malformed(why) | Self::Held(Held { why, .. }) => change(why),
            Self::Items(items) => {
                for item in items {
                    if let Item::Dead { reason: text, .. } | Item::Held(Held { why: text, .. }) = item {
                        change(text);
                    }
                }
            }
        }
        self
    }
}

/// The parts of a bulk response that the verdict needs, as `filter_path`.
pub const FILTER_PATH: &str =
    "errors,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by.reason,error,status,message";

#[derive(Deserialize)]
struct BulkAnswer {
    items: Vec<Action>,
}

#[derive(Deserialize)]
struct Action {
    #[serde(alias = "index")]
    create: Outcome,
}

#[derive(Deserialize)]
struct Outcome {
    status: u16,
    error: Option<Value>,
}

/// Judges the response to a bulk request of this many documents.
pub fn judge(reply: &Reply, documents: usize) -> Verdict {
    match reply.status {
        200..=299 => judge_items(&reply.body, documents),
        400 => Verdict::Malformed(describe(reply)),
        413 => Verdict::TooLarge(describe(reply)),
        _ => Verdict::Held(held(reply)),
    }
}

/// Judges a response other than a success.
pub fn held(reply: &Reply) -> Held {
    let why = describe(reply);
    let cause = match reply.status {
        403 | 429 if block_cure(&why).is_some() => Cause::Blocked,
        300..=399 => return Held::new(Cause::Redirect, format!("{why}, a redirect")),
        401 => Cause::Login,
        403 => Cause::Rights,
        408 | 429 | 500..=599 => Cause::Busy,
        _ => Cause::NotACluster,
    };
    Held::new(cause, why)
}

/// The verdict on a success whose body does not come from a cluster.
pub fn not_a_cluster() -> Held {
    Held::new(Cause::NotACluster, "the response does not come from a cluster; it may be a login page")
}

/// Describes a response by its status and message.
pub fn describe(reply: &Reply) -> String {
    let text = body_text(&reply.body);
    if text.is_empty() { format!("status {}", reply.status) } else { format!("status {} ({text})", reply.status) }
}

fn judge_items(body: &[u8], documents: usize) -> Verdict {
    let Ok(answer) = serde_json::from_slice::<BulkAnswer>(body) else { return Verdict::Held(not_a_cluster()) };
    let answered = answer.items.len();
    if answered != documents {
        let why = format!("the bulk response has {answered} items for {documents} documents");
        return Verdict::Held(Held::new(Cause::NotACluster, why));
    }
    Verdict::Items(answer.items.into_iter().map(|action| judge_item(&action.create)).collect())
}

fn judge_item(outcome: &Outcome) -> Item {
    let status = outcome.status;
    let (kind, reason) = outcome.error.as_ref().map(error_text).unwrap_or_default();
    let why = if kind.is_empty() { format!("status {status}") } else { format!("{kind}: {reason}") };
    let cause = match status {
        200..=299 => return Item::Created,
        409 => return Item::Exists,
        _ if block_cure(&why).is_some() => Cause::Blocked,
        401 => Cause::Login,
        403 if kind != "cluster_block_exception" => Cause::Rights,
        408 | 429 | 500..=599 => Cause::Busy,
        403 | 404 => Cause::Index,
        _ if is_about_the_index(&kind, &reason) => Cause::Index,
        _ => return Item::Dead { status, reason: why },
    };
    Item::Held(Held::new(cause, why))
}

/// Whether the index is the cause and not the document, so that every document would fail.
fn is_about_the_index(kind: &str, reason: &str) -> bool {
    matches!(
        kind,
        "index_not_found_exception"
            | "index_closed_exception"
            | "invalid_index_name_exception"
            | "validation_exception"
            | "cluster_block_exception"
    ) || reason.contains("no write index is defined for alias")
        || (reason.contains("pipeline with id [") && reason.contains("does not exist"))
}

fn block_cure(text: &str) -> Option<&'static str> {
    let is_block = text.contains("cluster_block_exception");
    BLOCKS.iter().find(|(sign, _)| is_block && text.contains(sign)).map(|(_, cure)| *cure)
}

/// The part of a reason that is the same for all documents that are rejected for the same cause.
pub fn common_reason(reason: &str) -> &str {
    let reason = reason.split(" in document with id").next().unwrap_or(reason);
    // Elasticsearch 8 adds the position in the document: `document_parsing_exception: [1:6] failed …`.
    reason.split_once(": [").and_then(|(_, rest)| rest.split_once("] ")).map_or(reason, |(_, rest)| rest)
}

/// The type and reason of an `error`. Older versions send a single text instead.
fn error_text(error: &Value) -> (String, String) {
    if let Some(text) = error.as_str() {
        return ("error".to_owned(), on_one_line(text));
    }
    let field = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut reason = field(error, "reason");
    let cause = error.get("caused_by").map(|cause| field(cause, "reason")).unwrap_or_default();
    if !cause.is_empty() && !reason.contains(&cause) {
        reason = format!("{reason}: {cause}");
    }
    (on_one_line(&field(error, "type")), on_one_line(&reason))
}

/// The error message in a body: a cluster's `error`, a gateway's `message` (AWS), or plain text; empty for a web page.
pub fn body_text(body: &[u8]) -> String {
    let Ok(parsed) = serde_json::from_slice::<Value>(body) else {
        let text = std::str::from_utf8(body).unwrap_or_default().trim();
        return if text.starts_with('<') { String::new() } else { on_one_line(text) };
    };
    let message = ["message", "Message"].iter().find_map(|name| parsed.get(name)).and_then(Value::as_str);
    match (parsed.get("error"), message) {
        (Some(error), _) => {
            let (kind, reason) = error_text(error);
            if kind.is_empty() && reason.is_empty() { String::new() } else { format!("{kind}: {reason}") }
        }
        (None, Some(message)) => on_one_line(message),
        _ => String::new(),
    }
}

fn on_one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Cuts a text that is too long to show. Secrets must be masked first, since the mask would miss half a secret.
pub fn shorten(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(MESSAGE_CHARS_MAX) {
        text.replace_range(end.., "…");
    }
}

#[cfg(test)]
mod tests;
