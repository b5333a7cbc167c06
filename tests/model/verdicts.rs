//! The verdicts: whatever a cluster answers, a document counts as done only where the answer says of it that it is there.

use audiohook_collector::elastic::verdict::{Cause, Held, Item, Reply, Verdict, judge};
use proptest::prelude::*;
use serde_json::{Value, json};

const KINDS: [&str; 8] = [
    "mapper_parsing_exception",
    "document_parsing_exception",
    "version_conflict_engine_exception",
    "es_rejected_execution_exception",
    "index_not_found_exception",
    "cluster_block_exception",
    "security_exception",
    "illegal_argument_exception",
];
const REASONS: [&str; 4] = [
    "failed to parse field [a] of type [long]",
    "index [a] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, index has read-only-allow-delete block];",
    "no such index [a]",
    "no",
];

/// A document's part of the answer.
#[derive(Clone, Debug)]
struct Part {
    status: u16,
    error: Option<(usize, usize)>,
    action: &'static str,
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let status = prop_oneof![
        4 => Just(201u16),
        2 => Just(409u16),
        2 => Just(429u16),
        2 => Just(400u16),
        1 => Just(404u16),
        1 => Just(503u16),
        1 => 200u16..600,
    ];
    let error = prop::option::of((0..KINDS.len(), 0..REASONS.len()));
    let part = (status, error, prop_oneof![9 => Just("create"), 1 => Just("index")]);
    prop::collection::vec(part.prop_map(|(status, error, action)| Part { status, error, action }), 0..8)
}

fn body(parts: &[Part]) -> Value {
    let items: Vec<Value> = parts
        .iter()
        .map(|part| {
            let error = part.error.map(|(kind, reason)| json!({ "type": KINDS[kind], "reason": REASONS[reason] }));
            json!({ part.action: { "status": part.status, "error": error } })
        })
        .collect();
    json!({ "errors": parts.iter().any(|part| part.status >= 300), "items": items })
}

/// What may become of a document, by its status alone.
fn fits(item: &Item, part: &Part) -> bool {
    match item {
        Item::Created => (200..300).contains(&part.status),
        Item::Exists => part.status == 409,
        // Nothing that time can mend is buried.
        Item::Dead { status, .. } => {
            *status == part.status && !matches!(part.status, 200..=299 | 401 | 403 | 404 | 408 | 409 | 429 | 500..=599)
        }
        Item::Held(Held { cause: Cause::Login | Cause::Rights, .. }) => matches!(part.status, 401 | 403),
        Item::Held(_) => !matches!(part.status, 200..=299 | 409),
    }
}

#[test]
fn each_document_is_judged_by_its_own_part_and_by_nothing_else() {
    super::run(parts(), |parts| {
        let judged = |body: Vec<u8>, sent| judge(&Reply { status: 200, retry_after: None, body }, sent);
        let whole = body(&parts).to_string().into_bytes();
        let Verdict::Items(items) = judged(whole.clone(), parts.len()) else {
            return Err(TestCaseError::fail("no verdict for each"));
        };
        prop_assert_eq!(items.len(), parts.len());
        for (item, part) in items.iter().zip(&parts) {
            prop_assert!(fits(item, part), "{item:?} for {part:?}");
            let alone = body(std::slice::from_ref(part)).to_string().into_bytes();
            prop_assert_eq!(judged(alone, 1), Verdict::Items(vec![item.clone()]));
        }
        // An answer that speaks of more or fewer, or is cut short, says nothing of any.
        prop_assert!(matches!(judged(whole.clone(), parts.len() + 1), Verdict::Held(_)));
        prop_assert!(matches!(judged(whole[..whole.len() - 1].to_vec(), parts.len()), Verdict::Held(_)));
        Ok(())
    });
}

#[test]
fn no_other_status_of_a_whole_request_says_of_a_document_that_it_is_done() {
    super::run((prop_oneof![100u16..200, 300u16..1_000], parts()), |(status, parts)| {
        let body = body(&parts).to_string().into_bytes();
        let verdict = judge(&Reply { status, retry_after: None, body }, parts.len());
        prop_assert!(!matches!(verdict, Verdict::Items(_)), "{status}: {verdict:?}");
        Ok(())
    });
}
