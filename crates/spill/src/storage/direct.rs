//! Files past the page cache, straight from and to the caller's memory; through the cache where the file system wants it.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Advice, OFlags};
use rustix::io::Errno;

use super::buffers::{BUFFER, Buffers, is_aligned};
use super::errno::{refused, retry};
use super::{Segment, StorageError};
use crate::format::{ALIGNED_FROM, BLOCK};

/// Bytes of one system call: long enough for the disk, short enough to notice that the engine shuts down.
const PIECE: usize = 8 << 20;

/// What the files of a directory have in common.
#[derive(Debug)]
pub(super) struct Mode {
    /// Whether direct I/O was refused.
    pub(super) buffered: AtomicBool,
    pub(super) cancelled: AtomicBool,
    pub(super) buffers: Buffers,
}

impl Mode {
    pub(super) fn flags(&self) -> OFlags {
        if self.buffered.load(Ordering::Relaxed) { OFlags::empty() } else { OFlags::DIRECT }
    }

    pub(super) fn check(&self) -> Result<(), StorageError> {
        if self.cancelled.load(Ordering::Relaxed) { Err(StorageError::Cancelled) } else { Ok(()) }
    }

    /// Whether this file was open for direct I/O, and is not any more: some file systems refuse it only when it comes to
    /// reading or writing.
    fn fall_back(&self, file: &OwnedFd) -> bool {
        let Ok(flags) = rustix::fs::fcntl_getfl(file) else { return false };
        let fell = flags.contains(OFlags::DIRECT) && rustix::fs::fcntl_setfl(file, flags - OFlags::DIRECT).is_ok();
        if fell {
            self.buffered.store(true, Ordering::Relaxed);
        }
        fell
    }

    /// Opens for direct I/O, or without where the file system refuses it.
    pub(super) fn direct_or_buffered<T>(&self, mut call: impl FnMut(OFlags) -> Result<T, Errno>) -> Result<T, Errno> {
        match retry(|| call(self.flags())) {
            Err(Errno::INVAL | Errno::OPNOTSUPP) if !self.buffered.load(Ordering::Relaxed) => {
                let result = retry(|| call(OFlags::empty()))?;
                self.buffered.store(true, Ordering::Relaxed);
                Ok(result)
            }
            other => other,
        }
    }
}

/// Writes one file from its start to its end.
pub(super) struct Writer<'a> {
    file: &'a OwnedFd,
    mode: &'a Mode,
    buffer: &'a mut [u8],
    filled: usize,
    position: u64,
}

impl<'a> Writer<'a> {
    pub(super) fn new(file: &'a OwnedFd, mode: &'a Mode, buffer: &'a mut [u8]) -> Self {
        Self { file, mode, buffer, filled: 0, position: 0 }
    }

    /// Large aligned bytes go as they lie, at block boundaries of the file; the others by the buffer.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<(), StorageError> {
        let block = BLOCK as usize;
        if bytes.len() >= ALIGNED_FROM as usize && self.filled.is_multiple_of(block) && is_aligned(bytes) {
            self.flush()?;
            let (whole, rest) = bytes.split_at(bytes.len() / block * block);
            for piece in whole.chunks(PIECE) {
                self.mode.check()?;
                write_at(self.file, self.mode, piece, self.position)?;
                self.position += piece.len() as u64;
            }
            bytes = rest;
        }
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BUFFER - self.filled));
            self.buffer[self.filled..][..now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = later;
            if self.filled == BUFFER {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// The last bytes; the length is a multiple of a block by now.
    pub(super) fn finish(mut self) -> Result<(), StorageError> {
        debug_assert!(self.filled.is_multiple_of(BLOCK as usize));
        self.flush()?;
        if self.mode.buffered.load(Ordering::Relaxed) {
            // Errors that a cache would hide come now, while the memory copy is there; and memory is what is short.
            retry(|| rustix::fs::fdatasync(self.file)).map_err(|errno| refused("fdatasync", errno))?;
            let _ = rustix::fs::fadvise(self.file, 0, None, Advice::DontNeed);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        self.mode.check()?;
        write_at(self.file, self.mode, &self.buffer[..self.filled], self.position)?;
        self.position += self.filled as u64;
        self.filled = 0;
        Ok(())
    }
}

fn write_at(file: &OwnedFd, mode: &Mode, mut bytes: &[u8], mut offset: u64) -> Result<(), StorageError> {
    while !bytes.is_empty() {
        let count = match retry(|| rustix::io::pwrite(file, bytes, offset)) {
            Ok(0) => return Err(refused("write", Errno::IO)),
            Ok(count) => count,
            Err(Errno::INVAL) if mode.fall_back(file) => continue,
            Err(errno) => return Err(refused("write", errno)),
        };
        bytes = &bytes[count..];
        offset += count as u64;
    }
    Ok(())
}

/// A segment in a file.
#[derive(Debug)]
pub(super) struct FileSegment<'a> {
    pub(super) file: OwnedFd,
    pub(super) direct: bool,
    pub(super) mode: &'a Mode,
}

impl Segment for FileSegment<'_> {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), StorageError> {
        let block = BLOCK as usize;
        if !self.direct {
            self.read(offset, into, into.len())?;
            let _ =
                rustix::fs::fadvise(&self.file, offset, std::num::NonZeroU64::new(into.len() as u64), Advice::DontNeed);
            return Ok(());
        }
        let straight = if offset.is_multiple_of(BLOCK) && is_aligned(into) { into.len() / block * block } else { 0 };
        let (whole, rest) = into.split_at_mut(straight);
        self.read(offset, whole, straight)?;
        self.read_through_buffer(offset + straight as u64, rest)
    }
}

impl FileSegment<'_> {
    /// Fills `into`, or as much as there is, but at least the first `needed` bytes.
    fn read(&self, offset: u64, into: &mut [u8], needed: usize) -> Result<(), StorageError> {
        let mut filled = 0;
        while filled < into.len() {
            self.mode.check()?;
            let end = into.len().min(filled + PIECE);
            match retry(|| rustix::io::pread(&self.file, &mut into[filled..end], offset + filled as u64)) {
                Ok(count) => {
                    filled += count;
                    // Direct I/O reads whole blocks of the device: an odd count is the file's end.
                    if count == 0 || self.direct && !count.is_multiple_of(512) {
                        break;
                    }
                }
                Err(Errno::INVAL) if self.mode.fall_back(&self.file) => {}
                Err(errno) => return Err(refused("read", errno)),
            }
        }
        if filled < needed { Err(StorageError::CutOff) } else { Ok(()) }
    }

    /// Reads the blocks around what is wanted, and copies it out.
    fn read_through_buffer(&self, mut offset: u64, into: &mut [u8]) -> Result<(), StorageError> {
        if into.is_empty() {
            return Ok(());
        }
        self.mode.buffers.with(|buffer| {
            let mut into = into;
            while !into.is_empty() {
                let from = offset / BLOCK * BLOCK;
                let skip = (offset - from) as usize;
                let count = into.len().min(BUFFER - skip);
                let span = (skip + count).next_multiple_of(BLOCK as usize);
                self.read(from, &mut buffer[..span], skip + count)?;
                let (now, later) = into.split_at_mut(count);
                now.copy_from_slice(&buffer[skip..skip + count]);
                into = later;
                offset += count as u64;
            }
            Ok(())
        })
    }
}
