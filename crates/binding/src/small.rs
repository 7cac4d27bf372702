//! The short way for small values: a few bytes pass through memory that both sides know, and a call takes numbers only.

use std::cell::{Cell, UnsafeCell};
use std::ffi::c_void;
use std::ptr;
use std::time::Instant;

use heliostat_client::Parts;
use heliostat_proto::Blob;
use heliostat_proto::blob::{BlobView, plain};
use heliostat_proto::message::TaskSpec;
use heliostat_runtime::{Execution, ExecutionId, Submission};
use napi::sys;

use crate::calls;
use crate::raw::{Scope, Thrown, Value, raw_functions};
use crate::runtime::client;
use crate::tasks::optional;
use crate::values::put_error;

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

thread_local! {
    /// When the task that runs on this thread was taken.
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Nanoseconds since the task that runs on this thread was taken.
pub(crate) fn ran() -> u64 {
    BEGAN.take().map_or(0, |began| began.elapsed().as_nanos() as u64)
}

/// Bytes before the arguments of a task in the scratch memory: execution, function, arguments by reference, their length.
const TASK: usize = 16;

/// Bytes of position and handle of an argument by reference.
const PAIR: usize = 8;

/// What `nextSmall` returns when there is no task, and when the next one takes the other way.
const NONE: f64 = -1.0;
const OTHER: f64 = -2.0;

/// Writes a task of small arguments for one plain result: execution, function, number of arguments by reference, length of
/// the header of those by value; that header; then position, length and header of each by reference. `None` when it is
/// another kind of task, or does not fit.
fn write_task(id: ExecutionId, execution: &Execution, out: &mut [u8]) -> Option<usize> {
    let TaskSpec { args, by_ref, returns: None, stream: None, timed: false, retries_errors: false, .. } =
        &execution.spec
    else {
        return None;
    };
    let args = plain_header(args)?;
    let mut at = TASK;
    let mut write = |bytes: &[u8]| {
        out.get_mut(at..at + bytes.len())?.copy_from_slice(bytes);
        at += bytes.len();
        Some(())
    };
    write(args)?;
    for (position, blob) in by_ref {
        let header = plain_header(blob)?;
        write(&position.to_le_bytes())?;
        write(&(header.len() as u32).to_le_bytes())?;
        write(header)?;
    }
    let head = [id, execution.function?, by_ref.len() as u32, args.len() as u32];
    for (place, number) in out.chunks_exact_mut(4).zip(head) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    Some(at)
}

/// The header of an inline value that is nothing else.
fn plain_header(blob: &Blob) -> Option<&[u8]> {
    let Blob::Inline(bytes) = blob else { return None };
    let view = BlobView::parse(bytes).ok()?;
    (view.ref_count() == 0 && view.buffers().len() == 0).then(|| view.header())
}

raw_functions! {
    /// Submits a prepared call with arguments by value of which the scratch memory holds the header, and which are nothing
    /// else; for the submitting task (-1: none). Behind the header are position and handle of each of `count` arguments by
    /// reference. Returns the handle of its one result.
    fn submit_small = c"submitSmall" (call, parent, length, count) |scope| {
        let (client, call) = (client()?, calls::of(scope.get_u32(call)?)?);
        let (parent, length) = (optional(scope.get_f64(parent)?), scope.get_u32(length)? as usize);
        let count = scope.get_u32(count)? as usize;
        let (args, by_ref) = with_scratch(length + count * PAIR, |given| {
            let (header, pairs) = given.split_at(length.min(given.len()));
            let number = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            let by_ref = pairs.chunks_exact(PAIR).map(|pair| (number(pair), number(&pair[4..]))).collect();
            (Blob::Inline(plain(header)), by_ref)
        });
        let handles = client.submit(Submission { args, by_ref, parent, ..call.as_ref().clone() });
        Ok(scope.u32(handles[0]))
    }

    /// Takes the next task into the scratch memory, see `write_task`, and returns how many bytes it takes; -1 when there is
    /// none, -2 when `nextTask` has to take it.
    fn next_small = c"nextSmall" () |scope| {
        let client = client()?;
        // Those behind a task whose arguments are on their way from storage wait with it.
        if let Some(ready) = client.prepares_task() {
            return Ok(scope.number(if ready { OTHER } else { NONE }));
        }
        let look = || {
            client.with_core(|core| {
                let (id, execution) = core.peek_execution()?;
                let Some(length) = with_scratch(LENGTH, |out| write_task(id, execution, out)) else { return Some(OTHER) };
                crate::output::mark(&execution.spec.name);
                core.next_execution();
                Some(length as f64)
            })
        };
        // What is on its way is taken without a turn of the event loop.
        let found = look().or_else(|| client.receive().then(look).flatten());
        if found.is_some() {
            BEGAN.set(Some(Instant::now()));
        }
        Ok(scope.number(found.unwrap_or(NONE)))
    }

    /// Ends a task with a result of which the scratch memory holds the header, and which is nothing else.
    fn finish_small = c"finishSmall" (execution, length) |scope| {
        let (client, execution) = (client()?, scope.get_u32(execution)?);
        let result = with_scratch(scope.get_u32(length)? as usize, |header| plain(header));
        let (nanos, values) = (ran(), vec![heliostat_proto::Value::Ready(Blob::Inline(result))]);
        client.with_core(|core| core.finish(execution, values, &[], nanos, false));
        Ok(scope.undefined())
    }

    /// What a running task is called: `{ taskId, jobId, name, attempt }`.
    fn task_info = c"taskInfo" (execution) |scope| {
        let (client, execution) = (client()?, scope.get_u32(execution)?);
        let spec = client.with_core(|core| core.execution(execution).map(|execution| execution.spec.clone()));
        let spec = spec.ok_or_else(|| Thrown::argument("a running task"))?;
        let object = scope.object();
        scope.set(object, c"taskId", scope.string(&spec.task.to_string()));
        scope.set(object, c"jobId", scope.string(&spec.job.to_string()));
        scope.set(object, c"name", scope.string(&spec.name));
        scope.set(object, c"attempt", scope.u32(spec.attempt));
        Ok(object)
    }

    /// This thread's scratch memory; `undefined` where there can be none, and the functions below are not used.
    fn scratch = c"scratch" () |scope| {
        Ok(expose(scope))
    }

    /// Stores a value of which the scratch memory holds the header, and which is nothing else. Returns its handle.
    fn put_small = c"putSmall" (length) |scope| {
        let (client, length) = (client()?, scope.get_u32(length)? as usize);
        with_scratch(length, |header| {
            if !client.has_inline_room(header.len() as u64) {
                let id = client.with_core(heliostat_runtime::Core::next_put_id);
                let parts = Parts { header, buffers: &[], refs: &[] };
                let blob = client.stored(id, client.seat(), parts).map_err(|error| put_error(&error))?;
                return Ok(scope.u32(client.with_core(|core| core.put_as(id, blob, Vec::new()))));
            }
            Ok(scope.u32(client.with_core(|core| core.put_small(header))))
        })
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
        if let Some(client) = crate::runtime::entered() {
            return Ok(scope.bool(client.with_core(|core| {
                core.dispose(handle);
                core.lives(handle)
            })));
        }
        Ok(scope.bool(false))
    }

    /// The collector found the wrapper of a handle dead.
    fn collected = c"collected" (handle) |scope| {
        let handle = scope.get_u32(handle)?;
        if let Some(client) = crate::runtime::entered() {
            return Ok(scope.bool(client.with_core(|core| {
                core.collected(handle);
                core.lives(handle)
            })));
        }
        Ok(scope.bool(false))
    }
}
