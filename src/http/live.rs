//! `GET /live`: what the page asks for every two seconds. The first answer holds the counts for the charts and a short
//! row for each recent event; later ones (`?since=`) only the rows that are new. The status is 200 however bad the
//! health is. This is the page's own interface and may change with it.

use serde::Serialize;
use serde_json::value::RawValue;

use super::events::whole_number;
use super::query::Pairs;
use crate::clock::Millis;
use crate::event::{EVENT_CODES, EventCode, FieldText, Fields};
use crate::status::{Health, Line, Series, Status};

/// Bytes of a value in a row, at most: the whole record is asked for when it is opened.
const VALUE_BYTES_MAX: usize = 400;
/// Characters that are left of a longer one.
const CUT_CHARS: usize = 160;

#[derive(Serialize)]
struct Live {
    health: Health,
    /// What to ask for next time, with `since`.
    next: u64,
    /// Events that the counts hold by now; the page compares it with what it counted itself.
    total: u64,
    /// Whether the counts of earlier runs are all there.
    is_loaded: bool,
    /// Whether records older than the first row were dropped from memory.
    has_older: bool,
    rows: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    whole: Option<Whole>,
}

/// What only a first answer holds.
#[derive(Serialize)]
struct Whole {
    /// The instant that the ages in `series` count from, in milliseconds since 1970.
    at: Millis,
    series: Vec<Series>,
    codes: &'static [EventCode],
}

/// The values of [`Fields`], in the page's order; `null` where there is none.
type Row = [Option<Box<RawValue>>; 11];

/// The document.
///
/// # Errors
/// A sentence on a value that is wrong.
pub fn document(status: &Status, pairs: &Pairs) -> Result<Vec<u8>, String> {
    let since = pairs.iter().rev().find(|(name, _)| name == "since");
    let since = since.map(|(_, value)| whole_number(&value.text).ok_or("since is not a whole number")).transpose()?;
    let snapshot = status.recent.snapshot();
    // One that asks for what was dropped, or for what another run counted, gets everything.
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

/// A value as it stands, or the beginning of a long one.
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
