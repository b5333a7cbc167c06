//! HTTPS_PROXY and NO_PROXY: which peers are reached through the proxy, and CONNECT, which leads through it.
//!
//! Must never: show the proxy's password in a text.

use std::io::Write;
use std::net::IpAddr;

use data_encoding::BASE64;
use percent_encoding::percent_decode_str;

use super::error::{DialError, Step};
use super::head::read_head;
use super::socket::Socket;
use super::{Target, authority, split_port};
use crate::secret::Secret;

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
            let cure = "Write HTTPS_PROXY as http://[user:password@]host:port.";
            DialError::new(Step::Setting, format!("cannot use HTTPS_PROXY: {cause}"), cure)
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
            // A percent sign that begins no escape is itself: passwords are pasted as they are.
            let mut plain: Vec<u8> = percent_decode_str(user).collect();
            plain.push(b':');
            plain.extend(percent_decode_str(password));
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
        let failed = |cause: String, cure: &str| {
            let what = format!("the proxy {} gave no tunnel to {place}: {cause}", self.name());
            DialError::new(Step::Proxy, what, cure)
        };
        let mut request = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n");
        if let Some(authorization) = &self.authorization {
            request.push_str(&format!("Proxy-Authorization: {}\r\n", authorization.expose()));
        }
        request.push_str("\r\n");
        let head = socket
            .write_all(request.as_bytes())
            .and_then(|()| read_head(socket))
            .map_err(|error| failed(error.to_string(), "Check that HTTPS_PROXY is the address of an HTTP proxy."))?;
        let cure = match head.status {
            200..=299 => return Ok(()),
            407 => "Check the user and password in HTTPS_PROXY.",
            403 | 405 => "Ask the proxy's administrator to allow this host and port, or name the host in NO_PROXY.",
            502..=504 => "The proxy could not reach the host. Check the proxy's log.",
            _ => "Check the proxy's log.",
        };
        Err(failed(format!("it refused CONNECT with {}", head.status), cure))
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
