//! Carries one request at a time to the cluster and brings the answer back.
//!
//! Deals with: HTTP, TLS, gzip, and a thread that may hang in them. Must never: decide anything. It does not retry, does
//! not follow a redirect, and does not know what an answer means.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use flate2::{Compress, Compression, FlushCompress, Status as Flated};
use ureq::http::{HeaderMap, Method, Request, Response};
use ureq::{Agent, AsSendBody, Body};

use crate::clock::{Clock, parse_http_date};
use crate::config;
use crate::elastic::setup::{self, Setup};
use crate::elastic::verdict::{FILTER_PATH, Reply};
use crate::net::{Dialer, Limits, agent, dial_error};
use crate::status::Status;
use crate::thread;

/// Time to look up a name, connect and agree on TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for everything, where a request brings no shorter one.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of an answer that are read, at most.
const ANSWER_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// A wait that a server asks for is kept to up to this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// Bytes of buffers that are kept from one request to the next.
const BUFFER_KEPT_BYTES: usize = 1024 * 1024;
/// 32 KiB of history, the most that gzip has.
const GZIP_WINDOW_BITS: u8 = 15;

/// What the carrier thread is asked to do.
#[derive(Debug)]
pub enum Job {
    /// Send the first `length` bytes of the body.
    Bulk { node: usize, body: Vec<u8>, length: usize, timeout: Duration },
    /// `GET /`: is anybody there, and who?
    Probe { node: usize, timeout: Duration },
    /// See to the index template.
    Setup { node: usize },
}

/// What came of it.
#[derive(Debug)]
pub enum Answer {
    /// The body comes back, to be used again.
    Bulk {
        node: usize,
        body: Vec<u8>,
        outcome: Result<Reply, Failure>,
    },
    Probe {
        node: usize,
        outcome: Result<Reply, Failure>,
    },
    Setup {
        node: usize,
        outcome: Setup,
    },
}

/// Why there is no answer.
#[derive(Clone, Debug)]
pub struct Failure {
    /// For a person: what failed, and what to do where that is known.
    pub why: String,
    /// The time ran out with the connection open: the cluster may be at work on the request still.
    pub timed_out: bool,
    /// The connection broke while the request was under way: it may be larger than somebody in between takes.
    pub broke: bool,
}

/// A way to the cluster's nodes.
pub struct Carrier {
    /// The nodes' addresses.
    urls: Vec<String>,
    agent: Agent,
    authorization: Option<String>,
    clock: Clock,
    gzip: Compress,
    packed: Vec<u8>,
}

impl Carrier {
    /// # Errors
    /// When ELASTIC_CA_FILE cannot be read or holds no certificate, or HTTPS_PROXY is no address.
    pub fn new(elastic: &config::Elastic, network: &config::Network, clock: Clock) -> io::Result<Self> {
        let dialer = match &elastic.ca_file {
            Some(path) => Dialer::with_ca_file(network, path),
            None => Dialer::new(network),
        };
        let dialer = dialer.map_err(|error| io::Error::other(error.to_string()))?;
        if elastic.ca_file.is_some() {
            dialer.check_trust().map_err(|error| io::Error::other(error.to_string()))?;
        }
        let limits = Limits { connect: CONNECT_TIMEOUT, read: REQUEST_TIMEOUT, total: REQUEST_TIMEOUT };
        Ok(Self {
            urls: elastic.urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect(),
            agent: agent(Arc::new(dialer), limits),
            authorization: elastic.authorization.as_ref().map(|secret| secret.expose().to_owned()),
            clock,
            gzip: Compress::new_gzip(Compression::fast(), GZIP_WINDOW_BITS),
            packed: Vec::new(),
        })
    }

    pub fn nodes(&self) -> usize {
        self.urls.len()
    }

    /// A node's address as it may be shown.
    pub fn shown(&self, node: usize) -> String {
        shown_url(&self.urls[node])
    }

    /// Sends a bulk request, compressed.
    ///
    /// # Errors
    /// When there is no HTTP answer.
    pub fn bulk(&mut self, node: usize, body: &[u8], timeout: Duration) -> Result<Reply, Failure> {
        let mut packed = std::mem::take(&mut self.packed);
        pack(&mut self.gzip, body, &mut packed);
        let path = format!("/_bulk?filter_path={FILTER_PATH}");
        let sent = self.send(node, Method::POST, &path, "application/x-ndjson", Some("gzip"), &packed, timeout);
        packed.clear();
        packed.shrink_to(BUFFER_KEPT_BYTES);
        self.packed = packed;
        sent
    }

    /// Sends a JSON request, or one without a body.
    ///
    /// # Errors
    /// When there is no HTTP answer.
    pub fn call(
        &self,
        node: usize,
        method: Method,
        path: &str,
        body: Option<&str>,
        timeout: Duration,
    ) -> Result<Reply, Failure> {
        match body {
            Some(body) => self.send(node, method, path, "application/json", None, body.as_bytes(), timeout),
            None => {
                let request = self.head(node, method, path).body(()).map_err(|error| failure(&error.into()))?;
                self.run(request, timeout)
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the one place where a request is put together")]
    fn send(
        &self,
        node: usize,
        method: Method,
        path: &str,
        kind: &str,
        encoding: Option<&str>,
        body: &[u8],
        timeout: Duration,
    ) -> Result<Reply, Failure> {
        let mut head = self.head(node, method, path).header("content-type", kind);
        if let Some(encoding) = encoding {
            head = head.header("content-encoding", encoding);
        }
        let request = head.body(body).map_err(|error| failure(&error.into()))?;
        self.run(request, timeout)
    }

    fn run(&self, request: Request<impl AsSendBody>, timeout: Duration) -> Result<Reply, Failure> {
        let request = self.agent.configure_request(request).timeout_global(Some(timeout)).build();
        self.read(self.agent.run(request))
    }

    fn head(&self, node: usize, method: Method, path: &str) -> ureq::http::request::Builder {
        let head = Request::builder().method(method).uri(format!("{}{path}", self.urls[node]));
        match &self.authorization {
            Some(value) => head.header("authorization", value),
            None => head,
        }
    }

    fn read(&self, answered: Result<Response<Body>, ureq::Error>) -> Result<Reply, Failure> {
        let response = answered.map_err(|error| failure(&error))?;
        let (parts, body) = response.into_parts();
        let mut body =
            body.into_with_config().limit(ANSWER_BYTES_MAX).read_to_vec().map_err(|error| failure(&error))?;
        if let (Some(secret), Ok(text)) = (&self.authorization, std::str::from_utf8(&body)) {
            body = crate::secret::hide(text, secret).into_owned().into_bytes();
        }
        Ok(Reply { status: parts.status.as_u16(), retry_after: self.retry_after(&parts.headers), body })
    }

    /// Seconds, or a date by this machine's clock.
    fn retry_after(&self, headers: &HeaderMap) -> Option<Duration> {
        let text = headers.get("retry-after")?.to_str().ok()?.trim();
        let wait = match text.parse::<u64>() {
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => Duration::from_millis(u64::try_from(parse_http_date(text)? - self.clock.wall()).unwrap_or(0)),
        };
        Some(wait.min(RETRY_AFTER_MAX))
    }
}

/// Starts the thread. It ends when the other side of `jobs` is dropped; in the middle of a request it is not waited for.
///
/// # Errors
/// When the system refuses one more thread.
pub fn spawn(
    mut carrier: Carrier,
    index: String,
    status: Arc<Status>,
    jobs: Receiver<Job>,
    answers: Sender<Answer>,
) -> io::Result<()> {
    thread::spawn("carrier", move || {
        let beat = status.beats.register("carrier");
        loop {
            beat.waiting();
            let Ok(job) = jobs.recv() else { return };
            beat.busy();
            let timed = beat.timed();
            let answer = match job {
                Job::Bulk { node, body, length, timeout } => {
                    let outcome = carrier.bulk(node, &body[..length], timeout);
                    Answer::Bulk { node, body, outcome }
                }
                Job::Probe { node, timeout } => {
                    let outcome = carrier.call(node, Method::GET, "/", None, timeout);
                    Answer::Probe { node, outcome }
                }
                Job::Setup { node } => Answer::Setup { node, outcome: setup::put_if_absent(&carrier, node, &index) },
            };
            drop(timed);
            beat.waiting();
            if answers.send(answer).is_err() {
                return;
            }
        }
    })
    .map(drop)
}

/// Everything but the credentials that an address may carry.
pub fn shown_url(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let authority_end = rest.find('/').unwrap_or(rest.len());
            let host_begin = rest[..authority_end].rfind('@').map_or(0, |at| at + 1);
            format!("{scheme}://{}", &rest[host_begin..])
        }
        None => url.to_owned(),
    }
}

/// Compresses into the buffer.
fn pack(gzip: &mut Compress, body: &[u8], packed: &mut Vec<u8>) {
    gzip.reset();
    packed.clear();
    packed.reserve(body.len() / 4 + 1024);
    loop {
        let done = gzip.total_in() as usize;
        match gzip.compress_vec(&body[done..], packed, FlushCompress::Finish) {
            Ok(Flated::StreamEnd) => return,
            // No room: the stream goes on where it stopped.
            _ => packed.reserve(packed.capacity() / 2 + 1024),
        }
    }
}

/// A failure in words that carry no credentials.
fn failure(error: &ureq::Error) -> Failure {
    use ureq::Error;
    if let Some(dial) = dial_error(error) {
        return Failure { why: dial.to_string(), timed_out: false, broke: false };
    }
    let timed_out = matches!(error, Error::Timeout(_));
    let why = match error {
        Error::Timeout(ureq::Timeout::Resolve) => "cannot look up its name in time".to_owned(),
        Error::Timeout(ureq::Timeout::Connect) => "cannot connect in time".to_owned(),
        Error::Timeout(_) => "no answer in time".to_owned(),
        Error::Io(error) => format!("cannot reach it: {error}"),
        Error::BodyExceedsLimit(_) => "its answer is too long".to_owned(),
        Error::BadUri(_) | Error::Http(_) => "ELASTIC_URL or ELASTIC_AUTH cannot be put into a request".to_owned(),
        other => format!("cannot reach it: {other}"),
    };
    let broke = matches!(error, Error::Io(cause) if matches!(cause.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted))
        || matches!(error, Error::BodyExceedsLimit(_));
    Failure { why, timed_out: timed_out && !why_is_connect(error), broke }
}

/// Whether the time ran out before the request was under way.
fn why_is_connect(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn what_is_packed_unpacks_to_the_same_bytes_again_and_again() {
        let mut gzip = Compress::new_gzip(Compression::fast(), GZIP_WINDOW_BITS);
        let mut packed = Vec::new();
        // Bytes that do not compress make the buffer grow on the way.
        let mut seed = 7u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1);
            (seed >> 33) as u8
        })
        .take(300_000)
        .collect();
        for body in [&b""[..], b"a line\n", &noise, &[b'x'; 200_000]] {
            pack(&mut gzip, body, &mut packed);
            let mut back = Vec::new();
            flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut back).unwrap();
            assert!(back == body, "{} bytes", body.len());
        }
    }

    #[test]
    fn credentials_in_an_address_are_not_shown() {
        assert_eq!(shown_url("https://user:p@ss@es.example:9200/pre@fix"), "https://es.example:9200/pre@fix");
        assert_eq!(shown_url("http://127.0.0.1:9200"), "http://127.0.0.1:9200");
    }
}
