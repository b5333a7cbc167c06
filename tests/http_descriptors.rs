//! A process that has run out of file descriptors. Alone in its program: the limit is the whole process's.
#![allow(clippy::unwrap_used, reason = "a test's help fails by a panic, as the test does")]

#[path = "http/stage.rs"]
mod stage;

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, connect as connect_socket, socket};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stage::{PATIENCE, Stage, exchange};

const GET_HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// Sockets made while there still were descriptors; a later connect takes none.
fn sockets(count: usize) -> Vec<OwnedFd> {
    (0..count).map(|_| socket(AddressFamily::INET, SocketType::STREAM, None).unwrap()).collect()
}

fn ask(stage: &Stage, socket: OwnedFd) -> u16 {
    connect_socket(&socket, &stage.address).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    exchange(stream, GET_HEALTH).status
}

#[test]
fn the_server_answers_while_there_is_no_descriptor_and_after() {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(256), maximum: most }).unwrap();
    let stage = Stage::start(None);
    assert_eq!(stage.get("/health").status, 200);
    wait_until_settled();
    let ready = sockets(40);
    let mut taken: Vec<OwnedFd> = Vec::new();
    while let Ok(one) = socket(AddressFamily::INET, SocketType::STREAM, None) {
        taken.push(one);
    }
    // Each is answered: by the descriptor that is held back, and by what the one before gives free.
    let mut silent = Vec::new();
    for (n, socket) in ready.into_iter().enumerate() {
        if n % 4 == 3 {
            connect_socket(&socket, &stage.address).unwrap();
            silent.push(socket);
        } else {
            assert_eq!(ask(&stage, socket), 200, "request {n}");
            // The client's own end is a descriptor too: take it again, so that none is left.
            taken.extend(socket_again());
        }
    }
    drop(silent);
    drop(taken);
    for _ in 0..20 {
        assert_eq!(stage.get("/health").status, 200);
    }
    assert_eq!(stage.status.beats.stalled(), None);
}

/// Waits until the server has given back what it took for a request, but for what it holds in reserve: until the number of
/// descriptors stays the same.
fn wait_until_settled() {
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let deadline = Instant::now() + Duration::from_secs(10);
    let (mut before, mut since) = (open(), Instant::now());
    while since.elapsed() < Duration::from_millis(500) {
        assert!(Instant::now() < deadline, "the number of descriptors changes for ever");
        std::thread::yield_now();
        let now = open();
        if now != before {
            (before, since) = (now, Instant::now());
        }
    }
}

fn socket_again() -> Option<OwnedFd> {
    socket(AddressFamily::INET, SocketType::STREAM, None).ok()
}
