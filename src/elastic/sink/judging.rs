//! What an answer changes: which documents are done, which go again, which are dead letters.
//!
//! Deals with: acting on a verdict. Must never: let the cursor pass a document that is neither in the cluster nor on the
//! disk as a dead letter.

use std::collections::HashSet;
use std::io;
use std::time::{Duration, Instant};

use super::{InFlight, Sink};
use crate::elastic::carrier::Failure;
use crate::elastic::queue::REQUEST_BYTES_MAX;
use crate::elastic::verdict::{Item, Reply, Verdict, judge};
use crate::elastic::{dead, lines};
use crate::status::Code;

/// Requests are not made smaller than this for a cluster that is slow.
const SLOW_BYTES_MIN: usize = 64 * 1024;
/// Nor than this for one that is busy.
const BUSY_BYTES_MIN: usize = 16 * 1024;
/// A request this large may be what breaks the connection.
const SUSPECT_BYTES: usize = 256 * 1024;
/// Requests that went well before a larger one is tried again: after a 413, which will most likely come again; and
/// after the cluster was slow or busy, which passes.
const GROW_AFTER_TOO_LARGE: u32 = 64;
pub(super) const GROW_AFTER_BUSY: u32 = 4;

impl Sink {
    pub(super) fn judge(&mut self, node: usize, flight: &InFlight, outcome: Result<Reply, Failure>, now: Instant) {
        let sent = flight.documents;
        let reply = match outcome {
            Ok(reply) => reply,
            Err(failure) => {
                if failure.timed_out || failure.broke && flight.bytes >= SUSPECT_BYTES {
                    self.send_less((flight.bytes / 2).max(SLOW_BYTES_MIN), GROW_AFTER_BUSY);
                }
                return self.failed(node, failure.why, failure.timed_out, None, now);
            }
        };
        match judge(&reply, sent) {
            Verdict::Items(items) => self.settle(node, &items, now),
            Verdict::TooLarge(why) if sent == 1 => {
                self.settle(node, &[Item::Dead { status: 413, reason: why }], now);
            }
            Verdict::TooLarge(_) => {
                self.send_less(flight.bytes / 2, GROW_AFTER_TOO_LARGE);
                self.link.again(node, now);
            }
            Verdict::Malformed(_) if sent > 1 => {
                if self.documents_max >= self.settings.bulk_size {
                    self.accepted_since_malformed = false;
                }
                self.documents_max = sent / 2;
                self.link.again(node, now);
            }
            // Others were understood meanwhile: so it is this one.
            Verdict::Malformed(why) if self.accepted_since_malformed => {
                self.settle(node, &[Item::Dead { status: 400, reason: why }], now);
            }
            Verdict::Malformed(why) => {
                self.queue.put_last();
                self.failed(node, why, false, None, now);
            }
            Verdict::Refused(why) => {
                self.link.refused(node, now);
                self.say_refused(node, &why);
            }
            Verdict::ReadOnly(why) => {
                self.link.read_only(node, now);
                self.say_read_only(&why);
            }
            Verdict::Busy { why, retry_after } => {
                // It may be the request's size that the cluster has no room for.
                if sent > 1 {
                    self.send_less((flight.bytes / 2).max(BUSY_BYTES_MIN), GROW_AFTER_BUSY);
                }
                self.failed(node, why, false, retry_after, now);
            }
            Verdict::Failed(why) => self.failed(node, why, false, None, now),
        }
    }

    pub(super) fn failed(
        &mut self,
        node: usize,
        why: String,
        timed_out: bool,
        retry_after: Option<Duration>,
        now: Instant,
    ) {
        log::debug!("{}: {why}", self.nodes[node]);
        if self.link.is_trial() {
            // It may be this document that the cluster cannot cope with.
            self.queue.put_last();
        }
        self.why = format!("{}: {why}", self.nodes[node]);
        self.link.failed(node, timed_out, retry_after, now);
        // Whatever it is now, it is no refused login any more.
        self.status.clear(Code::ElasticRefused);
    }

    /// Takes out what is done and puts the rest off.
    fn settle(&mut self, node: usize, items: &[Item], now: Instant) {
        let mended: Vec<bool> =
            (0..items.len()).map(|index| items[index].is_refused() && self.queue.mend(index)).collect();
        let letters = self.bury(items, &mended);
        let dead_written = letters.is_some();
        let (mut created, mut exists, mut dead) = (0, 0, 0);
        let (mut refused, mut read_only, mut put_off) = (None, None, None);
        for (item, _) in items.iter().zip(&mended).filter(|(_, mended)| !**mended) {
            match item {
                Item::Created => created += 1,
                Item::Exists => exists += 1,
                Item::Dead { .. } if dead_written => dead += 1,
                Item::Dead { reason, .. } => put_off = Some(reason),
                Item::Again(why) => put_off = Some(why),
                Item::Refused(why) => refused = Some(why),
                Item::ReadOnly(why) => read_only = Some(why),
            }
        }
        let counters = &self.status.counters;
        counters.elastic_created.add(created);
        counters.elastic_exists.add(exists);
        counters.elastic_dead.add(letters.unwrap_or(0));
        let done = (created + exists + dead) as usize;
        self.queue.settle(items.len(), now, |index| match &items[index] {
            Item::Created | Item::Exists => false,
            Item::Dead { .. } => !dead_written || mended[index],
            _ => true,
        });
        let mended = mended.into_iter().filter(|mended| *mended).count();
        if done > 0 {
            self.went_well();
            if dead_written {
                self.why.clear();
            }
        }
        if let Some(why) = refused {
            self.link.refused(node, now);
            return self.say_refused(node, why);
        }
        if let Some(why) = read_only {
            self.link.read_only(node, now);
            return self.say_read_only(why);
        }
        if let Some(why) = put_off.filter(|_| dead_written) {
            self.why = format!("{} puts documents off: {why}", self.nodes[node]);
        }
        self.status.clear(Code::ElasticRefused);
        if done == 0 {
            return if mended > 0 { self.link.again(node, now) } else { self.link.put_off(node, now) };
        }
        self.link.progressed(node, items.len() - done - mended, items.len(), now);
        if self.is_late(now) {
            // Others go, and one does not.
            self.say_unreachable();
        } else {
            self.status.clear(Code::ElasticUnreachable);
        }
    }

    fn send_less(&mut self, bytes_max: usize, grow_after: u32) {
        self.bytes_max = self.bytes_max.min(bytes_max);
        self.good_requests = 0;
        self.grow_after = grow_after;
    }

    fn went_well(&mut self) {
        self.accepted_since_malformed = true;
        self.documents_max = (self.documents_max * 2).min(self.settings.bulk_size);
        self.good_requests += 1;
        if self.good_requests >= self.grow_after {
            self.good_requests = 0;
            self.bytes_max = (self.bytes_max * 2).min(REQUEST_BYTES_MAX);
        }
    }

    /// Writes the dead letters that do not stand there yet and says how many; `None` when they could not be written: their
    /// documents must go again.
    fn bury(&mut self, items: &[Item], mended: &[bool]) -> Option<u64> {
        let path = dead::letters_path(&self.path);
        let mut letters = Vec::new();
        let mut ids = HashSet::new();
        let mut count = 0;
        let mut last = None;
        for (index, item) in items.iter().enumerate() {
            let Item::Dead { status, reason } = item else { continue };
            if mended[index] {
                log::debug!("a record gives a key twice; it goes with the last of them: {reason}");
                continue;
            }
            let record = self.queue.record(index);
            let id = lines::fields(&record).map(|fields| fields.id_or_computed(&record).into_owned());
            if id.as_ref().is_some_and(|id| ids.contains(id) || self.buried.has(&path, id)) {
                continue;
            }
            if dead::push_letter(&mut letters, self.clock.wall(), *status, reason, &record) {
                last = Some((*status, reason));
                count += 1;
                ids.extend(id);
            } else {
                // It is no JSON at all, which only the cluster's own reading showed.
                self.skip();
            }
        }
        if letters.is_empty() {
            return Some(0);
        }
        match dead::append(&self.path, &letters) {
            Ok(file) => {
                self.buried.note(file, ids.iter().map(Vec::as_slice));
                self.say_dead(last.map(|(status, reason)| (status, reason.as_str())));
                Some(count)
            }
            Err(error) => {
                self.why = format!("cannot write {}: {error}", path.display());
                // Another process holds the lock for the blink of an eye: nothing to speak of.
                if error.kind() != io::ErrorKind::WouldBlock {
                    log::warn!("{}", self.why);
                }
                None
            }
        }
    }
}
