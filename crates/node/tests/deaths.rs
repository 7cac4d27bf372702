//! What the others learn when a process ends, and what becomes of what it held.

mod common;

use std::os::unix::fs::PermissionsExt as _;

use common::{Client, config, cpus, kill, runs, shell_config, start, until};
use heliostat_node::WorkerCommand;
use heliostat_proto::message::{FromDaemon, Resources};
use heliostat_proto::{Fact, Failure};

#[test]
fn stand_in() {
    common::stand_in();
}

fn broken(client: &mut Client, wanted: u64) -> Failure {
    client.expect("news of the lease", |message| match message {
        FromDaemon::LeaseBroken { lease, failure, .. } if *lease == wanted => Some(failure.clone()),
        _ => None,
    })
}

fn refused(client: &mut Client, wanted: u64) -> Failure {
    client.expect("a refusal", |message| match message {
        FromDaemon::LeaseRefused { request, failure } if *request == wanted => Some(failure.clone()),
        _ => None,
    })
}

fn facts(code: Fact, signal: Fact) -> Vec<(String, Fact)> {
    vec![("exitCode".to_owned(), code), ("exitSignal".to_owned(), signal)]
}

#[test]
fn a_killed_worker_breaks_its_lease_with_the_signal_and_its_last_lines() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    let mut driver = Client::driver(&node);
    let mut worker = driver.lease(cpus(1.0));
    let lines: Vec<String> = (0..30).map(|n| format!("line {n}")).collect();
    worker.run("train", &format!("complain {}\nand no line feed", lines.join("\n")));
    kill(worker.pid);
    let failure = broken(&mut driver, worker.lease);
    assert_eq!(failure.code, "WORKER_CRASHED");
    assert_eq!(failure.facts, facts(Fact::Absent, Fact::Text("SIGKILL".into())));
    let mut text = failure.message.lines();
    // What is said between depends on whether the kernel counts its own kills for this process.
    let first = text.next().unwrap().replace(" (not by the kernel for want of memory)", "");
    assert_eq!(first, format!("worker pid={} was killed by SIGKILL while it ran train()", worker.pid));
    assert_eq!(text.next(), Some("last lines of its stderr:"));
    let last: Vec<&str> = text.map(str::trim).collect();
    assert_eq!(last.len(), 20);
    assert_eq!((last[0], last[18], last[19]), ("line 11", "line 29", "and no line feed"));
    let gone = worker.worker;
    driver.expect("news of the peer", |message| (*message == FromDaemon::PeerGone { peer: gone }).then_some(()));
    // Its place is taken by a new one.
    assert_ne!(driver.lease(cpus(1.0)).pid, worker.pid);
}

#[test]
fn a_worker_that_exits_tells_its_code() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    let mut driver = Client::driver(&node);
    let worker = driver.lease(cpus(1.0));
    worker.start("leave", "exit 3");
    let failure = broken(&mut driver, worker.lease);
    assert_eq!(failure.message, format!("worker pid={} exited with code 3 while it ran leave()", worker.pid));
    assert_eq!(failure.facts, facts(Fact::Number(3), Fact::Absent));
}

#[test]
fn a_worker_that_closes_its_connection_is_ended() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    let mut driver = Client::driver(&node);
    let worker = driver.lease(cpus(1.0));
    worker.start("rude", "disconnect");
    let failure = broken(&mut driver, worker.lease);
    let message = format!(
        "worker pid={} was killed by SIGKILL by the node, because it had closed its connection while it ran rude()",
        worker.pid
    );
    assert_eq!(failure.message, message);
}

#[test]
fn what_a_worker_started_ends_with_it() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    let mut driver = Client::driver(&node);
    let mut worker = driver.lease(cpus(1.0));
    let child: u32 = worker.run("fork", "child").parse().unwrap();
    assert!(runs(child));
    kill(worker.pid);
    broken(&mut driver, worker.lease);
    until("the end of the worker's child", || !runs(child));
}

#[test]
fn a_client_that_is_gone_takes_the_workers_along_that_ran_its_tasks() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 2.0));
    let mut other = Client::driver(&node);
    let mut driver = Client::driver(&node);
    let mut outer = driver.lease(cpus(1.0));
    let inner: u32 = outer.run("outer", "lease 1").parse().unwrap();
    let wanted = other.request(cpus(2.0));
    drop(driver);
    until("both workers' end", || !runs(outer.pid) && !runs(inner));
    other.expect("both CPUs", |message| {
        matches!(message, FromDaemon::LeaseGranted { request, .. } if *request == wanted).then_some(())
    });
}

#[test]
fn workers_that_crash_at_their_start_are_given_up_with_their_last_words() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(shell_config(temp.path(), "echo 'Cannot find module' >&2; exit 9"));
    let mut driver = Client::driver(&node);
    let wanted = driver.request(cpus(1.0));
    let failure = refused(&mut driver, wanted);
    assert_eq!(failure.code, "WORKER_CRASHED");
    assert_eq!(failure.facts, facts(Fact::Number(9), Fact::Absent));
    assert!(failure.message.starts_with("workers do not start: pid="), "{}", failure.message);
    assert!(failure.message.contains("exited with code 9 before it connected"), "{}", failure.message);
    assert!(failure.message.ends_with("\n  Cannot find module"), "{}", failure.message);
    let wanted = driver.request(Resources::default());
    refused(&mut driver, wanted);
}

#[test]
fn starts_that_somebody_kills_are_tried_again() {
    let temp = tempfile::tempdir().unwrap();
    let mut config = config(temp.path(), 2.0);
    let (real, args) = (config.worker.program.display().to_string(), config.worker.args.clone());
    let starts = temp.path().join("starts");
    // Four starts in a row die before they can say anything: more than those that refuse all requests.
    let script = format!("echo x >> {0}; [ $(wc -l < {0}) -gt 4 ] || kill -9 $$; exec {real} \"$@\"", starts.display());
    config.worker.program = "/bin/sh".into();
    config.worker.args = ["-c".into(), script.into(), "sh".into()].into_iter().chain(args).collect();
    let node = start(config);
    let mut driver = Client::driver(&node);
    assert_eq!(driver.lease(cpus(1.0)).run("echo", "echo alive"), "alive");
    assert!(std::fs::read_to_string(&starts).unwrap().lines().count() > 4);
}

#[test]
fn failed_starts_do_not_pile_up() {
    let temp = tempfile::tempdir().unwrap();
    let count = temp.path().join("starts");
    let script = format!("echo x >> {}; exit 1", count.display());
    let node = start(shell_config(temp.path(), &script));
    let mut driver = Client::driver(&node);
    for _ in 0..3 {
        let wanted = driver.request(cpus(1.0));
        refused(&mut driver, wanted);
    }
    let starts = std::fs::read_to_string(&count).unwrap().lines().count();
    assert!((3..=6).contains(&starts), "{starts} starts for 3 refused requests");
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let mut config = config(temp.path(), 1.0);
    config.worker = WorkerCommand::new("/nowhere/worker", [""; 0]);
    let node = start(config);
    let mut driver = Client::driver(&node);
    let wanted = driver.request(cpus(1.0));
    let failure = refused(&mut driver, wanted);
    assert!(failure.message.contains("/nowhere/worker: No such file or directory"), "{}", failure.message);
    assert_eq!(failure.facts, facts(Fact::Absent, Fact::Absent));
}

#[test]
fn starts_succeed_again_when_the_cause_is_gone() {
    let temp = tempfile::tempdir().unwrap();
    let program = temp.path().join("worker");
    let mut config = config(temp.path(), 1.0);
    let (real, args) = (config.worker.program.display().to_string(), config.worker.args.clone());
    config.worker.program.clone_from(&program);
    config.worker.args = args.clone();
    let node = start(config);
    let mut driver = Client::driver(&node);
    let wanted = driver.request(cpus(1.0));
    refused(&mut driver, wanted);
    std::fs::write(temp.path().join("new"), format!("#!/bin/sh\nexec {real} \"$@\"\n")).unwrap();
    std::fs::set_permissions(temp.path().join("new"), std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::rename(temp.path().join("new"), &program).unwrap();
    assert_eq!(driver.lease(cpus(1.0)).run("echo", "echo back"), "back");
}

#[test]
fn a_worker_that_never_connects_counts_as_failed() {
    let temp = tempfile::tempdir().unwrap();
    let mut config = shell_config(temp.path(), "echo stuck >&2; exec sleep 1000");
    config.worker_start_timeout = std::time::Duration::from_millis(100);
    let node = start(config);
    let mut driver = Client::driver(&node);
    let wanted = driver.request(cpus(1.0));
    let failure = refused(&mut driver, wanted);
    assert!(failure.message.contains("did not connect within 100ms"), "{}", failure.message);
    assert!(failure.message.ends_with("\n  stuck"), "{}", failure.message);
}
