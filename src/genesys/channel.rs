//! The notification channel: the service's answers about it and about each topic's subscription.
//!
//! Pure. A channel's id and address are secrets: whoever knows them can take the socket over.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::error::{ApiError, shorten};
use crate::clock::{Millis, parse_instant};
use crate::config::Genesys;
use crate::message::ChannelState;
use crate::net::Target;

/// Life of a channel after its last subscription.
pub const LIFE: Duration = Duration::from_secs(24 * 3600);
/// Maximum topics per channel: the service refuses more.
pub const TOPICS_MAX: usize = 1000;
/// A channel is handed over when a tenth of its life is left, but at least this long before its end, because the
/// service reports its time in whole seconds (at half of the remaining life, if that is shorter)…
const HANDOVER_BEFORE_MIN: Duration = Duration::from_secs(3);
/// …and at most this long before its end.
const HANDOVER_BEFORE_MAX: Duration = Duration::from_secs(3600);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Created {
    id: String,
    connect_uri: String,
    expires: Option<serde_json::Value>,
}

/// The owner of a channel: a channel of another client or region is never reused.
pub fn owner(genesys: &Genesys) -> String {
    format!("{}@{}", genesys.client_id, genesys.api_url)
}

/// The channel in the answer to its creation; `now` is the service's clock.
///
/// # Errors
/// If the answer holds no channel, or its address cannot be connected to.
pub fn understand(body: &str, owner: String, now: Millis) -> Result<ChannelState, ApiError> {
    const WHAT: &str = "create a channel";
    // The parser's message could quote the id.
    let created: Created =
        serde_json::from_str(body).map_err(|_| ApiError::invalid_response(WHAT, "the answer holds no channel"))?;
    if !is_connectable(&created.connect_uri) {
        return Err(ApiError::invalid_response(WHAT, "the channel's address is no wss address"));
    }
    let told = created.expires.as_ref().and_then(|text| parse_instant(text.as_str()?)).filter(|expires| *expires > now);
    Ok(ChannelState {
        id: created.id,
        connect_uri: created.connect_uri,
        expires_ms: told.unwrap_or(now + LIFE.as_millis() as Millis),
        owner,
    })
}

fn is_connectable(uri: &str) -> bool {
    Target::parse(uri).is_ok_and(|target| {
        let scheme = uri.split("://").next().unwrap_or_default();
        scheme.eq_ignore_ascii_case("wss") || (scheme.eq_ignore_ascii_case("ws") && target.is_loopback())
    })
}

/// Whether a remembered channel may be tried again by this owner at the service's time `now`.
pub fn is_usable(state: &ChannelState, owner: &str, now: Millis) -> bool {
    state.owner == owner && state.expires_ms > now && is_connectable(&state.connect_uri) && !state.id.is_empty()
}

/// How long until the channel should be handed over to a new one.
pub fn handover_in(state: &ChannelState, now: Millis) -> Duration {
    let left = Duration::from_millis(u64::try_from(state.expires_ms - now).unwrap_or(0));
    left - (left / 10).clamp(HANDOVER_BEFORE_MIN, HANDOVER_BEFORE_MAX).min(left / 2)
}

/// The body that subscribes to these topics: a bare array.
pub fn subscription_body(topics: &[String]) -> String {
    topics.iter().take(TOPICS_MAX).map(|topic| json!({ "id": topic })).collect::<serde_json::Value>().to_string()
}

/// The service's answer for one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    pub topic: String,
    /// `None` if the topic is permitted.
    pub rejected: Option<Rejection>,
}

/// Why a topic's events are not known to be pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub cause: Cause,
    /// The service's text, with the missing permissions.
    pub why: String,
}

/// The cause that kept a topic from being subscribed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The service rejects the topic until the client has another permission.
    Permission,
    /// The service rejects the topic.
    Rejected,
    /// The service refuses any request for the topic as a whole.
    BadRequest,
    /// The service did not call the topic permitted, but it may be.
    Unconfirmed,
}

impl Rejection {
    /// A request for this topic was refused as a whole.
    pub fn bad_request(error: &ApiError) -> Self {
        Self { cause: Cause::BadRequest, why: error.problem().what }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// One entry of the answer to a subscription.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entity {
    id: String,
    state: Option<String>,
    rejection_reason: Option<String>,
    missing_permissions: Option<Vec<String>>,
}

/// Judges each requested topic: only topics that the answer calls `Permitted` are permitted.
pub fn judge_subscriptions(answer: &[Entity], asked: &[String]) -> Vec<Subscription> {
    let of = |topic: &String| answer.iter().find(|entity| entity.id.eq_ignore_ascii_case(topic));
    asked.iter().map(|topic| Subscription { topic: topic.clone(), rejected: rejection(of(topic)) }).collect()
}

fn rejection(entity: Option<&Entity>) -> Option<Rejection> {
    let unconfirmed = |why: &str| Some(Rejection { cause: Cause::Unconfirmed, why: why.to_owned() });
    let Some(entity) = entity else { return unconfirmed("the answer does not name it") };
    let state = entity.state.as_deref().unwrap_or_default();
    if state.eq_ignore_ascii_case("permitted") {
        return None;
    }
    let missing = entity.missing_permissions.as_ref().filter(|missing| !missing.is_empty());
    let is_rejected = state.eq_ignore_ascii_case("rejected") || entity.rejection_reason.is_some() || missing.is_some();
    if !is_rejected {
        return unconfirmed(&format!("its state is {:?}", shorten(state)));
    }
    let mut why = entity.rejection_reason.as_deref().map_or_else(|| "no reason given".to_owned(), shorten);
    if let Some(missing) = missing {
        why.push_str(&format!("; missing permissions: {}", shorten(&missing.join(", "))));
    }
    let cause = if missing.is_some() { Cause::Permission } else { Cause::Rejected };
    Some(Rejection { cause, why })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = 1_795_430_000_000;

    fn created(uri: &str) -> Result<ChannelState, ApiError> {
        let body = format!(r#"{{"id":"secret-channel","connectUri":"{uri}","expires":"2026-11-24T10:00:00.000Z"}}"#);
        understand(&body, "me".to_owned(), NOW)
    }

    #[test]
    fn a_channel_is_understood_and_only_a_safe_address_is_taken() {
        let state = created("wss://streaming.usw2.pure.cloud/channels/secret-channel").unwrap();
        assert!(is_usable(&state, "me", NOW) && !is_usable(&state, "you", NOW));
        assert!(!is_usable(&state, "me", state.expires_ms));
        assert!(created("ws://127.0.0.1:8080/channels/x").is_ok());
        let error = created("ws://streaming.usw2.pure.cloud/channels/secret-channel").unwrap_err();
        assert!(!error.to_string().contains("secret-channel"), "{error}");
    }

    #[test]
    fn a_handover_comes_before_the_end_of_short_and_long_lives() {
        let mut state = created("wss://s/channels/x").unwrap();
        state.expires_ms = NOW + 60_000;
        assert_eq!(handover_in(&state, NOW), Duration::from_secs(54));
        state.expires_ms = NOW + 24 * 3_600_000;
        assert_eq!(handover_in(&state, NOW), Duration::from_secs(23 * 3600));
        assert_eq!(handover_in(&state, state.expires_ms + 1), Duration::ZERO);
    }

    #[test]
    fn only_what_the_answer_calls_permitted_is() {
        let asked: Vec<String> = ["a", "B", "c", "d", "e", "f"].map(str::to_owned).to_vec();
        let answer = r#"[{"id":"a","state":"Permitted"},{"id":"b","state":"PERMITTED"},{"id":"c","state":"Rejected",
            "rejectionReason":"no","missingPermissions":["x:y:view"]},{"id":"d","state":"Pending"},{"id":"e"}]"#;
        let answer: Vec<Entity> = serde_json::from_str(answer).unwrap();
        let found = judge_subscriptions(&answer, &asked);
        let found: Vec<_> = found.into_iter().map(|one| one.rejected.map(|no| (no.cause, no.to_string()))).collect();
        let no = |cause, why: &str| Some((cause, why.to_owned()));
        assert_eq!(found[..2], [None, None]);
        assert_eq!(found[2], no(Cause::Permission, "no; missing permissions: x:y:view"));
        assert_eq!(found[3], no(Cause::Unconfirmed, "its state is \"Pending\""));
        assert_eq!(found[4], no(Cause::Unconfirmed, "its state is \"\""));
        assert_eq!(found[5], no(Cause::Unconfirmed, "the answer does not name it"));
        assert_eq!(subscription_body(&asked[..2]), r#"[{"id":"a"},{"id":"B"}]"#);
    }
}
