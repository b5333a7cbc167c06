//! Which rows of the history have no record, and which records no row: all of a piece at once. Pure.
//!
//! The rules are the window's. Within one way content and time must be equal; a row and a record of the socket may differ
//! by [`TOLERANCE_MS`], or by a receipt's delay where the record has no time of its own. Matching is one to one: as many
//! pairs as can be, and left over is who is farther away.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::clock::Millis;
use crate::window::{Moment, Sighting, TOLERANCE_MS, Way};

/// Beyond this many combinations only the number of pairs is sought, not the nearest: a storm of equal events.
const COMBINATIONS_MAX: usize = 16_384;

/// A row of the history: its content, and its time where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Row {
    pub content: u64,
    pub time: Option<Millis>,
}

/// When the event of a record may have happened, and the instant that is the likeliest.
#[derive(Clone, Copy, Debug)]
struct Span {
    from: Millis,
    to: Millis,
    likely: Millis,
}

/// Gives the rows without a record and the records without a row. Neither list holds anything twice; both are sorted.
pub fn unmatched(rows: &mut [Row], records: &mut [Sighting]) -> (Vec<Row>, Vec<Sighting>) {
    rows.sort_unstable();
    records.sort_unstable_by_key(|record| (record.content, record.moment.nominal()));
    let (mut rows, mut records) = (&*rows, &*records);
    let (mut lonely_rows, mut lonely_records) = (Vec::new(), Vec::new());
    while let Some(content) =
        rows.first().map(|r| r.content).into_iter().chain(records.first().map(|r| r.content)).min()
    {
        let (of_rows, rest) = rows.split_at(rows.partition_point(|row| row.content <= content));
        rows = rest;
        let (of_records, rest) = records.split_at(records.partition_point(|record| record.content <= content));
        records = rest;
        match_content(of_rows, of_records, &mut lonely_rows, &mut lonely_records);
    }
    (lonely_rows, lonely_records)
}

/// Matches what has one content.
fn match_content(rows: &[Row], records: &[Sighting], lonely_rows: &mut Vec<Row>, lonely_records: &mut Vec<Sighting>) {
    // Nearly always: one row, and its record.
    if let ([row], [record]) = (rows, records)
        && may_be(*row, record)
    {
        return;
    }
    let mut rows = rows.to_vec();
    let mut records = records.to_vec();
    records.retain(|record| {
        let own = rows.binary_search(&Row { content: record.content, time: own_time(record) });
        record.way == Way::Socket || own.map(|at| rows.remove(at)).is_err()
    });
    let points: Vec<Millis> = rows.iter().filter_map(|row| row.time).collect();
    // A record of the history with a time stands for a row of that very time, and for no other.
    let (loose, bound): (Vec<Sighting>, Vec<Sighting>) = records.into_iter().partition(may_differ);
    lonely_records.extend(bound);
    let spans: Vec<Span> = loose.iter().map(|record| span(record.moment)).collect();
    let (paired_points, paired_spans) = if points.len() * spans.len() <= COMBINATIONS_MAX {
        nearest(&points, &spans)
    } else {
        as_many_as_can_be(&points, &spans)
    };
    let mut left: Vec<Sighting> =
        loose.iter().zip(&paired_spans).filter(|(_, paired)| !**paired).map(|(record, _)| *record).collect();
    let mut paired = paired_points.into_iter();
    for row in rows {
        // Whatever is left may be the record of a row that says nothing of its time.
        let has_record = if row.time.is_some() { paired.next().unwrap_or_default() } else { left.pop().is_some() };
        if !has_record {
            lonely_rows.push(row);
        }
    }
    lonely_records.extend(left);
}

/// A row without a time is written as a record without one.
fn own_time(record: &Sighting) -> Option<Millis> {
    match record.moment {
        Moment::Own(time) => Some(time),
        Moment::Receipt { .. } => None,
    }
}

fn may_differ(record: &Sighting) -> bool {
    record.way == Way::Socket || matches!(record.moment, Moment::Receipt { .. })
}

fn may_be(row: Row, record: &Sighting) -> bool {
    let is_near = |time| {
        let span = span(record.moment);
        (span.from..=span.to).contains(&time)
    };
    row.time == own_time(record) || may_differ(record) && row.time.is_none_or(is_near)
}

fn span(moment: Moment) -> Span {
    let likely = moment.nominal();
    match moment {
        Moment::Own(at) => Span { from: at - TOLERANCE_MS, to: at + TOLERANCE_MS, likely },
        Moment::Receipt { at, delay } => Span { from: at - delay, to: at + TOLERANCE_MS, likely },
    }
}

/// As many pairs as can be, the nearest points first: a point that has found a place never loses it again.
fn nearest(points: &[Millis], spans: &[Span]) -> (Vec<bool>, Vec<bool>) {
    let candidates: Vec<Vec<usize>> = points
        .iter()
        .map(|point| {
            let mut near: Vec<usize> =
                (0..spans.len()).filter(|s| (spans[*s].from..=spans[*s].to).contains(point)).collect();
            near.sort_by_key(|s| (spans[*s].likely - point).abs());
            near
        })
        .collect();
    let distance = |p: usize| candidates[p].first().map_or(Millis::MAX, |s| (spans[*s].likely - points[p]).abs());
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by_key(|p| distance(*p));
    let mut holders: Vec<Option<usize>> = vec![None; spans.len()];
    let mut paired = vec![false; points.len()];
    for point in order {
        let mut tried = vec![false; spans.len()];
        paired[point] = find_place(point, &candidates, &mut holders, &mut tried);
    }
    (paired, holders.iter().map(Option::is_some).collect())
}

/// Finds a place for a point, moving others where they have another one.
fn find_place(point: usize, candidates: &[Vec<usize>], holders: &mut [Option<usize>], tried: &mut [bool]) -> bool {
    for span in &candidates[point] {
        if std::mem::replace(&mut tried[*span], true) {
            continue;
        }
        if holders[*span].is_none_or(|holder| find_place(holder, candidates, holders, tried)) {
            holders[*span] = Some(point);
            return true;
        }
    }
    false
}

/// As many pairs as can be: each point in turn takes the span that ends first.
fn as_many_as_can_be(points: &[Millis], spans: &[Span]) -> (Vec<bool>, Vec<bool>) {
    let mut order: Vec<usize> = (0..spans.len()).collect();
    order.sort_by_key(|s| spans[*s].from);
    let mut begun = order.into_iter().peekable();
    let mut open = BinaryHeap::new();
    let mut taken = vec![false; spans.len()];
    let paired = points.iter().map(|point| {
        while let Some(span) = begun.next_if(|s| spans[*s].from <= *point) {
            open.push(Reverse((spans[span].to, span)));
        }
        while open.peek().is_some_and(|Reverse((to, _))| to < point) {
            open.pop();
        }
        open.pop().map(|Reverse((_, span))| taken[span] = true).is_some()
    });
    (paired.collect(), taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Millis = 1_795_430_645_000;

    fn row(time: Millis) -> Row {
        Row { content: 7, time: Some(time) }
    }

    fn record(way: Way, moment: Moment) -> Sighting {
        Sighting { content: 7, way, moment }
    }

    fn socket(time: Millis) -> Sighting {
        record(Way::Socket, Moment::Own(time))
    }

    fn history(time: Millis) -> Sighting {
        record(Way::History, Moment::Own(time))
    }

    fn late(at: Millis) -> Sighting {
        record(Way::Socket, Moment::Receipt { at, delay: 120_000 })
    }

    /// The times of what is left over.
    fn left(rows: &[Row], records: &[Sighting]) -> (Vec<Option<Millis>>, Vec<Millis>) {
        let (rows, records) = unmatched(&mut rows.to_vec(), &mut records.to_vec());
        (rows.iter().map(|r| r.time).collect(), records.iter().map(|r| r.moment.nominal()).collect())
    }

    #[test]
    fn a_row_has_its_own_record_or_one_of_the_socket_that_is_near() {
        assert_eq!(left(&[row(T)], &[history(T)]), (vec![], vec![]));
        assert_eq!(left(&[row(T)], &[history(T + 1)]), (vec![Some(T)], vec![T + 1]));
        assert_eq!(left(&[row(T)], &[socket(T + 2000)]), (vec![], vec![]));
        assert_eq!(left(&[row(T)], &[socket(T + 2001)]), (vec![Some(T)], vec![T + 2001]));
        assert_eq!(left(&[row(T - 119_000)], &[late(T)]), (vec![], vec![]));
        assert_eq!(left(&[row(T)], &[]), (vec![Some(T)], vec![]));
        let (rows, records) = unmatched(&mut [Row { content: 8, time: Some(T) }], &mut [socket(T)]);
        assert_eq!((rows.len(), records.len()), (1, 1));
    }

    #[test]
    fn a_row_is_used_once() {
        assert_eq!(left(&[row(T)], &[history(T), socket(T + 500)]), (vec![], vec![T + 500]));
        assert_eq!(left(&[row(T), row(T + 900)], &[socket(T + 1000)]), (vec![Some(T)], vec![]));
    }

    #[test]
    fn as_many_pairs_as_can_be_whatever_the_order() {
        // The nearest record of the first row is the only one of the second.
        assert_eq!(left(&[row(T + 1400), row(T + 3000)], &[socket(T), socket(T + 1500)]), (vec![], vec![]));
        // Receipts: the one that comes first has only the earliest row.
        let rows: Vec<Row> = [0, 100_000, 110_000].map(|n| row(T + n)).to_vec();
        assert_eq!(left(&rows, &[late(T + 1), late(T + 111_000), late(T + 119_000)]), (vec![], vec![]));
    }

    #[test]
    fn a_row_without_a_time_takes_what_is_left() {
        let timeless = Row { content: 7, time: None };
        assert_eq!(left(&[timeless, row(T)], &[socket(T), socket(T + 9000)]), (vec![], vec![]));
        assert_eq!(left(&[timeless, row(T)], &[socket(T)]), (vec![None], vec![]));
    }

    #[test]
    fn a_storm_of_equal_events_is_matched_too() {
        let rows: Vec<Row> = (0..6000).map(|n| row(T + n)).collect();
        let records: Vec<Sighting> = (0..6000).filter(|n| *n != 3000).map(|n| socket(T + n + 1)).collect();
        let (missing, extra) = left(&rows, &records);
        assert_eq!((missing.len(), extra.len()), (1, 0));
    }
}
