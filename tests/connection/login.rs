//! Logging in, and the end: tokens, refusals, limits, signals, through the real binary.

use std::time::{Duration, Instant};

use crate::support::{Collector, Folder, SOON, assert_same_set, let_pass};
use audiohook_collector::simulator::{Action, Call, Event, Knobs, Options, Route, Simulator};
use rustix::process::Signal;

const LONG: Duration = Duration::from_secs(30);
/// A stop takes at most this long, whatever hangs.
const STOP: Duration = Duration::from_secs(5);

fn simulator(change: impl FnOnce(&mut Knobs)) -> Simulator {
    let mut knobs = Knobs { requests_per_minute: None, ..Knobs::default() };
    change(&mut knobs);
    Simulator::start(Options { knobs, ..Options::default() }).unwrap()
}

#[test]
fn a_token_is_renewed_before_its_end_and_the_socket_stays() {
    let sim = simulator(|knobs| knobs.token_life = Duration::from_secs(60));
    let folder = Folder::new("renewal");
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    assert!(sim.wait_until(Duration::from_secs(60), |view| view.tokens_granted() >= 2), "{}", collector.log_text());
    sim.issue(Event::numbered("AUDIOHOOK-0001"));
    collector.wait_lines(1, LONG);
    let refused = sim.view(|view| view.all_requests().filter(|seen| seen.status == 401).count());
    assert_eq!((refused, sim.view(|view| view.sockets_opened())), (0, 1), "{}", collector.log_text());
}

#[test]
fn a_dead_token_is_replaced_once_and_the_call_repeated() {
    let sim = simulator(|_| {});
    let folder = Folder::new("dead-token");
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    sim.faults().revoke_tokens();
    let event = sim.issue_by(Event::numbered("AUDIOHOOK-0001"), Route::HistoryOnly);
    collector.wait_lines(1, LONG);
    assert_same_set(&[event], &collector.records());
    let (granted, refused) =
        sim.view(|view| (view.tokens_granted(), view.all_requests().filter(|seen| seen.status == 401).count()));
    assert_eq!((granted, refused), (2, 1), "{}", collector.log_text());
    assert_eq!(sim.view(|view| view.sockets_opened()), 1);
}

#[test]
fn refused_credentials_are_told_plainly_and_not_tried_again_for_thirty_seconds() {
    let sim = simulator(|_| {});
    let folder = Folder::new("refused");
    let secret = "not-the-right-secret-3f9c";
    let mut collector = Collector::start(&sim, &folder, &[("GENESYS_CLIENT_SECRET", secret)]);
    collector.wait_reason("credentials_refused", true, SOON);
    collector.wait_status("unhealthy", SOON);
    let health = collector.health().unwrap().to_string();
    assert!(health.contains("GENESYS_CLIENT"), "the cure is named: {health}");
    let_pass(Duration::from_secs(20));
    assert_eq!(sim.view(|view| view.count(Call::Token)), 1);
    assert!(sim.wait_until(Duration::from_secs(300), |view| view.count(Call::Token) == 2));
    let times: Vec<Instant> = sim.view(|view| view.requests(Call::Token).iter().map(|seen| seen.at).collect());
    assert!(times[1].duration_since(times[0]) >= Duration::from_secs(30));
    assert_eq!(collector.term().code(), Some(0));
    assert!(!collector.log_lines().iter().any(|line| line.contains(secret)), "a secret is in no log");
}

#[test]
fn retry_after_is_kept_to() {
    let sim = simulator(|_| {});
    let folder = Folder::new("retry-after");
    let wait = Duration::from_secs(3);
    sim.faults().fail_next(Call::Token, Action::Status { status: 429, retry_after_s: Some(wait.as_secs()) }, 1);
    sim.faults().fail_next(Call::Channels, Action::Status { status: 429, retry_after_s: Some(wait.as_secs()) }, 1);
    let collector = Collector::start(&sim, &folder, &[]);
    assert!(sim.wait_until(LONG, |view| view.sockets_opened() == 1), "{}", collector.log_text());
    for call in [Call::Token, Call::Channels] {
        let times: Vec<Instant> = sim.view(|view| view.requests(call).iter().map(|seen| seen.at).collect());
        assert!(times.len() >= 2, "{call:?}");
        assert!(times[1].duration_since(times[0]) >= wait, "{call:?}: {:?}", times[1].duration_since(times[0]));
    }
}

#[test]
fn a_stop_comes_in_time_whatever_hangs() {
    for call in [Call::Token, Call::Definitions, Call::History, Call::Channels, Call::Handshake] {
        let sim = simulator(|_| {});
        let folder = Folder::new("stop");
        sim.faults().fail(call, Action::Hang);
        let mut collector = Collector::start(&sim, &folder, &[]);
        assert!(sim.wait_until(LONG, |view| view.count(call) > 0), "{call:?}\n{}", collector.log_text());
        let start = Instant::now();
        assert_eq!(collector.term().code(), Some(0), "{call:?}");
        assert!(start.elapsed() < STOP, "{call:?}: {:?}", start.elapsed());
    }
}

#[test]
fn at_a_stop_everything_received_is_in_the_file() {
    let sim = simulator(|_| {});
    let folder = Folder::new("burst");
    let mut collector = Collector::start(&sim, &folder, &[("CATCH_UP_INTERVAL", "60"), ("LOG_LEVEL", "info")]);
    collector.wait_healthy();
    let times: Vec<i64> = (0..20_000).map(|n| sim.now() + n / 20).collect();
    sim.issue_many(Event::numbered("AUDIOHOOK-0002"), &times, Route::Both);
    collector.wait_lines(1, SOON);
    let start = Instant::now();
    assert_eq!(collector.term().code(), Some(0));
    assert!(start.elapsed() < STOP, "{:?}", start.elapsed());
    // What it had not received yet comes from the history at the next start: each once all the same.
    let collector = Collector::start(&sim, &folder, &[("CATCH_UP_RATE", "100000")]);
    assert_same_set(&sim.issued(), &collector.wait_lines(20_000, LONG));
}

#[test]
fn signals_that_come_at_once_are_one_stop() {
    let sim = simulator(|_| {});
    let folder = Folder::new("second-signal");
    let mut collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    // Stopped by the kernel, it gets both at once when it goes on.
    collector.signal(Signal::STOP);
    collector.signal(Signal::TERM);
    collector.signal(Signal::INT);
    let start = Instant::now();
    collector.signal(Signal::CONT);
    assert_eq!(collector.wait_exit(STOP).code(), Some(0), "{}", collector.log_text());
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}
