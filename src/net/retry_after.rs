//! The `Retry-After` header.

use std::time::Duration;

use ureq::http::HeaderMap;
use ureq::http::header::{DATE, RETRY_AFTER};

use super::header;
use crate::clock::{Millis, parse_http_date};

/// Longer waits are shortened to this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// The wait requested by `Retry-After`, at most an hour: seconds, or a date, which is compared with the response's
/// `Date` or, without one, with `now`.
pub fn retry_after(headers: &HeaderMap, now: Millis) -> Option<Duration> {
    let asked = header(headers, RETRY_AFTER.as_str())?;
    let seconds = match asked.parse::<f64>() {
        Ok(seconds) => seconds,
        Err(_) => {
            let now = header(headers, DATE.as_str()).and_then(parse_http_date).unwrap_or(now);
            (parse_http_date(asked)? - now).max(0) as f64 / 1000.0
        }
    };
    (seconds >= 0.0).then(|| Duration::from_secs_f64(seconds.min(RETRY_AFTER_MAX.as_secs_f64())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ureq::http::{HeaderName, HeaderValue};

    #[test]
    fn the_wait_is_read_as_seconds_or_as_a_date() {
        let now = parse_http_date("Mon, 23 Nov 2026 10:30:45 GMT").unwrap();
        let wait = |fields: &[(&'static str, &'static str)]| {
            let fields =
                fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            retry_after(&fields.collect(), now)
        };
        let at = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(wait(&[("retry-after", " 42 ")]), at(42));
        assert_eq!(wait(&[("retry-after", "Mon, 23 Nov 2026 10:31:00 GMT")]), at(15));
        let date = ("date", "Mon, 23 Nov 2026 10:29:45 GMT");
        assert_eq!(wait(&[("retry-after", "Mon, 23 Nov 2026 10:31:00 GMT"), date]), at(75));
        assert_eq!(wait(&[("retry-after", "Mon, 23 Nov 2026 10:00:00 GMT")]), at(0));
        assert_eq!(wait(&[("retry-after", "999999999999")]), at(3600));
        for nothing in ["", "soon", "-1", "nan"] {
            assert_eq!(wait(&[("retry-after", nothing)]), None, "{nothing}");
        }
        assert_eq!(wait(&[]), None);
    }
}
