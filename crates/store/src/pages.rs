//! The pages that one client writes about itself and the daemon reads: lanes and holds.
//!
//! Word 0 is the high-water mark of the hold words, word 1 the fence that the daemon sets when the seat ends. Lane `i`
//! is the line at byte 64 x (1 + i): its lease word, then the hold word of the slot that is being given memory. Hold
//! words start at the second page: each names a slot and a generation that this client pins or drafts.

use std::sync::atomic::AtomicU64;

use heliostat_shm::map::{MapError, WordMap};
use heliostat_shm::memfd::Memfd;

use crate::layout::{HOLDS_AT, LANES};

#[derive(Debug)]
pub(crate) struct Pages {
    map: WordMap,
    holds: u32,
}

impl Pages {
    /// Bytes of a client's pages with so many hold words; they are sparse.
    pub(crate) fn bytes(holds: u32) -> u64 {
        HOLDS_AT + u64::from(holds) * 8
    }

    pub(crate) fn new(memfd: &Memfd, holds: u32) -> Result<Self, MapError> {
        if memfd.size() < Self::bytes(holds) {
            return Err(MapError { length: memfd.size(), source: std::io::ErrorKind::InvalidInput.into() });
        }
        Ok(Self { map: WordMap::new(memfd)?, holds })
    }

    fn word(&self, offset: u64) -> &AtomicU64 {
        self.map.word(offset).expect("the pages' size was checked when they were mapped")
    }

    /// How many hold words were ever in use, as the client says; the reader caps it by [`Self::holds`].
    pub(crate) fn high_water(&self) -> &AtomicU64 {
        self.word(0)
    }

    /// Not 0 once the daemon has ended the seat.
    pub(crate) fn fence(&self) -> &AtomicU64 {
        self.word(8)
    }

    pub(crate) fn lease(&self, lane: u32) -> &AtomicU64 {
        self.word(64 * (1 + u64::from(lane % LANES)))
    }

    pub(crate) fn operation(&self, lane: u32) -> &AtomicU64 {
        self.word(64 * (1 + u64::from(lane % LANES)) + 8)
    }

    /// A hold word; `index` must be below [`Self::holds`].
    pub(crate) fn hold(&self, index: u32) -> &AtomicU64 {
        self.word(HOLDS_AT + u64::from(index) * 8)
    }

    pub(crate) fn holds(&self) -> u32 {
        self.holds
    }
}
