//! What an engine's threads share under one lock, held for moments only.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::lane::Job;
use crate::health::Health;
use crate::map::{Doomed, Map};
use crate::stats::Meter;
use crate::storage::Refusal;
use crate::{Key, SpillError};

pub(super) type Done = Box<dyn FnOnce(Result<(), SpillError>) + Send>;

/// An object on its way out.
pub(super) struct Pending {
    pub(super) key: Key,
    pub(super) bytes: Bytes,
    pub(super) done: Done,
}

/// Objects that wait until there are enough for a segment.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) objects: Vec<Pending>,
    pub(super) bytes: u64,
    /// When the first one came.
    pub(super) since: Option<Instant>,
}

/// A target, as the choice among them sees it.
#[derive(Default)]
pub(super) struct Target {
    pub(super) health: Health,
    /// Bytes on their way there.
    pub(super) load: u64,
    /// What it shares a disk with; unknown until one of its threads has looked.
    pub(super) device: Option<u64>,
    last_turn: u64,
}

/// A deletion that failed.
pub(super) struct Retry {
    pub(super) doomed: Doomed,
    pub(super) at: Instant,
    pub(super) pause: Duration,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) batch: Batch,
    /// In the batch, or being written.
    pub(super) under_way: HashSet<Key>,
    /// Being written, but freed meanwhile.
    pub(super) freed: HashSet<Key>,
    pub(super) map: Map,
    pub(super) targets: Vec<Target>,
    turn: u64,
    next_segment: u64,
    pub(super) closed: bool,
    pub(super) compacting: bool,
    /// Compaction failed: not before then.
    pub(super) compact_after: Option<Instant>,
    /// Callbacks for the keeper to run.
    pub(super) notices: Vec<Job>,
    /// The keeper has ended, after a shutdown: callbacks run where they are found to be due.
    pub(super) keeper_ended: bool,
    pub(super) undeleted: Vec<Retry>,
    /// Segments that were found damaged: told once.
    pub(super) damaged: HashSet<u64>,
    pub(super) spilling: Meter,
    pub(super) restoring: Meter,
    pub(super) compacted_bytes: u64,
    pub(super) deleted_segments: u64,
}

impl State {
    pub(super) fn new(targets: usize) -> Self {
        Self { targets: (0..targets).map(|_| Target::default()).collect(), ..Self::default() }
    }

    /// A number that no other segment of the session has.
    pub(super) fn number(&mut self) -> u64 {
        self.next_segment += 1;
        self.next_segment
    }

    /// The target for the next write: one that is due for a trial, or of the healthy ones the one whose disk has the
    /// least to do; those that wait longest among equals.
    pub(super) fn choose(&mut self, refusals: &[(usize, Refusal)], now: Duration) -> Option<usize> {
        let mut by_device: HashMap<u64, u64> = HashMap::new();
        for target in &self.targets {
            if let Some(device) = target.device {
                *by_device.entry(device).or_default() += target.load;
            }
        }
        let mut order: Vec<usize> =
            (0..self.targets.len()).filter(|index| refusals.iter().all(|refusal| refusal.0 != *index)).collect();
        order.sort_by_key(|&index| {
            let target = &self.targets[index];
            let device = target.device.map_or(target.load, |device| by_device[&device]);
            (target.health == Health::Healthy, device, target.load, target.last_turn)
        });
        let chosen = order.into_iter().find(|&index| self.targets[index].health.admit(now))?;
        self.turn += 1;
        self.targets[chosen].last_turn = self.turn;
        Some(chosen)
    }

    /// Takes the batch if it is due.
    pub(super) fn take_batch(&mut self) -> Vec<Pending> {
        std::mem::take(&mut self.batch).objects
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_spread_over_devices_first_and_directories_then() {
        let mut state = State::new(3);
        for (target, device) in state.targets.iter_mut().zip([7, 7, 8]) {
            target.device = Some(device);
        }
        let mut chosen = Vec::new();
        for _ in 0..8 {
            let target = state.choose(&[], Duration::ZERO).unwrap();
            state.targets[target].load += 100;
            chosen.push(target);
        }
        let count = |index| chosen.iter().filter(|target| **target == index).count();
        assert_eq!((count(0), count(1), count(2)), (2, 2, 4), "{chosen:?}");
    }

    #[test]
    fn a_target_that_refused_is_left_out_until_its_pause_is_over() {
        let mut state = State::new(2);
        state.targets[0].health.refused(Refusal::Full, Duration::ZERO);
        for _ in 0..3 {
            assert_eq!(state.choose(&[], Duration::ZERO), Some(1));
        }
        assert_eq!(state.choose(&[(1, Refusal::Full)], Duration::ZERO), None);
        assert_eq!(state.choose(&[], Duration::from_secs(1)), Some(0), "its trial");
        assert_eq!(state.choose(&[], Duration::from_secs(1)), Some(1), "one trial at a time");
    }
}
