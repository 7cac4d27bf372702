//! Every interleaving, and every order of memory that the language allows, of the protocols of bells and rings.
//!
//! The models run the functions of [`protocol`](crate::protocol) themselves. Nobody blocks in them: an actor that would
//! sleep stops, and when all have stopped, whoever has been struck goes on, until nobody has. What is left undone then
//! would wait for ever. No model looks again after a time, as the production's thread does.
//!
//! Beside each model stand its mutants, which lack one thing each; the test of a mutant passes if the model finds the
//! fault. Run them with
//!
//! ```text
//! RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test --release -p heliostat-shm --lib model
//! ```

mod bell;
mod ring;

use std::sync::atomic::Ordering;

use loom::sync::atomic::AtomicU64;

use crate::protocol::{Fence, Word};

/// What a mutant lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// A fence.
    Fence(Fence),
    /// The acquire of the loads of a word.
    Acquire(Name),
    /// The release of the stores to a word.
    Release(Name),
    /// An actor leaves something out, or does it in the wrong order: see the models.
    Actor(&'static str),
}

/// The words, as far as mutants tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Attention,
    Knocked,
    Written,
    Read,
    Starved,
}

/// A shared word of a mutant.
#[derive(Debug)]
struct Model {
    value: AtomicU64,
    name: Name,
    fault: Fault,
}

impl Model {
    fn new(name: Name, value: u64, fault: Fault) -> Self {
        Self { value: AtomicU64::new(value), name, fault }
    }
}

impl Word for Model {
    fn load(&self, order: Ordering) -> u64 {
        self.value.load(if self.fault == Fault::Acquire(self.name) { Ordering::Relaxed } else { order })
    }

    fn store(&self, value: u64, order: Ordering) {
        self.value.store(value, if self.fault == Fault::Release(self.name) { Ordering::Relaxed } else { order });
    }

    fn swap(&self, value: u64, order: Ordering) -> u64 {
        self.value.swap(value, order)
    }

    fn swap_if(&self, current: u64, new: u64) -> bool {
        self.value.compare_exchange(current, new, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn fence(&self, place: Fence) {
        if self.fault != Fault::Fence(place) {
            loom::sync::atomic::fence(Ordering::SeqCst);
        }
    }
}

/// A descriptor of events: the kernel changes it under a lock.
#[derive(Debug)]
struct Event(AtomicU64);

impl Event {
    fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    fn strike(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    fn hush(&self) {
        self.0.swap(0, Ordering::AcqRel);
    }

    /// What a poll would say now.
    fn is_struck(&self) -> bool {
        self.0.fetch_add(0, Ordering::AcqRel) > 0
    }
}

/// Runs a model; bounded to so many preemptions of a thread that could go on, which keeps it exhaustive and short.
fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}
