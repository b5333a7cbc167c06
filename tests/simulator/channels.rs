//! Channels and subscriptions.

use std::time::{Duration, Instant};

use audiohook_collector::simulator::Event;
use serde_json::{Value, json};

use crate::support::{Client, Socket};
use crate::{CHANNELS, TOPIC, connected, simulator, support};

#[test]
fn subscriptions_take_a_bare_array_and_judge_each_topic() {
    let sim = simulator(|_| {});
    let client = Client::logged_in(&sim);
    let (id, _) = client.channel();
    let path = format!("{CHANNELS}/{id}/subscriptions");
    for body in ["{\"topics\":[]}", "[\"v2.a\"]", "[{\"name\":1}]", "nonsense"] {
        assert_eq!(client.call("PUT", &path, body).status, 400, "{body}");
    }
    let many: Vec<Value> = (0..1001).map(|n| json!({"id": format!("v2.users.{n}.presence")})).collect();
    assert_eq!(client.call("PUT", &path, &Value::from(many).to_string()).status, 400);
    // The limit comes first: before equal topics count as one, and before any is judged.
    for topics in [vec![TOPIC.to_owned(); 1001], (0..1001).map(|n| format!("v2.nothing.{n}")).collect()] {
        let body: Value = topics.iter().map(|topic| json!({"id": topic})).collect();
        let answer = client.call("PUT", &path, &body.to_string());
        assert_eq!((answer.status, &answer.json["code"]), (400, &json!("too.many.topics")));
    }
    sim.faults().reject_topics("v2.operations.events.AUDIOHOOK-0002", "Missing permission", &["usage:events:view"]);
    let second = "v2.operations.events.AUDIOHOOK-0002";
    let body = json!([{"id": TOPIC}, {"id": second}]).to_string();
    let strict = client.call("PUT", &path, &body);
    assert_eq!((strict.status, &strict.json["code"]), (403, &json!("missing.any.permissions")));
    let topics = [TOPIC, second, "v2.operations.events.*", "platform.integration.audiohook", "channel.metadata"];
    let answer = client.subscribe(&id, &topics).json;
    let states: Vec<&str> =
        answer["entities"].as_array().unwrap().iter().map(|entity| entity["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["Permitted", "Rejected", "Rejected", "Rejected", "Rejected"]);
    assert_eq!(answer["entities"][1]["missingPermissions"], json!(["usage:events:view"]));
    let ids = |answer: Value| answer["entities"].as_array().unwrap().len();
    assert_eq!(ids(client.call("GET", &path, "").json), 1);
    let more = json!([{"id": "v2.operations.events.AUDIOHOOK-0003"}]).to_string();
    assert_eq!(client.call("POST", &path, &more).status, 200);
    assert_eq!(ids(client.call("GET", &path, "").json), 2, "POST adds");
    assert_eq!(client.call("PUT", &path, &more).status, 200);
    assert_eq!(ids(client.call("GET", &path, "").json), 1, "PUT replaces");
    assert_eq!(client.call("DELETE", &path, "").status, 204);
    assert_eq!(ids(client.call("GET", &path, "").json), 0);
}

#[test]
fn the_21st_channel_evicts_the_unconnected_one_unused_longest() {
    let sim = simulator(|_| {});
    let client = Client::logged_in(&sim);
    let (first, uri) = client.channel();
    let _socket = Socket::open(&uri).unwrap();
    let others: Vec<String> = (0..19).map(|_| client.channel().0).collect();
    let there = |id: &str| client.call("HEAD", &format!("{CHANNELS}/{id}"), "").status == 200;
    assert!(there(&others[0]), "asking for it uses it");
    client.channel();
    assert!(there(&first) && there(&others[0]) && !there(&others[1]));
    assert_eq!(sim.view(|view| (view.channels().len(), view.channels_made())), (20, 21));
    let gone = uri.replace(&first, &others[1]);
    assert_eq!(Socket::open(&gone).err(), Some(404));
}

#[test]
fn a_channel_ends_its_life_after_its_last_subscription() {
    let sim = simulator(|knobs| knobs.channel_life = Duration::from_secs(2));
    let client = Client::logged_in(&sim);
    let (id, uri) = client.channel();
    let mut socket = Socket::open(&uri).unwrap();
    support::let_pass(Duration::from_secs(1));
    // The life begins anew after this instant, however long the answer takes.
    let renewed = Instant::now();
    assert_eq!(client.subscribe(&id, &[TOPIC]).status, 200);
    socket.hear_end();
    assert!(renewed.elapsed() >= Duration::from_millis(1900), "{:?}", renewed.elapsed());
    assert_eq!(client.call("HEAD", &format!("{CHANNELS}/{id}"), "").status, 404);
    assert_eq!(client.subscribe(&id, &[TOPIC]).status, 404);
}

#[test]
fn a_channel_may_belong_to_its_token() {
    let sim = simulator(|_| {});
    let (first, second) = (Client::logged_in(&sim), Client::logged_in(&sim));
    let (id, _) = first.channel();
    let path = format!("{CHANNELS}/{id}");
    assert_eq!(second.call("HEAD", &path, "").status, 200, "to the client, unless told otherwise");
    sim.faults().set(|knobs| knobs.channels_belong_to_token = true);
    assert_eq!(second.call("HEAD", &path, "").status, 404);
    assert_eq!(first.call("HEAD", &path, "").status, 200);
}

#[test]
fn the_service_says_when_a_token_or_the_subscriptions_are_gone() {
    let (sim, client, _uri, mut socket) = connected();
    sim.faults().announce_no_longer_subscribed();
    assert_eq!(socket.hear_json()["topicName"], "v2.system.no_longer_subscribed");
    sim.issue(Event::numbered("AUDIOHOOK-0001"));
    sim.faults().announce_token_revoked();
    assert_eq!(socket.hear_json()["topicName"], "v2.system.token_revoked", "no event came before it");
    assert_eq!(client.call("GET", CHANNELS, "").status, 401);
}

#[test]
fn an_evicted_channel_tells_its_socket_and_refuses_the_next() {
    let (sim, _client, uri, mut socket) = connected();
    sim.faults().evict_channels();
    assert_eq!(socket.hear_json()["result"], "404");
    socket.hear_end();
    assert_eq!(Socket::open(&uri).err(), Some(404));
}
