//! HTTPS_PROXY and NO_PROXY: which hosts are reached through the proxy, and the CONNECT request for a tunnel.
//!
//! Must never: show the proxy's password.

use std::io::Write;
use std::net::IpAddr;

use data_encoding::BASE64;
use percent_encoding::percent_decode_str;

use super::head::read_head;
use super::socket::Socket;
use super::{Target, authority, split_port};
use crate::secret::Secret;
use crate::status::Problem;

/// The proxy of HTTPS_PROXY.
#[derive(Clone, Debug)]
pub struct Proxy {
    pub host: String,
    pub port: u16,
    /// The value of `Proxy-Authorization`.
    authorization: Option<Secret>,
}

impl Proxy {
    /// Parses `[http://][user:password@]host[:port][/]`; user and password may be percent-encoded.
    ///
    /// # Errors
    /// When the scheme is not http, the host is missing, or the port is invalid.
    pub fn parse(url: &Secret) -> Result<Self, Problem> {
        let wrong = |cause: &str| {
            let cure = "Write HTTPS_PROXY as http://[user:password@]host:port.";
            Problem::new(format!("cannot use HTTPS_PROXY: {cause}"), cure)
        };
        let rest = match url.expose().trim().split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(_) => return Err(wrong("only proxies that speak http are supported")),
            None => url.expose().trim(),
        };
        // A password may contain an unencoded @ or slash; the last @ ends it.
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
            // A percent sign that starts no escape stays as it is: people paste passwords without encoding them.
            let mut plain: Vec<u8> = percent_decode_str(user).collect();
            plain.push(b':');
            plain.extend(percent_decode_str(password));
            Secret::new(format!("Basic {}", BASE64.encode(&plain)))
        });
        Ok(Self { host: host.to_owned(), port: port.unwrap_or(80), authorization })
    }

    /// The proxy's host and port for messages, without the password.
    pub fn name(&self) -> String {
        authority(&self.host, self.port)
    }

    /// Requests a tunnel to the target.
    ///
    /// # Errors
    /// When the proxy refuses or does not answer in time, with what to check.
    pub fn tunnel(&self, socket: &mut Socket, target: &Target) -> Result<(), Problem> {
        let place = authority(&target.host, target.port);
        let failed = |cause: String, cure: &str| {
            let what = format!("the proxy {} did not open a tunnel to {place}: {cause}", self.name());
            Problem::new(what, cure)
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

/// Whether an entry of NO_PROXY covers this host and port. An entry is `*`, a host or domain, an IP address, or a
/// network such as `10.0.0.0/8`. A domain includes its subdomains, with or without a leading `.` or `*.`. All but a
/// network may have a `:port`.
pub fn covers(entry: &str, host: &str, port: u16) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let ip = host.parse::<IpAddr>().ok();
    if let Some((network, bits)) = entry.split_once('/') {
        return ip.and_then(|ip| in_network(ip, network, bits)).unwrap_or(false);
    }
    let Some((name, _)) = split_port(entry).filter(|(_, only)| only.is_none_or(|only| only == port)) else {
        return false;
    };
    if let Ok(address) = name.parse::<IpAddr>() {
        return ip.is_some_and(|ip| ip.to_canonical() == address.to_canonical());
    }
    let domain = name.strip_prefix('*').unwrap_or(name).trim_matches('.').to_ascii_lowercase();
    let is_below = |rest: &str| rest.is_empty() || rest.ends_with('.');
    name == "*" || !domain.is_empty() && host.strip_suffix(&domain).is_some_and(is_below)
}

/// Whether the network contains the address. Both are compared as IPv6, with IPv4 addresses mapped to `::ffff:0:0/96`.
fn in_network(ip: IpAddr, network: &str, bits: &str) -> Option<bool> {
    let network: IpAddr = network.trim_matches(['[', ']']).parse().ok()?;
    let bits = u32::from(bits.parse::<u8>().ok()?) + if network.is_ipv4() { 96 } else { 0 };
    let prefix = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits().checked_shr(128 - bits),
        IpAddr::V6(ip) => ip.to_bits().checked_shr(128 - bits),
    };
    (bits <= 128).then(|| prefix(ip) == prefix(network))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(url: &str) -> Result<Proxy, Problem> {
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
    fn an_invalid_proxy_is_reported_without_its_password() {
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
        let is_covered = |host: &str, port| list.iter().any(|entry| covers(entry, host, port));
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
            assert!(is_covered(host, port), "{host}:{port}");
        }
        for (host, port) in [("::1", 443), ("notexample.com", 1), ("11.0.0.1", 1), ("fe80::1", 1), ("internal.org", 1)]
        {
            assert!(!is_covered(host, port), "{host}:{port}");
        }
        assert!(covers("*", "anything", 1) && covers("0.0.0.0/0", "8.8.8.8", 1) && covers("::/0", "fe80::1", 1));
        assert!(covers("api.example:8443", "api.example", 8443) && !covers("api.example:8443", "api.example", 443));
        for nothing in ["", ".", "10.0.0.0/33", "10.0.0.0/x", "x/8", "host:port", "fd00::/129"] {
            assert!(!covers(nothing, "10.0.0.1", 1) && !covers(nothing, "fd00::1", 1), "{nothing}");
        }
    }
}
