//! Chooses the next node, the time of the next request, and its timeout.
//!
//! The whole cluster shares one backoff with jitter; `Retry-After` applies to a single node. This module does no I/O
//! and reads no clock: the current time is a parameter.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

/// The backoff, from the start of one attempt to the start of the next. It doubles from the first value to the maximum,
/// which is short enough to notice within ten seconds that a cluster is back.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(8);
/// Retry interval for a failed node while another one works.
const RETURN_EVERY: Duration = Duration::from_secs(20);
/// The sum of the initial timeouts of all nodes, so that hanging nodes are noticed within this time.
const TIMEOUT_ALL: Duration = Duration::from_secs(8);
/// The minimum timeout of each node.
const TIMEOUT_MIN: Duration = Duration::from_millis(2500);
/// The maximum timeout, reached after several requests timed out.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// Successful requests in a row before the timeout is shortened again.
const STEADY_ANSWERS: u32 = 50;
/// Maximum percentage by which a wait is shortened at random, so that clients that failed together do not retry
/// together.
const JITTER_PERCENT: u64 = 10;

struct Node {
    /// Whether the last request to the node failed.
    down: bool,
    /// No request before this time: the node sent `Retry-After`, or failed while another node works.
    not_before: Instant,
}

/// The state of the nodes, and the backoff that they share.
pub struct Nodes {
    nodes: Vec<Node>,
    /// Failed attempts since the last success.
    failures: u32,
    /// Whether all nodes failed, so that requests hold a single document.
    trial: bool,
    tried_at: Instant,
    /// No attempt before this time.
    hold_until: Instant,
    /// How many times the timeout was doubled.
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

    /// The node to use next, and when. This is the least recently used node that is not waiting after a failure.
    pub fn next(&self) -> (usize, Instant) {
        let due = |node: usize| self.nodes[node].not_before.max(self.hold_until);
        let node = (0..self.nodes.len()).min_by_key(|node| (due(*node), self.nodes[*node].not_before)).unwrap_or(0);
        (node, due(node))
    }

    pub fn all_down(&self) -> bool {
        self.nodes.iter().all(|node| node.down)
    }

    /// Whether all nodes, or this one, failed, so that the next request holds a single document.
    pub fn is_trial(&self, node: usize) -> bool {
        self.trial || self.nodes[node].down
    }

    /// The timeout of the next request to this node.
    pub fn timeout(&self, node: usize) -> Duration {
        let base = (TIMEOUT_ALL / self.nodes.len() as u32).max(TIMEOUT_MIN);
        if self.is_trial(node) { base } else { (base * 2u32.pow(self.slow.min(5))).min(TIMEOUT_MAX) }
    }

    /// Records the start of an attempt.
    pub fn trying(&mut self, now: Instant) {
        self.tried_at = now;
    }

    /// Records that the node handled a request, even if it rejected documents.
    pub fn answered(&mut self, node: usize, now: Instant) {
        self.nodes[node] = Node { down: false, not_before: now };
    }

    /// Records that documents were accepted or finally rejected.
    pub fn succeeded(&mut self, now: Instant) {
        (self.failures, self.trial) = (0, false);
        self.hold_until = now;
        self.steady += 1;
        if self.steady >= STEADY_ANSWERS {
            self.steady = 0;
            self.slow = self.slow.saturating_sub(1);
        }
    }

    /// Records that a request failed. If another node works, it is used at once. `retry_after`: the delay that the node
    /// asked for.
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
            // The nodes that failed earlier, while others worked, may be tried at once.
            self.nodes.iter_mut().for_each(|node| node.not_before = node.not_before.min(now));
        }
        self.nodes[node].not_before = now + retry_after.unwrap_or_default();
        self.trial = true;
        self.back_off(now);
    }

    /// Delays the next attempt by the backoff.
    pub fn back_off(&mut self, now: Instant) {
        self.failures += 1;
        let doubled = BACKOFF_FIRST * 2u32.pow(self.failures.saturating_sub(1).min(6));
        let wait = self.jittered(doubled.min(BACKOFF_MAX));
        self.hold_until = now.max(self.tried_at + wait);
    }

    /// Delays the next attempt by a fixed time, for a cause that only a retry can show to be fixed.
    pub fn hold(&mut self, wait: Duration, now: Instant) {
        self.failures += 1;
        self.trial = true;
        self.hold_until = now + self.jittered(wait);
    }

    fn jittered(&mut self, wait: Duration) -> Duration {
        // Xorshift is good enough for jitter.
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
