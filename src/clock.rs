//! Time: the wall clock, the monotonic clock, the service's time, and formatting and parsing of instants.
//!
//! Both clocks are read through [`Clock`], which a test can replace. Must never: wait by the wall clock.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Milliseconds since 1970, UTC.
pub type Millis = i64;

/// The latest instant that a record can hold: the end of the year 9999.
pub const MILLIS_MAX: Millis = 253_402_300_799_999;

/// The wall clock and the monotonic clock. All clones of a manual clock move together.
#[derive(Clone, Debug)]
pub struct Clock(Option<ManualClock>);

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that starts at `wall` and moves only through its [`ManualClock`].
    pub fn manual(wall: Millis) -> (Self, ManualClock) {
        let hands = Hands { started: Instant::now(), elapsed_ms: AtomicI64::new(0), wall_ms: AtomicI64::new(wall) };
        let manual = ManualClock(Arc::new(hands));
        (Self(Some(manual.clone())), manual)
    }

    /// The wall clock, which may jump.
    pub fn wall(&self) -> Millis {
        match &self.0 {
            Some(manual) => manual.0.wall_ms.load(Ordering::SeqCst),
            None => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as Millis),
        }
    }

    /// The monotonic clock, for all waits and ages. It stops while the machine is suspended.
    pub fn now(&self) -> Instant {
        match &self.0 {
            Some(manual) => {
                manual.0.started + Duration::from_millis(manual.0.elapsed_ms.load(Ordering::SeqCst).unsigned_abs())
            }
            None => Instant::now(),
        }
    }
}

/// Moves a manual [`Clock`].
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Hands>);

#[derive(Debug)]
struct Hands {
    started: Instant,
    elapsed_ms: AtomicI64,
    wall_ms: AtomicI64,
}

impl ManualClock {
    /// Advances both clocks.
    pub fn advance(&self, by: Duration) {
        let ms = by.as_millis() as i64;
        self.0.elapsed_ms.fetch_add(ms, Ordering::SeqCst);
        self.0.wall_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// Steps the wall clock alone, as an operator, NTP or the end of a suspension does.
    pub fn step_wall(&self, by_ms: i64) {
        self.0.wall_ms.fetch_add(by_ms, Ordering::SeqCst);
    }
}

/// Detects that the machine was suspended: the wall clock advanced while the monotonic clock, which drives every timer,
/// stopped. Setting the wall clock forward looks the same.
#[derive(Debug)]
pub struct SuspendDetector {
    clock: Clock,
    wall: Millis,
    now: Instant,
}

impl SuspendDetector {
    /// A smaller gain of the wall clock between two polls counts as clock adjustment.
    const GAIN_MS_MIN: i64 = 10_000;

    pub fn new(clock: Clock) -> Self {
        Self { wall: clock.wall(), now: clock.now(), clock }
    }

    /// How long the machine was suspended since the last call; `None` if it was not. Call it every few seconds.
    pub fn poll(&mut self) -> Option<Duration> {
        let (wall, now) = (self.clock.wall(), self.clock.now());
        let gain_ms = wall - self.wall - now.saturating_duration_since(self.now).as_millis() as i64;
        (self.wall, self.now) = (wall, now);
        (gain_ms >= Self::GAIN_MS_MIN).then(|| Duration::from_millis(gain_ms.unsigned_abs()))
    }
}

/// How far the wall clock may be behind or ahead of the service's before it counts as wrong. The service reports whole
/// seconds, rounded down, and its answer takes time to arrive.
const SLOW_MS_MAX: i64 = 500;
const FAST_MS_MAX: i64 = 2_500;

/// The service's time as last reported, for threads that do not call the service themselves. All clones share it.
#[derive(Clone, Debug, Default)]
pub struct ServiceTime(Arc<Mutex<Option<(Millis, Instant)>>>);

impl ServiceTime {
    /// Records that the service's time was `at` when the monotonic clock was `seen`.
    pub fn learn(&self, at: Millis, seen: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, seen));
    }

    /// The current time for a receipt: the wall clock, or the service's time if the wall clock is wrong. Some events
    /// have no other time, and deduplication identifies them by this one.
    pub fn receipt(&self, clock: &Clock) -> Millis {
        let wall = clock.wall();
        let Some((at, seen)) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) else { return wall };
        let service = at + clock.now().saturating_duration_since(seen).as_millis() as i64;
        let is_right = (service - SLOW_MS_MAX..=service + FAST_MS_MAX).contains(&wall);
        if is_right { wall } else { service + SLOW_MS_MAX }
    }
}

/// `2026-11-23T10:30:45.123Z`: UTC, RFC 3339, milliseconds. Instants outside 1970–9999 are clamped.
pub fn format_millis(ms: Millis) -> String {
    let ms = ms.clamp(0, MILLIS_MAX);
    let at = OffsetDateTime::from_unix_timestamp(ms / 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (date, (hour, minute, second)) = (at.date(), at.to_hms());
    format!("{date}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1000)
}

/// Appends the instant as [`format_millis`] writes it.
pub fn push_millis(out: &mut Vec<u8>, ms: Millis) {
    out.extend_from_slice(format_millis(ms).as_bytes());
}

/// Writes successive instants, reusing the text of the second while only the milliseconds change.
#[derive(Debug, Default)]
pub struct Stamp {
    second: Option<i64>,
    /// The formatted instant up to and including the point before the milliseconds.
    text: Vec<u8>,
}

impl Stamp {
    /// Appends the instant as [`format_millis`] writes it.
    pub fn push(&mut self, out: &mut Vec<u8>, ms: Millis) {
        let ms = ms.clamp(0, MILLIS_MAX);
        if self.second != Some(ms / 1000) {
            self.text = format_millis(ms).into_bytes();
            self.text.truncate("2026-11-23T10:30:45.".len());
            self.second = Some(ms / 1000);
        }
        let digit = |divisor: i64| b'0' + (ms / divisor % 10) as u8;
        out.extend_from_slice(&self.text);
        out.extend_from_slice(&[digit(100), digit(10), digit(1), b'Z']);
    }
}

/// Parses an instant typed by a person: RFC 3339, with an offset.
pub fn parse_rfc3339(text: &str) -> Option<Millis> {
    let instant = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Some(instant.unix_timestamp() * 1000 + i64::from(instant.millisecond()))
}

/// Parses an ISO 8601 instant: any number of fraction digits (truncated to milliseconds); `Z`, `+hh:mm`, `+hhmm`, `+hh`
/// or no offset (taken as UTC); `T`, `t` or a space between date and time; seconds are optional. `None` for anything
/// else, and for instants outside 1970–9999.
pub fn parse_instant(text: &str) -> Option<Millis> {
    let text = text.trim();
    if !matches!(text.as_bytes().get(10), Some(b'T' | b't' | b' ')) {
        return None;
    }
    let ms = parse_rfc3339(text).or_else(|| parse_rfc3339(&as_rfc3339(text)?))?;
    (0..=MILLIS_MAX).contains(&ms).then_some(ms)
}

/// Rewrites the common deviations from RFC 3339 into RFC 3339.
fn as_rfc3339(text: &str) -> Option<String> {
    let (date, time) = (text.get(..10)?, text.get(11..)?);
    let (time, offset) = time.split_at(time.find(['Z', 'z', '+', '-']).unwrap_or(time.len()));
    let seconds = if time.len() == "10:30".len() { ":00" } else { "" };
    // A leap second is read as the second before it, so that an event with one is not refused.
    let time = time.replace(',', ".");
    let time = if time.get(5..8) == Some(":60") { time.replacen(":60", ":59", 1) } else { time };
    let offset = match offset.len() {
        0 => "Z".to_owned(),
        3 => format!("{offset}:00"),
        5 => format!("{}:{}", offset.get(..3)?, offset.get(3..)?),
        _ => offset.to_owned(),
    };
    Some(format!("{date}T{time}{seconds}{offset}"))
}

/// Parses an HTTP date (`Mon, 23 Nov 2026 10:30:45 GMT`), the format of the `Date` header.
pub fn parse_http_date(text: &str) -> Option<Millis> {
    let date = httpdate::parse_http_date(text.trim()).ok()?;
    Some(date.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_millis() as Millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_uses_the_wall_clock_unless_it_is_wrong() {
        let (clock, hand) = Clock::manual(1_795_430_645_123);
        let service = ServiceTime::default();
        assert_eq!(service.receipt(&clock), clock.wall());
        service.learn(1_795_430_645_000, clock.now());
        hand.advance(Duration::from_secs(3600));
        assert_eq!(service.receipt(&clock), clock.wall());
        for step in [3_600_000, -7_200_000] {
            hand.step_wall(step);
            assert_eq!(service.receipt(&clock), 1_795_434_245_500, "an hour later, whatever the wall clock says");
        }
    }

    #[test]
    fn a_formatted_instant_parses_back() {
        for ms in [0, 951_782_399_999, 951_782_400_000, 1_795_430_645_123, MILLIS_MAX] {
            let text = format_millis(ms);
            assert_eq!(parse_instant(&text), Some(ms), "{text}");
            assert_eq!(parse_rfc3339(&text), Some(ms), "{text}");
        }
        assert_eq!(format_millis(951_782_400_000), "2000-02-29T00:00:00.000Z");
    }

    #[test]
    fn a_stamp_writes_what_format_millis_writes() {
        let mut stamp = Stamp::default();
        for ms in [1_795_430_645_123, 1_795_430_645_999, 1_795_430_646_000, 1_795_430_645_007, -1, MILLIS_MAX + 1] {
            let mut text = Vec::new();
            stamp.push(&mut text, ms);
            assert_eq!(String::from_utf8(text).unwrap(), format_millis(ms));
        }
    }

    #[test]
    fn a_suspension_is_reported_once_and_a_clock_adjustment_is_not() {
        let (clock, hand) = Clock::manual(1_795_430_645_123);
        let mut detector = SuspendDetector::new(clock);
        assert_eq!(detector.poll(), None);
        hand.advance(Duration::from_secs(3600));
        assert_eq!(detector.poll(), None);
        hand.step_wall(7_200_000);
        hand.advance(Duration::from_secs(1));
        assert_eq!(detector.poll(), Some(Duration::from_secs(7200)));
        assert_eq!(detector.poll(), None);
        for step in [5_000, -7_200_000] {
            hand.step_wall(step);
            assert_eq!(detector.poll(), None, "{step}");
        }
    }

    #[test]
    fn every_usual_offset_is_understood() {
        let expected = parse_instant("2026-11-20T10:30:45.123Z");
        assert!(expected.is_some());
        for text in [
            "2026-11-20T10:30:45.123456+00:00",
            "2026-11-20T12:30:45.123+0200",
            "2026-11-20 05:30:45.1239-05",
            "2026-11-20T10:30:45,123",
            " 2026-11-20t10:30:45.1230000000001z ",
        ] {
            assert_eq!(parse_instant(text), expected, "{text}");
        }
        assert_eq!(parse_instant("2026-11-20T10:30Z"), parse_instant("2026-11-20T10:30:00Z"));
        assert_eq!(parse_instant("2026-11-20T10:30:60.5Z"), parse_instant("2026-11-20T10:30:59.5Z"));
        for text in [
            "",
            "yesterday",
            "2026-13-01T00:00:00Z",
            "2026-11-20T10:30:45+1",
            "2026-11-20T25:00:00Z",
            "2026-11-20x10:30:45Z",
            "2026-11-20T10:30:45.Z",
            "1960-11-20T10:30:45Z",
        ] {
            assert_eq!(parse_instant(text), None, "{text}");
        }
    }

    #[test]
    fn a_date_header_is_understood() {
        let parsed = parse_http_date("Mon, 23 Nov 2026 10:30:45 GMT");
        assert_eq!(parsed, parse_instant("2026-11-23T10:30:45Z"));
        assert_eq!(parse_http_date("soon"), None);
    }
}
