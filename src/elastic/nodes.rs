//! Which node is next, when, and how long a request may take.
//!
//! One backoff with jitter for the cluster, and `Retry-After` for a node. Touches no socket and reads no clock: every
//! instant is handed in.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

/// From the start of one try to the start of the next, while none succeeds: doubling from the first to the longest, so that
/// a cluster's return is seen within ten seconds.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(8);
/// A node that failed is tried again after this while another one works.
const RETURN_EVERY: Duration = Duration::from_secs(20);
/// What all nodes together may take to be found hanging, and the least that each gets.
const TIMEOUT_ALL: Duration = Duration::from_secs(8);
const TIMEOUT_MIN: Duration = Duration::from_millis(2500);
/// The most that a request gets after others were too slow.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// Answers in time, one after the other, before the time is shortened again.
const STEADY_ANSWERS: u32 = 50;
/// Percent by which a wait may be shorter, so that clients that failed together do not come back together.
const JITTER_PERCENT: u64 = 10;

struct Node {
    /// It failed when it was last used.
    down: bool,
    /// It asked for a wait, or failed while others work.
    not_before: Instant,
}

/// What is known of the nodes, and the backoff that they share.
pub struct Nodes {
    nodes: Vec<Node>,
    /// Tries without a success, one after the other.
    failures: u32,
    /// Requests failed as a whole: only a little is sent.
    trial: bool,
    tried_at: Instant,
    /// No try before this instant.
    hold_until: Instant,
    /// How often the time for a request was doubled.
    slow: u32,
    steady: u32,
    random: u64,
}

impl Nodes {
    pub fn new(count: usize, now: Instant) -> Self {
        Self {
            nodes: (0..count).map(|_| Node { down: false, not_before: now }).collect(),
            failures: 0,
            trial: false,
            tried_at: now,
            hold_until: now,
            slow: 0,
            steady: 0,
            random: RandomState::new().hash_one(now) | 1,
        }
    }

    /// The node to try next and when: the one that was not used for the longest time, unless it failed lately.
    pub fn next(&self) -> (usize, Instant) {
        let due = |node: usize| self.nodes[node].not_before.max(self.hold_until);
        let node = (0..self.nodes.len()).min_by_key(|node| (due(*node), self.nodes[*node].not_before)).unwrap_or(0);
        (node, due(node))
    }

    pub fn all_down(&self) -> bool {
        self.nodes.iter().all(|node| node.down)
    }

    /// Whether the last requests, or the last to this node, failed as a whole: then only a little is sent.
    pub fn is_trial(&self, node: usize) -> bool {
        self.trial || self.nodes[node].down
    }

    /// How long a request may take.
    pub fn timeout(&self, node: usize) -> Duration {
        let base = (TIMEOUT_ALL / self.nodes.len() as u32).max(TIMEOUT_MIN);
        if self.is_trial(node) { base } else { (base * 2u32.pow(self.slow.min(5))).min(TIMEOUT_MAX) }
    }

    /// A try begins.
    pub fn trying(&mut self, now: Instant) {
        self.tried_at = now;
    }

    /// The node answered, whatever it said of the documents.
    pub fn answered(&mut self, node: usize, now: Instant) {
        self.nodes[node] = Node { down: false, not_before: now };
    }

    /// Documents were taken or judged for good.
    pub fn succeeded(&mut self, now: Instant) {
        (self.failures, self.trial) = (0, false);
        self.hold_until = now;
        self.steady += 1;
        if self.steady >= STEADY_ANSWERS {
            self.steady = 0;
            self.slow = self.slow.saturating_sub(1);
        }
    }

    /// The node did not take the request: another one that works is next, at once. `retry_after`: what it asked for.
    pub fn failed(&mut self, node: usize, timed_out: bool, retry_after: Option<Duration>, now: Instant) {
        if timed_out && !self.is_trial(node) {
            self.slow += 1;
        }
        self.steady = 0;
        self.nodes[node].down = true;
        if !self.all_down() {
            self.nodes[node].not_before = now + retry_after.unwrap_or(RETURN_EVERY);
            return;
        }
        if self.failures == 0 {
            // Those that failed while others worked need not wait any longer.
            self.nodes.iter_mut().for_each(|node| node.not_before = node.not_before.min(now));
        }
        self.nodes[node].not_before = now + retry_after.unwrap_or_default();
        self.trial = true;
        self.back_off(now);
    }

    /// The cluster answers and takes no document: again after the backoff.
    pub fn back_off(&mut self, now: Instant) {
        self.failures += 1;
        let doubled = BACKOFF_FIRST * 2u32.pow(self.failures.saturating_sub(1).min(6));
        let wait = self.jittered(doubled.min(BACKOFF_MAX));
        self.hold_until = now.max(self.tried_at + wait);
    }

    /// Nothing is tried before this wait is over: only a try can tell that the cause is gone.
    pub fn hold(&mut self, wait: Duration, now: Instant) {
        self.failures += 1;
        self.trial = true;
        self.hold_until = now + self.jittered(wait);
    }

    fn jittered(&mut self, wait: Duration) -> Duration {
        // Xorshift: spreading clients needs no better.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        wait - wait * (self.random % (JITTER_PERCENT + 1)) as u32 / 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_waits_double_up_to_eight_seconds_from_try_to_try() {
        let mut now = Instant::now();
        let mut nodes = Nodes::new(1, now);
        for seconds in [1, 2, 4, 8, 8, 8] {
            nodes.trying(now);
            nodes.failed(0, false, None, now + SECOND / 2);
            let (_, at) = nodes.next();
            assert!(at <= now + SECOND * seconds && at >= now + SECOND * seconds * 9 / 10, "{:?}", at - now);
            now = at;
        }
        nodes.answered(0, now);
        nodes.succeeded(now);
        assert!(!nodes.is_trial(0) && nodes.next().1 <= now);
    }

    #[test]
    fn a_try_that_hangs_for_its_whole_time_is_followed_by_the_next_at_once() {
        let now = Instant::now();
        let mut nodes = Nodes::new(1, now);
        for _ in 0..5 {
            nodes.trying(now);
            nodes.failed(0, true, None, now + nodes.timeout(0));
        }
        assert!(nodes.timeout(0) <= 8 * SECOND, "a return is seen within ten seconds");
        assert!(nodes.next().1 <= now + 8 * SECOND);
        nodes.answered(0, now);
        nodes.succeeded(now);
        assert_eq!(nodes.timeout(0), 16 * SECOND, "a cluster that is slow gets more time");
    }

    #[test]
    fn of_several_nodes_those_that_work_take_turns_and_one_that_failed_is_looked_at_again() {
        let now = Instant::now();
        let mut nodes = Nodes::new(3, now);
        for (n, node) in (1..).zip([0, 1, 2, 0]) {
            assert_eq!(nodes.next().0, node);
            nodes.answered(node, now + SECOND * n / 1000);
        }
        let now = now + SECOND;
        nodes.failed(1, false, None, now);
        assert_eq!((nodes.next().0, nodes.is_trial(0), nodes.is_trial(1)), (2, false, true));
        nodes.answered(2, now);
        assert_eq!(nodes.next().0, 0);
        nodes.answered(0, now + 21 * SECOND);
        nodes.answered(2, now + 21 * SECOND);
        assert_eq!(nodes.next(), (1, now + 20 * SECOND));
        let now = now + 20 * SECOND;
        nodes.failed(2, false, None, now);
        nodes.trying(now);
        nodes.failed(0, false, Some(5 * SECOND), now);
        assert!(nodes.all_down() && nodes.next().0 != 0, "the one that asked for a wait is not the next");
        assert!(nodes.next().1 <= now + SECOND);
    }

    #[test]
    fn the_wait_that_a_cluster_asks_for_is_kept_to() {
        let now = Instant::now();
        let mut nodes = Nodes::new(1, now);
        nodes.failed(0, false, Some(60 * SECOND), now);
        assert_eq!(nodes.next().1, now + 60 * SECOND);
    }
}
