//! Checks the channel, its subscriptions and the socket, on a channel of its own, which is left without topics.
//!
//! Must never: use a channel that has topics or the collector's own channel, or make the service delete another
//! channel.

use std::collections::BTreeMap;
use std::sync::Arc;

use ureq::http::Method;

use super::service::{DIAL_LIMIT, a_few, host};
use super::{Findings, api_facts};
use crate::config::{Config, Delivery};
use crate::genesys::api::{Api, Channels};
use crate::genesys::channel::{Cause, Rejection};
use crate::genesys::error::{ApiError, Kind};
use crate::genesys::topics::{self, Plan};
use crate::message::{ChannelState, Closed};
use crate::net::{Dialer, Target};
use crate::reader;
use crate::secret::{Secret, mask};
use crate::status::Problem;
use crate::writer::state;

/// The service's limit on channels per client. Creating another one deletes an old one.
const CHANNELS_MAX: usize = 20;

/// The results of earlier checks.
pub(super) struct Tried {
    /// Whether the definitions come from the service. Some of the built-in list may not exist.
    pub is_confirmed: bool,
    /// The streaming host that was already checked.
    pub streaming: Option<String>,
}

pub(super) fn check(config: &Config, api: &mut Api, plan: &Plan, tried: &Tried, dialer: &Arc<Dialer>, out: &Findings) {
    transport(config, api, out);
    let (channel, is_new) = match channel(config, api) {
        Ok(Some(found)) => found,
        Ok(None) => {
            return out.bad(
                "channel",
                format_args!("this OAuth client has {CHANNELS_MAX} channels, the maximum, and all are in use"),
                "Stop other programs that use this OAuth client, or create a client only for the collector. A channel ends a day \
                 after its last subscription.",
            );
        }
        Err(error) => return out.problem("channel", &error.problem()),
    };
    let hours = (channel.expires_ms - api.service().now()) as f64 / 3_600_000.0;
    let how = if is_new { "created" } else { "an empty one is reused" };
    out.ok("channel", format_args!("{how}: {}, for {hours:.1} h", mask(&channel.id)));
    let place = |address: &str| Target::parse(address).ok().map(|target| (target.host, target.port));
    if tried.streaming.as_ref().is_none_or(|tried| place(tried) != place(&channel.connect_uri)) {
        host("streaming host", &channel.connect_uri, dialer, out);
    }
    let is_subscribed = subscriptions(api, plan, &channel, tried.is_confirmed, out);
    let uri = Secret::new(channel.connect_uri.clone());
    match reader::ping(&uri, dialer, DIAL_LIMIT) {
        Ok(time) => out.ok("socket", format_args!("open; a ping was answered in {} ms", time.as_millis())),
        Err(why) => out.problem("socket", &socket_problem(why)),
    }
    // Unsubscribe even after an error, since the service may have processed the subscription.
    match api.unsubscribe(&channel.id) {
        Err(error) if is_subscribed && error.kind != Kind::Gone => out.bad(
            "channel left behind",
            error.problem().what,
            "No action needed: the channel has no socket and ends within a day.",
        ),
        _ => {}
    }
    // Do this last: it logs in again, and the new token may not be able to use the channel.
    if out.wants_facts() {
        api_facts::of_channel(api, &channel, is_new, out);
    }
}

/// Checks whether the service allows delivery to a WebSocket.
fn transport(config: &Config, api: &mut Api, out: &Findings) {
    let transports = match api.transports() {
        Ok(Some(transports)) => transports,
        Ok(None) => return out.ok("transport", "Genesys Cloud does not say how it delivers operational events"),
        Err(error) => return out.problem("transport", &error.problem()),
    };
    let list = transports.join(", ");
    if topics::allow_socket(&transports) {
        return out.ok("transport", format_args!("WebSocket delivery is allowed (transports: {list})"));
    }
    let cure = match config.genesys.delivery {
        Delivery::Websocket => {
            "Set GENESYS_DELIVERY to auto or history: no event can arrive on the WebSocket.".to_owned()
        }
        _ => format!(
            "Set GENESYS_DELIVERY=history. All events then come from the history, up to CATCH_UP_INTERVAL ({} s) late.",
            config.catch_up.interval.as_secs_f64()
        ),
    };
    out.bad("transport", format_args!("WebSocket delivery is not allowed (transports: {list})"), cure);
}

/// A channel for the check, and whether it was created. An empty channel of an earlier check is reused. `None` if a new
/// channel would make the service delete another one.
fn channel(config: &Config, api: &mut Api) -> Result<Option<(ChannelState, bool)>, ApiError> {
    // If the channels cannot be listed, try to create one anyway.
    let Channels { count, usable } = api.channels().unwrap_or_default();
    let remembered = std::fs::read(&config.output.state_file).ok().and_then(|bytes| state::parse(&bytes).ok());
    let remembered = remembered.and_then(|state| state.channel).map(|channel| channel.id);
    let mut others = usable.iter().filter(|one| remembered.as_ref() != Some(&one.id));
    match others.find(|one| api.subscription_count(&one.id).is_ok_and(|count| count == 0)) {
        Some(empty) => Ok(Some((empty.clone(), false))),
        None if count >= CHANNELS_MAX => Ok(None),
        None => api.create_channel().map(|made| Some((made, true))),
    }
}

/// Subscribes to all topics and reports rejected ones; true if the service accepted any.
fn subscriptions(api: &mut Api, plan: &Plan, channel: &ChannelState, is_confirmed: bool, out: &Findings) -> bool {
    let found = match api.subscribe(&channel.id, &plan.topics, Method::PUT) {
        Ok(found) => found,
        Err(error) => {
            out.problem("subscriptions", &error.problem());
            return false;
        }
    };
    let rejections = found.iter().filter_map(|one| one.rejected.as_ref().map(|why| (&one.topic, why)));
    let taken = found.len() - rejections.clone().count();
    let is_wrong = |why: &Rejection| is_confirmed || why.cause == Cause::Permission;
    let wrong: Vec<(&String, &Rejection)> = rejections.filter(|(_, why)| is_wrong(why)).collect();
    if wrong.is_empty() {
        out.ok("subscriptions", format_args!("{taken} topics are permitted"));
        return taken > 0;
    }
    // Usually all topics are rejected for the same reason.
    let mut topics_by_reason: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (topic, why) in &wrong {
        topics_by_reason.entry(why.to_string()).or_default().push(topic);
    }
    let reasons: Vec<String> =
        topics_by_reason.iter().map(|(why, topics)| format!("{why}: {}", a_few(topics))).collect();
    let cure = if wrong.iter().any(|(_, why)| why.cause == Cause::Permission) {
        "Give the OAuth client a role with the missing permission (Admin > Integrations > OAuth > the client > Roles)."
    } else {
        "Check the reason, and that the topics in TOPICS_FILE exist."
    };
    out.bad(
        "subscriptions",
        format_args!(
            "{} of {} topics were rejected ({}); their events come only from the history, up to CATCH_UP_INTERVAL late",
            wrong.len(),
            found.len(),
            reasons.join("; ")
        ),
        cure,
    );
    taken > 0
}

fn socket_problem(why: Closed) -> Problem {
    const LATER: &str = "Check again in a few minutes. If the problem persists, see Genesys Cloud's status page.";
    const MIDDLE: &str =
        "Ask the administrator of the proxy or firewall whether WebSockets to the streaming host are allowed.";
    let answered = |status: u16| format!("the handshake was answered with {status}");
    match why {
        Closed::Unreachable(problem) => problem,
        Closed::Refused { status: status @ (200..=399 | 407), .. } => Problem::new(
            answered(status),
            "Check HTTPS_PROXY, or list the streaming host in NO_PROXY. A proxy may not support WebSocket.",
        ),
        Closed::Refused { status: status @ (404 | 410), .. } => Problem::new(
            format!("{}: the streaming host does not know the new channel", answered(status)),
            "Check again in a minute. If the problem persists, check that GENESYS_API_URL, if set, belongs to the region of GENESYS_ENV.",
        ),
        Closed::Refused { status: status @ (408 | 429 | 500..), .. } => Problem::new(answered(status), LATER),
        Closed::Refused { status, .. } => Problem::new(answered(status), MIDDLE),
        Closed::Silent => {
            let limit = reader::PONG_LIMIT.as_secs();
            Problem::new(
                format!("it opened, but a ping was not answered within {limit} s: a proxy may hold frames back"),
                MIDDLE,
            )
        }
        Closed::ByServer { code, .. } => Problem::new(format!("it opened, and the server closed it ({code})"), LATER),
        Closed::Broken(text) => Problem::new(format!("it opened, and the connection broke: {text}"), MIDDLE),
        Closed::ByUs => Problem::new("the collector closed it", LATER),
    }
}
