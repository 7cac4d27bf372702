//! How long the calls of a thread wait for room in a full store.

use std::cell::Cell;

use heliostat_proto::message::Patience;

thread_local! {
    static PATIENCE: Cell<Patience> =
        const { Cell::new(Patience { millis: 0, ticket: 0, last: false, spilling: false }) };
}

/// Says how long requests of the calling thread for memory of the store wait for room, until it says otherwise. At first
/// they don't: a thread may have things to let go of, or better things to do.
pub fn set_patience(patience: Patience) {
    PATIENCE.set(patience);
}

pub(crate) fn patience() -> Patience {
    PATIENCE.get()
}
