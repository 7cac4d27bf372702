//! Descriptors on the event loop.

use std::io;
use std::os::fd::AsRawFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor with the event loop of this thread.
///
/// `T` must keep the same descriptor open for as long as it lives, as all that own one do.
#[allow(deprecated)] // the new names are unsafe functions for the sake of types that close it early; ours do not
pub(crate) fn watch<T: AsRawFd>(fd: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(fd, interest)
}
