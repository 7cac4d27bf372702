//! Drafts: objects that are being filled and that nobody else can see yet.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use heliostat_proto::{Locator, ObjectId};
use heliostat_shm::map::{ExclusiveRange, MapError};

use super::holds::NoHold;
use super::memory::Memory;
use super::touched::Known;
use super::{Inner, StoreClient};
use crate::layout::{self, FILE_SEGMENT, LARGE, MAX_PROBE, MAX_SEAT, PAGE, Phase, SHORT_PROBE, State, hold};
use crate::link::{LeaseError, LeaseRequest};
use crate::protocol::{self, Word};
use crate::table::{Record, Slot};
use crate::word::Shared;

/// An object couldn't be created; nothing was taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// It can never fit this store.
    #[error("an object of {length} bytes can't fit a store of {capacity} bytes: make the store larger")]
    TooLarge {
        /// Length that was asked for, in bytes.
        length: u64,
        /// Bytes of the segment.
        capacity: u64,
    },
    /// The object table is full where this object would go.
    #[error("the object table ({slots} slots) is full: free objects, put fewer and larger ones, or raise `slots`")]
    IndexFull {
        /// Slots of the table.
        slots: u64,
    },
    /// This process pins and drafts as many objects as it can.
    #[error(
        "this process holds {limit} pins and drafts, the most that its seat allows: release views, or raise `holds`"
    )]
    TooManyHolds {
        /// The limit.
        limit: u32,
    },
    /// The daemon has ended this client's seat.
    #[error("this client's seat has ended: the daemon declared it gone")]
    Fenced,
    /// The daemon gave no memory.
    #[error(transparent)]
    Lease(#[from] LeaseError),
}

/// A draft couldn't be sealed; its memory goes back as if it had been dropped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The daemon has ended this client's seat, and taken the draft.
    #[error("this client's seat has ended: the daemon declared it gone and took its drafts")]
    Fenced,
    /// The pages that were opened for JavaScript couldn't be closed again, so that publishing them would be unsafe.
    #[error("the draft's pages couldn't be made read-only, so it can't be published: {0}")]
    StillWritable(MapError),
}

/// A draft couldn't be opened for JavaScript.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExposeError {
    /// The draft shares its pages with other objects.
    #[error(
        "a draft of {length} bytes without whole pages can't be opened for JavaScript: create it with `whole_pages`"
    )]
    SharedPages {
        /// Length of the draft in bytes.
        length: u64,
    },
    /// The pages couldn't be made writable.
    #[error(transparent)]
    Map(#[from] MapError),
}

/// Bytes couldn't be copied into a draft.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The draft is shorter.
    #[error("{length} bytes at {offset} don't fit a draft of {draft} bytes")]
    OutOfBounds {
        /// Where to, in bytes from the draft's beginning.
        offset: u64,
        /// How many bytes.
        length: u64,
        /// Length of the draft in bytes.
        draft: u64,
    },
    /// The system refused, for want of memory.
    #[error("the system refused to write to the store's memory: {0}")]
    System(#[from] std::io::Error),
}

/// Storing bytes failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PutError {
    /// The object couldn't be created.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The bytes couldn't be copied.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The object couldn't be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// Pages are mapped in steps of so many bytes, each followed by its copy, which then finds them in the cache.
const POPULATE: u64 = 2 << 20;

/// What an object shall look like in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Layout {
    length: u64,
    whole_pages: bool,
    zeroed: bool,
    stays: bool,
    owner: Option<u32>,
}

impl Layout {
    /// An object of `length` bytes: packed below 64 KiB, on whole pages from there.
    pub fn new(length: u64) -> Self {
        Self { length, whole_pages: length >= LARGE, zeroed: false, stays: false, owner: None }
    }

    /// Gives the object whole pages whatever its length, so that it can be viewed from, or filled by, JavaScript.
    pub fn whole_pages(self) -> Self {
        Self { whole_pages: self.length > 0, ..self }
    }

    /// Starts with zeros instead of whatever the memory held before.
    pub fn zeroed(self) -> Self {
        Self { zeroed: true, ..self }
    }

    /// Keeps the object in memory until it is freed: it is never spilled.
    pub fn unspillable(self) -> Self {
        Self { stays: true, ..self }
    }

    /// The seat of the process that owns the object, if it isn't the creator's; 0 if it is on another node.
    pub fn owned_by(self, client: u32) -> Self {
        Self { owner: Some(client & MAX_SEAT), ..self }
    }
}

/// An object being filled. Nobody else sees it before [`seal`](Self::seal); dropping it gives the memory back.
pub struct Draft {
    inner: Arc<Inner>,
    index: u32,
    locator: Locator,
    state: State,
    range: ExclusiveRange,
    /// Bytes of the pages that are open for JavaScript, or 0.
    exposed: u64,
    whole_pages: bool,
    sealed: bool,
}

impl StoreClient {
    /// Creates an object to be filled. Asks the daemon only when its lease is used up, or for whole pages.
    ///
    /// An id may be used again, by another attempt of the same task: locators tell the copies apart.
    pub fn create(&self, id: ObjectId, layout: Layout) -> Result<Draft, CreateError> {
        let mut draft = self.begin(id, layout, true)?;
        // What was reserved in the file, but not written, is zero.
        let zero = layout.zeroed && draft.locator.segment != FILE_SEGMENT;
        let zero_from = if zero { 0 } else { layout.length as usize };
        draft.range.bytes_mut()[zero_from..].fill(0);
        Ok(draft)
    }

    /// Creates an object whose padding is as its memory was left. Memory that isn't backed has no pages yet and must be
    /// written by system calls.
    fn begin(&self, id: ObjectId, layout: Layout, backed: bool) -> Result<Draft, CreateError> {
        let inner = &self.inner;
        let (length, capacity) = (layout.length, inner.params.capacity);
        let too_large = CreateError::TooLarge { length, capacity };
        let Some(mut footprint) = layout::footprint(length, layout.whole_pages) else { return Err(too_large) };
        let mut layout = layout;
        let segment = if footprint > capacity { FILE_SEGMENT } else { 0 };
        if segment == FILE_SEGMENT {
            layout = layout.whole_pages();
            footprint = layout::footprint(length, true).filter(|bytes| *bytes <= inner.params.file).ok_or(too_large)?;
        }
        if inner.is_fenced() {
            return Err(CreateError::Fenced);
        }
        let limit = inner.params.holds;
        let index = inner.holds.take(&inner.pages, &inner.table).map_err(|none| match none {
            NoHold::Limit => CreateError::TooManyHolds { limit },
            NoHold::Memory(error) => LeaseError::no_memory(inner.leave, &error).into(),
        })?;
        let created = inner.claim(id, index, &layout, segment).and_then(|(slot, state)| {
            let place = inner.give_memory(&slot, state, &layout, footprint, (segment, backed));
            if place.is_err() {
                protocol::advance(&slot.state(), state, Phase::Free);
            }
            Ok((slot.index, state, place?))
        });
        let (slot, state, (segment, offset)) = match created {
            Ok(created) => created,
            Err(error) => {
                protocol::unpin(&inner.pages.hold(index));
                inner.holds.give(index, &inner.pages);
                return Err(error);
            }
        };
        // Mapped by now, or the object would not have been created.
        let memory = inner.mapped(segment);
        // The padding up to the end of the footprint belongs to the draft while it is one.
        let range = memory.data.exclusive(offset, footprint).ok_or_else(|| LeaseError::Malformed {
            what: format!("the daemon granted {footprint} bytes at {offset}, outside of the store"),
        })?;
        let locator = Locator { segment, slot, offset, length, generation: state.generation };
        Ok(Draft {
            inner: Arc::clone(inner),
            index,
            locator,
            state: state.with(Phase::Draft),
            range,
            exposed: 0,
            whole_pages: layout.whole_pages,
            sealed: false,
        })
    }

    /// Stores a copy of `bytes`: creates, fills and seals in one call.
    pub fn put(&self, id: ObjectId, bytes: &[u8]) -> Result<Locator, PutError> {
        self.put_parts(id, Layout::new(0), &[bytes])
    }

    /// Stores copies of several parts, one behind the other, as one object that is as long as they are, whatever the
    /// layout says. Faster than a draft that is written part by part: the pages of a large object are made by the very
    /// calls that write them.
    pub fn put_parts(&self, id: ObjectId, layout: Layout, parts: &[&[u8]]) -> Result<Locator, PutError> {
        let Layout { length, whole_pages, .. } = Layout::new(parts.iter().map(|part| part.len() as u64).sum());
        let layout = Layout { length, whole_pages, ..layout };
        let mut draft = if layout.whole_pages { self.begin(id, layout, false) } else { self.create(id, layout) }?;
        let mut at = 0;
        for part in parts {
            if layout.whole_pages {
                draft.fill(at, part)?;
            } else {
                draft.bytes_mut()[at as usize..][..part.len()].copy_from_slice(part);
            }
            at += part.len() as u64;
        }
        if layout.whole_pages {
            draft.pad()?;
        }
        self.inner.pages.copied().0.fetch_add(layout.length, Ordering::Relaxed);
        Ok(draft.seal()?)
    }
}

impl Inner {
    /// Claims a slot and writes all but the object's place. The hold word names the slot before it is claimed.
    fn claim(&self, id: ObjectId, index: u32, layout: &Layout, segment: u32) -> Result<(Slot<'_>, State), CreateError> {
        let entry = self.pages.hold(index);
        let note = |slot, generation| entry.store(hold(slot, generation), Ordering::Release);
        let mut refused = None;
        let (slot, state) = loop {
            let active = self.table.active();
            let may_grow = active < self.params.slots && refused.is_none();
            let limit = if may_grow { SHORT_PROBE } else { MAX_PROBE };
            if let Some(claimed) = self.table.claim(&id, self.params.client, limit, note) {
                break claimed;
            }
            if !may_grow {
                return Err(refused.map_or(CreateError::IndexFull { slots: self.params.slots }, CreateError::Lease));
            }
            match self.link.lease(LeaseRequest::Table { active }) {
                Ok(_) if self.table.active() > active => {}
                // Rather a long search than none.
                Ok(_) => refused = Some(LeaseError::Malformed { what: "the object table did not grow".into() }),
                Err(error) => refused = Some(error),
            }
        };
        let owner = layout.owner.unwrap_or(self.params.client);
        let Layout { length, whole_pages, stays, .. } = *layout;
        slot.write(&Record { id, owner, whole_pages, stays, segment, offset: 0, length });
        Ok((slot, state))
    }

    /// Gets memory for a claimed slot and makes it a draft.
    fn give_memory(
        &self,
        slot: &Slot<'_>,
        state: State,
        layout: &Layout,
        bytes: u64,
        (segment, backed): (u32, bool),
    ) -> Result<(u32, u64), CreateError> {
        let commit = || protocol::advance(&slot.state(), state, Phase::Draft);
        let link = self.link.as_ref();
        let place = if bytes == 0 {
            commit().then_some((0, 0))
        } else if layout.whole_pages {
            let (slot_index, generation) = (slot.index, state.generation);
            let grant = link.lease(if segment == FILE_SEGMENT {
                LeaseRequest::File { slot: slot_index, generation, bytes }
            } else if backed {
                LeaseRequest::Extent { slot: slot_index, generation, bytes }
            } else {
                LeaseRequest::Unbacked { slot: slot_index, generation, bytes }
            })?;
            if grant.segment != segment {
                slot.set_segment(grant.segment);
            }
            // What can't be mapped is given back as an orphan is, when the slot is free.
            self.segment(grant.segment, bytes)?;
            slot.place(grant.offset, layout.length);
            commit().then_some((grant.segment, grant.offset))
        } else {
            let held = hold(slot.index, state.generation);
            let offset = self.lanes.allocate(&self.pages, link, slot, held, (layout.length, bytes), commit)?;
            offset.map(|offset| (0, offset))
        };
        place.ok_or(CreateError::Fenced) // only the daemon changes a slot that we claimed
    }
}

impl Draft {
    /// The bytes to fill.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let length = self.locator.length as usize;
        &mut self.range.bytes_mut()[..length]
    }

    /// Copies bytes into the draft, the way that is fastest for its memory: the same as copying into
    /// [`bytes_mut`](Self::bytes_mut), but several times faster for much at a time into pages that this process has not
    /// written before.
    pub fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), WriteError> {
        let (length, from) = (bytes.len() as u64, self.locator.offset + offset.min(self.locator.length));
        if offset.checked_add(length).is_none_or(|end| end > self.locator.length) {
            return Err(WriteError::OutOfBounds { offset, length, draft: self.locator.length });
        }
        let known = if length < LARGE { Known::Mapped } else { self.memory().known(from, length) };
        if known == Known::No {
            self.memory().file.write_at(from, bytes)?;
            self.memory().mark(from, length, Known::Written);
            return Ok(());
        }
        for (number, part) in bytes.chunks(POPULATE as usize).enumerate() {
            let at = (offset + number as u64 * POPULATE) as usize;
            if known == Known::Written {
                self.range.populate(at, part.len());
            }
            self.range.bytes_mut()[at..][..part.len()].copy_from_slice(part);
        }
        if length >= LARGE {
            self.memory().mark(from, length, Known::Mapped);
        }
        Ok(())
    }

    /// Writes a part of a draft that may have no pages yet; its bounds are the caller's concern.
    fn fill(&mut self, offset: u64, bytes: &[u8]) -> Result<(), WriteError> {
        if bytes.len() as u64 >= LARGE {
            return self.write_at(offset, bytes);
        }
        Ok(self.memory().file.write_at(self.locator.offset + offset, bytes)?)
    }

    /// Writes zeros behind a draft, up to the end of its last page.
    fn pad(&self) -> Result<(), WriteError> {
        let end = self.locator.offset + self.locator.length;
        let padding = end.next_multiple_of(PAGE) - end;
        Ok(self.memory().file.write_at(end, &[0; PAGE as usize][..padding as usize])?)
    }

    /// Gives the object to the process with this seat, or to one on another node (0), as
    /// [`Layout::owned_by`] does from the beginning. Who owns a draft matters to nobody before it is sealed.
    pub fn set_owner(&mut self, client: u32) {
        self.record().set_owner(client & MAX_SEAT);
    }

    /// Keeps the object in memory, as [`Layout::unspillable`] does from the beginning.
    pub fn set_unspillable(&mut self) {
        self.record().set_stays();
    }

    /// Where the object will be once it is sealed.
    pub fn locator(&self) -> &Locator {
        &self.locator
    }

    /// Opens the draft's pages in a mapping of their own for JavaScript to fill, and gives the address.
    ///
    /// The pages are writable until [`seal`](Self::seal) or drop, which close them before anything else; detach the
    /// buffer first.
    pub fn expose(&mut self) -> Result<*mut u8, ExposeError> {
        let Locator { offset, length, .. } = self.locator;
        let bytes = layout::footprint(length, true).unwrap_or(0);
        if !self.whole_pages || bytes == 0 {
            return Err(ExposeError::SharedPages { length });
        }
        let address = self.memory().drafts.open(offset, bytes)?;
        self.exposed = bytes;
        Ok(address)
    }

    /// Makes the object readable by everyone who has its locator.
    pub fn seal(mut self) -> Result<Locator, SealError> {
        self.conceal().map_err(SealError::StillWritable)?;
        self.sealed = protocol::advance(&self.slot(), self.state, Phase::Sealed);
        if self.sealed { Ok(self.locator) } else { Err(SealError::Fenced) }
    }

    fn memory(&self) -> &Memory {
        self.inner.mapped(self.locator.segment)
    }

    fn record(&self) -> Slot<'_> {
        self.inner.table.slot(self.locator.slot).expect("the slot was claimed in this table")
    }

    fn slot(&self) -> Shared<'_> {
        self.record().state()
    }

    fn conceal(&mut self) -> Result<(), MapError> {
        if self.exposed > 0 {
            self.memory().drafts.close(self.locator.offset, self.exposed)?;
            self.exposed = 0;
        }
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.sealed {
            if self.conceal().is_err() {
                // JavaScript could still write there, so nobody may get these pages before this process ends.
                return;
            }
            if protocol::advance(&self.slot(), self.state, Phase::Dropped) {
                self.inner.link.free(&[self.locator]);
                // The link may send it later. Until the daemon has it, the hold word is what finds the memory if this
                // process dies.
                self.inner.holds.give_after(self.index, &self.locator, &self.inner.pages, &self.inner.table);
                return;
            }
        }
        protocol::unpin(&self.inner.pages.hold(self.index));
        self.inner.holds.give(self.index, &self.inner.pages);
    }
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Draft").field(&self.locator).finish()
    }
}
