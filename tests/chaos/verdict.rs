//! Whether what was collected is what was issued.
//!
//! Must never: excuse what the promise does not excuse. What stood in a file that was deleted on purpose is gone, and may
//! come again; nothing else is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use audiohook_collector::clock::format_millis;
use audiohook_collector::simulator::Issued;
use serde_json::Value;

use crate::support::records::{self, Record, compare};

/// In the content of an event that the cluster refuses for good.
pub const POISON: &str = "poison";

/// All that is compared.
pub struct Evidence {
    pub issued: Vec<Issued>,
    pub records: Vec<Record>,
    pub index: Vec<Record>,
    pub dead: Vec<Record>,
    /// What the deleted files held.
    pub gone: Vec<Record>,
    pub tolerance_ms: i64,
}

impl Evidence {
    /// What is wrong, in words.
    pub fn judge(&self) -> Result<(), String> {
        let gone: BTreeSet<String> = self.gone.iter().map(Record::key).collect();
        let issued = |wanted: &dyn Fn(&str) -> bool| -> Vec<Issued> {
            self.issued.iter().filter(|one| !gone.contains(&one.key) && wanted(&one.key)).cloned().collect()
        };
        let kept = |found: &[Record]| -> Vec<Record> {
            found.iter().filter(|record| !gone.contains(&record.key())).cloned().collect()
        };
        let placed = |found: &[Record]| placed(&self.issued, kept(found));
        let is_poison = |key: &str| key.contains(POISON);
        for (what, expected, found) in [
            ("the file", issued(&|_| true), placed(&self.records)),
            ("the index", issued(&|key| !is_poison(key)), placed(&self.index)),
            ("the dead letters", issued(&is_poison), placed(&self.dead)),
        ] {
            compare(&expected, &found, self.tolerance_ms).map_err(|why| format!("{what}: {why}"))?;
        }
        // What was deleted may come again, but once.
        for key in &gone {
            let of = |found: &[Record]| found.iter().filter(|record| record.key() == *key).count();
            let times: BTreeSet<i64> =
                self.issued.iter().filter(|one| one.key == *key).map(|one| one.time_ms).collect();
            if of(&self.records) > times.len() {
                return Err(format!("the file: twice, after it was deleted: {key}"));
            }
        }
        let mut ids = BTreeSet::new();
        for record in &self.records {
            if !ids.insert(record.text("id").unwrap_or_default()) {
                return Err(format!("the file: an id stands in it twice: {}", record.line));
            }
        }
        Ok(())
    }
}

/// How far a receipt may be from its event: what is late by more is not on the socket any more.
const RECEIPT_MS: i64 = 120_000;

/// The records, where one whose content no other event has stands at its event's time: its frame may have had none.
fn placed(issued: &[Issued], mut records: Vec<Record>) -> Vec<Record> {
    let mut times: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for event in issued {
        times.entry(&event.key).or_default().push(event.time_ms);
    }
    for record in &mut records {
        if let Some([time_ms]) = times.get(record.key().as_str()).map(Vec::as_slice)
            && (record.time_ms() - time_ms).abs() <= RECEIPT_MS
        {
            record.json["timestamp"] = Value::from(format_millis(*time_ms));
        }
    }
    records
}

/// The records of the dead letters.
pub fn dead_letters(output: &Path) -> Vec<Record> {
    let path = PathBuf::from(format!("{}.dead", output.display()));
    // A full one is put aside as `.dead.1`, `.dead.2`, …
    let texts = records::files(&path).into_iter().map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let text: String = texts.collect();
    let letters = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a dead letter is JSON"));
    letters.map(|letter| Record { line: letter["record"].to_string(), json: letter["record"].clone() }).collect()
}

/// Documents as records.
pub fn documents(texts: &[String]) -> Vec<Record> {
    texts
        .iter()
        .map(|text| Record { json: serde_json::from_str(text).expect("a document is JSON"), line: text.clone() })
        .collect()
}

/// Records of one file.
pub fn of_file(path: &Path) -> Vec<Record> {
    records::read(path)
}
