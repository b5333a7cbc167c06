//! The time in a frame: in any unit, or one that cannot be right.

use audiohook_collector::clock::{format_millis, parse_instant};
use audiohook_collector::simulator::{Event, Route, SocketTime};

use crate::{LONG, like, settle, simulator, started, wait_reads};

/// An event whose frame carries this JSON value as `timestamp`.
fn with_timestamp(conversation: &str, json: String) -> Event {
    Event { socket_time: SocketTime::Absent, extra: vec![("timestamp".to_owned(), json)], ..like(conversation) }
}

#[test]
fn a_time_in_any_unit_gives_the_event_of_its_row() {
    let sim = simulator(|_| ());
    let (_folder, collector) = started("units", &sim, &[]);
    // Whole seconds, so that each unit can hold it.
    let time_ms = (sim.now() - 60_000) / 1000 * 1000;
    let units = [
        ("seconds", (time_ms / 1000).to_string()),
        ("milliseconds", time_ms.to_string()),
        ("microseconds", (time_ms * 1000).to_string()),
        ("nanoseconds", (time_ms * 1_000_000).to_string()),
        ("iso", format!("\"{}\"", format_millis(time_ms))),
        ("text of seconds", format!("\"{}\"", time_ms / 1000)),
        ("text of milliseconds", format!("\"{time_ms}\"")),
    ];
    for (unit, json) in &units {
        sim.issue_by(with_timestamp(unit, json.clone()).at(time_ms), Route::SocketOnly);
    }
    collector.wait_lines(units.len(), LONG);
    // Another collector has the same events from the history: the same event has the same id.
    for (unit, _) in &units {
        sim.issue_by(like(unit).at(time_ms), Route::HistoryOnly);
    }
    let (_folder, other) = started("units-history", &sim, &[("GENESYS_DELIVERY", "history")]);
    other.wait_lines(units.len(), LONG);
    settle(&sim, &collector);
    let sorted = |collector: &crate::Collector| {
        let records = collector.records();
        let mut found: Vec<(String, i64, String)> = records
            .iter()
            .map(|r| (r.text("conversation_id").unwrap().to_owned(), r.time_ms(), r.text("id").unwrap().to_owned()))
            .collect();
        found.sort();
        found
    };
    let found = sorted(&collector);
    assert!(found.iter().all(|(_, time, _)| *time == time_ms), "{found:?}, not {time_ms}");
    assert_eq!(found, sorted(&other));
}

#[test]
fn a_time_that_cannot_be_right_is_none_of_its_own() {
    let sim = simulator(|_| ());
    let (_folder, collector) = started("absurd", &sim, &[]);
    let now = sim.now();
    let absurd = [
        ("zero", "0".to_owned()),
        ("before 2015", "1400000000000".to_owned()),
        ("before 2015, seconds", "1400000000".to_owned()),
        ("before 2015, iso", "\"2014-12-31T23:59:59.999Z\"".to_owned()),
        ("two days ahead", (now + 2 * 86_400_000).to_string()),
        ("two days ahead, seconds", ((now + 2 * 86_400_000) / 1000).to_string()),
        ("far ahead", "99999999999999999".to_owned()),
        ("negative", "-5".to_owned()),
        ("no time", "\"yesterday\"".to_owned()),
    ];
    for (name, json) in &absurd {
        let time_ms = sim.now();
        sim.issue(with_timestamp(name, json.clone()).at(time_ms).row_at(time_ms));
    }
    collector.wait_lines(absurd.len(), LONG);
    settle(&sim, &collector);
    wait_reads(&sim, &collector, 2);
    let records = collector.records();
    let shown: Vec<(Option<&str>, i64)> = records.iter().map(|r| (r.text("conversation_id"), r.time_ms())).collect();
    assert_eq!(records.len(), absurd.len(), "each is one with its row: {shown:?}");
    for record in &records {
        let received = record.text("received_at").and_then(parse_instant).unwrap();
        assert!((record.time_ms() - received).abs() < 60_000, "its time is the receipt: {}", record.line);
    }
}

#[test]
fn a_time_just_before_a_day_ahead_is_the_events_own() {
    let sim = simulator(|_| ());
    let (_folder, collector) = started("ahead", &sim, &[]);
    let time_ms = sim.now() + 23 * 3_600_000;
    sim.issue_by(like("ahead").at(time_ms), Route::SocketOnly);
    let records = collector.wait_lines(1, LONG);
    assert_eq!(records[0].time_ms(), time_ms);
}
