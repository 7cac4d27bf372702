//! Pins: the right to read an object for as long as one likes.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use heliostat_proto::Locator;
use heliostat_shm::map::Window;

use super::holds::NoHold;
use super::{Inner, StoreClient};
use crate::layout::{FILE_SEGMENT, hold};
use crate::link::LeaseError;
use crate::protocol::{self, Unpinned, Word};
use crate::table::Record;

/// An object couldn't be pinned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// The object is not in this store any more: it was freed.
    #[error("no sealed object at {locator:?}: it was freed; ask its owner")]
    Gone {
        /// The locator that was given.
        locator: Locator,
    },
    /// The object has no memory now. Its locator stays good: ask the daemon to bring it back.
    #[error("the object at {locator:?} is spilled: have the daemon restore it first")]
    Spilled {
        /// The locator that was given.
        locator: Locator,
    },
    /// The locator can't be of this store.
    #[error("{locator:?} lies outside of this store of {capacity} bytes")]
    OutOfBounds {
        /// The locator that was given.
        locator: Locator,
        /// Bytes of the segment.
        capacity: u64,
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
    /// There is no memory to note one more pin in, or no room to map the file that the object is in.
    #[error(transparent)]
    Memory(LeaseError),
}

/// A pinned object: its bytes stay where they are, and what they are, until the pin is dropped.
///
/// A pin keeps the mappings alive, also when the [`StoreClient`] is gone. To share one pin, put it in an `Arc`; a
/// second [`StoreClient::pin`] is nearly as cheap.
pub struct Pin {
    inner: Arc<Inner>,
    index: u32,
    locator: Locator,
}

impl StoreClient {
    /// Pins a sealed object. Takes no lock of another process and doesn't depend on the object's size.
    pub fn pin(&self, locator: &Locator) -> Result<Pin, PinError> {
        let inner = &self.inner;
        let capacity = inner.params.capacity;
        let out = || PinError::OutOfBounds { locator: *locator, capacity };
        let slot = inner.table.slot(locator.slot).filter(|_| locator.segment <= FILE_SEGMENT).ok_or_else(out)?;
        if locator.length > capacity.max(inner.params.file) {
            return Err(out());
        }
        if inner.is_fenced() {
            return Err(PinError::Fenced);
        }
        let limit = inner.params.holds;
        let index = inner.holds.take(&inner.pages, &inner.table).map_err(|none| match none {
            NoHold::Limit => PinError::TooManyHolds { limit },
            NoHold::Memory(error) => PinError::Memory(LeaseError::no_memory(inner.leave, &error)),
        })?;
        let entry = inner.pages.hold(index);
        let held = hold(locator.slot, locator.generation);
        let pinned = protocol::pin(&entry, held, &slot.state(), locator.generation);
        if pinned.is_ok() {
            // Can't change while pinned. The place is the slot's to say: an object that was spilled came back elsewhere.
            let Record { offset, length, segment, .. } = slot.read();
            let mapped = inner.segment(segment, length).map(|memory| memory.read.size());
            let end = offset.checked_add(length).filter(|_| length == locator.length);
            match mapped {
                Ok(size) if end.is_some_and(|end| end <= size) => {
                    let locator = Locator { segment, offset, ..*locator };
                    return Ok(Pin { inner: Arc::clone(inner), index, locator });
                }
                Ok(_) => protocol::unpin(&entry),
                Err(error) => {
                    protocol::unpin(&entry);
                    inner.holds.give(index, &inner.pages);
                    return Err(PinError::Memory(error));
                }
            }
        }
        inner.holds.give(index, &inner.pages);
        Err(match pinned {
            Err(Unpinned::Spilled) => PinError::Spilled { locator: *locator },
            _ => PinError::Gone { locator: *locator },
        })
    }
}

impl Pin {
    /// The object's bytes, read through the shared mapping that JavaScript never sees.
    pub fn bytes(&self) -> &[u8] {
        // In bounds: `pin` checked the locator against the mapping's size.
        self.inner.mapped(self.locator.segment).read.bytes(self.locator.offset, self.locator.length).unwrap_or_default()
    }

    /// The object's address in the process's private [window](StoreClient::window): for views in JavaScript.
    pub fn window_address(&self) -> *const u8 {
        let address = self.window().address(self.locator.offset, self.locator.length);
        address.unwrap_or(std::ptr::null())
    }

    /// The window that [`window_address`](Self::window_address) lies in; guard it as that of the store's memory.
    pub fn window(&self) -> &Arc<Window> {
        &self.inner.mapped(self.locator.segment).window
    }

    /// The object's locator, with the place where it is now.
    pub fn locator(&self) -> &Locator {
        &self.locator
    }
}

impl Deref for Pin {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes()
    }
}

impl AsRef<[u8]> for Pin {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let entry = self.inner.pages.hold(self.index);
        debug_assert_eq!(entry.load(Ordering::Relaxed), hold(self.locator.slot, self.locator.generation));
        protocol::unpin(&entry);
        self.inner.holds.give(self.index, &self.inner.pages);
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pin").field(&self.locator).finish()
    }
}
