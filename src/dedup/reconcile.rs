//! Which rows of one content the file does not have. Pure: the collector and the audit decide by this function alone.

use super::matching::{unmatched, unmatched_in_order};
use super::{Range, Record, Source};

/// What a comparison of rows and records found, as places in the two lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Rows that no record stands for.
    pub missing: Vec<usize>,
    /// Records that no row stands for.
    pub extra: Vec<usize>,
}

/// Compares the rows and the records of one content. A row without a time of its own has the range of the span that it
/// was asked for with. No two rows are the same event, and no two records.
pub fn reconcile(rows: &[Range], records: &[Record], row_delay_ms: i64) -> Reconciled {
    reconcile_by(unmatched, rows, records, row_delay_ms)
}

/// The same where more rows follow that could claim these records: a storm is judged in parts. Rows of exactly a record's
/// time are its own, so that no row is matched at the cost of one that is not known yet.
pub(super) fn reconcile_part(rows: &[Range], records: &[Record], row_delay_ms: i64) -> Reconciled {
    reconcile_by(unmatched_in_order, rows, records, row_delay_ms)
}

fn reconcile_by(
    unmatched: impl Fn(&[Range], &[Record], i64) -> (Vec<usize>, Vec<usize>),
    rows: &[Range],
    records: &[Record],
    row_delay_ms: i64,
) -> Reconciled {
    let is_done =
        |row: &Range, record: &Record| record.source == Source::History && record.timed && *row == Range::at(record.at);
    let open_rows: Vec<usize> =
        (0..rows.len()).filter(|row| !records.iter().any(|record| is_done(&rows[*row], record))).collect();
    let open_records: Vec<usize> =
        (0..records.len()).filter(|record| !rows.iter().any(|row| is_done(row, &records[*record]))).collect();
    let ranges: Vec<Range> = open_rows.iter().map(|row| rows[*row]).collect();
    let candidates: Vec<Record> = open_records.iter().map(|record| records[*record]).collect();
    let (missing, extra) = unmatched(&ranges, &candidates, row_delay_ms);
    Reconciled {
        missing: missing.into_iter().map(|place| open_rows[place]).collect(),
        extra: extra.into_iter().map(|place| open_records[place]).collect(),
    }
}
