//! The session thread, which makes all REST calls to Genesys Cloud.
//!
//! Runs whatever is due next (login, definitions, channel, subscriptions, socket, history), one request at a time.
//! Must never: sleep, wait for room in a queue, delay a duty by more than one request, look into an event.
//!
//! The session is a scheduler over a few parts. Each part owns its state and reports when it is due. The loop runs the
//! first due part in the order of `Session::work`; otherwise it waits for an event, for room in the writer's queue, or
//! for the next due time. The parts do not know each other: the session decides how one of them affects another.

mod auditing;
mod definition_coverage;
mod definitions;
mod health;
mod login;
mod outbox;
mod reading;
mod sockets;
mod subscription;
#[cfg(test)]
mod tests;
mod transport;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, Sender, TryRecvError};

use self::definitions::Definitions;
use self::login::Login;
use self::outbox::Outbox;
use self::reading::Reading;
use self::sockets::{Connections, Next};
use self::subscription::{Change, Failure, Subscription};
use self::transport::Transport;
use super::api::Api;
use super::backoff::Backoff;
use super::channel;
use super::error::{ApiError, Kind};
use super::history::History;
use super::topics::Plan;
use log::Level;

use crate::clock::{Clock, Millis, ServiceTime, SuspendDetector};
use crate::config::{Config, Delivery};
use crate::message::{Address, ChannelState, Connection, Control, SessionEvent, Start, WriterCommand};
use crate::net::Dialer;
use crate::reader::ReaderHandle;
use crate::secret::Secret;
use crate::status::{Beat, Problem, Status};

/// Interval for fetching the definitions and renewing the subscriptions: a new id is found within a day.
const DEFINITIONS_INTERVAL: Duration = Duration::from_secs(6 * 3600);
/// The scheduler's longest wait: it must notice a clock moved by a test and keep the page's state fresh.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// How long the first socket of a channel waits for the channel to be saved to disk, which may be full.
const REMEMBER_MAX: Duration = Duration::from_secs(2);

/// Opens a socket: [`crate::reader::start`] with its arguments, or a test's replacement.
pub type Open = Box<dyn FnMut(Address) -> io::Result<ReaderHandle> + Send>;

/// Everything the session is built from.
pub struct Setup {
    pub config: Arc<Config>,
    pub start: Start,
    pub dialer: Arc<Dialer>,
    pub to_writer: Sender<WriterCommand>,
    pub inbox: Receiver<SessionEvent>,
    pub open: Open,
    pub status: Arc<Status>,
    pub clock: Clock,
    /// The session ends when this receiver is disconnected.
    pub stop: Receiver<()>,
}

/// Starts the session thread.
///
/// # Errors
/// If the system refuses to create another thread.
pub fn start(setup: Setup) -> io::Result<JoinHandle<()>> {
    crate::thread::spawn("session", move || Session::new(setup).run())
}

struct Session {
    config: Arc<Config>,
    api: Api,
    service_time: ServiceTime,
    outbox: Outbox,
    inbox: Receiver<SessionEvent>,
    open: Open,
    status: Arc<Status>,
    clock: Clock,
    stop: Receiver<()>,
    beat: Arc<Beat>,
    started: Instant,
    /// After a 429: no API call before this time.
    throttled_until: Instant,
    throttle_backoff: Backoff,
    /// The last API call that failed.
    call_failed: Option<(Instant, Problem)>,
    login: Login,
    definitions: Definitions,
    plan: Plan,
    /// The definitions whose history is read.
    read_ids: Vec<String>,
    transport: Transport,
    subscription: Subscription,
    /// Whether the writer has saved the newest channel to disk.
    is_channel_kept: bool,
    connections: Connections,
    reading: Reading,
    auditing: auditing::Auditing,
    health: health::Health,
    suspend: SuspendDetector,
}

impl Session {
    fn new(setup: Setup) -> Self {
        let Setup { config, start, dialer, to_writer, inbox, open, status, clock, stop } = setup;
        let now = clock.now();
        let genesys = &config.genesys;
        let backoff = Backoff::new(&config.reconnect);
        let beat = Arc::new(status.beats.register("session"));
        let mut api = Api::new(genesys, dialer, clock.clone());
        api.watch(beat.clone());
        let definitions = Definitions::new(genesys.topics.clone(), start.definitions.clone(), backoff.clone(), now);
        let history = History::new(&genesys.api_url, config.catch_up.rate);
        let owner = channel::owner(genesys);
        let is_usable = |state: &ChannelState| channel::is_usable(state, &owner, api.service().now());
        let remembered = start.channel.clone().filter(is_usable);
        let plan = definitions.plan();
        Self {
            service_time: ServiceTime::default(),
            outbox: Outbox::new(to_writer),
            started: now,
            throttled_until: now,
            throttle_backoff: backoff.clone(),
            call_failed: None,
            login: Login::new(backoff.clone(), now),
            read_ids: definitions.read_ids(&plan),
            plan,
            definitions,
            transport: Transport::new(genesys.delivery, now),
            subscription: Subscription::new(remembered, backoff.clone(), now),
            is_channel_kept: true,
            connections: Connections::new(backoff.clone(), config.reconnect.delay, now),
            reading: Reading::new(history, &start, backoff, now),
            auditing: auditing::Auditing::default(),
            health: health::Health::default(),
            suspend: SuspendDetector::new(clock.clone()),
            api,
            config,
            inbox,
            open,
            status,
            clock,
            stop,
            beat,
        }
    }

    fn run(&mut self) {
        self.warn_of_settings();
        self.status.gauges.socket_connected.set(0);
        self.assess();
        loop {
            self.beat.busy();
            if self.must_stop() {
                return;
            }
            if let Some(time) = self.suspend.poll() {
                self.resumed(time);
            }
            let mut any = false;
            while let Ok(event) = self.inbox.try_recv() {
                self.handle(event);
                any = true;
            }
            if any {
                // The next request may take a while.
                self.assess();
            }
            self.outbox.deliver();
            let worked = self.work();
            self.publish_service_time();
            self.send_whether_history_works();
            self.assess();
            if !worked {
                self.beat.waiting();
                self.wait();
            }
        }
    }

    fn warn_of_settings(&self) {
        if self.config.genesys.delivery == Delivery::Websocket {
            log::warn!(
                "GENESYS_DELIVERY=websocket reads no history: events that occur while the socket is down are lost"
            );
        } else if self.plan.ids.is_empty() {
            log::warn!("TOPICS_FILE names no event definition: there is no history to read");
        }
    }

    fn must_stop(&self) -> bool {
        matches!(self.stop.try_recv(), Err(TryRecvError::Disconnected))
    }

    /// Runs the first duty that is due; returns whether there was one.
    fn work(&mut self) -> bool {
        let now = self.clock.now();
        if self.open_if_due(now) || self.log_in_if_due(now) {
            return true;
        }
        if now < self.throttled_until || self.api.token().is_none() {
            return false;
        }
        self.ask_definitions_if_due(now)
            || self.ask_transports_if_due(now)
            || self.subscribe_if_due(now)
            || self.read_if_due(now)
            || self.audit_if_due(now)
    }

    /// Waits for an event, for room in the writer's queue, for a stop, or until the next duty is due.
    fn wait(&self) {
        let now = self.clock.now();
        let until = self.next_due(now);
        let mut select = Select::new();
        select.recv(&self.stop);
        select.recv(&self.inbox);
        self.outbox.select(&mut select);
        // The loop checks each source, so it does not matter which one is ready.
        let _ = select.ready_timeout(until.saturating_duration_since(now).min(WAIT_MAX));
    }

    fn next_due(&self, now: Instant) -> Instant {
        let mut due = vec![now + WAIT_MAX, self.login.due(&self.api)];
        due.extend(self.connections.due());
        due.extend(self.health_due(now));
        if self.api.token().is_some() {
            let calls = [
                Some(self.definitions.at),
                self.transport.due(),
                self.subscription_due(),
                self.reading_due(),
                self.auditing_due(),
            ];
            due.extend(calls.into_iter().flatten().map(|at| at.max(self.throttled_until)));
        }
        // A due time that has passed without leading to work must not make the loop spin.
        due.into_iter().min().unwrap_or(now).max(now + Duration::from_millis(1))
    }

    // ----- the duties -----

    fn open_if_due(&mut self, now: Instant) -> bool {
        if self.connections.due().is_none_or(|due| now < due) {
            return false;
        }
        if self.connections.open(&mut self.open, &self.service_time, now).is_err() {
            self.status.counters.errors.add(1);
        }
        true
    }

    fn log_in_if_due(&mut self, now: Instant) -> bool {
        if now < self.login.due(&self.api) {
            return false;
        }
        if let Err(error) = self.login.run(&mut self.api) {
            if error.kind == Kind::Credentials {
                self.status.counters.errors.add(1);
            } else {
                let wait = self.login.failed(&error, self.clock.now());
                self.warn_of_retry(&error, wait);
            }
            self.connections.set_cause(error.problem());
            self.cannot_read(&error);
        }
        true
    }

    fn ask_transports_if_due(&mut self, now: Instant) -> bool {
        if self.transport.due().is_none_or(|at| now < at) {
            return false;
        }
        let retry = self.config.catch_up.interval * 10;
        if let Err(error) = self.transport.run(&mut self.api, &self.clock, retry) {
            let wait = self.failed(&error).unwrap_or(retry);
            let problem = error.problem();
            problem.log(Level::Warn, format_args!("{}; trying the WebSocket anyway", problem.what));
            self.transport.retry_at(self.clock.now() + wait);
        }
        true
    }

    fn subscription_due(&self) -> Option<Instant> {
        self.may_subscribe().then(|| self.subscription.due(&self.api, &self.plan.topics))
    }

    /// Takes the next step towards a subscribed channel, or renews its subscriptions.
    fn subscribe_if_due(&mut self, now: Instant) -> bool {
        if self.subscription_due().is_none_or(|due| now < due) {
            return false;
        }
        let retry = self.config.catch_up.interval;
        match self.subscription.run(&mut self.api, &self.plan.topics, &self.clock, retry) {
            Ok(Change::Nothing) => {}
            Ok(Change::Made(channel)) => {
                self.is_channel_kept = false;
                self.outbox.send(WriterCommand::Channel(Some(channel)));
            }
            Ok(Change::Subscribed) => self.subscribed(),
            Err(error) => self.subscription_failed(&error),
        }
        true
    }

    fn subscribed(&mut self) {
        if self.subscription.all_rejected() {
            self.connections.close();
        } else if let Some(channel) = self.subscription.channel() {
            // If the channel is not saved first, every start of a crash loop makes another one.
            let wait = if self.is_channel_kept { Duration::ZERO } else { REMEMBER_MAX };
            self.connections.aim_at(channel, self.clock.now() + wait);
        }
        self.publish();
    }

    fn subscription_failed(&mut self, error: &ApiError) {
        let asked = self.failed(error);
        match self.subscription.failed(error, asked, self.clock.now()) {
            Failure::Retry(wait) => {
                if !matches!(error.kind, Kind::Throttled(_) | Kind::Credentials) {
                    self.warn_of_retry(error, wait);
                }
                self.connections.set_cause(error.problem());
            }
            Failure::Replaced => {
                self.connections.channel_lost(error.problem(), self.clock.now());
                self.read_now();
            }
        }
    }

    /// The channel is gone. Its socket stays open until another channel's socket is open.
    fn channel_lost(&mut self, what: &str) {
        log::warn!("{what}: making a new channel");
        let now = self.clock.now();
        self.connections.channel_lost(Problem::new(what, "Wait for the new channel."), now);
        self.subscription.replace(now);
        self.read_now();
    }

    fn renew_token_and_channel(&mut self, what: &str) {
        self.api.forget_token();
        self.login.renew(self.clock.now());
        self.channel_lost(what);
    }

    /// After a suspend, nothing agreed before is reliable: the token, the channel and the socket may be gone, and
    /// events were missed. All of them are checked now.
    fn resumed(&mut self, time: Duration) {
        log::info!("the machine was suspended for {} s: reconnecting and reading what was missed", time.as_secs());
        let now = self.clock.now();
        self.throttled_until = now;
        self.login.renew(now);
        self.subscription.renew(now);
        self.connections.reopen(now);
        self.definitions.at = now;
        self.read_now();
    }

    // ----- the events -----

    fn handle(&mut self, event: SessionEvent) {
        let now = self.clock.now();
        match event {
            SessionEvent::Opened(connection) => {
                if self.connections.opened(connection, now) {
                    // Events that occurred while no socket was open are in the history.
                    self.read_now();
                    self.publish();
                }
            }
            SessionEvent::Closed { connection, why, at } => {
                if self.connections.is_current(connection) {
                    self.read_now();
                } else if self.connections.is_opening(connection) {
                    self.status.counters.errors.add(1);
                }
                match self.connections.closed(connection, &why, at, now) {
                    Next::Nothing => {}
                    Next::Check(at) => self.subscription.renew(at),
                    Next::Replace => self.subscription.replace(now),
                    Next::Renew => self.renew_token_and_channel("the server closed the socket because of its token"),
                }
            }
            SessionEvent::Control { connection, control } => self.control(connection, control),
            SessionEvent::ChannelKept => {
                self.is_channel_kept = true;
                self.connections.remembered(now);
            }
            SessionEvent::Loaded => self.reading.is_loaded = true,
            SessionEvent::ReadUpTo { ids, up_to, purpose } => self.reading.covers(&ids, up_to, purpose),
            SessionEvent::ReadDone { purpose, appended, unjudged_since } => {
                self.read_done(purpose, appended, unjudged_since);
            }
        }
        self.status.gauges.socket_connected.set(i64::from(self.connections.has_socket()));
    }

    fn control(&mut self, connection: Connection, control: Control) {
        if !self.connections.is_current(connection) {
            return;
        }
        match control {
            Control::SocketClosing => {
                log::info!("the server is about to close the socket: opening another one to the same channel");
                self.connections.reopen(self.clock.now());
            }
            Control::Revoked => self.renew_token_and_channel("the server ended the subscription or the token"),
            Control::ChannelGone => self.channel_lost("the server reports that the channel is gone"),
        }
    }

    // ----- what the parts share -----

    /// Whether to try a subscription: the transports allow it, or some topic is not subject to them.
    fn may_subscribe(&self) -> bool {
        let may = match self.config.genesys.delivery {
            Delivery::History => false,
            Delivery::Websocket => true,
            Delivery::Auto => self.transport.is_allowed || self.has_other_topics(),
        };
        may && !self.plan.topics.is_empty()
    }

    /// Whether some topic is not an operational event's.
    fn has_other_topics(&self) -> bool {
        self.plan.ids.len() < self.plan.topics.len()
    }

    /// Whether a socket should be open.
    fn wants_socket(&self) -> bool {
        self.may_subscribe() && !self.subscription.all_rejected()
    }

    /// Publishes the service's time to the other threads.
    fn publish_service_time(&mut self) {
        let service = self.api.service();
        if service.is_known() {
            self.service_time.learn(service.now(), self.clock.now());
            self.login.compare_clocks(service);
        }
    }

    fn overlap_ms(&self) -> Millis {
        self.config.catch_up.overlap.as_millis() as Millis
    }

    /// Applies the failure of an API call to the other parts. Returns the requested wait, if any.
    fn failed(&mut self, error: &ApiError) -> Option<Duration> {
        let now = self.clock.now();
        self.call_failed = Some((now, error.problem()));
        match error.kind {
            Kind::Throttled(asked) => {
                let wait = asked.unwrap_or_else(|| self.throttle_backoff.next(draw()));
                self.throttled_until = self.throttled_until.max(now + wait);
                warn_of_retry(&error.problem(), wait);
                Some(wait)
            }
            Kind::Unavailable(asked) => asked,
            Kind::Credentials => {
                // The call's token was no longer valid, and the login that followed was refused.
                self.status.counters.errors.add(1);
                self.connections.set_cause(error.problem());
                self.cannot_read(error);
                self.api.refused_until().map(|until| until.saturating_duration_since(now))
            }
            _ => None,
        }
    }

    fn warn_of_retry(&self, error: &ApiError, wait: Duration) {
        self.status.counters.errors.add(1);
        warn_of_retry(&error.problem(), wait);
    }

    /// Publishes the channel and the collected topics to the status.
    fn publish(&self) {
        let channel = self.subscription.channel().map(|channel| Secret::new(channel.id.clone()));
        let permitted = self.subscription.permitted();
        let topics = if permitted.is_empty() { self.plan.topics.clone() } else { permitted.to_vec() };
        self.status.update_session(|view| {
            view.channel = channel;
            view.topics = topics;
        });
    }
}

fn warn_of_retry(problem: &Problem, wait: Duration) {
    problem.log(Level::Warn, format_args!("{}; retrying {}", problem.what, in_a_while(wait)));
}

/// The first few names, for a log line.
fn shorten(names: &[String]) -> String {
    const SHOWN: usize = 10;
    let mut text = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(", …");
    }
    text
}

/// When something that waits this long is done, for a log line.
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
