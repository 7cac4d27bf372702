//! Values that arrive inline while this process keeps enough of them: they go to the store, in the background.
//!
//! What the program puts is counted before it is laid out; what others send is there when it is counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError, Weak};
use std::thread::JoinHandle;

use heliostat_proto::blob::{BlobView, Layout};
use heliostat_proto::{Bytes, Locator, ObjectId, RefEntry};

use crate::client::Shared;
use crate::values::ALWAYS_INLINE;

/// Has values moved when too many are inline.
#[derive(Debug)]
pub(crate) struct Mover {
    limit: u64,
    /// Above so many bytes the thread is told.
    next: AtomicU64,
    thread: Mutex<Thread>,
}

#[derive(Debug)]
enum Thread {
    No,
    Runs(SyncSender<()>, JoinHandle<()>),
    Ended,
}

impl Mover {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, next: AtomicU64::new(limit), thread: Mutex::new(Thread::No) }
    }

    /// Looks whether too much is inline. Called under the lock of the state machine: costs one comparison.
    #[inline]
    pub(crate) fn look(&self, inline: u64, shared: &Weak<Shared>) {
        if inline > self.next.load(Ordering::Relaxed) {
            self.begin(shared);
        }
    }

    #[cold]
    fn begin(&self, shared: &Weak<Shared>) {
        // Until the thread says otherwise.
        self.next.store(u64::MAX, Ordering::Relaxed);
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*thread, Thread::No) {
            let (nudge, nudges) = sync_channel(1);
            let shared = Weak::clone(shared);
            let spawned =
                std::thread::Builder::new().name("heliostat-inline".into()).spawn(move || run(&nudges, &shared));
            // Without a thread everything stays inline, which is no worse than before.
            *thread = spawned.map_or(Thread::Ended, |handle| Thread::Runs(nudge, handle));
        }
        if let Thread::Runs(nudge, _) = &*thread {
            nudge.try_send(()).ok(); // full: it is being told already
        }
    }

    /// Ends the thread, before this process leaves the store.
    pub(crate) fn end(&self) {
        let thread = std::mem::replace(&mut *self.thread.lock().unwrap_or_else(PoisonError::into_inner), Thread::Ended);
        if let Thread::Runs(nudge, handle) = thread {
            drop(nudge);
            // A panic there has been reported by the panic hook.
            let _ = handle.join();
        }
    }
}

fn run(nudges: &Receiver<()>, shared: &Weak<Shared>) {
    while let (Ok(()), Some(shared)) = (nudges.recv(), shared.upgrade()) {
        let limit = shared.mover.limit;
        while shared.lock_core().inline_bytes() > limit && shared.move_some() {}
        // If nothing can be moved now, then perhaps when some more is there.
        let left = shared.lock_core().inline_bytes();
        let next = if left > limit { left + limit / 8 } else { limit };
        shared.mover.next.store(next, Ordering::Relaxed);
    }
}

impl Shared {
    /// Moves values until the others are below the limit by some, so that it does not happen for each; `false` when none
    /// could be.
    fn move_some(&self) -> bool {
        let limit = self.mover.limit;
        let chosen = {
            let core = self.lock_core();
            core.inline_values(ALWAYS_INLINE, core.inline_bytes().saturating_sub(limit - limit / 8))
        };
        let mut any = false;
        for (handle, id, bytes) in chosen {
            if self.stopping.load(Ordering::Acquire) || self.left.load(Ordering::Acquire) {
                return false;
            }
            let Some(locator) = self.move_to_store(id, &bytes) else { return false };
            any = true;
            if !self.with_core(|core| core.move_to_store(handle, &bytes, locator)) {
                self.store.free(&[locator]);
            }
        }
        any
    }

    /// The same value, laid out in the store; `None` when it has no room, or is none.
    fn move_to_store(&self, id: ObjectId, bytes: &Bytes) -> Option<Locator> {
        let view = BlobView::parse(bytes).ok()?;
        let refs: Vec<RefEntry> = view.refs().collect();
        let buffers: Vec<&[u8]> = (0..view.buffers().len()).map_while(|index| view.buffer(index)).collect();
        let lens = buffers.iter().map(|buffer| buffer.len() as u64);
        let layout = Layout::new(view.header().len(), lens, refs.len(), true);
        let mut stored = vec![0; layout.total() as usize];
        layout.write(&mut stored, view.header(), &buffers, &refs);
        self.store.put_parts(id, heliostat_store::Layout::new(0), &[&stored]).ok()
    }
}
