//! A cluster that hangs, refuses, or answers what it should not.

use std::time::{Duration, Instant};

use audiohook_collector::status::Code;

use crate::SOON;
use crate::cluster::fake::{Act, Fake};
use crate::cluster::{Rig, record, records};

#[test]
fn an_answer_that_hangs_halfway_is_given_up_and_nothing_is_doubled() {
    let fake = Fake::start();
    let mut first = true;
    fake.on_bulk(move |_| if std::mem::take(&mut first) { Act::HangHalfway } else { Act::Serve });
    let mut rig = Rig::new("halfway", &[&fake.url]);
    rig.append(&records(0..10));
    rig.start();
    rig.until("it hangs", SOON, |_| !fake.bulks().is_empty());
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
fn a_block_that_somebody_set_has_another_cure_than_a_full_disk() {
    for (block, cure) in [
        ("FORBIDDEN/8/index write (api)", "index.blocks.write"),
        ("FORBIDDEN/5/index read-only (api)", "index.blocks.read_only to null"),
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
fn of_two_nodes_one_that_refuses_the_login_does_not_stop_the_other() {
    let (one, two) = (Fake::start(), Fake::start());
    let mut rig = Rig::new("one-refuses", &[&one.url, &two.url]);
    one.script(|_| Act::Answer(401, "{}"));
    rig.start();
    rig.append(&records(0..200));
    rig.until("all", SOON, |rig| rig.done() == 200);
    assert!(!rig.is_raised(Code::ElasticRefused), "{}", rig.message(Code::ElasticRefused));
}
