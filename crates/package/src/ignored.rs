//! What stays out of a package: the patterns of `.heliostatignore`, those of `.gitignore`, and what no task needs.

use std::path::{Path, PathBuf};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::error::PackError;

/// The name of the ignore files of this program.
pub const IGNORE_FILE: &str = ".heliostatignore";
const GIT_IGNORE_FILE: &str = ".gitignore";
/// Left out unless a pattern of an ignore file brings them back.
const DEFAULTS: [&str; 2] = [".git", "node_modules"];

/// The rules of the directories from the root down to one of them.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    ours: Vec<Option<Gitignore>>,
    git: Vec<Option<Gitignore>>,
}

impl Rules {
    /// Adds the rules of a directory below the last one.
    pub(crate) fn enter(&mut self, directory: &Path) -> Result<(), PackError> {
        self.ours.push(read(directory, IGNORE_FILE)?);
        self.git.push(read(directory, GIT_IGNORE_FILE)?);
        Ok(())
    }

    /// Takes the rules of the last directory away.
    pub(crate) fn leave(&mut self) {
        self.ours.pop();
        self.git.pop();
    }

    /// Whether something in the last directory stays out. The nearest file counts first, `.heliostatignore` before
    /// `.gitignore`, and a pattern with `!` brings back what those after it would leave out.
    pub(crate) fn excludes(&self, path: &Path, is_directory: bool) -> bool {
        for rules in self.ours.iter().rev().chain(self.git.iter().rev()).flatten() {
            match rules.matched(path, is_directory) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None => {}
            }
        }
        path.file_name().is_some_and(|name| DEFAULTS.iter().any(|default| name == *default))
    }
}

fn read(directory: &Path, name: &str) -> Result<Option<Gitignore>, PackError> {
    let file: PathBuf = directory.join(name);
    if !file.is_file() {
        return Ok(None);
    }
    let failed = |error: &ignore::Error| PackError::Pattern { file: file.clone(), reason: error.to_string() };
    let mut builder = GitignoreBuilder::new(directory);
    match builder.add(&file) {
        None => {}
        Some(error) => return Err(failed(&error)),
    }
    builder.build().map(Some).map_err(|error| failed(&error))
}
