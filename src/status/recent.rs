//! The newest records, in memory: what `/events` and the page show without reading a file.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Records kept, at most.
pub const RECENT_MAX: usize = 1000;
/// Bytes of records kept, at most: a flood of large events must not grow the process.
pub const RECENT_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A ring of lines of the file, each without its line feed.
#[derive(Default)]
pub struct Recent(Mutex<Ring>);

#[derive(Default)]
struct Ring {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Counts every line that was ever added: a reader can ask for what is newer than it saw.
    added: u64,
}

impl Recent {
    /// Adds lines, oldest first. One lock for all of them; buffers are used again.
    pub fn extend<'a>(&self, lines: impl Iterator<Item = &'a [u8]>) {
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for line in lines {
            let mut buffer = Vec::new();
            while ring.lines.len() >= RECENT_MAX
                || (ring.bytes + line.len() > RECENT_BYTES_MAX && !ring.lines.is_empty())
            {
                let Some(oldest) = ring.lines.pop_front() else { break };
                ring.bytes -= oldest.len();
                buffer = oldest;
            }
            buffer.clear();
            buffer.shrink_to(2 * line.len());
            buffer.extend_from_slice(line);
            ring.bytes += line.len();
            ring.added += 1;
            ring.lines.push_back(buffer);
        }
    }

    /// The newest `limit` lines for which `wanted` holds, oldest first.
    pub fn newest(&self, limit: usize, wanted: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<Vec<u8>> =
            ring.lines.iter().rev().filter(|line| wanted(line)).take(limit).cloned().collect();
        found.reverse();
        found
    }

    /// The numbers of the lines that are kept; the first line ever added has number 0.
    pub fn numbers(&self) -> Range<u64> {
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ring.added - ring.lines.len() as u64..ring.added
    }

    /// Shows the line of this number, if it is still kept. The lock is held for as long as `look` takes.
    pub fn with<T>(&self, number: u64, look: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = number.checked_sub(ring.added - ring.lines.len() as u64)?;
        ring.lines.get(usize::try_from(at).ok()?).map(|line| look(line))
    }

    /// How many lines were ever added.
    pub fn added(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).added
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_within_both_bounds() {
        let recent = Recent::default();
        let lines: Vec<Vec<u8>> = (0..1500).map(|n| n.to_string().into_bytes()).collect();
        recent.extend(lines.iter().map(Vec::as_slice));
        let kept = recent.newest(5000, |_| true);
        assert_eq!((kept.len(), kept[0].as_slice(), kept[999].as_slice()), (1000, &b"500"[..], &b"1499"[..]));
        assert_eq!(recent.newest(2, |line| line.ends_with(b"7")), [b"1487".to_vec(), b"1497".to_vec()]);
        assert_eq!(recent.numbers(), 500..1500);
        assert_eq!(recent.with(499, |_| ()), None);
        assert_eq!(recent.with(500, <[u8]>::to_vec), Some(b"500".to_vec()));
        assert_eq!(recent.with(1499, <[u8]>::to_vec), Some(b"1499".to_vec()));
        assert_eq!(recent.with(1500, |_| ()), None);
        let large = vec![b'x'; RECENT_BYTES_MAX / 2];
        recent.extend([large.as_slice(), &large, &large].into_iter());
        assert_eq!(recent.newest(5000, |_| true).len(), 2);
    }
}
