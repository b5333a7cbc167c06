//! One request to Genesys Cloud: limits, the whole body, the correlation id, and the service's own clock.
//!
//! Must never: log an address (it may hold a channel's id), a header or a body; follow a redirect.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ureq::Agent;
use ureq::http::header::{AUTHORIZATION, CONTENT_TYPE};
use ureq::http::{Method, Request, Response};

use super::error::{ApiError, Kind};
use crate::clock::{Clock, Millis, parse_http_date};
use crate::net::{self, Dialer, Limits};
use crate::secret::Secret;
use crate::status::Beat;

/// What a request may take. Silence is told before a health check grows impatient.
pub const LIMITS: Limits =
    Limits { connect: Duration::from_secs(5), read: Duration::from_secs(7), total: Duration::from_secs(20) };

/// Bytes of an answer, at most: a page of the history that is longer is asked for in smaller ones.
const ANSWER_MIB_MAX: u64 = 8;

/// `Retry-After` beyond this is taken as this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// The service's clock: its `Date` header, carried on by the monotonic clock, so that a wall clock that jumps or is
/// wrong changes nothing.
#[derive(Debug)]
pub struct ServiceClock {
    clock: Printable,
    base: Mutex<(Millis, Instant)>,
    known: std::sync::atomic::AtomicBool,
}

/// A clock that can be printed.
struct Printable(Clock);

impl std::fmt::Debug for Printable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

impl ServiceClock {
    pub fn new(clock: Clock) -> Self {
        let base = Mutex::new((clock.wall(), clock.now()));
        Self { clock: Printable(clock), base, known: false.into() }
    }

    /// The service's time; this machine's until the service has told its own.
    pub fn now(&self) -> Millis {
        let (at, since) = *self.base.lock().unwrap_or_else(PoisonError::into_inner);
        at + self.clock.0.now().duration_since(since).as_millis() as Millis
    }

    /// Whether the service has told its time.
    pub fn is_known(&self) -> bool {
        self.known.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Milliseconds that this machine's wall clock is ahead of the service's.
    pub fn ahead_ms(&self) -> i64 {
        self.clock.0.wall() - self.now()
    }

    fn learn(&self, date: Millis) {
        *self.base.lock().unwrap_or_else(PoisonError::into_inner) = (date, self.clock.0.now());
        self.known.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
    pub retry_after: Option<Duration>,
    /// `ININ-Correlation-Id`: what the vendor's support asks for.
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
    /// The content's type and the content.
    pub body: Option<(&'static str, &'a [u8])>,
}

impl Rest {
    pub fn new(dialer: Arc<Dialer>, clock: Clock) -> Self {
        Self { agent: net::agent(dialer, LIMITS), service: ServiceClock::new(clock), beat: None }
    }

    /// Whose heartbeat rests while a request is under way.
    pub fn watch(&mut self, beat: Arc<Beat>) {
        self.beat = Some(beat);
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// When no whole answer came within the limits: [`Kind::Network`], [`Kind::TooLong`], or [`Kind::Nonsense`] for one
    /// that is no HTTP.
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
        // The address itself may be secret: only what is wrong with it is told.
        let wrong = |_| ApiError::nonsense(call.what, "the address or a header is malformed");
        let mut response = match call.body {
            Some((_, body)) => self.agent.run(builder.body(body).map_err(wrong)?),
            None => self.agent.run(builder.body(()).map_err(wrong)?),
        }
        .map_err(|error| failed(&error))?;
        let header = |response: &Response<ureq::Body>, name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        if let Some(date) = header(&response, "date").as_deref().and_then(parse_http_date) {
            self.service.learn(date);
        }
        let retry_after = header(&response, "retry-after")
            .and_then(|value| value.trim().parse::<f64>().ok())
            .filter(|seconds| *seconds >= 0.0)
            .map(|seconds| Duration::from_secs_f64(seconds.min(RETRY_AFTER_MAX.as_secs_f64())));
        let correlation = header(&response, "inin-correlation-id")
            .map(|id| crate::secret::hide(&id, call.authorization.expose()).into_owned());
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(ANSWER_MIB_MAX * 1024 * 1024).read_to_vec();
        let body = String::from_utf8(body.map_err(|error| failed(&error))?).map_err(|_| {
            ApiError::nonsense(call.what, "the answer is not UTF-8").with_correlation(correlation.as_deref())
        })?;
        log::debug!(
            "{}: {status}, {} bytes, correlation id {}",
            call.what,
            body.len(),
            correlation.as_deref().unwrap_or("none")
        );
        Ok(Answer { status, body, retry_after, correlation })
    }
}

/// A failure of the transport as a sentence.
fn explain(what: &str, error: &ureq::Error) -> ApiError {
    if let Some(dial) = net::dial_error(error) {
        return ApiError::new(Kind::Network, what, dial);
    }
    match error {
        ureq::Error::Timeout(_) => {
            ApiError::new(Kind::Network, what, "no whole answer in time; check the network and any proxy if it lasts")
        }
        ureq::Error::Io(error) => ApiError::new(Kind::Network, what, format!("the connection broke: {error}")),
        ureq::Error::BodyExceedsLimit(_) => {
            ApiError::new(Kind::TooLong, what, format!("the answer is longer than {ANSWER_MIB_MAX} MiB"))
        }
        // The texts of the others may quote the address.
        _ => ApiError::nonsense(what, "the answer is no HTTP that can be understood"),
    }
}
