//! The table of references: what this process owns or borrows, who counts on it, and its state.
//!
//! After the ownership design of Ray (Wang et al., NSDI'21): the process that creates a reference owns its metadata.

use std::collections::{HashMap, HashSet};

use heliostat_proto::{Blob, Failure, Locator, ObjectId, Value, WorkerId};

use crate::action::{Handle, WaitId};
use crate::slab::Slab;

/// A reference in this process.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) id: ObjectId,
    /// `None`: this process.
    pub(crate) owner: Option<WorkerId>,
    /// `None` while there is no value yet.
    pub(crate) value: Option<Value>,
    /// Handles of the user's program.
    pub(crate) local: u32,
    /// Tasks that take it or make it, waits, executions, results on their way.
    pub(crate) held: u32,
    /// Objects whose value contains it.
    pub(crate) contained: u32,
    /// What only few objects have.
    pub(crate) extra: Option<Box<Extra>>,
    /// Whether its id is known elsewhere, so that others may name it.
    exported: bool,
}

/// What only few objects have.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    /// References inside the value.
    pub(crate) contains: Vec<Handle>,
    pub(crate) waits: Vec<WaitId>,
    /// Tasks that need the value.
    pub(crate) dependents: Vec<u32>,
    /// Processes that hold references.
    pub(crate) borrowers: HashSet<WorkerId>,
    /// Processes that asked for the value before it was there.
    pub(crate) fetchers: Vec<WorkerId>,
    /// The owner was asked.
    pub(crate) fetching: bool,
}

impl Object {
    fn new(id: ObjectId, owner: Option<WorkerId>) -> Self {
        Self { id, owner, value: None, local: 0, held: 0, contained: 0, extra: None, exported: false }
    }

    pub(crate) fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    fn unused(&self) -> bool {
        self.local == 0
            && self.held == 0
            && self.contained == 0
            && self.extra.as_ref().is_none_or(|extra| extra.borrowers.is_empty())
    }
}

/// The kinds of counts that keep an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    Local,
    Held,
    Contained,
}

/// All references of this process.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    table: Slab<Object>,
    /// Only ids that are known elsewhere: most puts never leave their process.
    by_id: HashMap<ObjectId, Handle>,
    /// What each process holds of ours.
    lent: HashMap<WorkerId, HashSet<Handle>>,
    /// What we hold of each process.
    borrowed: HashMap<WorkerId, HashSet<Handle>>,
    /// Bytes of inline values.
    inline: u64,
}

/// Bytes that a value takes in this process.
fn inline_bytes(value: Option<&Value>) -> u64 {
    match value {
        Some(Value::Ready(Blob::Inline(bytes))) => bytes.len() as u64,
        _ => 0,
    }
}

/// What became of an object's last count.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Released {
    /// Tell the owner.
    Return { owner: WorkerId, id: ObjectId },
    /// Its bytes are not needed any more.
    Free(Locator),
}

impl Objects {
    /// A new object of this process, counted once.
    pub(crate) fn create(&mut self, id: ObjectId, value: Option<Value>, count: Count) -> Handle {
        let mut object = Object::new(id, None);
        self.inline += inline_bytes(value.as_ref());
        object.value = value;
        let handle = self.table.insert(object);
        self.add(handle, count);
        handle
    }

    /// A reference to another process's object; the flag says whether it is new here, so that the owner must be told.
    pub(crate) fn borrow(&mut self, id: ObjectId, owner: WorkerId, count: Count) -> (Handle, bool) {
        let (handle, new) = match self.by_id.get(&id) {
            Some(handle) => (*handle, false),
            None => {
                let mut object = Object::new(id, Some(owner));
                object.exported = true;
                let handle = self.table.insert(object);
                self.by_id.insert(id, handle);
                self.borrowed.entry(owner).or_default().insert(handle);
                (handle, true)
            }
        };
        self.add(handle, count);
        (handle, new)
    }

    pub(crate) fn get(&self, handle: Handle) -> Option<&Object> {
        self.table.get(handle)
    }

    pub(crate) fn get_mut(&mut self, handle: Handle) -> Option<&mut Object> {
        self.table.get_mut(handle)
    }

    /// Gives an object its value, or another one.
    pub(crate) fn set_value(&mut self, handle: Handle, value: Value) {
        let Some(object) = self.table.get_mut(handle) else { return };
        self.inline += inline_bytes(Some(&value));
        self.inline -= inline_bytes(object.value.as_ref());
        object.value = Some(value);
    }

    /// Bytes of inline values.
    pub(crate) fn inline(&self) -> u64 {
        self.inline
    }

    pub(crate) fn find(&self, id: &ObjectId) -> Option<Handle> {
        self.by_id.get(id).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// The references without a value.
    pub(crate) fn pending(&self) -> Vec<Handle> {
        self.table.iter().filter(|(_, object)| object.value.is_none()).map(|(handle, _)| handle).collect()
    }

    /// Makes the object known by its id, before the id leaves the process.
    pub(crate) fn export(&mut self, handle: Handle) {
        if let Some(object) = self.table.get_mut(handle)
            && !object.exported
        {
            object.exported = true;
            self.by_id.insert(object.id, handle);
        }
    }

    pub(crate) fn add(&mut self, handle: Handle, count: Count) {
        if let Some(object) = self.table.get_mut(handle) {
            match count {
                Count::Local => object.local += 1,
                Count::Held => object.held += 1,
                Count::Contained => object.contained += 1,
            }
        }
    }

    /// Takes one count away and, when it was the last, the object and what only it kept.
    pub(crate) fn drop_count(&mut self, handle: Handle, count: Count, released: &mut Vec<Released>) {
        let mut work = vec![(handle, count)];
        while let Some((handle, count)) = work.pop() {
            let Some(object) = self.table.get_mut(handle) else { continue };
            let counter = match count {
                Count::Local => &mut object.local,
                Count::Held => &mut object.held,
                Count::Contained => &mut object.contained,
            };
            debug_assert!(*counter > 0, "{count:?} of {:?} dropped twice", object.id);
            *counter = counter.saturating_sub(1);
            self.remove_unused(handle, released, &mut work);
        }
    }

    fn remove_unused(&mut self, handle: Handle, released: &mut Vec<Released>, work: &mut Vec<(Handle, Count)>) {
        if !self.table.get(handle).is_some_and(Object::unused) {
            return;
        }
        let Some(object) = self.table.remove(handle) else { return };
        self.inline -= inline_bytes(object.value.as_ref());
        if object.exported {
            self.by_id.remove(&object.id);
        }
        if let Some(extra) = object.extra {
            work.extend(extra.contains.into_iter().map(|inner| (inner, Count::Contained)));
        }
        match (object.owner, object.value) {
            (Some(owner), _) => {
                if let Some(held) = self.borrowed.get_mut(&owner) {
                    held.remove(&handle);
                    if held.is_empty() {
                        self.borrowed.remove(&owner);
                    }
                }
                released.push(Released::Return { owner, id: object.id });
            }
            (None, Some(Value::Ready(Blob::Stored(locator)))) => released.push(Released::Free(locator)),
            (None, _) => {}
        }
    }

    /// `peer` holds references to `id`.
    pub(crate) fn lend(&mut self, id: &ObjectId, peer: WorkerId) {
        let Some(handle) = self.find(id) else { return };
        if let Some(object) = self.table.get_mut(handle) {
            object.extra().borrowers.insert(peer);
            self.lent.entry(peer).or_default().insert(handle);
        }
    }

    /// `peer` holds no reference to `id` any more.
    pub(crate) fn unlend(&mut self, id: &ObjectId, peer: WorkerId, released: &mut Vec<Released>) {
        let Some(handle) = self.find(id) else { return };
        if let Some(lent) = self.lent.get_mut(&peer) {
            lent.remove(&handle);
        }
        self.forget_borrower(handle, peer, released);
    }

    fn forget_borrower(&mut self, handle: Handle, peer: WorkerId, released: &mut Vec<Released>) {
        let Some(object) = self.table.get_mut(handle) else { return };
        if let Some(extra) = &mut object.extra {
            extra.borrowers.remove(&peer);
            extra.fetchers.retain(|fetcher| *fetcher != peer);
        }
        let mut work = Vec::new();
        self.remove_unused(handle, released, &mut work);
        for (inner, count) in work {
            self.drop_count(inner, count, released);
        }
    }

    /// A process ended: gives up what it held, and returns the references to its objects, which are lost now.
    pub(crate) fn peer_gone(&mut self, peer: WorkerId, released: &mut Vec<Released>) -> Vec<Handle> {
        for handle in self.lent.remove(&peer).unwrap_or_default() {
            self.forget_borrower(handle, peer, released);
        }
        let mut lost: Vec<Handle> = self.borrowed.get(&peer).into_iter().flatten().copied().collect();
        lost.sort_unstable();
        lost
    }
}

/// The failure of a reference whose owner ended.
pub(crate) fn owner_died(id: ObjectId) -> Value {
    Value::Failed(Box::new(
        Failure::new("OWNER_DIED", format!("the process that owned ObjectRef({id}) ended, and the object with it"))
            .hint("keep objects that must outlive a task in the driver: return the value instead of a reference"),
    ))
}
