//! Sightings with a time of their own, found by content and time.
//!
//! The key is the content and a bucket of 4,096 ms, so that a look around an instant is a look at two or three keys. The
//! two sightings of an event, one of each way, stand in the table itself, sixteen bytes for both; a storm of equal events
//! gets a list.
//!
//! The table is cut into [`PARTS`]: a part that grows, or is made anew after much of it went, holds twice its room for
//! a moment, and the whole never does.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Deref;

use super::Way;
use crate::clock::Millis;

const BUCKET_BITS: u32 = 12;

/// How many buckets a chain of neighbours may cross, each way: 16 s of equal events less than two seconds apart.
const CHAIN_BUCKETS_MAX: i64 = 4;

/// A time, a way, and whether it is written: one word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Packed(u64);

const HISTORY: u64 = 1;
const WRITTEN: u64 = 2;
/// Way and whether it is written.
const FLAGS: u64 = 3;

impl Packed {
    pub fn new(time: Millis, way: Way, written: bool) -> Self {
        let way = if way == Way::History { HISTORY } else { 0 };
        Self((time.max(0) as u64) << 16 | way | if written { WRITTEN } else { 0 })
    }

    pub fn time(self) -> Millis {
        (self.0 >> 16) as Millis
    }

    pub fn way(self) -> Way {
        if self.0 & HISTORY != 0 { Way::History } else { Way::Socket }
    }

    pub fn written(self) -> bool {
        self.0 & WRITTEN != 0
    }
}

/// What stands under a key: one sighting or two, by their places in the bucket; or the number of a list.
#[derive(Clone, Copy)]
struct Slot(u64);

/// Bits of a sighting in a slot: its place in the bucket, and its flags.
const PLACE_BITS: u32 = BUCKET_BITS + 2;
/// Bits of a slot's bucket, which is above its two places: enough until 2109.
const SLOT_BUCKET_BITS: u32 = 30;
const TWO: u64 = 1 << 62;
const LIST: u64 = 1 << 63;

impl Slot {
    fn list(number: usize) -> Self {
        Self(LIST | number as u64)
    }

    /// `None`: its time does not fit.
    fn one(packed: Packed) -> Option<Self> {
        let bucket = bucket(packed.time()) as u64;
        (bucket >> SLOT_BUCKET_BITS == 0).then(|| Self(bucket << (2 * PLACE_BITS) | Self::place(packed)))
    }

    fn two(first: Packed, second: Packed) -> Option<Self> {
        Self::one(first).map(|slot| Self(slot.0 | TWO | Self::place(second) << PLACE_BITS))
    }

    /// As few as fit; the others need a list.
    fn of(few: &[Packed]) -> Option<Self> {
        match few {
            [one] => Self::one(*one),
            [first, second] => Self::two(*first, *second),
            _ => None,
        }
    }

    fn place(packed: Packed) -> u64 {
        ((packed.time() as u64) & ((1 << BUCKET_BITS) - 1)) << 2 | packed.0 & FLAGS
    }

    fn list_number(self) -> Option<usize> {
        (self.0 & LIST != 0).then_some((self.0 & !LIST) as usize)
    }

    fn few(self) -> Found<'static> {
        let begin = self.0 >> (2 * PLACE_BITS) & ((1 << SLOT_BUCKET_BITS) - 1);
        let packed = |place: u64| {
            let place = place & ((1 << PLACE_BITS) - 1);
            Packed((begin << BUCKET_BITS | place >> 2) << 16 | place & FLAGS)
        };
        Found::Few([packed(self.0), packed(self.0 >> PLACE_BITS)], 1 + usize::from(self.0 & TWO != 0))
    }
}

/// The sightings under a key.
enum Found<'a> {
    Few([Packed; 2], usize),
    List(&'a [Packed]),
}

impl Deref for Found<'_> {
    type Target = [Packed];

    fn deref(&self) -> &[Packed] {
        match self {
            Found::Few(few, count) => &few[..*count],
            Found::List(list) => list,
        }
    }
}

/// How many parts. At the bound of sightings each has 272 KiB; the sizes that it has on the way there are large enough
/// for the allocator to give each back to the system when it is outgrown.
const PARTS: usize = 16;

type Slots = HashMap<u64, Slot, Keyed>;

pub(super) struct Table {
    /// By the upper bits of the key.
    parts: Vec<Slots>,
    /// The lists of keys that hold more than two, or times that do not fit.
    lists: Vec<Vec<Packed>>,
    free: Vec<u32>,
    /// How many there are of each way: socket, history.
    counts: [usize; 2],
    /// How many stand in lists.
    listed: usize,
}

impl Default for Table {
    fn default() -> Self {
        let parts = std::iter::repeat_with(Slots::default).take(PARTS).collect();
        Self { parts, lists: Vec::new(), free: Vec::new(), counts: [0; 2], listed: 0 }
    }
}

impl Table {
    pub fn len(&self) -> usize {
        self.counts[0] + self.counts[1]
    }

    /// The room that is taken, in slots: the two sightings of an event share one.
    pub fn room(&self) -> usize {
        self.parts.iter().map(Slots::len).sum::<usize>() + self.listed
    }

    pub fn count(&self, way: Way) -> usize {
        self.counts[way as usize]
    }

    /// `None`: it has no sighting of this time and way. Else, whether a record of this very time is written, whichever
    /// way it came.
    pub fn known(&self, content: u64, time: Millis, way: Way) -> Option<bool> {
        let (mut is_known, mut is_written) = (false, false);
        for packed in self.at(content, bucket(time)).iter().filter(|p| p.time() == time) {
            is_known |= packed.way() == way;
            is_written |= packed.written();
        }
        is_known.then_some(is_written)
    }

    pub fn has_written(&self, content: u64, time: Millis, way: Way) -> bool {
        self.at(content, bucket(time)).contains(&Packed::new(time, way, true))
    }

    pub fn insert(&mut self, content: u64, packed: Packed) {
        self.counts[packed.way() as usize] += 1;
        let key = key(content, bucket(packed.time()));
        let mut keep = |list: Vec<Packed>| {
            self.listed += list.len();
            keep_list(&mut self.lists, &mut self.free, list)
        };
        let slot = match self.parts[part(key)].entry(key) {
            Entry::Vacant(vacant) => {
                vacant.insert(Slot::one(packed).unwrap_or_else(|| keep(vec![packed])));
                return;
            }
            Entry::Occupied(occupied) => occupied.into_mut(),
        };
        if let Some(number) = slot.list_number() {
            self.lists[number].push(packed);
            self.listed += 1;
            return;
        }
        let mut all = slot.few().to_vec();
        all.push(packed);
        *slot = Slot::of(&all).unwrap_or_else(|| keep(all));
    }

    pub fn remove(&mut self, content: u64, packed: Packed) {
        let key = key(content, bucket(packed.time()));
        let slots = &mut self.parts[part(key)];
        let Some(slot) = slots.get_mut(&key) else { return };
        let mut few;
        let left = match slot.list_number() {
            Some(number) => &mut self.lists[number],
            None => {
                few = slot.few().to_vec();
                &mut few
            }
        };
        let Some(index) = left.iter().position(|other| *other == packed) else { return };
        left.remove(index);
        self.counts[packed.way() as usize] -= 1;
        let is_empty = left.is_empty();
        if let Some(number) = slot.list_number() {
            self.listed -= 1;
            if is_empty {
                self.free.push(number as u32);
            }
        } else if let Some(fewer) = Slot::of(left) {
            *slot = fewer;
        }
        if is_empty {
            slots.remove(&key);
        }
    }

    /// Visits the content's sightings from `from` to `to`, and those beyond that hang on to them: as long as a visited
    /// one for which `visit` holds lies within `link` of the edge, the edge moves.
    pub fn chain(&self, content: u64, from: Millis, to: Millis, link: i64, mut visit: impl FnMut(Packed) -> bool) {
        let (mut low, mut high) = (bucket(from), bucket(to));
        let (first, last) = (low - CHAIN_BUCKETS_MAX, high + CHAIN_BUCKETS_MAX);
        let (mut earliest, mut latest) = (from + link, to - link);
        let mut look = |b: i64, earliest: &mut i64, latest: &mut i64| {
            for packed in self.at(content, b).iter() {
                if visit(*packed) {
                    *earliest = (*earliest).min(packed.time());
                    *latest = (*latest).max(packed.time());
                }
            }
        };
        for b in low..=high {
            look(b, &mut earliest, &mut latest);
        }
        loop {
            if bucket(earliest - link) < low && low > first {
                low -= 1;
                look(low, &mut earliest, &mut latest);
            } else if bucket(latest + link) > high && high < last {
                high += 1;
                look(high, &mut earliest, &mut latest);
            } else {
                return;
            }
        }
    }

    pub fn retain(&mut self, keep: impl Fn(Packed) -> bool) {
        let (lists, free) = (&mut self.lists, &mut self.free);
        let mut counts = [0; 2];
        let mut stays = |slot: &mut Slot| {
            let mut few = [Packed(0); 2];
            let mut count = 0;
            let mut note = |packed: Packed| counts[packed.way() as usize] += 1;
            if let Some(number) = slot.list_number() {
                let list = &mut lists[number];
                list.retain(|packed| keep(*packed));
                list.iter().copied().for_each(note);
                if let Some(fewer) = Slot::of(list) {
                    *slot = fewer;
                } else if !list.is_empty() {
                    return true;
                }
                free.push(number as u32);
                return !std::mem::take(list).is_empty();
            }
            for packed in slot.few().iter().filter(|packed| keep(**packed)) {
                note(*packed);
                few[count] = *packed;
                count += 1;
            }
            Slot::of(&few[..count]).map(|fewer| *slot = fewer).is_some()
        };
        for slots in &mut self.parts {
            let before = slots.len();
            slots.retain(|_, slot| stays(slot));
            // The places of what went are not all free again until the part is made anew; with too few free places it
            // would grow although it has room.
            if slots.len() < before {
                let mut anew = Slots::with_capacity_and_hasher(slots.len(), slots.hasher().clone());
                anew.extend(slots.drain());
                *slots = anew;
            }
        }
        self.counts = counts;
        self.listed = self.lists.iter().map(Vec::len).sum();
    }

    /// Some of the times, whichever.
    pub fn sample(&self) -> Vec<Millis> {
        let few = self.parts.iter().flat_map(Slots::values).filter(|slot| slot.list_number().is_none());
        let times = few.flat_map(|slot| slot.few().first().map(|packed| packed.time()));
        times.chain(self.lists.iter().flatten().map(|p| p.time())).take(4096).collect()
    }

    /// The newest of all times.
    pub fn newest(&self) -> Option<Millis> {
        let few = self.parts.iter().flat_map(Slots::values).filter(|slot| slot.list_number().is_none());
        let times = few.filter_map(|slot| slot.few().iter().map(|packed| packed.time()).max());
        times.chain(self.lists.iter().flatten().map(|packed| packed.time())).max()
    }

    fn at(&self, content: u64, bucket: i64) -> Found<'_> {
        let key = key(content, bucket);
        match self.parts[part(key)].get(&key) {
            None => Found::List(&[]),
            Some(slot) => slot.list_number().map_or_else(|| slot.few(), |number| Found::List(&self.lists[number])),
        }
    }
}

/// Puts a list where there is a free place, and says where.
fn keep_list(lists: &mut Vec<Vec<Packed>>, free: &mut Vec<u32>, list: Vec<Packed>) -> Slot {
    match free.pop() {
        Some(number) => {
            lists[number as usize] = list;
            Slot::list(number as usize)
        }
        None => {
            lists.push(list);
            Slot::list(lists.len() - 1)
        }
    }
}

fn bucket(time: Millis) -> i64 {
    time.max(0) >> BUCKET_BITS
}

fn key(content: u64, bucket: i64) -> u64 {
    content ^ (bucket as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn part(key: u64) -> usize {
    (key >> 32) as usize % PARTS
}

/// Contents are hashes already: one multiplication by a secret of this process keeps anyone from aiming at a slot.
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
        for b in bytes {
            self.write_u64(u64::from(*b) ^ self.hash);
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

    const NOW: Millis = 1_795_430_640_000;

    #[test]
    fn whatever_the_time_a_sighting_is_found_and_goes_alone() {
        // Within a bucket, at its edges, in the year 2300, and before 1970.
        let times = [NOW, NOW + 1, NOW + 4_095, NOW + 4_096, 10_413_792_000_000, 10_413_792_000_001, 0, -5];
        for count in 1..=times.len() {
            let mut table = Table::default();
            let all: Vec<Packed> = [Way::Socket, Way::History]
                .into_iter()
                .flat_map(|way| times[..count].iter().map(move |time| Packed::new(*time, way, way == Way::Socket)))
                .collect();
            let has = |table: &Table, p: &Packed| table.known(7, p.time(), p.way()).is_some();
            for packed in &all {
                table.insert(7, *packed);
            }
            assert!(all.iter().all(|packed| has(&table, packed)));
            assert!(all.iter().all(|p| table.has_written(7, p.time(), p.way()) == p.written()));
            assert_eq!((table.known(8, times[0], Way::Socket), table.known(7, NOW + 2, Way::Socket)), (None, None));
            let (gone, stays) = all.split_at(all.len() / 2);
            for packed in gone {
                table.remove(7, *packed);
            }
            assert_eq!((table.len(), table.count(Way::Socket)), (stays.len(), 0));
            assert!(stays.iter().all(|packed| has(&table, packed)) && !gone.iter().any(|packed| has(&table, packed)));
            table.retain(|packed| packed.time() > NOW);
            assert!(stays.iter().all(|packed| has(&table, packed) == (packed.time() > NOW)));
            assert_eq!(table.len(), stays.iter().filter(|packed| packed.time() > NOW).count());
        }
    }

    #[test]
    fn a_storm_of_equal_events_leaves_no_list_behind() {
        let mut table = Table::default();
        for n in 0..1_000 {
            table.insert(7, Packed::new(NOW + n, Way::Socket, true));
        }
        for n in 0..500 {
            table.remove(7, Packed::new(NOW + n, Way::Socket, true));
        }
        table.retain(|packed| packed.time() >= NOW + 999);
        assert_eq!(table.len(), 1);
        assert!(table.lists.iter().all(Vec::is_empty) && table.free.len() == table.lists.len());
        assert_eq!((table.listed, table.room()), (0, 1));
        assert!(table.has_written(7, NOW + 999, Way::Socket));
    }
}
