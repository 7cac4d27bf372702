//! The write guard: lets a write into a [`Window`] happen on a private copy of the page, and reports it.
//!
//! JavaScript engines and native code can write through any pointer that they hold. A window's pages are read-only, so
//! such a write faults; the handler opens the 2 MiB *granule* around it for writing. The mapping is private: the kernel
//! copies the pages that are written and the file never changes. Granules, because opening single pages ends at
//! `vm.max_map_count` mappings. An opened granule is **dirty**: further writes in it don't fault and a copied page never
//! shows later contents of the file again. So before a pin on a dirty granule is dropped, call [`Guard::heal`] and
//! report the objects under the ranges that it returns.
//!
//! ```
//! use std::sync::Arc;
//! use heliostat_shm::{guard::Guard, map::Window, memfd::Memfd};
//!
//! let memfd = Memfd::create("example", 1 << 20)?;
//! let window = Arc::new(Window::new(&memfd)?);
//! let guard = Guard::watch(Arc::clone(&window))?;
//! assert!(!guard.is_dirty());
//! assert!(guard.heal()?.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod handler;
mod pagemap;
mod registry;

use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::EventfdFlags;

pub use handler::{installed, reinstall};
pub use registry::{GRANULE, MAX_WINDOWS};

use crate::map::Window;

/// Watching a window, looking for copied pages or healing them failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// This process watches [`MAX_WINDOWS`] windows already.
    #[error("this process guards {MAX_WINDOWS} store windows already: drop the views of stores that were shut down")]
    TooManyWindows,
    /// The kernel refused a call.
    #[error("{call} failed: {source}")]
    System {
        /// The system call that failed.
        call: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
}

impl GuardError {
    fn system(call: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::System { call, source: errno.into() }
    }
}

/// Watches one window for as long as it lives, and keeps the window mapped.
///
/// Several windows may be guarded at once (a store that was shut down while views of it live, and its successor).
/// The signal handler stays installed after the last guard is gone: another addon may have saved its address.
#[derive(Debug)]
pub struct Guard {
    window: Arc<Window>,
    entry: &'static registry::Entry,
    wake: OwnedFd,
    pagemap: OwnedFd,
}

impl Guard {
    /// Installs the handler if it isn't yet, and watches `window` from now on.
    pub fn watch(window: Arc<Window>) -> Result<Self, GuardError> {
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(GuardError::system("eventfd"))?;
        let pagemap = pagemap::open().map_err(GuardError::system("open(/proc/self/pagemap)"))?;
        if !installed() {
            reinstall()?;
        }
        let base = window.address(0, 0).map_or(0, |address| address as usize);
        let entry = registry::add(base, window.size() as usize, wake.as_raw_fd()).ok_or(GuardError::TooManyWindows)?;
        Ok(Self { window, entry, wake, pagemap })
    }

    /// The guarded window.
    pub fn window(&self) -> &Arc<Window> {
        &self.window
    }

    /// Whether any granule was written since it was last healed: one atomic load.
    #[inline]
    pub fn is_dirty(&self) -> bool {
        self.entry.is_dirty()
    }

    /// An eventfd that becomes readable when a granule turns dirty; read it to reset it.
    ///
    /// For an event loop that wants to report a write soon, without waiting for the next get.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// The ranges of the segment (bytes, whole pages, ascending) of which this process holds private copies now.
    ///
    /// Looks at dirty granules only. Writes may go on meanwhile; [`heal`](Self::heal) gives the final answer.
    pub fn scan(&self) -> Result<Vec<Range<u64>>, GuardError> {
        let mut copied = Vec::new();
        for granule in self.entry.dirty() {
            self.scan_granule(&granule, &mut copied)?;
        }
        Ok(copied)
    }

    /// Closes all dirty granules again, drops this process's copies and gives the ranges that had been copied
    /// (bytes of the segment, whole pages, ascending): from now on the window shows the stored bytes.
    ///
    /// Each granule is made read-only first, so that no write can slip between looking and dropping.
    pub fn heal(&self) -> Result<Vec<Range<u64>>, GuardError> {
        let mut copied = Vec::new();
        for granule in self.entry.dirty() {
            self.entry.close(&granule, || self.scan_granule(&granule, &mut copied))?;
        }
        Ok(copied)
    }

    /// Appends the copied ranges of one granule, joined with the last one where they touch.
    fn scan_granule(&self, granule: &registry::Granule, copied: &mut Vec<Range<u64>>) -> Result<(), GuardError> {
        let found = pagemap::copied(self.pagemap.as_fd(), granule.address.clone())
            .map_err(GuardError::system("reading /proc/self/pagemap"))?;
        for range in found {
            let offset = |address: usize| (address - granule.address.start) as u64 + granule.offset;
            let range = offset(range.start)..offset(range.end);
            match copied.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => copied.push(range),
            }
        }
        Ok(())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Before the descriptor closes: the handler writes to its number.
        self.entry.remove();
    }
}
