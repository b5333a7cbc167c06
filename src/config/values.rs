//! Parses the values of settings. Each function takes a text and returns a value, or a message that says what the value
//! must be. The message never contains the text, which may be a secret.

use std::net::IpAddr;
use std::time::Duration;

/// The maximum duration: a hundred years, so that sums of instants cannot overflow.
pub const SECONDS_MAX: u64 = 100 * 365 * 86_400;

/// The minimum duration: a millisecond, the unit of the program's clocks.
const SECONDS_MIN: f64 = 0.001;

/// The maximum size in bytes: the largest file offset.
pub const SIZE_MAX: u64 = i64::MAX as u64;

/// The cluster's limit on the length of an index name.
const INDEX_NAME_BYTES_MAX: usize = 255;

/// A parsed value, or a message that completes a sentence with the setting's name as its subject.
pub type Parsed<T> = Result<T, String>;

/// Parses true, 1, yes, on, false, 0, no and off.
pub fn boolean(text: &str) -> Parsed<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("must be true or false (1, yes, on; 0, no, off)".to_owned()),
    }
}

/// Parses a whole number from `min` to `max`.
pub fn number(text: &str, min: u64, max: u64) -> Parsed<u64> {
    let text = text.trim();
    let wrong = || format!("must be a whole number from {min} to {max}");
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    text.parse().ok().filter(|n| (min..=max).contains(n)).ok_or_else(wrong)
}

/// Parses a size in bytes, or with K, M or G, optionally followed by `B` or `iB`. All units are powers of 1024.
pub fn size(text: &str) -> Parsed<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let factor: u64 = match text[digits..].trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return Err("must be a whole number of bytes, or one with K, M or G, such as 10MB or 1GiB".to_owned()),
    };
    if digits == 0 {
        return Err("must be a whole number of bytes, or one with K, M or G, such as 10MB or 1GiB".to_owned());
    }
    let bytes = text[..digits].parse::<u64>().ok().and_then(|n| n.checked_mul(factor));
    match bytes {
        Some(0) => Err("must be more than 0 bytes".to_owned()),
        Some(bytes) if bytes <= SIZE_MAX => Ok(bytes),
        _ => Err(format!("is too large: at most {SIZE_MAX} bytes")),
    }
}

/// Parses a number of seconds above 0, which may have a fraction.
pub fn seconds(text: &str) -> Parsed<Duration> {
    seconds_or_zero(text).and_then(|duration| {
        if duration.is_zero() { Err(format!("must be more than 0: at least {SECONDS_MIN} s")) } else { Ok(duration) }
    })
}

/// Parses a number of seconds, which may have a fraction, or 0.
pub fn seconds_or_zero(text: &str) -> Parsed<Duration> {
    let text = text.trim();
    // Allow only digits and one point, since `f64` also accepts `inf`, `NaN`, `1e9` and signs.
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let points = text.bytes().filter(|b| *b == b'.').count();
    if digits == 0 || points > 1 || digits + points != text.len() {
        return Err("must be a number of seconds, such as 5 or 0.5".to_owned());
    }
    let value: f64 = text.parse().map_err(|_| "must be a number of seconds, such as 5 or 0.5".to_owned())?;
    if value > SECONDS_MAX as f64 {
        return Err(format!("is too long: at most {SECONDS_MAX} s"));
    }
    if value > 0.0 && value < SECONDS_MIN {
        return Err(format!("is too short: at least {SECONDS_MIN} s"));
    }
    Duration::try_from_secs_f64(value).map_err(|_| "must be a number of seconds, such as 5 or 0.5".to_owned())
}

/// Parses a whole number of days, hours, minutes or seconds above 0, such as `90d` or `24h`.
pub fn span(text: &str) -> Parsed<Duration> {
    let wrong = || "must be a whole number followed by d, h, m or s, such as 90d or 24h".to_owned();
    let text = text.trim();
    let (count, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let unit_seconds = match unit {
        "d" => 86_400,
        "h" => 3600,
        "m" => 60,
        "s" => 1,
        _ => return Err(wrong()),
    };
    let count = number(count, 1, SECONDS_MAX / unit_seconds).map_err(|_| wrong())?;
    Ok(Duration::from_secs(count * unit_seconds))
}

/// Returns the index of a word in `words`, ignoring case.
pub fn word(text: &str, words: &[&str]) -> Parsed<usize> {
    let text = text.trim();
    let place = words.iter().position(|word| word.eq_ignore_ascii_case(text));
    place.ok_or_else(|| format!("must be one of {}", words.join(", ")))
}

/// Splits a text at commas, and removes blanks and duplicates. The order is kept.
pub fn list(text: &str) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        if !items.iter().any(|known| known == item) {
            items.push(item.to_owned());
        }
    }
    items
}

/// Checks the name of an index or data stream by the cluster's rules.
pub fn index_name(text: &str) -> Parsed<String> {
    let name = text.trim();
    if name.chars().any(char::is_uppercase) {
        return Err("must be in lower case: the cluster refuses capital letters in index names".to_owned());
    }
    if name.contains(|c: char| c.is_whitespace() || c.is_control() || "\\/*?\"<>|,#:".contains(c)) {
        return Err("must not contain blanks or any of \\ / * ? \" < > | , # :".to_owned());
    }
    if name.starts_with(['-', '_', '+']) || name == "." || name == ".." {
        return Err("must not begin with - _ + or be . or ..".to_owned());
    }
    if name.is_empty() || name.len() > INDEX_NAME_BYTES_MAX {
        return Err(format!("must be 1 to {INDEX_NAME_BYTES_MAX} bytes long"));
    }
    Ok(name.to_owned())
}

/// Parses the address to listen on: a host name or an IP address without a port. Brackets around an IPv6 address are
/// removed.
pub fn listen_host(text: &str) -> Parsed<String> {
    let host = text.trim();
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if bare.parse::<IpAddr>().is_ok() {
        return Ok(bare.to_owned());
    }
    if host.contains(':') {
        return Err("must be a host without a port (HTTP_PORT has that), such as 0.0.0.0, 127.0.0.1 or ::".to_owned());
    }
    if is_host_name(host) { Ok(host.to_owned()) } else { Err("must be a host name or an IP address".to_owned()) }
}

/// Whether a text is a host name: labels of letters, digits, `-` and `_`, as in the DNS and in container networks.
pub fn is_host_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    name.len() <= 253
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_four_words_each() {
        for text in ["true", "1", "yes", "on", "TRUE", "Yes"] {
            assert_eq!(boolean(text), Ok(true), "{text}");
        }
        for text in ["false", "0", "no", "off", "Off"] {
            assert_eq!(boolean(text), Ok(false), "{text}");
        }
        for text in ["", "2", "y", "enabled", "truee"] {
            assert!(boolean(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_keep_to_their_range() {
        assert_eq!(number("50", 1, 100), Ok(50));
        for text in ["", "0", "101", "-1", "+5", "5.0", "1e1", "٣", "99999999999999999999999"] {
            assert!(number(text, 1, 100).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024_either_way() {
        for (text, bytes) in [
            ("1", 1),
            ("10485760", 10_485_760),
            ("10MB", 10_485_760),
            ("10 mib", 10_485_760),
            ("10M", 10_485_760),
            ("1GiB", 1 << 30),
            ("1g", 1 << 30),
            ("4k", 4096),
            ("4KB", 4096),
            ("7B", 7),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "0",
            "0MB",
            "-1",
            "MB",
            "1.5GB",
            "1TB",
            "10 MBit",
            "9223372036854775808",
            "8589934592GiB",
            "1_000",
            "é",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn seconds_may_have_a_fraction_and_must_be_sane() {
        assert_eq!(seconds("5"), Ok(Duration::from_secs(5)));
        assert_eq!(seconds("5.0"), Ok(Duration::from_secs(5)));
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        assert_eq!(seconds(".5"), Ok(Duration::from_millis(500)));
        assert_eq!(seconds_or_zero("0"), Ok(Duration::ZERO));
        let endless = "9".repeat(400);
        for text in [
            "",
            ".",
            "0",
            "0.0",
            "-1",
            "+1",
            "NaN",
            "nan",
            "inf",
            "infinity",
            "1e3",
            "1,5",
            "5s",
            "1..2",
            "1e400",
            "0.0001",
            "99999999999",
            &endless,
        ] {
            assert!(seconds(text).is_err(), "{text}");
        }
        assert!(seconds_or_zero("-0").is_err());
    }

    #[test]
    fn a_span_has_a_unit() {
        for (text, seconds) in [("90d", 7_776_000), ("24h", 86_400), (" 5m ", 300), ("1s", 1)] {
            assert_eq!(span(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "d", "90", "0d", "1.5d", "-1d", "1w", "1é", "99999999999999999999d"] {
            assert!(span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_list_is_trimmed_and_each_once() {
        assert_eq!(list(" a, b ,,a,B "), ["a", "b", "B"]);
        assert!(list(" , ").is_empty());
    }

    #[test]
    fn index_names_follow_the_clusters_rules() {
        for name in ["genesys-audiohook", "a", ".hidden", "x_y-z.1", "größe"] {
            assert_eq!(index_name(name).as_deref(), Ok(name));
        }
        for name in
            ["", "Genesys", "a b", "a/b", "a*", "-a", "_a", "+a", ".", "..", "a,b", "a#b", "a:b", &"x".repeat(256)]
        {
            assert!(index_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_host_to_listen_on_has_no_port() {
        for (text, host) in [
            ("0.0.0.0", "0.0.0.0"),
            ("::", "::"),
            ("[::1]", "::1"),
            ("localhost", "localhost"),
            (" 10.0.0.1 ", "10.0.0.1"),
        ] {
            assert_eq!(listen_host(text).as_deref(), Ok(host));
        }
        for text in ["", "localhost:80", "0.0.0.0:8077", "http://x", "a b", "-x", "[::1]:80", "x..y"] {
            assert!(listen_host(text).is_err(), "{text}");
        }
    }
}
