//! A trial of a channel's socket: opened, asked for a pong, closed.
//!
//! For whoever wants to know whether it would work. Must never: be pointed at a channel that somebody collects from; one
//! socket of a channel puts the other out.

use std::time::{Duration, Instant};

use super::handshake::{Failed, shake_hands};
use super::link::{Incoming, Link};
use super::{HANDSHAKE_LIMIT, PING, PONG_LIMIT, path};
use crate::message::Closed;
use crate::net::{Dialer, Target};
use crate::secret::Secret;

/// Opens the socket at this address, sends a ping, and waits for the pong; gives how long that took after the ping.
/// `limit` is for connecting and the handshake, each.
///
/// # Errors
/// Why it could not be opened, or was closed; [`Closed::Silent`] when no pong came.
pub fn ping(uri: &Secret, dialer: &Dialer, limit: Duration) -> Result<Duration, Closed> {
    let unreachable = |error: String| Closed::Unreachable(error);
    let uri = uri.expose();
    let target = Target::parse(uri).map_err(|error| unreachable(error.to_string()))?;
    let mut stream = dialer.dial(&target, limit).map_err(|error| unreachable(error.to_string()))?;
    stream.socket_mut().set_deadline(Instant::now() + HANDSHAKE_LIMIT.min(limit));
    let rest = shake_hands(&mut stream, &target, path(uri)).map_err(|failed| match failed {
        Failed::Refused(status) => Closed::Refused(status),
        Failed::Broken(text) => unreachable(format!("{text} (host {})", target.host)),
    })?;
    let mut link = Link::new(stream, rest).map_err(|error| unreachable(error.to_string()))?;
    link.send_text(PING).map_err(Closed::Broken)?;
    let sent = Instant::now();
    let heard = wait_for_pong(&mut link, sent + PONG_LIMIT);
    link.send_close(1000);
    if let Some(socket) = link.socket_mut() {
        socket.shutdown();
    }
    heard.map(|()| sent.elapsed())
}

fn wait_for_pong(link: &mut Link, deadline: Instant) -> Result<(), Closed> {
    while Instant::now() < deadline {
        match link.read() {
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
