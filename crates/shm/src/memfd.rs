//! Anonymous memory files: created by size, sealed against resizing, passed on by descriptor.

use std::hash::{BuildHasher as _, RandomState};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;

use crate::memory::{Headroom, headroom};

/// Size of a page of memory in bytes; extents, reservations and mappings are multiples of it.
pub const PAGE: u64 = 4096;

/// Making or opening a memory file failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemfdError {
    /// The kernel refused one of the calls that make a memory file.
    #[error("{call} failed for a memory file of {size} bytes: {source}")]
    System {
        /// The system call that failed.
        call: &'static str,
        /// Size that was asked for, in bytes.
        size: u64,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A received descriptor isn't a memory file of a fixed size, so that reading its mapping could end in SIGBUS.
    #[error("the descriptor is not a memory file sealed against shrinking (seals {seals:#x}): refuse it")]
    NotSealed {
        /// The seals that were found.
        seals: u32,
    },
}

/// Reserving memory failed; nothing was handed out and no process was harmed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReserveError {
    /// The system has no memory left for these pages: free some or use a smaller store.
    #[error(
        "the system refused {length} bytes of memory at offset {offset} ({errno}): free memory or make the store smaller"
    )]
    NoMemory {
        /// First byte of the range.
        offset: u64,
        /// Length of the range in bytes.
        length: u64,
        /// `ENOMEM` or `ENOSPC`.
        errno: Errno,
    },
    /// Taking these pages would leave less than was to be left to others.
    #[error("{length} bytes of memory wanted, but only {} are left ({}) of which {leave} are kept free", headroom.bytes, headroom.limit)]
    Headroom {
        /// Length of the range in bytes.
        length: u64,
        /// Memory that may still be taken, and by what it is limited.
        headroom: Headroom,
        /// Bytes to leave to others.
        leave: u64,
    },
    /// Another error of the kernel.
    #[error("fallocate({offset}, {length}) failed: {source}")]
    System {
        /// First byte of the range.
        offset: u64,
        /// Length of the range in bytes.
        length: u64,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// An anonymous memory file (`memfd`) of a fixed size.
///
/// It has no name in any directory and is gone with its last descriptor and mapping, so a crash leaves nothing behind;
/// it doesn't count against a container's `/dev/shm`. Its pages exist once touched or [reserved](Memfd::reserve).
#[derive(Debug)]
pub struct Memfd {
    fd: OwnedFd,
    size: u64,
}

impl Memfd {
    /// Creates a memory file of `size` bytes that nobody can shrink or grow from then on.
    ///
    /// `name` only shows up in `/proc/PID/maps`.
    pub fn create(name: &str, size: u64) -> Result<Self, MemfdError> {
        let fail = |call| move |errno: Errno| MemfdError::System { call, size, source: errno.into() };
        let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map_err(fail("memfd_create"))?;
        rustix::fs::ftruncate(&fd, size).map_err(fail("ftruncate"))?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW).map_err(fail("fcntl(F_ADD_SEALS)"))?;
        Ok(Self { fd, size })
    }

    /// Takes over a received descriptor, after checking that it is a memory file that can't be shrunk.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, MemfdError> {
        let fail = |call| move |errno: Errno| MemfdError::System { call, size: 0, source: errno.into() };
        let size = rustix::fs::fstat(&fd).map_err(fail("fstat"))?.st_size;
        let seals = rustix::fs::fcntl_get_seals(&fd).map_err(fail("fcntl(F_GET_SEALS)"))?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(MemfdError::NotSealed { seals: seals.bits() });
        }
        Ok(Self { fd, size: size.try_into().unwrap_or(0) })
    }

    /// Makes a sparse file of `size` bytes without a name on the file system of `dir`, to be used like memory: what is
    /// written there can leave the system's memory. It is gone with its last descriptor and mapping as well. Reserve a
    /// range before it is touched: a full disk would end in a signal.
    pub fn unlinked(dir: &Path, size: u64) -> Result<Self, MemfdError> {
        let fail = |call| move |errno: Errno| MemfdError::System { call, size, source: errno.into() };
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::EXCL;
        let fd = match rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR) {
            // Some file systems, overlays of older kernels among them, have no files without names.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {
                named_for_a_moment(dir).map_err(fail("open"))?
            }
            result => result.map_err(fail("open(O_TMPFILE)"))?,
        };
        rustix::fs::ftruncate(&fd, size).map_err(fail("ftruncate"))?;
        Ok(Self { fd, size })
    }

    /// Takes over a received descriptor of an [unlinked](Self::unlinked) file, after checking that nobody can reach it by
    /// a name and that it is as long as it should be.
    pub fn from_unlinked(fd: OwnedFd, size: u64) -> Result<Self, MemfdError> {
        let fail = |call| move |errno: Errno| MemfdError::System { call, size, source: errno.into() };
        let stat = rustix::fs::fstat(&fd).map_err(fail("fstat"))?;
        if stat.st_nlink != 0 || u64::try_from(stat.st_size) != Ok(size) {
            return Err(MemfdError::NotSealed { seals: 0 });
        }
        Ok(Self { fd, size })
    }

    /// Whether the file's pages are memory wherever they are: that of a memory file, or of one on a file system in memory.
    pub fn is_memory(&self) -> bool {
        const TMPFS: u64 = 0x0102_1994;
        const RAMFS: u64 = 0x8584_58f6;
        rustix::fs::fstatfs(&self.fd).is_ok_and(|stat| matches!(stat.f_type as u64, TMPFS | RAMFS))
    }

    /// Bytes of the file's file system: what is free for this user, and all.
    pub fn room(&self) -> std::io::Result<(u64, u64)> {
        let stat = rustix::fs::fstatvfs(&self.fd)?;
        Ok((stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks.saturating_mul(stat.f_frsize)))
    }

    /// Forbids any further seal.
    pub fn seal(&self) -> Result<(), MemfdError> {
        self.add_seals(SealFlags::SEAL)
    }

    /// Forbids further writable mappings and writes (mappings made before stay writable), and any further seal.
    pub fn seal_against_writers(&self) -> Result<(), MemfdError> {
        self.add_seals(SealFlags::FUTURE_WRITE | SealFlags::SEAL)
    }

    fn add_seals(&self, seals: SealFlags) -> Result<(), MemfdError> {
        rustix::fs::fcntl_add_seals(&self.fd, seals).map_err(|errno| MemfdError::System {
            call: "fcntl(F_ADD_SEALS)",
            size: self.size,
            source: errno.into(),
        })
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Makes the pages of a range exist, so that touching them can't fail any more.
    ///
    /// The kernel may kill instead of refusing when a control group is at its limit: check
    /// [`headroom`](crate::memory::headroom) first.
    pub fn reserve(&self, offset: u64, length: u64) -> Result<(), ReserveError> {
        if length == 0 {
            return Ok(());
        }
        loop {
            match rustix::fs::fallocate(&self.fd, FallocateFlags::empty(), offset, length) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno @ (Errno::NOMEM | Errno::NOSPC)) => {
                    return Err(ReserveError::NoMemory { offset, length, errno });
                }
                Err(errno) => return Err(ReserveError::System { offset, length, source: errno.into() }),
            }
        }
    }

    /// Makes the pages of a range exist, in steps of at most 16 MiB with a look at the system's memory before each;
    /// refuses the first step that would leave less than `leave` bytes to others. Pages of former steps stay.
    pub fn reserve_within(&self, offset: u64, length: u64, leave: u64) -> Result<(), ReserveError> {
        const STEP: u64 = 16 << 20;
        let mut done = 0;
        while done < length {
            let step = STEP.min(length - done);
            let headroom = headroom();
            if headroom.bytes < step.saturating_add(leave) {
                return Err(ReserveError::Headroom { length, headroom, leave });
            }
            self.reserve(offset + done, step)?;
            done += step;
        }
        Ok(())
    }

    /// Writes bytes at an offset by a system call. For pages that this process hasn't mapped yet it is several times
    /// faster than copying into a mapping, where each page costs a fault; [reserve](Self::reserve) them first.
    ///
    /// The caller's protocol must make sure that nobody else reads or writes the range meanwhile, as for
    /// [`DataMap::exclusive`](crate::map::DataMap::exclusive).
    pub fn write_at(&self, offset: u64, mut bytes: &[u8]) -> std::io::Result<()> {
        let mut at = offset;
        while !bytes.is_empty() {
            match rustix::io::pwrite(&self.fd, bytes, at) {
                Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Ok(written) => (bytes, at) = (&bytes[written..], at + written as u64),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Gives the pages of a range back to the system; they read as zeros afterwards.
    pub fn punch(&self, offset: u64, length: u64) -> Result<(), ReserveError> {
        if length == 0 {
            return Ok(());
        }
        rustix::fs::fallocate(&self.fd, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, length)
            .map_err(|errno| ReserveError::System { offset, length, source: errno.into() })
    }

    /// Bytes of memory that the system holds for this file now.
    pub fn resident_bytes(&self) -> std::io::Result<u64> {
        let stat = rustix::fs::fstat(&self.fd)?;
        Ok(u64::try_from(stat.st_blocks).unwrap_or(0) * 512)
    }

    /// The next range at or after `from` whose pages were touched, or `None` if there is none up to the end of the file.
    ///
    /// Pages that were only reserved don't count. Reading untouched pages through a shared mapping would make them
    /// exist: look here first when sweeping a sparse file.
    pub fn next_touched(&self, from: u64) -> std::io::Result<Option<std::ops::Range<u64>>> {
        use rustix::fs::SeekFrom;
        let start = match rustix::fs::seek(&self.fd, SeekFrom::Data(from)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let end = rustix::fs::seek(&self.fd, SeekFrom::Hole(start))?;
        Ok(Some(start..end))
    }

    /// A second descriptor of the same file, to pass to another process.
    pub fn share(&self) -> std::io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// Opens the file anew for reading only: such a descriptor can't be mapped for writing.
    pub fn share_read_only(&self) -> std::io::Result<OwnedFd> {
        Ok(std::fs::File::open(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))?.into())
    }
}

/// Makes an empty file and takes its name away.
fn named_for_a_moment(dir: &Path) -> Result<OwnedFd, Errno> {
    let number = RandomState::new().hash_one(std::process::id());
    let path = dir.join(format!(".heliostat-{number:016x}"));
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)?;
    rustix::fs::unlink(&path)?;
    Ok(fd)
}

impl AsFd for Memfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Memfd> for OwnedFd {
    fn from(memfd: Memfd) -> Self {
        memfd.fd
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_pages_are_counted_and_punched_ones_given_back() {
        let memfd = Memfd::create("test", 64 * PAGE).unwrap();
        assert_eq!(memfd.resident_bytes().unwrap(), 0);
        memfd.reserve(8 * PAGE, 16 * PAGE).unwrap();
        assert_eq!(memfd.resident_bytes().unwrap(), 16 * PAGE);
        assert_eq!(memfd.next_touched(0).unwrap(), None);
        crate::map::WordMap::new(&memfd)
            .unwrap()
            .word(9 * PAGE)
            .unwrap()
            .store(1, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(memfd.next_touched(0).unwrap(), Some(9 * PAGE..10 * PAGE));
        memfd.punch(8 * PAGE, 4 * PAGE).unwrap();
        assert_eq!(memfd.resident_bytes().unwrap(), 12 * PAGE);
        assert_eq!(memfd.next_touched(0).unwrap(), None);
    }

    #[test]
    fn nobody_can_resize_or_unseal_it() {
        let memfd = Memfd::create("test", PAGE).unwrap();
        memfd.seal().unwrap();
        assert!(rustix::fs::ftruncate(&memfd, 0).is_err());
        assert!(rustix::fs::ftruncate(&memfd, 2 * PAGE).is_err());
        assert!(memfd.seal_against_writers().is_err());
        assert_eq!(Memfd::from_fd(memfd.share().unwrap()).unwrap().size(), PAGE);
    }

    #[test]
    fn a_file_without_a_name_is_used_like_memory() {
        let size = 1 << 36;
        let file = Memfd::unlinked(Path::new("/var/tmp"), size).unwrap();
        assert_eq!(file.resident_bytes().unwrap(), 0);
        file.reserve(8 * PAGE, 16 * PAGE).unwrap();
        assert!(file.resident_bytes().unwrap() >= 16 * PAGE);
        let other = Memfd::from_unlinked(file.share().unwrap(), size).unwrap();
        other.write_at(9 * PAGE, b"abc").unwrap();
        let map = crate::map::ReadMap::new(&file).unwrap();
        assert_eq!(map.bytes(9 * PAGE, 4), Some(&b"abc\0"[..]));
        file.punch(8 * PAGE, 16 * PAGE).unwrap();
        assert_eq!(map.bytes(9 * PAGE, 4), Some(&[0; 4][..]));
        assert!(file.room().is_ok_and(|(free, all)| free <= all));
        assert!(Memfd::from_unlinked(file.share().unwrap(), size - 1).is_err());
        let named = std::fs::File::open("/proc/self/exe").unwrap();
        let length = named.metadata().unwrap().len();
        assert!(Memfd::from_unlinked(named.into(), length).is_err());
    }

    #[test]
    fn a_file_that_had_a_name_for_a_moment_leaves_none() {
        let dir = std::env::temp_dir().join(format!("heliostat-memfd-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let fd = named_for_a_moment(&dir).unwrap();
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
        assert_eq!(Memfd::from_unlinked(fd, 0).unwrap().size(), 0);
        std::fs::remove_dir(&dir).unwrap();
        assert!(Memfd::unlinked(&dir, 1).is_err());
    }

    #[test]
    fn an_ordinary_file_is_refused() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(Memfd::from_fd(file.into()).is_err());
    }

    #[test]
    fn reserving_leaves_to_others_what_it_is_told_to() {
        let memfd = Memfd::create("test", 4 * PAGE).unwrap();
        assert!(matches!(memfd.reserve_within(0, PAGE, u64::MAX), Err(ReserveError::Headroom { length: PAGE, .. })));
        assert_eq!(memfd.resident_bytes().unwrap(), 0);
        memfd.reserve_within(PAGE, 2 * PAGE, 0).unwrap();
        assert_eq!(memfd.resident_bytes().unwrap(), 2 * PAGE);
    }

    #[test]
    fn what_is_written_by_call_is_read_in_mappings() {
        let memfd = Memfd::create("test", 2 * PAGE).unwrap();
        memfd.write_at(PAGE - 2, b"abcd").unwrap();
        assert_eq!(crate::map::ReadMap::new(&memfd).unwrap().bytes(PAGE - 2, 4), Some(&b"abcd"[..]));
        assert!(memfd.write_at(2 * PAGE, b"x").is_err());
    }

    #[test]
    fn reserving_past_the_end_is_an_error() {
        let memfd = Memfd::create("test", PAGE).unwrap();
        assert!(matches!(memfd.reserve(0, 2 * PAGE), Err(ReserveError::System { .. })));
    }
}
