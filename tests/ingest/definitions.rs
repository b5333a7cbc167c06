//! Definitions that cannot be fetched, that appear later, and what a checkpoint covers.

use audiohook_collector::simulator::{Action, Answer, Call, Event, Route, Simulator};
use serde_json::json;

use crate::support::{Collector, Folder, assert_same_set, at_once, poll};
use crate::{DAY_MS, HOUR_MS, LONG, definitions_in, issue_old, simulator, started, wait_reads};

const UNCONFIRMED: &str = "definitions_unconfirmed";
/// Beyond what a built-in list could hold.
const NEW: &str = "AUDIOHOOK-0077";

/// Answers that are no list of definitions.
fn failures() -> Vec<(&'static str, Action)> {
    let body = |text: &str| Action::Body(text.to_owned());
    vec![
        ("503", Action::status(503)),
        ("500", Action::status(500)),
        ("404", Action::status(404)),
        ("403", Action::status(403)),
        ("closed", Action::Reset),
        ("half", Action::Half),
        ("html", Action::Nonsense),
        ("empty", body(r#"{"entities":[]}"#)),
        ("null", body(r#"{"entities":null}"#)),
        ("absent", body("{}")),
        ("array", body("[]")),
        ("without ids", body(r#"{"entities":[{"name":"AudioHook"},{"id":null},{"id":7}]}"#)),
    ]
}

/// A service whose history holds events of before the first start.
fn with_a_past() -> Simulator {
    let sim = simulator(|_| ());
    issue_old(&sim, "AUDIOHOOK-0004", 3 * HOUR_MS);
    issue_old(&sim, NEW, 3 * HOUR_MS);
    issue_old(&sim, NEW, 3 * DAY_MS);
    sim
}

#[test]
fn definitions_that_fail_once_at_the_first_start_cost_no_event() {
    at_once(failures(), |(name, action)| {
        let sim = with_a_past();
        sim.faults().fail_next(Call::Definitions, action, 1);
        let folder = Folder::new("definitions-once");
        let mut collector = Collector::start(&sim, &folder, &[]);
        // What was refused is asked for again after a minute.
        collector.wait_lines(3, LONG * 2);
        collector.wait_reason(UNCONFIRMED, false, LONG);
        assert!(collector.term().success());
        let collector = Collector::start(&sim, &folder, &[]);
        collector.wait_healthy();
        wait_reads(&sim, &collector, 3);
        assert_same_set(&sim.issued(), &collector.records());
        println!("{name}: all came");
    });
}

#[test]
fn definitions_that_get_no_answer_at_the_first_start_cost_no_event() {
    let sim = with_a_past();
    sim.faults().fail(Call::Definitions, Action::Hang);
    let folder = Folder::new("definitions-hang");
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_reason(UNCONFIRMED, true, LONG * 2);
    sim.faults().heal(Call::Definitions);
    collector.wait_lines(3, LONG * 2);
    collector.wait_reason(UNCONFIRMED, false, LONG);
    assert_same_set(&sim.issued(), &collector.records());
}

#[test]
fn definitions_in_another_case_are_audiohooks_all_the_same() {
    let sim = with_a_past();
    let in_lower_case = Action::change(|_, answer| {
        answer.body = String::from_utf8_lossy(&answer.body).replace("AUDIOHOOK-", "audiohook-").into_bytes();
    });
    sim.faults().fail(Call::Definitions, in_lower_case);
    let folder = Folder::new("definitions-case");
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_lines(3, LONG);
    wait_reads(&sim, &collector, 3);
    assert_same_set(&sim.issued(), &collector.records());
}

#[test]
fn while_the_definitions_fail_the_built_in_list_is_collected_and_health_says_so() {
    at_once(failures(), |(name, action)| {
        let sim = simulator(|_| ());
        for definition in ["AUDIOHOOK-0001", "AUDIOHOOK-0004", "AUDIOHOOK-0032"] {
            issue_old(&sim, definition, 3 * HOUR_MS);
        }
        issue_old(&sim, NEW, 3 * HOUR_MS);
        sim.faults().fail(Call::Definitions, action);
        let folder = Folder::new("definitions-never");
        let mut collector = Collector::start(&sim, &folder, &[]);
        collector.wait_reason(UNCONFIRMED, true, LONG);
        collector.wait_lines(3, LONG);
        assert!(sim.wait_until(LONG, |view| view.sockets_open() == 1));
        sim.issue_by(Event::numbered("AUDIOHOOK-0032"), Route::SocketOnly);
        collector.wait_lines(4, LONG);
        let expected = ["AUDIOHOOK-0001", "AUDIOHOOK-0004", "AUDIOHOOK-0032", "AUDIOHOOK-0032"];
        assert_eq!(definitions_in(&collector), expected);
        assert!(collector.term().success());
        // It is not confirmed by a restart.
        let collector = Collector::start(&sim, &folder, &[]);
        collector.wait_reason(UNCONFIRMED, true, LONG);
        assert_eq!(collector.health().unwrap()["status"], "degraded");
        // Once it can be known, what it did not name is read too.
        sim.faults().heal(Call::Definitions);
        collector.wait_reason(UNCONFIRMED, false, LONG * 2);
        collector.wait_lines(5, LONG);
        assert_eq!(definitions_in(&collector)[4], NEW);
        println!("{name}: all came");
    });
}

#[test]
fn the_last_known_definitions_are_used_while_new_ones_cannot_be_fetched() {
    let sim = simulator(|_| ());
    issue_old(&sim, NEW, 3 * HOUR_MS);
    let (folder, mut collector) = started("definitions-kept", &sim, &[]);
    collector.wait_lines(1, LONG);
    assert!(collector.term().success());
    issue_old(&sim, NEW, 60_000);
    sim.faults().fail(Call::Definitions, Action::status(503));
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_reason(UNCONFIRMED, true, LONG);
    collector.wait_lines(2, LONG);
    sim.issue_by(Event::numbered(NEW), Route::SocketOnly);
    collector.wait_lines(3, LONG);
    assert_same_set(&sim.issued(), &collector.records());
}

#[test]
fn a_definition_that_appears_before_a_restart_is_read_from_the_beginning() {
    let sim = simulator(|_| ());
    issue_old(&sim, "AUDIOHOOK-0001", 3 * HOUR_MS);
    let (folder, mut collector) = started("definitions-new", &sim, &[]);
    collector.wait_lines(1, LONG);
    wait_reads(&sim, &collector, 2);
    issue_old(&sim, NEW, 3 * HOUR_MS);
    issue_old(&sim, NEW, 3 * DAY_MS);
    assert!(collector.term().success());
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_lines(3, LONG);
    wait_reads(&sim, &collector, 3);
    assert_same_set(&sim.issued(), &collector.records());
}

#[test]
fn a_definition_that_appears_while_it_runs_is_read_from_the_beginning() {
    let sim = simulator(|_| ());
    issue_old(&sim, "AUDIOHOOK-0001", 3 * HOUR_MS);
    // A list that cannot be fetched is asked for again soon; it holds a new definition by then.
    sim.faults().fail(Call::Definitions, Action::status(503));
    let folder = Folder::new("definitions-running");
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_lines(1, LONG);
    wait_reads(&sim, &collector, 2);
    issue_old(&sim, NEW, 3 * HOUR_MS);
    issue_old(&sim, NEW, 3 * DAY_MS);
    sim.faults().heal(Call::Definitions);
    collector.wait_lines(3, LONG * 2);
    wait_reads(&sim, &collector, 3);
    assert_same_set(&sim.issued(), &collector.records());
}

#[test]
fn an_id_that_the_topics_file_names_later_is_read_from_where_the_first_start_began() {
    let sim = simulator(|_| ());
    let folder = Folder::new("topics");
    let topics = |ids: &[&str]| {
        let topics: Vec<String> = ids.iter().map(|id| format!("v2.operations.events.{id}")).collect();
        folder.write("topics.json", json!({ "topics": topics }).to_string());
    };
    let start = [("CATCH_UP_START", "86400")];
    topics(&["AUDIOHOOK-0001"]);
    for definition in ["AUDIOHOOK-0001", "AUDIOHOOK-0002"] {
        issue_old(&sim, definition, 3 * HOUR_MS);
        issue_old(&sim, definition, 2 * DAY_MS);
    }
    let mut collector = Collector::start(&sim, &folder, &start);
    collector.wait_healthy();
    collector.wait_lines(1, LONG);
    wait_reads(&sim, &collector, 2);
    assert!(collector.term().success());
    topics(&["AUDIOHOOK-0001", "AUDIOHOOK-0002"]);
    let collector = Collector::start(&sim, &folder, &start);
    collector.wait_lines(2, LONG);
    wait_reads(&sim, &collector, 3);
    assert_eq!(definitions_in(&collector), ["AUDIOHOOK-0001", "AUDIOHOOK-0002"], "nothing from before the first start");
}

#[test]
fn an_id_that_is_left_out_for_a_while_is_read_on_from_where_it_was_left() {
    let sim = simulator(|_| ());
    let folder = Folder::new("left-out");
    let topics = |ids: &[&str]| {
        let topics: Vec<String> = ids.iter().map(|id| format!("v2.operations.events.{id}")).collect();
        folder.write("topics.json", json!({ "topics": topics }).to_string());
    };
    let run = |lines: usize| {
        let mut collector = Collector::start(&sim, &folder, &[]);
        collector.wait_healthy();
        collector.wait_lines(lines, LONG);
        wait_reads(&sim, &collector, 3);
        assert!(collector.term().success());
        definitions_in(&collector)
    };
    for age_ms in [3 * HOUR_MS, 3 * DAY_MS] {
        issue_old(&sim, "AUDIOHOOK-0001", age_ms);
        issue_old(&sim, "AUDIOHOOK-0002", age_ms);
    }
    topics(&["AUDIOHOOK-0001", "AUDIOHOOK-0002"]);
    run(4);
    // What was collected is taken away, so that nothing in the files shows it.
    std::fs::rename(folder.join("events.jsonl"), folder.join("shipped.jsonl")).unwrap();
    topics(&["AUDIOHOOK-0001"]);
    run(0);
    sim.issue_by(Event::numbered("AUDIOHOOK-0002"), Route::HistoryOnly);
    run(0);
    topics(&["AUDIOHOOK-0001", "AUDIOHOOK-0002"]);
    assert_eq!(run(1), ["AUDIOHOOK-0002"], "what was collected before is not written again");
}

/// A state file with this content, whole as far as its checksum tells.
fn write_state(folder: &Folder, document: &str) {
    let sum = twox_hash::XxHash3_64::oneshot(document.as_bytes());
    folder.write("events.jsonl.state", format!("{document}\n{sum:016x}\n"));
}

#[test]
fn after_an_upgrade_what_the_old_checkpoint_may_not_have_covered_is_read_again() {
    let sim = simulator(|_| ());
    let folder = Folder::new("coverage");
    // The older version had fetched no definitions: it read the history for the first three ids alone.
    folder.write("topics.json", r#"{"topics":["v2.operations.events.AUDIOHOOK-0001"]}"#);
    for age_ms in [3 * HOUR_MS, 3 * DAY_MS, 9 * DAY_MS] {
        for definition in ["AUDIOHOOK-0001", "AUDIOHOOK-0004", NEW] {
            issue_old(&sim, definition, age_ms);
        }
    }
    let mut collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    collector.wait_lines(3, LONG);
    assert!(collector.term().success());
    std::fs::remove_file(folder.join("topics.json")).unwrap();
    let (now, origin) = (sim.now(), sim.now() - 10 * DAY_MS);
    let old = json!({"format": 1, "checkpoint_ms": now, "origin_ms": origin, "by_wall": false, "channel": null});
    write_state(&folder, &old.to_string());
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_lines(9, LONG);
    wait_reads(&sim, &collector, 3);
    assert_same_set(&sim.issued(), &collector.records());
}

/// Queries for the history that name this definition are answered with this status.
fn fail_history_of(sim: &Simulator, id: &'static str, status: u16) {
    let action = Action::change(move |request, answer| {
        if String::from_utf8_lossy(&request.body).contains(id) {
            *answer = Answer::json(status, json!({"code": "no", "message": "not this one"}));
        }
    });
    sim.faults().fail(Call::History, action);
}

/// Waits until `/health` reports that the history of this definition is left out, and gives the cure.
fn wait_left_out(collector: &Collector, id: &str) -> String {
    let found = poll(LONG, || {
        let health = collector.health()?;
        let reason = health["reasons"].as_array()?.iter().find(|reason| reason["code"] == "history_failing")?;
        let is_it = reason["message"].as_str()?.contains(&format!("the history of {id} is left out"));
        is_it.then(|| reason["cure"].as_str().unwrap_or_default().to_owned())
    });
    found.unwrap_or_else(|| panic!("{:?}\n{}", collector.health(), collector.log_text()))
}

#[test]
fn a_definition_whose_history_always_fails_holds_up_no_other_and_loses_nothing() {
    const FAILING: &str = "AUDIOHOOK-0002";
    let mut all = Vec::new();
    for status in [503, 404, 500, 400] {
        let sim = simulator(|_| ());
        for age_ms in [3 * DAY_MS, 3 * HOUR_MS] {
            ["AUDIOHOOK-0001", FAILING, "AUDIOHOOK-0003"].iter().for_each(|id| issue_old(&sim, id, age_ms));
        }
        fail_history_of(&sim, FAILING, status);
        let folder = Folder::new("definition-fails");
        let collector = Collector::start(&sim, &folder, &[]);
        all.push((status, sim, folder, collector));
    }
    for (status, sim, folder, mut collector) in all {
        println!("{status}");
        collector.wait_lines(4, LONG);
        let cure = wait_left_out(&collector, FAILING);
        assert!(cure.ends_with('.'), "{cure:?}");
        ["AUDIOHOOK-0001", FAILING].iter().for_each(|id| issue_old(&sim, id, 60_000));
        collector.wait_lines(5, LONG);
        assert!(!definitions_in(&collector).contains(&FAILING.to_owned()));
        // A restart in the meantime takes nothing for read.
        if status != 503 {
            assert!(collector.term().success());
            collector = Collector::start(&sim, &folder, &[]);
            issue_old(&sim, "AUDIOHOOK-0003", 60_000);
            collector.wait_lines(6, LONG);
            wait_left_out(&collector, FAILING);
        }
        if status == 400 {
            // What is refused is tried again every few minutes, and by the next start.
            assert!(collector.term().success());
            sim.faults().heal_all();
            collector = Collector::start(&sim, &folder, &[]);
        }
        sim.faults().heal_all();
        collector.wait_lines(sim.issued().len(), LONG);
        collector.wait_healthy();
        wait_reads(&sim, &collector, 3);
        assert_same_set(&sim.issued(), &collector.records());
    }
}

#[test]
fn a_definition_that_may_not_exist_is_left_out_without_a_word() {
    let sim = simulator(|_| ());
    sim.faults().fail(Call::Definitions, Action::status(503));
    fail_history_of(&sim, "AUDIOHOOK-0009", 400);
    issue_old(&sim, "AUDIOHOOK-0001", 3 * HOUR_MS);
    let folder = Folder::new("may-not-exist");
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_lines(1, LONG);
    collector.wait_log("AUDIOHOOK-0009 is left out", LONG);
    wait_reads(&sim, &collector, 3);
    assert_eq!(collector.reasons().unwrap(), [UNCONFIRMED]);
}
