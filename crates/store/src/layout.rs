//! Sizes and word formats of everything that is shared; `docs/design/store.md` shows them byte by byte.

/// Granularity of small objects in bytes: a cache line, and the alignment of out-of-band buffers.
pub const UNIT: u64 = 64;
/// Size of a page in bytes: extents start and end on one.
pub const PAGE: u64 = heliostat_shm::memfd::PAGE;
/// From this length on (bytes) an object gets whole pages of its own.
pub const LARGE: u64 = 64 << 10;
/// The longest range (bytes) that one lease can describe: 24 bits of units.
pub const LONGEST_LEASE: u64 = ((1 << 24) - 1) * UNIT;
/// Leases that a client can bump in at the same time, one thread each.
pub const LANES: u32 = 4;
/// How far from its home slot an object may lie.
pub const MAX_PROBE: u64 = 1024;
/// The segment that is a file: it takes what memory can't.
pub const FILE_SEGMENT: u32 = 1;
/// Seats are numbered from 1 to this; 0 stands for nobody.
pub const MAX_SEAT: u32 = (1 << 24) - 1;

/// Slots of a new table; it grows by doubling, up to the number in the header.
pub(crate) const FIRST_SLOTS: u64 = 1 << 14;
/// How far from its home a slot is looked for before the table shall grow instead.
pub(crate) const SHORT_PROBE: u64 = 16;

/// Bytes of a slot of the object table.
pub(crate) const SLOT: u64 = 64;

/// First word of the header: "HELIOST" and the version of this layout.
pub(crate) const MAGIC: u64 = u64::from_be_bytes(*b"HELIOST\x02");
/// Size of the header in bytes.
pub(crate) const HEADER: u64 = PAGE;
/// Byte offsets of the header's words.
pub(crate) mod header {
    pub(crate) const MAGIC: u64 = 0;
    pub(crate) const EPOCH: u64 = 8;
    pub(crate) const CAPACITY: u64 = 16;
    pub(crate) const SLOTS: u64 = 24;
    pub(crate) const HOLDS: u64 = 32;
    pub(crate) const LANES: u64 = 40;
    pub(crate) const ACTIVE: u64 = 48;
    pub(crate) const RESERVE: u64 = 56;
}

/// Byte offset of the marks in a client's pages; before them are the high-water mark, the fence,
/// the bytes that were copied and the lanes.
pub(crate) const MARKS_AT: u64 = 2048;
/// Blocks of hold words that have a mark, at most.
pub(crate) const MARKS: u32 = 8 * (HOLDS_AT - MARKS_AT) as u32;
/// Byte offset of the hold words in a client's pages.
pub(crate) const HOLDS_AT: u64 = PAGE;
/// Hold words that a new client has memory for; it reserves more, by doubling, when it needs them.
pub(crate) const FIRST_HOLDS: u32 = ((60 << 10) / 8) as u32;

/// How many hold words share a mark, if there are so many of them.
pub(crate) const fn block(holds: u32) -> u32 {
    let even = holds.div_ceil(MARKS).next_power_of_two();
    if even < 64 { 64 } else { even }
}

/// Bytes that an object of `length` bytes takes.
pub(crate) fn footprint(length: u64, whole_pages: bool) -> Option<u64> {
    length.checked_next_multiple_of(if whole_pages { PAGE } else { UNIT })
}

/// What a slot of the object table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing; the next claimer takes it.
    Free = 0,
    /// Claimed by a client, without memory yet.
    Claimed = 1,
    /// Being filled: has memory, nobody but the client may look.
    Draft = 2,
    /// Readable by everyone.
    Sealed = 3,
    /// A draft that its client gave up; the daemon takes the memory back.
    Dropped = 4,
    /// Taken out by the daemon; the memory comes back when the last pin goes.
    Closing = 5,
    /// Without memory: the bytes are kept elsewhere, and the daemon brings them back for whoever needs them.
    Spilled = 6,
}

/// The first word of a slot: generation (32 bits), seat of the creator (24 bits), phase (8 bits).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) generation: u32,
    pub(crate) seat: u32,
    pub(crate) phase: Phase,
}

impl State {
    pub(crate) const fn pack(self) -> u64 {
        (self.generation as u64) << 32 | ((self.seat & MAX_SEAT) as u64) << 8 | self.phase as u64
    }

    /// `None` for a phase that this version doesn't know: such a slot is left alone.
    pub(crate) const fn unpack(word: u64) -> Option<Self> {
        let phase = match word & 0xff {
            0 => Phase::Free,
            1 => Phase::Claimed,
            2 => Phase::Draft,
            3 => Phase::Sealed,
            4 => Phase::Dropped,
            5 => Phase::Closing,
            6 => Phase::Spilled,
            _ => return None,
        };
        Some(Self { generation: (word >> 32) as u32, seat: (word >> 8) as u32 & MAX_SEAT, phase })
    }

    pub(crate) const fn with(self, phase: Phase) -> Self {
        Self { phase, ..self }
    }

    /// The generation of the next object in this slot; never 0, so that no hold word is 0.
    pub(crate) const fn next_generation(self) -> u32 {
        if self.generation == u32::MAX { 1 } else { self.generation + 1 }
    }
}

/// A pin entry, an entry for an own draft, or a lane's operation: generation (32 bits), slot (32 bits); 0 is none.
pub(crate) const fn hold(slot: u32, generation: u32) -> u64 {
    (generation as u64) << 32 | slot as u64
}

/// Slot and generation of a hold word.
pub(crate) const fn unhold(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

/// A lease word: epoch (16 bits), cursor and limit (24 bits each) in units from the lease's first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Lease {
    pub(crate) epoch: u16,
    pub(crate) cursor: u32,
    pub(crate) limit: u32,
}

impl Lease {
    const FIELD: u64 = (1 << 24) - 1;

    pub(crate) const fn pack(self) -> u64 {
        (self.epoch as u64) << 48 | (self.cursor as u64 & Self::FIELD) << 24 | self.limit as u64 & Self::FIELD
    }

    pub(crate) const fn unpack(word: u64) -> Self {
        let (cursor, limit) = ((word >> 24 & Self::FIELD) as u32, (word & Self::FIELD) as u32);
        Self { epoch: (word >> 48) as u16, cursor, limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back_as_they_went() {
        use Phase::{Claimed, Closing, Draft, Dropped, Free, Sealed, Spilled};
        for phase in [Free, Claimed, Draft, Sealed, Dropped, Closing, Spilled] {
            let state = State { generation: u32::MAX - 1, seat: MAX_SEAT, phase };
            assert_eq!(State::unpack(state.pack()), Some(state));
        }
        assert_eq!(State::unpack(7), None);
        let lease = Lease { epoch: 0xabcd, cursor: 0x12_3456, limit: 0xff_ffff };
        assert_eq!(Lease::unpack(lease.pack()), lease);
        assert_eq!(unhold(hold(7, 9)), (7, 9));
    }

    #[test]
    fn generations_skip_zero() {
        let state = State { generation: u32::MAX, seat: 1, phase: Phase::Free };
        assert_eq!(state.next_generation(), 1);
    }

    #[test]
    fn footprints_are_rounded_up_and_checked() {
        assert_eq!(footprint(0, false), Some(0));
        assert_eq!(footprint(1, false), Some(64));
        assert_eq!(footprint(4097, true), Some(8192));
        assert_eq!(footprint(u64::MAX, true), None);
    }
}
