//! What of a directory goes into its package.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use crate::Limits;
use crate::error::PackError;
use crate::ignored::Rules;

/// How many of the biggest files an error names.
const BIGGEST: usize = 5;

/// Something in a package.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Below the root.
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File {
        size: u64,
        executable: bool,
    },
    /// A link to something inside of the package, as it is written into the package.
    Link(PathBuf),
}

struct Lister<'a> {
    root: PathBuf,
    except: &'a [PathBuf],
    limits: Limits,
    rules: Rules,
    entries: Vec<Entry>,
}

/// Lists a directory, each directory before what it holds, by name. `except` are paths that are left out.
pub(crate) fn list(root: &Path, except: &[PathBuf], limits: Limits) -> Result<(PathBuf, Vec<Entry>), PackError> {
    let missing = |source| PackError::NoDirectory { path: root.to_owned(), source };
    let root = fs::canonicalize(root).map_err(missing)?;
    if !fs::metadata(&root).map_err(missing)?.is_dir() {
        return Err(missing(std::io::Error::from(std::io::ErrorKind::NotADirectory)));
    }
    let except: Vec<PathBuf> = except.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
    let mut lister =
        Lister { root: root.clone(), except: &except, limits, rules: Rules::default(), entries: Vec::new() };
    lister.directory(&root)?;
    let entries = lister.entries;
    check_size(&root, &entries, limits)?;
    Ok((root, entries))
}

fn check_size(root: &Path, entries: &[Entry], limits: Limits) -> Result<(), PackError> {
    let mut files: Vec<(u64, &Path)> = entries
        .iter()
        .filter_map(|entry| match entry.kind {
            Kind::File { size, .. } => Some((size, &*entry.path)),
            _ => None,
        })
        .collect();
    let total = files.iter().fold(0_u64, |sum, (size, _)| sum.saturating_add(*size));
    if total <= limits.bytes {
        return Ok(());
    }
    files.sort_by(|one, other| other.cmp(one));
    let biggest = files.into_iter().take(BIGGEST).map(|(size, path)| (path.to_owned(), size)).collect();
    Err(PackError::TooLarge { root: root.to_owned(), total, limit: limits.bytes, biggest })
}

impl Lister<'_> {
    fn directory(&mut self, directory: &Path) -> Result<(), PackError> {
        let read = |path: &Path| {
            let path = path.to_owned();
            move |source| PackError::Read { path, source }
        };
        self.rules.enter(directory)?;
        let mut names: Vec<(OsString, fs::FileType)> = Vec::new();
        for entry in fs::read_dir(directory).map_err(read(directory))? {
            let entry = entry.map_err(read(directory))?;
            names.push((entry.file_name(), entry.file_type().map_err(read(&entry.path()))?));
        }
        names.sort_by(|one, other| one.0.cmp(&other.0));
        for (name, file_type) in names {
            let path = directory.join(name);
            if self.rules.excludes(&path, file_type.is_dir()) || self.except.contains(&path) {
                continue;
            }
            if file_type.is_dir() {
                self.add(&path, Kind::Directory)?;
                self.directory(&path)?;
            } else if file_type.is_symlink() {
                let target = self.target(&path)?;
                self.add(&path, Kind::Link(target))?;
            } else if file_type.is_file() {
                let metadata = fs::symlink_metadata(&path).map_err(read(&path))?;
                let executable = metadata.permissions().mode() & 0o111 != 0;
                self.add(&path, Kind::File { size: metadata.len(), executable })?;
            }
            // Sockets, pipes and devices are no contents, as for git.
        }
        self.rules.leave();
        Ok(())
    }

    fn add(&mut self, path: &Path, kind: Kind) -> Result<(), PackError> {
        if self.entries.len() as u64 >= self.limits.entries {
            return Err(self.too_many());
        }
        let path = path.strip_prefix(&self.root).unwrap_or(path).to_owned();
        self.entries.push(Entry { path, kind });
        Ok(())
    }

    fn too_many(&self) -> PackError {
        let mut counts: BTreeMap<&Path, u64> = BTreeMap::new();
        for entry in &self.entries {
            if let Some(first) = entry.path.components().next() {
                *counts.entry(Path::new(first.as_os_str())).or_default() += 1;
            }
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count).unwrap_or((Path::new("."), 0));
        PackError::TooMany {
            root: self.root.clone(),
            limit: self.limits.entries,
            most: most.0.to_owned(),
            count: most.1,
        }
    }

    /// Where a link leads, from its own directory; refused when that is outside. Written as steps up and then names, in
    /// which form it leads inside wherever the package is unpacked (see `unpack`).
    fn target(&self, link: &Path) -> Result<PathBuf, PackError> {
        let written = fs::read_link(link).map_err(|source| PackError::Read { path: link.to_owned(), source })?;
        let parent = link.parent().unwrap_or(&self.root);
        let from = parent.strip_prefix(&self.root).unwrap_or(parent);
        let resolved = match fs::canonicalize(link) {
            // The link itself may lead to another link inside, which stays one.
            Ok(_) if is_plain(&written, from) => return Ok(written),
            Ok(real) => real.strip_prefix(&self.root).ok().map(Path::to_owned),
            // What it leads to is not there, which is no business of ours as long as it would be inside.
            Err(_) if is_plain(&written, from) => return Ok(written),
            Err(_) => None,
        };
        let out = || PackError::LinkOut { path: link.to_owned(), target: written.clone() };
        Ok(relative(from, &resolved.ok_or_else(out)?))
    }
}

/// Whether a link in the directory `from` (below the root) is written as steps up, not above the root, and then names.
pub(crate) fn is_plain(target: &Path, from: &Path) -> bool {
    let mut depth = from.components().count();
    let mut down = false;
    for component in target.components() {
        match component {
            Component::ParentDir if !down && depth > 0 => depth -= 1,
            Component::Normal(_) => down = true,
            Component::CurDir => {}
            _ => return false,
        }
    }
    !target.as_os_str().is_empty()
}

/// The way from one directory to something else, both below the root.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let common = from.components().zip(to.components()).take_while(|(one, other)| one == other).count();
    let up = from.components().skip(common).map(|_| Component::ParentDir);
    let way: PathBuf = up.chain(to.components().skip(common)).collect();
    if way.as_os_str().is_empty() { PathBuf::from(".") } else { way }
}
