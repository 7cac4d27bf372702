//! Getters against the daemon that takes an object's memory for another one and brings it back at another place.

use std::sync::atomic::Ordering;

use loom::sync::Arc;
use loom::thread;

use super::{Exact, ModelWord, Unfenced, explore};
use crate::layout::{Phase, State, hold};
use crate::protocol::{self, Unpinned};

const OBJECT: State = State { generation: 1, seat: 1, phase: Phase::Sealed };
const SLOT: u32 = 5;
const MARK: u64 = 1;

/// What a mutant of the daemon does wrong.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Gives the memory away before it looks at the entries.
    GiveFirst,
    /// Seals the object again before its bytes are there.
    SealFirst,
    /// Writes the new place after it has sealed the object again.
    PlaceLate,
}

struct World<W> {
    slot: W,
    /// Which of the two places the object is at.
    place: W,
    /// What is at each place: 1 the object, 2 another one, 0 nothing yet.
    bytes: [W; 2],
    /// For each getter: its word of marks and its entry.
    getters: Vec<(W, W)>,
}

fn get<W: ModelWord>(world: &World<W>, getter: usize) {
    let (marks, entry) = &world.getters[getter];
    protocol::mark(marks, MARK);
    match protocol::pin(entry, hold(SLOT, OBJECT.generation), &world.slot, OBJECT.generation) {
        Ok(()) => {
            let place = world.place.load(Ordering::Relaxed) as usize;
            assert_eq!(world.bytes[place].load(Ordering::Relaxed), 1, "a pinned object is another one");
            protocol::unpin(entry);
        }
        Err(error) => assert_eq!(error, Unpinned::Spilled, "an object that lives was taken for one that is gone"),
    }
    protocol::mark(marks, 0);
}

/// Spills and restores; gives whether it came to that.
fn spill<W: ModelWord>(world: &World<W>, fault: Fault) -> bool {
    let spilled = OBJECT.with(Phase::Spilled);
    assert!(protocol::advance(&world.slot, OBJECT, Phase::Spilled));
    if fault != Fault::GiveFirst {
        protocol::fence_before_scan::<W>();
        let held = hold(SLOT, OBJECT.generation);
        if world.getters.iter().any(|(marks, entry)| protocol::held(marks) & MARK != 0 && protocol::held(entry) == held)
        {
            assert!(protocol::advance(&world.slot, spilled, Phase::Sealed));
            return false;
        }
    }
    world.bytes[0].store(2, Ordering::Relaxed);
    let seal = || assert!(protocol::advance(&world.slot, spilled, Phase::Sealed));
    let place = || world.place.store(1, Ordering::Relaxed);
    let read = || world.bytes[1].store(1, Ordering::Relaxed);
    match fault {
        Fault::SealFirst => (place(), seal(), read()),
        Fault::PlaceLate => (read(), seal(), place()),
        _ => (read(), place(), seal()),
    };
    true
}

fn model<W: ModelWord>(getters: usize, fault: Fault) {
    explore(3, move || {
        let world = Arc::new(World {
            slot: W::new(OBJECT.pack()),
            place: W::new(0),
            bytes: [W::new(1), W::new(0)],
            getters: (0..getters).map(|_| (W::new(0), W::new(0))).collect(),
        });
        let threads: Vec<_> = (0..getters)
            .map(|getter| {
                let world = Arc::clone(&world);
                thread::spawn(move || get(&world, getter))
            })
            .collect();
        spill(&world, fault);
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(world.slot.load(Ordering::Acquire), OBJECT.pack(), "it is there again");
    });
}

#[test]
fn who_pins_an_object_that_goes_and_comes_back_reads_it() {
    model::<Exact>(1, Fault::None);
}

#[test]
fn two_getters_against_one_that_spills() {
    model::<Exact>(2, Fault::None);
}

#[test]
#[should_panic(expected = "a pinned object is another one")]
fn without_the_fences_the_model_finds_the_fault() {
    model::<Unfenced>(1, Fault::None);
}

#[test]
#[should_panic(expected = "a pinned object is another one")]
fn memory_that_is_given_away_before_the_scan_is_found() {
    model::<Exact>(1, Fault::GiveFirst);
}

#[test]
#[should_panic(expected = "a pinned object is another one")]
fn sealing_before_the_bytes_are_there_is_found() {
    model::<Exact>(1, Fault::SealFirst);
}

#[test]
#[should_panic(expected = "a pinned object is another one")]
fn a_place_that_comes_late_is_found() {
    model::<Exact>(1, Fault::PlaceLate);
}
