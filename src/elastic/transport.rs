//! Sends one HTTP request at a time to a node of the cluster, with TLS, gzip and the login, and masks the login in
//! texts. It does not retry, follow redirects or judge responses.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use flate2::{Compress, Compression, FlushCompress, Status as Flated};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ureq::http::{Method, Request};
use ureq::{Agent, AsSendBody};

use crate::clock::Clock;
use crate::config;
use crate::elastic::verdict::{self, Cause, FILTER_PATH, Held, Lost, Reply};
use crate::net::{Dialer, Limits, agent, dial_error, retry_after};
use crate::secret::{self, Secret};
use crate::status::Problem;

/// Timeout for the name lookup, the connection and the TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout of a whole request, unless it has a shorter one.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Maximum length of a response.
const ANSWER_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Maximum capacity of the buffer that is kept between requests.
const BUFFER_KEPT_BYTES: usize = 1024 * 1024;
/// Step by which the buffer of a request grows.
const BUFFER_GROWS_BYTES: usize = 16 * 1024;
/// A window of 32 KiB, the maximum for gzip.
const GZIP_WINDOW_BITS: u8 = 15;

/// The HTTP client for the cluster's nodes.
pub struct Transport {
    /// The nodes' addresses, without credentials.
    urls: Vec<String>,
    agent: Agent,
    authorization: Option<Secret>,
    clock: Clock,
    gzip: Compress,
    packed: Vec<u8>,
}

impl Transport {
    /// # Errors
    /// When ELASTIC_CA_FILE cannot be read or holds no certificate, or HTTPS_PROXY is not an address.
    pub fn new(elastic: &config::Elastic, network: &config::Network, clock: Clock) -> Result<Self, Problem> {
        let dialer = Dialer::for_cluster(network, elastic.ca_file.as_deref())?;
        if elastic.ca_file.is_some() {
            dialer.check_trust()?;
        }
        let limits = Limits { connect: CONNECT_TIMEOUT, read: REQUEST_TIMEOUT, total: REQUEST_TIMEOUT };
        Ok(Self {
            urls: elastic.urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect(),
            agent: agent(Arc::new(dialer), limits),
            authorization: elastic.authorization.clone(),
            clock,
            gzip: Compress::new_gzip(Compression::fast(), GZIP_WINDOW_BITS),
            packed: Vec::new(),
        })
    }

    /// The nodes' addresses, without credentials.
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// Sends a compressed bulk request, whose body is the concatenation of `texts`.
    ///
    /// # Errors
    /// When there is no HTTP response.
    pub fn bulk<'t>(
        &mut self,
        node: usize,
        texts: impl Iterator<Item = &'t [u8]>,
        timeout: Duration,
    ) -> Result<Reply, Held> {
        let mut packed = std::mem::take(&mut self.packed);
        pack(&mut self.gzip, texts, &mut packed);
        let head = self
            .head(node, Method::POST, &format!("/_bulk?filter_path={FILTER_PATH}"))
            .header("content-type", "application/x-ndjson")
            .header("content-encoding", "gzip");
        let sent = self.run(head.body(&packed[..]), timeout);
        packed.clear();
        packed.shrink_to(BUFFER_KEPT_BYTES);
        self.packed = packed;
        sent
    }

    /// Sends a JSON request, or one without a body (`""`).
    ///
    /// # Errors
    /// When there is no HTTP response.
    pub fn call(&self, node: usize, method: Method, path: &str, body: &str, timeout: Duration) -> Result<Reply, Held> {
        let takes_body = method == Method::POST;
        let head = self.head(node, method, path);
        if body.is_empty() && !takes_body {
            return self.run(head.body(()), timeout);
        }
        self.run(head.header("content-type", "application/json").body(body.as_bytes()), timeout)
    }

    /// Masks the login in a text, in any form in which a cluster may repeat it, and then cuts the text.
    pub fn mask(&self, text: &mut String) {
        if let Some(authorization) = &self.authorization {
            *text = secret::hide(text, authorization.expose()).into_owned();
        }
        verdict::shorten(text);
    }

    /// Judges a response other than a success, and masks secrets.
    pub fn held(&self, reply: &Reply) -> Held {
        let mut held = verdict::held(reply);
        self.mask(&mut held.why);
        held
    }

    fn head(&self, node: usize, method: Method, path: &str) -> ureq::http::request::Builder {
        let head = Request::builder().method(method).uri(format!("{}{path}", self.urls[node]));
        match &self.authorization {
            Some(value) => head.header("authorization", value.expose()),
            None => head,
        }
    }

    fn run(
        &self,
        request: Result<Request<impl AsSendBody>, ureq::http::Error>,
        timeout: Duration,
    ) -> Result<Reply, Held> {
        let request = request.map_err(|error| failure(&error.into()))?;
        let request = self.agent.configure_request(request).timeout_global(Some(timeout)).build();
        let response = self.agent.run(request).map_err(|error| failure(&error))?;
        let (parts, body) = response.into_parts();
        let body = body.into_with_config().limit(ANSWER_BYTES_MAX).read_to_vec().map_err(|error| failure(&error))?;
        let retry_after = retry_after(&parts.headers, self.clock.wall());
        Ok(Reply { status: parts.status.as_u16(), retry_after, body })
    }
}

/// Encodes a name for use in a path.
pub fn percent_encoded(name: &str) -> String {
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    utf8_percent_encode(name, KEPT).to_string()
}

/// Compresses the texts into the buffer.
fn pack<'t>(gzip: &mut Compress, texts: impl Iterator<Item = &'t [u8]>, packed: &mut Vec<u8>) {
    gzip.reset();
    packed.clear();
    let mut put = |mut text: &[u8], flush: FlushCompress| {
        loop {
            packed.reserve(BUFFER_GROWS_BYTES);
            let before = gzip.total_in();
            let done = gzip.compress_vec(text, packed, flush);
            text = &text[(gzip.total_in() - before) as usize..];
            let is_last = matches!(flush, FlushCompress::Finish);
            if matches!(done, Ok(Flated::StreamEnd)) || text.is_empty() && !is_last {
                return;
            }
        }
    };
    texts.for_each(|text| put(text, FlushCompress::None));
    put(b"", FlushCompress::Finish);
}

/// Describes a failure without any credentials.
fn failure(error: &ureq::Error) -> Held {
    use ureq::{Error, Timeout};
    let failed = |lost: Lost, why: String| Held::new(Cause::Unreachable(lost), why);
    if let Some(dial) = dial_error(error) {
        return Held { advice: Some(dial.cure.clone()), ..failed(Lost::Unsent, dial.what.clone()) };
    }
    match error {
        Error::Timeout(Timeout::Resolve) => failed(Lost::Unsent, "cannot look up its name in time".to_owned()),
        Error::Timeout(Timeout::Connect) => failed(Lost::Unsent, "cannot connect in time".to_owned()),
        Error::Timeout(_) => failed(Lost::TimedOut, "no answer in time".to_owned()),
        Error::Io(cause) => {
            use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
            let broke = matches!(cause.kind(), BrokenPipe | ConnectionReset | ConnectionAborted);
            failed(if broke { Lost::Broke } else { Lost::Unsent }, format!("cannot reach it: {cause}"))
        }
        Error::BodyExceedsLimit(_) => failed(Lost::Broke, "the response is too long".to_owned()),
        Error::BadUri(_) | Error::Http(_) => {
            failed(Lost::Unsent, "ELASTIC_URL or ELASTIC_AUTH is not valid in an HTTP request".to_owned())
        }
        other => failed(Lost::Unsent, format!("cannot reach it: {other}")),
    }
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
        for texts in [&[&b""[..]][..], &[], &[b"a line\n"], &[b"two\n", &noise, b"lines\n"], &[&[b'x'; 200_000]]] {
            pack(&mut gzip, texts.iter().copied(), &mut packed);
            let mut back = Vec::new();
            flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut back).unwrap();
            assert!(back == texts.concat(), "{} texts", texts.len());
        }
    }

    #[test]
    fn a_name_is_safe_in_a_path() {
        assert_eq!(percent_encoded("genesys-audiohook_1.x"), "genesys-audiohook_1.x");
        assert_eq!(percent_encoded("a/b?c d"), "a%2Fb%3Fc%20d");
    }
}
