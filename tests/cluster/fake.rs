//! A cluster for what a real one cannot be made to do: it keeps documents by their id, and misbehaves on request. Put
//! before a real one, it passes on what it does not misbehave about.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use audiohook_collector::thread;
use native_tls::{Identity, TlsAcceptor};
use serde_json::Value;
use ureq::Agent;
use ureq::http;

/// How long a hanging answer hangs, at most: longer than any test.
const HANG: Duration = Duration::from_secs(600);
/// How long the cluster behind it may take.
const HANG_BEHIND: Duration = Duration::from_secs(60);

/// What the cluster does with a request.
pub enum Act {
    /// What a cluster does.
    Serve,
    Answer(u16, &'static str),
    AnswerWith(u16, &'static str, &'static str),
    /// Each document of a bulk request is refused with this status and error.
    RefuseEach(u16, &'static str),
    /// No answer, and the connection stays.
    Hang,
    /// The documents are taken, and half of the answer comes.
    HangHalfway,
    Close,
}

type Script = Box<dyn FnMut(&Request) -> Act + Send>;
type ItemScript = Box<dyn FnMut(&str, &str) -> u16 + Send>;

pub struct Request {
    pub method: String,
    pub path: String,
    pub authorization: Option<String>,
    pub encoding: Option<String>,
    pub body: Vec<u8>,
    pub at: Instant,
}

impl Request {
    pub fn is_bulk(&self) -> bool {
        self.path.contains("/_bulk")
    }

    /// Documents in a bulk request.
    pub fn documents(&self) -> usize {
        self.body.iter().filter(|byte| **byte == b'\n').count() / 2
    }
}

#[derive(Default)]
pub struct State {
    /// The documents' texts by id.
    pub documents: BTreeMap<String, String>,
    /// How often a document came in for the first time or again.
    pub arrivals: usize,
    pub requests: Vec<Request>,
    pub connections: usize,
    pub templates: BTreeMap<String, String>,
    is_void: bool,
    /// The address of the real one behind it.
    behind: Option<String>,
    script: Option<Script>,
    items: Option<ItemScript>,
}

#[derive(Clone)]
pub struct Fake {
    pub url: String,
    state: Arc<Mutex<State>>,
}

impl Fake {
    pub fn start() -> Self {
        Self::listen(None)
    }

    pub fn with_tls(identity: Identity) -> Self {
        Self::listen(Some(TlsAcceptor::new(identity).unwrap()))
    }

    fn listen(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let fake = Self { url, state: state.clone() };
        thread::spawn("fake", move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let (state, tls) = (state.clone(), tls.clone());
                state.lock().unwrap().connections += 1;
                let _ = thread::spawn("fake-connection", move || match tls {
                    None => serve(stream, &state),
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(stream) {
                            serve(stream, &state);
                        }
                    }
                });
            }
        })
        .unwrap();
        fake
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// From now on every request goes through this.
    pub fn script(&self, script: impl FnMut(&Request) -> Act + Send + 'static) {
        self.state().script = Some(Box::new(script));
    }

    /// Only bulk requests.
    pub fn on_bulk(&self, mut script: impl FnMut(&Request) -> Act + Send + 'static) {
        self.script(move |request| if request.is_bulk() { script(request) } else { Act::Serve });
    }

    /// Documents and requests are answered and forgotten.
    pub fn keep_nothing(&self) {
        self.state().is_void = true;
    }

    /// From now on each document's status is this one's, by id and text; 201 serves it as a cluster does.
    pub fn on_item(&self, items: impl FnMut(&str, &str) -> u16 + Send + 'static) {
        self.state().items = Some(Box::new(items));
    }

    /// From now on what it serves is served by the real cluster at this address.
    pub fn pass_on_to(&self, url: &str) {
        self.state().behind = Some(url.to_owned());
    }

    pub fn behave(&self) {
        let mut state = self.state();
        state.script = None;
        state.items = None;
    }

    pub fn documents(&self) -> usize {
        self.state().documents.len()
    }

    /// When each bulk request came, and how many documents it had.
    pub fn bulks(&self) -> Vec<(Instant, usize)> {
        let state = self.state();
        state.requests.iter().filter(|r| r.is_bulk()).map(|r| (r.at, r.documents())).collect()
    }
}

fn serve<S: Read + Write>(stream: S, state: &Mutex<State>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream) {
        let act = {
            let mut state = state.lock().unwrap();
            let act = state.script.as_mut().map_or(Act::Serve, |script| script(&request));
            let kept = !state.is_void;
            state.requests.extend(kept.then(|| Request {
                method: request.method.clone(),
                path: request.path.clone(),
                authorization: request.authorization.clone(),
                encoding: request.encoding.clone(),
                body: request.body.clone(),
                at: request.at,
            }));
            act
        };
        let (status, headers, body, cut) = match act {
            Act::Serve | Act::HangHalfway => {
                let Some((status, body)) = serve_one(&request, state) else { return };
                (status, "", body, matches!(act, Act::HangHalfway))
            }
            Act::Answer(status, body) => (status, "", body.to_owned(), false),
            Act::AnswerWith(status, headers, body) => (status, headers, body.to_owned(), false),
            Act::RefuseEach(status, error) => (200, "", refused(request.documents(), status, error), false),
            Act::Hang => return hang(),
            Act::Close => return,
        };
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n",
            body.len()
        );
        let mut text = head.into_bytes();
        if request.method != "HEAD" {
            text.extend_from_slice(body.as_bytes());
        }
        if cut {
            text.truncate(text.len() - body.len() / 2);
        }
        if stream.get_mut().write_all(&text).and_then(|()| stream.get_mut().flush()).is_err() {
            return;
        }
        if cut {
            return hang();
        }
    }
}

fn hang() {
    let _ = crossbeam_channel::after(HANG).recv();
}

fn read_request<S: Read>(stream: &mut BufReader<S>) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut length, mut authorization, mut encoding) = (0, None, None);
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "authorization" => authorization = Some(value.trim().to_owned()),
            "content-encoding" => encoding = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    if encoding.as_deref() == Some("gzip") {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).ok()?;
        body = plain;
    }
    Some(Request { method, path, authorization, encoding, body, at: Instant::now() })
}

/// Status and body, of its own or of the cluster behind it; `None`: that one is not there.
fn serve_one(request: &Request, state: &Mutex<State>) -> Option<(u16, String)> {
    let behind = state.lock().unwrap().behind.clone();
    match behind {
        None => Some(answer(request, &mut state.lock().unwrap())),
        Some(url) if request.is_bulk() => pass_bulk_on(&url, request, state),
        Some(url) => pass_on(&url, request, request.body.clone()),
    }
}

fn pass_on(url: &str, request: &Request, body: Vec<u8>) -> Option<(u16, String)> {
    let config = Agent::config_builder().http_status_as_error(false).proxy(None).timeout_global(Some(HANG_BEHIND));
    let agent: Agent = config.build().into();
    let kind = if request.is_bulk() { "application/x-ndjson" } else { "application/json" };
    let head = http::Request::builder()
        .method(request.method.as_str())
        .uri(format!("{url}{}", request.path))
        .header("content-type", kind);
    let answered =
        if body.is_empty() { agent.run(head.body(()).unwrap()) } else { agent.run(head.body(body).unwrap()) };
    let mut answered = answered.ok()?;
    let text = answered.body_mut().read_to_string().ok()?;
    Some((answered.status().as_u16(), text))
}

/// Of a bulk request the documents that are to be refused are kept from the cluster, and answered here.
fn pass_bulk_on(url: &str, request: &Request, state: &Mutex<State>) -> Option<(u16, String)> {
    let body = String::from_utf8_lossy(&request.body);
    let lines: Vec<&str> = body.lines().collect();
    let refused: Vec<u16> = {
        let mut state = state.lock().unwrap();
        let mut status = |document: &str| state.items.as_mut().map_or(201, |items| items("", document));
        lines.chunks_exact(2).map(|pair| status(pair[1])).collect()
    };
    let passed: String = lines
        .chunks_exact(2)
        .zip(&refused)
        .filter(|(_, status)| **status == 201)
        .map(|(pair, _)| format!("{}\n{}\n", pair[0], pair[1]))
        .collect();
    let (status, text) = match passed.is_empty() {
        true => (200, r#"{"errors":false,"items":[]}"#.to_owned()),
        false => pass_on(url, request, passed.into_bytes())?,
    };
    let Ok(mut answer) = serde_json::from_str::<Value>(&text) else { return Some((status, text)) };
    let Some(items) = answer["items"].as_array_mut() else { return Some((status, text)) };
    let mut real = std::mem::take(items).into_iter();
    let merged = refused.iter().map(|status| match status {
        201 => real.next().unwrap_or_default(),
        status => serde_json::from_str(&item(*status)).unwrap(),
    });
    answer["items"] = merged.collect();
    answer["errors"] = Value::Bool(refused.iter().any(|status| *status != 201) || answer["errors"] == true);
    Some((status, answer.to_string()))
}

fn answer(request: &Request, state: &mut State) -> (u16, String) {
    let path = request.path.split('?').next().unwrap_or_default();
    // Whatever path stands before the API is a proxy's.
    if path.contains("/_index_template/_simulate_index/") {
        return (200, "{}".to_owned());
    }
    let path = path.rfind("/_").or_else(|| path.rfind('/')).map_or(path, |at| &path[at..]);
    if request.is_bulk() && state.is_void && state.items.is_none() {
        let items = vec![r#"{"create":{"status":201}}"#; request.documents()].join(",");
        return (200, format!(r#"{{"errors":false,"items":[{items}]}}"#));
    }
    if request.is_bulk() {
        return (200, bulk(&String::from_utf8_lossy(&request.body), state));
    }
    if path == "/" {
        let version = r#"{"version":{"distribution":"opensearch","number":"2.19.1"}}"#;
        return (200, version.to_owned());
    }
    if let Some(name) = path.strip_prefix("/_index_template/") {
        if request.method == "PUT" {
            state.templates.insert(name.to_owned(), String::from_utf8_lossy(&request.body).into_owned());
            return (200, r#"{"acknowledged":true}"#.to_owned());
        }
        return if state.templates.contains_key(name) { (200, "{}".into()) } else { (404, "{}".into()) };
    }
    match path {
        "/_template" | "/_index_template" => (200, "{}".to_owned()),
        _ => {
            (404, r#"{"error":{"type":"index_not_found_exception","reason":"no such index"},"status":404}"#.to_owned())
        }
    }
}

fn bulk(body: &str, state: &mut State) -> String {
    let mut lines = body.lines();
    let mut items = Vec::new();
    let mut errors = false;
    while let (Some(action), Some(document)) = (lines.next(), lines.next()) {
        let action: Value = serde_json::from_str(action).unwrap();
        let id = action["create"]["_id"].as_str().unwrap().to_owned();
        assert_eq!(action["create"]["_index"], "genesys-audiohook");
        state.arrivals += 1;
        let mut status = state.items.as_mut().map_or(201, |items| items(&id, document));
        if status == 201 && !state.is_void {
            match state.documents.entry(id) {
                Entry::Occupied(_) => status = 409,
                Entry::Vacant(place) => {
                    place.insert(document.to_owned());
                }
            }
        }
        errors |= status != 201;
        items.push(item(status));
    }
    format!(r#"{{"errors":{errors},"items":[{}]}}"#, items.join(","))
}

/// An answer that refuses this many documents.
fn refused(documents: usize, status: u16, error: &str) -> String {
    let items = vec![format!(r#"{{"create":{{"status":{status},"error":{error}}}}}"#); documents];
    format!(r#"{{"errors":true,"items":[{}]}}"#, items.join(","))
}

/// A document's part of an answer.
fn item(status: u16) -> String {
    let (kind, reason) = match status {
        201 => return r#"{"create":{"status":201}}"#.to_owned(),
        409 => ("version_conflict_engine_exception", "document already exists"),
        429 => ("es_rejected_execution_exception", "rejected execution of primary operation"),
        400 => ("mapper_parsing_exception", "failed to parse field [n] of type [long]"),
        _ => ("exception", "told to"),
    };
    format!(r#"{{"create":{{"status":{status},"error":{{"type":"{kind}","reason":"{reason}"}}}}}}"#)
}
