//! Single answers with a wrong `Date`, and a process that stood still.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use audiohook_collector::clock::Clock;
use audiohook_collector::simulator::{Action, Call, Event, Route, Simulator, http_date};
use rustix::process::Signal;

use crate::support::{Collector, assert_same_set, at_once, let_pass};
use crate::{DAY_MS, Folder, LONG, issue_old, settle, simulator, started, wait_reads};

/// Every so many answers carry a `Date` that is off by this much.
fn wrong_date(every: u32, off_ms: i64) -> Action {
    let count = AtomicU32::new(0);
    Action::change(move |_, answer| {
        if count.fetch_add(1, Ordering::Relaxed).is_multiple_of(every) {
            answer.headers.push(("Date", http_date(Clock::system().wall() + off_ms)));
        }
    })
}

fn assert_all_come(sim: &Simulator, collector: &Collector) {
    collector.wait_lines(sim.issued().len(), LONG);
    settle(sim, collector);
    assert_same_set(&sim.issued(), &collector.records());
}

#[test]
fn a_wrong_date_in_single_answers_moves_no_checkpoint_past_unread_events() {
    at_once([DAY_MS, -DAY_MS, 3_600_000, -3_600_000], |off_ms| {
        let sim = simulator(|_| ());
        let (folder, mut collector) = started("date", &sim, &[("CATCH_UP_OVERLAP", "10")]);
        for call in Call::ALL.into_iter().filter(|call| *call != Call::Handshake) {
            sim.faults().fail(call, wrong_date(4, off_ms));
        }
        for n in 0..8 {
            sim.issue_by(Event::numbered("AUDIOHOOK-0001"), Route::HistoryOnly);
            sim.issue(Event::numbered("AUDIOHOOK-0002"));
            wait_reads(&sim, &collector, 1);
            let_pass(Duration::from_millis(100 * n));
        }
        // A restart begins where the checkpoint stands.
        collector.kill9();
        sim.faults().heal_all();
        for _ in 0..3 {
            sim.issue_by(Event::numbered("AUDIOHOOK-0003"), Route::HistoryOnly);
        }
        let collector = Collector::start(&sim, &folder, &[("CATCH_UP_OVERLAP", "10")]);
        assert_all_come(&sim, &collector);
        println!("{off_ms} ms off: all came");
    });
}

#[test]
fn a_first_answer_with_a_wrong_date_is_no_beginning() {
    at_once([DAY_MS, -DAY_MS], |off_ms| {
        let (sim, folder) = (simulator(|_| ()), Folder::new("first-date"));
        issue_old(&sim, "AUDIOHOOK-0001", 2 * 3_600_000);
        // The very first answers are the token's and the definitions'.
        for call in [Call::Token, Call::Definitions] {
            sim.faults().fail_next(call, wrong_date(1, off_ms), 1);
        }
        let collector = Collector::start(&sim, &folder, &[("GENESYS_DELIVERY", "history"), ("CATCH_UP_OVERLAP", "10")]);
        collector.wait_lines(1, LONG);
        for _ in 0..5 {
            sim.issue(Event::numbered("AUDIOHOOK-0002"));
            wait_reads(&sim, &collector, 1);
        }
        assert_all_come(&sim, &collector);
    });
}

#[test]
fn what_happens_while_the_process_stands_still_is_read_after_it() {
    let sim = simulator(|knobs| knobs.heartbeat = Duration::from_secs(1));
    let (_folder, collector) = started("suspended", &sim, &[("CATCH_UP_OVERLAP", "10")]);
    sim.issue(Event::numbered("AUDIOHOOK-0001"));
    collector.wait_lines(1, LONG);
    for round in 0..2 {
        collector.signal(Signal::STOP);
        let_pass(Duration::from_secs(1));
        for _ in 0..5 {
            sim.issue(Event::numbered("AUDIOHOOK-0002"));
            sim.issue_by(Event::numbered("AUDIOHOOK-0003"), Route::HistoryOnly);
        }
        if round == 1 {
            // The connections do not outlive it.
            sim.faults().reset_sockets();
            for _ in 0..5 {
                sim.issue(Event::numbered("AUDIOHOOK-0004"));
            }
        }
        let_pass(Duration::from_secs(12));
        collector.signal(Signal::CONT);
        assert_all_come(&sim, &collector);
        collector.wait_healthy();
    }
}
