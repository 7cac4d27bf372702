//! One process's side of the cluster: the state machine behind a lock, with its connections and its store.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use heliostat_proto::blob::{BlobView, write_plain};
use heliostat_proto::message::{NodeState, Role, ToDaemon, Welcome};
use heliostat_proto::{Blob, Failure, Locator, ObjectId, RefEntry, Value};
use heliostat_runtime::{Action, Core, Handle, Identity, Submission, Values, WaitId};
use heliostat_shm::bell::Ringer;
use heliostat_store::{DaemonLink, Pin, PinError, StoreClient};
use heliostat_wire::Channel;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::daemon_end::DaemonEnd;
use crate::envs::Envs;
use crate::error::ConnectError;
use crate::inline::Mover;
use crate::io;
use crate::output::Printer;
use crate::peers::{Handed, Peers};
use crate::ports::{Event, Notify, PortId, Ports};
use crate::restores::{Part, Restores};
use crate::rpc::Calls;
use crate::values::inline_max;
use crate::watch::Watch;

/// The event loop's other work waits for so long at most while messages follow each other.
const WATCHED: Duration = Duration::from_millis(1);
/// Stored values above this length are read as they are, not copied.
const MAX_SMALL: usize = 64 * 1024;

/// How a process joins.
pub struct ClientOptions {
    /// What it is.
    pub role: Role,
    /// Called on a thread of the client when the daemon's connection ends, unless [`Client::leave`] was called: the
    /// node is gone. Workers end their process here.
    pub on_node_gone: Box<dyn Fn() + Send + Sync>,
    /// Whether workers' lines are written to this process's standard output and error.
    pub print_output: bool,
    /// Whether lines that several workers write alike are counted instead of written each.
    pub fold_output: bool,
}

impl std::fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientOptions").field("role", &self.role).finish_non_exhaustive()
    }
}

/// How a blocking wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocked {
    /// All have a value, or one failed.
    Over,
    /// The time ran out.
    Late,
    /// The task that waited was aborted.
    Aborted,
}

/// A process's membership in a node.
#[derive(Debug)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

pub(crate) struct Shared {
    pub(crate) core: Mutex<Core>,
    /// Told whenever a wait is over.
    pub(crate) changed: Condvar,
    pub(crate) welcome: Welcome,
    pub(crate) store: StoreClient,
    pub(crate) daemon: Arc<DaemonEnd>,
    pub(crate) peers: Peers,
    /// How others wake this process.
    pub(crate) bell: Arc<Ringer>,
    pub(crate) watch: Watch,
    pub(crate) ports: Ports,
    pub(crate) states: Calls<NodeState>,
    pub(crate) restores: Restores,
    pub(crate) mover: Mover,
    me: Weak<Shared>,
    pub(crate) parts: Calls<Part>,
    pub(crate) places: Calls<Option<String>>,
    pub(crate) named: Calls<Result<RefEntry, Failure>>,
    pub(crate) envs: Mutex<Envs>,
    pub(crate) printer: Mutex<Option<Printer>>,
    pub(crate) stopping: AtomicBool,
    pub(crate) left: AtomicBool,
    pub(crate) gone: AtomicBool,
    pub(crate) on_node_gone: Box<dyn Fn() + Send + Sync>,
    /// Threads that block until objects are there.
    pub(crate) blocked: AtomicUsize,
    /// Whether tasks run here, whose CPU can be lent while they wait.
    pub(crate) lends: bool,
    started: Instant,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("worker", &self.welcome.worker).finish_non_exhaustive()
    }
}

impl Client {
    /// Joins the node behind `socket`: says hello, maps the store, starts the thread that reads.
    pub fn connect(socket: OwnedFd, options: ClientOptions) -> Result<Self, ConnectError> {
        let channel = Channel::new(socket)?;
        let (welcome, seat, bell, inbox) = crate::hello::hello(&channel, options.role)?;
        let daemon = Arc::new(DaemonEnd::new(channel)?);
        let link: Arc<dyn DaemonLink> = Arc::clone(&daemon) as _;
        let store = StoreClient::attach(seat, link)?;
        // Idle in a process that puts little, and half the price of a small put into fresh memory in one that puts much.
        store.prefault_in_background()?;
        let identity = Identity {
            worker: welcome.worker,
            node: welcome.node,
            epoch: welcome.epoch,
            job: welcome.job,
            seat: store.params().client,
        };
        let printer = || Printer::start(Arc::clone(&daemon), options.fold_output);
        let printer = options.print_output.then(printer).transpose()?;
        let envs = Envs::new(&welcome);
        let mover = Mover::new(inline_max(store.params().capacity));
        let shared = Arc::new_cyclic(|me| Shared {
            me: Weak::clone(me),
            mover,
            core: Mutex::new(Core::new(identity)),
            changed: Condvar::new(),
            welcome,
            store,
            daemon,
            peers: Peers::default(),
            bell: Arc::new(bell),
            watch: Watch::default(),
            ports: Ports::default(),
            states: Calls::default(),
            restores: Restores::default(),
            parts: Calls::default(),
            places: Calls::default(),
            named: Calls::default(),
            envs: Mutex::new(envs),
            printer: Mutex::new(printer),
            stopping: AtomicBool::new(false),
            left: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            on_node_gone: options.on_node_gone,
            blocked: AtomicUsize::new(0),
            lends: options.role != Role::Driver,
            started: Instant::now(),
        });
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name("heliostat-io".into()).spawn(move || io::run(&shared, inbox))?
        };
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// What the daemon said at the start.
    pub fn welcome(&self) -> &Welcome {
        &self.shared.welcome
    }

    /// The node's store.
    pub fn store(&self) -> &StoreClient {
        &self.shared.store
    }

    /// This process's seat in the store.
    pub fn seat(&self) -> u32 {
        self.shared.store.params().client
    }

    /// Whether the node ended.
    pub fn is_gone(&self) -> bool {
        self.shared.gone.load(Ordering::Acquire)
    }

    /// Runs an event of the state machine and does what it wants done.
    pub fn with_core<R>(&self, event: impl FnOnce(&mut Core) -> R) -> R {
        self.shared.with_core(event)
    }

    /// Milliseconds since the start, the clock of the state machine.
    pub fn now(&self) -> u64 {
        self.shared.now()
    }

    /// Opens the mailbox of a JavaScript thread; the first one gets the tasks.
    pub fn open_port(&self, notify: Notify) -> PortId {
        self.shared.ports.open(notify)
    }

    /// Opens the mailbox of a JavaScript thread whose event loop polls [`Self::loop_event`] and calls
    /// [`Self::loop_sleeps`], [`Self::loop_wakes`] and [`Self::serve`]. `None` when another thread's loop does so.
    /// `on_news` is called on whichever thread makes the first of some news, besides waking the loop.
    pub fn attend(&self, on_news: Notify) -> Option<PortId> {
        let bell = Arc::clone(&self.shared.bell);
        let notify = Box::new(move || {
            on_news();
            bell.call_loop();
        });
        self.shared.ports.open_attended(notify, || self.shared.bell.wake_up())
    }

    /// What the attending event loop polls for reading.
    pub fn loop_event(&self) -> BorrowedFd<'_> {
        self.shared.bell.at_loop()
    }

    /// The attending event loop is about to sleep. Returns whether it must not: there are news to [take](Self::serve).
    pub fn loop_sleeps(&self, port: PortId) -> bool {
        let Shared { bell, watch, ports, peers, .. } = &*self.shared;
        if watch.is_worth() {
            bell.watch();
            let end = Instant::now() + WATCHED;
            while !ports.has_events(port) && Instant::now() < end {
                let links = peers.open_links();
                if !watch.look(|| links.iter().any(|neighbour| neighbour.link.has_news())) {
                    break;
                }
                // What concerns no program, such as the next task of a chain, is done without leaving.
                self.shared.receive_all();
            }
        }
        bell.sleep();
        let busy = ports.has_events(port) || peers.have_news();
        if busy {
            bell.wake_up();
        } else {
            watch.sleeps();
        }
        busy
    }

    /// The attending event loop was woken, by whatever it was.
    pub fn loop_wakes(&self) {
        self.shared.bell.wake_up();
    }

    /// The attending event loop was woken by its event.
    pub fn loop_rung(&self) {
        self.shared.bell.hush_loop();
    }

    /// Takes what others sent, on the attending thread, and gives its news.
    pub fn serve(&self, port: PortId) -> Vec<Event> {
        self.shared.bell.wake_up();
        if self.shared.receive_all() {
            self.shared.watch.served();
        }
        self.shared.ports.take(port)
    }

    /// Closes a mailbox, and gives its waits and its streams up.
    pub fn close_port(&self, port: PortId) {
        let waits = self.shared.ports.close(port, || self.shared.bell.leave());
        let (streams, now) = (self.shared.ports.take_streams(port), self.now());
        self.with_core(|core| {
            for wait in waits {
                core.end_wait(wait);
            }
            for stream in streams {
                core.drop_stream(stream, now);
            }
        });
    }

    /// The news for a thread, oldest first.
    pub fn take_events(&self, port: PortId) -> Vec<Event> {
        self.shared.ports.take(port)
    }

    /// Takes what others sent, on whichever thread. Returns whether there was something.
    pub fn receive(&self) -> bool {
        self.shared.receive_all()
    }

    /// Waits in the background: `None` when there is nothing to wait for, else the port gets [`Event::Over`].
    pub fn wait(&self, port: PortId, handles: &[Handle], needed: usize, fail_fast: bool) -> Option<WaitId> {
        self.expect(port, |core| core.wait(handles, needed, fail_fast, &*self.shared))
    }

    /// Waits in the background for what `open` says; see [`Self::wait`].
    pub(crate) fn expect(&self, port: PortId, open: impl FnOnce(&mut Core) -> Option<WaitId>) -> Option<WaitId> {
        let wait = self.with_core(|core| {
            let wait = open(core)?;
            // Before the lock goes: the answer may come at once.
            self.shared.ports.expect(wait, port);
            Some(wait)
        })?;
        self.shared.look_at_waits();
        Some(wait)
    }

    /// Ends a wait: its references are no longer held by it.
    pub fn end_wait(&self, wait: WaitId) {
        self.shared.ports.forget(wait);
        self.with_core(|core| core.end_wait(wait));
        self.shared.look_at_waits();
    }

    /// Blocks the calling thread, whose port is given if it has one.
    pub fn block(&self, port: Option<PortId>, handles: &[Handle], timeout: Option<Duration>) -> Blocked {
        self.block_until(port, timeout, |core| core.wait(handles, handles.len(), true, &*self.shared))
    }

    /// Blocks the calling thread until what `open` waits for is there.
    pub(crate) fn block_until(
        &self,
        port: Option<PortId>,
        timeout: Option<Duration>,
        open: impl FnOnce(&mut Core) -> Option<WaitId>,
    ) -> Blocked {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let (wait, aborts) = self.with_core(|core| (open(core), core.aborts()));
        let Some(wait) = wait else { return Blocked::Over };
        self.shared.blocked.fetch_add(1, Ordering::AcqRel);
        self.shared.look_at_waits();
        let over = if port.is_some_and(|port| self.shared.ports.attends(port)) {
            self.block_attending(wait, deadline, aborts)
        } else {
            self.block_aside(wait, deadline, aborts)
        };
        self.with_core(|core| core.end_wait(wait));
        self.shared.blocked.fetch_sub(1, Ordering::AcqRel);
        self.shared.look_at_waits();
        over
    }

    /// Others serve what comes.
    fn block_aside(&self, wait: WaitId, deadline: Option<Instant>, aborts: u64) -> Blocked {
        let mut core = self.shared.lock_core();
        loop {
            if core.is_over(wait) || self.is_gone() {
                return Blocked::Over;
            }
            if core.aborts() != aborts {
                return Blocked::Aborted;
            }
            let changed = &self.shared.changed;
            core = match deadline {
                None => changed.wait(core).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Blocked::Late;
                    }
                    changed.wait_timeout(core, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// This thread's event loop would serve what comes: it does so here.
    fn block_attending(&self, wait: WaitId, deadline: Option<Instant>, aborts: u64) -> Blocked {
        let bell = &self.shared.bell;
        loop {
            bell.sleep();
            let news = self.shared.peers.have_news();
            let (over, aborted) = {
                let core = self.shared.lock_core();
                (core.is_over(wait) || self.is_gone(), core.aborts() != aborts)
            };
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let end = if over {
                Some(Blocked::Over)
            } else if aborted {
                Some(Blocked::Aborted)
            } else {
                (left == Some(Duration::ZERO) && !news).then_some(Blocked::Late)
            };
            if let Some(end) = end {
                bell.wake_up();
                // Whoever rang meanwhile believes that a loop comes soon; the program may now run for long.
                self.shared.receive_all();
                return end;
            }
            if !news {
                let mut fds = [PollFd::from_borrowed_fd(bell.at_loop(), PollFlags::IN)];
                // An interrupted or failed sleep is a short one.
                let _ = poll(&mut fds, left.and_then(|left| Timespec::try_from(left).ok()).as_ref());
            }
            bell.hush_loop();
            bell.wake_up();
            self.shared.receive_all();
        }
    }

    /// Keeps the bytes of a stored value in place while the pin lives.
    pub fn pin(&self, locator: &Locator) -> Result<Pin, PinError> {
        self.shared.store.pin(locator)
    }

    /// Submits a task; the references of its results can be used at once.
    pub fn submit(&self, submission: Submission) -> Vec<Handle> {
        let now = self.now();
        self.with_core(|core| core.submit(submission, now, &*self.shared))
    }

    /// Cancels the task that makes a reference's object.
    pub fn cancel(&self, handle: Handle, force: bool, recursive: bool) {
        let now = self.now();
        self.with_core(|core| core.cancel(handle, force, recursive, now));
        // Its fallback is a matter of time, which that thread looks at.
        self.shared.daemon.wake();
    }

    /// Copies a serialised value without references into `target` when it is here and fits; returns its length.
    pub fn read_small(&self, handle: Handle, target: &mut [u8]) -> Option<usize> {
        let value = {
            let mut core = self.shared.lock_core();
            if let Some(header) = core.small(handle) {
                return write_plain(header, target);
            }
            core.need(handle, &*self.shared);
            let value = core.value(handle);
            self.shared.perform(&mut core);
            value?
        };
        let mut copy = |bytes: &[u8]| {
            let place = target.get_mut(..bytes.len())?;
            BlobView::parse(bytes).is_ok_and(|view| view.ref_count() == 0).then(|| {
                place.copy_from_slice(bytes);
                bytes.len()
            })
        };
        match value {
            Value::Ready(Blob::Inline(bytes)) => copy(&bytes),
            Value::Ready(Blob::Stored(locator)) if locator.length as usize <= MAX_SMALL => {
                copy(self.pin(&locator).ok()?.bytes())
            }
            Value::Ready(Blob::Stored(_)) | Value::Failed(_) => None,
        }
    }

    /// Asks the daemon for the node's state; `None` when the node ended.
    pub fn node_state(&self) -> Option<NodeState> {
        let (request, answer) = self.shared.states.begin()?;
        self.shared.daemon.send(&ToDaemon::State { request });
        answer.recv().ok()
    }

    /// Leaves the node: blocks until the daemon has ended this driver's work and every line of its workers is written.
    pub fn leave(&self) {
        self.shared.left.store(true, Ordering::Release);
        // It writes to the store, which is not this process's any more afterwards.
        self.shared.mover.end();
        self.shared.daemon.send(&ToDaemon::Leave);
        // The io thread ends with the daemon's goodbye, or with the connection.
        self.join();
    }

    /// Ends the threads without a goodbye, for a process that exits.
    pub fn abandon(&self) {
        self.shared.left.store(true, Ordering::Release);
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.mover.end();
        self.shared.daemon.wake();
        self.join();
    }

    /// Answers the daemon's question where this program made what it holds in the store.
    pub fn tell_sites(&self, request: u64, sites: Vec<String>) {
        self.shared.daemon.send(&ToDaemon::Sites { request, sites });
    }

    fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic there has been reported by the panic hook.
            let _ = thread.join();
        }
        let printer = self.shared.printer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(printer) = printer {
            printer.finish();
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.abandon();
    }
}

impl Shared {
    /// Has the thread that reads look whether the task here waits now, in a process where that matters.
    pub(crate) fn look_at_waits(&self) {
        if self.lends {
            self.daemon.wake();
        }
    }

    pub(crate) fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    pub(crate) fn lock_core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn with_core<R>(&self, event: impl FnOnce(&mut Core) -> R) -> R {
        let mut core = self.lock_core();
        let result = event(&mut core);
        self.perform(&mut core);
        result
    }

    /// Does what the state machine wants, in order and under its lock, so that messages leave in the order of events.
    pub(crate) fn perform(&self, core: &mut Core) {
        let mut freed = Vec::new();
        let mut woken = false;
        for action in core.take_actions() {
            match action {
                Action::Send { peer, message } if peer == self.welcome.keeper => {
                    self.daemon.send(&ToDaemon::ToKeeper(message));
                }
                Action::Send { peer, message } => {
                    if self.peers.send(peer, message) == Handed::Connect {
                        self.daemon.send(&ToDaemon::Connect { request: 0, peer });
                    }
                }
                Action::Daemon(message) => self.daemon.send(&message),
                Action::Free(locator) => freed.push(locator),
                Action::Wake(wait) => {
                    woken = true;
                    self.ports.wait_over(wait);
                }
                // That thread keeps the time.
                Action::Tick => self.daemon.wake(),
                Action::Execute(_) | Action::Forgotten => self.ports.tell_main(Event::Task),
                Action::Abort => {
                    woken = true;
                    self.ports.tell_main(Event::Abort);
                }
                Action::Unread => self.ports.tell_main(Event::Unread),
            }
        }
        if woken && self.blocked.load(Ordering::Acquire) > 0 {
            self.changed.notify_all();
            self.bell.call_loop();
        }
        if !freed.is_empty() {
            self.daemon.send(&ToDaemon::StoreFree { locators: freed });
        }
        self.mover.look(core.inline_bytes(), &self.me);
    }

    /// The node ended: everything that waits learns it.
    pub(crate) fn node_gone(&self) {
        if self.gone.swap(true, Ordering::AcqRel) {
            return;
        }
        self.daemon.leases.end();
        self.states.end();
        self.end_restores();
        self.named.end();
        let failure = Failure::new("NODE_DIED", "the node's daemon ended")
            .hint("the driver that started the embedded node, or the `heliostat start` process, is gone: start again");
        self.with_core(|core| core.on_node_gone(&failure));
        self.tell_gone();
        if !self.left.load(Ordering::Acquire) {
            (self.on_node_gone)();
        }
    }
}

impl Values for Shared {
    fn refs_of(&self, blob: &Blob) -> Vec<RefEntry> {
        let read = |bytes: &[u8]| BlobView::parse(bytes).map(|view| view.refs().collect()).unwrap_or_default();
        match blob {
            Blob::Inline(bytes) => read(bytes),
            Blob::Stored(locator) => self.store.pin(locator).map(|pin| read(pin.bytes())).unwrap_or_default(),
        }
    }

    fn lookup(&self, id: &ObjectId) -> Option<Locator> {
        self.store.lookup(id)
    }
}
