//! What the disk does: it fills up, refuses to sync, and the process dies between two writes.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;

use crate::support::collector::settings;
use crate::support::{Collector, Folder, assert_same_set_within, let_pass, poll};
use crate::{LONG, assert_all_stand_once, issue, simulator, wait_for_all};

#[test]
fn fifty_kills_at_random_instants_lose_nothing_and_double_nothing() {
    let (sim, folder) = (simulator(|k| k.history_jitter_ms = 900), Folder::new("kills"));
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut draw = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let many = [("MAX_FILE_SIZE", "100KB"), ("BACKUP_COUNT", "500"), ("CATCH_UP_RATE", "100000")];
    for round in 0..50 {
        let mut collector = Collector::start(&sim, &folder, &many);
        let until = Instant::now() + Duration::from_millis(draw(if round % 5 == 0 { 2500 } else { 700 }));
        while Instant::now() < until {
            issue(&sim, draw(20) as u32);
            let_pass(Duration::from_millis(1 + draw(30)));
        }
        collector.kill9();
        issue(&sim, draw(5) as u32);
    }
    let collector = Collector::start(&sim, &folder, &many);
    wait_for_all(&sim, &collector);
    assert_same_set_within(&sim.issued(), &collector.records(), 900);
    let made = sim.view(|view| view.channels_made());
    assert!(made <= 3, "{made} channels were made by 51 starts");
}

#[test]
fn a_full_disk_throws_nothing_away_and_leaves_no_torn_line() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("full"));
    let mut collector = Collector::start(&sim, &folder, &[("MAX_FILE_SIZE", "1GB")]);
    collector.wait_healthy();
    issue(&sim, 20);
    collector.wait_lines(20, LONG);
    // A limit on the size of files stands for a disk that is full.
    let len = std::fs::metadata(collector.output_file()).unwrap().len();
    limit_files(&collector, Some(len + 1500));
    let since = Instant::now();
    issue(&sim, 400);
    let raised = collector.wait_reason("disk_write_failed", true, Duration::from_secs(10));
    assert!(raised < Duration::from_secs(10) && since.elapsed() < Duration::from_secs(12));
    assert_eq!(collector.get("/health").unwrap().0, 503);
    let text = std::fs::read_to_string(collector.output_file()).unwrap();
    assert!(text.ends_with('\n') && text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    assert!(text.lines().count() > 20, "what fits whole is written");
    limit_files(&collector, None);
    collector.wait_healthy();
    assert_all_stand_once(&sim, &collector);
    assert!(collector.term().success());
}

fn limit_files(collector: &Collector, bytes: Option<u64>) {
    let pid = Pid::from_raw(collector.pid() as i32);
    prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

#[test]
fn a_state_that_cannot_be_kept_is_said_and_events_go_on() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("stateless"));
    let (there, away) = (folder.join("state"), folder.join("away"));
    std::fs::create_dir(&there).unwrap();
    let state = there.join("events.state").display().to_string();
    let collector = Collector::start(&sim, &folder, &[("STATE_FILE", &state)]);
    collector.wait_healthy();
    std::fs::rename(&there, &away).unwrap();
    collector.wait_reason("disk_write_failed", true, Duration::from_secs(10));
    issue(&sim, 20);
    collector.wait_lines(20, LONG);
    let health = collector.health().unwrap();
    assert!(health["reasons"].to_string().contains("STATE_FILE"), "writing events does not end it: {health}");
    std::fs::rename(&away, &there).unwrap();
    collector.wait_healthy();
    assert_all_stand_once(&sim, &collector);
}

/// A library whose `fdatasync` fails, as that of a disk with bad sectors does, while a file of this name is there.
const FAILING_SYNC: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
int fdatasync(int fd) {
    if (access(getenv("SYNC_FAILS"), F_OK) == 0) {
        errno = EIO;
        return -1;
    }
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    return real(fd);
}
"#;

#[test]
fn a_sync_that_fails_is_told_and_what_it_was_for_is_synced_before_the_checkpoint_moves() {
    let (sim, folder) = (simulator(|_| ()), Folder::new("sync"));
    let (source, library) = (folder.write("sync.c", FAILING_SYNC), folder.join("sync.so"));
    let mut compiler = std::process::Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl");
    assert!(compiler.status().unwrap().success());
    let fails = folder.join("fails");
    let mut all = settings(&sim, &folder);
    all.insert("LD_PRELOAD".into(), library.display().to_string());
    all.insert("SYNC_FAILS".into(), fails.display().to_string());
    all.insert("MAX_FILE_SIZE".into(), "20000".into());
    all.insert("BACKUP_COUNT".into(), "50".into());
    let mut collector = Collector::start_with(folder.path(), &all);
    collector.wait_healthy();
    issue(&sim, 5);
    collector.wait_lines(5, LONG);
    std::fs::write(&fails, "").unwrap();
    issue(&sim, 30);
    collector.wait_reason("disk_write_failed", true, Duration::from_secs(10));
    let health = collector.health().unwrap();
    assert!(health["reasons"].to_string().contains("cannot sync"), "{health}");
    let checkpoint = health["stats"]["history_checkpoint"].clone();
    issue(&sim, 30);
    let_pass(Duration::from_secs(2));
    assert_eq!(collector.health().unwrap()["stats"]["history_checkpoint"], checkpoint, "nothing is durable");
    assert!(collector.runs());
    std::fs::remove_file(&fails).unwrap();
    collector.wait_reason("disk_write_failed", false, Duration::from_secs(10));
    assert_all_stand_once(&sim, &collector);
    assert!(collector.term().success());
}

#[test]
fn a_fifo_in_the_place_of_a_file_beside_the_events_blocks_nothing() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let (sim, folder) = (simulator(|_| ()), Folder::new("fifos"));
    for suffix in [".unreadable", ".1"] {
        let path = folder.join(&format!("events.jsonl{suffix}"));
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    }
    let mut collector = Collector::start(&sim, &folder, &[]);
    collector.wait_healthy();
    issue(&sim, 3);
    sim.faults().send_text("{\"topicName\":\"v2.operations.events.AUDIOHOOK-0001\",\"eventBo");
    collector.wait_reason("unreadable_frames", true, LONG);
    issue(&sim, 3);
    let written = || collector.metric("audiohook_collector_events_written_total").filter(|count| *count == 6.0);
    assert!(poll(LONG, written).is_some(), "{}", collector.log_text());
    // Nothing is cut, renamed or replaced, and nobody hangs on it.
    for suffix in [".unreadable", ".1"] {
        let there = std::fs::symlink_metadata(folder.join(&format!("events.jsonl{suffix}"))).unwrap();
        assert!(std::os::unix::fs::FileTypeExt::is_fifo(&there.file_type()), "{suffix}");
    }
    assert!(collector.term().success());
}
