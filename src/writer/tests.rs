use std::ffi::OsString;
use std::path::PathBuf;

use crossbeam_channel::bounded;

use super::*;
use crate::clock::ManualClock;
use crate::config::Need;
use crate::dedup::Range;
use crate::dedup::index::Index;
use crate::dedup::rows::Span;
use crate::message::{Frames, Page};

const HOUR: Duration = Duration::from_secs(3600);

const NOW: Millis = 1_795_430_645_000;

/// A writer with a manual clock.
fn stage(name: &str) -> (Writer, ManualClock, Arc<Status>, Receiver<SessionEvent>, PathBuf) {
    let folder = std::env::temp_dir().join(format!("audiohook-writer-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (settings, output) = (folder.join("empty.env"), folder.join("events.jsonl"));
    std::fs::write(&settings, "").unwrap();
    let environment = [("OUTPUT_FILE".into(), OsString::from(&output))].into();
    let config = Arc::new(Config::load(Need::Nothing, &environment, Some(&settings)).unwrap());
    let (clock, hand) = Clock::manual(NOW);
    let status = Arc::new(Status::new(clock.clone(), false));
    let (session, heard) = bounded(16);
    let (writer, _) = Writer::open(config, status.clone(), clock, session).unwrap();
    (writer, hand, status, heard, folder)
}

#[test]
fn frames_that_are_not_events_are_reported_for_an_hour_after_the_last() {
    let (mut writer, hand, status, _heard, folder) = stage("frames");
    let rejected = || intake::Quarantined { at: 0, reason: "it is not JSON".to_owned(), frame: b"{".to_vec() };

    writer.quarantine(&[rejected()]);
    hand.advance(HOUR / 2);
    writer.quarantine(&[rejected()]);
    hand.advance(HOUR);
    writer.tick();
    assert!(status.is_raised(Code::UnreadableFrames));
    hand.advance(Duration::from_secs(1));
    writer.tick();
    assert!(!status.is_raised(Code::UnreadableFrames));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_checkpoint_passes_no_row_that_waits_for_others() {
    let (mut writer, _hand, _status, heard, folder) = stage("waits");
    let (_keep, stop) = bounded(0);
    let rows = [NOW + 1_100, NOW + 1_300].map(|time| {
        let time = crate::clock::format_millis(time);
        format!(r#"{{"eventDefinition":{{"id":"AUDIOHOOK-0001"}},"entityId":"e","dateCreated":"{time}"}}"#)
    });
    let mut frames = Frames::default();
    frames.push_text(&format!(
        r#"{{"topicName":"v2.operations.events.AUDIOHOOK-0001","eventBody":{{"eventEntity":{{"id":"AUDIOHOOK-0001"}},"entityId":"e","timestamp":{}}}}}"#,
        NOW + 1_000
    ));
    writer.take_batch(&Batch { connection: 1, channel: "…abcd".into(), received: NOW + 1_050, frames });
    let (body, first) = (rows.concat(), rows[0].len());
    let ids: Arc<[String]> = Arc::from(["AUDIOHOOK-0001".to_owned()]);
    let span = Span { from: NOW - 60_000, to: NOW + 60_000 };
    let page = Page {
        rows: vec![0..first, first..body.len()],
        body,
        received: NOW + 60_000,
        ids: ids.clone(),
        asked: Range { from: span.from, to: span.to },
        is_first: true,
        is_all: true,
    };
    writer.take(WriterCommand::Begin { span, until: span.to, purpose: Purpose::CatchUp }, &stop).unwrap();
    writer.take(WriterCommand::Page(page), &stop).unwrap();
    // A later row could still claim the frame's record.
    writer.take(WriterCommand::ReadUpTo { ids: ids.clone(), up_to: NOW + 1_300 }, &stop).unwrap();
    let records = || std::fs::read_to_string(folder.join("events.jsonl")).unwrap().lines().count();
    assert_eq!((records(), writer.state.checkpoint_ms), (1, Some(NOW + 1_100)));
    let end = WriterCommand::End { ids, up_to: span.to };
    writer.take(end, &stop).unwrap();
    assert_eq!((records(), writer.state.checkpoint_ms), (2, Some(span.to)));
    assert_eq!(writer.state.coverage.get("AUDIOHOOK-0001"), Some(&span.to));
    let done = heard.try_iter().find_map(|event| match event {
        SessionEvent::ReadDone { appended, unjudged_since, .. } => Some((appended, unjudged_since)),
        _ => None,
    });
    assert_eq!(done, Some((1, None)));
    std::fs::remove_dir_all(folder).unwrap();
}

const SECOND: Millis = 1_000;
const MINUTE: Millis = 60 * SECOND;

fn row(entity: &str, time: Option<Millis>) -> String {
    let time = time.map_or(String::new(), |time| format!(r#","dateCreated":"{}""#, crate::clock::format_millis(time)));
    format!(r#"{{"eventDefinition":{{"id":"AUDIOHOOK-0001"}},"entityId":"{entity}"{time}}}"#)
}

fn page_of(row: &str, span: Span, ids: &Arc<[String]>) -> WriterCommand {
    let asked = Range { from: span.from, to: span.to };
    let (body, rows) = (row.to_owned(), std::iter::once(0..row.len()).collect());
    let page = Page { body, rows, received: NOW, ids: ids.clone(), asked, is_first: true, is_all: true };
    WriterCommand::Page(page)
}

/// Records from the files, for one piece of a read.
fn records_of(from: Millis, to: Millis) -> WriterCommand {
    let mut records = Index::new(1_000, 0);
    records.filled_since(from - 8 * SECOND);
    records.filled_until(to + 4 * SECOND);
    WriterCommand::Records(Box::new(records))
}

#[test]
fn a_row_without_a_time_does_not_hold_the_checkpoint_for_ever() {
    let (mut writer, _hand, _status, _heard, folder) = stage("untimed");
    let (_keep, stop) = bounded(0);
    let ids: Arc<[String]> = Arc::from(["AUDIOHOOK-0001".to_owned()]);
    let span = Span { from: NOW - 200 * MINUTE, to: NOW - MINUTE };
    let middle = NOW - 100 * MINUTE;
    // The index has newer records only, and the whole span has too many records to read at once.
    writer.intake.index.filled_since(NOW);
    let read = [
        WriterCommand::Begin { span, until: span.to, purpose: Purpose::CatchUp },
        records_of(span.from, middle),
        page_of(&row("without", None), span, &ids),
        WriterCommand::ReadUpTo { ids: ids.clone(), up_to: middle },
        records_of(middle - 1, span.to),
        page_of(&row("with", Some(middle + MINUTE)), span, &ids),
        page_of(&row("another", None), span, &ids),
        WriterCommand::ReadUpTo { ids: ids.clone(), up_to: span.to },
        WriterCommand::End { ids: ids.clone(), up_to: span.to },
    ];
    read.into_iter().for_each(|command| writer.take(command, &stop).unwrap());
    let records = std::fs::read_to_string(folder.join("events.jsonl")).unwrap().lines().count();
    assert_eq!((records, writer.state.checkpoint_ms), (3, Some(span.to)));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_checkpoint_that_goes_back_takes_every_definition_along() {
    let (mut writer, _hand, _status, _heard, folder) = stage("back");
    let (_keep, stop) = bounded(0);
    let ids: Arc<[String]> = Arc::from(["AUDIOHOOK-0001".to_owned()]);
    // The definitions were read while the service's clock was an hour ahead.
    for id in ["AUDIOHOOK-0001", "AUDIOHOOK-0002"] {
        writer.state.coverage.insert(id.to_owned(), NOW + 60 * MINUTE);
    }
    let span = Span { from: NOW - 15 * MINUTE, to: NOW };
    writer.take(WriterCommand::Begin { span, until: span.to, purpose: Purpose::CatchUp }, &stop).unwrap();
    writer.take(WriterCommand::End { ids, up_to: NOW }, &stop).unwrap();
    assert_eq!(writer.state.coverage.values().max(), Some(&NOW), "{:?}", writer.state.coverage);
    std::fs::remove_dir_all(folder).unwrap();
}
