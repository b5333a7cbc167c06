//! More events than can be remembered, and a history that tells of them again.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use audiohook_collector::simulator::{Action, Call, Route, Simulator};

use crate::support::{Collector, Folder, poll, records};
use crate::{event, simulator};

/// More than the index holds at once (220,000).
const EVENTS: usize = 230_000;
/// Of which one in so many does not come on the socket.
const MISSED: usize = 2_000;
/// What a step of so many events may take on a busy machine.
const FLOOD_MAX: Duration = Duration::from_secs(240);
/// All happened within the overlap.
const WITHIN_MS: i64 = 120_000;

const SETTINGS: [(&str, &str); 2] = [("CATCH_UP_RATE", "1000000"), ("MAX_FILE_SIZE", "64MB")];

/// Starts a collector and floods its socket, while the history cannot be read.
fn flood(sim: &Simulator, folder: &Folder) -> Collector {
    sim.faults().fail(Call::History, Action::status(503));
    let collector = Collector::start(sim, folder, &SETTINGS);
    assert!(sim.wait_until(FLOOD_MAX, |view| view.sockets_open() == 1), "{}", collector.log_text());
    let begin = sim.now() - WITHIN_MS;
    let times: Vec<i64> = (0..EVENTS as i64).map(|n| begin + n * WITHIN_MS / EVENTS as i64).collect();
    for bunch in times.chunks(MISSED) {
        sim.issue_many(event(1), &bunch[1..], Route::Both);
        sim.issue_by(event(1).at(bunch[0]), Route::HistoryOnly);
    }
    wait_written(&collector, EVENTS - EVENTS / MISSED);
    collector
}

fn wait_written(collector: &Collector, count: usize) {
    let written = || collector.metric("audiohook_collector_events_written_total");
    let all = poll(FLOOD_MAX, || (written()? >= count as f64).then_some(()));
    assert!(all.is_some(), "{:?} of {count} are written\n{}", written(), collector.log_text());
}

/// Waits until the checkpoint has passed this instant: whatever the history told until then is judged.
fn wait_checkpoint(collector: &Collector, instant_ms: i64) {
    let checkpoint = || collector.metric("audiohook_collector_history_checkpoint_timestamp_seconds");
    let passed = poll(FLOOD_MAX, || (checkpoint()? * 1000.0 >= instant_ms as f64).then_some(()));
    assert!(passed.is_some(), "the checkpoint stands at {:?}\n{}", checkpoint(), collector.log_text());
}

fn assert_each_once(sim: &Simulator, file: &Path) {
    const MARK: &str = "\"current_value\":\"event ";
    let (mut numbers, mut lines) = (HashSet::new(), 0);
    for path in records::files(file) {
        for line in BufReader::new(std::fs::File::open(path).unwrap()).lines() {
            let line = line.unwrap();
            let at = line.find(MARK).unwrap_or_else(|| panic!("no number in {line}"));
            numbers.insert(line[at + MARK.len()..][..12].to_owned());
            lines += 1;
        }
    }
    assert_eq!((lines, numbers.len()), (sim.issued().len(), sim.issued().len()), "lines, different events");
}

const FROM_FILES: &str = "reading the records from the files";

#[test]
fn what_was_forgotten_is_looked_for_in_the_file() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("flood"));
    let mut collector = flood(&sim, &folder);
    sim.faults().heal(Call::History);
    wait_checkpoint(&collector, sim.now());
    assert_each_once(&sim, collector.output_file());
    assert!(collector.log_lines().iter().any(|line| line.contains(FROM_FILES)));
    // A start remembers no more, and the service may not count.
    collector.kill9();
    sim.faults().fail(Call::Counts, Action::status(404));
    // As old as the flood's first: later than that, and a start still remembers what was then.
    let late = sim.issue_by(event(2).at(sim.issued()[0].time_ms), Route::HistoryOnly);
    let collector = Collector::start(&sim, &folder, &SETTINGS);
    wait_checkpoint(&collector, sim.now());
    assert_each_once(&sim, collector.output_file());
    assert!(collector.log_lines().iter().any(|line| line.contains(FROM_FILES)));
    let found = poll(Duration::from_secs(1), || {
        let text = std::fs::read_to_string(collector.output_file()).ok()?;
        text.contains(&format!("event {:012}", late.number)).then_some(())
    });
    assert!(found.is_some());
}

#[test]
fn a_kill_while_it_is_looked_for_changes_nothing() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("flood-kill"));
    // What happened in the days before comes first, and is older than all that is remembered by then.
    let start = sim.now() - 3 * 86_400_000;
    let times: Vec<i64> = (0..12_000).map(|n| start + n * 20_000).collect();
    sim.issue_many(event(2), &times, Route::HistoryOnly);
    let mut collector = flood(&sim, &folder);
    sim.faults().heal(Call::History);
    collector.wait_log(FROM_FILES, FLOOD_MAX);
    collector.kill9();
    let collector = Collector::start(&sim, &folder, &SETTINGS);
    wait_checkpoint(&collector, sim.now());
    assert_each_once(&sim, collector.output_file());
}
