//! Streams that this process makes: which item comes next, whether there is room for it, what an earlier run made.

use heliostat_proto::digest::chain;
use heliostat_proto::message::{Item, StreamSpec, ToPeer};
use heliostat_proto::{Blob, ObjectId, TaskId, Value, WorkerId};

use crate::action::{ExecutionId, Handle, WaitId};
use crate::core::Core;
use crate::exec::{Execution, Executions};

/// Most items of a stream: the indices of objects below those of puts.
const MAX_ITEMS: u64 = (ObjectId::FIRST_PUT - 1) as u64;

/// What a run made so far.
#[derive(Debug)]
pub(crate) struct Production {
    spec: StreamSpec,
    made: u64,
    /// What the items come to.
    digest: u64,
    pub(crate) waits: Vec<WaitId>,
}

impl Production {
    pub(crate) fn new(spec: StreamSpec) -> Self {
        Self { spec, made: 0, digest: 0, waits: Vec::new() }
    }
}

/// Whether a run may make its next item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// It may.
    Free,
    /// Not before some of its items were taken.
    Full,
    /// Nobody wants any more.
    Ended,
}

/// What is to become of a run's next item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ItemPlace {
    /// The object that it is.
    pub id: ObjectId,
    /// The seat in the store that it belongs to.
    pub seat: u32,
    /// Whether it is there already, made by an earlier run.
    pub known: bool,
    /// Whether its digest is wanted.
    pub digest: bool,
}

impl Executions {
    pub(crate) fn forget_wait(&mut self, id: WaitId) {
        for (_, execution) in self.table.iter_mut() {
            if let Some(production) = &mut execution.production {
                production.waits.retain(|wait| *wait != id);
            }
        }
    }
}

fn room(execution: &Execution) -> Room {
    match &execution.production {
        Some(production) if execution.aborted.is_none() && execution.caller.is_some() => {
            if production.made < production.spec.limit { Room::Free } else { Room::Full }
        }
        _ => Room::Ended,
    }
}

impl Core {
    /// Whether a run may make its next item.
    pub fn room(&self, id: ExecutionId) -> Room {
        self.execution(id).map_or(Room::Ended, room)
    }

    /// Waits until a run may make its next item, or nobody wants it; `None` when that is so already.
    pub fn wait_room(&mut self, id: ExecutionId) -> Option<WaitId> {
        if self.room(id) != Room::Full {
            return None;
        }
        let wait = self.open_wait();
        if let Some(production) = self.executions.table.get_mut(id).and_then(|execution| execution.production.as_mut())
        {
            production.waits.push(wait);
        }
        Some(wait)
    }

    /// What is to become of the next item of a run; `None` when there are no numbers left for it.
    pub fn next_place(&self, id: ExecutionId) -> Option<ItemPlace> {
        let execution = self.execution(id)?;
        let production = execution.production.as_ref().filter(|production| production.made < MAX_ITEMS)?;
        Some(ItemPlace {
            id: execution.spec.task.object(production.made as u32 + 1),
            seat: execution.spec.seat,
            known: production.made < production.spec.known,
            digest: production.spec.digests,
        })
    }

    /// A run made its next item; `blob` is left out when that is known. Returns whether it may make another.
    pub fn push_item(&mut self, id: ExecutionId, blob: Option<Blob>, contains: &[Handle], digest: u64) -> Room {
        let Some(execution) = self.executions.table.get_mut(id) else { return self.drop_item(blob) };
        let (Some(caller), None) = (execution.caller, execution.aborted) else { return self.drop_item(blob) };
        let Some(production) = &mut execution.production else { return self.drop_item(blob) };
        production.made += 1;
        production.digest = chain(production.digest, digest);
        let (index, known) = (production.made, production.spec.known);
        let replayed = (index == known).then_some(production.digest);
        let (task, attempt) = (execution.spec.task, execution.spec.attempt);
        if let Some(blob) = blob {
            self.hold_for(caller, (task, attempt), Some(index as u32), contains);
            self.send(caller, ToPeer::Items { task, attempt, replayed: None, items: vec![Item { blob, digest }] });
        } else if replayed.is_some() {
            self.send(caller, ToPeer::Items { task, attempt, replayed, items: Vec::new() });
        }
        self.room(id)
    }

    fn drop_item(&mut self, blob: Option<Blob>) -> Room {
        self.discard(&blob.map(Value::Ready).into_iter().collect::<Vec<_>>());
        Room::Ended
    }

    /// The caller took items of a run.
    pub(crate) fn on_credit(&mut self, caller: WorkerId, run: (TaskId, u32), limit: u64) {
        let found = self.executions.table.iter_mut().find(|(_, execution)| {
            execution.caller == Some(caller) && (execution.spec.task, execution.spec.attempt) == run
        });
        let Some(production) = found.and_then(|(_, execution)| execution.production.as_mut()) else { return };
        production.spec.limit = production.spec.limit.max(limit);
        let waits = std::mem::take(&mut production.waits);
        self.wake(waits);
    }
}
