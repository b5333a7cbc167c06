//! An answer, and the bytes that tiny_http makes of it.

use std::io;
use std::str::FromStr;

use serde_json::json;
use tiny_http::{HTTPVersion, Header, Response, StatusCode};

use super::body::Body;

/// Bodies longer than this many bytes are compressed for clients that accept it.
const GZIP_FROM: usize = 1024;

/// What a route answers.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    /// Beyond those that every answer carries.
    pub headers: Vec<(&'static str, &'static str)>,
    pub body: Body,
}

pub const JSON: &str = "application/json";

impl Answer {
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Body>) -> Self {
        Self { status, content_type, headers: Vec::new(), body: body.into() }
    }

    pub fn json(status: u16, value: &impl serde::Serialize) -> Self {
        // Every value here can be written as JSON.
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

    /// The bytes on the wire, without the body where the request is HEAD.
    pub fn into_bytes(mut self, is_head: bool, accepts_gzip: bool) -> Body {
        let mut headers = vec![
            ("Server", "audiohook-collector"),
            ("Content-Type", self.content_type),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Vary", "Accept-Encoding"),
        ];
        headers.append(&mut self.headers);
        if self.body.len() > GZIP_FROM && accepts_gzip {
            self.body = self.body.gzip();
            headers.push(("Content-Encoding", "gzip"));
        }
        let headers = headers.iter().filter_map(|(name, value)| Header::from_str(&format!("{name}: {value}")).ok());
        let length = Some(self.body.len());
        let response = Response::new(StatusCode(self.status), headers.collect(), io::empty(), length, None)
            .with_chunked_threshold(usize::MAX);
        let mut head = Vec::new();
        // Writing to memory cannot fail.
        let _ = response.raw_print(&mut head, HTTPVersion(1, 1), &[], true, None);
        // There is one request a connection. tiny_http does not let an answer say so: it goes before the last line.
        head.truncate(head.len().saturating_sub(2));
        head.extend_from_slice(b"Connection: close\r\n\r\n");
        let mut whole = Body::from(head);
        if !is_head {
            whole.append(self.body);
        }
        whole
    }
}
