//! The cluster's side against real servers: OpenSearch 2, Elasticsearch 7 and 8. The whole collector against them, and
//! outages, are in `real_collector.rs`.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod cluster;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use audiohook_collector::clock::Clock;
use audiohook_collector::elastic::probe::{self, PROBE_TIMEOUT, Server};
use audiohook_collector::elastic::setup::{Found, Setup};
use audiohook_collector::elastic::template::{self, Product, Target};
use audiohook_collector::elastic::transport::Transport;
use audiohook_collector::status::{Code, Problem};
use audiohook_collector::thread;
use cluster::engine::{Engine, available};
use cluster::{Rig, record, record_with, records};

const LONG: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(30);
const INDEX: &str = "genesys-audiohook";

/// A rig on the engine.
fn rig(engine: &Engine, name: &str) -> Rig {
    let mut rig = Rig::new(&format!("real-{name}"), &[&engine.url]);
    rig.elastic.bulk_size = 1000;
    rig
}

fn transport(rig: &Rig) -> Transport {
    Transport::new(&rig.elastic, &Default::default(), Clock::system()).unwrap()
}

/// What `check` sees of the template.
fn look(rig: &Rig, index: &str) -> Found {
    Setup { transport: &transport(rig), node: 0, index, product: Product::OpenSearch }.look().unwrap()
}

/// What the collector does about it, and says.
fn set_up(rig: &Rig, index: &str) -> Vec<Problem> {
    let setup = Setup { transport: &transport(rig), node: 0, index, product: Product::OpenSearch };
    setup.put_if_absent(None).unwrap()
}

#[test]
fn opensearch_holds_each_event_once() {
    each_event_once("opensearch", "OpenSearch 2.19.1");
}

#[test]
fn elasticsearch_8_holds_each_event_once() {
    each_event_once("elasticsearch8", "Elasticsearch 8.17.0");
}

#[test]
fn elasticsearch_7_takes_template_and_documents() {
    if !available() {
        return;
    }
    let engine = Engine::start("elasticsearch7", "small", &[]);
    the_template_is_put_and_speaks_for_the_index(&engine, "e7", "Elasticsearch 7.17.27");
    a_users_template_is_left_alone(&engine, "e7");
    // Its data streams are not among the packages.
}

#[test]
fn opensearch_in_trouble_loses_and_doubles_nothing() {
    in_trouble("opensearch");
}

#[test]
fn elasticsearch_8_in_trouble_loses_and_doubles_nothing() {
    in_trouble("elasticsearch8");
}

fn each_event_once(kind: &'static str, server: &str) {
    if !available() {
        return;
    }
    let engine = Engine::start(kind, "once", &[]);
    the_template_is_put_and_speaks_for_the_index(&engine, kind, server);
    a_mapping_conflict(&engine, kind);
    a_read_only_index(&engine, kind);
    an_index_deleted_in_the_middle(&engine, kind);
    a_users_template_is_left_alone(&engine, kind);
    a_data_stream(&engine, kind);
    a_fault_of_the_index_makes_no_dead_letters(&engine, kind);
    aliases_are_judged_by_the_index_behind_them(&engine);
    every_block_is_said_with_its_own_cure(&engine, kind);
}

fn the_template_is_put_and_speaks_for_the_index(engine: &Engine, name: &str, server: &str) {
    let mut rig = rig(engine, &format!("template-{name}"));
    let note = r#"{"timestamp":"2026-11-20T10:30:45.000Z","event_id":"AUDIOHOOK-0003","description":"a note","id":"note","raw_event":"text"}"#;
    let huge = r#"{"timestamp":"2026-11-20T10:30:45.000Z","event_id":"AUDIOHOOK-0003","id":"huge","raw_event":{"n":"no number","number":1e400,"digits":12345678901234567890123}}"#;
    rig.append(&[record(1), note.to_owned(), huge.to_owned()]);
    rig.start();
    rig.until("all are judged", SOON, |rig| rig.done() == 3);
    assert_eq!(rig.dead_letters(), [] as [serde_json::Value; 0], "no raw event conflicts with another");
    assert_eq!(rig.status.health().elastic.unwrap().server.as_deref(), Some(server));
    let mapping = engine.must("GET", &format!("/{INDEX}/_mapping"), "");
    let fields = &mapping[INDEX]["mappings"]["properties"];
    assert_eq!(fields["raw_event"]["enabled"], false, "{mapping}");
    assert_eq!(fields["@timestamp"]["type"], "date");
    let settings = engine.must("GET", &format!("/{INDEX}/_settings"), "");
    assert_eq!(settings[INDEX]["settings"]["index"]["number_of_shards"], "1");
    assert_eq!(engine.found(INDEX, r#"{"term":{"event.code":"AUDIOHOOK-0003"}}"#), 2, "by the common schema's name");
    assert_eq!(engine.found(INDEX, r#"{"match":{"description.text":"note"}}"#), 1);
    let source = engine.must("GET", &format!("/{INDEX}/_doc/note"), "");
    assert_eq!(source["_source"]["raw_event"], "text");
    // What `check` asks.
    let transport = transport(&rig);
    let product = if server.starts_with("OpenSearch") { Product::OpenSearch } else { Product::Elasticsearch };
    let greeting = Ok(Some(Server { name: server.to_owned(), product }));
    assert_eq!(probe::greet(&transport, 0, PROBE_TIMEOUT), greeting);
    assert_eq!(look(&rig, INDEX), Found::Decided { exists: true, maps_raw_event: false });
    assert_eq!(look(&rig, "not-there"), Found::Nothing);
    assert_eq!(engine.count(INDEX), 3);
    engine.must("DELETE", &format!("/{INDEX}"), "");
}

fn a_mapping_conflict(engine: &Engine, name: &str) {
    let index = "made-by-hand";
    let by_hand = r#"{"mappings":{"properties":{"previous_value":{"type":"long"}}},"aliases":{"made-by-hand":{}}}"#;
    engine.must("PUT", "/by-hand-1", by_hand);
    let mut rig = rig(engine, &format!("conflict-{name}"));
    rig.elastic.index = index.to_owned();
    let lines: Vec<String> =
        (0..300).map(|n| record_with(n, if n % 3 == 0 { "\"Up\"" } else { "\"17\"" }, 10)).collect();
    rig.append(&lines);
    rig.start();
    rig.until("all are judged", SOON, |rig| rig.done() == 300);
    assert_eq!((engine.count(index), rig.dead_letters().len()), (200, 100));
    assert!(rig.is_raised(Code::DeadLetters));
    assert_eq!(rig.dead_letters()[0]["status"], 400);
    let refused_again = rig.replay();
    assert_eq!((refused_again.success, rig.dead_letters().len()), (false, 100), "{}", refused_again.shown);
    // Mended: another index takes what comes from now on.
    engine.must("PUT", "/by-hand-2", "");
    let actions = r#"{"actions":[{"add":{"index":"by-hand-1","alias":"made-by-hand","is_write_index":false}},{"add":{"index":"by-hand-2","alias":"made-by-hand","is_write_index":true}}]}"#;
    engine.must("POST", "/_aliases", actions);
    let replayed = rig.replay();
    assert!(replayed.success, "{}", replayed.shown);
    assert!(replayed.shown.contains("100 sent"), "{}", replayed.shown);
    assert_eq!((engine.count(index), rig.dead_letters().len()), (300, 0));
    rig.until("over", Duration::from_secs(10), |rig| !rig.is_raised(Code::DeadLetters));
    assert!(rig.replay().success, "with no letters there is nothing to do");
}

fn a_read_only_index(engine: &Engine, name: &str) {
    let index = "read-only";
    engine.must("PUT", &format!("/{index}"), "");
    for block in ["read_only_allow_delete", "write"] {
        let set = |value: &str| {
            let body = format!(r#"{{"index.blocks.{block}":{value}}}"#);
            engine.must("PUT", &format!("/{index}/_settings"), &body);
        };
        set("true");
        let mut rig = rig(engine, &format!("{block}-{name}"));
        rig.elastic.index = index.to_owned();
        rig.append(&records(0..100));
        rig.start();
        rig.until("said", Duration::from_secs(10), |rig| rig.is_raised(Code::ElasticRefused));
        assert!(rig.message(Code::ElasticRefused).contains("read-only"), "{}", rig.message(Code::ElasticRefused));
        rig.drive(Duration::from_secs(1));
        assert!(!rig.is_raised(Code::ElasticUnreachable));
        // OpenSearch 2.19 refuses to lift its own full-disk block in one step only when the disk is full: here it is not.
        set("null");
        rig.until("all are there", SOON, |rig| rig.done() == 100);
        assert!(!rig.is_raised(Code::ElasticRefused));
        assert!(rig.dead_letters().is_empty());
    }
    assert_eq!(engine.count(index), 100);
}

fn an_index_deleted_in_the_middle(engine: &Engine, name: &str) {
    let index = "deleted";
    let mut rig = rig(engine, &format!("deleted-{name}"));
    rig.elastic.index = index.to_owned();
    rig.elastic.bulk_size = 100;
    rig.start();
    rig.append(&records(0..1000));
    rig.until("the first are there", SOON, |rig| rig.done() == 1000);
    engine.must("DELETE", &format!("/{index}"), "");
    rig.append(&records(1000..2000));
    rig.until("the rest is there", SOON, |rig| rig.done() == 2000);
    assert_eq!(engine.count(index), 1000);
    assert!(rig.dead_letters().is_empty());
    let mapping = engine.must("GET", &format!("/{index}/_mapping"), "");
    assert_eq!(mapping[index]["mappings"]["properties"]["raw_event"]["enabled"], false);
}

fn a_users_template_is_left_alone(engine: &Engine, name: &str) {
    for (template, path) in [
        (
            r#"{"index_patterns":["owned-*"],"template":{"mappings":{"properties":{"id":{"type":"text"}}}}}"#,
            "_index_template",
        ),
        (r#"{"index_patterns":["owned-*"],"mappings":{"properties":{"id":{"type":"text"}}}}"#, "_template"),
        (
            r#"{"index_patterns":["owned-*"],"priority":1,"template":{"mappings":{"properties":{"id":{"type":"text"}}}}}"#,
            "_index_template",
        ),
    ] {
        let path = format!("/{path}/owned");
        engine.must("PUT", &path, template);
        let mut rig = rig(engine, &format!("owned-{name}"));
        rig.elastic.index = "owned-index".to_owned();
        rig.append(&records(0..10));
        rig.start();
        rig.until("all are there", SOON, |rig| rig.done() == 10);
        let mapping = engine.must("GET", "/owned-index/_mapping", "");
        assert_eq!(mapping["owned-index"]["mappings"]["properties"]["id"]["type"], "text", "{path}");
        engine.must("DELETE", "/owned-index", "");
        engine.must("DELETE", &path, "");
    }
}

fn a_data_stream(engine: &Engine, name: &str) {
    let template = r#"{"index_patterns":["stream-*"],"priority":10,"data_stream":{}}"#;
    engine.must("PUT", "/_index_template/streams", template);
    let mut rig = rig(engine, &format!("stream-{name}"));
    rig.elastic.index = "stream-audiohook".to_owned();
    rig.append(&records(0..500));
    rig.start();
    rig.until("all are there", SOON, |rig| rig.done() == 500);
    assert!(rig.dead_letters().is_empty());
    assert_eq!(engine.count("stream-audiohook"), 500);
    let behind = engine.must("GET", "/stream-audiohook", "");
    let (_, index) = behind.as_object().unwrap().iter().next().unwrap();
    assert_eq!(index["data_stream"], "stream-audiohook", "{behind}");
    let (status, _) = engine.call("GET", "/_index_template/audiohook-collector-stream-audiohook", "");
    assert_eq!(status, 404, "the user's template decides");
    assert_eq!(look(&rig, "stream-audiohook"), Found::Decided { exists: true, maps_raw_event: true });
    rig.kill();
    rig.cursor = None;
    rig.start();
    rig.until("a second collector is through", SOON, |rig| rig.done() == 1000);
    assert_eq!(engine.count("stream-audiohook"), 500);
    assert_eq!(engine.count("stream-audiohook"), 500);
    // What `template --data-stream` prints makes one.
    let printed = template::text("own-stream", Target::DataStream, None);
    engine.must("PUT", "/_index_template/own-stream", &printed);
    assert_eq!(look(&rig, "own-stream"), Found::Decided { exists: false, maps_raw_event: false });
    rig.kill();
    (rig.cursor, rig.elastic.index) = (None, "own-stream".to_owned());
    rig.start();
    rig.until("all are there", SOON, |rig| rig.done() == 1500);
    let behind = engine.must("GET", "/own-stream", "");
    assert_eq!(behind.as_object().unwrap().values().next().unwrap()["data_stream"], "own-stream", "{behind}");
    assert_eq!(look(&rig, "own-stream"), Found::Decided { exists: true, maps_raw_event: false });
}

fn a_fault_of_the_index_makes_no_dead_letters(engine: &Engine, name: &str) {
    engine.must("PUT", "/piped", r#"{"settings":{"index.default_pipeline":"gone"}}"#);
    let mut rig = rig(engine, &format!("piped-{name}"));
    rig.elastic.index = "piped".to_owned();
    rig.append(&records(0..100));
    rig.start();
    rig.until("said", Duration::from_secs(10), |rig| rig.is_raised(Code::ElasticUnreachable));
    let said = rig.message(Code::ElasticUnreachable);
    assert!(said.contains("pipeline with id [gone] does not exist") && said.contains("Fix the index"), "{said}");
    assert!(rig.dead_letters().is_empty());
    engine.must("PUT", "/piped/_settings", r#"{"index.default_pipeline":null}"#);
    rig.until("all are there", SOON, |rig| rig.done() == 100);
    assert_eq!(engine.count("piped"), 100);
    assert!(rig.dead_letters().is_empty());
}

fn aliases_are_judged_by_the_index_behind_them(engine: &Engine) {
    let rig = rig(engine, "aliases");
    let dynamic = Found::Decided { exists: true, maps_raw_event: true };
    let stored = Found::Decided { exists: true, maps_raw_event: false };
    let mapping = r#""mappings":{"properties":{"raw_event":{"type":"object","enabled":false}}}"#;
    // A write alias, whose index nobody gave a mapping; and one whose index has it.
    engine.must("PUT", "/behind-1", r#"{"aliases":{"write-alias":{"is_write_index":true}}}"#);
    assert_eq!(look(&rig, "write-alias"), dynamic);
    let problem = &set_up(&rig, "write-alias")[0];
    assert!(problem.what.contains("raw_event dynamically") && problem.cure.contains("template"), "{problem:?}");
    assert_eq!(engine.call("GET", "/_index_template/audiohook-collector-write-alias", "").0, 404);
    engine.must("PUT", "/behind-2", &format!(r#"{{{mapping},"aliases":{{"good-alias":{{"is_write_index":true}}}}}}"#));
    assert_eq!(look(&rig, "good-alias"), stored);
    assert_eq!(set_up(&rig, "good-alias"), []);
    // A rollover alias: the index there is well, and the next one would not be, until a template of the user's says so.
    let body = format!(r#"{{{mapping},"aliases":{{"roll":{{"is_write_index":true}}}}}}"#);
    engine.must("PUT", "/roll-000009", &body);
    assert_eq!(look(&rig, "roll"), dynamic);
    let template = format!(r#"{{"index_patterns":["roll-*"],"template":{{{mapping}}}}}"#);
    engine.must("PUT", "/_index_template/roll", &template);
    assert_eq!(look(&rig, "roll"), stored);
    // A template of the user's for an index that is not there yet.
    engine.must("PUT", "/_index_template/guess", r#"{"index_patterns":["guess*"],"priority":7,"template":{}}"#);
    assert_eq!(look(&rig, "guessed"), Found::Decided { exists: false, maps_raw_event: true });
}

fn every_block_is_said_with_its_own_cure(engine: &Engine, name: &str) {
    engine.must("PUT", "/blocked", "");
    for (path, setting, cure) in [
        ("/blocked/_settings", "index.blocks.metadata", "index.blocks.metadata"),
        ("/_cluster/settings", "cluster.blocks.read_only", "cluster.blocks.read_only to null"),
    ] {
        let set = |value: &str| {
            let block = format!(r#"{{"{setting}":{value}}}"#);
            let body = if path == "/_cluster/settings" { format!(r#"{{"transient":{block}}}"#) } else { block };
            engine.must("PUT", path, &body);
        };
        let mut rig = rig(engine, &format!("{setting}-{name}"));
        rig.elastic.index = "blocked".to_owned();
        rig.append(&records(0..10));
        set("true");
        rig.start();
        rig.until("said", Duration::from_secs(10), |rig| rig.is_raised(Code::ElasticRefused));
        let said = rig.message(Code::ElasticRefused);
        assert!(said.contains(cure) && !said.contains("disks") && !said.contains("ELASTIC_AUTH"), "{said}");
        set("null");
        rig.until("all are there", SOON, |rig| rig.done() == 10);
    }
}

fn in_trouble(kind: &'static str) {
    if !available() {
        return;
    }
    let mut engine = Engine::start(kind, "trouble", &["http.max_content_length=1mb"]);
    large_events(&engine, kind);
    engine.kill();
    engine.with_settings(&["thread_pool.write.size=1", "thread_pool.write.queue_size=1"]);
    engine.run();
    engine.wait();
    a_full_write_queue(&engine, kind);
}

fn large_events(engine: &Engine, name: &str) {
    let index = "large";
    let mut rig = rig(engine, &format!("large-{name}"));
    rig.elastic.index = index.to_owned();
    let mut lines: Vec<String> = (0..40).map(|n| record_with(n, "null", 200_000)).collect();
    lines.insert(20, record_with(1000, "null", 1_200_000));
    rig.append(&lines);
    rig.start();
    rig.until("all are judged", LONG, |rig| rig.done() == 41);
    let letters = rig.dead_letters();
    assert_eq!((engine.count(index), letters.len()), (40, 1));
    assert_eq!((&letters[0]["status"], &letters[0]["record"]["raw_event"]["n"]), (&413.into(), &1000.into()));
}

fn a_full_write_queue(engine: &Engine, name: &str) {
    engine.must("PUT", "/noise", r#"{"settings":{"index.refresh_interval":"-1"}}"#);
    let stop = Arc::new(AtomicBool::new(false));
    let noise: Vec<_> = (0..6)
        .map(|_| {
            let (stop, url) = (stop.clone(), engine.url.clone());
            thread::spawn("noise", move || {
                let body = format!("{{\"index\":{{}}}}\n{}\n", record(0)).repeat(500);
                let agent = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().new_agent();
                let mut refused = 0;
                while !stop.load(Ordering::Relaxed) {
                    let request = agent.post(format!("{url}/noise/_bulk")).header("content-type", "application/json");
                    let text = request.send(&body).unwrap().body_mut().read_to_string().unwrap_or_default();
                    refused += usize::from(text.contains("rejected_execution"));
                }
                refused
            })
            .unwrap()
        })
        .collect();
    let mut rig = rig(engine, &format!("queue-{name}"));
    rig.elastic.index = "queue".to_owned();
    rig.elastic.bulk_size = 100;
    rig.append(&records(0..2000));
    rig.start();
    rig.drive(Duration::from_secs(8));
    stop.store(true, Ordering::Relaxed);
    let refused: usize = noise.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert!(refused > 0, "the queue was never full");
    rig.until("all are there", LONG, |rig| rig.done() == 2000);
    assert_eq!(engine.count("queue"), 2000);
    assert!(rig.dead_letters().is_empty());
}
