//! Runs that end before they are done: cancelled tasks, and those that take too long.
//!
//! The references of such a task are settled at once. What runs for it is told, and counts for nothing from then on; the
//! task keeps its place with the worker, and its arguments, until the worker says that the run has ended.

use heliostat_proto::message::{ToDaemon, ToPeer};
use heliostat_proto::{Failure, TaskId, WorkerId};

use crate::action::Handle;
use crate::core::Core;
use crate::tasks::{After, Stage};

/// How long the code of a run that is to end may take to do so before its process is killed, in milliseconds.
pub const GRACE_MS: u64 = 1_000;

impl Core {
    /// Cancels the task that makes an object; nothing happens when it has ended, or when none makes it. With `force` the
    /// worker is killed when the task runs there. `recursive` cancels the tasks that it submitted, too.
    pub fn cancel(&mut self, handle: Handle, force: bool, recursive: bool, now: u64) {
        let Some(object) = self.objects.get(handle) else { return };
        let id = object.id;
        match object.owner {
            Some(owner) if object.value.is_none() && !id.is_put() => {
                self.send(owner, ToPeer::Cancel { object: id, force, recursive });
            }
            Some(_) => {}
            None => self.cancel_task(&id.task(), force, recursive, now),
        }
    }

    /// The same by the task's id, which need not be known any more.
    pub fn cancel_task(&mut self, task: &TaskId, force: bool, recursive: bool, now: u64) {
        let Some(id) = self.tasks.by_id.get(task).copied() else { return };
        let Some(task) = self.tasks.table.get_mut(id) else { return };
        let stage = task.stage;
        let failure = Failure::new("TASK_CANCELLED", format!("{}() was cancelled", task.spec.name));
        let (shape, settled) = (task.shape, task.aborted == Some(After::Nothing));
        match stage {
            Stage::Sent(_) => {
                task.force |= force;
                if !settled || force {
                    self.abort_run(id, After::Nothing, false, recursive);
                }
                if force {
                    self.tasks.set_due(id, Some(now + GRACE_MS));
                }
                if !settled {
                    self.settle_failed(id, failure);
                }
            }
            Stage::Waiting => self.fail_task(id, failure),
            Stage::Queued => {
                self.tasks.shapes[shape].queue.retain(|other| *other != id);
                self.fail_task(id, failure);
            }
            Stage::Delayed(due) => {
                self.tasks.delayed.remove(&(due, id));
                self.fail_task(id, failure);
            }
        }
        self.pump(shape, now);
    }

    /// Whether the task of this id has not ended.
    pub fn is_unfinished(&self, task: &TaskId) -> bool {
        self.tasks.by_id.contains_key(task)
    }

    /// Cancels what a task submitted.
    pub(crate) fn cancel_children(&mut self, parent: TaskId, now: u64) {
        let children = self.tasks.table.iter().filter(|(_, task)| task.parent == Some(parent));
        let children: Vec<TaskId> = children.map(|(_, task)| task.spec.task).collect();
        for child in children {
            self.cancel_task(&child, false, true, now);
        }
    }

    /// The run of a task that is with a worker does not count any more.
    pub(crate) fn abort_run(&mut self, id: u32, after: After, late: bool, recursive: bool) {
        let Some(task) = self.tasks.table.get_mut(id) else { return };
        let Stage::Sent(lease) = task.stage else { return };
        let first = task.aborted.replace(after).is_none();
        let (task, attempt) = (task.spec.task, task.spec.attempt);
        let Some(entry) = self.tasks.leases.get_mut(&lease) else { return };
        entry.aborting += u32::from(first);
        let worker = entry.worker;
        self.send(worker, ToPeer::Abort { task, attempt, late, recursive });
    }

    pub(crate) fn on_began(&mut self, worker: WorkerId, task: TaskId, attempt: u32, now: u64) {
        let Some((id, _)) = self.tasks.sent_to(worker, (task, attempt)) else { return };
        let Some(task) = self.tasks.table.get(id).filter(|task| task.aborted.is_none()) else { return };
        let due = task.timeout.map(|timeout| now.saturating_add(timeout));
        self.tasks.set_due(id, due);
    }

    /// The code of an aborted run was told, and nothing else begins at its worker: it may be killed without harm to others.
    pub(crate) fn on_aborting(&mut self, worker: WorkerId, run: (TaskId, u32), returned: &[(TaskId, u32)], now: u64) {
        self.take_back(worker, returned);
        let Some((id, _)) = self.tasks.sent_to(worker, run) else { return };
        let Some(task) = self.tasks.table.get(id) else { return };
        let (shape, kill) = (task.shape, task.force && task.aborted.is_some());
        if kill {
            self.daemon(ToDaemon::Kill { worker });
        }
        self.pump(shape, now);
    }

    pub(crate) fn on_overdue(&mut self, worker: WorkerId, task: TaskId, attempt: u32) {
        let Some((id, _)) = self.tasks.sent_to(worker, (task, attempt)) else { return };
        if self.tasks.table.get(id).is_some_and(|task| task.aborted.is_some()) {
            self.daemon(ToDaemon::Kill { worker });
        }
    }

    /// Ends runs whose time is over, and the workers of those that had time to end since.
    pub(crate) fn look_at_deadlines(&mut self, now: u64) {
        while let Some((due, id)) = self.tasks.deadlines.first().copied()
            && due <= now
        {
            self.tasks.set_due(id, None);
            let Some(task) = self.tasks.table.get(id) else { continue };
            let Stage::Sent(lease) = task.stage else { continue };
            if task.aborted.is_none() {
                self.time_out(id, now);
            } else if let Some(worker) = self.tasks.leases.get(&lease).map(|lease| lease.worker) {
                self.daemon(ToDaemon::Kill { worker });
            }
        }
    }

    /// A run made what it must not have made: it counts no more, and its task has failed.
    pub(crate) fn give_up(&mut self, id: u32, failure: Failure) {
        self.abort_run(id, After::Nothing, false, true);
        self.settle_failed(id, failure);
    }

    fn time_out(&mut self, id: u32, now: u64) {
        let Some(task) = self.tasks.table.get(id) else { return };
        let again = task.retries_timeouts && task.retries_left != 0;
        let failure = Failure::new(
            "TASK_TIMEOUT",
            format!("{}() ran longer than {} ms", task.spec.name, task.timeout.unwrap_or_default()),
        )
        .hint("raise timeoutMs, or let the task end when getRuntimeContext().signal aborts");
        self.abort_run(id, if again { After::Retry } else { After::Nothing }, true, true);
        self.tasks.set_due(id, Some(now + GRACE_MS));
        if !again {
            self.settle_failed(id, failure);
        }
        let shape = self.tasks.table.get(id).map(|task| task.shape);
        if let Some(shape) = shape {
            self.pump(shape, now);
        }
    }
}
