//! The reasons for the session's health, as a table: a pure function from a small snapshot to what is raised.
//!
//! A reason that is only the consequence of another one is left out.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Session;
use super::reading::State;
use crate::config::Delivery;
use crate::genesys::channel::{Cause, Rejection};
use crate::genesys::topics::{ID_PREFIX, TOPIC_PREFIX};
use crate::status::{Code, Problem};

/// The start may take this long before it counts as a failure.
const START_GRACE: Duration = Duration::from_secs(6);
/// How often it is looked whether an event arrived on a socket that nothing else vouches for.
const PROOF_INTERVAL: Duration = Duration::from_secs(2);
const RETRIED: &str =
    "Check the network, any proxy (HTTPS_PROXY) and Genesys Cloud's status page if this lasts: the collector retries.";
const KEPT: &str = "events are late; Genesys keeps them for ten days";

/// What the session may raise.
const CODES: [Code; 8] = [
    Code::CredentialsRefused,
    Code::NotReceiving,
    Code::Starting,
    Code::SocketDown,
    Code::HistoryForbidden,
    Code::HistoryFailing,
    Code::SubscriptionRejected,
    Code::DefinitionsUnconfirmed,
];

/// What was concluded last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Health {
    is_starting: bool,
    is_receiving: bool,
    is_ready: bool,
}

impl Default for Health {
    fn default() -> Self {
        Self { is_starting: true, is_receiving: true, is_ready: false }
    }
}

/// What is known of the socket and its subscription.
#[derive(Clone, Copy)]
struct Socket<'a> {
    /// Whether a subscription is to be tried, and whether a socket is to be open.
    may_subscribe: bool,
    is_wanted: bool,
    is_open: bool,
    /// No socket was open for long enough to be reported.
    is_down: bool,
    why_down: &'a Problem,
    /// How the service says that it delivers the topics; whether a socket is not among the ways.
    transports: &'a [String],
    is_doubted: bool,
    has_permitted: bool,
    rejected: &'a BTreeMap<String, Rejection>,
    all_rejected: bool,
    /// Whether an event arrived on a socket.
    has_proof: bool,
}

/// All that health depends on.
#[derive(Clone, Copy)]
struct Snapshot<'a> {
    delivery: Delivery,
    /// CATCH_UP_INTERVAL.
    interval: Duration,
    topics_file: &'a Path,
    has_topics: bool,
    /// Whether a topic has a history.
    has_ids: bool,
    /// The service refuses the credentials; and whether a token is left that still holds.
    refused: Option<&'a Problem>,
    has_token: bool,
    socket: Socket<'a>,
    history: State,
    why_history: Option<&'a Problem>,
    /// Why the definitions are not confirmed.
    definitions: Option<&'a Problem>,
    is_over_grace: bool,
    before: Health,
}

impl Snapshot<'_> {
    fn wants_history(&self) -> bool {
        self.delivery != Delivery::Websocket && self.has_ids
    }

    fn history_works(&self) -> bool {
        self.wants_history() && self.history == State::Works
    }

    /// Events arrive, as far as can be known, if any occur.
    fn socket_works(&self) -> bool {
        let socket = &self.socket;
        socket.is_open && (socket.has_proof || socket.has_permitted && !socket.is_doubted)
    }

    /// The refused credentials are the cause of whatever else fails.
    fn is_locked_out(&self) -> bool {
        self.refused.is_some() && !self.has_token
    }

    fn judge(&self) -> Health {
        let (socket, history) = (self.socket_works(), self.history_works());
        let nothing_to_open = self.socket.is_down || !self.socket.is_wanted || self.socket.is_open;
        let is_receiving = if socket || history {
            true
        } else if nothing_to_open && self.is_over_grace {
            false
        } else {
            self.before.is_receiving
        };
        let lives_on_history = history && (!self.socket.is_wanted || self.socket.is_down);
        let is_ready = socket || lives_on_history || self.before.is_ready && is_receiving;
        let is_subscribed = self.socket.is_open && self.socket.has_permitted;
        Health { is_starting: self.before.is_starting && !is_ready && !is_subscribed, is_receiving, is_ready }
    }

    fn problems(&self) -> Vec<(Code, Problem)> {
        let health = self.judge();
        let mut problems = Vec::new();
        if let Some(refused) = self.refused {
            problems.push((Code::CredentialsRefused, self.refused_credentials(refused)));
        }
        if !self.is_locked_out() {
            if !health.is_receiving {
                problems.push((Code::NotReceiving, self.not_receiving()));
            }
            if self.socket.is_down {
                problems.push((Code::SocketDown, self.socket_down()));
            }
            if health.is_starting && problems.is_empty() {
                problems.push((Code::Starting, self.starting()));
            }
        }
        if self.wants_history() && self.history == State::Forbidden {
            problems.push((Code::HistoryForbidden, self.no_history(" until this is fixed")));
        }
        if self.wants_history() && self.history == State::Failing && !self.is_locked_out() {
            problems.push((Code::HistoryFailing, self.no_history("")));
        }
        if self.socket.may_subscribe && !self.socket.rejected.is_empty() {
            problems.push((Code::SubscriptionRejected, self.rejected()));
        }
        if let Some(problem) = self.definitions.filter(|_| !self.is_locked_out()) {
            problems.push((Code::DefinitionsUnconfirmed, problem.clone()));
        }
        problems
    }

    /// What becomes of the events that no socket brings.
    fn impact(&self) -> String {
        if self.delivery == Delivery::Websocket {
            return "events are lost: GENESYS_DELIVERY=websocket reads no history".to_owned();
        }
        if self.has_topics && !self.has_ids {
            return "events are lost: TOPICS_FILE names no operational event, and no other has a history".to_owned();
        }
        if self.history_works() && !self.is_locked_out() {
            let late_s = self.interval.as_secs().max(1);
            return format!("events arrive through the history, up to {late_s} s late");
        }
        KEPT.to_owned()
    }

    fn refused_credentials(&self, refused: &Problem) -> Problem {
        let what = if self.has_token || self.socket_works() {
            format!("{}; collecting goes on until the present token and channel end", refused.what)
        } else {
            format!("{}; not collecting: {}", refused.what, self.impact())
        };
        Problem::new(what, refused.cure.clone())
    }

    fn starting(&self) -> Problem {
        let what =
            if self.delivery == Delivery::History { "the history is not read yet" } else { "not subscribed yet" };
        Problem::new(format!("starting: {what}; until then {}", self.impact()), "Wait a few seconds.")
    }

    fn socket_down(&self) -> Problem {
        let why = self.socket.why_down;
        let what = format!("the socket to Genesys Cloud is down ({}); {}", why.what, self.impact());
        Problem::new(what, or_retried(&why.cure))
    }

    /// The history is forbidden or fails.
    fn no_history(&self, until: &str) -> Problem {
        let (what, cure) = self.why_history.map_or(("the history cannot be read", ""), |why| (&why.what, &why.cure));
        let impact = if self.socket_works() {
            format!("events that the socket misses are late{until}; Genesys keeps them for ten days")
        } else {
            format!("all events are late{until}; Genesys keeps them for ten days")
        };
        Problem::new(format!("{what}; {impact}"), or_retried(cure))
    }

    fn rejected(&self) -> Problem {
        let rejected = self.socket.rejected;
        let is_certain = |why: &&Rejection| why.cause != Cause::Unconfirmed;
        let shown = rejected.iter().find(|(_, why)| is_certain(why)).or_else(|| rejected.iter().next());
        let Some((topic, why)) = shown else { return Problem::default() };
        let verb = if is_certain(&why) { "rejected" } else { "did not confirm" };
        let which = if self.socket.has_permitted { "of the topics" } else { "topics (every one)" };
        let impact = if rejected.keys().any(|topic| topic.starts_with(TOPIC_PREFIX)) {
            self.impact()
        } else {
            "events are lost: these topics have no history".to_owned()
        };
        let cure = match why.cause {
            _ if rejected.values().any(|why| why.cause == Cause::Permission) => {
                "Give the OAuth client a role with the missing permission (Admin > Integrations > OAuth > the client > Roles)."
            }
            Cause::Unconfirmed => "Check that the topics exist if this lasts: the collector asks again.",
            _ => "Check the reason, and that TOPICS_FILE names topics that exist.",
        };
        let count = rejected.len();
        Problem::new(format!("Genesys Cloud {verb} {count} {which} ({topic}: {why}); of these {impact}"), cure)
    }

    fn not_receiving(&self) -> Problem {
        let impact = self.impact();
        if !self.has_topics {
            let path = self.topics_file.display();
            return Problem::new(
                format!("not collecting: TOPICS_FILE {path} names nothing that Genesys Cloud has; {impact}"),
                format!("Name {TOPIC_PREFIX}{ID_PREFIX}* in TOPICS_FILE and restart the collector."),
            );
        }
        let (socket, history) = (self.why_no_socket(), self.why_no_history());
        let what = match history {
            Some(history) => format!("not collecting: {socket}, and {history}; {impact}"),
            None => format!("not collecting: {socket}; {impact}"),
        };
        Problem::new(what, self.way_out())
    }

    fn why_no_socket(&self) -> String {
        let socket = &self.socket;
        if self.delivery == Delivery::History {
            return "GENESYS_DELIVERY=history uses no socket".to_owned();
        }
        if !socket.may_subscribe || socket.is_open && socket.is_doubted {
            return format!(
                "Genesys Cloud does not deliver on a socket (transports: {})",
                socket.transports.join(", ")
            );
        }
        match socket.rejected.iter().next().filter(|_| !socket.has_permitted) {
            Some((topic, why)) if socket.all_rejected => {
                format!("Genesys Cloud rejected every topic ({topic}: {why})")
            }
            Some(_) if socket.is_open => "Genesys Cloud confirmed none of the topics".to_owned(),
            _ => format!("the socket is down ({})", socket.why_down.what),
        }
    }

    /// None where the settings leave no history: the impact says so.
    fn why_no_history(&self) -> Option<String> {
        if !self.wants_history() {
            return None;
        }
        Some(match self.why_history {
            _ if self.history == State::Forbidden => "the history is forbidden".to_owned(),
            // One cause is named once.
            Some(why) if why.what != self.socket.why_down.what || !self.socket.is_wanted => {
                format!("the history cannot be read ({})", why.what)
            }
            _ => "the history cannot be read".to_owned(),
        })
    }

    fn way_out(&self) -> String {
        if self.delivery == Delivery::Websocket && (!self.socket.is_wanted || self.socket.is_open) {
            return "Set GENESYS_DELIVERY to auto, so that the history is read.".to_owned();
        }
        let forbidden = self.why_history.filter(|_| self.wants_history() && self.history == State::Forbidden);
        or_retried(forbidden.map_or("", |why| &why.cure)).to_owned()
    }

    fn doing(&self) -> &'static str {
        match (self.socket.is_open && self.socket.has_permitted, self.history_works()) {
            (true, true) => "collecting from the socket and the history",
            (true, false) => "collecting from the socket",
            (false, true) => "collecting from the history",
            (false, false) => "connecting",
        }
    }
}

fn or_retried(cure: &str) -> &str {
    if cure.is_empty() { RETRIED } else { cure }
}

impl Session {
    /// Raises and clears what is wrong with the two ways that events arrive.
    pub(super) fn assess(&mut self) {
        let now = self.clock.now();
        self.assess_overdue(now);
        let wants_socket = self.wants_socket();
        self.connections.set_wanted(wants_socket, now);
        let refused = self.api.refusal().map(|error| error.problem());
        let snapshot = self.snapshot(refused.as_ref(), now);
        let (health, problems) = (snapshot.judge(), snapshot.problems());
        let doing = match self.reading.history.percent() {
            Some(percent) if percent < 100 && snapshot.history_works() && !self.reading.history.is_idle() => {
                format!("reading the history, {percent} % done")
            }
            _ => snapshot.doing().to_owned(),
        };
        for code in CODES {
            match problems.iter().find(|(raised, _)| *raised == code) {
                Some((_, problem)) => self.status.raise(code, problem.clone()),
                None => self.status.clear(code),
            }
        }
        self.status.update_session(|view| {
            view.ready = health.is_ready;
            view.doing = doing;
        });
        self.health = health;
    }

    fn snapshot<'a>(&'a self, refused: Option<&'a Problem>, now: Instant) -> Snapshot<'a> {
        let genesys = &self.config.genesys;
        let is_doubted =
            genesys.delivery == Delivery::Websocket && !self.transport.is_allowed && !self.has_other_topics();
        let socket = Socket {
            may_subscribe: self.may_subscribe(),
            is_wanted: self.connections.is_wanted(),
            is_open: self.connections.is_open(),
            is_down: self.connections.down_at().is_some_and(|at| now >= at),
            why_down: self.connections.why_down(),
            transports: &self.transport.names,
            is_doubted,
            has_permitted: !self.subscription.permitted().is_empty(),
            rejected: self.subscription.rejected(),
            all_rejected: self.subscription.all_rejected(),
            has_proof: self.status.counters.received_websocket.get() > 0,
        };
        Snapshot {
            delivery: genesys.delivery,
            interval: self.config.catch_up.interval,
            topics_file: &genesys.topics_file,
            has_topics: !self.plan.topics.is_empty(),
            has_ids: !self.plan.ids.is_empty(),
            refused,
            has_token: self.api.token().is_some(),
            socket,
            history: self.reading.state,
            why_history: self.reading.why.as_ref(),
            definitions: self.definitions.unconfirmed.as_ref(),
            is_over_grace: now.duration_since(self.started) >= START_GRACE,
            before: self.health,
        }
    }

    /// When the health may change though nothing happens.
    pub(super) fn health_due(&self, now: Instant) -> Option<Instant> {
        let grace_ends = self.started + START_GRACE;
        let is_unproven = self.connections.is_open() && self.status.counters.received_websocket.get() == 0;
        let proof = (is_unproven && !self.health.is_receiving).then(|| now + PROOF_INTERVAL);
        let due = [self.connections.down_at(), Some(grace_ends), self.overdue_at(), proof];
        due.into_iter().flatten().filter(|at| *at > now).min()
    }
}
