//! `check --verbose`: examines undocumented behaviour of this organization's API.
//!
//! The results are never problems, since the collector works in each case. Nothing is changed, and a few dozen requests
//! suffice.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::Findings;
use crate::clock::{Millis, parse_instant};
use crate::config::Config;
use crate::genesys::api::{Api, PAGE_SIZE, interval};
use crate::genesys::error::{ApiError, Kind};
use crate::genesys::topics::Plan;
use crate::message::HISTORY_KEPT_MS;
use crate::message::{ChannelState, Definition};

const MINUTE_MS: Millis = 60_000;
const HOUR_MS: Millis = 60 * MINUTE_MS;
const DAY_MS: Millis = 24 * HOUR_MS;
/// The spans to try, the longest first, which is a little shorter than the time that the service keeps events for.
const SPANS_MS: [Millis; 5] = [HISTORY_KEPT_MS - MINUTE_MS, 7 * DAY_MS, DAY_MS, 6 * HOUR_MS, HOUR_MS];
/// Bytes read from the end of the output file, to compare their records with the history.
const FILE_BYTES_MAX: usize = 1024 * 1024;
/// Maximum difference between the times of two observations of the same event.
const SAME_EVENT_MS: Millis = 2_000;

const FIRST_PAGE_OF_ONE: &str = "/api/v2/usage/events/query?pageSize=1";

/// The body of a history query.
pub(super) fn body(from: Millis, to: Millis, ids: &[String], order: &str) -> String {
    json!({ "interval": interval(from, to), "eventDefinitionIds": ids, "sortOrder": order }).to_string()
}

/// The rows of a page; `None` if the text is not a page.
pub(super) fn rows(page: &str) -> Option<Vec<Value>> {
    let mut page: Value = serde_json::from_str(page).ok()?;
    match page["entities"].take() {
        Value::Array(rows) => Some(rows),
        _ => None,
    }
}

/// Examines the history.
pub(super) fn of_history(config: &Config, api: &mut Api, plan: &Plan, known: Option<&[Definition]>, out: &Findings) {
    let now = api.service().now();
    let report = |name: &'static str, fact: Result<String, ApiError>| match fact {
        Ok(fact) => out.ok(name, fact),
        Err(error) => out.ok(name, format_args!("unknown: {}", error.problem().what)),
    };
    let (newest, span) = match longest_span(api, plan, now) {
        Ok(Some((newest, span))) => {
            let most = if span == SPANS_MS[0] { "all that is kept" } else { "longer intervals are refused" };
            out.ok("api: longest interval", format_args!("{} h ({most})", (span + MINUTE_MS) / HOUR_MS));
            (newest, span)
        }
        Ok(None) => return out.ok("api: longest interval", "unknown: an hour is refused too"),
        Err(error) => return report("api: longest interval", Err(error)),
    };
    if let Some(known) = known {
        let ids: Vec<String> = known.iter().map(|one| one.id.clone()).collect();
        let asked = api.query_page(None, PAGE_SIZE, &body(now - MINUTE_MS, now, &ids, "ASC"));
        report(
            "api: definitions per query",
            match asked {
                Ok(_) => Ok(format!("all {} are accepted", ids.len())),
                Err(error) if matches!(error.kind, Kind::Refused(_)) => Ok(format!("{} are refused", ids.len())),
                Err(error) => Err(error),
            },
        );
    }
    if newest.is_empty() {
        return out.ok("api: events", "unknown: the history has no events");
    }
    if out.wants_facts() {
        report("api: next page", next_page(api, &body(now - span, now, &plan.ids, "ASC")));
    }
    if out.wants_facts() {
        report("api: interval end", interval_end(api, &newest[0]));
    }
    out.ok("api: times", times(config, &newest));
}

/// The longest span that the service accepts, and its newest rows.
fn longest_span(api: &mut Api, plan: &Plan, now: Millis) -> Result<Option<(Vec<Value>, Millis)>, ApiError> {
    for span in SPANS_MS {
        match api.query_page(None, PAGE_SIZE, &body(now - span, now, &plan.ids, "DESC")) {
            Ok(page) => return Ok(Some((rows(&page).unwrap_or_default(), span))),
            Err(error) if matches!(error.kind, Kind::Refused(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Whether `nextUri` is relative, and whether it returns the second page for the same body.
fn next_page(api: &mut Api, body: &str) -> Result<String, ApiError> {
    let page = api.query_page(Some(FIRST_PAGE_OF_ONE), 1, body)?;
    let first: Value = serde_json::from_str(&page).unwrap_or_default();
    let Some(next) = first["nextUri"].as_str() else { return Ok("unknown: there is no second event".to_owned()) };
    let (form, path) = match next.strip_prefix(api.api_url()) {
        Some(path) => ("absolute", path),
        None => ("relative", next),
    };
    if !path.starts_with('/') || path.starts_with("//") {
        return Ok("nextUri leads to another host and is not followed".to_owned());
    }
    let path = path.to_owned();
    let second = rows(&api.query_page(Some(&path), 1, body)?).unwrap_or_default();
    let continues = if second.first() == first["entities"].get(0) { "repeats the first row" } else { "continues" };
    Ok(format!("nextUri is {form}, and {continues} with the same body"))
}

/// Whether an interval includes an event at its start or end, in the history and in the counts.
fn interval_end(api: &mut Api, row: &Value) -> Result<String, ApiError> {
    let id = row["eventDefinition"]["id"].as_str().unwrap_or_default().to_owned();
    let text = row["dateCreated"].as_str().unwrap_or_default();
    // This needs an event at a whole millisecond.
    let fraction =
        text.split_once('.').map_or("", |(_, fraction)| fraction).trim_end_matches('Z').trim_end_matches('0');
    let Some(at) = parse_instant(text).filter(|_| fraction.len() <= 3) else {
        return Ok(format!("the newest event's time is {}", shape(&row["dateCreated"])));
    };
    let mut included = |from: Millis, to: Millis| -> Result<&str, ApiError> {
        let page = api.query_page(None, PAGE_SIZE, &body(from, to, std::slice::from_ref(&id), "DESC"))?;
        let is = rows(&page).unwrap_or_default().iter().any(|other| other["dateCreated"] == row["dateCreated"]);
        Ok(if is { "included" } else { "not included" })
    };
    let (end, start) = (included(at - 1000, at)?, included(at, at + 1000)?);
    let mut count = |from: Millis, to: Millis| api.aggregates(from, to).map(|all| all.get(&id).copied().unwrap_or(0));
    // An event between two adjacent intervals is counted twice, once, or not at all.
    let (halves, whole) = (count(at - 1000, at)? + count(at, at + 1000)?, count(at - 1000, at + 1000)?);
    let counts = match halves.cmp(&whole) {
        std::cmp::Ordering::Greater => "both ends are included",
        std::cmp::Ordering::Less => "neither end is included",
        std::cmp::Ordering::Equal => "one end is included",
    };
    Ok(format!("in the history the start is {start}, the end is {end}; in the counts {counts}"))
}

/// The format of times, and the differences between the socket and the history, from the newest records of the file.
fn times(config: &Config, newest: &[Value]) -> String {
    let mut fact = format!("the history's dateCreated is {}", shape(&newest[0]["dateCreated"]));
    let seen = socket_records(config);
    let Some(first) = seen.first() else {
        return fact + "; the file has no event from the socket to compare with";
    };
    fact.push_str(&format!("; the socket's timestamp is {}", shape(&first["raw_event"]["timestamp"])));
    let mut history: HashMap<[String; 4], Vec<(Millis, &Value)>> = HashMap::new();
    for row in newest {
        let key =
            [&row["eventDefinition"]["id"], &row["entityId"], &row["conversation"]["id"], &row["errorCode"]].map(plain);
        if let Some(at) = row["dateCreated"].as_str().and_then(parse_instant) {
            history.entry(key).or_default().push((at, &row["entityVersion"]));
        }
    }
    let mut differences = Vec::new();
    let mut versions_equal = 0;
    for record in &seen {
        let key = ["event_id", "entity_id", "conversation_id", "error_code"].map(|field| plain(&record[field]));
        let Some(at) = record["timestamp"].as_str().and_then(parse_instant) else { continue };
        let rows = history.get(&key).into_iter().flatten();
        let nearest =
            rows.map(|(other, version)| ((other - at).abs(), *version)).min_by_key(|(difference, _)| *difference);
        if let Some((difference, version)) = nearest.filter(|(difference, _)| *difference <= SAME_EVENT_MS) {
            differences.push(difference);
            versions_equal += usize::from(plain(version) == plain(&record["version"]));
        }
    }
    match differences.iter().max() {
        None => fact + "; none of the file's events from the socket is among the newest of the history",
        Some(most) => {
            let count = differences.len();
            format!(
                "{fact}; {count} events came from both sources: times differ by at most {most} ms, {versions_equal} versions are equal"
            )
        }
    }
}

/// A value as text, with an empty text for null and a missing value.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

/// The newest records of the output file that came from the socket.
fn socket_records(config: &Config) -> Vec<Value> {
    use std::os::unix::fs::FileExt;
    let mut end = vec![0; FILE_BYTES_MAX];
    let read = std::fs::File::open(&config.output.file).and_then(|file| {
        let from = file.metadata()?.len().saturating_sub(FILE_BYTES_MAX as u64);
        file.read_at(&mut end, from)
    });
    // If the file cannot be read, there are no records. The check of the folder reports the error.
    let lines = end[..read.unwrap_or(0)].split(|byte| *byte == b'\n');
    let records = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    records.filter(|record| record["source"] == "websocket").collect()
}

/// The format of a value, with 0 for each digit, so that the value itself is not shown.
fn shape(value: &Value) -> String {
    match value {
        Value::Null => "absent".to_owned(),
        Value::Number(number) if number.is_f64() => "a number with a fraction".to_owned(),
        Value::Number(number) => format!("an integer of {} digits", number.to_string().len()),
        Value::String(text) => {
            let text: String = text.chars().take(40).map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
            format!("text like {text:?}")
        }
        _ => "neither text nor a number".to_owned(),
    }
}

/// Examines a channel.
pub(super) fn of_channel(api: &mut Api, channel: &ChannelState, is_new: bool, out: &Findings) {
    const NAME: &str = "api: channels";
    let serves = |api: &mut Api| match api.check_channel(&channel.id) {
        Ok(()) => Ok(true),
        Err(error) if error.kind == Kind::Gone => Ok(false),
        Err(error) => Err(error),
    };
    let fact = serves(api).and_then(|own| {
        let own =
            if own { "HEAD of a channel returns 200" } else { "HEAD of a channel returns 404 although it exists" };
        // Log in again, for another token of the same client.
        let another = if is_new { api.log_in().and_then(|()| serves(api))? } else { true };
        let belongs =
            if another { "can be used with every token of its client" } else { "belongs to the token that created it" };
        Ok(format!("{own}, and {belongs}"))
    });
    match fact {
        Ok(fact) => out.ok(NAME, fact),
        Err(error) => out.ok(NAME, format_args!("unknown: {}", error.problem().what)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_shows_no_value() {
        assert_eq!(shape(&json!("2026-11-23T10:30:45.123Z")), "text like \"0000-00-00T00:00:00.000Z\"");
        assert_eq!(shape(&json!(1_795_430_645_123_i64)), "an integer of 13 digits");
        assert_eq!(shape(&json!(1.5)), "a number with a fraction");
        assert_eq!(shape(&Value::Null), "absent");
    }
}
