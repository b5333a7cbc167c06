//! Detects a dead socket: it is silent and does not answer a ping.

use std::time::{Duration, Instant};

use super::ws::WsConnection;
use crate::message::Closed;

/// Silence after which the reader sends a ping; heartbeats come about every 30 s.
pub const SILENCE_LIMIT: Duration = Duration::from_secs(45);
/// How long the answer to a ping may take.
pub const PONG_LIMIT: Duration = Duration::from_secs(10);

/// The notification service's own ping message, which it answers with a pong.
pub(super) const PING: &str = r#"{"message":"ping"}"#;

/// When something was last received, and when a ping was sent since.
pub(super) struct Liveness {
    heard: Instant,
    pinged: Option<Instant>,
}

impl Liveness {
    pub fn new(now: Instant) -> Self {
        Self { heard: now, pinged: None }
    }

    /// Sends a ping if the peer is silent.
    ///
    /// # Errors
    /// [`Closed::Silent`] if the peer has not answered in time; [`Closed::Broken`] if the ping cannot be sent.
    pub fn check(&mut self, ws: &mut WsConnection, heard: bool, now: Instant) -> Result<(), Closed> {
        if heard {
            *self = Self::new(now);
        }
        match self.pinged {
            Some(pinged) if now.duration_since(pinged) >= PONG_LIMIT => Err(Closed::Silent),
            None if now.duration_since(self.heard) >= SILENCE_LIMIT => {
                self.pinged = Some(now);
                ws.send_text(PING).map_err(Closed::Broken)
            }
            _ => Ok(()),
        }
    }
}
