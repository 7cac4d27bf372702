//! Direct connections between processes of the node.

use std::os::fd::OwnedFd;

use heliostat_proto::WorkerId;
use heliostat_proto::message::FromDaemon;
use heliostat_wire::ChannelError;

use crate::daemon::Daemon;

impl Daemon {
    /// Makes a connection between two processes that have none: `other` gets its end at once, the end of `asker` is
    /// returned. `None` when they are connected already.
    pub(crate) fn introduce(&mut self, asker: WorkerId, other: WorkerId) -> Result<Option<OwnedFd>, ChannelError> {
        if self.processes.get(&asker).is_none_or(|process| process.peers.contains(&other)) {
            return Ok(None);
        }
        let (near, far) = heliostat_wire::socket_pair()?;
        for (one, two) in [(asker, other), (other, asker)] {
            if let Some(process) = self.processes.get_mut(&one) {
                process.peers.insert(two);
            }
        }
        self.send(other, FromDaemon::Peer { peer: asker }, vec![far]);
        Ok(Some(near))
    }

    pub(crate) fn connect(&mut self, asker: WorkerId, request: u64, peer: WorkerId) {
        let lives = peer != asker && self.processes.contains_key(&peer);
        let made = if lives { self.introduce(asker, peer) } else { Ok(None) };
        let ok = lives && made.is_ok();
        let fd = made.ok().flatten();
        let connect = fd.is_some();
        self.send(asker, FromDaemon::Connected { request, peer, ok, connect }, fd.into_iter().collect());
    }
}
