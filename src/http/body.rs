//! The body of a response: a list of shared pieces, and its compression.

use std::collections::VecDeque;
use std::io::{self, Read};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::status::Line;

/// Pieces, in order. Reading the body drops each piece after it was read. The pieces are never copied into one buffer,
/// since events can come to megabytes.
#[derive(Debug, Default)]
pub struct Body {
    pieces: VecDeque<Line>,
    /// Bytes of the first piece that were read already.
    read: usize,
    len: usize,
}

impl Body {
    pub fn push(&mut self, piece: Line) {
        self.len += piece.len();
        self.pieces.push_back(piece);
    }

    /// Bytes of all pieces.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The same body, compressed.
    pub fn gzip(mut self) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        // Writing to memory cannot fail.
        let _ = io::copy(&mut self, &mut encoder);
        encoder.finish().unwrap_or_default().into()
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(piece) = self.pieces.front() {
            let count = (&piece[self.read..]).read(buffer)?;
            self.read += count;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            self.pieces.pop_front();
            self.read = 0;
        }
        Ok(0)
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
mod tests {
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
        let mut plain = Vec::new();
        assert_eq!(build().len(), expected.len());
        build().read_to_end(&mut plain).unwrap();
        assert_eq!(plain, expected);
        let compressed = build().gzip();
        assert!(compressed.len() < 1000);
        let mut inflated = Vec::new();
        flate2::read::GzDecoder::new(compressed).read_to_end(&mut inflated).unwrap();
        assert_eq!(inflated, expected);
    }
}
