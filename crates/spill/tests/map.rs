//! The map of segments against a model, over random histories.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use heliostat_proto::ObjectId;
use heliostat_spill::Key;
use heliostat_spill::format::{CHUNK, Layout};
use heliostat_spill::map::{Compaction, Doomed, Map, Written};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    /// A segment in a target with objects of these lengths.
    Add(usize, Vec<u64>),
    Free(prop::sample::Index),
    /// Frees what is freed already.
    FreeAgain(prop::sample::Index),
    BeginRead(prop::sample::Index),
    EndRead(prop::sample::Index),
    BeginCompaction(u64),
    /// Which of the objects could be read; whether the new segment could be written.
    EndCompaction(Vec<bool>, bool),
}

fn length() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 1..100_000_u64, Just(CHUNK), CHUNK..5 * CHUNK]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..3_usize, prop::collection::vec(length(), 1..8)).prop_map(|(target, sizes)| Step::Add(target, sizes)),
        8 => any::<prop::sample::Index>().prop_map(Step::Free),
        1 => any::<prop::sample::Index>().prop_map(Step::FreeAgain),
        3 => any::<prop::sample::Index>().prop_map(Step::BeginRead),
        3 => any::<prop::sample::Index>().prop_map(Step::EndRead),
        3 => (0..10 * CHUNK).prop_map(Step::BeginCompaction),
        3 => (prop::collection::vec(prop::bool::weighted(0.9), 8), prop::bool::weighted(0.8))
            .prop_map(|(read, written)| Step::EndCompaction(read, written)),
    ]
}

#[derive(Debug, Clone, Copy)]
struct Object {
    segment: u64,
    length: u64,
    sum: u64,
}

/// What a map must know, written down as plainly as can be.
#[derive(Debug, Default)]
struct Model {
    alive: BTreeMap<Key, Object>,
    dead: Vec<Key>,
    /// Segments that exist: their target and the footprint of all that was ever written to them.
    segments: BTreeMap<u64, (usize, u64)>,
    kept: BTreeSet<u64>,
    reads: Vec<u64>,
    compaction: Option<Compaction>,
    next: u64,
}

fn footprint(length: u64) -> u64 {
    length + 48 + 8 * length.div_ceil(CHUNK)
}

impl Model {
    fn written(&mut self, target: usize, objects: &[(Key, u64, u64)]) -> Written {
        self.next += 1;
        let layout = Layout::of(objects.iter().map(|object| object.1));
        let sums = objects.iter().flat_map(|&(_, length, sum)| (0..length.div_ceil(CHUNK)).map(move |at| sum + at));
        self.segments.insert(self.next, (target, objects.iter().map(|object| footprint(object.1)).sum()));
        Written {
            target,
            segment: self.next,
            file_length: layout.length,
            objects: objects
                .iter()
                .zip(&layout.offsets)
                .map(|(object, offset)| (object.0, *offset, object.1))
                .collect(),
            checksums: sums.collect::<Arc<[u64]>>(),
        }
    }

    fn live(&self, segment: u64) -> u64 {
        let living = self.alive.values().filter(|object| object.segment == segment);
        living.map(|object| footprint(object.length)).sum()
    }

    fn compacting(&self, segment: u64) -> bool {
        self.compaction.as_ref().is_some_and(|compaction| compaction.segments.contains(&segment))
    }

    /// Segments that must be gone now, in any order.
    fn collect(&mut self) -> BTreeSet<u64> {
        let used: BTreeSet<u64> = self.alive.values().map(|object| object.segment).chain(self.reads.clone()).collect();
        let gone: BTreeSet<u64> = self
            .segments
            .keys()
            .copied()
            .filter(|segment| !used.contains(segment) && !self.compacting(*segment))
            .collect();
        self.segments.retain(|segment, _| !gone.contains(segment));
        gone
    }

    fn sparse(&self) -> BTreeSet<u64> {
        let sparse = |(&segment, &(_, size)): (&u64, &(usize, u64))| {
            let live = self.live(segment);
            let open = !self.compacting(segment) && !self.kept.contains(&segment);
            (live > 0 && open && live * 2 < size).then_some(segment)
        };
        self.segments.iter().filter_map(sparse).collect()
    }
}

fn gone(doomed: impl IntoIterator<Item = Doomed>, targets: &BTreeMap<u64, (usize, u64)>) -> BTreeSet<u64> {
    let check = |doomed: Doomed| {
        assert_eq!(targets[&doomed.segment].0, doomed.target);
        doomed.segment
    };
    doomed.into_iter().map(check).collect()
}

fn nth<T: Copy>(from: &[T], index: prop::sample::Index) -> Option<T> {
    (!from.is_empty()).then(|| from[index.index(from.len())])
}

fn run(steps: Vec<Step>) {
    let (mut map, mut model) = (Map::default(), Model::default());
    let mut names = 0_u32;
    for step in steps {
        let keys: Vec<Key> = model.alive.keys().copied().collect();
        let targets = model.segments.clone();
        let doomed: Vec<Doomed> = match step {
            Step::Add(target, lengths) => {
                let mut objects = Vec::new();
                for length in lengths {
                    names += 1;
                    let mut id = [0; 28];
                    id[..4].copy_from_slice(&names.to_le_bytes());
                    objects.push((Key { id: ObjectId(id), generation: 0 }, length, u64::from(names) << 16));
                }
                let written = model.written(target, &objects);
                for (key, length, sum) in objects {
                    model.alive.insert(key, Object { segment: written.segment, length, sum });
                }
                map.add(written);
                vec![]
            }
            Step::Free(index) => {
                let Some(key) = nth(&keys, index) else { continue };
                model.alive.remove(&key);
                model.dead.push(key);
                map.free(&key).unwrap().into_iter().collect()
            }
            Step::FreeAgain(index) => {
                let Some(key) = nth(&model.dead, index) else { continue };
                assert!(map.free(&key).is_err() && map.find(&key).is_none() && map.begin_read(&key).is_none());
                vec![]
            }
            Step::BeginRead(index) => {
                let Some(key) = nth(&keys, index) else { continue };
                model.reads.push(map.begin_read(&key).unwrap().segment);
                vec![]
            }
            Step::EndRead(index) => {
                let Some(segment) = nth(&model.reads, index) else { continue };
                let at = model.reads.iter().position(|reading| *reading == segment).unwrap();
                model.reads.swap_remove(at);
                map.end_read(segment).into_iter().collect()
            }
            Step::BeginCompaction(limit) => {
                if model.compaction.is_some() {
                    continue;
                }
                let sparse = model.sparse();
                let compaction = map.begin_compaction(limit);
                assert_eq!(compaction.is_some(), !sparse.is_empty());
                if let Some(compaction) = &compaction {
                    let chosen: BTreeSet<u64> = compaction.segments.iter().copied().collect();
                    assert!(chosen.is_subset(&sparse) && chosen.len() == compaction.segments.len());
                    assert!(chosen.iter().all(|segment| model.segments[segment].0 == compaction.target));
                    let total: u64 = chosen.iter().map(|&segment| model.live(segment)).sum();
                    assert!(chosen.len() == 1 || total <= limit);
                    let moving: BTreeSet<Key> = compaction.objects.iter().map(|object| object.0).collect();
                    let living = model.alive.iter().filter(|(_, object)| chosen.contains(&object.segment));
                    assert_eq!(moving, living.map(|(key, _)| *key).collect());
                }
                model.compaction = compaction;
                vec![]
            }
            Step::EndCompaction(read, can_write) => {
                let Some(compaction) = model.compaction.take() else { continue };
                let read = compaction.objects.iter().zip(read.iter().cycle()).filter(|(_, read)| **read);
                let objects: Vec<_> = read
                    .map(|((key, at), _)| (*key, at.length, at.checksums().first().copied().unwrap_or(0)))
                    .collect();
                let moved = (can_write && !objects.is_empty()).then(|| model.written(1, &objects));
                if let Some(written) = &moved {
                    for (key, ..) in &objects {
                        if let Some(object) = model.alive.get_mut(key) {
                            object.segment = written.segment;
                        }
                    }
                }
                let retry = !can_write;
                if !retry {
                    model.kept.extend(&compaction.segments);
                }
                map.end_compaction(&compaction.segments, moved, retry)
            }
        };
        let targets: BTreeMap<_, _> = targets.into_iter().chain(model.segments.clone()).collect();
        assert_eq!(gone(doomed, &targets), model.collect());
        compare(&map, &model);
    }
    end(&mut map, model);
}

fn compare(map: &Map, model: &Model) {
    assert_eq!(map.is_sparse(), !model.sparse().is_empty());
    assert_eq!((map.len(), map.segments()), (model.alive.len(), model.segments.len()));
    assert_eq!(map.live_bytes(), model.alive.values().map(|object| object.length).sum::<u64>());
    for (key, object) in &model.alive {
        let at = map.find(key).unwrap();
        assert_eq!(
            (at.segment, at.length, at.target),
            (object.segment, object.length, model.segments[&object.segment].0)
        );
        let sums: Vec<u64> = (0..object.length.div_ceil(CHUNK)).map(|at| object.sum + at).collect();
        assert_eq!(at.checksums(), sums);
    }
}

/// In the end nothing stays.
fn end(map: &mut Map, mut model: Model) {
    if let Some(compaction) = model.compaction.take() {
        map.end_compaction(&compaction.segments, None, true);
    }
    for segment in model.reads.drain(..) {
        map.end_read(segment);
    }
    for key in model.alive.keys() {
        map.free(key).unwrap();
    }
    assert_eq!((map.len(), map.segments(), map.file_bytes(), map.live_bytes()), (0, 0, 0, 0));
    assert!(map.is_empty() && !map.is_sparse());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_history_matches_the_model(steps in prop::collection::vec(step(), 1..120)) {
        run(steps);
    }
}
