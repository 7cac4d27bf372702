//! A client that bumps its lease against the daemon that takes the tail back and grants the next.

use std::sync::atomic::Ordering;

use loom::sync::Arc;
use loom::thread;

use super::{Exact, ModelWord, explore};
use crate::layout::Lease;
use crate::protocol::{self, Word};

const UNITS: u32 = 3;

/// What the client has taken: epoch and unit.
fn client(word: &impl Word) -> Vec<(u16, u32)> {
    let (mut taken, mut epoch) = (Vec::new(), 1);
    for _ in 0..3 {
        let lease = Lease::unpack(word.load(Ordering::Acquire));
        if lease.epoch != epoch {
            epoch = lease.epoch; // stands for being told of the grant
        }
        if lease.cursor < lease.limit && protocol::bump(word, lease, lease.cursor + 1) {
            taken.push((lease.epoch, lease.cursor));
        }
    }
    taken
}

/// What the daemon has taken back of the first lease: from, to. Then it grants the second.
fn daemon(word: &impl Word, careful: bool) -> (u32, u32) {
    loop {
        let lease = Lease::unpack(word.load(Ordering::Acquire));
        if careful && !protocol::cut(word, lease) {
            continue;
        }
        word.store(Lease { epoch: 2, cursor: 0, limit: UNITS }.pack(), Ordering::Release);
        return (lease.cursor, lease.limit);
    }
}

fn model(careful: bool) {
    explore(3, move || {
        let word = Arc::new(Exact::new(Lease { epoch: 1, cursor: 0, limit: UNITS }.pack()));
        let other = Arc::clone(&word);
        let client = thread::spawn(move || client(&*other));
        let (from, to) = daemon(&*word, careful);
        let taken = client.join().unwrap();
        for epoch in [1, 2] {
            let units: Vec<u32> = taken.iter().filter(|(of, _)| *of == epoch).map(|(_, unit)| *unit).collect();
            assert_eq!(units, (0..units.len() as u32).collect::<Vec<_>>(), "a unit was given twice");
        }
        let first = taken.iter().filter(|(epoch, _)| *epoch == 1).count() as u32;
        assert_eq!((first, UNITS), (from, to), "client and daemon disagree about the cut");
        let last = Lease::unpack(word.load(Ordering::Acquire));
        assert_eq!((last.epoch, last.cursor), (2, taken.len() as u32 - first), "the second lease lost count");
    });
}

#[test]
fn client_and_daemon_never_take_the_same_bytes() {
    model(true);
}

#[test]
#[should_panic(expected = "client and daemon disagree about the cut")]
fn a_cut_without_compare_and_swap_is_found() {
    model(false);
}
