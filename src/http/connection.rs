//! One client's connection: a request head in, an answer out, and how long either may take.
//!
//! Must never: wait for the client, or hold more for it than one head or one piece of its answer.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use memchr::memmem;
use rustix::event::PollFlags;

/// Bytes of a request's head, at most.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a request's body that are passed on, at most; no route has a use for one.
const BODY_BYTES_MAX: usize = 4096;
/// How long the head of a request may take to arrive.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// How long a client may take none of its answer.
const NO_PROGRESS_MAX: Duration = Duration::from_secs(10);
/// How long a client may take for its whole answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// How long what a client still sends is discarded after its answer: closing at once would reset the connection, and
/// the client might never see the answer.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes of an answer held for a client.
const PIECE_BYTES: usize = 64 * 1024;
/// The targets whose answers are long.
const HEAVY: [&[u8]; 2] = [b" /events", b" /live"];
/// Reads or writes in one turn, so that no client keeps the others waiting.
const STEPS_A_TURN: usize = 2;

/// A connection.
pub struct Connection {
    pub client: TcpStream,
    pub deadline: Instant,
    /// The last instant at which it connected, completed a request or took some of its answer.
    useful_at: Instant,
    phase: Phase,
    /// The head as far as it arrived, then the piece of the answer at hand.
    bytes: Vec<u8>,
    /// How many of `bytes` the client took.
    sent: usize,
    answer_until: Instant,
    is_heavy: bool,
    /// Whether anything of the answer came.
    is_answered: bool,
}

enum Phase {
    /// The head is not complete.
    Head,
    /// The head is complete and waits for the backend.
    Ready,
    /// The answer comes from the backend; `None`: all of it came.
    Answer(Option<UnixStream>),
    Linger,
    Ended,
}

impl Connection {
    pub fn new(client: TcpStream, now: Instant) -> Self {
        Self {
            client,
            deadline: now + REQUEST_WITHIN,
            useful_at: now,
            phase: Phase::Head,
            bytes: Vec::new(),
            sent: 0,
            answer_until: now,
            is_heavy: false,
            is_answered: false,
        }
    }

    /// What poll(2) is to look for on the client's side.
    pub fn wants(&self) -> PollFlags {
        match self.phase {
            Phase::Head | Phase::Linger => PollFlags::IN,
            Phase::Answer(_) if self.is_blocked() => PollFlags::OUT,
            _ => PollFlags::empty(),
        }
    }

    /// The backend's side, while something is wanted from it.
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

    /// Whether the backend has its request and has not answered yet.
    pub fn is_awaiting(&self) -> bool {
        matches!(self.phase, Phase::Answer(Some(_))) && !self.is_answered
    }

    /// Whether the client does not take its answer as fast as it comes.
    pub fn is_blocked(&self) -> bool {
        matches!(self.phase, Phase::Answer(_)) && self.sent < self.bytes.len()
    }

    /// Whether it asks for events, which can come to megabytes.
    pub fn is_heavy(&self) -> bool {
        self.is_heavy
    }

    /// Whether its answer is on its way.
    pub fn is_answering(&self) -> bool {
        matches!(self.phase, Phase::Answer(_))
    }

    /// Since when it has been of no use: it neither asked nor took any of its answer.
    pub fn idle_since(&self) -> Instant {
        self.useful_at
    }

    /// Whether it may be given up for a newer connection, and how early: the lowest first.
    pub fn rank(&self) -> Option<(bool, Instant)> {
        match self.phase {
            Phase::Ready if !self.is_heavy => None,
            Phase::Answer(_) => self.is_blocked().then_some((true, self.useful_at)),
            _ => Some((false, self.useful_at)),
        }
    }

    pub fn end(&mut self) {
        self.phase = Phase::Ended;
        self.bytes = Vec::new();
    }

    /// Reads or writes as far as that is possible now.
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

    /// Passes the request on: the head, and what came with it of its body.
    pub fn hand_over(&mut self, mut backend: UnixStream, now: Instant) {
        // A head fits into the socket's buffer. The end is marked, so that the backend never waits for more.
        if backend.write_all(&self.bytes).and_then(|()| backend.shutdown(Shutdown::Write)).is_err() {
            return self.refuse(503, "Service Unavailable", "the request could not be passed on; try again", now);
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
        self.useful_at = now;
        self.deadline = now + NO_PROGRESS_MAX;
        self.answer_until = now + ANSWER_WITHIN;
    }

    fn read_head(&mut self, now: Instant) -> io::Result<()> {
        let mut piece = [0; 4096];
        loop {
            let count = self.client.read(&mut piece)?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let seen = self.bytes.len().saturating_sub(3);
            self.bytes.extend_from_slice(&piece[..count]);
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
                        self.useful_at = now;
                    }
                    Err((status, phrase, error)) => self.refuse(status, phrase, error, now),
                }
                return Ok(());
            }
        }
    }

    fn relay(&mut self, now: Instant) -> io::Result<()> {
        for _ in 0..STEPS_A_TURN {
            if !self.is_blocked() && !self.next_piece(now)? {
                return Ok(());
            }
            self.sent += self.client.write(&self.bytes[self.sent..])?;
            self.useful_at = now;
            self.deadline = (now + NO_PROGRESS_MAX).min(self.answer_until);
        }
        Ok(())
    }

    /// Takes the next piece of the answer; false at its end.
    fn next_piece(&mut self, now: Instant) -> io::Result<bool> {
        let Phase::Answer(backend) = &mut self.phase else { return Ok(false) };
        if let Some(stream) = backend {
            self.bytes.resize(PIECE_BYTES, 0);
            self.sent = PIECE_BYTES;
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
            // The backend closes without a word what it cannot read.
            self.refuse(400, "Bad Request", "this is not a complete HTTP/1.1 request", now);
            return Ok(false);
        }
        self.client.shutdown(Shutdown::Write)?;
        self.phase = Phase::Linger;
        self.deadline = now + LINGER;
        Ok(false)
    }

    /// tiny_http does not know that there is one request a connection.
    fn insert_close(&mut self) {
        if let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
            self.bytes.splice(end + 1..end + 1, *b"Connection: close\r\n");
        }
    }

    fn discard(&mut self) -> io::Result<()> {
        let mut piece = [0; 16 * 1024];
        for _ in 0..STEPS_A_TURN {
            if self.client.read(&mut piece)? == 0 {
                self.end();
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Bytes of the body that this head announces; or why it cannot be passed on, as a status, its phrase and a sentence.
///
/// tiny_http 0.12 leaves a thread hanging for ever when it meets another version than 1.0 or 1.1, also in what follows a
/// request, and allocates as many bytes as `Content-Length` names: what would lead there does not pass.
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
    is_short.then_some(length).ok_or((413, "Content Too Large", "requests have no body here"))
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
