//! What happens when memory runs short.

mod common;

use std::path::Path;

use common::{Client, config, cpus, runs, start};
use heliostat_node::{MemoryLimits, NodeHandle};
use heliostat_proto::Failure;
use heliostat_proto::message::FromDaemon;

const MIB: u64 = 1 << 20;

#[test]
fn stand_in() {
    common::stand_in();
}

/// A node whose memory is always short: whoever has 64 MiB of his own is ended.
fn short(temp: &Path, cpu: f64) -> NodeHandle {
    let mut config = config(temp, cpu);
    config.memory = MemoryLimits { fraction: 0.0, least: u64::MAX / 4, worthwhile: 64 * MIB };
    start(config)
}

fn broken(driver: &mut Client) -> (u64, Failure) {
    driver.expect("the end of a worker", |message| match message {
        FromDaemon::LeaseBroken { lease, failure, .. } => Some((*lease, failure.clone())),
        _ => None,
    })
}

#[test]
fn the_worker_with_the_memory_is_ended_with_the_figures_and_small_ones_live() {
    let temp = tempfile::tempdir().unwrap();
    let node = short(temp.path(), 3.0);
    let mut driver = Client::driver(&node);
    let mut small = driver.lease(cpus(1.0));
    let large = driver.lease(cpus(1.0));
    let mut newer = driver.lease(cpus(1.0));
    newer.run("some", "hold 20");
    large.start("hungry", "hold 200");
    let (lease, failure) = broken(&mut driver);
    assert_eq!((lease, &failure.code[..]), (large.lease, "OUT_OF_MEMORY"));
    let own = failure.message.split_once("which had ").unwrap().1.split_once(" MiB of its own").unwrap().0;
    assert!((64..400).contains(&own.parse::<u64>().unwrap()), "{}", failure.message);
    for part in [&format!("worker pid={}", large.pid)[..], " MiB were used (", " MiB were left", " are to be left"] {
        assert!(failure.message.contains(part), "{part}: {}", failure.message);
    }
    assert!(failure.hint.unwrap().contains("`memory`"));
    assert!(!runs(large.pid));
    assert_eq!((small.run("echo", "echo a"), newer.run("echo", "echo b")), ("a".into(), "b".into()));
    // Its place is taken by another.
    assert_eq!(driver.lease(cpus(1.0)).run("echo", "echo c"), "c");
}
