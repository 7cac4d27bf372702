//! The short way for small values: a few bytes pass through memory that both sides know, and a call takes numbers only.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::ptr;

use napi::sys;

use crate::raw::{Scope, Value, raw_functions};
use crate::runtime::client;

/// Bytes of each thread's scratch memory: longer values take the other way.
const LENGTH: usize = 8 << 10;

thread_local! {
    /// Written and read by JavaScript between calls and by native code within them, on this thread only.
    static SCRATCH: Box<UnsafeCell<[u8; LENGTH]>> = Box::new(UnsafeCell::new([0; LENGTH]));
}

/// Calls `body` with the first `length` bytes of the scratch memory.
pub(crate) fn with_scratch<R>(length: usize, body: impl FnOnce(&mut [u8]) -> R) -> R {
    SCRATCH.with(|scratch| {
        // SAFETY: this thread alone knows the memory; JavaScript doesn't run within a native call, and `body`, which is
        // of this crate, doesn't call this again.
        let bytes = unsafe { &mut *scratch.get() };
        body(&mut bytes[..length.min(LENGTH)])
    })
}

/// The scratch memory as JavaScript sees it; `undefined` where external buffers are refused.
fn expose(scope: Scope) -> Value {
    let (mut buffer, mut array) = (ptr::null_mut(), ptr::null_mut());
    SCRATCH.with(|scratch| {
        // SAFETY: the memory lives until the thread ends, after its environments; the out-parameters are read only when
        // the calls succeeded.
        unsafe {
            let data = scratch.get().cast::<c_void>();
            let status =
                sys::napi_create_external_arraybuffer(scope.env, data, LENGTH, None, ptr::null_mut(), &raw mut buffer);
            if status != sys::Status::napi_ok {
                return scope.undefined();
            }
            sys::napi_create_typedarray(scope.env, sys::TypedarrayType::uint8_array, LENGTH, buffer, 0, &raw mut array);
            array
        }
    })
}

raw_functions! {
    /// This thread's scratch memory; `undefined` where there can be none, and the functions below are not used.
    fn scratch = c"scratch" () |scope| {
        Ok(expose(scope))
    }

    /// Stores a value of which the scratch memory holds the header, and which is nothing else. Returns its handle.
    fn put_small = c"putSmall" (length) |scope| {
        let (client, length) = (client()?, scope.get_u32(length)? as usize);
        Ok(scope.u32(with_scratch(length, |header| client.with_core(|core| core.put_small(header)))))
    }

    /// Writes a serialised value without references into the scratch memory, and returns its length; -1 for every other
    /// state, which `read` tells of. This is the fast path of a get.
    fn read_small = c"readSmall" (handle) |scope| {
        let (client, handle) = (client()?, scope.get_u32(handle)?);
        let length = with_scratch(LENGTH, |target| client.read_small(handle, target));
        Ok(scope.number(length.map_or(-1.0, |length| length as f64)))
    }

    /// A wrapper disposes of its handle; `collected` follows.
    fn dispose = c"dispose" (handle) |scope| {
        let handle = scope.get_u32(handle)?;
        if let Some(client) = crate::runtime::current() {
            client.with_core(|core| core.dispose(handle));
        }
        Ok(scope.undefined())
    }

    /// The collector found the wrapper of a handle dead.
    fn collected = c"collected" (handle) |scope| {
        let handle = scope.get_u32(handle)?;
        if let Some(client) = crate::runtime::current() {
            client.with_core(|core| core.collected(handle));
        }
        Ok(scope.undefined())
    }
}
