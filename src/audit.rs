//! The command `audit`: checks whether the files agree with Genesys Cloud's own counts.
//!
//! It compares one settled interval in pieces. Where the service's counts per definition differ from the files', or
//! where events differ only in time, it reads the rows of that piece and judges them with [`reconcile`], the function
//! that decides what the collector appends. On request, missing rows are appended.
//!
//! Source of the counts: `POST /api/v2/usage/events/aggregates/query`. The documentation does not state whether an
//! interval includes its end, so different counts alone prove nothing; only the rows do.

mod command;
pub mod files;
mod report;

use std::collections::{BTreeMap, HashMap};
use std::ops;
use std::time::Duration;

use crossbeam_channel::never;

use self::report::{entry, record_entry};
use crate::clock::{Clock, Millis, format_millis};
use crate::config::Config;
use crate::dedup::reconcile::reconcile;
use crate::dedup::rows::Span;
use crate::dedup::{CONTEXT_MS, Range, Record, Source};
use crate::event::{Definitions, Identity, Redaction};
use crate::genesys::api::{Api, PAGE_SIZE};
use crate::genesys::error::{ApiError, Kind};
use crate::genesys::history::{History, Next, Read};
use crate::message::{Definition, HISTORY_KEPT_MS, Page, Purpose};
use crate::output::Flow;
use crate::status::Problem;

pub use command::run;
pub use report::{Counted, Entry, Report};

/// Maximum number of records or rows in a piece; a piece with more is halved.
const PIECE_EVENTS_MAX: usize = 20_000;

/// Minimum length of a halved piece, in milliseconds.
const PIECE_MS_MIN: i64 = 1_000;

/// Maximum number of missing and of extra events that are listed; further ones are only counted.
const LISTED_MAX: usize = 5_000;

/// Maximum number of tries for a request, and the wait between them.
const TRIES: u32 = 5;
const RETRY: Duration = Duration::from_secs(2);

/// A running audit.
struct Audit<'a> {
    config: &'a Config,
    api: &'a mut Api,
    clock: &'a Clock,
    /// The start of the audit: records received later were appended by this audit.
    begun: Millis,
    history: History,
    ids: Vec<String>,
    definitions: Definitions,
    redaction: Redaction,
    counted: Vec<Counted>,
    missing: Found,
    extra: Found,
}

/// Events that only one side has.
#[derive(Default)]
struct Found {
    entries: Vec<Entry>,
    count: u64,
}

impl Found {
    fn add(&mut self, entry: Entry) {
        self.count += 1;
        if self.entries.len() < LISTED_MAX {
            self.entries.push(entry);
        }
    }
}

/// A row of a piece.
struct Row {
    time: Range,
    received: Millis,
    text: String,
}

/// The rows and records of one content, in a piece and its margins.
#[derive(Default)]
struct Content {
    /// The index of its definition among the audited ones.
    definition: usize,
    rows: Vec<Row>,
    /// The records, each with its lines in the files: one, unless it was written twice.
    records: Vec<(Record, Vec<Entry>)>,
}

type Contents = HashMap<u64, Content>;

/// Called with the missing rows.
type TakeMissing<'t> = dyn FnMut(&[&Row]) -> Result<(), Problem> + 't;

impl<'a> Audit<'a> {
    /// Audits these definitions, except those that are not AudioHook's; `known` is what the collector knows of each.
    fn new(config: &'a Config, api: &'a mut Api, clock: &'a Clock, mut ids: Vec<String>, known: &[Definition]) -> Self {
        let definitions = Definitions::new(known);
        ids.retain(|id| definitions.is_audiohook(id));
        let history = History::new(api.api_url(), config.catch_up.rate);
        let counted = ids.iter().map(|id| Counted { id: id.clone(), genesys: 0, file: 0 }).collect();
        let redaction = Redaction::new(&config.output.redact_fields);
        let (missing, extra) = Default::default();
        let begun = clock.wall();
        Self { config, api, clock, begun, history, ids, definitions, redaction, counted, missing, extra }
    }

    /// Compares the interval; `take_missing` is called with the missing rows.
    fn run(mut self, from: Millis, to: Millis, take_missing: &mut TakeMissing<'_>) -> Result<Report, Problem> {
        let (mut at, mut piece_ms) = (from, to - from);
        while at < to {
            let end = (at + piece_ms).min(to);
            if self.piece(at, end, take_missing)? {
                at = end;
                piece_ms *= 2;
            } else {
                piece_ms = (end - at) / 2;
            }
        }
        Ok(self.report(from, to))
    }

    /// Compares a piece. Returns whether it was short enough.
    fn piece(&mut self, from: Millis, to: Millis, take_missing: &mut TakeMissing<'_>) -> Result<bool, Problem> {
        let is_shortest = to - from < 2 * PIECE_MS_MIN;
        let Some(genesys) = self.counts(from, to, is_shortest)? else { return Ok(false) };
        let cannot_read = |error| {
            let cure =
                "Run the audit as the user that runs the collector, or give this user the right to read the files.";
            Problem::new(format!("cannot read the output files: {error}"), cure)
        };
        let counts = files::count_between(self.config, &self.ids, from, to, &|| ()).map_err(cannot_read)?;
        if counts.by_definition.iter().sum::<u64>() > PIECE_EVENTS_MAX as u64 && !is_shortest {
            return Ok(false);
        }
        let count_of = |id: &String| genesys.get(id).copied().unwrap_or(0);
        if self.ids.iter().map(count_of).eq(counts.by_definition.iter().copied()) && !counts.needs_rows {
            for (counted, count) in self.counted.iter_mut().zip(counts.by_definition) {
                counted.genesys += count;
                counted.file += count;
            }
            return Ok(true);
        }
        let Some(mut contents) = self.rows(from, to, is_shortest)? else { return Ok(false) };
        self.add_records(from, to, &mut contents).map_err(cannot_read)?;
        let missing = self.compare(from..to, &mut contents);
        if !missing.is_empty() {
            take_missing(&missing)?;
        }
        Ok(true)
    }

    /// The service's counts per definition; `None` if it refuses to count such a long piece.
    fn counts(
        &mut self,
        from: Millis,
        to: Millis,
        is_shortest: bool,
    ) -> Result<Option<BTreeMap<String, u64>>, Problem> {
        let mut tries = 0;
        loop {
            while let Some(wait) = self.history.ask_other(self.clock.now()) {
                wait_for(wait);
            }
            match self.api.aggregates(from, to) {
                Ok(counts) => return Ok(Some(counts)),
                Err(error) if matches!(error.kind, Kind::Refused(_)) && !is_shortest => return Ok(None),
                Err(error) => retry(&mut tries, &error)?,
            }
        }
    }

    /// The rows of a piece and its margins, by content; `None` if there are too many.
    fn rows(&mut self, from: Millis, to: Millis, is_shortest: bool) -> Result<Option<Contents>, Problem> {
        let span = Span { from, to };
        let until = (to + CONTEXT_MS).min(self.api.service().now()).max(to);
        let read = Read { ids: self.ids.as_slice().into(), span, until, purpose: Purpose::Repair };
        self.history.begin(read, self.clock.now());
        let (mut contents, mut count, mut tries): (Contents, usize, u32) = Default::default();
        loop {
            let (cursor, body) = match self.history.next(self.clock.now(), self.api.service().now()) {
                Next::Idle => return Ok(Some(contents)),
                Next::Wait(wait) => {
                    wait_for(wait);
                    continue;
                }
                Next::Ask { cursor, body } => (cursor, body),
            };
            let answer = self.api.query_page(cursor.as_deref(), PAGE_SIZE, &body);
            let taken = self.history.take(answer, self.clock.wall());
            match taken.failed {
                Some(error) => retry(&mut tries, &error)?,
                None => tries = 0,
            }
            if let Some((id, why)) = taken.left_out.first() {
                let what = format!("{}; the history of {id} cannot be audited", why.problem().what);
                return Err(Problem::new(what, "Take it out of TOPICS_FILE, if it is there, or try again later."));
            }
            if let Some((from, to)) = taken.skipped {
                let (from, to) = (format_millis(from), format_millis(to));
                let what = format!("Genesys Cloud refuses to show its history from {from} to {to}");
                return Err(Problem::new(what, "Choose a later --from."));
            }
            if let Some(page) = taken.page {
                count += self.take_page(&page, &mut contents);
            }
            if count > 2 * PIECE_EVENTS_MAX && !is_shortest {
                return Ok(None);
            }
        }
    }

    fn definition_of(&self, id: &str) -> Option<usize> {
        self.ids.iter().position(|known| known.eq_ignore_ascii_case(id))
    }

    /// Adds the rows of a page. Returns how many are new.
    fn take_page(&self, page: &Page, contents: &mut Contents) -> usize {
        let mut scratch = Vec::new();
        let mut count = 0;
        for range in &page.rows {
            let text = &page.body[range.clone()];
            let Ok(Some(event)) = self.definitions.judge(text, page.received) else { continue };
            let Some(definition) = self.definition_of(&event.definition.decoded()) else { continue };
            let time = event.time.map_or(page.asked, Range::at);
            let content = contents.entry(Identity::of(&event, &mut scratch).content).or_default();
            content.definition = definition;
            // Rows of equal content and time are one event. Rows without a time are told apart by their text.
            if !content.rows.iter().any(|row| row.time == time && (event.time.is_some() || row.text == text)) {
                content.rows.push(Row { time, received: page.received, text: text.to_owned() });
                count += 1;
            }
        }
        count
    }

    /// Adds the records of a piece and its margins. A row without a time of its own was received whenever it was read:
    /// possibly as long after the piece as the service keeps its history.
    fn add_records(&self, from: Millis, to: Millis, contents: &mut Contents) -> std::io::Result<()> {
        let span = Range { from: from - CONTEXT_MS, to: to + CONTEXT_MS };
        files::each_between(self.config, span, HISTORY_KEPT_MS, &|| (), |content, record, line, text| {
            let is_own = !record.timed && record.source == Source::History && record.at >= self.begun;
            if let Some(definition) = self.definition_of(&line.event_id.decoded()).filter(|_| !is_own) {
                let content = contents.entry(content).or_default();
                content.definition = definition;
                match content.records.iter_mut().find(|(other, _)| *other == record) {
                    Some((_, lines)) => lines.push(record_entry(text)),
                    None => content.records.push((record, vec![record_entry(text)])),
                }
            }
            Flow::On
        })
    }

    /// Judges the rows of a piece and returns the missing ones. Lists them, and the records without a row.
    fn compare<'c>(&mut self, piece: ops::Range<Millis>, contents: &'c mut Contents) -> Vec<&'c Row> {
        let is_judged = |row: &Row| row.time.from != row.time.to || piece.contains(&row.time.from);
        let mut all_missing = Vec::new();
        for Content { definition, rows, records } in contents.values_mut() {
            let times: Vec<Range> = rows.iter().map(|row| row.time).collect();
            let candidates: Vec<Record> = records.iter().map(|(record, _)| *record).collect();
            let found = reconcile(&times, &candidates, HISTORY_KEPT_MS);
            let rows: &'c [Row] = rows;
            let missing = found.missing.iter().map(|place| &rows[*place]).filter(|row| is_judged(row));
            let before = (all_missing.len(), self.extra.count);
            for row in missing {
                all_missing.push(row);
                if let Ok(Some(event)) = self.definitions.judge(&row.text, row.received) {
                    self.missing.add(entry(&event, Identity::of(&event, &mut Vec::new()), row.received));
                }
            }
            for (place, (record, lines)) in records.iter_mut().enumerate() {
                let known = usize::from(!found.extra.contains(&place));
                if piece.contains(&record.at) {
                    lines.drain(..).skip(known).for_each(|line| self.extra.add(line));
                }
            }
            let counted = &mut self.counted[*definition];
            let genesys = rows.iter().filter(|row| is_judged(row)).count() as u64;
            counted.genesys += genesys;
            counted.file += genesys - (all_missing.len() - before.0) as u64 + (self.extra.count - before.1);
        }
        all_missing
    }

    fn report(self, from: Millis, to: Millis) -> Report {
        let (mut missing, mut extra) = (self.missing, self.extra);
        missing.entries.iter_mut().chain(&mut extra.entries).for_each(|entry| entry.hide(&self.redaction));
        Report {
            from: format_millis(from),
            to: format_millis(to),
            complete: missing.count == 0,
            definitions: self.counted,
            missing_unlisted: missing.count - missing.entries.len() as u64,
            extra_unlisted: extra.count - extra.entries.len() as u64,
            missing: missing.entries,
            extra: extra.entries,
            missing_count: missing.count,
            extra_count: extra.count,
        }
    }
}

/// Waits before the next try, or returns the error after the last one.
fn retry(tries: &mut u32, error: &ApiError) -> Result<(), Problem> {
    *tries += 1;
    if *tries >= TRIES {
        return Err(error.problem());
    }
    wait_for(RETRY);
    Ok(())
}

fn wait_for(wait: Duration) {
    let _ = never::<()>().recv_timeout(wait);
}
