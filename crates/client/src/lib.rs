//! The side of Heliostat that lives in drivers and workers: submission, futures, owner tables.
//!
//! [`Client`] is one process's membership in a node. Its state machine ([`heliostat_runtime::Core`]) is driven by a thread
//! that reads all connections, so that a busy JavaScript thread holds nobody up; JavaScript threads learn of news
//! through a port each.
#![forbid(unsafe_code)]

mod client;
mod daemon_end;
mod envs;
mod error;
mod fold;
mod hello;
mod inline;
mod io;
mod named;
mod output;
mod peers;
mod ports;
mod restores;
mod room;
mod rpc;
mod streams;
mod values;
mod watch;

pub use client::{Blocked, Client, ClientOptions};
pub use envs::EnvWish;
pub use error::{ConnectError, PutError};
pub use named::NamedError;
pub use ports::{Event, Notify, PortId};
pub use restores::{ReadyTask, RestoreId};
pub use room::set_patience;
pub use values::{Parts, SealOutcome, Space};
