//! HTTPS_PROXY and NO_PROXY: which peers are reached through the proxy, and the CONNECT that leads through it.
//!
//! Must never: show the proxy's password in a text.

use std::io::{Read, Write};
use std::net::IpAddr;

use data_encoding::BASE64;

use super::error::{DialError, Step};
use super::socket::Socket;
use super::{Target, authority};
use crate::secret::Secret;

/// Bytes of a proxy's answer that are read before it counts as nonsense.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// The proxy of HTTPS_PROXY.
#[derive(Clone, Debug)]
pub struct Proxy {
    pub host: String,
    pub port: u16,
    /// The value of `Proxy-Authorization`.
    authorization: Option<Secret>,
}

impl Proxy {
    /// Understands `[http://][user:password@]host[:port][/]`; user and password may be percent-encoded.
    ///
    /// # Errors
    /// When it is of another kind, or has no host.
    pub fn parse(url: &Secret) -> Result<Self, DialError> {
        let wrong = |cause: &str| {
            DialError::new(
                Step::Setting,
                format!("cannot use HTTPS_PROXY: {cause}; it is written http://[user:password@]host:port"),
            )
        };
        let rest = match url.expose().trim().split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(_) => return Err(wrong("only proxies that speak http are supported")),
            None => url.expose().trim(),
        };
        // A password may hold an @ or a slash as it is: the last @ ends it.
        let (credentials, rest) = match rest.rsplit_once('@') {
            Some((credentials, rest)) => (Some(credentials), rest),
            None => (None, rest),
        };
        let place = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (host, port) = split_port(place).ok_or_else(|| wrong("its port is not a number from 1 to 65535"))?;
        if host.is_empty() {
            return Err(wrong("it has no host"));
        }
        let authorization = credentials.map(|credentials| {
            let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
            let plain = [percent_decode(user), b":".to_vec(), percent_decode(password)].concat();
            Secret::new(format!("Basic {}", BASE64.encode(&plain)))
        });
        Ok(Self { host: host.to_owned(), port: port.unwrap_or(80), authorization })
    }

    /// The proxy's name as texts show it, without the password.
    pub fn name(&self) -> String {
        authority(&self.host, self.port)
    }

    /// Asks the proxy for a tunnel to the target.
    ///
    /// # Errors
    /// When it refuses, with what to check; when it does not answer in time.
    pub fn tunnel(&self, socket: &mut Socket, target: &Target) -> Result<(), DialError> {
        let place = authority(&target.host, target.port);
        let failed = |cause: String| {
            DialError::new(Step::Proxy, format!("proxy {} gave no tunnel to {place}: {cause}", self.name()))
        };
        let mut request = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n");
        if let Some(authorization) = &self.authorization {
            request.push_str(&format!("Proxy-Authorization: {}\r\n", authorization.expose()));
        }
        request.push_str("\r\n");
        socket.write_all(request.as_bytes()).map_err(|error| failed(error.to_string()))?;
        let head = read_head(socket).map_err(|cause| failed(format!("{cause}; check that HTTPS_PROXY is a proxy")))?;
        let status = head.split_ascii_whitespace().nth(1).and_then(|code| code.parse::<u16>().ok());
        let cure = match status {
            Some(200..=299) => return Ok(()),
            Some(407) => "check the user and password in HTTPS_PROXY",
            Some(403 | 405) => "ask its administrator to allow this host and port, or name the host in NO_PROXY",
            Some(502..=504) => "the proxy could not reach the host; see the proxy's log",
            Some(_) => "see the proxy's log",
            None => return Err(failed("its answer is not HTTP; check that HTTPS_PROXY is a proxy".to_owned())),
        };
        Err(DialError::new(
            Step::Proxy,
            format!(
                "proxy {} refused CONNECT to {place}: {}; {cure}",
                self.name(),
                status.map_or_else(String::new, |code| code.to_string())
            ),
        ))
    }
}

/// Reads an HTTP head up to its blank line, byte by byte so that nothing behind it is taken.
fn read_head(socket: &mut Socket) -> Result<String, String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && !head.ends_with(b"\n\n") {
        if head.len() >= ANSWER_BYTES_MAX {
            return Err("its answer is too long".to_owned());
        }
        match socket.read(&mut byte) {
            Ok(0) => return Err("it closed the connection".to_owned()),
            Ok(_) => head.push(byte[0]),
            Err(error) => return Err(error.to_string()),
        }
    }
    if head.starts_with(b"HTTP/") { Ok(String::from_utf8_lossy(&head).into_owned()) } else { Ok(String::new()) }
}

fn percent_decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = (bytes[at] == b'%').then(|| bytes.get(at + 1..at + 3)).flatten();
        let decoded = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        // A percent sign that begins no escape is itself: passwords are pasted as they are.
        plain.push(decoded.unwrap_or(bytes[at]));
        at += if decoded.is_some() { 3 } else { 1 };
    }
    plain
}

/// Splits `host`, `host:port`, `[v6]`, `[v6]:port` or a bare IPv6 address; `None` for a port that is no number.
fn split_port(place: &str) -> Option<(&str, Option<u16>)> {
    if let Some(rest) = place.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port.parse().ok().filter(|port| *port > 0)?))),
            None => rest.is_empty().then_some((host, None)),
        };
    }
    match place.split_once(':') {
        Some((_, rest)) if rest.contains(':') => Some((place, None)),
        Some((host, port)) => Some((host, Some(port.parse().ok().filter(|port| *port > 0)?))),
        None => Some((place, None)),
    }
}

/// The entries of NO_PROXY.
#[derive(Clone, Debug, Default)]
pub struct NoProxy(Vec<Entry>);

#[derive(Clone, Debug)]
struct Entry {
    what: What,
    port: Option<u16>,
}

#[derive(Clone, Debug)]
enum What {
    Everything,
    Network(IpAddr, u8),
    /// A host, and every host below it.
    Domain(String),
}

impl NoProxy {
    /// Understands `*`, hosts and domains (with or without a leading `.` or `*.`, which mean the same: the domain and
    /// all below it), addresses, networks as `10.0.0.0/8`, each with or without `:port`. What is none of these is
    /// taken as a domain that nothing matches.
    pub fn parse(entries: &[String]) -> Self {
        let entries = entries.iter().flat_map(|entry| entry.split([',', ' '])).map(str::trim).filter(|e| !e.is_empty());
        Self(entries.filter_map(Entry::parse).collect())
    }

    /// Whether this peer is reached without the proxy.
    pub fn covers(&self, host: &str, port: u16) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.0.iter().any(|entry| entry.port.is_none_or(|wanted| wanted == port) && entry.what.covers(&host))
    }
}

impl Entry {
    fn parse(text: &str) -> Option<Self> {
        if let Some((network, bits)) = text.split_once('/') {
            let ip: IpAddr = network.trim_matches(['[', ']']).parse().ok()?;
            let bits = bits.parse().ok().filter(|bits| *bits <= if ip.is_ipv4() { 32 } else { 128 })?;
            return Some(Self { what: What::Network(ip, bits), port: None });
        }
        let (host, port) = split_port(text)?;
        let what = if host == "*" {
            What::Everything
        } else if let Ok(ip) = host.parse::<IpAddr>() {
            What::Network(ip, if ip.is_ipv4() { 32 } else { 128 })
        } else {
            let domain = host.strip_prefix('*').unwrap_or(host).trim_matches('.');
            What::Domain(domain.to_ascii_lowercase())
        };
        Some(Self { what, port })
    }
}

impl What {
    fn covers(&self, host: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Network(network, bits) => host.parse::<IpAddr>().is_ok_and(|ip| in_network(ip, *network, *bits)),
            Self::Domain(domain) => {
                !domain.is_empty()
                    && host.strip_suffix(domain.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
        }
    }
}

fn in_network(ip: IpAddr, network: IpAddr, bits: u8) -> bool {
    match (ip.to_canonical(), network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => {
            let shift = 32 - u32::from(bits);
            u32::from(ip).checked_shr(shift) == u32::from(network).checked_shr(shift)
        }
        (IpAddr::V6(ip), IpAddr::V6(network)) => {
            let shift = 128 - u32::from(bits);
            u128::from(ip).checked_shr(shift) == u128::from(network).checked_shr(shift)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(url: &str) -> Result<Proxy, DialError> {
        Proxy::parse(&Secret::new(url))
    }

    #[test]
    fn a_proxy_is_read_with_its_password() {
        let plain = proxy("http://proxy.example:3128/").unwrap();
        assert_eq!((plain.name().as_str(), plain.authorization.is_none()), ("proxy.example:3128", true));
        assert_eq!(proxy("proxy.example").unwrap().port, 80);
        assert_eq!(proxy("http://[::1]:3128").unwrap().name(), "[::1]:3128");
        let authorization = |url: &str| proxy(url).unwrap().authorization.unwrap().expose().to_owned();
        assert_eq!(authorization("http://user:p%40ss@h:1"), format!("Basic {}", BASE64.encode(b"user:p@ss")));
        assert_eq!(authorization("http://user:p@s%s:x@h:1"), format!("Basic {}", BASE64.encode(b"user:p@s%s:x")));
    }

    #[test]
    fn a_wrong_proxy_is_told_without_its_password() {
        for url in ["https://u:hunter2@h:1", "http://u:hunter2@h:port", "http://u:hunter2@", "http://u:hunter2@h:0"] {
            let error = proxy(url).unwrap_err().to_string();
            assert!(error.starts_with("cannot use HTTPS_PROXY: "), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(!format!("{:?}", proxy("http://u:hunter2@h:1").unwrap()).contains("hunter2"));
    }

    #[test]
    fn no_proxy_covers_hosts_domains_addresses_networks_and_ports() {
        let list = ["localhost", ".internal", "*.corp.example", "Example.COM", "10.0.0.0/8", "fd00::/8", "[::1]:8443"];
        let no_proxy = NoProxy::parse(&list.map(str::to_owned));
        for (host, port) in [
            ("localhost", 1),
            ("a.internal", 1),
            ("x.corp.example", 1),
            ("EXAMPLE.com", 1),
            ("www.example.com.", 1),
            ("10.255.1.2", 1),
            ("fd12::1", 1),
            ("::1", 8443),
        ] {
            assert!(no_proxy.covers(host, port), "{host}:{port}");
        }
        for (host, port) in [("::1", 443), ("notexample.com", 1), ("11.0.0.1", 1), ("fe80::1", 1), ("internal.org", 1)]
        {
            assert!(!no_proxy.covers(host, port), "{host}:{port}");
        }
        assert!(NoProxy::parse(&["*".to_owned()]).covers("anything", 1));
        assert!(NoProxy::parse(&["0.0.0.0/0".to_owned()]).covers("8.8.8.8", 1));
        let with_port = NoProxy::parse(&["api.example:8443".to_owned()]);
        assert!(with_port.covers("api.example", 8443) && !with_port.covers("api.example", 443));
    }
}
