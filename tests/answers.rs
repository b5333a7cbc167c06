//! Answers of the API that are odd, partial or refused: everything in an answer is optional. Through the real binary, which
//! meets the simulated service behind a front that changes its answers.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use audiohook_collector::simulator::{Call, Event, Knobs, Options, Route, Simulator};
use audiohook_collector::thread;
use serde_json::{Value, json};
use support::{Collector, Folder, SOON, collector, poll};

const SUBSCRIPTIONS: &str = "/subscriptions";
const DEFINITIONS: &str = "/usage/events/definitions";

/// One request that came through the front.
#[derive(Clone, Debug)]
struct Seen {
    method: String,
    path: String,
    body: String,
    authorization: String,
    at: Instant,
}

#[derive(Clone, Debug)]
struct Answer {
    status: u16,
    body: String,
}

type Rule = Box<dyn FnMut(&Seen, &mut dyn FnMut() -> Answer) -> Answer + Send>;

/// A front of the simulated service: passes every request on, and lets a rule change the answer.
struct Front {
    server: Arc<tiny_http::Server>,
    seen: Arc<Mutex<Vec<Seen>>>,
    rule: Arc<Mutex<Rule>>,
}

impl Front {
    fn new(sim: &Simulator) -> Self {
        let front = Self {
            server: Arc::new(tiny_http::Server::http("127.0.0.1:0").unwrap()),
            seen: Arc::default(),
            rule: Arc::new(Mutex::new(Box::new(|_, forward| forward()))),
        };
        let (server, seen, rule, url) = (front.server.clone(), front.seen.clone(), front.rule.clone(), sim.url());
        thread::spawn("front", move || {
            while let Ok(mut request) = server.recv() {
                let mut body = String::new();
                request.as_reader().read_to_string(&mut body).unwrap();
                let header = |name: &'static str| {
                    request.headers().iter().find(|h| h.field.equiv(name)).map_or("", |h| h.value.as_str()).to_owned()
                };
                let one = Seen {
                    method: request.method().to_string(),
                    path: request.url().to_owned(),
                    body,
                    authorization: header("Authorization"),
                    at: Instant::now(),
                };
                seen.lock().unwrap().push(one.clone());
                let kind = header("Content-Type");
                let mut forward = || pass_on(&url, &one, &kind);
                let answer = (rule.lock().unwrap())(&one, &mut forward);
                let response = tiny_http::Response::from_string(answer.body).with_status_code(answer.status);
                let _ = request.respond(response);
            }
        })
        .unwrap();
        front
    }

    fn url(&self) -> String {
        format!("http://{}", self.server.server_addr())
    }

    fn set(&self, rule: impl FnMut(&Seen, &mut dyn FnMut() -> Answer) -> Answer + Send + 'static) {
        *self.rule.lock().unwrap() = Box::new(rule);
    }

    /// The answers to what this part of a path names have this body; the service has seen the request.
    fn answer(&self, part: &'static str, body: &'static str) {
        self.set(move |seen, forward| {
            let answer = forward();
            if seen.path.contains(part) { Answer { status: 200, body: body.to_owned() } } else { answer }
        });
    }

    fn heal(&self) {
        self.set(|_, forward| forward());
    }

    fn seen(&self, part: &str) -> Vec<Seen> {
        self.seen.lock().unwrap().iter().filter(|seen| seen.path.contains(part)).cloned().collect()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.server.unblock();
    }
}

fn pass_on(url: &str, seen: &Seen, kind: &str) -> Answer {
    let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build();
    let mut request = ureq::http::Request::builder().method(seen.method.as_str()).uri(format!("{url}{}", seen.path));
    for (name, value) in [("Authorization", seen.authorization.as_str()), ("Content-Type", kind)] {
        if !value.is_empty() {
            request = request.header(name, value);
        }
    }
    let mut answer = ureq::Agent::new_with_config(config).run(request.body(seen.body.clone()).unwrap()).unwrap();
    Answer { status: answer.status().as_u16(), body: answer.body_mut().read_to_string().unwrap() }
}

fn service(change: impl FnOnce(&mut Knobs)) -> (Simulator, Front) {
    let mut knobs = Knobs { requests_per_minute: None, ..Knobs::default() };
    change(&mut knobs);
    let sim = Simulator::start(Options { knobs, ..Options::default() }).unwrap();
    let front = Front::new(&sim);
    (sim, front)
}

fn start(sim: &Simulator, front: &Front, folder: &Folder, changed: &[(&str, &str)]) -> Collector {
    let url = front.url();
    let mut all = vec![("GENESYS_LOGIN_URL", url.as_str()), ("GENESYS_API_URL", url.as_str())];
    all.extend_from_slice(changed);
    Collector::start(sim, folder, &all)
}

/// The message and the cure of a reason.
fn problem(collector: &Collector, code: &str) -> Option<String> {
    let health = collector.health()?;
    let reason = health["reasons"].as_array()?.iter().find(|reason| reason["code"] == code)?;
    Some(format!("{} {}", reason["message"].as_str()?, reason["cure"].as_str()?))
}

fn wait_received(sim: &Simulator, collector: &Collector, definition: &str) {
    assert!(sim.wait_until(SOON, |view| view.sockets_open() == 1), "{}", collector.log_text());
    let event = sim.issue_by(Event::numbered(definition), Route::SocketOnly);
    let found = poll(SOON, || collector.records().iter().any(|record| record.key() == event.key).then_some(()));
    assert!(found.is_some(), "{}", collector.log_text());
}

fn topic(number: u32) -> String {
    format!("v2.operations.events.AUDIOHOOK-{number:04}")
}

#[test]
fn a_topic_that_is_not_confirmed_is_reported_asked_for_again_and_listened_for_all_the_same() {
    for odd in ["{}", "", "[]x", r#"{"entities":null}"#, r#"{"entities":[]}"#, r#"{"entities":[{"id":7},null]}"#] {
        let ((sim, front), folder) = (service(|_| ()), Folder::new("unconfirmed"));
        front.answer(SUBSCRIPTIONS, odd);
        let collector = start(&sim, &front, &folder, &[]);
        if odd == "[]x" {
            // It is no answer at all: the subscription failed.
            collector.wait_log("cannot subscribe: the answer is not JSON", SOON);
        } else {
            collector.wait_reason("subscription_rejected", true, SOON);
            let told = problem(&collector, "subscription_rejected").unwrap();
            assert!(told.contains("did not confirm") && told.contains("asks again"), "{told}");
            assert!(sim.wait_until(SOON, |view| view.sockets_open() == 1), "{odd}: it must listen");
            wait_received(&sim, &collector, "AUDIOHOOK-0001");
        }
        assert_eq!(collector.get("/health").unwrap().0, 200, "{odd}: the history brings every event");
        front.heal();
        collector.wait_healthy();
        assert_eq!(sim.view(|view| view.channels_made()), 1);
    }
}

#[test]
fn a_state_other_than_permitted_confirms_nothing_and_the_case_of_the_word_is_free() {
    let ((sim, front), folder) = (service(|_| ()), Folder::new("states"));
    front.set(|seen, forward| {
        let Answer { status, body } = forward();
        if !seen.path.contains(SUBSCRIPTIONS) {
            return Answer { status, body };
        }
        let mut answer: Value = serde_json::from_str(&body).unwrap();
        for entity in answer["entities"].as_array_mut().unwrap() {
            let is_first = entity["id"].as_str().unwrap().ends_with("0001");
            entity["state"] = json!(if is_first { "Pending" } else { "pERMITTED" });
        }
        Answer { status, body: answer.to_string() }
    });
    let collector = start(&sim, &front, &folder, &[]);
    collector.wait_reason("subscription_rejected", true, SOON);
    let told = problem(&collector, "subscription_rejected").unwrap();
    assert!(told.contains("did not confirm 1 of the topics") && told.contains("Pending"), "{told}");
    let topics = collector.health().unwrap()["topics"].to_string();
    assert!(!topics.contains("0001") && topics.contains("0002"), "{topics}");
    wait_received(&sim, &collector, "AUDIOHOOK-0001");
    front.heal();
    collector.wait_healthy();
}

#[test]
fn where_nothing_is_confirmed_and_no_history_is_read_it_is_unhealthy_until_an_event_proves_the_socket() {
    let ((sim, front), folder) = (service(|_| ()), Folder::new("nothing"));
    front.answer(SUBSCRIPTIONS, "{}");
    let collector = start(&sim, &front, &folder, &[("GENESYS_DELIVERY", "websocket")]);
    collector.wait_reason("not_receiving", true, SOON);
    let told = problem(&collector, "not_receiving").unwrap();
    assert!(told.contains("confirmed none of the topics"), "{told}");
    wait_received(&sim, &collector, "AUDIOHOOK-0002");
    collector.wait_reason("not_receiving", false, SOON);
}

#[test]
fn one_bad_topic_costs_none_of_the_others() {
    let ((sim, front), folder) = (service(|_| ()), Folder::new("bad-topic"));
    let bad = topic(3);
    front.set(move |seen, forward| {
        if seen.path.contains(SUBSCRIPTIONS) && seen.body.contains(&bad) {
            return Answer { status: 400, body: r#"{"code":"bad.request","message":"no such topic"}"#.to_owned() };
        }
        forward()
    });
    let collector = start(&sim, &front, &folder, &[("CATCH_UP_INTERVAL", "3")]);
    collector.wait_reason("subscription_rejected", true, SOON);
    let told = problem(&collector, "subscription_rejected").unwrap();
    assert!(told.contains(&topic(3)) && told.contains("no such topic") && told.contains("TOPICS_FILE"), "{told}");
    assert!(sim.wait_until(SOON, |view| view.sockets_open() == 1), "{}", collector.log_text());
    wait_received(&sim, &collector, "AUDIOHOOK-0001");
    let subscribed = sim.view(|view| view.subscribed());
    assert!(subscribed.len() > 2 && !subscribed.contains(&topic(3)), "{subscribed:?}");
    let first = front.seen(SUBSCRIPTIONS);
    assert!(first.len() <= 12, "{} requests for {} topics", first.len(), subscribed.len() + 1);
    assert!(first.iter().skip(1).all(|seen| seen.body.matches("\"id\"").count() <= subscribed.len()));
    // Asked for again, the bad one is alone.
    let more = poll(SOON, || Some(front.seen(SUBSCRIPTIONS)).filter(|all| all.len() >= first.len() + 2)).unwrap();
    assert_eq!(more[first.len()].method, "PUT");
    assert_eq!(more[first.len() + 1].body.matches("\"id\"").count(), 1);
    assert_eq!(sim.view(|view| (view.channels_made(), view.sockets_opened())), (1, 1));
    front.heal();
    collector.wait_healthy();
    assert!(sim.view(|view| view.subscribed()).contains(&topic(3)));
}

#[test]
fn where_every_topic_is_refused_that_is_reported_and_no_channels_are_wasted() {
    let ((sim, front), folder) = (service(|_| ()), Folder::new("all-bad"));
    front.set(|seen, forward| {
        if seen.path.contains(SUBSCRIPTIONS) {
            return Answer { status: 400, body: r#"{"message":"no such topic"}"#.to_owned() };
        }
        forward()
    });
    let collector = start(&sim, &front, &folder, &[]);
    collector.wait_reason("subscription_rejected", true, SOON);
    let told = problem(&collector, "subscription_rejected").unwrap();
    assert!(told.contains("every one") && told.contains("no such topic"), "{told}");
    sim.issue(Event::numbered("AUDIOHOOK-0001"));
    collector.wait_lines(1, SOON);
    assert_eq!(sim.view(|view| (view.channels_made(), view.sockets_opened())), (1, 0));
    front.heal();
    collector.wait_healthy();
    wait_received(&sim, &collector, "AUDIOHOOK-0001");
}

#[test]
fn with_each_new_token_the_topics_are_subscribed_again_at_once() {
    let ((sim, front), folder) = (service(|k| k.token_life = Duration::from_secs(5)), Folder::new("renewed"));
    let collector = start(&sim, &front, &folder, &[]);
    collector.wait_healthy();
    let enough = poll(SOON * 2, || (front.seen("/oauth/token").len() >= 3).then_some(()));
    assert!(enough.is_some(), "{}", collector.log_text());
    let logins = front.seen("/oauth/token");
    let renewed = || {
        let all = front.seen(SUBSCRIPTIONS);
        let after = |login: &Seen| all.iter().find(|seen| seen.at > login.at).cloned();
        let pairs: Option<Vec<_>> = logins.iter().map(|login| Some((login.at, after(login)?))).collect();
        pairs.filter(|pairs| pairs.iter().skip(1).all(|(at, seen)| seen.at - *at < Duration::from_secs(2)))
    };
    let pairs = poll(SOON, renewed).unwrap_or_else(|| panic!("{}", collector.log_text()));
    let tokens: Vec<&str> = pairs.iter().map(|(_, seen)| seen.authorization.as_str()).collect();
    assert!(tokens.windows(2).all(|pair| pair[0] != pair[1]), "each with its own token: {tokens:?}");
    assert_eq!(sim.view(|view| (view.channels_made(), view.sockets_opened())), (1, 1));
}

#[test]
fn a_close_for_a_revoked_token_leads_to_a_new_token_and_a_new_channel() {
    for (code, reason) in [(4003, ""), (1008, ""), (1000, "Token revoked"), (4000, "unauthorized")] {
        let ((sim, front), folder) = (service(|_| ()), Folder::new("revoked"));
        let collector = start(&sim, &front, &folder, &[]);
        collector.wait_healthy();
        sim.faults().close_sockets(code, reason);
        let renewed = sim
            .wait_until(SOON, |view| (view.channels_made(), view.tokens_granted(), view.sockets_opened()) == (2, 2, 2));
        assert!(renewed, "{code} {reason}\n{}", collector.log_text());
        assert!(!collector.log_lines().iter().any(|line| line.contains("another client")));
        collector.wait_healthy();
        wait_received(&sim, &collector, "AUDIOHOOK-0001");
    }
}

#[test]
fn a_service_that_closes_every_socket_for_its_token_is_not_given_channel_after_channel() {
    let ((sim, front), folder) = (service(|_| ()), Folder::new("revoked-again"));
    let quick = [("RECONNECT_DELAY", "1"), ("MAX_RECONNECT_DELAY", "30")];
    let collector = start(&sim, &front, &folder, &quick);
    collector.wait_healthy();
    let until = Instant::now() + Duration::from_secs(6);
    while Instant::now() < until {
        sim.faults().close_sockets(4003, "");
        support::let_pass(Duration::from_millis(100));
    }
    let (made, logins) = sim.view(|view| (view.channels_made(), view.tokens_granted()));
    assert!((2..=5).contains(&made) && logins <= 6, "{made} channels, {logins} logins in six seconds");
    let back = poll(SOON * 2, || (collector.health()?["status"] == "healthy").then_some(()));
    assert!(back.is_some(), "{}", collector.log_text());
}

#[test]
fn retry_after_holds_one_call_for_a_503_and_a_429_names_its_wait_in_its_text() {
    let ((sim, front), folder) = (service(|_| ()), Folder::new("waits"));
    sim.faults().fail_next(
        Call::Channels,
        audiohook_collector::simulator::Action::Status { status: 503, retry_after_s: Some(3) },
        1,
    );
    let collector = Collector::start(&sim, &folder, &[]);
    assert!(sim.wait_until(SOON, |view| view.count(Call::Channels) == 2), "{}", collector.log_text());
    let at: Vec<Instant> = sim.view(|view| view.requests(Call::Channels).iter().map(|seen| seen.at).collect());
    assert!(at[1] - at[0] >= Duration::from_millis(2_990), "{:?}", at[1] - at[0]);
    let meanwhile = sim.view(|view| view.all_requests().filter(|seen| seen.at > at[0] && seen.at < at[1]).count());
    assert!(meanwhile > 0, "a 503 is about its own call");
    drop(collector);

    let folder = Folder::new("hint");
    let mut left = 1;
    front.set(move |seen, forward| {
        if seen.path.contains(DEFINITIONS) && left > 0 {
            left -= 1;
            let text = r#"{"message":"Rate limit exceeded the maximum. Retry the request in [2] seconds"}"#;
            return Answer { status: 429, body: text.to_owned() };
        }
        forward()
    });
    let collector = start(&sim, &front, &folder, &[]);
    let asked = poll(SOON, || Some(front.seen(DEFINITIONS)).filter(|all| all.len() >= 2));
    let asked = asked.unwrap_or_else(|| panic!("{}", collector.log_text()));
    let wait = asked[1].at - asked[0].at;
    assert!(wait >= Duration::from_millis(1_990) && wait < Duration::from_secs(6), "{wait:?}");
}

#[test]
fn a_list_of_definitions_that_is_none_is_reported_and_asked_for_again() {
    for odd in ["{}", "null", "<html>", r#"{"entities":[]}"#, r#"{"entities":{"id":"AUDIOHOOK-0001"}}"#] {
        let ((sim, front), folder) = (service(|_| ()), Folder::new("definitions"));
        front.answer(DEFINITIONS, odd);
        let collector = start(&sim, &front, &folder, &[]);
        collector.wait_reason("definitions_unconfirmed", true, SOON);
        let told = problem(&collector, "definitions_unconfirmed").unwrap();
        assert!(told.contains("lists no definitions") && told.contains("late"), "{odd}: {told}");
        front.heal();
        collector.wait_reason("definitions_unconfirmed", false, SOON);
        collector.wait_healthy();
    }
}

#[test]
fn channels_that_are_listed_without_their_ids_count() {
    let ((sim, front), folder) = (service(|_| ()), Folder::new("listed"));
    front.set(|seen, forward| {
        let is_list = seen.method == "GET" && seen.path.contains("/notifications/channels?");
        if is_list {
            Answer { status: 200, body: json!({"entities": vec![json!({}); 20]}).to_string() }
        } else {
            forward()
        }
    });
    let mut settings = collector::settings(&sim, &folder);
    settings.extend(["LOGIN", "API"].map(|name| (format!("GENESYS_{name}_URL"), front.url())));
    let out = collector::binary(folder.path(), &["check", "--json"], &settings).output().unwrap();
    let found: Value = serde_json::from_slice(&out.stdout).unwrap();
    let channel = found["checks"].as_array().unwrap().iter().find(|check| check["name"] == "channel").unwrap();
    assert!(channel["ok"] == false && channel["found"].as_str().unwrap().contains("20 channels"), "{channel}");
    assert_eq!(sim.view(|view| view.channels_made()), 0, "one more would push another one out");
}

#[test]
fn counts_without_a_list_are_counts_of_zero() {
    for odd in ["{}", r#"{"eventDefinitionAggregates":null}"#] {
        let ((sim, front), folder) = (service(|_| ()), Folder::new("counts"));
        front.answer("/aggregates/", odd);
        let mut settings = collector::settings(&sim, &folder);
        settings.extend(["LOGIN", "API"].map(|name| (format!("GENESYS_{name}_URL"), front.url())));
        let out = collector::binary(folder.path(), &["audit", "--json"], &settings).output().unwrap();
        let report: Value = serde_json::from_slice(&out.stdout)
            .unwrap_or_else(|error| panic!("{odd}: {error} {}", String::from_utf8_lossy(&out.stderr)));
        assert_eq!(report["complete"], true, "{odd}: {report}");
    }
}
