//! The session thread: the one that speaks REST to Genesys Cloud.
//!
//! Deals with: what is due next (login, definitions, channel, subscriptions, socket, history), one request at a time.
//! Must never: sleep, wait for room in a queue, hold a duty up for longer than one request, look into an event.
//!
//! It is a scheduler. Each duty has an instant from which it is due; the loop runs the first that is, in the order of
//! `Session::work`, and otherwise waits for news, for room in the writer's queue, or for the next instant.

mod auditing;
mod comparing;
mod health;
mod login;
mod reading;
mod socket;
mod subscribing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, Sender, TryRecvError, TrySendError};

use super::api::Api;
use super::backoff::Backoff;
use super::channel::Rejection;
use super::error::{ApiError, Kind};
use super::history::History;
use super::topics::{self, Plan};
use crate::clock::{Clock, Millis, ServiceTime};
use crate::config::{Config, Delivery};
use crate::message::{Address, ChannelState, Connection, Definition, FromSession, News};
use crate::net::Dialer;
use crate::reader::ReaderHandle;
use crate::status::{Beat, Status};

use self::reading::Reading;
use self::socket::Socket;

/// The definitions are asked for, and the topics subscribed anew, this often: a new id is found within a day.
const DEFINITIONS_INTERVAL: Duration = Duration::from_secs(6 * 3600);
/// What the scheduler waits at most, so that a clock that a test moves is noticed, and the page's state is fresh.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// A wall clock that differs from the service's by more is said.
const CLOCK_TOLERANCE_MS: i64 = 300_000;

/// Where the last run ended.
#[derive(Clone, Debug)]
pub struct Start {
    /// Everything in the history before this is on the disk.
    pub checkpoint: Millis,
    /// Where the very first start began: nothing before it is asked for, or missed.
    pub origin: Millis,
    /// Both are this machine's time: the service's was never heard.
    pub by_wall: bool,
    /// The channel that the last run remembered.
    pub channel: Option<ChannelState>,
}

/// Opens a socket: [`crate::reader::start`] with what it needs, or a test's own.
pub type Open = Box<dyn FnMut(Address) -> io::Result<ReaderHandle> + Send>;

/// Starts the session thread. It ends when `stop` is disconnected.
///
/// # Errors
/// When the system refuses one more thread.
#[expect(clippy::too_many_arguments, reason = "the one place that joins the session to the rest")]
pub fn start(
    config: Arc<Config>,
    start: Start,
    dialer: Arc<Dialer>,
    to_writer: Sender<FromSession>,
    news: Receiver<News>,
    open: impl FnMut(Address) -> io::Result<ReaderHandle> + Send + 'static,
    status: Arc<Status>,
    clock: Clock,
    stop: Receiver<()>,
) -> io::Result<JoinHandle<()>> {
    let open: Open = Box::new(open);
    crate::thread::spawn("session", move || {
        let mut session = Session::new(config, start, dialer, to_writer, news, open, status, clock, stop);
        session.run();
    })
}

struct Session {
    config: Arc<Config>,
    api: Api,
    service_time: ServiceTime,
    to_writer: Sender<FromSession>,
    /// What the writer's queue had no room for yet.
    outbox: VecDeque<FromSession>,
    news: Receiver<News>,
    open: Open,
    status: Arc<Status>,
    clock: Clock,
    stop: Receiver<()>,
    beat: Arc<Beat>,
    started: Instant,
    /// What TOPICS_FILE names.
    file: Option<Vec<String>>,
    definitions: Option<Vec<Definition>>,
    /// The service's time when the definitions were last asked for with success.
    definitions_known: Option<Millis>,
    definitions_at: Instant,
    definitions_backoff: Backoff,
    plan: Plan,
    /// Whether a socket may carry the topics, as far as is known; asked for again at the instant.
    transport_allowed: bool,
    /// How the service says that it delivers operational events; empty where it does not say.
    transports: Vec<String>,
    transports_at: Option<Instant>,
    login_at: Instant,
    login_backoff: Backoff,
    /// 429: no API call before this.
    throttled_until: Instant,
    throttled_backoff: Backoff,
    /// The last API call that failed: when, and why.
    call_failed: Option<(Instant, String)>,
    clock_told: bool,
    socket: Socket,
    reading: Reading,
    comparing: comparing::Comparing,
    auditing: auditing::Auditing,
}

impl Session {
    #[expect(clippy::too_many_arguments, reason = "the one place that joins the session to the rest")]
    fn new(
        config: Arc<Config>,
        start: Start,
        dialer: Arc<Dialer>,
        to_writer: Sender<FromSession>,
        news: Receiver<News>,
        open: Open,
        status: Arc<Status>,
        clock: Clock,
        stop: Receiver<()>,
    ) -> Self {
        let now = clock.now();
        let backoff = Backoff::new(&config.reconnect);
        let beat = Arc::new(status.beats.register("session"));
        let mut api = Api::new(&config.genesys, dialer, clock.clone());
        api.watch(beat.clone());
        let file = config.genesys.topics.clone();
        let history = History::new(&config.genesys.api_url, config.catch_up.rate);
        Self {
            beat,
            outbox: VecDeque::new(),
            started: now,
            plan: topics::plan(file.as_deref(), None),
            file,
            definitions: None,
            definitions_known: None,
            definitions_at: now,
            definitions_backoff: backoff.clone(),
            transport_allowed: true,
            transports: Vec::new(),
            transports_at: (config.genesys.delivery != Delivery::History).then_some(now),
            login_at: now,
            login_backoff: backoff.clone(),
            throttled_until: now,
            throttled_backoff: backoff.clone(),
            call_failed: None,
            clock_told: false,
            socket: Socket::new(start.channel.clone(), backoff.clone(), now),
            reading: Reading::new(history, &start, backoff, now),
            comparing: comparing::Comparing::default(),
            auditing: auditing::Auditing::default(),
            config,
            api,
            service_time: ServiceTime::default(),
            to_writer,
            news,
            open,
            status,
            clock,
            stop,
        }
    }

    fn run(&mut self) {
        self.say_once();
        self.status.gauges.socket_connected.set(0);
        self.assess();
        loop {
            self.beat.busy();
            if self.must_stop() {
                return;
            }
            let mut heard = false;
            while let Ok(news) = self.news.try_recv() {
                self.hear(news);
                heard = true;
            }
            if heard {
                // The next request may take its time.
                self.assess();
            }
            self.deliver();
            let worked = self.work();
            self.publish_service_time();
            self.assess();
            if !worked {
                self.beat.waiting();
                self.wait();
            }
        }
    }

    fn say_once(&self) {
        if self.config.genesys.delivery == Delivery::Websocket {
            log::warn!(
                "GENESYS_DELIVERY is websocket: the history is not read, so whatever comes while the socket is down is lost"
            );
        }
        if self.plan.ids.is_empty() && self.config.genesys.delivery != Delivery::Websocket {
            log::warn!("the topics name no event definition: the history has nothing to be asked for");
        }
    }

    fn must_stop(&self) -> bool {
        matches!(self.stop.try_recv(), Err(TryRecvError::Disconnected))
    }

    /// Runs the first duty that is due, and says whether there was one.
    fn work(&mut self) -> bool {
        let now = self.clock.now();
        if self.open_if_due(now) {
            return true;
        }
        if self.log_in_if_due(now) {
            return true;
        }
        if now < self.throttled_until || self.api.token().is_none() {
            return false;
        }
        self.ask_definitions_if_due(now)
            || self.ask_transports_if_due(now)
            || self.prepare_if_due(now)
            || self.resubscribe_if_due(now)
            || self.read_if_due(now)
            || self.compare_if_due(now)
            || self.audit_if_due(now)
    }

    /// Waits for news, for room in the writer's queue, for a stop, or until the next duty is due.
    fn wait(&self) {
        let now = self.clock.now();
        let until = self.next_due(now);
        let mut select = Select::new();
        select.recv(&self.stop);
        select.recv(&self.news);
        if !self.outbox.is_empty() {
            select.send(&self.to_writer);
        }
        // Which of them it is, or that it is none, shows when the loop looks at each.
        let _ = select.ready_timeout(until.saturating_duration_since(now).min(WAIT_MAX));
    }

    fn next_due(&self, now: Instant) -> Instant {
        let mut due = vec![now + WAIT_MAX];
        due.extend(self.socket_due());
        due.extend(self.health_due(now));
        due.push(self.login_due());
        if self.api.token().is_some() {
            let calls = [
                Some(self.definitions_at),
                self.transports_at,
                self.prepare_due(),
                self.resubscribe_due(),
                self.reading_due(),
                self.comparing_due(),
                self.auditing_due(),
            ];
            due.extend(calls.into_iter().flatten().map(|at| at.max(self.throttled_until)));
        }
        // An instant that has passed and led to no work must not make the loop spin.
        due.into_iter().min().unwrap_or(now).max(now + Duration::from_millis(1))
    }

    /// Gives the writer something, in order; what finds no room waits, and the history with it.
    fn tell(&mut self, message: FromSession) {
        self.outbox.push_back(message);
        self.deliver();
    }

    fn deliver(&mut self) {
        while let Some(message) = self.outbox.pop_front() {
            match self.to_writer.try_send(message) {
                Ok(()) => {}
                Err(TrySendError::Full(message)) => {
                    self.outbox.push_front(message);
                    return;
                }
                // The writer is gone: the program is about to stop.
                Err(TrySendError::Disconnected(_)) => return,
            }
        }
    }

    /// Asks for the definitions at the start and every few hours, and makes the plan from them.
    fn ask_definitions_if_due(&mut self, now: Instant) -> bool {
        if now < self.definitions_at {
            return false;
        }
        match self.api.definitions() {
            Ok(definitions) => {
                self.definitions_backoff.reset();
                self.throttled_backoff.reset();
                self.definitions_at = self.clock.now() + DEFINITIONS_INTERVAL;
                self.take_definitions(definitions);
            }
            Err(error) => {
                let wait = self.failed(&error).unwrap_or_else(|| {
                    if error.kind == Kind::Forbidden {
                        self.config.catch_up.interval.max(Duration::from_secs(60))
                    } else {
                        self.definitions_backoff.next(draw())
                    }
                });
                if self.definitions.is_none() && self.definitions_backoff.failures() <= 1 {
                    log::warn!("{error}; going on with the built-in ones");
                }
                self.definitions_at = self.clock.now() + wait;
                if self.definitions.is_none() {
                    self.tell_definitions();
                }
            }
        }
        true
    }

    fn take_definitions(&mut self, definitions: Vec<Definition>) {
        let plan = topics::plan(self.file.as_deref(), Some(&definitions));
        let first = self.definitions.is_none();
        self.definitions = Some(definitions);
        self.tell_definitions();
        let known_before = self.definitions_known.replace(self.api.service().now());
        if first || plan.notices != self.plan.notices {
            for notice in &plan.notices {
                log::warn!("{notice}");
            }
        }
        if plan == self.plan {
            return;
        }
        let new_ids: Vec<String> = plan.ids.iter().filter(|id| !self.plan.ids.contains(id)).cloned().collect();
        log::info!("collecting {} topics: {}", plan.topics.len(), shorten(&plan.topics));
        let had_none = self.plan.topics.is_empty();
        self.plan = plan;
        self.reading.history.forget_refusals();
        self.resubscribe_now();
        if had_none {
            self.socket_is_wanted();
        }
        if let Some(known_before) = known_before {
            // The new ids may have had events since the definitions were last looked at.
            let from = known_before - self.overlap_ms();
            let to = self.api.service().now();
            self.reading.history.add(new_ids, from, to, false, self.clock.now());
        }
    }

    fn tell_definitions(&mut self) {
        let known = self.known_definitions();
        self.tell(FromSession::Definitions(Arc::new(known)));
    }

    /// What the writer is told of the definitions.
    fn known_definitions(&self) -> Vec<Definition> {
        self.definitions.clone().unwrap_or_else(topics::built_in)
    }

    /// Asks whether a socket may carry the topics at all.
    fn ask_transports_if_due(&mut self, now: Instant) -> bool {
        if self.transports_at.is_none_or(|at| now < at) {
            return false;
        }
        let outcome = self.api.transports();
        let now = self.clock.now();
        match outcome {
            Ok(Some(found)) => {
                let allowed = topics::allow_socket(&found);
                if allowed != self.transport_allowed || self.socket.channel.is_none() {
                    log::info!(
                        "operational events may be delivered by {}: the socket is {}",
                        found.join(", "),
                        if allowed { "allowed" } else { "not allowed" }
                    );
                }
                if allowed && !self.transport_allowed {
                    self.socket_is_wanted();
                }
                if !allowed && self.config.genesys.delivery == Delivery::Websocket {
                    log::warn!(
                        "GENESYS_DELIVERY is websocket, and no socket delivers operational events: it is tried all the same"
                    );
                }
                self.transport_allowed = allowed;
                self.transports = found;
                let again = if allowed { DEFINITIONS_INTERVAL } else { self.retry_interval() * 10 };
                self.transports_at = Some(now + again);
            }
            Ok(None) => {
                log::info!("whether a socket may carry operational events is not said: it is tried");
                self.transports_at = Some(now + DEFINITIONS_INTERVAL);
            }
            Err(error) => {
                let wait = self.failed(&error);
                log::warn!("{error}; the socket is tried all the same");
                self.transports_at = Some(now + wait.unwrap_or(self.retry_interval() * 10));
            }
        }
        true
    }

    /// How often what only a try can tell is tried.
    fn retry_interval(&self) -> Duration {
        self.config.catch_up.interval
    }

    /// Passes on what the last answer told of the service's time.
    fn publish_service_time(&self) {
        let service = self.api.service();
        if service.is_known() {
            self.service_time.learn(service.now(), self.clock.now());
        }
    }

    fn overlap_ms(&self) -> Millis {
        self.config.catch_up.overlap.as_millis() as Millis
    }

    /// What any failure of an API call means for the others; the wait that the service asked for, if it did.
    fn failed(&mut self, error: &ApiError) -> Option<Duration> {
        self.call_failed = Some((self.clock.now(), error.to_string()));
        match error.kind {
            Kind::Throttled(asked) => {
                let wait = asked.unwrap_or_else(|| self.throttled_backoff.next(draw()));
                self.throttled_until = self.throttled_until.max(self.clock.now() + wait);
                log::warn!("{error}; trying again {}", in_a_while(wait));
                Some(wait)
            }
            Kind::Credentials => {
                self.login_refused(error);
                // Whatever waits for a login is tried with the next one.
                self.api.refused_until().map(|until| until.saturating_duration_since(self.clock.now()))
            }
            _ => None,
        }
    }

    fn next_connection(&mut self) -> Connection {
        self.socket.connections += 1;
        self.socket.connections
    }
}

/// A few of many, for a log line.
fn shorten(names: &[String]) -> String {
    const SHOWN: usize = 10;
    let mut text = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(", …");
    }
    text
}

/// When something is done that waits so long, for a log line.
fn in_a_while(wait: Duration) -> String {
    match wait.as_secs_f64().round() as u64 {
        0 => "at once".to_owned(),
        seconds => format!("in {seconds} s"),
    }
}

/// Jitter.
fn draw() -> u64 {
    crate::reader::random()
}

/// Why topics were rejected, by topic.
type Rejections = BTreeMap<String, Rejection>;
