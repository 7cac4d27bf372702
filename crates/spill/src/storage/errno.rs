//! What the operating system's errors mean for a target.

use rustix::io::Errno;

use super::{Refusal, StorageError};

/// `what` says which step failed.
pub(super) fn refused(what: &str, errno: Errno) -> StorageError {
    let why = match errno {
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::MFILE | Errno::NFILE => Refusal::Full,
        Errno::ROFS => Refusal::ReadOnly,
        Errno::NOENT | Errno::NOTDIR | Errno::STALE | Errno::NODEV | Errno::NXIO => Refusal::Missing,
        Errno::ACCESS | Errno::PERM | Errno::LOOP => Refusal::Denied,
        _ => Refusal::Failed,
    };
    StorageError::Refused { why, detail: format!("{what}: {errno}") }
}

/// Again while a signal interrupts.
pub(super) fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}
