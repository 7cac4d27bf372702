//! Storage for objects that do not fit into memory: directories, written past the page cache, and object stores.
//!
//! An [`Engine`] takes bytes, fuses small objects to segments, spreads the segments over its targets, and gives exact bytes
//! or a typed error back. It knows nothing of where the bytes come from: a caller hands over [`bytes::Bytes`], which can
//! wrap mapped memory without a copy ([`bytes::Bytes::from_owner`]), and anything that is a `&mut [u8]` to read into.
//!
//! ```
//! use std::sync::mpsc;
//! use heliostat_proto::ObjectId;
//! use heliostat_spill::{Config, Engine, Key, Session};
//!
//! let dir = tempfile::tempdir()?;
//! let engine = Engine::open(Config::new([dir.path().to_str().unwrap()], Session::random()?))?;
//! let key = Key { id: ObjectId([7; 28]), generation: 1 };
//! let (done, results) = mpsc::channel();
//! engine.spill(key, b"hello"[..].into(), move |result| done.send(result).unwrap());
//! engine.flush();
//! results.recv()??;
//!
//! let (done, results) = mpsc::channel();
//! engine.restore(&key, vec![0; 5], move |bytes, result| done.send((bytes, result)).unwrap());
//! assert_eq!(results.recv()?, (b"hello".to_vec(), Ok(())));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod config;
mod engine;
mod error;
pub mod format;
pub mod health;
mod key;
pub mod map;
mod stats;
mod storage;
mod verify;

pub use config::{Config, Event};
pub use engine::Engine;
pub use error::{Corruption, OpenError, RestoreError, SpillError};
pub use key::{Key, SESSION_PREFIX, Session};
pub use stats::{Stats, Traffic};
pub use storage::{
    EXPIRY, HEARTBEAT, Options, Refusal, Retry, Segment, Storage, StorageError, SweepResult, Swept, UriError, sweep,
};
