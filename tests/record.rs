//! What comes on the socket or from the history is in the file as the record that is promised, value for value; what is
//! no event is counted and kept aside, and the next event still arrives.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::time::Duration;

use audiohook_collector::clock::parse_instant;
use audiohook_collector::simulator::{Definition, Event, Knobs, Options, Route, Simulator, frame};
use serde_json::{Value, json};
use support::{Collector, Folder, Record, SOON, let_pass, poll};

fn simulator() -> Simulator {
    let knobs = Knobs { requests_per_minute: None, ..Knobs::default() };
    Simulator::start(Options { knobs, ..Options::default() }).unwrap()
}

/// A collector that has the socket alone, so that what a test sends is all that comes.
fn on_socket(name: &str, changed: &[(&str, &str)]) -> (Simulator, Folder, Collector) {
    let (sim, folder) = (simulator(), Folder::new(name));
    let mut all = vec![("GENESYS_DELIVERY", "websocket")];
    all.extend_from_slice(changed);
    let collector = Collector::start(&sim, &folder, &all);
    collector.wait_healthy();
    (sim, folder, collector)
}

/// A frame around this body.
fn around(body: &str) -> String {
    format!(
        "{{\"topicName\":\"v2.operations.events.AUDIOHOOK-0001\",\"version\":\"2\",\"eventBody\":{body},\"metadata\":{{\"CorrelationId\":\"x\"}}}}"
    )
}

/// A body that is told from others by its conversation.
fn body(conversation: &str) -> String {
    format!("{{\"eventEntity\":{{\"id\":\"AUDIOHOOK-0001\"}},\"conversationId\":\"{conversation}\"}}")
}

/// Sends a body and gives the record that it becomes.
fn record_of(sim: &Simulator, collector: &Collector, body: &str) -> Record {
    let before = collector.records().len();
    sim.faults().send_text(&around(body));
    collector.wait_lines(before + 1, SOON).pop().unwrap()
}

/// Sends an event, which must arrive.
fn next_event_arrives(sim: &Simulator, collector: &Collector, conversation: &str) {
    sim.faults().send_text(&around(&body(conversation)));
    let arrived = poll(SOON, || {
        collector.records().iter().any(|r| r.text("conversation_id") == Some(conversation)).then_some(())
    });
    assert!(arrived.is_some(), "{conversation} is not in the file\n{}", collector.log_text());
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Counts {
    received: f64,
    written: f64,
    duplicate: f64,
    filtered: f64,
    unreadable: f64,
}

fn counts(collector: &Collector) -> Counts {
    let of = |name: &str| {
        collector.metric(&format!("audiohook_collector_{name}")).unwrap_or_else(|| panic!("no metric {name}"))
    };
    Counts {
        received: of("events_received_total{source=\"websocket\"}") + of("events_received_total{source=\"history\"}"),
        written: of("events_written_total"),
        duplicate: of("events_duplicate_total"),
        filtered: of("events_filtered_total"),
        unreadable: of("events_unreadable_total"),
    }
}

/// Waits for these counts, which must add up.
fn wait_counts(collector: &Collector, written: u32, duplicate: u32, filtered: u32, unreadable: u32) {
    let [written, duplicate, filtered, unreadable] = [written, duplicate, filtered, unreadable].map(f64::from);
    let received = written + duplicate + filtered + unreadable;
    let expected = Counts { received, written, duplicate, filtered, unreadable };
    let seen = poll(SOON, || (counts(collector) == expected).then_some(()));
    assert!(seen.is_some(), "expected {expected:?}, found {:?}\n{}", counts(collector), collector.log_text());
}

const FIELDS: [&str; 19] = [
    "timestamp",
    "event_type",
    "event_id",
    "event_name",
    "description",
    "conversation_id",
    "entity_type",
    "entity_id",
    "entity_name",
    "version",
    "topic",
    "channel",
    "error_code",
    "previous_value",
    "current_value",
    "received_at",
    "source",
    "id",
    "raw_event",
];

/// The line that these values make, in the promised order.
fn line_of(record: &Record, raw: &str, values: &[(&str, &str)]) -> String {
    let fields = FIELDS.map(|field| {
        let own = |name: &str| Value::from(record.text(name).unwrap()).to_string();
        let value = match field {
            "timestamp" | "received_at" | "id" | "channel" => own(field),
            "event_type" => "\"audiohook_operational\"".to_owned(),
            "source" => "\"websocket\"".to_owned(),
            "topic" => "\"v2.operations.events.AUDIOHOOK-0001\"".to_owned(),
            "raw_event" => raw.to_owned(),
            _ => values.iter().find(|(name, _)| *name == field).map_or("null", |(_, value)| value).to_owned(),
        };
        format!("\"{field}\":{value}")
    });
    format!("{{{}}}", fields.join(","))
}

#[test]
fn a_record_has_its_fields_in_their_order_and_null_where_there_is_no_value() {
    let (sim, _folder, collector) = on_socket("fields", &[]);
    let bare = "{\"eventEntity\":{\"id\":\"AUDIOHOOK-0001\"}}";
    let record = record_of(&sim, &collector, bare);
    assert_eq!(record.line, line_of(&record, bare, &[("event_id", "\"AUDIOHOOK-0001\"")]));
    assert_eq!(record.text("timestamp"), record.text("received_at"), "without a time of its own: the receipt");
    let channel = &sim.view(|view| view.channels())[0];
    assert_eq!(record.text("channel"), Some(format!("…{}", &channel[channel.len() - 4..]).as_str()));
    assert!(record.text("id").is_some_and(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())));

    let full = "{\"eventEntity\":{\"id\":\"AUDIOHOOK-0002\",\"name\":\"N \\\"q\\\" \\u00e9\",\"description\":\"\"},\"entityId\":12345678901234567890,\
        \"entityName\":true,\"entityType\":\"inte/gr\\/ation\",\"previousValue\":[1],\"currentValue\":{\"a\":1},\"errorCode\":-7.50e1,\
        \"conversationId\":\"c\",\"version\":1.0,\"timestamp\":1795430645123,\"parentEntity\":\"p\",\"later\":null}";
    let record = record_of(&sim, &collector, full);
    let values = [
        ("event_id", "\"AUDIOHOOK-0002\""),
        ("event_name", "\"N \\\"q\\\" \\u00e9\""),
        ("description", "\"\""),
        ("entity_id", "\"12345678901234567890\""),
        ("entity_name", "\"true\""),
        ("entity_type", "\"inte/gr\\/ation\""),
        ("error_code", "\"-7.50e1\""),
        ("conversation_id", "\"c\""),
        ("version", "\"1.0\""),
    ];
    assert_eq!(record.line, line_of(&record, full, &values));
    assert_eq!(record.text("timestamp"), Some("2026-11-23T10:44:05.123Z"));
    for time in ["timestamp", "received_at"] {
        let text = record.text(time).unwrap();
        assert!(text.len() == 24 && text.ends_with('Z'), "{text}");
    }
    // Of a key given twice the last counts; a value that is none is null.
    let twice = "{\"eventEntity\":{\"id\":\"OTHER-1\",\"name\":\"gone\"},\"eventEntity\":{\"id\":\"X\",\"id\":\"AUDIOHOOK-0003\"},\
        \"version\":\"1\",\"version\":null,\"errorCode\":\"a\",\"errorCode\":\"b\"}";
    let record = record_of(&sim, &collector, twice);
    let values = [("event_id", "\"AUDIOHOOK-0003\""), ("error_code", "\"b\"")];
    assert_eq!(record.line, line_of(&record, twice, &values));
    wait_counts(&collector, 3, 0, 0, 0);
}

#[test]
fn raw_event_is_what_came_value_for_value_on_one_line() {
    let (sim, _folder, collector) = on_socket("raw", &[]);
    let deep = |levels: usize| format!("{}1.0{}", "[{\"d\":".repeat(levels), "}]".repeat(levels));
    let long = format!("\"{}\"", "x\u{1F600}\\n".repeat(90_000));
    let values = [
        "1e400",
        "-1E-400",
        "1.0",
        "-0",
        "-0.0",
        "12345678901234567890",
        "0.1000000000000000055511151231257827",
        "{\"a\":1,\"a\":2,\"\":3}",
        "{\"z\":1,\"a\":{\"y\":[],\"b\":{}}}",
        "[null,true,false,\"\"]",
        "\"\\u0000\\ud83d\\ude00\\ud800 \\/ / \u{7f} \u{2028} \u{feff} é\"",
        "\"line\\nfeed\\r\\ttab\"",
        &deep(100),
        &deep(2_000),
        &deep(120_000),
        &long,
    ];
    for (number, value) in values.into_iter().enumerate() {
        let raw =
            format!("{{\"eventEntity\":{{\"id\":\"AUDIOHOOK-0001\"}},\"conversationId\":\"{number}\",\"x\":{value}}}");
        sim.faults().send_text(&around(&raw));
        let file = collector.output_file();
        let lines = poll(SOON, || {
            let text = std::fs::read_to_string(file).unwrap();
            (text.ends_with('\n') && text.lines().count() == number + 1).then_some(text)
        });
        let lines = lines.unwrap_or_else(|| panic!("{:.80} does not arrive\n{}", value, collector.log_text()));
        let line = lines.lines().last().unwrap();
        assert!(line.ends_with(&format!(",\"raw_event\":{raw}}}")), "{raw:.300} became {line:.900}");
    }
    let spaced = " {\n\t\"eventEntity\" : {\r\n \"id\" : \"AUDIOHOOK-0001\" } ,\n\"a b\" : [ 1.0 , \"  c \\n \" , { } ] , \"conversationId\":\"spaced\"\n} ";
    let compact =
        "{\"eventEntity\":{\"id\":\"AUDIOHOOK-0001\"},\"a b\":[1.0,\"  c \\n \",{}],\"conversationId\":\"spaced\"}";
    sim.faults().send_text(&around(spaced));
    let line = poll(SOON, || {
        let text = std::fs::read_to_string(collector.output_file()).unwrap();
        text.lines().last().filter(|line| line.contains("\"spaced\"") && text.ends_with('\n')).map(str::to_owned)
    });
    let line = line.unwrap();
    assert!(line.ends_with(&format!(",\"raw_event\":{compact}}}")), "{line}");
    wait_counts(&collector, values.len() as u32 + 1, 0, 0, 0);
    let (status, recent) = collector.get("/events?conversation_id=0").unwrap();
    assert!(status == 200 && recent.contains("\"x\":1e400"), "{recent}");
}

#[test]
fn the_events_own_time_is_found_however_it_is_written() {
    let (sim, _folder, collector) = on_socket("times", &[]);
    let own = [
        ("1795430645123", "2026-11-23T10:44:05.123Z"),
        ("\"1795430645123\"", "2026-11-23T10:44:05.123Z"),
        ("1795430645123.9", "2026-11-23T10:44:05.123Z"),
        ("\"2026-11-23T10:44:05.123Z\"", "2026-11-23T10:44:05.123Z"),
        ("\"2026-11-23T10:44:05Z\"", "2026-11-23T10:44:05.000Z"),
        ("\"2026-11-23T12:44:05.123456+02:00\"", "2026-11-23T10:44:05.123Z"),
        ("\"2026-11-23T05:14:05.1-05:30\"", "2026-11-23T10:44:05.100Z"),
        ("\"2026-11-23T10:44:05.123+0000\"", "2026-11-23T10:44:05.123Z"),
        ("0", "1970-01-01T00:00:00.000Z"),
    ];
    for (number, (time, expected)) in own.into_iter().enumerate() {
        let body =
            format!("{{\"eventEntity\":{{\"id\":\"AUDIOHOOK-0001\"}},\"entityId\":\"{number}\",\"timestamp\":{time}}}");
        let record = record_of(&sim, &collector, &body);
        assert_eq!(record.text("timestamp"), Some(expected), "{time}");
    }
    for (number, time) in ["null", "\"\"", "\"soon\"", "[]", "true", "1e300", "-5", "{\"a\":1}"].into_iter().enumerate()
    {
        let body = format!(
            "{{\"eventEntity\":{{\"id\":\"AUDIOHOOK-0001\"}},\"entityId\":\"r{number}\",\"timestamp\":{time}}}"
        );
        let record = record_of(&sim, &collector, &body);
        assert_eq!(record.text("timestamp"), record.text("received_at"), "{time}");
        let age = sim.now() - record.time_ms();
        assert!((-2_000..20_000).contains(&age), "{time}: {age} ms");
    }
    // The same content without a time, twice: rather a double than a loss, and two ids.
    let bare = body("timeless");
    let first = record_of(&sim, &collector, &bare);
    let second = record_of(&sim, &collector, &bare);
    assert_ne!(first.text("id"), second.text("id"));
    // The same event again is one.
    let timed =
        "{\"eventEntity\":{\"id\":\"AUDIOHOOK-0001\"},\"entityId\":\"0\",\"timestamp\":1795430645123,\"more\":1}";
    sim.faults().send_text(&around(timed));
    wait_counts(&collector, 19, 1, 0, 0);
}

#[test]
fn an_event_has_the_same_id_whichever_way_it_comes() {
    let sim = simulator();
    let (socket_folder, history_folder) = (Folder::new("by-socket"), Folder::new("by-history"));
    sim.define(Definition::new("AUDIOHOOK-0042", "New trouble", "It is \"new\"."));
    let by_socket = Collector::start(&sim, &socket_folder, &[("GENESYS_DELIVERY", "websocket")]);
    let by_history = Collector::start(&sim, &history_folder, &[("GENESYS_DELIVERY", "history")]);
    by_socket.wait_healthy();
    by_history.wait_healthy();
    let events = [
        Event::numbered("AUDIOHOOK-0042"),
        Event {
            error_code: Some(String::new()),
            previous_value: Some("a \"b\" \\ é".into()),
            ..Event::numbered("AUDIOHOOK-0001")
        },
        Event {
            version: Some("3".into()),
            error_code: Some("503".into()),
            parent_entity: Some("p".into()),
            ..Event::numbered("AUDIOHOOK-0001")
        },
        Event { definition: "AUDIOHOOK-0002".into(), ..Event::default() },
        Event { socket_time: audiohook_collector::simulator::SocketTime::Iso, ..Event::numbered("AUDIOHOOK-0003") },
    ];
    let count = events.len();
    for event in events {
        sim.issue_by(event, Route::Both);
    }
    let sorted = |mut records: Vec<Record>| {
        records.sort_by_key(|record| record.text("id").unwrap_or_default().to_owned());
        records
    };
    let from_socket = sorted(by_socket.wait_lines(count, SOON));
    let from_history = sorted(by_history.wait_lines(count, SOON));
    let shared = [
        "timestamp",
        "event_type",
        "event_id",
        "event_name",
        "description",
        "conversation_id",
        "entity_id",
        "entity_name",
        "version",
        "topic",
        "error_code",
        "previous_value",
        "current_value",
        "id",
    ];
    for (socket, history) in from_socket.iter().zip(&from_history) {
        for field in shared {
            assert_eq!(socket.json[field], history.json[field], "{field}: {} {}", socket.line, history.line);
        }
        assert_eq!((socket.text("source"), history.text("source")), (Some("websocket"), Some("history")));
        assert_eq!((&history.json["channel"], &history.json["entity_type"]), (&Value::Null, &Value::Null));
        assert!(history.json["raw_event"]["eventDefinition"]["id"].is_string(), "{}", history.line);
        assert!(
            history.json["raw_event"]["dateCreated"].is_string() && socket.json["raw_event"]["eventEntity"].is_object()
        );
        let keys: Vec<&str> = FIELDS.to_vec();
        assert!(
            keys.iter()
                .try_fold(0, |from, key| history.line[from..].find(&format!("\"{key}\":")).map(|at| from + at))
                .is_some()
        );
    }
    assert!(from_socket.iter().any(|record| record.text("description") == Some("It is \"new\".")));
}

#[test]
fn the_body_decides_what_is_audiohooks_and_the_rest_is_filtered() {
    let (sim, _folder, collector) = on_socket("filter", &[]);
    let frames = |bodies: &[&str]| {
        for body in bodies {
            sim.faults().send_text(body);
        }
    };
    let ours = [
        r#"{"topicName":"v2.users.u.presence","eventBody":{"eventEntity":{"id":"AUDIOHOOK-0777"}}}"#,
        r#"{"eventBody":{"eventEntity":{"id":"audiohook-1"}}}"#,
        r#"{"topicName":"channel.metadata","eventBody":{"entityType":"The AudioHook thing"}}"#,
        r#"{"topicName":"v2.system.socket_closing","eventBody":{"eventEntity":{"id":"X-1","name":"an AUDIOHOOK error"}}}"#,
        r#"{"topicName":["x"],"eventBody":{"eventEntity":{"id":7,"name":"a\u0075diohook"}}}"#,
        r#"{"topicName":"t","result":"200","eventBody":{"eventEntity":{"id":"AUDIOHOOK-"}}}"#,
    ];
    frames(&ours);
    wait_counts(&collector, 6, 0, 0, 0);
    let records = collector.wait_lines(6, SOON);
    let topics: Vec<&Value> = records.iter().map(|record| &record.json["topic"]).collect();
    assert_eq!(topics[..3], [&json!("v2.users.u.presence"), &Value::Null, &json!("channel.metadata")]);
    assert_eq!(topics[4], &Value::Null);
    let others = [
        r#"{"topicName":"v2.operations.events.AUDIOHOOK-0001","eventBody":{"eventEntity":{"id":"BOTS-0001","name":"Bot"}}}"#,
        r#"{"topicName":"v2.operations.events.AUDIOHOOK-0001","eventBody":{}}"#,
        r#"{"topicName":"v2.operations.events.X","eventBody":{"eventEntity":{"id":"XAUDIOHOOK-1","description":"audiohook"},"entityName":"audiohook","entityId":"audiohook"}}"#,
        r#"{"topicName":"v2.operations.events.X","eventBody":{"eventEntity":"AUDIOHOOK-1","entityType":["audiohook"]}}"#,
        r#"{"topicName":"v2.operations.events.X","eventBody":{"eventEntity":{"id":"AUDIOHOOK 1"}}}"#,
    ];
    frames(&others);
    wait_counts(&collector, 6, 0, 5, 0);
    next_event_arrives(&sim, &collector, "after");
    assert!(collector.reasons().unwrap().is_empty(), "somebody else's event is no fault");
}

#[test]
fn what_is_about_the_socket_counts_nowhere() {
    let (sim, folder, collector) = on_socket("control", &[]);
    for text in [
        r#"{"topicName":"channel.metadata","eventBody":{"message":"WebSocket Heartbeat"}}"#,
        r#"{"eventBody":{"message":"pong"},"topicName":"channel.metadata"}"#,
        r#"{"topicName":"channel.metadata"}"#,
        r#"{"result":"200","status":"subscribed"}"#,
        r#"{"result":200}"#,
        r#"{ "message" : "pong" }"#,
        r#"{"topicName":"v2.system.something_new","eventBody":{"message":"x"}}"#,
        r#"{"topicName":"v2.system.something_else"}"#,
    ] {
        sim.faults().send_text(text);
    }
    sim.faults().send_bytes(&frame::encode(frame::PING, true, b"are you there"));
    sim.faults().send_bytes(&frame::encode(frame::PONG, true, b""));
    next_event_arrives(&sim, &collector, "after");
    wait_counts(&collector, 1, 0, 0, 0);
    assert!(!folder.join("events.jsonl.unreadable").exists());
    assert_eq!(sim.view(|view| view.sockets_opened()), 1, "none of them ends the socket");
}

#[test]
fn what_cannot_be_read_is_counted_and_kept_and_the_next_event_still_arrives() {
    let (sim, folder, collector) = on_socket("unreadable", &[]);
    let aside = || std::fs::read_to_string(folder.join("events.jsonl.unreadable")).unwrap_or_default();
    let text = |text: &str| frame::text(text);
    let too_long = format!("{{\"topicName\":\"long\",\"eventBody\":{{\"x\":\"{}\"}}}}", "y".repeat(1024 * 1024));
    let in_pieces = frame::in_frames_of(too_long.as_bytes(), 100_000);
    let broken: Vec<(&str, Vec<u8>)> = vec![
        ("broken JSON", text("{\"topicName\":\"v2.operations.events.AUDIOHOOK-0001\",\"eventBody\":{")),
        ("no JSON", text("hello")),
        ("nothing", text("")),
        ("two values", text("{}{}")),
        ("an array", text("[{\"topicName\":\"x\"}]")),
        ("a number", text("5")),
        ("no body", text("{\"topicName\":\"v2.operations.events.AUDIOHOOK-0001\"}")),
        (
            "a body that is text",
            text("{\"topicName\":\"v2.operations.events.AUDIOHOOK-0001\",\"eventBody\":\"AUDIOHOOK-0001\"}"),
        ),
        (
            "a body that is a list",
            text("{\"topicName\":\"x\",\"eventBody\":[{\"eventEntity\":{\"id\":\"AUDIOHOOK-1\"}}]}"),
        ),
        ("a body that is null", text("{\"topicName\":\"x\",\"eventBody\":null}")),
        ("an empty object", text("{}")),
        ("a bad number", text("{\"eventBody\":{\"eventEntity\":{\"id\":\"AUDIOHOOK-1\"},\"x\":01}}")),
        ("a control character", text("{\"eventBody\":{\"eventEntity\":{\"id\":\"AUDIOHOOK-1\n\"}}}")),
        ("binary", frame::encode(frame::BINARY, true, b"{\"eventBody\":{}}\x00\xff")),
        ("broken UTF-8", frame::encode(frame::TEXT, true, b"{\"eventBody\":\"\xc3\x28\"}")),
        ("over 1 MiB", text(&too_long)),
        ("over 1 MiB in pieces", in_pieces),
    ];
    for (number, (what, bytes)) in broken.iter().enumerate() {
        sim.faults().send_bytes(bytes);
        // Of some the socket may be the price: then the next one is open before the next event.
        next_after(&sim, &collector, what);
        let n = number as u32 + 1;
        wait_counts(&collector, n, 0, 0, n);
        assert_eq!(aside().lines().count(), number + 1, "{what}: {}", aside().lines().last().unwrap_or_default());
    }
    let lines: Vec<Value> = aside().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &lines {
        let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
        assert_eq!(keys.len(), 3, "{line}");
        assert!(line["at"].as_str().and_then(parse_instant).is_some() && line["reason"].is_string());
    }
    assert_eq!(lines[1]["frame"], "hello");
    assert!(aside().find("\"at\"").unwrap() < aside().find("\"reason\"").unwrap());
    let longest = lines.iter().map(|line| line["frame"].as_str().unwrap().len()).max().unwrap();
    assert!((4000..=4096).contains(&longest), "of what is too long the first 4 KiB are kept: {longest}");
    assert!(collector.reasons().unwrap().contains(&"unreadable_frames".to_owned()));
    let said = collector.log_lines().iter().filter(|line| line.contains("kept in")).count();
    assert!(said >= 5, "the first of a kind is logged");
    let before = collector.log_lines().iter().filter(|line| line.contains("WARN")).count();
    sim.faults().send_text("hello");
    next_after(&sim, &collector, "again");
    let after = collector.log_lines().iter().filter(|line| line.contains("WARN")).count();
    assert_eq!(before, after, "and only the first");
}

/// An event sent until it arrives, once more for each socket that it cost.
fn next_after(sim: &Simulator, collector: &Collector, what: &str) {
    assert!(sim.wait_until(SOON, |view| view.sockets_open() == 1), "{what}: no socket");
    let before = collector.records().len();
    let arrived = poll(SOON, || {
        if sim.view(|view| view.sockets_open()) == 1 && collector.records().len() == before {
            sim.issue(Event::numbered("AUDIOHOOK-0001"));
            let_pass(Duration::from_millis(150));
        }
        (collector.records().len() > before).then_some(())
    });
    assert!(arrived.is_some(), "after {what} no event arrives\n{}", collector.log_text());
}

#[test]
fn frames_in_pieces_arrive_whole_even_byte_by_byte() {
    let (sim, _folder, collector) = on_socket("pieces", &[]);
    let faults = sim.faults();
    let text = |name: &str| {
        around(&format!(
            "{{\"eventEntity\":{{\"id\":\"AUDIOHOOK-0001\",\"name\":\"é😀\"}},\"conversationId\":\"{name}\"}}"
        ))
    };
    faults.send_bytes(&frame::in_frames_of(text("one by one").as_bytes(), 1));
    faults.send_in_pieces(&frame::text(&text("byte by byte")), 1, Duration::from_millis(1));
    faults.send_in_pieces(&frame::in_frames_of(text("both").as_bytes(), 7), 3, Duration::from_millis(1));
    // Control frames between the pieces of a message are allowed, and empty pieces.
    let whole = text("with pings between");
    let (first, second) = whole.as_bytes().split_at(20);
    let mut bytes = frame::encode(frame::TEXT, false, first);
    bytes.extend(frame::encode(frame::PING, true, b"between"));
    bytes.extend(frame::encode(0, false, b""));
    bytes.extend(frame::encode(frame::PONG, true, b""));
    bytes.extend(frame::encode(0, true, second));
    faults.send_bytes(&bytes);
    // Several frames in one write, the last one's end in the next.
    let mut bytes: Vec<u8> = (0..20).flat_map(|n| frame::text(&text(&format!("many {n}")))).collect();
    let end = bytes.split_off(bytes.len() - 3);
    faults.send_bytes(&bytes);
    let_pass(Duration::from_millis(50));
    faults.send_bytes(&end);
    let records = collector.wait_lines(24, SOON);
    let names: Vec<&str> = records.iter().filter_map(|record| record.text("conversation_id")).collect();
    assert_eq!(names[..4], ["one by one", "byte by byte", "both", "with pings between"]);
    assert!(records.iter().all(|record| record.text("event_name") == Some("é😀")));
    wait_counts(&collector, 24, 0, 0, 0);
    assert_eq!(sim.view(|view| view.sockets_opened()), 1);
}

#[test]
fn what_is_kept_aside_stays_within_ten_mebibytes_and_is_the_newest() {
    let (sim, folder, collector) = on_socket("bound", &[]);
    let path = folder.join("events.jsonl.unreadable");
    for n in 0..40 {
        sim.faults().send_text(&format!("frame {n} {}", "z".repeat(900_000)));
    }
    next_event_arrives(&sim, &collector, "after");
    wait_counts(&collector, 1, 0, 0, 40);
    assert!(std::fs::metadata(&path).unwrap().len() <= 10 * 1024 * 1024);
    let text = std::fs::read_to_string(&path).unwrap();
    let kept: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(
        kept.len() >= 4 && kept.last().unwrap()["frame"].as_str().unwrap().starts_with("frame 39 "),
        "{}",
        kept.len()
    );
}

#[test]
fn hidden_fields_stand_nowhere_in_clear() {
    let hidden = [("REDACT_FIELDS", "phoneNumber, conversationId,name,nested ,Case"), ("GENESYS_DELIVERY", "auto")];
    let (sim, folder, collector) = on_socket("redact", &hidden);
    let plain_folder = Folder::new("redact-not");
    let plain = Collector::start(&sim, &plain_folder, &[("GENESYS_DELIVERY", "websocket")]);
    plain.wait_healthy();
    let event = Event {
        conversation_id: Some("SECRETVALUE-conversation".into()),
        phone_number: Some("SECRETVALUE-phone".into()),
        extra: vec![
            ("nested".into(), "{\"a\":[\"SECRETVALUE-nested\"]}".into()),
            (
                "outer".into(),
                "[{\"phoneNumber\":\"SECRETVALUE-deep\",\"phone\\u004eumber\":\"SECRETVALUE-escaped\",\"case\":1.0}]"
                    .into(),
            ),
        ],
        ..Event::numbered("AUDIOHOOK-0001")
    };
    sim.issue(event.clone());
    sim.issue_by(event, Route::HistoryOnly);
    let records = collector.wait_lines(2, SOON);
    let clear = plain.wait_lines(1, SOON);
    let from_socket = records.iter().find(|record| record.text("source") == Some("websocket")).unwrap();
    assert_eq!(from_socket.text("id"), clear[0].text("id"), "the id is made before");
    for record in &records {
        assert_eq!(record.text("conversation_id"), Some("[redacted]"), "{}", record.line);
        assert_eq!(record.text("event_name"), Some("[redacted]"), "{}", record.line);
    }
    let raw = &from_socket.json["raw_event"];
    assert_eq!((&raw["nested"], &raw["outer"][0]["case"]), (&json!("[redacted]"), &json!(1.0)));
    sim.faults().send_text("{\"eventBody\":{\"phoneNumber\":\"SECRETVALUE-broken\"");
    sim.faults().send_text("{\"eventBody\":\"SECRETVALUE-shape\"}");
    sim.issue(Event::numbered("AUDIOHOOK-0002"));
    collector.wait_lines(3, SOON);
    assert!(poll(SOON, || collector.reasons()?.contains(&"unreadable_frames".to_owned()).then_some(())).is_some());
    let mut seen = collector.log_lines().join("\n");
    for path in ["/events?limit=1000", "/health", "/metrics", "/", "/events?conversation_id=SECRETVALUE-conversation"] {
        seen.push_str(&collector.get(path).unwrap().1);
    }
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        seen.push_str(&String::from_utf8_lossy(&std::fs::read(entry.unwrap().path()).unwrap()));
    }
    assert!(
        !seen.contains("SECRETVALUE"),
        "{:.300}",
        &seen[seen.find("SECRETVALUE").unwrap_or(0).saturating_sub(200)..]
    );
}

#[test]
fn what_stood_in_the_file_in_clear_is_shown_with_its_values_hidden() {
    let (sim, folder) = (simulator(), Folder::new("redact-old"));
    let legacy = r#"{"timestamp": "2026-11-20T10:30:45.123456+00:00", "event_id": "AUDIOHOOK-0001", "conversation_id": "SECRETVALUE", "channel": "streaming-SECRETVALUE-1234", "raw_event": {"eventEntity": {"id": "AUDIOHOOK-0001"}, "conversationId": "SECRETVALUE", "phoneNumber": "SECRETVALUE"}}"#;
    folder.write("events.jsonl", format!("{legacy}\n"));
    let mut open = Collector::start(&sim, &folder, &[("GENESYS_DELIVERY", "websocket")]);
    open.wait_healthy();
    let event = Event {
        conversation_id: Some("SECRETVALUE".into()),
        phone_number: Some("SECRETVALUE".into()),
        ..Event::numbered("AUDIOHOOK-0002")
    };
    sim.issue(event);
    open.wait_lines(2, SOON);
    let shown = open.get("/events").unwrap().1;
    assert!(shown.contains("\"channel\":\"…") && !shown.contains("streaming-"), "the channel is masked: {shown}");
    assert!(shown.contains("\"phoneNumber\": \"SECRETVALUE\""), "and nothing else is changed: {shown}");
    open.term();
    let before = std::fs::read_to_string(folder.join("events.jsonl")).unwrap();

    let hidden = [("GENESYS_DELIVERY", "websocket"), ("REDACT_FIELDS", "phoneNumber,conversationId")];
    let collector = Collector::start(&sim, &folder, &hidden);
    collector.wait_healthy();
    let answer: Value = serde_json::from_str(&collector.get("/events").unwrap().1).unwrap();
    let events = answer["recent_events"].as_array().unwrap();
    assert_eq!(events.len(), 2);
    for event in events {
        assert_eq!(event["conversation_id"], "[redacted]");
        assert_eq!(event["raw_event"]["phoneNumber"], "[redacted]");
        assert!(event["id"].as_str().is_some_and(|id| id.len() == 32));
        assert!(!event.to_string().contains("SECRETVALUE"), "{event}");
    }
    assert_eq!(std::fs::read_to_string(folder.join("events.jsonl")).unwrap(), before, "the file stays as it is");
}

#[test]
fn a_hidden_definition_or_id_is_hidden_on_both_ways() {
    let cases: [(&str, &[&str]); 2] = [
        ("eventEntity", &["event_id", "event_name", "description", "topic"]),
        ("id", &["event_id", "topic", "conversation_id"]),
    ];
    for (name, fields) in cases {
        let (sim, _folder, collector) =
            on_socket("redact-ways", &[("GENESYS_DELIVERY", "auto"), ("REDACT_FIELDS", name)]);
        sim.issue_by(Event::numbered("AUDIOHOOK-0001"), Route::SocketOnly);
        sim.issue_by(Event::numbered("AUDIOHOOK-0001"), Route::HistoryOnly);
        for record in collector.wait_lines(2, SOON) {
            for field in fields {
                assert_eq!(record.text(field), Some("[redacted]"), "{name}, {field}: {}", record.line);
            }
            assert!(!record.json["raw_event"].to_string().contains("AUDIOHOOK"), "{}", record.line);
        }
    }
}

#[test]
fn a_message_of_one_mebibyte_is_read_and_one_byte_more_is_not() {
    let (sim, folder, collector) = on_socket("mebibyte", &[]);
    let padded = |bytes: usize, name: &str| {
        let empty = around(&format!(
            "{{\"eventEntity\":{{\"id\":\"AUDIOHOOK-0001\"}},\"conversationId\":\"{name}\",\"x\":\"\"}}"
        ));
        let padding = "p".repeat(bytes - empty.len());
        empty.replace("\"x\":\"\"", &format!("\"x\":\"{padding}\""))
    };
    sim.faults().send_text(&padded(1024 * 1024, "just"));
    collector.wait_lines(1, SOON);
    wait_counts(&collector, 1, 0, 0, 0);
    sim.faults().send_text(&padded(1024 * 1024 + 1, "over"));
    wait_counts(&collector, 1, 0, 0, 1);
    next_after(&sim, &collector, "one byte more");
    // A frame that says it is longer than anything.
    let mut endless = vec![0x81, 127];
    endless.extend((i64::MAX as u64).to_be_bytes());
    endless.extend(b"{\"topicName\":\"x\"".repeat(1000));
    sim.faults().send_bytes(&endless);
    let_pass(Duration::from_millis(500));
    sim.faults().cut_sockets();
    next_after(&sim, &collector, "an endless one");
    wait_counts(&collector, 3, 0, 0, 2);
    assert_eq!(std::fs::read_to_string(folder.join("events.jsonl.unreadable")).unwrap().lines().count(), 2);
}

#[test]
fn each_event_is_logged_up_to_a_rate_and_counted_beyond_it() {
    let (sim, _folder, collector) = on_socket("rate", &[("LOG_LEVEL", "info")]);
    for _ in 0..400 {
        sim.issue(Event::numbered("AUDIOHOOK-0001"));
    }
    collector.wait_lines(400, SOON);
    let told = || -> (usize, u64) {
        let lines: Vec<Value> =
            collector.log_lines().iter().map(|line| serde_json::from_str(line).unwrap_or_default()).collect();
        let named = lines.iter().filter(|line| line["message"] == "AudioHook event processed").count();
        (named, lines.iter().filter_map(|line| line["count"].as_u64()).sum())
    };
    assert!(poll(SOON, || (told().0 as u64 + told().1 == 400).then_some(())).is_some(), "{:?}", told());
    assert!((20..200).contains(&told().0), "{:?}", told());
    assert!(!collector.log_text().contains("DEBUG"));
}

#[test]
fn a_flood_of_what_is_no_event_holds_nothing_up() {
    let (sim, folder, mut collector) = on_socket("flood", &[]);
    let noise: Vec<u8> = (0..20_000)
        .flat_map(|n| match n % 4 {
            0 => frame::text("{\"topicName\":\"v2.users.u.presence\",\"eventBody\":{\"presence\":\"x\"}}"),
            1 => {
                frame::text("{\"topicName\":\"channel.metadata\",\"eventBody\":{\"message\":\"WebSocket Heartbeat\"}}")
            }
            2 => frame::text("not JSON"),
            _ => frame::encode(frame::BINARY, true, b"\x00\x01"),
        })
        .collect();
    for n in 0..5 {
        sim.faults().send_bytes(&noise);
        sim.faults().send_text(&around(&body(&format!("between {n}"))));
    }
    // While it still comes, the counts are told.
    let seen = poll(SOON, || {
        let counts = counts(&collector);
        (counts.filtered > 0.0 && counts.filtered < 25_000.0).then_some(())
    });
    assert!(seen.is_some() || counts(&collector).filtered == 25_000.0);
    collector.wait_lines(5, SOON * 2);
    let told = poll(SOON, || (counts(&collector).unreadable == 50_000.0).then_some(()));
    assert!(told.is_some(), "{:?}", counts(&collector));
    wait_counts(&collector, 5, 0, 25_000, 50_000);
    assert!(std::fs::metadata(folder.join("events.jsonl.unreadable")).unwrap().len() <= 10 * 1024 * 1024);
    let status = std::fs::read_to_string(format!("/proc/{}/status", collector.pid())).unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default().to_owned();
    let kib: u64 = peak.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    assert!(kib < 64 * 1024, "{peak}");
    eprintln!("{peak}");
    assert!(collector.term().success());
}
