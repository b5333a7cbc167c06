//! Reading the history: a read is cut into pieces of time, a piece into groups of definitions, a group into pages.
//!
//! One request a step, so that whoever drives it has time for other duties. Pure: it says what to ask and takes the
//! answer. Must never: state that a span was read before every page of it was given.

mod order;
mod page;
mod rate;
#[cfg(test)]
mod tests;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use twox_hash::XxHash3_64;

use self::order::Order;
pub use self::rate::Rate;
use super::api::{PAGE_SIZE, interval};
use super::error::{ApiError, Kind};
use crate::clock::{Millis, format_millis};
use crate::dedup::rows::Span;
use crate::dedup::{CONTEXT_MS, Range};
use crate::message::{HISTORY_KEPT_MS, Page, Purpose};

/// What the service is about to forget is not asked for: when the request arrives, it may be too old to be taken.
const EDGE_MS: Millis = 60 * 1000;
/// How far back it is asked for.
pub const REACH_MS: Millis = HISTORY_KEPT_MS - EDGE_MS;
/// Nearer to the end of what the service keeps than this, a piece that is refused may be too old.
pub const EDGE_ZONE_MS: Millis = 24 * 3600 * 1000;
/// So much is passed over there at once.
pub const SKIP_MS: Millis = 10 * 60 * 1000;
/// The longest piece that is asked for at once.
const PIECE_MS_MAX: Millis = 24 * 3600 * 1000;
/// A refused or slow piece is halved down to this, before its definitions are.
const PIECE_MS_ENOUGH: Millis = 3600 * 1000;
/// No piece is halved below this because the service refuses it.
const PIECE_MS_LEAST: Millis = 60 * 1000;
/// No piece is halved below this because of what it holds.
const PIECE_MS_MIN: Millis = 1000;
/// How often a group is begun anew at once (an expired cursor) before it counts as failing.
const RESTARTS_MAX: u32 = 3;
/// A failing page is asked for so many times before its group is begun anew: its cursor may be what fails.
const CURSOR_FAILURES_MAX: u32 = 3;
/// Pages without rows, or with a cursor that was followed before, in a row.
const PAGES_WITHOUT_PROGRESS_MAX: u32 = 2_000;
/// Bytes of rows of a piece that do not come in the order of time, at most: all of them are held until its end.
const UNORDERED_BYTES_MAX: usize = 3 * 1024 * 1024;
/// A long read shows its progress this often.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

const WHAT: &str = "read the history";

/// A read: these definitions over a span. The rows of the span are judged; those around it are context.
#[derive(Clone, Debug)]
pub struct Read {
    pub ids: Arc<[String]>,
    pub span: Span,
    /// Rows up to here are asked for: the span's end where it is read again, else [`CONTEXT_MS`] more. What is younger
    /// than the span may still wait for its frame, and must not be given another's.
    pub until: Millis,
    pub purpose: Purpose,
}

/// A read under way.
#[derive(Debug)]
struct Job {
    read: Read,
    /// Rows from here on are asked for.
    from: Millis,
    /// Everything before this was given.
    at: Millis,
    started: Instant,
    shown: Instant,
    events: u64,
    requests: u64,
}

/// The piece that is being read.
#[derive(Debug)]
struct Piece {
    from: Millis,
    to: Millis,
    /// The definitions that are asked for now, and those that are asked for afterwards.
    groups: VecDeque<Vec<String>>,
    is_one_group: bool,
    /// Those that were refused alone.
    refused: Vec<String>,
    group: Group,
    failures: u32,
    restarts: u32,
    unordered_bytes: usize,
    order: Order,
}

/// How far the pages of a group of definitions were read.
#[derive(Debug, Default)]
struct Group {
    cursor: Option<String>,
    /// Hashes of the cursors that were followed, and of the pages that came.
    followed: HashSet<u64>,
    seen: HashSet<u64>,
    /// The rows of the fullest page.
    fullest: usize,
    without_progress: u32,
    /// A full page that came again under its own cursor: where it does so twice, it is the last one.
    suspected_end: Option<u64>,
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
        /// The path of the next page, its size included; `None`: the first.
        cursor: Option<String>,
        /// Rows of a page.
        page_size: u32,
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
    /// It came further: a page, or the end of a piece.
    pub progressed: bool,
    /// What lies between was passed over: the service no longer takes a request for it.
    pub skipped: Option<(Millis, Millis)>,
    /// The request failed: wait before the next.
    pub failed: Option<ApiError>,
    pub notices: Vec<String>,
    /// The sum of a long read, at its end.
    pub summary: Option<String>,
}

/// The reader of the history.
#[derive(Debug)]
pub struct History {
    api_url: String,
    rate: Rate,
    jobs: VecDeque<Job>,
    piece: Option<Piece>,
    /// How long a piece is now.
    piece_ms: Millis,
    /// Where the next piece ends at the latest.
    next_end: Millis,
    /// How many ids are asked for at once.
    group_max: usize,
    /// How many rows a page has: fewer where answers were too long.
    page_size: u32,
    /// Ids that the service does not take.
    unknown_ids: HashSet<String>,
    /// What is older than this the service keeps no longer.
    oldest: Millis,
}

impl History {
    pub fn new(api_url: &str, requests_per_minute: u32) -> Self {
        Self {
            api_url: api_url.to_owned(),
            rate: Rate::new(requests_per_minute),
            jobs: VecDeque::new(),
            piece: None,
            piece_ms: PIECE_MS_MAX,
            next_end: Millis::MAX,
            group_max: usize::MAX,
            page_size: PAGE_SIZE,
            unknown_ids: HashSet::new(),
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
        self.jobs.is_empty()
    }

    /// Whether a read of this purpose is under way, or waits to be.
    pub fn has(&self, purpose: Purpose) -> bool {
        self.jobs.iter().any(|job| job.read.purpose == purpose)
    }

    /// Adds a read; one without definitions or of an empty span is none. Definitions that the service does not know are
    /// left out, if others are left.
    pub fn add(&mut self, mut read: Read, now: Instant) {
        if read.ids.is_empty() || read.span.from >= read.span.to {
            return;
        }
        let known: Arc<[String]> = read.ids.iter().filter(|id| !self.unknown_ids.contains(*id)).cloned().collect();
        if !known.is_empty() {
            read.ids = known;
        }
        let from = read.span.from - CONTEXT_MS;
        self.jobs.push_back(Job { from, at: from, read, started: now, shown: now, events: 0, requests: 0 });
    }

    /// Gives up what was to be read: it will be asked for anew.
    pub fn clear(&mut self) {
        self.jobs.clear();
        self.piece = None;
    }

    /// Whether the service refused this definition.
    pub fn is_unknown(&self, id: &str) -> bool {
        self.unknown_ids.contains(id)
    }

    /// The definitions changed: those that were refused may be taken now.
    pub fn forget_unknown_ids(&mut self) {
        self.unknown_ids.clear();
    }

    /// The definitions of the read under way, but for those that were refused.
    pub fn ids(&self) -> Option<&Arc<[String]>> {
        self.jobs.front().map(|job| &job.read.ids)
    }

    /// The piece that begins with the next request, and the end of its read; none in the middle of a piece.
    pub fn next_piece(&self, service_now: Millis) -> Option<(Range, Millis)> {
        let job = self.jobs.front().filter(|_| self.piece.is_none())?;
        let from = job.next_from(service_now);
        let to = (from + self.piece_ms).max(job.at + 1).min(job.read.until);
        Some((Range { from, to }, job.read.until))
    }

    /// Has the next piece end here, if it would be longer.
    pub fn end_next_piece_at(&mut self, instant: Millis) {
        self.next_end = instant;
    }

    /// Whether pieces can be shorter than they are now.
    pub fn can_be_halved(&self) -> bool {
        self.piece_ms > PIECE_MS_MIN
    }

    /// Asks for half the span at once from now on: it holds too much.
    pub fn halve_next_piece(&mut self) {
        self.piece_ms = (self.piece_ms / 2).max(PIECE_MS_MIN);
    }

    /// What to ask for next; `service_now` is the service's clock.
    pub fn next(&mut self, now: Instant, service_now: Millis) -> Next {
        let Some(job) = self.jobs.front_mut() else { return Next::Idle };
        let wait = self.rate.wait(now);
        if !wait.is_zero() {
            return Next::Wait(wait);
        }
        self.rate.take();
        self.oldest = service_now - HISTORY_KEPT_MS;
        let piece = self.piece.get_or_insert_with(|| {
            let from = job.next_from(service_now);
            let end = std::mem::replace(&mut self.next_end, Millis::MAX);
            let to = (from + self.piece_ms).min(end).max(from + 1).max(job.at + 1);
            Piece::new(from, to.min(job.read.until), &job.read.ids, self.group_max)
        });
        let body = json!({
            "interval": interval(piece.from, piece.to),
            "eventDefinitionIds": piece.groups.front(),
            "sortOrder": "ASC",
        });
        job.requests += 1;
        let page_size = self.page_size;
        let cursor = piece.group.cursor.as_deref().map(|cursor| page::with_size(cursor, page_size));
        Next::Ask { cursor, page_size, body: body.to_string() }
    }

    /// Takes the answer to what [`History::next`] asked for; `received` is the wall clock.
    pub fn take(&mut self, answer: Result<String, ApiError>, received: Millis) -> Taken {
        let mut taken = Taken::default();
        if self.piece.is_none() || self.jobs.is_empty() {
            return taken;
        }
        match answer {
            Ok(body) => self.take_page(body, received, &mut taken),
            Err(error) => self.take_failure(error, &mut taken),
        }
        taken
    }

    fn take_page(&mut self, body: String, received: Millis, taken: &mut Taken) {
        let parsed = match page::parse(&body, &self.api_url) {
            Ok(parsed) => parsed,
            Err(cause) => return self.take_failure(ApiError::invalid_response(WHAT, cause), taken),
        };
        let (Some(piece), Some(job)) = (self.piece.as_mut(), self.jobs.front_mut()) else { return };
        piece.failures = 0;
        taken.progressed = true;
        job.events += parsed.rows.len() as u64;
        let rows = parsed.rows.len();
        let hash = match (parsed.rows.first(), parsed.rows.last()) {
            (Some(first), Some(last)) => XxHash3_64::oneshot(&body.as_bytes()[first.start..last.end]),
            _ => 0,
        };
        let is_new = piece.group.seen.insert(hash) && rows > 0;
        if rows > 0 {
            piece.order.look(&body, &parsed.rows);
            if piece.order.newest().is_none() || !piece.is_one_group {
                piece.unordered_bytes += body.len();
            }
            taken.page = Some(Page {
                body,
                rows: parsed.rows,
                received,
                ids: piece.groups.front().cloned().unwrap_or_default().into(),
                asked: Range { from: job.read.span.from, to: job.read.span.to - 1 },
                is_first: piece.group.cursor.is_none(),
                is_all: piece.is_one_group,
            });
        }
        if piece.unordered_bytes > UNORDERED_BYTES_MAX && piece.to - piece.from > 2 * PIECE_MS_MIN {
            self.halve(PIECE_MS_MIN);
            return;
        }
        match piece.group.judge_next(parsed.next, rows, is_new, hash) {
            Following::Page => {
                let passed = piece.order.worth_a_checkpoint().filter(|_| piece.is_one_group);
                taken.read_up_to = passed.filter(|at| *at > job.at && *at <= job.read.span.to);
            }
            Following::Nothing => self.end_group(taken),
            Following::Again => {
                taken.progressed = false;
                self.restart(ApiError::invalid_response(WHAT, "its pages repeat and have no end"), taken);
            }
        }
    }

    /// The pages of a group are read: on to the next group, or to the next piece.
    fn end_group(&mut self, taken: &mut Taken) {
        let Some(piece) = self.piece.as_mut() else { return };
        piece.groups.pop_front();
        piece.begin_group();
        if piece.groups.is_empty() {
            self.end_piece(taken);
        }
    }

    fn end_piece(&mut self, taken: &mut Taken) {
        let (Some(piece), Some(job)) = (self.piece.take(), self.jobs.front_mut()) else { return };
        if !piece.refused.is_empty() {
            let names = piece.refused.join(", ");
            taken.notices.push(format!("Genesys Cloud does not know {names}; its history is asked for the others"));
            // They are not read further, so that the read speaks for the others alone.
            job.read.ids = job.read.ids.iter().filter(|id| !piece.refused.contains(id)).cloned().collect();
            self.unknown_ids.extend(piece.refused);
            // What was learned by their refusals was not about the number of definitions.
            self.group_max = usize::MAX;
        }
        job.at = piece.to;
        self.piece_ms = (2 * (piece.to - piece.from)).max(self.piece_ms).min(PIECE_MS_MAX);
        taken.progressed = true;
        taken.read_up_to = Some(job.at.min(job.read.span.to)).filter(|at| *at > job.read.span.from);
        if job.at >= job.read.until {
            taken.summary = (job.shown > job.started).then(|| {
                let (from, to) = (format_millis(job.from), format_millis(job.read.until));
                format!("read the history from {from} to {to}: {} events in {} requests", job.events, job.requests)
            });
            taken.done = self.jobs.pop_front().map(|job| job.read);
            self.group_max = usize::MAX;
            self.page_size = PAGE_SIZE;
        }
    }

    fn take_failure(&mut self, error: ApiError, taken: &mut Taken) {
        let Some(piece) = self.piece.as_mut() else { return };
        piece.failures += 1;
        let has_cursor = piece.group.cursor.is_some();
        match error.kind {
            Kind::Refused(_) | Kind::Gone if has_cursor => self.restart(error, taken),
            Kind::Refused(400 | 413 | 414 | 422) => self.ask_for_less(error, taken),
            Kind::TooLong if self.page_size > 1 => {
                self.page_size /= 2;
                log::debug!("{error} Asking for {} events at a time.", self.page_size);
                // The cursor may hold to the size that it was begun with.
                if has_cursor {
                    piece.begin_group();
                }
            }
            // Long spans take long: shorter ones may be answered in time.
            Kind::Network | Kind::Unavailable(_) | Kind::InvalidResponse => {
                if has_cursor && piece.failures >= CURSOR_FAILURES_MAX {
                    piece.begin_group();
                } else if !has_cursor && piece.failures >= 2 {
                    self.halve(PIECE_MS_ENOUGH);
                }
                taken.failed = Some(error);
            }
            _ => taken.failed = Some(error),
        }
    }

    /// The service refuses this piece: half the span is asked for, then half the definitions, down to each alone.
    fn ask_for_less(&mut self, error: ApiError, taken: &mut Taken) {
        if self.halve(PIECE_MS_ENOUGH) {
            taken.notices.push(format!(
                "{}; asking for {} min at a time",
                error.problem().what,
                self.piece_ms / 60_000
            ));
            return;
        }
        let Some(piece) = self.piece.as_mut() else { return };
        let Some(mut ids) = piece.groups.pop_front() else { return };
        if ids.len() > 1 {
            let rest = ids.split_off(ids.len() / 2);
            self.group_max = ids.len();
            taken.notices.push(format!("{}; asking for {} definitions at a time", error.problem().what, ids.len()));
            piece.groups.push_front(rest);
            piece.groups.push_front(ids);
            piece.is_one_group = false;
            return;
        }
        piece.refused.append(&mut ids);
        if !piece.groups.is_empty() {
            return;
        }
        if self.jobs.front().is_some_and(|job| piece.refused.len() < job.read.ids.len()) {
            self.end_piece(taken);
            return;
        }
        // Every definition alone was refused, so it is not the definitions: the span is still too long, or too old.
        if self.halve(PIECE_MS_LEAST) {
            return;
        }
        let (Some(piece), Some(job)) = (self.piece.as_mut(), self.jobs.front_mut()) else { return };
        let next = piece.from + SKIP_MS;
        let may_skip = job.read.purpose != Purpose::Coverage;
        if may_skip && piece.from < self.oldest + EDGE_ZONE_MS && next < job.read.until {
            taken.skipped = Some((piece.from, next));
            job.at = next;
        } else {
            taken.failed = Some(error);
        }
        self.piece = None;
        self.group_max = usize::MAX;
    }

    /// Begins the piece anew with half its span, and no less than `least`; whether it was longer.
    fn halve(&mut self, least: Millis) -> bool {
        let Some(piece) = self.piece.as_ref() else { return false };
        let span = piece.to - piece.from;
        if span <= least {
            return false;
        }
        self.piece_ms = (span / 2).max(least);
        let failures = piece.failures;
        let ids: Vec<String> = piece.groups.iter().flatten().chain(&piece.refused).cloned().collect();
        let mut shorter = Piece::new(piece.from, piece.from + self.piece_ms, &ids, self.group_max);
        shorter.failures = failures;
        self.piece = Some(shorter);
        true
    }

    /// Begins the group anew: its cursor leads nowhere.
    fn restart(&mut self, error: ApiError, taken: &mut Taken) {
        let Some(piece) = self.piece.as_mut() else { return };
        piece.begin_group();
        piece.restarts += 1;
        if piece.restarts > RESTARTS_MAX {
            piece.restarts = 0;
            taken.failed = Some(error);
            // A shorter piece has fewer pages.
            self.halve(PIECE_MS_MIN);
        }
    }

    /// One line on a long read, every few seconds.
    pub fn progress(&mut self, now: Instant) -> Option<String> {
        let job = self.jobs.front_mut().filter(|job| now.duration_since(job.shown) >= PROGRESS_INTERVAL)?;
        job.shown = now;
        let spent = now.duration_since(job.started).as_secs_f64().max(0.001);
        Some(format!(
            "reading the history: {} % of {} to {} done, {} events, {:.0} events/s, {:.0} requests a minute",
            job.percent(),
            format_millis(job.from),
            format_millis(job.read.until),
            job.events,
            job.events as f64 / spent,
            job.requests as f64 * 60.0 / spent.max(60.0),
        ))
    }

    /// How far the read under way has come, in percent.
    pub fn percent(&self) -> Option<i64> {
        self.jobs.front().map(Job::percent)
    }
}

impl Job {
    /// Where the next piece begins.
    fn next_from(&self, service_now: Millis) -> Millis {
        // A millisecond more, wherever the service's intervals end: what comes twice is dropped.
        let begin = if self.at > self.from { self.at - 1 } else { self.at };
        begin.max(service_now - REACH_MS).min(self.read.until)
    }

    fn percent(&self) -> i64 {
        100 * (self.at - self.from) / (self.read.until - self.from).max(1)
    }
}

impl Piece {
    fn new(from: Millis, to: Millis, ids: &[String], group_max: usize) -> Self {
        let groups: VecDeque<Vec<String>> =
            ids.chunks(group_max.min(ids.len()).max(1)).map(<[String]>::to_vec).collect();
        Self {
            from,
            to,
            is_one_group: groups.len() <= 1,
            groups,
            refused: Vec::new(),
            group: Group::default(),
            failures: 0,
            restarts: 0,
            unordered_bytes: 0,
            order: Order::default(),
        }
    }

    /// The group's first page is next.
    fn begin_group(&mut self) {
        let suspected_end = self.group.suspected_end.take();
        self.group = Group { suspected_end, ..Group::default() };
        self.order = Order::default();
        self.failures = 0;
    }
}

/// What follows a page.
enum Following {
    Page,
    Nothing,
    /// The pages lead in a circle: the group is to be read anew.
    Again,
}

impl Group {
    /// Whether another page follows one with so many rows, which has this hash and was not seen before if `is_new`.
    ///
    /// Some services name a cursor on the last page too: the one that was just asked for, or one that was used before.
    /// Where the page is empty or shorter than others, it is the last; where it is full and has new rows, more may follow.
    /// A full page that brings nothing new is read again from the start once, for a page may have been repeated by
    /// mistake; where that ends at the same page, it is the last.
    fn judge_next(&mut self, next: Option<String>, rows: usize, is_new: bool, hash: u64) -> Following {
        let Some(next) = next else { return Following::Nothing };
        let is_repeated = !self.followed.insert(XxHash3_64::oneshot(next.as_bytes()));
        let is_short = rows < self.fullest;
        self.fullest = self.fullest.max(rows);
        if is_repeated && (rows == 0 || is_short) {
            return Following::Nothing;
        }
        if is_repeated && !is_new {
            return if self.suspected_end.replace(hash) == Some(hash) { Following::Nothing } else { Following::Again };
        }
        self.without_progress = if is_repeated || rows == 0 { self.without_progress + 1 } else { 0 };
        if self.without_progress > PAGES_WITHOUT_PROGRESS_MAX {
            return Following::Again;
        }
        self.cursor = Some(next);
        Following::Page
    }
}
