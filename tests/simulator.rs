//! The simulated service itself, through its front door: is it as strict as the public API?

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use audiohook_collector::clock::{format_millis, parse_http_date, parse_instant};
use audiohook_collector::simulator::{
    Action, Call, Event, Knobs, Options, PER_MINUTE_MAX, Pace, Route, Simulator, frame,
};
use serde_json::{Value, json};
use support::client::Heard;
use support::collector::credentials;
use support::records::compare;
use support::{Authority, Client, Collector, Folder, Record, SOON, Socket};
use tungstenite::Message;

const CHANNELS: &str = "/api/v2/notifications/channels";
const QUERY: &str = "/api/v2/usage/events/query";
const TOPIC: &str = "v2.operations.events.AUDIOHOOK-0001";

fn simulator(change: impl FnOnce(&mut Knobs)) -> Simulator {
    let mut options = Options::default();
    change(&mut options.knobs);
    Simulator::start(options).unwrap()
}

/// A service, a client of it, and a socket that is subscribed to [`TOPIC`].
fn connected() -> (Simulator, Client, String, Socket) {
    let sim = simulator(|_| {});
    let client = Client::logged_in(&sim);
    let (id, uri) = client.channel();
    let mut socket = Socket::open(&uri).unwrap();
    assert_eq!(client.subscribe(&id, &[TOPIC]).status, 200);
    assert_eq!(socket.hear_json(), json!({"result": "200", "status": "subscribed"}));
    (sim, client, uri, socket)
}

fn hour_up_to(ms: i64) -> Value {
    json!({"interval": format!("{}/{}", format_millis(ms - 3_600_000), format_millis(ms)), "sortOrder": "ASC"})
}

#[test]
fn only_who_proves_to_be_a_client_gets_a_token() {
    let sim = simulator(|knobs| knobs.token_life = Duration::from_secs(60));
    let client = Client::new(&sim);
    let (id, secret) = credentials();
    let good = client.login(&id, &secret, "grant_type=client_credentials").unwrap();
    assert_eq!((good.status, &good.json["token_type"], &good.json["expires_in"]), (200, &json!("bearer"), &json!(60)));
    for (id, secret, form, status, error) in [
        (id.as_str(), "wrong", "grant_type=client_credentials", 401, "invalid_client"),
        ("nobody", &secret, "grant_type=client_credentials", 400, "invalid_client"),
        (&id, &secret, "grant_type=password", 400, "unsupported_grant_type"),
    ] {
        let refused = client.login(id, secret, form).unwrap();
        assert_eq!((refused.status, refused.json["error"].as_str()), (status, Some(error)));
        assert!(refused.json["error_description"].is_string());
    }
}

#[test]
fn a_call_without_a_living_token_is_refused_with_the_services_body() {
    let sim = simulator(|_| {});
    let mut client = Client::new(&sim);
    let code = |client: &Client| {
        let answer = client.call("GET", "/api/v2/usage/events/definitions", "");
        assert_eq!(answer.status, 401);
        for field in ["message", "code", "status", "contextId", "details", "errors"] {
            assert!(answer.json.get(field).is_some(), "{field}");
        }
        assert_eq!(answer.header("ININ-Correlation-Id"), answer.json["contextId"].as_str().unwrap());
        answer.json["code"].as_str().unwrap().to_owned()
    };
    assert_eq!(code(&client), "authentication.required");
    client.token = "unknown".to_owned();
    assert_eq!(code(&client), "bad.credentials");
    let client = Client::logged_in(&sim);
    sim.faults().expire_tokens();
    assert_eq!(code(&client), "credentials.expired");
    let client = Client::logged_in(&sim);
    sim.faults().revoke_tokens();
    assert_eq!(code(&client), "bad.credentials");
}

#[test]
fn unknown_paths_and_methods_are_told_apart() {
    let sim = simulator(|_| {});
    let client = Client::logged_in(&sim);
    assert_eq!(client.call("GET", "/api/v2/nothing", "").status, 404);
    let answer = client.call("GET", QUERY, "");
    assert_eq!((answer.status, answer.header("Allow")), (405, "POST"));
    assert_eq!(client.call("PATCH", CHANNELS, "{}").status, 405);
}

#[test]
fn over_300_requests_a_minute_a_client_is_told_how_long_to_wait() {
    let sim = simulator(|_| {});
    let client = Client::logged_in(&sim);
    for _ in 0..300 {
        assert_eq!(client.call("GET", CHANNELS, "").status, 200);
    }
    let answer = client.call("GET", CHANNELS, "");
    let wait: u64 = answer.header("Retry-After").parse().unwrap();
    assert_eq!(answer.status, 429);
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(sim.view(|view| view.most_in_a_minute(Call::Channels)), 301);
    sim.faults().set(|knobs| knobs.requests_per_minute = None);
    assert_eq!(client.call("GET", CHANNELS, "").status, 200);
}

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
    for path in ["?pageSize=201", "?pageSize=0", "?pageSize=x", "?after=nonsense", "?after=a&before=b"] {
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
    assert!(last.get("previousUri").is_some());
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
    for definition in definitions["entities"].as_array().unwrap() {
        let one = client.call("GET", definition["selfUri"].as_str().unwrap(), "");
        assert_eq!((one.status, &one.json), (200, definition));
    }
    for unknown in ["NOPE-0001", "AUDIOHOOK-0001/more", ""] {
        assert_eq!(client.call("GET", &format!("/api/v2/usage/events/definitions/{unknown}"), "").status, 404);
    }
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
fn subscriptions_take_a_bare_array_and_judge_each_topic() {
    let sim = simulator(|_| {});
    let client = Client::logged_in(&sim);
    let (id, _) = client.channel();
    let path = format!("{CHANNELS}/{id}/subscriptions");
    for body in ["{\"topics\":[]}", "[\"v2.a\"]", "[{\"name\":1}]", "nonsense"] {
        assert_eq!(client.call("PUT", &path, body).status, 400, "{body}");
    }
    let many: Vec<Value> = (0..1001).map(|n| json!({"id": format!("v2.users.{n}.presence")})).collect();
    assert_eq!(client.call("PUT", &path, &Value::from(many).to_string()).status, 400);
    // The limit comes first: before equal topics count as one, and before any is judged.
    for topics in [vec![TOPIC.to_owned(); 1001], (0..1001).map(|n| format!("v2.nothing.{n}")).collect()] {
        let body: Value = topics.iter().map(|topic| json!({"id": topic})).collect();
        let answer = client.call("PUT", &path, &body.to_string());
        assert_eq!((answer.status, &answer.json["code"]), (400, &json!("too.many.topics")));
    }
    sim.faults().reject_topics("v2.operations.events.AUDIOHOOK-0002", "Missing permission", &["usage:events:view"]);
    let second = "v2.operations.events.AUDIOHOOK-0002";
    let body = json!([{"id": TOPIC}, {"id": second}]).to_string();
    let strict = client.call("PUT", &path, &body);
    assert_eq!((strict.status, &strict.json["code"]), (403, &json!("missing.any.permissions")));
    let topics = [TOPIC, second, "v2.operations.events.*", "platform.integration.audiohook", "channel.metadata"];
    let answer = client.subscribe(&id, &topics).json;
    let states: Vec<&str> =
        answer["entities"].as_array().unwrap().iter().map(|entity| entity["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["Permitted", "Rejected", "Rejected", "Rejected", "Rejected"]);
    assert_eq!(answer["entities"][1]["missingPermissions"], json!(["usage:events:view"]));
    let ids = |answer: Value| answer["entities"].as_array().unwrap().len();
    assert_eq!(ids(client.call("GET", &path, "").json), 1);
    let more = json!([{"id": "v2.operations.events.AUDIOHOOK-0003"}]).to_string();
    assert_eq!(client.call("POST", &path, &more).status, 200);
    assert_eq!(ids(client.call("GET", &path, "").json), 2, "POST adds");
    assert_eq!(client.call("PUT", &path, &more).status, 200);
    assert_eq!(ids(client.call("GET", &path, "").json), 1, "PUT replaces");
    assert_eq!(client.call("DELETE", &path, "").status, 204);
    assert_eq!(ids(client.call("GET", &path, "").json), 0);
}

#[test]
fn the_21st_channel_evicts_the_unconnected_one_unused_longest() {
    let sim = simulator(|_| {});
    let client = Client::logged_in(&sim);
    let (first, uri) = client.channel();
    let _socket = Socket::open(&uri).unwrap();
    let others: Vec<String> = (0..19).map(|_| client.channel().0).collect();
    let there = |id: &str| client.call("HEAD", &format!("{CHANNELS}/{id}"), "").status == 200;
    assert!(there(&others[0]), "asking for it uses it");
    client.channel();
    assert!(there(&first) && there(&others[0]) && !there(&others[1]));
    assert_eq!(sim.view(|view| (view.channels().len(), view.channels_made())), (20, 21));
    let gone = uri.replace(&first, &others[1]);
    assert_eq!(Socket::open(&gone).err(), Some(404));
}

#[test]
fn a_channel_ends_its_life_after_its_last_subscription() {
    let sim = simulator(|knobs| knobs.channel_life = Duration::from_secs(2));
    let client = Client::logged_in(&sim);
    let (id, uri) = client.channel();
    let mut socket = Socket::open(&uri).unwrap();
    support::let_pass(Duration::from_secs(1));
    assert_eq!(client.subscribe(&id, &[TOPIC]).status, 200);
    let renewed = Instant::now();
    socket.hear_end();
    assert!(renewed.elapsed() >= Duration::from_millis(1900), "{:?}", renewed.elapsed());
    assert_eq!(client.call("HEAD", &format!("{CHANNELS}/{id}"), "").status, 404);
    assert_eq!(client.subscribe(&id, &[TOPIC]).status, 404);
}

#[test]
fn a_channel_may_belong_to_its_token() {
    let sim = simulator(|_| {});
    let (first, second) = (Client::logged_in(&sim), Client::logged_in(&sim));
    let (id, _) = first.channel();
    let path = format!("{CHANNELS}/{id}");
    assert_eq!(second.call("HEAD", &path, "").status, 200, "to the client, unless told otherwise");
    sim.faults().set(|knobs| knobs.channels_belong_to_token = true);
    assert_eq!(second.call("HEAD", &path, "").status, 404);
    assert_eq!(first.call("HEAD", &path, "").status, 200);
}

#[test]
fn an_event_comes_on_the_socket_that_is_open_and_on_no_later_one() {
    let (sim, _client, uri, mut socket) = connected();
    let issued = sim.issue(Event::numbered("AUDIOHOOK-0001"));
    let frame = socket.hear_event();
    assert_eq!(frame["topicName"], TOPIC);
    assert_eq!(frame["version"], "2");
    assert_eq!(frame["eventBody"]["timestamp"], issued.time_ms);
    sim.issue(Event::numbered("AUDIOHOOK-0002"));
    assert_eq!(socket.hear(Duration::from_millis(100)), Heard::Nothing, "it is not subscribed to that");
    sim.faults().cut_sockets();
    socket.hear_end();
    assert!(sim.wait_until(SOON, |view| view.sockets_open() == 0));
    sim.issue(Event::numbered("AUDIOHOOK-0001"));
    let mut socket = Socket::open(&uri).unwrap();
    assert_eq!(socket.hear(Duration::from_millis(100)), Heard::Nothing, "nothing is queued");
    let issued = sim.issue(Event::numbered("AUDIOHOOK-0001"));
    assert_eq!(socket.hear_event()["eventBody"]["timestamp"], issued.time_ms, "subscriptions stay with the channel");
}

#[test]
fn an_event_may_come_late_or_twice_on_the_socket() {
    let (sim, _client, _uri, mut socket) = connected();
    let late = sim.issue_by(Event::numbered("AUDIOHOOK-0001"), Route::HistoryOnly);
    sim.faults().set(|knobs| knobs.socket_to_drop = 1);
    sim.issue(Event::numbered("AUDIOHOOK-0001"));
    sim.faults().set(|knobs| knobs.socket_to_double = 1);
    let twice = sim.issue(Event::numbered("AUDIOHOOK-0001"));
    sim.send_again([late.number, late.number]);
    let mut value = || socket.hear_event()["eventBody"]["currentValue"].as_str().unwrap().to_owned();
    for issued in [&twice, &twice, &late, &late] {
        assert_eq!(value(), format!("event {:012}", issued.number));
    }
    assert_eq!(sim.issued().len(), 3);
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
fn a_second_socket_on_a_channel_ends_the_first() {
    let (sim, _client, uri, mut first) = connected();
    let mut second = Socket::open(&uri).unwrap();
    first.hear_end();
    sim.issue(Event::numbered("AUDIOHOOK-0001"));
    second.hear_event();
    sim.faults().take_over_channels();
    second.hear_end();
}

#[test]
fn heartbeats_come_and_pings_are_answered() {
    let (sim, _client, uri, mut socket) = connected();
    socket.send(Message::text("{\"message\": \"ping\"}"));
    let pong = json!({"topicName": "channel.metadata", "eventBody": {"message": "pong"}});
    assert_eq!(socket.hear_json(), pong);
    socket.send(Message::Ping("x".into()));
    assert_eq!(socket.hear(SOON), Heard::Message(Message::Pong("x".into())));
    assert_eq!(sim.view(|view| view.pings()), 2);
    sim.faults().set(|knobs| knobs.heartbeat = Duration::from_millis(50));
    let mut socket = Socket::open(&uri).unwrap();
    for _ in 0..3 {
        assert_eq!(socket.hear_json()["eventBody"]["message"], "WebSocket Heartbeat");
    }
    sim.faults().half_open_sockets();
    socket.send(Message::text("{\"message\": \"ping\"}"));
    while socket.hear(Duration::from_millis(300)) != Heard::Nothing {}
    sim.faults().thaw_sockets();
    assert!(socket.hear_json()["eventBody"]["message"].is_string());
}

#[test]
fn frames_of_any_kind_can_be_sent() {
    let (sim, _client, _uri, mut socket) = connected();
    let faults = sim.faults();
    faults.send_in_pieces(&frame::in_frames_of(b"{\"a\":1}", 2), 1, Duration::from_millis(1));
    assert_eq!(socket.hear_json(), json!({"a": 1}));
    faults.send_bytes(&frame::encode(frame::BINARY, true, &[0xff, 0]));
    assert_eq!(socket.hear(SOON), Heard::Message(Message::Binary(vec![0xff, 0].into())));
    faults.announce_closing();
    assert_eq!(socket.hear_json()["topicName"], "v2.system.socket_closing");
    faults.stall_sockets_in("{\"b\":2}");
    assert_eq!(socket.hear(Duration::from_millis(200)), Heard::Nothing);
    faults.thaw_sockets();
    assert_eq!(socket.hear_json(), json!({"b": 2}));
    faults.close_sockets(1001, "idle timeout");
    match socket.hear(SOON) {
        Heard::Message(Message::Close(Some(close))) => assert_eq!(u16::from(close.code), 1001),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_client_that_does_not_read_can_be_cut_and_reset() {
    let (sim, _client, uri, socket) = connected();
    let big = Event {
        extra: vec![("more".to_owned(), format!("\"{}\"", "x".repeat(2000)))],
        ..Event::numbered("AUDIOHOOK-0001")
    };
    let times: Vec<i64> = (0..20_000).map(|n| sim.now() + n).collect();
    sim.issue_many(big.clone(), &times, Route::SocketOnly);
    assert!(sim.wait_until(SOON, |view| view.frames_sent() > 0));
    sim.faults().cut_sockets();
    assert!(sim.wait_until(SOON, |view| view.sockets_open() == 0), "the writer does not wait for the client");
    assert!(sim.view(|view| view.frames_sent()) < 20_000, "the rest is lost with the connection");
    drop(socket);
    let mut socket = Socket::open(&uri).unwrap();
    sim.issue_many(big, &times, Route::SocketOnly);
    sim.faults().reset_sockets();
    socket.hear_end();
}

#[test]
fn the_service_says_when_a_token_or_the_subscriptions_are_gone() {
    let (sim, client, _uri, mut socket) = connected();
    sim.faults().announce_no_longer_subscribed();
    assert_eq!(socket.hear_json()["topicName"], "v2.system.no_longer_subscribed");
    sim.issue(Event::numbered("AUDIOHOOK-0001"));
    sim.faults().announce_token_revoked();
    assert_eq!(socket.hear_json()["topicName"], "v2.system.token_revoked", "no event came before it");
    assert_eq!(client.call("GET", CHANNELS, "").status, 401);
}

#[test]
fn an_evicted_channel_tells_its_socket_and_refuses_the_next() {
    let (sim, _client, uri, mut socket) = connected();
    sim.faults().evict_channels();
    assert_eq!(socket.hear_json()["result"], "404");
    socket.hear_end();
    assert_eq!(Socket::open(&uri).err(), Some(404));
}

#[test]
fn a_call_goes_wrong_as_often_as_told() {
    let sim = simulator(|_| {});
    let client = Client::logged_in(&sim);
    let faults = sim.faults();
    let get = || client.try_call("GET", CHANNELS, "");
    faults.fail_next(Call::Channels, Action::Status { status: 429, retry_after_s: Some(7) }, 1);
    let answer = get().unwrap();
    assert_eq!((answer.status, answer.header("Retry-After")), (429, "7"));
    faults.fail_next(Call::Channels, Action::Nonsense, 1);
    assert!(get().unwrap().text.contains("<html>"));
    for action in [Action::Half, Action::Reset] {
        faults.fail_next(Call::Channels, action, 1);
        assert!(get().is_err());
    }
    faults.fail_next(Call::Channels, Action::Slow(Duration::from_millis(200)), 1);
    let start = Instant::now();
    assert_eq!(get().unwrap().status, 200);
    assert!(start.elapsed() >= Duration::from_millis(200));
    faults.fail(Call::History, Action::status(403));
    let refused = client.history(QUERY, &hour_up_to(sim.now()));
    assert!(refused.json["message"].as_str().unwrap().contains("usage:events:view"));
    faults.fail(Call::Handshake, Action::status(503));
    assert_eq!(Socket::open(&client.channel().1).err(), Some(503));
    faults.fail_all(&Action::status(502));
    assert_eq!(client.call("GET", "/anything", "").status, 502);
    faults.heal_all();
    assert!(Socket::open(&client.channel().1).is_ok());
}

#[test]
fn a_hanging_call_ends_when_it_is_healed() {
    let sim = simulator(|_| {});
    let client = Client::logged_in(&sim);
    sim.faults().fail(Call::Channels, Action::Hang);
    let faults = sim.faults();
    let waiting = audiohook_collector::thread::spawn("asks", move || client.try_call("GET", CHANNELS, "").is_err());
    assert!(sim.wait_until(SOON, |view| view.count(Call::Channels) == 1));
    faults.heal(Call::Channels);
    assert!(waiting.unwrap().join().unwrap(), "it ends without an answer");
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

#[test]
fn over_tls_everything_is_on_the_same_port() {
    let folder = Folder::new("sim-tls");
    let authority = Authority::new();
    let identity = authority.identity(&["localhost", "127.0.0.1"]);
    let options = Options { tls: Some(identity), host: Some("localhost".to_owned()), ..Options::default() };
    let sim = Simulator::start(options).unwrap();
    assert!(sim.url().starts_with("https://localhost:"));
    assert!(authority.write(&folder, "ca.pem").exists());
    let ca = native_tls::Certificate::from_pem(&authority.certificate_pem()).unwrap();
    let connector = native_tls::TlsConnector::builder().add_root_certificate(ca).build().unwrap();
    let connect = || {
        let tcp = std::net::TcpStream::connect_timeout(&sim.address(), SOON).unwrap();
        tcp.set_read_timeout(Some(SOON)).unwrap();
        connector.connect("localhost", tcp).unwrap()
    };
    let ask = |head: String, body: &str| {
        use std::io::{Read, Write};
        let mut tls = connect();
        let request =
            format!("{head}\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        tls.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        tls.read_to_string(&mut text).unwrap();
        let body = text.split_once("\r\n\r\n").unwrap().1;
        serde_json::from_str::<Value>(body).unwrap()
    };
    let (id, secret) = credentials();
    let basic = data_encoding::BASE64.encode(format!("{id}:{secret}").as_bytes());
    let login = format!("POST /oauth/token HTTP/1.1\r\nAuthorization: Basic {basic}");
    let token = ask(login, "grant_type=client_credentials")["access_token"].as_str().unwrap().to_owned();
    let bearer = format!("Authorization: Bearer {token}");
    let channel = ask(format!("POST {CHANNELS} HTTP/1.1\r\n{bearer}"), "");
    let uri = channel["connectUri"].as_str().unwrap();
    assert!(uri.starts_with("wss://localhost/"), "{uri}");
    let path = format!("{CHANNELS}/{}/subscriptions", channel["id"].as_str().unwrap());
    ask(format!("PUT {path} HTTP/1.1\r\n{bearer}"), &json!([{"id": TOPIC}]).to_string());
    let (mut socket, _) = tungstenite::client(uri, connect()).unwrap();
    let times: Vec<i64> = (0..2000).map(|n| sim.now() + n).collect();
    sim.issue_many(Event::numbered("AUDIOHOOK-0001"), &times, Route::Both);
    for number in 1..=2000 {
        let text = socket.read().unwrap().into_text().unwrap();
        assert!(text.contains(&format!("\"event {number:012}\"")), "{text}");
    }
}

#[test]
fn a_burst_of_200_000_events_arrives_whole_and_in_order() {
    let (sim, _client, _uri, mut socket) = connected();
    let now = sim.now();
    let times: Vec<i64> = (0..200_000).map(|n| now + n / 100).collect();
    let start = Instant::now();
    let first = sim.issue_many(Event::numbered("AUDIOHOOK-0001"), &times, Route::Both);
    for number in first..first + 200_000 {
        match socket.hear(SOON) {
            Heard::Message(Message::Text(text)) => {
                assert!(text.contains(&format!("\"event {number:012}\"")), "{text}");
            }
            other => panic!("{other:?} instead of {number}"),
        }
    }
    eprintln!("200,000 events in {:?}", start.elapsed());
    assert_eq!(sim.view(|view| view.frames_sent()), 200_000);
    assert_eq!(sim.view(|view| view.history_rows()), 200_000);
}

#[test]
fn generated_events_look_like_incidents_and_follow_from_the_seed() {
    let story = |seed| {
        let mut sim = Simulator::start(Options { seed, ..Options::default() }).unwrap();
        sim.generate(Pace { per_minute: 60.0, past: Duration::from_secs(3600) }).unwrap();
        let past = sim.view(|view| view.issued());
        assert!((2500..5000).contains(&past), "about one a second: {past}");
        let limit = Duration::from_secs(5);
        assert!(sim.wait_until(limit, |view| view.issued() > past), "a live event comes soon");
        let issued = sim.issued();
        assert!(issued[past as usize].definition.starts_with("AUDIOHOOK-"), "and it is AudioHook's");
        issued.into_iter().take(500).map(|event| event.key).collect::<Vec<_>>()
    };
    let keys = story(1);
    assert_eq!(keys, story(1));
    assert_ne!(keys, story(2));
    let codes: BTreeSet<&str> = keys.iter().map(|key| key.split('|').next().unwrap()).collect();
    assert!(codes.iter().filter(|code| code.starts_with("AUDIOHOOK-")).count() >= 5, "{codes:?}");
    assert!(codes.iter().any(|code| !code.starts_with("AUDIOHOOK-")), "{codes:?}");
}

#[test]
fn the_highest_rate_is_kept() {
    let mut sim = Simulator::start(Options::default()).unwrap();
    sim.generate(Pace { per_minute: PER_MINUTE_MAX, past: Duration::ZERO }).unwrap();
    let limit = Duration::from_secs(30);
    assert!(sim.wait_until(limit, |view| view.issued() > 0));
    // The machine may be busy: one of three measurements must come out.
    let seconds = [1, 2, 3].map(|_| {
        let (start, from) = (Instant::now(), sim.view(|view| view.issued()));
        assert!(sim.wait_until(limit, |view| view.issued() >= from + 2_000));
        start.elapsed().as_secs_f64()
    });
    assert!(seconds.iter().any(|s| (1.8..2.2).contains(s)), "a thousand a second: {seconds:?}");
}

#[test]
fn the_command_prints_settings_that_work_and_ends_at_a_signal() {
    let folder = Folder::new("simulate");
    let arguments = ["simulate", "--listen", "127.0.0.1:0", "--rate", "60", "--seed", "7"];
    let mut process = Collector::run(folder.path(), &arguments, &BTreeMap::new());
    process.wait_log("Ctrl-C", SOON);
    let lines = process.log_lines();
    let setting = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap();
    assert_eq!(setting("GENESYS_LOGIN_URL"), setting("GENESYS_API_URL"));
    let mut client = Client::at(setting("GENESYS_LOGIN_URL"));
    let (id, secret) = (setting("GENESYS_CLIENT_ID"), setting("GENESYS_CLIENT_SECRET"));
    let login = |secret| client.login(id, secret, "grant_type=client_credentials").unwrap();
    assert_eq!(login("any").status, 401);
    client.token = login(secret).json["access_token"].as_str().unwrap().to_owned();
    let now = audiohook_collector::clock::Clock::system().wall();
    let page = client.history(&format!("{QUERY}?pageSize=200"), &hour_up_to(now)).json;
    assert_eq!(page["entities"].as_array().unwrap().len(), 200, "an hour of history");
    let (channel, uri) = client.channel();
    let mut socket = Socket::open(&uri).unwrap();
    let definitions = client.call("GET", "/api/v2/usage/events/definitions", "").json;
    let topics: Vec<String> = definitions["entities"]
        .as_array()
        .unwrap()
        .iter()
        .map(|definition| format!("v2.operations.events.{}", definition["id"].as_str().unwrap()))
        .collect();
    client.subscribe(&channel, &topics.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(socket.hear_event()["eventBody"]["eventEntity"]["id"].is_string(), "an event comes soon");
    assert_eq!(process.term().code(), Some(0));
}

#[test]
fn stopping_frees_the_port_and_ends_the_sockets() {
    let (sim, client, _uri, mut socket) = connected();
    let address = sim.address();
    drop(sim);
    socket.hear_end();
    assert!(client.try_call("GET", CHANNELS, "").is_err());
    let again = Simulator::start(Options { listen: address.to_string(), ..Options::default() });
    assert!(again.is_ok(), "{:?}", again.err());
}
