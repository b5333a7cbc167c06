//! The window: what is in the file already, matched across the two ways as well as can be.

use std::collections::{BTreeMap, BTreeSet};

use audiohook_collector::window::{Moment, Outcome, Sighting, TOLERANCE_MS, Way, Window};
use proptest::prelude::*;

/// One thing that happens to the window.
#[derive(Clone, Copy, Debug)]
struct Seen {
    content: u64,
    way: Way,
    time: i64,
}

/// A few contents and times within some seconds: near each other more often than in life.
fn seen() -> impl Strategy<Value = Seen> {
    let times = prop_oneof![0i64..8_000, (0i64..9).prop_map(|n| n * 1_000), Just(4_000)];
    (0u64..2, any::<bool>(), times).prop_map(|(content, socket, time)| Seen {
        content,
        way: if socket { Way::Socket } else { Way::History },
        time: 1_795_430_640_000 + time,
    })
}

/// What stands in the file, and the window beside it.
#[derive(Default)]
struct Collected {
    window: Window,
    written: Vec<Seen>,
    /// A frame was dropped for a row that turned out to be another's: the history owes its own.
    is_owed: bool,
}

impl Collected {
    fn offer(&mut self, seen: Seen) {
        self.page(&[seen]);
    }

    /// Offers what comes together: a row that turns out to be no twin is at hand as long as its page is.
    fn page(&mut self, page: &[Seen]) {
        let mut new = vec![false; page.len()];
        for (index, seen) in page.iter().enumerate() {
            match self.window.offer(sighting(*seen)) {
                Outcome::New => new[index] = true,
                Outcome::Duplicate => {}
                Outcome::Displaces(_) if seen.way == Way::Socket => self.is_owed = true,
                Outcome::Displaces(moment) => {
                    let displaced = (0..index).rev().find(|earlier| {
                        let s = page[*earlier];
                        !new[*earlier] && s.content == seen.content && Moment::Own(s.time) == moment
                    });
                    if let Some(earlier) = displaced {
                        new[earlier] = true;
                        self.window.note(sighting(page[earlier]));
                    }
                }
            }
        }
        self.written.extend(page.iter().zip(new).filter(|(_, new)| *new).map(|(seen, _)| *seen));
    }

    /// What a restart makes of it: only what stands in the file is known.
    fn restart(&mut self) {
        self.window = Window::default();
        for seen in &self.written {
            self.window.note(sighting(*seen));
        }
    }

    /// The history is read again, in the order of time, as its overlap does.
    fn read_again(&mut self, all: &[Seen]) {
        let mut rows: Vec<Seen> = all.iter().filter(|s| s.way == Way::History).copied().collect();
        rows.sort_by_key(|s| s.time);
        self.page(&rows);
    }
}

fn sighting(seen: Seen) -> Sighting {
    Sighting { content: seen.content, way: seen.way, moment: Moment::Own(seen.time) }
}

/// The most pairs of two sets of times, by trying (augmenting paths).
fn most_pairs(a: &[i64], b: &[i64]) -> usize {
    fn augment(at: usize, a: &[i64], b: &[i64], of: &mut [Option<usize>], tried: &mut [bool]) -> bool {
        for other in 0..b.len() {
            if (a[at] - b[other]).abs() > TOLERANCE_MS || std::mem::replace(&mut tried[other], true) {
                continue;
            }
            if of[other].is_none_or(|holder| augment(holder, a, b, of, tried)) {
                of[other] = Some(at);
                return true;
            }
        }
        false
    }
    let mut of = vec![None; b.len()];
    (0..a.len()).filter(|at| augment(*at, a, b, &mut of, &mut vec![false; b.len()])).count()
}

fn times(all: &[Seen], content: u64, way: Way) -> Vec<i64> {
    let set: BTreeSet<i64> = all.iter().filter(|s| (s.content, s.way) == (content, way)).map(|s| s.time).collect();
    set.into_iter().collect()
}

/// Nothing is lost: whatever was seen and is not written has a written twin of the other way, one for each.
fn assert_nothing_is_lost(all: &[Seen], written: &[Seen]) -> Result<(), TestCaseError> {
    for content in 0..2 {
        for (way, other) in [(Way::Socket, Way::History), (Way::History, Way::Socket)] {
            let own = times(written, content, way);
            let echoes: Vec<i64> = times(all, content, way).into_iter().filter(|t| !own.contains(t)).collect();
            let twins = times(written, content, other);
            prop_assert_eq!(most_pairs(&echoes, &twins), echoes.len(), "{:?} of {} without a twin", way, content);
        }
    }
    Ok(())
}

/// Nothing stands twice: no more is written than there must be.
fn fewest(all: &[Seen]) -> usize {
    (0..2)
        .map(|content| {
            let (socket, history) = (times(all, content, Way::Socket), times(all, content, Way::History));
            socket.len() + history.len() - most_pairs(&socket, &history)
        })
        .sum()
}

fn run(rule: impl Fn(Vec<Seen>) -> Result<(), TestCaseError>) {
    super::run(prop::collection::vec(seen(), 1..14), rule);
}

#[test]
fn whatever_the_order_nothing_is_lost_and_what_was_written_is_written_once() {
    run(|mut all| {
        let mut collected = Collected::default();
        for seen in &all {
            collected.offer(*seen);
        }
        if collected.is_owed {
            // What came on the socket is in the history too, sooner or later.
            let rows: Vec<Seen> = all.iter().map(|seen| Seen { way: Way::History, ..*seen }).collect();
            all.extend(rows);
        }
        collected.read_again(&all);
        collected.read_again(&all);
        assert_nothing_is_lost(&all, &collected.written)?;
        let mut once: BTreeMap<(u64, bool, i64), u32> = BTreeMap::new();
        for seen in &collected.written {
            *once.entry((seen.content, seen.way == Way::Socket, seen.time)).or_default() += 1;
        }
        prop_assert!(once.values().all(|count| *count == 1));
        let settled = collected.written.len();
        collected.read_again(&all);
        prop_assert_eq!(collected.written.len(), settled, "a further read finds nothing new");
        Ok(())
    });
}

#[test]
fn the_history_read_after_the_socket_adds_no_more_than_it_must() {
    run(|mut all| {
        all.sort_by_key(|s| (s.way == Way::History, s.time));
        let mut collected = Collected::default();
        for seen in &all {
            collected.offer(*seen);
        }
        collected.read_again(&all);
        prop_assert_eq!(collected.written.len(), fewest(&all));
        assert_nothing_is_lost(&all, &collected.written)
    });
}

#[test]
fn after_a_restart_what_stands_in_the_file_counts() {
    run(|mut all| {
        all.sort_by_key(|s| (s.way == Way::History, s.time));
        let mut collected = Collected::default();
        let half = all.len() / 2;
        all[..half].iter().for_each(|seen| collected.offer(*seen));
        collected.restart();
        all[half..].iter().for_each(|seen| collected.offer(*seen));
        collected.read_again(&all);
        collected.restart();
        collected.read_again(&all);
        assert_nothing_is_lost(&all, &collected.written)?;
        prop_assert_eq!(collected.written.len(), fewest(&all));
        Ok(())
    });
}
