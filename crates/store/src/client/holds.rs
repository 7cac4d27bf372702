//! Which of this client's hold words are in use. Known only in its own process: the daemon reads the words themselves.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use heliostat_proto::Locator;
use heliostat_shm::memfd::{Memfd, PAGE, ReserveError};

use crate::layout::{FIRST_HOLDS, Phase};
use crate::pages::Pages;
use crate::protocol::{self, Word};
use crate::table::Table;

pub(super) struct Holds {
    limit: u32,
    /// The client's pages, to reserve more of them, and what to leave of the system's memory to others.
    file: Memfd,
    leave: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    free: Vec<u32>,
    next: u32,
    /// Hold words that have memory.
    reserved: u32,
    /// How many hold words of each block are in use.
    used: Vec<u32>,
    /// The words of marks as they were written last.
    marks: Vec<u64>,
    /// Hold words of dropped drafts that the daemon may not have heard of yet: word, slot, generation.
    dropped: Vec<(u32, u32, u32)>,
}

/// Why there is no hold word to be had.
pub(super) enum NoHold {
    /// All are in use.
    Limit,
    /// There is no memory for more of them.
    Memory(ReserveError),
}

impl Holds {
    pub(super) fn new(limit: u32, file: Memfd, leave: u64) -> Self {
        let state = State { reserved: limit.min(FIRST_HOLDS), ..State::default() };
        Self { limit, file, leave, state: Mutex::new(state) }
    }

    /// A hold word that nobody else in this process uses, in a block that is marked.
    pub(super) fn take(&self, pages: &Pages, table: &Table) -> Result<u32, NoHold> {
        let mut state = self.state();
        if state.free.is_empty() {
            state.sweep(pages, table);
        }
        // Last given, first taken: few blocks are in use at a time.
        let index = match state.free.pop() {
            Some(index) => index,
            None if state.next >= self.limit => return Err(NoHold::Limit),
            None => {
                if state.next >= state.reserved {
                    state.reserved = self.reserve(state.reserved).map_err(NoHold::Memory)?;
                }
                let index = state.next;
                state.next += 1;
                // Before the word is written; the fence of the pin that follows orders both against the daemon's scan.
                pages.high_water().store(state.next.into(), Ordering::Release);
                index
            }
        };
        state.enter(index, pages);
        Ok(index)
    }

    /// Reserves memory for twice as many hold words; gives how many have some then.
    fn reserve(&self, before: u32) -> Result<u32, ReserveError> {
        let after = before.saturating_mul(2).min(self.limit);
        let from = Pages::bytes(before) & !(PAGE - 1);
        let to = Pages::bytes(after).next_multiple_of(PAGE).min(self.file.size());
        self.file.reserve_within(from, to.saturating_sub(from), self.leave)?;
        Ok(after)
    }

    /// Gives a cleared hold word back.
    pub(super) fn give(&self, index: u32, pages: &Pages) {
        self.state().leave(index, pages);
    }

    /// Gives the hold word of a dropped draft back, as soon as the daemon has taken the draft.
    pub(super) fn give_after(&self, index: u32, draft: &Locator, pages: &Pages, table: &Table) {
        let mut state = self.state();
        state.dropped.push((index, draft.slot, draft.generation));
        state.sweep(pages, table);
    }

    pub(super) fn in_use(&self, pages: &Pages, table: &Table) -> usize {
        let mut state = self.state();
        state.sweep(pages, table);
        state.next as usize - state.free.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn sweep(&mut self, pages: &Pages, table: &Table) {
        for (index, slot, generation) in std::mem::take(&mut self.dropped) {
            let now = table.slot(slot).and_then(|slot| slot.load(Ordering::Acquire));
            if now.is_some_and(|now| now.generation == generation && now.phase == Phase::Dropped) {
                self.dropped.push((index, slot, generation));
            } else {
                protocol::unpin(&pages.hold(index));
                self.leave(index, pages);
            }
        }
    }

    fn enter(&mut self, index: u32, pages: &Pages) {
        let block = (index / pages.block()) as usize;
        if block >= self.used.len() {
            self.used.resize(block + 1, 0);
            self.marks.resize(block / 64 + 1, 0);
        }
        self.used[block] += 1;
        if self.used[block] == 1 {
            self.mark(block, pages);
        }
    }

    fn leave(&mut self, index: u32, pages: &Pages) {
        self.free.push(index);
        let block = (index / pages.block()) as usize;
        self.used[block] -= 1;
        if self.used[block] == 0 {
            self.mark(block, pages);
        }
    }

    /// Writes whether a block holds something.
    fn mark(&mut self, block: usize, pages: &Pages) {
        let marks = &mut self.marks[block / 64];
        *marks ^= 1 << (block % 64);
        protocol::mark(&pages.marks((block / 64) as u32), *marks);
    }
}
