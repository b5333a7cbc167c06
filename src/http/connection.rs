//! One client's connection: it reads a request head and relays the response, each with a time limit. It never blocks,
//! and buffers no more than one head or one chunk of a response.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use memchr::memmem;
use rustix::event::PollFlags;

/// Maximum length of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Maximum `Content-Length` of a request. No route uses the body.
const BODY_BYTES_MAX: usize = 4096;
/// Time for a request's head to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Time that a client may go without reading any of its response.
const NO_PROGRESS_MAX: Duration = Duration::from_secs(10);
/// Time for a client to read its whole response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to discard further input from a client after its response. Closing with unread input would reset the
/// connection, and the client might never see the response.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes of a response that are buffered for a client.
const CHUNK_BYTES: usize = 64 * 1024;
/// The targets with long responses.
const HEAVY: [&[u8]; 2] = [b" /events", b" /live"];
/// Reads or writes of one connection before the other connections have their turn.
const STEPS_PER_TURN: usize = 2;

pub struct Connection {
    pub client: TcpStream,
    pub deadline: Instant,
    /// When the client last connected, completed a request or read some of its response.
    progress_at: Instant,
    phase: Phase,
    /// The part of the head that arrived so far, later the current chunk of the response.
    bytes: Vec<u8>,
    /// How many of `bytes` were sent to the client.
    sent: usize,
    answer_until: Instant,
    is_heavy: bool,
    /// Whether any part of the response has arrived.
    is_answered: bool,
}

enum Phase {
    /// The head is not complete.
    Head,
    /// The head is complete and waits for the backend.
    Ready,
    /// The response is being relayed. `None` once all of it came from the backend.
    Answer(Option<UnixStream>),
    Linger,
    Ended,
}

impl Connection {
    pub fn new(client: TcpStream, now: Instant) -> Self {
        Self {
            client,
            deadline: now + REQUEST_TIMEOUT,
            progress_at: now,
            phase: Phase::Head,
            bytes: Vec::new(),
            sent: 0,
            answer_until: now,
            is_heavy: false,
            is_answered: false,
        }
    }

    /// The events to poll(2) the client's socket for.
    pub fn wants(&self) -> PollFlags {
        match self.phase {
            Phase::Head | Phase::Linger => PollFlags::IN,
            Phase::Answer(_) if self.is_blocked() => PollFlags::OUT,
            _ => PollFlags::empty(),
        }
    }

    /// The backend's socket, while more of the response can be read from it.
    pub fn source(&self) -> Option<&UnixStream> {
        match &self.phase {
            Phase::Answer(Some(backend)) if !self.is_blocked() => Some(backend),
            _ => None,
        }
    }

    pub fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready)
    }

    pub fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// Whether the backend has the request and has sent nothing yet.
    pub fn is_awaiting(&self) -> bool {
        matches!(self.phase, Phase::Answer(Some(_))) && !self.is_answered
    }

    /// Whether some of the response is waiting for the client to read it.
    pub fn is_blocked(&self) -> bool {
        matches!(self.phase, Phase::Answer(_)) && self.sent < self.bytes.len()
    }

    /// Whether the request is for events, which can come to megabytes.
    pub fn is_heavy(&self) -> bool {
        self.is_heavy
    }

    /// Whether the response is being relayed.
    pub fn is_answering(&self) -> bool {
        matches!(self.phase, Phase::Answer(_))
    }

    /// When the client last connected, completed a request or read some of its response.
    pub fn idle_since(&self) -> Instant {
        self.progress_at
    }

    /// The order in which connections are closed to make room for new ones, lowest first; `None` if this one must stay.
    pub fn rank(&self) -> Option<(bool, Instant)> {
        match self.phase {
            Phase::Ready if !self.is_heavy => None,
            Phase::Answer(_) => self.is_blocked().then_some((true, self.progress_at)),
            _ => Some((false, self.progress_at)),
        }
    }

    pub fn end(&mut self) {
        self.phase = Phase::Ended;
        self.bytes = Vec::new();
    }

    /// Reads or writes as much as is possible without blocking.
    pub fn turn(&mut self, now: Instant) {
        let result = match self.phase {
            Phase::Head => self.read_head(now),
            Phase::Answer(_) => self.relay(now),
            Phase::Linger => self.discard(),
            Phase::Ready | Phase::Ended => Ok(()),
        };
        if result.is_err_and(|error| error.kind() != ErrorKind::WouldBlock) {
            self.end();
        }
    }

    /// Sends the request to the backend: the head, and the part of the body that arrived with it.
    pub fn hand_over(&mut self, mut backend: UnixStream, now: Instant) {
        // A head fits into the socket's buffer. Shutting down the write side keeps the backend from waiting for more.
        if backend.write_all(&self.bytes).and_then(|()| backend.shutdown(Shutdown::Write)).is_err() {
            return self.refuse(503, "Service Unavailable", "the server could not process the request; try again", now);
        }
        self.bytes.clear();
        self.begin_answer(Some(backend), now);
    }

    fn refuse(&mut self, status: u16, phrase: &str, error: &str, now: Instant) {
        let body = format!("{{\"error\":\"{error}\"}}");
        let head = format!(
            "HTTP/1.1 {status} {phrase}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.bytes = [head, body].concat().into_bytes();
        self.is_answered = true;
        self.begin_answer(None, now);
        self.turn(now);
    }

    fn begin_answer(&mut self, backend: Option<UnixStream>, now: Instant) {
        self.phase = Phase::Answer(backend);
        self.progress_at = now;
        self.deadline = now + NO_PROGRESS_MAX;
        self.answer_until = now + RESPONSE_TIMEOUT;
    }

    fn read_head(&mut self, now: Instant) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let count = self.client.read(&mut buffer)?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let seen = self.bytes.len().saturating_sub(3);
            self.bytes.extend_from_slice(&buffer[..count]);
            let end = self.bytes[seen..].windows(4).position(|four| four == b"\r\n\r\n");
            if end.map_or(self.bytes.len(), |end| seen + end + 4) > HEAD_BYTES_MAX {
                let error = "the request's head is longer than 16 KiB";
                self.refuse(431, "Request Header Fields Too Large", error, now);
                return Ok(());
            }
            if let Some(end) = end {
                let end = seen + end + 4;
                match body_length(&self.bytes[..end]) {
                    Ok(body) => {
                        self.bytes.truncate(end + body);
                        self.is_heavy = HEAVY.iter().any(|path| memmem::find(&self.bytes, path).is_some());
                        self.phase = Phase::Ready;
                        self.progress_at = now;
                    }
                    Err((status, phrase, error)) => self.refuse(status, phrase, error, now),
                }
                return Ok(());
            }
        }
    }

    fn relay(&mut self, now: Instant) -> io::Result<()> {
        for _ in 0..STEPS_PER_TURN {
            if !self.is_blocked() && !self.next_chunk(now)? {
                return Ok(());
            }
            self.sent += self.client.write(&self.bytes[self.sent..])?;
            self.progress_at = now;
            self.deadline = (now + NO_PROGRESS_MAX).min(self.answer_until);
        }
        Ok(())
    }

    /// Reads the next chunk of the response; false at its end.
    fn next_chunk(&mut self, now: Instant) -> io::Result<bool> {
        let Phase::Answer(backend) = &mut self.phase else { return Ok(false) };
        if let Some(stream) = backend {
            self.bytes.resize(CHUNK_BYTES, 0);
            self.sent = CHUNK_BYTES;
            let count = stream.read(&mut self.bytes)?;
            self.bytes.truncate(count);
            self.sent = 0;
            if count > 0 {
                if !std::mem::replace(&mut self.is_answered, true) {
                    self.insert_close();
                }
                return Ok(true);
            }
            *backend = None;
        }
        if !self.is_answered {
            // The backend closes the connection without a response when it cannot parse the request.
            self.refuse(400, "Bad Request", "this is not a complete HTTP/1.1 request", now);
            return Ok(false);
        }
        self.client.shutdown(Shutdown::Write)?;
        self.phase = Phase::Linger;
        self.deadline = now + LINGER;
        Ok(false)
    }

    /// Adds `Connection: close`, since tiny_http does not know that a connection serves only one request.
    fn insert_close(&mut self) {
        if let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
            self.bytes.splice(end + 1..end + 1, *b"Connection: close\r\n");
        }
    }

    fn discard(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        for _ in 0..STEPS_PER_TURN {
            if self.client.read(&mut buffer)? == 0 {
                self.end();
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The `Content-Length` of a request that can be passed on; otherwise the status, reason phrase and message to refuse
/// it with.
///
/// tiny_http 0.12 hangs a thread forever on a version other than 1.0 or 1.1, also in bytes that follow a request, and
/// allocates as many bytes as `Content-Length` states. So such requests are refused here.
fn body_length(head: &[u8]) -> Result<usize, (u16, &'static str, &'static str)> {
    let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let request: Vec<&[u8]> = lines.next().unwrap_or_default().split(|byte| *byte == b' ').collect();
    match request[..] {
        [_, _, b"HTTP/1.1" | b"HTTP/1.0"] => {}
        [_, _, version] if version.starts_with(b"HTTP/") => {
            return Err((505, "HTTP Version Not Supported", "only HTTP/1.0 and HTTP/1.1 are supported"));
        }
        _ => return Err((400, "Bad Request", "the request line is not METHOD TARGET VERSION")),
    }
    let mut length = None;
    for line in lines {
        let (name, value) = line.split_at(line.iter().position(|byte| *byte == b':').unwrap_or(line.len()));
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            return Ok(0);
        }
        if name.eq_ignore_ascii_case(b"content-length") && length.is_none() {
            let digits = std::str::from_utf8(value).unwrap_or_default().trim_start_matches(':').trim();
            length = Some(digits.parse().unwrap_or(usize::MAX));
        }
    }
    let length = length.unwrap_or(0);
    let is_short = length <= BODY_BYTES_MAX;
    is_short.then_some(length).ok_or((413, "Content Too Large", "this server does not accept request bodies"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_tiny_http_can_read_to_its_end_passes() {
        for (head, expected) in [
            ("GET / HTTP/1.1\r\n\r\n", Ok(0)),
            ("GET / HTTP/1.0\r\nA: b\r\n\r\n", Ok(0)),
            ("POST / HTTP/1.1\r\n content-LENGTH: 12 \r\n\r\n", Ok(12)),
            ("POST / HTTP/1.1\r\nContent-Length: 12\r\nTransfer-Encoding: chunked\r\n\r\n", Ok(0)),
            ("POST / HTTP/1.1\r\nContent-Length: 9\r\nContent-Length: 99999\r\n\r\n", Ok(9)),
            ("POST / HTTP/1.1\r\nContent-Length: 99999999999999\r\n\r\n", Err(413)),
            ("POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n", Err(413)),
            ("GET / HTTP/2.0\r\n\r\n", Err(505)),
            ("GET / HTTP/2.0 HTTP/1.1\r\n\r\n", Err(400)),
            ("\r\n\r\n", Err(400)),
        ] {
            assert_eq!(body_length(head.as_bytes()).map_err(|(status, ..)| status), expected, "{head:?}");
        }
    }
}
