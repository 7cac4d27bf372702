//! Ids, messages and wire encoding of Heliostat. No I/O, no unsafe code, no clock.
#![forbid(unsafe_code)]

mod id;
mod locator;

pub use id::{JobId, NodeId, ObjectId, ParseIdError, TaskId, WorkerId};
pub use locator::Locator;
