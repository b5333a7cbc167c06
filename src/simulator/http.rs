//! The service's HTTP/1.1: reads requests and formats answers.

use std::io::{self, BufRead, Read};
use std::time::{Duration, UNIX_EPOCH};

use percent_encoding::percent_decode_str;
use ureq::http::StatusCode;

use crate::clock::Millis;

const HEAD_BYTES_MAX: u64 = 64 * 1024;
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
const HEADERS_MAX: usize = 64;

/// The header with an answer's id, which the vendor's support asks for.
pub(super) const CORRELATION: &str = "ININ-Correlation-Id";

/// A complete request.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// Names and values, not decoded.
    pub query: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Whether the header's comma-separated list contains this word.
    pub(super) fn header_has(&self, name: &str, word: &str) -> bool {
        self.header(name).is_some_and(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word)))
    }

    /// The first value of this query parameter.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.values(name).next()
    }

    /// All values of this query parameter.
    pub(super) fn values(&self, name: &str) -> impl Iterator<Item = String> {
        form_pairs(&self.query).filter(move |(key, _)| key == name).map(|(_, value)| value)
    }

    /// Path and query, as received.
    pub fn target(&self) -> String {
        if self.query.is_empty() { self.path.clone() } else { format!("{}?{}", self.path, self.query) }
    }
}

/// The decoded names and values of a query or form.
pub(super) fn form_pairs(text: &str) -> impl Iterator<Item = (String, String)> {
    let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    text.split('&').map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    })
}

/// An answer without the headers common to all answers.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(status: u16, body: impl ToString) -> Self {
        Self { status, headers: Vec::new(), body: body.to_string().into_bytes() }
    }

    pub(super) fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    /// Adds a header; it replaces a common header of that name.
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    /// Formats the answer. `head_only`: for HEAD, with the body's length but without the body.
    pub(super) fn to_bytes(&self, now: Millis, correlation: &str, keep_alive: bool, head_only: bool) -> Vec<u8> {
        let reason = StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason());
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason.unwrap_or("Status"));
        let usual = [
            ("Date", Some(http_date(now))),
            (CORRELATION, Some(correlation.to_owned())),
            ("Content-Length", (self.status != 204).then(|| self.body.len().to_string())),
            ("Content-Type", (!self.body.is_empty()).then(|| "application/json".to_owned())),
            ("Connection", Some(if keep_alive { "keep-alive" } else { "close" }.to_owned())),
        ];
        let usual = usual.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let own = |name: &str| self.headers.iter().any(|(own, _)| *own == name);
        for (name, value) in usual.filter(|(name, _)| !own(name)).chain(self.headers.iter().cloned()) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let body = if head_only { &[][..] } else { &self.body };
        [head.as_bytes(), b"\r\n", body].concat()
    }
}

/// Reads the next request. `None` if the connection ends between two requests.
///
/// # Errors
/// When the connection fails or times out within a request, or the bytes are not a valid request.
pub(super) fn read_request(stream: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let read = stream.take(HEAD_BYTES_MAX).read_until(b'\n', &mut bytes)?;
        match read {
            0 if bytes.is_empty() => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ if bytes.len() as u64 > HEAD_BYTES_MAX => return Err(invalid("the head is too long")),
            _ => {}
        }
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    head.parse(&bytes).map_err(|e| invalid(&e.to_string()))?;
    let target = head.path.unwrap_or("/");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let text = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
    let mut request = Request {
        method: head.method.unwrap_or("").to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: head.headers.iter().map(|header| (header.name.to_owned(), text(header.value))).collect(),
        body: Vec::new(),
    };
    if request.header("transfer-encoding").is_some() {
        return Err(invalid("a body needs a Content-Length"));
    }
    let length = request.header("content-length").unwrap_or("0").parse().ok();
    let length = length.filter(|length| *length <= BODY_BYTES_MAX).ok_or_else(|| invalid("Content-Length is wrong"))?;
    request.body = vec![0; length];
    stream.read_exact(&mut request.body)?;
    Ok(Some(request))
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_owned())
}

/// `Mon, 23 Nov 2026 10:30:45 GMT`.
pub fn http_date(ms: Millis) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(ms.max(0) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_requests_on_one_connection_are_read_separately() {
        let mut bytes = &b"POST /a?x=1%2B1&y HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcPUT /b HTTP/1.1\r\n\r\n"[..];
        let first = read_request(&mut bytes).unwrap().unwrap();
        assert_eq!((first.method.as_str(), first.path.as_str(), &first.body[..]), ("POST", "/a", &b"abc"[..]));
        assert_eq!(first.parameter("x").as_deref(), Some("1+1"));
        let second = read_request(&mut bytes).unwrap().unwrap();
        assert_eq!((second.path.as_str(), second.body.len()), ("/b", 0));
        assert!(read_request(&mut bytes).unwrap().is_none());
    }

    #[test]
    fn malformed_requests_are_errors() {
        for mut bytes in [&b"GET /\r\n\r\n"[..], b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"GET / HT"] {
            assert!(read_request(&mut bytes).is_err());
        }
    }
}
