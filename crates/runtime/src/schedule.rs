//! The daemon's scheduler: which worker is leased to whom.
//!
//! A pure state machine: the daemon tells it what happened, it answers with what to do. It knows the node's resources,
//! its worker processes, the leases, and the requests that wait for one.
//!
//! - **Order.** The next lease goes to the client that holds fewest, then to the oldest request. Tasks of a task come
//!   before further tasks of the driver that way, so that a tree of tasks is worked off depth first.
//! - **No starvation.** A request that cannot be met yet keeps what is free of its resources from later ones, except
//!   from the requests of running tasks (somebody may wait for those) and unless what it lacks is held by a worker that
//!   waits itself.
//! - **Environments.** A worker is leased only for the environment that it was started for. Starts that fail hold up their
//!   own environment alone; idle workers of others make room.
//! - **Waiting** workers lend their CPU at once and take it back at once; the node is oversubscribed meanwhile.
//!
//! ```
//! use heliostat_proto::{EnvId, WorkerId};
//! use heliostat_proto::message::Resources;
//! use heliostat_runtime::schedule::{Action, Schedule};
//!
//! let cpu = |count: f64| Resources::new([("CPU".to_owned(), count)]);
//! let (driver, worker) = (WorkerId([1; 16]), WorkerId([2; 16]));
//! let mut schedule = Schedule::new(&cpu(2.0));
//! let env = EnvId::default();
//! assert_eq!(schedule.request_lease(driver, 7, &cpu(1.0), env), [Action::Spawn { env, count: 1 }]);
//! let granted = schedule.worker_ready(worker, 4711, env);
//! assert_eq!(granted, [Action::Grant { client: driver, request: 7, lease: 1, worker, pid: 4711 }]);
//! ```
use std::collections::{BTreeMap, BTreeSet};

use heliostat_proto::message::{Resources, WorkerActivity};
use heliostat_proto::{EnvId, Failure, WorkerId};

use amounts::{Amounts, CPU, SLOT};
use pending::Pending;

mod amounts;
#[cfg(test)]
mod model;
mod pending;
mod settle;
#[cfg(test)]
mod tests;

/// Failed starts in a row after which requests are refused instead of tried again.
pub const START_FAILURES: u32 = 3;
/// The same for starts that somebody else ended, who may go on for a while without anything being wrong with the program.
pub const KILLED_STARTS: u32 = 20;

/// What the daemon has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start this many worker processes. Each is answered by [`Schedule::worker_ready`],
    /// [`Schedule::worker_spawn_failed`], [`Schedule::start_killed`] or [`Schedule::start_cancelled`].
    Spawn {
        /// The environment to start them for.
        env: EnvId,
        /// How many.
        count: usize,
    },
    /// Starts fail: call [`Schedule::resume_spawning`] after a pause that grows with the failures.
    BackOff {
        /// The environment.
        env: EnvId,
        /// Failed starts in a row.
        failures: u32,
    },
    /// Give the worker to the client.
    Grant {
        /// Who asked.
        client: WorkerId,
        /// The request.
        request: u64,
        /// Names the lease.
        lease: u64,
        /// The worker.
        worker: WorkerId,
        /// Its process id.
        pid: u32,
    },
    /// Tell the client that no worker will be given.
    Refuse {
        /// Who asked.
        client: WorkerId,
        /// The request.
        request: u64,
        /// Why.
        failure: Failure,
    },
    /// Ask the client to give the lease back when nothing runs on it.
    Recall {
        /// Who holds the lease.
        client: WorkerId,
        /// The lease.
        lease: u64,
    },
    /// Tell the client that its leased worker is gone.
    Break {
        /// Who held the lease.
        client: WorkerId,
        /// The lease.
        lease: u64,
        /// The worker.
        worker: WorkerId,
    },
    /// End the worker's process; [`Schedule::worker_gone`] follows.
    Reap {
        /// The worker.
        worker: WorkerId,
    },
}

/// The scheduler of one node.
#[derive(Debug)]
pub struct Schedule {
    total: Amounts,
    /// What leases hold; above `total` while workers that waited have their CPU back.
    used: Amounts,
    cap: usize,
    /// Workers that are kept ahead of need, and for which environment.
    floor: (usize, EnvId),
    /// Of the environments that have any.
    starts: BTreeMap<EnvId, Starts>,
    workers: BTreeMap<WorkerId, Worker>,
    leases: BTreeMap<u64, Lease>,
    held: BTreeMap<WorkerId, BTreeSet<u64>>,
    pending: Pending,
    last_lease: u64,
}

/// How starts for one environment go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Starts {
    /// Under way.
    starting: usize,
    /// Failed ones in a row.
    failures: u32,
    /// Starts since the last good one that somebody else ended.
    killed: u32,
    /// Set from a failed start until the daemon's pause is over.
    held_back: bool,
}

impl Starts {
    fn is_hopeless(self) -> bool {
        self.failures >= START_FAILURES || self.killed >= KILLED_STARTS
    }
}

#[derive(Debug)]
struct Worker {
    pid: u32,
    env: EnvId,
    activity: Activity,
    /// Who leased it last: it has that client's functions already.
    last: Option<WorkerId>,
    /// It ends as soon as it is not leased any more.
    retired: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Activity {
    Idle,
    Leased(u64),
    /// Its process was told to end.
    Ending,
}

#[derive(Debug)]
struct Lease {
    client: WorkerId,
    worker: WorkerId,
    amounts: Amounts,
    env: EnvId,
    waiting: bool,
    recalled: bool,
    /// What runs there is tried again when its worker ends.
    retriable: bool,
}

impl Lease {
    /// What the lease holds at this moment.
    fn held(&self) -> Amounts {
        if self.waiting { self.amounts.without(CPU) } else { self.amounts.clone() }
    }
}

impl Schedule {
    /// A node with these resources and no workers.
    pub fn new(total: &Resources) -> Self {
        let mut total = Amounts::from_resources(total);
        let cap = 4 * total.get(CPU).div_ceil(1000).min(1 << 20) + 8;
        total.set(SLOT, cap);
        Self {
            total,
            used: Amounts::default(),
            cap: cap as usize,
            floor: (0, EnvId::default()),
            starts: BTreeMap::new(),
            workers: BTreeMap::new(),
            leases: BTreeMap::new(),
            held: BTreeMap::new(),
            pending: Pending::default(),
            last_lease: 0,
        }
    }

    /// Keeps at least this many workers from now on, ahead of need; those that are missing are started for `env`.
    pub fn prestart(&mut self, count: usize, env: EnvId) -> Vec<Action> {
        self.floor = (count, env);
        self.settle()
    }

    /// A process that was to be started is connected.
    pub fn worker_ready(&mut self, worker: WorkerId, pid: u32, env: EnvId) -> Vec<Action> {
        self.change_starts(env, |starts| {
            *starts = Starts { starting: starts.starting.saturating_sub(1), ..Starts::default() };
        });
        self.workers.entry(worker).or_insert(Worker { pid, env, activity: Activity::Idle, last: None, retired: false });
        self.settle()
    }

    /// A process could not be started, or ended by itself before it connected. `failure` is what requests are refused
    /// with when this goes on.
    pub fn worker_spawn_failed(&mut self, env: EnvId, failure: &Failure) -> Vec<Action> {
        self.change_starts(env, |starts| starts.failures = starts.failures.saturating_add(1));
        self.start_failed(env, failure)
    }

    /// Somebody outside ended a process before it connected: no reason to refuse anything, unless it goes on for long.
    pub fn start_killed(&mut self, env: EnvId, failure: &Failure) -> Vec<Action> {
        self.change_starts(env, |starts| starts.killed = starts.killed.saturating_add(1));
        self.start_failed(env, failure)
    }

    fn start_failed(&mut self, env: EnvId, failure: &Failure) -> Vec<Action> {
        self.change_starts(env, |starts| {
            starts.starting = starts.starting.saturating_sub(1);
            starts.held_back = true;
        });
        let starts = self.starts_of(env);
        let mut actions = vec![Action::BackOff { env, failures: starts.failures.saturating_add(starts.killed) }];
        // While some worker still makes progress, the requests can be met by it later.
        let progress = self.workers.values().filter(|worker| worker.env == env).any(|worker| match worker.activity {
            Activity::Idle => true,
            Activity::Leased(lease) => !self.leases[&lease].waiting,
            Activity::Ending => false,
        });
        if starts.is_hopeless() && !progress {
            actions.extend(self.pending.take_all(env).into_iter().map(|(client, request)| Action::Refuse {
                client,
                request,
                failure: failure.clone(),
            }));
        }
        actions.extend(self.settle());
        actions
    }

    fn starts_of(&self, env: EnvId) -> Starts {
        self.starts.get(&env).copied().unwrap_or_default()
    }

    fn change_starts(&mut self, env: EnvId, change: impl FnOnce(&mut Starts)) {
        let starts = self.starts.entry(env).or_default();
        change(starts);
        if *starts == Starts::default() {
            self.starts.remove(&env);
        }
    }

    /// Processes that are being started.
    fn starting(&self) -> usize {
        self.starts.values().map(|starts| starts.starting).sum()
    }

    /// A process that was being started was ended on purpose before it connected.
    pub fn start_cancelled(&mut self, env: EnvId) -> Vec<Action> {
        self.change_starts(env, |starts| starts.starting = starts.starting.saturating_sub(1));
        self.settle()
    }

    /// The pause after a failed start is over.
    pub fn resume_spawning(&mut self, env: EnvId) -> Vec<Action> {
        self.change_starts(env, |starts| starts.held_back = false);
        self.settle()
    }

    /// A worker's process ended.
    pub fn worker_gone(&mut self, worker: WorkerId) -> Vec<Action> {
        let mut actions = Vec::new();
        match self.workers.remove(&worker).map(|worker| worker.activity) {
            Some(Activity::Leased(id)) => {
                let lease = self.end_lease(id);
                actions.push(Action::Break { client: lease.client, lease: id, worker });
            }
            Some(Activity::Ending) => self.used.take(&Amounts::slot()),
            Some(Activity::Idle) | None => {}
        }
        actions.extend(self.settle());
        actions
    }

    /// A client wants a worker. A request that is pending already is not counted twice.
    pub fn request_lease(&mut self, client: WorkerId, request: u64, resources: &Resources, env: EnvId) -> Vec<Action> {
        let amounts = Amounts::from_resources(resources);
        if let Some(failure) = self.unschedulable(&amounts) {
            return vec![Action::Refuse { client, request, failure }];
        }
        self.pending.push(client, request, (amounts.with_slot(), env));
        self.settle()
    }

    /// A client does not want a worker any more. Nothing happens when the request was answered already.
    pub fn cancel_lease(&mut self, client: WorkerId, request: u64) -> Vec<Action> {
        self.pending.remove(client, request);
        self.settle()
    }

    /// A client gives a lease back. Nothing happens when it does not hold it.
    pub fn return_lease(&mut self, client: WorkerId, lease: u64) -> Vec<Action> {
        if self.leases.get(&lease).is_none_or(|held| held.client != client) {
            return Vec::new();
        }
        let id = self.end_lease(lease).worker;
        let mut actions = Vec::new();
        match self.workers.get_mut(&id) {
            Some(worker) if worker.retired => actions.extend(self.end_worker(id)),
            Some(worker) => worker.activity = Activity::Idle,
            None => {}
        }
        actions.extend(self.settle());
        actions
    }

    /// A client says whether what runs on its lease is tried again when the worker ends.
    pub fn lease_retriable(&mut self, client: WorkerId, lease: u64, retriable: bool) {
        if let Some(held) = self.leases.get_mut(&lease).filter(|held| held.client == client) {
            held.retriable = retriable;
        }
    }

    /// The lease of a worker, and whether what runs there is tried again when it ends; `None` when it is idle.
    pub fn lease_of(&self, worker: WorkerId) -> Option<(u64, bool)> {
        match self.workers.get(&worker)?.activity {
            Activity::Leased(lease) => Some((lease, self.leases[&lease].retriable)),
            Activity::Idle | Activity::Ending => None,
        }
    }

    /// A worker's task began or ended to wait for objects.
    pub fn worker_waiting(&mut self, worker: WorkerId, waiting: bool) -> Vec<Action> {
        let Some(Worker { activity: Activity::Leased(id), .. }) = self.workers.get(&worker) else { return Vec::new() };
        let Some(lease) = self.leases.get_mut(id).filter(|lease| lease.waiting != waiting) else { return Vec::new() };
        lease.waiting = waiting;
        let cpu = lease.amounts.only(CPU);
        if waiting {
            self.used.take(&cpu);
        } else {
            self.used.put(&cpu);
        }
        self.settle()
    }

    /// A client's process ended or its connection closed: nobody waits for its requests, and whatever runs on its
    /// leases ends with their workers.
    pub fn client_gone(&mut self, client: WorkerId) -> Vec<Action> {
        self.pending.remove_client(client);
        let mut actions = Vec::new();
        for id in self.held.remove(&client).unwrap_or_default() {
            let worker = self.end_lease(id).worker;
            actions.extend(self.end_worker(worker));
        }
        actions.extend(self.settle());
        actions
    }

    /// A worker shall not be leased any more: it ends now, or when its lease does.
    pub fn retire(&mut self, id: WorkerId) -> Vec<Action> {
        let mut actions = Vec::new();
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.retired = true;
            if worker.activity == Activity::Idle {
                actions.extend(self.end_worker(id));
            }
        }
        actions.extend(self.settle());
        actions
    }

    /// What the node has.
    pub fn total(&self) -> Resources {
        self.total.to_resources()
    }

    /// What is free of it.
    pub fn available(&self) -> Resources {
        self.total.less(&self.used).to_resources()
    }

    /// The connected workers that were not told to end.
    pub fn workers(&self) -> impl Iterator<Item = (WorkerId, u32, WorkerActivity)> {
        self.workers.iter().filter_map(|(id, worker)| {
            let activity = match worker.activity {
                Activity::Idle => WorkerActivity::Idle,
                Activity::Leased(_) => WorkerActivity::Busy,
                Activity::Ending => return None,
            };
            Some((*id, worker.pid, activity))
        })
    }

    /// Who leases the worker.
    pub fn holder(&self, worker: WorkerId) -> Option<WorkerId> {
        match self.workers.get(&worker)?.activity {
            Activity::Leased(lease) => Some(self.leases[&lease].client),
            Activity::Idle | Activity::Ending => None,
        }
    }

    /// Takes a lease and what it holds out of the books; what becomes of its worker is the caller's.
    fn end_lease(&mut self, id: u64) -> Lease {
        let lease = self.leases.remove(&id).expect("workers and clients name only leases that exist");
        self.used.take(&lease.held());
        if let Some(held) = self.held.get_mut(&lease.client) {
            held.remove(&id);
            if held.is_empty() {
                self.held.remove(&lease.client);
            }
        }
        lease
    }

    /// An ending process keeps its slot until it is gone, so that there are never more processes than the cap.
    fn end_worker(&mut self, worker: WorkerId) -> Option<Action> {
        self.workers.get_mut(&worker)?.activity = Activity::Ending;
        self.used.put(&Amounts::slot());
        Some(Action::Reap { worker })
    }

    fn unschedulable(&self, amounts: &Amounts) -> Option<Failure> {
        let (name, asked) = amounts.iter().find(|(name, asked)| self.total.get(name) < *asked)?;
        let (asked, has) = (amounts::decimal(asked), amounts::decimal(self.total.get(name)));
        let shown: String = name.chars().filter(|c| !c.is_control()).take(80).collect();
        let message = format!("no worker can have {asked} {shown}: the node has {has} {shown} in all");
        Some(Failure::new("UNSCHEDULABLE", message).hint("Ask for less, or give the node more when it starts."))
    }
}
