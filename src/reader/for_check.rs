//! Tries a channel's socket: opens it, asks for a pong, and closes it.
//!
//! Must never: be pointed at a channel that somebody collects from; one socket of a channel puts the other out.

use std::time::{Duration, Instant};

use super::liveness::{PING, PONG_LIMIT};
use super::ws::{Incoming, WsConnection};
use crate::clock::Clock;
use crate::message::Closed;
use crate::net::Dialer;
use crate::secret::Secret;

/// Opens the socket at this address, sends a ping, and waits for the pong; gives how long that took after the ping.
/// `limit` is for connecting and the handshake, each.
///
/// # Errors
/// Why it could not be opened, or was closed; [`Closed::Silent`] when no pong came.
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
