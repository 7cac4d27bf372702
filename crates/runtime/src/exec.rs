//! Tasks that run in this process.

use std::collections::VecDeque;

use heliostat_proto::message::{TaskSpec, ToPeer};
use heliostat_proto::{Blob, Failure, TaskId, Value, WorkerId};

use crate::action::{Action, ExecutionId, Handle};
use crate::core::{Core, Look};
use crate::following::Kept;
use crate::hash::HashMap;
use crate::leases::STALLED_MS;
use crate::objects::Count;
use crate::produce::Production;
use crate::received::{FunctionNumber, Received};
use crate::slab::Slab;

/// The item of a run, or `None` for its end, and a reference inside.
type HeldFor = (Option<u32>, Handle);

/// What runs, or waits to run, here.
#[derive(Debug, Default)]
pub(crate) struct Executions {
    pub(crate) table: Slab<Execution>,
    pub(crate) queue: VecDeque<ExecutionId>,
    /// For tasks that follow others.
    pub(crate) kept: Kept,
    pub(crate) received: Received,
    /// References inside results that their new holder has not registered yet: those of its end, and those of items by
    /// their index.
    results: HashMap<(WorkerId, TaskId, u32), Vec<HeldFor>>,
    /// The running task waits for objects.
    pub(crate) paused: bool,
    /// Runs that were aborted while they were under way.
    aborts: u64,
    /// Tasks that were taken to run.
    taken: u64,
    /// The latest of them that was seen to run, and when it was seen first.
    seen: (u64, u64),
}

/// A run that does not count any more, and whose code is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aborted {
    /// The run.
    pub execution: ExecutionId,
    /// It took too long; else it was cancelled.
    pub late: bool,
}

/// A task that runs here.
#[derive(Debug)]
pub struct Execution {
    /// Who wants the results; `None` when that process ended meanwhile.
    pub caller: Option<WorkerId>,
    /// The task.
    pub spec: TaskSpec,
    /// Its function, if that is here: of a run that was given up it may be gone.
    pub function: Option<FunctionNumber>,
    /// References inside its arguments.
    pub(crate) holds: Vec<Handle>,
    /// Tasks that it submitted so far.
    pub(crate) children: u64,
    pub(crate) aborted: Option<Abort>,
    /// What it made so far, if it gives items.
    pub(crate) production: Option<Production>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Abort {
    late: bool,
    recursive: bool,
    /// Its code knows.
    told: bool,
}

impl Execution {
    /// Whether what it submits now is cancelled with it.
    pub(crate) fn cancels_children(&self) -> bool {
        self.aborted.is_some_and(|abort| abort.recursive)
    }
}

impl Executions {
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }
}

impl Core {
    pub(crate) fn on_run(&mut self, caller: WorkerId, spec: TaskSpec, look: Look<'_>) {
        if self.executions.paused && self.runs() {
            // It may be what the waiting task needs.
            let returned = vec![(spec.task, spec.attempt)];
            return self.send(caller, ToPeer::Paused { waiting: true, returned });
        }
        let blobs = std::iter::once(&spec.args).chain(spec.by_ref.iter().map(|(_, blob)| blob));
        let entries: Vec<_> = blobs.flat_map(|blob| look.refs_of(blob)).collect();
        let holds = entries.iter().map(|entry| self.acquire(entry, Count::Held)).collect();
        if !spec.follows.is_empty() {
            self.executions.kept.begin(caller);
        }
        let function = self.executions.received.number(&spec.function);
        let production = spec.stream.map(Production::new);
        let execution =
            Execution { caller: Some(caller), spec, function, holds, children: 0, aborted: None, production };
        let id = self.executions.table.insert(execution);
        self.executions.queue.push_back(id);
        self.actions.push(Action::Execute(id));
    }

    /// Whether a task runs here.
    pub fn runs(&self) -> bool {
        self.executions.table.len() > self.executions.queue.len()
    }

    /// The task that [`Self::next_execution`] takes next.
    pub fn peek_execution(&mut self) -> Option<(ExecutionId, &Execution)> {
        let id = self.front()?;
        Some((id, self.executions.table.get(id)?))
    }

    /// Takes the next task to run, in the order of arrival.
    pub fn next_execution(&mut self) -> Option<ExecutionId> {
        self.front();
        let next = self.executions.queue.pop_front();
        self.executions.taken += u64::from(next.is_some());
        next
    }

    /// Gives back what waits behind a task that takes long: it was sent ahead because such tasks were short so far.
    /// Returns when to look again.
    pub(crate) fn look_at_queue(&mut self, now: u64) -> Option<u64> {
        if !self.runs() || self.executions.queue.is_empty() {
            return None;
        }
        if self.executions.seen.0 != self.executions.taken {
            self.executions.seen = (self.executions.taken, now);
        }
        let due = self.executions.seen.1 + STALLED_MS;
        if now < due {
            return Some(due);
        }
        for (peer, returned) in self.return_queued() {
            self.send(peer, ToPeer::Paused { waiting: true, returned });
        }
        None
    }

    /// The running task begins or ends to wait for objects. What had not begun goes back to its callers: it may be what
    /// the task waits for, and nothing would ever begin it here.
    pub fn pause(&mut self, waiting: bool) {
        if std::mem::replace(&mut self.executions.paused, waiting) == waiting {
            return;
        }
        let mut callers = if waiting { self.return_queued() } else { HashMap::default() };
        for caller in self.executions.table.iter().filter_map(|(_, execution)| execution.caller) {
            callers.entry(caller).or_default();
        }
        for (peer, returned) in callers {
            self.send(peer, ToPeer::Paused { waiting, returned });
        }
    }

    /// Takes out what has not begun, by caller.
    fn return_queued(&mut self) -> HashMap<WorkerId, Vec<(TaskId, u32)>> {
        let mut callers: HashMap<WorkerId, Vec<(TaskId, u32)>> = HashMap::default();
        for id in std::mem::take(&mut self.executions.queue) {
            let Some(execution) = self.executions.table.remove(id) else { continue };
            if let Some(caller) = execution.caller {
                callers.entry(caller).or_default().push((execution.spec.task, execution.spec.attempt));
            }
            for handle in execution.holds {
                self.drop_count(handle, Count::Held);
            }
        }
        callers
    }

    /// A run does not count any more for its caller.
    pub(crate) fn on_abort(&mut self, caller: WorkerId, run: (TaskId, u32), late: bool, recursive: bool, now: u64) {
        let found = self.executions.table.iter().find(|(_, execution)| {
            execution.caller == Some(caller) && (execution.spec.task, execution.spec.attempt) == run
        });
        let Some((id, _)) = found else { return };
        if let Some(at) = self.executions.queue.iter().position(|queued| *queued == id) {
            self.executions.queue.remove(at);
            for handle in self.executions.table.remove(id).map(|execution| execution.holds).unwrap_or_default() {
                self.drop_count(handle, Count::Held);
            }
            let waiting = self.executions.paused;
            return self.send(caller, ToPeer::Paused { waiting, returned: vec![run] });
        }
        let mut returned = self.return_queued();
        let (task, attempt) = run;
        let own = returned.remove(&caller).unwrap_or_default();
        self.send(caller, ToPeer::Aborting { task, attempt, returned: own });
        let waiting = self.executions.paused;
        for (peer, returned) in returned {
            self.send(peer, ToPeer::Paused { waiting, returned });
        }
        self.abort_execution(id, late, recursive);
        if recursive {
            self.cancel_children(task, now);
        }
    }

    /// The code of a run that is under way is to be told.
    fn abort_execution(&mut self, id: ExecutionId, late: bool, recursive: bool) {
        let Some(execution) = self.executions.table.get_mut(id) else { return };
        let told = execution.aborted.is_some_and(|abort| abort.told);
        execution.aborted = Some(Abort { late, recursive, told });
        let waits = execution.production.as_mut().map(|production| std::mem::take(&mut production.waits));
        self.wake(waits.unwrap_or_default());
        self.executions.aborts += 1;
        self.actions.push(Action::Abort);
    }

    /// The runs whose code is to be told that they were aborted.
    pub fn take_aborted(&mut self) -> Vec<Aborted> {
        let mut taken = Vec::new();
        for (id, execution) in self.executions.table.iter_mut() {
            if let Some(abort) = execution.aborted.as_mut().filter(|abort| !abort.told) {
                abort.told = true;
                taken.push(Aborted { execution: id, late: abort.late });
            }
        }
        taken
    }

    /// Ends a run that was aborted between being taken and its code: there is nothing to tell. Returns whether it was.
    pub fn end_aborted(&mut self, id: ExecutionId) -> bool {
        let Some(execution) = self.executions.table.get(id).filter(|execution| execution.aborted.is_some()) else {
            return false;
        };
        let failure = Failure::new("TASK_CANCELLED", format!("{}() was aborted before it began", execution.spec.name));
        let results = vec![Value::Failed(Box::new(failure)); execution.spec.returns.map_or(1, |count| count as usize)];
        self.finish(id, results, &[], 0, false);
        true
    }

    /// How many runs were aborted while they were under way: whoever blocks looks whether it changed.
    pub fn aborts(&self) -> u64 {
        self.executions.aborts
    }

    /// A task's function is about to be called.
    pub fn begin(&mut self, id: ExecutionId) {
        if let Some(execution) = self.executions.table.get(id)
            && let (Some(caller), true) = (execution.caller, execution.spec.timed)
        {
            let (task, attempt) = (execution.spec.task, execution.spec.attempt);
            self.send(caller, ToPeer::Began { task, attempt });
        }
    }

    /// The code of an aborted run had time to end, and did not.
    pub fn overdue(&mut self, id: ExecutionId) {
        if let Some(execution) = self.executions.table.get(id)
            && let (Some(caller), Some(_)) = (execution.caller, execution.aborted)
        {
            let (task, attempt) = (execution.spec.task, execution.spec.attempt);
            self.send(caller, ToPeer::Overdue { task, attempt });
        }
    }

    /// A task that runs here.
    pub fn execution(&self, id: ExecutionId) -> Option<&Execution> {
        self.executions.table.get(id)
    }

    /// The serialised function of a task.
    pub fn function(&self, number: FunctionNumber) -> Option<&Blob> {
        self.executions.received.blob(number)
    }

    /// The functions that need not be kept any more since the last call.
    pub fn take_forgotten(&mut self) -> Vec<FunctionNumber> {
        self.executions.received.take_forgotten()
    }

    /// The id of the next task that the execution submits.
    pub(crate) fn child_of(&mut self, parent: Option<ExecutionId>) -> TaskId {
        match parent.and_then(|id| self.executions.table.get_mut(id)) {
            Some(execution) => {
                execution.children += 1;
                execution.spec.task.child(execution.spec.attempt, execution.children)
            }
            None => {
                self.children += 1;
                TaskId::root(self.me.worker).child(0, self.children)
            }
        }
    }

    /// The task ended. `contains` are the handles of the references inside all of `values`. `again`: it threw an error
    /// after which its caller wants to try again.
    pub fn finish(&mut self, id: ExecutionId, values: Vec<Value>, contains: &[Handle], nanos: u64, again: bool) {
        let Some(execution) = self.executions.table.remove(id) else { return };
        let (task, attempt) = (execution.spec.task, execution.spec.attempt);
        if let Some(caller) = execution.caller {
            if contains.is_empty() && !again {
                self.executions.kept.add(caller, task, &values);
            }
            self.hold_for(caller, (task, attempt), None, contains);
            self.send_gated(caller, ToPeer::Done { task, attempt, values, nanos, again });
        } else {
            self.discard(&values);
        }
        for handle in execution.holds {
            self.drop_count(handle, Count::Held);
        }
    }

    /// Results that nobody takes give their memory back.
    pub fn discard(&mut self, values: &[Value]) {
        for value in values {
            if let Value::Ready(Blob::Stored(locator)) = value {
                self.actions.push(Action::Free(*locator));
            }
        }
    }

    /// Keeps references inside a result or an item until their new holder has registered them.
    pub(crate) fn hold_for(&mut self, caller: WorkerId, run: (TaskId, u32), item: Option<u32>, contains: &[Handle]) {
        if contains.is_empty() {
            return;
        }
        for handle in contains {
            self.objects.add(*handle, Count::Held);
        }
        let held = self.executions.results.entry((caller, run.0, run.1)).or_default();
        held.extend(contains.iter().map(|handle| (item, *handle)));
    }

    pub(crate) fn on_taken(&mut self, caller: WorkerId, run: (TaskId, u32), item: Option<u32>) {
        let key = (caller, run.0, run.1);
        let Some(held) = self.executions.results.get_mut(&key) else { return };
        let all = std::mem::take(held);
        let (taken, left): (Vec<HeldFor>, _) = all.into_iter().partition(|(of, _)| item.is_none() || *of == item);
        *held = left;
        if held.is_empty() {
            self.executions.results.remove(&key);
        }
        for (_, handle) in taken {
            self.drop_count(handle, Count::Held);
        }
    }

    pub(crate) fn executions_of_gone(&mut self, peer: WorkerId) {
        self.executions.kept.forget(&peer);
        if self.executions.received.sender_gone(peer) {
            self.actions.push(Action::Forgotten);
        }
        let theirs: Vec<ExecutionId> =
            self.executions.table.iter().filter(|(_, e)| e.caller == Some(peer)).map(|(id, _)| id).collect();
        for id in theirs {
            if let Some(at) = self.executions.queue.iter().position(|queued| *queued == id) {
                self.executions.queue.remove(at);
                if let Some(execution) = self.executions.table.remove(id) {
                    for handle in execution.holds {
                        self.drop_count(handle, Count::Held);
                    }
                }
            } else if let Some(execution) = self.executions.table.get_mut(id) {
                execution.caller = None;
                // Nobody would ever give it room.
                if execution.production.is_some() {
                    self.abort_execution(id, false, true);
                }
            }
        }
        let gone: Vec<_> = self.executions.results.keys().filter(|key| key.0 == peer).copied().collect();
        for (caller, task, attempt) in gone {
            self.on_taken(caller, (task, attempt), None);
        }
    }
}
