//! Objects that belong to the cluster instead of a process, by their names.
//!
//! The daemon is their owner: a [`Core`] of its own counts who refers to them and keeps what they refer to, as in any
//! other process. Messages to and from it go by the connections that processes have with the daemon.

use std::time::{Duration, Instant};

use heliostat_proto::message::{FromDaemon, ToPeer};
use heliostat_proto::{Blob, Failure, JobId, Locator, NodeId, ObjectId, RefEntry, WorkerId};
use heliostat_runtime::names::{Key, NameTable, Names};
use heliostat_runtime::{Action, Core, Identity, Values};

use crate::daemon::Daemon;

/// The namespace of those that chose none.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

/// The owner of the cluster's objects.
#[derive(Debug)]
pub(crate) struct Keeper {
    core: Core,
    names: NameTable,
    /// Answers that wait until the owners of the references inside an object know that they are kept.
    replies: Vec<Reply>,
    started: Instant,
}

#[derive(Debug)]
struct Reply {
    to: WorkerId,
    request: u64,
    entry: RefEntry,
    owners: Vec<WorkerId>,
}

/// What a process gives to the cluster.
#[derive(Debug)]
pub(crate) struct Gift {
    pub(crate) name: String,
    pub(crate) ttl: Option<u64>,
    pub(crate) id: ObjectId,
    pub(crate) blob: Blob,
    pub(crate) refs: Vec<RefEntry>,
}

/// The keeper reads no values: it is told what is inside.
struct Closed;

impl Values for Closed {
    fn refs_of(&self, _: &Blob) -> Vec<RefEntry> {
        Vec::new()
    }

    fn lookup(&self, _: &ObjectId) -> Option<Locator> {
        None
    }
}

impl Keeper {
    pub(crate) fn new(node: NodeId) -> Self {
        let worker = WorkerId(crate::random());
        // Epochs of processes begin with 1; their seats as well.
        let me = Identity { worker, node, epoch: 0, job: JobId::default(), seat: 0 };
        Self { core: Core::new(me), names: NameTable::default(), replies: Vec::new(), started: Instant::now() }
    }

    pub(crate) fn id(&self) -> WorkerId {
        self.core.identity().worker
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

impl Daemon {
    fn key(&self, of: WorkerId, name: String) -> Key {
        let driver = self.children.get(&of).map_or(Some(of), |child| child.driver);
        let namespace = driver.and_then(|driver| self.processes.get(&driver)).map(|process| process.namespace.clone());
        Key { namespace: namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()), name }
    }

    /// Takes an object over, when its name is free.
    pub(crate) fn put_named(&mut self, from: WorkerId, request: u64, gift: Gift) {
        let Gift { name, ttl, id, blob, refs } = gift;
        let key = self.key(from, name);
        if self.keeper.names.find(&key).is_some() {
            let Key { namespace, name } = key;
            let message = format!("the name {name:?} is taken in the namespace {namespace:?}");
            let failure = Failure::new("NAME_TAKEN", message)
                .hint("use getNamed() to read what has the name, free() that, or choose another name");
            return self.send(from, FromDaemon::Named { request, result: Err(failure) }, Vec::new());
        }
        if let Blob::Stored(locator) = blob {
            self.adopt_object(locator);
        }
        let keeper = &mut self.keeper;
        let inner: Vec<_> = refs.iter().map(|entry| keeper.core.adopt(entry)).collect();
        let object = keeper.core.put_as(id, blob, inner.clone());
        for handle in inner {
            keeper.core.release(handle);
        }
        let until = ttl.map(|ttl| keeper.now().saturating_add(ttl));
        let claimed = keeper.names.claim(key, object, until);
        debug_assert_eq!(claimed, Ok(()), "it was free above");
        keeper.core.lend(object, from);
        if let Some(entry) = keeper.core.export(object) {
            let owners = refs.iter().map(|entry| entry.owner).collect();
            keeper.replies.push(Reply { to: from, request, entry, owners });
        }
        if let Some(ttl) = ttl {
            self.after(Duration::from_millis(ttl), Self::expire_names);
        }
        self.perform_keeper();
    }

    /// Tells a process who has a name.
    pub(crate) fn find_named(&mut self, from: WorkerId, request: u64, name: String) {
        let key = self.key(from, name);
        let core = &mut self.keeper.core;
        let found = self.keeper.names.find(&key).and_then(|object| {
            core.lend(object, from);
            core.export(object)
        });
        let result = found.ok_or_else(|| {
            let Key { namespace, name } = key;
            let message = format!("nothing has the name {name:?} in the namespace {namespace:?}");
            Failure::new("NAME_NOT_FOUND", message).hint("it was never put, its ttlMs is over, or it was freed")
        });
        self.send(from, FromDaemon::Named { request, result }, Vec::new());
    }

    fn expire_names(&mut self) {
        let keeper = &mut self.keeper;
        for object in keeper.names.expire(keeper.now()) {
            keeper.core.release(object);
        }
        self.perform_keeper();
    }

    /// A message for the owner of the cluster's objects.
    pub(crate) fn on_keeper(&mut self, from: WorkerId, message: ToPeer) {
        let keeper = &mut self.keeper;
        let freed = match &message {
            ToPeer::Free { object } => keeper.core.find(object).filter(|object| keeper.names.forget(*object)),
            _ => None,
        };
        keeper.core.on_peer(from, message, keeper.started.elapsed().as_millis() as u64, &Closed);
        // A freed object has no name any more.
        if let Some(object) = freed {
            keeper.core.release(object);
        }
        self.perform_keeper();
    }

    /// A process ended: what it borrowed is given up, what it owned inside of the cluster's objects is lost.
    pub(crate) fn keeper_lost(&mut self, process: WorkerId) {
        self.keeper.replies.retain(|reply| reply.to != process);
        self.keeper.core.on_peer_gone(process);
        self.perform_keeper();
    }

    fn perform_keeper(&mut self) {
        let mut freed = Vec::new();
        loop {
            let actions = self.keeper.core.take_actions();
            if actions.is_empty() {
                break;
            }
            for action in actions {
                match action {
                    Action::Send { peer, message } if self.processes.contains_key(&peer) => {
                        self.send(peer, FromDaemon::OfKeeper(message), Vec::new());
                    }
                    // It ended before its references came here.
                    Action::Send { peer, .. } => self.keeper.core.on_peer_gone(peer),
                    Action::Free(locator) => freed.push(locator),
                    // The keeper submits, runs and awaits nothing.
                    _ => {}
                }
            }
        }
        if !freed.is_empty() {
            self.free_objects(freed);
        }
        let core = &self.keeper.core;
        let is_ready = |reply: &mut Reply| reply.owners.iter().all(|owner| core.is_confirmed(owner));
        let ready: Vec<Reply> = self.keeper.replies.extract_if(.., is_ready).collect();
        for Reply { to, request, entry, .. } in ready {
            self.send(to, FromDaemon::Named { request, result: Ok(entry) }, Vec::new());
        }
    }
}
