//! A local directory: segments as files, written and read past the page cache.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rustix::fs::{AtFlags, Mode as Permissions, OFlags};
use rustix::io::Errno;

use super::direct::{FileSegment, Mode, Writer};
use super::errno::{refused, retry};
use super::session_dir::{SessionDir, open_dir};
use super::{Buffers, Refusal, Segment, Storage, StorageError, Swept, sweep_directory};
use crate::Session;
use crate::key::segment_name;

/// `DIR/heliostat-spill-SESSION`, made when it is first needed, and again when it was removed.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    uri: String,
    session: Session,
    home: Mutex<Option<Arc<SessionDir>>>,
    mode: Mode,
}

impl Directory {
    /// Touches nothing yet. `threads` is how many will use it at a time.
    pub(crate) fn new(path: PathBuf, session: Session, threads: usize) -> Self {
        let uri = path.display().to_string();
        let (buffered, cancelled) = (AtomicBool::new(false), AtomicBool::new(false));
        let mode = Mode { buffered, cancelled, buffers: Buffers::new(threads) };
        Self { path, uri, session, home: Mutex::default(), mode }
    }

    fn home(&self) -> Option<Arc<SessionDir>> {
        self.home.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn write_file(
        &self,
        home: &SessionDir,
        name: &str,
        body: &[Bytes],
        tail: &mut dyn FnMut() -> Bytes,
    ) -> Result<(), StorageError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let permissions = Permissions::RUSR | Permissions::WUSR;
        let file = self
            .mode
            .direct_or_buffered(|direct| {
                // A file system that refuses direct I/O may have made the file nevertheless.
                if direct.is_empty() {
                    let _ = rustix::fs::unlinkat(&home.dir, name, AtFlags::empty());
                }
                rustix::fs::openat(&home.dir, name, flags | direct, permissions)
            })
            .map_err(|errno| refused("create a file", errno))?;
        self.mode.buffers.with(|buffer| {
            let mut writer = Writer::new(&file, &self.mode, buffer);
            body.iter().try_for_each(|bytes| writer.write(bytes))?;
            writer.write(&tail())?;
            writer.finish()
        })
    }
}

impl Storage for Directory {
    fn uri(&self) -> &str {
        &self.uri
    }

    fn device(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        match rustix::fs::stat(&self.path) {
            Ok(stat) => stat.st_dev.hash(&mut hasher),
            Err(_) => self.uri.hash(&mut hasher),
        }
        hasher.finish()
    }

    fn prepare(&self) -> Result<(), StorageError> {
        self.mode.check()?;
        let mut home = self.home.lock().unwrap_or_else(PoisonError::into_inner);
        if home.as_ref().is_some_and(|home| home.is_there()) {
            return Ok(());
        }
        *home = None;
        *home = Some(Arc::new(SessionDir::create(&self.path, &self.session.folder())?));
        Ok(())
    }

    fn write(&self, segment: u64, body: &[Bytes], tail: &mut dyn FnMut() -> Bytes) -> Result<(), StorageError> {
        let home = self.home().ok_or(StorageError::Gone)?;
        let name = segment_name(segment);
        let result = self.write_file(&home, &name, body, tail);
        if result.is_err() {
            let _ = rustix::fs::unlinkat(&home.dir, &name, AtFlags::empty());
        } else if !home.is_there() {
            // The directory was removed while we wrote: the file has no name.
            let detail = "the directory was removed".to_owned();
            return Err(StorageError::Refused { why: Refusal::Missing, detail });
        }
        result
    }

    fn open(&self, segment: u64) -> Result<Box<dyn Segment + '_>, StorageError> {
        self.mode.check()?;
        let home = self.home().ok_or(StorageError::Gone)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut direct = false;
        let file = self
            .mode
            .direct_or_buffered(|mode| {
                direct = !mode.is_empty();
                rustix::fs::openat(&home.dir, segment_name(segment), flags | mode, Permissions::empty())
            })
            .map_err(|errno| match errno {
                Errno::NOENT | Errno::LOOP => StorageError::Gone,
                errno => refused("open a file", errno),
            })?;
        Ok(Box::new(FileSegment { file, direct, mode: &self.mode }))
    }

    fn remove(&self, segment: u64) -> Result<(), StorageError> {
        let Some(home) = self.home() else { return Ok(()) };
        match retry(|| rustix::fs::unlinkat(&home.dir, segment_name(segment), AtFlags::empty())) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(refused("remove a file", errno)),
        }
    }

    fn heartbeat(&self) -> Result<(), StorageError> {
        self.home().map_or(Ok(()), |home| home.heartbeat())
    }

    fn sweep(&self) -> Result<Swept, StorageError> {
        sweep_directory::sweep(&self.path)
    }

    fn cancel(&self) {
        self.mode.cancelled.store(true, Ordering::Relaxed);
    }

    fn close(&self) -> Result<(), StorageError> {
        let Some(home) = self.home.lock().unwrap_or_else(PoisonError::into_inner).take() else { return Ok(()) };
        if !home.is_there() {
            return Ok(());
        }
        let close = || home.remove(&open_dir(rustix::fs::CWD, &self.path)?, &self.session.folder());
        close().map_err(|errno| refused("remove the session's files", errno))?;
        Ok(())
    }
}
