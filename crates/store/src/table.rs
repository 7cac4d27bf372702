//! The shared object table: open addressing, one slot of 64 bytes for each object.
//!
//! An object lies at its home slot (a hash of its id) or after it. Slots are claimed by compare-and-swap and freed by
//! the daemon at any time, so there are no tombstones: each slot keeps, in a word of its own, how far from it objects
//! whose home it is were ever put, and a search looks no farther.
//!
//! The table begins small and doubles: objects stay where they are, and each id has one home in every region that was
//! added. The daemon reserves a region's memory before it says in the header that the region is in use, and nobody
//! touches a slot before that.

use std::sync::atomic::Ordering;

use heliostat_proto::{Locator, ObjectId};
use heliostat_shm::map::{MapError, ReadMap, WordMap};
use heliostat_shm::memfd::Memfd;

use crate::layout::{FIRST_SLOTS, MAX_PROBE, Phase, SLOT, State, header};
use crate::protocol::{self, Word};
use crate::word::Shared;

#[derive(Debug)]
pub(crate) struct Table {
    map: WordMap,
    header: ReadMap,
    slots: u64,
}

/// A part of the table that was added at once.
#[derive(Debug, Clone, Copy)]
struct Region<'a> {
    map: &'a WordMap,
    start: u64,
    /// A power of two.
    size: u64,
}

/// One slot, known to lie inside the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot<'a> {
    map: &'a WordMap,
    pub(crate) index: u32,
}

/// What a slot says about its object: untrusted until compared with the state before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) id: ObjectId,
    /// Seat of the owner, or 0.
    pub(crate) owner: u32,
    pub(crate) whole_pages: bool,
    /// Must not be spilled.
    pub(crate) stays: bool,
    /// Where the offset counts: 0 the memory, 1 the file.
    pub(crate) segment: u32,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl Table {
    /// Maps the table; `slots` must be a power of two up to 2^32 and fit the file. How many of them are in use stands
    /// in the header.
    pub(crate) fn new(memfd: &Memfd, header: ReadMap, slots: u64) -> Result<Self, MapError> {
        if !slots.is_power_of_two() || slots > 1 << 32 || memfd.size() < slots * SLOT {
            return Err(MapError { length: memfd.size(), source: std::io::ErrorKind::InvalidInput.into() });
        }
        Ok(Self { map: WordMap::new(memfd)?, header, slots })
    }

    /// How many slots are in use now: all memory of the table that may be touched.
    #[inline]
    pub(crate) fn active(&self) -> u64 {
        let active = self.header.load(header::ACTIVE, Ordering::Acquire).unwrap_or(0);
        active.min(self.slots)
    }

    /// A slot by its number; `None` if there is no such one.
    #[inline]
    pub(crate) fn slot(&self, index: u32) -> Option<Slot<'_>> {
        (u64::from(index) < self.active()).then_some(Slot { map: &self.map, index })
    }

    /// Copies every word of the slots in use to another table.
    #[cfg(test)]
    pub(crate) fn copy_to(&self, other: &Self) {
        for index in 0..self.active() as u32 {
            let (from, to) = (Slot { map: &self.map, index }, Slot { map: &other.map, index });
            (0..8).for_each(|number| {
                to.word(number).0.store(from.word(number).load(Ordering::Acquire), Ordering::Relaxed);
            });
        }
    }

    /// The slots on pages that were ever touched.
    pub(crate) fn touched(&self, file: &Memfd) -> std::io::Result<Vec<Slot<'_>>> {
        let (mut slots, mut from) = (Vec::new(), 0);
        while let Some(range) = file.next_touched(from)? {
            from = range.end;
            slots.extend((range.start / SLOT..range.end / SLOT).filter_map(|index| self.slot(index as u32)));
        }
        Ok(slots)
    }

    /// The regions of the table as it is now, the newest first: each is as large as all before it.
    fn regions(&self) -> impl Iterator<Item = Region<'_>> {
        let mut end = self.active();
        std::iter::from_fn(move || {
            let start = if end > FIRST_SLOTS { end / 2 } else { 0 };
            let region = Region { map: &self.map, start, size: end - start };
            end = start;
            (region.size > 0).then_some(region)
        })
    }

    /// Claims a free slot for `seat` within `limit` slots from its home in one of the regions. `before` is told each
    /// candidate and its generation just before the attempt.
    pub(crate) fn claim(
        &self,
        id: &ObjectId,
        seat: u32,
        limit: u64,
        mut before: impl FnMut(u32, u32),
    ) -> Option<(Slot<'_>, State)> {
        let hash = hash(id);
        for region in self.regions() {
            for (step, slot) in region.probe(hash, limit.min(MAX_PROBE)).enumerate() {
                let note = |generation| before(slot.index, generation);
                let Some(claimed) = protocol::claim(&slot.state(), seat, note) else { continue };
                let reach = region.reach(hash);
                // Before the object is sealed, so that whoever can see it looks far enough.
                if reach.load(Ordering::Relaxed) < step as u64 {
                    reach.raise(step as u64);
                }
                return Some((slot, claimed));
            }
        }
        None
    }

    /// A sealed object with this id, spilled or not. If several attempts made it, any one of them.
    pub(crate) fn lookup(&self, id: &ObjectId) -> Option<Locator> {
        let hash = hash(id);
        self.regions().find_map(|region| {
            let reach = region.reach(hash).load(Ordering::Acquire).min(MAX_PROBE - 1);
            region.probe(hash, reach + 1).find_map(|slot| {
                let (state, record) = slot.read_consistent()?;
                (matches!(state.phase, Phase::Sealed | Phase::Spilled) && record.id == *id)
                    .then(|| slot.locator(state, &record))
            })
        })
    }
}

impl<'a> Region<'a> {
    /// The slots at which an object may lie, in order of preference.
    fn probe(&self, hash: u64, count: u64) -> impl Iterator<Item = Slot<'a>> + use<'a> {
        let Region { map, start, size } = *self;
        let home = hash & (size - 1);
        (0..count.min(size)).map(move |step| Slot { map, index: (start + ((home + step) & (size - 1))) as u32 })
    }

    /// How far from its home any object of this home lies.
    fn reach(&self, hash: u64) -> Shared<'a> {
        Slot { map: self.map, index: (self.start + (hash & (self.size - 1))) as u32 }.word(7)
    }
}

impl<'a> Slot<'a> {
    #[inline]
    fn word(&self, number: u64) -> Shared<'a> {
        let word = self.map.word(u64::from(self.index) * SLOT + number * 8);
        Shared(word.expect("slots are checked to lie inside the table"))
    }

    #[inline]
    pub(crate) fn state(&self) -> Shared<'a> {
        self.word(0)
    }

    #[inline]
    pub(crate) fn load(&self, order: Ordering) -> Option<State> {
        State::unpack(self.state().load(order))
    }

    /// Writes all but the state; only the one who claimed the slot does.
    pub(crate) fn write(&self, record: &Record) {
        let id = &record.id.0;
        for (number, bytes) in id[..24].chunks_exact(8).enumerate() {
            let word = u64::from_le_bytes(bytes.try_into().expect("chunks of 8 bytes"));
            self.word(1 + number as u64).store(word, Ordering::Relaxed);
        }
        let index = u32::from_le_bytes(id[24..].try_into().expect("4 of 28 bytes"));
        let meta = u64::from(index) | u64::from(record.owner) << 32 | u64::from(record.whole_pages) << 56;
        let meta = meta | u64::from(record.stays) << 57 | u64::from(record.segment & 1) << 58;
        self.word(4).store(meta, Ordering::Relaxed);
        self.place(record.offset, record.length);
    }

    /// Writes another owner; only the one who claimed the slot does, until it is sealed, and the daemon from then on.
    pub(crate) fn set_owner(&self, owner: u32) {
        let rest = self.word(4).load(Ordering::Relaxed) & !(u64::from(crate::layout::MAX_SEAT) << 32);
        self.word(4).store(rest | u64::from(owner) << 32, Ordering::Relaxed);
    }

    /// Writes that the object must stay in memory; only the one who claimed the slot does, until it is sealed.
    pub(crate) fn set_stays(&self) {
        let word = self.word(4);
        word.store(word.load(Ordering::Relaxed) | 1 << 57, Ordering::Relaxed);
    }

    /// Writes in which segment the bytes are; only the daemon does, of an object without memory.
    pub(crate) fn set_segment(&self, segment: u32) {
        let word = self.word(4);
        word.store(word.load(Ordering::Relaxed) & !(1 << 58) | u64::from(segment & 1) << 58, Ordering::Relaxed);
    }

    /// Writes where the bytes are.
    pub(crate) fn place(&self, offset: u64, length: u64) {
        self.word(5).store(offset, Ordering::Relaxed);
        self.word(6).store(length, Ordering::Relaxed);
    }

    /// Reads each word once.
    pub(crate) fn read(&self) -> Record {
        let word = |number| self.word(number).load(Ordering::Relaxed);
        let mut id = [0; 28];
        for number in 0..3 {
            id[number * 8..][..8].copy_from_slice(&word(1 + number as u64).to_le_bytes());
        }
        let meta = word(4);
        id[24..].copy_from_slice(&(meta as u32).to_le_bytes());
        Record {
            id: ObjectId(id),
            owner: (meta >> 32) as u32 & crate::layout::MAX_SEAT,
            whole_pages: meta >> 56 & 1 == 1,
            stays: meta >> 57 & 1 == 1,
            segment: (meta >> 58 & 1) as u32,
            offset: word(5),
            length: word(6),
        }
    }

    /// Reads a record that belongs to the state given with it; `None` if the slot changed meanwhile.
    pub(crate) fn read_consistent(&self) -> Option<(State, Record)> {
        protocol::read_consistent(&self.state(), || self.read())
    }

    pub(crate) fn locator(&self, state: State, record: &Record) -> Locator {
        Locator {
            segment: record.segment,
            slot: self.index,
            offset: record.offset,
            length: record.length,
            generation: state.generation,
        }
    }
}

/// All 28 bytes count: ids of one task differ in the last four, those of one process in some before.
fn hash(id: &ObjectId) -> u64 {
    let mut hash = 0x9e37_79b9_7f4a_7c15_u64;
    for bytes in id.0.chunks(8) {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash ^= hash >> 32;
    }
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 29
}

#[cfg(test)]
mod tests {
    use heliostat_proto::{TaskId, WorkerId};

    use super::*;

    fn table(slots: u64) -> Table {
        growing(slots, slots).0
    }

    /// A table and the header to say in how many of its slots are in use.
    fn growing(slots: u64, active: u64) -> (Table, WordMap) {
        let header = Memfd::create("test", 4096).unwrap();
        let words = WordMap::new(&header).unwrap();
        words.word(header::ACTIVE).unwrap().store(active, Ordering::Relaxed);
        let file = Memfd::create("test", slots * SLOT).unwrap();
        (Table::new(&file, ReadMap::new(&header).unwrap(), slots).unwrap(), words)
    }

    fn id(index: u32) -> ObjectId {
        TaskId::root(WorkerId([1; 16])).object(index)
    }

    fn insert(table: &Table, id: ObjectId) -> Option<Locator> {
        let (slot, state) = table.claim(&id, 1, MAX_PROBE, |_, _| {})?;
        slot.write(&Record {
            id,
            owner: 1,
            whole_pages: false,
            stays: false,
            segment: 0,
            offset: u64::from(id.index()) * 64,
            length: 5,
        });
        assert_eq!(table.lookup(&id), None, "unsealed");
        assert!(crate::protocol::advance(&slot.state(), state, Phase::Sealed));
        table.lookup(&id)
    }

    #[test]
    fn a_full_table_finds_all_and_refuses_more() {
        let table = table(256);
        let all: Vec<_> = (0..256).map(|n| insert(&table, id(n)).unwrap()).collect();
        assert!(insert(&table, id(256)).is_none());
        for (n, locator) in all.iter().enumerate() {
            assert_eq!(table.lookup(&id(n as u32)).as_ref(), Some(locator));
        }
        assert_eq!(table.lookup(&id(1000)), None);
    }

    #[test]
    fn freeing_a_slot_hides_none_behind_it() {
        let table = table(64);
        let all: Vec<_> = (0..48).map(|n| insert(&table, id(n)).unwrap()).collect();
        for (n, gone) in all.iter().enumerate() {
            let slot = table.slot(gone.slot).unwrap();
            let state = slot.load(Ordering::Relaxed).unwrap();
            slot.state().store(state.with(Phase::Free).pack(), Ordering::Release);
            assert_eq!(table.lookup(&id(n as u32)), None);
            for (later, locator) in all.iter().enumerate().skip(n + 1) {
                assert_eq!(table.lookup(&id(later as u32)).as_ref(), Some(locator));
            }
        }
        assert_eq!(insert(&table, id(0)).unwrap().generation, 2);
    }

    #[test]
    fn structured_ids_spread_evenly() {
        let slots = 1 << 12;
        let mut load = vec![0_u32; slots];
        for n in 0..slots as u32 {
            load[hash(&id(n)) as usize & (slots - 1)] += 1;
        }
        let empty = load.iter().filter(|n| **n == 0).count() as f64 / slots as f64;
        assert!((0.30..0.43).contains(&empty), "{empty}: an ideal hash leaves 1/e of the slots empty");
    }

    #[test]
    fn slots_outside_are_refused() {
        let table = table(64);
        assert!(table.slot(63).is_some() && table.slot(64).is_none() && table.slot(u32::MAX).is_none());
        let header = ReadMap::new(&Memfd::create("test", 4096).unwrap()).unwrap();
        assert!(Table::new(&Memfd::create("test", 64).unwrap(), header, 2).is_err());
    }

    #[test]
    fn what_came_while_the_table_was_smaller_is_found_in_the_larger_one() {
        let first = FIRST_SLOTS;
        let (table, header) = growing(8 * first, first);
        let mut all = Vec::new();
        for size in [first, 2 * first, 4 * first, 8 * first] {
            header.word(header::ACTIVE).unwrap().store(size, Ordering::Release);
            assert_eq!(table.active(), size);
            assert!(table.slot(size as u32 - 1).is_some() && table.slot(size as u32).is_none());
            while (all.len() as u64) < size / 2 {
                all.push(insert(&table, id(all.len() as u32)).unwrap());
            }
            for (n, locator) in all.iter().enumerate() {
                assert_eq!(table.lookup(&id(n as u32)).as_ref(), Some(locator));
            }
            assert_eq!(table.lookup(&id(u32::MAX)), None);
        }
    }
}
