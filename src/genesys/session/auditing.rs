//! Checks once an hour whether the last settled hour is complete, by comparing the counts of Genesys Cloud and of the
//! files. If they differ, or only the rows can show it, that hour is read again and judged with the files' records.
//!
//! Must never: run before the history was read once; report events from before the very first start as missing.

use std::time::{Duration, Instant};

use super::Session;
use super::reading::State;
use crate::audit::files::{self, Counts};
use crate::clock::{Millis, format_millis};
use crate::dedup::rows::Span;
use crate::genesys::error::ApiError;
use crate::genesys::history::{REACH_MS, Read};
use crate::message::Purpose;
use crate::output::records::Held;
use crate::status::{Code, Problem};

/// Length of the compared span, and the interval between audits.
const SPAN_MS: Millis = 3_600_000;
const INTERVAL: Duration = Duration::from_secs(3600);
/// Repairs of one span before it is reported as impossible to repair.
const REPAIRS_MAX: u32 = 2;
/// Wait after a failed request.
const RETRY: Duration = Duration::from_secs(30);

/// State of the audits.
#[derive(Default)]
pub(super) struct Auditing {
    at: Option<Instant>,
    /// The span being audited or repaired.
    span: Option<(Millis, Millis)>,
    repairs: u32,
}

impl Session {
    pub(super) fn auditing_due(&self) -> Option<Instant> {
        let reading = &self.reading;
        let can = self.wants_history() && reading.state == State::Works && reading.is_idle() && reading.has_caught_up;
        (can && self.outbox.is_empty()).then(|| self.auditing.at.unwrap_or(self.started))
    }

    /// Compares the counts of an hour: one request.
    pub(super) fn audit_if_due(&mut self, now: Instant) -> bool {
        if self.auditing_due().is_none_or(|due| now < due) {
            return false;
        }
        // A span that failed for so long that the service no longer keeps it is not compared again.
        let oldest = self.api.service().now() - REACH_MS;
        let span = self.auditing.span.filter(|(from, _)| *from > oldest);
        let Some((from, to)) = span.or_else(|| self.settled_hour()) else {
            self.auditing.at = Some(now + INTERVAL);
            return false;
        };
        if let Some(wait) = self.reading.history.ask_other(now) {
            self.auditing.at = Some(now + wait);
            return false;
        }
        self.auditing.span = Some((from, to));
        let ids = self.covered();
        match self.compare_counts(&ids, from, to) {
            Ok(Some(true)) => self.hour_is_complete(),
            Ok(None) => self.auditing.at = Some(self.clock.now() + RETRY),
            Ok(Some(false)) => {
                // Rows without a time of their own may have been received at any time since.
                let until = self.with_context(to).max(self.reading.checkpoint);
                self.begin(Read { ids, span: Span { from, to }, until, purpose: Purpose::Repair }, now);
            }
            Err(error) => {
                self.failed(&error);
                log::info!("cannot audit the last hour yet: {}", error.problem().what);
                self.auditing.at = Some(self.clock.now() + RETRY);
            }
        }
        true
    }

    fn settled_hour(&self) -> Option<(Millis, Millis)> {
        let to = self.api.service().now() - self.overlap_ms();
        Held::of(&self.config.output, self.status.gauges.taken_away.get())
            .cut((to - SPAN_MS).max(self.reading.origin), to)
    }

    /// Whether the counts prove that nothing is missing; `None` if the files cannot be read.
    fn compare_counts(&mut self, ids: &[String], from: Millis, to: Millis) -> Result<Option<bool>, ApiError> {
        let counts = self.api.aggregates(from, to)?;
        match files::count_between(&self.config, ids, from, to, &|| self.beat.busy()) {
            Ok(Counts { by_definition, needs_rows }) => {
                let are_equal = ids.iter().zip(by_definition).all(|(id, n)| counts.get(id).copied().unwrap_or(0) == n);
                Ok(Some(are_equal && !needs_rows))
            }
            Err(error) => {
                log::warn!("cannot read the output files for an audit: {error}");
                Ok(None)
            }
        }
    }

    /// The rows of the span could not be judged: audits it again at this time.
    pub(super) fn audit_again_at(&mut self, at: Instant) {
        self.auditing.at = Some(at);
    }

    /// The writer has appended what was missing.
    pub(super) fn repair_done(&mut self, appended: u64) {
        if appended == 0 {
            self.hour_is_complete();
            return;
        }
        self.auditing.repairs += 1;
        let (from, to) = self.auditing.span.unwrap_or_default();
        let (from, to) = (format_millis(from), format_millis(to));
        log::warn!("{appended} events between {from} and {to} were missing in the file and were appended");
        self.auditing.at = Some(self.clock.now());
        if self.auditing.repairs > REPAIRS_MAX {
            self.status.raise(
                Code::Incomplete,
                Problem::new(
                    format!("events between {from} and {to} are missing in the file again after they were appended"),
                    "Stop the collector, run `audiohook-collector audit --repair`, and report it.",
                ),
            );
            (self.auditing.span, self.auditing.repairs) = (None, 0);
            self.auditing.at = Some(self.clock.now() + INTERVAL);
        }
    }

    fn hour_is_complete(&mut self) {
        if self.auditing.repairs > 0 {
            log::info!("what was missing is in the file now");
        }
        if !self.reading.has_gap() {
            self.status.clear(Code::Incomplete);
        }
        (self.auditing.span, self.auditing.repairs) = (None, 0);
        self.auditing.at = Some(self.clock.now() + INTERVAL);
    }
}
