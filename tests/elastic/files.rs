//! The file as the source: rotated, moved, cut, larger than what may wait.

use std::fs;
use std::io::Write;
use std::time::Duration;

use audiohook_collector::status::Code;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::SOON;
use crate::cluster::fake::{Act, Fake};
use crate::cluster::{Rig, record, records};

#[test]
fn lines_that_are_no_records_are_passed_by() {
    let fake = Fake::start();
    let mut rig = Rig::new("foreign", &[&fake.url]);
    let legacy =
        r#"{"timestamp": "2026-11-20T10:30:45.123456+00:00", "event_id": "AUDIOHOOK-0001", "raw_event": {"a": 1.0}}"#;
    let lines = ["", "plain text", "{\"torn\":", legacy, "[1]", legacy, "{\"timestamp\":\"x\"}"].map(str::to_owned);
    rig.append(&lines);
    rig.start();
    rig.until("the records are there", SOON, |rig| rig.done() == 3);
    rig.until("nothing waits", SOON, |rig| rig.backlog() == 0);
    let state = fake.state();
    assert_eq!(state.documents.len(), 2, "the same line twice is one document");
    let expected = legacy.replacen('{', "{\"@timestamp\":\"2026-11-20T10:30:45.123456+00:00\",", 1);
    assert!(state.documents.values().any(|document| *document == expected));
}

#[test]
fn files_rotated_moved_deleted_and_cut_are_sent_to_their_end() {
    let fake = Fake::start();
    fake.on_bulk(|_| Act::Answer(503, ""));
    let mut rig = Rig::new("moved", &[&fake.url]);
    rig.output.max_file_size = 30_000;
    rig.output.backup_count = 2;
    rig.start();
    rig.append(&records(0..300));
    rig.drive(Duration::from_millis(300));
    assert!(rig.suffixes().len() > 4, "the cluster has had none of {:?}", rig.suffixes());
    // Moved away by somebody, while older files wait.
    fs::rename(&rig.output.file, rig.folder.join("elsewhere")).unwrap();
    rig.begin_anew();
    rig.append(&records(300..320));
    rig.drive(Duration::from_millis(500));
    fs::remove_file(&rig.output.file).unwrap();
    rig.begin_anew();
    rig.append(&records(320..400));
    fake.behave();
    rig.until("all are there", 2 * SOON, |_| fake.documents() == 400);
    rig.until("nothing waits", SOON, |rig| rig.backlog() == 0);
    rig.rotate();
    rig.drive(Duration::from_millis(100));
    assert_eq!(rig.suffixes(), ["", ".1", ".2", "elsewhere"], "what was kept for the cluster alone is gone");
}

#[test]
fn a_file_that_logrotate_copies_and_cuts_loses_nothing() {
    let fake = Fake::start();
    let mut rig = Rig::new("copied", &[&fake.url]);
    rig.output.backup_count = 0;
    rig.start();
    rig.append(&records(0..100));
    rig.until("the first are there", SOON, |rig| rig.done() == 100);
    fake.on_bulk(|_| Act::Answer(503, ""));
    rig.append(&records(100..150));
    rig.drive(Duration::from_millis(300));
    fs::copy(&rig.output.file, rig.folder.join("events.jsonl-20261123")).unwrap();
    fs::OpenOptions::new().write(true).open(&rig.output.file).unwrap().set_len(0).unwrap();
    rig.begin_anew();
    rig.append(&records(150..200));
    fake.behave();
    rig.until("all are there", SOON, |_| fake.documents() == 200);
    rig.until("nothing waits", SOON, |rig| rig.backlog() == 0);
    assert_eq!(rig.status.counters.elastic_exists.get(), 0);
}

#[test]
fn a_cursor_finds_its_file_under_another_name() {
    let fake = Fake::start();
    let mut rig = Rig::new("renamed", &[&fake.url]);
    rig.output.backup_count = 0;
    rig.append(&records(0..100));
    rig.start();
    rig.until("the first are there", SOON, |rig| rig.done() == 100);
    rig.kill();
    rig.append(&records(100..120));
    fs::rename(&rig.output.file, rig.folder.join("events.jsonl-20261123")).unwrap();
    rig.begin_anew();
    rig.append(&records(120..140));
    rig.start();
    rig.until("all are there", SOON, |_| fake.documents() == 140);
    rig.until("nothing waits", SOON, |rig| rig.backlog() == 0);
    assert_eq!(fake.state().arrivals, 140, "nothing is sent again");
}

#[test]
fn a_backlog_beyond_its_limit_is_dropped_and_counted_to_the_event() {
    let fake = Fake::start();
    fake.on_bulk(|_| Act::Answer(503, ""));
    let mut rig = Rig::new("limit", &[&fake.url]);
    rig.output.max_file_size = 20_000;
    rig.output.backup_count = 1;
    rig.elastic.backlog_max = 60_000;
    rig.start();
    for n in 0..400 {
        rig.append(&[record(n)]);
        if n % 40 == 0 {
            rig.drive(Duration::from_millis(50));
        }
    }
    assert!(rig.is_raised(Code::ElasticBacklogDropped));
    fake.behave();
    rig.until("nothing waits", 2 * SOON, |rig| rig.backlog() == 0);
    let dropped = rig.status.counters.elastic_dropped.get() as usize;
    assert!(dropped > 100, "{dropped}");
    assert_eq!(fake.documents() + dropped, 400);
    assert!(fake.state().documents.contains_key(&format!("{:032x}", 399)));
}

#[test]
fn memory_of_what_waits_does_not_grow_with_it() {
    let fake = Fake::start();
    fake.on_bulk(|_| Act::Answer(503, ""));
    let mut rig = Rig::new("flat", &[&fake.url]);
    rig.start();
    rig.append(&records(0..20_000));
    rig.drive(Duration::from_secs(2));
    let largest = fake.state().requests.iter().map(|request| request.body.len()).max().unwrap_or(0);
    assert!(largest < 100_000, "{largest} bytes in one request");
    assert!(rig.backlog() > 10_000_000);
    fake.behave();
    rig.until("all are there", 10 * SOON, |_| fake.documents() == 20_000);
}

#[test]
fn what_stands_in_the_files_in_clear_is_sent_with_its_values_hidden_and_under_the_same_id() {
    let fake = Fake::start();
    let mut rig = Rig::new("redacted", &[&fake.url]);
    let legacy = |n: usize| {
        format!(
            r#"{{"timestamp": "2026-11-20T10:30:45.123456+00:00", "event_id": "AUDIOHOOK-000{n}", "conversation_id": "SECRET", "channel": "streaming-SECRET-1234", "raw_event": {{"eventEntity": {{"id": "AUDIOHOOK-000{n}"}}, "conversationId": "SECRET", "n": 1.0}}}}"#
        )
    };
    let ours = record(7).replace("34c18827", "SECRET").replace("\"n\":7", "\"conversationId\":\"SECRET\",\"n\":7");
    // One collector sent the first of the predecessor's lines before there was anything to hide.
    rig.append(&[legacy(1)]);
    rig.start();
    rig.until("the first is there", SOON, |_| fake.documents() == 1);
    let first = fake.state().documents.values().next().unwrap().clone();
    assert!(first.contains("\"channel\": \"…1234\""), "{first}");
    rig.kill();
    rig.cursor = None;
    rig.output.redact_fields = vec!["conversationId".to_owned()];
    rig.append(&[legacy(2), ours]);
    // The second is refused, and replayed.
    fake.on_item(
        |_, document| if document.contains("AUDIOHOOK-0002") && document.contains("1.0}") { 400 } else { 201 },
    );
    rig.start();
    rig.until("all are judged", SOON, |rig| rig.done() == 4);
    assert_eq!(rig.status.counters.elastic_exists.get(), 1, "the first has the id that it had");
    let letters = rig.dead_letters();
    let id = letters[0]["record"]["id"].as_str().unwrap().to_owned();
    assert_eq!(letters[0]["record"]["raw_event"]["conversationId"], "[redacted]");
    // A letter from before the setting was made.
    let open = format!("{{\"at\":\"x\",\"status\":400,\"reason\":\"r\",\"record\":{}}}\n", legacy(2));
    fs::write(rig.folder.join("events.jsonl.dead"), open).unwrap();
    fake.behave();
    assert!(rig.replay().success);
    let state = fake.state();
    let hidden: Vec<&String> = state.documents.values().filter(|document| **document != first).collect();
    assert_eq!(hidden.len(), 2);
    assert!(
        hidden.iter().all(|document| !document.contains("SECRET") && document.contains("[redacted]")),
        "{hidden:?}"
    );
    assert!(state.documents[&id].contains("AUDIOHOOK-0002"), "the id is made before");
}

#[test]
fn what_logrotate_takes_away_while_the_cluster_is_down_is_counted_after_a_restart() {
    let fake = Fake::start();
    let mut rig = Rig::new("taken", &[&fake.url]);
    rig.output.backup_count = 0;
    rig.start();
    rig.append(&records(0..10));
    rig.until("the first are there", SOON, |rig| rig.done() == 10);
    fake.script(|_| Act::Close);
    rig.append(&records(10..50));
    rig.until("they wait", SOON, |rig| rig.backlog() > 20_000);
    // logrotate renames the file and compresses it, and the collector is restarted.
    rig.begin_anew_after_rename("events.jsonl.1");
    rig.append(&records(50..80));
    rig.drive(Duration::from_millis(300));
    rig.stop();
    assert_eq!(rig.cursor.unwrap().pending, 70);
    let packed = fs::File::create(rig.folder.join("events.jsonl.1.gz")).unwrap();
    let text = fs::read(rig.folder.join("events.jsonl.1")).unwrap();
    GzEncoder::new(packed, Compression::default()).write_all(&text).unwrap();
    fs::remove_file(rig.folder.join("events.jsonl.1")).unwrap();
    rig.start();
    rig.until("said", SOON, |rig| rig.is_raised(Code::ElasticBacklogDropped));
    assert!(
        rig.message(Code::ElasticBacklogDropped).contains("40 events"),
        "{}",
        rig.message(Code::ElasticBacklogDropped)
    );
    fake.behave();
    rig.until("the rest is there", SOON, |_| fake.documents() == 40);
    rig.until("nothing waits", SOON, |rig| rig.backlog() == 0);
    rig.drive(Duration::from_millis(300));
    assert_eq!(rig.status.counters.elastic_dropped.get(), 40, "each is counted once");
    // A later start has nothing more to report.
    rig.stop();
    rig.start();
    rig.drive(Duration::from_millis(500));
    assert_eq!(rig.status.counters.elastic_dropped.get(), 40);
}

#[test]
fn a_file_that_is_compressed_while_the_cluster_is_down_is_sent_as_long_as_the_program_runs() {
    let fake = Fake::start();
    let mut rig = Rig::new("held", &[&fake.url]);
    rig.output.backup_count = 0;
    rig.start();
    rig.until("the template is there", SOON, |_| !fake.state().templates.is_empty());
    fake.script(|_| Act::Close);
    for round in 0..4 {
        rig.append(&records(round * 20..round * 20 + 20));
        rig.drive(Duration::from_millis(400));
        rig.begin_anew_after_rename("events.jsonl.1");
        // What gzip leaves is no file of records, and the file itself has no name any more.
        fs::remove_file(rig.folder.join("events.jsonl.1")).unwrap();
    }
    fake.behave();
    rig.append(&records(80..90));
    rig.until("all are there", SOON, |_| fake.documents() == 90);
    assert_eq!(rig.status.counters.elastic_dropped.get(), 0);
}

#[test]
fn rotations_while_the_files_are_looked_at_hide_none_of_them() {
    let fake = Fake::start();
    let mut rig = Rig::new("busy-folder", &[&fake.url]);
    (rig.output.max_file_size, rig.output.backup_count) = (10_000, 1_000);
    rig.elastic.bulk_size = 7;
    rig.start();
    for n in 0..40 {
        rig.append(&records(n * 50..(n + 1) * 50));
    }
    rig.until("all are judged", 4 * SOON, |rig| rig.done() == 2_000);
    assert_eq!(fake.documents(), 2_000);
    assert!(!rig.is_raised(Code::ElasticBacklogDropped), "{}", rig.message(Code::ElasticBacklogDropped));
}

#[test]
fn a_line_longer_than_any_record_is_passed_and_none_around_it() {
    let fake = Fake::start();
    let mut rig = Rig::new("long-line", &[&fake.url]);
    rig.output.backup_count = 0;
    rig.append_all(&[record(1), "x".repeat(9 * 1024 * 1024), record(2)]);
    rig.start();
    rig.until("both are there", SOON, |_| fake.documents() == 2);
    rig.append_all(&[record(3), "y".repeat(4 * 1024 * 1024), "z".repeat(4 * 1024 * 1024 - 1), record(4)]);
    rig.until("all are there", SOON, |_| fake.documents() == 4);
    rig.until("nothing waits", SOON, |rig| rig.backlog() == 0);
    rig.drive(Duration::from_millis(300));
    assert!(!rig.is_raised(Code::ElasticBacklogDropped), "{}", rig.message(Code::ElasticBacklogDropped));
}

#[test]
fn what_is_deleted_for_its_size_before_it_was_ever_read_is_counted_and_not_sent() {
    let fake = Fake::start();
    let mut rig = Rig::new("unread", &[&fake.url]);
    (rig.output.max_file_size, rig.output.backup_count, rig.elastic.backlog_max) = (4_000, 1, 8_000);
    rig.start();
    rig.until("the template is there", SOON, |_| !fake.state().templates.is_empty());
    // More than once round before the indexer looks at the files.
    for round in 0..10 {
        rig.append(&records(round * 200..round * 200 + 200));
        rig.until("nothing waits", SOON, |rig| rig.backlog() == 0);
        rig.drive(Duration::from_millis(200));
        let dropped = rig.status.counters.elastic_dropped.get() as usize;
        assert_eq!(fake.documents() + dropped, round * 200 + 200);
    }
}

#[test]
fn lines_that_are_counted_late_are_not_lost() {
    let fake = Fake::start();
    let mut rig = Rig::new("late-count", &[&fake.url]);
    rig.start();
    rig.append(&records(0..5));
    rig.until("there", SOON, |rig| rig.done() == 5);
    rig.append_uncounted(&records(5..105));
    rig.append(&records(105..110));
    rig.until("there", SOON, |rig| rig.done() == 110);
    rig.drive(Duration::from_millis(300));
    rig.count(100);
    rig.drive(Duration::from_millis(600));
    assert_eq!(rig.status.counters.elastic_dropped.get(), 0);
}
