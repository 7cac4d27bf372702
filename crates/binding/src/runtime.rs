//! The one membership of this process, shared by all its JavaScript threads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use heliostat_client::Client;
use heliostat_node::NodeHandle;

use crate::raw::Thrown;

static CLIENT: RwLock<Option<Arc<Client>>> = RwLock::new(None);
/// What other processes join the node by.
static ADDRESS: Mutex<String> = Mutex::new(String::new());
/// The embedded node, in the process that started it.
static NODE: Mutex<Option<NodeHandle>> = Mutex::new(None);

/// The membership, or what a call without one throws.
pub(crate) fn client() -> Result<Arc<Client>, Thrown> {
    current().ok_or_else(|| Thrown::new("NOT_INITIALIZED", "heliostat is not initialized: call init() first"))
}

/// The membership, if there is one.
pub(crate) fn current() -> Option<Arc<Client>> {
    CLIENT.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// What other processes join the node by.
pub(crate) fn address() -> String {
    ADDRESS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Notes it.
pub(crate) fn set_address(address: String) {
    *ADDRESS.lock().unwrap_or_else(PoisonError::into_inner) = address;
}

/// Sets or ends the membership.
pub(crate) fn set_client(client: Option<Arc<Client>>) -> Option<Arc<Client>> {
    std::mem::replace(&mut *CLIENT.write().unwrap_or_else(PoisonError::into_inner), client)
}

/// The embedded node.
pub(crate) fn node() -> MutexGuard<'static, Option<NodeHandle>> {
    NODE.lock().unwrap_or_else(PoisonError::into_inner)
}
