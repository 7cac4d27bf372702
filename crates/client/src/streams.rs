//! Streams: taking items, and making them.

use heliostat_runtime::{ExecutionId, Handle, Next, Room, WaitId};

use crate::client::Client;
use crate::ports::PortId;

impl Client {
    /// The stream of a call is a thread's: it is dropped with the thread's port at the latest.
    pub fn open_stream(&self, port: PortId, stream: Handle) {
        self.shared.ports.attach(stream, port);
    }

    /// The next item of a stream. What is on its way is taken without a turn of the event loop.
    pub fn take_item(&self, stream: Handle) -> Next {
        let take = || {
            let now = self.now();
            self.with_core(|core| core.take_item(stream, now))
        };
        match take() {
            Next::Pending if self.receive() => take(),
            next => next,
        }
    }

    /// Waits in the background for the next item of a stream, or its end; see [`Self::wait`].
    pub fn wait_item(&self, port: PortId, stream: Handle) -> Option<WaitId> {
        self.expect(port, |core| core.wait_item(stream))
    }

    /// Takes no more items of a stream, and cancels the task that makes them.
    pub fn drop_stream(&self, stream: Handle) {
        self.shared.ports.detach(stream);
        let now = self.now();
        self.with_core(|core| core.drop_stream(stream, now));
    }

    /// Whether a run may make its next item. Credit that is on its way counts.
    pub fn room(&self, execution: ExecutionId) -> Room {
        let look = || self.with_core(|core| core.room(execution));
        match look() {
            Room::Full if self.receive() => look(),
            room => room,
        }
    }

    /// Waits in the background until a run may make its next item, or nobody wants it; see [`Self::wait`].
    pub fn wait_room(&self, port: PortId, execution: ExecutionId) -> Option<WaitId> {
        self.expect(port, |core| core.wait_room(execution))
    }

    /// The same, blocking the calling thread.
    pub fn block_room(&self, port: Option<PortId>, execution: ExecutionId) -> Room {
        loop {
            match self.room(execution) {
                Room::Full if self.is_gone() => return Room::Ended,
                // It may end for the sake of another run of this process, which is no reason to go on.
                Room::Full => drop(self.block_until(port, None, |core| core.wait_room(execution))),
                room => return room,
            }
        }
    }
}
