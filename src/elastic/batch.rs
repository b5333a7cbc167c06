//! The batch: the documents that were read and are not finished yet, as the lines of a bulk request.

use std::time::Instant;

use crate::elastic::dedup_keys;
use crate::elastic::document::Document;
use crate::output::identity::Cursor;

/// Maximum length of a request.
pub const REQUEST_BYTES_MAX: usize = 5_000_000;
/// Capacity that an empty batch keeps.
const DOCUMENTS_KEPT: usize = 1024;

/// A document: its action line, and the record with `@timestamp`.
struct Entry {
    at: Cursor,
    /// Both lines.
    text: Vec<u8>,
    /// Where the record continues in `text`, after its brace and the inserted `@timestamp`.
    record_at: usize,
    /// When the document was first sent without being finished.
    put_off_since: Option<Instant>,
    /// Position in the order of the files.
    order: u64,
}

/// The documents, in the order of the files unless [`Batch::rotate`] was called.
pub struct Batch {
    action_begin: Vec<u8>,
    entries: Vec<Entry>,
    bytes: usize,
    added: u64,
}

impl Batch {
    pub fn new(index: &str) -> Self {
        let index = serde_json::Value::from(index);
        Self {
            action_begin: format!("{{\"create\":{{\"_index\":{index},\"_id\":\"").into_bytes(),
            entries: Vec::new(),
            bytes: 0,
            added: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Where the earliest unfinished document begins in the files.
    pub fn earliest(&self) -> Option<Cursor> {
        self.entries.iter().min_by_key(|entry| entry.order).map(|entry| entry.at)
    }

    /// Where each document begins in the files.
    pub fn places(&self) -> impl Iterator<Item = Cursor> {
        self.entries.iter().map(|entry| entry.at)
    }

    /// Approximate length of the records in the file.
    pub fn record_bytes(&self) -> u64 {
        self.entries.iter().map(|entry| (entry.text.len() - entry.record_at + 1) as u64).sum()
    }

    /// Whether a record of this length still fits into the request. The first one always fits.
    pub fn has_room(&self, record_bytes: usize) -> bool {
        /// Maximum length of what is added to a record: the action line with an id of 512 bytes and an index name of
        /// 255 bytes, and `@timestamp`.
        const AROUND_BYTES: usize = 1200;
        self.entries.is_empty() || self.bytes + record_bytes + AROUND_BYTES <= REQUEST_BYTES_MAX
    }

    /// Adds a document. `@timestamp` is inserted into the record's text, so that no other value changes.
    pub fn push(&mut self, document: &Document<'_>, at: Cursor) {
        let mut text = Vec::with_capacity(self.action_begin.len() + document.text.len() + 128);
        text.extend_from_slice(&self.action_begin);
        text.extend_from_slice(&document.id);
        text.extend_from_slice(b"\"}}\n{");
        let fields = document.fields();
        if let Some(timestamp) = fields.timestamp.filter(|_| !fields.has_at_timestamp) {
            text.extend_from_slice(b"\"@timestamp\":");
            text.extend_from_slice(timestamp);
            text.push(b',');
        }
        let record_at = text.len();
        text.extend_from_slice(&document.text[1..]);
        text.push(b'\n');
        self.bytes += text.len();
        self.entries.push(Entry { at, text, record_at, put_off_since: None, order: self.added });
        self.added += 1;
    }

    /// The lines of at most this many documents from the front.
    pub fn texts(&self, documents_max: usize) -> impl Iterator<Item = &[u8]> {
        self.entries.iter().take(documents_max).map(|entry| &entry.text[..])
    }

    /// The record of a document as in the file, or after [`Batch::remove_duplicate_keys`] without them.
    pub fn record(&self, index: usize) -> Vec<u8> {
        let Entry { text, record_at, .. } = &self.entries[index];
        [&b"{"[..], &text[*record_at..text.len() - 1]].concat()
    }

    /// Removes all but the last of duplicate keys from the record. Returns `false` and changes nothing if there are
    /// none.
    pub fn remove_duplicate_keys(&mut self, index: usize) -> bool {
        let record = self.record(index);
        let Some(changed) = std::str::from_utf8(&record).ok().and_then(dedup_keys::without_duplicate_keys) else {
            return false;
        };
        let Entry { text, record_at, .. } = &mut self.entries[index];
        self.bytes -= record.len() - changed.len();
        text.truncate(*record_at);
        text.extend_from_slice(&changed[1..]);
        text.push(b'\n');
        true
    }

    /// When the document that has waited the longest was first put off.
    pub fn put_off_since(&self) -> Option<Instant> {
        self.entries.iter().filter_map(|entry| entry.put_off_since).min()
    }

    /// Removes the finished documents among the first `sent`. Those for which `keep` is true were put off and stay.
    pub fn settle(&mut self, sent: usize, now: Instant, keep: impl Fn(usize) -> bool) {
        let mut index = 0;
        self.entries.retain_mut(|entry| {
            let is_kept = index >= sent || keep(index);
            if !is_kept {
                self.bytes -= entry.text.len();
            } else if index < sent {
                entry.put_off_since.get_or_insert(now);
            }
            index += 1;
            is_kept
        });
        if self.entries.is_empty() {
            // Release the capacity of a large request.
            self.entries.shrink_to(DOCUMENTS_KEPT.max(2 * index));
        }
    }

    /// Moves the first document to the end, since it may be the cause of the failures.
    pub fn rotate(&mut self) {
        if !self.entries.is_empty() {
            self.entries.rotate_left(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Redaction;

    fn at(offset: u64) -> Cursor {
        serde_json::from_str(&format!(r#"{{"file":"00000000000000000000000000000001","offset":{offset}}}"#)).unwrap()
    }

    fn batch(lines: &[&str]) -> Batch {
        let mut batch = Batch::new("my \"index\"");
        for (n, line) in lines.iter().enumerate() {
            let document = Document::of(line.as_bytes(), &Redaction::default()).unwrap();
            batch.push(&document, at(n as u64));
        }
        batch
    }

    fn body(batch: &Batch) -> String {
        String::from_utf8(batch.texts(usize::MAX).collect::<Vec<_>>().concat()).unwrap()
    }

    #[test]
    fn a_record_with_a_key_given_twice_is_changed_in_its_place() {
        let twice = r#"{"timestamp":"t","id":"b","raw_event":{"a":1,"b":1.0,"a":2}}"#;
        let whole = r#"{"timestamp":"t","id":"a","raw_event":{"a":1}}"#;
        let mut batch = batch(&[whole, twice, whole]);
        assert!(!batch.remove_duplicate_keys(0));
        assert!(batch.remove_duplicate_keys(1));
        assert!(!batch.remove_duplicate_keys(1), "once is enough");
        assert_eq!(batch.record(0), whole.as_bytes());
        assert_eq!(batch.record(1), br#"{"timestamp":"t","id":"b","raw_event":{"b":1.0,"a":2}}"#);
        assert_eq!(batch.record(2), whole.as_bytes());
        assert_eq!(
            body(&batch).lines().nth(3).unwrap(),
            r#"{"@timestamp":"t","timestamp":"t","id":"b","raw_event":{"b":1.0,"a":2}}"#
        );
    }

    #[test]
    fn a_document_is_the_record_and_its_time_value_for_value() {
        let line = r#"{"timestamp":"2026-11-20T10:30:45.123Z","id":"abc","raw_event":{"a":1.0,"b":1e400}}"#;
        let batch = batch(&[line, r#"{"@timestamp":"x","timestamp":"y","id":"n"}"#]);
        assert_eq!(
            body(&batch),
            concat!(
                "{\"create\":{\"_index\":\"my \\\"index\\\"\",\"_id\":\"abc\"}}\n",
                r#"{"@timestamp":"2026-11-20T10:30:45.123Z","timestamp":"2026-11-20T10:30:45.123Z","id":"abc","raw_event":{"a":1.0,"b":1e400}}"#,
                "\n{\"create\":{\"_index\":\"my \\\"index\\\"\",\"_id\":\"n\"}}\n",
                r#"{"@timestamp":"x","timestamp":"y","id":"n"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn what_is_done_is_taken_out_and_the_rest_stays_whole() {
        let lines: Vec<String> = (0..6).map(|n| format!(r#"{{"timestamp":"t{n}","id":"{n}"}}"#)).collect();
        let mut batch = batch(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        let now = Instant::now();
        batch.settle(4, now, |n| n % 2 == 1);
        batch.settle(2, now + std::time::Duration::from_secs(1), |n| n < 2);
        assert_eq!(batch.put_off_since(), Some(now));
        let left: Vec<String> = (0..4).map(|n| String::from_utf8(batch.record(n)).unwrap()).collect();
        assert_eq!(left, [&lines[1], &lines[3], &lines[4], &lines[5]].map(String::clone));
        batch.rotate();
        assert_eq!(batch.earliest(), Some(at(1)));
        assert_eq!(String::from_utf8(batch.record(3)).unwrap(), lines[1]);
        batch.settle(4, now, |_| false);
        assert!(batch.put_off_since().is_none() && batch.is_empty() && body(&batch).is_empty());
    }
}
