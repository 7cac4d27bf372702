//! The event loop of the thread that takes what other processes send: it polls the process's bell itself, so that a
//! message needs no other thread to get into JavaScript.
//!
//! The loop says when it sleeps (before it polls) and when it runs (after), which tells others where to ring. libuv's
//! functions are looked up in the program, which has them if it is Node; elsewhere a thread-safe function serves.

use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::os::fd::AsRawFd as _;
use std::ptr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use heliostat_client::{Client, PortId};
use napi::sys;

use crate::port::numbers;
use crate::raw::{Env, Scope, Value};

type Handle = *mut c_void;
type Callback = unsafe extern "C" fn(Handle);

/// The loop's other handles wait for so long at most while messages follow each other.
const TURN: Duration = Duration::from_millis(1);

/// What is used of libuv, version 1.
struct Uv {
    handle_size: unsafe extern "C" fn(c_int) -> usize,
    poll_init: unsafe extern "C" fn(*mut c_void, Handle, c_int) -> c_int,
    poll_start: unsafe extern "C" fn(Handle, c_int, unsafe extern "C" fn(Handle, c_int, c_int)) -> c_int,
    prepare_init: unsafe extern "C" fn(*mut c_void, Handle) -> c_int,
    prepare_start: unsafe extern "C" fn(Handle, Callback) -> c_int,
    check_init: unsafe extern "C" fn(*mut c_void, Handle) -> c_int,
    check_start: unsafe extern "C" fn(Handle, Callback) -> c_int,
    idle_init: unsafe extern "C" fn(*mut c_void, Handle) -> c_int,
    idle_start: unsafe extern "C" fn(Handle, Callback) -> c_int,
    idle_stop: unsafe extern "C" fn(Handle) -> c_int,
    close: unsafe extern "C" fn(Handle, Callback),
    reference: unsafe extern "C" fn(Handle),
    unreference: unsafe extern "C" fn(Handle),
}

/// `uv_handle_type` of the handles used, and `UV_READABLE`.
const CHECK: c_int = 2;
const IDLE: c_int = 6;
const POLL: c_int = 8;
const PREPARE: c_int = 9;
const READABLE: c_int = 1;

impl Uv {
    fn get() -> Option<&'static Self> {
        static UV: OnceLock<Option<Uv>> = OnceLock::new();
        UV.get_or_init(Self::look_up).as_ref()
    }

    fn look_up() -> Option<Self> {
        /// # Safety
        /// `T` is the type of a pointer to the function of this name.
        unsafe fn symbol<T>(name: &CStr) -> Option<T> {
            // SAFETY: looks a name up among what the program has loaded.
            let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
            // SAFETY: a function's address has the size of a pointer to it; the type is the caller's promise.
            (!address.is_null()).then(|| unsafe { std::mem::transmute_copy(&address) })
        }
        // SAFETY: the signatures are those of libuv's headers, which version 1 keeps.
        unsafe {
            Some(Self {
                handle_size: symbol(c"uv_handle_size")?,
                poll_init: symbol(c"uv_poll_init")?,
                poll_start: symbol(c"uv_poll_start")?,
                prepare_init: symbol(c"uv_prepare_init")?,
                prepare_start: symbol(c"uv_prepare_start")?,
                check_init: symbol(c"uv_check_init")?,
                check_start: symbol(c"uv_check_start")?,
                idle_init: symbol(c"uv_idle_init")?,
                idle_start: symbol(c"uv_idle_start")?,
                idle_stop: symbol(c"uv_idle_stop")?,
                close: symbol(c"uv_close")?,
                reference: symbol(c"uv_ref")?,
                unreference: symbol(c"uv_unref")?,
            })
        }
    }

    /// Memory for a handle that points to its owner, to be freed by [`free`].
    fn allocate(&self, kind: c_int, owner: *mut Attendance) -> Handle {
        // SAFETY: libuv says how large each kind of handle is; the first field of each is a pointer for its user.
        unsafe {
            let handle = libc::calloc(1, (self.handle_size)(kind));
            assert!(!handle.is_null(), "no memory for a handle of the event loop");
            handle.cast::<*mut Attendance>().write(owner);
            handle
        }
    }
}

/// An event loop that takes what other processes send, until it is closed. Used on its thread only.
pub(crate) struct Attendance {
    uv: &'static Uv,
    env: Env,
    client: Arc<Client>,
    port: PortId,
    callback: sys::napi_ref,
    poll: Handle,
    prepare: Handle,
    check: Handle,
    idle: Handle,
    /// The loop must not sleep: it serves after polling.
    hurried: Cell<bool>,
    /// News are being taken.
    serving: Cell<bool>,
    closing: Cell<bool>,
    /// Handles that libuv still knows.
    open: Cell<u32>,
    hook: Cell<sys::napi_async_cleanup_hook_handle>,
}

thread_local! {
    /// The attendance of this thread's event loop.
    static ATTENDING: Cell<*const Attendance> = const { Cell::new(ptr::null()) };
}

/// There are news for an event loop. When they were made on its own thread, the loop neither sleeps nor ends before it has
/// given them: nothing else may keep it alive.
fn on_news() {
    // SAFETY: taken away by `close` on this thread, before its memory goes.
    if let Some(this) = unsafe { ATTENDING.get().as_ref() } {
        this.hurry();
    }
}

/// Attends to the bell on this thread's event loop, if no other thread does and there is such a loop. The callback gets
/// the news.
pub(crate) fn attend(env: Env, client: &Arc<Client>, callback: Value) -> Option<*mut Attendance> {
    let uv = Uv::get()?;
    let mut event_loop = ptr::null_mut();
    // SAFETY: the engine gives the loop of the current environment.
    if unsafe { sys::napi_get_uv_event_loop(env, &raw mut event_loop) } != sys::Status::napi_ok {
        return None;
    }
    let event_loop = event_loop.cast::<c_void>();
    let port = client.attend(Box::new(on_news))?;
    let mut reference = ptr::null_mut();
    // SAFETY: `callback` is a function of the current environment.
    unsafe { sys::napi_create_reference(env, callback, 1, &raw mut reference) };
    let owner = Box::into_raw(Box::new(Attendance {
        uv,
        env,
        client: Arc::clone(client),
        port,
        callback: reference,
        poll: ptr::null_mut(),
        prepare: ptr::null_mut(),
        check: ptr::null_mut(),
        idle: ptr::null_mut(),
        hurried: Cell::new(false),
        serving: Cell::new(false),
        closing: Cell::new(false),
        open: Cell::new(4),
        hook: Cell::new(ptr::null_mut()),
    }));
    // SAFETY: `owner` was just made and lives until the last handle is closed; each handle is made on its loop's thread
    // before it is used; these calls fail only for a loop or a descriptor that is none.
    unsafe {
        let this = &mut *owner;
        this.poll = uv.allocate(POLL, owner);
        this.prepare = uv.allocate(PREPARE, owner);
        this.check = uv.allocate(CHECK, owner);
        this.idle = uv.allocate(IDLE, owner);
        (uv.poll_init)(event_loop, this.poll, client.loop_event().as_raw_fd());
        (uv.prepare_init)(event_loop, this.prepare);
        (uv.check_init)(event_loop, this.check);
        (uv.idle_init)(event_loop, this.idle);
        (uv.poll_start)(this.poll, READABLE, on_poll);
        (uv.prepare_start)(this.prepare, on_prepare);
        (uv.check_start)(this.check, on_check);
        for handle in [this.poll, this.prepare, this.check, this.idle] {
            (uv.unreference)(handle);
        }
        sys::napi_add_async_cleanup_hook(env, Some(on_cleanup), owner.cast(), this.hook.as_ptr());
    }
    ATTENDING.set(owner);
    Some(owner)
}

impl Attendance {
    pub(crate) fn port(&self) -> PortId {
        self.port
    }

    /// Whether pending news keep the loop alive.
    pub(crate) fn hold(&self, hold: bool) {
        // SAFETY: an open handle of this thread's loop.
        unsafe { if hold { (self.uv.reference)(self.poll) } else { (self.uv.unreference)(self.poll) } }
    }

    /// Ends it; its memory goes when the loop has let go of it.
    pub(crate) fn close(&self) {
        if self.closing.replace(true) {
            return;
        }
        ATTENDING.set(ptr::null());
        self.client.close_port(self.port);
        for handle in [self.poll, self.prepare, self.check, self.idle] {
            // SAFETY: open handles of this thread's loop, closed once.
            unsafe { (self.uv.close)(handle, on_closed) };
        }
    }

    fn hurry(&self) {
        if self.serving.get() || self.closing.get() || self.hurried.replace(true) {
            return;
        }
        // SAFETY: an open handle of this thread's loop, which does not sleep while one is idle.
        unsafe {
            (self.uv.idle_start)(self.idle, on_idle);
            (self.uv.reference)(self.idle);
        }
    }

    fn serve(&self) {
        if self.closing.get() {
            return;
        }
        let mut handles = ptr::null_mut();
        // SAFETY: on the thread of the environment, called by its loop.
        unsafe { sys::napi_open_handle_scope(self.env, &raw mut handles) };
        self.serving.set(true);
        let events = self.client.serve(self.port);
        self.serving.set(false);
        if !events.is_empty() {
            let scope = Scope { env: self.env };
            let argument = [numbers(scope, &events)];
            let (mut callback, mut global) = (ptr::null_mut(), ptr::null_mut());
            // SAFETY: a handle scope is open; the reference lives as long as `self`. The engine runs what follows from
            // the call, promises above all, before it returns.
            unsafe {
                sys::napi_get_reference_value(self.env, self.callback, &raw mut callback);
                sys::napi_get_global(self.env, &raw mut global);
                let status = sys::napi_make_callback(
                    self.env,
                    ptr::null_mut(),
                    global,
                    callback,
                    1,
                    argument.as_ptr(),
                    ptr::null_mut(),
                );
                if status == sys::Status::napi_pending_exception {
                    let mut thrown = ptr::null_mut();
                    sys::napi_get_and_clear_last_exception(self.env, &raw mut thrown);
                    sys::napi_fatal_exception(self.env, thrown);
                }
            }
        }
        // SAFETY: opened above.
        unsafe { sys::napi_close_handle_scope(self.env, handles) };
    }
}

/// # Safety
/// `handle` was made by [`attend`], and its owner lives: until all of its handles are closed.
unsafe fn owner<'a>(handle: Handle) -> &'a Attendance {
    // SAFETY: the first field points to the owner, see `Uv::allocate`.
    unsafe { &**handle.cast::<*mut Attendance>() }
}

unsafe extern "C" fn on_prepare(handle: Handle) {
    // SAFETY: called by libuv with an open handle of ours.
    let this = unsafe { owner(handle) };
    let began = Instant::now();
    while !this.hurried.get() && !this.closing.get() && this.client.loop_sleeps(this.port) {
        // Round trips that follow each other need no turn of the loop; everything else in it does, now and then.
        this.serve();
        if began.elapsed() > TURN {
            this.hurry();
        }
    }
}

unsafe extern "C" fn on_idle(_: Handle) {}

unsafe extern "C" fn on_check(handle: Handle) {
    // SAFETY: as above.
    let this = unsafe { owner(handle) };
    this.client.loop_wakes();
    if this.hurried.replace(false) {
        // SAFETY: an open handle of this loop.
        unsafe {
            (this.uv.idle_stop)(this.idle);
            (this.uv.unreference)(this.idle);
        }
        this.serve();
    }
}

unsafe extern "C" fn on_poll(handle: Handle, _status: c_int, _events: c_int) {
    // SAFETY: as above.
    let this = unsafe { owner(handle) };
    this.client.loop_rung();
    this.serve();
}

unsafe extern "C" fn on_cleanup(hook: sys::napi_async_cleanup_hook_handle, this: *mut c_void) {
    // SAFETY: the hook is removed before its argument is freed.
    let this = unsafe { &*this.cast::<Attendance>() };
    this.hook.set(hook);
    crate::port::end(this.env);
    // It may have been closed before.
    this.close();
}

unsafe extern "C" fn on_closed(handle: Handle) {
    // SAFETY: libuv is done with the handle and gives its memory back; the last one takes the owner along, whose
    // environment waits for its hook.
    unsafe {
        let this = handle.cast::<*mut Attendance>().read();
        libc::free(handle);
        let open = (*this).open.get() - 1;
        (*this).open.set(open);
        if open == 0 {
            let this = Box::from_raw(this);
            sys::napi_delete_reference(this.env, this.callback);
            sys::napi_remove_async_cleanup_hook(this.hook.get());
        }
    }
}
