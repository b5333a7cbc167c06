//! Sightings in an order, and what becomes of each.

use std::collections::BTreeSet;

use super::*;

fn socket(time: Millis) -> Sighting {
    Sighting { content: 7, way: Way::Socket, moment: Moment::Own(time) }
}

fn history(time: Millis) -> Sighting {
    Sighting { way: Way::History, ..socket(time) }
}

fn receipt(at: Millis, way: Way) -> Sighting {
    Sighting { content: 7, way, moment: Moment::Receipt { at, delay: RECEIPT_DELAY_MS } }
}

/// Offers a row that cannot wait any more.
fn decided(window: &mut Window, row: Sighting, text: &str) -> Outcome {
    window.dropped.go_on_to(row.moment);
    window.judge(row, Some(text), None)
}

/// Offers each in turn; which are new?
fn new_of(window: &mut Window, sightings: &[Sighting]) -> Vec<bool> {
    sightings.iter().map(|s| window.offer(*s) == Outcome::New).collect()
}

const T: Millis = 1_795_430_645_000;

#[test]
fn within_one_way_equal_times_are_one_event_and_other_times_are_others() {
    let mut window = Window::default();
    assert_eq!(new_of(&mut window, &[socket(T), socket(T), socket(T + 1), socket(T)]), [true, false, true, false]);
    let other_content = Sighting { content: 8, ..socket(T) };
    assert_eq!(window.offer(other_content), Outcome::New);
}

#[test]
fn across_the_ways_the_times_may_differ_by_the_tolerance() {
    for (difference, new) in
        [(0, false), (900, false), (-900, false), (2000, false), (-2000, false), (2001, true), (-2001, true)]
    {
        for first in [socket as fn(Millis) -> Sighting, history] {
            let mut window = Window::default();
            let second = if first(0).way == Way::Socket { history } else { socket };
            assert_eq!(new_of(&mut window, &[first(T), second(T + difference)]), [true, new], "{difference}");
        }
    }
}

#[test]
fn matching_is_one_to_one() {
    let mut window = Window::default();
    assert_eq!(
        new_of(&mut window, &[socket(T), socket(T + 1), history(T + 500), history(T + 501), history(T + 502)]),
        [true, true, false, false, true]
    );
    // The history is read again: nothing changes.
    assert_eq!(new_of(&mut window, &[history(T + 500), history(T + 501), history(T + 502)]), [false; 3]);
}

#[test]
fn as_many_pairs_as_can_be() {
    // The first row could take either record; taking the nearer one must not leave the second row alone.
    let mut window = Window::default();
    assert_eq!(
        new_of(&mut window, &[socket(T), socket(T + 1500), history(T + 1400), history(T + 3000)]),
        [true, true, false, false]
    );
}

#[test]
fn the_nearest_is_the_twin() {
    let mut window = Window::default();
    window.offer(socket(T + 1000));
    assert_eq!(decided(&mut window, history(T), "the first"), Outcome::Duplicate);
    let displaced = Outcome::Displaces { moment: Moment::Own(T), row: Some("the first".to_owned()) };
    assert_eq!(decided(&mut window, history(T + 900), "the second"), displaced);
    assert_eq!(new_of(&mut window, &[history(T), history(T + 900)]), [false, false]);
}

#[test]
fn the_nearest_may_come_long_after_the_other() {
    let mut window = Window::default();
    window.note(receipt(T + 101_000, Way::Socket));
    assert_eq!(decided(&mut window, history(T), "the first"), Outcome::Duplicate);
    for n in 1..1_000 {
        let between = Sighting { content: 8, ..history(T + n * 100) };
        assert_eq!(decided(&mut window, between, "another"), Outcome::New);
    }
    let displaced = Outcome::Displaces { moment: Moment::Own(T), row: Some("the first".to_owned()) };
    assert_eq!(decided(&mut window, history(T + 100_000), "the second"), displaced);
}

#[test]
fn with_no_text_at_hand_the_nearer_row_is_written_and_counted() {
    let mut window = Window::default();
    window.offer(socket(T + 1500));
    assert_eq!(decided(&mut window, history(T), "the first"), Outcome::Duplicate);
    let large = "x".repeat(dropped::BYTES_MAX);
    window.offer(Sighting { content: 8, ..socket(T + 1) });
    assert_eq!(decided(&mut window, Sighting { content: 8, ..history(T) }, &large), Outcome::Duplicate);
    assert_eq!(decided(&mut window, history(T + 1400), "the second"), Outcome::New);
    assert_eq!((window.forgotten(), window.len()), (1, 5));
    assert_eq!(new_of(&mut window, &[history(T), history(T + 1400)]), [false, false]);
}

#[test]
fn a_row_that_was_late_gives_way_to_none_and_the_one_behind_it_comes_again() {
    let mut window = Window::default();
    window.offer(socket(T));
    assert_eq!(decided(&mut window, history(T + 1400), "the second"), Outcome::Duplicate);
    // The next read begins far before them and finds one that was not there before.
    decided(&mut window, Sighting { content: 8, ..history(T - 900_000) }, "far before");
    let displaced = Outcome::Displaces { moment: Moment::Own(T + 1400), row: None };
    assert_eq!(decided(&mut window, history(T), "the first"), displaced);
    assert_eq!(decided(&mut window, history(T + 1400), "the second"), Outcome::New);
}

#[test]
fn with_a_receipt_among_them_pairs_may_cross() {
    let rows = [history(T), history(T + 2500)];
    for rows in [rows, [rows[1], rows[0]]] {
        let mut window = Window::default();
        window.offer(receipt(T + 10_000, Way::Socket));
        window.offer(socket(T + 2500));
        assert_eq!(new_of(&mut window, &rows), [false, false]);
    }
}

#[test]
fn a_storm_of_equal_events_without_times_is_told_apart() {
    let mut window = Window::default();
    for n in 0..3000 {
        window.offer(if n % 2 == 0 { socket(T + n) } else { receipt(T + n + 5_000, Way::Socket) });
    }
    let rows: Vec<Sighting> = (0..3000).map(|n| history(T + n)).collect();
    assert!(new_of(&mut window, &rows).iter().all(|new| !new));
    assert_eq!(window.offer(history(T + 3000)), Outcome::New);
}

#[test]
fn a_frame_whose_own_row_is_written_is_no_record_though_another_took_its_place() {
    let mut window = Window::default();
    assert_eq!(window.offer(history(T)), Outcome::New);
    // Another event, like it and near it, comes on the socket first and is taken for its twin.
    assert_eq!(window.offer(socket(T + 1869)), Outcome::Duplicate);
    assert_ne!(window.offer(socket(T)), Outcome::New, "it would stand in the file twice");
    assert_eq!(window.offer(history(T + 1869)), Outcome::New, "its own row brings the other");
    assert_eq!(new_of(&mut window, &[socket(T), history(T), history(T + 1869)]), [false; 3]);
}

#[test]
fn a_frame_that_was_taken_for_anothers_gives_way_and_its_own_row_is_written() {
    let mut window = Window::default();
    assert_eq!(new_of(&mut window, &[history(T - 1), history(T), history(T + 2)]), [true; 3]);
    // The socket brings later ones first, whose rows are still to come.
    assert_eq!(new_of(&mut window, &[socket(T + 1704), socket(T + 1705), socket(T + 1706)]), [false; 3]);
    assert_eq!(new_of(&mut window, &[socket(T), socket(T + 1), socket(T + 2)]), [false; 3]);
    let rows = [history(T - 1), history(T), history(T + 2), history(T + 1704), history(T + 1705), history(T + 1706)];
    assert_eq!(new_of(&mut window, &rows), [false, false, false, true, true, true]);
}

#[test]
fn a_frame_that_gives_way_has_its_row_even_where_that_was_taken_for_one_without_a_time() {
    let mut window = Window::default();
    let receipts = [receipt(T, Way::Socket), receipt(T + 500, Way::Socket)];
    assert_eq!(new_of(&mut window, &receipts), [true, true]);
    // The first row is no record's; the second may be either receipt's, and so may those that are read later.
    let met = [history(T + 3_000), history(T + 2_000), socket(T + 2_000)];
    assert_eq!(new_of(&mut window, &met), [true, false, false]);
    let gives_way = Outcome::Displaces { moment: Moment::Own(T + 2_000), row: None };
    assert_eq!(window.offer(socket(T + 3_000)), gives_way);
    let read = [history(T - 1_000), history(T - 500), history(T + 2_000), history(T + 3_000)];
    assert_eq!(read.map(|row| decided(&mut window, row, "its text") == Outcome::New), [false, false, true, false]);
    assert_eq!(new_of(&mut window, &read), [false; 4]);
}

#[test]
fn a_row_left_over_among_like_ones_waits_for_the_frames_that_may_be_its_own() {
    let (mut window, now) = (Window::default(), Instant::now());
    window.offer(socket(T + 1000));
    assert_eq!(window.offer_row(history(T + 245), "the first", now), Outcome::Duplicate);
    assert_eq!(window.offer_row(history(T + 1754), "the second", now), Outcome::Waits, "its place is taken");
    assert_eq!(window.oldest_waiting(), Some(T + 245));
    assert_eq!(window.offer_row(history(T + 245), "the first", now), Outcome::Duplicate, "read again it still waits");
    // The second's own frame comes late, and is no event more.
    assert_eq!(window.offer(socket(T + 2246)), Outcome::New);
    let settled = window.settle(now);
    assert_eq!((settled.new.len(), settled.duplicates, window.oldest_waiting()), (0, 1, None));
    assert_eq!(new_of(&mut window, &[history(T + 245), history(T + 1754)]), [false, false]);
}

#[test]
fn a_row_whose_frame_does_not_come_waits_for_so_long_and_no_longer() {
    let (mut window, now) = (Window::default(), Instant::now());
    window.offer(socket(T + 1000));
    window.offer_row(history(T + 1100), "the frame's", now);
    assert_eq!(window.offer_row(history(T + 1300), "another", now), Outcome::Waits);
    assert_eq!(window.settle(now + WAIT / 2).new.len(), 0);
    let settled = window.settle(now + WAIT);
    assert_eq!(settled.new, [(history(T + 1300), "another".to_owned())]);
    assert_eq!((settled.duplicates, window.oldest_waiting()), (0, None));
    assert_eq!(new_of(&mut window, &[history(T + 1100), history(T + 1300)]), [false, false]);
}

#[test]
fn where_the_two_ways_give_one_time_no_row_waits() {
    let (mut window, now) = (Window::default(), Instant::now());
    window.offer(socket(T));
    assert_eq!(window.offer_row(history(T), "the frame's", now), Outcome::Duplicate);
    assert_eq!(window.offer_row(history(T + 100), "another", now), Outcome::New);
    // Nor does one that has nothing like it nearby, where they do not.
    window.offer_row(history(T + 101), "a third", now);
    window.offer(socket(T + 10_000));
    assert_eq!(window.offer_row(history(T + 10_500), "its row", now), Outcome::Duplicate);
    assert_eq!(window.offer_row(history(T + 20_000), "alone", now), Outcome::New);
}

#[test]
fn what_finds_no_room_to_wait_is_decided_at_once() {
    let (mut window, now) = (Window::default(), Instant::now());
    window.offer(socket(T));
    window.offer_row(history(T + 1), "the frame's", now);
    let outcomes: Vec<Outcome> = (2..1_002).map(|n| window.offer_row(history(T + n), "another", now)).collect();
    let waiting = outcomes.iter().filter(|outcome| **outcome == Outcome::Waits).count();
    assert!((1..1_000).contains(&waiting), "{waiting}");
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Outcome::New).count(), 1_000 - waiting);
    assert_eq!(window.settle(now + WAIT).new.len(), waiting);
}

#[test]
fn two_records_of_the_file_are_never_twins() {
    let mut window = Window::default();
    window.note(socket(T));
    window.note(history(T + 500));
    assert_eq!(new_of(&mut window, &[history(T - 100), history(T + 500), history(T + 700)]), [false, false, true]);
}

#[test]
fn a_receipt_stands_for_a_missing_time() {
    let mut window = Window::default();
    assert_eq!(window.offer(receipt(T, Way::Socket)), Outcome::New);
    assert_eq!(window.offer(receipt(T + 5, Way::Socket)), Outcome::New);
    assert_eq!(new_of(&mut window, &[history(T - 119_000), history(T - 100)]), [false, false]);
    assert_eq!(decided(&mut window, history(T - 119_000), "the first"), Outcome::Duplicate);
    let displaced = Outcome::Displaces { moment: Moment::Own(T - 119_000), row: Some("the first".to_owned()) };
    assert_eq!(decided(&mut window, history(T - 90), "the third"), displaced);
    assert_eq!(new_of(&mut window, &[history(T + 2001), history(T - 120_000)]), [true, true]);
    // A row without a time: the same at each read.
    let mut window = Window::default();
    window.offer(socket(T - 60_000));
    assert_eq!(new_of(&mut window, &[receipt(T, Way::History), receipt(T + 60_000, Way::History)]), [false, false]);
}

#[test]
fn what_is_older_than_the_horizon_is_forgotten() {
    let mut window = Window::default();
    for n in 0..1000 {
        window.offer(socket(T + n * 10));
    }
    window.offer(receipt(T, Way::Socket));
    window.sweep(T + 5000);
    assert_eq!(window.len(), 500);
    assert_eq!(window.offer(socket(T + 5000)), Outcome::Duplicate);
    assert_eq!(window.offer(socket(T)), Outcome::New);
}

#[test]
fn at_the_bound_the_oldest_go_and_are_counted() {
    let mut window = Window::default();
    let times = EVENTS_MAX as i64 + 1;
    for n in 0..times {
        window.offer(Sighting {
            content: (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            way: Way::Socket,
            moment: Moment::Own(T + n),
        });
    }
    assert!(window.len() <= EVENTS_MAX && window.len() > EVENTS_MAX / 2);
    assert_eq!(window.forgotten(), times as u64 - window.len() as u64);
    let forgotten_ms = window.forgotten_before() - T;
    assert!((1..times / 2).contains(&forgotten_ms), "{forgotten_ms}");
    let newest = times - 1;
    let sighting = Sighting {
        content: (newest as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        way: Way::Socket,
        moment: Moment::Own(T + newest),
    };
    assert_eq!(window.offer(sighting), Outcome::Duplicate);
    // The file alone can tell of what is as old, and of what could be the twin of that.
    let edge = window.forgotten_before() + 2 * TOLERANCE_MS;
    assert!(window.may_have_forgotten(Moment::Own(edge - 1)) && !window.may_have_forgotten(Moment::Own(edge)));
    assert!(!Window::default().may_have_forgotten(Moment::Own(0)));
}

#[test]
fn more_than_can_be_remembered_of_two_seconds_is_forgotten_whole() {
    let mut window = Window::default();
    for n in 0..=EVENTS_MAX as u64 {
        let content = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        window.note(Sighting { content, way: Way::Socket, moment: Moment::Own(T + (n % 2) as i64 * TOLERANCE_MS) });
    }
    assert_eq!(window.forgotten(), EVENTS_MAX as u64);
    assert!(window.may_have_forgotten(Moment::Own(T + TOLERANCE_MS)));
}

#[test]
fn an_echo_is_not_forgotten_before_its_record() {
    let mut window = Window::default();
    window.offer(socket(T + 1500));
    assert_eq!(window.offer(history(T)), Outcome::Duplicate);
    for n in 0..EVENTS_MAX {
        let content = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let late = if n % 2 == 0 { 0 } else { 3_600_000 };
        window.note(Sighting { content, way: Way::Socket, moment: Moment::Own(T + late) });
    }
    assert!(window.forgotten() > 0);
    assert_eq!(window.offer(history(T + 1400)), Outcome::New, "another event would be lost");
}

#[test]
fn a_storm_of_equal_events_is_told_apart() {
    let mut window = Window::default();
    let sent: Vec<Sighting> = (0..6000).map(|n| socket(T + n)).collect();
    assert!(new_of(&mut window, &sent).iter().all(|new| *new));
    let rows: Vec<Sighting> = (0..6000).map(|n| history(T + n)).collect();
    assert!(new_of(&mut window, &rows).iter().all(|new| !new));
}

#[test]
fn a_long_chain_of_like_events_is_told_apart_to_the_event() {
    // From, how many a millisecond apart, and whether the socket brings them.
    let bunches = [(4_509, 60, true), (5_900, 40, true), (7_600, 3, false), (9_400, 64, true), (11_329, 30, true)];
    let events: Vec<(Millis, bool)> =
        bunches.iter().flat_map(|(from, count, framed)| (0..*count).map(move |n| (T + from + n, *framed))).collect();
    let mut window = Window::default();
    let frames = events.iter().filter(|(_, framed)| *framed);
    assert!(frames.clone().all(|(at, _)| window.offer(socket(*at)) == Outcome::New));
    // Up to a hundred milliseconds off, each its own way, and no two at one time.
    let off = |n: usize| (n as i64 * 73) % 201 - 100;
    let times: BTreeSet<Millis> = events.iter().enumerate().map(|(n, (at, _))| at + off(n)).collect();
    let own = |at: Millis| at > T + 7_600 - 101 && at < T + 7_603 + 101;
    let mut written = Vec::new();
    for at in &times {
        match decided(&mut window, history(*at), "its text") {
            Outcome::New => written.push(*at),
            Outcome::Displaces { moment, row: Some(_) } => written.push(moment.nominal()),
            Outcome::Displaces { row: None, .. } | Outcome::Duplicate | Outcome::Waits => {}
        }
    }
    assert_eq!(written.len(), times.len() - frames.count());
    assert!(written.iter().all(|at| own(*at)), "{written:?}");
}
