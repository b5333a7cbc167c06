//! The cluster's side through the front door: a real file, a sink, and a cluster that misbehaves.

mod cluster;

use std::fs;
use std::time::{Duration, Instant};

use audiohook_collector::status::Code;
use cluster::fake::{Act, Fake};
use cluster::{Rig, record, records};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn every_event_lands_once_as_the_record_and_its_time() {
    let fake = Fake::start();
    let mut rig = Rig::new("once", &[&fake.url]);
    rig.append(&records(0..30));
    rig.start();
    rig.append(&records(30..333));
    rig.until("all are there", SOON, |_| fake.documents() == 333);
    rig.until("the backlog is empty", SOON, |rig| rig.backlog() == 0);
    let state = fake.state();
    let expected = record(7).replacen('{', "{\"@timestamp\":\"2026-11-20T10:30:45.007Z\",", 1);
    assert_eq!(state.documents[&format!("{:032x}", 7)], expected);
    assert!(state.requests.iter().filter(|r| r.is_bulk()).all(|r| r.encoding.as_deref() == Some("gzip")));
    assert!(state.requests.iter().filter(|r| r.is_bulk()).all(|r| r.documents() <= 50));
    assert_eq!(state.connections, 1, "the connection is kept");
    assert_eq!(state.arrivals, 333);
    let template = &state.templates["audiohook-collector-genesys-audiohook"];
    assert!(template.contains("raw_event"));
    drop(state);
    assert_eq!(rig.status.health().elastic.unwrap().server.as_deref(), Some("OpenSearch 2.19.1"));
    assert_eq!(rig.status.counters.elastic_created.get(), 333);
}

#[test]
fn a_second_start_and_a_lost_cursor_add_nothing() {
    let fake = Fake::start();
    let mut rig = Rig::new("second", &[&fake.url]);
    rig.output.max_file_size = 20_000;
    rig.append(&records(0..100));
    rig.start();
    rig.until("all are there", SOON, |_| fake.documents() == 100);
    rig.until("judged", SOON, |rig| rig.backlog() == 0);
    rig.kill();
    rig.start();
    rig.append(&records(100..110));
    rig.until("the new ones are there", SOON, |_| fake.documents() == 110);
    assert_eq!(fake.state().arrivals, 110, "nothing is sent again");
    rig.kill();
    rig.cursor = None;
    rig.start();
    rig.until("all were looked at", SOON, |rig| rig.status.counters.elastic_exists.get() == 110);
    assert_eq!(fake.documents(), 110);
}

#[test]
fn of_ten_per_cent_put_off_and_ten_refused_none_is_lost() {
    let fake = Fake::start();
    let mut n = 0u32;
    fake.on_item(move |_, document| {
        n += 1;
        if document.contains("7\",\"raw_event") {
            400
        } else if n.is_multiple_of(10) {
            429
        } else {
            201
        }
    });
    let mut rig = Rig::new("tenth", &[&fake.url]);
    rig.output.max_file_size = 1_000_000;
    rig.append(&records(0..5000));
    rig.start();
    rig.until("all are judged", 2 * SOON, |rig| rig.done() == 5000);
    rig.until("the backlog is empty", SOON, |rig| rig.backlog() == 0);
    let refused: Vec<usize> = (0..5000).filter(|n| n % 16 == 7).collect();
    assert_eq!(fake.documents(), 5000 - refused.len());
    let mut letters: Vec<u64> =
        rig.dead_letters().iter().map(|letter| letter["record"]["raw_event"]["n"].as_u64().unwrap()).collect();
    letters.sort_unstable();
    assert_eq!(letters, refused.iter().map(|n| *n as u64).collect::<Vec<_>>());
    assert!(rig.is_raised(Code::DeadLetters));
    assert!(!rig.is_raised(Code::ElasticUnreachable));
    let exists = rig.status.counters.elastic_exists.get();
    assert_eq!(exists, 0, "a document that was taken is not sent again");
}

#[test]
fn an_answer_that_hangs_halfway_is_given_up_and_nothing_is_doubled() {
    let fake = Fake::start();
    let mut first = true;
    fake.on_bulk(move |_| if std::mem::take(&mut first) { Act::HangHalfway } else { Act::Serve });
    let mut rig = Rig::new("halfway", &[&fake.url]);
    rig.append(&records(0..10));
    rig.start();
    rig.until("said", Duration::from_secs(10), |rig| rig.is_raised(Code::ElasticUnreachable));
    rig.append(&records(10..20));
    rig.until("all are judged", SOON, |rig| rig.done() == 20);
    assert_eq!(fake.documents(), 20);
    assert_eq!(rig.status.counters.elastic_exists.get(), 10);
    assert!(!rig.is_raised(Code::ElasticUnreachable));
}

#[test]
fn a_cluster_that_hangs_is_said_in_time_and_its_return_is_seen_in_time() {
    let fake = Fake::start();
    let mut rig = Rig::new("hang", &[&fake.url]);
    rig.start();
    rig.append(&records(0..10));
    rig.until("the first are there", SOON, |rig| rig.done() == 10);
    fake.script(|_| Act::Hang);
    rig.append(&records(10..20));
    rig.until("said", Duration::from_secs(10), |rig| rig.is_raised(Code::ElasticUnreachable));
    rig.drive(Duration::from_secs(20));
    fake.behave();
    rig.append(&records(20..30));
    rig.until("back", Duration::from_secs(10), |rig| rig.done() == 30 && !rig.is_raised(Code::ElasticUnreachable));
    assert_eq!(fake.documents(), 30);
}

#[test]
fn a_login_page_with_200_is_a_failure_and_a_redirect_is_not_followed() {
    let fake = Fake::start();
    let other = Fake::start();
    fake.on_bulk(|_| Act::Answer(200, "<html>Please log in</html>"));
    let mut rig = Rig::new("page", &[&fake.url]);
    rig.start();
    rig.append(&records(0..10));
    rig.until("said", Duration::from_secs(10), |rig| rig.is_raised(Code::ElasticUnreachable));
    assert!(rig.message(Code::ElasticUnreachable).contains("login page"), "{}", rig.message(Code::ElasticUnreachable));
    let location: &'static str = Box::leak(format!("location: {}/\r\n", other.url).into_boxed_str());
    fake.on_bulk(move |_| Act::AnswerWith(302, location, ""));
    rig.until("said", SOON, |rig| rig.message(Code::ElasticUnreachable).contains("redirect"));
    assert_eq!(other.state().requests.len(), 0);
    fake.behave();
    rig.until("all are there", SOON, |_| fake.documents() == 10);
}

#[test]
fn a_refused_login_holds_everything_and_says_so_at_once() {
    let fake = Fake::start();
    fake.script(|_| Act::Answer(401, r#"{"error":{"type":"security_exception","reason":"no"},"status":401}"#));
    let mut rig = Rig::new("login", &[&fake.url]).with_login("Basic dXNlcjpwYXNz");
    rig.append(&records(0..10));
    rig.start();
    rig.until("said", Duration::from_secs(10), |rig| rig.is_raised(Code::ElasticRefused));
    rig.drive(Duration::from_secs(12));
    assert!(rig.is_raised(Code::ElasticRefused) && !rig.is_raised(Code::ElasticUnreachable));
    assert!(!rig.message(Code::ElasticRefused).contains("dXNlcjpwYXNz"));
    let tries = fake.state().requests.len();
    assert!(tries <= 3, "{tries} tries within 12 s");
    assert_eq!(fake.state().requests[0].authorization.as_deref(), Some("Basic dXNlcjpwYXNz"));
    fake.behave();
    rig.until("all are there", 2 * SOON, |_| fake.documents() == 10);
    rig.until("over", SOON, |rig| !rig.is_raised(Code::ElasticRefused));
    assert!(rig.dead_letters().is_empty());
}

#[test]
fn a_request_that_is_too_large_is_halved_and_a_document_too_large_alone_is_a_dead_letter() {
    let fake = Fake::start();
    fake.on_bulk(|request| if request.body.len() > 20_000 { Act::Answer(413, "") } else { Act::Serve });
    let mut rig = Rig::new("large", &[&fake.url]);
    let mut lines = records(0..100);
    lines.insert(50, cluster::record_with(1000, "null", 30_000));
    rig.append(&lines);
    rig.start();
    rig.until("all are judged", SOON, |rig| rig.done() == 101);
    assert_eq!(fake.documents(), 100);
    let letters = rig.dead_letters();
    assert_eq!((letters.len(), letters[0]["status"].as_u64()), (1, Some(413)));
    assert_eq!(letters[0]["record"]["raw_event"]["n"], 1000);
}

#[test]
fn the_time_that_the_cluster_asks_for_is_kept_to() {
    let fake = Fake::start();
    let mut first = true;
    fake.on_bulk(
        move |_| {
            if std::mem::take(&mut first) { Act::AnswerWith(503, "retry-after: 6\r\n", "") } else { Act::Serve }
        },
    );
    let mut rig = Rig::new("asks", &[&fake.url]);
    rig.append(&records(0..10));
    rig.start();
    rig.until("all are there", SOON, |_| fake.documents() == 10);
    let bulks = fake.bulks();
    assert!(bulks[1].0 - bulks[0].0 >= Duration::from_secs(6), "{bulks:?}");
}

#[test]
fn of_two_nodes_the_one_that_works_takes_all_and_the_other_comes_back() {
    let (one, two) = (Fake::start(), Fake::start());
    let mut rig = Rig::new("nodes", &[&one.url, &two.url]);
    rig.start();
    rig.append(&records(0..200));
    rig.until("both took some", SOON, |_| one.documents() > 0 && two.documents() > 0);
    one.script(|_| Act::Close);
    rig.append(&records(200..400));
    rig.until("all are judged", SOON, |rig| rig.done() == 400);
    assert!(!rig.is_raised(Code::ElasticUnreachable));
    one.behave();
    let before = one.documents();
    let deadline = Instant::now() + 2 * SOON;
    let mut n = 400;
    while one.documents() == before {
        assert!(Instant::now() < deadline, "the first node does not come back");
        rig.append(&[record(n)]);
        n += 1;
        rig.drive(Duration::from_millis(200));
    }
}

#[test]
fn a_path_before_the_api_is_kept() {
    let fake = Fake::start();
    let url = format!("{}/search/here", fake.url);
    let mut rig = Rig::new("prefix", &[&url]);
    rig.append(&records(0..10));
    rig.start();
    rig.until("all are there", SOON, |_| fake.documents() == 10);
    assert!(fake.state().requests.iter().all(|request| request.path.starts_with("/search/here/")));
}

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
    rig.until("all are there", 3 * SOON, |_| fake.documents() == 20_000);
}
