//! Whatever the service answers and however its clock goes: every AudioHook event is in the file, once. The real binary
//! against the simulated service.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod answers;
mod clocks;
mod definitions;
mod limits;
mod matching;
mod subscriptions;
#[path = "../support/mod.rs"]
mod support;
mod times;
mod wire;

use std::time::Duration;

use audiohook_collector::simulator::{Call, Event, Knobs, Options, Route, Simulator};
use support::{Collector, Folder, let_pass};

/// What any step may take on a busy machine.
const LONG: Duration = Duration::from_secs(60);
/// A row may wait this long for its frame while a socket is open.
const ROWS_WAIT: Duration = Duration::from_secs(12);
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

fn simulator(change: impl FnOnce(&mut Knobs)) -> Simulator {
    let mut knobs = Knobs { requests_per_minute: None, ..Knobs::default() };
    change(&mut knobs);
    Simulator::start(Options { knobs, ..Options::default() }).unwrap()
}

/// An event of which there may be several that differ in their time alone.
fn like(conversation: &str) -> Event {
    Event {
        definition: "AUDIOHOOK-0001".to_owned(),
        entity_id: Some("e".to_owned()),
        conversation_id: Some(conversation.to_owned()),
        ..Event::default()
    }
}

/// Issues an event of this definition that only the history has, this old.
fn issue_old(sim: &Simulator, definition: &str, age_ms: i64) {
    sim.issue_by(Event::numbered(definition).at(sim.now() - age_ms), Route::HistoryOnly);
}

/// The ids of the definitions in the file, sorted.
fn definitions_in(collector: &Collector) -> Vec<String> {
    let records = collector.records();
    let mut ids: Vec<String> = records.iter().filter_map(|record| record.text("event_id").map(str::to_owned)).collect();
    ids.sort();
    ids
}

/// Waits until the history has been read as often again.
fn wait_reads(sim: &Simulator, collector: &Collector, count: usize) {
    let answered = |view: &audiohook_collector::simulator::View| {
        view.requests(Call::History).iter().filter(|seen| seen.status == 200).count()
    };
    let before = sim.view(answered);
    let read = sim.wait_until(LONG, |view| answered(view) >= before + count);
    assert!(read, "the history is not read\n{}", collector.log_text());
}

/// Waits until no row waits for its frame any more and the history has been read again: what must not come has not come.
fn settle(sim: &Simulator, collector: &Collector) {
    let_pass(ROWS_WAIT);
    wait_reads(sim, collector, 3);
}

/// A started collector, healthy, in a folder of its own.
fn started(name: &str, sim: &Simulator, changed: &[(&str, &str)]) -> (Folder, Collector) {
    let folder = Folder::new(name);
    let collector = Collector::start(sim, &folder, changed);
    collector.wait_healthy();
    let has_socket = changed.iter().all(|(_, value)| *value != "history");
    assert!(!has_socket || sim.wait_until(LONG, |view| view.sockets_open() == 1 && !view.subscribed().is_empty()));
    (folder, collector)
}
