//! The client's half of the WebSocket handshake (RFC 6455, section 4), by hand: it has time limits, tells a refusal's
//! status, and draws its key without a random device, which an empty root may lack.

use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Write};

use data_encoding::BASE64;
use tungstenite::handshake::derive_accept_key;

use crate::net::{Stream, Target, USER_AGENT, authority};

/// Bytes of an answer's head that are read before it counts as nonsense.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Characters of the vendor's correlation id that are shown.
const CORRELATION_CHARS_MAX: usize = 64;

/// Why a handshake failed.
#[derive(Debug, PartialEq, Eq)]
pub enum Failed {
    /// The server's HTTP status.
    Refused(u16),
    Broken(String),
}

/// 64 bits that nobody can guess, from the keys the standard library draws for its hash maps.
pub fn random() -> u64 {
    RandomState::new().hash_one(0u8)
}

/// Turns the stream into a WebSocket and gives the bytes that came behind the answer's head. The stream's deadline
/// limits it.
///
/// # Errors
/// When the server refuses, answers nonsense, or does not answer in time.
pub fn shake_hands(stream: &mut Stream, target: &Target, path: &str) -> Result<Vec<u8>, Failed> {
    let key = BASE64.encode(&[random().to_ne_bytes(), random().to_ne_bytes()].concat());
    let default_port = if target.tls { 443 } else { 80 };
    let host = if target.port == default_port {
        authority(&target.host, target.port).trim_end_matches(&format!(":{default_port}")).to_owned()
    } else {
        authority(&target.host, target.port)
    };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nUser-Agent: {USER_AGENT}\r\n\r\n"
    );
    let broken = |error: std::io::Error| Failed::Broken(format!("cannot shake hands: {error}"));
    stream.write_all(request.as_bytes()).and_then(|()| stream.flush()).map_err(broken)?;
    let mut answer = Vec::new();
    let mut chunk = [0; 2048];
    let head_end = loop {
        if let Some(end) = find(&answer, b"\r\n\r\n") {
            break end;
        }
        if answer.len() > HEAD_BYTES_MAX {
            return Err(Failed::Broken("cannot shake hands: the answer's head is too long".to_owned()));
        }
        match stream.read(&mut chunk).map_err(broken)? {
            0 => return Err(Failed::Broken("cannot shake hands: the server closed the connection".to_owned())),
            count => answer.extend_from_slice(&chunk[..count]),
        }
    };
    let rest = answer.split_off(head_end + 4);
    let head = String::from_utf8_lossy(&answer);
    let judged = judge(&head, &derive_accept_key(key.as_bytes()));
    if let (Err(Failed::Refused(status)), Some(id)) = (&judged, header(&head, "inin-correlation-id")) {
        let id: String = id.chars().filter(|c| c.is_ascii_graphic()).take(CORRELATION_CHARS_MAX).collect();
        log::warn!("the socket's handshake was refused with {status} [correlation id {id}]");
    }
    judged.map(|()| rest)
}

/// A header's value.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut headers = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    headers.find(|(key, _)| key.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// Whether this head accepts the handshake.
fn judge(head: &str, expected_accept: &str) -> Result<(), Failed> {
    let mut status_line = head.split("\r\n").next().unwrap_or_default().splitn(3, ' ');
    let is_http = status_line.next().is_some_and(|version| version.starts_with("HTTP/1."));
    let status = status_line.next().and_then(|code| code.parse().ok());
    match status.filter(|_| is_http) {
        Some(101) => {}
        Some(status) => return Err(Failed::Refused(status)),
        None => return Err(Failed::Broken("cannot shake hands: the answer is not HTTP".to_owned())),
    }
    let value = |name: &str| header(head, name);
    if !value("upgrade").is_some_and(|upgrade| upgrade.eq_ignore_ascii_case("websocket")) {
        return Err(Failed::Broken("cannot shake hands: the answer upgrades to no WebSocket".to_owned()));
    }
    if value("sec-websocket-accept") != Some(expected_accept) {
        return Err(Failed::Broken("cannot shake hands: the answer is to somebody else's key".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_true_acceptance_is_one() {
        let good = "HTTP/1.1 101 Switching Protocols\r\nUPGRADE: WebSocket\r\nconnection: upgrade\r\nsec-websocket-accept: abc=\r\n\r\n";
        assert_eq!(judge(good, "abc="), Ok(()));
        assert!(matches!(judge(good, "other"), Err(Failed::Broken(_))));
        assert_eq!(judge("HTTP/1.1 404 Not Found\r\n\r\n", "abc="), Err(Failed::Refused(404)));
        assert_eq!(judge("HTTP/1.1 200 OK\r\n\r\n", "abc="), Err(Failed::Refused(200)));
        assert!(matches!(judge("HTTP/1.1 101 X\r\n\r\n", "abc="), Err(Failed::Broken(_))));
        assert!(matches!(judge("SSH-2.0\r\n\r\n", "abc="), Err(Failed::Broken(_))));
    }
}
