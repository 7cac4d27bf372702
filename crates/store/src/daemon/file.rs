//! The store's file: objects lie there that the memory can't take. It has no name, so that nothing of it outlives the
//! node's processes, and is read through mappings like the memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use heliostat_proto::Locator;
use heliostat_shm::memfd::{Memfd, MemfdError, ReserveError};

use super::ranges::{FreeRanges, Warmth, Wish};
use super::{Deferred, Extent, Spilled, StoreDaemon};
use crate::layout::{FILE_SEGMENT, PAGE, Phase, hold};
use crate::link::{LeaseError, LeaseGrant};

/// Of the disk, one part in so many stays free.
const KEEP_FREE: u64 = 20;

/// The file, and what is where in it.
#[derive(Debug)]
pub(super) struct File {
    pub(super) backing: Arc<Memfd>,
    free: FreeRanges,
    pub(super) extents: BTreeMap<u64, Extent>,
    /// The file system is in memory after all, whose limits count.
    is_memory: bool,
}

/// A place in the file for the bytes of an object that comes back; nobody else sees it until
/// [`StoreDaemon::finish_restore`].
#[derive(Debug, Clone)]
pub struct FileTarget {
    file: Arc<Memfd>,
    offset: u64,
    length: u64,
}

impl FileTarget {
    /// Writes bytes of the object.
    pub fn write_at(&self, at: u64, bytes: &[u8]) -> std::io::Result<()> {
        let fits = at.checked_add(bytes.len() as u64).is_some_and(|end| end <= self.length);
        if fits { self.file.write_at(self.offset + at, bytes) } else { Err(std::io::ErrorKind::InvalidInput.into()) }
    }

    /// Length of the object in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }
}

impl File {
    /// Takes whole pages that read as zeros and can be written without fail.
    pub(super) fn take(&mut self, bytes: u64, reserve: u64) -> Result<u64, LeaseError> {
        let refuse = |reason: String, disk| LeaseError::NoFile { requested: bytes, reason, disk };
        let (room, all) = self.backing.room().map_err(|error| refuse(error.to_string(), false))?;
        let leave = all / KEEP_FREE;
        if room < bytes.saturating_add(leave) {
            let reason = format!("its disk has only {room} bytes left of which {leave} are kept free");
            return Err(refuse(reason, true));
        }
        let wish = Wish { seat: 0, least: bytes, wanted: bytes, whole_pages: true, cold: true };
        let taken = self.free.take(&wish).ok_or_else(|| {
            let size = self.backing.size();
            refuse(format!("{} bytes of its file, which has {size}, are in use", size - self.free.bytes()), false)
        })?;
        let reserved = if self.is_memory {
            self.backing.reserve_within(taken.start, taken.length, reserve)
        } else {
            self.backing.reserve(taken.start, taken.length)
        };
        reserved.map_err(|error| {
            self.put_back(taken.start, taken.length);
            refuse(error.to_string(), matches!(error, ReserveError::NoMemory { .. }))
        })?;
        Ok(taken.start)
    }

    /// Gives pages back; those that the system refuses to take back can't be used again, since they aren't zero.
    fn put_back(&mut self, start: u64, length: u64) {
        if self.backing.punch(start, length).is_ok() {
            self.free.insert(start, length, Warmth::Cold);
        }
    }

    pub(super) fn give_back(&mut self, start: u64) {
        if let Some(extent) = self.extents.remove(&start) {
            self.put_back(start, extent.length);
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.extents.values().map(|extent| extent.length).sum()
    }
}

impl StoreDaemon {
    /// Gives the store a file of at most `size` bytes, without a name, on the file system of `dir`: for objects above the
    /// capacity, and for those that are brought back when the memory can't take them. Before the first client joins.
    pub fn keep_file_in(&mut self, dir: &Path, size: u64) -> Result<(), MemfdError> {
        let size = size & !(PAGE - 1);
        let backing = Arc::new(Memfd::unlinked(dir, size)?);
        let is_memory = backing.is_memory();
        self.file = Some(File { backing, free: FreeRanges::new(size), extents: BTreeMap::new(), is_memory });
        Ok(())
    }

    /// Bytes of objects and drafts in the file.
    pub fn file_bytes(&self) -> u64 {
        self.file.as_ref().map_or(0, File::bytes)
    }

    pub(super) fn lease_file(
        &mut self,
        seat: u32,
        slot: u32,
        generation: u32,
        bytes: u64,
    ) -> Result<LeaseGrant, LeaseError> {
        let length = self.claimed_extent(seat, (slot, generation), bytes)?;
        let start = self.take_file(length)?;
        self.note_file_extent(start, Extent { length, seat, slot, generation, backed: true, since: 0 });
        Ok(LeaseGrant { segment: FILE_SEGMENT, offset: start, bytes: length, epoch: 0 })
    }

    pub(super) fn take_file(&mut self, length: u64) -> Result<u64, LeaseError> {
        let reserve = self.config.memory_reserve;
        let none = || LeaseError::NoFile {
            requested: length,
            reason: "it was not given one, since objects are not spilled".into(),
            disk: false,
        };
        let taken = self.file.as_mut().ok_or_else(none)?.take(length, reserve);
        // Those that were brought back there can leave again: their copies are good.
        if taken.is_ok() || self.leave_file(|_| false) == 0 {
            return taken;
        }
        self.file.as_mut().ok_or_else(none)?.take(length, reserve)
    }

    pub(super) fn note_file_extent(&mut self, start: u64, extent: Extent) {
        let since = self.next_grant();
        if let Some(file) = &mut self.file {
            file.extents.insert(start, Extent { since, ..extent });
        }
    }

    /// Objects that were brought back to the file, and that nobody reads, leave it; gives how many. `keep` says which must
    /// stay.
    pub fn leave_file(&mut self, mut keep: impl FnMut(&Locator) -> bool) -> usize {
        let Some(file) = &self.file else { return 0 };
        let leaving: Vec<(Locator, bool)> = file
            .extents
            .values()
            .filter_map(|extent| {
                let slot = self.table.slot(extent.slot)?;
                let (state, record) = slot.read_consistent()?;
                let locator = slot.locator(state, &record);
                let copied = self.elsewhere.copied.contains(&hold(extent.slot, extent.generation));
                let there = state.phase == Phase::Sealed && state.generation == extent.generation;
                (there && copied && !keep(&locator)).then_some((locator, false))
            })
            .collect();
        self.finish_spill(&leaving).into_iter().filter(|end| *end == Spilled::Gone).count()
    }

    /// Whether objects are in the file that will leave it as soon as nobody reads them.
    pub fn has_visitors_in_file(&self) -> bool {
        let copied = |extent: &Extent| self.elsewhere.copied.contains(&hold(extent.slot, extent.generation));
        self.file.as_ref().is_some_and(|file| file.extents.values().any(copied))
    }

    pub(super) fn give_file_back(&mut self, object: Deferred) {
        debug_assert_eq!(object.segment, FILE_SEGMENT);
        if let Some(file) = &mut self.file {
            file.give_back(object.offset);
        }
    }

    /// Takes back what was granted to a client that is gone and never became a sealed object.
    pub(super) fn drop_file_orphans(&mut self, client: u32) {
        let Some(file) = &mut self.file else { return };
        let table = &self.table;
        let orphans: Vec<u64> = file
            .extents
            .iter()
            .filter(|(_, extent)| {
                let state = table.slot(extent.slot).and_then(|slot| slot.load(Ordering::Acquire));
                extent.seat == client && !extent.became_object(state)
            })
            .map(|(start, _)| *start)
            .collect();
        for start in orphans {
            file.give_back(start);
        }
    }
}

impl FileTarget {
    pub(super) fn new(file: &File, offset: u64, length: u64) -> Self {
        Self { file: Arc::clone(&file.backing), offset, length }
    }
}
