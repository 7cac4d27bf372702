//! What the state machine wants done.

use heliostat_proto::message::{ToDaemon, ToPeer};
use heliostat_proto::{Locator, WorkerId};

/// Names an object of this process's table: small, and free to be used again after the last count of it went.
pub type Handle = u32;
/// Names a wait.
pub type WaitId = u32;
/// Names a task that this process runs.
pub type ExecutionId = u32;

/// Something for the surroundings to do, in the order in which it is given.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Send to a process; the surroundings connect first when they must.
    Send {
        /// To whom.
        peer: WorkerId,
        /// What.
        message: ToPeer,
    },
    /// Send to the daemon.
    Daemon(ToDaemon),
    /// Nobody refers to the object at this place any more.
    Free(Locator),
    /// A wait is over.
    Wake(WaitId),
    /// [`Core::tick`](crate::Core::tick) is to be called: there is something to do a little later.
    Tick,
    /// A task arrived to be run.
    Execute(ExecutionId),
    /// The code of a running task is to be told that it was aborted: see [`Core::take_aborted`](crate::Core::take_aborted).
    Abort,
    /// A failed task's last reference went unread: see [`Core::take_unread`](crate::Core::take_unread).
    Unread,
    /// Functions need not be kept any more: see [`Core::take_forgotten`](crate::Core::take_forgotten).
    Forgotten,
}
