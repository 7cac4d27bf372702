//! A client that is stopped (SIGSTOP) between any two steps of an operation holds nobody up, and when it is killed there,
//! nothing is lost or leaked.
//!
//! Each child runs one operation and stops itself at one step. By default a part of the steps is tried, others each
//! time; `HELIOSTAT_STOPS=all` tries all.

use std::cell::Cell;
use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use heliostat_proto::{Locator, ObjectId, TaskId, WorkerId};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpid, kill_process, waitid};

use super::common::{FromChild, Node, Peer, ROLE, child_client, say};
use super::script::{self, OPERATIONS, SteppedLink, Witness};
use crate::word::steps::with_hook;
use crate::{StoreClient, StoreConfig};

struct Announcer;

impl Witness for Announcer {
    fn may_appear(&self, _: ObjectId, _: &[u8]) {}

    fn must_stay(&self, id: ObjectId, locator: &Locator) {
        say(&FromChild::Sealed(id, *locator, 0));
    }

    fn may_go(&self, id: ObjectId) {
        say(&FromChild::Leaving(id));
    }
}

/// Not a test: runs an operation and stops itself at the step that its role names.
#[test]
#[ignore = "the children of the test below run this"]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (operation, stop_at) = role.split_once(' ').unwrap();
    let stop_at: usize = stop_at.parse().unwrap();
    let mut link = None;
    let client = child_client(|pipe| link.insert(SteppedLink::new(pipe)).clone());
    let steps = Cell::new(0);
    let stop = move || {
        steps.set(steps.get() + 1);
        if steps.get() == stop_at {
            kill_process(getpid(), Signal::STOP).unwrap();
        }
    };
    with_hook(stop, || script::run(operation, &client, &link.unwrap(), &Announcer));
}

/// Waits until the child has stopped itself; false if it ended instead.
fn has_stopped(peer: &Peer) -> bool {
    let pid = Pid::from_raw(peer.child.id() as i32).unwrap();
    let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(pid), options).unwrap().unwrap().stopped()
}

/// What others do meanwhile: everything.
fn work(node: &Node, other: &StoreClient, round: usize) {
    for (n, length) in [0, 700, 3000, 70_000].into_iter().enumerate() {
        let id = TaskId::root(WorkerId([8; 16])).object((round * 4 + n) as u32);
        let locator = other.put(id, &script::content(n as u32, length)).unwrap();
        assert_eq!(other.get(&id).unwrap().unwrap().bytes(), script::content(n as u32, length));
        other.free(&[locator]);
        assert!(!other.contains(&id));
    }
    for operation in 0..64 {
        // Whatever the stopped one has sealed can be read, and what it hasn't can't be seen.
        if let Some(pin) = other.get(&script::id(operation)).unwrap() {
            assert_eq!(pin.bytes(), script::content(operation, pin.len() as u64));
        }
    }
    node.daemon().recall();
}

fn stop_and_kill(operation: &str, stop_at: usize) -> bool {
    let mut config = StoreConfig::new(4 << 20);
    (config.slots, config.holds, config.small_lease) = (64, 32, 4096);
    let node = Node::with(config);
    let other = node.local();
    let mut peer = node.spawn("checks::stopped::child", &format!("{operation} {stop_at}"));
    if !has_stopped(&peer) {
        assert!(peer.child.wait().unwrap().success());
        return false;
    }
    work(&node, &other, stop_at);
    let seat = peer.client;
    let announced: HashSet<Locator> = node.kill(peer).sealed.into_iter().map(|(_, locator, _)| locator).collect();
    let left = node.daemon().owned_by(seat).unwrap();
    for (id, locator) in &left {
        let pin = other.pin(locator).unwrap();
        assert_eq!(pin.bytes(), script::content(id.index(), locator.length), "{operation}, step {stop_at}");
    }
    let left: Vec<Locator> = left.into_iter().map(|(_, locator)| locator).collect();
    for locator in announced {
        assert!(left.contains(&locator), "{operation}, step {stop_at}: {locator:?} is lost");
    }
    other.free(&left);
    node.daemon().recall();
    let stats = node.assert_accounts();
    let used = (stats.small, stats.large, stats.leased, stats.deferred_objects);
    assert_eq!(used, (0, 0, 0, 0), "{operation}, step {stop_at}: {stats:?}");
    true
}

#[test]
fn a_client_that_stops_anywhere_holds_nobody_up_and_leaves_nothing() {
    let all = std::env::var("HELIOSTAT_STOPS").is_ok_and(|which| which == "all");
    let stride = if all { 1 } else { 11 };
    let first = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_micros() as usize % stride + 1;
    for operation in OPERATIONS {
        let mut stop_at = first;
        while stop_and_kill(operation, stop_at) {
            stop_at += stride;
        }
        assert!(stop_at > 20, "{operation} ended after {stop_at} steps");
    }
}
