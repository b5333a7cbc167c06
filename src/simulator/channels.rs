//! Notification channels: who has which, what they are subscribed to, which socket is open.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::frame;
use super::outbox::{Out, Outbox};
use super::tokens::random;

/// Channels that a client may have; one more evicts the one unused longest, unconnected ones first.
pub const CHANNELS_MAX: usize = 20;
/// Topics that a channel may have.
pub const TOPICS_MAX: usize = 1000;

pub(super) struct Channel {
    pub id: String,
    pub client: String,
    /// The token that made it.
    pub token: String,
    pub topics: BTreeSet<String>,
    /// Since when its life counts: its making or its last (re)subscription.
    pub renewed: Instant,
    /// When it was last spoken to or connected.
    pub used: Instant,
    pub socket: Option<Arc<Outbox>>,
}

impl Channel {
    /// Tells its socket that the channel is gone, and ends it.
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
    /// Makes a channel. One that has to go for it is closed.
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

    /// Closes the channels that have reached the end of their life.
    pub fn expire(&mut self, life: Duration) {
        self.list.extract_if(.., |channel| channel.renewed.elapsed() >= life).for_each(|ended| ended.announce_gone());
    }
}
