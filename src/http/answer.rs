//! An answer, and the bytes it becomes.
//!
//! Deals with: the headers that every answer carries, and printing them through tiny_http. Must never: send a body
//! without its length, or one to HEAD.

use std::collections::VecDeque;
use std::io;
use std::str::FromStr;

use serde_json::json;
use tiny_http::{HTTPVersion, Header, Response, StatusCode};

use super::body::Body;

/// What a route answers.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    /// Beyond those that every answer carries.
    pub headers: Vec<(&'static str, String)>,
    pub body: Body,
}

pub const JSON: &str = "application/json";

impl Answer {
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Body>) -> Self {
        Self { status, content_type, headers: Vec::new(), body: body.into() }
    }

    /// A document; a value that cannot be written as JSON does not exist here.
    pub fn json(status: u16, value: &impl serde::Serialize) -> Self {
        Self::new(status, JSON, serde_json::to_vec(value).unwrap_or_default())
    }

    /// `{"error": …}`.
    pub fn error(status: u16, what: &str) -> Self {
        Self::json(status, &json!({ "error": what }))
    }

    pub fn with(mut self, header: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((header, value.into()));
        self
    }

    /// The head and the body's pieces as they go over the wire. `minor` is the client's HTTP/1 version.
    pub fn print(self, minor: u8, without_body: bool, keep_alive: bool) -> VecDeque<Vec<u8>> {
        let mut response = Response::new(StatusCode(self.status), Vec::new(), io::empty(), Some(self.body.len()), None)
            .with_chunked_threshold(usize::MAX);
        let always = [
            ("Server", "audiohook-collector"),
            ("Content-Type", self.content_type),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
        ];
        let own = self.headers.iter().map(|(name, value)| (*name, value.as_str()));
        for (name, value) in always.into_iter().chain(own) {
            if let Ok(header) = Header::from_str(&format!("{name}: {value}")) {
                response.add_header(header);
            }
        }
        let mut head = Vec::with_capacity(512);
        // Writing to memory cannot fail.
        let _ = response.raw_print(&mut head, HTTPVersion(1, minor), &[], true, None);
        // tiny_http keeps `Connection` to itself, and does not know that the connection is ours to close.
        let connection: &[u8] = match (keep_alive, minor) {
            (false, _) => b"Connection: close\r\n",
            (true, 0) => b"Connection: keep-alive\r\n",
            (true, _) => b"",
        };
        let end = head.len().saturating_sub(2);
        head.splice(end..end, connection.iter().copied());
        let mut pieces = if without_body { VecDeque::new() } else { self.body.into_pieces() };
        pieces.push_front(head);
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_says_its_length_and_kind() {
        let mut pieces = Answer::error(404, "none \"here\"").with("Allow", "GET").print(1, false, false);
        let head = String::from_utf8(pieces.pop_front().unwrap()).unwrap();
        assert!(head.starts_with("HTTP/1.1 404 Not Found\r\n"), "{head}");
        assert!(head.ends_with("\r\nConnection: close\r\n\r\n"), "{head}");
        for line in [
            "Content-Type: application/json",
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            "Referrer-Policy: no-referrer",
            "Server: audiohook-collector",
            "Allow: GET",
            "Content-Length: 25",
        ] {
            assert_eq!(head.matches(&format!("\r\n{line}\r\n")).count(), 1, "{line} in {head}");
        }
        assert_eq!(pieces, [br#"{"error":"none \"here\""}"#.to_vec()]);
    }

    #[test]
    fn head_has_the_length_and_not_the_body() {
        let large = Answer::new(200, JSON, vec![b'1'; 100_000]);
        let mut pieces = large.print(0, true, true);
        let head = String::from_utf8(pieces.pop_front().unwrap()).unwrap();
        assert!(head.contains("Content-Length: 100000\r\n") && head.contains("Connection: keep-alive\r\n"), "{head}");
        assert!(pieces.is_empty());
    }
}
