//! Holds the rows of one read of the history until all rows that could claim the same records are known.
//!
//! Most rows are judged at once ([`super::index::Records::quick`]). The others are held by content and judged together
//! once no later row can belong to any of their records. Rows still open at the end of a read are judged by the next
//! read, which returns them again. Must never: split such a group, except at its limits (`GROUP_ROWS_MAX`,
//! `BYTES_MAX`), where the rows of the last `MARGIN_MS` stay as context.

use std::collections::HashMap;

use super::index::{Quick, Records};
use super::reconcile::{reconcile, reconcile_part};
use super::{MARGIN_MS, Range, Record};
use crate::clock::Millis;

/// Maximum number of rows of one content that are matched at once: a storm of equal events is matched in parts.
const GROUP_ROWS_MAX: usize = 512;

/// Approximate maximum of bytes of held rows.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// Approximate memory of a held row in addition to its text, in bytes.
const OVERHEAD: usize = 96;

/// A held row.
#[derive(Clone, Debug)]
pub struct Row {
    pub content: u64,
    /// Its own time, or the span of the request that returned it.
    pub time: Range,
    /// When it was received.
    pub received: Millis,
    /// The row as Genesys sent it.
    pub text: Box<str>,
    /// The row is not judged, but may claim a record.
    is_context: bool,
}

impl Row {
    fn is_timed(&self) -> bool {
        self.time.from == self.time.to
    }
}

/// The verdict on a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Must be appended.
    Missing,
    /// Is in the file, or is not judged by this read.
    Duplicate,
    /// Held until [`Rows::judge`].
    Held,
}

/// The span of a read whose rows are judged, without its end. Rows outside it are context.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub from: Millis,
    pub to: Millis,
}

impl Span {
    fn judges(self, time: Range) -> bool {
        // A row without a time was requested with the span, so it lies within it.
        time.from != time.to || (self.from..self.to).contains(&time.from)
    }
}

/// The result for held rows.
#[derive(Debug, Default)]
pub struct Judged {
    pub missing: Vec<Row>,
    pub duplicates: u64,
    /// Rows from this instant on could not be judged, because their records were not known.
    pub unjudged_since: Option<Millis>,
}

/// The held rows of one read.
pub struct Rows {
    span: Span,
    held: HashMap<u64, Vec<Row>>,
    count: usize,
    bytes: usize,
    unjudged_since: Option<Millis>,
    /// The newest row since the first page of a piece, and whether each row came after the one before it.
    newest: Millis,
    in_order: bool,
}

impl Default for Rows {
    fn default() -> Self {
        Self::new(Span { from: Millis::MIN, to: Millis::MAX })
    }
}

impl Rows {
    /// Creates the rows of a read that judges this span.
    pub fn new(span: Span) -> Self {
        Self {
            span,
            held: HashMap::new(),
            count: 0,
            bytes: 0,
            unjudged_since: None,
            newest: Millis::MIN,
            in_order: true,
        }
    }

    /// The number of held rows.
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The time of the oldest held row that is not context.
    pub fn oldest(&self) -> Option<Millis> {
        let rows = self.held.values().flatten().filter(|row| !row.is_context);
        rows.map(|row| row.time.from).min()
    }

    /// Drops the held rows. Returns how many of them were not counted yet.
    pub fn clear(&mut self) -> u64 {
        let held = self.held.drain().flat_map(|(_, rows)| rows).filter(|row| !row.is_context).count();
        (self.count, self.bytes) = (0, 0);
        held as u64
    }

    /// Starts a new sequence of rows, in the order of time. `is_all`: they are of all definitions of the read.
    pub fn begin_piece(&mut self, is_all: bool) {
        (self.newest, self.in_order) = (Millis::MIN, is_all);
    }

    /// Every row of the read before this instant has been offered, as far as their order proves.
    pub fn complete_to(&self) -> Millis {
        if self.in_order { self.newest } else { Millis::MIN }
    }

    /// Judges a row, or holds it.
    pub fn offer(&mut self, content: u64, time: Range, received: Millis, text: &str, records: Records<'_>) -> Verdict {
        let is_timed = time.from == time.to;
        self.in_order &= is_timed && time.from >= self.newest;
        self.newest = self.newest.max(time.from);
        let is_judged = self.span.judges(time);
        // No index covers a whole read, so a row without a time is judged by the known records: better a duplicate
        // than a loss.
        if is_timed && !records.reach(time.from) {
            // A context row is returned again by the read that judges it.
            if is_judged {
                self.unjudged_since = Some(self.unjudged_since.map_or(time.from, |since| since.min(time.from)));
            }
            return Verdict::Duplicate;
        }
        let quick = if is_timed { records.quick(content, time.from) } else { Quick::Ask };
        match quick {
            Quick::Known => return Verdict::Duplicate,
            Quick::Missing => return if is_judged { Verdict::Missing } else { Verdict::Duplicate },
            Quick::Matched | Quick::Ask => {}
        }
        // A context row is returned again by the read that judges it.
        let is_held = is_judged && quick == Quick::Ask;
        let text = if is_held { text } else { "" };
        let rows = self.held.entry(content).or_default();
        // Rows of equal content and time are one event. Rows without a time are told apart by their text.
        if rows.iter().any(|row| row.time == time && (is_timed || *row.text == *text)) {
            return Verdict::Duplicate;
        }
        let place = rows.partition_point(|row| row.time <= time);
        rows.insert(place, Row { content, time, received, text: text.into(), is_context: !is_held });
        self.count += 1;
        self.bytes += text.len() + OVERHEAD;
        if is_held { Verdict::Held } else { Verdict::Duplicate }
    }

    /// Judges the groups to which no later row can belong: all rows before `complete_to` have been offered.
    pub fn judge(&mut self, complete_to: Millis, records: Records<'_>) -> Judged {
        self.judge_closed(complete_to, false, records)
    }

    /// The same at the end of the read. Groups with untimed rows are judged too, because no time closes them.
    pub fn finish(&mut self, complete_to: Millis, records: Records<'_>) -> Judged {
        self.judge_closed(complete_to, true, records)
    }

    fn judge_closed(&mut self, complete_to: Millis, is_end: bool, records: Records<'_>) -> Judged {
        let mut judged = Judged { unjudged_since: self.unjudged_since, ..Judged::default() };
        if self.count == 0 {
            return judged;
        }
        let is_full = self.bytes > BYTES_MAX;
        for rows in self.held.values_mut() {
            // Records may have been forgotten since the rows were offered.
            if let Some(first) = rows.iter().find(|row| row.is_timed() && !records.reach(row.time.from)) {
                judged.unjudged_since = judged.unjudged_since.into_iter().chain([first.time.from]).min();
                for row in rows.extract_if(.., |row| row.is_timed()) {
                    self.count -= 1;
                    self.bytes -= row.text.len() + OVERHEAD;
                    judged.duplicates += u64::from(!row.is_context);
                }
                continue;
            }
            let near = candidates(rows, records);
            let must_close = is_end && rows.iter().any(|row| !row.is_timed());
            let mut closed =
                if must_close { rows.len() } else { closed(rows, &near, complete_to, records.row_delay_ms()) };
            let mut context_from = Millis::MAX;
            if closed == 0 && (is_full || rows.len() > GROUP_ROWS_MAX) {
                closed = rows.len().div_ceil(2);
                context_from = rows.get(closed).map_or(Millis::MAX, |row| row.time.from - MARGIN_MS);
            }
            if closed == 0 {
                continue;
            }
            let matched = if context_from == Millis::MAX { closed } else { rows.len() };
            let ranges: Vec<Range> = rows[..matched].iter().map(|row| row.time).collect();
            let mut is_missing = vec![false; matched];
            let found = if matched == closed {
                reconcile(&ranges, &near, records.row_delay_ms())
            } else {
                reconcile_part(&ranges, &near, records.row_delay_ms())
            };
            found.missing.into_iter().for_each(|place| is_missing[place] = true);
            let mut context = Vec::new();
            for (row, is_missing) in rows.drain(..closed).zip(is_missing) {
                if row.time.from >= context_from {
                    context.push(Row { is_context: true, ..row.clone() });
                } else {
                    self.count -= 1;
                    self.bytes -= row.text.len() + OVERHEAD;
                }
                if is_missing && !row.is_context {
                    judged.missing.push(row);
                } else {
                    judged.duplicates += u64::from(!row.is_context);
                }
            }
            rows.splice(0..0, context);
        }
        self.held.retain(|_, rows| !rows.is_empty());
        self.unjudged_since = judged.unjudged_since;
        judged
    }
}

/// The records that could belong to any of these rows or of their neighbours.
fn candidates(rows: &[Row], records: Records<'_>) -> Vec<Record> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Vec::new() };
    let to = rows.iter().map(|row| row.time.to).max().unwrap_or(last.time.to);
    records.near(first.content, Range { from: first.time.from, to })
}

/// How many of the first rows cannot compete with any later row: all rows before `complete_to` are known.
fn closed(rows: &[Row], records: &[Record], complete_to: Millis, row_delay_ms: i64) -> usize {
    let (mut closed, mut reach) = (0, Millis::MIN);
    for (place, row) in rows.iter().enumerate() {
        if row.time.from > reach && reach < complete_to {
            closed = place;
        }
        let ranges = records.iter().map(|record| record.range(row_delay_ms)).filter(|range| range.overlaps(row.time));
        reach = ranges.map(|range| range.to).fold(reach.max(row.time.to), Millis::max);
    }
    if reach < complete_to { rows.len() } else { closed }
}
