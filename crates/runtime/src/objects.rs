//! The table of references: what this process owns or borrows, who counts on it, and its state.
//!
//! After the ownership design of Ray (Wang et al., NSDI'21): the process that creates a reference owns its metadata.

use heliostat_proto::{Blob, Bytes, Failure, Locator, ObjectId, TaskId, Value, WorkerId, blob};

use crate::action::{Handle, WaitId};
use crate::hash::{HashMap, HashSet};
use crate::slab::Slab;
use crate::watch::Watches;

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
    /// Whether it fails or not: the program was told of a failure that it got instead.
    pub(crate) observed: bool,
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

/// Longest value, in bytes of the codec's header, that an object of its own record is not made for.
pub(crate) const PLAIN_MAX: usize = 14;

#[derive(Debug)]
enum Entry {
    /// What most small puts are for all of their life: a few bytes that only handles of the program count. Anything else
    /// that happens to it makes it an [`Object`] first. A million of them fit in 24 MB; a struct of its own would be
    /// larger by the word for the tag.
    Plain {
        /// Its index under the first root of puts.
        index: u32,
        local: u32,
        length: u8,
        header: [u8; PLAIN_MAX],
    },
    Full(Box<Object>),
}

fn plain_blob(header: &[u8; PLAIN_MAX], length: u8) -> Value {
    Value::Ready(Blob::Inline(blob::plain(&header[..length.into()])))
}

/// The kinds of counts that keep an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    Local,
    Held,
    Contained,
}

/// Where the value of a reference is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// There is none yet, or the reference is not known.
    Pending,
    /// In this process: so many bytes.
    Inline(u64),
    /// In a store.
    Stored(Locator),
    /// There will be none.
    Failed,
}

/// All references of this process.
#[derive(Debug)]
pub(crate) struct Objects {
    table: Slab<Entry>,
    /// References that a wait for many keeps, beside all counts.
    pub(crate) watches: Watches,
    /// What plain puts are numbered under.
    root: TaskId,
    /// Handles that the program disposed of and whose wrappers were not collected yet: how often, and what of. The
    /// collector names a wrapper by its handle, which must not have become another object's by then.
    disposed: HashMap<Handle, (u32, ObjectId)>,
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
    /// It had no value.
    Failed(ObjectId, Box<Failure>),
}

impl Objects {
    pub(crate) fn new(root: TaskId) -> Self {
        Self {
            table: Slab::default(),
            watches: Watches::default(),
            root,
            disposed: HashMap::default(),
            by_id: HashMap::default(),
            lent: HashMap::default(),
            borrowed: HashMap::default(),
            inline: 0,
        }
    }

    fn insert(&mut self, object: Object) -> Handle {
        self.table.insert(Entry::Full(Box::new(object)))
    }

    /// A new object of this process, counted once.
    pub(crate) fn create(&mut self, id: ObjectId, value: Option<Value>, count: Count) -> Handle {
        let mut object = Object::new(id, None);
        self.inline += inline_bytes(value.as_ref());
        object.value = value;
        let handle = self.insert(object);
        self.add(handle, count);
        handle
    }

    /// A small put, counted once by the program; `None` when it is not one.
    pub(crate) fn create_plain(&mut self, id: &ObjectId, value: &[u8]) -> Option<Handle> {
        if value.len() > PLAIN_MAX || id.task() != self.root {
            return None;
        }
        let mut header = [0; PLAIN_MAX];
        header[..value.len()].copy_from_slice(value);
        self.inline += value.len() as u64;
        let length = value.len() as u8;
        Some(self.table.insert(Entry::Plain { index: id.index(), local: 1, length, header }))
    }

    /// The codec's header of a plain put.
    pub(crate) fn plain(&self, handle: Handle) -> Option<&[u8]> {
        match self.table.get(handle)? {
            Entry::Plain { header, length, .. } => Some(&header[..(*length).into()]),
            Entry::Full(_) => None,
        }
    }

    /// A reference to another process's object; the flag says whether it is new here, so that the owner must be told.
    pub(crate) fn borrow(&mut self, id: ObjectId, owner: WorkerId, count: Count) -> (Handle, bool) {
        let (handle, new) = match self.by_id.get(&id) {
            Some(handle) => (*handle, false),
            None => {
                let mut object = Object::new(id, Some(owner));
                object.exported = true;
                let handle = self.insert(object);
                self.by_id.insert(id, handle);
                self.borrowed.entry(owner).or_default().insert(handle);
                (handle, true)
            }
        };
        self.add(handle, count);
        (handle, new)
    }

    /// The id, also of what was disposed of and is still wrapped.
    pub(crate) fn id(&self, handle: Handle) -> Option<ObjectId> {
        match self.table.get(handle) {
            Some(Entry::Plain { index, .. }) => Some(self.root.object(*index)),
            Some(Entry::Full(object)) => Some(object.id),
            None => self.disposed.get(&handle).map(|(_, id)| *id),
        }
    }

    pub(crate) fn lives(&self, handle: Handle) -> bool {
        self.table.get(handle).is_some()
    }

    pub(crate) fn place(&self, handle: Handle) -> Place {
        match self.table.get(handle) {
            Some(Entry::Plain { length, .. }) => Place::Inline(blob::plain_len((*length).into()) as u64),
            Some(Entry::Full(object)) => match &object.value {
                Some(Value::Ready(Blob::Inline(bytes))) => Place::Inline(bytes.len() as u64),
                Some(Value::Ready(Blob::Stored(locator))) => Place::Stored(*locator),
                Some(Value::Failed(_)) => Place::Failed,
                None => Place::Pending,
            },
            None => Place::Pending,
        }
    }

    /// A copy of the value, which shares its bytes.
    pub(crate) fn value(&self, handle: Handle) -> Option<Value> {
        match self.table.get(handle)? {
            Entry::Plain { header, length, .. } => Some(plain_blob(header, *length)),
            Entry::Full(object) => object.value.clone(),
        }
    }

    /// The object if it has a record of its own. A plain put has none: it has its value, and no owner but this process.
    pub(crate) fn get(&self, handle: Handle) -> Option<&Object> {
        match self.table.get(handle)? {
            Entry::Plain { .. } => None,
            Entry::Full(object) => Some(object),
        }
    }

    /// The object, of its own record from here on.
    pub(crate) fn get_mut(&mut self, handle: Handle) -> Option<&mut Object> {
        let entry = self.table.get_mut(handle)?;
        if let Entry::Plain { index, local, length, header } = entry {
            let mut object = Object::new(self.root.object(*index), None);
            object.local = *local;
            object.value = Some(plain_blob(header, *length));
            self.inline -= u64::from(*length);
            self.inline += inline_bytes(object.value.as_ref());
            *entry = Entry::Full(Box::new(object));
        }
        match entry {
            Entry::Full(object) => Some(object),
            Entry::Plain { .. } => None,
        }
    }

    /// Gives an object its value, or another one; returns the one before.
    pub(crate) fn set_value(&mut self, handle: Handle, value: Value) -> Option<Value> {
        let object = self.get_mut(handle)?;
        let given = inline_bytes(Some(&value));
        let taken = object.value.replace(value);
        self.inline += given;
        self.inline -= inline_bytes(taken.as_ref());
        taken
    }

    /// Bytes of inline values.
    pub(crate) fn inline(&self) -> u64 {
        self.inline
    }

    /// Inline values longer than `least`, until they make up so many bytes.
    pub(crate) fn inline_values(&self, least: u64, bytes: u64) -> Vec<(Handle, ObjectId, Bytes)> {
        let (mut found, mut sum) = (Vec::new(), 0);
        for (handle, entry) in self.table.iter() {
            if sum >= bytes {
                break;
            }
            if let Entry::Full(object) = entry
                && let Some(Value::Ready(Blob::Inline(value))) = &object.value
                && value.len() as u64 > least
            {
                sum += value.len() as u64;
                found.push((handle, object.id, value.clone()));
            }
        }
        found
    }

    /// Own objects in the store, the largest first.
    pub(crate) fn stored(&self, most: usize) -> Vec<(Handle, u64)> {
        let mut found: Vec<(Handle, u64)> = self
            .table
            .iter()
            .filter_map(|(handle, entry)| match entry {
                Entry::Full(object) if object.owner.is_none() => match &object.value {
                    Some(Value::Ready(Blob::Stored(locator))) => Some((handle, locator.length)),
                    _ => None,
                },
                _ => None,
            })
            .collect();
        found.sort_unstable_by_key(|(_, length)| std::cmp::Reverse(*length));
        found.truncate(most);
        found
    }

    pub(crate) fn find(&self, id: &ObjectId) -> Option<Handle> {
        self.by_id.get(id).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// The references without a value.
    pub(crate) fn pending(&self) -> Vec<Handle> {
        let pending = |entry: &Entry| matches!(entry, Entry::Full(object) if object.value.is_none());
        self.table.iter().filter(|(_, entry)| pending(entry)).map(|(handle, _)| handle).collect()
    }

    /// Makes the object known by its id, before the id leaves the process.
    pub(crate) fn export(&mut self, handle: Handle) {
        if let Some(object) = self.get_mut(handle)
            && !object.exported
        {
            object.exported = true;
            let id = object.id;
            self.by_id.insert(id, handle);
        }
    }

    pub(crate) fn add(&mut self, handle: Handle, count: Count) {
        if let (Some(Entry::Plain { local, .. }), Count::Local) = (self.table.get_mut(handle), count) {
            *local += 1;
        } else if let Some(object) = self.get_mut(handle) {
            match count {
                Count::Local => object.local += 1,
                Count::Held => object.held += 1,
                Count::Contained => object.contained += 1,
            }
        }
    }

    /// Takes one count away and, when it was the last, the object and what only it kept.
    pub(crate) fn drop_count(&mut self, handle: Handle, count: Count, released: &mut Vec<Released>) {
        // Allocates nothing before there is something in it.
        let mut work = Vec::new();
        self.drop_one(handle, count, released, &mut work);
        while let Some((handle, count)) = work.pop() {
            self.drop_one(handle, count, released, &mut work);
        }
    }

    fn drop_one(
        &mut self,
        handle: Handle,
        count: Count,
        released: &mut Vec<Released>,
        work: &mut Vec<(Handle, Count)>,
    ) {
        if let (Some(Entry::Plain { local, .. }), Count::Local) = (self.table.get_mut(handle), count) {
            *local = local.saturating_sub(1);
        } else {
            let Some(object) = self.get_mut(handle) else { return };
            let counter = match count {
                Count::Local => &mut object.local,
                Count::Held => &mut object.held,
                Count::Contained => &mut object.contained,
            };
            debug_assert!(*counter > 0, "{count:?} of {:?} dropped twice", object.id);
            *counter = counter.saturating_sub(1);
        }
        self.remove_unused(handle, released, work);
    }

    /// A wait for many is over: what only it kept goes.
    pub(crate) fn end_watch(&mut self, id: WaitId, released: &mut Vec<Released>) {
        let mut work = Vec::new();
        for handle in self.watches.end(id) {
            self.remove_unused(handle, released, &mut work);
            while let Some((inner, count)) = work.pop() {
                self.drop_one(inner, count, released, &mut work);
            }
        }
    }

    fn vacate(&mut self, handle: Handle) -> Option<Entry> {
        if self.disposed.contains_key(&handle) { self.table.vacate(handle) } else { self.table.remove(handle) }
    }

    /// The program disposes of a handle whose wrapper the collector will name later: the handle stays taken until then.
    pub(crate) fn dispose(&mut self, handle: Handle, released: &mut Vec<Released>) {
        let Some(id) = self.id(handle) else { return };
        self.disposed.entry(handle).or_insert((0, id)).0 += 1;
        self.drop_count(handle, Count::Local, released);
    }

    /// The collector found a wrapper dead: whichever of them it was, one that was disposed of counts no more.
    pub(crate) fn collected(&mut self, handle: Handle, released: &mut Vec<Released>) {
        match self.disposed.get_mut(&handle) {
            None => self.drop_count(handle, Count::Local, released),
            Some((left, _)) if *left > 1 => *left -= 1,
            Some(_) => {
                self.disposed.remove(&handle);
                if self.table.get(handle).is_none() {
                    self.table.reuse(handle);
                }
            }
        }
    }

    fn remove_unused(&mut self, handle: Handle, released: &mut Vec<Released>, work: &mut Vec<(Handle, Count)>) {
        let unused = match self.table.get(handle) {
            Some(Entry::Plain { local, .. }) => *local == 0,
            Some(Entry::Full(object)) => object.unused(),
            None => false,
        };
        if !unused || self.watches.keep(handle) {
            return;
        }
        let object = match self.vacate(handle) {
            Some(Entry::Full(object)) => object,
            Some(Entry::Plain { length, .. }) => {
                self.inline -= u64::from(length);
                return;
            }
            None => return,
        };
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
            (None, Some(Value::Failed(failure))) => released.push(Released::Failed(object.id, failure)),
            (None, _) => {}
        }
    }

    /// `peer` holds references to `id`.
    pub(crate) fn lend(&mut self, id: &ObjectId, peer: WorkerId) {
        let Some(handle) = self.find(id) else { return };
        if let Some(object) = self.get_mut(handle) {
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
        let Some(object) = self.get_mut(handle) else { return };
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

    /// Whether any process holds references to objects of this one.
    pub(crate) fn lends(&self) -> bool {
        self.lent.values().any(|handles| !handles.is_empty())
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

#[cfg(test)]
mod tests {
    use super::*;

    const ME: WorkerId = WorkerId([1; 16]);

    fn objects() -> (Objects, TaskId) {
        let root = TaskId::root(ME);
        (Objects::new(root), root)
    }

    fn small(objects: &mut Objects, root: TaskId, index: u32) -> Handle {
        objects.create_plain(&root.object(ObjectId::FIRST_PUT + index), b"small").unwrap()
    }

    #[test]
    fn a_small_put_takes_little_until_more_happens_to_it() {
        assert!(size_of::<Option<Entry>>() <= 24, "{}", size_of::<Option<Entry>>());
        let (mut objects, root) = objects();
        let id = root.object(ObjectId::FIRST_PUT + 7);
        let handle = small(&mut objects, root, 7);
        assert_eq!((objects.plain(handle), objects.id(handle)), (Some(&b"small"[..]), Some(id)));
        assert_eq!(objects.create_plain(&id, &[0; PLAIN_MAX + 1]), None, "too long");
        assert_eq!(objects.create_plain(&root.child(0, 1).object(1), b""), None, "of another root");

        objects.add(handle, Count::Local);
        objects.export(handle);
        assert_eq!((objects.plain(handle), objects.find(&id)), (None, Some(handle)));
        let object = objects.get(handle).unwrap();
        let Some(Value::Ready(Blob::Inline(bytes))) = &object.value else { panic!("{object:?}") };
        assert_eq!(blob::BlobView::parse(bytes).unwrap().header(), b"small");
        assert_eq!(object.local, 2);
        for left in [1, 0] {
            objects.drop_count(handle, Count::Local, &mut Vec::new());
            assert_eq!(objects.len(), left);
        }
    }

    #[test]
    fn bytes_of_values_are_counted_whatever_becomes_of_their_objects() {
        let (mut objects, root) = objects();
        let plain = small(&mut objects, root, 0);
        assert_eq!(objects.inline(), 5);
        let grown = small(&mut objects, root, 1);
        objects.export(grown);
        let full = 5 + blob::plain(b"small").len() as u64;
        assert_eq!(objects.inline(), full, "an object of its own record keeps what is around the value as well");
        let value = Value::Ready(Blob::Inline(blob::plain(&[0; 1000])));
        let large = objects.create(root.object(ObjectId::FIRST_PUT + 2), Some(value), Count::Local);
        assert!(objects.inline() > full + 1000);
        assert!(objects.set_value(large, owner_died(root.object(0))).is_some());
        assert_eq!(objects.inline(), full);
        for (handle, left) in [(large, full), (grown, 5), (plain, 0)] {
            objects.drop_count(handle, Count::Local, &mut Vec::new());
            assert_eq!(objects.inline(), left);
        }
    }

    #[test]
    fn a_handle_that_was_disposed_of_is_not_used_again_before_its_wrapper_was_collected() {
        let (mut objects, root) = objects();
        let mut released = Vec::new();
        let handle = small(&mut objects, root, 0);
        objects.add(handle, Count::Local);
        objects.dispose(handle, &mut released);
        assert_eq!(objects.len(), 1, "another wrapper holds it");
        objects.dispose(handle, &mut released);
        assert_eq!((objects.len(), objects.id(handle)), (0, Some(root.object(ObjectId::FIRST_PUT))));
        let other = small(&mut objects, root, 1);
        assert_ne!(other, handle);
        objects.collected(handle, &mut released);
        assert_ne!(small(&mut objects, root, 2), handle, "one wrapper is left");
        objects.collected(handle, &mut released);
        assert_eq!(small(&mut objects, root, 3), handle);
        objects.collected(other, &mut released);
        assert_eq!(small(&mut objects, root, 4), other, "nobody disposed of it: the collector did");
    }
}
