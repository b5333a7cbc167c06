//! What all connections of the service share, and how an event gets out of it.
//!
//! Deals with: one lock over everything, one condition that tells of each change. Must never: be held over a read or a
//! write of a connection.

use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::{Clock, Millis};

use super::channels::{Channel, Channels};
use super::definitions::{Definition, Definitions};
use super::event::{Event, Stored, Template, mix};
use super::fault::{Faults, spend};
use super::frame;
use super::history::{HELD, History, KEPT_MS, VisibleMs};
use super::outbox::{Cut, Out};
use super::tokens::Tokens;
use super::view::Counts;

pub(super) struct State {
    pub tokens: Tokens,
    pub channels: Channels,
    pub definitions: Definitions,
    pub history: History,
    pub faults: Faults,
    pub counts: Counts,
    /// The number of the newest event.
    pub number: u32,
    /// Everything ever issued, for a test to compare with; `None`: not kept.
    pub issued: Option<Vec<Stored>>,
    pub stopped: bool,
    /// Every open connection, so that stopping can end them.
    pub connections: HashMap<u64, Arc<TcpStream>>,
    pub connections_made: u64,
}

pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    pub clock: Clock,
    pub seed: u64,
    /// `host:port` under which the service is reached when a request does not say.
    pub authority: String,
    pub tls: Option<native_tls::TlsAcceptor>,
    started: Instant,
}

/// Which ways an event goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// On the sockets and into the history.
    Both,
    /// On the sockets alone; the history never has it.
    SocketOnly,
    /// Into the history alone.
    HistoryOnly,
}

impl Shared {
    pub fn new(
        state: State,
        clock: Clock,
        seed: u64,
        authority: String,
        tls: Option<native_tls::TlsAcceptor>,
    ) -> Arc<Self> {
        let started = clock.now();
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new(), clock, seed, authority, tls, started })
    }

    /// A look that changes nothing.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A change, of which everyone who waits is told.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Waits until `look` finds something, at most this long.
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

    /// The simulator's own running time, which no step of the wall clock moves.
    pub fn running_ms(&self) -> VisibleMs {
        self.clock.now().duration_since(self.started).as_millis() as VisibleMs
    }

    /// The service's clock.
    pub fn service_now(&self, state: &State) -> Millis {
        self.clock.wall() + state.faults.knobs.clock_offset_ms
    }

    /// Takes away the channels that have reached their end, and closes their sockets.
    pub fn expire_channels(&self, state: &mut State) {
        let life = state.faults.knobs.channel_life;
        state.channels.expire(life, self.clock.now()).iter().for_each(tell_gone);
    }

    /// What events are made of. `kept`: for many of them, so its texts are prepared once.
    pub fn template(&self, event: Event, kept: bool) -> Arc<Template> {
        self.change(|state| {
            let definition = state.definitions.find(&event.definition);
            let definition = definition
                .unwrap_or_else(|| state.definitions.add(Definition::new(&event.definition, "New event", "")));
            Arc::new(Template::new(event, definition, kept))
        })
    }

    /// Issues as many events of one template as there are times; `None`: its own time, or else now. Gives the number of
    /// the first.
    pub fn issue_template(&self, template: Arc<Template>, times: &[Option<Millis>], route: Route) -> u32 {
        self.change(|state| {
            let now = self.service_now(state);
            let first = state.number + 1;
            let batch: Vec<Stored> = (first..)
                .zip(times)
                .map(|(number, time_ms)| Stored {
                    time_ms: time_ms.or(template.event.time_ms).unwrap_or(now),
                    number,
                    salt: mix(self.seed ^ u64::from(number)) as u32,
                    template: template.clone(),
                })
                .collect();
            state.number += batch.len() as u32;
            match &mut state.issued {
                Some(issued) => issued.extend_from_slice(&batch),
                // Nobody compares: a service that runs for weeks keeps what the real one keeps.
                None => state.history.prune(now - KEPT_MS),
            }
            if route != Route::SocketOnly {
                self.remember(state, &batch);
            }
            if route != Route::HistoryOnly {
                send(state, batch);
            }
            first
        })
    }

    /// Puts events that were issued before on the sockets; those that are not kept are passed over.
    pub fn send_again(&self, numbers: impl IntoIterator<Item = u32>) {
        self.change(|state| {
            for number in numbers {
                let kept = state.issued.as_ref().and_then(|all| all.get((number as usize).checked_sub(1)?));
                if let Some(event) = kept.cloned() {
                    send(state, vec![event]);
                }
            }
        });
    }

    /// Puts events into the history, as late and as far off as the faults say.
    fn remember(&self, state: &mut State, batch: &[Stored]) {
        let knobs = &state.faults.knobs;
        let visible = match knobs.history_lag.as_millis() as VisibleMs {
            _ if knobs.hold_history => HELD,
            0 => 0,
            lag => self.running_ms() + lag,
        };
        let (shift, jitter) = (knobs.history_shift_ms, knobs.history_jitter_ms);
        for event in batch {
            let off = mix(u64::from(event.salt) + 1) % (2 * jitter.unsigned_abs() + 1);
            let mut created = event.time_ms + shift + off as i64 - jitter.abs();
            if let Some(time_ms) = event.template.event.row_time_ms {
                created = time_ms;
            } else if jitter != 0 {
                created = state.history.free_from(created, event);
            }
            state.history.insert(created, event.clone(), visible);
        }
    }

    /// Ends every connection and lets what waits go on.
    pub fn stop(&self) {
        self.change(|state| {
            state.stopped = true;
            for connection in state.connections.values() {
                let _ = connection.shutdown(Shutdown::Both);
            }
            for socket in state.channels.iter().filter_map(|channel| channel.socket.as_ref()) {
                socket.cut(Cut::Close);
            }
        });
    }
}

/// Puts events on every socket whose channel is subscribed to them.
fn send(state: &mut State, batch: Vec<Stored>) {
    let knobs = &mut state.faults.knobs;
    let mut sent = Vec::with_capacity(batch.len());
    for event in batch {
        if spend(&mut knobs.socket_to_drop) {
            continue;
        }
        if spend(&mut knobs.socket_to_double) {
            sent.push(event.clone());
        }
        sent.push(event);
    }
    let Some(first) = sent.first() else { return };
    // One issue has one definition, hence one topic.
    let topic = format!("v2.operations.events.{}", first.template.event.definition);
    let batch: Arc<[Stored]> = sent.into();
    for channel in state.channels.iter().filter(|channel| channel.topics.contains(&topic)) {
        if let Some(socket) = &channel.socket {
            socket.put(Out::Events(batch.clone()));
        }
    }
}

/// Tells a channel's socket that the channel is gone, and ends it.
pub(super) fn tell_gone(channel: &Channel) {
    if let Some(socket) = &channel.socket {
        socket.put(Out::Bytes(frame::text("{\"result\":\"404\",\"message\":\"Channel not found\"}")));
        socket.put(Out::Bytes(frame::close(1001, "channel is gone")));
        socket.put(Out::End);
    }
}
