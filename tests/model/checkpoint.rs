//! The checkpoint: "everything up to here was given" is never said too early, whatever the service answers, and is said of
//! the whole span in the end. What the service takes no request for is passed over, said, and no more than need be.

use std::collections::BTreeSet;
use std::time::Instant;

use audiohook_collector::clock::{Millis, format_millis, parse_instant};
use audiohook_collector::dedup::rows::Span;
use audiohook_collector::genesys::error::{ApiError, Kind};
use audiohook_collector::genesys::history::{History, Next, Read};
use audiohook_collector::message::{HISTORY_KEPT_MS, Purpose};
use proptest::prelude::*;
use serde_json::{Value, json};

const TO: Millis = 1_795_430_640_000;
const HOUR: Millis = 3_600_000;
/// Requests after which a read that met a few faults must have come to its end.
const REQUESTS_MAX: usize = 40_000;
/// Intervals of different length and place that a long span without faults may take, whatever the limits on definitions.
const INTERVALS_MAX: usize = 16;

/// Pages that are repeated by mistake, in all. One that comes again and again under its own cursor is the last one: nobody
/// could tell it from a last page that names itself.
const REPEATED_MAX: usize = 3;

/// How one request goes.
#[derive(Clone, Copy, Debug)]
enum Going {
    Well,
    Unavailable,
    Throttled,
    Nonsense,
    /// A cursor that was good is refused.
    CursorExpired,
    /// A page comes again, and names itself as the next one.
    PageRepeated,
    /// A page without rows that names a next one.
    PageEmpty,
}

/// A service, and what becomes of the first requests to it; all others go well.
#[derive(Clone, Debug)]
struct Service {
    span_ms: Millis,
    /// Definition and time of each event.
    events: BTreeSet<(usize, Millis)>,
    definitions: usize,
    /// One that it does not know, though it was asked for.
    unknown: Option<usize>,
    /// One that always fails while the others do not, and how.
    failing: Option<(usize, Kind)>,
    /// Every so many rows stand behind the row that follows them.
    late_rows: Option<usize>,
    longest_ms: Millis,
    ids_max: usize,
    page_size: usize,
    is_end_included: bool,
    /// Pages without rows before the first, each with a cursor of its own.
    empty_pages: usize,
    /// The span begins where the service's memory ends, and what begins sooner than this after it is refused.
    too_old_ms: Option<Millis>,
    goings: Vec<Going>,
}

fn service() -> impl Strategy<Value = Service> {
    let going = prop_oneof![
        4 => Just(Going::Well),
        1 => Just(Going::Unavailable),
        1 => Just(Going::Throttled),
        1 => Just(Going::Nonsense),
        1 => Just(Going::CursorExpired),
        1 => Just(Going::PageRepeated),
        1 => Just(Going::PageEmpty),
    ];
    let longest = prop_oneof![3 => Just(100 * HOUR), 1 => Just(7 * HOUR), 1 => Just(HOUR), 1 => Just(HOUR / 4)];
    let event = || (0usize..4, 0i64..=1_000);
    // Many, so that a piece has dozens of pages.
    let events = prop_oneof![
        39 => prop::collection::btree_set(event(), 0..12),
        1 => prop::collection::btree_set(event(), 120..220),
    ];
    let kind =
        prop_oneof![Just(Kind::Network), Just(Kind::Unavailable(None)), Just(Kind::Gone), Just(Kind::Refused(409))];
    let odd = (prop::option::weighted(0.3, (0usize..6, kind)), prop::option::weighted(0.3, 2usize..60));
    let shape = (1usize..5, prop::option::of(0usize..6), longest, 1usize..5, 1usize..5, any::<bool>());
    let empty_pages = prop_oneof![9 => Just(0), 1 => 1usize..25];
    let too_old = prop::option::weighted(0.2, prop_oneof![Just(HOUR / 60), Just(HOUR / 6), Just(3 * HOUR)]);
    let span = prop_oneof![Just(HOUR / 60), Just(HOUR), Just(30 * HOUR)];
    (span, events, shape, (empty_pages, too_old, odd), prop::collection::vec(going, 0..12)).prop_map(
        |(span_ms, events, shape, (empty_pages, too_old, (failing, late_rows)), goings)| {
            let (definitions, unknown, longest_ms, ids_max, page_size, is_end_included) = shape;
            let mut repeated = 0;
            let goings = goings.into_iter().map(|going| match going {
                Going::PageRepeated if repeated == REPEATED_MAX => Going::Well,
                Going::PageRepeated => {
                    repeated += 1;
                    going
                }
                _ => going,
            });
            Service {
                span_ms,
                // Thousandths of the span, its ends among them.
                events: events
                    .into_iter()
                    .map(|(id, at)| (id % definitions, TO - span_ms + span_ms * at / 1_000))
                    .collect(),
                definitions,
                unknown: unknown.filter(|id| *id < definitions && definitions > 1),
                failing: failing.filter(|(id, _)| *id < definitions && definitions > 2),
                late_rows,
                longest_ms,
                ids_max,
                page_size,
                is_end_included,
                empty_pages,
                // What is left of a short span must be taken.
                too_old_ms: too_old.filter(|_| span_ms == 30 * HOUR),
                goings: goings.collect(),
            }
        },
    )
}

fn id(number: usize) -> String {
    format!("AUDIOHOOK-{number:04}")
}

impl Service {
    /// The answer to this request.
    fn answer(&self, going: Going, cursor: Option<&str>, body: &str) -> Result<String, ApiError> {
        let fail = |kind| Err(ApiError::new(kind, "read the history", "a model"));
        let asked: Value = serde_json::from_str(body).unwrap();
        let (from, to) = asked["interval"].as_str().unwrap().split_once('/').unwrap();
        let (from, to) = (parse_instant(from).unwrap(), parse_instant(to).unwrap());
        let ids: Vec<usize> = (0..self.definitions)
            .filter(|number| asked["eventDefinitionIds"].as_array().unwrap().iter().any(|asked| *asked == *id(*number)))
            .collect();
        let is_unknown = self.unknown.is_some_and(|unknown| ids.contains(&unknown));
        let is_too_old = self.too_old_ms.is_some_and(|ms| from < TO - self.span_ms + ms);
        if to - from > self.longest_ms || ids.len() > self.ids_max || is_unknown || is_too_old {
            return fail(Kind::Refused(400));
        }
        if let Some((_, kind)) = self.failing.filter(|(failing, _)| ids.contains(failing)) {
            return fail(kind);
        }
        match going {
            Going::Unavailable => return fail(Kind::Unavailable(None)),
            Going::Throttled => return fail(Kind::Throttled(None)),
            Going::Nonsense => return Ok("<html>".to_owned()),
            Going::CursorExpired if cursor.is_some() => return fail(Kind::Refused(400)),
            _ => {}
        }
        let mut rows: Vec<(usize, Millis)> = self
            .events
            .iter()
            .filter(|(id, at)| ids.contains(id) && *at >= from && (*at < to || self.is_end_included && *at == to))
            .copied()
            .collect();
        rows.sort_by_key(|(_, at)| *at);
        if let Some(every) = self.late_rows {
            rows.chunks_exact_mut(every).for_each(|rows| rows.swap(every - 2, every - 1));
        }
        // `?after=OFFSET` and how many empty pages stood before it.
        let (offset, empty) = cursor.map_or((0, 0), |cursor| {
            let (offset, empty) = cursor.rsplit_once("after=").unwrap().1.split_once('.').unwrap();
            (offset.parse::<usize>().unwrap(), empty.parse::<usize>().unwrap())
        });
        let next = |offset: usize, empty: usize| format!("/api/v2/usage/events/query?after={offset}.{empty}");
        let page: &[(usize, Millis)] = match going {
            Going::PageEmpty => &[],
            _ if offset == 0 && empty < self.empty_pages => &[],
            _ => &rows[offset.min(rows.len())..(offset + self.page_size).min(rows.len())],
        };
        let end = offset + page.len();
        let next = match going {
            Going::PageEmpty => Some(next(offset, empty + 1)),
            // An empty page that names its own cursor is the last one.
            Going::PageRepeated if !page.is_empty() => Some(next(offset, empty)),
            _ if offset == 0 && empty < self.empty_pages => Some(next(0, empty + 1)),
            _ => (end < rows.len()).then(|| next(end, 0)),
        };
        let entities: Vec<Value> = page
            .iter()
            .map(|(number, at)| json!({ "eventDefinition": { "id": id(*number) }, "dateCreated": format_millis(*at) }))
            .collect();
        Ok(json!({ "entities": entities, "nextUri": next }).to_string())
    }
}

#[test]
fn up_to_the_checkpoint_everything_was_given_and_the_end_is_reached() {
    super::run(service(), |service| {
        let from = TO - service.span_ms;
        let mut history = History::new("https://api.example", u32::MAX);
        let now = Instant::now();
        let ids: Vec<String> = (0..service.definitions).map(id).collect();
        let span = Span { from, to: TO };
        history.begin(Read { ids: ids.into(), span, until: TO, purpose: Purpose::CatchUp }, now);
        let mut given: BTreeSet<(usize, Millis)> = BTreeSet::new();
        let mut goings = service.goings.iter().copied();
        // Behind this everything is to be given.
        let mut taken_from = from;
        let (mut intervals, mut left_out) = (BTreeSet::new(), BTreeSet::new());
        let service_now = if service.too_old_ms.is_some() { from + HISTORY_KEPT_MS } else { TO };
        for _ in 0..REQUESTS_MAX {
            let Next::Ask { cursor, body, .. } = history.next(now, service_now) else { break };
            intervals.insert(serde_json::from_str::<Value>(&body).unwrap()["interval"].to_string());
            let answer = service.answer(goings.next().unwrap_or(Going::Well), cursor.as_deref(), &body);
            let taken = history.take(answer, TO);
            if let Some(page) = &taken.page {
                for row in &page.rows {
                    let row: Value = serde_json::from_str(&page.body[row.clone()]).unwrap();
                    let number = row["eventDefinition"]["id"].as_str().unwrap()["AUDIOHOOK-".len()..].parse().unwrap();
                    given.insert((number, parse_instant(row["dateCreated"].as_str().unwrap()).unwrap()));
                }
            }
            if let Some((_, to)) = taken.skipped {
                let needed = service.too_old_ms.unwrap_or(0);
                prop_assert!(to - from <= 2 * needed + HOUR / 3, "{} s are passed over", (to - from) / 1000);
                taken_from = to;
            } else if service.too_old_ms.is_some() {
                // The minute that the service may forget at any time is not asked for.
                taken_from = taken_from.max(from + HOUR / 60);
            }
            if let Some(up_to) = taken.read_up_to {
                let read = taken.done.as_ref().map(|read| &read.ids).or(history.ids()).unwrap();
                let missing = service.events.iter().find(|(number, at)| {
                    *at < up_to && *at >= taken_from && read.contains(&id(*number)) && !given.contains(&(*number, *at))
                });
                prop_assert_eq!(missing, None, "missing at a checkpoint of {}", up_to - from);
            }
            left_out.extend(taken.left_out.into_iter().map(|(id, _)| id));
            if let Some(read) = taken.done {
                prop_assert_eq!(taken.read_up_to, Some(TO));
                prop_assert_eq!(read.ids.len() + left_out.len(), service.definitions, "{:?} are left out", left_out);
                let is_odd = service.unknown.is_some() || service.failing.is_some() || service.too_old_ms.is_some();
                let is_plain = service.goings.is_empty() && !is_odd;
                if is_plain && service.longest_ms == 100 * HOUR {
                    // A piece of too many pages is begun anew and shorter.
                    let intervals_max = INTERVALS_MAX + service.events.len() / 10;
                    prop_assert!(intervals.len() <= intervals_max, "{} intervals", intervals.len());
                }
                return Ok(());
            }
        }
        prop_assert!(false, "it does not come to its end");
        Ok(())
    });
}
