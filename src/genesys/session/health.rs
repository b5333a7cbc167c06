//! What the session publishes: the reasons for its health, what is subscribed, what it is doing.

use std::time::{Duration, Instant};

use super::Session;
use super::reading::State;
use crate::config::Delivery;
use crate::genesys::api::HISTORY_PERMISSION;
use crate::genesys::error::ApiError;
use crate::genesys::topics::{ID_PREFIX, TOPIC_PREFIX};
use crate::secret::Secret;
use crate::status::Code;

/// A socket that is back sooner is no reason for an alarm.
const DOWN_AFTER: Duration = Duration::from_secs(3);
/// The start may take this long before it is a failure.
const START_GRACE: Duration = Duration::from_secs(6);
/// How often it is looked whether an event came on a socket that should bring none.
const PROOF_INTERVAL: Duration = Duration::from_secs(2);

impl Session {
    /// Raises and clears what is wrong with the two ways that events come.
    pub(super) fn assess(&mut self) {
        let now = self.clock.now();
        if self.api.refusal().is_none() {
            self.status.clear(Code::CredentialsRefused);
        }
        self.assess_overdue(now);
        let is_subscribed = self.is_subscribed();
        let socket_works = is_subscribed && !self.is_unproven();
        let is_down = self.is_down(now);
        let history_works = self.wants_history() && self.reading.state == State::Works;
        self.assess_socket(is_down);
        self.assess_history(is_subscribed);
        self.assess_rejections();
        let nothing_to_open = is_down || is_subscribed || !self.wants_socket();
        let neither = !socket_works && !history_works && nothing_to_open;
        let is_over_grace = now.duration_since(self.started) >= START_GRACE;
        if neither && is_over_grace {
            self.status.raise(Code::NotReceiving, self.neither());
        } else if socket_works || history_works {
            self.status.clear(Code::NotReceiving);
        }
        let living_on_history = history_works && (!self.wants_socket() || is_down);
        let ready =
            socket_works || living_on_history || (self.is_ready() && !self.status.is_raised(Code::NotReceiving));
        let doing = self.doing(is_subscribed, history_works);
        if ready || is_subscribed {
            self.status.clear(Code::Starting);
        } else if self.status.is_raised(Code::Starting) {
            self.status.raise(Code::Starting, self.starting());
        }
        self.status.update_session(|view| {
            view.ready = ready;
            view.doing = doing;
        });
    }

    fn is_ready(&self) -> bool {
        self.status.ready()
    }

    /// Whether a socket is open that a topic's events come on.
    fn is_subscribed(&self) -> bool {
        self.socket.current.is_some() && self.socket.lost.is_none() && !self.socket.topics.is_empty()
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
        // Nobody tells of the first event: it is looked for.
        let proof = (self.is_subscribed() && self.is_unproven()).then(|| now + PROOF_INTERVAL);
        [down_at, Some(grace_ends), self.overdue_at(), proof].into_iter().flatten().filter(|at| *at > now).min()
    }

    /// What events are that no socket brings: to be put behind "is" or "are".
    pub(super) fn fate(&self) -> String {
        const SAFE: &str = "late: safe in Genesys for ten days, and fetched once";
        if self.config.genesys.delivery == Delivery::Websocket {
            return "lost: GENESYS_DELIVERY=websocket reads no history".to_owned();
        }
        if self.plan.topics.is_empty() {
            return format!("{SAFE} TOPICS_FILE names them");
        }
        if self.plan.ids.is_empty() {
            return "lost: TOPICS_FILE names no operational event, and there is a history of no other".to_owned();
        }
        if self.api.refusal().is_some() {
            return format!("{SAFE} the login works");
        }
        match self.reading.state {
            State::Works => {
                let late_s = self.config.catch_up.interval.as_secs().max(1);
                format!("late by up to {late_s} s, from the history alone")
            }
            State::Forbidden => format!("{SAFE} the client's role has the permission {HISTORY_PERMISSION}, else lost"),
            State::Unknown | State::Failing => format!("{SAFE} the history can be read"),
        }
    }

    fn starting(&self) -> String {
        let what = match self.config.genesys.delivery {
            Delivery::History => "the history was not read yet",
            _ => "it is not subscribed yet",
        };
        format!("the collector is starting: {what}; what comes meanwhile is {}", self.fate())
    }

    fn assess_socket(&self, is_down: bool) {
        if !is_down {
            self.status.clear(Code::SocketDown);
            return;
        }
        self.status.raise(
            Code::SocketDown,
            format!(
                "the socket to Genesys Cloud is down: {}; meanwhile events are {}; it is tried again by itself",
                self.socket.why_lost,
                self.fate()
            ),
        );
    }

    fn assess_history(&self, is_subscribed: bool) {
        let why = self.reading.why.as_deref().unwrap_or("the history cannot be read");
        let state = if self.wants_history() { self.reading.state } else { State::Unknown };
        if state == State::Forbidden {
            let meanwhile = if is_subscribed { "until then what the socket misses" } else { "until then every event" };
            self.status.raise(
                Code::HistoryForbidden,
                format!(
                    "{why}; {meanwhile} is late: safe in Genesys for ten days, fetched when it is allowed, else lost"
                ),
            );
        } else {
            self.status.clear(Code::HistoryForbidden);
        }
        if state == State::Failing {
            let meanwhile = if is_subscribed {
                "what comes on the socket is collected; what it missed comes late, and is safe in Genesys for ten days"
            } else {
                "events are late, and safe in Genesys for ten days"
            };
            self.status.raise(Code::HistoryFailing, format!("{why}; {meanwhile}; it is tried again by itself"));
        } else {
            self.status.clear(Code::HistoryFailing);
        }
    }

    fn assess_rejections(&self) {
        let mut rejected = self.socket.rejected.iter();
        let Some((topic, why)) = rejected.next().filter(|_| self.may_subscribe()) else {
            self.status.clear(Code::SubscriptionRejected);
            return;
        };
        let all = &self.socket.rejected;
        let which = if self.all_rejected() { "every topic" } else { "some topics" };
        let fate = if all.keys().any(|topic| topic.starts_with(TOPIC_PREFIX)) {
            self.fate()
        } else {
            "lost: there is no history of them".to_owned()
        };
        let cure = if all.values().any(|why| why.lacks_permission) {
            "give the OAuth client a role with the missing permission"
        } else {
            "see the reason, and whether TOPICS_FILE names what Genesys Cloud has"
        };
        self.status.raise(
            Code::SubscriptionRejected,
            format!("Genesys Cloud rejected {which} ({}; {topic}: {why}): their events are {fate}; {cure}", all.len()),
        );
    }

    /// Nothing comes: why not on either way, what that means for the events, and what to do.
    fn neither(&self) -> String {
        let fate = self.fate();
        if self.plan.topics.is_empty() {
            let path = self.config.genesys.topics_file.display();
            return format!(
                "no event is received: TOPICS_FILE {path} names nothing that Genesys Cloud is known to have; events are {fate}; name {TOPIC_PREFIX}{ID_PREFIX}* there, and start again"
            );
        }
        let (socket, history) = (self.no_socket(), self.no_history());
        // Where it is the settings that leave no history, that is told already.
        let fate = if self.wants_history() { fate } else { "lost".to_owned() };
        format!("no event is received: {socket}, and {history}; events are {fate}; {}", self.way_out())
    }

    fn no_socket(&self) -> String {
        if self.config.genesys.delivery == Delivery::History {
            return "GENESYS_DELIVERY=history uses no socket".to_owned();
        }
        if !self.may_subscribe() || self.is_unproven() && self.is_subscribed() {
            return format!(
                "Genesys Cloud delivers operational events by {} and on no socket",
                self.transports.join(", ")
            );
        }
        match self.socket.rejected.iter().next().filter(|_| self.all_rejected()) {
            Some((topic, why)) => format!("Genesys Cloud rejected every topic ({topic}: {why})"),
            None => format!("the socket is down ({})", self.socket.why_lost),
        }
    }

    fn no_history(&self) -> String {
        if self.config.genesys.delivery == Delivery::Websocket {
            return "GENESYS_DELIVERY=websocket reads no history".to_owned();
        }
        if self.plan.ids.is_empty() {
            return "TOPICS_FILE names no operational event that the history could be asked for".to_owned();
        }
        match &self.reading.why {
            _ if self.reading.state == State::Forbidden => "the history is forbidden".to_owned(),
            // One cause is told once.
            Some(why) if *why != self.socket.why_lost || !self.wants_socket() => {
                format!("the history cannot be read ({why})")
            }
            _ => "the history cannot be read".to_owned(),
        }
    }

    fn way_out(&self) -> String {
        let delivery = self.config.genesys.delivery;
        if delivery == Delivery::Websocket && (!self.wants_socket() || self.is_subscribed()) {
            return "set GENESYS_DELIVERY to auto, and the history brings them".to_owned();
        }
        if self.api.refusal().is_some() {
            return "mend the login as credentials_refused says".to_owned();
        }
        if self.wants_history() && self.reading.state == State::Forbidden {
            return format!("give the OAuth client's role the permission {HISTORY_PERMISSION}");
        }
        "look at the network, any proxy and Genesys Cloud's status page; it is tried again by itself".to_owned()
    }

    fn doing(&self, is_subscribed: bool, history_works: bool) -> String {
        if !self.reading.history.is_idle()
            && let Some(percent) = self.reading.history.percent()
            && self.reading.state == State::Works
            && percent < 100
        {
            return format!("reading the history, {percent} % done");
        }
        match (is_subscribed, history_works) {
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
