//! A store with clients in processes of their own.
//!
//! The test binary runs itself again for each child. Seats reach a child through `/proc/PID/fd`, its requests travel as
//! lines of hexadecimal digits over its standard input and output.
#![allow(dead_code)] // each test binary uses a part of it

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use heliostat_proto::{Locator, ObjectId};
use heliostat_shm::process::{Identity, ProcessFd};
use heliostat_store::{
    DaemonLink, LeaseError, LeaseGrant, LeaseRequest, LocalLink, Reclaimed, Seat, SeatParams, StoreClient, StoreConfig,
    StoreDaemon, StoreStats,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Tells a child what to do.
pub(crate) const ROLE: &str = "HELIOSTAT_STORE_ROLE";

#[derive(Serialize, Deserialize)]
pub(crate) enum FromChild {
    Lease(LeaseRequest),
    Free(Vec<Locator>),
    /// An object that was sealed: its id, place and the seed of its contents.
    Sealed(ObjectId, Locator, u64),
    /// An object that may be freed from now on.
    Leaving(ObjectId),
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

// ---------------------------------------------------------------- the child's side

pub(crate) struct PipeLink(Mutex<()>);

#[allow(clippy::print_stdout)] // a child talks to its parent that way
pub(crate) fn say(message: &FromChild) {
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

/// Joins the store that the parent offers; `wrap` may put something between the client and its link.
pub(crate) fn child_client(wrap: impl FnOnce(PipeLink) -> Arc<dyn DaemonLink>) -> StoreClient {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap();
    let start: Start = from_line(&line).unwrap();
    let open = |fd: i32, writable: bool| -> OwnedFd {
        let path = format!("/proc/{}/fd/{fd}", start.daemon);
        std::fs::OpenOptions::new().read(true).write(writable).open(path).unwrap().into()
    };
    let fds = start.fds.iter().enumerate().map(|(n, fd)| open(*fd, n != 1)).collect();
    let seat = Seat::from_parts(start.params, fds).unwrap();
    StoreClient::attach(seat, wrap(PipeLink(Mutex::new(())))).unwrap()
}

// ---------------------------------------------------------------- the parent's side

pub(crate) struct Node {
    pub(crate) daemon: Arc<Mutex<StoreDaemon>>,
}

pub(crate) struct Peer {
    pub(crate) client: u32,
    pub(crate) child: Child,
    pub(crate) watch: ProcessFd,
    pub(crate) events: Receiver<FromChild>,
}

/// What came of a child that was killed.
pub(crate) struct Killed {
    /// The sealed objects that it announced, less those that it may have freed.
    pub(crate) sealed: Vec<(ObjectId, Locator, u64)>,
    pub(crate) reclaimed: Reclaimed,
    /// From the kill until the daemon had everything back.
    pub(crate) took: Duration,
}

impl Node {
    pub(crate) fn new(capacity: u64) -> Self {
        let mut config = StoreConfig::new(capacity);
        config.slots = 1 << 16;
        Self::with(config)
    }

    pub(crate) fn with(config: StoreConfig) -> Self {
        Self { daemon: Arc::new(Mutex::new(StoreDaemon::create(config).unwrap())) }
    }

    pub(crate) fn daemon(&self) -> MutexGuard<'_, StoreDaemon> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn local(&self) -> StoreClient {
        let seat = self.daemon().join(Identity::current().unwrap()).unwrap();
        let link = LocalLink::new(Arc::clone(&self.daemon), seat.params.client);
        StoreClient::attach(seat, Arc::new(link)).unwrap()
    }

    /// Starts a child, which runs the test of this name and finds its role in the environment.
    pub(crate) fn spawn(&self, test: &str, role: &str) -> Peer {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
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

    /// Kills a child, reads what it had said, and lets the daemon clean up.
    pub(crate) fn kill(&self, mut peer: Peer) -> Killed {
        let start = Instant::now();
        peer.watch.kill().unwrap();
        while !peer.watch.wait(Duration::from_secs(1)) {}
        let mut sealed = Vec::new();
        for event in &peer.events {
            match event {
                FromChild::Sealed(id, locator, seed) => sealed.push((id, locator, seed)),
                FromChild::Leaving(gone) => sealed.retain(|(id, ..)| *id != gone),
                _ => {}
            }
        }
        let reclaimed = self.daemon().client_gone(peer.client);
        let took = start.elapsed();
        peer.child.wait().unwrap();
        Killed { sealed, reclaimed, took }
    }

    pub(crate) fn assert_accounts(&self) -> StoreStats {
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
    sender: &Sender<FromChild>,
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
    pub(crate) fn wait_ready(&self) -> Vec<(ObjectId, Locator, u64)> {
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
