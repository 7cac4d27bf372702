//! Tasks that this process submitted: waiting for arguments, queued for a worker, running, retried.
//!
//! Leases after Ray (Wang et al., NSDI'21): a worker is leased once and kept while tasks of the same shape come.

use std::collections::{BTreeSet, HashMap, VecDeque};

use heliostat_proto::message::{FunctionHash, Resources, TaskSpec, ToDaemon, ToPeer};
use heliostat_proto::{Blob, Failure, TaskId, Value, WorkerId};

use crate::action::{Action, ExecutionId, Handle};
use crate::core::{Core, Function, Look, NoValues, Values, refs_in};
use crate::objects::Count;
use crate::pressure::{self, OUT_OF_MEMORY};
use crate::slab::Slab;

/// Lease requests of one shape that are open at a time; the daemon caps workers far below.
const MAX_REQUESTS: usize = 64;
/// Work that is sent ahead to a worker, so that it never waits for the next message.
const AHEAD_NANOS: u64 = 1_000_000;
/// Nothing more is sent behind a task that has run for longer than this, whatever tasks like it took: its worker may be
/// stopped, or busy for ever.
pub(crate) const STALLED_MS: u64 = 10;
/// Most tasks in flight to one worker.
const MAX_AHEAD: usize = 512;
/// An idle lease is given back after this many milliseconds.
const IDLE_MS: u64 = 25;
/// First back-off of a retry in milliseconds; doubled each time up to the last.
const BACKOFF_MS: (u64, u64) = (20, 5_000);
/// The same after a worker ended for want of memory, which others need time to give back.
const MEMORY_BACKOFF_MS: (u64, u64) = (500, 30_000);

/// A task to submit.
#[derive(Debug, Clone)]
pub struct Submission {
    /// For messages and output.
    pub name: String,
    /// The function, made known by [`Core::define`].
    pub function: FunctionHash,
    /// The arguments that go by value: an array with gaps.
    pub args: Blob,
    /// References inside the arguments.
    pub contains: Vec<Handle>,
    /// Position and reference of each argument that goes by reference.
    pub by_ref: Vec<(u32, Handle)>,
    /// `None`: one reference for the value; else the result is an array of this length.
    pub returns: Option<u32>,
    /// What it takes while it runs.
    pub resources: Resources,
    /// Runs after a crash of its worker; negative for no bound.
    pub max_retries: i64,
    /// The task that submits it.
    pub parent: Option<ExecutionId>,
}

/// The end of a task, as its worker tells it.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) task: TaskId,
    pub(crate) attempt: u32,
    pub(crate) values: Vec<Value>,
    pub(crate) nanos: u64,
}

/// Tasks and leases.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    table: Slab<Task>,
    shapes: Vec<Shape>,
    by_resources: HashMap<Resources, usize>,
    leases: HashMap<u64, Lease>,
    requests: HashMap<u64, usize>,
    next_request: u64,
    /// The latest time that was told.
    now: u64,
    /// (due, task) of retries that back off.
    delayed: BTreeSet<(u64, u32)>,
}

#[derive(Debug)]
struct Task {
    spec: TaskSpec,
    by_ref: Vec<(u32, Handle)>,
    /// Arguments without a value.
    missing: usize,
    returns: Vec<Handle>,
    contains: Vec<Handle>,
    retries_left: i64,
    crashes: u32,
    shape: usize,
}

/// Tasks that ask for the same resources share leases.
#[derive(Debug)]
struct Shape {
    resources: Resources,
    queue: VecDeque<u32>,
    leases: Vec<u64>,
    requests: Vec<u64>,
    /// Moving average of a run; `None` until the first ended.
    nanos: Option<u64>,
}

#[derive(Debug)]
struct Lease {
    worker: WorkerId,
    shape: usize,
    in_flight: VecDeque<u32>,
    recalled: bool,
    /// The task that runs there waits for objects: nothing else begins there.
    paused: bool,
    /// What the daemon knows of the tasks there.
    retriable: bool,
    /// When the first in flight became that.
    since: u64,
    idle_since: u64,
}

impl Shape {
    fn depth(&self) -> usize {
        self.nanos.map_or(1, |nanos| (AHEAD_NANOS / nanos.max(1)).clamp(1, MAX_AHEAD as u64) as usize)
    }
}

impl Tasks {
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn lease_count(&self) -> usize {
        self.leases.len()
    }

    fn shape(&mut self, resources: &Resources) -> usize {
        if let Some(shape) = self.by_resources.get(resources) {
            return *shape;
        }
        self.shapes.push(Shape {
            resources: resources.clone(),
            queue: VecDeque::new(),
            leases: Vec::new(),
            requests: Vec::new(),
            nanos: None,
        });
        self.by_resources.insert(resources.clone(), self.shapes.len() - 1);
        self.shapes.len() - 1
    }
}

impl Core {
    /// Makes a function known under its hash, held once by the program; what it captured stays as long as it.
    pub fn define(&mut self, function: FunctionHash, blob: Blob, contains: &[Handle]) {
        if self.use_function(&function) {
            return self.discard(&[Value::Ready(blob)]);
        }
        for handle in contains {
            self.objects.add(*handle, Count::Held);
        }
        self.functions.insert(function, Function { blob, contains: contains.to_vec(), users: 1, tasks: 0 });
    }

    /// Holds a function once more; false when none is known under this hash.
    pub fn use_function(&mut self, function: &FunctionHash) -> bool {
        self.functions.get_mut(function).map(|known| known.users += 1).is_some()
    }

    /// The program holds a function once less. When nobody does, and no task runs it, it goes everywhere.
    pub fn drop_function(&mut self, function: &FunctionHash) {
        if let Some(known) = self.functions.get_mut(function) {
            known.users = known.users.saturating_sub(1);
        }
        self.forget_unused(function);
    }

    fn forget_unused(&mut self, function: &FunctionHash) {
        if !self.functions.get(function).is_some_and(|known| known.users == 0 && known.tasks == 0) {
            return;
        }
        let Some(known) = self.functions.remove(function) else { return };
        self.discard(&[Value::Ready(known.blob)]);
        for handle in known.contains {
            self.drop_count(handle, Count::Held);
        }
        let holders: Vec<WorkerId> =
            self.defined.iter_mut().filter_map(|(peer, known)| known.remove(function).then_some(*peer)).collect();
        for peer in holders {
            self.send(peer, ToPeer::Forget { function: *function });
        }
    }

    /// Submits a task; the references of its results can be used at once.
    pub fn submit(&mut self, submission: Submission, now: u64, look: &dyn Values) -> Vec<Handle> {
        let id = self.child_of(submission.parent);
        let returns: Vec<Handle> = match submission.returns {
            None => vec![1],
            Some(count) => (1..=count).collect(),
        };
        let returns: Vec<Handle> = returns
            .into_iter()
            .map(|index| {
                let handle = self.objects.create(id.object(index), None, Count::Local);
                // Counted by the task until it ended, so that a result that nobody wants any more is taken and freed.
                self.objects.add(handle, Count::Held);
                handle
            })
            .collect();
        for handle in submission.contains.iter().chain(submission.by_ref.iter().map(|(_, handle)| handle)) {
            self.objects.add(*handle, Count::Held);
        }
        if let Some(known) = self.functions.get_mut(&submission.function) {
            known.tasks += 1;
        }
        let shape = self.tasks.shape(&submission.resources);
        let spec = TaskSpec {
            task: id,
            attempt: 0,
            job: self.me.job,
            name: submission.name,
            function: submission.function,
            args: submission.args,
            by_ref: Vec::new(),
            returns: submission.returns,
            seat: self.me.seat,
        };
        let by_ref = submission.by_ref;
        let task = self.tasks.table.insert(Task {
            spec,
            by_ref: by_ref.clone(),
            missing: 0,
            returns: returns.clone(),
            contains: submission.contains,
            retries_left: submission.max_retries,
            crashes: 0,
            shape,
        });
        if let Some(failure) = self.gone.clone() {
            self.fail_task(task, failure);
            return returns;
        }
        let mut missing = 0;
        for (_, handle) in &by_ref {
            self.need(*handle, look);
            match self.value(*handle) {
                Some(Value::Ready(_)) => {}
                Some(Value::Failed(failure)) => {
                    let failure = failure.inherited();
                    self.fail_task(task, failure);
                    return returns;
                }
                None => {
                    missing += 1;
                    if let Some(object) = self.objects.get_mut(*handle) {
                        object.extra().dependents.push(task);
                    }
                }
            }
        }
        if let Some(entry) = self.tasks.table.get_mut(task) {
            entry.missing = missing;
        }
        if missing == 0 {
            self.tasks.shapes[shape].queue.push_back(task);
            self.pump(shape, now);
        }
        returns
    }

    /// One argument of these tasks has its value.
    pub(crate) fn dependencies_ready(&mut self, dependents: &[u32], value: &Value) {
        let mut shapes = Vec::new();
        for id in dependents {
            let Some(task) = self.tasks.table.get_mut(*id) else { continue };
            if let Value::Failed(failure) = value {
                let failure = failure.inherited();
                self.fail_task(*id, failure);
                continue;
            }
            task.missing = task.missing.saturating_sub(1);
            if task.missing == 0 {
                let shape = task.shape;
                self.tasks.shapes[shape].queue.push_back(*id);
                if !shapes.contains(&shape) {
                    shapes.push(shape);
                }
            }
        }
        for shape in shapes {
            self.pump(shape, 0);
        }
    }

    /// Sends queued tasks to leased workers, and asks for workers or gives requests up as the queue wants.
    fn pump(&mut self, shape_index: usize, now: u64) {
        self.tasks.now = self.tasks.now.max(now);
        let now = self.tasks.now;
        let leases = self.tasks.shapes[shape_index].leases.clone();
        let depth = self.tasks.shapes[shape_index].depth();
        while !self.tasks.shapes[shape_index].queue.is_empty() {
            // The worker with the least ahead of it, so that short queues spread over all of them.
            let in_flight = |lease: &u64| match self.tasks.leases.get(lease) {
                Some(entry) if entry.recalled || entry.paused => None,
                Some(entry) if !entry.in_flight.is_empty() && now > entry.since + STALLED_MS => None,
                Some(entry) if entry.in_flight.len() < depth => Some(entry.in_flight.len()),
                _ => None,
            };
            let least = leases.iter().filter_map(|lease| Some((in_flight(lease)?, *lease))).min();
            let Some((_, lease)) = least else { break };
            if let Some(task) = self.tasks.shapes[shape_index].queue.pop_front() {
                self.push(lease, task, now);
            }
        }
        let shape = &mut self.tasks.shapes[shape_index];
        let wanted = shape.queue.len().min(MAX_REQUESTS);
        while shape.requests.len() > wanted {
            if let Some(request) = shape.requests.pop() {
                self.tasks.requests.remove(&request);
                self.actions.push(Action::Daemon(ToDaemon::CancelLease { request }));
            }
        }
        while shape.requests.len() < wanted {
            let request = self.tasks.next_request;
            self.tasks.next_request += 1;
            shape.requests.push(request);
            self.tasks.requests.insert(request, shape_index);
            self.actions.push(Action::Daemon(ToDaemon::RequestLease { request, resources: shape.resources.clone() }));
        }
    }

    fn push(&mut self, lease: u64, id: u32, now: u64) {
        let Some(worker) = self.tasks.leases.get(&lease).map(|lease| lease.worker) else { return };
        let Some(task) = self.tasks.table.get(id) else { return };
        let mut spec = task.spec.clone();
        for (position, handle) in &task.by_ref {
            // A freed argument fails its task like any other argument without a value.
            match self.objects.get(*handle).and_then(|object| object.value.as_ref()) {
                Some(Value::Ready(blob)) => spec.by_ref.push((*position, blob.clone())),
                Some(Value::Failed(failure)) => {
                    let failure = failure.inherited();
                    return self.fail_task(id, failure);
                }
                None => return,
            }
        }
        let retriable = task.retries_left != 0;
        if let Some(entry) = self.tasks.leases.get_mut(&lease) {
            let retriable = retriable && (entry.retriable || entry.in_flight.is_empty());
            if std::mem::replace(&mut entry.retriable, retriable) != retriable {
                self.daemon(ToDaemon::LeaseRetriable { lease, retriable });
            }
        }
        let function = spec.function;
        if self.defined.entry(worker).or_default().insert(function)
            && let Some(known) = self.functions.get(&function)
        {
            let blob = known.blob.clone();
            self.send(worker, ToPeer::Define { function, blob });
        }
        self.send(worker, ToPeer::Run(Box::new(spec)));
        if let Some(lease) = self.tasks.leases.get_mut(&lease) {
            if lease.in_flight.is_empty() {
                lease.since = now;
            }
            lease.in_flight.push_back(id);
            lease.idle_since = now;
        }
    }

    /// The daemon gave a worker.
    pub fn on_lease_granted(&mut self, request: u64, lease: u64, worker: WorkerId, now: u64) {
        let Some(shape) = self.tasks.requests.remove(&request) else {
            // Given up meanwhile.
            return self.daemon(ToDaemon::ReturnLease { lease });
        };
        self.tasks.shapes[shape].requests.retain(|other| *other != request);
        self.tasks.shapes[shape].leases.push(lease);
        let entry = Lease {
            worker,
            shape,
            in_flight: VecDeque::new(),
            recalled: false,
            paused: false,
            retriable: true,
            since: now,
            idle_since: now,
        };
        self.tasks.leases.insert(lease, entry);
        self.pump(shape, now);
    }

    /// The daemon will never give such a worker: what is queued for it fails.
    pub fn on_lease_refused(&mut self, request: u64, failure: &Failure) {
        let Some(shape) = self.tasks.requests.remove(&request) else { return };
        self.tasks.shapes[shape].requests.retain(|other| *other != request);
        for task in std::mem::take(&mut self.tasks.shapes[shape].queue) {
            self.fail_task(task, failure.clone());
        }
        self.pump(shape, 0);
    }

    /// Somebody else waits for a worker.
    pub fn on_lease_recalled(&mut self, lease: u64) {
        if let Some(entry) = self.tasks.leases.get_mut(&lease) {
            entry.recalled = true;
            if entry.in_flight.is_empty() {
                self.return_lease(lease);
            }
        }
    }

    /// A worker's task waits or goes on; what had been sent ahead of need is to run elsewhere.
    pub(crate) fn on_paused(&mut self, worker: WorkerId, waiting: bool, returned: &[(TaskId, u32)], now: u64) {
        let Some(entry) = self.tasks.leases.values_mut().find(|lease| lease.worker == worker) else { return };
        // A task that ended is not paused any more, whatever crossed its end.
        entry.paused = waiting && !entry.in_flight.is_empty();
        let shape = entry.shape;
        for (task, attempt) in returned.iter().rev() {
            let is_it = |id: &u32| {
                self.tasks.table.get(*id).is_some_and(|t| t.spec.task == *task && t.spec.attempt == *attempt)
            };
            if let Some(at) = entry.in_flight.iter().position(is_it)
                && let Some(id) = entry.in_flight.remove(at)
            {
                self.tasks.shapes[shape].queue.push_front(id);
            }
        }
        if entry.in_flight.is_empty() {
            entry.paused = false;
        }
        self.pump(shape, now);
    }

    fn return_lease(&mut self, lease: u64) {
        if let Some(entry) = self.tasks.leases.remove(&lease) {
            self.tasks.shapes[entry.shape].leases.retain(|other| *other != lease);
            self.daemon(ToDaemon::ReturnLease { lease });
            self.pump(entry.shape, 0);
        }
    }

    pub(crate) fn on_done(&mut self, worker: WorkerId, done: Done, now: u64, look: Look<'_>) {
        let Done { task, attempt, values, nanos } = done;
        let found = self.tasks.leases.iter().find_map(|(lease, entry)| {
            let is_it =
                |id: &u32| self.tasks.table.get(*id).is_some_and(|t| t.spec.task == task && t.spec.attempt == attempt);
            if entry.worker != worker {
                return None;
            }
            entry.in_flight.iter().position(is_it).map(|at| (*lease, at))
        });
        let Some((lease, at)) = found else {
            // Of an attempt that was given up: its bytes are nobody's.
            self.discard(&values);
            return self.send_gated(worker, ToPeer::Taken { task, attempt });
        };
        let Some(entry) = self.tasks.leases.get_mut(&lease) else { return };
        let Some(id) = entry.in_flight.remove(at) else { return };
        (entry.idle_since, entry.since) = (now, now);
        entry.paused &= !entry.in_flight.is_empty();
        let (shape, idle) = (entry.shape, entry.in_flight.is_empty());
        let recalled = entry.recalled;
        let average = &mut self.tasks.shapes[shape].nanos;
        *average = Some(average.map_or(nanos, |old| old - old / 4 + nanos / 4));
        let with_refs = values.iter().any(|value| !refs_in(value, look).is_empty());
        self.complete(id, values, look);
        if with_refs {
            self.send_gated(worker, ToPeer::Taken { task, attempt });
        }
        if recalled && idle {
            self.return_lease(lease);
        } else {
            self.pump(shape, now);
        }
    }

    fn complete(&mut self, id: u32, values: Vec<Value>, look: Look<'_>) {
        let Some(task) = self.tasks.table.remove(id) else { return };
        debug_assert_eq!(values.len(), task.returns.len());
        for (handle, value) in task.returns.iter().zip(values) {
            // free() may have settled it already: then the late bytes are nobody's.
            if self.value(*handle).is_none() {
                self.resolve(*handle, value, look);
            } else {
                self.discard(&[value]);
            }
            self.drop_count(*handle, Count::Held);
        }
        if let Blob::Stored(locator) = task.spec.args {
            self.actions.push(Action::Free(locator));
        }
        if let Some(known) = self.functions.get_mut(&task.spec.function) {
            known.tasks = known.tasks.saturating_sub(1);
        }
        self.forget_unused(&task.spec.function);
        for handle in task.contains.into_iter().chain(task.by_ref.into_iter().map(|(_, handle)| handle)) {
            self.drop_count(handle, Count::Held);
        }
    }

    pub(crate) fn fail_task(&mut self, id: u32, failure: Failure) {
        let Some(task) = self.tasks.table.get(id) else { return };
        let values = vec![Value::Failed(Box::new(failure)); task.returns.len()];
        self.complete(id, values, &NoValues);
    }

    /// A leased worker ended. The task that ran there is tried again or fails; those behind it had not begun.
    pub fn on_lease_broken(&mut self, lease: u64, failure: &Failure, now: u64, look: &dyn Values) {
        let Some(entry) = self.tasks.leases.remove(&lease) else { return };
        let shape = &mut self.tasks.shapes[entry.shape];
        shape.leases.retain(|other| *other != lease);
        let mut in_flight = entry.in_flight.into_iter();
        let running = in_flight.next();
        for (at, waiting) in in_flight.enumerate() {
            shape.queue.insert(at.min(shape.queue.len()), waiting);
        }
        if let Some(id) = running
            && let Some(task) = self.tasks.table.get_mut(id)
        {
            // What it had sealed and could not tell of any more is ours, and nobody's value.
            let results = 1..=task.spec.returns.unwrap_or(1);
            let sealed = results.filter_map(|index| look.lookup(&task.spec.task.object(index)));
            self.actions.extend(sealed.map(Action::Free));
            if task.retries_left == 0 {
                let failure = pressure::of_task(failure, &task.spec);
                self.fail_task(id, failure);
            } else {
                task.retries_left = (task.retries_left - 1).max(-1);
                task.spec.attempt += 1;
                task.crashes += 1;
                let (first, last) = if failure.code == OUT_OF_MEMORY { MEMORY_BACKOFF_MS } else { BACKOFF_MS };
                let backoff = (first << (task.crashes - 1).min(10)).min(last);
                self.tasks.delayed.insert((now + backoff, id));
            }
        }
        self.pump(entry.shape, now);
    }

    /// Time passed: retries whose back-off is over run, leases that were idle for long go back. Returns when to call
    /// again at the latest.
    pub fn tick(&mut self, now: u64) -> Option<u64> {
        self.tasks.now = self.tasks.now.max(now);
        while let Some((due, id)) = self.tasks.delayed.first().copied()
            && due <= now
        {
            self.tasks.delayed.pop_first();
            if let Some(shape) = self.tasks.table.get(id).map(|task| task.shape) {
                self.tasks.shapes[shape].queue.push_back(id);
                self.pump(shape, now);
            }
        }
        let is_idle = |lease: &Lease| lease.in_flight.is_empty();
        let idle: Vec<u64> = self
            .tasks
            .leases
            .iter()
            .filter(|(_, lease)| is_idle(lease) && lease.idle_since + IDLE_MS <= now)
            .map(|(id, _)| *id)
            .collect();
        for lease in idle {
            self.return_lease(lease);
        }
        let next_idle = self.tasks.leases.values().filter(|l| is_idle(l)).map(|lease| lease.idle_since + IDLE_MS).min();
        let next_due = self.tasks.delayed.first().map(|(due, _)| *due);
        let (next_look, next_return) = (self.tell_lending(now), self.return_stalled(now));
        next_idle.into_iter().chain(next_due).chain(next_look).chain(next_return).min()
    }
}
