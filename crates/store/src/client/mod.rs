//! The client's side: objects are created, found and pinned by changing shared words, without asking anybody.

mod draft;
mod holds;
mod lanes;
mod memory;
mod pin;
mod prefault;
mod touched;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use heliostat_proto::{Locator, ObjectId};
use heliostat_shm::map::{MapError, ReadMap, Window};
use heliostat_shm::memfd::{Memfd, MemfdError};

use self::holds::Holds;
use self::lanes::Lanes;
use self::memory::{File, Memory};
use crate::layout::{self, LANES, header};
use crate::link::DaemonLink;
use crate::pages::Pages;
use crate::protocol::Word;
use crate::seat::{Seat, SeatParams};
use crate::table::Table;

pub use self::draft::{CreateError, Draft, ExposeError, Layout, PutError, SealError, WriteError};
pub use self::pin::{Pin, PinError};

/// Attaching to a store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// A descriptor isn't a sealed memory file.
    #[error(transparent)]
    Memfd(#[from] MemfdError),
    /// A memory file couldn't be mapped.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The store isn't what the seat's numbers say.
    #[error(
        "the store does not match its seat: {field} is {found:#x}, expected {expected:#x} (another version, or a restarted daemon?)"
    )]
    Mismatch {
        /// Which number.
        field: &'static str,
        /// What the store's header says.
        found: u64,
        /// What the seat, or this version, says.
        expected: u64,
    },
}

/// A process's access to a store. Cheap to clone; all clones share one seat.
///
/// Dropping the last clone, [`Pin`] and [`Draft`] unmaps everything. Tell the daemon to end the seat
/// ([`StoreDaemon::client_gone`](crate::StoreDaemon::client_gone)) only after that.
#[derive(Clone)]
pub struct StoreClient {
    inner: Arc<Inner>,
}

struct Inner {
    params: SeatParams,
    /// Bytes of the system's memory that the store leaves to others.
    leave: u64,
    table: Table,
    pages: Pages,
    holds: Holds,
    lanes: Lanes,
    memory: Memory,
    file: File,
    link: Arc<dyn DaemonLink>,
}

impl StoreClient {
    /// Maps the store of a seat; `link` reaches the daemon that gave it.
    pub fn attach(seat: Seat, link: Arc<dyn DaemonLink>) -> Result<Self, AttachError> {
        let Seat { params, fds, file } = seat;
        let [segment, header, table, pages] = fds.map(Memfd::from_fd);
        let (segment, header, pages) = (segment?, ReadMap::new(&header?)?, pages?);
        let expected = [
            ("the header's first word", header::MAGIC, layout::MAGIC),
            ("the epoch", header::EPOCH, params.epoch),
            ("the capacity", header::CAPACITY, params.capacity),
            ("the number of slots", header::SLOTS, params.slots),
            ("the number of holds", header::HOLDS, params.holds.into()),
            ("the number of lanes", header::LANES, LANES.into()),
        ];
        for (field, offset, expected) in expected {
            let found = header.load(offset, Ordering::Acquire).unwrap_or(0);
            if found != expected {
                return Err(AttachError::Mismatch { field, found, expected });
            }
        }
        if segment.size() != params.capacity {
            let (found, expected) = (segment.size(), params.capacity);
            return Err(AttachError::Mismatch { field: "the segment's size", found, expected });
        }
        let file = file.map(|file| Memfd::from_unlinked(file, params.file)).transpose()?;
        let leave = header.load(header::RESERVE, Ordering::Acquire).unwrap_or(0);
        Ok(Self {
            inner: Arc::new(Inner {
                params,
                leave,
                table: Table::new(&table?, header, params.slots)?,
                pages: Pages::new(&pages, params.holds)?,
                holds: Holds::new(params.holds, pages, leave),
                lanes: Lanes::default(),
                memory: Memory::of(segment)?,
                file: File::new(file),
                link,
            }),
        })
    }

    /// The numbers of this client's seat.
    pub fn params(&self) -> &SeatParams {
        &self.inner.params
    }

    /// The private mapping to make views for JavaScript on; guard it with [`Guard`](heliostat_shm::guard::Guard).
    pub fn window(&self) -> &Arc<Window> {
        &self.inner.memory.window
    }

    /// Where a sealed object with this id is. If several attempts of a task made it, any one of them.
    pub fn lookup(&self, id: &ObjectId) -> Option<Locator> {
        self.inner.table.lookup(id)
    }

    /// Whether a sealed object with this id is in the store now.
    pub fn contains(&self, id: &ObjectId) -> bool {
        self.lookup(id).is_some()
    }

    /// Finds and pins a sealed object by its id.
    pub fn get(&self, id: &ObjectId) -> Result<Option<Pin>, PinError> {
        // An object that went between the two steps may have a second copy.
        while let Some(locator) = self.lookup(id) {
            match self.pin(&locator) {
                Err(PinError::Gone { .. }) => {}
                result => return result.map(Some),
            }
        }
        Ok(None)
    }

    /// Gives objects back to the daemon. They can't be pinned any more once it got to them; pins that exist stay good.
    pub fn free(&self, locators: &[Locator]) {
        self.inner.link.free(locators);
    }

    /// How many pins and drafts this process holds.
    pub fn held(&self) -> usize {
        self.inner.holds.in_use(&self.inner.pages, &self.inner.table)
    }
}

impl Inner {
    fn is_fenced(&self) -> bool {
        self.pages.fence().load(Ordering::Relaxed) != 0
    }
}

impl fmt::Debug for StoreClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreClient").field("params", self.params()).finish_non_exhaustive()
    }
}
