//! Whether the rows of a piece come in the order of time that was asked for: only then is a piece known to be whole up
//! to its newest row before its last page is read. Pure.

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;

use crate::clock::{Millis, parse_instant};

/// So many pages are read before they are worth a checkpoint, which costs a sync.
const PAGES: u32 = 50;

/// The order of the rows so far.
#[derive(Debug, Default)]
pub struct Order {
    newest: Option<Millis>,
    broken: bool,
    pages: u32,
}

impl Order {
    /// Looks at a page's first and last row.
    pub fn look(&mut self, body: &str, rows: &[Range<usize>]) {
        self.pages += 1;
        for row in rows.first().into_iter().chain(rows.last()) {
            match created(&body[row.clone()]) {
                Some(at) if self.newest.is_none_or(|newest| newest <= at) => self.newest = Some(at),
                _ => self.broken = true,
            }
        }
    }

    /// Up to where everything was given, every so many pages.
    pub fn up_to(&mut self) -> Option<Millis> {
        let is_time = !self.broken && self.pages >= PAGES;
        if is_time {
            self.pages = 0;
        }
        self.newest.filter(|_| is_time)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn look(order: &mut Order, times: &[&str]) {
        let (mut body, mut rows) = (String::new(), Vec::new());
        for time in times {
            let from = body.len();
            body.push_str(&format!("{{\"entityId\":\"e\",\"dateCreated\":\"{time}\"}}"));
            rows.push(from..body.len());
        }
        order.look(&body, &rows);
    }

    #[test]
    fn rows_in_order_are_known_up_to_the_newest_and_others_are_not() {
        let mut order = Order::default();
        for minute in 0..PAGES {
            assert_eq!(order.up_to(), None);
            look(
                &mut order,
                &[&format!("2026-11-23T10:{minute:02}:00.000Z"), &format!("2026-11-23T10:{minute:02}:30.000Z")],
            );
        }
        assert_eq!(order.up_to(), parse_instant("2026-11-23T10:49:30.000Z"));
        assert_eq!(order.up_to(), None);
        for broken in ["2026-11-23T09:00:00.000Z", "soon"] {
            let mut order = Order::default();
            for _ in 0..=PAGES {
                look(&mut order, &["2026-11-23T10:00:00.000Z", broken]);
            }
            assert_eq!(order.up_to(), None, "{broken}");
        }
    }
}
