//! One open WebSocket: what each read brings, with pings answered and too long frames skipped.
//!
//! Must never: look into a text.

use std::io::{self, Read};
use std::time::Duration;

use tungstenite::error::CapacityError;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame, FrameSocket};
use tungstenite::{Error, Utf8Bytes};

use super::assembler::{Assembler, HEAD_BYTES_MAX, MESSAGE_BYTES_MAX, Message, TOO_LONG};
use super::handshake::random;
use crate::net::{Socket, Stream};

/// A read waits for at most this long, so that a stop is heard.
const TICK: Duration = Duration::from_secs(1);
/// A peer that takes nothing for this long is given up.
const WRITE_LIMIT: Duration = Duration::from_secs(5);
/// A frame that says it is longer than this costs the socket; shorter ones are read to their end and let go.
const SKIP_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What stands for a close frame's code where the server ended the connection without one.
pub const ABNORMAL: u16 = 1006;
const SCRATCH_BYTES: usize = 64 * 1024;

/// What a read brought.
#[derive(Debug)]
pub enum Incoming {
    Text(Utf8Bytes),
    Unreadable {
        reason: &'static str,
        head: Vec<u8>,
    },
    /// A control frame, or a piece of a message.
    Nothing,
    /// Nothing now: the pause that was asked for, or the tick.
    Wait,
    /// The server's close frame.
    Close {
        code: u16,
        reason: String,
    },
}

/// An open WebSocket.
pub struct Link {
    state: State,
    assembler: Assembler,
}

enum State {
    Frames(FrameSocket<Stream>),
    /// The payload of a frame that is too long is being read and let go.
    Skipping(Skip),
    Gone,
}

struct Skip {
    stream: Stream,
    left: u64,
    head: Vec<u8>,
    scratch: Vec<u8>,
}

impl Link {
    /// Goes on where the handshake ended; `rest` came behind it.
    ///
    /// # Errors
    /// When the system refuses the socket's options.
    pub fn new(mut stream: Stream, rest: Vec<u8>) -> io::Result<Self> {
        stream.socket_mut().set_tick(TICK, WRITE_LIMIT)?;
        let frames = FrameSocket::from_partially_read(stream, rest);
        Ok(Self { state: State::Frames(frames), assembler: Assembler::default() })
    }

    pub fn socket_mut(&mut self) -> Option<&mut Socket> {
        match &mut self.state {
            State::Frames(frames) => Some(frames.get_mut().socket_mut()),
            State::Skipping(skip) => Some(skip.stream.socket_mut()),
            State::Gone => None,
        }
    }

    /// Reads the next thing.
    ///
    /// # Errors
    /// When the connection is over or the peer broke the protocol: the text says which.
    pub fn read(&mut self) -> Result<Incoming, String> {
        let frames = match &mut self.state {
            State::Frames(frames) => frames,
            State::Skipping(_) => return self.skip(),
            State::Gone => return Err("the connection is closed".to_owned()),
        };
        match frames.read(Some(MESSAGE_BYTES_MAX)) {
            Ok(Some(frame)) => self.take(frame),
            Ok(None) => Ok(Incoming::Close { code: ABNORMAL, reason: "no close frame".to_owned() }),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(Incoming::Wait),
            Err(Error::Capacity(CapacityError::MessageTooLong { size, .. })) => Ok(self.begin_skip(size as u64)),
            Err(error) => Err(error.to_string()),
        }
    }

    fn take(&mut self, frame: Frame) -> Result<Incoming, String> {
        let header = frame.header();
        if header.mask.is_some() {
            return Err("the server masked a frame".to_owned());
        }
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err("the server used an extension that was not agreed on".to_owned());
        }
        match header.opcode {
            OpCode::Data(Data::Text | Data::Binary | Data::Continue) => match self.assembler.take(frame) {
                Ok(Message::Text(text)) => Ok(Incoming::Text(text)),
                Ok(Message::Unreadable { reason, head }) => Ok(Incoming::Unreadable { reason, head }),
                Ok(Message::Partial) => Ok(Incoming::Nothing),
                Err(violation) => Err(format!("the server broke the protocol: {}", violation.0)),
            },
            OpCode::Control(Control::Ping) => {
                self.send(Frame::pong(frame.into_payload()))?;
                Ok(Incoming::Nothing)
            }
            OpCode::Control(Control::Close) => {
                let payload = frame.payload();
                let code = payload.get(..2).map_or(1005, |code| u16::from_be_bytes([code[0], code[1]]));
                let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned();
                Ok(Incoming::Close { code, reason })
            }
            OpCode::Control(_) => Ok(Incoming::Nothing),
            OpCode::Data(_) => Err("the server broke the protocol: a frame of an unknown kind".to_owned()),
        }
    }

    /// Sends a text.
    ///
    /// # Errors
    /// When the connection is over.
    pub fn send_text(&mut self, text: &'static str) -> Result<(), String> {
        self.send(Frame::message(text.as_bytes(), OpCode::Data(Data::Text), true))
    }

    /// Sends a close frame; what is left of the connection is the caller's to read.
    pub fn send_close(&mut self, code: u16) {
        let close = CloseFrame { code: code.into(), reason: Utf8Bytes::from_static("") };
        // It is a courtesy: the connection ends either way.
        let _ = self.send(Frame::close(Some(close)));
    }

    fn send(&mut self, mut frame: Frame) -> Result<(), String> {
        frame.header_mut().mask = Some((random() as u32).to_ne_bytes());
        match &mut self.state {
            State::Frames(frames) => frames.send(frame).map_err(|error| error.to_string()),
            // A frame of ours waits for nobody: it goes out when the skipping is over, or not at all.
            State::Skipping(_) | State::Gone => Ok(()),
        }
    }

    fn begin_skip(&mut self, size: u64) -> Incoming {
        let State::Frames(frames) = std::mem::replace(&mut self.state, State::Gone) else { return Incoming::Nothing };
        let (stream, buffered) = frames.into_inner();
        let head = self.assembler.skip();
        let mut skip = Skip { stream, left: size, head, scratch: Vec::new() };
        let rest = skip.let_go(&buffered);
        if skip.is_hopeless() {
            return Incoming::Unreadable { reason: TOO_LONG, head: skip.head };
        }
        if skip.left == 0 {
            self.state = State::Frames(FrameSocket::from_partially_read(skip.stream, rest));
            return Incoming::Unreadable { reason: TOO_LONG, head: skip.head };
        }
        self.state = State::Skipping(skip);
        Incoming::Nothing
    }

    fn skip(&mut self) -> Result<Incoming, String> {
        let State::Skipping(skip) = &mut self.state else {
            return Err("the connection is closed".to_owned());
        };
        skip.scratch.resize(SCRATCH_BYTES, 0);
        let mut scratch = std::mem::take(&mut skip.scratch);
        let read = skip.stream.read(&mut scratch);
        let outcome = match read {
            Ok(0) => Err("the server ended the connection within a frame".to_owned()),
            Ok(count) => Ok(skip.let_go(&scratch[..count])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                skip.scratch = scratch;
                return Ok(Incoming::Wait);
            }
            Err(error) => Err(error.to_string()),
        };
        skip.scratch = scratch;
        let over = skip.left == 0 || outcome.is_err() || skip.is_hopeless();
        if !over {
            return Ok(Incoming::Nothing);
        }
        let State::Skipping(skip) = std::mem::replace(&mut self.state, State::Gone) else {
            return Ok(Incoming::Nothing);
        };
        if let (Ok(rest), 0) = (outcome, skip.left) {
            self.state = State::Frames(FrameSocket::from_partially_read(skip.stream, rest));
        }
        Ok(Incoming::Unreadable { reason: TOO_LONG, head: skip.head })
    }
}

impl Skip {
    /// What is worth keeping was kept, and the rest is longer than is worth reading.
    fn is_hopeless(&self) -> bool {
        self.left > SKIP_BYTES_MAX && self.head.len() >= HEAD_BYTES_MAX
    }

    /// Counts these bytes off the frame, keeps its first ones, and gives what stands behind the frame.
    fn let_go(&mut self, bytes: &[u8]) -> Vec<u8> {
        let within = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        let wanted = HEAD_BYTES_MAX.saturating_sub(self.head.len()).min(within);
        self.head.extend_from_slice(&bytes[..wanted]);
        self.left -= within as u64;
        bytes[within..].to_vec()
    }
}
