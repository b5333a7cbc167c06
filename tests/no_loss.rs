//! No event is lost and none stands in the file twice, whatever fails: the real binary against the simulated service.
//! Each test compares what was issued with what the files hold.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::time::{Duration, Instant};

use audiohook_collector::clock::format_millis;
use audiohook_collector::genesys::api::PAGE_SIZE;
use audiohook_collector::simulator::{Action, Call, Definition, Event, Knobs, Options, Route, Simulator, SocketTime};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use serde_json::{Value, json};
use support::collector::{binary, settings};
use support::{Collector, Folder, SOON, assert_same_set, assert_same_set_within, let_pass, poll, records};

/// What any step may take on a busy machine.
const LONG: Duration = Duration::from_secs(60);

fn simulator(change: impl FnOnce(&mut Knobs)) -> Simulator {
    let mut knobs = Knobs { requests_per_minute: None, ..Knobs::default() };
    change(&mut knobs);
    Simulator::start(Options { knobs, ..Options::default() }).unwrap()
}

fn event(n: u32) -> Event {
    Event::numbered(["AUDIOHOOK-0001", "AUDIOHOOK-0002", "AUDIOHOOK-0003"][n as usize % 3])
}

fn issue(sim: &Simulator, count: u32) {
    for n in 0..count {
        sim.issue(event(n));
    }
}

/// Waits until the files hold as many records as AudioHook events were issued, and a while longer for those that must
/// not come.
fn wait_for_all(sim: &Simulator, collector: &Collector) {
    let expected = sim.issued().len();
    collector.wait_lines(expected, LONG);
    let reads = sim.view(|view| view.count(Call::History));
    assert!(sim.wait_until(LONG, |view| view.count(Call::History) > reads + 2), "the history is read no more");
    assert!(collector.wait_lines(expected, LONG).len() == expected);
}

#[test]
fn a_cut_of_thirty_seconds_loses_nothing() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("cut"));
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    issue(&sim, 50);
    sim.faults().fail(Call::Handshake, Action::status(503));
    sim.faults().cut_sockets();
    for n in 0..30 {
        sim.issue(event(n));
        let_pass(Duration::from_secs(1));
    }
    sim.faults().heal_all();
    collector.wait_healthy();
    issue(&sim, 50);
    wait_for_all(&sim, &collector);
    assert_same_set(&sim.issued(), &collector.records());
}

#[test]
fn fifty_kills_at_random_instants_lose_nothing_and_double_nothing() {
    let (sim, folder) = (simulator(|k| k.history_jitter_ms = 900), Folder::new("kills"));
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut draw = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let many = [("MAX_FILE_SIZE", "100KB"), ("BACKUP_COUNT", "500"), ("CATCH_UP_RATE", "100000")];
    for round in 0..50 {
        let mut collector = Collector::start(&sim, &folder, &many);
        let until = Instant::now() + Duration::from_millis(draw(if round % 5 == 0 { 2500 } else { 700 }));
        while Instant::now() < until {
            issue(&sim, draw(20) as u32);
            let_pass(Duration::from_millis(1 + draw(30)));
        }
        collector.kill9();
        issue(&sim, draw(5) as u32);
    }
    let collector = Collector::start(&sim, &folder, &many);
    wait_for_all(&sim, &collector);
    assert_same_set_within(&sim.issued(), &collector.records(), 900);
    let made = sim.view(|view| view.channels_made());
    assert!(made <= 3, "{made} channels were made by 51 starts");
}

#[test]
fn a_full_disk_throws_nothing_away_and_leaves_no_torn_line() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("full"));
    let mut collector = Collector::start(&sim, &folder, &[("MAX_FILE_SIZE", "1GB")]);
    collector.wait_healthy();
    issue(&sim, 20);
    collector.wait_lines(20, LONG);
    // A limit on the size of files stands for a disk that is full.
    let len = std::fs::metadata(collector.output_file()).unwrap().len();
    limit_files(&collector, Some(len + 1500));
    let since = Instant::now();
    issue(&sim, 400);
    let raised = collector.wait_reason("disk_write_failed", true, Duration::from_secs(10));
    assert!(raised < Duration::from_secs(10) && since.elapsed() < Duration::from_secs(12));
    assert_eq!(collector.get("/health").unwrap().0, 503);
    let text = std::fs::read_to_string(collector.output_file()).unwrap();
    assert!(text.ends_with('\n') && text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    assert!(text.lines().count() > 20, "what fits whole is written");
    limit_files(&collector, None);
    collector.wait_healthy();
    wait_for_all(&sim, &collector);
    assert_same_set(&sim.issued(), &collector.records());
    assert!(collector.term().success());
}

fn limit_files(collector: &Collector, bytes: Option<u64>) {
    let pid = Pid::from_raw(collector.pid() as i32);
    prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

#[test]
fn a_history_that_lags_by_two_minutes_still_brings_what_the_socket_missed() {
    let (sim, folder) = (simulator(|k| k.history_lag = Duration::from_secs(120)), Folder::new("lag"));
    let collector = Collector::start(&sim, &folder, &[("CATCH_UP_INTERVAL", "5")]);
    collector.wait_healthy();
    issue(&sim, 30);
    sim.faults().set(|k| k.socket_to_drop = 10);
    issue(&sim, 30);
    collector.wait_lines(60, Duration::from_secs(180));
    wait_for_all(&sim, &collector);
    assert_same_set(&sim.issued(), &collector.records());
}

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
    wait_for_all(&sim, &collector);
    assert_same_set(&sim.issued(), &collector.records());
    assert!(collector.term().success());
    let collector = Collector::start(&sim, &folder, &[]);
    sim.issue_by(same.at(now + 7), Route::HistoryOnly);
    wait_for_all(&sim, &collector);
    assert_same_set(&sim.issued(), &collector.records());
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
    let mut times: Vec<i64> = records
        .iter()
        .filter(|r| r.text("conversation_id") == Some("the same"))
        .map(support::Record::time_ms)
        .collect();
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
fn an_event_without_a_time_is_one_with_its_row_though_the_machines_clock_is_wrong() {
    for ahead_ms in [3_600_000, -3_600_000] {
        let (sim, folder) = (simulator(|k| k.clock_offset_ms = ahead_ms), Folder::new("timeless-clock"));
        let mut collector = Collector::start(&sim, &folder, &[]);
        collector.wait_healthy();
        for n in 0..20 {
            sim.issue(Event { socket_time: audiohook_collector::simulator::SocketTime::Absent, ..event(n) });
        }
        wait_for_all(&sim, &collector);
        assert_same_set_within(&sim.issued(), &collector.records(), 5_000);
        // What stands in the file is known again.
        collector.kill9();
        std::fs::remove_file(folder.join("events.jsonl.state")).unwrap();
        let collector = Collector::start(&sim, &folder, &[]);
        wait_for_all(&sim, &collector);
        assert_same_set_within(&sim.issued(), &collector.records(), 5_000);
    }
}

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
    wait_for_all(&sim, &collector);
    assert_same_set(&sim.issued(), &collector.records());
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
    wait_for_all(&sim, &collector);
    assert_same_set(&sim.issued(), &collector.records());
}

#[test]
fn a_state_that_cannot_be_kept_is_said_and_events_go_on() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("stateless"));
    let (there, away) = (folder.join("state"), folder.join("away"));
    std::fs::create_dir(&there).unwrap();
    let state = there.join("events.state").display().to_string();
    let collector = Collector::start(&sim, &folder, &[("STATE_FILE", &state)]);
    collector.wait_healthy();
    std::fs::rename(&there, &away).unwrap();
    collector.wait_reason("disk_write_failed", true, Duration::from_secs(10));
    issue(&sim, 20);
    collector.wait_lines(20, LONG);
    let health = collector.health().unwrap();
    assert!(health["reasons"].to_string().contains("STATE_FILE"), "writing events does not end it: {health}");
    std::fs::rename(&away, &there).unwrap();
    collector.wait_healthy();
    wait_for_all(&sim, &collector);
    assert_same_set(&sim.issued(), &collector.records());
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

#[test]
fn a_cloned_machine_does_not_fight_over_the_channel() {
    let sim = simulator(|_| ());
    let (first_folder, second_folder) = (Folder::new("original"), Folder::new("clone"));
    let first = Collector::start(&sim, &first_folder, &[]);
    first.wait_healthy();
    let state = std::fs::read(first_folder.join("events.jsonl.state")).unwrap();
    second_folder.write("events.jsonl.state", state);
    let second = Collector::start(&sim, &second_folder, &[]);
    assert!(sim.wait_until(LONG, |view| view.sockets_open() == 2), "each has a socket of its own in the end");
    let opened = sim.view(|view| view.sockets_opened());
    assert!(opened <= 10, "{opened} sockets were opened until then");
    issue(&sim, 20);
    for collector in [&first, &second] {
        wait_for_all(&sim, collector);
        assert_same_set(&sim.issued(), &collector.records());
    }
}

#[test]
fn sockets_that_are_closed_revoked_or_taken_over_lose_nothing() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("handover"));
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    let faults = sim.faults();
    let troubles: [&dyn Fn(); 9] = [
        &|| faults.announce_closing(),
        &|| faults.announce_token_revoked(),
        &|| faults.announce_no_longer_subscribed(),
        &|| faults.take_over_channels(),
        &|| faults.evict_channels(),
        &|| faults.drop_channels(),
        &|| faults.reset_sockets(),
        &|| faults.close_sockets(1001, "idle timeout"),
        &|| faults.revoke_tokens(),
    ];
    for trouble in troubles {
        issue(&sim, 10);
        trouble();
        issue(&sim, 10);
        assert!(sim.wait_until(LONG, |view| view.sockets_open() >= 1), "a socket is open again");
        let_pass(Duration::from_millis(300));
    }
    faults.fail_next(Call::Handshake, Action::status(404), 1);
    faults.cut_sockets();
    issue(&sim, 10);
    assert!(sim.wait_until(LONG, |view| view.sockets_open() >= 1));
    faults.fail_next(Call::Handshake, Action::status(401), 1);
    faults.cut_sockets();
    issue(&sim, 10);
    wait_for_all(&sim, &collector);
    assert_same_set(&sim.issued(), &collector.records());
    collector.wait_healthy();
}

#[test]
fn at_socket_closing_the_new_socket_is_open_before_the_old_one_is_given_up() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("closing"));
    let collector = Collector::start(&sim, &folder, &[("GENESYS_DELIVERY", "websocket")]);
    collector.wait_healthy();
    for n in 0..200 {
        sim.issue(event(n));
        if n % 50 == 20 {
            sim.faults().announce_closing();
        }
        let_pass(Duration::from_millis(10));
    }
    collector.wait_lines(200, LONG);
    assert_same_set(&sim.issued(), &collector.records());
    assert_eq!(sim.view(|view| view.channels_made()), 1, "the channel stays the same");
}

#[test]
fn before_its_end_a_channel_is_handed_over() {
    let (sim, folder) = (simulator(|k| k.channel_life = Duration::from_secs(6)), Folder::new("expiry"));
    let collector = Collector::start(&sim, &folder, &[("GENESYS_DELIVERY", "websocket")]);
    collector.wait_healthy();
    for n in 0..150 {
        sim.issue(event(n));
        let_pass(Duration::from_millis(100));
    }
    collector.wait_lines(150, LONG);
    assert_same_set(&sim.issued(), &collector.records());
}

#[test]
fn without_the_history_the_socket_is_collected_and_the_risk_is_told() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("forbidden"));
    sim.faults().fail(Call::History, Action::status(403));
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_reason("history_forbidden", true, Duration::from_secs(10));
    let health = collector.health().unwrap();
    assert_eq!(health["status"], "degraded");
    assert!(health["reasons"].to_string().contains("usage:events:view"), "{health}");
    issue(&sim, 20);
    collector.wait_lines(20, LONG);
    sim.faults().heal_all();
    collector.wait_reason("history_forbidden", false, Duration::from_secs(10));
    wait_for_all(&sim, &collector);
    assert_same_set(&sim.issued(), &collector.records());
}

#[test]
fn without_the_socket_the_history_is_collected_in_time() {
    let troubles: [fn(&Simulator); 2] = [
        |sim| sim.faults().reject_topics("v2.operations", "not permitted", &["usage:events:view"]),
        |sim| sim.faults().set(|k| k.transports = vec!["EventBridge".into()]),
    ];
    for trouble in troubles {
        let (sim, folder) = (simulator(|_| ()), Folder::new("rejected"));
        trouble(&sim);
        let collector = Collector::start(&sim, &folder, &[]);
        assert!(poll(LONG, || (collector.get("/readyz")?.0 == 200).then_some(())).is_some());
        issue(&sim, 20);
        collector.wait_lines(20, Duration::from_secs(10));
        wait_for_all(&sim, &collector);
        assert_same_set(&sim.issued(), &collector.records());
    }
    let (sim, folder) = (simulator(|_| ()), Folder::new("history"));
    let collector = Collector::start(&sim, &folder, &[("GENESYS_DELIVERY", "history")]);
    collector.wait_healthy();
    issue(&sim, 20);
    wait_for_all(&sim, &collector);
    assert_same_set(&sim.issued(), &collector.records());
    assert_eq!(sim.view(|view| view.sockets_opened()), 0);
}

#[test]
fn a_hundred_thousand_events_are_caught_up_with_within_the_rate_and_without_delaying_the_socket() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("hundred"));
    let start = sim.now() - 9 * 86_400_000;
    let times: Vec<i64> = (0..100_000).map(|n| start + n * 7_000).collect();
    sim.issue_many(event(1), &times, Route::HistoryOnly);
    let rate = "1500";
    let changed = [("CATCH_UP_RATE", rate), ("MAX_FILE_SIZE", "1GB"), ("CATCH_UP_INTERVAL", "30")];
    let collector = Collector::start(&sim, &folder, &changed);
    assert!(sim.wait_until(LONG, |view| view.sockets_open() == 1 && view.count(Call::History) > 20));
    let live = sim.issue(event(2));
    let number = format!("event {:012}", live.number);
    let found = poll(Duration::from_secs(5), || {
        let text = std::fs::read_to_string(collector.output_file()).ok()?;
        text.contains(&number).then_some(())
    });
    assert!(found.is_some(), "an event on the socket does not wait for the history");
    collector.wait_lines(100_001, Duration::from_secs(180));
    assert_same_set(&sim.issued(), &collector.records());
    let most = sim.view(|view| view.most_in_a_minute(Call::History));
    assert!(most <= 1500, "{most} requests in a minute");
    assert!(collector.log_lines().iter().any(|line| line.contains('%')), "the progress is shown");
}

#[test]
fn a_history_of_large_events_is_read_in_smaller_pages() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("large"));
    let now = sim.now();
    for n in 0..300_i64 {
        // The small ones come first: nothing is known of the large ones when they are asked for.
        let bytes = if n < 50 { 10 } else { 80_000 };
        let event = Event { phone_number: Some("1".repeat(bytes)), ..event(n as u32) }.at(now - 1_800_000 + n * 1000);
        sim.issue_by(event, Route::HistoryOnly);
    }
    let collector = Collector::start(&sim, &folder, &[("GENESYS_DELIVERY", "history"), ("CATCH_UP_START", "3600")]);
    collector.wait_lines(300, LONG);
    collector.wait_healthy();
    assert_same_set(&sim.issued(), &collector.records());
    let asked = sim.view(|view| view.requests(Call::History));
    assert!(asked.iter().any(|seen| seen.target.contains("pageSize=100")), "a page of two hundred was too long");
    assert!(!collector.log_text().contains("history_failing"), "a page that is too long is no failure");
}

#[test]
fn a_history_that_is_hard_to_read_is_read_all_the_same() {
    let (sim, folder) = (
        simulator(|k| {
            k.history_span_max = Some(Duration::from_secs(7200));
            k.history_ids_max = Some(2);
            k.cursors_to_expire = 3;
            k.pages_to_repeat = 2;
        }),
        Folder::new("hard"),
    );
    let start = sim.now() - 20 * 3_600_000;
    let times: Vec<i64> = (0..3_000).map(|n| start + n * 20_000).collect();
    for n in 0..3 {
        sim.issue_many(event(n), &times, Route::HistoryOnly);
    }
    let faults = sim.faults();
    faults.fail_next(Call::History, Action::Nonsense, 1);
    faults.fail_next(Call::History, Action::Half, 1);
    faults.fail_next(Call::History, Action::status(500), 1);
    faults.fail_next(Call::History, Action::Status { status: 429, retry_after_s: Some(1) }, 1);
    let changed = [("CATCH_UP_START", "86400"), ("CATCH_UP_RATE", "100000")];
    let collector = Collector::start(&sim, &folder, &changed);
    collector.wait_lines(9_000, LONG);
    wait_for_all(&sim, &collector);
    assert_same_set(&sim.issued(), &collector.records());
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

#[test]
fn an_audit_finds_what_is_missing_and_repairs_it() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("audit"));
    let short = [("CATCH_UP_OVERLAP", "2")];
    let mut collector = Collector::start(&sim, &folder, &short);
    collector.wait_healthy();
    issue(&sim, 40);
    collector.wait_lines(40, LONG);
    let_pass(Duration::from_secs(4));
    assert!(collector.term().success());
    let mut all = settings(&sim, &folder);
    all.insert("CATCH_UP_OVERLAP".into(), "2".into());
    let audit = |arguments: &[&str]| {
        let output = binary(folder.path(), arguments, &all).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, report, errors) = audit(&["audit", "--json"]);
    assert_eq!(status, Some(0), "{report} {errors}");
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["complete"], report["missing"].as_array().map(Vec::len)), (&json!(true), Some(0)));
    // Three lines are lost.
    let file = folder.join("events.jsonl");
    let text = std::fs::read_to_string(&file).unwrap();
    let kept: Vec<&str> =
        text.lines().enumerate().filter(|(n, _)| ![3, 10, 39].contains(n)).map(|(_, line)| line).collect();
    std::fs::write(&file, kept.join("\n") + "\n").unwrap();
    let (status, report, _) = audit(&["audit", "--json"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(
        (status, &report["complete"], report["missing"].as_array().map(Vec::len)),
        (Some(1), &json!(false), Some(3))
    );
    let (status, report, errors) = audit(&["audit", "--repair"]);
    assert_eq!(status, Some(0), "{report} {errors}");
    assert_same_set(&sim.issued(), &records::read(&file));
    // While a collector runs, it repairs by itself.
    let collector = Collector::start(&sim, &folder, &short);
    collector.wait_healthy();
    let (status, _, errors) = audit(&["audit", "--repair"]);
    assert!(status == Some(1) && errors.contains(&collector.pid().to_string()), "{errors}");
    collector.signal(Signal::TERM);
}

#[test]
fn an_audit_misses_no_event_that_the_topics_bring_and_the_collector_filters() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("audit-filtered"));
    // AudioHook's by its name alone, which only the definitions tell.
    sim.define(Definition::new("DATAACTIONS-0009", "Data action of an AudioHook integration", ""));
    folder.write("topics.json", r#"{"topics":["v2.operations.events.*"]}"#);
    let mut all = settings(&sim, &folder);
    all.insert("CATCH_UP_OVERLAP".into(), "2".into());
    let mut collector = Collector::start_with(folder.path(), &all);
    collector.wait_healthy();
    for _ in 0..4 {
        sim.issue(Event::numbered("TELEPHONY-0001"));
        sim.issue_by(Event::numbered("DATAACTIONS-0009"), Route::HistoryOnly);
        sim.issue(Event::numbered("AUDIOHOOK-0001"));
    }
    collector.wait_lines(8, LONG);
    let_pass(Duration::from_secs(4));
    assert!(collector.term().success());
    let audit = |arguments: &[&str]| {
        let output = binary(folder.path(), arguments, &all).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, report, errors) = audit(&["audit", "--json"]);
    assert_eq!(status, Some(0), "{report} {errors}");
    let report: Value = serde_json::from_str(&report).unwrap();
    let counted = report["definitions"].as_array().unwrap();
    assert!(counted.iter().all(|counted| counted["genesys"] == counted["file"]), "{report}");
    let counts = |id: &str| counted.iter().find(|counted| counted["id"] == id).map(|counted| &counted["file"]);
    assert_eq!(
        (counts("TELEPHONY-0001"), counts("AUDIOHOOK-0001"), counts("DATAACTIONS-0009")),
        (None, Some(&json!(4)), Some(&json!(4)))
    );
    // The running collector's own audit is of the same mind.
    let before = sim.view(|view| view.count(Call::Counts));
    let collector = Collector::start_with(folder.path(), &all);
    assert!(sim.wait_until(LONG, |view| view.count(Call::Counts) > before));
    let reads = sim.view(|view| view.count(Call::History));
    assert!(sim.wait_until(LONG, |view| view.count(Call::History) > reads + 3));
    collector.wait_healthy();
    assert!(!collector.log_text().contains("were missing in the file"), "{}", collector.log_text());
    drop(collector);
    // One that is AudioHook's by its name is missed like any other.
    let file = folder.join("events.jsonl");
    let text = std::fs::read_to_string(&file).unwrap();
    let lost = text.lines().position(|line| line.contains("DATAACTIONS-0009")).unwrap();
    let kept: Vec<&str> = text.lines().enumerate().filter(|(n, _)| *n != lost).map(|(_, line)| line).collect();
    std::fs::write(&file, kept.join("\n") + "\n").unwrap();
    let (status, report, _) = audit(&["audit"]);
    assert!(status == Some(1) && report.contains("\n1 events are missing"), "{report}");
    let (status, report, errors) = audit(&["audit", "--repair"]);
    assert_eq!(status, Some(0), "{report} {errors}");
    assert_eq!(records::read(&file).len(), 8);
}

/// Where Debian's package libfaketime puts its library.
fn faketime() -> Option<std::path::PathBuf> {
    let folder = format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH);
    let found = Some(std::path::PathBuf::from(folder)).filter(|path| path.exists());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "libfaketime is missing: apt-get install -y libfaketime");
        println!("skipped: libfaketime is missing (apt-get install -y libfaketime)");
    }
    found
}

/// A library whose `fdatasync` fails, as that of a disk with bad sectors does, while a file of this name is there.
const FAILING_SYNC: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
int fdatasync(int fd) {
    if (access(getenv("SYNC_FAILS"), F_OK) == 0) {
        errno = EIO;
        return -1;
    }
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    return real(fd);
}
"#;

#[test]
fn a_sync_that_fails_is_told_and_what_it_was_for_is_synced_before_the_checkpoint_moves() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("sync"));
    let (source, library) = (folder.write("sync.c", FAILING_SYNC), folder.join("sync.so"));
    let mut compiler = std::process::Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl");
    assert!(compiler.status().unwrap().success());
    let fails = folder.join("fails");
    let mut all = settings(&sim, &folder);
    all.insert("LD_PRELOAD".into(), library.display().to_string());
    all.insert("SYNC_FAILS".into(), fails.display().to_string());
    all.insert("MAX_FILE_SIZE".into(), "20000".into());
    all.insert("BACKUP_COUNT".into(), "50".into());
    let mut collector = Collector::start_with(folder.path(), &all);
    collector.wait_healthy();
    issue(&sim, 5);
    collector.wait_lines(5, LONG);
    std::fs::write(&fails, "").unwrap();
    issue(&sim, 30);
    collector.wait_reason("disk_write_failed", true, Duration::from_secs(10));
    let health = collector.health().unwrap();
    assert!(health["reasons"].to_string().contains("cannot sync"), "{health}");
    let checkpoint = health["stats"]["history_checkpoint"].clone();
    issue(&sim, 30);
    let_pass(Duration::from_secs(2));
    assert_eq!(collector.health().unwrap()["stats"]["history_checkpoint"], checkpoint, "nothing is durable");
    assert!(collector.runs());
    std::fs::remove_file(&fails).unwrap();
    collector.wait_reason("disk_write_failed", false, Duration::from_secs(10));
    wait_for_all(&sim, &collector);
    assert_same_set(&sim.issued(), &collector.records());
    assert!(collector.term().success());
}

#[test]
fn a_wall_clock_that_jumps_an_hour_loses_and_doubles_nothing() {
    let Some(library) = faketime() else { return };
    let (sim, folder) = (simulator(|k| k.history_jitter_ms = 500), Folder::new("clock"));
    let jump = folder.write("faketime", "+0");
    let mut all = settings(&sim, &folder);
    for (name, value) in [
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", jump.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ] {
        all.insert(name.to_owned(), value);
    }
    let mut collector = Collector::start_with(folder.path(), &all);
    collector.wait_healthy();
    for offset in ["+3600", "+0", "-3600", "+0", "+3600"] {
        std::fs::write(&jump, offset).unwrap();
        let did_jump = || {
            let line: Value = serde_json::from_str(collector.log_lines().last()?).ok()?;
            let told = audiohook_collector::clock::parse_instant(line["timestamp"].as_str()?)?;
            let ahead_s = (told - audiohook_collector::clock::Clock::system().wall()) / 1000;
            (ahead_s - offset.parse::<i64>().unwrap()).abs().le(&60).then_some(())
        };
        assert!(poll(LONG, did_jump).is_some(), "the collector's clock jumps\n{}", collector.log_text());
        sim.faults().set(|k| k.socket_to_drop = 5);
        issue(&sim, 20);
        let_pass(Duration::from_millis(1500));
        sim.faults().cut_sockets();
        issue(&sim, 10);
        let_pass(Duration::from_millis(500));
    }
    wait_for_all(&sim, &collector);
    assert_same_set_within(&sim.issued(), &collector.records(), 500);
    // A restart in the jumped time, and one after it.
    for offset in ["-3600", "+0"] {
        assert!(collector.term().success());
        issue(&sim, 10);
        std::fs::write(&jump, offset).unwrap();
        collector = Collector::start_with(folder.path(), &all);
        issue(&sim, 10);
        wait_for_all(&sim, &collector);
        assert_same_set_within(&sim.issued(), &collector.records(), 500);
    }
    collector.wait_healthy();
    let received = |record: &support::Record| {
        let received = record.text("received_at").and_then(audiohook_collector::clock::parse_instant);
        received.unwrap_or(0) - record.time_ms()
    };
    let latest = collector.records().iter().map(received).max();
    assert!(latest < Some(600_000), "a receipt is the service's time where this machine's is wrong: {latest:?}");
}

#[test]
fn what_came_into_the_history_too_late_is_found_by_the_audit_and_appended() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("late"));
    let short = [("CATCH_UP_OVERLAP", "2")];
    let mut collector = Collector::start(&sim, &folder, &short);
    collector.wait_healthy();
    issue(&sim, 20);
    // The audit of this start has been: the next one is that of the next start.
    assert!(sim.wait_until(LONG, |view| view.requests(Call::Counts).iter().any(|seen| seen.status == 200)));
    // These stand in the history only after it was read past them, further than the first read of a start goes back.
    for n in 0..7 {
        sim.issue_by(event(n).at(sim.now() - 600_000 + i64::from(n)), Route::HistoryOnly);
    }
    issue(&sim, 3);
    collector.wait_lines(23, LONG);
    let reads = sim.view(|view| view.count(Call::History));
    assert!(sim.wait_until(LONG, |view| view.count(Call::History) > reads + 2));
    assert!(collector.term().success());
    assert_eq!(collector.records().len(), 23, "what the history showed too late is missing so far");
    let collector = Collector::start(&sim, &folder, &short);
    collector.wait_lines(30, LONG);
    collector.wait_log("were missing in the file", LONG);
    collector.wait_log("is in the file now", LONG);
    assert_same_set(&sim.issued(), &collector.records());
    collector.wait_healthy();
}
