//! The thread that is always there: reads the daemon's messages, sees time pass, and serves what other processes send
//! while the event loop is busy.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use heliostat_proto::WorkerId;
use heliostat_proto::message::{FromDaemon, ToDaemon};
use heliostat_shm::ring::Side;
use heliostat_wire::{ChannelError, Inbox, Link, LinkError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::client::Shared;
use crate::output::Output;
use crate::ports::Event;

/// A task that waits longer than this lends its CPU to another.
const LEND_AFTER_MS: u64 = 1;
/// What came while the event loop ran is left to it for so long.
const PATIENCE: Duration = Duration::from_micros(200);
/// While others may send, messages are looked for this often in any case: an event loop that was rung for may be kept by a
/// callback of the program before it comes to them.
const ROUNDS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));
/// Leases are looked at this often.
const LEASE_ROUND: Duration = Duration::from_millis(20);

pub(crate) fn run(shared: &Shared, mut inbox: Inbox) {
    let mut reader = Reader { shared, waiting_since: None, lent: false, serve_at: None, round: ROUNDS.0, looked: None };
    let end = reader.messages_of_daemon(&mut inbox).and_then(|()| reader.poll(&mut inbox));
    // Whatever ended it, nobody reads any more: all that waits must learn so.
    drop(end);
    shared.node_gone();
}

struct Reader<'a> {
    shared: &'a Shared,
    /// When waits of this process's threads began.
    waiting_since: Option<u64>,
    /// The daemon was told that the task here waits.
    lent: bool,
    /// When to serve what the event loop has not.
    serve_at: Option<Instant>,
    /// Time between looks at the links.
    round: Duration,
    looked: Option<Instant>,
}

/// Why the thread ends.
enum End {
    Goodbye,
    Stopping,
    Daemon,
}

impl From<ChannelError> for End {
    fn from(_: ChannelError) -> Self {
        // How the connection ended makes no difference: the node is out of reach.
        Self::Daemon
    }
}

impl From<LinkError> for End {
    fn from(_: LinkError) -> Self {
        // A process that cannot open a link has no descriptors or no memory left, and tasks would wait for it for ever.
        Self::Daemon
    }
}

impl Reader<'_> {
    fn poll(&mut self, inbox: &mut Inbox) -> Result<(), End> {
        let shared = self.shared;
        let readable = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        loop {
            if shared.stopping.load(Ordering::Acquire) {
                return Err(End::Stopping);
            }
            let timeout = self.timeout().and_then(|left| Timespec::try_from(left).ok());
            let writing = if shared.daemon.channel.is_waiting() { PollFlags::OUT } else { PollFlags::empty() };
            let mut fds = [
                PollFd::new(&shared.daemon.channel, PollFlags::IN | writing),
                PollFd::new(&shared.daemon.wake, PollFlags::IN),
                PollFd::from_borrowed_fd(shared.bell.at_thread(), PollFlags::IN),
            ];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(_) => return Err(End::Daemon),
            }
            let [daemon, wake, bell] = fds.map(|fd| fd.revents());
            if !wake.is_empty() {
                let mut count = [0; 8];
                let _ = rustix::io::read(&shared.daemon.wake, &mut count);
            }
            if daemon.contains(PollFlags::OUT) {
                shared.daemon.channel.flush()?;
            }
            if daemon.intersects(readable) {
                self.read_daemon(inbox)?;
            }
            if !bell.is_empty() {
                self.on_bell();
            }
            self.serve();
        }
    }

    /// Others read what we sent, or sent something while the event loop could not be woken. All who knock until that is
    /// served are served with it.
    fn on_bell(&mut self) {
        self.shared.bell.hush_thread();
        let now = Instant::now();
        // What waits for room is sent by this thread alone.
        let is_ours = || self.shared.peers.open_links().iter().any(|neighbour| neighbour.link.is_waiting());
        if !self.shared.bell.is_attended() || is_ours() {
            self.serve_at = Some(now);
        } else {
            self.serve_at.get_or_insert(now + PATIENCE);
        }
    }

    /// Serves what is due.
    fn serve(&mut self) {
        let now = Instant::now();
        if self.serve_at.is_some_and(|at| at <= now) {
            self.serve_at = None;
            self.looked = Some(now);
            self.shared.bell.listen();
            self.shared.receive_all();
            for neighbour in self.shared.peers.open_links().iter() {
                // Of a link that is broken the daemon tells when its process ends.
                let _ = neighbour.link.flush();
            }
        } else if self.looked.is_none_or(|looked| now >= looked + self.round) {
            self.looked = Some(now);
            self.round = if self.shared.receive_all() { ROUNDS.0 } else { (self.round * 2).min(ROUNDS.1) };
        }
    }

    /// How long there is nothing to do; `None` for ever.
    fn timeout(&mut self) -> Option<Duration> {
        let shared = self.shared;
        let now = shared.now();
        let (next, counts) = shared.with_core(|core| (core.tick(now), core.counts()));
        let due = next.into_iter().chain(self.lend(now)).min();
        let due = due.map(|due| Duration::from_millis(due.saturating_sub(now)));
        let serve = self.serve_at.map(|at| at.saturating_duration_since(Instant::now()));
        let leases = (counts.leases > 0).then_some(LEASE_ROUND);
        let expecting = counts.objects + counts.leases + counts.executions > 0;
        due.into_iter().chain(serve).chain(leases).chain(expecting.then_some(self.round)).min()
    }

    /// Tells the daemon when the task in this process waits, and when it goes on.
    fn lend(&mut self, now: u64) -> Option<u64> {
        let blocked = self.shared.blocked.load(Ordering::Acquire);
        let waits = self.shared.lends && (blocked > 0 || self.shared.ports.waiting() > 0);
        // What a task left waiting when it ended keeps nobody.
        let waiting = waits && self.shared.lock_core().runs();
        if !waiting {
            self.waiting_since = None;
            if std::mem::replace(&mut self.lent, false) {
                self.shared.daemon.send(&ToDaemon::Waiting(false));
                self.shared.with_core(|core| core.pause(false));
            }
            return None;
        }
        if self.lent {
            return None;
        }
        let since = *self.waiting_since.get_or_insert(now);
        if now > since + LEND_AFTER_MS {
            self.lent = true;
            self.shared.daemon.send(&ToDaemon::Waiting(true));
            self.shared.with_core(|core| core.pause(true));
            return None;
        }
        Some(since + LEND_AFTER_MS + 1)
    }

    fn read_daemon(&mut self, inbox: &mut Inbox) -> Result<(), End> {
        loop {
            let more = self.shared.daemon.channel.receive(inbox);
            self.messages_of_daemon(inbox)?;
            if !more? {
                return Ok(());
            }
        }
    }

    fn messages_of_daemon(&mut self, inbox: &mut Inbox) -> Result<(), End> {
        while let Some(message) = inbox.next::<FromDaemon>()? {
            self.on_daemon(message, inbox)?;
        }
        Ok(())
    }

    fn on_daemon(&mut self, message: FromDaemon, inbox: &mut Inbox) -> Result<(), End> {
        let shared = self.shared;
        match message {
            FromDaemon::Welcome(_) | FromDaemon::Refused(_) => {}
            FromDaemon::LeaseGranted { request, lease, worker, connect, .. } => {
                if connect {
                    self.open(worker, Side::Near, inbox)?;
                }
                let now = shared.now();
                shared.with_core(|core| core.on_lease_granted(request, lease, worker, now));
            }
            FromDaemon::LeaseRefused { request, failure } => {
                shared.with_core(|core| core.on_lease_refused(request, &failure));
            }
            FromDaemon::RecallLease { lease } => shared.with_core(|core| core.on_lease_recalled(lease)),
            FromDaemon::LeaseBroken { lease, worker, failure } => {
                // Results that it sent before its end count.
                shared.receive_from(worker);
                let now = shared.now();
                shared.with_core(|core| core.on_lease_broken(lease, &failure, now, shared));
                shared.peer_gone(worker);
            }
            FromDaemon::Restored { request, failures } => shared.restored(request, failures),
            FromDaemon::Part { request, bytes } => drop(shared.parts.answer(request, bytes)),
            FromDaemon::Place { request, uri } => drop(shared.places.answer(request, uri)),
            FromDaemon::Sites { request } => shared.ports.tell_main(Event::Sites(request as u32)),
            FromDaemon::Collect => shared.ports.tell_all(Event::Collect),
            FromDaemon::StoreLeased { request, body } => drop(shared.daemon.leases.answer(request, body)),
            FromDaemon::Connected { peer, ok, connect, .. } => {
                if connect {
                    self.open(peer, Side::Near, inbox)?;
                } else if !ok {
                    shared.peer_gone(peer);
                }
            }
            FromDaemon::Peer { peer } => self.open(peer, Side::Far, inbox)?,
            FromDaemon::PeerGone { peer } => {
                shared.receive_from(peer);
                shared.peer_gone(peer);
            }
            FromDaemon::Output { stream, name, pid, lines } => {
                if let Some(printer) = &*shared.printer.lock().unwrap_or_else(PoisonError::into_inner) {
                    printer.print(Output { stream, name, pid, lines });
                }
            }
            FromDaemon::State { request, state } => drop(shared.states.answer(request, *state)),
            FromDaemon::Named { request, result } => shared.on_named(request, result),
            FromDaemon::OfKeeper(message) => {
                let now = shared.now();
                shared.with_core(|core| core.on_peer(shared.welcome.keeper, message, now, shared));
            }
            FromDaemon::Goodbye => return Err(End::Goodbye),
        }
        Ok(())
    }

    fn open(&mut self, peer: WorkerId, side: Side, inbox: &mut Inbox) -> Result<(), End> {
        let link = Link::open(side, inbox.take_fds()?)?;
        self.shared.peers.open(peer, link);
        // What it sent before this side was open rang a bell that had nothing to show.
        self.serve_at = Some(Instant::now());
        Ok(())
    }
}

impl Shared {
    /// Takes what other processes sent. Returns whether there was something.
    pub(crate) fn receive_all(&self) -> bool {
        let mut any = false;
        for neighbour in self.peers.open_links().iter() {
            if neighbour.link.has_news() {
                any = true;
                self.receive(neighbour.peer, &neighbour.link);
            }
        }
        any
    }

    fn receive(&self, peer: WorkerId, link: &Link) {
        let now = self.now();
        let received = link.receive(|messages| {
            self.with_core(|core| {
                for message in messages {
                    core.on_peer(peer, message, now, self);
                }
            });
        });
        if received.is_err() {
            // Not following the protocol: no more is read, and whoever waits for it is told now. A worker that runs tasks of
            // this process is ended, which brings the end of its lease with the facts.
            self.peers.ignore(peer);
            self.daemon.send(&ToDaemon::Kill { worker: peer });
            self.with_core(|core| core.on_peer_gone(peer));
        }
    }

    /// Takes what a process sent before it ended.
    fn receive_from(&self, peer: WorkerId) {
        if let Some(neighbour) = self.peers.link_to(peer) {
            self.receive(peer, &neighbour.link);
        }
    }

    fn peer_gone(&self, peer: WorkerId) {
        if self.peers.close(peer) {
            self.with_core(|core| core.on_peer_gone(peer));
        }
    }

    /// The node ended: everything that waits learns it.
    pub(crate) fn tell_gone(&self) {
        self.changed.notify_all();
        self.ports.tell_all(Event::NodeGone);
        self.bell.call_loop();
    }
}
