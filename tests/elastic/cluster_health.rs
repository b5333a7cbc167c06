//! The cluster's side through the real binary, with a cluster that misbehaves on request: what `/health` says and when,
//! and that the file never waits.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::cluster::fake::{Act, Fake};
use crate::support::collector::{binary, settings};
use crate::support::{Authority, Collector, Folder, SOON, at_once, let_pass, poll};
use audiohook_collector::simulator::{Event, Knobs, Options, Route, Simulator};
use serde_json::Value;

/// An edge of a reason: from its cause, or its end, to `/health`.
const EDGE: Duration = Duration::from_secs(10);
/// A login that is refused is tried again after this long: only a try can tell that it is over.
const LOGIN_RETRY: Duration = Duration::from_secs(30);
const PREDECESSORS: &str = r#"{"timestamp": "2026-11-20T10:30:45.123456+00:00", "event_type": "audiohook_operational", "event_id": "AUDIOHOOK-0001", "event_name": "AudioHook integration error", "description": "The provisioned server URI is invalid.", "conversation_id": "34c18827-77a6-4970-ad66-6f2966c8NNNN", "entity_type": "integration", "entity_id": "0f8f91f9-a27d-4ddf-9026-7e1e3a8d73a6", "entity_name": "AudioHook Integration Name", "version": "1.0", "topic": "platform.integration.audiohook", "channel": "streaming-channel-12345", "raw_event": {"eventEntity": {"id": "AUDIOHOOK-0001"}, "conversationId": "34c18827-77a6-4970-ad66-6f2966c8NNNN", "entityId": "0f8f91f9-a27d-4ddf-9026-7e1e3a8d73a6"}}"#;

struct Stage {
    sim: Simulator,
    folder: Folder,
    settings: Vec<(&'static str, String)>,
}

impl Stage {
    fn new(urls: &str) -> Self {
        let knobs = Knobs { requests_per_minute: None, ..Knobs::default() };
        let settings = vec![
            ("ELASTIC_URL", urls.to_owned()),
            ("ELASTIC_FLUSH_INTERVAL", "0.1".to_owned()),
            ("CATCH_UP_INTERVAL", "3600".to_owned()),
        ];
        let sim = Simulator::start(Options { knobs, ..Options::default() }).unwrap();
        Self { sim, folder: Folder::new("cluster-health"), settings }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.settings.retain(|(other, _)| *other != name);
        self.settings.push((name, value.to_owned()));
        self
    }

    /// Starts it, and waits until its socket is open.
    fn collect(&self) -> Collector {
        let changed: Vec<(&str, &str)> = self.settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let collector = Collector::start(&self.sim, &self.folder, &changed);
        let connected = poll(SOON * 2, || {
            (collector.metric("audiohook_collector_socket_connected")? == 1.0
                && !collector.reasons()?.contains(&"starting".to_owned()))
            .then_some(())
        });
        assert!(connected.is_some(), "{:?}\n{}", collector.health(), collector.log_text());
        collector
    }

    fn issue(&self, count: usize) {
        for _ in 0..count {
            self.sim.issue(Event::numbered("AUDIOHOOK-0001"));
        }
    }

    fn command(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut all: BTreeMap<String, String> = settings(&self.sim, &self.folder);
        all.extend(self.settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let output = binary(self.folder.path(), arguments, &all).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    }

    /// The numbers of the backups, sorted.
    fn backups(&self) -> Vec<u32> {
        let names = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let number = |name: std::ffi::OsString| name.to_str()?.strip_prefix("events.jsonl.")?.parse().ok();
        let mut numbers: Vec<u32> = names.filter_map(number).collect();
        numbers.sort_unstable();
        numbers
    }

    fn file(&self) -> PathBuf {
        self.folder.join("events.jsonl")
    }
}

fn elastic(collector: &Collector, name: &str) -> u64 {
    collector.health().unwrap()["elastic"][name].as_u64().unwrap()
}

fn message(collector: &Collector, code: &str) -> String {
    let health = collector.health().unwrap();
    let reasons = health["reasons"].as_array().unwrap();
    let reason = reasons.iter().find(|reason| reason["code"] == code);
    reason.map(|reason| format!("{} {}", reason["message"], reason["cure"])).unwrap_or_default()
}

/// Waits until the cluster holds so many documents and nothing waits.
fn wait_documents(collector: &Collector, fakes: &[&Fake], count: usize) {
    let all = || {
        let ids: BTreeSet<String> = fakes.iter().flat_map(|fake| ids(fake)).collect();
        (ids.len() >= count && elastic(collector, "backlog_bytes") == 0).then_some(ids.len())
    };
    let seen = poll(EDGE * 3, all);
    let there = fakes.iter().map(|fake| fake.documents()).sum::<usize>();
    assert_eq!(seen, Some(count), "{there}: {:?}\n{}", collector.health(), collector.log_text());
}

fn ids(fake: &Fake) -> BTreeSet<String> {
    fake.state().documents.keys().cloned().collect()
}

fn ids_of_file(collector: &Collector) -> BTreeSet<String> {
    collector.records().iter().map(|record| record.text("id").unwrap().to_owned()).collect()
}

/// Metrics, `/health` and the file say the same.
fn assert_counts(collector: &Collector, lines: u64) {
    let counts = ["created", "exists", "dead"].map(|name| {
        let metric = format!("audiohook_collector_elastic_documents_total{{result=\"{name}\"}}");
        let value = collector.metric(&metric).unwrap() as u64;
        assert_eq!(value, elastic(collector, name), "{name}");
        value
    });
    let dropped = collector.metric("audiohook_collector_elastic_dropped_events_total").unwrap() as u64;
    assert_eq!(counts.iter().sum::<u64>() + dropped, lines, "{counts:?} and {dropped} dropped");
    assert_eq!(elastic(collector, "backlog_bytes"), 0);
    assert_eq!(collector.health().unwrap()["elastic"]["server"], "OpenSearch 2.19.1");
}

#[test]
fn an_outage_of_any_kind_is_said_and_its_end_too_and_the_file_does_not_wait() {
    type Make = fn() -> Act;
    let kinds: [(&str, Make); 5] = [
        ("hangs", || Act::Hang),
        ("hangs in the middle of an answer", || Act::HangHalfway),
        ("closes", || Act::Close),
        ("503", || Act::Answer(503, "")),
        ("a login page", || Act::Answer(200, "<html>Please log in</html>")),
    ];
    for (name, act) in kinds {
        let fake = Fake::start();
        let stage = Stage::new(&fake.url);
        let collector = stage.collect();
        stage.issue(20);
        wait_documents(&collector, &[&fake], 20);
        fake.script(move |_| act());
        stage.issue(1);
        let took = collector.wait_reason("elastic_unreachable", true, EDGE);
        let said = message(&collector, "elastic_unreachable");
        assert!(said.contains("are safe in") && said.contains(&fake.url), "{name}: {said}");
        assert_eq!(collector.get("/health").unwrap().0, 200, "{name}: the events are kept");
        // Each event stands in the file at once.
        let mut slowest = Duration::ZERO;
        for n in 0..50 {
            let issued = Instant::now();
            stage.issue(1);
            collector.wait_lines(22 + n, SOON);
            slowest = slowest.max(issued.elapsed());
        }
        assert!(slowest < Duration::from_secs(1), "{name}: {slowest:?}");
        assert!(elastic(&collector, "backlog_bytes") > 50 * 500, "{name}");
        let mended = Instant::now();
        fake.behave();
        collector.wait_reason("elastic_unreachable", false, EDGE);
        let over = mended.elapsed();
        wait_documents(&collector, &[&fake], 71);
        eprintln!("{name}: said after {took:?}, over after {over:?}, slowest event {slowest:?}");
        assert_counts(&collector, 71);
        assert_eq!(ids(&fake), ids_of_file(&collector), "{name}");
        assert_eq!(collector.get("/health").unwrap().0, 200);
    }
}

#[test]
fn an_outage_that_spares_the_probes_is_seen_to_be_over_within_ten_seconds_however_long_it_was() {
    type Make = fn() -> Act;
    let kinds: [(&str, Make); 3] = [
        ("hangs", || Act::Hang),
        ("503", || Act::Answer(503, "")),
        ("a login page", || Act::Answer(200, "<html>Please log in</html>")),
    ];
    let stages: Vec<_> = kinds.iter().map(|_| Fake::start()).map(|fake| (Stage::new(&fake.url), fake)).collect();
    let collectors: Vec<_> = stages.iter().map(|(stage, _)| stage.collect()).collect();
    for ((stage, fake), (_, act)) in stages.iter().zip(kinds) {
        fake.on_bulk(move |_| act());
        stage.issue(60);
    }
    for collector in &collectors {
        collector.wait_reason("elastic_unreachable", true, EDGE);
    }
    // Long enough for every wait to have grown to its longest.
    let_pass(Duration::from_secs(60));
    for ((_, fake), (collector, (name, _))) in stages.iter().zip(collectors.iter().zip(kinds)) {
        let asked = fake.state().requests.iter().filter(|request| request.is_bulk()).count();
        assert!(asked < 20, "{name}: spared, not asked {asked} times");
        fake.behave();
        let over = collector.wait_reason("elastic_unreachable", false, EDGE);
        eprintln!("{name}: asked {asked} times, over after {over:?}");
        wait_documents(collector, &[fake], 60);
    }
}

#[test]
fn an_idle_cluster_that_goes_away_is_said_before_the_next_document() {
    let fake = Fake::start();
    let stage = Stage::new(&fake.url);
    let collector = stage.collect();
    stage.issue(1);
    wait_documents(&collector, &[&fake], 1);
    fake.script(|_| Act::Close);
    collector.wait_reason("elastic_unreachable", true, EDGE + Duration::from_secs(1));
    fake.behave();
    collector.wait_reason("elastic_unreachable", false, EDGE);
}

#[test]
fn a_refused_login_is_said_with_its_cure_and_seen_to_be_over_at_the_next_try() {
    at_once([401, 403], |status| {
        let fake = Fake::start();
        let stage = Stage::new(&fake.url).with("ELASTIC_AUTH", "user:pass-word");
        let collector = stage.collect();
        stage.issue(5);
        wait_documents(&collector, &[&fake], 5);
        fake.script(move |_| {
            Act::Answer(status, r#"{"error":{"type":"security_exception","reason":"no"},"status":0}"#)
        });
        stage.issue(5);
        collector.wait_reason("elastic_refused", true, EDGE);
        let said = message(&collector, "elastic_refused");
        assert!(said.contains("ELASTIC_AUTH") && !said.contains("pass-word"), "{said}");
        collector.wait_lines(10, SOON);
        fake.behave();
        let took = collector.wait_reason("elastic_refused", false, LOGIN_RETRY + Duration::from_secs(2));
        eprintln!("{status}: over after {took:?}");
        wait_documents(&collector, &[&fake], 10);
        assert_counts(&collector, 10);
        let basic = "Basic dXNlcjpwYXNzLXdvcmQ=";
        assert!(fake.state().requests.iter().all(|request| request.authorization.as_deref() == Some(basic)));
        assert!(!collector.log_lines().join("\n").contains("pass-word"));
    });
}

#[test]
fn dead_letters_are_said_while_there_are_any_and_replay_tells_what_became_of_them() {
    let fake = Fake::start();
    let stage = Stage::new(&fake.url);
    let collector = stage.collect();
    let (status, text) = stage.command(&["replay"]);
    assert_eq!(status, Some(0), "nothing to do: {text}");
    fake.on_item(|_, text| if text.contains("event 00000000000") { 400 } else { 201 });
    stage.issue(30);
    collector.wait_reason("dead_letters", true, EDGE);
    wait_documents(&collector, &[&fake], 21);
    assert_counts(&collector, 30);
    let (status, text) = stage.command(&["replay"]);
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("9 dead letters") && text.contains("9 refused again"), "{text}");
    collector.wait_reason("dead_letters", true, EDGE);
    fake.behave();
    let (status, text) = stage.command(&["replay"]);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("9 sent"), "{text}");
    collector.wait_reason("dead_letters", false, EDGE);
    wait_documents(&collector, &[&fake], 30);
    assert_eq!(ids(&fake), ids_of_file(&collector));
    // A long one shows how far it is; a cluster that is away gives every letter back.
    fake.on_item(|_, _| 413);
    stage.issue(300);
    let dead = || collector.metric("audiohook_collector_elastic_documents_total{result=\"dead\"}");
    assert!(poll(SOON * 2, || (dead() == Some(309.0)).then_some(())).is_some(), "{:?}", collector.health());
    fake.on_bulk(|_| {
        let_pass(Duration::from_millis(400));
        Act::Serve
    });
    fake.on_item(|_, _| 201);
    let (status, text) = stage.command(&["replay"]);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.lines().filter(|line| line.contains(" of 300")).count() >= 2, "{text}");
    wait_documents(&collector, &[&fake], 330);
}

#[test]
fn backups_outlive_an_outage_up_to_the_limit_and_go_once_the_cluster_has_them() {
    let fake = Fake::start();
    let stage = Stage::new(&fake.url)
        .with("MAX_FILE_SIZE", "20000")
        .with("BACKUP_COUNT", "5")
        .with("ELASTIC_BACKLOG_MAX", "100000");
    let collector = stage.collect();
    stage.issue(10);
    wait_documents(&collector, &[&fake], 10);
    fake.on_bulk(|_| Act::Answer(503, ""));
    let mut issued = 10;
    while stage.backups().last().is_none_or(|last| *last < 8) {
        stage.issue(10);
        issued += 10;
        assert!(issued < 2000);
        collector.wait_lines(issued, SOON);
    }
    assert_eq!(elastic(&collector, "dropped"), 0);
    assert_eq!(stage.backups(), (1..=*stage.backups().last().unwrap()).collect::<Vec<u32>>());
    // The cluster is back before the limit: all of it comes, and what is beyond the count goes.
    fake.behave();
    wait_documents(&collector, &[&fake], issued);
    let trimmed = poll(EDGE, || (stage.backups() == [1, 2, 3, 4, 5]).then_some(()));
    assert!(trimmed.is_some(), "{:?}", stage.backups());
    assert_counts(&collector, issued as u64);
    // Away for too long.
    fake.on_bulk(|_| Act::Answer(503, ""));
    let (before, start) = (fake.documents(), issued);
    while collector.metric("audiohook_collector_elastic_dropped_events_total") == Some(0.0) {
        stage.issue(10);
        issued += 10;
        assert!(issued < 4000, "{:?}", stage.backups());
        let written = || collector.metric("audiohook_collector_events_written_total").filter(|n| *n as usize >= issued);
        assert!(poll(SOON, written).is_some());
    }
    collector.wait_reason("elastic_backlog_dropped", true, EDGE);
    let surplus: u64 = stage
        .backups()
        .iter()
        .filter(|number| **number > 5)
        .map(|number| fs::metadata(stage.folder.join(&format!("events.jsonl.{number}"))).unwrap().len())
        .sum();
    assert!((60_000..=100_000).contains(&surplus), "{surplus}");
    fake.behave();
    let dropped = elastic(&collector, "dropped") as usize;
    wait_documents(&collector, &[&fake], before + (issued - start) - dropped);
    assert_counts(&collector, issued as u64);
    assert!(poll(EDGE, || (stage.backups() == [1, 2, 3, 4, 5]).then_some(())).is_some(), "{:?}", stage.backups());
    let said = message(&collector, "elastic_backlog_dropped");
    assert!(said.contains(&format!("{dropped} events")) && said.contains("ELASTIC_BACKLOG_MAX"), "{said}");
    // Nobody may have looked yet: a restart does not take it away. Without the history, which brings again what small
    // backups no longer show.
    let mut collector = collector;
    collector.term();
    let stage = stage.with("GENESYS_DELIVERY", "websocket");
    let collector = stage.collect();
    let is_said_again = || (message(&collector, "elastic_backlog_dropped") == said).then_some(());
    assert!(poll(SOON, is_said_again).is_some(), "{:?}", collector.health());
}

#[test]
fn at_a_stop_the_cluster_gets_what_waited_for_others() {
    let fake = Fake::start();
    let stage = Stage::new(&fake.url).with("ELASTIC_FLUSH_INTERVAL", "60");
    let mut collector = stage.collect();
    let server = || collector.health()?["elastic"]["server"].as_str().map(drop);
    assert!(poll(SOON, server).is_some(), "{:?}", collector.health());
    stage.issue(5);
    collector.wait_lines(5, SOON);
    assert_eq!(fake.documents(), 0);
    assert_eq!(collector.term().code(), Some(0));
    assert_eq!(fake.documents(), 5);
}

#[test]
fn what_gathered_while_it_was_off_is_sent_the_predecessors_lines_too_with_the_same_ids_each_time() {
    let fake = Fake::start();
    let stage = Stage::new("");
    let lines = |from: u32, to: u32| -> String {
        (from..to).map(|n| PREDECESSORS.replace("NNNN", &format!("{n:04}")) + "\n").collect()
    };
    stage.folder.write("events.jsonl.2", lines(0, 30));
    stage.folder.write("events.jsonl.1", lines(30, 60));
    stage.folder.write("events.jsonl", lines(60, 70));
    let mut collector = stage.collect();
    stage.issue(20);
    collector.wait_lines(90, SOON);
    assert!(collector.health().unwrap()["elastic"].is_null());
    collector.term();
    let stage = stage.with("ELASTIC_URL", &fake.url);
    let mut collector = stage.collect();
    wait_documents(&collector, &[&fake], 90);
    assert_counts(&collector, 90);
    let first = ids(&fake);
    assert!(first.iter().all(|id| id.len() == 32));
    collector.term();
    fs::remove_file(stage.folder.join("events.jsonl.state")).unwrap();
    let collector = stage.collect();
    let again = || (elastic(&collector, "exists") == 90).then_some(());
    assert!(poll(SOON * 2, again).is_some(), "{:?}", collector.health());
    assert_eq!(ids(&fake), first);
    assert_counts(&collector, 90);
}

#[test]
fn the_cursor_outlives_kills_and_every_kind_of_rotation() {
    let fake = Fake::start();
    let stage = Stage::new(&fake.url);
    let mut collector = stage.collect();
    let mut issued = 0;
    let more = |collector: &Collector, issued: &mut usize| {
        stage.issue(15);
        *issued += 15;
        wait_documents(collector, &[&fake], *issued);
    };
    more(&collector, &mut issued);
    // The cursor is kept every few seconds: what it is behind by is sent again and is there.
    collector.kill9();
    drop(collector);
    collector = stage.collect();
    more(&collector, &mut issued);
    for round in 0..3 {
        fake.on_bulk(|_| Act::Answer(503, ""));
        stage.issue(10);
        issued += 10;
        let written = collector.metric("audiohook_collector_events_written_total").unwrap();
        let text = || fs::read_to_string(stage.file()).unwrap_or_default();
        assert!(poll(SOON, || (written > 0.0 && text().ends_with('\n')).then_some(())).is_some());
        let_pass(Duration::from_millis(300));
        match round {
            0 => fs::rename(stage.file(), stage.folder.join("events.jsonl-20261123")).unwrap(),
            1 => {
                fs::copy(stage.file(), stage.folder.join("events.jsonl-20261124")).unwrap();
                fs::File::options().write(true).open(stage.file()).unwrap().set_len(0).unwrap();
            }
            _ => fs::remove_file(stage.file()).unwrap(),
        }
        // The writer sees it within a second or two.
        let_pass(Duration::from_secs(3));
        fake.behave();
        more(&collector, &mut issued);
    }
    // Without the state everything that is there is sent again, and doubles nothing.
    collector.term();
    fs::remove_file(stage.folder.join("events.jsonl.state")).unwrap();
    let collector = stage.collect();
    more(&collector, &mut issued);
    assert!(elastic(&collector, "exists") > 0);
    assert_eq!(fake.documents(), issued);
}

#[test]
fn of_several_addresses_those_that_work_are_used_with_their_path() {
    let (one, two) = (Fake::start(), Fake::start());
    let stage = Stage::new(&format!("{}/behind/a/path, {}", one.url, two.url));
    let collector = stage.collect();
    for round in 1..=20 {
        stage.issue(5);
        wait_documents(&collector, &[&one, &two], round * 5);
    }
    assert!(one.documents() > 0 && two.documents() > 0, "{} and {}", one.documents(), two.documents());
    assert!(one.state().requests.iter().all(|request| request.path.starts_with("/behind/a/path/")));
    one.script(|_| Act::Close);
    stage.issue(20);
    let all = || (one.documents() + two.documents() == 120).then_some(());
    assert!(poll(EDGE, all).is_some(), "{:?}", collector.health());
    let_pass(Duration::from_secs(7));
    assert!(collector.reasons().unwrap().is_empty(), "one of two is enough: {:?}", collector.health());
    two.script(|_| Act::Close);
    collector.wait_reason("elastic_unreachable", true, EDGE + Duration::from_secs(1));
    one.behave();
    collector.wait_reason("elastic_unreachable", false, EDGE);
    stage.issue(10);
    wait_documents(&collector, &[&one, &two], 130);
}

/// Kilobytes of memory at most, so far.
fn memory_peak(collector: &Collector) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", collector.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn memory_stays_flat_through_an_outage_and_the_catching_up() {
    let fake = Fake::start();
    let stage = Stage::new(&fake.url).with("BULK_SIZE", "500").with("LOG_LEVEL", "info");
    let collector = stage.collect();
    let mut issued = 0;
    let mut issue = |count: i64| {
        let now = stage.sim.now();
        let times: Vec<i64> = (0..count).map(|n| now - count + n).collect();
        stage.sim.issue_many(Event::numbered("AUDIOHOOK-0001"), &times, Route::Both);
        issued += count as u64;
        let written = || collector.metric("audiohook_collector_events_written_total").filter(|n| *n as u64 >= issued);
        assert!(poll(SOON * 6, written).is_some(), "{:?}", collector.health());
    };
    let judged = || elastic(&collector, "created");
    issue(5_000);
    assert!(poll(SOON * 3, || (judged() == 5_000).then_some(())).is_some(), "{:?}", collector.health());
    let before = memory_peak(&collector);
    fake.on_bulk(|_| Act::Answer(503, ""));
    for _ in 0..8 {
        issue(5_000);
    }
    collector.wait_reason("elastic_unreachable", true, EDGE);
    assert!(elastic(&collector, "backlog_bytes") > 40_000_000);
    let in_outage = memory_peak(&collector);
    fake.behave();
    assert!(poll(SOON * 6, || (judged() == 45_000).then_some(())).is_some(), "{:?}", collector.health());
    let after = memory_peak(&collector);
    eprintln!("{before} kB before, {in_outage} kB in the outage, {after} kB after");
    assert!(after - before < 3 * 1024, "{before} kB before, {in_outage} kB in the outage, {after} kB after");
    assert_eq!(ids(&fake).len(), 45_000);
}

#[test]
fn a_private_ca_a_password_and_a_proxy_lead_there() {
    let authority = Authority::new();
    let fake = Fake::with_tls(authority.identity(&["127.0.0.1"]));
    let (proxy_port, heads) = crate::support::proxy::start("dXNlcjpwQHNz");
    let stage = Stage::new(&fake.url);
    let ca_file = authority.write(&stage.folder, "ca.pem");
    let stage = stage
        .with("ELASTIC_CA_FILE", ca_file.to_str().unwrap())
        .with("HTTPS_PROXY", &format!("http://user:p%40ss@127.0.0.1:{proxy_port}"))
        .with("ELASTIC_AUTH", "user:pass-word");
    let collector = stage.collect();
    stage.issue(20);
    wait_documents(&collector, &[&fake], 20);
    assert_counts(&collector, 20);
    assert!(heads.lock().unwrap().iter().all(|head| head.starts_with("CONNECT 127.0.0.1:")));
    assert!(!heads.lock().unwrap().is_empty());
    let log = collector.log_lines().join("\n");
    assert!(!log.contains("p@ss") && !log.contains("p%40ss") && !log.contains("pass-word"));
    let health: Value = collector.health().unwrap();
    assert!(!health.to_string().contains("pass-word"));
}
