//! Packing.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use crate::error::PackError;
use crate::list::{Entry, Kind, list};
use crate::{Hash, Limits, beside, file_of};

/// Sources compress well with little effort.
const LEVEL: i32 = 1;

/// A package that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// What names it.
    pub hash: Hash,
    /// Its file.
    pub file: PathBuf,
    /// Bytes of the files in it.
    pub bytes: u64,
}

/// Packs a directory into a file below `packages`, which exists, named by the hash of what it holds. What is at the paths
/// `except` is left out, and what ignore files say.
pub fn pack(root: &Path, packages: &Path, except: &[PathBuf], limits: Limits) -> Result<Packed, PackError> {
    let (root, entries) = list(root, except, limits)?;
    let part = beside(&packages.join("package"));
    let made = write(&root, &entries, &part, limits);
    let named = made.and_then(|(hash, bytes)| {
        let file = file_of(packages, &hash);
        fs::rename(&part, &file).map_err(|source| PackError::Write { path: file.clone(), source })?;
        Ok(Packed { hash, file, bytes })
    });
    if named.is_err() {
        // It may not even be there.
        let _ = fs::remove_file(&part);
    }
    named
}

fn write(root: &Path, entries: &[Entry], part: &Path, limits: Limits) -> Result<(Hash, u64), PackError> {
    let failed = |source| PackError::Write { path: part.to_owned(), source };
    let file = File::create_new(part).map_err(failed)?;
    let compressed = zstd::Encoder::new(BufWriter::new(file), LEVEL).map_err(failed)?;
    let mut archive = Builder::new(Hashing { inner: compressed, hash: Sha256::new() });
    let mut bytes = 0;
    for entry in entries {
        bytes += append(&mut archive, root, entry, limits.bytes - bytes).map_err(|error| match error {
            Failed::Writing(source) => failed(source),
            Failed::Reading(error) => error,
        })?;
    }
    let Hashing { inner, hash } = archive.into_inner().map_err(failed)?;
    inner.finish().and_then(|mut file| file.flush()).map_err(failed)?;
    Ok((hash.finalize().into(), bytes))
}

enum Failed {
    Reading(PackError),
    Writing(io::Error),
}

/// Adds an entry; returns the bytes of its contents.
fn append<W: Write>(archive: &mut Builder<W>, root: &Path, entry: &Entry, left: u64) -> Result<u64, Failed> {
    let mut header = Header::new_gnu();
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    match &entry.kind {
        Kind::Directory => {
            header.set_entry_type(EntryType::Directory);
            header.set_mode(0o755);
            header.set_size(0);
            archive.append_data(&mut header, &entry.path, io::empty()).map_err(Failed::Writing)?;
            Ok(0)
        }
        Kind::Link(target) => {
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            header.set_size(0);
            archive.append_link(&mut header, &entry.path, target).map_err(Failed::Writing)?;
            Ok(0)
        }
        Kind::File { executable, .. } => {
            let path = root.join(&entry.path);
            let read = |source| Failed::Reading(PackError::Read { path: path.clone(), source });
            // What it has now counts: it may have grown since it was listed, and may grow on.
            let file = File::open(&path).map_err(read)?;
            let size = file.metadata().map_err(read)?.len();
            if size > left {
                return Err(Failed::Reading(PackError::Changed { path }));
            }
            header.set_entry_type(EntryType::Regular);
            header.set_mode(if *executable { 0o755 } else { 0o644 });
            header.set_size(size);
            let mut contents = Exactly { inner: file.take(size), left: size, failed: None };
            let appended = archive.append_data(&mut header, &entry.path, &mut contents);
            if let Some(source) = contents.failed {
                return Err(read(source));
            }
            if contents.left > 0 {
                return Err(Failed::Reading(PackError::Changed { path }));
            }
            appended.map_err(Failed::Writing)?;
            Ok(size)
        }
    }
}

/// Notes how much came, and which errors are the file's and not the archive's.
struct Exactly<R> {
    inner: R,
    left: u64,
    failed: Option<io::Error>,
}

impl<R: io::Read> io::Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(count) => {
                self.left -= count as u64;
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.failed = Some(error);
                Err(kind.into())
            }
        }
    }
}

struct Hashing<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
