//! The directory of a node's socket: only its user can enter it, and the next node of that user removes what a dead one
//! left.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

/// Bytes of a Unix socket's path, without the closing zero.
const SOCKET_PATH_MAX: usize = 107;
const SOCKET: &str = "node.sock";
const LOCK: &str = "lock";
const PACKAGES: &str = "packages";
const LOGS: &str = "logs";
const PREFIX: &str = "s-";

/// The session directory could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}")]
    Os {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// What is there may have been put there by somebody else.
    #[error("{path} cannot be used: it {reason}; remove it, or choose another directory for temporary files")]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The system takes no socket of so long a path.
    #[error(
        "the socket's path {path} has {length} bytes, the system allows {SOCKET_PATH_MAX}; choose a shorter directory for temporary files"
    )]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its bytes.
        length: usize,
    },
}

/// A living session's directory.
#[derive(Debug)]
pub(crate) struct Session {
    dir: PathBuf,
    /// Held as long as the session lives; the kernel gives it back when the process dies.
    _lock: OwnedFd,
}

impl Session {
    /// Makes the directory of a new session and removes those of dead ones.
    pub(crate) fn create(temp_dir: &Path) -> Result<Self, SessionError> {
        let os = |action, path: &Path| {
            let path = path.to_owned();
            move |source: Errno| SessionError::Os { action, path, source: source.into() }
        };
        let uid = rustix::process::getuid();
        let base = temp_dir.join(format!("heliostat-{}", uid.as_raw()));
        let name = format!("{PREFIX}{}", heliostat_package::hex(&crate::random::<4>()));
        let dir = base.join(&name);
        let socket = dir.join(SOCKET);
        let length = socket.as_os_str().len();
        if length > SOCKET_PATH_MAX {
            return Err(SessionError::PathTooLong { path: socket, length });
        }

        std::fs::create_dir_all(temp_dir).map_err(|source| SessionError::Os {
            action: "create",
            path: temp_dir.to_owned(),
            source,
        })?;
        let base_fd = open_base(&base, uid)?;
        // Whoever makes or sweeps sessions holds the base: nobody sees a directory whose lock is not taken yet.
        rustix::fs::flock(&base_fd, FlockOperation::LockExclusive).map_err(os("lock", &base))?;
        sweep(&base_fd, &base);
        rustix::fs::mkdirat(&base_fd, &name, Mode::RWXU).map_err(os("create", &dir))?;
        let lock_path = dir.join(LOCK);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let lock = rustix::fs::open(&lock_path, flags, Mode::RUSR | Mode::WUSR).map_err(os("create", &lock_path))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(os("lock", &lock_path))?;
        Ok(Self { dir, _lock: lock })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where packages of directories and their copies are; made by whoever brings the first.
    pub(crate) fn packages(&self) -> PathBuf {
        self.dir.join(PACKAGES)
    }

    /// Where the output of workers is.
    pub(crate) fn logs(&self) -> PathBuf {
        self.dir.join(LOGS)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join(SOCKET)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // What cannot be removed now is swept by the next session of this user.
        remove(&self.dir);
    }
}

/// Opens the directory of this user's sessions, and makes it first when it is not there. The checks are on the open
/// descriptor: nobody can put another directory in its place afterwards.
fn open_base(base: &Path, uid: rustix::process::Uid) -> Result<OwnedFd, SessionError> {
    let os = |action| move |source: Errno| SessionError::Os { action, path: base.to_owned(), source: source.into() };
    let not_ours = |reason| SessionError::NotOurs { path: base.to_owned(), reason };
    match rustix::fs::mkdir(base, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(source) => return Err(os("create")(source)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::open(base, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::LOOP | Errno::NOTDIR => not_ours("is not a directory"),
        source => os("open")(source),
    })?;
    let stat = rustix::fs::fstat(&fd).map_err(os("look at"))?;
    if stat.st_uid != uid.as_raw() {
        return Err(not_ours("belongs to another user"));
    }
    if stat.st_mode & 0o077 != 0 {
        rustix::fs::fchmod(&fd, Mode::RWXU).map_err(os("close to other users"))?;
    }
    Ok(fd)
}

/// Removes the sessions that nobody holds the lock of. What cannot be looked at or removed stays.
fn sweep(base_fd: &OwnedFd, base: &Path) {
    let Ok(entries) = Dir::read_from(base_fd) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !name.to_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let Ok(text) = name.to_str() else { continue };
        if is_dead(base_fd, text) {
            remove(&base.join(text));
        }
    }
}

/// Removes a directory with all that is in it. What cannot be removed stays.
fn remove(directory: &Path) {
    if std::fs::remove_dir_all(directory).is_err() {
        // A program may have closed directories of its working directory.
        open_up(directory);
        let _ = std::fs::remove_dir_all(directory);
    }
}

fn open_up(directory: &Path) {
    let _ = std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700));
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        open_up(&entry.path());
    }
}

fn is_dead(base_fd: &OwnedFd, name: &str) -> bool {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(base_fd, format!("{name}/{LOCK}"), flags, Mode::empty()) {
        Ok(lock) => rustix::fs::flock(File::from(lock), FlockOperation::NonBlockingLockExclusive).is_ok(),
        // Its maker died before the lock was there: makers hold the base, and it is ours now.
        Err(Errno::NOENT) => rustix::fs::statat(base_fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok(),
        Err(_) => false,
    }
}
