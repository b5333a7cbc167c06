//! What an answer of the cluster means, as a pure function of its status and body.
//!
//! OpenSearch and Elasticsearch alike, judged for the whole request and for each document. Must never: wait, write or
//! remember anything.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

/// Characters of a cluster's own words that are shown, at most.
const WORDS_MAX: usize = 600;

/// An HTTP answer, whatever its status.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub status: u16,
    /// The header of this name, as a time from now.
    pub retry_after: Option<Duration>,
    pub body: Vec<u8>,
}

/// What an answer means for the request as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Judged for each document, in the order of the request.
    Items(Vec<Item>),
    /// The request was too large: send less at once.
    TooLarge(String),
    /// The request was not understood: one of its documents may be the cause, or the address.
    Malformed(String),
    /// No document was taken.
    Held(Held),
}

/// What an answer means for one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Created,
    /// It was there before: just as good.
    Exists,
    /// The document itself is refused, for good.
    Dead {
        status: u16,
        reason: String,
    },
    Held(Held),
}

/// Why documents wait though nothing is wrong with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub cause: Cause,
    /// What is wrong, with the cluster's own words.
    pub why: String,
    /// What to do, where more is known than the cause: a sentence.
    pub advice: Option<String>,
}

/// What kind of thing is wrong, and so who has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No answer.
    Unreachable(Lost),
    /// An answer from something that is no cluster.
    NotACluster,
    Redirect,
    /// The cluster, a shard or a queue is overloaded or not up yet.
    Busy,
    /// The index is missing, closed or configured so that it takes no document.
    Index,
    /// 401.
    Login,
    /// 403: the user lacks a right.
    Rights,
    /// Writes are blocked, by a person's setting or a full disk.
    Blocked,
    /// The dead letters cannot be written, on this machine.
    Letters,
}

/// What became of a request without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It did not get there, or nobody knows.
    Unsent,
    /// The time ran out with the connection open: the cluster may be at work on it still.
    TimedOut,
    /// The connection broke while it was under way: it may be larger than somebody in between takes.
    Broke,
}

/// Signs of a block in a `cluster_block_exception`, with its cure.
const BLOCKS: [(&str, &str); 7] = [
    ("FORBIDDEN/5/", "Set index.blocks.read_only to null: somebody has set it."),
    ("FORBIDDEN/6/", "Set cluster.blocks.read_only to null in the cluster's settings: somebody has set it."),
    ("FORBIDDEN/8/", "Set index.blocks.write to null: somebody has set it."),
    ("FORBIDDEN/9/", "Set index.blocks.metadata to null, or map the new fields first: the mapping may not change."),
    ("FORBIDDEN/10/", "Allow the creation of indexes (cluster.blocks.create_index), or create the index yourself."),
    ("FORBIDDEN/13/", "Make room on the cluster's disks, then set cluster.blocks.read_only_allow_delete to null."),
    ("/12/", "Make room on the cluster's disks, then set index.blocks.read_only_allow_delete to null."),
];

impl Held {
    pub fn new(cause: Cause, why: impl Into<String>) -> Self {
        Self { cause, why: why.into(), advice: None }
    }

    /// What to do about it.
    pub fn cure(&self) -> &str {
        if let Some(advice) = &self.advice {
            return advice;
        }
        match self.cause {
            Cause::Unreachable(_) => "Check that the cluster is up and that ELASTIC_URL is right.",
            Cause::NotACluster => "Check ELASTIC_URL: it may lead to a proxy's login page, or lack a path.",
            Cause::Redirect => "Set ELASTIC_URL to the address behind the redirect.",
            Cause::Busy => {
                "Check the cluster's load, disks and log. Where a gateway answers for it, check ELASTIC_URL too."
            }
            Cause::Index => "Fix the index or its settings as the cluster's reason says.",
            Cause::Login => "Check ELASTIC_AUTH.",
            Cause::Rights => {
                "Give the user of ELASTIC_AUTH the rights to create documents in the index and to make it."
            }
            Cause::Blocked => block_cure(&self.why).unwrap_or("Lift the block of the index or the cluster."),
            Cause::Letters => "Free or fix the disk that holds OUTPUT_FILE.",
        }
    }

    /// Whether it is reported as a refusal; everything else counts as unreachable.
    pub fn is_refusal(&self) -> bool {
        matches!(self.cause, Cause::Login | Cause::Rights | Cause::Blocked)
    }
}

impl Verdict {
    /// The same with every text changed: to mask secrets that a cluster repeats.
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

/// The part of a bulk answer that is asked for (`filter_path`): enough to judge by.
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

/// Judges the answer to a bulk request of this many documents.
pub fn judge(reply: &Reply, documents: usize) -> Verdict {
    match reply.status {
        200..=299 => judge_items(&reply.body, documents),
        400 => Verdict::Malformed(told(reply)),
        413 => Verdict::TooLarge(told(reply)),
        _ => Verdict::Held(held(reply)),
    }
}

/// What an answer other than a success means for everything that waits.
pub fn held(reply: &Reply) -> Held {
    let why = told(reply);
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

/// A success whose body is no cluster's.
pub fn foreign() -> Held {
    Held::new(Cause::NotACluster, "it answers 200 with something that is no cluster's answer, perhaps a login page")
}

/// Status and words of an answer, for a person.
pub fn told(reply: &Reply) -> String {
    let words = words_of_body(&reply.body);
    if words.is_empty() {
        format!("it answers {}", reply.status)
    } else {
        format!("it answers {} ({words})", reply.status)
    }
}

fn judge_items(body: &[u8], documents: usize) -> Verdict {
    let Ok(answer) = serde_json::from_slice::<BulkAnswer>(body) else { return Verdict::Held(foreign()) };
    let answered = answer.items.len();
    if answered != documents {
        let why = format!("its bulk answer is about {answered} documents, and {documents} were sent");
        return Verdict::Held(Held::new(Cause::NotACluster, why));
    }
    Verdict::Items(answer.items.into_iter().map(|action| judge_item(&action.create)).collect())
}

fn judge_item(outcome: &Outcome) -> Item {
    let status = outcome.status;
    let (kind, reason) = outcome.error.as_ref().map(words_of_error).unwrap_or_default();
    let told = if kind.is_empty() { format!("status {status}") } else { format!("{kind}: {reason}") };
    let cause = match status {
        200..=299 => return Item::Created,
        409 => return Item::Exists,
        _ if block_cure(&told).is_some() => Cause::Blocked,
        401 => Cause::Login,
        403 if kind != "cluster_block_exception" => Cause::Rights,
        408 | 429 | 500..=599 => Cause::Busy,
        403 | 404 => Cause::Index,
        _ if is_about_the_index(&kind, &reason) => Cause::Index,
        _ => return Item::Dead { status, reason: told },
    };
    Item::Held(Held::new(cause, told))
}

/// Whether the cause is the index and not the document: the next document would fare the same.
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

fn block_cure(words: &str) -> Option<&'static str> {
    let is_block = words.contains("cluster_block_exception");
    BLOCKS.iter().find(|(sign, _)| is_block && words.contains(sign)).map(|(_, cure)| *cure)
}

/// What is the same in the reasons of documents that are refused for one and the same cause.
pub fn common_reason(reason: &str) -> &str {
    let reason = reason.split(" in document with id").next().unwrap_or(reason);
    // Elasticsearch 8 gives the place in the document: `document_parsing_exception: [1:6] failed …`.
    reason.split_once(": [").and_then(|(_, rest)| rest.split_once("] ")).map_or(reason, |(_, rest)| rest)
}

/// The type and reason of an `error`, which older versions give as one text.
fn words_of_error(error: &Value) -> (String, String) {
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

/// What a body says of an error: a cluster's, a gateway's `message` (AWS), or plain text; nothing for a web page.
pub fn words_of_body(body: &[u8]) -> String {
    let Ok(parsed) = serde_json::from_slice::<Value>(body) else {
        let text = std::str::from_utf8(body).unwrap_or_default().trim();
        return if text.starts_with('<') { String::new() } else { on_one_line(text) };
    };
    let message = ["message", "Message"].iter().find_map(|name| parsed.get(name)).and_then(Value::as_str);
    match (parsed.get("error"), message) {
        (Some(error), _) => {
            let (kind, reason) = words_of_error(error);
            if kind.is_empty() && reason.is_empty() { String::new() } else { format!("{kind}: {reason}") }
        }
        (None, Some(message)) => on_one_line(message),
        _ => String::new(),
    }
}

fn on_one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Cuts a text that is too long to read. Not before secrets are masked: half a secret would pass the mask.
pub fn shorten(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(WORDS_MAX) {
        text.replace_range(end.., "…");
    }
}

#[cfg(test)]
mod tests;
