//! Ownership, submission and scheduling of Heliostat as pure state machines: events in, actions out. No clock, no
//! sockets, no threads, no napi.
//!
//! [`Core`] is one process: its references, the tasks it submitted, the tasks it runs. [`schedule`] and [`pressure`] are
//! the daemon's part.
#![forbid(unsafe_code)]

mod action;
mod cancel;
mod core;
mod exec;
mod following;
mod functions;
mod hash;
mod leases;
mod lending;
pub mod names;
mod objects;
pub mod pressure;
mod produce;
mod received;
pub mod schedule;
mod slab;
mod streams;
mod tasks;
mod unread;
mod waits;
mod watch;

pub use action::{Action, ExecutionId, Handle, WaitId};
pub use cancel::GRACE_MS;
pub use core::{Core, Counts, Identity, Values};
pub use exec::{Aborted, Execution};
pub use objects::Place;
pub use produce::{ItemPlace, Room};
pub use received::FunctionNumber;
pub use streams::Next;
pub use tasks::Submission;
