//! What can go wrong, by operation.

use crate::storage::{Refusal, StorageError, UriError};

/// An engine could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A URI or a storage option can't be used.
    #[error(transparent)]
    Uri(#[from] UriError),
    /// A number is out of its range.
    #[error("{name} is {value}, but must be {wanted}")]
    OutOfRange {
        /// Of the setting.
        name: &'static str,
        /// What was given.
        value: u64,
        /// What would do.
        wanted: &'static str,
    },
    /// There is nowhere to spill to.
    #[error("no directory or URI to spill to was given")]
    NoTarget,
    /// The operating system gives no threads or random numbers.
    #[error("the operating system refused: {0}")]
    Os(String),
}

/// An object was not spilled. The copy in memory is still the only one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpillError {
    /// Every target refused, now or shortly before.
    #[error("no target takes spilled objects: {}", list(.refusals))]
    OutOfDisk {
        /// The targets, and why.
        refusals: Vec<(String, Refusal)>,
    },
    /// This copy is spilled, or being spilled, already.
    #[error("this copy is spilled already")]
    AlreadySpilled,
    /// It was freed meanwhile.
    #[error("the object was freed while it was being spilled")]
    Freed,
    /// The engine is shutting down.
    #[error("spilling is shutting down")]
    ShutDown,
}

fn list(refusals: &[(String, Refusal)]) -> String {
    refusals.iter().map(|(uri, why)| format!("{uri}: {why}")).collect::<Vec<_>>().join("; ")
}

/// What is wrong with stored bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Corruption {
    /// They are not those that were written.
    #[error("the checksum of its part {chunk} is wrong")]
    Checksum {
        /// Which chunk of the object.
        chunk: u64,
    },
    /// The file ends before the object does.
    #[error("its file is cut off")]
    CutOff,
    /// The file is another segment.
    #[error("its file is another one")]
    OtherSegment,
}

/// An object could not be read back. The target's bytes must not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The engine does not have this copy.
    #[error("this copy is not spilled")]
    NotSpilled,
    /// What is stored is not the object.
    #[error("the spilled object in {uri} is damaged: {what}")]
    Corrupted {
        /// The target.
        uri: String,
        /// The damage.
        what: Corruption,
    },
    /// The file or remote object was removed.
    #[error("the spilled object in {uri} is lost: its file is gone")]
    Lost {
        /// The target.
        uri: String,
    },
    /// The target can't be read now; later it may be.
    #[error("the spilled object in {uri} can't be read now: {detail}")]
    Unavailable {
        /// The target.
        uri: String,
        /// What the system or the server said.
        detail: String,
    },
    /// The range, or the target's length, does not fit the object.
    #[error("{length} bytes from {start} were asked for, but the object has {stored}")]
    OutOfRange {
        /// Where the range begins.
        start: u64,
        /// The target's length.
        length: u64,
        /// The object's length.
        stored: u64,
    },
    /// The engine is shutting down.
    #[error("spilling is shutting down")]
    ShutDown,
}

impl RestoreError {
    pub(crate) fn of(error: ReadError, uri: &str) -> Self {
        let uri = uri.to_owned();
        let corrupted = |what| Self::Corrupted { uri: uri.clone(), what };
        match error {
            ReadError::Corrupted(what) => corrupted(what),
            ReadError::Storage(StorageError::CutOff) => corrupted(Corruption::CutOff),
            ReadError::Storage(StorageError::Gone) => Self::Lost { uri },
            ReadError::Storage(StorageError::Cancelled) => Self::ShutDown,
            ReadError::Storage(StorageError::Refused { why, detail }) => {
                Self::Unavailable { uri, detail: format!("{why}: {detail}") }
            }
        }
    }
}

/// Why verified bytes could not be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReadError {
    Storage(StorageError),
    Corrupted(Corruption),
}

impl From<StorageError> for ReadError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}
