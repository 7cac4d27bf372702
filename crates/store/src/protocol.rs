//! The protocols on single shared words, generic over the words so that a model checker runs this very code.
//!
//! **Pin and free.** A reader *pins* by writing (slot, generation) to an entry that only its process writes, then a
//! fence, then a second look at the slot. The daemon *closes* by changing the slot, then a fence, then a look at all
//! entries. The two sequentially consistent fences make it impossible that both miss the other: either the reader sees
//! the slot closing and undoes its entry, or the daemon sees the entry and defers. There is no counter that a death
//! could leave wrong. Entries come in blocks with one bit each, set before an entry of the block is written and cleared
//! after the last one was, so that the daemon looks at no block that holds nothing.
//!
//! **Spill and restore.** An object that leaves the memory is closed the same way, to be spilled instead of closing;
//! where the daemon then sees an entry, it seals the object again. Bytes and place of one that comes back are written
//! before it is sealed again: who sees it sealed sees both. Slot and generation stay, so that a reader takes the place
//! from the slot, and only while it has it pinned.
//!
//! **Lease.** Client and daemon change one word, (epoch, cursor, limit), by compare-and-swap: what the client takes
//! and what the daemon takes back can't overlap.
//!
//! **Publish.** The sealed state is written with release, after all else of the slot; a reader takes the state before
//! and after all else, and believes what it read if both are the same.

use std::sync::atomic::Ordering;

use crate::layout::{Lease, Phase, State};

/// A shared 64-bit word.
pub(crate) trait Word {
    fn load(&self, order: Ordering) -> u64;
    fn store(&self, value: u64, order: Ordering);
    /// Strong compare-and-swap: acquire and release on success, acquire on failure.
    fn swap_if(&self, current: u64, new: u64) -> Result<u64, u64>;
    /// The fence that orders accesses to words of this kind.
    fn fence(order: Ordering);
}

/// Why an object can't be pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unpinned {
    /// It is not sealed (any more).
    Gone,
    /// It has no memory now, or is just losing it.
    Spilled,
}

/// Pins the object of `generation` in `slot` by the entry; undone if it isn't sealed (any more).
#[inline]
pub(crate) fn pin<W: Word>(entry: &W, hold: u64, slot: &W, generation: u32) -> Result<(), Unpinned> {
    // Relaxed is enough: the fence orders it before the second look, and the value carries no data.
    entry.store(hold, Ordering::Relaxed);
    W::fence(Ordering::SeqCst);
    // Acquire: pairs with the release of `seal`, so that a sealed object's bytes are visible.
    match State::unpack(slot.load(Ordering::Acquire)).filter(|state| state.generation == generation) {
        Some(State { phase: Phase::Sealed, .. }) => Ok(()),
        other => {
            unpin(entry);
            let spilled = other.is_some_and(|state| state.phase == Phase::Spilled);
            Err(if spilled { Unpinned::Spilled } else { Unpinned::Gone })
        }
    }
}

/// Clears an entry. Release: all reads of the object come before the daemon can see it unpinned.
#[inline]
pub(crate) fn unpin(entry: &impl Word) {
    entry.store(0, Ordering::Release);
}

/// Writes which blocks of entries hold something: a bit before the first entry of its block is written, and again
/// after the last was cleared. One thread at a time. Release: whoever sees a bit cleared sees the reads done.
#[inline]
pub(crate) fn mark(blocks: &impl Word, bits: u64) {
    blocks.store(bits, Ordering::Release);
}

/// Whether a slot's word says that this generation is readable.
#[cfg(all(test, loom))]
pub(crate) fn is_sealed(word: u64, generation: u32) -> bool {
    State::unpack(word).is_some_and(|state| state.phase == Phase::Sealed && state.generation == generation)
}

/// Changes a slot from one state to another; false if it was in a third. The release makes bytes written before
/// visible to whoever acquires the new state: this is `seal`.
#[inline]
pub(crate) fn advance(slot: &impl Word, from: State, to: Phase) -> bool {
    slot.swap_if(from.pack(), from.with(to).pack()).is_ok()
}

/// Claims a free slot for a seat, in the next generation; `before` is told that generation just before the attempt.
pub(crate) fn claim<W: Word>(slot: &W, seat: u32, before: impl FnOnce(u32)) -> Option<State> {
    let free = State::unpack(slot.load(Ordering::Relaxed)).filter(|state| state.phase == Phase::Free)?;
    let claimed = State { generation: free.next_generation(), seat, phase: Phase::Claimed };
    before(claimed.generation);
    // Acquire: what the former object's readers and the daemon did comes before what we write.
    slot.swap_if(free.pack(), claimed.pack()).ok()?;
    // Pairs with the fence of `read_consistent`: whoever reads a word that is written from here on sees the claim too.
    W::fence(Ordering::Release);
    Some(claimed)
}

/// Reads what belongs to a slot's state; `None` if the slot is free or changed meanwhile.
pub(crate) fn read_consistent<W: Word, R>(slot: &W, read: impl FnOnce() -> R) -> Option<(State, R)> {
    let before = slot.load(Ordering::Acquire);
    let state = State::unpack(before).filter(|state| state.phase != Phase::Free)?;
    let record = read();
    W::fence(Ordering::Acquire); // the record's words before the second look at the state
    (slot.load(Ordering::Relaxed) == before).then_some((state, record))
}

/// Daemon only: to be called between closing slots and looking at entries with [`held`], once for a batch.
pub(crate) fn fence_before_scan<W: Word>() {
    W::fence(Ordering::SeqCst);
}

/// Daemon only: what an entry, or a word of marks, holds. Acquire: pairs with [`unpin`] and [`mark`].
#[inline]
pub(crate) fn held(entry: &impl Word) -> u64 {
    entry.load(Ordering::Acquire)
}

/// Daemon only: makes a closed slot free for the next claim, after its memory was taken back.
pub(crate) fn release(slot: &impl Word, free: State) {
    slot.store(free.pack(), Ordering::Release);
}

/// Client only: moves the cursor of a lease that was read before; false if the daemon took the tail back meanwhile.
pub(crate) fn bump(word: &impl Word, lease: Lease, cursor: u32) -> bool {
    word.swap_if(lease.pack(), Lease { cursor, ..lease }.pack()).is_ok()
}

/// Daemon only: cuts a lease that was read before at its cursor; false if the client took some of it meanwhile.
pub(crate) fn cut(word: &impl Word, lease: Lease) -> bool {
    word.swap_if(lease.pack(), Lease { limit: lease.cursor, ..lease }.pack()).is_ok()
}
