//! An engine's settings, and what it tells.

use std::sync::Arc;
use std::time::Duration;

use crate::storage::{Options, Refusal, Retry, Swept};
use crate::{OpenError, Session};

/// Settings of an [`crate::Engine`].
#[derive(Clone)]
pub struct Config {
    /// Directories or URIs (`file://`, `s3://`, `gs://`, `az://`); segments are spread over them.
    pub uris: Vec<String>,
    /// Names what this engine stores.
    pub session: Session,
    /// Smaller objects are fused until a segment has so many bytes. Default 100 MiB.
    pub min_spilling_size: u64,
    /// Remote segments above this are uploaded in parts of this size (5 MiB at least). Default 100 MiB.
    pub buffer_size: u64,
    /// Threads of each target. With two or more, one is left to reads. Default 4.
    pub max_io_workers: usize,
    /// A batch that is not full is written this long after its first object came. Default 200 ms.
    pub flush_after: Duration,
    /// Settings of object stores.
    pub storage: Options,
    /// Bounds on the tries of remote requests.
    pub retry: Retry,
    /// Whether to remove what dead sessions left, when the engine starts. Default true.
    pub sweep: bool,
    /// Called from the engine's threads; must not block.
    pub events: Arc<dyn Fn(Event) + Send + Sync>,
}

impl Config {
    /// The defaults, with nobody listening to events.
    pub fn new<U: Into<String>>(uris: impl IntoIterator<Item = U>, session: Session) -> Self {
        Self {
            uris: uris.into_iter().map(Into::into).collect(),
            session,
            min_spilling_size: 100 << 20,
            buffer_size: 100 << 20,
            max_io_workers: 4,
            flush_after: Duration::from_millis(200),
            storage: Options::default(),
            retry: Retry::default(),
            sweep: true,
            events: Arc::new(|_| {}),
        }
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let check = |name, value, good: bool, wanted| {
            if good { Ok(()) } else { Err(OpenError::OutOfRange { name, value, wanted }) }
        };
        let workers = self.max_io_workers;
        check("maxIoWorkers", workers as u64, (1..=64).contains(&workers), "from 1 to 64")?;
        check("minSpillingSize", self.min_spilling_size, self.min_spilling_size > 0, "above 0")?;
        check("bufferSize", self.buffer_size, self.buffer_size > 0, "above 0")?;
        check("the number of tries", self.retry.tries.into(), self.retry.tries > 0, "above 0")
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("session", &self.session)
            .field("targets", &self.uris.len())
            .field("min_spilling_size", &self.min_spilling_size)
            .field("buffer_size", &self.buffer_size)
            .field("max_io_workers", &self.max_io_workers)
            .field("flush_after", &self.flush_after)
            .field("storage", &self.storage)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

/// Something that is worth a line in a log. Each comes once for each change of state. Texts hold no credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A target refused a write, and gets none for a while; the others take its share.
    Suspended {
        /// The target.
        uri: String,
        /// The kind of refusal.
        why: Refusal,
        /// What the system or the server said.
        detail: String,
    },
    /// A target that was suspended takes writes again.
    Recovered {
        /// The target.
        uri: String,
    },
    /// A target was looked through for what dead sessions left.
    Swept {
        /// The target.
        uri: String,
        /// What was removed.
        swept: Swept,
    },
    /// That did not work; what they left stays.
    SweepFailed {
        /// The target.
        uri: String,
        /// What the system or the server said.
        detail: String,
    },
    /// Stored objects were found damaged or gone. Comes once for each segment.
    Damaged {
        /// The target.
        uri: String,
        /// The segment's number.
        segment: u64,
        /// What was found.
        detail: String,
    },
}
