//! Whether a target takes writes: healthy, or left alone for a while. A state machine without a clock.

use std::time::Duration;

use crate::storage::Refusal;

/// First pause after a refusal; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A target's state. Times are since any fixed moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Health {
    /// Takes writes.
    #[default]
    Healthy,
    /// Refused the last write: gets none before `until`, and then one at a time.
    Suspended {
        /// Why it was refused.
        why: Refusal,
        /// When it may be tried again.
        until: Duration,
        /// How long this pause is.
        pause: Duration,
        /// A write tries it out now.
        probing: bool,
    },
}

/// What a line in a log should tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It does not take writes any more, or for another reason than before.
    Suspended(Refusal),
    /// It takes writes again.
    Recovered,
}

impl Health {
    /// Whether a write may go there now. If so, and the target is suspended, this write is its trial.
    pub fn admit(&mut self, now: Duration) -> bool {
        match self {
            Self::Healthy => true,
            Self::Suspended { until, probing, .. } => {
                let admitted = now >= *until && !*probing;
                *probing |= admitted;
                admitted
            }
        }
    }

    /// Whether a write that was admitted before may still begin.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Healthy | Self::Suspended { probing: true, .. })
    }

    /// A write was refused.
    pub fn refused(&mut self, why: Refusal, now: Duration) -> Option<Change> {
        let (pause, changed) = match self {
            Self::Healthy => (FIRST_PAUSE, true),
            // Writes that were under way when the first one was refused say nothing new.
            Self::Suspended { probing: false, .. } => return None,
            Self::Suspended { pause, why: before, .. } => ((*pause * 2).min(LONGEST_PAUSE), *before != why),
        };
        *self = Self::Suspended { why, until: now + pause, pause, probing: false };
        changed.then_some(Change::Suspended(why))
    }

    /// A write succeeded. One that was under way when another was refused says nothing about now.
    pub fn succeeded(&mut self) -> Option<Change> {
        let was_trial = matches!(self, Self::Suspended { probing: true, .. });
        if was_trial {
            *self = Self::Healthy;
        }
        was_trial.then_some(Change::Recovered)
    }

    /// A trial ended without saying anything about the target.
    pub fn undecided(&mut self) {
        if let Self::Suspended { probing, .. } = self {
            *probing = false;
        }
    }

    /// Why it gets no writes, if it gets none.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Healthy => None,
            Self::Suspended { why, .. } => Some(*why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_refusal_is_told_once_and_its_end_once() {
        let mut health = Health::default();
        assert!(health.admit(SECOND));
        assert_eq!(health.refused(Refusal::Full, SECOND), Some(Change::Suspended(Refusal::Full)));
        assert_eq!(health.refused(Refusal::Full, SECOND), None, "another write that was under way");
        assert_eq!(health.succeeded(), None, "and one that came through");
        assert!(!health.is_open());
        assert!(!health.admit(SECOND + SECOND / 2));
        assert!(health.admit(SECOND * 2));
        assert!(!health.admit(SECOND * 2), "one trial at a time");
        assert!(health.is_open());
        assert_eq!(health.refused(Refusal::Full, SECOND * 2), None, "still the same");
        assert!(!health.admit(SECOND * 3), "the pause is longer now");
        assert!(health.admit(SECOND * 4));
        assert_eq!(health.refused(Refusal::Missing, SECOND * 4), Some(Change::Suspended(Refusal::Missing)));
        assert!(health.admit(SECOND * 8));
        assert_eq!(health.succeeded(), Some(Change::Recovered));
        assert_eq!(health.succeeded(), None);
    }

    #[test]
    fn pauses_grow_to_a_minute_and_no_further() {
        let (mut health, mut now, mut tries) = (Health::default(), Duration::ZERO, 0);
        while now < SECOND * 3600 {
            if health.admit(now) {
                tries += 1;
                health.refused(Refusal::Full, now);
            }
            now += SECOND;
        }
        assert!((60..70).contains(&tries), "{tries} tries in an hour");
    }

    #[test]
    fn a_trial_that_says_nothing_lets_the_next_one_in() {
        let mut health = Health::default();
        health.refused(Refusal::Failed, Duration::ZERO);
        assert!(health.admit(SECOND));
        health.undecided();
        assert!(health.admit(SECOND));
    }
}
