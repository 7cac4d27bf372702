//! Which of this client's hold words are in use. Known only in its own process: the daemon reads the words themselves.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use heliostat_proto::Locator;

use crate::layout::Phase;
use crate::pages::Pages;
use crate::protocol;
use crate::table::Table;

pub(super) struct Holds {
    limit: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    free: Vec<u32>,
    next: u32,
    /// Hold words of dropped drafts that the daemon may not have heard of yet: word, slot, generation.
    dropped: Vec<(u32, u32, u32)>,
}

impl Holds {
    pub(super) fn new(limit: u32) -> Self {
        Self { limit, state: Mutex::default() }
    }

    /// A hold word that nobody else in this process uses; `None` if all are in use.
    pub(super) fn take(&self, pages: &Pages, table: &Table) -> Option<u32> {
        let mut state = self.state();
        if state.free.is_empty() {
            state.sweep(pages, table);
        }
        // Last given, first taken: the daemon looks at all words up to the highest ever used.
        if let Some(index) = state.free.pop() {
            return Some(index);
        }
        let index = state.next;
        if index >= self.limit {
            return None;
        }
        state.next += 1;
        // Before the word is written; the fence of the pin that follows orders both against the daemon's scan.
        pages.high_water().store(state.next.into(), Ordering::Release);
        Some(index)
    }

    /// Gives a cleared hold word back.
    pub(super) fn give(&self, index: u32) {
        self.state().free.push(index);
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
        let free = &mut self.free;
        self.dropped.retain(|&(index, slot, generation)| {
            let now = table.slot(slot).and_then(|slot| slot.load(Ordering::Acquire));
            let waiting = now.is_some_and(|now| now.generation == generation && now.phase == Phase::Dropped);
            if !waiting {
                protocol::unpin(pages.hold(index));
                free.push(index);
            }
            waiting
        });
    }
}
