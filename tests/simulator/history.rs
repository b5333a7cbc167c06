//! What the history, the counts, the definitions and the topics answer.

use std::time::Duration;

use audiohook_collector::clock::{format_millis, parse_http_date, parse_instant};
use audiohook_collector::simulator::{Definition, Event, Route};
use serde_json::{Value, json};

use crate::support::records::compare;
use crate::support::{Client, Record, SOON};
use crate::{CHANNELS, QUERY, TOPIC, hour_up_to, simulator, support};

#[test]
fn the_history_gives_each_event_of_the_interval_once_page_by_page() {
    let sim = simulator(|_| {});
    let client = Client::logged_in(&sim);
    let now = sim.now();
    let times: Vec<i64> = (0..450).map(|n| now - 1000 + n).collect();
    sim.issue_many(Event::numbered("AUDIOHOOK-0001"), &times, Route::Both);
    sim.issue(Event::numbered("AUDIOHOOK-0002").at(now - 500));
    let body = json!({
        "interval": format!("{}/{}", format_millis(now - 1000), format_millis(now - 600)),
        "eventDefinitionIds": ["AUDIOHOOK-0001", "AUDIOHOOK-9999"], "sortOrder": "ASC",
    });
    let mut next = format!("{QUERY}?pageSize=200");
    let (mut rows, mut sizes) = (Vec::new(), Vec::new());
    loop {
        let page = client.history(&next, &body);
        assert_eq!(page.status, 200, "{}", page.text);
        let entities = page.json["entities"].as_array().unwrap().clone();
        sizes.push(entities.len());
        rows.extend(entities);
        match page.json["nextUri"].as_str() {
            Some(uri) => {
                assert!(uri.starts_with("/api/v2/usage/events/query?after="), "relative to the API's host: {uri}");
                next = uri.to_owned();
            }
            None => break,
        }
    }
    assert_eq!(sizes, [200, 200]);
    let created: Vec<i64> =
        rows.iter().map(|row| parse_instant(row["dateCreated"].as_str().unwrap()).unwrap()).collect();
    assert_eq!(created, times[..400], "from the beginning on, without the end");
    assert_eq!(rows[0]["eventDefinition"]["id"], "AUDIOHOOK-0001");
    assert!(rows[0]["conversation"]["selfUri"].is_string());
    for absent in ["id", "entityType", "name", "description"] {
        assert!(rows[0].get(absent).is_none(), "{absent}");
    }
    let mut newest_first = body.clone();
    newest_first.as_object_mut().unwrap().remove("sortOrder");
    let page = client.history(&format!("{QUERY}?pageSize=1"), &newest_first);
    assert_eq!(page.json["entities"][0]["dateCreated"], format_millis(now - 601));
    // The same cursor with another body is none.
    let uri = page.json["nextUri"].as_str().unwrap();
    assert_eq!(client.history(uri, &body).status, 400);
}

#[test]
fn a_bad_history_request_is_refused() {
    let sim = simulator(|_| {});
    let client = Client::logged_in(&sim);
    let good = hour_up_to(sim.now());
    for path in ["?pageSize=201", "?pageSize=0", "?pageSize=x", "?after=nonsense"] {
        let answer = client.history(&format!("{QUERY}{path}"), &good);
        assert_eq!((answer.status, &answer.json["code"]), (400, &json!("bad.request")), "{path}");
    }
    for body in [json!({}), json!([]), json!({"interval": "PT1H"}), json!({"interval": 5})] {
        assert_eq!(client.history(QUERY, &body).status, 400, "{body}");
    }
    sim.faults().set(|knobs| knobs.history_span_max = Some(Duration::from_secs(60)));
    assert_eq!(client.history(QUERY, &good).status, 400);
}

#[test]
fn the_history_keeps_ten_days_and_lags_when_told_to() {
    let sim = simulator(|knobs| knobs.history_lag = Duration::from_millis(1500));
    let client = Client::logged_in(&sim);
    let now = sim.now();
    let count = || {
        let body = json!({"interval": format!("{}/{}", format_millis(0), format_millis(now + 1))});
        client.history(QUERY, &body).json["entities"].as_array().unwrap().len()
    };
    sim.issue(Event::numbered("AUDIOHOOK-0001").at(now - 11 * 86_400_000));
    sim.issue(Event::numbered("AUDIOHOOK-0001").at(now - 9 * 86_400_000));
    assert_eq!(count(), 0);
    assert!(support::poll(SOON, || (count() == 1).then_some(())).is_some());
    sim.faults().set(|knobs| knobs.hold_history = true);
    sim.issue(Event::numbered("AUDIOHOOK-0001").at(now - 1));
    support::let_pass(Duration::from_millis(400));
    assert_eq!(count(), 1);
    sim.faults().release_history();
    assert_eq!(count(), 2);
}

#[test]
fn an_expired_cursor_and_a_repeated_page_come_as_often_as_told() {
    let sim = simulator(|_| {});
    let client = Client::logged_in(&sim);
    let now = sim.now();
    sim.issue_many(Event::numbered("AUDIOHOOK-0001"), &[now - 3, now - 2, now - 1], Route::Both);
    let body = hour_up_to(now);
    let page = client.history(&format!("{QUERY}?pageSize=1"), &body);
    let uri = page.json["nextUri"].as_str().unwrap().to_owned();
    sim.faults().set(|knobs| knobs.cursors_to_expire = 1);
    assert_eq!(client.history(&uri, &body).status, 400);
    sim.faults().set(|knobs| knobs.pages_to_repeat = 1);
    let repeated = client.history(&uri, &body).json;
    let again = client.history(repeated["nextUri"].as_str().unwrap(), &body).json;
    assert_eq!(again["entities"], repeated["entities"]);
    let last = client.history(again["nextUri"].as_str().unwrap(), &body).json;
    assert_ne!(last["entities"], again["entities"]);
    assert!(last.get("nextUri").is_none());
}

#[test]
fn counts_and_definitions_cover_every_definition() {
    let sim = simulator(|_| {});
    let client = Client::logged_in(&sim);
    let now = sim.now();
    sim.issue_many(Event::numbered("AUDIOHOOK-0001"), &[now - 2, now - 1, now], Route::Both);
    sim.issue(Event::numbered("TELEPHONY-0001").at(now - 1));
    let body = hour_up_to(now);
    let answer = client.history("/api/v2/usage/events/aggregates/query", &body).json;
    assert_eq!(answer["interval"], body["interval"]);
    let counts: Vec<(&str, u64)> = answer["eventDefinitionAggregates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["eventDefinition"]["id"].as_str().unwrap(), entry["eventCount"].as_u64().unwrap()))
        .collect();
    assert_eq!(counts, [("AUDIOHOOK-0001", 2), ("TELEPHONY-0001", 1)]);
    let definitions = client.call("GET", "/api/v2/usage/events/definitions", "").json;
    let ids: Vec<&str> =
        definitions["entities"].as_array().unwrap().iter().map(|d| d["id"].as_str().unwrap()).collect();
    assert!(ids.iter().filter(|id| id.starts_with("AUDIOHOOK-")).count() >= 5);
    assert!(ids.iter().any(|id| !id.starts_with("AUDIOHOOK-")));
}

#[test]
fn a_row_may_have_another_time_than_its_frame() {
    let sim = simulator(|_| {});
    let client = Client::logged_in(&sim);
    let now = sim.now();
    let issued = sim.issue(Event::numbered("AUDIOHOOK-0001").at(now - 2_000).row_at(now - 1_500));
    assert_eq!(issued.time_ms, now - 2_000);
    let page = client.history(QUERY, &hour_up_to(now)).json;
    assert_eq!(page["entities"][0]["dateCreated"], format_millis(now - 1_500));
}

#[test]
fn a_definition_that_goes_is_neither_listed_nor_subscribed_to_and_its_events_stay() {
    let sim = simulator(|_| {});
    let client = Client::logged_in(&sim);
    let is_listed = || client.call("GET", "/api/v2/usage/events/definitions", "").text.contains("\"AUDIOHOOK-0001\"");
    assert!(is_listed());
    sim.undefine("AUDIOHOOK-0001");
    sim.issue(Event::numbered("AUDIOHOOK-0001").at(sim.now() - 1));
    let (id, _) = client.channel();
    assert_eq!(client.subscribe(&id, &[TOPIC]).json["entities"][0]["state"], "Rejected");
    assert!(!is_listed(), "an event of it does not bring it back");
    assert_eq!(client.history(QUERY, &hour_up_to(sim.now())).json["entities"].as_array().unwrap().len(), 1);
    sim.define(Definition::new("AUDIOHOOK-0001", "Back", ""));
    assert!(is_listed());
}

#[test]
fn available_topics_are_templates_and_say_more_when_asked() {
    let sim = simulator(|knobs| knobs.transports = vec!["EventBridge".to_owned()]);
    let client = Client::logged_in(&sim);
    let path = "/api/v2/notifications/availabletopics";
    let find = |list: &Value| {
        list["entities"].as_array().unwrap().iter().find(|t| t["id"] == "v2.operations.events.{id}").cloned().unwrap()
    };
    assert!(find(&client.call("GET", path, "").json).get("transports").is_none());
    let expand = format!("{path}?expand=transports,requiresPermissions,permissionDetails,topicParameters");
    let template = find(&client.call("GET", &expand, "").json);
    assert_eq!(template["transports"], json!(["EventBridge"]));
    assert_eq!(template["requiresPermissions"], json!(["usage:events:view"]));
    let repeated = format!("{path}?expand=transports&expand=topicParameters");
    let template = find(&client.call("GET", &repeated, "").json);
    assert!(template["transports"].is_array() && template["topicParameters"].is_array(), "{template}");
    let (id, _) = client.channel();
    assert_eq!(client.subscribe(&id, &[TOPIC]).json["entities"][0]["state"], "Rejected");
}

#[test]
fn the_comparison_of_a_collection_finds_every_kind_of_error() {
    let sim = simulator(|_| {});
    let same =
        Event { current_value: Some("same".to_owned()), conversation_id: None, ..Event::numbered("AUDIOHOOK-0001") };
    sim.issue_many(same, &[1000, 1001, 1001, 3000], Route::Both);
    sim.issue(Event::numbered("TELEPHONY-0001").at(1000));
    let record = |ms: i64, value: &str| {
        let entity = "0f8f91f9-a27d-4ddf-9026-7e1e3a8d73a6";
        let json = json!({"event_id": "AUDIOHOOK-0001", "timestamp": format_millis(ms), "entity_id": entity, "current_value": value});
        Record { line: json.to_string(), json }
    };
    let records = |times: &[i64]| times.iter().map(|ms| record(*ms, "same")).collect::<Vec<_>>();
    let verdict = |records: &[Record], tolerance| compare(&sim.issued(), records, tolerance);
    assert_eq!(verdict(&records(&[3000, 1001, 1000]), 0), Ok(()), "equal in content and time: one event");
    assert_eq!(verdict(&records(&[1001, 1002, 2999]), 1), Ok(()));
    assert!(verdict(&records(&[1000, 1001]), 0).unwrap_err().contains("lost: 1"));
    assert!(verdict(&records(&[1000, 1001, 1001, 3000]), 0).unwrap_err().contains("never issued: 1"));
    assert!(verdict(&records(&[1000, 1001, 3002]), 1).is_err());
    let other = [records(&[1000, 1001, 3000]), vec![record(1000, "other")]].concat();
    assert!(verdict(&other, 0).unwrap_err().contains("never issued: 1"));
}

#[test]
fn the_services_clock_may_be_off() {
    let sim = simulator(|knobs| knobs.clock_offset_ms = -3_600_000);
    let client = Client::logged_in(&sim);
    let date = parse_http_date(client.call("GET", CHANNELS, "").header("Date")).unwrap();
    let issued = sim.issue(Event::numbered("AUDIOHOOK-0001"));
    let now = audiohook_collector::clock::Clock::system().wall();
    assert!((now - 3_600_000 - date).abs() < 10_000);
    assert!((now - 3_600_000 - issued.time_ms).abs() < 10_000);
}
