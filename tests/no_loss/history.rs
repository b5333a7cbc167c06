//! What the history alone brings: late, in masses, in pages that are hard to read.

use std::time::Duration;

use audiohook_collector::simulator::{Action, Call, Event, Route};

use crate::support::{Collector, Folder, assert_same_set, poll};
use crate::{LONG, assert_all_stand_once, event, issue, simulator};

#[test]
fn a_history_that_lags_by_two_minutes_still_brings_what_the_socket_missed() {
    let (sim, folder) = (simulator(|k| k.history_lag = Duration::from_secs(120)), Folder::new("lag"));
    let collector = Collector::start(&sim, &folder, &[("CATCH_UP_INTERVAL", "5")]);
    collector.wait_healthy();
    issue(&sim, 30);
    sim.faults().set(|k| k.socket_to_drop = 10);
    issue(&sim, 30);
    collector.wait_lines(60, Duration::from_secs(180));
    assert_all_stand_once(&sim, &collector);
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
fn a_history_of_large_events_is_read_in_shorter_spans() {
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
    assert!(!collector.log_text().contains("history_failing"), "an answer that is too long is no failure");
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
    assert_all_stand_once(&sim, &collector);
}
