//! The links of this process to others of its node.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use heliostat_proto::WorkerId;
use heliostat_proto::message::ToPeer;
use heliostat_wire::Link;

/// A process and the link to it.
#[derive(Debug, Clone)]
pub(crate) struct Neighbour {
    pub(crate) peer: WorkerId,
    pub(crate) link: Arc<Link>,
}

#[derive(Debug)]
enum Route {
    /// Messages wait for the link.
    Connecting(Vec<ToPeer>),
    Open(Arc<Link>),
    /// Nothing more can be sent; what it sends is read until its end is told.
    Silent,
    /// It ended; messages to it go nowhere.
    Gone,
}

#[derive(Debug, Default)]
struct State {
    routes: HashMap<WorkerId, Route>,
    /// All that are read, replaced as a whole so that readers need no lock while they read.
    open: Arc<Vec<Neighbour>>,
}

impl State {
    fn silence(&mut self, peer: WorkerId) {
        if let Some(route @ Route::Open(_)) = self.routes.get_mut(&peer) {
            *route = Route::Silent;
        }
    }
}

/// All links.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    state: Mutex<State>,
}

/// What to do after a message was handed over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Handed {
    /// Nothing.
    Sent,
    /// Ask the daemon for a link.
    Connect,
}

impl Peers {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All links, as they are now.
    pub(crate) fn open_links(&self) -> Arc<Vec<Neighbour>> {
        Arc::clone(&self.lock().open)
    }

    /// Whether any of them has messages that were not received yet.
    pub(crate) fn have_news(&self) -> bool {
        self.open_links().iter().any(|neighbour| neighbour.link.has_news())
    }

    /// The open link to a process.
    pub(crate) fn link_to(&self, peer: WorkerId) -> Option<Neighbour> {
        self.lock().open.iter().find(|neighbour| neighbour.peer == peer).cloned()
    }

    /// A new link; sends what waited for it.
    pub(crate) fn open(&self, peer: WorkerId, link: Link) {
        let link = Arc::new(link);
        let mut state = self.lock();
        let before = state.routes.insert(peer, Route::Open(Arc::clone(&link)));
        if let Some(Route::Connecting(waiting)) = before
            && waiting.iter().any(|message| link.send(message).is_err())
        {
            state.routes.insert(peer, Route::Silent);
        }
        let mut open = state.open.as_ref().clone();
        open.push(Neighbour { peer, link });
        state.open = Arc::new(open);
    }

    /// Hands a message over to a process, if that is still possible.
    pub(crate) fn send(&self, peer: WorkerId, message: ToPeer) -> Handed {
        let mut state = self.lock();
        let link = match state.routes.get_mut(&peer) {
            Some(Route::Open(link)) => Arc::clone(link),
            Some(Route::Connecting(waiting)) => {
                waiting.push(message);
                return Handed::Sent;
            }
            Some(Route::Silent | Route::Gone) => return Handed::Sent,
            None => {
                state.routes.insert(peer, Route::Connecting(vec![message]));
                return Handed::Connect;
            }
        };
        drop(state);
        if link.send(&message).is_err() {
            // The daemon tells of the end of a process with its facts; until then it is silent.
            self.lock().silence(peer);
        }
        Handed::Sent
    }

    /// Reads no more from a process that sends what cannot be understood, and sends it nothing: its outbox would only grow.
    pub(crate) fn ignore(&self, peer: WorkerId) {
        let mut state = self.lock();
        state.silence(peer);
        let rest = state.open.iter().filter(|neighbour| neighbour.peer != peer).cloned().collect();
        state.open = Arc::new(rest);
    }

    /// Closes the link to a process that ended. Returns whether it was known as living.
    pub(crate) fn close(&self, peer: WorkerId) -> bool {
        let known = match self.lock().routes.insert(peer, Route::Gone) {
            Some(Route::Open(_) | Route::Connecting(_) | Route::Silent) => true,
            Some(Route::Gone) | None => false,
        };
        if known {
            self.ignore(peer);
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::sync::atomic::Ordering;

    use heliostat_proto::{Blob, Bytes};
    use heliostat_shm::bell::Bell;
    use heliostat_shm::map::WordMap;
    use heliostat_shm::memfd::Memfd;
    use heliostat_shm::ring::Side;
    use heliostat_wire::introduce;

    use super::*;

    /// This process's side, the other's, and the memory between.
    fn pair() -> (Link, Link, WordMap) {
        let bell = Bell::create().unwrap();
        let [near, far] = introduce(&bell, &bell).unwrap();
        let memory = Memfd::from_fd(near[0].try_clone().unwrap()).unwrap();
        let open = |side, fds: Vec<OwnedFd>| Link::open(side, fds.try_into().unwrap()).unwrap();
        (open(Side::Near, near), open(Side::Far, far), WordMap::new(&memory).unwrap())
    }

    fn define(index: u8, length: usize) -> ToPeer {
        ToPeer::Define { function: [index; 32], blob: Blob::Inline(Bytes::new(vec![index; length])) }
    }

    #[test]
    fn what_waits_for_a_link_leaves_first() {
        let peers = Peers::default();
        let (near, far, _) = pair();
        let peer = WorkerId([1; 16]);
        assert_eq!(peers.send(peer, define(0, 10)), Handed::Connect);
        assert_eq!(peers.send(peer, define(1, 10)), Handed::Sent);
        peers.open(peer, near);
        assert_eq!(peers.send(peer, define(2, 10)), Handed::Sent);
        let mut got = Vec::new();
        far.receive(|messages: Vec<ToPeer>| got.extend(messages)).unwrap();
        assert_eq!(got, [define(0, 10), define(1, 10), define(2, 10)]);
    }

    #[test]
    fn a_process_that_cannot_be_written_to_is_read_until_its_end_is_told() {
        for early in [true, false] {
            let peers = Peers::default();
            let (near, far, words) = pair();
            let peer = WorkerId([1; 16]);
            far.send(&define(7, 10)).unwrap();
            // The reader's counter of the near side's lane, ahead of what was written.
            words.word(64).unwrap().store(u64::MAX, Ordering::Relaxed);
            if early {
                peers.send(peer, define(0, 100_000));
                peers.open(peer, near);
            } else {
                peers.open(peer, near);
                peers.send(peer, define(0, 100_000));
            }
            assert!(matches!(peers.lock().routes[&peer], Route::Silent));
            let mut got = Vec::new();
            peers.link_to(peer).unwrap().link.receive(|messages: Vec<ToPeer>| got.extend(messages)).unwrap();
            assert_eq!(got, [define(7, 10)]);
            assert!(peers.close(peer), "nobody was told of its end yet");
            assert!(!peers.close(peer) && peers.link_to(peer).is_none());
        }
    }
}
