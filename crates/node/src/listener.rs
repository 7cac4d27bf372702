//! The node's socket.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::UnixListener;

use crate::admission;
use crate::daemon::Shared;

/// Connections that may be open without having been admitted.
const NEWCOMERS_MAX: usize = 256;
/// Pause after a connection could not be accepted: there are no descriptors, and trying again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections as long as it is polled.
pub(crate) async fn listen(shared: Shared, listener: UnixListener) {
    let connections = Rc::new(Cell::new(0_usize));
    loop {
        match listener.accept().await.and_then(|(stream, _)| stream.into_std()) {
            Ok(stream) => {
                let known = shared.borrow().processes.len();
                if connections.get().saturating_sub(known) < NEWCOMERS_MAX {
                    connections.set(connections.get() + 1);
                    let (daemon, connections) = (Rc::clone(&shared), Rc::clone(&connections));
                    shared.borrow().tasks.spawn(async move {
                        admission::serve(daemon, OwnedFd::from(stream)).await;
                        connections.set(connections.get() - 1);
                    });
                }
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}
