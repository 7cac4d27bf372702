//! Starting and stopping a node.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use heliostat_proto::NodeId;
use heliostat_shm::memory::headroom;
use heliostat_store::{CreateStoreError, StoreConfig, StoreDaemon};
use tokio::net::UnixListener;
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::LocalSet;

use crate::admission;
use crate::config::NodeConfig;
use crate::daemon::{Daemon, Shared};
use crate::listener;
use crate::logs::Logs;
use crate::pressure;
use crate::session::{Session, SessionError};
use crate::spawner::{Outcome, Spawner};
use crate::spilling::{SpillConfig, Storage};
use crate::store::{Inner, Store};
use crate::workers::How;

/// How long killed processes may take to be gone before the node stops without having seen it.
const KILLED_GRACE: Duration = Duration::from_secs(5);
/// How long a node that stops lets processes take their last messages.
const FAREWELL: Duration = Duration::from_millis(250);

/// Objects that the store's memory can't take have a file of so many times its size, or of the least if that is more.
const FILE_FACTOR: u64 = 16;
const FILE_LEAST: u64 = 64 << 30;

/// A node could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartNodeError {
    /// There is no place for the node's socket.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The socket could not be made.
    #[error("cannot listen on {path}: {source}")]
    Listen {
        /// The socket's path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is no object store.
    #[error(transparent)]
    Store(#[from] CreateStoreError),
    /// Objects cannot be spilled as the settings say.
    #[error("cannot spill objects: {0}")]
    Spilling(#[from] heliostat_spill::OpenError),
    /// A thread or what it waits with could not be made.
    #[error("cannot start the node's {part}: {source}")]
    Thread {
        /// Which part.
        part: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// No connection to the node.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectNodeError {
    /// The node was stopped.
    #[error("the node was stopped")]
    Stopped,
    /// The system gives no socket.
    #[error("cannot make a connection to the node: {0}")]
    Socket(#[from] heliostat_wire::ChannelError),
}

/// The daemon of one node.
#[derive(Debug)]
pub struct Node;

/// A running node. Dropping it stops the node.
#[derive(Debug)]
pub struct NodeHandle {
    node: NodeId,
    socket: PathBuf,
    session_dir: PathBuf,
    commands: UnboundedSender<Command>,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    threads: [JoinHandle<()>; 4],
    session: Session,
}

#[derive(Debug)]
enum Command {
    Adopt(OwnedFd),
    Stop(Duration),
}

impl Node {
    /// Starts a node in this process: four threads, a socket, and workers ahead of need. Call it on a thread that may
    /// read the environment, which workers inherit as it is now.
    pub fn start(config: NodeConfig) -> Result<NodeHandle, StartNodeError> {
        let node = NodeId(crate::random());
        let session = Session::create(&config.temp_dir)?;
        let socket = session.socket();
        let thread = |part| move |source| StartNodeError::Thread { part, source };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(thread("event loop"))?;
        let listener = {
            let _context = runtime.enter();
            listen(&socket).map_err(|source| StartNodeError::Listen { path: socket.clone(), source })?
        };
        let mut store = StoreConfig::new(config.store_capacity);
        // A store that fills up must not make memory so short that workers are ended for it.
        store.memory_reserve = store.memory_reserve.max(config.memory.threshold(headroom().total).saturating_mul(2));
        let mut store = StoreDaemon::create(store)?;
        if let Some(spilling) = &config.spilling {
            give_file(&mut store, spilling, session.dir(), config.store_capacity);
        }
        let store = Inner::new(store);
        let storage = Storage::open(config.spilling.as_ref(), session.dir())?;
        let (command_sender, commands) = unbounded_channel();
        let (outcome_sender, outcomes) = unbounded_channel();
        let (order_sender, orders) = std::sync::mpsc::channel();
        let (job_sender, jobs) = std::sync::mpsc::channel();

        let spawner = Spawner::new(config.worker.clone(), socket.clone());
        // A thread that is not started takes its ends of the channels along, on which the others end.
        let start = |name: &str, part, body: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.into()).spawn(body).map_err(thread(part))
        };
        let spawning = start("heliostat-spawn", "spawner", Box::new(move || spawner.run(&orders, &outcome_sender)))?;
        let storing = start("heliostat-store", "store", {
            let store = Arc::clone(&store);
            Box::new(move || store.run(&jobs))
        })?;
        let packages = session.packages();
        let (logs, log_writer) = Logs::new(session.logs());
        let logging = start("heliostat-logs", "log writer", Box::new(move || log_writer.run()))?;
        let event_loop = start("heliostat-node", "event loop", {
            let store = Store::new(store, job_sender);
            Box::new(move || {
                LocalSet::new().block_on(&runtime, async move {
                    let shared = Daemon::new(config, node, store, storage, order_sender, packages, logs);
                    run(shared, listener, commands, outcomes).await;
                });
            })
        })?;
        let session_dir = session.dir().to_owned();
        let running = Mutex::new(Some(Running { threads: [event_loop, spawning, storing, logging], session }));
        Ok(NodeHandle { node, socket, session_dir, commands: command_sender, running })
    }
}

impl NodeHandle {
    /// Where processes of this user reach the node: `unix:` and the path of its socket.
    pub fn address(&self) -> String {
        format!("unix:{}", self.socket.display())
    }

    /// The node's id.
    pub fn node_id(&self) -> NodeId {
        self.node
    }

    /// The directory of the node's files, gone after [`Self::stop`].
    pub fn session_dir(&self) -> &Path {
        &self.session_dir
    }

    /// A connected socket for the process that embeds the node; it needs no file.
    pub fn connect(&self) -> Result<OwnedFd, ConnectNodeError> {
        let (near, far) = heliostat_wire::socket_pair()?;
        self.commands.send(Command::Adopt(far)).map_err(|_| ConnectNodeError::Stopped)?;
        Ok(near)
    }

    /// Ends the workers (those that do not leave within `grace` are killed), waits for all of them, closes every
    /// connection and removes the node's files. The second call, on whichever thread, waits for the first.
    pub fn stop(&self, grace: Duration) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Running { threads, session }) = running.take() else { return };
        // When the loop has ended by itself, there is nobody to tell.
        let _ = self.commands.send(Command::Stop(grace));
        for thread in threads {
            // A panic was reported by its thread; its children were ended while it unwound.
            let _ = thread.join();
        }
        drop(session);
    }
}

impl Drop for NodeHandle {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

/// Gives the store a file for what its memory can't take, beside the objects that are spilled, or in the session's
/// directory. Where neither can have one, the memory is the limit of a single object.
fn give_file(store: &mut StoreDaemon, spilling: &SpillConfig, session_dir: &Path, capacity: u64) {
    let local = spilling.uris.iter().filter_map(|uri| match uri.split_once("://") {
        None => Some(PathBuf::from(uri)),
        Some(("file", path)) => Some(PathBuf::from(path)),
        Some(_) => None,
    });
    let size = capacity.saturating_mul(FILE_FACTOR).max(FILE_LEAST);
    for dir in local.chain([session_dir.to_owned()]) {
        // A file system may allow no files of that size.
        let mut sizes = [size, FILE_LEAST, capacity.saturating_mul(2)].into_iter();
        if std::fs::create_dir_all(&dir).is_ok() && sizes.any(|size| store.keep_file_in(&dir, size).is_ok()) {
            return;
        }
    }
}

/// A socket that only this user can connect to, on the event loop of this context.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// The event loop, from the first worker to the last.
async fn run(
    shared: Shared,
    listener: UnixListener,
    mut commands: UnboundedReceiver<Command>,
    mut outcomes: UnboundedReceiver<Outcome>,
) {
    {
        shared.borrow_mut().start_ahead();
    }
    let tasks = shared.borrow().tasks.clone();
    tasks.spawn(pressure::watch(Rc::downgrade(&shared)));
    let listening = tokio::task::spawn_local(listener::listen(Rc::clone(&shared), listener));
    let grace = loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Adopt(socket)) => {
                    tasks.spawn(admission::serve(Rc::clone(&shared), socket));
                }
                Some(Command::Stop(grace)) => break grace,
                None => break Duration::ZERO,
            },
            Some(outcome) = outcomes.recv() => shared.borrow_mut().on_outcome(outcome),
            () = tasks.panicked() => break Duration::ZERO,
        }
    };
    commands.close();
    listening.abort();
    stop(&shared, &mut outcomes, grace).await;
}

async fn stop(shared: &Shared, outcomes: &mut UnboundedReceiver<Outcome>, grace: Duration) {
    let end_all = |how| {
        let mut daemon = shared.borrow_mut();
        let ids: Vec<_> = daemon.children.keys().copied().collect();
        for id in ids {
            daemon.end_child(id, how);
        }
    };
    {
        let mut daemon = shared.borrow_mut();
        daemon.stopping = true;
        daemon.envs.stop();
    }
    if !grace.is_zero() {
        end_all(How::Within(grace));
        let _ = tokio::time::timeout(grace, all_gone(shared, outcomes)).await;
    }
    for process in shared.borrow().processes.values() {
        process.conn.hurry();
    }
    end_all(How::Now);
    let _ = tokio::time::timeout(KILLED_GRACE, all_gone(shared, outcomes)).await;
    let conns: Vec<_> = shared.borrow().processes.values().map(|process| Rc::clone(&process.conn)).collect();
    for conn in &conns {
        conn.finish();
    }
    let told = async {
        for conn in conns {
            conn.until_sent().await;
        }
    };
    let _ = tokio::time::timeout(FAREWELL, told).await;
}

/// Waits until no child is left, those included that are being started.
async fn all_gone(shared: &Shared, outcomes: &mut UnboundedReceiver<Outcome>) {
    let child_gone = Rc::clone(&shared.borrow().child_gone);
    loop {
        let gone = child_gone.notified();
        if shared.borrow().children.is_empty() {
            break;
        }
        tokio::select! {
            () = gone => {}
            Some(outcome) = outcomes.recv() => shared.borrow_mut().on_outcome(outcome),
        }
    }
}
