//! How processes wake each other: each has a bell, which others ring after they left something for it.
//!
//! A process has an event loop, where user code may run for long, and a thread that is always there. The bell says where
//! to ring: at the loop while it sleeps, at the thread otherwise, which looks a little later whether the loop has served
//! what came. Who sleeps looks once more after having said so, and who rings has left its message before it looks at
//! the bell (both with a sequentially consistent fence between): one of the two sees the other.
//!
//! ```
//! use heliostat_shm::bell::{Bell, Ringer};
//! use rustix::event::{PollFd, PollFlags, poll};
//!
//! let bell = Bell::create()?;
//! let owner = Ringer::open(bell.share()?)?;
//! let other = Ringer::open(bell.share()?)?; // in another process
//!
//! // A turn of the owner's event loop.
//! owner.sleep();
//! // ... looks whether something came already, and calls `wake_up` instead of polling if so ...
//! # other.ring(); // leaves a message, and
//! poll(&mut [PollFd::from_borrowed_fd(owner.at_loop(), PollFlags::IN)], None)?; // until `other.ring()`
//! owner.hush_loop();
//! owner.wake_up();
//! // ... takes what came ...
//!
//! // The owner's thread is woken while the loop runs.
//! other.ring();
//! poll(&mut [PollFd::from_borrowed_fd(owner.at_thread(), PollFlags::IN)], None)?;
//! owner.hush_thread();
//! owner.listen();
//! // ... takes what came, if the loop has not ...
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

use crate::map::{MapError, WordMap};
use crate::memfd::{Memfd, MemfdError, PAGE};
use crate::protocol::Shared;
use crate::protocol::bell::{self, Ear};

/// Descriptors of a bell, in the order of [`Bell::share`].
pub const BELL_FDS: usize = 3;

const ATTENTION: u64 = 0;
const KNOCKED: u64 = 64;

/// A bell could not be made or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BellError {
    /// Its memory.
    #[error(transparent)]
    Memfd(#[from] MemfdError),
    /// Its mapping.
    #[error(transparent)]
    Map(#[from] MapError),
    /// Its descriptors.
    #[error("cannot make or pass the descriptors of a bell: {0}")]
    Descriptors(#[from] std::io::Error),
    /// A received one has another form.
    #[error("a bell has {PAGE} bytes and {BELL_FDS} descriptors")]
    Form,
}

/// A process's bell, to be shared with it and with others.
#[derive(Debug)]
pub struct Bell {
    memory: Memfd,
    at_loop: OwnedFd,
    at_thread: OwnedFd,
}

impl Bell {
    /// A new bell, at which only the thread listens.
    pub fn create() -> Result<Self, BellError> {
        let memory = Memfd::create("heliostat-bell", PAGE)?;
        let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(std::io::Error::from);
        Ok(Self { memory, at_loop: event()?, at_thread: event()? })
    }

    /// Descriptors for another process: the word's memory, the loop's and the thread's event.
    pub fn share(&self) -> Result<[OwnedFd; BELL_FDS], BellError> {
        Ok([self.memory.share()?, self.at_loop.try_clone()?, self.at_thread.try_clone()?])
    }
}

/// An open bell: rung by others, listened to by its owner.
#[derive(Debug)]
pub struct Ringer {
    words: WordMap,
    at_loop: OwnedFd,
    at_thread: OwnedFd,
}

impl Ringer {
    /// Opens what [`Bell::share`] gave.
    pub fn open(fds: [OwnedFd; BELL_FDS]) -> Result<Self, BellError> {
        let [memory, at_loop, at_thread] = fds;
        let memory = Memfd::from_fd(memory)?;
        if memory.size() != PAGE {
            return Err(BellError::Form);
        }
        Ok(Self { words: WordMap::new(&memory)?, at_loop, at_thread })
    }

    fn word(&self, offset: u64) -> Shared<'_> {
        Shared(self.words.word(offset).expect("both words lie within the page, whose size was checked"))
    }

    #[inline]
    fn attention(&self) -> Shared<'_> {
        self.word(ATTENTION)
    }

    #[inline]
    fn knocked(&self) -> Shared<'_> {
        self.word(KNOCKED)
    }

    /// Wakes the owner, who was left something.
    #[inline]
    pub fn ring(&self) {
        bell::ring(&self.attention(), &self.knocked(), |ear| self.strike(ear));
    }

    /// Wakes the owner's thread, whatever its loop does.
    #[inline]
    pub fn knock(&self) {
        bell::knock(&self.knocked(), |ear| self.strike(ear));
    }

    /// Wakes the loop if it sleeps, for what only the loop can do.
    #[inline]
    pub fn call_loop(&self) {
        bell::call_loop(&self.attention(), |ear| self.strike(ear));
    }

    fn strike(&self, ear: Ear) {
        let event = if ear == Ear::Loop { &self.at_loop } else { &self.at_thread };
        // A full counter wakes as well.
        let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
    }

    /// Owner: the loop goes to sleep, and looks once more after this.
    #[inline]
    pub fn sleep(&self) {
        bell::sleep(&self.attention());
    }

    /// Owner: the loop looks all the time, so that nobody has to wake it, until it sleeps or wakes up; after either it
    /// looks once more.
    #[inline]
    pub fn watch(&self) {
        bell::watch(&self.attention());
    }

    /// Owner: the loop runs, and looks before it sleeps.
    #[inline]
    pub fn wake_up(&self) {
        bell::wake_up(&self.attention());
    }

    /// Owner: there is no loop (any more). What it was woken for and has not served is the thread's.
    pub fn leave(&self) {
        bell::leave(&self.attention(), &self.knocked(), |ear| self.strike(ear));
    }

    /// Owner: whether a loop serves what comes.
    pub fn is_attended(&self) -> bool {
        bell::is_attended(&self.attention())
    }

    /// Owner: takes the loop's event back.
    #[inline]
    pub fn hush_loop(&self) {
        hush(&self.at_loop);
    }

    /// Owner: takes the thread's event back. Until it [listens](Self::listen) again, nobody knocks.
    pub fn hush_thread(&self) {
        hush(&self.at_thread);
    }

    /// Owner: knocks from here on wake the thread again, so it looks after this.
    pub fn listen(&self) {
        bell::listen(&self.knocked());
    }

    /// What the loop polls.
    pub fn at_loop(&self) -> BorrowedFd<'_> {
        self.at_loop.as_fd()
    }

    /// What the thread polls.
    pub fn at_thread(&self) -> BorrowedFd<'_> {
        self.at_thread.as_fd()
    }
}

fn hush(event: &OwnedFd) {
    let mut count = [0; 8];
    let _ = rustix::io::read(event, &mut count);
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn rung(fd: BorrowedFd<'_>) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() > 0
    }

    #[test]
    fn it_rings_where_somebody_listens_and_once() {
        let bell = Bell::create().unwrap();
        let (owner, other) =
            (Ringer::open(bell.share().unwrap()).unwrap(), Ringer::open(bell.share().unwrap()).unwrap());
        other.ring();
        assert!(rung(owner.at_thread()) && !rung(owner.at_loop()), "no loop: the thread");
        owner.hush_thread();
        other.ring();
        assert!(!rung(owner.at_thread()), "it was told and has not looked yet");
        owner.listen();
        owner.sleep();
        other.ring();
        assert!(rung(owner.at_loop()) && !rung(owner.at_thread()), "a sleeping loop");
        owner.hush_loop();
        other.ring();
        other.ring();
        assert!(rung(owner.at_thread()) && !rung(owner.at_loop()), "a loop that was woken and runs");
        owner.hush_thread();
        owner.listen();
        assert!(!rung(owner.at_thread()));
        owner.leave();
        assert!(rung(owner.at_thread()) && !owner.is_attended(), "what the loop had not served is the thread's");
    }
}
