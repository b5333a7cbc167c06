//! Tests a channel's socket: opens it, sends a ping, and closes it.
//!
//! Must never: be used with a channel that a collector uses, as a channel's new socket disconnects the old one.

use std::time::{Duration, Instant};

use super::liveness::{PING, PONG_LIMIT};
use super::ws::{Incoming, WsConnection};
use crate::clock::Clock;
use crate::message::Closed;
use crate::net::Dialer;
use crate::secret::Secret;

/// Opens the socket at this address, sends a ping and waits for the pong. Returns the time from ping to pong. `limit`
/// applies to connecting and to the handshake, each.
///
/// # Errors
/// Why the socket could not be opened or was closed; [`Closed::Silent`] if no pong came.
pub fn ping(uri: &Secret, dialer: &Dialer, limit: Duration) -> Result<Duration, Closed> {
    let mut ws = WsConnection::open(uri, dialer, limit, Clock::system().wall(), |_| ())?;
    ws.send_text(PING).map_err(Closed::Broken)?;
    let sent = Instant::now();
    let heard = wait_for_pong(&mut ws, sent + PONG_LIMIT);
    ws.send_close(1000);
    heard.map(|()| sent.elapsed())
}

fn wait_for_pong(ws: &mut WsConnection, deadline: Instant) -> Result<(), Closed> {
    while Instant::now() < deadline {
        match ws.read() {
            Ok(Incoming::Text(text)) if is_pong(&text) => return Ok(()),
            Ok(Incoming::Close { code, reason }) => return Err(Closed::ByServer { code, reason }),
            Ok(_) => {}
            Err(error) => return Err(Closed::Broken(error)),
        }
    }
    Err(Closed::Silent)
}

/// `{"topicName":"channel.metadata","eventBody":{"message":"pong"}}`
fn is_pong(text: &str) -> bool {
    let frame: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    frame["topicName"] == "channel.metadata" && frame["eventBody"]["message"] == "pong"
}
