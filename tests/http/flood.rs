//! Bad clients, hundreds at once, and good ones among them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use audiohook_collector::thread::spawn;

use crate::stage::{PATIENCE, Reply, Stage, connect};

/// Connections of each kind.
const BAD: usize = 500;

fn large_records(stage: &Stage) {
    let line = format!(r#"{{"event_id":"AUDIOHOOK-0001","raw_event":"{}"}}"#, "x".repeat(20_000));
    for _ in 0..200 {
        stage.status.recent.extend([line.as_bytes()].into_iter());
    }
}

/// Asks for the health, each time on a new connection and within two seconds.
fn good_requests(stage: &Stage, count: usize) {
    for n in 0..count {
        let started = Instant::now();
        assert_eq!(stage.get("/health").status, 200, "request {n}");
        assert!(started.elapsed() < PATIENCE, "request {n} took {:?}", started.elapsed());
    }
}

#[test]
fn silent_clients_do_not_keep_others_out() {
    let stage = Stage::start(None);
    let silent: Vec<TcpStream> = (0..BAD).map(|_| stage.connect()).collect();
    good_requests(&stage, 100);
    drop(silent);
}

#[test]
fn half_finished_requests_do_not_keep_others_out() {
    let stage = Stage::start(None);
    let halves = [
        "G",
        "GET /health HTTP/1.1\r\n",
        "GET /health HTTP/1.1\r\nHost: x\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1",
    ];
    let mut bad = Vec::new();
    for n in 0..BAD {
        let mut stream = stage.connect();
        // The server may have given it up for a newer one already.
        let _ = stream.write_all(halves[n % halves.len()].as_bytes());
        bad.push(stream);
    }
    good_requests(&stage, 100);
    drop(bad);
}

#[test]
fn clients_that_never_read_do_not_keep_others_out() {
    let stage = Stage::start(None);
    large_records(&stage);
    let mut bad = Vec::new();
    for _ in 0..BAD {
        let mut stream = stage.connect();
        let _ = stream.write_all(b"GET /events?limit=1000 HTTP/1.1\r\nHost: x\r\n\r\n");
        bad.push(stream);
    }
    good_requests(&stage, 100);
    drop(bad);
}

#[test]
fn all_kinds_at_once_and_anew_do_not_keep_others_out() {
    let stage = Stage::start(None);
    large_records(&stage);
    let address = stage.address;
    let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
    let flood = spawn("flood", move || {
        let mut bad = std::collections::VecDeque::new();
        let mut count = 0;
        while stopped.try_recv() == Err(crossbeam_channel::TryRecvError::Empty) {
            let mut stream = connect(address);
            let _ = match count % 3 {
                0 => Ok(()),
                1 => stream.write_all(b"GET /hea"),
                _ => stream.write_all(b"GET /events?limit=200 HTTP/1.1\r\nHost: x\r\n\r\n"),
            };
            bad.push_back(stream);
            if bad.len() > BAD {
                bad.pop_front();
            }
            count += 1;
        }
        count
    })
    .unwrap();
    good_requests(&stage, 100);
    drop(stop);
    assert!(flood.join().unwrap() > 0);
}

#[test]
fn slow_readers_get_their_answers_whole_while_others_never_read() {
    let stage = Stage::start(None);
    let line = format!(r#"{{"event_id":"AUDIOHOOK-0001","raw_event":"{}"}}"#, "x".repeat(4000));
    stage.status.recent.extend(std::iter::repeat_n(line.as_bytes(), 1000));
    let address = stage.address;
    let (begun_in, begun) = crossbeam_channel::bounded(3);
    let slow: Vec<_> = (0..3)
        .map(|_| {
            let begun = begun_in.clone();
            spawn("slow", move || {
                let mut stream = connect(address);
                stream.write_all(b"GET /events?limit=1000 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
                let (_never, pause) = crossbeam_channel::bounded::<()>(0);
                let (mut answer, mut piece) = (Vec::new(), [0; 100_000]);
                // A megabyte a second.
                while let Ok(count @ 1..) = stream.read(&mut piece) {
                    if answer.is_empty() {
                        begun.send(()).unwrap();
                    }
                    answer.extend_from_slice(&piece[..count]);
                    let _ = pause.recv_timeout(Duration::from_micros(count as u64));
                }
                Reply::parse(&answer)
            })
            .unwrap()
        })
        .collect();
    for _ in 0..3 {
        begun.recv_timeout(PATIENCE).unwrap();
    }
    let mut never = Vec::new();
    for _ in 0..100 {
        let mut stream = stage.connect();
        stream.write_all(b"GET /events?limit=1000 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        never.push(stream);
    }
    good_requests(&stage, 50);
    for reader in slow {
        let reply = reader.join().unwrap();
        assert_eq!(reply.header("content-length"), Some(reply.body.len().to_string().as_str()));
        assert_eq!(reply.json()["recent_events"].as_array().map(Vec::len), Some(1000));
    }
    drop(never);
}
