//! The service's shared state, and issuing events.
//!
//! One lock protects everything, and each change notifies one condition variable. Must never: hold the lock during a
//! read or write on a connection.

use std::collections::{BTreeSet, HashMap};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use native_tls::TlsAcceptor;

use super::channels::Channels;
use super::definitions::{Definition, Definitions};
use super::event::{Event, Stored, Template, mix};
use super::fault::{Knobs, Rejection, Rule, spend};
use super::history::{HELD, History, KEPT_MS, RunningMs};
use super::outbox::{Cut, Out};
use super::tokens::Tokens;
use super::view::Counts;
use crate::clock::Millis;

#[derive(Default)]
pub(super) struct State {
    pub tokens: Tokens,
    pub channels: Channels,
    pub definitions: Definitions,
    /// The ids of removed definitions.
    pub gone: BTreeSet<String>,
    pub history: History,
    /// Whether rows may have other times than their events, so that new rows must avoid them.
    pub was_jittered: bool,
    pub rules: Vec<Rule>,
    /// Counts healings, so that a hanging call notices the end of its fault.
    pub healed: u64,
    pub rejections: Vec<Rejection>,
    pub knobs: Knobs,
    pub counts: Counts,
    /// The number of the newest event.
    pub number: u32,
    /// All issued events, for tests; `None`: not kept.
    pub issued: Option<Vec<Stored>>,
    pub stopped: bool,
    /// The open connections by peer address, to close them on stop.
    pub connections: HashMap<SocketAddr, Arc<TcpStream>>,
}

impl State {
    /// The service's time.
    pub fn now(&self) -> Millis {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as Millis);
        wall + self.knobs.clock_offset_ms
    }

    /// Closes the expired channels.
    pub fn expire_channels(&mut self) {
        self.channels.expire(self.knobs.channel_life);
    }
}

pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    pub seed: u64,
    /// The service's `host:port`, for requests without a `Host` header.
    pub authority: String,
    pub tls: Option<TlsAcceptor>,
    started: Instant,
}

/// Where an event appears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// On the sockets and in the history.
    Both,
    /// On the sockets only, never in the history.
    SocketOnly,
    /// In the history only.
    HistoryOnly,
}

impl Shared {
    pub fn new(state: State, seed: u64, authority: String, tls: Option<TlsAcceptor>) -> Self {
        Self { state: Mutex::new(state), changed: Condvar::new(), seed, authority, tls, started: Instant::now() }
    }

    /// Locks the state for reading.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and notifies all waiting threads.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Waits until `look` returns something, at most `limit`.
    pub fn wait<T>(&self, limit: Duration, mut look: impl FnMut(&State) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        loop {
            if let Some(found) = look(&state) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Time since the simulator started, by the monotonic clock.
    pub fn running_ms(&self) -> RunningMs {
        self.started.elapsed().as_millis() as RunningMs
    }

    /// Makes a template for this event. Adds its definition if it is unknown.
    pub fn template(&self, event: Event) -> Arc<Template> {
        self.change(|state| {
            let id = &event.definition;
            let new = || Definition::new(id, "New event", "");
            let definition = state.definitions.entry(id.clone()).or_insert_with(new).clone();
            Arc::new(Template::new(event, &definition))
        })
    }

    /// Issues one event of the template per time; `None`: the template's own time, or else now.
    pub fn issue(&self, template: Arc<Template>, times: &[Option<Millis>], route: Route) -> Arc<[Stored]> {
        self.change(|state| {
            let now = state.now();
            let event = |(number, time_ms): (u32, &Option<Millis>)| Stored {
                time_ms: time_ms.or(template.event.time_ms).unwrap_or(now),
                number,
                salt: mix(self.seed ^ u64::from(number)) as u32,
                template: template.clone(),
            };
            let batch: Arc<[Stored]> = (state.number + 1..).zip(times).map(event).collect();
            state.number += batch.len() as u32;
            match &mut state.issued {
                Some(issued) => issued.extend_from_slice(&batch),
                // Without tests, the service may run for weeks: it keeps only what the real one keeps.
                None => state.history.prune(now - KEPT_MS),
            }
            if route != Route::SocketOnly {
                self.add_to_history(state, &batch);
            }
            if route != Route::HistoryOnly {
                send(state, batch.clone());
            }
            batch
        })
    }

    /// Sends already issued events on the sockets; skips those that were not kept.
    pub fn send_again(&self, numbers: impl IntoIterator<Item = u32>) {
        self.change(|state| {
            for number in numbers {
                let kept = state.issued.as_ref().and_then(|all| all.get((number as usize).checked_sub(1)?));
                if let Some(event) = kept.cloned() {
                    send(state, [event].into());
                }
            }
        });
    }

    /// Adds events to the history, with the knobs' lag, shift and jitter.
    fn add_to_history(&self, state: &mut State, batch: &[Stored]) {
        let knobs = &state.knobs;
        let visible = match knobs.history_lag.as_millis() as RunningMs {
            _ if knobs.hold_history => HELD,
            0 => 0,
            lag => self.running_ms() + lag,
        };
        let (shift, jitter) = (knobs.history_shift_ms, knobs.history_jitter_ms);
        state.was_jittered |= jitter != 0;
        for event in batch {
            let off = mix(u64::from(event.salt) + 1) % (2 * jitter.unsigned_abs() + 1);
            let moved = event.time_ms + shift + off as i64 - jitter.abs();
            let created = match event.template.event.row_time_ms {
                Some(time_ms) => time_ms,
                None if state.was_jittered => state.history.free_from(moved, event),
                None => moved,
            };
            state.history.insert(created, event.clone(), visible);
        }
    }

    /// Closes every connection and wakes all waiting threads.
    pub fn stop(&self) {
        self.change(|state| {
            state.stopped = true;
            for connection in state.connections.values() {
                let _ = connection.shutdown(Shutdown::Both);
            }
            state.channels.list.iter().filter_map(|c| c.socket.as_ref()).for_each(|socket| socket.cut(Cut::Close));
        });
    }
}

/// Sends events on every socket whose channel is subscribed to them.
fn send(state: &mut State, mut batch: Arc<[Stored]>) {
    let knobs = &mut state.knobs;
    if knobs.socket_to_drop > 0 || knobs.socket_to_double > 0 {
        let copies = |event: &Stored| {
            let count =
                if spend(&mut knobs.socket_to_drop) { 0 } else { 1 + usize::from(spend(&mut knobs.socket_to_double)) };
            vec![event.clone(); count]
        };
        batch = batch.iter().flat_map(copies).collect();
    }
    let Some(first) = batch.first() else { return };
    // All events of a batch have one definition, hence one topic.
    let topic = format!("v2.operations.events.{}", first.template.event.definition);
    for channel in state.channels.list.iter().filter(|channel| channel.topics.contains(&topic)) {
        if let Some(socket) = &channel.socket {
            socket.put(Out::Events(batch.clone()));
        }
    }
}
