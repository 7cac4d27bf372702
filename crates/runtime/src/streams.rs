//! Streams that this process takes: items that arrived, credit for more, replays after a retry, the end.
//!
//! A stream is named by the reference that tells of its end, which it holds as long as it is open. Items belong to this
//! process from the moment they arrive. The maker may be so many items ahead of what was taken; how far that is by now
//! goes to it in few messages: at once when half of it is due or somebody waits, else a moment later.

use std::collections::{HashMap, VecDeque};
use std::ops::RangeInclusive;

use heliostat_proto::digest::chain;
use heliostat_proto::message::{Item, StreamSpec, ToPeer};
use heliostat_proto::{Failure, TaskId, Value, WorkerId};

use crate::action::{Action, Handle, WaitId};
use crate::core::{Core, Look};
use crate::objects::Count;
use crate::tasks::Task;

/// Credit that nobody waits for is told so many milliseconds later.
const CREDIT_MS: u64 = 1;

/// What the next item of a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It is here, and a handle of the program now.
    Item(Handle),
    /// There are no more.
    Ended,
    /// It has not arrived: see [`Core::wait_item`].
    Pending,
}

/// The streams whose items the program may take.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    open: HashMap<Handle, Stream>,
    /// When credit is told that was not yet.
    due: Option<u64>,
}

#[derive(Debug)]
struct Stream {
    task: TaskId,
    buffered: u64,
    /// What arrived and was not taken, each with what all items up to it come to.
    items: VecDeque<(Handle, u64)>,
    taken: u64,
    /// What the items that were taken come to.
    digest: u64,
    ended: bool,
    waits: Vec<WaitId>,
}

/// A task's side of its stream, which it has as long as it lives.
#[derive(Debug)]
pub(crate) struct Supply {
    pub(crate) stream: Handle,
    /// Whether its items may come to be compared with those of another run.
    digests: bool,
    /// Items that the present run was told it may make.
    told: u64,
    /// Items that came of the present run, or that it was told are known.
    seen: u64,
    /// The present run has not shown yet that it makes the items that are known.
    unproven: bool,
}

impl Supply {
    pub(crate) fn new(stream: Handle, digests: bool) -> Self {
        Self { stream, digests, told: 0, seen: 0, unproven: false }
    }

    /// Indices of objects that the present run may have sealed and did not tell of.
    pub(crate) fn unseen(&self) -> RangeInclusive<u32> {
        self.seen as u32 + 1..=self.told as u32
    }
}

impl Stream {
    fn limit(&self) -> u64 {
        self.taken + self.buffered
    }

    fn arrived(&self) -> u64 {
        self.taken + self.items.len() as u64
    }

    fn arrived_digest(&self) -> u64 {
        self.items.back().map_or(self.digest, |(_, digest)| *digest)
    }
}

impl Streams {
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn forget_wait(&mut self, id: WaitId) {
        self.open.values_mut().for_each(|stream| stream.waits.retain(|wait| *wait != id));
    }

    /// A run of a task is sent: what it is told.
    pub(crate) fn start(&self, task: &mut Task) -> Option<StreamSpec> {
        let supply = task.supply.as_mut()?;
        let (limit, known) = self.open.get(&supply.stream).map_or((0, 0), |stream| (stream.limit(), stream.arrived()));
        (supply.told, supply.seen, supply.unproven) = (limit, known, known > 0);
        Some(StreamSpec { limit, known, digests: supply.digests })
    }
}

impl Core {
    pub(crate) fn open_stream(&mut self, handle: Handle, task: TaskId, buffered: u32) {
        self.objects.add(handle, Count::Held);
        let stream = Stream {
            task,
            buffered: buffered.max(1).into(),
            items: VecDeque::new(),
            taken: 0,
            digest: 0,
            ended: false,
            waits: Vec::new(),
        };
        self.streams.open.insert(handle, stream);
    }

    /// Items of a run arrived.
    pub(crate) fn on_items(
        &mut self,
        worker: WorkerId,
        run: (TaskId, u32),
        replayed: Option<u64>,
        items: Vec<Item>,
        look: Look<'_>,
    ) {
        let Some(handle) = self.taker_of(worker, run, replayed, items.len() as u64) else {
            // Of a run that does not count: its end tells the maker that nobody took them.
            let values: Vec<Value> = items.into_iter().map(|item| Value::Ready(item.blob)).collect();
            return self.discard(&values);
        };
        for Item { blob, digest } in items {
            let Some(stream) = self.streams.open.get(&handle) else { return };
            let (index, digest) = (stream.arrived() as u32 + 1, chain(stream.arrived_digest(), digest));
            let item = self.objects.create(run.0.object(index), None, Count::Held);
            self.resolve(item, Value::Ready(blob), look);
            if !self.contained(item).is_empty() {
                self.send_gated(worker, ToPeer::Taken { task: run.0, attempt: run.1, item: Some(index) });
            }
            if let Some(stream) = self.streams.open.get_mut(&handle) {
                stream.items.push_back((item, digest));
            }
        }
        self.wake_stream(handle);
    }

    /// The stream that takes what a run made, unless the run does not count any more, or not from here on.
    fn taker_of(&mut self, worker: WorkerId, run: (TaskId, u32), replayed: Option<u64>, items: u64) -> Option<Handle> {
        let (id, _) = self.tasks.sent_to(worker, run)?;
        let task = self.tasks.table.get_mut(id)?;
        let supply = task.supply.as_mut()?;
        supply.seen += items;
        let stream = self.streams.open.get(&supply.stream).filter(|_| task.aborted.is_none())?;
        let handle = supply.stream;
        if let Some(digest) = replayed {
            supply.unproven = digest != stream.arrived_digest();
            if supply.unproven {
                let failure = other_items(stream.arrived());
                self.give_up(id, failure);
                return None;
            }
        }
        Some(handle)
    }

    fn wake_stream(&mut self, handle: Handle) {
        let waits = self.streams.open.get_mut(&handle).map(|stream| std::mem::take(&mut stream.waits));
        self.wake(waits.unwrap_or_default());
    }

    /// Takes the next item.
    pub fn take_item(&mut self, handle: Handle, now: u64) -> Next {
        let Some(stream) = self.streams.open.get_mut(&handle) else { return Next::Ended };
        let Some((item, digest)) = stream.items.pop_front() else {
            return if stream.ended { Next::Ended } else { Next::Pending };
        };
        stream.taken += 1;
        stream.digest = digest;
        let (limit, half) = (stream.limit(), stream.buffered.div_ceil(2));
        self.objects.add(item, Count::Local);
        self.drop_count(item, Count::Held);
        if let Some(supply) = self.supply_of(handle) {
            if limit >= supply.told + half {
                self.tell_credit(handle);
            } else if self.streams.due.is_none() {
                self.streams.due = Some(now + CREDIT_MS);
                self.actions.push(Action::Tick);
            }
        }
        Next::Item(item)
    }

    /// Waits until there is an item, or no more; `None` when that is so already.
    pub fn wait_item(&mut self, handle: Handle) -> Option<WaitId> {
        let stream = self.streams.open.get(&handle)?;
        if stream.ended || !stream.items.is_empty() {
            return None;
        }
        // Whoever waits may do so for an item that there is no credit for yet.
        self.tell_credit(handle);
        let wait = self.open_wait();
        if let Some(stream) = self.streams.open.get_mut(&handle) {
            stream.waits.push(wait);
        }
        Some(wait)
    }

    /// The run of a stream's task, while it is under way and counts: who makes it, and its number.
    fn run_of(&self, handle: Handle) -> Option<(WorkerId, TaskId, u32)> {
        let task = self.streams.open.get(&handle)?.task;
        let entry = self.tasks.table.get(*self.tasks.by_id.get(&task)?).filter(|entry| entry.aborted.is_none())?;
        Some((self.tasks.maker(entry)?, task, entry.spec.attempt))
    }

    fn supply_of(&mut self, handle: Handle) -> Option<&mut Supply> {
        let (_, task, _) = self.run_of(handle)?;
        self.tasks.table.get_mut(*self.tasks.by_id.get(&task)?)?.supply.as_mut()
    }

    fn tell_credit(&mut self, handle: Handle) {
        let Some((worker, task, attempt)) = self.run_of(handle) else { return };
        let Some(limit) = self.streams.open.get(&handle).map(Stream::limit) else { return };
        let Some(supply) = self.supply_of(handle) else { return };
        if std::mem::replace(&mut supply.told, limit) != limit {
            self.send(worker, ToPeer::Credit { task, attempt, limit });
        }
    }

    /// Tells credit that is due. Returns when to look again.
    pub(crate) fn tell_credits(&mut self, now: u64) -> Option<u64> {
        let due = self.streams.due?;
        if now < due {
            return Some(due);
        }
        self.streams.due = None;
        let open: Vec<Handle> = self.streams.open.keys().copied().collect();
        for handle in open {
            self.tell_credit(handle);
        }
        None
    }

    /// Of items that another run is to make again, those that nobody took and that have references inside: what these
    /// refer to may have gone with the maker. They come anew, and all behind them.
    pub(crate) fn drop_unmakeable(&mut self, handle: Handle) {
        let Some(stream) = self.streams.open.get(&handle) else { return };
        let items: Vec<Handle> = stream.items.iter().map(|(item, _)| *item).collect();
        let Some(first) = items.iter().position(|item| !self.contained(*item).is_empty()) else { return };
        if let Some(stream) = self.streams.open.get_mut(&handle) {
            stream.items.truncate(first);
        }
        for item in items.into_iter().skip(first) {
            self.drop_count(item, Count::Held);
        }
    }

    /// What a run ended with, or that it did not make what another one had made.
    pub(crate) fn checked_end(&mut self, id: u32, values: Vec<Value>) -> Vec<Value> {
        let unproven = self.tasks.table.get(id).and_then(|task| task.supply.as_ref()).filter(|supply| supply.unproven);
        match unproven.and_then(|supply| self.streams.open.get(&supply.stream)) {
            Some(stream) if values.iter().all(|value| matches!(value, Value::Ready(_))) => {
                let failure = other_items(stream.arrived());
                self.discard(&values);
                vec![Value::Failed(Box::new(failure))]
            }
            _ => values,
        }
    }

    /// The maker failed: the last item says so. Returns it if somebody may take it.
    pub(crate) fn fail_stream(&mut self, handle: Handle, value: &Value) -> Option<Handle> {
        let stream = self.streams.open.get(&handle).filter(|stream| !stream.ended)?;
        let (id, digest) = (stream.task.object(stream.arrived() as u32 + 1), stream.arrived_digest());
        let item = self.objects.create(id, Some(value.clone()), Count::Held);
        self.streams.open.get_mut(&handle)?.items.push_back((item, digest));
        Some(item)
    }

    /// No more items come, if this is a stream.
    pub(crate) fn end_stream(&mut self, handle: Handle) {
        if let Some(stream) = self.streams.open.get_mut(&handle) {
            stream.ended = true;
            self.wake_stream(handle);
        }
    }

    /// Nothing comes from anywhere any more.
    pub(crate) fn end_streams(&mut self, failure: &Failure) {
        let open: Vec<Handle> = self.streams.open.keys().copied().collect();
        for handle in open {
            self.fail_stream(handle, &Value::Failed(Box::new(failure.clone())));
            self.end_stream(handle);
        }
    }

    /// The program takes no more items: those that are there go, and the task is cancelled if it has not ended.
    pub fn drop_stream(&mut self, handle: Handle, now: u64) {
        let Some(stream) = self.streams.open.remove(&handle) else { return };
        self.wake(stream.waits);
        for (item, _) in stream.items {
            self.drop_count(item, Count::Held);
        }
        self.cancel_task(&stream.task, false, true, now);
        self.drop_count(handle, Count::Held);
    }
}

fn other_items(known: u64) -> Failure {
    let message =
        format!("the task was run again, and its first {known} items are others than those that had been made");
    Failure::new("STREAM_REPLAY", message).hint(
        "a stream that is tried again must make the same items: seed what is random, or set maxRetries: 0 and start it anew",
    )
}
