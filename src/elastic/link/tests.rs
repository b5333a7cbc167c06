//! The way to the cluster, driven by hand through outages of each kind.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn link(nodes: usize) -> (Link, Instant) {
    let now = Instant::now();
    let mut link = Link::new(nodes, false, 42, now);
    assert_eq!(link.next(now, Some(now)), Next::Probe { node: 0 });
    for node in 0..nodes {
        link.probed(node, true, now);
    }
    (link, now)
}

/// The waits between the bulk requests of an outage in which each is answered as told.
fn waits(link: &mut Link, mut now: Instant, tries: usize, probe_alive: bool) -> Vec<Duration> {
    let mut waits = Vec::new();
    let mut last = now;
    let end = now + 3600 * SECOND;
    while waits.len() < tries && now < end {
        match link.next(now, Some(now)) {
            Next::Bulk { node, .. } => {
                waits.push(now - last);
                last = now;
                link.sent(now);
                link.failed(node, false, None, now);
            }
            Next::Probe { node } => link.probed(node, probe_alive, now),
            Next::Wait(until) => now = until.max(now),
            Next::Setup { node } => link.set_up(node, now),
        }
    }
    waits
}

#[test]
fn the_wait_doubles_to_a_minute_with_jitter() {
    let (mut link, now) = link(1);
    let waits = waits(&mut link, now, 12, false);
    assert_eq!(waits[0], Duration::ZERO);
    for (n, wait) in waits[1..].iter().enumerate() {
        let whole = (SECOND * 2u32.pow(n.min(6) as u32)).min(BACKOFF_MAX);
        assert!((whole / 2..=whole).contains(wait), "{n}: {wait:?}");
    }
}

#[test]
fn a_cluster_that_refuses_each_request_but_answers_probes_gets_one_document_every_few_seconds() {
    let (mut link, now) = link(1);
    let waits = waits(&mut link, now, 12, true);
    assert!(link.is_trial());
    assert!(waits[8..].iter().all(|wait| (TRIAL_EVERY * 9 / 10..=TRIAL_EVERY).contains(wait)), "{waits:?}");
}

#[test]
fn documents_that_are_put_off_again_and_again_go_every_few_seconds() {
    let (mut link, mut now) = link(1);
    for _ in 0..12 {
        link.put_off(0, now);
        let Next::Wait(until) = link.next(now, Some(now)) else { panic!() };
        assert!(until - now <= TRIAL_EVERY);
        now = until;
    }
    assert!(!link.is_trial(), "others may go");
}

#[test]
fn the_end_of_a_hang_that_spared_the_probes_is_seen_within_ten_seconds() {
    let (mut link, mut now) = link(1);
    let mut ended = None;
    for _ in 0..200 {
        match link.next(now, Some(now)) {
            Next::Bulk { node, timeout } => {
                // Had it ended right after the request before was sent, this one would have shown it.
                let gap: Option<Duration> = ended.map(|sent: Instant| now - sent);
                assert!(gap.is_none_or(|gap| gap <= 10 * SECOND), "{gap:?}");
                ended = Some(now);
                link.sent(now);
                now += timeout;
                link.failed(node, true, None, now);
            }
            Next::Probe { node } => link.probed(node, true, now),
            Next::Wait(until) => now = until,
            Next::Setup { .. } => panic!(),
        }
    }
}

#[test]
fn when_the_last_node_goes_away_in_idle_times_the_others_are_looked_at_soon() {
    let (mut link, now) = link(3);
    link.failed(0, false, None, now);
    link.failed(1, false, None, now);
    link.progressed(2, 0, 1, now);
    let gone = now + IDLE_PROBE_EVERY;
    assert_eq!(link.next(gone, None), Next::Probe { node: 2 });
    link.probed(2, false, gone);
    let mut at = gone;
    let mut probed = Vec::new();
    while at < gone + 3 * PROBE_EVERY {
        match link.next(at, None) {
            Next::Probe { node } => {
                probed.push(node);
                link.probed(node, false, at);
            }
            Next::Wait(until) => at = until,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(probed[..6], [0, 1, 2, 0, 1, 2], "each within {PROBE_EVERY:?}");
    assert!(probed.len() <= 10, "{probed:?}");
}

#[test]
fn a_template_that_fails_does_not_keep_an_idle_cluster_from_being_back() {
    let now = Instant::now();
    let mut link = Link::new(1, true, 42, now);
    link.probed(0, true, now);
    link.set_up(0, now);
    link.probed(0, false, now + SECOND);
    assert!(link.blocked_since(None).is_some());
    link.probed(0, true, now + 5 * SECOND);
    assert_eq!(link.next(now + 5 * SECOND, None), Next::Setup { node: 0 });
    link.setup_failed(0, now + 5 * SECOND);
    link.probed(0, true, now + 7 * SECOND);
    assert_eq!(link.blocked_since(None), None);
}

#[test]
fn a_probe_that_succeeds_after_one_that_failed_ends_the_wait() {
    let (mut link, mut now) = link(1);
    waits(&mut link, now, 10, false);
    now += 3700 * SECOND;
    link.failed(0, false, None, now);
    link.probed(0, false, now + 2 * SECOND);
    let back = now + 6 * SECOND;
    assert_eq!(link.next(back, Some(now)), Next::Probe { node: 0 });
    link.probed(0, true, back);
    assert!(matches!(link.next(back, Some(now)), Next::Bulk { node: 0, .. }));
}

#[test]
fn nothing_goes_before_the_time_that_the_cluster_asked_for() {
    let (mut link, now) = link(1);
    link.failed(0, false, Some(40 * SECOND), now);
    let mut at = now;
    while at < now + 40 * SECOND {
        match link.next(at, Some(now)) {
            Next::Probe { node } => link.probed(node, true, at),
            Next::Wait(until) => at = until,
            other => panic!("{other:?} after {:?}", at - now),
        }
    }
    assert!(matches!(link.next(at, Some(now)), Next::Bulk { .. }));
}

#[test]
fn a_short_wait_that_the_cluster_asks_for_holds_no_longer_than_that() {
    let (mut link, mut now) = link(1);
    for _ in 0..10 {
        link.failed(0, false, Some(SECOND), now);
        link.probed(0, false, now);
        now += 60 * SECOND;
    }
    link.failed(0, false, Some(SECOND), now);
    link.probed(0, false, now + SECOND);
    link.probed(0, true, now + 5 * SECOND);
    assert!(matches!(link.next(now + 5 * SECOND, Some(now)), Next::Bulk { .. }));
}

#[test]
fn no_document_overtakes_the_template() {
    let now = Instant::now();
    let mut link = Link::new(1, true, 42, now);
    let mut at = now;
    link.probed(0, false, at);
    for _ in 0..30 {
        match link.next(at, Some(now)) {
            Next::Setup { node } => link.setup_failed(node, at),
            Next::Probe { node } => link.probed(node, false, at),
            Next::Wait(until) => at = until,
            Next::Bulk { .. } => panic!("a document before the template"),
        }
    }
    link.probed(0, true, at);
    assert_eq!(link.next(at, Some(now)), Next::Setup { node: 0 });
    // A request for the template that meets a fault in passing is tried again, before any document.
    link.setup_failed(0, at);
    link.probed(0, true, at + SECOND);
    assert_eq!(link.next(at + SECOND, Some(now)), Next::Setup { node: 0 });
    link.set_up(0, at + SECOND);
    assert!(matches!(link.next(at + SECOND, Some(now)), Next::Bulk { .. }));
}

#[test]
fn a_node_that_took_documents_before_it_was_greeted_is_asked_who_it_is() {
    let now = Instant::now();
    let mut link = Link::new(1, false, 42, now);
    link.probed(0, false, now);
    let mut at = now;
    while !matches!(link.next(at, Some(now)), Next::Bulk { .. }) {
        at += SECOND / 10;
    }
    link.sent(at);
    link.progressed(0, 0, 1, at);
    assert_eq!(link.next(at, Some(now)), Next::Probe { node: 0 });
    link.probed(0, true, at);
    assert!(matches!(link.next(at, Some(now)), Next::Bulk { .. }));
}

#[test]
fn another_node_is_tried_at_once_and_the_first_comes_back_in_time() {
    let (mut link, now) = link(2);
    let Next::Bulk { node, .. } = link.next(now, Some(now)) else { panic!() };
    link.sent(now);
    link.failed(node, false, None, now);
    let Next::Bulk { node: other, .. } = link.next(now, Some(now)) else { panic!() };
    assert_ne!(node, other);
    assert_eq!(link.blocked_since(Some(node)), None, "the other one is not tried yet");
    link.progressed(other, 0, 1, now);
    assert!(matches!(link.next(now, Some(now)), Next::Bulk { node, .. } if node == other));
    let later = now + RETURN_EVERY;
    assert_eq!(link.next(later, None), Next::Probe { node });
    link.probed(node, true, later);
    link.progressed(other, 0, 1, later);
    assert!(matches!(link.next(later, Some(now)), Next::Bulk { node: turn, .. } if turn == node));
}

#[test]
fn a_refused_login_holds_all_for_about_half_a_minute_and_then_only_tries() {
    let (mut link, now) = link(2);
    link.refused(0, now);
    assert!(link.is_trial());
    assert!(!matches!(link.next(now + 26 * SECOND, Some(now)), Next::Bulk { .. }));
    assert!(matches!(link.next(now + 30 * SECOND, Some(now)), Next::Bulk { .. }));
    link.progressed(1, 0, 1, now + 30 * SECOND);
    assert!(!link.is_trial());
}

#[test]
fn a_request_that_hangs_is_given_more_time_the_next_time() {
    let (mut link, now) = link(1);
    let Next::Bulk { timeout: first, .. } = link.next(now, Some(now)) else { panic!() };
    link.failed(0, true, None, now);
    link.probed(0, true, now);
    // First a single document, whose time says nothing of a whole request's.
    let Next::Bulk { timeout, .. } = link.next(now, Some(now)) else { panic!() };
    assert!(link.is_trial() && timeout == TRIAL_TIMEOUT);
    link.progressed(0, 0, 1, now);
    let Next::Bulk { timeout: second, .. } = link.next(now, Some(now)) else { panic!() };
    assert_eq!(second, 2 * first);
}

#[test]
fn an_idle_cluster_is_probed_and_its_end_is_known() {
    let (mut link, now) = link(1);
    assert_eq!(link.blocked_since(None), None);
    let later = now + IDLE_PROBE_EVERY;
    assert_eq!(link.next(later, None), Next::Probe { node: 0 });
    link.probed(0, false, later);
    assert!(link.blocked_since(None).is_some_and(|since| later - since >= BLOCKED_AFTER));
    assert_eq!(link.next(later + PROBE_EVERY, None), Next::Probe { node: 0 });
    link.probed(0, true, later + PROBE_EVERY);
    assert_eq!(link.blocked_since(None), None);
}
