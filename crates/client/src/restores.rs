//! Objects that the node brings back from storage for this process, and parts of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

use heliostat_proto::message::{PART_MAX, TaskSpec, ToDaemon};
use heliostat_proto::{Blob, Bytes, Failure, Locator};
use heliostat_runtime::{ExecutionId, FunctionNumber, Handle, Place};
use heliostat_store::{Pin, PinError};

use crate::client::{Client, Shared};
use crate::ports::{Event, PortId};

/// Names objects that are being brought back.
pub type RestoreId = u32;

/// What this process has asked for.
#[derive(Default)]
pub(crate) struct Restores {
    state: Mutex<State>,
    /// Whether a task waits for its arguments.
    preparing: AtomicBool,
}

#[derive(Default)]
struct State {
    next: RestoreId,
    all: HashMap<RestoreId, Restore>,
    /// The task that is to begin as soon as its arguments are here.
    task: Option<Preparing>,
    ended: bool,
}

struct Preparing {
    execution: ExecutionId,
    spec: Box<TaskSpec>,
    function: Option<FunctionNumber>,
    restore: RestoreId,
}

struct Restore {
    wanted: Vec<Locator>,
    /// References that keep the objects meanwhile.
    handles: Vec<Handle>,
    asker: Asker,
    pins: Vec<Pin>,
    done: bool,
}

enum Asker {
    Port(PortId),
    Task,
    Thread(Sender<Result<Vec<Pin>, Failure>>),
}

/// A task that can begin.
#[derive(Debug)]
pub struct ReadyTask {
    /// Names it in this process.
    pub execution: ExecutionId,
    /// The task.
    pub spec: TaskSpec,
    /// Its function, if that is here.
    pub function: Option<FunctionNumber>,
    /// Keeps its arguments in memory until they have been read.
    pub pins: Vec<Pin>,
}

impl std::fmt::Debug for Restores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Restores").field("under_way", &self.lock().all.len()).finish_non_exhaustive()
    }
}

impl Restores {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn node_gone() -> Failure {
    Failure::new("NODE_DIED", "the node has ended")
}

impl Client {
    /// Brings back what is spilled among the values of these references: `None` when nothing is, else the port gets
    /// [`Event::Restored`]. Until [`Self::end_restore`] the references stay, and the values stay in memory.
    pub fn restore(&self, port: PortId, handles: &[Handle]) -> Option<RestoreId> {
        let stored = self.with_core(|core| {
            let locators: Vec<Locator> = handles
                .iter()
                .filter_map(|handle| match core.place(*handle) {
                    Place::Stored(locator) => Some(locator),
                    _ => None,
                })
                .collect();
            locators
        });
        if !stored.iter().any(|locator| self.is_spilled(locator)) {
            return None;
        }
        self.with_core(|core| handles.iter().for_each(|handle| core.retain(*handle)));
        Some(self.shared.ask_back(stored, handles.to_vec(), Asker::Port(port)))
    }

    /// The values need not be kept any more, or are not wanted.
    pub fn end_restore(&self, id: RestoreId) {
        let ended = self.shared.restores.lock().all.remove(&id);
        let Some(restore) = ended else { return };
        if !restore.done {
            self.shared.daemon.send(&ToDaemon::RestoreEnd { request: id.into() });
        }
        self.with_core(|core| restore.handles.into_iter().for_each(|handle| core.release(handle)));
    }

    /// Keeps the bytes of stored values in place while the pins live; blocks the calling thread while spilled ones are
    /// brought back.
    pub fn pin_all(&self, locators: &[Locator]) -> Result<Vec<Pin>, Failure> {
        let pinned: Result<Vec<Pin>, PinError> = locators.iter().map(|locator| self.pin(locator)).collect();
        match pinned {
            Ok(pins) => return Ok(pins),
            Err(PinError::Spilled { .. }) => {}
            Err(error) => return Err(freed(&error)),
        }
        let (sender, answer): (_, Receiver<Result<Vec<Pin>, Failure>>) = channel();
        self.shared.ask_back(locators.to_vec(), Vec::new(), Asker::Thread(sender));
        answer.recv().unwrap_or_else(|_| Err(node_gone()))
    }

    /// Whether an object has no memory now.
    pub fn is_spilled(&self, locator: &Locator) -> bool {
        matches!(self.pin(locator), Err(PinError::Spilled { .. }))
    }

    /// Takes the next task whose arguments are in memory, in the order of arrival. What is spilled of the first one is
    /// brought back, as a whole; then there is news of a task again.
    pub fn next_task(&self) -> Option<ReadyTask> {
        {
            let mut state = self.shared.restores.lock();
            if let Some(preparing) = state.task.take() {
                let restore = state.all.get(&preparing.restore)?;
                if !restore.done {
                    state.task = Some(preparing);
                    return None;
                }
                let pins = state.all.remove(&preparing.restore).map(|restore| restore.pins).unwrap_or_default();
                self.shared.restores.preparing.store(false, Ordering::Release);
                drop(state);
                let Preparing { execution, spec, function, .. } = preparing;
                if self.with_core(|core| !core.end_aborted(execution)) {
                    return Some(ReadyTask { execution, spec: *spec, function, pins });
                }
            }
        }
        let (execution, spec, function, code) = self.with_core(|core| {
            let id = core.next_execution()?;
            let execution = core.execution(id)?;
            let code = execution.function.and_then(|number| core.function(number)).cloned();
            Some((id, execution.spec.clone(), execution.function, code))
        })?;
        let blobs = spec.by_ref.iter().map(|(_, blob)| blob).chain([&spec.args]).chain(&code);
        let stored: Vec<Locator> = blobs
            .filter_map(|blob| match blob {
                Blob::Stored(locator) => Some(*locator),
                Blob::Inline(_) => None,
            })
            .collect();
        let pinned: Result<Vec<Pin>, PinError> = stored.iter().map(|locator| self.pin(locator)).collect();
        if matches!(pinned, Err(PinError::Spilled { .. })) {
            let mut state = self.shared.restores.lock();
            let restore = state.enter(stored.clone(), Vec::new(), Asker::Task);
            state.task = Some(Preparing { execution, spec: Box::new(spec), function, restore });
            self.shared.restores.preparing.store(true, Ordering::Release);
            drop(state);
            self.shared.daemon.send(&ToDaemon::Restore { request: restore.into(), locators: stored });
            return None;
        }
        // What is gone is found out by whoever reads it.
        Some(ReadyTask { execution, spec, function, pins: pinned.unwrap_or_default() })
    }

    /// Whether a task that was taken waits for its arguments, which come before all tasks behind it; with whether they are
    /// there, so that [`Self::next_task`] gives it.
    pub fn prepares_task(&self) -> Option<bool> {
        if !self.shared.restores.preparing.load(Ordering::Acquire) {
            return None;
        }
        let state = self.shared.restores.lock();
        let preparing = state.task.as_ref()?;
        Some(state.all.get(&preparing.restore).is_none_or(|restore| restore.done))
    }

    /// Bytes of a stored value: from memory, or from storage without bringing the value back. Blocks.
    pub fn read_part(&self, locator: &Locator, start: u64, length: u64) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::with_capacity(length as usize);
        while (bytes.len() as u64) < length {
            let at = start + bytes.len() as u64;
            let rest = (length - bytes.len() as u64).min(PART_MAX);
            match self.pin(locator) {
                Ok(pin) => {
                    let part = pin.bytes().get(at as usize..(at + rest) as usize);
                    bytes
                        .extend_from_slice(part.ok_or_else(|| Failure::new("INTERNAL", "a range outside of a value"))?);
                }
                Err(PinError::Spilled { .. }) => {
                    let (request, answer) = self.shared.parts.begin().ok_or_else(node_gone)?;
                    self.shared.daemon.send(&ToDaemon::ReadPart {
                        request,
                        locator: *locator,
                        start: at,
                        length: rest,
                    });
                    if let Some(part) = answer.recv().map_err(|_| node_gone())?? {
                        bytes.extend_from_slice(&part);
                    }
                }
                Err(error) => return Err(freed(&error)),
            }
        }
        Ok(bytes)
    }

    /// Where a spilled object is kept; `None` when it is in memory.
    pub fn locate(&self, locator: &Locator) -> Option<String> {
        if !self.is_spilled(locator) {
            return None;
        }
        let (request, answer) = self.shared.places.begin()?;
        self.shared.daemon.send(&ToDaemon::Locate { request, locator: *locator });
        answer.recv().ok().flatten()
    }
}

fn freed(error: &PinError) -> Failure {
    Failure::new("OBJECT_FREED", format!("the object's data is gone: {error}"))
}

impl State {
    fn enter(&mut self, wanted: Vec<Locator>, handles: Vec<Handle>, asker: Asker) -> RestoreId {
        // Far fewer are under way than there are numbers.
        let id = self.next & 0x7fff_ffff;
        self.next = self.next.wrapping_add(1);
        self.all.insert(id, Restore { wanted, handles, asker, pins: Vec::new(), done: false });
        id
    }
}

impl Shared {
    fn ask_back(&self, locators: Vec<Locator>, handles: Vec<Handle>, asker: Asker) -> RestoreId {
        let mut state = self.restores.lock();
        let id = state.enter(locators.clone(), handles, asker);
        let ended = state.ended;
        drop(state);
        if ended {
            self.restored(id.into(), vec![(0, node_gone())]);
        } else {
            self.daemon.send(&ToDaemon::Restore { request: id.into(), locators });
        }
        id
    }

    /// The daemon has brought back what it could.
    pub(crate) fn restored(&self, request: u64, failures: Vec<(u32, Failure)>) {
        let Ok(id) = RestoreId::try_from(request) else { return };
        let mut state = self.restores.lock();
        let Some(restore) = state.all.get_mut(&id).filter(|restore| !restore.done) else { return };
        let mut failure = failures.into_iter().next().map(|(_, failure)| failure);
        let mut again = false;
        if failure.is_none() {
            let pinned: Result<Vec<Pin>, PinError> =
                restore.wanted.iter().map(|locator| self.store.pin(locator)).collect();
            match pinned {
                Ok(pins) => restore.pins = pins,
                // The node ended its care before we came to it.
                Err(PinError::Spilled { .. }) => again = true,
                Err(error) => failure = Some(freed(&error)),
            }
        }
        self.daemon.send(&ToDaemon::RestoreEnd { request });
        if again {
            self.daemon.send(&ToDaemon::Restore { request, locators: restore.wanted.clone() });
            return;
        }
        restore.done = true;
        match &restore.asker {
            Asker::Port(port) => {
                let port = *port;
                drop(state);
                self.ports.tell(port, Event::Restored(id));
            }
            Asker::Task => {
                drop(state);
                self.ports.tell_main(Event::Task);
            }
            Asker::Thread(_) => {
                let Some(Restore { asker: Asker::Thread(sender), pins, .. }) = state.all.remove(&id) else { return };
                drop(state);
                // Whoever asked waits.
                let _ = sender.send(failure.map_or(Ok(pins), Err));
            }
        }
    }

    /// The node ended: nothing comes back any more.
    pub(crate) fn end_restores(&self) {
        self.parts.end();
        self.places.end();
        let mut state = self.restores.lock();
        state.ended = true;
        let waiting: Vec<RestoreId> = state.all.iter().filter(|(_, r)| !r.done).map(|(id, _)| *id).collect();
        drop(state);
        for id in waiting {
            self.restored(id.into(), vec![(0, node_gone())]);
        }
    }
}

/// What the daemon answers to a request for a part.
pub(crate) type Part = Result<Option<Bytes>, Failure>;
