//! The history: events of the last ten days, queried in pages ordered by time, and counted.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;
use twox_hash::XxHash3_64;

use super::event::Stored;
use crate::clock::{Millis, parse_instant};

/// How long the service keeps an event.
pub const KEPT_MS: Millis = 10 * 86_400_000;
/// The largest `pageSize`.
pub const PAGE_SIZE_MAX: usize = 200;
/// The default `pageSize`.
pub const PAGE_SIZE_DEFAULT: usize = 25;

/// A row's position: its time in the history, then the event's number.
pub(super) type Place = (Millis, u32);
/// Milliseconds since the simulator started.
pub(super) type RunningMs = u64;
/// Not visible until released.
pub(super) const HELD: RunningMs = u64::MAX;

struct Row {
    event: Stored,
    /// When the row becomes visible.
    visible: RunningMs,
}

/// The rows, ordered by time.
#[derive(Default)]
pub(super) struct History(BTreeMap<Place, Row>);

/// A parsed request body.
pub(super) struct Query {
    pub from: Millis,
    pub to: Millis,
    /// Empty: all definitions.
    pub ids: HashSet<String>,
    pub descending: bool,
    /// A hash of the whole body; cursors are valid for one body only.
    fingerprint: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    interval: String,
    sort_order: Option<String>,
    event_definition_ids: Option<HashSet<String>>,
}

/// Determines which rows are visible.
#[derive(Clone, Copy)]
pub(super) struct Sight {
    pub now: RunningMs,
    /// Whether an interval includes an event at its very end.
    pub end_included: bool,
    /// Older rows have expired.
    pub oldest: Millis,
}

impl Query {
    /// Parses a request body.
    ///
    /// # Errors
    /// The service's error message for an invalid body.
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

    /// The position before all matching rows.
    pub fn start(&self) -> Place {
        if self.descending { (Millis::MAX, u32::MAX) } else { (0, 0) }
    }

    /// The cursor for the rows after a position, valid for this query only.
    pub fn cursor(&self, place: Place) -> String {
        format!("{}-{}-{:x}", place.0, place.1, self.fingerprint)
    }

    /// The position of a cursor; `None` if it is invalid or belongs to another query.
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

    /// The first instant from `created` on without a row of the same content. Rows with the same content and time would
    /// be the same event to a client.
    pub fn free_from(&self, created: Millis, event: &Stored) -> Millis {
        let key = event.key();
        let rows = |at: Millis| self.0.range((at, 0)..=(at, u32::MAX));
        (created..).find(|at| !rows(*at).any(|(_, row)| row.event.key() == key)).unwrap_or(created)
    }

    /// Makes every withheld row visible.
    pub fn release(&mut self, now: RunningMs) {
        self.0.values_mut().filter(|row| row.visible == HELD).for_each(|row| row.visible = now);
    }

    /// Removes rows older than `oldest`.
    pub fn prune(&mut self, oldest: Millis) {
        while self.0.first_key_value().is_some_and(|((created, _), _)| *created < oldest) {
            self.0.pop_first();
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The visible rows that match the query, the oldest first, limited to those after `after` in the requested order.
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

    /// A page in the requested order, and the position after which the next page begins, if there is one.
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

    /// The number of events of each definition, ordered by definition id.
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
    fn pages_contain_each_row_of_the_interval_once_in_the_requested_order() {
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
    fn a_withheld_row_is_visible_and_counted_after_its_release() {
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
