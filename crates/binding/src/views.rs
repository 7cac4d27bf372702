//! Zero-copy views: external `ArrayBuffer`s over the private read-only window of the store, each with a pin.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use heliostat_client::Client;
use heliostat_proto::ObjectId;
use heliostat_shm::guard::{Guard, GuardError};
use heliostat_store::Pin;
use napi::sys;

use crate::raw::{Env, Scope, Thrown, Value, raw_functions};

/// What a view shows, for the message about a write into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Label {
    /// A reference's value.
    Object(ObjectId),
    /// A task's argument that came by reference.
    Argument(u32),
    /// The arguments that came by value.
    Arguments,
}

impl Label {
    fn text(self) -> String {
        match self {
            Self::Object(id) => format!("object:{id}"),
            Self::Argument(position) => format!("argument:{position}"),
            Self::Arguments => "arguments".into(),
        }
    }
}

/// Live views by their place in the store: end, label, how many.
static VIEWS: Mutex<BTreeMap<u64, (u64, Label, u32)>> = Mutex::new(BTreeMap::new());
/// Watch the windows of the present membership, and of earlier ones whose views are still held.
static GUARDS: Mutex<Vec<Guard>> = Mutex::new(Vec::new());

fn views() -> std::sync::MutexGuard<'static, BTreeMap<u64, (u64, Label, u32)>> {
    VIEWS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Guards the window of a new membership.
pub(crate) fn watch(client: &Client) -> Result<(), GuardError> {
    let guard = Guard::watch(Arc::clone(client.store().window()))?;
    let mut guards = GUARDS.lock().unwrap_or_else(PoisonError::into_inner);
    guards.retain(|old| Arc::strong_count(old.window()) > 1);
    guards.push(guard);
    Ok(())
}

/// Keeps a view's object in place.
struct Held {
    _pin: Arc<Pin>,
    offset: u64,
}

unsafe extern "C" fn finalize(_env: Env, _data: *mut c_void, hint: *mut c_void) {
    // SAFETY: made by `Box::into_raw` in `external`; the engine finalizes a buffer once.
    let held = unsafe { Box::from_raw(hint.cast::<Held>()) };
    let mut views = views();
    if let Some(entry) = views.get_mut(&held.offset) {
        entry.2 -= 1;
        if entry.2 == 0 {
            views.remove(&held.offset);
        }
    }
}

/// An `ArrayBuffer` over `offset..offset + length` of the pinned object.
pub(crate) fn external(scope: Scope, pin: &Arc<Pin>, offset: usize, length: usize, label: Label) -> Value {
    let place = pin.locator().offset + offset as u64;
    let address = pin.window_address().wrapping_add(offset);
    let held = Box::into_raw(Box::new(Held { _pin: Arc::clone(pin), offset: place }));
    let mut buffer = ptr::null_mut();
    // SAFETY: the window stays mapped and the object in place as long as the pin, which the finalizer drops.
    let status = unsafe {
        sys::napi_create_external_arraybuffer(
            scope.env,
            address.cast_mut().cast(),
            length,
            Some(finalize),
            held.cast(),
            &raw mut buffer,
        )
    };
    if status != sys::Status::napi_ok {
        // SAFETY: the engine did not take it.
        drop(unsafe { Box::from_raw(held) });
        // Runtimes without external buffers get a copy.
        return scope.array_buffer(&pin.bytes()[offset..offset + length]);
    }
    views().entry(place).or_insert((place + length as u64, label, 0)).2 += 1;
    buffer
}

raw_functions! {
    /// What was written into since the last call, as labels (`object:<id>`, `argument:<n>`, `arguments`); the stored
    /// bytes show again. Empty when nothing was.
    fn take_writes = c"takeWrites" () |scope| {
        let guards = GUARDS.lock().unwrap_or_else(PoisonError::into_inner);
        let mut written = Vec::new();
        for guard in guards.iter().filter(|guard| guard.is_dirty()) {
            written.extend(guard.heal().map_err(|error| Thrown::new("INTERNAL", error.to_string()))?);
        }
        if written.is_empty() {
            return Ok(scope.array([].into_iter()));
        }
        let views = views();
        let mut labels: Vec<String> = written
            .iter()
            .flat_map(|range| {
                views.range(..range.end).filter(|(_, (end, ..))| *end > range.start).map(|(_, (_, label, _))| label.text())
            })
            .collect();
        labels.sort();
        labels.dedup();
        Ok(scope.array(labels.iter().map(|label| scope.string(label)).collect::<Vec<_>>().into_iter()))
    }
}
