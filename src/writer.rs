//! The writer: the only thread that knows what an event is, and the only one that touches the file.
//!
//! Deals with: taking what the reader and the session bring, writing what is new, moving the checkpoint over what is
//! synced, keeping the state, and deciding every batch for the cluster. Must never: wait for the network, throw away
//! what it has accepted, or move the checkpoint over what is not durable.
//!
//! While the disk refuses, the writer holds what it has and takes nothing more: its inboxes fill to their limits, the
//! reader stops reading, and the history brings later what the full queues kept out.

mod intake;
pub mod state;
#[cfg(test)]
mod tests;
mod unreadable;

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, after, never, select};

use crate::clock::{Clock, Millis};
use crate::config::Config;
use crate::elastic::Sink;
use crate::event::{Definitions, Line, Redaction};
use crate::logging::Rate;
use crate::message::{Batch, ChannelState, Definition, FromSession, News, Page};
use crate::output::{Change, Lock, OutputFile, Stopped, backups};
use crate::records;
use crate::status::{Beat, Code, RECENT_BYTES_MAX, RECENT_MAX, Status};
use crate::window::RECEIPT_DELAY_MS;

use intake::Intake;
use state::State;
use unreadable::Unreadable;

/// Bytes of lines gathered for one write, about: gathering never waits.
const GATHER_BYTES: usize = 256 * 1024;

/// Batches gathered for one write, at most: whatever comes, counts and ticks have their turn.
const GATHER_BATCHES_MAX: usize = 64;

/// How often the path is looked at, the state kept, and the rest that time brings done.
const TICK: Duration = Duration::from_secs(1);

/// How long after a refusal the disk is tried again.
const DISK_RETRY: Duration = Duration::from_millis(500);

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

/// Genesys keeps ten days of history. Source: the vendor's help page on operational event queries.
const HISTORY_KEPT_MS: i64 = 10 * 86_400_000;

/// What comes in.
pub struct Inbox {
    pub frames: Receiver<Batch>,
    pub session: Receiver<FromSession>,
    /// SIGHUP: look at the file now.
    pub reopen: Receiver<()>,
    pub stop: Receiver<()>,
}

/// Where the session is to begin.
#[derive(Clone, Debug)]
pub struct Begin {
    pub checkpoint: Millis,
    /// Where the very first start began.
    pub origin: Millis,
    pub channel: Option<ChannelState>,
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
    state_dirty: bool,
    unreadable: Unreadable,
    unreadable_last: Option<Instant>,
    /// Whether it was logged that frames cannot be kept aside.
    aside_failed: bool,
    intake: Intake,
    sink: Option<Sink>,
    /// When the cursor was last kept.
    cursor_kept: Instant,
    log_rate: Rate,
    beat: Beat,
    ticked: Instant,
}

impl Writer {
    /// Takes the lock, opens the file, reads the state. Fast whatever the files hold: what they hold is read by
    /// [`Writer::run`].
    ///
    /// # Errors
    /// In one sentence that names the setting: another collector has the file, or it cannot be opened.
    pub fn open(
        config: Arc<Config>,
        status: Arc<Status>,
        clock: Clock,
        news: Sender<News>,
    ) -> Result<(Self, Begin), String> {
        let path = &config.output.file;
        if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)
                .map_err(|error| format!("cannot make the folder of OUTPUT_FILE {}: {error}", path.display()))?;
        }
        let lock = Lock::take(path)?;
        let max_size = (config.output.backup_count > 0).then_some(config.output.max_file_size);
        let (output, torn) = OutputFile::open(path, max_size).map_err(|error| {
            format!(
                "cannot open OUTPUT_FILE {}: {error}; the user that runs the collector must be able to write there",
                path.display()
            )
        })?;
        let redaction = Redaction::new(&config.output.redact_fields);
        let mut unreadable = Unreadable::new(path, !redaction.is_on());
        let wall = clock.wall();
        if let Some(torn) = torn {
            log::warn!("the last line of {} was torn and is moved aside; its event is fetched again", path.display());
            if let Err(error) = unreadable.keep(wall, "the last line of the output file was torn", &torn) {
                log::error!("cannot keep a torn line aside: {error}");
            }
        }
        let state = begin_state(&config, wall)?;
        let checkpoint = state.checkpoint_ms.unwrap_or(wall);
        let origin = state.origin_ms.unwrap_or(checkpoint);
        let begin = Begin { checkpoint, origin, channel: state.channel.clone() };
        let beat = status.beats.register("writer");
        let overlap_ms = config.catch_up.overlap.as_millis() as i64;
        status.gauges.checkpoint.set(begin.checkpoint);
        let now = clock.now();
        let writer = Self {
            intake: Intake::new(redaction, overlap_ms),
            config,
            status,
            clock,
            news,
            output,
            lock,
            state,
            state_dirty: false,
            unreadable,
            unreadable_last: None,
            aside_failed: false,
            sink: None,
            cursor_kept: now,
            log_rate: Rate::new(LOGGED_EVENTS_MAX, Duration::from_secs(1)),
            beat,
            ticked: now,
        };
        Ok((writer, begin))
    }

    /// Fills a cluster from the file, from where the state says.
    ///
    /// # Errors
    /// In one sentence: the file or the CA's file cannot be read.
    pub fn fill_cluster(&mut self, stop: Receiver<()>) -> Result<(), String> {
        let Some(elastic) = &self.config.elastic else { return Ok(()) };
        let (output, network) = (&self.config.output, &self.config.network);
        let sink =
            Sink::start(elastic, output, network, self.state.cursor, self.status.clone(), self.clock.clone(), stop);
        self.sink = Some(sink.map_err(|error| format!("cannot begin to fill ELASTIC_URL's cluster: {error}"))?);
        Ok(())
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    /// When it cannot go on: the program is to end, and be started again.
    pub fn run(mut self, inbox: Inbox) -> Result<(), String> {
        self.load()?;
        let (mut frames, mut session) = (inbox.frames.clone(), inbox.session.clone());
        let answers = self.sink.as_ref().map_or_else(never, |sink| sink.answers().clone());
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
                recv(answers) -> answer => if let (Ok(answer), Some(sink)) = (answer, &mut self.sink) {
                    sink.answer(answer);
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
            if let Some(sink) = &mut self.sink {
                sink.step();
            }
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
        let tick = TICK.saturating_sub(now - self.ticked);
        let sink = self.sink.as_ref().and_then(Sink::wake_at);
        sink.map_or(tick, |at| at.saturating_duration_since(now).min(tick))
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
            FromSession::Page(page) => self.intake.page(&page),
            FromSession::Repair(page) => self.intake.repair(&page),
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
                self.move_checkpoint(instant)?;
            }
        }
        Ok(())
    }

    /// Writes what was taken. While the disk refuses, it is tried again and again, and nothing else is taken.
    fn flush(&mut self, stop: &Receiver<()>) -> Result<(), String> {
        let mut gives_up: Option<Instant> = None;
        while !self.intake.lines.is_empty() {
            let Some(error) = self.append() else { break };
            self.status.counters.errors.add(1);
            self.status.raise(
                Code::DiskWriteFailed,
                format!(
                    "cannot write {}: {error}; events wait in memory, then in Genesys's history for ten days: free or mend the disk, and it goes on by itself",
                    self.output.path().display()
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
                return Err(format!(
                    "cannot write {}: {error}; what waited in memory comes again from the history",
                    self.output.path().display()
                ));
            }
        }
        if self.intake.tally.written > 0 {
            self.status.clear(Code::DiskWriteFailed);
        }
        self.publish();
        Ok(())
    }

    /// Appends the gathered lines, rotating where need be; the lines that did not go stay.
    fn append(&mut self) -> Option<std::io::Error> {
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
    fn tell_recent(&self, from: usize, lines: Range<usize>) {
        let first = lines.start.max(lines.end.saturating_sub(RECENT_MAX));
        let start = |line: usize| if line == lines.start { from } else { self.intake.ends[line - 1] };
        self.status
            .recent
            .extend((first..lines.end).map(|line| &self.intake.lines[start(line)..self.intake.ends[line] - 1]));
    }

    fn rotate(&mut self) {
        let keep = self.sink.as_ref().map(Sink::keep);
        match backups::rotate(self.output.path(), self.config.output.backup_count, keep) {
            Ok(dropped) => {
                self.output.rotated();
                if let Some(sink) = &mut self.sink {
                    sink.rotated(dropped);
                }
            }
            Err(error) => {
                self.status.counters.errors.add(1);
                log::error!("cannot rotate {}: {error}; it grows until that is mended", self.output.path().display());
                self.output.not_rotated();
            }
        }
    }

    /// Tells the others what was met, once it is in the file.
    fn publish(&mut self) {
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

    fn keep_aside(&mut self, asides: &[intake::Aside]) {
        let channel = self.state.channel.as_ref().map_or("", |channel| channel.id.as_str());
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
                break;
            }
            self.aside_failed = false;
        }
        self.unreadable_last = Some(self.clock.now());
        let total = self.status.counters.unreadable.get() + asides.len() as u64;
        let last = asides.last().map_or("", |aside| aside.reason.as_str());
        self.status.raise(
            Code::UnreadableFrames,
            format!(
                "{total} frames since the start were no events ({last}); they are kept in {}.unreadable: look whether an event is among them, and report it",
                self.output.path().display()
            ),
        );
    }

    fn log_events(&mut self, written: u64) {
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

    fn say_held_back(&mut self, now: Instant) {
        if let Some(count) = self.log_rate.take_held_back(now) {
            log::info!(count; "{count} more AudioHook events processed");
        }
    }

    /// Everything before this instant was given and is written: makes it durable and remembers it.
    fn move_checkpoint(&mut self, instant: Millis) -> Result<(), String> {
        // After a sync that failed nobody knows what is on the disk: only reading it anew tells.
        self.output.sync().map_err(|error| {
            format!("cannot sync {}: {error}; starting again, to see what is in it", self.output.path().display())
        })?;
        self.state.checkpoint_ms = Some(instant);
        self.save_state();
        self.status.gauges.checkpoint.set(instant);
        self.intake.window.sweep(instant - self.reach_ms());
        let _ = self.news.try_send(News::Checkpoint(instant));
        Ok(())
    }

    /// How far before the checkpoint an event may be that comes again.
    fn reach_ms(&self) -> i64 {
        self.config.catch_up.overlap.as_millis() as i64 + 2 * RECEIPT_DELAY_MS
    }

    /// Writes the state; what cannot be written now is tried again at each tick.
    fn save_state(&mut self) {
        if let Some(cursor) = self.sink.as_ref().and_then(Sink::cursor) {
            self.state.cursor = Some(cursor);
            self.cursor_kept = self.clock.now();
        }
        let path = &self.config.output.state_file;
        match state::write(path, &self.state) {
            Ok(()) => self.state_dirty = false,
            Err(error) => {
                if !self.state_dirty {
                    log::error!(
                        "cannot write STATE_FILE {}: {error}; after a restart more of the history is read again",
                        path.display()
                    );
                }
                self.state_dirty = true;
            }
        }
    }

    /// What time brings.
    fn tick(&mut self) {
        self.ticked = self.clock.now();
        self.look();
        self.say_held_back(self.ticked);
        let cursor = self.sink.as_ref().and_then(Sink::cursor);
        let cursor_moved = cursor.is_some() && cursor != self.state.cursor;
        if self.state_dirty || (cursor_moved && self.ticked - self.cursor_kept >= CURSOR_KEPT_EVERY) {
            self.save_state();
        }
        if self.unreadable_last.is_some_and(|last| self.ticked - last > UNREADABLE_TOLD) {
            self.unreadable_last = None;
            self.status.clear(Code::UnreadableFrames);
        }
    }

    /// Notices that someone else moved, deleted or cut the file.
    fn look(&mut self) {
        match self.output.look() {
            Ok(change) => {
                if change != Change::None
                    && let Some(sink) = &mut self.sink
                {
                    sink.moved();
                }
                match change {
                    Change::None => {}
                    Change::Replaced => log::info!("{} was moved or deleted: a new one is begun", self.output.path().display()),
                    Change::Cut => log::info!("{} was cut by someone else", self.output.path().display()),
                }
                if self.intake.lines.is_empty() {
                    self.status.clear(Code::DiskWriteFailed);
                }
            }
            Err(error) => self.status.raise(
                Code::DiskWriteFailed,
                format!(
                    "{} is gone and cannot be begun anew: {error}; events wait in memory, then in Genesys's history for ten days: bring the folder back, and it goes on by itself",
                    self.output.path().display()
                ),
            ),
        }
    }

    /// Reads what the files show: the window, and the newest records.
    fn load(&mut self) -> Result<(), String> {
        self.beat.busy();
        let horizon = self.state.checkpoint_ms.unwrap_or(0) - self.reach_ms();
        let row_delay_ms = self.intake.row_delay_ms;
        let begun = self.clock.now();
        let (newest, newest_bytes) = (RefCell::new(Vec::new()), Cell::new(0));
        let full = || newest.borrow().len() >= RECENT_MAX || newest_bytes.get() >= RECENT_BYTES_MAX;
        let window = &mut self.intake.window;
        let record = |text: &str, line: &Line<'_>| {
            if !full() {
                newest_bytes.set(newest_bytes.get() + text.len());
                newest.borrow_mut().push(text.as_bytes().to_vec());
            }
            let sighting = records::sighting(line, row_delay_ms);
            if sighting.moment.nominal() >= horizon {
                window.note(sighting);
            }
        };
        let files = records::files(self.output.path());
        records::each_since(&files, horizon, record, || !full(), || self.beat.busy())
            .map_err(|error| format!("cannot read {} and its backups: {error}", self.output.path().display()))?;
        self.status.recent.extend(newest.borrow().iter().rev().map(Vec::as_slice));
        let known = self.intake.window.len();
        if known > 0 {
            let ms = (self.clock.now() - begun).as_millis();
            log::info!("{known} events of the files may come again and are known, read in {ms} ms");
        }
        Ok(())
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
        self.flush(&inbox.stop)?;
        self.finish_cluster();
        self.output.sync().map_err(|error| format!("cannot sync {}: {error}", self.output.path().display()))?;
        self.save_state();
        Ok(())
    }
}

impl Writer {
    /// What the cluster takes quickly it gets before the end; the rest it gets after the next start.
    fn finish_cluster(&mut self) {
        let Some(sink) = &mut self.sink else { return };
        let deadline = self.clock.now() + CLUSTER_STOP_MAX;
        let answers = sink.answers().clone();
        while sink.pending() {
            sink.flush();
            match answers.recv_deadline(deadline) {
                Ok(answer) => sink.answer(answer),
                Err(_) => return,
            }
        }
    }
}

/// Appends rows that an audit found missing, while no collector runs: the caller holds the lock. Returns how many.
///
/// # Errors
/// When the file cannot be opened, written or synced.
pub fn repair(config: &Config, definitions: &[Definition], page: &Page) -> Result<u64, String> {
    let path = &config.output.file;
    let cannot = |error: std::io::Error| format!("cannot append to {}: {error}", path.display());
    let (mut output, _) = OutputFile::open(path, None).map_err(cannot)?;
    output.give_to_folders_owner();
    let mut intake =
        Intake::new(Redaction::new(&config.output.redact_fields), config.catch_up.overlap.as_millis() as i64);
    intake.definitions = Definitions::new(definitions);
    intake.repair(page);
    if let Some(Stopped::Error(error)) = output.append(&intake.lines).stopped {
        return Err(cannot(error));
    }
    output.sync().map_err(cannot)?;
    Ok(intake.tally.written)
}

/// What the log shows of a text: one that an event does not have is null there, as in the record.
fn or_null(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// The state to begin with. A first start is remembered at once: where it began must not move with a restart.
fn begin_state(config: &Config, wall: Millis) -> Result<State, String> {
    let path = &config.output.state_file;
    let found = state::read(path).map_err(|error| format!("cannot read STATE_FILE {}: {error}", path.display()))?;
    let state = match found {
        state::Found::State(state) if state.checkpoint_ms.is_some() => return Ok(state),
        state::Found::State(state) => state,
        state::Found::Absent => State::default(),
        state::Found::Damaged { aside, why } => {
            log::warn!(
                "STATE_FILE {} was damaged ({why}) and is put aside as {}; the output file shows where to begin",
                path.display(),
                aside.display()
            );
            State::default()
        }
    };
    let first = wall - (config.catch_up.start.as_millis() as i64).min(HISTORY_KEPT_MS);
    // Records of ours show that this is no first start: all that they may lack since the oldest of them is read again.
    let checkpoint = records::oldest_of_ours(&records::files(&config.output.file))
        .map_or(first, |oldest| oldest.max(wall - HISTORY_KEPT_MS));
    let state = State { checkpoint_ms: Some(checkpoint), origin_ms: Some(checkpoint), ..state };
    state::write(path, &state).map_err(|error| {
        format!(
            "cannot write STATE_FILE {}: {error}; the user that runs the collector must be able to write there",
            path.display()
        )
    })?;
    Ok(state)
}
