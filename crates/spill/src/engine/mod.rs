//! The engine: requests in, completions out; nothing blocks the caller.

mod compact;
mod keeper;
mod lane;
mod read;
mod state;
mod write;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::lane::{Class, Lane};
use self::state::{Batch, Pending, Retry, State};
use crate::config::{Config, Event};
use crate::error::{OpenError, SpillError};
use crate::map::Doomed;
use crate::stats::Stats;
use crate::storage::{self, Refusal, Storage, StorageError};
use crate::{Key, Session};

/// First pause before a failed deletion is tried again; doubled each time.
const DELETE_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_DELETE_PAUSE: Duration = Duration::from_secs(60);

/// Spills objects and restores them.
///
/// Every call but [`Engine::shutdown`] returns at once. Completions are called from the engine's threads (after a shutdown
/// from the caller's), exactly once, and must not block; they may call the engine. Bytes that were handed over are let go
/// before their completion is called; the connection to a server may hold them for a moment longer.
///
/// Dropping an engine shuts it down and waits for at most 10 seconds.
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    session: Session,
    min_spilling_size: u64,
    flush_after: Duration,
    threads: usize,
    events: Arc<dyn Fn(Event) + Send + Sync>,
    lanes: Vec<Arc<Lane>>,
    state: Mutex<State>,
    /// Wakes the keeper.
    wake: Condvar,
    /// Times in `Health` count from here.
    origin: Instant,
    open: Mutex<Open>,
    ended: Condvar,
}

/// What has not ended yet.
struct Open {
    threads: usize,
    failures: Vec<(String, String)>,
}

impl Engine {
    /// Starts an engine. Touches no storage: what is wrong with a directory or a server shows in events and errors later,
    /// what is wrong with the settings shows here.
    pub fn open(config: Config) -> Result<Self, OpenError> {
        config.check()?; // before the settings are used
        let storages = storage::open(&config)?;
        Self::with_storages(config, storages)
    }

    /// The same over storages of the caller's own, instead of those that `config.uris` names.
    pub fn with_storages(config: Config, storages: Vec<Arc<dyn Storage>>) -> Result<Self, OpenError> {
        config.check()?;
        if storages.is_empty() {
            return Err(OpenError::NoTarget);
        }
        let threads = config.max_io_workers;
        let lanes: Vec<_> = storages.into_iter().map(|storage| Arc::new(Lane::new(storage, threads))).collect();
        let shared = Arc::new(Shared {
            session: config.session,
            min_spilling_size: config.min_spilling_size,
            flush_after: config.flush_after,
            threads,
            events: config.events,
            state: Mutex::new(State::new(lanes.len())),
            wake: Condvar::new(),
            origin: Instant::now(),
            open: Mutex::new(Open { threads: lanes.len() + 1, failures: Vec::new() }),
            ended: Condvar::new(),
            lanes,
        });
        let engine = Self { shared: Arc::clone(&shared) };
        let os = |error: std::io::Error| OpenError::Os(error.to_string());
        for (index, lane) in shared.lanes.iter().enumerate() {
            let ending = Arc::clone(&shared);
            lane.start(move || ending.lane_ended(index)).map_err(os)?;
            shared.push_look(index);
            if config.sweep {
                shared.push_sweep(index);
            }
        }
        keeper::start(shared).map_err(os)?;
        Ok(engine)
    }

    /// Writes an object to storage, alone or fused with others. With `Ok`, the copy in memory may go.
    pub fn spill(&self, key: Key, bytes: Bytes, done: impl FnOnce(Result<(), SpillError>) + Send + 'static) {
        let pending = Pending { key, bytes, done: Box::new(done) };
        let mut state = self.shared.lock();
        let refused = if state.closed {
            Some(SpillError::ShutDown)
        } else if state.under_way.contains(&key) || state.map.find(&key).is_some() {
            Some(SpillError::AlreadySpilled)
        } else {
            None
        };
        if let Some(error) = refused {
            return self.shared.notify(state, move || (pending.done)(Err(error)));
        }
        state.under_way.insert(key);
        let size = pending.bytes.len() as u64;
        if size >= self.shared.min_spilling_size {
            drop(state);
            return self.shared.dispatch(vec![pending]);
        }
        state.batch.since.get_or_insert_with(Instant::now);
        state.batch.bytes += size;
        state.batch.objects.push(pending);
        if state.batch.bytes >= self.shared.min_spilling_size {
            let batch = state.take_batch();
            drop(state);
            return self.shared.dispatch(batch);
        }
        let first = state.batch.objects.len() == 1;
        drop(state);
        if first {
            self.shared.wake.notify_one(); // the keeper sets its clock
        }
    }

    /// Writes what waits for more, because memory is needed now.
    pub fn flush(&self) {
        let batch = self.shared.lock().take_batch();
        if !batch.is_empty() {
            self.shared.dispatch(batch);
        }
    }

    /// Nobody needs this copy any more: its storage goes, now or with the segment that it lies in. One that is being
    /// spilled completes with [`SpillError::Freed`]. Returns whether the engine had it.
    pub fn free(&self, key: &Key) -> bool {
        let mut state = self.shared.lock();
        if let Ok(doomed) = state.map.free(key) {
            let sparse = state.map.is_sparse();
            drop(state);
            if let Some(doomed) = doomed {
                self.shared.push_delete(doomed, DELETE_PAUSE);
            }
            if sparse {
                self.shared.wake.notify_one();
            }
            return true;
        }
        if !state.under_way.contains(key) {
            return false;
        }
        let Some(index) = state.batch.objects.iter().position(|pending| pending.key == *key) else {
            return state.freed.insert(*key);
        };
        let pending = state.batch.objects.swap_remove(index);
        state.under_way.remove(key);
        state.batch.bytes -= pending.bytes.len() as u64;
        if state.batch.objects.is_empty() {
            state.batch = Batch::default();
        }
        self.shared.notify(state, move || (pending.done)(Err(SpillError::Freed)));
        true
    }

    /// The target that holds a copy, and the copy's length.
    pub fn locate(&self, key: &Key) -> Option<(&str, u64)> {
        let location = self.shared.lock().map.find(key)?;
        Some((self.shared.lanes[location.target].storage.uri(), location.length))
    }

    /// What was done and what is stored.
    pub fn stats(&self) -> Stats {
        let state = self.shared.lock();
        Stats {
            spilled: state.spilling.now(),
            restored: state.restoring.now(),
            compacted_bytes: state.compacted_bytes,
            deleted_segments: state.deleted_segments,
            undeleted_segments: state.undeleted.len() as u64,
            objects: state.map.len() as u64,
            object_bytes: state.map.live_bytes(),
            segments: state.map.segments() as u64,
            file_bytes: state.map.file_bytes(),
        }
    }

    /// Ends everything: what waits completes with `ShutDown`, what runs is given up, uploads are aborted, and all that this
    /// session stored is removed. Waits at most `patience`. Returns the targets that could not be cleaned up, and why; a
    /// later sweep does it.
    pub fn shutdown(&self, patience: Duration) -> Vec<(String, String)> {
        let shared = &self.shared;
        let mut state = shared.lock();
        let first = !std::mem::replace(&mut state.closed, true);
        let batch = state.take_batch();
        drop(state);
        if !batch.is_empty() {
            shared.dispatch(batch); // sees that the engine is closed
        }
        if first {
            for lane in &shared.lanes {
                lane.storage.cancel();
                lane.close();
            }
        }
        shared.wake.notify_all();
        let open = shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = shared.ended.wait_timeout_while(open, patience, |open| open.threads > 0);
        let (open, timeout) = wait.unwrap_or_else(PoisonError::into_inner);
        let mut failures = open.failures.clone();
        if timeout.timed_out() {
            failures.push(("spilling".into(), "a storage does not answer; its threads are left behind".into()));
        }
        failures
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shutdown(Duration::from_secs(10));
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let targets = self.shared.lanes.iter().map(|lane| lane.storage.uri());
        f.debug_list().entries(targets).finish()
    }
}

/// A bug in a storage, or in a library that it uses, fails one request; nobody waits for an answer that never comes.
fn contained<T, E: From<StorageError>>(call: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    std::panic::catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
        Err(StorageError::Refused { why: Refusal::Failed, detail: "its client panicked; this is a bug".into() }.into())
    })
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls a caller back, but not from its own call: it may hold locks that the callback wants.
    fn notify(&self, mut state: MutexGuard<'_, State>, notice: impl FnOnce() + Send + 'static) {
        if state.keeper_ended {
            drop(state);
            return notice();
        }
        state.notices.push(Box::new(notice));
        drop(state);
        self.wake.notify_one();
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn tell(&self, event: Event) {
        (self.events)(event);
    }

    fn storage(&self, target: usize) -> &dyn Storage {
        &*self.lanes[target].storage
    }

    fn push(self: &Arc<Self>, target: usize, class: Class, job: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let shared = Arc::clone(self);
        self.lanes[target].push(class, Box::new(move || job(&shared)));
    }

    /// Finds out which disk a target is on.
    fn push_look(self: &Arc<Self>, target: usize) {
        self.push(target, Class::Small, move |shared| {
            let device = shared.storage(target).device();
            shared.lock().targets[target].device = Some(device);
        });
    }

    fn push_sweep(self: &Arc<Self>, target: usize) {
        self.push(target, Class::Chore, move |shared| {
            let storage = shared.storage(target);
            let uri = storage.uri().to_owned();
            match contained(|| storage.sweep()) {
                Ok(swept) => shared.tell(Event::Swept { uri, swept }),
                Err(StorageError::Cancelled) => {}
                Err(error) => shared.tell(Event::SweepFailed { uri, detail: error.to_string() }),
            }
        });
    }

    fn push_delete(self: &Arc<Self>, doomed: Doomed, pause: Duration) {
        self.push(doomed.target, Class::Small, move |shared| {
            let result = contained(|| shared.storage(doomed.target).remove(doomed.segment));
            let mut state = shared.lock();
            match result {
                Ok(()) => state.deleted_segments += 1,
                Err(_) => {
                    let next = (pause * 2).min(LONGEST_DELETE_PAUSE);
                    state.undeleted.push(Retry { doomed, at: Instant::now() + pause, pause: next });
                    drop(state);
                    shared.wake.notify_one();
                }
            }
        });
    }

    /// The last thread of a target: what is left of the session there goes.
    fn lane_ended(&self, target: usize) {
        let storage = self.storage(target);
        let result = contained(|| storage.close());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = result {
            open.failures.push((storage.uri().to_owned(), error.to_string()));
        }
        open.threads -= 1;
        self.ended.notify_all();
    }

    fn keeper_ended(&self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).threads -= 1;
        self.ended.notify_all();
    }
}
