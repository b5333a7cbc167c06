//! The REST API and the login: the answer to each call.
//!
//! Must never: be more lenient than the real service. It must reject every request that the service rejects.

use std::collections::BTreeSet;
use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::StatusCode;

use super::channels::{Channel, TOPICS_MAX};
use super::definitions::{list_json, self_uri};
use super::event::uuid;
use super::fault::{Call, Rejection, spend};
use super::frame;
use super::history::{self, PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, Query, Sight};
use super::http::{Answer, CORRELATION, Request};
use super::outbox::Out;
use super::state::{Shared, State};
use super::tokens::{random, strip_scheme};
use super::topics;
use crate::clock::format_millis;

/// A successful answer or an error answer.
type Answered = Result<Answer, Answer>;

/// Answers a request.
pub(super) fn answer(shared: &Shared, request: &Request) -> Answer {
    let call = Call::of(&request.path);
    let methods = call.methods();
    if call == Call::Unknown {
        return error(404, "not.found", "The requested resource was not found.");
    }
    if !methods.contains(&request.method.as_str()) {
        let answer = error(405, "method.not.allowed", "The method is not allowed for this resource.");
        return answer.with("Allow", methods.join(", "));
    }
    let answered = shared.change(|state| match call {
        Call::Token => Ok(token(state, request)),
        // A handshake without a WebSocket upgrade.
        Call::Handshake => Err(bad("A WebSocket upgrade is required.")),
        _ => authorized(shared, state, call, request),
    });
    answered.unwrap_or_else(|refusal| refusal)
}

fn authorized(shared: &Shared, state: &mut State, call: Call, request: &Request) -> Answered {
    let client = authorize(state, request)?;
    match call {
        Call::Definitions => Ok(Answer::json(200, list_json(&state.definitions, &state.gone))),
        Call::History => history_page(shared, state, request).map_err(|message| bad(&message)),
        Call::Counts => counts(shared, state, request).map_err(|message| bad(&message)),
        Call::AvailableTopics => Ok(topics::available(state, &request.values("expand").collect::<Vec<_>>().join(","))),
        Call::Channels if request.method == "POST" => {
            state.expire_channels();
            state.channels.make(&client, bearer(request));
            let made = state.channels.list.last().map(|channel| channel_json(shared, state, channel, request));
            Ok(Answer::json(200, made.unwrap_or_default()))
        }
        Call::Channels => {
            state.expire_channels();
            let own = state.channels.list.iter().filter(|channel| is_own(state, channel, request, &client));
            let entities: Vec<Value> = own.map(|channel| channel_json(shared, state, channel, request)).collect();
            Ok(Answer::json(200, json!({"entities": entities})))
        }
        _ => with_channel(state, call, request, &client),
    }
}

/// The service's error body.
pub(super) fn error(status: u16, code: &str, message: &str) -> Answer {
    let context = correlation_id();
    let body = json!({
        "message": message, "code": code, "status": status, "contextId": context, "details": [], "errors": [],
    });
    Answer::json(status, body).with(CORRELATION, context)
}

/// The service's usual answer with this status, for an injected fault.
pub(super) fn failure(shared: &Shared, call: Call, status: u16, retry_after_s: Option<u64>) -> Answer {
    let answer = match (call, status) {
        (Call::Token, 400 | 401) => login_refused(status, "invalid_client", "client not found"),
        (Call::Handshake, 404) => error(404, "not.found", "Channel not found."),
        (_, 401) => error(401, "bad.credentials", "Invalid login credentials."),
        (Call::History | Call::Counts | Call::Definitions, 403) => missing(&["usage:events:view"]),
        (_, 403) => missing(&["notifications:channel:add"]),
        (_, 429) => throttled(shared.lock().knobs.requests_per_minute, "Rate limit exceeded the maximum."),
        _ => {
            let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
            let reason = reason.unwrap_or("Unknown");
            error(status, &reason.to_lowercase().replace(' ', "."), reason)
        }
    };
    match retry_after_s {
        Some(seconds) => answer.with("Retry-After", seconds),
        None => answer,
    }
}

/// A new correlation id; every answer has one.
pub(super) fn correlation_id() -> String {
    uuid(random())
}

/// 403 with the missing permissions.
fn missing(permissions: &[&str]) -> Answer {
    let names = permissions.join(", ");
    let message = "Unable to perform the requested action. You are missing the following permission(s)";
    error(403, "missing.any.permissions", &format!("{message}: {names}"))
}

fn bad(message: &str) -> Answer {
    error(400, "bad.request", message)
}

fn throttled(limit: Option<u32>, message: &str) -> Answer {
    let answer = error(429, "too.many.requests", message);
    match limit {
        Some(limit) => answer.with("inin-ratelimit-allowed", limit),
        None => answer,
    }
}

fn login_refused(status: u16, error: &str, description: &str) -> Answer {
    Answer::json(status, json!({"error": error, "description": description, "error_description": description}))
}

fn token(state: &mut State, request: &Request) -> Answer {
    let life = state.knobs.token_life;
    match state.tokens.grant(request.header("authorization"), &request.body, life) {
        Ok(text) => {
            state.counts.tokens_granted += 1;
            let body = json!({"access_token": text, "token_type": "bearer", "expires_in": life.as_secs()});
            Answer::json(200, body).with("Cache-Control", "no-store")
        }
        Err((status, error, description)) => login_refused(status, error, description),
    }
}

/// Returns the client of the request's token and counts the request against the client's limit.
fn authorize(state: &mut State, request: &Request) -> Result<String, Answer> {
    let client = state.tokens.check(request.header("authorization"));
    let client = client.map_err(|(code, message)| error(401, code, message))?;
    if let Some(limit) = state.knobs.requests_per_minute {
        state.tokens.count(&client, limit, Instant::now()).map_err(|seconds| {
            let message = format!("Rate limit exceeded the maximum. Retry the request in [{seconds}] seconds");
            throttled(Some(limit), &message).with("Retry-After", seconds)
        })?;
    }
    Ok(client)
}

fn sight(shared: &Shared, state: &State) -> Sight {
    let oldest = state.now() - history::KEPT_MS;
    Sight { now: shared.running_ms(), end_included: state.knobs.interval_end_included, oldest }
}

fn history_page(shared: &Shared, state: &mut State, request: &Request) -> Result<Answer, String> {
    let size = request.parameter("pageSize").map_or(Some(PAGE_SIZE_DEFAULT), |text| text.parse().ok());
    let size = size.filter(|size| (1..=PAGE_SIZE_MAX).contains(size));
    let size = size.ok_or_else(|| format!("pageSize must be between 1 and {PAGE_SIZE_MAX}"))?;
    let query = Query::parse(&request.body)?;
    let sight = sight(shared, state);
    let knobs = &mut state.knobs;
    if let Some(longest) = knobs.history_span_max
        && (query.to - query.from) as u128 > longest.as_millis()
    {
        return Err(format!("The interval may not span more than {} seconds", longest.as_secs()));
    }
    if let Some(most) = knobs.history_ids_max
        && query.ids.len() > most
    {
        return Err(format!("No more than {most} eventDefinitionIds are allowed"));
    }
    let cursor = request.parameter("after");
    if cursor.is_some() && spend(&mut knobs.cursors_to_expire) {
        return Err("The cursor has expired".to_owned());
    }
    let place = |cursor: String| query.place_of(&cursor).ok_or("The cursor is not valid for this query");
    let after = cursor.map(place).transpose()?;
    let (rows, mut next) = state.history.page(&query, after, size, sight);
    if !rows.is_empty() && spend(&mut state.knobs.pages_to_repeat) {
        next = after.or(Some(query.start()));
    }
    let mut body = b"{\"entities\":[".to_vec();
    for (at, (created, event)) in rows.iter().enumerate() {
        body.extend_from_slice(if at > 0 { b"," } else { b"" });
        event.push_row(*created, &mut body);
    }
    body.push(b']');
    if let Some(place) = next {
        let uri = format!("{}?after={}&pageSize={size}", request.path, query.cursor(place));
        body.extend_from_slice(format!(",\"nextUri\":{}", Value::from(uri)).as_bytes());
    }
    body.extend_from_slice(format!(",\"selfUri\":{}}}", Value::from(request.target())).as_bytes());
    Ok(Answer { body, ..Answer::empty(200) })
}

fn counts(shared: &Shared, state: &State, request: &Request) -> Result<Answer, String> {
    // This call takes only an interval.
    let mut query = Query::parse(&request.body)?;
    query.ids.clear();
    let count = |(id, count)| {
        let definition = json!({"id": id, "selfUri": self_uri(id)});
        json!({"eventDefinition": definition, "eventCount": count})
    };
    let aggregates: Vec<Value> = state.history.counts(&query, sight(shared, state)).into_iter().map(count).collect();
    let interval = format!("{}/{}", format_millis(query.from), format_millis(query.to));
    Ok(Answer::json(200, json!({"interval": interval, "eventDefinitionAggregates": aggregates})))
}

/// The channel as the API returns it. Its `connectUri` has the host of the request.
fn channel_json(shared: &Shared, state: &State, channel: &Channel, request: &Request) -> Value {
    let scheme = if shared.tls.is_some() { "wss" } else { "ws" };
    let authority = request.header("host").filter(|host| !host.is_empty()).unwrap_or(&shared.authority);
    let left = state.knobs.channel_life.saturating_sub(channel.renewed.elapsed());
    json!({
        "id": channel.id,
        "connectUri": format!("{scheme}://{authority}/channels/{}", channel.id),
        "expires": format_millis(state.now() + left.as_millis() as i64),
    })
}

fn bearer(request: &Request) -> &str {
    request.header("authorization").and_then(|header| strip_scheme(header, "bearer")).unwrap_or_default()
}

fn is_own(state: &State, channel: &Channel, request: &Request, client: &str) -> bool {
    channel.client == client && (!state.knobs.channels_belong_to_token || channel.token == bearer(request))
}

/// `HEAD channels/{id}`, and its subscriptions.
fn with_channel(state: &mut State, call: Call, request: &Request, client: &str) -> Answered {
    state.expire_channels();
    let id = request.path.split('/').nth(5).unwrap_or_default();
    let mut all = state.channels.list.iter();
    let there = all.any(|channel| channel.id == id && is_own(state, channel, request, client));
    let channel = state.channels.find(id).filter(|_| there);
    let channel = channel.ok_or_else(|| error(404, "not.found", "Channel not found."))?;
    channel.used = Instant::now();
    match (call, request.method.as_str()) {
        (Call::Channel, _) => Ok(Answer::empty(200)),
        (_, "GET") => {
            let entities: Vec<Value> = channel.topics.iter().map(|topic| topic_json(topic, None)).collect();
            Ok(Answer::json(200, json!({"entities": entities})))
        }
        (_, "DELETE") => {
            channel.topics.clear();
            Ok(Answer::empty(204))
        }
        _ => subscribe(state, id, request),
    }
}

/// `PUT` replaces the topics, `POST` adds to them; both restart the channel's lifetime.
fn subscribe(state: &mut State, id: &str, request: &Request) -> Answered {
    let asked = asked_topics(&request.body)?;
    let verdicts: Vec<(String, Option<Rejection>)> =
        asked.into_iter().map(|topic| (topic.clone(), topics::rejection(state, &topic))).collect();
    let ignores_errors = request.parameter("ignoreErrors").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    if let Some((topic, Some(rejection))) =
        verdicts.iter().find(|(_, rejection)| rejection.is_some() && !ignores_errors)
    {
        let permissions: Vec<&str> = rejection.missing_permissions.iter().map(String::as_str).collect();
        let is_invalid = permissions.is_empty();
        return Err(if is_invalid {
            bad(&format!("Topic {topic}: {}", rejection.reason))
        } else {
            missing(&permissions)
        });
    }
    let channel = state.channels.find(id).ok_or_else(|| error(404, "not.found", "Channel not found."))?;
    let permitted = verdicts.iter().filter(|(_, rejection)| rejection.is_none());
    let mut wanted: BTreeSet<String> = permitted.map(|(topic, _)| topic.clone()).collect();
    if request.method == "POST" {
        wanted.extend(channel.topics.iter().cloned());
    }
    if wanted.len() > TOPICS_MAX {
        return Err(too_many_topics());
    }
    channel.topics = wanted;
    channel.renewed = Instant::now();
    if let Some(socket) = &channel.socket {
        socket.put(Out::Bytes(frame::text("{\"result\":\"200\",\"status\":\"subscribed\"}")));
    }
    let entities: Vec<Value> =
        verdicts.iter().map(|(topic, rejection)| topic_json(topic, rejection.as_ref())).collect();
    Ok(Answer::json(200, json!({"entities": entities})))
}

fn topic_json(topic: &str, rejection: Option<&Rejection>) -> Value {
    let Some(rejection) = rejection else { return json!({"id": topic, "state": "Permitted"}) };
    let mut entity = json!({"id": topic, "state": "Rejected", "rejectionReason": rejection.reason});
    if !rejection.missing_permissions.is_empty() {
        entity["missingPermissions"] = json!(rejection.missing_permissions);
    }
    entity
}

fn too_many_topics() -> Answer {
    error(400, "too.many.topics", &format!("A channel may have {TOPICS_MAX} topics at most."))
}

#[derive(Deserialize)]
struct Topic {
    id: String,
}

/// Parses a bare array of objects with ids, without duplicates. Rejects any other body, and arrays that are too long.
fn asked_topics(body: &[u8]) -> Result<Vec<String>, Answer> {
    let list: Vec<Topic> =
        serde_json::from_slice(body).map_err(|e| bad(&format!("The request body is not an array of topics: {e}")))?;
    if list.len() > TOPICS_MAX {
        return Err(too_many_topics());
    }
    let mut seen = BTreeSet::new();
    Ok(list.into_iter().map(|topic| topic.id).filter(|id| seen.insert(id.clone())).collect())
}
