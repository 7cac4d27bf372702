//! A process that writes over the memory of its links: errors, never anything worse.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use heliostat_shm::bell::Bell;
use heliostat_shm::map::{DataMap, WordMap};
use heliostat_shm::memfd::{Memfd, PAGE};
use heliostat_shm::ring::{LANE, Side};
use heliostat_wire::{Link, LinkError, introduce};
use proptest::prelude::*;

type Message = (u32, Vec<u8>);

#[derive(Debug, Clone)]
enum Step {
    /// The victim does something.
    Send(usize),
    Flush,
    Receive,
    /// The other does what it should.
    Answer(usize),
    Take,
    /// It does not: a word of the header becomes any value, or moves by a little.
    Set(usize, u64),
    Move(usize, i64),
    /// Any bytes at any place of both lanes.
    Scribble(u64, Vec<u8>),
}

/// The words of both lanes: written, read, starved.
const WORDS: [u64; 6] = [0, 64, 128, 1024, 1088, 1152];

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![3 => 0..100_usize, 1 => 0..100_000_usize];
    let value = prop_oneof![any::<u64>(), 0..200_000_u64, (0..200_000_u64).prop_map(|below| u64::MAX - below)];
    prop_oneof![
        length.clone().prop_map(Step::Send),
        Just(Step::Flush),
        Just(Step::Receive),
        length.prop_map(Step::Answer),
        Just(Step::Take),
        (0..WORDS.len(), value).prop_map(|(word, value)| Step::Set(word, value)),
        (0..WORDS.len(), -70_000..70_000_i64).prop_map(|(word, by)| Step::Move(word, by)),
        (0..2 * LANE, proptest::collection::vec(any::<u8>(), 1..200)).prop_map(|(at, bytes)| Step::Scribble(at, bytes)),
    ]
}

/// What the victim may be told.
fn refused(result: Result<(), LinkError>) {
    if let Err(error) = result {
        assert!(matches!(error, LinkError::Broken(_) | LinkError::Frame(_)), "{error:?}");
    }
}

fn run(steps: Vec<Step>) {
    let bell = Bell::create().unwrap();
    let [near, far] = introduce(&bell, &bell).unwrap();
    let memory = Memfd::from_fd(near[0].try_clone().unwrap()).unwrap();
    let (words, data) = (WordMap::new(&memory).unwrap(), Arc::new(DataMap::new(&memory).unwrap()));
    let open = |side, fds: Vec<OwnedFd>| Link::open(side, fds.try_into().unwrap()).unwrap();
    let (victim, other) = (open(Side::Near, near), open(Side::Far, far));
    for step in steps {
        match step {
            Step::Send(length) => refused(victim.send(&(1_u32, vec![2_u8; length])).map(drop)),
            Step::Flush => refused(victim.flush().map(drop)),
            Step::Receive => refused(victim.receive(|_: Vec<Message>| ())),
            Step::Answer(length) => refused(other.send(&(3_u32, vec![4_u8; length])).map(drop)),
            Step::Take => refused(other.receive(|_: Vec<Message>| ())),
            Step::Set(word, value) => words.word(WORDS[word]).unwrap().store(value, Ordering::SeqCst),
            Step::Move(word, by) => {
                let word = words.word(WORDS[word]).unwrap();
                word.store(word.load(Ordering::SeqCst).wrapping_add_signed(by), Ordering::SeqCst);
            }
            Step::Scribble(at, bytes) => {
                let length = (bytes.len() as u64).min(2 * LANE - at);
                let mut range = data.exclusive(PAGE + at, length).unwrap();
                range.bytes_mut().copy_from_slice(&bytes[..length as usize]);
            }
        }
        let _ = victim.has_news();
    }
}

proptest! {
    #[test]
    fn a_hostile_process_breaks_its_link_and_nothing_else(steps in proptest::collection::vec(step(), 1..40)) {
        run(steps);
    }
}
