//! Checks Genesys Cloud: login, API, definitions and the history. A failed step skips the checks that depend on it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Findings, api_facts, notifications};
use crate::clock::{Clock, Millis};
use crate::config::{Config, Delivery};
use crate::genesys::api::{Api, PAGE_SIZE, interval};
use crate::genesys::error::{ApiError, Kind};
use crate::genesys::topics::{self, ID_PREFIX, Plan, TOPIC_PREFIX};
use crate::message::Definition;
use crate::nearest::nearest;
use crate::net::{Dialer, Target};

/// Timeout of a connection, including the name lookup, proxy and TLS.
pub(super) const DIAL_LIMIT: Duration = Duration::from_secs(5);
/// Maximum difference between this machine's clock and the service's.
const CLOCK_TOLERANCE_MS: i64 = 60_000;
const HOUR_MS: Millis = 3_600_000;
/// Maximum number of responses to find out the service's time.
const ANSWERS_MAX: u32 = 4;
/// Maximum number of names in a list.
const NAMED_MAX: usize = 12;

/// Runs all checks that need Genesys Cloud.
pub(super) fn check(config: &Config, dialer: &Arc<Dialer>, clock: &Clock, out: &Findings) {
    let genesys = &config.genesys;
    let mut api = Api::new(genesys, dialer.clone(), clock.clone());
    let login = api.log_in();
    let mut listed = None;
    for _ in 0..ANSWERS_MAX {
        // The service's time is known only after several responses agree.
        if login.is_err() || listed.is_some() && api.service().is_known() {
            break;
        }
        listed = Some(api.definitions());
        if matches!(&listed, Some(Err(error)) if error.kind == Kind::Network) {
            break;
        }
    }
    time(&api, login.is_ok(), out);
    host("login host", &genesys.login_url, dialer, out);
    host("api host", &genesys.api_url, dialer, out);
    let streaming = format!("https://streaming.{}", genesys.env);
    let is_streaming_known = genesys.api_url == format!("https://api.{}", genesys.env);
    if is_streaming_known && genesys.delivery != Delivery::History {
        host("streaming host", &streaming, dialer, out);
    }
    if let Err(error) = login {
        let problem = error.problem();
        let found = format!("{}; definitions, history, channel and socket were not tried", problem.what);
        return out.bad("token", found, problem.cure);
    }
    let hours = api.token().map_or(0, |token| token.life.as_secs().div_ceil(3600));
    out.ok("token", format_args!("logged in; token valid for {hours} h"));
    let definitions = listed.and_then(|listed| definitions(listed, out));
    let plan = topics::plan(genesys.topics.as_deref(), definitions.as_deref());
    if !topics(&plan, genesys.topics.is_some(), definitions.as_deref(), out) {
        return;
    }
    if history(config, &mut api, &plan, out) && out.wants_facts() {
        api_facts::of_history(config, &mut api, &plan, definitions.as_deref(), out);
    }
    if genesys.delivery == Delivery::History {
        return out.ok("subscriptions", "not needed: GENESYS_DELIVERY is history, so no socket is opened");
    }
    let tried = is_streaming_known.then_some(streaming);
    let tried = notifications::Tried { is_confirmed: definitions.is_some(), streaming: tried };
    notifications::check(config, &mut api, &plan, &tried, dialer, out);
}

fn time(api: &Api, is_logged_in: bool, out: &Findings) {
    if !api.service().is_known() {
        let found = "not compared: Genesys Cloud's responses have no Date header";
        return if is_logged_in {
            out.ok("time", found)
        } else {
            out.bad("time", "not compared: no response from Genesys Cloud", "Fix what the following checks report.")
        };
    }
    let ahead_ms = api.service().ahead_ms();
    let (seconds, way) = (ahead_ms.abs() / 1000, if ahead_ms > 0 { "ahead of" } else { "behind" });
    if ahead_ms.abs() > CLOCK_TOLERANCE_MS {
        return out.bad(
            "time",
            format_args!("this machine's clock is {seconds} s {way} Genesys Cloud's; receipt times are off by as much"),
            "Enable this machine's time service (timedatectl set-ntp true).",
        );
    }
    // The Date header has whole seconds.
    match seconds {
        0 | 1 => out.ok("time", "this machine's clock agrees with Genesys Cloud's"),
        _ => out.ok("time", format_args!("this machine's clock is {seconds} s {way} Genesys Cloud's")),
    }
}

/// Checks a host: name lookup, connection, proxy, TLS and its certificate.
pub(super) fn host(name: &'static str, url: &str, dialer: &Dialer, out: &Findings) {
    let begun = Instant::now();
    let dialled = Target::parse(url).and_then(|target| {
        let stream = dialer.dial(&target, DIAL_LIMIT)?;
        Ok((target, stream))
    });
    let (target, mut stream) = match dialled {
        Ok(dialled) => dialled,
        Err(error) => return out.problem(name, &error),
    };
    let ms = begun.elapsed().as_millis();
    let peer = stream.socket().tcp().peer_addr().map_or_else(|_| "an address".to_owned(), |peer| peer.to_string());
    let way = match dialer.proxy_for(&target) {
        Some(proxy) => format!("through the proxy {} ({peer})", proxy.name()),
        None => format!("at {peer}"),
    };
    let trust = if target.tls { "TLS certificate trusted" } else { "without TLS, on this machine" };
    out.ok(name, format_args!("{} reached {way} in {ms} ms; {trust}", target.host));
}

fn definitions(listed: Result<Vec<Definition>, ApiError>, out: &Findings) -> Option<Vec<Definition>> {
    let all = match listed {
        Ok(all) => all,
        Err(error) => {
            out.problem("definitions", &error.problem());
            return None;
        }
    };
    let ours: Vec<&str> = all.iter().map(|one| one.id.as_str()).filter(|id| id.starts_with(ID_PREFIX)).collect();
    if ours.is_empty() {
        out.bad(
            "definitions",
            format_args!("{} event definitions, none of them AudioHook's", all.len()),
            "Check that the organization has an AudioHook integration (Admin > Integrations).",
        );
    } else {
        out.ok("definitions", format_args!("{} of AudioHook ({}) among {}", ours.len(), a_few(&ours), all.len()));
    }
    Some(all)
}

/// Checks the topics; false if there are none to collect, since a file may name only topics that do not exist.
fn topics(plan: &Plan, is_from_file: bool, known: Option<&[Definition]>, out: &Findings) -> bool {
    const CURE: &str = "Fix TOPICS_FILE, such as {\"topics\":[\"v2.operations.events.AUDIOHOOK-*\"]}, or remove it to \
                        collect every AudioHook event.";
    let unknown = known.map(|known| unknown_ids(plan, known)).unwrap_or_default();
    let count = plan.topics.len() - unknown.len();
    let mut found = match count {
        0 if is_from_file => "none to collect, so history, channel and socket were not tried".to_owned(),
        count => format!("{count} to collect"),
    };
    for notice in plan.notices.iter().chain(&unknown) {
        found.push_str(&format!("; {notice}"));
    }
    if count == 0 && is_from_file {
        out.bad("topics", found, CURE);
        return false;
    }
    if unknown.is_empty() {
        out.ok("topics", found)
    } else {
        out.bad("topics", found, CURE)
    }
    true
}

/// A message for each topic that is not a definition.
fn unknown_ids(plan: &Plan, known: &[Definition]) -> Vec<String> {
    let id_of = |topic: &String| match topic.strip_prefix(TOPIC_PREFIX) {
        // Other topics of the platform are not checked.
        None if topic.starts_with("v2.") => None,
        id => Some(id.unwrap_or(topic).to_owned()),
    };
    let is_unknown = |id: &String| known.iter().all(|one| one.id != *id);
    let ids = plan.topics.iter().filter_map(id_of).filter(is_unknown);
    ids.map(|id| {
        let meant = nearest(&id, known.iter().map(|one| one.id.as_str()));
        let hint = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
        format!("{id} is not a definition{hint}")
    })
    .collect()
}

/// Checks the history by reading one page of the last hour; true if it can be read.
fn history(config: &Config, api: &mut Api, plan: &Plan, out: &Findings) -> bool {
    if plan.ids.is_empty() {
        out.ok("history", "not read: no topic is an event definition");
        return false;
    }
    let now = api.service().now();
    let page = api.query_page(None, PAGE_SIZE, &api_facts::body(now - HOUR_MS, now, &plan.ids, "ASC"));
    let rows = page.and_then(|page| {
        let not_a_page = || ApiError::invalid_response("read the history", "the response is not a page of events");
        api_facts::rows(&page).ok_or_else(|| not_a_page().with_correlation(api.correlation()))
    });
    match rows {
        Ok(rows) => {
            let hour = interval(now - HOUR_MS, now);
            out.ok(
                "history",
                format_args!("readable (usage:events:view); {} events on the first page of {hour}", rows.len()),
            );
            true
        }
        Err(error) if error.kind == Kind::TooLong => {
            out.ok("history", "readable (usage:events:view); its events are large and will be read in shorter spans");
            true
        }
        Err(error) if error.kind == Kind::Forbidden && config.genesys.delivery == Delivery::Websocket => {
            out.ok("history", format_args!("{}; not used: GENESYS_DELIVERY is websocket", error.problem().what));
            false
        }
        Err(error) => {
            out.problem("history", &error.problem());
            false
        }
    }
}

/// Lists at most the first [`NAMED_MAX`] names.
pub(super) fn a_few(names: &[&str]) -> String {
    let rest = if names.len() > NAMED_MAX { ", …" } else { "" };
    names[..names.len().min(NAMED_MAX)].join(", ") + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_is_not_a_definition_is_named_with_the_nearest() {
        let known = ["AUDIOHOOK-0001", "BOTS-0001"].map(|id| Definition { id: id.to_owned(), ..Definition::default() });
        let file = [
            "AUDIOHOK-0001",
            "v2.operations.events.AUDIOHOOK-0001",
            "v2.operations.events.NONE",
            "v2.users.x.presence",
        ];
        let plan = topics::plan(Some(&file.map(str::to_owned)), Some(&known));
        assert_eq!(
            unknown_ids(&plan, &known),
            ["AUDIOHOK-0001 is not a definition; did you mean AUDIOHOOK-0001?", "NONE is not a definition"]
        );
    }
}
