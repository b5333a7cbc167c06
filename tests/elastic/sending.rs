//! What is sent, once each, whichever way the cluster comes up.

use std::fs;
use std::time::{Duration, Instant};

use audiohook_collector::status::Code;

use crate::SOON;
use crate::cluster::fake::{Act, Fake};
use crate::cluster::{Rig, record, records};
use crate::support::Authority;

#[test]
fn every_event_lands_once_as_the_record_and_its_time() {
    let fake = Fake::start();
    let mut rig = Rig::new("once", &[&fake.url]);
    rig.append(&records(0..30));
    rig.start();
    rig.append(&records(30..333));
    rig.until("all are there", SOON, |_| fake.documents() == 333);
    rig.until("the backlog is empty", SOON, |rig| rig.backlog() == 0);
    let state = fake.state();
    let expected = record(7).replacen('{', "{\"@timestamp\":\"2026-11-20T10:30:45.007Z\",", 1);
    assert_eq!(state.documents[&format!("{:032x}", 7)], expected);
    assert!(state.requests.iter().filter(|r| r.is_bulk()).all(|r| r.encoding.as_deref() == Some("gzip")));
    assert!(state.requests.iter().filter(|r| r.is_bulk()).all(|r| r.documents() <= 50));
    assert_eq!(state.connections, 1, "the connection is kept");
    assert_eq!(state.arrivals, 333);
    let template = &state.templates["audiohook-collector-genesys-audiohook"];
    assert!(template.contains("raw_event"));
    drop(state);
    assert_eq!(rig.status.health().elastic.unwrap().server.as_deref(), Some("OpenSearch 2.19.1"));
    assert_eq!(rig.status.counters.elastic_created.get(), 333);
}

#[test]
fn a_second_start_and_a_lost_cursor_add_nothing() {
    let fake = Fake::start();
    let mut rig = Rig::new("second", &[&fake.url]);
    rig.output.max_file_size = 20_000;
    rig.append(&records(0..100));
    rig.start();
    rig.until("all are there", SOON, |_| fake.documents() == 100);
    rig.until("judged", SOON, |rig| rig.backlog() == 0);
    rig.kill();
    rig.start();
    rig.append(&records(100..110));
    rig.until("the new ones are there", SOON, |_| fake.documents() == 110);
    assert_eq!(fake.state().arrivals, 110, "nothing is sent again");
    rig.kill();
    rig.cursor = None;
    rig.start();
    rig.until("all were looked at", SOON, |rig| rig.status.counters.elastic_exists.get() == 110);
    assert_eq!(fake.documents(), 110);
}

#[test]
fn a_path_before_the_api_is_kept() {
    let fake = Fake::start();
    let url = format!("{}/search/here", fake.url);
    let mut rig = Rig::new("prefix", &[&url]);
    rig.append(&records(0..10));
    rig.start();
    rig.until("all are there", SOON, |_| fake.documents() == 10);
    assert!(fake.state().requests.iter().all(|request| request.path.starts_with("/search/here/")));
}

#[test]
fn a_private_ca_and_a_password_are_enough_and_without_the_ca_nothing_goes() {
    let authority = Authority::new();
    let fake = Fake::with_tls(authority.identity(&["127.0.0.1"]));
    let mut rig = Rig::new("tls", &[&fake.url]).with_login("Basic dXNlcjpwYXNz");
    rig.append(&records(0..20));
    rig.start();
    rig.until("said", Duration::from_secs(10), |rig| rig.is_raised(Code::ElasticUnreachable));
    assert!(rig.message(Code::ElasticUnreachable).contains("ELASTIC_CA_FILE"), "{:?}", rig.status.health());
    assert_eq!(fake.state().requests.len(), 0);
    rig.kill();
    let ca_file = rig.folder.join("ca.pem");
    fs::write(&ca_file, authority.certificate_pem()).unwrap();
    rig.elastic.ca_file = Some(ca_file);
    rig.start();
    rig.until("all are there", SOON, |_| fake.documents() == 20);
    let state = fake.state();
    assert!(state.requests.iter().all(|request| request.authorization.as_deref() == Some("Basic dXNlcjpwYXNz")));
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let authority = Authority::new();
    let fake = Fake::with_tls(authority.identity(&["127.0.0.2"]));
    let mut rig = Rig::new("name", &[&fake.url]);
    let ca_file = rig.folder.join("ca.pem");
    fs::write(&ca_file, authority.certificate_pem()).unwrap();
    rig.elastic.ca_file = Some(ca_file);
    rig.append(&records(0..20));
    rig.start();
    rig.until("said", Duration::from_secs(10), |rig| rig.is_raised(Code::ElasticUnreachable));
    assert_eq!(fake.state().requests.len(), 0);
}

#[test]
fn at_a_stop_what_waits_for_others_goes_at_once() {
    let fake = Fake::start();
    let mut rig = Rig::new("stop", &[&fake.url]);
    rig.elastic.flush_interval = Duration::from_secs(60);
    rig.start();
    rig.until("the template is there", SOON, |_| !fake.state().templates.is_empty());
    rig.append(&records(0..5));
    rig.drive(Duration::from_millis(300));
    assert_eq!(fake.documents(), 0);
    rig.stop();
    assert_eq!(fake.documents(), 5);
    assert_eq!(rig.cursor.unwrap().pending, 0);
}

#[test]
fn a_stop_waits_for_a_cluster_that_hangs_for_a_second_at_most() {
    let fake = Fake::start();
    fake.on_bulk(|_| Act::Hang);
    let mut rig = Rig::new("stop-hang", &[&fake.url]);
    rig.append(&records(0..5));
    rig.start();
    rig.until("a request hangs", SOON, |_| !fake.bulks().is_empty());
    let begun = Instant::now();
    rig.stop();
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    assert_eq!(rig.cursor.unwrap().pending, 5);
}

#[test]
fn a_cluster_that_only_lets_bulk_requests_through_is_filled_too() {
    let fake = Fake::start();
    fake.script(|request| if request.is_bulk() { Act::Serve } else { Act::Answer(200, "<html>welcome</html>") });
    let mut rig = Rig::new("only-bulk", &[&fake.url]);
    rig.append(&records(0..100));
    rig.start();
    rig.until("all are there", SOON, |_| fake.documents() == 100);
    rig.until("said no more", SOON, |rig| !rig.is_raised(Code::ElasticUnreachable));
}

#[test]
fn a_user_who_may_not_put_the_template_fills_the_index_all_the_same() {
    let fake = Fake::start();
    fake.script(|request| if request.path.contains("template") { Act::Answer(403, "{}") } else { Act::Serve });
    let mut rig = Rig::new("no-right", &[&fake.url]);
    rig.append(&records(0..100));
    rig.start();
    rig.until("all are there", SOON, |rig| rig.done() == 100);
    assert!(!rig.is_raised(Code::ElasticRefused) && !rig.is_raised(Code::ElasticUnreachable));
}

#[test]
fn no_document_overtakes_the_template_however_the_cluster_comes_up() {
    // The template's first request meets a fault in passing; or the cluster comes up after the collector.
    for status in [429, 502, 503] {
        let fake = Fake::start();
        let mut failures = 1;
        fake.script(move |request| {
            let is_template = request.path.starts_with("/_index_template/");
            if is_template && std::mem::take(&mut failures) > 0 { Act::Answer(status, "") } else { Act::Serve }
        });
        let mut rig = Rig::new("overtake", &[&fake.url]);
        rig.append(&records(0..20));
        rig.start();
        rig.until("all are there", SOON, |_| fake.documents() == 20);
        assert_template_first(&fake);
    }
    for up_after_ms in [600, 1_400, 3_500, 5_000] {
        let fake = Fake::start();
        let up = Instant::now() + Duration::from_millis(up_after_ms);
        fake.script(move |_| if Instant::now() < up { Act::Close } else { Act::Serve });
        let mut rig = Rig::new("overtake", &[&fake.url]);
        rig.append(&records(0..20));
        rig.start();
        rig.until("all are there", SOON, |_| fake.documents() == 20);
        assert_template_first(&fake);
        assert_eq!(rig.status.health().elastic.unwrap().server.as_deref(), Some("OpenSearch 2.19.1"));
    }
}

/// Nothing was sent before the template was put.
fn assert_template_first(fake: &Fake) {
    let state = fake.state();
    let put = state.requests.iter().position(|r| r.method == "PUT" && r.path.starts_with("/_index_template/"));
    let bulk = state.requests.iter().position(|request| request.is_bulk());
    assert!(put.is_some() && put < bulk, "{put:?} and {bulk:?}");
}

#[test]
fn at_rest_nobody_wakes_up_more_than_now_and_then() {
    let fake = Fake::start();
    let mut rig = Rig::new("rest", &[&fake.url]);
    rig.append(&records(0..10));
    rig.start();
    rig.until("all are there", SOON, |rig| rig.done() == 10);
    rig.drive(Duration::from_secs(1));
    let requests = fake.state().requests.len();
    rig.drive(Duration::from_secs(7));
    assert!(fake.state().requests.len() <= requests + 2);
}
