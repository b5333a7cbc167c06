//! The texts of rows that were dropped for a record of another time: a nearer row may yet take the place of each.
//!
//! Few have one: where both ways give one time, nothing is nearer. Must never: grow beyond [`BYTES_MAX`]; there the
//! oldest go, and where one of them is displaced after all, the row that displaces it is written in its place.

use std::collections::BTreeMap;

use super::{Moment, PLACE_MS, Sighting};
use crate::clock::Millis;

/// Bytes kept, at most, about: rows of [`PLACE_MS`] at thirty a second.
pub const BYTES_MAX: usize = 2 * 1024 * 1024;

/// What a row takes beside its text, about.
const OVERHEAD: usize = 64;

/// By time and content.
#[derive(Default)]
pub(super) struct Dropped {
    texts: BTreeMap<(Millis, u64), String>,
    bytes: usize,
}

impl Dropped {
    pub fn keep(&mut self, row: Sighting, text: &str) {
        self.take(row);
        self.bytes += text.len() + OVERHEAD;
        self.texts.insert(key(row), text.to_owned());
        while self.bytes > BYTES_MAX
            && let Some((_, oldest)) = self.texts.pop_first()
        {
            self.bytes -= oldest.len() + OVERHEAD;
        }
    }

    pub fn take(&mut self, row: Sighting) -> Option<String> {
        let text = self.texts.remove(&key(row))?;
        self.bytes -= text.len() + OVERHEAD;
        Some(text)
    }

    /// Rows of this moment are being read: lets go of those whose place none of them can take. What is later is of an
    /// earlier read, and this one brings it again.
    pub fn go_on_to(&mut self, moment: Moment) {
        let Moment::Own(now) = moment else { return };
        while let Some(end) = self.texts.first_entry().filter(|first| first.key().0 < now - PLACE_MS) {
            self.bytes -= end.remove().len() + OVERHEAD;
        }
        while let Some(end) = self.texts.last_entry().filter(|last| last.key().0 > now + PLACE_MS) {
            self.bytes -= end.remove().len() + OVERHEAD;
        }
    }
}

fn key(row: Sighting) -> (Millis, u64) {
    (row.moment.nominal(), row.content)
}
