//! The faults that a test can switch on while the service runs.
//!
//! Deals with: which calls go wrong and how, and the knobs of how the service behaves. Must never: be reachable over
//! HTTP; a fault is set by the process that holds the [`Simulator`](super::Simulator).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::http::{Answer, Request};

/// What a request asks for, whatever its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// `POST /oauth/token`
    Token,
    /// `GET /api/v2/usage/events/definitions`
    Definitions,
    /// `GET /api/v2/usage/events/definitions/{id}`
    Definition,
    /// `POST /api/v2/usage/events/query`
    History,
    /// `POST /api/v2/usage/events/aggregates/query`
    Counts,
    /// `GET /api/v2/notifications/availabletopics`
    AvailableTopics,
    /// `/api/v2/notifications/channels`
    Channels,
    /// `/api/v2/notifications/channels/{id}`
    Channel,
    /// `/api/v2/notifications/channels/{id}/subscriptions`
    Subscriptions,
    /// `GET /channels/{id}`: the socket's handshake.
    Handshake,
    /// Anything else.
    Unknown,
}

impl Call {
    /// Every call, what is unknown included.
    pub const ALL: [Self; 11] = [
        Self::Token,
        Self::Definitions,
        Self::Definition,
        Self::History,
        Self::Counts,
        Self::AvailableTopics,
        Self::Channels,
        Self::Channel,
        Self::Subscriptions,
        Self::Handshake,
        Self::Unknown,
    ];

    /// The call that a path (without its query) names.
    pub fn of(path: &str) -> Self {
        const CHANNELS: &str = "/api/v2/notifications/channels";
        const DEFINITIONS: &str = "/api/v2/usage/events/definitions";
        let part_below =
            |whole: &str| path.strip_prefix(whole)?.strip_prefix('/').map(|rest| rest.split('/').collect());
        match path {
            "/oauth/token" => Self::Token,
            DEFINITIONS => Self::Definitions,
            "/api/v2/usage/events/query" => Self::History,
            "/api/v2/usage/events/aggregates/query" => Self::Counts,
            "/api/v2/notifications/availabletopics" => Self::AvailableTopics,
            CHANNELS => Self::Channels,
            _ => {
                let (channel, definition): (Vec<&str>, Vec<&str>) =
                    (part_below(CHANNELS).unwrap_or_default(), part_below(DEFINITIONS).unwrap_or_default());
                match (&channel[..], &definition[..]) {
                    ([id], _) if !id.is_empty() => Self::Channel,
                    ([id, "subscriptions"], _) if !id.is_empty() => Self::Subscriptions,
                    (_, [id]) if !id.is_empty() => Self::Definition,
                    _ if path.starts_with("/channels/") => Self::Handshake,
                    _ => Self::Unknown,
                }
            }
        }
    }
}

/// How a call goes wrong.
#[derive(Clone, Debug)]
pub enum Action {
    /// This status with the service's error body; `Retry-After` in seconds if given.
    Status { status: u16, retry_after_s: Option<u64> },
    /// The right answer, after this time.
    Slow(Duration),
    /// No answer, for as long as the fault stands.
    Hang,
    /// Half of the right answer, then the connection ends.
    Half,
    /// Half of the right answer, then nothing, for as long as the fault stands.
    HalfThenHang,
    /// 200 and a page of HTML.
    Nonsense,
    /// 200 and this body.
    Body(String),
    /// The connection is reset, without an answer.
    Reset,
    /// These bytes, then the right answer: interim responses (1xx), for instance.
    Preceded(Vec<u8>),
    /// Whatever a test makes of the request and the right answer.
    Custom(Custom),
}

/// The right answer to a request; a custom action may ask for it with another request, several times, or not at all.
pub type Service<'a> = dyn Fn(&Request) -> Answer + 'a;

/// An answer that a test makes itself.
#[derive(Clone)]
pub struct Custom(Arc<CustomFn>);

type CustomFn = dyn Fn(&Request, &Service) -> Answer + Send + Sync;

impl Custom {
    pub(super) fn answer(&self, request: &Request, service: &Service) -> Answer {
        (self.0)(request, service)
    }
}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Custom")
    }
}

impl Action {
    /// This status, without `Retry-After`.
    pub fn status(status: u16) -> Self {
        Self::Status { status, retry_after_s: None }
    }

    /// The answer is what `make` returns for the request and the service that would answer it rightly.
    pub fn custom(make: impl Fn(&Request, &Service) -> Answer + Send + Sync + 'static) -> Self {
        Self::Custom(Custom(Arc::new(make)))
    }

    /// The right answer, changed.
    pub fn change(change: impl Fn(&Request, &mut Answer) + Send + Sync + 'static) -> Self {
        Self::custom(move |request, service| {
            let mut answer = service(request);
            change(request, &mut answer);
            answer
        })
    }

    /// The right answer, its JSON body changed. A body that is not JSON stays as it is.
    pub fn change_json(change: impl Fn(&Request, &mut serde_json::Value) + Send + Sync + 'static) -> Self {
        Self::change(move |request, answer| {
            if let Ok(mut json) = serde_json::from_slice(&answer.body) {
                change(request, &mut json);
                answer.body = json.to_string().into_bytes();
            }
        })
    }
}

/// A topic that may not be subscribed to.
#[derive(Clone, Debug)]
pub(super) struct Rejection {
    pub prefix: String,
    pub reason: String,
    pub missing_permissions: Vec<String>,
}

struct Rule {
    call: Call,
    action: Action,
    left: Option<u32>,
}

/// What goes wrong now.
pub(super) struct Faults {
    rules: Vec<Rule>,
    /// Raised by each [`heal`](Self::heal), so that what hangs can tell that its fault is over.
    pub healed: u64,
    pub rejections: Vec<Rejection>,
    pub knobs: Knobs,
}

/// How the service behaves; a test changes what it wants to see.
#[derive(Clone, Debug)]
pub struct Knobs {
    /// The life of a token: 300 s to 48 h on the real service, down to 60 s in tests.
    pub token_life: Duration,
    /// Requests that a client may make in a minute; `None`: as many as it likes.
    pub requests_per_minute: Option<u32>,
    /// The life of a channel since its last (re)subscription.
    pub channel_life: Duration,
    /// Between two heartbeats on a socket.
    pub heartbeat: Duration,
    /// Whether pings, text ones and control frames, are answered.
    pub pongs: bool,
    /// How far the service's clock is ahead of the machine's: `Date`, event times, `expires`.
    pub clock_offset_ms: i64,
    /// The transports of `v2.operations.events.{id}`.
    pub transports: Vec<String>,
    /// Channels belong to the token that made them: another token of the same client meets 404. Seen by others, and said
    /// nowhere: off, so that a client that takes its channel up again after a restart can be seen to.
    pub channels_belong_to_token: bool,
    /// How long after its issue an event stands in the history.
    pub history_lag: Duration,
    /// Added to each event's time in the history.
    pub history_shift_ms: i64,
    /// The history's times differ by up to this much, either way, from event to event.
    pub history_jitter_ms: i64,
    /// Events issued from now on are held back from the history until they are released.
    pub hold_history: bool,
    /// Longer intervals are refused with 400.
    pub history_span_max: Option<Duration>,
    /// More definition ids are refused with 400.
    pub history_ids_max: Option<usize>,
    /// Whether an event at the very end of an interval belongs to it.
    pub interval_end_included: bool,
    /// The life of a cursor; an older one is refused with 400.
    pub cursor_life: Duration,
    /// So many further requests that carry a cursor are refused as though it had expired.
    pub cursors_to_expire: u32,
    /// So many further pages of the history lead back to themselves.
    pub pages_to_repeat: u32,
    /// So many further events do not come on any socket.
    pub socket_to_drop: u32,
    /// So many further events come twice on each socket.
    pub socket_to_double: u32,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            token_life: Duration::from_secs(86_399),
            requests_per_minute: Some(300),
            channel_life: Duration::from_secs(86_400),
            heartbeat: Duration::from_secs(30),
            pongs: true,
            clock_offset_ms: 0,
            transports: vec!["All".to_owned()],
            channels_belong_to_token: false,
            history_lag: Duration::ZERO,
            history_shift_ms: 0,
            history_jitter_ms: 0,
            hold_history: false,
            history_span_max: None,
            history_ids_max: None,
            interval_end_included: false,
            cursor_life: Duration::from_secs(3600),
            cursors_to_expire: 0,
            pages_to_repeat: 0,
            socket_to_drop: 0,
            socket_to_double: 0,
        }
    }
}

impl Faults {
    pub fn new(knobs: Knobs) -> Self {
        Self { rules: Vec::new(), healed: 0, rejections: Vec::new(), knobs }
    }

    /// `times`: how many calls it meets; `None`: until healed.
    pub fn add(&mut self, call: Call, action: Action, times: Option<u32>) {
        self.rules.push(Rule { call, action, left: times });
    }

    pub fn heal(&mut self, call: Option<Call>) {
        self.rules.retain(|rule| call.is_some_and(|call| call != rule.call));
        self.healed += 1;
    }

    /// The oldest fault of this call, one use of it spent.
    pub fn take(&mut self, call: Call) -> Option<Action> {
        let at = self.rules.iter().position(|rule| rule.call == call)?;
        let rule = &mut self.rules[at];
        let action = rule.action.clone();
        if let Some(left) = &mut rule.left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.rules.remove(at);
            }
        }
        Some(action)
    }

    pub fn rejection(&self, topic: &str) -> Option<&Rejection> {
        self.rejections.iter().find(|rejection| topic.starts_with(&rejection.prefix))
    }
}

/// Spends one of a number of uses.
pub(super) fn spend(left: &mut u32) -> bool {
    let any = *left > 0;
    *left = left.saturating_sub(1);
    any
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_its_call() {
        for (path, call) in [
            ("/oauth/token", Call::Token),
            ("/api/v2/usage/events/query", Call::History),
            ("/api/v2/notifications/channels", Call::Channels),
            ("/api/v2/notifications/channels/a", Call::Channel),
            ("/api/v2/notifications/channels/a/subscriptions", Call::Subscriptions),
            ("/api/v2/notifications/channels/a/b", Call::Unknown),
            ("/api/v2/notifications/channels/", Call::Unknown),
            ("/channels/streaming-1", Call::Handshake),
            ("/", Call::Unknown),
        ] {
            assert_eq!(Call::of(path), call, "{path}");
        }
    }

    #[test]
    fn a_fault_meets_as_many_calls_as_it_was_given() {
        let mut faults = Faults::new(Knobs::default());
        faults.add(Call::History, Action::status(503), Some(2));
        faults.add(Call::History, Action::Hang, None);
        let mut next = || matches!(faults.take(Call::History), Some(Action::Hang));
        assert_eq!([next(), next(), next(), next()], [false, false, true, true]);
        assert!(faults.take(Call::Token).is_none());
        faults.heal(Some(Call::Token));
        assert!(faults.take(Call::History).is_some());
        faults.heal(None);
        assert!(faults.take(Call::History).is_none());
    }
}
