//! The records of the files, as far as the audit knows them. Reads only.

use std::io::Result;

use super::MARGIN_MS;
use crate::clock::Millis;
use crate::config::Output;
use crate::event::Line;
use crate::output::Flow;
use crate::records::{self, Held};
use crate::window::{Moment, Sighting, TOLERANCE_MS, Way};

/// The files that are audited, and what of them.
pub struct Files {
    pub output: Output,
    /// The definitions whose records count.
    pub ids: Vec<String>,
    /// How long after a row its receipt may be, in milliseconds.
    pub row_delay_ms: i64,
}

/// A record, as far as the audit knows it.
pub struct Record {
    pub sighting: Sighting,
    /// Its definition's place among [`Files::ids`].
    pub definition: usize,
}

/// What names a record of an event that stands in the files and not in the history: its content, whether it came with
/// the history, and its time.
pub type Extra = (u64, bool, Millis);

/// The records of a piece and of its margins, and where their rows may stand.
pub struct Loaded {
    pub records: Vec<Record>,
    pub rows_from: Millis,
    pub rows_to: Millis,
}

impl Files {
    /// Visits the records whose event may lie in the interval, the newest first. `pulse` is called as lines are read.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn each_record(
        &self,
        from: Millis,
        to: Millis,
        pulse: &dyn Fn(),
        mut visit: impl FnMut(Record, &str) -> Flow,
    ) -> Result<()> {
        let visit = |text: &str, line: &Line<'_>| {
            let sighting = records::sighting(line, self.row_delay_ms);
            let (earliest, latest) = reach(sighting.moment);
            if latest >= from
                && earliest < to
                && let event_id = line.event_id.decoded()
                && let Some(definition) = self.ids.iter().position(|id| *id == event_id)
            {
                return visit(Record { sighting, definition }, text);
            }
            Flow::On
        };
        records::each_since_beside_rotation(&self.output.file, from - MARGIN_MS, visit, pulse)
    }

    /// Those records of the interval that are wanted; `None`: there are more than `max`.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn load_between(
        &self,
        from: Millis,
        to: Millis,
        max: usize,
        is_wanted: impl Fn(&Sighting) -> bool,
        pulse: &dyn Fn(),
    ) -> Result<Option<Vec<Record>>> {
        let mut records = Vec::new();
        let mut is_crowded = false;
        self.each_record(from, to, pulse, |record, _| {
            if !is_wanted(&record.sighting) {
                return Flow::On;
            }
            is_crowded = records.len() >= max;
            if is_crowded {
                return Flow::Stop;
            }
            records.push(record);
            Flow::On
        })?;
        Ok((!is_crowded).then_some(records))
    }

    /// The records of a piece and of its margins; `None`: there are more than `max`.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn load(&self, from: Millis, to: Millis, max: usize, pulse: &dyn Fn()) -> Result<Option<Loaded>> {
        let (mut rows_from, mut rows_to) = (from - MARGIN_MS, to + MARGIN_MS);
        let Some(records) = self.load_between(rows_from, rows_to, max, |_| true, pulse)? else { return Ok(None) };
        // Where the receipt stands for the time, the row may stand as long before it as a receipt may be late.
        for record in &records {
            let (earliest, latest) = reach(record.sighting.moment);
            let is_of_piece = earliest < to && latest >= from;
            if is_of_piece && matches!(record.sighting.moment, Moment::Receipt { .. }) {
                (rows_from, rows_to) = (rows_from.min(earliest), rows_to.max(latest));
            }
        }
        if (rows_from, rows_to) == (from - MARGIN_MS, to + MARGIN_MS) {
            return Ok(Some(Loaded { records, rows_from, rows_to }));
        }
        // Those rows have records of their own.
        let records = self.load_between(rows_from, rows_to, max, |_| true, pulse)?;
        Ok(records.map(|records| Loaded { records, rows_from, rows_to }))
    }

    /// From where on the files still hold what they ever held of this interval; its end, if they hold nothing of it.
    pub fn held_from(&self, from: Millis, to: Millis) -> Millis {
        Held::of(&self.output).cut(from, to).map_or(to, |(held, _)| held)
    }
}

/// When the row of a record with this moment may say that it happened.
fn reach(moment: Moment) -> (Millis, Millis) {
    match moment {
        Moment::Own(at) => (at - TOLERANCE_MS, at + TOLERANCE_MS),
        Moment::Receipt { at, delay } => (at - delay, at + TOLERANCE_MS),
    }
}

/// Takes out what stands there twice, and gives it: one event that does must not hide another that is missing.
pub fn take_repeated(records: &mut Vec<Record>) -> Vec<Extra> {
    records.sort_unstable_by_key(|Record { sighting: s, .. }| (s.content, s.way as u8, s.moment.nominal()));
    let mut repeated = Vec::new();
    records.dedup_by(|later, first| {
        let (a, b) = (later.sighting, first.sighting);
        let is_same = (a.content, a.way, a.moment) == (b.content, b.way, b.moment);
        if is_same {
            repeated.push(extra(&a));
        }
        is_same
    });
    repeated
}

/// What names this record among those that have no row.
pub fn extra(record: &Sighting) -> Extra {
    (record.content, record.way == Way::History, record.moment.nominal())
}
