//! Senders against the two that listen at a bell: an event loop and a thread.

use std::sync::atomic::Ordering;

use loom::sync::{Arc, Mutex};
use loom::thread;

use super::{Event, Fault, Model, Name, explore};
use crate::protocol::bell::{self, Ear};
use crate::protocol::{Fence, Reading, Word, Writing, is_drained};

const SIZE: u64 = 8;

/// What the event loop does in a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loop {
    /// There is none.
    Absent,
    /// It runs and does not come back.
    Busy,
    /// It sleeps and serves.
    Serving,
    /// The same, and the thread never comes: a loop depends on it for nothing.
    Alone,
    /// It is woken by something else first, and goes to sleep again without serving.
    Interrupted,
    /// It watches before it sleeps.
    Watching,
    /// It ends out of its sleep: something else woke it.
    Leaving,
}

/// A word of a process that is killed before it changes it.
struct Dying<'a>(&'a Model);

impl Word for Dying<'_> {
    fn load(&self, order: Ordering) -> u64 {
        self.0.load(order)
    }

    fn store(&self, _: u64, _: Ordering) {}

    fn swap(&self, _: u64, order: Ordering) -> u64 {
        self.0.load(order)
    }

    fn swap_if(&self, _: u64, _: u64) -> bool {
        // It goes no further.
        true
    }

    fn fence(&self, place: Fence) {
        self.0.fence(place);
    }
}

/// A sender's link, as far as it matters here.
struct Lane {
    written: Model,
    read: Model,
    reading: Mutex<Reading<SIZE>>,
}

struct World {
    /// News of this process's own threads, for its loop alone.
    events: Mutex<usize>,
    attention: Model,
    knocked: Model,
    at_loop: Event,
    at_thread: Event,
    lanes: Vec<Lane>,
    fault: Fault,
}

impl World {
    fn strike(&self, ear: Ear) {
        match ear {
            Ear::Loop => self.at_loop.strike(),
            Ear::Thread => self.at_thread.strike(),
        }
    }

    fn ring(&self) {
        bell::ring(&self.attention, &self.knocked, |ear| self.strike(ear));
    }

    /// A sender that is killed between the two halves of its ring.
    fn die(&self, lane: usize) {
        Writing::<SIZE>::default().publish(&self.lanes[lane].written, 1);
        if self.fault == Fault::Actor("notes it before it strikes") {
            bell::ring(&self.attention, &self.knocked, |_| ());
        } else {
            bell::ring(&Dying(&self.attention), &Dying(&self.knocked), |ear| self.strike(ear));
        }
    }

    fn send(&self, lane: usize, messages: usize) {
        let mut writing = Writing::<SIZE>::default();
        let written = &self.lanes[lane].written;
        for _ in 0..messages {
            if self.fault == Fault::Actor("rings first") {
                self.ring();
                writing.publish(written, 1);
            } else {
                writing.publish(written, 1);
                self.ring();
            }
        }
    }

    /// Another thread of the process has something that only the loop can do.
    fn post(&self, events: usize) {
        for _ in 0..events {
            *self.events.lock().unwrap() += 1;
            bell::call_loop(&self.attention, |ear| self.strike(ear));
        }
    }

    fn has_news(&self) -> bool {
        *self.events.lock().unwrap() > 0 || self.has_messages()
    }

    fn has_messages(&self) -> bool {
        self.lanes.iter().any(|lane| !is_drained(&lane.written, &lane.read))
    }

    fn receive_all(&self) {
        for lane in &self.lanes {
            if !is_drained(&lane.written, &lane.read) {
                let mut reading = lane.reading.lock().unwrap();
                let count = reading.available(&lane.written).unwrap();
                reading.consume(&lane.read, count);
            }
        }
    }

    /// A turn of the event loop from before its sleep on. Returns whether it sleeps now, for good unless it is struck.
    fn turn(&self) -> bool {
        bell::sleep(&self.attention);
        if self.fault != Fault::Actor("sleeps without a look") && self.has_news() {
            bell::wake_up(&self.attention);
        } else if !self.at_loop.is_struck() {
            return true;
        }
        self.serve();
        false
    }

    /// As when the loop was struck.
    fn serve(&self) {
        self.at_loop.hush();
        bell::wake_up(&self.attention);
        self.receive_all();
        *self.events.lock().unwrap() = 0;
    }

    fn run_loop(&self, way: Loop) -> bool {
        match way {
            Loop::Absent | Loop::Busy => return true,
            Loop::Serving | Loop::Alone => {}
            Loop::Interrupted => {
                bell::sleep(&self.attention);
                if !self.has_news() {
                    bell::wake_up(&self.attention);
                }
            }
            Loop::Watching => {
                bell::watch(&self.attention);
                if self.has_news() {
                    self.serve();
                }
                bell::watch(&self.attention);
            }
            Loop::Leaving => {
                bell::sleep(&self.attention);
                bell::leave(&self.attention, &self.knocked, |ear| {
                    if self.fault != Fault::Actor("leaves without a word") {
                        self.strike(ear);
                    }
                });
                return true;
            }
        }
        self.turn() || self.turn()
    }

    /// What the thread does when it was struck.
    fn listen(&self) {
        if self.fault != Fault::Actor("hushes last") {
            self.at_thread.hush();
        }
        match self.fault {
            Fault::Actor("never listens again") => self.receive_all(),
            Fault::Actor("looks before it listens") => {
                self.receive_all();
                bell::listen(&self.knocked);
            }
            _ => {
                bell::listen(&self.knocked);
                self.receive_all();
            }
        }
        if self.fault == Fault::Actor("hushes last") {
            self.at_thread.hush();
        }
    }

    fn run_thread(&self, turns: usize) {
        for _ in 0..turns {
            if self.at_thread.is_struck() {
                self.listen();
            }
        }
    }

    /// All have stopped: whoever was struck goes on, until nobody was.
    fn settle(&self, way: Loop, mut sleeps: bool) {
        loop {
            if self.at_thread.is_struck() && way != Loop::Alone {
                self.listen();
            } else if matches!(way, Loop::Serving | Loop::Alone | Loop::Interrupted | Loop::Watching)
                && (!sleeps || self.at_loop.is_struck())
            {
                if sleeps {
                    self.serve();
                }
                sleeps = self.turn();
            } else {
                break;
            }
        }
        assert!(!self.has_news(), "news wait for ever");
    }
}

/// What others leave for the owner.
#[derive(Debug, Clone, Copy)]
enum Work {
    /// So many senders leave so many messages each.
    Messages(usize, usize),
    /// A thread of the owner's own process leaves so many events for the loop, a sender one message.
    Events(usize),
    /// A sender is killed as it rings for its message, then another one leaves a message.
    Death,
}

fn model(way: Loop, work: Work, fault: Fault) {
    let (lanes, messages) = match work {
        Work::Messages(senders, each) => (senders, each),
        Work::Events(_) => (1, 1),
        Work::Death => (2, 1),
    };
    explore(3, move || {
        let world = Arc::new(World {
            attention: Model::new(Name::Attention, 0, fault),
            knocked: Model::new(Name::Knocked, 0, fault),
            events: Mutex::new(0),
            at_loop: Event::new(),
            at_thread: Event::new(),
            lanes: (0..lanes)
                .map(|_| Lane {
                    written: Model::new(Name::Written, 0, fault),
                    read: Model::new(Name::Read, 0, fault),
                    reading: Mutex::new(Reading::default()),
                })
                .collect(),
            fault,
        });
        if way != Loop::Absent {
            bell::wake_up(&world.attention);
        }
        let mut threads = Vec::new();
        // Where the first thread does something else, or all.
        let first = match work {
            Work::Messages(..) => 1,
            Work::Events(_) => 0,
            Work::Death => lanes,
        };
        for lane in first..lanes {
            let world = Arc::clone(&world);
            threads.push(thread::spawn(move || world.send(lane, messages)));
        }
        if way != Loop::Alone {
            let world = Arc::clone(&world);
            threads.push(thread::spawn(move || world.run_thread(2)));
        }
        let attending = (!matches!(way, Loop::Absent | Loop::Busy)).then(|| {
            let world = Arc::clone(&world);
            thread::spawn(move || world.run_loop(way))
        });
        match work {
            Work::Messages(..) => world.send(0, messages),
            Work::Events(events) => world.post(events),
            Work::Death => {
                world.die(0);
                world.send(1, 1);
            }
        }
        for thread in threads {
            thread.join().unwrap();
        }
        let sleeps = attending.is_none_or(|attending| attending.join().unwrap());
        world.settle(way, sleeps);
    });
}

#[test]
fn a_serving_loop_misses_nothing() {
    model(Loop::Serving, Work::Messages(1, 2), Fault::None);
    model(Loop::Alone, Work::Messages(1, 2), Fault::None);
}

#[test]
fn a_loop_that_something_else_wakes_misses_nothing() {
    model(Loop::Interrupted, Work::Messages(1, 2), Fault::None);
}

#[test]
fn a_loop_that_watches_misses_nothing() {
    model(Loop::Watching, Work::Messages(1, 2), Fault::None);
    model(Loop::Watching, Work::Events(1), Fault::None);
}

#[test]
fn a_loop_misses_nothing_that_only_it_can_do() {
    model(Loop::Alone, Work::Events(2), Fault::None);
}

#[test]
fn a_thread_without_a_loop_misses_nothing() {
    model(Loop::Absent, Work::Messages(1, 3), Fault::None);
    model(Loop::Absent, Work::Messages(2, 1), Fault::None);
}

#[test]
fn what_comes_while_the_loop_is_busy_is_the_threads() {
    model(Loop::Busy, Work::Messages(1, 3), Fault::None);
    model(Loop::Busy, Work::Messages(2, 1), Fault::None);
}

#[test]
fn what_a_loop_that_leaves_was_woken_for_is_the_threads() {
    model(Loop::Leaving, Work::Messages(1, 2), Fault::None);
}

macro_rules! mutants {
    ($($name:ident: $way:expr, $work:expr, $fault:expr;)*) => {
        $(
            #[test]
            #[should_panic(expected = "news wait for ever")]
            fn $name() {
                model($way, $work, $fault);
            }
        )*
    };
}

#[test]
fn a_sender_that_is_killed_as_it_rings_silences_nobody() {
    for way in [Loop::Serving, Loop::Alone, Loop::Absent, Loop::Busy] {
        model(way, Work::Death, Fault::None);
    }
}

const MESSAGES: Work = Work::Messages(1, 2);

mutants! {
    without_the_senders_fence_a_loop: Loop::Serving, MESSAGES, Fault::Fence(Fence::Ring);
    without_the_senders_fence_a_thread: Loop::Busy, MESSAGES, Fault::Fence(Fence::Ring);
    without_the_loops_fence: Loop::Alone, MESSAGES, Fault::Fence(Fence::Sleep);
    without_the_threads_fence: Loop::Absent, MESSAGES, Fault::Fence(Fence::Listen);
    without_the_fence_of_a_knock: Loop::Leaving, MESSAGES, Fault::Fence(Fence::Knock);
    a_sender_that_rings_before_it_has_left_its_message: Loop::Serving, MESSAGES, Fault::Actor("rings first");
    a_loop_that_sleeps_without_a_look: Loop::Alone, MESSAGES, Fault::Actor("sleeps without a look");
    a_loop_that_does_not_look_for_events: Loop::Alone, Work::Events(2), Fault::Actor("sleeps without a look");
    a_sender_that_notes_before_it_strikes_and_is_killed: Loop::Absent, Work::Death, Fault::Actor("notes it before it strikes");
    a_loop_that_leaves_without_a_word: Loop::Leaving, MESSAGES, Fault::Actor("leaves without a word");
    a_thread_that_looks_before_it_listens: Loop::Absent, MESSAGES, Fault::Actor("looks before it listens");
    a_thread_that_never_listens_again: Loop::Absent, MESSAGES, Fault::Actor("never listens again");
    a_thread_that_takes_its_event_back_last: Loop::Absent, MESSAGES, Fault::Actor("hushes last");
}
