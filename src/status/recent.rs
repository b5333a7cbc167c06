//! The newest records in memory, for `/events` and the page.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Maximum number of records.
pub const RECENT_MAX: usize = 1000;
/// Maximum size in bytes when there are more than [`KEPT_MIN`] records: enough for a thousand events of 4 KiB.
const BYTES_MAX: usize = 5 * 1024 * 1024;
/// Number of records that may exceed [`BYTES_MAX`], since `/events` returns this many by default.
const KEPT_MIN: usize = 50;
/// Maximum size in bytes in any case.
const LARGE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Whether `count` records with `bytes` in total reach a limit.
pub fn is_full(count: usize, bytes: usize) -> bool {
    count >= RECENT_MAX || (bytes > BYTES_MAX && count >= KEPT_MIN) || bytes > LARGE_BYTES_MAX
}

/// A line of the file without its line feed, shared by the ring and by responses in progress.
pub type Line = Arc<Vec<u8>>;

/// A ring of lines.
#[derive(Default)]
pub struct Recent(Mutex<Ring>);

#[derive(Default)]
struct Ring {
    lines: VecDeque<Line>,
    bytes: usize,
    /// Number of all lines ever added, so that a reader can ask for newer lines only.
    added: u64,
}

#[derive(Debug, Default)]
pub struct Snapshot {
    /// Oldest first.
    pub lines: Vec<Line>,
    /// The number of the next line. The first line ever added had number 0.
    pub next: u64,
}

impl Snapshot {
    /// The number of the oldest line.
    pub fn first(&self) -> u64 {
        self.next - self.lines.len() as u64
    }

    /// The lines from this number on.
    pub fn since(&self, number: u64) -> &[Line] {
        let skipped = usize::try_from(number.saturating_sub(self.first())).unwrap_or(usize::MAX);
        self.lines.get(skipped..).unwrap_or_default()
    }
}

impl Recent {
    /// Adds lines, oldest first, under one lock. Buffers that no response uses any more are reused.
    pub fn extend<'a>(&self, lines: impl Iterator<Item = &'a [u8]>) {
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for text in lines {
            let mut line = Line::default();
            while is_full(ring.lines.len(), ring.bytes + text.len()) {
                let Some(oldest) = ring.lines.pop_front() else { break };
                ring.bytes -= oldest.len();
                line = oldest;
            }
            match Arc::get_mut(&mut line) {
                Some(buffer) => {
                    buffer.clear();
                    buffer.shrink_to(2 * text.len());
                    buffer.extend_from_slice(text);
                }
                None => line = Arc::new(text.to_vec()),
            }
            ring.bytes += text.len();
            ring.added += 1;
            ring.lines.push_back(line);
        }
    }

    /// Copies the ring. Only references to lines are copied while the lock is held.
    pub fn snapshot(&self) -> Snapshot {
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Snapshot { lines: ring.lines.iter().cloned().collect(), next: ring.added }
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
        let kept = recent.snapshot();
        assert_eq!((kept.lines.len(), kept.first(), kept.next), (1000, 500, 1500));
        assert_eq!((kept.lines[0].as_slice(), kept.lines[999].as_slice()), (&b"500"[..], &b"1499"[..]));
        for (since, expected) in [(0, 1000), (500, 1000), (1498, 2), (1500, 0), (9999, 0)] {
            assert_eq!(kept.since(since).len(), expected, "{since}");
        }
        for (bytes, expected) in [(4096, 1000), (5000, 1000), (50_000, 104), (500_000, 50), (2_000_000, 16)] {
            let line = vec![b'x'; bytes];
            recent.extend(std::iter::repeat_n(line.as_slice(), 1100));
            assert_eq!(recent.snapshot().lines.len(), expected, "{bytes}");
        }
        let beyond = vec![b'x'; LARGE_BYTES_MAX + 1];
        recent.extend(std::iter::once(beyond.as_slice()));
        assert_eq!(recent.snapshot().lines.len(), 1, "the newest is kept in any case");
        assert_eq!(kept.lines[0].as_slice(), b"500", "a snapshot does not change");
    }
}
