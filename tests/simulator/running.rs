//! The simulator as a program: its rate, its settings, its end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use audiohook_collector::simulator::{Event, Options, PER_MINUTE_MAX, Pace, Route, Simulator};
use tungstenite::Message;

use crate::support::client::Heard;
use crate::support::{Client, Collector, Folder, SOON, Socket};
use crate::{CHANNELS, QUERY, connected, hour_up_to};

#[test]
fn a_burst_of_200_000_events_arrives_whole_and_in_order() {
    let (sim, _client, _uri, mut socket) = connected();
    let now = sim.now();
    let times: Vec<i64> = (0..200_000).map(|n| now + n / 100).collect();
    let start = Instant::now();
    let first = sim.issue_many(Event::numbered("AUDIOHOOK-0001"), &times, Route::Both);
    for number in first..first + 200_000 {
        match socket.hear(SOON) {
            Heard::Message(Message::Text(text)) => {
                assert!(text.contains(&format!("\"event {number:012}\"")), "{text}");
            }
            other => panic!("{other:?} instead of {number}"),
        }
    }
    eprintln!("200,000 events in {:?}", start.elapsed());
    assert_eq!(sim.view(|view| view.frames_sent()), 200_000);
    assert_eq!(sim.view(|view| view.history_rows()), 200_000);
}

#[test]
fn generated_events_look_like_incidents_and_follow_from_the_seed() {
    let story = |seed| {
        let mut sim = Simulator::start(Options { seed, ..Options::default() }).unwrap();
        sim.generate(Pace { per_minute: 60.0, past: Duration::from_secs(3600) }).unwrap();
        let past = sim.view(|view| view.issued());
        assert!((2500..5000).contains(&past), "about one a second: {past}");
        let limit = Duration::from_secs(5);
        assert!(sim.wait_until(limit, |view| view.issued() > past), "a live event comes soon");
        let issued = sim.issued();
        assert!(issued[past as usize].definition.starts_with("AUDIOHOOK-"), "and it is AudioHook's");
        issued.into_iter().take(500).map(|event| event.key).collect::<Vec<_>>()
    };
    let keys = story(1);
    assert_eq!(keys, story(1));
    assert_ne!(keys, story(2));
    let codes: BTreeSet<&str> = keys.iter().map(|key| key.split('|').next().unwrap()).collect();
    assert!(codes.iter().filter(|code| code.starts_with("AUDIOHOOK-")).count() >= 5, "{codes:?}");
}

#[test]
fn the_highest_rate_is_kept() {
    let mut sim = Simulator::start(Options::default()).unwrap();
    sim.generate(Pace { per_minute: PER_MINUTE_MAX, past: Duration::ZERO }).unwrap();
    let limit = Duration::from_secs(30);
    assert!(sim.wait_until(limit, |view| view.issued() > 0));
    // The machine may be busy: one of three measurements must come out.
    let seconds = [1, 2, 3].map(|_| {
        let (start, from) = (Instant::now(), sim.view(|view| view.issued()));
        assert!(sim.wait_until(limit, |view| view.issued() >= from + 2_000));
        start.elapsed().as_secs_f64()
    });
    assert!(seconds.iter().any(|s| (1.8..2.2).contains(s)), "a thousand a second: {seconds:?}");
}

#[test]
fn the_command_prints_settings_that_work_and_ends_at_a_signal() {
    let folder = Folder::new("simulate");
    let arguments = ["simulate", "--listen", "127.0.0.1:0", "--rate", "60", "--seed", "7"];
    let mut process = Collector::run(folder.path(), &arguments, &BTreeMap::new());
    process.wait_log("Ctrl-C", SOON);
    let lines = process.log_lines();
    let setting = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap();
    assert_eq!(setting("GENESYS_LOGIN_URL"), setting("GENESYS_API_URL"));
    let mut client = Client::at(setting("GENESYS_LOGIN_URL"));
    let (id, secret) = (setting("GENESYS_CLIENT_ID"), setting("GENESYS_CLIENT_SECRET"));
    let login = |secret| client.login(id, secret, "grant_type=client_credentials").unwrap();
    assert_eq!(login("any").status, 401);
    client.token = login(secret).json["access_token"].as_str().unwrap().to_owned();
    let now = audiohook_collector::clock::Clock::system().wall();
    let page = client.history(&format!("{QUERY}?pageSize=200"), &hour_up_to(now)).json;
    assert_eq!(page["entities"].as_array().unwrap().len(), 200, "an hour of history");
    let (channel, uri) = client.channel();
    let mut socket = Socket::open(&uri).unwrap();
    let definitions = client.call("GET", "/api/v2/usage/events/definitions", "").json;
    let topics: Vec<String> = definitions["entities"]
        .as_array()
        .unwrap()
        .iter()
        .map(|definition| format!("v2.operations.events.{}", definition["id"].as_str().unwrap()))
        .collect();
    client.subscribe(&channel, &topics.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(socket.hear_event()["eventBody"]["eventEntity"]["id"].is_string(), "an event comes soon");
    assert_eq!(process.term().code(), Some(0));
}

#[test]
fn stopping_frees_the_port_and_ends_the_sockets() {
    let (sim, client, _uri, mut socket) = connected();
    let address = sim.address();
    drop(sim);
    socket.hear_end();
    assert!(client.try_call("GET", CHANNELS, "").is_err());
    let again = Simulator::start(Options { listen: address.to_string(), ..Options::default() });
    assert!(again.is_ok(), "{:?}", again.err());
}
