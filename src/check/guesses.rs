//! What nobody could say of the API, settled on the organisation at hand as far as it can be: asked, looked at, told.
//!
//! None of it is a fault: the collector bears either answer. Must never: change anything, or need more than a few dozen
//! requests.

use std::collections::HashMap;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Findings;
use super::notifications::seconds;
use crate::clock::{Millis, parse_instant};
use crate::config::Config;
use crate::event::{Identity, judge_row};
use crate::genesys::api::{Api, PAGE_SIZE, interval};
use crate::genesys::error::{ApiError, Kind};
use crate::genesys::history::KEPT_MS;
use crate::genesys::topics::Plan;
use crate::message::{ChannelState, Definition};
use crate::output::records;

const MINUTE_MS: Millis = 60_000;
const HOUR_MS: Millis = 60 * MINUTE_MS;
const DAY_MS: Millis = 24 * HOUR_MS;
/// Spans that are tried, the longest first: a little less than all that the service keeps.
const SPANS_MS: [Millis; 5] = [KEPT_MS - MINUTE_MS, 7 * DAY_MS, DAY_MS, 6 * HOUR_MS, HOUR_MS];
/// Records of the file that are compared with the history, at most.
const RECORDS_MAX: usize = 500;
/// Two sightings of one event differ by no more.
const TWIN_MS: Millis = 2_000;

const FIRST_PAGE_OF_ONE: &str = "/api/v2/usage/events/query?pageSize=1";

/// The body of a query.
pub(super) fn body(from: Millis, to: Millis, ids: &[String], order: &str) -> String {
    json!({ "interval": interval(from, to), "eventDefinitionIds": ids, "sortOrder": order }).to_string()
}

/// A page's rows; `None` when it is no page.
pub(super) fn rows(page: &str) -> Option<Vec<Value>> {
    let mut page: Value = serde_json::from_str(page).ok()?;
    match page["entities"].take() {
        Value::Array(rows) => Some(rows),
        _ => None,
    }
}

/// What can be settled of the history.
pub(super) fn settle(config: &Config, api: &mut Api, plan: &Plan, known: Option<&[Definition]>, out: &Findings) {
    let now = api.service().now();
    let Some((page, span)) = longest_span(api, plan, now, out) else { return };
    if let Some(known) = known {
        ids_at_once(api, known, now, out);
    }
    let newest = rows(&page).unwrap_or_default();
    if newest.is_empty() {
        return out.ok(
            "guess: the rest",
            "not settled: the history holds no event to look at; that is well unless calls fail, else see that an \
             AudioHook integration is active (Admin > Integrations)",
        );
    }
    if out.has_time() {
        next_page(api, &body(now - span, now, &plan.ids, "ASC"), out);
    }
    if out.has_time() {
        interval_end(api, &newest[0], out);
    }
    forms(config, &page, &newest, out);
}

/// The page of the longest span that is taken, newest first, and that span.
fn longest_span(api: &mut Api, plan: &Plan, now: Millis, out: &Findings) -> Option<(String, Millis)> {
    const NAME: &str = "guess: longest interval";
    for span in SPANS_MS {
        if !out.has_time() {
            break;
        }
        match api.query_page(None, PAGE_SIZE, &body(now - span, now, &plan.ids, "DESC")) {
            Ok(page) => {
                let hours = span as f64 / HOUR_MS as f64;
                let most = if span == SPANS_MS[0] { "all that is kept" } else { "longer ones are refused" };
                out.ok(NAME, format_args!("{hours:.0} h at once are taken: {most}"));
                return Some((page, span));
            }
            Err(error) if matches!(error.kind, Kind::Refused(_)) => {}
            Err(error) => {
                not_settled(NAME, &error, out);
                return None;
            }
        }
    }
    out.ok(NAME, "not settled: an interval of an hour is refused too");
    None
}

fn not_settled(name: &'static str, error: &ApiError, out: &Findings) {
    out.ok(name, format_args!("not settled: {}", error.problem().what));
}

fn ids_at_once(api: &mut Api, known: &[Definition], now: Millis, out: &Findings) {
    const NAME: &str = "guess: definitions at once";
    let ids: Vec<String> = known.iter().map(|one| one.id.clone()).collect();
    match api.query_page(None, PAGE_SIZE, &body(now - MINUTE_MS, now, &ids, "ASC")) {
        Ok(_) => out.ok(NAME, format_args!("all {} there are may be asked for at once", ids.len())),
        Err(error) if matches!(error.kind, Kind::Refused(_)) => {
            out.ok(NAME, format_args!("{} at once are refused; fewer are asked for then", ids.len()));
        }
        Err(error) => not_settled(NAME, &error, out),
    }
}

/// Whether `nextUri` is relative, and takes the same body again.
fn next_page(api: &mut Api, body: &str, out: &Findings) {
    const NAME: &str = "guess: next page";
    let page = match api.query_page(Some(FIRST_PAGE_OF_ONE), 1, body) {
        Ok(page) => page,
        Err(error) => return not_settled(NAME, &error, out),
    };
    let first: Value = serde_json::from_str(&page).unwrap_or_default();
    let Some(next) = first["nextUri"].as_str() else {
        return out.ok(NAME, "not settled: there is no second event");
    };
    let (form, path) = match next.strip_prefix(api.api_url()) {
        Some(path) => ("absolute", path),
        None => ("relative", next),
    };
    if !path.starts_with('/') || path.starts_with("//") {
        return out.ok(NAME, "nextUri leads to another host, which is not followed");
    }
    match api.query_page(Some(path), 1, body) {
        Ok(second) => {
            let second = rows(&second).unwrap_or_default();
            let goes_on = if second.first() == first["entities"].get(0) { "repeats the first row" } else { "goes on" };
            out.ok(NAME, format_args!("nextUri is {form}, and {goes_on} with the same body"));
        }
        Err(error) => not_settled(NAME, &error, out),
    }
}

/// Whether an event at the very end of an interval belongs to it: for the history, and for its counts.
fn interval_end(api: &mut Api, row: &Value, out: &Findings) {
    const NAME: &str = "guess: interval end";
    let text = row["dateCreated"].as_str().unwrap_or_default();
    let id = row["eventDefinition"]["id"].as_str().unwrap_or_default().to_owned();
    let Some(at) = parse_instant(text).filter(|_| !is_finer_than_ms(text)) else {
        return out.ok(NAME, format_args!("not settled: the event's time is {text:?}"));
    };
    let mut holds = |from: Millis, to: Millis| -> Result<bool, ApiError> {
        let page = api.query_page(None, PAGE_SIZE, &body(from, to, std::slice::from_ref(&id), "DESC"))?;
        Ok(rows(&page).unwrap_or_default().iter().any(|other| other["dateCreated"] == row["dateCreated"]))
    };
    let history = match (holds(at - 1000, at), holds(at, at + 1000)) {
        (Ok(end), Ok(start)) => format!("the start is {}, the end is {}", included(start), included(end)),
        (Err(error), _) | (_, Err(error)) => return not_settled(NAME, &error, out),
    };
    let mut count = |from: Millis, to: Millis| api.aggregates(from, to).map(|all| all.get(&id).copied().unwrap_or(0));
    // Two halves that share an instant count its events twice, once, or not at all.
    let counts = match (count(at - 1000, at), count(at, at + 1000), count(at - 1000, at + 1000)) {
        (Ok(before), Ok(after), Ok(both)) if before + after > both => "both ends are included",
        (Ok(before), Ok(after), Ok(both)) if before + after < both => "neither end is included",
        (Ok(_), Ok(_), Ok(_)) => "one end is included",
        _ => "not settled",
    };
    out.ok(NAME, format_args!("in the history {history}; in the counts {counts}"));
}

fn included(is: bool) -> &'static str {
    if is { "included" } else { "not included" }
}

fn is_finer_than_ms(text: &str) -> bool {
    let fraction = text.split_once('.').map_or("", |(_, rest)| rest);
    fraction.bytes().take_while(u8::is_ascii_digit).skip(3).any(|digit| digit != b'0')
}

/// How times are written, and how far the two ways agree: the history against what came on the socket before.
fn forms(config: &Config, page: &str, newest: &[Value], out: &Findings) {
    let mut found = format!("the history's dateCreated is {}", shape(&newest[0]["dateCreated"]));
    let seen = seen_on_the_socket(config);
    let Some(first) = seen.first() else {
        return out.ok("guess: times", found + "; the file holds no event of the socket to compare with");
    };
    found.push_str(&format!("; the socket's timestamp is {}", shape(&first.timestamp)));
    let history = seen_in_the_history(page);
    let twins: Vec<(&Seen, &Row)> = seen.iter().filter_map(|one| Some((one, one.twin(&history)?))).collect();
    if twins.is_empty() {
        found.push_str("; none of the file's events of the socket is among the newest of the history");
    } else {
        let most = twins.iter().map(|(seen, row)| (seen.at - row.at).abs()).max().unwrap_or(0);
        let alike = twins.iter().filter(|(seen, row)| seen.version == row.version).count();
        found.push_str(&format!(
            "; {} events came both ways: their times differ by at most {}, their versions are equal in {alike}",
            twins.len(),
            seconds(most)
        ));
    }
    out.ok("guess: times", found);
}

/// What a value looks like, each digit as 0: no value is shown.
fn shape(value: &Value) -> String {
    match value {
        Value::Null => "absent".to_owned(),
        Value::Number(number) if number.is_i64() || number.is_u64() => {
            format!("an integer of {} digits", number.to_string().len())
        }
        Value::Number(_) => "a number with a fraction".to_owned(),
        Value::String(text) => {
            let text: String = text.chars().take(40).map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
            format!("text as {text:?}")
        }
        _ => "no text and no number".to_owned(),
    }
}

/// An event of the file that came on the socket.
struct Seen {
    content: u64,
    at: Millis,
    timestamp: Value,
    version: String,
}

struct Row {
    at: Millis,
    version: String,
}

impl Seen {
    /// The nearest row of the same content.
    fn twin<'a>(&self, history: &'a HashMap<u64, Vec<Row>>) -> Option<&'a Row> {
        let rows = history.get(&self.content)?;
        rows.iter().filter(|row| (row.at - self.at).abs() <= TWIN_MS).min_by_key(|row| (row.at - self.at).abs())
    }
}

fn seen_on_the_socket(config: &Config) -> Vec<Seen> {
    let seen = std::cell::RefCell::new(Vec::new());
    let is_enough = || seen.borrow().len() >= RECORDS_MAX;
    let take = |text: &str, line: &crate::event::Line<'_>| {
        let Some(at) = line.own_time.filter(|_| !line.from_history && !is_enough()) else { return };
        let record: Value = serde_json::from_str(text).unwrap_or_default();
        let timestamp = record["raw_event"]["timestamp"].clone();
        let version = record["version"].as_str().unwrap_or_default().to_owned();
        seen.borrow_mut().push(Seen { content: line.id.content, at, timestamp, version });
    };
    let files = records::files(&config.output.file);
    // Only the newest are looked at, and a file that cannot be read shows none: the folder's line tells of it.
    let _ = records::each_since(&files[..1], || Millis::MAX, take, || false, || ());
    seen.into_inner()
}

fn seen_in_the_history(page: &str) -> HashMap<u64, Vec<Row>> {
    #[derive(serde::Deserialize)]
    struct Page<'a> {
        #[serde(borrow)]
        entities: Vec<&'a RawValue>,
    }
    let mut history: HashMap<u64, Vec<Row>> = HashMap::new();
    let mut scratch = Vec::new();
    let Ok(page) = serde_json::from_str::<Page>(page) else { return history };
    for row in page.entities {
        if let Ok(event) = judge_row(row.get())
            && let Some(at) = event.time
        {
            let content = Identity::of(&event, &mut scratch).content;
            let version = event.version.decoded().into_owned();
            history.entry(content).or_default().push(Row { at, version });
        }
    }
    history
}

/// What can be settled of a channel.
pub(super) fn settle_channel(api: &mut Api, channel: &ChannelState, is_new: bool, out: &Findings) {
    const NAME: &str = "guess: channels";
    let there = |outcome: Result<(), ApiError>| match outcome {
        Ok(()) => Ok(true),
        Err(error) if error.kind == Kind::Gone => Ok(false),
        Err(error) => Err(error),
    };
    let own = match there(api.check_channel(&channel.id)) {
        Ok(own) => own,
        Err(error) => return not_settled(NAME, &error, out),
    };
    let own = if own { "answers HEAD with 200" } else { "answers HEAD with 404 though it is there" };
    if !is_new {
        return out.ok(NAME, format_args!("a channel {own}, and serves another token than the one that made it"));
    }
    // Another token of the same client.
    let other = api.log_in().and_then(|()| there(api.check_channel(&channel.id)));
    match other {
        Ok(true) => out.ok(NAME, format_args!("a channel {own}, and serves another token of the same client too")),
        Ok(false) => out.ok(NAME, format_args!("a channel {own}, and belongs to the token that made it")),
        Err(error) => not_settled(NAME, &error, out),
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

    #[test]
    fn times_finer_than_a_millisecond_settle_nothing() {
        assert!(is_finer_than_ms("2026-11-23T10:30:45.123456Z"));
        for text in ["2026-11-23T10:30:45.123Z", "2026-11-23T10:30:45.123000Z", "2026-11-23T10:30:45Z"] {
            assert!(!is_finer_than_ms(text), "{text}");
        }
    }

    #[test]
    fn rows_are_matched_by_content_within_two_seconds() {
        let page = r#"{"entities":[{"eventDefinition":{"id":"A"},"dateCreated":"1970-01-01T00:00:05.000Z","entityVersion":7},
            {"eventDefinition":{"id":"A"},"dateCreated":"1970-01-01T00:00:09.000Z"}, 5]}"#;
        let history = seen_in_the_history(page);
        let content = *history.keys().next().unwrap();
        let seen = |at| Seen { content, at, timestamp: Value::Null, version: String::new() };
        assert_eq!(seen(5_900).twin(&history).map(|row| (row.at, row.version.as_str())), Some((5_000, "7")));
        assert!(seen(11_001).twin(&history).is_none());
    }
}
