//! A bounded index of records by content: all recent ones in the running collector, or those of a span of the files.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, Hasher, RandomState};

use super::{Range, Record, Source, TOLERANCE_MS};
use crate::clock::Millis;

/// Maximum number of records in the collector's index: about 5 MiB.
pub const RECORDS_MAX: usize = 220_000;

/// A record in one word. Sorts by source, then records with a time of their own before those without, then by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Packed(u64);

/// Set in a map value that is the number of a list of records instead of a record.
const LIST: u64 = 1 << 63;
const HISTORY: u64 = 1 << 62;
const UNTIMED: u64 = 1 << 61;
const TIME: u64 = UNTIMED - 1;

impl Packed {
    fn new(record: Record) -> Self {
        let history = if record.source == Source::History { HISTORY } else { 0 };
        let untimed = if record.timed { 0 } else { UNTIMED };
        Self(history | untimed | record.at.max(0) as u64 & TIME)
    }

    fn at(self) -> Millis {
        (self.0 & TIME) as Millis
    }

    fn record(self) -> Record {
        let source = if self.0 & HISTORY == 0 { Source::Socket } else { Source::History };
        Record { at: self.at(), timed: self.0 & UNTIMED == 0, source }
    }
}

/// The records of one kind that may belong to an event at this time.
fn near(sorted: &[Packed], source: Source, timed: bool, time: Range, row_delay_ms: i64) -> &[Packed] {
    // Any record whose range overlaps `time` lies between these two.
    let reach = Record { at: 0, timed, source }.range(row_delay_ms);
    let bound = |at: Millis| Packed::new(Record { at, timed, source });
    let (first, last) = (bound(time.from - reach.to), bound(time.to - reach.from));
    let from = sorted.partition_point(|packed| *packed < first);
    let to = sorted.partition_point(|packed| *packed <= last);
    &sorted[from..to]
}

/// Records by content. Most contents have one record, which is stored in the map itself.
pub struct Index {
    slots: HashMap<u64, Packed, Keyed>,
    /// The records of each content that has more than one, sorted.
    lists: Vec<Vec<Packed>>,
    free: Vec<usize>,
    len: usize,
    max: usize,
    /// The index has every record of the files from this instant on.
    complete_since: Millis,
    /// It has them up to this instant, which is later than any record in the collector's own index.
    complete_until: Millis,
    row_delay_ms: i64,
}

impl Index {
    /// `max`: the number of records above which the oldest are forgotten. `row_delay_ms`: see [`Record::range`].
    pub fn new(max: usize, row_delay_ms: i64) -> Self {
        Self {
            slots: HashMap::default(),
            lists: Vec::new(),
            free: Vec::new(),
            len: 0,
            max,
            complete_since: Millis::MIN,
            complete_until: Millis::MAX,
            row_delay_ms,
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The index has every record of the files from this instant on; older ones may have been forgotten.
    pub fn complete_since(&self) -> Millis {
        self.complete_since
    }

    /// Records how far back this index was filled.
    pub fn filled_since(&mut self, instant: Millis) {
        self.complete_since = self.complete_since.max(instant);
    }

    /// Records up to when this index was filled.
    pub fn filled_until(&mut self, instant: Millis) {
        self.complete_until = instant;
    }

    /// Adds a record. Returns whether it is new. If the index is full, the oldest eighth is forgotten first.
    pub fn insert(&mut self, content: u64, record: Record) -> bool {
        if self.len >= self.max {
            self.forget_oldest();
        }
        let packed = Packed::new(record);
        match self.slots.entry(content) {
            Entry::Vacant(vacant) => _ = vacant.insert(packed),
            Entry::Occupied(occupied) => {
                let slot = occupied.into_mut();
                if slot.0 & LIST != 0 {
                    let list = &mut self.lists[(slot.0 & !LIST) as usize];
                    let Err(place) = list.binary_search(&packed) else { return false };
                    list.insert(place, packed);
                } else if *slot == packed {
                    return false;
                } else {
                    let both = vec![packed.min(*slot), packed.max(*slot)];
                    *slot = Self::keep_list(&mut self.lists, &mut self.free, both);
                }
            }
        }
        self.len += 1;
        true
    }

    fn keep_list(lists: &mut Vec<Vec<Packed>>, free: &mut Vec<usize>, list: Vec<Packed>) -> Packed {
        let number = free.pop().unwrap_or_else(|| {
            lists.push(Vec::new());
            lists.len() - 1
        });
        lists[number] = list;
        Packed(LIST | number as u64)
    }

    fn of(&self, content: u64) -> &[Packed] {
        match self.slots.get(&content) {
            None => &[],
            Some(slot) if slot.0 & LIST != 0 => &self.lists[(slot.0 & !LIST) as usize],
            Some(slot) => std::slice::from_ref(slot),
        }
    }

    /// The first instant from `received` on at which this content and source has no untimed record: two receipts in the
    /// same millisecond must not get the same id.
    pub fn free_receipt(&self, content: u64, source: Source, received: Millis) -> Millis {
        let first = Packed::new(Record { at: received, timed: false, source });
        let records = self.of(content);
        let later = &records[records.partition_point(|packed| *packed < first)..];
        // The records are sorted and unique, so those without a gap come first.
        let (mut taken, mut free) = (0, later.len());
        while taken < free {
            let middle = taken + (free - taken) / 2;
            if later[middle].0 == first.0 + middle as u64 { taken = middle + 1 } else { free = middle }
        }
        received + taken as Millis
    }

    /// Forgets the records before this instant.
    pub fn forget_before(&mut self, instant: Millis) {
        let before = self.len;
        let (lists, free, mut len) = (&mut self.lists, &mut self.free, 0);
        self.slots.retain(|_, slot| {
            if slot.0 & LIST == 0 {
                let stays = slot.at() >= instant;
                len += usize::from(stays);
                return stays;
            }
            let number = (slot.0 & !LIST) as usize;
            lists[number].retain(|packed| packed.at() >= instant);
            len += lists[number].len();
            if lists[number].is_empty() {
                lists[number] = Vec::new();
                free.push(number);
            }
            !lists[number].is_empty()
        });
        self.len = len;
        if len < before {
            self.complete_since = self.complete_since.max(instant);
            // Rebuild the table at its new size: the tombstones of removed entries would make the old one grow.
            self.slots = std::mem::take(&mut self.slots).into_iter().collect();
        }
    }

    fn forget_oldest(&mut self) {
        let singles = self.slots.values().filter(|slot| slot.0 & LIST == 0);
        let mut times: Vec<Millis> = singles.chain(self.lists.iter().flatten()).map(|packed| packed.at()).collect();
        let eighth = times.len() / 8;
        let (_, oldest, _) = times.select_nth_unstable(eighth);
        let instant = *oldest + 1;
        drop(times);
        self.forget_before(instant);
    }

    /// Whether any content has records of different times in this range: only the rows can tell such events apart.
    pub fn has_like_events(&self, range: Range) -> bool {
        self.lists.iter().any(|list| {
            let mut times = list.iter().map(|packed| packed.at()).filter(|at| (range.from..=range.to).contains(at));
            times.next().is_some_and(|first| times.any(|at| at != first))
        })
    }

    /// All contents that have records.
    pub fn contents(&self) -> impl Iterator<Item = u64> {
        self.slots.keys().copied()
    }
}

/// The known records of the files: the collector's index and, for a span older than it covers, an index read from the
/// files.
#[derive(Clone, Copy)]
pub struct Records<'a> {
    pub index: &'a Index,
    pub from_files: Option<&'a Index>,
}

impl<'a> Records<'a> {
    /// Whether all records that a row at this time could match are known.
    pub fn reach(&self, from: Millis) -> bool {
        let since = from.saturating_sub(2 * TOLERANCE_MS);
        let reaches = |index: &Index| index.complete_since <= since && from <= index.complete_until;
        reaches(self.index) || self.from_files.is_some_and(reaches)
    }

    /// The records of this content that may belong to events at this time.
    pub fn near(&self, content: u64, time: Range) -> Vec<Record> {
        let mut records = Vec::new();
        for (index, source, timed) in self.kinds() {
            records.extend_from_slice(near(index.of(content), source, timed, time, index.row_delay_ms));
        }
        records.sort_unstable();
        records.dedup();
        records.into_iter().map(Packed::record).collect()
    }

    /// Each index, with each kind of record.
    fn kinds(&self) -> impl Iterator<Item = (&'a Index, Source, bool)> {
        const KINDS: [(Source, bool); 4] =
            [(Source::Socket, true), (Source::Socket, false), (Source::History, true), (Source::History, false)];
        let indexes = [Some(self.index), self.from_files].into_iter().flatten();
        indexes.flat_map(|index| KINDS.map(|(source, timed)| (index, source, timed)))
    }

    /// Judges a row with a time of its own, if possible without the other rows of its content.
    pub fn quick(&self, content: u64, at: Millis) -> Quick {
        let exactly = |source| Packed::new(Record { at, timed: true, source });
        let (mut may_match, mut has_exact) = (false, false);
        for index in [Some(self.index), self.from_files].into_iter().flatten() {
            let records = index.of(content);
            if records.binary_search(&exactly(Source::History)).is_ok() {
                return Quick::Known;
            }
            let [timed, untimed] =
                [true, false].map(|timed| near(records, Source::Socket, timed, Range::at(at), index.row_delay_ms));
            may_match |= !timed.is_empty() || !untimed.is_empty();
            has_exact |= timed.binary_search(&exactly(Source::Socket)).is_ok();
        }
        // Pairs of equal times are matched first, and matching more rows never leaves a matched row without a record.
        match (has_exact, may_match) {
            (true, _) => Quick::Matched,
            (false, true) => Quick::Ask,
            (false, false) => Quick::Missing,
        }
    }

    /// Whether the file has this frame or the row of its event. `time` is the event's own time or the receipt's range.
    /// `history_works`: while the history cannot be read, only a record of exactly the same time counts, because no row
    /// would follow.
    pub fn has_frame(&self, content: u64, time: Range, timed: bool, history_works: bool) -> bool {
        let records = self.index.of(content);
        let has_equal = |source| {
            let equal = Packed::new(Record { at: time.from, timed: true, source });
            records.binary_search(&equal).is_ok()
        };
        let is_repeated = timed && (has_equal(Source::Socket) || has_equal(Source::History));
        let has_row = |timed| !near(records, Source::History, timed, time, self.index.row_delay_ms).is_empty();
        is_repeated || history_works && (has_row(true) || has_row(false))
    }

    pub fn row_delay_ms(&self) -> i64 {
        self.index.row_delay_ms
    }
}

/// The result of [`Records::quick`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quick {
    /// The file has the row as a history record.
    Known,
    /// Its socket record has exactly its time, so no other row may be matched with that record.
    Matched,
    /// No record can belong to its event.
    Missing,
    /// It must be matched together with the other rows of its content.
    Ask,
}

/// Contents are hashes already. One multiplication by a per-process secret keeps anyone from choosing slots.
#[derive(Clone)]
struct Keyed(u64);

impl Default for Keyed {
    fn default() -> Self {
        Self(RandomState::new().build_hasher().finish() | 1)
    }
}

impl BuildHasher for Keyed {
    type Hasher = KeyedHasher;

    fn build_hasher(&self) -> KeyedHasher {
        KeyedHasher { secret: self.0, hash: 0 }
    }
}

struct KeyedHasher {
    secret: u64,
    hash: u64,
}

impl Hasher for KeyedHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte) ^ self.hash);
        }
    }

    fn write_u64(&mut self, key: u64) {
        let product = u128::from(key) * u128::from(self.secret);
        self.hash = (product as u64) ^ (product >> 64) as u64;
    }

    fn finish(&self) -> u64 {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(at: Millis, timed: bool, source: Source) -> Record {
        Record { at, timed, source }
    }

    #[test]
    fn receipts_without_a_gap_are_passed_over_and_a_gap_is_used() {
        let mut index = Index::new(1_000, 0);
        assert_eq!(index.free_receipt(1, Source::Socket, 50), 50);
        for at in (50..150).chain(152..200) {
            assert!(index.insert(1, record(at, false, Source::Socket)));
        }
        index.insert(1, record(150, true, Source::Socket));
        index.insert(1, record(150, false, Source::History));
        let free = [49, 50, 149, 150, 151, 152, 300].map(|at| index.free_receipt(1, Source::Socket, at));
        assert_eq!(free, [49, 150, 150, 150, 151, 200, 300]);
        assert_eq!(index.free_receipt(1, Source::History, 150), 151);
    }

    #[test]
    fn a_frame_of_exactly_the_time_of_a_row_is_known_though_the_history_fails() {
        let mut index = Index::new(1_000, 0);
        index.insert(1, record(5_000, true, Source::History));
        let records = Records { index: &index, from_files: None };
        let has = |at, works| records.has_frame(1, Range::at(at), true, works);
        assert_eq!(
            [has(5_000, false), has(5_001, false), has(5_001, true), has(7_001, true)],
            [true, false, true, false]
        );
    }
}
