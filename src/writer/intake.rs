//! Turns frames and rows into lines to write: judges, deduplicates, redacts, formats and counts them.
//!
//! Must never: touch a file, a channel or a clock. It gets bytes and fills buffers, so that tests need nothing else.

use std::collections::VecDeque;

use twox_hash::XxHash3_64;

use crate::clock::Millis;
use crate::dedup::index::{Index, RECORDS_MAX, Records};
use crate::dedup::rows::{Judged, Rows, Span, Verdict as RowVerdict};
use crate::dedup::{RECEIPT_DELAY_MS, Range, Record, Source};
use crate::event::{Definitions, Event, Identity, Origin, RecordWriter, Redaction, Stamps, Verdict, judge_frame};
use crate::message::{Batch, Connection, Control, Frame, Page};
use crate::status::{Written, when};

/// Counts since the last flush, published once the lines are in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub received_websocket: u64,
    pub received_history: u64,
    pub written: u64,
    pub duplicate: u64,
    pub filtered: u64,
    pub unreadable: u64,
    /// The own time of the newest event.
    pub newest: Option<Millis>,
    /// The written events by code, integration and minute.
    pub counted: Vec<Written>,
}

/// An event to log by name.
#[derive(Debug, PartialEq, Eq)]
pub struct LogSample {
    pub event_id: String,
    pub event_name: String,
    pub conversation_id: String,
}

/// A frame or row that is not an event.
#[derive(Debug)]
pub struct Quarantined {
    pub at: Millis,
    pub reason: String,
    pub frame: Vec<u8>,
}

/// How many quarantined rows are remembered: every read of the overlap returns them again.
const SEEN_REJECTS_MAX: usize = 4096;

/// The state for judging, and the output buffers.
pub struct Intake {
    pub index: Index,
    /// Records from the files, if the current read is older than the index covers.
    pub from_files: Option<Box<Index>>,
    /// The rows of the current read that are held until others are known.
    pub rows: Rows,
    /// Number of rows appended by the current read.
    pub appended: u64,
    /// Rows from this instant on could not be judged, because their records were not known.
    pub unjudged_since: Option<Millis>,
    /// Whether the history can be read. While it cannot, no frame is held back for a row.
    pub history_works: bool,
    pub definitions: Definitions,
    pub redaction: Redaction,
    scratch: Vec<u8>,
    stamps: Stamps,
    /// Hashes of the newest quarantined rows of the history.
    seen_rejects: VecDeque<u64>,
    /// Complete lines, in order.
    pub lines: Vec<u8>,
    /// The end of each line in `lines`.
    pub ends: Vec<usize>,
    pub tally: Tally,
    pub quarantine: Vec<Quarantined>,
    pub controls: Vec<(Connection, Control)>,
    pub log_samples: Vec<LogSample>,
    /// How many samples to take; further events are only counted.
    pub log_samples_wanted: usize,
}

impl Intake {
    /// `overlap_ms`: how far each read of the history goes back before the checkpoint.
    pub fn new(redaction: Redaction, overlap_ms: i64) -> Self {
        Self {
            index: Index::new(RECORDS_MAX, overlap_ms + RECEIPT_DELAY_MS),
            from_files: None,
            rows: Rows::default(),
            appended: 0,
            unjudged_since: None,
            history_works: true,
            definitions: Definitions::default(),
            redaction,
            scratch: Vec::new(),
            stamps: Stamps::default(),
            seen_rejects: VecDeque::new(),
            lines: Vec::new(),
            ends: Vec::new(),
            tally: Tally::default(),
            quarantine: Vec::new(),
            controls: Vec::new(),
            log_samples: Vec::new(),
            log_samples_wanted: 0,
        }
    }

    /// Bytes waiting to be written, to the file and to the quarantine.
    pub fn bytes(&self) -> usize {
        self.lines.len() + self.quarantine.iter().map(|rejected| rejected.frame.len()).sum::<usize>()
    }

    fn records(&self) -> Records<'_> {
        Records { index: &self.index, from_files: self.from_files.as_deref() }
    }

    /// Judges the messages from one read of the socket.
    pub fn batch(&mut self, batch: &Batch) {
        for frame in batch.frames.iter() {
            match frame {
                Frame::Text(text) => self.frame(text, batch),
                Frame::Unreadable { reason, head } => {
                    self.tally.received_websocket += 1;
                    self.quarantine(batch.received, reason.to_owned(), head);
                }
            }
        }
    }

    fn frame(&mut self, text: &str, batch: &Batch) {
        match judge_frame(text, batch.received) {
            Verdict::Event(event) => {
                self.tally.received_websocket += 1;
                self.socket_event(&event, batch);
            }
            Verdict::Filtered => {
                self.tally.received_websocket += 1;
                self.tally.filtered += 1;
            }
            Verdict::Control(None) => {}
            Verdict::Control(Some(control)) => self.controls.push((batch.connection, control)),
            Verdict::Unreadable(reason) => {
                self.tally.received_websocket += 1;
                self.quarantine(batch.received, reason, text.as_bytes());
            }
        }
    }

    fn socket_event(&mut self, event: &Event<'_>, batch: &Batch) {
        let identity = Identity::of(event, &mut self.scratch);
        let records = Records { index: &self.index, from_files: None };
        let received = self.receipt(event, identity.content, Source::Socket, batch.received);
        let (at, timed) = event.time.map_or((received, false), |time| (time, true));
        let record = Record { at, timed, source: Source::Socket };
        let time = if timed { Range::at(at) } else { record.range(records.row_delay_ms()) };
        if records.has_frame(identity.content, time, timed, self.history_works) {
            self.tally.duplicate += 1;
            return;
        }
        self.note(identity.content, record);
        self.write(event, identity, Origin::Websocket { channel: &batch.channel }, received);
    }

    /// The receipt of an event. For an event without a time it is made unique, as nothing else tells such events apart.
    fn receipt(&self, event: &Event<'_>, content: u64, source: Source, received: Millis) -> Millis {
        match event.time {
            Some(_) => received,
            None => self.index.free_receipt(content, source, received),
        }
    }

    /// Adds a written record to the indexes.
    fn note(&mut self, content: u64, record: Record) {
        self.index.insert(content, record);
        if let Some(records) = &mut self.from_files {
            records.insert(content, record);
        }
    }

    /// Starts a read of the history.
    pub fn begin_read(&mut self, span: Span) {
        self.drop_read();
        self.rows = Rows::new(span);
    }

    /// Drops the current read's held rows: another read returns them again.
    pub fn drop_read(&mut self) {
        self.tally.duplicate += self.rows.clear();
        self.from_files = None;
        self.appended = 0;
        self.unjudged_since = None;
    }

    /// Judges a page of the history.
    pub fn page(&mut self, page: &Page) {
        if page.is_first {
            self.rows.begin_piece(page.is_all);
        }
        let definitions = std::mem::take(&mut self.definitions);
        for range in &page.rows {
            self.row(&page.body[range.clone()], page, &definitions);
        }
        self.definitions = definitions;
        self.judge_rows(self.rows.complete_to());
    }

    fn row(&mut self, text: &str, page: &Page, definitions: &Definitions) {
        self.tally.received_history += 1;
        let event = match definitions.judge(text, page.received) {
            Ok(Some(event)) if is_asked_for(&event, &page.ids) => event,
            Ok(_) => {
                self.tally.filtered += 1;
                return;
            }
            Err(_) if self.was_quarantined(text) => {
                self.tally.duplicate += 1;
                return;
            }
            Err(error) => {
                let reason = format!("a row of the history is not an event: {error}");
                self.quarantine(page.received, reason, text.as_bytes());
                return;
            }
        };
        let identity = Identity::of(&event, &mut self.scratch);
        let time = event.time.map_or(page.asked, Range::at);
        let records = Records { index: &self.index, from_files: self.from_files.as_deref() };
        match self.rows.offer(identity.content, time, page.received, text, records) {
            RowVerdict::Missing => self.append_row(&event, identity, page.received),
            RowVerdict::Duplicate => self.tally.duplicate += 1,
            RowVerdict::Held => {}
        }
    }

    /// Judges the held rows with which no later row can compete: all rows before `complete_to` have been offered.
    pub fn judge_rows(&mut self, complete_to: Millis) {
        self.judge_with(|rows, records| rows.judge(complete_to, records));
    }

    /// Same as [`Self::judge_rows`], at the end of the read.
    pub fn finish_rows(&mut self, complete_to: Millis) {
        self.judge_with(|rows, records| rows.finish(complete_to, records));
    }

    fn judge_with(&mut self, judge: impl FnOnce(&mut Rows, Records<'_>) -> Judged) {
        let mut rows = std::mem::take(&mut self.rows);
        let judged = judge(&mut rows, self.records());
        self.rows = rows;
        self.unjudged_since = judged.unjudged_since;
        self.tally.duplicate += judged.duplicates;
        self.append_rows(judged.missing.iter().map(|row| (&*row.text, row.received)));
    }

    /// Appends these rows without checking whether the file has them.
    pub fn append_rows<'r>(&mut self, rows: impl Iterator<Item = (&'r str, Millis)>) {
        let definitions = std::mem::take(&mut self.definitions);
        for (text, received) in rows {
            match definitions.judge(text, received) {
                Ok(Some(event)) => {
                    let identity = Identity::of(&event, &mut self.scratch);
                    self.append_row(&event, identity, received);
                }
                // According to newer definitions, it is not an AudioHook event.
                _ => self.tally.filtered += 1,
            }
        }
        self.definitions = definitions;
    }

    fn append_row(&mut self, event: &Event<'_>, identity: Identity, received: Millis) {
        let received = self.receipt(event, identity.content, Source::History, received);
        let (at, timed) = event.time.map_or((received, false), |time| (time, true));
        let record = Record { at, timed, source: Source::History };
        self.note(identity.content, record);
        self.appended += 1;
        self.write(event, identity, Origin::History, received);
    }

    fn write(&mut self, event: &Event<'_>, identity: Identity, origin: Origin<'_>, received: Millis) {
        let id = identity.at(event.time.unwrap_or(received));
        let hidden;
        let mut shown = *event;
        if self.redaction.is_on() {
            // The event was parsed as JSON before.
            hidden = self.redaction.apply(event.raw).unwrap_or_else(|_| "{}".to_owned());
            (shown.raw, shown.raw_spaced) = (&hidden, false);
        }
        let mut writer = RecordWriter { redaction: &self.redaction, stamps: &mut self.stamps };
        writer.push(&mut self.lines, &shown, origin, id, received);
        self.ends.push(self.lines.len());
        self.tally.written += 1;
        let time = event.time.unwrap_or(received);
        self.tally.newest = Some(self.tally.newest.map_or(time, |newest| newest.max(time)));
        self.count(event, time, received);
        if self.log_samples.len() < self.log_samples_wanted {
            let text = |name, field| self.redaction.shown(name, field).decoded().into_owned();
            self.log_samples.push(LogSample {
                event_id: text("event_id", event.definition),
                event_name: text("event_name", event.name),
                conversation_id: text("conversation_id", event.conversation_id),
            });
        }
    }

    /// Counts an event by its code and integration. Events written together mostly have few different ones.
    fn count(&mut self, event: &Event<'_>, time: Millis, received: Millis) {
        const COMPARED_MAX: usize = 16;
        let text = |name, field| self.redaction.shown(name, field).decoded();
        let (event_id, entity_id) = (text("event_id", event.definition), text("entity_id", event.entity_id));
        let (minute, late) = when(time, received);
        let is_it = |one: &&mut Written| {
            (one.minute, one.late) == (minute, late) && one.event_id == event_id && one.entity_id == entity_id
        };
        match self.tally.counted.iter_mut().rev().take(COMPARED_MAX).find(is_it) {
            Some(one) => one.count += 1,
            None => self.tally.counted.push(Written {
                entity_name: text("entity_name", event.entity_name).into_owned(),
                event_id: event_id.into_owned(),
                entity_id: entity_id.into_owned(),
                minute,
                late,
                count: 1,
            }),
        }
    }

    /// Whether exactly this row was quarantined before; if not, remembers it.
    fn was_quarantined(&mut self, row: &str) -> bool {
        let row = XxHash3_64::oneshot(row.as_bytes());
        if self.seen_rejects.contains(&row) {
            return true;
        }
        if self.seen_rejects.len() == SEEN_REJECTS_MAX {
            self.seen_rejects.pop_front();
        }
        self.seen_rejects.push_back(row);
        false
    }

    fn quarantine(&mut self, at: Millis, reason: String, frame: &[u8]) {
        self.tally.unreadable += 1;
        self.quarantine.push(Quarantined { at, reason, frame: frame.to_vec() });
    }
}

/// Whether the row's definition is one of the requested ones.
fn is_asked_for(event: &Event<'_>, ids: &[String]) -> bool {
    let definition = event.definition.decoded();
    ids.iter().any(|id| id.eq_ignore_ascii_case(&definition))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::message::Frames;

    fn batch(frames: &[&str]) -> Batch {
        let mut all = Frames::default();
        frames.iter().for_each(|text| all.push_text(text));
        Batch { connection: 1, channel: "…abcd".into(), received: 1_795_430_645_500, frames: all }
    }

    fn page(rows: &[String]) -> Page {
        let (mut body, mut ranges) = (String::new(), Vec::new());
        for row in rows {
            let from = body.len();
            body.push_str(row);
            ranges.push(from..body.len());
        }
        Page {
            body,
            rows: ranges,
            received: 1_795_430_700_000,
            ids: Arc::from(["AUDIOHOOK-0001".to_owned()]),
            asked: Range { from: 1_795_430_000_000, to: 1_795_431_000_000 },
            is_first: true,
            is_all: true,
        }
    }

    /// One read of the history that returns these rows.
    fn read(intake: &mut Intake, rows: &[String]) {
        intake.begin_read(Span { from: 1_795_430_000_000, to: 1_795_431_000_000 });
        intake.page(&page(rows));
        intake.finish_rows(Millis::MAX);
        intake.drop_read();
    }

    fn row(time: &str) -> String {
        format!(
            r#"{{"eventDefinition":{{"id":"AUDIOHOOK-0001"}},"entityId":"e","conversation":{{"id":"c"}},"dateCreated":"{time}","phoneNumber":"+1"}}"#
        )
    }

    const FRAME: &str = r#"{"topicName":"v2.operations.events.AUDIOHOOK-0001","eventBody":{"eventEntity":{"id":"AUDIOHOOK-0001","name":"N"},"entityId":"e","conversationId":"c","phoneNumber":"+1","timestamp":1795430645123}}"#;

    fn records(intake: &Intake) -> Vec<serde_json::Value> {
        intake
            .lines
            .split(|b| *b == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| serde_json::from_slice(l).unwrap())
            .collect()
    }

    #[test]
    fn the_counts_add_up_whatever_comes() {
        let mut intake = Intake::new(Redaction::default(), 900_000);
        intake.batch(&batch(&[
            FRAME,
            FRAME,
            "nonsense",
            r#"{"topicName":"x","eventBody":{}}"#,
            r#"{"result":"200"}"#,
            r#"{"topicName":"v2.system.socket_closing"}"#,
        ]));
        let foreign = row("2026-11-23T10:44:25.123Z").replace("AUDIOHOOK-0001", "AUDIOHOOK-0002");
        let rows = [row("2026-11-23T10:44:05.500Z"), row("2026-11-23T10:44:15.123Z"), "5".into(), "{}".into(), foreign];
        read(&mut intake, &rows);
        let t = &intake.tally;
        assert_eq!((t.received_websocket, t.received_history), (4, 5));
        assert_eq!((t.written, t.duplicate, t.filtered, t.unreadable), (2, 2, 3, 2));
        assert_eq!(intake.controls, [(1, Control::SocketClosing)]);
        assert_eq!(records(&intake).len(), 2);
        assert_eq!(intake.ends.last(), Some(&intake.lines.len()));
    }

    #[test]
    fn a_row_that_is_not_an_event_is_quarantined_once_however_often_it_is_read() {
        let mut intake = Intake::new(Redaction::default(), 900_000);
        for _ in 0..3 {
            read(&mut intake, &["5".into(), row("2026-11-23T10:44:05.500Z"), "[6]".into()]);
        }
        let t = &intake.tally;
        assert_eq!((t.received_history, t.written, t.duplicate, t.unreadable), (9, 1, 6, 2));
        assert_eq!(intake.quarantine.len(), 2);
    }

    #[test]
    fn rows_older_than_the_index_reaches_are_judged_with_the_records_from_the_files() {
        let mut intake = Intake::new(Redaction::default(), 900_000);
        let at = crate::clock::parse_instant("2026-11-23T10:44:05.500Z").unwrap();
        intake.index.filled_since(at + 60_000);
        read(&mut intake, &[row("2026-11-23T10:44:05.500Z")]);
        assert_eq!((intake.tally.written, intake.tally.duplicate), (0, 1));
        intake.begin_read(Span { from: at - 1_000, to: at + 1_000 });
        let mut records = Index::new(10, 1_020_000);
        records.filled_since(at - 100_000);
        intake.from_files = Some(Box::new(records));
        intake.page(&page(&[row("2026-11-23T10:44:05.500Z"), row("2026-11-23T10:44:05.500Z")]));
        intake.finish_rows(Millis::MAX);
        assert_eq!((intake.appended, intake.unjudged_since), (1, None));
        assert_eq!((intake.tally.written, intake.tally.duplicate), (1, 2));
    }

    #[test]
    fn of_two_rows_near_one_frame_the_farther_one_is_written() {
        let mut intake = Intake::new(Redaction::default(), 900_000);
        intake.batch(&batch(&[FRAME]));
        read(&mut intake, &[row("2026-11-23T10:44:04.123Z"), row("2026-11-23T10:44:05.124Z")]);
        let times: Vec<String> = records(&intake).iter().map(|r| r["timestamp"].as_str().unwrap().to_owned()).collect();
        assert_eq!(times, ["2026-11-23T10:44:05.123Z", "2026-11-23T10:44:04.123Z"]);
        assert_eq!((intake.tally.written, intake.tally.duplicate), (2, 1));
    }

    #[test]
    fn a_row_without_a_time_is_written_once_however_often_it_is_read() {
        let mut intake = Intake::new(Redaction::default(), 900_000);
        let untimed = row("").replace(r#""dateCreated":"","#, "");
        for _ in 0..3 {
            read(&mut intake, std::slice::from_ref(&untimed));
        }
        assert_eq!((intake.tally.written, intake.tally.duplicate), (1, 2));
    }

    #[test]
    fn the_definitions_fill_in_what_a_row_lacks() {
        let mut intake = Intake::new(Redaction::default(), 900_000);
        let definition = crate::message::Definition {
            id: "AUDIOHOOK-0001".into(),
            name: Some("A \"name\"".into()),
            description: None,
        };
        intake.definitions = Definitions::new(&[definition]);
        read(&mut intake, &[row("2026-11-23T10:44:04.123Z")]);
        let record = &records(&intake)[0];
        assert_eq!(record["event_name"], "A \"name\"");
        assert_eq!(record["topic"], "v2.operations.events.AUDIOHOOK-0001");
        assert_eq!(
            (&record["channel"], &record["entity_type"], &record["description"]),
            (&serde_json::Value::Null, &serde_json::Value::Null, &serde_json::Value::Null)
        );
    }

    #[test]
    fn what_is_to_be_hidden_is_hidden_everywhere_and_the_id_stays() {
        let mut open = Intake::new(Redaction::default(), 900_000);
        open.batch(&batch(&[FRAME]));
        let names = ["phoneNumber".to_owned(), "conversationId".to_owned(), "name".to_owned()];
        let mut hiding = Intake::new(Redaction::new(&names), 900_000);
        hiding.log_samples_wanted = 1;
        hiding.batch(&batch(&[FRAME]));
        let (open, hidden) = (&records(&open)[0], &records(&hiding)[0]);
        assert_eq!(open["id"], hidden["id"]);
        assert_eq!((&hidden["conversation_id"], &hidden["event_name"]), (&"[redacted]".into(), &"[redacted]".into()));
        assert_eq!(hidden["raw_event"]["phoneNumber"], "[redacted]");
        assert_eq!(hidden["raw_event"]["eventEntity"]["name"], "[redacted]");
        assert_eq!(hidden["entity_id"], "e");
        assert_eq!(hiding.log_samples[0].conversation_id, "[redacted]");
    }

    #[test]
    fn events_without_a_time_are_each_written() {
        let frame = FRAME.replace(",\"timestamp\":1795430645123", "");
        let mut intake = Intake::new(Redaction::default(), 900_000);
        intake.batch(&batch(&[&frame, &frame]));
        let ids: Vec<_> = records(&intake).iter().map(|r| r["id"].clone()).collect();
        assert!(ids.len() == 2 && ids[0] != ids[1]);
    }
}
