//! The pages that one client writes about itself and the daemon reads: lanes, marks and holds.
//!
//! Word 0 is the high-water mark of the hold words, word 1 the fence that the daemon sets when the seat ends, word 2
//! the bytes that this client copied into the store. Lane `i` is the line at byte 64 x (1 + i): its lease word, then the hold word of the slot that is being given memory. Marks
//! say which blocks of hold words hold something. Hold words start at the second page: each names a slot and a
//! generation that this client pins or drafts.

use heliostat_shm::map::{MapError, WordMap};
use heliostat_shm::memfd::Memfd;

use crate::layout::{self, FIRST_HOLDS, HOLDS_AT, LANES, MARKS_AT};
use crate::protocol;
use crate::word::Shared;

#[derive(Debug)]
pub(crate) struct Pages {
    map: WordMap,
    holds: u32,
    block: u32,
}

impl Pages {
    /// Bytes of a client's pages with so many hold words.
    pub(crate) fn bytes(holds: u32) -> u64 {
        HOLDS_AT + u64::from(holds) * 8
    }

    /// Bytes to reserve before a client may use its pages.
    pub(crate) fn first_bytes(holds: u32) -> u64 {
        Self::bytes(holds.min(FIRST_HOLDS))
    }

    pub(crate) fn new(memfd: &Memfd, holds: u32) -> Result<Self, MapError> {
        if memfd.size() < Self::bytes(holds) {
            return Err(MapError { length: memfd.size(), source: std::io::ErrorKind::InvalidInput.into() });
        }
        Ok(Self { map: WordMap::new(memfd)?, holds, block: layout::block(holds) })
    }

    fn word(&self, offset: u64) -> Shared<'_> {
        Shared(self.map.word(offset).expect("the pages' size was checked when they were mapped"))
    }

    /// How many hold words were ever in use, as the client says; the reader caps it.
    pub(crate) fn high_water(&self) -> Shared<'_> {
        self.word(0)
    }

    /// Not 0 once the daemon has ended the seat.
    pub(crate) fn fence(&self) -> Shared<'_> {
        self.word(8)
    }

    /// Bytes that this client copied into the store since it joined.
    pub(crate) fn copied(&self) -> Shared<'_> {
        self.word(16)
    }

    pub(crate) fn lease(&self, lane: u32) -> Shared<'_> {
        self.word(64 * (1 + u64::from(lane % LANES)))
    }

    pub(crate) fn operation(&self, lane: u32) -> Shared<'_> {
        self.word(64 * (1 + u64::from(lane % LANES)) + 8)
    }

    /// The word with the marks of 64 blocks.
    pub(crate) fn marks(&self, number: u32) -> Shared<'_> {
        self.word(MARKS_AT + u64::from(number) * 8)
    }

    /// A hold word; `index` must be below their number.
    pub(crate) fn hold(&self, index: u32) -> Shared<'_> {
        self.word(HOLDS_AT + u64::from(index) * 8)
    }

    /// How many hold words share a mark.
    pub(crate) fn block(&self) -> u32 {
        self.block
    }

    /// Copies every word to other pages.
    #[cfg(test)]
    pub(crate) fn copy_to(&self, other: &Self) {
        for offset in (0..Self::bytes(self.holds)).step_by(8) {
            other.word(offset).0.store(protocol::held(&self.word(offset)), std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// For the daemon: the hold words that hold something. Looks at the blocks that are marked, up to the high-water
    /// mark; the client wrote both before the fence of each pin, like the pin.
    pub(crate) fn held(&self) -> impl Iterator<Item = u64> {
        let high = protocol::held(&self.high_water()).min(self.holds.into()) as u32;
        let blocks = high.div_ceil(self.block);
        (0..blocks.div_ceil(64))
            .flat_map(|number| {
                let marks = protocol::held(&self.marks(number));
                (0..64).filter(move |bit| marks >> bit & 1 == 1).map(move |bit| number * 64 + bit)
            })
            .flat_map(move |block| (block * self.block).min(high)..((block + 1) * self.block).min(high))
            .map(|index| protocol::held(&self.hold(index)))
            .filter(|word| *word != 0)
    }
}
