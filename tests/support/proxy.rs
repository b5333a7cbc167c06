//! A CONNECT proxy on loopback.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use audiohook_collector::thread;

use super::SOON;

/// A CONNECT proxy that wants these credentials; gives its port and the heads it met.
pub fn start(credentials: &'static str) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let met = heads.clone();
    let work = move || {
        for tcp in listener.incoming() {
            let Ok(mut tcp) = tcp else { return };
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && tcp.read(&mut byte).is_ok_and(|count| count > 0) {
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            met.lock().unwrap().push(head.clone());
            if !head.contains(&format!("Proxy-Authorization: Basic {credentials}\r\n")) {
                let _ = tcp.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n");
                continue;
            }
            let place = head.split(' ').nth(1).unwrap().parse().unwrap();
            let Ok(peer) = TcpStream::connect_timeout(&place, SOON) else { continue };
            tcp.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 Connection established\r\n\r\n").unwrap();
            for (from, to) in [(tcp.try_clone().unwrap(), peer.try_clone().unwrap()), (peer, tcp)] {
                let copy = move || {
                    let (mut from, mut to) = (from, to);
                    let _ = std::io::copy(&mut from, &mut to);
                };
                thread::spawn("tunnel", copy).unwrap();
            }
        }
    };
    thread::spawn("proxy", work).unwrap();
    (port, heads)
}
