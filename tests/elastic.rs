//! The cluster's side through the front door: a real file, a sink, and a cluster that misbehaves.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod cluster;
mod support;

use std::fs;
use std::time::{Duration, Instant};

use audiohook_collector::status::Code;
use cluster::fake::{Act, Fake};
use cluster::{Rig, record, records};
use support::Authority;

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
fn a_document_that_is_refused_again_after_the_cursor_was_lost_is_one_dead_letter() {
    let fake = Fake::start();
    let refuse = |_: &str, document: &str| if document.contains(r#""n":7"#) { 400 } else { 201 };
    fake.on_item(refuse);
    let mut rig = Rig::new("again", &[&fake.url]);
    // The predecessor's have no id of their own.
    let id = format!(",\"id\":\"{:032x}\"", 7);
    let mut first = records(0..10);
    first[7] = first[7].replace(&id, "");
    rig.append(&first);
    rig.start();
    rig.until("all are judged", SOON, |rig| rig.done() == 10);
    rig.kill();
    rig.cursor = None;
    rig.append(&records(70..72));
    let arrivals = fake.state().arrivals;
    rig.start();
    rig.until("all came again", SOON, |_| fake.state().arrivals == arrivals + 12);
    rig.until("the new ones are judged", SOON, |rig| rig.dead_letters().len() == 3);
    rig.drive(Duration::from_secs(1));
    let numbers: Vec<u64> =
        rig.dead_letters().iter().map(|letter| letter["record"]["raw_event"]["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [7, 70, 71]);
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
    rig.until("all are there", 10 * SOON, |_| fake.documents() == 20_000);
}

#[test]
fn a_private_ca_and_a_password_are_enough_and_without_the_ca_nothing_goes() {
    let authority = Authority::new();
    let fake = Fake::with_tls(authority.identity(&["127.0.0.1"]));
    let mut rig = Rig::new("tls", &[&fake.url]).with_login("Basic dXNlcjpwYXNz");
    rig.append(&records(0..20));
    rig.start();
    rig.until("said", Duration::from_secs(10), |rig| rig.is_raised(Code::ElasticUnreachable));
    assert!(rig.message(Code::ElasticUnreachable).contains("ELASTIC_CA_FILE"), "{:?}", rig.status.health());
    assert_eq!(fake.state().requests.len(), 0);
    rig.kill();
    let ca_file = rig.folder.join("ca.pem");
    fs::write(&ca_file, authority.certificate_pem()).unwrap();
    rig.elastic.ca_file = Some(ca_file);
    rig.start();
    rig.until("all are there", SOON, |_| fake.documents() == 20);
    let state = fake.state();
    assert!(state.requests.iter().all(|request| request.authorization.as_deref() == Some("Basic dXNlcjpwYXNz")));
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let authority = Authority::new();
    let fake = Fake::with_tls(authority.identity(&["127.0.0.2"]));
    let mut rig = Rig::new("name", &[&fake.url]);
    let ca_file = rig.folder.join("ca.pem");
    fs::write(&ca_file, authority.certificate_pem()).unwrap();
    rig.elastic.ca_file = Some(ca_file);
    rig.append(&records(0..20));
    rig.start();
    rig.until("said", Duration::from_secs(10), |rig| rig.is_raised(Code::ElasticUnreachable));
    assert_eq!(fake.state().requests.len(), 0);
}

#[test]
fn a_replay_sends_what_is_mended_and_keeps_what_is_refused_again() {
    let fake = Fake::start();
    fake.on_item(|id, _| if id.ends_with(['0', '5']) { 400 } else { 201 });
    let mut rig = Rig::new("replay", &[&fake.url]);
    rig.append(&records(0..500));
    rig.start();
    rig.until("all are judged", SOON, |rig| rig.done() == 500);
    let refused = rig.dead_letters().len();
    assert_eq!(fake.documents() + refused, 500);
    fake.on_item(|id, _| if id.ends_with('0') { 400 } else { 201 });
    let replayed = rig.replay();
    let left = rig.dead_letters();
    assert!(!replayed.success);
    assert!(replayed.shown.contains(&format!("{} sent", refused - left.len())), "{}", replayed.shown);
    assert!(replayed.shown.contains(&format!("{} refused again", left.len())), "{}", replayed.shown);
    assert_eq!(fake.documents() + left.len(), 500);
    assert!(left.iter().all(|letter| letter["record"]["id"].as_str().unwrap().ends_with('0')));
    fake.behave();
    assert!(rig.replay().success);
    assert_eq!(fake.documents(), 500);
    assert_eq!(rig.suffixes(), [""], "nothing is left behind");
    rig.until("over", Duration::from_secs(10), |rig| !rig.is_raised(Code::DeadLetters));
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
fn a_replay_that_was_killed_is_gone_on_with_and_a_letter_that_is_none_stays() {
    let fake = Fake::start();
    let rig = Rig::new("replay-killed", &[&fake.url]);
    let letter = |n: usize| format!("{{\"at\":\"x\",\"status\":400,\"reason\":\"r\",\"record\":{}}}\n", record(n));
    // One was done before the kill; new letters have come since.
    let left = format!("#{}{}no letter\n", &letter(1)[1..], letter(2));
    fs::write(rig.folder.join("events.jsonl.dead.replaying"), left).unwrap();
    fs::write(rig.folder.join("events.jsonl.dead"), letter(3)).unwrap();
    let replayed = rig.replay();
    assert!(!replayed.success && replayed.shown.contains("3 dead letters"), "{}", replayed.shown);
    let ids: Vec<String> = fake.state().documents.keys().cloned().collect();
    assert_eq!(ids, [2, 3].map(|n| format!("{n:032x}")));
    assert_eq!(fs::read_to_string(rig.folder.join("events.jsonl.dead")).unwrap(), "no letter\n");
    assert_eq!(rig.suffixes(), ["", ".dead"]);
}

#[test]
fn a_replay_to_a_cluster_that_refuses_the_login_gives_every_letter_back() {
    let fake = Fake::start();
    let rig = Rig::new("replay-refused", &[&fake.url]);
    let letter = |n: usize| format!("{{\"at\":\"x\",\"status\":400,\"reason\":\"r\",\"record\":{}}}\n", record(n));
    let letters: String = (0..120).map(letter).collect();
    fs::write(rig.folder.join("events.jsonl.dead"), &letters).unwrap();
    let mut first = true;
    fake.on_bulk(move |_| if std::mem::take(&mut first) { Act::Serve } else { Act::Answer(403, "{}") });
    let replayed = rig.replay();
    assert!(!replayed.success && replayed.shown.contains("70 not sent"), "{}", replayed.shown);
    assert_eq!((rig.dead_letters().len(), fake.documents()), (70, 50));
    fake.behave();
    assert!(rig.replay().success);
    assert_eq!(fake.documents(), 120);
}

#[test]
fn a_request_that_is_not_understood_is_narrowed_down_to_the_document_that_is_the_cause() {
    let fake = Fake::start();
    fake.on_bulk(|request| {
        let poison = format!("{:032x}", 13);
        if String::from_utf8_lossy(&request.body).contains(&poison) { Act::Answer(400, "{}") } else { Act::Serve }
    });
    let mut rig = Rig::new("narrowed", &[&fake.url]);
    rig.append(&records(0..50));
    rig.start();
    rig.until("all are judged", SOON, |rig| rig.done() == 50);
    assert_eq!(fake.documents(), 49);
    assert_eq!(rig.dead_letters()[0]["record"]["raw_event"]["n"], 13);
}

#[test]
fn an_address_that_understands_nothing_makes_no_dead_letters() {
    let fake = Fake::start();
    fake.on_bulk(|_| Act::Answer(400, r#"{"error":"no handler found for uri [/x/_bulk] and method [POST]"}"#));
    let mut rig = Rig::new("nothing", &[&fake.url]);
    rig.append(&records(0..50));
    rig.start();
    rig.until("said", Duration::from_secs(10), |rig| rig.is_raised(Code::ElasticUnreachable));
    assert!(rig.message(Code::ElasticUnreachable).contains("no handler found"));
    rig.drive(Duration::from_secs(5));
    assert!(rig.dead_letters().is_empty());
    fake.behave();
    rig.until("all are there", SOON, |_| fake.documents() == 50);
}

#[test]
fn at_a_stop_what_waits_for_others_goes_at_once() {
    let fake = Fake::start();
    let mut rig = Rig::new("stop", &[&fake.url]);
    rig.elastic.flush_interval = Duration::from_secs(60);
    rig.start();
    rig.drive(Duration::from_secs(1));
    assert!(!rig.sink().pending());
    rig.append(&records(0..5));
    rig.drive(Duration::from_millis(300));
    assert!(rig.sink().pending());
    assert_eq!(fake.documents(), 0);
    rig.sink().flush();
    let answer = rig.sink().answers().recv_timeout(SOON).unwrap();
    rig.sink().answer(answer);
    assert!(!rig.sink().pending());
    assert_eq!(fake.documents(), 5);
}

#[test]
fn a_cluster_that_only_lets_bulk_requests_through_is_filled_too() {
    let fake = Fake::start();
    fake.script(|request| if request.is_bulk() { Act::Serve } else { Act::Answer(200, "<html>welcome</html>") });
    let mut rig = Rig::new("only-bulk", &[&fake.url]);
    rig.append(&records(0..100));
    rig.start();
    rig.until("all are there", SOON, |_| fake.documents() == 100);
    rig.until("said no more", SOON, |rig| !rig.is_raised(Code::ElasticUnreachable));
}

#[test]
fn a_user_who_may_not_put_the_template_fills_the_index_all_the_same() {
    let fake = Fake::start();
    fake.script(|request| if request.path.contains("template") { Act::Answer(403, "{}") } else { Act::Serve });
    let mut rig = Rig::new("no-right", &[&fake.url]);
    rig.append(&records(0..100));
    rig.start();
    rig.until("all are there", SOON, |rig| rig.done() == 100);
    assert!(!rig.is_raised(Code::ElasticRefused) && !rig.is_raised(Code::ElasticUnreachable));
}

#[test]
fn no_document_overtakes_the_template_however_the_cluster_comes_up() {
    // The template's first request meets a fault in passing; or the cluster comes up after the collector.
    for status in [429, 502, 503] {
        let fake = Fake::start();
        let mut failures = 1;
        fake.script(move |request| {
            let is_template = request.path.starts_with("/_index_template/");
            if is_template && std::mem::take(&mut failures) > 0 { Act::Answer(status, "") } else { Act::Serve }
        });
        let mut rig = Rig::new("overtake", &[&fake.url]);
        rig.append(&records(0..20));
        rig.start();
        rig.until("all are there", SOON, |_| fake.documents() == 20);
        assert_template_first(&fake);
    }
    for up_after_ms in [600, 1_400, 3_500, 5_000] {
        let fake = Fake::start();
        let up = Instant::now() + Duration::from_millis(up_after_ms);
        fake.script(move |_| if Instant::now() < up { Act::Close } else { Act::Serve });
        let mut rig = Rig::new("overtake", &[&fake.url]);
        rig.append(&records(0..20));
        rig.start();
        rig.until("all are there", SOON, |_| fake.documents() == 20);
        assert_template_first(&fake);
        assert_eq!(rig.status.health().elastic.unwrap().server.as_deref(), Some("OpenSearch 2.19.1"));
    }
}

/// Nothing was sent before the template was put.
fn assert_template_first(fake: &Fake) {
    let state = fake.state();
    let put = state.requests.iter().position(|r| r.method == "PUT" && r.path.starts_with("/_index_template/"));
    let bulk = state.requests.iter().position(|request| request.is_bulk());
    assert!(put.is_some() && put < bulk, "{put:?} and {bulk:?}");
}

#[test]
fn a_short_wait_that_was_asked_for_does_not_delay_the_return() {
    let fake = Fake::start();
    let mut rig = Rig::new("short-wait", &[&fake.url]);
    rig.append(&records(0..20));
    fake.script(|_| Act::AnswerWith(503, "retry-after: 1\r\n", ""));
    rig.start();
    // Long enough for the waits to have grown.
    rig.drive(Duration::from_secs(25));
    assert!(rig.is_raised(Code::ElasticUnreachable));
    fake.behave();
    rig.until("seen to be back", Duration::from_secs(10), |_| fake.documents() == 20);
}

#[test]
fn one_document_that_is_put_off_while_others_go_is_said_in_time_and_all_the_time() {
    let fake = Fake::start();
    let mut rig = Rig::new("stuck", &[&fake.url]);
    fake.on_item(|id, _| if id.ends_with("05") { 503 } else { 201 });
    rig.start();
    rig.append(&records(0..10));
    rig.until("said", Duration::from_secs(10), |rig| rig.is_raised(Code::ElasticUnreachable));
    for n in 1..=4 {
        rig.append(&records(10 * n..10 * n + 5));
        rig.until("the others go", SOON, |_| fake.documents() == 9 + 5 * n);
        rig.drive(Duration::from_millis(500));
        assert!(rig.is_raised(Code::ElasticUnreachable), "it is put off still");
        let said = rig.message(Code::ElasticUnreachable);
        assert!(said.contains("puts some documents off"), "{said}");
    }
    fake.behave();
    rig.until("over", Duration::from_secs(10), |rig| !rig.is_raised(Code::ElasticUnreachable));
    assert_eq!(fake.documents(), 30);
}

#[test]
fn a_block_that_somebody_set_has_another_cure_than_a_full_disk() {
    for (block, cure) in [
        ("FORBIDDEN/8/index write (api)", "index.blocks.write"),
        ("FORBIDDEN/5/index read-only (api)", "index.blocks.read_only: set"),
        (
            "TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, index has read-only-allow-delete block",
            "disks",
        ),
    ] {
        let body =
            format!(r#"{{"error":{{"type":"cluster_block_exception","reason":"index [a] blocked by: [{block}];"}}}}"#);
        let body: &'static str = body.leak();
        let fake = Fake::start();
        fake.on_bulk(move |_| Act::Answer(403, body));
        let mut rig = Rig::new("block", &[&fake.url]);
        rig.append(&records(0..1));
        rig.start();
        rig.until("said", SOON, |rig| rig.is_raised(Code::ElasticRefused));
        let said = rig.message(Code::ElasticRefused);
        assert!(said.contains(cure) && !said.contains(";;"), "{said}");
    }
}

#[test]
fn what_is_put_off_for_ever_does_not_keep_others_back_and_is_said() {
    let fake = Fake::start();
    fake.on_item(|id, _| if id.ends_with("00") { 500 } else { 201 });
    let mut rig = Rig::new("stuck", &[&fake.url]);
    rig.start();
    for begin in (0..3000).step_by(500) {
        rig.append(&records(begin..begin + 500));
        rig.drive(Duration::from_millis(200));
    }
    let stuck = (0..3000).filter(|n| n % 256 == 0).count();
    rig.until("the others are there", 2 * SOON, |_| fake.documents() == 3000 - stuck);
    rig.until("said", 2 * SOON, |rig| rig.is_raised(Code::ElasticUnreachable));
    fake.behave();
    rig.until("all are there", 3 * SOON, |_| fake.documents() == 3000);
    assert!(rig.dead_letters().is_empty());
}

#[test]
fn at_rest_nobody_wakes_up_more_than_now_and_then() {
    let fake = Fake::start();
    let mut rig = Rig::new("rest", &[&fake.url]);
    rig.append(&records(0..10));
    rig.start();
    rig.until("all are there", SOON, |rig| rig.done() == 10);
    rig.drive(Duration::from_secs(1));
    let wake = rig.sink().wake_at().unwrap();
    assert!(wake > Instant::now() + Duration::from_secs(3));
    let requests = fake.state().requests.len();
    rig.drive(Duration::from_secs(7));
    assert!(fake.state().requests.len() <= requests + 2);
}

/// `cargo test --release --test elastic -- --ignored --nocapture cost` prints the processor time of a document.
#[test]
#[ignore = "a measurement, not a test"]
fn the_cost_of_a_document() {
    const DOCUMENTS: usize = 200_000;
    let fake = Fake::start();
    fake.keep_nothing();
    let mut rig = Rig::new("cost", &[&fake.url]);
    rig.elastic.bulk_size = 1000;
    rig.output.max_file_size = 1 << 30;
    rig.append_all(&(0..DOCUMENTS).map(lively_record).collect::<Vec<_>>());
    let before = cpu_of(&["carrier"]);
    assert_eq!(before, Duration::ZERO);
    let own_before = own_cpu();
    rig.start();
    let begun = Instant::now();
    rig.until("all are judged", 6 * SOON, |rig| rig.done() == DOCUMENTS as u64);
    let per = |time: Duration| time.as_nanos() as f64 / 1000.0 / DOCUMENTS as f64;
    let (own, carrier) = (own_cpu() - own_before, cpu_of(&["carrier"]));
    println!(
        "{} bytes: sink {:.2} µs + carrier {:.2} µs = {:.2} µs a document; {:.0} documents/s",
        lively_record(1).len(),
        per(own),
        per(carrier),
        per(own + carrier),
        DOCUMENTS as f64 / begun.elapsed().as_secs_f64()
    );
}

/// A record whose ids compress as badly as real ones.
fn lively_record(n: usize) -> String {
    let mut seed = n as u64 + 1;
    let mut hex = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let high = seed ^ (seed >> 29);
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{high:016x}{:016x}", seed ^ (seed >> 29))
    };
    let uuid = |hex: String| format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    let (conversation, entity, id) = (uuid(hex()), uuid(format!("{:032x}", n % 7)), hex());
    let (code, time) = (n % 12 + 1, 1_795_430_645_123 + 13 * n as i64);
    let text = audiohook_collector::clock::format_millis(time);
    format!(
        r#"{{"timestamp":"{text}","event_type":"audiohook_operational","event_id":"AUDIOHOOK-{code:04}","event_name":"AudioHook connection time-out","description":"The AudioHook server did not accept the connection in time.","conversation_id":"{conversation}","entity_type":"integration","entity_id":"{entity}","entity_name":"Voice transcription","version":"2","topic":"v2.operations.events.AUDIOHOOK-{code:04}","channel":"…1234","error_code":"connectionTimeout","previous_value":"ACTIVE","current_value":"ERROR","received_at":"{text}","source":"websocket","id":"{id}","raw_event":{{"eventEntity":{{"id":"AUDIOHOOK-{code:04}","name":"AudioHook connection time-out","description":"The AudioHook server did not accept the connection in time."}},"entityId":"{entity}","entityName":"Voice transcription","entityType":"integration","previousValue":"ACTIVE","currentValue":"ERROR","errorCode":"connectionTimeout","conversationId":"{conversation}","version":"2","timestamp":{time}}}}}"#
    )
}

/// Processor time of this thread.
fn own_cpu() -> Duration {
    scheduled("/proc/thread-self/schedstat")
}

/// Processor time of all threads of these names.
fn cpu_of(names: &[&str]) -> Duration {
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    tasks
        .filter(|task| fs::read_to_string(task.join("comm")).is_ok_and(|name| names.contains(&name.trim())))
        .map(|task| scheduled(task.join("schedstat")))
        .sum()
}

fn scheduled(path: impl AsRef<std::path::Path>) -> Duration {
    let text = fs::read_to_string(path).unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}
