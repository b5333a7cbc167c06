//! How this organization's API behaves where the documentation does not say: with `check --verbose`.
//!
//! None of it is a problem: the collector works either way. Must never: change anything, or need more than a few dozen
//! requests.

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
/// Spans that are tried, the longest first: a little less than all that the service keeps.
const SPANS_MS: [Millis; 5] = [HISTORY_KEPT_MS - MINUTE_MS, 7 * DAY_MS, DAY_MS, 6 * HOUR_MS, HOUR_MS];
/// Bytes at the end of the output file whose records are compared with the history.
const FILE_BYTES_MAX: usize = 1024 * 1024;
/// Two observations of one event differ by no more.
const SAME_EVENT_MS: Millis = 2_000;

const FIRST_PAGE_OF_ONE: &str = "/api/v2/usage/events/query?pageSize=1";

/// The body of a query.
pub(super) fn body(from: Millis, to: Millis, ids: &[String], order: &str) -> String {
    json!({ "interval": interval(from, to), "eventDefinitionIds": ids, "sortOrder": order }).to_string()
}

/// A page's rows; `None` when it is not a page.
pub(super) fn rows(page: &str) -> Option<Vec<Value>> {
    let mut page: Value = serde_json::from_str(page).ok()?;
    match page["entities"].take() {
        Value::Array(rows) => Some(rows),
        _ => None,
    }
}

/// What can be learned of the history.
pub(super) fn of_history(config: &Config, api: &mut Api, plan: &Plan, known: Option<&[Definition]>, out: &Findings) {
    let now = api.service().now();
    let learned = |name: &'static str, fact: Result<String, ApiError>| match fact {
        Ok(fact) => out.ok(name, fact),
        Err(error) => out.ok(name, format_args!("not learned: {}", error.problem().what)),
    };
    let (newest, span) = match longest_span(api, plan, now) {
        Ok(Some((newest, span))) => {
            let most = if span == SPANS_MS[0] { "everything that is kept" } else { "longer ones are refused" };
            out.ok("api: longest interval", format_args!("{} h ({most})", (span + MINUTE_MS) / HOUR_MS));
            (newest, span)
        }
        Ok(None) => return out.ok("api: longest interval", "not learned: an hour is refused too"),
        Err(error) => return learned("api: longest interval", Err(error)),
    };
    if let Some(known) = known {
        let ids: Vec<String> = known.iter().map(|one| one.id.clone()).collect();
        let asked = api.query_page(None, PAGE_SIZE, &body(now - MINUTE_MS, now, &ids, "ASC"));
        learned(
            "api: definitions per query",
            match asked {
                Ok(_) => Ok(format!("all {} are accepted", ids.len())),
                Err(error) if matches!(error.kind, Kind::Refused(_)) => Ok(format!("{} are refused", ids.len())),
                Err(error) => Err(error),
            },
        );
    }
    if newest.is_empty() {
        return out.ok("api: events", "not learned: the history has no event to look at");
    }
    if out.wants_facts() {
        learned("api: next page", next_page(api, &body(now - span, now, &plan.ids, "ASC")));
    }
    if out.wants_facts() {
        learned("api: interval end", interval_end(api, &newest[0]));
    }
    out.ok("api: times", times(config, &newest));
}

/// The newest rows of the longest span that is accepted, and that span.
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

/// Whether `nextUri` is relative, and takes the same body again.
fn next_page(api: &mut Api, body: &str) -> Result<String, ApiError> {
    let page = api.query_page(Some(FIRST_PAGE_OF_ONE), 1, body)?;
    let first: Value = serde_json::from_str(&page).unwrap_or_default();
    let Some(next) = first["nextUri"].as_str() else { return Ok("there is no second event".to_owned()) };
    let (form, path) = match next.strip_prefix(api.api_url()) {
        Some(path) => ("absolute", path),
        None => ("relative", next),
    };
    if !path.starts_with('/') || path.starts_with("//") {
        return Ok("nextUri names another host, which is not followed".to_owned());
    }
    let path = path.to_owned();
    let second = rows(&api.query_page(Some(&path), 1, body)?).unwrap_or_default();
    let goes_on = if second.first() == first["entities"].get(0) { "repeats the first row" } else { "goes on" };
    Ok(format!("nextUri is {form}, and {goes_on} with the same body"))
}

/// Whether an event at the very end of an interval belongs to it: for the history, and for its counts.
fn interval_end(api: &mut Api, row: &Value) -> Result<String, ApiError> {
    let id = row["eventDefinition"]["id"].as_str().unwrap_or_default().to_owned();
    let text = row["dateCreated"].as_str().unwrap_or_default();
    // Only an event at a whole millisecond shows it.
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
    // Two halves that share an instant count its events twice, once, or not at all.
    let (halves, whole) = (count(at - 1000, at)? + count(at, at + 1000)?, count(at - 1000, at + 1000)?);
    let counts = match halves.cmp(&whole) {
        std::cmp::Ordering::Greater => "both ends are included",
        std::cmp::Ordering::Less => "neither end is included",
        std::cmp::Ordering::Equal => "one end is included",
    };
    Ok(format!("in the history the start is {start}, the end is {end}; in the counts {counts}"))
}

/// How times are written, and how far the socket and the history agree: by the newest records of the file.
fn times(config: &Config, newest: &[Value]) -> String {
    let mut fact = format!("the history's dateCreated is {}", shape(&newest[0]["dateCreated"]));
    let seen = socket_records(config);
    let Some(first) = seen.first() else {
        return fact + "; the file has no event of the socket to compare with";
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
        None => fact + "; none of the file's events of the socket is among the newest of the history",
        Some(most) => {
            let count = differences.len();
            format!(
                "{fact}; {count} events came both ways: times differ by at most {most} ms, {versions_equal} versions are equal"
            )
        }
    }
}

/// A value as text; absent, null and "" are equal.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

/// The newest records of the output file that came on the socket.
fn socket_records(config: &Config) -> Vec<Value> {
    use std::os::unix::fs::FileExt;
    let mut end = vec![0; FILE_BYTES_MAX];
    let read = std::fs::File::open(&config.output.file).and_then(|file| {
        let from = file.metadata()?.len().saturating_sub(FILE_BYTES_MAX as u64);
        file.read_at(&mut end, from)
    });
    // A file that cannot be read shows none: the folder's check reports it.
    let lines = end[..read.unwrap_or(0)].split(|byte| *byte == b'\n');
    let records = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    records.filter(|record| record["source"] == "websocket").collect()
}

/// What a value looks like, each digit as 0: no value is shown.
fn shape(value: &Value) -> String {
    match value {
        Value::Null => "absent".to_owned(),
        Value::Number(number) if number.is_f64() => "a number with a fraction".to_owned(),
        Value::Number(number) => format!("an integer of {} digits", number.to_string().len()),
        Value::String(text) => {
            let text: String = text.chars().take(40).map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
            format!("text as {text:?}")
        }
        _ => "neither text nor a number".to_owned(),
    }
}

/// What can be learned of a channel.
pub(super) fn of_channel(api: &mut Api, channel: &ChannelState, is_new: bool, out: &Findings) {
    const NAME: &str = "api: channels";
    let serves = |api: &mut Api| match api.check_channel(&channel.id) {
        Ok(()) => Ok(true),
        Err(error) if error.kind == Kind::Gone => Ok(false),
        Err(error) => Err(error),
    };
    let fact = serves(api).and_then(|own| {
        let own =
            if own { "a channel answers HEAD with 200" } else { "a channel answers HEAD with 404 although it exists" };
        // Another token of the same client.
        let another = if is_new { api.log_in().and_then(|()| serves(api))? } else { true };
        let belongs = if another { "serves every token of its client" } else { "belongs to the token that made it" };
        Ok(format!("{own}, and {belongs}"))
    });
    match fact {
        Ok(fact) => out.ok(NAME, fact),
        Err(error) => out.ok(NAME, format_args!("not learned: {}", error.problem().what)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_shows_no_value() {
        assert_eq!(shape(&json!("2026-11-23T10:30:45.123Z")), "text as \"0000-00-00T00:00:00.000Z\"");
        assert_eq!(shape(&json!(1_795_430_645_123_i64)), "an integer of 13 digits");
        assert_eq!(shape(&json!(1.5)), "a number with a fraction");
        assert_eq!(shape(&Value::Null), "absent");
    }
}
