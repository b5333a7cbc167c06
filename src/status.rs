//! The state that the threads publish, and that `/health` and `/metrics` read: counters, reasons, heartbeats and the
//! newest events.
//!
//! Must never: block a publisher. Each lock here is held only for a copy, never during a send, a write or a request.

pub mod backfill;
mod beat;
mod counts;
mod raised;
mod reason;
mod recent;
mod root_cause;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

pub use beat::{Beat, Beats, STALLED_AFTER, Stalled};
pub use counts::{Counts, Series, Totals, Written, when};
use raised::Reasons;
pub use reason::{Code, Problem, Reason, Severity};
pub use recent::{Line, RECENT_MAX, Recent, Snapshot, is_full};
pub use root_cause::CONSEQUENCES;

use crate::clock::{Clock, Millis, format_millis};
use crate::secret::Secret;

/// A counter that only its owner increments.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A value that its owner sets; `None` before that.
#[derive(Debug)]
pub struct Gauge(AtomicI64);

impl Default for Gauge {
    fn default() -> Self {
        Self(AtomicI64::new(i64::MIN))
    }
}

impl Gauge {
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds to the value, if it is set.
    pub fn add(&self, n: i64) {
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |value| {
            (value != i64::MIN).then(|| value.saturating_add(n))
        });
    }

    pub fn get(&self) -> Option<i64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|value| *value != i64::MIN)
    }
}

/// All counters. When no event is in progress: received = written + duplicate + filtered + unreadable.
#[derive(Debug, Default)]
pub struct Counters {
    pub received_websocket: Counter,
    pub received_history: Counter,
    pub written: Counter,
    pub duplicate: Counter,
    pub filtered: Counter,
    pub unreadable: Counter,
    /// Failures such as refused logins, failed writes and broken sockets.
    pub errors: Counter,
    pub socket_connects: Counter,
    pub elastic_created: Counter,
    pub elastic_exists: Counter,
    pub elastic_dead: Counter,
    pub elastic_dropped: Counter,
}

/// Gauges. Times are in milliseconds since 1970.
#[derive(Debug, Default)]
pub struct Gauges {
    /// 1 while a socket is open.
    pub socket_connected: Gauge,
    pub checkpoint: Gauge,
    /// The newest event's time.
    pub last_event: Gauge,
    pub elastic_backlog_bytes: Gauge,
    /// All records in the files from this time on are in the writer's dedup index.
    pub index_since: Gauge,
    /// When the output file was last moved, deleted or truncated by somebody else.
    pub taken_away: Gauge,
    /// 1 while the list of definitions is confirmed by the service.
    pub definitions_confirmed: Gauge,
}

/// The state of the session, which `/health` shows.
#[derive(Clone, Debug, Default)]
pub struct SessionView {
    pub channel: Option<Secret>,
    /// The topics that are subscribed, or read from the history.
    pub topics: Vec<String>,
    /// True after the first subscription, or once the history is the source of events.
    pub ready: bool,
    /// What the session is doing, in one line for systemd's STATUS.
    pub doing: String,
}

/// The cluster's identity.
#[derive(Clone, Debug, Default)]
pub struct ElasticView {
    /// Name and version, such as `OpenSearch 2.19.1`; `None` before the first response.
    pub server: Option<String>,
}

/// The state that all threads share.
pub struct Status {
    pub counters: Counters,
    pub gauges: Gauges,
    pub beats: Beats,
    pub recent: Recent,
    /// Events by code and integration.
    pub counts: Counts,
    /// INSTANCE_NAME, which distinguishes collectors on the page, in `/health` and in the metrics.
    pub instance: String,
    clock: Clock,
    started: Millis,
    elastic_on: bool,
    session: Mutex<SessionView>,
    elastic: Mutex<ElasticView>,
    reasons: Mutex<Reasons>,
    stalled_logged: AtomicBool,
}

impl Status {
    pub fn new(clock: Clock, elastic_on: bool) -> Self {
        let status = Self {
            counters: Counters::default(),
            gauges: Gauges::default(),
            beats: Beats::new(clock.clone()),
            recent: Recent::default(),
            counts: Counts::default(),
            instance: String::new(),
            started: clock.wall(),
            elastic_on,
            session: Mutex::default(),
            elastic: Mutex::default(),
            reasons: Mutex::default(),
            stalled_logged: AtomicBool::new(false),
            clock,
        };
        // The session replaces this text with a more specific one.
        status.raise(
            Code::Starting,
            Problem::new("the collector is starting and not subscribed yet", "Wait a few seconds."),
        );
        status
    }

    /// Sets the instance name.
    #[must_use]
    pub fn named(self, instance: impl Into<String>) -> Self {
        Self { instance: instance.into(), ..self }
    }

    /// This machine's time, in milliseconds since 1970.
    pub fn now(&self) -> Millis {
        self.clock.wall()
    }

    /// Raises a reason. It is logged the first time. While it is raised, a new text replaces the old one, and `since`
    /// stays. If a code is raised and cleared repeatedly, it is logged only a few times a minute, with a count.
    pub fn raise(&self, code: Code, problem: Problem) {
        let logged = lock(&self.reasons).raise(code, problem.clone(), self.clock.wall(), self.clock.now());
        if let Some(left_out) = logged {
            log_raised(code, &problem, left_out);
        }
    }

    /// Clears a reason. This is logged if raising it was logged.
    pub fn clear(&self, code: Code) {
        let (since, is_derived) = {
            let mut reasons = lock(&self.reasons);
            (reasons.clear(code), code.is_derived(&reasons.codes()))
        };
        // Do not log "ready" if `starting` is only replaced by its root cause.
        if let Some(since) = since.filter(|_| !is_derived) {
            log_resolved(code, self.clock.wall() - since);
        }
    }

    pub fn is_raised(&self, code: Code) -> bool {
        lock(&self.reasons).is_raised(code)
    }

    /// All current reasons without those that follow from another one: the raised ones, and `stalled` from the
    /// heartbeats.
    pub fn reasons(&self) -> Vec<Reason> {
        let mut reasons = lock(&self.reasons).all();
        if let Some(stalled) = self.find_stalled() {
            let since = self.clock.wall() - stalled.for_ms;
            reasons.push(Reason { code: Code::Stalled, since, problem: stalled_problem(&stalled) });
        }
        let raised: Vec<Code> = reasons.iter().map(|reason| reason.code).collect();
        reasons.retain(|reason| !reason.code.is_derived(&raised));
        reasons
    }

    /// Finds a stalled thread. This also logs it, since a stalled thread cannot.
    fn find_stalled(&self) -> Option<Stalled> {
        let stalled = self.beats.stalled();
        let was_logged = self.stalled_logged.swap(stalled.is_some(), Ordering::Relaxed);
        match &stalled {
            Some(stalled) if !was_logged => log_raised(Code::Stalled, &stalled_problem(stalled), 0),
            None if was_logged => log::info!(code = Code::Stalled.name(); "resolved: {}", Code::Stalled.name()),
            _ => {}
        }
        stalled
    }

    pub fn session(&self) -> SessionView {
        lock(&self.session).clone()
    }

    pub fn update_session(&self, change: impl FnOnce(&mut SessionView)) {
        change(&mut lock(&self.session));
    }

    pub fn update_elastic(&self, change: impl FnOnce(&mut ElasticView)) {
        change(&mut lock(&self.elastic));
    }

    /// The document of `GET /health`, without the HTTP status.
    pub fn health(&self) -> Health {
        let reasons = self.reasons();
        let session = self.session();
        let c = &self.counters;
        Health {
            status: verdict(&reasons),
            timestamp: format_millis(self.clock.wall()),
            instance: self.instance.clone(),
            channel_id: session.channel.map(|id| id.masked()),
            topics: session.topics,
            stats: Stats {
                events_total: c.received_websocket.get() + c.received_history.get(),
                audiohook_events: c.written.get(),
                errors: c.errors.get(),
                last_event: self.gauges.last_event.get().map(format_millis),
                started_at: format_millis(self.started),
                reconnects: c.socket_connects.get().saturating_sub(1),
                received_websocket: c.received_websocket.get(),
                received_history: c.received_history.get(),
                duplicates: c.duplicate.get(),
                filtered: c.filtered.get(),
                unreadable: c.unreadable.get(),
                history_checkpoint: self.gauges.checkpoint.get().map(format_millis),
                socket_connected: self.gauges.socket_connected.get() == Some(1),
            },
            reasons: reasons.iter().map(Reason::shown).collect(),
            elastic: self.elastic_on.then(|| ElasticHealth {
                server: lock(&self.elastic).server.clone(),
                backlog_bytes: self.gauges.elastic_backlog_bytes.get().unwrap_or(0),
                created: c.elastic_created.get(),
                exists: c.elastic_exists.get(),
                dead: c.elastic_dead.get(),
                dropped: c.elastic_dropped.get(),
            }),
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// The state in one line, for `systemctl status`.
    pub fn line(&self) -> String {
        let reasons = self.reasons();
        let codes: Vec<&str> = reasons.iter().map(|reason| reason.code.name()).collect();
        let why = if codes.is_empty() { String::new() } else { format!(" ({})", codes.join(", ")) };
        let doing = self.session().doing;
        let doing = if doing.is_empty() { "starting" } else { doing.as_str() };
        format!("{}{why}: {} events in the file, {doing}", verdict(&reasons), self.counters.written.get())
    }

    /// Whether events can be received, from a subscription or from the history.
    pub fn ready(&self) -> bool {
        lock(&self.session).ready
    }
}

fn log_raised(code: Code, problem: &Problem, left_out: u32) {
    let level = match code.severity() {
        Severity::Unhealthy => log::Level::Error,
        Severity::Degraded if code == Code::Starting => log::Level::Debug,
        Severity::Degraded => log::Level::Warn,
    };
    let (name, severity, cure) = (code.name(), code.severity().name(), problem.cure.as_str());
    let often = if left_out > 0 { format!(" (raised {left_out} more times)") } else { String::new() };
    let message = format!("{name}: {}{often}", problem.what);
    match problem.correlation_id.as_deref() {
        Some(id) => log::log!(level, code = name, severity = severity, cure = cure, correlation_id = id; "{message}"),
        None => log::log!(level, code = name, severity = severity, cure = cure; "{message}"),
    }
}

fn log_resolved(code: Code, lasted_ms: i64) {
    let (name, severity) = (code.name(), code.severity().name());
    let lasted = match lasted_ms / 1000 {
        seconds @ ..=119 => format!("{} s", seconds.max(0)),
        seconds @ ..=7199 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    };
    if code == Code::Starting {
        log::info!(code = name, severity = severity; "ready: collecting");
    } else {
        log::info!(code = name, severity = severity; "resolved: {name} (lasted {lasted})");
    }
}

fn stalled_problem(stalled: &Stalled) -> Problem {
    Problem::new(
        format!(
            "the {} thread has not responded for {} s: events are delayed; Genesys keeps them for ten days",
            stalled.thread,
            stalled.for_ms / 1000
        ),
        "Check for a hung disk or network file system. If there is none, restart the service.",
    )
}

/// The overall health: the severity of the worst reason.
pub fn verdict(reasons: &[Reason]) -> &'static str {
    if reasons.iter().any(|r| r.code.severity() == Severity::Unhealthy) {
        "unhealthy"
    } else if reasons.is_empty() {
        "healthy"
    } else {
        "degraded"
    }
}

/// The fields of `GET /health`. Those of the predecessor come first and keep their meaning.
#[derive(Debug, Serialize)]
pub struct Health {
    pub status: &'static str,
    pub timestamp: String,
    pub instance: String,
    pub channel_id: Option<String>,
    pub topics: Vec<String>,
    pub stats: Stats,
    pub reasons: Vec<reason::Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elastic: Option<ElasticHealth>,
    pub version: &'static str,
}

#[derive(Debug, Serialize)]
pub struct Stats {
    pub events_total: u64,
    pub audiohook_events: u64,
    pub errors: u64,
    pub last_event: Option<String>,
    pub started_at: String,
    pub reconnects: u64,
    pub received_websocket: u64,
    pub received_history: u64,
    pub duplicates: u64,
    pub filtered: u64,
    pub unreadable: u64,
    pub history_checkpoint: Option<String>,
    pub socket_connected: bool,
}

#[derive(Debug, Serialize)]
pub struct ElasticHealth {
    pub server: Option<String>,
    pub backlog_bytes: i64,
    pub created: u64,
    pub exists: u64,
    pub dead: u64,
    pub dropped: u64,
}

/// Locks, also after a panic: every change here is a single assignment, so the value is consistent.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
