//! Which pages of the segment this process has mapped, so that each copy goes the fastest way.
//!
//! Copying into a mapping is a `memcpy` where the process has written before, but costs a fault for each page where it
//! has not: then a system call that writes to the file is two to three times faster. It maps nothing, though, so the
//! second time the pages are mapped.

use std::sync::atomic::{AtomicU8, Ordering};

/// Pages are known in granules of so many bytes.
const GRANULE: u64 = 64 << 10;

/// How this process knows a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Known {
    /// Never written.
    No = 0,
    /// Written by a system call.
    Written = 1,
    /// Written through the mapping.
    Mapped = 2,
}

/// Only hints: a granule that is wrong costs time.
pub(super) struct Touched(Vec<AtomicU8>);

impl Touched {
    pub(super) fn new(capacity: u64) -> Self {
        let mut granules = Vec::new();
        granules.resize_with(capacity.div_ceil(GRANULE) as usize, AtomicU8::default);
        Self(granules)
    }

    /// The least that is known of any part of a range.
    pub(super) fn known(&self, offset: u64, length: u64) -> Known {
        let least = self.granules(offset, length).iter().map(|granule| granule.load(Ordering::Relaxed)).min();
        match least {
            Some(0) => Known::No,
            Some(1) => Known::Written,
            _ => Known::Mapped,
        }
    }

    pub(super) fn mark(&self, offset: u64, length: u64, known: Known) {
        self.granules(offset, length).iter().for_each(|granule| granule.store(known as u8, Ordering::Relaxed));
    }

    /// The granules that begin in a range; those of ranges that share a granule take turns.
    fn granules(&self, offset: u64, length: u64) -> &[AtomicU8] {
        let (from, to) = (offset.div_ceil(GRANULE) as usize, (offset + length).div_ceil(GRANULE) as usize);
        self.0.get(from..to).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_known_as_well_as_its_least_known_part() {
        let touched = Touched::new(10 * GRANULE + 5);
        touched.mark(GRANULE, 4 * GRANULE, Known::Written);
        touched.mark(2 * GRANULE, GRANULE, Known::Mapped);
        assert_eq!(touched.known(GRANULE, 3 * GRANULE), Known::Written);
        assert_eq!(touched.known(2 * GRANULE, GRANULE), Known::Mapped);
        assert_eq!(touched.known(4 * GRANULE, 3 * GRANULE), Known::No);
        touched.mark(0, 10 * GRANULE + 5, Known::Mapped);
        assert_eq!(touched.known(0, 10 * GRANULE + 5), Known::Mapped);
    }
}
