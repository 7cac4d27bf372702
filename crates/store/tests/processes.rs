//! The store between real processes: sharing, death at random moments, stopping, full memory.
//!
//! The test binary runs itself again for each child. Seats reach a child through `/proc/PID/fd`, its requests travel as
//! lines of hexadecimal digits over its standard input and output.
#![allow(clippy::print_stdout)] // a child talks to its parent that way

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use heliostat_proto::{Locator, ObjectId, TaskId, WorkerId};
use heliostat_shm::process::{Identity, ProcessFd};
use heliostat_store::{
    DaemonLink, Layout, LeaseError, LeaseGrant, LeaseRequest, LocalLink, Seat, SeatParams, StoreClient, StoreConfig,
    StoreDaemon,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

const MIB: u64 = 1 << 20;
const ROLE: &str = "HELIOSTAT_STORE_ROLE";

#[derive(Serialize, Deserialize)]
enum FromChild {
    Lease(LeaseRequest),
    Free(Vec<Locator>),
    /// An object that was sealed: its id, place and the seed of its contents.
    Sealed(ObjectId, Locator, u64),
    Ready,
}

#[derive(Serialize, Deserialize)]
struct Start {
    daemon: u32,
    fds: [i32; 4],
    params: SeatParams,
}

fn to_line(value: &impl Serialize) -> String {
    use std::fmt::Write;
    let mut line = postcard::to_stdvec(value).unwrap().iter().fold(String::from("@"), |mut line, byte| {
        write!(line, "{byte:02x}").unwrap();
        line
    });
    line.push('\n');
    line
}

fn from_line<T: DeserializeOwned>(line: &str) -> Option<T> {
    let digits = line.trim_end().rsplit_once('@')?.1;
    let bytes = (0..digits.len() / 2).map(|n| u8::from_str_radix(&digits[n * 2..][..2], 16).unwrap());
    Some(postcard::from_bytes(&bytes.collect::<Vec<_>>()).unwrap())
}

fn content(seed: u64) -> Vec<u8> {
    let length = match seed % 8 {
        0 => 70_000 + seed * 31 % 200_000,
        1 => 0,
        _ => seed * 37 % 5_000,
    };
    (0..length).map(|n| (n.wrapping_mul(seed | 1) >> 3) as u8 ^ seed as u8).collect()
}

// ---------------------------------------------------------------- the child's side

struct PipeLink(Mutex<()>);

fn say(message: &FromChild) {
    let mut out = std::io::stdout().lock();
    out.write_all(to_line(message).as_bytes()).unwrap();
    out.flush().unwrap();
}

impl DaemonLink for PipeLink {
    fn lease(&self, request: LeaseRequest) -> Result<LeaseGrant, LeaseError> {
        let _one = self.0.lock().unwrap();
        say(&FromChild::Lease(request));
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).unwrap();
        from_line(&line).unwrap_or_else(|| Err(LeaseError::Disconnected { reason: "the parent is gone".into() }))
    }

    fn free(&self, locators: &[Locator]) {
        say(&FromChild::Free(locators.to_vec()));
    }
}

fn child_client() -> StoreClient {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap();
    let start: Start = from_line(&line).unwrap();
    let open = |fd: i32, writable: bool| -> OwnedFd {
        let path = format!("/proc/{}/fd/{fd}", start.daemon);
        std::fs::OpenOptions::new().read(true).write(writable).open(path).unwrap().into()
    };
    let fds = start.fds.iter().enumerate().map(|(n, fd)| open(*fd, n != 1)).collect();
    let seat = Seat::from_parts(start.params, fds).unwrap();
    StoreClient::attach(seat, Arc::new(PipeLink(Mutex::new(())))).unwrap()
}

/// Not a test: what a child does, by its role.
#[test]
#[ignore = "the children of the tests below run this"]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let client = child_client();
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

// ---------------------------------------------------------------- the parent's side

struct Node {
    daemon: Arc<Mutex<StoreDaemon>>,
}

struct Peer {
    client: u32,
    child: Child,
    watch: ProcessFd,
    events: Receiver<FromChild>,
}

impl Node {
    fn new(capacity: u64) -> Self {
        let mut config = StoreConfig::new(capacity);
        config.slots = 1 << 16;
        Self { daemon: Arc::new(Mutex::new(StoreDaemon::create(config).unwrap())) }
    }

    fn daemon(&self) -> MutexGuard<'_, StoreDaemon> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn local(&self) -> StoreClient {
        let seat = self.daemon().join(Identity::current().unwrap()).unwrap();
        let link = LocalLink::new(Arc::clone(&self.daemon), seat.params.client);
        StoreClient::attach(seat, Arc::new(link)).unwrap()
    }

    fn spawn(&self, role: &str) -> Peer {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let identity = Identity::of(child.id()).unwrap();
        let seat = self.daemon().join(identity).unwrap();
        let (params, client) = (seat.params, seat.params.client);
        let start = Start { daemon: std::process::id(), fds: seat.fds.each_ref().map(AsRawFd::as_raw_fd), params };
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(to_line(&start).as_bytes()).unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, events) = channel();
        let daemon = Arc::clone(&self.daemon);
        std::thread::spawn(move || {
            let _seat = seat; // the child opens the descriptors while this process has them
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(event) = from_line(&line) {
                    serve(&daemon, client, event, &mut stdin, &sender);
                }
            }
        });
        Peer { client, child, watch: ProcessFd::open(identity).unwrap(), events }
    }

    /// Kills a child, drains what it said, and lets the daemon clean up. Gives the sealed objects that it announced.
    fn kill(&self, mut peer: Peer) -> (Vec<(ObjectId, Locator, u64)>, heliostat_store::Reclaimed) {
        peer.watch.kill().unwrap();
        while !peer.watch.wait(Duration::from_secs(1)) {}
        peer.child.wait().unwrap();
        let sealed = peer.events.iter().filter_map(|event| match event {
            FromChild::Sealed(id, locator, seed) => Some((id, locator, seed)),
            _ => None,
        });
        let sealed = sealed.collect();
        (sealed, self.daemon().client_gone(peer.client))
    }

    fn assert_accounts(&self) -> heliostat_store::StoreStats {
        let stats = self.daemon().stats();
        assert_eq!((stats.sum(), stats.refused), (stats.capacity, 0), "{stats:?}");
        assert_eq!(stats.resident, stats.capacity - stats.free_cold, "{stats:?}");
        stats
    }
}

fn serve(
    daemon: &Mutex<StoreDaemon>,
    client: u32,
    event: FromChild,
    stdin: &mut ChildStdin,
    sender: &std::sync::mpsc::Sender<FromChild>,
) {
    let mut daemon = daemon.lock().unwrap_or_else(PoisonError::into_inner);
    match event {
        FromChild::Lease(request) => {
            let answer = daemon.lease(client, request);
            drop(daemon);
            // A child that was killed meanwhile doesn't read it.
            stdin.write_all(to_line(&answer).as_bytes()).ok();
        }
        FromChild::Free(locators) => daemon.free(&locators),
        event => {
            sender.send(event).ok();
        }
    }
}

impl Peer {
    fn wait_ready(&self) -> Vec<(ObjectId, Locator, u64)> {
        let mut sealed = Vec::new();
        loop {
            match self.events.recv().expect("the child ended early") {
                FromChild::Ready => return sealed,
                FromChild::Sealed(id, locator, seed) => sealed.push((id, locator, seed)),
                _ => {}
            }
        }
    }
}

#[test]
fn what_a_process_sealed_others_read_after_its_end() {
    let node = Node::new(64 * MIB);
    let reader = node.local();
    let mut peer = node.spawn("put");
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
    let peer = node.spawn("hold");
    let sealed = peer.wait_ready();
    let (_, locator, seed) = sealed[0];
    let other = owner.put(TaskId::root(WorkerId([200; 16])).object(1), b"other").unwrap();
    assert_eq!(owner.pin(&locator).unwrap().bytes(), content(seed));
    owner.free(&[locator]);
    assert_eq!(node.assert_accounts().deferred_objects, 1);
    let (_, reclaimed) = node.kill(peer);
    assert_eq!((reclaimed.pins, reclaimed.drafts), (1, 2));
    let stats = node.assert_accounts();
    assert_eq!((stats.deferred_objects, stats.small, stats.large), (0, 64, 0));
    assert_eq!(owner.pin(&other).unwrap().bytes(), b"other");
}

#[test]
fn a_stopped_process_does_not_hold_up_others() {
    let node = Node::new(64 * MIB);
    let owner = node.local();
    let peer = node.spawn("storm");
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

/// Kills at random moments; `HELIOSTAT_KILLS` says how many.
#[test]
fn a_storm_of_kills_loses_and_leaks_nothing() {
    let kills: u64 = std::env::var("HELIOSTAT_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    let node = Node::new(256 * MIB);
    let owner = node.local();
    let survivor = owner.put(TaskId::root(WorkerId([202; 16])).object(1), &content(16)).unwrap();
    let baseline = node.assert_accounts();
    for round in 0..kills {
        let peers = [node.spawn("storm"), node.spawn("storm")];
        for peer in &peers {
            peer.wait_ready();
        }
        // Not a wait for anything: it only moves the moment of the kill.
        std::thread::sleep(Duration::from_micros(round * 7919 % 5_000));
        let [first, second] = peers;
        let numbers = [first.client, second.client];
        let mut announced = HashMap::new();
        for peer in [first, second] {
            for (id, locator, seed) in node.kill(peer).0 {
                announced.insert(id, (locator, seed));
            }
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
}
