//! What an answer of the cluster means.
//!
//! Deals with: the status and body of a bulk answer, of OpenSearch and of Elasticsearch alike, judged for the whole
//! request and for each document. Must never: do anything but judge; nothing here waits, writes or remembers.

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
    /// The request was not understood: one of its documents may be the cause, or all of the way there.
    Malformed(String),
    /// The login, or its right to write, was refused: everything is held until somebody mends it.
    Refused(String),
    /// The index takes no writes: everything is held.
    ReadOnly(String),
    /// Not now: again after a while, and not before the time it asks for.
    Busy { why: String, retry_after: Option<Duration> },
    /// No answer of a cluster: again, at another node if there is one.
    Failed(String),
}

/// What an answer means for one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Created,
    /// It was there before: just as good.
    Exists,
    /// Again, for the cause lies in the cluster.
    Again(String),
    /// Never, for the cause lies in the document.
    Dead {
        status: u16,
        reason: String,
    },
    Refused(String),
    ReadOnly(String),
}

impl Item {
    /// Whether the document itself was not understood: what may be mended in it.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Dead { status: 400, .. })
    }
}

/// The part of a bulk answer that is asked for (`filter_path`): enough to judge by.
pub const FILTER_PATH: &str =
    "errors,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by.reason,error,status";

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
    let words = || words_of_body(&reply.body);
    match reply.status {
        200..=299 => judge_items(&reply.body, documents),
        300..=399 => Verdict::Failed(format!(
            "it answers {} and sends us elsewhere: set ELASTIC_URL to the address behind the redirect",
            reply.status
        )),
        400 => Verdict::Malformed(format!("it answers 400 to the whole request{}", words())),
        401 => Verdict::Refused(format!("it refuses our login (401){}", words())),
        403 | 429 if is_blocked(&words()) => {
            Verdict::ReadOnly(format!("it takes no writes ({}){}", reply.status, words()))
        }
        403 => Verdict::Refused(format!("it refuses our login the right to write (403){}", words())),
        413 => Verdict::TooLarge(format!("it answers 413, too large{}", words())),
        408 | 429 | 500..=599 => {
            Verdict::Busy { why: format!("it answers {}{}", reply.status, words()), retry_after: reply.retry_after }
        }
        404 => Verdict::Failed(format!(
            "it answers 404{}: is the path in ELASTIC_URL right, and the index there?",
            words()
        )),
        status => Verdict::Failed(format!("it answers {status}{}", words())),
    }
}

fn judge_items(body: &[u8], documents: usize) -> Verdict {
    let Ok(answer) = serde_json::from_slice::<BulkAnswer>(body) else {
        return Verdict::Failed(
            "it answers 200 with something that is no bulk answer: does ELASTIC_URL lead to a proxy's login page?"
                .to_owned(),
        );
    };
    if answer.items.len() != documents {
        return Verdict::Failed(format!(
            "its bulk answer speaks of {} documents, and {documents} were sent",
            answer.items.len()
        ));
    }
    Verdict::Items(answer.items.into_iter().map(|action| judge_item(&action.create)).collect())
}

fn judge_item(outcome: &Outcome) -> Item {
    let status = outcome.status;
    let (kind, reason) = match &outcome.error {
        Some(error) => words_of_error(error),
        None => (String::new(), String::new()),
    };
    let told = || if kind.is_empty() { format!("status {status}") } else { format!("{kind}: {reason}") };
    match status {
        200 | 201 => Item::Created,
        202..=299 => Item::Created,
        409 => Item::Exists,
        _ if kind == "cluster_block_exception" && is_blocked(&told()) => Item::ReadOnly(told()),
        401 | 403 => Item::Refused(told()),
        429 | 500..=599 => Item::Again(told()),
        // A 408 and these kinds speak of the index or the cluster; the next document would fare the same.
        408 => Item::Again(told()),
        400..=499 if is_about_the_index(&kind, &reason) => Item::Again(told()),
        _ => Item::Dead { status, reason: told() },
    }
}

/// Whether the cause is the index's state and not the document: it was deleted, closed, cannot be made, or has no place
/// to write to. Such documents wait, for a person can mend that, and nothing is wrong with them.
fn is_about_the_index(kind: &str, reason: &str) -> bool {
    matches!(
        kind,
        "index_not_found_exception"
            | "index_closed_exception"
            | "invalid_index_name_exception"
            | "validation_exception"
            | "cluster_block_exception"
    ) || reason.contains("no write index is defined for alias")
}

/// Whether the words are those of a block against writing: of a full disk's, or of a person's.
pub fn is_blocked(words: &str) -> bool {
    words.contains("cluster_block_exception")
        && ["read-only", "FORBIDDEN/8", "index write (api)"].iter().any(|sign| words.contains(sign))
}

/// The type and reason of an `error`, which older versions give as one text.
fn words_of_error(error: &Value) -> (String, String) {
    if let Some(text) = error.as_str() {
        return ("error".to_owned(), shortened(text));
    }
    let field = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut reason = field(error, "reason");
    let cause = error.get("caused_by").map(|cause| field(cause, "reason")).unwrap_or_default();
    if !cause.is_empty() && !reason.contains(&cause) {
        reason = format!("{reason}: {cause}");
    }
    (shortened(&field(error, "type")), shortened(&reason))
}

/// What a body that is a cluster's error says, as ` (type: reason)`; nothing for a body that is none.
pub fn words_of_body(body: &[u8]) -> String {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let Some(error) = parsed.as_ref().and_then(|body| body.get("error")) else { return String::new() };
    let (kind, reason) = words_of_error(error);
    if kind.is_empty() && reason.is_empty() { String::new() } else { format!(" ({kind}: {reason})") }
}

/// On one line, and no longer than is good to read.
fn shortened(text: &str) -> String {
    text.chars().take(WORDS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str) -> Reply {
        Reply { status, retry_after: None, body: body.as_bytes().to_vec() }
    }

    fn items(body: &str, documents: usize) -> Vec<Item> {
        match judge(&reply(200, body), documents) {
            Verdict::Items(items) => items,
            other => panic!("{other:?}"),
        }
    }

    fn again(item: &Item) -> bool {
        matches!(item, Item::Again(_))
    }

    #[test]
    fn created_existing_and_conflicting_documents_are_told_apart_for_opensearch() {
        let judged = items(
            r#"{"errors":true,"items":[{"create":{"status":201}},{"create":{"status":409,"error":{"type":"version_conflict_engine_exception","reason":"[a]: version conflict, document already exists (current version [1])","index":"t1","shard":"0","index_uuid":"tjGjeVVmQCKsYCSWRLR48A"}}},{"create":{"status":400,"error":{"type":"mapper_parsing_exception","reason":"failed to parse field [n] of type [long] in document with id 'b'. Preview of field's value: 'abc'","caused_by":{"type":"illegal_argument_exception","reason":"For input string: \"abc\""}}}}]}"#,
            3,
        );
        assert_eq!(judged[..2], [Item::Created, Item::Exists]);
        let Item::Dead { status: 400, reason } = &judged[2] else { panic!("{judged:?}") };
        assert!(reason.starts_with("mapper_parsing_exception: failed to parse field [n] of type [long]"), "{reason}");
        assert!(reason.ends_with("For input string: \"abc\""), "{reason}");
    }

    #[test]
    fn a_conflict_of_elasticsearch_8_is_dead_too_and_a_whole_answer_may_carry_more_fields() {
        let judged = items(
            r#"{"took":30,"ingest_took":2,"errors":true,"items":[{"create":{"_index":"t1","_id":"b","status":400,"error":{"type":"document_parsing_exception","reason":"[1:6] failed to parse field [n] of type [long] in document with id 'b'. Preview of field's value: 'abc'","caused_by":{"type":"illegal_argument_exception","reason":"For input string: \"abc\""}}}},{"create":{"_index":"t1","_id":"a","_version":1,"result":"created","_shards":{"total":2,"successful":1,"failed":0},"_seq_no":0,"_primary_term":1,"status":201}}]}"#,
            2,
        );
        assert!(matches!(&judged[0], Item::Dead { status: 400, .. }));
        assert_eq!(judged[1], Item::Created);
    }

    #[test]
    fn what_the_cluster_could_not_take_now_goes_again() {
        let judged = items(
            r#"{"errors":true,"items":[
            {"create":{"status":429,"error":{"type":"es_rejected_execution_exception","reason":"rejected execution of coordinating operation"}}},
            {"create":{"status":503,"error":{"type":"unavailable_shards_exception","reason":"[t1][0] primary shard is not active Timeout: [1m]"}}},
            {"create":{"status":500,"error":"an older version's single text"}},
            {"create":{"status":404,"error":{"type":"index_not_found_exception","reason":"no such index [t1]"}}},
            {"create":{"status":400,"error":{"type":"index_closed_exception","reason":"closed"}}},
            {"create":{"status":400,"error":{"type":"validation_exception","reason":"Validation Failed: 1: this action would add [2] shards, but this cluster currently has [1000]/[1000] maximum normal shards open;"}}},
            {"create":{"status":404,"error":{"type":"resource_not_found_exception","reason":"pipeline gone"}}},
            {"create":{"status":413,"error":{"type":"too_large","reason":"document too large"}}}]}"#,
            8,
        );
        assert!(judged[..6].iter().all(again), "{judged:?}");
        assert!(matches!(&judged[6], Item::Dead { status: 404, .. }));
        assert!(matches!(&judged[7], Item::Dead { status: 413, .. }));
    }

    #[test]
    fn a_read_only_index_is_known_by_either_status_and_for_the_whole_request_too() {
        let full_disk = r#"{"type":"cluster_block_exception","reason":"index [t1] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, index has read-only-allow-delete block];"}"#;
        let by_hand = r#"{"type":"cluster_block_exception","reason":"index [t1] blocked by: [FORBIDDEN/5/index read-only (api)];"}"#;
        let write =
            r#"{"type":"cluster_block_exception","reason":"index [t1] blocked by: [FORBIDDEN/8/index write (api)];"}"#;
        let not_yet = r#"{"type":"cluster_block_exception","reason":"blocked by: [SERVICE_UNAVAILABLE/2/no master];"}"#;
        let judged = items(
            &format!(
                r#"{{"errors":true,"items":[{{"create":{{"status":429,"error":{full_disk}}}}},{{"create":{{"status":403,"error":{by_hand}}}}},{{"create":{{"status":403,"error":{write}}}}},{{"create":{{"status":503,"error":{not_yet}}}}}]}}"#
            ),
            4,
        );
        assert!(judged[..3].iter().all(|item| matches!(item, Item::ReadOnly(_))), "{judged:?}");
        assert!(again(&judged[3]));
        let whole = judge(&reply(429, &format!(r#"{{"error":{full_disk},"status":429}}"#)), 1);
        assert!(matches!(whole, Verdict::ReadOnly(_)), "{whole:?}");
        let whole = judge(&reply(503, &format!(r#"{{"error":{not_yet},"status":503}}"#)), 1);
        assert!(matches!(whole, Verdict::Busy { .. }), "{whole:?}");
    }

    #[test]
    fn a_document_that_the_login_may_not_write_is_held_and_not_dead() {
        let judged = items(
            r#"{"errors":true,"items":[{"create":{"status":403,"error":{"type":"security_exception","reason":"action [indices:data/write/bulk[s]] is unauthorized for user [x]"}}}]}"#,
            1,
        );
        assert!(matches!(&judged[0], Item::Refused(_)));
    }

    #[test]
    fn a_body_that_is_no_bulk_answer_is_a_failure() {
        for (body, documents) in [
            ("<html><body>Please log in</body></html>", 1),
            ("", 1),
            ("{}", 0),
            (r#"{"errors":false}"#, 1),
            (r#"{"errors":false,"items":[]}"#, 1),
            (r#"{"errors":false,"items":[{"create":{"status":201}}]}"#, 2),
            (r#"{"errors":false,"items":[{"create":{"status":201}},{"create":{"status":2"#, 2),
            (r#"{"errors":false,"items":[{"delete":{"status":200}}]}"#, 1),
        ] {
            let verdict = judge(&reply(200, body), documents);
            assert!(matches!(verdict, Verdict::Failed(_)), "{body}: {verdict:?}");
        }
    }

    #[test]
    fn whole_requests_are_judged_by_their_status() {
        assert!(matches!(judge(&reply(413, ""), 5), Verdict::TooLarge(_)));
        assert!(matches!(judge(&reply(401, ""), 5), Verdict::Refused(_)));
        assert!(matches!(judge(&reply(403, r#"{"message":"forbidden"}"#), 5), Verdict::Refused(_)));
        assert!(matches!(judge(&reply(302, ""), 5), Verdict::Failed(_)));
        assert!(matches!(judge(&reply(404, ""), 5), Verdict::Failed(_)));
        assert!(matches!(judge(&reply(502, "<html>bad gateway</html>"), 5), Verdict::Busy { .. }));
        assert!(matches!(
            judge(&reply(400, r#"{"error":"no handler found for uri [/x/_bulk] and method [POST]"}"#), 5),
            Verdict::Malformed(why) if why.contains("no handler found")
        ));
        let mut busy = reply(
            429,
            r#"{"error":{"root_cause":[],"type":"es_rejected_execution_exception","reason":"rejected execution of coordinating operation [coordinating_and_primary_bytes=0]"},"status":429}"#,
        );
        busy.retry_after = Some(Duration::from_secs(7));
        let Verdict::Busy { why, retry_after } = judge(&busy, 5) else { panic!() };
        assert!(why.contains("429") && why.contains("rejected execution"), "{why}");
        assert_eq!(retry_after, Some(Duration::from_secs(7)));
    }
}
