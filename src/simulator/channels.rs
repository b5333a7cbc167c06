//! Notification channels: who has which, what they are subscribed to, which socket is open.
//!
//! Deals with: the limit of 20, eviction, the life of a channel, one socket for each. Must never: write to a socket; it
//! hands out the [`Outbox`] of what is to be told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::outbox::Outbox;
use super::tokens::random_text;

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

#[derive(Default)]
pub(super) struct Channels {
    list: Vec<Channel>,
    made: u64,
}

impl Channels {
    /// Makes a channel; gives its id and what had to go for it.
    pub fn make(&mut self, client: &str, token: &str, now: Instant) -> (String, Option<Channel>) {
        let own = |channel: &Channel| channel.client == client;
        let evicted = if self.list.iter().filter(|c| own(c)).count() >= CHANNELS_MAX {
            let oldest = self.list.iter().enumerate().filter(|(_, channel)| own(channel));
            let oldest = oldest.min_by_key(|(_, channel)| (channel.socket.is_some(), channel.used)).map(|(at, _)| at);
            oldest.map(|at| self.list.remove(at))
        } else {
            None
        };
        self.made += 1;
        let id = format!("streaming-{}-{}", self.made % 10, random_text(26).replace(['-', '_'], "0").to_lowercase());
        self.list.push(Channel {
            id: id.clone(),
            client: client.to_owned(),
            token: token.to_owned(),
            topics: BTreeSet::new(),
            renewed: now,
            used: now,
            socket: None,
        });
        (id, evicted)
    }

    pub fn made(&self) -> u64 {
        self.made
    }

    pub fn find(&mut self, id: &str) -> Option<&mut Channel> {
        self.list.iter_mut().find(|channel| channel.id == id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Channel> {
        self.list.iter()
    }

    /// Takes a channel away; its socket, if any, is the caller's to close.
    pub fn remove(&mut self, id: &str) -> Option<Channel> {
        let at = self.list.iter().position(|channel| channel.id == id)?;
        Some(self.list.remove(at))
    }

    /// Takes away what has reached its end.
    pub fn expire(&mut self, life: Duration, now: Instant) -> Vec<Channel> {
        let mut ended = Vec::new();
        while let Some(at) = self.list.iter().position(|channel| now.duration_since(channel.renewed) >= life) {
            ended.push(self.list.remove(at));
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_channel_unused_longest_goes_first_and_an_unconnected_one_before_a_connected_one() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut channels = Channels::default();
        let ids: Vec<String> = (0..20).map(|n| channels.make("a", "t", at(n)).0).collect();
        channels.find(&ids[0]).unwrap().socket = Some(Arc::new(Outbox::detached()));
        channels.find(&ids[1]).unwrap().used = at(100);
        assert!(channels.make("b", "t", at(101)).1.is_none(), "another client's channels are its own");
        assert_eq!(channels.make("a", "t", at(102)).1.unwrap().id, ids[2]);
        assert_eq!(channels.make("a", "t", at(103)).1.unwrap().id, ids[3]);
        for id in channels.list.iter_mut().filter(|c| c.client == "a") {
            id.socket = Some(Arc::new(Outbox::detached()));
        }
        assert_eq!(
            channels.make("a", "t", at(104)).1.unwrap().id,
            ids[0],
            "when all are connected, the oldest of them"
        );
    }

    #[test]
    fn a_channel_ends_its_life_after_its_last_subscription() {
        let start = Instant::now();
        let life = Duration::from_secs(60);
        let mut channels = Channels::default();
        let (a, _) = channels.make("a", "t", start);
        let (b, _) = channels.make("a", "t", start);
        channels.find(&b).unwrap().renewed = start + Duration::from_secs(30);
        let ended = channels.expire(life, start + life);
        assert_eq!(ended.iter().map(|c| &c.id).collect::<Vec<_>>(), [&a]);
        assert!(channels.find(&b).is_some());
    }
}
