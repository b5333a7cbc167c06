//! HTTP/1.1 as the service speaks it: requests in, answers out.
//!
//! Deals with: heads, bodies by length or in chunks, the headers that every answer carries. Must never: know what a
//! path means.

use std::io::{self, Read, Write};

use time::OffsetDateTime;

use crate::clock::Millis;

const HEAD_BYTES_MAX: usize = 64 * 1024;
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
const HEADERS_MAX: usize = 64;

/// The header that names an answer, for the vendor's support to find it by.
pub(super) const CORRELATION: &str = "ININ-Correlation-Id";

/// A request, whole.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// Names and values, undecoded.
    pub query: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether the connection stays open after the answer.
    pub keep_alive: bool,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The first value of this name.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.values(name).next()
    }

    /// A list: its items stand between commas, or each in a parameter of its own, as clients like it.
    pub fn list(&self, name: &str) -> Vec<String> {
        self.values(name)
            .flat_map(|value| value.split(',').map(|item| item.trim().to_owned()).collect::<Vec<_>>())
            .collect()
    }

    fn values(&self, name: &str) -> impl Iterator<Item = String> {
        self.query.split('&').filter_map(move |pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then(|| super::tokens::percent_decoded(value))
        })
    }

    /// Path and query, as they came.
    pub fn target(&self) -> String {
        if self.query.is_empty() { self.path.clone() } else { format!("{}?{}", self.path, self.query) }
    }
}

/// An answer, before the headers that all have in common.
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

    /// Adds a header; one of the headers that every answer carries is replaced.
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    /// The bytes on the wire. `head_only`: the answer to HEAD, which has the length but not the body.
    pub fn to_bytes(&self, now: Millis, correlation: &str, keep_alive: bool, head_only: bool) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        if self.status != 204 {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        let says = |name: &str| self.headers.iter().any(|(own, _)| *own == name);
        if !says("Date") {
            head.push_str(&format!("Date: {}\r\n", http_date(now)));
        }
        if !says(CORRELATION) {
            head.push_str(&format!("{CORRELATION}: {correlation}\r\n"));
        }
        if !says("Content-Type") && !self.body.is_empty() {
            head.push_str("Content-Type: application/json\r\n");
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(if keep_alive { "Connection: keep-alive\r\n\r\n" } else { "Connection: close\r\n\r\n" });
        let mut bytes = head.into_bytes();
        if !head_only {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

/// Reads the next request; what follows it stays in `buffer`. `None` when the connection ends between two requests.
///
/// # Errors
/// A connection that breaks or times out in a request, and bytes that are no request.
pub(super) fn read_request(stream: &mut (impl Read + Write), buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let mut request = loop {
        if let Some(request) = take_head(buffer)? {
            break request;
        }
        if buffer.len() > HEAD_BYTES_MAX {
            return Err(invalid("the head is too long"));
        }
        if fill(stream, buffer)? == 0 {
            return if buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    };
    if request.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let chunked = request.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    if chunked {
        request.body = read_chunks(stream, buffer)?;
    } else if let Some(length) = request.header("content-length") {
        let length: usize = length.trim().parse().map_err(|_| invalid("Content-Length is no number"))?;
        request.body = read_exactly(stream, buffer, length)?;
    }
    Ok(Some(request))
}

/// Takes a whole head out of the buffer.
fn take_head(buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    let length = match head.parse(buffer) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(e) => return Err(invalid(&e.to_string())),
    };
    let target = head.path.unwrap_or("/");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers: Vec<(String, String)> = head
        .headers
        .iter()
        .map(|header| (header.name.to_owned(), String::from_utf8_lossy(header.value).trim().to_owned()))
        .collect();
    let mut request = Request {
        method: head.method.unwrap_or("").to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body: Vec::new(),
        keep_alive: head.version == Some(1),
    };
    if request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
        request.keep_alive = false;
    }
    buffer.drain(..length);
    Ok(Some(request))
}

fn read_exactly(stream: &mut impl Read, buffer: &mut Vec<u8>, length: usize) -> io::Result<Vec<u8>> {
    if length > BODY_BYTES_MAX {
        return Err(invalid("the body is too long"));
    }
    while buffer.len() < length {
        if fill(stream, buffer)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(buffer.drain(..length).collect())
}

fn read_chunks(stream: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(stream, buffer)?;
        let size = line.split(';').next().unwrap_or("").trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| invalid("a chunk's size is no number"))?;
        if size == 0 {
            while !read_line(stream, buffer)?.is_empty() {}
            return Ok(body);
        }
        if body.len() + size > BODY_BYTES_MAX {
            return Err(invalid("the body is too long"));
        }
        body.extend(read_exactly(stream, buffer, size)?);
        read_exactly(stream, buffer, 2)?;
    }
}

fn read_line(stream: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<String> {
    loop {
        if let Some(at) = buffer.windows(2).position(|pair| pair == b"\r\n") {
            let line: Vec<u8> = buffer.drain(..at + 2).collect();
            return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
        }
        if buffer.len() > HEAD_BYTES_MAX || fill(stream, buffer)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn fill(stream: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let mut bytes = [0; 8192];
    let read = stream.read(&mut bytes)?;
    buffer.extend_from_slice(&bytes[..read]);
    Ok(read)
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_owned())
}

/// `Mon, 23 Nov 2026 10:30:45 GMT`.
pub fn http_date(ms: Millis) -> String {
    const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let at = OffsetDateTime::from_unix_timestamp(ms.div_euclid(1000)).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    format!(
        "{}, {:02} {} {} {:02}:{:02}:{:02} GMT",
        DAYS[usize::from(at.weekday().number_days_from_monday())],
        at.day(),
        MONTHS[usize::from(u8::from(at.month())) - 1],
        at.year(),
        at.hour(),
        at.minute(),
        at.second()
    )
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its bytes one at a time, as a slow network does.
    struct Slowly<'a>(&'a [u8], Vec<u8>);

    impl Read for Slowly<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let Some((first, rest)) = self.0.split_first() else { return Ok(0) };
            out[0] = *first;
            self.0 = rest;
            Ok(1)
        }
    }

    impl Write for Slowly<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn two_requests_on_one_connection_are_told_apart() {
        let bytes = b"POST /a?x=1%2B1&y HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcPUT /b HTTP/1.1\r\n\
            Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n2;x=y\r\nde\r\n1\r\nf\r\n0\r\n\r\n";
        let (mut stream, mut buffer) = (Slowly(bytes, Vec::new()), Vec::new());
        let first = read_request(&mut stream, &mut buffer).unwrap().unwrap();
        assert_eq!((first.method.as_str(), first.path.as_str(), &first.body[..]), ("POST", "/a", &b"abc"[..]));
        assert_eq!(first.parameter("x").as_deref(), Some("1+1"));
        assert!(first.keep_alive);
        let second = read_request(&mut stream, &mut buffer).unwrap().unwrap();
        assert_eq!((second.path.as_str(), &second.body[..], second.keep_alive), ("/b", &b"def"[..], false));
        assert!(read_request(&mut stream, &mut buffer).unwrap().is_none());
    }

    #[test]
    fn what_is_no_request_is_an_error() {
        for bytes in [&b"GET /\r\n\r\n"[..], b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"GET / HT"] {
            assert!(read_request(&mut Slowly(bytes, Vec::new()), &mut Vec::new()).is_err());
        }
    }

    #[test]
    fn the_date_reads_back() {
        for ms in [0, 951_782_400_000, 1_795_430_645_000] {
            assert_eq!(crate::clock::parse_http_date(&http_date(ms)), Some(ms));
        }
        assert_eq!(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
