//! Audits against the simulated service.

use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::config::Need;
use crate::genesys::topics;
use crate::message::Definition;
use crate::net::Dialer;
use crate::records::{self, Held};
use crate::simulator::{Event as Issue, Options, Route, Simulator};
use crate::writer;

const HOUR_MS: i64 = 3_600_000;
/// Events of one second and what is near it: a piece cannot be cut any shorter.
const ONE_SECOND_MAX: usize = 1_000;

struct Scene {
    sim: Simulator,
    folder: PathBuf,
    config: Config,
    clock: Clock,
    api: Api,
}

impl Scene {
    fn new(name: &str, changed: &[(&str, &str)]) -> Self {
        let sim = Simulator::start(Options::default()).unwrap();
        sim.faults().set(|knobs| knobs.requests_per_minute = None);
        let folder = std::env::temp_dir().join(format!("audiohook-audit-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let settings = folder.join("empty.env");
        std::fs::write(&settings, "").unwrap();
        let client = Options::default().clients.remove(0);
        let output = folder.join("events.jsonl").display().to_string();
        let url = sim.url();
        let mut values = vec![
            ("GENESYS_ENV", "mypurecloud.com"),
            ("GENESYS_CLIENT_ID", &client.id),
            ("GENESYS_CLIENT_SECRET", &client.secret),
            ("GENESYS_LOGIN_URL", &url),
            ("GENESYS_API_URL", &url),
            ("OUTPUT_FILE", &output),
            ("CATCH_UP_RATE", "1000000"),
        ];
        values.extend_from_slice(changed);
        let environment = values.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let config = Config::load(Need::Credentials, &environment, Some(&settings)).unwrap();
        let clock = Clock::system();
        let api = Api::new(&config.genesys, Arc::new(Dialer::new(&config.network).unwrap()), clock.clone());
        Self { sim, folder, config, clock, api }
    }

    fn ids() -> Vec<String> {
        ["AUDIOHOOK-0001", "AUDIOHOOK-0002"].map(str::to_owned).to_vec()
    }

    /// An audit from beginning to end, with at most so many records in a piece; what is missing is appended.
    fn audit(&mut self, from: Millis, to: Millis, records_max: usize) -> Report {
        let history = History::new(self.api.api_url(), self.config.catch_up.rate);
        let mut audit = Audit::new(&self.config, history, Self::ids(), &topics::built_in(), (from, to));
        audit.records_max = records_max;
        let mut steps = 0;
        loop {
            steps += 1;
            assert!(steps < 20_000, "it does not come to its end");
            let kept = audit.piece.as_ref().map_or(0, |piece| match &piece.stage {
                Stage::Compare(rows) => piece.records.len().max(rows.len()),
                Stage::Fetch(rows) => rows.len(),
            });
            assert!(kept <= CROWDED * records_max + ONE_SECOND_MAX, "{kept} are kept");
            match audit.step(&mut self.api, &self.clock, &|| ()).unwrap() {
                Step::Done(report) => return report,
                Step::More | Step::Wait(_) => {}
                Step::Missing(rows) => {
                    writer::repair(&self.config, &[] as &[Definition], &rows).unwrap();
                }
            }
        }
    }

    fn file(&self) -> String {
        std::fs::read_to_string(&self.config.output.file).unwrap_or_default()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn event(definition: &str) -> Issue {
    Issue::numbered(definition)
}

#[test]
fn an_hour_with_more_events_than_fit_is_compared_in_pieces_and_nothing_is_appended_twice() {
    let mut scene = Scene::new("pieces", &[]);
    let from = scene.sim.now() - 3 * HOUR_MS;
    // Some all the time, and many within one second.
    let mut times: Vec<Millis> = (0..600).map(|n| from + n * 6_000).collect();
    times.extend((0..900).map(|n| from + 1_800_001 + n));
    scene.sim.issue_many(event("AUDIOHOOK-0001"), &times, Route::HistoryOnly);
    let report = scene.audit(from, from + HOUR_MS, 50);
    assert_eq!((report.missing_count, report.complete), (1500, false));
    assert_eq!(scene.file().lines().count(), 1500);
    let report = scene.audit(from, from + HOUR_MS, 50);
    assert!(report.complete && report.extra_count == 0, "{} extra", report.extra_count);
    assert_eq!((report.definitions[0].genesys, report.definitions[0].file), (1500, 1500));
    let kept: Vec<String> =
        scene.file().lines().filter(|line| !line.contains("00\",\"source")).map(str::to_owned).collect();
    let kept: Vec<String> =
        kept.into_iter().enumerate().filter(|(n, _)| ![700, 900].contains(n)).map(|(_, l)| l).collect();
    std::fs::write(&scene.config.output.file, kept.join("\n") + "\n").unwrap();
    let lost = 1500 - kept.len();
    let report = scene.audit(from, from + HOUR_MS, 50);
    assert_eq!((report.missing_count, report.extra_count), (lost as u64, 0));
    assert!(scene.audit(from, from + HOUR_MS, 50).complete);
    assert_eq!(scene.file().lines().count(), 1500);
}

#[test]
fn where_there_are_too_many_lines_only_the_newest_minutes_are_compared() {
    let mut scene = Scene::new("lines", &[]);
    let from = scene.sim.now() - 3 * HOUR_MS;
    let times: Vec<Millis> = (0..600).map(|n| from + n * 6_000).collect();
    scene.sim.issue_many(event("AUDIOHOOK-0001"), &times, Route::HistoryOnly);
    assert_eq!(scene.audit(from, from + HOUR_MS, 50).missing_count, 600);
    let history = History::new(scene.api.api_url(), scene.config.catch_up.rate);
    let interval = (from, from + HOUR_MS);
    let mut audit = Audit::new(&scene.config, history, Scene::ids(), &topics::built_in(), interval).within(100);
    let report = loop {
        if let Step::Done(report) = audit.step(&mut scene.api, &scene.clock, &|| ()).unwrap() {
            break report;
        }
    };
    assert!(report.complete && report.begins_later);
    // A hundred lines are ten minutes; the minute where they end may be looked at in part, and the next is spared too.
    let minutes = (from + HOUR_MS - crate::clock::parse_instant(&report.from).unwrap()) / 60_000;
    assert!((8..=9).contains(&minutes), "{minutes}");
    assert_eq!(report.definitions[0].file, report.definitions[0].genesys);
    assert!((80..=90).contains(&report.definitions[0].file));
}

#[test]
fn a_line_that_stands_there_twice_is_extra_and_hides_no_missing_event() {
    let mut scene = Scene::new("twice", &[]);
    let from = scene.sim.now() - 2 * HOUR_MS;
    let times: Vec<Millis> = (0..10).map(|n| from + 1000 + n * 6_000).collect();
    scene.sim.issue_many(event("AUDIOHOOK-0001"), &times, Route::HistoryOnly);
    scene.audit(from, from + HOUR_MS, 50);
    let text = scene.file();
    let mut lines: Vec<&str> = text.lines().collect();
    lines[3] = lines[7];
    std::fs::write(&scene.config.output.file, lines.join("\n") + "\n").unwrap();
    let report = scene.audit(from, from + HOUR_MS, 50);
    assert_eq!((report.missing.len(), report.extra.len()), (1, 1), "{report:?}");
    assert!(lines[7].contains(&report.extra[0].id) && text.lines().nth(3).unwrap().contains(&report.missing[0].id));
    let report = scene.audit(from, from + HOUR_MS, 50);
    assert_eq!((report.complete, report.extra_count, report.definitions[0].file), (true, 1, 10));
}

#[test]
fn late_events_without_a_time_of_their_own_have_their_rows_wherever_pieces_end() {
    let mut scene = Scene::new("late", &[]);
    let from = scene.sim.now() - 3 * HOUR_MS;
    let mut lines = String::new();
    for n in 0..120_i64 {
        let time = from + n * 29_000;
        let plain = Issue {
            definition: "AUDIOHOOK-0001".into(),
            entity_id: Some("e".into()),
            conversation_id: Some(format!("c-{}", n % 7)),
            ..Issue::default()
        };
        scene.sim.issue_by(plain.at(time), Route::HistoryOnly);
        let receipt = format_millis(time + n * 997 % 119_000).replace('Z', "456+00:00");
        lines.push_str(&format!(
            "{{\"timestamp\":\"{receipt}\",\"event_type\":\"audiohook_operational\",\"event_id\":\"AUDIOHOOK-0001\",\"raw_event\":{{\"eventEntity\":{{\"id\":\"AUDIOHOOK-0001\"}},\"entityId\":\"e\",\"conversationId\":\"c-{}\"}}}}\n",
            n % 7
        ));
    }
    std::fs::write(&scene.config.output.file, &lines).unwrap();
    for records_max in [10, 50, 1_000] {
        let report = scene.audit(from - 1000, from + HOUR_MS, records_max);
        assert!(report.complete && report.extra_count == 0, "{records_max}: {report:?}");
    }
    assert_eq!(scene.file(), lines);
}

#[test]
fn a_repair_keeps_a_torn_line_aside_and_rotates() {
    let mut scene = Scene::new("torn", &[("MAX_FILE_SIZE", "4000")]);
    let from = scene.sim.now() - 2 * HOUR_MS;
    let times: Vec<Millis> = (0..20).map(|n| from + 1000 + n * 6_000).collect();
    scene.sim.issue_many(event("AUDIOHOOK-0001"), &times, Route::HistoryOnly);
    std::fs::write(&scene.config.output.file, "{\"timestamp\":\"2026-11-2").unwrap();
    scene.audit(from, from + HOUR_MS, 50);
    let aside = std::fs::read_to_string(scene.folder.join("events.jsonl.unreadable")).unwrap();
    assert!(aside.contains("torn") && aside.contains("2026-11-2"), "{aside}");
    let files = records::files(&scene.config.output.file);
    assert!(files.len() > 2 && files.iter().all(|file| std::fs::metadata(file).unwrap().len() <= 4000));
    assert!(scene.audit(from, from + HOUR_MS, 50).complete);
}

#[test]
fn what_somebody_elses_rotation_took_away_is_not_missing() {
    let mut scene = Scene::new("logrotate", &[("BACKUP_COUNT", "0")]);
    let from = scene.sim.now() - 2 * HOUR_MS;
    let times: Vec<Millis> = (0..20).map(|n| from + 1000 + n * 6_000).collect();
    scene.sim.issue_many(event("AUDIOHOOK-0001"), &times, Route::HistoryOnly);
    assert_eq!(Held::of(&scene.config.output), Held::Nothing, "an empty file tells nothing");
    std::fs::write(&scene.config.output.file, "").unwrap();
    let report = scene.audit(from, from + HOUR_MS, 50);
    assert!(report.complete && scene.file().is_empty());
    assert_eq!(report.from, report.to, "nothing was compared");
}

#[test]
fn counts_that_are_refused_for_a_long_interval_are_asked_for_in_parts() {
    let mut audit_from = 0;
    let mut scene = Scene::new("counts", &[]);
    scene.sim.faults().fail_next(crate::simulator::Call::Counts, crate::simulator::Action::status(400), 3);
    audit_from += scene.sim.now() - 2 * HOUR_MS;
    scene.sim.issue_many(event("AUDIOHOOK-0002"), &[audit_from + 1, audit_from + HOUR_MS - 1], Route::HistoryOnly);
    let report = scene.audit(audit_from, audit_from + HOUR_MS, 50);
    assert_eq!((report.missing_count, report.definitions[1].genesys), (2, 2));
}
