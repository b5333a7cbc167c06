//! Publishes results once the lines are in the file: counts, control frames, quarantined frames, the log.

use std::time::Instant;

use super::{Writer, intake};
use crate::message::SessionEvent;
use crate::status::{Code, Problem};

/// Maximum number of control frames waiting for the session.
const CONTROLS_MAX: usize = 64;

impl Writer {
    /// Publishes the results since the last flush, after their lines are written.
    pub(super) fn publish(&mut self) {
        for (connection, control) in std::mem::take(&mut self.intake.controls) {
            // If the queue is full, the session learns it when the socket closes.
            if self.outbox.len() < CONTROLS_MAX {
                self.send(SessionEvent::Control { connection, control });
            }
        }
        let rejected = std::mem::take(&mut self.intake.quarantine);
        if !rejected.is_empty() {
            self.quarantine(&rejected);
        }
        let tally = std::mem::take(&mut self.intake.tally);
        self.status.counts.add_written(&tally.counted);
        let c = &self.status.counters;
        c.received_websocket.add(tally.received_websocket);
        c.received_history.add(tally.received_history);
        c.written.add(tally.written);
        c.duplicate.add(tally.duplicate);
        c.filtered.add(tally.filtered);
        c.unreadable.add(tally.unreadable);
        if let Some(newest) = tally.newest {
            let gauge = &self.status.gauges.last_event;
            gauge.set(gauge.get().map_or(newest, |last| last.max(newest)));
        }
        if tally.written > 0 {
            self.log_events(tally.written);
        }
    }

    pub(super) fn quarantine(&mut self, rejected: &[intake::Quarantined]) {
        let channel = self.state.channel.as_ref().map_or("", |channel| channel.id.as_str());
        let mut failed = None;
        for one in rejected {
            // A message about a channel may contain its id, which must appear unmasked in the state file only.
            let frame = String::from_utf8_lossy(&one.frame);
            let frame = crate::secret::hide(&frame, channel);
            if let Err(error) = self.unreadable.keep(one.at, &one.reason, frame.as_bytes()) {
                if !std::mem::replace(&mut self.quarantine_failed, true) {
                    log::error!(
                        "cannot quarantine a frame: {error}; further ones are only counted until that is fixed"
                    );
                }
                failed = Some(error);
                break;
            }
            self.quarantine_failed = false;
        }
        self.unreadable_last = Some(self.clock.now());
        let total = self.status.counters.unreadable.get() + rejected.len() as u64;
        let last = rejected.last().map_or("", |one| one.reason.as_str());
        let what = match total {
            1 => format!("1 frame since the start is not a readable event ({last})"),
            _ => format!("{total} frames since the start are not readable events (the last: {last})"),
        };
        let path = self.unreadable.path().display();
        let (kept, cure) = match failed {
            Some(error) => (
                format!("it is only counted, because {path} cannot be written ({error})"),
                format!("Make {path} writable."),
            ),
            None if !self.unreadable.keeps_frames() => (
                format!("only the reason is kept in {path}, because REDACT_FIELDS is set"),
                "Report the reason.".to_owned(),
            ),
            None => {
                (format!("it is kept in {path}"), format!("Check in {path} whether it was an event, and report it."))
            }
        };
        let what = format!("{what}; an event in it is missing unless the history brings it; {kept}");
        self.status.raise(Code::UnreadableFrames, Problem::new(what, cure));
    }

    pub(super) fn log_events(&mut self, written: u64) {
        let now = self.clock.now();
        self.log_suppressed(now);
        self.log_rate.hold_back(written.saturating_sub(self.intake.log_samples.len() as u64));
        for sample in self.intake.log_samples.drain(..) {
            if self.log_rate.allow(now) {
                let (event_name, conversation_id) = (or_null(&sample.event_name), or_null(&sample.conversation_id));
                log::info!(
                    event_id = sample.event_id, event_name = event_name, conversation_id = conversation_id;
                    "AudioHook event processed"
                );
            }
        }
    }

    /// Publishes how far back the index reaches, because the session reads older records from the files, and since when
    /// the files are complete.
    pub(super) fn publish_index(&self) {
        if let Some(at) = self.state.taken_away_ms {
            self.status.gauges.taken_away.set(at);
        }
        self.status.gauges.index_since.set(self.intake.index.complete_since().max(i64::MIN + 1));
    }

    pub(super) fn log_suppressed(&mut self, now: Instant) {
        if let Some(count) = self.log_rate.take_held_back(now) {
            log::info!(count; "{count} more AudioHook events processed");
        }
    }
}

/// The text as logged: null if the event does not have it, as in the record.
fn or_null(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}
