//! Whatever comes on the socket: the next event still arrives, and nothing that is no event counts as one.

use std::time::Duration;

use crate::support::{Collector, Folder, SOON, assert_same_set, let_pass, poll};
use audiohook_collector::clock::format_millis;
use audiohook_collector::simulator::{Event, Knobs, Options, Simulator, frame};

const LONG: Duration = Duration::from_secs(30);

/// A service, and a collector that is connected to it.
fn connected(name: &str, changed: &[(&str, &str)]) -> (Simulator, Folder, Collector) {
    let knobs = Knobs { requests_per_minute: None, ..Knobs::default() };
    let (sim, folder) = (Simulator::start(Options { knobs, ..Options::default() }).unwrap(), Folder::new(name));
    let collector = Collector::start(&sim, &folder, changed);
    collector.wait_healthy();
    assert!(sim.wait_until(SOON, |view| !view.subscribed().is_empty()));
    (sim, folder, collector)
}

/// The next event arrives, and nothing else does.
fn the_next_event_arrives(sim: &Simulator, collector: &Collector) {
    sim.issue(Event::numbered("AUDIOHOOK-0001"));
    let found = collector.wait_lines(sim.issued().len(), LONG);
    assert_same_set(&sim.issued(), &found);
}

#[test]
fn what_is_no_event_is_counted_kept_and_passed_over() {
    let (sim, folder, collector) = connected("unreadable", &[]);
    let faults = sim.faults();
    let broken: [(&str, Vec<u8>); 5] = [
        ("binary", frame::encode(frame::BINARY, true, b"\x00\x01binary")),
        ("broken UTF-8", frame::encode(frame::TEXT, true, b"{\"topicName\":\"\xff\xfe\"}")),
        ("broken JSON", frame::text("{\"topicName\":\"v2.operations.events.AUDIOHOOK-0001\",\"eventBody\":{")),
        ("a wrong shape", frame::text("[1,2,3]")),
        ("too long", frame::text(&format!("{{\"topicName\":\"{}\"}}", "x".repeat(2 * 1024 * 1024)))),
    ];
    for (number, (what, bytes)) in broken.iter().enumerate() {
        assert!(sim.wait_until(LONG, |view| view.sockets_open() > 0), "{what}: no socket");
        faults.send_bytes(bytes);
        let unreadable = || Some(collector.health()?["stats"]["unreadable"].as_u64()? as usize);
        let counted = poll(SOON, || unreadable().filter(|count| *count > number));
        assert_eq!(counted, Some(number + 1), "{what}\n{}", collector.log_text());
        the_next_event_arrives(&sim, &collector);
    }
    let kept = std::fs::read_to_string(folder.join("events.jsonl.unreadable")).unwrap();
    let reasons: Vec<serde_json::Value> = kept.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(reasons.len(), broken.len());
    for line in reasons {
        assert!(line["at"].is_string() && line["reason"].is_string() && line["frame"].is_string(), "{line}");
    }
    let codes = collector.reasons().unwrap();
    assert!(codes.iter().any(|code| code == "unreadable_frames"), "{codes:?}");
}

#[test]
fn frames_in_pieces_and_byte_by_byte_are_whole_events() {
    let (sim, _folder, collector) = connected("pieces", &[]);
    let body = |n: u32| {
        format!(
            "{{\"topicName\":\"v2.operations.events.AUDIOHOOK-0001\",\"version\":\"2\",\"eventBody\":{{\"eventEntity\":\
             {{\"id\":\"AUDIOHOOK-0001\"}},\"currentValue\":\"piece {n}\",\"timestamp\":{}}}}}",
            sim.now()
        )
    };
    let mut in_pieces = frame::in_frames_of(body(1).as_bytes(), 7);
    // A ping between the pieces of a message is allowed.
    let ping = frame::encode(frame::PING, true, b"now");
    in_pieces.splice(9..9, ping);
    sim.faults().send_bytes(&in_pieces);
    sim.faults().send_in_pieces(&frame::text(&body(2)), 1, Duration::from_millis(1));
    collector.wait_lines(2, LONG);
    sim.faults().stall_sockets_in(&body(3));
    let_pass(Duration::from_millis(300));
    sim.faults().thaw_sockets();
    let values: Vec<String> =
        collector.wait_lines(3, LONG).iter().map(|record| record.text("current_value").unwrap().to_owned()).collect();
    assert_eq!(values, ["piece 1", "piece 2", "piece 3"]);
    assert_eq!(sim.view(|view| view.sockets_opened()), 1, "on one socket");
}

#[test]
fn what_the_service_says_of_the_socket_counts_nowhere() {
    let (sim, _folder, collector) = connected("control", &[]);
    for text in [
        "{\"result\":\"200\",\"status\":\"subscribed\"}",
        "{\"topicName\":\"channel.metadata\",\"eventBody\":{\"message\":\"WebSocket Heartbeat\"}}",
        "{\"topicName\":\"channel.metadata\",\"eventBody\":{\"message\":\"pong\"}}",
    ] {
        sim.faults().send_text(text);
    }
    the_next_event_arrives(&sim, &collector);
    let stats = collector.health().unwrap()["stats"].clone();
    for (name, count) in [("received_websocket", 1), ("filtered", 0), ("unreadable", 0)] {
        assert_eq!(stats[name], count, "{name}: {stats}");
    }
}

#[test]
fn an_event_is_known_by_its_body_whatever_the_topic_says() {
    let (sim, _folder, collector) = connected("lies", &[]);
    let send = |topic: &str, body: &str| {
        sim.faults().send_text(&format!("{{\"topicName\":\"{topic}\",\"version\":\"2\",\"eventBody\":{body}}}"));
    };
    send("v2.users.1.presence", "{\"eventEntity\":{\"id\":\"AUDIOHOOK-0009\"},\"entityId\":\"a\"}");
    send("v2.operations.events.AUDIOHOOK-0001", "{\"eventEntity\":{\"id\":\"OTHER-1\"},\"entityId\":\"b\"}");
    send("v2.operations.events.X", "{\"eventEntity\":{\"id\":\"X\"},\"entityType\":\"AudioHook\",\"entityId\":\"c\"}");
    send(
        "v2.operations.events.X",
        "{\"eventEntity\":{\"id\":\"X\",\"name\":\"an AUDIOHOOK thing\"},\"entityId\":\"d\"}",
    );
    let ids: Vec<String> =
        collector.wait_lines(3, LONG).iter().map(|record| record.text("entity_id").unwrap().to_owned()).collect();
    assert_eq!(ids, ["a", "c", "d"]);
    assert_eq!(collector.health().unwrap()["stats"]["filtered"], 1);
}

#[test]
fn twenty_quick_restarts_make_two_channels_at_most() {
    let knobs = Knobs { requests_per_minute: None, ..Knobs::default() };
    let sim = Simulator::start(Options { knobs, ..Options::default() }).unwrap();
    let folder = Folder::new("restarts");
    for round in 1..=20 {
        let mut collector = Collector::start(&sim, &folder, &[]);
        assert!(sim.wait_until(LONG, |view| view.sockets_opened() >= round), "{}", collector.log_text());
        collector.wait_healthy();
        collector.kill9();
    }
    assert!(sim.view(|view| view.channels_made()) <= 2, "{}", sim.view(|view| view.channels_made()));
}

#[test]
fn a_time_is_the_same_in_any_unit_and_one_that_cannot_be_right_is_none() {
    let (sim, _folder, collector) = connected("units", &[]);
    let second = sim.now() / 1000 - 1;
    let iso = format_millis(second * 1000);
    let send = |entity: &str, time: &str| {
        sim.faults().send_text(&format!(
            "{{\"topicName\":\"x\",\"eventBody\":{{\"eventEntity\":{{\"id\":\"AUDIOHOOK-0001\"}},\"entityId\":\"{entity}\",\
             \"timestamp\":{time}}}}}"
        ));
    };
    for zeros in ["", "000", "000000", "000000000", ".000"] {
        send("same", &format!("{second}{zeros}"));
    }
    send("same", &format!("\"{iso}\""));
    let impossible = [second / 1000, second / 10, second + 2 * 24 * 3600, -second];
    for (number, time) in impossible.iter().enumerate() {
        send(&number.to_string(), &time.to_string());
    }
    let found = collector.wait_lines(1 + impossible.len(), LONG);
    let same: Vec<_> = found.iter().filter(|record| record.text("entity_id") == Some("same")).collect();
    assert_eq!((same.len(), same[0].text("timestamp")), (1, Some(iso.as_str())));
    for record in found.iter().filter(|record| record.text("entity_id") != Some("same")) {
        assert_eq!(record.text("timestamp"), record.text("received_at"));
    }
    assert_eq!(collector.health().unwrap()["stats"]["duplicates"], 5);
}
