//! Parses http and https addresses. Errors never repeat the address, which may contain a password.

use std::net::{IpAddr, Ipv6Addr};

use super::values::{Parsed, is_host_name, number};

/// A parsed http or https address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub https: bool,
    /// The part before the `@`, still percent-encoded.
    pub user_info: Option<String>,
    /// A name or an IPv4 address in lower case, or an IPv6 address in brackets.
    pub host: String,
    pub port: Option<u16>,
    /// Empty, or a path with a leading slash and without a trailing one.
    pub path: String,
}

impl Address {
    /// The address without credentials and without a trailing slash.
    pub fn without_user_info(&self) -> String {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{}{port}{}", if self.https { "https" } else { "http" }, self.host, self.path)
    }

    /// Whether the host is certainly this machine: localhost, 127.0.0.0/8 or `[::1]`.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

/// Whether a host is localhost, in 127.0.0.0/8, or `::1` with or without brackets.
pub fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Parses an http or https address.
pub fn parse(text: &str) -> Parsed<Address> {
    let text = text.trim();
    let (scheme, rest) =
        text.split_once("://").ok_or("must begin with https:// (or http://), such as https://host:9200".to_owned())?;
    let https = match scheme.to_ascii_lowercase().as_str() {
        "https" => true,
        "http" => false,
        _ => return Err("must begin with https:// or http://".to_owned()),
    };
    if rest.contains(|c: char| c.is_whitespace() || c.is_control() || "\"<>\\^`{|}".contains(c)) {
        return Err("must not contain blanks or quotes: write special characters as %XX".to_owned());
    }
    if rest.contains(['?', '#']) {
        return Err("must not contain ? or #".to_owned());
    }
    let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let (user_info, host_port) = match authority.rsplit_once('@') {
        Some((user_info, host_port)) => (Some(user_info.to_owned()), host_port),
        None => (None, authority),
    };
    if path.contains('@') {
        // `https://user:pa/ss@host` would otherwise go to the host `user`, with the password in its path.
        return Err("contains an @ after a /: write special characters of a password as %XX".to_owned());
    }
    let (host, port) = host_and_port(host_port)?;
    Ok(Address { https, user_info, host, port, path: path.trim_end_matches('/').to_owned() })
}

/// Parses `host`, `host:port`, `[::1]` or `[::1]:port`, and returns the host in lower case.
pub fn host_and_port(text: &str) -> Parsed<(String, Option<u16>)> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (ip, rest_after_ip) = rest.split_once(']').ok_or("has a [ without its ]".to_owned())?;
        ip.parse::<Ipv6Addr>().map_err(|_| "must have a valid IPv6 address between [ and ]".to_owned())?;
        let port = match rest_after_ip {
            "" => None,
            _ => Some(rest_after_ip.strip_prefix(':').ok_or("must have nothing but :port after the ]".to_owned())?),
        };
        (format!("[{}]", ip.to_ascii_lowercase()), port)
    } else {
        let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
        if port.is_some_and(|port| port.contains(':')) {
            return Err("must have its IPv6 address between [ and ]".to_owned());
        }
        if !is_host_name(host) {
            return Err("must name a host: letters, digits, - and dots (other letters as xn--…)".to_owned());
        }
        (host.to_ascii_lowercase(), port)
    };
    let port = port.map(|port| number(port, 1, 65_535).map_err(|_| "must have a port from 1 to 65535".to_owned()));
    Ok((host, port.transpose()?.map(|port| port as u16)))
}

/// Decodes `%XX`. A `%` without two hex digits is literal.
pub fn percent_decode(text: &str) -> Parsed<String> {
    let bytes = text.as_bytes();
    let hex = |at: usize| bytes.get(at).and_then(|b| (*b as char).to_digit(16));
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).map_err(|_| "must be UTF-8 after its %XX are decoded".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_apart() {
        let parsed = parse("HTTPS://us%40er:p@ss@Search.Example:9200/prefix//").expect("valid");
        assert_eq!(parsed.user_info.as_deref(), Some("us%40er:p@ss"));
        assert_eq!(parsed.without_user_info(), "https://search.example:9200/prefix");
        assert!(!parsed.is_loopback());
        for text in ["http://localhost", "http://127.9.8.7:1", "http://[::1]:8080/x", "http://LOCALHOST:1"] {
            assert!(parse(text).expect(text).is_loopback(), "{text}");
        }
        for text in ["http://localhost.example", "http://127.0.0.1.example", "http://[::2]", "http://1270.0.0.1"] {
            assert!(!parse(text).expect(text).is_loopback(), "{text}");
        }
        for text in [
            "",
            "host:9200",
            "ftp://host",
            "https://",
            "https://:80",
            "https://host:0",
            "https://host:65536",
            "https://host:",
            "https://host:x",
            "https://a b",
            "https://host?x=1",
            "https://host/#x",
            "https://::1",
            "https://[::1",
            "https://[::1]x",
            "https://[zz]",
            "https://user:pa/ss@host",
            "https://hö.st",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn percent_signs_are_undone() {
        assert_eq!(percent_decode("a%40b%zz%2").as_deref(), Ok("a@b%zz%2"));
        assert!(percent_decode("%ff").is_err());
    }
}
