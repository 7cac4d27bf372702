//! Worker processes: from the order to the last byte that they wrote.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use heliostat_proto::{EnvId, Failure, WorkerId};
use heliostat_shm::memory::OomCounter;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use crate::daemon::{Daemon, Shared};
use crate::exit::{self, Exit};
use crate::last_words::LastWords;
use crate::output::Stream;
use crate::pipe::Pipe;
use crate::pressure::Memory;
use crate::spawner::{Order, Outcome, Started};
use crate::watch::watch;

/// How long a worker whose connection was closed may take to leave by itself.
const LEAVE_GRACE: Duration = Duration::from_secs(1);
/// After a worker's end, its pipes are read until they are closed, or silent for this long: something that it started
/// may still hold them.
const SILENCE: Duration = Duration::from_secs(1);
/// And for this long at most, whatever that something writes.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A worker process that was ordered and is not gone yet.
#[derive(Debug)]
pub(crate) struct Child {
    token: u128,
    pub(crate) env: EnvId,
    /// Where it listens for a debugger, if that was named.
    pub(crate) debug_port: Option<u16>,
    /// How long it may take to connect; `None` when it waits for a debugger first.
    start_timeout: Option<Duration>,
    /// `None` until the spawner reports.
    pub(crate) running: Option<Running>,
    pub(crate) connected: bool,
    /// Why its process shall end, once it shall.
    pub(crate) ending: Option<Why>,
    /// To be killed as soon as the spawner reports it.
    doomed: bool,
    /// The node killed it while it ran.
    killed: bool,
    /// The driver whose job it works for, or worked for last.
    pub(crate) driver: Option<WorkerId>,
    /// What wrote the latest line, or was announced since.
    pub(crate) name: String,
    pub(crate) last_words: LastWords,
    /// Bytes that its log file lacks by now.
    pub(crate) unlogged: usize,
    /// Its own memory when that was noted last, in bytes.
    pub(crate) anonymous: Option<u64>,
    /// Counts the kernel's kills in its control group.
    pub(crate) oom_counter: Option<OomCounter>,
    /// Why it is ended, when that is for want of memory.
    pub(crate) out_of_memory: Option<Failure>,
    /// How it ended, for those that leased it.
    pub(crate) failure: Option<Failure>,
    marker: [u8; 16],
}

/// What is known of a process that was started.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) pid: u32,
    pidfd: Rc<AsyncFd<OwnedFd>>,
    pipes: [Rc<Pipe>; 2],
}

/// Why a child is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// Nobody needs it any more.
    Unneeded,
    /// It did not connect in time.
    Late,
    /// Its connection ended before it did.
    Disconnected,
}

/// How a child is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Killed.
    Now,
    /// Its connection is closed, on which a worker leaves; killed when it has not after this time.
    Within(Duration),
}

impl Daemon {
    pub(crate) fn order_worker(&mut self, env: EnvId) {
        if self.stopping {
            return;
        }
        let worker = WorkerId(crate::random());
        let token = u128::from_le_bytes(crate::random());
        let marker = crate::random();
        let launch = self.launch(env);
        let child = Child {
            token,
            env,
            debug_port: launch.debug_port,
            start_timeout: (!launch.awaits_debugger).then_some(self.config.worker_start_timeout),
            running: None,
            connected: false,
            ending: None,
            doomed: false,
            killed: false,
            driver: None,
            name: String::new(),
            last_words: LastWords::default(),
            unlogged: 0,
            anonymous: None,
            oom_counter: None,
            out_of_memory: None,
            failure: None,
            marker,
        };
        self.tokens.insert(token, worker);
        self.children.insert(worker, child);
        self.order(env, Order { worker, token, marker, launch });
    }

    /// Hands an order to the spawner.
    pub(crate) fn place(&mut self, order: Order) {
        let worker = order.worker;
        if self.orders.send(order).is_err() {
            self.start_failed(worker, Failure::new("WORKER_CRASHED", "workers cannot be started any more"));
        }
    }

    /// The spawner did what it was asked for.
    pub(crate) fn on_outcome(&mut self, outcome: Outcome) {
        let worker = outcome.worker;
        let started = outcome.result.and_then(|started| {
            let pid = started.pid;
            self.adopt(worker, started).inspect_err(|_| exit::give_up(pid))
        });
        if let Err(error) = started {
            let program = self.config.worker.program.display();
            let message = format!("workers do not start: {program}: {error}");
            self.start_failed(worker, Failure::new("WORKER_CRASHED", message));
        }
    }

    fn adopt(&mut self, worker: WorkerId, started: Started) -> std::io::Result<()> {
        let Started { pid, pidfd, stdout, stderr } = started;
        let Some(child) = self.children.get_mut(&worker) else {
            exit::give_up(pid);
            return Ok(());
        };
        let pipes = [Pipe::new(Stream::Out, stdout, &child.marker)?, Pipe::new(Stream::Err, stderr, &child.marker)?];
        let pidfd = Rc::new(watch(pidfd, Interest::READABLE)?);
        child.running = Some(Running { pid, pidfd: Rc::clone(&pidfd), pipes: pipes.clone() });
        if child.doomed {
            self.end_child(worker, How::Now);
        }
        if let Some(shared) = self.me.upgrade() {
            self.tasks.spawn(tend(shared, worker, pid, pidfd, pipes));
        }
        let Some(timeout) = self.children.get(&worker).and_then(|child| child.start_timeout) else { return Ok(()) };
        self.after(timeout, move |daemon| {
            if let Some(child) =
                daemon.children.get_mut(&worker).filter(|child| !child.connected && child.ending.is_none())
            {
                child.ending = Some(Why::Late);
                daemon.end_child(worker, How::Now);
            }
        });
        Ok(())
    }

    /// Lets a worker leave by itself. It gets no other lease.
    pub(crate) fn dismiss(&mut self, worker: WorkerId, why: Why) {
        if let Some(child) = self.children.get_mut(&worker) {
            child.ending.get_or_insert(why);
        }
        self.end_child(worker, How::Within(LEAVE_GRACE));
        let actions = self.schedule.retire(worker);
        self.perform(actions);
    }

    /// Kills a worker that the scheduler has done with, unless it is ending already.
    pub(crate) fn reap(&mut self, worker: WorkerId) {
        if self.children.get(&worker).is_some_and(|child| child.ending.is_none()) {
            self.end_child(worker, How::Now);
        }
    }

    /// Ends a child. Its entry stays until its process is gone and its output is read.
    pub(crate) fn end_child(&mut self, worker: WorkerId, how: How) {
        let Some(child) = self.children.get_mut(&worker) else { return };
        child.ending.get_or_insert(Why::Unneeded);
        self.tokens.remove(&child.token);
        match (how, self.processes.get(&worker)) {
            (How::Within(grace), Some(process)) => {
                process.conn.finish();
                self.after(grace, move |daemon| daemon.end_child(worker, How::Now));
            }
            _ => match &child.running {
                Some(running) => {
                    child.killed |= exit::status(running.pidfd.get_ref()).is_none();
                    exit::kill(running.pid, running.pidfd.get_ref());
                }
                None if self.envs.withdraw(worker) => {
                    let env = child.env;
                    self.children.remove(&worker);
                    let actions = self.schedule.start_cancelled(env);
                    self.perform(actions);
                    self.child_gone.notify_waiters();
                }
                None => child.doomed = true,
            },
        }
    }

    /// The worker was leased: what it writes from now on goes to the driver of that client's job.
    pub(crate) fn assign(&mut self, worker: WorkerId, client: WorkerId) {
        let driver = match self.children.get(&client) {
            Some(child) => child.driver,
            None => Some(client),
        };
        let Some(child) = self.children.get_mut(&worker) else { return };
        if child.driver == driver {
            return;
        }
        // What is in the pipes by now was written for the driver before.
        let pipes = child.running.as_ref().map(|running| running.pipes.clone());
        for pipe in pipes.iter().flatten() {
            pipe.drain(self, worker);
        }
        if let Some(child) = self.children.get_mut(&worker) {
            child.driver = driver;
        }
    }

    pub(crate) fn start_failed(&mut self, worker: WorkerId, failure: Failure) {
        let Some(child) = self.children.remove(&worker) else { return };
        self.tokens.remove(&child.token);
        let failure = failure.fact("exitCode", heliostat_proto::Fact::Absent);
        let failure = failure.fact("exitSignal", heliostat_proto::Fact::Absent);
        let failure = self.envs.failure(child.env, failure);
        let actions = self.schedule.worker_spawn_failed(child.env, &failure);
        self.perform(actions);
        self.child_gone.notify_waiters();
    }

    /// The process is gone and everything that it wrote was read.
    fn child_ended(&mut self, worker: WorkerId, pid: u32, status: Exit) {
        self.logs.ended(pid);
        let Some(child) = self.children.get_mut(&worker) else { return };
        self.memory.worker_gone(worker);
        if child.connected {
            let failure = child.out_of_memory.take().filter(|_| child.killed);
            child.failure = Some(failure.unwrap_or_else(|| child.explain(pid, status, &mut self.memory)));
            let actions = self.schedule.worker_gone(worker);
            self.perform(actions);
            self.process_gone(worker);
            self.children.remove(&worker);
        } else {
            let (token, why, env) = (child.token, child.ending, child.env);
            let timeout = child.start_timeout.filter(|_| why == Some(Why::Late));
            let failure = status.start_failure(pid, timeout, &child.last_words);
            let failure = self.envs.failure(env, failure);
            self.children.remove(&worker);
            self.tokens.remove(&token);
            let actions = match why {
                Some(Why::Unneeded) => self.schedule.start_cancelled(env),
                None if status.is_from_outside() => self.schedule.start_killed(env, &failure),
                _ => self.schedule.worker_spawn_failed(env, &failure),
            };
            self.perform(actions);
        }
        self.child_gone.notify_waiters();
    }
}

impl Child {
    /// Why it ended, from what the kernel says.
    fn explain(&self, pid: u32, status: Exit, memory: &mut Memory) -> Failure {
        let by_kernel = match &self.oom_counter {
            Some(counter) if status.is_kill() && !self.killed => memory.killed_by_kernel(counter),
            _ => None,
        };
        let cause = match by_kernel {
            Some(true) => return memory.kernels_failure(pid, self.anonymous),
            Some(false) => " (not by the kernel for want of memory)",
            None if self.killed && self.ending == Some(Why::Disconnected) => {
                " by the node, because it had closed its connection"
            }
            None => "",
        };
        status.failure(pid, cause, &self.name, &self.last_words)
    }
}

/// Stays with a process from its start to its end.
async fn tend(shared: Shared, worker: WorkerId, pid: u32, pidfd: Rc<AsyncFd<OwnedFd>>, pipes: [Rc<Pipe>; 2]) {
    for pipe in &pipes {
        shared.borrow().tasks.spawn(Rc::clone(pipe).read(Rc::clone(&shared), worker));
    }
    // The only error is that the event loop ends; `Child` takes care of the process then.
    if pidfd.readable().await.is_err() {
        return;
    }
    let status = exit::status(pidfd.get_ref()).unwrap_or(Exit::Unknown);
    // What it started and left in its group ends with it. The process id is still taken, so the group is ours.
    exit::kill(pid, pidfd.get_ref());
    let ended = Instant::now();
    loop {
        let open = || pipes.iter().filter(|pipe| !pipe.is_done());
        let Some(latest) = open().map(|pipe| pipe.latest_activity()).max() else { break };
        let held = open().any(|pipe| pipe.is_held());
        let silent_at = latest.max(ended) + SILENCE;
        let give_up_at = if held { silent_at } else { silent_at.min(ended + LAST_WORDS) };
        if Instant::now() >= give_up_at {
            open().for_each(|pipe| pipe.abandon());
            break;
        }
        tokio::select! {
            () = tokio::time::sleep_until(give_up_at) => {}
            () = pipes[0].done.notified() => {}
            () = pipes[1].done.notified() => {}
        }
    }
    for pipe in &pipes {
        pipe.finish(&mut shared.borrow_mut(), worker);
    }
    // What it asked for before it ended counts, such as objects that it gave back.
    let conn = shared.borrow().processes.get(&worker).map(|process| Rc::clone(&process.conn));
    if let Some(conn) = conn {
        let _ = tokio::time::timeout(SILENCE, conn.until_closed()).await;
    }
    exit::reap(pidfd.get_ref());
    shared.borrow_mut().child_ended(worker, pid, status);
}

impl Drop for Running {
    /// A node that ends without having seen the end of a child ends it.
    fn drop(&mut self) {
        exit::kill_and_wait(self.pid, self.pidfd.get_ref());
    }
}
