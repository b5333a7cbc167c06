//! Where a start begins: with no state, a damaged one, an old one, a predecessor's file.

use audiohook_collector::clock::format_millis;
use audiohook_collector::simulator::{Action, Call, Event, Route};
use serde_json::json;

use crate::support::collector::{binary, settings};
use crate::support::{Collector, Folder, assert_same_set, records};
use crate::{LONG, assert_all_stand_once, event, issue, simulator, wait_for_all};

#[test]
fn the_very_first_start_begins_by_the_services_clock() {
    // The service's clock ahead, the seconds to go back, and whether an event that is half an hour old is fetched.
    for (ahead_ms, start, is_fetched) in
        [(-3_600_000, "3600", true), (3_600_000, "3600", true), (3_600_000, "0", false), (-3_600_000, "0", false)]
    {
        let (sim, folder) = (simulator(|k| k.clock_offset_ms = ahead_ms), Folder::new("first-clock"));
        let old = sim.issue_by(event(0).at(sim.now() - 1_800_000), Route::HistoryOnly);
        let mut collector = Collector::start(&sim, &folder, &[("CATCH_UP_START", start)]);
        collector.wait_healthy();
        let new = sim.issue(event(1));
        let expected = if is_fetched { vec![old, new] } else { vec![new] };
        collector.wait_lines(expected.len(), LONG);
        // Where it began stays where it was.
        collector.kill9();
        let collector = Collector::start(&sim, &folder, &[("CATCH_UP_START", start)]);
        collector.wait_healthy();
        let reads = sim.view(|view| view.count(Call::History));
        assert!(sim.wait_until(LONG, |view| view.count(Call::History) > reads + 2));
        assert_same_set(&expected, &collector.records());
    }
}

#[test]
fn without_its_state_a_collector_that_had_not_come_far_reads_all_of_the_history() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("young"));
    let old: Vec<i64> = (0..50).map(|n| sim.now() - 8 * 86_400_000 + n * 1000).collect();
    sim.issue_many(event(1), &old, Route::HistoryOnly);
    // The first line of its file is the socket's: the history fails before anything of it is read.
    sim.faults().fail(Call::History, Action::status(503));
    let mut collector = Collector::start(&sim, &folder, &[]);
    assert!(sim.wait_until(LONG, |view| view.sockets_open() == 1));
    sim.issue(event(2));
    collector.wait_lines(1, LONG);
    collector.kill9();
    std::fs::write(folder.join("events.jsonl.state"), "damaged").unwrap();
    sim.faults().heal_all();
    let collector = Collector::start(&sim, &folder, &[]);
    assert_all_stand_once(&sim, &collector);
}

#[test]
fn a_repair_before_the_first_start_keeps_nothing_from_being_fetched() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("repaired-first"));
    let hour = 3_600_000;
    let times: Vec<i64> = (0..10).map(|n| sim.now() - 5 * 24 * hour + n * 30 * hour / 10 * 4).collect();
    sim.issue_many(event(1), &times, Route::HistoryOnly);
    sim.issue_by(event(2).at(sim.now() - hour), Route::HistoryOnly);
    let output = binary(folder.path(), &["audit", "--repair"], &settings(&sim, &folder)).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let repaired = records::read(&folder.join("events.jsonl")).len();
    assert!(repaired > 0 && repaired < 11, "a day of it: {repaired}");
    let collector = Collector::start(&sim, &folder, &[]);
    assert_all_stand_once(&sim, &collector);
}

#[test]
fn a_state_that_is_damaged_or_gone_or_old_loses_and_doubles_nothing() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("state"));
    let state = folder.join("events.jsonl.state");
    let mut collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    issue(&sim, 30);
    wait_for_all(&sim, &collector);
    let old = std::fs::read(&state).unwrap();
    for trouble in ["damaged", "gone", "old", "torn"] {
        sim.faults().set(|k| k.socket_to_drop = 5);
        issue(&sim, 10);
        collector.kill9();
        issue(&sim, 10);
        match trouble {
            "damaged" => std::fs::write(&state, "{\"format\":1,\"checkpoint").unwrap(),
            "gone" => std::fs::remove_file(&state).unwrap(),
            "old" => std::fs::write(&state, &old).unwrap(),
            _ => {
                let text = std::fs::read_to_string(folder.join("events.jsonl")).unwrap();
                std::fs::write(folder.join("events.jsonl"), &text[..text.len() - 40]).unwrap();
            }
        }
        collector = Collector::start(&sim, &folder, &[]);
        wait_for_all(&sim, &collector);
        assert_same_set(&sim.issued(), &collector.records());
    }
    assert!(folder.join("events.jsonl.state.damaged").exists());
    let aside = std::fs::read_to_string(folder.join("events.jsonl.unreadable")).unwrap();
    assert!(aside.contains("torn"), "{aside}");
}

#[test]
fn a_collector_that_was_down_for_longer_than_the_history_says_what_is_missing() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("hole"));
    let mut collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    assert!(collector.term().success());
    // Twelve days later.
    sim.faults().set(|k| k.clock_offset_ms = 12 * 86_400_000);
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_reason("incomplete", true, LONG);
    issue(&sim, 5);
    collector.wait_lines(5, LONG);
}

#[test]
fn the_predecessors_file_goes_on() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("upgrade"));
    let now = sim.now();
    let mut lines = String::new();
    for n in 0..60_u32 {
        let time = now - 5 * 86_400_000 + i64::from(n) * 60_000;
        let plain = Event {
            definition: "AUDIOHOOK-0001".into(),
            entity_id: Some("e".into()),
            conversation_id: Some(format!("c-{n}")),
            ..Event::default()
        };
        sim.issue_by(plain.at(time), Route::HistoryOnly);
        // Every third one the predecessor missed.
        if n % 3 == 0 {
            continue;
        }
        let body =
            json!({"eventEntity": {"id": "AUDIOHOOK-0001"}, "entityId": "e", "conversationId": format!("c-{n}")});
        let receipt = format_millis(time + i64::from(n) * 1_900).replace('Z', "456+00:00");
        let record = json!({
            "timestamp": receipt, "event_type": "audiohook_operational", "event_id": "AUDIOHOOK-0001",
            "conversation_id": format!("c-{n}"), "raw_event": body,
        });
        lines.push_str(&format!("{record}\n"));
    }
    folder.write("events.jsonl", &lines);
    let rows = sim.view(|view| view.history_rows());
    assert_eq!(rows, 60);
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    // Ten days are read in many pieces: all of it, and then again what the overlap gives.
    collector.wait_lines(60, LONG);
    let reads = sim.view(|view| view.count(Call::History));
    assert!(sim.wait_until(LONG, |view| view.count(Call::History) > reads + 3));
    let text = std::fs::read_to_string(folder.join("events.jsonl")).unwrap();
    assert!(text.starts_with(&lines), "the file goes on");
    let conversations: Vec<String> =
        collector.records().iter().filter_map(|r| r.text("conversation_id").map(str::to_owned)).collect();
    assert_eq!(conversations.len(), 60, "each event stands in the file once");
    assert_eq!(conversations.iter().collect::<std::collections::BTreeSet<_>>().len(), 60);
}
