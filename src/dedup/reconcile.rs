//! Finds the rows of one content that the file lacks. Pure: both the collector and the audit decide by this function.

use super::matching::{unmatched, unmatched_in_order};
use super::{Range, Record, Source};

/// The result of comparing rows with records, as indexes into the two lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Rows without a record.
    pub missing: Vec<usize>,
    /// Records without a row.
    pub extra: Vec<usize>,
}

/// Compares the rows and the records of one content. A row without a time of its own has the range of the span of its
/// request. All rows must be different events, and so must all records.
pub fn reconcile(rows: &[Range], records: &[Record], row_delay_ms: i64) -> Reconciled {
    reconcile_by(unmatched, rows, records, row_delay_ms)
}

/// The same if later rows could claim these records too, as a storm is judged in parts. A record is matched with the
/// row of exactly its time, so no row is matched at the cost of one that is not known yet.
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
