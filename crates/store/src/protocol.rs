//! The pin and free protocol, generic over the words so that a model checker can run this very code.
//!
//! A reader *pins* by writing (slot, generation) to an entry that only its process writes, then a fence, then a second
//! look at the slot. The daemon *closes* by changing the slot, then a fence, then a look at all entries. The two
//! sequentially consistent fences make it impossible that both miss the other: either the reader sees the slot closing
//! and undoes its entry, or the daemon sees the entry and defers. There is no counter that a death could leave wrong.

use std::sync::atomic::Ordering;

#[cfg(loom)]
use loom::sync::atomic::fence;
#[cfg(not(loom))]
use std::sync::atomic::fence;

use crate::layout::{Phase, State};

/// A shared 64-bit word.
pub(crate) trait Word {
    fn load(&self, order: Ordering) -> u64;
    fn store(&self, value: u64, order: Ordering);
    /// Strong compare-and-swap: acquire and release on success, acquire on failure.
    fn swap_if(&self, current: u64, new: u64) -> Result<u64, u64>;
}

macro_rules! word {
    ($atomic:ty) => {
        impl Word for $atomic {
            #[inline]
            fn load(&self, order: Ordering) -> u64 {
                self.load(order)
            }

            #[inline]
            fn store(&self, value: u64, order: Ordering) {
                self.store(value, order);
            }

            #[inline]
            fn swap_if(&self, current: u64, new: u64) -> Result<u64, u64> {
                self.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire)
            }
        }
    };
}

word!(std::sync::atomic::AtomicU64);
#[cfg(loom)]
word!(loom::sync::atomic::AtomicU64);

/// Pins the object of `generation` in `slot` by the entry; undone and false if it isn't sealed (any more).
#[inline]
pub(crate) fn pin(entry: &impl Word, hold: u64, slot: &impl Word, generation: u32) -> bool {
    // Relaxed is enough: the fence orders it before the second look, and the value carries no data.
    entry.store(hold, Ordering::Relaxed);
    fence(Ordering::SeqCst);
    // Acquire: pairs with the release of `seal`, so that a sealed object's bytes are visible.
    let sealed = is_sealed(slot.load(Ordering::Acquire), generation);
    if !sealed {
        unpin(entry);
    }
    sealed
}

/// Clears an entry. Release: all reads of the object come before the daemon can see it unpinned.
#[inline]
pub(crate) fn unpin(entry: &impl Word) {
    entry.store(0, Ordering::Release);
}

/// Whether a slot's word says that this generation is readable.
#[inline]
pub(crate) fn is_sealed(word: u64, generation: u32) -> bool {
    State::unpack(word).is_some_and(|state| state.phase == Phase::Sealed && state.generation == generation)
}

/// Changes a slot from one state to another; false if it was in a third. The release makes bytes written before
/// visible to whoever acquires the new state: this is `seal`.
#[inline]
pub(crate) fn advance(slot: &impl Word, from: State, to: Phase) -> bool {
    slot.swap_if(from.pack(), from.with(to).pack()).is_ok()
}

/// Daemon only: to be called between closing slots and looking at entries with [`held`], once for a batch.
pub(crate) fn fence_before_scan() {
    fence(Ordering::SeqCst);
}

/// Daemon only: what an entry holds. Acquire: pairs with [`unpin`].
#[inline]
pub(crate) fn held(entry: &impl Word) -> u64 {
    entry.load(Ordering::Acquire)
}
