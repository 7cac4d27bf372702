//! What a process gets when it joins a store: numbers to send along, and descriptors to pass.

use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

/// How many descriptors a [`Seat`] has.
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
}

/// A place in a store, to be handed to one process: send [`params`](Self::params) as data and
/// [`fds`](Self::fds) with them, in this order, by `SCM_RIGHTS`.
#[derive(Debug)]
pub struct Seat {
    /// Plain data.
    pub params: SeatParams,
    /// Segment (read and write), header (read-only), object table, the client's own pages.
    pub fds: [OwnedFd; SEAT_FDS],
}

/// A seat arrived with another number of descriptors than it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a seat has {SEAT_FDS} descriptors, {found} arrived: the message was cut (is the descriptor limit too low?)")]
pub struct SeatFdsError {
    /// How many arrived.
    pub found: usize,
}

impl Seat {
    /// Joins what was received separately.
    pub fn from_parts(params: SeatParams, fds: Vec<OwnedFd>) -> Result<Self, SeatFdsError> {
        let fds = fds.try_into().map_err(|fds: Vec<OwnedFd>| SeatFdsError { found: fds.len() })?;
        Ok(Self { params, fds })
    }
}
