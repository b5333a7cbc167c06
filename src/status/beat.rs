//! Heartbeats: a thread that is stuck is distinguished from one that waits for work.
//!
//! A thread marks when it begins to wait; a waiting thread is healthy however long it waits, so that none has to wake up
//! only to show that it lives.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::Clock;

/// A thread that has been at one piece of work for longer than this is stalled: with the seconds until a hung disk is met
/// at all, it is reported within ten.
pub const STALLED_AFTER: Duration = Duration::from_secs(6);

const WAITING: i64 = -1;

/// All heartbeats.
pub struct Beats {
    clock: Clock,
    origin: Instant,
    threads: Mutex<Vec<Arc<Pulse>>>,
}

struct Pulse {
    thread: String,
    /// Milliseconds from the origin to the last sign of life, or [`WAITING`].
    busy_since_ms: AtomicI64,
}

/// A thread that does not move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stalled {
    pub thread: String,
    pub for_ms: i64,
}

impl Beats {
    pub fn new(clock: Clock) -> Self {
        Self { origin: clock.now(), clock, threads: Mutex::default() }
    }

    /// A pulse for the thread of this name; it starts out waiting, and goes when the [`Beat`] is dropped.
    pub fn register(&self, thread: &str) -> Beat {
        let pulse = Arc::new(Pulse { thread: thread.to_owned(), busy_since_ms: AtomicI64::new(WAITING) });
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|other| Arc::strong_count(other) > 1);
        threads.push(pulse.clone());
        Beat { pulse, clock: self.clock.clone(), origin: self.origin }
    }

    /// The thread that has stood still the longest beyond its limit.
    pub fn stalled(&self) -> Option<Stalled> {
        let now_ms = (self.clock.now() - self.origin).as_millis() as i64;
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads
            .iter()
            .filter(|pulse| Arc::strong_count(pulse) > 1)
            .filter_map(|pulse| {
                let since = pulse.busy_since_ms.load(Ordering::Relaxed);
                let for_ms = now_ms - since;
                (since != WAITING && for_ms > STALLED_AFTER.as_millis() as i64)
                    .then(|| Stalled { thread: pulse.thread.clone(), for_ms })
            })
            .max_by_key(|stalled| stalled.for_ms)
    }
}

/// One thread's own pulse.
pub struct Beat {
    pulse: Arc<Pulse>,
    clock: Clock,
    origin: Instant,
}

impl Beat {
    /// A sign of life: a piece of work begins, or goes on.
    pub fn busy(&self) {
        let ms = (self.clock.now() - self.origin).as_millis() as i64;
        self.pulse.busy_since_ms.store(ms, Ordering::Relaxed);
    }

    /// A step with time limits of its own, such as a request: until the guard is dropped its length says nothing.
    pub fn timed(&self) -> Timed<'_> {
        self.waiting();
        Timed(self)
    }

    /// Nothing to do until something comes.
    pub fn waiting(&self) {
        self.pulse.busy_since_ms.store(WAITING, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Beat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Beat").field(&self.pulse.thread).finish()
    }
}

/// While it lives, the thread is in a step that ends by itself.
pub struct Timed<'a>(&'a Beat);

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        self.0.busy();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_works_without_moving_is_stalled_and_one_that_waits_is_not() {
        let (clock, hand) = Clock::manual(0);
        let beats = Beats::new(clock);
        let (writer, reader) = (beats.register("writer"), beats.register("reader"));
        writer.busy();
        reader.busy();
        reader.waiting();
        hand.advance(STALLED_AFTER + Duration::from_secs(1));
        assert_eq!(beats.stalled(), Some(Stalled { thread: "writer".into(), for_ms: 7000 }));
        writer.busy();
        assert_eq!(beats.stalled(), None);
    }
}
