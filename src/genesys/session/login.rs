//! The token: got before the first call, renewed well before its end, without touching the socket.

use std::time::Instant;

use super::{CLOCK_TOLERANCE_MS, Session, draw, in_a_while};
use crate::genesys::error::{ApiError, Kind};
use crate::status::Code;

impl Session {
    /// When the next login is due.
    pub(super) fn login_due(&self) -> Instant {
        let renew_at = self.api.token().map_or(self.started, |token| token.renew_at());
        renew_at.max(self.login_at)
    }

    pub(super) fn log_in_if_due(&mut self, now: Instant) -> bool {
        if now < self.login_due() {
            return false;
        }
        self.update_doing("logging in");
        match self.api.log_in() {
            Ok(()) => {
                self.login_backoff.reset();
                self.login_at = self.clock.now();
                self.logged_in();
                if let Some(token) = self.api.token() {
                    log::info!("logged in; the token lives for {} s", token.life.as_secs());
                }
            }
            Err(error) => self.login_failed(&error),
        }
        true
    }

    fn login_failed(&mut self, error: &ApiError) {
        let now = self.clock.now();
        if error.kind == Kind::Credentials {
            self.login_refused(error);
            return;
        }
        let wait = match error.kind {
            Kind::Throttled(Some(asked)) => asked,
            _ => self.login_backoff.next(draw()),
        };
        self.status.counters.errors.add(1);
        log::warn!("{error}; trying again {}", in_a_while(wait));
        self.last_error(error);
        self.cannot_read(error);
        self.login_at = now + wait;
    }

    /// Only a person can cure it; it is tried again for ever, slowly.
    pub(super) fn login_refused(&mut self, error: &ApiError) {
        let first = !self.status.is_raised(Code::CredentialsRefused);
        if first {
            self.status.counters.errors.add(1);
        }
        let fate = self.fate();
        let meanwhile = if self.socket.current.is_some() {
            format!("the open socket goes on, and what it misses is {fate}")
        } else {
            format!("no event is collected: events are {fate}")
        };
        self.status.raise(Code::CredentialsRefused, format!("{error}; {meanwhile}"));
        self.last_error(error);
        self.cannot_read(error);
        self.login_at = self.login_at.max(self.api.refused_until().unwrap_or(self.login_at));
    }

    /// After each login that worked.
    pub(super) fn logged_in(&mut self) {
        let service = self.api.service();
        let ahead_ms = service.ahead_ms();
        let is_off = service.is_known() && ahead_ms.abs() > CLOCK_TOLERANCE_MS;
        if is_off && !self.clock_told {
            let way = if ahead_ms > 0 { "ahead of" } else { "behind" };
            log::warn!(
                "this machine's clock is {} s {way} Genesys Cloud's: receipt times are off by as much; check its time service",
                ahead_ms.abs() / 1000
            );
        }
        self.clock_told = is_off;
    }
}
