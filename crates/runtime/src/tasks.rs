//! Tasks that this process submitted: waiting for arguments, queued for a worker, running, retried, ended.

use std::collections::{BTreeSet, VecDeque};

use heliostat_proto::message::{FunctionHash, Resources, TaskSpec};
use heliostat_proto::{Blob, EnvId, Failure, TaskId, Value};

use crate::action::{Action, ExecutionId, Handle};
use crate::core::{Core, Look, NoValues, Values};
use crate::exec::Execution;
use crate::hash::HashMap;
use crate::leases::{Lease, Shape};
use crate::objects::{Count, Place};
use crate::pressure::OUT_OF_MEMORY;
use crate::slab::Slab;
use crate::streams::Supply;

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
    /// Whether it gives a stream of items, and how many of them may be made before they are taken. Its one reference
    /// then tells of its end, and names the stream.
    pub stream: Option<u32>,
    /// What it takes while it runs.
    pub resources: Resources,
    /// The environment that its worker was started for.
    pub env: EnvId,
    /// Why there is no such environment, where it could not be set up: the task fails so.
    pub unfit: Option<Box<Failure>>,
    /// Runs after a crash of its worker, or after what the next two fields say; negative for no bound.
    pub max_retries: i64,
    /// Whether it is tried again after an error: of the classes that came with the function, or any when none came.
    pub retries_errors: bool,
    /// Whether it is tried again after it ran too long.
    pub retries_timeouts: bool,
    /// Milliseconds that each run may take.
    pub timeout: Option<u64>,
    /// It was cancelled before it was submitted.
    pub cancelled: bool,
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
    pub(crate) again: bool,
}

/// Tasks and leases.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    pub(crate) table: Slab<Task>,
    pub(crate) by_id: HashMap<TaskId, u32>,
    pub(crate) shapes: Vec<Shape>,
    by_needs: HashMap<(Resources, EnvId), usize>,
    pub(crate) leases: HashMap<u64, Lease>,
    pub(crate) requests: HashMap<u64, usize>,
    pub(crate) next_request: u64,
    /// Nanoseconds that runs of a function take: a moving average.
    pub(crate) durations: HashMap<FunctionHash, u64>,
    /// The latest time that was told.
    pub(crate) now: u64,
    /// (due, task) of retries that back off.
    pub(crate) delayed: BTreeSet<(u64, u32)>,
    /// (due, task) of runs whose time is bounded, and of aborted ones whose worker is killed then.
    pub(crate) deadlines: BTreeSet<(u64, u32)>,
    /// Tasks that an argument's failure is to end: one after the other, however long a chain of them is.
    failing: VecDeque<(u32, Failure)>,
    /// Whether they are being ended.
    is_failing: bool,
}

#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) spec: TaskSpec,
    pub(crate) by_ref: Vec<(u32, Handle)>,
    /// Arguments without a value.
    pub(crate) missing: usize,
    /// Its references; none once they are settled.
    pub(crate) returns: Vec<Handle>,
    contains: Vec<Handle>,
    pub(crate) retries_left: i64,
    failures: u32,
    pub(crate) shape: usize,
    pub(crate) parent: Option<TaskId>,
    pub(crate) stage: Stage,
    pub(crate) retries_timeouts: bool,
    pub(crate) timeout: Option<u64>,
    /// Its entry among the deadlines.
    pub(crate) due: Option<u64>,
    /// What follows the end of this run, which does not count any more.
    pub(crate) aborted: Option<After>,
    /// The worker is killed if the aborted run is under way.
    pub(crate) force: bool,
    /// What came of its items, if it gives a stream.
    pub(crate) supply: Option<Supply>,
}

/// Where a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// For its arguments.
    Waiting,
    /// In the queue of its shape.
    Queued,
    /// Until its back-off is over.
    Delayed(u64),
    /// With the worker of this lease, perhaps behind the makers of arguments that are missing.
    Sent(u64),
}

/// What follows the end of an aborted run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// Nothing: its references are settled.
    Nothing,
    /// Another run.
    Retry,
}

impl Tasks {
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn lease_count(&self) -> usize {
        self.leases.len()
    }

    fn shape(&mut self, resources: Resources, env: EnvId) -> usize {
        let shapes = &mut self.shapes;
        *self.by_needs.entry((resources, env)).or_insert_with_key(|(resources, env)| {
            shapes.push(Shape::new(resources.clone(), *env));
            shapes.len() - 1
        })
    }

    /// Sets or takes away the deadline of a task.
    pub(crate) fn set_due(&mut self, id: u32, due: Option<u64>) {
        let Some(task) = self.table.get_mut(id) else { return };
        if let Some(old) = std::mem::replace(&mut task.due, due) {
            self.deadlines.remove(&(old, id));
        }
        if let Some(due) = due {
            self.deadlines.insert((due, id));
        }
    }
}

impl Core {
    /// Submits a task; the references of its results can be used at once.
    pub fn submit(&mut self, submission: Submission, now: u64, look: &dyn Values) -> Vec<Handle> {
        let id = self.child_of(submission.parent);
        let parent = submission.parent.and_then(|id| self.execution(id));
        let cancelled = submission.cancelled || parent.is_some_and(Execution::cancels_children);
        let parent = parent.map(|execution| execution.spec.task);
        let indices = if submission.stream.is_some() { 0..=0 } else { 1..=submission.returns.unwrap_or(1) };
        let returns: Vec<Handle> = indices
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
        let shape = self.tasks.shape(submission.resources, submission.env);
        let spec = TaskSpec {
            task: id,
            attempt: 0,
            job: self.me.job,
            name: submission.name,
            function: submission.function,
            args: submission.args,
            by_ref: Vec::new(),
            follows: Vec::new(),
            returns: submission.returns,
            stream: None,
            seat: self.me.seat,
            timed: submission.timeout.is_some(),
            retries_errors: submission.retries_errors,
        };
        let by_ref = submission.by_ref;
        let supply = submission.stream.map(|buffered| {
            self.open_stream(returns[0], id, buffered);
            Supply::new(returns[0], submission.max_retries != 0)
        });
        let task = self.tasks.table.insert(Task {
            spec,
            by_ref: by_ref.clone(),
            missing: 0,
            returns: returns.clone(),
            contains: submission.contains,
            retries_left: submission.max_retries,
            failures: 0,
            shape,
            parent,
            stage: Stage::Waiting,
            retries_timeouts: submission.retries_timeouts,
            timeout: submission.timeout,
            due: None,
            aborted: None,
            force: false,
            supply,
        });
        self.tasks.by_id.insert(id, task);
        if let Some(failure) = self.gone.clone().or(submission.unfit.map(|failure| *failure)) {
            self.fail_task(task, failure);
            return returns;
        }
        if cancelled {
            self.cancel_task(&id, false, true, now);
            return returns;
        }
        self.await_arguments(task, &by_ref, now, look);
        returns
    }

    fn await_arguments(&mut self, task: u32, by_ref: &[(u32, Handle)], now: u64, look: Look<'_>) {
        for (_, handle) in by_ref {
            self.need(*handle, look);
            match self.place(*handle) {
                Place::Inline(_) | Place::Stored(_) => {}
                Place::Failed => {
                    let Some(failure) = self.failure(*handle).map(Failure::inherited) else { continue };
                    self.observe(*handle);
                    return self.fail_task(task, failure);
                }
                Place::Pending => {
                    if let (Some(object), Some(entry)) = (self.objects.get_mut(*handle), self.tasks.table.get_mut(task))
                    {
                        object.extra().dependents.push(task);
                        entry.missing += 1;
                    }
                }
            }
        }
        match self.tasks.table.get(task).map(|task| task.missing) {
            Some(0) => {
                let shape = self.enqueue(task);
                self.pump(shape, now);
            }
            Some(_) => self.follow_makers(task, now),
            None => {}
        }
    }

    /// Puts a task at the end of the queue of its shape.
    pub(crate) fn enqueue(&mut self, id: u32) -> usize {
        let Some(task) = self.tasks.table.get_mut(id) else { return 0 };
        task.stage = Stage::Queued;
        self.tasks.shapes[task.shape].queue.push_back(id);
        task.shape
    }

    /// One argument of these tasks has its value.
    pub(crate) fn dependencies_ready(&mut self, dependents: &[u32], value: &Value) {
        let mut shapes = Vec::new();
        for id in dependents {
            let Some(task) = self.tasks.table.get_mut(*id) else { continue };
            if let Value::Failed(failure) = value {
                self.tasks.failing.push_back((*id, failure.inherited()));
                continue;
            }
            task.missing = task.missing.saturating_sub(1);
            if task.missing == 0 && task.stage == Stage::Waiting {
                let shape = self.enqueue(*id);
                if !shapes.contains(&shape) {
                    shapes.push(shape);
                }
            }
        }
        for shape in shapes {
            self.pump(shape, 0);
        }
        self.end_failing();
    }

    /// Ends tasks of which an argument failed. Each may be an argument of further ones.
    fn end_failing(&mut self) {
        if std::mem::replace(&mut self.tasks.is_failing, true) {
            return;
        }
        while let Some((id, failure)) = self.tasks.failing.pop_front() {
            match self.tasks.table.get(id).map(|task| task.stage) {
                Some(Stage::Sent(_)) => {
                    self.abort_run(id, After::Nothing, false, false);
                    self.settle_failed(id, failure);
                }
                Some(_) => self.fail_task(id, failure),
                None => {}
            }
        }
        self.tasks.is_failing = false;
    }

    /// Gives a task's references their values. The task stays until [`Core::remove_task`].
    pub(crate) fn settle_task(&mut self, id: u32, values: Vec<Value>, look: Look<'_>) {
        let Some(task) = self.tasks.table.get_mut(id) else { return };
        let returns = std::mem::take(&mut task.returns);
        let stream = task.supply.as_ref().map(|supply| supply.stream);
        debug_assert_eq!(values.len(), returns.len());
        if values.iter().any(|value| matches!(value, Value::Failed(_))) {
            let name = task.spec.name.clone();
            let last = stream.and_then(|stream| self.fail_stream(stream, &values[0]));
            let failed: Vec<Handle> = returns.iter().copied().chain(last).collect();
            self.note_failed(&failed, &values, name);
        }
        if let Some(stream) = stream {
            self.end_stream(stream);
        }
        for (handle, value) in returns.into_iter().zip(values) {
            // free() may have settled it already: then the late bytes are nobody's.
            if self.is_ready(handle) {
                self.discard(&[value]);
            } else {
                self.resolve(handle, value, look);
            }
            self.drop_count(handle, Count::Held);
        }
    }

    /// Lets go of all that a task holds: it is not with a worker, and its references are settled.
    pub(crate) fn remove_task(&mut self, id: u32) {
        self.tasks.set_due(id, None);
        let Some(task) = self.tasks.table.remove(id) else { return };
        self.tasks.by_id.remove(&task.spec.task);
        if let Blob::Stored(locator) = task.spec.args {
            self.actions.push(Action::Free(locator));
        }
        if let Some(known) = self.functions.get_mut(&task.spec.function) {
            known.tasks = known.tasks.saturating_sub(1);
        }
        self.forget_unused(&task.spec.function);
        for (_, handle) in &task.by_ref {
            // Numbers of tasks are used again: arguments that are still to come must not name this one.
            if task.missing > 0
                && let Some(extra) = self.objects.get_mut(*handle).and_then(|object| object.extra.as_mut())
            {
                extra.dependents.retain(|other| *other != id);
            }
        }
        for handle in task.contains.into_iter().chain(task.by_ref.into_iter().map(|(_, handle)| handle)) {
            self.drop_count(handle, Count::Held);
        }
    }

    pub(crate) fn fail_task(&mut self, id: u32, failure: Failure) {
        self.settle_failed(id, failure);
        self.remove_task(id);
    }

    /// Fails all references of a task, which stays.
    pub(crate) fn settle_failed(&mut self, id: u32, failure: Failure) {
        let Some(task) = self.tasks.table.get(id) else { return };
        let values = vec![Value::Failed(Box::new(failure)); task.returns.len()];
        self.settle_task(id, values, &NoValues);
    }

    /// Runs a task once more after a back-off.
    pub(crate) fn retry(&mut self, id: u32, now: u64) {
        self.retry_after(id, now, BACKOFF_MS);
    }

    /// The same after the end of its worker.
    pub(crate) fn retry_elsewhere(&mut self, id: u32, now: u64, failure: &Failure) {
        let out_of_memory = failure.code == OUT_OF_MEMORY;
        self.retry_after(id, now, if out_of_memory { MEMORY_BACKOFF_MS } else { BACKOFF_MS });
    }

    fn retry_after(&mut self, id: u32, now: u64, (first, last): (u64, u64)) {
        self.tasks.set_due(id, None);
        let Some(task) = self.tasks.table.get_mut(id) else { return };
        task.retries_left = (task.retries_left - 1).max(-1);
        task.spec.attempt += 1;
        task.failures += 1;
        task.aborted = None;
        let stream = task.supply.as_ref().map(|supply| supply.stream);
        let backoff = (first << (task.failures - 1).min(10)).min(last);
        task.stage = Stage::Delayed(now + backoff);
        self.tasks.delayed.insert((now + backoff, id));
        if let Some(stream) = stream {
            self.drop_unmakeable(stream);
        }
    }

    /// Of a run that ended with its worker: what it had sealed and could not tell of any more is ours, and nobody's value.
    pub(crate) fn free_sealed(&mut self, id: u32, look: Look<'_>) {
        let Some(task) = self.tasks.table.get(id) else { return };
        let results = match &task.supply {
            Some(supply) => supply.unseen(),
            None => 1..=task.spec.returns.unwrap_or(1),
        };
        let sealed = results.filter_map(|index| look.lookup(&task.spec.task.object(index)));
        self.actions.extend(sealed.map(Action::Free));
    }
}
