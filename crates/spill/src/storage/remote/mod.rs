//! An object store: a segment is an object under `PREFIX/heliostat-spill-SESSION/`.

mod client;
mod retry;
mod runtime;
mod session;
mod upload;

use std::fmt;
use std::future::Future;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectStoreExt as _};
use tokio::sync::watch;

use self::client::Client;
pub use self::retry::Retry;
use self::retry::{is_transient, status};
pub(crate) use self::runtime::Runtime;
use super::uri::{Options, Scheme, Secrets, UriError};
use super::{Refusal, Segment, Storage, StorageError, Swept};
use crate::Session;
use crate::key::segment_name;

/// How long an abort or a deletion may take that comes after a failure, or while the engine shuts down.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// What all remote storages of an engine share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    /// Drives the connections; calls wait for it in the engine's threads.
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) retry: Retry,
    /// Segments above this go up in parts of this size.
    pub(crate) buffer_size: u64,
    /// Parts of one segment on their way at a time.
    pub(crate) parallel: usize,
}

/// A prefix in a bucket.
pub(crate) struct Remote {
    uri: String,
    session: Session,
    prefix: Path,
    client: Client,
    secrets: Secrets,
    shared: Shared,
    marked: AtomicBool,
    cancelled: watch::Sender<bool>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({}, {:?})", self.uri, self.session)
    }
}

impl Remote {
    /// Makes the client; no request yet.
    pub(crate) fn new(
        (scheme, uri, bucket, prefix): (Scheme, String, &str, &str),
        session: Session,
        options: &Options,
        shared: Shared,
    ) -> Result<Self, UriError> {
        let client = Client::new(scheme, &uri, bucket, options)?;
        Ok(Self {
            prefix: Path::from(prefix),
            session,
            client,
            secrets: Secrets::of(options),
            shared,
            marked: AtomicBool::new(false),
            cancelled: watch::Sender::new(false),
            uri,
        })
    }

    fn folder(&self) -> Path {
        self.prefix.clone().join(self.session.folder())
    }

    fn path(&self, segment: u64) -> Path {
        self.folder().join(segment_name(segment))
    }

    /// Waits for a future, until the engine shuts down.
    fn wait<T>(&self, future: impl Future<Output = Result<T, StorageError>>) -> Result<T, StorageError> {
        let mut cancelled = self.cancelled.subscribe();
        self.shared.runtime.block_on(async {
            tokio::select! {
                biased;
                _ = cancelled.wait_for(|cancelled| *cancelled) => Err(StorageError::Cancelled),
                result = future => result,
            }
        })
    }

    /// Tries a request that moves so many bytes, within the bounds.
    async fn attempt<T, F: Future<Output = Result<T, Error>>>(
        &self,
        bytes: u64,
        mut request: impl FnMut() -> F,
    ) -> Result<T, Failure> {
        let mut tries = 1;
        loop {
            let failure = match tokio::time::timeout(self.shared.retry.time_for(bytes), request()).await {
                Ok(Ok(result)) => return Ok(result),
                Ok(Err(error)) if !is_transient(&error) => return Err(Failure::Answer(error)),
                Ok(Err(error)) => Failure::Answer(error),
                Err(_) => Failure::Stalled,
            };
            if tries >= self.shared.retry.tries {
                return Err(failure);
            }
            tokio::time::sleep(self.shared.retry.pause_after(tries)).await;
            tries += 1;
        }
    }

    /// What a failure means, in words without secrets.
    fn explain(&self, what: &str, failure: &Failure) -> StorageError {
        let (why, text) = match failure {
            Failure::Stalled => (Refusal::Failed, "the server did not answer in time".to_owned()),
            Failure::Answer(error) => {
                let why = match error {
                    Error::NotFound { .. } => Refusal::Missing,
                    Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Refusal::Denied,
                    _ if status(error) == Some(507) => Refusal::Full,
                    _ => Refusal::Failed,
                };
                (why, self.secrets.redact(&error.to_string()))
            }
        };
        StorageError::Refused { why, detail: format!("{what}: {text}") }
    }

    /// Reads a range to the end, going on after an interruption with what is missing.
    async fn read(&self, path: &Path, offset: u64, into: &mut [u8]) -> Result<(), StorageError> {
        let (mut filled, mut tries) = (0, 1);
        loop {
            let failure = match self.read_some(path, offset, into, &mut filled).await {
                Ok(()) if filled == into.len() => return Ok(()),
                Ok(()) => Failure::Answer(Error::Generic { store: "storage", source: "the body was too short".into() }),
                Err(failure) => failure,
            };
            match self.measure(path, &failure).await {
                Some(length) if length < offset + into.len() as u64 => return Err(StorageError::CutOff),
                None if matches!(failure, Failure::Answer(Error::NotFound { .. })) => return Err(StorageError::Gone),
                _ => {}
            }
            let is_final = matches!(&failure, Failure::Answer(error) if !is_transient(error));
            if is_final || tries >= self.shared.retry.tries {
                return Err(self.explain("read a segment", &failure));
            }
            tokio::time::sleep(self.shared.retry.pause_after(tries)).await;
            tries += 1;
        }
    }

    async fn read_some(&self, path: &Path, offset: u64, into: &mut [u8], filled: &mut usize) -> Result<(), Failure> {
        let stall = self.shared.retry.stall;
        let range: Range<u64> = offset + *filled as u64..offset + into.len() as u64;
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let request = self.client.objects.get_opts(path, options);
        let response = tokio::time::timeout(stall, request).await.map_err(|_| Failure::Stalled)?;
        let mut body = response.map_err(Failure::Answer)?.into_stream();
        while *filled < into.len() {
            let next = tokio::time::timeout(stall, body.next()).await.map_err(|_| Failure::Stalled)?;
            let Some(bytes) = next.transpose().map_err(Failure::Answer)? else { break };
            let count = bytes.len().min(into.len() - *filled);
            into[*filled..][..count].copy_from_slice(&bytes[..count]);
            *filled += count;
        }
        Ok(())
    }

    /// The object's real length, when a failure may come from its being too short: servers and the client say that in
    /// several ways.
    async fn measure(&self, path: &Path, failure: &Failure) -> Option<u64> {
        if matches!(failure, Failure::Stalled | Failure::Answer(Error::NotFound { .. })) {
            return None;
        }
        let head = tokio::time::timeout(self.shared.retry.stall, self.client.objects.head(path)).await;
        Some(head.ok()?.ok()?.size)
    }
}

/// Why a request did not succeed.
#[derive(Debug)]
enum Failure {
    Answer(Error),
    Stalled,
}

impl Storage for Remote {
    fn uri(&self) -> &str {
        &self.uri
    }

    fn device(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.uri.hash(&mut hasher);
        hasher.finish()
    }

    fn prepare(&self) -> Result<(), StorageError> {
        if !self.marked.load(Ordering::Relaxed) {
            self.wait(self.mark())?;
            self.marked.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn write(&self, segment: u64, body: &[Bytes], tail: &mut dyn FnMut() -> Bytes) -> Result<(), StorageError> {
        let mut parts = body.to_vec();
        parts.push(tail());
        self.upload(segment, &parts)
    }

    fn open(&self, segment: u64) -> Result<Box<dyn Segment + '_>, StorageError> {
        Ok(Box::new(Object { remote: self, path: self.path(segment) }))
    }

    fn remove(&self, segment: u64) -> Result<(), StorageError> {
        self.wait(self.delete(&self.path(segment)))
    }

    fn heartbeat(&self) -> Result<(), StorageError> {
        if self.marked.load(Ordering::Relaxed) { self.wait(self.mark()) } else { Ok(()) }
    }

    fn sweep(&self) -> Result<Swept, StorageError> {
        self.wait(self.sweep_prefix())
    }

    fn cancel(&self) {
        self.cancelled.send_replace(true);
    }

    fn close(&self) -> Result<(), StorageError> {
        if !self.marked.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        // Not `wait`: this comes after `cancel`.
        self.shared.runtime.block_on(async { self.remove_session(&self.folder()).await.map(|_| ()) })
    }
}

impl Remote {
    async fn delete(&self, path: &Path) -> Result<(), StorageError> {
        match self.attempt(0, || self.client.objects.delete(path)).await {
            Ok(()) | Err(Failure::Answer(Error::NotFound { .. })) => Ok(()),
            Err(failure) => Err(self.explain("delete an object", &failure)),
        }
    }

    /// A moment for what must be tried although the engine shuts down.
    fn last_words<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        self.shared.runtime.block_on(async { tokio::time::timeout(LAST_WORDS, future).await.ok() })
    }
}

struct Object<'a> {
    remote: &'a Remote,
    path: Path,
}

impl Segment for Object<'_> {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), StorageError> {
        if into.is_empty() {
            return Ok(());
        }
        self.remote.wait(self.remote.read(&self.path, offset, into))
    }
}
