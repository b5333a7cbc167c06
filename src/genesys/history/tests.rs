//! The reader of the history against literal answers.

use super::*;

const NOW: Millis = 1_795_430_000_000;
const HOUR: Millis = 3_600_000;

fn ids(count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("AUDIOHOOK-{n:04}")).collect()
}

fn history(span: Millis, ids: Vec<String>) -> History {
    let mut history = History::new("https://api.example", 1_000_000);
    history.add(ids, NOW - span, NOW, true, Instant::now());
    history
}

/// The next request: its cursor, the hours and the number of ids it asks for.
fn ask(history: &mut History) -> (Option<String>, Millis, usize) {
    let Next::Ask { cursor, body, .. } = history.next(Instant::now(), NOW) else { panic!("nothing is asked for") };
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    let (from, to) = body["interval"].as_str().unwrap().split_once('/').unwrap();
    let ms = |text| crate::clock::parse_instant(text).unwrap();
    (cursor, (ms(to) - ms(from)) / HOUR, body["eventDefinitionIds"].as_array().unwrap().len())
}

fn page(rows: usize, next: Option<&str>) -> Result<String, ApiError> {
    let rows = vec![serde_json::json!({"a": 1}); rows];
    Ok(serde_json::json!({ "entities": rows, "nextUri": next }).to_string())
}

fn failure(kind: Kind) -> Result<String, ApiError> {
    Err(ApiError::new(kind, WHAT, "a test"))
}

#[test]
fn a_long_span_is_read_in_pieces_and_each_end_is_told_after_its_last_page() {
    let mut history = history(30 * HOUR, ids(2));
    assert_eq!(ask(&mut history), (None, 24, 2));
    let taken = history.take(page(2, Some("/next?after=1")), 0);
    assert_eq!((taken.page.unwrap().rows.len(), taken.read_up_to, taken.done), (2, None, false));
    assert_eq!(ask(&mut history).0.as_deref(), Some("/next?after=1"));
    let taken = history.take(page(0, None), 0);
    assert_eq!((taken.read_up_to, taken.done), (Some(NOW - 6 * HOUR), false));
    assert_eq!(ask(&mut history), (None, 6, 2));
    let taken = history.take(page(1, None), 0);
    assert_eq!((taken.read_up_to, taken.done), (Some(NOW), true));
    assert_eq!(history.next(Instant::now(), NOW), Next::Idle);
}

#[test]
fn nothing_is_asked_for_that_the_service_no_longer_keeps() {
    let mut history = history(12 * 24 * HOUR, ids(1));
    let Next::Ask { body, .. } = history.next(Instant::now(), NOW) else { panic!() };
    // Nor what it keeps no longer when the request is there.
    assert!(body.contains(&format_millis(NOW - REACH_MS)), "{body}");
}

#[test]
fn a_page_that_is_too_long_is_asked_for_in_less_and_what_was_small_grows_again() {
    let mut history = history(HOUR, ids(1));
    let size = |history: &mut History| match history.next(Instant::now(), NOW) {
        Next::Ask { page_size, .. } => page_size,
        other => panic!("{other:?}"),
    };
    for expected in [200, 100, 50] {
        assert_eq!(size(&mut history), expected);
        let taken = history.take(failure(Kind::TooLong), 0);
        assert!(taken.failed.is_none() && taken.page.is_none());
    }
    assert_eq!(size(&mut history), 25);
    let rows = vec![serde_json::json!({"a": "x".repeat(100_000)}); 25];
    let large = serde_json::json!({ "entities": rows, "nextUri": "/next?pageSize=25&after=1" }).to_string();
    assert_eq!(history.take(Ok(large), 0).page.unwrap().rows.len(), 25);
    let Next::Ask { cursor, .. } = history.next(Instant::now(), NOW) else { panic!() };
    assert_eq!(cursor.as_deref(), Some("/next?pageSize=10&after=1"), "about a mebibyte");
    let mut sizes = Vec::new();
    for number in 2..8 {
        let next = format!("/next?after={number}");
        history.take(page(10, Some(&next)), 0);
        sizes.push(size(&mut history));
    }
    assert_eq!(sizes, [20, 40, 80, 160, 200, 200]);
    // An event that no page is large enough for is told, and asked for again.
    let mut failed = false;
    for _ in 0..100 {
        failed |= history.take(failure(Kind::TooLong), 0).failed.is_some();
        size(&mut history);
    }
    assert!(failed);
}

#[test]
fn an_expired_cursor_begins_the_piece_anew_and_is_no_failure() {
    let mut history = history(HOUR, ids(1));
    ask(&mut history);
    history.take(page(1, Some("/next?after=1")), 0);
    ask(&mut history);
    let taken = history.take(failure(Kind::Refused(400)), 0);
    assert!(taken.failed.is_none() && taken.read_up_to.is_none());
    assert_eq!(ask(&mut history), (None, 1, 1));
    assert!(history.take(page(1, None), 0).done);
}

#[test]
fn pages_that_lead_in_a_circle_end_as_a_failure_and_never_as_a_span_that_was_read() {
    let mut history = history(HOUR, ids(1));
    let mut failed = false;
    for _ in 0..20 {
        ask(&mut history);
        let taken = history.take(page(1, Some("/next?after=1")), 0);
        assert_eq!(taken.read_up_to, None);
        failed |= taken.failed.is_some();
    }
    assert!(failed);
}

#[test]
fn what_is_refused_is_asked_for_in_less() {
    let mut history = history(24 * HOUR, ids(4));
    let mut asked = Vec::new();
    loop {
        let (_, hours, count) = ask(&mut history);
        asked.push((hours, count));
        let taken = if hours > 3 || count > 1 {
            history.take(failure(Kind::Refused(400)), 0)
        } else {
            history.take(page(0, None), 0)
        };
        assert!(taken.failed.is_none());
        if taken.read_up_to.is_some() {
            break;
        }
    }
    assert_eq!(asked.last(), Some(&(1, 1)), "{asked:?}");
    assert!(asked.len() < 14, "{asked:?}");
}

#[test]
fn a_failing_service_shortens_the_piece_and_its_return_lets_it_grow() {
    let mut history = history(48 * HOUR, ids(1));
    for _ in 0..4 {
        ask(&mut history);
        assert!(history.take(failure(Kind::Unavailable(None)), 0).failed.is_some());
    }
    let mut hours = Vec::new();
    while !history.is_idle() {
        hours.push(ask(&mut history).1);
        history.take(page(0, None), 0);
    }
    assert!(hours[0] < 24 && hours.windows(2).take(2).all(|pair| pair[1] > pair[0]), "{hours:?}");
}

#[test]
fn half_an_answer_is_asked_for_again() {
    let mut history = history(HOUR, ids(1));
    ask(&mut history);
    assert!(history.take(Ok(r#"{"entities":[{"a":1}"#.to_owned()), 0).failed.is_some());
    assert_eq!(ask(&mut history), (None, 1, 1));
    assert!(history.take(page(1, None), 0).done);
}

/// The beginning of the interval that is asked for.
fn asked_from(history: &mut History) -> Millis {
    let Next::Ask { body, .. } = history.next(Instant::now(), NOW) else { panic!("nothing is asked for") };
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    crate::clock::parse_instant(body["interval"].as_str().unwrap().split_once('/').unwrap().0).unwrap()
}

#[test]
fn what_is_too_old_for_the_service_is_passed_over_and_said() {
    let mut history = history(KEPT_MS, ids(2));
    // It takes nothing that begins more than two hours inside of what it keeps.
    let limit = NOW - KEPT_MS + 2 * HOUR;
    let mut skipped = None;
    for _ in 0..1_000 {
        if history.is_idle() {
            break;
        }
        let answer = if asked_from(&mut history) < limit { failure(Kind::Refused(400)) } else { page(1, None) };
        let taken = history.take(answer, 0);
        assert!(taken.failed.is_none());
        skipped = skipped.or(taken.skipped);
    }
    let (from, to) = skipped.unwrap();
    assert_eq!(from, NOW - KEPT_MS);
    assert!(history.is_idle() && (limit..limit + 3 * HOUR).contains(&to), "{}", (to - limit) / 60_000);
}

#[test]
fn a_service_that_refuses_everything_takes_nothing_away() {
    let mut history = history(KEPT_MS, ids(2));
    let mut failures = 0;
    for _ in 0..500 {
        assert!(asked_from(&mut history) < NOW - KEPT_MS + EDGE_ZONE_MS);
        let taken = history.take(failure(Kind::Refused(400)), 0);
        assert!(taken.skipped.is_none() && taken.read_up_to.is_none() && !taken.progressed);
        failures += u32::from(taken.failed.is_some());
    }
    assert!(failures >= 3);
    // It was not the age: from where it stood the reading goes on.
    while asked_from(&mut history) > NOW - REACH_MS {
        history.take(failure(Kind::Refused(400)), 0);
    }
    let taken = history.take(page(1, None), 0);
    assert!(taken.skipped.is_none() && taken.progressed);
}

#[test]
fn a_hundred_empty_pages_with_cursors_of_their_own_are_passed() {
    let mut history = history(HOUR, ids(1));
    for n in 0..100 {
        ask(&mut history);
        assert!(history.take(page(0, Some(&format!("/next?after={n}"))), 0).failed.is_none());
    }
    ask(&mut history);
    let taken = history.take(page(1, None), 0);
    assert!(taken.done && taken.page.is_some());
}

#[test]
fn a_piece_that_does_not_come_to_its_end_is_shortened() {
    let mut history = history(2 * HOUR, ids(1));
    let mut hours = Vec::new();
    for _ in 0..100 {
        let (cursor, span, _) = ask(&mut history);
        hours.push(span);
        // Whatever is longer than an hour has a second page, which is refused.
        let is_long = span > 1;
        let answer =
            if cursor.is_some() { failure(Kind::Refused(400)) } else { page(1, is_long.then_some("/next?a=1")) };
        if history.take(answer, 0).done {
            break;
        }
    }
    assert!(history.is_idle(), "{hours:?}");
}

#[test]
fn only_what_was_not_given_before_is_progress() {
    let mut history = history(HOUR, ids(1));
    let mut progress = Vec::new();
    // Its second page is refused, again and again.
    for _ in 0..3 {
        ask(&mut history);
        progress.push(history.take(page(1, Some("/next?after=1")), 0).progressed);
        ask(&mut history);
        progress.push(history.take(failure(Kind::Refused(400)), 0).progressed);
    }
    assert_eq!(progress, [true, false, false, false, false, false]);
}

#[test]
fn a_limit_on_the_definitions_costs_no_span() {
    let mut history = history(6 * 24 * HOUR, ids(4));
    let mut spans = Vec::new();
    while !history.is_idle() {
        let (_, hours, count) = ask(&mut history);
        let answer = if count > 2 { failure(Kind::Refused(400)) } else { page(0, None) };
        spans.push(hours);
        assert!(history.take(answer, 0).failed.is_none());
    }
    assert!(spans.contains(&24) && spans.len() < 40, "{spans:?}");
}

#[test]
fn two_readers_of_one_history_keep_to_one_rate() {
    let mut one = History::new("https://api.example", 20);
    let mut other = one.beside();
    let now = Instant::now();
    let sent =
        (0..100).filter(|n| if n % 2 == 0 { one.ask_other(now) } else { other.ask_other(now) }.is_none()).count();
    assert_eq!(sent, 2, "a tenth of the rate at once");
}
