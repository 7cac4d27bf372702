//! The mailbox of a JavaScript thread: news from the client's threads wake its event loop.

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use heliostat_client::{Client, Event, PortId};
use napi::sys;

use crate::event_loop::{self, Attendance};
use crate::lifecycle::exit_node;
use crate::raw::{Env, Scope, Thrown, Value, raw_functions};
use crate::runtime::{self, current};

/// A thread's mailbox, by its environment's address.
static OPEN: Mutex<Option<HashMap<usize, Entry>>> = Mutex::new(None);

/// How a thread learns of news.
#[derive(Clone)]
enum Entry {
    /// Its event loop takes what other processes send: the address of its [`Attendance`], used on that thread only.
    Loop { port: PortId, attendance: usize },
    /// Other threads call a thread-safe function, given by its address. The membership is kept to tell of its end.
    Function { port: PortId, function: usize, client: Arc<Client> },
}

/// A thread-safe function's address; N-API allows its calls from any thread.
#[derive(Clone, Copy)]
struct Waker(usize);

impl Waker {
    fn wake(self) {
        // SAFETY: the function lives until `close`, which first takes the port out of the client, so that nobody wakes it
        // after its release; a closing environment answers with a status.
        unsafe {
            sys::napi_call_threadsafe_function(
                self.0 as sys::napi_threadsafe_function,
                ptr::null_mut(),
                sys::ThreadsafeFunctionCallMode::nonblocking,
            )
        };
    }
}

fn entries<R>(body: impl FnOnce(&mut HashMap<usize, Entry>) -> R) -> R {
    body(OPEN.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

/// The calling thread's port.
pub(crate) fn of(env: Env) -> Option<PortId> {
    entries(|open| open.get(&(env as usize)).cloned()).map(|entry| match entry {
        Entry::Loop { port, .. } | Entry::Function { port, .. } => port,
    })
}

/// What is brought back has numbers from here on, behind those of waits.
pub(crate) const RESTORES: f64 = 4_294_967_296.0;

/// Questions where objects were made have numbers from here on downwards.
const SITES: f64 = -1000.0;

/// The news as numbers: waits are their numbers, what was brought back has others from [`RESTORES`] on, the rest is
/// negative.
pub(crate) fn numbers(scope: Scope, events: &[Event]) -> Value {
    scope.array(events.iter().map(|event| {
        scope.number(match event {
            Event::Over(wait) => f64::from(*wait),
            Event::Task => -1.0,
            Event::NodeGone => -3.0,
            Event::Collect => -2.0,
            Event::Abort => -4.0,
            Event::Unread => -5.0,
            Event::Sites(request) => SITES - f64::from(*request),
            Event::Restored(restore) => RESTORES + f64::from(*restore),
        })
    }))
}

/// The calling thread's port, and the membership that it is of.
fn mailbox(env: Env) -> Option<(Arc<Client>, PortId)> {
    match entries(|open| open.get(&(env as usize)).cloned())? {
        Entry::Function { port, client, .. } => Some((client, port)),
        Entry::Loop { .. } => None,
    }
}

/// Runs `body` while no thread can open a mailbox, if none has one or it is `forced`.
pub(crate) fn when_unused<R>(forced: bool, body: impl FnOnce() -> R) -> Option<R> {
    entries(|open| (forced || open.is_empty()).then(body))
}

/// Runs on the JavaScript thread for each wake: hands the news to the callback.
unsafe extern "C" fn deliver(env: Env, callback: Value, _context: *mut c_void, _data: *mut c_void) {
    if env.is_null() {
        return; // the environment is closing
    }
    // Of the membership that the mailbox is of: it tells of its end when there is another already.
    let Some((client, port)) = mailbox(env) else { return };
    let events = client.take_events(port);
    if events.is_empty() {
        return;
    }
    let scope = Scope { env };
    let argument = [numbers(scope, &events)];
    // SAFETY: the engine calls this with a handle scope and the current environment.
    unsafe {
        sys::napi_call_function(env, scope.undefined(), callback, 1, argument.as_ptr(), ptr::null_mut());
    }
}

/// The environment of an attending loop ends: closes its mailbox.
pub(crate) fn end(env: Env) {
    close(env as usize);
    end_if_unused();
}

/// A thread that was terminated left nobody behind who would end the node.
fn end_if_unused() {
    if entries(|open| open.is_empty()) && runtime::node().is_some() {
        exit_node();
    }
}

/// Closes a thread's mailbox; whether it had one.
fn close(env: usize) -> bool {
    runtime::set_entered(None);
    match entries(|open| open.remove(&env)) {
        None => return false,
        // SAFETY: made by `open_port` on this thread, and closed only once: it was just taken out of the table.
        Some(Entry::Loop { attendance, .. }) => unsafe { (*(attendance as *mut Attendance)).close() },
        Some(Entry::Function { port, function, client }) => {
            client.close_port(port);
            // SAFETY: made by `open_port` in this environment, and taken out of the table only once.
            unsafe {
                sys::napi_release_threadsafe_function(
                    function as sys::napi_threadsafe_function,
                    sys::ThreadsafeFunctionReleaseMode::abort,
                );
            }
        }
    }
    true
}

/// Another thread may have ended the membership until it could see this port: refuses, and closes it.
fn ended_meanwhile(env: usize, client: &Arc<Client>) -> Result<(), Thrown> {
    if current().is_some_and(|now| Arc::ptr_eq(&now, client)) {
        return Ok(());
    }
    close(env);
    Err(Thrown::new("NOT_INITIALIZED", "the session ended while this thread joined it"))
}

unsafe extern "C" fn on_cleanup(env: *mut c_void) {
    // An attending loop has its own hook, which waits for it.
    let is_loop = matches!(entries(|open| open.get(&(env as usize)).cloned()), Some(Entry::Loop { .. }));
    if !is_loop && close(env as usize) {
        end_if_unused();
    }
}

raw_functions! {
    /// Opens this thread's mailbox: the callback gets the news as an array of numbers, on the event loop. It does not
    /// keep the process alive until `holdLoop(true)`.
    fn open_port = c"openPort" (callback) |scope| {
        close(scope.env as usize);
        let client = current().ok_or_else(|| Thrown::new("NOT_INITIALIZED", "there is no session"))?;
        runtime::set_entered(Some(&client));
        let env = scope.env as usize;
        if let Some(attendance) = event_loop::attend(scope.env, &client, callback) {
            // SAFETY: just made on this thread.
            let port = unsafe { (*attendance).port() };
            entries(|open| open.insert(env, Entry::Loop { port, attendance: attendance as usize }));
            ended_meanwhile(env, &client)?;
            return Ok(scope.u32(port));
        }
        let mut function: sys::napi_threadsafe_function = ptr::null_mut();
        // SAFETY: `callback` is checked by the engine; null hooks are allowed.
        let status = unsafe {
            sys::napi_create_threadsafe_function(
                scope.env, callback, ptr::null_mut(), scope.string("heliostat"), 0, 1, ptr::null_mut(), None,
                ptr::null_mut(), Some(deliver), &raw mut function,
            )
        };
        if status != sys::Status::napi_ok {
            return Err(Thrown::argument("a function"));
        }
        // SAFETY: just made in this environment.
        unsafe { sys::napi_unref_threadsafe_function(scope.env, function) };
        let waker = Waker(function as usize);
        let port = client.open_port(Box::new(move || waker.wake()));
        entries(|open| open.insert(env, Entry::Function { port, function: function as usize, client: Arc::clone(&client) }));
        ended_meanwhile(env, &client)?;
        // SAFETY: the hook only uses the address as a key; hooks of one environment run once, at its end.
        unsafe {
            sys::napi_remove_env_cleanup_hook(scope.env, Some(on_cleanup), env as *mut c_void);
            sys::napi_add_env_cleanup_hook(scope.env, Some(on_cleanup), env as *mut c_void);
        }
        Ok(scope.u32(port))
    }

    /// Closes this thread's mailbox and gives its waits up. Returns how many threads of the process still have one.
    fn close_port = c"closePort" () |scope| {
        close(scope.env as usize);
        Ok(scope.number(entries(|open| open.len()) as f64))
    }

    /// Whether pending news keep this thread's event loop alive.
    fn hold_loop = c"holdLoop" (hold) |scope| {
        let hold = scope.get_bool(hold)?;
        match entries(|open| open.get(&(scope.env as usize)).cloned()) {
            None => {}
            // SAFETY: open on this thread, see above.
            Some(Entry::Loop { attendance, .. }) => unsafe { (*(attendance as *mut Attendance)).hold(hold) },
            Some(Entry::Function { function, .. }) => {
                let function = function as sys::napi_threadsafe_function;
                // SAFETY: open in this environment, see above.
                unsafe {
                    if hold {
                        sys::napi_ref_threadsafe_function(scope.env, function);
                    } else {
                        sys::napi_unref_threadsafe_function(scope.env, function);
                    }
                }
            }
        }
        Ok(scope.undefined())
    }
}
