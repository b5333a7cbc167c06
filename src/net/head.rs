//! Reads the head of an HTTP response without the HTTP client: a proxy's response to CONNECT and a server's response to
//! the WebSocket handshake.

use std::io::{self, Read};

use ureq::http::{HeaderMap, HeaderName, HeaderValue};

/// Maximum bytes of all heads, including those of informational responses.
const HEAD_BYTES_MAX: u64 = 16 * 1024;
const HEADERS_MAX: usize = 100;

/// The head of the final response.
#[derive(Debug)]
pub struct Head {
    pub status: u16,
    pub headers: HeaderMap,
}

/// Reads up to the end of the final response's head, byte by byte, so that nothing after it is consumed. Skips
/// informational responses (1xx except 101).
///
/// # Errors
/// When the connection ends or times out, or when the response is too long or not HTTP.
pub fn read_head(stream: impl Read) -> io::Result<Head> {
    let mut stream = stream.take(HEAD_BYTES_MAX);
    let mut byte = [0];
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && !head.ends_with(b"\n\n") {
            if stream.read(&mut byte)? == 0 {
                return Err(io::Error::other(
                    "the connection was closed before the end of the response, or the response is too long",
                ));
            }
            head.push(byte[0]);
        }
        let head = parse(&head).ok_or_else(|| io::Error::other("the response is not HTTP"))?;
        if head.status == 101 || !(100..200).contains(&head.status) {
            return Ok(head);
        }
    }
}

fn parse(bytes: &[u8]) -> Option<Head> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut fields);
    answer.parse(bytes).ok()?;
    let mut headers = HeaderMap::new();
    for field in answer.headers.iter() {
        headers.append(HeaderName::try_from(field.name).ok()?, HeaderValue::from_bytes(field.value).ok()?);
    }
    Some(Head { status: answer.code?, headers })
}

/// A header's value, if it is text.
pub fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    Some(headers.get(name)?.to_str().ok()?.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_final_head_is_returned_and_nothing_after_it_is_read() {
        let answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 101 Switching\r\nA: b \r\n\r\nrest";
        let mut stream = &answer[..];
        let head = read_head(&mut stream).unwrap();
        assert_eq!((head.status, header(&head.headers, "a"), stream), (101, Some("b"), &b"rest"[..]));
        for wrong in ["", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 100 Continue\r\n\r\n"] {
            assert!(read_head(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let endless = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(10_000);
        assert!(read_head(&endless[..]).is_err());
    }
}
