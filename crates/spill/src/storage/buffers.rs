//! Aligned memory for what direct I/O cannot take from, or put to, where it lies.

use std::sync::{Mutex, PoisonError};

use crate::format::BLOCK;

/// Bytes that begin at a block.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

/// Length of each buffer.
pub(crate) const BUFFER: usize = 4 << 20;

impl Buffer {
    fn new() -> Self {
        let bytes = vec![0; BUFFER + BLOCK as usize];
        let start = bytes.as_ptr().align_offset(BLOCK as usize);
        Self { bytes, start }
    }

    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..][..BUFFER]
    }
}

/// Buffers that wait for their next use: fresh memory is slower than the disk.
#[derive(Debug)]
pub(crate) struct Buffers {
    free: Mutex<Vec<Buffer>>,
    kept: usize,
}

impl Buffers {
    /// Keeps at most so many.
    pub(crate) fn new(kept: usize) -> Self {
        Self { free: Mutex::default(), kept }
    }

    /// Lends a buffer of [`BUFFER`] bytes with any content.
    pub(crate) fn with<T>(&self, body: impl FnOnce(&mut [u8]) -> T) -> T {
        let taken = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buffer = taken.unwrap_or_else(Buffer::new);
        let result = body(buffer.as_mut());
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < self.kept {
            free.push(buffer);
        }
        result
    }
}

/// Whether direct I/O can use this memory as it lies.
pub(crate) fn is_aligned(bytes: &[u8]) -> bool {
    bytes.as_ptr().addr().is_multiple_of(BLOCK as usize)
}
