//! `GET /events`: the newest records, as they stand in the file.
//!
//! Deals with: the filters and the limit. Must never: change a record, or hold the lock on the recent ones for longer
//! than the copy of one takes.

use std::borrow::Cow;

use serde::Deserialize;

use super::body::Body;
use super::query::{Pairs, Value};
use crate::status::{RECENT_MAX, Status};

/// Records in an answer when no limit is given.
const LIMIT_DEFAULT: usize = 50;

/// What is asked for.
#[derive(Debug, Default)]
pub struct Wanted {
    /// [`RECENT_MAX`] at most.
    limit: Option<usize>,
    event_id: Option<Value>,
    conversation_id: Option<Value>,
    entity_id: Option<Value>,
    /// Only records of this number and above: what an earlier answer called `next`.
    after: Option<u64>,
}

impl Wanted {
    /// Of a name given twice the last counts; names that mean nothing here are left alone.
    ///
    /// # Errors
    /// A sentence on the value that is none.
    pub fn parse(pairs: Pairs) -> Result<Self, String> {
        let mut wanted = Self::default();
        for (name, value) in pairs {
            match name.as_str() {
                "limit" => {
                    let limit = whole_number(&value.text).ok_or_else(|| {
                        format!("limit is not a whole number; {RECENT_MAX} records are given at most")
                    })?;
                    wanted.limit = Some(limit.min(RECENT_MAX as u64) as usize);
                }
                "after" => wanted.after = Some(whole_number(&value.text).ok_or("after is not a number")?),
                "event_id" => wanted.event_id = Some(value),
                "conversation_id" => wanted.conversation_id = Some(value),
                "entity_id" => wanted.entity_id = Some(value),
                _ => {}
            }
        }
        Ok(wanted)
    }

    fn filters(&self) -> bool {
        self.event_id.is_some() || self.conversation_id.is_some() || self.entity_id.is_some()
    }

    fn matches(&self, line: &[u8]) -> bool {
        let Some(fields) = fields(line) else { return false };
        let holds = |wanted: &Option<Value>, field: &Option<Cow<'_, str>>| {
            wanted.as_ref().is_none_or(|value| value.is(field.as_deref().unwrap_or_default()))
        };
        holds(&self.event_id, &fields.event_id)
            && holds(&self.conversation_id, &fields.conversation_id)
            && holds(&self.entity_id, &fields.entity_id)
    }
}

/// Digits alone; more of them than a u64 holds are as many as it holds.
fn whole_number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// The fields that can be filtered by; null and absent ones are `None`.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, default)]
    event_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    conversation_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    entity_id: Option<Cow<'a, str>>,
}

/// Reads a record's top level; what stands below it is skipped at any depth.
fn fields(line: &[u8]) -> Option<Fields<'_>> {
    serde_json::from_slice(line).ok()
}

/// The document. A reader that gave `after`, as the page does, is told what to give the next time, and the health: one
/// request a turn, whose answer is 200 however bad things are.
pub fn document(status: &Status, wanted: &Wanted) -> Body {
    let recent = &status.recent;
    let kept = recent.numbers();
    let oldest = kept.start.max(wanted.after.unwrap_or(0));
    let limit = wanted.limit.unwrap_or(LIMIT_DEFAULT);
    let mut numbers: Vec<u64> = if wanted.filters() {
        // Each line is copied out first: reading one takes longer than the writer should wait.
        let mut copy = Vec::new();
        let matches = |number: &u64| {
            copy.clear();
            recent.with(*number, |line| copy.extend_from_slice(line)).is_some() && wanted.matches(&copy)
        };
        (oldest..kept.end).rev().filter(matches).take(limit).collect()
    } else {
        (oldest..kept.end).rev().take(limit).collect()
    };
    numbers.reverse();
    let mut body = Body::default();
    body.push(b"{\"recent_events\":[");
    let mut first = true;
    for number in numbers {
        recent.with(number, |line| {
            if !first {
                body.push(b",");
            }
            first = false;
            body.push(line);
        });
    }
    body.push(b"]");
    if wanted.after.is_some() {
        body.push(format!(",\"next\":{},\"health\":", kept.end).as_bytes());
        body.push(&serde_json::to_vec(&status.health()).unwrap_or_default());
    }
    body.push(b"}");
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::http::query;

    fn ask(status: &Status, target: &str) -> serde_json::Value {
        let wanted = Wanted::parse(query::split(target).unwrap().1).unwrap();
        serde_json::from_slice(&text(document(status, &wanted))).unwrap()
    }

    fn text(body: Body) -> Vec<u8> {
        Vec::from(body.into_pieces()).concat()
    }

    fn ids(answer: &serde_json::Value) -> Vec<u64> {
        answer["recent_events"].as_array().unwrap().iter().map(|e| e["n"].as_u64().unwrap()).collect()
    }

    fn empty() -> Status {
        Status::new(Clock::system(), false)
    }

    fn filled(count: usize) -> Status {
        let status = empty();
        let lines: Vec<String> = (0..count)
            .map(|n| {
                format!(
                    r#"{{"n":{n},"event_id":"AUDIOHOOK-000{}","conversation_id":{},"entity_id":"a\"b é+{}"}}"#,
                    n % 3,
                    if n % 2 == 0 { "null".into() } else { format!("\"c{n}\"") },
                    n % 5
                )
            })
            .collect();
        status.recent.extend(lines.iter().map(String::as_bytes));
        status
    }

    #[test]
    fn the_newest_come_oldest_first_up_to_the_limit() {
        let status = filled(1200);
        assert_eq!(ids(&ask(&status, "/events")), (1150..1200).collect::<Vec<u64>>());
        assert_eq!(ids(&ask(&status, "/events?limit=2")), [1198, 1199]);
        assert_eq!(ids(&ask(&status, "/events?limit=0")), [0u64; 0]);
        assert_eq!(ids(&ask(&status, "/events?limit=99999999999999999999")).len(), 1000);
        assert_eq!(ids(&ask(&filled(3), "/events?limit=1000")), [0, 1, 2]);
        assert_eq!(text(document(&empty(), &Wanted::default())), b"{\"recent_events\":[]}");
    }

    #[test]
    fn filters_are_exact_and_go_together() {
        let status = filled(1200);
        assert_eq!(ids(&ask(&status, "/events?event_id=AUDIOHOOK-0001&limit=2")), [1195, 1198]);
        assert_eq!(ids(&ask(&status, "/events?event_id=AUDIOHOOK-000")), [0u64; 0]);
        assert_eq!(ids(&ask(&status, "/events?conversation_id=c901")), [901]);
        assert_eq!(ids(&ask(&status, "/events?conversation_id=&limit=1")), [1198]);
        assert_eq!(ids(&ask(&status, "/events?entity_id=a%22b%20%C3%A9%2B4&limit=1")), [1199]);
        assert_eq!(ids(&ask(&status, "/events?entity_id=a%22b+%C3%A9%2B4&event_id=AUDIOHOOK-0001&limit=1")), [1189]);
    }

    #[test]
    fn a_reader_can_ask_for_what_is_newer() {
        let status = filled(3);
        let first = ask(&status, "/events?after=0&limit=1000");
        assert_eq!((ids(&first), first["next"].as_u64()), (vec![0, 1, 2], Some(3)));
        let none = ask(&status, "/events?after=3");
        assert_eq!((ids(&none), none["next"].as_u64()), (vec![], Some(3)));
        status.recent.extend([&br#"{"n":3}"#[..]].into_iter());
        assert_eq!(ids(&ask(&status, "/events?after=3")), [3]);
        assert_eq!(ask(&status, "/events?after=3")["health"]["status"], "degraded");
        assert_eq!(ask(&status, "/events").as_object().map(|o| o.len()), Some(1));
    }

    #[test]
    fn bad_values_are_refused() {
        for query in ["limit=", "limit=-1", "limit=1.5", "limit=x", "limit=%2B1", "after=x", "limit=5&limit=y"] {
            assert!(Wanted::parse(query::split(&format!("/?{query}")).unwrap().1).is_err(), "{query}");
        }
    }

    #[test]
    fn a_record_is_shown_and_found_however_deep_it_nests() {
        let status = empty();
        let line = format!("{{\"event_id\":\"E\",\"raw_event\":{}{},\"n\":1e400}}", "[".repeat(5000), "]".repeat(5000));
        status.recent.extend([line.as_bytes()].into_iter());
        let wanted = Wanted::parse(query::split("/?event_id=E").unwrap().1).unwrap();
        let body = text(document(&status, &wanted));
        assert_eq!(body, [b"{\"recent_events\":[", line.as_bytes(), b"]}"].concat());
    }
}
