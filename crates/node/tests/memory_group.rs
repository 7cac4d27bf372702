//! Memory that really runs short, in a control group with a limit. One test: the group is the whole program's.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Client, config, cpus, kill, runs, start, until};
use heliostat_node::MemoryLimits;
use heliostat_proto::message::{FromDaemon, ToDaemon};
use heliostat_proto::{Fact, Failure};
use heliostat_shm::memory::headroom;

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 1024 * MIB;
/// What the node keeps free of that.
const THRESHOLD: u64 = 64 * MIB;

#[test]
fn stand_in() {
    common::stand_in();
}

/// A control group of this process, removed when it is dropped.
struct Group {
    path: PathBuf,
    parent: PathBuf,
}

impl Group {
    /// Of whichever version the machine has; `None` where none can be made.
    fn join() -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let path_of = |prefix: &str| {
            let line =
                own.lines().find(|line| line.split_once(':').is_some_and(|(_, rest)| rest.starts_with(prefix)))?;
            line.rsplit(':').next().map(|path| path.trim_start_matches('/').to_owned())
        };
        let versions =
            [("/sys/fs/cgroup/memory", "memory:", "memory.limit_in_bytes"), ("/sys/fs/cgroup", ":", "memory.max")];
        versions.into_iter().find_map(|(root, prefix, limit)| {
            let parent = Path::new(root).join(path_of(prefix)?);
            let path = Path::new(root).join(format!("heliostat-node-test-{}", std::process::id()));
            fs::create_dir(&path).ok()?;
            let group = Self { path, parent };
            fs::write(group.path.join(limit), LIMIT.to_string()).ok()?;
            fs::write(group.path.join("cgroup.procs"), "0").ok()?;
            Some(group)
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Where the parent does not take processes, the group stays until this one has ended.
        let _ = fs::write(self.parent.join("cgroup.procs"), "0");
        let _ = fs::remove_dir(&self.path);
    }
}

fn broken(driver: &mut Client) -> (u64, Failure) {
    driver.expect("the end of a worker", |message| match message {
        FromDaemon::LeaseBroken { lease, failure, .. } => Some((*lease, failure.clone())),
        _ => None,
    })
}

/// Takes so much memory in this process that less is left than the node keeps free, by more than what comes and goes.
/// Once: what the node frees meanwhile is left.
fn squeeze(ballast: &mut Vec<Vec<u8>>) {
    let bytes = headroom().bytes - (THRESHOLD - 16 * MIB);
    ballast.push(std::hint::black_box(vec![1_u8; bytes as usize]));
}

#[test]
fn when_memory_runs_short_one_worker_ends_at_a_time_and_the_kernel_is_recognised() {
    let Some(_group) = Group::join() else {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "no control group can be made here");
        return;
    };
    let temp = tempfile::tempdir().unwrap();
    let mut settings = config(temp.path(), 3.0);
    settings.memory = MemoryLimits { fraction: 0.0, least: THRESHOLD, worthwhile: 64 * MIB };
    let node = start(settings);
    let mut driver = Client::driver(&node);
    let [mut owner, mut retriable, mut once] = [(); 3].map(|()| driver.lease(cpus(1.0)));
    driver.send(&ToDaemon::LeaseRetriable { lease: once.lease, retriable: false });
    owner.run("own", "lend");
    for worker in [&mut owner, &mut retriable, &mut once] {
        worker.run("grow", "hold 150");
    }
    let mut ballast = Vec::new();
    for (expected, living) in [(&retriable, 2), (&once, 1), (&owner, 0)] {
        squeeze(&mut ballast);
        let (lease, failure) = broken(&mut driver);
        assert_eq!((lease, &failure.code[..]), (expected.lease, "OUT_OF_MEMORY"));
        assert!(failure.message.contains("1024 MiB were used (the limit of control group /"), "{}", failure.message);
        let left = [&owner, &retriable, &once].iter().filter(|worker| runs(worker.pid)).count();
        assert_eq!(left, living, "one at a time");
        until("its memory is back", || headroom().bytes > THRESHOLD + 64 * MIB);
    }
    drop(ballast);
    drop(driver);
    drop(node);

    // Nobody watches: the kernel ends a worker, not this process, which is larger.
    let ballast = std::hint::black_box(vec![1_u8; 300 << 20]);
    let mut settings = config(temp.path(), 2.0);
    settings.memory = MemoryLimits { fraction: 0.0, least: 0, worthwhile: 0 };
    let node = start(settings);
    let mut driver = Client::driver(&node);
    let [large, _small] = [(); 2].map(|()| driver.lease(cpus(1.0)));
    large.start("hungry", "hold 1500");
    // When the memory of the first is not back at once, the kernel ends another one too.
    let failure = loop {
        let (lease, failure) = broken(&mut driver);
        assert_eq!(failure.code, "OUT_OF_MEMORY", "{}", failure.message);
        if lease == large.lease {
            break failure;
        }
    };
    let first = format!("the kernel killed worker pid={} for want of memory", large.pid);
    assert!(failure.message.starts_with(&first), "{}", failure.message);
    assert!(failure.message.contains(" of 1024 MiB were used (the limit of control group /"), "{}", failure.message);
    drop(ballast);
    let killed = driver.lease(cpus(1.0));
    kill(killed.pid);
    let failure = driver.expect("its end", |message| match message {
        FromDaemon::LeaseBroken { lease, failure, .. } if *lease == killed.lease => Some(failure.clone()),
        _ => None,
    });
    assert_eq!(failure.code, "WORKER_CRASHED");
    assert_eq!(failure.facts[1].1, Fact::Text("SIGKILL".into()));
    assert!(failure.message.contains("not by the kernel for want of memory"), "{}", failure.message);
}
