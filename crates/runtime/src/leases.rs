//! Workers that this process leased, and what it sends them.
//!
//! After Ray (Wang et al., NSDI'21): a worker is leased once and kept while tasks of the same shape come.

use std::collections::VecDeque;

use heliostat_proto::message::{FunctionHash, Resources, ToDaemon, ToPeer};
use heliostat_proto::{Blob, EnvId, Failure, TaskId, Value, WorkerId};

use crate::action::Action;
use crate::core::{Core, Look, Values, refs_in};
use crate::pressure;
use crate::tasks::{After, Done, Stage, Task, Tasks};

/// Lease requests of one shape that are open at a time; the daemon caps workers far below.
const MAX_REQUESTS: usize = 64;
/// Work that is sent ahead to a worker, so that it never waits for the next message.
const AHEAD_NANOS: u64 = 1_000_000;
/// Nothing more is sent behind a task that has run for longer than this, whatever tasks like it took: its worker may be
/// stopped, or busy for ever.
pub(crate) const STALLED_MS: u64 = 10;
/// Most tasks in flight to one worker.
const MAX_AHEAD: usize = 512;
/// Most bytes of arguments within a message: a frame must not be longer than what a receiver takes.
const MAX_INLINE: usize = heliostat_proto::frame::MAX_BODY / 2;
/// An idle lease is given back after this many milliseconds.
const IDLE_MS: u64 = 25;

/// Tasks that ask for the same resources and the same environment share leases.
#[derive(Debug)]
pub(crate) struct Shape {
    resources: Resources,
    env: EnvId,
    pub(crate) queue: VecDeque<u32>,
    leases: Vec<u64>,
    requests: Vec<u64>,
}

#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) worker: WorkerId,
    shape: usize,
    in_flight: VecDeque<u32>,
    recalled: bool,
    /// The task that runs there waits for objects: nothing else begins there.
    paused: bool,
    /// Aborted runs that did not end yet: nothing is sent there.
    pub(crate) aborting: u32,
    /// What the daemon knows of the tasks there.
    retriable: bool,
    /// When the first in flight became that.
    since: u64,
    idle_since: u64,
}

impl Shape {
    pub(crate) fn new(resources: Resources, env: EnvId) -> Self {
        Self { resources, env, queue: VecDeque::new(), leases: Vec::new(), requests: Vec::new() }
    }
}

impl Tasks {
    /// How many tasks a worker may have when the first of the queue is sent to it: more the less that takes. A function
    /// that never ended waits for a worker that has nothing else to do.
    fn depth(&self, shape: usize) -> usize {
        let first = self.shapes[shape].queue.front().and_then(|id| self.table.get(*id));
        first.map_or(1, |task| self.depth_of(&task.spec.function))
    }

    pub(crate) fn depth_of(&self, function: &FunctionHash) -> usize {
        let nanos = self.durations.get(function);
        nanos.map_or(1, |nanos| (AHEAD_NANOS / nanos.max(&1)).clamp(1, MAX_AHEAD as u64) as usize)
    }

    /// How many tasks are with a worker, when it may be sent more.
    pub(crate) fn in_flight(&self, lease: u64, now: u64) -> Option<usize> {
        let entry = self.leases.get(&lease)?;
        let stalled = !entry.in_flight.is_empty() && now > entry.since + STALLED_MS;
        let open = !entry.recalled && !entry.paused && !stalled && entry.aborting == 0;
        open.then_some(entry.in_flight.len())
    }

    /// The task that was sent to a worker last, when nothing waits to be sent there.
    pub(crate) fn last_of(&self, lease: u64) -> Option<u32> {
        let entry = self.leases.get(&lease).filter(|entry| self.shapes[entry.shape].queue.is_empty())?;
        entry.in_flight.back().copied()
    }

    /// Whether tasks of this shape run on this lease, and none of them waits for a worker.
    pub(crate) fn is_of(&self, lease: u64, shape: usize) -> bool {
        self.leases.get(&lease).is_some_and(|entry| entry.shape == shape) && self.shapes[shape].queue.is_empty()
    }

    fn note_duration(&mut self, function: FunctionHash, nanos: u64) {
        self.durations.entry(function).and_modify(|old| *old = *old - *old / 4 + nanos / 4).or_insert(nanos);
    }

    /// The task whose run is with this worker, and the lease.
    pub(crate) fn sent_to(&self, worker: WorkerId, run: (TaskId, u32)) -> Option<(u32, u64)> {
        let id = *self.by_id.get(&run.0)?;
        let task = self.table.get(id).filter(|task| task.spec.attempt == run.1)?;
        let Stage::Sent(lease) = task.stage else { return None };
        (self.maker(task)? == worker).then_some((id, lease))
    }

    /// The process that a task's run is with.
    pub(crate) fn maker(&self, task: &Task) -> Option<WorkerId> {
        let Stage::Sent(lease) = task.stage else { return None };
        Some(self.leases.get(&lease)?.worker)
    }

    /// A run is not with its worker any more.
    fn take_from_lease(&mut self, id: u32, lease: u64) {
        let aborted = self.table.get(id).is_some_and(|task| task.aborted.is_some());
        self.set_due(id, None);
        let Some(entry) = self.leases.get_mut(&lease) else { return };
        // Runs end in the order in which they were sent, but for those that come back.
        if let Some(at) = entry.in_flight.iter().position(|other| *other == id) {
            entry.in_flight.remove(at);
        }
        entry.aborting -= u32::from(aborted);
        entry.paused &= !entry.in_flight.is_empty();
    }
}

impl Core {
    /// Sends queued tasks to leased workers, and asks for workers or gives requests up as the queue wants.
    pub(crate) fn pump(&mut self, shape_index: usize, now: u64) {
        self.tasks.now = self.tasks.now.max(now);
        let now = self.tasks.now;
        let leases = self.tasks.shapes[shape_index].leases.clone();
        while !self.tasks.shapes[shape_index].queue.is_empty() {
            let depth = self.tasks.depth(shape_index);
            // The worker with the least ahead of it, so that short queues spread over all of them.
            let open = leases.iter().filter_map(|lease| Some((self.tasks.in_flight(*lease, now)?, *lease)));
            let least = open.filter(|(in_flight, _)| *in_flight < depth).min();
            let Some((_, lease)) = least else { break };
            if let Some(task) = self.tasks.shapes[shape_index].queue.pop_front() {
                self.push(lease, task, now);
                self.follow(lease, now);
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
            let (resources, env) = (shape.resources.clone(), shape.env);
            self.actions.push(Action::Daemon(ToDaemon::RequestLease { request, resources, env }));
        }
    }

    pub(crate) fn push(&mut self, lease: u64, id: u32, now: u64) {
        let Some(worker) = self.tasks.leases.get(&lease).map(|lease| lease.worker) else { return };
        let Some(task) = self.tasks.table.get(id) else { return };
        let mut spec = task.spec.clone();
        for (position, handle) in &task.by_ref {
            // A freed argument fails its task like any other argument without a value.
            match self.objects.value(*handle) {
                Some(Value::Ready(blob)) => spec.by_ref.push((*position, blob)),
                Some(Value::Failed(failure)) => {
                    let failure = failure.inherited();
                    return self.fail_task(id, failure);
                }
                None if self.made_by(*handle) == Some(lease) => {
                    spec.follows.extend(self.id(*handle).map(|id| (*position, id)));
                }
                None => return,
            }
        }
        let inline: usize =
            spec.by_ref.iter().map(|(_, blob)| if let Blob::Inline(bytes) = blob { bytes.len() } else { 0 }).sum();
        if inline > MAX_INLINE {
            let message = format!(
                "the {} arguments of {}() that went by reference take {inline} bytes in one message, more than {MAX_INLINE}",
                spec.by_ref.len(),
                spec.name
            );
            let hint =
                "put small values into one array and pass a reference to that, or pass the references inside an array";
            return self.fail_task(id, Failure::new("SERIALIZATION", message).hint(hint));
        }
        let Some(task) = self.tasks.table.get_mut(id) else { return };
        task.stage = Stage::Sent(lease);
        spec.stream = self.streams.start(task);
        let retriable = task.retries_left != 0;
        if let Some(entry) = self.tasks.leases.get_mut(&lease) {
            let retriable = retriable && (entry.retriable || entry.in_flight.is_empty());
            if std::mem::replace(&mut entry.retriable, retriable) != retriable {
                self.daemon(ToDaemon::LeaseRetriable { lease, retriable });
            }
        }
        self.provide(worker, spec.function);
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
            aborting: 0,
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
        let lease = self.tasks.leases.iter_mut().find(|(_, lease)| lease.worker == worker);
        let Some((lease, entry)) = lease.map(|(id, lease)| (*id, lease)) else { return };
        // A task that ended is not paused any more, whatever crossed its end.
        entry.paused = waiting && !entry.in_flight.is_empty();
        let (shape, recalled) = (entry.shape, entry.recalled);
        self.take_back(worker, returned);
        if recalled && self.tasks.leases.get(&lease).is_some_and(|entry| entry.in_flight.is_empty()) {
            return self.return_lease(lease);
        }
        self.pump(shape, now);
    }

    /// Runs that had not begun at a worker are queued again, in their order and before all others, or are over.
    pub(crate) fn take_back(&mut self, worker: WorkerId, returned: &[(TaskId, u32)]) {
        for run in returned.iter().rev() {
            let Some((id, lease)) = self.tasks.sent_to(worker, *run) else { continue };
            self.tasks.take_from_lease(id, lease);
            let Some(task) = self.tasks.table.get_mut(id) else { continue };
            if task.aborted.take().is_some_and(|after| after == After::Nothing) {
                self.remove_task(id);
                continue;
            }
            if task.missing > 0 {
                task.stage = Stage::Waiting;
                continue;
            }
            task.stage = Stage::Queued;
            self.tasks.shapes[task.shape].queue.push_front(id);
        }
    }

    fn return_lease(&mut self, lease: u64) {
        if let Some(entry) = self.tasks.leases.remove(&lease) {
            self.tasks.shapes[entry.shape].leases.retain(|other| *other != lease);
            self.daemon(ToDaemon::ReturnLease { lease });
            self.pump(entry.shape, 0);
        }
    }

    pub(crate) fn on_done(&mut self, worker: WorkerId, done: Done, now: u64, look: Look<'_>) {
        let Done { task, attempt, values, nanos, again } = done;
        let Some((id, lease)) = self.tasks.sent_to(worker, (task, attempt)) else {
            // Of an attempt that was given up: its bytes are nobody's.
            self.discard(&values);
            return self.send_gated(worker, ToPeer::Taken { task, attempt, item: None });
        };
        self.tasks.take_from_lease(id, lease);
        let Some(entry) = self.tasks.leases.get_mut(&lease) else { return };
        (entry.idle_since, entry.since) = (now, now);
        let (shape, idle, recalled) = (entry.shape, entry.in_flight.is_empty(), entry.recalled);
        let Some(ended) = self.tasks.table.get(id) else { return };
        let (aborted, retries_left, function) = (ended.aborted, ended.retries_left, ended.spec.function);
        if aborted.is_some() || again && retries_left != 0 {
            self.discard(&values);
            match aborted {
                Some(After::Nothing) => self.remove_task(id),
                Some(After::Retry) | None => self.retry(id, now),
            }
            self.send_gated(worker, ToPeer::Taken { task, attempt, item: None });
        } else {
            self.tasks.note_duration(function, nanos);
            let values = self.checked_end(id, values);
            let with_refs = values.iter().any(|value| !refs_in(value, look).is_empty());
            self.settle_task(id, values, look);
            self.remove_task(id);
            if with_refs {
                self.send_gated(worker, ToPeer::Taken { task, attempt, item: None });
            }
        }
        if recalled && idle {
            self.return_lease(lease);
        } else {
            self.pump(shape, now);
            self.follow(lease, now);
        }
    }

    /// A leased worker ended. The task that ran there is tried again or fails; those behind it had not begun.
    pub fn on_lease_broken(&mut self, lease: u64, failure: &Failure, now: u64, look: &dyn Values) {
        let Some(entry) = self.tasks.leases.remove(&lease) else { return };
        self.tasks.shapes[entry.shape].leases.retain(|other| *other != lease);
        let mut queued = 0;
        for (at, id) in entry.in_flight.into_iter().enumerate() {
            self.tasks.set_due(id, None);
            // Also of those behind: the end of the first may have been lost on its way.
            self.free_sealed(id, look);
            let Some(task) = self.tasks.table.get_mut(id) else { continue };
            if at == 0 || task.aborted.is_some() {
                let (after, retries_left, spec) = (task.aborted, task.retries_left, task.spec.clone());
                match after {
                    Some(After::Nothing) => self.remove_task(id),
                    None if retries_left == 0 => {
                        let failure = pressure::of_task(failure, &spec);
                        self.fail_task(id, failure);
                    }
                    Some(After::Retry) | None => self.retry_elsewhere(id, now, failure),
                }
            } else if task.missing > 0 {
                task.stage = Stage::Waiting;
            } else {
                task.stage = Stage::Queued;
                let queue = &mut self.tasks.shapes[entry.shape].queue;
                queue.insert(queued.min(queue.len()), id);
                queued += 1;
            }
        }
        self.pump(entry.shape, now);
    }

    /// Time passed: retries whose back-off is over run, runs that take too long end, leases that were idle for long go
    /// back. Returns when to call again at the latest.
    pub fn tick(&mut self, now: u64) -> Option<u64> {
        self.tasks.now = self.tasks.now.max(now);
        while let Some((due, id)) = self.tasks.delayed.first().copied()
            && due <= now
        {
            self.tasks.delayed.pop_first();
            let shape = self.enqueue(id);
            self.pump(shape, now);
        }
        self.look_at_deadlines(now);
        let look_again =
            [self.look_at_queue(now), self.tell_lending(now), self.tell_credits(now)].into_iter().flatten().min();
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
        let next_due = [&self.tasks.delayed, &self.tasks.deadlines].map(|set| set.first().map(|(due, _)| *due));
        next_idle.into_iter().chain(next_due.into_iter().flatten()).chain(look_again).min()
    }
}
