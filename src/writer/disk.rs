//! The disk: lines into the file, the file's rotation, the checkpoint over what is synced, the state.
//!
//! Must never: throw away what was accepted, or move the checkpoint over what is not durable. While the disk refuses, it
//! is tried again and again, and nothing else is taken.

use std::io::ErrorKind;
use std::ops::Range;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, never};

use super::{STOP_MAX, Writer, state};
use crate::clock::Millis;
use crate::elastic::Sink;
use crate::message::News;
use crate::output::{Change, Stopped, backups};
use crate::status::{Code, RECENT_MAX};
use crate::window::RECEIPT_DELAY_MS;

/// How long after a refusal the disk is tried again.
const DISK_RETRY: Duration = Duration::from_millis(500);

impl Writer {
    /// Writes what was taken. While the disk refuses, it is tried again and again, and nothing else is taken.
    pub(super) fn flush(&mut self, stop: &Receiver<()>) -> Result<(), String> {
        let mut gives_up: Option<Instant> = None;
        while !self.intake.lines.is_empty() {
            let Some(error) = self.append() else { break };
            self.wait_for_disk("write", &error, stop, &mut gives_up)?;
        }
        if self.intake.tally.written > 0 {
            self.file_takes();
        }
        self.publish();
        Ok(())
    }

    /// Says that the disk refuses, and waits until it is to be tried again; an error once a stop can wait no longer.
    fn wait_for_disk(
        &mut self,
        verb: &str,
        error: &std::io::Error,
        stop: &Receiver<()>,
        gives_up: &mut Option<Instant>,
    ) -> Result<(), String> {
        let what = format!("cannot {verb} {}: {error}", self.output.path().display());
        self.file_refuses = true;
        self.status.counters.errors.add(1);
        self.status.raise(
            Code::DiskWriteFailed,
            format!(
                "{what}; events wait in memory, then in Genesys's history for ten days: free or mend the disk, and it goes on by itself"
            ),
        );
        self.beat.waiting();
        let stopping = match gives_up {
            None => matches!(stop.recv_timeout(DISK_RETRY), Err(RecvTimeoutError::Disconnected) | Ok(())),
            Some(_) => {
                let _ = never::<()>().recv_timeout(DISK_RETRY);
                true
            }
        };
        self.beat.busy();
        if stopping && self.clock.now() > *gives_up.get_or_insert(self.clock.now() + STOP_MAX) {
            return Err(format!("{what}; what waited in memory comes again from the history"));
        }
        Ok(())
    }

    /// Appends the gathered lines, rotating where need be; the lines that did not go stay.
    pub(super) fn append(&mut self) -> Option<std::io::Error> {
        let (mut done, mut lines_done) = (0, 0);
        let error = loop {
            let appended = self.output.append(&self.intake.lines[done..]);
            let from = done;
            done += appended.bytes;
            let lines = self.intake.ends[lines_done..].iter().take_while(|end| **end <= done).count();
            self.tell_recent(from, lines_done..lines_done + lines);
            lines_done += lines;
            if let Some(sink) = &mut self.sink {
                sink.appended(self.output.len(), lines as u64);
            }
            match appended.stopped {
                None => break None,
                Some(Stopped::Full) => self.rotate(),
                Some(Stopped::Error(error)) => break Some(error),
            }
        };
        if done == self.intake.lines.len() {
            self.intake.lines.clear();
            self.intake.ends.clear();
        } else {
            self.intake.lines.drain(..done);
            self.intake.ends.drain(..lines_done);
            self.intake.ends.iter_mut().for_each(|end| *end -= done);
        }
        error
    }

    /// Publishes the newest of the lines that went; the first of them begins at `from`.
    pub(super) fn tell_recent(&self, from: usize, lines: Range<usize>) {
        let first = lines.start.max(lines.end.saturating_sub(RECENT_MAX));
        let start = |line: usize| if line == lines.start { from } else { self.intake.ends[line - 1] };
        let wall = self.clock.wall();
        for line in lines.clone() {
            self.status.counts.add_line(&self.intake.lines[start(line)..self.intake.ends[line] - 1], wall);
        }
        self.status
            .recent
            .extend((first..lines.end).map(|line| &self.intake.lines[start(line)..self.intake.ends[line] - 1]));
    }

    pub(super) fn rotate(&mut self) {
        let keep = self.sink.as_ref().map(Sink::keep);
        match backups::rotate(self.output.path(), self.config.output.backup_count, keep) {
            Ok(dropped) => {
                self.output.rotated();
                if let Some(sink) = &mut self.sink {
                    sink.rotated(dropped);
                }
            }
            // Somebody was quicker, and has moved or deleted it: a new one is begun.
            Err(error) if error.kind() == ErrorKind::NotFound => self.look(),
            Err(error) => {
                self.status.counters.errors.add(1);
                log::error!("cannot rotate {}: {error}; it grows until that is mended", self.output.path().display());
                self.output.not_rotated();
            }
        }
    }

    /// Everything before this instant was given and is written: makes it durable and remembers it.
    pub(super) fn move_checkpoint(&mut self, instant: Millis, stop: &Receiver<()>) -> Result<(), String> {
        let (mut gives_up, mut refused) = (None, false);
        while let Err(error) = self.output.sync() {
            // Only reading the file anew tells then what is in it.
            if error.kind() == ErrorKind::InvalidData {
                return Err(format!("cannot sync {}: {error}; starting again", self.output.path().display()));
            }
            self.wait_for_disk("sync", &error, stop, &mut gives_up)?;
            refused = true;
        }
        if refused {
            self.status.clear(Code::DiskWriteFailed);
        }
        self.file_takes();
        self.state.checkpoint_ms = Some(instant);
        self.state.by_wall = false;
        self.save_state();
        self.status.gauges.checkpoint.set(instant);
        self.intake.window.sweep(instant - self.reach_ms());
        let _ = self.news.try_send(News::Checkpoint(instant));
        Ok(())
    }

    /// How far before the checkpoint an event may be that comes again.
    pub(super) fn reach_ms(&self) -> i64 {
        self.config.catch_up.overlap.as_millis() as i64 + 2 * RECEIPT_DELAY_MS
    }

    /// Writes the state; what cannot be written now is tried again at each tick.
    pub(super) fn save_state(&mut self) {
        if let Some(cursor) = self.sink.as_ref().and_then(Sink::cursor) {
            self.state.cursor = Some(cursor);
            self.cursor_kept = self.clock.now();
        }
        if let Some(sink) = &self.sink {
            self.state.backlog_dropped = sink.dropped();
        }
        let Err(error) = state::write(&self.config.output.state_file, &self.state) else {
            self.state_dirty = false;
            return;
        };
        self.state_dirty = true;
        self.look();
        // Where the file cannot be written either, that is what matters.
        if !self.file_refuses {
            self.status.raise(
                Code::DiskWriteFailed,
                format!(
                    "cannot write STATE_FILE {}: {error}; events are in {}, but the checkpoint stands still, and after a restart more of the history is read again: free or mend the disk, and it goes on by itself",
                    self.config.output.state_file.display(),
                    self.output.path().display()
                ),
            );
        }
    }

    /// Notices that someone else moved, deleted or cut the file.
    pub(super) fn look(&mut self) {
        match self.output.look() {
            Ok(change) => {
                if change != Change::None
                    && let Some(sink) = &mut self.sink
                {
                    sink.moved();
                }
                match change {
                    Change::None => {}
                    Change::Replaced => {
                        log::info!("{} was moved or deleted: a new one is begun", self.output.path().display())
                    }
                    Change::Cut => log::info!("{} was cut by someone else", self.output.path().display()),
                }
                if self.intake.lines.is_empty() {
                    self.file_takes();
                }
            }
            Err(error) => {
                self.file_refuses = true;
                self.status.raise(
                    Code::DiskWriteFailed,
                    format!(
                        "{} is gone and cannot be begun anew: {error}; events wait in memory, then in Genesys's history for ten days: bring the folder back, and it goes on by itself",
                        self.output.path().display()
                    ),
                );
            }
        }
    }

    /// The file takes lines; the state's disk may still refuse.
    fn file_takes(&mut self) {
        self.file_refuses = false;
        if !self.state_dirty {
            self.status.clear(Code::DiskWriteFailed);
        }
    }
}
