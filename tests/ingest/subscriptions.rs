//! Subscriptions that are not confirmed, one bad topic among good ones, tokens that end.

use std::time::Duration;

use audiohook_collector::simulator::{Action, Answer, Call, Event, Route, Simulator};
use serde_json::{Value, json};

use crate::support::collector::{binary, settings};
use crate::support::{Collector, Folder, SOON, poll};
use crate::{LONG, simulator, started};

const BAD: &str = "v2.operations.events.AUDIOHOOK-0004";
const REJECTED: &str = "subscription_rejected";

fn is_subscribed(sim: &Simulator, topic: &str) -> bool {
    sim.view(|view| view.subscribed().iter().any(|subscribed| subscribed == topic))
}

/// How often this topic was asked for.
fn asked_for(sim: &Simulator, topic: &str) -> usize {
    sim.view(|view| view.requests(Call::Subscriptions).iter().filter(|seen| seen.body.contains(topic)).count())
}

#[test]
fn a_topic_that_the_answer_does_not_confirm_is_reported_and_asked_for_again() {
    let unconfirmed: [fn(&mut Value); 3] = [
        |answer| answer["entities"].as_array_mut().unwrap().retain(|entity| entity["id"] != BAD),
        |answer| {
            for entity in answer["entities"].as_array_mut().unwrap().iter_mut().filter(|entity| entity["id"] == BAD) {
                entity.as_object_mut().unwrap().remove("state");
            }
        },
        |answer| {
            for entity in answer["entities"].as_array_mut().unwrap().iter_mut().filter(|entity| entity["id"] == BAD) {
                entity["state"] = json!("Pending");
            }
        },
    ];
    for change in unconfirmed {
        let (sim, folder) = (simulator(|_| ()), Folder::new("unconfirmed"));
        sim.faults().fail(Call::Subscriptions, Action::change_json(move |_, answer| change(answer)));
        let collector = Collector::start(&sim, &folder, &[]);
        collector.wait_reason(REJECTED, true, LONG);
        let reasons = collector.health().unwrap()["reasons"].to_string();
        assert!(reasons.contains("AUDIOHOOK-0004") && !reasons.contains("AUDIOHOOK-0001"), "{reasons}");
        let before = asked_for(&sim, BAD);
        assert!(poll(LONG, || (asked_for(&sim, BAD) > before).then_some(())).is_some(), "it is asked for again");
        sim.faults().heal_all();
        collector.wait_reason(REJECTED, false, LONG);
        collector.wait_healthy();
    }
}

#[test]
fn an_answer_that_confirms_nothing_is_no_subscription() {
    for body in ["{}", r#"{"entities":null}"#, r#"{"entities":[]}"#] {
        let (sim, folder) = (simulator(|_| ()), Folder::new("nothing-confirmed"));
        sim.faults().fail(Call::Subscriptions, Action::Body(body.to_owned()));
        let collector = Collector::start(&sim, &folder, &[]);
        let reported = poll(LONG, || {
            collector.reasons()?.iter().any(|code| code == REJECTED || code == "socket_down").then_some(())
        });
        assert!(reported.is_some(), "{body}: {:?}", collector.health());
        sim.faults().heal_all();
        collector.wait_healthy();
    }
}

#[test]
fn one_bad_topic_that_fails_the_request_does_not_keep_the_others_from_being_subscribed() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("bad-topic"));
    sim.faults().fail(
        Call::Subscriptions,
        Action::custom(|request, service| {
            if String::from_utf8_lossy(&request.body).contains(BAD) {
                let message = format!("Topic {BAD} is not valid.");
                return Answer::json(400, json!({"message": message, "code": "bad.request", "status": 400}));
            }
            service(request)
        }),
    );
    let collector = Collector::start(&sim, &folder, &[]);
    assert!(sim.wait_until(LONG, |view| view.sockets_open() == 1), "{}", collector.log_text());
    for id in ["AUDIOHOOK-0001", "AUDIOHOOK-0002", "AUDIOHOOK-0008"] {
        let topic = format!("v2.operations.events.{id}");
        assert!(poll(LONG, || is_subscribed(&sim, &topic).then_some(())).is_some(), "{topic}");
    }
    sim.issue_by(Event::numbered("AUDIOHOOK-0001"), Route::SocketOnly);
    collector.wait_lines(1, LONG);
    collector.wait_reason(REJECTED, true, LONG);
    assert!(collector.health().unwrap()["reasons"].to_string().contains("AUDIOHOOK-0004"));
    sim.faults().heal_all();
    assert!(poll(LONG, || is_subscribed(&sim, BAD).then_some(())).is_some(), "it is asked for again later");
    collector.wait_reason(REJECTED, false, LONG);
}

#[test]
fn channels_that_are_listed_without_ids_count() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("without-ids"));
    // All of other tokens: one more would push one of them out.
    let others: Vec<Value> =
        (0..20).map(|_| json!({"connectUri": null, "expires": "2030-01-01T00:00:00.000Z"})).collect();
    let list = Action::custom(move |request, service| match request.method.as_str() {
        "GET" => Answer::json(200, json!({ "entities": others })),
        _ => service(request),
    });
    sim.faults().fail(Call::Channels, list);
    let output = binary(folder.path(), &["check", "--json"], &settings(&sim, &folder)).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(sim.view(|view| view.channels_made()), 0, "{text}");
}

/// The tokens with which subscriptions were replaced, in their order, each once.
fn subscribing_tokens(sim: &Simulator) -> Vec<String> {
    let seen = sim.view(|view| view.requests(Call::Subscriptions));
    let mut tokens: Vec<String> = seen
        .into_iter()
        .filter(|seen| seen.method == "PUT" && seen.status == 200)
        .map(|seen| seen.authorization)
        .collect();
    tokens.dedup();
    tokens
}

#[test]
fn after_a_renewal_the_subscription_is_renewed_at_once_with_the_new_token() {
    let sim = simulator(|knobs| knobs.token_life = Duration::from_secs(10));
    let (_folder, collector) = started("renewal", &sim, &[]);
    assert!(sim.wait_until(LONG, |view| view.tokens_granted() >= 3), "{}", collector.log_text());
    let renewed = poll(Duration::from_secs(3), || (subscribing_tokens(&sim).len() >= 3).then_some(()));
    assert!(renewed.is_some(), "{} tokens subscribed\n{}", subscribing_tokens(&sim).len(), collector.log_text());
    assert_eq!(sim.view(|view| view.channels_made()), 1, "the channel stays");
}

#[test]
fn after_a_token_died_the_subscription_is_renewed_at_once_with_the_new_one() {
    let sim = simulator(|_| ());
    let (_folder, collector) = started("revoked", &sim, &[]);
    assert_eq!(subscribing_tokens(&sim).len(), 1);
    sim.faults().expire_tokens();
    let renewed = poll(SOON, || (subscribing_tokens(&sim).len() >= 2).then_some(()));
    assert!(renewed.is_some(), "{}", collector.log_text());
}

#[test]
fn a_close_for_a_revoked_token_leads_to_a_new_token_and_channel() {
    for code in [4001, 4003] {
        let sim = simulator(|_| ());
        let (_folder, collector) = started("close-4003", &sim, &[]);
        for round in 1..=3 {
            let opened = sim.view(|view| view.sockets_opened());
            sim.faults().close_sockets(code, "token revoked");
            let anew = sim.wait_until(LONG, |view| {
                view.tokens_granted() > round && view.channels_made() > round && view.sockets_opened() > opened
            });
            assert!(anew, "{code}, round {round}\n{}", collector.log_text());
            assert!(sim.wait_until(LONG, |view| view.sockets_open() == 1 && !view.subscribed().is_empty()));
        }
        assert!(!collector.log_text().contains("something else"), "{}", collector.log_text());
        sim.issue_by(Event::numbered("AUDIOHOOK-0001"), Route::SocketOnly);
        collector.wait_lines(1, LONG);
        collector.wait_healthy();
    }
}
