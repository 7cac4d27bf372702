//! Mappings of memory files, one type per use, so that words and bytes are never mixed by accident.
//!
//! What other processes may change is either read as atomic words ([`WordMap`]) or as bytes under a protocol that says
//! who may write them ([`DataMap`], [`ReadMap`]): in the store, an extent is written by the one process that drafts
//! an object in it and read by others only after the object was sealed. All processes that hold a descriptor belong to
//! one user and are trusted to keep it; a process that scribbles over memory it doesn't own breaks the contents of
//! objects, as any native code in it could, but never the bounds that are checked here.

use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{Mmap, MmapOptions, MmapRaw};
use rustix::mm::MprotectFlags;

use crate::memfd::{Memfd, PAGE};

/// Mapping a memory file failed.
#[derive(Debug, thiserror::Error)]
#[error(
    "mapping {length} bytes of shared memory failed ({source}): is the address space or its limit (ulimit -v) used up?"
)]
pub struct MapError {
    /// Length of the mapping in bytes.
    pub length: u64,
    /// What the kernel said.
    pub source: std::io::Error,
}

fn options(memfd: &Memfd) -> MmapOptions {
    let mut options = MmapOptions::new();
    options.len(memfd.size() as usize);
    options
}

fn fail(memfd: &Memfd) -> impl FnOnce(std::io::Error) -> MapError {
    let length = memfd.size();
    move |source| MapError { length, source }
}

/// `offset..offset + length` as indices, if it lies within `size` bytes.
fn range(size: usize, offset: u64, length: u64) -> Option<Range<usize>> {
    let end = offset.checked_add(length)?;
    (end <= size as u64).then_some(offset as usize..end as usize)
}

/// A shared mapping of words that several processes change: only atomic access.
#[derive(Debug)]
pub struct WordMap {
    raw: MmapRaw,
}

impl WordMap {
    /// Maps the whole file for reading and writing.
    pub fn new(memfd: &Memfd) -> Result<Self, MapError> {
        Ok(Self { raw: options(memfd).map_raw(memfd.as_fd().as_raw_fd()).map_err(fail(memfd))? })
    }

    /// The 64-bit word at a byte offset; `None` if it isn't aligned to 8 bytes or lies outside.
    #[inline]
    pub fn word(&self, offset: u64) -> Option<&AtomicU64> {
        if !offset.is_multiple_of(8) {
            return None;
        }
        let range = range(self.raw.len(), offset, 8)?;
        // SAFETY: in bounds and aligned (mappings start on a page); the mapping lives as long as `self`; this type
        // gives no other access than atomic words, and the file can't shrink.
        Some(unsafe { AtomicU64::from_ptr(self.raw.as_mut_ptr().add(range.start).cast()) })
    }

    /// Length in bytes.
    pub fn size(&self) -> u64 {
        self.raw.len() as u64
    }
}

/// A shared mapping of bytes that is only read.
#[derive(Debug)]
pub struct ReadMap {
    raw: MmapRaw,
}

impl ReadMap {
    /// Maps the whole file for reading; a read-only descriptor is enough.
    pub fn new(memfd: &Memfd) -> Result<Self, MapError> {
        Ok(Self { raw: options(memfd).map_raw_read_only(memfd.as_fd().as_raw_fd()).map_err(fail(memfd))? })
    }

    /// The bytes of a range; `None` if it lies outside.
    ///
    /// The caller's protocol must keep writers away from the range while the slice lives: in the store, a pin does.
    #[inline]
    pub fn bytes(&self, offset: u64, length: u64) -> Option<&[u8]> {
        let range = range(self.raw.len(), offset, length)?;
        // SAFETY: in bounds, initialised (the kernel gives zeroed pages), alive as long as `self`; sealed bytes aren't
        // written (see the module's text), and the file can't shrink.
        Some(unsafe { std::slice::from_raw_parts(self.raw.as_ptr().add(range.start), range.len()) })
    }

    /// Loads the 64-bit word at a byte offset once; `None` if it isn't aligned to 8 bytes or lies outside.
    #[inline]
    pub fn load(&self, offset: u64, order: Ordering) -> Option<u64> {
        if !offset.is_multiple_of(8) {
            return None;
        }
        let range = range(self.raw.len(), offset, 8)?;
        // SAFETY: in bounds and aligned; a load of a machine word doesn't write on any 64-bit target.
        Some(unsafe { AtomicU64::from_ptr(self.raw.as_mut_ptr().add(range.start).cast()) }.load(order))
    }

    /// Length in bytes.
    pub fn size(&self) -> u64 {
        self.raw.len() as u64
    }
}

/// A shared mapping of bytes that drafts are written through.
#[derive(Debug)]
pub struct DataMap {
    raw: MmapRaw,
}

impl DataMap {
    /// Maps the whole file for reading and writing.
    pub fn new(memfd: &Memfd) -> Result<Self, MapError> {
        Ok(Self { raw: options(memfd).map_raw(memfd.as_fd().as_raw_fd()).map_err(fail(memfd))? })
    }

    /// A range for its one writer; `None` if it lies outside.
    ///
    /// The caller's protocol must make sure that nobody else reads or writes the range while the result lives: in the
    /// store, the daemon hands each byte to one draft at a time and nobody reads a draft.
    pub fn exclusive(self: &Arc<Self>, offset: u64, length: u64) -> Option<ExclusiveRange> {
        let range = range(self.raw.len(), offset, length)?;
        Some(ExclusiveRange { map: Arc::clone(self), start: range.start, length: range.len() })
    }
}

/// A range of shared memory that its holder alone writes.
#[derive(Debug)]
pub struct ExclusiveRange {
    map: Arc<DataMap>,
    start: usize,
    length: usize,
}

impl ExclusiveRange {
    /// The bytes, as left by whoever had them before.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: bounds were checked when the range was made; `&mut self` and the protocol named at
        // `DataMap::exclusive` make this the only access.
        unsafe { std::slice::from_raw_parts_mut(self.map.raw.as_mut_ptr().add(self.start), self.length) }
    }

    /// Asks the system to map the pages of a part of the range for writing now, in one call instead of a fault for each.
    ///
    /// A hint: kernels before 5.14 don't know it, and the pages then come with the first write.
    pub fn populate(&mut self, from: usize, length: usize) {
        let (from, length) = (from.min(self.length), length.min(self.length.saturating_sub(from)));
        let first = (self.start + from) & !(PAGE as usize - 1);
        let end = (self.start + from + length).next_multiple_of(PAGE as usize).min(self.map.raw.len());
        let length = end - first;
        // SAFETY: the range lies within the mapping; populating changes no contents.
        let _ = unsafe {
            let address = self.map.raw.as_mut_ptr().add(first).cast();
            rustix::mm::madvise(address, length, rustix::mm::Advice::LinuxPopulateWrite)
        };
    }
}

/// The private, read-only mapping of a whole segment: the only one that JavaScript ever sees.
///
/// Nothing that is written through it reaches the file; a [`Guard`](crate::guard::Guard) lets such writes happen on a
/// private copy and reports them.
#[derive(Debug)]
pub struct Window {
    map: Mmap,
}

impl Window {
    /// Maps the whole file privately, for reading.
    pub fn new(memfd: &Memfd) -> Result<Self, MapError> {
        // SAFETY: the mapping is used through addresses only, never as a Rust slice, so that changes of the file by
        // other processes break no rule of the language; the file can't shrink.
        let map = unsafe { options(memfd).map_copy_read_only(memfd.as_fd().as_raw_fd()) }.map_err(fail(memfd))?;
        Ok(Self { map })
    }

    /// Address of a range; `None` if it lies outside. It stays mapped as long as the window lives.
    #[inline]
    pub fn address(&self, offset: u64, length: u64) -> Option<*const u8> {
        let range = range(self.map.len(), offset, length)?;
        Some(self.map.as_ptr().wrapping_add(range.start))
    }

    /// Length in bytes.
    pub fn size(&self) -> u64 {
        self.map.len() as u64
    }
}

/// The shared mapping that lets JavaScript fill drafts: no page of it can be written but those of open drafts.
///
/// It is apart from [`DataMap`] so that a write through a buffer that JavaScript kept, or a read that the system is
/// still filling, meets read-only pages once the draft was closed.
#[derive(Debug)]
pub struct DraftMap {
    raw: MmapRaw,
}

impl DraftMap {
    /// Maps the whole file, with nothing writable yet. The descriptor must allow writing.
    pub fn new(memfd: &Memfd) -> Result<Self, MapError> {
        let raw = options(memfd).map_raw_read_only(memfd.as_fd().as_raw_fd()).map_err(fail(memfd))?;
        Ok(Self { raw })
    }

    /// Makes whole pages writable and gives their address. Each open range costs up to two mappings of the process's
    /// limit (`vm.max_map_count`), so open few and large ones.
    pub fn open(&self, offset: u64, length: u64) -> Result<*mut u8, MapError> {
        self.protect(offset, length, MprotectFlags::READ | MprotectFlags::WRITE)
    }

    /// Takes the right to write the pages away again, also from system calls in flight.
    pub fn close(&self, offset: u64, length: u64) -> Result<(), MapError> {
        self.protect(offset, length, MprotectFlags::READ).map(|_| ())
    }

    fn protect(&self, offset: u64, length: u64, flags: MprotectFlags) -> Result<*mut u8, MapError> {
        let invalid = || MapError { length, source: std::io::ErrorKind::InvalidInput.into() };
        let range = range(self.raw.len(), offset, length).ok_or_else(invalid)?;
        if !offset.is_multiple_of(PAGE) || !length.is_multiple_of(PAGE) {
            return Err(invalid());
        }
        let address = self.raw.as_mut_ptr().wrapping_add(range.start);
        // SAFETY: whole pages within a mapping that this type owns and gives no references into.
        unsafe { rustix::mm::mprotect(address.cast(), range.len(), flags) }
            .map_err(|errno| MapError { length, source: errno.into() })?;
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_and_alignment_are_checked() {
        let memfd = Memfd::create("test", 2 * PAGE).unwrap();
        let words = WordMap::new(&memfd).unwrap();
        assert!(words.word(2 * PAGE - 8).is_some());
        for bad in [4, 2 * PAGE, 2 * PAGE - 4, u64::MAX - 7, u64::MAX] {
            assert!(words.word(bad).is_none(), "{bad}");
        }
        let read = ReadMap::new(&memfd).unwrap();
        let window = Window::new(&memfd).unwrap();
        let data = Arc::new(DataMap::new(&memfd).unwrap());
        for (offset, length) in [(0, 2 * PAGE + 1), (2 * PAGE, 1), (u64::MAX, 1), (1, u64::MAX)] {
            assert!(read.bytes(offset, length).is_none());
            assert!(window.address(offset, length).is_none());
            assert!(data.exclusive(offset, length).is_none());
        }
        assert_eq!(read.bytes(2 * PAGE, 0), Some(&[][..]));
    }

    #[test]
    fn what_one_mapping_writes_the_others_read() {
        let memfd = Memfd::create("test", 4 * PAGE).unwrap();
        let data = Arc::new(DataMap::new(&memfd).unwrap());
        let mut range = data.exclusive(PAGE, 3).unwrap();
        range.populate(0, 3);
        range.bytes_mut().copy_from_slice(b"abc");
        assert_eq!(ReadMap::new(&memfd).unwrap().bytes(PAGE, 3), Some(&b"abc"[..]));
        let address = Window::new(&memfd).map(|w| w.address(PAGE, 3).unwrap().is_null()).unwrap();
        assert!(!address);
    }

    #[test]
    fn a_header_sealed_against_writers_can_be_read_but_not_mapped_for_writing() {
        let memfd = Memfd::create("test", PAGE).unwrap();
        let words = WordMap::new(&memfd).unwrap();
        memfd.seal_against_writers().unwrap();
        words.word(8).unwrap().store(7, Ordering::Release);
        let shared = Memfd::from_fd(memfd.share_read_only().unwrap()).unwrap();
        assert_eq!(ReadMap::new(&shared).unwrap().load(8, Ordering::Acquire), Some(7));
        assert!(WordMap::new(&memfd).is_err());
        assert!(WordMap::new(&shared).is_err());
    }

    #[test]
    fn a_closed_draft_refuses_a_system_call_that_still_writes() {
        let memfd = Memfd::create("test", 2 * PAGE).unwrap();
        let drafts = DraftMap::new(&memfd).unwrap();
        let address = drafts.open(PAGE, PAGE).unwrap();
        // SAFETY: the page was opened for writing just above.
        unsafe { address.write(5) };
        drafts.close(PAGE, PAGE).unwrap();
        let zero = std::fs::File::open("/dev/zero").unwrap();
        // SAFETY: the kernel checks the address itself; no Rust reference to this memory exists.
        let read = unsafe { libc::read(std::os::fd::AsRawFd::as_raw_fd(&zero), address.cast(), 8) };
        assert_eq!((read, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EFAULT)));
        assert_eq!(ReadMap::new(&memfd).unwrap().bytes(PAGE, 1), Some(&[5][..]));
        assert!(drafts.open(1, PAGE).is_err());
    }
}
