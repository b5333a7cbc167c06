//! The one batch in memory: documents that were read and are not done yet, as the body of a bulk request.

use std::time::Instant;

use crate::elastic::dedup_keys;
use crate::elastic::document::Document;
use crate::output::identity::Cursor;

/// Bytes of a request, at most.
pub const REQUEST_BYTES_MAX: usize = 5_000_000;
/// Room that is kept while nothing is to be sent.
const BUFFER_KEPT_BYTES: usize = 64 * 1024;
const DOCUMENTS_KEPT: usize = 1024;

/// A document in the body: an action line and the record with its `@timestamp`.
#[derive(Clone, Copy, Debug)]
struct Entry {
    at: Cursor,
    /// Bytes of both lines.
    bytes: u32,
    /// Bytes of the action line.
    action_bytes: u32,
    /// Bytes put in behind the record's brace.
    inserted_bytes: u32,
    /// Since when the cluster puts it off, while it may take others.
    put_off_since: Option<Instant>,
    /// Counts up in the order of the files.
    order: u64,
}

/// The documents, in the order of the files unless [`Batch::rotate`] was called.
pub struct Batch {
    action_begin: Vec<u8>,
    body: Vec<u8>,
    entries: Vec<Entry>,
    added: u64,
}

impl Batch {
    pub fn new(index: &str) -> Self {
        let index = serde_json::Value::from(index);
        Self {
            action_begin: format!("{{\"create\":{{\"_index\":{index},\"_id\":\"").into_bytes(),
            body: Vec::new(),
            entries: Vec::new(),
            added: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Where the earliest document begins that is not done.
    pub fn earliest(&self) -> Option<Cursor> {
        self.entries.iter().min_by_key(|entry| entry.order).map(|entry| entry.at)
    }

    /// Bytes of records, as the file holds them.
    pub fn record_bytes(&self) -> u64 {
        self.entries.iter().map(|entry| u64::from(entry.bytes - entry.action_bytes - entry.inserted_bytes)).sum()
    }

    /// Whether a record of this length still fits into the request; the first one always does.
    pub fn has_room(&self, record_bytes: usize) -> bool {
        /// What is put around a record, at most: the action with an id of 512 bytes and an index name of 255, the time.
        const AROUND_BYTES: usize = 1200;
        self.entries.is_empty() || self.body.len() + record_bytes + AROUND_BYTES <= REQUEST_BYTES_MAX
    }

    /// Adds a document: the record with `@timestamp` spliced in front, so that every value stays as it is.
    pub fn push(&mut self, document: &Document<'_>, at: Cursor) {
        let begin = self.body.len();
        self.body.extend_from_slice(&self.action_begin);
        self.body.extend_from_slice(&document.id);
        self.body.extend_from_slice(b"\"}}\n");
        let action_end = self.body.len();
        self.body.push(b'{');
        let fields = document.fields();
        if let Some(timestamp) = fields.timestamp.filter(|_| !fields.has_at_timestamp) {
            self.body.extend_from_slice(b"\"@timestamp\":");
            self.body.extend_from_slice(timestamp);
            self.body.push(b',');
        }
        let inserted_bytes = self.body.len() - action_end - 1;
        self.body.extend_from_slice(&document.text[1..]);
        self.body.push(b'\n');
        self.entries.push(Entry {
            at,
            bytes: (self.body.len() - begin) as u32,
            action_bytes: (action_end - begin) as u32,
            inserted_bytes: inserted_bytes as u32,
            put_off_since: None,
            order: self.added,
        });
        self.added += 1;
    }

    /// The body of a request of at most so many documents and bytes, from the first, and how many those are; one at least.
    pub fn request(&self, documents_max: usize, bytes_max: usize) -> (usize, &[u8]) {
        let (mut bytes, mut count) = (0, 0);
        for entry in self.entries.iter().take(documents_max.max(1)) {
            if count > 0 && bytes + entry.bytes as usize > bytes_max {
                break;
            }
            bytes += entry.bytes as usize;
            count += 1;
        }
        (count, &self.body[..bytes])
    }

    /// Where each of the first documents begins, in the order of the batch.
    pub fn places(&self) -> impl Iterator<Item = Cursor> {
        self.entries.iter().map(|entry| entry.at)
    }

    /// The record of a document, as its line in the file was, or without its duplicate keys.
    pub fn record(&self, index: usize) -> Vec<u8> {
        [&b"{"[..], self.body[self.behind_brace(index)].trim_ascii_end()].concat()
    }

    /// Takes out, of keys that the record gives twice, all but the last; `false`, and nothing done, when it has none. The
    /// document keeps its length: blanks at its end mean nothing.
    pub fn remove_duplicate_keys(&mut self, index: usize) -> bool {
        let record = self.record(index);
        let Some(changed) = std::str::from_utf8(&record).ok().and_then(dedup_keys::without_duplicate_keys) else {
            return false;
        };
        let place = self.behind_brace(index);
        let (begin, blanks) = self.body[place].split_at_mut(changed.len() - 1);
        begin.copy_from_slice(&changed[1..]);
        blanks.fill(b' ');
        true
    }

    /// Where the record stands in the body, its brace and its line feed left out.
    fn behind_brace(&self, index: usize) -> std::ops::Range<usize> {
        let begin: usize = self.entries[..index].iter().map(|entry| entry.bytes as usize).sum();
        let entry = &self.entries[index];
        begin + (entry.action_bytes + 1 + entry.inserted_bytes) as usize..begin + entry.bytes as usize - 1
    }

    /// Since when the document waits that was put off the longest.
    pub fn put_off_since(&self) -> Option<Instant> {
        self.entries.iter().filter_map(|entry| entry.put_off_since).min()
    }

    /// Takes out, of the first `sent` documents, all but those to be kept, which were put off.
    pub fn settle(&mut self, sent: usize, now: Instant, keep: impl Fn(usize) -> bool) {
        let (mut from, mut to) = (0, 0);
        let mut index = 0;
        let body = &mut self.body;
        self.entries.retain_mut(|entry| {
            let bytes = entry.bytes as usize;
            let kept = index >= sent || keep(index);
            if kept {
                if from != to {
                    body.copy_within(from..from + bytes, to);
                }
                to += bytes;
                if index < sent {
                    entry.put_off_since.get_or_insert(now);
                }
            }
            from += bytes;
            index += 1;
            kept
        });
        self.body.truncate(to);
        if self.entries.is_empty() {
            // A large request's room is not kept for small ones.
            self.body.shrink_to(BUFFER_KEPT_BYTES.max(2 * from));
            self.entries.shrink_to(DOCUMENTS_KEPT.max(2 * index));
        }
    }

    /// Moves the first document behind all others: it may be what the cluster cannot cope with.
    pub fn rotate(&mut self) {
        if let Some(first) = self.entries.first() {
            let bytes = first.bytes as usize;
            self.body.rotate_left(bytes);
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
        String::from_utf8(batch.request(usize::MAX, usize::MAX).1.to_vec()).unwrap()
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
            body(&batch).lines().nth(3).unwrap().trim_end(),
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
        assert_eq!(String::from_utf8(batch.record(2)).unwrap(), lines[1]);
        batch.settle(3, now, |_| false);
        assert!(batch.put_off_since().is_none() && batch.is_empty() && body(&batch).is_empty());
    }

    #[test]
    fn a_request_holds_no_more_than_asked_and_one_document_at_least() {
        let batch = batch(&[r#"{"id":"a"}"#; 5]);
        let one = batch.request(1, usize::MAX).1.len();
        for (documents, bytes, expected) in [(50, usize::MAX, 5), (3, usize::MAX, 3), (50, 2 * one + 1, 2), (50, 1, 1)]
        {
            let (count, body) = batch.request(documents, bytes);
            assert_eq!((count, body.len()), (expected, expected * one));
        }
    }
}
