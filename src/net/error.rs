//! What can go wrong on the way to a peer, by the step that failed.

use std::fmt;

use crate::status::Problem;

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

/// A dial that failed: the step, what happened to which peer, and the cure.
#[derive(Clone, Debug)]
pub struct DialError {
    pub step: Step,
    pub problem: Problem,
}

impl DialError {
    pub fn new(step: Step, what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { step, problem: Problem::new(what, cure) }
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}. {}", self.problem.what, self.problem.cure)
    }
}

impl std::error::Error for DialError {}
