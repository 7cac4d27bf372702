//! Unpacking what may have been made by anybody.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest as _, Sha256};
use tar::{Archive, EntryType};

use crate::error::{UnpackError, megabytes};
use crate::list::is_plain;
use crate::{Hash, Limits, beside};

/// Bytes of an archive for each entry besides its contents: its header, padding, and a long name and link before it.
const OVERHEAD: u64 = 16 * 1024;
/// 2 to this power is the largest window that a compressed package may ask memory for.
const WINDOW_LOG: u32 = 23;
/// Bytes read at a time.
const CHUNK: usize = 64 * 1024;

/// Unpacks a package into a directory that does not exist yet, all of it or nothing. It ends early when `stop` is set.
///
/// Refused are paths that are absolute or lead upwards, anything that lies behind a link or comes twice, links that lead
/// out, whatever is neither file nor directory nor link, more than the limits allow (of what is there, not of what is
/// declared), and contents of another hash.
pub fn unpack(
    package: &Path,
    hash: &Hash,
    target: &Path,
    limits: Limits,
    stop: &AtomicBool,
) -> Result<(), UnpackError> {
    let part = beside(target);
    let wrote = |path: &Path| {
        let path = path.to_owned();
        move |source| UnpackError::Write { path, source }
    };
    let unpacked = fs::create_dir(&part)
        .map_err(wrote(&part))
        .and_then(|()| write(package, hash, &part, limits, stop))
        .and_then(|()| fs::rename(&part, target).map_err(wrote(target)));
    if unpacked.is_err() {
        // It may not even be there.
        let _ = fs::remove_dir_all(&part);
    }
    unpacked
}

fn write(package: &Path, hash: &Hash, root: &Path, limits: Limits, stop: &AtomicBool) -> Result<(), UnpackError> {
    let file = File::open(package).map_err(UnpackError::Read)?;
    let mut decoder = zstd::Decoder::new(BufReader::new(file)).map_err(UnpackError::Read)?;
    decoder.window_log_max(WINDOW_LOG).map_err(UnpackError::Read)?;
    let most = limits.bytes.saturating_add(limits.entries.saturating_mul(OVERHEAD));
    let mut archive = Archive::new(Watched { inner: decoder, left: most, hash: Sha256::new(), stop });
    let mut unpacking = Unpacking { root, limits, bytes: 0, seen: HashSet::new(), directories: HashSet::new(), stop };
    unpacking.directories.insert(PathBuf::new());
    let read = |error: io::Error| {
        if stop.load(Ordering::Relaxed) {
            UnpackError::Stopped
        } else if error.kind() == io::ErrorKind::FileTooLarge {
            UnpackError::TooLarge(megabytes(limits.bytes))
        } else {
            UnpackError::Read(error)
        }
    };
    for entry in archive.entries().map_err(read)? {
        unpacking.entry(entry.map_err(read)?, &read)?;
    }
    // What follows the end of the archive has a part in its hash too.
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(read)?;
    if rest.hash.finalize()[..] == hash[..] { Ok(()) } else { Err(UnpackError::WrongHash) }
}

struct Unpacking<'a> {
    root: &'a Path,
    limits: Limits,
    bytes: u64,
    seen: HashSet<PathBuf>,
    /// Those that were made here, and are no links therefore.
    directories: HashSet<PathBuf>,
    stop: &'a AtomicBool,
}

impl Unpacking<'_> {
    fn entry<R: Read>(
        &mut self,
        mut entry: tar::Entry<'_, R>,
        read: &impl Fn(io::Error) -> UnpackError,
    ) -> Result<(), UnpackError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(UnpackError::Stopped);
        }
        let raw = entry.path().map_err(read)?.into_owned();
        let refuse = |reason| UnpackError::Refused { path: raw.clone(), reason };
        let mut path = PathBuf::new();
        for component in raw.components() {
            match component {
                Component::Normal(name) => path.push(name),
                Component::CurDir => {}
                Component::ParentDir => return Err(refuse("leads upwards")),
                Component::RootDir | Component::Prefix(_) => return Err(refuse("is absolute")),
            }
        }
        if path.as_os_str().is_empty() {
            return Err(refuse("has no name"));
        }
        let parent = path.parent().unwrap_or(Path::new("")).to_owned();
        // So nothing is ever written through a link.
        if !self.directories.contains(&parent) {
            return Err(refuse("is in no directory of the package"));
        }
        if !self.seen.insert(path.clone()) {
            return Err(refuse("comes twice"));
        }
        if self.seen.len() as u64 > self.limits.entries {
            return Err(UnpackError::TooLarge(format!("{} entries", self.limits.entries)));
        }
        let place = self.root.join(&path);
        let wrote = |source| UnpackError::Write { path: path.clone(), source };
        match entry.header().entry_type() {
            EntryType::Directory => {
                fs::create_dir(&place).map_err(wrote)?;
                self.directories.insert(path.clone());
                Ok(())
            }
            EntryType::Symlink => {
                let link = entry.link_name().map_err(read)?.ok_or_else(|| refuse("is a link to nowhere"))?;
                // Steps up from a real directory end in one, and every further step goes down or follows a link for which
                // the same holds.
                if !is_plain(&link, &parent) {
                    return Err(refuse("is a link that leads out, or may"));
                }
                std::os::unix::fs::symlink(&link, &place).map_err(wrote)
            }
            EntryType::Regular => {
                let executable = entry.header().mode().map_err(read)? & 0o111 != 0;
                let mode = if executable { 0o755 } else { 0o644 };
                let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&place).map_err(wrote)?;
                self.contents(&mut entry, file, &path, read)
            }
            _ => Err(refuse("is neither a file nor a directory nor a link")),
        }
    }

    fn contents(
        &mut self,
        entry: &mut impl Read,
        mut file: File,
        path: &Path,
        read: &impl Fn(io::Error) -> UnpackError,
    ) -> Result<(), UnpackError> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = entry.read(&mut chunk).map_err(read)?;
            if count == 0 {
                return Ok(());
            }
            self.bytes += count as u64;
            if self.bytes > self.limits.bytes {
                return Err(UnpackError::TooLarge(megabytes(self.limits.bytes)));
            }
            io::Write::write_all(&mut file, &chunk[..count])
                .map_err(|source| UnpackError::Write { path: path.to_owned(), source })?;
        }
    }
}

/// The archive's bytes: hashed, and no more of them than a package can have.
struct Watched<'a, R> {
    inner: R,
    left: u64,
    hash: Sha256,
    stop: &'a AtomicBool,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Other.into());
        }
        let count = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}
