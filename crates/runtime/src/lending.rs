//! Whether others hold references to objects of this process: the daemon must know, to end such a worker last.

use heliostat_proto::message::ToDaemon;

use crate::core::Core;

/// A change is told when it has lasted so many milliseconds: most references that a task lends are back before.
const SETTLED_MS: u64 = 50;

/// What the daemon was told.
#[derive(Debug, Default)]
pub(crate) struct Lending {
    told: bool,
    /// Since when it is otherwise.
    changed: Option<u64>,
}

impl Core {
    /// Tells the daemon of a change that lasted. Returns when to look again.
    pub(crate) fn tell_lending(&mut self, now: u64) -> Option<u64> {
        let lends = self.objects.lends();
        if lends == self.lending.told {
            self.lending.changed = None;
            return None;
        }
        let due = *self.lending.changed.get_or_insert(now) + SETTLED_MS;
        if now < due {
            return Some(due);
        }
        self.lending = Lending { told: lends, changed: None };
        self.daemon(ToDaemon::Lends(lends));
        None
    }
}

#[cfg(test)]
mod tests {
    use heliostat_proto::message::ToPeer;
    use heliostat_proto::{Blob, Bytes, JobId, NodeId, WorkerId};

    use super::*;
    use crate::core::{Identity, NoValues};
    use crate::{Action, Handle};

    const PEER: WorkerId = WorkerId([9; 16]);

    fn told(core: &mut Core) -> Vec<bool> {
        core.take_actions()
            .into_iter()
            .filter_map(|action| match action {
                Action::Daemon(ToDaemon::Lends(lends)) => Some(lends),
                _ => None,
            })
            .collect()
    }

    fn lent(core: &mut Core, now: u64) -> Handle {
        let handle = core.put(Blob::Inline(Bytes::new(*b"value")), Vec::new());
        let id = core.export(handle).unwrap().id;
        core.on_peer(PEER, ToPeer::Borrow { objects: vec![id] }, now, &NoValues);
        handle
    }

    #[test]
    fn what_lasts_is_told_and_what_comes_back_soon_is_not() {
        let me =
            Identity { worker: WorkerId([1; 16]), node: NodeId([2; 16]), epoch: 1, job: JobId::default(), seat: 1 };
        let mut core = Core::new(me);
        assert_eq!(core.tick(0), None);
        let handle = lent(&mut core, 10);
        assert_eq!(core.tick(10), Some(60));
        let id = core.id(handle).unwrap();
        core.on_peer(PEER, ToPeer::Unborrow { objects: vec![id] }, 20, &NoValues);
        assert_eq!(core.tick(60), None);
        assert_eq!(told(&mut core), [false; 0]);
        lent(&mut core, 100);
        core.tick(100);
        assert_eq!(core.tick(150), None);
        assert_eq!(told(&mut core), [true]);
        core.on_peer_gone(PEER);
        core.tick(200);
        core.tick(250);
        assert_eq!(told(&mut core), [false]);
    }
}
