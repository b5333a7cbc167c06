//! What can go wrong on the way to a peer, told by the step that failed.

use std::fmt;

/// The step of a dial that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The address or a setting is unusable as it stands.
    Setting,
    /// The name look-up.
    Resolve,
    /// The TCP connect.
    Connect,
    /// The proxy's answer to CONNECT.
    Proxy,
    /// The CA certificates that trust is built on.
    Trust,
    /// The peer's certificate.
    Certificate,
    /// The rest of the TLS handshake.
    Tls,
}

/// A dial that failed. Its text names the step, the peer, the cause and, where it is known, the cure.
#[derive(Clone, Debug)]
pub struct DialError {
    pub step: Step,
    message: String,
}

impl DialError {
    pub fn new(step: Step, message: impl Into<String>) -> Self {
        Self { step, message: message.into() }
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DialError {}
