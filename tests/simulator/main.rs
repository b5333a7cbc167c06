//! The simulated service itself, through its front door: is it as strict as the public API?

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod channels;
mod history;
mod login;
mod running;
mod socket;
#[path = "../support/mod.rs"]
mod support;

use audiohook_collector::clock::format_millis;
use audiohook_collector::simulator::{Knobs, Options, Simulator};
use serde_json::{Value, json};
use support::{Client, Socket};

const CHANNELS: &str = "/api/v2/notifications/channels";
const QUERY: &str = "/api/v2/usage/events/query";
const TOPIC: &str = "v2.operations.events.AUDIOHOOK-0001";

fn simulator(change: impl FnOnce(&mut Knobs)) -> Simulator {
    let mut options = Options::default();
    change(&mut options.knobs);
    Simulator::start(options).unwrap()
}

/// A service, a client of it, and a socket that is subscribed to [`TOPIC`].
fn connected() -> (Simulator, Client, String, Socket) {
    let sim = simulator(|_| {});
    let client = Client::logged_in(&sim);
    let (id, uri) = client.channel();
    let mut socket = Socket::open(&uri).unwrap();
    assert_eq!(client.subscribe(&id, &[TOPIC]).status, 200);
    assert_eq!(socket.hear_json(), json!({"result": "200", "status": "subscribed"}));
    (sim, client, uri, socket)
}

fn hour_up_to(ms: i64) -> Value {
    json!({"interval": format!("{}/{}", format_millis(ms - 3_600_000), format_millis(ms)), "sortOrder": "ASC"})
}
