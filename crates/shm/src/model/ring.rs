//! A writer of more than the lane holds against its reader.

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Mutex};
use loom::thread;

use super::{Event, Fault, Model, Name, explore};
use crate::protocol::{Fence, Reading, Writing, take_starved};

const SIZE: u64 = 2;
const TOTAL: u64 = 4;

struct World {
    written: Model,
    read: Model,
    starved: Model,
    /// Stands for the bytes: loom finds accesses that nothing orders.
    cells: Vec<UnsafeCell<u64>>,
    at_reader: Event,
    at_writer: Event,
    writing: Mutex<Writing<SIZE>>,
    reading: Mutex<Reading<SIZE>>,
    fault: Fault,
}

// SAFETY: what the protocol does not order, loom reports.
unsafe impl Sync for World {}

impl World {
    /// Writes until all is written or the lane stays full. Each call stands for a wake-up of the writer's thread.
    fn write(&self) {
        let mut writing = self.writing.lock().unwrap();
        self.at_writer.hush();
        while writing.at() < TOTAL {
            let wanted = (TOTAL - writing.at()) as usize;
            let count = writing.claim(&self.read, wanted).unwrap();
            for at in (writing.at()..).take(count) {
                // SAFETY: what the protocol does not order, loom reports.
                self.cells[(at % SIZE) as usize].with_mut(|cell| unsafe { *cell = at });
            }
            if count > 0 {
                writing.publish(&self.written, count);
                self.at_reader.strike();
            }
            if writing.at() < TOTAL {
                let room = writing.starve(&self.starved, &self.read);
                if !room || self.fault == Fault::Actor("looks once only") {
                    return;
                }
            }
        }
    }

    /// Reads what is there. Each call stands for a wake-up of the reader.
    fn read(&self) {
        let mut reading = self.reading.lock().unwrap();
        self.at_reader.hush();
        let early = self.fault == Fault::Actor("looks before it tells") && take_starved(&self.starved);
        let count = reading.available(&self.written).unwrap();
        for at in (reading.at()..).take(count) {
            // SAFETY: as above.
            let value = self.cells[(at % SIZE) as usize].with(|cell| unsafe { *cell });
            assert_eq!(value, at, "bytes came that were not written");
        }
        if count > 0 {
            reading.consume(&self.read, count);
        }
        let starved =
            if let Fault::Actor("looks before it tells") = self.fault { early } else { take_starved(&self.starved) };
        if starved && self.fault != Fault::Actor("does not tell") {
            self.at_writer.strike();
        }
    }
}

fn model(fault: Fault) {
    explore(3, move || {
        let world = Arc::new(World {
            written: Model::new(Name::Written, 0, fault),
            read: Model::new(Name::Read, 0, fault),
            starved: Model::new(Name::Starved, 0, fault),
            cells: (0..SIZE).map(|_| UnsafeCell::new(u64::MAX)).collect(),
            at_reader: Event::new(),
            at_writer: Event::new(),
            writing: Mutex::new(Writing::default()),
            reading: Mutex::new(Reading::default()),
            fault,
        });
        let other = Arc::clone(&world);
        // A reader looks when it likes: another link's news may have brought it here.
        let reader = thread::spawn(move || {
            other.read();
            other.read();
        });
        world.write();
        if world.at_writer.is_struck() {
            world.write();
        }
        reader.join().unwrap();
        loop {
            if world.at_reader.is_struck() {
                world.read();
            } else if world.at_writer.is_struck() {
                world.write();
            } else {
                break;
            }
        }
        assert_eq!(world.reading.lock().unwrap().at(), TOTAL, "the writer waits for ever");
    });
}

#[test]
fn all_bytes_cross_and_no_writer_waits_for_ever() {
    model(Fault::None);
}

macro_rules! mutants {
    ($($name:ident: $fault:expr, $finding:literal;)*) => {
        $(
            #[test]
            #[should_panic(expected = $finding)]
            fn $name() {
                model($fault);
            }
        )*
    };
}

mutants! {
    without_the_writers_fence: Fault::Fence(Fence::Starve), "the writer waits for ever";
    without_the_readers_fence: Fault::Fence(Fence::Read), "the writer waits for ever";
    a_writer_that_does_not_look_again: Fault::Actor("looks once only"), "the writer waits for ever";
    a_reader_that_looks_before_it_says_that_it_has_read: Fault::Actor("looks before it tells"), "the writer waits for ever";
    a_reader_that_does_not_tell: Fault::Actor("does not tell"), "the writer waits for ever";
    bytes_published_without_release: Fault::Release(Name::Written), "Causality violation";
    bytes_read_without_acquire: Fault::Acquire(Name::Written), "Causality violation";
    bytes_given_back_without_release: Fault::Release(Name::Read), "Causality violation";
    bytes_filled_again_without_acquire: Fault::Acquire(Name::Read), "Causality violation";
}
