//! One bulk request: what goes into it, to which node, and what its answer makes of its documents. The indexer and a replay
//! share it.
//!
//! Must never: take a document out of the batch that is neither in the cluster nor on the disk as a dead letter.

use std::io;
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::config;
use crate::elastic::batch::Batch;
use crate::elastic::dead_letters::{DeadLetters, Kept, NewLetter};
use crate::elastic::nodes::Nodes;
use crate::elastic::transport::Transport;
use crate::elastic::verdict::{Cause, Held, Item, Lost, Verdict, common_reason, judge};

/// Requests that went well before a larger one is tried again.
const GROW_AFTER: u32 = 16;
/// Between two tries while the login is refused, and while the index takes no writes: only a try can tell.
const REFUSED_WAIT: Duration = Duration::from_secs(30);
const BLOCKED_WAIT: Duration = Duration::from_secs(8);
/// So many documents refused for one and the same reason, and none accepted, are the index's fault rather than theirs: they
/// wait for this long before they are dead letters.
const REFUSED_ALIKE_MIN: usize = 10;
const REFUSED_ALIKE_WAIT: Duration = Duration::from_secs(600);

/// What became of a request.
#[derive(Debug, Default)]
pub struct Sent {
    pub created: u64,
    pub exists: u64,
    pub kept: Kept,
    /// The last of the new dead letters: status and reason.
    pub last_letter: Option<(u16, String)>,
    /// Documents that are out of the batch.
    pub done: usize,
    /// Why others are not.
    pub held: Option<Held>,
    /// The node did not take the request.
    pub failed: bool,
}

/// The batch, and the way to the cluster.
pub struct Sender {
    pub transport: Transport,
    pub batch: Batch,
    pub letters: DeadLetters,
    pub nodes: Nodes,
    limit: Limit,
    refusals: Option<Refusals>,
    /// How long documents wait that are all refused alike.
    alike_wait: Duration,
    clock: Clock,
}

/// How many documents a request may hold, as the cluster taught us.
struct Limit {
    bulk_size: usize,
    documents: usize,
    good_requests: u32,
    /// A request was not understood; whether another one was since.
    malformed: Option<bool>,
}

/// Documents refused for one and the same reason, and none accepted.
struct Refusals {
    reason: String,
    documents: usize,
    /// Since when they are enough for the index to be at fault.
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

    /// For dead letters that a person sends again: what is refused is not waited for.
    pub fn for_replay(elastic: &config::Elastic, letters: DeadLetters, transport: Transport, clock: Clock) -> Self {
        Self { alike_wait: Duration::ZERO, ..Self::new(elastic, letters, transport, clock) }
    }

    /// Sends the first documents of the batch, one alone for a trial, takes out those that are done, and decides when the
    /// others go again.
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
            // It may be this document that the cluster cannot cope with.
            self.batch.rotate();
        }
        sent
    }

    /// The node did not take a request: decides when it is tried again.
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
                let other_was_understood = *self.limit.malformed.get_or_insert(false);
                if documents > 1 {
                    self.limit.halve(documents);
                    self.nodes.answered(node, self.clock.now());
                    return Sent::default();
                }
                if !other_was_understood {
                    return self.fail(node, Held::new(Cause::NotACluster, reason), retry_after);
                }
                vec![Item::Dead { status: 400, reason }]
            }
            Verdict::Held(held) => {
                // It may be the request's size that the cluster has no room for.
                if held.cause == Cause::Busy {
                    self.limit.halve(documents);
                }
                return self.fail(node, held, retry_after);
            }
        };
        self.settle(node, items)
    }

    /// Takes out what is done and keeps the dead letters.
    fn settle(&mut self, node: usize, mut items: Vec<Item>) -> Sent {
        let now = self.clock.now();
        let mut sent = Sent::default();
        for (index, item) in items.iter_mut().enumerate() {
            if matches!(item, Item::Dead { status: 400, .. }) && self.batch.remove_duplicate_keys(index) {
                *item = Item::Held(Held::new(Cause::Busy, "it refuses keys that are given twice"));
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
            self.limit.went_well();
            self.nodes.succeeded(now);
        }
        match (&sent.held, sent.held.as_ref().and_then(wait_of)) {
            (None, _) => {}
            (_, Some(wait)) => self.nodes.hold(wait, now),
            // A cluster that takes less than half of what it gets is given time.
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
            // Another process holds the lock for a moment: nothing to report.
            if error.kind() != io::ErrorKind::WouldBlock {
                log::warn!("{why}");
            }
            Held::new(Cause::Letters, why)
        })
    }

    /// Whether these and those before them were all refused for one reason, so that the index is at fault. Documents that
    /// were put off say nothing.
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
    /// A request of so many documents was too much.
    fn halve(&mut self, documents: usize) {
        self.documents = self.documents.min((documents / 2).max(1));
        self.good_requests = 0;
    }

    fn went_well(&mut self) {
        self.good_requests += 1;
        if self.good_requests >= GROW_AFTER {
            self.good_requests = 0;
            self.documents = (self.documents * 2).min(self.bulk_size);
        }
        self.malformed = self.malformed.filter(|_| self.documents < self.bulk_size.max(2)).map(|_| true);
    }
}

/// How long nothing is sent for a reason that only a person ends.
fn wait_of(held: &Held) -> Option<Duration> {
    match held.cause {
        Cause::Login | Cause::Rights => Some(REFUSED_WAIT),
        Cause::Blocked => Some(BLOCKED_WAIT),
        _ => None,
    }
}
