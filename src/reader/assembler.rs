//! Frames into messages: pieces joined, limits kept, and what is no text told with its first bytes.
//!
//! Pure. Must never: hold more than one message of the limit.

use tungstenite::Utf8Bytes;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};

/// Bytes of a message, at most.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes that are kept of a message that is no text, at most.
pub const HEAD_BYTES_MAX: usize = 4096;

pub const TOO_LONG: &str = "longer than 1 MiB";
const BINARY: &str = "binary";
const BROKEN_UTF8: &str = "not UTF-8";

/// A whole message, or none yet.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    Text(Utf8Bytes),
    Unreadable {
        reason: &'static str,
        head: Vec<u8>,
    },
    /// More pieces are to come.
    Partial,
}

/// The peer broke the protocol in a way that leaves no frame to trust behind it.
#[derive(Debug, PartialEq, Eq)]
pub struct Violation(pub &'static str);

/// What has come of a message in pieces.
#[derive(Debug, Default)]
enum State {
    #[default]
    Between,
    Gathering {
        text: bool,
        bytes: Vec<u8>,
    },
    /// The message is too long and was told; its remaining pieces are let go.
    Discarding,
}

/// Joins pieces.
#[derive(Debug, Default)]
pub struct Assembler(State);

impl Assembler {
    /// Takes a data frame.
    ///
    /// # Errors
    /// When pieces come in an order that makes no message.
    pub fn take(&mut self, frame: Frame) -> Result<Message, Violation> {
        let (is_final, opcode) = (frame.header().is_final, frame.header().opcode);
        match (opcode, std::mem::take(&mut self.0)) {
            (OpCode::Data(Data::Continue), State::Gathering { text, mut bytes }) => {
                let piece = frame.payload();
                if bytes.len() + piece.len() > MESSAGE_BYTES_MAX {
                    bytes.extend_from_slice(&piece[..piece.len().min(HEAD_BYTES_MAX)]);
                    self.0 = if is_final { State::Between } else { State::Discarding };
                    return Ok(unreadable(TOO_LONG, &bytes));
                }
                bytes.extend_from_slice(piece);
                if is_final {
                    return Ok(whole(text, bytes.into()));
                }
                self.0 = State::Gathering { text, bytes };
                Ok(Message::Partial)
            }
            (OpCode::Data(Data::Continue), State::Discarding) => {
                self.0 = if is_final { State::Between } else { State::Discarding };
                Ok(Message::Partial)
            }
            (OpCode::Data(Data::Continue), State::Between) => Err(Violation("a piece without a beginning")),
            // Whether the frame that was too long was also the last piece is not known: a new beginning says so.
            (OpCode::Data(kind), State::Between | State::Discarding) => {
                let text = kind == Data::Text;
                if is_final {
                    return Ok(whole(text, frame.into_payload()));
                }
                self.0 = State::Gathering { text, bytes: frame.payload().to_vec() };
                Ok(Message::Partial)
            }
            _ => Err(Violation("a new message within the pieces of another")),
        }
    }

    /// A frame was too long to be taken, and its payload is being skipped. Gives what of the message came before it.
    pub fn skip(&mut self) -> Vec<u8> {
        match std::mem::replace(&mut self.0, State::Discarding) {
            State::Gathering { mut bytes, .. } => {
                bytes.truncate(HEAD_BYTES_MAX);
                bytes
            }
            _ => Vec::new(),
        }
    }
}

fn unreadable(reason: &'static str, bytes: &[u8]) -> Message {
    Message::Unreadable { reason, head: bytes[..bytes.len().min(HEAD_BYTES_MAX)].to_vec() }
}

fn whole(text: bool, payload: tungstenite::Bytes) -> Message {
    if !text {
        return unreadable(BINARY, &payload);
    }
    // A clone is a count, not a copy.
    match Utf8Bytes::try_from(payload.clone()) {
        Ok(text) => Message::Text(text),
        Err(_) => unreadable(BROKEN_UTF8, &payload),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: Data, is_final: bool, bytes: &[u8]) -> Frame {
        Frame::message(bytes.to_vec(), OpCode::Data(kind), is_final)
    }

    #[test]
    fn pieces_become_one_message() {
        let mut assembler = Assembler::default();
        // The letter é is cut in two: only the whole is looked at.
        assert_eq!(assembler.take(frame(Data::Text, false, b"caf\xc3")), Ok(Message::Partial));
        assert_eq!(assembler.take(frame(Data::Continue, false, b"")), Ok(Message::Partial));
        let whole = assembler.take(frame(Data::Continue, true, b"\xa9"));
        assert_eq!(whole, Ok(Message::Text(Utf8Bytes::from_static("café"))));
    }

    #[test]
    fn what_is_no_text_is_told_with_its_head_and_the_next_is_read() {
        let mut assembler = Assembler::default();
        let binary = assembler.take(frame(Data::Binary, true, &[7; 5000])).unwrap();
        assert_eq!(binary, Message::Unreadable { reason: BINARY, head: vec![7; HEAD_BYTES_MAX] });
        let broken = assembler.take(frame(Data::Text, true, b"a\xffb")).unwrap();
        assert_eq!(broken, Message::Unreadable { reason: BROKEN_UTF8, head: b"a\xffb".to_vec() });
        let next = assembler.take(frame(Data::Text, true, b"ok"));
        assert_eq!(next, Ok(Message::Text(Utf8Bytes::from_static("ok"))));
    }

    #[test]
    fn pieces_that_grow_too_long_are_told_once_and_let_go() {
        let mut assembler = Assembler::default();
        let piece = vec![b'x'; MESSAGE_BYTES_MAX / 2 + 1];
        assert_eq!(assembler.take(frame(Data::Text, false, &piece)), Ok(Message::Partial));
        let told = assembler.take(frame(Data::Continue, false, &piece));
        assert!(matches!(told, Ok(Message::Unreadable { reason: TOO_LONG, ref head }) if head.len() == HEAD_BYTES_MAX));
        assert_eq!(assembler.take(frame(Data::Continue, true, &piece)), Ok(Message::Partial));
        let next = assembler.take(frame(Data::Text, true, b"ok"));
        assert_eq!(next, Ok(Message::Text(Utf8Bytes::from_static("ok"))));
    }

    #[test]
    fn pieces_out_of_order_are_a_violation() {
        assert!(Assembler::default().take(frame(Data::Continue, true, b"x")).is_err());
        let mut assembler = Assembler::default();
        assert_eq!(assembler.take(frame(Data::Text, false, b"x")), Ok(Message::Partial));
        assert!(assembler.take(frame(Data::Text, true, b"y")).is_err());
    }
}
