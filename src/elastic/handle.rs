//! The writer's handle to the indexer: a wake-up, the cursor that a rotation must respect, and a bounded wait at the
//! stop.

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

/// How long a loss is reported after it last happened.
const DROPPED_SHOWN_MS: Millis = 3_600_000;

/// The indexer's progress, for the state file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Everything before it is in the cluster or a dead letter.
    #[serde(flatten)]
    pub cursor: Cursor,
    /// Number of events after the cursor. If the files hold fewer at the next start, the difference is a loss to
    /// report.
    #[serde(default)]
    pub pending: u64,
}

/// Events that were deleted from the files before the cluster had them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BacklogDropped {
    /// When this last happened.
    pub at_ms: Millis,
    pub events: u64,
}

/// The state that the writer and the indexer share. The lock is held only for a copy, by the writer during a rotation,
/// and by the indexer while it lists the files.
pub struct Shared {
    published: Mutex<Published>,
    /// Written lines that the indexer has not counted yet.
    written: AtomicU64,
    status: Arc<Status>,
    clock: Clock,
    output: PathBuf,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Published {
    pub progress: Option<Progress>,
    /// The file that the indexer holds open and reads to its end, even if it is renamed or deleted.
    pub reading: Option<FileIdentity>,
    /// Whether files after that one were deleted since the indexer last checked.
    pub has_deleted: bool,
    /// Lines in these files.
    pub deleted_lines: u64,
    pub dropped: Option<BacklogDropped>,
    /// Bytes of dead letters, which count as backlog.
    pub letter_bytes: u64,
}

impl Shared {
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

    /// The number of lines written since the last call.
    pub fn take_written(&self) -> u64 {
        self.written.swap(0, Ordering::Acquire)
    }

    /// Counts and reports events that were lost before the cluster had them.
    pub fn report_dropped(&self, published: &mut Published, events: u64) {
        if events == 0 {
            return;
        }
        self.status.counters.elastic_dropped.add(events);
        let events = published.dropped.map_or(0, |before| before.events) + events;
        published.dropped = Some(BacklogDropped { at_ms: self.clock.wall(), events });
        self.show_dropped(published);
    }

    /// Raises the reason about dropped events, or clears it an hour after the last ones.
    pub fn show_dropped(&self, published: &mut Published) {
        published.dropped.take_if(|dropped| self.clock.wall() - dropped.at_ms > DROPPED_SHOWN_MS);
        let Some(BacklogDropped { events, .. }) = published.dropped else {
            return self.status.clear(Code::ElasticBacklogDropped);
        };
        let what = format!(
            "{events} events were deleted from {}, its backups or its dead letters before the cluster had them, and will never be in the cluster",
            self.output.display()
        );
        let cure = "Check why the cluster accepted no documents, and raise ELASTIC_BACKLOG_MAX. If logrotate rotates the file, let it keep the newest files uncompressed.";
        self.status.raise(Code::ElasticBacklogDropped, Problem::new(what, cure));
    }
}

/// The writer's side. Dropping it ends the indexer.
pub struct IndexerHandle {
    pub(super) shared: Arc<Shared>,
    pub(super) wake: Sender<()>,
    /// Dropped to stop the indexer.
    pub(super) finish: Sender<()>,
    /// Closed when the indexer has stopped.
    pub(super) done: Receiver<()>,
    pub(super) backlog_max: u64,
}

impl IndexerHandle {
    /// Reports appended lines, or with 0 and 0 that the file was replaced. Never blocks.
    pub fn wake(&self, lines: u64, bytes: u64) {
        self.shared.written.fetch_add(lines, Ordering::Release);
        self.shared.status.gauges.elastic_backlog_bytes.add(bytes as i64);
        // If the channel is full, the indexer is awake or about to wake up.
        let _ = self.wake.try_send(());
    }

    /// The indexer's progress, to be saved when it has changed. With an old one, documents are only sent again, and the
    /// cluster ignores them.
    pub fn progress(&self) -> Option<Progress> {
        self.shared.progress()
    }

    /// The events dropped within the last hour, for the state file.
    pub fn dropped(&self) -> Option<BacklogDropped> {
        self.shared.lock().dropped
    }

    /// Rotates or trims the backups, but keeps records that the cluster does not have yet, up to the backlog's limit.
    /// Deleted records are counted and reported. `saved` is the cursor in the state file, where a later start begins.
    ///
    /// # Errors
    /// Those of `rotate`.
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

    /// Lets the indexer send what it can in a short time, and waits for it up to `limit`; returns its progress.
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
