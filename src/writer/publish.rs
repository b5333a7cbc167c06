//! What the others are told once the lines are in the file: counts, control frames, frames kept aside, the log.

use std::time::Instant;

use super::{Writer, intake};
use crate::message::News;
use crate::status::Code;

impl Writer {
    /// Tells the others what was met, once it is in the file.
    pub(super) fn publish(&mut self) {
        for (connection, control) in self.intake.controls.drain(..) {
            // The session may be busy: then it learns from the socket's end.
            let _ = self.news.try_send(News::Control { connection, control });
        }
        let asides = std::mem::take(&mut self.intake.asides);
        if !asides.is_empty() {
            self.keep_aside(&asides);
        }
        let tally = std::mem::take(&mut self.intake.tally);
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

    pub(super) fn keep_aside(&mut self, asides: &[intake::Aside]) {
        let channel = self.state.channel.as_ref().map_or("", |channel| channel.id.as_str());
        let mut failed = None;
        for aside in asides {
            // What the service says about a channel may name it, and the state file alone holds what a mask hides.
            let frame = String::from_utf8_lossy(&aside.frame);
            let frame = crate::secret::hide(&frame, channel);
            if let Err(error) = self.unreadable.keep(aside.at, &aside.reason, frame.as_bytes()) {
                if !std::mem::replace(&mut self.aside_failed, true) {
                    log::error!(
                        "cannot keep a frame aside: {error}; those that follow are counted alone until that is mended"
                    );
                }
                failed = Some(error);
                break;
            }
            self.aside_failed = false;
        }
        self.unreadable_last = Some(self.clock.now());
        let total = self.status.counters.unreadable.get() + asides.len() as u64;
        let last = asides.last().map_or("", |aside| aside.reason.as_str());
        let what = match total {
            1 => format!("one frame since the start was no event ({last})"),
            _ => format!("{total} frames since the start were no events (the last: {last})"),
        };
        let path = self.unreadable.path().display();
        let kept = match failed {
            Some(error) => format!("only counted, for {path} cannot be written ({error}): mend that"),
            None if !self.unreadable.keeps_frames() => {
                format!("only the reason is kept in {path}, as REDACT_FIELDS is set: report it")
            }
            None => format!("kept in {path}: look whether an event is there, and report it"),
        };
        let means = "what was an event is missing unless the history brings it";
        self.status.raise(Code::UnreadableFrames, format!("{what}; {means}; {kept}"));
    }

    pub(super) fn log_events(&mut self, written: u64) {
        let now = self.clock.now();
        self.say_held_back(now);
        self.log_rate.hold_back(written.saturating_sub(self.intake.mentions.len() as u64));
        for mention in self.intake.mentions.drain(..) {
            if self.log_rate.allow(now) {
                let (event_name, conversation_id) = (or_null(&mention.event_name), or_null(&mention.conversation_id));
                log::info!(
                    event_id = mention.event_id, event_name = event_name, conversation_id = conversation_id;
                    "AudioHook event processed"
                );
            }
        }
    }

    /// What is remembered has bounds: beyond them the file is looked at, or a double may follow.
    pub(super) fn say_forgotten(&mut self) {
        let forgotten = self.intake.window.forgotten();
        let count = forgotten - std::mem::replace(&mut self.forgotten_told, forgotten);
        if count > 0 {
            log::warn!(
                count;
                "{count} events of late are more than can be remembered: what the history brings again of them is looked for in the file, what the socket brings again is written twice; an audit lists what is extra"
            );
        }
    }

    pub(super) fn say_held_back(&mut self, now: Instant) {
        if let Some(count) = self.log_rate.take_held_back(now) {
            log::info!(count; "{count} more AudioHook events processed");
        }
    }
}

/// What the log shows of a text: one that an event does not have is null there, as in the record.
fn or_null(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}
