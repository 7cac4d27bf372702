//! Taking objects out, and cleaning up after clients that are gone.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use heliostat_proto::Locator;

use super::ranges::Warmth;
use super::spill::is;
use super::{Client, Deferred, StoreDaemon};
use crate::layout::{self, FILE_SEGMENT, LANES, Phase, State, UNIT, hold, unhold};
use crate::protocol::{self, Word};
use crate::table::{Record, Slot};

/// What a client that is gone left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reclaimed {
    /// Pins that were dropped.
    pub pins: u64,
    /// Drafts that were never sealed; nobody ever saw them.
    pub drafts: u64,
    /// Bytes that came back: of those drafts, of leases, and of objects that only this client's pins had kept.
    pub bytes: u64,
}

impl StoreDaemon {
    /// Takes objects out of the store. From here on nobody can pin them; the memory comes back at once, or, for objects
    /// that are pinned now, by a later [`sweep_deferred`](Self::sweep_deferred).
    ///
    /// Locators of objects that are gone already are ignored, so that freeing twice does no harm.
    pub fn free(&mut self, locators: &[Locator]) {
        let mut closed = HashMap::new();
        for locator in locators {
            let Some((hold, object, seen)) = self.close(locator) else { continue };
            self.counters.freed += 1;
            if seen {
                closed.insert(hold, object);
            } else {
                // A dropped draft: nobody could pin it, and its creator's own hold word must not keep it.
                self.reclaim(hold, object);
            }
        }
        self.settle(closed);
    }

    /// Takes back what was freed while pinned and isn't pinned any more; gives how many objects it were.
    pub fn sweep_deferred(&mut self) -> usize {
        let waiting = std::mem::take(&mut self.deferred);
        let before = waiting.len();
        self.settle(waiting);
        before - self.deferred.len()
    }

    /// How many objects were taken out and are still pinned.
    pub fn deferred_objects(&self) -> usize {
        self.deferred.len()
    }

    /// Ends a client's seat: drops its pins, drafts and leases. Sealed objects stay: they are their owners'.
    ///
    /// Call it when the client's process has ended, or has left by dropping its [`StoreClient`](crate::StoreClient):
    /// memory that it was writing to may be handed to others at once.
    pub fn client_gone(&mut self, client: u32) -> Reclaimed {
        let mut reclaimed = Reclaimed::default();
        let Some(mut state) = self.clients.remove(&client) else { return reclaimed };
        state.pages.fence().store(1, Ordering::SeqCst);
        let before = self.memory.free.bytes();
        for lane in 0..LANES {
            if let Some((start, length)) = state.take_tail(lane) {
                self.memory.free.insert(start, length, Warmth::Warm(client));
                self.counters.small = self.counters.small.saturating_sub(length);
            }
        }
        for word in state.pages.held() {
            let (index, generation) = unhold(word);
            let Some(slot) = self.table.slot(index) else { continue };
            match slot.load(Ordering::Acquire) {
                Some(now) if now.generation == generation => match now.phase {
                    Phase::Claimed | Phase::Draft | Phase::Dropped if now.seat == client => {
                        self.drop_draft(&state, index, now, word);
                        reclaimed.drafts += 1;
                    }
                    Phase::Sealed | Phase::Closing => reclaimed.pins += 1,
                    _ => {}
                },
                _ => {}
            }
        }
        self.counters.copied = self.counters.copied.saturating_add(state.pages.copied().0.load(Ordering::Relaxed));
        drop(state);
        self.drop_orphans(client);
        self.drop_file_orphans(client);
        self.sweep_deferred();
        self.memory.free.forget(client);
        reclaimed.bytes = self.memory.free.bytes() - before;
        reclaimed
    }

    /// Takes an unfinished object of a client that is gone out, with the memory that it had got.
    fn drop_draft(&mut self, client: &Client, index: u32, state: State, word: u64) {
        let Some(slot) = self.table.slot(index) else { return };
        let record = slot.read();
        let has_memory = match state.phase {
            // Died between claiming and having memory. Its lane says which slot was being given some: the place was
            // written before the lease word moved, so that the word's cursor tells whether it did.
            Phase::Claimed => (0..LANES).any(|lane| {
                client.pages.operation(lane).load(Ordering::Acquire) == word && moved(client, lane, &record)
            }),
            _ => true,
        };
        let free = state.with(Phase::Free);
        if slot.state().swap_if(state.pack(), free.pack()).is_err() {
            return;
        }
        // Extents are found by what was granted, not by what the slot says.
        if has_memory
            && !record.whole_pages
            && let Some(footprint) = self.small_range(&record)
        {
            let Record { segment, offset, .. } = record;
            self.give_back(Deferred { segment, offset, footprint, seat: state.seat, hollow: false });
        }
    }

    /// Takes back extents that were granted to a client that is gone and never became a sealed object.
    fn drop_orphans(&mut self, client: u32) {
        let table = &self.table;
        let orphans: Vec<u64> = self
            .extents
            .iter()
            .filter(|(_, extent)| extent.seat == client)
            .filter(|(_, extent)| {
                !extent.became_object(table.slot(extent.slot).and_then(|slot| slot.load(Ordering::Acquire)))
            })
            .map(|(start, _)| *start)
            .collect();
        for start in orphans {
            if let Some(extent) = self.extents.remove(&start) {
                self.counters.large -= extent.length;
                let warmth = if extent.backed { Warmth::Warm(client) } else { self.memory.cool(start, extent.length) };
                self.memory.free.insert(start, extent.length, warmth);
            }
        }
    }

    /// Changes an object's slot to closing, if the locator is right and the object still there; gives also whether
    /// others could see it. One without memory is gone at once.
    fn close(&mut self, locator: &Locator) -> Option<(u64, Deferred, bool)> {
        let slot = self.table.slot(locator.slot).filter(|_| locator.segment <= FILE_SEGMENT)?;
        let (state, record) = slot.read_consistent()?;
        if !is(locator, state, &record) {
            return None;
        }
        if state.phase == Phase::Spilled {
            self.close_spilled(locator.slot, state);
            return None;
        }
        if !matches!(state.phase, Phase::Sealed | Phase::Dropped) {
            return None;
        }
        let Some(footprint) = self.range(&slot, state, &record) else {
            self.counters.refused += 1;
            return None;
        };
        let in_memory = record.whole_pages && record.segment == 0;
        let extent = if in_memory { self.extents.get(&record.offset) } else { None };
        let hollow = state.phase == Phase::Dropped && extent.is_some_and(|extent| !extent.backed);
        let Record { segment, offset, .. } = record;
        let object = Deferred { segment, offset, footprint, seat: state.seat, hollow };
        protocol::advance(&slot.state(), state, Phase::Closing).then_some((
            hold(locator.slot, state.generation),
            object,
            state.phase == Phase::Sealed,
        ))
    }

    /// Bytes that an object takes, if what its slot says is possible after what was granted.
    pub(super) fn range(&self, slot: &Slot<'_>, state: State, record: &Record) -> Option<u64> {
        let extents = match &self.file {
            Some(file) if record.segment == FILE_SEGMENT => &file.extents,
            _ if record.segment == FILE_SEGMENT => return None,
            _ if !record.whole_pages => return self.small_range(record),
            _ => &self.extents,
        };
        let extent = extents.get(&record.offset)?;
        let same = extent.slot == slot.index && extent.generation == state.generation && record.length <= extent.length;
        same.then_some(extent.length)
    }

    fn small_range(&self, record: &Record) -> Option<u64> {
        let footprint = layout::footprint(record.length, false)?;
        let end = record.offset.checked_add(footprint).filter(|end| *end <= self.config.capacity)?;
        // The last extent that starts before the range's end is the only one that may reach into it.
        let extent = self.extents.range(..end).next_back();
        let inside = extent.is_some_and(|(start, extent)| start + extent.length > record.offset && footprint > 0);
        let possible = record.offset.is_multiple_of(UNIT) && !inside && footprint <= self.counters.small;
        (possible && !self.memory.free.overlaps(record.offset, footprint)).then_some(footprint)
    }

    /// Takes back those of the closed objects that nobody has pinned, and remembers the others.
    fn settle(&mut self, closed: HashMap<u64, Deferred>) {
        if closed.is_empty() {
            return;
        }
        let pinned = self.pinned(|word| closed.contains_key(&word));
        for (word, object) in closed {
            // What is being written elsewhere stays in place for that.
            if pinned.contains(&word) || self.elsewhere.spilling.contains(&word) {
                self.deferred.insert(word, object);
            } else {
                self.reclaim(word, object);
            }
        }
    }

    /// Returns the memory and the slot of a closed object.
    fn reclaim(&mut self, word: u64, object: Deferred) {
        self.give_back(object);
        self.drop_copy(word);
        let (index, generation) = unhold(word);
        if let Some(slot) = self.table.slot(index) {
            // Not read from the slot: a closing slot is nobody's but ours.
            let free = State { generation, seat: object.seat, phase: Phase::Free };
            protocol::release(&slot.state(), free);
        }
    }

    /// Returns an object's bytes to the free ranges; a living creator counts as their last mapper.
    pub(super) fn give_back(&mut self, object: Deferred) {
        if object.segment == FILE_SEGMENT {
            return self.give_file_back(object);
        }
        let Deferred { offset, footprint, seat, hollow, .. } = object;
        let seat = if self.clients.contains_key(&seat) { seat } else { 0 };
        let warmth = if hollow { self.memory.cool(offset, footprint) } else { Warmth::Warm(seat) };
        let extent = (footprint > 0).then(|| self.extents.remove(&offset)).flatten();
        if !self.memory.free.insert(offset, footprint, warmth) {
            self.counters.refused += 1;
        } else if extent.is_some() {
            self.counters.large -= footprint;
        } else {
            self.counters.small = self.counters.small.saturating_sub(footprint);
        }
    }
}

/// Whether the lane's cursor went past the place that the record says, so that the client did get it.
pub(super) fn moved(client: &Client, lane: u32, record: &Record) -> bool {
    let Some((granted, lease)) = client.lease(lane) else { return false };
    let Some(from) = record.offset.checked_sub(granted.start) else { return false };
    let Some(footprint) = layout::footprint(record.length, false) else { return false };
    from.checked_add(footprint).is_some_and(|end| end <= u64::from(lease.cursor) * UNIT)
}
