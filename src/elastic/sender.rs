//! One bulk request: what goes into it, and what its answer makes of its documents. The indexer and a replay share it.
//!
//! Must never: take a document out of the batch that is neither in the cluster nor on the disk as a dead letter.

use std::io;
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::config;
use crate::elastic::batch::{Batch, REQUEST_BYTES_MAX};
use crate::elastic::dead_letters::{DeadLetters, Kept, NewLetter};
use crate::elastic::transport::Transport;
use crate::elastic::verdict::{Cause, Held, Item, Verdict, common_reason, judge};
use crate::output::identity::Cursor;

/// Requests are not made smaller than this for a cluster that is slow, nor than this for one that is busy.
const SLOW_BYTES_MIN: usize = 64 * 1024;
const BUSY_BYTES_MIN: usize = 16 * 1024;
/// A request this large may be what breaks the connection.
const SUSPECT_BYTES: usize = 256 * 1024;
/// Requests that went well before a larger one is tried again: after a 413, which will most likely come again; and after
/// the cluster was slow or busy, which passes.
const GROW_AFTER_TOO_LARGE: u32 = 64;
const GROW_AFTER_BUSY: u32 = 4;
/// So many documents refused for one and the same reason, and none accepted, are the index's fault rather than theirs: they
/// wait for this long before they are dead letters.
const REFUSED_ALIKE_MIN: usize = 10;
const REFUSED_ALIKE_WAIT: Duration = Duration::from_secs(600);

/// How an attempt went.
#[derive(Debug)]
pub enum Attempt {
    Judged(Judged),
    /// Nothing was wrong but the request's size: again at once, smaller.
    Smaller,
    /// No document was taken.
    Failed {
        held: Held,
        timed_out: bool,
        retry_after: Option<Duration>,
    },
}

/// What became of the documents of a request.
#[derive(Debug, Default)]
pub struct Judged {
    pub created: u64,
    pub exists: u64,
    pub kept: Kept,
    /// The last of the new dead letters: status and reason.
    pub last_letter: Option<(u16, String)>,
    /// Where the documents began that are out of the batch.
    pub done: Vec<Cursor>,
    /// Documents that go again, and why; none: for a reason of their own that is gone by now.
    pub left: usize,
    pub held: Option<Held>,
}

/// The batch, and the way to the cluster.
pub struct Sender {
    pub transport: Transport,
    pub batch: Batch,
    pub letters: DeadLetters,
    limits: Limits,
    refusals: Option<Refusals>,
    /// How long documents wait that are all refused alike.
    alike_wait: Duration,
    clock: Clock,
}

/// What a request may hold, as the cluster taught us.
struct Limits {
    bulk_size: usize,
    documents_max: usize,
    bytes_max: usize,
    good_requests: u32,
    grow_after: u32,
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
        let limits = Limits {
            bulk_size: elastic.bulk_size,
            documents_max: elastic.bulk_size,
            bytes_max: REQUEST_BYTES_MAX,
            good_requests: 0,
            grow_after: GROW_AFTER_BUSY,
            malformed: None,
        };
        let (batch, alike_wait) = (Batch::new(&elastic.index), REFUSED_ALIKE_WAIT);
        Self { transport, batch, letters, limits, refusals: None, alike_wait, clock }
    }

    /// For dead letters that a person sends again: what is refused is not waited for.
    pub fn for_replay(elastic: &config::Elastic, letters: DeadLetters, transport: Transport, clock: Clock) -> Self {
        Self { alike_wait: Duration::ZERO, ..Self::new(elastic, letters, transport, clock) }
    }

    /// Sends the first documents of the batch, one alone for a trial, and takes out those that are done.
    pub fn send(&mut self, node: usize, timeout: Duration, is_trial: bool) -> Attempt {
        let documents_max = if is_trial { 1 } else { self.limits.documents_max };
        let (documents, body) = self.batch.request(documents_max, self.limits.bytes_max);
        let bytes = body.len();
        let attempt = match self.transport.bulk(node, body, timeout) {
            Err(failure) => {
                if failure.timed_out || failure.broke && bytes >= SUSPECT_BYTES {
                    self.limits.shrink((bytes / 2).max(SLOW_BYTES_MIN), GROW_AFTER_BUSY);
                }
                Attempt::Failed { timed_out: failure.timed_out, held: failure.into(), retry_after: None }
            }
            Ok(reply) => {
                let verdict = judge(&reply, documents).map_texts(|text| self.transport.mask(text));
                self.act(verdict, documents, bytes, reply.retry_after)
            }
        };
        if is_trial && matches!(attempt, Attempt::Failed { .. }) {
            // It may be this document that the cluster cannot cope with.
            self.batch.rotate();
        }
        attempt
    }

    fn act(&mut self, verdict: Verdict, documents: usize, bytes: usize, retry_after: Option<Duration>) -> Attempt {
        match verdict {
            Verdict::Items(items) => Attempt::Judged(self.settle(items)),
            Verdict::TooLarge(reason) if documents == 1 => {
                Attempt::Judged(self.settle(vec![Item::Dead { status: 413, reason }]))
            }
            Verdict::TooLarge(_) => {
                self.limits.shrink(bytes / 2, GROW_AFTER_TOO_LARGE);
                Attempt::Smaller
            }
            Verdict::Malformed(reason) => {
                let other_was_understood = *self.limits.malformed.get_or_insert(false);
                if documents > 1 {
                    self.limits.documents_max = documents / 2;
                    return Attempt::Smaller;
                }
                if other_was_understood {
                    return Attempt::Judged(self.settle(vec![Item::Dead { status: 400, reason }]));
                }
                Attempt::Failed { held: Held::new(Cause::NotACluster, reason), timed_out: false, retry_after }
            }
            Verdict::Held(held) => {
                // It may be the request's size that the cluster has no room for.
                if held.cause == Cause::Busy && documents > 1 {
                    self.limits.shrink((bytes / 2).max(BUSY_BYTES_MIN), GROW_AFTER_BUSY);
                }
                Attempt::Failed { held, timed_out: false, retry_after }
            }
        }
    }

    /// Takes out what is done and keeps the dead letters.
    fn settle(&mut self, mut items: Vec<Item>) -> Judged {
        let now = self.clock.now();
        let mut judged = Judged::default();
        let changed: Vec<bool> = (0..items.len())
            .map(|index| is_refused(&items[index]) && self.batch.remove_duplicate_keys(index))
            .collect();
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
                Item::Created => judged.created += 1,
                Item::Exists => judged.exists += 1,
                Item::Dead { .. } if changed[index] => {}
                Item::Dead { status, reason } => {
                    letters.push(NewLetter {
                        status: *status,
                        reason: reason.clone(),
                        record: self.batch.record(index),
                    });
                }
                Item::Held(held) if judged.held.as_ref().is_none_or(|other| !other.is_refusal()) => {
                    judged.held = Some(held.clone());
                }
                Item::Held(_) => {}
            }
        }
        let letters_kept = match self.keep(&letters) {
            Ok(kept) => {
                judged.kept = kept;
                judged.last_letter = letters.pop().map(|letter| (letter.status, letter.reason));
                true
            }
            Err(held) => {
                judged.held = Some(held);
                false
            }
        };
        let is_done = |index: usize| match items[index] {
            Item::Created | Item::Exists => true,
            Item::Dead { .. } => letters_kept && !changed[index],
            Item::Held(_) => false,
        };
        let places = self.batch.places().take(items.len()).enumerate();
        judged.done = places.filter(|(index, _)| is_done(*index)).map(|(_, place)| place).collect();
        judged.left = items.len() - judged.done.len();
        self.batch.settle(items.len(), now, |index| !is_done(index));
        if !judged.done.is_empty() {
            self.limits.went_well();
        }
        judged
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
        let mut judged = items.iter().filter(|item| !matches!(item, Item::Held(_))).peekable();
        let reason = |item: &Item| match item {
            Item::Dead { status: 400, reason } => Some(common_reason(reason).to_owned()),
            _ => None,
        };
        let Some(first) = judged.peek() else { return false };
        let first = reason(first);
        let documents = judged.clone().count();
        let Some(reason) = first.filter(|first| judged.all(|item| reason(item).as_ref() == Some(first))) else {
            self.refusals = None;
            return false;
        };
        let mut refusals = match self.refusals.take() {
            Some(refusals) if refusals.reason == reason => refusals,
            _ => Refusals { reason, documents: 0, enough_since: None },
        };
        refusals.documents += documents;
        let is_index = refusals.documents >= REFUSED_ALIKE_MIN
            && now < *refusals.enough_since.get_or_insert(now) + self.alike_wait;
        self.refusals = Some(refusals);
        is_index
    }
}

impl Limits {
    fn shrink(&mut self, bytes_max: usize, grow_after: u32) {
        self.bytes_max = self.bytes_max.min(bytes_max);
        self.good_requests = 0;
        self.grow_after = grow_after;
    }

    fn went_well(&mut self) {
        self.documents_max = (self.documents_max * 2).min(self.bulk_size);
        self.malformed = self.malformed.filter(|_| self.documents_max < self.bulk_size).map(|_| true);
        self.good_requests += 1;
        if self.good_requests >= self.grow_after {
            self.good_requests = 0;
            self.bytes_max = (self.bytes_max * 2).min(REQUEST_BYTES_MAX);
        }
    }
}

fn is_refused(item: &Item) -> bool {
    matches!(item, Item::Dead { status: 400, .. })
}

/// Bytes that the dead letters may take, of those that ELASTIC_BACKLOG_MAX allows: what waits needs the rest.
pub fn letters_of(output: &config::Output, backlog_max: u64, knows: bool) -> DeadLetters {
    DeadLetters::new(&output.file, output.max_file_size, backlog_max / 2, knows)
}
