//! Sends bulk requests and acts on the responses, for the indexer and for `replay`.
//!
//! Must never: remove a document from the batch before it is in the cluster or, as a dead letter, on disk.

use std::io;
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::config;
use crate::elastic::batch::Batch;
use crate::elastic::dead_letters::{DeadLetters, Kept, NewLetter};
use crate::elastic::nodes::Nodes;
use crate::elastic::transport::Transport;
use crate::elastic::verdict::{Cause, Held, Item, Lost, Verdict, common_reason, judge};

/// Successful requests before the size of requests is doubled again.
const GROW_AFTER: u32 = 16;
/// Retry interval while the login is refused.
const REFUSED_WAIT: Duration = Duration::from_secs(30);
/// Retry interval while writes to the index are blocked.
const BLOCKED_WAIT: Duration = Duration::from_secs(8);
/// If at least this many documents in a row are refused for the same reason, the index is considered the cause. The
/// documents are then retried for `REFUSED_ALIKE_WAIT` before they become dead letters.
const REFUSED_ALIKE_MIN: usize = 10;
const REFUSED_ALIKE_WAIT: Duration = Duration::from_secs(600);

/// The result of a request.
#[derive(Debug, Default)]
pub struct Sent {
    pub created: u64,
    pub exists: u64,
    pub kept: Kept,
    /// Status and reason of the last new dead letter.
    pub last_letter: Option<(u16, String)>,
    /// Number of documents that were removed from the batch.
    pub done: usize,
    /// Why the other documents stay in the batch.
    pub held: Option<Held>,
    /// Whether the request failed as a whole.
    pub failed: bool,
}

/// The batch, and everything needed to send it.
pub struct Sender {
    pub transport: Transport,
    pub batch: Batch,
    pub letters: DeadLetters,
    pub nodes: Nodes,
    limit: Limit,
    refusals: Option<Refusals>,
    /// How long to retry documents that are all refused for the same reason.
    alike_wait: Duration,
    clock: Clock,
}

/// How many documents a request may hold, adapted to the cluster's responses.
struct Limit {
    bulk_size: usize,
    documents: usize,
    good_requests: u32,
    /// `Some` after a malformed request; true if the cluster has understood another request since.
    malformed: Option<bool>,
}

/// A run of documents that were all refused for the same reason.
struct Refusals {
    reason: String,
    documents: usize,
    /// When their number reached `REFUSED_ALIKE_MIN`.
    enough_since: Option<Instant>,
}

impl Sender {
    pub fn new(elastic: &config::Elastic, letters: DeadLetters, transport: Transport, clock: Clock) -> Self {
        let limit =
            Limit { bulk_size: elastic.bulk_size, documents: elastic.bulk_size, good_requests: 0, malformed: None };
        Self {
            nodes: Nodes::new(transport.urls().len(), clock.now()),
            batch: Batch::new(&elastic.index),
            transport,
            letters,
            limit,
            refusals: None,
            alike_wait: REFUSED_ALIKE_WAIT,
            clock,
        }
    }

    /// For replaying dead letters: documents that are all refused for the same reason are not retried.
    pub fn for_replay(elastic: &config::Elastic, letters: DeadLetters, transport: Transport, clock: Clock) -> Self {
        Self { alike_wait: Duration::ZERO, ..Self::new(elastic, letters, transport, clock) }
    }

    /// Sends the first documents of the batch, or only one as a trial. Removes the finished ones and schedules the
    /// retry of the others.
    pub fn send(&mut self, node: usize, timeout_max: Duration) -> Sent {
        let is_trial = self.nodes.is_trial(node);
        let documents = if is_trial { 1 } else { self.limit.documents.min(self.batch.len()) };
        let timeout = self.nodes.timeout(node).min(timeout_max);
        self.nodes.trying(self.clock.now());
        let answer = self.transport.bulk(node, self.batch.texts(documents), timeout);
        let sent = match answer {
            Err(held) => {
                if held.cause != Cause::Unreachable(Lost::Unsent) {
                    self.limit.halve(documents);
                }
                self.fail(node, held, None)
            }
            Ok(reply) => {
                let verdict = judge(&reply, documents).map_texts(|text| self.transport.mask(text));
                self.act(node, verdict, documents, reply.retry_after)
            }
        };
        if is_trial && sent.failed {
            // The failure may be caused by this document.
            self.batch.rotate();
        }
        sent
    }

    /// Handles a failed request and schedules the node's retry.
    pub fn fail(&mut self, node: usize, held: Held, retry_after: Option<Duration>) -> Sent {
        log::debug!("{}: {}", self.transport.urls()[node], held.why);
        let now = self.clock.now();
        let timed_out = held.cause == Cause::Unreachable(Lost::TimedOut);
        self.nodes.failed(node, timed_out, wait_of(&held).or(retry_after), now);
        Sent { held: Some(held), failed: true, ..Sent::default() }
    }

    fn act(&mut self, node: usize, verdict: Verdict, documents: usize, retry_after: Option<Duration>) -> Sent {
        let items = match verdict {
            Verdict::Items(items) => items,
            Verdict::TooLarge(reason) if documents == 1 => vec![Item::Dead { status: 413, reason }],
            Verdict::TooLarge(_) => {
                self.limit.halve(documents);
                self.nodes.answered(node, self.clock.now());
                return Sent::default();
            }
            Verdict::Malformed(reason) => {
                let understood_another = *self.limit.malformed.get_or_insert(false);
                if documents > 1 {
                    self.limit.halve(documents);
                    self.nodes.answered(node, self.clock.now());
                    return Sent::default();
                }
                if !understood_another {
                    return self.fail(node, Held::new(Cause::NotACluster, reason), retry_after);
                }
                vec![Item::Dead { status: 400, reason }]
            }
            Verdict::Held(held) => {
                // The request may be too large for the cluster's memory.
                if held.cause == Cause::Busy {
                    self.limit.halve(documents);
                }
                return self.fail(node, held, retry_after);
            }
        };
        self.settle(node, items)
    }

    /// Removes the finished documents from the batch and stores the dead letters.
    fn settle(&mut self, node: usize, mut items: Vec<Item>) -> Sent {
        let now = self.clock.now();
        let mut sent = Sent::default();
        for (index, item) in items.iter_mut().enumerate() {
            if matches!(item, Item::Dead { status: 400, .. }) && self.batch.remove_duplicate_keys(index) {
                *item = Item::Held(Held::new(Cause::Busy, "it refuses duplicate keys"));
            }
        }
        if self.are_refused_alike(&items, now) {
            for item in &mut items {
                if let Item::Dead { reason, .. } = item {
                    let why = format!("it refuses every document for the same reason: {reason}");
                    *item = Item::Held(Held::new(Cause::Index, why));
                }
            }
        }
        let mut letters = Vec::new();
        for (index, item) in items.iter().enumerate() {
            match item {
                Item::Created => sent.created += 1,
                Item::Exists => sent.exists += 1,
                Item::Dead { status, reason } => {
                    let record = self.batch.record(index);
                    letters.push(NewLetter { status: *status, reason: reason.clone(), record });
                }
                Item::Held(held) if sent.held.as_ref().is_none_or(|other| !other.is_refusal()) => {
                    sent.held = Some(held.clone());
                }
                Item::Held(_) => {}
            }
        }
        let are_kept = match self.keep(&letters) {
            Ok(kept) => {
                sent.kept = kept;
                sent.last_letter = letters.pop().map(|letter| (letter.status, letter.reason));
                true
            }
            Err(held) => {
                sent.held = Some(held);
                false
            }
        };
        let is_done = |index: usize| match items[index] {
            Item::Created | Item::Exists => true,
            Item::Dead { .. } => are_kept,
            Item::Held(_) => false,
        };
        let before = self.batch.len();
        self.batch.settle(items.len(), now, |index| !is_done(index));
        sent.done = before - self.batch.len();
        self.nodes.answered(node, now);
        if sent.done > 0 {
            self.limit.succeeded();
            self.nodes.succeeded(now);
        }
        match (&sent.held, sent.held.as_ref().and_then(wait_of)) {
            (None, _) => {}
            (_, Some(wait)) => self.nodes.hold(wait, now),
            // Back off if the cluster accepted less than half of the documents.
            _ if sent.done < items.len().div_ceil(2) => self.nodes.back_off(now),
            _ => {}
        }
        sent
    }

    fn keep(&mut self, letters: &[NewLetter]) -> Result<Kept, Held> {
        if letters.is_empty() {
            return Ok(Kept::default());
        }
        self.letters.append(self.clock.wall(), letters).map_err(|error| {
            let why = format!("cannot write {}: {error}", self.letters.path().display());
            // Not worth a warning: another process holds the lock for a moment.
            if error.kind() != io::ErrorKind::WouldBlock {
                log::warn!("{why}");
            }
            Held::new(Cause::Letters, why)
        })
    }

    /// Whether so many documents in a row were refused for the same reason that the index is the likely cause.
    /// Documents to be retried are ignored.
    fn are_refused_alike(&mut self, items: &[Item], now: Instant) -> bool {
        let judged: Vec<Option<&str>> = items
            .iter()
            .filter(|item| !matches!(item, Item::Held(_)))
            .map(|item| match item {
                Item::Dead { status: 400, reason } => Some(common_reason(reason)),
                _ => None,
            })
            .collect();
        let Some(first) = judged.first() else { return false };
        let Some(reason) = first.filter(|_| judged.iter().all(|reason| reason == first)) else {
            self.refusals = None;
            return false;
        };
        let known = self.refusals.take().filter(|refusals| refusals.reason == reason);
        let refusals = self.refusals.insert(known.unwrap_or_else(|| Refusals {
            reason: reason.to_owned(),
            documents: 0,
            enough_since: None,
        }));
        refusals.documents += judged.len();
        refusals.documents >= REFUSED_ALIKE_MIN && now < *refusals.enough_since.get_or_insert(now) + self.alike_wait
    }
}

impl Limit {
    /// Allows half as many documents as in this request, which was too large.
    fn halve(&mut self, documents: usize) {
        self.documents = self.documents.min((documents / 2).max(1));
        self.good_requests = 0;
    }

    fn succeeded(&mut self) {
        self.good_requests += 1;
        if self.good_requests >= GROW_AFTER {
            self.good_requests = 0;
            self.documents = (self.documents * 2).min(self.bulk_size);
        }
        self.malformed = self.malformed.filter(|_| self.documents < self.bulk_size.max(2)).map(|_| true);
    }
}

/// The retry interval for a cause that only an operator can fix and only a retry can show to be fixed.
fn wait_of(held: &Held) -> Option<Duration> {
    match held.cause {
        Cause::Login | Cause::Rights => Some(REFUSED_WAIT),
        Cause::Blocked => Some(BLOCKED_WAIT),
        _ => None,
    }
}
