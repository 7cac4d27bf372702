//! Shared words as they are in production, with a place to stand between any two changes in tests.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::protocol::Word;

/// A word in a shared mapping.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shared<'a>(pub(crate) &'a AtomicU64);

impl Shared<'_> {
    /// Raises the word to at least this value.
    pub(crate) fn raise(self, value: u64) {
        step();
        self.0.fetch_max(value, Ordering::Release);
        step();
    }
}

impl Word for Shared<'_> {
    #[inline]
    fn load(&self, order: Ordering) -> u64 {
        self.0.load(order)
    }

    #[inline]
    fn store(&self, value: u64, order: Ordering) {
        step();
        self.0.store(value, order);
        step();
    }

    #[inline]
    fn swap_if(&self, current: u64, new: u64) -> Result<u64, u64> {
        step();
        let result = self.0.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire);
        step();
        result
    }

    #[inline]
    fn fence(order: Ordering) {
        fence(order);
    }
}

/// Called before and after every change of a shared word: tests kill, stop or check a process there.
#[cfg(not(test))]
#[inline]
fn step() {}

#[cfg(test)]
pub(crate) use self::steps::step;

#[cfg(test)]
pub(crate) mod steps {
    use std::cell::RefCell;

    type Hook = Box<dyn FnMut()>;

    thread_local! {
        static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
    }

    /// Runs the thread's hook, which sees none of the steps that it makes itself.
    pub(crate) fn step() {
        let Some(mut hook) = HOOK.with_borrow_mut(Option::take) else { return };
        hook();
        HOOK.set(Some(hook));
    }

    /// Calls `hook` at each step that this thread makes within `run`.
    pub(crate) fn with_hook<R>(hook: impl FnMut() + 'static, run: impl FnOnce() -> R) -> R {
        HOOK.set(Some(Box::new(hook)));
        let result = run();
        HOOK.set(None);
        result
    }
}
