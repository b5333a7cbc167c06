//! Sockets, channels and the history, each of which may fail while the other works.

use std::time::Duration;

use audiohook_collector::simulator::{Action, Call, Simulator};

use crate::support::{Collector, Folder, assert_same_set, let_pass, poll};
use crate::{LONG, assert_all_stand_once, event, issue, simulator, wait_for_all};

#[test]
fn a_cut_of_thirty_seconds_loses_nothing() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("cut"));
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    issue(&sim, 50);
    sim.faults().fail(Call::Handshake, Action::status(503));
    sim.faults().cut_sockets();
    for n in 0..30 {
        sim.issue(event(n));
        let_pass(Duration::from_secs(1));
    }
    sim.faults().heal_all();
    collector.wait_healthy();
    issue(&sim, 50);
    assert_all_stand_once(&sim, &collector);
}

#[test]
fn a_cloned_machine_does_not_fight_over_the_channel() {
    let sim = simulator(|_| ());
    let (first_folder, second_folder) = (Folder::new("original"), Folder::new("clone"));
    let first = Collector::start(&sim, &first_folder, &[]);
    first.wait_healthy();
    let state = std::fs::read(first_folder.join("events.jsonl.state")).unwrap();
    second_folder.write("events.jsonl.state", state);
    let second = Collector::start(&sim, &second_folder, &[]);
    assert!(sim.wait_until(LONG, |view| view.sockets_open() == 2), "each has a socket of its own in the end");
    let opened = sim.view(|view| view.sockets_opened());
    assert!(opened <= 10, "{opened} sockets were opened until then");
    issue(&sim, 20);
    for collector in [&first, &second] {
        wait_for_all(&sim, collector);
        assert_same_set(&sim.issued(), &collector.records());
    }
}

#[test]
fn sockets_that_are_closed_revoked_or_taken_over_lose_nothing() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("handover"));
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    let faults = sim.faults();
    let troubles: [&dyn Fn(); 9] = [
        &|| faults.announce_closing(),
        &|| faults.announce_token_revoked(),
        &|| faults.announce_no_longer_subscribed(),
        &|| faults.take_over_channels(),
        &|| faults.evict_channels(),
        &|| faults.drop_channels(),
        &|| faults.reset_sockets(),
        &|| faults.close_sockets(1001, "idle timeout"),
        &|| faults.revoke_tokens(),
    ];
    for trouble in troubles {
        issue(&sim, 10);
        trouble();
        issue(&sim, 10);
        assert!(sim.wait_until(LONG, |view| view.sockets_open() >= 1), "a socket is open again");
        let_pass(Duration::from_millis(300));
    }
    faults.fail_next(Call::Handshake, Action::status(404), 1);
    faults.cut_sockets();
    issue(&sim, 10);
    assert!(sim.wait_until(LONG, |view| view.sockets_open() >= 1));
    faults.fail_next(Call::Handshake, Action::status(401), 1);
    faults.cut_sockets();
    issue(&sim, 10);
    assert_all_stand_once(&sim, &collector);
    collector.wait_healthy();
}

#[test]
fn at_socket_closing_the_new_socket_is_open_before_the_old_one_is_given_up() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("closing"));
    let collector = Collector::start(&sim, &folder, &[("GENESYS_DELIVERY", "websocket")]);
    collector.wait_healthy();
    for n in 0..200 {
        sim.issue(event(n));
        if n % 50 == 20 {
            sim.faults().announce_closing();
        }
        let_pass(Duration::from_millis(10));
    }
    collector.wait_lines(200, LONG);
    assert_same_set(&sim.issued(), &collector.records());
    assert_eq!(sim.view(|view| view.channels_made()), 1, "the channel stays the same");
}

#[test]
fn before_its_end_a_channel_is_handed_over() {
    let (sim, folder) = (simulator(|k| k.channel_life = Duration::from_secs(6)), Folder::new("expiry"));
    let collector = Collector::start(&sim, &folder, &[("GENESYS_DELIVERY", "websocket")]);
    collector.wait_healthy();
    for n in 0..150 {
        sim.issue(event(n));
        let_pass(Duration::from_millis(100));
    }
    collector.wait_lines(150, LONG);
    assert_same_set(&sim.issued(), &collector.records());
}

#[test]
fn without_the_history_the_socket_is_collected_and_the_risk_is_told() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("forbidden"));
    sim.faults().fail(Call::History, Action::status(403));
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_reason("history_forbidden", true, Duration::from_secs(10));
    let health = collector.health().unwrap();
    assert_eq!(health["status"], "degraded");
    assert!(health["reasons"].to_string().contains("usage:events:view"), "{health}");
    issue(&sim, 20);
    collector.wait_lines(20, LONG);
    sim.faults().heal_all();
    collector.wait_reason("history_forbidden", false, Duration::from_secs(10));
    assert_all_stand_once(&sim, &collector);
}

#[test]
fn without_the_socket_the_history_is_collected_in_time() {
    let troubles: [fn(&Simulator); 2] = [
        |sim| sim.faults().reject_topics("v2.operations", "not permitted", &["usage:events:view"]),
        |sim| sim.faults().set(|k| k.transports = vec!["EventBridge".into()]),
    ];
    for trouble in troubles {
        let (sim, folder) = (simulator(|_| ()), Folder::new("rejected"));
        trouble(&sim);
        let collector = Collector::start(&sim, &folder, &[]);
        assert!(poll(LONG, || (collector.get("/readyz")?.0 == 200).then_some(())).is_some());
        issue(&sim, 20);
        collector.wait_lines(20, Duration::from_secs(10));
        wait_for_all(&sim, &collector);
        assert_same_set(&sim.issued(), &collector.records());
    }
    let (sim, folder) = (simulator(|_| ()), Folder::new("history"));
    let collector = Collector::start(&sim, &folder, &[("GENESYS_DELIVERY", "history")]);
    collector.wait_healthy();
    issue(&sim, 20);
    assert_all_stand_once(&sim, &collector);
    assert_eq!(sim.view(|view| view.sockets_opened()), 0);
}
