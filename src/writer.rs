//! The writer thread: writes frames and rows as lines of the file.
//!
//! Must never: wait for the network, drop an accepted event, or move the checkpoint past what is not durable. On disk
//! errors, it keeps what it has and accepts nothing more: its queues fill to their limits, the reader stops reading,
//! and the events that found no room are read from the history later.

mod begin;
mod disk;
mod intake;
mod publish;
pub mod state;
#[cfg(test)]
mod tests;
mod unreadable;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, after, never, select};

use crate::clock::{Clock, Millis};
use crate::config::Config;
use crate::elastic::{FileIdentity, IndexerHandle};
use crate::event::Definitions;
use crate::logging::Rate;
use crate::message::{Batch, Purpose, SessionEvent, WriterCommand};
use crate::output::{Lock, OutputFile};
use crate::status::{Beat, Code, Problem, Status};

use intake::Intake;
use state::State;
use unreadable::Unreadable;

/// Approximate maximum of bytes gathered for one write. Gathering never waits.
const GATHER_BYTES: usize = 128 * 1024;

/// Maximum number of batches gathered for one write, so that counts and ticks are never starved.
const GATHER_BATCHES_MAX: usize = 64;

/// How often the path is checked, the state saved, and other periodic work done.
const TICK: Duration = Duration::from_secs(1);

/// How long a stop waits for batches that readers still hand over, and for a disk that fails.
const STOP_QUIET: Duration = Duration::from_millis(150);
const STOP_MAX: Duration = Duration::from_secs(2);

/// How often the cursor is saved while it moves; each save costs two syncs.
const CURSOR_KEPT_EVERY: Duration = Duration::from_secs(2);

/// How long a stop waits for the cluster.
const CLUSTER_STOP_MAX: Duration = Duration::from_secs(1);

/// How long `/health` reports the last unreadable frame.
const UNREADABLE_TOLD: Duration = Duration::from_secs(3600);

/// Maximum number of events logged by name per second; the others are counted.
const LOGGED_EVENTS_MAX: u32 = 20;

/// The writer's inputs.
pub struct Inbox {
    pub frames: Receiver<Batch>,
    pub session: Receiver<WriterCommand>,
    /// SIGHUP: check the file now.
    pub reopen: Receiver<()>,
    pub stop: Receiver<()>,
}

/// The writer, with its file open and locked.
pub struct Writer {
    config: Arc<Config>,
    status: Arc<Status>,
    clock: Clock,
    session: Sender<SessionEvent>,
    /// Events for which the session's queue had no room yet.
    outbox: VecDeque<SessionEvent>,
    output: OutputFile,
    lock: Lock,
    state: State,
    /// Whether the state on disk is outdated, because the last attempt to write it failed.
    state_dirty: bool,
    /// Whether the last attempt to write the file failed.
    file_refuses: bool,
    unreadable: Unreadable,
    unreadable_last: Option<Instant>,
    /// Whether a failure to quarantine frames was logged.
    quarantine_failed: bool,
    intake: Intake,
    /// The purpose of the current read, and the instant up to which it returns rows.
    purpose: Purpose,
    until: Millis,
    indexer: Option<IndexerHandle>,
    /// The cursor's file when the backups were last trimmed.
    trimmed_at: Option<FileIdentity>,
    /// When the cursor was last saved.
    cursor_kept: Instant,
    log_rate: Rate,
    beat: Beat,
    ticked: Instant,
}

impl Writer {
    /// Runs until it is stopped.
    ///
    /// # Errors
    /// When it cannot continue. The program must then exit and be restarted.
    pub fn run(mut self, inbox: Inbox) -> Result<(), Problem> {
        self.load()?;
        self.send(SessionEvent::Loaded);
        let (mut frames, mut session) = (inbox.frames.clone(), inbox.session.clone());
        loop {
            self.beat.waiting();
            let idle = after(self.idle_for());
            select! {
                recv(frames) -> batch => match batch {
                    Ok(batch) => self.take_batch(&batch),
                    Err(_) => frames = never(),
                },
                recv(session) -> given => match given {
                    Ok(given) => {
                        // The disk may hang here, as below.
                        self.beat.busy();
                        self.take(given, &inbox.stop)?;
                    }
                    Err(_) => session = never(),
                },
                recv(inbox.reopen) -> _ => {
                    self.beat.busy();
                    self.look();
                }
                recv(inbox.stop) -> _ => break,
                recv(idle) -> _ => {}
            }
            self.beat.busy();
            self.gather(&frames);
            self.flush(&inbox.stop)?;
            self.deliver();
            if self.clock.now() - self.ticked >= TICK {
                self.tick();
                self.lock.look()?;
            }
        }
        self.stop(&inbox)
    }

    /// How long until the next tick.
    fn idle_for(&self) -> Duration {
        let now = self.clock.now();
        TICK.saturating_sub(now - self.ticked)
    }

    /// Takes the waiting batches, without waiting for more.
    fn gather(&mut self, frames: &Receiver<Batch>) {
        // Filtered frames add no bytes, hence the limit on batches.
        for _ in 0..GATHER_BATCHES_MAX {
            if self.intake.bytes() >= GATHER_BYTES {
                return;
            }
            match frames.try_recv() {
                Ok(batch) => self.take_batch(&batch),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }

    fn take_batch(&mut self, batch: &Batch) {
        self.want_log_samples();
        self.intake.batch(batch);
    }

    /// Limits the log in a flood of events.
    fn want_log_samples(&mut self) {
        self.intake.log_samples_wanted = self.log_rate.left(self.clock.now()) as usize;
    }

    fn take(&mut self, command: WriterCommand, stop: &Receiver<()>) -> Result<(), Problem> {
        self.want_log_samples();
        match command {
            WriterCommand::Begin { span, until, purpose } => {
                (self.purpose, self.until) = (purpose, until);
                self.intake.begin_read(span);
            }
            WriterCommand::Records(records) => self.intake.from_files = Some(records),
            WriterCommand::Page(page) => self.intake.page(&page),
            WriterCommand::ReadUpTo { ids, up_to } => self.read_up_to(ids, up_to, stop)?,
            WriterCommand::End { ids, up_to } => self.end_read(ids, up_to, stop)?,
            WriterCommand::Origin(at) => {
                (self.state.checkpoint_ms, self.state.origin_ms, self.state.by_wall) = (Some(at), Some(at), false);
                self.save_state();
            }
            WriterCommand::Definitions(definitions) => {
                self.intake.definitions = Definitions::new(&definitions);
                if *self.state.definitions != *definitions {
                    self.state.definitions = definitions.to_vec();
                    self.save_state();
                }
            }
            WriterCommand::Channel(channel) => {
                self.state.channel = channel;
                self.save_state();
                if !self.state_dirty {
                    self.send(SessionEvent::ChannelKept);
                }
            }
            WriterCommand::HistoryWorks(works) => self.intake.history_works = works,
        }
        Ok(())
    }

    /// All rows of the read up to this instant have arrived. Coverage ends before rows that are still held or unjudged.
    fn read_up_to(&mut self, ids: Arc<[String]>, instant: Millis, stop: &Receiver<()>) -> Result<(), Problem> {
        self.intake.judge_rows(instant);
        self.flush(stop)?;
        let bounds = self.intake.rows.oldest().into_iter().chain(self.intake.unjudged_since);
        let up_to = bounds.fold(instant, Millis::min);
        if self.covered(&ids) < up_to { self.cover(ids, up_to, stop) } else { Ok(()) }
    }

    /// The instant up to which all of these definitions were read.
    fn covered(&self, ids: &[String]) -> Millis {
        ids.iter().map(|id| self.state.coverage.get(id).copied().unwrap_or(Millis::MIN)).min().unwrap_or(Millis::MAX)
    }

    /// Completes the read: its rows are written, and its end is saved once they are durable.
    fn end_read(&mut self, ids: Arc<[String]>, up_to: Millis, stop: &Receiver<()>) -> Result<(), Problem> {
        // A repair is read only once. Rows left open by other reads are returned again by the next one.
        self.intake.finish_rows(if self.purpose == Purpose::Repair { Millis::MAX } else { self.until });
        self.flush(stop)?;
        let (purpose, appended, unjudged_since) = (self.purpose, self.intake.appended, self.intake.unjudged_since);
        let open_since = self.intake.rows.oldest().unwrap_or(Millis::MAX);
        let up_to = up_to.min(open_since.max(self.covered(&ids)));
        self.intake.drop_read();
        match unjudged_since {
            None => self.cover(ids, up_to, stop)?,
            Some(_) => self.sync(stop)?,
        }
        self.send(SessionEvent::ReadDone { purpose, appended, unjudged_since });
        Ok(())
    }

    /// Queues an event for the session, without waiting for room.
    fn send(&mut self, event: SessionEvent) {
        self.outbox.push_back(event);
        self.deliver();
    }

    fn deliver(&mut self) {
        while let Some(event) = self.outbox.pop_front() {
            if let Err(TrySendError::Full(event)) = self.session.try_send(event) {
                self.outbox.push_front(event);
                return;
            }
        }
    }

    /// The work done once a second.
    fn tick(&mut self) {
        self.ticked = self.clock.now();
        self.look();
        self.log_suppressed(self.ticked);
        self.publish_index();
        let progress = self.indexer.as_ref().and_then(IndexerHandle::progress);
        let cursor_moved = progress.is_some() && progress != self.state.cursor;
        if self.state_dirty || (cursor_moved && self.ticked - self.cursor_kept >= CURSOR_KEPT_EVERY) {
            self.save_state();
        }
        self.trim();
        if self.unreadable_last.is_some_and(|last| self.ticked - last > UNREADABLE_TOLD) {
            self.unreadable_last = None;
            self.status.clear(Code::UnreadableFrames);
        }
    }

    /// Stops: writes and syncs what was received, and saves the state.
    fn stop(mut self, inbox: &Inbox) -> Result<(), Problem> {
        self.beat.busy();
        let deadline = self.clock.now() + STOP_MAX;
        while self.clock.now() < deadline {
            match inbox.frames.recv_timeout(STOP_QUIET) {
                Ok(batch) => self.take_batch(&batch),
                Err(_) => break,
            }
            self.gather(&inbox.frames);
            self.flush(&inbox.stop)?;
        }
        while let Ok(given) = inbox.session.try_recv() {
            self.take(given, &inbox.stop)?;
            self.flush(&inbox.stop)?;
        }
        self.finish_cluster();
        self.output.sync().map_err(|error| {
            let what = format!("cannot sync {}: {error}", self.output.path().display());
            Problem::new(what, "Check the disk. The next start reads what is missing from the history.")
        })?;
        self.save_state();
        Ok(())
    }

    /// Gives the cluster a short time to take what it can; the rest follows after the next start.
    fn finish_cluster(&mut self) {
        if let Some(indexer) = self.indexer.take() {
            let (progress, dropped) = indexer.finish(CLUSTER_STOP_MAX);
            self.state.cursor = progress.or(self.state.cursor);
            self.state.backlog_dropped = dropped;
        }
    }
}
