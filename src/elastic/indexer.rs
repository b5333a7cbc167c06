//! The indexer: the thread that sends the file's records to the cluster.
//!
//! The file is the queue. The indexer reads it from its cursor, sends a batch, judges the response and publishes the
//! new cursor. It blocks on its own requests, and nothing else waits for it. Must never: delay writes to the file, hold
//! more than one batch in memory, or move the cursor past a document that is neither in the cluster nor a dead letter.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, after, bounded, select};

use crate::clock::Clock;
use crate::config;
use crate::elastic::dead_letters::DeadLetters;
use crate::elastic::handle::{BacklogDropped, IndexerHandle, Progress, Shared};
use crate::elastic::probe::{PROBE_TIMEOUT, Server, greet};
use crate::elastic::sender::{Sender, Sent};
use crate::elastic::setup::Setup;
use crate::elastic::source::Source;
use crate::elastic::template::Product;
use crate::elastic::transport::Transport;
use crate::elastic::verdict::{Cause, Held};
use crate::status::{Beat, Code, Problem, Status};
use crate::thread;

/// Interval of probes while there is nothing to send, so that an outage is noticed before the next document.
const IDLE_PROBE_EVERY: Duration = Duration::from_secs(5);
/// How long documents are delayed before this is reported.
const BLOCKED_AFTER: Duration = Duration::from_secs(5);
/// Retry interval for files that cannot be read.
const UNREADABLE_WAIT: Duration = Duration::from_secs(8);
/// How long to wait for more lines after a wake-up.
const GATHER: Duration = Duration::from_millis(100);
/// Interval for checking the dead letters, which a replay in another process may remove.
const DEAD_CHECK_EVERY: Duration = Duration::from_secs(5);
/// How long documents are still sent after a stop.
const FINISH_MAX: Duration = Duration::from_secs(1);
/// Attempts to create the template before documents are sent without it, while the cluster is busy.
const SETUP_TRIES_BUSY: u32 = 8;
/// The same for responses that are unlikely to change.
const SETUP_TRIES: u32 = 3;

/// Why some or all documents are not accepted.
struct Trouble {
    held: Held,
    node: usize,
    since: Instant,
}

/// The state of the template's setup.
#[derive(Default)]
struct SetupState {
    done: bool,
    tries: u32,
    product: Product,
    has_warned: bool,
}

pub struct Indexer {
    settings: config::Elastic,
    source: Source,
    sender: Sender,
    setup: SetupState,
    trouble: Option<Trouble>,
    /// Since when the batch has been waiting for more documents.
    waiting_since: Option<Instant>,
    last_contact: Instant,
    dead_checked: Option<Instant>,
    status: Arc<Status>,
    shared: Arc<Shared>,
    clock: Clock,
}

/// The thread's wake-up and stop channels, and its heartbeat.
struct Signals {
    wake: Receiver<()>,
    finish: Receiver<()>,
    beat: Beat,
}

impl Indexer {
    /// Opens the files at the cursor and starts the thread. Without a cursor, all records in the files are sent. `kept`
    /// is from the state file; a loss in it is reported until an hour has passed since then.
    ///
    /// # Errors
    /// When a file cannot be read, the CA file is not valid, or the thread cannot be started.
    pub fn start(
        settings: &config::Elastic,
        output: &config::Output,
        network: &config::Network,
        kept: (Option<Progress>, Option<BacklogDropped>),
        status: Arc<Status>,
        clock: Clock,
    ) -> Result<(IndexerHandle, JoinHandle<()>), Problem> {
        let transport = Transport::new(settings, network, clock.clone())?;
        let cannot = |error: io::Error| {
            let what = format!("cannot send {} to the cluster: {error}", output.file.display());
            Problem::new(what, "Check that the user that runs the collector may read OUTPUT_FILE and its backups.")
        };
        let shared = Arc::new(Shared::new(kept, status.clone(), clock.clone(), output.file.clone()));
        let source = Source::open(output, kept.0, shared.clone()).map_err(cannot)?;
        // The other half of the backlog's limit is for records that are waiting to be sent.
        let letters = DeadLetters::new(&output.file, output.max_file_size, settings.backlog_max / 2);
        let now = clock.now();
        let indexer = Self {
            sender: Sender::new(settings, letters, transport, clock.clone()),
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

    /// Waits for new lines until this time at the latest; true if the indexer must stop.
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

    /// Does what is due, at most one request, and returns when something is due next. `deadline`: set during a stop,
    /// when documents are sent without waiting for more.
    fn step(&mut self, deadline: Option<Instant>, beat: &Beat) -> Instant {
        let now = self.clock.now();
        self.check_periodically(now);
        // With a bulk size of one, a second document shows whether the document or the address is the cause of a
        // failure.
        let documents_max = self.settings.bulk_size.max(2);
        if let Err(error) = self.source.fill(&mut self.sender.batch, documents_max) {
            let what = format!(
                "cannot read {} or its backups: {error}; no documents are sent to the cluster",
                self.source.path().display()
            );
            let cure = "Check the disk, the files' permissions, and the limit on open files.";
            self.status.raise(Code::ElasticUnreachable, Problem::new(what, cure));
            return now + UNREADABLE_WAIT;
        }
        self.publish();
        let (node, ready_at) = self.sender.nodes.next();
        let mut wake_at = self.report(now);
        let is_idle = self.sender.batch.is_empty();
        let due = if !self.setup.done {
            now
        } else if is_idle {
            self.last_contact + IDLE_PROBE_EVERY
        } else if deadline.is_some() || self.sender.batch.len() >= self.settings.bulk_size || !self.source.is_at_end() {
            now
        } else {
            *self.waiting_since.get_or_insert(now) + self.settings.flush_interval
        };
        let due = due.max(ready_at);
        if due > now || is_idle && deadline.is_some() {
            return wake_at.min(due);
        }
        let timed = beat.timed();
        if is_idle || !self.setup.done {
            self.contact(node);
        } else {
            self.send(node, deadline.map_or(Duration::MAX, |deadline| deadline - now));
        }
        drop(timed);
        wake_at = wake_at.min(self.report(self.clock.now()));
        wake_at.min(self.clock.now())
    }

    /// Sends documents, counts the results, and stores why some of them have to be retried.
    fn send(&mut self, node: usize, timeout_max: Duration) {
        let begun = self.clock.now();
        let mut sent = self.sender.send(node, timeout_max);
        let counters = &self.status.counters;
        counters.elastic_created.add(sent.created);
        counters.elastic_exists.add(sent.exists);
        counters.elastic_dead.add(sent.kept.appended);
        self.shared.report_dropped(&mut self.shared.lock(), sent.kept.dropped);
        let now = self.clock.now();
        if let Some(letter) = sent.last_letter.take() {
            self.report_letters(Some(letter));
        }
        if self.sender.batch.is_empty() {
            self.waiting_since = None;
        }
        if sent.failed {
            self.node_failed(node, sent, begun);
            return;
        }
        self.last_contact = now;
        let since = self.sender.batch.put_off_since().unwrap_or(now);
        self.trouble = sent.held.map(|held| Trouble { held, node, since });
    }

    /// Stores why the request failed, unless another node works. `begun`: when the trouble began, if it is new.
    fn node_failed(&mut self, node: usize, sent: Sent, begun: Instant) {
        let Some(held) = sent.held.filter(|_| self.sender.nodes.all_down()) else { return };
        if matches!(held.cause, Cause::Unreachable(_)) {
            // Another, empty cluster may come back in its place.
            (self.setup.done, self.setup.tries) = (false, 0);
        }
        let since = self.trouble.as_ref().map_or(begun, |trouble| trouble.since);
        self.trouble = Some(Trouble { held, node, since });
    }

    /// Probes a node, and creates the template before any document is sent. If a document created the index without the
    /// template, the index would have the wrong mapping for good.
    fn contact(&mut self, node: usize) {
        self.sender.nodes.trying(self.clock.now());
        let is_down = |held: &Held| match held.cause {
            Cause::Login | Cause::Unreachable(_) => true,
            // An address that accepts documents may serve a web page at `/`, or allow only bulk requests.
            Cause::NotACluster => false,
            _ => self.setup.done,
        };
        let contacted = match greet(&self.sender.transport, node, PROBE_TIMEOUT) {
            Err(held) if is_down(&held) => Err(held),
            Ok(Some(server)) => {
                self.name_server(node, server);
                self.put_template(node)
            }
            _ => self.put_template(node),
        };
        if let Err(held) = contacted {
            let sent = self.sender.fail(node, held, None);
            return self.node_failed(node, sent, self.last_contact);
        }
        let now = self.clock.now();
        self.last_contact = now;
        self.sender.nodes.answered(node, now);
        if self.sender.batch.is_empty() {
            self.sender.nodes.succeeded(now);
            self.trouble = None;
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

    /// Creates the template unless that is done. An error means that this must be retried before any document is sent.
    fn put_template(&mut self, node: usize) -> Result<(), Held> {
        if self.settings.setup && !self.setup.done {
            let (transport, product) = (&self.sender.transport, self.setup.product);
            let setup = Setup { transport, node, index: &self.settings.index, product };
            let problems = match setup.put_if_absent(self.settings.retention) {
                Ok(problems) => problems,
                Err(held) => {
                    self.setup.tries += 1;
                    let tries_max = match held.cause {
                        Cause::Login | Cause::Unreachable(_) => u32::MAX,
                        Cause::Busy => SETUP_TRIES_BUSY,
                        Cause::NotACluster | Cause::Redirect => SETUP_TRIES,
                        _ => 1,
                    };
                    if self.setup.tries < tries_max {
                        return Err(held);
                    }
                    let cure = match held.cause {
                        Cause::Rights => {
                            "Give the user the right manage_index_templates, or create the template that `audiohook-collector template` prints, and set ELASTIC_SETUP=false."
                        }
                        _ => held.cure(),
                    };
                    let what = format!("cannot create the index template: {}; sending documents without it", held.why);
                    vec![Problem::new(what, cure)]
                }
            };
            if !self.setup.has_warned {
                problems.iter().for_each(|problem| log::warn!(cure = problem.cure.as_str(); "{}", problem.what));
                self.setup.has_warned = !problems.is_empty();
            }
        }
        (self.setup.done, self.setup.tries) = (true, 0);
        Ok(())
    }

    /// Raises and clears the health reasons about the cluster; returns when a reason may change next.
    fn report(&self, now: Instant) -> Instant {
        let later = now + IDLE_PROBE_EVERY;
        let Some(Trouble { held, node, since }) = &self.trouble else {
            self.status.clear(Code::ElasticUnreachable);
            self.status.clear(Code::ElasticRefused);
            return later;
        };
        let url = &self.sender.transport.urls()[*node];
        let waiting = self.status.gauges.elastic_backlog_bytes.get().unwrap_or(0);
        let path = self.source.path().display();
        let what = |does: &str| {
            format!(
                "the cluster {does} ({url}: {}); the events are safe in {path}, and {waiting} bytes are waiting to be sent",
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
        // The cause is not a refusal any more.
        self.status.clear(Code::ElasticRefused);
        if now < *since + BLOCKED_AFTER {
            return *since + BLOCKED_AFTER;
        }
        let does = match held.cause {
            Cause::Index => "cannot index documents",
            _ if self.sender.nodes.all_down() => "accepts no documents",
            _ => "does not accept some documents",
        };
        self.status.raise(Code::ElasticUnreachable, Problem::new(what(does), held.cure()));
        later
    }

    /// Updates what changes without a request: dead letters that a replay removed, a loss that was shown long enough,
    /// and lines that were read but never counted.
    fn check_periodically(&mut self, now: Instant) {
        if self.dead_checked.is_none_or(|at| now >= at + DEAD_CHECK_EVERY) {
            self.dead_checked = Some(now);
            self.source.settle();
            self.shared.show_dropped(&mut self.shared.lock());
            self.report_letters(None);
        }
    }

    /// Raises or clears the reason about dead letters. `last`: status and reason of a new letter.
    fn report_letters(&mut self, last: Option<(u16, String)>) {
        let bytes = self.sender.letters.bytes();
        self.shared.lock().letter_bytes = bytes;
        if bytes == 0 {
            self.status.clear(Code::DeadLetters);
        }
        if bytes == 0 || last.is_none() && self.status.is_raised(Code::DeadLetters) {
            return;
        }
        let cause = match &last {
            Some((413, _)) => "the limit on the size of requests (http.max_content_length, or a proxy's limit)",
            _ => "the cause, usually the index's mapping",
        };
        let reason = last.map(|(_, reason)| format!(" (last reason: {reason})")).unwrap_or_default();
        self.status.raise(
            Code::DeadLetters,
            Problem::new(
                format!(
                    "the cluster rejected some documents{reason}: the events are safe in {} and in {}, but missing in the cluster",
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
