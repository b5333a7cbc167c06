//! tiny_http, behind one connection that only this process has.
//!
//! Deals with: its start, and passing it one complete request at a time. Its listener is closed as soon as our own
//! connection is accepted, so that it never accepts again: nothing is left that could fail for want of a descriptor,
//! and no thread but the one that reads our connection. Must never: hand it bytes that a client wrote.

use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::net::Shutdown;
use tiny_http::{Request, Server};

use super::head::Head;
use crate::clock::Clock;

/// How long one request may take through it: a hand-over to another thread, microseconds as a rule.
const PASS_WITHIN: Duration = Duration::from_secs(1);

/// The server and our connection to it.
pub struct Tiny {
    server: Server,
    link: TcpStream,
    /// Our end's address: tiny_http tells it with each request, so that a stranger's request is known.
    address: SocketAddr,
    clock: Clock,
}

impl Tiny {
    /// # Errors
    /// When the loopback cannot be listened on, or a descriptor is refused.
    pub fn start(clock: &Clock) -> io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .or_else(|_| TcpListener::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, 0))))?;
        let same_listener = listener.try_clone()?;
        let link = TcpStream::connect_timeout(&listener.local_addr()?, PASS_WITHIN)?;
        link.set_nodelay(true)?;
        link.set_write_timeout(Some(PASS_WITHIN))?;
        let address = link.local_addr()?;
        let server = Server::from_listener(listener, None).map_err(io::Error::other)?;
        let mut tiny = Self { server, link, address, clock: clock.clone() };
        // Once this comes out, our connection is accepted. Closing the listener then ends tiny_http's accepting thread,
        // which says so at level error: the logger leaves out what tiny_http says. Where a system refuses to close a
        // listener in use, the thread goes on waiting, and `pass` leaves out what strangers send.
        drop(tiny.pass("HEAD", "/", None)?.into_writer());
        let _ = rustix::net::shutdown(&same_listener, Shutdown::Both);
        Ok(tiny)
    }

    /// The request as tiny_http understood it. Its writer must be taken and dropped, not written to.
    ///
    /// # Errors
    /// When it does not come out in time: then this object must be thrown away, for what comes out later would belong
    /// to an earlier request.
    pub fn request(&mut self, head: &Head) -> io::Result<Request> {
        self.pass(&head.method, &head.target, head.authorization.as_deref())
    }

    fn pass(&mut self, method: &str, target: &str, authorization: Option<&str>) -> io::Result<Request> {
        let mut text = format!("{method} {target} HTTP/1.1\r\n");
        if let Some(value) = authorization {
            text.push_str("Authorization: ");
            text.push_str(value);
            text.push_str("\r\n");
        }
        text.push_str("\r\n");
        self.link.write_all(text.as_bytes())?;
        let deadline = self.clock.now() + PASS_WITHIN;
        loop {
            let left = deadline.saturating_duration_since(self.clock.now());
            match self.server.recv_timeout(left) {
                Ok(Some(request)) if request.remote_addr() == Some(&self.address) => return Ok(request),
                // A stranger who found the port in the instant that it was open.
                Ok(Some(stranger)) => drop(stranger.into_writer()),
                Ok(None) => return Err(io::Error::new(io::ErrorKind::TimedOut, "tiny_http gave no request back")),
                // The accepting thread's end, told once.
                Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::{Parsed, parse};

    #[test]
    fn a_request_comes_out_as_it_went_in() {
        let mut tiny = Tiny::start(&Clock::system()).unwrap();
        for n in 0..100 {
            let text = format!("PURGE /a%20b?n={n} HTTP/1.1\r\nAuthorization: Bearer {n}\r\n\r\n");
            let Parsed::Complete(head, _) = parse(text.as_bytes()) else { panic!("{text}") };
            let request = tiny.request(&head).unwrap();
            assert_eq!((request.method().as_str(), request.url()), ("PURGE", format!("/a%20b?n={n}").as_str()));
            assert_eq!(request.headers()[0].value.as_str(), format!("Bearer {n}"));
            drop(request.into_writer());
        }
    }

    #[test]
    fn whatever_is_let_through_comes_out() {
        let mut tiny = Tiny::start(&Clock::system()).unwrap();
        let mut seed: u64 = 7;
        let mut random = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        };
        let seeds: [&[u8]; 4] = [
            b"GET /events?limit=3&event_id=A%20B HTTP/1.1\r\nHost: x:8077\r\nAuthorization: Bearer abc\r\n\r\n",
            b"POST http://x/y HTTP/1.0\r\nConnection: keep-alive, close\r\nContent-Length: 3\r\n\r\nabc",
            b"\r\nHEAD * HTTP/1.1\nAuthorization:\tBasic \x80\xff\nExpect: 100-continue\n\n",
            b"!#$%&'*+-.^_`|~ /\"<>[]{}|\\^` HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTE: x;q=1\r\n\r\n0\r\n\r\n",
        ];
        let mut complete = 0;
        for _ in 0..20_000 {
            let mut bytes = seeds[random(seeds.len())].to_vec();
            for _ in 0..random(4) {
                let at = random(bytes.len().max(1));
                match random(4) {
                    _ if bytes.is_empty() => {}
                    0 => bytes[at] = random(256) as u8,
                    1 => bytes.insert(at, b" \t\r\n:/?%\0~"[random(10)]),
                    2 => drop(bytes.remove(at)),
                    _ => bytes.truncate(at),
                }
            }
            if let Parsed::Complete(head, used) = parse(&bytes) {
                complete += 1;
                assert!(used <= bytes.len());
                let request = tiny.request(&head).unwrap_or_else(|e| panic!("{e}: {head:?}"));
                assert_eq!((request.method().as_str(), request.url()), (head.method.as_str(), head.target.as_str()));
                drop(request.into_writer());
            }
        }
        assert!(complete > 2000, "{complete}");
    }

    #[test]
    fn nobody_else_can_connect() {
        let tiny = Tiny::start(&Clock::system()).unwrap();
        let port = tiny.link.peer_addr().unwrap();
        let (_never, deadline) = crossbeam_channel::bounded::<()>(0);
        for _ in 0..50 {
            if TcpStream::connect_timeout(&port, PASS_WITHIN).is_err() || !cfg!(target_os = "linux") {
                return;
            }
            let _ = deadline.recv_timeout(Duration::from_millis(20));
        }
        panic!("tiny_http still listens on {port}");
    }
}
