//! Directories as packages: packed reproducibly, named by the hash of what they hold, unpacked safely.
//!
//! A package is a tar archive compressed with zstd, in a file named by the SHA-256 of the uncompressed archive. Equal
//! directories give equal names: entries are sorted, and nothing of owners, times or permissions but the executable bit
//! is kept. Who carries a package from one machine to another is none of this crate's business.
//!
//! ```
//! use std::sync::atomic::AtomicBool;
//! use heliostat_package::{Limits, pack, unpack};
//!
//! let temp = tempfile::tempdir().unwrap();
//! let [source, packages] = ["source", "packages"].map(|name| temp.path().join(name));
//! std::fs::create_dir_all(&source).unwrap();
//! std::fs::create_dir_all(&packages).unwrap();
//! std::fs::write(source.join("hello.txt"), "hello").unwrap();
//!
//! let packed = pack(&source, &packages, &[], Limits::default()).unwrap();
//! let copy = temp.path().join("copy");
//! unpack(&packed.file, &packed.hash, &copy, Limits::default(), &AtomicBool::new(false)).unwrap();
//! assert_eq!(std::fs::read_to_string(copy.join("hello.txt")).unwrap(), "hello");
//! ```
#![forbid(unsafe_code)]

mod error;
mod ignored;
mod list;
mod pack;
mod unpack;

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

pub use error::{PackError, UnpackError};
pub use ignored::IGNORE_FILE;
pub use pack::{Packed, pack};
pub use unpack::unpack;

/// SHA-256 of something.
pub type Hash = [u8; 32];

/// What a package may hold at most, packed or unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files.
    pub bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
}

impl Default for Limits {
    /// 256 MiB in 100,000 entries.
    fn default() -> Self {
        Self { bytes: 256 << 20, entries: 100_000 }
    }
}

/// The SHA-256 of some bytes.
pub fn hash(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

/// The file of a package below the directory of all of them.
pub fn file_of(packages: &Path, hash: &Hash) -> PathBuf {
    packages.join(format!("{}.tar.zst", hex(hash)))
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A name beside `path` that nobody else uses.
fn beside(path: &Path) -> PathBuf {
    let mut random = [0; 8];
    // Without the system's random numbers the process's own number must do: a taken name is an error, not a danger.
    if getrandom::fill(&mut random).is_err() {
        random[..4].copy_from_slice(&std::process::id().to_le_bytes());
    }
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.part", hex(&random)));
    path.with_file_name(name)
}
