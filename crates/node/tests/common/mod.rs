//! A process that talks to a node, and a stand-in for a worker: this very test program, started again.
#![allow(unreachable_pub, dead_code)] // several test programs use parts of it
#![allow(clippy::exit, clippy::disallowed_methods, clippy::zombie_processes)] // a stand-in does what tasks do

use std::collections::VecDeque;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use heliostat_node::{Node, NodeConfig, NodeHandle, WorkerCommand};
use heliostat_proto::message::{
    FromDaemon, PROTOCOL_VERSION, Patience, Resources, Role, TaskSpec, ToDaemon, ToPeer, Welcome,
};
use heliostat_proto::{Blob, Bytes, EnvId, JobId, Locator, TaskId, Value, WorkerId};
use heliostat_shm::bell::Ringer;
use heliostat_shm::ring::Side;
use heliostat_wire::{Channel, ChannelError, Inbox, Link, Sent};
use rustix::event::{PollFd, PollFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A test that waits this long for one thing hangs.
const WATCHDOG: Duration = Duration::from_secs(120);

/// Waits until a condition holds.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < WATCHDOG, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn cpus(count: f64) -> Resources {
    Resources::new([("CPU".to_owned(), count)])
}

/// A node whose workers are stand-ins.
pub fn config(temp: &Path, cpu: f64) -> NodeConfig {
    let program = std::env::current_exe().expect("this test program");
    let args = ["--exact", "stand_in", "--nocapture", "--test-threads=1"];
    let mut worker = WorkerCommand::new(program, args);
    worker.env.push(("HELIOSTAT_STAND_IN".into(), "1".into()));
    NodeConfig::new(temp, cpus(cpu), 64 << 20, worker)
}

/// A node whose workers are a shell script.
pub fn shell_config(temp: &Path, script: &str) -> NodeConfig {
    NodeConfig::new(temp, cpus(2.0), 64 << 20, WorkerCommand::new("/bin/sh", ["-c", script]))
}

pub fn start(config: NodeConfig) -> NodeHandle {
    Node::start(config).expect("the node starts")
}

/// One end of a connection, waiting where the real ones do not.
#[derive(Debug)]
pub struct Line {
    pub channel: Channel,
    pub inbox: Inbox,
}

impl Line {
    pub fn new(socket: OwnedFd) -> Self {
        Self { channel: Channel::new(socket).expect("a socket"), inbox: Inbox::default() }
    }

    pub fn dial(path: &Path) -> Self {
        Self::new(std::os::unix::net::UnixStream::connect(path).expect("the node listens").into())
    }

    pub fn send<M: Serialize>(&self, message: &M) {
        let mut sent = self.channel.send(message, Vec::new()).expect("the other end lives");
        while sent == Sent::Waiting {
            wait_for(self.channel.as_fd(), PollFlags::OUT);
            sent = self.channel.flush().expect("the other end lives");
        }
    }

    /// The next message; `None` when the other end is closed.
    pub fn receive<M: DeserializeOwned>(&mut self) -> Option<M> {
        loop {
            if let Some(message) = self.inbox.next().expect("a message") {
                return Some(message);
            }
            wait_for(self.channel.as_fd(), PollFlags::IN);
            match self.channel.receive(&mut self.inbox) {
                Ok(_) => {}
                Err(ChannelError::Closed) => return self.inbox.next().expect("a message"),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// One side of a link to another process.
#[derive(Debug)]
pub struct Peer {
    link: Link,
    bell: Rc<Ringer>,
    came: VecDeque<ToPeer>,
}

impl Peer {
    /// Opens the link that a message just read brings.
    fn open(side: Side, inbox: &mut Inbox, bell: &Rc<Ringer>) -> Self {
        let fds = inbox.take_fds().expect("the message brings a link");
        Self { link: Link::open(side, fds).expect("a link"), bell: Rc::clone(bell), came: VecDeque::new() }
    }

    pub fn send(&self, message: &ToPeer) {
        self.link.send(message).expect("the other side follows the protocol");
    }

    /// What came, without waiting.
    pub fn look(&mut self) -> Option<ToPeer> {
        let came = &mut self.came;
        self.link.receive(|messages: Vec<ToPeer>| came.extend(messages)).expect("messages");
        self.came.pop_front()
    }

    pub fn receive(&mut self) -> ToPeer {
        loop {
            self.bell.listen();
            if let Some(message) = self.look() {
                return message;
            }
            wait_for(self.bell.at_thread(), PollFlags::IN);
            self.bell.hush_thread();
        }
    }
}

#[track_caller]
fn wait_for(channel: BorrowedFd<'_>, flags: PollFlags) {
    let start = Instant::now();
    loop {
        let mut fds = [PollFd::from_borrowed_fd(channel, flags)];
        let timeout = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
        if matches!(rustix::event::poll(&mut fds, Some(&timeout)), Ok(1..)) {
            return;
        }
        assert!(start.elapsed() < WATCHDOG, "nothing came");
    }
}

/// A process that said hello.
#[derive(Debug)]
pub struct Client {
    pub line: Line,
    pub welcome: Welcome,
    pub seat: Vec<OwnedFd>,
    pub bell: Rc<Ringer>,
    /// Messages that came while another one was waited for.
    pub later: Vec<FromDaemon>,
    requests: u64,
}

/// A worker that was leased, and the link to it.
#[derive(Debug)]
pub struct Leased {
    pub lease: u64,
    pub worker: WorkerId,
    pub pid: u32,
    pub line: Peer,
}

impl Client {
    pub fn driver(node: &NodeHandle) -> Self {
        Self::join(Line::new(node.connect().expect("the node runs")), Role::Driver)
    }

    pub fn join(mut line: Line, role: Role) -> Self {
        line.send(&ToDaemon::Hello { version: PROTOCOL_VERSION, role });
        match line.receive() {
            Some(FromDaemon::Welcome(welcome)) => {
                let params: heliostat_store::SeatParams =
                    heliostat_proto::frame::read(&welcome.seat).expect("the numbers of a seat");
                let seat = (0..params.descriptors()).map(|_| line.inbox.take_fd().expect("a seat")).collect();
                let bell = Ringer::open(line.inbox.take_fds().expect("a bell")).expect("a bell");
                Self { line, welcome: *welcome, seat, bell: Rc::new(bell), later: Vec::new(), requests: 0 }
            }
            other => panic!("not welcome: {other:?}"),
        }
    }

    pub fn send(&self, message: &ToDaemon) {
        self.line.send(message);
    }

    /// The first message that `pick` takes; others are kept for later.
    #[track_caller]
    pub fn expect<T>(&mut self, what: &str, mut pick: impl FnMut(&FromDaemon) -> Option<T>) -> T {
        if let Some(at) = self.later.iter().position(|message| pick(message).is_some()) {
            return pick(&self.later.remove(at)).expect("picked a moment ago");
        }
        loop {
            let Some(message) = self.line.receive::<FromDaemon>() else {
                panic!("the connection ended before {what}; before that came {:?}", self.later);
            };
            if let FromDaemon::Output { lines, .. } = &message {
                self.send(&ToDaemon::Printed { bytes: lines.len() as u64 });
            }
            if let Some(picked) = pick(&message) {
                return picked;
            }
            self.later.push(message);
        }
    }

    /// Waits until the node closes the connection.
    pub fn expect_end(&mut self) {
        while self.line.receive::<FromDaemon>().is_some() {}
    }

    pub fn request(&mut self, resources: Resources) -> u64 {
        self.request_in(resources, EnvId::default())
    }

    /// Requests a worker of an environment.
    pub fn request_in(&mut self, resources: Resources, env: EnvId) -> u64 {
        self.requests += 1;
        self.send(&ToDaemon::RequestLease { request: self.requests, resources, env });
        self.requests
    }

    /// Opens the link that the message just read brings.
    pub fn peer(&mut self, side: Side) -> Peer {
        Peer::open(side, &mut self.line.inbox, &self.bell)
    }

    /// Leases a worker that this process is not linked to yet.
    #[track_caller]
    pub fn lease(&mut self, resources: Resources) -> Leased {
        let wanted = self.request(resources);
        let (lease, worker, pid) = self.expect("a lease", |message| match message {
            FromDaemon::LeaseGranted { request, lease, worker, pid, connect: true } if *request == wanted => {
                Some((*lease, *worker, *pid))
            }
            FromDaemon::LeaseRefused { failure, .. } => panic!("{failure:?}"),
            _ => None,
        });
        let line = self.peer(Side::Near);
        Leased { lease, worker, pid, line }
    }
}

impl Leased {
    /// Lets the stand-in do something under a name, without waiting for its end.
    pub fn start(&self, name: &str, command: &str) {
        let spec = TaskSpec {
            task: TaskId::root(WorkerId([1; 16])),
            attempt: 0,
            job: JobId::default(),
            name: name.to_owned(),
            function: [0; 32],
            args: Blob::Inline(Bytes::new(command.as_bytes())),
            by_ref: Vec::new(),
            follows: Vec::new(),
            returns: None,
            stream: None,
            seat: 0,
            timed: false,
            retries_errors: false,
        };
        self.line.send(&ToPeer::Run(Box::new(spec)));
    }

    /// Lets the stand-in do something, and waits for its answer.
    pub fn run(&mut self, name: &str, command: &str) -> String {
        self.start(name, command);
        match self.line.receive() {
            ToPeer::Done { values, .. } => match &values[..] {
                [Value::Ready(Blob::Inline(bytes))] => String::from_utf8_lossy(bytes).into_owned(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }
}

/// The body of each test program's `stand_in` test: nothing, unless a node started this process as its worker.
pub fn stand_in() {
    if std::env::var_os("HELIOSTAT_STAND_IN").is_none() {
        return;
    }
    let socket = std::env::var_os("HELIOSTAT_SOCKET").expect("the node says where it is");
    let token = std::env::var("HELIOSTAT_WORKER_TOKEN").expect("the node gives a token");
    let token = u128::from_str_radix(&token, 16).expect("32 hexadecimal digits");
    let mut node = Client::join(Line::dial(Path::new(&socket)), Role::Worker { token });
    let mut peers: Vec<Peer> = Vec::new();
    let mut held = Vec::new();
    loop {
        let mut fds = [
            PollFd::new(&node.line.channel, PollFlags::IN),
            PollFd::from_borrowed_fd(node.bell.at_thread(), PollFlags::IN),
        ];
        rustix::event::poll(&mut fds, None).expect("poll");
        let [from_node, rung] = fds.map(|fd| !fd.revents().is_empty());
        if from_node {
            if node.line.channel.receive(&mut node.line.inbox).is_err() {
                std::process::exit(0);
            }
            while let Some(message) = node.line.inbox.next::<FromDaemon>().expect("a message") {
                if let FromDaemon::Peer { .. } = message {
                    peers.push(node.peer(Side::Far));
                }
            }
        }
        if rung {
            node.bell.hush_thread();
            node.bell.listen();
        }
        for peer in &mut peers {
            while let Some(message) = peer.look() {
                let ToPeer::Run(spec) = message else { panic!("{message:?}") };
                let Blob::Inline(command) = &spec.args else { panic!("{spec:?}") };
                let said = obey(&mut node, &mut held, &spec.name, &String::from_utf8_lossy(command));
                let value = Value::Ready(Blob::Inline(Bytes::new(said.into_bytes())));
                peer.send(&ToPeer::Done { task: spec.task, attempt: 0, values: vec![value], nanos: 0, again: false });
            }
        }
    }
}

/// Does what a task would do.
fn obey(node: &mut Client, held: &mut Vec<Vec<u8>>, name: &str, command: &str) -> String {
    let marker = format!("\x1e{} {name}\n", std::env::var("HELIOSTAT_MARKER").expect("the node gives a marker"));
    std::io::stdout().write_all(marker.as_bytes()).expect("stdout");
    std::io::stderr().write_all(marker.as_bytes()).expect("stderr");
    let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
    match verb {
        "echo" => rest.to_owned(),
        "print" => {
            std::io::stdout().write_all(rest.as_bytes()).expect("stdout");
            std::io::stdout().flush().expect("stdout");
            String::new()
        }
        "complain" => {
            std::io::stderr().write_all(rest.as_bytes()).expect("stderr");
            String::new()
        }
        "pid" => std::process::id().to_string(),
        "count" => {
            let mut out = std::io::BufWriter::new(std::io::stdout());
            for n in 0..rest.parse::<u64>().expect("a number") {
                writeln!(out, "{n}").expect("stdout");
            }
            out.flush().expect("stdout");
            String::new()
        }
        "hold" => {
            let bytes = rest.parse::<usize>().expect("a number of MiB") << 20;
            held.push(std::hint::black_box(vec![1_u8; bytes]));
            String::new()
        }
        "lend" => {
            node.send(&ToDaemon::Lends(true));
            String::new()
        }
        "child" => {
            let mut sleep = std::process::Command::new("sleep");
            sleep.arg("1000").spawn().expect("sleep").id().to_string()
        }
        "disconnect" => {
            rustix::net::shutdown(&node.line.channel, rustix::net::Shutdown::Both).expect("a socket");
            loop {
                std::thread::sleep(Duration::from_secs(1000));
            }
        }
        "free" => {
            let mut numbers = rest.split(' ').map(|number| number.parse::<u64>().expect("a number"));
            let mut next = || numbers.next().expect("five numbers");
            let (segment, slot, offset, length) = (next() as u32, next() as u32, next(), next());
            let locator = Locator { segment, slot, offset, length, generation: next() as u32 };
            node.send(&ToDaemon::StoreFree { locators: vec![locator] });
            std::process::exit(0)
        }
        "exit" => std::process::exit(rest.parse().expect("a code")),
        "hang" => loop {
            std::thread::sleep(Duration::from_secs(1000));
        },
        "orphan" => {
            // Holds both pipes, in a group of its own.
            let mut shell = std::process::Command::new("/bin/sh");
            std::os::unix::process::CommandExt::process_group(&mut shell, 0);
            shell.args(["-c", rest]).spawn().expect("a shell").id().to_string()
        }
        "waiting" => {
            node.send(&ToDaemon::Waiting(rest == "true"));
            String::new()
        }
        "lease" => {
            let wanted = node.request(cpus(rest.parse().expect("a number")));
            let pid = node.expect("a lease", |message| match message {
                FromDaemon::LeaseGranted { request, pid, .. } if *request == wanted => Some(*pid),
                _ => None,
            });
            pid.to_string()
        }
        "me" => node.welcome.worker.to_string(),
        other => panic!("no such command: {other}"),
    }
}

/// Asks a node for memory over a connection that nobody else uses.
#[derive(Debug)]
pub struct OverSocket {
    line: std::sync::Mutex<Line>,
    /// How long requests wait for room.
    pub patience: std::sync::Mutex<Patience>,
}

impl OverSocket {
    pub fn new(line: Line) -> Self {
        Self { line: std::sync::Mutex::new(line), patience: std::sync::Mutex::default() }
    }

    /// Ends the connection as a death would: without a word.
    pub fn hang_up(&self) {
        rustix::net::shutdown(&self.line().channel, rustix::net::Shutdown::Both).expect("a socket");
    }

    fn line(&self) -> std::sync::MutexGuard<'_, Line> {
        self.line.lock().expect("no test panicked with it")
    }
}

impl heliostat_store::DaemonLink for OverSocket {
    fn lease(
        &self,
        request: heliostat_store::LeaseRequest,
    ) -> Result<heliostat_store::LeaseGrant, heliostat_store::LeaseError> {
        let patience = *self.patience.lock().expect("no test panicked with it");
        let mut line = self.line();
        let body = postcard::to_stdvec(&request).expect("plain data");
        line.send(&ToDaemon::StoreLease { request: 0, body, patience });
        loop {
            match line.receive() {
                Some(FromDaemon::StoreLeased { body, .. }) => return postcard::from_bytes(&body).expect("an answer"),
                Some(_) => {}
                None => panic!("the node is gone"),
            }
        }
    }

    fn free(&self, locators: &[Locator]) {
        // After the end of the connection there is nobody to tell.
        let _ = self.line().channel.send(&ToDaemon::StoreFree { locators: locators.to_vec() }, Vec::new());
    }
}

/// Bytes of an object on whole pages.
pub const LARGE: usize = 300_000;

/// A driver with the store on its side.
pub struct Storing {
    pub store: heliostat_store::StoreClient,
    pub id: WorkerId,
    pub link: std::sync::Arc<OverSocket>,
}

impl Storing {
    pub fn new(node: &NodeHandle) -> Self {
        let Client { line, welcome, seat, .. } = Client::driver(node);
        let params: heliostat_store::SeatParams = postcard::from_bytes(&welcome.seat).unwrap();
        let seat = heliostat_store::Seat::from_parts(params, seat).unwrap();
        let link = std::sync::Arc::new(OverSocket::new(line));
        Self { store: heliostat_store::StoreClient::attach(seat, link.clone()).unwrap(), id: welcome.worker, link }
    }

    pub fn object(&self, index: u32) -> heliostat_proto::ObjectId {
        TaskId::root(self.id).object(index)
    }

    pub fn put(&self, index: u32) -> Locator {
        self.store.put(self.object(index), &vec![7; LARGE]).unwrap()
    }
}

/// Whether a process exists that runs (a zombie does not).
pub fn runs(pid: u32) -> bool {
    heliostat_shm::process::Identity::of(pid).is_ok()
}

pub fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("not 0");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it lives");
}

/// Processes whose parent is this one, zombies included.
pub fn children() -> Vec<u32> {
    let own = std::process::id();
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_ascii_whitespace().nth(1));
        parent.is_some_and(|parent| parent == own.to_string())
    })
    .collect()
}
