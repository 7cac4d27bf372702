//! A store that is full: who waits, who makes room, in which order, and who is told what.

mod common;

use std::sync::mpsc;

use common::{Client, Storing, config, start, until};
use heliostat_node::{NodeConfig, NodeHandle, SpillConfig};
use heliostat_proto::message::{FromDaemon, NodeState, Patience, ToDaemon};
use heliostat_proto::{Failure, Locator};
use heliostat_store::{CreateError, HolderKind, LeaseError, PinError, PutError};

const MIB: usize = 1 << 20;
/// Longer than any test.
const LONG: Patience = Patience { millis: 600_000, ticket: 0, last: true, spilling: false };

#[test]
fn stand_in() {
    common::stand_in();
}

fn limited(temp: &std::path::Path) -> NodeConfig {
    let mut config = config(temp, 1.0);
    (config.store_capacity, config.spilling, config.prestart) = (8 << 20, None, 0);
    config
}

fn spilling(temp: &std::path::Path) -> NodeConfig {
    let mut config = limited(temp);
    config.spilling = Some(SpillConfig::default());
    config
}

fn patient(node: &NodeHandle) -> Storing {
    let storing = Storing::new(node);
    *storing.link.patience.lock().unwrap() = LONG;
    storing
}

fn put(storing: &Storing, index: u32, mib: usize) -> Result<Locator, PutError> {
    storing.store.put(storing.object(index), &vec![index as u8; mib * MIB])
}

fn state(watcher: &mut Client) -> NodeState {
    watcher.send(&ToDaemon::State { request: 1 });
    watcher.expect("the state", |message| match message {
        FromDaemon::State { state, .. } => Some((**state).clone()),
        _ => None,
    })
}

fn exhausted(error: PutError) -> LeaseError {
    match error {
        PutError::Create(CreateError::Lease(error @ LeaseError::Exhausted { .. })) => error,
        other => panic!("{other:?}"),
    }
}

/// Has objects brought back, and tells of those that could not be.
fn restore(client: &mut Client, locators: &[Locator]) -> Vec<(u32, Failure)> {
    client.send(&ToDaemon::Restore { request: 9, locators: locators.to_vec() });
    client.expect("an answer", |message| match message {
        FromDaemon::Restored { request: 9, failures } => Some(failures.clone()),
        _ => None,
    })
}

#[test]
fn who_finds_no_room_waits_for_it_and_holds_up_nobody() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(limited(temp.path()));
    let mut watcher = Client::driver(&node);
    let (holder, waiter, other) = (Storing::new(&node), patient(&node), Storing::new(&node));
    let first = put(&holder, 1, 5).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| put(&waiter, 2, 5));
        until("somebody waits", || state(&mut watcher).spilling.waiting == 1);
        // Small requests go on, and one that does not want to wait is told at once.
        for index in 0..100 {
            other.store.put(other.object(index), &[1; 1000]).unwrap();
        }
        assert!(put(&other, 200, 4).is_err());
        holder.store.free(&[first]);
        let second = waiting.join().unwrap().unwrap();
        assert_eq!(holder.store.pin(&second).unwrap().bytes(), vec![2; 5 * MIB]);
    });
}

#[test]
fn those_who_wait_are_served_in_the_order_in_which_they_came() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(limited(temp.path()));
    let mut watcher = Client::driver(&node);
    let holder = Storing::new(&node);
    let held = [put(&holder, 1, 3).unwrap(), put(&holder, 2, 3).unwrap()];
    let (served, order) = mpsc::channel();
    std::thread::scope(|scope| {
        for number in 1..=2 {
            let (waiter, served) = (patient(&node), served.clone());
            scope.spawn(move || {
                let locator = put(&waiter, number, 5).unwrap();
                served.send((number, locator)).unwrap();
                waiter // its objects stay as long as it does
            });
            until("it waits", || state(&mut watcher).spilling.waiting == u64::from(number));
        }
        // Room for one of them at a time.
        holder.store.free(&held);
        let (first, locator) = order.recv().unwrap();
        assert_eq!(first, 1);
        holder.store.free(&[locator]);
        assert_eq!(order.recv().unwrap().0, 2);
    });
}

#[test]
fn the_end_of_a_process_frees_its_objects_for_those_who_wait_and_its_own_place_in_line() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(limited(temp.path()));
    let mut watcher = Client::driver(&node);
    let (holder, waiter) = (Storing::new(&node), patient(&node));
    put(&holder, 1, 6).unwrap();
    // One that waits and dies: its connection ends without a word.
    let mut dead = Client::driver(&node);
    let wish = heliostat_store::LeaseRequest::Small { lane: 0, least: (5 * MIB) as u64 };
    let body = postcard::to_stdvec(&wish).unwrap();
    dead.send(&ToDaemon::StoreLease { request: 1, body, patience: LONG });
    until("it waits", || state(&mut watcher).spilling.waiting == 1);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| put(&waiter, 2, 5));
        until("both wait", || state(&mut watcher).spilling.waiting == 2);
        rustix::net::shutdown(&dead.line.channel, rustix::net::Shutdown::Both).unwrap();
        dead.expect_end();
        until("one waits", || state(&mut watcher).spilling.waiting == 1);
        holder.link.hang_up();
        waiting.join().unwrap().unwrap();
    });
    assert_eq!(state(&mut watcher).spilling.waiting, 0);
}

#[test]
fn others_are_asked_to_let_go_of_garbage() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(limited(temp.path()));
    let (mut idle, waiter) = (Client::driver(&node), patient(&node));
    let held = put(&waiter, 1, 5).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| put(&waiter, 2, 5));
        idle.expect("the wish", |message| matches!(message, FromDaemon::Collect).then_some(()));
        idle.send(&ToDaemon::StoreFree { locators: vec![held] });
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn when_nobody_can_make_room_any_more_the_refusal_names_who_holds_it() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(limited(temp.path()));
    let only = patient(&node);
    put(&only, 1, 3).unwrap();
    put(&only, 2, 2).unwrap();
    let error = exhausted(put(&only, 3, 4).unwrap_err());
    let LeaseError::Exhausted { tried, holders, disk: false, .. } = &error else { panic!("{error:?}") };
    assert_eq!(tried[0], "spilling is off");
    assert_eq!((holders[0].pid, holders[0].kind, holders[0].objects), (std::process::id(), HolderKind::Owner, 2));
    assert_eq!((holders[0].bytes, holders[0].largest), (5 << 20, 3 << 20));
    assert!(error.to_string().contains("owns 2 objects of 5242880 bytes"), "{error}");
    // What can never fit is refused at once.
    assert!(matches!(put(&only, 4, 9), Err(PutError::Create(CreateError::TooLarge { .. }))));
}

#[test]
fn a_store_that_spills_takes_many_times_its_size_and_gives_all_back() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(spilling(temp.path()));
    let mut watcher = Client::driver(&node);
    let driver = patient(&node);
    let all: Vec<Locator> = (0..24).map(|index| put(&driver, index, 1).unwrap()).collect();
    let after = state(&mut watcher);
    assert!(after.spilled >= 16 << 20, "{after:?}");
    assert_eq!(after.objects + after.spilled_objects, 24);
    for (locator, index) in all.iter().zip(0..) {
        if matches!(driver.store.pin(locator), Err(PinError::Spilled { .. })) {
            assert_eq!(restore(&mut watcher, &[*locator]), []);
        }
        assert_eq!(driver.store.pin(locator).unwrap().bytes(), vec![index; MIB], "object {index}");
        watcher.send(&ToDaemon::RestoreEnd { request: 9 });
    }
    driver.store.free(&all);
    until("nothing is left", || {
        let state = state(&mut watcher);
        (state.used, state.spilled, state.objects) == (0, 0, 0)
    });
    let dir = node.session_dir().to_owned();
    let files =
        || walk(&dir.join("spill")).into_iter().filter(|file| file.metadata().is_ok_and(|m| m.len() > 4096)).count();
    until("its files are gone", || files() == 0);
    drop(node);
    assert!(!dir.exists());
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn above_the_threshold_objects_leave_although_nobody_waits() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(spilling(temp.path()));
    let mut watcher = Client::driver(&node);
    let driver = Storing::new(&node);
    for index in 0..7 {
        put(&driver, index, 1).unwrap();
    }
    until("the use is below the threshold", || {
        let state = state(&mut watcher);
        state.spilled > 0 && state.used <= (8 << 20) * 8 / 10
    });
}

#[test]
fn what_somebody_reads_is_not_spilled() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(spilling(temp.path()));
    let driver = patient(&node);
    let pins: Vec<_> = (0..6).map(|n| driver.store.pin(&put(&driver, n, 1).unwrap()).unwrap()).collect();
    let error = exhausted(put(&driver, 9, 4).unwrap_err());
    assert!(error.to_string().contains("everything that nobody reads was spilled"), "{error}");
    assert!(pins.iter().zip(0..).all(|(pin, n)| pin.iter().all(|byte| *byte == n)));
    drop(pins);
    put(&driver, 10, 4).unwrap();
}

#[test]
fn what_one_request_needs_comes_back_as_a_whole_or_not_at_all() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(spilling(temp.path()));
    let (mut one, mut two) = (Client::driver(&node), Client::driver(&node));
    let driver = patient(&node);
    let all: Vec<Locator> = (0..20).map(|index| put(&driver, index, 1).unwrap()).collect();
    // Two that each need more than half of the store: one after the other, never each a half of its own.
    let (first, second) = (&all[..5], &all[5..10]);
    assert_eq!(restore(&mut one, first), []);
    two.send(&ToDaemon::Restore { request: 9, locators: second.to_vec() });
    until("the second waits", || state(&mut one).spilling.waiting == 1);
    assert!(first.iter().all(|locator| driver.store.pin(locator).is_ok()), "they stay for the first");
    one.send(&ToDaemon::RestoreEnd { request: 9 });
    let failures = two.expect("an answer", |message| match message {
        FromDaemon::Restored { request: 9, failures } => Some(failures.clone()),
        _ => None,
    });
    assert_eq!(failures, []);
    for (locator, index) in second.iter().zip(5..) {
        assert_eq!(driver.store.pin(locator).unwrap().bytes(), vec![index; MIB]);
    }
    two.send(&ToDaemon::RestoreEnd { request: 9 });
}

#[test]
fn a_part_of_a_spilled_object_is_read_where_it_is() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(spilling(temp.path()));
    let mut reader = Client::driver(&node);
    let driver = patient(&node);
    let bytes: Vec<u8> = (0..2 * MIB).map(|n| (n / 1000) as u8).collect();
    let locator = driver.store.put(driver.object(100), &bytes).unwrap();
    for index in 0..10 {
        put(&driver, index, 1).unwrap();
    }
    assert!(matches!(driver.store.pin(&locator), Err(PinError::Spilled { .. })));
    reader.send(&ToDaemon::Locate { request: 3, locator });
    let uri = reader.expect("its place", |message| match message {
        FromDaemon::Place { request: 3, uri } => Some(uri.clone()),
        _ => None,
    });
    assert!(uri.is_some_and(|uri| uri.contains("spill")));
    reader.send(&ToDaemon::ReadPart { request: 4, locator, start: 1_234_567, length: 70_000 });
    let part = reader.expect("the part", |message| match message {
        FromDaemon::Part { request: 4, bytes } => Some(bytes.clone().unwrap().unwrap()),
        _ => None,
    });
    assert_eq!(part[..], bytes[1_234_567..][..70_000]);
    assert!(matches!(driver.store.pin(&locator), Err(PinError::Spilled { .. })), "it stays where it is");
}

#[test]
fn storage_that_refuses_leaves_the_objects_readable_and_says_so() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("file");
    std::fs::write(&file, "no directory").unwrap();
    let mut spill = SpillConfig::default();
    spill.uris = vec![file.join("below").to_string_lossy().into_owned()];
    let mut config = limited(temp.path());
    config.spilling = Some(spill);
    let node = start(config);
    let driver = patient(&node);
    let all: Vec<Locator> = (0..6).map(|index| put(&driver, index, 1).unwrap()).collect();
    *driver.link.patience.lock().unwrap() = Patience { millis: 2000, ticket: 1, last: true, spilling: false };
    let error = exhausted(put(&driver, 9, 4).unwrap_err());
    assert!(matches!(error, LeaseError::Exhausted { disk: true, .. }), "{error:?}");
    for (locator, index) in all.iter().zip(0..) {
        assert_eq!(driver.store.pin(locator).unwrap().bytes(), vec![index; MIB]);
    }
}
