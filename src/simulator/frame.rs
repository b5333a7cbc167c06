//! WebSocket frames (RFC 6455) of a server. They are not validated, so that a test may send anything.

use tungstenite::protocol::frame::coding::OpCode;
use tungstenite::protocol::frame::{Frame, FrameHeader};

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// An unmasked frame; `last`: whether it ends the message.
pub fn encode(opcode: u8, last: bool, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 10);
    push_header(opcode, last, payload.len(), &mut out);
    out.extend_from_slice(payload);
    out
}

/// A text message in one frame.
pub fn text(text: &str) -> Vec<u8> {
    encode(TEXT, true, text.as_bytes())
}

/// A close frame.
pub fn close(code: u16, reason: &str) -> Vec<u8> {
    encode(CLOSE, true, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

/// A text message in frames of at most `bytes` bytes.
pub fn in_frames_of(payload: &[u8], bytes: usize) -> Vec<u8> {
    let chunks: Vec<&[u8]> = payload.chunks(bytes.max(1)).collect();
    let frame = |(at, chunk): (usize, &&[u8])| encode(if at == 0 { TEXT } else { 0 }, at + 1 == chunks.len(), chunk);
    chunks.iter().enumerate().flat_map(frame).collect()
}

/// Appends the header of a frame with a payload of this length.
pub(super) fn push_header(opcode: u8, last: bool, length: usize, out: &mut Vec<u8>) {
    let header = FrameHeader { is_final: last, opcode: OpCode::from(opcode), ..FrameHeader::default() };
    // Writing to memory cannot fail.
    let _ = header.format(length as u64, out);
}

/// The unmasked payload of a client's frame; `None` if it is not masked, which violates the protocol.
pub(super) fn client_payload(frame: &Frame) -> Option<Vec<u8>> {
    let mask = frame.header().mask?;
    Some(frame.payload().iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_may_come_in_several_frames() {
        assert_eq!(in_frames_of(b"abc", 2), [0x01, 2, b'a', b'b', 0x80, 1, b'c']);
    }
}
