//! Granting memory, and taking unused tails of leases back.

use std::sync::atomic::Ordering;

use super::ranges::{Warmth, Wish};
use super::{Client, Extent, Granted, StoreDaemon};
use crate::layout::{self, LANES, Lease, PAGE, Phase, SLOT, UNIT, header};
use crate::link::{LeaseError, LeaseGrant, LeaseRequest};
use crate::protocol::{self, Word};
use crate::table::Table;

impl StoreDaemon {
    /// Grants memory to a client. Its pages are reserved: writing to them can't fail.
    pub fn lease(&mut self, client: u32, request: LeaseRequest) -> Result<LeaseGrant, LeaseError> {
        match request {
            LeaseRequest::Small { lane, least } => self.lease_small(client, lane, least),
            LeaseRequest::Extent { slot, generation, bytes } => {
                self.lease_extent(client, (slot, generation), bytes, true)
            }
            LeaseRequest::Unbacked { slot, generation, bytes } => {
                self.lease_extent(client, (slot, generation), bytes, false)
            }
            LeaseRequest::File { slot, generation, bytes } => self.lease_file(client, slot, generation, bytes),
            LeaseRequest::Table { active } => self.grow_table(active),
        }
    }

    /// Takes the unused tails of all leases back, also from clients that are stopped; gives how many bytes it were.
    ///
    /// The clients notice at their next allocation and ask for a new lease. Done by itself before memory is refused.
    pub fn recall(&mut self) -> u64 {
        let mut bytes = 0;
        for (seat, client) in &mut self.clients {
            for lane in 0..LANES {
                if let Some((start, length)) = client.take_tail(lane) {
                    self.memory.free.insert(start, length, Warmth::Warm(*seat));
                    self.counters.small = self.counters.small.saturating_sub(length);
                    bytes += length;
                }
            }
        }
        bytes
    }

    fn lease_small(&mut self, seat: u32, lane: u32, least: u64) -> Result<LeaseGrant, LeaseError> {
        let least = layout::footprint(least.max(1), false).filter(|least| *least <= layout::LONGEST_LEASE);
        let Some(least) = least.filter(|_| lane < LANES) else {
            return Err(LeaseError::Malformed { what: format!("a small lease for lane {lane}") });
        };
        let client = self.clients.get_mut(&seat).ok_or(LeaseError::NoSeat { client: seat })?;
        if let Some((start, length)) = client.take_tail(lane) {
            self.memory.free.insert(start, length, Warmth::Warm(seat));
            self.counters.small = self.counters.small.saturating_sub(length);
        }
        let wanted = self.config.small_lease.max(least);
        let (start, bytes) = self.take(&Wish { seat, least, wanted, whole_pages: false, cold: true })?;
        self.counters.small += bytes;
        let client = self.clients.get_mut(&seat).ok_or(LeaseError::NoSeat { client: seat })?;
        let units = (bytes / UNIT) as u32;
        let epoch = client.lanes[lane as usize].map_or(1, |granted| granted.epoch.wrapping_add(1));
        client.lanes[lane as usize] = Some(Granted { start, units, epoch });
        client.pages.lease(lane).store(Lease { epoch, cursor: 0, limit: units }.pack(), Ordering::Release);
        Ok(LeaseGrant { segment: 0, offset: start, bytes, epoch })
    }

    /// Doubles the object table, unless it has grown since the client looked.
    fn grow_table(&mut self, seen: u64) -> Result<LeaseGrant, LeaseError> {
        let now = self.table.active();
        let mut after = now;
        if seen == now && now < self.config.slots {
            after = now * 2;
            let reserve = self.config.memory_reserve;
            let reserved = self.table_file.reserve_within(now * SLOT, now * SLOT, reserve);
            reserved.map_err(|error| LeaseError::no_memory(reserve, &error))?;
            let active = self.header_words.word(header::ACTIVE).expect("the header has a page");
            active.store(after, Ordering::Release);
        }
        Ok(LeaseGrant { segment: 0, offset: 0, bytes: after * SLOT, epoch: 0 })
    }

    /// Bytes of whole pages for an object that a client has claimed a slot for: a grant is tied to the claim, so that it
    /// can be told from an orphan when the client dies.
    pub(super) fn claimed_extent(
        &self,
        seat: u32,
        (slot, generation): (u32, u32),
        bytes: u64,
    ) -> Result<u64, LeaseError> {
        if !self.clients.contains_key(&seat) {
            return Err(LeaseError::NoSeat { client: seat });
        }
        let state = self.table.slot(slot).and_then(|slot| slot.load(Ordering::Acquire));
        let claimed = state
            .is_some_and(|state| state.seat == seat && state.generation == generation && state.phase == Phase::Claimed);
        let length = bytes.max(1).checked_next_multiple_of(PAGE);
        length.filter(|_| claimed).ok_or_else(|| {
            let what = format!("an extent of {bytes} bytes for slot {slot}, which client {seat} has not claimed");
            LeaseError::Malformed { what }
        })
    }

    fn lease_extent(
        &mut self,
        seat: u32,
        (slot, generation): (u32, u32),
        bytes: u64,
        backed: bool,
    ) -> Result<LeaseGrant, LeaseError> {
        let length = self.claimed_extent(seat, (slot, generation), bytes)?;
        self.memory.back = backed;
        let wish = Wish { seat, least: length, wanted: length, whole_pages: true, cold: true };
        let taken = self.take(&wish);
        self.memory.back = true;
        let (start, length) = taken?;
        self.counters.large += length;
        let since = self.next_grant();
        self.extents.insert(start, Extent { length, seat, slot, generation, backed, since });
        if !backed {
            self.unbacked.insert(start);
        }
        Ok(LeaseGrant { segment: 0, offset: start, bytes: length, epoch: 0 })
    }

    /// Takes memory; before refusing, takes all unused tails and everything that was unpinned since back.
    pub(super) fn take(&mut self, wish: &Wish) -> Result<(u64, u64), LeaseError> {
        // Memory that clients will still take without having reserved it is as good as taken.
        self.unbacked.retain(|start| self.extents.get(start).is_some_and(|extent| is_unfinished(&self.table, extent)));
        self.memory.promised = self.unbacked.iter().filter_map(|start| Some(self.extents.get(start)?.length)).sum();
        match self.memory.take(wish) {
            Err(_) if self.recall() > 0 || self.sweep_deferred() > 0 => {
                self.sweep_deferred();
                self.memory.take(wish)
            }
            result => result,
        }
    }
}

/// Whether an extent's object isn't sealed yet.
pub(super) fn is_unfinished(table: &Table, extent: &Extent) -> bool {
    let state = table.slot(extent.slot).and_then(|slot| slot.load(Ordering::Acquire));
    state.is_some_and(|state| {
        state.generation == extent.generation && matches!(state.phase, Phase::Claimed | Phase::Draft | Phase::Dropped)
    })
}

impl Client {
    /// What the lane's word says, if it is possible after what was granted.
    pub(super) fn lease(&self, lane: u32) -> Option<(Granted, Lease)> {
        let granted = self.lanes[lane as usize]?;
        let lease = Lease::unpack(self.pages.lease(lane).load(Ordering::Acquire));
        let sound = lease.epoch == granted.epoch && lease.cursor <= lease.limit && lease.limit <= granted.units;
        sound.then_some((granted, lease))
    }

    /// Cuts the lane's lease at its cursor; gives the range that is free by that.
    ///
    /// A word that was scribbled over gives nothing back: its bytes stay counted as used by small objects.
    pub(super) fn take_tail(&mut self, lane: u32) -> Option<(u64, u64)> {
        // The word moves under us at most while the client allocates; one that is changed for ever gives nothing back.
        for _ in 0..10_000 {
            let (granted, lease) = self.lease(lane)?;
            if lease.cursor == lease.limit {
                return None;
            }
            if !protocol::cut(&self.pages.lease(lane), lease) {
                continue;
            }
            // What was cut can't be taken back again, whatever the word says later.
            if let Some(granted) = &mut self.lanes[lane as usize] {
                granted.units = lease.cursor;
            }
            let start = granted.start + u64::from(lease.cursor) * UNIT;
            return Some((start, u64::from(lease.limit - lease.cursor) * UNIT));
        }
        None
    }
}
