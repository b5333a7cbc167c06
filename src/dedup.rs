//! Which frames and rows become records: one rule for both sources, over the records alone.
//!
//! The socket pushes an event once, early, and sometimes never. The history has every event, late, and can be read again.
//! So the history is the truth, and the socket only makes an event early. An event has no id of its own: it is known by
//! its content (a hash of six fields) and its time.
//!
//! - A frame is written, unless the file has a socket record of the same content and exactly this time, or a history
//!   record of the same content within the tolerance ([`index::Records::has_frame`]).
//! - Rows are judged together, by content: rows that the file has as history records of exactly this time are done; the
//!   others are matched one to one with the socket records of their content; what is left over is missing and is
//!   appended ([`reconcile::reconcile`]).
//!
//! Must never: remember what was dropped or matched. Every read brings its rows again and judges them again from the
//! records, so a restart at any instant is the same as running on.

pub mod index;
mod matching;
pub mod reconcile;
pub mod rows;

use crate::clock::Millis;

/// How far the times of one event may differ between socket and history.
pub const TOLERANCE_MS: i64 = 2_000;

/// How long after the event a frame without a time of its own may be received.
pub const RECEIPT_DELAY_MS: i64 = 120_000;

/// Rows so near to each other can compete for one record.
pub const MARGIN_MS: i64 = 2 * TOLERANCE_MS;

/// Rows this far beyond a span are read as context for matching: as far as those that a receipt at its edge may belong to.
pub const CONTEXT_MS: i64 = RECEIPT_DELAY_MS + MARGIN_MS;

/// Where an event was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    Socket,
    History,
}

/// A range of instants, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    pub from: Millis,
    pub to: Millis,
}

impl Range {
    pub fn at(instant: Millis) -> Self {
        Self { from: instant, to: instant }
    }

    pub fn overlaps(self, other: Self) -> bool {
        self.from <= other.to && other.from <= self.to
    }
}

/// A record of the file, as far as deduplication knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record {
    /// The event's own time, or the receipt where it has none.
    pub at: Millis,
    /// Whether `at` is the event's own time.
    pub timed: bool,
    pub source: Source,
}

impl Record {
    /// When a row or frame of the same event may say that it happened. `row_delay_ms`: how long before its receipt the
    /// event of a row without a time may have happened.
    pub fn range(self, row_delay_ms: i64) -> Range {
        let before = match (self.timed, self.source) {
            (true, _) => TOLERANCE_MS,
            (false, Source::Socket) => RECEIPT_DELAY_MS,
            (false, Source::History) => row_delay_ms,
        };
        Range { from: self.at - before, to: self.at + TOLERANCE_MS }
    }
}
