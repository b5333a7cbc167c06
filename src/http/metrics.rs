//! `GET /metrics`: the status as Prometheus's text format, version 0.0.4.
//!
//! The names are fixed, since alerts are written against them. Must never: leave a series out because it is 0.

use std::fmt::{self, Display, Write};

use super::process;
use crate::clock::Millis;
use crate::status::{Code, Status};

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const PREFIX: &str = "audiohook_collector_";

/// The whole exposition.
pub fn text(status: &Status) -> String {
    let mut out = String::with_capacity(8 * 1024);
    events(&mut out, status);
    audiohook(&mut out, status);
    elastic(&mut out, status);
    health(&mut out, status);
    process(&mut out);
    out
}

fn events(out: &mut String, status: &Status) {
    let (c, g) = (&status.counters, &status.gauges);
    let received =
        [("{source=\"websocket\"}", c.received_websocket.get()), ("{source=\"history\"}", c.received_history.get())];
    counter(out, "events_received_total", "Events and unreadable frames received, by their source.", &received);
    counter(out, "events_written_total", "Records appended to the file.", &[("", c.written.get())]);
    let help = "Events that were in the file already.";
    counter(out, "events_duplicate_total", help, &[("", c.duplicate.get())]);
    let help = "Events that are not AudioHook's; they are not written.";
    counter(out, "events_filtered_total", help, &[("", c.filtered.get())]);
    let help = "Frames that are not events; they are kept beside the file.";
    counter(out, "events_unreadable_total", help, &[("", c.unreadable.get())]);
    let help = "Whether a WebSocket to Genesys Cloud is open.";
    gauge(out, "socket_connected", help, &[("", g.socket_connected.get().unwrap_or(0))]);
    counter(out, "socket_connects_total", "WebSockets opened.", &[("", c.socket_connects.get())]);
    let help = "The instant up to which the history is in the file, in seconds since 1970; 0 where it is not read.";
    gauge(out, "history_checkpoint_timestamp_seconds", help, &[("", Seconds(g.checkpoint.get()))]);
    let help = "The newest event's own time, in seconds since 1970; 0 before the first.";
    gauge(out, "last_event_timestamp_seconds", help, &[("", Seconds(g.last_event.get()))]);
}

/// AudioHook's own health: what was written, by code and integration. A pair has both series from its beginning, so
/// that an alert sees the step from 0.
fn audiohook(out: &mut String, status: &Status) {
    let pairs = status.counts.totals();
    let samples: Vec<(String, u64)> = pairs
        .iter()
        .flat_map(|pair| {
            [("false", pair.on_time), ("true", pair.late)].map(|(late, count)| {
                let (event_id, entity_id) = (label(&pair.event_id), label(&pair.entity_id));
                let name = label(&pair.entity_name);
                let labels = format!("event_id={event_id},entity_id={entity_id},entity_name={name},late=\"{late}\"");
                (format!("{{{labels}}}"), count)
            })
        })
        .collect();
    let samples: Vec<(&str, u64)> = samples.iter().map(|(labels, count)| (labels.as_str(), *count)).collect();
    let help = "AudioHook events written, by code and integration; late: older than 15 minutes when written.";
    counter(out, "audiohook_events_total", help, &samples);
}

/// A label's value in quotes, escaped as the format demands.
fn label(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n"))
}

fn elastic(out: &mut String, status: &Status) {
    let (c, g) = (&status.counters, &status.gauges);
    let documents = [
        ("{result=\"created\"}", c.elastic_created.get()),
        ("{result=\"exists\"}", c.elastic_exists.get()),
        ("{result=\"dead\"}", c.elastic_dead.get()),
    ];
    counter(out, "elastic_documents_total", "Documents by the cluster's verdict.", &documents);
    let help = "Bytes of records in the file that the cluster does not have yet.";
    gauge(out, "elastic_backlog_bytes", help, &[("", g.elastic_backlog_bytes.get().unwrap_or(0))]);
    let help = "Records whose backup was deleted before the cluster had them.";
    counter(out, "elastic_dropped_events_total", help, &[("", c.elastic_dropped.get())]);
}

fn health(out: &mut String, status: &Status) {
    let raised = status.reasons();
    let labels: Vec<(String, bool)> = Code::ALL
        .iter()
        .map(|code| (format!("{{code=\"{}\"}}", code.name()), raised.iter().any(|reason| reason.code == *code)))
        .collect();
    let samples: Vec<(&str, u8)> = labels.iter().map(|(label, is)| (label.as_str(), u8::from(*is))).collect();
    gauge(out, "health_reason", "Whether this health reason is raised, for every code.", &samples);
    let confirmed = u8::from(!raised.iter().any(|reason| reason.code == Code::DefinitionsUnconfirmed));
    let help = "Whether Genesys Cloud has confirmed the list of AudioHook definitions that is in use.";
    gauge(out, "definitions_confirmed", help, &[("", confirmed)]);
    let instance = label(&status.instance);
    let labels = format!("{{version=\"{}\",instance_name={instance}}}", env!("CARGO_PKG_VERSION"));
    gauge(out, "build_info", "The program's version and the name of this instance.", &[(&labels, 1)]);
}

/// The names that every exporter of a process uses; left out where the system has no such numbers.
fn process(out: &mut String) {
    let Some(process) = process::read() else { return };
    let mut one =
        |name: &str, kind: &str, help: &str, value: &dyn Display| family(out, "", name, kind, help, &[("", value)]);
    one("process_cpu_seconds_total", "counter", "User and system CPU time, in seconds.", &process.cpu_seconds);
    one(
        "process_start_time_seconds",
        "gauge",
        "When the process started, in seconds since 1970.",
        &process.started_seconds,
    );
    one("process_resident_memory_bytes", "gauge", "Resident memory, in bytes.", &process.resident_bytes);
    one("process_virtual_memory_bytes", "gauge", "Virtual memory, in bytes.", &process.virtual_bytes);
    one("process_threads", "gauge", "Threads.", &process.threads);
    one("process_open_fds", "gauge", "Open file descriptors.", &process.open_fds);
    if let Some(max) = process.max_fds {
        one("process_max_fds", "gauge", "File descriptors that may be open.", &max);
    }
}

fn counter(out: &mut String, name: &str, help: &str, samples: &[(&str, impl Display)]) {
    family(out, PREFIX, name, "counter", help, samples);
}

fn gauge(out: &mut String, name: &str, help: &str, samples: &[(&str, impl Display)]) {
    family(out, PREFIX, name, "gauge", help, samples);
}

/// A name's help, type and samples: labels, in braces or none, and a value. Writing to a string cannot fail.
fn family(out: &mut String, prefix: &str, name: &str, kind: &str, help: &str, samples: &[(&str, impl Display)]) {
    let _ = writeln!(out, "# HELP {prefix}{name} {help}\n# TYPE {prefix}{name} {kind}");
    for (labels, value) in samples {
        let _ = writeln!(out, "{prefix}{name}{labels} {value}");
    }
}

/// Milliseconds, shown as seconds; 0 when there are none.
struct Seconds(Option<Millis>);

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.unwrap_or(0).max(0);
        write!(f, "{}.{:03}", ms / 1000, ms % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn every_fixed_name_is_there_from_the_start() {
        let text = text(&Status::new(Clock::system(), false));
        for line in [
            "audiohook_collector_events_received_total{source=\"websocket\"} 0",
            "audiohook_collector_events_received_total{source=\"history\"} 0",
            "audiohook_collector_events_written_total 0",
            "audiohook_collector_events_duplicate_total 0",
            "audiohook_collector_events_filtered_total 0",
            "audiohook_collector_events_unreadable_total 0",
            "audiohook_collector_socket_connected 0",
            "audiohook_collector_socket_connects_total 0",
            "audiohook_collector_history_checkpoint_timestamp_seconds 0.000",
            "audiohook_collector_last_event_timestamp_seconds 0.000",
            "audiohook_collector_elastic_documents_total{result=\"created\"} 0",
            "audiohook_collector_elastic_documents_total{result=\"exists\"} 0",
            "audiohook_collector_elastic_documents_total{result=\"dead\"} 0",
            "audiohook_collector_elastic_backlog_bytes 0",
            "audiohook_collector_elastic_dropped_events_total 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
        for code in Code::ALL {
            let value = u8::from(code == Code::Starting);
            let line = format!("audiohook_collector_health_reason{{code=\"{}\"}} {value}\n", code.name());
            assert!(text.contains(&line), "{line} in\n{text}");
        }
        assert!(text.contains("audiohook_collector_definitions_confirmed 1\n"));
        assert!(text.contains("audiohook_collector_build_info{version=\""));
    }

    #[test]
    fn events_are_counted_by_code_and_integration() {
        let status = Status::new(Clock::system(), false).named("a\"b\\c\nd");
        let now = status.now();
        status.counts.add("AUDIOHOOK-0003", "e-1", "Voice \"EU\"", now, now);
        status.counts.add("AUDIOHOOK-0003", "e-1", "Voice \"EU\"", now - 3_600_000, now);
        let text = text(&status);
        let labels = r#"event_id="AUDIOHOOK-0003",entity_id="e-1",entity_name="Voice \"EU\"""#;
        for late in ["false", "true"] {
            let line = format!("audiohook_collector_audiohook_events_total{{{labels},late=\"{late}\"}} 1\n");
            assert!(text.contains(&line), "{line} in\n{text}");
        }
        assert!(text.contains(r#"instance_name="a\"b\\c\nd"} 1"#), "{text}");
    }

    #[test]
    fn instants_are_seconds() {
        let status = Status::new(Clock::system(), true);
        status.gauges.checkpoint.set(1_795_430_645_023);
        status.counters.elastic_exists.add(7);
        let text = text(&status);
        assert!(text.contains("_history_checkpoint_timestamp_seconds 1795430645.023\n"), "{text}");
        assert!(text.contains("{result=\"exists\"} 7\n"), "{text}");
    }

    #[test]
    fn every_sample_follows_its_own_help_and_type() {
        let text = text(&Status::new(Clock::system(), false));
        let mut name = "";
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                name = rest.split(' ').next().unwrap();
                assert_eq!(text.matches(&format!("# TYPE {name} ")).count(), 1, "{name}");
            } else if !line.starts_with('#') {
                assert_eq!(line.split(['{', ' ']).next(), Some(name));
                assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
            }
        }
    }
}
