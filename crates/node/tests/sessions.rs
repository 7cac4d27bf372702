//! A node's files and processes: where they are, and that nothing of them remains.

mod common;

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::Duration;

use common::{Client, config, cpus, runs, start, until};
use heliostat_node::{ConnectNodeError, Node, NodeHandle, SessionError, StartNodeError};
use heliostat_proto::message::{FromDaemon, ToDaemon};

#[test]
fn stand_in() {
    common::stand_in();
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn worker_pids(driver: &mut Client) -> Vec<u32> {
    driver.send(&ToDaemon::State { request: 1 });
    driver.expect("the state", |message| match message {
        FromDaemon::State { state, .. } => Some(state.workers.iter().map(|worker| worker.pid).collect()),
        _ => None,
    })
}

fn is_refused(result: Result<NodeHandle, StartNodeError>, text: &str) {
    let error = result.expect_err("the node must not start");
    assert!(matches!(error, StartNodeError::Session(_)), "{error:?}");
    assert!(error.to_string().contains(text), "{error}");
}

#[test]
fn a_stopped_node_leaves_no_file_and_no_process() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 2.0));
    let dir = node.session_dir().to_owned();
    assert_eq!((mode(dir.parent().unwrap()), mode(&dir), mode(&dir.join("node.sock"))), (0o700, 0o700, 0o600));
    let mut driver = Client::driver(&node);
    let busy = driver.lease(cpus(1.0));
    busy.start("hang", "hang");
    let pids = worker_pids(&mut driver);
    assert!(pids.contains(&busy.pid));
    node.stop(Duration::from_millis(50));
    assert!(!dir.exists());
    for pid in pids {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is left, or was not waited for");
    }
    driver.expect_end();
    assert!(matches!(node.connect(), Err(ConnectNodeError::Stopped)));
    node.stop(Duration::ZERO);
}

#[test]
fn a_node_is_stopped_from_several_threads_and_by_its_drop() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                node.stop(Duration::from_secs(1));
                assert!(!node.session_dir().exists());
            });
        }
    });
    let node = start(config(temp.path(), 1.0));
    let dir = node.session_dir().to_owned();
    let mut driver = Client::driver(&node);
    let worker = driver.lease(cpus(1.0));
    drop(node);
    assert!(!dir.exists() && !runs(worker.pid));
}

#[test]
fn a_node_stops_while_its_workers_are_being_started() {
    let temp = tempfile::tempdir().unwrap();
    for _ in 0..20 {
        let node = start(config(temp.path(), 4.0));
        let dir = node.session_dir().to_owned();
        node.stop(Duration::ZERO);
        assert!(!dir.exists());
    }
    // A worker that was missed would still find the socket's path in its environment.
    let left = |pid: &u32| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let base = temp.path().as_os_str().as_encoded_bytes();
        environ.windows(base.len()).any(|part| part == base)
    };
    let pids: Vec<u32> = common::children();
    assert_eq!(pids.into_iter().filter(left).collect::<Vec<_>>(), Vec::<u32>::new());
}

#[test]
fn what_a_dead_node_left_is_removed_and_a_living_one_is_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    let living = start(config(temp.path(), 1.0));
    let base = living.session_dir().parent().unwrap().to_owned();
    let dead = base.join("s-0000dead");
    std::fs::create_dir(&dead).unwrap();
    std::fs::write(dead.join("lock"), "").unwrap();
    std::fs::write(dead.join("node.sock"), "").unwrap();
    std::fs::create_dir(dead.join("logs")).unwrap();
    std::fs::create_dir(base.join("s-00000000")).unwrap();
    std::fs::write(base.join("something else"), "").unwrap();
    let next = start(config(temp.path(), 1.0));
    assert!(!dead.exists() && !base.join("s-00000000").exists());
    assert!(base.join("something else").exists());
    assert!(living.session_dir().join("node.sock").exists());
    assert!(Client::driver(&living).lease(cpus(1.0)).run("echo", "echo alive") == "alive");
    drop(next);
}

#[test]
fn the_session_of_a_killed_process_is_swept() {
    let temp = tempfile::tempdir().unwrap();
    let mut victim = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--nocapture"])
        .env("HELIOSTAT_VICTIM", temp.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let said = temp.path().join("said");
    until("the victim's node runs", || said.exists());
    let text = std::fs::read_to_string(&said).unwrap();
    let (dir, worker) = text.split_once('\n').unwrap();
    let worker: u32 = worker.parse().unwrap();
    assert!(Path::new(dir).exists() && runs(worker));
    victim.kill().unwrap();
    victim.wait().unwrap();
    until("its worker has left by itself", || !runs(worker));
    let node = start(config(temp.path(), 1.0));
    assert!(!Path::new(dir).exists());
    drop(node);
}

#[test]
fn victim() {
    let Some(temp) = std::env::var_os("HELIOSTAT_VICTIM") else { return };
    let temp = Path::new(&temp);
    let node = start(config(temp, 1.0));
    let mut driver = Client::driver(&node);
    let worker = driver.lease(cpus(1.0));
    std::fs::write(temp.join("draft"), format!("{}\n{}", node.session_dir().display(), worker.pid)).unwrap();
    std::fs::rename(temp.join("draft"), temp.join("said")).unwrap();
    loop {
        std::thread::sleep(Duration::from_secs(1000));
    }
}

#[test]
fn a_directory_that_is_not_ours_is_not_used() {
    let uid = rustix::process::getuid().as_raw();
    let temp = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let base = temp.path().join(format!("heliostat-{uid}"));
    symlink(elsewhere.path(), &base).unwrap();
    is_refused(Node::start(config(temp.path(), 1.0)), "it is not a directory");
    std::fs::remove_file(&base).unwrap();
    std::fs::write(&base, "").unwrap();
    is_refused(Node::start(config(temp.path(), 1.0)), "it is not a directory");
    std::fs::remove_file(&base).unwrap();
    std::fs::create_dir(&base).unwrap();
    if uid == 0 {
        std::os::unix::fs::chown(&base, Some(65534), Some(65534)).unwrap();
        is_refused(Node::start(config(temp.path(), 1.0)), "belongs to another user");
        std::os::unix::fs::chown(&base, Some(0), Some(0)).unwrap();
    }
    std::fs::set_permissions(&base, std::fs::Permissions::from_mode(0o777)).unwrap();
    let node = start(config(temp.path(), 1.0));
    assert_eq!(mode(&base), 0o700, "ours, but it was open to others");
    drop(node);
}

#[test]
fn a_path_that_no_socket_can_have_is_refused_by_its_length() {
    let temp = tempfile::tempdir().unwrap();
    let long = temp.path().join("x".repeat(100));
    let error = Node::start(config(&long, 1.0)).expect_err("too long");
    assert!(
        matches!(&error, StartNodeError::Session(SessionError::PathTooLong { length, .. }) if *length > 107),
        "{error:?}"
    );
    assert!(!long.exists(), "nothing was made");
}

#[test]
fn a_directory_for_temporary_files_is_made_when_it_is_missing() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(&temp.path().join("a/b"), 1.0));
    assert!(node.session_dir().starts_with(temp.path().join("a/b")));
}
