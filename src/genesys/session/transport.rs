//! The transports that Genesys Cloud lists for operational events, and whether a socket is among them.

use std::time::{Duration, Instant};

use super::DEFINITIONS_INTERVAL;
use crate::clock::Clock;
use crate::config::Delivery;
use crate::genesys::api::Api;
use crate::genesys::error::ApiError;
use crate::genesys::topics;

pub(super) struct Transport {
    /// Whether a socket may deliver the events, as far as is known.
    pub is_allowed: bool,
    /// The service's names of the transports; empty if it lists none.
    pub names: Vec<String>,
    /// When to ask next; `None` if no socket is used.
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

    /// Fetches the transports; the next fetch is due after `retry` if a socket is not allowed.
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
