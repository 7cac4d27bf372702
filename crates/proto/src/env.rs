//! What a worker is started with besides what all workers are.

use serde::{Deserialize, Serialize};

use crate::PackageHash;

/// A runtime environment. Workers are started for one, and run tasks of that one alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct EnvSpec {
    /// The package whose unpacked copy is the working directory.
    pub package: Option<PackageHash>,
    /// Variables of the process's environment, by name and without repetitions.
    pub env_vars: Vec<(String, String)>,
    /// Flags of Node.
    pub exec_argv: Vec<String>,
}

impl EnvSpec {
    /// Whether it asks for nothing.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}
