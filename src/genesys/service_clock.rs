//! The service's clock: its `Date` headers, advanced by the monotonic clock, so that a wrong or jumping wall clock
//! changes nothing.
//!
//! A single `Date` may be wrong, for example a proxy's. The time therefore jumps only if several answers in a row
//! agree. Until the first answers agree, this machine's clock counts as one answer.

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

/// Times from the service, each converted to the time at the start, so that they can be compared regardless of age.
#[derive(Debug)]
struct Told {
    /// The time in use.
    start: Millis,
    is_known: bool,
    /// Another time, and the number of consecutive answers that agree on it.
    other: Millis,
    agreeing: u32,
}

/// Times that differ by at most this agree: they are in whole seconds, and each answer takes a while to arrive.
const AGREE_MS_MAX: i64 = 5_000;
/// Agreeing times needed for the first known time, including this machine's clock.
const FIRST_AGREEING: u32 = 2;
/// Consecutive agreeing answers needed before a known time jumps.
const JUMP_AGREEING: u32 = 3;

impl ServiceClock {
    pub fn new(clock: Clock) -> Self {
        let start = clock.wall();
        let told = Mutex::new(Told { start, is_known: false, other: start, agreeing: 1 });
        Self { started: clock.now(), clock, told }
    }

    /// The service's time, or this machine's until the service's is known.
    pub fn now(&self) -> Millis {
        self.told().start + self.elapsed_ms()
    }

    /// Whether the service's time is known: two answers agree, or one answer and this machine's clock. Before that,
    /// nothing irreversible may depend on [`ServiceClock::now`].
    pub fn is_known(&self) -> bool {
        self.told().is_known
    }

    /// How far this machine's wall clock is ahead of the service's, in milliseconds.
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
            // Follows small drifts.
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
