//! Calls to the daemon that a thread waits for.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};

/// Answers by request; waiting threads see at once when the node ends.
#[derive(Debug)]
pub(crate) struct Calls<T> {
    next: AtomicU64,
    /// `None` after the node ended.
    waiting: Mutex<Option<HashMap<u64, Sender<T>>>>,
}

impl<T> Default for Calls<T> {
    fn default() -> Self {
        Self { next: AtomicU64::new(0), waiting: Mutex::new(Some(HashMap::new())) }
    }
}

impl<T> Calls<T> {
    /// A new request and where its answer comes; `None` when the node has ended.
    pub(crate) fn begin(&self) -> Option<(u64, Receiver<T>)> {
        let request = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).as_mut()?.insert(request, sender);
        Some((request, receiver))
    }

    /// Gives the answer to the thread that waits; back to the caller when none does any more.
    pub(crate) fn answer(&self, request: u64, value: T) -> Option<T> {
        let sender =
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).as_mut().and_then(|map| map.remove(&request));
        match sender {
            Some(sender) => sender.send(value).err().map(|unsent| unsent.0),
            None => Some(value),
        }
    }

    /// Nobody waits for the answer any more.
    pub(crate) fn give_up(&self, request: u64) {
        if let Some(map) = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            map.remove(&request);
        }
    }

    /// No answers come any more: every waiting thread learns it by its channel's end.
    pub(crate) fn end(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
