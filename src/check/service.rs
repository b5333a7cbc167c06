//! Login, API, definitions and the history: what the collector asks Genesys Cloud for.
//!
//! Must never: go on with what depends on a step that failed; that step's cure comes first.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Findings, api_cure, guesses, notifications};
use crate::clock::{Clock, Millis};
use crate::config::{Config, Delivery};
use crate::genesys::api::{Api, PAGE_SIZE, interval};
use crate::genesys::error::{ApiError, Kind};
use crate::genesys::topics::{self, ID_PREFIX, Plan};
use crate::message::Definition;
use crate::net::{Dialer, Target};

/// One dial, all steps together.
pub(super) const DIAL_LIMIT: Duration = Duration::from_secs(5);
/// A clock that differs from the service's by more is wrong: receipt times are off by as much.
const CLOCK_TOLERANCE_MS: i64 = 60_000;
const HOUR_MS: Millis = 3_600_000;
/// Names of a few of many, in a line.
const NAMED_MAX: usize = 12;

/// Everything that needs Genesys Cloud.
pub(super) fn check(config: &Config, file: Option<&[String]>, dialer: &Arc<Dialer>, clock: &Clock, out: &Findings) {
    let genesys = &config.genesys;
    let mut api = Api::new(genesys, dialer.clone(), clock.clone());
    // The first answer tells the service's time.
    let login = api.log_in();
    time(&api, login.is_ok(), out);
    host("login host", &genesys.login_url, dialer, out);
    host("api host", &genesys.api_url, dialer, out);
    let streaming = format!("https://streaming.{}", genesys.env);
    let streaming_known = genesys.api_url == format!("https://api.{}", genesys.env);
    if streaming_known && genesys.delivery != Delivery::History {
        host("streaming host", &streaming, dialer, out);
    }
    if !token(&api, login, out) {
        return;
    }
    let definitions = definitions(&mut api, out);
    let plan = topics::plan(file, definitions.as_deref());
    if !topics(file.is_some(), &plan, out) {
        return;
    }
    if history(config, &mut api, &plan, out) {
        guesses::settle(config, &mut api, &plan, definitions.as_deref(), out);
    }
    if genesys.delivery == Delivery::History {
        out.ok("subscriptions", "not needed: GENESYS_DELIVERY is history, so no socket is opened");
        return;
    }
    let told = streaming_known.then_some(streaming);
    notifications::check(config, &mut api, &plan, told.as_deref(), dialer, out);
}

fn time(api: &Api, logged_in: bool, out: &Findings) {
    if !api.service().is_known() && logged_in {
        return out.ok(
            "time",
            "not compared: the answer to the login holds no Date, so that this machine's clock is taken as it is",
        );
    }
    if !api.service().is_known() {
        return out.bad(
            "time",
            "this machine's clock cannot be compared: Genesys Cloud told no time",
            "set right what the next lines say; the clock is compared once the login answers",
        );
    }
    let ahead_ms = api.service().ahead_ms();
    let way = if ahead_ms > 0 { "ahead of" } else { "behind" };
    if ahead_ms.abs() > CLOCK_TOLERANCE_MS {
        out.bad(
            "time",
            format_args!("this machine's clock is {} s {way} Genesys Cloud's", ahead_ms.abs() / 1000),
            "switch this machine's time service on (timedatectl set-ntp true): receipt times are off by as much, and \
             certificates may look expired; no event is lost for it",
        );
    } else {
        // The service tells whole seconds.
        let text = match ahead_ms.abs() / 1000 {
            0 | 1 => "as Genesys Cloud's, to the second".to_owned(),
            seconds => format!("{seconds} s {way} Genesys Cloud's"),
        };
        out.ok("time", format_args!("this machine's clock is {text}"));
    }
}

/// Name look-up, connect, the proxy where there is one, TLS and its trust.
pub(super) fn host(name: &'static str, url: &str, dialer: &Dialer, out: &Findings) {
    let begun = Instant::now();
    let dialled = Target::parse(url).and_then(|target| {
        let stream = dialer.dial(&target, DIAL_LIMIT)?;
        Ok((target, stream))
    });
    let (target, stream) = match dialled {
        Ok(dialled) => dialled,
        Err(error) => return out.dial_error(name, &error),
    };
    let ms = begun.elapsed().as_millis();
    let peer = stream.socket().tcp().peer_addr().map_or_else(|_| "an address".to_owned(), |peer| peer.to_string());
    let way = match dialer.proxy_for(&target) {
        Some(proxy) => format!("through the proxy {} ({peer})", proxy.name()),
        None => format!("at {peer}"),
    };
    let trust = if target.tls { "TLS, its certificate trusted" } else { "without TLS, on this machine" };
    out.ok(name, format_args!("{} reached {way}, {trust}, in {ms} ms", target.host));
}

fn token(api: &Api, login: Result<(), ApiError>, out: &Findings) -> bool {
    if let Err(error) = login {
        let found = format!("{}; definitions, history, channel and socket were not tried", error.problem().what);
        out.bad("token", found, api_cure(error.kind, &error.problem().cure));
        return false;
    }
    let life = api.token().map_or(0, |token| token.life.as_secs());
    out.ok("token", format_args!("logged in; a token lives for {life} s and is renewed by itself"));
    true
}

fn definitions(api: &mut Api, out: &Findings) -> Option<Vec<Definition>> {
    let all = match api.definitions() {
        Ok(all) => all,
        Err(error) => {
            out.api_error("definitions", &error);
            return None;
        }
    };
    let ours: Vec<&str> = all.iter().map(|one| one.id.as_str()).filter(|id| id.starts_with(ID_PREFIX)).collect();
    if ours.is_empty() {
        out.bad(
            "definitions",
            format_args!("{} event definitions, and none of AudioHook's among them", all.len()),
            "see whether the organisation has an AudioHook integration (Admin > Integrations), and ask Genesys Cloud \
             about operational events in this region; until then the built-in ids are asked for",
        );
        return Some(all);
    }
    let built_in = topics::built_in();
    let new: Vec<&str> = ours.iter().copied().filter(|id| built_in.iter().all(|known| known.id != *id)).collect();
    let new = if new.is_empty() {
        "none is new to the built-in list".to_owned()
    } else {
        format!("new to the built-in list: {}", a_few(&new))
    };
    out.ok("definitions", format_args!("{} of AudioHook's ({}) among {}; {new}", ours.len(), a_few(&ours), all.len()));
    Some(all)
}

/// Whether there is any topic to collect; a file may name none that is.
fn topics(from_file: bool, plan: &Plan, out: &Findings) -> bool {
    let mut found = format!("{} to collect", plan.topics.len());
    for notice in &plan.notices {
        found.push_str(&format!("; {notice}"));
    }
    if plan.topics.is_empty() && from_file {
        out.bad(
            "topics",
            format_args!("{found}; history, channel and socket were not tried"),
            "name topics in TOPICS_FILE that match a definition, as \
             {\"topics\":[\"v2.operations.events.AUDIOHOOK-*\"]}, or remove the file: without it all AudioHook events are \
             collected",
        );
        return false;
    }
    out.ok("topics", found);
    true
}

/// Whether the history can be read: one page of the last hour.
fn history(config: &Config, api: &mut Api, plan: &Plan, out: &Findings) -> bool {
    if plan.ids.is_empty() {
        out.ok("history", "not asked: the topics name no event definition");
        return false;
    }
    let now = api.service().now();
    let body = guesses::body(now - HOUR_MS, now, &plan.ids, "ASC");
    let page = api.query_page(None, PAGE_SIZE, &body).and_then(|page| {
        guesses::rows(&page).ok_or_else(|| {
            ApiError::nonsense("read the history", "the answer is no page of events")
                .with_correlation(api.correlation())
        })
    });
    match page {
        Ok(rows) => {
            let rows = if rows.is_empty() {
                "no event".to_owned()
            } else {
                format!("{} events on the first page", rows.len())
            };
            out.ok(
                "history",
                format_args!(
                    "may be read (usage:events:view); the last hour ({}) has {rows}",
                    interval(now - HOUR_MS, now)
                ),
            );
            true
        }
        Err(error) if error.kind == Kind::TooLong => {
            out.ok("history", "may be read (usage:events:view); its events are large and are read in smaller pages");
            true
        }
        Err(error) if error.kind == Kind::Forbidden && config.genesys.delivery == Delivery::Websocket => {
            out.ok("history", format_args!("{error}; it is not used: GENESYS_DELIVERY is websocket"));
            false
        }
        Err(error) => {
            out.api_error("history", &error);
            false
        }
    }
}

/// The first few of many names.
pub(super) fn a_few(names: &[&str]) -> String {
    let mut text = names.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    if names.len() > NAMED_MAX {
        text.push_str(", …");
    }
    text
}
