//! Tasks that run in this process.

use std::collections::{HashMap, VecDeque};

use heliostat_proto::message::{FunctionHash, TaskSpec, ToPeer};
use heliostat_proto::{Blob, TaskId, Value, WorkerId};

use crate::action::{Action, ExecutionId, Handle};
use crate::core::{Core, Look};
use crate::objects::Count;
use crate::slab::Slab;
use crate::tasks::STALLED_MS;

/// What runs, or waits to run, here.
#[derive(Debug, Default)]
pub(crate) struct Executions {
    table: Slab<Execution>,
    queue: VecDeque<ExecutionId>,
    functions: HashMap<FunctionHash, Blob>,
    /// Functions that the program need not keep any more.
    forgotten: Vec<FunctionHash>,
    /// References inside results that their new holder has not registered yet.
    results: HashMap<(WorkerId, TaskId, u32), Vec<Handle>>,
    /// The running task waits for objects.
    paused: bool,
    /// Tasks that were begun.
    begun: u64,
    /// Tasks wait behind the one that was begun as the so-manieth, since then.
    stalled: Option<(u64, u64)>,
}

/// A task that runs here.
#[derive(Debug)]
pub struct Execution {
    /// Who wants the results; `None` when that process ended meanwhile.
    pub caller: Option<WorkerId>,
    /// The task.
    pub spec: TaskSpec,
    /// References inside its arguments.
    holds: Vec<Handle>,
    /// Tasks that it submitted so far.
    pub(crate) children: u64,
}

impl Executions {
    pub(crate) fn define(&mut self, function: FunctionHash, blob: Blob) {
        self.functions.insert(function, blob);
    }

    pub(crate) fn forget(&mut self, function: FunctionHash) {
        if self.functions.remove(&function).is_some() {
            self.forgotten.push(function);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }
}

impl Core {
    pub(crate) fn on_run(&mut self, caller: WorkerId, spec: TaskSpec, look: Look<'_>) {
        if self.executions.paused {
            // It may be what the waiting task needs.
            let returned = vec![(spec.task, spec.attempt)];
            return self.send(caller, ToPeer::Paused { waiting: true, returned });
        }
        let blobs = std::iter::once(&spec.args).chain(spec.by_ref.iter().map(|(_, blob)| blob));
        let entries: Vec<_> = blobs.flat_map(|blob| look.refs_of(blob)).collect();
        let holds = entries.iter().map(|entry| self.acquire(entry, Count::Held)).collect();
        let id = self.executions.table.insert(Execution { caller: Some(caller), spec, holds, children: 0 });
        self.executions.queue.push_back(id);
        self.actions.push(Action::Execute(id));
    }

    /// Takes the next task to run, in the order of arrival.
    pub fn next_execution(&mut self) -> Option<ExecutionId> {
        self.executions.begun += 1;
        self.executions.queue.pop_front()
    }

    /// Gives back what waits behind a task that has run for long, to run elsewhere. Returns when to look again.
    pub(crate) fn return_stalled(&mut self, now: u64) -> Option<u64> {
        let Executions { table, queue, begun, stalled, .. } = &mut self.executions;
        let runs = table.len() > queue.len();
        if queue.is_empty() || !runs {
            *stalled = None;
            return None;
        }
        let (_, since) = *stalled.insert(stalled.filter(|(last, _)| last == begun).unwrap_or((*begun, now)));
        if now <= since + STALLED_MS {
            return Some(since + STALLED_MS + 1);
        }
        self.return_queued(false);
        None
    }

    /// The running task begins or ends to wait for objects. What had not begun goes back to its callers: it may be what
    /// the task waits for, and nothing would ever begin it here.
    pub fn pause(&mut self, waiting: bool) {
        if std::mem::replace(&mut self.executions.paused, waiting) == waiting {
            return;
        }
        self.return_queued(waiting);
    }

    /// Tells the callers whether the running task waits, and gives back what had not begun.
    fn return_queued(&mut self, waiting: bool) {
        let mut callers: HashMap<WorkerId, Vec<(TaskId, u32)>> =
            self.executions.table.iter().filter_map(|(_, e)| Some((e.caller?, Vec::new()))).collect();
        for id in std::mem::take(&mut self.executions.queue) {
            let Some(execution) = self.executions.table.remove(id) else { continue };
            if let Some(caller) = execution.caller {
                callers.entry(caller).or_default().push((execution.spec.task, execution.spec.attempt));
            }
            for handle in execution.holds {
                self.drop_count(handle, Count::Held);
            }
        }
        for (peer, returned) in callers {
            self.send(peer, ToPeer::Paused { waiting, returned });
        }
    }

    /// A task that runs here.
    pub fn execution(&self, id: ExecutionId) -> Option<&Execution> {
        self.executions.table.get(id)
    }

    /// The serialised function of a task.
    pub fn function(&self, hash: &FunctionHash) -> Option<&Blob> {
        self.executions.functions.get(hash)
    }

    /// The functions that were forgotten since the last call.
    pub fn take_forgotten(&mut self) -> Vec<FunctionHash> {
        std::mem::take(&mut self.executions.forgotten)
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

    /// The task ended. `contains` are the handles of the references inside all of `values`.
    pub fn finish(&mut self, id: ExecutionId, values: Vec<Value>, contains: &[Handle], nanos: u64) {
        let Some(execution) = self.executions.table.remove(id) else { return };
        let (task, attempt) = (execution.spec.task, execution.spec.attempt);
        if let Some(caller) = execution.caller {
            if !contains.is_empty() {
                for handle in contains {
                    self.objects.add(*handle, Count::Held);
                }
                self.executions.results.insert((caller, task, attempt), contains.to_vec());
            }
            self.send_gated(caller, ToPeer::Done { task, attempt, values, nanos });
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

    pub(crate) fn on_taken(&mut self, caller: WorkerId, task: TaskId, attempt: u32) {
        for handle in self.executions.results.remove(&(caller, task, attempt)).unwrap_or_default() {
            self.drop_count(handle, Count::Held);
        }
    }

    pub(crate) fn executions_of_gone(&mut self, peer: WorkerId) {
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
            }
        }
        let gone: Vec<_> = self.executions.results.keys().filter(|key| key.0 == peer).copied().collect();
        for (caller, task, attempt) in gone {
            self.on_taken(caller, task, attempt);
        }
    }
}
