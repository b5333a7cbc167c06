//! The audit finds what is missing, and only that.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use audiohook_collector::clock::{format_millis, parse_instant};
use audiohook_collector::simulator::{Action, Answer, Call, Definition, Event, Route, Simulator};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::collector::{binary, settings};
use crate::support::{Collector, Folder, assert_same_set, let_pass, poll, records};
use crate::{LONG, event, issue, simulator};

/// Exit status, standard output and standard error of the command.
fn audit(folder: &Folder, settings: &BTreeMap<String, String>, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = binary(folder.path(), arguments, settings).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// The file as it would be had these lines never been written.
fn write_without(file: &Path, text: &str, lost: &[usize]) {
    let kept = text.lines().enumerate().filter(|(n, _)| !lost.contains(n)).map(|(_, line)| line.to_owned() + "\n");
    std::fs::write(file, kept.collect::<String>()).unwrap();
}

#[test]
fn an_audit_finds_what_is_missing_and_repairs_it() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("audit"));
    let short = [("CATCH_UP_OVERLAP", "2")];
    let mut collector = Collector::start(&sim, &folder, &short);
    collector.wait_healthy();
    issue(&sim, 40);
    collector.wait_lines(40, LONG);
    let_pass(Duration::from_secs(4));
    assert!(collector.term().success());
    let mut all = settings(&sim, &folder);
    all.insert("CATCH_UP_OVERLAP".into(), "2".into());
    let audit = |arguments: &[&str]| audit(&folder, &all, arguments);
    let (status, report, errors) = audit(&["audit", "--json"]);
    assert_eq!(status, Some(0), "{report} {errors}");
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["complete"], report["missing"].as_array().map(Vec::len)), (&json!(true), Some(0)));
    // Three lines are lost.
    let file = folder.join("events.jsonl");
    let text = std::fs::read_to_string(&file).unwrap();
    write_without(&file, &text, &[3, 10, 39]);
    let (status, report, _) = audit(&["audit", "--json"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(
        (status, &report["complete"], report["missing"].as_array().map(Vec::len)),
        (Some(1), &json!(false), Some(3))
    );
    let (status, report, errors) = audit(&["audit", "--repair"]);
    assert_eq!(status, Some(0), "{report} {errors}");
    assert_same_set(&sim.issued(), &records::read(&file));
    // While a collector runs, it repairs by itself.
    let collector = Collector::start(&sim, &folder, &short);
    collector.wait_healthy();
    let (status, _, errors) = audit(&["audit", "--repair"]);
    assert!(status == Some(1) && errors.contains(&collector.pid().to_string()), "{errors}");
    collector.signal(Signal::TERM);
}

#[test]
fn a_record_that_stands_there_twice_hides_no_missing_one() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("audit-twice"));
    let mut all = settings(&sim, &folder);
    all.insert("CATCH_UP_OVERLAP".into(), "2".into());
    let mut collector = Collector::start_with(folder.path(), &all);
    collector.wait_healthy();
    issue(&sim, 9);
    collector.wait_lines(9, LONG);
    let_pass(Duration::from_secs(4));
    assert!(collector.term().success());
    // As many lines of each definition as there are events.
    let file = folder.join("events.jsonl");
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["event_id"].clone();
    let same = (1..9).find(|n| id(lines[*n]) == id(lines[0])).unwrap();
    std::fs::write(&file, text.replacen(&format!("{}\n", lines[same]), &format!("{}\n", lines[0]), 1)).unwrap();
    let (status, report, errors) = audit(&folder, &all, &["audit", "--json"]);
    let report: Value = serde_json::from_str(&report).unwrap_or_else(|_| panic!("{report} {errors}"));
    let found = ["missing", "extra"].map(|what| report[what].as_array().map(Vec::len));
    assert_eq!((status, found), (Some(1), [Some(1), Some(1)]));
}

#[test]
fn an_audit_misses_no_event_that_the_topics_bring_and_the_collector_filters() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("audit-filtered"));
    // AudioHook's by its name alone, which only the definitions tell.
    sim.define(Definition::new("DATAACTIONS-0009", "Data action of an AudioHook integration", ""));
    folder.write("topics.json", r#"{"topics":["v2.operations.events.*"]}"#);
    let mut all = settings(&sim, &folder);
    all.insert("CATCH_UP_OVERLAP".into(), "2".into());
    let mut collector = Collector::start_with(folder.path(), &all);
    collector.wait_healthy();
    for _ in 0..4 {
        sim.issue(Event::numbered("TELEPHONY-0001"));
        sim.issue_by(Event::numbered("DATAACTIONS-0009"), Route::HistoryOnly);
        sim.issue(Event::numbered("AUDIOHOOK-0001"));
    }
    collector.wait_lines(8, LONG);
    let_pass(Duration::from_secs(4));
    assert!(collector.term().success());
    let audit = |arguments: &[&str]| audit(&folder, &all, arguments);
    let (status, report, errors) = audit(&["audit", "--json"]);
    assert_eq!(status, Some(0), "{report} {errors}");
    let report: Value = serde_json::from_str(&report).unwrap();
    let counted = report["definitions"].as_array().unwrap();
    assert!(counted.iter().all(|counted| counted["genesys"] == counted["file"]), "{report}");
    let counts = |id: &str| counted.iter().find(|counted| counted["id"] == id).map(|counted| &counted["file"]);
    assert_eq!(
        (counts("TELEPHONY-0001"), counts("AUDIOHOOK-0001"), counts("DATAACTIONS-0009")),
        (None, Some(&json!(4)), Some(&json!(4)))
    );
    // The running collector's own audit is of the same mind.
    let before = sim.view(|view| view.count(Call::Counts));
    let collector = Collector::start_with(folder.path(), &all);
    assert!(sim.wait_until(LONG, |view| view.count(Call::Counts) > before));
    let reads = sim.view(|view| view.count(Call::History));
    assert!(sim.wait_until(LONG, |view| view.count(Call::History) > reads + 3));
    collector.wait_healthy();
    assert!(!collector.log_text().contains("were missing in the file"), "{}", collector.log_text());
    drop(collector);
    // One that is AudioHook's by its name is missed like any other.
    let file = folder.join("events.jsonl");
    let text = std::fs::read_to_string(&file).unwrap();
    let lost = text.lines().position(|line| line.contains("DATAACTIONS-0009")).unwrap();
    write_without(&file, &text, &[lost]);
    let (status, report, _) = audit(&["audit"]);
    assert!(status == Some(1) && report.contains("INCOMPLETE: 1 events are missing"), "{report}");
    let (status, report, errors) = audit(&["audit", "--repair"]);
    assert_eq!(status, Some(0), "{report} {errors}");
    assert_eq!(records::read(&file).len(), 8);
}

#[test]
fn what_came_into_the_history_too_late_is_found_by_the_audit_and_appended() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("late"));
    let short = [("CATCH_UP_OVERLAP", "2")];
    let mut collector = Collector::start(&sim, &folder, &short);
    collector.wait_healthy();
    issue(&sim, 20);
    // The audit of this start has been: the next one is that of the next start.
    assert!(sim.wait_until(LONG, |view| view.requests(Call::Counts).iter().any(|seen| seen.status == 200)));
    // These stand in the history only after it was read past them, further than the first read of a start goes back.
    for n in 0..7 {
        sim.issue_by(event(n).at(sim.now() - 600_000 + i64::from(n)), Route::HistoryOnly);
    }
    issue(&sim, 3);
    collector.wait_lines(23, LONG);
    let reads = sim.view(|view| view.count(Call::History));
    assert!(sim.wait_until(LONG, |view| view.count(Call::History) > reads + 2));
    assert!(collector.term().success());
    assert_eq!(collector.records().len(), 23, "what the history showed too late is missing so far");
    let collector = Collector::start(&sim, &folder, &short);
    collector.wait_lines(30, LONG);
    collector.wait_log("were missing in the file", LONG);
    collector.wait_log("is in the file now", LONG);
    assert_same_set(&sim.issued(), &collector.records());
    collector.wait_healthy();
}

/// Moves the file away while the collector runs, or while it does not, and restarts it: what was moved is not missing.
fn move_away(is_running: bool) {
    let (sim, folder) = (simulator(|_| ()), Folder::new("audit-moved"));
    let short = [("CATCH_UP_OVERLAP", "2")];
    let mut collector = Collector::start(&sim, &folder, &short);
    collector.wait_healthy();
    issue(&sim, 20);
    collector.wait_lines(20, LONG);
    // Rows wait ten seconds for their frames; from then on a restart does not read these again.
    let_pass(Duration::from_secs(14));
    let file = folder.join("events.jsonl");
    let mv = || std::fs::rename(&file, folder.join("moved.jsonl")).unwrap();
    if is_running {
        mv();
        assert!(poll(LONG, || file.exists().then_some(())).is_some());
        issue(&sim, 1);
        collector.wait_lines(1, LONG);
        let_pass(Duration::from_secs(5));
    }
    assert!(collector.term().success());
    if !is_running {
        mv();
    }
    let collector = Collector::start(&sim, &folder, &short);
    let reads = sim.view(|view| view.count(Call::History));
    assert!(sim.wait_until(LONG, |view| view.count(Call::History) > reads + 4));
    issue(&sim, 1);
    let expected = 1 + usize::from(is_running);
    collector.wait_lines(expected, LONG);
    collector.wait_healthy();
    let found = records::read(&file);
    assert_eq!(found.len(), expected, "{found:?}\n{}", collector.log_text());
}

#[test]
fn an_audit_does_not_append_what_was_moved_away_while_the_collector_ran() {
    move_away(true);
}

#[test]
fn an_audit_does_not_append_what_was_moved_away_while_the_collector_was_stopped() {
    move_away(false);
}

const UNTIMED: &str = "untimed";
const HOUR_MS: i64 = 3_600_000;

/// The history gives no time for the events of this conversation. While the flag is set, it gives no hour at once.
fn without_times(sim: &Simulator, refuses_hours: Arc<AtomicBool>) {
    let action = Action::custom(move |request, service| {
        let asked: Value = serde_json::from_slice(&request.body).unwrap();
        let (from, to) = asked["interval"].as_str().unwrap().split_once('/').unwrap();
        let span_ms = parse_instant(to).unwrap() - parse_instant(from).unwrap();
        if refuses_hours.load(Ordering::Relaxed) && span_ms > HOUR_MS / 2 {
            return Answer::json(503, json!({"message": "not now"}));
        }
        let mut answer = service(request);
        let Ok(mut page) = serde_json::from_slice::<Value>(&answer.body) else { return answer };
        for row in page["entities"].as_array_mut().unwrap() {
            if row["conversation"]["id"] == UNTIMED {
                row.as_object_mut().unwrap().remove("dateCreated");
            }
        }
        answer.body = page.to_string().into_bytes();
        answer
    });
    sim.faults().fail(Call::History, action);
}

/// Issues an event without a time that stands in the history only after it was read past it.
fn issue_untimed(sim: &Simulator, age_ms: i64) {
    let untimed = Event { conversation_id: Some(UNTIMED.to_owned()), ..Event::numbered("AUDIOHOOK-0001") };
    sim.issue_by(untimed.at(sim.now() - age_ms), Route::HistoryOnly);
}

#[test]
fn an_audit_that_repairs_appends_a_row_without_a_time_once() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("audit-untimed"));
    let short = [("CATCH_UP_OVERLAP", "2")];
    without_times(&sim, Arc::default());
    let mut collector = Collector::start(&sim, &folder, &short);
    collector.wait_healthy();
    issue(&sim, 5);
    collector.wait_lines(5, LONG);
    let_pass(Duration::from_secs(4));
    assert!(collector.term().success());
    for age_ms in [2 * HOUR_MS, 3 * HOUR_MS] {
        issue_untimed(&sim, age_ms);
    }
    let [from, to] = [5 * HOUR_MS, HOUR_MS].map(|age_ms| format_millis(sim.now() - age_ms));
    let mut all = settings(&sim, &folder);
    all.insert("CATCH_UP_OVERLAP".into(), "2".into());
    for round in 0..3 {
        let (status, report, errors) = audit(&folder, &all, &["audit", "--repair", "--from", &from, "--to", &to]);
        assert_eq!((status, errors.contains("were appended")), (Some(0), round == 0), "{report} {errors}");
        assert_eq!(collector.records().len(), 7, "round {round}");
    }
    // Nor does the collector, whose own audit looks at the last hour.
    let counted = sim.view(|view| view.count(Call::Counts));
    let collector = Collector::start(&sim, &folder, &short);
    assert!(sim.wait_until(LONG, |view| view.count(Call::Counts) > counted));
    let reads = sim.view(|view| view.count(Call::History));
    assert!(sim.wait_until(LONG, |view| view.count(Call::History) > reads + 3));
    collector.wait_healthy();
    assert_eq!(collector.records().len(), 7);
}

#[test]
fn a_row_without_a_time_that_is_repaired_late_is_appended_once() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("late-untimed"));
    let short = [("CATCH_UP_OVERLAP", "2")];
    let refuses_hours = Arc::new(AtomicBool::new(false));
    without_times(&sim, refuses_hours.clone());
    let mut collector = Collector::start(&sim, &folder, &short);
    collector.wait_healthy();
    issue(&sim, 5);
    collector.wait_lines(5, LONG);
    let_pass(Duration::from_secs(4));
    assert!(collector.term().success());
    issue_untimed(&sim, 5 * 60_000);
    refuses_hours.store(true, Ordering::Relaxed);
    let asked = |view: &audiohook_collector::simulator::View| {
        view.requests(Call::History).iter().filter(|seen| seen.status == 503).count()
    };
    let collector = Collector::start(&sim, &folder, &short);
    assert!(sim.wait_until(LONG, |view| asked(view) > 0), "{}", collector.log_text());
    // Ten minutes pass before the hour can be read.
    let later = (sim.now() + 9 * 60_000) as f64 / 1000.0;
    sim.faults().set(|knobs| knobs.clock_offset_ms = 10 * 60_000);
    let checkpoint = || collector.metric("audiohook_collector_history_checkpoint_timestamp_seconds");
    assert!(poll(LONG, || checkpoint().filter(|at| *at > later)).is_some(), "{}", collector.log_text());
    refuses_hours.store(false, Ordering::Relaxed);
    collector.wait_log("were missing in the file", LONG * 2);
    collector.wait_log("is in the file now", LONG);
    collector.wait_healthy();
    assert_eq!(collector.records().len(), 6, "{}", collector.log_text());
}
