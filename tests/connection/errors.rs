//! What goes wrong while it runs is told with the vendor's correlation id and the cure, and without a secret.

use crate::support::collector::credentials;
use crate::support::{Collector, Folder, SOON};
use audiohook_collector::simulator::{Action, Call, Knobs, Options, Simulator};

fn simulator(change: impl FnOnce(&mut Knobs)) -> Simulator {
    let mut knobs = Knobs { requests_per_minute: None, ..Knobs::default() };
    change(&mut knobs);
    Simulator::start(Options { knobs, ..Options::default() }).unwrap()
}

/// Waits for a line with all of these texts.
fn wait_line(collector: &Collector, parts: &[&str]) -> String {
    let is_it = |line: &&String| parts.iter().all(|part| line.contains(part));
    let found = crate::support::poll(SOON, || collector.log_lines().iter().find(is_it).cloned());
    found.unwrap_or_else(|| panic!("no line with {parts:?}\n{}", collector.log_text()))
}

#[test]
fn each_error_carries_the_correlation_id_and_its_cure() {
    let body = |text: &str| Action::Body(text.to_owned());
    let cases: [(Call, Action, &[&str]); 16] = [
        (Call::Token, Action::status(401), &["cannot log in: 401", "Check GENESYS_CLIENT_ID"]),
        (Call::Token, Action::status(400), &["cannot log in: 400", "GENESYS_ENV is the organization's region"]),
        (Call::Token, Action::status(403), &["cannot log in: 403", "Check GENESYS_CLIENT_ID"]),
        (Call::Token, Action::status(502), &["cannot log in: 502", "retrying"]),
        (Call::Token, Action::status(307), &["cannot log in: 307", "redirect", "HTTPS_PROXY"]),
        (Call::Token, Action::Nonsense, &["cannot log in", "holds no token", "HTTPS_PROXY"]),
        (Call::Definitions, Action::status(403), &["cannot fetch the event definitions: 403", "usage:events:view"]),
        (Call::Definitions, body("{}"), &["cannot fetch the event definitions", "HTTPS_PROXY"]),
        (Call::AvailableTopics, Action::status(500), &["cannot fetch the topics' transports: 500"]),
        (Call::Channels, Action::status(403), &["cannot create a channel: 403", "missing.any.permissions", "Roles"]),
        (Call::Channels, Action::status(401), &["cannot create a channel: 401", "same region"]),
        (Call::Channels, Action::Nonsense, &["cannot create a channel", "HTTPS_PROXY"]),
        (Call::Subscriptions, Action::status(400), &["cannot subscribe: 400", "report it"]),
        (Call::History, Action::status(403), &["cannot read the history: 403", "usage:events:view"]),
        (Call::History, Action::status(429), &["cannot read the history: 429", "too many requests"]),
        (Call::History, Action::Nonsense, &["cannot read the history", "is not a page of events", "HTTPS_PROXY"]),
    ];
    let (_, secret) = credentials();
    for (call, action, parts) in cases {
        let (sim, folder) = (simulator(|_| ()), Folder::new("errors"));
        sim.faults().fail(call, action);
        let collector = Collector::start(&sim, &folder, &[]);
        let line = wait_line(&collector, parts);
        assert!(line.contains("[correlation id "), "{line}");
        for line in collector.log_lines() {
            assert!(!line.contains(&secret), "{line}");
            for channel in sim.view(|view| view.channels()) {
                assert!(!line.contains(&channel), "{line}");
            }
        }
    }
}

#[test]
fn a_handshake_that_is_refused_is_told_with_its_correlation_id() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("errors-handshake"));
    sim.faults().fail(Call::Handshake, Action::status(404));
    let collector = Collector::start(&sim, &folder, &[]);
    wait_line(&collector, &["handshake was refused with 404 [correlation id "]);
}

#[test]
fn an_organization_without_audiohook_and_a_clock_that_is_off_are_told_with_the_cure() {
    let (sim, folder) = (simulator(|knobs| knobs.clock_offset_ms = 600_000), Folder::new("errors-none"));
    sim.faults().fail(Call::Definitions, Action::Body("{\"entities\":[{\"id\":\"BOTS-0001\"}]}".to_owned()));
    let collector = Collector::start(&sim, &folder, &[]);
    wait_line(&collector, &["the list has no AudioHook definition", "AudioHook integration"]);
    wait_line(&collector, &["behind Genesys Cloud's", "time service"]);
}

#[test]
fn one_wrong_secret_is_one_reason_one_alert_and_one_line() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("errors-secret"));
    let collector = Collector::start(&sim, &folder, &[("GENESYS_CLIENT_SECRET", "wrong-wrong-wrong")]);
    collector.wait_reason("credentials_refused", true, SOON);
    crate::support::let_pass(std::time::Duration::from_secs(3));
    let health = collector.health().unwrap();
    let reasons = health["reasons"].as_array().unwrap();
    assert_eq!(reasons.len(), 1, "{health}");
    assert_eq!(reasons[0]["severity"], "unhealthy");
    assert_eq!(health["instance"], "mypurecloud.com");
    let (_, metrics) = collector.get("/metrics").unwrap();
    let raised: Vec<&str> =
        metrics.lines().filter(|line| line.contains("_health_reason{") && line.ends_with(" 1")).collect();
    assert_eq!(raised, ["audiohook_collector_health_reason{code=\"credentials_refused\"} 1"]);
    let codes: Vec<serde_json::Value> = collector
        .log_lines()
        .iter()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|line| line["code"].is_string() && line["level"] != "DEBUG")
        .collect();
    assert_eq!(codes.len(), 1, "{codes:?}");
    assert_eq!((&codes[0]["code"], &codes[0]["severity"]), (&"credentials_refused".into(), &"unhealthy".into()));
    assert!(codes[0]["correlation_id"].as_str().is_some_and(|id| !id.is_empty()), "{codes:?}");
}
