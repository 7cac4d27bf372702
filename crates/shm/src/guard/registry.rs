//! The guarded windows, in a form that a signal handler may use: fixed slots of atomics under a spin lock.
//!
//! The lock is never held across anything that can fault in a window, so the handler can't meet its own thread's lock;
//! other threads' holders go on while it spins.

use std::ops::Range;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use rustix::mm::{Advice, MprotectFlags};

use super::GuardError;

/// Unit in which a window is opened for writing, in bytes.
pub const GRANULE: usize = 2 << 20;
/// How many windows one process can guard at a time.
pub const MAX_WINDOWS: usize = 64;

static ENTRIES: [Entry; MAX_WINDOWS] = [const { Entry::empty() }; MAX_WINDOWS];
static LOCK: AtomicBool = AtomicBool::new(false);

/// One guarded window; free when `base` is 0.
#[derive(Debug)]
pub(super) struct Entry {
    base: AtomicUsize,
    size: AtomicUsize,
    /// One bit per granule. Owned by this entry: made by `add`, freed by `remove`, both under the lock.
    bits: AtomicPtr<AtomicU64>,
    dirty: AtomicU32,
    wake: AtomicI32,
}

/// A dirty part of a window: at most [`GRANULE`] bytes.
#[derive(Debug, Clone)]
pub(super) struct Granule {
    index: usize,
    /// Offset within the segment.
    pub(super) offset: u64,
    /// Addresses in this process.
    pub(super) address: Range<usize>,
}

struct Locked;

impl Locked {
    fn take() -> Self {
        while LOCK.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            rustix::thread::sched_yield();
        }
        Self
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        LOCK.store(false, Ordering::Release);
    }
}

/// Registers a window; `None` when all slots are taken.
pub(super) fn add(base: usize, size: usize, wake: i32) -> Option<&'static Entry> {
    let words: Box<[AtomicU64]> = (0..size.div_ceil(GRANULE).div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
    let _locked = Locked::take();
    let entry = ENTRIES.iter().find(|entry| entry.base.load(Ordering::Relaxed) == 0)?;
    entry.size.store(size, Ordering::Relaxed);
    entry.dirty.store(0, Ordering::Relaxed);
    entry.wake.store(wake, Ordering::Relaxed);
    entry.bits.store(Box::into_raw(words).cast(), Ordering::Relaxed);
    entry.base.store(base, Ordering::Relaxed);
    Some(entry)
}

/// Opens the granule of a faulting address; false if no guarded window holds the address, or the kernel refuses.
///
/// Called from the signal handler: atomics and system calls only.
pub(super) fn open(address: usize) -> bool {
    // Foreign faults don't touch the lock: whoever holds it may wait for something that the faulting thread holds.
    if !ENTRIES.iter().any(|entry| entry.holds(address)) {
        return false;
    }
    let _locked = Locked::take();
    ENTRIES.iter().any(|entry| entry.open(address))
}

impl Entry {
    const fn empty() -> Self {
        Self {
            base: AtomicUsize::new(0),
            size: AtomicUsize::new(0),
            bits: AtomicPtr::new(null_mut()),
            dirty: AtomicU32::new(0),
            wake: AtomicI32::new(-1),
        }
    }

    fn holds(&self, address: usize) -> bool {
        let base = self.base.load(Ordering::Relaxed);
        base != 0 && (base..base + self.size.load(Ordering::Relaxed)).contains(&address)
    }

    fn granule(&self, index: usize) -> Granule {
        let (base, size) = (self.base.load(Ordering::Relaxed), self.size.load(Ordering::Relaxed));
        let start = index * GRANULE;
        let address = base + start..base + size.min(start + GRANULE);
        Granule { index, offset: start as u64, address }
    }

    fn words(&self) -> &[AtomicU64] {
        let bits = self.bits.load(Ordering::Relaxed);
        if bits.is_null() {
            return &[];
        }
        let length = self.size.load(Ordering::Relaxed).div_ceil(GRANULE).div_ceil(64);
        // SAFETY: made by `add` with this length; freed only by `remove`, which runs under the lock or, for the owner's
        // own calls, after the guard's last use.
        unsafe { std::slice::from_raw_parts(bits, length) }
    }

    fn open(&self, address: usize) -> bool {
        if !self.holds(address) {
            return false;
        }
        let granule = self.granule((address - self.base.load(Ordering::Relaxed)) / GRANULE);
        let (word, bit) = (&self.words()[granule.index / 64], 1 << (granule.index % 64));
        // Marked before it is opened: no write can succeed in a granule that doesn't count as dirty.
        let fresh = word.fetch_or(bit, Ordering::SeqCst) & bit == 0;
        if fresh {
            self.dirty.fetch_add(1, Ordering::SeqCst);
        }
        if protect(&granule, MprotectFlags::READ | MprotectFlags::WRITE).is_err() {
            return false;
        }
        if fresh {
            let wake = self.wake.load(Ordering::Relaxed);
            // SAFETY: the guard unregisters, under the lock, before it closes this descriptor.
            let wake = unsafe { std::os::fd::BorrowedFd::borrow_raw(wake) };
            // A full counter means that the reader has yet to look: nothing is lost.
            let _ = rustix::io::write(wake, &1_u64.to_ne_bytes());
        }
        true
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::Acquire) != 0
    }

    /// The granules that are dirty now, ascending.
    pub(super) fn dirty(&self) -> Vec<Granule> {
        let mut found = Vec::new();
        if self.is_dirty() {
            for (index, word) in self.words().iter().enumerate() {
                let mut bits = word.load(Ordering::SeqCst);
                while bits != 0 {
                    found.push(self.granule(index * 64 + bits.trailing_zeros() as usize));
                    bits &= bits - 1;
                }
            }
        }
        found
    }

    /// Makes a granule read-only, lets `look` see its private pages, then drops these.
    pub(super) fn close(
        &self,
        granule: &Granule,
        look: impl FnOnce() -> Result<(), GuardError>,
    ) -> Result<(), GuardError> {
        let _locked = Locked::take();
        protect(granule, MprotectFlags::READ).map_err(GuardError::system("mprotect"))?;
        look()?;
        let address = granule.address.start as *mut std::ffi::c_void;
        // SAFETY: part of a private, read-only file mapping that is only used by address: its pages come back from the
        // file with the next read.
        unsafe { rustix::mm::madvise(address, granule.address.len(), Advice::LinuxDontNeed) }
            .map_err(GuardError::system("madvise"))?;
        let bit = 1 << (granule.index % 64);
        if self.words()[granule.index / 64].fetch_and(!bit, Ordering::SeqCst) & bit != 0 {
            self.dirty.fetch_sub(1, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Frees the slot. The window may be unmapped afterwards.
    pub(super) fn remove(&self) {
        let _locked = Locked::take();
        let words: *const [AtomicU64] = self.words();
        self.base.store(0, Ordering::Relaxed);
        self.wake.store(-1, Ordering::Relaxed);
        self.bits.store(null_mut(), Ordering::Relaxed);
        // SAFETY: the box that `add` gave up, taken back once: `bits` is null from here on.
        drop(unsafe { Box::from_raw(words.cast_mut()) });
    }
}

fn protect(granule: &Granule, flags: MprotectFlags) -> rustix::io::Result<()> {
    let address = granule.address.start as *mut std::ffi::c_void;
    // SAFETY: part of a guarded window, to which no Rust reference exists.
    unsafe { rustix::mm::mprotect(address, granule.address.len(), flags) }
}
