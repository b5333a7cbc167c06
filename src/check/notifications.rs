//! The channel, its subscriptions, and the socket: tried on a channel of the check's own, which is left empty.
//!
//! Must never: touch a channel that has topics, or the one that the collector remembers; push another channel out.

use std::sync::Arc;

use ureq::http::Method;

use super::service::{DIAL_LIMIT, a_few, host};
use super::{Findings, guesses};
use crate::clock::Millis;
use crate::config::{Config, Delivery};
use crate::genesys::api::{Api, Channels};
use crate::genesys::error::{ApiError, Kind};
use crate::genesys::topics::{self, Plan};
use crate::message::{ChannelState, Closed};
use crate::net::Dialer;
use crate::reader;
use crate::secret::{Secret, mask};
use crate::writer::state;

/// Channels of one client, at most: one more pushes another out.
const CHANNELS_MAX: usize = 20;

/// `streaming_told`: the streaming host that was looked at already.
pub(super) fn check(
    config: &Config,
    api: &mut Api,
    plan: &Plan,
    streaming_told: Option<&str>,
    dialer: &Arc<Dialer>,
    out: &Findings,
) {
    transport(config, api, out);
    let (channel, is_new) = match channel(config, api) {
        Ok(found) => found,
        Err(NoChannel::Api(error)) => return out.api_error("channel", &error),
        Err(NoChannel::Full) => {
            return out.bad(
                "channel",
                format_args!("this client has {CHANNELS_MAX} channels, the most there may be, and each is in use"),
                "stop what else logs in with this OAuth client, or make a client for the collector alone; a channel \
                 ends a day after its last subscription",
            );
        }
    };
    let hours = (channel.expires_ms - api.service().now()) as f64 / 3_600_000.0;
    let how = if is_new { "made" } else { "an empty one was there and is used again" };
    out.ok("channel", format_args!("{how}: {}, for {hours:.1} h", mask(&channel.id)));
    if streaming_told.is_none_or(|told| !is_same_host(told, &channel.connect_uri)) {
        host("streaming host", &channel.connect_uri, dialer, out);
    }
    let subscribed = subscriptions(api, plan, &channel, out);
    socket(&channel, dialer, out);
    // Whatever the answer to the subscription was, the service may have taken it.
    match api.unsubscribe(&channel.id) {
        Ok(()) => {}
        Err(error) if error.kind == Kind::Gone => {}
        Err(error) if subscribed => {
            out.bad(
                "channel left behind",
                error.problem().what,
                "nothing: the channel has no socket, and ends within a day by itself",
            );
        }
        Err(_) => {}
    }
    // Last, for it brings another token, which may not reach the channel any more.
    if out.has_time() {
        guesses::settle_channel(api, &channel, is_new, out);
    }
}

fn is_same_host(told: &str, uri: &str) -> bool {
    let place = |address: &str| crate::net::Target::parse(address).ok().map(|target| (target.host, target.port));
    place(told) == place(uri)
}

/// Whether the topics may come on a socket at all.
fn transport(config: &Config, api: &mut Api, out: &Findings) {
    let interval = config.catch_up.interval.as_secs_f64();
    match api.transports() {
        Ok(None) => out.ok(
            "transport",
            "the service does not say how operational events may be delivered; the subscription tells",
        ),
        Ok(Some(transports)) if topics::allow_socket(&transports) => {
            out.ok("transport", format_args!("the socket is permitted (transports: {})", transports.join(", ")));
        }
        Ok(Some(transports)) => {
            let cure = if config.genesys.delivery == Delivery::Websocket {
                "set GENESYS_DELIVERY to auto or history: on the socket no event would come".to_owned()
            } else {
                format!(
                    "set GENESYS_DELIVERY=history: every event comes that way, late by up to CATCH_UP_INTERVAL ({interval} s)"
                )
            };
            out.bad(
                "transport",
                format_args!("operational events may not come on a socket (transports: {})", transports.join(", ")),
                cure,
            );
        }
        Err(error) => out.api_error("transport", &error),
    }
}

enum NoChannel {
    Full,
    Api(ApiError),
}

/// A channel to try on, and whether it was made: an empty one that an earlier check left is taken first.
fn channel(config: &Config, api: &mut Api) -> Result<(ChannelState, bool), NoChannel> {
    // A service that does not list its channels is asked for one all the same.
    let Channels { count, usable } = api.channels().unwrap_or_default();
    let remembered = remembered(config);
    let mut others = usable.iter().filter(|one| remembered.as_deref() != Some(one.id.as_str()));
    let empty = others.find(|one| api.subscription_count(&one.id).is_ok_and(|count| count == 0));
    match empty {
        Some(empty) => Ok((empty.clone(), false)),
        None if count >= CHANNELS_MAX => Err(NoChannel::Full),
        None => api.create_channel().map(|made| (made, true)).map_err(NoChannel::Api),
    }
}

/// The channel of the collector with these settings, whether it runs or not.
fn remembered(config: &Config) -> Option<String> {
    let bytes = std::fs::read(&config.output.state_file).ok()?;
    state::parse(&bytes).ok()?.channel.map(|channel| channel.id)
}

/// Subscribes to every topic, and says what was rejected and why; whether the service took any.
fn subscriptions(api: &mut Api, plan: &Plan, channel: &ChannelState, out: &Findings) -> bool {
    let found = match api.subscribe(&channel.id, &plan.topics, Method::PUT) {
        Ok(found) => found,
        Err(error) => {
            out.api_error("subscriptions", &error);
            return false;
        }
    };
    let rejected: Vec<String> =
        found.iter().filter_map(|one| one.rejected.as_ref().map(|why| format!("{} ({why})", one.topic))).collect();
    let taken = found.len() - rejected.len();
    if rejected.is_empty() {
        out.ok("subscriptions", format_args!("each of {taken} topics is permitted"));
    } else {
        let names: Vec<&str> = rejected.iter().map(String::as_str).collect();
        out.bad(
            "subscriptions",
            format_args!("{} of {} topics were rejected: {}", rejected.len(), found.len(), a_few(&names)),
            "give the OAuth client a role with the missing permission (Admin > Integrations > OAuth > the client > \
             Roles); until then these events come from the history alone, late by up to CATCH_UP_INTERVAL",
        );
    }
    taken > 0
}

fn socket(channel: &ChannelState, dialer: &Dialer, out: &Findings) {
    let uri = Secret::new(channel.connect_uri.clone());
    let why = match reader::ping(&uri, dialer, DIAL_LIMIT) {
        Ok(time) => return out.ok("socket", format_args!("open, and a ping was answered in {} ms", time.as_millis())),
        Err(why) => why,
    };
    let (found, cure) = match why {
        Closed::Unreachable(text) => {
            let (found, cure) = text.split_once("; ").unwrap_or((&text, "look at the network and the proxy"));
            (found.to_owned(), cure.to_owned())
        }
        Closed::Refused(status @ (200..=399 | 407)) => (
            format!("the handshake was answered with {status}"),
            "a proxy is in the way that knows no WebSocket: set HTTPS_PROXY, or name the streaming host in NO_PROXY".to_owned(),
        ),
        Closed::Refused(status @ (404 | 410)) => (
            format!("the handshake was answered with {status}: the streaming host does not know the channel that was just made"),
            "check again in a minute; if it lasts, see that GENESYS_API_URL, if it is set, is of the region of GENESYS_ENV, \
             and ask Genesys Cloud's support".to_owned(),
        ),
        Closed::Refused(status @ (408 | 429 | 500..)) => (
            format!("the handshake was answered with {status}"),
            "check again in a few minutes; if it lasts, look at Genesys Cloud's status page".to_owned(),
        ),
        Closed::Refused(status) => (
            format!("the handshake was refused with {status}"),
            "try again in a minute; if it lasts, ask whoever runs the proxy or firewall whether WebSockets are let through".to_owned(),
        ),
        Closed::Silent => (
            format!("it opened, and a ping was not answered within {} s", reader::PONG_LIMIT.as_secs()),
            "a proxy or firewall holds WebSocket frames back: have the streaming host let through, or name it in NO_PROXY".to_owned(),
        ),
        Closed::ByServer { code, .. } => (
            format!("it opened, and the server closed it ({code})"),
            "try again in a minute; if it lasts, see whether something in the way cuts WebSockets".to_owned(),
        ),
        Closed::Broken(text) => (
            format!("it opened, and the connection broke: {text}"),
            "see whether a proxy or firewall in the way cuts WebSockets".to_owned(),
        ),
        Closed::ByUs => ("it was closed from here".to_owned(), "try again".to_owned()),
    };
    out.bad("socket", found, cure);
}

/// Milliseconds as a person says them.
pub(super) fn seconds(ms: Millis) -> String {
    format!("{:.3} s", ms as f64 / 1000.0)
}
