//! Direct connections between processes of the node.

use std::os::fd::OwnedFd;

use heliostat_proto::WorkerId;
use heliostat_proto::message::FromDaemon;
use heliostat_wire::LinkError;

use crate::daemon::Daemon;

impl Daemon {
    /// Makes a link between two processes that have none: `other` gets its far side at once, the near side, for `asker`,
    /// is returned. `None` when they are linked already.
    pub(crate) fn introduce(&mut self, asker: WorkerId, other: WorkerId) -> Result<Option<Vec<OwnedFd>>, LinkError> {
        let (Some(near), Some(far)) = (self.processes.get(&asker), self.processes.get(&other)) else { return Ok(None) };
        if near.peers.contains(&other) {
            return Ok(None);
        }
        let [near, far] = heliostat_wire::introduce(&near.bell, &far.bell)?;
        for (one, two) in [(asker, other), (other, asker)] {
            if let Some(process) = self.processes.get_mut(&one) {
                process.peers.insert(two);
            }
        }
        self.send(other, FromDaemon::Peer { peer: asker }, far);
        Ok(Some(near))
    }

    pub(crate) fn connect(&mut self, asker: WorkerId, request: u64, peer: WorkerId) {
        let lives = peer != asker && self.processes.contains_key(&peer);
        let made = if lives { self.introduce(asker, peer) } else { Ok(None) };
        let ok = lives && made.is_ok();
        let fds = made.ok().flatten();
        let connect = fds.is_some();
        self.send(asker, FromDaemon::Connected { request, peer, ok, connect }, fds.unwrap_or_default());
    }
}
