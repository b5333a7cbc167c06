//! The named reasons for a health that is not `healthy`.

use std::fmt;

use serde::Serialize;

use crate::clock::{Millis, format_millis};

/// What can be wrong. The names are fixed: alarms are written against them.
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

/// How bad a reason is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Not collecting: `/health` answers 503.
    Unhealthy,
    /// Collecting, and something needs attention.
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

/// What is wrong and what to do about it: two parts from where a problem arises to where it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong, and what it means for the events.
    pub what: String,
    /// What to do: one or two imperative sentences; empty where nothing is known to help.
    pub cure: String,
    /// The vendor's correlation id of the answer that shows it: support asks for it.
    pub correlation_id: Option<String>,
}

impl Problem {
    pub fn new(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { what: what.into(), cure: cure.into(), correlation_id: None }
    }

    /// Logs a sentence about it; its cure and the correlation id are fields of their own.
    pub fn log(&self, level: log::Level, sentence: impl fmt::Display) {
        let cure = self.cure.as_str();
        match self.correlation_id.as_deref() {
            Some(id) => log::log!(level, cure = cure, correlation_id = id; "{sentence}"),
            None if cure.is_empty() => log::log!(level, "{sentence}"),
            None => log::log!(level, cure = cure; "{sentence}"),
        }
    }

    /// The same with the correlation id of an answer.
    #[must_use]
    pub fn with_correlation_id(self, id: Option<impl Into<String>>) -> Self {
        Self { correlation_id: id.map(Into::into), ..self }
    }
}

/// On one line, for a terminal.
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

/// One thing that is wrong now.
#[derive(Clone, Debug)]
pub struct Reason {
    pub code: Code,
    pub since: Millis,
    pub problem: Problem,
}

impl Reason {
    /// As `/health` shows it.
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
