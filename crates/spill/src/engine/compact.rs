//! Segments of which little is in use: what lives in them moves together, and they go.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::lane::Class;
use super::write::{detail, refusal, write_segment};
use super::{DELETE_PAUSE, Shared, contained};
use crate::Key;
use crate::map::{Compaction, Written};
use crate::storage::StorageError;

/// Living bytes that one compaction holds in memory, unless a single segment has more (less than half of a batch).
const LIMIT: u64 = 64 << 20;
/// After a failed compaction.
const PAUSE: Duration = Duration::from_secs(10);

impl Shared {
    /// Starts a compaction if there is something to do and none goes on.
    pub(super) fn compact(self: &Arc<Self>) {
        let mut state = self.lock();
        let pausing = state.compact_after.is_some_and(|after| Instant::now() < after);
        if state.closed || state.compacting || pausing {
            return;
        }
        let Some(compaction) = state.map.begin_compaction(LIMIT) else { return };
        state.compacting = true;
        state.compact_after = None;
        self.push(compaction.target, Class::Chore, move |shared| shared.run_compaction(&compaction));
    }

    fn run_compaction(self: &Arc<Self>, compaction: &Compaction) {
        let mut objects: Vec<(Key, Bytes)> = Vec::with_capacity(compaction.objects.len());
        for (key, at) in &compaction.objects {
            if self.lock().map.find(key).is_none() {
                continue; // freed meanwhile
            }
            let mut bytes = vec![0; at.length as usize];
            let result = self.fetch(at, 0, &mut bytes);
            self.tell_damage(at, &result);
            if result.is_ok() {
                objects.push((*key, bytes.into()));
            }
        }
        let moved = if objects.is_empty() { Ok(None) } else { self.rewrite(&objects).map(Some) };
        let mut state = self.lock();
        state.compacting = false;
        let retry = moved.is_err();
        if retry {
            state.compact_after = Some(Instant::now() + PAUSE);
        } else {
            state.compacted_bytes += objects.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
        }
        let doomed = state.map.end_compaction(&compaction.segments, moved.ok().flatten(), retry);
        drop(state);
        for doomed in doomed {
            self.push_delete(doomed, DELETE_PAUSE);
        }
        self.wake.notify_one(); // there may be more to do
    }

    fn rewrite(self: &Arc<Self>, objects: &[(Key, Bytes)]) -> Result<Written, StorageError> {
        let mut state = self.lock();
        if state.closed {
            return Err(StorageError::Cancelled);
        }
        let now = self.now();
        let Some(target) = state.choose(&[], now) else { return Err(StorageError::Cancelled) };
        let number = state.number();
        drop(state);
        let name = (self.session, number);
        let result = contained(|| write_segment(self.storage(target), name, objects, &OnceLock::new()));
        let mut state = self.lock();
        let health = &mut state.targets[target].health;
        let (change, text) = match &result {
            Ok(_) => (health.succeeded(), String::new()),
            Err(StorageError::Cancelled) => {
                health.undecided();
                (None, String::new())
            }
            Err(error) => (health.refused(refusal(error), now), detail(error)),
        };
        drop(state);
        self.tell_change(target, change, &text);
        result.map(|segment| segment.into_map(target))
    }
}
