//! Several processes' state machines joined by queues: what one sends, another gets, in order per pair.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};

use heliostat_proto::message::{Resources, ToDaemon, ToPeer};
use heliostat_proto::{Blob, Bytes, Failure, JobId, Locator, NodeId, ObjectId, RefEntry, Value, WorkerId};
use heliostat_runtime::{Action, Core, Counts, ExecutionId, Handle, Identity, Submission, Values, WaitId};
use proptest::prelude::*;

/// Values of the test: the references inside are kept beside the bytes.
#[derive(Default)]
struct Table {
    refs: RefCell<HashMap<Vec<u8>, Vec<RefEntry>>>,
    next: RefCell<u32>,
    /// Objects of the node's store.
    stored: RefCell<HashMap<ObjectId, Locator>>,
}

impl Table {
    fn blob(&self, refs: Vec<RefEntry>) -> Blob {
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

fn worker(index: usize) -> WorkerId {
    WorkerId([index as u8 + 1; 16])
}

/// Processes 0..n; process 0 is the driver. Every lease request is granted at once, to a worker of its own choice.
struct Cluster {
    cores: Vec<Core>,
    wires: HashMap<(usize, usize), VecDeque<ToPeer>>,
    values: Table,
    woken: HashSet<(usize, WaitId)>,
    freed: Vec<Locator>,
    grants: VecDeque<(usize, u64)>,
    cancelled: HashSet<(usize, u64)>,
    returned: Vec<u64>,
    /// What the daemon was told of leases.
    retriable: Vec<(u64, bool)>,
    leases: u64,
    dead: HashSet<usize>,
}

impl Cluster {
    fn new(processes: usize) -> Self {
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
        }
    }

    fn index(&self, id: WorkerId) -> usize {
        (0..self.cores.len()).find(|index| worker(*index) == id).expect("a process of the cluster")
    }

    fn perform(&mut self, at: usize) {
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
                Action::Daemon(other) => panic!("unexpected {other:?}"),
                Action::Free(locator) => self.freed.push(locator),
                Action::Wake(wait) => drop(self.woken.insert((at, wait))),
                Action::Execute(_) | Action::Forgotten => {}
            }
        }
    }

    /// Delivers one message of a pair that has some.
    fn deliver(&mut self, choice: usize) -> bool {
        let mut pairs: Vec<_> = self.wires.iter().filter(|(_, q)| !q.is_empty()).map(|(pair, _)| *pair).collect();
        pairs.sort_unstable();
        if pairs.is_empty() {
            return false;
        }
        let (from, to) = pairs[choice % pairs.len()];
        let message = self.wires.get_mut(&(from, to)).and_then(VecDeque::pop_front).expect("chosen as not empty");
        let values = &self.values;
        self.cores[to].on_peer(worker(from), message, 0, values);
        self.perform(to);
        true
    }

    fn grant(&mut self, to_worker: usize) -> Option<u64> {
        let (at, request) = self.grants.pop_front()?;
        if self.cancelled.remove(&(at, request)) {
            return None;
        }
        self.leases += 1;
        self.cores[at].on_lease_granted(request, self.leases, worker(to_worker), 0);
        self.perform(at);
        Some(self.leases)
    }

    fn quiet(&mut self) {
        while self.deliver(0) {}
    }

    fn submit(&mut self, at: usize, contains: &[Handle], by_ref: &[Handle]) -> Handle {
        let entries: Vec<_> = contains.iter().map(|h| self.cores[at].export(*h).expect("a live handle")).collect();
        let args = self.values.blob(entries);
        let submission = Submission {
            name: "f".into(),
            function: [1; 32],
            args,
            contains: contains.to_vec(),
            by_ref: by_ref.iter().enumerate().map(|(position, handle)| (position as u32, *handle)).collect(),
            returns: None,
            resources: Resources::new([("CPU".into(), 1.0)]),
            max_retries: 3,
            parent: None,
        };
        let returned = self.cores[at].submit(submission, 0, &self.values);
        self.perform(at);
        returned[0]
    }

    /// Ends a task with a value that contains `refs`.
    fn finish(&mut self, at: usize, execution: ExecutionId, refs: &[Handle]) {
        let entries: Vec<_> = refs.iter().map(|h| self.cores[at].export(*h).expect("a live handle")).collect();
        let value = Value::Ready(self.values.blob(entries));
        self.cores[at].finish(execution, vec![value], refs, 1_000);
        self.perform(at);
    }

    fn release(&mut self, at: usize, handle: Handle) {
        self.cores[at].release(handle);
        self.perform(at);
    }

    fn put(&mut self, at: usize, refs: &[Handle]) -> Handle {
        let entries: Vec<_> = refs.iter().map(|h| self.cores[at].export(*h).expect("a live handle")).collect();
        let blob = self.values.blob(entries);
        self.cores[at].put(blob, refs.to_vec())
    }
}

#[test]
fn a_reference_kept_by_a_worker_outlives_the_task_and_the_drivers_handle() {
    let mut c = Cluster::new(2);
    let held = c.put(0, &[]);
    let result = c.submit(0, &[held], &[]);
    c.grant(1);
    c.quiet();
    let execution = c.cores[1].next_execution().expect("the task arrived");
    let id = c.cores[0].id(held).expect("alive");
    let args = c.cores[1].execution(execution).expect("running").spec.args.clone();
    let entry = c.values.refs_of(&args)[0];
    let kept = c.cores[1].adopt(&entry);
    c.finish(1, execution, &[]);
    c.quiet();
    c.release(0, held);
    c.release(0, result);
    assert_eq!(c.cores[0].id(held), Some(id), "the worker still holds it");
    assert!(c.cores[1].wait(&[kept], 1, true, &c.values).is_some());
    c.perform(1);
    c.quiet();
    assert!(c.cores[1].value(kept).is_some(), "and can read it");
    assert_eq!(c.woken.len(), 1);
    c.cores[1].end_wait(0);
    c.release(1, kept);
    c.quiet();
    assert_eq!(c.cores[0].counts().objects, 0);
    assert_eq!(c.cores[1].counts().objects, 0);
}

#[test]
fn a_reference_inside_a_result_lives_until_its_new_holder_lets_go() {
    let mut c = Cluster::new(2);
    let result = c.submit(0, &[], &[]);
    c.grant(1);
    c.quiet();
    let execution = c.cores[1].next_execution().expect("the task arrived");
    let made = c.put(1, &[]);
    c.finish(1, execution, &[made]);
    c.release(1, made);
    assert_eq!(c.cores[1].counts().objects, 1, "on its way");
    c.quiet();
    assert_eq!(c.cores[1].counts().objects, 1, "lent to the driver");
    let inner = c.cores[0].contained(result)[0];
    c.cores[0].retain(inner);
    c.release(0, result);
    c.quiet();
    assert_eq!(c.cores[1].counts().objects, 1);
    c.release(0, inner);
    c.quiet();
    assert_eq!(c.cores[1].counts().objects, 0);
    assert_eq!(c.cores[0].counts().objects, 0);
}

#[test]
fn a_forwarded_reference_is_registered_before_its_last_holder_lets_go() {
    // The driver owns it, worker 1 borrows it and passes it on to worker 2, whose borrow reaches the driver last.
    let mut c = Cluster::new(3);
    let held = c.put(0, &[]);
    let outer = c.submit(0, &[held], &[]);
    c.grant(1);
    c.quiet();
    c.release(0, held);
    let first = c.cores[1].next_execution().expect("the task arrived");
    let args = c.cores[1].execution(first).expect("running").spec.args.clone();
    let kept = c.cores[1].adopt(&c.values.refs_of(&args)[0]);
    let nested = c.submit(1, &[kept], &[]);
    c.grant(2);
    let run: Vec<_> = c.wires.get_mut(&(1, 2)).expect("sent").drain(..).collect();
    for message in run {
        let values = &c.values;
        c.cores[2].on_peer(worker(1), message, 0, values);
        c.perform(2);
    }
    let second = c.cores[2].next_execution().expect("the nested task arrived");
    let args = c.cores[2].execution(second).expect("running").spec.args.clone();
    let far = c.cores[2].adopt(&c.values.refs_of(&args)[0]);
    c.finish(2, second, &[]);
    assert!(c.wires.get(&(2, 1)).is_none_or(VecDeque::is_empty), "the end of the task waits for the driver's word");
    c.quiet();
    c.release(1, kept);
    c.release(1, nested);
    c.finish(1, first, &[]);
    c.quiet();
    c.release(0, outer);
    c.quiet();
    assert_eq!(c.cores[0].counts().objects, 1, "worker 2 holds it");
    c.release(2, far);
    c.quiet();
    for core in &c.cores {
        assert_eq!(core.counts().objects, 0);
    }
}

#[test]
fn a_dead_owner_fails_its_references_and_a_dead_borrower_gives_them_up() {
    let mut c = Cluster::new(2);
    let mine = c.put(0, &[]);
    let result = c.submit(0, &[mine], &[]);
    let lease = c.grant(1).expect("granted");
    c.quiet();
    let execution = c.cores[1].next_execution().expect("arrived");
    let args = c.cores[1].execution(execution).expect("running").spec.args.clone();
    let _kept = c.cores[1].adopt(&c.values.refs_of(&args)[0]);
    let theirs = c.put(1, &[]);
    c.finish(1, execution, &[theirs]);
    c.quiet();
    let inner = c.cores[0].contained(result)[0];
    let wait = c.cores[0].wait(&[inner], 1, true, &c.values).expect("not here yet");
    c.dead.insert(1);
    c.wires.clear();
    c.cores[0].on_lease_broken(lease, &Failure::new("WORKER_CRASHED", "killed"), 0, &c.values);
    c.cores[0].on_peer_gone(worker(1));
    c.perform(0);
    assert!(c.woken.contains(&(0, wait)));
    assert!(matches!(c.cores[0].value(inner), Some(Value::Failed(failure)) if failure.code == "OWNER_DIED"));
    c.cores[0].end_wait(wait);
    c.release(0, mine);
    c.release(0, result);
    c.perform(0);
    assert_eq!(c.cores[0].counts(), Counts::default());
}

#[test]
fn a_crash_retries_the_running_task_only_and_the_last_one_fails_it() {
    let mut c = Cluster::new(3);
    let first = c.submit(0, &[], &[]);
    let mut lease = c.grant(1).expect("granted");
    let mut now = 0;
    for attempt in 0..=3 {
        c.cores[0].on_lease_broken(lease, &Failure::new("WORKER_CRASHED", "killed"), now, &c.values);
        c.perform(0);
        if attempt < 3 {
            assert!(c.cores[0].value(first).is_none());
            now = c.cores[0].tick(now).expect("a retry backs off");
            c.cores[0].tick(now);
            c.perform(0);
            lease = c.grant(2).expect("granted again");
            c.perform(0);
            let sent = c.wires.get_mut(&(0, 2)).expect("sent").drain(..).next_back();
            assert!(matches!(sent, Some(ToPeer::Run(spec)) if spec.attempt == attempt + 1));
        }
    }
    assert!(matches!(c.cores[0].value(first), Some(Value::Failed(failure)) if failure.code == "WORKER_CRASHED"));
    c.release(0, first);
    assert_eq!(c.cores[0].counts(), Counts::default());
}

#[test]
fn a_death_for_want_of_memory_is_tried_again_later_and_told_with_task_and_attempt() {
    let mut c = Cluster::new(3);
    let first = c.submit(0, &[], &[]);
    let failure = Failure::new("OUT_OF_MEMORY", "the figures");
    let mut now = 0;
    for (attempt, backoff) in [500, 1000, 2000].into_iter().enumerate() {
        let lease = c.grant(attempt % 2 + 1).expect("granted");
        assert_eq!(c.retriable, []);
        c.cores[0].on_lease_broken(lease, &failure, now, &c.values);
        c.perform(0);
        assert_eq!(c.cores[0].tick(now), Some(now + backoff));
        now += backoff;
        c.cores[0].tick(now);
        c.perform(0);
    }
    let lease = c.grant(2).expect("granted");
    assert_eq!(c.retriable, [(lease, false)], "the last attempt is not tried again");
    c.cores[0].on_lease_broken(lease, &failure, now, &c.values);
    c.perform(0);
    let Some(Value::Failed(failure)) = c.cores[0].value(first) else { panic!("it has failed") };
    assert_eq!(failure.message, "f() ran out of memory in attempt 3: the figures");
    c.release(0, first);
    assert_eq!(c.cores[0].counts(), Counts::default());
}

#[test]
fn nothing_waits_behind_a_task_that_runs_unexpectedly_long() {
    let mut c = Cluster::new(3);
    // One finished quickly, so that several are sent ahead.
    let first = c.submit(0, &[], &[]);
    c.grant(1);
    c.quiet();
    let execution = c.cores[1].next_execution().expect("arrived");
    c.finish(1, execution, &[]);
    c.quiet();
    let stuck = c.submit(0, &[], &[]);
    let ahead = c.submit(0, &[], &[]);
    assert!(c.grants.is_empty(), "sent ahead");
    c.quiet();
    let running = c.cores[1].next_execution().expect("the first of the two");
    // Time passes, and the worker is silent.
    c.cores[0].tick(11);
    let later = c.submit(0, &[], &[]);
    assert_eq!(c.grants.len(), 1, "another worker is asked for");
    c.grant(2);
    c.quiet();
    let execution = c.cores[2].next_execution().expect("sent to the other worker");
    c.finish(2, execution, &[]);
    c.quiet();
    assert!(c.cores[0].value(later).is_some() && c.cores[0].value(stuck).is_none());
    // The worker's thread that reads gives back what waits there, though the task never ends.
    assert_eq!(c.cores[1].tick(20), Some(31));
    assert_eq!(c.cores[1].tick(31), None);
    c.perform(1);
    c.quiet();
    assert!(c.cores[1].next_execution().is_none());
    let execution = c.cores[2].next_execution().expect("it is given to the other");
    c.finish(2, execution, &[]);
    c.quiet();
    assert!(c.cores[0].value(ahead).is_some() && c.cores[0].value(stuck).is_none());
    c.finish(1, running, &[]);
    c.quiet();
    for handle in [first, stuck, ahead, later] {
        assert!(c.cores[0].value(handle).is_some());
        c.release(0, handle);
    }
}

#[test]
fn after_the_end_of_the_node_everything_fails_at_once() {
    let mut c = Cluster::new(2);
    let earlier = c.submit(0, &[], &[]);
    c.cores[0].on_node_gone(&Failure::new("NODE_DIED", "gone"));
    let later = c.submit(0, &[], &[]);
    let foreign = RefEntry { id: c.cores[1].next_put_id(), owner: worker(1), node: NodeId([9; 16]), epoch: 1 };
    let foreign = c.cores[0].adopt(&foreign);
    let wait = c.cores[0].wait(&[foreign], 1, true, &c.values);
    for handle in [earlier, later, foreign] {
        assert!(matches!(c.cores[0].value(handle), Some(Value::Failed(failure)) if failure.code == "NODE_DIED"));
        c.release(0, handle);
    }
    assert_eq!(wait, None, "there is nothing to wait for");
}

#[test]
fn what_waits_behind_a_waiting_task_runs_elsewhere() {
    let mut c = Cluster::new(3);
    // One finished quickly, so that several are sent ahead.
    let first = c.submit(0, &[], &[]);
    c.grant(1);
    c.quiet();
    let execution = c.cores[1].next_execution().expect("arrived");
    c.finish(1, execution, &[]);
    c.quiet();
    let waiter = c.submit(0, &[], &[]);
    let behind = c.submit(0, &[], &[]);
    c.quiet();
    let running = c.cores[1].next_execution().expect("the waiter");
    c.cores[1].pause(true);
    c.perform(1);
    assert!(c.cores[1].next_execution().is_none(), "nothing else begins here");
    c.quiet();
    let later = c.submit(0, &[], &[]);
    c.quiet();
    assert_eq!(c.cores[1].counts().executions, 1, "nor is anything more sent here");
    while c.grant(2).is_none() {}
    c.quiet();
    let there = c.cores[2].next_execution().expect("sent to another worker");
    c.finish(2, there, &[]);
    c.quiet();
    let next = c.cores[2].next_execution().expect("and the one after it");
    c.finish(2, next, &[]);
    c.quiet();
    assert!(c.cores[0].value(behind).is_some() && c.cores[0].value(later).is_some());
    c.cores[1].pause(false);
    c.perform(1);
    c.finish(1, running, &[]);
    c.quiet();
    assert!(c.cores[0].value(waiter).is_some() && c.cores[0].value(first).is_some());
}

#[test]
fn what_a_worker_sealed_before_its_end_is_freed() {
    let mut c = Cluster::new(2);
    let result = c.submit(0, &[], &[]);
    let lease = c.grant(1).expect("granted");
    let locator = Locator { segment: 0, slot: 5, offset: 4096, length: 10, generation: 1 };
    c.values.stored.borrow_mut().insert(c.cores[0].id(result).expect("alive"), locator);
    c.cores[0].on_lease_broken(lease, &Failure::new("WORKER_CRASHED", "killed"), 0, &c.values);
    c.perform(0);
    assert_eq!(c.freed, [locator]);
    assert!(c.cores[0].value(result).is_none(), "it is tried again");
}

#[test]
fn a_function_that_nobody_holds_goes_everywhere_after_its_last_task() {
    let mut c = Cluster::new(2);
    let captured = c.put(0, &[]);
    let locator = Locator { segment: 0, slot: 9, offset: 8192, length: 10, generation: 1 };
    c.cores[0].define([1; 32], Blob::Stored(locator), &[captured]);
    c.release(0, captured);
    let result = c.submit(0, &[], &[]);
    c.grant(1);
    c.quiet();
    c.cores[0].drop_function(&[1; 32]);
    c.perform(0);
    assert!(c.freed.is_empty(), "a task runs it");
    let execution = c.cores[1].next_execution().expect("arrived");
    assert!(c.cores[1].function(&[1; 32]).is_some());
    c.finish(1, execution, &[]);
    c.quiet();
    assert_eq!(c.freed, [locator]);
    assert!(c.cores[1].function(&[1; 32]).is_none());
    assert_eq!(c.cores[1].take_forgotten(), [[1; 32]]);
    c.release(0, result);
    c.cores[0].tick(1_000_000);
    assert_eq!(c.cores[0].counts(), Counts::default());
}

#[test]
fn a_dependant_of_a_failed_task_does_not_run() {
    let mut c = Cluster::new(2);
    let first = c.submit(0, &[], &[]);
    let second = c.submit(0, &[], &[first]);
    let third = c.submit(0, &[], &[second]);
    c.grant(1);
    c.quiet();
    let execution = c.cores[1].next_execution().expect("arrived");
    let failure = Failure::new("TASK_FAILED", "f() failed");
    c.cores[1].finish(execution, vec![Value::Failed(Box::new(failure))], &[], 1);
    c.perform(1);
    c.quiet();
    for dependant in [second, third] {
        assert!(
            matches!(c.cores[0].value(dependant), Some(Value::Failed(f)) if f.inherited && f.code == "TASK_FAILED")
        );
    }
    assert!(c.cores[1].next_execution().is_none());
}

#[test]
fn a_wait_ends_with_the_first_failure_and_holds_its_references_until_then() {
    let mut c = Cluster::new(2);
    let (a, b) = (c.submit(0, &[], &[]), c.submit(0, &[], &[]));
    let wait = c.cores[0].wait(&[a, b], 2, true, &c.values).expect("nothing is ready");
    let other = c.cores[0].wait(&[a, b], 1, false, &c.values).expect("nothing is ready");
    c.release(0, a);
    c.grant(1);
    c.quiet();
    let execution = c.cores[1].next_execution().expect("arrived");
    c.cores[1].finish(execution, vec![Value::Failed(Box::new(Failure::new("TASK_FAILED", "no")))], &[], 1);
    c.perform(1);
    c.quiet();
    assert!(c.cores[0].is_over(wait) && c.cores[0].is_over(other));
    assert!(c.cores[0].value(a).is_some(), "disposed meanwhile, but the wait holds it");
    c.cores[0].end_wait(wait);
    c.cores[0].end_wait(other);
    assert!(c.cores[0].value(a).is_none());
}

#[test]
fn what_a_process_of_the_node_put_is_read_without_asking_it() {
    let mut c = Cluster::new(2);
    let locator = Locator { segment: 0, slot: 3, offset: 4096, length: 10, generation: 2 };
    let held = c.cores[0].put(Blob::Stored(locator), Vec::new());
    let id = c.cores[0].id(held).expect("alive");
    let _result = c.submit(0, &[held], &[]);
    c.grant(1);
    c.quiet();
    let execution = c.cores[1].next_execution().expect("arrived");
    let args = c.cores[1].execution(execution).expect("running").spec.args.clone();
    let kept = c.cores[1].adopt(&c.values.refs_of(&args)[0]);
    c.values.stored.borrow_mut().insert(id, locator);
    assert!(c.cores[1].wait(&[kept], 1, true, &c.values).is_none(), "it is there");
    assert!(c.cores[1].take_actions().is_empty(), "and nobody was asked");
    assert_eq!(c.cores[1].value(kept), Some(&Value::Ready(Blob::Stored(locator))));
}

#[test]
fn an_owner_is_told_of_many_references_at_once() {
    let mut c = Cluster::new(2);
    let held: Vec<Handle> = (0..100).map(|_| c.put(0, &[])).collect();
    let result = c.submit(0, &held, &[]);
    c.grant(1);
    let messages: Vec<_> = c.wires.get_mut(&(0, 1)).expect("sent").drain(..).collect();
    for message in messages {
        c.cores[1].on_peer(worker(0), message, 0, &c.values);
    }
    c.perform(1);
    assert_eq!(c.wires[&(1, 0)].len(), 1, "one message for all");
    c.quiet();
    let execution = c.cores[1].next_execution().expect("arrived");
    c.finish(1, execution, &[]);
    assert_eq!(c.wires[&(1, 0)].len(), 2, "the end of the task, and one message for all");
    c.quiet();
    for handle in held {
        c.release(0, handle);
    }
    c.release(0, result);
    assert_eq!(c.cores[0].counts().objects, 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever order messages take between the pairs, nothing is lost while it is referred to, and nothing is left
    /// when nobody refers to anything.
    #[test]
    fn no_order_of_messages_loses_or_leaks_a_reference(steps in proptest::collection::vec((0u8..8, any::<u16>(), any::<u16>()), 1..120)) {
        let mut c = Cluster::new(3);
        let mut held: Vec<Vec<Handle>> = vec![Vec::new(); 3];
        let mut running: Vec<(usize, ExecutionId)> = Vec::new();
        let mut leaves = HashSet::new();
        for (kind, x, y) in steps {
            let at = x as usize % 3;
            match kind {
                0 => {
                    let inner: Vec<Handle> = held[at].iter().take(y as usize % 3).copied().collect();
                    let handle = c.put(at, &inner);
                    c.perform(at);
                    if inner.is_empty() {
                        leaves.extend(c.cores[at].id(handle));
                    }
                    held[at].push(handle);
                }
                1 if at != 2 => {
                    let count = y as usize % 3;
                    let inner: Vec<Handle> = held[at].iter().rev().take(count).copied().collect();
                    let handle = c.submit(at, &inner, &[]);
                    held[at].push(handle);
                }
                2 if !held[at].is_empty() => {
                    let chosen = y as usize % held[at].len();
                    let handle = held[at].swap_remove(chosen);
                    c.release(at, handle);
                }
                3 => {
                    // Leases go from lower to higher processes, as nested tasks do.
                    if let Some((asker, _)) = c.grants.front() {
                        let to = asker + 1;
                        c.grant(to);
                    }
                }
                4 => {
                    if let Some(execution) = c.cores[at].next_execution() {
                        let args = c.cores[at].execution(execution).expect("running").spec.args.clone();
                        for entry in c.values.refs_of(&args) {
                            let handle = c.cores[at].adopt(&entry);
                            c.perform(at);
                            held[at].push(handle);
                        }
                        running.push((at, execution));
                    }
                }
                5 if !running.is_empty() => {
                    let chosen = y as usize % running.len();
                    let (at, execution) = running.swap_remove(chosen);
                    // Counting cannot free cycles: a result must not come to contain itself.
                    let is_leaf = |handle: &&Handle| c.cores[at].id(**handle).is_some_and(|id| leaves.contains(&id));
                    let refs: Vec<Handle> = held[at].iter().filter(is_leaf).take(y as usize % 3).copied().collect();
                    c.finish(at, execution, &refs);
                }
                6 if !held[at].is_empty() => {
                    let handle = held[at][y as usize % held[at].len()];
                    for inner in c.cores[at].contained(handle).to_vec() {
                        c.cores[at].retain(inner);
                        held[at].push(inner);
                    }
                }
                _ => drop(c.deliver(y as usize)),
            }
            for (at, handles) in held.iter().enumerate() {
                for handle in handles {
                    prop_assert!(c.cores[at].id(*handle).is_some(), "a handle of process {at} went away");
                }
            }
        }
        // Everything ends: tasks run, handles go.
        loop {
            c.quiet();
            if let Some((asker, _)) = c.grants.front() {
                let to = asker + 1;
                c.grant(to);
                continue;
            }
            let next = (0..3).find_map(|at| c.cores[at].next_execution().map(|e| (at, e))).or_else(|| running.pop());
            let Some((at, execution)) = next else { break };
            c.finish(at, execution, &[]);
        }
        for (at, handles) in held.into_iter().enumerate() {
            for handle in handles {
                prop_assert!(!matches!(c.cores[at].value(handle), Some(Value::Failed(_))), "lost in process {at}");
                c.release(at, handle);
            }
        }
        c.quiet();
        for (at, core) in c.cores.iter_mut().enumerate() {
            core.tick(1_000_000);
            prop_assert_eq!(core.counts(), Counts::default(), "process {}", at);
        }
    }
}
