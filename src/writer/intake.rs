//! From what came to the lines that are to be written.
//!
//! Deals with: judging frames and rows, dropping doubles, hiding what is to be hidden, formatting, counting. Must never:
//! touch a file, a channel or a clock; it is handed bytes and fills buffers, so that it can be tested with nothing else.

use std::collections::VecDeque;
use std::time::Instant;

use twox_hash::XxHash3_64;

use super::HISTORY_KEPT_MS;
use crate::clock::Millis;
use crate::event::{Definitions, Event, Identity, Origin, RecordWriter, Redaction, Stamps, Verdict, judge_frame};
use crate::message::{Batch, Connection, Control, Frame, Page};
use crate::window::{Moment, Outcome, RECEIPT_DELAY_MS, Sighting, Way, Window};

/// What was met since the last flush: published once the lines are in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub received_websocket: u64,
    pub received_history: u64,
    pub written: u64,
    pub duplicate: u64,
    pub filtered: u64,
    pub unreadable: u64,
    /// The newest event's own time.
    pub newest: Option<Millis>,
}

/// An event to be named in the log.
#[derive(Debug, PartialEq, Eq)]
pub struct Mention {
    pub event_id: String,
    pub event_name: String,
    pub conversation_id: String,
}

/// A frame that is no event, to be kept aside.
#[derive(Debug)]
pub struct Aside {
    pub at: Millis,
    pub reason: String,
    pub frame: Vec<u8>,
}

const DAY_MS: i64 = 24 * 3_600_000;

/// Rows that were put aside are remembered, so many of them: each read of the overlap brings them again.
const ODD_ROWS_MAX: usize = 4096;

/// All that is known while judging, and the buffers that are filled.
pub struct Intake {
    pub window: Window,
    pub definitions: Definitions,
    pub redaction: Redaction,
    /// How long before its receipt a row without a time may have happened.
    pub row_delay_ms: i64,
    scratch: Vec<u8>,
    stamps: Stamps,
    /// The newest rows of the history that were put aside, hashed.
    odd_rows: VecDeque<u64>,
    /// When the first and the last row happened that may stand in the file already, and were not judged for that.
    pub unsure: Option<(Millis, Millis)>,
    /// Whole lines, in order.
    pub lines: Vec<u8>,
    /// Where each of them ends in `lines`.
    pub ends: Vec<usize>,
    pub tally: Tally,
    pub asides: Vec<Aside>,
    pub controls: Vec<(Connection, Control)>,
    pub mentions: Vec<Mention>,
    /// So many more are wanted; the others are only counted.
    pub mentions_wanted: usize,
}

impl Intake {
    /// `overlap_ms`: how far each read of the history goes back.
    pub fn new(redaction: Redaction, overlap_ms: i64) -> Self {
        Self {
            window: Window::default(),
            definitions: Definitions::default(),
            redaction,
            row_delay_ms: overlap_ms + RECEIPT_DELAY_MS,
            scratch: Vec::new(),
            stamps: Stamps::default(),
            odd_rows: VecDeque::new(),
            unsure: None,
            lines: Vec::new(),
            ends: Vec::new(),
            tally: Tally::default(),
            asides: Vec::new(),
            controls: Vec::new(),
            mentions: Vec::new(),
            mentions_wanted: 0,
        }
    }

    /// Bytes that wait to be written, here and aside.
    pub fn bytes(&self) -> usize {
        self.lines.len() + self.asides.iter().map(|aside| aside.frame.len()).sum::<usize>()
    }

    /// Takes what one read of the socket brought.
    pub fn batch(&mut self, batch: &Batch) {
        for frame in batch.frames.iter() {
            match frame {
                Frame::Text(text) => self.frame(text, batch),
                Frame::Unreadable { reason, head } => {
                    self.tally.received_websocket += 1;
                    self.aside(batch.received, reason.to_owned(), head);
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
                self.aside(batch.received, reason, text.as_bytes());
            }
        }
    }

    fn socket_event(&mut self, event: &Event<'_>, batch: &Batch) {
        let identity = Identity::of(event, &mut self.scratch);
        let mut received = batch.received;
        let moment = match event.time {
            Some(time) => Moment::Own(time),
            None => {
                // Two events without a time in one millisecond are two, and so are their ids.
                while self.window.has_receipt(identity.content, received) {
                    received += 1;
                }
                Moment::Receipt { at: received, delay: RECEIPT_DELAY_MS }
            }
        };
        match self.window.offer(Sighting { content: identity.content, way: Way::Socket, moment }) {
            Outcome::New => self.write(event, identity, Origin::Websocket { channel: &batch.channel }, received),
            // The history brings what it displaces.
            Outcome::Duplicate | Outcome::Displaces { .. } | Outcome::Waits => self.tally.duplicate += 1,
        }
    }

    /// Takes a page of the history.
    pub fn page(&mut self, page: &Page, now: Instant) {
        let definitions = std::mem::take(&mut self.definitions);
        for row in self.rows(page, &definitions) {
            if self.is_unsure(&row, page.received) {
                // It is one, or comes again.
                self.tally.duplicate += 1;
                continue;
            }
            match self.window.offer_row(row.sighting, row.event.raw, now) {
                Outcome::New => self.write(&row.event, row.identity, Origin::History, page.received),
                Outcome::Duplicate | Outcome::Displaces { row: None, .. } => self.tally.duplicate += 1,
                // The one is a duplicate for the other, which was counted as one before.
                Outcome::Displaces { moment, row: Some(text) } => {
                    self.write_row(moment, &text, page.received, &definitions);
                }
                // It is counted when it is decided; if it is the other that waits, this one is a duplicate for it.
                Outcome::Waits => {}
            }
        }
        self.definitions = definitions;
    }

    /// Whether the window has forgotten too much to judge this row.
    fn is_unsure(&mut self, row: &Row<'_>, received: Millis) -> bool {
        let Moment::Own(at) = row.sighting.moment else { return false };
        // A time beyond what the service keeps is none to be looked for.
        let is_kept = (received - HISTORY_KEPT_MS - DAY_MS..=received + DAY_MS).contains(&at);
        let is_unsure = is_kept && self.window.may_have_forgotten(row.sighting.moment);
        if is_unsure {
            self.unsure = Some(self.unsure.map_or((at, at), |(first, last)| (first.min(at), last.max(at))));
        }
        is_unsure
    }

    /// Judges again the rows that wait for their like.
    pub fn settle(&mut self, now: Instant, received: Millis) {
        if self.window.oldest_waiting().is_none() {
            return;
        }
        let settled = self.window.settle(now);
        self.tally.duplicate += settled.duplicates;
        let definitions = std::mem::take(&mut self.definitions);
        settled.new.iter().for_each(|(row, text)| self.write_row(row.moment, text, received, &definitions));
        self.definitions = definitions;
    }

    /// Writes a row that was not written when it came: it looked like a record's twin, or waited.
    fn write_row(&mut self, moment: Moment, text: &str, received: Millis, definitions: &Definitions) {
        let received = if let Moment::Receipt { at, .. } = moment { at } else { received };
        // It was judged when it came.
        let Ok(Some(event)) = definitions.judge(text, received) else { return };
        let identity = Identity::of(&event, &mut self.scratch);
        self.write(&event, identity, Origin::History, received);
    }

    /// Takes rows that an audit found missing: they are written whatever the window says, which no longer reaches back
    /// that far.
    pub fn repair(&mut self, page: &Page) {
        self.append(page, |_, _| false);
    }

    /// Takes rows that were not judged and that the file does not hold. Only what came since it was read may be one of
    /// them.
    pub fn missing(&mut self, page: &Page) {
        self.append(page, Window::has_record_of);
    }

    /// Writes the rows of a page, but for those that are there.
    fn append(&mut self, page: &Page, is_there: impl Fn(&Window, Sighting) -> bool) {
        let definitions = std::mem::take(&mut self.definitions);
        for row in self.rows(page, &definitions) {
            if is_there(&self.window, row.sighting) {
                self.tally.duplicate += 1;
                continue;
            }
            self.window.note(row.sighting);
            self.write(&row.event, row.identity, Origin::History, page.received);
        }
        self.definitions = definitions;
    }

    fn rows<'a>(&mut self, page: &'a Page, definitions: &'a Definitions) -> Vec<Row<'a>> {
        let mut rows = Vec::with_capacity(page.rows.len());
        for range in &page.rows {
            let text = &page.body[range.clone()];
            self.tally.received_history += 1;
            let event = match definitions.judge(text, page.received) {
                Ok(Some(event)) => event,
                Ok(None) => {
                    self.tally.filtered += 1;
                    continue;
                }
                Err(_) if self.was_put_aside(text) => {
                    self.tally.duplicate += 1;
                    continue;
                }
                Err(fault) => {
                    self.aside(page.received, format!("a row of the history is no event: {fault}"), text.as_bytes());
                    continue;
                }
            };
            let identity = Identity::of(&event, &mut self.scratch);
            let moment =
                event.time.map_or(Moment::Receipt { at: page.received, delay: self.row_delay_ms }, Moment::Own);
            let sighting = Sighting { content: identity.content, way: Way::History, moment };
            rows.push(Row { event, identity, sighting });
        }
        rows
    }

    fn write(&mut self, event: &Event<'_>, identity: Identity, origin: Origin<'_>, received: Millis) {
        let id = identity.at(event.time.unwrap_or(received));
        let hidden;
        let mut shown = *event;
        if self.redaction.is_on() {
            // What came was read as JSON before.
            hidden = self.redaction.apply(event.raw).unwrap_or_else(|_| "{}".to_owned());
            (shown.raw, shown.raw_spaced) = (&hidden, false);
        }
        let mut writer = RecordWriter { redaction: &self.redaction, stamps: &mut self.stamps };
        writer.push(&mut self.lines, &shown, origin, id, received);
        self.ends.push(self.lines.len());
        self.tally.written += 1;
        let time = event.time.unwrap_or(received);
        self.tally.newest = Some(self.tally.newest.map_or(time, |newest| newest.max(time)));
        if self.mentions.len() < self.mentions_wanted {
            let text = |name, field| self.redaction.shown(name, field).decoded().into_owned();
            self.mentions.push(Mention {
                event_id: text("event_id", event.definition),
                event_name: text("event_name", event.name),
                conversation_id: text("conversation_id", event.conversation_id),
            });
        }
    }

    /// Whether this very row was put aside before; from now on it was.
    fn was_put_aside(&mut self, row: &str) -> bool {
        let row = XxHash3_64::oneshot(row.as_bytes());
        if self.odd_rows.contains(&row) {
            return true;
        }
        if self.odd_rows.len() == ODD_ROWS_MAX {
            self.odd_rows.pop_front();
        }
        self.odd_rows.push_back(row);
        false
    }

    fn aside(&mut self, at: Millis, reason: String, frame: &[u8]) {
        self.tally.unreadable += 1;
        self.asides.push(Aside { at, reason, frame: frame.to_vec() });
    }
}

struct Row<'a> {
    event: Event<'a>,
    identity: Identity,
    sighting: Sighting,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Frames;
    use crate::window::{EVENTS_MAX, WAIT};

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
        Page { body, rows: ranges, received: 1_795_430_700_000 }
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
        intake.page(
            &page(&[row("2026-11-23T10:44:05.500Z"), row("2026-11-23T10:44:15.123Z"), "5".into(), "{}".into()]),
            Instant::now(),
        );
        let t = &intake.tally;
        assert_eq!((t.received_websocket, t.received_history), (4, 4));
        assert_eq!((t.written, t.duplicate, t.filtered, t.unreadable), (2, 2, 2, 2));
        assert_eq!(intake.controls, [(1, Control::SocketClosing)]);
        assert_eq!(records(&intake).len(), 2);
        assert_eq!(intake.ends.last(), Some(&intake.lines.len()));
    }

    #[test]
    fn a_row_that_is_no_event_is_put_aside_once_however_often_it_is_read() {
        let mut intake = Intake::new(Redaction::default(), 900_000);
        for _ in 0..3 {
            intake.page(&page(&["5".into(), row("2026-11-23T10:44:05.500Z"), "[6]".into()]), Instant::now());
        }
        let t = &intake.tally;
        assert_eq!((t.received_history, t.written, t.duplicate, t.unreadable), (9, 1, 6, 2));
        assert_eq!(intake.asides.len(), 2);
    }

    #[test]
    fn a_row_that_may_have_been_forgotten_is_not_judged_until_the_file_was_looked_at() {
        let mut intake = Intake::new(Redaction::default(), 900_000);
        let forgotten = crate::clock::parse_instant("2026-11-23T10:40:00Z").unwrap();
        for n in 0..=EVENTS_MAX as u64 {
            let moment = Moment::Own(forgotten + n as i64 / 1_000);
            let content = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            intake.window.note(Sighting { content, way: Way::Socket, moment });
        }
        let rows = [row("2026-11-23T10:39:00.000Z"), row("2026-11-23T10:40:01.000Z"), row("2026-11-23T10:44:05.500Z")];
        // The service keeps nothing that is as old.
        let absurd = row("1970-01-01T00:00:01.000Z");
        intake.page(&page(&[&rows[..], &[absurd]].concat()), Instant::now());
        assert_eq!(intake.unsure, Some((forgotten - 60_000, forgotten + 1_000)));
        assert_eq!((intake.tally.written, intake.tally.duplicate), (2, 2));
        // One of them came on the socket while the file was read.
        intake.batch(&batch(&[&FRAME.replace("1795430645123", &(forgotten + 1_000).to_string())]));
        intake.missing(&page(&rows[..2]));
        assert_eq!((intake.tally.written, intake.tally.duplicate, intake.tally.received_history), (4, 3, 6));
    }

    #[test]
    fn a_row_that_only_looked_like_the_twin_is_written_when_it_has_waited() {
        let (mut intake, now) = (Intake::new(Redaction::default(), 900_000), Instant::now());
        intake.batch(&batch(&[FRAME]));
        intake.page(&page(&[row("2026-11-23T10:44:04.123Z"), row("2026-11-23T10:44:05.124Z")]), now);
        // One of the rows is a duplicate; the other is nothing yet.
        assert_eq!((intake.tally.written, intake.tally.duplicate), (1, 1));
        intake.settle(now, 1_795_430_700_000);
        assert_eq!(intake.tally.written, 1);
        intake.settle(now + WAIT, 1_795_430_705_000);
        let times: Vec<String> = records(&intake).iter().map(|r| r["timestamp"].as_str().unwrap().to_owned()).collect();
        assert_eq!(times, ["2026-11-23T10:44:05.123Z", "2026-11-23T10:44:04.123Z"]);
        assert_eq!((intake.tally.written, intake.tally.duplicate), (2, 1));
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
        intake.page(&page(&[row("2026-11-23T10:44:04.123Z")]), Instant::now());
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
        hiding.mentions_wanted = 1;
        hiding.batch(&batch(&[FRAME]));
        let (open, hidden) = (&records(&open)[0], &records(&hiding)[0]);
        assert_eq!(open["id"], hidden["id"]);
        assert_eq!((&hidden["conversation_id"], &hidden["event_name"]), (&"[redacted]".into(), &"[redacted]".into()));
        assert_eq!(hidden["raw_event"]["phoneNumber"], "[redacted]");
        assert_eq!(hidden["raw_event"]["eventEntity"]["name"], "[redacted]");
        assert_eq!(hidden["entity_id"], "e");
        assert_eq!(hiding.mentions[0].conversation_id, "[redacted]");
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
