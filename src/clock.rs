//! Time: the wall clock, the monotonic clock, the service's time, and the texts of instants.
//!
//! Both clocks are read through one object that a test can replace. Must never: use the wall clock to wait.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Milliseconds since 1970, UTC.
pub type Millis = i64;

/// The last instant that a record can carry: the end of the year 9999.
pub const MILLIS_MAX: Millis = 253_402_300_799_999;

/// The two clocks. Cloned freely; all clones of a test's clock move together.
#[derive(Clone, Debug)]
pub struct Clock(Option<ManualClock>);

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that moves only when told to.
    pub fn manual(wall: Millis) -> (Self, ManualClock) {
        let hands = Hands { started: Instant::now(), elapsed_ms: AtomicI64::new(0), wall_ms: AtomicI64::new(wall) };
        let manual = ManualClock(Arc::new(hands));
        (Self(Some(manual.clone())), manual)
    }

    /// The wall clock: it may jump.
    pub fn wall(&self) -> Millis {
        match &self.0 {
            Some(manual) => manual.0.wall_ms.load(Ordering::SeqCst),
            None => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as Millis),
        }
    }

    /// The monotonic clock: for every wait and every age. It stands still while the machine is suspended.
    pub fn now(&self) -> Instant {
        match &self.0 {
            Some(manual) => {
                manual.0.started + Duration::from_millis(manual.0.elapsed_ms.load(Ordering::SeqCst).unsigned_abs())
            }
            None => Instant::now(),
        }
    }
}

/// The hand that moves a manual [`Clock`].
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Hands>);

#[derive(Debug)]
struct Hands {
    started: Instant,
    elapsed_ms: AtomicI64,
    wall_ms: AtomicI64,
}

impl ManualClock {
    /// Lets time pass on both clocks.
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

/// Notices that the machine was suspended: the wall clock went on while the monotonic clock, by which every timer runs,
/// stood still. Somebody who sets the wall clock forward looks the same.
#[derive(Debug)]
pub struct SuspendDetector {
    clock: Clock,
    wall: Millis,
    now: Instant,
}

impl SuspendDetector {
    /// A wall clock that gains less than this between two polls is being adjusted.
    const GAIN_MS_MIN: i64 = 10_000;

    pub fn new(clock: Clock) -> Self {
        Self { wall: clock.wall(), now: clock.now(), clock }
    }

    /// For how long the machine was suspended since the last call; `None` if it was not. To be polled every few seconds.
    pub fn poll(&mut self) -> Option<Duration> {
        let (wall, now) = (self.clock.wall(), self.clock.now());
        let gain_ms = wall - self.wall - now.saturating_duration_since(self.now).as_millis() as i64;
        (self.wall, self.now) = (wall, now);
        (gain_ms >= Self::GAIN_MS_MIN).then(|| Duration::from_millis(gain_ms.unsigned_abs()))
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
    let ms = ms.clamp(0, MILLIS_MAX);
    let at = OffsetDateTime::from_unix_timestamp(ms / 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (date, (hour, minute, second)) = (at.date(), at.to_hms());
    format!("{date}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1000)
}

/// Appends what [`format_millis`] gives.
pub fn push_millis(out: &mut Vec<u8>, ms: Millis) {
    out.extend_from_slice(format_millis(ms).as_bytes());
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
            self.text = format_millis(ms).into_bytes();
            self.text.truncate("2026-11-23T10:30:45.".len());
            self.second = Some(ms / 1000);
        }
        let digit = |divisor: i64| b'0' + (ms / divisor % 10) as u8;
        out.extend_from_slice(&self.text);
        out.extend_from_slice(&[digit(100), digit(10), digit(1), b'Z']);
    }
}

/// An instant that a person typed: RFC 3339, with an offset.
pub fn parse_rfc3339(text: &str) -> Option<Millis> {
    let instant = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Some(instant.unix_timestamp() * 1000 + i64::from(instant.millisecond()))
}

/// Milliseconds of an ISO 8601 instant: any number of fraction digits (cut to milliseconds), `Z`, `+hh:mm`, `+hhmm`,
/// `+hh` or no offset at all (taken as UTC), `T`, `t` or a blank between date and time, perhaps without seconds. `None`
/// for anything else, and for instants outside 1970–9999.
pub fn parse_instant(text: &str) -> Option<Millis> {
    let text = text.trim();
    if !matches!(text.as_bytes().get(10), Some(b'T' | b't' | b' ')) {
        return None;
    }
    let ms = parse_rfc3339(text).or_else(|| parse_rfc3339(&as_rfc3339(text)?))?;
    (0..=MILLIS_MAX).contains(&ms).then_some(ms)
}

/// The usual departures from RFC 3339 made good.
fn as_rfc3339(text: &str) -> Option<String> {
    let (date, time) = (text.get(..10)?, text.get(11..)?);
    let (time, offset) = time.split_at(time.find(['Z', 'z', '+', '-']).unwrap_or(time.len()));
    let seconds = if time.len() == "10:30".len() { ":00" } else { "" };
    // A leap second counts as the second before it: no event may be refused for one.
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

/// Milliseconds of an HTTP date (`Mon, 23 Nov 2026 10:30:45 GMT`), as the `Date` header carries it.
pub fn parse_http_date(text: &str) -> Option<Millis> {
    let date = httpdate::parse_http_date(text.trim()).ok()?;
    Some(date.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_millis() as Millis)
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
    fn a_suspension_is_noticed_once_and_an_adjusted_clock_is_none() {
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
