//! Workers are started, leased, and connected to those that lease them.

mod common;

use std::time::Duration;

use common::{Client, config, cpus, start, until};
use heliostat_proto::WorkerId;
use heliostat_proto::message::{FromDaemon, NodeState, Resources, ToDaemon, ToPeer, WorkerActivity};
use heliostat_shm::ring::Side;

#[test]
fn stand_in() {
    common::stand_in();
}

fn state(client: &mut Client) -> NodeState {
    client.send(&ToDaemon::State { request: 77 });
    client.expect("the state", |message| match message {
        FromDaemon::State { request: 77, state } => Some((**state).clone()),
        _ => None,
    })
}

/// Waits for the answer to a request.
fn granted(client: &mut Client, wanted: u64) -> (u64, WorkerId, bool) {
    client.expect("a lease", |message| match message {
        FromDaemon::LeaseGranted { request, lease, worker, connect, .. } if *request == wanted => {
            Some((*lease, *worker, *connect))
        }
        _ => None,
    })
}

#[test]
fn a_leased_worker_answers_over_a_direct_connection() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 2.0));
    let mut driver = Client::driver(&node);
    assert_eq!(driver.seat.len(), heliostat_store::SEAT_FDS + 1, "with that of the store's file");
    assert_eq!(driver.welcome.node, node.node_id());
    assert_ne!(driver.welcome.job, heliostat_proto::JobId::default());
    let mut worker = driver.lease(cpus(1.0));
    assert_eq!(worker.run("echo", "echo hello"), "hello");
    assert_eq!(worker.run("me", "me"), worker.worker.to_string(), "the worker knows its own id");
    assert_eq!(worker.run("pid", "pid"), worker.pid.to_string());
}

#[test]
fn a_pair_is_connected_once_however_often_the_worker_is_leased() {
    let temp = tempfile::tempdir().unwrap();
    let mut config = config(temp.path(), 1.0);
    config.prestart = 0;
    let node = start(config);
    let mut driver = Client::driver(&node);
    let mut worker = driver.lease(cpus(1.0));
    driver.send(&ToDaemon::ReturnLease { lease: worker.lease });
    let request = driver.request(cpus(1.0));
    let (lease, again, connect) = granted(&mut driver, request);
    assert_eq!((again, connect), (worker.worker, false));
    assert_ne!(lease, worker.lease);
    assert_eq!(worker.run("echo", "echo still here"), "still here");
}

#[test]
fn state_tells_resources_and_workers() {
    let temp = tempfile::tempdir().unwrap();
    let mut config = config(temp.path(), 2.0);
    config.labels = vec![("zone".into(), "a".into())];
    let node = start(config);
    let mut driver = Client::driver(&node);
    let worker = driver.lease(cpus(1.5));
    let state = state(&mut driver);
    assert_eq!(state.node, node.node_id());
    assert_eq!(state.total, cpus(2.0));
    assert_eq!(state.available, cpus(0.5));
    assert_eq!(state.labels, [("zone".to_owned(), "a".to_owned())]);
    assert_eq!(state.capacity, 64 << 20);
    let info = state.workers.iter().find(|info| info.worker == worker.worker).unwrap();
    assert_eq!((info.pid, info.activity), (worker.pid, WorkerActivity::Busy));
    assert_eq!(state.workers.len(), 2, "as many as CPUs are started ahead");
}

#[test]
fn what_the_node_cannot_give_is_refused_and_a_cancelled_request_is_forgotten() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    let mut driver = Client::driver(&node);
    let wanted = driver.request(Resources::new([("GPU".to_owned(), 1.0)]));
    let failure = driver.expect("a refusal", |message| match message {
        FromDaemon::LeaseRefused { request, failure } if *request == wanted => Some(failure.clone()),
        _ => None,
    });
    assert_eq!(failure.code, "UNSCHEDULABLE");
    assert_eq!(failure.message, "no worker can have 1 GPU: the node has 0 GPU in all");

    let worker = driver.lease(cpus(1.0));
    let cancelled = driver.request(cpus(1.0));
    driver.send(&ToDaemon::CancelLease { request: cancelled });
    driver.send(&ToDaemon::ReturnLease { lease: worker.lease });
    let next = driver.request(cpus(1.0));
    granted(&mut driver, next);
    let answered =
        |message: &FromDaemon| matches!(message, FromDaemon::LeaseGranted { request, .. } if *request == cancelled);
    assert!(!driver.later.iter().any(answered));
}

#[test]
fn a_waiting_worker_lends_its_cpu_to_the_task_it_waits_for() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    let mut driver = Client::driver(&node);
    let mut outer = driver.lease(cpus(1.0));
    outer.run("outer", "waiting true");
    let inner: u32 = outer.run("outer", "lease 1").parse().unwrap();
    assert_ne!(inner, outer.pid);
    outer.run("outer", "waiting false");
    assert_eq!(state(&mut driver).available, cpus(0.0));
}

#[test]
fn an_idle_lease_is_recalled_for_another_client() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    let (mut driver, mut other) = (Client::driver(&node), Client::driver(&node));
    let held = driver.lease(cpus(1.0));
    let wanted = other.request(cpus(1.0));
    let recalled = driver.expect("a recall", |message| match message {
        FromDaemon::RecallLease { lease } => Some(*lease),
        _ => None,
    });
    assert_eq!(recalled, held.lease);
    driver.send(&ToDaemon::ReturnLease { lease: recalled });
    granted(&mut other, wanted);
}

#[test]
fn any_two_processes_are_connected_on_request_even_when_both_ask() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    let (mut one, mut two) = (Client::driver(&node), Client::driver(&node));
    one.send(&ToDaemon::Connect { request: 1, peer: two.welcome.worker });
    let peer = two.welcome.worker;
    one.expect("a connection", |message| {
        (*message == FromDaemon::Connected { request: 1, peer, ok: true, connect: true }).then_some(())
    });
    let mut near = one.peer(Side::Near);
    // The other one asks before it has read that it is connected already.
    let peer = one.welcome.worker;
    two.send(&ToDaemon::Connect { request: 9, peer });
    two.expect("the connection", |message| (*message == FromDaemon::Peer { peer }).then_some(()));
    let mut far = two.peer(Side::Far);
    two.expect("an answer", |message| {
        (*message == FromDaemon::Connected { request: 9, peer, ok: true, connect: false }).then_some(())
    });
    near.send(&ToPeer::Borrowed);
    assert_eq!(far.receive(), ToPeer::Borrowed);
    far.send(&ToPeer::Borrow { objects: Vec::new() });
    assert_eq!(near.receive(), ToPeer::Borrow { objects: Vec::new() });

    let nobody = WorkerId([9; 16]);
    for (request, peer) in [(2, nobody), (3, one.welcome.worker)] {
        one.send(&ToDaemon::Connect { request, peer });
        let refused = FromDaemon::Connected { request, peer, ok: false, connect: false };
        one.expect("a refusal", |message| (*message == refused).then_some(()));
    }

    let gone = two.welcome.worker;
    drop(two);
    one.expect("news of the end", |message| (*message == FromDaemon::PeerGone { peer: gone }).then_some(()));
}

#[test]
fn a_worker_that_two_clients_know_connects_to_both() {
    let temp = tempfile::tempdir().unwrap();
    let mut config = config(temp.path(), 1.0);
    config.prestart = 0;
    let node = start(config);
    let (mut one, mut two) = (Client::driver(&node), Client::driver(&node));
    let mut first = one.lease(cpus(1.0));
    assert_eq!(first.run("echo", "echo 1"), "1");
    one.send(&ToDaemon::ReturnLease { lease: first.lease });
    let mut second = two.lease(cpus(1.0));
    assert_eq!(second.worker, first.worker);
    assert_eq!(second.run("echo", "echo 2"), "2");
}

#[test]
fn many_requests_wait_for_few_workers() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 2.0));
    let mut driver = Client::driver(&node);
    let requests: Vec<u64> = (0..200).map(|_| driver.request(cpus(1.0))).collect();
    for wanted in requests {
        let (lease, ..) = granted(&mut driver, wanted);
        driver.send(&ToDaemon::ReturnLease { lease });
    }
    until("all is free again", || state(&mut driver).available == cpus(2.0));
    assert!(state(&mut driver).workers.len() <= 2);
    node.stop(Duration::from_secs(10));
}
