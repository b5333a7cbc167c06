//! `events` through the real binary: filters, limits, rotations under a follower, redaction, and a pipe that closes.
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use audiohook_collector::clock::{Clock, format_millis};
use audiohook_collector::thread;
use crossbeam_channel::{Receiver, bounded};

/// How long a line may take to be printed.
const SOON: Duration = Duration::from_secs(20);

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("events-test-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("audiohook_events.jsonl")
    }

    fn backup(&self, number: u32) -> PathBuf {
        self.0.join(format!("audiohook_events.jsonl.{number}"))
    }

    /// The binary with no setting but these: no credentials either.
    fn command(&self, arguments: &[&str], settings: &[(&str, &str)]) -> Command {
        let chosen = std::env::var_os("COLLECTOR_BIN").filter(|path| !path.is_empty());
        let mut command = Command::new(chosen.unwrap_or_else(|| env!("CARGO_BIN_EXE_audiohook-collector").into()));
        command.arg("events").args(arguments).current_dir(&self.0).env_clear().envs(settings.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str], settings: &[(&str, &str)]) -> Output {
        self.command(arguments, settings).output().unwrap()
    }

    /// The numbers of the records that are printed.
    fn numbers(&self, arguments: &[&str]) -> Vec<u64> {
        let output = self.run(arguments, &[]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(number).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A record from so many minutes ago.
fn record(n: u64, minutes: i64) -> String {
    let time = format_millis(Clock::system().wall() - minutes * 60_000);
    format!(
        "{{\"timestamp\":\"{time}\",\"event_type\":\"audiohook_operational\",\"event_id\":\"AUDIOHOOK-000{}\",\"event_name\":\"Name {n}\",\"conversation_id\":\"c{}\",\"entity_id\":\"e{}\",\"entity_name\":\"Voice\",\"received_at\":\"{time}\",\"source\":\"websocket\",\"id\":\"{n:032x}\",\"raw_event\":{{\"n\":{n}}}}}\n",
        n % 3,
        n % 5,
        n % 2
    )
}

fn number(line: &str) -> u64 {
    let record: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    record["raw_event"]["n"].as_u64().unwrap()
}

fn append(path: &Path, text: &str) {
    std::fs::File::options().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// Three files of ten records each, one a minute, the newest just now; and the beginning of a line.
fn filled(name: &str) -> Folder {
    let folder = Folder::new(name);
    for (file, first) in [(folder.backup(2), 0), (folder.backup(1), 10), (folder.file(), 20)] {
        (first..first + 10).for_each(|n| append(&file, &record(n, 29 - n as i64)));
    }
    append(&folder.file(), "{\"timestamp\":\"2026-");
    folder
}

#[test]
fn all_records_are_printed_as_they_are_oldest_first() {
    let folder = filled("all");
    assert_eq!(folder.numbers(&[]), (0..30).collect::<Vec<u64>>());
    let whole: Vec<u8> =
        [folder.backup(2), folder.backup(1), folder.file()].iter().flat_map(|p| std::fs::read(p).unwrap()).collect();
    let printed = folder.run(&["--format", "json"], &[]).stdout;
    assert!(whole.starts_with(&printed) && whole.len() < printed.len() + 30, "value for value");
}

#[test]
fn filters_and_limits_go_together() {
    let folder = filled("filters");
    assert_eq!(folder.numbers(&["--limit", "3"]), [27, 28, 29]);
    assert_eq!(folder.numbers(&["--limit", "0"]), [0u64; 0]);
    assert_eq!(folder.numbers(&["--event-id", "AUDIOHOOK-0001", "--limit", "2"]), [25, 28]);
    assert_eq!(folder.numbers(&["--conversation-id", "c4", "--entity-id", "e0"]), [4, 14, 24]);
    // Half a minute from any record's own time.
    let since = format_millis(Clock::system().wall() - 270_000);
    assert_eq!(folder.numbers(&["--since", &since]), [25, 26, 27, 28, 29]);
    assert_eq!(folder.numbers(&["--since", "270s", "--until", "150s"]), [25, 26]);
    assert_eq!(folder.numbers(&["--until", "2020-01-01T00:00:00Z"]), [0u64; 0]);
    let wrong = folder.run(&["--since", "yesterday"], &[]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn a_table_fits_its_width_and_hidden_fields_stay_hidden() {
    let folder = filled("table");
    let table = folder.run(&["--format", "table", "--limit", "2"], &[("COLUMNS", "90")]);
    let text = String::from_utf8(table.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() == 3 && lines[0].starts_with("TIME (UTC)"), "{text}");
    assert!(lines[2].contains("AUDIOHOOK-0002") && lines[2].contains("Voice"), "{text}");
    assert!(lines.iter().all(|line| line.chars().count() <= 90), "{text}");
    let hidden = folder.run(&["--limit", "1"], &[("REDACT_FIELDS", "entity_name,n")]);
    let text = String::from_utf8(hidden.stdout).unwrap();
    assert!(!text.contains("Voice") && text.contains("\"n\":\"[redacted]\""), "{text}");
}

#[test]
fn a_missing_file_is_an_error_and_a_closed_pipe_is_none() {
    let folder = Folder::new("absent");
    let output = folder.run(&[], &[]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && error.contains("OUTPUT_FILE"), "{error}");
    let folder = filled("pipe");
    (0..20_000).for_each(|n| append(&folder.file(), &record(n, 0)));
    let mut child = folder.command(&[], &[]).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait_with_output().unwrap().status.success());
}

/// A follower; its lines come over a channel.
struct Follower {
    child: Child,
    lines: Receiver<u64>,
}

impl Follower {
    fn start(folder: &Folder, arguments: &[&str]) -> Self {
        let mut child = folder.command(arguments, &[]).spawn().unwrap();
        let output = child.stdout.take().unwrap();
        let (found, lines) = bounded(1000);
        thread::spawn("lines", move || {
            BufReader::new(output).lines().map_while(Result::ok).for_each(|line| found.send(number(&line)).unwrap());
        })
        .unwrap();
        Self { child, lines }
    }

    fn expect(&self, numbers: std::ops::Range<u64>) {
        for n in numbers {
            assert_eq!(self.lines.recv_timeout(SOON), Ok(n));
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_follower_sees_every_record_once_across_rotations() {
    let folder = filled("follow");
    std::fs::remove_file(folder.file()).unwrap();
    let follower = Follower::start(&folder, &["--follow", "--limit", "2"]);
    follower.expect(18..20);
    append(&folder.file(), &record(20, 0));
    follower.expect(20..21);
    // Half a line, its rest, and three rotations between two looks.
    let line = record(21, 0);
    append(&folder.file(), &line[..50]);
    append(&folder.file(), &line[50..]);
    for n in 22..30 {
        append(&folder.file(), &record(n, 0));
        if n % 3 == 0 {
            for number in (1..8).rev() {
                let _ = std::fs::rename(folder.backup(number), folder.backup(number + 1));
            }
            std::fs::rename(folder.file(), folder.backup(1)).unwrap();
        }
    }
    append(&folder.file(), &record(30, 0));
    follower.expect(21..31);
    // Cut in place, as copytruncate does.
    (31..40).for_each(|n| append(&folder.file(), &record(n, 0)));
    follower.expect(31..40);
    std::fs::write(folder.file(), record(40, 0)).unwrap();
    follower.expect(40..41);
}
