//! Tables by ids.

/// Ids are hashes and counters that the processes of one session make: they need no hash that withstands an attacker, and a
/// task takes several lookups.
pub(crate) use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};
