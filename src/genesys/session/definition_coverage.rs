//! How far each definition was read: its coverage.
//!
//! Definitions that are not covered up to the checkpoint are read before it moves on, a day at a time. A definition
//! that was never read (a new one, or one not known before) is read from the oldest events that Genesys keeps, or from
//! the very first start. A definition that was left out for a while is read from where it was left.

use std::sync::Arc;
use std::time::Instant;

use super::Session;
use super::reading::Reading;
use crate::clock::{Millis, format_millis};
use crate::dedup::MARGIN_MS;
use crate::dedup::rows::Span;
use crate::genesys::history::Read;
use crate::message::{Purpose, extend_coverage};

/// Span read at once of definitions that the checkpoint does not cover: other reads get their turn in between.
pub(super) const COVERAGE_MS: Millis = 24 * 3_600_000;

impl Reading {
    /// Records that these definitions were read up to this time, and that their events are on disk.
    pub fn covers(&mut self, ids: &[String], up_to: Millis, purpose: Purpose) {
        extend_coverage(&mut self.coverage, ids, up_to, purpose);
        if purpose == Purpose::CatchUp {
            self.checkpoint = up_to;
        }
    }

    /// The time up to which this definition was read.
    pub fn read_to(&self, id: &String) -> Millis {
        self.coverage.get(id).copied().unwrap_or(Millis::MIN)
    }

    /// Whether this definition was read up to the checkpoint.
    pub fn is_covered(&self, id: &String) -> bool {
        self.read_to(id) >= self.checkpoint
    }
}

impl Session {
    /// The definitions of the plan that are read together: those that the checkpoint covers.
    pub(super) fn covered(&self) -> Arc<[String]> {
        let is_read = |id: &&String| self.reading.is_covered(id) && !self.reading.left_out.contains_key(*id);
        self.read_ids.iter().filter(is_read).cloned().collect()
    }

    /// The definitions of the plan that the checkpoint does not cover.
    pub(super) fn uncovered(&self) -> Vec<String> {
        self.read_ids.iter().filter(|id| !self.reading.is_covered(id)).cloned().collect()
    }

    /// When the next part that is not covered may be read; `None` if everything is covered.
    pub(super) fn coverage_due(&self) -> Option<Instant> {
        let Reading { left_out, coverage_at, .. } = &self.reading;
        let due = |id: &String| left_out.get(id).map_or(*coverage_at, |one| one.retry_at.max(*coverage_at));
        self.uncovered().iter().map(due).min()
    }

    /// Begins the next part that is not covered: of the definitions with the least coverage, or of a definition that
    /// was left out.
    pub(super) fn begin_coverage(&mut self, begin: Millis, now: Instant) {
        let left_out = &self.reading.left_out;
        let (mut uncovered, mut failing): (Vec<String>, Vec<String>) =
            self.uncovered().into_iter().partition(|id| !left_out.contains_key(id));
        failing.sort_by_key(|id| left_out[id].retry_at);
        if uncovered.is_empty() {
            uncovered.extend(failing.into_iter().next());
        }
        let read_to = |id: &String| self.reading.read_to(id).max(begin);
        let least = uncovered.iter().map(read_to).min().unwrap_or(begin);
        let ids: Arc<[String]> = uncovered.iter().filter(|id| read_to(id) == least).cloned().collect();
        let checkpoint = self.reading.checkpoint;
        let span = Span {
            from: (least - self.overlap_ms()).max(begin).min(checkpoint - MARGIN_MS),
            to: (least + COVERAGE_MS).min(checkpoint),
        };
        log::info!(
            "reading the history of {} from {} to {}: it was not read before",
            super::shorten(&ids),
            format_millis(span.from),
            format_millis(span.to)
        );
        self.begin(Read { ids, span, until: self.with_context(span.to), purpose: Purpose::Coverage }, now);
    }
}
