//! Which object lies where, and which segments can go: a state machine without I/O.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::Key;
use crate::format::{chunks, footprint};

/// Where a copy lies, and what its bytes must add up to.
#[derive(Debug, Clone)]
pub struct Location {
    /// Which of the engine's targets.
    pub target: usize,
    /// The segment's number.
    pub segment: u64,
    /// In the segment, in bytes.
    pub offset: u64,
    /// In bytes.
    pub length: u64,
    sums: Arc<[u64]>,
    first: usize,
}

impl Location {
    /// The checksum of each chunk.
    pub fn checksums(&self) -> &[u64] {
        &self.sums[self.first..self.first + chunks(self.length) as usize]
    }
}

/// A segment that was written.
#[derive(Debug, Clone)]
pub struct Written {
    /// Where.
    pub target: usize,
    /// Its number; never used before.
    pub segment: u64,
    /// Of the whole file.
    pub file_length: u64,
    /// What it holds: the copy, its offset and its length, in the order of `checksums`.
    pub objects: Vec<(Key, u64, u64)>,
    /// Of all chunks of all objects.
    pub checksums: Arc<[u64]>,
}

/// A segment that nobody needs any more. The map has forgotten it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doomed {
    /// Where.
    pub target: usize,
    /// Its number.
    pub segment: u64,
}

/// Segments of one target whose living objects should move together into a new one.
#[derive(Debug)]
pub struct Compaction {
    /// Where they are.
    pub target: usize,
    /// Their numbers.
    pub segments: Vec<u64>,
    /// What moves.
    pub objects: Vec<(Key, Location)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Compacting,
    /// Compaction could not read all of it: not tried again.
    Kept,
}

#[derive(Debug)]
struct Segment {
    target: usize,
    file_length: u64,
    size: u64,
    live_size: u64,
    live: usize,
    readers: usize,
    state: State,
    keys: Vec<Key>,
    checksums: Arc<[u64]>,
}

impl Segment {
    fn is_sparse(&self) -> bool {
        self.live > 0 && self.state == State::Open && self.live_size * 2 < self.size
    }
}

#[derive(Debug, Clone, Copy)]
struct Place {
    segment: u64,
    offset: u64,
    length: u64,
    first: usize,
}

/// All that an engine has stored.
#[derive(Debug, Default)]
pub struct Map {
    objects: HashMap<Key, Place>,
    segments: HashMap<u64, Segment>,
    sparse: BTreeSet<u64>,
    live_bytes: u64,
    file_bytes: u64,
}

impl Map {
    /// Takes in a new segment. Copies that the map has already must not be in it.
    pub fn add(&mut self, written: Written) {
        let Written { target, segment, file_length, objects, checksums } = written;
        let size = objects.iter().map(|object| footprint(object.2)).sum();
        let (mut first, mut keys) = (0, Vec::with_capacity(objects.len()));
        for (key, offset, length) in objects {
            let earlier = self.objects.insert(key, Place { segment, offset, length, first });
            debug_assert!(earlier.is_none(), "a copy is spilled once");
            first += chunks(length) as usize;
            self.live_bytes += length;
            keys.push(key);
        }
        self.file_bytes += file_length;
        let (live, state) = (keys.len(), State::Open);
        let entry = Segment { target, file_length, size, live_size: size, live, readers: 0, state, keys, checksums };
        self.segments.insert(segment, entry);
    }

    /// Where a copy lies.
    pub fn find(&self, key: &Key) -> Option<Location> {
        let place = self.objects.get(key)?;
        let segment = &self.segments[&place.segment];
        Some(Location {
            target: segment.target,
            segment: place.segment,
            offset: place.offset,
            length: place.length,
            sums: Arc::clone(&segment.checksums),
            first: place.first,
        })
    }

    /// The same, and the segment stays until [`Map::end_read`].
    pub fn begin_read(&mut self, key: &Key) -> Option<Location> {
        let location = self.find(key)?;
        self.segments.get_mut(&location.segment)?.readers += 1;
        Some(location)
    }

    /// One read of a segment is over.
    pub fn end_read(&mut self, segment: u64) -> Option<Doomed> {
        self.segments.get_mut(&segment)?.readers -= 1;
        self.collect(segment)
    }

    /// Nobody needs this copy any more. `Err` if the map does not have it.
    pub fn free(&mut self, key: &Key) -> Result<Option<Doomed>, NotThere> {
        let place = self.objects.remove(key).ok_or(NotThere)?;
        self.live_bytes -= place.length;
        self.lose(&place);
        Ok(self.collect(place.segment))
    }

    /// Segments of which less than half is in use, of one target and with at most `limit` living bytes together (or one
    /// segment). They are out of the choice until [`Map::end_compaction`].
    pub fn begin_compaction(&mut self, limit: u64) -> Option<Compaction> {
        let target = self.segments[self.sparse.first()?].target;
        let (mut total, mut segments) = (0, Vec::new());
        for number in &self.sparse {
            let segment = &self.segments[number];
            if segment.target == target && (segments.is_empty() || total + segment.live_size <= limit) {
                total += segment.live_size;
                segments.push(*number);
            }
        }
        let mut objects = Vec::new();
        for number in &segments {
            self.sparse.remove(number);
            let segment = self.segments.get_mut(number).expect("sparse segments exist");
            segment.state = State::Compacting;
            let living =
                segment.keys.iter().filter(|key| self.objects.get(key).is_some_and(|at| at.segment == *number));
            let living: Vec<Key> = living.copied().collect();
            objects.extend(living.into_iter().map(|key| (key, self.find(&key).expect("it lives"))));
        }
        Some(Compaction { target, segments, objects })
    }

    /// Compaction is over: what `moved` holds of these segments lives there now, unless it was freed meanwhile. `retry`
    /// says whether segments that still hold something may be tried again.
    pub fn end_compaction(&mut self, segments: &[u64], moved: Option<Written>, retry: bool) -> Vec<Doomed> {
        let mut checked = segments.to_vec();
        if let Some(written) = moved {
            checked.push(written.segment);
            self.move_to(segments, written);
        }
        for number in segments {
            let segment = self.segments.get_mut(number).expect("segments in compaction are not collected");
            segment.state = if retry { State::Open } else { State::Kept };
        }
        checked.into_iter().filter_map(|number| self.collect(number)).collect()
    }

    fn move_to(&mut self, from: &[u64], written: Written) {
        let Written { target, segment, file_length, objects, checksums } = written;
        let mut entry = Segment {
            target,
            file_length,
            size: 0,
            live_size: 0,
            live: 0,
            readers: 0,
            state: State::Open,
            keys: Vec::with_capacity(objects.len()),
            checksums,
        };
        let mut first = 0;
        for (key, offset, length) in objects {
            entry.size += footprint(length);
            if let Some(old) = self.objects.get(&key).copied().filter(|place| from.contains(&place.segment)) {
                self.lose(&old);
                self.objects.insert(key, Place { segment, offset, length, first });
                entry.live_size += footprint(length);
                entry.live += 1;
                entry.keys.push(key);
            }
            first += chunks(length) as usize;
        }
        self.file_bytes += file_length;
        self.segments.insert(segment, entry);
    }

    /// A segment has one living object less.
    fn lose(&mut self, place: &Place) {
        let segment = self.segments.get_mut(&place.segment).expect("objects lie in segments");
        segment.live -= 1;
        segment.live_size -= footprint(place.length);
    }

    /// Forgets a segment that nobody needs; keeps the choice for compaction up to date.
    fn collect(&mut self, number: u64) -> Option<Doomed> {
        let segment = self.segments.get(&number)?;
        if segment.is_sparse() {
            self.sparse.insert(number);
        } else {
            self.sparse.remove(&number);
        }
        if segment.live > 0 || segment.readers > 0 || segment.state == State::Compacting {
            return None;
        }
        let segment = self.segments.remove(&number)?;
        self.file_bytes -= segment.file_length;
        Some(Doomed { target: segment.target, segment: number })
    }

    /// Whether [`Map::begin_compaction`] has something to do.
    pub fn is_sparse(&self) -> bool {
        !self.sparse.is_empty()
    }

    /// Bytes of living objects.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Bytes that segments take in their targets.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Living objects.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Segments, with those that only wait for their readers.
    pub fn segments(&self) -> usize {
        self.segments.len()
    }
}

/// The map does not have this copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this copy is not spilled")]
pub struct NotThere;
