//! Serialised values: laid out in one piece, inline or straight into the store.

use heliostat_proto::blob::Layout;
use heliostat_proto::{Blob, Bytes, ObjectId, RefEntry};
use heliostat_runtime::Handle;

use crate::client::Client;
use crate::error::PutError;

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

impl Client {
    /// Stores a value and gives the program its first handle.
    pub fn put(&self, parts: Parts<'_>) -> Result<Handle, PutError> {
        let id = self.with_core(heliostat_runtime::Core::next_put_id);
        let blob = self.blob(id, parts)?;
        Ok(self.with_core(|core| core.put_as(id, blob, parts.refs.to_vec())))
    }

    /// Lays a value out: up to the inline limit as bytes, above it in the store, filed under `id`. The caller keeps the
    /// references inside alive until the blob is with the state machine.
    pub fn blob(&self, id: ObjectId, parts: Parts<'_>) -> Result<Blob, PutError> {
        let refs = self.entries(parts.refs);
        let lens = || parts.buffers.iter().map(|buffer| buffer.len() as u64);
        let size = Layout::new(parts.header.len(), lens(), refs.len(), false).total();
        if size <= self.welcome().inline_limit {
            return Ok(Blob::Inline(self.inline(parts)));
        }
        let layout = Layout::new(parts.header.len(), lens(), refs.len(), true);
        let object = heliostat_store::Layout::new(layout.total());
        let mut draft = self.store().create(id, object).map_err(|error| self.put_error(error))?;
        layout.write(draft.bytes_mut(), parts.header, parts.buffers, &refs);
        let locator = draft.seal().map_err(heliostat_store::PutError::from).map_err(|error| self.put_error(error))?;
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

    fn put_error(&self, error: impl Into<heliostat_store::PutError>) -> PutError {
        if self.is_gone() { PutError::NodeGone } else { PutError::Store(error.into()) }
    }

    fn entries(&self, handles: &[Handle]) -> Vec<RefEntry> {
        if handles.is_empty() {
            return Vec::new();
        }
        self.with_core(|core| handles.iter().filter_map(|handle| core.export(*handle)).collect())
    }
}
