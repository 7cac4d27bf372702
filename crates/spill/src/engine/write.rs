//! Batches on their way to a target, and to the next one when it refuses.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::lane::Class;
use super::state::{Pending, State};
use super::{Shared, contained};
use crate::config::Event;
use crate::error::SpillError;
use crate::format::{Layout, checksums, header, tail};
use crate::health::Change;
use crate::map::Written;
use crate::storage::{Refusal, Storage, StorageError};
use crate::{Key, Session};

/// From so many bytes on, checksums are made while the disk writes.
const CONCURRENT_FROM: u64 = 8 << 20;

/// A batch, and who refused it.
struct Attempt {
    objects: Vec<Pending>,
    bytes: u64,
    sums: OnceLock<Arc<[u64]>>,
    refusals: Vec<(usize, Refusal)>,
}

impl Shared {
    /// Sends a batch to a target.
    pub(super) fn dispatch(self: &Arc<Self>, objects: Vec<Pending>) {
        let bytes = objects.iter().map(|pending| pending.bytes.len() as u64).sum();
        self.lock().spilling.begin();
        self.send(Attempt { objects, bytes, sums: OnceLock::new(), refusals: Vec::new() });
    }

    fn send(self: &Arc<Self>, attempt: Attempt) {
        let mut state = self.lock();
        let error = if state.closed {
            SpillError::ShutDown
        } else if let Some(target) = state.choose(&attempt.refusals, self.now()) {
            state.targets[target].load += attempt.bytes;
            // Under the lock: no thread of a target ends while a batch is on its way to it.
            self.push(target, Class::Write, move |shared| shared.write(target, attempt));
            return;
        } else {
            let uri = |index: usize| self.storage(index).uri().to_owned();
            let refusals = state.targets.iter().enumerate().map(|(index, target)| {
                let tried = attempt.refusals.iter().find(|refusal| refusal.0 == index).map(|refusal| refusal.1);
                (uri(index), tried.or(target.health.refusal()).unwrap_or(Refusal::Failed))
            });
            SpillError::OutOfDisk { refusals: refusals.collect() }
        };
        let mut notices = Vec::with_capacity(attempt.objects.len());
        let mut failed = 0;
        for pending in attempt.objects {
            state.under_way.remove(&pending.key);
            let freed = state.freed.remove(&pending.key);
            failed += u64::from(!freed);
            let error = if freed { SpillError::Freed } else { error.clone() };
            notices.push((pending, error));
        }
        state.spilling.end((0, 0), failed);
        // Not here: the caller's thread may be the one that called `spill`.
        self.notify(state, move || notices.into_iter().for_each(|(pending, error)| (pending.done)(Err(error))));
    }

    fn write(self: &Arc<Self>, target: usize, mut attempt: Attempt) {
        let mut state = self.lock();
        let closed = state.closed;
        let open = state.targets[target].health.is_open();
        let number = state.number();
        drop(state);
        let storage = self.storage(target);
        let result = if closed {
            Err(StorageError::Cancelled)
        } else if open {
            let objects: Vec<_> = attempt.objects.iter().map(|pending| (pending.key, pending.bytes.clone())).collect();
            let name = (self.session, number);
            contained(|| write_segment(storage, name, &objects, &attempt.sums))
        } else {
            // It was suspended while the batch waited.
            Err(StorageError::Refused { why: Refusal::Failed, detail: String::new() })
        };
        let mut state = self.lock();
        state.targets[target].load -= attempt.bytes;
        match result {
            Ok(written) => self.finish(state, target, written, attempt.objects),
            Err(StorageError::Cancelled) => {
                state.targets[target].health.undecided();
                drop(state);
                self.send(attempt);
            }
            Err(_) if !open => {
                let why = state.targets[target].health.refusal().unwrap_or(Refusal::Failed);
                drop(state);
                attempt.refusals.push((target, why));
                self.send(attempt);
            }
            Err(error) => {
                let why = refusal(&error);
                let change = state.targets[target].health.refused(why, self.now());
                drop(state);
                self.tell_change(target, change, &detail(&error));
                attempt.refusals.push((target, why));
                self.send(attempt);
            }
        }
    }

    /// The segment is there: its objects are spilled, except those that were freed meanwhile.
    fn finish(
        self: &Arc<Self>,
        mut state: std::sync::MutexGuard<'_, State>,
        target: usize,
        written: Segment,
        objects: Vec<Pending>,
    ) {
        let change = state.targets[target].health.succeeded();
        state.map.add(written.into_map(target));
        let bytes = objects.iter().map(|pending| pending.bytes.len() as u64).sum();
        state.spilling.end((objects.len() as u64, bytes), 0);
        let mut doomed = Vec::new();
        let mut results = Vec::with_capacity(objects.len());
        for pending in &objects {
            state.under_way.remove(&pending.key);
            let freed = state.freed.remove(&pending.key);
            if freed {
                doomed.extend(state.map.free(&pending.key).ok().flatten());
            }
            results.push(if freed { Err(SpillError::Freed) } else { Ok(()) });
        }
        drop(state);
        self.tell_change(target, change, "");
        for doomed in doomed {
            self.push_delete(doomed, super::DELETE_PAUSE);
        }
        self.wake.notify_one(); // what was freed may leave something to compact
        for (pending, result) in objects.into_iter().zip(results) {
            let Pending { bytes, done, .. } = pending;
            drop(bytes);
            done(result);
        }
    }

    pub(super) fn tell_change(&self, target: usize, change: Option<Change>, detail: &str) {
        let uri = self.storage(target).uri().to_owned();
        match change {
            Some(Change::Suspended(why)) => self.tell(Event::Suspended { uri, why, detail: detail.to_owned() }),
            Some(Change::Recovered) => self.tell(Event::Recovered { uri }),
            None => {}
        }
    }
}

/// A segment that a storage took.
pub(super) struct Segment {
    number: u64,
    layout: Layout,
    objects: Vec<(Key, u64)>,
    sums: Arc<[u64]>,
}

impl Segment {
    pub(super) fn into_map(self, target: usize) -> Written {
        let place = |((key, length), offset)| (key, offset, length);
        Written {
            target,
            segment: self.number,
            file_length: self.layout.length,
            objects: self.objects.into_iter().zip(self.layout.offsets).map(place).collect(),
            checksums: self.sums,
        }
    }
}

/// Writes objects as one segment. Checksums are kept in `sums` for the next try.
pub(super) fn write_segment(
    storage: &dyn Storage,
    (session, number): (Session, u64),
    objects: &[(Key, Bytes)],
    sums: &OnceLock<Arc<[u64]>>,
) -> Result<Segment, StorageError> {
    storage.prepare()?;
    let lengths: Vec<_> = objects.iter().map(|(key, bytes)| (*key, bytes.len() as u64)).collect();
    let layout = Layout::of(lengths.iter().map(|object| object.1));
    let body = body(header(session, number), objects, &layout);
    let sum = || -> Arc<[u64]> { objects.iter().flat_map(|(_, bytes)| checksums(bytes)).collect() };
    std::thread::scope(|scope| {
        let total: u64 = lengths.iter().map(|object| object.1).sum();
        if total >= CONCURRENT_FROM {
            // Where there are no more threads, `tail` does it.
            let _ = std::thread::Builder::new().name("spill-sum".into()).spawn_scoped(scope, || sums.get_or_init(sum));
        }
        storage.write(number, &body, &mut || tail(number, &layout, &lengths, sums.get_or_init(sum)))
    })?;
    let sums = Arc::clone(sums.get_or_init(sum));
    Ok(Segment { number, layout, objects: lengths, sums })
}

/// Header, objects and what lies between them, up to the index.
fn body(header: Bytes, objects: &[(Key, Bytes)], layout: &Layout) -> Vec<Bytes> {
    static ZEROS: [u8; crate::format::BLOCK as usize] = [0; crate::format::BLOCK as usize];
    let mut end = header.len() as u64;
    let mut body = vec![header];
    let pad = |body: &mut Vec<Bytes>, from: u64, to: u64| {
        if to > from {
            body.push(Bytes::from_static(&ZEROS[..(to - from) as usize]));
        }
    };
    for ((_, bytes), offset) in objects.iter().zip(&layout.offsets) {
        pad(&mut body, end, *offset);
        body.push(bytes.clone());
        end = offset + bytes.len() as u64;
    }
    pad(&mut body, end, layout.index);
    body
}

pub(super) fn refusal(error: &StorageError) -> Refusal {
    match error {
        StorageError::Refused { why, .. } => *why,
        StorageError::Gone => Refusal::Missing,
        StorageError::CutOff | StorageError::Cancelled => Refusal::Failed,
    }
}

pub(super) fn detail(error: &StorageError) -> String {
    match error {
        StorageError::Refused { detail, .. } => detail.clone(),
        other => other.to_string(),
    }
}
