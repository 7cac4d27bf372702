//! The thread that reads: the daemon's and all processes' messages, and the passing of time.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use heliostat_proto::WorkerId;
use heliostat_proto::message::{FromDaemon, ToDaemon, ToPeer};
use heliostat_wire::{ChannelError, Inbox};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::client::Shared;
use crate::output::Output;
use crate::peers::{Link, Token};
use crate::ports::Event;

/// A task that waits longer than this lends its CPU to another.
const LEND_AFTER_MS: u64 = 1;

pub(crate) fn run(shared: &Shared, mut inbox: Inbox) {
    let mut reader = Reader { shared, waiting_since: None, lent: false };
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

impl Reader<'_> {
    fn poll(&mut self, inbox: &mut Inbox) -> Result<(), End> {
        let shared = self.shared;
        let mut events = Vec::with_capacity(64);
        loop {
            if shared.stopping.load(Ordering::Acquire) {
                return Err(End::Stopping);
            }
            let timeout =
                self.due().map(|ms| Timespec { tv_sec: (ms / 1000) as i64, tv_nsec: (ms % 1000 * 1_000_000) as i64 });
            events.clear();
            match epoll::wait(
                shared.daemon.peers.epoll(),
                rustix::buffer::spare_capacity(&mut events),
                timeout.as_ref(),
            ) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(_) => return Err(End::Daemon),
            }
            for event in &events {
                let (token, flags) = (Token(event.data.u64()), event.flags);
                match token {
                    Token::WAKE => self.clear_wake(),
                    Token::GUARD => shared.ports.tell_all(Event::Written),
                    Token::DAEMON => {
                        if flags.contains(epoll::EventFlags::OUT) {
                            let sent = shared.daemon.channel.flush()?;
                            shared.daemon.peers.watch_writing(&shared.daemon.channel, Token::DAEMON, sent)?;
                        }
                        if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
                            self.read_daemon(inbox)?;
                        }
                    }
                    _ => self.on_link(token, flags),
                }
            }
        }
    }

    fn clear_wake(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.shared.daemon.wake, &mut count);
    }

    /// Milliseconds until time has to be looked at again; `None` for never.
    fn due(&mut self) -> Option<u64> {
        let shared = self.shared;
        let now = shared.now();
        let next = shared.with_core(|core| core.tick(now));
        let lend = self.lend(now);
        next.into_iter().chain(lend).min().map(|due| due.saturating_sub(now))
    }

    /// Tells the daemon when the task in this process waits, and when it goes on.
    fn lend(&mut self, now: u64) -> Option<u64> {
        let blocked = self.shared.blocked.load(Ordering::Acquire);
        let waiting = self.shared.lends && (blocked > 0 || self.shared.ports.waiting() > 0);
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
                    shared.daemon.peers.open(worker, inbox.take_fd()?)?;
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
                self.drain(worker);
                let now = shared.now();
                shared.with_core(|core| core.on_lease_broken(lease, &failure, now, shared));
                self.peer_gone(worker);
            }
            FromDaemon::StoreLeased { request, body } => drop(shared.daemon.leases.answer(request, body)),
            FromDaemon::Connected { peer, ok, connect, .. } => {
                if connect {
                    shared.daemon.peers.open(peer, inbox.take_fd()?)?;
                } else if !ok {
                    self.peer_gone(peer);
                }
            }
            FromDaemon::Peer { peer } => shared.daemon.peers.open(peer, inbox.take_fd()?)?,
            FromDaemon::PeerGone { peer } => {
                self.drain(peer);
                self.peer_gone(peer);
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

    fn on_link(&self, token: Token, flags: epoll::EventFlags) {
        let Some(link) = self.shared.daemon.peers.link(token) else { return };
        if flags.contains(epoll::EventFlags::OUT)
            && let Ok(sent) = link.channel.flush()
        {
            let _ = self.shared.daemon.peers.watch_writing(&link.channel, token, sent);
        }
        if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR)
            && self.read_link(&link).is_err()
        {
            // Closed, or not following the protocol: no more is read. The daemon tells what became of the process.
            let _ = epoll::delete(self.shared.daemon.peers.epoll(), &link.channel);
        }
    }

    fn read_link(&self, link: &Link) -> Result<(), ChannelError> {
        let mut inbox = link.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let more = link.channel.receive(&mut inbox);
            let mut messages = Vec::new();
            while let Some(message) = inbox.next::<ToPeer>()? {
                messages.push(message);
            }
            let now = self.shared.now();
            self.shared.with_core(|core| {
                for message in messages {
                    core.on_peer(link.peer, message, now, self.shared);
                }
            });
            if !more? {
                return Ok(());
            }
        }
    }

    /// Reads what a process sent before it ended.
    fn drain(&self, peer: WorkerId) {
        for (_, link) in self.shared.daemon.peers.links_of(peer) {
            let _ = self.read_link(&link);
        }
    }

    fn peer_gone(&self, peer: WorkerId) {
        if self.shared.daemon.peers.close(peer) {
            self.shared.with_core(|core| core.on_peer_gone(peer));
        }
    }
}
