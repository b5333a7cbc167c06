//! What comes on the socket or from the history is in the file as the record that is promised, value for value; what is
//! no event is counted and kept aside, and the next event still arrives.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod fields;
mod redaction;
#[path = "../support/mod.rs"]
mod support;
mod unreadable;

use audiohook_collector::simulator::{Knobs, Options, Simulator};
use support::{Collector, Record, SOON, poll};

fn simulator() -> Simulator {
    let knobs = Knobs { requests_per_minute: None, ..Knobs::default() };
    Simulator::start(Options { knobs, ..Options::default() }).unwrap()
}

/// A frame around this body.
fn around(body: &str) -> String {
    format!(
        "{{\"topicName\":\"v2.operations.events.AUDIOHOOK-0001\",\"version\":\"2\",\"eventBody\":{body},\"metadata\":{{\"CorrelationId\":\"x\"}}}}"
    )
}

/// A body that is told from others by its conversation.
fn body(conversation: &str) -> String {
    format!("{{\"eventEntity\":{{\"id\":\"AUDIOHOOK-0001\"}},\"conversationId\":\"{conversation}\"}}")
}

/// Sends a body and gives the record that it becomes.
fn record_of(sim: &Simulator, collector: &Collector, body: &str) -> Record {
    let before = collector.records().len();
    sim.faults().send_text(&around(body));
    collector.wait_lines(before + 1, SOON).pop().unwrap()
}

/// Sends an event, which must arrive.
fn next_event_arrives(sim: &Simulator, collector: &Collector, conversation: &str) {
    sim.faults().send_text(&around(&body(conversation)));
    let arrived = poll(SOON, || {
        collector.records().iter().any(|r| r.text("conversation_id") == Some(conversation)).then_some(())
    });
    assert!(arrived.is_some(), "{conversation} is not in the file\n{}", collector.log_text());
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Counts {
    received: f64,
    written: f64,
    duplicate: f64,
    filtered: f64,
    unreadable: f64,
}

fn counts(collector: &Collector) -> Counts {
    let of = |name: &str| {
        collector.metric(&format!("audiohook_collector_{name}")).unwrap_or_else(|| panic!("no metric {name}"))
    };
    Counts {
        received: of("events_received_total{source=\"websocket\"}") + of("events_received_total{source=\"history\"}"),
        written: of("events_written_total"),
        duplicate: of("events_duplicate_total"),
        filtered: of("events_filtered_total"),
        unreadable: of("events_unreadable_total"),
    }
}

/// Waits for these counts, which must add up.
fn wait_counts(collector: &Collector, written: u32, duplicate: u32, filtered: u32, unreadable: u32) {
    let [written, duplicate, filtered, unreadable] = [written, duplicate, filtered, unreadable].map(f64::from);
    let received = written + duplicate + filtered + unreadable;
    let expected = Counts { received, written, duplicate, filtered, unreadable };
    let seen = poll(SOON, || (counts(collector) == expected).then_some(()));
    assert!(seen.is_some(), "expected {expected:?}, found {:?}\n{}", counts(collector), collector.log_text());
}
