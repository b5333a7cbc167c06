//! The reasons for the session's health, as a table: a pure function from a small snapshot to the reasons to raise.
//!
//! A reason that only follows from another one is left out.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use super::reading::State;
use super::{Session, shorten};
use crate::config::Delivery;
use crate::genesys::channel::{Cause, Rejection};
use crate::genesys::topics::{ID_PREFIX, TOPIC_PREFIX};
use crate::status::{Code, Problem};

/// How long the start may take before it counts as a failure.
const START_GRACE: Duration = Duration::from_secs(6);
/// Interval for checking whether an event has arrived on a socket that nothing else confirms as working.
const PROOF_INTERVAL: Duration = Duration::from_secs(2);
/// How long a row waits for its frame.
const ROW_WAIT: Duration = Duration::from_millis(super::reading::ROW_WAIT_MS as u64);
const RETRIED: &str =
    "Check the network, any proxy (HTTPS_PROXY) and Genesys Cloud's status page if this lasts: the collector retries.";

/// The codes that the session may raise.
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

/// The last assessment.
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

/// Everything that health depends on.
#[derive(Clone, Copy)]
struct Snapshot<'a> {
    delivery: Delivery,
    /// CATCH_UP_INTERVAL.
    interval: Duration,
    topics_file: &'a Path,
    has_topics: bool,
    /// Whether a topic has a history.
    has_ids: bool,
    /// Whether TOPICS_FILE names definitions, but none that the service has.
    names_unknown_only: bool,
    /// Why the service refuses the credentials, and whether a token is still valid.
    refused: Option<&'a Problem>,
    has_token: bool,
    /// Whether to try a subscription, and whether a socket should be open.
    may_subscribe: bool,
    wants_socket: bool,
    is_open: bool,
    /// Whether no socket was open for long enough to report it.
    is_down: bool,
    why_down: &'a Problem,
    /// The topics' transports according to the service, and whether a socket is tried although they do not allow it.
    transports: &'a [String],
    is_doubted: bool,
    /// Number of topics that the service called permitted.
    permitted: usize,
    rejected: &'a BTreeMap<String, Rejection>,
    /// Whether an event has arrived on a socket.
    has_proof: bool,
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

    fn history_is(&self, state: State) -> bool {
        self.wants_history() && self.history == state
    }

    /// Whether the history fails, or works except for some definitions.
    fn history_fails(&self) -> bool {
        self.history_is(State::Failing) || self.history_is(State::Works) && self.why_history.is_some()
    }

    /// Whether any events that occur would arrive on the socket, as far as is known.
    fn socket_works(&self) -> bool {
        self.is_open && (self.has_proof || self.permitted > 0 && !self.is_doubted)
    }

    /// Whether the refused credentials cause all other failures.
    fn is_locked_out(&self) -> bool {
        self.refused.is_some() && !self.has_token
    }

    /// Ignores the rejection of a topic from an unconfirmed list: the topic may not exist.
    fn is_rejected(&self) -> bool {
        let is_certain = |why: &Rejection| self.definitions.is_none() || why.cause == Cause::Permission;
        self.rejected.values().any(is_certain)
    }

    fn judge(&self) -> Health {
        let (socket, history) = (self.socket_works(), self.history_is(State::Works));
        let nothing_follows = self.is_down || self.is_open || !self.wants_socket;
        let is_failure = nothing_follows && self.is_over_grace;
        let is_receiving = !self.names_unknown_only && (socket || history || !is_failure && self.before.is_receiving);
        let lives_on_history = history && (self.is_down || !self.wants_socket);
        let is_ready = socket || lives_on_history || self.before.is_ready && is_receiving;
        // The first failure also ends the start: from then on, the failure is reported.
        let is_over =
            is_ready || !is_receiving || self.is_open && self.permitted > 0 || self.is_down || self.is_locked_out();
        Health { is_starting: self.before.is_starting && !is_over, is_receiving, is_ready }
    }

    fn problems(&self) -> Vec<(Code, Problem)> {
        let Health { is_starting, is_receiving, .. } = self.judge();
        let is_free = !self.is_locked_out();
        let table: [(Code, bool, &dyn Fn() -> Problem); 8] = [
            (Code::CredentialsRefused, self.refused.is_some(), &|| self.refused_credentials()),
            (Code::NotReceiving, is_free && !is_receiving, &|| self.not_receiving()),
            (Code::SocketDown, is_free && self.is_down, &|| self.socket_down()),
            (Code::Starting, is_starting, &|| self.starting()),
            (Code::HistoryForbidden, self.history_is(State::Forbidden), &|| self.no_history(" until this is fixed")),
            (Code::HistoryFailing, is_free && self.history_fails(), &|| self.no_history("")),
            (Code::SubscriptionRejected, self.may_subscribe && self.is_rejected(), &|| self.rejected()),
            (Code::DefinitionsUnconfirmed, is_free && self.definitions.is_some(), &|| {
                self.definitions.cloned().unwrap_or_default()
            }),
        ];
        table.into_iter().filter(|(_, is_raised, _)| *is_raised).map(|(code, _, problem)| (code, problem())).collect()
    }

    /// What happens to events that no socket delivers.
    fn impact(&self) -> String {
        if self.delivery == Delivery::Websocket {
            return "events are lost: GENESYS_DELIVERY=websocket reads no history".to_owned();
        }
        if self.has_topics && !self.has_ids {
            return "events are lost: TOPICS_FILE names no operational event, and no other has a history".to_owned();
        }
        if self.history_is(State::Works) && !self.is_locked_out() {
            // While a socket is open, young rows wait for their frames.
            let wait = if self.is_open { ROW_WAIT } else { Duration::ZERO };
            let late_s = (self.interval + wait).as_secs().max(1);
            return format!("events arrive through the history, up to {late_s} s late");
        }
        "events are late; Genesys keeps them for ten days".to_owned()
    }

    fn refused_credentials(&self) -> Problem {
        let problem = self.refused.cloned().unwrap_or_default();
        let impact = match (self.has_token, self.socket_works()) {
            (true, _) => "collecting goes on until the present token ends".to_owned(),
            (false, true) => format!("only the open socket still collects; if it closes, {}", self.impact()),
            (false, false) => format!("not collecting: {}", self.impact()),
        };
        Problem { what: format!("{}; {impact}", problem.what), ..problem }
    }

    fn starting(&self) -> Problem {
        let what =
            if self.delivery == Delivery::History { "the history is not read yet" } else { "not subscribed yet" };
        Problem::new(format!("starting: {what}; until then {}", self.impact()), "Wait a few seconds.")
    }

    fn socket_down(&self) -> Problem {
        let Problem { what, cure, correlation_id } = self.why_down;
        Problem::new(format!("the socket to Genesys Cloud is down ({what}); {}", self.impact()), or_retried(cure))
            .with_correlation_id(correlation_id.as_deref())
    }

    /// The history is forbidden or fails, entirely or for some definitions.
    fn no_history(&self, until: &str) -> Problem {
        let (what, cure) = self.why_history.map_or(("the history cannot be read", ""), |why| (&why.what, &why.cure));
        let which = if self.socket_works() { "events that the socket misses" } else { "all events" };
        let what = format!("{what}; {which} are late{until}; Genesys keeps them for ten days");
        let correlation_id = self.why_history.and_then(|why| why.correlation_id.as_deref());
        Problem::new(what, or_retried(cure)).with_correlation_id(correlation_id)
    }

    fn rejected(&self) -> Problem {
        let is_certain = |why: &Rejection| why.cause != Cause::Unconfirmed;
        let shown = self.rejected.iter().max_by_key(|(_, why)| is_certain(why));
        let Some((topic, why)) = shown else { return Problem::default() };
        let verb = if is_certain(why) { "rejected" } else { "did not confirm" };
        let count = self.rejected.len();
        let which =
            if self.permitted > 0 { format!("{count} of {}", count + self.permitted) } else { format!("all {count}") };
        let has_history = self.rejected.keys().any(|topic| topic.starts_with(TOPIC_PREFIX));
        let impact =
            if has_history { self.impact() } else { "events are lost: these topics have no history".to_owned() };
        let cure = match why.cause {
            _ if self.rejected.values().any(|why| why.cause == Cause::Permission) => {
                "Give the OAuth client a role with the missing permission (Admin > Integrations > OAuth > the client > Roles)."
            }
            Cause::Unconfirmed => "Check that the topics exist if this lasts: the collector asks again.",
            _ => "Check the reason, and that TOPICS_FILE names topics that exist.",
        };
        Problem::new(format!("Genesys Cloud {verb} {which} topics ({topic}: {why}); for these, {impact}"), cure)
    }

    fn not_receiving(&self) -> Problem {
        let (path, impact) = (self.topics_file.display(), self.impact());
        if !self.has_topics {
            return Problem::new(
                format!("not collecting: TOPICS_FILE {path} names nothing that Genesys Cloud has; {impact}"),
                format!("Name {TOPIC_PREFIX}{ID_PREFIX}* in TOPICS_FILE and restart the collector."),
            );
        }
        if self.names_unknown_only {
            return Problem::new(
                format!("not collecting: no definition that TOPICS_FILE {path} names exists in Genesys Cloud"),
                "Run `audiohook-collector check`, correct the names in TOPICS_FILE, and restart the collector.",
            );
        }
        let no_history = self.why_history.or(self.definitions).filter(|_| self.wants_history());
        let cure = if self.delivery == Delivery::Websocket && (self.is_open || !self.wants_socket) {
            "Set GENESYS_DELIVERY to auto, so that the history is read."
        } else {
            or_retried(&no_history.unwrap_or(self.why_down).cure)
        };
        let causes: Vec<String> = [self.why_no_socket(), self.why_no_history()].into_iter().flatten().collect();
        Problem::new(format!("not collecting: {}; {impact}", causes.join(", and ")), cure)
    }

    fn why_no_socket(&self) -> Option<String> {
        if self.delivery == Delivery::History {
            return None;
        }
        let rejected = self.rejected.iter().next().filter(|_| self.permitted == 0);
        Some(if !self.may_subscribe || self.is_open && self.is_doubted {
            format!("Genesys Cloud does not deliver on a socket (transports: {})", self.transports.join(", "))
        } else if self.is_open {
            "Genesys Cloud confirmed none of the topics".to_owned()
        } else if let Some((topic, why)) = rejected.filter(|_| !self.wants_socket) {
            format!("Genesys Cloud rejected every topic ({topic}: {why})")
        } else {
            format!("the socket is down ({})", self.why_down.what)
        })
    }

    /// `None` if the settings exclude the history: the impact reports that.
    fn why_no_history(&self) -> Option<String> {
        // A cause shared with the socket is named once.
        let why = self.why_history.filter(|why| why.what != self.why_down.what || !self.wants_socket);
        self.wants_history().then(|| match why {
            _ if self.history == State::Forbidden => "the history is forbidden".to_owned(),
            Some(why) => why.what.clone(),
            None => match self.definitions.filter(|why| why.what != self.why_down.what) {
                Some(why) => format!("the history cannot be read ({})", why.what),
                None => "the history cannot be read".to_owned(),
            },
        })
    }

    fn doing(&self) -> &'static str {
        match (self.is_open && self.permitted > 0, self.history_is(State::Works)) {
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
    /// Raises and clears the problems of the socket and the history.
    pub(super) fn assess(&mut self) {
        let now = self.clock.now();
        self.assess_overdue(now);
        let wants_socket = self.wants_socket();
        self.connections.set_wanted(wants_socket, now);
        let refused = self.api.refusal().map(|error| error.problem());
        let why_history = if self.reading.state == State::Works { self.left_out() } else { self.reading.why.clone() };
        let snapshot = self.snapshot(refused.as_ref(), why_history.as_ref(), now);
        let (health, problems) = (snapshot.judge(), snapshot.problems());
        let doing = match self.reading.history.percent() {
            Some(percent) if percent < 100 && snapshot.history_is(State::Works) && !self.reading.history.is_idle() => {
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

    /// The definitions whose history cannot be read while that of others can, and why. Definitions that the service
    /// does not have are not included: the entries that name them are reported.
    fn left_out(&self) -> Option<Problem> {
        let known = || self.reading.left_out.iter().filter(|(id, _)| self.definitions.is_known(id));
        let (_, one) = known().next()?;
        let ids: Vec<String> = known().map(|(id, _)| id.clone()).collect();
        let what = format!("the history of {} is left out ({})", shorten(&ids), one.why.what);
        Some(Problem { what, ..one.why.clone() })
    }

    fn snapshot<'a>(
        &'a self,
        refused: Option<&'a Problem>,
        why_history: Option<&'a Problem>,
        now: Instant,
    ) -> Snapshot<'a> {
        let genesys = &self.config.genesys;
        let is_doubted =
            genesys.delivery == Delivery::Websocket && !self.transport.is_allowed && !self.has_other_topics();
        Snapshot {
            delivery: genesys.delivery,
            interval: self.config.catch_up.interval,
            topics_file: &genesys.topics_file,
            has_topics: !self.plan.topics.is_empty(),
            has_ids: !self.read_ids.is_empty(),
            names_unknown_only: self.definitions.unknown_only(&self.plan),
            refused,
            has_token: self.api.token().is_some(),
            may_subscribe: self.may_subscribe(),
            wants_socket: self.wants_socket(),
            is_open: self.connections.is_open(),
            is_down: self.connections.down_at().is_some_and(|at| now >= at),
            why_down: self.connections.why_down(),
            transports: &self.transport.names,
            is_doubted,
            permitted: self.subscription.permitted().len(),
            rejected: self.subscription.rejected(),
            has_proof: self.status.counters.received_websocket.get() > 0,
            history: self.reading.state,
            why_history,
            definitions: self.definitions.unconfirmed.as_ref(),
            is_over_grace: now.duration_since(self.started) >= START_GRACE,
            before: self.health,
        }
    }

    /// When the health may change without an event.
    pub(super) fn health_due(&self, now: Instant) -> Option<Instant> {
        let grace_ends = self.started + START_GRACE;
        let is_unproven = self.connections.is_open() && self.status.counters.received_websocket.get() == 0;
        let proof = (is_unproven && !self.health.is_receiving).then(|| now + PROOF_INTERVAL);
        let due = [self.connections.down_at(), Some(grace_ends), self.overdue_at(), proof];
        due.into_iter().flatten().filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_raises_its_own_reasons_and_no_consequences() {
        use Code::*;
        let why = Problem::new("cannot create a channel: 503", "Check the status page.");
        let refused = Problem::new("cannot log in: 401", "Check GENESYS_CLIENT_ID.");
        let (none, well) = (BTreeMap::new(), Health { is_starting: false, is_receiving: true, is_ready: true });
        let rejected = |cause| {
            BTreeMap::from([(format!("{TOPIC_PREFIX}AUDIOHOOK-0001"), Rejection { cause, why: "no".to_owned() })])
        };
        let (certain, unsure) = (rejected(Cause::Permission), rejected(Cause::Unconfirmed));
        let all_well = Snapshot {
            delivery: Delivery::Auto,
            interval: Duration::from_secs(60),
            topics_file: Path::new("topics.json"),
            has_topics: true,
            has_ids: true,
            names_unknown_only: false,
            refused: None,
            has_token: true,
            may_subscribe: true,
            wants_socket: true,
            is_open: true,
            is_down: false,
            why_down: &why,
            transports: &[],
            is_doubted: false,
            permitted: 7,
            rejected: &none,
            has_proof: false,
            history: State::Works,
            why_history: None,
            definitions: None,
            is_over_grace: true,
            before: well,
        };
        let down = Snapshot { is_open: false, is_down: true, ..all_well };
        let start = Snapshot {
            is_open: false,
            permitted: 0,
            history: State::Unknown,
            is_over_grace: false,
            before: Health::default(),
            ..all_well
        };
        let failing = Snapshot { history: State::Failing, why_history: Some(&why), ..all_well };
        let locked = Snapshot { refused: Some(&refused), has_token: false, ..down };
        let table: [(&str, Snapshot<'_>, &[Code], &str); 22] = [
            (
                "unknown names",
                Snapshot { names_unknown_only: true, ..all_well },
                &[NotReceiving],
                "no definition that TOPICS_FILE topics.json names exists",
            ),
            ("all is well", all_well, &[], ""),
            ("starting", start, &[Starting], "not subscribed yet; until then events are late; Genesys keeps them"),
            (
                "a start that takes too long",
                Snapshot { is_down: true, is_over_grace: true, ..start },
                &[NotReceiving, SocketDown],
                "not collecting: the socket is down",
            ),
            (
                "the socket is down",
                down,
                &[SocketDown],
                "cannot create a channel: 503); events arrive through the history, up to 60 s late",
            ),
            ("briefly down", Snapshot { is_down: false, ..down }, &[], ""),
            (
                "the history fails",
                failing,
                &[HistoryFailing],
                "503; events that the socket misses are late; Genesys keeps them for ten days",
            ),
            (
                "the history works but for a definition",
                Snapshot { why_history: Some(&why), ..all_well },
                &[HistoryFailing],
                "503; events that the socket misses are late; Genesys keeps them for ten days",
            ),
            (
                "both fail",
                Snapshot { is_open: false, is_down: true, ..failing },
                &[NotReceiving, SocketDown, HistoryFailing],
                "not collecting: the socket is down (cannot create a channel: 503), and the history cannot be read; events are late",
            ),
            (
                "both fail, the socket briefly",
                Snapshot { is_open: false, ..failing },
                &[HistoryFailing],
                "503; all events are late",
            ),
            (
                "forbidden",
                Snapshot { history: State::Forbidden, ..failing },
                &[HistoryForbidden],
                "are late until this is fixed",
            ),
            (
                "locked out",
                locked,
                &[CredentialsRefused],
                "401; not collecting: events are late; Genesys keeps them for ten days",
            ),
            (
                "locked out, all fails",
                Snapshot { history: State::Failing, definitions: Some(&why), ..locked },
                &[CredentialsRefused],
                "not collecting",
            ),
            (
                "a renewal is refused",
                Snapshot { refused: Some(&refused), ..all_well },
                &[CredentialsRefused],
                "collecting goes on until the present token",
            ),
            (
                "some rejected",
                Snapshot { rejected: &certain, ..all_well },
                &[SubscriptionRejected],
                "rejected 1 of 8 topics",
            ),
            (
                "all rejected",
                Snapshot { rejected: &certain, permitted: 0, is_open: false, wants_socket: false, ..all_well },
                &[SubscriptionRejected],
                "rejected all 1 topics",
            ),
            (
                "none confirmed",
                Snapshot { rejected: &unsure, permitted: 0, ..all_well },
                &[SubscriptionRejected],
                "did not confirm all 1 topics",
            ),
            (
                "none confirmed, and no history",
                Snapshot { rejected: &unsure, permitted: 0, ..failing },
                &[NotReceiving, HistoryFailing, SubscriptionRejected],
                "confirmed none of the topics",
            ),
            (
                "none confirmed, but events arrive",
                Snapshot { rejected: &unsure, permitted: 0, has_proof: true, ..failing },
                &[HistoryFailing, SubscriptionRejected],
                "events that the socket misses",
            ),
            (
                "the definitions are unknown",
                Snapshot { definitions: Some(&why), ..all_well },
                &[DefinitionsUnconfirmed],
                "503",
            ),
            (
                "the socket alone",
                Snapshot { delivery: Delivery::Websocket, ..down },
                &[NotReceiving, SocketDown],
                "events are lost: GENESYS_DELIVERY=websocket",
            ),
            (
                "no topics",
                Snapshot {
                    has_topics: false,
                    has_ids: false,
                    may_subscribe: false,
                    wants_socket: false,
                    is_open: false,
                    ..all_well
                },
                &[NotReceiving],
                "TOPICS_FILE topics.json names nothing",
            ),
        ];
        for (name, snapshot, codes, what) in table {
            let problems = snapshot.problems();
            assert_eq!(problems.iter().map(|(code, _)| *code).collect::<Vec<_>>(), codes, "{name}");
            assert!(problems.first().is_none_or(|(_, problem)| problem.what.contains(what)), "{name}: {problems:?}");
            for (code, Problem { what, cure, .. }) in &problems {
                assert!(cure.ends_with('.') || *code == DefinitionsUnconfirmed, "{name}: {code:?} {cure}");
                assert!(!what.ends_with('.') && !what.contains('\n'), "{name}: {code:?} {what}");
            }
        }
        assert!(!start.judge().is_ready && all_well.judge().is_ready && down.judge().is_ready);
    }
}
