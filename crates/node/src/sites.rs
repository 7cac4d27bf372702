//! Where programs made what fills the store: asked of the processes that hold most of it when somebody is refused.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use heliostat_proto::WorkerId;
use heliostat_proto::message::FromDaemon;

use crate::daemon::Daemon;

/// Whoever is refused waits no longer for this: a process that is busy, or stopped, says nothing.
const PATIENCE: Duration = Duration::from_millis(250);
/// What each process may say.
const SITES: usize = 3;
const LENGTH: usize = 300;

/// What processes said, by their process ids.
pub(crate) type Told = HashMap<u32, Vec<String>>;

/// Questions under way.
#[derive(Debug, Default)]
pub(crate) struct Sites {
    next: u32,
    queries: HashMap<u64, Query>,
}

struct Query {
    missing: HashSet<WorkerId>,
    told: Told,
    then: Then,
}

type Then = Box<dyn FnOnce(&mut Daemon, Told)>;

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query").field("missing", &self.missing).field("told", &self.told).finish_non_exhaustive()
    }
}

impl Daemon {
    /// Asks those of the processes that are not `but`, and goes on when all have answered, or some time has passed.
    pub(crate) fn ask_sites(
        &mut self,
        pids: &HashSet<u32>,
        but: WorkerId,
        then: impl FnOnce(&mut Self, Told) + 'static,
    ) {
        let holds = |(id, process): &(&WorkerId, &crate::daemon::Process)| pids.contains(&process.pid) && **id != but;
        let missing: HashSet<WorkerId> = self.processes.iter().filter(holds).map(|(id, _)| *id).collect();
        if missing.is_empty() {
            return then(self, Told::new());
        }
        self.sites.next = self.sites.next.wrapping_add(1);
        let request = self.sites.next.into();
        for id in &missing {
            self.send(*id, FromDaemon::Sites { request }, Vec::new());
        }
        self.sites.queries.insert(request, Query { missing, told: Told::new(), then: Box::new(then) });
        self.after(PATIENCE, move |daemon| daemon.end_query(request));
    }

    /// A process answers.
    pub(crate) fn on_sites(&mut self, from: WorkerId, request: u64, mut sites: Vec<String>) {
        let Some(pid) = self.processes.get(&from).map(|process| process.pid) else { return };
        let Some(query) = self.sites.queries.get_mut(&request) else { return };
        if query.missing.remove(&from) {
            sites.truncate(SITES);
            for site in &mut sites {
                let end = (0..=LENGTH.min(site.len())).rev().find(|end| site.is_char_boundary(*end));
                site.truncate(end.unwrap_or(0));
            }
            query.told.insert(pid, sites);
        }
        if query.missing.is_empty() {
            self.end_query(request);
        }
    }

    fn end_query(&mut self, request: u64) {
        if let Some(query) = self.sites.queries.remove(&request) {
            (query.then)(self, query.told);
        }
    }
}
