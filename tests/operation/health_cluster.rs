//! The truth of `/health` about the cluster: each fault through the real binary, both edges timed, and the counters
//! compared with what was sent.

use std::time::Duration;

use crate::cluster::fake::{Act, Fake};
use crate::support::{Collector, Folder, SOON, poll};
use audiohook_collector::simulator::{Event, Knobs, Options, Simulator};
use serde_json::Value;

/// An edge may take this long, from the cause to `/health`.
const EDGE: Duration = Duration::from_secs(10);
/// A refused login is tried again after this long: only a try can tell that it is over.
const REFUSED_RETRY: Duration = Duration::from_secs(30);

struct Stage {
    sim: Simulator,
    fake: Fake,
    collector: Collector,
    _folder: Folder,
}

impl Stage {
    fn start(name: &str, changed: &[(&str, &str)]) -> Self {
        let (fake, folder) = (Fake::start(), Folder::new(name));
        let knobs = Knobs { requests_per_minute: None, ..Knobs::default() };
        let sim = Simulator::start(Options { knobs, ..Options::default() }).unwrap();
        let mut all = vec![("ELASTIC_URL", fake.url.as_str()), ("ELASTIC_FLUSH_INTERVAL", "0.1")];
        all.extend(changed);
        let collector = Collector::start(&sim, &folder, &all);
        collector.wait_healthy();
        Self { sim, fake, collector, _folder: folder }
    }

    fn issue(&self, count: u32) {
        for _ in 0..count {
            self.sim.issue(Event::numbered("AUDIOHOOK-0001"));
        }
    }

    fn wait_edge(&self, code: &str, raised: bool, limit: Duration) {
        self.collector.wait_reason(code, raised, limit);
    }

    /// The sentence that is told now: degraded, for the file goes on.
    fn assert_says(&self, code: &str, parts: &[&str]) {
        let (status, body) = self.collector.get("/health").unwrap();
        let health: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, health["status"].as_str()), (200, Some("degraded")), "{body}");
        let reason = health["reasons"].as_array().unwrap().iter().find(|reason| reason["code"] == code);
        let reason = reason.unwrap_or_else(|| panic!("no {code}: {body}"));
        let message = format!("{} {}", reason["message"], reason["cure"]);
        for part in parts {
            assert!(message.contains(part), "{code} without {part:?}: {message}");
        }
    }

    /// Every event is in the file, every one that was not refused or dropped is in the cluster, and the counts say so.
    fn assert_counts(&self) {
        let issued = self.sim.issued().len();
        let value = |name: &str| self.collector.metric(&format!("audiohook_collector_{name}")).unwrap() as usize;
        let fits = || {
            let received = value("events_received_total{source=\"websocket\"}")
                + value("events_received_total{source=\"history\"}");
            let (written, duplicate) = (value("events_written_total"), value("events_duplicate_total"));
            let judged = written + duplicate + value("events_filtered_total") + value("events_unreadable_total");
            let result = |name: &str| value(&format!("elastic_documents_total{{result=\"{name}\"}}"));
            let gone = result("created") + result("exists") + result("dead") + value("elastic_dropped_events_total");
            (received == judged && written == issued && gone == issued && value("elastic_backlog_bytes") == 0)
                .then_some(())
        };
        let seen = poll(SOON * 4, fits);
        assert!(
            seen.is_some(),
            "{issued}\n{}\n{}",
            self.collector.get("/metrics").unwrap().1,
            self.collector.log_text()
        );
        assert_eq!(self.fake.documents(), value("elastic_documents_total{result=\"created\"}"));
    }
}

#[test]
fn a_cluster_that_cannot_be_reached_is_told_and_its_return_too() {
    let stage = Stage::start("health-unreachable", &[]);
    for act in [|| Act::Close, || Act::Answer(503, "{}")] {
        stage.issue(3);
        stage.assert_counts();
        stage.fake.script(move |_| act());
        stage.issue(3);
        stage.wait_edge("elastic_unreachable", true, EDGE);
        stage.assert_says("elastic_unreachable", &["safe in", "ELASTIC_URL"]);
        stage.fake.behave();
        stage.wait_edge("elastic_unreachable", false, EDGE);
        stage.assert_counts();
    }
    stage.collector.wait_healthy();
}

#[test]
fn an_idle_cluster_that_goes_is_told_too() {
    let stage = Stage::start("health-idle", &[]);
    stage.fake.script(|_| Act::Close);
    stage.wait_edge("elastic_unreachable", true, EDGE + Duration::from_secs(2));
    stage.fake.behave();
    stage.wait_edge("elastic_unreachable", false, EDGE);
    stage.assert_counts();
}

#[test]
fn a_login_that_the_cluster_refuses_is_told_with_the_setting() {
    let stage = Stage::start("health-refused", &[("ELASTIC_AUTH", "me:secret-secret")]);
    stage.fake.script(|_| Act::Answer(401, "{}"));
    stage.issue(3);
    stage.wait_edge("elastic_refused", true, EDGE);
    stage.assert_says("elastic_refused", &["ELASTIC_AUTH"]);
    stage.fake.behave();
    stage.wait_edge("elastic_refused", false, REFUSED_RETRY + EDGE);
    stage.assert_counts();
    assert!(stage.collector.log_lines().iter().all(|line| !line.contains("secret-secret")));
}

#[test]
fn dead_letters_are_told_until_they_are_gone() {
    let stage = Stage::start("health-dead", &[]);
    stage.fake.on_item(|_, _| 400);
    stage.issue(3);
    stage.wait_edge("dead_letters", true, EDGE);
    stage.assert_says("dead_letters", &["replay"]);
    stage.fake.behave();
    stage.issue(2);
    stage.assert_counts();
    let dead = format!("{}.dead", stage.collector.output_file().display());
    std::fs::remove_file(dead).unwrap();
    stage.wait_edge("dead_letters", false, EDGE);
}

#[test]
fn a_backlog_that_was_dropped_is_told() {
    let small = [("MAX_FILE_SIZE", "4KB"), ("BACKUP_COUNT", "1"), ("ELASTIC_BACKLOG_MAX", "8KB")];
    let stage = Stage::start("health-backlog", &small);
    stage.fake.script(|_| Act::Close);
    stage.issue(200);
    stage.wait_edge("elastic_backlog_dropped", true, EDGE);
    stage.assert_says("elastic_backlog_dropped", &["ELASTIC_BACKLOG_MAX"]);
    stage.fake.behave();
    stage.wait_edge("elastic_unreachable", false, EDGE);
    assert!(stage.collector.metric("audiohook_collector_elastic_dropped_events_total").unwrap() > 0.0);
    stage.assert_counts();
}
