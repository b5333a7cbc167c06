//! Decides which frames and rows become records: one rule for both sources, based on the records alone.
//!
//! The socket pushes an event once, early, and sometimes never. The history has every event, late, and can be read
//! again. So the history is authoritative, and the socket only delivers events earlier. An event has no id of its own;
//! it is identified by its content (a hash of six fields) and its time.
//!
//! - A frame is written unless the file has a socket record of the same content and exactly the same time, or a history
//!   record of the same content within the tolerance ([`index::Records::has_frame`]).
//! - Rows are judged together, by content. Rows that the file has as history records of exactly the same time are done.
//!   The others are matched one to one with the socket records of their content. Rows left over are missing and are
//!   appended ([`reconcile::reconcile`]).
//!
//! Must never: remember what was dropped or matched. Every read returns its rows again and judges them again from the
//! records, so a restart at any instant changes nothing.

pub mod index;
mod matching;
pub mod reconcile;
pub mod rows;

use crate::clock::Millis;

/// Maximum difference between an event's times in the socket and in the history.
pub const TOLERANCE_MS: i64 = 2_000;

/// Maximum delay between an event and the receipt of its frame, if the frame has no time of its own.
pub const RECEIPT_DELAY_MS: i64 = 120_000;

/// Maximum distance between rows that can compete for one record.
pub const MARGIN_MS: i64 = 2 * TOLERANCE_MS;

/// How far beyond a span rows are read as context for matching: up to rows that a receipt at its edge may belong to.
pub const CONTEXT_MS: i64 = RECEIPT_DELAY_MS + MARGIN_MS;

/// The source of an event.
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

/// The part of a record that deduplication needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record {
    /// The event's own time, or its receipt if it has none.
    pub at: Millis,
    /// Whether `at` is the event's own time.
    pub timed: bool,
    pub source: Source,
}

impl Record {
    /// The range of times that a row or frame of the same event may have. `row_delay_ms`: the maximum time between an
    /// event and the receipt of its row, if the row has no time.
    pub fn range(self, row_delay_ms: i64) -> Range {
        let before = match (self.timed, self.source) {
            (true, _) => TOLERANCE_MS,
            (false, Source::Socket) => RECEIPT_DELAY_MS,
            (false, Source::History) => row_delay_ms,
        };
        Range { from: self.at - before, to: self.at + TOLERANCE_MS }
    }
}
