//! A thread that gets the next lease for small objects, and maps its pages, while the present one is being used up.

use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Weak};

use super::{Inner, StoreClient};

/// Pages are mapped in steps of so many bytes, so that other mapping work of the process gets its turn.
const STEP: usize = 2 << 20;

impl StoreClient {
    /// From now on a thread prepares leases in the background, so that the first use of memory for small objects neither
    /// waits for the daemon nor faults. The thread ends with the client. Further calls do nothing.
    ///
    /// It gains where a core is free, and costs next to nothing where none is: see `docs/design/store.md`.
    pub fn prefault_in_background(&self) -> std::io::Result<()> {
        let (nudge, nudges) = sync_channel(1);
        if self.inner.lanes.nudge.set(nudge).is_ok() {
            let inner = Arc::downgrade(&self.inner);
            std::thread::Builder::new().name("heliostat-lease".into()).spawn(move || prepare(&nudges, &inner))?;
        }
        Ok(())
    }
}

fn prepare(nudges: &Receiver<()>, inner: &Weak<Inner>) {
    while let (Ok(()), Some(inner)) = (nudges.recv(), inner.upgrade()) {
        inner.lanes.prepare(&inner.pages, inner.link.as_ref(), |grant| {
            let Some(mut range) = inner.memory.data.exclusive(grant.offset, grant.bytes) else { return };
            (0..grant.bytes as usize).step_by(STEP).for_each(|from| range.populate(from, STEP));
        });
    }
}
