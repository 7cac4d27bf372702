//! Whether an event loop watches for a moment before it sleeps.
//!
//! Waking a sleeping thread takes longer than most answers do, above all on a virtual machine whose processors have
//! stopped. Watching wins where the next message comes sooner than it would take to wake, and costs a processor that
//! another process may need where it does not: so it is done only while messages follow each other that closely.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long it watches: longer than it takes to wake a sleeper at the other end, so that both come to watch.
const MOMENT: Duration = Duration::from_micros(120);
/// Of a sleep that was shorter, and the answer of another sleeper in it, most is the waking.
const SHORT: Duration = Duration::from_micros(400);
/// Moments that may pass in vain after as many that did not.
const MOST_CREDIT: u32 = 4;
/// Looks between two glances at the clock.
const LOOKS: u32 = 16;
/// Who gives the processor away and gets it back after this long, shares it: the system then prefers those that sleep.
const CROWDED: Duration = Duration::from_micros(30);
/// For so long after that it sleeps at once.
const RESTRAINT: Duration = Duration::from_millis(20);

/// What the last sleeps and watches gave.
#[derive(Debug)]
pub(crate) struct Watch {
    began: Instant,
    /// Nanoseconds from `began` to the last sleep; 0 when it was ended by a message already.
    slept: AtomicU64,
    credit: AtomicU32,
    /// Nanoseconds from `began` to the end of restraint.
    crowded: AtomicU64,
    /// Whether another processor can work meanwhile.
    useful: bool,
}

impl Default for Watch {
    fn default() -> Self {
        let useful = std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1);
        Self {
            began: Instant::now(),
            slept: AtomicU64::new(0),
            credit: AtomicU32::new(0),
            crowded: AtomicU64::new(0),
            useful,
        }
    }
}

impl Watch {
    /// Whether the next moment is worth watching.
    pub(crate) fn is_worth(&self) -> bool {
        self.useful && self.credit.load(Ordering::Relaxed) > 0 && self.crowded.load(Ordering::Relaxed) <= self.now()
    }

    /// Looks until something is there or the moment is over. Returns whether something is.
    pub(crate) fn look(&self, mut is_there: impl FnMut() -> bool) -> bool {
        let mut before = Instant::now();
        let end = before + MOMENT;
        loop {
            for _ in 0..LOOKS {
                if is_there() {
                    self.gain();
                    return true;
                }
                std::hint::spin_loop();
            }
            // Who waits for this processor may be the one that answers.
            std::thread::yield_now();
            let now = Instant::now();
            if now - before > CROWDED {
                self.crowded.store(self.now() + RESTRAINT.as_nanos() as u64, Ordering::Relaxed);
                return is_there();
            }
            if now >= end {
                let credit = self.credit.load(Ordering::Relaxed);
                self.credit.store(credit.saturating_sub(1), Ordering::Relaxed);
                return false;
            }
            before = now;
        }
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// It goes to sleep.
    pub(crate) fn sleeps(&self) {
        self.slept.store(self.now() | 1, Ordering::Relaxed);
    }

    /// A message ended its sleep, if it slept.
    pub(crate) fn served(&self) {
        let slept = self.slept.swap(0, Ordering::Relaxed);
        if slept == 0 {
            return;
        }
        let length = self.now().saturating_sub(slept);
        if length < SHORT.as_nanos() as u64 {
            self.gain();
        }
    }

    fn gain(&self) {
        let credit = self.credit.load(Ordering::Relaxed);
        self.credit.store((credit + 1).min(MOST_CREDIT), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_watches_after_short_sleeps_and_stops_after_moments_in_vain() {
        let watch = Watch { useful: true, ..Watch::default() };
        assert!(!watch.is_worth());
        watch.sleeps();
        watch.served();
        assert!(watch.is_worth());
        assert!(watch.look(|| true) && watch.is_worth());
        for _ in 0..MOST_CREDIT {
            // Unless the test's processor is crowded, which ends it as well.
            assert!(!watch.look(|| false));
        }
        assert!(!watch.is_worth());
        watch.credit.store(1, Ordering::Relaxed);
        watch.crowded.store(u64::MAX, Ordering::Relaxed);
        assert!(!watch.is_worth(), "others want the processor");
        watch.crowded.store(0, Ordering::Relaxed);
        watch.credit.store(0, Ordering::Relaxed);
        watch.slept.store(1, Ordering::Relaxed);
        std::thread::sleep(SHORT);
        watch.served();
        assert!(!watch.is_worth(), "a long sleep says nothing for it");
        watch.served();
        assert!(!watch.is_worth(), "it did not sleep");
    }
}
