//! Everything on disk: writes lines, rotates the file, moves the checkpoint after a sync, saves the state.
//!
//! Must never: drop an accepted event, or move the checkpoint past what is not durable. A failed write is retried until
//! it succeeds, and nothing else is accepted meanwhile.

use std::io::ErrorKind;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, never};

use super::{STOP_MAX, Writer, state};
use crate::clock::Millis;
use crate::dedup::RECEIPT_DELAY_MS;
use crate::elastic::IndexerHandle;
use crate::message::{HISTORY_KEPT_MS, Purpose, SessionEvent, extend_coverage};
use crate::output::backups::Keep;
use crate::output::identity::Cursor;
use crate::output::{Change, Stopped, backups, records};
use crate::status::{Code, Problem, RECENT_MAX};

/// The delay before a failed write is retried.
const DISK_RETRY: Duration = Duration::from_millis(500);

/// What to do about a file that cannot be written.
fn cure(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "Free space on the disk.",
        ErrorKind::NotFound => "Restore the folder of the file.",
        ErrorKind::PermissionDenied => {
            "Give the user that runs the collector the right to write to the file and its folder."
        }
        ErrorKind::ReadOnlyFilesystem => "Mount the file system for writing.",
        _ => "Check the disk.",
    }
}

impl Writer {
    /// Writes the gathered lines. Retries until the disk accepts them, and accepts nothing else meanwhile.
    pub(super) fn flush(&mut self, stop: &Receiver<()>) -> Result<(), Problem> {
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

    /// Reports a disk error and waits for the next try. Returns an error when a stop can wait no longer.
    fn wait_for_disk(
        &mut self,
        verb: &str,
        error: &std::io::Error,
        stop: &Receiver<()>,
        gives_up: &mut Option<Instant>,
    ) -> Result<(), Problem> {
        let what = format!("cannot {verb} {}: {error}", self.output.path().display());
        self.file_refuses = true;
        self.status.counters.errors.add(1);
        self.status.raise(
            Code::DiskWriteFailed,
            Problem::new(
                format!("{what}; events wait in memory; Genesys keeps them for ten days"),
                format!("{} Collecting resumes by itself.", cure(error)),
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
            let what =
                format!("{what}; the events that waited in memory are read from the history after the next start");
            return Err(Problem::new(what, format!("{} Then start the collector again.", cure(error))));
        }
        Ok(())
    }

    /// Appends the gathered lines, rotating if necessary. Keeps the lines that could not be written.
    pub(super) fn append(&mut self) -> Option<std::io::Error> {
        let (mut done, mut lines_done) = (0, 0);
        let error = loop {
            let appended = self.output.append(&self.intake.lines[done..]);
            let from = done;
            done += appended.bytes;
            let lines = self.intake.ends[lines_done..].iter().take_while(|end| **end <= done).count();
            self.publish_recent(from, lines_done..lines_done + lines);
            lines_done += lines;
            if let Some(indexer) = &self.indexer {
                indexer.wake(lines as u64, appended.bytes as u64);
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

    /// Publishes the newest of the written lines; the first line begins at `from`.
    pub(super) fn publish_recent(&self, from: usize, lines: Range<usize>) {
        let first = lines.start.max(lines.end.saturating_sub(RECENT_MAX));
        let start = |line: usize| if line == lines.start { from } else { self.intake.ends[line - 1] };
        self.status
            .recent
            .extend((first..lines.end).map(|line| &self.intake.lines[start(line)..self.intake.ends[line] - 1]));
    }

    pub(super) fn rotate(&mut self) {
        let (path, count) = (self.output.path(), self.config.output.backup_count);
        let cursor = self.saved_cursor();
        let rotated = match (&self.indexer, &self.config.elastic) {
            (Some(indexer), _) => indexer.rotate(cursor, |keep| backups::rotate(path, count, Some(keep))),
            (None, Some(elastic)) => {
                let keep = Keep { cursor, read: cursor, backlog_max: elastic.backlog_max };
                backups::rotate(path, count, Some(keep)).map(drop)
            }
            (None, None) => backups::rotate(path, count, None).map(drop),
        };
        match rotated {
            Ok(()) => self.output.rotated(),
            // Another program has just moved or deleted it: create a new file.
            Err(error) if error.kind() == ErrorKind::NotFound => self.look(),
            Err(error) => {
                self.status.counters.errors.add(1);
                log::error!(
                    "cannot rotate {}: {error}; the file grows until that is fixed",
                    self.output.path().display()
                );
                self.output.not_rotated();
            }
        }
    }

    /// Deletes the backups kept only for the cluster, once the saved state shows that the cluster has them.
    pub(super) fn trim(&mut self) {
        let (path, count, cursor) = (self.output.path(), self.config.output.backup_count, self.saved_cursor());
        let Some(indexer) = &self.indexer else { return };
        let file = cursor.map(|cursor| cursor.file);
        if count == 0 || self.state_dirty || file.is_none() || file == self.trimmed_at {
            return;
        }
        self.trimmed_at = file;
        if let Err(error) = indexer.rotate(cursor, |keep| backups::trim(path, count, Some(keep))) {
            log::warn!("cannot delete old backups of {}: {error}", path.display());
        }
    }

    fn saved_cursor(&self) -> Option<Cursor> {
        self.state.cursor.map(|progress| progress.cursor)
    }

    /// Everything of these definitions before this instant is written: makes it durable, then saves the instant.
    pub(super) fn cover(&mut self, ids: Arc<[String]>, up_to: Millis, stop: &Receiver<()>) -> Result<(), Problem> {
        self.sync(stop)?;
        let purpose = self.purpose;
        if purpose == Purpose::Repair {
            return Ok(());
        }
        extend_coverage(&mut self.state.coverage, &ids, up_to, purpose);
        if purpose == Purpose::CatchUp {
            self.state.checkpoint_ms = Some(up_to);
            self.state.by_wall = false;
            // Genesys no longer keeps older events, so how far a definition was read before does not matter.
            self.state.coverage.retain(|_, read| *read > up_to - HISTORY_KEPT_MS);
        }
        self.save_state();
        if purpose == Purpose::CatchUp {
            self.status.gauges.checkpoint.set(up_to);
            self.intake.index.forget_before(up_to - self.reach_ms());
            self.publish_index();
        }
        self.send(SessionEvent::ReadUpTo { ids, up_to, purpose });
        Ok(())
    }

    /// Makes the written lines durable. Retries until the disk succeeds.
    pub(super) fn sync(&mut self, stop: &Receiver<()>) -> Result<(), Problem> {
        let (mut gives_up, mut refused) = (None, false);
        while let Err(error) = self.output.sync() {
            // Only reading the file again shows what it contains after that error.
            if error.kind() == ErrorKind::InvalidData {
                let what = format!("cannot sync {}: {error}", self.output.path().display());
                return Err(Problem::new(
                    what,
                    "Check the disk. A restart reads what it holds, and what is missing again.",
                ));
            }
            self.wait_for_disk("sync", &error, stop, &mut gives_up)?;
            refused = true;
        }
        if refused {
            self.status.clear(Code::DiskWriteFailed);
        }
        self.file_takes();
        Ok(())
    }

    /// How far before the checkpoint events may be read again, in milliseconds.
    pub(super) fn reach_ms(&self) -> i64 {
        self.config.catch_up.overlap.as_millis() as i64 + 2 * RECEIPT_DELAY_MS
    }

    /// Writes the state. A failed write is retried at each tick.
    pub(super) fn save_state(&mut self) {
        if let Some(progress) = self.indexer.as_ref().and_then(IndexerHandle::progress) {
            self.state.cursor = Some(progress);
            self.cursor_kept = self.clock.now();
        }
        if let Some(indexer) = &self.indexer {
            self.state.backlog_dropped = indexer.dropped();
        }
        self.state.file = self.output.identity().or(self.state.file);
        let Err(error) = state::write(&self.config.output.state_file, &self.state) else {
            self.state_dirty = false;
            return;
        };
        self.state_dirty = true;
        self.look();
        // If the file cannot be written either, that error matters more.
        if !self.file_refuses {
            self.status.raise(
                Code::DiskWriteFailed,
                Problem::new(
                    format!(
                        "cannot write STATE_FILE {}: {error}; events are written to {}, but the checkpoint stays where it is, so that a restart reads more of the history again",
                        self.config.output.state_file.display(),
                        self.output.path().display()
                    ),
                    format!("{} Collecting resumes by itself.", cure(&error)),
                ),
            );
        }
    }

    /// Notices that another program moved, deleted or truncated the file.
    pub(super) fn look(&mut self) {
        let file = self.output.identity();
        match self.output.look() {
            Ok(change) => {
                let is_gone = |file| !records::is_there(self.output.path(), file);
                if change == Change::Cut || change == Change::Replaced && file.is_some_and(is_gone) {
                    self.state.taken_away_ms = Some(self.clock.wall());
                    self.publish_index();
                }
                if change != Change::None
                    && let Some(indexer) = &self.indexer
                {
                    indexer.wake(0, 0);
                }
                match change {
                    Change::None => {}
                    Change::Replaced => {
                        log::info!("{} was moved or deleted; a new file is created", self.output.path().display())
                    }
                    Change::Cut => log::info!("{} was truncated by another program", self.output.path().display()),
                }
                if self.intake.lines.is_empty() {
                    self.file_takes();
                }
            }
            Err(error) => {
                self.file_refuses = true;
                self.status.raise(
                    Code::DiskWriteFailed,
                    Problem::new(
                        format!(
                            "{} is gone and cannot be created again: {error}; events wait in memory; Genesys keeps them for ten days",
                            self.output.path().display()
                        ),
                        "Restore its folder. Collecting resumes by itself.",
                    ),
                );
            }
        }
    }

    /// The file is writable again; the state file may still not be.
    fn file_takes(&mut self) {
        self.file_refuses = false;
        if !self.state_dirty {
            self.status.clear(Code::DiskWriteFailed);
        }
    }
}
