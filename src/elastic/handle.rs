//! What the writer has of the indexer: a wake-up, the cursor that a rotation must heed, and a bounded wait at the stop.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use serde::{Deserialize, Serialize};

use crate::clock::{Clock, Millis};
use crate::output::backups::{Dropped, Keep};
use crate::output::identity::{Cursor, FileIdentity};
use crate::status::{Code, Problem, Status};

/// How long the loss of a backlog is shown after the last one.
const DROPPED_SHOWN_MS: Millis = 3_600_000;

/// How far the cluster is: for the state file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Everything before it is in the cluster or among the dead letters.
    #[serde(flatten)]
    pub cursor: Cursor,
    /// Events behind it: fewer than these in the files at the next start are a loss to report.
    #[serde(default)]
    pub pending: u64,
}

/// Events that were gone from the files before the cluster had them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BacklogDropped {
    /// The last time that it happened.
    pub at_ms: Millis,
    pub events: u64,
}

/// What the writer's thread and the indexer's share. The lock is held for a copy, by the writer over a rotation, and by the
/// indexer while it lists the files.
pub struct Shared {
    published: Mutex<Published>,
    /// Lines that were written and that the indexer does not know of yet.
    written: AtomicU64,
    status: Arc<Status>,
    clock: Clock,
    output: PathBuf,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Published {
    pub progress: Option<Progress>,
    /// The file that the indexer holds open and reads to its end, whatever becomes of its name.
    pub reading: Option<FileIdentity>,
    /// Files behind that one were deleted, and lines in those, since the indexer last took note.
    pub has_deleted: bool,
    pub deleted_lines: u64,
    pub dropped: Option<BacklogDropped>,
    /// Bytes of dead letters: they count as backlog.
    pub letter_bytes: u64,
}

impl Shared {
    /// `dropped`: within the last run.
    pub fn new(
        (progress, dropped): (Option<Progress>, Option<BacklogDropped>),
        status: Arc<Status>,
        clock: Clock,
        output: PathBuf,
    ) -> Self {
        let published = Published { progress, dropped, ..Published::default() };
        Self { published: Mutex::new(published), written: AtomicU64::new(0), status, clock, output }
    }

    pub fn lock(&self) -> MutexGuard<'_, Published> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self) -> Option<Progress> {
        let published = self.lock();
        let Progress { cursor, pending } = published.progress?;
        let pending = (pending + self.written.load(Ordering::Acquire)).saturating_sub(published.deleted_lines);
        Some(Progress { cursor, pending })
    }

    /// Lines that were written since this was last called.
    pub fn take_written(&self) -> u64 {
        self.written.swap(0, Ordering::Acquire)
    }

    /// Events are gone before the cluster had them: counts and reports them.
    pub fn report_dropped(&self, published: &mut Published, events: u64) {
        if events == 0 {
            return;
        }
        self.status.counters.elastic_dropped.add(events);
        let events = published.dropped.map_or(0, |before| before.events) + events;
        published.dropped = Some(BacklogDropped { at_ms: self.clock.wall(), events });
        self.show_dropped(published);
    }

    /// Shows what was dropped, for an hour after the last of it.
    pub fn show_dropped(&self, published: &mut Published) {
        published.dropped.take_if(|dropped| self.clock.wall() - dropped.at_ms > DROPPED_SHOWN_MS);
        let Some(BacklogDropped { events, .. }) = published.dropped else {
            return self.status.clear(Code::ElasticBacklogDropped);
        };
        let what = format!(
            "{events} events were deleted from {}, its backups or its dead letters before the cluster had them, and are missing there for good",
            self.output.display()
        );
        let cure = "Check why the cluster took none, and raise ELASTIC_BACKLOG_MAX. If logrotate rotates the file, let it keep the last files uncompressed.";
        self.status.raise(Code::ElasticBacklogDropped, Problem::new(what, cure));
    }
}

/// The writer's side. Dropping it ends the indexer.
pub struct IndexerHandle {
    pub(super) shared: Arc<Shared>,
    pub(super) wake: Sender<()>,
    /// Dropped for the end.
    pub(super) finish: Sender<()>,
    /// Ends with the indexer.
    pub(super) done: Receiver<()>,
    pub(super) backlog_max: u64,
}

impl IndexerHandle {
    /// Lines were appended, or the file is another one by now (0 and 0). Never waits.
    pub fn wake(&self, lines: u64, bytes: u64) {
        self.shared.written.fetch_add(lines, Ordering::Release);
        self.shared.status.gauges.elastic_backlog_bytes.add(bytes as i64);
        // Where there is no room it is awake, or about to be.
        let _ = self.wake.try_send(());
    }

    /// How far the cluster is. Worth keeping whenever it has changed; one of yesterday only costs documents that are sent
    /// again and are there already.
    pub fn progress(&self) -> Option<Progress> {
        self.shared.progress()
    }

    /// What was dropped within the last hour: for the state file.
    pub fn dropped(&self) -> Option<BacklogDropped> {
        self.shared.lock().dropped
    }

    /// Rotates or trims the backups, heeding what the cluster has not had; `saved` is the cursor in the state file, for a
    /// later start begins there. What was deleted all the same is counted and reported.
    ///
    /// # Errors
    /// As `rotate` has them.
    pub fn rotate(&self, saved: Option<Cursor>, rotate: impl FnOnce(Keep) -> io::Result<Dropped>) -> io::Result<()> {
        let mut published = self.shared.lock();
        let backlog_max = self.backlog_max.saturating_sub(published.letter_bytes);
        let read = published.reading.map(|file| Cursor { file, offset: u64::MAX });
        let dropped = rotate(Keep { cursor: saved, read, backlog_max })?;
        published.has_deleted |= dropped.files > 0;
        published.deleted_lines += dropped.events;
        self.shared.report_dropped(&mut published, dropped.events);
        drop(published);
        self.wake(0, 0);
        Ok(())
    }

    /// Lets the indexer send what it can send quickly, and waits for it for so long at most; returns how far it came.
    pub fn finish(self, limit: Duration) -> (Option<Progress>, Option<BacklogDropped>) {
        let Self { shared, wake, finish, done, .. } = self;
        drop((wake, finish));
        let _ = done.recv_timeout(limit);
        (shared.progress(), shared.lock().dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_of_an_older_state_is_read_and_a_newer_one_is_read_by_the_older_version() {
        let older = r#"{"file":"00000000000000000000000000000abc","offset":7}"#;
        let progress: Progress = serde_json::from_str(older).unwrap();
        assert_eq!((progress.pending, progress.cursor), (0, serde_json::from_str(older).unwrap()));
        let text = serde_json::to_string(&Progress { pending: 3, ..progress }).unwrap();
        assert_eq!(serde_json::from_str::<Cursor>(&text).unwrap(), progress.cursor);
        assert_eq!(serde_json::from_str::<Progress>(&text).unwrap().pending, 3);
    }
}
