//! The HTTP client for REST and the cluster, over the same dialler as the socket.
//!
//! Must never: follow a redirect (a token would go with it), or turn a status into an error (its body and `Retry-After`
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

/// What the service and the cluster see of us.
pub const USER_AGENT: &str = concat!("audiohook-collector/", env!("CARGO_PKG_VERSION"));

/// An idle connection is not used again after this long: proxies and balancers cut them without a word.
const IDLE_MAX: Duration = Duration::from_secs(25);

/// Bytes of each of a connection's two buffers; an answer's head must fit.
const BUFFER_BYTES: usize = 32 * 1024;

/// Limits of one request.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Name look-up, connect, proxy and TLS together.
    pub connect: Duration,
    /// Silence.
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

/// The dial's own error inside the client's, where there is one.
pub fn dial_error(error: &Error) -> Option<&Problem> {
    match error {
        Error::Io(error) => error.get_ref().and_then(|inner| inner.downcast_ref()),
        _ => None,
    }
}

/// The dialler looks names up itself, at the proxy's side where there is one.
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
        /// The client's "never" is longer than an instant can be late.
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
        // Nothing came while it was idle, not even its end.
        !self.stream.socket().has_input()
    }

    fn is_tls(&self) -> bool {
        self.stream.is_tls()
    }
}
