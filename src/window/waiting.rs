//! Rows that are left over among like ones, and not decided yet.
//!
//! Some frames come later than their rows. Where the two ways' times differ, which of several like rows has no frame is
//! told best when all frames are there: such a row waits for them a little. Must never: hold a row for longer than
//! [`WAIT`]; grow beyond its bounds, where the next is decided at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Moment, Sighting, Way};
use crate::clock::Millis;

/// How long a row waits for the frames that may be on their way.
pub const WAIT: Duration = Duration::from_secs(5);

const ROWS_MAX: usize = 64;
const BYTES_MAX: usize = 256 * 1024;

/// A row's text, and when the history had it first.
pub(super) struct Waiter {
    pub text: String,
    pub since: Instant,
}

/// By time and content.
#[derive(Default)]
pub(super) struct Waiting {
    rows: BTreeMap<(Millis, u64), Waiter>,
    bytes: usize,
}

impl Waiting {
    pub fn has(&self, row: Sighting) -> bool {
        matches!(row.moment, Moment::Own(time) if self.rows.contains_key(&(time, row.content)))
    }

    /// Whether it waits from now on: one without a time does not.
    pub fn put(&mut self, row: Sighting, text: &str, since: Instant) -> bool {
        let Moment::Own(time) = row.moment else { return false };
        if self.rows.len() >= ROWS_MAX || self.bytes + text.len() > BYTES_MAX {
            return false;
        }
        self.bytes += text.len();
        self.rows.insert((time, row.content), Waiter { text: text.to_owned(), since });
        true
    }

    /// When the first of them happened.
    pub fn oldest(&self) -> Option<Millis> {
        self.rows.first_key_value().map(|((time, _), _)| *time)
    }

    pub fn take_all(&mut self) -> impl Iterator<Item = (Sighting, Waiter)> + use<> {
        self.bytes = 0;
        std::mem::take(&mut self.rows).into_iter().map(|((time, content), waiter)| {
            (Sighting { content, way: Way::History, moment: Moment::Own(time) }, waiter)
        })
    }
}
