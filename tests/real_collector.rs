//! The real binary against a real OpenSearch and a real Elasticsearch: what the simulated service issued is found by a
//! search, each event once, whatever is killed meanwhile.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod cluster;
mod support;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use audiohook_collector::simulator::{Event, Knobs, Options, Route, Simulator};
use cluster::engine::{Engine, available};
use cluster::saved_objects;
use serde_json::Value;
use support::collector::{binary, settings};
use support::{Collector, Folder, SOON, let_pass, poll};

const LONG: Duration = Duration::from_secs(120);
/// An edge of a reason: from its cause, or its end, to `/health`.
const EDGE: Duration = Duration::from_secs(10);
/// An outage that is long enough for every backoff to be met.
const OUTAGE: Duration = Duration::from_secs(40);
const INDEX: &str = "genesys-audiohook";

#[test]
fn opensearch_is_filled_by_the_collector() {
    filled("opensearch", "OpenSearch 2.19.1");
}

#[test]
fn elasticsearch_8_is_filled_by_the_collector() {
    filled("elasticsearch8", "Elasticsearch 8.17.0");
}

#[test]
fn opensearch_finds_what_the_saved_objects_ask_for() {
    saved_objects_find("opensearch");
}

#[test]
fn elasticsearch_8_finds_what_the_saved_objects_ask_for() {
    saved_objects_find("elasticsearch8");
}

fn filled(kind: &'static str, server: &str) {
    if !available() {
        return;
    }
    let mut engine = Engine::start(kind, "collector", &[]);
    what_the_template_command_prints_is_taken(&engine);
    awkward_events(&engine);
    a_mapping_conflict_and_a_replay(&engine);
    a_read_only_index(&engine);
    a_data_stream(&engine);
    an_index_deleted_in_the_middle(&engine);
    fifty_thousand(&mut engine, server);
}

/// A simulated service, and a folder for a collector against it.
struct Stage {
    sim: Simulator,
    folder: Folder,
    settings: Vec<(&'static str, String)>,
}

impl Stage {
    fn new(engine: &Engine, index: &str) -> Self {
        let knobs = Knobs { requests_per_minute: None, ..Knobs::default() };
        let settings = vec![
            ("ELASTIC_URL", engine.url.clone()),
            ("ELASTIC_INDEX", index.to_owned()),
            ("BULK_SIZE", "1000".to_owned()),
            ("CATCH_UP_RATE", "100000".to_owned()),
            ("LOG_LEVEL", "info".to_owned()),
            // Every reading goes over the same quarter of an hour again.
            ("CATCH_UP_INTERVAL", "3600".to_owned()),
        ];
        let sim = Simulator::start(Options { knobs, ..Options::default() }).unwrap();
        Self { sim, folder: Folder::new("real"), settings }
    }

    fn changed(&self) -> Vec<(&str, &str)> {
        self.settings.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }

    /// Starts it, and waits until its socket is open: between two readings of the history nothing else brings events.
    fn collect(&self) -> Collector {
        self.collect_in(&self.folder)
    }

    fn collect_in(&self, folder: &Folder) -> Collector {
        let collector = Collector::start(&self.sim, folder, &self.changed());
        let connected = poll(SOON * 2, || {
            let is_open = collector.metric("audiohook_collector_socket_connected")? == 1.0;
            (is_open && !collector.reasons()?.iter().any(|code| code == "starting")).then_some(())
        });
        assert!(connected.is_some(), "{:?}\n{}", collector.health(), collector.log_text());
        collector
    }

    /// Issues events at one definition, a millisecond apart.
    fn issue(&self, count: usize) {
        let now = self.sim.now();
        let times: Vec<i64> = (0..count as i64).map(|n| now - count as i64 + n).collect();
        self.sim.issue_many(Event::numbered("AUDIOHOOK-0002"), &times, Route::Both);
    }

    /// Runs another command of the binary with the collector's settings: its status and what it printed.
    fn command(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut all: BTreeMap<String, String> = settings(&self.sim, &self.folder);
        all.extend(self.settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let output = binary(self.folder.path(), arguments, &all).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    }
}

/// Waits until so many events were written since the collector's start.
fn wait_written(collector: &Collector, count: usize, limit: Duration) {
    let written = || collector.metric("audiohook_collector_events_written_total").filter(|n| *n as usize >= count);
    let seen = poll(limit, written);
    assert!(seen.is_some(), "not {count} written: {:?}\n{}", collector.health(), collector.log_text());
}

/// Waits until all of the backlog is gone, with this many documents judged.
fn wait_documents(collector: &Collector, judged: usize, limit: Duration) -> [u64; 3] {
    let documents = || {
        let elastic = collector.health()?["elastic"].clone();
        let counts = ["created", "exists", "dead"].map(|name| elastic[name].as_u64().unwrap());
        (elastic["backlog_bytes"] == 0 && counts.iter().sum::<u64>() >= judged as u64).then_some(counts)
    };
    let seen = poll(limit, documents);
    let counts = seen.unwrap_or_else(|| panic!("not {judged}: {:?}\n{}", collector.health(), collector.log_text()));
    for (name, count) in ["created", "exists", "dead"].into_iter().zip(counts) {
        let metric = format!("audiohook_collector_elastic_documents_total{{result=\"{name}\"}}");
        assert_eq!(collector.metric(&metric), Some(count as f64));
    }
    assert_eq!(collector.metric("audiohook_collector_elastic_backlog_bytes"), Some(0.0));
    counts
}

fn ids(collector: &Collector) -> BTreeSet<String> {
    collector.records().iter().map(|record| record.text("id").unwrap().to_owned()).collect()
}

/// Every id that a search finds, page by page.
fn found_ids(engine: &Engine, index: &str) -> BTreeSet<String> {
    engine.must("POST", &format!("/{index}/_refresh"), "");
    let mut ids = BTreeSet::new();
    let query = r#"{"size":10000,"_source":false,"sort":["_doc"],"query":{"match_all":{}}}"#;
    let mut page = engine.must("POST", &format!("/{index}/_search?scroll=1m"), query);
    loop {
        let hits = page["hits"]["hits"].as_array().unwrap();
        if hits.is_empty() {
            return ids;
        }
        for hit in hits {
            assert!(ids.insert(hit["_id"].as_str().unwrap().to_owned()), "found twice: {hit}");
        }
        let next = format!(r#"{{"scroll":"1m","scroll_id":{}}}"#, page["_scroll_id"]);
        page = engine.must("POST", "/_search/scroll", &next);
    }
}

fn message(collector: &Collector, code: &str) -> String {
    let health = collector.health().unwrap();
    let reasons = health["reasons"].as_array().unwrap();
    let reason = reasons.iter().find(|reason| reason["code"] == code);
    reason.map(|reason| format!("{} {}", reason["message"], reason["cure"])).unwrap_or_default()
}

/// Each search of the dashboard, with the fields as the collector's own template maps them.
fn saved_objects_find(kind: &'static str) {
    if !available() {
        return;
    }
    let engine = Engine::start(kind, "saved", &[]);
    let stage = Stage::new(&engine, INDEX);
    let collector = stage.collect();
    for definition in ["AUDIOHOOK-0001", "AUDIOHOOK-0002", "AUDIOHOOK-0003"] {
        for _ in 0..10 {
            stage.sim.issue(Event::numbered(definition));
        }
    }
    wait_documents(&collector, 30, SOON);
    engine.must("POST", &format!("/{INDEX}/_refresh"), "");
    for search in saved_objects::searches() {
        let answer = engine.must("POST", &format!("/{}/_search", search.indices), &search.body.to_string());
        let total = answer["hits"]["total"]["value"].as_u64().unwrap();
        println!("{kind}, {}: {total} hits", search.title);
        assert_eq!(total, 30, "{}: {answer}", search.title);
        let mut bucket = &answer["aggregations"];
        for level in 0..search.levels {
            bucket = &bucket["inner"]["buckets"][0];
            assert!(bucket["doc_count"].as_u64() > Some(0), "{}, level {level}: {answer}", search.title);
        }
        let hits = answer["hits"]["hits"].as_array().unwrap();
        assert_eq!(hits.len(), if search.levels > 0 { 0 } else { 30 }, "{}", search.title);
        let times: Vec<&str> = hits.iter().map(|hit| hit["_source"]["@timestamp"].as_str().unwrap()).collect();
        assert!(times.is_sorted_by(|newer, older| newer >= older), "{}: {times:?}", search.title);
        let fields = engine.must("GET", &format!("/{}/_field_caps?fields=*", search.indices), "");
        for column in search.columns {
            assert!(fields["fields"][&column].is_object(), "{}: no field {column}", search.title);
        }
    }
}

fn what_the_template_command_prints_is_taken(engine: &Engine) {
    for (index, arguments) in
        [("from-a-command", &["template"][..]), ("stream-from-a-command", &["template", "--data-stream"][..])]
    {
        let stage = Stage::new(engine, index);
        let (status, text) = stage.command(arguments);
        assert_eq!(status, Some(0), "{text}");
        assert_eq!(text.contains("\"data_stream\": {}"), arguments.len() == 2, "{text}");
        engine.must("PUT", "/_index_template/printed", &text);
        engine.must("DELETE", "/_index_template/printed", "");
    }
}

/// What a cluster that only stores a value might refuse all the same.
fn awkward_events(engine: &Engine) {
    let stage = Stage::new(engine, "awkward");
    let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    let extras = [
        ("value", "1".to_owned()),
        ("value", "\"text\"".to_owned()),
        ("value", "{\"a\":[1,\"b\",{\"c\":null}]}".to_owned()),
        ("value", "1e400".to_owned()),
        ("value", "-123456789012345678901234567890.5".to_owned()),
        ("a.b", "1".to_owned()),
        ("", "1".to_owned()),
        ("value", "\"\\ud800 \\u0000\"".to_owned()),
        ("value", nested(500)),
        ("value", "{\"key\":1,\"other\":1.0,\"key\":{\"key\":2,\"\\u006bey\":3}}".to_owned()),
        ("version", "\"given once more\"".to_owned()),
    ];
    let collector = stage.collect();
    for (name, value) in &extras {
        let event = Event::numbered("AUDIOHOOK-0001");
        stage.sim.issue(Event { extra: vec![((*name).to_owned(), value.clone())], ..event });
    }
    assert_eq!(wait_documents(&collector, extras.len(), SOON), [extras.len() as u64, 0, 0]);
    // No common reader of JSON reads all of these.
    let text = std::fs::read_to_string(collector.output_file()).unwrap();
    let id_of = |line: &str| line.split_once("\"source\":\"websocket\",\"id\":\"").unwrap().1[..32].to_owned();
    assert_eq!(found_ids(engine, "awkward"), text.lines().map(id_of).collect());
    assert!(collector.reasons().unwrap().is_empty(), "{:?}", collector.health());
    let twice = text.lines().find(|line| line.contains("\\u006bey")).unwrap();
    assert!(twice.contains(&extras[9].1), "the file keeps both: {twice}");
    let document = engine.must("GET", &format!("/awkward/_doc/{}", id_of(twice)), "");
    let record: Value = serde_json::from_str(twice).unwrap();
    // A reader takes the last of equal keys: so it reads the same in both.
    assert_eq!(document["_source"]["raw_event"], record["raw_event"]);
    // Beyond what a cluster reads at all, a document is a dead letter, whose reason says so.
    let long = format!("1{}", "0".repeat(1500));
    stage.sim.issue(Event { extra: vec![("value".to_owned(), long)], ..Event::numbered("AUDIOHOOK-0001") });
    collector.wait_reason("dead_letters", true, EDGE);
    assert!(message(&collector, "dead_letters").contains("Number value length"), "{:?}", collector.health());
    stage.issue(3);
    assert_eq!(wait_documents(&collector, extras.len() + 4, SOON), [extras.len() as u64 + 3, 0, 1]);
}

fn a_mapping_conflict_and_a_replay(engine: &Engine) {
    let by_hand = r#"{"mappings":{"properties":{"previous_value":{"type":"long"}}},"aliases":{"made-by-hand":{}}}"#;
    engine.must("PUT", "/by-hand-1", by_hand);
    let stage = Stage::new(engine, "made-by-hand");
    let collector = stage.collect();
    for n in 0..60 {
        let value = if n % 3 == 0 { "Up" } else { "17" };
        let event = Event { previous_value: Some(value.to_owned()), ..Event::numbered("AUDIOHOOK-0003") };
        stage.sim.issue(event);
    }
    assert_eq!(wait_documents(&collector, 60, SOON), [40, 0, 20]);
    collector.wait_reason("dead_letters", true, EDGE);
    let letters = || std::fs::read_to_string(stage.folder.join("events.jsonl.dead")).unwrap_or_default();
    let first: Value = serde_json::from_str(letters().lines().next().unwrap()).unwrap();
    assert_eq!((letters().lines().count(), &first["status"]), (20, &Value::from(400)));
    assert!(first["reason"].as_str().unwrap().contains("previous_value"), "{first}");
    let (status, text) = stage.command(&["replay"]);
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("20 refused again"), "{text}");
    assert_eq!(letters().lines().count(), 20);
    // Mended: another index takes what comes from now on.
    engine.must("PUT", "/by-hand-2", "");
    let actions = r#"{"actions":[{"add":{"index":"by-hand-1","alias":"made-by-hand","is_write_index":false}},{"add":{"index":"by-hand-2","alias":"made-by-hand","is_write_index":true}}]}"#;
    engine.must("POST", "/_aliases", actions);
    let (status, text) = stage.command(&["replay"]);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("20 sent"), "{text}");
    collector.wait_reason("dead_letters", false, EDGE);
    assert_eq!(found_ids(engine, "made-by-hand"), ids(&collector));
    let (status, text) = stage.command(&["replay"]);
    assert_eq!(status, Some(0), "{text}");
}

fn a_read_only_index(engine: &Engine) {
    engine.must("PUT", "/read-only", "");
    let block = |value: &str| {
        let body = format!(r#"{{"index.blocks.read_only_allow_delete":{value}}}"#);
        engine.must("PUT", "/read-only/_settings", &body);
    };
    let stage = Stage::new(engine, "read-only");
    let collector = stage.collect();
    block("true");
    stage.issue(100);
    collector.wait_reason("elastic_refused", true, EDGE);
    assert!(message(&collector, "elastic_refused").contains("read-only"), "{:?}", collector.health());
    assert_eq!(collector.wait_lines(100, SOON).len(), 100);
    block("null");
    collector.wait_reason("elastic_refused", false, EDGE);
    assert_eq!(wait_documents(&collector, 100, SOON), [100, 0, 0]);
    assert_eq!(found_ids(engine, "read-only"), ids(&collector));
}

fn a_data_stream(engine: &Engine) {
    engine.must("PUT", "/_index_template/streams", r#"{"index_patterns":["stream-*"],"priority":10,"data_stream":{}}"#);
    let mut stage = Stage::new(engine, "stream-audiohook");
    let mut collector = stage.collect();
    stage.issue(500);
    wait_documents(&collector, 500, SOON);
    assert_eq!(found_ids(engine, "stream-audiohook"), ids(&collector));
    let behind = engine.must("GET", "/stream-audiohook", "");
    let (_, index) = behind.as_object().unwrap().iter().next().unwrap();
    assert_eq!(index["data_stream"], "stream-audiohook", "{behind}");
    // A cursor that is lost, without the documents being doubled.
    assert_eq!(collector.term().code(), Some(0));
    std::fs::remove_file(stage.folder.join("events.jsonl.state")).unwrap();
    stage.settings.push(("BULK_SIZE", "7".to_owned()));
    let collector = stage.collect();
    assert_eq!(wait_documents(&collector, 500, SOON), [0, 500, 0]);
    assert_eq!(engine.count("stream-audiohook"), 500);
}

fn an_index_deleted_in_the_middle(engine: &Engine) {
    let stage = Stage::new(engine, "deleted");
    let collector = stage.collect();
    stage.issue(500);
    wait_documents(&collector, 500, SOON);
    engine.must("DELETE", "/deleted", "");
    stage.issue(500);
    assert_eq!(wait_documents(&collector, 1000, SOON * 2), [1000, 0, 0]);
    assert_eq!(engine.count("deleted"), 500);
    let mapping = engine.must("GET", "/deleted/_mapping", "");
    assert_eq!(
        mapping["deleted"]["mappings"]["properties"]["raw_event"]["enabled"], false,
        "made anew by the template"
    );
}

fn fifty_thousand(engine: &mut Engine, server: &str) {
    let stage = Stage::new(engine, INDEX);
    let mut collector = stage.collect();
    stage.issue(15_000);
    wait_documents(&collector, 15_000, LONG);
    assert_eq!(collector.health().unwrap()["elastic"]["server"], server);
    // An outage in the middle: the file goes on as ever.
    stage.issue(5_000);
    engine.kill();
    let killed = Instant::now();
    stage.issue(5_000);
    wait_written(&collector, 25_000, SOON * 2);
    collector.wait_reason(
        "elastic_unreachable",
        true,
        EDGE.saturating_sub(killed.elapsed()).max(Duration::from_secs(1)),
    );
    assert!(collector.health().unwrap()["elastic"]["backlog_bytes"].as_u64().unwrap() > 1_000_000);
    let_pass(OUTAGE.saturating_sub(killed.elapsed()));
    engine.run();
    engine.wait();
    collector.wait_reason("elastic_unreachable", false, EDGE);
    wait_documents(&collector, 25_000, LONG);
    // The same again, and the collector is killed too.
    stage.issue(5_000);
    engine.kill();
    let killed = Instant::now();
    stage.issue(5_000);
    wait_written(&collector, 35_000, SOON * 2);
    collector.kill9();
    drop(collector);
    let collector = stage.collect();
    stage.issue(5_000);
    wait_written(&collector, 5_000, SOON * 2);
    collector.wait_reason("elastic_unreachable", true, EDGE);
    let_pass(OUTAGE.saturating_sub(killed.elapsed()));
    engine.run();
    engine.wait();
    collector.wait_reason("elastic_unreachable", false, EDGE);
    // A second collector beside it, which has everything from the history and its own socket.
    let folder = Folder::new("real-second");
    let second = stage.collect_in(&folder);
    stage.issue(10_000);
    wait_written(&collector, 15_000, LONG);
    wait_written(&second, 50_000, LONG);
    wait_documents(&collector, 10_000, LONG);
    wait_documents(&second, 50_000, LONG);
    let (own, others) = (ids(&collector), ids(&second));
    assert_eq!(own.len(), 50_000);
    assert!(own == others, "both have the same ids");
    assert!(found_ids(engine, INDEX) == own, "the cluster has {} of them", engine.count(INDEX));
    assert_eq!(engine.count(INDEX), 50_000);
    assert_eq!(engine.found(INDEX, r#"{"term":{"event_id":"AUDIOHOOK-0002"}}"#), 50_000);
    for (collector, of) in [(&collector, "first"), (&second, "second")] {
        assert!(collector.reasons().unwrap().is_empty(), "{of}: {:?}", collector.health());
        assert!(!collector.output_file().with_extension("jsonl.dead").exists(), "{of}");
    }
}
