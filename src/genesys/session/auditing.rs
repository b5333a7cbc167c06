//! Once an hour: is the hour that has settled complete? What is missing is handed to the writer, and looked for again.
//!
//! Must never: run before the history was read once; take what was there before the very first start for missing.

use std::time::{Duration, Instant};

use super::Session;
use super::reading::State;
use crate::audit::{Audit, Failed, LINES_MAX, Report, Step};
use crate::clock::{Millis, format_millis};
use crate::message::{FromSession, Page};
use crate::records::Held;
use crate::status::Code;

/// What is compared at once, and how often.
const SPAN_MS: Millis = 3_600_000;
const INTERVAL: Duration = Duration::from_secs(3600);
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
    /// Rows were given to the writer, which has not said yet that they are written.
    is_repairing: bool,
    /// Where a span begins that could not be repaired: the next audit looks at it again.
    unrepaired: Option<Millis>,
}

impl Session {
    pub(super) fn auditing_due(&self) -> Option<Instant> {
        let reading = &self.reading;
        let can = self.wants_history() && reading.state == State::Works && reading.history.is_idle();
        // What the writer was given and has not written yet is not missing.
        let is_written = reading.given == Some(reading.checkpoint);
        let is_written = is_written && !self.auditing.is_repairing;
        (can && is_written && self.outbox.is_empty()).then(|| self.auditing.at.unwrap_or(self.started))
    }

    /// The writer has written all that it was given.
    pub(super) fn repair_is_written(&mut self) {
        self.auditing.is_repairing = false;
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
            Ok(Step::Missing(rows)) => {
                self.auditing.at = Some(now);
                self.auditing.running = Some(audit);
                self.repair(rows);
            }
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
        let (from, to) = Held::of(&self.config.output).cut(from.max(self.reading.origin), to)?;
        let known = self.known_definitions();
        Some(
            Audit::new(&self.config, self.reading.history.beside(), self.plan.ids.clone(), &known, (from, to))
                .within(LINES_MAX),
        )
    }

    /// Has missing rows appended; the audit goes on when the writer has said that they are.
    fn repair(&mut self, rows: Page) {
        if self.auditing.repairs >= REPAIRS_MAX {
            return;
        }
        log::warn!("{} events were missing in the file: appending them", rows.rows.len());
        self.auditing.is_repairing = true;
        self.tell(FromSession::Repair(rows));
        self.tell(FromSession::ReadUpTo(self.reading.checkpoint));
    }

    fn take_report(&mut self, report: &Report) {
        let now = self.clock.now();
        self.auditing.at = Some(now + INTERVAL);
        if report.begins_later {
            log::info!(
                "the files hold more than {LINES_MAX} records of an hour: only those since {} were audited; the command `audit` looks at all",
                report.from
            );
        }
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
        let count = report.missing_count;
        if self.auditing.repairs < REPAIRS_MAX {
            self.auditing.repairs += 1;
            self.auditing.at = Some(now);
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
