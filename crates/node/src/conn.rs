//! One connection to a process: its outbox is bounded, and nobody waits for it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use heliostat_proto::message::{FromDaemon, ToDaemon, ToPeer};
use heliostat_proto::{Blob, Value};
use heliostat_wire::{Channel, ChannelError, Inbox, Sent};
use rustix::io::Errno;
use rustix::net::Shutdown;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::watch::watch;

/// A process that leaves more than this unread is taken for one that will never read it.
const OUTBOX_MAX: usize = 64 << 20;
/// Workers' output waits in their pipes while their driver has more than this to read, or to write where it belongs.
const OUTBOX_BUSY: usize = 4 << 20;
/// Bytes that may arrive before the first message is whole.
pub(crate) const HELLO_MAX: usize = 64 * 1024;
/// How long a connection that ends waits for its last messages to be taken.
const LINGER: Duration = Duration::from_secs(5);
/// What a message counts for besides its variable parts.
const MESSAGE_BASE: usize = 256;
/// What a descriptor counts for: a process has few of them, and one that waits is open here.
const DESCRIPTOR: usize = 64 << 10;

/// A connection as the rest of the daemon sees it.
#[derive(Debug)]
pub(crate) struct Conn {
    socket: AsyncFd<Channel>,
    outbox: RefCell<Outbox>,
    phase: Cell<Phase>,
    /// Bytes of workers' lines that were sent, and that the process has not written yet.
    unprinted: Cell<usize>,
    /// Wakes the connection's own task.
    changed: Notify,
    /// Wakes those that hold output back.
    drained: Notify,
    /// Output is held back no more, however much there is to read.
    hurried: Cell<bool>,
    /// The process does not read any more; what it wrote before still counts.
    deaf: Cell<bool>,
}

#[derive(Debug, Default)]
struct Outbox {
    /// The channel holds a message that the kernel did not take yet; what comes now queues up behind it.
    waiting: bool,
    queue: VecDeque<(FromDaemon, Vec<OwnedFd>, usize)>,
    bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Nothing new is sent. When all that was is with the kernel, our direction is shut, on which the process closes
    /// its own; at this time the connection ends in any case.
    Finishing(Instant),
    /// Nothing is read or sent.
    Closed,
}

impl Conn {
    /// Takes over a connected socket; needs the event loop's thread.
    pub(crate) fn new(socket: OwnedFd) -> Result<Rc<Self>, ChannelError> {
        let socket = watch(Channel::new(socket)?, Interest::READABLE | Interest::WRITABLE)
            .map_err(|error| Errno::from_raw_os_error(error.raw_os_error().unwrap_or(Errno::IO.raw_os_error())))?;
        Ok(Rc::new(Self {
            socket,
            outbox: RefCell::default(),
            phase: Cell::new(Phase::Open),
            unprinted: Cell::new(0),
            changed: Notify::new(),
            drained: Notify::new(),
            hurried: Cell::new(false),
            deaf: Cell::new(false),
        }))
    }

    /// Sends a message with its descriptors. A process that is gone or does not read is found out by the connection's
    /// own task.
    pub(crate) fn send(&self, message: FromDaemon, fds: Vec<OwnedFd>) {
        if self.phase.get() != Phase::Open || self.deaf.get() {
            return;
        }
        if let FromDaemon::Output { lines, .. } = &message {
            self.unprinted.set(self.unprinted.get() + lines.len());
        }
        let mut outbox = self.outbox.borrow_mut();
        if outbox.waiting {
            let weight = weight(&message) + fds.len() * DESCRIPTOR;
            outbox.bytes += weight;
            outbox.queue.push_back((message, fds, weight));
            if outbox.bytes <= OUTBOX_MAX {
                return;
            }
            self.phase.set(Phase::Closed);
        } else {
            match self.socket.get_ref().send(&message, fds) {
                Ok(Sent::All) => return,
                Ok(Sent::Waiting) => outbox.waiting = true,
                Err(_) => self.deaf.set(true),
            }
        }
        self.changed.notify_one();
    }

    /// Sends nothing more, and closes when what was sent has left.
    pub(crate) fn finish(&self) {
        if self.phase.get() == Phase::Open {
            self.phase.set(Phase::Finishing(Instant::now() + LINGER));
            self.changed.notify_one();
        }
    }

    /// Lets output come as fast as it does: the node stops and cannot wait for slow readers.
    pub(crate) fn hurry(&self) {
        self.hurried.set(true);
        self.drained.notify_waiters();
    }

    /// Waits while the process has much to read already.
    pub(crate) async fn until_not_busy(&self) {
        while self.phase.get() == Phase::Open && !self.hurried.get() && self.is_busy() {
            self.drained.notified().await;
        }
    }

    fn is_busy(&self) -> bool {
        self.outbox.borrow().bytes > OUTBOX_BUSY || self.unprinted.get() > OUTBOX_BUSY
    }

    /// The process has written some lines.
    pub(crate) fn printed(&self, bytes: usize) {
        self.unprinted.set(self.unprinted.get().saturating_sub(bytes));
        if !self.is_busy() {
            self.drained.notify_waiters();
        }
    }

    /// Waits until the process took everything, or never will.
    pub(crate) async fn until_sent(&self) {
        while self.phase.get() != Phase::Closed && self.outbox.borrow().waiting {
            self.drained.notified().await;
        }
    }

    /// Waits until all that the process sent was read.
    pub(crate) async fn until_closed(&self) {
        while self.phase.get() != Phase::Closed {
            self.drained.notified().await;
        }
    }

    fn flush(&self) {
        let mut outbox = self.outbox.borrow_mut();
        let mut sent = self.socket.get_ref().flush();
        while let Ok(Sent::All) = sent {
            let Some((message, fds, weight)) = outbox.queue.pop_front() else { break };
            outbox.bytes -= weight;
            sent = self.socket.get_ref().send(&message, fds);
        }
        match sent {
            Ok(sent) => outbox.waiting = sent == Sent::Waiting,
            Err(_) => {
                *outbox = Outbox::default();
                self.deaf.set(true);
            }
        }
        if outbox.bytes <= OUTBOX_BUSY {
            self.drained.notify_waiters();
        }
    }

    /// The first message, if it comes within the bounds.
    pub(crate) async fn first(&self, inbox: &mut Inbox) -> Option<ToDaemon> {
        loop {
            let mut ready = self.socket.readable().await.ok()?;
            if !self.socket.get_ref().receive(inbox).ok()? {
                ready.clear_ready();
            }
            if let Some(message) = inbox.next().ok()? {
                return Some(message);
            }
            if inbox.pending() > HELLO_MAX {
                return None;
            }
        }
    }

    /// Serves the connection until it ends on either side; every message goes to `on_message`, which says whether it
    /// was one that this process may send.
    pub(crate) async fn serve(&self, inbox: &mut Inbox, mut on_message: impl FnMut(ToDaemon) -> bool) {
        self.take_messages(inbox, &mut on_message);
        let mut shut = false;
        loop {
            let waiting = self.outbox.borrow().waiting;
            let deadline = match self.phase.get() {
                Phase::Open => None,
                Phase::Finishing(at) => Some(at),
                Phase::Closed => break,
            };
            if deadline.is_some() && !waiting && !std::mem::replace(&mut shut, true) {
                // An error means that the other direction is closed already, too.
                let _ = rustix::net::shutdown(self.socket.get_ref(), Shutdown::Write);
            }
            tokio::select! {
                ready = self.socket.readable() => {
                    let Ok(mut ready) = ready else { break };
                    match self.socket.get_ref().receive(inbox) {
                        Ok(true) => tokio::task::yield_now().await,
                        Ok(false) => ready.clear_ready(),
                        Err(_) => break,
                    }
                    drop(ready);
                    self.take_messages(inbox, &mut on_message);
                }
                ready = self.socket.writable(), if waiting => {
                    let Ok(mut ready) = ready else { break };
                    self.flush();
                    if self.outbox.borrow().waiting {
                        ready.clear_ready();
                    }
                }
                () = self.changed.notified() => {}
                () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => break,
            }
        }
        self.phase.set(Phase::Closed);
        self.drained.notify_waiters();
    }

    fn take_messages(&self, inbox: &mut Inbox, on_message: &mut impl FnMut(ToDaemon) -> bool) {
        while self.phase.get() != Phase::Closed {
            match inbox.next() {
                Ok(Some(message)) => {
                    if !on_message(message) {
                        self.phase.set(Phase::Closed);
                    }
                }
                Ok(None) => break,
                Err(_) => self.phase.set(Phase::Closed),
            }
        }
        // No message to the daemon brings a descriptor.
        if inbox.take_fd().is_ok() {
            self.phase.set(Phase::Closed);
        }
    }
}

fn weight(message: &FromDaemon) -> usize {
    MESSAGE_BASE
        + match message {
            FromDaemon::Output { name, lines, .. } => name.len() + lines.len(),
            FromDaemon::StoreLeased { body, .. } => body.len(),
            FromDaemon::OfKeeper(ToPeer::Fetched { value: Value::Ready(Blob::Inline(bytes)), .. }) => bytes.len(),
            FromDaemon::LeaseRefused { failure, .. } | FromDaemon::LeaseBroken { failure, .. } => failure.message.len(),
            FromDaemon::State { state, .. } => {
                let labels: usize = state.labels.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
                state.workers.len() * 64 + labels
            }
            _ => 0,
        }
}
