//! The calls of Genesys Cloud's public API that the collector makes, each with the token it needs.
//!
//! Logs in and renews the token around each call, and parses each answer. Must never: retry more than once after a 401,
//! or send a token to a host other than the API's.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::json;
use serde_json::value::RawValue;
use ureq::http::Method;

use super::channel::{self, Subscription};
use super::error::{ApiError, Kind, judge};
use super::rest::{Answer, Call, Rest};
use super::service_clock::ServiceClock;
use super::token::{Token, log_in};
use super::topics;
use crate::clock::{Clock, Millis, format_millis};
use crate::config::Genesys;
use crate::message::{ChannelState, Definition};
use crate::net::Dialer;
use crate::status::Beat;

/// Permission to read the history, its definitions and its counts.
pub const HISTORY_PERMISSION: &str = "usage:events:view";
/// Rows per page of the history: the service's maximum.
pub const PAGE_SIZE: u32 = 200;
/// Minimum wait before a refused login is tried again.
const REFUSED_LOGIN_WAIT: Duration = Duration::from_secs(30);

const JSON: &str = "application/json";
const CHANNELS: &str = "/api/v2/notifications/channels";

/// The channels of a client.
#[derive(Debug, Default)]
pub struct Channels {
    /// Number of listed channels; channels of other tokens are listed without their ids.
    pub count: usize,
    /// Channels that can be connected to.
    pub usable: Vec<ChannelState>,
}

/// The API, with the token of one client.
pub struct Api {
    rest: Rest,
    genesys: Genesys,
    clock: Clock,
    token: Option<Token>,
    /// Number of tokens obtained so far.
    tokens: u64,
    /// The last login was refused: no login is tried before this time.
    refused: Option<(Instant, ApiError)>,
    /// The correlation id of the last answer.
    correlation: Option<String>,
}

impl Api {
    pub fn new(genesys: &Genesys, dialer: Arc<Dialer>, clock: Clock) -> Self {
        Self {
            rest: Rest::new(dialer, clock.clone()),
            genesys: genesys.clone(),
            clock,
            token: None,
            tokens: 0,
            refused: None,
            correlation: None,
        }
    }

    /// Sets the heartbeat that rests while a request is in progress.
    pub fn watch(&mut self, beat: Arc<Beat>) {
        self.rest.watch(beat);
    }

    /// The service's clock, learned from its answers.
    pub fn service(&self) -> &ServiceClock {
        &self.rest.service
    }

    /// The token, if it is still valid.
    pub fn token(&self) -> Option<&Token> {
        self.token.as_ref().filter(|token| token.expires_at() > self.clock.now())
    }

    /// Number of the current token: 1, 2, 3, … A channel belongs to the token that it was last subscribed with.
    pub fn token_number(&self) -> u64 {
        self.tokens
    }

    /// Gets a new token; the old token stays until then.
    ///
    /// # Errors
    /// The login's error; after a refusal, the same error for 30 s without a request.
    pub fn log_in(&mut self) -> Result<(), ApiError> {
        let now = self.clock.now();
        if let Some((_, error)) = self.refused.as_ref().filter(|(until, _)| *until > now) {
            return Err(error.clone());
        }
        match log_in(&self.rest, &self.genesys, now) {
            Ok(token) => {
                self.refused = None;
                self.token = Some(token);
                self.tokens += 1;
                Ok(())
            }
            Err(error) => {
                if error.kind == Kind::Credentials {
                    self.refused = Some((self.clock.now() + REFUSED_LOGIN_WAIT, error.clone()));
                }
                Err(error)
            }
        }
    }

    /// When the next login may be tried, after a refused login.
    pub fn refused_until(&self) -> Option<Instant> {
        self.refused.as_ref().map(|(until, _)| *until)
    }

    /// Why the last login was refused, until a login succeeds.
    pub fn refusal(&self) -> Option<&ApiError> {
        self.refused.as_ref().map(|(_, error)| error)
    }

    /// Drops the token, because the service revoked it.
    pub fn forget_token(&mut self) {
        self.token = None;
    }

    /// Sends a request with the token. After a 401, logs in again and repeats the request once.
    fn send(&mut self, what: &str, method: Method, path: &str, body: Option<&[u8]>) -> Result<Answer, ApiError> {
        if self.token().is_none() {
            self.log_in()?;
        }
        let answer = self.send_once(what, &method, path, body)?;
        if answer.status != 401 {
            return Ok(answer);
        }
        self.token = None;
        self.log_in()?;
        self.send_once(what, &method, path, body)
    }

    fn send_once(&self, what: &str, method: &Method, path: &str, body: Option<&[u8]>) -> Result<Answer, ApiError> {
        let Some(token) = self.token.as_ref() else {
            return Err(ApiError::new(Kind::Unauthorized, what, "there is no token"));
        };
        let url = format!("{}{path}", self.genesys.api_url);
        let body = body.map(|body| (JSON, body));
        self.rest.send(&Call { what, method: method.clone(), url: &url, authorization: &token.authorization, body })
    }

    /// Sends a request and returns the body of a successful answer.
    fn ask(&mut self, what: &str, method: Method, path: &str, body: Option<&[u8]>) -> Result<String, ApiError> {
        self.correlation = None;
        let answer = self.send(what, method, path, body)?;
        self.correlation.clone_from(&answer.correlation);
        if answer.is_success() {
            return Ok(answer.body);
        }
        let permission = path.starts_with("/api/v2/usage/").then_some(HISTORY_PERMISSION);
        let error = judge(what, answer.status, &answer.body, answer.retry_after, permission);
        let sent = self.token.as_ref().map_or("", |token| token.authorization.expose());
        Err(error.hide(sent).with_correlation(self.correlation()))
    }

    /// The elements of a list in an answer, if there is one.
    fn elements<T: DeserializeOwned>(&self, what: &str, answer: &str, list: &str) -> Result<Vec<T>, ApiError> {
        // The parser's message could quote a channel's id.
        elements(answer, list).map_err(|_| self.invalid_response(what, "the answer is not the API's"))
    }

    /// The vendor's correlation id of the last answer, for errors about its content.
    pub fn correlation(&self) -> Option<&str> {
        self.correlation.as_deref()
    }

    /// The error for a successful answer with invalid content.
    fn invalid_response(&self, what: &str, cause: impl std::fmt::Display) -> ApiError {
        ApiError::invalid_response(what, cause).with_correlation(self.correlation())
    }

    /// All event definitions, at least one: `GET /api/v2/usage/events/definitions`.
    ///
    /// # Errors
    /// The service's error; [`Kind::Forbidden`] without [`HISTORY_PERMISSION`]; [`Kind::InvalidResponse`] for an answer
    /// without definitions.
    pub fn definitions(&mut self) -> Result<Vec<Definition>, ApiError> {
        const WHAT: &str = "fetch the event definitions";
        let body = self.ask(WHAT, Method::GET, "/api/v2/usage/events/definitions", None)?;
        let definitions = understand_definitions(&body);
        if definitions.is_empty() {
            return Err(self.invalid_response(WHAT, "the answer lists no definitions"));
        }
        Ok(definitions)
    }

    /// The error for a list of definitions without any of AudioHook's.
    pub fn no_audiohook_definitions(&self) -> ApiError {
        ApiError::new(Kind::InvalidResponse, "fetch the event definitions", "the list has no AudioHook definition")
            .with_cure("Check that the organization has an AudioHook integration (Admin > Integrations).")
            .with_correlation(self.correlation())
    }

    /// Transports of operational events: `GET /api/v2/notifications/availabletopics`; `None` if the answer has none.
    ///
    /// # Errors
    /// The service's error.
    pub fn transports(&mut self) -> Result<Option<Vec<String>>, ApiError> {
        const WHAT: &str = "fetch the topics' transports";
        let path = "/api/v2/notifications/availabletopics?expand=transports,requiresPermissions,permissionDetails,topicParameters";
        let body = self.ask(WHAT, Method::GET, path, None)?;
        topics::understand_transports(&body).map_err(|error| self.invalid_response(WHAT, error))
    }

    /// Creates a channel: `POST /api/v2/notifications/channels`.
    ///
    /// # Errors
    /// The service's error.
    pub fn create_channel(&mut self) -> Result<ChannelState, ApiError> {
        let body = self.ask("create a channel", Method::POST, CHANNELS, Some(b""))?;
        channel::understand(&body, channel::owner(&self.genesys), self.service().now())
            .map_err(|error| error.with_correlation(self.correlation()))
    }

    /// The client's channels: `GET /api/v2/notifications/channels`.
    ///
    /// # Errors
    /// The service's error.
    pub fn channels(&mut self) -> Result<Channels, ApiError> {
        const WHAT: &str = "list the channels";
        let body = self.ask(WHAT, Method::GET, &format!("{CHANNELS}?includechannels=oauthclient"), None)?;
        let listed: Vec<Box<RawValue>> = self.elements(WHAT, &body, "entities")?;
        let (owner, now) = (channel::owner(&self.genesys), self.service().now());
        let usable = listed.iter().filter_map(|one| channel::understand(one.get(), owner.clone(), now).ok());
        Ok(Channels { count: listed.len(), usable: usable.collect() })
    }

    /// Whether a channel still exists: `HEAD /api/v2/notifications/channels/{id}`.
    ///
    /// # Errors
    /// [`Kind::Gone`] if it does not; otherwise the service's error.
    pub fn check_channel(&mut self, id: &str) -> Result<(), ApiError> {
        let path = format!("{CHANNELS}/{}", encode(id));
        self.ask("look for the channel", Method::HEAD, &path, None).map(drop).map_err(|error| error.hide(id))
    }

    /// Subscribes a channel to these topics, replacing the topics it had (PUT) or in addition to them (POST):
    /// `/api/v2/notifications/channels/{id}/subscriptions`.
    ///
    /// # Errors
    /// The service's error. A rejected or unconfirmed topic is not an error; the result reports it.
    pub fn subscribe(&mut self, id: &str, topics: &[String], method: Method) -> Result<Vec<Subscription>, ApiError> {
        const WHAT: &str = "subscribe";
        let path = format!("{}?ignoreErrors=true", subscriptions_of(id));
        let body = channel::subscription_body(topics);
        let answer = self.ask(WHAT, method, &path, Some(body.as_bytes())).map_err(|error| error.hide(id))?;
        // The reason for a rejection may name the channel.
        let answer = self.elements(WHAT, &crate::secret::hide(&answer, id), "entities")?;
        Ok(channel::judge_subscriptions(&answer, topics))
    }

    /// Number of a channel's topics: `GET /api/v2/notifications/channels/{id}/subscriptions`.
    ///
    /// # Errors
    /// The service's error.
    pub fn subscription_count(&mut self, id: &str) -> Result<usize, ApiError> {
        const WHAT: &str = "look at the subscriptions";
        let body = self.ask(WHAT, Method::GET, &subscriptions_of(id), None).map_err(|error| error.hide(id))?;
        Ok(self.elements::<IgnoredAny>(WHAT, &body, "entities")?.len())
    }

    /// Removes a channel's subscriptions: `DELETE /api/v2/notifications/channels/{id}/subscriptions`.
    ///
    /// # Errors
    /// The service's error.
    pub fn unsubscribe(&mut self, id: &str) -> Result<(), ApiError> {
        let answer = self.ask("take the subscriptions away", Method::DELETE, &subscriptions_of(id), None);
        answer.map(drop).map_err(|error| error.hide(id))
    }

    /// One page of the history, unparsed: `POST /api/v2/usage/events/query`. `cursor` is the path of an earlier page's
    /// `nextUri`. It includes the page size, and [`super::history`] has checked that it leads to the same host.
    ///
    /// # Errors
    /// The service's error; [`Kind::Forbidden`] without [`HISTORY_PERMISSION`]; [`Kind::TooLong`] for a page of large
    /// events.
    pub fn query_page(&mut self, cursor: Option<&str>, page_size: u32, body: &str) -> Result<String, ApiError> {
        let first = format!("/api/v2/usage/events/query?pageSize={page_size}");
        let path = cursor.unwrap_or(&first);
        self.ask("read the history", Method::POST, path, Some(body.as_bytes()))
    }

    /// The service's own counts per definition: `POST /api/v2/usage/events/aggregates/query`.
    ///
    /// # Errors
    /// The service's error; [`Kind::Forbidden`] without [`HISTORY_PERMISSION`].
    pub fn aggregates(&mut self, from: Millis, to: Millis) -> Result<BTreeMap<String, u64>, ApiError> {
        const WHAT: &str = "ask for the counts of the history";
        let body = json!({ "interval": interval(from, to) }).to_string();
        let path = "/api/v2/usage/events/aggregates/query";
        let answer = self.ask(WHAT, Method::POST, path, Some(body.as_bytes()))?;
        Ok(sum(self.elements(WHAT, &answer, "eventDefinitionAggregates")?))
    }

    /// The API's base address, which a `nextUri` must not leave.
    pub fn api_url(&self) -> &str {
        &self.genesys.api_url
    }
}

/// `from/to`, the service's format for intervals.
pub fn interval(from: Millis, to: Millis) -> String {
    format!("{}/{}", format_millis(from), format_millis(to))
}

/// Ids come from the service and from the state file. They must not change the meaning of the path.
fn encode(id: &str) -> PercentEncode<'_> {
    const KEPT: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(id, &KEPT)
}

fn subscriptions_of(id: &str) -> String {
    format!("{CHANNELS}/{}/subscriptions", encode(id))
}

/// The elements of a list in an answer. Everything in an answer is optional: a missing list counts as empty, and an
/// element of another form is left out.
fn elements<T: DeserializeOwned>(body: &str, name: &str) -> serde_json::Result<Vec<T>> {
    if body.trim().is_empty() {
        return Ok(Vec::new());
    }
    let fields: HashMap<String, Box<RawValue>> = serde_json::from_str(body)?;
    let list = fields.get(name).and_then(|list| serde_json::from_str::<Vec<Box<RawValue>>>(list.get()).ok());
    Ok(list.unwrap_or_default().iter().filter_map(|one| serde_json::from_str(one.get()).ok()).collect())
}

/// Parses the definitions in an answer; a malformed definition does not affect the others.
fn understand_definitions(body: &str) -> Vec<Definition> {
    #[derive(Deserialize)]
    struct One {
        id: String,
        name: Option<Box<RawValue>>,
        description: Option<Box<RawValue>>,
    }
    let text = |value: Option<Box<RawValue>>| serde_json::from_str::<String>(value?.get()).ok();
    let listed: Vec<One> = elements(body, "entities").unwrap_or_default();
    listed
        .into_iter()
        .map(|one| Definition {
            id: canonical(one.id.trim()),
            name: text(one.name),
            description: text(one.description),
        })
        .filter(|one| !one.id.is_empty())
        .collect()
}

/// AudioHook ids in upper case, whatever the spelling in an answer: the history is queried by this spelling.
fn canonical(id: &str) -> String {
    if topics::is_audiohook_id(id) { id.to_ascii_uppercase() } else { id.to_owned() }
}

/// One count of the service.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Count {
    event_definition: Reference,
    event_count: Option<u64>,
}

#[derive(Deserialize)]
struct Reference {
    id: String,
}

fn sum(counts: Vec<Count>) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for count in counts {
        *sums.entry(canonical(&count.event_definition.id)).or_insert(0) += count.event_count.unwrap_or(0);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_cannot_change_the_path() {
        assert_eq!(encode("abc-123_X").to_string(), "abc-123_X");
        assert_eq!(encode("a/../b?c").to_string(), "a%2F..%2Fb%3Fc");
    }

    #[test]
    fn an_odd_definition_costs_none_of_the_others() {
        let body = r#"{"entities":[{"name":"no id"},{"id":"AUDIOHOOK-0001","name":7,"description":"d","x":1e400},
            null,{"id":""},{"id":5},{"id":"AUDIOHOOK-0002","name":"N","description":null}]}"#;
        let of = |id: &str, name: Option<&str>, description: Option<&str>| Definition {
            id: id.to_owned(),
            name: name.map(str::to_owned),
            description: description.map(str::to_owned),
        };
        assert_eq!(
            understand_definitions(body),
            [of("AUDIOHOOK-0001", None, Some("d")), of("AUDIOHOOK-0002", Some("N"), None)]
        );
        for none in ["", "<html>", "[]", "null", "{}", r#"{"entities":{}}"#, r#"{"entities":null}"#] {
            assert_eq!(understand_definitions(none), [], "{none}");
        }
    }

    #[test]
    fn counts_are_summed_per_definition() {
        let body = r#"{"interval":"a/b","eventDefinitionAggregates":[
            {"eventDefinition":{"id":"AUDIOHOOK-0001"},"eventCount":3},{"eventCount":9},null,
            {"eventDefinition":{"id":"AUDIOHOOK-0001"},"eventCount":1},
            {"eventDefinition":{"id":"AUDIOHOOK-0002"},"eventCount":null}]}"#;
        let counts = |body| elements(body, "eventDefinitionAggregates").map(sum);
        assert_eq!(
            counts(body).unwrap().into_iter().collect::<Vec<_>>(),
            [("AUDIOHOOK-0001".into(), 4), ("AUDIOHOOK-0002".into(), 0)]
        );
        for none in ["{}", r#"{"eventDefinitionAggregates":null}"#, r#"{"eventDefinitionAggregates":[]}"#] {
            assert_eq!(counts(none).unwrap(), BTreeMap::new(), "{none}");
        }
        assert!(counts("<html>").is_err());
    }
}
