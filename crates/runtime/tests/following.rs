//! Tasks that are sent behind the task whose result they take.

mod support;

use heliostat_proto::message::ToPeer;
use heliostat_proto::{Blob, Failure, Value};
use heliostat_runtime::{Counts, Handle};
use support::Cluster;

/// A driver and a worker that has run a task of the function, which took a microsecond. Several may be sent ahead from then on.
fn warm() -> Cluster {
    let mut c = Cluster::new(3);
    let first = c.quick_task();
    c.release(0, first);
    c
}

/// The same after the worker has learned that tasks follow others.
fn followed() -> Cluster {
    let mut c = warm();
    let handles = chain(&mut c, 2);
    run_all(&mut c, 1);
    for handle in handles {
        assert!(matches!(c.cores[0].value(handle), Some(Value::Ready(_))));
        c.release(0, handle);
    }
    c
}

fn chain(c: &mut Cluster, length: usize) -> Vec<Handle> {
    let mut handles = vec![c.submit(0, &[], &[])];
    while handles.len() < length {
        let last = *handles.last().expect("there is one");
        handles.push(c.submit(0, &[], &[last]));
    }
    handles
}

fn run_all(c: &mut Cluster, at: usize) -> usize {
    let mut ran = 0;
    loop {
        c.quiet();
        let Some(execution) = c.cores[at].next_execution() else {
            c.perform(at);
            if c.wires.values().all(std::collections::VecDeque::is_empty) {
                return ran;
            }
            continue;
        };
        ran += 1;
        c.finish(at, execution, &[]);
    }
}

fn ends_clean(mut c: Cluster, handles: Vec<Handle>) {
    for handle in handles {
        c.release(0, handle);
    }
    c.quiet();
    c.pass(100_000);
    for core in &c.cores {
        assert_eq!(core.counts(), Counts::default());
    }
}

fn runs_on_the_way(c: &Cluster) -> usize {
    c.wires.get(&(0, 1)).map_or(0, |wire| wire.iter().filter(|message| matches!(message, ToPeer::Run(_))).count())
}

#[test]
fn a_chain_is_sent_at_once_and_each_task_gets_the_value_before_it() {
    let mut c = followed();
    let handles = chain(&mut c, 20);
    assert_eq!(runs_on_the_way(&c), 20, "none waits at its owner");
    c.quiet();
    let mut last: Option<Blob> = None;
    for _ in 0..20 {
        let execution = c.cores[1].next_execution().expect("all are here");
        let by_ref = c.cores[1].execution(execution).expect("running").spec.by_ref.clone();
        assert_eq!(by_ref, last.take().map(|blob| (0, blob)).into_iter().collect::<Vec<_>>());
        let blob = c.values.blob(Vec::new());
        last = Some(blob.clone());
        c.cores[1].finish(execution, vec![Value::Ready(blob)], &[], 1_000, false);
        c.perform(1);
    }
    c.quiet();
    assert!(handles.iter().all(|handle| matches!(c.cores[0].value(*handle), Some(Value::Ready(_)))));
    ends_clean(c, handles);
}

#[test]
fn a_long_chain_goes_on_as_its_tasks_end() {
    let mut c = followed();
    let handles = chain(&mut c, 2_000);
    assert!((100..2_000).contains(&runs_on_the_way(&c)), "not more than may be sent ahead");
    assert_eq!(run_all(&mut c, 1), 2_000);
    assert!(c.cores[0].is_ready(handles[1_999]));
    ends_clean(c, handles);
}

#[test]
fn a_result_that_was_gone_when_its_follower_came_brings_the_follower_back() {
    let mut c = warm();
    let maker = c.submit(0, &[], &[]);
    c.quiet();
    let execution = c.cores[1].next_execution().expect("arrived");
    c.finish(1, execution, &[]);
    // The worker does not know yet that anybody follows, and the owner not yet that the maker has ended.
    let follower = c.submit(0, &[], &[maker]);
    assert_eq!(runs_on_the_way(&c), 1);
    assert_eq!(run_all(&mut c, 1), 1);
    assert!(c.cores[0].is_ready(follower));
    ends_clean(c, vec![maker, follower]);
}

#[test]
fn followers_of_a_failed_task_fail_with_it_and_do_not_run() {
    for owner_first in [false, true] {
        let mut c = followed();
        let handles = chain(&mut c, 5);
        c.quiet();
        let execution = c.cores[1].next_execution().expect("the first");
        c.fail(1, execution, false);
        if owner_first {
            c.quiet();
        }
        assert_eq!(run_all(&mut c, 1), 0);
        for (at, handle) in handles.iter().enumerate() {
            let failure = c.cores[0].failure(*handle).expect("failed");
            assert_eq!((failure.code.as_str(), failure.inherited), ("TASK_FAILED", at > 0));
        }
        ends_clean(c, handles);
    }
}

#[test]
fn followers_of_a_task_that_is_tried_again_wait_for_the_value_that_counts() {
    let mut c = followed();
    let maker = c.submit_with(0, &[], &[], |submission| submission.retries_errors = true);
    let follower = c.submit(0, &[], &[maker]);
    assert_eq!(runs_on_the_way(&c), 2);
    c.quiet();
    let execution = c.cores[1].next_execution().expect("the maker");
    c.fail(1, execution, true);
    assert_eq!(run_all(&mut c, 1), 0, "the follower is back at its owner");
    c.pass(20);
    assert_eq!(run_all(&mut c, 1), 2);
    assert!([maker, follower].iter().all(|handle| matches!(c.cores[0].value(*handle), Some(Value::Ready(_)))));
    ends_clean(c, vec![maker, follower]);
}

#[test]
fn cancelling_a_task_ends_its_followers_at_once() {
    let mut c = followed();
    let handles = chain(&mut c, 4);
    c.quiet();
    c.cancel(0, handles[1], false, true);
    let codes = |c: &Cluster| handles.iter().map(|handle| c.code(0, *handle).map(String::from)).collect::<Vec<_>>();
    let cancelled = Some("TASK_CANCELLED".to_string());
    assert_eq!(codes(&c), [None, cancelled.clone(), cancelled.clone(), cancelled.clone()]);
    assert_eq!(run_all(&mut c, 1), 1, "only the one before it runs");
    assert_eq!(codes(&c), [None, cancelled.clone(), cancelled.clone(), cancelled]);
    ends_clean(c, handles);
}

#[test]
fn the_death_of_the_worker_takes_no_attempt_from_followers() {
    let mut c = followed();
    let handles = chain(&mut c, 3);
    c.quiet();
    c.cores[1].next_execution().expect("the first runs");
    let failure = Failure::new("WORKER_CRASHED", "killed");
    let lease = c.leases;
    c.cores[0].on_lease_broken(lease, &failure, c.now, &c.values);
    c.cores[0].on_peer_gone(support::worker(1));
    c.dead.insert(1);
    c.perform(0);
    c.pass(20);
    c.grant(2);
    let attempts: Vec<u32> = (0..3)
        .map(|_| {
            c.quiet();
            let execution = c.cores[2].next_execution().expect("sent to the other worker");
            let attempt = c.cores[2].execution(execution).expect("running").spec.attempt;
            c.finish(2, execution, &[]);
            attempt
        })
        .collect();
    assert_eq!(attempts, [1, 0, 0]);
    c.quiet();
    assert!(handles.iter().all(|handle| matches!(c.cores[0].value(*handle), Some(Value::Ready(_)))));
}

#[test]
fn a_chain_of_any_length_fails_without_deep_calls() {
    let mut c = Cluster::new(2);
    let handles = chain(&mut c, 100_000);
    c.cancel(0, handles[0], false, true);
    assert_eq!(c.code(0, handles[99_999]), Some("TASK_CANCELLED"));
}

#[test]
fn a_task_whose_arguments_are_made_by_two_workers_waits_at_its_owner() {
    let mut c = Cluster::new(3);
    let makers = [0, 1].map(|_| c.submit(0, &[], &[]));
    for at in [1, 2] {
        c.grant(at);
    }
    c.quiet();
    let follower = c.submit(0, &[], &makers);
    assert_eq!(c.cores[0].counts().tasks, 3);
    for at in [1, 2] {
        let execution = c.cores[at].next_execution().expect("one for each");
        assert!(c.cores[at].next_execution().is_none());
        c.finish(at, execution, &[]);
    }
    c.quiet();
    let at = if c.cores[1].counts().executions > 0 { 1 } else { 2 };
    assert_eq!(run_all(&mut c, at), 1);
    assert!(c.cores[0].is_ready(follower));
}
