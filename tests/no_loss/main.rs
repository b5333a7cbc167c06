//! No event is lost and none stands in the file twice, whatever fails: the real binary against the simulated service.
//! Each test compares what was issued with what the files hold.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod audit;
mod clock;
mod delivery;
mod disk;
mod flood;
mod history;
mod matching;
mod start;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use audiohook_collector::simulator::{Call, Event, Knobs, Options, Simulator};
use support::{Collector, assert_same_set};

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

/// Each event that was issued stands in the files once.
fn assert_all_stand_once(sim: &Simulator, collector: &Collector) {
    wait_for_all(sim, collector);
    assert_same_set(&sim.issued(), &collector.records());
}
