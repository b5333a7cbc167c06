//! The head of a request.

use httparse::{EMPTY_HEADER, Error, Status};
use tiny_http::Method;

use super::answer::Answer;

/// Bytes of a head, at most.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 100;
/// The paths whose answers are long.
const LONG: [&str; 2] = ["/events", "/live"];

/// What is asked for. No route has a use for a body: it is never read.
#[derive(Debug)]
pub struct Request {
    pub method: Method,
    pub target: String,
    pub authorization: Option<String>,
    pub accepts_gzip: bool,
}

impl Request {
    /// Reads the head that begins here; `None` while it is not complete.
    ///
    /// # Errors
    /// The answer to what is no request.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, Answer> {
        let mut fields = [EMPTY_HEADER; HEADERS_MAX];
        let mut head = httparse::Request::new(&mut fields);
        match head.parse(bytes) {
            Ok(Status::Complete(length)) if length <= HEAD_BYTES_MAX => {}
            Ok(Status::Partial) if bytes.len() <= HEAD_BYTES_MAX => return Ok(None),
            Ok(_) | Err(Error::TooManyHeaders) => {
                return Err(Answer::error(
                    431,
                    "the request's head is longer than 16 KiB, or has more than 100 headers",
                ));
            }
            Err(Error::Version) => return Err(Answer::error(505, "only HTTP/1.0 and HTTP/1.1 are supported")),
            Err(_) => return Err(Answer::error(400, "this is not an HTTP/1.1 request")),
        }
        let values = |name: &'static str| {
            let named = head.headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
            named.map(|field| String::from_utf8_lossy(field.value).into_owned())
        };
        if head.version == Some(1) && values("Host").count() != 1 {
            return Err(Answer::error(400, "an HTTP/1.1 request needs one Host header"));
        }
        let target = head.path.filter(|path| path.is_ascii()).map(str::to_owned);
        match (head.method.unwrap_or_default().parse(), target) {
            (Ok(method), Some(target)) => Ok(Some(Self {
                method,
                target,
                authorization: values("Authorization").next(),
                accepts_gzip: accepts_gzip(&values("Accept-Encoding").collect::<Vec<_>>().join(",")),
            })),
            _ => Err(Answer::error(400, "the target is not ASCII; other characters are percent-encoded")),
        }
    }

    /// Whether it asks for events, which can come to megabytes.
    pub fn is_long(&self) -> bool {
        LONG.iter().any(|path| self.target.contains(path))
    }
}

/// Whether `gzip` is among the accepted codings, and not with a weight of 0.
fn accepts_gzip(accepted: &str) -> bool {
    accepted.to_ascii_lowercase().replace(' ', "").split(',').any(|coding| {
        let (name, weight) = coding.split_once(";q=").unwrap_or((coding, "1"));
        matches!(name, "gzip" | "*") && weight.parse().is_ok_and(|weight: f32| weight > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(text: &str) -> Result<bool, u16> {
        Request::parse(text.as_bytes()).map(|request| request.is_some()).map_err(|answer| answer.status)
    }

    #[test]
    fn a_head_is_complete_incomplete_or_refused() {
        let long = "a".repeat(HEAD_BYTES_MAX);
        for (text, expected) in [
            ("", Ok(false)),
            ("GET / HTTP/1.1\r\nHost: x\r\n", Ok(false)),
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", Ok(true)),
            ("GET / HTTP/1.0\r\n\r\n", Ok(true)),
            ("POST / HTTP/1.1\r\nhost:x\r\nContent-Length: 99999999999999\r\n\r\nbody", Ok(true)),
            ("GET / HTTP/1.1\r\n\r\n", Err(400)),
            ("GET / HTTP/1.1\r\nHost: x\r\nHOST: x\r\n\r\n", Err(400)),
            ("GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", Err(400)),
            ("GET /\u{e9} HTTP/1.1\r\nHost: x\r\n\r\n", Err(400)),
            ("\u{16}\u{3}\u{1}", Err(400)),
            ("GET / HTTP/2.0\r\n\r\n", Err(505)),
            (&format!("GET /{long}"), Err(431)),
            (&format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"), Err(431)),
            (&format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1)), Err(431)),
        ] {
            assert_eq!(status(text), expected, "{:?}", &text[..text.len().min(60)]);
        }
    }

    #[test]
    fn gzip_is_accepted_by_name_or_star_and_not_with_a_weight_of_0() {
        for accepted in ["gzip", "deflate, GZIP;q=0.5, br", "*", "br,gzip ; q=1"] {
            assert!(accepts_gzip(accepted), "{accepted}");
        }
        for refused in ["", "br", "gzip;q=0", "gzip;q=0.000", "identity", "gzip;q=x"] {
            assert!(!accepts_gzip(refused), "{refused}");
        }
    }
}
