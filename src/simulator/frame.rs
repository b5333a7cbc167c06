//! WebSocket frames (RFC 6455), the server's side.
//!
//! Deals with: bytes to frames and back. Must never: check what a server sends; a test must be able to send anything.

/// What a client may send at once; more closes its socket.
const CLIENT_FRAME_BYTES_MAX: usize = 64 * 1024;

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// One frame of a server, unmasked; `last`: whether the message ends with it.
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
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    encode(CLOSE, true, &payload)
}

/// A text message in frames of this many bytes at most.
pub fn in_frames_of(payload: &[u8], bytes: usize) -> Vec<u8> {
    let chunks: Vec<&[u8]> = payload.chunks(bytes.max(1)).collect();
    let mut out = Vec::new();
    for (at, chunk) in chunks.iter().enumerate() {
        out.extend(encode(if at == 0 { TEXT } else { 0 }, at + 1 == chunks.len(), chunk));
    }
    out
}

/// Appends the header of a frame with a payload of this length.
pub(super) fn push_header(opcode: u8, last: bool, length: usize, out: &mut Vec<u8>) {
    out.push(opcode | if last { 0x80 } else { 0 });
    match length {
        0..=125 => out.push(length as u8),
        126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientFrame {
    pub opcode: u8,
    pub payload: Vec<u8>,
}

/// Takes the first whole frame out of the buffer.
///
/// # Errors
/// A frame that no client may send: unmasked, or too long.
pub(super) fn take_client_frame(buffer: &mut Vec<u8>) -> Result<Option<ClientFrame>, &'static str> {
    let [first, second, ..] = buffer[..] else { return Ok(None) };
    if second & 0x80 == 0 {
        return Err("a client's frame must be masked");
    }
    let (length, mut at) = match second & 0x7f {
        126 => match buffer.get(2..4) {
            Some(bytes) => (usize::from(u16::from_be_bytes([bytes[0], bytes[1]])), 4),
            None => return Ok(None),
        },
        127 => return Err("the frame is too long"),
        short => (usize::from(short), 2),
    };
    if length > CLIENT_FRAME_BYTES_MAX {
        return Err("the frame is too long");
    }
    if buffer.len() < at + 4 + length {
        return Ok(None);
    }
    let mask: Vec<u8> = buffer[at..at + 4].to_vec();
    at += 4;
    let masked = &buffer[at..at + length];
    let payload = masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    buffer.drain(..at + length);
    Ok(Some(ClientFrame { opcode: first & 0x0f, payload }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_takes_the_shortest_form() {
        for (length, header) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            assert_eq!(encode(BINARY, true, &vec![7; length]).len(), length + header, "{length}");
        }
    }

    #[test]
    fn pieces_make_one_message() {
        assert_eq!(in_frames_of(b"abc", 2), [0x01, 2, b'a', b'b', 0x80, 1, b'c']);
    }

    #[test]
    fn a_masked_frame_is_taken_when_it_is_whole() {
        let bytes = [0x81, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2];
        let mut buffer = Vec::new();
        for byte in &bytes[..7] {
            buffer.push(*byte);
            assert_eq!(take_client_frame(&mut buffer), Ok(None));
        }
        buffer.extend_from_slice(&[bytes[7], 0x8a]);
        let frame = take_client_frame(&mut buffer).unwrap().unwrap();
        assert_eq!((frame.opcode, &frame.payload[..]), (TEXT, &b"hi"[..]));
        assert_eq!(buffer, [0x8a]);
        assert!(take_client_frame(&mut vec![0x81, 0x02, b'h', b'i']).is_err());
    }
}
