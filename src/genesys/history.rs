//! Reads the history. A read is split into pieces, and each piece is read page by page.
//!
//! One step is one request, so that the caller has time for other duties in between. Pure: the module builds the
//! requests and takes the answers. It learns the service's limits by halving: a refused piece is requested again with
//! half its definitions, or a single definition with half its span, until it is accepted. A definition that fails alone
//! while others succeed is left out. Must never: report a span as read before passing on every page of it.

mod page;
mod rate;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use twox_hash::XxHash3_64;

use self::page::Parsed;
use self::rate::Rate;
use super::api::interval;
use super::error::{ApiError, Kind};
use crate::clock::{Millis, format_millis};
use crate::dedup::rows::Span;
use crate::dedup::{CONTEXT_MS, Range};
use crate::message::{HISTORY_KEPT_MS, Page, Purpose};

/// Events this close to expiry are not requested: the request could be too old by the time it arrives.
const EDGE_MS: Millis = 60 * 1000;
/// How far back the history is requested.
pub const REACH_MS: Millis = HISTORY_KEPT_MS - EDGE_MS;
/// If the oldest events are refused, this much of them is left out at first, then twice as much each time…
const EDGE_MS_REFUSED: Millis = 10 * 60 * 1000;
/// …up to this limit.
const EDGE_MS_MAX: Millis = 24 * 3600 * 1000;
/// Longest piece that is requested at once.
const PIECE_MS_MAX: Millis = 24 * 3600 * 1000;
/// Pieces are not halved below this length, except when an answer is too long.
pub const PIECE_MS_MIN: Millis = 1000;
/// A piece with more pages is restarted with a shorter span, so that a restart rereads fewer pages…
const PAGES_MAX: u32 = 50;
/// …divided by this: pieces with few pages grow again, and each attempt that is too long costs its pages.
const PIECE_PARTS: Millis = 64;
/// After this many consecutive failures, the piece is restarted with half its span, and each definition is requested
/// alone: the cause may be the cursor, the length or one of the definitions.
const FAILURES_MAX: u32 = 3;
/// A page that names its own cursor is the last one if it repeats this often: a single repeat may be a mistake.
const REPEATS_MAX: u32 = 3;
/// Maximum consecutive pages without rows, or with a cursor that was followed before.
const PAGES_WITHOUT_PROGRESS_MAX: u32 = 2_000;
/// Interval between the progress lines of a long read.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

const WHAT: &str = "read the history";

/// A request to read these definitions over a span. Rows in the span are judged; rows around it are context.
#[derive(Clone, Debug)]
pub struct Read {
    pub ids: Arc<[String]>,
    pub span: Span,
    /// End of the requested rows: the span's end if a later read repeats it, else [`CONTEXT_MS`] later, or up to now if
    /// a row without a time may have been received since. A row younger than the span may still wait for its frame and
    /// must not be matched with another row's frame.
    pub until: Millis,
    pub purpose: Purpose,
}

/// A read in progress.
#[derive(Debug)]
struct Job {
    /// The read, without the definitions that failed alone.
    read: Read,
    /// Start of the requested rows.
    from: Millis,
    /// The remaining pieces; the next piece is last.
    todo: Vec<Piece>,
    /// Pages of the next piece; set once its first page was requested.
    pages: Option<Pages>,
    /// Single-definition pieces that failed since the last accepted page, and why.
    failed: Vec<(Piece, ApiError)>,
    /// Whether the definitions that failed alone were retried together with the others.
    is_retried: bool,
    /// Range that was left out because the service refuses requests for it.
    skipped: Option<(Millis, Millis)>,
    failures: u32,
    started: Instant,
    shown: Instant,
    events: u64,
    requests: u64,
}

/// A part of a read: definitions and a time range.
#[derive(Clone, Debug)]
struct Piece {
    from: Millis,
    to: Millis,
    ids: Arc<[String]>,
}

/// How far a piece was read.
#[derive(Debug, Default)]
struct Pages {
    cursor: Option<String>,
    count: u32,
    /// The last page that each cursor returned; both are hashed.
    answers: HashMap<u64, u64>,
    /// Consecutive pages that had been received before.
    repeats: u32,
    without_progress: u32,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// There is nothing to read.
    Idle,
    /// The rate limit allows the next request after this time.
    Wait(Duration),
    /// Request this page.
    Ask {
        /// Path of the next page; `None` for the first page.
        cursor: Option<String>,
        body: String,
    },
}

/// The result of an answer.
#[derive(Debug, Default)]
pub struct Taken {
    pub page: Option<Page>,
    /// All events of the span up to this time were passed on.
    pub read_up_to: Option<Millis>,
    /// The read, once it is done.
    pub done: Option<Read>,
    /// Range that was skipped because the service no longer accepts requests for it.
    pub skipped: Option<(Millis, Millis)>,
    /// Definitions that fail alone while others succeed. The read no longer covers them.
    pub left_out: Vec<(String, ApiError)>,
    /// The request failed: wait before the next one.
    pub failed: Option<ApiError>,
}

/// The reader of the history.
#[derive(Debug)]
pub struct History {
    api_url: String,
    rate: Rate,
    job: Option<Job>,
    /// Current limits of a piece: its length, and its number of definitions.
    piece_ms: Millis,
    ids_max: usize,
    /// How much of the oldest events that the service should still have is not requested.
    edge_ms: Millis,
    /// Whether the oldest events are requested again: they were refused, then another request was accepted.
    is_edge_tried_again: bool,
    /// The service no longer keeps events older than this.
    oldest: Millis,
}

impl History {
    pub fn new(api_url: &str, requests_per_minute: u32) -> Self {
        Self {
            api_url: api_url.to_owned(),
            rate: Rate::new(requests_per_minute),
            job: None,
            piece_ms: PIECE_MS_MAX,
            ids_max: usize::MAX,
            edge_ms: EDGE_MS,
            is_edge_tried_again: false,
            oldest: Millis::MIN,
        }
    }

    /// Counts another request of the same kind. If the rate limit does not allow it yet, returns the time to wait.
    pub fn ask_other(&mut self, now: Instant) -> Option<Duration> {
        let wait = self.rate.wait(now);
        if wait.is_zero() {
            self.rate.take();
            return None;
        }
        Some(wait)
    }

    pub fn is_idle(&self) -> bool {
        self.job.is_none()
    }

    /// Purpose of the read in progress.
    pub fn purpose(&self) -> Option<Purpose> {
        self.job.as_ref().map(|job| job.read.purpose)
    }

    /// Begins a read and drops the one in progress. A read without definitions or with an empty span is ignored.
    pub fn begin(&mut self, read: Read, now: Instant) {
        self.job = None;
        if read.ids.is_empty() || read.span.from >= read.span.to {
            return;
        }
        let from = read.span.from - CONTEXT_MS;
        let whole = Piece { from, to: read.until, ids: read.ids.clone() };
        self.ids_max = usize::MAX;
        self.job = Some(Job {
            read,
            from,
            todo: vec![whole],
            pages: None,
            failed: Vec::new(),
            is_retried: false,
            skipped: None,
            failures: 0,
            started: now,
            shown: now,
            events: 0,
            requests: 0,
        });
    }

    /// Drops the read in progress. The caller will request it again.
    pub fn clear(&mut self) {
        self.job = None;
    }

    /// Definitions of the read in progress, without those that failed alone.
    pub fn ids(&self) -> Option<&Arc<[String]>> {
        self.job.as_ref().map(|job| &job.read.ids)
    }

    /// The piece that starts with the next request, and the end of its read; `None` in the middle of a piece. A read is
    /// dropped if the service no longer keeps any of it.
    pub fn next_piece(&mut self, service_now: Millis) -> Option<(Range, Millis)> {
        let job = self.job.as_mut().filter(|job| job.pages.is_none())?;
        self.oldest = service_now - HISTORY_KEPT_MS;
        if job.read.until <= self.oldest + EDGE_MS {
            // The read failed for so long that nothing of it is left.
            self.job = None;
            return None;
        }
        let reach = (self.oldest + self.edge_ms).min(job.read.until - 1);
        let at = job.at();
        if at < reach {
            job.todo.retain(|piece| piece.to > reach);
            job.todo.iter_mut().for_each(|piece| piece.from = piece.from.max(reach));
            if self.edge_ms > EDGE_MS {
                let from = job.skipped.map_or(at.max(self.oldest), |(from, _)| from);
                job.skipped = Some((from, reach));
            }
        }
        let mut piece = job.todo.pop()?;
        let to = piece.to.min(piece.from + self.piece_ms);
        if to < piece.to {
            job.todo.push(Piece { from: to, ..piece.clone() });
        }
        if piece.ids.len() > self.ids_max {
            let (first, others) = piece.ids.split_at(self.ids_max);
            job.todo.push(Piece { to, from: piece.from, ids: others.into() });
            piece.ids = first.into();
        }
        let from = piece.from;
        job.todo.push(Piece { to, ..piece });
        Some((Range { from, to }, job.read.until))
    }

    /// Halves the span of future requests, to `least` at the shortest. Returns whether the span was longer.
    pub fn halve(&mut self, least: Millis) -> bool {
        self.divide(2, least)
    }

    fn divide(&mut self, parts: Millis, least: Millis) -> bool {
        let Some(job) = &mut self.job else { return false };
        job.pages = None;
        let span = job.todo.last().map_or(0, |piece| piece.to - piece.from);
        if span <= least {
            return false;
        }
        self.piece_ms = (span / parts).max(least);
        true
    }

    /// The next step. `service_now` is the service's clock.
    pub fn next(&mut self, now: Instant, service_now: Millis) -> Next {
        if self.is_idle() {
            return Next::Idle;
        }
        let wait = self.rate.wait(now);
        if !wait.is_zero() {
            return Next::Wait(wait);
        }
        self.next_piece(service_now);
        let Some(job) = &mut self.job else { return Next::Idle };
        let Some(piece) = job.todo.last() else { return Next::Idle };
        self.rate.take();
        job.requests += 1;
        // Starts 1 ms early, in case the service excludes the ends of intervals: duplicates are dropped.
        let from = if piece.from > job.from { piece.from - 1 } else { piece.from };
        let body = json!({
            "interval": interval(from.max(self.oldest + self.edge_ms).min(piece.to - 1), piece.to),
            "eventDefinitionIds": *piece.ids,
            "sortOrder": "ASC",
        });
        let cursor = job.pages.get_or_insert_default().cursor.clone();
        job.show_progress(now);
        Next::Ask { cursor, body: body.to_string() }
    }

    /// Takes the answer to the request from [`History::next`]; `received` is the wall clock.
    pub fn take(&mut self, answer: Result<String, ApiError>, received: Millis) -> Taken {
        let mut taken = Taken::default();
        let page = answer.and_then(|body| {
            let parsed = page::parse(&body, &self.api_url);
            parsed.map(|parsed| (body, parsed)).map_err(|cause| ApiError::invalid_response(WHAT, cause))
        });
        let outcome = page.and_then(|(body, parsed)| self.take_page(body, parsed, received, &mut taken));
        if let Err(error) = outcome {
            self.take_failure(error, &mut taken);
        }
        taken
    }

    fn take_page(&mut self, body: String, page: Parsed, received: Millis, taken: &mut Taken) -> Result<(), ApiError> {
        if self.ask_for_failed_again() {
            return Ok(());
        }
        self.leave_out_failed(taken);
        if self.ask_for_oldest_again() {
            return Ok(());
        }
        let Some(job) = &mut self.job else { return Ok(()) };
        let (Some(piece), Some(pages)) = (job.todo.last(), &mut job.pages) else { return Ok(()) };
        job.failures = 0;
        job.events += page.rows.len() as u64;
        taken.skipped = job.skipped.take();
        let hash = match (page.rows.first(), page.rows.last()) {
            (Some(first), Some(last)) => XxHash3_64::oneshot(&body.as_bytes()[first.start..last.end]),
            _ => 0,
        };
        let is_first = pages.cursor.is_none();
        let following = pages.follow(page.next, hash, page.rows.is_empty());
        if !page.rows.is_empty() {
            taken.page = Some(Page {
                body,
                rows: page.rows,
                received,
                ids: piece.ids.clone(),
                asked: Range { from: job.read.span.from, to: job.read.until - 1 },
                is_first,
                is_all: piece.ids.len() == job.read.ids.len(),
            });
        }
        let (is_long, span) = (pages.count >= PAGES_MAX && pages.repeats == 0, piece.to - piece.from);
        match following {
            Following::Nothing => self.end_piece(taken),
            Following::Page if is_long && span > PIECE_MS_MIN => _ = self.divide(PIECE_PARTS, PIECE_MS_MIN),
            Following::Page => {}
            Following::Again => {
                self.halve(PIECE_MS_MIN);
                return Err(ApiError::invalid_response(WHAT, "its pages repeat and have no end"));
            }
        }
        Ok(())
    }

    /// Called when a request is accepted after everything was refused. The service may have refused every request for a
    /// while, whatever its age, so the oldest events are requested once more before they are skipped.
    fn ask_for_oldest_again(&mut self) -> bool {
        let is_first_time = !self.is_edge_tried_again;
        let skipped = self.job.as_mut().and_then(|job| job.skipped.take_if(|_| is_first_time));
        let Some((from, _)) = skipped else { return false };
        self.is_edge_tried_again = true;
        self.edge_ms = EDGE_MS;
        let Some(job) = &mut self.job else { return false };
        job.pages = None;
        job.todo = vec![Piece { from, to: job.read.until, ids: job.read.ids.clone() }];
        true
    }

    /// Called when a request is accepted after definitions failed alone. The service may have failed as a whole for a
    /// while, so all definitions are requested together once more before any is left out.
    fn ask_for_failed_again(&mut self) -> bool {
        let Some(job) = self.job.as_mut().filter(|job| !job.is_retried) else { return false };
        if job.failed.iter().all(|(_, why)| matches!(why.kind, Kind::Refused(_))) {
            return false;
        }
        let from = job.failed.iter().map(|(piece, _)| piece.from).fold(job.at(), Millis::min);
        let failed = job.failed.iter().flat_map(|(piece, _)| piece.ids.iter());
        job.read.ids = job.read.ids.iter().chain(failed).cloned().collect();
        job.failed.clear();
        (job.is_retried, job.failures, job.pages) = (true, 0, None);
        job.todo = vec![Piece { from, to: job.read.until, ids: job.read.ids.clone() }];
        true
    }

    /// Leaves out the definitions that failed alone, because others were accepted.
    fn leave_out_failed(&mut self, taken: &mut Taken) {
        let Some(job) = self.job.as_mut().filter(|job| !job.failed.is_empty()) else { return };
        taken.left_out.extend(job.failed.drain(..).map(|(piece, why)| (piece.ids[0].clone(), why)));
        // Their refusals were not about the number of definitions.
        self.ids_max = usize::MAX;
    }

    /// Ends a piece whose pages were all read.
    fn end_piece(&mut self, taken: &mut Taken) {
        let Some(job) = &mut self.job else { return };
        let (Some(piece), Some(pages)) = (job.todo.pop(), job.pages.take()) else { return };
        if 2 * pages.count < PAGES_MAX {
            self.piece_ms = (2 * (piece.to - piece.from)).max(self.piece_ms).min(PIECE_MS_MAX);
        }
        self.advance(piece.from, taken);
    }

    /// Reports how far the read has come, after a piece that began at `from` was read or dropped.
    fn advance(&mut self, from: Millis, taken: &mut Taken) {
        let Some(job) = &mut self.job else { return };
        let at = job.at();
        taken.read_up_to = Some(at.min(job.read.span.to)).filter(|up_to| at > from && *up_to > job.read.span.from);
        if job.todo.is_empty() {
            if job.from < self.oldest + EDGE_MS_MAX {
                self.is_edge_tried_again = false;
            }
            self.leave_out_failed(taken);
            taken.done = self.job.take().map(Job::end);
        }
    }

    fn take_failure(&mut self, error: ApiError, taken: &mut Taken) {
        let Some(job) = &mut self.job else { return };
        job.failures += 1;
        let has_cursor = job.pages.as_ref().is_some_and(|pages| pages.cursor.is_some());
        if !has_cursor {
            // The piece has not begun, and part of it may be too old by the next attempt.
            job.pages = None;
        }
        let is_cured = match error.kind {
            // The cursor has expired; a shorter piece needs fewer cursors.
            Kind::Refused(_) | Kind::Gone if has_cursor => self.halve(PIECE_MS_MIN),
            Kind::Refused(400 | 413 | 414 | 422) => return self.ask_for_less(error, taken),
            Kind::TooLong => self.halve(1),
            kind if kind.is_about_the_request() && job.failures >= FAILURES_MAX => {
                self.halve(PIECE_MS_MIN);
                self.ask_for_each(&error, taken);
                false
            }
            _ => false,
        };
        if is_cured {
            log::debug!("{error}: asking for {} s at once", self.piece_ms / 1000);
        } else if taken.done.is_none() {
            // A read that finished without the failed definitions has not failed.
            taken.failed = Some(error);
        }
    }

    /// The service refuses this piece: requests half of its definitions, or half the time of a single definition.
    fn ask_for_less(&mut self, error: ApiError, taken: &mut Taken) {
        let Some(job) = &mut self.job else { return };
        let Some(Piece { from, to, ids }) = job.todo.last().cloned() else { return };
        job.pages = None;
        if ids.len() > 1 {
            self.ids_max = ids.len() / 2;
            log::debug!("{error}: asking for {} definitions at once", self.ids_max);
        } else if to - from > PIECE_MS_MIN {
            let is_beside = |piece: &Piece| (piece.from, piece.to) == (from, to);
            let beside = job.todo.iter().filter(|piece| is_beside(piece)).map(|piece| piece.ids.len());
            if beside.sum::<usize>() == job.read.ids.len() {
                // None of the definitions was accepted, so their number was not the cause.
                job.todo.retain(|piece| !is_beside(piece));
                job.todo.push(Piece { from, to, ids: job.read.ids.clone() });
                self.ids_max = usize::MAX;
            }
            self.halve(PIECE_MS_MIN);
            log::debug!("{error}: asking for {} s at once", self.piece_ms / 1000);
        } else if self.set_aside(Piece { from, to, ids }, &error, taken) {
            // The service accepts nothing, or nothing this old.
            let is_old = self.job.as_ref().is_some_and(|job| job.at() < self.oldest + EDGE_MS_MAX);
            self.edge_ms = match 2 * self.edge_ms {
                wider if is_old && self.edge_ms < EDGE_MS_MAX => wider.clamp(EDGE_MS_REFUSED, EDGE_MS_MAX),
                _ => EDGE_MS,
            };
            taken.failed = Some(error);
        }
    }

    /// The piece keeps failing: requests each definition alone. A definition that fails alone is set aside until it is
    /// clear whether the others fail too.
    fn ask_for_each(&mut self, error: &ApiError, taken: &mut Taken) {
        let Some(job) = &mut self.job else { return };
        let Some(piece) = job.todo.last().cloned() else { return };
        if piece.ids.len() == 1 {
            self.set_aside(piece, error, taken);
            return;
        }
        job.todo.pop();
        job.todo.extend(piece.ids.iter().rev().map(|id| Piece { ids: [id.clone()].into(), ..piece.clone() }));
    }

    /// Sets aside a definition that fails alone: the read continues without it and covers only the others. If every
    /// definition failed alone, the definitions are not the cause: all are requested again, and this returns true.
    fn set_aside(&mut self, piece: Piece, error: &ApiError, taken: &mut Taken) -> bool {
        let Some(job) = &mut self.job else { return false };
        let but_for_it =
            |ids: &[String]| -> Arc<[String]> { ids.iter().filter(|id| !piece.ids.contains(id)).cloned().collect() };
        job.read.ids = but_for_it(&job.read.ids);
        let from = piece.from;
        if !job.read.ids.is_empty() {
            job.todo.iter_mut().for_each(|other| other.ids = but_for_it(&other.ids));
            job.todo.retain(|other| !other.ids.is_empty());
            job.failed.push((piece, error.clone()));
            self.advance(from, taken);
            return false;
        }
        let all = || job.failed.iter().map(|(piece, _)| piece).chain([&piece]);
        let from = all().map(|piece| piece.from).min().unwrap_or(from);
        job.read.ids = all().flat_map(|piece| piece.ids.to_vec()).collect();
        job.failed.clear();
        job.todo = vec![Piece { from, to: job.read.until, ids: job.read.ids.clone() }];
        true
    }

    /// How much of the read in progress is done, in percent.
    pub fn percent(&self) -> Option<i64> {
        self.job.as_ref().map(Job::percent)
    }
}

impl Job {
    /// Everything before this time was passed on.
    fn at(&self) -> Millis {
        self.todo.iter().map(|piece| piece.from).min().unwrap_or(self.read.until)
    }

    fn percent(&self) -> i64 {
        100 * (self.at() - self.from) / (self.read.until - self.from).max(1)
    }

    /// Logs the progress of a long read, every few seconds.
    fn show_progress(&mut self, now: Instant) {
        if now.duration_since(self.shown) < PROGRESS_INTERVAL {
            return;
        }
        self.shown = now;
        let spent = now.duration_since(self.started).as_secs_f64().max(0.001);
        log::info!(
            "reading the history: {} % of {} to {} done, {} events, {:.0} events/s, {:.0} requests a minute",
            self.percent(),
            format_millis(self.from),
            format_millis(self.read.until),
            self.events,
            self.events as f64 / spent,
            self.requests as f64 * 60.0 / spent.max(60.0),
        );
    }

    fn end(self) -> Read {
        if self.shown > self.started {
            let (from, to) = (format_millis(self.from), format_millis(self.read.until));
            log::info!("read the history from {from} to {to}: {} events in {} requests", self.events, self.requests);
        }
        self.read
    }
}

/// What follows a page.
enum Following {
    Page,
    Nothing,
    /// The pages form a loop: the piece must be read again.
    Again,
}

impl Pages {
    /// Decides whether another page follows this one; `page` is the hash of its rows.
    ///
    /// Some services name a cursor on the last page too: the current cursor, or one that was used before. An empty page
    /// with such a cursor is the last one. After a page with rows the cursor is followed, because it may lead to more
    /// rows. If the cursor keeps returning the same page, that page was the last one.
    fn follow(&mut self, next: Option<String>, page: u64, is_empty: bool) -> Following {
        let Some(next) = next else { return Following::Nothing };
        let hash = |cursor: &str| XxHash3_64::oneshot(cursor.as_bytes());
        let is_repeated = !is_empty && self.answers.values().any(|answer| *answer == page);
        let is_same = self.answers.insert(hash(self.cursor.as_deref().unwrap_or_default()), page) == Some(page);
        let is_known = self.answers.contains_key(&hash(&next));
        self.repeats = if is_repeated { self.repeats + 1 } else { 0 };
        if is_known && (is_empty || is_same && self.repeats >= REPEATS_MAX) {
            return Following::Nothing;
        }
        self.without_progress = if is_known || is_empty { self.without_progress + 1 } else { 0 };
        if self.without_progress > PAGES_WITHOUT_PROGRESS_MAX || self.repeats > PAGES_MAX {
            return Following::Again;
        }
        self.count += 1;
        self.cursor = Some(next);
        Following::Page
    }
}
