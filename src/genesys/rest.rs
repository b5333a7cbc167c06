//! Sends one request to Genesys Cloud, within limits, and reads the whole body and the correlation id.
//!
//! Must never: log an address (it may hold a channel's id), a header or a body; follow a redirect.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use flate2::read::GzDecoder;
use ureq::Agent;
use ureq::http::header::{AUTHORIZATION, CONTENT_TYPE};
use ureq::http::{Method, Request};

use super::error::{ApiError, Kind};
use super::service_clock::ServiceClock;
use crate::clock::{Clock, parse_http_date};
use crate::net::{self, Dialer, Limits, header, retry_after};
use crate::secret::Secret;
use crate::status::Beat;

/// Time limits of a request. A silent service is reported before a health check fails.
pub const LIMITS: Limits =
    Limits { connect: Duration::from_secs(5), read: Duration::from_secs(7), total: Duration::from_secs(20) };

/// Maximum size of an answer. A longer page of the history is requested in smaller pages.
const ANSWER_MIB_MAX: u64 = 8;
const ANSWER_BYTES_MAX: u64 = ANSWER_MIB_MAX * 1024 * 1024;

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
    pub retry_after: Option<Duration>,
    /// `ININ-Correlation-Id`: the vendor's support asks for it.
    pub correlation: Option<String>,
}

impl Answer {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Sends requests.
#[derive(Debug)]
pub struct Rest {
    agent: Agent,
    pub service: ServiceClock,
    beat: Option<Arc<Beat>>,
}

/// One request.
pub struct Call<'a> {
    /// The verb and its object, for logs and errors: `read the history`.
    pub what: &'a str,
    pub method: Method,
    pub url: &'a str,
    /// The whole `Authorization` header.
    pub authorization: &'a Secret,
    /// The content type and the content.
    pub body: Option<(&'static str, &'a [u8])>,
}

impl Rest {
    pub fn new(dialer: Arc<Dialer>, clock: Clock) -> Self {
        Self { agent: net::agent(dialer, LIMITS), service: ServiceClock::new(clock), beat: None }
    }

    /// Sets the heartbeat that rests while a request is in progress.
    pub fn watch(&mut self, beat: Arc<Beat>) {
        self.beat = Some(beat);
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// If no complete answer arrives within the limits: [`Kind::Network`], [`Kind::TooLong`], or
    /// [`Kind::InvalidResponse`] for an answer that is not HTTP.
    pub fn send(&self, call: &Call<'_>) -> Result<Answer, ApiError> {
        let _timed = self.beat.as_deref().map(Beat::timed);
        let failed = |error: &ureq::Error| explain(call.what, error);
        let mut builder = Request::builder()
            .method(call.method.clone())
            .uri(call.url)
            .header(AUTHORIZATION, call.authorization.expose());
        if let Some((content_type, _)) = call.body {
            builder = builder.header(CONTENT_TYPE, content_type);
        }
        // The address itself may be secret, so the error does not quote it.
        let wrong = |_| ApiError::invalid_response(call.what, "the address or a header is malformed");
        let response = match call.body {
            Some((_, body)) => self.agent.run(builder.body(body).map_err(wrong)?),
            None => self.agent.run(builder.body(()).map_err(wrong)?),
        }
        .map_err(|error| failed(&error))?;
        let (head, body) = response.into_parts();
        if let Some(date) = header(&head.headers, "date").and_then(parse_http_date) {
            self.service.learn(date);
        }
        let retry_after = retry_after(&head.headers, self.service.now());
        let correlation = header(&head.headers, "inin-correlation-id")
            .map(|id| crate::secret::hide(id, call.authorization.expose()).into_owned());
        let invalid =
            |cause: &str| ApiError::invalid_response(call.what, cause).with_correlation(correlation.as_deref());
        let status = head.status.as_u16();
        let body = body.into_with_config().limit(ANSWER_BYTES_MAX).reader();
        let body = match header(&head.headers, "content-encoding").map(str::to_ascii_lowercase).as_deref() {
            None | Some("" | "identity") => read(body),
            // The request does not ask for compression, but some proxies compress anyway.
            Some("gzip" | "x-gzip") => read(GzDecoder::new(body)),
            Some(other) => return Err(invalid(&format!("the answer is compressed with {other:?}"))),
        };
        let mut body =
            String::from_utf8(body.map_err(|error| failed(&error))?).map_err(|_| invalid("the answer is not UTF-8"))?;
        if body.starts_with('\u{feff}') {
            body.drain(..'\u{feff}'.len_utf8());
        }
        log::debug!(
            "{}: {status}, {} bytes, correlation id {}",
            call.what,
            body.len(),
            correlation.as_deref().unwrap_or("none")
        );
        Ok(Answer { status, body, retry_after, correlation })
    }
}

/// Reads a body that may be longer than the transferred bytes.
fn read(body: impl Read) -> Result<Vec<u8>, ureq::Error> {
    let mut bytes = Vec::new();
    body.take(ANSWER_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > ANSWER_BYTES_MAX { Err(ureq::Error::BodyExceedsLimit(ANSWER_BYTES_MAX)) } else { Ok(bytes) }
}

const NETWORK_CURE: &str = "Check the network and any proxy if this lasts.";

/// Converts a transport failure.
fn explain(what: &str, error: &ureq::Error) -> ApiError {
    if let Some(dial) = net::dial_error(error) {
        return ApiError::new(Kind::Network, what, &dial.what).with_cure(&dial.cure);
    }
    match error {
        ureq::Error::Timeout(_) => {
            ApiError::new(Kind::Network, what, "no whole answer in time").with_cure(NETWORK_CURE)
        }
        ureq::Error::Io(error) => {
            ApiError::new(Kind::Network, what, format!("the connection broke: {error}")).with_cure(NETWORK_CURE)
        }
        ureq::Error::BodyExceedsLimit(_) => {
            ApiError::new(Kind::TooLong, what, format!("the answer is longer than {ANSWER_MIB_MAX} MiB"))
        }
        // The texts of other errors may quote the address.
        _ => ApiError::invalid_response(what, "the answer is no HTTP that can be understood"),
    }
}
