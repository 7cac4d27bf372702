//! What a client asks its daemon for, however it is reached.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use heliostat_proto::Locator;
use heliostat_shm::memfd::ReserveError;
use serde::{Deserialize, Serialize};

use crate::daemon::StoreDaemon;

/// A wish for memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseRequest {
    /// A range to bump-allocate small objects in; replaces the lane's present one, whose unused tail goes back.
    Small {
        /// Which of the client's lanes.
        lane: u32,
        /// Bytes that the next object takes, so that the range must have at least so many.
        least: u64,
    },
    /// Whole pages for one object.
    Extent {
        /// The slot that the client has claimed for the object.
        slot: u32,
        /// The generation that it has claimed.
        generation: u32,
        /// Bytes wanted; rounded up to whole pages.
        bytes: u64,
    },
    /// The same, but memory that isn't reserved yet may stay so: the client writes all of it by system calls, which may
    /// be refused, before it seals the object, and touches no page of it before.
    Unbacked {
        /// The slot that the client has claimed for the object.
        slot: u32,
        /// The generation that it has claimed.
        generation: u32,
        /// Bytes wanted; rounded up to whole pages.
        bytes: u64,
    },
    /// Whole pages of the store's file, for one object that is larger than the memory.
    File {
        /// The slot that the client has claimed for the object.
        slot: u32,
        /// The generation that it has claimed.
        generation: u32,
        /// Bytes wanted; rounded up to whole pages.
        bytes: u64,
    },
    /// A larger object table: its short searches for a free slot found none.
    Table {
        /// How many slots the client saw in use.
        active: u64,
    },
}

/// Memory that was granted: its pages are reserved, unless it was wanted unbacked. For a table, its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseGrant {
    /// The segment: 0, or that of the file, where memory is free but in too many pieces.
    pub segment: u32,
    /// First byte within the segment.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// For small leases, the epoch that the lease word now carries; otherwise 0.
    pub epoch: u16,
}

/// Who holds memory of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The process; 0 if it is not known.
    pub pid: u32,
    /// How it holds them.
    pub kind: HolderKind,
    /// Bytes in all.
    pub bytes: u64,
    /// Number of objects.
    pub objects: u64,
    /// Bytes of the largest one.
    pub largest: u64,
    /// Where the process made them, as far as it told.
    pub sites: Vec<String>,
}

/// How a process holds memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum HolderKind {
    /// Objects that it owns.
    Owner,
    /// Objects that are not sealed yet.
    Draft,
    /// Objects that were freed, but that it still reads.
    Reader,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, kind, bytes, objects, largest, sites } = self;
        let what = match kind {
            HolderKind::Owner => "owns",
            HolderKind::Draft => "is filling",
            HolderKind::Reader => "still reads freed objects:",
        };
        write!(f, "pid {pid} {what} {objects} objects of {bytes} bytes, the largest {largest}")?;
        if sites.is_empty() { Ok(()) } else { write!(f, " ({})", sites.join("; ")) }
    }
}

fn described(holders: &[Holder]) -> String {
    if holders.is_empty() {
        return String::new();
    }
    let all: Vec<String> = holders.iter().map(Holder::to_string).collect();
    format!("; the biggest holders: {}", all.join(", "))
}

/// Memory was refused, or the request made no sense.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// No free range of the segment is long enough. Free, spill or evict objects, then ask again.
    #[error("the store is full: {requested} bytes wanted, {free} free, the longest range has {largest}")]
    Full {
        /// Bytes that were wanted.
        requested: u64,
        /// Free bytes in all.
        free: u64,
        /// Bytes of the longest free range.
        largest: u64,
    },
    /// The segment has room, but the machine or container hasn't the memory. Nobody was killed for it.
    #[error(
        "the store counts as full: {requested} bytes wanted, but the system has only {headroom} bytes left \
         ({limit}) of which {reserve} are kept free"
    )]
    NoMemory {
        /// Bytes that were wanted.
        requested: u64,
        /// Bytes that the system or the tightest control group had left.
        headroom: u64,
        /// Bytes that the store leaves to others.
        reserve: u64,
        /// What limits: the system, a control group, or the kernel's refusal.
        limit: String,
    },
    /// No place in the store's file, for what memory can't take.
    #[error("{requested} bytes can't fit the store's memory, and it has no file to keep them in: {reason}")]
    NoFile {
        /// Bytes that were wanted.
        requested: u64,
        /// Why not.
        reason: String,
        /// The disk is full.
        disk: bool,
    },
    /// Whatever could make room was tried.
    #[error("{error}; {}{}", .tried.join("; "), described(.holders))]
    Exhausted {
        /// What is short.
        error: Box<LeaseError>,
        /// What was tried, and how that ended.
        tried: Vec<String>,
        /// Who holds most of the memory, the biggest first.
        holders: Vec<Holder>,
        /// The storage for spilled objects refused, too.
        disk: bool,
    },
    /// The client has no seat (any more).
    #[error("client {client} has no seat in this store: it was declared gone")]
    NoSeat {
        /// The number given.
        client: u32,
    },
    /// A request that a correct client doesn't make.
    #[error("the daemon refused a malformed lease request: {what}")]
    Malformed {
        /// What is wrong with it.
        what: String,
    },
    /// The daemon couldn't be reached.
    #[error("the node's daemon is gone: {reason}")]
    Disconnected {
        /// How the link ended.
        reason: String,
    },
}

impl LeaseError {
    pub(crate) fn no_memory(reserve: u64, error: &ReserveError) -> Self {
        match error {
            ReserveError::Headroom { length, headroom, .. } => Self::NoMemory {
                requested: *length,
                headroom: headroom.bytes,
                reserve,
                limit: headroom.limit.to_string(),
            },
            // The kernel refused although the figures looked well.
            ReserveError::NoMemory { length, .. } | ReserveError::System { length, .. } => {
                Self::NoMemory { requested: *length, headroom: 0, reserve, limit: error.to_string() }
            }
            _ => Self::NoMemory { requested: 0, headroom: 0, reserve, limit: error.to_string() },
        }
    }
}

/// What the client needs from the daemon.
///
/// Implementations send the call over a socket, or call a daemon in the same process ([`LocalLink`]).
pub trait DaemonLink: Send + Sync {
    /// Asks for memory and waits for the answer.
    fn lease(&self, request: LeaseRequest) -> Result<LeaseGrant, LeaseError>;

    /// Gives objects, or drafts that were dropped, back. May be sent later and in batches; must not block for long.
    fn free(&self, locators: &[Locator]);
}

/// A link to a daemon in this process.
#[derive(Debug, Clone)]
pub struct LocalLink {
    daemon: Arc<Mutex<StoreDaemon>>,
    client: u32,
}

impl LocalLink {
    /// A link for the client with this number.
    pub fn new(daemon: Arc<Mutex<StoreDaemon>>, client: u32) -> Self {
        Self { daemon, client }
    }
}

impl DaemonLink for LocalLink {
    fn lease(&self, request: LeaseRequest) -> Result<LeaseGrant, LeaseError> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner).lease(self.client, request)
    }

    fn free(&self, locators: &[Locator]) {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner).free(locators);
    }
}
