//! Reading the history: a read is cut into pieces, a piece is read in pages.
//!
//! One request a step, so that whoever drives it has time for other duties. Pure: it says what to ask and takes the
//! answer. What the service limits is learned by halving: a piece that is refused is asked for with half its definitions, a
//! single definition for half the time, until it is taken. A definition that fails alone while others are answered is left
//! out. Must never: state that a span was read before every page of it was given.

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

/// What the service is about to forget is not asked for: when the request arrives, it may be too old to be taken.
const EDGE_MS: Millis = 60 * 1000;
/// How far back it is asked for.
pub const REACH_MS: Millis = HISTORY_KEPT_MS - EDGE_MS;
/// Where the oldest is refused, so much of it is left out at first, then twice as much each time…
const EDGE_MS_REFUSED: Millis = 10 * 60 * 1000;
/// …and no more than this.
const EDGE_MS_MAX: Millis = 24 * 3600 * 1000;
/// The longest piece that is asked for at once.
const PIECE_MS_MAX: Millis = 24 * 3600 * 1000;
/// No piece is halved below this, but where its answer is too long.
pub const PIECE_MS_MIN: Millis = 1000;
/// A piece of more pages is begun anew and shorter, so that a restart does not read many of them again…
const PAGES_MAX: u32 = 50;
/// …by this much: pieces of few pages grow again, and each try that is too long costs its pages.
const PIECE_PARTS: Millis = 64;
/// After so many failures in a row the piece is begun anew with half its span, and each definition is asked for alone: its
/// cursor may be what fails, its length, or one of them.
const FAILURES_MAX: u32 = 3;
/// A page that names its own cursor is the last one where it comes so many times again: once may be a mistake.
const REPEATS_MAX: u32 = 3;
/// Pages without rows, or with a cursor that was followed before, in a row.
const PAGES_WITHOUT_PROGRESS_MAX: u32 = 2_000;
/// A long read shows its progress this often.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

const WHAT: &str = "read the history";

/// A read: these definitions over a span. The rows of the span are judged; those around it are context.
#[derive(Clone, Debug)]
pub struct Read {
    pub ids: Arc<[String]>,
    pub span: Span,
    /// Rows up to here are asked for: the span's end where it is read again, else [`CONTEXT_MS`] more, or up to now where a
    /// row without a time may have been received since. What is younger than the span may still wait for its frame, and
    /// must not be given another's.
    pub until: Millis,
    pub purpose: Purpose,
}

/// A read under way.
#[derive(Debug)]
struct Job {
    /// Without the definitions that failed alone.
    read: Read,
    /// Rows from here on are asked for.
    from: Millis,
    /// What is still to be asked for, the next piece last.
    todo: Vec<Piece>,
    /// Of the next piece, once its first page is asked for.
    pages: Option<Pages>,
    /// Pieces of a single definition that failed since a page was last taken, and why.
    failed: Vec<(Piece, ApiError)>,
    /// Those that failed alone were asked for together with the others once more.
    is_retried: bool,
    /// What lies between was left out, for the service refuses to be asked for it.
    skipped: Option<(Millis, Millis)>,
    failures: u32,
    started: Instant,
    shown: Instant,
    events: u64,
    requests: u64,
}

/// A part of a read: these definitions, from here to there.
#[derive(Clone, Debug)]
struct Piece {
    from: Millis,
    to: Millis,
    ids: Arc<[String]>,
}

/// How far the pages of a piece were read.
#[derive(Debug, Default)]
struct Pages {
    cursor: Option<String>,
    count: u32,
    /// The page that each cursor brought last, both hashed.
    answers: HashMap<u64, u64>,
    /// How many pages in a row had come before.
    repeats: u32,
    without_progress: u32,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// There is nothing to read.
    Idle,
    /// The rate allows the next request after this.
    Wait(Duration),
    /// Ask for this page.
    Ask {
        /// The path of the next page; `None`: the first.
        cursor: Option<String>,
        body: String,
    },
}

/// What an answer brought.
#[derive(Debug, Default)]
pub struct Taken {
    pub page: Option<Page>,
    /// All events of the span up to here were given.
    pub read_up_to: Option<Millis>,
    /// The read is done.
    pub done: Option<Read>,
    /// What lies between was passed over: the service no longer takes a request for it.
    pub skipped: Option<(Millis, Millis)>,
    /// Definitions that fail alone while others are answered: the read no longer speaks for them.
    pub left_out: Vec<(String, ApiError)>,
    /// The request failed: wait before the next.
    pub failed: Option<ApiError>,
}

/// The reader of the history.
#[derive(Debug)]
pub struct History {
    api_url: String,
    rate: Rate,
    job: Option<Job>,
    /// How long a piece is now, and how many definitions it has, at most.
    piece_ms: Millis,
    ids_max: usize,
    /// So much of the oldest that the service should keep is not asked for.
    edge_ms: Millis,
    /// The oldest was refused, then something was taken, and since then the oldest is asked for again.
    is_edge_tried_again: bool,
    /// What is older than this the service keeps no longer.
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

    /// Counts one other request of the same kind; how long to wait first, if the rate does not allow it yet.
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

    /// What the read under way is for.
    pub fn purpose(&self) -> Option<Purpose> {
        self.job.as_ref().map(|job| job.read.purpose)
    }

    /// Begins a read in place of the one under way; one without definitions or of an empty span is none.
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

    /// Gives up what was to be read: it will be asked for anew.
    pub fn clear(&mut self) {
        self.job = None;
    }

    /// The definitions of the read under way, but for those that failed alone.
    pub fn ids(&self) -> Option<&Arc<[String]>> {
        self.job.as_ref().map(|job| &job.read.ids)
    }

    /// The piece that begins with the next request, and the end of its read; none in the middle of a piece. A read of which
    /// the service keeps nothing any more is given up.
    pub fn next_piece(&mut self, service_now: Millis) -> Option<(Range, Millis)> {
        let job = self.job.as_mut().filter(|job| job.pages.is_none())?;
        self.oldest = service_now - HISTORY_KEPT_MS;
        if job.read.until <= self.oldest + EDGE_MS {
            // It failed for so long that there is nothing left of it.
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

    /// Asks for half the span at once from now on, and no less than `least`; whether it was longer.
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

    /// What to ask for next; `service_now` is the service's clock.
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
        // A millisecond more, wherever the service's intervals end: what comes twice is dropped.
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

    /// Takes the answer to what [`History::next`] asked for; `received` is the wall clock.
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

    /// Something is taken after everything was refused: the service may have refused it for a while, whatever its age. The
    /// oldest is asked for once more before it is skipped.
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

    /// Something is taken after definitions failed alone: the service may have failed as a whole for a while. All are asked
    /// for together once more before any is left out.
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

    /// Others are taken: those that failed alone are what the service does not give.
    fn leave_out_failed(&mut self, taken: &mut Taken) {
        let Some(job) = self.job.as_mut().filter(|job| !job.failed.is_empty()) else { return };
        taken.left_out.extend(job.failed.drain(..).map(|(piece, why)| (piece.ids[0].clone(), why)));
        // What was learned by their refusals was not about the number of definitions.
        self.ids_max = usize::MAX;
    }

    /// The pages of a piece are read.
    fn end_piece(&mut self, taken: &mut Taken) {
        let Some(job) = &mut self.job else { return };
        let (Some(piece), Some(pages)) = (job.todo.pop(), job.pages.take()) else { return };
        if 2 * pages.count < PAGES_MAX {
            self.piece_ms = (2 * (piece.to - piece.from)).max(self.piece_ms).min(PIECE_MS_MAX);
        }
        self.advance(piece.from, taken);
    }

    /// States what was read, now that nothing of a piece that began here is left.
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
            // The piece has not begun, and part of it may be too old by the next time.
            job.pages = None;
        }
        let is_cured = match error.kind {
            // The cursor has expired; a shorter piece has fewer of them.
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
            // A read that ends without what failed has not failed.
            taken.failed = Some(error);
        }
    }

    /// The service refuses this piece: it is asked for with half the definitions, a single one for half the time.
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
                // None of them was taken, so it was not their number.
                job.todo.retain(|piece| !is_beside(piece));
                job.todo.push(Piece { from, to, ids: job.read.ids.clone() });
                self.ids_max = usize::MAX;
            }
            self.halve(PIECE_MS_MIN);
            log::debug!("{error}: asking for {} s at once", self.piece_ms / 1000);
        } else if self.set_aside(Piece { from, to, ids }, &error, taken) {
            // The service takes nothing, or nothing so old.
            let is_old = self.job.as_ref().is_some_and(|job| job.at() < self.oldest + EDGE_MS_MAX);
            self.edge_ms = match 2 * self.edge_ms {
                wider if is_old && self.edge_ms < EDGE_MS_MAX => wider.clamp(EDGE_MS_REFUSED, EDGE_MS_MAX),
                _ => EDGE_MS,
            };
            taken.failed = Some(error);
        }
    }

    /// The piece fails again and again: each of its definitions is asked for alone, and one that fails alone is set aside
    /// until it shows whether the others fail too.
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

    /// A definition fails alone. It is read no further, so that the read speaks for the others alone. Where every one
    /// failed so, it is not the definitions, and all are asked for again: then this is true.
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

    /// How far the read under way has come, in percent.
    pub fn percent(&self) -> Option<i64> {
        self.job.as_ref().map(Job::percent)
    }
}

impl Job {
    /// Everything before this was given.
    fn at(&self) -> Millis {
        self.todo.iter().map(|piece| piece.from).min().unwrap_or(self.read.until)
    }

    fn percent(&self) -> i64 {
        100 * (self.at() - self.from) / (self.read.until - self.from).max(1)
    }

    /// One line on a long read, every few seconds.
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
    /// The pages lead in a circle: the piece is to be read anew.
    Again,
}

impl Pages {
    /// Whether another page follows this one, of which the rows are hashed.
    ///
    /// Some services name a cursor on the last page too: the one that was just asked for, or one that was used before.
    /// Where the page is empty, it is the last. Where it is not, the cursor is followed: more may come of it. It was the
    /// last where the cursor brings the same again and again.
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
