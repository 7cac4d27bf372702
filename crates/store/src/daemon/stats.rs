//! Where every byte of the segment is.

use std::sync::atomic::Ordering;

use super::StoreDaemon;
use crate::layout::{LANES, Phase, State, UNIT, unhold};

/// Counters kept beside the free ranges, so that the two check each other.
#[derive(Debug, Clone, Default)]
pub(super) struct Counters {
    /// Bytes granted as small leases less those that came back.
    pub(super) small: u64,
    /// Bytes of extents.
    pub(super) large: u64,
    /// Objects taken out since the start.
    pub(super) freed: u64,
    /// Bytes that clients which are gone had copied into the store.
    pub(super) copied: u64,
    /// Slots and frees that were impossible after what had been granted.
    pub(super) refused: u64,
}

/// Bytes of the segment by use, and counts. The first five fields sum up to `capacity`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StoreStats {
    /// Free bytes whose pages are reserved.
    pub free_warm: u64,
    /// Free bytes whose pages aren't reserved.
    pub free_cold: u64,
    /// Leased bytes that no object takes yet.
    pub leased: u64,
    /// Bytes of small objects and drafts, with padding.
    pub small: u64,
    /// Bytes of large objects and drafts, with padding.
    pub large: u64,
    /// Bytes of the segment.
    pub capacity: u64,
    /// Of `small` and `large`: bytes of objects that were taken out and are still pinned.
    pub deferred: u64,
    /// How many objects those are.
    pub deferred_objects: u64,
    /// Bytes of the longest free range.
    pub largest_free: u64,
    /// Sealed objects that were not taken out.
    pub objects: u64,
    /// Bytes that objects without memory would take.
    pub spilled: u64,
    /// How many objects those are.
    pub spilled_objects: u64,
    /// Bytes of `small` and `large` that spilled objects are being read into.
    pub restoring: u64,
    /// Bytes of objects and drafts in the store's file, which `capacity` does not count.
    pub file: u64,
    /// Pins of clients with a seat.
    pub pins: u64,
    /// Objects that clients with a seat are creating or gave up, until their memory is back.
    pub drafts: u64,
    /// Clients with a seat.
    pub clients: u64,
    /// Objects that were taken out since the store began.
    pub freed_objects: u64,
    /// Bytes that clients copied into the store since it began, as they say: drafts that were filled in place count nothing.
    pub copied: u64,
    /// Shared words that were impossible after what had been granted: not 0 means that a process scribbled.
    pub refused: u64,
    /// Bytes of memory that the system holds for the segment: `capacity - free_cold`.
    pub resident: u64,
    /// Bytes of memory that the system holds for the object table.
    pub table_resident: u64,
}

impl StoreStats {
    /// The sum of all uses; equal to `capacity`, or something is lost.
    pub fn sum(&self) -> u64 {
        self.free_warm + self.free_cold + self.leased + self.small + self.large
    }
}

impl StoreDaemon {
    /// Accounts for every byte. Looks at all free ranges, the touched part of the object table and all pins: for people
    /// and tests, not for every request.
    pub fn stats(&self) -> StoreStats {
        let mut leased = 0;
        for client in self.clients.values() {
            for lane in 0..LANES {
                if let Some((_, lease)) = client.lease(lane) {
                    leased += u64::from(lease.limit - lease.cursor) * UNIT;
                }
            }
        }
        let free = &self.memory.free;
        let (pins, drafts) = self.held();
        StoreStats {
            free_warm: free.bytes() - free.cold_bytes(),
            free_cold: free.cold_bytes(),
            leased,
            small: self.counters.small.saturating_sub(leased),
            large: self.counters.large,
            capacity: self.config.capacity,
            deferred: self.deferred.values().map(|object| object.footprint).sum(),
            deferred_objects: self.deferred.len() as u64,
            largest_free: free.largest(),
            objects: self.sealed_objects(),
            spilled: self.spilled().0,
            spilled_objects: self.spilled().1,
            restoring: self.elsewhere.restoring.values().map(|place| place.footprint).sum(),
            file: self.file_bytes(),
            pins,
            drafts,
            clients: self.clients.len() as u64,
            freed_objects: self.counters.freed,
            copied: self.copied(),
            refused: self.counters.refused,
            resident: self.memory.segment.resident_bytes().unwrap_or(0),
            table_resident: self.table_file.resident_bytes().unwrap_or(0),
        }
    }

    /// What all clients copied; each keeps its own count.
    fn copied(&self) -> u64 {
        let counts = self.clients.values().map(|client| client.pages.copied().0.load(Ordering::Relaxed));
        counts.fold(self.counters.copied, u64::saturating_add)
    }

    /// Sealed objects; none if the system does not tell which part of the table was touched.
    fn sealed_objects(&self) -> u64 {
        let slots = self.table.touched(&self.table_file).unwrap_or_default();
        let sealed = |state: State| state.phase == Phase::Sealed;
        slots.iter().filter(|slot| slot.load(Ordering::Acquire).is_some_and(sealed)).count() as u64
    }

    /// What the hold words of all clients stand for: pins and drafts.
    fn held(&self) -> (u64, u64) {
        let (mut pins, mut drafts) = (0, 0);
        for (seat, client) in &self.clients {
            for word in client.pages.held() {
                let (index, generation) = unhold(word);
                let state = self.table.slot(index).and_then(|slot| slot.load(Ordering::Acquire));
                match state.filter(|state| state.generation == generation).map(|state| (state.phase, state.seat)) {
                    Some((Phase::Sealed | Phase::Closing, _)) => pins += 1,
                    Some((Phase::Claimed | Phase::Draft | Phase::Dropped, creator)) if creator == *seat => drafts += 1,
                    _ => {}
                }
            }
        }
        (pins, drafts)
    }
}
