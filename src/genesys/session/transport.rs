//! How Genesys Cloud says that it delivers operational events, and whether a socket is among the ways.

use std::time::{Duration, Instant};

use super::DEFINITIONS_INTERVAL;
use crate::clock::Clock;
use crate::config::Delivery;
use crate::genesys::api::Api;
use crate::genesys::error::ApiError;
use crate::genesys::topics;

pub(super) struct Transport {
    /// Whether a socket may deliver them, as far as is known.
    pub is_allowed: bool,
    /// As the service names them; empty where it does not say.
    pub names: Vec<String>,
    /// When to ask next; never where no socket is used.
    at: Option<Instant>,
}

impl Transport {
    pub fn new(delivery: Delivery, now: Instant) -> Self {
        let at = (delivery != Delivery::History).then_some(now);
        Self { is_allowed: true, names: Vec::new(), at }
    }

    pub fn due(&self) -> Option<Instant> {
        self.at
    }

    /// Asks again after `retry` where a socket is not allowed.
    pub fn run(&mut self, api: &mut Api, clock: &Clock, retry: Duration) -> Result<(), ApiError> {
        match api.transports()? {
            Some(found) => {
                let is_allowed = topics::allow_socket(&found);
                if found != self.names {
                    let verdict = if is_allowed { "allowed" } else { "not allowed" };
                    log::info!("WebSocket delivery is {verdict} (transports: {})", found.join(", "));
                }
                self.is_allowed = is_allowed;
                self.names = found;
            }
            None => log::info!("Genesys Cloud does not say whether WebSocket delivery is allowed: trying it"),
        }
        let wait = if self.is_allowed { DEFINITIONS_INTERVAL } else { retry };
        self.retry_at(clock.now() + wait);
        Ok(())
    }

    pub fn retry_at(&mut self, at: Instant) {
        self.at = Some(at);
    }
}
