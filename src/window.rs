//! The window: which events of late stand in the file already, so that none is written twice.
//!
//! An event may come on two ways, and on each more than once; it has no id of its own. What identifies it is its content
//! and its time. Three rules decide:
//!
//! 1. Within one way, equal content at an equal time is one event.
//! 2. Across the two ways the times may differ by up to [`TOLERANCE_MS`]; a time may also be missing on one way, where
//!    the receipt stands for it. Matching is one to one: as many pairs as can be, and among those the nearest.
//! 3. Two records that stand in the file are never each other's twins.
//!
//! By rule 3 every pair has one written side and one *echo*: a sighting that was dropped because its twin is written.
//! So a new sighting is an echo exactly if it and all echoes near it can be matched at once to the written records of
//! the other way. Matching is done anew each time among the few sightings nearby, and no pair is stored: pairs may
//! change as more is seen. Where a nearer row of the history takes the place of a farther one, the farther one was no
//! twin after all and is written: its text is kept until no row can take its place any more ([`PLACE_MS`]). Is that text
//! gone, the newcomer is written: as many records as events, though one bears its neighbour's time. A frame that loses its
//! place is owed: its own row is still to come and is written then. Only a frame without a time has no row to be known by;
//! there the newcomer is written, unless its own row is in the file already.
//!
//! Which of several like rows has no frame is told best when all frames are there: where the two ways' times differ, such
//! a row waits a little ([`WAIT`]) before it is written, and the checkpoint waits with it.
//!
//! An echo is known to this window alone, and a restart forgets it. Its row may then come too late to claim its record
//! from a newcomer: the first read after a start goes back by [`PLACE_MS`] more, so that both are judged anew.
//!
//! Deals with: sightings alone; it knows no record, no file, no clock, and of a row no more than that it has a text. Must
//! never: grow beyond [`EVENTS_MAX`], `dropped::BYTES_MAX` and a few rows that wait. Of events and of texts the oldest are
//! forgotten at their bounds, and counted: whether a row of the history that is as old is new, the file alone can tell
//! then ([`Window::may_have_forgotten`]); of what else is forgotten a double may follow, a loss never.

mod dropped;
mod matching;
mod table;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use dropped::Dropped;
use matching::{Unmatched, unmatched};
use table::{Packed, Table};
pub use waiting::WAIT;
use waiting::Waiting;

use crate::clock::Millis;

/// How far the two ways' times of one event may be apart.
pub const TOLERANCE_MS: i64 = 2_000;

/// How long after the event a receipt may be that stands for its time.
pub const RECEIPT_DELAY_MS: i64 = 120_000;

/// Frames whose rows are still to come that are remembered, at most; the oldest go.
const OWED_MAX: usize = 64;

/// How far apart the times of two rows may be of which one can take the other's place.
pub const PLACE_MS: i64 = RECEIPT_DELAY_MS + 2 * TOLERANCE_MS;

/// Events kept, at most, by one sighting or by both: about 4.5 MiB.
pub const EVENTS_MAX: usize = 225_000;

/// Which way an event came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Socket,
    History,
}

/// When it happened, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The event's own time.
    Own(Millis),
    /// It has none: it happened at most so many milliseconds before this receipt.
    Receipt { at: Millis, delay: i64 },
}

/// One event seen on one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// What names its content: the first half of its id.
    pub content: u64,
    pub way: Way,
    pub moment: Moment,
}

/// What is to be done with a sighting.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is to be written.
    New,
    /// It stands in the file already.
    Duplicate,
    /// It stands in the file already, and the sighting of like content at this moment, which was taken for its twin
    /// before, does not.
    Displaces {
        moment: Moment,
        /// That row's text: it is to be written now. `None`: the history brings it.
        row: Option<String>,
    },
    /// Of this row and those like it one is left over, and waits: [`Window::settle`] tells what becomes of it.
    Waits,
}

/// What became of rows that waited.
#[derive(Default)]
pub struct Settled {
    /// Those that are to be written, and their texts.
    pub new: Vec<(Sighting, String)>,
    /// How many stand in the file already.
    pub duplicates: u64,
}

/// All sightings of late.
#[derive(Default)]
pub struct Window {
    table: Table,
    /// Sightings without a time of their own, by content: few.
    loose: HashMap<u64, Vec<Loose>>,
    loose_count: usize,
    /// Whether any echo ever stood apart from a written record of its very time.
    inexact: bool,
    /// Frames that were dropped though they have no record: their rows are still to come. Content and time.
    owed: VecDeque<(u64, Millis)>,
    /// The texts of those echoes.
    dropped: Dropped,
    waiting: Waiting,
    forgotten: u64,
    forgotten_before: Millis,
}

#[derive(Clone, Copy)]
struct Loose {
    moment: Moment,
    way: Way,
    written: bool,
}

/// How a sighting that comes again is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// It, or a record of its very time, is written.
    Certain,
    /// It is an echo of a record that another may yet claim.
    Presumed,
}

impl Moment {
    /// The instant that stands for it.
    pub fn nominal(self) -> Millis {
        match self {
            Self::Own(at) | Self::Receipt { at, .. } => at,
        }
    }

    /// Whether two sightings of the two ways can be one event.
    pub fn fits(self, other: Self) -> bool {
        match (self, other) {
            (Self::Own(a), Self::Own(b)) => (a - b).abs() <= TOLERANCE_MS,
            (Self::Own(own), Self::Receipt { at, delay }) | (Self::Receipt { at, delay }, Self::Own(own)) => {
                (at - delay..=at + TOLERANCE_MS).contains(&own)
            }
            (Self::Receipt { at: a, delay: d }, Self::Receipt { at: b, delay: e }) => (a - b).abs() <= d.max(e),
        }
    }
}

impl Window {
    /// Takes note of a record that stands in the file.
    pub fn note(&mut self, sighting: Sighting) {
        self.insert(sighting, true);
    }

    /// Whether a loose sighting of this content at this receipt is known: two receipts in one millisecond must not
    /// give one id.
    pub fn has_receipt(&self, content: u64, at: Millis) -> bool {
        self.loose.get(&content).is_some_and(|loose| loose.iter().any(|l| l.moment.nominal() == at))
    }

    /// Judges a sighting and takes note of it.
    pub fn offer(&mut self, sighting: Sighting) -> Outcome {
        self.judge(sighting, None, None)
    }

    /// Judges a row of the history, which has this text. Rows come in the order of time, as far as the service keeps it.
    /// Where like rows cannot be told apart yet, one waits from `now` on.
    pub fn offer_row(&mut self, sighting: Sighting, text: &str, now: Instant) -> Outcome {
        self.dropped.go_on_to(sighting.moment);
        if self.waiting.has(sighting) {
            return Outcome::Duplicate;
        }
        self.judge(sighting, Some(text), Some(now))
    }

    /// Judges again the rows that wait; those that waited for [`WAIT`] do so no more.
    pub fn settle(&mut self, now: Instant) -> Settled {
        let mut settled = Settled::default();
        for (row, waiter) in self.waiting.take_all() {
            let since = Some(waiter.since).filter(|since| now.saturating_duration_since(*since) < WAIT);
            match self.judge(row, Some(&waiter.text), since) {
                Outcome::New => settled.new.push((row, waiter.text)),
                Outcome::Displaces { moment, row: Some(text) } => settled.new.push((Sighting { moment, ..row }, text)),
                Outcome::Duplicate | Outcome::Displaces { row: None, .. } => settled.duplicates += 1,
                Outcome::Waits => {}
            }
        }
        settled
    }

    /// When the first of the rows that wait happened.
    pub fn oldest_waiting(&self) -> Option<Millis> {
        self.waiting.oldest()
    }

    /// `since`: it may wait, or has waited since then.
    fn judge(&mut self, sighting: Sighting, row: Option<&str>, since: Option<Instant>) -> Outcome {
        if let Some(known) = self.known(sighting) {
            if known == Known::Presumed {
                self.keep(sighting, row);
            }
            return Outcome::Duplicate;
        }
        if !self.other_way_seen(sighting.way) {
            self.insert(sighting, true);
            return Outcome::New;
        }
        if !self.inexact && self.has_exact_twin(sighting) {
            // Every echo has a record of its very time, and so has this one: nobody is in anybody's place.
            self.insert(sighting, false);
            return Outcome::Duplicate;
        }
        let (written, mut echoes) = self.nearby(sighting);
        echoes.push(sighting.moment);
        let may_wait = row.zip(since);
        match unmatched(&written, &echoes) {
            Unmatched::Newest if self.is_doubtful(sighting, &echoes) && self.waits(sighting, may_wait) => {
                Outcome::Waits
            }
            Unmatched::Newest => {
                self.insert(sighting, true);
                Outcome::New
            }
            _ if self.takes_owed(sighting, &written) => {
                self.insert(sighting, true);
                Outcome::New
            }
            Unmatched::None => {
                self.inexact = true;
                self.insert(sighting, false);
                self.keep(sighting, row);
                Outcome::Duplicate
            }
            Unmatched::Earlier(index) => self.displace(sighting, echoes[index], row, since),
        }
    }

    /// The newcomer is nearer than an earlier echo, which is left without a record: one of the two is to be written.
    fn displace(&mut self, newcomer: Sighting, earlier: Moment, text: Option<&str>, since: Option<Instant>) -> Outcome {
        let displaced = Sighting { moment: earlier, ..newcomer };
        let row = if newcomer.way == Way::History { self.dropped.take(displaced) } else { None };
        let will_be_brought = match newcomer.way {
            // The one before it comes with its own row, which is known by its time. A frame without one has no such row:
            // this one is written in its place, unless its own row is in the file already, which would hold one id twice.
            Way::Socket => matches!(earlier, Moment::Own(_)) || self.has_own_row(newcomer),
            // What is later than this row was met by an earlier read, and comes again with this one.
            Way::History => matches!((earlier, newcomer.moment), (Moment::Own(e), Moment::Own(n)) if e > n),
        };
        if row.is_none() && !will_be_brought {
            self.forgotten += u64::from(newcomer.way == Way::History);
            self.insert(newcomer, true);
            return Outcome::New;
        }
        self.inexact = true;
        self.remove(displaced);
        if let (Way::Socket, Moment::Own(at)) = (newcomer.way, earlier) {
            // Where its row was met already, as the echo of a record that has no time, the next read judges it anew.
            self.remove(Sighting { way: Way::History, ..displaced });
            if self.owed.len() == OWED_MAX {
                self.owed.pop_front();
            }
            self.owed.push_back((newcomer.content, at));
        }
        let waits = self.waits(displaced, row.as_deref().zip(since));
        if row.is_some() && !waits {
            self.insert(displaced, true);
        }
        self.insert(newcomer, false);
        self.keep(newcomer, text);
        if waits {
            return Outcome::Waits;
        }
        Outcome::Displaces { moment: earlier, row }
    }

    /// Whether this row may wait and does: it has a text, and since when.
    fn waits(&mut self, row: Sighting, text_since: Option<(&str, Instant)>) -> bool {
        text_since.is_some_and(|(text, since)| self.waiting.put(row, text, since))
    }

    /// Whether one of these echoes, of which the sighting is the last, may be the echo of another record than it seems: not
    /// where a record is of its very time.
    fn is_doubtful(&self, sighting: Sighting, echoes: &[Moment]) -> bool {
        let is_certain = |echo: &Moment| matches!(echo, Moment::Own(at) if self.table.has_written(sighting.content, *at, other(sighting.way)));
        let before = echoes.len() - 1;
        self.inexact && !echoes[..before].iter().all(is_certain)
    }

    /// Whether this row is the one that a frame was dropped for. Records that only a receipt dates may seem to be its
    /// twins: rather a double than a loss.
    fn takes_owed(&mut self, row: Sighting, twins: &[Moment]) -> bool {
        let (Moment::Own(at), Way::History) = (row.moment, row.way) else { return false };
        let has_twin_within =
            |ms: i64| twins.iter().any(|twin| matches!(twin, Moment::Own(time) if (time - at).abs() <= ms));
        // Of its very time it is that row; of another, if no record with a time of its own may be its twin.
        let reach = match (has_twin_within(0), has_twin_within(TOLERANCE_MS)) {
            (true, _) => return false,
            (_, true) => 0,
            _ => TOLERANCE_MS,
        };
        let fits = |owed: &(u64, Millis)| owed.0 == row.content && (owed.1 - at).abs() <= reach;
        let place = self.owed.iter().position(fits);
        place.map(|place| self.owed.remove(place)).is_some()
    }

    /// Keeps the text of an echo whose place may be taken. A record of its very time is nobody else's twin: nothing is
    /// nearer.
    fn keep(&mut self, echo: Sighting, text: Option<&str>) {
        let is_certain =
            matches!(echo.moment, Moment::Own(at) if self.table.has_written(echo.content, at, other(echo.way)));
        if let Some(text) = text.filter(|_| !is_certain) {
            self.dropped.keep(echo, text);
        }
    }

    /// Forgets what happened before `horizon`: it cannot come again.
    pub fn sweep(&mut self, horizon: Millis) {
        self.retain(|packed| packed.time() >= horizon, |loose| loose.moment.nominal() >= horizon);
    }

    fn retain(&mut self, stays: impl Fn(Packed) -> bool, loose_stays: impl Fn(&Loose) -> bool) {
        self.table.retain(stays);
        self.loose.retain(|_, loose| {
            loose.retain(&loose_stays);
            !loose.is_empty()
        });
        self.loose_count = self.loose.values().map(Vec::len).sum();
    }

    pub fn len(&self) -> usize {
        self.table.len() + self.loose_count
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there are sightings without a time of their own.
    pub fn has_receipts(&self) -> bool {
        self.loose_count > 0
    }

    /// How often something was forgotten at a bound and may be written twice for it.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Whether what is known of this moment may be less than what was seen: what could be its twin, or claim its twin, was
    /// forgotten at a bound.
    pub fn may_have_forgotten(&self, moment: Moment) -> bool {
        let reach = self.forgotten_before + 2 * TOLERANCE_MS;
        self.forgotten_before > 0 && matches!(moment, Moment::Own(at) if at < reach)
    }

    /// Whether a record of its very time stands in the file, whichever way it came.
    pub fn has_record_of(&self, sighting: Sighting) -> bool {
        let Moment::Own(time) = sighting.moment else { return false };
        [Way::Socket, Way::History].iter().any(|way| self.table.has_written(sighting.content, time, *way))
    }

    /// What happened before this instant was forgotten at a bound.
    pub fn forgotten_before(&self) -> Millis {
        self.forgotten_before
    }

    fn other_way_seen(&self, way: Way) -> bool {
        self.loose_count > 0 || self.table.count(other(way)) > 0
    }

    fn has_exact_twin(&self, sighting: Sighting) -> bool {
        let Moment::Own(time) = sighting.moment else { return false };
        self.loose_count == 0 && self.table.has_written(sighting.content, time, other(sighting.way))
    }

    /// Whether a row of the history of its very time was written.
    fn has_own_row(&self, sighting: Sighting) -> bool {
        matches!(sighting.moment, Moment::Own(time) if self.table.has_written(sighting.content, time, Way::History))
    }

    /// Rule 1. A row of the history without a time is known by its content alone: each read of the history brings it
    /// again.
    fn known(&self, sighting: Sighting) -> Option<Known> {
        let known = |is_certain| if is_certain { Known::Certain } else { Known::Presumed };
        match (sighting.moment, sighting.way) {
            (Moment::Own(time), way) => self.table.known(sighting.content, time, way).map(known),
            (Moment::Receipt { .. }, Way::Socket) => None,
            (Moment::Receipt { .. }, Way::History) => {
                let mut rows = self.loose.get(&sighting.content)?.iter().filter(|l| l.way == Way::History);
                rows.next().map(|row| known(row.written))
            }
        }
    }

    /// The written records of the other way and the echoes of this way that the sighting's matching may involve.
    fn nearby(&self, sighting: Sighting) -> (Vec<Moment>, Vec<Moment>) {
        let (mut written, mut echoes) = (Vec::new(), Vec::new());
        let (mut from, mut to) = match sighting.moment {
            Moment::Own(time) => (time - TOLERANCE_MS, time + TOLERANCE_MS),
            Moment::Receipt { at, delay } => (at - delay, at + TOLERANCE_MS),
        };
        if self.loose_count > 0 {
            for loose in self.loose.get(&sighting.content).into_iter().flatten() {
                match (loose.written, loose.way == sighting.way) {
                    (true, false) => written.push(loose.moment),
                    (false, true) => echoes.push(loose.moment),
                    _ => continue,
                }
                if let Moment::Receipt { at, delay } = loose.moment {
                    (from, to) = (from.min(at - delay), to.max(at + TOLERANCE_MS));
                }
            }
        }
        self.table.chain(sighting.content, from, to, TOLERANCE_MS, |packed| {
            let relevant = packed.written() != (packed.way() == sighting.way);
            if relevant {
                if packed.written() { &mut written } else { &mut echoes }.push(Moment::Own(packed.time()));
            }
            relevant
        });
        (written, echoes)
    }

    fn room(&self) -> usize {
        self.table.room() + self.loose_count
    }

    fn insert(&mut self, sighting: Sighting, written: bool) {
        // What is counted anyway tells first that it cannot be full.
        if self.len() >= EVENTS_MAX && self.room() >= EVENTS_MAX {
            self.forget_oldest();
        }
        match sighting.moment {
            Moment::Own(time) => self.table.insert(sighting.content, Packed::new(time, sighting.way, written)),
            moment @ Moment::Receipt { .. } => {
                self.loose.entry(sighting.content).or_default().push(Loose { moment, way: sighting.way, written });
                self.loose_count += 1;
            }
        }
    }

    /// Removes an echo.
    fn remove(&mut self, sighting: Sighting) {
        match sighting.moment {
            Moment::Own(time) => self.table.remove(sighting.content, Packed::new(time, sighting.way, false)),
            moment @ Moment::Receipt { .. } => {
                if let Some(loose) = self.loose.get_mut(&sighting.content) {
                    let before = loose.len();
                    loose.retain(|l| l.written || l.moment != moment || l.way != sighting.way);
                    self.loose_count -= before - loose.len();
                }
            }
        }
    }

    /// Makes room at the bound: about an eighth goes, the oldest.
    fn forget_oldest(&mut self) {
        let before = self.len();
        let mut times = self.table.sample();
        times.extend(self.loose.values().flatten().map(|l| l.moment.nominal()).take(times.len().max(64)));
        times.sort_unstable();
        let cut = times[times.len() / 8] + 1;
        // With an echo goes every record that it may be the echo of: else another event would be taken for it.
        let earliest = |loose: &Loose| match loose.moment {
            Moment::Receipt { at, delay } if loose.written => at - delay,
            moment => moment.nominal(),
        };
        let margin = |packed: Packed| if packed.written() { TOLERANCE_MS } else { 0 };
        self.retain(|packed| packed.time() >= cut + margin(packed), |loose| earliest(loose) >= cut);
        self.forgotten_before = self.forgotten_before.max(cut);
        if self.room() >= EVENTS_MAX {
            // All at one instant: nothing is older than the rest.
            let newest = self.table.newest().unwrap_or_default();
            self.forgotten_before = self.forgotten_before.max(newest + 1);
            self.table = Table::default();
            self.loose.clear();
            self.loose_count = 0;
        }
        self.forgotten += (before - self.len()) as u64;
    }
}

fn other(way: Way) -> Way {
    match way {
        Way::Socket => Way::History,
        Way::History => Way::Socket,
    }
}
