//! Runs that end before they are done, or once more: cancelled, late, tried again, unread.

mod support;

use heliostat_proto::message::ToPeer;
use heliostat_proto::{Blob, Failure, Locator, Value};
use heliostat_runtime::{Aborted, Counts, ExecutionId, GRACE_MS, Handle, Values as _};
use support::{Cluster, worker};

/// A driver with a task that runs at worker 1, and the lease.
fn running(c: &mut Cluster, handle: Handle) -> (ExecutionId, u64, Handle) {
    let lease = c.grant(1).expect("granted");
    c.quiet();
    (c.cores[1].next_execution().expect("arrived"), lease, handle)
}

fn ends_empty(c: &mut Cluster) {
    c.quiet();
    c.pass(1_000_000);
    for (at, core) in c.cores.iter().enumerate() {
        assert_eq!(core.counts(), Counts::default(), "process {at}");
    }
}

#[test]
fn a_cancelled_run_settles_at_once_and_its_late_results_are_freed() {
    let mut c = Cluster::new(2);
    let handle = c.submit(0, &[], &[]);
    let (execution, _, handle) = running(&mut c, handle);
    let wait = c.cores[0].wait(&[handle], 1, true, &c.values).expect("pending");
    c.cancel(0, handle, false, true);
    assert!(c.woken.contains(&(0, wait)));
    assert_eq!(c.code(0, handle), Some("TASK_CANCELLED"));
    c.quiet();
    assert_eq!(c.cores[1].take_aborted(), [Aborted { execution, late: false }]);
    assert_eq!(c.cores[1].take_aborted(), [], "told once");
    assert!(c.kills.is_empty());
    c.cancel(0, handle, false, true);
    let locator = Locator { segment: 0, slot: 5, offset: 4096, length: 10, generation: 1 };
    c.cores[1].finish(execution, vec![Value::Ready(Blob::Stored(locator))], &[], 1, false);
    c.perform(1);
    c.quiet();
    assert_eq!(c.freed, [locator]);
    c.cancel(0, handle, true, true);
    assert_eq!(c.code(0, handle), Some("TASK_CANCELLED"));
    c.cores[0].end_wait(wait);
    c.release(0, handle);
    assert!(c.cores[0].take_unread().is_empty(), "who cancels knows");
    ends_empty(&mut c);
}

#[test]
fn a_run_that_was_cancelled_before_its_code_began_ends_without_it() {
    let mut c = Cluster::new(2);
    let handle = c.submit(0, &[], &[]);
    let (execution, _, handle) = running(&mut c, handle);
    assert!(!c.cores[1].end_aborted(execution), "nobody wants its end");
    c.cancel(0, handle, false, true);
    c.quiet();
    assert!(c.cores[1].end_aborted(execution));
    assert!(!c.cores[1].end_aborted(execution), "it has ended");
    c.perform(1);
    c.quiet();
    assert_eq!(c.code(0, handle), Some("TASK_CANCELLED"));
    c.release(0, handle);
    ends_empty(&mut c);
}

#[test]
fn a_value_that_crossed_the_cancellation_does_not_count_and_a_cancellation_that_crossed_the_end_does_nothing() {
    let mut c = Cluster::new(2);
    let handle = c.submit(0, &[], &[]);
    let (execution, _, handle) = running(&mut c, handle);
    c.finish(1, execution, &[]);
    c.cancel(0, handle, true, true);
    c.quiet();
    assert_eq!(c.code(0, handle), Some("TASK_CANCELLED"));
    assert!(c.kills.is_empty(), "the run has ended");
    c.pass(GRACE_MS);
    assert!(c.kills.is_empty());
    c.release(0, handle);
    let done = c.submit(0, &[], &[]);
    let execution = {
        while c.grant(1).is_none() {}
        c.quiet();
        c.cores[1].next_execution().expect("arrived")
    };
    c.finish(1, execution, &[]);
    c.quiet();
    c.cancel(0, done, true, true);
    assert_eq!(c.code(0, done), None);
    c.release(0, done);
    ends_empty(&mut c);
}

#[test]
fn force_kills_after_what_was_behind_came_back() {
    let mut c = Cluster::new(3);
    // One finished quickly, so that several are sent ahead.
    let first = c.submit(0, &[], &[]);
    let (execution, lease, first) = running(&mut c, first);
    c.finish(1, execution, &[]);
    c.quiet();
    let doomed = c.submit(0, &[], &[]);
    let behind = c.submit_with(0, &[], &[], |submission| submission.max_retries = 0);
    c.quiet();
    c.cores[1].next_execution().expect("the doomed one");
    c.cancel(0, doomed, true, true);
    assert!(c.kills.is_empty(), "not before it is known what had not begun");
    c.quiet();
    assert_eq!(c.kills, [(0, worker(1))]);
    assert!(c.cores[1].next_execution().is_none(), "nothing else begins there");
    assert_eq!(c.code(0, behind), None);
    c.dead.insert(1);
    c.cores[0].on_lease_broken(lease, &Failure::new("WORKER_CRASHED", "killed"), c.now, &c.values);
    c.cores[0].on_peer_gone(worker(1));
    c.perform(0);
    while c.grant(2).is_none() {}
    c.quiet();
    let execution = c.cores[2].next_execution().expect("it runs elsewhere");
    c.finish(2, execution, &[]);
    c.quiet();
    assert!(matches!(c.cores[0].value(behind), Some(Value::Ready(_))), "uncharged");
    for handle in [first, doomed, behind] {
        c.release(0, handle);
    }
    c.quiet();
    c.pass(1_000_000);
    assert_eq!(c.cores[0].counts(), Counts::default());
}

#[test]
fn force_does_not_wait_for_ever_for_a_worker_that_does_not_answer() {
    let mut c = Cluster::new(2);
    let handle = c.submit(0, &[], &[]);
    let (_, _, handle) = running(&mut c, handle);
    c.cancel(0, handle, true, true);
    c.pass(GRACE_MS - 1);
    assert!(c.kills.is_empty());
    c.pass(1);
    assert_eq!(c.kills, [(0, worker(1))]);
}

#[test]
fn tasks_that_do_not_run_yet_never_do() {
    let mut c = Cluster::new(2);
    let blocker = c.submit(0, &[], &[]);
    let queued = c.submit(0, &[], &[]);
    let waiting = c.submit(0, &[], &[blocker]);
    let (execution, _, blocker) = running(&mut c, blocker);
    for handle in [queued, waiting] {
        c.cancel(0, handle, false, true);
        assert_eq!(c.code(0, handle), Some("TASK_CANCELLED"));
    }
    let born_cancelled = c.submit_with(0, &[], &[], |submission| submission.cancelled = true);
    assert_eq!(c.code(0, born_cancelled), Some("TASK_CANCELLED"));
    c.finish(1, execution, &[]);
    c.quiet();
    let sent = c.submit(0, &[], &[]);
    let second = c.submit(0, &[], &[]);
    c.quiet();
    c.cancel(0, second, false, true);
    c.quiet();
    let execution = c.cores[1].next_execution().expect("the one before it");
    assert!(c.cores[1].next_execution().is_none(), "taken back");
    c.finish(1, execution, &[]);
    c.quiet();
    assert_eq!(c.code(0, sent), None);
    for handle in [blocker, queued, waiting, born_cancelled, sent, second] {
        c.release(0, handle);
    }
    ends_empty(&mut c);
}

#[test]
fn a_task_that_failed_before_its_last_argument_leaves_its_number_to_nobody() {
    let mut c = Cluster::new(2);
    let (a, b) = (c.submit(0, &[], &[]), c.submit(0, &[], &[]));
    let both = c.submit(0, &[], &[a, b]);
    c.cancel(0, both, false, true);
    // It takes the number of the cancelled task, and waits for something else.
    let (execution, _, a) = running(&mut c, a);
    let later = c.submit(0, &[], &[a]);
    c.finish(1, execution, &[]);
    c.quiet();
    let mut finished = 0;
    while c.cores[0].counts().tasks > 0 {
        let execution = c.cores[1].next_execution().expect("every task comes to run");
        c.finish(1, execution, &[]);
        c.quiet();
        finished += 1;
    }
    assert_eq!(finished, 2, "b and the later one");
    for handle in [a, b, both, later] {
        c.release(0, handle);
    }
    ends_empty(&mut c);
}

#[test]
fn children_are_cancelled_with_their_parent() {
    for recursive in [true, false] {
        let mut c = Cluster::new(3);
        let parent = c.submit(0, &[], &[]);
        let (execution, _, parent) = running(&mut c, parent);
        let child = c.submit_with(1, &[], &[], |submission| submission.parent = Some(execution));
        c.grant(2);
        c.quiet();
        let inner = c.cores[2].next_execution().expect("the child runs");
        c.cancel(0, parent, false, recursive);
        c.quiet();
        assert_eq!(c.code(1, child), recursive.then_some("TASK_CANCELLED"));
        assert_eq!(c.cores[2].take_aborted().len(), usize::from(recursive));
        let later = c.submit_with(1, &[], &[], |submission| submission.parent = Some(execution));
        assert_eq!(c.code(1, later), recursive.then_some("TASK_CANCELLED"), "what it submits afterwards, too");
        c.finish(2, inner, &[]);
        c.quiet();
        if !recursive {
            let inner = c.cores[2].next_execution().expect("the later child");
            c.finish(2, inner, &[]);
        }
        c.finish(1, execution, &[]);
        c.quiet();
        for (at, handle) in [(0, parent), (1, child), (1, later)] {
            c.release(at, handle);
        }
        ends_empty(&mut c);
    }
}

#[test]
fn the_time_limit_counts_from_the_begin_of_each_run() {
    let mut c = Cluster::new(2);
    let handle = c.submit_with(0, &[], &[], |submission| {
        submission.timeout = Some(50);
        submission.retries_timeouts = true;
        submission.max_retries = 1;
    });
    c.pass(1_000);
    let (execution, _, handle) = running(&mut c, handle);
    c.pass(1_000);
    assert_eq!(c.code(0, handle), None, "it has not begun");
    c.cores[1].begin(execution);
    c.perform(1);
    c.quiet();
    c.pass(49);
    assert_eq!(c.cores[1].take_aborted(), []);
    c.pass(1);
    c.quiet();
    assert_eq!(c.cores[1].take_aborted(), [Aborted { execution, late: true }]);
    assert_eq!(c.code(0, handle), None, "tried again");
    c.finish(1, execution, &[]);
    c.quiet();
    assert_eq!(c.code(0, handle), None, "a late value does not count");
    assert!(c.cores[0].value(handle).is_none());
    c.pass(20);
    let second = loop {
        c.quiet();
        if let Some(execution) = c.cores[1].next_execution() {
            break execution;
        }
        c.grant(1);
    };
    assert_eq!(c.cores[1].execution(second).expect("running").spec.attempt, 1);
    c.cores[1].begin(second);
    c.perform(1);
    c.quiet();
    c.pass(50);
    assert_eq!(c.code(0, handle), Some("TASK_TIMEOUT"), "no retry is left");
    c.quiet();
    assert!(c.kills.is_empty(), "its code has time to end");
    c.pass(GRACE_MS);
    assert_eq!(c.kills, [(0, worker(1))]);
    c.finish(1, second, &[]);
    c.release(0, handle);
    assert_eq!(c.cores[0].take_unread().len(), 1);
    ends_empty(&mut c);
}

#[test]
fn errors_are_tried_again_while_retries_are_left() {
    let mut c = Cluster::new(2);
    let handle = c.submit_with(0, &[], &[], |submission| submission.max_retries = 2);
    let mut attempts = Vec::new();
    while c.cores[0].value(handle).is_none() {
        c.grant(1);
        c.quiet();
        if let Some(execution) = c.cores[1].next_execution() {
            attempts.push(c.cores[1].execution(execution).expect("running").spec.attempt);
            c.fail(1, execution, true);
            c.quiet();
        }
        c.pass(20);
    }
    assert_eq!(attempts, [0, 1, 2]);
    assert_eq!(c.code(0, handle), Some("TASK_FAILED"));
    c.cores[0].observe(handle);
    c.release(0, handle);
    assert!(c.cores[0].take_unread().is_empty(), "it was read");
    ends_empty(&mut c);
}

#[test]
fn a_borrower_cancels_and_frees_at_the_owner() {
    let mut c = Cluster::new(2);
    let (mine, task) = (c.put(0, &[]), c.submit(0, &[], &[]));
    let outer = c.submit(0, &[mine, task], &[]);
    c.grants.clear();
    c.cores[0].on_lease_granted(0, 1, worker(1), 0);
    c.perform(0);
    c.quiet();
    let first = c.cores[1].next_execution().expect("the task");
    c.finish(1, first, &[]);
    c.quiet();
    let second = c.cores[1].next_execution().expect("the outer one");
    let args = c.cores[1].execution(second).expect("running").spec.args.clone();
    let handles: Vec<Handle> = c.values.refs_of(&args).iter().map(|entry| c.cores[1].adopt(entry)).collect();
    c.perform(1);
    c.free(1, handles[0]);
    c.cancel(1, handles[1], false, true);
    assert_eq!(c.code(1, handles[0]), Some("OBJECT_FREED"));
    let sent: Vec<ToPeer> = c.wires[&(1, 0)].iter().cloned().collect();
    assert!(sent.iter().any(|message| matches!(message, ToPeer::Cancel { .. })));
    c.quiet();
    assert_eq!(c.code(0, mine), Some("OBJECT_FREED"));
    assert_eq!(c.code(0, task), None, "it had ended");
    c.finish(1, second, &[]);
    for handle in handles {
        c.release(1, handle);
    }
    for handle in [mine, task, outer] {
        c.release(0, handle);
    }
    ends_empty(&mut c);
}

#[test]
fn a_failure_is_told_once_when_no_reference_is_left() {
    let mut c = Cluster::new(2);
    let handle = c.submit(0, &[], &[]);
    let (execution, _, handle) = running(&mut c, handle);
    c.fail(1, execution, false);
    c.quiet();
    let dependant = c.submit(0, &[], &[handle]);
    c.release(0, handle);
    assert!(c.cores[0].take_unread().is_empty(), "its dependant tells of it");
    c.release(0, dependant);
    let told = c.cores[0].take_unread();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].0.as_str(), told[0].1.code.as_str()), ("f", "TASK_FAILED"));
    assert!(c.cores[0].take_all_unread().is_empty());
    // Asked for with another one that failed first.
    let late = c.submit(0, &[], &[]);
    c.cores[0].observe(late);
    c.quiet();
    let execution = c.cores[1].next_execution().expect("arrived");
    c.fail(1, execution, false);
    c.quiet();
    c.release(0, late);
    assert!(c.cores[0].take_unread().is_empty());
    ends_empty(&mut c);
}

#[test]
fn what_was_sent_behind_a_task_that_takes_long_runs_elsewhere() {
    let mut c = Cluster::new(3);
    // One finished quickly, so that several are sent ahead.
    let first = c.submit(0, &[], &[]);
    let (execution, _, first) = running(&mut c, first);
    c.finish(1, execution, &[]);
    c.quiet();
    let (long, behind) = (c.submit(0, &[], &[]), c.submit(0, &[], &[]));
    c.quiet();
    let execution = c.cores[1].next_execution().expect("the long one");
    assert_eq!(c.cores[1].tick(c.now), Some(c.now + 10));
    c.pass(10);
    c.quiet();
    while c.grant(2).is_none() {}
    c.quiet();
    let elsewhere = c.cores[2].next_execution().expect("what was behind it");
    c.finish(2, elsewhere, &[]);
    c.quiet();
    assert!(c.cores[0].value(behind).is_some());
    c.finish(1, execution, &[]);
    c.quiet();
    let next = c.submit(0, &[], &[]);
    c.quiet();
    let on_it = (1..3).find_map(|at| c.cores[at].next_execution().map(|execution| (at, execution)));
    let (at, execution) = on_it.expect("both workers are open again");
    c.finish(at, execution, &[]);
    for handle in [first, long, behind, next] {
        c.release(0, handle);
    }
    ends_empty(&mut c);
}
