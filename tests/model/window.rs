//! The window: what is in the file already, matched across the two ways as well as can be.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use audiohook_collector::window::{
    Moment, Outcome, PLACE_MS, RECEIPT_DELAY_MS, Sighting, TOLERANCE_MS, WAIT, Way, Window,
};
use proptest::prelude::*;

const T: i64 = 1_795_430_640_000;

/// How long before its receipt a row without a time may have happened.
const ROW_DELAY_MS: i64 = 900_000 + RECEIPT_DELAY_MS;

/// One thing that happens to the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    content: u64,
    way: Way,
    moment: Moment,
}

impl Seen {
    fn time(self) -> i64 {
        self.moment.nominal()
    }

    fn has_time(self) -> bool {
        matches!(self.moment, Moment::Own(_))
    }

    fn sighting(self) -> Sighting {
        Sighting { content: self.content, way: self.way, moment: self.moment }
    }
}

/// A few contents and times within some seconds: near each other more often than in life. Of a receipt the delay is
/// often short, so that its edges are met.
fn seen() -> impl Strategy<Value = Seen> {
    let times = prop_oneof![0i64..8_000, (0i64..9).prop_map(|n| n * 1_000), Just(4_000)];
    let receipts = (0i64..12_000, prop_oneof![3 => Just(5_000), 1 => Just(RECEIPT_DELAY_MS)]);
    (0u64..2, any::<bool>(), times, prop::option::weighted(0.2, receipts)).prop_map(
        |(content, is_socket, time, receipt)| {
            let way = if is_socket { Way::Socket } else { Way::History };
            let moment = match receipt {
                None => Moment::Own(T + time),
                Some((at, delay)) if is_socket => Moment::Receipt { at: T + at, delay },
                Some((at, _)) => Moment::Receipt { at: T + at, delay: ROW_DELAY_MS },
            };
            Seen { content, way, moment }
        },
    )
}

/// As the intake has it: no two receipts of one content in one millisecond; a row without a time is known by its content
/// alone, so that there is one of each.
fn tidy(all: Vec<Seen>) -> Vec<Seen> {
    let mut tidied: Vec<Seen> = Vec::new();
    for mut seen in all {
        if let Moment::Receipt { delay, .. } = seen.moment {
            let like = |s: &&Seen| !s.has_time() && s.content == seen.content;
            if seen.way == Way::History && tidied.iter().filter(like).any(|s| s.way == Way::History) {
                continue;
            }
            let at = (seen.time()..).find(|at| !tidied.iter().filter(like).any(|s| s.time() == *at)).unwrap();
            seen.moment = Moment::Receipt { at, delay };
        }
        tidied.push(seen);
    }
    tidied
}

/// What stands in the file, and the window beside it.
struct Collected {
    window: Window,
    now: Instant,
    written: Vec<Seen>,
    /// A frame was dropped for a row that turned out to be another's: the history owes its own.
    is_owed: bool,
}

impl Default for Collected {
    fn default() -> Self {
        Self { window: Window::default(), now: Instant::now(), written: Vec::new(), is_owed: false }
    }
}

impl Collected {
    /// What comes is decided at once.
    fn offer(&mut self, seen: Seen) {
        self.take(seen);
        self.go_on(WAIT);
    }

    /// What comes may wait.
    fn take(&mut self, seen: Seen) {
        let outcome = match seen.way {
            Way::History => self.window.offer_row(seen.sighting(), "its text", self.now),
            Way::Socket => self.window.offer(seen.sighting()),
        };
        match outcome {
            Outcome::New => self.written.push(seen),
            Outcome::Displaces { moment, row: Some(_) } => self.written.push(Seen { moment, ..seen }),
            Outcome::Displaces { row: None, .. } => self.is_owed |= seen.way == Way::Socket,
            Outcome::Duplicate | Outcome::Waits => {}
        }
    }

    /// Time goes on, and what waited for long enough is decided.
    fn go_on(&mut self, time: Duration) {
        self.now += time;
        let new = self.window.settle(self.now).new.into_iter();
        self.written.extend(new.map(|(s, _)| Seen { content: s.content, way: s.way, moment: s.moment }));
    }

    /// What a restart makes of it: only what stands in the file is known.
    fn restart(&mut self) {
        self.window = Window::default();
        for seen in &self.written {
            self.window.note(seen.sighting());
        }
    }

    /// The history is read, in the order of time, as each read does.
    fn read(&mut self, all: &[Seen]) {
        rows(all).into_iter().for_each(|row| self.offer(row));
    }
}

/// The history's rows in the order of time.
fn rows(all: &[Seen]) -> Vec<Seen> {
    let mut rows: Vec<Seen> = all.iter().filter(|s| s.way == Way::History).copied().collect();
    rows.sort_by_key(|s| s.time());
    rows
}

/// The most pairs of two sets of moments, by trying (augmenting paths).
fn most_pairs(a: &[Moment], b: &[Moment]) -> usize {
    fn augment(at: usize, a: &[Moment], b: &[Moment], of: &mut [Option<usize>], tried: &mut [bool]) -> bool {
        for other in 0..b.len() {
            if !a[at].fits(b[other]) || std::mem::replace(&mut tried[other], true) {
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

/// The moments of a content on one way, each once.
fn moments(all: &[Seen], content: u64, way: Way) -> Vec<Moment> {
    let mut moments = Vec::new();
    for seen in all.iter().filter(|s| (s.content, s.way) == (content, way)) {
        if !moments.contains(&seen.moment) {
            moments.push(seen.moment);
        }
    }
    moments
}

/// Nothing is lost: whatever was seen and is not written has a written twin of the other way, one for each.
fn assert_nothing_is_lost(all: &[Seen], written: &[Seen]) -> Result<(), TestCaseError> {
    for content in 0..2 {
        for (way, other) in [(Way::Socket, Way::History), (Way::History, Way::Socket)] {
            let own = moments(written, content, way);
            let echoes: Vec<Moment> = moments(all, content, way).into_iter().filter(|m| !own.contains(m)).collect();
            let twins = moments(written, content, other);
            prop_assert_eq!(most_pairs(&echoes, &twins), echoes.len(), "{:?} of {} without a twin", way, content);
        }
    }
    Ok(())
}

/// No sighting was written twice, and no id stands in the file twice.
fn assert_each_is_written_once(written: &[Seen]) -> Result<(), TestCaseError> {
    let mut ids = BTreeSet::new();
    for seen in written {
        prop_assert!(ids.insert((seen.content, seen.time(), seen.has_time())), "{:?} stands there twice", seen);
    }
    Ok(())
}

/// Each is written once, and a further read finds nothing new.
fn assert_settled(collected: &mut Collected, all: &[Seen]) -> Result<(), TestCaseError> {
    assert_each_is_written_once(&collected.written)?;
    let settled = collected.written.len();
    collected.read(all);
    prop_assert_eq!(collected.written.len(), settled, "a further read finds nothing new");
    Ok(())
}

/// Nothing stands twice: no more is written than there must be.
fn fewest(all: &[Seen]) -> usize {
    (0..2)
        .map(|content| {
            let (socket, history) = (moments(all, content, Way::Socket), moments(all, content, Way::History));
            socket.len() + history.len() - most_pairs(&socket, &history)
        })
        .sum()
}

/// What the socket brought stands in the file before the history is read.
fn collected_from_the_socket(all: &[Seen]) -> Collected {
    let mut collected = Collected::default();
    all.iter().filter(|s| s.way == Way::Socket).for_each(|seen| collected.offer(*seen));
    collected
}

fn assert_all_and_no_more(all: &[Seen], written: &[Seen]) -> Result<(), TestCaseError> {
    prop_assert_eq!(written.len(), fewest(all));
    assert_nothing_is_lost(all, written)
}

fn run(rule: impl Fn(Vec<Seen>) -> Result<(), TestCaseError>) {
    super::run(prop::collection::vec(seen(), 1..14).prop_map(tidy), rule);
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
            for seen in all.clone().into_iter().filter(|s| s.way == Way::Socket) {
                let is_taken = |at: &i64| all.iter().any(|s| s.content == seen.content && s.moment == Moment::Own(*at));
                let at = if seen.has_time() {
                    seen.time()
                } else {
                    (seen.time() - 1_000..).find(|at| !is_taken(at)).unwrap()
                };
                all.push(Seen { way: Way::History, moment: Moment::Own(at), ..seen });
            }
        }
        collected.read(&all);
        collected.read(&all);
        assert_nothing_is_lost(&all, &collected.written)?;
        assert_settled(&mut collected, &all)
    });
}

#[test]
fn the_history_read_once_after_the_socket_adds_all_that_it_must_and_no_more() {
    run(|all| {
        let mut collected = collected_from_the_socket(&all);
        collected.read(&all);
        assert_all_and_no_more(&all, &collected.written)?;
        assert_settled(&mut collected, &all)
    });
}

#[test]
fn with_no_text_at_hand_as_many_are_written_as_there_must_be() {
    run(|all| {
        let mut collected = collected_from_the_socket(&all);
        for row in rows(&all) {
            if collected.window.offer(row.sighting()) == Outcome::New {
                collected.written.push(row);
            }
        }
        assert_all_and_no_more(&all, &collected.written)
    });
}

#[test]
fn after_a_restart_what_stands_in_the_file_counts() {
    run(|mut all| {
        all.sort_by_key(|s| s.way == Way::History);
        let mut collected = Collected::default();
        let half = all.len() / 2;
        all[..half].iter().for_each(|seen| collected.offer(*seen));
        collected.restart();
        all[half..].iter().for_each(|seen| collected.offer(*seen));
        collected.read(&all);
        collected.restart();
        collected.read(&all);
        assert_each_is_written_once(&collected.written)?;
        assert_all_and_no_more(&all, &collected.written)
    });
}

#[test]
fn after_a_restart_amid_a_long_read_what_the_checkpoint_passed_need_not_be_read_again() {
    let minutes = prop_oneof![2 => Just(0i64), 1 => 0i64..6];
    let later = |(mut seen, minutes): (Seen, i64)| {
        match &mut seen.moment {
            Moment::Own(at) | Moment::Receipt { at, .. } => *at += minutes * 60_000,
        }
        seen
    };
    let all = prop::collection::vec((seen(), minutes).prop_map(later), 1..14).prop_map(tidy);
    super::run((all, any::<prop::sample::Index>()), |(mut all, amid)| {
        // Rows without times have no order, and without one no checkpoint comes amid a read.
        all.retain(|seen| seen.way == Way::Socket || seen.has_time());
        let rows = rows(&all);
        let mut collected = collected_from_the_socket(&all);
        let read = amid.index(rows.len() + 1);
        rows[..read].iter().for_each(|row| collected.offer(*row));
        collected.restart();
        let checkpoint = rows[..read].last().map_or(0, |row| row.time());
        rows.iter().filter(|row| row.time() >= checkpoint - PLACE_MS).for_each(|row| collected.offer(*row));
        assert_each_is_written_once(&collected.written)?;
        assert_all_and_no_more(&all, &collected.written)
    });
}

/// An event, and when each way brings it, in milliseconds after it happened.
#[derive(Clone, Copy, Debug)]
struct Told {
    content: u64,
    at: i64,
    /// The row's time is so much later than the frame's.
    off: i64,
    row_after: i64,
    /// Not at all; once; or twice.
    frames_after: [Option<i64>; 2],
}

fn told(off_max: i64) -> impl Strategy<Value = Told> {
    let times = prop_oneof![0i64..4, 1_000i64..1_004, 0i64..8_000];
    let frame = || prop::option::weighted(0.7, prop_oneof![3 => Just(5i64), 1 => 0i64..5_000]);
    let again = prop::option::weighted(0.1, 0i64..3_000);
    let off = prop_oneof![Just(0i64), -off_max..=off_max];
    (0u64..2, times, off, prop_oneof![Just(20i64), 0i64..6_000], frame(), again).prop_map(
        |(content, at, off, row_after, frame, again)| Told {
            content,
            at,
            off,
            row_after,
            frames_after: [frame, again],
        },
    )
}

/// What stands in the file when all was told, and each read of the history brought what was there.
fn collected_in_time(all: &[Told], restarts: &[i64], read_every: i64) -> Collected {
    const END: i64 = 30_000;
    let seen = |told: &Told, way| {
        let off = if way == Way::History { told.off } else { 0 };
        Seen { content: told.content, way, moment: Moment::Own(T + told.at + off) }
    };
    let frames = all
        .iter()
        .flat_map(|told| told.frames_after.iter().flatten().map(|after| (told.at + after, seen(told, Way::Socket))));
    let mut frames: Vec<(i64, Seen)> = frames.collect();
    frames.sort_by_key(|(at, _)| *at);
    let mut collected = Collected::default();
    let mut frames = frames.into_iter().peekable();
    let mut before = 0;
    for now in (0..=END).filter(|now| now % read_every == 0 || restarts.contains(now)) {
        while let Some((_, frame)) = frames.next_if(|(at, _)| *at <= now) {
            collected.take(frame);
        }
        collected.go_on(Duration::from_millis((now - before) as u64));
        before = now;
        if restarts.contains(&now) {
            collected.restart();
        }
        if now % read_every == 0 {
            let there = all.iter().filter(|told| told.at + told.row_after <= now);
            let rows = rows(&there.map(|told| seen(told, Way::History)).collect::<Vec<_>>());
            rows.into_iter().for_each(|row| collected.take(row));
        }
    }
    collected
}

/// On one way no two are alike in content and time.
fn unlike(mut all: Vec<Told>) -> Vec<Told> {
    let mut taken = BTreeSet::new();
    all.retain(|told| taken.insert((told.content, told.at, Way::Socket as u8)));
    all.retain(|told| taken.insert((told.content, told.at + told.off, Way::History as u8)));
    all
}

/// Each event stands there once, under a time that is as near as this to its own.
fn assert_each_stands_there_once(all: &[Told], collected: &Collected, near: i64) -> Result<(), TestCaseError> {
    for content in 0..2 {
        let sorted = |times: Vec<i64>| times.into_iter().collect::<BTreeSet<_>>().into_iter().collect::<Vec<i64>>();
        let events = sorted(all.iter().filter(|told| told.content == content).map(|told| told.at).collect());
        let records = collected.written.iter().filter(|seen| seen.content == content);
        let records = sorted(records.map(|seen| seen.time() - T).collect());
        let is_near = |(event, record): (&i64, &i64)| (event - record).abs() <= near;
        let is_right = events.len() == records.len() && events.iter().zip(&records).all(is_near);
        prop_assert!(is_right, "{:?} happened, {:?} stand there", events, records);
    }
    assert_each_is_written_once(&collected.written)
}

#[test]
fn where_both_ways_give_nearly_one_time_each_event_stands_there_once_under_its_own() {
    const OFF_MAX: i64 = 2;
    let restarts = prop::collection::vec(0..15_000i64, 0..3);
    super::run((prop::collection::vec(told(OFF_MAX), 1..12).prop_map(unlike), restarts), |(all, restarts)| {
        let collected = collected_in_time(&all, &restarts, 1_500);
        // Of events that are nearer to each other than the two ways are, one may bear the other's time.
        assert_each_stands_there_once(&all, &collected, 2 * OFF_MAX)
    });
}

/// Like events in some seconds, as the service tells them: each on both ways, or in the history alone; some frames come
/// `late`. Where one cannot be told from another, each stands there once all the same, and nearly under its time.
fn like_events(off_max: i64, late: impl Strategy<Value = i64>) {
    let frame = prop_oneof![7 => Just(Some(5)), 2 => late.prop_map(Some), 1 => Just(None)];
    let one = (0i64..8_000, -off_max..=off_max, frame).prop_map(|(at, off, frame)| Told {
        content: 0,
        at,
        off,
        row_after: 0,
        frames_after: [frame, None],
    });
    let rows_after = prop_oneof![Just(20i64), Just(500), Just(3_000)];
    let read_every = prop_oneof![Just(1_000i64), Just(2_000), Just(5_000)];
    let all = prop::collection::vec(one, 2..12).prop_map(unlike);
    super::run((all, rows_after, read_every), |(mut all, rows_after, read_every)| {
        all.iter_mut().for_each(|told| told.row_after = rows_after);
        let collected = collected_in_time(&all, &[], read_every);
        assert_each_stands_there_once(&all, &collected, TOLERANCE_MS + off_max)
    });
}

#[test]
fn where_the_two_ways_differ_by_nearly_half_a_second_late_frames_add_and_take_nothing() {
    like_events(450, 300i64..3_000);
}

#[test]
fn where_the_two_ways_differ_by_nearly_a_second_each_event_stands_there_once() {
    like_events(900, Just(5));
}
