//! Nodes that came and went leave the process as it was. A program of its own: other tests would be counted too.

mod common;

use std::time::Duration;

use common::{Client, config, cpus, start, until};
use heliostat_proto::message::{FromDaemon, ToDaemon};

#[test]
fn stand_in() {
    common::stand_in();
}

fn entries(dir: &str) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

fn one_life(temp: &std::path::Path) {
    let node = start(config(temp, 2.0));
    let mut driver = Client::driver(&node);
    let mut worker = driver.lease(cpus(1.0));
    worker.run("echo", "print hello\n");
    let inner = worker.run("echo", "lease 1");
    worker.start("echo", "exit 1");
    driver.expect("the end", |message| matches!(message, FromDaemon::LeaseBroken { .. }).then_some(()));
    assert!(inner.parse::<u32>().is_ok());
    driver.send(&ToDaemon::Leave);
    driver.expect("goodbye", |message| matches!(message, FromDaemon::Goodbye).then_some(()));
    node.stop(Duration::from_secs(1));
}

#[test]
fn descriptors_threads_children_and_files_are_as_before() {
    let temp = tempfile::tempdir().unwrap();
    one_life(temp.path());
    let (fds, threads) = (entries("/proc/self/fd"), entries("/proc/self/task"));
    for _ in 0..5 {
        one_life(temp.path());
    }
    // A joined thread's entry may outlive the join by a moment.
    until("all threads are gone", || entries("/proc/self/task") <= threads);
    assert_eq!(entries("/proc/self/fd"), fds);
    assert_eq!(common::children(), Vec::<u32>::new());
    let base = std::fs::read_dir(temp.path()).unwrap().next().unwrap().unwrap().path();
    assert_eq!(std::fs::read_dir(base).unwrap().count(), 0);
}
