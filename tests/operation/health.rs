//! The truth of `/health`: each fault is brought about through the real binary, and both of its edges are timed. After
//! each the counters are compared with what was sent.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Collector, Folder, SOON, let_pass, poll};
use audiohook_collector::simulator::{Action, Call, Event, Knobs, Options, Simulator};
use audiohook_collector::writer::state::{self, State};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;

/// An edge may take this long, from the cause to `/health`.
const EDGE: Duration = Duration::from_secs(10);
/// A refused login is tried again after this long: only a try can tell that it is over.
const LOGIN_RETRY: Duration = Duration::from_secs(30);

fn simulator(change: impl FnOnce(&mut Knobs)) -> Simulator {
    let mut knobs = Knobs { requests_per_minute: None, ..Knobs::default() };
    change(&mut knobs);
    Simulator::start(Options { knobs, ..Options::default() }).unwrap()
}

fn issue(sim: &Simulator, count: u32) {
    for _ in 0..count {
        sim.issue(Event::numbered("AUDIOHOOK-0001"));
    }
}

/// Waits for a code to be there (or gone), at most this long; gives `/health` as it was then.
fn wait_edge(collector: &Collector, code: &str, raised: bool, limit: Duration) -> (u16, Value) {
    collector.wait_reason(code, raised, limit);
    let (status, body) = collector.get("/health").unwrap();
    (status, serde_json::from_str(&body).unwrap())
}

/// The reason's message and cure hold each of these; the message is one line.
fn assert_says(health: &Value, code: &str, parts: &[&str]) {
    let reason = health["reasons"].as_array().unwrap().iter().find(|reason| reason["code"] == code);
    let reason = reason.unwrap_or_else(|| panic!("no {code}: {health}"));
    let (message, cure) = (reason["message"].as_str().unwrap(), reason["cure"].as_str().unwrap());
    for part in parts {
        assert!(message.contains(part) || cure.contains(part), "{code} without {part:?}: {message} {cure}");
    }
    assert!(!message.contains('\n') && message.len() > 40, "{message}");
    assert!(reason["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{reason}");
}

fn has(health: &Value, code: &str) -> bool {
    health["reasons"].as_array().unwrap().iter().any(|reason| reason["code"] == code)
}

/// Every event is in the file, and the counts add up: at rest.
fn assert_counts(sim: &Simulator, collector: &Collector) {
    let issued = sim.issued().len();
    let metric = |name: &str| collector.metric(&format!("audiohook_collector_events_{name}")).unwrap() as u64;
    let fits = || {
        let received = metric("received_total{source=\"websocket\"}") + metric("received_total{source=\"history\"}");
        let (written, duplicate) = (metric("written_total"), metric("duplicate_total"));
        let judged = written + duplicate + metric("filtered_total") + metric("unreadable_total");
        (received == judged && written as usize == issued).then_some(())
    };
    let seen = poll(SOON * 3, fits);
    assert!(seen.is_some(), "{issued} issued\n{}\n{}", collector.get("/metrics").unwrap().1, collector.log_text());
    assert_eq!(collector.records().len(), issued);
}

/// The beginning and the end of a code are logged once each.
fn assert_told_once(collector: &Collector, code: &str) {
    let lines = collector.log_lines();
    let ends = lines.iter().filter(|line| line.contains(&format!("resolved: {code}"))).count();
    let all = lines.iter().filter(|line| line.contains(&format!("\"{code}: "))).count();
    assert_eq!((all, ends), (1, 1), "{code}\n{}", collector.log_text());
}

fn is_ready(collector: &Collector) -> bool {
    collector.get("/readyz").is_some_and(|(status, _)| status == 200)
}

#[test]
fn starting_lasts_until_it_is_subscribed() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("health-starting"));
    sim.faults().fail_next(Call::Token, Action::Slow(Duration::from_secs(2)), 1);
    let collector = Collector::start(&sim, &folder, &[]);
    let (status, health) = wait_edge(&collector, "starting", true, EDGE);
    assert_eq!((status, health["status"].as_str()), (200, Some("degraded")));
    assert_says(&health, "starting", &["subscribed", "late"]);
    assert!(!is_ready(&collector));
    wait_edge(&collector, "starting", false, EDGE);
    assert!(is_ready(&collector));
    issue(&sim, 5);
    assert_counts(&sim, &collector);
}

#[test]
fn a_socket_that_is_down_is_told_and_its_return_too() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("health-socket"));
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    issue(&sim, 3);
    sim.faults().fail(Call::Handshake, Action::status(503));
    sim.faults().cut_sockets();
    let (status, health) = wait_edge(&collector, "socket_down", true, EDGE);
    assert_eq!((status, health["status"].as_str()), (200, Some("degraded")));
    assert_says(&health, "socket_down", &["503", "history", "late"]);
    assert!(is_ready(&collector), "it lives on the history");
    issue(&sim, 3);
    sim.faults().heal_all();
    wait_edge(&collector, "socket_down", false, EDGE);
    assert_counts(&sim, &collector);
    assert_told_once(&collector, "socket_down");
    let line = collector.wait_log("the socket's handshake was refused with 503", SOON);
    assert!(line.contains("correlation id"), "{line}");
}

#[test]
fn a_channel_that_is_gone_is_told_though_its_socket_stays_open() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("health-gone"));
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    sim.faults().fail(Call::Channels, Action::status(503));
    sim.faults().evict_channels();
    let (_, health) = wait_edge(&collector, "socket_down", true, EDGE);
    assert_says(&health, "socket_down", &["503", "history", "late"]);
    issue(&sim, 3);
    sim.faults().heal_all();
    wait_edge(&collector, "socket_down", false, EDGE);
    assert_counts(&sim, &collector);
    assert_told_once(&collector, "socket_down");
}

#[test]
fn where_one_request_after_the_other_hangs_that_is_told_in_time_too() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("health-hangs"));
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    // The first read is over.
    let_pass(Duration::from_secs(1));
    // The new channel is asked for first: the history's turn comes when that has hung for its time.
    sim.faults().fail_all(&Action::Hang);
    sim.faults().heal(Call::Handshake);
    sim.faults().drop_channels();
    let (status, _) = wait_edge(&collector, "not_receiving", true, EDGE);
    assert_eq!(status, 503);
    issue(&sim, 3);
    sim.faults().heal_all();
    wait_edge(&collector, "not_receiving", false, EDGE);
    collector.wait_healthy();
    assert_counts(&sim, &collector);
}

#[test]
fn receiving_on_neither_way_is_unhealthy_whether_the_service_refuses_or_hangs() {
    for (name, action) in [("refuses", Action::status(503)), ("hangs", Action::Hang), ("resets", Action::Reset)] {
        let (sim, folder) = (simulator(|_| ()), Folder::new("health-neither"));
        // The defaults of these: between two reads of the history there is a minute.
        let usual = [("CATCH_UP_INTERVAL", "60"), ("RECONNECT_DELAY", "5"), ("MAX_RECONNECT_DELAY", "8")];
        let collector = Collector::start(&sim, &folder, &usual);
        collector.wait_healthy();
        issue(&sim, 3);
        collector.wait_lines(3, SOON);
        // The first read is over.
        let_pass(Duration::from_secs(1));
        sim.faults().fail_all(&action);
        sim.faults().cut_sockets();
        let (status, health) = wait_edge(&collector, "not_receiving", true, EDGE);
        assert_eq!((status, health["status"].as_str()), (503, Some("unhealthy")), "{name}");
        assert_says(&health, "not_receiving", &["ten days", "late"]);
        assert!(!is_ready(&collector), "{name}");
        sim.issue(Event::numbered("AUDIOHOOK-0002"));
        sim.faults().heal_all();
        // Of the next try: at most MAX_RECONNECT_DELAY, and what hangs then.
        wait_edge(&collector, "not_receiving", false, EDGE + Duration::from_secs(8));
        assert!(poll(EDGE, || is_ready(&collector).then_some(())).is_some());
        assert_counts(&sim, &collector);
        assert_told_once(&collector, "not_receiving");
        collector.wait_healthy();
    }
}

#[test]
fn a_start_that_reaches_nobody_is_unhealthy_at_once() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("health-nobody"));
    sim.faults().fail_all(&Action::Hang);
    let collector = Collector::start(&sim, &folder, &[]);
    let (status, _) = wait_edge(&collector, "not_receiving", true, EDGE);
    assert_eq!(status, 503);
    sim.faults().heal_all();
    wait_edge(&collector, "not_receiving", false, EDGE);
    collector.wait_healthy();
}

#[test]
fn refused_credentials_are_told_with_the_cure_and_gone_with_the_next_try() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("health-credentials"));
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    issue(&sim, 2);
    sim.faults().fail(Call::Token, Action::status(401));
    sim.faults().revoke_tokens();
    let (status, health) = wait_edge(&collector, "credentials_refused", true, EDGE);
    assert_eq!((status, health["status"].as_str()), (503, Some("unhealthy")));
    let parts = ["GENESYS_CLIENT_ID", "correlation id", "ten days"];
    assert_says(&health, "credentials_refused", &parts);
    issue(&sim, 2);
    sim.faults().heal_all();
    wait_edge(&collector, "credentials_refused", false, LOGIN_RETRY + EDGE);
    collector.wait_healthy();
    assert_counts(&sim, &collector);
    assert_told_once(&collector, "credentials_refused");
}

#[test]
fn a_history_that_is_forbidden_or_fails_is_told_and_its_return_too() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("health-history"));
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    let cases: [(Action, &str, &[&str]); 5] = [
        (Action::status(403), "history_forbidden", &["usage:events:view", "correlation id", "ten days"]),
        (Action::status(503), "history_failing", &["503", "correlation id", "ten days"]),
        (Action::Hang, "history_failing", &["no whole answer in time", "ten days"]),
        (Action::HalfThenHang, "history_failing", &["ten days"]),
        (Action::Nonsense, "history_failing", &["proxy", "correlation id", "ten days"]),
    ];
    for (action, code, parts) in cases {
        issue(&sim, 2);
        sim.faults().fail(Call::History, action);
        let (status, health) = wait_edge(&collector, code, true, EDGE);
        assert_eq!((status, health["status"].as_str()), (200, Some("degraded")));
        assert_says(&health, code, parts);
        assert!(is_ready(&collector));
        issue(&sim, 2);
        sim.faults().heal_all();
        wait_edge(&collector, code, false, EDGE);
        assert_counts(&sim, &collector);
    }
    assert_told_once(&collector, "history_forbidden");
}

#[test]
fn a_history_that_is_not_used_has_no_checkpoint_that_grows_old() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("health-unused"));
    let checkpoint = |collector: &Collector| {
        collector.wait_healthy();
        collector.metric("audiohook_collector_history_checkpoint_timestamp_seconds")
    };
    let mut both = Collector::start(&sim, &folder, &[]);
    assert!(checkpoint(&both).is_some_and(|at| at > 0.0));
    both.term();
    // The state remembers it, and this run does not move it.
    let socket = Collector::start(&sim, &folder, &[("GENESYS_DELIVERY", "websocket")]);
    assert_eq!(checkpoint(&socket), Some(0.0));
}

#[test]
fn a_rejected_subscription_is_told_with_what_is_missing() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("health-rejected"));
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    sim.faults().reject_topics("v2.operations.events.AUDIOHOOK-0001", "no permission", &["usage:events:edit"]);
    sim.faults().evict_channels();
    let (status, health) = wait_edge(&collector, "subscription_rejected", true, EDGE);
    assert_eq!(status, 200);
    assert_says(&health, "subscription_rejected", &["AUDIOHOOK-0001", "usage:events:edit", "late", "role"]);
    issue(&sim, 2);
    collector.wait_lines(2, SOON * 3);
    sim.faults().permit_topics();
    wait_edge(&collector, "subscription_rejected", false, EDGE);
    issue(&sim, 2);
    assert_counts(&sim, &collector);
    collector.wait_healthy();
    assert_told_once(&collector, "subscription_rejected");
    // All of them: it lives on the history.
    sim.faults().reject_topics("v2.operations.events.", "no permission", &[]);
    sim.faults().evict_channels();
    let (status, health) = wait_edge(&collector, "subscription_rejected", true, EDGE);
    assert_says(&health, "subscription_rejected", &["rejected all ", "through the history"]);
    assert!(status == 200 && is_ready(&collector));
    issue(&sim, 2);
    assert_counts(&sim, &collector);
}

/// The reason's sentence.
fn message(collector: &Collector, code: &str) -> String {
    let health = collector.health().unwrap();
    let reason = health["reasons"].as_array().unwrap().iter().find(|reason| reason["code"] == code);
    reason.unwrap_or_else(|| panic!("no {code}: {health}"))["message"].as_str().unwrap().to_owned()
}

#[test]
fn where_neither_way_is_allowed_that_is_said_of_each_and_the_events_are_late() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("health-both"));
    sim.faults().reject_topics("v2.operations.events.", "not for you", &["usage:events:view"]);
    sim.faults().fail(Call::History, Action::status(403));
    let collector = Collector::start(&sim, &folder, &[]);
    let (_, health) = wait_edge(&collector, "not_receiving", true, EDGE);
    assert_says(
        &health,
        "not_receiving",
        &["rejected every topic", "not for you", "forbidden", "late", "ten days", "usage:events:view"],
    );
    assert_eq!(health["reasons"].as_array().unwrap().len(), 1, "all else is in it: {health}");
    sim.issue_by(Event::numbered("AUDIOHOOK-0001"), audiohook_collector::simulator::Route::Both);
    sim.faults().permit_topics();
    sim.faults().heal_all();
    wait_edge(&collector, "not_receiving", false, EDGE);
    assert_eq!(collector.wait_lines(1, SOON * 3).len(), 1, "it was late, not lost");
    collector.wait_healthy();
}

#[test]
fn one_cause_is_one_reason_with_its_own_cure() {
    let cases: [(Call, Action, &str, &str); 3] = [
        // Of the built-in list some definitions do not exist here: that their topics are rejected is no news.
        (Call::Definitions, Action::status(503), "definitions_unconfirmed", "status page"),
        (Call::Channels, Action::Reset, "socket_down", "proxy"),
        (
            Call::Token,
            Action::Nonsense,
            "not_receiving",
            "Check for a proxy in the way (HTTPS_PROXY), and that GENESYS_ENV",
        ),
    ];
    for (call, action, code, cure) in cases {
        let (sim, folder) = (simulator(|_| ()), Folder::new("health-one-cause"));
        sim.faults().fail(call, action);
        let collector = Collector::start(&sim, &folder, &[]);
        let (_, health) = wait_edge(&collector, code, true, EDGE);
        let settled = || collector.reasons().filter(|codes| codes.iter().all(|one| one == code));
        assert!(poll(EDGE, settled).is_some(), "{:?}", collector.reasons());
        assert_says(&health, code, &[cure]);
        // And stays alone.
        let_pass(Duration::from_secs(2));
        assert_eq!(collector.reasons().unwrap(), [code]);
    }
}

#[test]
fn a_transport_that_is_no_socket_is_named_where_the_history_is_forbidden() {
    let (sim, folder) =
        (simulator(|knobs| knobs.transports = vec!["EventBridge".to_owned()]), Folder::new("health-bridge"));
    sim.faults().fail(Call::History, Action::status(403));
    let collector = Collector::start(&sim, &folder, &[]);
    let (_, health) = wait_edge(&collector, "not_receiving", true, EDGE);
    assert_says(&health, "not_receiving", &["EventBridge", "forbidden", "late", "usage:events:view"]);
    assert!(!has(&health, "history_forbidden"), "it is in the message: {health}");
}

#[test]
fn a_socket_that_no_transport_allows_is_not_taken_for_well_before_an_event_came_on_it() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("health-unproven"));
    // What the list of topics says, and not what the service does.
    let listed = r#"{"entities":[{"id":"v2.operations.events.{id}","transports":["EventBridge"]}]}"#;
    sim.faults().fail(Call::AvailableTopics, Action::Body(listed.to_owned()));
    let collector = Collector::start(&sim, &folder, &[("GENESYS_DELIVERY", "websocket")]);
    let (status, health) = wait_edge(&collector, "not_receiving", true, EDGE);
    assert_eq!(status, 503);
    assert_says(&health, "not_receiving", &["EventBridge", "lost", "GENESYS_DELIVERY to auto"]);
    assert!(!is_ready(&collector));
    sim.issue(Event::numbered("AUDIOHOOK-0001"));
    wait_edge(&collector, "not_receiving", false, EDGE);
    collector.wait_healthy();
    assert!(is_ready(&collector));
}

#[test]
fn topics_that_match_nothing_are_told_with_the_setting() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("health-topics"));
    let topics = folder.write("none.json", r#"{"topics":["v2.operations.events.NOSUCH-*"]}"#);
    let topics = topics.to_str().unwrap();
    for delivery in ["auto", "websocket", "history"] {
        let changed = [("TOPICS_FILE", topics), ("GENESYS_DELIVERY", delivery)];
        let mut collector = Collector::start(&sim, &folder, &changed);
        let (status, health) = wait_edge(&collector, "not_receiving", true, EDGE);
        assert_eq!(status, 503);
        assert_says(&health, "not_receiving", &["TOPICS_FILE", "none.json", "AUDIOHOOK-*"]);
        assert_eq!(sim.view(|view| view.channels_made()), 0, "there is nothing to make a channel for");
        collector.term();
    }
}

#[test]
fn each_reason_tells_its_own_cause_and_what_it_means_in_this_delivery() {
    // The history alone: nothing is said of a socket.
    let (sim, folder) = (simulator(|_| ()), Folder::new("health-alone"));
    sim.faults().fail(Call::History, Action::status(403));
    let mut collector = Collector::start(&sim, &folder, &[("GENESYS_DELIVERY", "history")]);
    let (_, health) = wait_edge(&collector, "history_forbidden", true, EDGE);
    assert_says(&health, "history_forbidden", &["all events are late", "ten days"]);
    assert!(!message(&collector, "history_forbidden").contains("socket"));
    if has(&health, "starting") {
        assert_says(&health, "starting", &["not read yet", "ten days"]);
    }
    collector.term();

    // The socket alone: what it misses is lost.
    sim.faults().heal_all();
    sim.faults().fail(Call::Handshake, Action::status(503));
    sim.faults().reject_topics("v2.operations.events.AUDIOHOOK-0002", "no such topic", &[]);
    let mut collector = Collector::start(&sim, &folder, &[("GENESYS_DELIVERY", "websocket")]);
    let (_, health) = wait_edge(&collector, "socket_down", true, EDGE);
    assert!(!has(&health, "starting"), "it is a consequence: {health}");
    assert_says(&health, "socket_down", &["lost", "GENESYS_DELIVERY=websocket"]);
    assert_says(&health, "subscription_rejected", &["lost", "no such topic", "TOPICS_FILE"]);
    assert!(!message(&collector, "subscription_rejected").contains("role"), "no permission is missing");
    collector.term();

    // The history's failure is not the socket's cause.
    sim.faults().fail(Call::History, Action::status(500));
    let collector = Collector::start(&sim, &folder, &[]);
    let (_, health) = wait_edge(&collector, "not_receiving", true, EDGE);
    assert_says(
        &health,
        "not_receiving",
        &["handshake was refused with 503", "cannot read the history: 500", "ten days"],
    );
    let codes = collector.reasons().unwrap();
    assert!(
        !codes.iter().any(|code| code == "socket_down" || code == "history_failing"),
        "they are its parts: {codes:?}"
    );
}

#[test]
fn frames_that_are_no_events_are_told_and_kept() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("health-unreadable"));
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    issue(&sim, 2);
    sim.faults().send_text("{\"topicName\":");
    let (status, health) = wait_edge(&collector, "unreadable_frames", true, EDGE);
    assert_eq!((status, health["status"].as_str()), (200, Some("degraded")));
    assert_says(&health, "unreadable_frames", &["1 frame", "kept in", ".unreadable", "history"]);
    assert_eq!(collector.metric("audiohook_collector_events_unreadable_total"), Some(1.0));
    assert_counts(&sim, &collector);
    // It cannot be written any more: then nothing is promised of it.
    let aside = folder.join("events.jsonl.unreadable");
    std::fs::remove_file(&aside).unwrap();
    std::fs::create_dir(&aside).unwrap();
    sim.faults().send_text("{\"topicName\":");
    let said = poll(EDGE, || Some(message(&collector, "unreadable_frames")).filter(|said| said.contains("2 frames")));
    assert!(
        said.as_ref().is_some_and(|said| said.contains("cannot be written") && !said.contains("kept in")),
        "{said:?}"
    );
}

#[test]
fn of_frames_that_are_no_events_none_is_promised_to_be_kept_where_values_are_hidden() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("health-hidden"));
    let collector = Collector::start(&sim, &folder, &[("REDACT_FIELDS", "phoneNumber")]);
    collector.wait_healthy();
    sim.faults().send_text("{\"topicName\":");
    let (_, health) = wait_edge(&collector, "unreadable_frames", true, EDGE);
    assert_says(&health, "unreadable_frames", &["1 frame", "only the reason", "REDACT_FIELDS"]);
}

#[test]
fn a_disk_that_refuses_is_unhealthy_until_it_takes_again() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("health-disk"));
    let collector = Collector::start(&sim, &folder, &[("MAX_FILE_SIZE", "1GB")]);
    collector.wait_healthy();
    issue(&sim, 2);
    collector.wait_lines(2, SOON);
    let len = std::fs::metadata(collector.output_file()).unwrap().len();
    limit_files(&collector, Some(len + 100));
    issue(&sim, 20);
    let (status, health) = wait_edge(&collector, "disk_write_failed", true, EDGE);
    assert_eq!((status, health["status"].as_str()), (503, Some("unhealthy")));
    assert_says(&health, "disk_write_failed", &["events.jsonl", "ten days", "disk"]);
    // The retries are no flood.
    let_pass(Duration::from_secs(3));
    limit_files(&collector, None);
    wait_edge(&collector, "disk_write_failed", false, EDGE);
    assert_counts(&sim, &collector);
    assert_told_once(&collector, "disk_write_failed");

    // The folder vanishes, with nothing to write.
    let aside = folder.path().with_extension("aside");
    std::fs::rename(folder.path(), &aside).unwrap();
    let (status, health) = wait_edge(&collector, "disk_write_failed", true, EDGE);
    assert_eq!(status, 503);
    assert_says(&health, "disk_write_failed", &["folder", "ten days"]);
    std::fs::rename(&aside, folder.path()).unwrap();
    wait_edge(&collector, "disk_write_failed", false, EDGE);
    issue(&sim, 2);
    collector.wait_healthy();
    assert_counts(&sim, &collector);
}

fn limit_files(collector: &Collector, bytes: Option<u64>) {
    let pid = Pid::from_raw(collector.pid() as i32);
    prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

#[test]
fn a_disk_that_hangs_is_told_as_stalled() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("health-stalled"));
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    issue(&sim, 2);
    collector.wait_lines(2, SOON);
    // A sync that does not come back hangs as a dead network disk does.
    let Some(mut hanging) = hang_syncs(&collector) else {
        println!("skipped: strace, and the right to trace a process, are needed to hold its syncs up");
        return;
    };
    issue(&sim, 2);
    let begun = Instant::now();
    let (status, health) = wait_edge(&collector, "stalled", true, EDGE);
    assert!(begun.elapsed() <= EDGE + Duration::from_secs(1));
    assert_eq!((status, health["status"].as_str()), (503, Some("unhealthy")));
    assert_says(&health, "stalled", &["writer", "ten days", "disk"]);
    assert_eq!(collector.get("/livez").unwrap().0, 503);
    issue(&sim, 2);
    // Without its tracer, the process goes on.
    hanging.kill().unwrap();
    hanging.wait().unwrap();
    wait_edge(&collector, "stalled", false, EDGE);
    assert_eq!(collector.get("/livez").unwrap().0, 200);
    assert_counts(&sim, &collector);
    collector.wait_log("resolved: stalled", SOON);
    assert_told_once(&collector, "stalled");
}

/// Holds up each sync of the collector's until what this returns is killed; none where that cannot be done here.
fn hang_syncs(collector: &Collector) -> Option<Child> {
    let pid = collector.pid().to_string();
    let inject = ["-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=120000000"];
    let mut strace = Command::new("strace");
    strace.args(["-f", "-o", "/dev/null", "-p", &pid]).args(inject).stderr(Stdio::null());
    let mut child = strace.spawn().ok()?;
    let is_traced = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?;
        (tracer.trim() != "0").then_some(())
    };
    if poll(SOON / 4, is_traced).is_some() {
        return Some(child);
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

#[test]
fn a_hole_of_more_than_ten_days_is_told_with_both_ends() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("health-incomplete"));
    let twelve_days_ago = sim.now() - 12 * 86_400_000;
    let state = State { checkpoint_ms: Some(twelve_days_ago), ..State::default() };
    state::write(&folder.join("events.jsonl.state"), &state).unwrap();
    let collector = Collector::start(&sim, &folder, &[]);
    let (status, health) = wait_edge(&collector, "incomplete", true, EDGE);
    assert_eq!(status, 200);
    let from = audiohook_collector::clock::format_millis(twelve_days_ago);
    assert_says(&health, "incomplete", &[&from[..16], "ten days", "missing"]);
    issue(&sim, 2);
    assert_counts(&sim, &collector);
}

#[test]
fn a_gap_that_opens_while_the_history_fails_is_reported_once_it_is_read_again() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("health-opens"));
    // A shorter gap than a minute is not reported.
    let begin = sim.now() - 10 * 86_400_000 - 45_000;
    let state = State { checkpoint_ms: Some(begin), origin_ms: Some(begin - 1), ..State::default() };
    state::write(&folder.join("events.jsonl.state"), &state).unwrap();
    sim.faults().fail(Call::History, Action::status(503));
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_reason("history_failing", true, EDGE);
    let_pass(Duration::from_secs(20));
    sim.faults().heal_all();
    let (_, health) = wait_edge(&collector, "incomplete", true, 6 * EDGE);
    assert_says(&health, "incomplete", &["ten days", "missing"]);
    issue(&sim, 2);
    assert_counts(&sim, &collector);
}

#[test]
fn a_fault_that_comes_and_goes_does_not_flood_the_log() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("health-flapping"));
    let quick = [("CATCH_UP_INTERVAL", "0.05"), ("RECONNECT_DELAY", "0.05"), ("CATCH_UP_RATE", "100000")];
    let collector = Collector::start(&sim, &folder, &quick);
    collector.wait_healthy();
    for failed in 1..=30 {
        sim.faults().fail_next(Call::History, Action::status(503), 1);
        // It may come and go between two looks at /health; the service has seen it come.
        let came = |count| count == failed;
        let seen = sim.wait_until(EDGE, |view| came(view.all_requests().filter(|seen| seen.status == 503).count()));
        assert!(seen, "{}", collector.log_text());
        collector.wait_reason("history_failing", false, EDGE);
    }
    let lines = collector.log_lines();
    let told = lines.iter().filter(|line| line.contains("\"history_failing: ")).count();
    assert!((2..=12).contains(&told), "{told} lines");
    issue(&sim, 2);
    assert_counts(&sim, &collector);
}
