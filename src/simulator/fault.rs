//! Faults of calls, and the knobs that control the service's behaviour. Only the process that holds the
//! [`Simulator`](super::Simulator) can set them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::http::{Answer, Request};

/// The API call of a request, without its parameters.
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
    /// Every call, including unknown ones.
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

    /// The call for a path without its query.
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

    /// The allowed methods.
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

/// How a call fails.
#[derive(Clone, Debug)]
pub enum Action {
    /// This status with the service's error body; `Retry-After` in seconds, if given.
    Status { status: u16, retry_after_s: Option<u64> },
    /// The normal answer, after this time or once healed.
    Slow(Duration),
    /// No answer until healed.
    Hang,
    /// Half of the normal answer, then the connection is closed.
    Half,
    /// Half of the normal answer, then nothing until healed.
    HalfThenHang,
    /// 200 with an HTML page.
    Nonsense,
    /// 200 with this body.
    Body(String),
    /// The connection is reset without an answer.
    Reset,
    /// These bytes, such as interim responses (1xx), then the normal answer.
    Preceded(Vec<u8>),
    /// A test's own answer.
    Custom(Handler),
}

/// Returns the normal answer to a request. A custom action may call it with another request, several times, or never.
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

    /// Answers with what `make` returns for the request and the [`Service`].
    pub fn custom(make: impl Fn(&Request, &Service) -> Answer + Send + Sync + 'static) -> Self {
        Self::Custom(Handler(Arc::new(make)))
    }

    /// The normal answer, modified.
    pub fn change(change: impl Fn(&Request, &mut Answer) + Send + Sync + 'static) -> Self {
        Self::custom(move |request, service| {
            let mut answer = service(request);
            change(request, &mut answer);
            answer
        })
    }

    /// The normal answer with a modified JSON body. A body that is not JSON stays unchanged.
    pub fn change_json(change: impl Fn(&Request, &mut serde_json::Value) + Send + Sync + 'static) -> Self {
        Self::change(move |request, answer| {
            if let Ok(mut json) = serde_json::from_slice(&answer.body) {
                change(request, &mut json);
                answer.body = json.to_string().into_bytes();
            }
        })
    }
}

/// A prefix of topics that cannot be subscribed to.
#[derive(Clone, Debug)]
pub(super) struct Rejection {
    pub prefix: String,
    pub reason: String,
    pub missing_permissions: Vec<String>,
}

/// A fault of a call, for `left` more times; `None`: until healed.
pub(super) struct Rule {
    pub call: Call,
    pub action: Action,
    pub left: Option<u32>,
}

/// Uses the oldest fault of this call once.
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

/// Uses up one of `left`; returns whether there was one.
pub(super) fn spend(left: &mut u32) -> bool {
    let any = *left > 0;
    *left = left.saturating_sub(1);
    any
}

/// The service's behaviour, which a test can change.
#[derive(Clone, Debug)]
pub struct Knobs {
    /// The lifetime of a token: 300 s to 48 h on the real service, down to a few seconds in tests.
    pub token_life: Duration,
    /// Maximum requests of a client per minute; `None`: unlimited.
    pub requests_per_minute: Option<u32>,
    /// The lifetime of a channel after its last (re)subscription.
    pub channel_life: Duration,
    /// The time between two heartbeats on a socket.
    pub heartbeat: Duration,
    /// Whether pings are answered, both text messages and control frames.
    pub pongs: bool,
    /// How far the service's clock is ahead of the machine's: `Date`, event times, `expires`.
    pub clock_offset_ms: i64,
    /// The transports of `v2.operations.events.{id}`.
    pub transports: Vec<String>,
    /// Whether a channel belongs to the token that created it, so that another token of the same client gets 404.
    /// Others have observed this, but it is not documented. Off by default, to test reusing a channel after a restart.
    pub channels_belong_to_token: bool,
    /// How long after its issue an event appears in the history.
    pub history_lag: Duration,
    /// Added to each event's time in the history.
    pub history_shift_ms: i64,
    /// Maximum random deviation, in both directions, of each event's time in the history.
    pub history_jitter_ms: i64,
    /// Whether newly issued events are withheld from the history until they are released.
    pub hold_history: bool,
    /// Longer intervals are refused with 400.
    pub history_span_max: Option<Duration>,
    /// More definition ids are refused with 400.
    pub history_ids_max: Option<usize>,
    /// Whether an interval includes an event at its very end.
    pub interval_end_included: bool,
    /// The next so many requests with a cursor are refused, as if it had expired.
    pub cursors_to_expire: u32,
    /// The next so many pages of the history have a `nextUri` that leads back to them.
    pub pages_to_repeat: u32,
    /// The next so many events are not sent on any socket.
    pub socket_to_drop: u32,
    /// The next so many events are sent twice on each socket.
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
    fn a_fault_affects_the_given_number_of_calls() {
        let rule = |action, left| Rule { call: Call::History, action, left };
        let mut rules = vec![rule(Action::status(503), Some(2)), rule(Action::Hang, None)];
        let mut next = || matches!(take(&mut rules, Call::History), Some(Action::Hang));
        assert_eq!([next(), next(), next(), next()], [false, false, true, true]);
        assert!(take(&mut rules, Call::Token).is_none());
    }
}
