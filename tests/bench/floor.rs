//! Two programs that keep events without looking at them, for the collector to be measured against.
//!
//! The *floor* reads with the WebSocket library that the collector uses and gathers up to a hundred events for a write. The
//! *limit* does without a library: it reads large pieces, splits the frames by hand and writes what each piece held.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use native_tls::{Certificate, TlsConnector, TlsStream};
use tungstenite::{Error, Message, WebSocket};

/// Events of a write.
const GATHERED_MAX: usize = 100;
/// How long the floor waits for the next event before it writes those that it has.
const GATHER_FOR: Duration = Duration::from_millis(1);
/// Bytes that the limit reads at once.
const PIECE_BYTES: usize = 256 * 1024;

/// `floor|limit HOST:PORT FILE [CA]`: over TLS where a CA's certificate is given.
pub fn run(arguments: &[String]) {
    let [program, address, path, rest @ ..] = arguments else { panic!("floor|limit HOST:PORT FILE [CA]") };
    let tcp = TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(5)).unwrap();
    tcp.set_nodelay(true).unwrap();
    let file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    let is_limit = program == "limit";
    match rest.first() {
        None => {
            let timeout = tcp.try_clone().unwrap();
            let (socket, _) = tungstenite::client(format!("ws://{address}/channels/{program}"), tcp).unwrap();
            keep_all(socket, &timeout, file, is_limit);
        }
        Some(ca) => {
            let timeout = tcp.try_clone().unwrap();
            let (socket, _) =
                tungstenite::client(format!("wss://{address}/channels/{program}"), secure(tcp, ca)).unwrap();
            keep_all(socket, &timeout, file, is_limit);
        }
    }
}

fn secure(tcp: TcpStream, ca: &str) -> TlsStream<TcpStream> {
    let root = Certificate::from_pem(&std::fs::read(ca).unwrap()).unwrap();
    TlsConnector::builder().add_root_certificate(root).build().unwrap().connect("127.0.0.1", tcp).unwrap()
}

fn keep_all<S: Read + Write>(mut socket: WebSocket<S>, tcp: &TcpStream, file: File, is_limit: bool) {
    if is_limit {
        copy_pieces(socket.get_mut(), file);
    } else {
        tcp.set_read_timeout(Some(GATHER_FOR)).unwrap();
        gather(socket, file);
    }
}

fn gather<S: Read + Write>(mut socket: WebSocket<S>, mut file: File) {
    let (mut gathered, mut count) = (Vec::new(), 0);
    loop {
        let is_idle = match socket.read() {
            Ok(Message::Text(text)) => {
                gathered.extend_from_slice(text.as_bytes());
                count += 1;
                false
            }
            Ok(_) => false,
            Err(Error::Io(error)) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => true,
            Err(_) => break,
        };
        if count >= GATHERED_MAX || is_idle && count > 0 {
            file.write_all(&gathered).unwrap();
            (gathered, count) = (Vec::new(), 0);
        }
    }
    file.write_all(&gathered).unwrap();
}

/// Frames as a server sends them: without a mask, and here without fragments.
fn copy_pieces(stream: &mut impl Read, mut file: File) {
    let mut piece = vec![0; PIECE_BYTES];
    // The bytes of a frame's head, as far as it came, and those of its payload that are still to come.
    let (mut head, mut left, mut is_text) = (Vec::new(), 0, false);
    let mut texts = Vec::with_capacity(PIECE_BYTES);
    while let Ok(count @ 1..) = stream.read(&mut piece) {
        let mut bytes = &piece[..count];
        while !bytes.is_empty() {
            if left > 0 {
                let (payload, rest) = bytes.split_at(left.min(bytes.len()));
                if is_text {
                    texts.extend_from_slice(payload);
                }
                left -= payload.len();
                bytes = rest;
                continue;
            }
            head.push(bytes[0]);
            bytes = &bytes[1..];
            if let Some(length) = payload_length(&head) {
                (left, is_text) = (length, head[0] & 0x0f == 1);
                head.clear();
            }
        }
        file.write_all(&texts).unwrap();
        texts.clear();
    }
}

/// The length that a whole head states.
fn payload_length(head: &[u8]) -> Option<usize> {
    let extended = |count: usize| {
        let bytes = head.get(2..2 + count)?;
        Some(bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
    };
    match *head.get(1)? {
        126 => extended(2),
        127 => extended(8),
        short => Some(usize::from(short)),
    }
}
