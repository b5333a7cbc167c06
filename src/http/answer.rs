//! A response, and how tiny_http sends it.

use std::str::FromStr;

use serde_json::json;
use tiny_http::{Header, Request, Response, StatusCode};

use super::body::Body;

/// Bodies longer than this many bytes are compressed for clients that accept it.
const GZIP_FROM: usize = 1024;

/// The response of a route.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    /// In addition to the headers of every response.
    pub headers: Vec<(&'static str, &'static str)>,
    pub body: Body,
}

pub const JSON: &str = "application/json";

impl Answer {
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Body>) -> Self {
        Self { status, content_type, headers: Vec::new(), body: body.into() }
    }

    pub fn json(status: u16, value: &impl serde::Serialize) -> Self {
        // Serializing cannot fail: no caller passes a map with keys other than strings.
        Self::new(status, JSON, serde_json::to_vec(value).unwrap_or_default())
    }

    /// `{"error": …}`.
    pub fn error(status: u16, what: &str) -> Self {
        Self::json(status, &json!({ "error": what }))
    }

    pub fn with(mut self, header: &'static str, value: &'static str) -> Self {
        self.headers.push((header, value));
        self
    }

    /// Sends the response, without its body for a HEAD request.
    pub fn send(mut self, request: Request) {
        let mut headers = vec![
            ("Server", "audiohook-collector"),
            ("Content-Type", self.content_type),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Vary", "Accept-Encoding"),
        ];
        headers.append(&mut self.headers);
        if self.body.len() > GZIP_FROM && accepts_gzip(&request) {
            self.body = self.body.gzip();
            headers.push(("Content-Encoding", "gzip"));
        }
        let headers = headers.iter().filter_map(|(name, value)| Header::from_str(&format!("{name}: {value}")).ok());
        let length = self.body.len();
        let response = Response::new(StatusCode(self.status), headers.collect(), self.body, Some(length), None)
            .with_chunked_threshold(usize::MAX);
        if let Err(error) = request.respond(response) {
            log::debug!("cannot send an HTTP response: {error}");
        }
    }
}

/// The value of the request's first header with this name.
pub fn header<'r>(request: &'r Request, name: &'static str) -> Option<&'r str> {
    request.headers().iter().find(|header| header.field.equiv(name)).map(|header| header.value.as_str())
}

/// Whether the client accepts `gzip` with a weight above 0.
fn accepts_gzip(request: &Request) -> bool {
    let accepted = header(request, "Accept-Encoding").unwrap_or_default().to_ascii_lowercase().replace(' ', "");
    accepted.split(',').any(|coding| {
        let (name, weight) = coding.split_once(";q=").unwrap_or((coding, "1"));
        matches!(name, "gzip" | "*") && weight.parse().is_ok_and(|weight: f32| weight > 0.0)
    })
}
