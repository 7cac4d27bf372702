//! What a node is started with.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use heliostat_proto::message::Resources;
use heliostat_runtime::pressure::Limits;

use crate::spilling::SpillConfig;

/// How a node is set up.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NodeConfig {
    /// Where the directory of this user's sessions goes. Must be short: a socket's path has at most 107 bytes.
    pub temp_dir: PathBuf,
    /// What tasks can ask for; `CPU` included.
    pub resources: Resources,
    /// Facts about the node for whoever looks at it.
    pub labels: Vec<(String, String)>,
    /// Bytes of the object store.
    pub store_capacity: u64,
    /// How objects leave a store that is full; `None` makes its capacity the limit of what can be stored.
    pub spilling: Option<SpillConfig>,
    /// How long a put waits for room in a full store.
    pub put_timeout: Duration,
    /// Values up to this many serialised bytes stay out of the store.
    pub inline_limit: u64,
    /// The worker program.
    pub worker: WorkerCommand,
    /// Whether the lines that workers write go to their driver.
    pub log_to_driver: bool,
    /// Workers that are started ahead of need.
    pub prestart: usize,
    /// None are started before a driver has said what its tasks need.
    pub awaits_env: bool,
    /// A worker that has not connected after this time is taken for one that failed to start.
    pub worker_start_timeout: Duration,
    /// When memory counts as short, so that a worker is ended.
    pub memory: Limits,
    /// A connection that has not said who it is after this time is closed.
    pub hello_timeout: Duration,
}

impl NodeConfig {
    /// A node with defaults: one worker per CPU started ahead, values up to 100 KiB inline, output to the driver, objects
    /// spilled to the session's directory.
    pub fn new(temp_dir: impl Into<PathBuf>, resources: Resources, store_capacity: u64, worker: WorkerCommand) -> Self {
        let prestart = resources.amount("CPU").div_ceil(1000).min(1024) as usize;
        Self {
            temp_dir: temp_dir.into(),
            resources,
            labels: Vec::new(),
            store_capacity,
            spilling: Some(SpillConfig::default()),
            put_timeout: Duration::from_secs(30),
            inline_limit: 100 * 1024,
            worker,
            log_to_driver: true,
            prestart,
            awaits_env: false,
            worker_start_timeout: Duration::from_secs(60),
            memory: Limits::default(),
            hello_timeout: Duration::from_secs(10),
        }
    }
}

/// The program that runs as a worker. It inherits the environment that the embedding process had when the node started,
/// and gets besides:
///
/// - `HELIOSTAT_SOCKET`: the path of the node's socket,
/// - `HELIOSTAT_WORKER_TOKEN`: 32 hexadecimal digits for its [`Role`](heliostat_proto::message::Role),
/// - `HELIOSTAT_MARKER`: 32 hexadecimal digits. A line of byte 0x1e, these digits, a space and a name says what the
///   following lines of that stream come from,
/// - `HELIOSTAT_WORKING_DIR`: its working directory, where its runtime environment brings one.
#[derive(Debug, Clone)]
pub struct WorkerCommand {
    /// The program; a path with a directory.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Further ones, after those of the worker's runtime environment.
    pub entry: Vec<OsString>,
    /// Further variables, over those that are inherited.
    pub env: Vec<(OsString, OsString)>,
}

impl WorkerCommand {
    /// A program with arguments.
    pub fn new(program: impl Into<PathBuf>, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self {
            program: program.into(),
            args: args.into_iter().map(Into::into).collect(),
            entry: Vec::new(),
            env: Vec::new(),
        }
    }
}
