//! Waiting for several references at once.

use heliostat_proto::Value;

use crate::action::{Action, Handle, WaitId};
use crate::core::{Core, Values};
use crate::objects::Count;
use crate::slab::Slab;

/// The waits of a process.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    table: Slab<Wait>,
}

#[derive(Debug)]
struct Wait {
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
            if self.small(*handle).is_some() {
                ready += 1;
                continue;
            }
            self.need(*handle, look);
            match self.value(*handle) {
                Some(Value::Failed(_)) if fail_fast => return None,
                Some(_) => ready += 1,
                None => {}
            }
        }
        if ready >= needed {
            return None;
        }
        let missing = needed - ready;
        let id = self.waits.table.insert(Wait { handles: handles.to_vec(), missing, fail_fast, over: false });
        for handle in handles {
            self.objects.add(*handle, Count::Held);
            if let Some(object) = self.objects.get_mut(*handle)
                && object.value.is_none()
            {
                object.extra().waits.push(id);
            }
        }
        Some(id)
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

    pub(crate) fn waits_ready(&mut self, handle: Handle, waits: Vec<WaitId>, failed: bool) {
        for id in waits {
            let Some(wait) = self.waits.table.get_mut(id) else { continue };
            debug_assert!(wait.handles.contains(&handle));
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
