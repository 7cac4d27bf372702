//! Reading one stream of a worker.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use heliostat_proto::WorkerId;
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::daemon::{Daemon, Shared};
use crate::output::{Splitter, Stream};
use crate::watch::watch;

/// Bytes read by one call.
const CHUNK: usize = 64 * 1024;
/// Calls by which a pipe is emptied at once; a pipe holds that much at most, unless somebody goes on writing.
const DRAIN_CALLS: usize = 16;

/// A worker's standard output or standard error.
#[derive(Debug)]
pub(crate) struct Pipe {
    stream: Stream,
    fd: AsyncFd<OwnedFd>,
    splitter: RefCell<Splitter>,
    latest: Cell<Instant>,
    /// Not read because the driver has much to read already.
    held: Cell<bool>,
    closed: Cell<bool>,
    /// Told when it is read to its end or given up.
    pub(crate) done: Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    Some,
    Nothing,
    End,
}

impl Pipe {
    pub(crate) fn new(stream: Stream, fd: OwnedFd, marker: &[u8; 16]) -> std::io::Result<Rc<Self>> {
        Ok(Rc::new(Self {
            stream,
            fd: watch(fd, Interest::READABLE)?,
            splitter: RefCell::new(Splitter::new(marker)),
            latest: Cell::new(Instant::now()),
            held: Cell::new(false),
            closed: Cell::new(false),
            done: Notify::new(),
        }))
    }

    /// Reads to the end, no faster than the driver takes it.
    pub(crate) async fn read(self: Rc<Self>, shared: Shared, worker: WorkerId) {
        while !self.closed.get() {
            let reader = {
                let daemon = shared.borrow();
                let driver = daemon.reader_of(worker);
                driver.and_then(|id| daemon.processes.get(&id)).map(|process| Rc::clone(&process.conn))
            };
            if let Some(conn) = reader {
                self.held.set(true);
                conn.until_not_busy().await;
                self.held.set(false);
            }
            tokio::select! {
                ready = self.fd.readable() => {
                    let Ok(mut ready) = ready else { break };
                    match self.take(&mut shared.borrow_mut(), worker) {
                        Read::Some => {}
                        Read::Nothing => ready.clear_ready(),
                        Read::End => self.closed.set(true),
                    }
                }
                () = self.done.notified() => {}
            }
            tokio::task::yield_now().await;
        }
        self.closed.set(true);
        self.done.notify_one();
    }

    /// Reads what is there now.
    pub(crate) fn drain(&self, daemon: &mut Daemon, worker: WorkerId) {
        for _ in 0..DRAIN_CALLS {
            if self.closed.get() || self.take(daemon, worker) != Read::Some {
                break;
            }
        }
    }

    /// The last line, when the stream ended without a line feed.
    pub(crate) fn finish(&self, daemon: &mut Daemon, worker: WorkerId) {
        let pieces = self.splitter.borrow_mut().finish();
        daemon.deliver(worker, self.stream, pieces);
    }

    /// Reads no more, although somebody holds the other end.
    pub(crate) fn abandon(&self) {
        self.closed.set(true);
        self.done.notify_one();
    }

    pub(crate) fn is_done(&self) -> bool {
        self.closed.get()
    }

    /// Whether what is there is not read, because the driver has much to read already.
    pub(crate) fn is_held(&self) -> bool {
        self.held.get()
    }

    /// When something came last; now, while something may be there that is not read.
    pub(crate) fn latest_activity(&self) -> Instant {
        if self.is_held() { Instant::now() } else { self.latest.get() }
    }

    fn take(&self, daemon: &mut Daemon, worker: WorkerId) -> Read {
        let mut scratch = std::mem::take(&mut daemon.scratch);
        scratch.resize(CHUNK, 0);
        let result = rustix::io::read(self.fd.get_ref(), &mut scratch[..]);
        let read = match result {
            Ok(0) => Read::End,
            Ok(count) => {
                self.latest.set(Instant::now());
                let mut splitter = self.splitter.borrow_mut();
                let before = splitter.name().to_owned();
                let pieces = splitter.feed(&scratch[..count]);
                if splitter.name() != before
                    && let Some(child) = daemon.children.get_mut(&worker)
                {
                    splitter.name().clone_into(&mut child.name);
                }
                daemon.deliver(worker, self.stream, pieces);
                Read::Some
            }
            Err(Errno::AGAIN) => Read::Nothing,
            Err(Errno::INTR) => Read::Some,
            Err(_) => Read::End,
        };
        daemon.scratch = scratch;
        read
    }
}
