//! Which calls go wrong and how, and the knobs of how the service behaves. Only the process that holds the
//! [`Simulator`](super::Simulator) can set them.

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
    pub const ALL: [Self; 10] = [
        Self::Token,
        Self::Definitions,
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
        match path.strip_prefix("/api/v2/").unwrap_or(path).split('/').collect::<Vec<_>>()[..] {
            ["", "oauth", "token"] => Self::Token,
            ["usage", "events", "definitions"] => Self::Definitions,
            ["usage", "events", "query"] => Self::History,
            ["usage", "events", "aggregates", "query"] => Self::Counts,
            ["notifications", "availabletopics"] => Self::AvailableTopics,
            ["notifications", "channels"] => Self::Channels,
            ["notifications", "channels", id] if !id.is_empty() => Self::Channel,
            ["notifications", "channels", id, "subscriptions"] if !id.is_empty() => Self::Subscriptions,
            ["", "channels", ..] => Self::Handshake,
            _ => Self::Unknown,
        }
    }

    /// The methods that it takes.
    pub(super) fn methods(self) -> &'static [&'static str] {
        match self {
            Self::Token | Self::History | Self::Counts => &["POST"],
            Self::Definitions | Self::AvailableTopics | Self::Handshake => &["GET"],
            Self::Channels => &["GET", "POST"],
            Self::Channel => &["HEAD"],
            Self::Subscriptions => &["GET", "PUT", "POST", "DELETE"],
            Self::Unknown => &[],
        }
    }
}

/// How a call goes wrong.
#[derive(Clone, Debug)]
pub enum Action {
    /// This status with the service's error body; `Retry-After` in seconds if given.
    Status { status: u16, retry_after_s: Option<u64> },
    /// The right answer, after this time or once it is healed.
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
    Custom(Handler),
}

/// Gives the right answer to a request; a custom action may ask it with another request, several times, or not at all.
pub type Service<'a> = dyn Fn(&Request) -> Answer + 'a;

type HandlerFn = dyn Fn(&Request, &Service) -> Answer + Send + Sync;

/// A test's own answer to a call.
#[derive(Clone)]
pub struct Handler(pub(super) Arc<HandlerFn>);

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Action {
    /// This status, without `Retry-After`.
    pub fn status(status: u16) -> Self {
        Self::Status { status, retry_after_s: None }
    }

    /// The answer is what `make` returns for the request and the service that would answer it rightly.
    pub fn custom(make: impl Fn(&Request, &Service) -> Answer + Send + Sync + 'static) -> Self {
        Self::Custom(Handler(Arc::new(make)))
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

/// A call that goes wrong, so many times more; `None`: until it is healed.
pub(super) struct Rule {
    pub call: Call,
    pub action: Action,
    pub left: Option<u32>,
}

/// The oldest fault of this call, one use of it spent.
pub(super) fn take(rules: &mut Vec<Rule>, call: Call) -> Option<Action> {
    let at = rules.iter().position(|rule| rule.call == call)?;
    let rule = &mut rules[at];
    let action = rule.action.clone();
    rule.left = rule.left.map(|left| left.saturating_sub(1));
    if rule.left == Some(0) {
        rules.remove(at);
    }
    Some(action)
}

/// Spends one of a number of uses.
pub(super) fn spend(left: &mut u32) -> bool {
    let any = *left > 0;
    *left = left.saturating_sub(1);
    any
}

/// How the service behaves; a test changes what it wants to see.
#[derive(Clone, Debug)]
pub struct Knobs {
    /// The life of a token: 300 s to 48 h on the real service, down to some seconds in tests.
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
            cursors_to_expire: 0,
            pages_to_repeat: 0,
            socket_to_drop: 0,
            socket_to_double: 0,
        }
    }
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
        let rule = |action, left| Rule { call: Call::History, action, left };
        let mut rules = vec![rule(Action::status(503), Some(2)), rule(Action::Hang, None)];
        let mut next = || matches!(take(&mut rules, Call::History), Some(Action::Hang));
        assert_eq!([next(), next(), next(), next()], [false, false, true, true]);
        assert!(take(&mut rules, Call::Token).is_none());
    }
}
