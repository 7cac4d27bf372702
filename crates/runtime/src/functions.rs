//! Functions that tasks of this process run: known by a hash, sent to a process once, forgotten everywhere with their
//! last use.

use heliostat_proto::message::{FunctionHash, ToPeer};
use heliostat_proto::{Blob, Value, WorkerId};

use crate::action::Handle;
use crate::core::{Core, Function};
use crate::objects::Count;

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

    pub(crate) fn forget_unused(&mut self, function: &FunctionHash) {
        if !self.functions.get(function).is_some_and(|known| known.users == 0 && known.tasks == 0) {
            return;
        }
        let Some(known) = self.functions.remove(function) else { return };
        self.tasks.durations.remove(function);
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

    /// Sends the function ahead of its first task there.
    pub(crate) fn provide(&mut self, worker: WorkerId, function: FunctionHash) {
        if self.defined.entry(worker).or_default().insert(function)
            && let Some(known) = self.functions.get(&function)
        {
            let blob = known.blob.clone();
            self.send(worker, ToPeer::Define { function, blob });
        }
    }
}
