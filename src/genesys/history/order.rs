//! Whether the rows of a piece come in the order of time that was asked for: only then is a piece known to be whole up
//! to its newest row before its last page is read. Pure.

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;

use crate::clock::{Millis, parse_instant};

/// The order of the rows so far.
#[derive(Debug, Default)]
pub struct Order {
    newest: Option<Millis>,
    is_broken: bool,
}

impl Order {
    /// Looks at a page's first and last row; the writer looks at each.
    pub fn look(&mut self, body: &str, rows: &[Range<usize>]) {
        for row in rows.first().into_iter().chain(rows.last()) {
            match created(&body[row.clone()]) {
                Some(at) if self.newest.is_none_or(|newest| newest <= at) => self.newest = Some(at),
                _ => self.is_broken = true,
            }
        }
    }

    /// All rows before this were given, as far as the order tells.
    pub fn newest(&self) -> Option<Millis> {
        self.newest.filter(|_| !self.is_broken)
    }
}

fn created(row: &str) -> Option<Millis> {
    #[derive(Deserialize)]
    struct Row<'a> {
        #[serde(borrow, rename = "dateCreated")]
        date_created: Cow<'a, str>,
    }
    parse_instant(&serde_json::from_str::<Row<'_>>(row).ok()?.date_created)
}
