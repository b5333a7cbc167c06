//! The calls of Genesys Cloud's public API that the collector makes, each with the token it needs.
//!
//! Deals with: login and renewal around each call, and the shape of each answer. Must never: retry beyond the one repeat
//! after a 401, or send a token to another host than the API's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use ureq::http::Method;

use super::channel::{self, Subscription};
use super::error::{ApiError, Kind, judge};
use super::rest::{Answer, Call, Rest, ServiceClock};
use super::token::{Token, log_in};
use super::topics;
use crate::clock::{Clock, Millis, format_millis};
use crate::config::Genesys;
use crate::message::{ChannelState, Definition};
use crate::net::Dialer;
use crate::status::Beat;

/// What reading the history, its definitions and its counts needs.
pub const HISTORY_PERMISSION: &str = "usage:events:view";
/// Rows of one page of the history: the most that the service gives.
pub const PAGE_SIZE: u32 = 200;
/// A refused login is tried again no sooner than this.
const REFUSED_LOGIN_WAIT: Duration = Duration::from_secs(30);

const JSON: &str = "application/json";

/// The API, with the token of one client.
pub struct Api {
    rest: Rest,
    genesys: Genesys,
    clock: Clock,
    token: Option<Token>,
    /// A login was refused: none is tried before this.
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
            refused: None,
            correlation: None,
        }
    }

    /// Whose heartbeat rests while a request is under way.
    pub fn watch(&mut self, beat: Arc<Beat>) {
        self.rest.watch(beat);
    }

    /// The service's clock, as its answers told it.
    pub fn service(&self) -> &ServiceClock {
        &self.rest.service
    }

    /// The token, once there is one that still holds.
    pub fn token(&self) -> Option<&Token> {
        self.token.as_ref().filter(|token| token.expires_at() > self.clock.now())
    }

    /// Gets a new token; the old one stays until then.
    ///
    /// # Errors
    /// As the login says; after a refusal the same refusal for 30 s, without asking.
    pub fn log_in(&mut self) -> Result<(), ApiError> {
        let now = self.clock.now();
        if let Some((_, error)) = self.refused.as_ref().filter(|(until, _)| *until > now) {
            return Err(error.clone());
        }
        match log_in(&self.rest, &self.genesys, now) {
            Ok(token) => {
                self.refused = None;
                self.token = Some(token);
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

    /// When the next login may be tried, after one that was refused.
    pub fn refused_until(&self) -> Option<Instant> {
        self.refused.as_ref().map(|(until, _)| *until)
    }

    /// Why the last login was refused, until one works.
    pub fn refusal(&self) -> Option<&ApiError> {
        self.refused.as_ref().map(|(_, error)| error)
    }

    /// Gives the token up: the service revoked it.
    pub fn forget_token(&mut self) {
        self.token = None;
    }

    /// Sends a request with the token; on 401 once anew and once again.
    fn send(&mut self, what: &str, method: Method, path: &str, body: Option<&[u8]>) -> Result<Answer, ApiError> {
        if self.token().is_none() {
            self.log_in()?;
        }
        let answer = self.send_once(what, &method, path, body)?;
        if answer.status != 401 {
            return Ok(answer);
        }
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

    /// The answer's body where it is a success.
    fn ask(
        &mut self,
        what: &str,
        method: Method,
        path: &str,
        body: Option<&[u8]>,
        permission: Option<&str>,
    ) -> Result<String, ApiError> {
        self.correlation = None;
        let answer = self.send(what, method, path, body)?;
        self.correlation.clone_from(&answer.correlation);
        if answer.is_success() {
            return Ok(answer.body);
        }
        let error =
            judge(what, answer.status, &answer.body, answer.retry_after, self.correlation.as_deref(), permission);
        Err(error.hide(self.token.as_ref().map_or("", |token| token.authorization.expose())))
    }

    /// The vendor's correlation id of the last answer: for errors about what it held.
    pub fn correlation(&self) -> Option<&str> {
        self.correlation.as_deref()
    }

    /// An answer that is a success and makes no sense.
    fn nonsense(&self, what: &str, cause: impl std::fmt::Display) -> ApiError {
        ApiError::nonsense(what, cause).with_correlation(self.correlation())
    }

    /// All event definitions: `GET /api/v2/usage/events/definitions`.
    ///
    /// # Errors
    /// As the service says; [`Kind::Forbidden`] without [`HISTORY_PERMISSION`].
    pub fn definitions(&mut self) -> Result<Vec<Definition>, ApiError> {
        const WHAT: &str = "ask for the event definitions";
        let path = "/api/v2/usage/events/definitions";
        let body = self.ask(WHAT, Method::GET, path, None, Some(HISTORY_PERMISSION))?;
        let (definitions, odd) = understand_definitions(&body)
            .map_err(|error| self.nonsense(WHAT, format_args!("the answer lists no definitions ({error})")))?;
        if odd > 0 {
            log::warn!("{odd} of the event definitions have no id and are left out; the others are taken");
        }
        Ok(definitions)
    }

    /// How operational events may be delivered: `GET /api/v2/notifications/availabletopics`; none when it is not said.
    ///
    /// # Errors
    /// As the service says.
    pub fn transports(&mut self) -> Result<Option<Vec<String>>, ApiError> {
        const WHAT: &str = "ask for the topics' transports";
        let path = "/api/v2/notifications/availabletopics?expand=transports,requiresPermissions,permissionDetails,topicParameters";
        let body = self.ask(WHAT, Method::GET, path, None, None)?;
        topics::understand_transports(&body).map_err(|error| self.nonsense(WHAT, error))
    }

    /// Makes a channel: `POST /api/v2/notifications/channels`.
    ///
    /// # Errors
    /// As the service says.
    pub fn create_channel(&mut self) -> Result<ChannelState, ApiError> {
        let body = self.ask("make a channel", Method::POST, "/api/v2/notifications/channels", Some(b""), None)?;
        channel::understand(&body, channel::owner(&self.genesys), self.service().now())
            .map_err(|error| error.with_correlation(self.correlation()))
    }

    /// The client's channels: `GET /api/v2/notifications/channels`. One that cannot be connected to is left out.
    ///
    /// # Errors
    /// As the service says.
    pub fn channels(&mut self) -> Result<Vec<ChannelState>, ApiError> {
        #[derive(Deserialize)]
        struct Listed {
            entities: Vec<Box<RawValue>>,
        }
        const WHAT: &str = "list the channels";
        let path = "/api/v2/notifications/channels?includechannels=oauthclient";
        let body = self.ask(WHAT, Method::GET, path, None, None)?;
        // The parser's message could quote an id: only the fact is told.
        let listed: Listed =
            serde_json::from_str(&body).map_err(|_| self.nonsense(WHAT, "the answer lists no channels"))?;
        let (owner, now) = (channel::owner(&self.genesys), self.service().now());
        let understood =
            listed.entities.iter().filter_map(|one| channel::understand(one.get(), owner.clone(), now).ok());
        Ok(understood.collect())
    }

    /// Whether a channel still stands: `HEAD /api/v2/notifications/channels/{id}`.
    ///
    /// # Errors
    /// [`Kind::Gone`] when it does not; else as the service says.
    pub fn check_channel(&mut self, id: &str) -> Result<(), ApiError> {
        let path = format!("/api/v2/notifications/channels/{}", encode(id));
        self.ask("look for the channel", Method::HEAD, &path, None, None).map(drop).map_err(|error| error.hide(id))
    }

    /// Replaces a channel's subscriptions: `PUT /api/v2/notifications/channels/{id}/subscriptions`.
    ///
    /// # Errors
    /// As the service says; a topic that is rejected is no error, but told in the answer.
    pub fn subscribe(&mut self, id: &str, topics: &[String]) -> Result<Vec<Subscription>, ApiError> {
        let path = format!("/api/v2/notifications/channels/{}/subscriptions?ignoreErrors=true", encode(id));
        let body = channel::subscription_body(topics);
        let answer = self.ask("subscribe", Method::PUT, &path, Some(body.as_bytes()), None);
        let answer = answer.map_err(|error| error.hide(id))?;
        // The reason for a rejection may name the channel.
        let answer = crate::secret::hide(&answer, id);
        channel::understand_subscriptions(&answer, topics).map_err(|error| error.with_correlation(self.correlation()))
    }

    /// How many topics a channel has: `GET /api/v2/notifications/channels/{id}/subscriptions`.
    ///
    /// # Errors
    /// As the service says.
    pub fn subscription_count(&mut self, id: &str) -> Result<usize, ApiError> {
        #[derive(Deserialize)]
        struct Listed {
            entities: Vec<serde::de::IgnoredAny>,
        }
        const WHAT: &str = "look at the subscriptions";
        let path = format!("/api/v2/notifications/channels/{}/subscriptions", encode(id));
        let body = self.ask(WHAT, Method::GET, &path, None, None).map_err(|error| error.hide(id))?;
        let listed: Listed =
            serde_json::from_str(&body).map_err(|_| self.nonsense(WHAT, "the answer lists no subscriptions"))?;
        Ok(listed.entities.len())
    }

    /// Takes a channel's subscriptions away: `DELETE /api/v2/notifications/channels/{id}/subscriptions`.
    ///
    /// # Errors
    /// As the service says.
    pub fn unsubscribe(&mut self, id: &str) -> Result<(), ApiError> {
        let path = format!("/api/v2/notifications/channels/{}/subscriptions", encode(id));
        let answer = self.ask("take the subscriptions away", Method::DELETE, &path, None, None);
        answer.map(drop).map_err(|error| error.hide(id))
    }

    /// One page of the history as it came: `POST /api/v2/usage/events/query`. `cursor` is the path of a former page's
    /// `nextUri`, which [`super::history`] has checked to lead nowhere else, and which brings its size along.
    ///
    /// # Errors
    /// As the service says; [`Kind::Forbidden`] without [`HISTORY_PERMISSION`]; [`Kind::TooLong`] for a page of large
    /// events.
    pub fn query_page(&mut self, cursor: Option<&str>, page_size: u32, body: &str) -> Result<String, ApiError> {
        let first = format!("/api/v2/usage/events/query?pageSize={page_size}");
        let path = cursor.unwrap_or(&first);
        self.ask("read the history", Method::POST, path, Some(body.as_bytes()), Some(HISTORY_PERMISSION))
    }

    /// The service's own counts per definition: `POST /api/v2/usage/events/aggregates/query`.
    ///
    /// # Errors
    /// As the service says; [`Kind::Forbidden`] without [`HISTORY_PERMISSION`].
    pub fn aggregates(&mut self, from: Millis, to: Millis) -> Result<BTreeMap<String, u64>, ApiError> {
        const WHAT: &str = "ask for the counts of the history";
        let body = json!({ "interval": interval(from, to) }).to_string();
        let path = "/api/v2/usage/events/aggregates/query";
        let answer = self.ask(WHAT, Method::POST, path, Some(body.as_bytes()), Some(HISTORY_PERMISSION))?;
        understand_aggregates(&answer).map_err(|error| self.nonsense(WHAT, error))
    }

    /// The address that a `nextUri` must not leave.
    pub fn api_url(&self) -> &str {
        &self.genesys.api_url
    }
}

/// `from/to`, as the service takes intervals.
pub fn interval(from: Millis, to: Millis) -> String {
    format!("{}/{}", format_millis(from), format_millis(to))
}

/// Ids come from the service and from the state file: neither may change what the path means.
fn encode(id: &str) -> String {
    id.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
        text
    })
}

/// The definitions that are listed, and how many others are none: one that is odd must not cost the rest.
fn understand_definitions(body: &str) -> serde_json::Result<(Vec<Definition>, usize)> {
    #[derive(Deserialize)]
    struct Listed {
        entities: Vec<Box<RawValue>>,
    }
    #[derive(Deserialize)]
    struct One {
        id: String,
        name: Option<Box<RawValue>>,
        description: Option<Box<RawValue>>,
    }
    let listed: Listed = serde_json::from_str(body)?;
    let text = |value: Option<Box<RawValue>>| serde_json::from_str::<String>(value?.get()).ok();
    let understood = listed.entities.iter().filter_map(|entity| serde_json::from_str::<One>(entity.get()).ok());
    let definitions: Vec<Definition> = understood
        .filter(|one| !one.id.is_empty())
        .map(|one| Definition { id: one.id, name: text(one.name), description: text(one.description) })
        .collect();
    let odd = listed.entities.len() - definitions.len();
    Ok((definitions, odd))
}

fn understand_aggregates(body: &str) -> Result<BTreeMap<String, u64>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Counts {
        event_definition_aggregates: Vec<Count>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Count {
        event_definition: Reference,
        #[serde(default)]
        event_count: u64,
    }
    #[derive(Deserialize)]
    struct Reference {
        id: String,
    }
    let counts: Counts = serde_json::from_str(body).map_err(|error| format!("the answer holds no counts ({error})"))?;
    let mut sums = BTreeMap::new();
    for count in counts.event_definition_aggregates {
        *sums.entry(count.event_definition.id).or_insert(0) += count.event_count;
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_cannot_change_the_path() {
        assert_eq!(encode("abc-123_X"), "abc-123_X");
        assert_eq!(encode("a/../b?c"), "a%2F..%2Fb%3Fc");
    }

    #[test]
    fn an_odd_definition_costs_none_of_the_others() {
        let body = r#"{"entities":[{"name":"no id"},{"id":"AUDIOHOOK-0001","name":7,"description":"d","x":1e400},
            null,{"id":""},{"id":5},{"id":"AUDIOHOOK-0002","name":"N","description":null}]}"#;
        let (definitions, odd) = understand_definitions(body).unwrap();
        let of = |id: &str, name: Option<&str>, description: Option<&str>| Definition {
            id: id.to_owned(),
            name: name.map(str::to_owned),
            description: description.map(str::to_owned),
        };
        assert_eq!(definitions, [of("AUDIOHOOK-0001", None, Some("d")), of("AUDIOHOOK-0002", Some("N"), None)]);
        assert_eq!(odd, 4);
        assert!(understand_definitions(r#"{"entities":{}}"#).is_err());
    }

    #[test]
    fn counts_are_summed_per_definition() {
        let body = r#"{"interval":"a/b","eventDefinitionAggregates":[
            {"eventDefinition":{"id":"AUDIOHOOK-0001"},"eventCount":3},
            {"eventDefinition":{"id":"AUDIOHOOK-0002"}}]}"#;
        let counts = understand_aggregates(body).unwrap();
        assert_eq!(
            counts.into_iter().collect::<Vec<_>>(),
            [("AUDIOHOOK-0001".into(), 3), ("AUDIOHOOK-0002".into(), 0)]
        );
        assert!(understand_aggregates("{}").is_err());
    }
}
