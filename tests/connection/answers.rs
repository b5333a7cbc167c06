//! Subscriptions that are only partly confirmed or refused as a whole, and closes that are about the token: the collector
//! listens as far as it can, says what it does not know, and wastes no channels. `tests/ingest` has the rest of what the
//! API may answer.

use std::time::{Duration, Instant};

use crate::support::{Collector, Folder, SOON, let_pass, poll};
use audiohook_collector::simulator::{Action, Answer, Call, Event, Knobs, Options, Request, Route, Simulator};
use serde_json::json;

const REJECTED: &str = "subscription_rejected";

fn simulator() -> Simulator {
    let knobs = Knobs { requests_per_minute: None, ..Knobs::default() };
    Simulator::start(Options { knobs, ..Options::default() }).unwrap()
}

/// The message and the cure of a reason.
fn problem(collector: &Collector, code: &str) -> String {
    let health = collector.health().unwrap();
    let reasons = health["reasons"].as_array().unwrap();
    let reason = reasons.iter().find(|reason| reason["code"] == code).unwrap_or_else(|| panic!("no {code}: {health}"));
    format!("{} {}", reason["message"].as_str().unwrap(), reason["cure"].as_str().unwrap())
}

/// The socket brings an event of this definition.
fn wait_received(sim: &Simulator, collector: &Collector, definition: &str) {
    assert!(sim.wait_until(SOON, |view| view.sockets_open() == 1), "{}", collector.log_text());
    let event = sim.issue_by(Event::numbered(definition), Route::SocketOnly);
    let found = poll(SOON, || collector.records().iter().any(|record| record.key() == event.key).then_some(()));
    assert!(found.is_some(), "{}", collector.log_text());
}

fn topic(number: u32) -> String {
    format!("v2.operations.events.AUDIOHOOK-{number:04}")
}

/// Subscribes, and has this answer for it.
fn answered(body: &'static str) -> Action {
    Action::change(move |_, answer| answer.body = body.as_bytes().to_vec())
}

/// Refuses whatever this part of a subscription is in.
fn refused_with(part: String) -> Action {
    Action::custom(move |request: &Request, service| {
        if String::from_utf8_lossy(&request.body).contains(&part) {
            return Answer::json(400, json!({"code": "bad.request", "message": "no such topic"}));
        }
        service(request)
    })
}

#[test]
fn where_nothing_is_confirmed_that_is_reported_and_it_listens_all_the_same() {
    for body in ["{}", "", r#"{"entities":null}"#, r#"{"entities":[{"id":7},null]}"#] {
        let (sim, folder) = (simulator(), Folder::new("unconfirmed"));
        sim.faults().fail(Call::Subscriptions, answered(body));
        let collector = Collector::start(&sim, &folder, &[]);
        collector.wait_reason(REJECTED, true, SOON);
        let told = problem(&collector, REJECTED);
        assert!(told.contains("did not confirm") && told.contains("asks again"), "{told}");
        wait_received(&sim, &collector, "AUDIOHOOK-0001");
        assert_eq!(collector.get("/health").unwrap().0, 200, "{body}: the history brings every event");
        sim.faults().heal_all();
        collector.wait_healthy();
        assert_eq!(sim.view(|view| (view.channels_made(), view.sockets_opened())), (1, 1));
    }
}

#[test]
fn only_the_word_permitted_confirms_in_any_case() {
    let (sim, folder) = (simulator(), Folder::new("states"));
    let states = Action::change_json(|_, answer| {
        for entity in answer["entities"].as_array_mut().unwrap() {
            let is_first = entity["id"].as_str().unwrap().ends_with("0001");
            entity["state"] = json!(if is_first { "Pending" } else { "pERMITTED" });
        }
    });
    sim.faults().fail(Call::Subscriptions, states);
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_reason(REJECTED, true, SOON);
    let told = problem(&collector, REJECTED);
    assert!(told.contains("did not confirm 1 of ") && told.contains("Pending"), "{told}");
    let topics = collector.health().unwrap()["topics"].to_string();
    assert!(!topics.contains("0001") && topics.contains("0002"), "{topics}");
    wait_received(&sim, &collector, "AUDIOHOOK-0001");
}

#[test]
fn without_confirmation_and_history_it_is_unhealthy_until_an_event_proves_the_socket() {
    let (sim, folder) = (simulator(), Folder::new("nothing"));
    sim.faults().fail(Call::Subscriptions, answered("{}"));
    let collector = Collector::start(&sim, &folder, &[("GENESYS_DELIVERY", "websocket")]);
    collector.wait_reason("not_receiving", true, SOON);
    let told = problem(&collector, "not_receiving");
    assert!(told.contains("confirmed none of the topics"), "{told}");
    wait_received(&sim, &collector, "AUDIOHOOK-0002");
    collector.wait_reason("not_receiving", false, SOON);
}

#[test]
fn a_bad_topic_is_found_in_few_requests_and_asked_for_apart_from_then_on() {
    let (sim, folder) = (simulator(), Folder::new("bad-topic"));
    sim.faults().fail(Call::Subscriptions, refused_with(topic(3)));
    let collector = Collector::start(&sim, &folder, &[("CATCH_UP_INTERVAL", "5")]);
    collector.wait_reason(REJECTED, true, SOON);
    let told = problem(&collector, REJECTED);
    assert!(told.contains(&topic(3)) && told.contains("no such topic") && told.contains("TOPICS_FILE"), "{told}");
    wait_received(&sim, &collector, "AUDIOHOOK-0001");
    let asked = || sim.view(|view| view.requests(Call::Subscriptions));
    // Until the definitions are known, and with them.
    let settled = poll(SOON, || Some(asked()).filter(|all| all.len() >= 8)).unwrap();
    assert!(settled.len() <= 24, "{} requests", settled.len());
    let count = |body: &str| body.matches("\"id\"").count();
    let alone = poll(SOON * 2, || {
        let all = asked();
        let (put, post) = (all.len().checked_sub(2)?, all.len() - 1);
        let is_apart = all[put].method == "PUT" && all[put].status == 200 && count(&all[put].body) > 2;
        (is_apart && all[post].method == "POST" && count(&all[post].body) == 1).then_some(())
    });
    assert!(alone.is_some(), "{}", collector.log_text());
    assert_eq!(sim.view(|view| (view.channels_made(), view.sockets_opened())), (1, 1));
}

#[test]
fn where_every_topic_is_refused_that_is_reported_and_no_channels_are_wasted() {
    let (sim, folder) = (simulator(), Folder::new("all-bad"));
    sim.faults().fail(Call::Subscriptions, refused_with(String::new()));
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_reason(REJECTED, true, SOON);
    let told = problem(&collector, REJECTED);
    assert!(told.contains("rejected all ") && told.contains("no such topic"), "{told}");
    sim.issue(Event::numbered("AUDIOHOOK-0001"));
    collector.wait_lines(1, SOON);
    assert_eq!(sim.view(|view| (view.channels_made(), view.sockets_opened())), (1, 0));
    sim.faults().heal_all();
    collector.wait_healthy();
    wait_received(&sim, &collector, "AUDIOHOOK-0001");
}

#[test]
fn a_close_that_is_about_the_token_leads_to_a_new_token_and_channel_whatever_its_code() {
    for (code, reason) in [(4003, ""), (1008, ""), (1000, "Token revoked"), (4000, "unauthorized")] {
        let (sim, folder) = (simulator(), Folder::new("revoked"));
        let collector = Collector::start(&sim, &folder, &[]);
        collector.wait_healthy();
        sim.faults().close_sockets(code, reason);
        let renewed = sim
            .wait_until(SOON, |view| (view.channels_made(), view.tokens_granted(), view.sockets_opened()) == (2, 2, 2));
        assert!(renewed, "{code} {reason}\n{}", collector.log_text());
        assert!(!collector.log_lines().iter().any(|line| line.contains("another client")));
        wait_received(&sim, &collector, "AUDIOHOOK-0001");
    }
}

#[test]
fn a_service_that_closes_every_socket_for_its_token_is_not_given_channel_after_channel() {
    let (sim, folder) = (simulator(), Folder::new("revoked-again"));
    let collector = Collector::start(&sim, &folder, &[("RECONNECT_DELAY", "1"), ("MAX_RECONNECT_DELAY", "30")]);
    collector.wait_healthy();
    let until = Instant::now() + Duration::from_secs(6);
    while Instant::now() < until {
        sim.faults().close_sockets(4003, "");
        let_pass(Duration::from_millis(100));
    }
    let (made, logins) = sim.view(|view| (view.channels_made(), view.tokens_granted()));
    assert!((2..=5).contains(&made) && logins <= 6, "{made} channels, {logins} logins in six seconds");
    collector.wait_status("healthy", SOON * 4);
}

#[test]
fn a_503_with_retry_after_holds_its_own_call_alone() {
    let (sim, folder) = (simulator(), Folder::new("waits"));
    // On a busy machine it takes seconds before the history can be read.
    sim.faults().fail_next(Call::Channels, Action::Status { status: 503, retry_after_s: Some(8) }, 1);
    let collector = Collector::start(&sim, &folder, &[]);
    assert!(sim.wait_until(SOON * 2, |view| view.count(Call::Channels) == 2), "{}", collector.log_text());
    let at: Vec<Instant> = sim.view(|view| view.requests(Call::Channels).iter().map(|seen| seen.at).collect());
    assert!(at[1] - at[0] >= Duration::from_millis(7_990), "{:?}", at[1] - at[0]);
    let meanwhile = sim.view(|view| view.all_requests().filter(|seen| seen.at > at[0] && seen.at < at[1]).count());
    assert!(meanwhile > 0, "the history is read meanwhile\n{}", collector.log_text());
}
