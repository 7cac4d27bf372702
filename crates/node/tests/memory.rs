//! The node's store: every process has its seat, and what a process held comes back when it is gone.

mod common;

use std::time::Duration;

use common::{Client, LARGE, Storing, config, cpus, start, until};
use heliostat_proto::Locator;
use heliostat_proto::message::{FromDaemon, Patience, ToDaemon};
use heliostat_store::{LeaseError, LeaseGrant, LeaseRequest, SeatParams};

#[test]
fn stand_in() {
    common::stand_in();
}

fn used(driver: &mut Client) -> u64 {
    driver.send(&ToDaemon::State { request: 1 });
    driver.expect("the state", |message| match message {
        FromDaemon::State { state, .. } => Some(state.used),
        _ => None,
    })
}

#[test]
fn a_seat_is_one_in_the_nodes_store() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    let mut driver = Client::driver(&node);
    let params: SeatParams = postcard::from_bytes(&driver.welcome.seat).unwrap();
    assert_eq!(params.capacity, 64 << 20);
    let mut ask = |lane| {
        let body = postcard::to_stdvec(&LeaseRequest::Small { lane, least: 100 }).unwrap();
        driver.send(&ToDaemon::StoreLease { request: 5, body, patience: Patience::default() });
        let body = driver.expect("memory", |message| match message {
            FromDaemon::StoreLeased { request: 5, body } => Some(body.clone()),
            _ => None,
        });
        postcard::from_bytes::<Result<LeaseGrant, LeaseError>>(&body).unwrap()
    };
    assert!(ask(0).unwrap().bytes >= 100);
    assert!(matches!(ask(u32::MAX), Err(LeaseError::Malformed { .. })));
}

#[test]
fn one_process_reads_what_another_stored() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    let (one, two) = (Storing::new(&node), Storing::new(&node));
    let pin = two.store.pin(&one.put(1)).unwrap();
    assert!(pin.bytes().len() == LARGE && pin.bytes().iter().all(|byte| *byte == 7));
}

#[test]
fn the_objects_and_drafts_of_a_driver_end_with_it() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    let mut watcher = Client::driver(&node);
    let before = used(&mut watcher);
    let driver = Storing::new(&node);
    driver.put(1);
    let draft = driver.store.create(driver.object(2), heliostat_store::Layout::new(LARGE as u64)).unwrap();
    assert!(used(&mut watcher) >= before + 2 * LARGE as u64);
    driver.link.hang_up();
    until("all of its bytes are back", || used(&mut watcher) == before);
    drop(draft);
}

#[test]
fn what_was_freed_while_somebody_read_it_comes_back_when_he_has_done() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    let mut watcher = Client::driver(&node);
    let (one, two) = (Storing::new(&node), Storing::new(&node));
    let before = used(&mut watcher);
    let locator = one.put(1);
    let pin = two.store.pin(&locator).unwrap();
    one.store.free(&[locator]);
    until("nobody else can read it", || two.store.pin(&locator).is_err());
    assert!(used(&mut watcher) >= before + LARGE as u64);
    assert_eq!(pin.bytes()[LARGE - 1], 7);
    drop(pin);
    until("its bytes are back", || used(&mut watcher) == before);
}

#[test]
fn locators_of_nothing_are_no_harm() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    let mut driver = Client::driver(&node);
    let locators = [0, 1, u32::MAX].map(|n| Locator {
        segment: n,
        slot: n,
        offset: u64::from(n) << 32,
        length: u64::MAX - u64::from(n),
        generation: n,
    });
    driver.send(&ToDaemon::StoreFree { locators: locators.to_vec() });
    assert_eq!(driver.lease(cpus(1.0)).run("echo", "echo fine"), "fine");
}

#[test]
fn a_large_object_holds_up_nobody_who_needs_no_memory() {
    let temp = tempfile::tempdir().unwrap();
    let mut config = config(temp.path(), 1.0);
    config.store_capacity = 1 << 30;
    let node = start(config);
    let mut driver = Client::driver(&node);
    let mut worker = driver.lease(cpus(1.0));
    let large = Storing::new(&node);
    let started = std::time::Instant::now();
    let mut leases = 0;
    let (granted, took) = std::thread::scope(|scope| {
        let draft = scope.spawn(|| {
            let layout = heliostat_store::Layout::new(400 << 20);
            let granted = large.store.create(large.object(1), layout).is_ok();
            (granted, started.elapsed())
        });
        while !draft.is_finished() {
            driver.send(&ToDaemon::ReturnLease { lease: worker.lease });
            let wanted = driver.request(cpus(1.0));
            worker.lease = driver.expect("a lease", |message| match message {
                FromDaemon::LeaseGranted { request, lease, .. } if *request == wanted => Some(*lease),
                _ => None,
            });
            leases += 1;
        }
        draft.join().unwrap()
    });
    // On a machine that is short of memory the object is refused, and there is nothing to compare.
    if granted && took > Duration::from_millis(50) {
        assert!(leases >= 5, "only {leases} leases while an object's pages were made in {took:?}");
    }
}

#[test]
fn what_a_worker_gave_back_last_is_taken() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    let mut driver = Client::driver(&node);
    let storing = Storing::new(&node);
    let before = used(&mut driver);
    for round in 0..10 {
        let worker = driver.lease(cpus(1.0));
        let Locator { segment, slot, offset, length, generation } = storing.put(round);
        worker.start("last", &format!("free {segment} {slot} {offset} {length} {generation}"));
        driver.expect("its end", |message| matches!(message, FromDaemon::LeaseBroken { .. }).then_some(()));
        until("its last message counts", || used(&mut driver) == before);
    }
}

#[test]
fn the_objects_of_a_worker_end_with_it_but_not_those_that_it_made_for_others() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    let mut watcher = Client::driver(&node);
    let (one, two) = (Storing::new(&node), Storing::new(&node));
    let owner = two.store.params().client;
    let layout = heliostat_store::Layout::new(LARGE as u64).owned_by(owner);
    let result = one.store.create(two.object(1), layout).unwrap().seal().unwrap();
    let before = used(&mut watcher);
    let own = one.put(1);
    one.link.hang_up();
    until("what it owned is gone", || used(&mut watcher) == before);
    assert!(two.store.pin(&own).is_err());
    assert_eq!(two.store.pin(&result).unwrap().bytes().len(), LARGE);
}
