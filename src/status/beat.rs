//! Heartbeats, which distinguish a stuck thread from one that waits for work.
//!
//! A thread reports when it begins to wait. A waiting thread is healthy for any length of time, so it need not wake up
//! only to send a heartbeat.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::Clock;

/// A thread that is busy for longer than this without a heartbeat is stalled. Including the time until a hung disk is
/// accessed, this is reported within ten seconds.
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
    /// Milliseconds from the origin to the last heartbeat, or [`WAITING`].
    busy_since_ms: AtomicI64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stalled {
    pub thread: String,
    pub for_ms: i64,
}

impl Beats {
    pub fn new(clock: Clock) -> Self {
        Self { origin: clock.now(), clock, threads: Mutex::default() }
    }

    /// Registers a thread, which starts as waiting. It is removed when the [`Beat`] is dropped.
    pub fn register(&self, thread: &str) -> Beat {
        let pulse = Arc::new(Pulse { thread: thread.to_owned(), busy_since_ms: AtomicI64::new(WAITING) });
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|other| Arc::strong_count(other) > 1);
        threads.push(pulse.clone());
        Beat { pulse, clock: self.clock.clone(), origin: self.origin }
    }

    /// The thread that has been stalled for the longest time.
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

/// The heartbeat of one thread.
pub struct Beat {
    pulse: Arc<Pulse>,
    clock: Clock,
    origin: Instant,
}

impl Beat {
    /// Reports that the thread begins or continues its work.
    pub fn busy(&self) {
        let ms = (self.clock.now() - self.origin).as_millis() as i64;
        self.pulse.busy_since_ms.store(ms, Ordering::Relaxed);
    }

    /// Begins a step with its own timeout, such as a request. Until the guard is dropped, the thread is not considered
    /// stalled.
    pub fn timed(&self) -> Timed<'_> {
        self.waiting();
        Timed(self)
    }

    /// Reports that the thread waits for work.
    pub fn waiting(&self) {
        self.pulse.busy_since_ms.store(WAITING, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Beat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Beat").field(&self.pulse.thread).finish()
    }
}

/// Guard for a step with its own timeout.
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
