//! The REST API and the login: what each call answers.
//!
//! Deals with: authorization, limits, and the documents of the public API (operational events, notifications). Must
//! never: be more lenient than the service; a client that errs must be refused here as it would be there.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::channels::{Channel, TOPICS_MAX};
use super::fault::Call;
use super::history::{Cursor, PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, Query, Side};
use super::http::{Answer, CORRELATION, Request};
use super::outbox::Out;
use super::state::{Shared, State, tell_gone};
use super::{frame, history, server, topics};
use crate::clock::format_millis;

const QUERY_URI: &str = "/api/v2/usage/events/query";

/// The answer to a request.
pub(super) fn answer(shared: &Shared, call: Call, request: &Request) -> Answer {
    let allowed: &[&str] = match call {
        Call::Token | Call::History | Call::Counts => &["POST"],
        Call::Definitions | Call::Definition | Call::AvailableTopics | Call::Handshake => &["GET"],
        Call::Channels => &["GET", "POST"],
        Call::Channel => &["HEAD"],
        Call::Subscriptions => &["GET", "PUT", "POST", "DELETE"],
        Call::Unknown => return error(404, "not.found", "The requested resource was not found."),
    };
    if !allowed.contains(&request.method.as_str()) {
        let answer = error(405, "method.not.allowed", "The method is not allowed for this resource.");
        return answer.with("Allow", allowed.join(", "));
    }
    match call {
        Call::Token => return token(shared, request),
        // A handshake that asks for no WebSocket.
        Call::Handshake => return error(400, "bad.request", "A WebSocket upgrade is required."),
        _ => {}
    }
    shared.change(|state| {
        let client = match authorize(shared, state, request) {
            Ok(client) => client,
            Err(refusal) => return refusal,
        };
        match call {
            Call::Definitions => Answer::json(200, state.definitions.to_json()),
            Call::Definition => definition(state, request),
            Call::History => history_page(shared, state, request),
            Call::Counts => counts(shared, state, request),
            Call::AvailableTopics => topics::available(state, &request.list("expand")),
            Call::Channels if request.method == "GET" => list_channels(shared, state, request, &client),
            Call::Channels => make_channel(shared, state, request, &client),
            _ => with_channel(shared, state, call, request, &client),
        }
    })
}

/// The service's error body.
pub(super) fn error(status: u16, code: &str, message: &str) -> Answer {
    let context = correlation();
    let body = json!({
        "message": message, "code": code, "status": status, "contextId": context, "details": [], "errors": [],
    });
    Answer::json(status, body).with(CORRELATION, context)
}

/// What the service would say with this status: the answer of a fault.
pub(super) fn failure(shared: &Shared, call: Call, status: u16, retry_after_s: Option<u64>) -> Answer {
    let answer = match (call, status) {
        (Call::Token, 400 | 401) => login_refused(status, "invalid_client", "client not found"),
        (Call::Handshake, 404) => error(404, "not.found", "Channel not found."),
        (_, 401) => error(401, "bad.credentials", "Invalid login credentials."),
        (Call::History | Call::Counts | Call::Definitions | Call::Definition, 403) => {
            missing(&["usage:events:view".to_owned()])
        }
        (_, 403) => missing(&["notifications:channel:add".to_owned()]),
        (_, 429) => error(429, "too.many.requests", "Rate limit exceeded the maximum."),
        (_, 503) => error(503, "service.unavailable", "The service is unavailable."),
        (_, 504) => error(504, "request.timeout", "The request timed out."),
        (_, 500..) => error(status, "internal.server.error", "The server failed to process the request."),
        _ => error(status, "bad.request", "The request was refused."),
    };
    let limit = shared.lock().faults.knobs.requests_per_minute;
    let answer = if status == 429 { rate_headers(answer, limit) } else { answer };
    match retry_after_s {
        Some(seconds) => answer.with("Retry-After", seconds),
        None => answer,
    }
}

pub(super) fn correlation() -> String {
    server::correlation_id()
}

/// 403, with the permissions that are missing.
fn missing(permissions: &[String]) -> Answer {
    let message = format!(
        "Unable to perform the requested action. You are missing the following permission(s): {}",
        permissions.join(", ")
    );
    error(403, "missing.any.permissions", &message)
}

fn login_refused(status: u16, error: &str, description: &str) -> Answer {
    Answer::json(status, json!({"error": error, "description": description, "error_description": description}))
}

fn rate_headers(answer: Answer, limit: Option<u32>) -> Answer {
    match limit {
        Some(limit) => answer.with("inin-ratelimit-allowed", limit),
        None => answer,
    }
}

fn token(shared: &Shared, request: &Request) -> Answer {
    shared.change(|state| {
        let life = state.faults.knobs.token_life;
        let now = shared.clock.now();
        match state.tokens.grant(request.header("authorization"), &request.body, life, now) {
            Ok(text) => {
                state.counts.tokens_granted += 1;
                let body = json!({"access_token": text, "token_type": "bearer", "expires_in": life.as_secs()});
                Answer::json(200, body).with("Cache-Control", "no-store")
            }
            Err(refused) => login_refused(refused.status, refused.error, refused.description),
        }
    })
}

/// The client whose token the request carries, counted against its limit.
fn authorize(shared: &Shared, state: &mut State, request: &Request) -> Result<String, Answer> {
    let now = shared.clock.now();
    let client = state
        .tokens
        .check(request.header("authorization"), now)
        .map_err(|dead| error(401, dead.code(), dead.message()))?;
    if let Some(limit) = state.faults.knobs.requests_per_minute {
        state.tokens.count(&client, limit, now).map_err(|seconds| {
            let message = format!("Rate limit exceeded the maximum. Retry the request in [{seconds}] seconds");
            rate_headers(error(429, "too.many.requests", &message), Some(limit)).with("Retry-After", seconds)
        })?;
    }
    Ok(client)
}

fn bad(message: &str) -> Answer {
    error(400, "bad.request", message)
}

fn definition(state: &State, request: &Request) -> Answer {
    let id = super::tokens::percent_decoded(request.path.rsplit('/').next().unwrap_or_default());
    match state.definitions.find(&id) {
        Some(definition) => Answer::json(200, definition.to_json()),
        None => error(404, "not.found", "The requested event definition was not found."),
    }
}

fn history_page(shared: &Shared, state: &mut State, request: &Request) -> Answer {
    match read_history(shared, state, request) {
        Ok(answer) => answer,
        Err(message) => bad(&message),
    }
}

fn read_history(shared: &Shared, state: &mut State, request: &Request) -> Result<Answer, String> {
    let size = match request.parameter("pageSize") {
        None => PAGE_SIZE_DEFAULT,
        Some(text) => {
            let size = text.parse().ok().filter(|size| (1..=PAGE_SIZE_MAX).contains(size));
            size.ok_or_else(|| format!("pageSize must be between 1 and {PAGE_SIZE_MAX}"))?
        }
    };
    let query = Query::parse(&request.body)?;
    let now = shared.running_ms();
    let knobs = &mut state.faults.knobs;
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
    let life = knobs.cursor_life.as_millis() as u64;
    let mut expired = |cursor: &Cursor| super::fault::spend(&mut knobs.cursors_to_expire) || now > cursor.minted + life;
    let mut cursor = |text: String| -> Result<Cursor, String> {
        let cursor = Cursor::parse(&text, &query).ok_or("The cursor is not valid for this query")?;
        if expired(&cursor) { Err("The cursor has expired".to_owned()) } else { Ok(cursor) }
    };
    let side = match (request.parameter("after"), request.parameter("before")) {
        (None, None) => Side::First,
        (Some(text), None) => Side::After(cursor(text)?),
        (None, Some(text)) => Side::Before(cursor(text)?),
        (Some(_), Some(_)) => return Err("after and before exclude each other".to_owned()),
    };
    let oldest = shared.service_now(state) - history::KEPT_MS;
    let mut page = state.history.page(&query, side, size, now, state.faults.knobs.interval_end_included, oldest);
    if !page.rows.is_empty() && super::fault::spend(&mut state.faults.knobs.pages_to_repeat) {
        page.after = Some(match side {
            Side::After(cursor) => cursor,
            _ => query.start(now),
        });
    }
    let mut body = b"{\"entities\":[".to_vec();
    for (at, (created, event)) in page.rows.iter().enumerate() {
        if at > 0 {
            body.push(b',');
        }
        event.push_row(*created, &mut body);
    }
    body.push(b']');
    for (name, side, cursor) in [("nextUri", "after", page.after), ("previousUri", "before", page.before)] {
        if let Some(cursor) = cursor {
            let text = cursor.to_text();
            body.extend_from_slice(format!(",\"{name}\":\"{QUERY_URI}?{side}={text}&pageSize={size}\"").as_bytes());
        }
    }
    body.extend_from_slice(format!(",\"selfUri\":{}}}", Value::from(request.target())).as_bytes());
    Ok(Answer { status: 200, headers: Vec::new(), body })
}

fn counts(shared: &Shared, state: &mut State, request: &Request) -> Answer {
    let mut query = match Query::parse(&request.body) {
        Ok(query) => query,
        Err(message) => return bad(&message),
    };
    // This call takes an interval alone.
    query.ids.clear();
    let oldest = shared.service_now(state) - history::KEPT_MS;
    let included = state.faults.knobs.interval_end_included;
    let counts = state.history.counts(&query, shared.running_ms(), included, oldest);
    let aggregates: Vec<Value> = counts
        .into_iter()
        .map(|(id, count)| {
            let uri = format!("/api/v2/usage/events/definitions/{id}");
            json!({"eventDefinition": {"id": id, "selfUri": uri}, "eventCount": count})
        })
        .collect();
    let interval = format!("{}/{}", format_millis(query.from), format_millis(query.to));
    Answer::json(200, json!({"interval": interval, "eventDefinitionAggregates": aggregates}))
}

/// The channel as the API shows it; its addresses lead where the request came from.
fn channel_json(shared: &Shared, state: &State, channel: &Channel, request: &Request) -> Value {
    let scheme = if shared.tls.is_some() { "wss" } else { "ws" };
    let authority = request.header("host").filter(|host| !host.is_empty()).unwrap_or(&shared.authority);
    let age = shared.clock.now().duration_since(channel.renewed).as_millis() as i64;
    let life = state.faults.knobs.channel_life.as_millis() as i64;
    json!({
        "id": channel.id,
        "connectUri": format!("{scheme}://{authority}/channels/{}", channel.id),
        "expires": format_millis(shared.service_now(state) + life - age),
    })
}

fn bearer(request: &Request) -> &str {
    request.header("authorization").and_then(|header| header.split_once(' ')).map_or("", |(_, token)| token.trim())
}

fn make_channel(shared: &Shared, state: &mut State, request: &Request, client: &str) -> Answer {
    shared.expire_channels(state);
    let (id, evicted) = state.channels.make(client, bearer(request), shared.clock.now());
    if let Some(evicted) = evicted {
        tell_gone(&evicted);
    }
    match state.channels.iter().find(|channel| channel.id == id) {
        Some(channel) => Answer::json(200, channel_json(shared, state, channel, request)),
        None => failure(shared, Call::Channels, 500, None),
    }
}

fn list_channels(shared: &Shared, state: &mut State, request: &Request, client: &str) -> Answer {
    shared.expire_channels(state);
    let own = state.channels.iter().filter(|channel| is_own(state, channel, request, client));
    let entities: Vec<Value> = own.map(|channel| channel_json(shared, state, channel, request)).collect();
    Answer::json(200, json!({"entities": entities}))
}

fn is_own(state: &State, channel: &Channel, request: &Request, client: &str) -> bool {
    channel.client == client && (!state.faults.knobs.channels_belong_to_token || channel.token == bearer(request))
}

/// `HEAD channels/{id}`, and its subscriptions.
fn with_channel(shared: &Shared, state: &mut State, call: Call, request: &Request, client: &str) -> Answer {
    shared.expire_channels(state);
    let id = request.path.split('/').nth(5).unwrap_or_default().to_owned();
    let there = state.channels.iter().any(|channel| channel.id == id && is_own(state, channel, request, client));
    if !there {
        return error(404, "not.found", "Channel not found.");
    }
    let now = shared.clock.now();
    if let Some(channel) = state.channels.find(&id) {
        channel.used = now;
    }
    match (call, request.method.as_str()) {
        (Call::Channel, _) => Answer { status: 200, headers: Vec::new(), body: Vec::new() },
        (_, "GET") => {
            let topics = state.channels.find(&id).map(|channel| channel.topics.clone()).unwrap_or_default();
            let entities: Vec<Value> = topics.iter().map(|id| json!({"id": id, "state": "Permitted"})).collect();
            Answer::json(200, json!({"entities": entities}))
        }
        (_, "DELETE") => {
            if let Some(channel) = state.channels.find(&id) {
                channel.topics.clear();
            }
            Answer { status: 204, headers: Vec::new(), body: Vec::new() }
        }
        _ => subscribe(shared, state, &id, request),
    }
}

/// `PUT` replaces the topics, `POST` adds to them; either begins the channel's life anew.
fn subscribe(shared: &Shared, state: &mut State, id: &str, request: &Request) -> Answer {
    let asked = match asked_topics(&request.body) {
        Ok(asked) => asked,
        Err(refusal) => return refusal,
    };
    let ignore_errors = request.parameter("ignoreErrors").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let verdicts: Vec<(String, topics::Verdict)> =
        asked.iter().map(|topic| (topic.clone(), topics::judge(state, topic))).collect();
    if !ignore_errors {
        for (topic, verdict) in &verdicts {
            if let topics::Verdict::Rejected { reason, missing: permissions } = verdict {
                return if permissions.is_empty() {
                    bad(&format!("Topic {topic}: {reason}"))
                } else {
                    missing(permissions)
                };
            }
        }
    }
    let permitted = verdicts.iter().filter(|(_, verdict)| matches!(verdict, topics::Verdict::Permitted));
    let mut wanted: BTreeSet<String> = permitted.map(|(topic, _)| topic.clone()).collect();
    let now = shared.clock.now();
    let Some(channel) = state.channels.find(id) else { return failure(shared, Call::Channel, 404, None) };
    if request.method == "POST" {
        wanted.extend(channel.topics.iter().cloned());
    }
    if wanted.len() > TOPICS_MAX {
        return too_many_topics();
    }
    channel.topics = wanted;
    channel.renewed = now;
    if let Some(socket) = &channel.socket {
        socket.put(Out::Bytes(frame::text("{\"result\":\"200\",\"status\":\"subscribed\"}")));
    }
    let entities: Vec<Value> = verdicts.iter().map(|(topic, verdict)| verdict.to_json(topic)).collect();
    Answer::json(200, json!({"entities": entities}))
}

fn too_many_topics() -> Answer {
    error(400, "too.many.topics", &format!("A channel may have {TOPICS_MAX} topics at most."))
}

/// The ids of a bare array of objects; anything around it is refused, and so are too many, whatever they are.
fn asked_topics(body: &[u8]) -> Result<Vec<String>, Answer> {
    let body: Value = serde_json::from_slice(body).map_err(|e| bad(&format!("The request body is not JSON: {e}")))?;
    let list = body.as_array().ok_or_else(|| bad("The request body must be an array of topics"))?;
    if list.len() > TOPICS_MAX {
        return Err(too_many_topics());
    }
    let mut asked: Vec<String> = Vec::with_capacity(list.len());
    for topic in list {
        let id = topic.get("id").and_then(Value::as_str);
        let id = id.ok_or_else(|| bad("Each topic must be an object with an id"))?;
        if !asked.iter().any(|other| other == id) {
            asked.push(id.to_owned());
        }
    }
    Ok(asked)
}
