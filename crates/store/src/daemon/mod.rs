//! The daemon's side: the one writer of the allocator, which hands out seats and memory and takes both back.

mod file;
mod holders;
mod lease;
mod memory;
mod ranges;
mod rebuild;
mod reclaim;
#[cfg(test)]
pub(crate) mod replica;
mod spill;
mod stats;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::Ordering;

use heliostat_proto::{Locator, ObjectId};
use heliostat_shm::map::{MapError, ReadMap, WordMap};
use heliostat_shm::memfd::{Memfd, MemfdError, ReserveError};
use heliostat_shm::process::Identity;

use self::memory::Memory;
use crate::config::StoreConfig;
use crate::layout::{self, FIRST_SLOTS, HEADER, LANES, MAX_SEAT, PAGE, Phase, SLOT, State, header};
use crate::pages::Pages;
use crate::seat::{Seat, SeatParams};
use crate::table::Table;

pub use self::file::FileTarget;
pub use self::rebuild::Rebuilt;
pub use self::reclaim::Reclaimed;
pub use self::spill::{BeginRestoreError, Candidate, Content, Restore, Spilled, Target};
pub use self::stats::StoreStats;

/// Creating a store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateStoreError {
    /// A setting is out of range.
    #[error("cannot make a store: {what}")]
    Config {
        /// Which and why.
        what: String,
    },
    /// A memory file couldn't be made.
    #[error(transparent)]
    Memfd(#[from] MemfdError),
    /// A memory file couldn't be mapped.
    #[error(transparent)]
    Map(#[from] MapError),
    /// Memory for the header or the beginning of the object table couldn't be had.
    #[error(transparent)]
    Reserve(#[from] ReserveError),
}

/// A process couldn't join.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// Every seat number is taken.
    #[error("the store has {seats} clients already")]
    TooManyClients {
        /// How many there are.
        seats: usize,
    },
    /// The client's memory file couldn't be made.
    #[error(transparent)]
    Memfd(#[from] MemfdError),
    /// The client's memory file couldn't be mapped.
    #[error(transparent)]
    Map(#[from] MapError),
    /// Memory for the client's pages couldn't be had.
    #[error(transparent)]
    Reserve(#[from] ReserveError),
    /// A descriptor couldn't be duplicated: too many are open.
    #[error("passing the store's descriptors on failed: {0}")]
    Descriptors(#[from] std::io::Error),
}

/// A client as the daemon knows it.
#[derive(Debug)]
struct Client {
    identity: Identity,
    pages: Pages,
    /// What each lane was granted last: first byte, units, epoch.
    lanes: [Option<Granted>; LANES as usize],
}

/// A small lease as it was granted, in private memory: what the shared word says is checked against it.
#[derive(Debug, Clone, Copy)]
struct Granted {
    start: u64,
    units: u32,
    epoch: u16,
}

/// Whole pages granted for one object.
#[derive(Debug, Clone, Copy)]
struct Extent {
    length: u64,
    seat: u32,
    slot: u32,
    generation: u32,
    /// Whether its pages were reserved before it was granted; else they exist once the object is sealed.
    backed: bool,
    /// Extents are numbered as they are granted.
    since: u64,
}

impl Extent {
    /// Whether what it was granted for was sealed, after what its slot says.
    fn became_object(&self, state: Option<State>) -> bool {
        state.is_some_and(|state| {
            state.generation == self.generation && matches!(state.phase, Phase::Sealed | Phase::Closing)
        })
    }
}

/// An object that was taken out while someone had it pinned.
#[derive(Debug, Clone, Copy)]
struct Deferred {
    segment: u32,
    offset: u64,
    footprint: u64,
    seat: u32,
    /// Some of its pages may not exist.
    hollow: bool,
}

/// The daemon's side of a store. Lives in one thread (or behind a lock): it alone changes the allocator.
///
/// Allocator and ownership state are in private memory. Every shared word is loaded once and checked: a client can
/// break the contents of objects that it was given, but not make the daemon panic or lose count.
#[derive(Debug)]
pub struct StoreDaemon {
    config: StoreConfig,
    epoch: u64,
    memory: Memory,
    header: Memfd,
    /// The only writable mapping of the header.
    header_words: WordMap,
    table_file: Memfd,
    table: Table,
    clients: HashMap<u32, Client>,
    last_seat: u32,
    extents: BTreeMap<u64, Extent>,
    /// Extents that were granted without being backed and may not be written yet.
    unbacked: HashSet<u64>,
    deferred: HashMap<u64, Deferred>,
    file: Option<file::File>,
    elsewhere: spill::Elsewhere,
    mappings: spill::Mappings,
    grants: u64,
    counters: stats::Counters,
}

impl StoreDaemon {
    /// Makes a store. Nothing of it has a name in the file system; it is gone with the last process that maps it.
    pub fn create(config: StoreConfig) -> Result<Self, CreateStoreError> {
        let refuse = |what: String| Err(CreateStoreError::Config { what });
        let Some(capacity) = config.capacity.checked_next_multiple_of(PAGE).filter(|n| (1..1 << 47).contains(n)) else {
            return refuse(format!("a capacity of {} bytes is not between 1 byte and 128 TiB", config.capacity));
        };
        if !config.slots.is_power_of_two() || config.slots > 1 << 32 {
            return refuse(format!("{} slots are not a power of two up to 2^32", config.slots));
        }
        if !(1..=1 << 24).contains(&config.holds) {
            return refuse(format!("{} holds are not between 1 and 2^24", config.holds));
        }
        if !(PAGE..=layout::LONGEST_LEASE).contains(&config.small_lease) {
            return refuse(format!("a small lease of {} bytes is not between 4 KiB and 1 GiB", config.small_lease));
        }
        let config = StoreConfig { capacity, ..config };
        let segment = Memfd::create("heliostat-segment", capacity)?;
        segment.seal()?;
        let table_file = Memfd::create("heliostat-table", config.slots * SLOT)?;
        table_file.seal()?;
        let active = config.slots.min(FIRST_SLOTS);
        table_file.reserve_within(0, active * SLOT, 0)?;
        let epoch = RandomState::new().hash_one(std::process::id());
        let header = Memfd::create("heliostat-header", HEADER)?;
        header.reserve(0, HEADER)?;
        let words = WordMap::new(&header)?;
        let fields = [
            (header::EPOCH, epoch),
            (header::CAPACITY, capacity),
            (header::SLOTS, config.slots),
            (header::HOLDS, config.holds.into()),
            (header::LANES, LANES.into()),
            (header::ACTIVE, active),
            (header::RESERVE, config.memory_reserve),
            (header::MAGIC, layout::MAGIC),
        ];
        for (offset, value) in fields {
            words.word(offset).expect("the header has a page").store(value, Ordering::Release);
        }
        header.seal_against_writers()?;
        let table = Table::new(&table_file, ReadMap::new(&header)?, config.slots)?;
        Ok(Self {
            memory: Memory::new(segment, config.memory_reserve),
            config,
            epoch,
            header,
            header_words: words,
            table_file,
            table,
            clients: HashMap::new(),
            last_seat: 0,
            extents: BTreeMap::new(),
            unbacked: HashSet::new(),
            deferred: HashMap::new(),
            file: None,
            elsewhere: spill::Elsewhere::default(),
            mappings: spill::Mappings::default(),
            grants: 0,
            counters: stats::Counters::default(),
        })
    }

    /// Gives a process a seat. Watch the process (for instance with
    /// [`ProcessFd`](heliostat_shm::process::ProcessFd)) and call [`client_gone`](Self::client_gone) when it ended.
    pub fn join(&mut self, who: Identity) -> Result<Seat, JoinError> {
        let seats = self.clients.len();
        // Numbers are used in turn, so that a late message of a former client doesn't reach its successor's seat.
        let next = |seat: u32| if seat >= MAX_SEAT { 1 } else { seat + 1 };
        let mut client = next(self.last_seat);
        while self.clients.contains_key(&client) {
            if seats >= MAX_SEAT as usize {
                return Err(JoinError::TooManyClients { seats });
            }
            client = next(client);
        }
        let file = Memfd::create("heliostat-client", Pages::bytes(self.config.holds))?;
        file.seal()?;
        file.reserve_within(0, Pages::first_bytes(self.config.holds), 0)?;
        let pages = Pages::new(&file, self.config.holds)?;
        let fds = [
            self.memory.segment.share()?,
            self.header.share_read_only()?,
            self.table_file.share()?,
            file.into(), // the daemon keeps only its mapping
        ];
        let file_size = self.file.as_ref().map_or(0, |file| file.backing.size());
        let shared_file = self.file.as_ref().map(|file| file.backing.share()).transpose()?;
        self.last_seat = client;
        self.clients.insert(client, Client { identity: who, pages, lanes: [None; LANES as usize] });
        let StoreConfig { capacity, slots, holds, .. } = self.config;
        let params = SeatParams { client, epoch: self.epoch, capacity, slots, holds, file: file_size };
        Ok(Seat { params, fds, file: shared_file })
    }

    /// The clients that have a seat now, and the process of each.
    pub fn clients(&self) -> impl Iterator<Item = (u32, Identity)> {
        self.clients.iter().map(|(client, state)| (*client, state.identity))
    }

    /// Where a sealed object with this id is. If several attempts of a task made it, any one of them.
    pub fn lookup(&self, id: &ObjectId) -> Option<Locator> {
        self.table.lookup(id)
    }

    /// All objects of an owner's seat, spilled or not (see [`Layout::owned_by`](crate::Layout::owned_by)), for when it ended.
    ///
    /// Reads the touched part of the object table: a millisecond for each 20,000 slots or so.
    pub fn owned_by(&self, owner: u32) -> std::io::Result<Vec<(ObjectId, Locator)>> {
        let mut found = Vec::new();
        for slot in self.table.touched(&self.table_file)? {
            if let Some((state, record)) = slot.read_consistent()
                && matches!(state.phase, Phase::Sealed | Phase::Spilled)
                && record.owner == owner
            {
                found.push((record.id, slot.locator(state, &record)));
            }
        }
        Ok(found)
    }

    /// Takes a sealed object, spilled or not, over from the client that owns it: it outlives that client's seat from now on.
    /// Returns whether there is such an object.
    pub fn adopt(&mut self, locator: &Locator) -> bool {
        let Some(slot) = self.table.slot(locator.slot) else { return false };
        let found = slot.read_consistent().filter(|(state, record)| {
            matches!(state.phase, Phase::Sealed | Phase::Spilled) && spill::is(locator, *state, record)
        });
        if found.is_some() {
            slot.set_owner(0);
        }
        found.is_some()
    }

    /// Gives free pages back to the system, at most `at_most` bytes; gives how many it were. For times when the machine
    /// runs short of memory: the next use of these pages is many times slower.
    pub fn punch(&mut self, at_most: u64) -> Result<u64, ReserveError> {
        self.memory.punch(at_most)
    }
}
