//! The head of a request: where it ends, and whether it is one.
//!
//! Deals with: the bytes that a client sent, of any kind. Must never: let through what tiny_http would refuse or
//! misread, for that ends the connection to it.

/// Bytes of a request's head, at most.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a request's body, at most; no route wants one, and what comes is read and thrown away.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// What is kept of a head: all that any route looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub method: String,
    /// The path and the query, without scheme and host.
    pub target: String,
    /// The minor version: HTTP/1.0 or HTTP/1.1.
    pub minor: u8,
    pub authorization: Option<String>,
    /// Whether the client wants to send another request on this connection.
    pub keep_alive: bool,
    pub body: Body,
}

/// The body that follows the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// So many bytes, none as a rule.
    Bytes(usize),
    /// One whose end is not looked for: the answer is sent at once and the connection closed after it.
    Unread,
}

/// What the bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// More must come.
    Incomplete,
    /// A head, and how many bytes it took.
    Complete(Head, usize),
    /// No request: the HTTP status and what is wrong. The connection cannot be used any further.
    Refused(u16, &'static str),
}

/// Looks for a whole head at the beginning of `bytes`.
pub fn parse(bytes: &[u8]) -> Parsed {
    // Empty lines before a request are left over from a body that ended in one (RFC 9112, 2.2).
    let begin = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    match head_end(&bytes[begin..]) {
        _ if begin > HEAD_BYTES_MAX => Parsed::Refused(400, "the request is empty"),
        Some(end) if end <= HEAD_BYTES_MAX => match read(&bytes[begin..begin + end]) {
            Ok(head) => Parsed::Complete(head, begin + end),
            Err((status, wrong)) => Parsed::Refused(status, wrong),
        },
        None if bytes.len() - begin < HEAD_BYTES_MAX => Parsed::Incomplete,
        _ => Parsed::Refused(431, "the request's head is longer than 16 KiB"),
    }
}

/// The first byte after the empty line.
fn head_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(feed) = bytes[at..].iter().position(|b| *b == b'\n') {
        at += feed + 1;
        match bytes[at..] {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
    None
}

fn read(bytes: &[u8]) -> Result<Head, (u16, &'static str)> {
    let mut lines = bytes.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut head = request_line(lines.next().unwrap_or_default())?;
    let (mut close, mut keep_alive, mut length, mut unread) = (false, false, None, false);
    for line in lines.take_while(|line| !line.is_empty()) {
        let colon = line.iter().position(|b| *b == b':').ok_or((400, "a header has no colon"))?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.is_empty() || !name.iter().all(|b| is_token(*b)) {
            return Err((400, "a header's name is none"));
        }
        if value.iter().any(|b| b.is_ascii_control() && *b != b'\t') {
            return Err((400, "a header's value holds a control character"));
        }
        if name.eq_ignore_ascii_case(b"connection") {
            for option in value.split(|b| *b == b',').map(|option| option.trim_ascii()) {
                close |= option.eq_ignore_ascii_case(b"close");
                keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
            let bytes: u64 = digits.and_then(|text| text.parse().ok()).ok_or((400, "Content-Length is no number"))?;
            if length.is_some_and(|other| other != bytes) {
                return Err((400, "Content-Length is given twice"));
            }
            length = Some(bytes);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") || name.eq_ignore_ascii_case(b"expect") {
            unread = true;
        } else if name.eq_ignore_ascii_case(b"authorization") {
            // One that is not plain text matches no token: it counts as wrong, not as a broken request.
            let text = std::str::from_utf8(value).ok().filter(|text| text.is_ascii());
            head.authorization = Some(text.unwrap_or("?").replace('\t', " "));
        }
    }
    head.body = match length {
        _ if unread => Body::Unread,
        Some(bytes) if bytes > BODY_BYTES_MAX as u64 => return Err((413, "the request's body is longer than 64 KiB")),
        Some(bytes) => Body::Bytes(bytes as usize),
        None => Body::Bytes(0),
    };
    head.keep_alive = !unread && !close && (head.minor == 1 || keep_alive);
    Ok(head)
}

fn request_line(line: &[u8]) -> Result<Head, (u16, &'static str)> {
    let mut parts = line.split(|b| *b == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err((400, "the request line is not METHOD TARGET VERSION"));
    };
    let minor = match version {
        b"HTTP/1.1" => 1,
        b"HTTP/1.0" => 0,
        _ if version.starts_with(b"HTTP/") => return Err((505, "only HTTP/1.0 and HTTP/1.1 are spoken here")),
        _ => return Err((400, "the request line is not METHOD TARGET VERSION")),
    };
    if method.is_empty() || !method.iter().all(|b| is_token(*b)) {
        return Err((400, "the method is none"));
    }
    if target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
        return Err((400, "the target holds a character that must be percent-encoded"));
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Head {
        method: text(method),
        target: origin_form(&text(target)),
        minor,
        authorization: None,
        keep_alive: false,
        body: Body::Bytes(0),
    })
}

/// A target as sent to a proxy (`http://host/path`) names the same thing as its path.
fn origin_form(target: &str) -> String {
    let scheme = target.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("http://"));
    let Some(rest) = scheme.and_then(|_| target.get(7..)) else { return target.to_owned() };
    match rest.find(['/', '?']) {
        Some(at) if rest[at..].starts_with('/') => rest[at..].to_owned(),
        Some(at) => format!("/{}", &rest[at..]),
        None => "/".to_owned(),
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Head {
        match parse(text.as_bytes()) {
            Parsed::Complete(head, used) => {
                assert_eq!(used, text.len());
                head
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }

    fn refused(bytes: &[u8]) -> u16 {
        match parse(bytes) {
            Parsed::Refused(status, _) => status,
            other => panic!("{:?}: {other:?}", String::from_utf8_lossy(bytes)),
        }
    }

    #[test]
    fn a_head_is_complete_at_its_empty_line_and_not_before() {
        let text = "GET /events?limit=3 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer abc \r\n\r\n";
        for end in 0..text.len() {
            assert_eq!(parse(&text.as_bytes()[..end]), Parsed::Incomplete, "{end}");
        }
        let head = head(text);
        assert_eq!((head.method.as_str(), head.target.as_str(), head.minor), ("GET", "/events?limit=3", 1));
        assert_eq!(head.authorization.as_deref(), Some("Bearer abc"));
        assert!(head.keep_alive);
    }

    #[test]
    fn the_connection_is_kept_as_each_version_says() {
        assert!(head("GET / HTTP/1.1\r\n\r\n").keep_alive);
        assert!(!head("GET / HTTP/1.1\r\nconnection: Close\r\n\r\n").keep_alive);
        assert!(!head("GET / HTTP/1.0\r\n\r\n").keep_alive);
        assert!(head("GET / HTTP/1.0\r\nConnection: foo, Keep-Alive\r\n\r\n").keep_alive);
    }

    #[test]
    fn sloppy_clients_are_understood() {
        assert_eq!(head("\r\n\nGET / HTTP/1.1\n\n").target, "/");
        assert_eq!(head("GET http://host:8077/health?x HTTP/1.1\r\n\r\n").target, "/health?x");
        assert_eq!(head("GET HTTP://host HTTP/1.1\r\n\r\n").target, "/");
        assert_eq!(head("GET / HTTP/1.1\r\nAuthorization: Bearer \u{e9}\r\n\r\n").authorization.as_deref(), Some("?"));
    }

    #[test]
    fn bodies_are_bounded() {
        assert_eq!(head("POST / HTTP/1.1\r\nContent-Length: 65536\r\n\r\n").body, Body::Bytes(65536));
        assert_eq!(refused(b"POST / HTTP/1.1\r\nContent-Length: 65537\r\n\r\n"), 413);
        assert_eq!(refused(b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"), 400);
        assert_eq!(refused(b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"), 400);
        let chunked = head("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!((chunked.body, chunked.keep_alive), (Body::Unread, false));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for bytes in [
            &b"GET /\r\n\r\n"[..],
            b"GET  / HTTP/1.1\r\n\r\n",
            b"G\xc3\xa9T / HTTP/1.1\r\n\r\n",
            b"GET /\xff HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
            b"GET / HTTP/1.1\r\nbad name: 1\r\n\r\n",
            b"GET / HTTP/1.1\r\n: 1\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: 1\r\n folded\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: \0\r\n\r\n",
        ] {
            assert_eq!(refused(bytes), 400, "{:?}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(refused(b"PRI * HTTP/2.0\r\n\r\n"), 505);
        assert_eq!(refused(&[b'A'; HEAD_BYTES_MAX]), 431);
        assert_eq!(refused(&[b'\n'; HEAD_BYTES_MAX + 1]), 400);
    }
}
