//! An object that is published, freed and followed by the next one in its slot, against a reader of the record.

use std::sync::atomic::Ordering;

use loom::sync::Arc;
use loom::thread;

use super::{Exact, ModelWord, Unfenced, explore};
use crate::layout::{Phase, State};
use crate::protocol;

struct World<W> {
    slot: W,
    /// Stands for the words of the record: all hold the generation of their object.
    record: [W; 2],
}

fn create<W: ModelWord>(world: &World<W>) -> State {
    let claimed = protocol::claim(&world.slot, 1, |_| {}).expect("nobody else claims");
    for word in &world.record {
        word.store(claimed.generation.into(), Ordering::Relaxed);
    }
    assert!(protocol::advance(&world.slot, claimed, Phase::Draft));
    claimed.with(Phase::Draft)
}

fn read<W: ModelWord>(world: &World<W>) {
    let record = || world.record.each_ref().map(|word| word.load(Ordering::Relaxed));
    if let Some((state, record)) = protocol::read_consistent(&world.slot, record)
        && state.phase == Phase::Sealed
    {
        let generation = u64::from(state.generation);
        assert_eq!(record, [generation; 2], "a record of another object was believed");
    }
}

fn model<W: ModelWord>() {
    explore(4, || {
        let world = Arc::new(World { slot: W::new(0), record: [W::new(0), W::new(0)] });
        let other = Arc::clone(&world);
        // The writer is the first thread: the explorer goes back from the accesses of those that it ran later.
        let reader = thread::spawn(move || read(&other));
        let draft = create(&world);
        assert!(protocol::advance(&world.slot, draft, Phase::Sealed));
        protocol::release(&world.slot, draft.with(Phase::Free));
        create(&world);
        reader.join().unwrap();
    });
}

#[test]
fn a_reader_believes_only_what_belongs_to_the_state() {
    model::<Exact>();
}

#[test]
#[should_panic(expected = "a record of another object was believed")]
fn without_the_fences_the_model_finds_a_foreign_record() {
    model::<Unfenced>();
}
