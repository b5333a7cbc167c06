//! The channel and its subscriptions: made, subscribed, prolonged, replaced.
//!
//! Must never: make a channel where one stands that serves.

use std::time::{Duration, Instant};

use super::{DEFINITIONS_INTERVAL, Session, draw, in_a_while, shorten};
use crate::genesys::channel::{self, Subscription};
use crate::genesys::error::{ApiError, Kind};
use crate::message::{ChannelState, FromSession};

/// How long the opening of a socket waits for its channel to be remembered: a disk may be full.
const KEPT_MAX: Duration = Duration::from_secs(2);

/// What is to happen to the channel next.
#[derive(Debug)]
pub(super) enum Prepare {
    Nothing,
    /// Whether a remembered channel still stands.
    Check(ChannelState),
    Create,
    Subscribe {
        state: ChannelState,
        /// Just made: the service cannot mean that it is gone.
        fresh: bool,
    },
    Open(ChannelState),
}

impl Session {
    pub(super) fn prepare_due(&self) -> Option<Instant> {
        if !self.may_subscribe() {
            return None;
        }
        match self.socket.prepare {
            Prepare::Check(_) | Prepare::Create | Prepare::Subscribe { .. } => Some(self.socket.prepare_at),
            Prepare::Nothing => self.socket.handover_at.filter(|_| self.wants_socket()),
            Prepare::Open(_) => None,
        }
    }

    pub(super) fn resubscribe_due(&self) -> Option<Instant> {
        let ready = self.may_subscribe() && self.socket.channel.is_some();
        (ready && matches!(self.socket.prepare, Prepare::Nothing)).then_some(self.socket.resubscribe_at)
    }

    pub(super) fn resubscribe_now(&mut self) {
        self.socket.resubscribe_at = self.clock.now();
    }

    pub(super) fn prepare(&mut self, what: Prepare) {
        self.socket.prepare = what;
        self.socket.prepare_at = self.clock.now();
    }

    /// Takes the next step towards a subscribed channel.
    pub(super) fn prepare_if_due(&mut self, now: Instant) -> bool {
        if self.prepare_due().is_none_or(|due| now < due) {
            return false;
        }
        match std::mem::replace(&mut self.socket.prepare, Prepare::Nothing) {
            Prepare::Check(state) => self.check_channel(state),
            Prepare::Create => self.create_channel(),
            Prepare::Subscribe { state, fresh } => self.subscribe(state, fresh),
            Prepare::Nothing => {
                log::info!("the channel is near its end: a new one takes over");
                self.socket.handover_at = None;
                self.prepare(Prepare::Create);
            }
            open @ Prepare::Open(_) => self.socket.prepare = open,
        }
        true
    }

    fn check_channel(&mut self, state: ChannelState) {
        let owner = channel::owner(&self.config.genesys);
        if !channel::is_usable(&state, &owner, self.api.service().now()) {
            log::info!("the remembered channel is past its end or another client's: a new one is made");
            self.prepare(Prepare::Create);
            return;
        }
        match self.api.check_channel(&state.id) {
            Ok(()) => self.prepare(Prepare::Subscribe { state, fresh: false }),
            Err(error) => self.channel_failed(Prepare::Check(state), false, &error),
        }
    }

    fn create_channel(&mut self) {
        // Channels are few: one that did not help is not followed by the next at once.
        if let Some(created) = self.socket.created.take() {
            let wait = self.socket.prepare_backoff.next(draw());
            let at = created + wait;
            if at > self.clock.now() {
                self.socket.prepare = Prepare::Create;
                self.socket.prepare_at = at;
                return;
            }
        }
        self.update_doing("making a channel");
        match self.api.create_channel() {
            Ok(state) => {
                log::info!("made the channel {}", crate::secret::mask(&state.id));
                self.socket.created = Some(self.clock.now());
                self.socket.kept = false;
                self.tell(FromSession::Channel(Some(state.clone())));
                self.prepare(Prepare::Subscribe { state, fresh: true });
            }
            Err(error) => self.channel_failed(Prepare::Create, true, &error),
        }
    }

    fn subscribe(&mut self, state: ChannelState, fresh: bool) {
        self.update_doing("subscribing");
        let topics = self.plan.topics.clone();
        match self.api.subscribe(&state.id, &topics) {
            Ok(subscriptions) => {
                self.socket.prepare_backoff.reset();
                self.take_subscriptions(subscriptions);
                let service_now = self.api.service().now();
                self.socket.handover_at = Some(self.clock.now() + channel::handover_in(&state, service_now));
                self.socket.channel = Some(state.clone());
                self.publish();
                if self.all_rejected() {
                    // Nothing would come: an open socket of the channel before it is of no more use either.
                    self.socket.current = None;
                } else {
                    // A channel that is not remembered yet would be made again by the next start of a crash loop.
                    let wait = if self.socket.kept { Duration::ZERO } else { KEPT_MAX };
                    self.socket.open_at = self.clock.now() + wait;
                    self.prepare(Prepare::Open(state));
                }
            }
            Err(error) => self.channel_failed(Prepare::Subscribe { state, fresh }, fresh, &error),
        }
    }

    /// A step failed: a channel that the service refuses is replaced, everything else is tried again.
    fn channel_failed(&mut self, again: Prepare, fresh: bool, error: &ApiError) {
        let refused = matches!(error.kind, Kind::Gone | Kind::Unauthorized | Kind::Forbidden | Kind::Refused(_));
        if refused && !fresh {
            log::info!("{error}; a new channel is made");
            self.prepare(Prepare::Create);
            return;
        }
        let asked = self.failed(error);
        let wait = asked.unwrap_or_else(|| self.socket.prepare_backoff.next(draw()));
        if asked.is_none() {
            self.status.counters.errors.add(1);
            log::warn!("{error}; trying again {}", in_a_while(wait));
        }
        self.last_error(error);
        self.socket.why_lost = error.to_string();
        self.socket.prepare = if refused && error.kind == Kind::Gone { Prepare::Create } else { again };
        self.socket.prepare_at = self.clock.now() + wait;
    }

    /// Subscribes anew: for new topics, to prolong the channel, or because some were rejected.
    pub(super) fn resubscribe_if_due(&mut self, now: Instant) -> bool {
        if self.resubscribe_due().is_none_or(|due| now < due) {
            return false;
        }
        let Some(state) = self.socket.channel.clone() else { return false };
        let topics = self.plan.topics.clone();
        let was_rejected = self.all_rejected();
        match self.api.subscribe(&state.id, &topics) {
            Ok(subscriptions) => {
                self.take_subscriptions(subscriptions);
                self.publish();
                if was_rejected && !self.all_rejected() {
                    self.socket_is_wanted();
                } else if self.all_rejected() {
                    self.socket.current = None;
                }
            }
            Err(error) => {
                let asked = self.failed(&error);
                if matches!(error.kind, Kind::Gone | Kind::Unauthorized | Kind::Forbidden) {
                    log::warn!("{error}; a new channel is made");
                    self.channel_lost(&error.to_string());
                } else {
                    log::warn!("{error}; the subscriptions stay as they were");
                }
                let wait = asked.unwrap_or_else(|| self.socket.prepare_backoff.next(draw()));
                self.socket.resubscribe_at = self.clock.now() + wait;
            }
        }
        true
    }

    fn take_subscriptions(&mut self, subscriptions: Vec<Subscription>) {
        let before = std::mem::take(&mut self.socket.rejected);
        self.socket.topics.clear();
        for Subscription { topic, rejected } in subscriptions {
            match rejected {
                None => self.socket.topics.push(topic),
                Some(why) => {
                    if before.get(&topic) != Some(&why) {
                        log::warn!("the topic {topic} was rejected: {why}");
                    }
                    self.socket.rejected.insert(topic, why);
                }
            }
        }
        let retry = if self.socket.rejected.is_empty() { DEFINITIONS_INTERVAL } else { self.retry_interval() };
        self.socket.resubscribe_at = self.clock.now() + retry;
        if self.all_rejected() && self.socket.rejected != before {
            log::warn!("every topic was rejected: nothing comes on a socket until one is permitted");
        }
        if !self.socket.topics.is_empty() {
            log::info!("subscribed to {} topics: {}", self.socket.topics.len(), shorten(&self.socket.topics));
        }
    }

    /// The socket stays open, and nothing comes on it any more.
    pub(super) fn channel_lost(&mut self, why: &str) {
        self.socket.lost.get_or_insert(self.clock.now());
        why.clone_into(&mut self.socket.why_lost);
        self.read_instead();
        self.replace_channel();
    }

    /// The channel is of no more use; its socket goes on until the new one's is open.
    pub(super) fn replace_channel(&mut self) {
        if matches!(self.socket.prepare, Prepare::Create | Prepare::Subscribe { .. }) {
            return;
        }
        self.socket.channel = None;
        self.socket.handover_at = None;
        self.prepare(Prepare::Create);
    }
}
