//! Answers of the history that leave things out, lead back to themselves, or bring what nobody asked for.

use std::sync::Mutex;

use audiohook_collector::clock::{format_millis, parse_instant};
use audiohook_collector::simulator::{Action, Call, Event, Request, Route, Simulator};
use serde_json::{Value, json};

use crate::support::collector::{binary, settings};
use crate::support::{Collector, Folder, assert_same_set};
use crate::{HOUR_MS, LONG, definitions_in, issue_old, settle, simulator, started, wait_reads};

const QUERY: &str = "/api/v2/usage/events/query";
/// More than two pages of 200 rows.
const ROWS: i64 = 450;

/// A service with some pages of rows of one hour, three hours ago.
fn with_pages() -> Simulator {
    let sim = simulator(|_| ());
    let begin = sim.now() - 3 * HOUR_MS;
    let times: Vec<i64> = (0..ROWS).map(|n| begin + n * 5_000).collect();
    sim.issue_many(Event::numbered("AUDIOHOOK-0002"), &times, Route::HistoryOnly);
    sim
}

/// Starts a collector, which must have all rows, each once, and complain of nothing.
fn assert_all_are_read(sim: &Simulator, name: &str) -> Vec<String> {
    let folder = Folder::new(name);
    let collector = Collector::start(sim, &folder, &[("CATCH_UP_RATE", "100000")]);
    collector.wait_lines(ROWS as usize, LONG);
    collector.wait_healthy();
    // What comes after is read too: nothing hangs on a page.
    issue_old(sim, "AUDIOHOOK-0001", 20_000);
    collector.wait_lines(ROWS as usize + 1, LONG);
    wait_reads(sim, &collector, 3);
    assert_same_set(&sim.issued(), &collector.records());
    let lines = collector.log_lines();
    assert!(!lines.iter().any(|line| line.contains("history_failing")), "{}", collector.log_text());
    lines
}

#[test]
fn a_row_that_stands_among_much_younger_ones_is_read_however_many_pages_come_before_it() {
    const PAGE: usize = 200;
    let sim = simulator(|_| ());
    let begin = sim.now() - 5 * HOUR_MS;
    let times: Vec<i64> = (0..55 * PAGE as i64).map(|n| begin + n * 1_000).collect();
    sim.issue_many(Event::numbered("AUDIOHOOK-0002"), &times, Route::HistoryOnly);
    // A row of the eleventh page stands in the middle of the fifty-third.
    let (old, young) = (times[10 * PAGE + 100], times[52 * PAGE + 100]);
    let taken = Mutex::new(None);
    let misplace = move |request: &Request, page: &mut Value| {
        let asked: Value = serde_json::from_slice(&request.body).unwrap();
        let (from, to) = asked["interval"].as_str().unwrap().split_once('/').unwrap();
        let Some(rows) = page["entities"].as_array_mut() else { return };
        if parse_instant(from).unwrap() > old || parse_instant(to).unwrap() <= young {
            return;
        }
        let place_of = |rows: &[Value], time| rows.iter().position(|row| row["dateCreated"] == format_millis(time));
        let mut taken = taken.lock().unwrap();
        if let Some(at) = place_of(rows, old) {
            *taken = Some(rows.remove(at));
        }
        if let Some(at) = place_of(rows, young)
            && let Some(row) = taken.take()
        {
            rows.insert(at, row);
        }
    };
    sim.faults().fail(Call::History, Action::change_json(misplace));
    let (_folder, collector) = started("misplaced", &sim, &[("CATCH_UP_RATE", "100000")]);
    collector.wait_lines(times.len(), LONG);
    wait_reads(&sim, &collector, 3);
    assert_same_set(&sim.issued(), &collector.records());
}

/// The bodies of all requests to the history name definitions.
fn assert_definitions_are_named(sim: &Simulator) {
    let asked = sim.view(|view| view.requests(Call::History));
    assert!(!asked.is_empty());
    for seen in asked {
        let body: Value = serde_json::from_str(&seen.body).unwrap();
        let ids = body["eventDefinitionIds"].as_array().map_or(0, Vec::len);
        assert!(ids > 0, "{}", seen.body);
    }
}

fn without_an_empty_list(list: &'static str, replacement: Option<Value>) -> Action {
    Action::change_json(move |_, page| {
        if page[list].as_array().is_some_and(Vec::is_empty) {
            match &replacement {
                Some(value) => page[list] = value.clone(),
                None => _ = page.as_object_mut().unwrap().remove(list),
            }
        }
    })
}

#[test]
fn a_page_without_entities_has_no_rows() {
    for replacement in [None, Some(Value::Null)] {
        let sim = with_pages();
        sim.faults().fail(Call::History, without_an_empty_list("entities", replacement));
        assert_all_are_read(&sim, "no-entities");
        assert_definitions_are_named(&sim);
    }
}

#[test]
fn aggregates_without_a_list_are_counts_of_zero() {
    for replacement in [None, Some(Value::Null)] {
        let sim = simulator(|_| ());
        sim.faults().fail(Call::Counts, without_an_empty_list("eventDefinitionAggregates", replacement));
        let (folder, mut collector) = started("no-aggregates", &sim, &[]);
        assert!(sim.wait_until(LONG, |view| view.count(Call::Counts) > 0));
        wait_reads(&sim, &collector, 2);
        assert!(!collector.log_lines().iter().any(|line| line.contains("cannot")), "{}", collector.log_text());
        assert!(collector.term().success());
        let output = binary(folder.path(), &["audit", "--json"], &settings(&sim, &folder)).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["complete"], true);
    }
}

/// Whether a request asks for what follows a cursor, so that an answer can name that cursor again.
fn has_cursor(request: &Request) -> bool {
    request.parameter("after").is_some()
}

#[test]
fn a_last_page_may_name_the_cursor_that_was_just_asked_for() {
    let sim = with_pages();
    sim.faults().fail(
        Call::History,
        Action::change_json(|request, page| {
            if page.get("nextUri").is_none() && has_cursor(request) {
                page["nextUri"] = json!(request.target());
            }
        }),
    );
    assert_all_are_read(&sim, "names-itself");
}

#[test]
fn an_empty_page_that_names_its_own_cursor_is_the_last() {
    let sim = with_pages();
    // Each last page leads to one more, which is empty and leads to itself.
    let end = "END";
    sim.faults().fail(
        Call::History,
        Action::custom(move |request, service| {
            let next = format!("{QUERY}?after={end}&pageSize=200");
            if request.parameter("after").as_deref() == Some(end) {
                return audiohook_collector::simulator::Answer::json(200, json!({"entities": [], "nextUri": next}));
            }
            let mut answer = service(request);
            if let Ok(mut page) = serde_json::from_slice::<Value>(&answer.body)
                && page.get("nextUri").is_none()
            {
                page["nextUri"] = json!(next);
                answer.body = page.to_string().into_bytes();
            }
            answer
        }),
    );
    assert_all_are_read(&sim, "empty-end");
}

/// Every page's cursor is the same text, though it leads on: the service remembers where it stands.
fn one_cursor() -> Action {
    const CURSOR: &str = "ALWAYS-THE-SAME";
    let place: Mutex<Option<String>> = Mutex::new(None);
    Action::custom(move |request, service| {
        let mut request = request.clone();
        let mut place = place.lock().unwrap();
        if request.parameter("after").as_deref() == Some(CURSOR)
            && let Some(at) = place.as_deref()
        {
            request.query = at.split_once('?').map_or("", |(_, query)| query).to_owned();
        }
        let mut answer = service(&request);
        let Ok(mut page) = serde_json::from_slice::<Value>(&answer.body) else { return answer };
        if let Some(next) = page["nextUri"].as_str() {
            *place = Some(next.to_owned());
            page["nextUri"] = json!(format!("{QUERY}?after={CURSOR}&pageSize=200"));
            answer.body = page.to_string().into_bytes();
        }
        answer
    })
}

#[test]
fn a_cursor_that_comes_back_with_new_rows_leads_on() {
    let sim = with_pages();
    sim.faults().fail(Call::History, one_cursor());
    assert_all_are_read(&sim, "one-cursor");
}

#[test]
fn pages_that_never_end_are_given_up_and_reported() {
    let sim = with_pages();
    // Each page has rows that nobody saw, and a cursor that was there before.
    let count = Mutex::new(0_i64);
    let begin = sim.now() - 2 * HOUR_MS;
    sim.faults().fail(
        Call::History,
        Action::custom(move |request, service| {
            let mut answer = service(request);
            let mut page: Value = serde_json::from_slice(&answer.body).unwrap();
            let mut count = count.lock().unwrap();
            *count += 1;
            let time = audiohook_collector::clock::format_millis(begin + *count);
            let row = json!({"eventDefinition": {"id": "AUDIOHOOK-0002"}, "entityId": "endless", "dateCreated": time});
            page["entities"] = json!([row]);
            page["nextUri"] = json!(format!("{QUERY}?after=ENDLESS&pageSize=200"));
            answer.body = page.to_string().into_bytes();
            answer
        }),
    );
    let folder = Folder::new("endless");
    let collector = Collector::start(&sim, &folder, &[("CATCH_UP_RATE", "100000"), ("CATCH_UP_START", "86400")]);
    collector.wait_reason("history_failing", true, LONG * 2);
    sim.faults().heal_all();
    collector.wait_reason("history_failing", false, LONG);
    let wanted = || definitions_in(&collector).iter().filter(|id| *id == "AUDIOHOOK-0002").count() >= ROWS as usize;
    assert!(crate::support::poll(LONG, || wanted().then_some(())).is_some(), "{}", collector.log_text());
}

#[test]
fn rows_of_a_definition_that_was_not_asked_for_are_not_taken() {
    let sim = simulator(|_| ());
    let folder = Folder::new("not-asked-for");
    folder.write("topics.json", r#"{"topics":["v2.operations.events.AUDIOHOOK-0001"]}"#);
    // The service pays no attention to the list.
    sim.faults().fail(
        Call::History,
        Action::custom(|request, service| {
            let mut request = request.clone();
            let mut body: Value = serde_json::from_slice(&request.body).unwrap();
            body.as_object_mut().unwrap().remove("eventDefinitionIds");
            request.body = body.to_string().into_bytes();
            service(&request)
        }),
    );
    for definition in ["AUDIOHOOK-0002", "AUDIOHOOK-0001", "TELEPHONY-0001"] {
        issue_old(&sim, definition, HOUR_MS);
        issue_old(&sim, definition, 60_000);
    }
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_lines(2, LONG);
    settle(&sim, &collector);
    assert_eq!(definitions_in(&collector), ["AUDIOHOOK-0001", "AUDIOHOOK-0001"]);
}

#[test]
fn a_request_never_carries_an_empty_list_of_definitions() {
    let sim = simulator(|_| ());
    sim.faults().fail(Call::Definitions, Action::Body(r#"{"entities":[]}"#.to_owned()));
    let folder = Folder::new("no-ids");
    // A topic of another feature: no definition of AudioHook's is among those named.
    folder.write("topics.json", r#"{"topics":["v2.users.0f8f91f9-a27d-4ddf-9026-7e1e3a8d73a6.presence"]}"#);
    let collector = Collector::start(&sim, &folder, &[]);
    assert!(sim.wait_until(LONG, |view| view.sockets_open() == 1));
    crate::let_pass(std::time::Duration::from_secs(4));
    drop(collector);
    std::fs::remove_file(folder.join("topics.json")).unwrap();
    let collector = Collector::start(&sim, &folder, &[]);
    wait_reads(&sim, &collector, 2);
    assert_definitions_are_named(&sim);
}
