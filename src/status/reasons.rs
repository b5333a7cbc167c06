//! What was raised, and how often each code is told in the log.
//!
//! Must never: let a fault that comes and goes flood the log, or leave one untold that lasts.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::reason::{Code, Problem, Reason};
use crate::clock::Millis;

/// Beginnings of one code that are logged in a window, at most; each has its end logged too.
const TOLD_MAX: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);

/// Every reason that is raised.
#[derive(Default)]
pub(super) struct Reasons {
    raised: BTreeMap<Code, Raised>,
    tellings: BTreeMap<Code, Telling>,
}

struct Raised {
    reason: Reason,
    /// Whether its beginning was logged.
    told: bool,
}

/// When a code was told of last, and how often it was not since.
#[derive(Default)]
struct Telling {
    told: VecDeque<Instant>,
    untold: u32,
}

impl Telling {
    fn may_tell(&mut self, now: Instant) -> bool {
        while self.told.front().is_some_and(|at| now.duration_since(*at) >= WINDOW) {
            self.told.pop_front();
        }
        let may = self.told.len() < TOLD_MAX;
        if may {
            self.told.push_back(now);
        }
        may
    }
}

impl Reasons {
    /// Raises a reason, or gives it a new text; where it is to be logged: how often it was not, since it last was.
    pub fn raise(&mut self, code: Code, problem: Problem, since: Millis, now: Instant) -> Option<u32> {
        let telling = self.tellings.entry(code).or_default();
        let is_new = !self.raised.contains_key(&code);
        let raised = self
            .raised
            .entry(code)
            .or_insert_with(|| Raised { reason: Reason { code, since, problem: Problem::default() }, told: false });
        raised.reason.problem = problem;
        if raised.told {
            return None;
        }
        // One that was held back and lasts is told of as soon as it may be.
        raised.told = telling.may_tell(now);
        if raised.told {
            return Some(std::mem::take(&mut telling.untold));
        }
        telling.untold += u32::from(is_new);
        None
    }

    /// Whether its end is to be logged.
    pub fn clear(&mut self, code: Code) -> bool {
        self.raised.remove(&code).is_some_and(|raised| raised.told)
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
    fn a_change_is_told_once_each_way_and_since_stays() {
        let (mut reasons, now) = (Reasons::default(), Instant::now());
        assert_eq!(reasons.raise(Code::SocketDown, Problem::new("a", ""), 1, now), Some(0));
        assert_eq!(reasons.raise(Code::SocketDown, Problem::new("b", ""), 2, now), None);
        let all = reasons.all();
        assert_eq!((all.len(), all[0].since, all[0].problem.what.as_str()), (1, 1, "b"));
        assert!(reasons.clear(Code::SocketDown) && !reasons.clear(Code::SocketDown));
    }

    #[test]
    fn what_comes_and_goes_is_told_a_few_times_and_what_lasts_in_the_end() {
        let (mut reasons, start) = (Reasons::default(), Instant::now());
        let mut told = 0;
        for n in 0..100 {
            let now = start + Duration::from_millis(100 * n);
            told += usize::from(reasons.raise(Code::HistoryFailing, Problem::new("x", ""), 0, now).is_some());
            assert_eq!(reasons.clear(Code::HistoryFailing), n < TOLD_MAX as u64);
        }
        assert_eq!(told, TOLD_MAX);
        assert_eq!(
            reasons.raise(Code::SocketDown, Problem::new("another", ""), 0, start),
            Some(0),
            "each code has its own measure"
        );
        let late = start + Duration::from_secs(30);
        assert_eq!(reasons.raise(Code::HistoryFailing, Problem::new("x", ""), 0, late), None);
        assert_eq!(reasons.raise(Code::HistoryFailing, Problem::new("x", ""), 0, start + WINDOW), Some(96));
        assert!(reasons.clear(Code::HistoryFailing));
    }
}
