//! A target's threads and what waits for them. Each target has its own: a slow one holds up nobody else.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::storage::{Buffers, Storage};

/// Runs on a thread of the target. It sees itself whether the engine is shutting down: it runs in any case.
pub(super) type Job = Box<dyn FnOnce() + Send>;

/// What comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Somebody waits for the bytes.
    Read,
    /// Short: deletions, heartbeats.
    Small,
    Write,
    /// Compaction and sweeps.
    Chore,
}

/// After so many writes a chore comes first, else a target under pressure would never be compacted.
const WRITES_PER_CHORE: u32 = 8;

pub(super) struct Lane {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) buffers: Buffers,
    threads: usize,
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    reads: VecDeque<Job>,
    smalls: VecDeque<Job>,
    writes: VecDeque<Job>,
    chores: VecDeque<Job>,
    running: usize,
    running_others: usize,
    writes_since_chore: u32,
    closed: bool,
    alive: usize,
}

impl Lane {
    pub(super) fn new(storage: Arc<dyn Storage>, threads: usize) -> Self {
        let buffers = Buffers::new(threads);
        Self { storage, buffers, threads, queue: Mutex::default(), wake: Condvar::new() }
    }

    /// Starts the threads. The last to end runs `last`.
    pub(super) fn start(self: &Arc<Self>, last: impl Fn() + Send + Sync + 'static) -> std::io::Result<()> {
        let last = Arc::new(last);
        for _ in 0..self.threads {
            let (lane, last) = (Arc::clone(self), Arc::clone(&last));
            self.lock().alive += 1;
            let thread = std::thread::Builder::new().name("spill-io".into()).spawn(move || {
                lane.work();
                let mut queue = lane.lock();
                queue.alive -= 1;
                let is_last = queue.alive == 0;
                drop(queue);
                if is_last {
                    last();
                }
            });
            if let Err(error) = thread {
                self.lock().alive -= 1;
                return Err(error);
            }
        }
        Ok(())
    }

    pub(super) fn push(&self, class: Class, job: Job) {
        let mut queue = self.lock();
        match class {
            Class::Read => queue.reads.push_back(job),
            Class::Small => queue.smalls.push_back(job),
            Class::Write => queue.writes.push_back(job),
            Class::Chore => queue.chores.push_back(job),
        }
        drop(queue);
        self.wake.notify_one();
    }

    /// What waits is still run; then the threads end.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }

    /// Threads that have nothing to do now.
    pub(super) fn idle(&self) -> usize {
        let queue = self.lock();
        self.threads.saturating_sub(queue.running + queue.reads.len())
    }

    fn work(&self) {
        let mut queue = self.lock();
        loop {
            let Some((class, job)) = self.next(&mut queue) else {
                if queue.closed && queue.is_empty() {
                    // Others may wait for the place of a job that was run meanwhile.
                    self.wake.notify_all();
                    return;
                }
                queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let others = usize::from(class != Class::Read);
            queue.running += 1;
            queue.running_others += others;
            drop(queue);
            // A bug in one job, or in a caller's callback, does not take the thread from the others.
            let _ = std::panic::catch_unwind(AssertUnwindSafe(job));
            queue = self.lock();
            queue.running -= 1;
            queue.running_others -= others;
            if others > 0 {
                self.wake.notify_one();
            }
        }
    }

    fn next(&self, queue: &mut Queue) -> Option<(Class, Job)> {
        if let Some(job) = queue.reads.pop_front() {
            return Some((Class::Read, job));
        }
        // The last thread is for reads: a get does not wait for a stalled write.
        if queue.running_others >= self.threads.saturating_sub(1).max(1) {
            return None;
        }
        if let Some(job) = queue.smalls.pop_front() {
            return Some((Class::Small, job));
        }
        let chore_first = queue.writes_since_chore >= WRITES_PER_CHORE && !queue.chores.is_empty();
        if !chore_first && let Some(job) = queue.writes.pop_front() {
            queue.writes_since_chore += 1;
            return Some((Class::Write, job));
        }
        let job = queue.chores.pop_front()?;
        queue.writes_since_chore = 0;
        Some((Class::Chore, job))
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.reads.is_empty() && self.smalls.is_empty() && self.writes.is_empty() && self.chores.is_empty()
    }
}
