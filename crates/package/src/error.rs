//! Why a directory is not packed, or a package not unpacked.

use std::io;
use std::path::{Path, PathBuf};

/// A directory could not be packed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// There is no such directory.
    #[error("{path} is not a directory that can be read: {source}")]
    NoDirectory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something in it cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// What.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It holds too many bytes.
    #[error("{root} holds {} in all, more than the {} that a package may have. The biggest files: {}", megabytes(*total), megabytes(*limit), list(biggest))]
    TooLarge {
        /// The directory.
        root: PathBuf,
        /// Bytes of its files.
        total: u64,
        /// Bytes that are allowed.
        limit: u64,
        /// The biggest files and their bytes.
        biggest: Vec<(PathBuf, u64)>,
    },
    /// It holds too many files.
    #[error("{root} holds more than {limit} files and directories; {most} alone has {count}")]
    TooMany {
        /// The directory.
        root: PathBuf,
        /// How many are allowed.
        limit: u64,
        /// The directory of the first level that has most of those that were counted.
        most: PathBuf,
        /// How many were counted there.
        count: u64,
    },
    /// A link leads out of the directory.
    #[error("the link {path} leads to {target}, which is outside of the directory")]
    LinkOut {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// A pattern of an ignore file means nothing.
    #[error("a pattern of {file} cannot be understood: {reason}")]
    Pattern {
        /// The ignore file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file became shorter while it was read.
    #[error("{path} changed while it was packed")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The package cannot be written.
    #[error("cannot write the package {path}: {source}")]
    Write {
        /// Its file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl PackError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoDirectory { .. } => {
                "name an existing directory; relative paths start at the program's own directory"
            }
            Self::Read { .. } => "make it readable, or name it in .heliostatignore",
            Self::TooLarge { .. } | Self::TooMany { .. } => {
                "name what tasks do not need in .heliostatignore (patterns as in .gitignore), or put large data once and \
                 pass the reference"
            }
            Self::LinkOut { .. } => {
                "copy what it leads to into the directory, make it a link inside of it, or name the link in .heliostatignore"
            }
            Self::Pattern { .. } => "patterns are those of .gitignore",
            Self::Changed { .. } => "name files that are written meanwhile in .heliostatignore",
            Self::Write { .. } => {
                "make room in the directory for temporary files (init's tempDir), or choose another one"
            }
        }
    }
}

/// A package could not be unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// The package cannot be read, or is not one.
    #[error("cannot read the package: {0}")]
    Read(#[source] io::Error),
    /// What it holds cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// What.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It holds what no package may.
    #[error("the package is refused: {path:?} {reason}")]
    Refused {
        /// The entry.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// It holds more than a package may.
    #[error("the package is refused: it holds more than {0}")]
    TooLarge(String),
    /// Its contents are not those of its name.
    #[error("the package is damaged: its contents do not have the hash that it is named by")]
    WrongHash,
    /// Nobody waits for it any more.
    #[error("the node stops")]
    Stopped,
}

fn list(files: &[(PathBuf, u64)]) -> String {
    let one = |(path, bytes): &(PathBuf, u64)| format!("{} ({})", shown(path), megabytes(*bytes));
    files.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().chars().filter(|c| !c.is_control()).take(200).collect()
}

pub(crate) fn megabytes(bytes: u64) -> String {
    match bytes {
        0..0x400 => format!("{bytes} bytes"),
        0x400..0x10_0000 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
    }
}
