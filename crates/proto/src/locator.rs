//! Where the bytes of a stored object are.

use serde::{Deserialize, Serialize};

/// An object of a node's store: slot and generation say which one, also when its bytes have moved meanwhile, to storage
/// and back. A place in a node's store. The same words are used in the object table, in messages and in spill files, so that
/// further segments, file-backed extents and hand-over between nodes need no new format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Locator {
    /// Segment of the node's store; 0 is its memfd.
    pub segment: u32,
    /// Slot of the shared object table that describes the object.
    pub slot: u32,
    /// First byte within the segment when the locator was made; the slot says where it is now.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
    /// Generation of the slot: a slot that was reused has another one.
    pub generation: u32,
}
