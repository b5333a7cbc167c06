//! Sightings with a time of their own, sixteen bytes each, found by content and time.
//!
//! The key is the content and a bucket of 4,096 ms, so that a look around an instant is a look at two or three keys.
//! Most keys hold one sighting, in the table itself; a storm of equal events gets a list.
//!
//! The table is cut into [`PARTS`]: a part that grows, or is made anew after much of it went, holds twice its room for
//! a moment, and the whole never does.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, Hasher, RandomState};

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
const MANY: u64 = 4;

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

/// How many parts. At the bound of sightings each has 544 KiB; the sizes that it has on the way there are large enough
/// for the allocator to give each back to the system when it is outgrown.
const PARTS: usize = 16;

type Slots = HashMap<u64, Packed, Keyed>;

pub(super) struct Table {
    /// By the upper bits of the key.
    parts: Vec<Slots>,
    /// The lists of keys that hold more than one; a slot with [`MANY`] set names its list.
    lists: Vec<Vec<Packed>>,
    free: Vec<u32>,
    /// How many there are of each way: socket, history.
    counts: [usize; 2],
}

impl Default for Table {
    fn default() -> Self {
        let parts = std::iter::repeat_with(Slots::default).take(PARTS).collect();
        Self { parts, lists: Vec::new(), free: Vec::new(), counts: [0; 2] }
    }
}

impl Table {
    pub fn len(&self) -> usize {
        self.counts[0] + self.counts[1]
    }

    pub fn count(&self, way: Way) -> usize {
        self.counts[way as usize]
    }

    pub fn has(&self, content: u64, time: Millis, way: Way) -> bool {
        self.at(content, bucket(time)).iter().any(|p| p.time() == time && p.way() == way)
    }

    pub fn has_written(&self, content: u64, time: Millis, way: Way) -> bool {
        self.at(content, bucket(time)).contains(&Packed::new(time, way, true))
    }

    pub fn insert(&mut self, content: u64, packed: Packed) {
        self.counts[packed.way() as usize] += 1;
        let key = key(content, bucket(packed.time()));
        let slot = match self.parts[part(key)].entry(key) {
            Entry::Vacant(vacant) => {
                vacant.insert(packed);
                return;
            }
            Entry::Occupied(occupied) => occupied.into_mut(),
        };
        if slot.0 & MANY != 0 {
            self.lists[(slot.0 >> 16) as usize].push(packed);
            return;
        }
        let list = vec![*slot, packed];
        let index = match self.free.pop() {
            Some(index) => {
                self.lists[index as usize] = list;
                index as usize
            }
            None => {
                self.lists.push(list);
                self.lists.len() - 1
            }
        };
        *slot = Packed((index as u64) << 16 | MANY);
    }

    pub fn remove(&mut self, content: u64, packed: Packed) {
        let key = key(content, bucket(packed.time()));
        let slots = &mut self.parts[part(key)];
        let Some(slot) = slots.get(&key).copied() else { return };
        if slot == packed {
            slots.remove(&key);
            self.counts[packed.way() as usize] -= 1;
        } else if slot.0 & MANY != 0 {
            let list = &mut self.lists[(slot.0 >> 16) as usize];
            if let Some(index) = list.iter().position(|p| *p == packed) {
                list.remove(index);
                self.counts[packed.way() as usize] -= 1;
            }
        }
    }

    /// Visits the content's sightings from `from` to `to`, and those beyond that hang on to them: as long as a visited
    /// one for which `visit` holds lies within `link` of the edge, the edge moves.
    pub fn chain(&self, content: u64, from: Millis, to: Millis, link: i64, mut visit: impl FnMut(Packed) -> bool) {
        let (mut low, mut high) = (bucket(from), bucket(to));
        let (first, last) = (low - CHAIN_BUCKETS_MAX, high + CHAIN_BUCKETS_MAX);
        let (mut earliest, mut latest) = (from + link, to - link);
        let mut look = |b: i64, earliest: &mut i64, latest: &mut i64| {
            for packed in self.at(content, b) {
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
        let mut stays = |slot: &mut Packed| {
            if slot.0 & MANY == 0 {
                let kept = keep(*slot);
                counts[slot.way() as usize] += usize::from(kept);
                return kept;
            }
            let index = (slot.0 >> 16) as usize;
            let list = &mut lists[index];
            list.retain(|p| keep(*p));
            for packed in list.iter() {
                counts[packed.way() as usize] += 1;
            }
            if list.len() > 1 {
                return true;
            }
            free.push(index as u32);
            let last = std::mem::take(list).pop();
            if let Some(packed) = last {
                *slot = packed;
            }
            last.is_some()
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
    }

    /// Some of the times, whichever.
    pub fn sample(&self) -> Vec<Millis> {
        let times = self.parts.iter().flat_map(Slots::values).filter(|slot| slot.0 & MANY == 0).map(|slot| slot.time());
        times.chain(self.lists.iter().flatten().map(|p| p.time())).take(4096).collect()
    }

    fn at(&self, content: u64, bucket: i64) -> &[Packed] {
        let key = key(content, bucket);
        match self.parts[part(key)].get(&key) {
            None => &[],
            Some(slot) if slot.0 & MANY != 0 => &self.lists[(slot.0 >> 16) as usize],
            Some(slot) => std::slice::from_ref(slot),
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
