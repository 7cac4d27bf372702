//! Ids, messages and wire encoding of Heliostat. No I/O, no unsafe code, no clock.
//!
//! ```
//! use heliostat_proto::{TaskId, WorkerId};
//!
//! let task = TaskId::root(WorkerId([1; 16])).child(0, 7);
//! assert_eq!(task.object(1).task(), task);
//! ```
#![forbid(unsafe_code)]

pub mod blob;
pub mod digest;
mod env;
pub mod frame;
mod id;
mod locator;
pub mod message;
mod value;

pub use env::EnvSpec;
pub use id::{EnvId, JobId, NodeId, ObjectId, PackageHash, ParseIdError, TaskId, WorkerId};
pub use locator::Locator;
pub use value::{Blob, Bytes, Fact, Failure, RefEntry, Value};
