//! Byte pipes through shared memory: one lane in each direction between two processes.
//!
//! A lane is a ring that one process writes and one reads (Lamport, "Specifying concurrent program modules", 1983): two
//! counters that only grow, each changed by one side. Bytes are published by the writer's release store of its counter,
//! so that a writer that dies leaves whole pieces only. Each side keeps its own counter in private memory and checks the
//! other's: a hostile one breaks the lane, never memory.
//!
//! ```
//! use heliostat_shm::ring::{self, Side};
//!
//! let memory = ring::create()?; // its descriptor goes to two processes
//! let (mut writer, _) = ring::open(memory.share()?, Side::Near)?;
//! let (_, mut reader) = ring::open(memory.share()?, Side::Far)?;
//!
//! assert_eq!(writer.write(b"hello")?, 5); // as much as there is room for
//! let mut bytes = Vec::new();
//! let starved = reader.read(&mut bytes)?;
//! assert_eq!((&bytes[..], starved), (&b"hello"[..], false));
//!
//! while writer.write(&[0; 1000])? == 1000 {}
//! assert!(!writer.starve(), "the lane is full, and nobody has read since");
//! assert!(reader.read(&mut bytes)?, "the writer is to be told that there is room");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use memmap2::{MmapOptions, MmapRaw};

use crate::map::MapError;
use crate::memfd::{Memfd, MemfdError, PAGE};
use crate::protocol::{self, Reading, Shared, Writing};

/// Bytes that one lane holds.
pub const LANE: u64 = 64 << 10;

// Each word has a cache line of its own, and the lanes' lines are not neighbours.
const WRITTEN: usize = 0;
const READ: usize = 64;
const STARVED: usize = 128;
const LANE_WORDS: usize = 1024;
const SIZE: u64 = PAGE + 2 * LANE;

/// The other process does not follow the protocol: its counter is out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the ring's counters are out of range: the other process wrote over its memory")]
pub struct Broken;

/// Which end of a pair of lanes a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It asked for the pair.
    Near,
    /// The other.
    Far,
}

/// Makes the memory of a pair of lanes, to be handed to two processes.
pub fn create() -> Result<Memfd, MemfdError> {
    Memfd::create("heliostat-ring", SIZE)
}

/// Opens one side of a pair: what this process writes to, and what it reads from.
pub fn open(memory: OwnedFd, side: Side) -> Result<(Writer, Reader), OpenError> {
    let memfd = Memfd::from_fd(memory)?;
    if memfd.size() != SIZE {
        return Err(OpenError::Size(memfd.size()));
    }
    let length = SIZE;
    let raw = MmapOptions::new()
        .len(SIZE as usize)
        .map_raw(memfd.as_fd().as_raw_fd())
        .map_err(|source| MapError { length, source })?;
    let map = Arc::new(raw);
    let (mine, theirs) = if side == Side::Near { (0, 1) } else { (1, 0) };
    let writer = Lane { map: Arc::clone(&map), index: mine };
    let reader = Lane { map, index: theirs };
    // A side is opened once, when nothing has passed through it.
    Ok((Writer { lane: writer, state: Writing::default() }, Reader { lane: reader, state: Reading::default() }))
}

/// A pair of lanes could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The descriptor is not a sealed memory file.
    #[error(transparent)]
    Memfd(#[from] MemfdError),
    /// It cannot be mapped.
    #[error(transparent)]
    Map(#[from] MapError),
    /// It was not made by [`create`].
    #[error("a pair of lanes has {SIZE} bytes, the descriptor {0}")]
    Size(u64),
}

#[derive(Debug)]
struct Lane {
    map: Arc<MmapRaw>,
    index: usize,
}

impl Lane {
    #[inline]
    fn word(&self, which: usize) -> Shared<'_> {
        let offset = self.index * LANE_WORDS + which;
        // SAFETY: within the first page of the mapping (two lanes of 1 KiB of words), aligned to 8, only ever accessed as
        // an atomic; the mapping lives as long as `self` and the file cannot shrink.
        Shared(unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().add(offset).cast()) })
    }

    /// The two pieces, within the lane, that `length` bytes from a counter on take.
    #[inline]
    fn pieces(counter: u64, length: usize) -> (usize, usize) {
        let first = length.min((LANE - counter % LANE) as usize);
        (first, length - first)
    }

    fn data(&self) -> *mut u8 {
        self.map.as_mut_ptr().wrapping_add((PAGE + self.index as u64 * LANE) as usize)
    }

    /// # Safety
    /// `length` is at most [`LANE`], and the other side leaves these bytes alone: they lie between the counters.
    unsafe fn copy_in(&self, counter: u64, bytes: &[u8]) {
        let (first, rest) = Self::pieces(counter, bytes.len());
        // SAFETY: both pieces lie within the lane's data; `bytes` is memory of this process.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), self.data().add((counter % LANE) as usize), first);
            ptr::copy_nonoverlapping(bytes.as_ptr().add(first), self.data(), rest);
        }
    }

    /// # Safety
    /// As for [`Self::copy_in`]; `target` has room for `length` more bytes.
    unsafe fn copy_out(&self, counter: u64, length: usize, target: &mut Vec<u8>) {
        let (first, rest) = Self::pieces(counter, length);
        let end = target.len();
        // SAFETY: both pieces lie within the lane's data; the capacity was reserved by the caller.
        unsafe {
            let to = target.as_mut_ptr().add(end);
            ptr::copy_nonoverlapping(self.data().add((counter % LANE) as usize), to, first);
            ptr::copy_nonoverlapping(self.data(), to.add(first), rest);
            target.set_len(end + length);
        }
    }
}

/// The writing end of a lane.
#[derive(Debug)]
pub struct Writer {
    lane: Lane,
    state: Writing<LANE>,
}

impl Writer {
    /// Writes as much of `bytes` as there is room for, and returns how much that was.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        let count = self.state.claim(&self.lane.word(READ), bytes.len())?;
        if count > 0 {
            // SAFETY: the protocol says that so many bytes are free: the reader is done with them, and does not look
            // beyond what is published.
            unsafe { self.lane.copy_in(self.state.at(), &bytes[..count]) };
            self.state.publish(&self.lane.word(WRITTEN), count);
        }
        Ok(count)
    }

    /// Asks the reader to tell when there is room. Returns whether there is some already, so that nobody waits for what
    /// happened meanwhile.
    pub fn starve(&mut self) -> bool {
        self.state.starve(&self.lane.word(STARVED), &self.lane.word(READ))
    }
}

/// The reading end of a lane.
#[derive(Debug)]
pub struct Reader {
    lane: Lane,
    state: Reading<LANE>,
}

/// Tells whether a lane holds anything, without the reader at hand.
#[derive(Debug)]
pub struct Gauge {
    lane: Lane,
}

impl Gauge {
    /// Whether everything that was written has been read.
    #[inline]
    pub fn is_empty(&self) -> bool {
        protocol::is_drained(&self.lane.word(WRITTEN), &self.lane.word(READ))
    }
}

impl Reader {
    /// A gauge of this lane, for other threads.
    pub fn gauge(&self) -> Gauge {
        Gauge { lane: Lane { map: Arc::clone(&self.lane.map), index: self.lane.index } }
    }

    /// Appends everything that is there to `target`. Returns whether the writer waits for room, and has to be told.
    pub fn read(&mut self, target: &mut Vec<u8>) -> Result<bool, Broken> {
        let length = self.state.available(&self.lane.word(WRITTEN))?;
        if length > 0 {
            target.reserve(length);
            // SAFETY: the protocol says that so many bytes were published, which the writer leaves alone until they are
            // given back; room was reserved just above.
            unsafe { self.lane.copy_out(self.state.at(), length, target) };
            self.state.consume(&self.lane.word(READ), length);
        }
        Ok(protocol::take_starved(&self.lane.word(STARVED)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    fn pair() -> ((Writer, Reader), (Writer, Reader)) {
        let memory = create().unwrap();
        let near = open(memory.share().unwrap(), Side::Near).unwrap();
        (near, open(memory.share().unwrap(), Side::Far).unwrap())
    }

    #[test]
    fn bytes_cross_in_order_around_the_end_of_the_ring() {
        let ((mut writer, _), (_, mut reader)) = pair();
        let bytes: Vec<u8> = (0..5_000_000_u32).map(|n| (n * 7 + n / 251) as u8).collect();
        let (mut sent, mut got, mut stepped) = (0, Vec::new(), 0);
        while got.len() < bytes.len() {
            let end = bytes.len().min(sent + 1 + stepped * 37 % 90_000);
            sent += writer.write(&bytes[sent..end]).unwrap();
            stepped += 1;
            if stepped % 3 != 0 {
                reader.read(&mut got).unwrap();
            }
        }
        assert!(got == bytes && reader.gauge().is_empty());
    }

    #[test]
    fn threads_pass_bytes_and_a_starved_writer_is_told() {
        let ((mut writer, _), (_, mut reader)) = pair();
        let total = 20_000_000_usize;
        let (told, tell) = std::sync::mpsc::channel();
        let sender = std::thread::spawn(move || {
            let mut sent = 0;
            while sent < total {
                let piece = [(sent / 1000) as u8; 1000];
                let mut rest = &piece[..];
                while !rest.is_empty() {
                    let count = writer.write(rest).unwrap();
                    rest = &rest[count..];
                    if !rest.is_empty() && !writer.starve() {
                        tell_wait(&tell);
                    }
                }
                sent += 1000;
            }
        });
        let mut got = Vec::new();
        let mut seen = 0;
        while seen < total {
            got.clear();
            if reader.read(&mut got).unwrap() {
                told.send(()).unwrap();
            }
            for byte in &got {
                assert_eq!(*byte, (seen / 1000) as u8);
                seen += 1;
            }
        }
        sender.join().unwrap();
    }

    fn tell_wait(tell: &std::sync::mpsc::Receiver<()>) {
        tell.recv().unwrap();
    }

    #[test]
    fn counters_out_of_range_are_refused() {
        let ((mut writer, near_reader), (far_writer, mut reader)) = pair();
        writer.lane.word(WRITTEN).0.store(LANE + 1, Ordering::Relaxed);
        assert_eq!(reader.read(&mut Vec::new()), Err(Broken));
        near_reader.lane.word(READ).0.store(5, Ordering::Relaxed);
        writer.lane.word(READ).0.store(9, Ordering::Relaxed);
        assert_eq!(writer.write(&vec![0; LANE as usize + 1]), Err(Broken));
        drop(far_writer);
        let other = Memfd::create("other", PAGE).unwrap();
        assert!(matches!(open(other.share().unwrap(), Side::Near), Err(OpenError::Size(PAGE))));
    }
}
