//! A view of the service's state for tests: requests, channels, sockets and counts.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::channels::Channel;
use super::fault::Call;
use super::state::State;

/// Maximum number of recorded requests; the oldest are dropped.
const REQUESTS_KEPT: usize = 20_000;

/// A received request; handshakes are included.
#[derive(Clone, Debug)]
pub struct Seen {
    pub call: Call,
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The `Authorization` header.
    pub authorization: String,
    pub body: String,
    pub at: Instant,
    /// The status of the answer; 0 if there is none yet.
    pub status: u16,
}

/// Recorded requests and counters.
#[derive(Default)]
pub(super) struct Counts {
    requests: VecDeque<Seen>,
    forgotten: usize,
    pub tokens_granted: u64,
    pub sockets_opened: u64,
    pub pings: u64,
    pub frames_sent: u64,
}

impl Counts {
    /// Records a request; returns its number for [`Counts::answered`].
    pub fn request(&mut self, seen: Seen) -> usize {
        if self.requests.len() == REQUESTS_KEPT {
            self.requests.pop_front();
            self.forgotten += 1;
        }
        self.requests.push_back(seen);
        self.forgotten + self.requests.len() - 1
    }

    pub fn answered(&mut self, number: usize, status: u16) {
        let at = number.checked_sub(self.forgotten);
        if let Some(seen) = at.and_then(|at| self.requests.get_mut(at)) {
            seen.status = status;
        }
    }
}

/// The service's state at one instant.
pub struct View<'a>(pub(super) &'a State);

impl View<'_> {
    /// The recorded requests of a call, oldest first.
    pub fn requests(&self, call: Call) -> Vec<Seen> {
        self.all_requests().filter(|seen| seen.call == call).cloned().collect()
    }

    /// The number of requests of a call, whatever the answer.
    pub fn count(&self, call: Call) -> usize {
        self.all_requests().filter(|seen| seen.call == call).count()
    }

    pub fn all_requests(&self) -> impl DoubleEndedIterator<Item = &Seen> {
        self.0.counts.requests.iter()
    }

    /// The maximum number of requests of a call within any 60 s.
    pub fn most_in_a_minute(&self, call: Call) -> usize {
        let times: Vec<Instant> = self.all_requests().filter(|seen| seen.call == call).map(|seen| seen.at).collect();
        let within = |first: usize| times.partition_point(|at| *at < times[first] + Duration::from_secs(60)) - first;
        (0..times.len()).map(within).max().unwrap_or(0)
    }

    pub fn tokens_granted(&self) -> u64 {
        self.0.counts.tokens_granted
    }

    /// Channels ever created, including those that are gone.
    pub fn channels_made(&self) -> u64 {
        self.0.channels.made
    }

    /// The ids of the existing channels.
    pub fn channels(&self) -> Vec<String> {
        self.0.channels.list.iter().map(|channel| channel.id.clone()).collect()
    }

    /// Sockets ever opened.
    pub fn sockets_opened(&self) -> u64 {
        self.0.counts.sockets_opened
    }

    /// Open sockets.
    pub fn sockets_open(&self) -> usize {
        self.connected().count()
    }

    fn connected(&self) -> impl Iterator<Item = &Channel> {
        self.0.channels.list.iter().filter(|channel| channel.socket.is_some())
    }

    /// The topics of all channels with an open socket, each once.
    pub fn subscribed(&self) -> Vec<String> {
        let topics: BTreeSet<&String> = self.connected().flat_map(|channel| &channel.topics).collect();
        topics.into_iter().cloned().collect()
    }

    /// Pings received on sockets, both text messages and control frames.
    pub fn pings(&self) -> u64 {
        self.0.counts.pings
    }

    /// Event frames sent, including repeated ones.
    pub fn frames_sent(&self) -> u64 {
        self.0.counts.frames_sent
    }

    /// Rows in the history, visible or not.
    pub fn history_rows(&self) -> usize {
        self.0.history.len()
    }

    /// Events ever issued.
    pub fn issued(&self) -> u64 {
        u64::from(self.0.number)
    }
}
