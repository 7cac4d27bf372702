//! Pins: the right to read an object for as long as one likes.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use heliostat_proto::Locator;

use super::holds::NoHold;
use super::{Inner, StoreClient};
use crate::layout::hold;
use crate::link::LeaseError;
use crate::protocol::{self, Word};

/// An object couldn't be pinned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// The object is not at this place (any more): it was freed, spilled or evicted. Ask its owner for a new locator.
    #[error("no sealed object at {locator:?}: it was freed or moved; ask its owner where it is now")]
    Gone {
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
    /// There is no memory to note one more pin in.
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
        let slot = inner.table.slot(locator.slot).filter(|_| locator.segment == 0).ok_or_else(out)?;
        if locator.offset.checked_add(locator.length).is_none_or(|end| end > capacity) {
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
        if protocol::pin(&entry, held, &slot.state(), locator.generation) {
            let record = slot.read(); // can't change while pinned
            if (record.offset, record.length) == (locator.offset, locator.length) {
                return Ok(Pin { inner: Arc::clone(inner), index, locator: *locator });
            }
            protocol::unpin(&entry);
        }
        inner.holds.give(index, &inner.pages);
        Err(PinError::Gone { locator: *locator })
    }
}

impl Pin {
    /// The object's bytes, read through the shared mapping that JavaScript never sees.
    pub fn bytes(&self) -> &[u8] {
        // In bounds: `pin` checked the locator against the capacity, which is the mapping's size.
        self.inner.read.bytes(self.locator.offset, self.locator.length).unwrap_or_default()
    }

    /// The object's address in the process's private [window](StoreClient::window): for views in JavaScript.
    pub fn window_address(&self) -> *const u8 {
        let address = self.inner.window.address(self.locator.offset, self.locator.length);
        address.unwrap_or(std::ptr::null())
    }

    /// Where the object is.
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
