//! Workers are started, leased, and connected to those that lease them.

mod common;

use common::{Client, config, cpus, start};
use heliostat_proto::message::{FromDaemon, ToDaemon};

#[test]
fn stand_in() {
    common::stand_in();
}

#[test]
fn a_leased_worker_answers_over_a_direct_connection() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 2.0));
    let mut driver = Client::driver(&node);
    assert_eq!(driver.seat.len(), 4);
    let mut worker = driver.lease(cpus(1.0));
    assert_eq!(worker.run("echo", "echo hello"), "hello");
    driver.send(&ToDaemon::Leave);
    driver.expect("goodbye", |message| matches!(message, FromDaemon::Goodbye).then_some(()));
    node.stop(std::time::Duration::from_secs(5));
    assert!(!node.session_dir().exists());
}
