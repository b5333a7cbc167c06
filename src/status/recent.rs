//! The newest records, in memory: what `/events` and the page show without reading a file.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

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

/// A line of the file without its line feed, shared by the ring and the answers that still show it.
pub type Line = Arc<Vec<u8>>;

/// A ring of lines.
#[derive(Default)]
pub struct Recent(Mutex<Ring>);

#[derive(Default)]
struct Ring {
    lines: VecDeque<Line>,
    bytes: usize,
    /// Counts every line that was ever added: a reader can ask for what is newer than it saw.
    added: u64,
}

/// The ring at one instant.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Oldest first.
    pub lines: Vec<Line>,
    /// The number of the line that will be added next. The first line ever added had number 0.
    pub next: u64,
}

impl Snapshot {
    /// The number of the oldest line.
    pub fn first(&self) -> u64 {
        self.next - self.lines.len() as u64
    }

    /// The lines with this number and above.
    pub fn since(&self, number: u64) -> &[Line] {
        let skipped = usize::try_from(number.saturating_sub(self.first())).unwrap_or(usize::MAX);
        self.lines.get(skipped..).unwrap_or_default()
    }
}

impl Recent {
    /// Adds lines, oldest first. One lock for all of them; buffers that no answer shows any more are used again.
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

    /// What is kept now. The lock is held while a thousand references are copied, no line.
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
