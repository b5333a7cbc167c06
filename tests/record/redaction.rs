//! Fields that are not to be shown.

use audiohook_collector::simulator::{Event, Route};
use serde_json::{Value, json};

use crate::simulator;
use crate::support::collector::on_socket;
use crate::support::{Collector, Folder, SOON, poll};

/// Rows of the history wait ten seconds for their frames.
const LONG: std::time::Duration = std::time::Duration::from_secs(40);

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
    let records = collector.wait_lines(2, LONG);
    let clear = plain.wait_lines(1, LONG);
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
    collector.wait_lines(3, LONG);
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
    open.wait_lines(2, LONG);
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
        for record in collector.wait_lines(2, LONG) {
            for field in fields {
                assert_eq!(record.text(field), Some("[redacted]"), "{name}, {field}: {}", record.line);
            }
            assert!(!record.json["raw_event"].to_string().contains("AUDIOHOOK"), "{}", record.line);
        }
    }
}
