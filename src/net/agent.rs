//! The HTTP client for the REST API and the cluster, over the same dialer as the socket.
//!
//! Must never: follow a redirect (it would leak a token), or turn a status into an error (the body and `Retry-After`
//! would be lost).

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};
use ureq::{Agent, Error};

use super::socket::Stream;
use super::{Dialer, Target};
use crate::status::Problem;

/// The `User-Agent` header.
pub const USER_AGENT: &str = concat!("audiohook-collector/", env!("CARGO_PKG_VERSION"));

/// Idle connections are not reused after this time: proxies and load balancers drop them silently.
const IDLE_MAX: Duration = Duration::from_secs(25);

/// Bytes of each of a connection's two buffers; a response's headers must fit.
const BUFFER_BYTES: usize = 32 * 1024;

/// Limits of one request.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Name lookup, connect, proxy and TLS together.
    pub connect: Duration,
    /// Each read and write.
    pub read: Duration,
    /// The whole request.
    pub total: Duration,
}

/// A client that makes its connections through `dialer`.
pub fn agent(dialer: Arc<Dialer>, limits: Limits) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent(USER_AGENT)
        .accept_encoding("identity")
        .timeout_global(Some(limits.total))
        .timeout_connect(Some(limits.connect))
        .timeout_per_read(Some(limits.read))
        .timeout_per_write(Some(limits.read))
        .input_buffer_size(BUFFER_BYTES)
        .output_buffer_size(BUFFER_BYTES)
        .max_idle_age(IDLE_MAX)
        .max_idle_connections(4)
        .max_idle_connections_per_host(2)
        .build();
    Agent::with_parts(config, Dialled(dialer), NoLookup)
}

/// The dialer's error inside the client's error, if there is one.
pub fn dial_error(error: &Error) -> Option<&Problem> {
    match error {
        Error::Io(error) => error.get_ref().and_then(|inner| inner.downcast_ref()),
        _ => None,
    }
}

/// Returns a placeholder: the dialer resolves names itself, or leaves them to the proxy.
#[derive(Debug)]
struct NoLookup;

impl Resolver for NoLookup {
    fn resolve(&self, _: &Uri, _: &ureq::config::Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let mut addresses = self.empty();
        addresses.push(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        Ok(addresses)
    }
}

#[derive(Debug)]
struct Dialled(Arc<Dialer>);

impl Connector<()> for Dialled {
    type Out = DialledTransport;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<DialledTransport>, Error> {
        let failed = |error: Problem| Error::Io(io::Error::other(error));
        let target = Target::parse(&details.uri.to_string()).map_err(failed)?;
        let limit = *details.timeout.after;
        let stream = self.0.dial(&target, limit).map_err(failed)?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(DialledTransport { stream, buffers }))
    }
}

#[derive(Debug)]
struct DialledTransport {
    stream: Box<dyn Stream>,
    buffers: LazyBuffers,
}

impl DialledTransport {
    fn limit(&mut self, timeout: &NextTimeout) -> Result<(), Error> {
        if timeout.after.is_zero() {
            return Err(Error::Timeout(timeout.reason));
        }
        /// The client's "no timeout" is too long to add to an `Instant`.
        const NEVER: Duration = Duration::from_secs(24 * 3600);
        self.stream.socket().set_deadline(Instant::now() + (*timeout.after).min(NEVER));
        Ok(())
    }
}

fn explain(error: io::Error, timeout: &NextTimeout) -> Error {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Error::Timeout(timeout.reason),
        _ => Error::Io(error),
    }
}

impl Transport for DialledTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let timeout = timeout.for_write();
        self.limit(&timeout)?;
        let output = &self.buffers.output()[..amount];
        let written = self.stream.write_all(output).and_then(|()| self.stream.flush());
        written.map_err(|error| explain(error, &timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let timeout = timeout.for_read();
        self.limit(&timeout)?;
        let input = self.buffers.input_append_buf();
        let read = self.stream.read(input).map_err(|error| explain(error, &timeout))?;
        self.buffers.input_appended(read);
        Ok(read > 0)
    }

    fn is_open(&mut self) -> bool {
        // Input on an idle connection is its end, or data that nobody requested.
        !self.stream.socket().has_input()
    }

    fn is_tls(&self) -> bool {
        self.stream.is_tls()
    }
}
