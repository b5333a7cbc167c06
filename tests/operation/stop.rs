//! Stopping: everything received is in the file, the status is 0, and no hanging peer delays it.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use crate::support::collector::{binary, settings};
use crate::support::{Collector, Folder, SOON, assert_same_set, free_port, poll};
use audiohook_collector::simulator::{Action, Call, Event, Knobs, Options, Route, Simulator};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

/// What a stop may take, whatever hangs.
const STOP_MAX: Duration = Duration::from_secs(5);

fn simulator() -> Simulator {
    let knobs = Knobs { requests_per_minute: None, ..Knobs::default() };
    Simulator::start(Options { knobs, ..Options::default() }).unwrap()
}

/// Stops it by this signal, in time.
fn stop(collector: &mut Collector, signal: Signal) -> ExitStatus {
    let since = Instant::now();
    collector.signal(signal);
    let status = collector.wait_exit(SOON);
    assert!(since.elapsed() < STOP_MAX, "it took {:?}\n{}", since.elapsed(), collector.log_text());
    status
}

#[test]
fn everything_received_is_in_the_file_at_either_signal() {
    for signal in [Signal::TERM, Signal::INT] {
        let (sim, folder) = (simulator(), Folder::new("flood"));
        let mut collector = Collector::start(&sim, &folder, &[("MAX_FILE_SIZE", "1GB")]);
        collector.wait_healthy();
        let now = sim.now();
        let times: Vec<i64> = (0..6_000).map(|n| now - n).collect();
        sim.issue_many(Event::numbered("AUDIOHOOK-0001"), &times, Route::Both);
        assert!(poll(SOON, || (!collector.records().is_empty()).then_some(())).is_some());
        let status = stop(&mut collector, signal);
        assert_eq!(status.code(), Some(0), "{}", collector.log_text());
        let text = std::fs::read_to_string(collector.output_file()).unwrap();
        assert!(text.ends_with("}\n"), "no torn line");
        assert!(collector.log_text().contains("stopped"));
        // What it had not received is fetched by the next one; nothing is lost or stands there twice.
        let collector = Collector::start(&sim, &folder, &[("MAX_FILE_SIZE", "1GB"), ("CATCH_UP_RATE", "100000")]);
        collector.wait_lines(6_000, Duration::from_secs(40));
        collector.wait_healthy();
        assert_same_set(&sim.issued(), &collector.records());
    }
}

#[test]
fn what_came_just_before_the_signal_is_in_the_file() {
    let (sim, folder) = (simulator(), Folder::new("before"));
    for round in 1..=5 {
        let mut collector = Collector::start(&sim, &folder, &[("GENESYS_DELIVERY", "websocket")]);
        collector.wait_healthy();
        for _ in 0..50 {
            sim.issue(Event::numbered("AUDIOHOOK-0002"));
        }
        let sent = round * 50;
        assert!(sim.wait_until(SOON, |view| view.frames_sent() == sent));
        // The frames are in the machine; a moment for the loopback.
        let _ = poll(Duration::from_millis(100), || None::<()>);
        assert_eq!(stop(&mut collector, Signal::TERM).code(), Some(0));
        assert_eq!(collector.records().len() as u64, sent);
    }
}

#[test]
fn a_call_that_hangs_does_not_delay_it() {
    for call in [Call::Token, Call::Definitions, Call::Channels, Call::Subscriptions, Call::Handshake, Call::History] {
        let (sim, folder) = (simulator(), Folder::new("hangs"));
        sim.faults().fail(call, Action::Hang);
        let mut collector = Collector::start(&sim, &folder, &[]);
        assert!(sim.wait_until(SOON, |view| view.count(call) > 0), "{call:?}");
        let status = stop(&mut collector, Signal::TERM);
        assert_eq!(status.code(), Some(0), "{call:?}\n{}", collector.log_text());
    }
}

#[test]
fn a_connect_that_hangs_does_not_delay_it() {
    let (sim, folder) = (simulator(), Folder::new("connect"));
    // Takes connections and says nothing: a TLS handshake that never ends.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://127.0.0.1:{}", silent.local_addr().unwrap().port());
    // An address that nobody answers at.
    for login in [url.as_str(), "https://192.0.2.1"] {
        let mut collector = Collector::start(&sim, &folder, &[("GENESYS_LOGIN_URL", login)]);
        assert!(poll(SOON, || collector.get("/livez")).is_some());
        let _ = poll(Duration::from_millis(300), || None::<()>);
        assert_eq!(stop(&mut collector, Signal::TERM).code(), Some(0), "{login}");
    }
}

#[test]
fn a_stop_right_after_the_start_is_a_stop() {
    let (sim, folder) = (simulator(), Folder::new("early"));
    for wait_ms in [30, 60, 120, 250] {
        let mut collector = Collector::start(&sim, &folder, &[]);
        let _ = poll(Duration::from_millis(wait_ms), || None::<()>);
        let status = stop(&mut collector, Signal::TERM);
        // Before it listens to signals, the signal itself ends it.
        assert!(status.code() == Some(0) || status.code().is_none(), "{status:?} {}", collector.log_text());
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let (sim, folder) = (simulator(), Folder::new("twice"));
    let mut collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    // A disk that refuses is what a stop waits for longest.
    let limit = Rlimit { current: Some(0), maximum: None };
    prlimit(Pid::from_raw(collector.pid() as i32), Resource::Fsize, limit).unwrap();
    sim.issue(Event::numbered("AUDIOHOOK-0001"));
    collector.wait_reason("disk_write_failed", true, SOON);
    collector.signal(Signal::TERM);
    // What comes sooner is taken for the same signal.
    let _ = poll(Duration::from_millis(800), || None::<()>);
    assert!(collector.runs(), "the first signal waits for the disk");
    let since = Instant::now();
    collector.signal(Signal::INT);
    let status = collector.wait_exit(SOON);
    assert!(since.elapsed() < Duration::from_millis(500), "{:?}", since.elapsed());
    assert!(!status.success());
}

/// As `timeout` and Ctrl-C under make send them: to the process, and to its group.
#[test]
fn two_signals_back_to_back_are_one_stop() {
    for (arguments, said) in [
        (&["simulate", "--listen", "127.0.0.1:0"][..], "Stop with Ctrl-C"),
        (&["demo"][..], "AudioHook event processed"),
    ] {
        for second in [Signal::TERM, Signal::INT] {
            let folder = Folder::new("back-to-back");
            let temporary = BTreeMap::from([("TMPDIR".to_owned(), folder.path().display().to_string())]);
            let mut process = Collector::run(folder.path(), arguments, &temporary);
            process.wait_log(said, SOON);
            process.signal(Signal::TERM);
            process.signal(second);
            assert_eq!(process.wait_exit(SOON).code(), Some(0), "{arguments:?}\n{}", process.log_text());
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "no folder is left behind");
        }
    }
}

#[test]
fn a_disk_that_refuses_does_not_hold_it_for_ever() {
    let (sim, folder) = (simulator(), Folder::new("refuses"));
    let mut collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    let limit = Rlimit { current: Some(0), maximum: None };
    prlimit(Pid::from_raw(collector.pid() as i32), Resource::Fsize, limit).unwrap();
    sim.issue(Event::numbered("AUDIOHOOK-0001"));
    collector.wait_reason("disk_write_failed", true, SOON);
    assert_eq!(stop(&mut collector, Signal::TERM).code(), Some(1), "not everything is in the file");
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_lines(1, SOON);
    collector.wait_healthy();
    assert_same_set(&sim.issued(), &collector.records());
}

#[test]
fn a_port_in_use_is_told_by_its_setting() {
    let (sim, folder) = (simulator(), Folder::new("port"));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let mut all = settings(&sim, &folder);
    all.insert("HTTP_PORT".into(), port.clone());
    for console in ["true", "false"] {
        all.insert("CONSOLE_OUTPUT".into(), console.into());
        let output = binary(folder.path(), &[], &all).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("HTTP_PORT") && said.contains(&port), "{said}");
        assert_eq!(output.stdout.is_empty(), console == "false", "CONSOLE_OUTPUT=false: nothing on standard output");
    }
    assert_eq!(sim.view(|view| view.all_requests().count()), 0, "nothing went out");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "no empty file is left behind");
    // An address that is not this machine's.
    all.insert("HTTP_PORT".into(), free_port().to_string());
    all.insert("HTTP_HOST".into(), "192.0.2.1".into());
    let output = binary(folder.path(), &[], &all).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("HTTP_HOST"), "{said}");
}
