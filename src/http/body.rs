//! A body in small pieces, each of which is freed as soon as it is sent.
//!
//! Deals with: megabytes of events without one allocation that large, which would come and go with each request and
//! leave the heap in shreds. Must never: hold what was sent.

use std::collections::VecDeque;

/// Bytes of a piece that is gathered from smaller parts.
const PIECE_BYTES: usize = 16 * 1024;

/// Pieces, in order.
#[derive(Debug, Default)]
pub struct Body(VecDeque<Vec<u8>>);

impl Body {
    /// Appends bytes, which may spread over pieces.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let full = self.0.back().is_none_or(|last| last.len() >= PIECE_BYTES);
            if full {
                self.0.push_back(Vec::with_capacity(PIECE_BYTES));
            }
            if let Some(last) = self.0.back_mut() {
                let (now, later) = bytes.split_at(bytes.len().min(PIECE_BYTES - last.len()));
                last.extend_from_slice(now);
                bytes = later;
            }
        }
    }

    /// Bytes of all pieces.
    pub fn len(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    /// The pieces themselves.
    pub fn into_pieces(self) -> VecDeque<Vec<u8>> {
        self.0
    }
}

impl<T: Into<Vec<u8>>> From<T> for Body {
    /// One piece, as large as it comes.
    fn from(bytes: T) -> Self {
        Self(VecDeque::from([bytes.into()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_comes_out_in_small_pieces() {
        let mut body = Body::default();
        let long: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        body.push(b"head");
        body.push(&long);
        body.push(b"");
        body.push(b"tail");
        assert_eq!(body.len(), long.len() + 8);
        let pieces = body.into_pieces();
        assert!(pieces.iter().all(|piece| !piece.is_empty() && piece.capacity() <= PIECE_BYTES));
        assert_eq!(Vec::from(pieces).concat(), [b"head", long.as_slice(), b"tail"].concat());
    }
}
