//! Which pages of a private mapping this process has copied.

use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

const PAGE: usize = crate::memfd::PAGE as usize;

/// `_IOWR('f', 16, struct pm_scan_arg)` of `<linux/fs.h>`.
const PAGEMAP_SCAN: u64 = 0xc060_6610;
const IS_FILE: u64 = 1 << 2;
const IS_PRESENT: u64 = 1 << 3;
const IS_SWAPPED: u64 = 1 << 4;

/// `struct pm_scan_arg` (Linux 6.7).
#[repr(C)]
#[derive(Default)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// Opens this process's page map.
pub(super) fn open() -> rustix::io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open("/proc/self/pagemap", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// The copied parts of an address range (whole pages): present or swapped out, and not the file's own page.
pub(super) fn copied(pagemap: BorrowedFd<'_>, range: Range<usize>) -> rustix::io::Result<Vec<Range<usize>>> {
    match scan(pagemap, range.clone()) {
        // ENOTTY before Linux 6.7; a sandbox may answer with EPERM or ENOSYS.
        Err(Errno::NOTTY | Errno::NOSYS | Errno::PERM | Errno::INVAL) => read(pagemap, range),
        result => result,
    }
}

fn scan(pagemap: BorrowedFd<'_>, range: Range<usize>) -> rustix::io::Result<Vec<Range<usize>>> {
    let mut found = Vec::new();
    let mut regions = [Region::default(); 64];
    let mut start = range.start as u64;
    while start < range.end as u64 {
        let mut arg = ScanArg {
            size: size_of::<ScanArg>() as u64,
            start,
            end: range.end as u64,
            vec: regions.as_mut_ptr() as u64,
            vec_len: regions.len() as u64,
            category_inverted: IS_FILE,
            category_mask: IS_FILE,
            category_anyof_mask: IS_PRESENT | IS_SWAPPED,
            return_mask: IS_PRESENT | IS_SWAPPED,
            ..ScanArg::default()
        };
        // SAFETY: the argument and its array live through the call, and their sizes are given.
        let count = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN as _, &raw mut arg) };
        let Ok(count) = usize::try_from(count) else {
            let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
            return Err(Errno::from_raw_os_error(errno));
        };
        found.extend(regions.iter().take(count).map(|region| region.start as usize..region.end as usize));
        if arg.walk_end <= start {
            break;
        }
        start = arg.walk_end;
    }
    Ok(found)
}

fn read(pagemap: BorrowedFd<'_>, range: Range<usize>) -> rustix::io::Result<Vec<Range<usize>>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut buffer = vec![0_u8; range.len() / PAGE * 8];
    let length = rustix::io::pread(pagemap, &mut buffer, (range.start / PAGE * 8) as u64)?;
    for (index, entry) in buffer[..length].chunks_exact(8).enumerate() {
        let entry = u64::from_ne_bytes(entry.try_into().expect("chunks of 8 bytes"));
        // Bit 63: present, 62: swapped out, 61: the file's page or shared.
        let copied = (entry >> 63 == 1 && entry >> 61 & 1 == 0) || entry >> 62 & 1 == 1;
        let start = range.start + index * PAGE;
        match found.last_mut() {
            _ if !copied => {}
            Some(last) if last.end == start => last.end += PAGE,
            _ => found.push(start..start + PAGE),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn both_ways_of_looking_find_the_same_copied_pages() {
        let memfd = crate::memfd::Memfd::create("test", 16 * PAGE as u64).unwrap();
        memfd.reserve(0, memfd.size()).unwrap();
        // SAFETY: nothing else uses this file.
        let mut map = unsafe { memmap2::MmapOptions::new().map_copy(memfd.as_fd().as_raw_fd()) }.unwrap();
        let all = map.as_ptr() as usize..map.as_ptr() as usize + map.len();
        assert_eq!(map.iter().map(|b| u64::from(*b)).sum::<u64>(), 0);
        let pagemap = open().unwrap();
        assert!(read(pagemap.as_fd(), all.clone()).unwrap().is_empty());
        for page in [1, 2, 7, 15] {
            map[page * PAGE] = 1;
        }
        let at = |first: usize, last: usize| all.start + first * PAGE..all.start + last * PAGE;
        let expected = [at(1, 3), at(7, 8), at(15, 16)];
        assert_eq!(read(pagemap.as_fd(), all.clone()).unwrap(), expected);
        match scan(pagemap.as_fd(), all.clone()) {
            Err(Errno::NOTTY) => {}
            result => assert_eq!(result.unwrap(), expected),
        }
        assert_eq!(copied(pagemap.as_fd(), all).unwrap(), expected);
    }
}
