//! Matches rows with records one to one: as many pairs as possible, the nearest first. Pure.

use super::{RECEIPT_DELAY_MS, Range, Record, Source};

/// Above this many combinations (a storm of equal events), rows are matched in order of time, not nearest first.
const COMBINATIONS_MAX: usize = 1 << 18;

/// Returns the rows and the records without a partner. A row with a time of its own has a range of one instant.
///
/// A row may pair with any socket record whose range contains it; a row without a time also with a history record
/// without one. Pairs are first chosen greedily, nearest first, then extended along augmenting paths to the maximum.
pub(super) fn unmatched(rows: &[Range], records: &[Record], row_delay_ms: i64) -> (Vec<usize>, Vec<usize>) {
    if rows.len() * records.len() > COMBINATIONS_MAX {
        return unmatched_in_order(rows, records, row_delay_ms);
    }
    let fits = |row: usize, record: usize| fits(rows[row], records[record], row_delay_ms);
    let mut pairs: Vec<(i64, usize, usize)> = Vec::new();
    for (row, time) in rows.iter().enumerate() {
        for record in (0..records.len()).filter(|record| fits(row, *record)) {
            pairs.push((distance(*time, records[record]), row, record));
        }
    }
    pairs.sort_unstable();
    let (mut record_of, mut row_of) = (vec![None; rows.len()], vec![None; records.len()]);
    for (_, row, record) in pairs {
        if record_of[row].is_none() && row_of[record].is_none() {
            (record_of[row], row_of[record]) = (Some(record), Some(row));
        }
    }
    // A record from which no free one was reached stays visited until a pair is added.
    let mut visited = vec![false; records.len()];
    for row in 0..rows.len() {
        if record_of[row].is_none() && augment(row, &fits, &mut record_of, &mut row_of, &mut visited) {
            visited.fill(false);
        }
    }
    (free(&record_of), free(&row_of))
}

fn fits(row: Range, record: Record, row_delay_ms: i64) -> bool {
    let may = record.source == Source::Socket || row.from != row.to && !record.timed;
    may && record.range(row_delay_ms).overlaps(row)
}

fn free(partners: &[Option<usize>]) -> Vec<usize> {
    (0..partners.len()).filter(|place| partners[*place].is_none()).collect()
}

/// Pairs in order of time: first those of equal times, then each row with the earliest free record that fits.
pub(super) fn unmatched_in_order(rows: &[Range], records: &[Record], row_delay_ms: i64) -> (Vec<usize>, Vec<usize>) {
    let fits = |row: usize, record: usize| fits(rows[row], records[record], row_delay_ms);
    let mut by_time: Vec<usize> = (0..records.len()).collect();
    by_time.sort_by_key(|record| records[*record].at);
    let (mut record_of, mut row_of) = (vec![None; rows.len()], vec![None; records.len()]);
    for only_equal in [true, false] {
        let mut first_free = 0;
        for row in (0..rows.len()).filter(|row| record_of[*row].is_none()).collect::<Vec<_>>() {
            let is_past =
                |record: usize| row_of[record].is_some() || records[record].at + RECEIPT_DELAY_MS < rows[row].from;
            while by_time.get(first_free).is_some_and(|record| is_past(*record)) {
                first_free += 1;
            }
            let is_equal = |record: usize| rows[row] == Range::at(records[record].at);
            let free =
                by_time[first_free..].iter().copied().take_while(|r| records[*r].at <= rows[row].to + RECEIPT_DELAY_MS);
            let found = free
                .filter(|record| row_of[*record].is_none() && fits(row, *record))
                .find(|record| !only_equal || is_equal(*record));
            if let Some(record) = found {
                (record_of[row], row_of[record]) = (Some(record), Some(row));
            }
        }
    }
    (free(&record_of), free(&row_of))
}

/// The distance between row and record. If either has no time, it is greater than between any two times.
fn distance(row: Range, record: Record) -> i64 {
    const UNKNOWN: i64 = 1 << 40;
    if row.from == row.to && record.timed {
        (row.from - record.at).abs()
    } else {
        UNKNOWN + (row.from - record.at).abs().min(UNKNOWN)
    }
}

/// Finds a record for this row, moving other rows to other records if possible.
fn augment(
    row: usize,
    fits: &impl Fn(usize, usize) -> bool,
    record_of: &mut [Option<usize>],
    row_of: &mut [Option<usize>],
    visited: &mut [bool],
) -> bool {
    for record in 0..row_of.len() {
        if visited[record] || !fits(row, record) {
            continue;
        }
        visited[record] = true;
        let is_free = match row_of[record] {
            None => true,
            Some(other) => augment(other, fits, record_of, row_of, visited),
        };
        if is_free {
            (record_of[row], row_of[record]) = (Some(record), Some(row));
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(at: i64) -> Record {
        Record { at, timed: true, source: Source::Socket }
    }

    fn leftover(rows: &[i64], records: &[Record]) -> (Vec<usize>, Vec<usize>) {
        let rows: Vec<Range> = rows.iter().map(|at| Range::at(*at)).collect();
        unmatched(&rows, records, 1_000_000)
    }

    #[test]
    fn the_row_that_is_farther_from_the_only_record_is_left_over() {
        assert_eq!(leftover(&[8_500, 9_900], &[socket(10_000)]), (vec![0], vec![]));
        assert_eq!(leftover(&[10_100, 11_500], &[socket(10_000)]), (vec![1], vec![]));
    }

    #[test]
    fn more_pairs_are_better_than_near_ones() {
        // The second row is nearest to the first record, which is the only one that fits the first row.
        assert_eq!(leftover(&[10_000, 11_900], &[socket(11_800), socket(13_800)]), (vec![], vec![]));
    }

    #[test]
    fn a_receipt_fits_rows_up_to_two_minutes_before_it() {
        let receipt = Record { at: 200_000, timed: false, source: Source::Socket };
        assert_eq!(leftover(&[80_000], &[receipt]), (vec![], vec![]));
        assert_eq!(leftover(&[79_999], &[receipt]), (vec![0], vec![0]));
        // A record of exactly the same time is preferred.
        assert_eq!(leftover(&[199_000], &[socket(199_000), receipt]), (vec![], vec![1]));
    }

    #[test]
    fn a_storm_of_equal_events_is_matched_in_the_order_of_time() {
        let records: Vec<Record> = (0..2_000).map(|n| socket(10_000 + n)).collect();
        let rows: Vec<i64> = (0..2_001).map(|n| 10_000 + n).collect();
        assert_eq!(leftover(&rows, &records), (vec![2_000], vec![]));
    }

    #[test]
    fn a_history_record_with_a_time_is_nobody_elses() {
        let history = Record { at: 10_000, timed: true, source: Source::History };
        assert_eq!(leftover(&[10_001], &[history]), (vec![0], vec![0]));
    }
}
