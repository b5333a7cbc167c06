//! CATCH_UP_RATE: the maximum requests per minute for reading the history. Pure.

use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(60);

/// A token bucket that never allows more requests than the rate in any window of 60 s.
#[derive(Debug)]
pub struct Rate {
    burst: f64,
    per_second: f64,
    tokens: f64,
    counted: Option<Instant>,
}

impl Rate {
    /// `per_minute` is at least 1. A tenth of it may be sent at once; the rest is spread.
    pub fn new(per_minute: u32) -> Self {
        let rate = f64::from(per_minute.max(1));
        let burst = (rate / 10.0).floor().max(1.0);
        // A window that begins with a full bucket sees the burst plus the refill.
        let refilled = (rate - burst).max(1.0);
        Self { burst, per_second: refilled / WINDOW.as_secs_f64(), tokens: burst, counted: None }
    }

    /// The wait before the next request; zero if it may be sent now.
    pub fn wait(&mut self, now: Instant) -> Duration {
        let since = self.counted.map_or(Duration::ZERO, |counted| now.saturating_duration_since(counted));
        self.counted = Some(now);
        self.tokens = (self.tokens + since.as_secs_f64() * self.per_second).min(self.burst);
        if self.tokens >= 1.0 {
            return Duration::ZERO;
        }
        // Slightly more than needed, so that rounding never wakes the caller too early.
        Duration::from_secs_f64((1.0 - self.tokens) / self.per_second) + Duration::from_millis(1)
    }

    /// Counts a request.
    pub fn take(&mut self) {
        self.tokens -= 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_minute_sees_more_than_the_rate() {
        for per_minute in [2, 10, 150, 300] {
            let mut rate = Rate::new(per_minute);
            let start = Instant::now();
            let mut now = start;
            let mut sent = Vec::new();
            while now < start + Duration::from_secs(300) {
                match rate.wait(now) {
                    Duration::ZERO => {
                        rate.take();
                        sent.push(now);
                    }
                    wait => now += wait,
                }
                // An idle stretch fills the bucket again: the worst case.
                if sent.len() == 40 && rate.wait(now).is_zero() {
                    now += Duration::from_secs(60);
                }
            }
            for (index, from) in sent.iter().enumerate() {
                let within = sent[index..].iter().take_while(|at| **at - *from < WINDOW).count();
                assert!(within <= per_minute as usize, "{within} of {per_minute}");
            }
            let least = (per_minute * 9 / 10).saturating_sub(1) * 4;
            assert!(sent.len() as u32 >= least, "{} of {per_minute}", sent.len());
        }
    }
}
