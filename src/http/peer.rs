//! One client's connection: what it sent, what it is still to be sent, and how long it may take.
//!
//! Deals with: reading and writing without ever waiting. Must never: hold more than a head of what a client sent, or
//! count bytes that trickle in as a sign of good will.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::answer::Answer;
use super::head::{Body, Head, Parsed, parse};

/// How long a request may take to arrive whole, from its first byte or from the connection's first moment.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// How long a client may keep a connection without asking for anything.
const IDLE_MAX: Duration = Duration::from_secs(75);
/// How long a client may take nothing of its answer.
const TAKES_NOTHING_MAX: Duration = Duration::from_secs(10);
/// How long a client may take for its whole answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Pieces of an answer in one write.
const PIECES_AT_ONCE: usize = 16;
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
    /// A complete request that wants an answer.
    Asking(Head),
    /// Answered for the last time.
    Lingering,
    Ended,
}

struct Output {
    pieces: VecDeque<Vec<u8>>,
    /// Bytes of the first piece that are sent.
    written: usize,
    then: Then,
    give_up_at: Instant,
}

impl Output {
    /// Sends pieces until none is left (true) or the client takes no more (false).
    fn write(&mut self, stream: &mut TcpStream, mut progress: impl FnMut()) -> io::Result<bool> {
        while !self.pieces.is_empty() {
            let mut slices = [IoSlice::new(&[]); PIECES_AT_ONCE];
            for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
                *slice = IoSlice::new(piece);
            }
            slices[0] = IoSlice::new(&self.pieces[0][self.written..]);
            match stream.write_vectored(&slices) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            }
            progress();
            while let Some(sent) = self.pieces.front().map(Vec::len).filter(|len| *len <= self.written) {
                self.written -= sent;
                self.pieces.pop_front();
            }
        }
        Ok(true)
    }
}

/// What follows an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    KeepAlive,
    Close,
    /// Close, but read on first: a close over unread bytes is a reset, and may take the answer with it.
    Linger,
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

    /// What poll(2) is to look for.
    pub fn wants(&self) -> PollFlags {
        match self.state {
            State::Writing(_) => PollFlags::OUT,
            State::Asking(_) | State::Ended => PollFlags::empty(),
            State::Reading | State::Skipping(..) | State::Lingering => PollFlags::IN,
        }
    }

    /// Whether there is something to do although nothing new came.
    pub fn has_more(&self) -> bool {
        match self.state {
            State::Reading => self.unparsed,
            State::Asking(_) => true,
            _ => false,
        }
    }

    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// The request that wants an answer.
    pub fn asks(&self) -> Option<&Head> {
        if let State::Asking(head) = &self.state { Some(head) } else { None }
    }

    /// Bytes held for it: of its answer, what it has not taken.
    pub fn pending_bytes(&self) -> usize {
        if let State::Writing(output) = &self.state { output.pieces.iter().map(Vec::capacity).sum() } else { 0 }
    }

    /// Gives it up: its memory is free at once, its descriptor when it is dropped.
    pub fn end(&mut self) {
        self.state = State::Ended;
        self.forget_input();
    }

    /// Reads or writes as far as it goes; at most one request comes of it.
    pub fn turn(&mut self, now: Instant) {
        match &self.state {
            State::Writing(_) => self.write(now),
            State::Lingering => self.discard(),
            State::Reading | State::Skipping(..) => self.read(now),
            State::Asking(_) | State::Ended => {}
        }
    }

    /// Takes the answer to what [`Peer::asks`] gave, and sends what can be sent at once.
    pub fn answer(&mut self, answer: Answer, now: Instant) {
        let State::Asking(head) = &self.state else { return };
        let then = match (head.keep_alive, head.body) {
            (true, _) => Then::KeepAlive,
            (false, Body::Unread) => Then::Linger,
            (false, _) => Then::Close,
        };
        let (minor, without_body) = (head.minor, head.method == "HEAD");
        self.send(answer, minor, without_body, then, now);
    }

    fn send(&mut self, answer: Answer, minor: u8, without_body: bool, then: Then, now: Instant) {
        let pieces = answer.print(minor, without_body, then == Then::KeepAlive);
        self.state = State::Writing(Output { pieces, written: 0, then, give_up_at: now + ANSWER_WITHIN });
        self.useful_at = now;
        self.deadline = now + TAKES_NOTHING_MAX;
        self.write(now);
    }

    fn read(&mut self, now: Instant) {
        loop {
            self.look(now);
            if !matches!(self.state, State::Reading | State::Skipping(..)) {
                return;
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return self.end(),
                Ok(count) => {
                    if self.input.is_empty() {
                        // The first byte of a request: from here it has its time, and no more than it had.
                        self.deadline = self.deadline.min(now + REQUEST_WITHIN);
                    }
                    self.input.extend_from_slice(&buffer[..count]);
                    self.unparsed = true;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.end(),
            }
        }
    }

    /// Makes of what is there as much as it is: a request, a refusal, or nothing yet.
    fn look(&mut self, now: Instant) {
        if matches!(self.state, State::Reading) && self.unparsed {
            self.unparsed = false;
            match parse(&self.input) {
                Parsed::Incomplete => {}
                Parsed::Refused(status, wrong) => {
                    self.forget_input();
                    self.send(Answer::error(status, wrong), 1, false, Then::Linger, now);
                }
                Parsed::Complete(head, used) => {
                    self.input.drain(..used);
                    let skip = if let Body::Bytes(count) = head.body { count } else { 0 };
                    self.state = State::Skipping(head, skip);
                }
            }
        }
        if let State::Skipping(head, skip) = &mut self.state {
            let here = self.input.len().min(*skip);
            self.input.drain(..here);
            *skip -= here;
            if *skip == 0 {
                self.state = State::Asking(head.clone());
                self.unparsed = !self.input.is_empty();
                self.useful_at = now;
                self.deadline = now + TAKES_NOTHING_MAX;
            }
        }
    }

    fn write(&mut self, now: Instant) {
        let State::Writing(output) = &mut self.state else { return };
        let (give_up_at, useful_at, deadline) = (output.give_up_at, &mut self.useful_at, &mut self.deadline);
        let progress = || {
            *useful_at = now;
            *deadline = (now + TAKES_NOTHING_MAX).min(give_up_at);
        };
        match output.write(&mut self.stream, progress) {
            Ok(true) => {}
            Ok(false) => return,
            Err(_) => return self.end(),
        }
        match output.then {
            Then::KeepAlive => {
                self.state = State::Reading;
                self.deadline = now + if self.input.is_empty() { IDLE_MAX } else { REQUEST_WITHIN };
            }
            Then::Close => self.end(),
            Then::Linger => {
                self.state = State::Lingering;
                self.deadline = now + LINGER;
                self.forget_input();
                let _ = self.stream.shutdown(Shutdown::Write);
            }
        }
    }

    /// Throws away what comes, a bounded piece a turn; the deadline ends it.
    fn discard(&mut self) {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(count) if count > 0 => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            _ => self.end(),
        }
    }

    fn forget_input(&mut self) {
        self.input = Vec::new();
        self.unparsed = false;
    }
}
