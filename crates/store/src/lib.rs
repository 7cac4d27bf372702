//! Shared-memory object store: create, seal, get, pin, free; one segment per node, no IPC on the fast path.
//!
//! One process, the *daemon*, makes the store and hands out seats. Every other process is a *client*: it maps the
//! store and creates, finds, pins and reads objects by changing shared words itself. It asks the daemon only for
//! memory (a lease for many small objects, whole pages for each large one) and to take objects out.
//!
//! - **Immutable.** An object is filled as a [`Draft`] that nobody else sees, sealed, and never changes again.
//! - **Zero-copy.** A [`Pin`] gives the bytes where they are, whatever their size, and keeps them there.
//! - **Safe against any death.** A client holds no lock across a step that can die. What it was doing stands in its own
//!   pages, and [`StoreDaemon::client_gone`] brings all of it back. Nobody ever sees an unsealed object.
//! - **Larger than memory.** An object's bytes can be kept elsewhere and brought back: its locator stays good.
//! - **Full is an error.** Pages are reserved before they are handed out, and the limits of the system and of all
//!   control groups are read first: no SIGBUS, nobody killed.
//!
//! The layout of the shared memory and the protocols are described in `docs/design/store.md`.
//!
//! ```
//! use std::sync::{Arc, Mutex};
//! use heliostat_proto::{TaskId, WorkerId};
//! use heliostat_shm::process::Identity;
//! use heliostat_store::{Layout, LocalLink, StoreClient, StoreConfig, StoreDaemon};
//!
//! // The daemon. Seats for other processes go through a Unix socket: `seat.params` as data, `seat.into_fds()` by SCM_RIGHTS.
//! let mut daemon = StoreDaemon::create(StoreConfig::new(64 << 20))?;
//! let seat = daemon.join(Identity::current()?)?;
//! let client = seat.params.client;
//! let daemon = Arc::new(Mutex::new(daemon));
//!
//! // A client, here in the same process.
//! let store = StoreClient::attach(seat, Arc::new(LocalLink::new(Arc::clone(&daemon), client)))?;
//! let id = TaskId::root(WorkerId([1; 16])).object(1);
//! let mut draft = store.create(id, Layout::new(5))?;
//! draft.bytes_mut().copy_from_slice(b"hello");
//! let locator = draft.seal()?;
//!
//! let pin = store.pin(&locator)?;
//! assert_eq!(pin.bytes(), b"hello");
//! store.free(&[locator]);
//! assert!(!store.contains(&id) && pin.bytes() == b"hello"); // gone for others, still ours
//! drop(pin);
//! daemon.lock().unwrap().sweep_deferred();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate self as heliostat_store; // what the unit tests share with the others names the crate

#[cfg(test)]
mod checks;
mod client;
mod config;
mod daemon;
mod layout;
mod link;
#[cfg(all(test, loom))]
mod model;
mod pages;
mod protocol;
mod seat;
mod table;
mod word;

pub use client::{
    AttachError, CreateError, Draft, ExposeError, Layout, Pin, PinError, PutError, SealError, StoreClient, WriteError,
};
pub use config::StoreConfig;
pub use daemon::{
    BeginRestoreError, Candidate, Content, CreateStoreError, FileTarget, JoinError, Rebuilt, Reclaimed, Restore,
    Spilled, StoreDaemon, StoreStats, Target,
};
pub use layout::{FILE_SEGMENT, LANES, LARGE, LONGEST_LEASE, MAX_PROBE, MAX_SEAT, PAGE, UNIT};
pub use link::{DaemonLink, Holder, HolderKind, LeaseError, LeaseGrant, LeaseRequest, LocalLink};
pub use seat::{SEAT_FDS, Seat, SeatFdsError, SeatParams};
