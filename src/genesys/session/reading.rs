//! Decides when the history is read and over which span, and handles failed reads.
//!
//! Definitions that were read up to the checkpoint are read together, each time from CATCH_UP_OVERLAP before the
//! checkpoint (a catch-up). `definition_coverage` handles the others. Spans end at the service's time, so that a
//! jump of the wall clock changes nothing.
//!
//! Must never: skip a span that failed; read while the writer's queue is full; claim coverage for what was not read.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::definition_coverage::COVERAGE_MS;
use super::{Session, draw, in_a_while, shorten};
use crate::audit::files;
use crate::clock::{Millis, format_millis};
use crate::config::Delivery;
use crate::dedup::rows::Span;
use crate::dedup::{CONTEXT_MS, MARGIN_MS, Range, TOLERANCE_MS};
use crate::genesys::api::PAGE_SIZE;
use crate::genesys::backoff::Backoff;
use crate::genesys::error::{ApiError, Kind};
use crate::genesys::history::{History, Next, PIECE_MS_MIN, REACH_MS, Read, Taken};
use crate::message::{Coverage, HISTORY_KEPT_MS, Purpose, Start, WriterCommand};
use crate::status::{Code, Problem};

/// At the start, the history waits this long for the socket to open.
const SOCKET_FIRST: Duration = Duration::from_secs(3);
/// A read that is delayed for longer than this, by 429 or by failures of other requests, has failed.
const HELD_BACK_MAX: Duration = Duration::from_secs(5);

/// While a socket is open, rows younger than this wait for the next read: their frames may still arrive.
pub(super) const ROW_WAIT_MS: Millis = 10_000;

/// Shorter gaps are not reported: the ends of a span are no more exact than this.
const GAP_MS_MIN: Millis = 60_000;
/// The same limit before anything was read: the first read may go back exactly as far as the service keeps events,
/// and may have to wait for a network or a permission.
const FIRST_GAP_MS_MIN: Millis = 3_600_000;

/// A wall clock that differs by less is correct: the service reports whole seconds.
const CLOCKS_APART_MS: Millis = 2_500;

/// Wait after a read that could not be judged. By then the session knows how far the index reaches.
const UNJUDGED_RETRY: Duration = Duration::from_secs(1);

/// Wait before a refused request is tried again.
const REFUSED_RETRY: Duration = Duration::from_secs(600);

/// Wait after files could not be read.
const FILES_RETRY: Duration = Duration::from_secs(5);

/// State of the history according to the last request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Unknown,
    Works,
    Failing,
    Forbidden,
}

/// A definition that the reads of other definitions leave out.
pub(super) struct LeftOut {
    pub why: Problem,
    /// When it is tried again.
    pub retry_at: Instant,
}

/// State of the history reads.
pub(super) struct Reading {
    pub history: History,
    pub state: State,
    /// Why the history cannot be read, if it cannot.
    pub why: Option<Problem>,
    /// When the next catch-up begins.
    at: Instant,
    /// After a failure: when the request is sent again.
    retry_at: Instant,
    backoff: Backoff,
    /// Start of the gap that was reported last.
    gap_reported: Option<Millis>,
    /// Everything up to here is on disk, for the definitions whose coverage reaches this time.
    pub checkpoint: Millis,
    pub coverage: Coverage,
    /// When definitions whose coverage does not reach the checkpoint may be read next.
    pub coverage_at: Instant,
    /// Definitions whose history fails while that of others works: each is read alone when its retry is due.
    pub left_out: BTreeMap<String, LeftOut>,
    /// When the very first start began: nothing older is requested.
    pub origin: Millis,
    /// Whether the origin and the checkpoint still use this machine's clock.
    by_wall: bool,
    throttled_since: Option<Instant>,
    /// Whether the writer has read the files.
    pub is_loaded: bool,
    /// Whether the writer received a complete read and has not reported it done.
    pub waits_for_writer: bool,
    /// Whether a catch-up has been done since the start.
    pub has_caught_up: bool,
    /// Span of the records that were read from the files and sent to the writer for the read in progress.
    from_files: Option<Range>,
    /// Whether the history works, as last sent to the writer.
    told_works: bool,
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
            gap_reported: None,
            checkpoint: start.checkpoint,
            coverage: start.coverage.clone(),
            coverage_at: now,
            left_out: BTreeMap::new(),
            origin: start.origin,
            by_wall: start.by_wall,
            throttled_since: None,
            is_loaded: false,
            waits_for_writer: false,
            has_caught_up: false,
            from_files: None,
            told_works: true,
        }
    }

    /// Whether a gap was found that cannot be filled.
    pub fn has_gap(&self) -> bool {
        self.gap_reported.is_some()
    }

    /// Whether no read is in progress or waiting for the writer.
    pub fn is_idle(&self) -> bool {
        self.history.is_idle() && !self.waits_for_writer
    }
}

impl Session {
    pub(super) fn wants_history(&self) -> bool {
        self.config.genesys.delivery != Delivery::Websocket && !self.read_ids.is_empty()
    }

    /// Makes a read due now, or right after the one in progress: a socket was opened, and earlier events must be read;
    /// or a socket was lost, and the read fetches the events meanwhile and shows whether any can arrive at all.
    pub(super) fn read_now(&mut self) {
        if self.reading.state != State::Forbidden {
            self.reading.at = self.reading.at.min(self.clock.now());
        }
    }

    pub(super) fn reading_due(&self) -> Option<Instant> {
        let reading = &self.reading;
        if !self.wants_history() || !self.outbox.is_empty() || !reading.is_loaded || reading.waits_for_writer {
            return None;
        }
        if !reading.history.is_idle() {
            return Some(reading.retry_at);
        }
        let opening = reading.state == State::Unknown && self.wants_socket() && !self.connections.has_socket();
        if opening {
            return Some(reading.at.max(self.started + SOCKET_FIRST));
        }
        let coverage = self.coverage_due().filter(|_| reading.state != State::Forbidden);
        Some(coverage.map_or(reading.at, |at| at.max(reading.retry_at).min(reading.at)))
    }

    /// Sends one history request, or begins the next read.
    pub(super) fn read_if_due(&mut self, now: Instant) -> bool {
        if self.reading_due().is_none_or(|due| now < due) {
            return false;
        }
        if self.reading.history.is_idle() {
            self.begin_read(now);
            return !self.reading.history.is_idle();
        }
        if !self.prepare_piece(now) {
            return true;
        }
        let (cursor, body) = match self.reading.history.next(now, self.api.service().now()) {
            Next::Ask { cursor, body } => (cursor, body),
            Next::Wait(wait) => {
                self.reading.retry_at = now + wait;
                return false;
            }
            Next::Idle => return false,
        };
        self.reading.retry_at = now;
        let answer = self.api.query_page(cursor.as_deref(), PAGE_SIZE, &body);
        // A refused request is not a success, even if a different request replaces it.
        let is_answered = answer.is_ok();
        let is_catch_up = self.reading.history.purpose() == Some(Purpose::CatchUp);
        let asked_for = self.reading.history.ids().cloned();
        let taken = self.reading.history.take(answer, self.service_time.receipt(&self.clock));
        if is_answered && taken.failed.is_none() {
            self.read_worked();
            self.reading.left_out.retain(|id, _| !asked_for.iter().flat_map(|ids| ids.iter()).any(|one| one == id));
            if is_catch_up {
                // The end of the gap is known only now: requests may have failed for days.
                let why = "the history was not read for longer than the ten days that Genesys keeps it";
                self.report_gap(self.reading.checkpoint, self.api.service().now() - HISTORY_KEPT_MS, why);
            }
        }
        self.take_answer(taken);
        true
    }

    fn take_answer(&mut self, taken: Taken) {
        for (id, error) in taken.left_out {
            let why = error.problem();
            log::warn!("{}; {id} is left out, and tried again by itself", why.what);
            self.reading.left_out.insert(id, LeftOut { why, retry_at: self.clock.now() });
        }
        if let Some(error) = taken.failed {
            let error = error.with_correlation(self.api.correlation());
            if self.reading.history.purpose() != Some(Purpose::CatchUp) && error.kind.is_about_the_request() {
                let asked = self.failed(&error).unwrap_or_default();
                let retry = match error.kind {
                    Kind::Refused(_) => REFUSED_RETRY,
                    _ => self.config.catch_up.interval.max(self.config.reconnect.max_delay),
                };
                self.give_up(&error.problem(), retry.max(asked));
            } else {
                self.read_failed(&error);
                self.let_coverage_pass();
            }
        }
        if let Some((from, to)) = taken.skipped {
            log::warn!(
                "Genesys Cloud refuses queries for events before {}; those from {} on are skipped",
                format_millis(to),
                format_millis(from)
            );
            self.report_gap(from, to, "Genesys Cloud refuses queries for events so old");
        }
        if let Some(page) = taken.page {
            self.outbox.send(WriterCommand::Page(page));
        }
        match taken.done {
            Some(read) => self.end_read(&read),
            None => {
                if let (Some(up_to), Some(ids)) = (taken.read_up_to, self.reading.history.ids().cloned()) {
                    self.outbox.send(WriterCommand::ReadUpTo { ids, up_to });
                }
            }
        }
    }

    /// Gives up a failed read other than a catch-up, so that it does not delay catch-ups, and retries it after `wait`.
    fn give_up(&mut self, why: &Problem, wait: Duration) {
        let retry_at = self.clock.now() + wait;
        let history = &mut self.reading.history;
        let ids = history.ids().cloned().unwrap_or_default();
        log::warn!("{}; the history of {} is read again {}", why.what, shorten(&ids), in_a_while(wait));
        match history.purpose() {
            Some(Purpose::Repair) => self.audit_again_at(retry_at),
            _ => {
                let left_out = ids.iter().map(|id| (id.clone(), LeftOut { why: why.clone(), retry_at }));
                self.reading.left_out.extend(left_out);
            }
        }
        // The read's length may be the cause.
        self.reading.history.halve(PIECE_MS_MIN);
        self.reading.history.clear();
    }

    /// A catch-up of a single definition has nothing to leave out: while it fails, other reads get their turn.
    fn let_coverage_pass(&mut self) {
        let retry_at = self.reading.retry_at;
        let is_single = self.reading.history.ids().is_some_and(|ids| ids.len() == 1);
        if self.reading.state == State::Failing && is_single && self.coverage_due().is_some_and(|due| due <= retry_at) {
            self.reading.history.clear();
            self.reading.at = retry_at + self.config.catch_up.interval;
        }
    }

    /// Begins a catch-up if one is due, otherwise the next part that is not covered.
    fn begin_read(&mut self, now: Instant) {
        let service_now = self.api.service().now();
        self.settle_origin();
        // A first start with a fast wall clock begins now. Anything read while a clock was fast is read again.
        self.reading.origin = self.reading.origin.min(service_now);
        self.reading.checkpoint = self.reading.checkpoint.min(service_now);
        let begin = self.reading.origin.max(service_now - REACH_MS);
        if self.reading.checkpoint <= begin {
            // Nothing older is requested, so nothing older is left to cover.
            let checkpoint = self.reading.checkpoint;
            self.reading.coverage.extend(self.read_ids.iter().map(|id| (id.clone(), checkpoint)));
        }
        self.reading.retry_at = now;
        let may_cover = self.coverage_due().is_some_and(|due| now >= due);
        if now >= self.reading.at || !may_cover {
            self.reading.at = now + self.config.catch_up.interval;
            self.begin_catch_up(service_now, now);
        }
        if self.reading.history.is_idle() && may_cover {
            self.begin_coverage(begin, now);
        }
    }

    fn begin_catch_up(&mut self, service_now: Millis, now: Instant) {
        let checkpoint = self.reading.checkpoint;
        let ids = self.covered();
        let from = (checkpoint - self.overlap_ms()).max(self.reading.origin);
        let to = (service_now - self.row_wait_ms(now)).max(checkpoint);
        self.begin(Read { ids, span: Span { from, to }, until: to, purpose: Purpose::CatchUp }, now);
    }

    /// Minimum age of a row to be judged: if a socket could deliver its event, the frame may still arrive.
    fn row_wait_ms(&self, now: Instant) -> Millis {
        let open_ms = |opened: Instant| now.saturating_duration_since(opened).as_millis() as Millis + TOLERANCE_MS;
        self.connections.opened_at().map_or(0, |opened| open_ms(opened).min(ROW_WAIT_MS))
    }

    /// End of the rows to request for a span that ends at `to`: the span's end plus context.
    pub(super) fn with_context(&self, to: Millis) -> Millis {
        (to + CONTEXT_MS).min(self.api.service().now()).max(to)
    }

    /// Begins a read. The writer receives its span now and its pages as they arrive.
    pub(super) fn begin(&mut self, read: Read, now: Instant) {
        if read.ids.is_empty() {
            return;
        }
        self.reading.from_files = None;
        self.outbox.send(WriterCommand::Begin { span: read.span, until: read.until, purpose: read.purpose });
        self.reading.history.begin(read, now);
    }

    /// If the piece is older than the writer's index, reads its records from the files before its first request; if
    /// there is room, all records up to where the index begins. Returns whether the request can be sent.
    fn prepare_piece(&mut self, now: Instant) -> bool {
        let index_since = self.status.gauges.index_since.get().unwrap_or(Millis::MIN);
        let Some((piece, until)) = self.reading.history.next_piece(self.api.service().now()) else { return true };
        // From here on, the index is sufficient.
        let boundary = index_since.saturating_add(2 * MARGIN_MS + 1_000);
        let is_known = self.reading.from_files.is_some_and(|known| known.from <= piece.from && piece.to <= known.to);
        if is_known || index_since <= piece.from - 2 * MARGIN_MS {
            return true;
        }
        log::debug!(
            "the index does not reach back to {}: reading the records from the files",
            format_millis(piece.from)
        );
        // Reads as many records as the index may hold at once, for the following pieces too.
        let mut range = Range { from: piece.from, to: until.min(boundary).max(piece.to) };
        loop {
            let can_be_shorter = range.to > piece.to || piece.to - piece.from > PIECE_MS_MIN;
            match files::index_between(&self.config, range, can_be_shorter, &|| self.beat.busy()) {
                Ok(Some(records)) => {
                    self.reading.from_files = Some(range);
                    self.outbox.send(WriterCommand::Records(Box::new(records)));
                    return true;
                }
                Ok(None) if range.to > piece.to => range.to = piece.to.max(range.from + (range.to - range.from) / 2),
                Ok(None) => {
                    self.reading.history.halve(PIECE_MS_MIN);
                    return false;
                }
                Err(error) => {
                    let what = format!("cannot read the output files: {error}");
                    let why = Problem::new(what, "Let the collector read OUTPUT_FILE and its backups.");
                    if self.reading.history.purpose() != Some(Purpose::CatchUp) {
                        self.give_up(&why, FILES_RETRY);
                        return false;
                    }
                    log::warn!("{}; the history is read once that works", why.what);
                    self.reading.retry_at = now + FILES_RETRY;
                    self.reading.state = State::Failing;
                    self.reading.why = Some(why);
                    return false;
                }
            }
        }
    }

    fn end_read(&mut self, read: &Read) {
        self.outbox.send(WriterCommand::End { ids: read.ids.clone(), up_to: read.span.to });
        self.reading.waits_for_writer = true;
    }

    /// The writer has made the events of a read durable.
    pub(super) fn read_done(&mut self, purpose: Purpose, appended: u64, unjudged_since: Option<Millis>) {
        self.reading.waits_for_writer = false;
        let now = self.clock.now();
        if let Some(since) = unjudged_since {
            // More events arrived than the index holds: the span is read again, with the records from the files.
            log::debug!("the index does not reach back to {}: reading the files", format_millis(since));
            let retry_at = now + UNJUDGED_RETRY;
            match purpose {
                Purpose::CatchUp => self.reading.at = retry_at,
                Purpose::Coverage => self.reading.coverage_at = retry_at,
                Purpose::Repair => self.audit_again_at(retry_at),
            }
            return;
        }
        if purpose == Purpose::Repair {
            self.repair_done(appended);
            return;
        }
        if purpose == Purpose::CatchUp {
            self.reading.has_caught_up = true;
        }
        let Reading { left_out, checkpoint, .. } = &self.reading;
        let is_last = |id: &String| left_out.contains_key(id) || self.reading.read_to(id) + COVERAGE_MS >= *checkpoint;
        if purpose == Purpose::Coverage && self.uncovered().iter().all(is_last) {
            // Rows that are open at the end of the last part are soon closed by other rows, or by time.
            self.reading.coverage_at = self.reading.coverage_at.max(now + UNJUDGED_RETRY);
        }
    }

    /// Bases the origin of the very first start on the service's clock: this machine's may be wrong.
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
            self.outbox.send(WriterCommand::Origin(self.reading.origin));
        }
    }

    /// Reports that events in this range may be lost for good.
    fn report_gap(&mut self, from: Millis, to: Millis, why: &str) {
        let shortest = if from <= self.reading.origin { FIRST_GAP_MS_MIN } else { GAP_MS_MIN };
        if from + shortest >= to || self.reading.gap_reported == Some(from) {
            return;
        }
        self.reading.gap_reported = Some(from);
        let what = format!(
            "events from {} to {} may be missing for good, but for those that the socket brought: {why}",
            format_millis(from),
            format_millis(to)
        );
        self.status
            .raise(Code::Incomplete, Problem::new(what, "Note the gap; nothing can fill it. A restart clears this."));
    }

    pub(super) fn read_worked(&mut self) {
        self.reading.state = State::Works;
        self.reading.why = None;
        self.reading.backoff.reset();
        self.reading.throttled_since = None;
        self.throttle_backoff.reset();
    }

    /// Informs the writer whether rows can be expected. If not, it holds back no frame for a row.
    pub(super) fn send_whether_history_works(&mut self) {
        let works = self.wants_history() && matches!(self.reading.state, State::Works | State::Unknown);
        if works != self.reading.told_works {
            self.reading.told_works = works;
            self.outbox.send(WriterCommand::HistoryWorks(works));
        }
    }

    /// When a read that is delayed by failures of other requests is late enough to be reported.
    pub(super) fn overdue_at(&self) -> Option<Instant> {
        let due = self.reading_due().filter(|_| self.reading.state == State::Works)?;
        self.call_failed.as_ref().filter(|(at, _)| *at >= due).map(|_| due + HELD_BACK_MAX)
    }

    pub(super) fn assess_overdue(&mut self, now: Instant) {
        if self.overdue_at().is_none_or(|at| now < at) {
            return;
        }
        let why = self.call_failed.as_ref().map_or_else(Problem::default, |(_, why)| why.clone());
        self.reading.why = Some(Problem { what: format!("the history is not read in time: {}", why.what), ..why });
        self.reading.state = State::Failing;
    }

    /// Without a token the history cannot be read either. Reported as failing only if it worked before.
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
                if self.reading.retry_at.duration_since(since) > HELD_BACK_MAX {
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
