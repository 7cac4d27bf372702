//! Bump allocation of small objects in leases, one thread at a time in each lane.
//!
//! The locks here are private to the process: no other process ever waits for them, and they die with it.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use crate::layout::{LANES, Lease, UNIT};
use crate::link::{DaemonLink, LeaseError, LeaseRequest};
use crate::pages::Pages;
use crate::protocol::{self, Word};
use crate::table::Slot;

#[derive(Default)]
pub(super) struct Lanes([Mutex<Lane>; LANES as usize]);

/// The lease that this lane was granted last.
#[derive(Default)]
struct Lane {
    granted: bool,
    start: u64,
    epoch: u16,
}

impl Lanes {
    /// Takes `footprint` bytes for the object of `length` bytes in `slot` and writes the place there.
    ///
    /// Each step can be the last of this process. The place is written before the lease word moves, with the operation
    /// word naming the slot meanwhile: the lease word's cursor then tells the daemon whether the slot got the memory.
    pub(super) fn allocate(
        &self,
        pages: &Pages,
        link: &dyn DaemonLink,
        slot: &Slot<'_>,
        hold: u64,
        (length, footprint): (u64, u64),
        commit: impl FnOnce() -> bool,
    ) -> Result<Option<u64>, LeaseError> {
        let (number, mut lane) = self.pick();
        let (operation, word) = (pages.operation(number), pages.lease(number));
        let units = footprint / UNIT;
        loop {
            let lease = Lease::unpack(word.load(Ordering::Acquire));
            let end = u64::from(lease.cursor) + units;
            if !lane.granted || lease.epoch != lane.epoch || end > u64::from(lease.limit) {
                operation.store(0, Ordering::Release);
                let grant = link.lease(LeaseRequest::Small { lane: number, least: footprint })?;
                *lane = Lane { granted: true, start: grant.offset, epoch: grant.epoch };
                continue;
            }
            let offset = lane.start + u64::from(lease.cursor) * UNIT;
            slot.place(offset, length);
            operation.store(hold, Ordering::Release);
            if protocol::bump(&word, lease, end as u32) {
                let committed = commit();
                operation.store(0, Ordering::Release);
                return Ok(committed.then_some(offset));
            }
        }
    }

    /// A lane that no other thread is using, or else the first one to come free.
    fn pick(&self) -> (u32, MutexGuard<'_, Lane>) {
        for (number, lane) in self.0.iter().enumerate() {
            match lane.try_lock() {
                Ok(lane) => return (number as u32, lane),
                Err(TryLockError::Poisoned(lane)) => return (number as u32, lane.into_inner()),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        (0, self.0[0].lock().unwrap_or_else(PoisonError::into_inner))
    }
}
