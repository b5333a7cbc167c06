//! The machine's clock is wrong, or jumps.

use std::time::Duration;

use audiohook_collector::simulator::Event;
use serde_json::Value;

use crate::support::collector::settings;
use crate::support::{Collector, Folder, Record, assert_same_set_within, let_pass, poll};
use crate::{LONG, event, issue, simulator, wait_for_all};

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
    let received = |record: &Record| {
        let received = record.text("received_at").and_then(audiohook_collector::clock::parse_instant);
        received.unwrap_or(0) - record.time_ms()
    };
    let latest = collector.records().iter().map(received).max();
    assert!(latest < Some(600_000), "a receipt is the service's time where this machine's is wrong: {latest:?}");
}
