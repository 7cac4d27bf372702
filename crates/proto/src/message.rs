//! What processes of one cluster say to each other. One set of messages serves the embedded node and a cluster.

use serde::{Deserialize, Serialize};

use crate::value::{Blob, Failure, RefEntry, Value};
use crate::{EnvId, EnvSpec, JobId, NodeId, ObjectId, TaskId, WorkerId};

/// Version of these messages; processes of different versions refuse each other.
pub const PROTOCOL_VERSION: u32 = 6;

/// What a process is in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// A user's program.
    Driver,
    /// A process that the daemon started to run tasks; the token it was given proves it.
    Worker {
        /// Given to the process at its start, once.
        token: u128,
    },
}

/// Amounts of named resources; `CPU`, `GPU`, `memory` and custom names. Kept sorted by name, in thousandths, so that
/// fractions add up exactly and equal requests compare equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Resources(Vec<(String, u64)>);

impl Resources {
    /// Amounts below this count as nothing.
    pub const UNIT: f64 = 0.001;

    /// From amounts by name; zero amounts are left out.
    pub fn new(amounts: impl IntoIterator<Item = (String, f64)>) -> Self {
        let mut list: Vec<(String, u64)> = amounts
            .into_iter()
            .map(|(name, amount)| (name, (amount / Self::UNIT).round().max(0.0) as u64))
            .filter(|(_, amount)| *amount > 0)
            .collect();
        list.sort();
        Self(list)
    }

    /// Amount of one resource in thousandths.
    pub fn amount(&self, name: &str) -> u64 {
        self.0.iter().find(|(n, _)| n == name).map_or(0, |(_, amount)| *amount)
    }

    /// Names and amounts in thousandths, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    /// Whether all of `request` is here.
    pub fn covers(&self, request: &Self) -> bool {
        request.iter().all(|(name, amount)| self.amount(name) >= amount)
    }

    /// Takes `request` away; the caller has checked [`Self::covers`], or means to be oversubscribed and keeps the debt.
    pub fn subtract(&mut self, request: &Self) {
        for (name, amount) in request.iter() {
            if let Some((_, have)) = self.0.iter_mut().find(|(n, _)| n == name) {
                *have = have.saturating_sub(amount);
            }
        }
    }

    /// Gives `request` back.
    pub fn add(&mut self, request: &Self) {
        for (name, amount) in request.iter() {
            match self.0.iter_mut().find(|(n, _)| n == name) {
                Some((_, have)) => *have += amount,
                None => self.0.push((name.to_owned(), amount)),
            }
        }
        self.0.sort();
    }
}

/// Longest part of an object that one message brings, in bytes.
pub const PART_MAX: u64 = 4 << 20;

/// How long a request for memory waits for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Patience {
    /// Milliseconds; 0 to be refused at once.
    pub millis: u32,
    /// Names a place in the line, which the asker keeps over several requests, one after the other; 0 for none.
    pub ticket: u64,
    /// Nobody asks again after this: a refusal names those who hold the memory.
    pub last: bool,
    /// Only while objects are being spilled, or can be: there are other ways to make room.
    pub spilling: bool,
}

/// From a process to its node's daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToDaemon {
    /// First message on a connection.
    Hello {
        /// [`PROTOCOL_VERSION`] of the sender.
        version: u32,
        /// What the sender is.
        role: Role,
    },
    /// Asks for a worker with these resources; answered by [`FromDaemon::LeaseGranted`] or [`FromDaemon::LeaseRefused`].
    RequestLease {
        /// Named by the asker, unique in its connection.
        request: u64,
        /// What the tasks take while they run.
        resources: Resources,
        /// The environment that they need, made known by [`Self::DefineEnv`] unless it is the node's own.
        env: EnvId,
    },
    /// Makes a runtime environment known. Its package, if it has one, is among those of the session's directory.
    DefineEnv {
        /// Names it.
        env: EnvId,
        /// What it is.
        spec: EnvSpec,
    },
    /// Workers that are started ahead of need are started for this environment.
    StartAhead {
        /// The environment of the driver's tasks.
        env: EnvId,
    },
    /// The request is no longer wanted. A grant that crosses it is given back by [`Self::ReturnLease`].
    CancelLease {
        /// The request.
        request: u64,
    },
    /// The worker is free for others.
    ReturnLease {
        /// The lease.
        lease: u64,
    },
    /// A range of the store to write in; the body is the store's own `LeaseRequest`.
    StoreLease {
        /// Named by the asker.
        request: u64,
        /// Encoded by the store crate's types.
        body: Vec<u8>,
        /// What to do when there is no room.
        patience: Patience,
    },
    /// Needs these objects in memory, all at once: answered by [`FromDaemon::Restored`] when they are. They stay there
    /// until [`Self::RestoreEnd`].
    Restore {
        /// Named by the asker.
        request: u64,
        /// The objects.
        locators: Vec<crate::Locator>,
    },
    /// The objects of an answered request are pinned, or not needed any more.
    RestoreEnd {
        /// The request.
        request: u64,
    },
    /// Answers [`FromDaemon::Sites`].
    Sites {
        /// The request this answers.
        request: u64,
        /// Where the program made what it holds in the store, those with most bytes first, as texts for people.
        sites: Vec<String>,
    },
    /// Asks for some bytes of an object without bringing it back; answered by [`FromDaemon::Part`].
    ReadPart {
        /// Named by the asker.
        request: u64,
        /// The object.
        locator: crate::Locator,
        /// First byte.
        start: u64,
        /// Number of bytes, at most [`PART_MAX`].
        length: u64,
    },
    /// Asks where a spilled object is kept; answered by [`FromDaemon::Place`].
    Locate {
        /// Named by the asker.
        request: u64,
        /// The object.
        locator: crate::Locator,
    },
    /// Objects that nobody refers to any more.
    StoreFree {
        /// Their places.
        locators: Vec<crate::Locator>,
    },
    /// Asks for a link to another process.
    Connect {
        /// Named by the asker.
        request: u64,
        /// The other process.
        peer: WorkerId,
    },
    /// The worker's task began or ended to wait for objects: its CPU may be lent to another worker meanwhile.
    Waiting(bool),
    /// The task that runs at a worker which the sender leases is to end now, and its process with it: answered by
    /// [`FromDaemon::LeaseBroken`]. Nothing happens when the sender does not lease it.
    Kill {
        /// The worker.
        worker: WorkerId,
    },
    /// Gives an object to the cluster under a name: from here on its owner is [`Welcome::keeper`]. Answered by
    /// [`FromDaemon::Named`].
    PutNamed {
        /// Named by the asker.
        request: u64,
        /// The name, in the namespace of the asker's driver.
        name: String,
        /// Milliseconds after which the name goes; `None`: never.
        ttl: Option<u64>,
        /// The object.
        id: ObjectId,
        /// Its value.
        blob: Blob,
        /// The references inside.
        refs: Vec<RefEntry>,
    },
    /// Asks for a reference to the object of a name. Answered by [`FromDaemon::Named`].
    FindNamed {
        /// Named by the asker.
        request: u64,
        /// The name, in the namespace of the asker's driver.
        name: String,
    },
    /// The namespace of the driver and its job, instead of `default`.
    Namespace {
        /// The namespace.
        name: String,
    },
    /// To the keeper of the cluster's objects, as to any other owner.
    ToKeeper(ToPeer),
    /// Whether the tasks that run on the lease are tried again when their worker ends; they are until this is said.
    LeaseRetriable {
        /// The lease.
        lease: u64,
        /// Whether all of them are.
        retriable: bool,
    },
    /// Other processes hold references to objects that the worker owns, or none does any more.
    Lends(bool),
    /// The driver has written so many more bytes of its workers' lines where they belong.
    Printed {
        /// Bytes of [`FromDaemon::Output`].
        bytes: u64,
    },
    /// Asks for the state of the node.
    State {
        /// Named by the asker.
        request: u64,
    },
    /// The driver leaves: its workers' work ends, the answer is [`FromDaemon::Goodbye`] after all their output was sent.
    Leave,
}

/// From the daemon to a process of its node. Some carry descriptors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromDaemon {
    /// The connection is accepted. Descriptors: those of the seat in the store, then those of the process's bell.
    Welcome(Box<Welcome>),
    /// The connection is refused and closed.
    Refused(Failure),
    /// A worker for the asker. Descriptors: the near side of a link to the worker, when `connect` says so.
    LeaseGranted {
        /// The request this answers.
        request: u64,
        /// Names the lease.
        lease: u64,
        /// The worker.
        worker: WorkerId,
        /// Its process id.
        pid: u32,
        /// Whether descriptors come along; else the two are linked already.
        connect: bool,
    },
    /// No worker will ever be given for this request.
    LeaseRefused {
        /// The request this answers.
        request: u64,
        /// Why.
        failure: Failure,
    },
    /// Somebody else waits for a worker: give the lease back when nothing runs on it.
    RecallLease {
        /// The lease.
        lease: u64,
    },
    /// The leased worker is gone, with the facts of its end.
    LeaseBroken {
        /// The lease.
        lease: u64,
        /// The worker.
        worker: WorkerId,
        /// `WORKER_CRASHED` with exit code or signal, and its last lines of stderr; or `OUT_OF_MEMORY` with the figures.
        failure: Failure,
    },
    /// Answers [`ToDaemon::StoreLease`].
    StoreLeased {
        /// The request this answers.
        request: u64,
        /// The store crate's `Result<LeaseGrant, LeaseError>`, encoded.
        body: Vec<u8>,
    },
    /// Answers [`ToDaemon::Restore`]: the objects are in memory, but for those that failed.
    Restored {
        /// The request this answers.
        request: u64,
        /// Position and failure of each object that can't be brought back.
        failures: Vec<(u32, Failure)>,
    },
    /// Somebody is refused memory: asks where the program made what it holds in the store; answered by
    /// [`ToDaemon::Sites`].
    Sites {
        /// Named by the daemon.
        request: u64,
    },
    /// Answers [`ToDaemon::ReadPart`].
    Part {
        /// The request this answers.
        request: u64,
        /// The bytes; `None` when the object is in memory by now.
        bytes: Result<Option<crate::Bytes>, Failure>,
    },
    /// Answers [`ToDaemon::Locate`].
    Place {
        /// The request this answers.
        request: u64,
        /// Where a spilled object is kept; `None` when it is in memory.
        uri: Option<String>,
    },
    /// The store is full and others wait: let go of what only garbage holds.
    Collect,
    /// Answers [`ToDaemon::Connect`]. Descriptors: the near side of the link, when `connect` says so.
    Connected {
        /// The request this answers.
        request: u64,
        /// The other process.
        peer: WorkerId,
        /// Whether it lives.
        ok: bool,
        /// Whether descriptors come along; else the two are linked already, or `ok` is false.
        connect: bool,
    },
    /// Another process wants to talk. Descriptors: the far side of the link.
    Peer {
        /// The other process.
        peer: WorkerId,
    },
    /// A process of the node ended; what it sent before is still in its links.
    PeerGone {
        /// The process.
        peer: WorkerId,
    },
    /// Whole lines (or a piece of an over-long one) that a worker of this driver's job wrote.
    Output {
        /// 1 for standard output, 2 for standard error.
        stream: u8,
        /// What ran in the worker when it wrote.
        name: String,
        /// The worker's process id.
        pid: u32,
        /// The bytes, ending in a line feed.
        lines: crate::Bytes,
    },
    /// Answers [`ToDaemon::PutNamed`] and [`ToDaemon::FindNamed`].
    Named {
        /// The request this answers.
        request: u64,
        /// The reference, lent to the asker.
        result: Result<RefEntry, Failure>,
    },
    /// From the keeper of the cluster's objects, as from any other process.
    OfKeeper(ToPeer),
    /// Answers [`ToDaemon::State`].
    State {
        /// The request this answers.
        request: u64,
        /// The state.
        state: Box<NodeState>,
    },
    /// Answers [`ToDaemon::Leave`].
    Goodbye,
}

/// What a process learns when it joins a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// The id of the process.
    pub worker: WorkerId,
    /// The owner of the objects that belong to the cluster; it is reached through the daemon's connection.
    pub keeper: WorkerId,
    /// The node.
    pub node: NodeId,
    /// The driver's job; a worker gets it with each task.
    pub job: JobId,
    /// The life of this process as an owner.
    pub epoch: u64,
    /// Values up to this many serialised bytes stay out of the store.
    pub inline_limit: u64,
    /// Milliseconds that a put waits for room in a full store.
    pub put_timeout: u64,
    /// The store crate's seat, encoded; its descriptors come with the message.
    pub seat: Vec<u8>,
    /// Where packages of directories are, as a path of this machine.
    pub packages: String,
    /// The environment that the process was started for, if it is a worker.
    pub env: EnvSpec,
}

/// The state of a node.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct NodeState {
    /// The node.
    pub node: NodeId,
    /// What it has.
    pub total: Resources,
    /// What is free of it.
    pub available: Resources,
    /// Labels given at start.
    pub labels: Vec<(String, String)>,
    /// Bytes of the store.
    pub capacity: u64,
    /// Bytes of live objects and open drafts.
    pub used: u64,
    /// Bytes of objects that are spilled now.
    pub spilled: u64,
    /// How many objects those are.
    pub spilled_objects: u64,
    /// Bytes of objects that lie in the store's file, since the memory can't take them.
    pub in_file: u64,
    /// What was spilled and restored so far.
    pub spilling: SpillingState,
    /// Live objects in the store.
    pub objects: u64,
    /// Pins of live processes.
    pub pins: u64,
    /// Unsealed objects.
    pub drafts: u64,
    /// Bytes that processes copied into the store since it began.
    pub copied: u64,
    /// The workers.
    pub workers: Vec<WorkerInfo>,
}

/// What a node spilled and restored since its start.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct SpillingState {
    /// Bytes written.
    pub spilled_bytes: u64,
    /// Objects written.
    pub spilled_objects: u64,
    /// Bytes read back.
    pub restored_bytes: u64,
    /// Objects read back.
    pub restored_objects: u64,
    /// Bytes per second while something was being written.
    pub spill_throughput: f64,
    /// Bytes per second while something was being read back.
    pub restore_throughput: f64,
    /// Requests for memory that wait for room.
    pub waiting: u64,
}

/// A worker process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// Its id.
    pub worker: WorkerId,
    /// Its process id.
    pub pid: u32,
    /// What it does.
    pub activity: WorkerActivity,
}

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkerActivity {
    /// The process has not connected yet.
    Starting,
    /// It waits for work.
    Idle,
    /// It is leased.
    Busy,
}

/// A function's identity: the hash of its text and what it captured.
pub type FunctionHash = [u8; 32];

/// How a run gives items instead of values, to the process that takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamSpec {
    /// How many items it may make until [`ToPeer::Credit`] allows more.
    pub limit: u64,
    /// Items of an earlier run that are there: these are made again and compared, not sent.
    pub known: u64,
    /// Whether items may come to be compared, so that their digests are wanted.
    pub digests: bool,
}

/// One item of a stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// The item.
    pub blob: Blob,
    /// What its content comes to, see [`crate::digest`].
    pub digest: u64,
}

/// A task as it goes to the process that runs it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// The task.
    pub task: TaskId,
    /// Runs before this one.
    pub attempt: u32,
    /// The job it belongs to.
    pub job: JobId,
    /// For messages and output.
    pub name: String,
    /// The function; its text went ahead by [`ToPeer::Define`].
    pub function: FunctionHash,
    /// The arguments: an array in which those passed by reference are left out.
    pub args: Blob,
    /// Position and value of each argument that was passed by reference.
    pub by_ref: Vec<(u32, Blob)>,
    /// Position and id of each that a task makes which the same process sent to the same worker before.
    pub follows: Vec<(u32, ObjectId)>,
    /// How many results the function's array is split into; `None` for the value itself.
    pub returns: Option<u32>,
    /// Whether it gives items; its one result then says that it ended.
    pub stream: Option<StreamSpec>,
    /// The caller's seat in the store: results that are stored belong to it, whatever becomes of the worker.
    pub seat: u32,
    /// Whether its running time is bounded: the worker tells when it begins.
    pub timed: bool,
    /// Whether the caller wants to try again after an error: of the classes that came with the function, or after any
    /// when none came.
    pub retries_errors: bool,
}

/// Between two processes that are linked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToPeer {
    /// The function with this hash, once per link.
    Define {
        /// The hash.
        function: FunctionHash,
        /// The function, serialised.
        blob: Blob,
    },
    /// The function with this hash will not be run any more.
    Forget {
        /// The hash.
        function: FunctionHash,
    },
    /// Run this.
    Run(Box<TaskSpec>),
    /// A task ended.
    Done {
        /// The task.
        task: TaskId,
        /// Its run.
        attempt: u32,
        /// One value for each reference of the task.
        values: Vec<Value>,
        /// Nanoseconds that the function ran.
        nanos: u64,
        /// It threw an error after which its caller wants to try again.
        again: bool,
    },
    /// A task whose running time is bounded begins.
    Began {
        /// The task.
        task: TaskId,
        /// Its run.
        attempt: u32,
    },
    /// This run does not count any more. When it has not begun it comes back by [`Self::Paused`]; when it runs, its code
    /// is told, which is answered by [`Self::Aborting`]; when it ended, nothing happens.
    Abort {
        /// The task.
        task: TaskId,
        /// Its run.
        attempt: u32,
        /// Whether it ran too long; else it was cancelled.
        late: bool,
        /// Whether the tasks that it submitted are cancelled too.
        recursive: bool,
    },
    /// The run is under way and its code was told. Nothing else begins at the sender before its end.
    Aborting {
        /// The task.
        task: TaskId,
        /// Its run.
        attempt: u32,
        /// Tasks and their runs that had not begun there, to run elsewhere.
        returned: Vec<(TaskId, u32)>,
    },
    /// The code of an aborted run goes on, though it had time to end: its process is to end.
    Overdue {
        /// The task.
        task: TaskId,
        /// Its run.
        attempt: u32,
    },
    /// Cancels the task that makes this object of the receiver.
    Cancel {
        /// The object.
        object: ObjectId,
        /// Whether its worker is killed when it runs.
        force: bool,
        /// Whether the tasks that it submitted are cancelled too.
        recursive: bool,
    },
    /// Deletes the data of an object of the receiver, whoever still refers to it.
    Free {
        /// The object.
        object: ObjectId,
    },
    /// Items of a run, in their order.
    Items {
        /// The task.
        task: TaskId,
        /// Its run.
        attempt: u32,
        /// What all items that were known before come to in this run, once they were made again.
        replayed: Option<u64>,
        /// Those that are new.
        items: Vec<Item>,
    },
    /// A run may make more items.
    Credit {
        /// The task.
        task: TaskId,
        /// Its run.
        attempt: u32,
        /// How many it may make in all.
        limit: u64,
    },
    /// The references inside the results of this task are registered with their owners.
    Taken {
        /// The task.
        task: TaskId,
        /// Its run.
        attempt: u32,
        /// Those inside the item with this index alone; `None`: all of the run.
        item: Option<u32>,
    },
    /// The sender holds references to these objects of the receiver; answered by [`Self::Borrowed`].
    Borrow {
        /// The objects.
        objects: Vec<ObjectId>,
    },
    /// Answers one [`Self::Borrow`].
    Borrowed,
    /// The sender holds no reference to these objects any more.
    Unborrow {
        /// The objects.
        objects: Vec<ObjectId>,
    },
    /// The task that runs in the sender waits for objects or takes long, or goes on. While it does so nothing else begins
    /// there: what had been sent ahead comes back, to run elsewhere.
    Paused {
        /// Whether it waits.
        waiting: bool,
        /// Tasks and their runs that had not begun.
        returned: Vec<(TaskId, u32)>,
    },
    /// Asks the owner for an object's value, as soon as there is one.
    Fetch {
        /// The object.
        object: ObjectId,
    },
    /// Answers [`Self::Fetch`].
    Fetched {
        /// The object.
        object: ObjectId,
        /// Its value.
        value: Value,
    },
}
