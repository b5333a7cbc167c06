//! Counts events by code and integration: since the start for `/metrics`, and per minute for one day and per hour for
//! ten days for the page's charts.
//!
//! The memory is limited. There are at most [`PAIRS_MAX`] pairs of code and integration, and further integrations are
//! counted as `other`. Each pair takes the same few kilobytes for any number of events.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::clock::Millis;
use crate::event::{Fields, text};

/// Maximum number of pairs of code and integration. Each has two series in `/metrics` (late or not), so there are at
/// most 200.
pub const PAIRS_MAX: usize = 100;
/// From this many pairs on, new integrations are counted as `other`. The remaining pairs are for new codes.
const NAMED_PAIRS_MAX: usize = 80;
/// The name for integrations and codes beyond the limit.
const OTHER: &str = "other";
/// Maximum length of an id or name, since Prometheus keeps labels for a long time.
const NAME_CHARS_MAX: usize = 120;
/// An event older than this when it was written is late.
const LATE_MS: i64 = 15 * 60_000;
/// An event with a time further in the future than this has a wrong time and is counted at the time of writing.
const FUTURE_MS: i64 = 3_600_000;

pub const MINUTE_MS: i64 = 60_000;
pub const HOUR_MS: i64 = 3_600_000;
/// A little more than a day, for a chart of 24 hours with rounded ends.
const MINUTES: usize = 1500;
/// A little more than ten days, for which Genesys Cloud keeps events.
const HOURS: usize = 242;

#[derive(Default)]
pub struct Counts {
    table: Mutex<Table>,
    is_loaded: AtomicBool,
}

#[derive(Default)]
struct Table {
    /// Pairs by code and integration.
    codes: BTreeMap<String, BTreeMap<String, Pair>>,
    pairs: usize,
    /// All events, including those of earlier runs.
    total: u64,
}

struct Pair {
    entity_name: String,
    on_time: u64,
    late: u64,
    minutes: Buckets<MINUTES>,
    hours: Buckets<HOURS>,
}

/// Counts for the newest `N` time spans. `newest` is the number of the last span since 1970.
struct Buckets<const N: usize> {
    counts: Vec<u32>,
    newest: i64,
}

impl<const N: usize> Buckets<N> {
    fn new() -> Self {
        Self { counts: vec![0; N], newest: 0 }
    }

    fn place(number: i64) -> usize {
        number.rem_euclid(N as i64) as usize
    }

    fn add(&mut self, number: i64, events: u64) {
        if number > self.newest {
            for passed in (self.newest + 1).max(number - N as i64 + 1)..=number {
                self.counts[Self::place(passed)] = 0;
            }
            self.newest = number;
        }
        if number > self.newest - N as i64 {
            let count = &mut self.counts[Self::place(number)];
            *count = count.saturating_add(u32::try_from(events).unwrap_or(u32::MAX));
        }
    }

    /// `[age, count, age, count, …]`, the newest first. Ages are relative to the span number `now`.
    fn ages(&self, now: i64) -> Vec<i64> {
        let oldest = (now - N as i64 + 1).max(self.newest - N as i64 + 1);
        let numbers = (oldest..=self.newest).rev();
        numbers
            .map(|number| (now - number, self.counts[Self::place(number)]))
            .filter(|(_, count)| *count > 0)
            .flat_map(|(age, count)| [age, i64::from(count)])
            .collect()
    }
}

/// The number of records with the same code, integration and minute that were written together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub event_id: String,
    pub entity_id: String,
    pub entity_name: String,
    /// Minutes since 1970.
    pub minute: i64,
    pub late: bool,
    pub count: u64,
}

/// The minute in which an event is counted, and whether it was written late.
pub fn when(event_time: Millis, written_at: Millis) -> (i64, bool) {
    let time = if event_time > written_at + FUTURE_MS { written_at } else { event_time };
    (time.div_euclid(MINUTE_MS), written_at - event_time > LATE_MS)
}

/// The counts of a pair since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    pub event_id: String,
    pub entity_id: String,
    pub entity_name: String,
    pub on_time: u64,
    pub late: u64,
}

/// The buckets of a pair, for the page.
#[derive(Debug, Serialize)]
pub struct Series {
    pub event_id: String,
    pub entity_id: String,
    pub entity_name: String,
    /// `[age, count, …]` in minutes.
    pub minutes: Vec<i64>,
    /// `[age, count, …]` in hours.
    pub hours: Vec<i64>,
}

impl Counts {
    /// Counts a written record. Times are in milliseconds since 1970.
    pub fn add(&self, event_id: &str, entity_id: &str, entity_name: &str, event_time: Millis, written_at: Millis) {
        let (minute, late) = when(event_time, written_at);
        self.add_written(&[Written {
            event_id: event_id.to_owned(),
            entity_id: entity_id.to_owned(),
            entity_name: entity_name.to_owned(),
            minute,
            late,
            count: 1,
        }]);
    }

    /// Counts records that were written together.
    pub fn add_written(&self, all: &[Written]) {
        if all.is_empty() {
            return;
        }
        let mut table = self.lock();
        for written in all {
            table.total += written.count - 1;
            table.count(&written.event_id, &written.entity_id, &written.entity_name, |pair| {
                *(if written.late { &mut pair.late } else { &mut pair.on_time }) += written.count;
                pair.add(written.minute * MINUTE_MS, written.count);
            });
        }
    }

    /// Counts the record of a line that was just written.
    pub fn add_line(&self, line: &[u8], written_at: Millis) {
        if let Some(fields) = Fields::read(line) {
            let (event_id, entity_id, name) = (text(fields.event_id), text(fields.entity_id), text(fields.entity_name));
            self.add(&event_id, &entity_id, &name, fields.event_time().unwrap_or(written_at), written_at);
        }
    }

    /// Counts a line of an earlier run in the buckets only. In `/metrics` its pair starts at 0, so that alerts can
    /// distinguish the first occurrence of a code from a restart.
    pub fn load_line(&self, line: &[u8], now: Millis) {
        let Some(fields) = Fields::read(line) else { return };
        let Some(time) = fields.event_time().filter(|time| *time <= now + FUTURE_MS) else { return };
        let (event_id, entity_id, name) = (text(fields.event_id), text(fields.entity_id), text(fields.entity_name));
        self.lock().count(&event_id, &entity_id, &name, |pair| pair.add(time, 1));
    }

    /// Marks the records of earlier runs as loaded.
    pub fn set_loaded(&self) {
        self.is_loaded.store(true, Ordering::Relaxed);
    }

    pub fn is_loaded(&self) -> bool {
        self.is_loaded.load(Ordering::Relaxed)
    }

    /// The number of all events, including those of earlier runs.
    pub fn total(&self) -> u64 {
        self.lock().total
    }

    pub fn totals(&self) -> Vec<Totals> {
        self.lock().each(|event_id, entity_id, pair| Totals {
            event_id: event_id.to_owned(),
            entity_id: entity_id.to_owned(),
            entity_name: pair.entity_name.clone(),
            on_time: pair.on_time,
            late: pair.late,
        })
    }

    pub fn series(&self, now: Millis) -> Vec<Series> {
        let mut all = self.lock().each(|event_id, entity_id, pair| Series {
            event_id: event_id.to_owned(),
            entity_id: entity_id.to_owned(),
            entity_name: pair.entity_name.clone(),
            minutes: pair.minutes.ages(now.div_euclid(MINUTE_MS)),
            hours: pair.hours.ages(now.div_euclid(HOUR_MS)),
        });
        all.retain(|series| !series.hours.is_empty());
        all
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Calls `change` with the pair for this event.
    fn count(&mut self, event_id: &str, entity_id: &str, entity_name: &str, change: impl FnOnce(&mut Pair)) {
        self.total += 1;
        let (event_id, entity_id) = (cut(event_id), cut(entity_id));
        if let Some(pair) = self.codes.get_mut(event_id).and_then(|entities| entities.get_mut(entity_id)) {
            return change(pair);
        }
        let (event_id, entity_id, entity_name) = if self.pairs < NAMED_PAIRS_MAX {
            (event_id, entity_id, cut(entity_name))
        } else if self.has(event_id, OTHER) || self.pairs < PAIRS_MAX - 1 {
            (event_id, OTHER, OTHER)
        } else {
            (OTHER, OTHER, OTHER)
        };
        let (pairs, entities) = (&mut self.pairs, self.codes.entry(event_id.to_owned()).or_default());
        change(entities.entry(entity_id.to_owned()).or_insert_with(|| {
            *pairs += 1;
            Pair::new(entity_name)
        }));
    }

    fn has(&self, event_id: &str, entity_id: &str) -> bool {
        self.codes.get(event_id).is_some_and(|entities| entities.contains_key(entity_id))
    }

    fn each<T>(&self, view: impl Fn(&str, &str, &Pair) -> T) -> Vec<T> {
        let pairs =
            self.codes.iter().flat_map(|(id, entities)| entities.iter().map(move |(entity, p)| (id, entity, p)));
        pairs.map(|(event_id, entity_id, pair)| view(event_id, entity_id, pair)).collect()
    }
}

impl Pair {
    fn new(entity_name: &str) -> Self {
        let (minutes, hours) = (Buckets::new(), Buckets::new());
        Self { entity_name: entity_name.to_owned(), on_time: 0, late: 0, minutes, hours }
    }

    fn add(&mut self, time: Millis, events: u64) {
        self.minutes.add(time.div_euclid(MINUTE_MS), events);
        self.hours.add(time.div_euclid(HOUR_MS), events);
    }
}

fn cut(text: &str) -> &str {
    text.char_indices().nth(NAME_CHARS_MAX).map_or(text, |(at, _)| &text[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = 1_795_430_645_123;

    #[test]
    fn events_are_counted_by_code_and_integration_and_by_how_late_they_are() {
        let counts = Counts::default();
        counts.add("A", "e1", "One", NOW - 1000, NOW);
        counts.add("A", "e1", "One", NOW - LATE_MS, NOW);
        counts.add("A", "e1", "One", NOW - LATE_MS - 1, NOW);
        counts.add("A", "e2", "Two", NOW + 2 * FUTURE_MS, NOW);
        let totals = counts.totals();
        assert_eq!((totals.len(), totals[0].on_time, totals[0].late, totals[0].entity_name.as_str()), (2, 2, 1, "One"));
        let series = counts.series(NOW);
        assert_eq!(series[0].minutes, [0, 1, 15, 2]);
        assert_eq!(series[0].hours, [0, 3]);
        assert_eq!(series[1].minutes, [0, 1], "an impossible time counts when it was written");
        assert_eq!(counts.total(), 4);
    }

    #[test]
    fn buckets_drop_old_events_and_count_late_ones() {
        let counts = Counts::default();
        for ago in [0, 5, 1440, 60 * 24 * 9, 60 * 24 * 11] {
            counts.add("A", "e", "", NOW - ago * MINUTE_MS, NOW);
        }
        assert_eq!(counts.series(NOW)[0].minutes, [0, 1, 5, 1, 1440, 1]);
        assert_eq!(counts.series(NOW)[0].hours, [0, 2, 24, 1, 216, 1]);
        counts.add("A", "e", "", NOW + 2 * 24 * HOUR_MS, NOW + 2 * 24 * HOUR_MS);
        let later = counts.series(NOW + 2 * 24 * HOUR_MS);
        assert_eq!((later[0].minutes.as_slice(), later[0].hours.as_slice()), (&[0, 1][..], &[0, 1, 48, 2, 72, 1][..]));
    }

    #[test]
    fn there_are_never_more_than_a_hundred_pairs() {
        let counts = Counts::default();
        for code in 0..300 {
            for entity in 0..300 {
                counts.add(&format!("C{code}"), &format!("e{entity}"), "name", NOW, NOW);
            }
        }
        let totals = counts.totals();
        assert_eq!(totals.len(), PAIRS_MAX);
        assert_eq!(totals.iter().map(|pair| pair.on_time).sum::<u64>(), 90_000);
        assert!(totals.iter().any(|pair| (pair.event_id.as_str(), pair.entity_id.as_str()) == ("C0", OTHER)));
        counts.add(&"é".repeat(1000), "", "", NOW, NOW);
    }

    #[test]
    fn what_an_earlier_run_wrote_fills_the_charts_and_not_the_metrics() {
        let counts = Counts::default();
        let line = br#"{"timestamp":"2026-11-23T10:44:05.123Z","event_id":"A","entity_id":"e","entity_name":"E"}"#;
        counts.load_line(line, NOW);
        counts.load_line(b"torn", NOW);
        assert_eq!((counts.totals()[0].on_time, counts.totals()[0].late), (0, 0));
        assert_eq!(counts.series(NOW)[0].minutes, [0, 1]);
        counts.add_line(line, NOW);
        assert_eq!((counts.totals()[0].on_time, counts.total()), (1, 2));
    }
}
