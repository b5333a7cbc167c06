//! No secret stands in any log line, page, record, error or other file, at the level that says most.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::time::Duration;

use audiohook_collector::simulator::{Action, Call, Event, Knobs, Options, Simulator};
use serde_json::Value;
use support::collector::{binary, credentials, settings};
use support::{Collector, Folder, SOON, let_pass, poll};

const HTTP_TOKEN: &str = "SECRET-http-token-4711";
const PROXY_PASSWORD: &str = "SECRET-proxy-password";

#[test]
fn nothing_secret_stands_anywhere_but_in_the_state_whatever_goes_wrong() {
    let knobs = Knobs { requests_per_minute: None, token_life: Duration::from_secs(4), ..Knobs::default() };
    let sim = Simulator::start(Options { knobs, ..Options::default() }).unwrap();
    let folder = Folder::new("secrets");
    let proxy = format!("http://user:{PROXY_PASSWORD}@127.0.0.1:9");
    let changed = [
        ("HTTP_TOKEN", HTTP_TOKEN),
        ("LOG_LEVEL", "trace"),
        ("HTTPS_PROXY", proxy.as_str()),
        ("NO_PROXY", "127.0.0.1"),
        ("GENESYS_DELIVERY", "auto"),
    ];
    let mut collector = Collector::start(&sim, &folder, &changed);
    assert!(sim.wait_until(SOON, |view| view.sockets_open() == 1), "{}", collector.log_text());
    let mut channels = sim.view(|view| view.channels());
    let faults = sim.faults();
    let known: Vec<String> = channels.clone();
    sim.issue(Event::numbered("AUDIOHOOK-0001"));
    // Whatever may put an address, a channel or a token into a sentence.
    let troubles: [&dyn Fn(); 14] = [
        &|| faults.close_sockets(1000, &format!("gone: {}", known[0])),
        &|| faults.send_text(&format!("{{\"error\":\"no channel {}\"}}", known[0])),
        &|| faults.announce_closing(),
        &|| faults.send_text(&format!("{{\"result\":\"404\",\"message\":\"{}\"}}", known[0])),
        &|| faults.announce_token_revoked(),
        &|| faults.evict_channels(),
        &|| faults.drop_channels(),
        &|| faults.revoke_tokens(),
        &|| faults.close_sockets(1001, "idle timeout"),
        &|| faults.take_over_channels(),
        &|| faults.fail_next(Call::Channel, Action::status(404), 2),
        &|| faults.fail_next(Call::Subscriptions, Action::Nonsense, 1),
        &|| faults.fail_next(Call::Token, Action::Body("{\"access_token\": 5}".into()), 1),
        &|| faults.fail_next(Call::Channels, Action::Body("{\"id\":\"SECRET-channel\",\"connectUri\":7}".into()), 1),
    ];
    for trouble in troubles {
        trouble();
        faults.cut_sockets();
        let_pass(Duration::from_millis(350));
        channels.extend(sim.view(|view| view.channels()));
    }
    faults.fail_next(Call::Handshake, Action::Reset, 1);
    faults.fail_next(Call::Handshake, Action::status(500), 1);
    faults.cut_sockets();
    assert!(sim.wait_until(SOON * 2, |view| view.sockets_open() == 1), "{}", collector.log_text());
    channels.extend(sim.view(|view| view.channels()));
    sim.issue(Event::numbered("AUDIOHOOK-0001"));
    collector.wait_lines(2, SOON);
    let mut pages = String::new();
    for path in ["/", "/health", "/events", "/livez", "/readyz", "/metrics", "/nothing"] {
        pages.push_str(&collector.get(path).unwrap().1);
        pages.push_str(&with_token(&collector, path));
    }
    assert!(pages.contains("channel_id") && pages.contains('…'), "{pages:.2000}");
    assert!(collector.term().success());
    let state = std::fs::read_to_string(folder.join("events.jsonl.state")).unwrap();
    let state: Value = serde_json::from_str(state.lines().next().unwrap()).unwrap();
    let connect_uri = state["channel"]["connect_uri"].as_str().unwrap_or_default().to_owned();
    assert!(connect_uri.contains("/channels/"), "{state}");
    let mut files = String::new();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "state") {
            files.push_str(&String::from_utf8_lossy(&std::fs::read(&path).unwrap()));
        }
    }
    let (_, secret) = credentials();
    channels.sort();
    channels.dedup();
    let secrets: Vec<&str> = [
        secret.as_str(),
        HTTP_TOKEN,
        PROXY_PASSWORD,
        "SECRET",
        connect_uri.as_str(),
        "/channels/",
        "Bearer ",
        "access_token",
    ]
    .into_iter()
    .chain(channels.iter().map(String::as_str))
    .collect();
    let log = collector.log_lines().join("\n");
    for (place, text) in [("log", &log), ("file", &files), ("page", &pages)] {
        for secret in &secrets {
            // The page asks for the token by its header's name, and says where the socket is.
            if place == "page" && matches!(*secret, "Bearer " | "/channels/") {
                continue;
            }
            // The frame that named a channel was the service's own word on it, and control frames are not kept.
            let at = text.find(secret);
            assert!(at.is_none(), "{place} holds {secret}: {:.400}", &text[floor(text, at.unwrap_or(0))..]);
        }
    }
    assert!(log.contains("\"level\":\"DEBUG\""));
}

/// Where to begin to show what stands before this place.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.saturating_sub(200)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

fn with_token(collector: &Collector, path: &str) -> String {
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder().http_status_as_error(false).proxy(None).timeout_global(Some(SOON)).build(),
    );
    let url = format!("http://127.0.0.1:{}{path}", collector.port());
    let mut answer = agent.get(&url).header("Authorization", format!("Bearer {HTTP_TOKEN}")).call().unwrap();
    answer.body_mut().read_to_string().unwrap()
}

#[test]
fn a_channel_that_the_reason_for_a_rejection_names_is_masked() {
    let sim = Simulator::start(Options::default()).unwrap();
    let folder = Folder::new("secret-reason");
    sim.faults().reject_topics("v2.operations.events.AUDIOHOOK-0001", "not for you", &[]);
    let collector = Collector::start(&sim, &folder, &[("LOG_LEVEL", "trace")]);
    collector.wait_reason("subscription_rejected", true, SOON);
    let channel = sim.view(|view| view.channels()).remove(0);
    sim.faults().permit_topics();
    sim.faults().reject_topics(
        "v2.operations.events.AUDIOHOOK-0001",
        &format!("not on channel {channel}"),
        &[&format!("view:{channel}")],
    );
    let told = collector.wait_log("not on channel …", SOON);
    assert!(told.contains("view:…"), "{told}");
    let health = collector.get("/health").unwrap().1;
    assert!(health.contains("not on channel …"), "{health}");
    assert!(!health.contains(&channel) && !collector.log_text().contains(&channel), "{health}");
}

#[test]
fn what_is_printed_by_commands_is_without_secrets_too() {
    let knobs = Knobs { requests_per_minute: None, ..Knobs::default() };
    let sim = Simulator::start(Options { knobs, ..Options::default() }).unwrap();
    let folder = Folder::new("commands");
    let mut all = settings(&sim, &folder);
    all.insert("HTTP_TOKEN".into(), HTTP_TOKEN.into());
    all.insert("LOG_LEVEL".into(), "trace".into());
    let collector = Collector::start_with(folder.path(), &all);
    assert!(sim.wait_until(SOON, |view| view.sockets_open() == 1));
    assert!(poll(SOON, || collector.get("/livez")).is_some());
    let mut said = String::new();
    for arguments in [&["health"][..], &["audit"], &["audit", "--json"], &["check"], &["check", "--json"]] {
        let output = binary(folder.path(), arguments, &all).output().unwrap();
        said.push_str(&String::from_utf8_lossy(&output.stdout));
        said.push_str(&String::from_utf8_lossy(&output.stderr));
    }
    let mut secrets = vec![credentials().1, HTTP_TOKEN.to_owned()];
    secrets.extend(sim.view(|view| view.channels()));
    for secret in secrets {
        assert!(!said.contains(&secret), "{secret}: {said}");
    }
}
