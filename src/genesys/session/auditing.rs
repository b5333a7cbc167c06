//! Once an hour: is the hour that has settled complete? What is missing is handed to the writer, and looked for again.
//!
//! Must never: run before the history was read once; take what was there before the very first start for missing.

use std::time::{Duration, Instant};

use super::Session;
use super::reading::State;
use crate::audit::{Audit, Failed, Report, Step, held_since};
use crate::clock::{Millis, format_millis};
use crate::message::FromSession;
use crate::status::Code;

/// What is compared at once, and how often.
const SPAN_MS: Millis = 3_600_000;
const INTERVAL: Duration = Duration::from_secs(3600);
/// How long the writer has for a repair before it is looked at.
const REPAIR_TIME: Duration = Duration::from_secs(5);
/// Repairs of one span before it is said that it cannot be repaired.
const REPAIRS_MAX: u32 = 2;
/// After a request that failed.
const RETRY: Duration = Duration::from_secs(30);

/// What is known of the audits.
#[derive(Default)]
pub(super) struct Auditing {
    running: Option<Audit>,
    at: Option<Instant>,
    repairs: u32,
    /// Where a span begins that could not be repaired: the next audit looks at it again.
    unrepaired: Option<Millis>,
}

impl Session {
    pub(super) fn auditing_due(&self) -> Option<Instant> {
        let reading = &self.reading;
        let can = self.wants_history() && reading.state == State::Works && reading.history.is_idle();
        // What the writer was given and has not written yet is not missing.
        let is_written = reading.given == Some(reading.checkpoint);
        (can && is_written && self.outbox.is_empty()).then(|| self.auditing.at.unwrap_or(self.started))
    }

    /// One step of an audit: a request at most.
    pub(super) fn audit_if_due(&mut self, now: Instant) -> bool {
        if self.auditing_due().is_none_or(|due| now < due) {
            return false;
        }
        let mut audit = match self.auditing.running.take() {
            Some(audit) => audit,
            None => {
                let Some(audit) = self.begin_audit() else {
                    self.auditing.at = Some(now + INTERVAL);
                    return false;
                };
                audit
            }
        };
        let beat = &self.beat;
        match audit.step(&mut self.api, &self.clock, &|| beat.busy()) {
            Ok(Step::Done(report)) => self.take_report(&report),
            Ok(Step::More) => {
                self.auditing.at = Some(now);
                self.auditing.running = Some(audit);
            }
            Ok(Step::Wait(wait)) => {
                self.auditing.at = Some(now + wait);
                self.auditing.running = Some(audit);
                return false;
            }
            Err(failed) => {
                if let Failed::Api(error) = &failed {
                    self.failed(error);
                }
                log::info!("cannot audit the last hour yet: {failed}");
                self.auditing.at = Some(self.clock.now() + RETRY);
            }
        }
        true
    }

    fn begin_audit(&mut self) -> Option<Audit> {
        let to = self.api.service().now() - self.overlap_ms();
        let from = self.auditing.unrepaired.map_or(to - SPAN_MS, |from| from.min(to - SPAN_MS));
        let from = from.max(self.reading.origin).max(held_since(&self.config).unwrap_or(Millis::MIN));
        (from < to).then(|| Audit::new(&self.config, self.plan.ids.clone(), &self.known_definitions(), from, to))
    }

    fn take_report(&mut self, report: &Report) {
        let now = self.clock.now();
        self.auditing.at = Some(now + INTERVAL);
        if report.complete {
            if self.auditing.repairs > 0 {
                log::info!("what was missing between {} and {} is in the file now", report.from, report.to);
            }
            self.auditing.repairs = 0;
            self.auditing.unrepaired = None;
            if !self.reading.has_hole() {
                self.status.clear(Code::Incomplete);
            }
            return;
        }
        let count = report.missing.len();
        if self.auditing.repairs < REPAIRS_MAX {
            self.auditing.repairs += 1;
            self.auditing.at = Some(now + REPAIR_TIME);
            log::warn!(
                "{count} events between {} and {} were missing in the file: appending them",
                report.from,
                report.to
            );
            self.tell(FromSession::Repair(report.repair(self.clock.wall())));
            return;
        }
        self.auditing.repairs = 0;
        self.auditing.unrepaired = crate::clock::parse_instant(&report.from);
        let first =
            report.missing.first().map_or_else(|| format_millis(self.clock.wall()), |entry| entry.timestamp.clone());
        self.status.raise(
            Code::Incomplete,
            format!(
                "{count} events that Genesys has between {} and {} are missing in the file and could not be appended (the first at {first}): stop the collector and run audit --repair, and report it",
                report.from, report.to
            ),
        );
    }
}
