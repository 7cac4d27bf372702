//! Ownership, submission and scheduling of Heliostat as pure state machines: events in, actions out. No clock, no
//! sockets, no threads, no napi.
//!
//! [`Core`] is one process: its references, the tasks it submitted, the tasks it runs. [`schedule`] and [`pressure`] are
//! the daemon's part.
#![forbid(unsafe_code)]

mod action;
mod core;
mod exec;
mod lending;
mod objects;
pub mod pressure;
pub mod schedule;
mod slab;
mod tasks;
mod waits;

pub use action::{Action, ExecutionId, Handle, WaitId};
pub use core::{Core, Counts, Identity, Values};
pub use exec::Execution;
pub use tasks::Submission;
