//! Fills the cluster from the file: the writer thread's side.
//!
//! Deals with: making the next batch, judging its answer, the cursor, the reasons that `/health` gives. Must never: wait.
//! Each call returns at once; what takes time is done by the carrier thread, and one request is under way at a time.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use twox_hash::XxHash3_128;

use crate::clock::Clock;
use crate::config;
use crate::elastic::carrier::{self, Answer, Carrier, Failure, Job};
use crate::elastic::chain::{self, Chain};
use crate::elastic::dead;
use crate::elastic::lines;
use crate::elastic::link::{BLOCKED_AFTER, Link, Next, PROBE_TIMEOUT};
use crate::elastic::probe::{self, Greeting};
use crate::elastic::queue::{Queue, REQUEST_BYTES_MAX};
use crate::elastic::setup::Setup;
use crate::elastic::verdict::{Item, Reply, Verdict, judge};
use crate::event::read_line;
use crate::output::backups::{self, Dropped, Keep};
use crate::output::identity::{Cursor, FileIdentity};
use crate::status::{Code, Status};

/// Bytes that one step looks through, at most, when it finds nothing but lines to be skipped.
const STEP_BYTES_MAX: usize = 2 * REQUEST_BYTES_MAX;
/// Requests are not made smaller than this for a cluster that is slow.
const SLOW_BYTES_MIN: usize = 64 * 1024;
/// A request this large may be what breaks the connection.
const SUSPECT_BYTES: usize = 256 * 1024;
/// Requests that went well before a larger one is tried again after a 413.
const GROW_AFTER: u32 = 100;
/// How often the dead letters are looked for while there are any: a replay in another process takes them.
const DEAD_CHECK_EVERY: Duration = Duration::from_secs(5);
/// How long the loss of a backlog is shown after the last one.
const DROPPED_SHOWN: Duration = Duration::from_secs(3600);
/// How often the template is tried before documents go without.
const SETUP_TRIES_MAX: u32 = 3;
/// A document that was put off this often, while others go, is said.
const TRIES_SAID: u32 = 50;

/// The cluster's side of the writer.
pub struct Sink {
    settings: config::Elastic,
    path: PathBuf,
    backup_count: u32,
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
    /// Documents were taken since a request was last not understood.
    accepted_since_malformed: bool,
    /// The cursor while the file that comes next has no line yet.
    passed: Option<Cursor>,
    trimmed_at: Option<FileIdentity>,
    skipped_said: bool,
    setup_failures: u32,
    template_said: bool,
    refused_by_probe: bool,
    why: String,
    dead_check: Option<Instant>,
    dropped_until: Option<Instant>,
    dropped_events: u64,
}

struct InFlight {
    node: usize,
    /// Documents under way; none for a probe.
    documents: usize,
    bytes: usize,
}

impl Sink {
    /// Opens the files at the cursor and starts the carrier thread. Without a cursor everything that is there is sent.
    ///
    /// # Errors
    /// When a file cannot be read, the CA file is none, or no thread can be started.
    pub fn start(
        settings: &config::Elastic,
        output: &config::Output,
        network: &config::Network,
        cursor: Option<Cursor>,
        status: Arc<Status>,
        clock: Clock,
        stop: Receiver<()>,
    ) -> io::Result<Self> {
        let carrier = Carrier::new(settings, network, clock.clone())?;
        let nodes: Vec<String> = (0..carrier.nodes()).map(|node| carrier.shown(node)).collect();
        let (jobs, taken) = bounded(1);
        let (given, answers) = bounded(1);
        carrier::spawn(carrier, settings.index.clone(), status.clone(), taken, given, stop)?;
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
            unread_lines: (chain.unread_bytes() == 0).then_some(0),
            waiting_since: None,
            current_bytes: 0,
            backlog_bytes: 0,
            bytes_max: REQUEST_BYTES_MAX,
            documents_max: settings.bulk_size,
            good_requests: 0,
            accepted_since_malformed: false,
            passed: None,
            trimmed_at: None,
            skipped_said: false,
            setup_failures: 0,
            template_said: false,
            refused_by_probe: false,
            why: "it has not answered yet".to_owned(),
            dead_check: None,
            dropped_until: None,
            dropped_events: 0,
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
        let blocked = self.blocked_since().map(|since| since + BLOCKED_AFTER).filter(|at| *at > now);
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
            if !self.queue.has_room(line.len()) {
                break;
            }
            looked_at += line.len() + 1;
            read += 1;
            match lines::fields(line) {
                Some(fields) => match fields.id {
                    Some(id) => self.queue.push(line, &fields, id, at),
                    None => self.queue.push(line, &fields, id_of_legacy_line(line).as_bytes(), at),
                },
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
    fn skip(&mut self) {
        self.status.counters.errors.add(1);
        if !std::mem::replace(&mut self.skipped_said, true) {
            log::warn!(
                "{} holds a line that is no JSON object; the cluster does not get it, nor any more of the kind",
                self.path.display()
            );
        }
    }

    fn judge(&mut self, node: usize, flight: &InFlight, outcome: Result<Reply, Failure>, now: Instant) {
        let sent = flight.documents;
        let reply = match outcome {
            Ok(reply) => reply,
            Err(failure) => {
                if failure.timed_out || failure.broke && flight.bytes >= SUSPECT_BYTES {
                    self.bytes_max = (flight.bytes / 2).max(SLOW_BYTES_MIN);
                    self.good_requests = 0;
                }
                return self.failed(node, failure.why, failure.timed_out, None, now);
            }
        };
        match judge(&reply, sent) {
            Verdict::Items(items) => self.settle(node, &items, now),
            Verdict::TooLarge(why) if sent == 1 => {
                self.settle(node, &[Item::Dead { status: 413, reason: why }], now);
            }
            Verdict::TooLarge(_) => {
                self.bytes_max = flight.bytes / 2;
                self.good_requests = 0;
                self.link.again(node, now);
            }
            Verdict::Malformed(_) if sent > 1 => {
                if self.documents_max >= self.settings.bulk_size {
                    self.accepted_since_malformed = false;
                }
                self.documents_max = sent / 2;
                self.link.again(node, now);
            }
            // Others were understood meanwhile: so it is this one.
            Verdict::Malformed(why) if self.accepted_since_malformed => {
                self.settle(node, &[Item::Dead { status: 400, reason: why }], now);
            }
            Verdict::Malformed(why) => {
                self.queue.put_last();
                self.failed(node, why, false, None, now);
            }
            Verdict::Refused(why) => {
                self.link.refused(node, now);
                self.say_refused(node, &why);
            }
            Verdict::ReadOnly(why) => {
                self.link.read_only(node, now);
                self.say_read_only(&why);
            }
            Verdict::Busy { why, retry_after } => self.failed(node, why, false, retry_after, now),
            Verdict::Failed(why) => self.failed(node, why, false, None, now),
        }
    }

    fn failed(&mut self, node: usize, why: String, timed_out: bool, retry_after: Option<Duration>, now: Instant) {
        log::debug!("{}: {why}", self.nodes[node]);
        self.why = format!("{}: {why}", self.nodes[node]);
        self.link.failed(node, timed_out, retry_after, now);
        // Whatever it is now, it is no refused login any more.
        self.status.clear(Code::ElasticRefused);
    }

    /// Takes out what is done and puts the rest off.
    fn settle(&mut self, node: usize, items: &[Item], now: Instant) {
        let dead_written = self.bury(items);
        let (mut created, mut exists, mut dead) = (0, 0, 0);
        let (mut refused, mut read_only, mut put_off) = (None, None, None);
        for item in items {
            match item {
                Item::Created => created += 1,
                Item::Exists => exists += 1,
                Item::Dead { .. } if dead_written => dead += 1,
                Item::Dead { reason, .. } => put_off = Some(reason),
                Item::Again(why) => put_off = Some(why),
                Item::Refused(why) => refused = Some(why),
                Item::ReadOnly(why) => read_only = Some(why),
            }
        }
        let counters = &self.status.counters;
        counters.elastic_created.add(created);
        counters.elastic_exists.add(exists);
        counters.elastic_dead.add(dead);
        let done = (created + exists + dead) as usize;
        let tries = self.queue.settle(items.len(), |index| match &items[index] {
            Item::Created | Item::Exists => false,
            Item::Dead { .. } => !dead_written,
            _ => true,
        });
        if done > 0 {
            self.went_well();
        }
        if let Some(why) = refused {
            self.link.refused(node, now);
            return self.say_refused(node, why);
        }
        if let Some(why) = read_only {
            self.link.read_only(node, now);
            return self.say_read_only(why);
        }
        if let Some(why) = put_off.filter(|_| dead_written) {
            self.why = format!("{} puts documents off: {why}", self.nodes[node]);
        }
        self.status.clear(Code::ElasticRefused);
        if done == 0 {
            return self.link.put_off(node, now);
        }
        self.link.progressed(node, items.len() - done, items.len(), now);
        if tries >= TRIES_SAID {
            self.say_unreachable();
        } else {
            self.status.clear(Code::ElasticUnreachable);
        }
    }

    fn went_well(&mut self) {
        self.accepted_since_malformed = true;
        self.documents_max = (self.documents_max * 2).min(self.settings.bulk_size);
        self.good_requests += 1;
        if self.good_requests >= GROW_AFTER {
            self.good_requests = 0;
            self.bytes_max = (self.bytes_max * 2).min(REQUEST_BYTES_MAX);
        }
    }

    /// Writes the dead letters; `false` when they could not be written, and their documents must go again.
    fn bury(&mut self, items: &[Item]) -> bool {
        let mut letters = Vec::new();
        let mut last = None;
        for (index, item) in items.iter().enumerate() {
            let Item::Dead { status, reason } = item else { continue };
            let record = self.queue.record(index);
            if dead::push_letter(&mut letters, self.clock.wall(), *status, reason, &record) {
                last = Some(reason);
            } else {
                // It is no JSON at all, which only the cluster's own reading showed.
                self.skip();
            }
        }
        if letters.is_empty() {
            return true;
        }
        match dead::append(&self.path, &letters) {
            Ok(()) => {
                self.say_dead(last.map(String::as_str));
                true
            }
            Err(error) => {
                self.why = format!("cannot write {}: {error}", dead::letters_path(&self.path).display());
                // Another process holds the lock for the blink of an eye: nothing to speak of.
                if error.kind() != io::ErrorKind::WouldBlock {
                    log::warn!("{}", self.why);
                }
                false
            }
        }
    }

    fn greeted(&mut self, node: usize, greeting: Greeting, now: Instant) {
        match greeting {
            Greeting::Alive { server } => {
                self.link.probed(node, true, now);
                if let Some(server) = server {
                    self.name_server(node, server);
                }
                if std::mem::take(&mut self.refused_by_probe) {
                    self.status.clear(Code::ElasticRefused);
                }
                if self.blocked_since().is_none() {
                    self.status.clear(Code::ElasticUnreachable);
                }
            }
            Greeting::Refused(why) => {
                self.refused_by_probe = true;
                self.link.refused(node, now);
                self.say_refused(node, &why);
            }
            Greeting::Absent(why) => {
                self.why = format!("{}: {why}", self.nodes[node]);
                self.link.probed(node, false, now);
            }
        }
    }

    fn name_server(&self, node: usize, server: String) {
        self.status.update_elastic(|view| {
            if view.server.as_ref() != Some(&server) {
                log::info!("the cluster at {} is {server}", self.nodes[node]);
                view.server = Some(server);
            }
        });
    }

    fn set_up(&mut self, node: usize, outcome: Setup, now: Instant) {
        let name = crate::elastic::template::name(&self.settings.index);
        let mut once = |message: String| {
            if !std::mem::replace(&mut self.template_said, true) {
                log::warn!("{message}");
            }
        };
        match outcome {
            Setup::Put { data_stream } => {
                let kind = if data_stream { "a data stream" } else { "an index" };
                log::info!("put the index template {name} for {}, {kind}", self.settings.index);
            }
            Setup::Present => {}
            Setup::Left(why) => {
                if !std::mem::replace(&mut self.template_said, true) {
                    log::info!(
                        "did not put the index template {name}: {why}; `audiohook-collector template` prints ours"
                    );
                }
            }
            Setup::Refused(why) => once(format!(
                "cannot put the index template {name}: {why}; documents go all the same: give the user the right manage_index_templates, or put what `audiohook-collector template` prints and set ELASTIC_SETUP=false"
            )),
            Setup::Failed(why) => {
                self.setup_failures += 1;
                if !self.setup_failures.is_multiple_of(SETUP_TRIES_MAX) {
                    return self.failed(node, why, false, None, now);
                }
                once(format!("cannot put the index template {name}: {why}; documents go all the same"));
            }
        }
        self.link.set_up(now);
    }

    fn blocked_since(&self) -> Option<Instant> {
        let node = self.in_flight.as_ref().filter(|flight| flight.documents > 0).map(|flight| flight.node);
        self.link.blocked_since(node)
    }

    /// Raises and clears what time alone changes.
    fn watch(&mut self, now: Instant) {
        if self.blocked_since().is_some_and(|since| now >= since + BLOCKED_AFTER)
            && !self.status.is_raised(Code::ElasticRefused)
        {
            self.say_unreachable();
        }
        if self.dead_check.is_some_and(|at| at <= now) {
            self.check_dead(now);
        }
        if self.dropped_until.is_some_and(|until| until <= now) {
            self.dropped_until = None;
            self.dropped_events = 0;
            self.status.clear(Code::ElasticBacklogDropped);
        }
    }

    fn say_unreachable(&self) {
        self.status.raise(
            Code::ElasticUnreachable,
            format!(
                "the cluster takes no documents ({}): the events are safe in {}, {} bytes of them wait and go by themselves when it is back; look at the cluster and at ELASTIC_URL",
                self.why,
                self.path.display(),
                self.backlog_bytes
            ),
        );
    }

    fn say_refused(&self, node: usize, why: &str) {
        self.status.clear(Code::ElasticUnreachable);
        self.status.raise(
            Code::ElasticRefused,
            format!(
                "{} {why}: the events are safe in {} and go when it lets us; look at ELASTIC_AUTH, and at the rights to create documents in {:?}",
                self.nodes[node],
                self.path.display(),
                self.settings.index
            ),
        );
    }

    fn say_read_only(&self, why: &str) {
        self.status.clear(Code::ElasticUnreachable);
        self.status.raise(
            Code::ElasticRefused,
            format!(
                "the index {:?} is read-only: {why}; the events are safe in {} and go when it takes writes; make room on the cluster's disks, then set index.blocks.read_only_allow_delete to null",
                self.settings.index,
                self.path.display()
            ),
        );
    }

    fn say_dead(&mut self, reason: Option<&str>) {
        let reason = reason.map(|reason| format!(" (the last: {reason})")).unwrap_or_default();
        self.status.raise(
            Code::DeadLetters,
            format!(
                "the cluster will not take some documents as they are{reason}: the events are safe in {} and in {}, and missing in the cluster; mend the cause, mostly the index's mapping, then run `audiohook-collector replay`",
                self.path.display(),
                dead::letters_path(&self.path).display()
            ),
        );
        self.dead_check = Some(self.clock.now() + DEAD_CHECK_EVERY);
    }

    fn check_dead(&mut self, now: Instant) {
        if !dead::any(&self.path) {
            self.dead_check = None;
            self.status.clear(Code::DeadLetters);
        } else if self.status.is_raised(Code::DeadLetters) {
            self.dead_check = Some(now + DEAD_CHECK_EVERY);
        } else {
            self.say_dead(None);
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

    fn take_dropped(&mut self, dropped: Dropped) {
        if dropped.files == 0 {
            return;
        }
        if let Err(error) = self.chain.dropped() {
            log::error!("cannot read the folder of {}: {error}", self.path.display());
        }
        self.unread_lines = None;
        self.status.counters.elastic_dropped.add(dropped.events);
        self.dropped_events += dropped.events;
        self.dropped_until = Some(self.clock.now() + DROPPED_SHOWN);
        self.status.raise(
            Code::ElasticBacklogDropped,
            format!(
                "{} events were deleted with the oldest backups of {} before the cluster had them, for more than ELASTIC_BACKLOG_MAX waited: they are missing there for good; see why it took none, or allow more",
                self.dropped_events,
                self.path.display()
            ),
        );
    }

    fn publish(&mut self) {
        self.backlog_bytes = self.chain.unread_bytes() + self.queue.record_bytes();
        self.status.gauges.elastic_backlog_bytes.set(self.backlog_bytes as i64);
    }
}

/// The id of a record that has none, the predecessor's: the same in every run, and the one that its event has.
pub fn id_of_legacy_line(line: &[u8]) -> String {
    let read = std::str::from_utf8(line).ok().and_then(|text| read_line(text, &mut Vec::new()).ok());
    // What is no record in all strictness has an id of its text.
    read.map_or_else(|| format!("{:032x}", XxHash3_128::oneshot(line)), |record| record.id.to_string())
}
