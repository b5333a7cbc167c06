//! Fills the cluster from the file: the writer thread's side.
//!
//! Deals with: making the next batch, judging its answer, the cursor, the reasons that `/health` gives. Must never: wait.
//! Each call returns at once; what takes time is done by the carrier thread, and one request is under way at a time.

mod judging;
mod reasons;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use serde::{Deserialize, Serialize};

use crate::clock::{Clock, Millis};
use crate::config;
use crate::elastic::buried::Buried;
use crate::elastic::carrier::{self, Answer, Carrier, Job};
use crate::elastic::chain::{self, Chain};
use crate::elastic::document::Document;
use crate::elastic::link::{BLOCKED_AFTER, Link, Next, PROBE_TIMEOUT};
use crate::elastic::probe;
use crate::elastic::queue::{Queue, REQUEST_BYTES_MAX};
use crate::event::Redaction;
use crate::output::backups::{self, Dropped, Keep};
use crate::output::identity::{Cursor, FileIdentity};
use crate::status::Status;

/// Bytes that one step looks through, at most, when it finds nothing but lines to be skipped.
const STEP_BYTES_MAX: usize = 2 * REQUEST_BYTES_MAX;

/// The cluster's side of the writer.
pub struct Sink {
    settings: config::Elastic,
    path: PathBuf,
    backup_count: u32,
    redaction: Redaction,
    clock: Clock,
    status: Arc<Status>,
    chain: Chain,
    queue: Queue,
    link: Link,
    nodes: Vec<String>,
    jobs: Sender<Job>,
    answers: Receiver<Answer>,
    in_flight: Option<InFlight>,
    /// Lines behind what was read; `None`: not counted, there are older files.
    unread_lines: Option<u64>,
    /// Since when the oldest of those waits.
    waiting_since: Option<Instant>,
    current_bytes: u64,
    backlog_bytes: u64,
    /// What a request may hold, as the cluster taught us.
    bytes_max: usize,
    documents_max: usize,
    good_requests: u32,
    grow_after: u32,
    /// Documents were taken since a request was last not understood.
    accepted_since_malformed: bool,
    /// The cursor while the file that comes next has no line yet.
    passed: Option<Cursor>,
    trimmed_at: Option<FileIdentity>,
    skipped_said: bool,
    setup_failures: u32,
    template_said: bool,
    refused_by_probe: bool,
    /// The last cause of a failure, of those since documents went last.
    why: String,
    dead_check: Option<Instant>,
    buried: Buried,
    dropped_until: Option<Instant>,
    dropped: Option<BacklogDropped>,
    /// When the unreachable cluster was said last.
    said_at: Option<Instant>,
}

/// Events that were deleted before the cluster had them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BacklogDropped {
    /// The last time that it happened.
    pub at_ms: Millis,
    pub events: u64,
}

struct InFlight {
    node: usize,
    /// Documents under way; none for a probe.
    documents: usize,
    bytes: usize,
}

impl Sink {
    /// Opens the files at the cursor and starts the carrier thread. Without a cursor everything that is there is sent; what
    /// was dropped before is said for its hour.
    ///
    /// # Errors
    /// When a file cannot be read, the CA file is none, or no thread can be started.
    pub fn start(
        settings: &config::Elastic,
        output: &config::Output,
        network: &config::Network,
        (cursor, dropped): (Option<Cursor>, Option<BacklogDropped>),
        status: Arc<Status>,
        clock: Clock,
    ) -> io::Result<Self> {
        let carrier = Carrier::new(settings, network, clock.clone())?;
        let nodes: Vec<String> = (0..carrier.nodes()).map(|node| carrier.shown(node)).collect();
        let (jobs, taken) = bounded(1);
        let (given, answers) = bounded(1);
        carrier::spawn(carrier, settings.index.clone(), status.clone(), taken, given)?;
        let (chain, lost) = Chain::open(&output.file, &output.state_file, cursor)?;
        if lost {
            log::warn!(
                "the file that the cluster was filled from up to now is gone; beginning at the oldest of {}, what the cluster has is not doubled",
                output.file.display()
            );
        }
        let now = clock.now();
        let seed = RandomState::new().hash_one(now);
        let mut sink = Self {
            link: Link::new(nodes.len(), settings.setup, seed, now),
            queue: Queue::new(&settings.index),
            path: output.file.clone(),
            backup_count: output.backup_count,
            redaction: Redaction::new(&output.redact_fields),
            unread_lines: (chain.unread_bytes() == 0).then_some(0),
            waiting_since: None,
            current_bytes: 0,
            backlog_bytes: 0,
            bytes_max: REQUEST_BYTES_MAX,
            documents_max: settings.bulk_size,
            good_requests: 0,
            grow_after: judging::GROW_AFTER_BUSY,
            accepted_since_malformed: false,
            passed: None,
            trimmed_at: None,
            skipped_said: false,
            setup_failures: 0,
            template_said: false,
            refused_by_probe: false,
            why: String::new(),
            dead_check: None,
            buried: Buried::default(),
            dropped_until: None,
            dropped: None,
            said_at: None,
            in_flight: None,
            settings: settings.clone(),
            nodes,
            jobs,
            answers,
            chain,
            status,
            clock,
        };
        sink.check_dead(now);
        if let Some(dropped) = dropped {
            sink.say_dropped(dropped);
        }
        sink.trim();
        sink.publish();
        Ok(sink)
    }

    /// Where the answers come: each one belongs into [`Sink::answer`].
    pub fn answers(&self) -> &Receiver<Answer> {
        &self.answers
    }

    /// When [`Sink::step`] must be called though nothing came.
    pub fn wake_at(&self) -> Option<Instant> {
        let now = self.clock.now();
        let mut wake = match self.in_flight {
            Some(_) => None,
            None => match self.link.next(now, self.due(now)) {
                Next::Wait(until) => Some(until),
                _ => Some(now),
            },
        };
        let blocked = self.late_since().map(|since| since + BLOCKED_AFTER).filter(|at| *at > now);
        for at in [blocked, self.dead_check, self.dropped_until].into_iter().flatten() {
            wake = Some(wake.map_or(at, |wake| wake.min(at)));
        }
        wake
    }

    /// The file was appended to: its whole length now, and how many lines came.
    pub fn appended(&mut self, bytes: u64, lines: u64) {
        self.chain.appended(bytes);
        if bytes < self.current_bytes {
            self.unread_lines = None;
        }
        self.backlog_bytes += bytes.saturating_sub(self.current_bytes);
        self.current_bytes = bytes;
        self.unread_lines = self.unread_lines.map(|unread| unread + lines);
        if self.waiting_since.is_none() {
            self.waiting_since = Some(self.clock.now());
        }
        self.status.gauges.elastic_backlog_bytes.set(self.backlog_bytes as i64);
    }

    /// The file became `.1`, and there is a new one; what was deleted for it is counted and said.
    pub fn rotated(&mut self, dropped: Dropped) {
        self.chain.rotated();
        self.current_bytes = 0;
        self.take_dropped(dropped);
        self.publish();
    }

    /// The file was moved, deleted or cut short by somebody, and there is a new one: the old one is held open until all of
    /// it is sent.
    pub fn moved(&mut self) {
        self.chain.moved();
        self.current_bytes = 0;
        self.unread_lines = None;
        self.waiting_since.get_or_insert(self.clock.now());
        self.publish();
    }

    /// Up to where the cluster, or the dead letters, have everything. Worth keeping whenever it has changed; one of
    /// yesterday only costs documents that are sent again and are there already.
    pub fn cursor(&self) -> Option<Cursor> {
        self.queue.earliest().or_else(|| self.chain.place()).or(self.passed)
    }

    /// What a rotation must keep.
    pub fn keep(&self) -> Keep {
        Keep { cursor: self.cursor(), read: self.chain.place().or(self.passed), backlog_max: self.settings.backlog_max }
    }

    /// Whether documents wait that may go quickly: for the stop. With a cluster that is down there are none.
    pub fn pending(&self) -> bool {
        let waits = self.unread_lines != Some(0) || !self.queue.is_empty();
        let under_way = self.in_flight.as_ref().is_some_and(|flight| flight.documents > 0);
        !self.link.is_trial() && (under_way || waits)
    }

    /// Documents that wait for others go now: for the stop.
    pub fn flush(&mut self) {
        if self.unread_lines != Some(0) {
            self.unread_lines = None;
        }
        self.step();
    }

    /// Sends what is due, if nothing is under way.
    pub fn step(&mut self) {
        let now = self.clock.now();
        self.watch(now);
        if self.in_flight.is_some() {
            return;
        }
        match self.link.next(now, self.due(now)) {
            Next::Bulk { node, timeout } => self.send(node, timeout, now),
            Next::Probe { node } => self.carry(node, Job::Probe { node, timeout: PROBE_TIMEOUT }, 0, 0),
            Next::Setup { node } => self.carry(node, Job::Setup { node }, 0, 0),
            Next::Wait(_) => {}
        }
    }

    /// Judges an answer.
    pub fn answer(&mut self, answer: Answer) {
        let now = self.clock.now();
        let flight = self.in_flight.take();
        match answer {
            Answer::Bulk { node, body, outcome } => {
                self.queue.return_body(body);
                if let Some(flight) = flight {
                    self.judge(node, &flight, outcome, now);
                }
            }
            Answer::Probe { node, outcome } => self.greeted(node, probe::greet(&outcome), now),
            Answer::Setup { node, outcome } => self.set_up(node, outcome, now),
        }
        self.trim();
        self.publish();
        self.watch(now);
    }

    /// When documents want to go.
    fn due(&self, now: Instant) -> Option<Instant> {
        if !self.queue.is_empty() {
            return Some(now);
        }
        match self.unread_lines {
            None => Some(now),
            Some(0) => None,
            Some(lines) => {
                let full = lines >= self.settings.bulk_size as u64 || self.backlog_bytes >= REQUEST_BYTES_MAX as u64;
                Some(if full { now } else { self.waiting_since.unwrap_or(now) + self.settings.flush_interval })
            }
        }
    }

    fn send(&mut self, node: usize, timeout: Duration, now: Instant) {
        self.fill(now);
        let documents_max = if self.link.is_trial() { 1 } else { self.documents_max };
        let (documents, bytes) = self.queue.fitting(documents_max, self.bytes_max);
        if documents == 0 {
            self.publish();
            return;
        }
        self.link.sent(now);
        let body = self.queue.take_body();
        self.carry(node, Job::Bulk { node, body, length: bytes, timeout }, documents, bytes);
    }

    fn carry(&mut self, node: usize, job: Job, documents: usize, bytes: usize) {
        self.in_flight = Some(InFlight { node, documents, bytes });
        // The carrier takes one job at a time and none is under way: there is room, unless it has ended with the program.
        if self.jobs.try_send(job).is_err() {
            log::debug!("cannot send to the cluster: the program is ending");
        }
    }

    /// Reads documents until the batch is full.
    fn fill(&mut self, now: Instant) {
        let mut looked_at = 0;
        let mut read = 0;
        let mut ended = false;
        while self.queue.len() < self.settings.bulk_size && looked_at < STEP_BYTES_MAX {
            let (line, at) = match self.chain.next() {
                Ok(chain::Next::Line(line, at)) => (line.trim_ascii(), at),
                Ok(chain::Next::Torn) => {
                    self.skip();
                    continue;
                }
                Ok(chain::Next::End) => {
                    ended = true;
                    break;
                }
                Err(error) => {
                    self.why = format!("cannot read {}: {error}", self.path.display());
                    log::error!("{}", self.why);
                    self.link.pause(now);
                    break;
                }
            };
            let document = Document::of(line, &self.redaction);
            if !self.queue.has_room(document.as_ref().map_or(line.len(), |document| document.text.len())) {
                break;
            }
            looked_at += line.len() + 1;
            read += 1;
            match document {
                Some(document) => self.queue.push(&document.text, &document.fields(), &document.id, at),
                None if line.is_empty() => {}
                None => self.skip(),
            }
            self.chain.pass();
        }
        self.chain.rest();
        self.passed = self.chain.place().or(self.passed);
        self.unread_lines = if ended { Some(0) } else { self.unread_lines.map(|unread| unread.saturating_sub(read)) };
        // What is left came while this batch was gathered.
        self.waiting_since = (!ended).then_some(now);
    }

    /// A line that is no record: never the cluster's, and never in the way.
    pub(super) fn skip(&mut self) {
        self.status.counters.errors.add(1);
        if !std::mem::replace(&mut self.skipped_said, true) {
            log::warn!(
                "{} holds a line that is no JSON object; the cluster does not get it, nor any more of the kind",
                self.path.display()
            );
        }
    }

    /// Deletes the backups that were kept for the cluster alone, as soon as it has had them.
    fn trim(&mut self) {
        let file = self.cursor().map(|cursor| cursor.file);
        if self.backup_count == 0 || file.is_none() || file == self.trimmed_at {
            return;
        }
        self.trimmed_at = file;
        match backups::trim(&self.path, self.backup_count, Some(self.keep())) {
            Ok(dropped) => self.take_dropped(dropped),
            Err(error) => log::warn!("cannot delete old backups of {}: {error}", self.path.display()),
        }
    }

    fn publish(&mut self) {
        self.backlog_bytes = self.chain.unread_bytes() + self.queue.record_bytes();
        self.status.gauges.elastic_backlog_bytes.set(self.backlog_bytes as i64);
    }
}
