//! The service's clock: its `Date` headers, carried on by the monotonic clock, so that a wall clock that jumps or is wrong
//! changes nothing.
//!
//! A single `Date` may be wrong, for example a proxy's. So the time jumps only if several answers in a row agree; until the
//! first of them do, this machine's clock counts as one answer.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::clock::{Clock, Millis};

/// The service's clock.
#[derive(Debug)]
pub struct ServiceClock {
    clock: Clock,
    started: Instant,
    told: Mutex<Told>,
}

/// What the service told of its time. Each time is that at the start: told times are compared without their age.
#[derive(Debug)]
struct Told {
    /// The time that counts.
    start: Millis,
    is_known: bool,
    /// Another time, and how many answers in a row agree on it.
    other: Millis,
    agreeing: u32,
}

/// Times of answers that are not further apart agree: they are in whole seconds, and each takes a while to arrive.
const AGREE_MS_MAX: i64 = 5_000;
/// Witnesses that make the first known time, this machine's clock among them.
const FIRST_AGREEING: u32 = 2;
/// Answers in a row that make a known time jump.
const JUMP_AGREEING: u32 = 3;

impl ServiceClock {
    pub fn new(clock: Clock) -> Self {
        let start = clock.wall();
        let told = Mutex::new(Told { start, is_known: false, other: start, agreeing: 1 });
        Self { started: clock.now(), clock, told }
    }

    /// The service's time; this machine's until it is known.
    pub fn now(&self) -> Millis {
        self.told().start + self.elapsed_ms()
    }

    /// Whether the service's time is known: two answers agree, or one and this machine's clock. Nothing that cannot be
    /// taken back may rest on [`ServiceClock::now`] before.
    pub fn is_known(&self) -> bool {
        self.told().is_known
    }

    /// Milliseconds that this machine's wall clock is ahead of the service's.
    pub fn ahead_ms(&self) -> i64 {
        self.clock.wall() - self.now()
    }

    fn elapsed_ms(&self) -> i64 {
        self.clock.now().duration_since(self.started).as_millis() as i64
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an answer's `Date`.
    pub(super) fn learn(&self, date: Millis) {
        let start = date - self.elapsed_ms();
        let agrees = |other: Millis| (start - other).abs() <= AGREE_MS_MAX;
        let mut told = self.told();
        if told.is_known && agrees(told.start) {
            // Small drifts are followed.
            (told.start, told.agreeing) = (start, 0);
            return;
        }
        told.agreeing = if told.agreeing > 0 && agrees(told.other) { told.agreeing + 1 } else { 1 };
        told.other = start;
        if told.agreeing < if told.is_known { JUMP_AGREEING } else { FIRST_AGREEING } {
            return;
        }
        if told.is_known {
            log::warn!(
                "the service's time changed by {} s: {} answers agree",
                (start - told.start) / 1000,
                told.agreeing
            );
        }
        *told = Told { start, is_known: true, other: start, agreeing: 0 };
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::ManualClock;

    const NOON: Millis = 1_795_430_400_000;
    const DAY: Millis = 24 * 3600 * 1000;

    /// A service's clock on a machine whose wall clock is this far from noon.
    fn clock(off_ms: i64) -> (ServiceClock, ManualClock) {
        let (clock, hand) = Clock::manual(NOON + off_ms);
        (ServiceClock::new(clock), hand)
    }

    #[test]
    fn the_first_date_is_believed_where_this_machines_clock_agrees() {
        let (service, hand) = clock(700);
        assert!(!service.is_known());
        hand.advance(Duration::from_secs(60));
        service.learn(NOON + 60_000);
        assert!(service.is_known());
        assert_eq!((service.now(), service.ahead_ms()), (NOON + 60_000, 700));
    }

    #[test]
    fn with_a_wrong_machines_clock_two_dates_that_agree_are_believed() {
        let (service, hand) = clock(3_600_000);
        service.learn(NOON);
        assert!(!service.is_known());
        assert_eq!(service.now(), NOON + 3_600_000, "nothing is known yet");
        hand.advance(Duration::from_secs(10));
        service.learn(NOON + 9_000);
        assert!(service.is_known());
        assert_eq!(service.now(), NOON + 9_000);
    }

    #[test]
    fn a_wrong_first_date_is_outvoted() {
        for off_ms in [0, 3_600_000] {
            let (service, _hand) = clock(off_ms);
            service.learn(NOON + DAY);
            assert!(!service.is_known());
            service.learn(NOON);
            service.learn(NOON);
            assert!(service.is_known());
            assert_eq!(service.now(), NOON, "{off_ms}");
        }
    }

    #[test]
    fn single_wrong_dates_move_nothing_and_three_that_agree_do() {
        let (service, hand) = clock(0);
        service.learn(NOON);
        for wrong in [DAY, -DAY, 2 * DAY, DAY] {
            service.learn(NOON + wrong);
            assert_eq!(service.now(), NOON, "{wrong}");
        }
        service.learn(NOON);
        for _ in 0..5 {
            service.learn(NOON + DAY);
            service.learn(NOON + DAY);
            service.learn(NOON);
            assert_eq!(service.now(), NOON, "a right answer comes between");
        }
        for after_s in [0, 60, 120] {
            assert!(service.now() < NOON + DAY);
            hand.advance(Duration::from_secs(60));
            service.learn(NOON + 3_600_000 + after_s * 1000);
        }
        assert_eq!(service.now(), NOON + 3_720_000, "as after a suspension");
    }

    #[test]
    fn small_drifts_are_followed() {
        let (service, hand) = clock(0);
        service.learn(NOON);
        for minute in 1..=100 {
            hand.advance(Duration::from_secs(60));
            service.learn(NOON + minute * 61_000);
            assert_eq!(service.now(), NOON + minute * 61_000);
        }
    }
}
