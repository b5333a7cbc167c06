//! What the session publishes: the reasons for its health, what is subscribed, what it is doing.

use std::time::{Duration, Instant};

use super::Session;
use super::reading::State;
use crate::genesys::error::ApiError;
use crate::secret::Secret;
use crate::status::Code;

/// A socket that is back sooner is no reason for an alarm.
const DOWN_AFTER: Duration = Duration::from_secs(3);
/// The start may take this long before it is a failure.
const START_GRACE: Duration = Duration::from_secs(6);

impl Session {
    /// Raises and clears what is wrong with the two ways that events come.
    pub(super) fn assess(&mut self) {
        let now = self.clock.now();
        if self.api.refusal().is_none() {
            self.status.clear(Code::CredentialsRefused);
        }
        self.assess_overdue(now);
        let socket_works =
            self.socket.current.is_some() && self.socket.lost.is_none() && !self.socket.topics.is_empty();
        let is_down = self.is_down(now);
        let history_works = self.wants_history() && self.reading.state == State::Works;
        self.assess_socket(is_down);
        self.assess_rejections();
        let neither = !socket_works && !history_works && (is_down || !self.wants_socket());
        let is_over_grace = now.duration_since(self.started) >= START_GRACE;
        if neither && is_over_grace {
            self.status.raise(Code::NotReceiving, self.neither());
        } else if socket_works || history_works {
            self.status.clear(Code::NotReceiving);
        }
        let living_on_history = history_works && (!self.wants_socket() || is_down);
        let ready =
            socket_works || living_on_history || (self.is_ready() && !self.status.is_raised(Code::NotReceiving));
        if ready {
            self.status.clear(Code::Starting);
        }
        let doing = self.doing(socket_works, history_works);
        self.status.update_session(|view| {
            view.ready = ready;
            view.doing = doing;
        });
    }

    fn is_ready(&self) -> bool {
        self.status.ready()
    }

    fn is_down(&self, now: Instant) -> bool {
        self.wants_socket() && self.socket.lost.is_some_and(|lost| now.duration_since(lost) >= self.down_after())
    }

    fn down_after(&self) -> Duration {
        if self.socket.connections <= 1 && self.socket.current.is_none() { START_GRACE } else { DOWN_AFTER }
    }

    /// When the state of the socket may have to be said.
    pub(super) fn health_due(&self, now: Instant) -> Option<Instant> {
        let down_at = self.socket.lost.filter(|_| self.wants_socket()).map(|lost| lost + self.down_after());
        let grace_ends = self.started + START_GRACE;
        [down_at, Some(grace_ends), self.overdue_at()].into_iter().flatten().filter(|at| *at > now).min()
    }

    fn assess_socket(&self, is_down: bool) {
        if !is_down {
            self.status.clear(Code::SocketDown);
            return;
        }
        let meanwhile = if self.reading.state == State::Works && self.wants_history() {
            format!(
                "events come from the history instead, up to {} s late",
                self.config.catch_up.interval.as_secs().max(1)
            )
        } else if self.wants_history() && self.reading.state != State::Forbidden {
            "the history brings what comes meanwhile once it can be read".to_owned()
        } else {
            "what comes meanwhile is lost".to_owned()
        };
        self.status.raise(
            Code::SocketDown,
            format!(
                "the socket to Genesys Cloud is down: {}; {meanwhile}; it is tried again by itself",
                self.socket.why_lost
            ),
        );
    }

    fn assess_rejections(&self) {
        let mut rejected = self.socket.rejected.iter();
        if let (true, Some((topic, why))) =
            (self.config.genesys.delivery != crate::config::Delivery::History, rejected.next())
        {
            let count = self.socket.rejected.len();
            let (which, late) = if self.all_rejected() {
                ("every topic", "events come from the history alone, late by up to CATCH_UP_INTERVAL")
            } else {
                ("some topics", "their events come from the history alone, late by up to CATCH_UP_INTERVAL")
            };
            let late = if self.wants_history() { late } else { "their events are lost" };
            self.status.raise(
                Code::SubscriptionRejected,
                format!(
                    "Genesys Cloud rejected {which} ({count}; {topic}: {why}): {late}; give the OAuth client a role with the missing permission"
                ),
            );
        } else {
            self.status.clear(Code::SubscriptionRejected);
        }
    }

    fn neither(&self) -> String {
        let socket =
            if self.wants_socket() { self.socket.why_lost.clone() } else { "the socket is not used".to_owned() };
        let (history, safe) = match self.reading.state {
            _ if !self.wants_history() => ("the history is not used", "events are being lost"),
            State::Forbidden => ("the history is forbidden", "events are being lost"),
            _ => ("the history cannot be read", "events are late, and safe in Genesys for ten days"),
        };
        format!("no event is received: {socket}, and {history}; {safe}; see the other reasons and the log")
    }

    fn doing(&self, socket_works: bool, history_works: bool) -> String {
        if !self.reading.history.is_idle()
            && let Some(percent) = self.reading.history.percent()
            && self.reading.state == State::Works
            && percent < 100
        {
            return format!("reading the history, {percent} % done");
        }
        match (socket_works, history_works) {
            (true, true) => "collecting from the socket and the history".to_owned(),
            (true, false) => "collecting from the socket".to_owned(),
            (false, true) => "living on the history".to_owned(),
            (false, false) => "connecting".to_owned(),
        }
    }

    pub(super) fn update_doing(&self, doing: &str) {
        if self.socket.current.is_none() {
            self.status.update_session(|view| doing.clone_into(&mut view.doing));
        }
    }

    /// Shows the channel and what is collected.
    pub(super) fn publish(&self) {
        let channel = self.socket.channel.as_ref().map(|state| Secret::new(state.id.clone()));
        let topics = if self.socket.topics.is_empty() { self.plan.topics.clone() } else { self.socket.topics.clone() };
        self.status.update_session(|view| {
            view.channel = channel;
            view.topics = topics;
        });
    }

    /// What keeps the socket from being opened, for the sentence that says so.
    pub(super) fn last_error(&mut self, error: &ApiError) {
        if self.socket.current.is_none() {
            self.socket.why_lost = error.to_string();
        }
    }
}
