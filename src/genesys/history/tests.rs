//! The reader of the history against literal answers.

use super::*;

const NOW: Millis = 1_795_430_000_000;
const HOUR: Millis = 3_600_000;

fn ids(count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("AUDIOHOOK-{n:04}")).collect()
}

fn read(span: Millis, ids: &[String]) -> Read {
    // The margin makes it a round number of hours.
    let span = Span { from: NOW - span + CONTEXT_MS, to: NOW };
    Read { ids: ids.into(), span, until: NOW, purpose: Purpose::CatchUp }
}

fn history(span: Millis, ids: &[String]) -> History {
    let mut history = History::new("https://api.example", 1_000_000);
    history.begin(read(span, ids), Instant::now());
    history
}

/// The next request: its cursor, the hours and the ids it asks for.
fn ask(history: &mut History) -> (Option<String>, Millis, Vec<String>) {
    let Next::Ask { cursor, body, .. } = history.next(Instant::now(), NOW) else { panic!("nothing is asked for") };
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    let (from, to) = body["interval"].as_str().unwrap().split_once('/').unwrap();
    let ms = |text| crate::clock::parse_instant(text).unwrap();
    let ids = body["eventDefinitionIds"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned());
    (cursor, (ms(to) - ms(from)) / HOUR, ids.collect())
}

/// A page of rows with these numbers, all of one time.
fn page(rows: impl IntoIterator<Item = u32>, next: Option<&str>) -> Result<String, ApiError> {
    let row = |n| serde_json::json!({ "dateCreated": format_millis(NOW - HOUR), "n": n });
    let rows: Vec<serde_json::Value> = rows.into_iter().map(row).collect();
    Ok(serde_json::json!({ "entities": rows, "nextUri": next }).to_string())
}

fn failure(kind: Kind) -> Result<String, ApiError> {
    Err(ApiError::new(kind, WHAT, "a test"))
}

#[test]
fn a_long_span_is_read_in_pieces_and_each_end_is_stated_after_its_last_page() {
    let mut history = history(30 * HOUR, &ids(2));
    assert_eq!(ask(&mut history), (None, 24, ids(2)));
    let taken = history.take(page(0..2, Some("/next?after=1")), 0);
    assert_eq!((taken.page.unwrap().rows.len(), taken.read_up_to), (2, None));
    assert!(taken.done.is_none());
    assert_eq!(ask(&mut history).0.as_deref(), Some("/next?after=1"));
    let taken = history.take(page([], None), 0);
    assert_eq!(taken.read_up_to, Some(NOW - 6 * HOUR));
    assert_eq!(ask(&mut history).1, 6);
    let taken = history.take(page(0..1, None), 0);
    assert_eq!(taken.read_up_to, Some(NOW));
    assert!(taken.done.is_some());
    assert_eq!(history.next(Instant::now(), NOW), Next::Idle);
}

#[test]
fn nothing_is_asked_for_that_the_service_no_longer_keeps() {
    let mut history = history(12 * 24 * HOUR, &ids(1));
    let Next::Ask { body, .. } = history.next(Instant::now(), NOW) else { panic!() };
    // Nor what it keeps no longer when the request arrives.
    assert!(body.contains(&format_millis(NOW - REACH_MS)), "{body}");
}

#[test]
fn no_request_carries_an_empty_list_of_definitions() {
    assert_eq!(history(HOUR, &[]).next(Instant::now(), NOW), Next::Idle);
}

#[test]
fn an_answer_that_is_too_long_is_asked_for_in_shorter_pieces_and_is_no_failure() {
    let mut history = history(4 * HOUR, &ids(1));
    for expected in [4, 2, 1, 0] {
        assert_eq!(ask(&mut history).1, expected);
        assert!(history.take(failure(Kind::TooLong), 0).failed.is_none());
    }
    while history.take(failure(Kind::TooLong), 0).failed.is_none() {
        ask(&mut history);
    }
}

#[test]
fn an_expired_cursor_begins_a_shorter_piece_and_is_no_failure() {
    let mut history = history(2 * HOUR, &ids(1));
    ask(&mut history);
    history.take(page(0..1, Some("/next?after=1")), 0);
    ask(&mut history);
    let taken = history.take(failure(Kind::Refused(400)), 0);
    assert!(taken.failed.is_none() && taken.read_up_to.is_none());
    assert_eq!(ask(&mut history), (None, 1, ids(1)));
    assert_eq!(history.take(page(0..1, None), 0).read_up_to, Some(NOW - HOUR));
    ask(&mut history);
    assert!(history.take(page(0..1, None), 0).done.is_some());
}

#[test]
fn a_piece_of_many_pages_is_begun_anew_and_shorter_and_no_page_of_it_is_passed_over() {
    let mut history = history(24 * HOUR, &ids(1));
    for number in 0..PAGES_MAX {
        assert_eq!(ask(&mut history).1, 24);
        let taken = history.take(page(number..number + 1, Some(&format!("/next?after={number}"))), 0);
        assert_eq!(taken.read_up_to, None, "an older row may stand on a page that was not read");
    }
    let mut up_to = NOW - 24 * HOUR;
    for part in [1, 2, 4, 8, 16, 32, 1] {
        assert_eq!(ask(&mut history).0, None);
        up_to += part * 24 * HOUR / PIECE_PARTS;
        assert_eq!(history.take(page(0..1, None), 0).read_up_to, Some(up_to));
    }
    assert!(history.is_idle());
}

/// How many requests a read takes that is answered so; none where it does not end.
fn requests(answers: impl Fn(Option<&str>, usize) -> Result<String, ApiError>) -> Option<usize> {
    let mut history = history(HOUR, &ids(1));
    (1..50).find(|number| {
        let cursor = ask(&mut history).0;
        history.take(answers(cursor.as_deref(), *number), 0).done.is_some()
    })
}

#[test]
fn an_empty_or_short_page_that_names_its_own_cursor_is_the_last() {
    let rest = |cursor: Option<&str>, rest: std::ops::Range<u32>| match cursor {
        None => page(0..3, Some("/next?after=3")),
        Some(_) => page(rest, Some("/next?after=3")),
    };
    assert_eq!(requests(|cursor, _| rest(cursor, 0..0)), Some(2));
    assert_eq!(requests(|cursor, _| rest(cursor, 3..5)), Some(2 + REPEATS_MAX as usize));
    assert_eq!(requests(|_, _| Ok("{}".to_owned())), Some(1), "a page without entities has no rows");
    assert_eq!(requests(|_, _| Ok(r#"{"entities":null,"nextUri":null}"#.to_owned())), Some(1));
}

#[test]
fn a_cursor_that_returns_with_new_rows_goes_on() {
    let answers = |_: Option<&str>, number: usize| {
        let first = 3 * number as u32;
        let next = if number < 5 { Some("/next?after=x") } else { None };
        page(first..first + 3, next)
    };
    assert_eq!(requests(answers), Some(5));
}

#[test]
fn a_page_that_repeats_under_its_own_cursor_is_the_last_only_if_it_does_so_again_and_again() {
    // The second page is repeated by mistake, once.
    let once = |cursor: Option<&str>, number: usize| match (cursor, number) {
        (None, _) => page(0..3, Some("/next?after=3")),
        (Some("/next?after=3"), 2) => page(0..3, Some("/next?after=3")),
        (Some("/next?after=3"), _) => page(3..6, Some("/next?after=6")),
        _ => page(6..7, None),
    };
    assert_eq!(requests(once), Some(4));
    let always = |cursor: Option<&str>, _: usize| match cursor {
        None => page(0..3, Some("/next?after=3")),
        Some(_) => page(3..6, Some("/next?after=3")),
    };
    assert!(requests(always).is_some());
}

#[test]
fn what_is_refused_is_asked_for_with_half_the_definitions_then_for_half_the_time_and_grows_again() {
    let mut history = history(24 * HOUR, &ids(4));
    for (hours, count) in [(24, 4), (24, 2), (24, 1), (12, 4), (12, 2), (12, 1)] {
        assert_eq!(ask(&mut history), (None, hours, ids(count)));
        history.take(failure(Kind::Refused(400)), 0);
    }
    for hours in [6, 6, 12] {
        assert_eq!(ask(&mut history), (None, hours, ids(4)));
        history.take(page([], None), 0);
    }
}

#[test]
fn a_definition_that_the_service_does_not_know_is_left_out_and_the_others_are_read() {
    let mut history = history(HOUR, &ids(4));
    let (mut asked, mut left_out) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        let (_, _, ids) = ask(&mut history);
        let is_refused = ids.contains(&"AUDIOHOOK-0003".to_owned());
        asked.push(ids);
        let answer = if is_refused { failure(Kind::Refused(400)) } else { page([], None) };
        let taken = history.take(answer, 0);
        left_out.extend(taken.left_out.into_iter().map(|(id, _)| id));
        if taken.done.is_some() {
            break;
        }
    }
    let is_read =
        |id: &str| asked.iter().any(|ids| ids.contains(&id.to_owned()) && !ids.contains(&"AUDIOHOOK-0003".to_owned()));
    assert!(["AUDIOHOOK-0001", "AUDIOHOOK-0002", "AUDIOHOOK-0004"].into_iter().all(is_read), "{asked:?}");
    assert_eq!(left_out, ["AUDIOHOOK-0003"]);
}

#[test]
fn a_definition_that_always_fails_is_left_out_once_the_others_are_answered() {
    for kind in [Kind::Network, Kind::Unavailable(None), Kind::Gone, Kind::Refused(405), Kind::InvalidResponse] {
        for failing in ids(3) {
            let mut history = history(2 * HOUR, &ids(3));
            let (mut failures, mut left_out) = (0, Vec::new());
            let done = loop {
                let is_failing = ask(&mut history).2.contains(&failing);
                let taken = history.take(if is_failing { failure(kind) } else { page([], None) }, 0);
                failures += u32::from(taken.failed.is_some());
                left_out.extend(taken.left_out.into_iter().map(|(id, _)| id));
                if let Some(done) = taken.done {
                    break done;
                }
            };
            assert_eq!(left_out, std::slice::from_ref(&failing));
            assert!(done.ids.len() == 2 && !done.ids.contains(&failing), "the read speaks for the others alone");
            assert!(failures <= 4 * FAILURES_MAX, "{failures}");
        }
    }
}

#[test]
fn where_every_definition_fails_for_a_while_none_is_left_out() {
    let mut history = history(30 * HOUR, &ids(3));
    let mut asked = Vec::new();
    for _ in 0..100 {
        asked.push(ask(&mut history).2.len());
        let taken = history.take(failure(Kind::Unavailable(None)), 0);
        assert!(taken.failed.is_some() && taken.read_up_to.is_none() && taken.left_out.is_empty());
    }
    assert!(asked.contains(&1) && asked.contains(&3), "{asked:?}");
    loop {
        ask(&mut history);
        let taken = history.take(page([], None), 0);
        assert!(taken.left_out.is_empty());
        if let Some(done) = taken.done {
            assert_eq!(done.ids.len(), 3);
            break;
        }
    }
}

#[test]
fn what_the_service_refuses_for_its_age_is_skipped_once_the_rest_is_taken() {
    let oldest = NOW - HISTORY_KEPT_MS;
    // Half of an hour that the service should keep it does not take requests for.
    let taken_from = oldest + HOUR / 2;
    let mut history = history(REACH_MS, &ids(2));
    let mut skipped = Vec::new();
    for _ in 0..10_000 {
        let Next::Ask { body, .. } = history.next(Instant::now(), NOW) else { break };
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        let (from, _) = body["interval"].as_str().unwrap().split_once('/').unwrap();
        let is_refused = crate::clock::parse_instant(from).unwrap() < taken_from;
        let answer = if is_refused { failure(Kind::Refused(400)) } else { page([], None) };
        skipped.extend(history.take(answer, 0).skipped);
    }
    assert!(history.is_idle());
    assert_eq!(skipped, [(NOW - REACH_MS, oldest + 4 * EDGE_MS_REFUSED)]);
}

#[test]
fn a_piece_that_is_not_answered_in_time_is_asked_for_in_half() {
    let mut history = history(24 * HOUR, &ids(1));
    for expected in [24, 24, 24, 12, 6, 3] {
        assert_eq!(ask(&mut history).1, expected);
        assert!(history.take(failure(Kind::Network), 0).failed.is_some());
    }
}

#[test]
fn a_next_page_on_another_host_is_not_followed() {
    let mut history = history(HOUR, &ids(1));
    ask(&mut history);
    assert!(history.take(page(0..1, Some("https://elsewhere.example/next")), 0).failed.is_some());
}

#[test]
fn a_definition_that_was_refused_once_is_not_read_in_the_middle_of_a_read() {
    let mut history = history(30 * HOUR, &ids(2));
    loop {
        let (_, hours, asked) = ask(&mut history);
        let refused = asked.contains(&"AUDIOHOOK-0002".to_owned()) && hours <= 24;
        if history.take(if refused { failure(Kind::Refused(400)) } else { page([], None) }, 0).read_up_to.is_some() {
            break;
        }
    }
    // A new list of definitions came: it may be known by now, but what was passed over is not read.
    assert_eq!(ask(&mut history).2, ["AUDIOHOOK-0001"]);
    assert_eq!(history.ids().unwrap()[..], ["AUDIOHOOK-0001".to_owned()]);
}

#[test]
fn the_records_are_asked_for_that_the_piece_needs() {
    for span in [5 * HOUR, 30 * HOUR, 12 * 24 * HOUR] {
        let mut history = history(span, &ids(1));
        while let Some((expected, _)) = history.next_piece(NOW) {
            let Next::Ask { body, .. } = history.next(Instant::now(), NOW) else { panic!() };
            let body: serde_json::Value = serde_json::from_str(&body).unwrap();
            let (from, to) = body["interval"].as_str().unwrap().split_once('/').unwrap();
            let [from, to] = [from, to].map(|text| crate::clock::parse_instant(text).unwrap());
            assert!(
                expected.from - 1 <= from && to <= expected.to,
                "{} h: {from} to {to}, not {expected:?}",
                span / HOUR
            );
            history.take(page([], None), 0);
        }
    }
}

#[test]
fn what_was_refused_before_everything_is_refused_is_read_from_where_it_was_refused() {
    let mut history = history(30 * HOUR, &ids(2));
    ask(&mut history);
    history.take(failure(Kind::Refused(400)), 0);
    assert_eq!(ask(&mut history).2, ["AUDIOHOOK-0001"]);
    history.take(page([], None), 0);
    // The other one is refused, and then this one too.
    while history.take(failure(Kind::Refused(400)), 0).failed.is_none() {
        ask(&mut history);
    }
    let Next::Ask { body, .. } = history.next(Instant::now(), NOW) else { panic!() };
    assert!(body.contains(&format!("\"{}/", format_millis(NOW - 30 * HOUR))), "{body}");
    assert_eq!(history.ids().unwrap().len(), 2);
}

#[test]
fn pages_that_repeat_under_new_cursors_are_a_failure_and_read_anew() {
    let mut history = history(HOUR, &ids(1));
    let is_failure = |number: usize, history: &mut History| {
        ask(history);
        let next = format!("/next?after={number}");
        history.take(page(0..3, Some(&next)), 0).failed.is_some()
    };
    let failed = (0..2 * PAGES_MAX as usize).find(|number| is_failure(*number, &mut history));
    assert!(failed.is_some());
    assert_eq!(ask(&mut history).0, None);
    let taken = history.take(page(0..3, None), 0);
    assert!(taken.failed.is_none() && taken.read_up_to.is_some());
}

#[test]
fn a_read_whose_end_the_service_no_longer_keeps_is_given_up() {
    let mut history = history(HOUR, &ids(1));
    ask(&mut history);
    history.take(failure(Kind::Network), 0);
    assert_eq!(history.next(Instant::now(), NOW + HISTORY_KEPT_MS), Next::Idle);
    assert!(history.is_idle());
}

#[test]
fn nothing_is_asked_for_that_grew_too_old_meanwhile() {
    let mut history = history(48 * HOUR, &ids(2));
    ask(&mut history);
    history.take(failure(Kind::Network), 0);
    let now = NOW + HISTORY_KEPT_MS - 12 * HOUR;
    let Next::Ask { body, .. } = history.next(Instant::now(), now) else { panic!() };
    assert!(body.contains(&format!("{}/{}", format_millis(now - REACH_MS), format_millis(NOW))), "{body}");
}

#[test]
fn what_was_refused_for_a_while_only_is_read_once_something_is_taken() {
    for span in [2 * HOUR, REACH_MS] {
        let mut history = history(span, &ids(2));
        let mut failed = 0;
        while failed < 3 {
            ask(&mut history);
            let taken = history.take(failure(Kind::Refused(400)), 0);
            failed += u32::from(taken.failed.is_some());
            assert!(taken.read_up_to.is_none() && taken.done.is_none() && taken.skipped.is_none());
        }
        let begin = format!("\"{}/", format_millis(NOW - span));
        let mut is_read = false;
        while let Next::Ask { body, .. } = history.next(Instant::now(), NOW) {
            is_read |= body.contains(&begin);
            assert_eq!(history.take(page([], None), 0).skipped, None);
        }
        assert!(is_read && history.is_idle());
    }
}
