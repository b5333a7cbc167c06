//! `GET /metrics`: the status in the Prometheus text format, version 0.0.4. The names are fixed, since alerts depend on
//! them. A series that is 0 is never left out.

use std::fmt::{Display, Write};

use super::process;
use crate::clock::Millis;
use crate::status::{Code, Status};

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const PREFIX: &str = "audiohook_collector_";

/// A sample's labels: names and values.
type Labels<'a> = &'a [(&'a str, &'a str)];

/// The complete exposition.
pub fn text(status: &Status) -> String {
    let mut out = String::with_capacity(16 * 1024);
    events(&mut out, status);
    audiohook(&mut out, status);
    elastic(&mut out, status);
    health(&mut out, status);
    // The conventional `process_` names; left out where the system does not provide the values.
    for (name, help, value) in process::read().unwrap_or_default() {
        family(&mut out, name, help);
        sample(&mut out, name, &[], value);
    }
    out
}

fn events(out: &mut String, status: &Status) {
    let (c, g) = (&status.counters, &status.gauges);
    let received = family(out, "events_received_total", "Events and unreadable frames received, by source.");
    sample(out, &received, &[("source", "websocket")], c.received_websocket.get());
    sample(out, &received, &[("source", "history")], c.received_history.get());
    metric(out, "events_written_total", "Records appended to the file.", c.written.get());
    metric(out, "events_duplicate_total", "Events that were already in the file.", c.duplicate.get());
    metric(out, "events_filtered_total", "Events that are not AudioHook's; they are not written.", c.filtered.get());
    let help = "Frames that are not events; they are kept in OUTPUT_FILE.unreadable.";
    metric(out, "events_unreadable_total", help, c.unreadable.get());
    let help = "Whether a WebSocket to Genesys Cloud is open.";
    metric(out, "socket_connected", help, g.socket_connected.get().unwrap_or(0));
    metric(out, "socket_connects_total", "WebSockets opened.", c.socket_connects.get());
    let help = "The time up to which the history is in the file, in seconds since 1970; 0 if it is not read.";
    metric(out, "history_checkpoint_timestamp_seconds", help, seconds(g.checkpoint.get()));
    let help = "The newest event's time, in seconds since 1970; 0 before the first event.";
    metric(out, "last_event_timestamp_seconds", help, seconds(g.last_event.get()));
}

/// Events written, by code and integration. Each pair has both series from its first event on, so that an alert sees
/// the step from 0.
fn audiohook(out: &mut String, status: &Status) {
    let help = "AudioHook events written, by code and integration; late: older than 15 minutes when written.";
    let name = family(out, "audiohook_events_total", help);
    for pair in status.counts.totals() {
        for (late, count) in [("false", pair.on_time), ("true", pair.late)] {
            let (event, id, entity) = (&*pair.event_id, &*pair.entity_id, &*pair.entity_name);
            sample(
                out,
                &name,
                &[("event_id", event), ("entity_id", id), ("entity_name", entity), ("late", late)],
                count,
            );
        }
    }
}

fn elastic(out: &mut String, status: &Status) {
    let (c, g) = (&status.counters, &status.gauges);
    let name = family(out, "elastic_documents_total", "Documents sent to the cluster, by result.");
    for (result, count) in [("created", &c.elastic_created), ("exists", &c.elastic_exists), ("dead", &c.elastic_dead)] {
        sample(out, &name, &[("result", result)], count.get());
    }
    let help = "Bytes of records in the file that are not in the cluster yet.";
    metric(out, "elastic_backlog_bytes", help, g.elastic_backlog_bytes.get().unwrap_or(0));
    let help = "Records whose backup was deleted before the cluster had them.";
    metric(out, "elastic_dropped_events_total", help, c.elastic_dropped.get());
}

fn health(out: &mut String, status: &Status) {
    let raised = status.reasons();
    let is_raised = |code: Code| raised.iter().any(|reason| reason.code == code);
    let name = family(out, "health_reason", "Whether this health reason is raised, for each code.");
    for code in Code::ALL {
        sample(out, &name, &[("code", code.name())], u8::from(is_raised(code)));
    }
    let help = "Whether Genesys Cloud has confirmed the list of AudioHook definitions that is in use.";
    metric(out, "definitions_confirmed", help, status.gauges.definitions_confirmed.get().unwrap_or(0));
    let name = family(out, "build_info", "The program's version and the name of this instance.");
    sample(out, &name, &[("version", env!("CARGO_PKG_VERSION")), ("instance_name", &status.instance)], 1);
}

fn metric(out: &mut String, name: &str, help: &str, value: impl Display) {
    let name = family(out, name, help);
    sample(out, &name, &[], value);
}

/// Writes a metric's HELP and TYPE lines, and returns its full name. A counter's name ends in `_total`. Writing to a
/// string cannot fail.
fn family(out: &mut String, name: &str, help: &str) -> String {
    let prefix = if name.starts_with("process_") { "" } else { PREFIX };
    let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
    let _ = writeln!(out, "# HELP {prefix}{name} {help}\n# TYPE {prefix}{name} {kind}");
    format!("{prefix}{name}")
}

fn sample(out: &mut String, name: &str, labels: Labels<'_>, value: impl Display) {
    let escape = |value: &str| value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
    let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escape(value))).collect();
    let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
    let _ = writeln!(out, "{name}{labels} {value}");
}

/// Milliseconds as seconds; 0 for `None`.
fn seconds(ms: Option<Millis>) -> String {
    let ms = ms.unwrap_or(0).max(0);
    format!("{}.{:03}", ms / 1000, ms % 1000)
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
        assert!(text.contains("audiohook_collector_definitions_confirmed 0\n"), "nothing was asked yet");
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
        status.gauges.definitions_confirmed.set(1);
        status.counters.elastic_exists.add(7);
        let text = text(&status);
        assert!(text.contains("_history_checkpoint_timestamp_seconds 1795430645.023\n"), "{text}");
        assert!(text.contains("{result=\"exists\"} 7\n"), "{text}");
        assert!(text.contains("audiohook_collector_definitions_confirmed 1\n"), "{text}");
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
