//! The output file through the real binary: rotated by size, moved, cut or deleted by others, shared with nobody.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::collector::{binary, on_socket, settings};
use crate::support::{Collector, Folder, SOON, free_port, let_pass, poll};
use audiohook_collector::simulator::{Event, Knobs, Options, Simulator};
use rustix::process::Signal;

fn simulator() -> Simulator {
    let knobs = Knobs { requests_per_minute: None, ..Knobs::default() };
    Simulator::start(Options { knobs, ..Options::default() }).unwrap()
}

fn issue(sim: &Simulator, count: u32) {
    for _ in 0..count {
        sim.issue(Event::numbered("AUDIOHOOK-0001"));
    }
}

/// The numbers of the events in a file, in their order; every line must be a whole record.
fn numbers(path: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "{} ends within a line", path.display());
    text.lines().map(|line| number(line).unwrap_or_else(|| panic!("no record: {line:?}"))).collect()
}

fn number(line: &str) -> Option<u32> {
    let record: serde_json::Value = serde_json::from_str(line).ok()?;
    record["current_value"].as_str()?.strip_prefix("event ")?.parse().ok()
}

fn backup(path: &Path, n: u32) -> PathBuf {
    PathBuf::from(format!("{}.{n}", path.display()))
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Waits until the file holds this many events.
fn wait_numbers(collector: &Collector, path: &Path, count: usize) -> Vec<u32> {
    let lines = || std::fs::read(path).map_or(0, |bytes| bytes.iter().filter(|byte| **byte == b'\n').count());
    let enough = poll(SOON, || (lines() >= count).then_some(()));
    assert!(enough.is_some(), "{} of {count} in {}\n{}", lines(), path.display(), collector.log_text());
    numbers(path)
}

#[test]
fn it_is_rotated_by_size_with_no_line_lost_split_or_out_of_order() {
    let (sim, folder, collector) = on_socket("rotate", &[("MAX_FILE_SIZE", "5000"), ("BACKUP_COUNT", "200")]);
    let path = folder.join("events.jsonl");
    for _ in 0..8 {
        issue(&sim, 50);
        let_pass(Duration::from_millis(20));
    }
    collector.wait_lines(400, SOON);
    let last = (1..).take_while(|n| backup(&path, *n).exists()).last().unwrap();
    let mut found = Vec::new();
    for n in (1..=last).rev() {
        let size = std::fs::metadata(backup(&path, n)).unwrap().len();
        assert!((3_500..=5_000).contains(&size), ".{n} has {size} bytes");
        assert_eq!(mode(&backup(&path, n)), 0o640);
        found.extend(numbers(&backup(&path, n)));
    }
    assert!(std::fs::metadata(&path).unwrap().len() <= 5_000);
    found.extend(numbers(&path));
    assert_eq!(found, (1..=400).collect::<Vec<u32>>());
}

#[test]
fn only_backup_count_files_are_kept_and_the_newest_is_number_one() {
    let (sim, folder, collector) = on_socket("count", &[("MAX_FILE_SIZE", "4KB"), ("BACKUP_COUNT", "2")]);
    let path = folder.join("events.jsonl");
    // A line that is larger than a whole file has one of its own.
    let large = Event { current_value: Some("x".repeat(6_000)), ..Event::numbered("AUDIOHOOK-0001") };
    issue(&sim, 100);
    sim.issue(large);
    issue(&sim, 1);
    assert!(
        poll(SOON, || (numbers_or_none(&path) == vec![Some(102)]).then_some(())).is_some(),
        "{}",
        collector.log_text()
    );
    assert_eq!(numbers_or_none(&backup(&path, 1)), [None], "the large one alone");
    assert_eq!(numbers(&backup(&path, 2)).last(), Some(&100));
    assert!(!backup(&path, 3).exists());
    let (sim, folder, collector) = on_socket("count-zero", &[("MAX_FILE_SIZE", "1KB"), ("BACKUP_COUNT", "0")]);
    let path = folder.join("events.jsonl");
    issue(&sim, 100);
    assert_eq!(wait_numbers(&collector, &path, 100), (1..=100).collect::<Vec<u32>>());
    assert!(!backup(&path, 1).exists(), "left to logrotate");
}

fn numbers_or_none(path: &Path) -> Vec<Option<u32>> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(number).collect()
}

#[test]
fn a_file_that_is_moved_is_followed_by_a_new_one_within_a_second() {
    let (sim, folder, collector) = on_socket("moved", &[("BACKUP_COUNT", "0")]);
    let (path, old) = (folder.join("events.jsonl"), folder.join("events.old"));
    issue(&sim, 10);
    collector.wait_lines(10, SOON);
    std::fs::rename(&path, &old).unwrap();
    let since = Instant::now();
    // In that second it may still write to the one that was moved: nothing is lost.
    issue(&sim, 10);
    assert!(poll(SOON, || path.exists().then_some(())).is_some());
    assert!(since.elapsed() < Duration::from_millis(1_500), "{:?}", since.elapsed());
    issue(&sim, 10);
    assert!(poll(SOON, || (numbers(&old).len() + numbers(&path).len() == 30).then_some(())).is_some());
    let mut found = numbers(&old);
    found.extend(numbers(&path));
    assert_eq!(found, (1..=30).collect::<Vec<u32>>());
    assert_eq!(numbers(&path).last(), Some(&30));
    assert_eq!(mode(&path), 0o640);
    // SIGHUP: at once.
    std::fs::rename(&path, folder.join("events.older")).unwrap();
    collector.signal(Signal::HUP);
    let since = Instant::now();
    assert!(poll(SOON, || path.exists().then_some(())).is_some());
    assert!(since.elapsed() < Duration::from_millis(500), "{:?}", since.elapsed());
    collector.wait_healthy();
}

#[test]
fn a_file_that_is_cut_goes_on_from_its_new_end() {
    let (sim, folder, collector) = on_socket("cut", &[("MAX_FILE_SIZE", "30KB")]);
    let path = folder.join("events.jsonl");
    issue(&sim, 20);
    collector.wait_lines(20, SOON);
    // As logrotate does with copytruncate.
    std::fs::copy(&path, folder.join("copy")).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    issue(&sim, 5);
    assert_eq!(wait_numbers(&collector, &path, 5), (21..=25).collect::<Vec<u32>>());
    assert_eq!(numbers(&folder.join("copy")), (1..=20).collect::<Vec<u32>>());
    // What counts against MAX_FILE_SIZE is what is in the file now.
    let_pass(Duration::from_millis(1_200));
    issue(&sim, 10);
    assert_eq!(wait_numbers(&collector, &path, 15).len(), 15);
    assert!(!backup(&path, 1).exists());
}

#[test]
fn a_file_that_is_deleted_loses_only_what_was_deleted() {
    let (sim, folder, collector) = on_socket("deleted", &[]);
    let path = folder.join("events.jsonl");
    issue(&sim, 10);
    collector.wait_lines(10, SOON);
    let_pass(Duration::from_millis(1_200));
    std::fs::remove_file(&path).unwrap();
    let since = Instant::now();
    issue(&sim, 10);
    assert!(poll(SOON, || path.exists().then_some(())).is_some());
    assert!(since.elapsed() < Duration::from_millis(1_500), "{:?}", since.elapsed());
    issue(&sim, 10);
    assert_eq!(wait_numbers(&collector, &path, 20), (11..=30).collect::<Vec<u32>>());
}

#[test]
fn a_folder_that_vanishes_is_told_and_nothing_is_lost_when_it_is_back() {
    let sim = simulator();
    let folder = Folder::new("vanish");
    let (data, away) = (folder.join("data"), folder.join("away"));
    let file = data.join("events.jsonl").display().to_string();
    let collector =
        Collector::start(&sim, &folder, &[("OUTPUT_FILE", file.as_str()), ("GENESYS_DELIVERY", "websocket")]);
    collector.wait_healthy();
    issue(&sim, 10);
    wait_numbers(&collector, &data.join("events.jsonl"), 10);
    std::fs::rename(&data, &away).unwrap();
    let raised = collector.wait_reason("disk_write_failed", true, SOON);
    assert!(raised < SOON);
    assert_eq!(collector.get("/health").unwrap().0, 503);
    issue(&sim, 10);
    let_pass(Duration::from_millis(300));
    std::fs::rename(&away, &data).unwrap();
    collector.wait_reason("disk_write_failed", false, SOON);
    assert_eq!(wait_numbers(&collector, &data.join("events.jsonl"), 20), (1..=20).collect::<Vec<u32>>());
    collector.wait_healthy();
    // Deleted with all that it held, and made anew.
    std::fs::remove_dir_all(&data).unwrap();
    collector.wait_reason("disk_write_failed", true, SOON);
    issue(&sim, 10);
    let_pass(Duration::from_millis(300));
    std::fs::create_dir(&data).unwrap();
    collector.wait_reason("disk_write_failed", false, SOON);
    let found = wait_numbers(&collector, &data.join("events.jsonl"), 10);
    assert_eq!(found[found.len() - 10..], (21..=30).collect::<Vec<u32>>()[..]);
}

#[test]
fn a_second_collector_on_the_file_is_refused_with_the_firsts_process_id() {
    let (sim, folder, collector) = on_socket("second", &[]);
    let mut same = settings(&sim, &folder);
    same.insert("HTTP_PORT".into(), collector.port().to_string());
    let refused = |all: &std::collections::BTreeMap<String, String>| {
        let output = binary(folder.path(), &[], all).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&collector.pid().to_string()) && said.contains("OUTPUT_FILE"), "{said}");
    };
    // With the same settings, hence the same port, with a port of its own, and with a lock that someone deleted.
    refused(&same);
    same.insert("HTTP_PORT".into(), free_port().to_string());
    refused(&same);
    same.insert("CONSOLE_OUTPUT".into(), "false".into());
    refused(&same);
    std::fs::remove_file(folder.join("events.jsonl.lock")).unwrap();
    assert!(poll(SOON, || folder.join("events.jsonl.lock").exists().then_some(())).is_some());
    refused(&same);
    issue(&sim, 3);
    collector.wait_lines(3, SOON);
}

#[test]
fn a_second_collector_that_knows_the_file_by_a_link_is_refused_too() {
    let (sim, folder, collector) = on_socket("linked", &[]);
    issue(&sim, 1);
    collector.wait_lines(1, SOON);
    std::fs::hard_link(folder.join("events.jsonl"), folder.join("hard.jsonl")).unwrap();
    std::os::unix::fs::symlink(folder.join("events.jsonl"), folder.join("soft.jsonl")).unwrap();
    for link in ["hard.jsonl", "soft.jsonl"] {
        let mut other = settings(&sim, &folder);
        other.insert("OUTPUT_FILE".into(), folder.join(link).display().to_string());
        other.insert("HTTP_PORT".into(), free_port().to_string());
        let run = |arguments: &[&str]| {
            let output = binary(folder.path(), arguments, &other).output().unwrap();
            let said =
                format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            (output.status.code(), said)
        };
        let (status, said) = run(&[]);
        // A symbolic link is followed to the file itself.
        let named = if link == "soft.jsonl" { "events.jsonl" } else { link };
        assert!(status == Some(1) && said.contains("OUTPUT_FILE") && said.contains(named), "{status:?} {said}");
        let (_, checked) = run(&["check"]);
        assert!(checked.contains("a collector is running on this file"), "{checked}");
    }
    issue(&sim, 3);
    collector.wait_lines(4, SOON);
}

#[test]
fn new_files_are_for_the_owner_and_the_group_and_the_state_for_the_owner_alone() {
    let (sim, folder, mut collector) = on_socket("modes", &[]);
    issue(&sim, 1);
    sim.faults().send_text("nonsense");
    collector.wait_lines(1, SOON);
    let aside = folder.join("events.jsonl.unreadable");
    assert!(poll(SOON, || aside.exists().then_some(())).is_some());
    assert!(collector.term().success());
    assert_eq!((mode(&folder.join("events.jsonl")), mode(&aside)), (0o640, 0o640));
    assert_eq!(mode(&folder.join("events.jsonl.state")), 0o600);
    // A state that others could read is theirs no longer once it is written anew.
    let state = folder.join("events.jsonl.state");
    std::fs::set_permissions(&state, PermissionsExt::from_mode(0o644)).unwrap();
    let collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    assert!(poll(SOON, || (mode(&state) == 0o600).then_some(())).is_some());
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path) & 0o007, 0, "{} is for everybody", path.display());
    }
}

#[test]
fn a_folder_that_cannot_be_written_stops_the_start_and_names_the_setting() {
    let (sim, folder) = (simulator(), Folder::new("refused"));
    folder.write("plain", "");
    for file in ["plain/events.jsonl", "/proc/events.jsonl"] {
        let mut all = settings(&sim, &folder);
        all.insert("OUTPUT_FILE".into(), file.into());
        let output = binary(folder.path(), &[], &all).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{:?} {said}", output.status);
        assert!(said.contains("OUTPUT_FILE"), "{said}");
    }
    let mut all = settings(&sim, &folder);
    all.insert("STATE_FILE".into(), "/proc/state".into());
    let output = binary(folder.path(), &[], &all).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("STATE_FILE"), "{said}");
}

#[test]
fn what_others_left_in_the_file_is_neither_touched_nor_in_the_way() {
    let (sim, folder) = (simulator(), Folder::new("others"));
    let others = b"not JSON\n\n\x00\x01\xff\n{\"timestamp\":5}\n[1,2]\n{\"id\":\"x\",\"raw_event\":7}\r\n";
    let mut content = others.to_vec();
    // Torn in the middle of a line that is longer than any record.
    content.extend(std::iter::repeat_n(b'y', 9_000_000));
    folder.write("events.jsonl", &content);
    let collector = Collector::start(&sim, &folder, &[("MAX_FILE_SIZE", "1GB")]);
    collector.wait_healthy();
    issue(&sim, 3);
    let text = || std::fs::read(folder.join("events.jsonl")).unwrap();
    assert!(poll(SOON, || (text().iter().filter(|b| **b == b'\n').count() == 9).then_some(())).is_some());
    let text = text();
    assert_eq!(&text[..others.len()], others);
    let ours = String::from_utf8(text[others.len()..].to_vec()).unwrap();
    assert_eq!(ours.lines().map(number).collect::<Vec<_>>(), [Some(1), Some(2), Some(3)]);
    let aside = std::fs::read_to_string(folder.join("events.jsonl.unreadable")).unwrap();
    assert!(aside.lines().count() == 1 && aside.contains("torn"));
}

#[test]
fn a_size_that_no_line_fits_gives_each_its_own_file() {
    let (sim, folder, collector) = on_socket("tiny", &[("MAX_FILE_SIZE", "1"), ("BACKUP_COUNT", "30")]);
    issue(&sim, 20);
    collector.wait_lines(20, SOON);
    let path = folder.join("events.jsonl");
    assert_eq!(numbers(&path), [20]);
    for n in 1..20 {
        assert_eq!(numbers(&backup(&path, n)), [20 - n]);
    }
}
