//! The audit: are the files and Genesys's own counts of one mind?
//!
//! Deals with: one settled interval, piece by piece. The service's counts per definition are held against the files;
//! where they differ, that piece's history is read and matched with the records by the rules of the window. So an
//! operator can prove that nothing is missing. One request a step, so that the session has time for its other duties.
//! Must never: write; what is missing is handed, a page at a time, to whoever does.
//!
//! Pieces hold so many records at most, and the rows of what is missing are read a second time rather than kept: memory
//! stays at a few MiB, whatever an hour holds.
//!
//! Source: `POST /api/v2/usage/events/aggregates/query`. Whether an interval's end is included is not documented, and
//! rows that are equal in every field are one event: so counts that differ prove nothing yet, only the rows do.

mod command;
mod files;
mod matching;
mod report;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use self::files::{Extra, Files, Loaded, extra, take_repeated};
use self::matching::{Row, unmatched};
use self::report::{entry, record_entry};
use crate::clock::{Clock, Millis, format_millis};
use crate::config::Config;
use crate::event::{Definitions, Identity, Redaction};
use crate::genesys::api::Api;
use crate::genesys::error::{ApiError, Kind};
use crate::genesys::history::{History, Next};
use crate::message::{Definition, Page};
use crate::output::Flow;
use crate::window::{RECEIPT_DELAY_MS, Sighting, TOLERANCE_MS};

pub use command::run;
pub use report::{Counted, Entry, Report};

/// Records of a piece, about; so many times as many rows or records, and the piece is halved.
const RECORDS_MAX: usize = 10_000;
const CROWDED: usize = 4;

/// Lines of the files that are looked through where other duties wait, at most: more than a hundred a second for an hour.
pub const LINES_MAX: usize = 400_000;

/// Records are counted by the minute before pieces are cut.
const MINUTE_MS: i64 = 60_000;
/// No piece is cut shorter because of what it holds.
const PIECE_MS_MIN: i64 = 1_000;
/// No piece is cut shorter because the service refuses to count longer ones.
const COUNTED_MS_MIN: i64 = MINUTE_MS;

/// How far beyond a piece rows and records are looked at: a pair may stand on both sides of an edge.
const MARGIN_MS: i64 = 2 * TOLERANCE_MS;

/// Missing and extra events that are listed, at most; what is beyond is only counted.
const LISTED_MAX: usize = 5_000;

/// What a step brought.
pub enum Step {
    /// The rate allows the next request after this.
    Wait(Duration),
    More,
    /// These rows are missing in the files. Whoever appends them does so before the next step.
    Missing(Page),
    Done(Report),
}

/// Why an audit could not go on.
#[derive(Debug)]
pub enum Failed {
    Api(ApiError),
    Files(std::io::Error),
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Api(error) => error.fmt(f),
            Self::Files(error) => write!(f, "cannot read the files: {error}"),
        }
    }
}

/// An audit under way.
pub struct Audit {
    files: Files,
    redaction: Redaction,
    definitions: Definitions,
    from: Millis,
    to: Millis,
    history: History,
    records_max: usize,
    lines_max: usize,
    /// What the files may have lost is not missing.
    only_held: bool,
    /// The service does not count: each definition's rows are read.
    is_uncounted: bool,
    begins_later: bool,
    /// Records of each minute since `from`; `None`: they were not counted yet.
    minutes: Option<Vec<u32>>,
    /// How long a piece may be now, and the longest that the service counts.
    piece_ms: i64,
    piece_ms_max: i64,
    piece: Option<Piece>,
    /// From here on everything before this was compared: the files may have lost what is older.
    begun: Millis,
    compared: Millis,
    counted: Vec<Counted>,
    missing: Vec<Entry>,
    missing_count: u64,
    extra: Vec<Entry>,
    extra_count: u64,
}

/// The piece that is being compared: its counts differ.
struct Piece {
    from: Millis,
    to: Millis,
    records: Vec<Sighting>,
    differing: Vec<String>,
    /// Where its rows may stand, and those of its records that have no time of their own.
    rows_from: Millis,
    rows_to: Millis,
    /// What each definition has, there and here.
    counts: Vec<(u64, u64)>,
    extras: Vec<Extra>,
    stage: Stage,
}

enum Stage {
    /// Its rows are read.
    Compare(Vec<Row>),
    /// They are read again, for these that have no record.
    Fetch(HashSet<Row>),
}

impl Audit {
    /// Of the interval from `from` up to `to`, which must be settled, for these definitions, but for those whose rows the
    /// writer filters; `known` is what it knows of each. `history` is read with nobody else.
    pub fn new(
        config: &Config,
        history: History,
        mut ids: Vec<String>,
        known: &[Definition],
        (from, to): (Millis, Millis),
    ) -> Self {
        let definitions = Definitions::new(known);
        ids.retain(|id| definitions.is_audiohook(id));
        let counted = ids.iter().map(|id| Counted { id: id.clone(), genesys: 0, file: 0 }).collect();
        Self {
            files: Files {
                output: config.output.clone(),
                ids,
                row_delay_ms: config.catch_up.overlap.as_millis() as i64 + RECEIPT_DELAY_MS,
            },
            redaction: Redaction::new(&config.output.redact_fields),
            definitions,
            from,
            to,
            history,
            records_max: RECORDS_MAX,
            lines_max: usize::MAX,
            only_held: true,
            is_uncounted: false,
            begins_later: false,
            minutes: None,
            piece_ms: to - from,
            piece_ms_max: to - from,
            piece: None,
            begun: from,
            compared: from,
            counted,
            missing: Vec::new(),
            missing_count: 0,
            extra: Vec::new(),
            extra_count: 0,
        }
    }

    /// Looks through no more than so many lines of the files: with more of them it begins later.
    pub fn within(self, lines_max: usize) -> Self {
        Self { lines_max, ..self }
    }

    /// What the files no longer hold is missing as well, and a service that does not count hinders nothing.
    pub fn of_all(self) -> Self {
        Self { only_held: false, ..self }
    }

    /// One step: a request at most. `pulse` is called while files are read.
    ///
    /// # Errors
    /// When the service or a file cannot be read; the step may be tried again.
    pub fn step(&mut self, api: &mut Api, clock: &Clock, pulse: &dyn Fn()) -> Result<Step, Failed> {
        if self.minutes.is_none() {
            self.minutes = Some(self.count_minutes(pulse).map_err(Failed::Files)?);
            return Ok(Step::More);
        }
        if self.piece.is_none() {
            if self.compared >= self.to {
                return Ok(Step::Done(self.report()));
            }
            return self.count_piece(api, clock.now(), pulse);
        }
        match self.history.next(clock.now(), api.service().now()) {
            Next::Wait(wait) => Ok(Step::Wait(wait)),
            Next::Idle => {
                self.end_stage(clock.now(), pulse).map_err(Failed::Files)?;
                Ok(Step::More)
            }
            Next::Ask { cursor, page_size, body } => {
                let answer = api.query_page(cursor.as_deref(), page_size, &body);
                let taken = self.history.take(answer, clock.wall());
                if let Some(error) = taken.failed {
                    return Err(Failed::Api(error));
                }
                Ok(taken.page.and_then(|page| self.take_page(page)).map_or(Step::More, Step::Missing))
            }
        }
    }

    /// How many records each minute has; where the lines are too many, the older minutes are left out of the audit.
    fn count_minutes(&mut self, pulse: &dyn Fn()) -> std::io::Result<Vec<u32>> {
        let (from, to) = (self.from, self.to);
        let mut minutes = vec![0; ((to - from) as usize).div_ceil(MINUTE_MS as usize)];
        let minute_of = |at: Millis| ((at.clamp(from, to - 1) - from) / MINUTE_MS) as usize;
        let (mut lines, mut reached) = (0, None);
        self.files.each_record(from, to, pulse, |record, _| {
            lines += 1;
            let at = record.sighting.moment.nominal();
            if (from..to).contains(&at) {
                minutes[minute_of(at)] += 1;
            }
            if lines < self.lines_max {
                return Flow::On;
            }
            reached = Some(at);
            Flow::Stop
        })?;
        if let Some(at) = reached {
            // A minute more: records stand in the files in the order of time only nearly.
            self.begun = (from + (minute_of(at) as i64 + 2) * MINUTE_MS).min(to);
            self.compared = self.begun;
            self.begins_later = true;
        }
        Ok(minutes)
    }

    /// Where the next piece ends: it holds as few records as fit into memory.
    fn piece_end(&self) -> Millis {
        let minutes = self.minutes.as_deref().unwrap_or_default();
        let (mut end, mut records) = (self.compared, 0);
        for minute in minutes.iter().skip(((end - self.from) / MINUTE_MS) as usize) {
            records += *minute as usize;
            if records > self.records_max {
                break;
            }
            end = self.from + ((end - self.from) / MINUTE_MS + 1) * MINUTE_MS;
        }
        if end == self.compared {
            let share = MINUTE_MS * self.records_max as i64 / records.max(1) as i64;
            end += share.clamp(PIECE_MS_MIN, MINUTE_MS);
        }
        end.min(self.compared + self.piece_ms).min(self.to)
    }

    /// Compares the counts of the next piece; where they differ, its rows are read next.
    fn count_piece(&mut self, api: &mut Api, now: Instant, pulse: &dyn Fn()) -> Result<Step, Failed> {
        if !self.is_uncounted
            && let Some(wait) = self.history.ask_other(now)
        {
            return Ok(Step::Wait(wait));
        }
        let (from, to) = (self.compared, self.piece_end());
        let genesys = if self.is_uncounted { Ok(None) } else { api.aggregates(from, to).map(Some) };
        let genesys = match genesys {
            Ok(counts) => counts,
            Err(error) if matches!(error.kind, Kind::Refused(_)) && to - from >= 2 * COUNTED_MS_MIN => {
                self.piece_ms = (to - from) / 2;
                self.piece_ms_max = self.piece_ms;
                return Ok(Step::More);
            }
            Err(error)
                if !self.only_held
                    && !matches!(error.kind, Kind::Throttled(_) | Kind::Credentials | Kind::Unauthorized) =>
            {
                log::debug!("{error}; the rows are compared instead");
                self.is_uncounted = true;
                return Ok(Step::More);
            }
            Err(error) => return Err(Failed::Api(error)),
        };
        let max = self.records_at_once(from, to);
        let within = |s: &Sighting| (from..to).contains(&s.moment.nominal());
        // Those beyond the edges are wanted only where the counts differ.
        let Some(mut records) = self.files.load_between(from, to, max, within, pulse).map_err(Failed::Files)? else {
            self.piece_ms = (to - from) / 2;
            return Ok(Step::More);
        };
        if !self.is_held(from) {
            return Ok(Step::More);
        }
        let repeated = take_repeated(&mut records);
        let count_of = |id: &String| genesys.as_ref().and_then(|counts| counts.get(id)).copied().unwrap_or(0);
        let mut counts: Vec<(u64, u64)> = self.files.ids.iter().map(|id| (count_of(id), 0)).collect();
        records.iter().for_each(|record| counts[record.definition].1 += 1);
        drop(records);
        let differs = |definition: usize| genesys.is_none() || counts[definition].0 != counts[definition].1;
        let differing = (0..self.files.ids.len()).filter(|definition| differs(*definition));
        let differing: Vec<String> = differing.map(|definition| self.files.ids[definition].clone()).collect();
        let (mut records, mut rows_from, mut rows_to) = (Vec::new(), from, to);
        if !differing.is_empty() {
            let Some(loaded) = self.files.load(from, to, max, pulse).map_err(Failed::Files)? else {
                self.piece_ms = (to - from) / 2;
                return Ok(Step::More);
            };
            Loaded { records, rows_from, rows_to } = loaded;
            take_repeated(&mut records);
            records.retain(|record| differs(record.definition));
        }
        let records = records.into_iter().map(|record| record.sighting).collect();
        let stage = Stage::Compare(Vec::new());
        let piece = Piece { from, to, records, differing, rows_from, rows_to, counts, extras: repeated, stage };
        if piece.differing.is_empty() {
            self.end_piece(piece, pulse).map_err(Failed::Files)?;
        } else {
            self.history.add(piece.differing.clone(), rows_from, rows_to, true, now);
            self.piece = Some(piece);
        }
        Ok(Step::More)
    }

    /// How many records of a piece are taken; one that cannot be cut any more has as many as it has.
    fn records_at_once(&self, from: Millis, to: Millis) -> usize {
        if to - from < 2 * PIECE_MS_MIN { usize::MAX } else { CROWDED.saturating_mul(self.records_max) }
    }

    /// Whether the files still hold what they ever held since then; if not, the audit goes on where they do.
    fn is_held(&mut self, since: Millis) -> bool {
        if !self.only_held {
            return true;
        }
        let from = self.files.held_from(since, self.to);
        if from == since {
            return true;
        }
        if self.compared == self.begun {
            self.begun = from;
        }
        self.compared = from;
        self.piece = None;
        self.history.clear();
        false
    }

    /// Takes a page of the piece's rows; gives those that are missing, once that is known.
    fn take_page(&mut self, page: Page) -> Option<Page> {
        let piece = self.piece.as_mut()?;
        let mut scratch = Vec::new();
        let mut missing = Vec::new();
        for range in &page.rows {
            let Ok(Some(event)) = self.definitions.judge(&page.body[range.clone()], page.received) else { continue };
            let identity = Identity::of(&event, &mut scratch);
            let row = Row { content: identity.content, time: event.time };
            match &mut piece.stage {
                Stage::Compare(rows) => rows.push(row),
                Stage::Fetch(wanted) => {
                    if wanted.remove(&row) {
                        missing.push(range.clone());
                        self.missing_count += 1;
                        if self.missing.len() < LISTED_MAX {
                            self.missing.push(entry(&event, identity, page.received));
                        }
                    }
                }
            }
        }
        if let Stage::Compare(rows) = &piece.stage
            && rows.len() > CROWDED.saturating_mul(self.records_max)
            && piece.to - piece.from >= 2 * PIECE_MS_MIN
        {
            self.halve();
        }
        (!missing.is_empty()).then_some(Page { rows: missing, ..page })
    }

    /// The piece has too many rows: a shorter one is compared instead.
    fn halve(&mut self) {
        let Some(piece) = self.piece.take() else { return };
        self.history.clear();
        self.piece_ms = (piece.to - piece.from) / 2;
    }

    /// All rows of the piece were seen: what has no counterpart?
    fn end_stage(&mut self, now: Instant, pulse: &dyn Fn()) -> std::io::Result<()> {
        let Some(mut piece) = self.piece.take() else { return Ok(()) };
        let Stage::Compare(rows) = &mut piece.stage else { return self.end_piece(piece, pulse) };
        let mut rows = std::mem::take(rows);
        rows.sort_unstable();
        rows.dedup();
        let (missing, extras) = unmatched(&mut rows, &mut piece.records);
        let within = |at: Millis| (piece.from..piece.to).contains(&at);
        let missing: HashSet<Row> = missing.into_iter().filter(|row| row.time.is_none_or(within)).collect();
        piece.extras.extend(extras.iter().map(extra).filter(|(_, _, at)| within(*at)));
        if missing.is_empty() {
            return self.end_piece(piece, pulse);
        }
        if self.is_held(piece.from) {
            self.history.add(piece.differing.clone(), piece.rows_from, piece.rows_to, true, now);
            self.piece = Some(Piece { records: Vec::new(), stage: Stage::Fetch(missing), ..piece });
        }
        Ok(())
    }

    fn end_piece(&mut self, piece: Piece, pulse: &dyn Fn()) -> std::io::Result<()> {
        for (counted, (genesys, file)) in self.counted.iter_mut().zip(piece.counts) {
            counted.genesys += genesys;
            counted.file += file;
        }
        self.tell_extra(piece.from, piece.to, piece.extras, pulse)?;
        self.compared = piece.to;
        self.piece_ms = self.piece_ms.saturating_mul(2).min(self.piece_ms_max);
        Ok(())
    }

    /// Counts what stands in the files and not in the history, and lists it as far as there is room.
    fn tell_extra(&mut self, from: Millis, to: Millis, extras: Vec<Extra>, pulse: &dyn Fn()) -> std::io::Result<()> {
        self.extra_count += extras.len() as u64;
        let room = LISTED_MAX - self.extra.len();
        if extras.is_empty() || room == 0 {
            return Ok(());
        }
        let mut wanted: HashMap<Extra, usize> = HashMap::new();
        extras.into_iter().for_each(|extra| *wanted.entry(extra).or_default() += 1);
        let mut found = Vec::new();
        self.files.each_record(from, to, pulse, |record, text| {
            if let Some(times) = wanted.get_mut(&extra(&record.sighting)).filter(|times| **times > 0) {
                *times -= 1;
                found.push(record_entry(text));
            }
            if found.len() < room { Flow::On } else { Flow::Stop }
        })?;
        self.extra.append(&mut found);
        Ok(())
    }

    fn report(&mut self) -> Report {
        let (mut missing, mut extra) = (std::mem::take(&mut self.missing), std::mem::take(&mut self.extra));
        missing.iter_mut().chain(&mut extra).for_each(|entry| entry.hide(&self.redaction));
        Report {
            from: format_millis(self.begun),
            to: format_millis(self.to),
            complete: self.missing_count == 0,
            definitions: std::mem::take(&mut self.counted),
            missing_unlisted: self.missing_count - missing.len() as u64,
            extra_unlisted: self.extra_count - extra.len() as u64,
            begins_later: self.begins_later,
            missing,
            extra,
            missing_count: self.missing_count,
            extra_count: self.extra_count,
        }
    }
}
