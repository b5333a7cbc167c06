//! What the collector's files hold, and whether it is what was issued.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use audiohook_collector::clock::parse_instant;
use audiohook_collector::simulator::{Issued, content_key};
use serde_json::Value;

/// A line of OUTPUT_FILE.
#[derive(Clone, Debug)]
pub struct Record {
    pub json: Value,
    /// The line as it stands.
    pub line: String,
}

impl Record {
    pub fn text(&self, field: &str) -> Option<&str> {
        self.json[field].as_str()
    }

    /// The record's `timestamp`, in milliseconds.
    pub fn time_ms(&self) -> i64 {
        let time = self.text("timestamp").and_then(parse_instant);
        time.unwrap_or_else(|| panic!("no timestamp in {}", self.line))
    }

    /// What [`Issued::key`] holds of the same event.
    pub fn key(&self) -> String {
        content_key(
            self.text("event_id").unwrap_or_default(),
            self.text("entity_id"),
            self.text("conversation_id"),
            self.text("error_code"),
            self.text("previous_value"),
            self.text("current_value"),
        )
    }
}

/// The file and its backups, oldest first.
pub fn files(file: &Path) -> Vec<PathBuf> {
    let backup = |number: u32| PathBuf::from(format!("{}.{number}", file.display()));
    let mut all: Vec<PathBuf> = (1..).map(backup).take_while(|path| path.exists()).collect();
    all.reverse();
    all.push(file.to_owned());
    all
}

/// Every record of the file and its backups, oldest first. A last line without its end is left out; any other line
/// must be a record.
pub fn read(file: &Path) -> Vec<Record> {
    let mut records = Vec::new();
    for path in files(file) {
        let text = fs::read_to_string(&path).unwrap_or_default();
        for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            let json: Value = serde_json::from_str(line)
                .unwrap_or_else(|e| panic!("a line of {} is no record: {e}: {line:?}", path.display()));
            records.push(Record { json, line: line.to_owned() });
        }
    }
    records
}

/// Lines of the file and its backups.
pub fn count_lines(file: &Path) -> usize {
    let lines = |path: PathBuf| fs::read(path).map_or(0, |bytes| bytes.iter().filter(|byte| **byte == b'\n').count());
    files(file).into_iter().map(lines).sum()
}

/// Asserts that the files hold what was issued, each once, and nothing else.
pub fn assert_same_set(issued: &[Issued], records: &[Record]) {
    assert_same_set_within(issued, records, 0);
}

/// The same, where the time of a record may be this far off: the history's times may differ from the socket's. Events
/// of AudioHook alone are expected; issued ones that are equal in content and time count once.
pub fn assert_same_set_within(issued: &[Issued], records: &[Record], tolerance_ms: i64) {
    if let Err(difference) = compare(issued, records, tolerance_ms) {
        panic!("{difference}");
    }
}

/// What differs, in words: the numbers, and the first of each kind.
pub fn compare(issued: &[Issued], records: &[Record], tolerance_ms: i64) -> Result<(), String> {
    let mut times: BTreeMap<String, (Vec<i64>, Vec<i64>)> = BTreeMap::new();
    for event in issued.iter().filter(|event| event.definition.starts_with("AUDIOHOOK-")) {
        let of_key = &mut times.entry(event.key.clone()).or_default().0;
        if !of_key.contains(&event.time_ms) {
            of_key.push(event.time_ms);
        }
    }
    for record in records {
        times.entry(record.key()).or_default().1.push(record.time_ms());
    }
    let (mut lost, mut twice) = (Vec::new(), Vec::new());
    for (key, (mut expected, mut found)) in times {
        expected.sort_unstable();
        found.sort_unstable();
        // Both in their order: the first that fits is the one that leaves most for the others.
        let (mut e, mut f) = (0, 0);
        while e < expected.len() || f < found.len() {
            match (expected.get(e), found.get(f)) {
                (Some(a), Some(b)) if (a - b).abs() <= tolerance_ms => (e, f) = (e + 1, f + 1),
                (Some(a), Some(b)) if a > b => {
                    twice.push(format!("{key} at {b}"));
                    f += 1;
                }
                (None, Some(b)) => {
                    twice.push(format!("{key} at {b}"));
                    f += 1;
                }
                (Some(a), _) => {
                    lost.push(format!("{key} at {a}"));
                    e += 1;
                }
                (None, None) => {}
            }
        }
    }
    if lost.is_empty() && twice.is_empty() {
        return Ok(());
    }
    let first = |list: &[String]| list.iter().take(5).map(|line| format!("\n    {line}")).collect::<String>();
    Err(format!(
        "{} issued, {} in the files\n  lost: {}{}\n  twice or never issued: {}{}",
        issued.len(),
        records.len(),
        lost.len(),
        first(&lost),
        twice.len(),
        first(&twice)
    ))
}
