//! Several processes' state machines joined by queues: what one sends, another gets, in order per pair.
#![allow(dead_code)] // each test file uses its part

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};

use heliostat_proto::message::{Resources, ToDaemon, ToPeer};
use heliostat_proto::{Blob, Bytes, EnvId, Failure, JobId, Locator, NodeId, ObjectId, RefEntry, Value, WorkerId};
use heliostat_runtime::{Action, Core, ExecutionId, Handle, Identity, Submission, Values, WaitId};

/// Values of the test: the references inside are kept beside the bytes.
#[derive(Default)]
pub(crate) struct Table {
    refs: RefCell<HashMap<Vec<u8>, Vec<RefEntry>>>,
    next: RefCell<u32>,
    /// Objects of the node's store.
    pub(crate) stored: RefCell<HashMap<ObjectId, Locator>>,
}

impl Table {
    pub(crate) fn blob(&self, refs: Vec<RefEntry>) -> Blob {
        let mut next = self.next.borrow_mut();
        *next += 1;
        let bytes = next.to_le_bytes().to_vec();
        self.refs.borrow_mut().insert(bytes.clone(), refs);
        Blob::Inline(Bytes::new(bytes))
    }
}

impl Values for Table {
    fn refs_of(&self, blob: &Blob) -> Vec<RefEntry> {
        match blob {
            Blob::Inline(bytes) => self.refs.borrow().get(&bytes[..]).cloned().unwrap_or_default(),
            Blob::Stored(_) => Vec::new(),
        }
    }

    fn lookup(&self, id: &ObjectId) -> Option<Locator> {
        self.stored.borrow().get(id).copied()
    }
}

pub(crate) fn worker(index: usize) -> WorkerId {
    WorkerId([index as u8 + 1; 16])
}

/// Processes 0..n; process 0 is the driver. Every lease request is granted at once, to a worker of its own choice.
pub(crate) struct Cluster {
    pub(crate) cores: Vec<Core>,
    pub(crate) wires: HashMap<(usize, usize), VecDeque<ToPeer>>,
    pub(crate) values: Table,
    pub(crate) woken: HashSet<(usize, WaitId)>,
    pub(crate) freed: Vec<Locator>,
    pub(crate) grants: VecDeque<(usize, u64)>,
    pub(crate) cancelled: HashSet<(usize, u64)>,
    pub(crate) returned: Vec<u64>,
    /// What the daemon was told of leases.
    pub(crate) retriable: Vec<(u64, bool)>,
    pub(crate) leases: u64,
    pub(crate) dead: HashSet<usize>,
    /// Workers that are to be killed, with who said so.
    pub(crate) kills: Vec<(usize, WorkerId)>,
    /// Milliseconds since the start.
    pub(crate) now: u64,
}

impl Cluster {
    pub(crate) fn new(processes: usize) -> Self {
        let identity =
            |index| Identity { worker: worker(index), node: NodeId([9; 16]), epoch: 1, job: JobId([8; 16]), seat: 1 };
        Self {
            cores: (0..processes).map(|index| Core::new(identity(index))).collect(),
            wires: HashMap::new(),
            values: Table::default(),
            woken: HashSet::new(),
            freed: Vec::new(),
            grants: VecDeque::new(),
            cancelled: HashSet::new(),
            returned: Vec::new(),
            retriable: Vec::new(),
            leases: 0,
            dead: HashSet::new(),
            kills: Vec::new(),
            now: 0,
        }
    }

    fn index(&self, id: WorkerId) -> usize {
        (0..self.cores.len()).find(|index| worker(*index) == id).expect("a process of the cluster")
    }

    pub(crate) fn perform(&mut self, at: usize) {
        for action in self.cores[at].take_actions() {
            match action {
                Action::Send { peer, message } => {
                    let to = self.index(peer);
                    if !self.dead.contains(&to) {
                        self.wires.entry((at, to)).or_default().push_back(message);
                    }
                }
                Action::Daemon(ToDaemon::RequestLease { request, .. }) => self.grants.push_back((at, request)),
                Action::Daemon(ToDaemon::CancelLease { request }) => drop(self.cancelled.insert((at, request))),
                Action::Daemon(ToDaemon::ReturnLease { lease }) => self.returned.push(lease),
                Action::Daemon(ToDaemon::LeaseRetriable { lease, retriable }) => {
                    self.retriable.push((lease, retriable));
                }
                Action::Daemon(ToDaemon::Lends(_)) => {}
                Action::Daemon(ToDaemon::Kill { worker }) => self.kills.push((at, worker)),
                Action::Daemon(other) => panic!("unexpected {other:?}"),
                Action::Free(locator) => self.freed.push(locator),
                Action::Wake(wait) => drop(self.woken.insert((at, wait))),
                Action::Execute(_) | Action::Forgotten | Action::Abort | Action::Unread | Action::Tick => {}
            }
        }
    }

    /// Delivers one message of a pair that has some.
    pub(crate) fn deliver(&mut self, choice: usize) -> bool {
        let mut pairs: Vec<_> = self.wires.iter().filter(|(_, q)| !q.is_empty()).map(|(pair, _)| *pair).collect();
        pairs.sort_unstable();
        if pairs.is_empty() {
            return false;
        }
        let (from, to) = pairs[choice % pairs.len()];
        let message = self.wires.get_mut(&(from, to)).and_then(VecDeque::pop_front).expect("chosen as not empty");
        let values = &self.values;
        self.cores[to].on_peer(worker(from), message, self.now, values);
        self.perform(to);
        true
    }

    pub(crate) fn grant(&mut self, to_worker: usize) -> Option<u64> {
        let (at, request) = self.grants.pop_front()?;
        if self.cancelled.remove(&(at, request)) {
            return None;
        }
        self.leases += 1;
        self.cores[at].on_lease_granted(request, self.leases, worker(to_worker), self.now);
        self.perform(at);
        Some(self.leases)
    }

    pub(crate) fn quiet(&mut self) {
        while self.deliver(0) {}
    }

    pub(crate) fn submit(&mut self, at: usize, contains: &[Handle], by_ref: &[Handle]) -> Handle {
        self.submit_with(at, contains, by_ref, |_| {})
    }

    pub(crate) fn submit_with(
        &mut self,
        at: usize,
        contains: &[Handle],
        by_ref: &[Handle],
        change: impl FnOnce(&mut Submission),
    ) -> Handle {
        let entries: Vec<_> = contains.iter().map(|h| self.cores[at].export(*h).expect("a live handle")).collect();
        let args = self.values.blob(entries);
        let mut submission = Submission {
            name: "f".into(),
            function: [1; 32],
            args,
            contains: contains.to_vec(),
            by_ref: by_ref.iter().enumerate().map(|(position, handle)| (position as u32, *handle)).collect(),
            returns: None,
            stream: None,
            resources: Resources::new([("CPU".into(), 1.0)]),
            env: EnvId::default(),
            unfit: None,
            max_retries: 3,
            retries_errors: false,
            retries_timeouts: false,
            timeout: None,
            cancelled: false,
            parent: None,
        };
        change(&mut submission);
        let returned = self.cores[at].submit(submission, self.now, &self.values);
        self.perform(at);
        returned[0]
    }

    /// Ends a task with an error.
    pub(crate) fn fail(&mut self, at: usize, execution: ExecutionId, again: bool) {
        let failure = Failure::new("TASK_FAILED", "f() failed");
        self.cores[at].finish(execution, vec![Value::Failed(Box::new(failure))], &[], 1_000, again);
        self.perform(at);
    }

    /// Lets time pass in every process.
    pub(crate) fn pass(&mut self, ms: u64) {
        self.now += ms;
        for at in 0..self.cores.len() {
            self.cores[at].tick(self.now);
            self.perform(at);
        }
    }

    pub(crate) fn cancel(&mut self, at: usize, handle: Handle, force: bool, recursive: bool) {
        self.cores[at].cancel(handle, force, recursive, self.now);
        self.perform(at);
    }

    pub(crate) fn free(&mut self, at: usize, handle: Handle) {
        self.cores[at].free(handle);
        self.perform(at);
    }

    /// The code of the failure that a reference has.
    pub(crate) fn code(&self, at: usize, handle: Handle) -> Option<&str> {
        self.cores[at].failure(handle).map(|failure| failure.code.as_str())
    }

    /// Ends a task with a value that contains `refs`.
    pub(crate) fn finish(&mut self, at: usize, execution: ExecutionId, refs: &[Handle]) {
        let entries: Vec<_> = refs.iter().map(|h| self.cores[at].export(*h).expect("a live handle")).collect();
        let value = Value::Ready(self.values.blob(entries));
        self.cores[at].finish(execution, vec![value], refs, 1_000, false);
        self.perform(at);
    }

    /// A task of the driver that worker 1 ran in a microsecond: more of them may be sent ahead from then on.
    pub(crate) fn quick_task(&mut self) -> Handle {
        let first = self.submit(0, &[], &[]);
        self.grant(1);
        self.quiet();
        let execution = self.cores[1].next_execution().expect("arrived");
        self.finish(1, execution, &[]);
        self.quiet();
        first
    }

    pub(crate) fn release(&mut self, at: usize, handle: Handle) {
        self.cores[at].release(handle);
        self.perform(at);
    }

    pub(crate) fn put(&mut self, at: usize, refs: &[Handle]) -> Handle {
        let entries: Vec<_> = refs.iter().map(|h| self.cores[at].export(*h).expect("a live handle")).collect();
        let blob = self.values.blob(entries);
        self.cores[at].put(blob, refs.to_vec())
    }
}
