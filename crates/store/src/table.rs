//! The shared object table: open addressing, one slot of 64 bytes for each object.
//!
//! An object lies at its home slot (a hash of its id) or after it. Slots are claimed by compare-and-swap and freed by
//! the daemon at any time, so there are no tombstones: each slot keeps, in a word of its own, how far from it objects
//! whose home it is were ever put, and a search looks no farther.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use heliostat_proto::{Locator, ObjectId};
use heliostat_shm::map::{MapError, WordMap};
use heliostat_shm::memfd::Memfd;

use crate::layout::{MAX_PROBE, Phase, SLOT, State};

#[derive(Debug)]
pub(crate) struct Table {
    map: WordMap,
    slots: u64,
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
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl Table {
    /// Maps the table; `slots` must be a power of two up to 2^32 and fit the file.
    pub(crate) fn new(memfd: &Memfd, slots: u64) -> Result<Self, MapError> {
        if !slots.is_power_of_two() || slots > 1 << 32 || memfd.size() < slots * SLOT {
            return Err(MapError { length: memfd.size(), source: std::io::ErrorKind::InvalidInput.into() });
        }
        Ok(Self { map: WordMap::new(memfd)?, slots })
    }

    /// A slot by its number; `None` if there is no such one.
    #[inline]
    pub(crate) fn slot(&self, index: u32) -> Option<Slot<'_>> {
        (u64::from(index) < self.slots).then_some(Slot { map: &self.map, index })
    }

    /// The slots at which an object may lie, in order of preference.
    fn probe(&self, home: u64, count: u64) -> impl Iterator<Item = Slot<'_>> {
        (0..count.min(self.slots)).map(move |step| {
            let index = (home + step) & (self.slots - 1);
            Slot { map: &self.map, index: index as u32 }
        })
    }

    fn home(&self, id: &ObjectId) -> u64 {
        hash(id) & (self.slots - 1)
    }

    /// Claims a free slot for `seat`. `before` is told each candidate and its generation just before the attempt.
    pub(crate) fn claim(&self, id: &ObjectId, seat: u32, mut before: impl FnMut(u32, u32)) -> Option<(Slot<'_>, State)> {
        let home = self.home(id);
        for (step, slot) in self.probe(home, MAX_PROBE).enumerate() {
            let Some(free) = slot.load(Ordering::Relaxed).filter(|state| state.phase == Phase::Free) else { continue };
            let claimed = State { generation: free.next_generation(), seat, phase: Phase::Claimed };
            before(slot.index, claimed.generation);
            // Acquire: what the former object's readers and the daemon did comes before what we write.
            if slot.state().compare_exchange(free.pack(), claimed.pack(), Ordering::AcqRel, Ordering::Relaxed).is_err() {
                continue;
            }
            let hint = Slot { map: &self.map, index: home as u32 }.word(7);
            // Before the object is sealed, so that whoever can see it looks far enough.
            if hint.load(Ordering::Relaxed) < step as u64 {
                hint.fetch_max(step as u64, Ordering::Release);
            }
            return Some((slot, claimed));
        }
        None
    }

    /// A sealed object with this id. If several attempts made it, any one of them.
    pub(crate) fn lookup(&self, id: &ObjectId) -> Option<Locator> {
        let home = self.home(id);
        let reach = Slot { map: &self.map, index: home as u32 }.word(7).load(Ordering::Acquire);
        self.probe(home, reach.min(MAX_PROBE - 1) + 1).find_map(|slot| {
            let (state, record) = slot.read_consistent()?;
            (state.phase == Phase::Sealed && record.id == *id).then(|| slot.locator(state, &record))
        })
    }
}

impl<'a> Slot<'a> {
    #[inline]
    fn word(&self, number: u64) -> &'a AtomicU64 {
        self.map.word(u64::from(self.index) * SLOT + number * 8).expect("slots are checked to lie inside the table")
    }

    #[inline]
    pub(crate) fn state(&self) -> &'a AtomicU64 {
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
        self.word(4).store(meta, Ordering::Relaxed);
        self.place(record.offset, record.length);
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
            offset: word(5),
            length: word(6),
        }
    }

    /// Reads a record that belongs to the state given with it; `None` if the slot changed meanwhile.
    pub(crate) fn read_consistent(&self) -> Option<(State, Record)> {
        let before = self.state().load(Ordering::Acquire);
        let state = State::unpack(before).filter(|state| state.phase != Phase::Free)?;
        let record = self.read();
        fence(Ordering::Acquire); // the record's words before the second look at the state
        (self.state().load(Ordering::Relaxed) == before).then_some((state, record))
    }

    pub(crate) fn locator(&self, state: State, record: &Record) -> Locator {
        Locator {
            segment: 0,
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
        Table::new(&Memfd::create("test", slots * SLOT).unwrap(), slots).unwrap()
    }

    fn id(index: u32) -> ObjectId {
        TaskId::root(WorkerId([1; 16])).object(index)
    }

    fn insert(table: &Table, id: ObjectId) -> Option<Locator> {
        let (slot, state) = table.claim(&id, 1, |_, _| {})?;
        slot.write(&Record { id, owner: 1, whole_pages: false, offset: u64::from(id.index()) * 64, length: 5 });
        assert_eq!(table.lookup(&id), None, "unsealed");
        assert!(crate::protocol::advance(slot.state(), state, Phase::Sealed));
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
        assert!(Table::new(&Memfd::create("test", 64).unwrap(), 2).is_err());
    }
}
