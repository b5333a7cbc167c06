//! The HTTP stage alone, in this process, with a status that the test fills; and a client that waits two seconds at
//! most, as `curl -m 2` does.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test's help fails by a panic, as the test does")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use audiohook_collector::clock::Clock;
use audiohook_collector::config::Http;
use audiohook_collector::http;
use audiohook_collector::secret::Secret;
use audiohook_collector::status::{Code, Status};
use crossbeam_channel::{Sender, bounded};

/// How long a good client waits for its whole answer.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// A running stage; it stops when dropped.
pub struct Stage {
    pub status: Arc<Status>,
    pub address: SocketAddr,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Stage {
    /// One that is healthy.
    pub fn start(token: Option<&str>) -> Self {
        let clock = Clock::system();
        let status = Arc::new(Status::new(clock.clone(), true).named("test"));
        status.counts.set_loaded();
        status.clear(Code::Starting);
        status.update_session(|session| {
            session.ready = true;
            session.topics = vec!["v2.operations.events.AUDIOHOOK-0001".into()];
            session.channel = Some(Secret::new("streaming-0-channel-abcd"));
        });
        Self::serve("127.0.0.1", 0, status, clock, token)
    }

    /// One on a port of its own choice, with this status.
    pub fn serve(host: &str, port: u16, status: Arc<Status>, clock: Clock, token: Option<&str>) -> Self {
        let bound = http::bind(&Http { host: host.into(), port, token: None }).unwrap();
        let address = bound.address();
        let (stop, stopped) = bounded(0);
        let thread = http::start(bound, status.clone(), clock, token.map(Secret::new), stopped).unwrap();
        Self { status, address, stop: Some(stop), thread: Some(thread) }
    }

    pub fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    pub fn get(&self, target: &str) -> Reply {
        self.request(&format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    }

    /// Sends this and reads up to the end of the connection.
    pub fn request(&self, text: &str) -> Reply {
        exchange(self.connect(), text.as_bytes())
    }

    /// Stops it, and says how long that took.
    pub fn stop(mut self) -> Duration {
        let started = Instant::now();
        self.end();
        started.elapsed()
    }

    fn end(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.end();
    }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends this and reads up to the end of the connection, within [`PATIENCE`] in all.
pub fn exchange(mut stream: TcpStream, bytes: &[u8]) -> Reply {
    let started = Instant::now();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(started.elapsed() < PATIENCE, "the answer took {:?}", started.elapsed());
    Reply::parse(&answer)
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no head in {:?}", String::from_utf8_lossy(bytes))) + 4;
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head, body: bytes[end..].to_vec() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}
