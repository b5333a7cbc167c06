//! An open WebSocket: performs the handshake, reads whole messages and answers pings.
//!
//! The handshake and the joining of fragments are implemented here, on tungstenite's frames. tungstenite's own would
//! consume bytes after the response, fail at an informational response, need a random device, which an empty root
//! lacks, and drop a text that is not UTF-8.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use tungstenite::error::CapacityError;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame, FrameSocket};
use tungstenite::{Bytes, Error, Utf8Bytes};

use super::HANDSHAKE_LIMIT;
use crate::clock::Millis;
use crate::message::Closed;
use crate::net::{Dialer, Stream, Target, USER_AGENT, authority, header, read_head, retry_after};
use crate::secret::Secret;
use crate::status::Problem;

/// How long a read waits at most, so that a stop is noticed.
const TICK: Duration = Duration::from_secs(1);
/// Limit for a write, after which the connection is closed.
const WRITE_LIMIT: Duration = Duration::from_secs(5);
/// Maximum bytes of a message; a longer one closes the connection.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Maximum bytes kept of an unreadable message.
const HEAD_BYTES_MAX: usize = 4096;
/// Characters of the vendor's correlation id that are logged.
const CORRELATION_CHARS_MAX: usize = 64;
/// The close code for a connection that the server ended without a close frame (RFC 6455, section 7.1.5).
const ABNORMAL: u16 = 1006;

/// The result of a read.
#[derive(Debug)]
pub enum Incoming {
    Text(Utf8Bytes),
    Unreadable {
        reason: &'static str,
        head: Vec<u8>,
    },
    /// A control frame, or a fragment of a message.
    Nothing,
    /// No input; a waiting read has waited for a tick.
    Wait,
    /// The server's close frame.
    Close {
        code: u16,
        reason: String,
    },
}

/// An open WebSocket.
pub struct WsConnection {
    /// `None` after a message that was too long.
    frames: Option<FrameSocket<Box<dyn Stream>>>,
    /// An incomplete message: whether it is a text, and its bytes so far.
    partial: Option<(bool, Vec<u8>)>,
}

/// 64 unpredictable bits, from the random keys of the standard library's hash maps.
pub fn random() -> u64 {
    RandomState::new().hash_one(0u8)
}

impl WsConnection {
    /// Connects within `limit`, then performs the handshake within the same limit. In between, passes the connection to
    /// `connected`, to shut it down from another thread. `now` is for a `Retry-After` without a `Date`.
    ///
    /// # Errors
    /// [`Closed::Refused`] with the server's status, or [`Closed::Unreachable`].
    pub fn open(
        uri: &Secret,
        dialer: &Dialer,
        limit: Duration,
        now: Millis,
        connected: impl FnOnce(Arc<TcpStream>),
    ) -> Result<Self, Closed> {
        let unreachable = Closed::Unreachable;
        let target = Target::parse(uri.expose()).map_err(unreachable)?;
        if !target.tls && !target.is_loopback() {
            let cure =
                "Check whether a proxy changes the responses of Genesys Cloud. If not, report this to Genesys support.";
            return Err(Closed::Unreachable(Problem::new("cannot use the channel's address: it is not wss", cure)));
        }
        let mut stream = dialer.dial(&target, limit).map_err(unreachable)?;
        connected(stream.socket().tcp());
        stream.socket().set_deadline(Instant::now() + HANDSHAKE_LIMIT.min(limit));
        shake_hands(&mut *stream, &target, path(uri.expose()), now)?;
        stream.socket().set_tick(TICK, WRITE_LIMIT).map_err(|error| broken_handshake(&target, &error.to_string()))?;
        Ok(Self { frames: Some(FrameSocket::new(stream)), partial: None })
    }

    /// Sets whether a read may wait for a tick; otherwise it returns [`Incoming::Wait`] at once.
    pub fn set_waits(&mut self, waits: bool) {
        if let Some(frames) = &mut self.frames {
            frames.get_mut().socket().set_waits(waits);
        }
    }

    /// Whether anything was received since the last call.
    pub fn take_heard(&mut self) -> bool {
        self.frames.as_mut().is_some_and(|frames| frames.get_mut().socket().take_heard())
    }

    /// Reads the next frame.
    ///
    /// # Errors
    /// When the connection failed or the peer violated the protocol, with the cause.
    pub fn read(&mut self) -> Result<Incoming, String> {
        let Some(frames) = &mut self.frames else { return Err("a message was longer than 1 MiB".to_owned()) };
        match frames.read(Some(MESSAGE_BYTES_MAX)) {
            Ok(Some(frame)) => self.take(frame),
            Ok(None) => Ok(Incoming::Close { code: ABNORMAL, reason: "no close frame".to_owned() }),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(Incoming::Wait),
            Err(Error::Capacity(CapacityError::MessageTooLong { .. })) => Ok(self.give_up()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn take(&mut self, frame: Frame) -> Result<Incoming, String> {
        let header = frame.header();
        if header.mask.is_some() || header.rsv1 || header.rsv2 || header.rsv3 {
            return Err("the server violated the protocol: a masked frame or an unnegotiated extension".to_owned());
        }
        let is_final = header.is_final;
        match (header.opcode, self.partial.take()) {
            (OpCode::Control(control), partial) => {
                self.partial = partial;
                self.take_control(control, frame)
            }
            (OpCode::Data(kind @ (Data::Text | Data::Binary)), None) => {
                let is_text = kind == Data::Text;
                if is_final {
                    return Ok(whole(is_text, frame.into_payload()));
                }
                self.partial = Some((is_text, frame.payload().to_vec()));
                Ok(Incoming::Nothing)
            }
            (OpCode::Data(Data::Continue), Some((is_text, mut bytes))) => {
                bytes.extend_from_slice(frame.payload());
                if is_final && bytes.len() <= MESSAGE_BYTES_MAX {
                    return Ok(whole(is_text, bytes.into()));
                }
                let is_too_long = bytes.len() > MESSAGE_BYTES_MAX;
                self.partial = Some((is_text, bytes));
                Ok(if is_too_long { self.give_up() } else { Incoming::Nothing })
            }
            _ => Err("the server violated the protocol: message fragments out of order".to_owned()),
        }
    }

    fn take_control(&mut self, control: Control, frame: Frame) -> Result<Incoming, String> {
        match control {
            Control::Ping => self.send(Frame::pong(frame.into_payload())).map(|()| Incoming::Nothing),
            Control::Close => {
                let payload = frame.payload();
                let code = payload.get(..2).map_or(1005, |code| u16::from_be_bytes([code[0], code[1]]));
                let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned();
                Ok(Incoming::Close { code, reason })
            }
            _ => Ok(Incoming::Nothing),
        }
    }

    /// The message is too long: keeps its first bytes and closes the connection.
    fn give_up(&mut self) -> Incoming {
        let mut head = self.partial.take().map_or_else(Vec::new, |(_, bytes)| bytes);
        if let Some(frames) = self.frames.take() {
            let (mut stream, buffered) = frames.into_inner();
            head.extend_from_slice(&buffered);
            stream.socket().set_deadline(Instant::now() + TICK);
            let missing = HEAD_BYTES_MAX.saturating_sub(head.len());
            // Bytes that do not arrive in time are not kept.
            let _ = stream.take(missing as u64).read_to_end(&mut head);
        }
        unreadable("longer than 1 MiB", &head)
    }

    /// Sends a text.
    ///
    /// # Errors
    /// When the connection failed.
    pub fn send_text(&mut self, text: &'static str) -> Result<(), String> {
        self.send(Frame::message(text.as_bytes(), OpCode::Data(Data::Text), true))
    }

    /// Sends a close frame. The caller may go on reading.
    pub fn send_close(&mut self, code: u16) {
        let close = CloseFrame { code: code.into(), reason: Utf8Bytes::from_static("") };
        // The result does not matter: the connection ends either way.
        let _ = self.send(Frame::close(Some(close)));
    }

    fn send(&mut self, mut frame: Frame) -> Result<(), String> {
        frame.header_mut().mask = Some((random() as u32).to_ne_bytes());
        self.frames.as_mut().map_or(Ok(()), |frames| frames.send(frame).map_err(|error| error.to_string()))
    }
}

fn unreadable(reason: &'static str, bytes: &[u8]) -> Incoming {
    Incoming::Unreadable { reason, head: bytes[..bytes.len().min(HEAD_BYTES_MAX)].to_vec() }
}

fn whole(is_text: bool, payload: Bytes) -> Incoming {
    if !is_text {
        return unreadable("binary", &payload);
    }
    // Cloning `Bytes` copies no data.
    Utf8Bytes::try_from(payload.clone()).map_or_else(|_| unreadable("not UTF-8", &payload), Incoming::Text)
}

/// The client's half of the WebSocket handshake (RFC 6455, section 4), within the stream's deadline.
fn shake_hands(stream: &mut dyn Stream, target: &Target, path: &str, now: Millis) -> Result<(), Closed> {
    let key = BASE64.encode(&[random().to_ne_bytes(), random().to_ne_bytes()].concat());
    let mut host = authority(&target.host, target.port);
    if target.port == if target.tls { 443 } else { 80 } {
        host.truncate(host.rfind(':').unwrap_or(host.len()));
    }
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nUser-Agent: {USER_AGENT}\r\n\r\n"
    );
    let head = stream
        .write_all(request.as_bytes())
        .and_then(|()| stream.flush())
        .and_then(|()| read_head(&mut *stream))
        .map_err(|error| broken_handshake(target, &error.to_string()))?;
    let status = head.status;
    let value = |name| header(&head.headers, name);
    if status != 101 {
        if let Some(id) = value("inin-correlation-id") {
            let id: String = id.chars().filter(char::is_ascii_graphic).take(CORRELATION_CHARS_MAX).collect();
            log::warn!("the socket's handshake was refused with {status} [correlation id {id}]");
        }
        return Err(Closed::Refused { status, retry_after: retry_after(&head.headers, now) });
    }
    if !value("upgrade").is_some_and(|upgrade| upgrade.eq_ignore_ascii_case("websocket")) {
        return Err(broken_handshake(target, "the response does not upgrade to a WebSocket"));
    }
    if value("sec-websocket-accept") != Some(&derive_accept_key(key.as_bytes())) {
        return Err(broken_handshake(target, "the response has the wrong Sec-WebSocket-Accept"));
    }
    Ok(())
}

fn broken_handshake(target: &Target, cause: &str) -> Closed {
    Closed::Unreachable(Problem::new(
        format!("the WebSocket handshake with {} failed: {cause}", target.host),
        "Check that the proxy or firewall allows WebSockets, or add the streaming host to NO_PROXY.",
    ))
}

/// The path and query of a URL.
fn path(uri: &str) -> &str {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    rest.find('/').map_or("/", |at| &rest[at..])
}
