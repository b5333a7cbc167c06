//! The reasons why the health is not `healthy`.

use std::fmt;

use serde::Serialize;

use crate::clock::{Millis, format_millis};

/// The codes of reasons. Their names are fixed, since alerts depend on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    CredentialsRefused,
    NotReceiving,
    DiskWriteFailed,
    Stalled,
    Starting,
    SocketDown,
    HistoryForbidden,
    HistoryFailing,
    SubscriptionRejected,
    ElasticUnreachable,
    ElasticRefused,
    ElasticBacklogDropped,
    DeadLetters,
    UnreadableFrames,
    Incomplete,
    DefinitionsUnconfirmed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Events are not collected. `/health` responds with 503.
    Unhealthy,
    /// Events are collected, but something needs attention.
    Degraded,
}

impl Severity {
    pub fn name(self) -> &'static str {
        match self {
            Self::Unhealthy => "unhealthy",
            Self::Degraded => "degraded",
        }
    }
}

/// A problem and its fix, as two texts, so that they can be shown and logged separately.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    /// The problem, and its effect on the events.
    pub what: String,
    /// The fix: one or two imperative sentences; empty if none is known.
    pub cure: String,
    /// Genesys's correlation id of the response that shows the problem, which their support asks for.
    pub correlation_id: Option<String>,
}

impl Problem {
    pub fn new(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { what: what.into(), cure: cure.into(), correlation_id: None }
    }

    /// Logs a sentence about the problem, with the cure and the correlation id as separate fields.
    pub fn log(&self, level: log::Level, sentence: impl fmt::Display) {
        let cure = self.cure.as_str();
        match self.correlation_id.as_deref() {
            Some(id) => log::log!(level, cure = cure, correlation_id = id; "{sentence}"),
            None if cure.is_empty() => log::log!(level, "{sentence}"),
            None => log::log!(level, cure = cure; "{sentence}"),
        }
    }

    #[must_use]
    pub fn with_correlation_id(self, id: Option<impl Into<String>>) -> Self {
        Self { correlation_id: id.map(Into::into), ..self }
    }
}

/// The problem and its fix on one line, for a terminal.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if self.cure.is_empty() { Ok(()) } else { write!(f, ". {}", self.cure) }
    }
}

impl std::error::Error for Problem {}

impl Code {
    pub const ALL: [Self; 16] = [
        Self::CredentialsRefused,
        Self::NotReceiving,
        Self::DiskWriteFailed,
        Self::Stalled,
        Self::Starting,
        Self::SocketDown,
        Self::HistoryForbidden,
        Self::HistoryFailing,
        Self::SubscriptionRejected,
        Self::ElasticUnreachable,
        Self::ElasticRefused,
        Self::ElasticBacklogDropped,
        Self::DeadLetters,
        Self::UnreadableFrames,
        Self::Incomplete,
        Self::DefinitionsUnconfirmed,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::CredentialsRefused => "credentials_refused",
            Self::NotReceiving => "not_receiving",
            Self::DiskWriteFailed => "disk_write_failed",
            Self::Stalled => "stalled",
            Self::Starting => "starting",
            Self::SocketDown => "socket_down",
            Self::HistoryForbidden => "history_forbidden",
            Self::HistoryFailing => "history_failing",
            Self::SubscriptionRejected => "subscription_rejected",
            Self::ElasticUnreachable => "elastic_unreachable",
            Self::ElasticRefused => "elastic_refused",
            Self::ElasticBacklogDropped => "elastic_backlog_dropped",
            Self::DeadLetters => "dead_letters",
            Self::UnreadableFrames => "unreadable_frames",
            Self::Incomplete => "incomplete",
            Self::DefinitionsUnconfirmed => "definitions_unconfirmed",
        }
    }

    pub fn severity(self) -> Severity {
        match self {
            Self::CredentialsRefused | Self::NotReceiving | Self::DiskWriteFailed | Self::Stalled => {
                Severity::Unhealthy
            }
            _ => Severity::Degraded,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Reason {
    pub code: Code,
    pub since: Millis,
    pub problem: Problem,
}

impl Reason {
    /// The reason as in `/health`.
    pub fn shown(&self) -> Shown {
        Shown {
            code: self.code.name(),
            severity: self.code.severity().name(),
            since: format_millis(self.since),
            message: self.problem.what.clone(),
            cure: self.problem.cure.clone(),
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    pub code: &'static str,
    pub severity: &'static str,
    pub since: String,
    pub message: String,
    pub cure: String,
}
