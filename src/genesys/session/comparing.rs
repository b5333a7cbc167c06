//! Rows that the window has forgotten too much to judge: do they stand in the file? Looked for before the checkpoint moves.
//!
//! It happens where more has come since they happened than the window remembers: a flood, and then a read of the history
//! that goes back behind it. The audit does it, by counts where they are equal: one that is late in them, or in the
//! history, is met by the reads that follow, as long as the overlap covers it. Must never: let the history be read on
//! before they were looked for.

use std::time::{Duration, Instant};

use super::Session;
use crate::audit::{Audit, Failed, Report, Step};
use crate::clock::{Millis, format_millis};
use crate::message::{FromSession, Page};

/// What the writer has not answered after this it is asked again: its news find no room where too much of them waits.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// After files that cannot be read.
const RETRY: Duration = Duration::from_secs(5);

/// How far it has come.
#[derive(Default)]
pub(super) enum Comparing {
    #[default]
    Nothing,
    /// There are such rows. The writer tells of all of them at the end of the read; if it does not, it is asked.
    Unsure { ask_at: Instant },
    /// The writer was asked whether all that it was given is in the file.
    Asked { again_at: Instant, running: Option<Box<Running>> },
    /// They are looked for; the next step is due.
    Running { at: Instant, running: Box<Running> },
}

pub(super) struct Running {
    audit: Audit,
    from: Millis,
    to: Millis,
}

impl Session {
    /// Whether there are rows of which it is not known whether they are in the file.
    pub(super) fn is_unsure(&self) -> bool {
        !matches!(self.comparing, Comparing::Nothing)
    }

    /// Everything that the writer was given is judged.
    pub(super) fn nothing_is_unsure(&mut self) {
        self.comparing = Comparing::Nothing;
    }

    /// The writer could not judge all of what it was given up to `up_to`.
    pub(super) fn hear_unsure(&mut self, from: Millis, to: Millis, up_to: Millis) {
        let now = self.clock.now();
        let is_all = self.reading.given == Some(up_to) && self.reading.history.is_idle() && self.outbox.is_empty();
        let running = match std::mem::take(&mut self.comparing) {
            running @ Comparing::Running { .. } => {
                self.comparing = running;
                return;
            }
            Comparing::Asked { running, .. } => running,
            Comparing::Nothing | Comparing::Unsure { .. } => None,
        };
        self.comparing = if is_all {
            let running = running.unwrap_or_else(|| Box::new(self.begin_comparing(from, to)));
            Comparing::Running { at: now, running }
        } else if running.is_some() {
            Comparing::Asked { again_at: now + ASK_AGAIN, running }
        } else {
            Comparing::Unsure { ask_at: now + ASK_AGAIN }
        };
    }

    fn begin_comparing(&self, from: Millis, to: Millis) -> Running {
        log::debug!(
            "the history tells of events between {} and {}, and since then more came than can be remembered: looking for them in the file",
            format_millis(from),
            format_millis(to)
        );
        // What the window did judge beside them could have taken a record that is theirs.
        let span = (from, to + 1 + 2 * crate::window::TOLERANCE_MS);
        let (history, known) = (self.reading.history.beside(), self.known_definitions());
        let audit = Audit::new(&self.config, history, self.plan.ids.clone(), &known, span).of_all();
        Running { audit, from, to }
    }

    pub(super) fn comparing_due(&self) -> Option<Instant> {
        if !self.reading.history.is_idle() || !self.outbox.is_empty() {
            return None;
        }
        match &self.comparing {
            Comparing::Nothing => None,
            Comparing::Unsure { ask_at: at } | Comparing::Asked { again_at: at, .. } => Some(*at),
            Comparing::Running { at, .. } => Some(*at),
        }
    }

    /// One step: a request at most.
    pub(super) fn compare_if_due(&mut self, now: Instant) -> bool {
        if self.comparing_due().is_none_or(|due| now < due) {
            return false;
        }
        match std::mem::take(&mut self.comparing) {
            Comparing::Nothing => return false,
            Comparing::Unsure { .. } => self.ask_writer(None),
            Comparing::Asked { running, .. } => self.ask_writer(running),
            Comparing::Running { running, .. } => return self.compare(running, now),
        }
        true
    }

    fn ask_writer(&mut self, running: Option<Box<Running>>) {
        self.comparing = Comparing::Asked { again_at: self.clock.now() + ASK_AGAIN, running };
        let given = self.reading.given.unwrap_or(self.reading.checkpoint);
        self.tell(FromSession::ReadUpTo(given));
    }

    fn compare(&mut self, mut running: Box<Running>, now: Instant) -> bool {
        let beat = &self.beat;
        let stepped = running.audit.step(&mut self.api, &self.clock, &|| beat.busy());
        let (mut at, mut worked) = (self.clock.now(), true);
        match stepped {
            Ok(Step::Done(report)) => {
                self.read_worked();
                self.end_comparing(&running, &report);
                return true;
            }
            Ok(Step::Missing(page)) => {
                self.read_worked();
                self.give_missing(page, running);
                return true;
            }
            Ok(Step::More) => self.read_worked(),
            Ok(Step::Wait(wait)) => (at, worked) = (now + wait, false),
            Err(Failed::Api(error)) => {
                self.read_failed(&error.with_correlation(self.api.correlation()));
                at = self.reading.may_try_again_at();
            }
            Err(failed @ Failed::Files(_)) => {
                log::warn!("{failed}: what the history tells again cannot be compared with them; it is tried again");
                at += RETRY;
            }
        }
        self.comparing = Comparing::Running { at, running };
        worked
    }

    /// Has them appended; it goes on when the writer has said that they are.
    fn give_missing(&mut self, page: Page, running: Box<Running>) {
        self.tell(FromSession::Missing(page));
        self.ask_writer(Some(running));
    }

    fn end_comparing(&mut self, running: &Running, report: &Report) {
        let level = if report.missing_count > 0 { log::Level::Info } else { log::Level::Debug };
        log::log!(
            level,
            "looked for all events between {} and {} in the file: {} were not there and are appended",
            format_millis(running.from),
            format_millis(running.to),
            report.missing_count
        );
        self.tell(FromSession::Compared(running.from, running.to));
        self.ask_writer(None);
    }
}
