//! Waits that grow after each failure, with jitter. Pure, except for the random number.

use std::time::Duration;

use crate::config::Reconnect;

/// Waits from RECONNECT_DELAY to MAX_RECONNECT_DELAY.
#[derive(Clone, Debug)]
pub struct Backoff {
    bounds: Reconnect,
    failures: u32,
}

impl Backoff {
    pub fn new(bounds: &Reconnect) -> Self {
        Self { bounds: bounds.clone(), failures: 0 }
    }

    /// The wait after another failure. `draw` is any number; its lower bits are the jitter.
    pub fn next(&mut self, draw: u64) -> Duration {
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        let max = self.bounds.max_delay.max(self.bounds.delay);
        let base = self.bounds.delay.saturating_mul(1 << doublings).min(max);
        // Between 0.8 and 1.2 of the base, so that many collectors that failed together do not retry together.
        let jittered = base.mul_f64(0.8 + 0.4 * (draw % 1024) as f64 / 1023.0);
        jittered.clamp(self.bounds.delay, max)
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_within_the_bounds_and_begin_anew_after_a_success() {
        let bounds = Reconnect { delay: Duration::from_secs(5), max_delay: Duration::from_secs(60) };
        let mut backoff = Backoff::new(&bounds);
        let waits: Vec<u64> = (0..6).map(|_| backoff.next(512).as_secs()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
        for draw in 0..1024 {
            let wait = backoff.next(draw);
            assert!((Duration::from_secs(48)..=bounds.max_delay).contains(&wait), "{wait:?}");
        }
        backoff.reset();
        assert!(backoff.next(0) >= bounds.delay && backoff.failures() == 1);
    }
}
