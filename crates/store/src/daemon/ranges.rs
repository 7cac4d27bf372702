//! The free bytes of the segment, in the daemon's private memory.
//!
//! Ranges remember who mapped their pages last ([`Warmth`]): writing to pages that a process has touched before is four
//! times faster than to another process's, and eight times faster than to fresh ones. Beside them, runs of free bytes
//! are kept whatever their warmth. Leases for small objects, and extents of less than a 512th of the store, are taken
//! from low addresses, larger ones from high addresses: what is small and lives for long then doesn't lie between what
//! is large, and the bytes between the two stay in one piece.

use std::collections::{BTreeMap, BTreeSet};

use crate::layout::{LONGEST_LEASE, PAGE, UNIT};

/// Whether pages exist, and who touched them last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Warmth {
    /// Reserved; last mapped by this seat (0: by nobody who lives).
    Warm(u32),
    /// Not reserved. Such ranges always start and end on a page.
    Cold,
}

/// What is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    /// For whom: its own warm ranges come first.
    pub(crate) seat: u32,
    /// Bytes that it must have, a multiple of the alignment.
    pub(crate) least: u64,
    /// Bytes that it would rather have.
    pub(crate) wanted: u64,
    /// Whole pages from the top, or units from the bottom.
    pub(crate) whole_pages: bool,
    /// Whether pages may be taken that aren't reserved yet.
    pub(crate) cold: bool,
}

/// What was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) start: u64,
    pub(crate) length: u64,
    /// The pieces of it, in order.
    pub(crate) pieces: Vec<(u64, u64, Warmth)>,
}

/// Runs of free bytes: neighbours are always joined.
#[derive(Debug, Clone)]
struct Runs {
    map: BTreeMap<u64, u64>,
    /// Starts by the power of two of the length.
    classes: Vec<BTreeSet<u64>>,
}

impl Runs {
    fn put(&mut self, start: u64, length: u64) {
        if length > 0 {
            self.map.insert(start, length);
            self.classes[class(length)].insert(start);
        }
    }

    fn pull(&mut self, start: u64) -> u64 {
        let length = self.map.remove(&start).unwrap_or(0);
        self.classes[class(length)].remove(&start);
        length
    }

    /// Adds bytes that aren't in any run.
    fn add(&mut self, mut start: u64, mut length: u64) {
        if let Some((&at, &long)) = self.map.range(..start).next_back()
            && at + long == start
        {
            length += self.pull(at);
            start = at;
        }
        if self.map.contains_key(&(start + length)) {
            length += self.pull(start + length);
        }
        self.put(start, length);
    }

    /// Takes bytes out that all are in one run.
    fn cut(&mut self, start: u64, length: u64) {
        let Some((&at, _)) = self.map.range(..=start).next_back() else { return };
        let end = at + self.pull(at);
        self.put(at, start - at);
        self.put(start + length, end.saturating_sub(start + length));
    }
}

#[derive(Debug, Clone)]
pub(crate) struct FreeRanges {
    capacity: u64,
    runs: Runs,
    ranges: BTreeMap<u64, (u64, Warmth)>,
    /// Starts of the ranges by warmth and by the power of two of their length.
    index: BTreeMap<Warmth, Vec<BTreeSet<u64>>>,
    bytes: u64,
    cold: u64,
}

const CLASSES: usize = 64;
/// How many ranges of a class are looked at before the next larger class is.
const LOOKS: usize = 16;

fn class(length: u64) -> usize {
    length.max(1).ilog2() as usize
}

impl FreeRanges {
    /// All of a segment, unreserved.
    pub(crate) fn new(capacity: u64) -> Self {
        let mut all = Self::none(capacity);
        all.insert(0, capacity, Warmth::Cold);
        all
    }

    /// Nothing of a segment.
    pub(crate) fn none(capacity: u64) -> Self {
        let runs = Runs { map: BTreeMap::new(), classes: vec![BTreeSet::new(); CLASSES] };
        Self { capacity, runs, ranges: BTreeMap::new(), index: BTreeMap::new(), bytes: 0, cold: 0 }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn cold_bytes(&self) -> u64 {
        self.cold
    }

    /// Length of the longest run of free bytes.
    pub(crate) fn largest(&self) -> u64 {
        let longest = self.runs.classes.iter().rev().find(|starts| !starts.is_empty());
        longest.into_iter().flatten().map(|start| self.runs.map[start]).max().unwrap_or(0)
    }

    /// Whether any byte of a range is free.
    pub(crate) fn overlaps(&self, start: u64, length: u64) -> bool {
        let before = self.runs.map.range(..start + length).next_back();
        length > 0 && before.is_some_and(|(at, long)| at + long > start)
    }

    /// Puts a range back; false, and nothing done, if part of it is free already.
    pub(crate) fn insert(&mut self, mut start: u64, mut length: u64, warmth: Warmth) -> bool {
        if length == 0 {
            return true;
        }
        if self.overlaps(start, length) {
            return false;
        }
        self.runs.add(start, length);
        if let Some((&at, &(long, same))) = self.ranges.range(..start).next_back()
            && at + long == start
            && same == warmth
        {
            self.remove(at);
            start = at;
            length += long;
        }
        if let Some(&(long, same)) = self.ranges.get(&(start + length))
            && same == warmth
        {
            self.remove(start + length);
            length += long;
        }
        self.add(start, length, warmth);
        true
    }

    fn add(&mut self, start: u64, length: u64, warmth: Warmth) {
        if length == 0 {
            return;
        }
        self.ranges.insert(start, (length, warmth));
        self.index.entry(warmth).or_insert_with(|| vec![BTreeSet::new(); CLASSES])[class(length)].insert(start);
        self.bytes += length;
        if warmth == Warmth::Cold {
            self.cold += length;
        }
    }

    fn remove(&mut self, start: u64) -> Option<(u64, Warmth)> {
        let (length, warmth) = self.ranges.remove(&start)?;
        if let Some(classes) = self.index.get_mut(&warmth) {
            classes[class(length)].remove(&start);
            if classes.iter().all(BTreeSet::is_empty) {
                self.index.remove(&warmth);
            }
        }
        self.bytes -= length;
        if warmth == Warmth::Cold {
            self.cold -= length;
        }
        Some((length, warmth))
    }

    /// Takes what was wished for, or at least what it must have.
    ///
    /// Where comes before how warm: what fits at the end of the segment that is meant for its kind is taken there, and
    /// only own warm pages that leave next to nothing over, or lie about as well, come first. Free bytes so gather in the
    /// middle, and the ends, which are used over and over, are warm anyway.
    pub(crate) fn take(&mut self, wish: &Wish) -> Option<Taken> {
        if self.bytes < wish.least {
            return None;
        }
        let (start, length) = if !wish.cold {
            self.warm(wish)
        } else if wish.whole_pages {
            let any = self.anywhere(wish, wish.least)?;
            Some(self.tight(wish).filter(|(start, _)| start.abs_diff(any.0) <= self.capacity / 16).unwrap_or(any))
        } else {
            let enough = (wish.wanted / 4).max(wish.least);
            self.near(wish, enough).or_else(|| self.anywhere(wish, wish.least))
        }?;
        Some(self.cut(start, length))
    }

    /// Own warm pages that the wish fills up, all but a quarter.
    fn tight(&self, wish: &Wish) -> Option<(u64, u64)> {
        let classes = self.index.get(&Warmth::Warm(wish.seat))?;
        let most = wish.least + wish.least / 4 + PAGE;
        (class(wish.least)..=class(most)).find_map(|class| {
            let mut fitting = classes[class].iter().rev().filter(|start| self.ranges[start].0 <= most).take(LOOKS);
            fitting.find_map(|start| self.place(*start, self.ranges[start].0, wish.least, wish))
        })
    }

    /// A place for a small lease: on own warm pages, if they lie about as low as any.
    fn near(&self, wish: &Wish, size: u64) -> Option<(u64, u64)> {
        let any = self.anywhere(wish, size)?;
        let own = self.index.get(&Warmth::Warm(wish.seat)).and_then(|classes| {
            let lowest = classes.iter().skip(class(size) + 1).filter_map(|starts| starts.first());
            lowest.min().and_then(|start| self.place(*start, self.ranges[start].0, size, wish))
        });
        Some(own.filter(|(start, _)| *start <= any.0 + self.capacity / 16).unwrap_or(any))
    }

    /// The outermost place among all free bytes, whatever their warmth.
    fn anywhere(&self, wish: &Wish, size: u64) -> Option<(u64, u64)> {
        let top = self.is_from_top(wish);
        let outermost = |starts: &BTreeSet<u64>| {
            let place = |start: &u64| self.place(*start, self.runs.map[start], size, wish);
            if top {
                starts.iter().rev().take(LOOKS).find_map(place)
            } else {
                starts.iter().take(LOOKS).find_map(place)
            }
        };
        let places = self.runs.classes.iter().skip(class(size)).filter_map(outermost);
        let best = if top { places.max() } else { places.min() };
        // Only if more runs of just this class were too short than were looked at.
        best.or_else(|| self.runs.map.iter().find_map(|(start, length)| self.place(*start, *length, size, wish)))
    }

    /// The smallest fitting warm range, the wisher's own ones first, or a run of several.
    fn warm(&self, wish: &Wish) -> Option<(u64, u64)> {
        let fit = |classes: &Vec<BTreeSet<u64>>| {
            classes.iter().skip(class(wish.least)).find_map(|starts| {
                starts.iter().take(LOOKS).find_map(|start| self.place(*start, self.ranges[start].0, wish.least, wish))
            })
        };
        let others = self.index.iter().filter(|(warmth, _)| **warmth != Warmth::Cold).map(|(_, classes)| classes);
        self.index.get(&Warmth::Warm(wish.seat)).into_iter().chain(others).find_map(fit).or_else(|| self.warm_run(wish))
    }

    /// A place across warm neighbours. Looks at every range: only when memory is short and nothing else fits.
    fn warm_run(&self, wish: &Wish) -> Option<(u64, u64)> {
        let (mut from, mut end) = (0, 0);
        for (&start, &(length, warmth)) in &self.ranges {
            if warmth == Warmth::Cold {
                continue;
            }
            from = if start == end { from } else { start };
            end = start + length;
            if let Some(found) = self.place(from, end - from, wish.least, &Wish { wanted: wish.least, ..*wish }) {
                return Some(found);
            }
        }
        None
    }

    /// Large objects come from the top, small and middling ones from the bottom, and so does what is brought back, for
    /// nobody's seat: it is about to be pinned, and what can't leave should lie together.
    fn is_from_top(&self, wish: &Wish) -> bool {
        wish.whole_pages && wish.seat != 0 && wish.least >= self.capacity / 512
    }

    /// Where in free bytes a wish fits.
    fn place(&self, start: u64, length: u64, size: u64, wish: &Wish) -> Option<(u64, u64)> {
        let end = start + length;
        if self.is_from_top(wish) {
            let top = (end & !(PAGE - 1)).checked_sub(size)?;
            return (top >= start).then_some((top, size));
        }
        if wish.whole_pages {
            let bottom = start.next_multiple_of(PAGE);
            return (bottom + size <= end).then_some((bottom, size));
        }
        let take = wish.wanted.min(LONGEST_LEASE).min(length);
        // Cold memory is reserved by pages, so it is also taken by pages.
        let take = ((start + take).next_multiple_of(PAGE) - start).min(length);
        let take = take.min(LONGEST_LEASE & !(PAGE - 1)) & !(UNIT - 1);
        (take >= size).then_some((start, take))
    }

    /// Takes exactly these bytes out, all of which are free.
    fn cut(&mut self, start: u64, length: u64) -> Taken {
        self.runs.cut(start, length);
        let end = start + length;
        let mut pieces = Vec::new();
        let first = self.ranges.range(..=start).next_back().map_or(start, |(at, _)| *at);
        let inside: Vec<u64> = self.ranges.range(first..end).map(|(at, _)| *at).collect();
        for at in inside {
            let Some((long, warmth)) = self.remove(at) else { continue };
            let (from, to) = (at.max(start), (at + long).min(end));
            self.add(at, from - at, warmth);
            self.add(to, at + long - to, warmth);
            pieces.push((from, to - from, warmth));
        }
        Taken { start, length, pieces }
    }

    /// Forgets who mapped ranges last, when that seat ends.
    pub(crate) fn forget(&mut self, seat: u32) {
        let Some(classes) = self.index.remove(&Warmth::Warm(seat)) else { return };
        for start in classes.into_iter().flatten() {
            let Some((length, _)) = self.ranges.remove(&start) else { continue };
            self.bytes -= length;
            self.runs.cut(start, length);
            self.insert(start, length, Warmth::Warm(0));
        }
    }

    /// The warm whole pages inside free ranges, at most so many bytes, from the highest addresses down.
    pub(crate) fn warm_pages(&self, at_most: u64) -> Vec<(u64, u64)> {
        let mut left = at_most;
        let warm = self.ranges.iter().rev().filter(|(_, (_, warmth))| *warmth != Warmth::Cold);
        warm.filter_map(|(start, (length, _))| {
            let (from, to) = (start.next_multiple_of(PAGE), (start + length) & !(PAGE - 1));
            let bytes = to.saturating_sub(from).min(left & !(PAGE - 1));
            left -= bytes;
            (bytes > 0).then(|| (to - bytes, bytes))
        })
        .collect()
    }

    /// Marks free pages as given back to the system.
    pub(crate) fn cool(&mut self, start: u64, length: u64) {
        let taken = self.cut(start, length);
        self.insert(taken.start, taken.length, Warmth::Cold);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(seat: u32, least: u64, wanted: u64) -> Wish {
        Wish { seat, least, wanted, whole_pages: false, cold: true }
    }

    fn pages(seat: u32, length: u64) -> Wish {
        Wish { seat, least: length, wanted: length, whole_pages: true, cold: true }
    }

    #[test]
    fn small_leases_come_from_the_bottom_and_extents_from_the_top() {
        let mut free = FreeRanges::new(1 << 20);
        let low = free.take(&small(1, 64, 8192)).unwrap();
        let high = free.take(&pages(1, 8192)).unwrap();
        assert_eq!((low.start, low.length), (0, 8192));
        assert_eq!((high.start, high.length), ((1 << 20) - 8192, 8192));
        assert_eq!(low.pieces, [(0, 8192, Warmth::Cold)]);
        assert_eq!(free.bytes(), (1 << 20) - 16384);
    }

    #[test]
    fn a_freed_extent_goes_back_to_its_last_mapper_first() {
        let mut free = FreeRanges::new(1 << 20);
        let (a, b) = (free.take(&pages(1, 65536)).unwrap(), free.take(&pages(2, 65536)).unwrap());
        free.insert(a.start, a.length, Warmth::Warm(1));
        free.insert(b.start, b.length, Warmth::Warm(2));
        assert_eq!(free.take(&pages(1, 65536)).unwrap().start, a.start);
        // Another's warm pages are still better than cold ones.
        assert_eq!(free.take(&pages(1, 65536)).unwrap().start, b.start);
        assert_eq!(free.take(&pages(1, 65536)).unwrap().pieces[0].2, Warmth::Cold);
    }

    #[test]
    fn neighbours_of_different_warmth_are_joined_when_needed() {
        let mut free = FreeRanges::new(4 * PAGE);
        let all = free.take(&pages(1, 4 * PAGE)).unwrap();
        for page in 0..4 {
            assert!(free.insert(all.start + page * PAGE, PAGE, Warmth::Warm(page as u32)));
        }
        assert_eq!(free.largest(), 4 * PAGE);
        let again = free.take(&pages(9, 3 * PAGE)).unwrap();
        assert_eq!((again.length, again.pieces.len()), (3 * PAGE, 3));
        assert!(free.take(&pages(9, 2 * PAGE)).is_none());
    }

    #[test]
    fn freeing_twice_is_refused() {
        let mut free = FreeRanges::new(1 << 20);
        let taken = free.take(&small(1, 64, 64)).unwrap();
        assert!(free.insert(taken.start, 64, Warmth::Warm(1)));
        assert!(!free.insert(taken.start, 64, Warmth::Warm(1)));
        assert!(!free.insert(0, 1 << 20, Warmth::Cold));
        assert_eq!(free.bytes(), (1 << 20) - taken.length + 64);
    }

    #[test]
    fn a_wish_that_only_fits_in_part_gets_at_least_the_least() {
        let mut free = FreeRanges::new(2 * PAGE);
        let taken = free.take(&small(1, 64, 1 << 20)).unwrap();
        assert_eq!(taken.length, 2 * PAGE);
        assert!(free.insert(128, 192, Warmth::Warm(1)));
        assert!(free.take(&small(1, 256, 1024)).is_none());
        assert_eq!(free.take(&small(1, 64, 1024)).map(|t| (t.start, t.length)), Some((128, 192)));
    }

    #[test]
    fn ended_seats_are_forgotten_and_pages_can_be_cooled() {
        let mut free = FreeRanges::new(8 * PAGE);
        let all = free.take(&pages(1, 8 * PAGE)).unwrap();
        free.insert(all.start + 64, 3 * PAGE, Warmth::Warm(1));
        free.insert(all.start + 64 + 3 * PAGE, 2 * PAGE, Warmth::Warm(2));
        free.forget(1);
        free.forget(2);
        assert_eq!((free.bytes(), free.largest()), (5 * PAGE, 5 * PAGE));
        let found = free.warm_pages(2 * PAGE + 5);
        assert_eq!(found, [(all.start + 3 * PAGE, 2 * PAGE)]);
        free.cool(found[0].0, found[0].1);
        assert_eq!((free.bytes(), free.cold_bytes()), (5 * PAGE, 2 * PAGE));
    }
}
