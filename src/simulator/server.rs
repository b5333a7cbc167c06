//! The one port: connections are accepted, told apart by path, and served each in a thread of its own.
//!
//! Deals with: TLS, keep-alive, the WebSocket's handshake, and faults of whole calls. Must never: decide what an answer
//! says; that is [`super::api`]'s.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use tungstenite::handshake::derive_accept_key;

use super::api;
use super::fault::{Action, Call};
use super::http::{Answer, Request, read_request};
use super::outbox::{Cut, Outbox};
use super::socket::Session;
use super::state::Shared;
use super::stream::{Link, Stream};
use super::tokens::random_text;
use super::view::Seen;
use crate::thread;

/// How long a connection may be idle, or a handshake take.
const IDLE: Duration = Duration::from_secs(120);
/// How often a call that hangs looks whether its fault is over or its client gone.
const HANG_LOOK: Duration = Duration::from_millis(50);
/// How long to go without accepting when the system has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until `stop` is closed at its other end.
pub(super) fn accept(shared: Arc<Shared>, listener: TcpListener, stop: UnixStream) -> io::Result<JoinHandle<()>> {
    listener.set_nonblocking(true)?;
    thread::spawn("sim-accept", move || {
        loop {
            let mut ready = [PollFd::new(&listener, PollFlags::IN), PollFd::new(&stop, PollFlags::IN)];
            let _ = poll(&mut ready, None);
            if !ready[1].revents().is_empty() {
                return;
            }
            match listener.accept() {
                Ok((tcp, _)) => serve_in_thread(&shared, tcp),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => {
                    let pause = rustix::event::Timespec::try_from(ACCEPT_PAUSE).ok();
                    let _ = poll(&mut [PollFd::new(&stop, PollFlags::IN)], pause.as_ref());
                }
            }
        }
    })
}

fn serve_in_thread(shared: &Arc<Shared>, tcp: TcpStream) {
    let tcp = Arc::new(tcp);
    let number = shared.change(|state| {
        if state.stopped {
            return None;
        }
        state.connections_made += 1;
        state.connections.insert(state.connections_made, tcp.clone());
        Some(state.connections_made)
    });
    let Some(number) = number else { return };
    let shared_there = shared.clone();
    let spawned = thread::spawn("sim-serve", move || {
        // A connection that breaks is the client's business.
        let _ = serve(&shared_there, tcp);
        shared_there.change(|state| state.connections.remove(&number));
    });
    if spawned.is_err() {
        shared.change(|state| state.connections.remove(&number));
    }
}

fn serve(shared: &Shared, tcp: Arc<TcpStream>) -> io::Result<()> {
    tcp.set_nonblocking(false)?;
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(IDLE))?;
    tcp.set_write_timeout(Some(IDLE))?;
    let mut stream = match &shared.tls {
        None => Stream::Plain(Link(tcp)),
        Some(acceptor) => {
            Stream::Tls(Box::new(acceptor.accept(Link(tcp)).map_err(|e| io::Error::other(e.to_string()))?))
        }
    };
    let mut buffer = Vec::new();
    loop {
        let request = match read_request(&mut stream, &mut buffer) {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                return refuse(shared, stream, &api::error(400, "bad.request", &e.to_string()));
            }
            Err(e) => return Err(e),
        };
        let call = Call::of(&request.path);
        let (number, action, healed) = shared.change(|state| {
            let seen = Seen {
                call,
                method: request.method.clone(),
                target: request.target(),
                authorization: request.header("authorization").unwrap_or_default().to_owned(),
                body: String::from_utf8_lossy(&request.body).into_owned(),
                at: Instant::now(),
                status: 0,
            };
            (state.counts.request(seen), state.faults.take(call), state.faults.healed)
        });
        let action = match action {
            Some(Action::Slow(time)) => {
                linger(shared, &stream, Until::Over(time));
                None
            }
            Some(Action::Preceded(bytes)) => {
                stream.write_all(&bytes)?;
                None
            }
            other => other,
        };
        if call == Call::Handshake && action.is_none() && is_upgrade(&request) {
            return open_socket(shared, stream, buffer, &request, number);
        }
        let answer = match &action {
            Some(Action::Status { status, retry_after_s }) => api::failure(shared, call, *status, *retry_after_s),
            Some(Action::Custom(custom)) => {
                custom.answer(&request, &|request| api::answer(shared, Call::of(&request.path), request))
            }
            Some(Action::Body(body)) => Answer::json(200, body),
            Some(Action::Nonsense) => {
                let page = "<!DOCTYPE html><html><body><h1>It works!</h1></body></html>";
                Answer::json(200, page).with("Content-Type", "text/html")
            }
            Some(Action::Reset) => {
                stream.reset_on_close();
                return Ok(());
            }
            Some(Action::Hang) => {
                linger(shared, &stream, Until::Healed(healed));
                return Ok(());
            }
            _ => api::answer(shared, call, &request),
        };
        shared.change(|state| state.counts.answered(number, answer.status));
        let half = matches!(action, Some(Action::Half | Action::HalfThenHang));
        let keep_alive = request.keep_alive && !half;
        let now = shared.service_now(&shared.lock());
        let bytes = answer.to_bytes(now, &api::correlation(), keep_alive, request.method == "HEAD");
        if half {
            // Half of the body: the head promises more than comes.
            let cut = bytes.len() - answer.body.len().div_ceil(2).min(bytes.len());
            stream.write_all(&bytes[..cut])?;
            if matches!(action, Some(Action::HalfThenHang)) {
                linger(shared, &stream, Until::Healed(healed));
            }
            stream.finish();
            return Ok(());
        }
        stream.write_all(&bytes)?;
        if !keep_alive {
            stream.finish();
            return farewell(&mut stream);
        }
    }
}

/// Gives this answer and ends the connection.
fn refuse(shared: &Shared, mut stream: Stream, answer: &Answer) -> io::Result<()> {
    let now = shared.service_now(&shared.lock());
    stream.write_all(&answer.to_bytes(now, &api::correlation(), false, false))?;
    stream.finish();
    farewell(&mut stream)
}

/// Reads on until the client ends its side, so that a reset does not take the answer away from it.
fn farewell(stream: &mut Stream) -> io::Result<()> {
    stream.tcp().set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut bytes = [0; 1024];
    while stream.read(&mut bytes)? > 0 {}
    Ok(())
}

/// How long a call that goes wrong is held.
#[derive(Clone, Copy)]
enum Until {
    /// This long.
    Over(Duration),
    /// Until there were more healings than when it came.
    Healed(u64),
}

/// Holds a call, no longer than its client waits or the service stands.
fn linger(shared: &Shared, stream: &Stream, until: Until) {
    let deadline = match until {
        Until::Over(time) => Some(Instant::now() + time),
        Until::Healed(_) => None,
    };
    let peer_gone = || {
        let _ = stream.tcp().set_nonblocking(true);
        let gone = match stream.tcp().peek(&mut [0; 1]) {
            Ok(bytes) => bytes == 0,
            Err(e) => e.kind() != io::ErrorKind::WouldBlock,
        };
        let _ = stream.tcp().set_nonblocking(false);
        gone
    };
    loop {
        let left = deadline.map_or(HANG_LOOK, |end| end.saturating_duration_since(Instant::now()).min(HANG_LOOK));
        if left.is_zero() {
            return;
        }
        let over = shared.wait(left, |state| {
            let healed = matches!(until, Until::Healed(before) if state.faults.healed != before);
            (state.stopped || healed).then_some(())
        });
        if over.is_some() || peer_gone() {
            return;
        }
    }
}

fn is_upgrade(request: &Request) -> bool {
    let says = |name: &str, word: &str| {
        request.header(name).is_some_and(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word)))
    };
    request.method == "GET"
        && says("upgrade", "websocket")
        && says("connection", "upgrade")
        && says("sec-websocket-version", "13")
        && request.header("sec-websocket-key").is_some()
}

/// Answers the handshake and serves the socket to its end.
fn open_socket(
    shared: &Shared,
    mut stream: Stream,
    received: Vec<u8>,
    request: &Request,
    number: u64,
) -> io::Result<()> {
    let id = request.path.strip_prefix("/channels/").unwrap_or_default();
    let (outbox, woken) = Outbox::pair()?;
    // The socket counts as open before the client hears of it, so that it misses nothing from its first look on.
    let opened = shared.change(|state| {
        shared.expire_channels(state);
        let now = shared.clock.now();
        let opened = state.channels.find(id).is_some_and(|channel| {
            if let Some(other) = channel.socket.replace(outbox.clone()) {
                other.cut(Cut::Close);
            }
            channel.used = now;
            true
        });
        state.counts.sockets_opened += u64::from(opened);
        state.counts.answered(number, if opened { 101 } else { 404 });
        opened
    });
    if !opened {
        return refuse(shared, stream, &api::failure(shared, Call::Handshake, 404, None));
    }
    let key = request.header("sec-websocket-key").unwrap_or_default();
    let handshake = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    );
    let written = stream.write_all(handshake.as_bytes());
    if written.is_ok() {
        Session::new(shared, stream, outbox.clone(), woken, received).run();
    }
    shared.change(|state| {
        let now = shared.clock.now();
        if let Some(channel) = state.channels.find(id)
            && channel.socket.as_ref().is_some_and(|socket| Arc::ptr_eq(socket, &outbox))
        {
            channel.socket = None;
            channel.used = now;
        }
    });
    written
}

/// A correlation id, as every answer carries one.
pub(super) fn correlation_id() -> String {
    let text: String = random_text(24).bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-4{}-a{}-{}", &text[..8], &text[8..12], &text[13..16], &text[17..20], &text[20..32])
}
