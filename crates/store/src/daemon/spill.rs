//! Objects leave the memory and come back. Slot and generation stay theirs meanwhile: every locator stays good.
//!
//! Where the bytes are kept is the caller's concern. He writes them while they stay readable where they are
//! ([`StoreDaemon::begin_spill`]), and only then the object leaves ([`StoreDaemon::finish_spill`]), if nobody has it
//! pinned by then. To bring it back he reads into memory that nobody sees ([`StoreDaemon::begin_restore`]), and then
//! the object is there again ([`StoreDaemon::finish_restore`]). His copy stays good: objects never change, so that one
//! which was brought back can leave again without being written.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use heliostat_proto::{Locator, ObjectId};
use heliostat_shm::map::{DataMap, ExclusiveRange, MapError, ReadMap};

use super::file::FileTarget;
use super::ranges::{Warmth, Wish};
use super::{Deferred, Extent, StoreDaemon};
use crate::layout::{self, FILE_SEGMENT, Phase, State, hold, unhold};
use crate::link::LeaseError;
use crate::protocol;
use crate::table::{Record, Slot};
use crate::word::Shared;

/// What the daemon knows of objects whose bytes are elsewhere, too or only.
#[derive(Debug, Clone, Default)]
pub(super) struct Elsewhere {
    /// Bytes are being written: they stay where they are until that ends, whatever becomes of the object.
    pub(super) spilling: HashSet<u64>,
    /// Objects without memory, and the bytes that they will take again.
    pub(super) spilled: HashMap<u64, u64>,
    /// Of those: memory that their bytes are being read into.
    pub(super) restoring: HashMap<u64, Place>,
    /// Objects that have a copy elsewhere, whether they have memory or not.
    pub(super) copied: HashSet<u64>,
    /// Those of them that are gone since the caller asked last.
    pub(super) dropped: Vec<u64>,
}

/// Memory for an object that comes back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) segment: u32,
    pub(super) offset: u64,
    pub(super) footprint: u64,
    pub(super) whole_pages: bool,
}

/// The daemon's own mappings, made when they are needed first.
#[derive(Debug, Default)]
pub(super) struct Mappings {
    read: Option<Arc<ReadMap>>,
    write: Option<Arc<DataMap>>,
}

/// An object that could leave the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Candidate {
    /// Which.
    pub locator: Locator,
    /// Its id.
    pub id: ObjectId,
    /// Bytes that come back.
    pub footprint: u64,
    /// It was spilled and restored before: its bytes need not be written again.
    pub copied: bool,
}

/// Bytes of an object that is being spilled. They stay in place until [`StoreDaemon::finish_spill`].
#[derive(Debug, Clone)]
pub struct Content {
    map: Arc<ReadMap>,
    offset: u64,
    length: u64,
}

impl AsRef<[u8]> for Content {
    fn as_ref(&self) -> &[u8] {
        self.map.bytes(self.offset, self.length).unwrap_or_default()
    }
}

/// What became of an object that was to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spilled {
    /// It has left.
    Gone,
    /// It stays, since somebody reads it; the copy is good.
    Pinned,
    /// It was freed meanwhile: nobody needs the copy.
    Freed,
    /// It stays, since it was not written.
    Failed,
}

/// How an object comes back.
#[derive(Debug)]
pub enum Restore {
    /// It is there.
    Present,
    /// Somebody is bringing it back already.
    UnderWay,
    /// Its bytes are to be read into this memory.
    Into(Target),
    /// Its bytes are to be written to this place in the store's file.
    IntoFile(FileTarget),
}

/// Memory of an object that comes back; nobody else sees it until [`StoreDaemon::finish_restore`].
#[derive(Debug)]
pub struct Target {
    range: ExclusiveRange,
    length: usize,
}

impl AsMut<[u8]> for Target {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.range.bytes_mut()[..self.length]
    }
}

/// An object can't be brought back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BeginRestoreError {
    /// It was freed.
    #[error("the object is not in this store any more: it was freed")]
    Gone,
    /// There is no memory for it.
    #[error(transparent)]
    Memory(#[from] LeaseError),
    /// The segment couldn't be mapped.
    #[error(transparent)]
    Map(#[from] MapError),
}

impl StoreDaemon {
    /// Objects that could leave the memory, until they make up so many bytes: sealed ones that nobody reads and that
    /// aren't leaving already. Those on whole pages come first, the oldest of them before others, where having been
    /// brought back counts as new; then small ones in no order. `keep` says which must stay.
    ///
    /// Looks at all hold words, and for small objects at the touched part of the table.
    pub fn spill_candidates(
        &self,
        bytes: u64,
        mut keep: impl FnMut(&Locator) -> bool,
    ) -> std::io::Result<Vec<Candidate>> {
        let mut pinned = HashSet::new();
        for client in self.clients.values() {
            pinned.extend(client.pages.held());
        }
        let (mut found, mut sum) = (Vec::new(), 0);
        let mut consider = |slot: &Slot<'_>, whole_pages: bool| {
            let Some((state, record)) = slot.read_consistent() else { return 0 };
            let word = hold(slot.index, state.generation);
            let locator = slot.locator(state, &record);
            let stays = state.phase != Phase::Sealed || record.stays || record.segment != 0;
            let stays = stays || record.whole_pages != whole_pages;
            if stays || pinned.contains(&word) || self.elsewhere.spilling.contains(&word) || keep(&locator) {
                return 0;
            }
            let Some(footprint) = self.range(slot, state, &record).filter(|footprint| *footprint > 0) else { return 0 };
            let copied = self.elsewhere.copied.contains(&word);
            found.push(Candidate { locator, id: record.id, footprint, copied });
            footprint
        };
        let mut extents: Vec<_> = self.extents.values().map(|extent| (extent.since, extent.slot)).collect();
        extents.sort_unstable();
        for (_, slot) in extents {
            if sum >= bytes {
                break;
            }
            sum += self.table.slot(slot).map_or(0, |slot| consider(&slot, true));
        }
        if sum < bytes {
            for slot in self.table.touched(&self.table_file)? {
                if sum >= bytes {
                    break;
                }
                sum += consider(&slot, false);
            }
        }
        Ok(found)
    }

    /// Keeps the bytes of a sealed object in place while they are being written elsewhere, and gives them; `None` if it
    /// isn't there, or leaving already. Others may read it, and free it, meanwhile.
    pub fn begin_spill(&mut self, locator: &Locator) -> Result<Option<Content>, MapError> {
        let Some(slot) = self.table.slot(locator.slot) else { return Ok(None) };
        let Some((state, record)) = slot.read_consistent().filter(|(state, record)| is(locator, *state, record)) else {
            return Ok(None);
        };
        let word = hold(locator.slot, locator.generation);
        if state.phase != Phase::Sealed || record.segment != 0 || self.range(&slot, state, &record).is_none() {
            return Ok(None);
        }
        let map = match &self.mappings.read {
            Some(map) => Arc::clone(map),
            None => {
                let map = Arc::new(ReadMap::new(&self.memory.segment)?);
                Arc::clone(self.mappings.read.insert(map))
            }
        };
        let new = self.elsewhere.spilling.insert(word);
        Ok(new.then_some(Content { map, offset: record.offset, length: record.length }))
    }

    /// Ends what [`begin_spill`](Self::begin_spill) began: those that were written leave the memory, unless somebody has
    /// them pinned. One that was written before ([`Candidate::copied`]) leaves without having begun.
    pub fn finish_spill(&mut self, objects: &[(Locator, bool)]) -> Vec<Spilled> {
        let mut leaving: HashMap<u64, (usize, State, Deferred)> = HashMap::new();
        let mut ends = vec![Spilled::Failed; objects.len()];
        for (number, (locator, written)) in objects.iter().enumerate() {
            let word = hold(locator.slot, locator.generation);
            let began = self.elsewhere.spilling.remove(&word);
            let found = self.table.slot(locator.slot).and_then(|slot| Some((slot, slot.read_consistent()?)));
            let found =
                found.filter(|(_, (state, record))| is(locator, *state, record) && state.phase == Phase::Sealed);
            let Some((slot, (state, record))) = found else {
                ends[number] = Spilled::Freed;
                continue;
            };
            if began && *written {
                self.elsewhere.copied.insert(word);
            }
            if !self.elsewhere.copied.contains(&word) {
                continue;
            }
            let Some(footprint) = self.range(&slot, state, &record) else {
                self.counters.refused += 1;
                continue;
            };
            if protocol::advance(&slot.state(), state, Phase::Spilled) {
                let Record { segment, offset, .. } = record;
                let object = Deferred { segment, offset, footprint, seat: state.seat, hollow: false };
                leaving.insert(word, (number, state, object));
            }
        }
        let pinned = self.pinned(|word| leaving.contains_key(&word));
        for (word, (number, state, object)) in leaving {
            if pinned.contains(&word) {
                if let Some(slot) = self.table.slot(unhold(word).0) {
                    protocol::advance(&slot.state(), state.with(Phase::Spilled), Phase::Sealed);
                }
                ends[number] = Spilled::Pinned;
            } else {
                self.give_back(object);
                self.elsewhere.spilled.insert(word, object.footprint);
                ends[number] = Spilled::Gone;
            }
        }
        // What was freed while it was written waited for this.
        self.sweep_deferred();
        ends
    }

    /// Takes memory for a spilled object to be read into.
    pub fn begin_restore(&mut self, locator: &Locator) -> Result<Restore, BeginRestoreError> {
        self.begin_restore_to(locator, 0)
    }

    /// Takes a place in the store's file for a spilled object that the memory can't take.
    pub fn begin_restore_to_file(&mut self, locator: &Locator) -> Result<Restore, BeginRestoreError> {
        self.begin_restore_to(locator, FILE_SEGMENT)
    }

    fn begin_restore_to(&mut self, locator: &Locator, segment: u32) -> Result<Restore, BeginRestoreError> {
        let slot = self.table.slot(locator.slot).ok_or(BeginRestoreError::Gone)?;
        let found = slot.read_consistent().filter(|(state, record)| is(locator, *state, record));
        let (state, record) = found.ok_or(BeginRestoreError::Gone)?;
        let word = hold(locator.slot, locator.generation);
        match state.phase {
            Phase::Sealed => return Ok(Restore::Present),
            Phase::Spilled if self.elsewhere.restoring.contains_key(&word) => return Ok(Restore::UnderWay),
            Phase::Spilled if self.elsewhere.spilled.contains_key(&word) => {}
            _ => return Err(BeginRestoreError::Gone),
        }
        if segment == FILE_SEGMENT {
            let footprint = layout::footprint(record.length, true).ok_or(BeginRestoreError::Gone)?;
            let offset = self.take_file(footprint)?;
            let (slot, generation) = (locator.slot, locator.generation);
            let extent = Extent { length: footprint, seat: 0, slot, generation, backed: true, since: 0 };
            self.note_file_extent(offset, extent);
            self.elsewhere.restoring.insert(word, Place { segment, offset, footprint, whole_pages: true });
            let target = self.file.as_ref().map(|file| FileTarget::new(file, offset, record.length));
            return target.map(Restore::IntoFile).ok_or(BeginRestoreError::Gone);
        }
        let map = match &self.mappings.write {
            Some(map) => Arc::clone(map),
            None => {
                let map = Arc::new(DataMap::new(&self.memory.segment)?);
                Arc::clone(self.mappings.write.insert(map))
            }
        };
        let Record { whole_pages, length, .. } = record;
        let footprint = layout::footprint(length, whole_pages).ok_or(BeginRestoreError::Gone)?;
        let (offset, taken) =
            self.take(&Wish { seat: 0, least: footprint, wanted: footprint, whole_pages, cold: true })?;
        // A lease may be longer than was wished.
        self.memory.free.insert(offset + footprint, taken - footprint, Warmth::Warm(0));
        if whole_pages {
            self.counters.large += footprint;
            let since = self.next_grant();
            let (slot, generation) = (locator.slot, locator.generation);
            let extent = Extent { length: footprint, seat: 0, slot, generation, backed: true, since };
            self.extents.insert(offset, extent);
        } else {
            self.counters.small += footprint;
        }
        self.elsewhere.restoring.insert(word, Place { segment, offset, footprint, whole_pages });
        let mut range = map.exclusive(offset, footprint).ok_or(BeginRestoreError::Gone)?;
        let length = length as usize;
        range.bytes_mut()[length..].fill(0);
        Ok(Restore::Into(Target { range, length }))
    }

    /// Ends what [`begin_restore`](Self::begin_restore) began: with `good` bytes the object is there again, else its
    /// memory goes back. Returns whether it is there: it may have been freed meanwhile.
    pub fn finish_restore(&mut self, locator: &Locator, good: bool) -> bool {
        let word = hold(locator.slot, locator.generation);
        let Some(place) = self.elsewhere.restoring.remove(&word) else { return false };
        let Some(slot) = self.table.slot(locator.slot) else { return false };
        let state = slot.load(Ordering::Acquire).filter(|state| state.generation == locator.generation);
        match state {
            Some(state) if good && state.phase == Phase::Spilled => {
                slot.set_segment(place.segment);
                slot.place(place.offset, locator.length);
                self.elsewhere.spilled.remove(&word);
                // Release: whoever sees it sealed sees the bytes, and where they are.
                protocol::advance(&slot.state(), state, Phase::Sealed)
            }
            _ => {
                let seat = state.map_or(0, |state| state.seat);
                let Place { segment, offset, footprint, .. } = place;
                self.give_back(Deferred { segment, offset, footprint, seat, hollow: false });
                if let Some(state) = state.filter(|state| state.phase == Phase::Closing) {
                    self.forget_spilled(word, state);
                }
                false
            }
        }
    }

    /// Slots and generations of objects that had a copy elsewhere and are gone: nobody needs those copies any more. Each
    /// is told once.
    pub fn take_dropped(&mut self) -> Vec<(u32, u32)> {
        std::mem::take(&mut self.elsewhere.dropped).into_iter().map(unhold).collect()
    }

    /// Bytes that objects and drafts take, and tails of leases with them.
    pub fn used(&self) -> u64 {
        self.config.capacity - self.memory.free.bytes()
    }

    /// Bytes of the segment.
    pub fn capacity(&self) -> u64 {
        self.config.capacity
    }

    /// Bytes and number of the objects that have no memory.
    pub fn spilled(&self) -> (u64, u64) {
        (self.elsewhere.spilled.values().sum(), self.elsewhere.spilled.len() as u64)
    }

    /// Takes a spilled object out, for good; its memory, if some is being filled, comes back with that.
    pub(super) fn close_spilled(&mut self, slot_index: u32, state: State) {
        let word = hold(slot_index, state.generation);
        if !self.elsewhere.spilled.contains_key(&word) {
            self.counters.refused += 1;
            return;
        }
        let Some(slot) = self.table.slot(slot_index) else { return };
        if !protocol::advance(&slot.state(), state, Phase::Closing) {
            return;
        }
        self.counters.freed += 1;
        if !self.elsewhere.restoring.contains_key(&word) {
            self.forget_spilled(word, state);
        }
    }

    fn forget_spilled(&mut self, word: u64, state: State) {
        self.elsewhere.spilled.remove(&word);
        self.drop_copy(word);
        if let Some(slot) = self.table.slot(unhold(word).0) {
            protocol::release(&slot.state(), state.with(Phase::Free));
        }
    }

    /// Notes that the copy of an object that is gone is of no use.
    pub(super) fn drop_copy(&mut self, word: u64) {
        if self.elsewhere.copied.remove(&word) {
            self.elsewhere.dropped.push(word);
        }
    }

    /// Which of some objects, whose slots were changed just before, somebody has pinned.
    pub(super) fn pinned(&self, among: impl Fn(u64) -> bool) -> HashSet<u64> {
        protocol::fence_before_scan::<Shared<'_>>();
        let held = self.clients.values().flat_map(|client| client.pages.held());
        held.filter(|word| among(*word)).collect()
    }

    pub(super) fn next_grant(&mut self) -> u64 {
        self.grants += 1;
        self.grants
    }
}

impl Place {
    /// The extent of it, if it is one.
    pub(super) fn extent(&self, slot: u32, generation: u32, since: u64) -> Option<Extent> {
        let extent = Extent { length: self.footprint, seat: 0, slot, generation, backed: true, since };
        self.whole_pages.then_some(extent)
    }
}

/// Whether a locator means the object that is in its slot now. Where its bytes are may have changed.
pub(super) fn is(locator: &Locator, state: State, record: &Record) -> bool {
    let same = (locator.generation, locator.length) == (state.generation, record.length);
    same && locator.segment <= FILE_SEGMENT
}
