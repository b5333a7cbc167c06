//! Documents that are refused or put off, alone or by the request.

use std::fs;
use std::time::Duration;

use audiohook_collector::elastic::dead_letters;
use audiohook_collector::status::Code;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::cluster::fake::{Act, Fake};
use crate::cluster::{Rig, records};
use crate::{SOON, cluster};

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
fn a_fifo_in_the_place_of_the_dead_letters_blocks_nothing_and_loses_none() {
    let fake = Fake::start();
    fake.on_item(|_, document| if document.contains(r#""n":7"#) { 400 } else { 201 });
    let mut rig = Rig::new("fifo", &[&fake.url]);
    let path = dead_letters::path_of(&rig.output.file);
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    rig.append(&records(0..10));
    rig.start();
    rig.until("the others are taken", SOON, |_| fake.documents() == 9);
    rig.until("it is reported", SOON, |rig| rig.is_raised(Code::ElasticUnreachable));
    assert!(rig.message(Code::ElasticUnreachable).contains("not a regular file"));
    fs::remove_file(&path).unwrap();
    rig.until("the letter is kept", SOON, |rig| rig.dead_letters().len() == 1);
    rig.until("the backlog is empty", SOON, |rig| rig.backlog() == 0);
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
fn a_document_that_is_refused_again_after_its_file_was_deleted_is_one_dead_letter() {
    let fake = Fake::start();
    fake.on_item(|_, document| if document.contains(r#""n":7"#) { 400 } else { 201 });
    let mut rig = Rig::new("deleted", &[&fake.url]);
    rig.start();
    rig.append(&records(0..10));
    rig.until("all are judged", SOON, |rig| rig.done() == 10);
    fs::remove_file(&rig.output.file).unwrap();
    rig.begin_anew();
    // The history brings them again, one of them twice for good measure.
    rig.append(&[records(5..10), records(7..8), records(70..72)].concat());
    rig.until("all came again", SOON, |rig| rig.done() == 16);
    rig.drive(Duration::from_millis(300));
    let numbers: Vec<u64> =
        rig.dead_letters().iter().map(|letter| letter["record"]["raw_event"]["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [7, 70, 71]);
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
        assert!(said.contains("does not accept some documents"), "{said}");
    }
    fake.behave();
    rig.until("over", Duration::from_secs(10), |rig| !rig.is_raised(Code::ElasticUnreachable));
    assert_eq!(fake.documents(), 30);
}

#[test]
fn what_is_put_off_for_ever_does_not_keep_others_back_and_is_said() {
    let fake = Fake::start();
    fake.on_item(|id, _| if id.ends_with("00") { 500 } else { 201 });
    let mut rig = Rig::new("stuck-many", &[&fake.url]);
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
fn a_cluster_that_refuses_everything_alike_makes_no_dead_letters_at_first() {
    let fake = Fake::start();
    fake.on_item(|_, _| 400);
    let mut rig = Rig::new("alike", &[&fake.url]);
    rig.append(&records(0..200));
    rig.start();
    rig.until("said", Duration::from_secs(10), |rig| rig.is_raised(Code::ElasticUnreachable));
    let said = rig.message(Code::ElasticUnreachable);
    assert!(said.contains("every document for the same reason") && said.contains("Fix the index"), "{said}");
    assert!(rig.dead_letters().is_empty());
    fake.behave();
    rig.until("all are there", SOON, |_| fake.documents() == 200);
    rig.until("resolved", SOON, |rig| !rig.is_raised(Code::ElasticUnreachable));
    // Few at a time are not known to be all: they are dead letters, up to the number that speaks for itself.
    fake.on_item(|_, _| 400);
    for n in 200..230 {
        rig.append(&records(n..n + 1));
        rig.drive(Duration::from_millis(150));
    }
    let dead = rig.dead_letters().len();
    assert!((1..10).contains(&dead), "{dead}");
    assert_eq!(rig.done() as usize, 200 + dead);
}

#[test]
fn the_dead_letters_are_bounded_and_what_goes_is_counted_and_said() {
    let fake = Fake::start();
    fake.on_item(|id, _| if id.ends_with('7') { 201 } else { 400 });
    let mut rig = Rig::new("bounded", &[&fake.url]);
    rig.output.max_file_size = 20_000;
    rig.elastic.backlog_max = 100_000;
    rig.append_all(&records(0..640));
    rig.start();
    rig.until("all are judged", SOON, |rig| rig.done() == 640);
    assert!(rig.is_raised(Code::ElasticBacklogDropped) && rig.is_raised(Code::DeadLetters));
    let letters: Vec<_> = rig.suffixes().into_iter().filter(|suffix| suffix.starts_with(".dead")).collect();
    let text = |suffix: &String| fs::read_to_string(rig.folder.join(format!("events.jsonl{suffix}"))).unwrap();
    let bytes: usize = letters.iter().map(|suffix| text(suffix).len()).sum();
    assert!(bytes <= 50_000 + 50 * 1_200, "{bytes} bytes in {letters:?}");
    let kept: usize = letters.iter().map(|suffix| text(suffix).lines().count()).sum();
    assert_eq!(kept as u64 + rig.status.counters.elastic_dropped.get(), 600);
    // A replay sends what is left, oldest first.
    fake.behave();
    let replayed = rig.replay();
    assert!(replayed.success && replayed.shown.contains(&format!("{kept} sent")), "{}", replayed.shown);
    assert_eq!(fake.documents(), 40 + kept);
}

#[test]
fn a_document_that_is_not_understood_does_not_stop_those_after_it_with_a_bulk_size_of_one() {
    let fake = Fake::start();
    let mut rig = Rig::new("bulk-one", &[&fake.url]);
    rig.elastic.bulk_size = 1;
    let bad = format!("{:032x}", 3);
    fake.on_bulk(move |request| {
        if String::from_utf8_lossy(&request.body).contains(&bad) { Act::Answer(400, "{}") } else { Act::Serve }
    });
    rig.start();
    rig.append(&records(0..10));
    rig.until("all", 2 * SOON, |rig| rig.done() == 10);
}
