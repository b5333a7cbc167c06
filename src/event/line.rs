//! Reads back what deduplication, the cluster and the audit need from a line of the output file.
//!
//! The predecessor's records have no id, and their `timestamp` is the time of receipt. Their id is derived from their
//! content, so that it is the same in every run.

use super::{Event, Field, Id, Identity, frame, row};
use crate::clock::{Millis, parse_instant};
use crate::json::{Kind, Result, Scanner};

/// A record read back.
#[derive(Clone, Debug)]
pub struct Line<'a> {
    pub id: Id,
    /// Whether the event came from the history. The predecessor used only the socket.
    pub from_history: bool,
    /// The event's own time, if it has one.
    pub own_time: Option<Millis>,
    /// The time of receipt, if the line has one.
    pub received: Option<Millis>,
    /// Whether the predecessor wrote the record; it has no id then.
    pub legacy: bool,
    pub event_id: Field<'a>,
}

/// Reads a record. `buffer` is scratch space.
///
/// # Errors
/// When the line is not a JSON object. A line without a time or content still counts as a record.
pub fn read_line<'a>(text: &'a str, buffer: &mut Vec<u8>) -> Result<Line<'a>> {
    let mut scanner = Scanner::new(text);
    let (mut timestamp, mut received, mut source, mut id, mut raw) =
        (Field::Absent, Field::Absent, Field::Absent, Field::Absent, None);
    let mut flat = Event::default();
    scanner.object(|scanner, key| {
        let value = scanner.value()?;
        let field = Field::from_value(value);
        match key.raw() {
            "timestamp" => timestamp = field,
            "received_at" => received = field,
            "source" => source = field,
            "id" => id = field,
            "event_id" => flat.definition = field,
            "entity_id" => flat.entity_id = field,
            "conversation_id" => flat.conversation_id = field,
            "error_code" => flat.error_code = field,
            "previous_value" => flat.previous_value = field,
            "current_value" => flat.current_value = field,
            "raw_event" => raw = (value.kind == Kind::Object).then_some(value.raw),
            _ => {}
        }
        Ok(())
    })?;
    scanner.end()?;
    let instant = |field: Field<'_>| parse_instant(&field.decoded());
    let (stamp, from_history) = (instant(timestamp), source.decoded() == "history");
    if let Some(id) = Id::parse(&id.decoded()) {
        let received = instant(received);
        // If the record's time equals its receipt, the event may have no time of its own: only then parse the event.
        let own_time = match stamp {
            Some(at) if stamp == received => raw.and_then(|raw| own_time(raw, from_history, at)),
            stamp => stamp,
        };
        return Ok(Line { id, from_history, own_time, received, legacy: false, event_id: flat.definition });
    }
    let body = match raw {
        Some(raw) => frame::read_body(&mut Scanner::new(raw))?,
        None => flat,
    };
    let body = body.without_impossible_time(stamp.unwrap_or(Millis::MAX));
    let identity = Identity::of(&body, buffer);
    // The id needs an instant: the event's own, else the receipt, which does not change in the file.
    let id = identity.at(body.time.or(stamp).unwrap_or(0));
    Ok(Line { id, from_history: false, own_time: body.time, received: stamp, legacy: true, event_id: flat.definition })
}

/// The event's own time.
fn own_time(raw: &str, from_history: bool, received: Millis) -> Option<Millis> {
    let mut scanner = Scanner::new(raw);
    let event = if from_history { row::read_row(&mut scanner) } else { frame::read_body(&mut scanner) };
    event.ok()?.without_impossible_time(received).time
}

#[cfg(test)]
mod tests {
    use super::super::{Origin, RecordWriter, Redaction, Verdict, judge_frame};
    use super::*;

    const RECEIVED: Millis = 1_795_430_645_500;

    #[test]
    fn a_record_is_read_back_as_it_was_written() {
        let redaction = Redaction::default();
        let mut stamps = super::super::Stamps::default();
        let mut writer = RecordWriter { redaction: &redaction, stamps: &mut stamps };
        for (time, own) in [
            (r#","timestamp":1795430645123"#, Some(1_795_430_645_123)),
            (r#","timestamp":1795430645"#, Some(1_795_430_645_000)),
            (r#","timestamp":17954306"#, None),
            (r#","timestamp":1895430645123"#, None),
            ("", None),
        ] {
            let frame = format!(
                "{{\"topicName\":\"v2.operations.events.AUDIOHOOK-0001\",\"eventBody\":{{\"eventEntity\":{{\"id\":\"AUDIOHOOK-0001\"}},\n\"errorCode\":\"a\\\"b\",\"n\":1.0{time}}}}}"
            );
            let Verdict::Event(event) = judge_frame(&frame, RECEIVED) else { panic!() };
            let identity = Identity::of(&event, &mut Vec::new());
            let id = identity.at(event.time.unwrap_or(RECEIVED));
            let mut out = Vec::new();
            writer.push(&mut out, &event, Origin::Websocket { channel: "…abcd" }, id, RECEIVED);
            let line = String::from_utf8(out).unwrap();
            assert_eq!(line.matches('\n').count(), 1);
            let record: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(record["error_code"], "a\"b");
            assert_eq!(record["channel"], "…abcd");
            assert!(line.contains("\"n\":1.0"));
            let read = read_line(line.trim_end(), &mut Vec::new()).unwrap();
            assert_eq!(
                (read.id, read.own_time, read.received, read.from_history, read.legacy),
                (id, own, Some(RECEIVED), false, false)
            );
        }
    }

    #[test]
    fn the_predecessors_record_gets_its_events_id() {
        let body = r#"{"eventEntity": {"id": "AUDIOHOOK-0001"}, "entityId": "e", "conversationId": "c", "timestamp": 1795430645123}"#;
        let line = format!(
            r#"{{"timestamp": "2026-11-23T10:44:06.123456+00:00", "event_type": "audiohook_operational", "event_id": "AUDIOHOOK-0001", "raw_event": {body}}}"#
        );
        let read = read_line(&line, &mut Vec::new()).unwrap();
        let frame = format!(r#"{{"eventBody":{body}}}"#);
        let Verdict::Event(event) = judge_frame(&frame, RECEIVED) else { panic!() };
        assert_eq!(read.id, Identity::of(&event, &mut Vec::new()).at(1_795_430_645_123));
        assert!(read.legacy && read.received == parse_instant("2026-11-23T10:44:06.123Z"));
    }

    #[test]
    fn a_predecessors_record_without_its_event_has_an_id_too() {
        let line = r#"{"timestamp": "2026-11-20T10:30:45.123456+00:00", "event_id": "AUDIOHOOK-0001", "conversation_id": "c", "entity_id": "e"}"#;
        let (one, two) = (read_line(line, &mut Vec::new()).unwrap(), read_line(line, &mut Vec::new()).unwrap());
        assert_eq!(one.id, two.id);
        assert_eq!(one.own_time, None);
    }
}
