//! The index template and the lifecycle policy, against clusters that the packages do not have.

use std::time::Duration;

use audiohook_collector::clock::Clock;
use audiohook_collector::elastic::setup::{Found, Setup};
use audiohook_collector::elastic::template::Product;
use audiohook_collector::elastic::transport::Transport;
use audiohook_collector::status::Code;
use serde_json::Value;

use crate::SOON;
use crate::cluster::fake::{Act, Fake, Request};
use crate::cluster::{Rig, records};

const DAY: Duration = Duration::from_secs(86_400);
const NOT_THERE: &str = r#"{"error":{"type":"resource_not_found_exception","reason":"no"},"status":404}"#;

/// The body of a request that put something at this path.
fn put(fake: &Fake, path: &str) -> Option<Value> {
    let state = fake.state();
    let request = state.requests.iter().find(|request| request.method == "PUT" && request.path.starts_with(path));
    request.map(|request| serde_json::from_slice(&request.body).unwrap())
}

#[test]
fn a_serverless_cluster_gets_the_template_and_is_not_asked_for_what_it_lacks() {
    let fake = Fake::start();
    fake.script(|request: &Request| match request.path.split('?').next().unwrap() {
        "/" => Act::Answer(200, r#"{"version":{"number":"8.11.0","build_flavor":"serverless"}}"#),
        path if path.starts_with("/_template") || path.starts_with("/_ilm") => {
            Act::Answer(410, r#"{"error":{"type":"api_not_available_exception","reason":"not available"},"status":410}"#)
        }
        _ if request.method == "PUT" && String::from_utf8_lossy(&request.body).contains("number_of_") => {
            Act::Answer(400, r#"{"error":{"type":"illegal_argument_exception","reason":"Settings [index.number_of_shards] are not available when running in serverless mode"},"status":400}"#)
        }
        _ => Act::Serve,
    });
    let mut rig = Rig::new("serverless", &[&fake.url]);
    rig.elastic.retention = Some(DAY);
    rig.append(&records(0..10));
    rig.start();
    rig.until("all are there", SOON, |_| fake.documents() == 10);
    assert!(fake.state().templates.contains_key("audiohook-collector-genesys-audiohook"));
    let asked = |path: &str| fake.state().requests.iter().any(|request| request.path.starts_with(path));
    assert!(!asked("/_template") && !asked("/_ilm"));
    assert!(!rig.is_raised(Code::ElasticUnreachable) && !rig.is_raised(Code::ElasticRefused));
}

#[test]
fn a_retention_makes_a_policy_of_the_product_and_an_index_that_rolls_over() {
    for (greeting, policy, delete_after) in [
        (
            r#"{"version":{"number":"8.17.0","build_flavor":"default"}}"#,
            "/_ilm/policy/audiohook-collector-genesys-audiohook",
            "/policy/phases/delete/min_age",
        ),
        (
            r#"{"version":{"number":"2.19.1","distribution":"opensearch"}}"#,
            "/_plugins/_ism/policies/audiohook-collector-genesys-audiohook",
            "/policy/states/0/transitions/0/conditions/min_rollover_age",
        ),
    ] {
        let fake = Fake::start();
        fake.script(move |request| match (&*request.method, &*request.path) {
            ("GET", "/") => Act::Answer(200, greeting),
            ("GET", path) if path == policy => Act::Answer(404, NOT_THERE),
            ("PUT", path) if path == policy || path == "/genesys-audiohook-000001" => Act::Answer(200, "{}"),
            _ => Act::Serve,
        });
        let mut rig = Rig::new("retention", &[&fake.url]);
        rig.elastic.retention = Some(90 * DAY);
        rig.append(&records(0..10));
        rig.start();
        rig.until("all are there", SOON, |_| fake.documents() == 10);
        let body = put(&fake, policy).unwrap_or_else(|| panic!("no {policy}"));
        assert_eq!(body.pointer(delete_after).and_then(Value::as_str), Some("90d"), "{body}");
        let template = put(&fake, "/_index_template/").unwrap();
        assert!(template["template"]["settings"].to_string().contains("rollover_alias"), "{template}");
        let index = put(&fake, "/genesys-audiohook-000001").unwrap();
        assert_eq!(index["aliases"]["genesys-audiohook"]["is_write_index"], true, "{index}");
    }
}

#[test]
fn an_index_that_a_start_did_not_come_to_is_made_by_the_next_one() {
    let fake = Fake::start();
    fake.script(|request| match (&*request.method, request.path.split('?').next().unwrap()) {
        ("GET", path) if path.starts_with("/_plugins/_ism") => Act::Answer(200, "{}"),
        ("PUT", "/genesys-audiohook-000001") => Act::Answer(200, "{}"),
        (_, path) if path.contains("/_simulate_index/") => Act::Answer(
            200,
            r#"{"template":{"mappings":{"properties":{"raw_event":{"type":"object","enabled":false}}}}}"#,
        ),
        _ => Act::Serve,
    });
    let mut rig = Rig::new("half-set-up", &[&fake.url]);
    rig.elastic.retention = Some(90 * DAY);
    rig.append(&records(0..10));
    rig.start();
    rig.until("all are there", SOON, |_| fake.documents() == 10);
    let index = put(&fake, "/genesys-audiohook-000001").expect("the first index");
    assert_eq!(index["aliases"]["genesys-audiohook"]["is_write_index"], true, "{index}");
}

#[test]
fn a_retention_that_comes_too_late_for_the_index_is_said_to_have_no_effect() {
    let fake = Fake::start();
    fake.script(|request| match request.path.split('?').next().unwrap() {
        "/genesys-audiohook" => Act::Answer(
            200,
            r#"{"genesys-audiohook":{"mappings":{"properties":{"raw_event":{"type":"object","enabled":false}}}}}"#,
        ),
        // The template is the collector's own, from before the retention was set.
        "/_index_template/audiohook-collector-genesys-audiohook" => Act::Answer(200, r#"{"index_templates":[{}]}"#),
        path if path.starts_with("/_plugins/_ism") => Act::Answer(404, NOT_THERE),
        _ => Act::Serve,
    });
    let rig = Rig::new("late-retention", &[&fake.url]);
    let transport = Transport::new(&rig.elastic, &Default::default(), Clock::system()).unwrap();
    let setup = Setup { transport: &transport, node: 0, index: "genesys-audiohook", product: Product::OpenSearch };
    let problems = setup.put_if_absent(Some(90 * DAY)).unwrap();
    assert!(problems[0].what.contains("ELASTIC_RETENTION has no effect"), "{problems:?}");
    assert_eq!(put(&fake, "/"), None);
}

#[test]
fn a_data_stream_is_judged_by_its_next_index_too() {
    let fake = Fake::start();
    fake.script(|request| match request.path.split('?').next().unwrap() {
        "/stream" => Act::Answer(
            200,
            r#"{".ds-stream-000001":{"data_stream":"stream","mappings":{"properties":{"raw_event":{"enabled":false}}}}}"#,
        ),
        "/_data_stream/stream" => Act::Answer(200, r#"{"data_streams":[{"name":"stream","template":"theirs"}]}"#),
        "/_index_template/_simulate/theirs" => Act::Answer(200, r#"{"template":{"mappings":{}}}"#),
        // As a real one answers for a name that is a data stream's.
        "/_index_template/_simulate_index/stream" => Act::Answer(500, "{}"),
        _ => Act::Serve,
    });
    let rig = Rig::new("stream-next", &[&fake.url]);
    let transport = Transport::new(&rig.elastic, &Default::default(), Clock::system()).unwrap();
    let setup = Setup { transport: &transport, node: 0, index: "stream", product: Product::OpenSearch };
    assert_eq!(setup.look().unwrap(), Found::Decided { exists: true, maps_raw_event: true });
}

#[test]
fn an_index_that_is_known_to_roll_over_is_judged_by_the_next_one_however_few_digits_it_ends_in() {
    for (settings, maps_raw_event) in [
        (r#""settings":{"index":{"lifecycle":{"rollover_alias":"roll"}}},"#, true),
        (r#""settings":{"index":{"plugins":{"index_state_management":{"rollover_alias":"roll"}}}},"#, true),
        ("", false),
    ] {
        let fake = Fake::start();
        let index = format!(
            r#"{{"roll-9":{{{settings}"aliases":{{"roll":{{"is_write_index":true}}}},"mappings":{{"properties":{{"raw_event":{{"enabled":false}}}}}}}}}}"#
        );
        let index: &'static str = index.leak();
        fake.script(move |request| match request.path.split('?').next().unwrap() {
            "/roll" => Act::Answer(200, index),
            "/_index_template/_simulate_index/roll-000010" => Act::Answer(200, r#"{"template":{"mappings":{}}}"#),
            _ => Act::Serve,
        });
        let rig = Rig::new("roll-next", &[&fake.url]);
        let transport = Transport::new(&rig.elastic, &Default::default(), Clock::system()).unwrap();
        let setup = Setup { transport: &transport, node: 0, index: "roll", product: Product::OpenSearch };
        assert_eq!(setup.look().unwrap(), Found::Decided { exists: true, maps_raw_event }, "{settings}");
    }
}

#[test]
fn a_policy_of_that_name_is_left_as_it_is_and_without_policies_the_events_go_all_the_same() {
    for status in [200, 400] {
        let fake = Fake::start();
        fake.script(move |request| match &*request.path {
            path if path.starts_with("/_plugins/_ism") => Act::Answer(status, r#"{"error":"no handler found"}"#),
            "/genesys-audiohook-000001" => Act::Answer(200, "{}"),
            _ => Act::Serve,
        });
        let mut rig = Rig::new("policy", &[&fake.url]);
        rig.elastic.retention = Some(90 * DAY);
        rig.append(&records(0..10));
        rig.start();
        rig.until("all are there", SOON, |_| fake.documents() == 10);
        assert_eq!(put(&fake, "/_plugins/_ism"), None);
        let has_policy = put(&fake, "/_index_template/").unwrap().to_string().contains("rollover_alias");
        assert_eq!(has_policy, status == 200);
    }
}

#[test]
fn a_login_that_the_cluster_repeats_is_masked() {
    let fake = Fake::start();
    let echo = r#"{"error":{"type":"security_exception","reason":"no user:pass-word-1 nor dXNlcjpwYXNzLXdvcmQtMQ== nor pass-word-1"},"status":403}"#;
    fake.on_bulk(move |_| Act::Answer(403, echo));
    let mut rig = Rig::new("echo", &[&fake.url]).with_login("Basic dXNlcjpwYXNzLXdvcmQtMQ==");
    rig.append(&records(0..10));
    rig.start();
    rig.until("said", Duration::from_secs(10), |rig| rig.is_raised(Code::ElasticRefused));
    let said = rig.message(Code::ElasticRefused);
    assert!(said.contains("security_exception") && !said.contains("pass-word") && !said.contains("dXNlcjp"), "{said}");
}
