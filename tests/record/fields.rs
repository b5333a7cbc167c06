//! The record's fields, in their order, from whatever shape the event comes in.

use audiohook_collector::simulator::{Definition, Event, Route};
use serde_json::Value;

use crate::support::collector::on_socket;
use crate::support::{Collector, Folder, Record, SOON, poll};
use crate::{around, body, record_of, simulator, wait_counts};

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
    ];
    for (number, (time, expected)) in own.into_iter().enumerate() {
        let body =
            format!("{{\"eventEntity\":{{\"id\":\"AUDIOHOOK-0001\"}},\"entityId\":\"{number}\",\"timestamp\":{time}}}");
        let record = record_of(&sim, &collector, &body);
        assert_eq!(record.text("timestamp"), Some(expected), "{time}");
    }
    for (number, time) in
        ["0", "null", "\"\"", "\"soon\"", "[]", "true", "1e300", "-5", "{\"a\":1}"].into_iter().enumerate()
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
