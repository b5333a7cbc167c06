//! HTTP as proxies and gateways bend it: interim responses, compressed bodies, marks before a body.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use audiohook_collector::simulator::{Action, Call, Event, Options, Route, Simulator};
use audiohook_collector::thread;

use crate::support::{Authority, Folder, SOON, assert_same_set, poll};
use crate::{Collector, HOUR_MS, LONG, issue_old, simulator};

const INTERIM: &[u8] =
    b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n";

/// A collector whose socket and history both bring events.
fn assert_collects(sim: &Simulator, collector: &Collector) {
    collector.wait_healthy();
    assert!(sim.wait_until(LONG, |view| view.sockets_open() == 1));
    sim.issue_by(Event::numbered("AUDIOHOOK-0001"), Route::SocketOnly);
    collector.wait_lines(2, LONG);
    assert_same_set(&sim.issued(), &collector.records());
}

fn with_an_old_event() -> Simulator {
    let sim = simulator(|_| ());
    issue_old(&sim, "AUDIOHOOK-0002", HOUR_MS);
    sim
}

#[test]
fn interim_responses_before_the_final_one_are_passed_over() {
    let rest: Vec<Call> = Call::ALL.into_iter().filter(|call| *call != Call::Handshake).collect();
    for calls in [vec![Call::Handshake], rest] {
        let (sim, folder) = (with_an_old_event(), Folder::new("interim"));
        for call in calls {
            sim.faults().fail(call, Action::Preceded(INTERIM.to_vec()));
        }
        let collector = Collector::start(&sim, &folder, &[]);
        assert_collects(&sim, &collector);
    }
}

#[test]
fn interim_responses_of_a_proxy_are_passed_over() {
    let folder = Folder::new("interim-proxy");
    let authority = Authority::new();
    let knobs = audiohook_collector::simulator::Knobs { requests_per_minute: None, ..Default::default() };
    let tls = Some(authority.identity(&["127.0.0.1"]));
    let sim = Simulator::start(Options { tls, knobs, ..Options::default() }).unwrap();
    issue_old(&sim, "AUDIOHOOK-0002", HOUR_MS);
    let proxy = format!("http://127.0.0.1:{}", start_proxy());
    let ca = authority.write(&folder, "ca.pem").display().to_string();
    let collector = Collector::start(&sim, &folder, &[("HTTPS_PROXY", &proxy), ("SSL_CERT_FILE", &ca)]);
    assert_collects(&sim, &collector);
}

/// A CONNECT proxy that sends interim responses first; gives its port.
fn start_proxy() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let work = move || {
        for tcp in listener.incoming() {
            let Ok(mut tcp) = tcp else { return };
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && tcp.read(&mut byte).is_ok_and(|count| count > 0) {
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            let Some(Ok(place)) = head.split(' ').nth(1).map(str::parse) else { continue };
            let Ok(peer) = TcpStream::connect_timeout(&place, SOON) else { continue };
            let _ = tcp.write_all(&[INTERIM, b"HTTP/1.1 200 Connection established\r\n\r\n"].concat());
            for (from, to) in [(tcp.try_clone().unwrap(), peer.try_clone().unwrap()), (peer, tcp)] {
                let copy = move || {
                    let (mut from, mut to) = (from, to);
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Both);
                };
                thread::spawn("tunnel", copy).unwrap();
            }
        }
    };
    thread::spawn("proxy", work).unwrap();
    port
}

/// The same bytes, compressed.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn gzip_answers_are_decoded_or_refused_by_name() {
    let (sim, folder) = (with_an_old_event(), Folder::new("gzip"));
    for call in Call::ALL.into_iter().filter(|call| *call != Call::Handshake) {
        let compressed = Action::change(|_, answer| {
            if !answer.body.is_empty() {
                answer.body = gzip(&answer.body);
                answer.headers.push(("Content-Encoding", "gzip".to_owned()));
            }
        });
        sim.faults().fail(call, compressed);
    }
    let collector = Collector::start(&sim, &folder, &[]);
    let is_refused = || collector.health().is_some_and(|health| health["reasons"].to_string().contains("gzip"));
    let has_come = || !collector.records().is_empty();
    assert!(poll(LONG, || (has_come() || is_refused()).then_some(())).is_some(), "{}", collector.log_text());
    if has_come() {
        assert_collects(&sim, &collector);
    }
}

#[test]
fn a_byte_order_mark_before_a_body_is_skipped() {
    let (sim, folder) = (with_an_old_event(), Folder::new("mark"));
    for call in Call::ALL.into_iter().filter(|call| *call != Call::Handshake) {
        let marked = Action::change(|_, answer| {
            if !answer.body.is_empty() {
                answer.body.splice(0..0, *b"\xef\xbb\xbf");
            }
        });
        sim.faults().fail(call, marked);
    }
    let collector = Collector::start(&sim, &folder, &[]);
    assert_collects(&sim, &collector);
}
