//! `GET /live`: the page requests it every two seconds. The first response holds the counts for the charts and a short
//! row for each recent event. Later ones (`?since=`) hold only the new rows. The status is 200 even when the health is
//! `unhealthy`. This interface is private to the page and may change with it.

use serde::Serialize;
use serde_json::value::RawValue;

use super::events::whole_number;
use super::query::Pairs;
use crate::clock::Millis;
use crate::event::{EVENT_CODES, EventCode, FieldText, Fields};
use crate::status::{Health, Line, Series, Status};

/// Maximum length of a value in a row. The page requests the whole record when the user opens it.
const VALUE_BYTES_MAX: usize = 400;
/// Length in characters that a longer value is cut to.
const CUT_CHARS: usize = 160;

#[derive(Serialize)]
struct Live {
    health: Health,
    /// The value of `since` for the next request.
    next: u64,
    /// Number of events in the counts. The page compares it with its own count.
    total: u64,
    /// Whether the counts of earlier runs are complete.
    is_loaded: bool,
    /// Whether records older than the first row were dropped from memory.
    has_older: bool,
    rows: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    whole: Option<Whole>,
}

/// The part that only a first response has.
#[derive(Serialize)]
struct Whole {
    /// The reference time for the ages in `series`, in milliseconds since 1970.
    at: Millis,
    series: Vec<Series>,
    codes: &'static [EventCode],
}

/// The values of [`Fields`], in the order of the page's `FIELDS`; `null` for a missing one.
type Row = [Option<Box<RawValue>>; 11];

/// # Errors
/// When `since` is not a whole number: the message for the client.
pub fn document(status: &Status, pairs: &Pairs) -> Result<Vec<u8>, String> {
    let since = pairs.iter().rev().find(|(name, _)| name == "since");
    let since = since.map(|(_, value)| whole_number(&value.text).ok_or("since is not a whole number")).transpose()?;
    let snapshot = status.recent.snapshot();
    // If `since` is older than the rows in memory, or from another run, the response holds everything.
    let since = since.filter(|since| (snapshot.first()..=snapshot.next).contains(since));
    let live = Live {
        total: status.counts.total(),
        is_loaded: status.counts.is_loaded(),
        next: snapshot.next,
        has_older: snapshot.first() > 0,
        rows: snapshot.since(since.unwrap_or(0)).iter().map(row).collect(),
        whole: since.is_none().then(|| {
            let at = status.now();
            Whole { at, series: status.counts.series(at), codes: &EVENT_CODES }
        }),
        health: status.health(),
    };
    Ok(serde_json::to_vec(&live).unwrap_or_default())
}

fn row(line: &Line) -> Row {
    let fields = Fields::read(line).unwrap_or_default();
    [
        fields.id,
        fields.timestamp,
        fields.received_at,
        fields.source,
        fields.event_id,
        fields.event_name,
        fields.description,
        fields.entity_id,
        fields.entity_name,
        fields.conversation_id,
        fields.error_code,
    ]
    .map(|field| field.and_then(value))
}

/// The unchanged value, or the beginning of a long one.
fn value(field: FieldText<'_>) -> Option<Box<RawValue>> {
    if field.raw().len() <= VALUE_BYTES_MAX {
        return RawValue::from_string(field.raw().to_owned()).ok();
    }
    let beginning: String = field.decoded().chars().take(CUT_CHARS).chain(['…']).collect();
    serde_json::value::to_raw_value(&beginning).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::http::query;

    fn ask(status: &Status, target: &str) -> serde_json::Value {
        serde_json::from_slice(&document(status, &query::split(target).unwrap().1).unwrap()).unwrap()
    }

    #[test]
    fn the_first_answer_is_whole_and_later_ones_hold_what_is_new() {
        let status = Status::new(Clock::system(), false).named("north");
        let line = format!(r#"{{"id":"1","event_id":"A","entity_id":"e","description":"{}","n":1}}"#, "é".repeat(500));
        status.counts.add_line(line.as_bytes(), status.now());
        status.recent.extend([line.as_bytes()].into_iter());
        let first = ask(&status, "/live");
        assert_eq!(
            (&first["next"], &first["total"], &first["health"]["instance"]),
            (&1.into(), &1.into(), &"north".into())
        );
        assert_eq!((&first["rows"][0][0], &first["rows"][0][9]), (&"1".into(), &serde_json::Value::Null));
        assert_eq!(first["rows"][0][6].as_str().map(|text| text.chars().count()), Some(CUT_CHARS + 1));
        assert_eq!(first["whole"]["series"][0]["minutes"], serde_json::json!([0, 1]));
        assert_eq!(first["whole"]["codes"][0]["id"], "AUDIOHOOK-0001");
        let none = ask(&status, "/live?since=1");
        assert!(none["rows"].as_array().is_some_and(Vec::is_empty) && none["whole"].is_null());
        status.recent.extend([&br#"{"id":"2"}"#[..]].into_iter());
        assert_eq!(ask(&status, "/live?since=1")["rows"][0][0], "2");
        assert!(ask(&status, "/live?since=7")["whole"].is_object(), "another run of the collector");
        assert!(document(&status, &query::split("/live?since=x").unwrap().1).is_err());
    }
}
