//! Logins, topics and channels through the real binary: when it asks, how often, and what it says.

use std::time::{Duration, Instant};

use crate::support::{Collector, Folder, SOON, assert_same_set, let_pass, poll};
use audiohook_collector::simulator::{Action, Call, Definition, Event, Knobs, Options, Simulator, View};
use audiohook_collector::thread;

fn simulator(change: impl FnOnce(&mut Knobs)) -> Simulator {
    let mut knobs = Knobs { requests_per_minute: None, ..Knobs::default() };
    change(&mut knobs);
    Simulator::start(Options { knobs, ..Options::default() }).unwrap()
}

/// Runs each case at the same time as the others: they wait more than they work.
fn all_at_once<T: Send + 'static>(cases: impl IntoIterator<Item = T>, run: fn(T)) {
    let threads: Vec<_> = cases.into_iter().map(|case| thread::spawn("case", move || run(case)).unwrap()).collect();
    for thread in threads {
        assert!(thread.join().is_ok(), "a case failed");
    }
}

/// The times between the requests of a call.
fn waits(sim: &Simulator, call: Call) -> Vec<Duration> {
    let times: Vec<Instant> = sim.view(|view| view.requests(call)).iter().map(|seen| seen.at).collect();
    times.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[test]
fn a_token_is_renewed_by_its_own_life_without_touching_the_socket() {
    let (sim, folder) = (simulator(|k| k.token_life = Duration::from_secs(2)), Folder::new("lives"));
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    assert!(sim.wait_until(SOON, |view| view.tokens_granted() >= 4), "{}", collector.log_text());
    assert_eq!(sim.view(|view| (view.sockets_opened(), view.channels_made())), (1, 1));
    let refused = sim.view(|view| view.all_requests().filter(|seen| seen.status == 401).count());
    assert_eq!(refused, 0, "no call is made with a token that is over");
    assert!(waits(&sim, Call::Token).iter().all(|wait| *wait > Duration::from_secs(1)));
    collector.wait_healthy();
}

fn refused_calls(view: &View<'_>) -> usize {
    view.all_requests().filter(|seen| seen.status == 401).count()
}

#[test]
fn on_401_it_logs_in_once_and_asks_once_again() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("expired"));
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    for trouble in [|sim: &Simulator| sim.faults().expire_tokens(), |sim: &Simulator| sim.faults().revoke_tokens()] {
        let granted = sim.view(|view| view.tokens_granted());
        let refused = sim.view(refused_calls);
        let reads = sim.view(|view| view.count(Call::History));
        trouble(&sim);
        assert!(sim.wait_until(SOON, |view| view.count(Call::History) > reads + 3));
        assert_eq!(sim.view(|view| view.tokens_granted()), granted + 1);
        assert_eq!(sim.view(refused_calls), refused + 1, "the call that met it was made again");
    }
    assert_eq!(sim.view(|view| view.sockets_opened()), 1);
    // A service that says 401 to every token is not asked in a tight loop.
    let before = sim.view(|view| view.count(Call::Token));
    sim.faults().fail(Call::History, Action::status(401));
    let_pass(Duration::from_secs(3));
    let logins = sim.view(|view| view.count(Call::Token)) - before;
    assert!((1..=12).contains(&logins), "{logins} logins in three seconds");
    sim.faults().heal_all();
    sim.issue(Event::numbered("AUDIOHOOK-0001"));
    collector.wait_lines(1, SOON);
    collector.wait_healthy();
}

#[test]
fn refused_credentials_are_told_with_the_cure_and_not_tried_again_soon() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("refused"));
    let wrong = "SECRETwrong-one-0123456789";
    let collector = Collector::start(&sim, &folder, &[("GENESYS_CLIENT_SECRET", wrong)]);
    collector.wait_reason("credentials_refused", true, SOON);
    let (status, health) = collector.get("/health").unwrap();
    assert_eq!(status, 503);
    assert!(health.contains("GENESYS_CLIENT_SECRET") && health.contains("GENESYS_ENV"), "{health}");
    let_pass(Duration::from_secs(8));
    assert_eq!(sim.view(|view| view.all_requests().count()), 1, "one login, and nothing else, in eight seconds");
    let said = collector.log_lines();
    let lines: Vec<&String> = said.iter().filter(|line| line.contains("credentials_refused: ")).collect();
    assert_eq!(lines.len(), 1, "one plain sentence: {lines:?}");
    assert!(!said.join("").contains(wrong) && !health.contains(wrong));
}

#[test]
fn retry_after_is_kept_to_whatever_call_is_throttled() {
    all_at_once([Call::Token, Call::Definitions, Call::Channels, Call::Subscriptions], |call| {
        let (sim, folder) = (simulator(|_| ()), Folder::new("throttled"));
        sim.faults().fail_next(call, Action::Status { status: 429, retry_after_s: Some(2) }, 1);
        let collector = Collector::start(&sim, &folder, &[]);
        assert!(sim.wait_until(SOON, |view| view.count(call) >= 2), "{call:?}");
        let wait = waits(&sim, call)[0];
        assert!(wait >= Duration::from_millis(1_990) && wait < Duration::from_secs(5), "{call:?}: {wait:?}");
        let first = sim.view(|view| view.requests(call))[0].at;
        let meanwhile = sim.view(|view| {
            view.all_requests().filter(|s| s.at > first && s.at < first + Duration::from_millis(1_990)).count()
        });
        assert_eq!(meanwhile, 0, "{call:?}: the limit is the client's, whatever it asks");
        collector.wait_healthy();
    });
}

#[test]
fn everything_else_is_tried_again_with_backoff_and_jitter() {
    let failures = [Action::status(503), Action::status(500), Action::Reset, Action::Half, Action::Nonsense];
    all_at_once(failures, |failure| {
        let (sim, folder) = (simulator(|_| ()), Folder::new("backoff"));
        sim.faults().fail(Call::Token, failure.clone());
        let changed = [("RECONNECT_DELAY", "0.2"), ("MAX_RECONNECT_DELAY", "0.8")];
        let collector = Collector::start(&sim, &folder, &changed);
        assert!(sim.wait_until(SOON, |view| view.count(Call::Token) >= 6), "{failure:?} {}", collector.log_text());
        let waits = waits(&sim, Call::Token);
        for wait in &waits[..5] {
            assert!((Duration::from_millis(90)..Duration::from_millis(1_700)).contains(wait), "{failure:?}: {waits:?}");
        }
        assert!(waits[3..5].iter().max() > waits[..1].iter().max(), "it grows: {waits:?}");
        sim.faults().heal_all();
        collector.wait_healthy();
    });
}

#[test]
fn a_call_that_hangs_ends_within_its_limits() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("limits"));
    sim.faults().fail_next(Call::Token, Action::Hang, 1);
    sim.faults().fail_next(Call::Definitions, Action::HalfThenHang, 1);
    let since = Instant::now();
    let collector = Collector::start(&sim, &folder, &[]);
    assert!(sim.wait_until(SOON * 4, |view| view.sockets_open() == 1), "{}", collector.log_text());
    assert!(since.elapsed() < Duration::from_secs(35), "{:?}", since.elapsed());
    collector.wait_healthy();
}

#[test]
fn topics_that_are_rejected_are_told_with_reason_and_permission() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("rejected"));
    sim.faults().reject_topics(
        "v2.operations.events.AUDIOHOOK-0002",
        "not licensed for it",
        &["usage:events:view", "x:y:z"],
    );
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_reason("subscription_rejected", true, SOON);
    let said = collector.wait_log("rejected topics", SOON);
    assert!(said.contains("AUDIOHOOK-0002") && said.contains("not licensed") && said.contains("x:y:z"), "{said}");
    assert!(sim.wait_until(SOON, |view| view.sockets_open() == 1), "the others are collected");
    assert_eq!(collector.get("/health").unwrap().0, 200);
    // All of them.
    sim.faults().permit_topics();
    sim.faults().reject_topics("v2.operations", "the topic is not for this client", &["usage:events:view"]);
    let told =
        poll(SOON, || Some(collector.health()?["reasons"].to_string()).filter(|told| told.contains("rejected all ")));
    assert!(told.is_some(), "{:?}", collector.health());
    let health = collector.health().unwrap();
    let told = health["reasons"].to_string();
    assert!(told.contains("not for this client") && told.contains("usage:events:view"), "{told}");
    sim.faults().permit_topics();
    collector.wait_reason("subscription_rejected", false, SOON);
    collector.wait_healthy();
}

#[test]
fn the_definitions_make_the_topics_and_a_built_in_list_stands_in_for_them() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("definitions"));
    sim.define(Definition::new("AUDIOHOOK-0815", "A new one", ""));
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    let subscribed = sim.view(|view| view.subscribed());
    assert!(subscribed.contains(&"v2.operations.events.AUDIOHOOK-0815".to_owned()), "{subscribed:?}");
    assert!(subscribed.iter().all(|topic| topic.starts_with("v2.operations.events.AUDIOHOOK-")), "{subscribed:?}");
    collector.wait_log("WebSocket delivery is allowed (transports: All)", SOON);
    drop(collector);
    let (sim, folder) = (simulator(|_| ()), Folder::new("built-in"));
    sim.faults().fail(Call::Definitions, Action::status(403));
    let collector = Collector::start(&sim, &folder, &[]);
    assert!(sim.wait_until(SOON, |view| view.sockets_open() == 1), "{}", collector.log_text());
    let ids: Vec<String> = ["0001", "0002", "0003"].map(|n| format!("v2.operations.events.AUDIOHOOK-{n}")).to_vec();
    let subscribed = sim.view(|view| view.subscribed());
    assert!(ids.iter().all(|id| subscribed.contains(id)), "{subscribed:?}");
    sim.issue(Event::numbered("AUDIOHOOK-0003"));
    collector.wait_lines(1, SOON);
    // A user's own topics: those alone, on both ways.
    let (sim, folder) = (simulator(|_| ()), Folder::new("own"));
    folder.write(
        "mine.json",
        "{\"topics\":[\"v2.operations.events.AUDIOHOOK-0002\",\"v2.operations.events.AUDIOHOOK-0003\"]}",
    );
    let collector = Collector::start(&sim, &folder, &[("TOPICS_FILE", "mine.json")]);
    collector.wait_healthy();
    assert_eq!(sim.view(|view| view.subscribed()), ids[1..]);
    for definition in ["AUDIOHOOK-0001", "AUDIOHOOK-0002", "AUDIOHOOK-0003"] {
        sim.issue(Event::numbered(definition));
    }
    collector.wait_lines(2, SOON);
    let reads = sim.view(|view| view.count(Call::History));
    assert!(sim.wait_until(SOON, |view| view.count(Call::History) > reads + 2));
    let found: Vec<String> =
        collector.records().iter().filter_map(|record| record.text("event_id").map(str::to_owned)).collect();
    assert_eq!(found, ["AUDIOHOOK-0002", "AUDIOHOOK-0003"]);
}

#[test]
fn the_channel_is_tried_again_after_a_restart_and_replaced_only_where_it_is_refused() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("again"));
    let mut collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    assert!(collector.term().success());
    // Reached with trouble: the channel is not to blame.
    sim.faults().fail_next(Call::Channel, Action::status(503), 2);
    sim.faults().fail_next(Call::Subscriptions, Action::status(500), 1);
    sim.faults().fail_next(Call::Handshake, Action::status(503), 2);
    let mut collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    assert_eq!(sim.view(|view| view.channels_made()), 1);
    assert!(collector.term().success());
    sim.faults().drop_channels();
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    assert_eq!(sim.view(|view| view.channels_made()), 2, "it was gone");
    sim.issue(Event::numbered("AUDIOHOOK-0001"));
    collector.wait_lines(1, SOON);
    assert_same_set(&sim.issued(), &collector.records());
}

#[test]
fn a_channel_that_belongs_to_the_token_before_is_replaced_and_nothing_is_missed() {
    let belongs = |k: &mut Knobs| k.channels_belong_to_token = true;
    let (sim, folder) = (simulator(belongs), Folder::new("belongs"));
    // A topic that is rejected is asked for again soon, and with it the whole subscription.
    sim.faults().reject_topics("v2.operations.events.AUDIOHOOK-0002", "no", &[]);
    let collector = Collector::start(&sim, &folder, &[("GENESYS_DELIVERY", "websocket")]);
    collector.wait_reason("subscription_rejected", true, SOON);
    assert!(sim.wait_until(SOON, |view| view.sockets_open() == 1));
    sim.issue(Event::numbered("AUDIOHOOK-0001"));
    collector.wait_lines(1, SOON);
    sim.faults().revoke_tokens();
    let mut issued = 1;
    let replaced = poll(SOON * 2, || {
        issued += 1;
        sim.issue(Event::numbered("AUDIOHOOK-0001"));
        sim.view(|view| view.sockets_opened() == 2 && view.sockets_open() == 1).then_some(())
    });
    assert!(replaced.is_some(), "{}", collector.log_text());
    collector.wait_lines(issued, SOON);
    assert_same_set(&sim.issued(), &collector.records());
    let asked = sim.view(|view| view.count(Call::Subscriptions));
    assert!(sim.wait_until(SOON * 2, |view| view.count(Call::Subscriptions) > asked + 1));
    assert_eq!(sim.view(|view| view.channels_made()), 2, "the new token's own is kept");
}

#[test]
fn a_service_that_refuses_every_socket_is_not_given_channel_after_channel() {
    all_at_once([404, 401], |status| {
        let (sim, folder) = (simulator(|_| ()), Folder::new("sockets"));
        sim.faults().fail(Call::Handshake, Action::status(status));
        let collector = Collector::start(&sim, &folder, &[("RECONNECT_DELAY", "1"), ("MAX_RECONNECT_DELAY", "30")]);
        let_pass(Duration::from_secs(6));
        let made = sim.view(|view| view.channels_made());
        assert!((1..=5).contains(&made), "{made} channels in six seconds");
        sim.faults().heal_all();
        sim.issue(Event::numbered("AUDIOHOOK-0001"));
        assert!(poll(SOON * 3, || (collector.records().len() == 1).then_some(())).is_some(), "the history brings it");
    });
}
