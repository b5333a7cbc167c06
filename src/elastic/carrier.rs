//! Carries one request at a time to the cluster and brings the answer back.
//!
//! Deals with: HTTP, TLS, gzip, and a thread that may hang in them. Must never: decide anything. It does not retry, does
//! not follow a redirect, and does not know what an answer means.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, select};
use flate2::{Compress, Compression, FlushCompress, Status as Flated};
use ureq::http::{HeaderMap, Method, Request, Response};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};
use ureq::{Agent, Body, Proxy};

use crate::clock::{Clock, parse_http_date};
use crate::config;
use crate::elastic::setup::{self, Setup};
use crate::elastic::verdict::{FILTER_PATH, Reply};
use crate::status::Status;
use crate::thread;

/// Time to look up a name, connect and agree on TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for everything, where a request brings no shorter one.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// An idle connection is not used again after this long: proxies cut them without a word.
const IDLE_CONNECTION_MAX: Duration = Duration::from_secs(25);
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
    nodes: Vec<Node>,
    authorization: Option<String>,
    clock: Clock,
    gzip: Compress,
    packed: Vec<u8>,
}

struct Node {
    url: String,
    agent: Agent,
}

impl Carrier {
    /// # Errors
    /// When ELASTIC_CA_FILE cannot be read or holds no certificate, or HTTPS_PROXY is no address.
    pub fn new(elastic: &config::Elastic, network: &config::Network, clock: Clock) -> io::Result<Self> {
        let nodes = elastic
            .urls
            .iter()
            .map(|url| Ok(Node { url: url.trim_end_matches('/').to_owned(), agent: agent(elastic, network, url)? }))
            .collect::<io::Result<_>>()?;
        Ok(Self {
            nodes,
            authorization: elastic.authorization.as_ref().map(|secret| secret.expose().to_owned()),
            clock,
            gzip: Compress::new_gzip(Compression::fast(), GZIP_WINDOW_BITS),
            packed: Vec::new(),
        })
    }

    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// A node's address as it may be shown.
    pub fn shown(&self, node: usize) -> String {
        shown_url(&self.nodes[node].url)
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
                let agent = &self.nodes[node].agent;
                let request = agent.configure_request(request).timeout_global(Some(timeout)).build();
                self.read(agent.run(request))
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
        let agent = &self.nodes[node].agent;
        let request = agent.configure_request(request).timeout_global(Some(timeout)).build();
        self.read(agent.run(request))
    }

    fn head(&self, node: usize, method: Method, path: &str) -> ureq::http::request::Builder {
        let head = Request::builder().method(method).uri(format!("{}{path}", self.nodes[node].url));
        match &self.authorization {
            Some(value) => head.header("authorization", value),
            None => head,
        }
    }

    fn read(&self, answered: Result<Response<Body>, ureq::Error>) -> Result<Reply, Failure> {
        let response = answered.map_err(|error| failure(&error))?;
        let (parts, body) = response.into_parts();
        let body = body.into_with_config().limit(ANSWER_BYTES_MAX).read_to_vec().map_err(|error| failure(&error))?;
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

/// Starts the thread. It ends when the other side of `jobs` is dropped, or at a stop; in the middle of a request it is
/// not waited for.
///
/// # Errors
/// When the system refuses one more thread.
pub fn spawn(
    mut carrier: Carrier,
    index: String,
    status: Arc<Status>,
    jobs: Receiver<Job>,
    answers: Sender<Answer>,
    stop: Receiver<()>,
) -> io::Result<()> {
    thread::spawn("carrier", move || {
        let beat = status.beats.register_with_limit("carrier", 3 * REQUEST_TIMEOUT);
        loop {
            beat.waiting();
            let job = select! {
                recv(jobs) -> job => match job { Ok(job) => job, Err(_) => return },
                recv(stop) -> _ => return,
            };
            beat.busy();
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

/// The agent for one address: the one place that knows how a connection to the cluster is made.
fn agent(elastic: &config::Elastic, network: &config::Network, url: &str) -> io::Result<Agent> {
    let roots = match elastic.ca_file.as_deref().or(network.ssl_cert_file.as_deref()) {
        Some(path) => RootCerts::from(certificates(path)?),
        None => RootCerts::PlatformVerifier,
    };
    let tls = TlsConfig::builder().provider(TlsProvider::NativeTls).root_certs(roots).build();
    let proxy = network.https_proxy.as_ref().filter(|_| url.starts_with("https://") && !bypasses(network, url));
    let proxy = proxy
        .map(|proxy| Proxy::new(proxy.expose()).map_err(|_| io::Error::other("cannot use HTTPS_PROXY: no address")))
        .transpose()?;
    Ok(Agent::config_builder()
        .tls_config(tls)
        .proxy(proxy)
        .user_agent(concat!("audiohook-collector/", env!("CARGO_PKG_VERSION")))
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_global(Some(REQUEST_TIMEOUT))
        .max_idle_age(IDLE_CONNECTION_MAX)
        .max_idle_connections_per_host(1)
        .build()
        .new_agent())
}

/// Whether NO_PROXY names the address's host, or a domain above it.
fn bypasses(network: &config::Network, url: &str) -> bool {
    let shown = shown_url(url);
    let authority = shown.split("://").nth(1).unwrap_or_default().split('/').next().unwrap_or_default();
    let host = match authority.rfind(':') {
        Some(colon) if !authority.ends_with(']') => &authority[..colon],
        _ => authority,
    };
    network.no_proxy.iter().map(|name| name.trim().trim_start_matches("*.").trim_start_matches('.')).any(|name| {
        name == "*"
            || name.eq_ignore_ascii_case(host)
            || host.len() > name.len()
                && !name.is_empty()
                && host.is_char_boundary(host.len() - name.len())
                && host[host.len() - name.len()..].eq_ignore_ascii_case(name)
                && host[..host.len() - name.len()].ends_with('.')
    })
}

/// All certificates of a PEM file.
fn certificates(path: &Path) -> io::Result<Vec<Certificate<'static>>> {
    let named = |cause: String| io::Error::other(format!("cannot read the CA file {}: {cause}", path.display()));
    let pem = fs::read(path).map_err(|error| named(error.to_string()))?;
    let found: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() { Err(named("no certificate in it".to_owned())) } else { Ok(found) }
}

/// A failure in words that carry no credentials.
fn failure(error: &ureq::Error) -> Failure {
    use ureq::Error;
    let timed_out = matches!(error, Error::Timeout(_));
    let why = match error {
        Error::Timeout(ureq::Timeout::Resolve) => "cannot look up its name in time".to_owned(),
        Error::Timeout(ureq::Timeout::Connect) => "cannot connect in time".to_owned(),
        Error::Timeout(_) => "no answer in time".to_owned(),
        Error::HostNotFound => "cannot look up its name: not found".to_owned(),
        Error::Io(error) => format!("cannot reach it: {error}"),
        Error::NativeTls(error) => {
            format!("cannot agree on TLS: {error} (a private CA belongs into ELASTIC_CA_FILE)")
        }
        Error::BodyExceedsLimit(_) => "its answer is too long".to_owned(),
        Error::ConnectProxyFailed(why) => format!("the proxy does not connect us: {why}"),
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

    #[test]
    fn no_proxy_names_hosts_and_domains() {
        let network = config::Network {
            no_proxy: vec!["internal.example".to_owned(), ".corp".to_owned(), "10.0.0.1".to_owned()],
            ..config::Network::default()
        };
        for url in [
            "https://internal.example",
            "https://es.internal.example:9200/x",
            "https://a.corp",
            "https://10.0.0.1:9200",
        ] {
            assert!(bypasses(&network, url), "{url}");
        }
        for url in ["https://notinternal.example", "https://example", "https://110.0.0.1:9200"] {
            assert!(!bypasses(&network, url), "{url}");
        }
    }
}
