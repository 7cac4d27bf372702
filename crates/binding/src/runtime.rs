//! The one membership of this process, shared by all its JavaScript threads.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use heliostat_client::Client;
use heliostat_node::NodeHandle;

use crate::raw::Thrown;

static CLIENT: RwLock<Option<Arc<Client>>> = RwLock::new(None);
/// What other processes join the node by.
static ADDRESS: Mutex<String> = Mutex::new(String::new());
/// The embedded node, in the process that started it.
static NODE: Mutex<Option<NodeHandle>> = Mutex::new(None);

thread_local! {
    /// The membership that the handles of this thread are of. Another thread may have ended it and begun the next one.
    static ENTERED: RefCell<Weak<Client>> = const { RefCell::new(Weak::new()) };
}

/// The membership that this thread has entered, or what a call without one throws.
pub(crate) fn client() -> Result<Arc<Client>, Thrown> {
    let now = current();
    let now = now.ok_or_else(|| Thrown::new("NOT_INITIALIZED", "heliostat is not initialized: call init() first"))?;
    if is_entered(&now) {
        return Ok(now);
    }
    Err(Thrown::new("NOT_INITIALIZED", "the session that this thread had joined was ended by another thread"))
}

/// The same, if there is one.
pub(crate) fn entered() -> Option<Arc<Client>> {
    current().filter(is_entered)
}

fn is_entered(now: &Arc<Client>) -> bool {
    ENTERED.with_borrow(|entered| std::ptr::eq(entered.as_ptr(), Arc::as_ptr(now)))
}

/// This thread enters the membership, or leaves the one that it had entered.
pub(crate) fn set_entered(client: Option<&Arc<Client>>) {
    ENTERED.set(client.map(Arc::downgrade).unwrap_or_default());
}

/// The membership of the process, if there is one.
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
