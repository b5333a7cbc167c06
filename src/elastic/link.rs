//! When to send, where to, and how long to wait after a failure.
//!
//! Deals with: which nodes answer, the backoff, `Retry-After`, the probes that see a cluster come back, and since when
//! documents do not go. Must never: touch a socket or read a clock; every instant is handed in.

use std::time::{Duration, Instant};

/// The first wait after a failure; it doubles up to the longest.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Between two tries while the login is refused.
const REFUSED_WAIT: Duration = Duration::from_secs(30);
/// Between two tries while the index takes no writes: only a try can tell.
const READ_ONLY_WAIT: Duration = Duration::from_secs(8);
/// Before documents that were put off go again, if all were; with fewer of them it is shorter in proportion.
const LEFT_OVER_WAIT: Duration = Duration::from_millis(100);
/// Each node is probed this often while none answers.
const PROBE_EVERY: Duration = Duration::from_secs(4);
/// Before the first of those probes.
const PROBE_SOON: Duration = Duration::from_secs(1);
/// A node that failed is looked at again this often while another one works.
const RETURN_EVERY: Duration = Duration::from_secs(30);
/// An idle cluster is probed this often, so that its end is known before the next document.
const IDLE_PROBE_EVERY: Duration = Duration::from_secs(6);
/// Time for a probe.
pub const PROBE_TIMEOUT: Duration = Duration::from_millis(2500);
/// Documents that have not gone for this long are said.
pub const BLOCKED_AFTER: Duration = Duration::from_secs(5);
/// The shortest and the longest time that a bulk request is given.
const BULK_TIMEOUT_MIN: Duration = Duration::from_millis(2500);
const BULK_TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// The time that a try gets at a node that did not answer the last time.
const DOWN_TIMEOUT: Duration = Duration::from_secs(4);
/// While probes are answered and documents are not taken, one document is the probe: only it can tell that this is over.
/// It goes this often, from try to try, and is given up in time for the next one.
const TRIAL_EVERY: Duration = Duration::from_secs(8);
const TRIAL_TIMEOUT: Duration = Duration::from_secs(8);
/// What all nodes together may take to be found hanging.
const BULK_TIMEOUT_ALL: Duration = Duration::from_secs(9);
/// Answers in time, one after the other, before the time given is shortened again.
const STEADY_ANSWERS: u32 = 50;
/// Tries in one outage for which a probe's answer is enough, though no probe has failed.
const SHORTCUTS_MAX: u32 = 2;

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Bulk {
        node: usize,
        timeout: Duration,
    },
    Probe {
        node: usize,
    },
    Setup {
        node: usize,
    },
    /// Nothing before this instant.
    Wait(Instant),
}

/// What is known of the way to the cluster.
pub struct Link {
    nodes: Vec<Node>,
    /// The node whose turn is next.
    turn: usize,
    /// Tries that brought nothing on, one after the other.
    failures: u32,
    next_bulk: Option<Instant>,
    /// Nothing shortens the wait before this: the login is refused, or somebody asked us to wait.
    held_until: Option<Instant>,
    /// Only a little is sent, for it will most likely be refused.
    trial: bool,
    /// The first probe came back.
    greeted: bool,
    /// A node took documents before any probe of it came back: it is asked, once, who it is.
    naming: Naming,
    bulk_failed: bool,
    probe_failed: bool,
    shortcuts: u32,
    /// When documents were sent last.
    sent_at: Instant,
    /// Whether the template is this program's business at all.
    setup: bool,
    setup_due: bool,
    timeout: Duration,
    steady: u32,
    last_contact: Instant,
    blocked_since: Option<Instant>,
    random: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Naming {
    Unasked,
    Due,
    Asked,
}

struct Node {
    /// It answered last time.
    up: bool,
    not_before: Option<Instant>,
    probe_at: Instant,
}

impl Link {
    /// The first thing is a probe: who is there?
    pub fn new(nodes: usize, setup: bool, seed: u64, now: Instant) -> Self {
        Self {
            nodes: (0..nodes).map(|_| Node { up: false, not_before: None, probe_at: now }).collect(),
            turn: 0,
            failures: 0,
            next_bulk: None,
            held_until: None,
            trial: false,
            greeted: false,
            naming: Naming::Unasked,
            bulk_failed: false,
            probe_failed: false,
            shortcuts: 0,
            sent_at: now,
            setup,
            setup_due: setup,
            timeout: base_timeout(nodes),
            steady: 0,
            last_contact: now,
            blocked_since: Some(now),
            random: seed | 1,
        }
    }

    /// What to do; `due` is when documents want to go.
    pub fn next(&self, now: Instant, due: Option<Instant>) -> Next {
        let turns = (0..self.nodes.len()).map(|step| (self.turn + step) % self.nodes.len());
        let free_at = |node: &usize| self.nodes[*node].not_before.filter(|at| *at > now).unwrap_or(now);
        let up = turns.clone().filter(|node| self.nodes[*node].up).min_by_key(free_at);
        if let Some(node) = up.filter(|_| self.setup_due) {
            return Next::Setup { node };
        }
        if let Some(node) = up.filter(|_| self.naming == Naming::Due) {
            return Next::Probe { node };
        }
        let mut wake = now + IDLE_PROBE_EVERY;
        // Seldom, and so before the documents: under a steady load nobody would come back else.
        for node in turns.clone().filter(|node| !self.nodes[*node].up) {
            if self.nodes[node].probe_at <= now {
                return Next::Probe { node };
            }
            wake = wake.min(self.nodes[node].probe_at);
        }
        // Documents go to a node that answers; when none does, one goes to the next one once the wait is over, for a probe
        // may be kept out where documents are not. None overtakes the template: an index that a document makes without
        // it has the wrong mapping for good.
        if let Some(due) = due.filter(|_| self.greeted)
            && let Some(node) = up.or_else(|| turns.clone().min_by_key(free_at))
        {
            let at = due.max(self.next_bulk.unwrap_or(due)).max(free_at(&node));
            if at <= now && self.setup_due {
                return Next::Setup { node };
            }
            if at <= now {
                let timeout = match up {
                    Some(_) if self.trial => TRIAL_TIMEOUT,
                    Some(_) => self.timeout,
                    None => DOWN_TIMEOUT,
                };
                return Next::Bulk { node, timeout };
            }
            wake = wake.min(at);
        }
        if let Some(node) = up {
            // A login that is refused is not tried in between.
            let idle = (self.last_contact + IDLE_PROBE_EVERY).max(self.next_bulk.unwrap_or(now));
            if idle <= now {
                return Next::Probe { node };
            }
            wake = wake.min(idle);
        }
        Next::Wait(wake)
    }

    /// Whether only a little is to be sent.
    pub fn is_trial(&self) -> bool {
        self.trial || !self.any_up()
    }

    /// Documents are under way.
    pub fn sent(&mut self, now: Instant) {
        self.sent_at = now;
        self.blocked_since.get_or_insert(now);
    }

    /// Documents were taken, or judged for good; `left_over` ones of those that were sent go again.
    pub fn progressed(&mut self, node: usize, left_over: usize, sent: usize, now: Instant) {
        self.answered(node, now);
        self.failures = 0;
        self.shortcuts = 0;
        (self.bulk_failed, self.probe_failed) = (false, false);
        self.blocked_since = None;
        self.next_bulk = (left_over > 0).then(|| now + LEFT_OVER_WAIT * left_over as u32 / sent.max(1) as u32);
        self.steady += 1;
        if self.steady > STEADY_ANSWERS {
            self.steady = 0;
            self.timeout = (self.timeout / 2).max(base_timeout(self.nodes.len()));
        }
    }

    /// The node answers, and the documents were all put off.
    pub fn put_off(&mut self, node: usize, now: Instant) {
        self.answered(node, now);
        self.bulk_failed = true;
        self.failures += 1;
        // Others may go by now: the whole request is sent again.
        let wait = self.backoff().min(TRIAL_EVERY);
        self.next_bulk = Some(now + self.jittered(wait, 10));
    }

    /// The files cannot be read just now.
    pub fn pause(&mut self, now: Instant) {
        self.failures += 1;
        self.next_bulk = Some(now + self.backoff());
    }

    /// Nothing was wrong but the request's size: at once again, smaller.
    pub fn again(&mut self, node: usize, now: Instant) {
        self.answered(node, now);
        self.next_bulk = None;
    }

    /// The login was refused: by one node as by all.
    pub fn refused(&mut self, node: usize, now: Instant) {
        self.hold(node, REFUSED_WAIT, now);
    }

    /// The index takes no writes.
    pub fn read_only(&mut self, node: usize, now: Instant) {
        self.hold(node, READ_ONLY_WAIT, now);
    }

    fn hold(&mut self, node: usize, wait: Duration, now: Instant) {
        self.answered(node, now);
        self.bulk_failed = true;
        (self.greeted, self.naming) = (true, Naming::Asked);
        self.next_bulk = Some(now + self.jittered(wait, 10));
        (self.held_until, self.trial) = (self.next_bulk, true);
    }

    /// The node did not take the request. Another one that answers is tried at once.
    pub fn failed(&mut self, node: usize, timed_out: bool, retry_after: Option<Duration>, now: Instant) {
        self.nodes[node].up = false;
        self.nodes[node].not_before = retry_after.map(|wait| now + wait);
        self.turn = (node + 1) % self.nodes.len();
        self.steady = 0;
        self.bulk_failed = true;
        if timed_out && !self.trial {
            self.timeout = (self.timeout * 2).min(BULK_TIMEOUT_MAX);
        }
        (self.held_until, self.trial) = (None, false);
        if self.any_up() {
            self.nodes[node].probe_at = now + RETURN_EVERY;
            self.next_bulk = None;
            return;
        }
        // None is left: those that failed before are looked at again soon.
        for state in &mut self.nodes {
            state.probe_at = state.probe_at.min(now + PROBE_SOON);
        }
        self.nodes[node].probe_at = now + PROBE_SOON;
        self.failures += 1;
        (self.held_until, self.trial) = (retry_after.map(|wait| now + wait), true);
        let wait = self.backoff();
        self.next_bulk = Some(now + wait.max(retry_after.unwrap_or_default()));
    }

    /// The node did not let the template be seen to. Of documents that says nothing.
    pub fn setup_failed(&mut self, node: usize, now: Instant) {
        let bulk_failed = self.bulk_failed;
        self.failed(node, false, None, now);
        self.bulk_failed = bulk_failed;
    }

    /// A probe came back.
    pub fn probed(&mut self, node: usize, alive: bool, now: Instant) {
        let was_up = self.any_up();
        let last_contact = std::mem::replace(&mut self.last_contact, now);
        self.greeted = true;
        if alive || self.naming == Naming::Due {
            self.naming = Naming::Asked;
        }
        self.nodes[node].up = alive;
        if alive {
            if !was_up {
                self.came_back(node, now);
            }
            return;
        }
        if self.any_up() {
            self.nodes[node].probe_at = now + RETURN_EVERY;
            return;
        }
        // None is left: those that failed before are looked at again soon, each in its turn.
        let count = self.nodes.len();
        for step in 1..count {
            let other = &mut self.nodes[(node + step) % count];
            other.probe_at = other.probe_at.min(now + PROBE_EVERY * step as u32 / count as u32);
        }
        self.nodes[node].probe_at = now + PROBE_EVERY;
        self.probe_failed = true;
        self.blocked_since.get_or_insert(last_contact);
        if self.next_bulk.is_none() {
            self.failures += 1;
            self.next_bulk = Some(now + self.backoff());
        }
    }

    /// None of them answered, and now this one does.
    fn came_back(&mut self, node: usize, now: Instant) {
        self.setup_due |= self.setup && self.probe_failed;
        if !self.bulk_failed {
            self.blocked_since = None;
        }
        let soonest = if self.probe_failed || self.shortcuts < SHORTCUTS_MAX {
            self.shortcuts += u32::from(!self.probe_failed);
            now
        } else {
            self.sent_at + self.jittered(TRIAL_EVERY, 10)
        };
        let soonest = self.held_until.map_or(soonest, |held| held.max(soonest));
        self.next_bulk = self.next_bulk.map(|at| at.min(soonest));
        self.turn = node;
        self.probe_failed = false;
    }

    /// The node answered, and the template was seen to, or cannot be.
    pub fn set_up(&mut self, node: usize, now: Instant) {
        if self.naming == Naming::Unasked {
            self.naming = Naming::Due;
        }
        self.nodes[node].up = true;
        self.last_contact = now;
        self.setup_due = false;
    }

    /// Since when documents do not go, or would not, whatever node they are given to; `in_flight` is the one that has
    /// some. A node that works and was not tried yet speaks against it.
    pub fn blocked_since(&self, in_flight: Option<usize>) -> Option<Instant> {
        let others_work = self.nodes.iter().enumerate().any(|(node, state)| state.up && Some(node) != in_flight);
        self.blocked_since.filter(|_| self.nodes.len() == 1 || !others_work || self.failures > 0)
    }

    fn answered(&mut self, node: usize, now: Instant) {
        if self.naming == Naming::Unasked {
            self.naming = Naming::Due;
        }
        self.nodes[node].up = true;
        self.nodes[node].not_before = None;
        self.turn = (node + 1) % self.nodes.len();
        self.last_contact = now;
        (self.held_until, self.trial) = (None, false);
    }

    fn any_up(&self) -> bool {
        self.nodes.iter().any(|node| node.up)
    }

    /// Doubling from the first to the longest, each between a half and the whole of it.
    fn backoff(&mut self) -> Duration {
        let doubled = BACKOFF_FIRST * 2u32.pow(self.failures.saturating_sub(1).min(6));
        self.jittered(doubled.min(BACKOFF_MAX), 50)
    }

    /// Shorter by up to so many percent.
    fn jittered(&mut self, whole: Duration, percent_max: u32) -> Duration {
        // Xorshift: spreading clients that failed together needs no better.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        whole - whole * (self.random % u64::from(percent_max + 1)) as u32 / 100
    }
}

fn base_timeout(nodes: usize) -> Duration {
    (BULK_TIMEOUT_ALL / nodes as u32).max(BULK_TIMEOUT_MIN)
}

#[cfg(test)]
mod tests;
