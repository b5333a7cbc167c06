//! The guard in front of tiny_http. It accepts client connections, and limits their number, size and time. It parses no
//! more of HTTP than the limits need.
//!
//! Must never: block on a client, spin, or use up the descriptors that the threads writing events need.

use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_send_buffer_size;
use rustix::process::{Resource, getrlimit};

use super::backend::Backend;
use super::connection::Connection;
use super::routes::Handler;
use crate::clock::Clock;

/// Limits of `Guard::connections_max`.
const CONNECTIONS_MAX: usize = 128;
const CONNECTIONS_MIN: usize = 8;
/// Connections may be 1/8 of the descriptors that the process may open. Other threads need the rest for files and
/// sockets.
const DESCRIPTORS_SHARE: usize = 8;
/// Maximum number of long responses at once. Each keeps its records in memory until its client has read them.
const LONG_ANSWERS_MAX: usize = 16;
/// Size of the kernel's send buffer for each client.
const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// Connections accepted before the existing ones have their turn again.
const ACCEPTS_PER_TURN: usize = 32;
/// Time that an idle connection is safe from being closed to make room for a new one.
const GRACE: Duration = Duration::from_millis(50);
/// The same for a client that is not reading its response. A slow reader makes progress within this time.
const STALLED_AFTER: Duration = Duration::from_secs(1);
/// Delay before the retry when no descriptor is free.
const PAUSE: Duration = Duration::from_millis(20);
/// Descriptors needed to hand over a request: this end of the socket, the backend's end, and the backend's copy.
const HAND_OVER: usize = 3;
/// Descriptors held in reserve, so that a client can be served when no others are left.
const RESERVE: usize = HAND_OVER + 1;
/// Minimum interval between warnings about failed accepts.
const REPORT_EVERY: Duration = Duration::from_secs(60);

pub struct Guard {
    listeners: Vec<TcpListener>,
    /// Its peer is closed when the program stops.
    stopped: UnixStream,
    backend: Backend,
    handler: Arc<Handler>,
    clock: Clock,
    connections: Vec<Connection>,
    connections_max: usize,
    reserve: Vec<OwnedFd>,
    /// No connection is accepted before this time.
    accept_after: Option<Instant>,
    /// When to retry handing over a request that could not be handed over.
    hand_over_at: Option<Instant>,
    reported_at: Option<Instant>,
}

impl Guard {
    /// # Errors
    /// When the system refuses a descriptor or a thread.
    pub fn new(listeners: Vec<TcpListener>, stopped: UnixStream, handler: Handler, clock: Clock) -> io::Result<Self> {
        let allowed = getrlimit(Resource::Nofile).current.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
        let handler = Arc::new(handler);
        Ok(Self {
            backend: Backend::start(handler.clone())?,
            listeners,
            stopped,
            handler,
            clock,
            connections: Vec::new(),
            connections_max: (allowed / DESCRIPTORS_SHARE).clamp(CONNECTIONS_MIN, CONNECTIONS_MAX),
            reserve: Vec::new(),
            accept_after: None,
            hand_over_at: None,
            reported_at: None,
        })
    }

    /// Serves until the stop.
    pub fn run(mut self) {
        let handler = self.handler.clone();
        let beat = handler.status().beats.register("http");
        loop {
            self.refill();
            beat.waiting();
            let Some(ready) = self.wait() else { return };
            beat.busy();
            let now = self.clock.now();
            for (connection, is_ready) in self.connections.iter_mut().zip(ready.connections) {
                if is_ready {
                    connection.turn(now);
                }
            }
            self.hand_over(now);
            self.connections.retain(|connection| !connection.has_ended() && connection.deadline > now);
            if ready.has_new_clients {
                (0..self.listeners.len()).for_each(|listener| self.accept(listener, now));
            }
        }
    }

    /// Waits for I/O or a deadline; `None` when the program stops.
    fn wait(&mut self) -> Option<Ready> {
        let now = self.clock.now();
        self.accept_after = self.accept_after.filter(|at| *at > now);
        let accepting = if self.accept_after.is_none() { PollFlags::IN } else { PollFlags::empty() };
        let mut wanted = vec![PollFd::new(&self.stopped, PollFlags::IN)];
        wanted.extend(self.listeners.iter().map(|listener| PollFd::new(listener, accepting)));
        for connection in &self.connections {
            wanted.push(PollFd::new(&connection.client, connection.wants()));
            // Each connection has two entries. If it is not reading from the backend, the second one is its client's
            // socket with no events.
            let nothing = || PollFd::new(&connection.client, PollFlags::empty());
            wanted.push(connection.source().map_or_else(nothing, |backend| PollFd::new(backend, PollFlags::IN)));
        }
        let deadlines = self.connections.iter().map(|connection| connection.deadline);
        // The backend closes its descriptors shortly after its response.
        let refill_at = (self.reserve.len() < RESERVE).then(|| now + PAUSE);
        let deadlines = deadlines.chain(self.accept_after).chain(self.hand_over_at).chain(refill_at);
        // Wait a millisecond longer, so that the deadline has passed after waking up.
        let left = |at: Instant| if at <= now { Duration::ZERO } else { at - now + Duration::from_millis(1) };
        let timeout = deadlines.min().map(left);
        match poll(&mut wanted, timeout.and_then(|left| Timespec::try_from(left).ok()).as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Some(Ready::default()),
            // The descriptor limit was lowered below the number of connections: close all of them.
            Err(_) => {
                drop(wanted);
                self.connections.clear();
                return Some(Ready::default());
            }
        }
        let mut events = wanted.iter().map(|fd| fd.revents());
        if !events.next()?.is_empty() {
            return None;
        }
        let has_new_clients =
            events.by_ref().take(self.listeners.len()).fold(false, |any, event| any | !event.is_empty());
        let events: Vec<PollFlags> = events.collect();
        let mut ready = Ready { has_new_clients, connections: Vec::with_capacity(self.connections.len()) };
        drop(wanted);
        for (connection, pair) in self.connections.iter_mut().zip(events.chunks(2)) {
            if pair[0].intersects(PollFlags::HUP | PollFlags::ERR) {
                connection.end();
            }
            ready.connections.push(!pair[0].is_empty() || !pair[1].is_empty());
        }
        Some(ready)
    }

    /// Hands complete requests to the backend, in the order of their arrival.
    fn hand_over(&mut self, now: Instant) {
        self.hand_over_at = None;
        while let Some(next) = self.next_request(now) {
            if self.backend.has_ended() {
                self.restart_backend();
            }
            match self.has_room().then(|| self.backend.connect()) {
                Some(Ok(stream)) => self.connections[next].hand_over(stream, now),
                refused => {
                    if refused.and_then(Result::err).is_some_and(|e| e.kind() == ErrorKind::ConnectionRefused) {
                        self.restart_backend();
                    }
                    self.hand_over_at = Some(now + PAUSE);
                    return;
                }
            }
        }
    }

    /// The next request to hand over. Short responses come first; long ones also wait while there are too many of them.
    fn next_request(&mut self, now: Instant) -> Option<usize> {
        let ready = (0..self.connections.len()).filter(|at| self.connections[*at].is_ready());
        let key = |at: &usize| (self.connections[*at].is_heavy(), self.connections[*at].idle_since());
        let next = ready.min_by_key(key)?;
        let is_long = |one: &&Connection| one.is_heavy() && one.is_answering();
        if !self.connections[next].is_heavy() || self.connections.iter().filter(is_long).count() < LONG_ANSWERS_MAX {
            return Some(next);
        }
        // Close a stalled client to make room for a waiting one.
        let stalls =
            |one: &Connection| one.is_blocked() && now.saturating_duration_since(one.idle_since()) >= STALLED_AFTER;
        if let Some(stalled) = self.connections.iter_mut().find(|one| one.is_heavy() && stalls(one)) {
            stalled.end();
            return Some(next);
        }
        self.hand_over_at = Some(now + PAUSE);
        None
    }

    /// Whether enough descriptors are free for the backend to accept one more request. tiny_http stops when an accept
    /// fails. If no request is awaiting the backend, descriptors are released from the reserve.
    fn has_room(&mut self) -> bool {
        let awaiting = self.connections.iter().filter(|connection| connection.is_awaiting()).count();
        let needed = HAND_OVER + (HAND_OVER - 1) * awaiting;
        let free: io::Result<Vec<OwnedFd>> = (0..needed).map(|_| descriptor(&self.stopped)).collect();
        if free.is_err() && awaiting == 0 && self.reserve.len() >= HAND_OVER {
            self.reserve.truncate(self.reserve.len() - HAND_OVER);
            return true;
        }
        free.is_ok()
    }

    /// Fills the reserve again, once no request needs the released descriptors.
    fn refill(&mut self) {
        if self.connections.iter().any(Connection::is_awaiting) {
            return;
        }
        while self.reserve.len() < RESERVE {
            let Ok(one) = descriptor(&self.stopped) else { return };
            self.reserve.push(one);
        }
    }

    fn restart_backend(&mut self) {
        match Backend::start(self.handler.clone()) {
            Ok(backend) => self.backend = backend,
            Err(error) => log::warn!("cannot restart the HTTP backend: {error}; retrying"),
        }
    }

    fn accept(&mut self, listener: usize, now: Instant) {
        for _ in 0..ACCEPTS_PER_TURN {
            if self.connections.len() >= self.connections_max && !self.make_room(now) {
                self.accept_after = Some(now + PAUSE);
                return;
            }
            match self.listeners[listener].accept() {
                Ok((stream, _)) => {
                    // A client that does not read must not fill megabytes of kernel buffers.
                    let is_bounded = set_socket_send_buffer_size(&stream, SEND_BUFFER_BYTES).is_ok();
                    // Without these options a client could block the thread, or responses would be delayed.
                    if is_bounded && stream.set_nonblocking(true).is_ok() && stream.set_nodelay(true).is_ok() {
                        self.connections.push(Connection::new(stream, now));
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(e) => {
                    self.report(now, &e);
                    let has_room = is_shortage(&e) && (self.make_room(now) || self.release_spare());
                    if !has_room {
                        self.accept_after = Some(now + PAUSE);
                        return;
                    }
                }
            }
        }
    }

    /// Closes the connection of the lowest rank, unless it made progress too recently.
    fn make_room(&mut self, now: Instant) -> bool {
        let ranked = (0..self.connections.len()).filter_map(|at| Some((self.connections[at].rank()?, at)));
        let least = ranked.min().filter(|((is_blocked, progress_at), _)| {
            now.saturating_duration_since(*progress_at) >= if *is_blocked { STALLED_AFTER } else { GRACE }
        });
        least.map(|(_, at)| self.connections.swap_remove(at)).is_some()
    }

    /// Releases the one descriptor of the reserve that no hand-over needs.
    fn release_spare(&mut self) -> bool {
        self.reserve.len() > HAND_OVER && self.reserve.pop().is_some()
    }

    fn report(&mut self, now: Instant, error: &io::Error) {
        if self.reported_at.is_none_or(|at| now.saturating_duration_since(at) >= REPORT_EVERY) {
            self.reported_at = Some(now);
            log::warn!(
                "cannot accept an HTTP connection: {error}; closing idle connections and retrying; if there are too many open files, raise LimitNOFILE= (ulimit -n)"
            );
        }
    }
}

/// The result of a wait.
#[derive(Default)]
struct Ready {
    has_new_clients: bool,
    /// For each connection, whether it can read or write.
    connections: Vec<bool>,
}

fn is_shortage(error: &io::Error) -> bool {
    let code = Errno::from_io_error(error);
    matches!(code, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

/// Duplicates a descriptor, only to hold one more.
fn descriptor(any: &UnixStream) -> io::Result<OwnedFd> {
    Ok(any.try_clone()?.into())
}
