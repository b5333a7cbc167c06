//! What comes on the socket, and how it ends.

use std::time::Duration;

use audiohook_collector::simulator::{Event, Route, frame};
use serde_json::json;
use tungstenite::Message;

use crate::support::client::Heard;
use crate::support::{SOON, Socket};
use crate::{TOPIC, connected};

#[test]
fn an_event_comes_on_the_socket_that_is_open_and_on_no_later_one() {
    let (sim, _client, uri, mut socket) = connected();
    let issued = sim.issue(Event::numbered("AUDIOHOOK-0001"));
    let frame = socket.hear_event();
    assert_eq!(frame["topicName"], TOPIC);
    assert_eq!(frame["version"], "2");
    assert_eq!(frame["eventBody"]["timestamp"], issued.time_ms);
    sim.issue(Event::numbered("AUDIOHOOK-0002"));
    assert_eq!(socket.hear(Duration::from_millis(100)), Heard::Nothing, "it is not subscribed to that");
    sim.faults().cut_sockets();
    socket.hear_end();
    assert!(sim.wait_until(SOON, |view| view.sockets_open() == 0));
    sim.issue(Event::numbered("AUDIOHOOK-0001"));
    let mut socket = Socket::open(&uri).unwrap();
    assert_eq!(socket.hear(Duration::from_millis(100)), Heard::Nothing, "nothing is queued");
    let issued = sim.issue(Event::numbered("AUDIOHOOK-0001"));
    assert_eq!(socket.hear_event()["eventBody"]["timestamp"], issued.time_ms, "subscriptions stay with the channel");
}

#[test]
fn an_event_may_come_late_or_twice_on_the_socket() {
    let (sim, _client, _uri, mut socket) = connected();
    let late = sim.issue_by(Event::numbered("AUDIOHOOK-0001"), Route::HistoryOnly);
    sim.faults().set(|knobs| knobs.socket_to_drop = 1);
    sim.issue(Event::numbered("AUDIOHOOK-0001"));
    sim.faults().set(|knobs| knobs.socket_to_double = 1);
    let twice = sim.issue(Event::numbered("AUDIOHOOK-0001"));
    sim.send_again([late.number, late.number]);
    let mut value = || socket.hear_event()["eventBody"]["currentValue"].as_str().unwrap().to_owned();
    for issued in [&twice, &twice, &late, &late] {
        assert_eq!(value(), format!("event {:012}", issued.number));
    }
    assert_eq!(sim.issued().len(), 3);
}

#[test]
fn a_second_socket_on_a_channel_ends_the_first() {
    let (sim, _client, uri, mut first) = connected();
    let mut second = Socket::open(&uri).unwrap();
    first.hear_end();
    sim.issue(Event::numbered("AUDIOHOOK-0001"));
    second.hear_event();
    sim.faults().take_over_channels();
    second.hear_end();
}

#[test]
fn heartbeats_come_and_pings_are_answered() {
    let (sim, _client, uri, mut socket) = connected();
    socket.send(Message::text("{\"message\": \"ping\"}"));
    let pong = json!({"topicName": "channel.metadata", "eventBody": {"message": "pong"}});
    assert_eq!(socket.hear_json(), pong);
    socket.send(Message::Ping("x".into()));
    assert_eq!(socket.hear(SOON), Heard::Message(Message::Pong("x".into())));
    assert_eq!(sim.view(|view| view.pings()), 2);
    sim.faults().set(|knobs| knobs.heartbeat = Duration::from_millis(50));
    let mut socket = Socket::open(&uri).unwrap();
    for _ in 0..3 {
        assert_eq!(socket.hear_json()["eventBody"]["message"], "WebSocket Heartbeat");
    }
    sim.faults().half_open_sockets();
    socket.send(Message::text("{\"message\": \"ping\"}"));
    while socket.hear(Duration::from_millis(300)) != Heard::Nothing {}
    sim.faults().thaw_sockets();
    assert!(socket.hear_json()["eventBody"]["message"].is_string());
}

#[test]
fn frames_of_any_kind_can_be_sent() {
    let (sim, _client, _uri, mut socket) = connected();
    let faults = sim.faults();
    faults.send_in_pieces(&frame::in_frames_of(b"{\"a\":1}", 2), 1, Duration::from_millis(1));
    assert_eq!(socket.hear_json(), json!({"a": 1}));
    faults.send_bytes(&frame::encode(frame::BINARY, true, &[0xff, 0]));
    assert_eq!(socket.hear(SOON), Heard::Message(Message::Binary(vec![0xff, 0].into())));
    faults.announce_closing();
    assert_eq!(socket.hear_json()["topicName"], "v2.system.socket_closing");
    faults.stall_sockets_in("{\"b\":2}");
    assert_eq!(socket.hear(Duration::from_millis(200)), Heard::Nothing);
    faults.thaw_sockets();
    assert_eq!(socket.hear_json(), json!({"b": 2}));
    faults.close_sockets(1001, "idle timeout");
    match socket.hear(SOON) {
        Heard::Message(Message::Close(Some(close))) => assert_eq!(u16::from(close.code), 1001),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_client_that_does_not_read_can_be_cut_and_reset() {
    let (sim, _client, uri, socket) = connected();
    let big = Event {
        extra: vec![("more".to_owned(), format!("\"{}\"", "x".repeat(2000)))],
        ..Event::numbered("AUDIOHOOK-0001")
    };
    let times: Vec<i64> = (0..20_000).map(|n| sim.now() + n).collect();
    sim.issue_many(big.clone(), &times, Route::SocketOnly);
    assert!(sim.wait_until(SOON, |view| view.frames_sent() > 0));
    sim.faults().cut_sockets();
    assert!(sim.wait_until(SOON, |view| view.sockets_open() == 0), "the writer does not wait for the client");
    assert!(sim.view(|view| view.frames_sent()) < 20_000, "the rest is lost with the connection");
    drop(socket);
    let mut socket = Socket::open(&uri).unwrap();
    sim.issue_many(big, &times, Route::SocketOnly);
    sim.faults().reset_sockets();
    socket.hear_end();
}
