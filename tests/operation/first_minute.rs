//! What a newcomer meets first: the demo, and a collector over TLS, through the real binary.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::support::{Authority, Collector, Folder, SOON, assert_same_set, let_pass, poll, records};
use audiohook_collector::simulator::{Event, Options, Route, Simulator};

const LONG: Duration = Duration::from_secs(30);

#[test]
fn the_demo_shows_events_of_several_codes_within_ten_seconds_and_says_where_to_look() {
    let folder = Folder::new("demo");
    let dir = folder.join("demo");
    let arguments = ["demo", "--dir", dir.to_str().unwrap(), "--for", "12"];
    let mut demo = Collector::run(folder.path(), &arguments, &BTreeMap::new());
    let file = dir.join("audiohook_events.jsonl");
    let codes = || -> BTreeSet<String> {
        records::read(&file).iter().filter_map(|record| record.text("event_id").map(str::to_owned)).collect()
    };
    assert!(poll(SOON, || (codes().len() >= 3).then_some(())).is_some(), "{:?}\n{}", codes(), demo.log_text());
    assert!(codes().iter().all(|code| code.starts_with("AUDIOHOOK-")));
    let line = demo.wait_log("curl -s http://127.0.0.1:", SOON);
    let url = line.trim().strip_prefix("curl -s ").unwrap().to_owned();
    let mut answer = ureq::get(&url).call().unwrap();
    assert!(answer.body_mut().read_to_string().unwrap().contains("\"status\""));
    demo.wait_log(&file.display().to_string(), SOON);
    demo.wait_log("AudioHook event processed", SOON);
    assert_eq!(demo.wait_exit(LONG).code(), Some(0), "it ends by itself\n{}", demo.log_text());
    let kept = records::read(&file);
    assert!(kept.iter().any(|record| record.text("source") == Some("websocket")), "an event came live");
}

#[test]
fn a_demo_without_a_folder_leaves_none() {
    let folder = Folder::new("demo-temporary");
    let settings = BTreeMap::from([("TMPDIR".to_owned(), folder.path().display().to_string())]);
    let mut demo = Collector::run(folder.path(), &["demo"], &settings);
    demo.wait_log("AudioHook event processed", SOON);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(demo.term().code(), Some(0));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_demo_logs_for_a_person_unless_a_setting_that_was_named_asks_for_json() {
    let folder = Folder::new("demo-format");
    folder.write(".env", "LOG_FORMAT=json\n");
    folder.write("named.env", "LOG_FORMAT=json\n");
    for (arguments, json) in [(&["demo"][..], false), (&["demo", "--env-file", "named.env"], true)] {
        let mut demo = Collector::run(folder.path(), arguments, &BTreeMap::new());
        let line = demo.wait_log("AudioHook event processed", SOON);
        assert_eq!(line.starts_with('{'), json, "{line}");
        assert_eq!(demo.term().code(), Some(0));
    }
}

/// As in a container, whose published port does not reach the loopback.
#[test]
fn a_demo_listens_where_http_host_says() {
    let folder = Folder::new("demo-host");
    let settings = BTreeMap::from([("HTTP_HOST".to_owned(), "0.0.0.0".to_owned())]);
    let mut demo = Collector::run(folder.path(), &["demo"], &settings);
    let line = demo.wait_log("curl -s http://127.0.0.1:", SOON);
    let url = line.trim().strip_prefix("curl -s ").unwrap().replace("127.0.0.1", "127.0.0.2");
    assert!(poll(SOON, || ureq::get(&url).call().ok()).is_some(), "{url}\n{}", demo.log_text());
    assert_eq!(demo.term().code(), Some(0));
}

#[test]
fn over_tls_with_a_private_ca_every_event_is_collected() {
    let folder = Folder::new("tls");
    let authority = Authority::new();
    let sim = tls_service(authority.identity(&["localhost"]));
    let past: Vec<i64> = (0..500).map(|n| sim.now() - 60_000 + n).collect();
    sim.issue_many(Event::numbered("AUDIOHOOK-0003"), &past, Route::HistoryOnly);
    let ca = authority.write(&folder, "ca.pem");
    let collector = Collector::start(&sim, &folder, &[("SSL_CERT_FILE", ca.to_str().unwrap())]);
    collector.wait_healthy();
    let now: Vec<i64> = (0..20_000).map(|n| sim.now() + n / 10).collect();
    sim.issue_many(Event::numbered("AUDIOHOOK-0001"), &now, Route::SocketOnly);
    let found = collector.wait_lines(20_500, LONG);
    assert_same_set(&sim.issued(), &found);
    assert!(found.iter().any(|record| record.text("source") == Some("websocket")));
}

#[test]
fn a_certificate_that_does_not_fit_is_never_accepted() {
    let authority = Authority::new();
    for (what, identity, trusted) in [
        ("unknown", authority.identity(&["localhost"]), Authority::new()),
        ("other-name", Authority::new().identity(&["elsewhere.example"]), Authority::new()),
    ] {
        let folder = Folder::new(what);
        refuses(&folder, identity, &trusted);
    }
    let folder = Folder::new("other-host");
    refuses(&folder, authority.identity(&["elsewhere.example"]), &authority);
    let folder = Folder::new("expired");
    refuses(&folder, authority.expired_identity(&["localhost"]), &authority);
}

fn tls_service(identity: native_tls::Identity) -> Simulator {
    Simulator::start(Options { tls: Some(identity), host: Some("localhost".to_owned()), ..Options::default() }).unwrap()
}

/// The collector says nothing to a service that cannot prove who it is, and says so itself.
fn refuses(folder: &Folder, identity: native_tls::Identity, trusted: &Authority) {
    let sim = tls_service(identity);
    let ca = trusted.write(folder, "ca.pem");
    let collector = Collector::start(&sim, folder, &[("SSL_CERT_FILE", ca.to_str().unwrap())]);
    collector.wait_log("certificate", SOON);
    let_pass(Duration::from_millis(500));
    assert_eq!(sim.view(|view| view.all_requests().count()), 0, "{}", collector.log_text());
}
