//! The one batch that is in memory: documents that were read and are not done yet.
//!
//! Deals with: the body of a bulk request, which document stands where in it, and taking out those that are done. Must
//! never: hold more than one request's worth.

use std::time::Instant;

use crate::elastic::lines::Fields;
use crate::elastic::mend;
use crate::output::identity::Cursor;

/// Bytes of a request, at most.
pub const REQUEST_BYTES_MAX: usize = 5_000_000;
/// Room that is kept while nothing is to be sent.
const BUFFER_KEPT_BYTES: usize = 64 * 1024;
const DOCUMENTS_KEPT: usize = 1024;

/// A document in the body: an action line and the record with its `@timestamp`.
#[derive(Clone, Copy, Debug)]
struct Document {
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

/// The documents, in the order of the files but for those that were put off.
pub struct Queue {
    action_begin: Vec<u8>,
    body: Vec<u8>,
    documents: Vec<Document>,
    added: u64,
}

impl Queue {
    pub fn new(index: &str) -> Self {
        let index = serde_json::Value::from(index);
        Self {
            action_begin: format!("{{\"create\":{{\"_index\":{index},\"_id\":\"").into_bytes(),
            body: Vec::new(),
            documents: Vec::new(),
            added: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.documents.len()
    }

    pub fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }

    /// Where the earliest document begins that is not done: up to there a cursor may say that all is.
    pub fn earliest(&self) -> Option<Cursor> {
        self.documents.iter().min_by_key(|document| document.order).map(|document| document.at)
    }

    /// Bytes of records, as the file holds them.
    pub fn record_bytes(&self) -> u64 {
        let of = |d: &Document| u64::from(d.bytes - d.action_bytes - d.inserted_bytes);
        self.documents.iter().map(of).sum()
    }

    /// Whether a line of this length still fits into the request; the first one always does.
    pub fn has_room(&self, line_bytes: usize) -> bool {
        /// What is put around a line, at most: the action with an id of 512 bytes and an index name of 255, the time.
        const AROUND_BYTES: usize = 1200;
        self.documents.is_empty() || self.body.len() + line_bytes + AROUND_BYTES <= REQUEST_BYTES_MAX
    }

    /// Adds a document: the line with `@timestamp` in front, by surgery on the text, so that every value stays as it is.
    pub fn push(&mut self, line: &[u8], fields: &Fields<'_>, id: &[u8], at: Cursor) {
        let begin = self.body.len();
        self.body.extend_from_slice(&self.action_begin);
        self.body.extend_from_slice(id);
        self.body.extend_from_slice(b"\"}}\n");
        let action_end = self.body.len();
        self.body.push(b'{');
        if let Some(timestamp) = fields.timestamp.filter(|_| !fields.has_at_timestamp) {
            self.body.extend_from_slice(b"\"@timestamp\":");
            self.body.extend_from_slice(timestamp);
            self.body.push(b',');
        }
        let inserted_bytes = self.body.len() - action_end - 1;
        self.body.extend_from_slice(&line[1..]);
        self.body.push(b'\n');
        self.documents.push(Document {
            at,
            bytes: (self.body.len() - begin) as u32,
            action_bytes: (action_end - begin) as u32,
            inserted_bytes: inserted_bytes as u32,
            put_off_since: None,
            order: self.added,
        });
        self.added += 1;
    }

    /// How many documents, from the first, make a request of at most so many documents and bytes; one at least.
    pub fn fitting(&self, documents_max: usize, bytes_max: usize) -> (usize, usize) {
        let mut bytes = 0;
        let mut count = 0;
        for document in self.documents.iter().take(documents_max.max(1)) {
            if count > 0 && bytes + document.bytes as usize > bytes_max {
                break;
            }
            bytes += document.bytes as usize;
            count += 1;
        }
        (count, bytes)
    }

    /// Lends the body out for a request.
    pub fn take_body(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.body)
    }

    /// Takes it back.
    pub fn return_body(&mut self, body: Vec<u8>) {
        self.body = body;
    }

    /// The record of a document, as its line in the file was, or as it was mended.
    pub fn record(&self, index: usize) -> Vec<u8> {
        [&b"{"[..], self.body[self.behind_brace(index)].trim_ascii_end()].concat()
    }

    /// Takes out, of keys that the record gives twice, all but the last; `false`, and nothing done, when it has none. The
    /// document stays as long as it was: blanks at its end mean nothing.
    pub fn mend(&mut self, index: usize) -> bool {
        let record = self.record(index);
        let Some(mended) = std::str::from_utf8(&record).ok().and_then(mend::without_doubled_keys) else { return false };
        let place = self.behind_brace(index);
        let text = &mut self.body[place];
        let (begin, blanks) = text.split_at_mut(mended.len() - 1);
        begin.copy_from_slice(&mended[1..]);
        blanks.fill(b' ');
        true
    }

    /// Where the record stands in the body, its brace and its line feed left out.
    fn behind_brace(&self, index: usize) -> std::ops::Range<usize> {
        let begin: usize = self.documents[..index].iter().map(|document| document.bytes as usize).sum();
        let document = &self.documents[index];
        begin + (document.action_bytes + 1 + document.inserted_bytes) as usize..begin + document.bytes as usize - 1
    }

    /// Since when the document waits that was put off the longest.
    pub fn put_off_since(&self) -> Option<Instant> {
        self.documents.iter().filter_map(|document| document.put_off_since).min()
    }

    /// Takes out, of the first `sent` documents, all but those to be kept, which were put off.
    pub fn settle(&mut self, sent: usize, now: Instant, keep: impl Fn(usize) -> bool) {
        let (mut from, mut to) = (0, 0);
        let mut index = 0;
        let body = &mut self.body;
        self.documents.retain_mut(|document| {
            let bytes = document.bytes as usize;
            let kept = index >= sent || keep(index);
            if kept {
                if from != to {
                    body.copy_within(from..from + bytes, to);
                }
                to += bytes;
                if index < sent {
                    document.put_off_since.get_or_insert(now);
                }
            }
            from += bytes;
            index += 1;
            kept
        });
        self.body.truncate(to);
        if self.documents.is_empty() {
            // A large request's room is not kept for small ones.
            self.body.shrink_to(BUFFER_KEPT_BYTES.max(2 * from));
            self.documents.shrink_to(DOCUMENTS_KEPT.max(2 * index));
        }
    }

    /// Moves the first document behind all others.
    pub fn put_last(&mut self) {
        if let Some(first) = self.documents.first() {
            let bytes = first.bytes as usize;
            self.body.rotate_left(bytes);
            self.documents.rotate_left(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elastic::lines::fields;

    fn at(offset: u64) -> Cursor {
        serde_json::from_str(&format!(r#"{{"file":"00000000000000000000000000000001","offset":{offset}}}"#)).unwrap()
    }

    fn queue(lines: &[&str]) -> Queue {
        let mut queue = Queue::new("my \"index\"");
        for (n, line) in lines.iter().enumerate() {
            let found = fields(line.as_bytes()).unwrap();
            queue.push(line.as_bytes(), &found, found.id.unwrap_or(b"none"), at(n as u64));
        }
        queue
    }

    #[test]
    fn a_record_with_a_key_given_twice_is_mended_in_its_place() {
        let doubled = r#"{"timestamp":"t","id":"b","raw_event":{"a":1,"b":1.0,"a":2}}"#;
        let whole = r#"{"timestamp":"t","id":"a","raw_event":{"a":1}}"#;
        let mut queue = queue(&[whole, doubled, whole]);
        assert!(!queue.mend(0));
        assert!(queue.mend(1));
        assert!(!queue.mend(1), "once is enough");
        assert_eq!(queue.record(0), whole.as_bytes());
        assert_eq!(queue.record(1), br#"{"timestamp":"t","id":"b","raw_event":{"b":1.0,"a":2}}"#);
        assert_eq!(queue.record(2), whole.as_bytes());
        let body = String::from_utf8(queue.take_body()).unwrap();
        assert_eq!(body.lines().count(), 6);
        assert_eq!(
            body.lines().nth(3).unwrap().trim_end(),
            r#"{"@timestamp":"t","timestamp":"t","id":"b","raw_event":{"b":1.0,"a":2}}"#
        );
    }

    #[test]
    fn a_document_is_the_record_and_its_time_value_for_value() {
        let line = r#"{"timestamp":"2026-11-20T10:30:45.123Z","id":"abc","raw_event":{"a":1.0,"b":1e400}}"#;
        let mut queue = queue(&[line, r#"{"@timestamp":"x","timestamp":"y"}"#, "{}"]);
        assert_eq!(
            String::from_utf8(queue.take_body()).unwrap(),
            concat!(
                "{\"create\":{\"_index\":\"my \\\"index\\\"\",\"_id\":\"abc\"}}\n",
                r#"{"@timestamp":"2026-11-20T10:30:45.123Z","timestamp":"2026-11-20T10:30:45.123Z","id":"abc","raw_event":{"a":1.0,"b":1e400}}"#,
                "\n{\"create\":{\"_index\":\"my \\\"index\\\"\",\"_id\":\"none\"}}\n",
                r#"{"@timestamp":"x","timestamp":"y"}"#,
                "\n{\"create\":{\"_index\":\"my \\\"index\\\"\",\"_id\":\"none\"}}\n{}\n"
            )
        );
    }

    #[test]
    fn what_is_done_is_taken_out_and_the_rest_stays_whole() {
        let lines: Vec<String> = (0..6).map(|n| format!(r#"{{"timestamp":"t{n}","id":"{n}"}}"#)).collect();
        let mut queue = queue(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        let now = Instant::now();
        assert_eq!(queue.put_off_since(), None);
        queue.settle(4, now, |n| n % 2 == 1);
        queue.settle(2, now + std::time::Duration::from_secs(1), |n| n < 2);
        assert_eq!(queue.put_off_since(), Some(now));
        assert_eq!(queue.len(), 4);
        let left: Vec<String> = (0..4).map(|n| String::from_utf8(queue.record(n)).unwrap()).collect();
        assert_eq!(left, [&lines[1], &lines[3], &lines[4], &lines[5]].map(String::clone));
        assert_eq!(queue.earliest(), Some(at(1)));
        queue.put_last();
        assert_eq!(queue.earliest(), Some(at(1)));
        assert_eq!(String::from_utf8(queue.record(3)).unwrap(), lines[1]);
        assert_eq!(String::from_utf8(queue.record(0)).unwrap(), lines[3]);
        queue.settle(4, now, |_| false);
        assert!(queue.put_off_since().is_none() && queue.is_empty() && queue.take_body().is_empty());
    }

    #[test]
    fn a_request_holds_no_more_than_asked_and_one_document_at_least() {
        let queue = queue(&[r#"{"id":"a"}"#; 5]);
        let (_, one) = queue.fitting(1, usize::MAX);
        assert_eq!(queue.fitting(50, usize::MAX).0, 5);
        assert_eq!(queue.fitting(3, usize::MAX), (3, 3 * one));
        assert_eq!(queue.fitting(50, 2 * one + 1), (2, 2 * one));
        assert_eq!(queue.fitting(50, 1), (1, one));
    }
}
