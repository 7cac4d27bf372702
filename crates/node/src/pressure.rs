//! Memory of the node: workers are ended before the kernel ends somebody, and what the kernel ended is told as such.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Weak;
use std::time::Duration;

use heliostat_proto::{Failure, WorkerId};
use heliostat_runtime::pressure::{Candidate, Kills, Limits, OUT_OF_MEMORY, Pressure, Relief};
use heliostat_shm::memory::{Headroom, OomCounter, anonymous, headroom};
use tokio::time::Instant;

use crate::daemon::Daemon;
use crate::workers::How;

/// While memory may run short soon, workers' sizes are noted so often, for the case that the kernel is faster.
const NOTES_MS: u64 = 100;
/// What to do about it.
const HINT: &str = "Let the task need less at a time, run fewer tasks at once (a larger `memory` or `numCpus` for each), \
                    or give the machine or the container more.";

/// What the daemon knows of the memory.
#[derive(Debug)]
pub(crate) struct Memory {
    pressure: Pressure,
    limits: Limits,
    started: Instant,
    /// The last look, and when that was.
    last: Option<(Headroom, u64)>,
    noted: u64,
    /// The kernel's counters of the groups that workers are in.
    kills: BTreeMap<OomCounter, Kills>,
}

impl Memory {
    pub(crate) fn new(limits: Limits) -> Self {
        let (started, kills) = (Instant::now(), BTreeMap::new());
        Self { pressure: Pressure::new(limits), limits, started, last: None, noted: 0, kills }
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// The store gave so many bytes back.
    pub(crate) fn gave_back(&mut self, bytes: u64) {
        self.pressure.gave_back(bytes);
    }

    /// The process of a worker is gone.
    pub(crate) fn worker_gone(&mut self, worker: WorkerId) {
        self.pressure.gone(worker, self.now());
    }

    /// A worker came; gives the counter of its group.
    pub(crate) fn counter_of(&mut self, pid: u32) -> Option<OomCounter> {
        let counter = OomCounter::of(pid)?;
        let count = counter.read()?;
        self.kills.entry(counter.clone()).or_insert_with(|| Kills::new(count));
        Some(counter)
    }

    /// A process was killed: whether the kernel did it for want of memory; `None` when nothing can tell.
    pub(crate) fn killed_by_kernel(&mut self, counter: &OomCounter) -> Option<bool> {
        let count = counter.read()?;
        Some(self.kills.get_mut(counter)?.take(count))
    }

    /// What is told of a worker that the kernel ended.
    pub(crate) fn kernels_failure(&self, pid: u32, bytes: Option<u64>) -> Failure {
        let before = self.last.as_ref().map(|(room, at)| (room.clone(), self.now().saturating_sub(*at)));
        let (room, ago) = before.unwrap_or_else(|| (headroom(), 0));
        let had = match bytes {
            Some(bytes) => format!("it had {} of its own when that was looked at last", mib(bytes)),
            None => "it had grown faster than anybody looked".to_owned(),
        };
        let message = format!(
            "the kernel killed worker pid={pid} for want of memory: {had}; {}, {ago} ms before its end was seen",
            figures(&room)
        );
        Failure::new(OUT_OF_MEMORY, message).hint(HINT)
    }
}

/// Looks at the memory as long as the daemon lives.
pub(crate) async fn watch(daemon: Weak<RefCell<Daemon>>) {
    loop {
        let Some(shared) = daemon.upgrade() else { return };
        let pause = shared.borrow_mut().look_at_memory();
        drop(shared);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

impl Daemon {
    /// Looks once; gives the milliseconds until the next time.
    fn look_at_memory(&mut self) -> u64 {
        let (room, now) = (headroom(), self.memory.now());
        let pause = self.memory.pressure.pause(room.bytes, room.total);
        for (counter, kills) in &mut self.memory.kills {
            if let Some(count) = counter.read() {
                kills.look(count, now);
            }
        }
        if pause < NOTES_MS && now >= self.memory.noted + NOTES_MS {
            self.memory.noted = now;
            for child in self.children.values_mut() {
                child.anonymous = child.running.as_ref().and_then(|running| anonymous(running.pid)).or(child.anonymous);
            }
        }
        let (children, schedule, processes) = (&self.children, &self.schedule, &self.processes);
        let candidates = || {
            let living = children.iter().filter(|(_, child)| child.connected && child.ending.is_none());
            living
                .filter_map(|(id, child)| {
                    let lease = schedule.lease_of(*id);
                    Some(Candidate {
                        worker: *id,
                        anonymous: anonymous(child.running.as_ref()?.pid)?,
                        lease: lease.map(|(lease, _)| lease),
                        retriable: lease.is_none_or(|(_, retriable)| retriable),
                        lends: processes.get(id).is_some_and(|process| process.lends),
                    })
                })
                .collect()
        };
        match self.memory.pressure.look(now, room.bytes, room.total, candidates) {
            Relief::None => {}
            Relief::GiveBack => {
                let threshold = self.memory.limits.threshold(room.total);
                self.give_pages_back(threshold.saturating_mul(2).saturating_sub(room.bytes));
            }
            Relief::End(worker) => self.end_for_memory(worker, &room),
        }
        self.memory.last = Some((room, now));
        pause
    }

    fn end_for_memory(&mut self, worker: WorkerId, room: &Headroom) {
        let threshold = self.memory.limits.threshold(room.total);
        let Some(child) = self.children.get_mut(&worker) else { return };
        let pid = child.running.as_ref().map_or(0, |running| running.pid);
        let own = anonymous(pid).or(child.anonymous).map_or_else(|| "memory".to_owned(), mib);
        let message = format!(
            "the node ended worker pid={pid}, which had {own} of its own, before the kernel would have ended somebody: {}, \
             {} are to be left",
            figures(room),
            mib(threshold)
        );
        child.out_of_memory = Some(Failure::new(OUT_OF_MEMORY, message).hint(HINT));
        self.end_child(worker, How::Now);
        let actions = self.schedule.retire(worker);
        self.perform(actions);
    }
}

fn figures(room: &Headroom) -> String {
    let used = room.total.saturating_sub(room.bytes);
    format!("{} of {} were used ({}), {} were left", mib(used), mib(room.total), room.limit, mib(room.bytes))
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}
