//! All outgoing connections, to Genesys Cloud and to the cluster, are made here.
//!
//! Must never: skip certificate verification, cache a resolved address, or show a password.

mod agent;
mod head;
mod proxy;
mod retry_after;
mod socket;
mod tcp;
mod tls;

use std::path::Path;
use std::time::{Duration, Instant};

pub use agent::{Limits, USER_AGENT, agent, dial_error};
pub use head::{Head, header, read_head};
pub use proxy::Proxy;
pub use retry_after::retry_after;
pub use socket::{Socket, Stream};
pub use tls::{Tls, Trust};

use crate::config::Network;
use crate::status::Problem;

/// The host and port to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub tls: bool,
    /// A name or an IP address, without brackets.
    pub host: String,
    pub port: u16,
}

impl Target {
    /// Parses an http, https, ws or wss URL. Everything after the host and port is ignored, as it may be secret.
    ///
    /// # Errors
    /// When the scheme is another, the host is missing, or the port is invalid.
    pub fn parse(uri: &str) -> Result<Self, Problem> {
        let wrong = |cause: &str| {
            let cure = "Check GENESYS_LOGIN_URL, GENESYS_API_URL and ELASTIC_URL, where they are set.";
            Problem::new(format!("cannot use the address: {cause}"), cure)
        };
        let (scheme, rest) = uri.split_once("://").ok_or_else(|| wrong("it has no scheme"))?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "https" | "wss" => true,
            "http" | "ws" => false,
            _ => return Err(wrong("its scheme is not https, wss, http or ws")),
        };
        let place = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
        let (host, port) = split_port(place).ok_or_else(|| wrong("its port is not a number from 1 to 65535"))?;
        if host.is_empty() {
            return Err(wrong("it has no host"));
        }
        Ok(Self { tls, host: host.to_owned(), port: port.unwrap_or(if tls { 443 } else { 80 }) })
    }

    /// Whether the host is this machine. Only then may a connection go without TLS.
    pub fn is_loopback(&self) -> bool {
        let name = self.host.trim_end_matches('.').to_ascii_lowercase();
        name == "localhost"
            || name.ends_with(".localhost")
            || self.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
    }
}

/// `host:port`, with brackets around an IPv6 address.
pub fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Splits `host`, `host:port`, `[v6]`, `[v6]:port` or a bare IPv6 address; `None` if the port is invalid.
fn split_port(place: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None if place.matches(':').count() > 1 => (place, ""),
        None => place.split_at(place.find(':').unwrap_or(place.len())),
    };
    if port.is_empty() {
        return Some((host, None));
    }
    let port = port.strip_prefix(':')?.parse().ok().filter(|port| *port > 0)?;
    Some((host, Some(port)))
}

/// Makes connections.
#[derive(Debug)]
pub struct Dialer {
    proxy: Option<Proxy>,
    no_proxy: Vec<String>,
    tls: Tls,
    /// What to check when the host's name cannot be resolved, and when the host cannot be reached.
    cures: (&'static str, &'static str),
}

/// The cures for Genesys Cloud.
const GENESYS_CURES: (&str, &str) = (
    "Check GENESYS_ENV and this machine's DNS.",
    "Check the firewall. If this network reaches the internet only through a proxy, set HTTPS_PROXY.",
);
/// The cures for the cluster.
const CLUSTER_CURES: (&str, &str) = (
    "Check the host in ELASTIC_URL and this machine's DNS.",
    "Check that the cluster is up and that ELASTIC_URL is right. Check for a firewall in between.",
);

impl Dialer {
    /// A dialer for Genesys Cloud.
    ///
    /// # Errors
    /// When HTTPS_PROXY is invalid.
    pub fn new(network: &Network) -> Result<Self, Problem> {
        let trust = match &network.ssl_cert_file {
            Some(path) => Trust::File { path: path.clone(), setting: "SSL_CERT_FILE" },
            None => Trust::System,
        };
        Ok(Self {
            cures: GENESYS_CURES,
            proxy: network.https_proxy.as_ref().map(Proxy::parse).transpose()?,
            no_proxy: network.no_proxy.iter().flat_map(|list| list.split([',', ' '])).map(str::to_owned).collect(),
            tls: Tls::new(trust),
        })
    }

    /// A dialer for the cluster. With `ca_file`, only the CAs in that file are trusted.
    ///
    /// # Errors
    /// When HTTPS_PROXY is invalid.
    pub fn for_cluster(network: &Network, ca_file: Option<&Path>) -> Result<Self, Problem> {
        let mut dialer = Self { cures: CLUSTER_CURES, ..Self::new(network)? };
        if let Some(path) = ca_file {
            dialer.tls = Tls::new(Trust::File { path: path.to_owned(), setting: "ELASTIC_CA_FILE" });
        }
        Ok(dialer)
    }

    /// The proxy for this target, if any: https and wss use HTTPS_PROXY unless NO_PROXY covers the host.
    pub fn proxy_for(&self, target: &Target) -> Option<&Proxy> {
        let is_covered = |entry: &String| proxy::covers(entry, &target.host, target.port);
        self.proxy.as_ref().filter(|_| target.tls && !self.no_proxy.iter().any(is_covered))
    }

    /// Loads the trusted CA certificates, unless already done.
    ///
    /// # Errors
    /// See [`Tls::connector`].
    pub fn check_trust(&self) -> Result<(), Problem> {
        self.tls.connector().map(drop)
    }

    /// Connects within `limit`, which covers all steps together.
    ///
    /// # Errors
    /// The failed step, its cause, and what to check.
    pub fn dial(&self, target: &Target, limit: Duration) -> Result<Box<dyn Stream>, Problem> {
        /// Maximum time for a connection, whatever the caller allows.
        const LIMIT_MAX: Duration = Duration::from_secs(60);
        let deadline = Instant::now() + limit.min(LIMIT_MAX);
        let proxy = self.proxy_for(target);
        let (host, port) = proxy.map_or((&target.host, target.port), |proxy| (&proxy.host, proxy.port));
        let (name, name_cure, place_cure) = match proxy {
            Some(_) => (
                format!("the proxy {}", authority(host, port)),
                "Check the host in HTTPS_PROXY and this machine's DNS.",
                "Check that the proxy runs at the host and port in HTTPS_PROXY, and that no firewall blocks it.",
            ),
            None => (authority(host, port), self.cures.0, self.cures.1),
        };
        let addresses = tcp::resolve(host, port, name_cure, deadline)?;
        let mut socket = Socket::new(tcp::connect(&name, &addresses, place_cure, deadline)?);
        socket.set_deadline(deadline);
        if let Some(proxy) = proxy {
            proxy.tunnel(&mut socket, target)?;
        }
        if target.tls { self.tls.handshake(socket, &target.host, deadline) } else { Ok(Box::new(socket)) }
    }
}
