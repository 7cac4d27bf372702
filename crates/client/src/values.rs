//! Serialised values: laid out in one piece, inline or straight into the store.

use heliostat_proto::blob::Layout;
use heliostat_proto::{Blob, Bytes, ObjectId, RefEntry};
use heliostat_runtime::Handle;

use crate::client::Client;
use crate::error::PutError;

/// Bytes before the data of a draft: room for what the codec writes about it.
const HEAD: u64 = 4096;

/// Memory of the store that the program fills in place, before it is an object.
#[derive(Debug)]
pub struct Space {
    draft: heliostat_store::Draft,
    length: u64,
}

/// The parts of a serialised value, still in the memory of the program.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// The codec's header.
    pub header: &'a [u8],
    /// The buffers out of band.
    pub buffers: &'a [&'a [u8]],
    /// The references inside, as handles of this process.
    pub refs: &'a [Handle],
}

/// Values up to this many bytes are inline in any case: a place in the store would take about as much as they do.
pub(crate) const ALWAYS_INLINE: u64 = 256;
/// Bytes of inline values that a process keeps at most; with a smaller store, a tenth of its size.
const INLINE_MAX: u64 = 256 << 20;
/// Longer headers are written from where they are.
const SMALL_HEADER: usize = 16 * 1024;

/// Bytes of inline values that a process of a node with such a store keeps at most.
pub(crate) fn inline_max(capacity: u64) -> u64 {
    INLINE_MAX.min(capacity / 10)
}

/// As many as lie between two buffers at most.
const ZEROS: [u8; 4096] = [0; 4096];

impl Space {
    /// The data, once the program writes no more.
    pub fn data(&mut self) -> &[u8] {
        let length = self.length as usize;
        &self.draft.bytes_mut()[HEAD as usize..HEAD as usize + length]
    }
}

/// A space did not become an object.
#[derive(Debug)]
pub enum SealOutcome {
    /// What the codec wrote does not fit before the data: it must be copied.
    TooLong(Space),
    /// The store refused.
    Failed(PutError),
}

impl Client {
    /// Lays a value out: up to the inline limit as bytes, above it in the store, filed under `id` as
    /// an object of the process with the seat `owner`. The caller keeps the
    /// references inside alive until the blob is with the state machine.
    pub fn blob(&self, id: ObjectId, owner: u32, parts: Parts<'_>) -> Result<Blob, PutError> {
        let lens = parts.buffers.iter().map(|buffer| buffer.len() as u64);
        let size = Layout::new(parts.header.len(), lens, parts.refs.len(), false).total();
        if size <= self.welcome().inline_limit && self.has_inline_room(size) {
            return Ok(Blob::Inline(self.inline(parts)));
        }
        self.stored(id, owner, parts)
    }

    /// Lays a value out in the store, however small it is; see [`Self::blob`].
    pub fn stored(&self, id: ObjectId, owner: u32, parts: Parts<'_>) -> Result<Blob, PutError> {
        let refs = self.entries(parts.refs);
        let lens = parts.buffers.iter().map(|buffer| buffer.len() as u64);
        let layout = Layout::new(parts.header.len(), lens, refs.len(), true);
        let places: Vec<(u64, u64)> = layout.buffers().collect();
        let mut tables = vec![0; layout.header_at()];
        layout.write_tables(&mut tables, &refs);
        // Several pieces cost a call each: a small header is rather copied once more.
        let mut end = (tables.len() + parts.header.len()) as u64;
        let mut pieces = vec![&tables[..], parts.header];
        if parts.header.len() < SMALL_HEADER {
            tables.extend_from_slice(parts.header);
            pieces = vec![&tables[..]];
        }
        for ((offset, len), bytes) in places.into_iter().zip(parts.buffers) {
            // Padding is zero, whatever the memory held before.
            pieces.extend([&ZEROS[..(offset - end) as usize], bytes]);
            end = offset + len;
        }
        let locator = self
            .store()
            .put_parts(id, self.layout(owner, !refs.is_empty()), &pieces)
            .map_err(|error| self.put_error(error))?;
        Ok(Blob::Stored(locator))
    }

    /// Bytes of values that this process keeps itself, in its references.
    pub fn inline_bytes(&self) -> u64 {
        self.shared.lock_core().inline_bytes()
    }

    /// Whether this process may keep so many bytes more inline. Of small values it may, whose answer takes no lock.
    pub fn has_inline_room(&self, size: u64) -> bool {
        if size <= ALWAYS_INLINE {
            return true;
        }
        self.inline_bytes() + size <= inline_max(self.store().params().capacity)
    }

    /// Zeroed memory for `length` bytes of data, and its address for the program to write to until it becomes an object
    /// by [`Self::seal`] or is dropped.
    pub fn allocate(&self, length: u64) -> Result<(Space, *mut u8), PutError> {
        let id = self.with_core(heliostat_runtime::Core::next_put_id);
        let layout = heliostat_store::Layout::new(HEAD + length).whole_pages().zeroed();
        let mut draft = self.store().create(id, layout).map_err(|error| self.put_error(error))?;
        let address = draft.expose().map_err(PutError::Expose)?;
        Ok((Space { draft, length }, address.wrapping_add(HEAD as usize)))
    }

    /// Makes a value of which the memory is the one buffer, as an object of the process with the seat `owner`. Gives the
    /// memory back when the rest is too long for the page before it.
    pub fn seal(&self, space: Space, owner: u32, header: &[u8], refs: &[Handle]) -> Result<Blob, SealOutcome> {
        let entries = self.entries(refs);
        let Some(layout) = Layout::around(header.len(), HEAD, space.length, entries.len()) else {
            return Err(SealOutcome::TooLong(space));
        };
        let Space { mut draft, .. } = space;
        layout.write_head(draft.bytes_mut(), header, &entries);
        draft.set_owner(owner);
        if !refs.is_empty() && owner != self.seat() {
            draft.set_unspillable();
        }
        let locator = draft
            .seal()
            .map_err(|error| SealOutcome::Failed(self.put_error(heliostat_store::PutError::from(error))))?;
        Ok(Blob::Stored(locator))
    }

    /// A value as bytes, whatever its size.
    pub fn inline(&self, parts: Parts<'_>) -> Bytes {
        let refs = self.entries(parts.refs);
        let lens = parts.buffers.iter().map(|buffer| buffer.len() as u64);
        let layout = Layout::new(parts.header.len(), lens, refs.len(), false);
        let mut bytes = vec![0; layout.total() as usize];
        layout.write(&mut bytes, parts.header, parts.buffers, &refs);
        Bytes::new(bytes)
    }

    /// How an object lies in the store. The owner of a result learns from its bytes what references are inside, and may
    /// not have to wait for that: such a result stays in memory.
    fn layout(&self, owner: u32, has_refs: bool) -> heliostat_store::Layout {
        let layout = heliostat_store::Layout::new(0).owned_by(owner);
        if has_refs && owner != self.seat() { layout.unspillable() } else { layout }
    }

    fn put_error(&self, error: impl Into<heliostat_store::PutError>) -> PutError {
        if self.is_gone() { PutError::NodeGone } else { PutError::Store(error.into()) }
    }

    pub(crate) fn entries(&self, handles: &[Handle]) -> Vec<RefEntry> {
        if handles.is_empty() {
            return Vec::new();
        }
        self.with_core(|core| handles.iter().filter_map(|handle| core.export(*handle)).collect())
    }
}
