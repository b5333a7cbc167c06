//! A plain client of the simulated service, for the tests of the service itself.

use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use audiohook_collector::simulator::Simulator;
use data_encoding::BASE64;
use serde_json::Value;
use tungstenite::{Message, WebSocket};

use super::SOON;
use super::collector::credentials;

/// One answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub text: String,
    /// Null when the body is no JSON.
    pub json: Value,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Speaks REST with a token of its own.
pub struct Client {
    agent: ureq::Agent,
    url: String,
    pub token: String,
}

impl Client {
    /// Without a token.
    pub fn new(sim: &Simulator) -> Self {
        Self::at(&sim.url())
    }

    /// Without a token, of the service at this address.
    pub fn at(url: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .allow_non_standard_methods(true)
            .timeout_global(Some(SOON))
            .build();
        Self { agent: ureq::Agent::new_with_config(config), url: url.to_owned(), token: String::new() }
    }

    /// With a token of the usual credentials.
    pub fn logged_in(sim: &Simulator) -> Self {
        let mut client = Self::new(sim);
        let (id, secret) = credentials();
        let answer = client.login(&id, &secret, "grant_type=client_credentials").unwrap();
        client.token = answer.json["access_token"].as_str().unwrap().to_owned();
        client
    }

    pub fn login(&self, id: &str, secret: &str, form: &str) -> Result<Answer, ureq::Error> {
        let basic = format!("Basic {}", BASE64.encode(format!("{id}:{secret}").as_bytes()));
        let request = ureq::http::Request::builder()
            .method("POST")
            .uri(format!("{}/oauth/token", self.url))
            .header("Authorization", basic)
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(form.to_owned());
        self.run(request.unwrap())
    }

    /// A call with the token; an empty body is none.
    pub fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        self.try_call(method, path, body).unwrap()
    }

    pub fn try_call(&self, method: &str, path: &str, body: &str) -> Result<Answer, ureq::Error> {
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.url));
        if !self.token.is_empty() {
            request = request.header("Authorization", format!("Bearer {}", self.token));
        }
        if body.is_empty() && method != "POST" {
            return self.finish(self.agent.run(request.body(()).unwrap())?);
        }
        self.run(request.header("Content-Type", "application/json").body(body.to_owned()).unwrap())
    }

    fn run(&self, request: ureq::http::Request<String>) -> Result<Answer, ureq::Error> {
        self.finish(self.agent.run(request)?)
    }

    fn finish(&self, mut answer: ureq::http::Response<ureq::Body>) -> Result<Answer, ureq::Error> {
        let text = answer.body_mut().read_to_string()?;
        Ok(Answer {
            status: answer.status().as_u16(),
            headers: answer.headers().clone(),
            json: serde_json::from_str(&text).unwrap_or_default(),
            text,
        })
    }

    /// Makes a channel: its id and its `connectUri`.
    pub fn channel(&self) -> (String, String) {
        let made = self.call("POST", "/api/v2/notifications/channels", "").json;
        (made["id"].as_str().unwrap().to_owned(), made["connectUri"].as_str().unwrap().to_owned())
    }

    /// Replaces a channel's topics.
    pub fn subscribe(&self, channel: &str, topics: &[&str]) -> Answer {
        let list: Vec<Value> = topics.iter().map(|id| serde_json::json!({"id": id})).collect();
        let path = format!("/api/v2/notifications/channels/{channel}/subscriptions?ignoreErrors=true");
        self.call("PUT", &path, &Value::from(list).to_string())
    }

    /// A page of the history.
    pub fn history(&self, path_and_query: &str, body: &Value) -> Answer {
        self.call("POST", path_and_query, &body.to_string())
    }
}

/// A WebSocket, plain.
pub struct Socket(WebSocket<TcpStream>);

/// What a socket brought.
#[derive(Debug, PartialEq)]
pub enum Heard {
    Message(Message),
    Ended,
    Nothing,
}

impl Socket {
    /// Opens it; the HTTP status of a refused handshake.
    pub fn open(uri: &str) -> Result<Self, u16> {
        let authority = uri.strip_prefix("ws://").unwrap().split('/').next().unwrap();
        let tcp = TcpStream::connect_timeout(&authority.parse().unwrap(), SOON).unwrap();
        tcp.set_read_timeout(Some(SOON)).unwrap();
        match tungstenite::client(uri, tcp) {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(answer))) => {
                Err(answer.status().as_u16())
            }
            Err(e) => panic!("cannot open {uri}: {e}"),
        }
    }

    pub fn send(&mut self, message: Message) {
        self.0.send(message).unwrap();
    }

    /// The next message, at most this long.
    pub fn hear(&mut self, limit: Duration) -> Heard {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Heard::Nothing;
            }
            self.0.get_ref().set_read_timeout(Some(left)).unwrap();
            match self.0.read() {
                Ok(message) => return Heard::Message(message),
                Err(tungstenite::Error::Io(e)) if matches!(e.kind(), io::ErrorKind::WouldBlock) => {}
                Err(_) => return Heard::Ended,
            }
        }
    }

    /// The next text, which must come soon, as JSON.
    pub fn hear_json(&mut self) -> Value {
        match self.hear(SOON) {
            Heard::Message(Message::Text(text)) => serde_json::from_str(&text).unwrap(),
            other => panic!("no text came: {other:?}"),
        }
    }

    /// The next frame of an event, whatever else comes before it.
    pub fn hear_event(&mut self) -> Value {
        loop {
            let frame = self.hear_json();
            if frame["topicName"].as_str().is_some_and(|topic| topic.starts_with("v2.operations.events.")) {
                return frame;
            }
        }
    }

    /// Reads on until it ends, which must come soon.
    pub fn hear_end(&mut self) {
        loop {
            match self.hear(SOON) {
                Heard::Ended => return,
                Heard::Message(_) => {}
                Heard::Nothing => panic!("the socket is still open"),
            }
        }
    }
}
