//! One client's connection: a request's head in, an answer out, and how long either may take.
//!
//! Must never: wait for the client.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use tiny_http::Method;

use super::request::Request;
use super::routes::Site;

/// How long the head of a request may take to arrive.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// How long a client may wait for its answer, and then take for the whole of it.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// How long what a client still sends is discarded after its answer: closing at once would reset the connection, and
/// the client might never see the answer.
const LINGER: Duration = Duration::from_secs(2);
/// How long a connection that does nothing is not given up for a newer one…
const GRACE: Duration = Duration::from_millis(50);
/// …and one that takes none of its answer: whoever reads slowly takes some within this time.
const STALLED_AFTER: Duration = Duration::from_millis(500);
/// Bytes read in one turn, so that no client keeps the others waiting.
const READ_BYTES: usize = 4096;

/// A connection.
pub struct Connection {
    pub client: TcpStream,
    pub deadline: Instant,
    /// The last instant at which it connected, completed a request or took some of its answer.
    useful_at: Instant,
    phase: Phase,
}

enum Phase {
    /// The head, as far as it arrived.
    Head(Vec<u8>),
    /// The request waits for its answer.
    Asked(Request),
    /// The answer, of which the client took so many bytes.
    Answer {
        bytes: Vec<u8>,
        sent: usize,
        is_long: bool,
    },
    Linger,
}

impl Connection {
    pub fn new(client: TcpStream, now: Instant) -> Self {
        Self { client, deadline: now + REQUEST_WITHIN, useful_at: now, phase: Phase::Head(Vec::new()) }
    }

    /// What poll(2) is to look for.
    pub fn wants(&self) -> PollFlags {
        match self.phase {
            Phase::Head(_) | Phase::Linger => PollFlags::IN,
            Phase::Asked(_) => PollFlags::empty(),
            Phase::Answer { .. } => PollFlags::OUT,
        }
    }

    /// The request that waits for its answer.
    pub fn request(&self) -> Option<&Request> {
        match &self.phase {
            Phase::Asked(request) => Some(request),
            _ => None,
        }
    }

    /// Whether it takes a long answer.
    pub fn takes_long_answer(&self) -> bool {
        matches!(self.phase, Phase::Answer { is_long: true, .. })
    }

    /// Whether it may be given up, and how early, the lowest first: who takes an answer last, and only when it takes
    /// none of it.
    pub fn rank(&self, now: Instant) -> Option<(bool, Instant)> {
        let is_answer = matches!(self.phase, Phase::Answer { .. });
        let patience = if is_answer { STALLED_AFTER } else { GRACE };
        (now.saturating_duration_since(self.useful_at) >= patience).then_some((is_answer, self.useful_at))
    }

    /// Reads or writes as far as that is possible now.
    ///
    /// # Errors
    /// When the connection has ended.
    pub fn turn(&mut self, now: Instant) -> io::Result<()> {
        match self.step(now) {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
            result => result,
        }
    }

    fn step(&mut self, now: Instant) -> io::Result<()> {
        match &mut self.phase {
            Phase::Head(head) => {
                read_some(&mut self.client, head)?;
                match Request::parse(head) {
                    Ok(None) => {}
                    Ok(Some(request)) => {
                        self.phase = Phase::Asked(request);
                        self.useful_at = now;
                        self.deadline = now + ANSWER_WITHIN;
                    }
                    Err(refusal) => self.begin(refusal.into_bytes(false, false), false, now),
                }
            }
            Phase::Asked(_) => {}
            Phase::Answer { bytes, sent, .. } => {
                *sent += self.client.write(&bytes[*sent..])?;
                self.useful_at = now;
                if *sent == bytes.len() {
                    self.client.shutdown(Shutdown::Write)?;
                    self.phase = Phase::Linger;
                    self.deadline = now + LINGER;
                }
            }
            Phase::Linger => read_some(&mut self.client, &mut Vec::new())?,
        }
        Ok(())
    }

    /// Answers the request that waits.
    pub fn answer(&mut self, site: &Site, now: Instant) {
        if let Phase::Asked(request) = &self.phase {
            let answer = site.answer(request).into_bytes(request.method == Method::Head, request.accepts_gzip);
            let is_long = request.is_long();
            self.begin(answer, is_long, now);
        }
    }

    fn begin(&mut self, bytes: Vec<u8>, is_long: bool, now: Instant) {
        self.phase = Phase::Answer { bytes, sent: 0, is_long };
        self.useful_at = now;
        self.deadline = now + ANSWER_WITHIN;
    }
}

/// Reads what is there, some of it.
fn read_some(client: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut piece = [0; READ_BYTES];
    let count = client.read(&mut piece)?;
    bytes.extend_from_slice(&piece[..count]);
    if count == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}
