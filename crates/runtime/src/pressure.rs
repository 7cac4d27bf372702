//! Memory pressure: when the daemon ends a worker for want of memory, and which.
//!
//! A pure state machine. The daemon looks how much memory is left ([`Pressure::look`]) and does what it is told: give the
//! store's free pages back, then end one worker, then nothing until the memory of that one is really back.
//!
//! **Which.** Only a worker whose end helps: with at least half the anonymous memory of the largest one, since a worker
//! that has little beside one that has much is not the cause. Pages of the store never count, they are there whoever
//! reads them. Of those: workers that others hold references of come last, since what they own would be lost; then idle
//! ones go before leased ones, tasks that will be tried again before those that will not, and the newest lease first,
//! which has the least work to lose.

use std::cmp::Reverse;

use heliostat_proto::message::TaskSpec;
use heliostat_proto::{Failure, WorkerId};

/// How long the process of an ended worker may take to be gone before another one is looked for.
const DEATH_MS: u64 = 5_000;
/// How long the memory of a process that is gone may take to be back.
const RETURN_MS: u64 = 500;
/// How long the store may take to give its free pages back.
const GIVE_BACK_MS: u64 = 200;
/// Pauses between looks: the shortest, and the longest while memory is plenty.
const PAUSE_MS: (u64, u64) = (10, 1_000);
/// Memory that processes are taken to use up in a millisecond at most: 2 GB/s, page faults included.
const BYTES_PER_MS: u64 = 2 << 20;
/// Threshold and share of large nodes.
const LARGE: (u64, u64) = (128 << 20, 100);

/// When memory counts as short.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Share of all memory that shall be left. Where that is more than 128 MiB, 128 MiB or 1 % do.
    pub fraction: f64,
    /// Bytes that shall be left at least; 0 together with a `fraction` of 0 turns the monitor off.
    pub least: u64,
    /// A worker with less anonymous memory is never ended: it would not help.
    pub worthwhile: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { fraction: 0.05, least: 32 << 20, worthwhile: 64 << 20 }
    }
}

impl Limits {
    /// Bytes of which less must not be left, of so many in all.
    pub fn threshold(&self, total: u64) -> u64 {
        let share = (total as f64 * self.fraction) as u64;
        share.min(LARGE.0.max(total / LARGE.1)).max(self.least)
    }
}

/// A worker that might be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The worker.
    pub worker: WorkerId,
    /// Bytes of memory that are its alone.
    pub anonymous: u64,
    /// Its lease; later ones have larger numbers. `None`: it is idle.
    pub lease: Option<u64>,
    /// What runs there will be tried again.
    pub retriable: bool,
    /// Other processes hold references to objects that it owns.
    pub lends: bool,
}

/// What the daemon has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relief {
    /// Nothing.
    None,
    /// Give free pages of the store back to the system, then call [`Pressure::gave_back`]; it may be wanted again.
    GiveBack,
    /// End this worker, and call [`Pressure::gone`] when its process is gone.
    End(WorkerId),
}

/// The state machine.
#[derive(Debug)]
pub struct Pressure {
    limits: Limits,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Calm,
    /// The store gives pages back, since then.
    GivingBack(u64),
    /// It has none.
    GaveBack,
    Ending {
        worker: WorkerId,
        since: u64,
        gone: Option<u64>,
        /// With so much memory left, that of the worker is back.
        back_at: u64,
    },
}

impl Pressure {
    /// Watches for these limits.
    pub fn new(limits: Limits) -> Self {
        Self { limits, stage: Stage::Calm }
    }

    /// Looks at the memory at the time `now` in milliseconds: `left` bytes of `total`. `candidates` is asked only when
    /// memory is short.
    pub fn look(&mut self, now: u64, left: u64, total: u64, candidates: impl FnOnce() -> Vec<Candidate>) -> Relief {
        let threshold = self.limits.threshold(total);
        if left >= threshold {
            // A worker that is ended now has its memory still; the next look must not take it for freed twice.
            if !matches!(self.stage, Stage::Ending { gone: None, .. }) {
                self.stage = Stage::Calm;
            }
            return Relief::None;
        }
        match self.stage {
            Stage::Calm => {
                self.stage = Stage::GivingBack(now);
                return Relief::GiveBack;
            }
            Stage::GivingBack(since) if now < since + GIVE_BACK_MS => return Relief::None,
            Stage::Ending { since, gone: None, .. } if now < since + DEATH_MS => return Relief::None,
            Stage::Ending { gone: Some(gone), back_at, .. } if left < back_at && now < gone + RETURN_MS => {
                return Relief::None;
            }
            Stage::GivingBack(_) | Stage::GaveBack | Stage::Ending { .. } => {}
        }
        let Some(victim) = self.choose(&candidates()) else { return Relief::None };
        let back_at = left.saturating_add(victim.anonymous / 2);
        self.stage = Stage::Ending { worker: victim.worker, since: now, gone: None, back_at };
        Relief::End(victim.worker)
    }

    fn choose(&self, candidates: &[Candidate]) -> Option<Candidate> {
        let largest = candidates.iter().map(|candidate| candidate.anonymous).max()?;
        let helps = |candidate: &&Candidate| candidate.anonymous >= self.limits.worthwhile.max(largest / 2);
        let order = |candidate: &&Candidate| {
            (candidate.lends, candidate.lease.is_some(), !candidate.retriable, Reverse(candidate.lease))
        };
        candidates.iter().filter(helps).min_by_key(order).copied()
    }

    /// The store gave so many bytes back.
    pub fn gave_back(&mut self, bytes: u64) {
        if matches!(self.stage, Stage::GivingBack(_)) {
            self.stage = if bytes == 0 { Stage::GaveBack } else { Stage::Calm };
        }
    }

    /// The process of a worker is gone.
    pub fn gone(&mut self, ended: WorkerId, now: u64) {
        if let Stage::Ending { worker, gone, .. } = &mut self.stage
            && *worker == ended
        {
            gone.get_or_insert(now);
        }
    }

    /// Milliseconds until the next look: soon when memory may run short soon.
    pub fn pause(&self, left: u64, total: u64) -> u64 {
        let distance = left.saturating_sub(self.limits.threshold(total));
        (distance / BYTES_PER_MS).clamp(PAUSE_MS.0, PAUSE_MS.1)
    }
}

/// Tells deaths for which the kernel's counter of a control group accounts from others.
///
/// The counter says how many processes it ended, not which: each death by SIGKILL takes one, and what nobody takes within
/// a while was a process that is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kills {
    taken: u64,
    /// Since when the counter is ahead.
    ahead_since: Option<u64>,
}

impl Kills {
    /// How long a kill waits for the death that it explains, in milliseconds.
    const FRESH_MS: u64 = 2_000;

    /// The counter stood at `count` when the first process of the group came.
    pub fn new(count: u64) -> Self {
        Self { taken: count, ahead_since: None }
    }

    /// The counter stands at `count`, at the time `now`.
    pub fn look(&mut self, count: u64, now: u64) {
        if count <= self.taken {
            self.ahead_since = None;
        } else if now >= *self.ahead_since.get_or_insert(now) + Self::FRESH_MS {
            *self = Self::new(count);
        }
    }

    /// A process of the group was killed: whether the kernel did that for want of memory.
    pub fn take(&mut self, count: u64) -> bool {
        let explained = count > self.taken;
        if explained {
            self.taken += 1;
        }
        explained
    }
}

/// The code of a failure for want of memory.
pub const OUT_OF_MEMORY: &str = "OUT_OF_MEMORY";

/// What the submitter is told of a task whose worker ended: a failure for want of memory names the task and its attempt,
/// which the daemon does not know.
pub(crate) fn of_task(failure: &Failure, task: &TaskSpec) -> Failure {
    let mut failure = failure.clone();
    if failure.code == OUT_OF_MEMORY {
        failure.message = format!("{}() ran out of memory in attempt {}: {}", task.name, task.attempt, failure.message);
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const LIMITS: Limits = Limits { fraction: 0.05, least: 32 * MIB, worthwhile: 64 * MIB };

    fn worker(index: u8) -> WorkerId {
        WorkerId([index; 16])
    }

    fn running(index: u8, mib: u64) -> Candidate {
        let lease = Some(index.into());
        Candidate { worker: worker(index), anonymous: mib * MIB, lease, retriable: true, lends: false }
    }

    /// Under pressure, with a store that has no free pages.
    fn short() -> Pressure {
        let mut pressure = Pressure::new(LIMITS);
        assert_eq!(pressure.look(0, 0, 1000 * MIB, || unreachable!("first the store")), Relief::GiveBack);
        pressure.gave_back(0);
        pressure
    }

    fn chosen(candidates: &[Candidate]) -> Relief {
        short().look(1, 0, 1000 * MIB, || candidates.to_vec())
    }

    #[test]
    fn the_threshold_is_a_share_with_a_floor_and_less_on_large_nodes() {
        assert_eq!(LIMITS.threshold(100 * MIB), 32 * MIB);
        assert_eq!(LIMITS.threshold(1000 * MIB), 50 * MIB);
        assert_eq!(LIMITS.threshold(8000 * MIB), 128 * MIB);
        assert_eq!(LIMITS.threshold(100_000 * MIB), 1000 * MIB);
        assert_eq!(Limits { fraction: 0.0, least: 0, worthwhile: 0 }.threshold(u64::MAX), 0);
    }

    #[test]
    fn nobody_is_ended_while_memory_is_left() {
        let mut pressure = Pressure::new(LIMITS);
        for now in 0..100 {
            assert_eq!(pressure.look(now, 50 * MIB, 1000 * MIB, || vec![running(1, 900)]), Relief::None);
        }
        let mut off = Pressure::new(Limits { fraction: 0.0, least: 0, worthwhile: 0 });
        assert_eq!(off.look(0, 0, 1000 * MIB, || vec![running(1, 900)]), Relief::None);
    }

    #[test]
    fn the_stores_free_pages_go_first_and_are_waited_for() {
        let mut pressure = Pressure::new(LIMITS);
        let all = || vec![running(1, 500)];
        assert_eq!(pressure.look(0, 0, 1000 * MIB, all), Relief::GiveBack);
        assert_eq!(pressure.look(10, 0, 1000 * MIB, all), Relief::None);
        pressure.gave_back(5);
        assert_eq!(pressure.look(20, 0, 1000 * MIB, all), Relief::GiveBack);
        pressure.gave_back(0);
        assert_eq!(pressure.look(30, 0, 1000 * MIB, all), Relief::End(worker(1)));
        // A store that is busy is not waited for without end.
        let mut pressure = Pressure::new(LIMITS);
        pressure.look(0, 0, 1000 * MIB, all);
        assert_eq!(pressure.look(GIVE_BACK_MS, 0, 1000 * MIB, all), Relief::End(worker(1)));
    }

    #[test]
    fn the_large_one_goes_however_new_the_small_ones_are() {
        assert_eq!(chosen(&[running(1, 300), running(2, 60), running(3, 149)]), Relief::End(worker(1)));
    }

    #[test]
    fn of_like_ones_the_newest_retriable_goes() {
        assert_eq!(chosen(&[running(1, 300), running(2, 250), running(3, 200)]), Relief::End(worker(3)));
        let once = Candidate { retriable: false, ..running(3, 300) };
        assert_eq!(chosen(&[running(1, 300), running(2, 250), once]), Relief::End(worker(2)));
        assert_eq!(chosen(&[once, Candidate { retriable: false, ..running(1, 300) }]), Relief::End(worker(3)));
    }

    #[test]
    fn idle_ones_go_before_those_that_work_and_owners_last() {
        let idle = Candidate { lease: None, retriable: false, ..running(1, 200) };
        assert_eq!(chosen(&[running(2, 300), idle]), Relief::End(worker(1)));
        let owner = Candidate { lends: true, ..idle };
        let once = Candidate { retriable: false, ..running(2, 200) };
        assert_eq!(chosen(&[owner, once]), Relief::End(worker(2)));
        assert_eq!(chosen(&[owner]), Relief::End(worker(1)));
    }

    #[test]
    fn an_owner_that_has_all_of_it_goes_before_small_ones() {
        let owner = Candidate { lends: true, ..running(1, 800) };
        assert_eq!(chosen(&[owner, running(2, 100)]), Relief::End(worker(1)));
    }

    #[test]
    fn workers_that_would_not_help_are_left_alone() {
        assert_eq!(chosen(&[running(1, 63), running(2, 50)]), Relief::None);
        assert_eq!(chosen(&[]), Relief::None);
    }

    #[test]
    fn the_next_one_waits_until_the_memory_of_the_last_is_back() {
        let all = || vec![running(1, 200), running(2, 200)];
        let mut pressure = short();
        assert_eq!(pressure.look(1, 10 * MIB, 1000 * MIB, all), Relief::End(worker(2)));
        assert_eq!(pressure.look(100, 10 * MIB, 1000 * MIB, all), Relief::None, "its process is not gone");
        pressure.gone(worker(1), 110);
        pressure.gone(worker(2), 120);
        assert_eq!(pressure.look(130, 20 * MIB, 1000 * MIB, all), Relief::None, "its memory is not back");
        assert_eq!(pressure.look(120 + RETURN_MS, 20 * MIB, 1000 * MIB, all), Relief::End(worker(2)));
        // Back, and gone again.
        pressure.gone(worker(2), 1000);
        let huge = 10_000 * MIB;
        assert_eq!(pressure.look(1001, 120 * MIB, huge, || vec![running(1, 200)]), Relief::End(worker(1)));
        // A process that does not die holds nothing up for ever.
        assert_eq!(pressure.look(1001 + DEATH_MS, 0, huge, || vec![running(3, 200)]), Relief::End(worker(3)));
    }

    #[test]
    fn calm_begins_anew_with_the_store() {
        let mut pressure = short();
        pressure.look(1, 0, 1000 * MIB, || vec![running(1, 200)]);
        assert_eq!(pressure.look(2, 500 * MIB, 1000 * MIB, Vec::new), Relief::None);
        assert_eq!(pressure.look(3, 0, 1000 * MIB, || vec![running(2, 200)]), Relief::None, "the first one still dies");
        pressure.gone(worker(1), 4);
        assert_eq!(pressure.look(5, 500 * MIB, 1000 * MIB, Vec::new), Relief::None);
        assert_eq!(pressure.look(6, 0, 1000 * MIB, Vec::new), Relief::GiveBack);
    }

    #[test]
    fn looks_come_closer_as_memory_runs_short() {
        let pressure = Pressure::new(LIMITS);
        assert_eq!(pressure.pause(0, 1000 * MIB), 10);
        assert_eq!(pressure.pause(250 * MIB, 1000 * MIB), 100);
        assert_eq!(pressure.pause(u64::MAX, u64::MAX), 1000);
    }

    #[test]
    fn the_kernels_kills_explain_as_many_deaths() {
        let mut kills = Kills::new(3);
        assert!(!kills.take(3));
        assert!(kills.take(5) && kills.take(5) && !kills.take(5));
        // A kill that no death of ours claims was another process's.
        kills.look(6, 0);
        kills.look(6, Kills::FRESH_MS - 1);
        assert!(kills.take(6));
        kills.look(7, 5000);
        kills.look(7, 5000 + Kills::FRESH_MS);
        assert!(!kills.take(7));
    }
}
