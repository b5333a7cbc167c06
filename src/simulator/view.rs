//! What the service has seen: every request, every socket, counted.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::channels::Channel;
use super::fault::Call;
use super::state::State;

/// Requests that are remembered singly; older ones are forgotten.
const REQUESTS_KEPT: usize = 20_000;

/// One request as it came, handshakes included.
#[derive(Clone, Debug)]
pub struct Seen {
    pub call: Call,
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Its `Authorization` header.
    pub authorization: String,
    pub body: String,
    pub at: Instant,
    /// Zero while it has no answer.
    pub status: u16,
}

/// The counts.
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
    /// Notes a request; gives the number under which its status is noted.
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

/// A look at the service, at one instant.
pub struct View<'a>(pub(super) &'a State);

impl View<'_> {
    /// The requests of a call, oldest first.
    pub fn requests(&self, call: Call) -> Vec<Seen> {
        self.all_requests().filter(|seen| seen.call == call).cloned().collect()
    }

    /// How many requests of a call came, with whatever answer.
    pub fn count(&self, call: Call) -> usize {
        self.all_requests().filter(|seen| seen.call == call).count()
    }

    pub fn all_requests(&self) -> impl DoubleEndedIterator<Item = &Seen> {
        self.0.counts.requests.iter()
    }

    /// The most requests of a call that fell into any span of 60 s.
    pub fn most_in_a_minute(&self, call: Call) -> usize {
        let times: Vec<Instant> = self.all_requests().filter(|seen| seen.call == call).map(|seen| seen.at).collect();
        let within = |first: usize| times.partition_point(|at| *at < times[first] + Duration::from_secs(60)) - first;
        (0..times.len()).map(within).max().unwrap_or(0)
    }

    pub fn tokens_granted(&self) -> u64 {
        self.0.counts.tokens_granted
    }

    /// Channels ever made, those included that are gone.
    pub fn channels_made(&self) -> u64 {
        self.0.channels.made
    }

    /// The ids of the channels that stand.
    pub fn channels(&self) -> Vec<String> {
        self.0.channels.list.iter().map(|channel| channel.id.clone()).collect()
    }

    /// Sockets ever opened.
    pub fn sockets_opened(&self) -> u64 {
        self.0.counts.sockets_opened
    }

    /// Sockets that are open.
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

    /// Pings heard on sockets, text ones and control frames.
    pub fn pings(&self) -> u64 {
        self.0.counts.pings
    }

    /// Event frames handed to the network, repeated ones included.
    pub fn frames_sent(&self) -> u64 {
        self.0.counts.frames_sent
    }

    /// Rows that the history keeps, visible or not.
    pub fn history_rows(&self) -> usize {
        self.0.history.len()
    }

    /// Events ever issued.
    pub fn issued(&self) -> u64 {
        u64::from(self.0.number)
    }
}
