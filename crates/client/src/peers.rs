//! The links of this process to others of its node.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use heliostat_proto::WorkerId;
use heliostat_proto::message::ToPeer;
use heliostat_wire::{Link, LinkError};

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
    /// It ended; messages to it go nowhere.
    Gone,
}

#[derive(Debug, Default)]
struct State {
    routes: HashMap<WorkerId, Route>,
    /// All that are read, replaced as a whole so that readers need no lock while they read.
    open: Arc<Vec<Neighbour>>,
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
    pub(crate) fn open(&self, peer: WorkerId, link: Link) -> Result<(), LinkError> {
        let link = Arc::new(link);
        let mut state = self.lock();
        let before = state.routes.insert(peer, Route::Open(Arc::clone(&link)));
        if let Some(Route::Connecting(waiting)) = before {
            for message in waiting {
                link.send(&message)?;
            }
        }
        let mut open = state.open.as_ref().clone();
        open.push(Neighbour { peer, link });
        state.open = Arc::new(open);
        Ok(())
    }

    /// Hands a message over to a process.
    pub(crate) fn send(&self, peer: WorkerId, message: ToPeer) -> Result<Handed, LinkError> {
        let mut state = self.lock();
        let link = match state.routes.get_mut(&peer) {
            Some(Route::Open(link)) => Arc::clone(link),
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
        drop(state);
        link.send(&message)?;
        Ok(Handed::Sent)
    }

    /// Reads no more from a process that sends what cannot be understood.
    pub(crate) fn ignore(&self, peer: WorkerId) {
        let mut state = self.lock();
        let rest = state.open.iter().filter(|neighbour| neighbour.peer != peer).cloned().collect();
        state.open = Arc::new(rest);
    }

    /// Closes the link to a process that ended. Returns whether it was known as living.
    pub(crate) fn close(&self, peer: WorkerId) -> bool {
        let known = match self.lock().routes.insert(peer, Route::Gone) {
            Some(Route::Open(_) | Route::Connecting(_)) => true,
            Some(Route::Gone) | None => false,
        };
        if known {
            self.ignore(peer);
        }
        known
    }
}
