//! The thread that all clients meet: it accepts, bounds and times their connections.
//!
//! Deals with: one poll(2) over the port and its connections; making room for a new one by giving up the one that has
//! been useless the longest; a process that is out of descriptors. Must never: wait for a client, wake up when nobody
//! asks, or spin.

use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::answer::Answer;
use super::head::Head;
use super::peer::Peer;
use super::routes::Site;
use super::tiny::Tiny;
use crate::clock::Clock;

/// Connections at once, at most.
const PEERS_MAX: usize = 256;
/// At most this share of the descriptors that the process may have: files and sockets of other stages need the rest.
const PEERS_SHARE: usize = 4;
const PEERS_MIN: usize = 8;
/// Connections accepted before those that are there get their turn again.
const ACCEPTS_A_TURN: usize = 32;
/// How long a connection is safe from being given up for a newer one: long enough to send a request after connecting.
const GRACE: Duration = Duration::from_millis(50);
/// How long nothing is accepted after the system refused and there was nothing to give up.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes of answers that clients have not taken, in all, before a further answer is made; beyond, the slowest ends.
const PENDING_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long a round goes on making large answers before newcomers get their turn.
const ROUND: Duration = Duration::from_millis(10);
/// How often the log tells that descriptors are short, at most.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// The front, and all it holds.
pub struct Front {
    listeners: Vec<TcpListener>,
    /// Ends when the program stops.
    stopped: UnixStream,
    /// `None` after it failed: it is started again for the next request.
    tiny: Option<Tiny>,
    site: Site,
    clock: Clock,
    peers: Vec<Peer>,
    peers_max: usize,
    /// A descriptor held back for a client that comes when there is none left.
    spare: Option<OwnedFd>,
    accept_after: Option<Instant>,
    told_at: Option<Instant>,
}

impl Front {
    /// # Errors
    /// When there is no descriptor to hold back.
    pub fn new(
        listeners: Vec<TcpListener>,
        stopped: UnixStream,
        tiny: Tiny,
        site: Site,
        clock: Clock,
    ) -> io::Result<Self> {
        let allowed =
            getrlimit(Resource::Nofile).current.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
        Ok(Self {
            spare: Some(spare(&stopped)?),
            listeners,
            stopped,
            tiny: Some(tiny),
            site,
            clock,
            peers: Vec::new(),
            peers_max: (allowed / PEERS_SHARE).clamp(PEERS_MIN, PEERS_MAX),
            accept_after: None,
            told_at: None,
        })
    }

    /// Serves until the stop.
    pub fn run(mut self) {
        let beat = self.site.status().beats.register("http");
        loop {
            beat.waiting();
            let Some(ready) = self.wait() else { return };
            beat.busy();
            let now = self.clock.now();
            self.serve(&ready.peers, now);
            self.peers.retain(|peer| !peer.has_ended() && peer.deadline > now);
            if self.spare.is_none() {
                self.spare = spare(&self.stopped).ok();
            }
            if ready.newcomers {
                (0..self.listeners.len()).for_each(|listener| self.accept(listener, now));
            }
        }
    }

    /// Waits until something is to be done; `None` at the stop.
    fn wait(&mut self) -> Option<Ready> {
        let now = self.clock.now();
        if self.accept_after.is_some_and(|at| at <= now) {
            self.accept_after = None;
        }
        let mut wanted = Vec::with_capacity(self.peers.len() + self.listeners.len() + 1);
        wanted.push(PollFd::new(&self.stopped, PollFlags::IN));
        let accepting = if self.accept_after.is_none() { PollFlags::IN } else { PollFlags::empty() };
        wanted.extend(self.listeners.iter().map(|listener| PollFd::new(listener, accepting)));
        wanted.extend(self.peers.iter().map(|peer| PollFd::new(&peer.stream, peer.wants())));
        let timeout = self.next_wake(now).and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut wanted, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Some(Ready::default()),
            // More connections than descriptors are allowed, since the limit was lowered under us: begin anew.
            Err(_) => {
                drop(wanted);
                self.peers.clear();
                return Some(Ready::default());
            }
        }
        let mut ready = wanted.iter().map(|fd| !fd.revents().is_empty());
        if ready.next()? {
            return None;
        }
        let newcomers = ready.by_ref().take(self.listeners.len()).fold(false, |any, is_ready| any | is_ready);
        Some(Ready { newcomers, peers: ready.collect() })
    }

    /// How long nothing happens by itself; `None`: for ever.
    fn next_wake(&self, now: Instant) -> Option<Duration> {
        if self.peers.iter().any(Peer::has_more) {
            return Some(Duration::ZERO);
        }
        let deadlines = self.peers.iter().map(|peer| peer.deadline).chain(self.accept_after);
        // A millisecond more, so that the deadline has passed on waking.
        deadlines.min().map(|at| at.saturating_duration_since(now) + Duration::from_millis(1))
    }

    /// Gives each ready connection its turn, then answers: what is small at once, what may be large as long as the
    /// round lasts, who asked first before who asked later.
    fn serve(&mut self, ready: &[bool], now: Instant) {
        for (peer, is_ready) in self.peers.iter_mut().zip(ready) {
            if *is_ready || peer.has_more() {
                peer.turn(now);
            }
        }
        let mut large = Vec::new();
        for at in 0..self.peers.len() {
            match self.peers[at].asks() {
                Some(head) if may_be_large(head) => large.push(at),
                Some(_) => self.reply(at, now),
                None => {}
            }
        }
        large.sort_by_key(|at| self.peers[*at].useful_at);
        for at in large {
            self.bound_pending();
            self.reply(at, now);
            if self.clock.now().saturating_duration_since(now) > ROUND {
                return;
            }
        }
    }

    fn reply(&mut self, at: usize, now: Instant) {
        if let Some(head) = self.peers[at].asks().cloned() {
            let answer = self.ask(&head);
            self.peers[at].answer(answer, now);
        }
    }

    /// Ends those that have taken nothing for the longest, until what is pending is within its bound.
    fn bound_pending(&mut self) {
        while self.peers.iter().map(Peer::pending_bytes).sum::<usize>() > PENDING_BYTES_MAX {
            let pending = self.peers.iter_mut().filter(|peer| peer.pending_bytes() > 0);
            let Some(slowest) = pending.min_by_key(|peer| peer.useful_at) else { return };
            slowest.end();
        }
    }

    fn ask(&mut self, head: &Head) -> Answer {
        // A tiny_http that was lost is started again, once per request: it may be for want of a descriptor.
        for _ in 0..2 {
            let tiny = match self.tiny.take().map_or_else(|| Tiny::start(&self.clock), Ok) {
                Ok(tiny) => self.tiny.insert(tiny),
                Err(error) => {
                    log::warn!("cannot start the HTTP server anew: {error}; it is tried again at the next request");
                    break;
                }
            };
            match tiny.request(head) {
                Ok(request) => {
                    let answer = self.site.answer(&request);
                    // tiny_http's own connection gets nothing: the answer goes to the client's.
                    drop(request.into_writer());
                    return answer;
                }
                Err(error) => {
                    log::warn!("the HTTP server did not take a request: {error}; it is started anew");
                    self.tiny = None;
                }
            }
        }
        Answer::error(503, "the HTTP server is starting anew; ask again").with("Retry-After", "1")
    }

    fn accept(&mut self, listener: usize, now: Instant) {
        for _ in 0..ACCEPTS_A_TURN {
            if self.peers.len() >= self.peers_max && !self.make_room(now) {
                // All are new: wait until the oldest had its chance.
                let oldest = self.peers.iter().map(|peer| peer.useful_at).min().unwrap_or(now);
                self.accept_after = Some(oldest + GRACE);
                return;
            }
            match self.listeners[listener].accept() {
                Ok((stream, _)) => {
                    // Without these two it could block the thread, or answer late: neither is worth serving.
                    if stream.set_nonblocking(true).is_ok() && stream.set_nodelay(true).is_ok() {
                        self.peers.push(Peer::new(stream, now));
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(e) => {
                    self.tell(now, &e);
                    // In want of descriptors or memory, room can be made; anything else passes by itself or not at all.
                    let room = is_want(&e) && (self.make_room(now) || self.spare.take().is_some());
                    if !room {
                        self.accept_after = Some(now + PAUSE);
                        return;
                    }
                }
            }
        }
    }

    /// Gives up the connection that has been useless the longest, unless all are too new for that.
    fn make_room(&mut self, now: Instant) -> bool {
        let oldest = (0..self.peers.len())
            .min_by_key(|n| self.peers[*n].useful_at)
            .filter(|n| now.saturating_duration_since(self.peers[*n].useful_at) >= GRACE);
        oldest.map(|n| self.peers.swap_remove(n)).is_some()
    }

    fn tell(&mut self, now: Instant, error: &io::Error) {
        if self.told_at.is_none_or(|at| now.saturating_duration_since(at) >= TOLD_EVERY) {
            self.told_at = Some(now);
            log::warn!(
                "cannot accept an HTTP connection: {error}; it is tried again, and older ones are given up for it; if open files run out, raise LimitNOFILE= (ulimit -n)"
            );
        }
    }
}

/// What woke the front.
#[derive(Default)]
struct Ready {
    newcomers: bool,
    /// For each connection, whether it is.
    peers: Vec<bool>,
}

/// Events alone can come to megabytes.
fn may_be_large(head: &Head) -> bool {
    head.target.starts_with("/events")
}

fn is_want(error: &io::Error) -> bool {
    let code = Errno::from_io_error(error);
    matches!(code, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

fn spare(any: &UnixStream) -> io::Result<OwnedFd> {
    Ok(any.try_clone()?.into())
}
