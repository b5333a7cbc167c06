//! The guard in front of tiny_http: it accepts, bounds and times the clients' connections, and knows no HTTP beyond
//! where a head ends.
//!
//! Must never: wait for a client, spin, or take the last descriptors from the threads that keep the events.

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
use super::routes::Site;
use crate::clock::Clock;

/// Connections at once, at most.
const CONNECTIONS_MAX: usize = 128;
const CONNECTIONS_MIN: usize = 8;
/// At most this share of the descriptors that the process may open: files and sockets of other threads need the rest.
const DESCRIPTORS_SHARE: usize = 8;
/// Long answers at once, at most: each keeps its records in memory until its client has taken them.
const LONG_ANSWERS_MAX: usize = 16;
/// Bytes of an answer that the system holds for a client.
const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// Connections accepted before those that are there have their turn again.
const ACCEPTS_A_TURN: usize = 32;
/// How long a connection that does nothing is not given up for a newer one…
const GRACE: Duration = Duration::from_millis(50);
/// …and one that takes none of its answer: whoever reads slowly takes a piece within this time.
const STALLED_AFTER: Duration = Duration::from_secs(1);
/// How long to wait for a descriptor that the system refuses.
const PAUSE: Duration = Duration::from_millis(20);
/// Descriptors that one hand-over takes: our end, the backend's end, and its copy.
const HAND_OVER: usize = 3;
/// Descriptors held back for a client that comes when there are none left.
const RESERVE: usize = HAND_OVER + 1;
/// How often the log reports that descriptors are short, at most.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// The guard, and all it holds.
pub struct Guard {
    listeners: Vec<TcpListener>,
    /// Ends when the program stops.
    stopped: UnixStream,
    backend: Backend,
    site: Arc<Site>,
    clock: Clock,
    connections: Vec<Connection>,
    connections_max: usize,
    reserve: Vec<OwnedFd>,
    /// Nothing is accepted until then.
    accept_after: Option<Instant>,
    /// When there is a request to hand over, although nothing new comes.
    hand_over_at: Option<Instant>,
    reported_at: Option<Instant>,
}

impl Guard {
    /// # Errors
    /// When the system refuses a descriptor or a thread.
    pub fn new(listeners: Vec<TcpListener>, stopped: UnixStream, site: Site, clock: Clock) -> io::Result<Self> {
        let allowed = getrlimit(Resource::Nofile).current.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
        let site = Arc::new(site);
        Ok(Self {
            backend: Backend::start(site.clone())?,
            listeners,
            stopped,
            site,
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
        let site = self.site.clone();
        let beat = site.status().beats.register("http");
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
            if ready.newcomers {
                (0..self.listeners.len()).for_each(|listener| self.accept(listener, now));
            }
        }
    }

    /// Waits until there is something to do; `None` at the stop.
    fn wait(&mut self) -> Option<Ready> {
        let now = self.clock.now();
        self.accept_after = self.accept_after.filter(|at| *at > now);
        let accepting = if self.accept_after.is_none() { PollFlags::IN } else { PollFlags::empty() };
        let mut wanted = vec![PollFd::new(&self.stopped, PollFlags::IN)];
        wanted.extend(self.listeners.iter().map(|listener| PollFd::new(listener, accepting)));
        for connection in &self.connections {
            wanted.push(PollFd::new(&connection.client, connection.wants()));
            // One that wants nothing of the backend has its client's side twice, so that each has two places.
            let nothing = || PollFd::new(&connection.client, PollFlags::empty());
            wanted.push(connection.source().map_or_else(nothing, |backend| PollFd::new(backend, PollFlags::IN)));
        }
        let deadlines = self.connections.iter().map(|connection| connection.deadline);
        // The backend gives its descriptors back a little after its answer.
        let refill_at = (self.reserve.len() < RESERVE).then(|| now + PAUSE);
        let deadlines = deadlines.chain(self.accept_after).chain(self.hand_over_at).chain(refill_at);
        // A millisecond more, so that the deadline has passed on waking.
        let left = |at: Instant| if at <= now { Duration::ZERO } else { at - now + Duration::from_millis(1) };
        let timeout = deadlines.min().map(left);
        match poll(&mut wanted, timeout.and_then(|left| Timespec::try_from(left).ok()).as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Some(Ready::default()),
            // More connections than descriptors are allowed, since the limit was lowered: begin anew.
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
        let newcomers = events.by_ref().take(self.listeners.len()).fold(false, |any, event| any | !event.is_empty());
        let events: Vec<PollFlags> = events.collect();
        let mut ready = Ready { newcomers, connections: Vec::with_capacity(self.connections.len()) };
        drop(wanted);
        for (connection, pair) in self.connections.iter_mut().zip(events.chunks(2)) {
            if pair[0].intersects(PollFlags::HUP | PollFlags::ERR) {
                connection.end();
            }
            ready.connections.push(!pair[0].is_empty() || !pair[1].is_empty());
        }
        Some(ready)
    }

    /// Hands complete requests to the backend, who asked first before who asked later.
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

    /// The request to be handed over: a long answer waits while there are too many, and for the short ones.
    fn next_request(&mut self, now: Instant) -> Option<usize> {
        let ready = (0..self.connections.len()).filter(|at| self.connections[*at].is_ready());
        let key = |at: &usize| (self.connections[*at].is_heavy(), self.connections[*at].idle_since());
        let next = ready.min_by_key(key)?;
        let is_long = |one: &&Connection| one.is_heavy() && one.is_answering();
        if !self.connections[next].is_heavy() || self.connections.iter().filter(is_long).count() < LONG_ANSWERS_MAX {
            return Some(next);
        }
        // A client that stalls gives its place to one that waits.
        let stalls =
            |one: &Connection| one.is_blocked() && now.saturating_duration_since(one.idle_since()) >= STALLED_AFTER;
        if let Some(stalled) = self.connections.iter_mut().find(|one| one.is_heavy() && stalls(one)) {
            stalled.end();
            return Some(next);
        }
        self.hand_over_at = Some(now + PAUSE);
        None
    }

    /// Whether the backend can have the descriptors it needs to accept one more request: it ends where it cannot.
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

    /// Holds descriptors back again, once no request needs those that were given free.
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
        match Backend::start(self.site.clone()) {
            Ok(backend) => self.backend = backend,
            Err(error) => log::warn!("cannot restart the HTTP backend: {error}; retrying"),
        }
    }

    fn accept(&mut self, listener: usize, now: Instant) {
        for _ in 0..ACCEPTS_A_TURN {
            if self.connections.len() >= self.connections_max && !self.make_room(now) {
                self.accept_after = Some(now + PAUSE);
                return;
            }
            match self.listeners[listener].accept() {
                Ok((stream, _)) => {
                    // A client that does not read must not fill the system's buffers with megabytes.
                    let is_bounded = set_socket_send_buffer_size(&stream, SEND_BUFFER_BYTES).is_ok();
                    // Without these two it could block the thread, or answer late.
                    if is_bounded && stream.set_nonblocking(true).is_ok() && stream.set_nodelay(true).is_ok() {
                        self.connections.push(Connection::new(stream, now));
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(e) => {
                    self.report(now, &e);
                    let has_room = is_shortage(&e) && (self.make_room(now) || self.give_one_back());
                    if !has_room {
                        self.accept_after = Some(now + PAUSE);
                        return;
                    }
                }
            }
        }
    }

    /// Gives up the least useful connection, unless it is too new for that.
    fn make_room(&mut self, now: Instant) -> bool {
        let ranked = (0..self.connections.len()).filter_map(|at| Some((self.connections[at].rank()?, at)));
        let least = ranked.min().filter(|((is_blocked, useful_at), _)| {
            now.saturating_duration_since(*useful_at) >= if *is_blocked { STALLED_AFTER } else { GRACE }
        });
        least.map(|(_, at)| self.connections.swap_remove(at)).is_some()
    }

    /// Gives back the one descriptor of the reserve that no hand-over needs.
    fn give_one_back(&mut self) -> bool {
        self.reserve.len() > HAND_OVER && self.reserve.pop().is_some()
    }

    fn report(&mut self, now: Instant, error: &io::Error) {
        if self.reported_at.is_none_or(|at| now.saturating_duration_since(at) >= REPORT_EVERY) {
            self.reported_at = Some(now);
            log::warn!(
                "cannot accept an HTTP connection: {error}; idle connections are closed and it is retried; if open files run out, raise LimitNOFILE= (ulimit -n)"
            );
        }
    }
}

/// What is ready.
#[derive(Default)]
struct Ready {
    newcomers: bool,
    /// For each connection, whether it is.
    connections: Vec<bool>,
}

fn is_shortage(error: &io::Error) -> bool {
    let code = Errno::from_io_error(error);
    matches!(code, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

/// One more descriptor, of no use but to be closed.
fn descriptor(any: &UnixStream) -> io::Result<OwnedFd> {
    Ok(any.try_clone()?.into())
}
