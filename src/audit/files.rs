//! Reads records from the files for audits. Never writes.

use std::io::Result;

use crate::clock::Millis;
use crate::config::Config;
use crate::dedup::index::{Index, RECORDS_MAX};
use crate::dedup::{CONTEXT_MS, MARGIN_MS, RECEIPT_DELAY_MS, Range, Record};
use crate::event::Line;
use crate::output::Flow;
use crate::output::records;

/// How much further back in the files records of a span may be than their times suggest.
const BEFORE_MS: Millis = 2 * RECEIPT_DELAY_MS;

/// The records of a span in the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Number of records of each definition.
    pub by_definition: Vec<u64>,
    /// Whether events differ only in time, or a record occurs twice. Then only the rows can show whether all events are
    /// in the files.
    pub needs_rows: bool,
}

/// Maximum time between an event and the receipt of its row, for rows without a time, in milliseconds.
pub fn row_delay_ms(config: &Config) -> i64 {
    config.catch_up.overlap.as_millis() as i64 + RECEIPT_DELAY_MS
}

/// Visits the records whose event may have happened in the span, newest first, with their content and line. For
/// `row_delay_ms` see [`Record::range`]. `pulse` is called periodically.
///
/// # Errors
/// When a file cannot be read.
pub fn each_between(
    config: &Config,
    span: Range,
    row_delay_ms: i64,
    pulse: &dyn Fn(),
    mut visit: impl FnMut(u64, Record, &Line<'_>, &str) -> Flow,
) -> Result<()> {
    let visit = |text: &str, line: &Line<'_>| {
        let (content, record) = records::observation(line, row_delay_ms);
        if record.range(row_delay_ms).overlaps(span) { visit(content, record, line, text) } else { Flow::On }
    };
    records::each_since(&config.output.file, || span.from - BEFORE_MS, visit, pulse)
}

/// The records of a span, and those for earlier rows that may still be held. `None` if `is_bounded` and there are more
/// than the index's maximum.
///
/// # Errors
/// When a file cannot be read.
pub fn index_between(config: &Config, span: Range, is_bounded: bool, pulse: &dyn Fn()) -> Result<Option<Index>> {
    let max = if is_bounded { RECORDS_MAX } else { usize::MAX };
    let span = Range { from: span.from - CONTEXT_MS - 2 * MARGIN_MS, to: span.to + 2 * MARGIN_MS };
    let row_delay_ms = row_delay_ms(config);
    let mut index = Index::new(usize::MAX, row_delay_ms);
    each_between(config, span, row_delay_ms, pulse, |content, record, _, _| {
        index.insert(content, record);
        if index.len() <= max { Flow::On } else { Flow::Stop }
    })?;
    index.filled_since(span.from);
    index.filled_until(span.to - MARGIN_MS);
    Ok((index.len() <= max).then_some(index))
}

/// Counts the records of each definition whose time is within the span.
///
/// # Errors
/// When a file cannot be read.
pub fn count_between(config: &Config, ids: &[String], from: Millis, to: Millis, pulse: &dyn Fn()) -> Result<Counts> {
    let (mut by_definition, mut has_repeats) = (vec![0; ids.len()], false);
    // Bounded: with more records than this, not all are compared with each other.
    let row_delay_ms = row_delay_ms(config);
    let mut index = Index::new(RECORDS_MAX, row_delay_ms);
    each_between(config, Range { from, to: to - 1 }, row_delay_ms, pulse, |content, record, line, _| {
        if (from..to).contains(&record.at) {
            let id = line.event_id.decoded();
            if let Some(place) = ids.iter().position(|known| known.eq_ignore_ascii_case(&id)) {
                by_definition[place] += 1;
            }
            has_repeats |= !index.insert(content, record);
        }
        Flow::On
    })?;
    let needs_rows = has_repeats || index.has_like_events(Range { from, to });
    Ok(Counts { by_definition, needs_rows })
}
