//! Time: the wall clock, the monotonic clock, and the texts of instants.
//!
//! Deals with: reading both clocks through one object that a test can replace; RFC 3339 both ways. Must never: use the
//! wall clock to wait.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use time::format_description::well_known::Rfc3339;
use time::{Date, Month, OffsetDateTime, UtcOffset};

/// Milliseconds since 1970, UTC.
pub type Millis = i64;

/// The last instant that a record can carry: the end of the year 9999.
pub const MILLIS_MAX: Millis = 253_402_300_799_999;

/// The two clocks. Cloned freely; all clones of a test's clock move together.
#[derive(Clone)]
pub struct Clock(Arc<dyn Source>);

trait Source: Send + Sync {
    fn wall(&self) -> Millis;
    fn now(&self) -> Instant;
}

struct System;

impl Source for System {
    fn wall(&self) -> Millis {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as Millis)
    }

    fn now(&self) -> Instant {
        Instant::now()
    }
}

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Self {
        Self(Arc::new(System))
    }

    /// A clock that moves only when told to.
    pub fn manual(wall: Millis) -> (Self, ManualClock) {
        let manual = ManualClock(Arc::new(Manual {
            started: Instant::now(),
            elapsed_ms: std::sync::atomic::AtomicI64::new(0),
            wall_ms: std::sync::atomic::AtomicI64::new(wall),
        }));
        (Self(manual.0.clone()), manual)
    }

    /// The wall clock: it may jump.
    pub fn wall(&self) -> Millis {
        self.0.wall()
    }

    /// The monotonic clock: for every wait and every age.
    pub fn now(&self) -> Instant {
        self.0.now()
    }
}

struct Manual {
    started: Instant,
    elapsed_ms: std::sync::atomic::AtomicI64,
    wall_ms: std::sync::atomic::AtomicI64,
}

impl Source for Manual {
    fn wall(&self) -> Millis {
        self.wall_ms.load(std::sync::atomic::Ordering::SeqCst)
    }

    fn now(&self) -> Instant {
        let elapsed = self.elapsed_ms.load(std::sync::atomic::Ordering::SeqCst);
        self.started + Duration::from_millis(elapsed as u64)
    }
}

/// The hand that moves a manual [`Clock`].
#[derive(Clone)]
pub struct ManualClock(Arc<Manual>);

impl ManualClock {
    /// Lets time pass on both clocks.
    pub fn advance(&self, by: Duration) {
        let ms = by.as_millis() as i64;
        self.0.elapsed_ms.fetch_add(ms, std::sync::atomic::Ordering::SeqCst);
        self.0.wall_ms.fetch_add(ms, std::sync::atomic::Ordering::SeqCst);
    }

    /// Steps the wall clock alone, as an operator or NTP does.
    pub fn step_wall(&self, by_ms: i64) {
        self.0.wall_ms.fetch_add(by_ms, std::sync::atomic::Ordering::SeqCst);
    }
}

/// How far a wall clock may be from the service's before it is taken for wrong. The service tells whole seconds, cut off,
/// and its answer takes a while.
const SLOW_MS_MAX: i64 = 500;
const FAST_MS_MAX: i64 = 2_500;

/// The service's time as it was last told, for the threads that do not speak to the service. Cloned freely; all clones
/// tell the same.
#[derive(Clone, Debug, Default)]
pub struct ServiceTime(Arc<Mutex<Option<(Millis, Instant)>>>);

impl ServiceTime {
    /// It is so late at this instant of the monotonic clock.
    pub fn learn(&self, at: Millis, seen: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, seen));
    }

    /// When something is received: by the wall clock, or where that is wrong, by the service's. Some events have no other
    /// time, and are to be known again by it.
    pub fn receipt(&self, clock: &Clock) -> Millis {
        let wall = clock.wall();
        let Some((at, seen)) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) else { return wall };
        let service = at + clock.now().saturating_duration_since(seen).as_millis() as i64;
        let is_right = (service - SLOW_MS_MAX..=service + FAST_MS_MAX).contains(&wall);
        if is_right { wall } else { service + SLOW_MS_MAX }
    }
}

/// `2026-11-23T10:30:45.123Z`: UTC, RFC 3339, milliseconds. Instants outside 1970–9999 are moved to its edge.
pub fn format_millis(ms: Millis) -> String {
    let mut text = Vec::with_capacity(24);
    push_millis(&mut text, ms);
    String::from_utf8(text).unwrap_or_default()
}

/// Writes instants one after the other: within one second only the milliseconds change from one to the next.
#[derive(Debug, Default)]
pub struct Stamp {
    second: Option<i64>,
    /// Up to and with the point before the milliseconds.
    text: Vec<u8>,
}

impl Stamp {
    /// Appends what [`format_millis`] gives.
    pub fn push(&mut self, out: &mut Vec<u8>, ms: Millis) {
        let ms = ms.clamp(0, MILLIS_MAX);
        if self.second != Some(ms / 1000) {
            self.text.clear();
            push_millis(&mut self.text, ms);
            self.text.truncate("2026-11-23T10:30:45.".len());
            self.second = Some(ms / 1000);
        }
        let digit = |divisor: i64| b'0' + (ms / divisor % 10) as u8;
        out.extend_from_slice(&self.text);
        out.extend_from_slice(&[digit(100), digit(10), digit(1), b'Z']);
    }
}

/// Appends what [`format_millis`] gives.
pub fn push_millis(out: &mut Vec<u8>, ms: Millis) {
    let ms = ms.clamp(0, MILLIS_MAX);
    let (days, in_day) = (ms / 86_400_000, ms % 86_400_000);
    // Days to a civil date, after Howard Hinnant's algorithm: eras of 400 years that begin on 1 March.
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let digits = |value: i64, divisor: i64| b'0' + (value / divisor % 10) as u8;
    let (seconds, millis) = (in_day / 1000, in_day % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    out.extend_from_slice(&[
        digits(year, 1000),
        digits(year, 100),
        digits(year, 10),
        digits(year, 1),
        b'-',
        digits(month, 10),
        digits(month, 1),
        b'-',
        digits(day, 10),
        digits(day, 1),
        b'T',
        digits(hour, 10),
        digits(hour, 1),
        b':',
        digits(minute, 10),
        digits(minute, 1),
        b':',
        digits(second, 10),
        digits(second, 1),
        b'.',
        digits(millis, 100),
        digits(millis, 10),
        digits(millis, 1),
        b'Z',
    ]);
}

/// Milliseconds of an ISO 8601 instant: any number of fraction digits (cut to milliseconds), `Z`, `+hh:mm`, `+hhmm`,
/// `+hh` or no offset at all (taken as UTC), `T`, `t` or a blank between date and time. `None` for anything else, and
/// for instants outside 1970–9999.
pub fn parse_instant(text: &str) -> Option<Millis> {
    let bytes = text.trim().as_bytes();
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = bytes.get(from..to)?;
        digits.iter().try_fold(0i64, |sum, b| b.is_ascii_digit().then(|| sum * 10 + i64::from(b - b'0')))
    };
    let literal = |at: usize, allowed: &[u8]| bytes.get(at).is_some_and(|b| allowed.contains(b));
    if !(literal(4, b"-") && literal(7, b"-") && literal(10, b"Tt ") && literal(13, b":")) {
        return None;
    }
    let month = Month::try_from(u8::try_from(number(5, 7)?).ok()?).ok()?;
    let date = Date::from_calendar_date(number(0, 4)? as i32, month, number(8, 10)? as u8).ok()?;
    let (hour, minute) = (number(11, 13)?, number(14, 16)?);
    let (mut second, mut at) = (0, 16);
    if literal(16, b":") {
        second = number(17, 19)?;
        at = 19;
    }
    let mut millis = 0;
    if literal(at, b".,") {
        let digits = bytes[at + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        for place in 0..3 {
            let digit = if place < digits { bytes[at + 1 + place] - b'0' } else { 0 };
            millis = millis * 10 + i64::from(digit);
        }
        at += 1 + digits;
    }
    // A leap second counts as the second before it: no event may be refused for one.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let second = second.min(59);
    let offset_minutes = match &bytes[at..] {
        [] | [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), rest @ ..] => {
            let digits: Vec<i64> = rest
                .iter()
                .filter(|b| **b != b':')
                .map(|b| b.is_ascii_digit().then(|| i64::from(b - b'0')))
                .collect::<Option<_>>()?;
            let minutes = match digits[..] {
                [a, b] => (a * 10 + b) * 60,
                [a, b, c, d] => (a * 10 + b) * 60 + c * 10 + d,
                _ => return None,
            };
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    let days = i64::from(date.to_julian_day()) - 2_440_588;
    let ms = ((days * 24 + hour) * 60 + minute - offset_minutes) * 60_000 + second * 1000 + millis;
    (0..=MILLIS_MAX).contains(&ms).then_some(ms)
}

/// Milliseconds of an HTTP date (`Mon, 23 Nov 2026 10:30:45 GMT`), as the `Date` header carries it.
pub fn parse_http_date(text: &str) -> Option<Millis> {
    let mut parts = text.split_ascii_whitespace().skip(1);
    let day: u8 = parts.next()?.parse().ok()?;
    let month = match parts.next()? {
        "Jan" => Month::January,
        "Feb" => Month::February,
        "Mar" => Month::March,
        "Apr" => Month::April,
        "May" => Month::May,
        "Jun" => Month::June,
        "Jul" => Month::July,
        "Aug" => Month::August,
        "Sep" => Month::September,
        "Oct" => Month::October,
        "Nov" => Month::November,
        "Dec" => Month::December,
        _ => return None,
    };
    let year: i32 = parts.next()?.parse().ok()?;
    let mut clock = parts.next()?.split(':').map(|part| part.parse::<u8>().ok());
    let date = Date::from_calendar_date(year, month, day).ok()?;
    let date_time = date.with_hms(clock.next()??, clock.next()??, clock.next()??).ok()?;
    Some(date_time.assume_offset(UtcOffset::UTC).unix_timestamp() * 1000)
}

/// An instant that a person typed: RFC 3339, with an offset.
pub fn parse_rfc3339(text: &str) -> Option<Millis> {
    let instant = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Some((instant.unix_timestamp_nanos() / 1_000_000) as Millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_the_wall_clocks_unless_that_is_wrong() {
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
    fn instants_survive_both_ways() {
        for ms in [0, 951_782_399_999, 951_782_400_000, 1_795_430_645_123, MILLIS_MAX] {
            let text = format_millis(ms);
            assert_eq!(parse_instant(&text), Some(ms), "{text}");
            assert_eq!(parse_rfc3339(&text), Some(ms), "{text}");
        }
        assert_eq!(format_millis(951_782_400_000), "2000-02-29T00:00:00.000Z");
    }

    #[test]
    fn a_stamp_writes_what_the_instant_alone_would() {
        let mut stamp = Stamp::default();
        for ms in [1_795_430_645_123, 1_795_430_645_999, 1_795_430_646_000, 1_795_430_645_007, -1, MILLIS_MAX + 1] {
            let mut text = Vec::new();
            stamp.push(&mut text, ms);
            assert_eq!(String::from_utf8(text).unwrap(), format_millis(ms));
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
        ] {
            assert_eq!(parse_instant(text), expected, "{text}");
        }
        for text in ["", "yesterday", "2026-13-01T00:00:00Z", "2026-11-20T10:30:45+1", "2026-11-20T25:00:00Z"] {
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
