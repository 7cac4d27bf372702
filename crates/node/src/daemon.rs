//! The daemon's state, and how the scheduler's decisions are carried out. Everything here runs on the event loop's
//! thread; nothing waits.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::sync::mpsc::Sender;
use std::time::Duration;

use heliostat_proto::message::FromDaemon;
use heliostat_proto::{Failure, NodeId, WorkerId};
use heliostat_runtime::schedule::{Action, Schedule};
use heliostat_shm::bell::Bell;
use tokio::sync::Notify;

use crate::config::NodeConfig;
use crate::conn::Conn;
use crate::envs::Envs;
use crate::logs::Logs;
use crate::named::Keeper;
use crate::output::Unclaimed;
use crate::pressure::Memory;
use crate::restore::Restores;
use crate::room::Room;
use crate::sites::Sites;
use crate::spawner::Order;
use crate::spilling::{Spilling, Storage};
use crate::store::Store;
use crate::task::Tasks;
use crate::workers::Child;

/// Pause after the first failed start of a worker; it doubles with each further one, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(crate) type Shared = Rc<RefCell<Daemon>>;

/// The state of the node.
#[derive(Debug)]
pub(crate) struct Daemon {
    pub(crate) me: Weak<RefCell<Daemon>>,
    pub(crate) config: NodeConfig,
    pub(crate) node: NodeId,
    pub(crate) schedule: Schedule,
    pub(crate) store: Store,
    pub(crate) keeper: Keeper,
    pub(crate) envs: Envs,
    pub(crate) memory: Memory,
    pub(crate) room: Room,
    pub(crate) spilling: Spilling,
    pub(crate) restores: Restores,
    pub(crate) sites: Sites,
    pub(crate) processes: BTreeMap<WorkerId, Process>,
    pub(crate) children: BTreeMap<WorkerId, Child>,
    /// Children that did not connect yet, by the token that each was given.
    pub(crate) tokens: HashMap<u128, WorkerId>,
    pub(crate) orders: Sender<Order>,
    pub(crate) logs: Logs,
    pub(crate) unclaimed: Unclaimed,
    pub(crate) tasks: Tasks,
    pub(crate) stopping: bool,
    /// Where pipes are read into.
    pub(crate) scratch: Vec<u8>,
    /// Told whenever a child is gone for good.
    pub(crate) child_gone: Rc<Notify>,
}

/// A process that said hello.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) conn: Rc<Conn>,
    pub(crate) driver: bool,
    pub(crate) pid: u32,
    /// Its number in the store.
    pub(crate) seat: u32,
    /// How others wake it.
    pub(crate) bell: Bell,
    /// Processes that it has a link with.
    pub(crate) peers: BTreeSet<WorkerId>,
    /// Where the names of a driver's objects are looked up, and those of its workers.
    pub(crate) namespace: String,
    /// Others hold references to objects that it owns.
    pub(crate) lends: bool,
    /// The driver said that it leaves: it gets nothing new.
    pub(crate) leaving: bool,
}

impl Daemon {
    pub(crate) fn new(
        config: NodeConfig,
        node: NodeId,
        store: Store,
        storage: Storage,
        orders: Sender<Order>,
        packages: PathBuf,
        logs: Logs,
    ) -> Shared {
        let Storage { engine, results, done } = storage;
        let spilling = Spilling::new(engine, results, config.spilling.as_ref(), config.store_capacity);
        let shared = Rc::new_cyclic(|me| {
            RefCell::new(Self {
                me: me.clone(),
                schedule: Schedule::new(&config.resources),
                memory: Memory::new(config.memory),
                envs: Envs::new(packages, config.awaits_env),
                config,
                node,
                store,
                keeper: Keeper::new(node),
                room: Room::new(),
                spilling,
                restores: Restores::default(),
                sites: Sites::default(),
                processes: BTreeMap::new(),
                children: BTreeMap::new(),
                tokens: HashMap::new(),
                orders,
                logs,
                unclaimed: Unclaimed::default(),
                tasks: Tasks::default(),
                stopping: false,
                scratch: Vec::new(),
                child_gone: Rc::default(),
            })
        });
        shared.borrow().listen_to_storage(done);
        shared
    }

    pub(crate) fn send(&self, to: WorkerId, message: FromDaemon, fds: Vec<OwnedFd>) {
        if let Some(process) = self.processes.get(&to) {
            process.conn.send(message, fds);
        }
    }

    /// Runs something later on the event loop, with the state at hand.
    pub(crate) fn after(&self, pause: Duration, then: impl FnOnce(&mut Self) + 'static) {
        let me = self.me.clone();
        self.tasks.spawn(async move {
            tokio::time::sleep(pause).await;
            if let Some(daemon) = me.upgrade() {
                then(&mut daemon.borrow_mut());
            }
        });
    }

    pub(crate) fn perform(&mut self, actions: Vec<Action>) {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Spawn { env, count } => (0..count).for_each(|_| self.order_worker(env)),
                Action::BackOff { env, failures } => {
                    let doublings = failures.saturating_sub(1).min(16);
                    let pause = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
                    self.after(pause, move |daemon| {
                        let actions = daemon.schedule.resume_spawning(env);
                        daemon.perform(actions);
                    });
                }
                Action::Grant { client, request, lease, worker, pid } => {
                    actions.extend(self.grant(client, request, lease, worker, pid));
                }
                Action::Refuse { client, request, failure } => {
                    self.send(client, FromDaemon::LeaseRefused { request, failure }, Vec::new());
                }
                Action::Recall { client, lease } => self.send(client, FromDaemon::RecallLease { lease }, Vec::new()),
                Action::Break { client, lease, worker } => {
                    let failure = self.children.get(&worker).and_then(|child| child.failure.clone());
                    let failure = failure.unwrap_or_else(|| Failure::new("WORKER_CRASHED", "the worker is gone"));
                    self.send(client, FromDaemon::LeaseBroken { lease, worker, failure }, Vec::new());
                }
                Action::Reap { worker } => self.reap(worker),
            }
        }
    }

    /// Gives the worker to the client; what follows when that is not possible.
    fn grant(&mut self, client: WorkerId, request: u64, lease: u64, worker: WorkerId, pid: u32) -> Vec<Action> {
        match self.introduce(client, worker) {
            Ok(fds) => {
                self.assign(worker, client);
                let connect = fds.is_some();
                let granted = FromDaemon::LeaseGranted { request, lease, worker, pid, connect };
                self.send(client, granted, fds.unwrap_or_default());
                Vec::new()
            }
            Err(error) => {
                let failure = Failure::new("TRANSPORT", format!("cannot connect to worker pid={pid}: {error}"));
                self.send(client, FromDaemon::LeaseRefused { request, failure }, Vec::new());
                self.schedule.return_lease(client, lease)
            }
        }
    }

    /// A process ended, or its connection did: nothing that it asked for or held remains.
    pub(crate) fn process_gone(&mut self, id: WorkerId) {
        let Some(process) = self.processes.remove(&id) else { return };
        process.conn.finish();
        let actions = self.schedule.client_gone(id);
        self.perform(actions);
        for peer in process.peers {
            if let Some(other) = self.processes.get_mut(&peer) {
                other.peers.remove(&id);
            }
            self.send(peer, FromDaemon::PeerGone { peer: id }, Vec::new());
        }
        self.keeper_lost(id);
        self.forget_waiting(id);
        let work = self.store.leave(process.seat);
        self.when(work, |daemon, traces| {
            daemon.note(traces);
            daemon.room_was_made();
        });
    }

    pub(crate) fn drivers(&self) -> impl Iterator<Item = (WorkerId, &Process)> {
        self.processes
            .iter()
            .filter(|(_, process)| process.driver && !process.leaving)
            .map(|(id, process)| (*id, process))
    }
}
