//! The body of an answer: pieces that it shares with whoever else holds them, and its compression.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::status::Line;

/// Pieces written by one call, at most.
const PIECES_AT_ONCE: usize = 64;

/// Pieces, in order. They are written as they are: megabytes of events are never copied into one buffer.
#[derive(Debug, Default)]
pub struct Body {
    pieces: VecDeque<Line>,
    /// Bytes of the first piece that were written.
    written: usize,
    len: usize,
}

impl Body {
    pub fn push(&mut self, piece: Line) {
        self.len += piece.len();
        self.pieces.push_back(piece);
    }

    /// Bytes of all pieces that are left.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Adds another body's pieces.
    pub fn append(&mut self, mut other: Self) {
        self.len += other.len;
        self.pieces.append(&mut other.pieces);
    }

    /// Writes some of what is left, and forgets it.
    ///
    /// # Errors
    /// When writing fails: nothing was written then.
    pub fn write_to(&mut self, out: &mut impl Write) -> io::Result<()> {
        let mut slices: Vec<IoSlice> =
            self.pieces.iter().take(PIECES_AT_ONCE).map(|piece| IoSlice::new(piece)).collect();
        if let Some((first, piece)) = slices.first_mut().zip(self.pieces.front()) {
            *first = IoSlice::new(&piece[self.written..]);
        }
        let mut count = out.write_vectored(&slices)?;
        self.len -= count;
        while let Some(piece) = self.pieces.front() {
            let left = piece.len() - self.written;
            if count < left {
                self.written += count;
                break;
            }
            count -= left;
            self.written = 0;
            self.pieces.pop_front();
        }
        Ok(())
    }

    /// The same, compressed.
    pub fn gzip(mut self) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        // Writing to memory cannot fail.
        while self.len > 0 && self.write_to(&mut encoder).is_ok() {}
        encoder.finish().unwrap_or_default().into()
    }
}

impl<T: Into<Vec<u8>>> From<T> for Body {
    fn from(bytes: T) -> Self {
        let mut body = Self::default();
        body.push(Line::new(bytes.into()));
        body
    }
}

#[cfg(test)]
impl Body {
    /// All that is left, in one buffer.
    pub fn into_vec(mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while self.len > 0 {
            self.write_to(&mut all).unwrap();
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn pieces_are_read_in_order_plain_or_compressed() {
        let build = || {
            let mut body = Body::from("head");
            for piece in [&b""[..], &[7; 100_000], b"tail"] {
                body.push(Line::new(piece.to_vec()));
            }
            body
        };
        let expected = [&b"head"[..], &[7; 100_000], b"tail"].concat();
        assert_eq!((build().len(), build().into_vec()), (expected.len(), expected.clone()));
        let compressed = build().gzip().into_vec();
        assert!(compressed.len() < 1000);
        let mut inflated = Vec::new();
        flate2::read::GzDecoder::new(compressed.as_slice()).read_to_end(&mut inflated).unwrap();
        assert_eq!(inflated, expected);
    }
}
