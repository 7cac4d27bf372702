//! The protocols of bells and rings on single shared words, generic over the words so that a model checker runs this very
//! code.
//!
//! Both rest on the same shape, twice over: one side changes a word and then looks at another, the other side the other
//! way round, each with a sequentially consistent fence between its change and its look. One of the two sees the other.
//!
//! **Bell.** *Change, look*: the sender publishes a message, then looks where to ring. The loop says that it sleeps, then
//! looks for messages once more. The thread says that it listens, then looks for messages.
//!
//! **Ring.** *Change, look*: the writer says that it starves, then looks whether there is room after all. The reader
//! says how far it has read, then looks whether the writer starves. Bytes are published by the release store of the
//! writer's counter, and given back by that of the reader's.

use std::sync::atomic::Ordering;

use crate::ring::Broken;

/// A shared 64-bit word.
pub(crate) trait Word {
    fn load(&self, order: Ordering) -> u64;
    fn store(&self, value: u64, order: Ordering);
    fn swap(&self, value: u64, order: Ordering) -> u64;
    /// Strong compare-and-swap without order of its own; whether it took place.
    fn swap_if(&self, current: u64, new: u64) -> bool;
    /// A sequentially consistent fence between accesses to words of this kind. Its place tells it from the others, of
    /// which a model leaves out one at a time.
    fn fence(&self, place: Fence);
}

/// The places of fences: between the change of a word and the look at another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fence {
    /// A message was left; who listens?
    Ring,
    /// The loop sleeps; did something come?
    Sleep,
    /// Something happened that concerns the thread; was it told already?
    Knock,
    /// The thread listens; did something come?
    Listen,
    /// The writer starves; is there room?
    Starve,
    /// Bytes were read; does the writer starve?
    Read,
}

/// Who listens at a bell.
///
/// Both words count in turns, above the bits that say what is: the loop's with each sleep, the thread's with each time it
/// listens. Who rings strikes first and then notes it, for that turn alone: a process that is killed or stopped between
/// leaves a wake-up too many, never one too few.
///
/// The owner changes its words by swaps: each comes, in the word's own order, after the notes that it answers, which a
/// store would leave open.
pub(crate) mod bell {
    use super::{Fence, Ordering, Word};

    /// The bits of the loop's word that say where it is.
    const PLACE: u64 = 3;
    /// There is no loop: the thread serves everything at once.
    const ABSENT: u64 = 0;
    /// The loop sleeps, or will as soon as it has looked once more.
    const ASLEEP: u64 = 1;
    /// The loop runs or was struck, and looks before it sleeps.
    const AWAKE: u64 = 2;
    /// The loop looks all the time, and once more before it does anything else: nobody has to wake anybody.
    const WATCHING: u64 = 3;

    /// The bit of the thread's word: it was struck in this turn.
    const TOLD: u64 = 1;

    /// Whose event is struck.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Ear {
        Loop,
        Thread,
    }

    /// Wakes who listens, for a message that was left.
    #[inline]
    pub(crate) fn ring<W: Word>(attention: &W, knocked: &W, strike: impl Fn(Ear)) {
        attention.fence(Fence::Ring);
        // A loop that was struck and is not the one that was seen may have ended.
        if !take(attention, &strike) {
            tell(knocked, &strike);
        }
    }

    /// Wakes the loop if it sleeps, for what only it can do.
    #[inline]
    pub(crate) fn call_loop<W: Word>(attention: &W, strike: impl Fn(Ear)) {
        attention.fence(Fence::Ring);
        take(attention, &strike);
    }

    /// Wakes the thread: who was told is not told again before it has listened.
    #[inline]
    pub(crate) fn knock<W: Word>(knocked: &W, strike: impl Fn(Ear)) {
        knocked.fence(Fence::Knock);
        tell(knocked, &strike);
    }

    #[inline]
    fn take<W: Word>(attention: &W, strike: &impl Fn(Ear)) -> bool {
        let seen = attention.load(Ordering::Relaxed);
        match seen & PLACE {
            WATCHING => true,
            ASLEEP => {
                strike(Ear::Loop);
                attention.swap_if(seen, seen - ASLEEP + AWAKE)
            }
            _ => false,
        }
    }

    #[inline]
    fn tell<W: Word>(knocked: &W, strike: &impl Fn(Ear)) {
        let seen = knocked.load(Ordering::Relaxed);
        if seen & TOLD == 0 {
            strike(Ear::Thread);
            // Otherwise somebody else has told it, or it has listened since: it looks after that.
            knocked.swap_if(seen, seen | TOLD);
        }
    }

    /// The loop goes to sleep, and looks once more after this.
    #[inline]
    pub(crate) fn sleep<W: Word>(attention: &W) {
        let turn = attention.load(Ordering::Relaxed) & !PLACE;
        attention.swap(turn.wrapping_add(PLACE + 1) | ASLEEP, Ordering::Relaxed);
        attention.fence(Fence::Sleep);
    }

    /// The loop looks all the time from here on, until it sleeps or wakes up, after each of which it looks once more.
    #[inline]
    pub(crate) fn watch<W: Word>(attention: &W) {
        attention.swap(attention.load(Ordering::Relaxed) & !PLACE | WATCHING, Ordering::Relaxed);
    }

    /// The loop runs, and looks before it sleeps.
    #[inline]
    pub(crate) fn wake_up<W: Word>(attention: &W) {
        attention.swap(attention.load(Ordering::Relaxed) & !PLACE | AWAKE, Ordering::Relaxed);
    }

    /// The loop ends: the thread is woken for what the loop was woken for.
    pub(crate) fn leave<W: Word>(attention: &W, knocked: &W, strike: impl Fn(Ear)) {
        attention.swap(attention.load(Ordering::Relaxed) & !PLACE | ABSENT, Ordering::Relaxed);
        knock(knocked, strike);
    }

    /// Whether there is a loop.
    pub(crate) fn is_attended<W: Word>(attention: &W) -> bool {
        attention.load(Ordering::Relaxed) & PLACE != ABSENT
    }

    /// The thread can be told again from here on, so it looks after this.
    pub(crate) fn listen<W: Word>(knocked: &W) {
        let turn = knocked.load(Ordering::Relaxed) & !TOLD;
        knocked.swap(turn.wrapping_add(TOLD + 1), Ordering::Relaxed);
        knocked.fence(Fence::Listen);
    }
}

/// The writer's side of a lane of `SIZE` bytes: its counter, and the reader's as it was last seen.
#[derive(Debug, Default)]
pub(crate) struct Writing<const SIZE: u64> {
    written: u64,
    read: u64,
}

impl<const SIZE: u64> Writing<SIZE> {
    /// Where the next byte goes: the counter, which is never taken from shared memory.
    #[inline]
    pub(crate) fn at(&self) -> u64 {
        self.written
    }

    /// How many of so many bytes there is room for: the caller may fill that many. Acquire: the reader is done with them.
    #[inline]
    pub(crate) fn claim<W: Word>(&mut self, read: &W, wanted: usize) -> Result<usize, Broken> {
        let mut room = SIZE - (self.written - self.read);
        if room < wanted as u64 {
            let read = read.load(Ordering::Acquire);
            if read < self.read || read > self.written {
                return Err(Broken);
            }
            self.read = read;
            room = SIZE - (self.written - read);
        }
        Ok(wanted.min(room as usize))
    }

    /// Shows the reader so many bytes, which were filled. Release: with what is in them.
    #[inline]
    pub(crate) fn publish<W: Word>(&mut self, written: &W, count: usize) {
        self.written += count as u64;
        written.store(self.written, Ordering::Release);
    }

    /// Asks to be told of room. Whether there is some already.
    pub(crate) fn starve<W: Word>(&self, starved: &W, read: &W) -> bool {
        starved.store(1, Ordering::Relaxed);
        starved.fence(Fence::Starve);
        read.load(Ordering::Relaxed) != self.read
    }
}

/// The reader's side of a lane of `SIZE` bytes: its counter.
#[derive(Debug, Default)]
pub(crate) struct Reading<const SIZE: u64> {
    read: u64,
}

impl<const SIZE: u64> Reading<SIZE> {
    /// Where the next byte is: the counter, which is never taken from shared memory.
    #[inline]
    pub(crate) fn at(&self) -> u64 {
        self.read
    }

    /// How many bytes are there, to be read. Acquire: with what is in them.
    #[inline]
    pub(crate) fn available<W: Word>(&self, written: &W) -> Result<usize, Broken> {
        let length = written.load(Ordering::Acquire).wrapping_sub(self.read);
        if length > SIZE { Err(Broken) } else { Ok(length as usize) }
    }

    /// Gives so many bytes back, which were read. Release: nothing of them is looked at any more.
    #[inline]
    pub(crate) fn consume<W: Word>(&mut self, read: &W, count: usize) {
        self.read += count as u64;
        read.store(self.read, Ordering::Release);
    }
}

/// After reading: whether the writer waits for room, and is to be told. It is told once.
#[inline]
pub(crate) fn take_starved<W: Word>(starved: &W) -> bool {
    starved.fence(Fence::Read);
    starved.load(Ordering::Relaxed) != 0 && starved.swap(0, Ordering::Relaxed) != 0
}

/// Whether all that was written has been read, for threads other than the reader.
#[inline]
pub(crate) fn is_drained<W: Word>(written: &W, read: &W) -> bool {
    written.load(Ordering::Relaxed) == read.load(Ordering::Relaxed)
}

/// A word in a shared mapping.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shared<'a>(pub(crate) &'a std::sync::atomic::AtomicU64);

impl Word for Shared<'_> {
    #[inline]
    fn load(&self, order: Ordering) -> u64 {
        self.0.load(order)
    }

    #[inline]
    fn store(&self, value: u64, order: Ordering) {
        self.0.store(value, order);
    }

    #[inline]
    fn swap(&self, value: u64, order: Ordering) -> u64 {
        self.0.swap(value, order)
    }

    #[inline]
    fn swap_if(&self, current: u64, new: u64) -> bool {
        self.0.compare_exchange(current, new, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    #[inline]
    fn fence(&self, _: Fence) {
        std::sync::atomic::fence(Ordering::SeqCst);
    }
}
