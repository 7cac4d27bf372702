//! How much memory may still be taken before the kernel kills someone.
//!
//! A memory file in a container isn't refused memory: at the limit of its control group the kernel ends a process. So
//! the limits are read before memory is taken, in every ancestor, for version 1 and version 2 control groups alike.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the limit that leaves the least memory was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Limit {
    /// `MemAvailable` of the whole system.
    System,
    /// A control group.
    Group(PathBuf),
    /// Nothing could be read: the platform tells no limit.
    Unknown,
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::System => f.write_str("MemAvailable"),
            Self::Group(path) => write!(f, "the limit of control group {}", path.display()),
            Self::Unknown => f.write_str("no limit known"),
        }
    }
}

/// Memory that may still be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headroom {
    /// Bytes: the least over the system and all control groups above this process.
    pub bytes: u64,
    /// Bytes that there are in all where that figure was found.
    pub total: u64,
    /// What gave that figure.
    pub limit: Limit,
}

/// Reads the headroom of this process: a dozen files of the kernel, 0.2 to 0.35 ms where that was measured.
pub fn headroom() -> Headroom {
    Probe { proc: Path::new("/proc"), root: Path::new("/") }.headroom()
}

/// Counts the processes of a control group that the kernel ended because memory ran out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OomCounter(PathBuf);

impl OomCounter {
    /// The counter of the group that a process is in; `None` where there is none, as in the uppermost group.
    pub fn of(pid: u32) -> Option<Self> {
        Probe { proc: Path::new("/proc"), root: Path::new("/") }.oom_counter(&pid.to_string())
    }

    /// How many it were since the group was made; `None` when the group is gone.
    pub fn read(&self) -> Option<u64> {
        field(&self.0, "oom_kill")
    }
}

/// Bytes of memory that belong to a process alone, such as its heap: never pages of the store or of other files. `None`
/// when it has ended.
pub fn anonymous(pid: u32) -> Option<u64> {
    let kib = field(Path::new(&format!("/proc/{pid}/status")), "RssAnon:")?;
    Some(kib.saturating_mul(1024))
}

/// Reads the files below given roots, so that tests can lay out other systems.
struct Probe<'a> {
    proc: &'a Path,
    root: &'a Path,
}

impl Probe<'_> {
    fn headroom(&self) -> Headroom {
        let mut least = Headroom { bytes: u64::MAX, total: u64::MAX, limit: Limit::Unknown };
        let mut offer = |bytes: u64, total: u64, limit: Limit| {
            if bytes < least.bytes {
                least = Headroom { bytes, total, limit };
            }
        };
        let meminfo = fs::read_to_string(self.proc.join("meminfo")).unwrap_or_default();
        if let Some(bytes) = field_of(&meminfo, "MemAvailable:") {
            let total = field_of(&meminfo, "MemTotal:").unwrap_or(bytes);
            offer(bytes.saturating_mul(1024), total.saturating_mul(1024), Limit::System);
        }
        for (directory, version) in self.groups("self") {
            if let Some((bytes, total)) = group_headroom(&directory, version) {
                offer(bytes, total, Limit::Group(directory));
            }
        }
        least
    }

    fn oom_counter(&self, process: &str) -> Option<OomCounter> {
        let files = self.groups(process).into_iter().map(|(directory, version)| match version {
            Version::One => directory.join("memory.oom_control"),
            Version::Two => directory.join("memory.events"),
        });
        // The innermost group of the version that has the memory controller.
        files.map(OomCounter).find(|counter| counter.read().is_some())
    }

    /// The directories of a process's memory control groups and of all their ancestors that can be seen.
    fn groups(&self, process: &str) -> Vec<(PathBuf, Version)> {
        let mut found = Vec::new();
        let read = |name: &str| fs::read_to_string(self.proc.join(process).join(name)).unwrap_or_default();
        let mounts = read("mountinfo");
        for line in read("cgroup").lines() {
            // "hierarchy:controllers:path"; version 2 has the hierarchy 0 and no controllers.
            let mut parts = line.splitn(3, ':');
            let (Some(hierarchy), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            let version = match (hierarchy, controllers) {
                ("0", "") => Version::Two,
                (_, names) if names.split(',').any(|name| name == "memory") => Version::One,
                _ => continue,
            };
            let Some(mount) = mounts.lines().find_map(|line| Mount::parse(line, version)) else { continue };
            let top = self.root.join(mount.point.trim_start_matches('/'));
            // In a container the mount may show a subtree, whose root then is a prefix of the path.
            let inside = path.strip_prefix(mount.root.trim_end_matches('/')).unwrap_or("").trim_matches('/');
            let mut directory = top.join(inside);
            loop {
                found.push((directory.clone(), version));
                if directory == top || !directory.pop() {
                    break;
                }
            }
        }
        found
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

struct Mount<'a> {
    root: &'a str,
    point: &'a str,
}

impl<'a> Mount<'a> {
    /// Reads a line of `mountinfo` if it mounts the memory control groups of this version.
    fn parse(line: &'a str, version: Version) -> Option<Self> {
        let (head, tail) = line.split_once(" - ")?;
        let mut tail = tail.split(' ');
        let (kind, options) = (tail.next()?, tail.nth(1)?);
        let matches = match version {
            Version::One => kind == "cgroup" && options.split(',').any(|option| option == "memory"),
            Version::Two => kind == "cgroup2",
        };
        let mut head = head.split(' ').skip(3);
        let (root, point) = (head.next()?, head.next()?);
        matches.then_some(Self { root, point })
    }
}

/// Limit less use, plus what the kernel can take back from the page cache; and the limit. `None` where there is no limit.
fn group_headroom(directory: &Path, version: Version) -> Option<(u64, u64)> {
    let (limit, used, prefix) = match version {
        Version::One => ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
        Version::Two => ("memory.max", "memory.current", ""),
    };
    let limit = number(&directory.join(limit))?; // "max" isn't a number: no limit
    let used = number(&directory.join(used))?;
    let stat = fs::read_to_string(directory.join("memory.stat")).unwrap_or_default();
    let value = |name: &str| field_of(&stat, &format!("{prefix}{name}")).unwrap_or(0);
    // Cached pages that weren't used of late go at once; of those in use only half is counted, as MemAvailable does.
    let reclaimable = value("inactive_file") + value("active_file") / 2 + value("slab_reclaimable");
    Some((limit.saturating_sub(used.saturating_sub(reclaimable)), limit))
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn field(path: &Path, name: &str) -> Option<u64> {
    field_of(&fs::read_to_string(path).ok()?, name)
}

fn field_of(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some(name)).then(|| words.next()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("heliostat-memory-{}-{name}", std::process::id()));
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(root)
        }

        fn headroom(&self) -> Headroom {
            Probe { proc: &self.0.join("proc"), root: &self.0 }.headroom()
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn the_tightest_ancestor_counts_in_version_2() {
        let tree = Tree::new(
            "v2",
            &[
                ("proc/meminfo", "MemTotal: 100 kB\nMemAvailable:  9000 kB\n"),
                ("proc/self/cgroup", "0::/a/b\n"),
                ("proc/self/mountinfo", "29 23 0:26 / /cg rw - cgroup2 cgroup2 rw\n"),
                ("cg/a/memory.max", "3000000\n"),
                ("cg/a/memory.current", "2000000\n"),
                ("cg/a/memory.stat", "anon 5\ninactive_file 100000\nactive_file 20000\nslab_reclaimable 1\n"),
                ("cg/a/b/memory.max", "max\n"),
                ("cg/a/b/memory.current", "2000000\n"),
            ],
        );
        let expected = Limit::Group(tree.0.join("cg/a"));
        assert_eq!(tree.headroom(), Headroom { bytes: 1_110_001, total: 3_000_000, limit: expected });
    }

    #[test]
    fn a_container_that_sees_a_subtree_is_understood_in_version_1() {
        let tree = Tree::new(
            "v1",
            &[
                ("proc/meminfo", "MemAvailable: 9000 kB\n"),
                ("proc/self/cgroup", "5:cpu:/x\n4:memory:/docker/abc/inner\n"),
                ("proc/self/mountinfo", "30 23 0:27 /docker/abc /cg/memory ro - cgroup cgroup rw,memory\n"),
                ("cg/memory/inner/memory.limit_in_bytes", "700000\n"),
                ("cg/memory/inner/memory.usage_in_bytes", "690000\n"),
                ("cg/memory/inner/memory.stat", "inactive_file 1\ntotal_inactive_file 5000\n"),
            ],
        );
        assert_eq!(tree.headroom().bytes, 15_000);
    }

    #[test]
    fn use_above_the_limit_leaves_nothing_and_no_files_mean_no_limit() {
        let tree = Tree::new(
            "over",
            &[
                ("proc/self/cgroup", "0::/\n"),
                ("proc/self/mountinfo", "29 23 0:26 / /cg rw - cgroup2 cgroup2 rw\n"),
                ("cg/memory.max", "10\n"),
                ("cg/memory.current", "20\n"),
            ],
        );
        assert_eq!(tree.headroom().bytes, 0);
        let empty = Tree::new("empty", &[("proc/nothing", "")]);
        assert_eq!(empty.headroom(), Headroom { bytes: u64::MAX, total: u64::MAX, limit: Limit::Unknown });
    }

    #[test]
    fn this_machine_tells_something() {
        let room = headroom();
        assert!(room.bytes > 0 && room.bytes <= room.total && room.limit != Limit::Unknown, "{room:?}");
    }

    #[test]
    fn the_counter_of_kills_is_that_of_the_group_with_the_memory_controller() {
        let tree = Tree::new(
            "kills",
            &[
                ("proc/7/cgroup", "4:memory:/a\n0::/unified\n"),
                ("proc/7/mountinfo", "1 0 0:1 / /cg1 rw - cgroup x rw,memory\n2 0 0:2 / /cg2 rw - cgroup2 x rw\n"),
                ("cg2/unified/memory.events", "low 0\noom 3\noom_kill 2\n"),
                ("cg1/a/cgroup.procs", ""),
            ],
        );
        let probe = Probe { proc: &tree.0.join("proc"), root: &tree.0 };
        let counter = probe.oom_counter("7").unwrap();
        assert_eq!((counter.0.clone(), counter.read()), (tree.0.join("cg2/unified/memory.events"), Some(2)));
        fs::write(tree.0.join("cg1/a/memory.oom_control"), "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n").unwrap();
        assert_eq!(probe.oom_counter("7").unwrap().read(), Some(5));
        assert_eq!(probe.oom_counter("8"), None);
    }

    #[test]
    fn anonymous_memory_is_that_of_the_heap() {
        let own = std::process::id();
        let before = anonymous(own).unwrap();
        let heap = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(anonymous(own).unwrap() >= before + (48 << 20), "{} of {before}", anonymous(own).unwrap());
        drop(heap);
        assert_eq!(anonymous(u32::MAX), None);
    }
}
