//! The writer: the only thread that knows what an event is, and the only one that touches the file.
//!
//! Deals with: taking what the reader and the session bring, writing what is new, moving the checkpoint over what is
//! synced, keeping the state, and deciding every batch for the cluster. Must never: wait for the network, throw away
//! what it has accepted, or move the checkpoint over what is not durable.
//!
//! While the disk refuses, the writer holds what it has and takes nothing more: its inboxes fill to their limits, the
//! reader stops reading, and the history brings later what the full queues kept out.

mod begin;
mod disk;
mod intake;
mod publish;
pub mod state;
#[cfg(test)]
mod tests;
mod unreadable;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, after, never, select};

use crate::clock::{Clock, Millis};
use crate::config::Config;
use crate::elastic::{FileIdentity, IndexerHandle};
use crate::event::Definitions;
use crate::logging::Rate;
use crate::message::{Batch, FromSession, News};
use crate::output::{Lock, OutputFile};
use crate::status::{Beat, Code, Status};
use crate::window::WAIT;

pub use begin::{Begin, repair};
use intake::Intake;
use state::State;
use unreadable::Unreadable;

/// Genesys keeps ten days of history. Source: the vendor's help page on operational event queries.
const HISTORY_KEPT_MS: i64 = 10 * 86_400_000;

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

/// Rows that wait are judged again no more often than this.
const SETTLE_EVERY: Duration = Duration::from_millis(500);

/// Events named in the log in a second, at most; the others are counted.
const LOGGED_EVENTS_MAX: u32 = 20;

/// What comes in.
pub struct Inbox {
    pub frames: Receiver<Batch>,
    pub session: Receiver<FromSession>,
    /// SIGHUP: look at the file now.
    pub reopen: Receiver<()>,
    pub stop: Receiver<()>,
}

/// The writer, its file open and locked.
pub struct Writer {
    config: Arc<Config>,
    status: Arc<Status>,
    clock: Clock,
    news: Sender<News>,
    output: OutputFile,
    lock: Lock,
    state: State,
    /// The state on the disk is older: the last try to write it failed.
    state_dirty: bool,
    /// The file could not be written, the last time it was tried.
    file_refuses: bool,
    unreadable: Unreadable,
    unreadable_last: Option<Instant>,
    /// Whether it was logged that frames cannot be kept aside.
    aside_failed: bool,
    intake: Intake,
    /// What was given up to here is written but for rows that wait.
    held_up_to: Option<Millis>,
    /// When rows that have waited long enough were last sought.
    settled: Instant,
    indexer: Option<IndexerHandle>,
    /// The file of the cursor for which the backups were trimmed last.
    trimmed_at: Option<FileIdentity>,
    /// When the cursor was last kept.
    cursor_kept: Instant,
    log_rate: Rate,
    /// What the window forgot at a bound, as far as the log tells.
    forgotten_told: u64,
    beat: Beat,
    ticked: Instant,
}

impl Writer {
    /// Runs until told to stop.
    ///
    /// # Errors
    /// When it cannot go on: the program is to end, and be started again.
    pub fn run(mut self, inbox: Inbox) -> Result<(), String> {
        self.load()?;
        let _ = self.news.send(News::Loaded { has_receipts: self.intake.window.has_receipts() });
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
            self.settle(self.clock.now(), &inbox.stop)?;
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
        self.want_mentions();
        self.intake.batch(batch);
    }

    /// In a flood nobody takes the names of events that the log has no room for.
    fn want_mentions(&mut self) {
        self.intake.mentions_wanted = self.log_rate.left(self.clock.now()) as usize;
    }

    fn take(&mut self, given: FromSession, stop: &Receiver<()>) -> Result<(), String> {
        self.want_mentions();
        match given {
            FromSession::Page(page) => self.intake.page(&page, self.clock.now()),
            FromSession::Repair(page) => self.intake.repair(&page),
            FromSession::Missing(page) => self.intake.missing(&page),
            FromSession::Compared(from, to) => {
                self.intake.unsure.take_if(|(first, last)| from <= *first && *last <= to);
            }
            FromSession::Origin(at) => {
                (self.state.checkpoint_ms, self.state.origin_ms, self.state.by_wall) = (Some(at), Some(at), false);
                self.save_state();
            }
            FromSession::Definitions(definitions) => self.intake.definitions = Definitions::new(&definitions),
            FromSession::Channel(channel) => {
                self.state.channel = channel;
                self.save_state();
                if !self.state_dirty {
                    let _ = self.news.try_send(News::ChannelKept);
                }
            }
            FromSession::ReadUpTo(instant) => {
                self.flush(stop)?;
                match self.intake.unsure {
                    None => self.read_up_to(instant, stop)?,
                    Some((from, to)) => {
                        let _ = self.news.try_send(News::Unsure { from, to, up_to: instant });
                    }
                }
            }
        }
        Ok(())
    }

    /// Everything before this instant was given and written. Rows that wait are not yet: the checkpoint passes none.
    fn read_up_to(&mut self, instant: Millis, stop: &Receiver<()>) -> Result<(), String> {
        let oldest = self.intake.window.oldest_waiting();
        self.held_up_to = oldest.map(|_| instant);
        let up_to = oldest.map_or(instant, |oldest| instant.min(oldest));
        if oldest.is_some() && self.state.checkpoint_ms.is_some_and(|checkpoint| up_to <= checkpoint) {
            return Ok(());
        }
        self.move_checkpoint(up_to, stop)
    }

    /// Writes what there is to be written, rows among it that waited for long enough.
    fn settle(&mut self, now: Instant, stop: &Receiver<()>) -> Result<(), String> {
        if now - self.settled >= SETTLE_EVERY {
            self.settled = now;
            self.intake.settle(now, self.clock.wall());
        }
        self.flush(stop)?;
        match self.held_up_to.filter(|_| self.intake.window.oldest_waiting().is_none()) {
            Some(instant) => self.read_up_to(instant, stop),
            None => Ok(()),
        }
    }

    /// What time brings.
    fn tick(&mut self) {
        self.ticked = self.clock.now();
        self.look();
        self.say_held_back(self.ticked);
        self.say_forgotten();
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
    fn stop(mut self, inbox: &Inbox) -> Result<(), String> {
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
        // Frames come no more.
        self.settle(self.clock.now() + WAIT, &inbox.stop)?;
        self.finish_cluster();
        self.output.sync().map_err(|error| format!("cannot sync {}: {error}", self.output.path().display()))?;
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
