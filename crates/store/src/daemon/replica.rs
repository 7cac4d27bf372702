//! A copy of a daemon and of all shared words, to try a recovery on without disturbing anything.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use heliostat_proto::{Locator, ObjectId};
use heliostat_shm::map::ReadMap;
use heliostat_shm::memfd::Memfd;

use super::{Client, StoreDaemon};
use crate::config::StoreConfig;
use crate::layout::{LANES, Phase, unhold};
use crate::pages::Pages;
use crate::protocol::{self, Word};

/// What a recovery overlooks: the faults that the checker must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forget {
    Nothing,
    /// The first hold word that is in use.
    Draft,
    /// That a pin is the dead client's: it stays as if another client had it.
    Pin,
    /// Which slot was being given memory.
    Operation,
    /// The unused tail of a lease.
    Tail,
    /// Memory that an object is being brought back to.
    Restore,
    /// That an object has no memory.
    Spill,
}

impl StoreDaemon {
    /// The copy, contents and all.
    pub(crate) fn replica(&self) -> Self {
        let mut copy = Self::create(StoreConfig { ..self.config }).unwrap();
        self.table.copy_to(&copy.table);
        let (contents, mut from) = (ReadMap::new(&self.memory.segment).unwrap(), 0);
        while let Some(range) = self.memory.segment.next_touched(from).unwrap() {
            let bytes = contents.bytes(range.start, range.end - range.start).unwrap();
            copy.memory.segment.write_at(range.start, bytes).unwrap();
            from = range.end;
        }
        copy.memory.free = self.memory.free.clone();
        copy.clients = self.clients.iter().map(|(seat, client)| (*seat, client.replica(self.config.holds))).collect();
        copy.extents.clone_from(&self.extents);
        copy.unbacked.clone_from(&self.unbacked);
        copy.deferred.clone_from(&self.deferred);
        copy.elsewhere = self.elsewhere.clone();
        copy.counters = self.counters.clone();
        copy
    }

    /// Makes the recovery of `victim` overlook something.
    pub(crate) fn forget(&mut self, victim: u32, what: Forget) {
        let Some(mut client) = self.clients.remove(&victim) else { return };
        let pages = &client.pages;
        let word = (0..self.config.holds).map(|index| pages.hold(index)).find(|word| protocol::held(word) != 0);
        match (what, word) {
            (Forget::Draft, Some(word)) => protocol::unpin(&word),
            (Forget::Pin, Some(word)) => {
                if let Some(other) = self.clients.values().next() {
                    let free =
                        (0..self.config.holds).rev().find(|index| protocol::held(&other.pages.hold(*index)) == 0);
                    other.pages.hold(free.unwrap()).store(protocol::held(&word), Ordering::Release);
                    other.pages.high_water().store(self.config.holds.into(), Ordering::Release);
                    protocol::mark(&other.pages.marks(0), u64::MAX);
                }
            }
            (Forget::Operation, _) => (0..LANES).for_each(|lane| pages.operation(lane).store(0, Ordering::Release)),
            (Forget::Tail, _) => client.lanes = [None; LANES as usize],
            (Forget::Restore, _) => self.elsewhere.restoring.clear(),
            (Forget::Spill, _) => self.elsewhere.spilled.clear(),
            _ => {}
        }
        self.clients.insert(victim, client);
    }

    /// Ends what is being written elsewhere or brought back, as if the storage had failed.
    pub(crate) fn end_transfers(&mut self) {
        let words = self.elsewhere.spilling.iter().chain(self.elsewhere.restoring.keys()).copied();
        let locators = words.map(|word| {
            let (slot, generation) = unhold(word);
            let record = self.table.slot(slot).unwrap().read();
            Locator { segment: 0, slot, offset: record.offset, length: record.length, generation }
        });
        for locator in locators.collect::<Vec<_>>() {
            self.finish_restore(&locator, false);
            self.finish_spill(&[(locator, false)]);
        }
    }

    /// Every sealed object that has memory, with its contents.
    pub(crate) fn sealed(&self) -> Vec<(ObjectId, Locator, Vec<u8>)> {
        let contents = ReadMap::new(&self.memory.segment).unwrap();
        let slots = (0..self.config.slots).filter_map(|index| self.table.slot(index as u32));
        slots
            .filter_map(|slot| {
                let (state, record) = slot.read_consistent()?;
                let locator = slot.locator(state, &record);
                let bytes = contents.bytes(locator.offset, locator.length).unwrap().to_vec();
                (state.phase == Phase::Sealed).then_some((record.id, locator, bytes))
            })
            .collect()
    }

    /// The slots that aren't free, for messages.
    pub(crate) fn describe(&self) -> Vec<String> {
        let slots = (0..self.config.slots).filter_map(|index| self.table.slot(index as u32));
        let taken = slots.filter_map(|slot| Some((slot.index, slot.load(Ordering::Acquire)?)));
        taken.filter(|(_, state)| state.phase != Phase::Free).map(|(n, state)| format!("{n}: {state:?}")).collect()
    }

    /// What is wrong with the slots and accounts, if nothing is going on.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let stats = self.stats();
        if stats.sum() != stats.capacity || stats.refused > 0 {
            faults.push(format!("the accounts are wrong: {stats:?}"));
        }
        let seats: HashSet<u32> = self.clients.keys().copied().collect();
        for slot in (0..self.config.slots).filter_map(|index| self.table.slot(index as u32)) {
            let Some(state) = slot.load(Ordering::Acquire) else {
                faults.push(format!("slot {} has no phase", slot.index));
                continue;
            };
            let word = crate::layout::hold(slot.index, state.generation);
            let waiting = self.deferred.contains_key(&word);
            let sound = match state.phase {
                Phase::Free | Phase::Sealed => true,
                Phase::Claimed | Phase::Draft | Phase::Dropped => seats.contains(&state.seat),
                Phase::Closing => waiting || self.elsewhere.restoring.contains_key(&word),
                Phase::Spilled => self.elsewhere.spilled.contains_key(&word),
            };
            if !sound {
                faults.push(format!("slot {} leaked: {state:?}", slot.index));
            }
        }
        faults
    }
}

impl Client {
    fn replica(&self, holds: u32) -> Self {
        let file = Memfd::create("replica", Pages::bytes(holds)).unwrap();
        let pages = Pages::new(&file, holds).unwrap();
        self.pages.copy_to(&pages);
        Self { identity: self.identity, pages, lanes: self.lanes }
    }
}
