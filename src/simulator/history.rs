//! The history: what can be asked for after the fact, for ten days.
//!
//! Deals with: rows in the order of their time, pages and their cursors, counts. Must never: render a row or speak
//! HTTP; it gives what a page holds, and the verdict on a request's body.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;

use data_encoding::BASE64URL_NOPAD;
use serde_json::Value;

use crate::clock::{Millis, parse_instant};

use super::event::{Stored, mix};

/// How long the service keeps an event.
pub const KEPT_MS: Millis = 10 * 86_400_000;
/// The largest `pageSize`.
pub const PAGE_SIZE_MAX: usize = 200;
/// What the service takes when no `pageSize` is given.
pub const PAGE_SIZE_DEFAULT: usize = 25;

/// A row's place: the time that the history gives it, then the event's number.
type Place = (Millis, u32);

/// The row becomes visible at this instant of the simulator's own running time.
pub(super) type VisibleMs = u64;
/// Never, until it is released.
pub(super) const HELD: VisibleMs = u64::MAX;

struct Row {
    event: Stored,
    visible: VisibleMs,
}

/// The rows in the order of their time.
#[derive(Default)]
pub(super) struct History(BTreeMap<Place, Row>);

/// A request's body, judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query {
    pub from: Millis,
    pub to: Millis,
    /// Empty: all definitions.
    pub ids: HashSet<String>,
    pub descending: bool,
}

/// Where a page begins or ends, minted for one query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    place: Place,
    query: u64,
    pub minted: VisibleMs,
}

/// Which page is asked for.
#[derive(Clone, Copy)]
pub(super) enum Side {
    First,
    After(Cursor),
    Before(Cursor),
}

/// The page, in the asked order.
pub(super) struct Page {
    pub rows: Vec<(Millis, Stored)>,
    pub after: Option<Cursor>,
    pub before: Option<Cursor>,
}

impl Query {
    /// Reads a request's body.
    ///
    /// # Errors
    /// What the service says of a body that it does not take.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        let body: Value = serde_json::from_slice(body).map_err(|e| format!("The request body is not JSON: {e}"))?;
        let object = body.as_object().ok_or("The request body must be an object")?;
        let interval = object.get("interval").and_then(Value::as_str).ok_or("interval is required")?;
        let (from, to) = parse_interval(interval)
            .ok_or_else(|| format!("interval \"{interval}\" is not two ISO-8601 instants separated by a slash"))?;
        let descending = match object.get("sortOrder") {
            None | Some(Value::Null) => true,
            Some(Value::String(order)) if order.eq_ignore_ascii_case("asc") => false,
            Some(Value::String(order)) if order.eq_ignore_ascii_case("desc") => true,
            Some(_) => return Err("sortOrder must be ASC or DESC".to_owned()),
        };
        let ids = match object.get("eventDefinitionIds") {
            None | Some(Value::Null) => HashSet::new(),
            Some(Value::Array(ids)) => {
                let texts: Option<HashSet<String>> = ids.iter().map(|id| id.as_str().map(str::to_owned)).collect();
                texts.ok_or("eventDefinitionIds must be texts")?
            }
            Some(_) => return Err("eventDefinitionIds must be an array".to_owned()),
        };
        Ok(Self { from, to, ids, descending })
    }

    fn fingerprint(&self) -> u64 {
        let ids = self.ids.iter().map(|id| id.bytes().fold(0, |hash, b| mix(hash ^ u64::from(b))));
        let ids = ids.fold(0u64, u64::wrapping_add);
        mix(mix(self.from as u64 ^ mix(self.to as u64)) ^ ids ^ u64::from(self.descending))
    }

    fn asks_for(&self, event: &Stored) -> bool {
        self.ids.is_empty() || self.ids.contains(&event.template.event.definition)
    }

    /// A cursor before everything that the query matches.
    pub fn start(&self, minted: VisibleMs) -> Cursor {
        let place = if self.descending { (Millis::MAX, u32::MAX) } else { (Millis::MIN, 0) };
        Cursor { place, query: self.fingerprint(), minted }
    }
}

/// `FROM/TO`, both ISO 8601; an end before its beginning is not taken.
fn parse_interval(text: &str) -> Option<(Millis, Millis)> {
    let (from, to) = text.split_once('/')?;
    let (from, to) = (parse_instant(from)?, parse_instant(to)?);
    (from <= to).then_some((from, to))
}

impl Cursor {
    pub fn to_text(self) -> String {
        let mut bytes = Vec::with_capacity(28);
        bytes.extend_from_slice(&self.place.0.to_be_bytes());
        bytes.extend_from_slice(&self.place.1.to_be_bytes());
        bytes.extend_from_slice(&self.query.to_be_bytes());
        bytes.extend_from_slice(&self.minted.to_be_bytes());
        BASE64URL_NOPAD.encode(&bytes)
    }

    /// `None` for a text that is no cursor, or one of another query.
    pub fn parse(text: &str, query: &Query) -> Option<Self> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        let time = Millis::from_be_bytes(bytes.get(..8)?.try_into().ok()?);
        let number = u32::from_be_bytes(bytes.get(8..12)?.try_into().ok()?);
        let fingerprint = u64::from_be_bytes(bytes.get(12..20)?.try_into().ok()?);
        let minted = VisibleMs::from_be_bytes(bytes.get(20..28)?.try_into().ok()?);
        let cursor = Self { place: (time, number), query: fingerprint, minted };
        (bytes.len() == 28 && fingerprint == query.fingerprint()).then_some(cursor)
    }
}

impl History {
    pub fn insert(&mut self, created: Millis, event: Stored, visible: VisibleMs) {
        self.0.insert((created, event.number), Row { event, visible });
    }

    /// The first instant from this one on at which no row of the event's content stands: rows that are alike to the
    /// millisecond would be one event to whoever reads them, however many were issued.
    pub fn free_from(&self, created: Millis, event: &Stored) -> Millis {
        let mut key = None;
        let mut is_taken = |at: Millis| {
            self.0
                .range((at, 0)..=(at, u32::MAX))
                .any(|(_, row)| *key.get_or_insert_with(|| event.key()) == row.event.key())
        };
        (created..).find(|at| !is_taken(*at)).unwrap_or(created)
    }

    /// Lets go of every row that was held.
    pub fn release(&mut self, now: VisibleMs) {
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

    /// One page of what the query matches and what is visible now. `end_included`: an event at `to` belongs to it;
    /// `oldest`: what is older is kept no longer.
    pub fn page(
        &self,
        query: &Query,
        side: Side,
        size: usize,
        now: VisibleMs,
        end_included: bool,
        oldest: Millis,
    ) -> Page {
        let (mut low, mut high) = bounds(query, end_included, oldest);
        // `backward`: the walk goes against the asked order, from the cursor towards the page before it.
        let backward = matches!(side, Side::Before(_));
        let down = query.descending != backward;
        match side {
            Side::First => {}
            Side::After(cursor) | Side::Before(cursor) if down => high = high.min(before(cursor.place)),
            Side::After(cursor) | Side::Before(cursor) => low = low.max(after(cursor.place)),
        }
        let mut found: Vec<(&Place, &Row)> = Vec::with_capacity(size + 1);
        if low <= high {
            let range = self.0.range((Bound::Included(low), Bound::Included(high)));
            let wanted = |(_, row): &(&Place, &Row)| row.visible <= now && query.asks_for(&row.event);
            if down {
                found.extend(range.rev().filter(wanted).take(size + 1));
            } else {
                found.extend(range.filter(wanted).take(size + 1));
            }
        }
        let more = found.len() > size;
        found.truncate(size);
        if backward {
            found.reverse();
        }
        let mint = |place: &Place| Cursor { place: *place, query: query.fingerprint(), minted: now };
        let (first, last) = (found.first().map(|(p, _)| mint(p)), found.last().map(|(p, _)| mint(p)));
        Page {
            after: last.filter(|_| more || backward),
            before: first.filter(|_| if backward { more } else { !matches!(side, Side::First) }),
            rows: found.into_iter().map(|(place, row)| (place.0, row.event.clone())).collect(),
        }
    }

    /// How many events each definition has, in the order of the definitions' ids.
    pub fn counts(&self, query: &Query, now: VisibleMs, end_included: bool, oldest: Millis) -> BTreeMap<String, u64> {
        let (low, high) = bounds(query, end_included, oldest);
        let mut counts: HashMap<&str, u64> = HashMap::new();
        if low <= high {
            for row in self.0.range((Bound::Included(low), Bound::Included(high))).map(|(_, row)| row) {
                if row.visible <= now && query.asks_for(&row.event) {
                    *counts.entry(row.event.template.event.definition.as_str()).or_default() += 1;
                }
            }
        }
        counts.into_iter().map(|(id, n)| (id.to_owned(), n)).collect()
    }
}

/// The first and the last place of the interval, both included.
fn bounds(query: &Query, end_included: bool, oldest: Millis) -> (Place, Place) {
    let last = if end_included { query.to } else { query.to.saturating_sub(1) };
    ((query.from.max(oldest), 0), (last, u32::MAX))
}

fn after(place: Place) -> Place {
    if place.1 == u32::MAX { (place.0.saturating_add(1), 0) } else { (place.0, place.1 + 1) }
}

fn before(place: Place) -> Place {
    if place.1 == 0 { (place.0.saturating_sub(1), u32::MAX) } else { (place.0, place.1 - 1) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::definitions::Definition;
    use super::super::event::{Event, Template};
    use super::*;

    fn history(times: &[Millis]) -> History {
        let definition = Arc::new(Definition::new("AUDIOHOOK-0001", "", ""));
        let template = Arc::new(Template::new(Event::numbered("AUDIOHOOK-0001"), definition, true));
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
        let (mut numbers, mut side) = (Vec::new(), Side::First);
        loop {
            let page = history.page(query, side, size, 0, false, 0);
            numbers.extend(page.rows.iter().map(|(_, event)| event.number));
            match page.after {
                Some(cursor) => side = Side::After(Cursor::parse(&cursor.to_text(), query).unwrap()),
                None => return numbers,
            }
        }
    }

    #[test]
    fn pages_hold_each_row_of_the_interval_once_in_the_asked_order() {
        let history = history(&[1000, 2000, 2000, 2999, 3000, 4000]);
        for size in 1..8 {
            assert_eq!(walk(&history, &query("02.000", "03.000", "ASC"), size), [2, 3, 4], "{size}");
            assert_eq!(walk(&history, &query("02.000", "04.000", "DESC"), size), [5, 4, 3, 2], "{size}");
        }
        assert_eq!(history.page(&query("02.000", "03.000", "ASC"), Side::First, 9, 0, true, 0).rows.len(), 4);
    }

    #[test]
    fn the_page_before_a_cursor_is_the_one_that_led_to_it() {
        let history = history(&[1, 2, 3, 4, 5]);
        for (order, expected) in [("ASC", [1, 2]), ("DESC", [5, 4])] {
            let query = query("00.000", "01.000", order);
            let first = history.page(&query, Side::First, 2, 0, false, 0);
            assert!(first.before.is_none());
            let second = history.page(&query, Side::After(first.after.unwrap()), 2, 0, false, 0);
            let back = history.page(&query, Side::Before(second.before.unwrap()), 2, 0, false, 0);
            let numbers: Vec<u32> = back.rows.iter().map(|(_, event)| event.number).collect();
            assert_eq!(numbers, expected);
            assert!(back.before.is_none() && back.after.is_some());
        }
    }

    #[test]
    fn a_cursor_belongs_to_its_query() {
        let (ascending, descending) = (query("00.000", "01.000", "ASC"), query("00.000", "01.000", "DESC"));
        let text = ascending.start(5).to_text();
        assert_eq!(Cursor::parse(&text, &ascending).unwrap().minted, 5);
        assert!(Cursor::parse(&text, &descending).is_none());
        assert!(Cursor::parse("nonsense", &ascending).is_none());
    }

    #[test]
    fn a_bad_body_is_refused_with_its_reason() {
        for (body, reason) in [
            ("", "not JSON"),
            ("[]", "must be an object"),
            ("{}", "interval is required"),
            ("{\"interval\":\"today\"}", "two ISO-8601 instants"),
            ("{\"interval\":\"2026-01-02T00:00:00Z/2026-01-01T00:00:00Z\"}", "two ISO-8601 instants"),
            ("{\"interval\":\"2026-01-01T00:00:00Z/2026-01-02T00:00:00Z\",\"sortOrder\":\"up\"}", "sortOrder"),
            ("{\"interval\":\"2026-01-01T00:00:00Z/2026-01-02T00:00:00Z\",\"eventDefinitionIds\":\"A\"}", "array"),
        ] {
            let refusal = Query::parse(body.as_bytes()).unwrap_err();
            assert!(refusal.contains(reason), "{body}: {refusal}");
        }
    }

    #[test]
    fn a_held_row_is_seen_and_counted_once_it_is_released() {
        let mut history = history(&[1, 2]);
        let definition = Arc::new(Definition::new("AUDIOHOOK-0002", "", ""));
        let template = Arc::new(Template::new(Event::numbered("AUDIOHOOK-0002"), definition, false));
        history.insert(3, Stored { time_ms: 3, number: 3, salt: 3, template }, HELD);
        let query = query("00.000", "01.000", "ASC");
        assert_eq!(history.counts(&query, 10, false, 0).len(), 1);
        history.release(10);
        assert_eq!(walk(&history, &query, 5).len(), 2, "not before its instant");
        assert_eq!(history.counts(&query, 10, false, 0)["AUDIOHOOK-0002"], 1);
        history.prune(3);
        assert_eq!(history.len(), 1);
    }
}
