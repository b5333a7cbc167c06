//! The writer thread: frames and rows in, lines in the file out.
//!
//! Must never: wait for the network, drop what it has accepted, or move the checkpoint over what is not durable. While the
//! disk refuses, it keeps what it has and takes nothing more: its queues fill to their limits, the reader stops reading,
//! and the history brings later what the full queues kept out.

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

/// Bytes of lines gathered for one write, about: gathering never waits.
const GATHER_BYTES: usize = 128 * 1024;

/// Batches gathered for one write, at most: whatever comes, counts and ticks have their turn.
const GATHER_BATCHES_MAX: usize = 64;

/// How often the path is looked at, the state kept, and the rest that time brings done.
const TICK: Duration = Duration::from_secs(1);

/// How long a stop waits for what readers still hand over, and for a disk that refuses.
const STOP_QUIET: Duration = Duration::from_millis(150);
const STOP_MAX: Duration = Duration::from_secs(2);

/// How often the cursor is kept while it moves; each time costs two syncs.
const CURSOR_KEPT_EVERY: Duration = Duration::from_secs(2);

/// How long a stop waits for the cluster.
const CLUSTER_STOP_MAX: Duration = Duration::from_secs(1);

/// How long the last unreadable frame is told of in `/health`.
const UNREADABLE_TOLD: Duration = Duration::from_secs(3600);

/// Events named in the log in a second, at most; the others are counted.
const LOGGED_EVENTS_MAX: u32 = 20;

/// What comes in.
pub struct Inbox {
    pub frames: Receiver<Batch>,
    pub session: Receiver<WriterCommand>,
    /// SIGHUP: look at the file now.
    pub reopen: Receiver<()>,
    pub stop: Receiver<()>,
}

/// The writer, its file open and locked.
pub struct Writer {
    config: Arc<Config>,
    status: Arc<Status>,
    clock: Clock,
    session: Sender<SessionEvent>,
    /// What the session's queue had no room for yet.
    outbox: VecDeque<SessionEvent>,
    output: OutputFile,
    lock: Lock,
    state: State,
    /// The state on the disk is older: the last try to write it failed.
    state_dirty: bool,
    /// The file could not be written, the last time it was tried.
    file_refuses: bool,
    unreadable: Unreadable,
    unreadable_last: Option<Instant>,
    /// Whether it was logged that frames cannot be quarantined.
    quarantine_failed: bool,
    intake: Intake,
    /// What the read under way is for, and up to where it brings rows.
    purpose: Purpose,
    until: Millis,
    indexer: Option<IndexerHandle>,
    /// The file of the cursor for which the backups were trimmed last.
    trimmed_at: Option<FileIdentity>,
    /// When the cursor was last kept.
    cursor_kept: Instant,
    log_rate: Rate,
    beat: Beat,
    ticked: Instant,
}

impl Writer {
    /// Runs until told to stop.
    ///
    /// # Errors
    /// When it cannot go on: the program is to end, and be started again.
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
                        // The disk may hang here as it may below.
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

    /// How long there is nothing to do if nothing comes.
    fn idle_for(&self) -> Duration {
        let now = self.clock.now();
        TICK.saturating_sub(now - self.ticked)
    }

    /// Takes what has gathered in the inbox, without waiting for more.
    fn gather(&mut self, frames: &Receiver<Batch>) {
        // What is filtered leaves nothing behind to be counted in bytes.
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

    /// In a flood the log has no room for each event.
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

    /// Every row of the read up to this instant was given. What still waits for others is not covered yet.
    fn read_up_to(&mut self, ids: Arc<[String]>, instant: Millis, stop: &Receiver<()>) -> Result<(), Problem> {
        self.intake.judge_rows(instant);
        self.flush(stop)?;
        let bounds = self.intake.rows.oldest().into_iter().chain(self.intake.unjudged_since);
        let up_to = bounds.fold(instant, Millis::min);
        if self.covered(&ids) < up_to { self.cover(ids, up_to, stop) } else { Ok(()) }
    }

    /// Up to when all of these definitions were read.
    fn covered(&self, ids: &[String]) -> Millis {
        ids.iter().map(|id| self.state.coverage.get(id).copied().unwrap_or(Millis::MIN)).min().unwrap_or(Millis::MAX)
    }

    /// The read is done: what it brought is written, and remembered once it is durable.
    fn end_read(&mut self, ids: Arc<[String]>, up_to: Millis, stop: &Receiver<()>) -> Result<(), Problem> {
        // A repair comes once; what is open at the end of other reads comes again with the next.
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

    /// Sends the session something, without waiting for room.
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

    /// What is done once a second.
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

    /// The end: what was received is written, synced and remembered.
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

    /// What the cluster takes quickly it gets before the end; the rest it gets after the next start.
    fn finish_cluster(&mut self) {
        if let Some(indexer) = self.indexer.take() {
            let (progress, dropped) = indexer.finish(CLUSTER_STOP_MAX);
            self.state.cursor = progress.or(self.state.cursor);
            self.state.backlog_dropped = dropped;
        }
    }
}
