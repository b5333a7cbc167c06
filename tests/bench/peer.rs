//! The service as the benchmark needs it: the least of the REST API that a collector asks for, and sockets that the rows
//! write to themselves.
//!
//! Must never: be what a measurement waits for. Sockets are handed out raw, and what goes over them is made beforehand.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audiohook_collector::clock::parse_instant;
use audiohook_collector::thread;
use crossbeam_channel::{Receiver, bounded};
use native_tls::{TlsAcceptor, TlsStream};

use super::events::push_row;

/// Rows of a page of the history.
const PAGE_ROWS: usize = 200;

/// An open WebSocket, its handshake done.
pub enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Events of the history: number `n` happened at `from_ms + n * step_ms`.
#[derive(Clone, Copy)]
pub struct History {
    pub from_ms: i64,
    pub step_ms: i64,
    pub count: usize,
}

#[derive(Default)]
struct Shared {
    tls: bool,
    topics: usize,
    history: Option<History>,
}

pub struct Peer {
    pub url: String,
    /// Where plain sockets and those over TLS are accepted.
    plain: String,
    tls: String,
    pub ca: PathBuf,
    shared: Arc<Mutex<Shared>>,
    sockets: Receiver<Socket>,
}

impl Peer {
    /// Starts it; the CA's certificate is put into the folder.
    pub fn start(folder: &Path) -> Self {
        let authority = super::tls::Authority::new();
        let ca = folder.join("ca.pem");
        std::fs::write(&ca, authority.certificate_pem()).unwrap();
        let acceptor = TlsAcceptor::new(authority.identity(&["127.0.0.1"])).unwrap();
        let (found, sockets) = bounded(16);
        let listen = |tls: Option<TlsAcceptor>| {
            let found = found.clone();
            serve(move |tcp| {
                tcp.set_nodelay(true).unwrap();
                let socket = match &tls {
                    None => tungstenite::accept(tcp.try_clone().unwrap()).ok().map(|_| Socket::Plain(tcp)),
                    Some(acceptor) => acceptor.accept(tcp).ok().and_then(|stream| {
                        tungstenite::accept(stream).ok().map(|socket| Socket::Tls(Box::new(socket.into_inner())))
                    }),
                };
                if let Some(socket) = socket {
                    let _ = found.send(socket);
                }
            })
        };
        let (plain, tls) = (listen(None), listen(Some(acceptor)));
        let shared = Arc::new(Mutex::new(Shared { topics: 1, ..Shared::default() }));
        let (state, addresses) = (shared.clone(), (plain.clone(), tls.clone()));
        let rest = serve(move |tcp| {
            let _ = answer_all(tcp, &state, &addresses);
        });
        Self { url: format!("http://{rest}"), plain, tls, ca, shared, sockets }
    }

    /// What channels made from now on are reached by.
    pub fn set_tls(&self, tls: bool) {
        self.shared.lock().unwrap().tls = tls;
    }

    /// How many definitions there are.
    pub fn set_topics(&self, topics: usize) {
        self.shared.lock().unwrap().topics = topics;
    }

    pub fn set_history(&self, history: Option<History>) {
        self.shared.lock().unwrap().history = history;
    }

    /// Where the floor connects to.
    pub fn address(&self, tls: bool) -> &str {
        if tls { &self.tls } else { &self.plain }
    }

    /// The next socket that is opened.
    pub fn socket(&self) -> Socket {
        self.sockets.recv_timeout(Duration::from_secs(20)).expect("no socket was opened within 20 s")
    }
}

/// Accepts connections on a port of its own, each served by a thread.
pub fn serve(work: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let work = Arc::new(work);
    thread::spawn("listener", move || {
        for tcp in listener.incoming().flatten() {
            let work = work.clone();
            let _ = thread::spawn("connection", move || work(tcp));
        }
    })
    .unwrap();
    address
}

/// A request, as far as it matters here.
pub struct Request {
    pub method: String,
    pub path: String,
    pub body: Vec<u8>,
}

/// Reads a request; `None` at the connection's end.
pub fn read_request(input: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    input.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut length, mut chunked) = (0, false);
    loop {
        line.clear();
        input.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
        let lower = line.trim().to_ascii_lowercase();
        if lower.is_empty() {
            break;
        }
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        chunked |= lower.starts_with("transfer-encoding:") && lower.ends_with("chunked");
    }
    let mut body = vec![0; length];
    if chunked {
        body = read_chunks(input)?;
    } else {
        input.read_exact(&mut body).ok()?;
    }
    Some(Request { method, path, body })
}

fn read_chunks(input: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        input.read_line(&mut line).ok()?;
        let length = usize::from_str_radix(line.trim(), 16).ok()?;
        let mut chunk = vec![0; length + 2];
        input.read_exact(&mut chunk).ok()?;
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(&chunk[..length]);
    }
}

pub fn write_answer(output: &mut impl Write, status: &str, body: &str) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
    let mut answer = head.into_bytes();
    answer.extend_from_slice(body.as_bytes());
    output.write_all(&answer)
}

fn answer_all(tcp: TcpStream, shared: &Mutex<Shared>, addresses: &(String, String)) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    let mut output = tcp.try_clone()?;
    let mut input = BufReader::new(tcp);
    while let Some(request) = read_request(&mut input) {
        let body = answer(&request, shared, addresses);
        write_answer(&mut output, "200 OK", &body)?;
    }
    Ok(())
}

fn answer(request: &Request, shared: &Mutex<Shared>, (plain, tls): &(String, String)) -> String {
    let shared = shared.lock().unwrap();
    let ids = || (1..=shared.topics).map(|n| format!("AUDIOHOOK-{n:04}"));
    let path = request.path.split('?').next().unwrap_or_default();
    if path.ends_with("/oauth/token") {
        return r#"{"access_token":"token","token_type":"bearer","expires_in":86399}"#.to_owned();
    }
    if path.ends_with("/availabletopics") {
        return r#"{"entities":[{"id":"v2.operations.events.{id}","transports":["All"]}]}"#.to_owned();
    }
    if path.ends_with("/definitions") {
        let all: Vec<String> = ids()
            .map(|id| format!(r#"{{"id":"{id}","name":"AudioHook error","description":"The server did not answer."}}"#))
            .collect();
        return format!(r#"{{"entities":[{}]}}"#, all.join(","));
    }
    if path.ends_with("/subscriptions") {
        let all: Vec<String> =
            ids().map(|id| format!(r#"{{"id":"v2.operations.events.{id}","state":"Permitted"}}"#)).collect();
        return format!(r#"{{"entities":[{}]}}"#, all.join(","));
    }
    if path.ends_with("/channels") && request.method == "POST" {
        let uri = if shared.tls { format!("wss://{tls}") } else { format!("ws://{plain}") };
        return format!(r#"{{"id":"streaming-1-bench","connectUri":"{uri}/channels/streaming-1-bench"}}"#);
    }
    if path.ends_with("/events/query") {
        return shared.history.map_or_else(|| r#"{"entities":[]}"#.to_owned(), |history| page(request, history));
    }
    "{}".to_owned()
}

/// A page of the history: those of the interval asked for, from the cursor on.
fn page(request: &Request, history: History) -> String {
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let interval = body["interval"].as_str().unwrap_or_default();
    let (from, to) = interval.split_once('/').unwrap_or_default();
    let number = |text: &str| {
        let after_ms = parse_instant(text).unwrap_or(0) - history.from_ms;
        usize::try_from((after_ms + history.step_ms - 1) / history.step_ms).unwrap_or(0).min(history.count)
    };
    let cursor = request.path.split_once("after=").and_then(|(_, after)| after.parse().ok());
    let (first, end) = (cursor.unwrap_or_else(|| number(from)), number(to));
    let last = (first + PAGE_ROWS).min(end);
    let mut answer = String::with_capacity(PAGE_ROWS * 700 + 200);
    answer.push_str(r#"{"entities":["#);
    for n in first..last {
        if n > first {
            answer.push(',');
        }
        push_row(&mut answer, n, history.from_ms + n as i64 * history.step_ms);
    }
    answer.push(']');
    if last < end {
        answer.push_str(&format!(r#","nextUri":"/api/v2/usage/events/query?pageSize={PAGE_ROWS}&after={last}""#));
    }
    answer.push('}');
    answer
}

/// Reads and lets go, for the row that shows the sender's own speed.
pub fn drain(mut stream: impl Read, bytes: usize) {
    let mut buffer = vec![0; 256 * 1024];
    let mut left = bytes;
    while left > 0 {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => left -= count.min(left),
        }
    }
}
