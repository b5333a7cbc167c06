//! What comes on both ways is one event, what is only alike is two.

use std::time::Duration;

use audiohook_collector::clock::format_millis;
use audiohook_collector::genesys::api::PAGE_SIZE;
use audiohook_collector::simulator::{Action, Call, Event, Route, Simulator, SocketTime};
use serde_json::json;

use crate::support::{Collector, Folder, Record, SOON, assert_same_set, assert_same_set_within, let_pass, poll};
use crate::{LONG, assert_all_stand_once, event, issue, simulator, wait_for_all};

#[test]
fn times_that_differ_and_events_that_come_twice_make_no_doubles() {
    let (sim, folder) = (simulator(|k| k.history_jitter_ms = 900), Folder::new("jitter"));
    let mut collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    for round in 0..10 {
        sim.faults().set(|k| (k.socket_to_double, k.socket_to_drop) = (20, if round % 3 == 0 { 5 } else { 0 }));
        issue(&sim, 40);
        let_pass(Duration::from_millis(300));
    }
    wait_for_all(&sim, &collector);
    assert_same_set_within(&sim.issued(), &collector.records(), 900);
    // What stands in the file counts after a restart too.
    assert!(collector.term().success());
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    issue(&sim, 5);
    wait_for_all(&sim, &collector);
    assert_same_set_within(&sim.issued(), &collector.records(), 900);
}

#[test]
fn equal_events_a_millisecond_apart_stay_two() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("equal"));
    let mut collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    let now = sim.now();
    let same = Event {
        definition: "AUDIOHOOK-0002".into(),
        entity_id: Some("one".into()),
        conversation_id: Some("the same".into()),
        ..Event::default()
    };
    for (n, route) in
        [Route::Both, Route::HistoryOnly, Route::Both, Route::Both, Route::HistoryOnly].into_iter().enumerate()
    {
        sim.issue_by(same.clone().at(now + n as i64), route);
    }
    assert_all_stand_once(&sim, &collector);
    assert!(collector.term().success());
    let collector = Collector::start(&sim, &folder, &[]);
    sim.issue_by(same.at(now + 7), Route::HistoryOnly);
    assert_all_stand_once(&sim, &collector);
}

/// An event of which there may be several that differ in their time alone.
fn like(conversation: &str) -> Event {
    Event {
        definition: "AUDIOHOOK-0001".into(),
        entity_id: Some("e".into()),
        conversation_id: Some(conversation.to_owned()),
        ..Event::default()
    }
}

/// Fills a page of the history but for its last row, which is to be at this instant.
fn fill_page(sim: &Simulator, until: i64) {
    let times: Vec<i64> = (1..i64::from(PAGE_SIZE)).rev().map(|n| until - 60_000 - n).collect();
    sim.issue_many(Event::numbered("AUDIOHOOK-0002"), &times, Route::HistoryOnly);
}

#[test]
fn an_event_whose_record_turns_out_to_be_that_of_the_next_pages_row_is_written() {
    let (sim, folder) = (simulator(|k| k.history_shift_ms = -100), Folder::new("edge"));
    let time = sim.now() - 2 * 3_600_000;
    fill_page(&sim, time);
    sim.issue_by(like("the same").at(time + 100), Route::HistoryOnly);
    sim.faults().fail(Call::History, Action::status(503));
    let collector = Collector::start(&sim, &folder, &[("CATCH_UP_START", "10800")]);
    assert!(sim.wait_until(LONG, |view| view.sockets_open() == 1 && !view.subscribed().is_empty()));
    sim.issue(like("the same").at(time + 1_500));
    collector.wait_lines(1, LONG);
    // Both ways' times differ: the first row, too, could be the record's, as long as nobody knows of the second.
    sim.faults().heal_all();
    wait_for_all(&sim, &collector);
    assert_same_set_within(&sim.issued(), &collector.records(), 100);
    // The counts add up, although a row counted as a duplicate at first.
    let metric = |name: &str| collector.metric(&format!("audiohook_collector_{name}")).unwrap();
    poll(SOON, || {
        let received =
            metric("events_received_total{source=\"websocket\"}") + metric("events_received_total{source=\"history\"}");
        (received == metric("events_written_total") + metric("events_duplicate_total")).then_some(())
    })
    .expect("received = written + duplicate");
}

#[test]
fn of_two_like_events_the_one_that_the_predecessor_missed_is_fetched() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("upgrade-edge"));
    let time = sim.now() - 2 * 3_600_000;
    fill_page(&sim, time);
    sim.issue_by(like("the same").at(time), Route::HistoryOnly);
    sim.issue_by(like("the same").at(time + 100_000), Route::HistoryOnly);
    let record = json!({
        "timestamp": format_millis(time + 101_000).replace('Z', "456+00:00"), "event_type": "audiohook_operational",
        "event_id": "AUDIOHOOK-0001", "entity_id": "e", "conversation_id": "the same",
        "raw_event": {"eventEntity": {"id": "AUDIOHOOK-0001"}, "entityId": "e", "conversationId": "the same"},
    });
    folder.write("events.jsonl", format!("{record}\n"));
    let collector = Collector::start(&sim, &folder, &[]);
    wait_for_all(&sim, &collector);
    let records = collector.records();
    let mut times: Vec<i64> =
        records.iter().filter(|r| r.text("conversation_id") == Some("the same")).map(Record::time_ms).collect();
    times.sort_unstable();
    assert_eq!(times, [time, time + 101_000]);
}

#[test]
fn like_events_some_without_a_time_are_as_many_as_their_rows() {
    let (sim, folder) = (simulator(|k| k.hold_history = true), Folder::new("timeless-like"));
    let mut collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    let time = sim.now() - 10_000;
    let timeless = |conversation| Event { socket_time: SocketTime::Absent, ..like(conversation).at(time) };
    sim.issue(timeless("timeless first"));
    sim.issue(like("timeless first").at(time + 2_500));
    sim.issue(like("timeless last").at(time + 2_500));
    sim.issue(timeless("timeless last"));
    collector.wait_lines(4, LONG);
    sim.faults().release_history();
    wait_for_all(&sim, &collector);
    assert!(collector.term().success());
    let collector = Collector::start(&sim, &folder, &[]);
    wait_for_all(&sim, &collector);
}

#[test]
fn an_event_without_a_time_is_one_with_its_row() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("timeless"));
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    for n in 0..20 {
        sim.issue(Event { socket_time: SocketTime::Absent, ..event(n) });
    }
    wait_for_all(&sim, &collector);
    assert_same_set_within(&sim.issued(), &collector.records(), 5_000);
}

#[test]
fn two_collectors_each_have_every_event_once() {
    let sim = simulator(|_| ());
    let (old_folder, new_folder) = (Folder::new("blue"), Folder::new("green"));
    let mut old = Collector::start(&sim, &old_folder, &[]);
    old.wait_healthy();
    issue(&sim, 30);
    let new = Collector::start(&sim, &new_folder, &[]);
    new.wait_healthy();
    issue(&sim, 30);
    wait_for_all(&sim, &old);
    assert!(old.term().success());
    issue(&sim, 30);
    wait_for_all(&sim, &new);
    assert_same_set(&sim.issued(), &new.records());
    assert_eq!(old.records().len(), 60);
    let ids = |collector: &Collector| -> Vec<String> {
        let mut ids: Vec<String> = collector.records().iter().filter_map(|r| r.text("id").map(str::to_owned)).collect();
        ids.sort();
        ids
    };
    let all = ids(&new);
    assert!(ids(&old).iter().all(|id| all.binary_search(id).is_ok()), "the same event has the same id everywhere");
}
