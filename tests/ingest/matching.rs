//! Like events: equal in all but their time, seconds from each other, each with two times that differ.

use std::time::Duration;

use audiohook_collector::simulator::{Action, Call, Route, Simulator};
use serde_json::Value;

use crate::support::collector::{binary, settings};
use crate::support::{Collector, Folder, SOON, at_once, let_pass, records};
use crate::{LONG, like, settle, simulator, started, wait_reads};

/// One of the six: its two times, in milliseconds from a common beginning.
struct Like {
    frame_ms: Option<i64>,
    row_ms: i64,
    is_late: bool,
}

const fn like_of(frame_ms: Option<i64>, row_ms: i64) -> Like {
    Like { frame_ms, row_ms, is_late: false }
}

/// One has no frame, and one's row comes into the history long after the others.
const SIX: [Like; 6] = [
    like_of(None, 24_010),
    like_of(Some(25_000), 25_329),
    Like { frame_ms: Some(11_486), row_ms: 12_126, is_late: true },
    like_of(Some(5_549), 6_323),
    like_of(Some(19_839), 19_465),
    like_of(Some(16_478), 15_889),
];

/// So many conversations have the same six, each in an order of its own.
const CONVERSATIONS: u32 = 8;
/// How far the two times may be from each other.
const TOLERANCE_MS: i64 = 2_000;

struct Scene {
    sim: Simulator,
    folder: Folder,
    collector: Collector,
    begin_ms: i64,
}

impl Scene {
    fn start() -> Self {
        let sim = simulator(|_| ());
        let (folder, collector) = started("six", &sim, &[]);
        // Old enough for no row to wait for its frame.
        let begin_ms = sim.now() - 90_000;
        Self { sim, folder, collector, begin_ms }
    }

    /// Sends the frames of which `which` holds, given the number of the conversation.
    fn frames(&self, which: impl Fn(u32, &Like) -> bool) {
        for conversation in 0..CONVERSATIONS {
            let frames = SIX.iter().filter(|like| which(conversation, like)).filter_map(|like| like.frame_ms);
            let mut frames: Vec<i64> = frames.collect();
            frames.sort_unstable();
            for ms in frames {
                let event = like(&format!("conversation {conversation}")).at(self.begin_ms + ms);
                self.sim.issue_by(event, Route::SocketOnly);
            }
        }
    }

    /// Puts the rows of which `which` holds into the history.
    fn rows(&self, which: impl Fn(u32, &Like) -> bool) {
        for conversation in 0..CONVERSATIONS {
            for row in SIX.iter().filter(|like| which(conversation, like)) {
                let event = like(&format!("conversation {conversation}")).at(self.begin_ms + row.row_ms);
                self.sim.issue_by(event, Route::HistoryOnly);
            }
        }
    }

    fn wait_reads(&self, count: usize) {
        wait_reads(&self.sim, &self.collector, count);
    }

    /// The steps of the story, each with its effect. In every other conversation the rows of the second half come
    /// first, in the others the frames.
    const STEPS: [fn(&Self); 6] = [
        |scene| {
            scene.frames(|_, like| like.frame_ms < Some(18_000));
            scene.collector.wait_lines(3 * CONVERSATIONS as usize, LONG);
        },
        |scene| {
            scene.rows(|_, like| like.row_ms < 18_000 && !like.is_late);
            scene.wait_reads(3);
        },
        |scene| {
            scene.rows(|conversation, like| like.row_ms > 18_000 && conversation % 2 == 0);
            scene.frames(|conversation, like| like.frame_ms > Some(18_000) && conversation % 2 == 1);
            scene.wait_reads(3);
        },
        |scene| {
            scene.frames(|conversation, like| like.frame_ms > Some(18_000) && conversation % 2 == 0);
            scene.rows(|conversation, like| like.row_ms > 18_000 && conversation % 2 == 1);
            scene.wait_reads(3);
        },
        |scene| {
            scene.rows(|_, like| like.is_late);
            scene.wait_reads(3);
        },
        |scene| scene.wait_reads(2),
    ];

    fn restart(&mut self) {
        self.collector.kill9();
        let opened = self.sim.view(|view| view.sockets_opened());
        self.collector = Collector::start(&self.sim, &self.folder, &[]);
        self.collector.wait_healthy();
        assert!(self.sim.wait_until(LONG, |view| view.sockets_opened() > opened && view.sockets_open() == 1));
    }

    /// The times in the file, from the common beginning, by conversation.
    fn times(&self) -> Vec<(String, i64)> {
        let records = self.collector.records();
        let mut times: Vec<(String, i64)> = records
            .iter()
            .map(|r| (r.text("conversation_id").unwrap().to_owned(), r.time_ms() - self.begin_ms))
            .collect();
        times.sort();
        times
    }

    fn assert_six_each(&self) {
        let times = self.times();
        let mut rows: Vec<i64> = SIX.iter().map(|like| like.row_ms).collect();
        rows.sort_unstable();
        for conversation in 0..CONVERSATIONS {
            let name = format!("conversation {conversation}");
            let times: Vec<i64> = times.iter().filter(|(of, _)| *of == name).map(|(_, time)| *time).collect();
            assert_eq!(times.len(), 6, "{name}: {times:?}\n{}", self.collector.log_text());
            let near = times.iter().zip(&rows).all(|(time, row)| (time - row).abs() <= TOLERANCE_MS);
            assert!(near, "{name}: {times:?} are not {rows:?}");
        }
    }
}

/// Exit status and report of `audit --json` with these arguments.
fn audit(sim: &Simulator, folder: &Folder, more: &[&str]) -> (Option<i32>, Value) {
    let mut all = settings(sim, folder);
    all.insert("CATCH_UP_OVERLAP".into(), "2".into());
    let arguments = [&["audit", "--json"], more].concat();
    let output = binary(folder.path(), &arguments, &all).output().unwrap();
    let report = serde_json::from_slice(&output.stdout);
    let report = report.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), report)
}

#[test]
fn six_like_events_whose_times_differ_are_six_records() {
    let mut scene = Scene::start();
    for step in Scene::STEPS {
        step(&scene);
    }
    scene.assert_six_each();
    assert!(scene.collector.term().success());
    let (status, report) = audit(&scene.sim, &scene.folder, &[]);
    assert_eq!((status, &report["complete"]), (Some(0), &Value::Bool(true)), "{report}");
}

#[test]
fn six_like_events_are_six_records_when_all_frames_come_before_the_first_row() {
    let scene = Scene::start();
    scene.frames(|_, _| true);
    scene.collector.wait_lines(5 * CONVERSATIONS as usize, LONG);
    scene.rows(|_, like| !like.is_late);
    scene.wait_reads(4);
    scene.rows(|_, like| like.is_late);
    scene.wait_reads(4);
    scene.assert_six_each();
}

#[test]
fn six_like_events_are_six_records_when_all_rows_come_before_the_first_frame() {
    let scene = Scene::start();
    scene.rows(|_, like| !like.is_late);
    scene.collector.wait_lines(5 * CONVERSATIONS as usize, LONG);
    scene.frames(|_, _| true);
    scene.wait_reads(4);
    scene.rows(|_, like| like.is_late);
    scene.wait_reads(4);
    scene.assert_six_each();
}

#[test]
fn an_audit_takes_equal_counts_for_no_proof() {
    let sim = simulator(|_| ());
    let folder = Folder::new("six-audit");
    let collector = Collector::start(&sim, &folder, &[("GENESYS_DELIVERY", "websocket")]);
    collector.wait_healthy();
    let scene = Scene { begin_ms: sim.now() - 90_000, sim, folder, collector };
    scene.frames(|_, _| true);
    scene.collector.wait_lines(5 * CONVERSATIONS as usize, SOON);
    scene.rows(|_, like| !like.is_late);
    let Scene { sim, folder, mut collector, .. } = scene;
    assert!(collector.term().success());
    // Five rows and five records of each: but one row has no record, and one record no row.
    let (status, report) = audit(&sim, &folder, &[]);
    assert_eq!((status, &report["complete"]), (Some(1), &Value::Bool(false)), "{report}");
    assert_eq!(report["missing"].as_array().map(Vec::len), Some(CONVERSATIONS as usize), "{report}");
    let (status, report) = audit(&sim, &folder, &["--repair"]);
    assert_eq!(status, Some(0), "{report}");
    assert_eq!(records::read(&folder.join("events.jsonl")).len(), 6 * CONVERSATIONS as usize);
}

#[test]
fn a_restart_at_any_instant_gives_the_same_file_as_none() {
    let mut scenes: Vec<Scene> = (0..=Scene::STEPS.len()).map(|_| Scene::start()).collect();
    for (at, step) in Scene::STEPS.into_iter().enumerate() {
        for (killed_at, scene) in scenes.iter_mut().enumerate() {
            if killed_at == at {
                scene.restart();
            }
            step(scene);
        }
    }
    let expected = scenes.last().unwrap().times();
    for (killed_at, scene) in scenes.iter().enumerate() {
        scene.assert_six_each();
        assert_eq!(scene.times(), expected, "killed before step {killed_at}");
    }
}

#[test]
fn a_kill_in_the_middle_of_like_events_changes_nothing() {
    at_once([1, 7, 13, 20], |killed_after| {
        let sim = simulator(|_| ());
        let (folder, mut collector) = started("like-kill", &sim, &[]);
        let begin = sim.now() - 150_000;
        for n in 0..24_i64 {
            let event = like("chain").at(begin + n * 5_000);
            let off = [300, -800, 600, -400][n as usize % 4];
            let route = if n % 5 == 3 { Route::HistoryOnly } else { Route::Both };
            sim.issue_by(event.row_at(begin + n * 5_000 + off), route);
            if n == killed_after {
                collector.kill9();
                collector = Collector::start(&sim, &folder, &[]);
            }
        }
        collector.wait_lines(24, LONG);
        settle(&sim, &collector);
        assert_eq!(collector.records().len(), 24, "killed after {killed_after}");
    });
}

#[test]
fn a_row_waits_for_its_frame_while_a_socket_is_open() {
    let sim = simulator(|_| ());
    let (_folder, collector) = started("wait", &sim, &[]);
    let now = sim.now();
    let late = sim.issue_by(like("late frame").at(now - 500).row_at(now), Route::HistoryOnly);
    wait_reads(&sim, &collector, 3);
    sim.send_again([late.number]);
    collector.wait_lines(1, LONG);
    settle(&sim, &collector);
    let records = collector.records();
    assert_eq!(records.len(), 1, "a late frame is no second event");
    assert_eq!(records[0].text("source"), Some("websocket"), "the row waits for it");
}

#[test]
fn a_row_that_waited_for_its_frame_in_vain_is_written() {
    let sim = simulator(|_| ());
    let (_folder, collector) = started("wait-in-vain", &sim, &[]);
    sim.issue_by(like("no frame").at(sim.now()), Route::HistoryOnly);
    collector.wait_lines(1, SOON * 2);
    // Nothing waits where no frame can come.
    sim.faults().fail(Call::Handshake, Action::status(503));
    sim.faults().cut_sockets();
    collector.wait_reason("socket_down", true, LONG);
    sim.issue_by(like("no socket").at(sim.now()), Route::HistoryOnly);
    collector.wait_lines(2, Duration::from_secs(6));
}

#[test]
fn a_frame_that_comes_twice_or_after_its_row_is_one_record() {
    let sim = simulator(|_| ());
    let (_folder, collector) = started("twice", &sim, &[]);
    let begin = sim.now() - 60_000;
    let events: Vec<u32> = (0..10)
        .map(|n| sim.issue_by(like("twice").at(begin + n * 5_000).row_at(begin + n * 5_000 + 700), Route::HistoryOnly))
        .map(|issued| issued.number)
        .collect();
    collector.wait_lines(10, LONG);
    for _ in 0..3 {
        sim.send_again(events.iter().copied());
        let_pass(Duration::from_millis(200));
    }
    wait_reads(&sim, &collector, 4);
    assert_eq!(collector.records().len(), 10);
}
