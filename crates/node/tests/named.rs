//! Objects that belong to the node: their names, and who counts on them. And workers that are killed on request.

mod common;

use common::{Client, config, cpus, runs, start, until};
use heliostat_proto::message::{FromDaemon, ToDaemon, ToPeer};
use heliostat_proto::{Blob, Bytes, Failure, ObjectId, RefEntry, TaskId, Value, WorkerId};

#[test]
fn stand_in() {
    common::stand_in();
}

fn id(index: u32) -> ObjectId {
    TaskId::root(WorkerId([5; 16])).object(ObjectId::FIRST_PUT + index)
}

fn put(client: &Client, request: u64, name: &str, object: ObjectId, refs: Vec<RefEntry>) {
    let blob = Blob::Inline(Bytes::new(*b"value"));
    client.send(&ToDaemon::PutNamed { request, name: name.into(), ttl: None, id: object, blob, refs });
}

fn named(client: &mut Client, wanted: u64) -> Result<RefEntry, Failure> {
    client.expect("an answer about a name", |message| match message {
        FromDaemon::Named { request, result } if *request == wanted => Some(result.clone()),
        _ => None,
    })
}

fn find(client: &mut Client, request: u64, name: &str) -> Result<RefEntry, Failure> {
    client.send(&ToDaemon::FindNamed { request, name: name.into() });
    named(client, request)
}

fn of_keeper(client: &mut Client) -> ToPeer {
    client.expect("a message of the keeper", |message| match message {
        FromDaemon::OfKeeper(message) => Some(message.clone()),
        _ => None,
    })
}

fn code(result: Result<RefEntry, Failure>) -> String {
    result.map_or_else(|failure| failure.code, |entry| format!("{entry:?}"))
}

#[test]
fn a_name_is_given_once_and_its_object_is_fetched_from_the_keeper() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    let (mut maker, mut reader) = (Client::driver(&node), Client::driver(&node));
    put(&maker, 1, "model", id(0), Vec::new());
    let entry = named(&mut maker, 1).unwrap();
    assert_eq!((entry.id, entry.owner), (id(0), maker.welcome.keeper));
    put(&reader, 2, "model", id(1), Vec::new());
    assert_eq!(code(named(&mut reader, 2)), "NAME_TAKEN");
    drop(maker);
    assert_eq!(find(&mut reader, 3, "model").unwrap().id, id(0), "its maker may go");
    reader.send(&ToDaemon::ToKeeper(ToPeer::Fetch { object: id(0) }));
    let value = Value::Ready(Blob::Inline(Bytes::new(*b"value")));
    assert_eq!(of_keeper(&mut reader), ToPeer::Fetched { object: id(0), value });
    reader.send(&ToDaemon::ToKeeper(ToPeer::Free { object: id(0) }));
    assert_eq!(code(find(&mut reader, 4, "model")), "NAME_NOT_FOUND");
    put(&reader, 5, "model", id(1), Vec::new());
    assert_eq!(named(&mut reader, 5).unwrap().id, id(1));
}

#[test]
fn the_answer_waits_until_the_owners_of_references_inside_have_counted_them() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    let (mut owner, mut maker) = (Client::driver(&node), Client::driver(&node));
    let inner = RefEntry { id: id(7), owner: owner.welcome.worker, node: node.node_id(), epoch: owner.welcome.epoch };
    put(&maker, 1, "outer", id(0), vec![inner]);
    assert_eq!(of_keeper(&mut owner), ToPeer::Borrow { objects: vec![id(7)] });
    // What is asked later is answered earlier.
    put(&maker, 2, "other", id(1), Vec::new());
    let mut answers = Vec::new();
    let mut next = |maker: &mut Client| {
        answers.push(maker.expect("an answer", |message| match message {
            FromDaemon::Named { request, result: Ok(_) } => Some(*request),
            _ => None,
        }));
    };
    next(&mut maker);
    owner.send(&ToDaemon::ToKeeper(ToPeer::Borrowed));
    next(&mut maker);
    assert_eq!(answers, [2, 1]);
    maker.send(&ToDaemon::ToKeeper(ToPeer::Free { object: id(0) }));
    assert_eq!(of_keeper(&mut owner), ToPeer::Unborrow { objects: vec![id(7)] });
    // An owner that is gone holds nobody up.
    let gone = RefEntry { owner: WorkerId([9; 16]), ..inner };
    put(&maker, 3, "outer", id(2), vec![gone]);
    assert_eq!(named(&mut maker, 3).unwrap().id, id(2));
}

#[test]
fn who_leases_a_worker_may_have_it_killed_and_nobody_else() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    let (mut driver, mut stranger) = (Client::driver(&node), Client::driver(&node));
    let mut leased = driver.lease(cpus(1.0));
    stranger.send(&ToDaemon::Kill { worker: leased.worker });
    stranger.send(&ToDaemon::Kill { worker: driver.welcome.worker });
    assert_eq!(code(find(&mut stranger, 1, "nothing")), "NAME_NOT_FOUND", "the daemon has read that");
    assert_eq!(leased.run("echo", "echo alive"), "alive");
    driver.send(&ToDaemon::Kill { worker: leased.worker });
    let broken = driver.expect("the end of the lease", |message| match message {
        FromDaemon::LeaseBroken { lease, .. } => Some(*lease),
        _ => None,
    });
    assert_eq!(broken, leased.lease);
    until("the worker is gone", || !runs(leased.pid));
}
