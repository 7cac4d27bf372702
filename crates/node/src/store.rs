//! The node's object store, as the rest of the daemon sees it.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::time::Duration;

use heliostat_proto::message::NodeState;
use heliostat_proto::{Failure, Locator, WorkerId};
use heliostat_shm::process::Identity;
use heliostat_store::{CreateStoreError, StoreConfig, StoreDaemon};

use crate::daemon::Daemon;

/// How often objects that were pinned when they were freed are looked at again.
const SWEEP_PERIOD: Duration = Duration::from_millis(100);

/// The store and who sits in it.
#[derive(Debug)]
pub(crate) struct Store {
    daemon: StoreDaemon,
    seats: HashMap<WorkerId, u32>,
    /// Processes that joined so far.
    joined: u64,
    /// Something was freed since the last sweep, or is still pinned after it.
    sweeping: bool,
}

/// What a process needs to work with the store.
#[derive(Debug)]
pub(crate) struct Seat {
    /// Tells the lives of processes of this node apart.
    pub(crate) epoch: u64,
    pub(crate) params: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

impl Store {
    pub(crate) fn create(capacity: u64) -> Result<Self, CreateStoreError> {
        let daemon = StoreDaemon::create(StoreConfig::new(capacity))?;
        Ok(Self { daemon, seats: HashMap::new(), joined: 0, sweeping: false })
    }

    pub(crate) fn join(&mut self, id: WorkerId, pid: u32) -> Result<Seat, Failure> {
        let refuse = |error: &dyn std::error::Error| {
            Failure::new("TRANSPORT", format!("the node's store has no place for process {pid}: {error}"))
        };
        let identity = Identity::of(pid).map_err(|error| refuse(&error))?;
        let seat = self.daemon.join(identity).map_err(|error| refuse(&error))?;
        let params = postcard::to_stdvec(&seat.params).map_err(|error| refuse(&error))?;
        self.seats.insert(id, seat.params.client);
        self.joined += 1;
        Ok(Seat { epoch: self.joined, params, fds: seat.fds.into() })
    }

    /// Answers a request for memory; `None` when it is not one.
    pub(crate) fn lease(&mut self, id: WorkerId, body: &[u8]) -> Option<Vec<u8>> {
        let request = postcard::from_bytes(body).ok()?;
        postcard::to_stdvec(&self.daemon.lease(*self.seats.get(&id)?, request)).ok()
    }

    /// A driver's objects end with it. Those of a worker stay: results that it made belong to others.
    pub(crate) fn free_objects_of(&mut self, driver: WorkerId) {
        let Some(seat) = self.seats.get(&driver) else { return };
        // An error says that the table's extent is unknown; the objects then stay until the node ends.
        let owned = self.daemon.owned_by(*seat).unwrap_or_default();
        let locators: Vec<Locator> = owned.into_iter().map(|(_, locator)| locator).collect();
        self.daemon.free(&locators);
    }

    pub(crate) fn client_gone(&mut self, id: WorkerId) {
        if let Some(seat) = self.seats.remove(&id) {
            self.daemon.client_gone(seat);
        }
    }

    pub(crate) fn describe(&self, state: &mut NodeState) {
        let stats = self.daemon.stats();
        state.capacity = stats.capacity;
        state.used = stats.small + stats.large;
    }
}

impl Daemon {
    /// Takes objects out of the store; those that somebody still reads are looked at again until nobody does.
    pub(crate) fn free_objects(&mut self, locators: &[Locator]) {
        self.store.daemon.free(locators);
        if !std::mem::replace(&mut self.store.sweeping, true) {
            self.sweep_later();
        }
    }

    fn sweep_later(&self) {
        self.after(SWEEP_PERIOD, |daemon| {
            daemon.store.daemon.sweep_deferred();
            daemon.store.sweeping = daemon.store.daemon.stats().deferred_objects > 0;
            if daemon.store.sweeping {
                daemon.sweep_later();
            }
        });
    }
}
