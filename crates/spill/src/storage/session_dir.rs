//! A session's directory: private, and locked as long as its session lives.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::errno::{refused, retry};
use super::marker::Owner;
use super::{Refusal, StorageError};

/// Its `flock` is held by the living owner; its text says who that is.
pub(super) const LOCK: &str = "lock";

/// How often somebody else's step is waited for, and how long each time.
const TRIES: u32 = 1000;
const PAUSE: Duration = Duration::from_millis(2);

const PRIVATE: OFlags = OFlags::CLOEXEC.union(OFlags::NOFOLLOW);

/// An open session directory. The lock is held as long as this lives.
#[derive(Debug)]
pub(super) struct SessionDir {
    pub(super) dir: OwnedFd,
    lock: OwnedFd,
}

impl SessionDir {
    /// Makes and locks the directory.
    pub(super) fn create(parent: &Path, name: &str) -> Result<Self, StorageError> {
        std::fs::create_dir_all(parent).map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            // "File exists": the path is there, but not a directory.
            refused("create the directory", if errno == Errno::EXIST { Errno::NOTDIR } else { errno })
        })?;
        let path = parent.join(name);
        // A sweep may see the directory before it is locked. It then locks it itself, removes it, and lets go: once more.
        for _ in 0..TRIES {
            match retry(|| rustix::fs::mkdir(&path, Mode::RWXU)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(refused("create the session's directory", errno)),
            }
            let dir = match open_dir(rustix::fs::CWD, &path) {
                Ok(dir) => dir,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(refused("open the session's directory", errno)),
            };
            check_private(&dir)?;
            let mut lock = match open_lock(&dir, OFlags::RDONLY | OFlags::CREATE) {
                Ok(lock) => lock,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(refused("create the lock file", errno)),
            };
            match try_lock(&dir, &mut lock) {
                Ok(()) if is_linked(&lock) && is_linked(&dir) => {
                    write_owner(&dir)?;
                    return Ok(Self { dir, lock });
                }
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => std::thread::sleep(PAUSE),
                // Without locks a sweep leaves the directory alone, see `SessionDir::of_dead`.
                Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS) => {
                    write_owner(&dir)?;
                    return Ok(Self { dir, lock });
                }
                Err(errno) => return Err(refused("lock the session's directory", errno)),
            }
        }
        let detail = "another process holds the lock of this session's directory".to_owned();
        Err(StorageError::Refused { why: Refusal::Failed, detail })
    }

    /// The directory of a session that is not alive as far as locks tell, locked against others who sweep. None if it
    /// lives or may live, is gone, or is not ours.
    pub(super) fn of_dead(parent: &OwnedFd, name: &str) -> Option<Self> {
        let dir = open_dir(parent, Path::new(name)).ok()?;
        check_private(&dir).ok()?;
        let mut lock = open_lock(&dir, OFlags::RDONLY | OFlags::CREATE).ok()?;
        try_lock(&dir, &mut lock).ok()?;
        is_linked(&lock).then_some(Self { dir, lock })
    }

    /// Whether the directory is still where it was made.
    pub(super) fn is_there(&self) -> bool {
        is_linked(&self.dir) && is_linked(&self.lock)
    }

    /// Who made it, and when it last showed that it lives, since 1970.
    pub(super) fn owner(&self) -> (Option<Owner>, Duration) {
        let mut text = [0; 1024];
        let count = retry(|| rustix::io::pread(&self.lock, &mut text, 0)).unwrap_or(0);
        let owner = std::str::from_utf8(&text[..count]).ok().and_then(Owner::from_text);
        let seconds = rustix::fs::fstat(&self.lock).map_or(0, |stat| stat.st_mtime);
        (owner, Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    }

    pub(super) fn heartbeat(&self) -> Result<(), StorageError> {
        write_owner(&self.dir)
    }

    /// Removes all files and the directory; the lock file last, since who holds that one sweeps. Returns the number of
    /// other files and their bytes.
    pub(super) fn remove(&self, parent: &OwnedFd, name: &str) -> Result<(u64, u64), Errno> {
        let (mut files, mut bytes) = (0, 0);
        for entry in rustix::fs::Dir::read_from(&self.dir)? {
            let entry = entry?;
            let file = entry.file_name();
            if file.to_bytes() == LOCK.as_bytes() || matches!(file.to_bytes(), b"." | b"..") {
                continue;
            }
            let length = rustix::fs::statat(&self.dir, file, AtFlags::SYMLINK_NOFOLLOW).map_or(0, |stat| stat.st_size);
            ignore_gone(rustix::fs::unlinkat(&self.dir, file, AtFlags::empty()))?;
            files += 1;
            bytes += u64::try_from(length).unwrap_or(0);
        }
        // Between the two steps, somebody else who sweeps may see a directory without a lock and make one, to sweep it.
        for _ in 0..TRIES {
            ignore_gone(rustix::fs::unlinkat(&self.dir, LOCK, AtFlags::empty()))?;
            match ignore_gone(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)) {
                Err(Errno::NOTEMPTY | Errno::EXIST) => std::thread::sleep(PAUSE),
                result => return result.map(|()| (files, bytes)),
            }
        }
        Err(Errno::NOTEMPTY)
    }
}

pub(super) fn open_dir(at: impl std::os::fd::AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    retry(|| rustix::fs::openat(&at, path, OFlags::RDONLY | OFlags::DIRECTORY | PRIVATE, Mode::empty()))
}

fn open_lock(dir: &OwnedFd, flags: OFlags) -> Result<OwnedFd, Errno> {
    retry(|| rustix::fs::openat(dir, LOCK, flags | PRIVATE, Mode::RUSR | Mode::WUSR))
}

/// A directory that somebody else could write to is not used: they could put links where files are made.
fn check_private(dir: &OwnedFd) -> Result<(), StorageError> {
    let stat = rustix::fs::fstat(dir).map_err(|errno| refused("look at the session's directory", errno))?;
    let ours = stat.st_uid == rustix::process::geteuid().as_raw();
    let others = Mode::from_raw_mode(stat.st_mode) & (Mode::RWXG | Mode::RWXO);
    if ours && FileType::from_raw_mode(stat.st_mode).is_dir() && others.is_empty() {
        return Ok(());
    }
    let detail = "the session's directory is not private to this user".to_owned();
    Err(StorageError::Refused { why: Refusal::Denied, detail })
}

fn ignore_gone(result: Result<(), Errno>) -> Result<(), Errno> {
    if result == Err(Errno::NOENT) { Ok(()) } else { result }
}

fn is_linked(file: &OwnedFd) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat| stat.st_nlink > 0)
}

/// Nobody writes to the lock file for long: a file system with files that are open for writing can't be made read-only.
/// But NFS locks only such files.
fn try_lock(dir: &OwnedFd, lock: &mut OwnedFd) -> Result<(), Errno> {
    let try_it = |lock: &OwnedFd| retry(|| rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive));
    match try_it(lock) {
        Err(Errno::BADF) => {
            *lock = open_lock(dir, OFlags::RDWR)?;
            try_it(lock)
        }
        result => result,
    }
}

fn write_owner(dir: &OwnedFd) -> Result<(), StorageError> {
    let text = Owner::this_process().to_text();
    let write = || {
        let file = open_lock(dir, OFlags::WRONLY)?;
        retry(|| rustix::io::pwrite(&file, text.as_bytes(), 0))
    };
    write().map_err(|errno| refused("write the lock file", errno))?;
    Ok(())
}
