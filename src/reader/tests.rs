//! The reader against a scripted peer.

use std::io::{Read, Write};
use std::net::TcpListener;

use crossbeam_channel::bounded;
use tungstenite::handshake::derive_accept_key;

use super::liveness::PING;
use super::*;
use crate::clock::{ManualClock, ServiceTime};
use crate::config::Network;
use crate::message::Frame;
use crate::secret::Secret;
use crate::simulator::frame;

const SOON: Duration = Duration::from_secs(10);

struct Stage {
    peer: TcpStream,
    frames: Receiver<Batch>,
    session: Receiver<SessionEvent>,
    status: Arc<Status>,
    hand: ManualClock,
    handle: Option<ReaderHandle>,
    stop: Option<Sender<()>>,
}

impl Stage {
    fn new() -> Self {
        Self::with_room(16)
    }

    /// A connected reader, with room for so many batches in its queue.
    fn with_room(batches: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let uri = format!("ws://{}/channels/secret-channel-0001", listener.local_addr().unwrap());
        let (mut stage, listener) = Self::start(&uri, batches, Some(listener));
        let (mut peer, _) = listener.unwrap().accept().unwrap();
        peer.set_read_timeout(Some(SOON)).unwrap();
        let head = read_head(&mut peer);
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        let accept = derive_accept_key(key.as_bytes());
        let answer = format!(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        // Informational responses come first; the first event comes in the same write as the handshake's response.
        peer.write_all(&[answer.as_bytes(), &frame::text("first")].concat()).unwrap();
        stage.peer = peer;
        assert!(matches!(stage.session.recv_timeout(SOON), Ok(SessionEvent::Opened(7))));
        assert_eq!(stage.texts(1), ["first"]);
        stage
    }

    fn start(uri: &str, batches: usize, listener: Option<TcpListener>) -> (Self, Option<TcpListener>) {
        let (clock, hand) = Clock::manual(1_795_430_000_000);
        let status = Arc::new(Status::new(clock.clone(), false));
        let dialer = Arc::new(Dialer::new(&Network::default()).unwrap());
        let (out, frames) = bounded(batches);
        let (session_in, session) = bounded(64);
        let (stop, stopped) = bounded(0);
        let address = Address {
            connection: 7,
            uri: Secret::new(uri),
            channel: Secret::new("secret-channel-0001".to_owned()),
            service: ServiceTime::default(),
        };
        // A placeholder until the peer is accepted.
        let idle = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect_timeout(&idle.local_addr().unwrap(), SOON).unwrap();
        let context = Context { dialer, out, session: session_in, status: status.clone(), clock, stop: stopped };
        let handle = start(address, context).unwrap();
        (Self { peer, frames, session, status, hand, handle: Some(handle), stop: Some(stop) }, listener)
    }

    fn say(&mut self, bytes: &[u8]) {
        self.peer.write_all(bytes).unwrap();
    }

    /// The next so many frames: the text, or why the frame is unreadable and the number of bytes kept.
    fn texts(&self, count: usize) -> Vec<String> {
        let mut found = Vec::new();
        while found.len() < count {
            let batch = self.frames.recv_timeout(SOON).unwrap();
            assert_eq!((batch.connection, &*batch.channel), (7, "…0001"));
            found.extend(batch.frames.iter().map(|frame| match frame {
                Frame::Text(text) => text.to_owned(),
                Frame::Unreadable { reason, head } => format!("{reason}: {}", head.len()),
            }));
        }
        found
    }

    fn closed(&self) -> Closed {
        match self.session.recv_timeout(SOON).unwrap() {
            SessionEvent::Closed { connection: 7, why, .. } => why,
            other => panic!("{other:?}"),
        }
    }

    /// Reads and unmasks what the reader sent until it contains `wanted`.
    fn hear(&mut self, wanted: &[u8]) {
        let mut heard = Vec::new();
        let mut chunk = [0; 256];
        while !unmask(&heard).windows(wanted.len()).any(|window| window == wanted) {
            let count = self.peer.read(&mut chunk).unwrap();
            assert!(count > 0, "the reader closed instead: {:?}", unmask(&heard));
            heard.extend_from_slice(&chunk[..count]);
        }
    }
}

/// The payloads of masked frames of up to 125 bytes.
fn unmask(mut bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    while let [_, length, a, b, c, d, rest @ ..] = bytes {
        assert!(length & 0x80 != 0, "clients must mask");
        let length = usize::from(length & 0x7f).min(rest.len());
        let mask = [a, b, c, d];
        plain.extend(rest[..length].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ **mask));
        bytes = &rest[length..];
    }
    plain
}

fn read_head(peer: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        peer.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// A frame's head for a payload of this length.
fn head(first: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![first, 127];
    bytes.extend(length.to_be_bytes());
    bytes
}

#[test]
fn frames_of_one_write_are_passed_on_at_once() {
    let mut stage = Stage::new();
    let burst: Vec<u8> = (0..100).flat_map(|n| frame::text(&format!("event {n}"))).collect();
    let began = Instant::now();
    stage.say(&burst);
    assert_eq!(stage.texts(100).len(), 100);
    assert!(began.elapsed() < Duration::from_millis(900), "it waited for more");
    assert_eq!(stage.status.gauges.socket_connected.get(), Some(1));
    assert_eq!(stage.status.counters.socket_connects.get(), 1);
}

#[test]
fn fragments_control_frames_and_single_bytes_are_read() {
    let mut stage = Stage::new();
    let mut bytes = vec![0x01, 3];
    bytes.extend(b"one");
    bytes.extend([0x89, 4]);
    bytes.extend(b"ping");
    bytes.extend([0x80, 4]);
    bytes.extend(b" two");
    bytes.extend([0x8a, 0]);
    bytes.extend(frame::text("three"));
    for byte in bytes {
        stage.say(&[byte]);
    }
    assert_eq!(stage.texts(2), ["one two", "three"]);
    stage.hear(b"ping");
}

#[test]
fn an_unreadable_message_is_passed_on_with_its_head_and_the_socket_stays_open() {
    let mut stage = Stage::new();
    let binary = [vec![0x82, 126, 0x13, 0x88], vec![7; 5000]].concat();
    stage.say(&[binary, vec![0x81, 2, 0xff, 0xfe], frame::text("a")].concat());
    assert_eq!(stage.texts(3), ["binary: 4096", "not UTF-8: 2", "a"]);
}

#[test]
fn a_message_that_is_too_long_closes_the_socket_but_its_head_and_earlier_messages_are_kept() {
    let piece = vec![b'x'; 600 * 1024];
    let pieces = [head(0x01, piece.len() as u64), piece.clone(), head(0x00, piece.len() as u64), piece].concat();
    for long in [[head(0x81, 1 << 40), vec![b'x'; 100_000]].concat(), pieces] {
        let mut stage = Stage::new();
        stage.say(&frame::text("before"));
        stage.say(&long);
        assert_eq!(stage.texts(2), ["before", "longer than 1 MiB: 4096"]);
        assert!(matches!(stage.closed(), Closed::Broken(_)));
    }
}

#[test]
fn fragments_out_of_order_close_the_socket() {
    for bytes in [vec![0x80, 1, b'x'], vec![0x01, 1, b'x', 0x81, 1, b'y'], vec![0x83, 1, b'x']] {
        let mut stage = Stage::new();
        stage.say(&bytes);
        assert!(matches!(stage.closed(), Closed::Broken(_)), "{bytes:?}");
    }
}

#[test]
fn silence_brings_a_ping_and_no_answer_ends_the_socket() {
    let mut stage = Stage::new();
    // The reader notices input at a tick; the silence is measured from then on.
    let tick = Duration::from_millis(1300);
    assert!(stage.frames.recv_timeout(tick).is_err());
    stage.hand.advance(SILENCE_LIMIT);
    stage.hear(PING.as_bytes());
    stage.say(&frame::text("pong"));
    assert_eq!(stage.texts(1), ["pong"]);
    assert!(stage.frames.recv_timeout(tick).is_err());
    stage.hand.advance(SILENCE_LIMIT);
    stage.hear(PING.as_bytes());
    stage.hand.advance(PONG_LIMIT);
    assert_eq!(stage.closed(), Closed::Silent);
    assert_eq!(stage.status.gauges.socket_connected.get(), Some(0));
}

#[test]
fn the_servers_close_is_reported_with_code_and_reason_after_earlier_messages() {
    let mut stage = Stage::new();
    stage.say(&[frame::text("last"), frame::close(1001, "idle timeout")].concat());
    assert_eq!(stage.texts(1), ["last"]);
    assert_eq!(stage.closed(), Closed::ByServer { code: 1001, reason: "idle timeout".to_owned() });
}

#[test]
fn an_end_without_a_close_frame_is_reported_as_1006() {
    let stage = Stage::new();
    stage.peer.shutdown(Shutdown::Both).unwrap();
    assert!(matches!(stage.closed(), Closed::ByServer { code: 1006, .. }));
}

#[test]
fn a_masked_frame_closes_the_socket() {
    let mut stage = Stage::new();
    stage.say(&[0x81, 0x81, 0, 0, 0, 0, b'x']);
    assert!(matches!(stage.closed(), Closed::Broken(_)));
}

#[test]
fn a_retired_reader_passes_on_late_messages_and_then_closes() {
    let mut stage = Stage::new();
    let handle = stage.handle.take().unwrap();
    handle.retire();
    drop(handle);
    stage.say(&frame::text("late"));
    assert_eq!(stage.texts(1), ["late"]);
    assert_eq!(stage.closed(), Closed::ByUs);
    // The gauge shows the state of the newer socket.
    assert_eq!(stage.status.gauges.socket_connected.get(), Some(1));
}

#[test]
fn a_dropped_handle_closes_at_once() {
    let mut stage = Stage::new();
    let began = Instant::now();
    stage.handle.take();
    assert_eq!(stage.closed(), Closed::ByUs);
    assert!(began.elapsed() < Duration::from_millis(900));
}

#[test]
fn a_full_queue_stops_the_reading_and_loses_nothing() {
    let mut stage = Stage::with_room(1);
    let mut writer = stage.peer.try_clone().unwrap();
    let sender = crate::thread::spawn("peer", move || {
        for n in 0..20_000 {
            writer.write_all(&frame::text(&format!("{n:0>500}"))).unwrap();
        }
    })
    .unwrap();
    // The queue is full before anything is taken from it.
    while stage.frames.is_empty() {
        std::thread::yield_now();
    }
    let texts = stage.texts(20_000);
    sender.join().unwrap();
    assert!(texts.iter().enumerate().all(|(n, text)| text.parse::<usize>().unwrap() == n));
    stage.stop.take();
}

#[test]
fn a_stop_ends_the_reader_while_the_queue_is_full() {
    let mut stage = Stage::with_room(1);
    let texts = frame::text(&"x".repeat(100));
    stage.say(&texts);
    while stage.frames.is_empty() {
        std::thread::yield_now();
    }
    stage.say(&texts);
    stage.stop.take();
    // The reader sends no further events; its channel disconnects.
    assert!(stage.session.recv_timeout(SOON).is_err() || stage.session.recv_timeout(SOON).is_err());
}

#[test]
fn a_refused_or_unreachable_address_is_reported_without_its_secret() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("ws://{}/channels/secret-channel-0001", listener.local_addr().unwrap());
    let (stage, listener) = Stage::start(&uri, 1, Some(listener));
    let (mut peer, _) = listener.unwrap().accept().unwrap();
    read_head(&mut peer);
    peer.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 503 Down\r\nRetry-After: 7\r\n\r\n").unwrap();
    assert_eq!(stage.closed(), Closed::Refused { status: 503, retry_after: Some(Duration::from_secs(7)) });
    for uri in ["ws://streaming.example/channels/secret-channel-0001", "ws://127.0.0.1:1/channels/secret-channel-0001"]
    {
        let (stage, _) = Stage::start(uri, 1, None);
        let Closed::Unreachable(problem) = stage.closed() else { panic!() };
        assert!(!problem.what.contains("secret-channel") && !problem.cure.is_empty(), "{problem:?}");
    }
}
