//! An upgrade: what an older version left, in a folder where this one starts.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::support::{Collector, Folder, SOON, assert_same_set};
use audiohook_collector::simulator::{Event, Options, Route, Simulator};
use serde_json::Value;

const LONG: Duration = Duration::from_secs(30);

/// A state file with this content, whole as far as its checksum tells.
fn write_state(path: &Path, document: &str) {
    let sum = twox_hash::XxHash3_64::oneshot(document.as_bytes());
    fs::write(path, format!("{document}\n{sum:016x}\n")).unwrap();
}

fn state_of(path: &Path) -> Value {
    serde_json::from_str(fs::read_to_string(path).unwrap().lines().next().unwrap()).unwrap()
}

/// Format 1 with its first fields alone, as a version that knew no origin and no cluster would have left it, and one
/// that this version does not know.
#[test]
fn a_state_without_newer_fields_is_read_and_gone_on_with() {
    let sim = Simulator::start(Options::default()).unwrap();
    let folder = Folder::new("upgrade");
    let mut collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    let first = sim.issue(Event::numbered("AUDIOHOOK-0001"));
    collector.wait_lines(1, LONG);
    // It stands in the state before the stop, so that the channel and the checkpoint are those of a life.
    assert_eq!(collector.term().code(), Some(0));
    let path = folder.join("events.jsonl.state");
    let whole = state_of(&path);
    let old = serde_json::json!({
        "format": 1,
        "checkpoint_ms": whole["checkpoint_ms"],
        "channel": whole["channel"],
        "of_a_later_version": {"any": 1},
    });
    write_state(&path, &old.to_string());

    let second = sim.issue_by(Event::numbered("AUDIOHOOK-0002"), Route::HistoryOnly);
    let mut collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    collector.wait_lines(2, LONG);
    assert_same_set(&[first, second], &collector.records());
    assert_eq!(sim.view(|view| view.channels_made()), 1, "the channel is used again\n{}", collector.log_text());
    assert!(!folder.join("events.jsonl.state.damaged").exists());
    assert_eq!(collector.term().code(), Some(0));
    let kept = state_of(&path);
    assert!(kept["checkpoint_ms"].as_i64() >= whole["checkpoint_ms"].as_i64(), "{kept}");
    assert_eq!(kept["format"], 2);
}

/// A version that knows less must not guess: the file is put aside, which is said, and nothing is lost or doubled.
#[test]
fn a_state_of_a_later_format_is_put_aside_and_costs_no_event() {
    let sim = Simulator::start(Options::default()).unwrap();
    let folder = Folder::new("downgrade");
    let past: Vec<i64> = (0..50).map(|n| sim.now() - 600_000 + n * 1000).collect();
    sim.issue_many(Event::numbered("AUDIOHOOK-0003"), &past, Route::HistoryOnly);
    let mut collector = Collector::start(&sim, &folder, &[]);
    collector.wait_lines(50, LONG);
    collector.wait_healthy();
    assert_eq!(collector.term().code(), Some(0));
    let path = folder.join("events.jsonl.state");
    write_state(&path, r#"{"format":99,"checkpoint":"elsewhere"}"#);

    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_log("format 99", SOON);
    collector.wait_healthy();
    sim.issue(Event::numbered("AUDIOHOOK-0001"));
    collector.wait_lines(51, LONG);
    assert_same_set(&sim.issued(), &collector.records());
    assert!(folder.join("events.jsonl.state.damaged").exists());
}

/// `conversation_id` is null in the log, as in the record, where an event has none.
#[test]
fn the_log_shows_null_for_what_an_event_does_not_have() {
    let sim = Simulator::start(Options::default()).unwrap();
    let folder = Folder::new("log-null");
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    sim.issue(Event { conversation_id: None, ..Event::numbered("AUDIOHOOK-0001") });
    let line = collector.wait_log("AudioHook event processed", SOON);
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["event_id"], &line["conversation_id"]), (&"AUDIOHOOK-0001".into(), &Value::Null));
}
