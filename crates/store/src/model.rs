//! Every interleaving, and every order of memory that the language allows, of the protocols on shared words.
//!
//! The models run the functions of [`protocol`](crate::protocol) themselves. Beside each stands a mutant that lacks one
//! thing; the test of the mutant passes if the model finds the fault. Run them with
//!
//! ```text
//! RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test --release -p heliostat-store --lib model
//! ```

mod lease;
mod pins;
mod publish;
mod spills;

use std::sync::atomic::Ordering;

use loom::sync::atomic::AtomicU64;

use crate::protocol::Word;

/// A word as the design has it.
#[derive(Debug)]
struct Exact(AtomicU64);

/// A word whose fences do nothing.
#[derive(Debug)]
struct Unfenced(AtomicU64);

trait ModelWord: Word + Send + Sync + 'static {
    fn new(value: u64) -> Self;
}

macro_rules! word {
    ($name:ident, $fence:expr) => {
        impl ModelWord for $name {
            fn new(value: u64) -> Self {
                Self(AtomicU64::new(value))
            }
        }

        impl Word for $name {
            fn load(&self, order: Ordering) -> u64 {
                self.0.load(order)
            }

            fn store(&self, value: u64, order: Ordering) {
                self.0.store(value, order);
            }

            fn swap_if(&self, current: u64, new: u64) -> Result<u64, u64> {
                self.0.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire)
            }

            fn fence(order: Ordering) {
                ($fence)(order);
            }
        }
    };
}

word!(Exact, loom::sync::atomic::fence);
word!(Unfenced, |_| ());

/// Runs a model; bounded to so many preemptions of a thread that could go on, which keeps it exhaustive and short.
fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}
