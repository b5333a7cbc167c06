//! An answer, and the bytes that tiny_http makes of it.

use std::io::{self, Write};
use std::str::FromStr;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use tiny_http::{HTTPVersion, Header, Response, StatusCode};

/// Bodies longer than this many bytes are compressed for clients that accept it.
const GZIP_FROM: usize = 1024;

/// What a route answers.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    /// Beyond those that every answer carries.
    pub headers: Vec<(&'static str, &'static str)>,
    pub body: Vec<u8>,
}

pub const JSON: &str = "application/json";

impl Answer {
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
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
    pub fn into_bytes(mut self, is_head: bool, accepts_gzip: bool) -> Vec<u8> {
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
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            // Writing to memory cannot fail, here and below.
            let _ = encoder.write_all(&self.body);
            self.body = encoder.finish().unwrap_or_default();
            headers.push(("Content-Encoding", "gzip"));
        }
        let headers = headers.iter().filter_map(|(name, value)| Header::from_str(&format!("{name}: {value}")).ok());
        let length = Some(self.body.len());
        let response = Response::new(StatusCode(self.status), headers.collect(), io::empty(), length, None)
            .with_chunked_threshold(usize::MAX);
        let mut bytes = Vec::new();
        let _ = response.raw_print(&mut bytes, HTTPVersion(1, 1), &[], true, None);
        // There is one request a connection. tiny_http does not let an answer say so: it goes before the last line.
        bytes.truncate(bytes.len().saturating_sub(2));
        bytes.extend_from_slice(b"Connection: close\r\n\r\n");
        if !is_head {
            bytes.append(&mut self.body);
        }
        bytes
    }
}
