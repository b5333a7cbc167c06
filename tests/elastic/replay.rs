//! Dead letters that are sent again.

use std::fs;
use std::time::Duration;

use audiohook_collector::status::Code;

use crate::SOON;
use crate::cluster::fake::{Act, Fake};
use crate::cluster::{Rig, record, records};

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
fn the_only_letter_without_a_final_line_feed_is_sent() {
    let fake = Fake::start();
    let rig = Rig::new("replay-unended", &[&fake.url]);
    let letter = format!("{{\"at\":\"x\",\"status\":400,\"reason\":\"r\",\"record\":{}}}", record(1));
    fs::write(rig.folder.join("events.jsonl.dead"), letter).unwrap();
    let replayed = rig.replay();
    assert!(replayed.success && replayed.shown.contains("1 sent"), "{}", replayed.shown);
    assert_eq!((fake.documents(), rig.suffixes()), (1, vec![String::new()]));
}

#[test]
fn whatever_the_file_looks_like_nothing_in_it_is_lost() {
    let fake = Fake::start();
    let rig = Rig::new("replay-odd", &[&fake.url]);
    let letter = |n: usize| format!("{{\"at\":\"x\",\"status\":400,\"reason\":\"r\",\"record\":{}}}", record(n));
    let torn = &letter(3)[..200];
    let odd = format!("\n\r\n{}\r\nnot a letter\n{{\"record\":7}}\n{}\n{torn}", letter(1), letter(2));
    fs::write(rig.folder.join("events.jsonl.dead"), &odd).unwrap();
    let replayed = rig.replay();
    assert!(!replayed.success && replayed.shown.contains("3 refused again"), "{}", replayed.shown);
    assert_eq!(fake.documents(), 2);
    let left = fs::read_to_string(rig.folder.join("events.jsonl.dead")).unwrap();
    assert_eq!(left, format!("not a letter\n{{\"record\":7}}\n{torn}\n"));
}

#[test]
fn a_line_that_only_looks_as_if_it_was_done_is_kept() {
    let fake = Fake::start();
    let rig = Rig::new("replay-comments", &[&fake.url]);
    let letter = |n: usize| format!("{{\"at\":\"x\",\"status\":400,\"reason\":\"r\",\"record\":{}}}", record(n));
    let comment = format!("# {}", letter(1));
    let long = format!("#!{}", "x".repeat(200_000));
    let odd =
        [b"#\n \t\r\n\xff\x00#\n", comment.as_bytes(), b"\r\n", long.as_bytes(), b"\n", letter(2).as_bytes()].concat();
    fs::write(rig.folder.join("events.jsonl.dead"), &odd).unwrap();
    let replayed = rig.replay();
    assert!(!replayed.success && replayed.shown.contains("4 refused again"), "{}", replayed.shown);
    assert_eq!(fake.documents(), 1);
    let left = fs::read(rig.folder.join("events.jsonl.dead")).unwrap();
    assert_eq!(left, [b"#\n\xff\x00#\n", comment.as_bytes(), b"\n", long.as_bytes(), b"\n"].concat());
}

#[test]
fn a_line_longer_than_any_letter_is_kept_byte_by_byte_and_those_around_it_are_sent() {
    let fake = Fake::start();
    fake.on_item(|id, _| if id.ends_with('3') { 400 } else { 201 });
    let rig = Rig::new("replay-long", &[&fake.url]);
    let letter = |n: usize| format!("{{\"at\":\"x\",\"status\":400,\"reason\":\"r\",\"record\":{}}}", record(n));
    // Without a line feed for more than two pieces; where the second piece begins stands what looks like a letter.
    let long = "y".repeat(5 * 1024 * 1024) + &letter(7) + &"z".repeat(6 * 1024 * 1024);
    let all = format!("{}\n{long}\n{}\n{}\n{}", letter(1), letter(2), letter(3), &long[1..]);
    fs::write(rig.folder.join("events.jsonl.dead"), all).unwrap();
    let replayed = rig.replay();
    assert!(!replayed.success && replayed.shown.contains("5 dead letters"), "{}", replayed.shown);
    assert!(replayed.shown.contains("2 sent") && replayed.shown.contains("3 refused again"), "{}", replayed.shown);
    assert_eq!(fake.documents(), 2);
    let left = fs::read_to_string(rig.folder.join("events.jsonl.dead")).unwrap();
    let lines: Vec<&str> = left.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines.contains(&long.as_str()) && lines.contains(&&long[1..]));
    assert!(lines.iter().any(|line| line.contains(&format!("{:032x}", 3))));
}

#[test]
fn a_kill_in_the_middle_of_a_replay_loses_no_letter_and_keeps_none_twice() {
    let fake = Fake::start();
    fake.on_item(|id, _| if id.ends_with(['1', '4']) { 400 } else { 201 });
    let rig = Rig::new("replay-kill", &[&fake.url]);
    let letter = |n: usize| format!("{{\"at\":\"x\",\"status\":400,\"reason\":\"r\",\"record\":{}}}\n", record(n));
    // The file is as it was, and what was left of it so far stands beside it, torn; the collector has begun a new one.
    fs::write(rig.folder.join("events.jsonl.dead.1"), letter(1) + &letter(2) + &letter(3)).unwrap();
    fs::write(rig.folder.join("events.jsonl.dead.1.new"), letter(1) + &letter(9)[..100]).unwrap();
    fs::write(rig.folder.join("events.jsonl.dead"), letter(4)).unwrap();
    let replayed = rig.replay();
    assert!(replayed.shown.contains("2 sent") && replayed.shown.contains("2 refused again"), "{}", replayed.shown);
    assert_eq!((fake.documents(), rig.suffixes()), (2, ["", ".dead", ".dead.1"].map(str::to_owned).to_vec()));
    let left = [".dead.1", ".dead"].map(|suffix| fs::read_to_string(rig.folder.join(format!("events.jsonl{suffix}"))));
    for (text, number) in left.map(Result::unwrap).into_iter().zip([1, 4]) {
        assert!(text.lines().count() == 1 && text.contains(&format!("{number:032x}")), "{text}");
    }
    fake.behave();
    assert!(rig.replay().success);
    assert_eq!((fake.documents(), rig.suffixes()), (4, vec![String::new()]));
}

#[test]
fn a_link_beside_the_letters_is_not_followed() {
    let fake = Fake::start();
    let rig = Rig::new("replay-link", &[&fake.url]);
    let letter = |n: usize| format!("{{\"at\":\"x\",\"status\":400,\"reason\":\"r\",\"record\":{}}}\n", record(n));
    let precious = rig.folder.join("precious");
    fs::write(&precious, "precious").unwrap();
    fs::write(rig.folder.join("events.jsonl.dead"), letter(1)).unwrap();
    std::os::unix::fs::symlink(&precious, rig.folder.join("events.jsonl.dead.1.new")).unwrap();
    rig.replay();
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
}
