//! The store between real processes: sharing, death at random moments, stopping.
#![allow(clippy::print_stdout)] // figures

mod common;

use std::collections::HashMap;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use common::{FromChild, Node, Peer, ROLE, child_client, say};
use heliostat_proto::{TaskId, WorkerId};
use heliostat_store::Layout;

const MIB: u64 = 1 << 20;

fn content(seed: u64) -> Vec<u8> {
    let length = match seed % 8 {
        0 => 70_000 + seed * 31 % 200_000,
        1 => 0,
        _ => seed * 37 % 5_000,
    };
    (0..length).map(|n| (n.wrapping_mul(seed | 1) >> 3) as u8 ^ seed as u8).collect()
}

/// Not a test: what a child does, by its role.
#[test]
#[ignore = "the children of the tests below run this"]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let client = child_client(|link| Arc::new(link));
    let task = TaskId::root(WorkerId([client.params().client as u8; 16])).child(0, client.params().client.into());
    match role.as_str() {
        "put" => {
            for seed in 0..40 {
                let id = task.object(seed as u32);
                say(&FromChild::Sealed(id, client.put(id, &content(seed)).unwrap(), seed));
            }
        }
        "hold" => {
            let locator = client.put(task.object(0), &content(8)).unwrap();
            let held = (
                client.pin(&locator).unwrap(),
                client.create(task.object(1), Layout::new(300)).unwrap(),
                client.create(task.object(2), Layout::new(3 << 20)).unwrap(),
            );
            say(&FromChild::Sealed(task.object(0), locator, 8));
            say(&FromChild::Ready);
            std::thread::sleep(Duration::from_secs(600));
            drop(held);
        }
        "storm" => {
            let mut pins = Vec::new();
            let mut drafts = Vec::new();
            for seed in 0.. {
                let id = task.object(seed as u32);
                let bytes = content(seed);
                let mut draft = client.create(id, Layout::new(bytes.len() as u64)).unwrap();
                draft.bytes_mut().copy_from_slice(&bytes);
                match seed % 5 {
                    0 => drafts.push(draft),
                    1 => drop(draft),
                    _ => {
                        let locator = draft.seal().unwrap();
                        say(&FromChild::Sealed(id, locator, seed));
                        pins.push(client.pin(&locator));
                        if seed % 7 == 0 {
                            client.free(&[locator]);
                        }
                    }
                }
                if seed % 16 == 0 {
                    pins.clear();
                    drafts.clear();
                    say(&FromChild::Ready);
                }
            }
        }
        other => panic!("no such role: {other}"),
    }
}

fn spawn(node: &Node, role: &str) -> Peer {
    node.spawn("child", role)
}

#[test]
fn what_a_process_sealed_others_read_after_its_end() {
    let node = Node::new(64 * MIB);
    let reader = node.local();
    let mut peer = spawn(&node, "put");
    let mut all = Vec::new();
    for event in &peer.events {
        if let FromChild::Sealed(id, locator, seed) = event {
            assert_eq!(reader.pin(&locator).unwrap().bytes(), content(seed));
            all.push((id, locator, seed));
        }
    }
    assert_eq!(all.len(), 40);
    assert!(peer.child.wait().unwrap().success());
    node.daemon().client_gone(peer.client);
    for (id, locator, seed) in &all {
        assert_eq!(reader.lookup(id), Some(*locator));
        assert_eq!(reader.pin(locator).unwrap().bytes(), content(*seed));
    }
    reader.free(&all.iter().map(|(_, locator, _)| *locator).collect::<Vec<_>>());
    let stats = node.assert_accounts();
    assert_eq!((stats.small, stats.large), (0, 0));
}

#[test]
fn a_killed_process_loses_its_pins_and_drafts_and_nothing_else() {
    let node = Node::new(64 * MIB);
    let owner = node.local();
    let peer = spawn(&node, "hold");
    let sealed = peer.wait_ready();
    let (_, locator, seed) = sealed[0];
    let other = owner.put(TaskId::root(WorkerId([200; 16])).object(1), b"other").unwrap();
    assert_eq!(owner.pin(&locator).unwrap().bytes(), content(seed));
    owner.free(&[locator]);
    assert_eq!(node.assert_accounts().deferred_objects, 1);
    let reclaimed = node.kill(peer).reclaimed;
    assert_eq!((reclaimed.pins, reclaimed.drafts), (1, 2));
    let stats = node.assert_accounts();
    assert_eq!((stats.deferred_objects, stats.small, stats.large), (0, 64, 0));
    assert_eq!(owner.pin(&other).unwrap().bytes(), b"other");
}

#[test]
fn a_stopped_process_does_not_hold_up_others() {
    let node = Node::new(64 * MIB);
    let owner = node.local();
    let peer = spawn(&node, "storm");
    peer.wait_ready();
    let pid = peer.child.id().to_string();
    assert!(Command::new("kill").args(["-STOP", &pid]).status().unwrap().success());
    for n in 0..200 {
        let id = TaskId::root(WorkerId([201; 16])).object(n);
        let locator = owner.put(id, &content(n.into())).unwrap();
        assert_eq!(owner.pin(&locator).unwrap().bytes(), content(n.into()));
        owner.free(&[locator]);
    }
    node.daemon().recall();
    assert!(Command::new("kill").args(["-CONT", &pid]).status().unwrap().success());
    peer.wait_ready();
    node.kill(peer);
    node.assert_accounts();
}

/// Kills at random moments, two processes in each round; `HELIOSTAT_KILLS` says how many.
#[test]
fn a_storm_of_kills_loses_and_leaks_nothing() {
    let kills: u64 = std::env::var("HELIOSTAT_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    let node = Node::new(256 * MIB);
    let owner = node.local();
    let survivor = owner.put(TaskId::root(WorkerId([202; 16])).object(1), &content(16)).unwrap();
    let baseline = node.assert_accounts();
    let mut times = Vec::new();
    for round in 0..kills.div_ceil(2) {
        let peers = [spawn(&node, "storm"), spawn(&node, "storm")];
        for peer in &peers {
            peer.wait_ready();
        }
        // Not a wait for anything: it only moves the moment of the kill.
        std::thread::sleep(Duration::from_micros(round * 7919 % 5_000));
        let [first, second] = peers;
        let numbers = [first.client, second.client];
        let mut announced = HashMap::new();
        for peer in [first, second] {
            let killed = node.kill(peer);
            times.push(killed.took);
            announced.extend(killed.sealed.into_iter().map(|(id, locator, seed)| (id, (locator, seed))));
        }
        // All sealed objects are whole, announced or not; what was announced and not freed is there.
        let mut left = Vec::new();
        for number in numbers {
            for (id, locator) in node.daemon().owned_by(number).unwrap() {
                let pin = owner.pin(&locator).unwrap();
                assert_eq!(pin.bytes(), content(id.index().into()), "round {round}: {id}");
                announced.remove(&id);
                left.push(locator);
            }
        }
        for (id, (locator, seed)) in announced {
            assert!(seed % 7 == 0, "round {round}: {id} at {locator:?} is lost");
        }
        owner.free(&left);
        let stats = node.assert_accounts();
        assert_eq!(
            (stats.small, stats.large, stats.deferred, stats.clients),
            (baseline.small, baseline.large, 0, 1),
            "round {round}: {stats:?}"
        );
    }
    assert_eq!(owner.pin(&survivor).unwrap().bytes(), content(16));
    times.sort();
    let (median, last) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{} kills: from the kill until all was back, median {median:?}, at most {last:?}", times.len());
}
