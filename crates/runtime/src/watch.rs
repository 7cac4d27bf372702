//! Waits for many references: found by the references, so that they cost the references nothing.

use crate::action::{Handle, WaitId};

/// Most of them at a time: each is asked of every reference that gets its value.
const MOST: usize = 16;
/// Largest distance between two handles of one, in handles for each that it waits for; beyond, the set is mostly gaps.
const SPREAD: usize = 4096;

/// The waits for many references that are under way.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    all: Vec<Watch>,
}

#[derive(Debug)]
struct Watch {
    id: WaitId,
    /// The least of its handles.
    first: Handle,
    /// One bit for each handle from there.
    bits: Vec<u64>,
    /// Those that nothing else keeps any more.
    kept: Vec<Handle>,
}

impl Watch {
    fn has(&self, handle: Handle) -> bool {
        let Some(at) = handle.checked_sub(self.first) else { return false };
        self.bits.get(at as usize / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }
}

impl Watches {
    /// Begins to watch; false when this wait has to be noted at its references instead.
    pub(crate) fn begin(&mut self, id: WaitId, handles: &[Handle]) -> bool {
        let (Some(first), Some(last)) = (handles.iter().min().copied(), handles.iter().max()) else { return false };
        let range = (last - first) as usize + 1;
        if self.all.len() >= MOST || range / SPREAD > handles.len() {
            return false;
        }
        let mut bits = vec![0; range.div_ceil(64)];
        for handle in handles {
            let at = (handle - first) as usize;
            let (word, bit) = (&mut bits[at / 64], 1 << (at % 64));
            // One that is waited for twice counts twice.
            if *word & bit != 0 {
                return false;
            }
            *word |= bit;
        }
        self.all.push(Watch { id, first, bits, kept: Vec::new() });
        true
    }

    /// The waits for this reference.
    pub(crate) fn of(&self, handle: Handle) -> Vec<WaitId> {
        self.all.iter().filter(|watch| watch.has(handle)).map(|watch| watch.id).collect()
    }

    /// Whether a wait keeps this reference, which nothing else does.
    pub(crate) fn keep(&mut self, handle: Handle) -> bool {
        let Some(watch) = self.all.iter_mut().find(|watch| watch.has(handle)) else { return false };
        watch.kept.push(handle);
        true
    }

    /// Ends a wait; returns what may be unused now.
    pub(crate) fn end(&mut self, id: WaitId) -> Vec<Handle> {
        let Some(at) = self.all.iter().position(|watch| watch.id == id) else { return Vec::new() };
        self.all.swap_remove(at).kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_has_its_handles_and_no_others() {
        let mut watches = Watches::default();
        assert!(watches.begin(7, &[200, 3, 64, 130]));
        for handle in 0..400 {
            let wanted: &[WaitId] = if [200, 3, 64, 130].contains(&handle) { &[7] } else { &[] };
            assert_eq!(watches.of(handle), wanted, "{handle}");
        }
        assert!(watches.keep(64));
        assert!(!watches.keep(65));
        assert_eq!(watches.end(7), [64]);
        assert!(!watches.keep(64));
        assert_eq!(watches.end(7), []);
    }

    #[test]
    fn one_that_is_mostly_gaps_has_twins_or_is_too_many_is_refused() {
        let mut watches = Watches::default();
        assert!(!watches.begin(0, &[0, u32::MAX]));
        assert!(!watches.begin(0, &[]));
        assert!(!watches.begin(0, &[5, 6, 5]), "a bit is no count");
        for id in 0..MOST as u32 {
            assert!(watches.begin(id, &[1, 2]));
        }
        assert!(!watches.begin(MOST as u32, &[1, 2]));
        assert_eq!(watches.of(2).len(), MOST);
    }
}
