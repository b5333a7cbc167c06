//! One request to Genesys Cloud: limits, the whole body, the correlation id, and the service's own clock.
//!
//! Must never: log an address (it may hold a channel's id), a header or a body; follow a redirect.

use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use ureq::Agent;
use ureq::http::header::{AUTHORIZATION, CONTENT_TYPE};
use ureq::http::{Method, Request};

use super::error::{ApiError, Kind};
use crate::clock::{Clock, Millis, parse_http_date};
use crate::net::{self, Dialer, Limits, header, retry_after};
use crate::secret::Secret;
use crate::status::Beat;

/// What a request may take. Silence is told before a health check grows impatient.
pub const LIMITS: Limits =
    Limits { connect: Duration::from_secs(5), read: Duration::from_secs(7), total: Duration::from_secs(20) };

/// Bytes of an answer, at most: a page of the history that is longer is asked for in smaller ones.
const ANSWER_MIB_MAX: u64 = 8;
const ANSWER_BYTES_MAX: u64 = ANSWER_MIB_MAX * 1024 * 1024;

/// The service's clock: its `Date` headers, carried on by the monotonic clock, so that a wall clock that jumps or is wrong
/// changes nothing.
///
/// A single `Date` may be wrong, a proxy's for one. So time only jumps where several answers in a row agree; until the
/// first of them do, this machine's clock counts as one answer.
#[derive(Debug)]
pub struct ServiceClock {
    clock: Clock,
    started: Instant,
    told: Mutex<Told>,
}

/// What the service told of its time. Each time is that at the start: told times are compared without their age.
#[derive(Debug)]
struct Told {
    /// The time that counts.
    start: Millis,
    is_known: bool,
    /// Another time, and how many answers in a row agree on it.
    other: Millis,
    agreeing: u32,
}

/// Times of answers that are not further apart agree: they are in whole seconds, and each takes a while to arrive.
const AGREE_MS_MAX: i64 = 5_000;
/// Witnesses that make the first known time, this machine's clock among them.
const FIRST_AGREEING: u32 = 2;
/// Answers in a row that make a known time jump.
const JUMP_AGREEING: u32 = 3;

impl ServiceClock {
    pub fn new(clock: Clock) -> Self {
        let start = clock.wall();
        let told = Mutex::new(Told { start, is_known: false, other: start, agreeing: 1 });
        Self { started: clock.now(), clock, told }
    }

    /// The service's time; this machine's until it is known.
    pub fn now(&self) -> Millis {
        self.told().start + self.elapsed_ms()
    }

    /// Whether the service's time is known: two answers agree, or one and this machine's clock. Nothing that cannot be
    /// taken back may rest on [`ServiceClock::now`] before.
    pub fn is_known(&self) -> bool {
        self.told().is_known
    }

    /// Milliseconds that this machine's wall clock is ahead of the service's.
    pub fn ahead_ms(&self) -> i64 {
        self.clock.wall() - self.now()
    }

    fn elapsed_ms(&self) -> i64 {
        self.clock.now().duration_since(self.started).as_millis() as i64
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an answer's `Date`.
    fn learn(&self, date: Millis) {
        let start = date - self.elapsed_ms();
        let agrees = |other: Millis| (start - other).abs() <= AGREE_MS_MAX;
        let mut told = self.told();
        if told.is_known && agrees(told.start) {
            // Small drifts are followed.
            (told.start, told.agreeing) = (start, 0);
            return;
        }
        told.agreeing = if told.agreeing > 0 && agrees(told.other) { told.agreeing + 1 } else { 1 };
        told.other = start;
        if told.agreeing < if told.is_known { JUMP_AGREEING } else { FIRST_AGREEING } {
            return;
        }
        if told.is_known {
            log::warn!(
                "the service's time changed by {} s: {} answers agree",
                (start - told.start) / 1000,
                told.agreeing
            );
        }
        *told = Told { start, is_known: true, other: start, agreeing: 0 };
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
    /// When no whole answer came within the limits: [`Kind::Network`], [`Kind::TooLong`], or [`Kind::InvalidResponse`] for one
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
            // It was not asked for: a proxy compresses all the same.
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

/// Reads a body that may be longer than what was transferred.
fn read(body: impl Read) -> Result<Vec<u8>, ureq::Error> {
    let mut bytes = Vec::new();
    body.take(ANSWER_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > ANSWER_BYTES_MAX { Err(ureq::Error::BodyExceedsLimit(ANSWER_BYTES_MAX)) } else { Ok(bytes) }
}

const NETWORK_CURE: &str = "Check the network and any proxy if this lasts.";

/// A failure of the transport.
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
        // The texts of the others may quote the address.
        _ => ApiError::invalid_response(what, "the answer is no HTTP that can be understood"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const NOON: Millis = 1_795_430_400_000;
    const DAY: Millis = 24 * 3600 * 1000;

    /// A service's clock on a machine whose wall clock is this far from noon.
    fn clock(off_ms: i64) -> (ServiceClock, ManualClock) {
        let (clock, hand) = Clock::manual(NOON + off_ms);
        (ServiceClock::new(clock), hand)
    }

    #[test]
    fn the_first_date_is_believed_where_this_machines_clock_agrees() {
        let (service, hand) = clock(700);
        assert!(!service.is_known());
        hand.advance(Duration::from_secs(60));
        service.learn(NOON + 60_000);
        assert!(service.is_known());
        assert_eq!((service.now(), service.ahead_ms()), (NOON + 60_000, 700));
    }

    #[test]
    fn with_a_wrong_machines_clock_two_dates_that_agree_are_believed() {
        let (service, hand) = clock(3_600_000);
        service.learn(NOON);
        assert!(!service.is_known());
        assert_eq!(service.now(), NOON + 3_600_000, "nothing is known yet");
        hand.advance(Duration::from_secs(10));
        service.learn(NOON + 9_000);
        assert!(service.is_known());
        assert_eq!(service.now(), NOON + 9_000);
    }

    #[test]
    fn a_wrong_first_date_is_outvoted() {
        for off_ms in [0, 3_600_000] {
            let (service, _hand) = clock(off_ms);
            service.learn(NOON + DAY);
            assert!(!service.is_known());
            service.learn(NOON);
            service.learn(NOON);
            assert!(service.is_known());
            assert_eq!(service.now(), NOON, "{off_ms}");
        }
    }

    #[test]
    fn single_wrong_dates_move_nothing_and_three_that_agree_do() {
        let (service, hand) = clock(0);
        service.learn(NOON);
        for wrong in [DAY, -DAY, 2 * DAY, DAY] {
            service.learn(NOON + wrong);
            assert_eq!(service.now(), NOON, "{wrong}");
        }
        service.learn(NOON);
        for _ in 0..5 {
            service.learn(NOON + DAY);
            service.learn(NOON + DAY);
            service.learn(NOON);
            assert_eq!(service.now(), NOON, "a right answer comes between");
        }
        for after_s in [0, 60, 120] {
            assert!(service.now() < NOON + DAY);
            hand.advance(Duration::from_secs(60));
            service.learn(NOON + 3_600_000 + after_s * 1000);
        }
        assert_eq!(service.now(), NOON + 3_720_000, "as after a suspension");
    }

    #[test]
    fn small_drifts_are_followed() {
        let (service, hand) = clock(0);
        service.learn(NOON);
        for minute in 1..=100 {
            hand.advance(Duration::from_secs(60));
            service.learn(NOON + minute * 61_000);
            assert_eq!(service.now(), NOON + minute * 61_000);
        }
    }
}
