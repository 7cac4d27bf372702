//! Tasks that are sent behind the task whose result they take, before it has ended.
//!
//! A chain of short tasks would cost a round trip for each otherwise. The owner sends a task to the worker that has the makers
//! of all its missing arguments, naming these by their ids. Runs of a worker end in order, so the values are there when the
//! task's turn comes. Where they are not after all (the maker was tried again, its result holds references, it ended before
//! the worker knew that somebody follows), the task comes back and waits at its owner like any other.

use std::collections::VecDeque;

use heliostat_proto::message::ToPeer;
use heliostat_proto::{Blob, Failure, ObjectId, TaskId, Value, WorkerId};

use crate::action::{ExecutionId, Handle};
use crate::core::Core;
use crate::hash::HashMap;
use crate::objects::{Count, Place};
use crate::tasks::Stage;

/// Most arguments by reference, and most results and dependents looked at, so that a look stays cheap.
const FEW: usize = 8;
/// Most results, and most bytes of them, that a worker keeps for the followers of one process.
const KEPT: (usize, usize) = (64, 1 << 20);

/// Results of the latest runs for processes that send followers.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    by_caller: HashMap<WorkerId, Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    results: VecDeque<(TaskId, Vec<Value>)>,
    bytes: usize,
}

/// What a follower takes.
enum Found {
    Values(Vec<(u32, Blob)>),
    Failed(Box<Failure>),
    Unknown,
}

fn inline_bytes(values: &[Value]) -> usize {
    let bytes = |value: &Value| if let Value::Ready(Blob::Inline(bytes)) = value { bytes.len() } else { 0 };
    values.iter().map(bytes).sum()
}

impl Kept {
    /// From here on this process's results are kept.
    pub(crate) fn begin(&mut self, caller: WorkerId) {
        self.by_caller.entry(caller).or_default();
    }

    pub(crate) fn add(&mut self, caller: WorkerId, task: TaskId, values: &[Value]) {
        let Some(ring) = self.by_caller.get_mut(&caller) else { return };
        ring.bytes += inline_bytes(values);
        ring.results.push_back((task, values.to_vec()));
        while ring.results.len() > KEPT.0 || ring.bytes > KEPT.1 {
            let Some((_, oldest)) = ring.results.pop_front() else { break };
            ring.bytes -= inline_bytes(&oldest);
        }
    }

    pub(crate) fn forget(&mut self, caller: &WorkerId) {
        self.by_caller.remove(caller);
    }

    fn value(&self, caller: &WorkerId, id: &ObjectId) -> Option<&Value> {
        let task = id.task();
        let (_, values) = self.by_caller.get(caller)?.results.iter().rev().find(|(made, _)| *made == task)?;
        values.get((id.index() as usize).checked_sub(1)?)
    }

    fn find(&self, caller: &WorkerId, follows: &[(u32, ObjectId)]) -> Found {
        let mut found = Vec::with_capacity(follows.len());
        for (position, id) in follows {
            match self.value(caller, id) {
                Some(Value::Ready(blob)) => found.push((*position, blob.clone())),
                Some(Value::Failed(failure)) => return Found::Failed(Box::new(failure.inherited())),
                None => return Found::Unknown,
            }
        }
        Found::Values(found)
    }
}

impl Core {
    /// Sends tasks behind the last one in flight to a worker that take its result.
    pub(crate) fn follow(&mut self, lease: u64, now: u64) {
        while let Some(next) = self.follower(lease) {
            if !self.push_behind(lease, next, now) {
                return;
            }
        }
    }

    /// Sends a task that was just submitted behind the makers of its arguments, if one worker has all of them.
    pub(crate) fn follow_makers(&mut self, task: u32, now: u64) {
        let Some(entry) = self.tasks.table.get(task) else { return };
        let Some((_, handle)) = entry.by_ref.iter().find(|(_, handle)| !self.is_ready(*handle)) else { return };
        if let Some(lease) = self.made_by(*handle)
            && self.may_follow(task, lease)
            && self.push_behind(lease, task, now)
        {
            self.follow(lease, now);
        }
    }

    fn push_behind(&mut self, lease: u64, task: u32, now: u64) -> bool {
        let room = self.tasks.table.get(task).map(|task| self.tasks.depth_of(&task.spec.function));
        if room.is_none_or(|room| self.tasks.in_flight(lease, now).is_none_or(|in_flight| in_flight >= room)) {
            return false;
        }
        self.push(lease, task, now);
        self.tasks.table.get(task).is_some_and(|task| task.stage == Stage::Sent(lease))
    }

    fn follower(&self, lease: u64) -> Option<u32> {
        let last = self.tasks.table.get(self.tasks.last_of(lease)?)?;
        let dependents = last.returns.iter().take(FEW).filter_map(|handle| self.objects.get(*handle)?.extra.as_ref());
        let mut some = dependents.flat_map(|extra| extra.dependents.iter().take(FEW));
        some.find(|task| self.may_follow(**task, lease)).copied()
    }

    fn may_follow(&self, task: u32, lease: u64) -> bool {
        let Some(task) = self.tasks.table.get(task) else { return false };
        task.stage == Stage::Waiting
            && self.tasks.is_of(lease, task.shape)
            && task.by_ref.len() <= FEW
            && task.by_ref.iter().all(|(_, handle)| match self.place(*handle) {
                Place::Inline(_) | Place::Stored(_) => true,
                Place::Pending => self.made_by(*handle) == Some(lease),
                Place::Failed => false,
            })
    }

    /// The lease whose worker makes a value for this process.
    pub(crate) fn made_by(&self, handle: Handle) -> Option<u64> {
        let object = self.objects.get(handle).filter(|object| object.owner.is_none())?;
        let maker = self.tasks.table.get(*self.tasks.by_id.get(&object.id.task())?)?;
        match maker.stage {
            Stage::Sent(lease) if maker.aborted.is_none() => Some(lease),
            _ => None,
        }
    }

    /// Makes the first of the queue ready to run: gives it the results that it follows. Those that cannot have them fail, or
    /// go back to their owners.
    pub(crate) fn front(&mut self) -> Option<ExecutionId> {
        loop {
            let id = *self.executions.queue.front()?;
            let execution = self.executions.table.get_mut(id)?;
            if execution.spec.follows.is_empty() {
                return Some(id);
            }
            let follows = std::mem::take(&mut execution.spec.follows);
            let (caller, returns) = (execution.caller, execution.spec.returns);
            let found = caller.map_or(Found::Unknown, |caller| self.executions.kept.find(&caller, &follows));
            match found {
                Found::Values(values) => {
                    execution.spec.by_ref.extend(values);
                    execution.spec.by_ref.sort_unstable_by_key(|(position, _)| *position);
                    return Some(id);
                }
                Found::Failed(failure) => {
                    self.executions.queue.pop_front();
                    let results = vec![Value::Failed(failure); returns.map_or(1, |count| count as usize)];
                    self.finish(id, results, &[], 0, false);
                }
                Found::Unknown => {
                    self.executions.queue.pop_front();
                    self.give_back(id);
                }
            }
        }
    }

    fn give_back(&mut self, id: ExecutionId) {
        let Some(execution) = self.executions.table.remove(id) else { return };
        for handle in execution.holds {
            self.drop_count(handle, Count::Held);
        }
        if let Some(caller) = execution.caller {
            let returned = vec![(execution.spec.task, execution.spec.attempt)];
            self.send(caller, ToPeer::Paused { waiting: self.executions.paused, returned });
        }
    }
}
