//! Waiting for several references at once.

use crate::action::{Action, Handle, WaitId};
use crate::core::{Core, Values};
use crate::objects::{Count, Place};
use crate::slab::Slab;

/// Waits for more references than this are looked up by their references, instead of being noted at each of them.
const MANY: usize = 8;

/// The waits of a process.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    table: Slab<Wait>,
}

#[derive(Debug)]
struct Wait {
    /// Of a wait that is noted at its references.
    handles: Vec<Handle>,
    /// References that must still get their value.
    missing: usize,
    /// Over as soon as one failed.
    fail_fast: bool,
    over: bool,
}

impl Waits {
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }
}

impl Core {
    /// Waits until `needed` of `handles` have a value, or with `fail_fast` until one of them failed; `None` when that is
    /// so already. While it lasts, and until [`Core::end_wait`], the references stay, whatever the program releases.
    pub fn wait(&mut self, handles: &[Handle], needed: usize, fail_fast: bool, look: &dyn Values) -> Option<WaitId> {
        let mut ready = 0;
        for handle in handles {
            let mut place = self.place(*handle);
            if place == Place::Pending {
                self.need(*handle, look);
                place = self.place(*handle);
            }
            if place == Place::Failed && fail_fast {
                return None;
            }
            ready += usize::from(place != Place::Pending);
            if ready >= needed && !fail_fast {
                return None;
            }
        }
        if ready >= needed {
            return None;
        }
        let wait = Wait { handles: Vec::new(), missing: needed - ready, fail_fast, over: false };
        let id = self.waits.table.insert(wait);
        if handles.len() <= MANY || !self.objects.watches.begin(id, handles) {
            self.note_wait(id, handles);
        }
        Some(id)
    }

    fn note_wait(&mut self, id: WaitId, handles: &[Handle]) {
        for handle in handles {
            self.objects.add(*handle, Count::Held);
            if let Some(object) = self.objects.get_mut(*handle)
                && object.value.is_none()
            {
                object.extra().waits.push(id);
            }
        }
        if let Some(wait) = self.waits.table.get_mut(id) {
            wait.handles = handles.to_vec();
        }
    }

    /// A wait for something else than references, which [`Self::wake`] ends.
    pub(crate) fn open_wait(&mut self) -> WaitId {
        self.waits.table.insert(Wait { handles: Vec::new(), missing: 1, fail_fast: false, over: false })
    }

    /// Ends waits of [`Self::open_wait`].
    pub(crate) fn wake(&mut self, waits: Vec<WaitId>) {
        for id in waits {
            if let Some(wait) = self.waits.table.get_mut(id) {
                wait.over = true;
                self.actions.push(Action::Wake(id));
            }
        }
    }

    /// Whether the wait is over; unknown waits are.
    pub fn is_over(&self, id: WaitId) -> bool {
        self.waits.table.get(id).is_none_or(|wait| wait.over)
    }

    /// Gives a wait up, over or not.
    pub fn end_wait(&mut self, id: WaitId) {
        let Some(wait) = self.waits.table.remove(id) else { return };
        if wait.handles.is_empty() && !wait.over {
            // Its number is used again: nobody may keep it.
            self.streams.forget_wait(id);
            self.executions.forget_wait(id);
        }
        let mut released = Vec::new();
        self.objects.end_watch(id, &mut released);
        self.after_release(released);
        for handle in wait.handles {
            if !wait.over
                && let Some(object) = self.objects.get_mut(handle)
                && let Some(extra) = &mut object.extra
            {
                extra.waits.retain(|other| *other != id);
            }
            self.drop_count(handle, Count::Held);
        }
    }

    /// The reference got its value, or failed; `noted` are the waits that stand at it.
    pub(crate) fn waits_ready(&mut self, handle: Handle, noted: Vec<WaitId>, failed: bool) {
        let watching = self.objects.watches.of(handle);
        for id in noted.into_iter().chain(watching) {
            let Some(wait) = self.waits.table.get_mut(id) else { continue };
            wait.missing = wait.missing.saturating_sub(1);
            if !wait.over && (wait.missing == 0 || failed && wait.fail_fast) {
                wait.over = true;
                // Ids of waits are used again: those that are over must not stay with the rest of their references.
                let rest = wait.handles.clone();
                for other in rest {
                    if let Some(extra) = self.objects.get_mut(other).and_then(|object| object.extra.as_mut()) {
                        extra.waits.retain(|entry| *entry != id);
                    }
                }
                self.actions.push(Action::Wake(id));
            }
        }
    }
}
