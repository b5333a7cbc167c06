//! What the cluster tests share: a folder with an output file, and an indexer that is woken as the writer wakes it.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

pub mod engine;
pub mod fake;
pub mod saved_objects;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use audiohook_collector::clock::Clock;
use audiohook_collector::config::{Elastic, Network, Output};
use audiohook_collector::elastic::{Indexer, IndexerHandle, Progress, replay_to};
use audiohook_collector::output::backups;
use audiohook_collector::secret::Secret;
use audiohook_collector::status::{Code, Status};
use crossbeam_channel::after;

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long an indexer may take to end.
const END_WITHIN: Duration = Duration::from_secs(10);

/// A writer without events: the file, its rotation, and the indexer.
pub struct Rig {
    pub folder: PathBuf,
    pub output: Output,
    pub elastic: Elastic,
    pub status: Arc<Status>,
    pub cursor: Option<Progress>,
    indexer: Option<IndexerHandle>,
    file: File,
    bytes: u64,
}

impl Rig {
    /// An empty folder of this name, and settings that a test may change before [`Rig::start`].
    pub fn new(name: &str, urls: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("cluster-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("events.jsonl");
        Self {
            output: Output {
                state_file: folder.join("events.jsonl.state"),
                file: path.clone(),
                max_file_size: 10 * 1024 * 1024,
                backup_count: 5,
                redact_fields: Vec::new(),
            },
            elastic: Elastic {
                urls: urls.iter().map(|url| (*url).to_owned()).collect(),
                authorization: None,
                index: "genesys-audiohook".to_owned(),
                bulk_size: 50,
                flush_interval: Duration::from_millis(100),
                ca_file: None,
                setup: true,
                retention: None,
                backlog_max: 1 << 30,
            },
            status: Arc::new(Status::new(Clock::system(), true)),
            cursor: None,
            indexer: None,
            file: open(&path),
            bytes: 0,
            folder,
        }
    }

    pub fn with_login(mut self, authorization: &str) -> Self {
        self.elastic.authorization = Some(Secret::new(authorization));
        self
    }

    /// Starts the indexer at the cursor that was kept last.
    pub fn start(&mut self) {
        let (status, kept) = (self.status.clone(), (self.cursor, None));
        let network = Network::default();
        let (indexer, _) =
            Indexer::start(&self.elastic, &self.output, &network, kept, status, Clock::system()).unwrap();
        self.indexer = Some(indexer);
    }

    /// Ends the indexer, with the cursor as it was kept: what a kill leaves. What is under way may still go.
    pub fn kill(&mut self) {
        self.keep();
        if let Some(indexer) = self.indexer.take() {
            indexer.finish(END_WITHIN);
        }
    }

    /// Ends it as a stop does.
    pub fn stop(&mut self) {
        if let Some(indexer) = self.indexer.take() {
            self.cursor = indexer.finish(Duration::from_secs(1)).0;
        }
    }

    fn keep(&mut self) {
        if let Some(progress) = self.indexer.as_ref().and_then(IndexerHandle::progress) {
            self.cursor = Some(progress);
        }
    }

    fn wake(&self, lines: u64, bytes: u64) {
        if let Some(indexer) = &self.indexer {
            indexer.wake(lines, bytes);
        }
    }

    /// Appends lines as the writer does, rotating before a line would exceed the size.
    pub fn append(&mut self, lines: &[String]) {
        for line in lines {
            if self.bytes + line.len() as u64 + 1 > self.output.max_file_size && self.output.backup_count > 0 {
                self.rotate();
            }
            self.file.write_all(format!("{line}\n").as_bytes()).unwrap();
            self.bytes += line.len() as u64 + 1;
            self.wake(1, line.len() as u64 + 1);
        }
    }

    /// Appends many lines at once, without a rotation.
    pub fn append_all(&mut self, lines: &[String]) {
        self.file.write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
        self.bytes = self.file.metadata().unwrap().len();
        self.wake(lines.len() as u64, lines.iter().map(|line| line.len() as u64 + 1).sum());
    }

    /// Appends lines that [`Rig::count`] counts later, as a writer does that is slow.
    pub fn append_uncounted(&mut self, lines: &[String]) {
        self.file.write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
    }

    pub fn count(&self, lines: u64) {
        self.wake(lines, 0);
    }

    pub fn rotate(&mut self) {
        self.keep();
        let saved = self.cursor.map(|progress| progress.cursor);
        let (path, count) = (&self.output.file, self.output.backup_count);
        match &self.indexer {
            Some(indexer) => indexer.rotate(saved, |keep| backups::rotate(path, count, Some(keep))).unwrap(),
            None => drop(backups::rotate(path, count, None).unwrap()),
        }
        self.file = open(&self.output.file);
        self.bytes = 0;
        self.wake(0, 0);
    }

    /// What the writer does once it has seen that the file was moved or deleted.
    pub fn begin_anew(&mut self) {
        self.file = open(&self.output.file);
        self.bytes = self.file.metadata().unwrap().len();
        self.wake(0, 0);
    }

    /// What logrotate and the writer do together: the file gets this name, and a new one is begun.
    pub fn begin_anew_after_rename(&mut self, name: &str) {
        fs::rename(&self.output.file, self.folder.join(name)).unwrap();
        self.begin_anew();
    }

    /// Waits until the condition holds; panics when it does not in time.
    pub fn until(&mut self, what: &str, within: Duration, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + within;
        while !holds(self) {
            assert!(Instant::now() < deadline, "not within {within:?}: {what}; {:?}", self.status.health());
            let _ = after(LOOK_EVERY).recv();
        }
        self.keep();
    }

    /// Lets a time pass.
    pub fn drive(&mut self, time: Duration) {
        let _ = after(time).recv();
        self.keep();
    }

    /// Runs `replay` as another process would, while the indexer runs.
    pub fn replay(&self) -> Replayed {
        let mut shown = Vec::new();
        let network = Network::default();
        let success = replay_to(&self.elastic, &self.output, &network, &Clock::system(), &mut shown).unwrap();
        Replayed { success, shown: String::from_utf8(shown).unwrap() }
    }

    pub fn backlog(&self) -> i64 {
        self.status.gauges.elastic_backlog_bytes.get().unwrap_or(-1)
    }

    /// Documents that are done: created, there already, or dead.
    pub fn done(&self) -> u64 {
        let counters = &self.status.counters;
        counters.elastic_created.get() + counters.elastic_exists.get() + counters.elastic_dead.get()
    }

    pub fn is_raised(&self, code: Code) -> bool {
        self.status.is_raised(code)
    }

    /// What is wrong and what to do, as `/health` says it.
    pub fn message(&self, code: Code) -> String {
        let reason = self.status.reasons().into_iter().find(|reason| reason.code == code);
        reason.map(|reason| format!("{} | {}", reason.problem.what, reason.problem.cure)).unwrap_or_default()
    }

    /// Of all files of dead letters: a replay keeps the name that it gave one if it cannot lock it at its end.
    pub fn dead_letters(&self) -> Vec<serde_json::Value> {
        let files = self.suffixes().into_iter().filter(|suffix| suffix.starts_with(".dead"));
        let texts = files.map(|suffix| fs::read_to_string(self.folder.join(format!("events.jsonl{suffix}"))).unwrap());
        texts
            .flat_map(|text| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>())
            .collect()
    }

    /// The suffixes of the output's files, sorted.
    pub fn suffixes(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&self.folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_str().unwrap().replace("events.jsonl", ""))
            .collect();
        names.sort();
        names
    }
}

/// What a replay came to.
pub struct Replayed {
    pub success: bool,
    pub shown: String,
}

impl Drop for Rig {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

fn open(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).unwrap()
}

/// A record of about 700 bytes, the `n`th of its kind.
pub fn record(n: usize) -> String {
    record_with(n, "\"Up\"", 300)
}

/// The same with the text of a `previous_value`, and padding in the raw event.
pub fn record_with(n: usize, previous_value: &str, padding: usize) -> String {
    format!(
        r#"{{"timestamp":"2026-11-20T10:30:45.{:03}Z","event_type":"audiohook_operational","event_id":"AUDIOHOOK-000{}","event_name":"AudioHook connection time-out","description":"The server did not answer.","conversation_id":"34c18827-77a6-4970-ad66-{n:012}","entity_type":"integration","entity_id":"0f8f91f9-a27d-4ddf-9026-7e1e3a8d73a6","entity_name":"Audio","version":"1","topic":"v2.operations.events.AUDIOHOOK-0002","channel":"…1234","error_code":null,"previous_value":{previous_value},"current_value":"Down","received_at":"2026-11-20T10:30:45.500Z","source":"websocket","id":"{n:032x}","raw_event":{{"n":{n},"number":1.0,"note":"{}"}}}}"#,
        n % 1000,
        n % 9 + 1,
        "x".repeat(padding),
    )
}

pub fn records(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(record).collect()
}
