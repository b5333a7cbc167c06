//! The server: accepts connections and serves each in its own thread.
//!
//! Handles TLS, keep-alive, the WebSocket handshake and injected faults; [`super::api`] makes the answers.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::after;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::FrameSocket;

use super::api;
use super::fault::{Action, Call, take};
use super::http::{Answer, Request, read_request};
use super::outbox::{Cut, Outbox};
use super::socket::Session;
use super::state::Shared;
use super::stream::{Stream, reset_on_close};
use super::view::Seen;
use crate::thread;

/// Limit for an idle connection and for a handshake.
const IDLE: Duration = Duration::from_secs(120);
/// How often a hanging call checks whether its fault was healed or its client is gone.
const HANG_LOOK: Duration = Duration::from_millis(50);
/// Pause after a failed accept, such as when the system has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const HTML: &str = "<!DOCTYPE html><html><body><h1>It works!</h1></body></html>";

/// Accepts connections until the service is stopped, which is checked at each connection.
pub(super) fn accept(shared: Arc<Shared>, listener: TcpListener) -> io::Result<JoinHandle<()>> {
    thread::spawn("sim-accept", move || {
        for tcp in listener.incoming() {
            if shared.lock().stopped {
                return;
            }
            if tcp.and_then(|tcp| serve_in_thread(&shared, tcp)).is_err() {
                let _ = after(ACCEPT_PAUSE).recv();
            }
        }
    })
}

fn serve_in_thread(shared: &Arc<Shared>, tcp: TcpStream) -> io::Result<()> {
    let (peer, tcp, shared) = (tcp.peer_addr()?, Arc::new(tcp), shared.clone());
    shared.change(|state| state.connections.insert(peer, tcp.clone()));
    thread::spawn("sim-serve", move || {
        // Errors of a connection only concern its client.
        let _ = serve(&shared, tcp);
        shared.change(|state| state.connections.remove(&peer));
    })?;
    Ok(())
}

fn serve(shared: &Shared, tcp: Arc<TcpStream>) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(IDLE))?;
    tcp.set_write_timeout(Some(IDLE))?;
    let mut stream = Stream::accept(tcp, shared.tls.as_ref())?;
    loop {
        let request = match read_request(&mut stream.bytes) {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                return refuse(shared, stream, &api::error(400, "bad.request", &e.to_string()));
            }
            Err(e) => return Err(e),
        };
        let call = Call::of(&request.path);
        let seen = Seen {
            call,
            method: request.method.clone(),
            target: request.target(),
            authorization: request.header("authorization").unwrap_or_default().to_owned(),
            body: String::from_utf8_lossy(&request.body).into_owned(),
            at: Instant::now(),
            status: 0,
        };
        let (number, mut action, healed) =
            shared.change(|state| (state.counts.request(seen), take(&mut state.rules, call), state.healed));
        match &action {
            Some(Action::Slow(time)) => hold(shared, &stream, *time, healed),
            Some(Action::Preceded(bytes)) => stream.write_all(bytes)?,
            _ => {}
        }
        action = action.filter(|action| !matches!(action, Action::Slow(_) | Action::Preceded(_)));
        if call == Call::Handshake && action.is_none() && is_upgrade(&request) {
            return open_socket(shared, stream, &request, number);
        }
        let answer = match &action {
            Some(Action::Status { status, retry_after_s }) => api::failure(shared, call, *status, *retry_after_s),
            Some(Action::Body(body)) => Answer::json(200, body),
            Some(Action::Nonsense) => Answer::json(200, HTML).with("Content-Type", "text/html"),
            Some(Action::Custom(handler)) => (handler.0)(&request, &|request| api::answer(shared, request)),
            Some(Action::Reset) => {
                reset_on_close(&stream.tcp);
                return Ok(());
            }
            Some(Action::Hang) => {
                hold(shared, &stream, Duration::MAX, healed);
                return Ok(());
            }
            _ => api::answer(shared, &request),
        };
        let half = matches!(action, Some(Action::Half | Action::HalfThenHang));
        let keep_alive = !half && !request.header_has("connection", "close");
        let now = shared.change(|state| {
            state.counts.answered(number, answer.status);
            state.now()
        });
        let mut bytes = answer.to_bytes(now, &api::correlation_id(), keep_alive, request.method == "HEAD");
        if half {
            // Sends half of the body with the Content-Length of the whole.
            bytes.truncate(bytes.len() - answer.body.len().div_ceil(2).min(bytes.len()));
        }
        stream.write_all(&bytes)?;
        if matches!(action, Some(Action::HalfThenHang)) {
            hold(shared, &stream, Duration::MAX, healed);
        }
        if !keep_alive {
            stream.finish();
            return Ok(());
        }
    }
}

/// Sends this answer and closes the connection.
fn refuse(shared: &Shared, mut stream: Stream, answer: &Answer) -> io::Result<()> {
    let now = shared.lock().now();
    stream.write_all(&answer.to_bytes(now, &api::correlation_id(), false, false))?;
    stream.finish();
    Ok(())
}

/// Delays a call for this long, or until the next healing, the client's disconnect or the service's stop.
fn hold(shared: &Shared, stream: &Stream, time: Duration, healed: u64) {
    let start = Instant::now();
    while start.elapsed() < time && !stream.is_lost() {
        let look = HANG_LOOK.min(time.saturating_sub(start.elapsed()));
        if shared.wait(look, |state| (state.stopped || state.healed != healed).then_some(())).is_some() {
            return;
        }
    }
}

fn is_upgrade(request: &Request) -> bool {
    request.method == "GET"
        && request.header_has("upgrade", "websocket")
        && request.header_has("connection", "upgrade")
        && request.header_has("sec-websocket-version", "13")
        && request.header("sec-websocket-key").is_some()
}

/// Answers the handshake and serves the socket to its end.
fn open_socket(shared: &Shared, mut stream: Stream, request: &Request, number: usize) -> io::Result<()> {
    let id = request.path.strip_prefix("/channels/").unwrap_or_default();
    let (outbox, woken) = Outbox::pair()?;
    // The socket is registered before the client gets the response, so that it misses no event issued afterwards.
    let opened = shared.change(|state| {
        state.expire_channels();
        let channel = state.channels.find(id);
        let opened = channel.is_some();
        state.counts.answered(number, if opened { 101 } else { 404 });
        state.counts.sockets_opened += u64::from(opened);
        if let Some(channel) = state.channels.find(id) {
            channel.used = Instant::now();
            if let Some(other) = channel.socket.replace(outbox.clone()) {
                other.cut(Cut::Close);
            }
        }
        opened
    });
    if !opened {
        return refuse(shared, stream, &api::failure(shared, Call::Handshake, 404, None));
    }
    let key = derive_accept_key(request.header("sec-websocket-key").unwrap_or_default().as_bytes());
    let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade";
    let written = stream.write_all(format!("{head}\r\nSec-WebSocket-Accept: {key}\r\n\r\n").as_bytes());
    if written.is_ok() {
        let received = stream.bytes.buffer().to_vec();
        let socket = FrameSocket::from_partially_read(stream.bytes.into_inner(), received);
        Session { shared, socket, tcp: stream.tcp, outbox: outbox.clone(), woken }.run();
    }
    shared.change(|state| {
        let channel = state.channels.find(id);
        let same = |channel: &&mut super::channels::Channel| {
            channel.socket.as_ref().is_some_and(|socket| Arc::ptr_eq(socket, &outbox))
        };
        if let Some(channel) = channel.filter(same) {
            channel.socket = None;
            channel.used = Instant::now();
        }
    });
    written
}
