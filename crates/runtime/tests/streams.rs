//! Streams between their makers and their taker, in chosen orders of messages, deaths and retries.

mod support;

use heliostat_proto::{Blob, Failure, Locator, Value};
use heliostat_runtime::{Counts, ExecutionId, Handle, Next, Room};
use support::{Cluster, worker};

/// A stream's name, at the driver.
fn stream(c: &mut Cluster, buffered: u32, max_retries: i64) -> Handle {
    c.submit_with(0, &[], &[], |submission| {
        submission.stream = Some(buffered);
        submission.max_retries = max_retries;
    })
}

/// The same with its run, at worker 1.
fn running(buffered: u32, max_retries: i64) -> (Cluster, Handle, ExecutionId, u64) {
    let mut c = Cluster::new(4);
    let name = stream(&mut c, buffered, max_retries);
    let lease = c.grant(1).expect("asked for");
    c.quiet();
    let run = c.cores[1].next_execution().expect("arrived");
    (c, name, run, lease)
}

/// Makes an item that contains `refs`, whose content comes to `digest`.
fn push(c: &mut Cluster, at: usize, run: ExecutionId, refs: &[Handle], digest: u64) -> Room {
    let place = c.cores[at].next_place(run).expect("a run that streams");
    let entries = refs.iter().map(|handle| c.cores[at].export(*handle).expect("alive")).collect();
    let blob = (!place.known).then(|| c.values.blob(entries));
    let room = c.cores[at].push_item(run, blob, refs, digest);
    c.perform(at);
    room
}

fn take(c: &mut Cluster, name: Handle) -> Next {
    let next = c.cores[0].take_item(name, c.now);
    c.perform(0);
    next
}

fn item(c: &mut Cluster, name: Handle) -> Handle {
    match take(c, name) {
        Next::Item(handle) => handle,
        other => panic!("no item, but {other:?}"),
    }
}

fn crash(c: &mut Cluster, at: usize, lease: u64) {
    c.dead.insert(at);
    let killed = Failure::new("WORKER_CRASHED", "killed");
    c.cores[0].on_lease_broken(lease, &killed, c.now, &c.values);
    c.cores[0].on_peer_gone(worker(at));
    c.perform(0);
}

/// The run of the next attempt, at another worker.
fn again(c: &mut Cluster, at: usize) -> (ExecutionId, u64) {
    c.pass(10_000);
    let lease = c.grant(at).expect("asked for again");
    c.quiet();
    (c.cores[at].next_execution().expect("arrived again"), lease)
}

fn all_is_gone(c: &mut Cluster, name: Handle) {
    c.cores[0].drop_stream(name, c.now);
    c.release(0, name);
    c.quiet();
    c.pass(10_000_000);
    c.quiet();
    for at in (0..c.cores.len()).filter(|at| !c.dead.contains(at)) {
        assert_eq!(c.cores[at].counts(), Counts::default(), "process {at}");
    }
}

#[test]
fn items_come_before_the_end_and_their_maker_stays_within_its_room() {
    let (mut c, name, run, _) = running(2, 0);
    assert_eq!(push(&mut c, 1, run, &[], 1), Room::Free);
    c.quiet();
    let first = item(&mut c, name);
    assert!(c.cores[0].value(first).is_some(), "ready at once");
    assert_eq!(c.cores[0].id(first).map(|id| id.index()), Some(1));
    assert!(c.cores[0].value(name).is_none(), "the run goes on");
    assert_eq!(push(&mut c, 1, run, &[], 2), Room::Full, "nobody told it that one was taken");
    let wait = c.cores[1].wait_room(run).expect("full");
    c.quiet();
    assert!(c.woken.contains(&(1, wait)), "half of its room came back");
    c.cores[1].end_wait(wait);
    assert_eq!(push(&mut c, 1, run, &[], 3), Room::Full);
    c.finish(1, run, &[]);
    c.quiet();
    for index in 2..=3 {
        let next = item(&mut c, name);
        assert_eq!(c.cores[0].id(next).map(|id| id.index()), Some(index));
        c.release(0, next);
    }
    assert_eq!(take(&mut c, name), Next::Ended);
    assert!(matches!(c.cores[0].value(name), Some(Value::Ready(_))));
    c.release(0, first);
    all_is_gone(&mut c, name);
}

#[test]
fn credit_is_told_in_few_messages_a_moment_later_or_when_somebody_waits() {
    let (mut c, name, run, _) = running(8, 0);
    for digest in 0..8 {
        push(&mut c, 1, run, &[], digest);
    }
    c.quiet();
    let credits = |c: &mut Cluster| c.wires.get_mut(&(0, 1)).map_or(0, |wire| wire.drain(..).len());
    for _ in 0..3 {
        let handle = item(&mut c, name);
        c.release(0, handle);
    }
    assert_eq!(credits(&mut c), 0);
    assert_eq!(c.cores[0].tick(0), Some(1), "not for long");
    c.pass(1);
    assert_eq!(credits(&mut c), 1);
    for _ in 0..5 {
        let handle = item(&mut c, name);
        c.release(0, handle);
    }
    assert_eq!(credits(&mut c), 1, "half of the room at once");
    let wait = c.cores[0].wait_item(name).expect("none is here");
    c.perform(0);
    assert_eq!(credits(&mut c), 1, "and all when somebody waits");
    c.cores[0].end_wait(wait);
    c.finish(1, run, &[]);
    c.quiet();
    all_is_gone(&mut c, name);
}

#[test]
fn a_failure_is_the_last_item_after_all_others() {
    let (mut c, name, run, _) = running(4, 0);
    push(&mut c, 1, run, &[], 1);
    let wait = c.cores[0].wait_item(name).expect("nothing arrived");
    c.quiet();
    assert!(c.woken.contains(&(0, wait)));
    c.cores[0].end_wait(wait);
    c.fail(1, run, false);
    c.quiet();
    let (first, last) = (item(&mut c, name), item(&mut c, name));
    assert_eq!(c.code(0, first), None);
    assert_eq!(c.code(0, last), Some("TASK_FAILED"));
    assert_eq!(c.code(0, name), Some("TASK_FAILED"));
    assert_eq!(take(&mut c, name), Next::Ended);
    c.release(0, first);
    c.release(0, last);
    assert!(c.cores[0].take_unread().is_empty(), "the reference to the end is left");
    all_is_gone(&mut c, name);
    assert_eq!(c.cores[0].take_unread().len(), 1, "nobody read it, once");
}

#[test]
fn a_dropped_stream_ends_its_maker_and_takes_nothing_more() {
    let (mut c, name, run, _) = running(1, 3);
    let place = c.cores[1].next_place(run).expect("streams");
    let locator = Locator { segment: 0, slot: 5, offset: 4096, length: 10, generation: 1 };
    assert_eq!(place.id.index(), 1);
    c.cores[1].push_item(run, Some(Blob::Stored(locator)), &[], 7);
    c.perform(1);
    let wait = c.cores[1].wait_room(run).expect("full");
    c.cores[0].drop_stream(name, 0);
    c.perform(0);
    assert_eq!(c.code(0, name), Some("TASK_CANCELLED"));
    c.quiet();
    assert_eq!(c.freed, [locator], "it was on its way");
    assert!(c.woken.contains(&(1, wait)) && c.cores[1].room(run) == Room::Ended);
    c.cores[1].end_wait(wait);
    c.fail(1, run, false);
    all_is_gone(&mut c, name);
}

#[test]
fn a_maker_whose_taker_died_is_told() {
    let (mut c, _, run, _) = running(1, 3);
    push(&mut c, 1, run, &[], 1);
    let wait = c.cores[1].wait_room(run).expect("full");
    c.dead.insert(0);
    c.cores[1].on_peer_gone(worker(0));
    c.perform(1);
    assert!(c.woken.contains(&(1, wait)) && c.cores[1].room(run) == Room::Ended);
    c.cores[1].end_wait(wait);
    assert_eq!(c.cores[1].take_aborted().len(), 1);
    c.fail(1, run, false);
    assert_eq!(c.cores[1].counts(), Counts::default());
}

#[test]
fn another_run_makes_the_same_items_again_and_sends_only_new_ones() {
    let (mut c, name, run, lease) = running(4, 1);
    for digest in [1, 2, 3] {
        push(&mut c, 1, run, &[], digest);
    }
    c.quiet();
    let first = item(&mut c, name);
    crash(&mut c, 1, lease);
    let second = item(&mut c, name);
    let (run, _) = again(&mut c, 2);
    for digest in [1, 2, 3] {
        assert!(c.cores[2].next_place(run).is_some_and(|place| place.known));
        push(&mut c, 2, run, &[], digest);
    }
    push(&mut c, 2, run, &[], 4);
    c.finish(2, run, &[]);
    c.quiet();
    let rest = [item(&mut c, name), item(&mut c, name)];
    assert_eq!(take(&mut c, name), Next::Ended);
    for (index, handle) in [first, second, rest[0], rest[1]].into_iter().enumerate() {
        assert_eq!(c.cores[0].id(handle).map(|id| id.index() as usize), Some(index + 1));
        assert!(matches!(c.cores[0].value(handle), Some(Value::Ready(_))));
        c.release(0, handle);
    }
    assert!(matches!(c.cores[0].value(name), Some(Value::Ready(_))));
    all_is_gone(&mut c, name);
}

#[test]
fn other_items_in_another_run_fail_the_stream_after_what_is_there() {
    for (digests, ends) in [(vec![1, 9], false), (vec![1], true)] {
        let (mut c, name, run, lease) = running(4, 1);
        push(&mut c, 1, run, &[], 1);
        push(&mut c, 1, run, &[], 2);
        c.quiet();
        let first = item(&mut c, name);
        crash(&mut c, 1, lease);
        let (run, _) = again(&mut c, 2);
        for digest in digests {
            push(&mut c, 2, run, &[], digest);
        }
        if ends {
            c.finish(2, run, &[]);
        } else {
            push(&mut c, 2, run, &[], 3);
            c.quiet();
            assert_eq!(c.cores[2].room(run), Room::Ended);
            c.fail(2, run, false);
        }
        c.quiet();
        let (second, last) = (item(&mut c, name), item(&mut c, name));
        assert_eq!(c.code(0, second), None);
        assert_eq!(c.code(0, last), Some("STREAM_REPLAY"));
        assert_eq!(take(&mut c, name), Next::Ended);
        assert_eq!(c.code(0, name), Some("STREAM_REPLAY"));
        for handle in [first, second, last] {
            c.release(0, handle);
        }
        all_is_gone(&mut c, name);
    }
}

#[test]
fn items_with_references_that_nobody_took_are_made_anew() {
    let (mut c, name, run, lease) = running(4, 1);
    push(&mut c, 1, run, &[], 1);
    let made = c.put(1, &[]);
    push(&mut c, 1, run, &[made], 2);
    push(&mut c, 1, run, &[], 3);
    c.release(1, made);
    c.quiet();
    assert_eq!(c.cores[1].counts().objects, 1, "lent to the driver");
    crash(&mut c, 1, lease);
    let (run, _) = again(&mut c, 2);
    push(&mut c, 2, run, &[], 1);
    assert!(c.cores[2].next_place(run).is_some_and(|place| !place.known));
    let made = c.put(2, &[]);
    push(&mut c, 2, run, &[made], 2);
    c.release(2, made);
    push(&mut c, 2, run, &[], 3);
    c.finish(2, run, &[]);
    c.quiet();
    let items = [item(&mut c, name), item(&mut c, name), item(&mut c, name)];
    let inner = c.cores[0].contained(items[1])[0];
    let wait = c.cores[0].wait(&[inner], 1, true, &c.values).expect("its maker has it");
    c.perform(0);
    c.quiet();
    assert!(matches!(c.cores[0].value(inner), Some(Value::Ready(_))));
    c.cores[0].end_wait(wait);
    for handle in items {
        c.release(0, handle);
    }
    all_is_gone(&mut c, name);
}

#[test]
fn without_retries_the_death_of_the_maker_is_the_last_item() {
    let (mut c, name, run, lease) = running(4, 0);
    push(&mut c, 1, run, &[], 1);
    c.quiet();
    let locator = Locator { segment: 0, slot: 5, offset: 4096, length: 10, generation: 1 };
    let sealed = c.cores[1].next_place(run).expect("streams").id;
    c.values.stored.borrow_mut().insert(sealed, locator);
    crash(&mut c, 1, lease);
    assert_eq!(c.freed, [locator], "it was sealed, and nobody told");
    let (first, last) = (item(&mut c, name), item(&mut c, name));
    assert_eq!(c.code(0, first), None);
    assert_eq!(c.code(0, last), Some("WORKER_CRASHED"));
    c.release(0, first);
    c.release(0, last);
    all_is_gone(&mut c, name);
}

#[test]
fn the_end_of_the_node_ends_streams() {
    let (mut c, name, _, _) = running(4, 3);
    let wait = c.cores[0].wait_item(name).expect("nothing arrived");
    c.cores[0].on_node_gone(&Failure::new("NODE_DIED", "gone"));
    c.perform(0);
    assert!(c.woken.contains(&(0, wait)));
    let last = item(&mut c, name);
    assert_eq!(c.code(0, last), Some("NODE_DIED"));
    assert_eq!(take(&mut c, name), Next::Ended);
    let late = stream(&mut c, 1, 0);
    let last = item(&mut c, late);
    assert_eq!(c.code(0, last), Some("NODE_DIED"));
    assert_eq!(take(&mut c, late), Next::Ended);
}
