//! The state of one process in the cluster: references, waits, tasks it submitted, tasks it runs.

use std::collections::VecDeque;

use heliostat_proto::message::{FunctionHash, ToDaemon, ToPeer};
use heliostat_proto::{Blob, Bytes, Failure, JobId, Locator, NodeId, ObjectId, RefEntry, TaskId, Value, WorkerId};

use crate::action::{Action, Handle};
use crate::exec::Executions;
use crate::hash::{HashMap, HashSet};
use crate::lending::Lending;
use crate::objects::{Count, Objects, Place, Released, owner_died};
use crate::streams::Streams;
use crate::tasks::{Done, Tasks};
use crate::unread::Unread;
use crate::waits::Waits;

/// Who this process is.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// The process.
    pub worker: WorkerId,
    /// Its node.
    pub node: NodeId,
    /// Its life as an owner.
    pub epoch: u64,
    /// The job of a driver.
    pub job: JobId,
    /// Its seat in the node's store.
    pub seat: u32,
}

/// Looks into serialised values. Those in the store are read by the surroundings, which have it mapped.
pub trait Values {
    /// The references inside a value.
    fn refs_of(&self, blob: &Blob) -> Vec<RefEntry>;

    /// Where a sealed object with this id is on this node, if it is.
    fn lookup(&self, id: &ObjectId) -> Option<Locator>;
}

/// Where the state machine looks values up.
pub(crate) type Look<'a> = &'a dyn Values;

/// For events that bring no values.
pub(crate) struct NoValues;

impl Values for NoValues {
    fn refs_of(&self, _: &Blob) -> Vec<RefEntry> {
        Vec::new()
    }

    fn lookup(&self, _: &ObjectId) -> Option<Locator> {
        None
    }
}

/// The state machine: methods are events, [`Core::take_actions`] gives what they want done.
///
/// ```
/// use heliostat_proto::{Blob, Bytes, JobId, NodeId, WorkerId};
/// use heliostat_runtime::{Core, Identity};
///
/// let me = Identity { worker: WorkerId([1; 16]), node: NodeId([2; 16]), epoch: 1, job: JobId([3; 16]), seat: 1 };
/// let mut core = Core::new(me);
/// let handle = core.put(Blob::Inline(Bytes::new(*b"value")), Vec::new());
/// assert!(core.value(handle).is_some());
/// core.release(handle);
/// assert_eq!(core.counts().objects, 0);
/// ```
#[derive(Debug)]
pub struct Core {
    pub(crate) me: Identity,
    pub(crate) objects: Objects,
    pub(crate) waits: Waits,
    pub(crate) tasks: Tasks,
    pub(crate) executions: Executions,
    pub(crate) unread: Unread,
    pub(crate) streams: Streams,
    pub(crate) functions: HashMap<FunctionHash, Function>,
    /// Functions that each process has.
    pub(crate) defined: HashMap<WorkerId, HashSet<FunctionHash>>,
    /// Borrows that their owners have not confirmed, by owner.
    pub(crate) unconfirmed: HashMap<WorkerId, u32>,
    pub(crate) lending: Lending,
    /// Why nothing can be had any more: the node ended.
    pub(crate) gone: Option<Failure>,
    /// Messages that must not overtake a borrow: while an owner has not registered us, whoever kept the object alive
    /// for us so far must go on.
    pub(crate) gated: VecDeque<(WorkerId, ToPeer)>,
    pub(crate) actions: Vec<Action>,
    puts: u32,
    put_root: TaskId,
    put_roots: u64,
    pub(crate) children: u64,
}

/// A function of this process.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) blob: Blob,
    /// The references that it captured.
    pub(crate) contains: Vec<Handle>,
    /// How often the program holds it.
    pub(crate) users: u32,
    /// Tasks that run it and have not ended.
    pub(crate) tasks: u32,
}

/// How much the state machine holds: all zero when nothing is referred to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// References, own and borrowed.
    pub objects: usize,
    /// Waits.
    pub waits: usize,
    /// Submitted tasks that have not ended.
    pub tasks: usize,
    /// Functions that may be sent.
    pub functions: usize,
    /// Tasks that arrived here and have not ended.
    pub executions: usize,
    /// Leases.
    pub leases: usize,
    /// Streams whose items may be taken.
    pub streams: usize,
}

impl Core {
    /// The state of a process that holds nothing yet.
    pub fn new(me: Identity) -> Self {
        Self {
            me,
            objects: Objects::new(TaskId::root(me.worker)),
            waits: Waits::default(),
            tasks: Tasks::default(),
            executions: Executions::default(),
            unread: Unread::default(),
            streams: Streams::default(),
            functions: HashMap::default(),
            defined: HashMap::default(),
            unconfirmed: HashMap::default(),
            lending: Lending::default(),
            gone: None,
            gated: VecDeque::new(),
            actions: Vec::new(),
            puts: 0,
            put_root: TaskId::root(me.worker),
            put_roots: 0,
            children: 0,
        }
    }

    /// Who this process is.
    pub fn identity(&self) -> Identity {
        self.me
    }

    /// What has to be done since the last call, in order.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// What is held.
    pub fn counts(&self) -> Counts {
        Counts {
            objects: self.objects.len(),
            waits: self.waits.len(),
            tasks: self.tasks.len(),
            functions: self.functions.len(),
            executions: self.executions.len(),
            leases: self.tasks.lease_count(),
            streams: self.streams.len(),
        }
    }

    /// The id that the next put gets, for the store to file its bytes under.
    pub fn next_put_id(&mut self) -> ObjectId {
        if self.puts == ObjectId::FIRST_PUT {
            // 2^31 puts under one root are all its indices.
            self.puts = 0;
            self.put_root = TaskId::root(self.me.worker).child(u32::MAX, self.put_roots);
            self.put_roots += 1;
        }
        let id = self.put_root.object(ObjectId::FIRST_PUT + self.puts);
        self.puts += 1;
        id
    }

    /// A value of this process; `contains` are the handles of the references inside it.
    pub fn put(&mut self, blob: Blob, contains: Vec<Handle>) -> Handle {
        let id = self.next_put_id();
        self.put_as(id, blob, contains)
    }

    /// Like [`Self::put`], under an id of [`Self::next_put_id`].
    pub fn put_as(&mut self, id: ObjectId, blob: Blob, contains: Vec<Handle>) -> Handle {
        let handle = self.objects.create(id, Some(Value::Ready(blob)), Count::Local);
        self.set_contains(handle, contains);
        handle
    }

    /// A value of this process that is nothing but the codec's header `value`: no buffers, no references.
    pub fn put_small(&mut self, value: &[u8]) -> Handle {
        let id = self.next_put_id();
        match self.objects.create_plain(&id, value) {
            Some(handle) => handle,
            None => self.put_as(id, Blob::Inline(heliostat_proto::blob::plain(value)), Vec::new()),
        }
    }

    /// The codec's header of a value that is small and nothing else, without making more of it.
    pub fn small(&self, handle: Handle) -> Option<&[u8]> {
        self.objects.plain(handle)
    }

    pub(crate) fn set_contains(&mut self, handle: Handle, contains: Vec<Handle>) {
        if contains.is_empty() {
            return;
        }
        for inner in &contains {
            self.objects.add(*inner, Count::Contained);
        }
        if let Some(object) = self.objects.get_mut(handle) {
            object.extra().contains = contains;
        }
    }

    /// One more handle of the program for the same reference.
    pub fn retain(&mut self, handle: Handle) {
        self.objects.add(handle, Count::Local);
    }

    /// A handle of the program is gone.
    pub fn release(&mut self, handle: Handle) {
        self.drop_count(handle, Count::Local);
    }

    /// The program disposes of a handle that a wrapper holds, whose end [`Self::collected`] tells of later. The handle
    /// stays taken until then.
    pub fn dispose(&mut self, handle: Handle) {
        let mut released = Vec::new();
        self.objects.dispose(handle, &mut released);
        self.after_release(released);
    }

    /// The program's collector found the wrapper of a handle dead, disposed of or not.
    pub fn collected(&mut self, handle: Handle) {
        let mut released = Vec::new();
        self.objects.collected(handle, &mut released);
        self.after_release(released);
    }

    /// Whether anybody keeps the object of a handle.
    pub fn lives(&self, handle: Handle) -> bool {
        self.objects.lives(handle)
    }

    pub(crate) fn drop_count(&mut self, handle: Handle, count: Count) {
        let mut released = Vec::new();
        self.objects.drop_count(handle, count, &mut released);
        self.after_release(released);
    }

    pub(crate) fn after_release(&mut self, released: Vec<Released>) {
        for released in released {
            match released {
                Released::Free(locator) => self.actions.push(Action::Free(locator)),
                Released::Return { owner, id } => self.tell_returned(owner, id),
                Released::Failed(id, failure) => self.failed_gone(id, *failure),
            }
        }
    }

    /// Tells an owner that a reference is gone, together with those that it is being told of.
    fn tell_returned(&mut self, owner: WorkerId, id: ObjectId) {
        let last = match self.gated.back_mut() {
            Some((peer, message)) => Some((*peer, message)),
            None => match self.actions.last_mut() {
                Some(Action::Send { peer, message }) => Some((*peer, message)),
                _ => None,
            },
        };
        match last {
            Some((peer, ToPeer::Unborrow { objects })) if peer == owner => objects.push(id),
            _ => self.send_gated(owner, ToPeer::Unborrow { objects: vec![id] }),
        }
    }

    /// The reference's id.
    pub fn id(&self, handle: Handle) -> Option<ObjectId> {
        self.objects.id(handle)
    }

    /// Bytes of values that are kept in this process.
    pub fn inline_bytes(&self) -> u64 {
        self.objects.inline()
    }

    /// Inline values longer than `least`, until they make up so many bytes.
    pub fn inline_values(&self, least: u64, bytes: u64) -> Vec<(Handle, ObjectId, Bytes)> {
        self.objects.inline_values(least, bytes)
    }

    /// The value of this process's own objects in the store, the largest first, `most` of them: handle and length.
    pub fn stored(&self, most: usize) -> Vec<(Handle, u64)> {
        self.objects.stored(most)
    }

    /// An inline value was copied to the store; `false` when it is not there any more, so that nobody needs the copy.
    pub fn move_to_store(&mut self, handle: Handle, bytes: &Bytes, copy: Locator) -> bool {
        let value = self.objects.get(handle).and_then(|object| object.value.as_ref());
        let same = matches!(value, Some(Value::Ready(Blob::Inline(own))) if own.is(bytes));
        if same {
            self.objects.set_value(handle, Value::Ready(Blob::Stored(copy)));
        }
        same
    }

    /// The value, when there is one: a copy that shares its bytes.
    pub fn value(&self, handle: Handle) -> Option<Value> {
        self.objects.value(handle)
    }

    /// Why there is no value, and will be none.
    pub fn failure(&self, handle: Handle) -> Option<&Failure> {
        match &self.objects.get(handle)?.value {
            Some(Value::Failed(failure)) => Some(failure),
            _ => None,
        }
    }

    /// Where the value is.
    pub fn place(&self, handle: Handle) -> Place {
        self.objects.place(handle)
    }

    /// Whether there is a value, or a failure.
    pub fn is_ready(&self, handle: Handle) -> bool {
        self.objects.place(handle) != Place::Pending
    }

    /// The references inside the value, by the program's handles of this process.
    pub fn contained(&self, handle: Handle) -> &[Handle] {
        self.objects.get(handle).and_then(|object| object.extra.as_ref()).map_or(&[], |extra| &extra.contains)
    }

    /// How the reference is written into a value that leaves the process.
    pub fn export(&mut self, handle: Handle) -> Option<RefEntry> {
        self.objects.export(handle);
        let object = self.objects.get(handle)?;
        Some(RefEntry {
            id: object.id,
            owner: object.owner.unwrap_or(self.me.worker),
            node: self.me.node,
            epoch: if object.owner.is_none() { self.me.epoch } else { 0 },
        })
    }

    /// The reference with this id, if it is known here by its id.
    pub fn find(&self, id: &ObjectId) -> Option<Handle> {
        self.objects.find(id)
    }

    /// Counts another process among the borrowers of an object, before it says so itself.
    pub fn lend(&mut self, handle: Handle, peer: WorkerId) {
        self.objects.export(handle);
        if let Some(id) = self.id(handle) {
            self.objects.lend(&id, peer);
        }
    }

    /// Whether a process has confirmed all that is borrowed from it.
    pub fn is_confirmed(&self, owner: &WorkerId) -> bool {
        !self.unconfirmed.contains_key(owner)
    }

    /// A handle of the program for a reference that was read from a value.
    pub fn adopt(&mut self, entry: &RefEntry) -> Handle {
        self.acquire(entry, Count::Local)
    }

    pub(crate) fn acquire(&mut self, entry: &RefEntry, count: Count) -> Handle {
        if entry.owner == self.me.worker {
            if let Some(handle) = self.objects.find(&entry.id) {
                self.objects.add(handle, count);
                return handle;
            }
            // Freed, or of an earlier life: a reference that fails, not a crash.
            let value = Value::Failed(Box::new(lost(entry.id)));
            let handle = self.objects.create(entry.id, Some(value), count);
            self.objects.export(handle);
            return handle;
        }
        let (handle, new) = self.objects.borrow(entry.id, entry.owner, count);
        if new {
            self.tell_borrowed(entry.owner, entry.id);
        }
        handle
    }

    /// Tells an owner of a reference, together with those that it is being told of.
    fn tell_borrowed(&mut self, owner: WorkerId, id: ObjectId) {
        if let Some(Action::Send { peer, message: ToPeer::Borrow { objects } }) = self.actions.last_mut()
            && *peer == owner
        {
            return objects.push(id);
        }
        *self.unconfirmed.entry(owner).or_default() += 1;
        self.send(owner, ToPeer::Borrow { objects: vec![id] });
    }

    /// Deletes the data now, whoever still refers to it. The owner of another process's object is told to.
    pub fn free(&mut self, handle: Handle) {
        let Some(object) = self.objects.get_mut(handle) else { return };
        let (id, owner) = (object.id, object.owner);
        let failure = Failure::new("OBJECT_FREED", format!("ObjectRef({id}) was freed by free()"));
        let inner = object.extra.as_mut().map(|extra| std::mem::take(&mut extra.contains)).unwrap_or_default();
        let value = self.objects.set_value(handle, Value::Failed(Box::new(failure)));
        match (owner, value) {
            (Some(owner), _) => self.send(owner, ToPeer::Free { object: id }),
            (None, Some(Value::Ready(Blob::Stored(locator)))) => self.actions.push(Action::Free(locator)),
            (None, _) => {}
        }
        for inner in inner {
            self.drop_count(inner, Count::Contained);
        }
        self.settle(handle);
    }

    /// Sets the value of a pending object, and tells everybody who waits for it.
    pub(crate) fn resolve(&mut self, handle: Handle, value: Value, look: Look<'_>) {
        let entries = refs_in(&value, look);
        let contains: Vec<Handle> = entries.iter().map(|entry| self.acquire(entry, Count::Contained)).collect();
        self.objects.set_value(handle, value);
        let Some(object) = self.objects.get_mut(handle) else { return };
        if !contains.is_empty() {
            object.extra().contains = contains;
        }
        self.settle(handle);
    }

    /// The object has its value: wakes waits, releases tasks, answers fetches.
    fn settle(&mut self, handle: Handle) {
        let Some(object) = self.objects.get_mut(handle) else { return };
        let (id, failed) = (object.id, matches!(object.value, Some(Value::Failed(_))));
        let Some(extra) = &mut object.extra else { return self.waits_ready(handle, Vec::new(), failed) };
        extra.fetching = false;
        let waits = std::mem::take(&mut extra.waits);
        let dependents = std::mem::take(&mut extra.dependents);
        let fetchers = std::mem::take(&mut extra.fetchers);
        let Some(value) = object.value.clone() else { return };
        if failed && !(fetchers.is_empty() && dependents.is_empty()) {
            self.observe(handle);
        }
        for peer in fetchers {
            self.send(peer, ToPeer::Fetched { object: id, value: value.clone() });
        }
        self.waits_ready(handle, waits, failed);
        self.dependencies_ready(&dependents, &value);
    }

    /// Makes sure that a pending value of another owner is here or on its way. What a process of this node has put is
    /// there to be read: sealing published it. Of a task's result the owner alone says which attempt counts.
    pub fn need(&mut self, handle: Handle, look: &dyn Values) {
        let Some(object) = self.objects.get(handle) else { return };
        let (Some(owner), None) = (object.owner, &object.value) else { return };
        let id = object.id;
        if id.is_put()
            && let Some(locator) = look.lookup(&id)
        {
            return self.resolve(handle, Value::Ready(Blob::Stored(locator)), look);
        }
        if let Some(failure) = self.gone.clone() {
            return self.resolve(handle, Value::Failed(Box::new(failure)), look);
        }
        let Some(object) = self.objects.get_mut(handle) else { return };
        if !std::mem::replace(&mut object.extra().fetching, true) {
            self.send(owner, ToPeer::Fetch { object: id });
        }
    }

    pub(crate) fn send(&mut self, peer: WorkerId, message: ToPeer) {
        self.actions.push(Action::Send { peer, message });
    }

    pub(crate) fn daemon(&mut self, message: ToDaemon) {
        self.actions.push(Action::Daemon(message));
    }

    /// Sends after all borrows that other processes have not confirmed. (The receiver's own are in order with this
    /// message by the connection.)
    pub(crate) fn send_gated(&mut self, peer: WorkerId, message: ToPeer) {
        if self.gated.is_empty() && self.may_pass(peer) {
            self.send(peer, message);
        } else {
            self.gated.push_back((peer, message));
        }
    }

    fn may_pass(&self, peer: WorkerId) -> bool {
        self.unconfirmed.keys().all(|owner| *owner == peer)
    }

    pub(crate) fn open_gate(&mut self) {
        while self.gated.front().is_some_and(|(peer, _)| self.may_pass(*peer)) {
            if let Some((peer, message)) = self.gated.pop_front() {
                self.send(peer, message);
            }
        }
    }

    /// A message of another process.
    pub fn on_peer(&mut self, peer: WorkerId, message: ToPeer, now: u64, look: &dyn Values) {
        match message {
            ToPeer::Define { function, blob } => self.executions.received.define(peer, function, blob),
            ToPeer::Forget { function } => {
                if self.executions.received.forget(peer, &function) {
                    self.actions.push(Action::Forgotten);
                }
            }
            ToPeer::Run(spec) => self.on_run(peer, *spec, look),
            ToPeer::Done { task, attempt, values, nanos, again } => {
                self.on_done(peer, Done { task, attempt, values, nanos, again }, now, look);
            }
            ToPeer::Began { task, attempt } => self.on_began(peer, task, attempt, now),
            ToPeer::Abort { task, attempt, late, recursive } => {
                self.on_abort(peer, (task, attempt), late, recursive, now);
            }
            ToPeer::Aborting { task, attempt, returned } => self.on_aborting(peer, (task, attempt), &returned, now),
            ToPeer::Overdue { task, attempt } => self.on_overdue(peer, task, attempt),
            ToPeer::Cancel { object, force, recursive } => self.cancel_task(&object.task(), force, recursive, now),
            ToPeer::Free { object } => {
                if let Some(handle) = self.objects.find(&object) {
                    self.free(handle);
                }
            }
            ToPeer::Items { task, attempt, replayed, items } => {
                self.on_items(peer, (task, attempt), replayed, items, look);
            }
            ToPeer::Credit { task, attempt, limit } => self.on_credit(peer, (task, attempt), limit),
            ToPeer::Taken { task, attempt, item } => self.on_taken(peer, (task, attempt), item),
            ToPeer::Paused { waiting, returned } => self.on_paused(peer, waiting, &returned, now),
            ToPeer::Borrow { objects } => {
                for id in &objects {
                    self.objects.lend(id, peer);
                }
                self.send(peer, ToPeer::Borrowed);
            }
            ToPeer::Borrowed => {
                if let Some(count) = self.unconfirmed.get_mut(&peer) {
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        self.unconfirmed.remove(&peer);
                    }
                }
                self.open_gate();
            }
            ToPeer::Unborrow { objects } => {
                let mut released = Vec::new();
                for id in &objects {
                    self.objects.unlend(id, peer, &mut released);
                }
                self.after_release(released);
            }
            ToPeer::Fetch { object } => self.on_fetch(peer, object),
            ToPeer::Fetched { object, value } => {
                if let Some(handle) = self.objects.find(&object)
                    && self.objects.get(handle).is_some_and(|o| o.owner == Some(peer) && o.value.is_none())
                {
                    self.resolve(handle, value, look);
                }
            }
        }
    }

    fn on_fetch(&mut self, peer: WorkerId, id: ObjectId) {
        let found = self.objects.find(&id).and_then(|handle| self.objects.get_mut(handle));
        let value = match found {
            None => Value::Failed(Box::new(lost(id))),
            Some(object) => match &object.value {
                Some(value) => value.clone(),
                None => return object.extra().fetchers.push(peer),
            },
        };
        if matches!(value, Value::Failed(_))
            && let Some(handle) = self.objects.find(&id)
        {
            self.observe(handle);
        }
        self.send(peer, ToPeer::Fetched { object: id, value });
    }

    /// A process ended. What it borrowed is given up, what it owned is lost. Tasks that ran there are told of by
    /// [`Core::on_lease_broken`], with the facts of its end.
    pub fn on_peer_gone(&mut self, peer: WorkerId) {
        self.defined.remove(&peer);
        self.unconfirmed.remove(&peer);
        self.gated.retain(|(to, _)| *to != peer);
        self.executions_of_gone(peer);
        let mut released = Vec::new();
        let lost = self.objects.peer_gone(peer, &mut released);
        self.after_release(released);
        for handle in lost {
            let Some(object) = self.objects.get_mut(handle) else { continue };
            let value = owner_died(object.id);
            self.resolve(handle, value, &NoValues);
        }
        self.open_gate();
    }

    /// The node ended: whatever has no value yet fails, and so does what is asked of it from now on.
    pub fn on_node_gone(&mut self, failure: &Failure) {
        self.gone = Some(failure.clone());
        self.end_streams(failure);
        for handle in self.objects.pending() {
            self.resolve(handle, Value::Failed(Box::new(failure.clone())), &NoValues);
        }
    }
}

/// The references inside a value, or inside what a failed task threw.
pub(crate) fn refs_in(value: &Value, look: Look<'_>) -> Vec<RefEntry> {
    match value {
        Value::Ready(blob) => look.refs_of(blob),
        Value::Failed(failure) => {
            failure.thrown.as_ref().map(|thrown| look.refs_of(&Blob::Inline(thrown.clone()))).unwrap_or_default()
        }
    }
}

fn lost(id: ObjectId) -> Failure {
    Failure::new("OBJECT_FREED", format!("ObjectRef({id}) is not known to its owner any more: it was freed"))
        .hint("keep a reference to it for as long as others may ask for it")
}
