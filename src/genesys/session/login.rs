//! The token: obtained before the first call, and renewed well before its end.

use std::time::{Duration, Instant};

use super::draw;
use crate::genesys::api::Api;
use crate::genesys::backoff::Backoff;
use crate::genesys::error::{ApiError, Kind};
use crate::genesys::service_clock::ServiceClock;

/// A larger difference between this machine's clock and the service's is logged.
const CLOCK_TOLERANCE_MS: i64 = 300_000;

/// When the next login is due.
pub(super) struct Login {
    at: Instant,
    backoff: Backoff,
    /// Whether a new token is wanted, whatever the life of the current one.
    is_wanted: bool,
    clock_warned: bool,
}

impl Login {
    pub fn new(backoff: Backoff, now: Instant) -> Self {
        Self { at: now, backoff, is_wanted: false, clock_warned: false }
    }

    pub fn due(&self, api: &Api) -> Instant {
        let renew_at = api.token().filter(|_| !self.is_wanted).map_or(self.at, |token| token.renew_at());
        renew_at.max(self.at).max(api.refused_until().unwrap_or(self.at))
    }

    /// Makes the login due now, instead of when the token nears its end.
    pub fn renew(&mut self, now: Instant) {
        self.is_wanted = true;
        self.at = now;
    }

    pub fn run(&mut self, api: &mut Api) -> Result<(), ApiError> {
        api.log_in()?;
        self.is_wanted = false;
        self.backoff.reset();
        if let Some(token) = api.token() {
            log::info!("logged in; token valid for {}", span(token.life));
        }
        Ok(())
    }

    /// Handles a failed login; returns the wait until the next try.
    pub fn failed(&mut self, error: &ApiError, now: Instant) -> Duration {
        let wait = match error.kind {
            Kind::Throttled(Some(asked)) | Kind::Unavailable(Some(asked)) => asked,
            _ => self.backoff.next(draw()),
        };
        self.at = now + wait;
        wait
    }

    /// Warns if this machine's clock is wrong, once the service's time is known.
    pub fn compare_clocks(&mut self, service: &ServiceClock) {
        let ahead_ms = service.ahead_ms();
        let is_off = service.is_known() && ahead_ms.abs() > CLOCK_TOLERANCE_MS;
        if is_off && !self.clock_warned {
            let direction = if ahead_ms > 0 { "ahead of" } else { "behind" };
            log::warn!(
                "this machine's clock is {} s {direction} Genesys Cloud's, and receipt times are off by as much. Check its time service.",
                ahead_ms.abs() / 1000
            );
        }
        self.clock_warned = is_off;
    }
}

/// A token's life, for the log.
fn span(life: Duration) -> String {
    match life.as_secs() {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7199 => format!("{} min", (seconds + 30) / 60),
        seconds => format!("{} h", (seconds + 1800) / 3600),
    }
}
