//! Limits how often the same kind of line is logged, and counts the lines beyond the limit.

use std::time::{Duration, Instant};

/// Allows a number of lines in each window and counts the others. The caller reads the clock, once for a whole batch.
#[derive(Debug)]
pub struct Rate {
    lines_max: u32,
    window: Duration,
    since: Option<Instant>,
    used: u32,
    held_back: u64,
}

impl Rate {
    /// At most `lines_max` lines in each `window`.
    pub fn new(lines_max: u32, window: Duration) -> Self {
        Self { lines_max, window, since: None, used: 0, held_back: 0 }
    }

    /// Whether one more line may be logged now. A refused line is counted.
    pub fn allow(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.duration_since(since) >= self.window) {
            self.since = Some(now);
            self.used = 0;
        }
        if self.used < self.lines_max {
            self.used += 1;
            return true;
        }
        self.held_back += 1;
        false
    }

    /// How many more lines may be logged now.
    pub fn left(&self, now: Instant) -> u32 {
        if self.since.is_none_or(|since| now.duration_since(since) >= self.window) {
            return self.lines_max;
        }
        self.lines_max.saturating_sub(self.used)
    }

    /// Counts lines for which the caller did not call [`Rate::allow`].
    pub fn hold_back(&mut self, count: u64) {
        self.held_back += count;
    }

    /// The number of lines held back, once their window has ended, to log as one line. `None` if there is none.
    pub fn take_held_back(&mut self, now: Instant) -> Option<u64> {
        let over = self.since.is_none_or(|since| now.duration_since(since) >= self.window);
        (self.held_back > 0 && over).then(|| std::mem::take(&mut self.held_back))
    }

    /// When [`Rate::take_held_back`] will return a number. `None` if nothing was held back.
    pub fn due(&self) -> Option<Instant> {
        self.since.filter(|_| self.held_back > 0).map(|since| since + self.window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_rate_are_counted_and_reported_once() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut rate = Rate::new(2, Duration::from_secs(1));
        assert_eq!(rate.due(), None);
        assert_eq!(
            [rate.allow(at(0)), rate.allow(at(1)), rate.allow(at(2)), rate.allow(at(999))],
            [true, true, false, false]
        );
        assert_eq!(rate.take_held_back(at(999)), None);
        assert_eq!(rate.due(), Some(at(1000)));
        assert_eq!(rate.take_held_back(at(1000)), Some(2));
        assert_eq!(rate.take_held_back(at(1000)), None);
        assert!(rate.allow(at(1000)));
    }
}
