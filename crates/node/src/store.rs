//! The node's object store, as the rest of the daemon sees it.
//!
//! Short work is done on the event loop. To reserve the pages of a large object takes a third of a millisecond for each
//! MiB: that is done by a thread of its own, and whatever comes meanwhile queues up there, so that workers' ends, leases
//! and output never wait for somebody's gigabyte.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use heliostat_proto::message::{FromDaemon, NodeState, SpillingState};
use heliostat_proto::{Failure, Locator, WorkerId};
use heliostat_shm::process::Identity;
use heliostat_store::StoreDaemon;
use tokio::sync::oneshot;

use crate::daemon::{Daemon, Shared};
use crate::spilling::Traces;

/// How often objects that were pinned when they were freed are looked at again.
const SWEEP_PERIOD: Duration = Duration::from_millis(100);
/// Requests for more bytes than this are long work.
pub(crate) const SHORT_MAX: u64 = 4 << 20;

/// Why an answer of the store's thread cannot fail to come: when it panicked, the node cannot go on either.
const STORE_ENDS_LAST: &str = "the store's thread ends only when nobody can give it work";

/// Work for the store's thread.
pub(crate) type Job = Box<dyn FnOnce(&mut StoreDaemon) + Send>;

/// The store's daemon, which the event loop and the store's thread use in turn.
#[derive(Debug)]
pub(crate) struct Inner {
    daemon: Mutex<StoreDaemon>,
    /// Jobs that were given to the thread and are not done. The loop stays away from the lock until there are none.
    queued: AtomicUsize,
}

/// The store as the event loop has it.
#[derive(Debug)]
pub(crate) struct Store {
    inner: Arc<Inner>,
    jobs: Sender<Job>,
    /// Processes that joined so far.
    joined: u64,
    /// Something was freed since the last sweep, or is still pinned after it.
    sweeping: bool,
}

/// What a process needs to work with the store.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) client: u32,
    pub(crate) params: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

/// A result, now or soon.
#[derive(Debug)]
pub(crate) enum Work<T> {
    Done(T),
    Later(oneshot::Receiver<T>),
}

impl Inner {
    pub(crate) fn new(daemon: StoreDaemon) -> Arc<Self> {
        Arc::new(Self { daemon: Mutex::new(daemon), queued: AtomicUsize::new(0) })
    }

    /// The body of the store's thread: works until nobody can give any more.
    pub(crate) fn run(&self, jobs: &Receiver<Job>) {
        for job in jobs {
            job(&mut self.daemon.lock().unwrap_or_else(PoisonError::into_inner));
            self.queued.fetch_sub(1, Ordering::Release);
        }
    }
}

impl Store {
    pub(crate) fn new(inner: Arc<Inner>, jobs: Sender<Job>) -> Self {
        Self { inner, jobs, joined: 0, sweeping: false }
    }

    /// Does short work now, if nothing is queued, and long work on the store's thread.
    pub(crate) fn work<T, F>(&self, long: bool, work: F) -> Work<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut StoreDaemon) -> T + Send + 'static,
    {
        if !long && self.inner.queued.load(Ordering::Acquire) == 0 {
            return Work::Done(work(&mut self.inner.daemon.lock().unwrap_or_else(PoisonError::into_inner)));
        }
        let (sender, receiver) = oneshot::channel();
        self.inner.queued.fetch_add(1, Ordering::Relaxed);
        let job: Job = Box::new(move |daemon| {
            // Whoever asked may be gone by now.
            let _ = sender.send(work(daemon));
        });
        assert!(self.jobs.send(job).is_ok(), "{STORE_ENDS_LAST}");
        Work::Later(receiver)
    }

    /// Gives a process a seat.
    pub(crate) fn join(&self, pid: u32) -> Work<Result<Seat, Failure>> {
        self.work(false, move |daemon| {
            let refuse = |error: &dyn std::error::Error| {
                Failure::new("TRANSPORT", format!("the node's store has no place for process {pid}: {error}"))
            };
            let identity = Identity::of(pid).map_err(|error| refuse(&error))?;
            let seat = daemon.join(identity).map_err(|error| refuse(&error))?;
            let params = postcard::to_stdvec(&seat.params).map_err(|error| refuse(&error))?;
            Ok(Seat { client: seat.params.client, params, fds: seat.into_fds() })
        })
    }

    /// Tells the lives of this node's processes apart.
    pub(crate) fn next_epoch(&mut self) -> u64 {
        self.joined += 1;
        self.joined
    }

    /// Takes a seat back; the objects that its process owned go with it. Results that it made for others are theirs.
    pub(crate) fn leave(&self, client: u32) -> Work<Traces> {
        self.work(true, move |daemon| {
            // An error says that the table's extent is unknown; the objects then stay until the node ends.
            let owned = daemon.owned_by(client).unwrap_or_default();
            let locators: Vec<Locator> = owned.into_iter().map(|(_, locator)| locator).collect();
            daemon.free(&locators);
            daemon.client_gone(client);
            Traces::of(daemon)
        })
    }
}

impl<T> Work<T> {
    /// The result.
    async fn wait(self) -> T {
        match self {
            Self::Done(result) => result,
            Self::Later(receiver) => receiver.await.expect(STORE_ENDS_LAST),
        }
    }
}

impl Daemon {
    /// Goes on with a result as soon as it is there.
    pub(crate) fn when<T: 'static>(&mut self, work: Work<T>, then: impl FnOnce(&mut Self, T) + 'static) {
        match work {
            Work::Done(result) => then(self, result),
            Work::Later(receiver) => {
                let me = self.me.clone();
                self.tasks.spawn(async move {
                    let result = receiver.await.expect(STORE_ENDS_LAST);
                    if let Some(daemon) = me.upgrade() {
                        then(&mut daemon.borrow_mut(), result);
                    }
                });
            }
        }
    }

    /// Takes objects out of the store; those that somebody still reads are looked at again until nobody does.
    pub(crate) fn free_objects(&mut self, locators: Vec<Locator>) {
        let work = self.store.work(false, move |daemon| {
            daemon.free(&locators);
            Traces::of(daemon)
        });
        self.when(work, |daemon, traces| {
            daemon.note(traces);
            daemon.room_was_made();
        });
        if !std::mem::replace(&mut self.store.sweeping, true) {
            self.sweep_later();
        }
    }

    /// An object shall outlive the process that made it. One that is gone already will be found missing by its readers.
    pub(crate) fn adopt_object(&mut self, locator: Locator) {
        self.store.work(false, move |daemon| daemon.adopt(&locator));
    }

    /// Gives free pages of the store back to the system, where memory is short.
    pub(crate) fn give_pages_back(&mut self, at_most: u64) {
        let work = self.store.work(true, move |store| store.punch(at_most));
        // A refusal to punch holes leaves the pages where they are.
        self.when(work, |daemon, given| daemon.memory.gave_back(given.unwrap_or(0)));
    }

    fn sweep_later(&self) {
        self.after(SWEEP_PERIOD, |daemon| {
            let work = daemon.store.work(false, |store| {
                let swept = store.sweep_deferred();
                (swept, store.deferred_objects(), Traces::of(store))
            });
            daemon.when(work, |daemon, (swept, deferred, traces)| {
                daemon.note(traces);
                if swept > 0 {
                    daemon.room_was_made();
                }
                daemon.store.sweeping = deferred > 0;
                if deferred > 0 {
                    daemon.sweep_later();
                }
            });
        });
    }

    /// Tells the node's state to a process.
    pub(crate) fn tell_state(&mut self, to: WorkerId, request: u64) {
        let work = self.store.work(false, |store| store.stats());
        self.when(work, move |daemon, stats| {
            let state = NodeState {
                capacity: stats.capacity,
                used: stats.small + stats.large,
                objects: stats.objects,
                pins: stats.pins,
                drafts: stats.drafts,
                copied: stats.copied,
                spilled: stats.spilled,
                spilled_objects: stats.spilled_objects,
                in_file: stats.file,
                spilling: SpillingState { waiting: daemon.room.waiting(), ..daemon.spilling.state() },
                ..daemon.state()
            };
            daemon.send(to, FromDaemon::State { request, state: Box::new(state) }, Vec::new());
        });
    }

    /// A seat for a process, as soon as the store has time.
    pub(crate) async fn seat(shared: &Shared, pid: u32) -> Result<Seat, Failure> {
        let work = shared.borrow().store.join(pid);
        work.wait().await
    }
}
