//! Getters against the daemon that frees, sweeps, and gives the slot to the next object.

use std::sync::atomic::Ordering;

use loom::sync::Arc;
use loom::thread;

use super::{Exact, ModelWord, Unfenced, explore};
use crate::layout::{Phase, State, hold};
use crate::protocol;

const FIRST: State = State { generation: 1, seat: 1, phase: Phase::Sealed };
const SLOT: u32 = 5;
const MARK: u64 = 1;

/// What a mutant of the daemon or of the getters does wrong.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Takes the memory back before it looks at the entries.
    ReclaimFirst,
    /// Marks the block only after the entry was written and checked.
    MarkLate,
    /// Trusts the slot as it was before the entry was written.
    NoSecondLook,
}

struct World<W> {
    slot: W,
    /// Stands for the object's bytes: the generation of the object that was written there last.
    bytes: W,
    /// For each getter: its word of marks and its entry.
    getters: Vec<(W, W)>,
}

fn get<W: ModelWord>(world: &World<W>, getter: usize, fault: Fault) {
    let (marks, entry) = &world.getters[getter];
    let held = hold(SLOT, FIRST.generation);
    if fault != Fault::MarkLate {
        protocol::mark(marks, MARK);
    }
    let pinned = if fault == Fault::NoSecondLook {
        let sealed = protocol::is_sealed(world.slot.load(Ordering::Acquire), FIRST.generation);
        entry.store(held, Ordering::SeqCst);
        sealed
    } else {
        protocol::pin(entry, held, &world.slot, FIRST.generation).is_ok()
    };
    if fault == Fault::MarkLate {
        protocol::mark(marks, MARK);
    }
    if pinned {
        assert_eq!(world.bytes.load(Ordering::Relaxed), 1, "a pinned object changed");
        protocol::unpin(entry);
    }
    protocol::mark(marks, 0);
}

fn is_held<W: ModelWord>(world: &World<W>) -> bool {
    protocol::fence_before_scan::<W>();
    let held = hold(SLOT, FIRST.generation);
    world.getters.iter().any(|(marks, entry)| protocol::held(marks) & MARK != 0 && protocol::held(entry) == held)
}

/// Gives the slot and the memory to an object of the next generation.
fn reuse<W: ModelWord>(world: &World<W>) {
    protocol::release(&world.slot, FIRST.with(Phase::Free));
    let claimed = protocol::claim(&world.slot, 2, |_| {}).expect("nobody else claims");
    world.bytes.store(2, Ordering::Relaxed);
    assert!(protocol::advance(&world.slot, claimed, Phase::Sealed));
}

/// Frees, and sweeps twice if it was pinned; gives whether it was taken back.
fn free<W: ModelWord>(world: &World<W>, fault: Fault) -> bool {
    assert!(protocol::advance(&world.slot, FIRST, Phase::Closing));
    if fault == Fault::ReclaimFirst {
        reuse(world);
        return true;
    }
    for _ in 0..2 {
        if !is_held(world) {
            reuse(world);
            return true;
        }
    }
    false
}

fn model<W: ModelWord>(getters: usize, fault: Fault) {
    explore(3, move || {
        let world = Arc::new(World {
            slot: W::new(FIRST.pack()),
            bytes: W::new(1),
            getters: (0..getters).map(|_| (W::new(0), W::new(0))).collect(),
        });
        let threads: Vec<_> = (0..getters)
            .map(|getter| {
                let world = Arc::clone(&world);
                thread::spawn(move || get(&world, getter, fault))
            })
            .collect();
        let freed = free(&world, fault);
        for thread in threads {
            thread.join().unwrap();
        }
        // Whatever was deferred comes back with the next sweep: nothing is left behind by getters that lost.
        assert!(freed || !is_held(&world), "an entry stayed");
    });
}

#[test]
fn a_pinned_object_is_never_reused_and_an_unpinned_one_always() {
    model::<Exact>(1, Fault::None);
}

#[test]
fn two_getters_against_one_daemon() {
    model::<Exact>(2, Fault::None);
}

#[test]
#[should_panic(expected = "a pinned object changed")]
fn without_the_fences_the_model_finds_the_fault() {
    model::<Unfenced>(1, Fault::None);
}

#[test]
#[should_panic(expected = "a pinned object changed")]
fn reclaiming_before_the_scan_is_found() {
    model::<Exact>(1, Fault::ReclaimFirst);
}

#[test]
#[should_panic(expected = "a pinned object changed")]
fn a_mark_that_comes_late_is_found() {
    model::<Exact>(1, Fault::MarkLate);
}

#[test]
#[should_panic(expected = "a pinned object changed")]
fn a_getter_without_a_second_look_is_found() {
    model::<Exact>(1, Fault::NoSecondLook);
}
