//! Ownership, tasks and waits among several processes, in chosen and in random orders of messages.

mod support;

use std::collections::{HashSet, VecDeque};

use heliostat_proto::message::ToPeer;
use heliostat_proto::{Blob, Failure, Locator, NodeId, RefEntry, Value};
use heliostat_runtime::{Counts, ExecutionId, Handle, Values as _};
use proptest::prelude::*;
use support::{Cluster, worker};

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
fn a_function_that_never_ended_waits_for_an_idle_worker() {
    let mut c = Cluster::new(3);
    let first = c.quick_task();
    let others = [0, 1].map(|_| c.submit_with(0, &[], &[], |submission| submission.function = [2; 32]));
    assert_eq!(c.grants.len(), 1, "how long the first function takes says nothing about the second");
    c.grant(2);
    c.quiet();
    for at in [1, 2] {
        let execution = c.cores[at].next_execution().expect("one for each");
        c.finish(at, execution, &[]);
    }
    c.quiet();
    for handle in others.into_iter().chain([first]) {
        assert!(c.cores[0].value(handle).is_some());
        c.release(0, handle);
    }
}

#[test]
fn nothing_waits_behind_a_task_that_runs_unexpectedly_long() {
    let mut c = Cluster::new(3);
    let first = c.quick_task();
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
    assert_eq!(c.cores[1].tick(20), Some(30));
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
    let first = c.quick_task();
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
    let number = c.cores[1].execution(execution).and_then(|execution| execution.function).expect("it came before");
    assert!(c.cores[1].function(number).is_some());
    c.finish(1, execution, &[]);
    c.quiet();
    assert_eq!(c.freed, [locator]);
    assert!(c.cores[1].function(number).is_none());
    assert_eq!(c.cores[1].take_forgotten(), [number]);
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
    c.cores[1].finish(execution, vec![Value::Failed(Box::new(failure))], &[], 1, false);
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
    c.cores[1].finish(execution, vec![Value::Failed(Box::new(Failure::new("TASK_FAILED", "no")))], &[], 1, false);
    c.perform(1);
    c.quiet();
    assert!(c.cores[0].is_over(wait) && c.cores[0].is_over(other));
    assert!(c.cores[0].value(a).is_some(), "disposed meanwhile, but the wait holds it");
    c.cores[0].end_wait(wait);
    c.cores[0].end_wait(other);
    assert!(c.cores[0].value(a).is_none());
}

#[test]
fn a_wait_for_many_holds_and_counts_its_references_like_one_for_few() {
    let mut c = Cluster::new(2);
    let mut handles: Vec<Handle> = (0..20).map(|_| c.submit(0, &[], &[])).collect();
    let ready = c.cores[0].put_small(b"here");
    handles.push(ready);
    let all = c.cores[0].wait(&handles, handles.len(), false, &c.values).expect("tasks are pending");
    let twins: Vec<Handle> = handles.iter().chain(&handles).copied().collect();
    let twice = c.cores[0].wait(&twins, twins.len(), true, &c.values).expect("tasks are pending");
    let some = c.cores[0].wait(&handles, 3, false, &c.values).expect("one is ready");
    assert_eq!(c.cores[0].wait(&handles, 1, false, &c.values), None);
    for handle in &handles {
        c.release(0, *handle);
    }
    c.grant(1);
    c.quiet();
    for done in 1..=20 {
        let execution = c.cores[1].next_execution().expect("arrived");
        c.finish(1, execution, &[]);
        c.quiet();
        assert_eq!(c.cores[0].is_over(some), done >= 2, "{done}");
        assert_eq!(c.cores[0].is_over(all), done == 20, "{done}");
        assert_eq!(c.cores[0].is_over(twice), done == 20, "{done}");
    }
    assert!(handles.iter().all(|handle| c.cores[0].is_ready(*handle)), "disposed meanwhile, but the waits hold them");
    for wait in [some, twice] {
        c.cores[0].end_wait(wait);
        assert!(handles.iter().all(|handle| c.cores[0].is_ready(*handle)), "another wait is left");
    }
    c.cores[0].end_wait(all);
    assert!(!handles.iter().any(|handle| c.cores[0].is_ready(*handle)));
    assert_eq!(c.cores[0].counts().objects, 0);
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
    assert_eq!(c.cores[1].value(kept), Some(Value::Ready(Blob::Stored(locator))));
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
    fn no_order_of_messages_loses_or_leaks_a_reference(steps in proptest::collection::vec((0u8..16, any::<u16>(), any::<u16>()), 1..120)) {
        let mut c = Cluster::new(3);
        let mut held: Vec<Vec<Handle>> = vec![Vec::new(); 3];
        let mut running: Vec<(usize, ExecutionId)> = Vec::new();
        let mut leaves = HashSet::new();
        // Nothing fails by itself.
        let interfered = steps.iter().any(|(kind, ..)| (9..14).contains(kind));
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
                    let handle = c.submit_with(at, &inner, &[], |submission| {
                        submission.timeout = (y % 5 == 0).then_some(10);
                        submission.retries_timeouts = y % 10 == 0;
                        submission.retries_errors = y % 3 == 0;
                        submission.max_retries = i64::from(y % 4);
                    });
                    held[at].push(handle);
                }
                8 if at != 2 && !held[at].is_empty() => {
                    let needed: Vec<Handle> = held[at].iter().skip(y as usize % held[at].len()).take(2).copied().collect();
                    let handle = c.submit(at, &[], &needed);
                    held[at].push(handle);
                }
                9 if !held[at].is_empty() => {
                    let handle = held[at][y as usize % held[at].len()];
                    c.cancel(at, handle, y % 7 == 0, y % 2 == 0);
                }
                10 if y % 4 == 0 && !held[at].is_empty() => {
                    let handle = held[at][y as usize % held[at].len()];
                    c.free(at, handle);
                }
                11 if !running.is_empty() => {
                    let (at, execution) = running[y as usize % running.len()];
                    c.cores[at].begin(execution);
                    c.cores[at].take_aborted();
                    c.perform(at);
                }
                12 if !running.is_empty() => {
                    let (at, execution) = running.swap_remove(y as usize % running.len());
                    c.fail(at, execution, y % 2 == 0);
                }
                13 => c.pass(u64::from(y % 16)),
                14 => {
                    c.cores[at].pause(y % 2 == 0);
                    c.perform(at);
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
        for at in 0..3 {
            c.cores[at].pause(false);
            c.perform(at);
        }
        loop {
            c.quiet();
            if let Some((asker, _)) = c.grants.front() {
                let to = asker + 1;
                c.grant(to);
                continue;
            }
            let next = (0..3).find_map(|at| c.cores[at].next_execution().map(|e| (at, e))).or_else(|| running.pop());
            if let Some((at, execution)) = next {
                c.finish(at, execution, &[]);
            } else if c.cores.iter().any(|core| core.counts().tasks > 0) {
                c.pass(10_000);
                prop_assert!(c.now < 10_000_000, "a task never ends: {:?}", c.cores[0].counts());
            } else {
                break;
            }
        }
        for (at, handles) in held.into_iter().enumerate() {
            for handle in handles {
                let code = c.code(at, handle);
                let known = ["TASK_CANCELLED", "TASK_TIMEOUT", "TASK_FAILED", "OBJECT_FREED"];
                prop_assert!(code.is_none_or(|code| known.contains(&code)), "{code:?} in process {at}");
                prop_assert!(interfered || code.is_none(), "lost in process {at}");
                c.release(at, handle);
            }
        }
        c.quiet();
        for (at, core) in c.cores.iter_mut().enumerate() {
            core.tick(100_000_000);
            prop_assert_eq!(core.counts(), Counts::default(), "process {}", at);
        }
    }
}
