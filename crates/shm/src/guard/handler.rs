//! The SIGSEGV handler: ours for guarded windows, the previous one's for every other address.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use super::{GuardError, registry};

/// `si_code` of a fault on a mapped page that forbids the access; the `libc` crate lacks it.
const SEGV_ACCERR: c_int = 2;
/// How many handlers are remembered: one more for each time that ours was displaced.
const MAX_SAVED: usize = 32;

struct Saved(UnsafeCell<[MaybeUninit<libc::sigaction>; MAX_SAVED]>);

// SAFETY: element i is written once, before `SAVED` is raised above i with release order, and only read after an
// acquire load has seen that.
unsafe impl Sync for Saved {}

static HANDLERS: Saved = Saved(UnsafeCell::new([const { MaybeUninit::uninit() }; MAX_SAVED]));
/// How many elements of `HANDLERS` are valid. The last one is the handler that was installed when ours was put on top.
static SAVED: AtomicUsize = AtomicUsize::new(0);
/// Threads that are passing a fault on right now, and how deep: (thread id, depth).
static PASSING: [(AtomicI32, AtomicUsize); 64] = [const { (AtomicI32::new(0), AtomicUsize::new(0)) }; 64];
/// Two installers at a time would save each other's view of the previous handler.
static INSTALLING: Mutex<()> = Mutex::new(());

/// Whether a fault would reach our handler first. Cheap (one system call); check it at each get that makes a view.
pub fn installed() -> bool {
    current().is_ok_and(|action| action.sa_sigaction == address())
}

/// Puts our handler in front of whichever is installed now; that one gets all foreign faults. No-op if ours is in front.
pub fn reinstall() -> Result<(), GuardError> {
    let _one = INSTALLING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let before = current()?;
    if before.sa_sigaction == address() {
        return Ok(());
    }
    let count = SAVED.load(Ordering::Acquire);
    // A displacing handler is remembered once, however often it comes back.
    if count == 0 || (last(count).sa_sigaction != before.sa_sigaction && count < MAX_SAVED) {
        // SAFETY: element `count` isn't read by anyone before `SAVED` is raised, and writers hold `INSTALLING`.
        unsafe { (*HANDLERS.0.get())[count].write(before) };
        SAVED.store(count + 1, Ordering::Release);
    }
    // SAFETY: all-zero is a valid sigaction: no flags, empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = address();
    // On the alternate stack, as a thread that overflowed its own has no other; our mask blocks nothing further.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: a valid action with a handler that is async-signal-safe.
    if unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, null_mut()) } != 0 {
        return Err(system());
    }
    Ok(())
}

fn current() -> Result<libc::sigaction, GuardError> {
    let mut action = MaybeUninit::uninit();
    // SAFETY: only reads the present action into valid memory.
    if unsafe { libc::sigaction(libc::SIGSEGV, null(), action.as_mut_ptr()) } != 0 {
        return Err(system());
    }
    // SAFETY: filled by the successful call.
    Ok(unsafe { action.assume_init() })
}

fn system() -> GuardError {
    GuardError::System { call: "sigaction", source: std::io::Error::last_os_error() }
}

fn address() -> usize {
    on_fault as *const () as usize
}

/// The newest saved handler when `count` are valid.
fn last(count: usize) -> libc::sigaction {
    // SAFETY: elements below the count are written and never change; callers pass a count above 0.
    unsafe { (*HANDLERS.0.get())[count - 1].assume_init() }
}

/// Async-signal-safe: atomics and system calls only; `errno` stays as it was.
extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo (SA_SIGINFO is set), with an address for SIGSEGV; errno is this thread's.
    let (code, fault, errno) = unsafe { ((*info).si_code, (*info).si_addr() as usize, libc::__errno_location()) };
    // SAFETY: as above.
    let before = unsafe { *errno };
    let ours = code == SEGV_ACCERR && registry::open(fault);
    // SAFETY: as above.
    unsafe { *errno = before };
    if !ours {
        pass_on(signal, info, context);
    }
}

/// Calls the handler that was there before ours.
///
/// A handler that displaced ours may have saved ours and call it for what it doesn't know. Each time that this thread
/// comes back here from within such a call, the next older handler is asked; after the oldest comes the default.
fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let thread = rustix::thread::gettid().as_raw_nonzero().get();
    let find = |id| PASSING.iter().find(|(owner, _)| owner.load(Ordering::Relaxed) == id);
    let nested = find(thread);
    let slot = nested.or_else(|| {
        PASSING
            .iter()
            .find(|(owner, _)| owner.compare_exchange(0, thread, Ordering::Relaxed, Ordering::Relaxed).is_ok())
    });
    let depth = slot.map_or(0, |(_, depth)| depth.fetch_add(1, Ordering::Relaxed));
    match SAVED.load(Ordering::Acquire).checked_sub(depth) {
        Some(count @ 1..) => call(&last(count), signal, info, context),
        _ => restore_default(signal),
    }
    if let Some((owner, depth)) = slot {
        depth.fetch_sub(1, Ordering::Relaxed);
        if nested.is_none() {
            owner.store(0, Ordering::Relaxed);
        }
    }
}

fn call(action: &libc::sigaction, signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    match action.sa_sigaction {
        // Ignoring a fault would repeat it for ever; the kernel treats that as the default too.
        libc::SIG_DFL | libc::SIG_IGN => restore_default(signal),
        handler if action.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: installed with SA_SIGINFO, so it is a function of these three arguments.
            let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
                unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: installed without SA_SIGINFO, so it is a function of the signal's number.
            let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
}

/// The faulting instruction runs again after the return, and then ends the process as it should.
fn restore_default(signal: c_int) {
    // SAFETY: all-zero is SIG_DFL with no flags; sigaction is async-signal-safe.
    unsafe {
        let action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, &raw const action, null_mut());
    }
}
