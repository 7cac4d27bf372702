//! The node daemon of Heliostat: worker pool, leases, the store, logs.
//!
//! [`Node::start`] runs it as threads of the calling process: an event loop, and a thread that starts worker processes
//! and lives as long as the node. Processes reach it through a Unix socket in a directory that only their user can
//! enter; the process that embeds it gets its connection from [`NodeHandle::connect`].
//!
//! ```no_run
//! use heliostat_node::{Node, NodeConfig, WorkerCommand};
//! use heliostat_proto::message::Resources;
//!
//! let worker = WorkerCommand::new("/usr/bin/node", ["worker.js"]);
//! let cpus = Resources::new([("CPU".to_owned(), 2.0)]);
//! let node = Node::start(NodeConfig::new(std::env::temp_dir(), cpus, 1 << 30, worker))?;
//! let connection = node.connect()?;
//! # drop(connection);
//! node.stop(std::time::Duration::from_secs(1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod admission;
mod config;
mod conn;
mod daemon;
mod debugger;
mod envs;
mod exit;
mod handle;
mod last_words;
mod listener;
mod logs;
mod named;
mod output;
mod peers;
mod pipe;
mod pressure;
mod requests;
mod restore;
mod room;
mod session;
mod sites;
mod spawner;
mod spilling;
mod state;
mod store;
mod task;
mod watch;
mod workers;

pub use config::{NodeConfig, WorkerCommand};
pub use handle::{ConnectNodeError, Node, NodeHandle, StartNodeError};
pub use heliostat_runtime::pressure::Limits as MemoryLimits;
pub use session::SessionError;
pub use spilling::SpillConfig;

/// Random bytes from the kernel.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("getrandom(2) fails only on kernels that do not have it");
    bytes
}
