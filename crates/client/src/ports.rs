//! Where news for the JavaScript threads of this process wait until those threads take them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use heliostat_runtime::{Handle, WaitId};

use crate::restores::RestoreId;

/// Names one JavaScript thread of the process.
pub type PortId = u32;

/// Wakes a thread: called from any thread when its first event arrives, must not block.
pub type Notify = Box<dyn Fn() + Send + Sync>;

/// News for a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A wait of this thread is over.
    Over(WaitId),
    /// There is a task to run, or something to forget.
    Task,
    /// What was asked back from storage is in memory.
    Restored(RestoreId),
    /// Others wait for room in the store: what only garbage holds is to be let go of.
    Collect,
    /// Where the program made what it holds in the store is to be told, in answer to this request.
    Sites(u32),
    /// The code of a running task is to be told that it was aborted.
    Abort,
    /// A failed task's last reference went unread.
    Unread,
    /// The node ended.
    NodeGone,
}

#[derive(Default)]
struct Port {
    events: Vec<Event>,
    notify: Option<Notify>,
}

/// The threads of this process. The first port opened gets the tasks.
#[derive(Default)]
pub(crate) struct Ports {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ports: HashMap<PortId, Port>,
    next: PortId,
    waits: HashMap<WaitId, PortId>,
    /// Streams whose items the threads take.
    streams: HashMap<Handle, PortId>,
    main: Option<PortId>,
    /// The port whose event loop takes what other processes send.
    attended: Option<PortId>,
    /// Tasks that arrived before a thread could take them.
    early: Vec<Event>,
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ports").field("open", &self.lock().ports.len()).finish_non_exhaustive()
    }
}

impl Ports {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn open(&self, notify: Notify) -> PortId {
        self.lock().open(notify)
    }

    /// Opens the one port whose event loop takes what other processes send; `None` when there is one. `attend` and the
    /// `leave` of [`Self::close`] are called in the order in which loops come and go.
    pub(crate) fn open_attended(&self, notify: Notify, attend: impl FnOnce()) -> Option<PortId> {
        let mut state = self.lock();
        if state.attended.is_some() {
            return None;
        }
        let id = state.open(notify);
        state.attended = Some(id);
        attend();
        Some(id)
    }

    pub(crate) fn attends(&self, port: PortId) -> bool {
        self.lock().attended == Some(port)
    }

    pub(crate) fn has_events(&self, port: PortId) -> bool {
        self.lock().ports.get(&port).is_some_and(|port| !port.events.is_empty())
    }

    /// Closes a port and returns its waits, which nobody asks for any more. Calls `leave` if it was the attended one.
    pub(crate) fn close(&self, id: PortId, leave: impl FnOnce()) -> Vec<WaitId> {
        let mut state = self.lock();
        state.ports.remove(&id);
        if state.main == Some(id) {
            state.main = None;
        }
        if state.attended == Some(id) {
            state.attended = None;
            leave();
        }
        let waits: Vec<WaitId> = state.waits.iter().filter(|(_, port)| **port == id).map(|(wait, _)| *wait).collect();
        for wait in &waits {
            state.waits.remove(wait);
        }
        waits
    }

    /// A thread takes the items of a stream, as long as it lives.
    pub(crate) fn attach(&self, stream: Handle, port: PortId) {
        self.lock().streams.insert(stream, port);
    }

    /// It takes no more.
    pub(crate) fn detach(&self, stream: Handle) {
        self.lock().streams.remove(&stream);
    }

    /// The streams that a thread has open, which it does not take any more.
    pub(crate) fn take_streams(&self, id: PortId) -> Vec<Handle> {
        let mut state = self.lock();
        state.streams.extract_if(|_, port| *port == id).map(|(stream, _)| stream).collect()
    }

    pub(crate) fn expect(&self, wait: WaitId, port: PortId) {
        self.lock().waits.insert(wait, port);
    }

    pub(crate) fn forget(&self, wait: WaitId) {
        self.lock().waits.remove(&wait);
    }

    pub(crate) fn waiting(&self) -> usize {
        self.lock().waits.len()
    }

    pub(crate) fn wait_over(&self, wait: WaitId) {
        let mut state = self.lock();
        if let Some(port) = state.waits.remove(&wait) {
            state.push(port, Event::Over(wait));
        }
    }

    /// Tells the thread that gets the tasks.
    pub(crate) fn tell_main(&self, event: Event) {
        let mut state = self.lock();
        match state.main {
            Some(port) => state.push(port, event),
            None => state.early.push(event),
        }
    }

    pub(crate) fn tell(&self, port: PortId, event: Event) {
        self.lock().push(port, event);
    }

    pub(crate) fn tell_all(&self, event: Event) {
        let mut state = self.lock();
        let ports: Vec<PortId> = state.ports.keys().copied().collect();
        for port in ports {
            state.push(port, event);
        }
    }

    pub(crate) fn take(&self, id: PortId) -> Vec<Event> {
        self.lock().ports.get_mut(&id).map(|port| std::mem::take(&mut port.events)).unwrap_or_default()
    }
}

impl State {
    fn open(&mut self, notify: Notify) -> PortId {
        let id = self.next;
        self.next += 1;
        let events = if self.main.is_none() {
            self.main = Some(id);
            std::mem::take(&mut self.early)
        } else {
            Vec::new()
        };
        if !events.is_empty() {
            notify();
        }
        self.ports.insert(id, Port { events, notify: Some(notify) });
        id
    }

    fn push(&mut self, port: PortId, event: Event) {
        let Some(port) = self.ports.get_mut(&port) else { return };
        port.events.push(event);
        if port.events.len() == 1
            && let Some(notify) = &port.notify
        {
            notify();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_thread_is_woken_once_for_all_news_until_it_takes_them() {
        let ports = Ports::default();
        ports.tell_main(Event::Task);
        let woken = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&woken);
        let port = ports.open(Box::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        }));
        ports.expect(7, port);
        ports.wait_over(7);
        ports.wait_over(7);
        ports.tell_main(Event::Task);
        assert_eq!(woken.load(Ordering::SeqCst), 1);
        assert_eq!(ports.take(port), [Event::Task, Event::Over(7), Event::Task]);
        ports.expect(8, port);
        assert_eq!(ports.close(port, || panic!("it was not attended")), [8]);
        ports.wait_over(8);
        assert_eq!(ports.waiting(), 0);
    }
}
