//! The audit: are the files and Genesys's own counts of one mind?
//!
//! Deals with: one settled interval. The service's counts per definition are held against the files; where they differ,
//! that history is read, hour by hour, and matched with the records by the rules of the window. So an operator can prove
//! that nothing is missing. One request a step, so that the session has time for its other duties. Must never: write;
//! what is missing is handed to whoever does.
//!
//! Source: `POST /api/v2/usage/events/aggregates/query`. Whether an interval's end is included is not documented, and
//! rows that are equal in every field are one event: so counts that differ prove nothing yet, only the rows do.

mod command;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::clock::{Clock, Millis, format_millis};
use crate::config::Config;
use crate::event::{Definitions, Event, Identity, REDACTED, Redaction};
use crate::genesys::api::Api;
use crate::genesys::error::ApiError;
use crate::genesys::history::{History, Next};
use crate::json::Scanner;
use crate::message::{Definition, Page};
use crate::records;
use crate::window::{Moment, Outcome, RECEIPT_DELAY_MS, Sighting, TOLERANCE_MS, Way, Window};

pub use command::run;

/// What is compared at once where the counts differ.
const PIECE_MS: i64 = 3_600_000;

/// How far beyond a piece rows and records are looked at: a pair may stand on both sides of an edge.
const ROW_MARGIN_MS: i64 = 2 * TOLERANCE_MS;
const RECORD_MARGIN_MS: i64 = RECEIPT_DELAY_MS + 2 * TOLERANCE_MS;

/// Rows kept for a repair, at most; what is beyond is found by the next audit.
const MISSING_MAX: usize = 10_000;

/// One definition's counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Counted {
    pub id: String,
    pub genesys: u64,
    pub file: u64,
}

/// An event that one side has and the other has not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    pub event_id: String,
    pub timestamp: String,
    pub entity_id: String,
    pub conversation_id: String,
    /// The record's id.
    pub id: String,
}

impl Entry {
    /// Hides what REDACT_FIELDS names.
    fn hide(&mut self, redaction: &Redaction) {
        let fields = [
            ("event_id", &mut self.event_id),
            ("entity_id", &mut self.entity_id),
            ("conversation_id", &mut self.conversation_id),
        ];
        for (name, field) in fields {
            if !field.is_empty() && redaction.hides_record_field(name) {
                REDACTED.clone_into(field);
            }
        }
    }
}

/// What an audit found; [`Report::rows`] apart, the document of `audit --json`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub from: String,
    pub to: String,
    /// Whether nothing is missing in the files.
    pub complete: bool,
    pub definitions: Vec<Counted>,
    pub missing: Vec<Entry>,
    pub extra: Vec<Entry>,
    /// The rows that are missing, as they came.
    #[serde(skip)]
    pub rows: Vec<String>,
}

impl Report {
    /// The missing rows as a page for the writer.
    pub fn repair(&self, received: Millis) -> Page {
        let (mut body, mut ranges) = (String::new(), Vec::with_capacity(self.rows.len()));
        for row in &self.rows {
            let from = body.len();
            body.push_str(row);
            ranges.push(from..body.len());
        }
        Page { body, rows: ranges, received }
    }
}

/// Since when the files hold every event that they ever held. With every backup there, or with logrotate at work, older
/// records may have gone: they are not missing. `None`: nothing has gone.
pub fn held_since(config: &Config) -> Option<Millis> {
    let files = records::files(&config.output.file);
    let may_have_gone = files.len() > config.output.backup_count as usize;
    records::oldest_receipt(&files).filter(|_| may_have_gone)
}

/// What a step brought.
pub enum Step {
    /// The rate allows the next request after this.
    Wait(Duration),
    More,
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
    output: PathBuf,
    redaction: Redaction,
    row_delay_ms: i64,
    from: Millis,
    to: Millis,
    definitions: Definitions,
    /// Those that are compared: AudioHook's alone, whatever else the topics name.
    ids: Vec<String>,
    history: History,
    counted: Vec<Counted>,
    piece: Option<Piece>,
    /// Everything before this was compared; `None`: the counts were not asked for yet.
    compared: Option<Millis>,
    missing: Vec<(Entry, String)>,
    extra: Vec<Entry>,
}

/// The piece that is being compared.
struct Piece {
    from: Millis,
    to: Millis,
    /// What the files have, and the rows that are matched with it.
    files: Window,
    /// What the history has, to be matched with the records.
    rows: Window,
    missing: Vec<(Sighting, Entry, String)>,
}

impl Audit {
    /// Of the interval from `from` up to `to`, which must be settled, for these definitions, but for those whose rows the
    /// writer filters; `known` is what it knows of each.
    pub fn new(config: &Config, mut ids: Vec<String>, known: &[Definition], from: Millis, to: Millis) -> Self {
        let definitions = Definitions::new(known);
        ids.retain(|id| definitions.is_audiohook(id));
        Self {
            output: config.output.file.clone(),
            redaction: Redaction::new(&config.output.redact_fields),
            row_delay_ms: config.catch_up.overlap.as_millis() as i64 + RECEIPT_DELAY_MS,
            from,
            to,
            definitions,
            ids,
            history: History::new(&config.genesys.api_url, config.catch_up.rate),
            counted: Vec::new(),
            piece: None,
            compared: None,
            missing: Vec::new(),
            extra: Vec::new(),
        }
    }

    /// One step: a request at most. `pulse` is called while files are read.
    ///
    /// # Errors
    /// When the service or a file cannot be read; the step may be tried again.
    pub fn step(&mut self, api: &mut Api, clock: &Clock, pulse: &dyn Fn()) -> Result<Step, Failed> {
        let Some(compared) = self.compared else {
            let counts = api.aggregates(self.from, self.to).map_err(Failed::Api)?;
            self.counted = self.count(counts, pulse).map_err(Failed::Files)?;
            self.compared = Some(if self.counted.iter().all(|c| c.genesys == c.file) { self.to } else { self.from });
            return Ok(Step::More);
        };
        if self.piece.is_none() {
            if compared >= self.to {
                return Ok(Step::Done(self.report()));
            }
            self.begin_piece(compared, clock, pulse)?;
        }
        match self.history.next(clock.now(), api.service().now()) {
            Next::Wait(wait) => return Ok(Step::Wait(wait)),
            Next::Idle => self.end_piece(pulse).map_err(Failed::Files)?,
            Next::Ask { cursor, page_size, body } => {
                let answer = api.query_page(cursor.as_deref(), page_size, &body);
                let taken = self.history.take(answer, clock.wall());
                if let Some(error) = taken.failed {
                    return Err(Failed::Api(error));
                }
                if let Some(page) = taken.page {
                    self.match_page(&page);
                }
            }
        }
        Ok(Step::More)
    }

    /// The files' counts beside the service's.
    fn count(&self, genesys: BTreeMap<String, u64>, pulse: &dyn Fn()) -> std::io::Result<Vec<Counted>> {
        let mut counted: BTreeMap<String, Counted> =
            self.ids.iter().map(|id| (id.clone(), Counted { id: id.clone(), genesys: 0, file: 0 })).collect();
        for (id, count) in genesys {
            if let Some(counted) = counted.get_mut(&id) {
                counted.genesys = count;
            }
        }
        let (from, to) = (self.from, self.to);
        self.each_record(from, to, pulse, |event_id, sighting, _| {
            if (from..to).contains(&sighting.moment.nominal())
                && let Some(counted) = counted.get_mut(event_id)
            {
                counted.file += 1;
            }
        })?;
        Ok(counted.into_values().collect())
    }

    /// Visits the records whose event may lie in the interval.
    fn each_record(
        &self,
        from: Millis,
        to: Millis,
        pulse: &dyn Fn(),
        mut visit: impl FnMut(&str, Sighting, &str),
    ) -> std::io::Result<()> {
        let record = |text: &str, line: &crate::event::Line<'_>| {
            let sighting = records::sighting(line, self.row_delay_ms);
            let at = sighting.moment.nominal();
            if at >= from - RECORD_MARGIN_MS && at < to + self.row_delay_ms + RECORD_MARGIN_MS {
                visit(&line.event_id.decoded(), sighting, text);
            }
        };
        records::each_since_beside_rotation(&self.output, from - RECORD_MARGIN_MS, record, pulse)
    }

    fn begin_piece(&mut self, from: Millis, clock: &Clock, pulse: &dyn Fn()) -> Result<(), Failed> {
        let to = (from + PIECE_MS).min(self.to);
        let differing: Vec<String> =
            self.counted.iter().filter(|c| c.genesys != c.file).map(|c| c.id.clone()).collect();
        let mut files = Window::default();
        self.each_record(from, to, pulse, |event_id, sighting, _| {
            if differing.iter().any(|id| id == event_id) {
                files.note(sighting);
            }
        })
        .map_err(Failed::Files)?;
        self.history.add(differing, from - ROW_MARGIN_MS, to + ROW_MARGIN_MS, false, clock.now());
        self.piece = Some(Piece { from, to, files, rows: Window::default(), missing: Vec::new() });
        Ok(())
    }

    /// Matches a page's rows with what the files have.
    fn match_page(&mut self, page: &Page) {
        let Some(piece) = &mut self.piece else { return };
        let mut scratch = Vec::new();
        for range in &page.rows {
            let text = &page.body[range.clone()];
            let Ok(Some(event)) = self.definitions.judge(text) else { continue };
            let identity = Identity::of(&event, &mut scratch);
            let moment =
                event.time.map_or(Moment::Receipt { at: page.received, delay: self.row_delay_ms }, Moment::Own);
            let sighting = Sighting { content: identity.content, way: Way::History, moment };
            match piece.files.offer_row(sighting, text) {
                Outcome::New => piece.missing.push((sighting, entry(&event, identity, page.received), text.to_owned())),
                // A nearer row has taken an earlier one's place: that one has no record then.
                Outcome::Displaces { moment, row: Some(row) } => {
                    if let Ok(Some(event)) = self.definitions.judge(&row) {
                        let entry = entry(&event, identity, moment.nominal());
                        piece.missing.push((Sighting { moment, ..sighting }, entry, row));
                    }
                }
                Outcome::Duplicate | Outcome::Displaces { row: None, .. } => {}
            }
            piece.rows.offer(sighting);
            if piece.missing.len() > MISSING_MAX {
                piece.missing.truncate(MISSING_MAX);
            }
        }
    }

    /// All rows of the piece were seen: what is missing, and what is there beyond them?
    fn end_piece(&mut self, pulse: &dyn Fn()) -> std::io::Result<()> {
        let Some(mut piece) = self.piece.take() else { return Ok(()) };
        let within = |at: Millis| (piece.from..piece.to).contains(&at);
        let differing: Vec<&str> = self.counted.iter().filter(|c| c.genesys != c.file).map(|c| c.id.as_str()).collect();
        let mut extra = Vec::new();
        self.each_record(piece.from, piece.to, pulse, |event_id, sighting, text| {
            if differing.contains(&event_id)
                && piece.rows.offer(sighting) == Outcome::New
                && within(sighting.moment.nominal())
            {
                extra.push(record_entry(text));
            }
        })?;
        let missing = piece.missing.into_iter().filter(|(sighting, ..)| within(sighting.moment.nominal()));
        self.missing.extend(missing.map(|(_, entry, row)| (entry, row)));
        self.missing.truncate(MISSING_MAX);
        self.extra.extend(extra);
        self.compared = Some(piece.to);
        Ok(())
    }

    fn report(&mut self) -> Report {
        let (mut missing, rows): (Vec<Entry>, Vec<String>) = std::mem::take(&mut self.missing).into_iter().unzip();
        let mut extra = std::mem::take(&mut self.extra);
        missing.iter_mut().chain(&mut extra).for_each(|entry| entry.hide(&self.redaction));
        Report {
            from: format_millis(self.from),
            to: format_millis(self.to),
            complete: missing.is_empty(),
            definitions: std::mem::take(&mut self.counted),
            missing,
            extra,
            rows,
        }
    }
}

fn entry(event: &Event<'_>, identity: Identity, received: Millis) -> Entry {
    let time = event.time.unwrap_or(received);
    Entry {
        event_id: event.definition.decoded().into_owned(),
        timestamp: format_millis(time),
        entity_id: event.entity_id.decoded().into_owned(),
        conversation_id: event.conversation_id.decoded().into_owned(),
        id: identity.at(time).to_string(),
    }
}

fn record_entry(text: &str) -> Entry {
    let mut fields: [String; 5] = Default::default();
    let names = ["event_id", "timestamp", "entity_id", "conversation_id", "id"];
    // Whatever the event holds below its top level: the line was read as JSON before.
    let _ = Scanner::new(text).object(|scanner, key| {
        let value = scanner.value()?;
        if let Some(at) = names.iter().position(|name| key.is(name)) {
            fields[at] = value.text().map_or_else(String::new, |text| text.decoded().into_owned());
        }
        Ok(())
    });
    let [event_id, timestamp, entity_id, conversation_id, id] = fields;
    Entry { event_id, timestamp, entity_id, conversation_id, id }
}
