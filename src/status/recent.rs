//! The newest records, in memory: what `/events` and the page show without reading a file.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Records kept, at most.
pub const RECENT_MAX: usize = 1000;
/// Bytes of records kept, about: a thousand events of 4 KiB fit. A flood of larger ones must not grow the process…
const BYTES_MAX: usize = 5 * 1024 * 1024;
/// …but so many are kept whatever they weigh, for `/events` shows as many…
const KEPT_MIN: usize = 50;
/// …up to this.
const LARGE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Whether so many records of so many bytes are as many as are kept.
pub fn is_full(count: usize, bytes: usize) -> bool {
    count >= RECENT_MAX || (bytes > BYTES_MAX && count >= KEPT_MIN) || bytes > LARGE_BYTES_MAX
}

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
            while is_full(ring.lines.len(), ring.bytes + line.len()) {
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
        for (bytes, expected) in [(4096, 1000), (5000, 1000), (50_000, 104), (500_000, 50), (2_000_000, 16)] {
            let line = vec![b'x'; bytes];
            recent.extend(std::iter::repeat_n(line.as_slice(), 1100));
            assert_eq!(recent.newest(5000, |_| true).len(), expected, "{bytes}");
        }
        let beyond = vec![b'x'; LARGE_BYTES_MAX + 1];
        recent.extend(std::iter::once(beyond.as_slice()));
        assert_eq!(recent.newest(5000, |_| true).len(), 1, "the newest is there in any case");
    }
}
