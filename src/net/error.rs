//! What can go wrong on the way to a peer.

use std::fmt;

use crate::status::Problem;

/// A dial that failed: which step with which peer, and what to do.
#[derive(Clone, Debug)]
pub struct DialError {
    pub what: String,
    /// One or two imperative sentences.
    pub cure: String,
}

impl DialError {
    pub fn new(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { what: what.into(), cure: cure.into() }
    }
}

impl From<DialError> for Problem {
    fn from(error: DialError) -> Self {
        Self::new(error.what, error.cure)
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}. {}", self.what, self.cure)
    }
}

impl std::error::Error for DialError {}
