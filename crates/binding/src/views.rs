//! Zero-copy views: external `ArrayBuffer`s over the private read-only window of the store, each with a pin.
//!
//! A buffer that is still alive is given again for a further read of the same object, whatever its size. The cache holds
//! it weakly, by references of the engine: a `WeakRef` of JavaScript would keep it for the whole job, and finalizers do
//! not run inside a synchronous loop, so that pins of dead buffers are swept natively.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use heliostat_client::Client;
use heliostat_proto::{Locator, ObjectId};
use heliostat_shm::guard::{self, Guard, GuardError};
use heliostat_shm::map::Window;
use heliostat_store::{FILE_SEGMENT, Pin};
use napi::sys;

use crate::raw::{Env, Scope, Value, raw_functions};

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

/// The parts of the window that JavaScript can reach, and what was written into.
#[derive(Default)]
struct Watch {
    /// Watch the windows of the present membership, and of earlier ones whose views are still held, with the segment of
    /// each.
    guards: Vec<(Guard, u32)>,
    /// Live views by their place in the store: end, label, how many.
    views: BTreeMap<Place, (u64, Label, u32)>,
    /// Writes that were healed before anybody asked for them.
    written: Vec<String>,
}

/// Buffers outside of the engine's memory are not to be tried; tests set it, where the engine would allow them.
static REFUSED: AtomicBool = AtomicBool::new(false);
/// Data was copied because they are refused.
static COPIED: AtomicBool = AtomicBool::new(false);

static WATCH: Mutex<Option<Watch>> = Mutex::new(None);

fn watch_state() -> MutexGuard<'static, Option<Watch>> {
    WATCH.lock().unwrap_or_else(PoisonError::into_inner)
}

fn with_watch<R>(body: impl FnOnce(&mut Watch) -> R) -> R {
    body(watch_state().get_or_insert_default())
}

impl Watch {
    /// Undoes what was written and notes whose memory it was: before anybody asks, and before a pin goes, since the place
    /// may be another object's afterwards.
    fn settle(&mut self) {
        for (guard, segment) in self.guards.iter().filter(|(guard, _)| guard.is_dirty()) {
            for range in guard.heal().unwrap_or_default() {
                let before = self.views.range((*segment, 0)..(*segment, range.end));
                let hit = before.filter(|(_, (end, ..))| *end > range.start);
                self.written.extend(hit.map(|(_, (_, label, _))| label.text()));
            }
        }
    }

    fn remove(&mut self, place: Place) {
        self.settle();
        if let Some(entry) = self.views.get_mut(&place) {
            entry.2 -= 1;
            if entry.2 == 0 {
                self.views.remove(&place);
            }
        }
    }

    fn guard(&mut self, window: &Arc<Window>, segment: u32) -> Result<(), GuardError> {
        if !self.guards.iter().any(|(guard, _)| Arc::ptr_eq(guard.window(), window)) {
            let guard = Guard::watch(Arc::clone(window))?;
            self.guards.retain(|(old, _)| Arc::strong_count(old.window()) > 1);
            self.guards.push((guard, segment));
        }
        Ok(())
    }
}

/// Guards the window of a new membership.
pub(crate) fn watch(client: &Client) -> Result<(), GuardError> {
    with_watch(|watch| watch.guard(client.store().window(), 0))
}

/// Keeps a view's object in place until the buffer is found dead, by its finalizer or by a sweep.
struct Held {
    pin: Mutex<Option<Arc<Pin>>>,
    place: Place,
    length: u64,
}

impl Held {
    fn let_go(&self) {
        let pin = self.pin.lock().unwrap_or_else(PoisonError::into_inner).take();
        if pin.is_some() {
            with_watch(|watch| watch.remove(self.place));
        }
    }
}

/// Segment, and the first byte there.
type Place = (u32, u64);

fn place_of(pin: &Pin, offset: usize) -> Place {
    (pin.locator().segment, pin.locator().offset + offset as u64)
}

/// Place of a view's object, and which of its buffers it is.
type Key = (u32, u32, usize);

/// What one thread keeps about its buffers.
#[derive(Default)]
struct Cache {
    buffers: HashMap<Key, (sys::napi_ref, Arc<Held>)>,
    /// Makes a buffer immutable, where the engine can.
    transfer: Option<sys::napi_ref>,
    /// References of JavaScript to objects in the store, held weakly, by handle.
    refs: HashMap<u32, sys::napi_ref>,
}

thread_local! {
    /// By environment; a thread of Node has one for each copy of the addon's exports at most.
    static CACHES: RefCell<HashMap<usize, Cache>> = RefCell::default();
}

fn with_cache<R>(env: Env, body: impl FnOnce(&mut Cache) -> R) -> R {
    CACHES.with_borrow_mut(|caches| body(caches.entry(env as usize).or_default()))
}

fn deref(env: Env, reference: sys::napi_ref) -> Option<Value> {
    let mut value = ptr::null_mut();
    // SAFETY: references are made and deleted on this environment's thread, where they live in its cache.
    unsafe { sys::napi_get_reference_value(env, reference, &raw mut value) };
    (!value.is_null()).then_some(value)
}

unsafe extern "C" fn finalize(env: Env, _data: *mut c_void, hint: *mut c_void) {
    // SAFETY: made by `Arc::into_raw` in `create`; the engine finalizes a buffer once.
    let held = unsafe { Arc::from_raw(hint.cast::<Held>()) };
    held.let_go();
    forget(env, |entry| Arc::ptr_eq(entry, &held));
}

/// Takes dead buffers out of the cache and lets their objects go.
fn forget(env: Env, is_dead: impl Fn(&Arc<Held>) -> bool) {
    // A closing thread has no cache any more.
    let _ = CACHES.try_with(|caches| {
        let Ok(mut caches) = caches.try_borrow_mut() else { return };
        let Some(cache) = caches.get_mut(&(env as usize)) else { return };
        cache.buffers.retain(|_, (reference, held)| {
            let dead = is_dead(held);
            if dead {
                // SAFETY: as in `deref`.
                unsafe { sys::napi_delete_reference(env, *reference) };
            }
            !dead
        });
    });
}

/// Lets go of objects whose buffers were collected, without waiting for finalizers. Returns how many.
pub(crate) fn sweep(env: Env) -> usize {
    let dead: Vec<Key> = with_cache(env, |cache| {
        cache.buffers.iter().filter(|(_, (weak, _))| deref(env, *weak).is_none()).map(|(key, _)| *key).collect()
    });
    for key in &dead {
        if let Some((reference, held)) = with_cache(env, |cache| cache.buffers.remove(key)) {
            held.let_go();
            // SAFETY: as in `deref`.
            unsafe { sys::napi_delete_reference(env, reference) };
        }
    }
    dead.len()
}

/// An `ArrayBuffer` over `offset..offset + length` of the pinned object, which is its `index`-th buffer.
pub(crate) fn external(
    scope: Scope,
    pin: &Arc<Pin>,
    offset: usize,
    length: usize,
    index: usize,
    label: Label,
) -> Value {
    let Locator { slot, generation, .. } = *pin.locator();
    let key = (slot, generation, index);
    let cached = with_cache(scope.env, |cache| cache.buffers.get(&key).and_then(|(weak, _)| deref(scope.env, *weak)));
    if let Some(buffer) = cached {
        // A write is reported under the name that the present reader knows.
        with_watch(|watch| {
            if let Some(view) = watch.views.get_mut(&place_of(pin, offset)) {
                view.1 = label;
            }
        });
        return buffer;
    }
    if !guard::installed() {
        // Another addon replaced the handler; without it a write would end the process.
        let _ = guard::reinstall();
    }
    let made = if REFUSED.load(Ordering::Relaxed) { None } else { create(scope, pin, offset, length, label) };
    let Some((buffer, held)) = made else {
        COPIED.store(true, Ordering::Relaxed);
        // Runtimes without external buffers get a copy.
        return immutable(scope, scope.array_buffer(&pin.bytes()[offset..offset + length]));
    };
    let buffer = immutable(scope, buffer);
    let mut weak = ptr::null_mut();
    // SAFETY: a count of 0 makes the reference weak.
    let status = unsafe { sys::napi_create_reference(scope.env, buffer, 0, &raw mut weak) };
    if status == sys::Status::napi_ok
        && let Some((old, _)) = with_cache(scope.env, |cache| cache.buffers.insert(key, (weak, held)))
    {
        // SAFETY: as in `deref`.
        unsafe { sys::napi_delete_reference(scope.env, old) };
    }
    buffer
}

fn create(scope: Scope, pin: &Arc<Pin>, offset: usize, length: usize, label: Label) -> Option<(Value, Arc<Held>)> {
    let place = place_of(pin, offset);
    if place.0 == FILE_SEGMENT && with_watch(|watch| watch.guard(pin.window(), place.0)).is_err() {
        return None; // a copy can be written by whoever likes
    }
    let address = pin.window_address().wrapping_add(offset);
    let held = Arc::new(Held { pin: Mutex::new(Some(Arc::clone(pin))), place, length: length as u64 });
    let hint = Arc::into_raw(Arc::clone(&held)).cast_mut();
    let mut buffer = ptr::null_mut();
    // SAFETY: the window stays mapped and the object in place as long as the pin, which goes when the buffer is dead.
    let status = unsafe {
        sys::napi_create_external_arraybuffer(
            scope.env,
            address.cast_mut().cast(),
            length,
            Some(finalize),
            hint.cast(),
            &raw mut buffer,
        )
    };
    if status != sys::Status::napi_ok {
        // SAFETY: the engine did not take it.
        drop(unsafe { Arc::from_raw(hint) });
        return None;
    }
    with_watch(|watch| watch.views.entry(place).or_insert((place.1 + length as u64, label, 0)).2 += 1);
    Some((buffer, held))
}

/// The same bytes in a buffer that cannot be written, where the engine has such buffers.
pub(crate) fn immutable(scope: Scope, buffer: Value) -> Value {
    let transfer = with_cache(scope.env, |cache| cache.transfer).and_then(|function| deref(scope.env, function));
    let Some(transfer) = transfer else { return buffer };
    let mut result = ptr::null_mut();
    // SAFETY: both values are of the running call.
    let status = unsafe { sys::napi_call_function(scope.env, buffer, transfer, 0, ptr::null(), &raw mut result) };
    if status == sys::Status::napi_ok { result } else { buffer }
}

raw_functions! {
    /// What was written into since the last call, as labels (`object:<id>`, `argument:<n>`, `arguments`); the stored
    /// bytes show again. `undefined` when nothing was.
    fn take_writes = c"takeWrites" () |scope| {
        let mut labels = with_watch(|watch| {
            watch.settle();
            std::mem::take(&mut watch.written)
        });
        if labels.is_empty() {
            return Ok(scope.undefined());
        }
        labels.sort();
        labels.dedup();
        Ok(scope.array(labels.iter().map(|label| scope.string(label)).collect::<Vec<_>>().into_iter()))
    }

    /// Sets the function that makes a buffer, its `this`, immutable.
    fn set_transfer = c"setTransfer" (function) |scope| {
        let mut reference = ptr::null_mut();
        // SAFETY: a count of 1 keeps the function alive.
        unsafe { sys::napi_create_reference(scope.env, function, 1, &raw mut reference) };
        if let Some(old) = with_cache(scope.env, |cache| cache.transfer.replace(reference)) {
            // SAFETY: as in `deref`.
            unsafe { sys::napi_delete_reference(scope.env, old) };
        }
        Ok(scope.undefined())
    }

    /// From now on, whether buffers outside of the engine's memory are taken for refused, as some runtimes do.
    fn refuse_views = c"refuseViews" (refuse) |scope| {
        REFUSED.store(scope.get_bool(refuse)?, Ordering::Relaxed);
        Ok(scope.undefined())
    }

    /// Whether data was copied since the last call because such buffers are refused.
    fn take_copied = c"takeCopied" () |scope| {
        Ok(scope.bool(COPIED.swap(false, Ordering::Relaxed)))
    }

    /// Watches a reference of JavaScript weakly.
    fn track_ref = c"trackRef" (handle, object) |scope| {
        let handle = scope.get_u32(handle)?;
        let mut weak = ptr::null_mut();
        // SAFETY: a count of 0 makes the reference weak.
        unsafe { sys::napi_create_reference(scope.env, object, 0, &raw mut weak) };
        if let Some(old) = with_cache(scope.env, |cache| cache.refs.insert(handle, weak)) {
            // SAFETY: as in `deref`.
            unsafe { sys::napi_delete_reference(scope.env, old) };
        }
        Ok(scope.undefined())
    }

    /// Watches it no more.
    fn untrack_ref = c"untrackRef" (handle) |scope| {
        let handle = scope.get_u32(handle)?;
        if let Some(old) = with_cache(scope.env, |cache| cache.refs.remove(&handle)) {
            // SAFETY: as in `deref`.
            unsafe { sys::napi_delete_reference(scope.env, old) };
        }
        Ok(scope.undefined())
    }

    /// The handles of references that were collected; they are watched no more.
    fn sweep_refs = c"sweepRefs" () |scope| {
        let dead: Vec<u32> = with_cache(scope.env, |cache| {
            cache.refs.iter().filter(|(_, weak)| deref(scope.env, **weak).is_none()).map(|(handle, _)| *handle).collect()
        });
        for handle in &dead {
            if let Some(old) = with_cache(scope.env, |cache| cache.refs.remove(handle)) {
                // SAFETY: as in `deref`.
                unsafe { sys::napi_delete_reference(scope.env, old) };
            }
        }
        Ok(scope.array(dead.into_iter().map(|handle| scope.u32(handle)).collect::<Vec<_>>().into_iter()))
    }

    /// Bytes of the store's buffers that this thread holds, or held and did not sweep yet.
    fn held_bytes = c"heldBytes" () |scope| {
        let bytes: u64 = with_cache(scope.env, |cache| cache.buffers.values().map(|(_, held)| held.length).sum());
        Ok(scope.number(bytes as f64))
    }

    /// Lets go of objects whose buffers were collected; how many.
    fn sweep_views = c"sweepViews" () |scope| {
        Ok(scope.number(sweep(scope.env) as f64))
    }

    /// Empties a buffer of the store that this thread got, before garbage collection would; whether it could.
    fn detach_view = c"detachView" (buffer) |scope| {
        let found = with_cache(scope.env, |cache| {
            cache.buffers.iter().find(|(_, (weak, _))| deref(scope.env, *weak).is_some_and(|b| same(scope, b, buffer))).map(|(key, _)| *key)
        });
        let immutable = with_cache(scope.env, |cache| cache.transfer.is_some());
        let Some(key) = found.filter(|_| !immutable) else { return Ok(scope.bool(false)) };
        // SAFETY: a buffer of the running call; immutable ones, which must not be detached, are excluded.
        let status = unsafe { sys::napi_detach_arraybuffer(scope.env, buffer) };
        if status == sys::Status::napi_ok
            && let Some((reference, held)) = with_cache(scope.env, |cache| cache.buffers.remove(&key))
        {
            held.let_go();
            // SAFETY: as in `deref`.
            unsafe { sys::napi_delete_reference(scope.env, reference) };
        }
        Ok(scope.bool(status == sys::Status::napi_ok))
    }
}

fn same(scope: Scope, a: Value, b: Value) -> bool {
    let mut equal = false;
    // SAFETY: both values are of the running call.
    unsafe { sys::napi_strict_equals(scope.env, a, b, &raw mut equal) };
    equal
}
