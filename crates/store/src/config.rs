//! How large a store is and how it treats the system's memory.

/// Settings of a store; `StoreConfig::new(capacity)` fits most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreConfig {
    /// Bytes of the segment; rounded up to whole pages. Memory is taken as objects come, not at once.
    pub capacity: u64,
    /// Slots of the object table, a power of two. The default is the larger of 2^21 and a slot for every 8 KiB: twice
    /// what a million objects, or objects of 16 KiB on average, need, so that probes stay short. The table begins with
    /// 1 MiB and doubles as it fills up, so that unused slots cost nothing.
    pub slots: u64,
    /// How many objects one client can pin and draft at a time; 8 bytes each, which it takes as it needs them.
    pub holds: u32,
    /// Bytes of a lease for small objects.
    pub small_lease: u64,
    /// Bytes of the system's memory that the store leaves to others: with less left it counts as full, and the object
    /// table and the clients' pages don't grow either.
    pub memory_reserve: u64,
}

impl StoreConfig {
    /// Defaults for a store of so many bytes.
    pub fn new(capacity: u64) -> Self {
        Self {
            capacity,
            slots: capacity.div_ceil(8 << 10).next_power_of_two().clamp(1 << 21, 1 << 32),
            holds: 1 << 20,
            small_lease: (capacity / 64).clamp(64 << 10, 1 << 20),
            memory_reserve: 256 << 20,
        }
    }
}
