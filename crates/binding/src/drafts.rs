//! Drafts: memory of the store that JavaScript fills in place.

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use heliostat_client::{Client, Parts, PutError, SealOutcome, Space};
use heliostat_proto::{Blob, ObjectId};
use napi::sys;

use crate::raw::{Env, Scope, Thrown, Value, raw_functions};
use crate::runtime::client;
use crate::values::put_error;

static DRAFTS: Mutex<Option<Drafts>> = Mutex::new(None);

#[derive(Default)]
struct Drafts {
    open: HashMap<u32, Space>,
    next: u32,
}

fn drafts<R>(body: impl FnOnce(&mut Drafts) -> R) -> R {
    body(DRAFTS.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

unsafe extern "C" fn finalize(_env: Env, _data: *mut c_void, hint: *mut c_void) {
    // The number of the draft, not a pointer. Of a sealed one nothing is left here.
    let dropped = drafts(|drafts| drafts.open.remove(&(hint as usize as u32)));
    drop(dropped);
}

/// The value around a draft: its bytes stay where they are, unless what the codec wrote does not fit before them.
pub(crate) fn seal(client: &Client, draft: u32, id: ObjectId, owner: u32, parts: Parts<'_>) -> Result<Blob, Thrown> {
    let space = drafts(|drafts| drafts.open.remove(&draft)).ok_or_else(|| Thrown::argument("an open draft"))?;
    match client.seal(space, owner, parts.header, parts.refs) {
        Ok(blob) => Ok(blob),
        Err(SealOutcome::Failed(error)) => Err(put_error(&error)),
        Err(SealOutcome::TooLong(mut space)) => {
            let parts = Parts { buffers: &[space.data()], ..parts };
            client.blob(id, owner, parts).map_err(|error: PutError| put_error(&error))
        }
    }
}

/// Calls `body` with the bytes of an open draft.
pub(crate) fn with_data<R>(draft: u32, body: impl FnOnce(&[u8]) -> R) -> Result<R, Thrown> {
    drafts(|drafts| drafts.open.get_mut(&draft).map(|space| body(space.data())))
        .ok_or_else(|| Thrown::argument("an open draft"))
}

/// Gives the memory of an open draft back, which JavaScript does not see any more.
pub(crate) fn discard(draft: u32) {
    drop(drafts(|drafts| drafts.open.remove(&draft)));
}

fn detach(scope: Scope, buffer: Value) -> Result<(), Thrown> {
    // SAFETY: a buffer of the running call; drafts' buffers are never immutable.
    match unsafe { sys::napi_detach_arraybuffer(scope.env, buffer) } {
        sys::Status::napi_ok => Ok(()),
        _ => Err(Thrown::argument("a buffer that can be detached")),
    }
}

raw_functions! {
    /// Zeroed memory of the store: `[draft, buffer]`. It goes back when the buffer is collected unsealed.
    fn allocate = c"allocate" (length) |scope| {
        let (client, length) = (client()?, scope.get_f64(length)? as u64);
        let (space, address) = client.allocate(length).map_err(|error| put_error(&error))?;
        let draft = drafts(|drafts| {
            drafts.next = drafts.next.wrapping_add(1);
            drafts.open.insert(drafts.next, space);
            drafts.next
        });
        let mut buffer = ptr::null_mut();
        // SAFETY: the pages stay mapped as long as the client, and writable until the draft is sealed or dropped, both of
        // which detach the buffer first or come from its finalizer. The hint is a number.
        let status = unsafe {
            sys::napi_create_external_arraybuffer(
                scope.env, address.cast(), length as usize, Some(finalize), draft as usize as *mut c_void, &raw mut buffer,
            )
        };
        if status != sys::Status::napi_ok {
            drafts(|drafts| drafts.open.remove(&draft));
            return Err(Thrown::new("NO_EXTERNAL_BUFFERS", "this runtime does not allow buffers outside of its own memory"));
        }
        Ok(scope.array([scope.u32(draft), buffer].into_iter()))
    }

    /// Takes a draft's buffer away from JavaScript, before it is sealed.
    fn detach_draft = c"detachDraft" (buffer) |scope| {
        detach(scope, buffer)?;
        Ok(scope.undefined())
    }

    /// Gives the memory of an unsealed draft back.
    fn drop_draft = c"dropDraft" (draft, buffer) |scope| {
        detach(scope, buffer)?;
        let draft = scope.get_u32(draft)?;
        drop(drafts(|drafts| drafts.open.remove(&draft)));
        Ok(scope.undefined())
    }
}
