//! When the history is read, from where to where, and what its failures mean.
//!
//! Spans end at the service's own time, so that a wall clock that jumps changes nothing. Must never: skip a span that
//! failed; read while the writer's queue is full.

use std::time::{Duration, Instant};

use super::{Session, Start, draw};
use crate::clock::{Millis, format_millis};
use crate::config::Delivery;
use crate::genesys::backoff::Backoff;
use crate::genesys::error::{ApiError, Kind};
use crate::genesys::history::{History, KEPT_MS, Next};
use crate::message::FromSession;
use crate::status::{Code, Problem};
use crate::window::{PLACE_MS, TOLERANCE_MS};

/// At the start the socket comes first; the history waits for it this long.
const SOCKET_FIRST: Duration = Duration::from_secs(3);
/// Being held back by 429, or by other requests that fail, for longer than this is a failure.
const HELD_BACK_MAX: Duration = Duration::from_secs(5);

/// A hole that is shorter is none: the ends of a span are no more exact than that.
const HOLE_MS_MIN: Millis = 60_000;
/// The same before anything was read: the very first read may go back just as far as the service remembers, and may
/// have to wait for a network or a permission.
const FIRST_HOLE_MS_MIN: Millis = 3_600_000;

/// A wall clock that differs by less is right: the service tells whole seconds.
const CLOCKS_APART_MS: Millis = 2_500;

/// How the history is, as far as the last request tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Unknown,
    Works,
    Failing,
    Forbidden,
}

/// What is known of the reading.
#[derive(Debug)]
pub(super) struct Reading {
    pub history: History,
    pub state: State,
    /// Why it cannot be read, where it cannot.
    pub why: Option<Problem>,
    /// When the next whole read begins.
    at: Instant,
    /// After a failure: when its request is sent again.
    retry_at: Instant,
    backoff: Backoff,
    /// Where the hole begins that was said last; or where the very first start begins, before which nothing was known.
    hole_told: Option<Millis>,
    /// On the disk up to here.
    pub checkpoint: Millis,
    /// Given to the writer up to here.
    pub given: Option<Millis>,
    /// Before this nothing is asked for: where the very first start began.
    pub origin: Millis,
    /// Origin and checkpoint are this machine's time so far.
    by_wall: bool,
    /// A socket was opened since the running read began: another follows at once.
    again: bool,
    throttled_since: Option<Instant>,
    /// How much further back the first read goes, for what only memory knew before the start; `None`: the files are
    /// being looked through still.
    forgotten_ms: Option<Millis>,
}

impl Reading {
    pub fn new(history: History, start: &Start, backoff: Backoff, now: Instant) -> Self {
        Self {
            history,
            state: State::Unknown,
            why: None,
            at: now,
            retry_at: now,
            backoff,
            hole_told: None,
            checkpoint: start.checkpoint,
            given: None,
            origin: start.origin,
            by_wall: start.by_wall,
            again: false,
            throttled_since: None,
            forgotten_ms: None,
        }
    }

    /// The writer knows what the files show: a row can take another's place this far away.
    pub fn loaded(&mut self, has_receipts: bool) {
        self.forgotten_ms = Some(if has_receipts { PLACE_MS } else { 2 * TOLERANCE_MS });
    }

    /// When the next request may be sent after one that failed.
    pub fn may_try_again_at(&self) -> Instant {
        if self.state == State::Forbidden { self.at } else { self.retry_at }
    }

    /// Whether a hole was found that nothing can fill.
    pub fn has_hole(&self) -> bool {
        self.hole_told.is_some()
    }
}

impl Session {
    pub(super) fn wants_history(&self) -> bool {
        self.config.genesys.delivery != Delivery::Websocket && !self.plan.ids.is_empty()
    }

    /// A socket was opened: what came before is to be read.
    pub(super) fn read_again(&mut self) {
        if self.reading.history.has_whole() {
            self.reading.again = true;
        } else if self.reading.state != State::Forbidden {
            self.reading.at = self.clock.now();
        }
    }

    /// The socket was lost: what comes meanwhile is read now, which also tells whether anything can come at all.
    pub(super) fn read_instead(&mut self) {
        if self.reading.state != State::Forbidden {
            self.reading.at = self.reading.at.min(self.clock.now());
        }
    }

    pub(super) fn reading_due(&self) -> Option<Instant> {
        if !self.wants_history() || !self.outbox.is_empty() || self.reading.forgotten_ms.is_none() {
            return None;
        }
        if !self.reading.history.is_idle() {
            return Some(self.reading.retry_at);
        }
        if self.is_unsure() {
            return None;
        }
        let opening = self.reading.state == State::Unknown && self.wants_socket() && !self.connections.has_socket();
        let first = opening.then(|| self.started + SOCKET_FIRST);
        Some(first.map_or(self.reading.at, |first| self.reading.at.max(first)))
    }

    /// Sends one request of the history, or begins the next read.
    pub(super) fn read_if_due(&mut self, now: Instant) -> bool {
        if self.reading_due().is_none_or(|due| now < due) {
            return false;
        }
        if self.reading.history.is_idle() {
            self.begin_read(now);
            return !self.reading.history.is_idle();
        }
        let (cursor, page_size, body) = match self.reading.history.next(now, self.api.service().now()) {
            Next::Ask { cursor, page_size, body } => (cursor, page_size, body),
            Next::Wait(wait) => {
                self.reading.retry_at = now + wait;
                return false;
            }
            Next::Idle => return false,
        };
        self.reading.retry_at = now;
        let answer = self.api.query_page(cursor.as_deref(), page_size, &body);
        let taken = self.reading.history.take(answer, self.service_time.receipt(&self.clock));
        for notice in taken.notices {
            log::warn!("{notice}");
        }
        if let Some(summary) = taken.summary {
            log::info!("{summary}");
        }
        match taken.failed {
            Some(error) => self.read_failed(&error.with_correlation(self.api.correlation())),
            None if taken.progressed => self.read_worked(),
            // What is refused and asked for in another way is no success.
            None => {}
        }
        if let Some((from, to)) = taken.skipped {
            self.tell_skipped(from, to);
        }
        if let Some(page) = taken.page {
            self.tell(FromSession::Page(page));
        }
        // What the overlap reads again moves nothing; only the end of a read may move it back, when a clock was wrong.
        let known = self.reading.given.unwrap_or(self.reading.checkpoint);
        if let Some(up_to) = taken.read_up_to.filter(|up_to| taken.done || *up_to > known) {
            self.reading.given = Some(up_to);
            self.tell(FromSession::ReadUpTo(up_to));
        }
        if taken.done && std::mem::take(&mut self.reading.again) {
            self.reading.at = self.clock.now();
        }
        if let Some(line) = self.reading.history.progress(self.clock.now()) {
            log::info!("{line}");
        }
        true
    }

    fn begin_read(&mut self, now: Instant) {
        let service_now = self.api.service().now();
        let interval = self.config.catch_up.interval;
        self.reading.at = now + interval;
        let overlap = self.overlap_ms();
        self.settle_origin();
        // A first start whose wall clock was ahead begins now; and what was read while a clock was ahead is read again.
        self.reading.origin = self.reading.origin.min(service_now);
        let known = self.reading.given.unwrap_or(self.reading.checkpoint).min(service_now);
        self.tell_hole(known, service_now);
        // The first read brings again what the window knew before the start and no file shows.
        let forgotten = self.reading.forgotten_ms.filter(|_| self.reading.given.is_none()).unwrap_or(0);
        let from = (known - overlap - forgotten).max(self.reading.origin);
        self.reading.history.add(self.plan.ids.clone(), from, service_now, true, now);
        self.reading.retry_at = now;
    }

    /// The very first start begins by the service's clock: this machine's may be wrong.
    fn settle_origin(&mut self) {
        let service = self.api.service();
        if !self.reading.by_wall || !service.is_known() {
            return;
        }
        let ahead_ms = service.ahead_ms();
        self.reading.by_wall = false;
        if ahead_ms.abs() > CLOCKS_APART_MS {
            self.reading.origin -= ahead_ms;
            self.reading.checkpoint = self.reading.origin;
            self.tell(FromSession::Origin(self.reading.origin));
        }
    }

    /// Down for longer than the service remembers: both ends of the hole are said.
    fn tell_hole(&mut self, checkpoint: Millis, service_now: Millis) {
        let why = "the history was not read for longer than the ten days that Genesys keeps it";
        self.tell_hole_between(checkpoint, service_now - KEPT_MS, why);
    }

    fn tell_hole_between(&mut self, from: Millis, to: Millis, why: &str) {
        let shortest = if from <= self.reading.origin { FIRST_HOLE_MS_MIN } else { HOLE_MS_MIN };
        if from + shortest >= to || self.reading.hole_told == Some(from) {
            return;
        }
        self.reading.hole_told = Some(from);
        self.status.raise(
            Code::Incomplete,
            format!(
                "events from {} to {} may be missing for good: {why}; what the socket brought meanwhile is there; note the gap, nothing can bring the rest back",
                format_millis(from),
                format_millis(to)
            ),
        );
    }

    /// The service took no request for this part of what it keeps.
    fn tell_skipped(&mut self, from: Millis, to: Millis) {
        log::warn!(
            "the history takes no request that begins before {}: what came since {} is passed over",
            format_millis(to),
            format_millis(from)
        );
        self.tell_hole_between(from, to, "the history takes no request that begins so early");
    }

    pub(super) fn read_worked(&mut self) {
        self.reading.state = State::Works;
        self.reading.why = None;
        self.reading.backoff.reset();
        self.reading.throttled_since = None;
        self.throttle_backoff.reset();
    }

    /// When a read that other requests hold back by failing, one after the other, is late enough to be said.
    pub(super) fn overdue_at(&self) -> Option<Instant> {
        let due = self.reading_due().filter(|_| self.reading.state == State::Works)?;
        self.call_failed.as_ref().filter(|(at, _)| *at >= due).map(|_| due + HELD_BACK_MAX)
    }

    pub(super) fn assess_overdue(&mut self, now: Instant) {
        if self.overdue_at().is_none_or(|at| now < at) {
            return;
        }
        let Problem { what, cure } = self.call_failed.as_ref().map_or_else(Problem::default, |(_, why)| why.clone());
        self.reading.why = Some(Problem::new(format!("the history is not read in time: {what}"), cure));
        self.reading.state = State::Failing;
    }

    /// Without a token the history cannot be read either; it is said once it worked before.
    pub(super) fn cannot_read(&mut self, error: &ApiError) {
        if self.api.token().is_some() {
            return;
        }
        if self.reading.state == State::Works {
            self.reading.state = State::Failing;
        }
        self.reading.why = Some(error.problem());
    }

    pub(super) fn read_failed(&mut self, error: &ApiError) {
        let now = self.clock.now();
        let asked = self.failed(error);
        self.reading.why = Some(error.problem());
        match error.kind {
            Kind::Forbidden => {
                self.reading.state = State::Forbidden;
                self.reading.history.clear();
                self.reading.at = now + self.config.catch_up.interval;
            }
            Kind::Throttled(_) => {
                let since = *self.reading.throttled_since.get_or_insert(now);
                self.reading.retry_at = now + asked.unwrap_or_default();
                let held = self.reading.retry_at.duration_since(since);
                if held > HELD_BACK_MAX {
                    self.reading.state = State::Failing;
                }
            }
            _ => {
                let wait = asked.unwrap_or_else(|| self.reading.backoff.next(draw()));
                self.reading.retry_at = now + wait;
                self.reading.state = State::Failing;
                self.warn_of_retry(error, wait);
            }
        }
    }
}
