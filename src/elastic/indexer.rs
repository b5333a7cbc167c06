//! The indexer: the one thread that fills the cluster from the file.
//!
//! The file is the queue: the indexer reads it behind its cursor, sends, judges the answer and publishes the cursor. It
//! blocks on its own requests, and nothing else waits for it. Must never: delay the file, hold more of it in memory than
//! one batch, or move the cursor past a document that is neither in the cluster nor among the dead letters.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, after, bounded, select};

use crate::clock::Clock;
use crate::config;
use crate::elastic::dead_letters;
use crate::elastic::handle::{BacklogDropped, IndexerHandle, Progress, Shared};
use crate::elastic::nodes::Nodes;
use crate::elastic::probe::{Greeting, PROBE_TIMEOUT, Server, greet};
use crate::elastic::sender::{Attempt, Judged, Sender, letters_of};
use crate::elastic::setup::Setup;
use crate::elastic::source::Source;
use crate::elastic::template::Product;
use crate::elastic::transport::Transport;
use crate::elastic::verdict::{Cause, Held};
use crate::status::{Beat, Code, Problem, Status};
use crate::thread;

/// An idle cluster is probed this often, so that its end is known before the next document.
const IDLE_PROBE_EVERY: Duration = Duration::from_secs(5);
/// Documents that have not gone for this long are reported.
const BLOCKED_AFTER: Duration = Duration::from_secs(5);
/// Between two tries while the login is refused, and while the index takes no writes: only a try can tell.
const REFUSED_WAIT: Duration = Duration::from_secs(30);
const BLOCKED_WAIT: Duration = Duration::from_secs(8);
/// Before documents that were put off go again, if all were; with fewer of them it is shorter in proportion.
const PUT_OFF_WAIT: Duration = Duration::from_millis(100);
/// How long lines gather after a wake-up before they are read.
const GATHER: Duration = Duration::from_millis(100);
/// How often the dead letters are looked for: a replay in another process takes them.
const DEAD_CHECK_EVERY: Duration = Duration::from_secs(5);
/// How long a stop lets documents go.
const FINISH_MAX: Duration = Duration::from_secs(1);
/// How often the template is tried before documents go without it, for a cluster that is busy and for one whose answer
/// will most likely stay what it is.
const SETUP_TRIES_BUSY: u32 = 8;
const SETUP_TRIES: u32 = 3;

/// Why documents do not go, or some of them.
struct Trouble {
    held: Held,
    /// The node that said so.
    node: usize,
    since: Instant,
    /// The node works: it is the documents that it does not take.
    is_put_off: bool,
}

/// Where the indexer is with the template.
#[derive(Default)]
struct SetupState {
    done: bool,
    tries: u32,
    product: Product,
    said: bool,
}

/// The thread's own state.
pub struct Indexer {
    settings: config::Elastic,
    source: Source,
    sender: Sender,
    nodes: Nodes,
    setup: SetupState,
    trouble: Option<Trouble>,
    /// Since when the oldest document in the batch waits for others.
    waiting_since: Option<Instant>,
    last_contact: Instant,
    dead_checked: Option<Instant>,
    status: Arc<Status>,
    shared: Arc<Shared>,
    clock: Clock,
}

/// What the thread listens to.
struct Signals {
    wake: Receiver<()>,
    finish: Receiver<()>,
    beat: Beat,
}

impl Indexer {
    /// Opens the files at the cursor and starts the thread. Without a cursor everything that is there is sent; what was
    /// dropped before is reported for the rest of its hour.
    ///
    /// # Errors
    /// When a file cannot be read, the CA file is none, or no thread can be started.
    pub fn start(
        settings: &config::Elastic,
        output: &config::Output,
        network: &config::Network,
        (progress, dropped): (Option<Progress>, Option<BacklogDropped>),
        status: Arc<Status>,
        clock: Clock,
    ) -> Result<(IndexerHandle, JoinHandle<()>), Problem> {
        let transport = Transport::new(settings, network, clock.clone())?;
        let shared = Arc::new(Shared::new(progress, status.clone(), clock.clone(), output.file.clone()));
        let cannot = |error: io::Error| {
            let what = format!("cannot start to send {} to the cluster: {error}", output.file.display());
            Problem::new(what, "Check that the user that runs the collector may read OUTPUT_FILE and its backups.")
        };
        let source = Source::open(output, progress, shared.rotation.clone()).map_err(cannot)?;
        if let Some(dropped) = dropped {
            shared.show_dropped(&mut shared.lock(), dropped);
        }
        let now = clock.now();
        let indexer = Self {
            nodes: Nodes::new(transport.urls().len(), RandomState::new().hash_one(now), now),
            sender: Sender::new(settings, letters_of(output, settings.backlog_max, true), transport, clock.clone()),
            source,
            setup: SetupState::default(),
            trouble: None,
            waiting_since: None,
            last_contact: now,
            dead_checked: None,
            settings: settings.clone(),
            status: status.clone(),
            shared: shared.clone(),
            clock,
        };
        let (wake, woken) = bounded(1);
        let (finish, finished) = bounded(0);
        let (ended, done) = bounded(0);
        let signals = Signals { wake: woken, finish: finished, beat: status.beats.register("indexer") };
        let thread = thread::spawn("indexer", move || {
            indexer.run(&signals);
            drop(ended);
        })
        .map_err(cannot)?;
        Ok((IndexerHandle { shared, wake, finish, done, backlog_max: settings.backlog_max }, thread))
    }

    fn run(mut self, signals: &Signals) {
        self.publish();
        let counting = signals.beat.timed();
        self.source.count(&self.shared);
        drop(counting);
        loop {
            signals.beat.busy();
            let wake_at = self.step(None, &signals.beat);
            self.publish();
            if self.wait(wake_at, signals) {
                break;
            }
        }
        let deadline = self.clock.now() + FINISH_MAX;
        loop {
            let wake_at = self.step(Some(deadline), &signals.beat);
            self.publish();
            let is_done = self.sender.batch.is_empty() && self.source.is_at_end();
            let now = self.clock.now();
            if is_done || self.trouble.is_some() || wake_at.max(now) >= deadline {
                return;
            }
            let _ = after(wake_at.saturating_duration_since(now)).recv();
        }
    }

    /// Waits for lines, until this instant at most; whether it is the end.
    fn wait(&mut self, until: Instant, signals: &Signals) -> bool {
        signals.beat.waiting();
        let left = until.saturating_duration_since(self.clock.now());
        select! {
            recv(signals.wake) -> _ => {}
            recv(signals.finish) -> _ => return true,
            default(left) => return false,
        }
        self.waiting_since.get_or_insert(self.clock.now());
        let gather = GATHER.min(self.settings.flush_interval).min(left);
        !matches!(signals.finish.recv_timeout(gather), Err(RecvTimeoutError::Timeout))
    }

    /// Does what is due, one request at most, and says when something is due again. `deadline`: the stop, for which nothing
    /// waits for others.
    fn step(&mut self, deadline: Option<Instant>, beat: &Beat) -> Instant {
        let now = self.clock.now();
        self.look_around(now);
        if let Err(error) = self.source.fill(&mut self.sender.batch, self.settings.bulk_size, &self.shared) {
            log::error!("cannot read {}: {error}", self.source.path().display());
            return now + BLOCKED_WAIT;
        }
        let timed = beat.timed();
        let (node, ready_at) = self.nodes.next();
        let mut wake_at = self.report(now);
        if let Some(node) = self.nodes.returning(now) {
            self.probe(node);
        } else if !self.setup.done && ready_at <= now {
            self.set_up(node);
        } else if self.sender.batch.is_empty() {
            let idle = (self.last_contact + IDLE_PROBE_EVERY).max(ready_at);
            if idle > now || deadline.is_some() {
                return wake_at.min(idle);
            }
            self.probe(node);
        } else {
            let is_full = self.sender.batch.len() >= self.settings.bulk_size || !self.source.is_at_end();
            let since = *self.waiting_since.get_or_insert(now);
            let due = if is_full || deadline.is_some() { now } else { since + self.settings.flush_interval };
            let due = due.max(ready_at);
            if due > now {
                return wake_at.min(due);
            }
            self.send(node, deadline.map(|deadline| deadline - now));
        }
        drop(timed);
        wake_at = wake_at.min(self.report(self.clock.now()));
        wake_at.min(self.clock.now())
    }

    fn send(&mut self, node: usize, limit: Option<Duration>) {
        let begun = self.clock.now();
        let timeout = self.nodes.timeout();
        let is_trial = self.nodes.is_trial();
        self.nodes.trying(node, begun);
        let attempt = self.sender.send(node, limit.map_or(timeout, |limit| limit.min(timeout)), is_trial);
        let now = self.clock.now();
        match attempt {
            Attempt::Failed { held, timed_out, retry_after } => self.fail(node, held, timed_out, retry_after, begun),
            Attempt::Smaller => self.answered(node, now),
            Attempt::Judged(judged) => {
                self.answered(node, now);
                self.judged(node, judged, now);
            }
        }
        if self.sender.batch.is_empty() {
            self.waiting_since = None;
        }
    }

    /// Counts what became of the documents, and decides when those that are left go again.
    fn judged(&mut self, node: usize, judged: Judged, now: Instant) {
        let counters = &self.status.counters;
        counters.elastic_created.add(judged.created);
        counters.elastic_exists.add(judged.exists);
        counters.elastic_dead.add(judged.kept.appended);
        if judged.kept.dropped > 0 {
            self.shared.report_dropped(&mut self.shared.lock(), judged.kept.dropped);
        }
        if let Some(letter) = judged.last_letter {
            self.report_letters(Some(letter), now);
        }
        if !judged.done.is_empty() {
            self.nodes.succeeded(now);
        }
        let Some(held) = judged.held else {
            self.trouble = None;
            return;
        };
        match held.cause {
            Cause::Login | Cause::Rights => self.nodes.hold(REFUSED_WAIT, now),
            Cause::Blocked => self.nodes.hold(BLOCKED_WAIT, now),
            _ if judged.done.is_empty() => self.nodes.back_off(now),
            _ => {
                let sent = (judged.left + judged.done.len()).max(1) as u32;
                self.nodes.pause(PUT_OFF_WAIT * judged.left as u32 / sent, now);
            }
        }
        let since = self.sender.batch.put_off_since().unwrap_or(now);
        self.trouble = Some(Trouble { held, node, since, is_put_off: true });
    }

    /// The node did not take the request.
    fn fail(&mut self, node: usize, held: Held, timed_out: bool, retry_after: Option<Duration>, begun: Instant) {
        let now = self.clock.now();
        log::debug!("{}: {}", self.sender.transport.urls()[node], held.why);
        match held.cause {
            Cause::Login | Cause::Rights => self.nodes.hold(REFUSED_WAIT, now),
            Cause::Blocked => self.nodes.hold(BLOCKED_WAIT, now),
            _ => self.nodes.failed(node, timed_out, retry_after, now),
        }
        if held.cause == Cause::Unreachable && self.nodes.all_down() {
            // It may come back as another, empty cluster.
            self.setup.done = false;
            self.setup.tries = 0;
        }
        let since = self.trouble.as_ref().map_or(begun, |trouble| trouble.since);
        self.trouble = Some(Trouble { held, node, since, is_put_off: false });
    }

    fn answered(&mut self, node: usize, now: Instant) {
        self.nodes.answered(node, now);
        self.last_contact = now;
    }

    /// Asks a node that is idle, or failed, whether it is there.
    fn probe(&mut self, node: usize) {
        let begun = self.clock.now();
        self.nodes.trying(node, begun);
        match greet(&self.sender.transport, node, PROBE_TIMEOUT) {
            Greeting::Absent(held) if held.cause != Cause::NotACluster => {
                self.fail(node, held, false, None, self.last_contact);
            }
            // Who takes documents may show something else to a browser.
            greeting => self.welcome(node, greeting),
        }
    }

    fn welcome(&mut self, node: usize, greeting: Greeting) {
        let now = self.clock.now();
        let all_were_down = self.nodes.all_down();
        self.answered(node, now);
        if self.sender.batch.is_empty() || all_were_down {
            self.nodes.succeeded(now);
        }
        if self.sender.batch.is_empty() {
            self.trouble = None;
        }
        if let Greeting::Alive(Some(server)) = greeting {
            self.name_server(node, server);
        }
    }

    fn name_server(&mut self, node: usize, server: Server) {
        let Server { name, product } = server;
        self.setup.product = product;
        self.status.update_elastic(|view| {
            if view.server.as_ref() != Some(&name) {
                log::info!("the cluster at {} is {name}", self.sender.transport.urls()[node]);
                view.server = Some(name);
            }
        });
    }

    /// Greets the cluster and sees to the template, before any document: an index that a document makes without it has the
    /// wrong mapping for good.
    fn set_up(&mut self, node: usize) {
        let begun = self.clock.now();
        self.nodes.trying(node, begun);
        match greet(&self.sender.transport, node, PROBE_TIMEOUT) {
            Greeting::Absent(held) if matches!(held.cause, Cause::Login | Cause::Unreachable) => {
                return self.fail(node, held, false, None, begun);
            }
            // A proxy may let nothing but bulk requests through.
            Greeting::Absent(_) => {}
            Greeting::Alive(server) => {
                if let Some(server) = server {
                    self.name_server(node, server);
                }
            }
        }
        if self.settings.setup {
            let (transport, product) = (&self.sender.transport, self.setup.product);
            let setup = Setup { transport, node, index: &self.settings.index, product };
            match setup.put_if_absent(self.settings.retention) {
                Ok(outcome) => {
                    if let Some(done) = outcome.done {
                        log::info!("{done}");
                    }
                    if !self.setup.said {
                        outcome.problems.iter().for_each(warn);
                        self.setup.said |= !outcome.problems.is_empty();
                    }
                }
                Err(held) => {
                    self.setup.tries += 1;
                    let tries = match held.cause {
                        Cause::Login | Cause::Unreachable => u32::MAX,
                        Cause::Busy => SETUP_TRIES_BUSY,
                        Cause::NotACluster | Cause::Redirect => SETUP_TRIES,
                        _ => 1,
                    };
                    if self.setup.tries < tries {
                        return self.fail(node, held, false, None, begun);
                    }
                    if !std::mem::replace(&mut self.setup.said, true) {
                        warn(&Problem::new(
                            format!("cannot put the index template: {}; documents go without it", held.why),
                            match held.cause {
                                Cause::Rights => {
                                    "Give the user the right manage_index_templates, or put what `audiohook-collector template` prints and set ELASTIC_SETUP=false."
                                }
                                _ => held.cure(),
                            },
                        ));
                    }
                }
            }
        }
        (self.setup.done, self.setup.tries) = (true, 0);
        let now = self.clock.now();
        self.answered(node, now);
        self.nodes.pause(Duration::ZERO, now);
        if self.sender.batch.is_empty() {
            self.nodes.succeeded(now);
            self.trouble = None;
        }
    }

    /// Raises and clears the reasons about the cluster; returns when that may change by time alone.
    fn report(&self, now: Instant) -> Instant {
        let later = now + IDLE_PROBE_EVERY;
        let Some(Trouble { held, node, since, is_put_off }) = &self.trouble else {
            self.status.clear(Code::ElasticUnreachable);
            self.status.clear(Code::ElasticRefused);
            return later;
        };
        let url = &self.sender.transport.urls()[*node];
        let waiting = self.status.gauges.elastic_backlog_bytes.get().unwrap_or(0);
        let path = self.source.path().display();
        let what = |does: &str| {
            format!(
                "the cluster {does} ({url}: {}); the events are safe in {path}, {waiting} bytes of them wait",
                held.why
            )
        };
        if held.is_refusal() {
            self.status.clear(Code::ElasticUnreachable);
            let does = if held.cause == Cause::Blocked { "blocks writes to" } else { "refuses writes to" };
            let does = format!("{does} {}", self.settings.index);
            self.status.raise(Code::ElasticRefused, Problem::new(what(&does), held.cure()));
            return later;
        }
        // Whatever it is now, it is no refusal any more.
        self.status.clear(Code::ElasticRefused);
        if !*is_put_off && !self.nodes.all_down() {
            return later;
        }
        if now < *since + BLOCKED_AFTER {
            return *since + BLOCKED_AFTER;
        }
        let does = match held.cause {
            Cause::Index => "cannot index documents",
            _ if *is_put_off => "puts some documents off",
            _ => "takes no documents",
        };
        self.status.raise(Code::ElasticUnreachable, Problem::new(what(does), held.cure()));
        later
    }

    /// What time alone changes: dead letters that a replay took, and a loss that was shown for long enough.
    fn look_around(&mut self, now: Instant) {
        if self.dead_checked.is_some_and(|at| now < at + DEAD_CHECK_EVERY) {
            return;
        }
        self.shared.expire_dropped(&mut self.shared.lock());
        if dead_letters::files(self.source.path()).is_empty() {
            self.status.clear(Code::DeadLetters);
            self.shared.lock().letter_bytes = 0;
            self.dead_checked = Some(now);
        } else if !self.status.is_raised(Code::DeadLetters) {
            self.report_letters(None, now);
        } else {
            self.dead_checked = Some(now);
        }
    }

    fn report_letters(&mut self, last: Option<(u16, String)>, now: Instant) {
        self.dead_checked = Some(now);
        self.shared.lock().letter_bytes = self.sender.letters.bytes();
        let cause = match &last {
            Some((413, _)) => "the limit on a request's size (http.max_content_length, or a proxy's)",
            _ => "the cause, mostly the index's mapping",
        };
        let reason = last.map(|(_, reason)| format!(" (the last: {reason})")).unwrap_or_default();
        self.status.raise(
            Code::DeadLetters,
            Problem::new(
                format!(
                    "the cluster refuses some documents as they are{reason}: the events are safe in {} and in {}, and missing in the cluster",
                    self.source.path().display(),
                    self.sender.letters.path().display()
                ),
                format!("Fix {cause}. Then run `audiohook-collector replay`."),
            ),
        );
    }

    fn publish(&mut self) {
        let bytes = self.source.unread_bytes() + self.sender.batch.record_bytes();
        self.status.gauges.elastic_backlog_bytes.set(bytes as i64);
        let progress = self.source.progress(&self.sender.batch);
        if let Some(progress) = progress {
            self.shared.lock().progress = Some(progress);
        }
    }
}

fn warn(problem: &Problem) {
    log::warn!(cure = problem.cure.as_str(); "{}", problem.what);
}
