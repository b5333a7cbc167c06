//! One client's connection: what it sent, what it is still to be sent, and how long it may take.
//!
//! Deals with: reading and writing without ever waiting. Must never: hold more than a head of what a client sent, or
//! count bytes that trickle in as a sign of good will.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::answer::Answer;
use super::head::{BODY_BYTES_MAX, Body, HEAD_BYTES_MAX, Head, Parsed, parse};

/// How long a request may take to arrive whole, from its first byte or from the connection's first moment.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// How long a client may keep a connection without asking for anything.
const IDLE_MAX: Duration = Duration::from_secs(75);
/// How long a client may take nothing of its answer.
const TAKES_NOTHING_MAX: Duration = Duration::from_secs(10);
/// How long a client may take for its whole answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// How long what a refused client still sends is thrown away, so that it gets to read why.
const LINGER: Duration = Duration::from_secs(2);

/// A connection.
pub struct Peer {
    pub stream: TcpStream,
    /// The last instant at which it did something useful: connected, completed a request, took some of its answer.
    pub useful_at: Instant,
    pub deadline: Instant,
    state: State,
    input: Vec<u8>,
    /// Whether `input` may hold a whole request that was not looked at.
    unparsed: bool,
}

enum State {
    /// Waiting for a request, or for the rest of one.
    Reading,
    /// The head is here; so many bytes of its body are to be thrown away first.
    Skipping(Head, usize),
    Writing(Output),
    /// Answered for the last time.
    Lingering,
}

struct Output {
    head: Vec<u8>,
    body: Vec<u8>,
    written: usize,
    then: Then,
    give_up_at: Instant,
}

/// What follows an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    KeepAlive,
    Close,
    /// Close, but read on first: a close over unread bytes is a reset, and may take the answer with it.
    Linger,
}

/// What a turn came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing more to do until the connection is ready again.
    Waits,
    /// A complete request: it wants an answer.
    Asks(Head),
    Ended,
}

impl Peer {
    pub fn new(stream: TcpStream, now: Instant) -> Self {
        Self {
            stream,
            useful_at: now,
            deadline: now + REQUEST_WITHIN,
            state: State::Reading,
            input: Vec::new(),
            unparsed: false,
        }
    }

    pub fn wants_to_read(&self) -> bool {
        !matches!(self.state, State::Writing(_))
    }

    pub fn wants_to_write(&self) -> bool {
        matches!(self.state, State::Writing(_))
    }

    /// Whether a turn has something to do although nothing new came.
    pub fn has_more(&self) -> bool {
        self.unparsed && self.wants_to_read()
    }

    /// Bytes of its answer that it has not taken.
    pub fn pending_bytes(&self) -> usize {
        match &self.state {
            State::Writing(output) => output.head.len() + output.body.len() - output.written,
            _ => 0,
        }
    }

    /// Reads or writes as far as it goes; at most one request comes of it.
    pub fn turn(&mut self, now: Instant) -> Turn {
        match &self.state {
            State::Writing(_) => self.write(now),
            State::Lingering => self.discard(),
            State::Reading | State::Skipping(..) => self.read(now),
        }
    }

    /// Takes the answer to what [`Turn::Asks`] gave, and sends what can be sent at once.
    pub fn answer(&mut self, answer: Answer, head: &Head, now: Instant) -> Turn {
        let then = match (head.keep_alive, head.body) {
            (true, _) => Then::KeepAlive,
            (false, Body::Unread) => Then::Linger,
            (false, _) => Then::Close,
        };
        self.send(answer, head.minor, head.method == "HEAD", then, now)
    }

    fn send(&mut self, answer: Answer, minor: u8, without_body: bool, then: Then, now: Instant) -> Turn {
        let (head, body) = answer.print(minor, without_body, then == Then::KeepAlive);
        self.state = State::Writing(Output { head, body, written: 0, then, give_up_at: now + ANSWER_WITHIN });
        self.useful_at = now;
        self.deadline = now + TAKES_NOTHING_MAX;
        self.write(now)
    }

    fn read(&mut self, now: Instant) -> Turn {
        loop {
            if let Some(turn) = self.look(now) {
                return turn;
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Turn::Ended,
                Ok(count) => {
                    if self.input.is_empty() && matches!(self.state, State::Reading) && self.deadline > now {
                        // The first byte of a request: from here it has its time. A new connection's time runs already.
                        self.deadline = self.deadline.min(now + REQUEST_WITHIN);
                    }
                    self.input.extend_from_slice(&buffer[..count]);
                    self.unparsed = true;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Turn::Waits,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Turn::Ended,
            }
        }
    }

    /// Looks at what is there; `None` when more must be read.
    fn look(&mut self, now: Instant) -> Option<Turn> {
        loop {
            match &mut self.state {
                State::Reading if self.unparsed => {
                    debug_assert!(self.input.len() <= 2 * HEAD_BYTES_MAX + BODY_BYTES_MAX);
                    match parse(&self.input) {
                        Parsed::Incomplete => {
                            self.unparsed = false;
                            return None;
                        }
                        Parsed::Refused(status, wrong) => {
                            self.forget_input();
                            return Some(self.send(Answer::error(status, wrong), 1, false, Then::Linger, now));
                        }
                        Parsed::Complete(head, used) => {
                            self.input.drain(..used);
                            let skip = if let Body::Bytes(count) = head.body { count } else { 0 };
                            self.state = State::Skipping(head, skip);
                        }
                    }
                }
                State::Skipping(head, skip) => {
                    let here = self.input.len().min(*skip);
                    self.input.drain(..here);
                    *skip -= here;
                    if *skip > 0 {
                        return None;
                    }
                    let head = head.clone();
                    self.state = State::Reading;
                    self.unparsed = !self.input.is_empty();
                    self.useful_at = now;
                    return Some(Turn::Asks(head));
                }
                _ => return None,
            }
        }
    }

    fn write(&mut self, now: Instant) -> Turn {
        let State::Writing(output) = &mut self.state else { return Turn::Waits };
        while output.written < output.head.len() + output.body.len() {
            let head = &output.head[output.written.min(output.head.len())..];
            let body = &output.body[output.written.saturating_sub(output.head.len())..];
            match self.stream.write_vectored(&[IoSlice::new(head), IoSlice::new(body)]) {
                Ok(0) => return Turn::Ended,
                Ok(count) => {
                    output.written += count;
                    self.useful_at = now;
                    self.deadline = (now + TAKES_NOTHING_MAX).min(output.give_up_at);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Turn::Waits,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Turn::Ended,
            }
        }
        match output.then {
            Then::KeepAlive => {
                self.state = State::Reading;
                self.deadline = now + if self.input.is_empty() { IDLE_MAX } else { REQUEST_WITHIN };
                Turn::Waits
            }
            Then::Close => Turn::Ended,
            Then::Linger => {
                self.state = State::Lingering;
                self.deadline = now + LINGER;
                self.forget_input();
                let _ = self.stream.shutdown(Shutdown::Write);
                Turn::Waits
            }
        }
    }

    /// Throws away what comes, a bounded piece a turn; the deadline ends it.
    fn discard(&mut self) -> Turn {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => Turn::Ended,
            Ok(_) => Turn::Waits,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Turn::Waits,
            Err(_) => Turn::Ended,
        }
    }

    fn forget_input(&mut self) {
        self.input = Vec::new();
        self.unparsed = false;
    }
}
