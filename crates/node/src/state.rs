//! What the node says about itself.

use heliostat_proto::message::{NodeState, WorkerActivity, WorkerInfo};

use crate::daemon::Daemon;

impl Daemon {
    /// Everything but the store.
    pub(crate) fn state(&self) -> NodeState {
        let starting =
            self.children.iter().filter(|(_, child)| !child.connected && child.ending.is_none()).map(|(id, child)| {
                let pid = child.running.as_ref().map_or(0, |running| running.pid);
                WorkerInfo { worker: *id, pid, activity: WorkerActivity::Starting }
            });
        let connected = self.schedule.workers().map(|(worker, pid, activity)| WorkerInfo { worker, pid, activity });
        NodeState {
            node: self.node,
            total: self.schedule.total(),
            available: self.schedule.available(),
            labels: self.config.labels.clone(),
            workers: connected.chain(starting).collect(),
            ..NodeState::default()
        }
    }
}
