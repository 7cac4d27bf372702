//! Failures of tasks that nobody read: a program that never asks for a result must still learn that there is none.

use crate::hash::HashMap;
use heliostat_proto::{Failure, ObjectId, TaskId, Value};

use crate::action::{Action, Handle};
use crate::core::Core;

/// Failures that are no news to the program: it wanted them, or everything failed.
const EXPECTED: [&str; 3] = ["TASK_CANCELLED", "OBJECT_FREED", "NODE_DIED"];

/// Failed tasks of this process whose failure was not read.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    tasks: HashMap<TaskId, Failed>,
    /// Those of which the last reference is gone.
    gone: Vec<(String, Failure)>,
}

#[derive(Debug)]
struct Failed {
    name: String,
    handles: Vec<Handle>,
    /// References that are left.
    left: usize,
}

impl Core {
    pub(crate) fn note_failed(&mut self, handles: &[Handle], values: &[Value], name: String) {
        let expected = |value: &Value| match value {
            Value::Failed(failure) => EXPECTED.contains(&failure.code.as_str()),
            Value::Ready(_) => true,
        };
        let Some(id) = handles.first().and_then(|handle| self.id(*handle)) else { return };
        let mut observed = |handle: &Handle| {
            self.objects.get(*handle).and_then(|object| object.extra.as_ref()).is_some_and(|extra| extra.observed)
        };
        if !values.iter().any(expected) && !handles.iter().any(&mut observed) {
            let failed = Failed { name, handles: handles.to_vec(), left: handles.len() };
            self.unread.tasks.insert(id.task(), failed);
        }
    }

    /// The program, another process, or a task that needs the value was told of the reference's failure; or of that of
    /// another reference which it asked for together with this one, whose value is still to come.
    pub fn observe(&mut self, handle: Handle) {
        let Some(object) = self.objects.get_mut(handle) else { return };
        if object.value.is_none() && object.owner.is_none() {
            object.extra().observed = true;
        } else if !self.unread.tasks.is_empty() {
            let task = object.id.task();
            self.unread.tasks.remove(&task);
        }
    }

    /// A failed object is gone.
    pub(crate) fn failed_gone(&mut self, id: ObjectId, failure: Failure) {
        let task = id.task();
        let Some(failed) = self.unread.tasks.get_mut(&task) else { return };
        failed.left -= 1;
        if failed.left == 0
            && let Some(Failed { name, .. }) = self.unread.tasks.remove(&task)
        {
            self.unread.gone.push((name, failure));
            self.actions.push(Action::Unread);
        }
    }

    /// Names and failures of tasks whose last reference went unread since the last call.
    pub fn take_unread(&mut self) -> Vec<(String, Failure)> {
        std::mem::take(&mut self.unread.gone)
    }

    /// The same when the program ends: also of the references that it still has.
    pub fn take_all_unread(&mut self) -> Vec<(String, Failure)> {
        let mut all = self.take_unread();
        for (task, failed) in std::mem::take(&mut self.unread.tasks) {
            let failure = failed.handles.iter().find_map(|handle| {
                let object = self.objects.get(*handle).filter(|object| object.id.task() == task)?;
                match &object.value {
                    Some(Value::Failed(failure)) => Some(failure.as_ref().clone()),
                    _ => None,
                }
            });
            all.extend(failure.map(|failure| (failed.name, failure)));
        }
        all
    }
}
