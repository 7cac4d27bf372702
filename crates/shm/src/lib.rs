//! Shared memory for Heliostat: sealed memory files, mappings, the write guard, rings and bells between
//! processes, process identities.
//!
//! All unsafe code of the reusable crates is here, and all calls to the operating system that concern memory: Linux for
//! now. The modules know nothing of objects; `heliostat-store` builds the store on them.
//!
//! ```
//! use std::sync::Arc;
//! use heliostat_shm::{map::{DataMap, ReadMap}, memfd::Memfd};
//!
//! let memfd = Memfd::create("example", 1 << 20)?;
//! memfd.reserve(0, 4096)?; // from here on, touching these pages can't fail
//! let data = Arc::new(DataMap::new(&memfd)?);
//! data.exclusive(64, 5).expect("in bounds").bytes_mut().copy_from_slice(b"hello");
//!
//! // The same, in any process that got the descriptor:
//! let received = Memfd::from_fd(memfd.share()?)?;
//! assert_eq!(ReadMap::new(&received)?.bytes(64, 5), Some(&b"hello"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![allow(unsafe_code)] // the one reusable crate that may hold unsafe code; every block says why it is sound

pub mod bell;
pub mod guard;
pub mod map;
pub mod memfd;
pub mod memory;
#[cfg(all(test, loom))]
mod model;
pub mod process;
mod protocol;
pub mod ring;
