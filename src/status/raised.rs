//! The raised reasons, and the limit on logging them. A reason that comes and goes must not flood the log, but one that
//! lasts must always be logged.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::reason::{Code, Problem, Reason};
use crate::clock::Millis;

/// Maximum number of times that a code is logged as raised within [`WINDOW`]. Clearing it is logged as often.
const LOGGED_MAX: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Reasons {
    raised: BTreeMap<Code, Raised>,
    logged: BTreeMap<Code, Logged>,
}

struct Raised {
    reason: Reason,
    is_logged: bool,
}

/// When a code was logged, and how many times since then it was raised without being logged.
#[derive(Default)]
struct Logged {
    times: VecDeque<Instant>,
    left_out: u32,
}

impl Logged {
    fn may_log(&mut self, now: Instant) -> bool {
        while self.times.front().is_some_and(|at| now.duration_since(*at) >= WINDOW) {
            self.times.pop_front();
        }
        let may = self.times.len() < LOGGED_MAX;
        if may {
            self.times.push_back(now);
        }
        may
    }
}

impl Reasons {
    /// Raises a reason, or replaces its text. If it is to be logged, returns how many times it was raised without being
    /// logged. A reason is not logged while another raised reason is its cause.
    pub fn raise(&mut self, code: Code, problem: Problem, since: Millis, now: Instant) -> Option<u32> {
        let is_new = !self.raised.contains_key(&code);
        let raised = self.raised.entry(code).or_insert_with(|| Raised {
            reason: Reason { code, since, problem: Problem::default() },
            is_logged: false,
        });
        raised.reason.problem = problem;
        let is_logged = raised.is_logged;
        if is_logged || code.is_derived(&self.codes()) {
            return None;
        }
        // A lasting reason that could not be logged before is logged as soon as the limit allows.
        let logged = self.logged.entry(code).or_default();
        if !logged.may_log(now) {
            logged.left_out += u32::from(is_new);
            return None;
        }
        self.raised.entry(code).and_modify(|raised| raised.is_logged = true);
        Some(std::mem::take(&mut logged.left_out))
    }

    /// Clears a reason. If that is to be logged, returns when the reason was raised.
    pub fn clear(&mut self, code: Code) -> Option<Millis> {
        self.raised.remove(&code).filter(|raised| raised.is_logged).map(|raised| raised.reason.since)
    }

    /// The codes that are raised.
    pub fn codes(&self) -> Vec<Code> {
        self.raised.keys().copied().collect()
    }

    pub fn is_raised(&self, code: Code) -> bool {
        self.raised.contains_key(&code)
    }

    pub fn all(&self) -> Vec<Reason> {
        self.raised.values().map(|raised| raised.reason.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_logged_once_each_way_and_since_stays() {
        let (mut reasons, now) = (Reasons::default(), Instant::now());
        assert_eq!(reasons.raise(Code::SocketDown, Problem::new("a", ""), 1, now), Some(0));
        assert_eq!(reasons.raise(Code::SocketDown, Problem::new("b", ""), 2, now), None);
        let all = reasons.all();
        assert_eq!((all.len(), all[0].since, all[0].problem.what.as_str()), (1, 1, "b"));
        assert_eq!((reasons.clear(Code::SocketDown), reasons.clear(Code::SocketDown)), (Some(1), None));
    }

    #[test]
    fn a_flapping_reason_is_logged_a_few_times_and_a_lasting_one_in_the_end() {
        let (mut reasons, start) = (Reasons::default(), Instant::now());
        let mut logged = 0;
        for n in 0..100 {
            let now = start + Duration::from_millis(100 * n);
            logged += usize::from(reasons.raise(Code::HistoryFailing, Problem::new("x", ""), 0, now).is_some());
            assert_eq!(reasons.clear(Code::HistoryFailing).is_some(), n < LOGGED_MAX as u64);
        }
        assert_eq!(logged, LOGGED_MAX);
        assert_eq!(
            reasons.raise(Code::SocketDown, Problem::new("another", ""), 0, start),
            Some(0),
            "each code has its own limit"
        );
        let late = start + Duration::from_secs(30);
        assert_eq!(reasons.raise(Code::HistoryFailing, Problem::new("x", ""), 0, late), None);
        assert_eq!(reasons.raise(Code::HistoryFailing, Problem::new("x", ""), 0, start + WINDOW), Some(96));
        assert!(reasons.clear(Code::HistoryFailing).is_some());
    }

    #[test]
    fn a_consequence_is_logged_only_once_its_cause_is_gone() {
        let (mut reasons, now) = (Reasons::default(), Instant::now());
        let problem = || Problem::new("x", "");
        assert_eq!(reasons.raise(Code::CredentialsRefused, problem(), 0, now), Some(0));
        assert_eq!(reasons.raise(Code::NotReceiving, problem(), 0, now), None);
        assert!(reasons.clear(Code::CredentialsRefused).is_some());
        assert_eq!(reasons.raise(Code::NotReceiving, problem(), 0, now), Some(0));
    }
}
