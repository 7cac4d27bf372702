//! Taking ranges of the segment and reserving their pages, without ever getting anybody killed.

use heliostat_shm::memfd::{Memfd, PAGE, ReserveError};
use heliostat_shm::memory::headroom;

use super::ranges::{FreeRanges, Warmth, Wish};
use crate::link::LeaseError;

/// Pages are reserved in steps of at most so many bytes, so that a refusal loses only the last of them.
const STEP: u64 = 16 << 20;

/// The segment and its free ranges.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) segment: Memfd,
    pub(super) free: FreeRanges,
    /// Bytes of the system's memory to leave alone.
    pub(super) reserve: u64,
    /// Bytes that clients were granted and that they take from the system later.
    pub(super) promised: u64,
    /// Whether memory is reserved now, or only looked for.
    pub(super) back: bool,
}

impl Memory {
    pub(super) fn new(segment: Memfd, reserve: u64) -> Self {
        Self { free: FreeRanges::new(segment.size()), segment, reserve, promised: 0, back: true }
    }

    /// Takes a range with all its pages reserved.
    pub(super) fn take(&mut self, wish: &Wish) -> Result<(u64, u64), LeaseError> {
        let full =
            |free: &FreeRanges| LeaseError::Full { requested: wish.least, free: free.bytes(), largest: free.largest() };
        let taken = self.free.take(wish).ok_or_else(|| full(&self.free))?;
        let mut refused = None;
        if !self.back {
            let cold = taken.pieces.iter().filter(|(.., warmth)| *warmth == Warmth::Cold).map(|(_, length, _)| length);
            let bytes = cold.sum::<u64>();
            // To read the headroom takes several times as long as all the rest.
            if bytes == 0 {
                return Ok((taken.start, taken.length));
            }
            let room = headroom();
            let leave = self.reserve.saturating_add(self.promised);
            if room.bytes >= bytes.saturating_add(leave) {
                return Ok((taken.start, taken.length));
            }
            let error = ReserveError::Headroom { length: wish.least, headroom: room, leave };
            for (start, length, warmth) in taken.pieces {
                self.free.insert(start, length, warmth);
            }
            let refused = LeaseError::no_memory(self.reserve, &error);
            return self.take(&Wish { cold: false, ..*wish }).map_err(|_| refused);
        }
        let mut pieces = Vec::with_capacity(taken.pieces.len());
        for &(start, length, warmth) in &taken.pieces {
            if warmth != Warmth::Cold {
                pieces.push((start, length, warmth));
                continue;
            }
            let mut done = 0;
            while done < length && refused.is_none() {
                let step = STEP.min(length - done);
                match self.reserve(start + done, step, wish.least) {
                    Ok(()) => done += step,
                    Err(error) => refused = Some(error),
                }
            }
            pieces.push((start, done, Warmth::Warm(0)));
            pieces.push((start + done, length - done, Warmth::Cold));
        }
        let Some(error) = refused else { return Ok((taken.start, taken.length)) };
        for (start, length, warmth) in pieces {
            self.free.insert(start, length, warmth);
        }
        // What is reserved already may do, in smaller pieces or from others.
        if wish.cold { self.take(&Wish { cold: false, ..*wish }).map_err(|_| error) } else { Err(error) }
    }

    fn reserve(&self, start: u64, length: u64, requested: u64) -> Result<(), LeaseError> {
        let refused = |error| match LeaseError::no_memory(self.reserve, &error) {
            LeaseError::NoMemory { headroom, reserve, limit, .. } => {
                LeaseError::NoMemory { requested, headroom, reserve, limit }
            }
            other => other,
        };
        self.segment.reserve_within(start, length, self.reserve.saturating_add(self.promised)).map_err(refused)
    }

    /// Makes sure that none of a range's pages exist, when some may not; gives its warmth then.
    pub(super) fn cool(&self, start: u64, length: u64) -> Warmth {
        // The kernel refuses this to files that are sealed against writing, and the segment isn't.
        if self.segment.punch(start, length).is_ok() { Warmth::Cold } else { Warmth::Warm(0) }
    }

    /// Gives free pages back to the system, at most so many bytes; gives how many it were.
    pub(super) fn punch(&mut self, at_most: u64) -> Result<u64, ReserveError> {
        let mut done = 0;
        for (start, length) in self.free.warm_pages(at_most / PAGE * PAGE) {
            self.segment.punch(start, length)?;
            self.free.cool(start, length);
            done += length;
        }
        Ok(done)
    }
}
