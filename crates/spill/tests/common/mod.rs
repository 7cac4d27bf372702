//! What the tests of the engine share.
#![allow(dead_code, unreachable_pub)] // not every test file uses all of it
#![allow(clippy::print_stdout)] // why a test was skipped

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;
use heliostat_proto::ObjectId;
use heliostat_spill::{Config, Engine, Event, Key, RestoreError, Session, SpillError, Stats};

pub const KIB: usize = 1 << 10;
pub const MIB: usize = 1 << 20;

pub fn key(number: u32) -> Key {
    let mut id = [0x5A; 28];
    id[..4].copy_from_slice(&number.to_le_bytes());
    Key { id: ObjectId(id), generation: number % 3 }
}

/// Bytes that differ between objects and between places in them.
pub fn content(number: u32, length: usize) -> Bytes {
    let mut state = u64::from(number) << 32 | 0x9E37_79B9;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

/// Bytes that begin at a page, like large objects in the store.
pub fn aligned(bytes: &[u8]) -> Bytes {
    let mut space = vec![0; bytes.len() + 4096];
    let start = space.as_ptr().align_offset(4096);
    space[start..start + bytes.len()].copy_from_slice(bytes);
    Bytes::from(space).slice(start..start + bytes.len())
}

/// A numbered generator: tests run the same way each time.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit.max(1)
    }

    /// Below one of these limits.
    pub fn below_one_of(&mut self, limits: &[u64]) -> usize {
        let limit = limits[self.below(limits.len() as u64) as usize];
        self.below(limit) as usize
    }
}

pub struct Spill {
    pub engine: Engine,
    pub session: Session,
    pub events: mpsc::Receiver<Event>,
}

impl Spill {
    pub fn open<U: Into<String>>(uris: impl IntoIterator<Item = U>, change: impl FnOnce(&mut Config)) -> Self {
        let session = Session::random().unwrap();
        let (sender, events) = mpsc::channel();
        let mut config = Config::new(uris, session);
        config.sweep = false;
        config.flush_after = Duration::from_secs(3600); // batches are what a test makes them
        config.events = Arc::new({
            let sender = Mutex::new(sender);
            move |event| drop(sender.lock().unwrap().send(event))
        });
        change(&mut config);
        Self { engine: Engine::open(config).unwrap(), session, events }
    }

    pub fn start(&self, number: u32, bytes: Bytes) -> mpsc::Receiver<Result<(), SpillError>> {
        let (sender, results) = mpsc::channel();
        self.engine.spill(key(number), bytes, move |result| drop(sender.send(result)));
        results
    }

    /// Spills one object now.
    pub fn put(&self, number: u32, bytes: Bytes) -> Result<(), SpillError> {
        let result = self.start(number, bytes);
        self.engine.flush();
        result.recv().unwrap()
    }

    /// Spills objects of these lengths in one batch; their numbers count from `first`.
    pub fn put_all(&self, first: u32, lengths: &[usize]) {
        let results: Vec<_> =
            (first..).zip(lengths).map(|(number, &length)| self.start(number, content(number, length))).collect();
        self.engine.flush();
        for result in results {
            result.recv().unwrap().unwrap();
        }
    }

    pub fn get(&self, number: u32, length: usize) -> Result<Vec<u8>, RestoreError> {
        let (sender, results) = mpsc::channel();
        self.engine.restore(&key(number), vec![0xEE; length], move |bytes, result| {
            drop(sender.send(result.map(|()| bytes)));
        });
        results.recv().unwrap()
    }

    pub fn range(&self, number: u32, start: u64, length: usize) -> Result<Vec<u8>, RestoreError> {
        let (sender, results) = mpsc::channel();
        self.engine.read_range(&key(number), start, vec![0xEE; length], move |bytes, result| {
            drop(sender.send(result.map(|()| bytes)));
        });
        results.recv().unwrap()
    }

    pub fn free(&self, number: u32) {
        assert!(self.engine.free(&key(number)), "{number} is spilled");
    }

    /// Waits until the engine's figures are as wanted; a test that never sees that is ended by its runner.
    pub fn until(&self, good: impl Fn(&Stats) -> bool) -> Stats {
        wait(|| Some(self.engine.stats()).filter(|stats| good(stats)))
    }

    pub fn shut(&self) {
        assert_eq!(self.engine.shutdown(Duration::from_secs(600)), []);
    }
}

/// Waits for a condition.
pub fn wait<T>(mut ready: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(value) = ready() {
            return value;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// All files below a directory.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Segment files below a directory.
pub fn segments(dir: &Path) -> Vec<PathBuf> {
    files(dir).into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "seg")).collect()
}

pub fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|ci| ci == "true")
}

/// A file system of its own, gone at the end.
pub struct Mount {
    dir: tempfile::TempDir,
}

impl Mount {
    /// None, with a message, where mounting is not permitted; but in CI it must be.
    pub fn new(kind: &str, options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mount = Command::new("mount").args(["-t", kind, "-o", options, "none"]).arg(dir.path()).output();
        let error = match mount {
            Ok(output) if output.status.success() => return Some(Self { dir }),
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        assert!(!in_ci(), "mounting a {kind}: {error}");
        println!("skipped: mounting a {kind} is not permitted: {error}");
        None
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn uri(&self) -> &str {
        self.path().to_str().unwrap()
    }

    pub fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        assert!(Command::new("mount").args(["-o", &options]).arg(self.path()).status().unwrap().success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.dir.path()).status();
    }
}

/// The role of a child, and where it works.
pub const ROLE: &str = "HELIOSTAT_SPILL_CHILD";

/// A process that runs the test `child` of this very program; killed at the end.
pub struct Process {
    child: std::process::Child,
    lines: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
}

impl Process {
    pub fn start(role: &str, variables: &[(&str, &str)]) -> Self {
        use std::io::BufRead as _;
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child", "--ignored", "--nocapture"]).env(ROLE, role).envs(variables.iter().copied());
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Waits until the child prints a line that begins so; returns the rest of it.
    pub fn hears(&mut self, start: &str) -> String {
        let mut lines = self.lines.by_ref().map(|line| line.expect("the child prints text"));
        let line = lines.find_map(|line| line.split_once(start).map(|(_, rest)| rest.to_owned()));
        line.unwrap_or_else(|| panic!("the child ended without saying `{start}`"))
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Prints a line that `hears` hears, as a child.
pub fn say(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").unwrap();
    out.flush().unwrap();
}
