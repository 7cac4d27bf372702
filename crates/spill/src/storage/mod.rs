//! Where segments go: directories and object stores.

mod buffers;
mod direct;
mod directory;
mod errno;
mod marker;
mod remote;
mod session_dir;
mod sweep_directory;
mod uri;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

pub(crate) use self::buffers::Buffers;
use self::directory::Directory;
pub use self::marker::{EXPIRY, HEARTBEAT};
pub use self::remote::Retry;
use self::remote::{Remote, Runtime};
use self::uri::Place;
pub use self::uri::{Options, UriError};
use crate::{Config, OpenError};

/// Why a target does not take a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No space, no quota, or a limit on file sizes.
    Full,
    /// Mounted read-only.
    ReadOnly,
    /// Not there, or not what it should be.
    Missing,
    /// Permissions or credentials do not suffice.
    Denied,
    /// Anything else, such as an I/O error or a server that does not answer.
    Failed,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "it is full",
            Self::ReadOnly => "it is read-only",
            Self::Missing => "it is missing",
            Self::Denied => "access is denied",
            Self::Failed => "it does not work",
        })
    }
}

/// A storage could not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// It refused or failed.
    #[error("{why}: {detail}")]
    Refused {
        /// The kind.
        why: Refusal,
        /// What the system or the server said. Never holds credentials.
        detail: String,
    },
    /// It works, but the segment is not there.
    #[error("the segment is gone")]
    Gone,
    /// The segment ends before the bytes that were asked for.
    #[error("the segment is cut off")]
    CutOff,
    /// The engine is shutting down.
    #[error("given up because the engine shuts down")]
    Cancelled,
}

/// What a sweep removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Sessions whose owner is dead.
    pub sessions: u64,
    /// Their files or remote objects, and uploads that were never completed.
    pub files: u64,
    /// The files' length.
    pub bytes: u64,
    /// Sessions that were left alone, because their owner lives or may live.
    pub living: u64,
}

impl std::ops::AddAssign for Swept {
    fn add_assign(&mut self, other: Self) {
        self.sessions += other.sessions;
        self.files += other.files;
        self.bytes += other.bytes;
        self.living += other.living;
    }
}

/// Storage of one session's segments. Calls block; the engine makes them from threads of its own, several at a time.
pub trait Storage: Send + Sync + fmt::Debug {
    /// What the user wrote, without credentials.
    fn uri(&self) -> &str;

    /// Storages with equal devices share the same disk or service, as far as is known now.
    fn device(&self) -> u64;

    /// Makes the session's directory or marker, if it is not there. Comes before the first write.
    fn prepare(&self) -> Result<(), StorageError>;

    /// Writes a whole segment: `body`, then what `tail` gives. The length is a multiple of a block. When it fails
    /// nothing of the segment stays.
    fn write(&self, segment: u64, body: &[Bytes], tail: &mut dyn FnMut() -> Bytes) -> Result<(), StorageError>;

    /// Opens a segment for reading.
    fn open(&self, segment: u64) -> Result<Box<dyn Segment + '_>, StorageError>;

    /// Removes a segment; one that is gone already is fine.
    fn remove(&self, segment: u64) -> Result<(), StorageError>;

    /// Shows others that the session lives. Comes once in [`crate::HEARTBEAT`].
    fn heartbeat(&self) -> Result<(), StorageError>;

    /// Removes what dead sessions left.
    fn sweep(&self) -> Result<Swept, StorageError>;

    /// Makes calls that are under way, and all later ones but `close`, end early.
    fn cancel(&self);

    /// Removes everything of this session.
    fn close(&self) -> Result<(), StorageError>;
}

/// A segment that is open for reading.
pub trait Segment: Send + Sync {
    /// Fills `into` with the bytes from `offset` on.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), StorageError>;
}

/// The storages that a configuration names; nothing is touched yet.
pub(crate) fn open(config: &Config) -> Result<Vec<Arc<dyn Storage>>, OpenError> {
    let mut runtime = None;
    let mut open_one = |uri: &String| -> Result<Arc<dyn Storage>, OpenError> {
        Ok(match Place::parse(uri, &config.storage)? {
            Place::Directory(path) => Arc::new(Directory::new(path, config.session, config.max_io_workers)),
            Place::Bucket { scheme, uri, bucket, prefix } => {
                let shared = remote::Shared {
                    runtime: match &runtime {
                        Some(runtime) => Arc::clone(runtime),
                        None => Arc::clone(runtime.insert(Arc::new(Runtime::new()?))),
                    },
                    retry: config.retry,
                    buffer_size: config.buffer_size,
                    parallel: config.max_io_workers,
                };
                Arc::new(Remote::new((scheme, uri, &bucket, &prefix), config.session, &config.storage, shared)?)
            }
        })
    };
    config.uris.iter().map(&mut open_one).collect()
}

/// A target, and what a sweep removed there or why it could not.
pub type SweepResult = (String, Result<Swept, StorageError>);

/// Removes what dead sessions left in these targets, and tells for each what was removed or why not. Blocks. An engine
/// does the same when it starts; `config.session` must not be a living engine's.
pub fn sweep(config: &Config) -> Result<Vec<SweepResult>, OpenError> {
    config.check()?;
    let storages = open(config)?;
    Ok(storages.iter().map(|storage| (storage.uri().to_owned(), storage.sweep())).collect())
}
