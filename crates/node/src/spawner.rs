//! The thread that starts worker processes. It lives as long as the node: a child can ask the kernel for a signal at
//! the end of the thread that started it, and must not get one before the node ends.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::Receiver;

use heliostat_proto::WorkerId;
use rustix::process::{Pid, PidfdFlags};
use tokio::sync::mpsc::UnboundedSender;

use crate::config::WorkerCommand;
use crate::debugger;
use heliostat_package::hex;

/// Above every other process.
const OOM_SCORE: &str = "1000";
/// Flags of Node that come by the environment.
pub(crate) const NODE_OPTIONS: &str = "NODE_OPTIONS";
/// Tells a worker that its working directory came with its runtime environment.
const DIRECTORY_VARIABLE: &str = "HELIOSTAT_WORKING_DIR";

/// A process to start.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) worker: WorkerId,
    pub(crate) token: u128,
    pub(crate) marker: [u8; 16],
    pub(crate) launch: Launch,
}

/// What a process is started with because of its runtime environment.
#[derive(Debug, Default)]
pub(crate) struct Launch {
    pub(crate) directory: Option<PathBuf>,
    pub(crate) vars: Vec<(String, String)>,
    pub(crate) flags: Vec<String>,
    /// Where it listens for a debugger, if that was named.
    pub(crate) debug_port: Option<u16>,
    /// It says nothing before somebody debugs it.
    pub(crate) awaits_debugger: bool,
}

/// What became of an order.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) worker: WorkerId,
    pub(crate) result: io::Result<Started>,
}

/// A process that runs, or has ended already and was not waited for.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) pid: u32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// Everything about the workers' start that does not change.
#[derive(Debug)]
pub(crate) struct Spawner {
    command: WorkerCommand,
    /// Taken when the node starts, on the thread that starts it: to read the environment later would race with the
    /// embedding program, which may change it.
    inherited: Vec<(OsString, OsString)>,
    socket: PathBuf,
}

impl Spawner {
    pub(crate) fn new(command: WorkerCommand, socket: PathBuf) -> Self {
        let own = |(name, value): (OsString, OsString)| match value.to_str() {
            Some(options) if name == NODE_OPTIONS => (name, debugger::without_debugger(options).into()),
            _ => (name, value),
        };
        // A worker may start a node of its own, which has another directory.
        let inherited = std::env::vars_os().filter(|(name, _)| name != DIRECTORY_VARIABLE).map(own).collect();
        Self { command, inherited, socket }
    }

    /// Works off orders until nobody can give any more.
    pub(crate) fn run(&self, orders: &Receiver<Order>, outcomes: &UnboundedSender<Outcome>) {
        for order in orders {
            let worker = order.worker;
            let result = self.start(&order);
            if let Err(lost) = outcomes.send(Outcome { worker, result }) {
                // The loop is gone, so nobody would wait for this child.
                if let Ok(started) = lost.0.result {
                    crate::exit::give_up(started.pid);
                }
            }
        }
    }

    fn start(&self, order: &Order) -> io::Result<Started> {
        let Launch { directory, vars, flags, .. } = &order.launch;
        let mut command = Command::new(&self.command.program);
        if let Some(directory) = directory {
            command.current_dir(directory);
        }
        let mut child = command
            .args(&self.command.args)
            .args(flags)
            .args(&self.command.entry)
            .env_clear()
            .envs(self.inherited.iter().map(|(name, value)| (name, value)))
            .envs(self.command.env.iter().map(|(name, value)| (name, value)))
            .envs(vars.iter().map(|(name, value)| (name, value)))
            .envs(directory.iter().map(|directory| (DIRECTORY_VARIABLE, directory)))
            .env("HELIOSTAT_SOCKET", &self.socket)
            .env("HELIOSTAT_WORKER_TOKEN", format!("{:032x}", order.token))
            .env("HELIOSTAT_MARKER", hex(&order.marker))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Its own group: Ctrl-C reaches the driver alone, which ends its workers; and what a worker started and
            // left in the group ends with it.
            .process_group(0)
            .spawn()?;
        let pipes = child.stdout.take().zip(child.stderr.take());
        let prepared = (|| {
            let (stdout, stderr) = pipes.ok_or_else(|| io::Error::other("the child has no pipes"))?;
            let (stdout, stderr) = (OwnedFd::from(stdout), OwnedFd::from(stderr));
            rustix::io::ioctl_fionbio(&stdout, true)?;
            rustix::io::ioctl_fionbio(&stderr, true)?;
            let pid = Pid::from_child(&child);
            // Where the kernel must end somebody for want of memory, let it be a worker, whose task is tried again, and
            // not the driver. It is always allowed to make oneself or a child a better victim; where it fails, the
            // kernel chooses as it would.
            let _ = std::fs::write(format!("/proc/{}/oom_score_adj", child.id()), OOM_SCORE);
            Ok((rustix::process::pidfd_open(pid, PidfdFlags::empty())?, stdout, stderr))
        })();
        match prepared {
            Ok((pidfd, stdout, stderr)) => Ok(Started { pid: child.id(), pidfd, stdout, stderr }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }
}
