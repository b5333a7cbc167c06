//! Notification channels: their owners, topics and open sockets.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::frame;
use super::outbox::{Out, Outbox};
use super::tokens::random;

/// Maximum channels of a client. One more evicts the least recently used one, unconnected ones first.
pub const CHANNELS_MAX: usize = 20;
/// Maximum topics of a channel.
pub const TOPICS_MAX: usize = 1000;

pub(super) struct Channel {
    pub id: String,
    pub client: String,
    /// The token that created it.
    pub token: String,
    pub topics: BTreeSet<String>,
    /// When its lifetime started: at its creation or last (re)subscription.
    pub renewed: Instant,
    /// When it was last used by a request or a socket.
    pub used: Instant,
    pub socket: Option<Arc<Outbox>>,
}

impl Channel {
    /// Sends to the socket that the channel is gone, and closes it.
    pub fn announce_gone(&self) {
        if let Some(socket) = &self.socket {
            socket.put(Out::Bytes(frame::text("{\"result\":\"404\",\"message\":\"Channel not found\"}")));
            socket.put(Out::Bytes(frame::close(1001, "channel is gone")));
            socket.put(Out::End);
        }
    }
}

#[derive(Default)]
pub(super) struct Channels {
    pub list: Vec<Channel>,
    pub made: u64,
}

impl Channels {
    /// Creates a channel, closing another one if necessary.
    pub fn make(&mut self, client: &str, token: &str) -> &Channel {
        let own = self.list.iter().enumerate().filter(|(_, channel)| channel.client == client);
        let unused_longest = own.clone().min_by_key(|(_, channel)| (channel.socket.is_some(), channel.used));
        if let Some((at, _)) = unused_longest.filter(|_| own.count() >= CHANNELS_MAX) {
            self.list.remove(at).announce_gone();
        }
        self.made += 1;
        let now = Instant::now();
        self.list.push(Channel {
            id: format!("streaming-{}-{:016x}{:010x}", self.made % 10, random(), random() >> 24),
            client: client.to_owned(),
            token: token.to_owned(),
            topics: BTreeSet::new(),
            renewed: now,
            used: now,
            socket: None,
        });
        &self.list[self.list.len() - 1]
    }

    pub fn find(&mut self, id: &str) -> Option<&mut Channel> {
        self.list.iter_mut().find(|channel| channel.id == id)
    }

    /// Closes the expired channels.
    pub fn expire(&mut self, life: Duration) {
        self.list.extract_if(.., |channel| channel.renewed.elapsed() >= life).for_each(|ended| ended.announce_gone());
    }
}
