//! The connections of this process to others of its cluster.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use heliostat_proto::WorkerId;
use heliostat_proto::message::ToPeer;
use heliostat_wire::{Channel, ChannelError, Inbox, Sent};
use rustix::event::epoll;

/// Whose socket became ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Token(pub(crate) u64);

impl Token {
    pub(crate) const WAKE: Self = Self(0);
    pub(crate) const DAEMON: Self = Self(1);
    pub(crate) const GUARD: Self = Self(2);
    const FIRST_PEER: u64 = 16;
}

/// A connection and what arrived on it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) peer: WorkerId,
    pub(crate) channel: Arc<Channel>,
    pub(crate) inbox: Mutex<Inbox>,
}

#[derive(Debug)]
enum Route {
    /// Messages wait for the connection.
    Connecting(Vec<ToPeer>),
    /// Sends go by the first; two processes that met at the same moment have two, and read both.
    Open(Vec<Token>),
    /// It ended; messages to it go nowhere.
    Gone,
}

#[derive(Debug, Default)]
struct State {
    links: HashMap<Token, Arc<Link>>,
    routes: HashMap<WorkerId, Route>,
    next: u64,
}

/// All connections, with the poll set that watches them.
#[derive(Debug)]
pub(crate) struct Peers {
    epoll: OwnedFd,
    state: Mutex<State>,
}

/// What to do after a message was handed over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Handed {
    /// Nothing.
    Sent,
    /// Ask the daemon for a connection.
    Connect,
}

impl Peers {
    pub(crate) fn new() -> Result<Self, ChannelError> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn epoll(&self) -> &OwnedFd {
        &self.epoll
    }

    /// Watches a descriptor for reading.
    pub(crate) fn watch(&self, fd: impl AsFd, token: Token) -> Result<(), ChannelError> {
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token.0), epoll::EventFlags::IN)?)
    }

    /// Watches it for writing too while its outbox holds something.
    pub(crate) fn watch_writing(&self, channel: &Channel, token: Token, sent: Sent) -> Result<(), ChannelError> {
        let mut flags = epoll::EventFlags::IN;
        if sent == Sent::Waiting {
            flags |= epoll::EventFlags::OUT;
        }
        Ok(epoll::modify(&self.epoll, channel, epoll::EventData::new_u64(token.0), flags)?)
    }

    pub(crate) fn link(&self, token: Token) -> Option<Arc<Link>> {
        self.lock().links.get(&token).cloned()
    }

    /// The open connections to a process.
    pub(crate) fn links_of(&self, peer: WorkerId) -> Vec<(Token, Arc<Link>)> {
        let state = self.lock();
        match state.routes.get(&peer) {
            Some(Route::Open(tokens)) => {
                tokens.iter().filter_map(|token| Some((*token, state.links.get(token)?.clone()))).collect()
            }
            _ => Vec::new(),
        }
    }

    /// A new connection; sends what waited for it.
    pub(crate) fn open(&self, peer: WorkerId, socket: OwnedFd) -> Result<(), ChannelError> {
        let channel = Arc::new(Channel::new(socket)?);
        let mut state = self.lock();
        let token = Token(Token::FIRST_PEER + state.next);
        state.next += 1;
        self.watch(channel.as_ref(), token)?;
        let link = Link { peer, channel: Arc::clone(&channel), inbox: Mutex::default() };
        state.links.insert(token, Arc::new(link));
        match state.routes.entry(peer).or_insert_with(|| Route::Connecting(Vec::new())) {
            Route::Open(tokens) => tokens.push(token),
            route => {
                if let Route::Connecting(waiting) = std::mem::replace(route, Route::Open(vec![token])) {
                    for message in waiting {
                        self.send_on(&channel, token, &message)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn send_on(&self, channel: &Channel, token: Token, message: &ToPeer) -> Result<(), ChannelError> {
        match channel.send(message, Vec::new()) {
            Ok(Sent::All) => Ok(()),
            Ok(Sent::Waiting) => self.watch_writing(channel, token, Sent::Waiting),
            // Its end is read, with the last it sent, by the thread that reads.
            Err(ChannelError::Closed) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Hands a message over to a process.
    pub(crate) fn send(&self, peer: WorkerId, message: ToPeer) -> Result<Handed, ChannelError> {
        let mut state = self.lock();
        let first = match state.routes.get_mut(&peer) {
            Some(Route::Open(tokens)) => tokens[0],
            Some(Route::Connecting(waiting)) => {
                waiting.push(message);
                return Ok(Handed::Sent);
            }
            Some(Route::Gone) => return Ok(Handed::Sent),
            None => {
                state.routes.insert(peer, Route::Connecting(vec![message]));
                return Ok(Handed::Connect);
            }
        };
        let Some(link) = state.links.get(&first).cloned() else { return Ok(Handed::Sent) };
        self.send_on(&link.channel, first, &message)?;
        Ok(Handed::Sent)
    }

    /// Closes all connections to a process that ended. Returns whether it was known as living.
    pub(crate) fn close(&self, peer: WorkerId) -> bool {
        let mut state = self.lock();
        match state.routes.insert(peer, Route::Gone) {
            Some(Route::Open(tokens)) => {
                for token in tokens {
                    if let Some(link) = state.links.remove(&token) {
                        let _ = epoll::delete(&self.epoll, &link.channel);
                    }
                }
                true
            }
            Some(Route::Connecting(_)) => true,
            Some(Route::Gone) | None => false,
        }
    }
}
