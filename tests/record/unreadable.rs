//! What is no event, or not AudioHook's: counted, kept aside, and in nobody's way.

use std::time::Duration;

use audiohook_collector::clock::parse_instant;
use audiohook_collector::simulator::{Event, Simulator, frame};
use serde_json::{Value, json};

use crate::support::collector::on_socket;
use crate::support::{Collector, SOON, let_pass, poll};
use crate::{around, body, counts, next_event_arrives, wait_counts};

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
