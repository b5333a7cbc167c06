//! Reading the history: spans cut into pieces, pieces into groups of definitions, groups into pages.
//!
//! One request a step, so that whoever drives it has time for other duties. Pure: it says what to ask and takes the
//! answer. Must never: say that a span was read before every page of it was given; follow a page that leads nowhere.

mod order;
mod page;
mod rate;

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use serde_json::json;

use self::order::Order;
pub use self::rate::Rate;
use super::api::{PAGE_SIZE, interval};
use super::error::{ApiError, Kind};
use crate::clock::{Millis, format_millis};
use crate::message::Page;

/// How far back the service keeps the history.
pub const KEPT_MS: Millis = 10 * 24 * 3600 * 1000;
/// How far back it is asked for.
pub const REACH_MS: Millis = KEPT_MS - EDGE_MS;

/// The longest piece that is asked for at once; the service's own limit is learned from its refusals.
const PIECE_MS_MAX: Millis = 24 * 3600 * 1000;
/// A refused piece is first halved down to this, before the definitions are.
const PIECE_MS_ENOUGH: Millis = 3600 * 1000;
/// No piece is shorter.
const PIECE_MS_MIN: Millis = 60 * 1000;
/// How often a piece is begun anew at once (an expired cursor, a repeated page) before it counts as failing.
const RESTARTS_MAX: u32 = 3;
/// Pages without rows that still name a next one, in a row: each with a cursor of its own is no loop, only slow.
const EMPTY_PAGES_MAX: u32 = 2_000;
/// What the service is about to forget is not asked for: until the request is there, it may be too old to be taken.
const EDGE_MS: Millis = 60 * 1000;
/// Nearer to what the service forgets than this, a piece that is refused however short it is may be too old.
const EDGE_ZONE_MS: Millis = 24 * 3600 * 1000;
/// A failing page is asked for so many times before the piece is begun anew: its cursor may be what fails.
const CURSOR_FAILURES_MAX: u32 = 3;
/// A page is asked for in such a number of rows that it has about so many bytes, at most: several wait for the writer.
const PAGE_BYTES: usize = 1024 * 1024;
/// A long read shows its progress this often.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

const WHAT: &str = "read the history";

/// A span to be read.
#[derive(Debug)]
struct Job {
    ids: Vec<String>,
    from: Millis,
    to: Millis,
    /// Everything before this was given.
    at: Millis,
    /// Whether its end is a checkpoint, or only some definitions are read again.
    is_whole: bool,
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
    /// Which ids are asked for now: `ids[start..start + len]`.
    start: usize,
    len: usize,
    cursor: Option<String>,
    /// The cursors that were followed, hashed: one that comes again is a loop.
    followed: HashSet<u64>,
    empty_pages: u32,
    /// Pages of this group since it was begun, and the most that any attempt came to.
    pages: u32,
    pages_most: u32,
    restarts: u32,
    failures: u32,
    /// Ids that were refused alone, and whether any other was not.
    suspects: Vec<String>,
    any_taken: bool,
    body: String,
    order: Order,
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
    /// All events up to here were given.
    pub read_up_to: Option<Millis>,
    /// The span is read to its end.
    pub done: bool,
    /// It came further than ever before: a page that was not given yet, or the end of a piece.
    pub progressed: bool,
    /// What lies between was passed over: the service no longer takes a request for it, however short.
    pub skipped: Option<(Millis, Millis)>,
    /// The request failed for a reason that only time can cure: wait before the next.
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
    /// How long a piece is now, and the most that the service is known to take.
    piece_ms: Millis,
    piece_ms_max: Millis,
    /// How many ids are asked for at once.
    group_max: usize,
    /// How many rows a page has: fewer where they are large.
    page_size: u32,
    /// Fewer ids were asked for since the spans were shortened: those may not have been the reason.
    span_in_doubt: bool,
    /// Where the reading is tried instead, because from where it stands every request is refused, and the next step.
    instead: Option<Millis>,
    step_ms: Millis,
    /// What is older than this the service keeps no longer.
    oldest: Millis,
    /// Ids that the service does not take.
    refused_ids: Vec<String>,
}

impl History {
    pub fn new(api_url: &str, requests_per_minute: u32) -> Self {
        Self {
            api_url: api_url.to_owned(),
            rate: Rate::new(requests_per_minute),
            jobs: VecDeque::new(),
            piece: None,
            piece_ms: PIECE_MS_MAX,
            piece_ms_max: PIECE_MS_MAX,
            group_max: usize::MAX,
            page_size: PAGE_SIZE,
            span_in_doubt: false,
            instead: None,
            step_ms: PIECE_MS_MIN,
            oldest: Millis::MIN,
            refused_ids: Vec::new(),
        }
    }

    /// Another reader of the same history: the two together keep to the rate, and it knows what this one has learned.
    pub fn beside(&self) -> Self {
        Self {
            rate: self.rate.clone(),
            piece_ms: self.piece_ms_max,
            piece_ms_max: self.piece_ms_max,
            group_max: self.group_max,
            refused_ids: self.refused_ids.clone(),
            ..Self::new(&self.api_url, 1)
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

    /// Whether a span is being read, or waits to be.
    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Whether a whole span is being read.
    pub fn has_whole(&self) -> bool {
        self.jobs.iter().any(|job| job.is_whole)
    }

    /// Adds a span; `is_whole` when its end is a checkpoint.
    pub fn add(&mut self, ids: Vec<String>, from: Millis, to: Millis, is_whole: bool, now: Instant) {
        if ids.is_empty() || from >= to {
            return;
        }
        let job = Job { ids, from, to, at: from, is_whole, started: now, shown: now, events: 0, requests: 0 };
        self.jobs.push_back(job);
    }

    /// Gives up what was to be read: it will be asked for anew.
    pub fn clear(&mut self) {
        self.instead = None;
        self.jobs.clear();
        self.piece = None;
    }

    /// The definitions changed: those that were refused may be taken now.
    pub fn forget_refusals(&mut self) {
        self.refused_ids.clear();
    }

    /// What to ask for next; `service_now` is the service's clock.
    pub fn next(&mut self, now: Instant, service_now: Millis) -> Next {
        let Some(job) = self.jobs.front() else { return Next::Idle };
        let wait = self.rate.wait(now);
        if !wait.is_zero() {
            return Next::Wait(wait);
        }
        self.oldest = service_now - KEPT_MS;
        let (group_max, piece_ms, instead) = (self.group_max, self.piece_ms, self.instead);
        let refused = &self.refused_ids;
        let ids: Vec<String> = job.ids.iter().filter(|id| !refused.contains(id)).cloned().collect();
        let piece = self.piece.get_or_insert_with(|| {
            // A millisecond more, wherever the service's intervals end: what comes twice is dropped.
            let begin = if job.at > job.from { job.at - 1 } else { job.at };
            let from = instead.unwrap_or(begin).max(service_now - REACH_MS).min(job.to);
            Piece::new(from, (from + piece_ms).min(job.to), ids.len().min(group_max))
        });
        if piece.body.is_empty() {
            let end = (piece.start + piece.len).min(ids.len());
            piece.body = json!({
                "interval": interval(piece.from, piece.to),
                "eventDefinitionIds": ids[piece.start.min(end)..end],
                "sortOrder": "ASC",
            })
            .to_string();
        }
        self.rate.take();
        let page_size = self.page_size;
        let cursor = piece.cursor.as_deref().map(|cursor| page::with_size(cursor, page_size));
        let ask = Next::Ask { cursor, page_size, body: piece.body.clone() };
        if let Some(job) = self.jobs.front_mut() {
            job.requests += 1;
        }
        ask
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
            Err(cause) => return self.take_failure(ApiError::nonsense(WHAT, cause), taken),
        };
        let (Some(piece), Some(job)) = (self.piece.as_mut(), self.jobs.front_mut()) else { return };
        piece.failures = 0;
        piece.any_taken = true;
        piece.pages += 1;
        taken.progressed = piece.pages > piece.pages_most;
        piece.pages_most = piece.pages_most.max(piece.pages);
        if self.instead.take().is_some() {
            taken.skipped = Some((job.at, piece.from));
            job.at = piece.from;
            // What was learned by the refusals before was not about spans or ids.
            self.step_ms = PIECE_MS_MIN;
            (self.group_max, self.piece_ms_max, self.piece_ms) = (usize::MAX, PIECE_MS_MAX, PIECE_MS_MAX);
            self.span_in_doubt = false;
        }
        job.events += parsed.rows.len() as u64;
        if parsed.rows.is_empty() {
            piece.empty_pages += 1;
        } else {
            piece.empty_pages = 0;
            piece.order.look(&body, &parsed.rows);
            self.page_size = fitting(self.page_size, body.len() / parsed.rows.len());
            taken.page = Some(Page { body, rows: parsed.rows, received });
        }
        match parsed.next {
            Some(next) if piece.empty_pages > EMPTY_PAGES_MAX || !piece.followed.insert(hash(&next)) => {
                taken.progressed = false;
                self.restart(ApiError::new(Kind::Nonsense, WHAT, "its pages repeat and have no end"), taken);
            }
            Some(next) => {
                piece.cursor = Some(next);
                // A long piece is not begun from its start again by a crash in its middle.
                let is_all = piece.start == 0 && piece.len + self.refused_ids.len() >= job.ids.len();
                if job.is_whole && is_all {
                    taken.read_up_to = piece.order.up_to().filter(|ms| *ms > job.at && *ms <= job.to);
                }
            }
            None => self.end_group(taken),
        }
    }

    /// The pages of a group of ids are read: on to the next group, or to the next piece.
    fn end_group(&mut self, taken: &mut Taken) {
        let (Some(piece), Some(job)) = (self.piece.as_mut(), self.jobs.front_mut()) else { return };
        let count = job.ids.iter().filter(|id| !self.refused_ids.contains(id)).count();
        piece.start += piece.len;
        piece.begin();
        piece.pages_most = 0;
        if piece.start < count {
            return;
        }
        if !piece.suspects.is_empty() {
            if !piece.any_taken {
                // All were refused: it was not the ids.
                piece.suspects.clear();
                self.shorten(taken);
                return;
            }
            let named = piece.suspects.join(", ");
            taken
                .notices
                .push(format!("the history knows no definition {named}: left out until the definitions change"));
            self.refused_ids.append(&mut piece.suspects);
            // What was learned by their refusals was not about spans.
            (self.group_max, self.piece_ms_max, self.piece_ms) = (usize::MAX, PIECE_MS_MAX, PIECE_MS_MAX);
        }
        job.at = piece.to;
        self.piece = None;
        if std::mem::take(&mut self.span_in_doubt) {
            // There were too many ids: the spans get back what they were cut to before that was known.
            self.piece_ms_max = PIECE_MS_MAX;
        }
        self.piece_ms = (self.piece_ms * 2).min(self.piece_ms_max);
        taken.progressed = true;
        if job.is_whole {
            taken.read_up_to = Some(job.at);
        }
        if job.at >= job.to {
            taken.done = job.is_whole;
            taken.summary = (job.shown > job.started).then(|| {
                let (from, to) = (format_millis(job.from), format_millis(job.to));
                format!("read the history from {from} to {to}: {} events in {} requests", job.events, job.requests)
            });
            self.jobs.pop_front();
        }
    }

    fn take_failure(&mut self, error: ApiError, taken: &mut Taken) {
        let Some(piece) = self.piece.as_mut() else { return };
        piece.failures += 1;
        match error.kind {
            Kind::Refused(_) | Kind::Gone if piece.cursor.is_some() => self.restart(error, taken),
            Kind::Refused(400 | 413 | 414 | 422) => self.shrink(error, taken),
            Kind::TooLong if self.page_size > 1 => {
                piece.failures -= 1;
                self.page_size /= 2;
                log::debug!("{error}: asking for {} events at once", self.page_size);
            }
            // The cursor may hold to the size with which it was begun.
            Kind::TooLong if piece.cursor.is_some() => self.restart(error, taken),
            Kind::TooLong => {
                let cause = "a single event is longer than what is read of an answer; report it";
                taken.failed = Some(ApiError::new(Kind::TooLong, WHAT, cause));
            }
            // Long spans take long: shorter ones may be answered in time. They grow again with each success.
            Kind::Network | Kind::Unavailable(_) | Kind::Nonsense => {
                if piece.cursor.is_some() {
                    if piece.failures >= CURSOR_FAILURES_MAX {
                        piece.restart();
                    }
                } else if piece.failures >= 2 && self.piece_ms > PIECE_MS_ENOUGH {
                    self.piece_ms = (self.piece_ms / 2).max(PIECE_MS_ENOUGH);
                    let failures = piece.failures;
                    self.cut();
                    if let Some(piece) = self.piece.as_mut() {
                        piece.failures = failures;
                    }
                }
                taken.failed = Some(error);
            }
            _ => taken.failed = Some(error),
        }
    }

    /// The service refuses this piece as it stands: asks for less.
    fn shrink(&mut self, error: ApiError, taken: &mut Taken) {
        let Some(piece) = self.piece.as_mut() else { return };
        let span = piece.to - piece.from;
        if span > PIECE_MS_ENOUGH {
            self.piece_ms = (span / 2).max(PIECE_MS_ENOUGH);
            self.piece_ms_max = self.piece_ms;
            taken.notices.push(format!("{error}: asking for {} min at once", self.piece_ms / 60_000));
            self.cut();
        } else if piece.len > 1 {
            self.group_max = piece.len / 2;
            self.span_in_doubt = true;
            taken.notices.push(format!("{error}: asking for {} definitions at once", self.group_max));
            piece.len = self.group_max;
            piece.begin();
        } else {
            let ids = self.jobs.front().map(|job| &job.ids);
            let refused = &self.refused_ids;
            let suspect = ids.and_then(|ids| ids.iter().filter(|id| !refused.contains(id)).nth(piece.start)).cloned();
            piece.suspects.extend(suspect);
            let too_short = span <= PIECE_MS_MIN;
            let last = ids.is_none_or(|ids| piece.start + 1 >= ids.len() - refused.len().min(ids.len()));
            if last && !piece.any_taken && too_short {
                let from = piece.from;
                self.piece = None;
                if self.jobs.front().is_some_and(|job| !job.is_whole) {
                    // New definitions that the history does not know: the next whole read finds that out by itself.
                    self.jobs.pop_front();
                } else if !self.step_forward(from) {
                    taken.failed = Some(error);
                }
                return;
            }
            self.end_group(taken);
        }
    }

    /// Every request from here on was refused, however short. Near the end of what the service keeps it may be too old
    /// for it: the reading is tried ever farther on, and goes on where a request is taken. If none is, it was not that.
    fn step_forward(&mut self, from: Millis) -> bool {
        let next = from + self.step_ms;
        self.step_ms *= 2;
        let is_old = next < self.oldest + EDGE_ZONE_MS && self.jobs.front().is_some_and(|job| next < job.to);
        if !is_old {
            self.step_ms = PIECE_MS_MIN;
        }
        self.instead = is_old.then_some(next);
        is_old
    }

    /// Every definition alone was refused: shorter pieces are tried.
    fn shorten(&mut self, taken: &mut Taken) {
        let Some(piece) = self.piece.as_ref() else { return };
        self.piece_ms = ((piece.to - piece.from) / 2).max(PIECE_MS_MIN);
        self.piece_ms_max = self.piece_ms;
        self.span_in_doubt = false;
        taken.notices.push(format!("the history refuses longer spans: asking for {} s at once", self.piece_ms / 1000));
        self.cut();
    }

    /// Begins the piece anew with the span that is allowed now; what was given of it comes twice and is dropped.
    fn cut(&mut self) {
        let Some(piece) = self.piece.as_ref() else { return };
        let to = piece.to.min(piece.from + self.piece_ms);
        self.piece = Some(Piece::new(piece.from, to, piece.len.min(self.group_max)));
    }

    /// Begins the group anew: its cursor leads nowhere.
    fn restart(&mut self, error: ApiError, taken: &mut Taken) {
        let Some(piece) = self.piece.as_mut() else { return };
        piece.restart();
        if piece.restarts > RESTARTS_MAX {
            piece.restarts = 0;
            taken.failed = Some(error);
            // A shorter piece has fewer pages; it grows again once it is read.
            let half = (piece.to - piece.from) / 2;
            if half >= PIECE_MS_MIN {
                self.piece_ms = half;
                self.cut();
            }
        }
    }

    /// One line on a long read, every few seconds.
    pub fn progress(&mut self, now: Instant) -> Option<String> {
        let job = self.jobs.front_mut().filter(|job| now.duration_since(job.shown) >= PROGRESS_INTERVAL)?;
        job.shown = now;
        let spent = now.duration_since(job.started).as_secs_f64().max(0.001);
        let percent = 100.0 * (job.at - job.from) as f64 / (job.to - job.from).max(1) as f64;
        Some(format!(
            "reading the history: {percent:.0} % of {} to {} done, {} events, {:.0} events/s, {:.0} requests a minute",
            format_millis(job.from),
            format_millis(job.to),
            job.events,
            job.events as f64 / spent,
            job.requests as f64 * 60.0 / spent.max(60.0),
        ))
    }

    /// How far the span that is being read has come, in percent.
    pub fn percent(&self) -> Option<i64> {
        self.jobs.front().map(|job| 100 * (job.at - job.from) / (job.to - job.from).max(1))
    }
}

impl Piece {
    fn new(from: Millis, to: Millis, len: usize) -> Self {
        Self {
            from,
            to,
            start: 0,
            len,
            cursor: None,
            followed: HashSet::new(),
            empty_pages: 0,
            pages: 0,
            pages_most: 0,
            restarts: 0,
            failures: 0,
            suspects: Vec::new(),
            any_taken: false,
            body: String::new(),
            order: Order::default(),
        }
    }

    /// The group's first page is next.
    fn begin(&mut self) {
        self.cursor = None;
        self.followed.clear();
        self.empty_pages = 0;
        self.pages = 0;
        self.body.clear();
        self.order = Order::default();
    }

    fn restart(&mut self) {
        self.begin();
        self.restarts += 1;
        self.failures = 0;
    }
}

/// How many rows are asked for after a page of `page_size` whose rows had so many bytes each: what fits, and no more
/// than twice as many as went well.
fn fitting(page_size: u32, row_bytes: usize) -> u32 {
    let fitting = u32::try_from(PAGE_BYTES / row_bytes.max(1)).unwrap_or(PAGE_SIZE);
    fitting.min(2 * page_size).clamp(1, PAGE_SIZE)
}

fn hash(cursor: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    cursor.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
