//! The allocator's state made anew, from what the shared words say and what was granted.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;

use super::ranges::{FreeRanges, Warmth};
use super::reclaim::moved;
use super::{Deferred, Extent, StoreDaemon};
use crate::layout::{self, FILE_SEGMENT, LANES, PAGE, Phase, State, hold};
use crate::protocol::Word;
use crate::table::{Record, Slot};

/// What [`StoreDaemon::rebuild`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Rebuilt {
    /// Objects and drafts that have memory.
    pub objects: u64,
    /// Free bytes before, when the allocator's own state was believed.
    pub free_before: u64,
    /// Free bytes now.
    pub free_after: u64,
    /// Slots whose memory can't be theirs, since it is another's or lies outside. They are left alone.
    pub refused: u64,
}

/// Memory that is in use.
struct Used {
    start: u64,
    length: u64,
    extent: Option<Extent>,
}

impl StoreDaemon {
    /// Throws away what the allocator believes and derives it from the object table: free ranges, extents, the objects
    /// that wait for their pins, and the counters. For when the accounts don't add up; changes nothing if they do.
    ///
    /// Clients may go on meanwhile: all tails of leases are taken back first, so that nobody gets memory before this
    /// ends. Whole free pages are given back to the system, since nothing says which of them exist.
    pub fn rebuild(&mut self) -> std::io::Result<Rebuilt> {
        self.recall();
        let free_before = self.memory.free.bytes();
        // Between its grant and the note of its place, an extent stands in the daemon's own memory only.
        let granted: HashMap<u64, u64> =
            self.extents.iter().map(|(start, extent)| (hold(extent.slot, extent.generation), *start)).collect();
        let mut deferred = HashMap::new();
        let mut used = Vec::new();
        for slot in self.table.touched(&self.table_file)? {
            let Some((state, record)) = slot.read_consistent() else { continue };
            let granted = granted.get(&hold(slot.index, state.generation)).copied();
            let word = hold(slot.index, state.generation);
            if let Some(place) = self.elsewhere.restoring.get(&word).copied() {
                if place.segment == FILE_SEGMENT {
                    continue;
                }
                let since = self.extents.get(&place.offset).map_or(0, |extent| extent.since);
                let extent = place.extent(slot.index, state.generation, since);
                used.push(Used { start: place.offset, length: place.footprint, extent });
                continue;
            }
            if record.segment == FILE_SEGMENT {
                // The file's accounts are the daemon's alone, but who waits for its pins is found anew.
                let footprint = self.range(&slot, state, &record);
                if let (Phase::Closing, Some(footprint)) = (state.phase, footprint) {
                    let Record { segment, offset, .. } = record;
                    deferred.insert(word, Deferred { segment, offset, footprint, seat: state.seat, hollow: false });
                }
                continue;
            }
            let Some(memory) = self.memory_of(&slot, state, &record, granted) else { continue };
            if state.phase == Phase::Closing {
                let (offset, footprint, seat) = (record.offset, memory.length, state.seat);
                let object = Deferred { segment: 0, offset, footprint, seat, hollow: false };
                deferred.insert(hold(slot.index, state.generation), object);
            }
            if memory.length > 0 {
                used.push(memory);
            }
        }
        used.sort_by_key(|memory| memory.start);
        let mut rebuilt = Rebuilt { free_before, objects: used.len() as u64, ..Rebuilt::default() };
        let (mut free, mut extents) = (FreeRanges::none(self.config.capacity), BTreeMap::new());
        let (mut at, mut small, mut large) = (0, 0, 0);
        for memory in used {
            let Used { start, length, extent } = memory;
            if start < at || start.checked_add(length).is_none_or(|end| end > self.config.capacity) {
                rebuilt.refused += 1;
                continue;
            }
            self.gap(&mut free, at, start);
            at = start + length;
            match extent {
                Some(extent) => {
                    large += length;
                    extents.insert(start, extent);
                }
                None => small += length,
            }
        }
        self.gap(&mut free, at, self.config.capacity);
        rebuilt.free_after = free.bytes();
        self.counters.refused += rebuilt.refused;
        (self.counters.small, self.counters.large) = (small, large);
        (self.memory.free, self.extents, self.deferred) = (free, extents, deferred);
        Ok(rebuilt)
    }

    /// The memory that a slot says it has, which for an extent begins at `granted` as far as is known; `None` if it has
    /// none yet.
    fn memory_of(&self, slot: &Slot<'_>, state: State, record: &Record, granted: Option<u64>) -> Option<Used> {
        let has_memory = match state.phase {
            Phase::Free | Phase::Spilled => false,
            Phase::Claimed if record.whole_pages => granted.is_some(),
            Phase::Claimed => self.clients.get(&state.seat).is_some_and(|client| {
                let word = hold(slot.index, state.generation);
                let names = |lane: &u32| client.pages.operation(*lane).load(Ordering::Acquire) == word;
                (0..LANES).filter(names).any(|lane| moved(client, lane, record))
            }),
            _ => true,
        };
        if !has_memory {
            return None;
        }
        if !record.whole_pages {
            let length = layout::footprint(record.length, false)?;
            return Some(Used { start: record.offset, length, extent: None });
        }
        let length = layout::footprint(record.length, true)?;
        // Without a note of the grant it may be that not all pages of a draft exist.
        let known = granted.and_then(|start| self.extents.get(&start));
        let backed = known.map_or(state.phase == Phase::Sealed, |extent| extent.backed);
        let since = known.map_or(0, |extent| extent.since);
        let extent = Extent { length, seat: state.seat, slot: slot.index, generation: state.generation, backed, since };
        Some(Used { start: granted.unwrap_or(record.offset), length, extent: Some(extent) })
    }

    /// Adds free bytes between two ranges that are in use. Pages that they share with these exist.
    fn gap(&self, free: &mut FreeRanges, from: u64, to: u64) {
        let (first, last) = (from.next_multiple_of(PAGE), to & !(PAGE - 1));
        if first >= last {
            free.insert(from, to - from, Warmth::Warm(0));
            return;
        }
        free.insert(from, first - from, Warmth::Warm(0));
        free.insert(first, last - first, self.memory.cool(first, last - first));
        free.insert(last, to - last, Warmth::Warm(0));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use heliostat_proto::{TaskId, WorkerId};
    use heliostat_shm::process::Identity;

    use super::*;
    use crate::{Layout, LocalLink, StoreClient, StoreConfig};

    #[test]
    fn a_daemon_that_forgot_all_about_its_memory_finds_it_in_the_table() {
        let daemon = Arc::new(Mutex::new(StoreDaemon::create(StoreConfig::new(4 << 20)).unwrap()));
        let lock = || daemon.lock().unwrap();
        let seat = lock().join(Identity::current().unwrap()).unwrap();
        let link = Arc::new(LocalLink::new(Arc::clone(&daemon), seat.params.client));
        let client = StoreClient::attach(seat, link).unwrap();
        let id = |n| TaskId::root(WorkerId([6; 16])).object(n);
        let lengths = [0, 10, 5_000, 70_000, 200_000, 900, 100_000];
        let mut all: Vec<_> = lengths
            .into_iter()
            .zip(0..)
            .map(|(length, n)| client.put(id(n), &vec![n as u8; length]).unwrap())
            .collect();
        let pinned = client.pin(&all[4]).unwrap();
        client.free(&[all.remove(4), all.remove(2)]);
        let drafts = [300, 80_000].map(|length| client.create(id(100), Layout::new(length)).unwrap());
        lock().recall();
        let before = lock().stats();

        let mut broken = lock();
        broken.memory.free = FreeRanges::new(4 << 20);
        (broken.counters.small, broken.counters.large) = (7, 7);
        broken.extents.clear();
        broken.deferred.clear();
        let rebuilt = broken.rebuild().unwrap();
        assert_eq!((rebuilt.refused, rebuilt.free_after), (0, before.free_warm + before.free_cold));
        drop(broken);

        let after = lock().stats();
        assert_eq!((after.sum(), after.small, after.large), (after.capacity, before.small, before.large));
        assert_eq!((after.deferred, after.largest_free), (before.deferred, before.largest_free));
        assert_eq!(after.resident, after.capacity - after.free_cold);
        for (locator, n) in all.iter().zip([0, 1, 3, 5, 6]) {
            assert!(client.pin(locator).unwrap().iter().all(|byte| *byte == n));
        }
        assert!(pinned.iter().all(|byte| *byte == 4));
        all.extend(drafts.map(|draft| draft.seal().unwrap()));
        drop(pinned);
        client.free(&all);
        lock().sweep_deferred();
        lock().recall();
        let end = lock().stats();
        assert_eq!((end.small, end.large, end.deferred_objects, end.largest_free), (0, 0, 0, end.capacity));
        // Nothing to mend: nothing changes.
        let again = lock().rebuild().unwrap();
        assert_eq!((again.free_before, again.objects), (again.free_after, 0));
    }
}
