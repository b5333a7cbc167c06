//! The history: what can be asked for after the fact, for ten days. Rows in the order of their time, pages, counts.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;
use twox_hash::XxHash3_64;

use super::event::Stored;
use crate::clock::{Millis, parse_instant};

/// How long the service keeps an event.
pub const KEPT_MS: Millis = 10 * 86_400_000;
/// The largest `pageSize`.
pub const PAGE_SIZE_MAX: usize = 200;
/// What the service takes when no `pageSize` is given.
pub const PAGE_SIZE_DEFAULT: usize = 25;

/// A row's place: the time that the history gives it, then the event's number.
pub(super) type Place = (Millis, u32);
/// Milliseconds of the simulator's own running time.
pub(super) type RunningMs = u64;
/// Never visible, until it is released.
pub(super) const HELD: RunningMs = u64::MAX;

struct Row {
    event: Stored,
    /// From when on it is visible.
    visible: RunningMs,
}

/// The rows in the order of their time.
#[derive(Default)]
pub(super) struct History(BTreeMap<Place, Row>);

/// A request's body, judged.
pub(super) struct Query {
    pub from: Millis,
    pub to: Millis,
    /// Empty: all definitions.
    pub ids: HashSet<String>,
    pub descending: bool,
    /// Of the whole body: a cursor belongs to it.
    fingerprint: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    interval: String,
    sort_order: Option<String>,
    event_definition_ids: Option<HashSet<String>>,
}

/// What can be seen now.
#[derive(Clone, Copy)]
pub(super) struct Sight {
    pub now: RunningMs,
    /// Whether an event at the very end of an interval belongs to it.
    pub end_included: bool,
    /// What is older is kept no longer.
    pub oldest: Millis,
}

impl Query {
    /// Reads a request's body.
    ///
    /// # Errors
    /// What the service says of a body that it does not take.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let body: Body = serde_json::from_slice(bytes).map_err(|e| format!("The request body is not valid: {e}"))?;
        let interval = body.interval.split_once('/');
        let interval = interval.and_then(|(from, to)| Some((parse_instant(from)?, parse_instant(to)?)));
        let (from, to) = interval.filter(|(from, to)| from <= to).ok_or("interval is not two ISO-8601 instants")?;
        let descending = match body.sort_order.as_deref().unwrap_or("DESC") {
            order if order.eq_ignore_ascii_case("asc") => false,
            order if order.eq_ignore_ascii_case("desc") => true,
            _ => return Err("sortOrder must be ASC or DESC".to_owned()),
        };
        let ids = body.event_definition_ids.unwrap_or_default();
        Ok(Self { from, to, ids, descending, fingerprint: XxHash3_64::oneshot(bytes) })
    }

    /// The place before everything that the query matches.
    pub fn start(&self) -> Place {
        if self.descending { (Millis::MAX, u32::MAX) } else { (0, 0) }
    }

    /// The cursor of what follows a place, for this query alone.
    pub fn cursor(&self, place: Place) -> String {
        format!("{}-{}-{:x}", place.0, place.1, self.fingerprint)
    }

    /// The place of a cursor; `None` for a text that is no cursor, or one of another query.
    pub fn place_of(&self, cursor: &str) -> Option<Place> {
        let mut parts = cursor.split('-');
        let place = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        (self.cursor(place) == cursor).then_some(place)
    }
}

impl History {
    pub fn insert(&mut self, created: Millis, event: Stored, visible: RunningMs) {
        self.0.insert((created, event.number), Row { event, visible });
    }

    /// The first instant from this one on at which no row of the event's content stands: rows that are alike to the
    /// millisecond would be one event to whoever reads them, however many were issued.
    pub fn free_from(&self, created: Millis, event: &Stored) -> Millis {
        let key = event.key();
        let rows = |at: Millis| self.0.range((at, 0)..=(at, u32::MAX));
        (created..).find(|at| !rows(*at).any(|(_, row)| row.event.key() == key)).unwrap_or(created)
    }

    /// Lets go of every row that was held.
    pub fn release(&mut self, now: RunningMs) {
        self.0.values_mut().filter(|row| row.visible == HELD).for_each(|row| row.visible = now);
    }

    /// Forgets what is older than this.
    pub fn prune(&mut self, oldest: Millis) {
        while self.0.first_key_value().is_some_and(|((created, _), _)| *created < oldest) {
            self.0.pop_first();
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// What the query matches and can be seen, from the oldest on; `after`: beyond this place in the asked order.
    fn matches(
        &self,
        query: &Query,
        after: Option<Place>,
        sight: Sight,
    ) -> impl DoubleEndedIterator<Item = (&Place, &Row)> {
        let mut low = (query.from.max(sight.oldest), 0);
        let mut high = (if sight.end_included { query.to } else { query.to.saturating_sub(1) }, u32::MAX);
        match after {
            Some((time, number)) if query.descending => high = high.min((time, number.saturating_sub(1))),
            Some((time, number)) => low = low.max((time, number.saturating_add(1))),
            None => {}
        }
        let range = (low <= high).then(|| self.0.range(low..=high)).into_iter().flatten();
        let asked = |row: &Row| query.ids.is_empty() || query.ids.contains(&row.event.template.event.definition);
        range.filter(move |(_, row)| row.visible <= sight.now && asked(row))
    }

    /// One page in the asked order, and the place after which the next one begins, if there is one.
    pub fn page(
        &self,
        query: &Query,
        after: Option<Place>,
        size: usize,
        sight: Sight,
    ) -> (Vec<(Millis, Stored)>, Option<Place>) {
        let rows = self.matches(query, after, sight);
        let mut found: Vec<(&Place, &Row)> =
            if query.descending { rows.rev().take(size + 1).collect() } else { rows.take(size + 1).collect() };
        let is_last = found.len() <= size;
        found.truncate(size);
        let next = found.last().map(|(place, _)| **place).filter(|_| !is_last);
        (found.into_iter().map(|(place, row)| (place.0, row.event.clone())).collect(), next)
    }

    /// How many events each definition has, in the order of the definitions' ids.
    pub fn counts(&self, query: &Query, sight: Sight) -> BTreeMap<&str, u64> {
        let mut counts = BTreeMap::new();
        for (_, row) in self.matches(query, None, sight) {
            *counts.entry(row.event.template.event.definition.as_str()).or_default() += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::definitions::Definition;
    use super::super::event::{Event, Template};
    use super::*;

    const SIGHT: Sight = Sight { now: 10, end_included: false, oldest: 0 };

    fn history(times: &[Millis]) -> History {
        let definition = Definition::new("AUDIOHOOK-0001", "", "");
        let template = Arc::new(Template::new(Event::numbered("AUDIOHOOK-0001"), &definition));
        let mut history = History::default();
        for (number, time_ms) in (1..).zip(times) {
            let event = Stored { time_ms: *time_ms, number, salt: number, template: template.clone() };
            history.insert(*time_ms, event, 0);
        }
        history
    }

    fn query(from: &str, to: &str, order: &str) -> Query {
        let body =
            format!("{{\"interval\":\"1970-01-01T00:00:{from}Z/1970-01-01T00:00:{to}Z\",\"sortOrder\":\"{order}\"}}");
        Query::parse(body.as_bytes()).unwrap()
    }

    fn walk(history: &History, query: &Query, size: usize) -> Vec<u32> {
        let (mut numbers, mut after) = (Vec::new(), None);
        loop {
            let (rows, next) = history.page(query, after, size, SIGHT);
            numbers.extend(rows.iter().map(|(_, event)| event.number));
            let Some(place) = next else { return numbers };
            after = query.place_of(&query.cursor(place));
        }
    }

    #[test]
    fn pages_hold_each_row_of_the_interval_once_in_the_asked_order() {
        let history = history(&[1000, 2000, 2000, 2999, 3000, 4000]);
        for size in 1..8 {
            assert_eq!(walk(&history, &query("02.000", "03.000", "ASC"), size), [2, 3, 4], "{size}");
            assert_eq!(walk(&history, &query("02.000", "04.000", "DESC"), size), [5, 4, 3, 2], "{size}");
        }
        let included = Sight { end_included: true, ..SIGHT };
        assert_eq!(history.page(&query("02.000", "03.000", "ASC"), None, 9, included).0.len(), 4);
    }

    #[test]
    fn a_cursor_belongs_to_its_query() {
        let (ascending, descending) = (query("00.000", "01.000", "ASC"), query("00.000", "01.000", "DESC"));
        let cursor = ascending.cursor((5, 1));
        assert_eq!(ascending.place_of(&cursor), Some((5, 1)));
        assert!(descending.place_of(&cursor).is_none());
        assert!(ascending.place_of("nonsense").is_none());
    }

    #[test]
    fn a_held_row_is_seen_and_counted_once_it_is_released() {
        let mut history = history(&[1, 2]);
        let definition = Definition::new("AUDIOHOOK-0002", "", "");
        let template = Arc::new(Template::new(Event::numbered("AUDIOHOOK-0002"), &definition));
        history.insert(3, Stored { time_ms: 3, number: 3, salt: 3, template }, HELD);
        let query = query("00.000", "01.000", "ASC");
        assert_eq!(history.counts(&query, SIGHT).len(), 1);
        history.release(11);
        assert_eq!(walk(&history, &query, 5).len(), 2, "not before its instant");
        assert_eq!(history.counts(&query, Sight { now: 11, ..SIGHT })["AUDIOHOOK-0002"], 1);
        history.prune(3);
        assert_eq!(history.len(), 1);
    }
}
