//! Bump allocation of small objects in leases, one thread at a time in each lane.
//!
//! The locks here are private to the process: no other process ever waits for them, and they die with it.

use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

use crate::layout::{LANES, Lease, UNIT};
use crate::link::{DaemonLink, LeaseError, LeaseGrant, LeaseRequest};
use crate::pages::Pages;
use crate::protocol::{self, Word};
use crate::table::Slot;

#[derive(Default)]
pub(super) struct Lanes {
    lanes: [Mutex<Lane>; LANES as usize],
    /// Told when a lease is half used, if a thread prepares the next one.
    pub(super) nudge: OnceLock<SyncSender<()>>,
}

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
        let units = footprint / UNIT;
        let (number, mut lane) = self.pick(pages, units);
        let (operation, word) = (pages.operation(number), pages.lease(number));
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
                let half = u64::from(lease.limit / 2);
                if u64::from(lease.cursor) < half
                    && end >= half
                    && let Some(nudge) = self.nudge.get()
                {
                    nudge.try_send(()).ok(); // full: it is being told already
                }
                return Ok(committed.then_some(offset));
            }
        }
    }

    /// A lane that no other thread is using, with room for so many units if there is one; or else the first lane to
    /// come free.
    fn pick(&self, pages: &Pages, units: u64) -> (u32, MutexGuard<'_, Lane>) {
        let mut first = None;
        for (number, lane) in self.idle() {
            if lane.room(number, pages) >= units {
                return (number, lane);
            }
            first = first.or(Some((number, lane)));
        }
        first.unwrap_or_else(|| (0, self.lanes[0].lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// The lanes that no other thread is using.
    fn idle(&self) -> impl Iterator<Item = (u32, MutexGuard<'_, Lane>)> {
        self.lanes.iter().enumerate().filter_map(|(number, lane)| match lane.try_lock() {
            Ok(lane) => Some((number as u32, lane)),
            Err(TryLockError::Poisoned(lane)) => Some((number as u32, lane.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        })
    }

    /// Gets the next lease before it is needed, unless a lane has one, and gives what was granted to `map`.
    pub(super) fn prepare(&self, pages: &Pages, link: &dyn DaemonLink, map: impl FnOnce(&LeaseGrant)) {
        let mut least: Option<(u64, u32, MutexGuard<'_, Lane>)> = None;
        let mut fresh = 0;
        for (number, lane) in self.idle() {
            let lease = Lease::unpack(pages.lease(number).load(Ordering::Acquire));
            let room = lane.room(number, pages);
            fresh += u32::from(room > u64::from(lease.limit / 2));
            if least.as_ref().is_none_or(|(known, ..)| room < *known) {
                least = Some((room, number, lane));
            }
        }
        let Some((_, number, mut lane)) = least.filter(|_| fresh == 0) else { return };
        // Without memory for it nothing is lost: whoever needs it asks again, and is told.
        let Ok(grant) = link.lease(LeaseRequest::Small { lane: number, least: UNIT }) else { return };
        *lane = Lane { granted: true, start: grant.offset, epoch: grant.epoch };
        map(&grant);
    }
}

impl Lane {
    /// Units left in the lane's lease.
    fn room(&self, number: u32, pages: &Pages) -> u64 {
        let lease = Lease::unpack(pages.lease(number).load(Ordering::Acquire));
        let valid = self.granted && lease.epoch == self.epoch;
        if valid { u64::from(lease.limit.saturating_sub(lease.cursor)) } else { 0 }
    }
}
