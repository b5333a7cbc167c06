//! The clients' connections: one thread accepts them, bounds and times them, and answers their requests.
//!
//! Must never: wait for a client, spin, or take the last descriptors from the threads that keep the events.

use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_send_buffer_size;
use rustix::process::{Resource, getrlimit};

use super::connection::Connection;
use super::routes::Site;
use crate::clock::Clock;
use crate::logging::Rate;

/// Connections at once, at most.
const CONNECTIONS_MAX: usize = 128;
const CONNECTIONS_MIN: usize = 8;
/// At most this share of the descriptors that the process may open: files and sockets of other threads need the rest.
const DESCRIPTORS_SHARE: usize = 8;
/// Long answers at once, at most: each is in memory, some 5 MiB, until its client has taken it.
const LONG_ANSWERS_MAX: usize = 8;
/// Bytes of an answer that the system holds for a client.
const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// Connections accepted before those that are there have their turn again.
const ACCEPTS_A_TURN: usize = 32;
/// How long to wait where there is no room now.
const PAUSE: Duration = Duration::from_millis(20);
/// How often the log reports that descriptors are short, at most.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// The server, and all it holds.
pub struct Server {
    listeners: Vec<TcpListener>,
    /// Ends when the program stops.
    stopped: UnixStream,
    site: Site,
    clock: Clock,
    connections: Vec<Connection>,
    connections_max: usize,
    /// A descriptor held back for a client that comes when there are none left.
    reserve: Option<UnixStream>,
    /// Nothing is accepted until then.
    accept_after: Option<Instant>,
    /// When to look again at the requests for long answers, although nothing new comes.
    answer_at: Option<Instant>,
    reports: Rate,
}

impl Server {
    pub fn new(listeners: Vec<TcpListener>, stopped: UnixStream, site: Site, clock: Clock) -> Self {
        let allowed = getrlimit(Resource::Nofile).current.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
        Self {
            listeners,
            stopped,
            site,
            clock,
            connections: Vec::new(),
            connections_max: (allowed / DESCRIPTORS_SHARE).clamp(CONNECTIONS_MIN, CONNECTIONS_MAX),
            reserve: None,
            accept_after: None,
            answer_at: None,
            reports: Rate::new(1, REPORT_EVERY),
        }
    }

    /// Serves until the stop.
    pub fn run(mut self) {
        let beat = self.site.status().beats.register("http");
        loop {
            self.reserve = self.reserve.take().or_else(|| self.stopped.try_clone().ok());
            beat.waiting();
            let Some(events) = self.wait() else { return };
            beat.busy();
            let now = self.clock.now();
            let (newcomers, others) = events.split_at(self.listeners.len());
            let mut others = others.iter();
            self.connections.retain_mut(|connection| match others.next() {
                Some(events) if events.intersects(PollFlags::HUP | PollFlags::ERR) => false,
                Some(events) if !events.is_empty() && connection.turn(now).is_err() => false,
                _ => connection.deadline > now,
            });
            for (listener, events) in newcomers.iter().enumerate() {
                if !events.is_empty() {
                    self.accept(listener, now);
                }
            }
            self.answer(now);
        }
    }

    /// Waits until there is something to do: what happened to each listener, then to each connection. `None` at the
    /// stop.
    fn wait(&mut self) -> Option<Vec<PollFlags>> {
        let now = self.clock.now();
        self.accept_after = self.accept_after.filter(|at| *at > now);
        let accepting = if self.accept_after.is_none() { PollFlags::IN } else { PollFlags::empty() };
        let mut wanted = vec![PollFd::new(&self.stopped, PollFlags::IN)];
        wanted.extend(self.listeners.iter().map(|listener| PollFd::new(listener, accepting)));
        wanted.extend(self.connections.iter().map(|connection| PollFd::new(&connection.client, connection.wants())));
        let deadlines = self.connections.iter().map(|connection| connection.deadline);
        let next = deadlines.chain(self.accept_after).chain(self.answer_at).min();
        // A millisecond more, so that the deadline has passed on waking.
        let timeout = next.map(|at| at.saturating_duration_since(now) + Duration::from_millis(1));
        let result = poll(&mut wanted, timeout.and_then(|left| Timespec::try_from(left).ok()).as_ref());
        let is_quiet = result.is_err();
        let mut events = wanted.iter().map(|fd| if is_quiet { PollFlags::empty() } else { fd.revents() });
        if !events.next()?.is_empty() {
            return None;
        }
        let events = events.collect();
        // More connections than descriptors are allowed, since the limit was lowered: begin anew.
        if result.is_err_and(|error| error != Errno::INTR) {
            self.connections.clear();
        }
        Some(events)
    }

    /// Answers the requests that wait: all short ones, and one long one, so that none delays the short ones for long.
    fn answer(&mut self, now: Instant) {
        for connection in &mut self.connections {
            if connection.request().is_some_and(|request| !request.is_long()) {
                connection.answer(&self.site, now);
            }
        }
        self.answer_at = None;
        let Some(mut next) = self.connections.iter().position(|connection| connection.request().is_some()) else {
            return;
        };
        self.answer_at = Some(now + PAUSE);
        if self.connections.iter().filter(|connection| connection.takes_long_answer()).count() >= LONG_ANSWERS_MAX {
            // A client that stalls gives its place to one that waits.
            let stalls = |one: &Connection| one.takes_long_answer() && one.rank(now).is_some();
            let Some(stalled) = self.connections.iter().position(stalls) else { return };
            self.connections.remove(stalled);
            next -= usize::from(stalled < next);
        }
        self.connections[next].answer(&self.site, now);
        self.answer_at = Some(now);
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
                    // Without these two it could block the thread, or be answered late.
                    if is_bounded && stream.set_nonblocking(true).is_ok() && stream.set_nodelay(true).is_ok() {
                        let mut connection = Connection::new(stream, now);
                        if connection.turn(now).is_ok() {
                            self.connections.push(connection);
                        }
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(e) => {
                    self.report(now, &e);
                    if !self.make_room(now) && self.reserve.take().is_none() {
                        self.accept_after = Some(now + PAUSE);
                        return;
                    }
                }
            }
        }
    }

    /// Gives up the least useful connection, unless all are too new for that.
    fn make_room(&mut self, now: Instant) -> bool {
        let ranked = (0..self.connections.len()).filter_map(|at| Some((self.connections[at].rank(now)?, at)));
        ranked.min().map(|(_, at)| self.connections.remove(at)).is_some()
    }

    fn report(&mut self, now: Instant, error: &io::Error) {
        if self.reports.allow(now) {
            log::warn!(
                "cannot accept an HTTP connection: {error}; idle connections are closed and it is retried; if open files run out, raise LimitNOFILE= (ulimit -n)"
            );
        }
    }
}
