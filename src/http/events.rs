//! `GET /events`: the newest records, byte for byte as in the file.

use super::body::Body;
use super::query::{Pairs, Value};
use crate::event::{Fields, text};
use crate::status::{Line, RECENT_MAX, Status};

/// Records in a response when the query has no limit.
const LIMIT_DEFAULT: usize = 50;

/// The fields that records can be filtered by.
const FILTERS: [&str; 4] = ["id", "event_id", "conversation_id", "entity_id"];

/// Which records to return.
#[derive(Debug)]
pub struct Filter {
    /// At most [`RECENT_MAX`].
    limit: usize,
    /// Names of fields and the values that must match.
    fields: Vec<(String, Value)>,
}

impl Filter {
    /// The last `limit` counts. Unknown names are ignored.
    ///
    /// # Errors
    /// When a `limit` is not a whole number: the message for the client.
    pub fn parse(mut pairs: Pairs) -> Result<Self, String> {
        let mut limit = LIMIT_DEFAULT;
        for (_, value) in pairs.iter().filter(|(name, _)| name == "limit") {
            let number = whole_number(&value.text);
            let number = number
                .ok_or_else(|| format!("limit is not a whole number; at most {RECENT_MAX} records are returned"))?;
            limit = number.min(RECENT_MAX as u64) as usize;
        }
        pairs.retain(|(name, _)| FILTERS.contains(&name.as_str()));
        Ok(Self { limit, fields: pairs })
    }

    fn matches(&self, line: &[u8]) -> bool {
        self.fields.is_empty()
            || Fields::read(line)
                .is_some_and(|fields| self.fields.iter().all(|(name, value)| value.is(&text(fields.get(name)))))
    }
}

/// Parses digits only; a number above `u64::MAX` becomes `u64::MAX`.
pub fn whole_number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// `{"recent_events":[…]}`, oldest first.
pub fn document(status: &Status, filter: &Filter) -> Body {
    let newest_first = status.recent.snapshot().lines.into_iter().rev();
    let mut lines: Vec<Line> = newest_first.filter(|line| filter.matches(line)).take(filter.limit).collect();
    let comma = Line::new(b",".to_vec());
    let mut body = Body::from("{\"recent_events\":[");
    if let Some(first) = lines.pop() {
        body.push(first);
    }
    for line in lines.into_iter().rev() {
        body.push(comma.clone());
        body.push(line);
    }
    body.push(Line::new(b"]}".to_vec()));
    body
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::clock::Clock;
    use crate::http::query;

    fn parse(target: &str) -> Result<Filter, String> {
        Filter::parse(query::split(target).unwrap().1)
    }

    fn ask(status: &Status, target: &str) -> Vec<u64> {
        let mut bytes = Vec::new();
        document(status, &parse(target).unwrap()).read_to_end(&mut bytes).unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        answer["recent_events"].as_array().unwrap().iter().map(|e| e["n"].as_u64().unwrap()).collect()
    }

    fn filled(count: usize) -> Status {
        let status = Status::new(Clock::system(), false);
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
        assert_eq!(ask(&status, "/events"), (1150..1200).collect::<Vec<u64>>());
        assert_eq!(ask(&status, "/events?limit=2"), [1198, 1199]);
        assert_eq!(ask(&status, "/events?limit=0"), [0u64; 0]);
        assert_eq!(ask(&status, "/events?limit=99999999999999999999").len(), 1000);
        assert_eq!(ask(&filled(3), "/events?limit=1000"), [0, 1, 2]);
        assert_eq!(ask(&filled(0), "/events"), [0u64; 0]);
    }

    #[test]
    fn filters_are_exact_and_go_together() {
        let status = filled(1200);
        assert_eq!(ask(&status, "/events?event_id=AUDIOHOOK-0001&limit=2"), [1195, 1198]);
        assert_eq!(ask(&status, "/events?event_id=AUDIOHOOK-000"), [0u64; 0]);
        assert_eq!(ask(&status, "/events?conversation_id=c901"), [901]);
        assert_eq!(ask(&status, "/events?conversation_id=&limit=1"), [1198]);
        assert_eq!(ask(&status, "/events?entity_id=a%22b%20%C3%A9%2B4&limit=1"), [1199]);
        assert_eq!(ask(&status, "/events?entity_id=a%22b+%C3%A9%2B4&event_id=AUDIOHOOK-0001&limit=1"), [1189]);
    }

    #[test]
    fn bad_values_are_refused() {
        for query in ["limit=", "limit=-1", "limit=1.5", "limit=x", "limit=%2B1", "limit=5&limit=y"] {
            assert!(parse(&format!("/?{query}")).is_err(), "{query}");
        }
    }
}
