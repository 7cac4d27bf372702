//! What a process gets when it joins a store: numbers to send along, and descriptors to pass.

use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

/// How many descriptors a [`Seat`] has, beside that of the file, if the store has one.
pub const SEAT_FDS: usize = 4;

/// The part of a [`Seat`] that is plain data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeatParams {
    /// Number of the client, from 1 to 2^24 - 1; used again only after all others were.
    pub client: u32,
    /// Names this instance of the store: a seat of an earlier one is refused.
    pub epoch: u64,
    /// Bytes of the segment.
    pub capacity: u64,
    /// Slots of the object table.
    pub slots: u64,
    /// Hold words of the client's pages: how many objects it can pin and draft at a time.
    pub holds: u32,
    /// Bytes of the file for what memory can't take; 0 if there is none.
    pub file: u64,
}

/// A place in a store, to be handed to one process: send [`params`](Self::params) as data and
/// [`into_fds`](Self::into_fds) with them, in this order, by `SCM_RIGHTS`.
#[derive(Debug)]
pub struct Seat {
    /// Plain data.
    pub params: SeatParams,
    /// Segment (read and write), header (read-only), object table, the client's own pages.
    pub fds: [OwnedFd; SEAT_FDS],
    /// The file for what memory can't take, if [`SeatParams::file`] says that there is one.
    pub file: Option<OwnedFd>,
}

/// A seat arrived with another number of descriptors than it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a seat has {expected} descriptors, {found} arrived: the message was cut (is the descriptor limit too low?)")]
pub struct SeatFdsError {
    /// How many there should be.
    pub expected: usize,
    /// How many arrived.
    pub found: usize,
}

impl Seat {
    /// Joins what was received separately.
    pub fn from_parts(params: SeatParams, mut fds: Vec<OwnedFd>) -> Result<Self, SeatFdsError> {
        let (found, expected) = (fds.len(), params.descriptors());
        let file = if params.file > 0 { fds.pop() } else { None };
        let wrong = |_: Vec<OwnedFd>| SeatFdsError { expected, found };
        Ok(Self { params, fds: fds.try_into().map_err(wrong)?, file })
    }

    /// The descriptors in the order in which they are passed.
    pub fn into_fds(self) -> Vec<OwnedFd> {
        self.fds.into_iter().chain(self.file).collect()
    }
}

impl SeatParams {
    /// How many descriptors come with these numbers.
    pub fn descriptors(&self) -> usize {
        SEAT_FDS + usize::from(self.file > 0)
    }
}
