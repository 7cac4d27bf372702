//! Submitting tasks, and running those that arrive.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use heliostat_client::{Client, ReadyTask};
use heliostat_proto::message::{FunctionHash, TaskSpec};
use heliostat_proto::{Fact, Failure, ObjectId};
use heliostat_runtime::{ExecutionId, Handle, Submission};

use crate::calls;
use crate::port;
use crate::raw::{Scope, Thrown, Value, raw_functions};
use crate::runtime::client;
use crate::values::{read_blob, with_parts};
use crate::views::Label;

/// Results of tasks that are being handed over one by one.
static RESULTS: Mutex<Option<HashMap<ExecutionId, Results>>> = Mutex::new(None);

/// Most bytes of results within one message; what is beyond goes to the store.
const MAX_INLINE: usize = 1 << 20;
/// The same of what was thrown, which has no other place.
const MAX_THROWN: usize = 16 << 20;

#[derive(Default)]
struct Results {
    values: Vec<heliostat_proto::Value>,
    contains: Vec<Handle>,
    /// Bytes within the message.
    inline: usize,
}

fn results<R>(body: impl FnOnce(&mut HashMap<ExecutionId, Results>) -> R) -> R {
    body(RESULTS.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

pub(crate) fn hash(scope: Scope, value: Value) -> Result<FunctionHash, Thrown> {
    // SAFETY: the bytes are copied at once.
    let bytes = unsafe { scope.view(value)? };
    bytes.try_into().map_err(|_| Thrown::argument("a hash of 32 bytes"))
}

fn ids_of(scope: Scope, ids: Value) -> Result<Vec<ObjectId>, Thrown> {
    let parse = |id| ObjectId::parse(&scope.get_string(id)?).map_err(|_| Thrown::argument("an object's id"));
    scope.elements(ids)?.into_iter().map(parse).collect()
}

pub(crate) fn optional(number: f64) -> Option<u32> {
    (number >= 0.0).then_some(number as u32)
}

/// The arguments of a task: those by value, and each of those by reference.
fn arguments(scope: Scope, client: &Client, spec: &TaskSpec) -> Result<(Value, Vec<Value>), Thrown> {
    let args = read_blob(scope, client, &spec.args, Label::Arguments)?;
    let one = |(position, blob): &(u32, _)| read_blob(scope, client, blob, Label::Argument(*position));
    Ok((args, spec.by_ref.iter().map(one).collect::<Result<Vec<Value>, Thrown>>()?))
}

raw_functions! {
    /// Makes a serialised function known under its hash.
    fn define_function = c"defineFunction" (hash_bytes, header, header_len, buffers, refs) |scope| {
        let (client, function) = (client()?, hash(scope, hash_bytes)?);
        with_parts(scope, [header, header_len, buffers, refs], |given| {
            let id = client.with_core(heliostat_runtime::Core::next_put_id);
            let blob = given.blob(&client, id, client.seat())?;
            client.with_core(|core| core.define(function, blob, given.parts.refs));
            Ok(scope.undefined())
        })
    }

    /// Holds the function with this hash once more; false when it is not known and has to be defined.
    fn use_function = c"useFunction" (hash_bytes) |scope| {
        let (client, function) = (client()?, hash(scope, hash_bytes)?);
        Ok(scope.bool(client.with_core(|core| core.use_function(&function))))
    }

    /// Holds a function once less.
    fn drop_function = c"dropFunction" (hash_bytes) |scope| {
        let function = hash(scope, hash_bytes)?;
        if let Some(client) = crate::runtime::entered() {
            client.with_core(|core| core.drop_function(&function));
        }
        Ok(scope.undefined())
    }

    /// Submits a task: a prepared call, arguments by value (four parts), positions and handles of those by reference, and
    /// numbers: submitting task (-1: none), whether it was cancelled already. Returns the handles of its results.
    fn submit = c"submit" (call, header, header_len, buffers, refs, positions, by_ref, parent, cancelled) |scope| {
        let (client, call) = (client()?, calls::of(scope.get_u32(call)?)?);
        let by_ref = scope.handles(positions)?.into_iter().zip(scope.handles(by_ref)?).collect();
        let (parent, cancelled) = (optional(scope.get_f64(parent)?), scope.get_bool(cancelled)?);
        with_parts(scope, [header, header_len, buffers, refs], |given| {
            let id = client.with_core(heliostat_runtime::Core::next_put_id);
            let args = given.blob(&client, id, client.seat())?;
            let contains = given.parts.refs.to_vec();
            let submission = Submission { args, contains, by_ref, cancelled, parent, ..call.as_ref().clone() };
            let handles = client.submit(submission);
            if let (Some(_), Some(port)) = (call.stream, port::of(scope.env)) {
                client.open_stream(port, handles[0]);
            }
            Ok(scope.array(handles.into_iter().map(|handle| scope.u32(handle))))
        })
    }

    /// Cancels the task that makes the object of a reference.
    fn cancel = c"cancel" (handle, force, recursive) |scope| {
        let (client, handle) = (client()?, scope.get_u32(handle)?);
        client.cancel(handle, scope.get_bool(force)?, scope.get_bool(recursive)?);
        Ok(scope.undefined())
    }

    /// Cancels tasks of this process by the ids of objects that they make.
    fn cancel_tasks = c"cancelTasks" (ids) |scope| {
        let ids = ids_of(scope, ids)?;
        if let Some(client) = crate::runtime::entered() {
            let now = client.now();
            client.with_core(|core| ids.iter().for_each(|id| core.cancel_task(&id.task(), false, true, now)));
        }
        Ok(scope.undefined())
    }

    /// For each of these objects whether this process's task that makes it has not ended.
    fn unfinished = c"unfinished" (ids) |scope| {
        let (client, ids) = (client()?, ids_of(scope, ids)?);
        let unfinished: Vec<bool> = client.with_core(|core| ids.iter().map(|id| core.is_unfinished(&id.task())).collect());
        Ok(scope.array(unfinished.into_iter().map(|flag| scope.bool(flag))))
    }

    /// A task's function is about to be called.
    fn begin_task = c"beginTask" (execution) |scope| {
        let (client, execution) = (client()?, scope.get_u32(execution)?);
        client.with_core(|core| core.begin(execution));
        Ok(scope.undefined())
    }

    /// Runs that were aborted and whose code was not told yet: `[execution, late, ...]`, late being 1 when it took too long.
    fn take_aborted = c"takeAborted" () |scope| {
        let taken = client()?.with_core(heliostat_runtime::Core::take_aborted);
        let numbers: Vec<Value> =
            taken.iter().flat_map(|aborted| [scope.u32(aborted.execution), scope.u32(aborted.late.into())]).collect();
        Ok(scope.array(numbers.into_iter()))
    }

    /// The code of an aborted run had time to end, and goes on.
    fn overdue_task = c"overdueTask" (execution) |scope| {
        let (client, execution) = (client()?, scope.get_u32(execution)?);
        client.with_core(|core| core.overdue(execution));
        Ok(scope.undefined())
    }

    /// Takes the next task to run: `{ execution, taskId, attempt, jobId, name, function, args, positions, values,
    /// returns, timed, retriesErrors, streams }`; `undefined` when there is none.
    fn next_task = c"nextTask" () |scope| {
        let client = client()?;
        // The pins live until all arguments have been read, which pins what is viewed.
        let (id, spec, function, args, values, _pins) = loop {
            let Some(ReadyTask { execution, spec, function, pins }) = client.next_task() else {
                return Ok(scope.undefined());
            };
            crate::output::mark(&spec.name);
            match arguments(scope, &client, &spec) {
                Ok((args, values)) => break (execution, spec, function, args, values, pins),
                // Damaged or gone: the task fails with that.
                Err(Thrown { code, message }) => {
                    let failure = heliostat_proto::Value::Failed(Box::new(Failure::new(&code, message)));
                    let results = vec![failure; spec.returns.map_or(1, |count| count as usize)];
                    client.with_core(|core| core.finish(execution, results, &[], 0, false));
                }
            }
        };
        let object = scope.object();
        scope.set(object, c"execution", scope.u32(id));
        scope.set(object, c"taskId", scope.string(&spec.task.to_string()));
        scope.set(object, c"attempt", scope.u32(spec.attempt));
        scope.set(object, c"jobId", scope.string(&spec.job.to_string()));
        scope.set(object, c"name", scope.string(&spec.name));
        scope.set(object, c"function", scope.u32(function.unwrap_or(0)));
        scope.set(object, c"args", args);
        scope.set(object, c"positions", scope.array(spec.by_ref.iter().map(|(at, _)| scope.u32(*at)).collect::<Vec<_>>().into_iter()));
        scope.set(object, c"values", scope.array(values.into_iter()));
        scope.set(object, c"returns", scope.number(spec.returns.map_or(-1.0, f64::from)));
        scope.set(object, c"timed", scope.bool(spec.timed));
        scope.set(object, c"retriesErrors", scope.bool(spec.retries_errors));
        scope.set(object, c"streams", scope.bool(spec.stream.is_some()));
        Ok(object)
    }

    /// The numbers of functions that need not be kept any more; `undefined` when there are none.
    fn take_forgotten = c"takeForgotten" () |scope| {
        let forgotten = client()?.with_core(heliostat_runtime::Core::take_forgotten);
        if forgotten.is_empty() {
            return Ok(scope.undefined());
        }
        Ok(scope.array(forgotten.into_iter().map(|number| scope.u32(number))))
    }

    /// A function that came with a task, serialised; `undefined` when it is not known.
    fn function_value = c"functionValue" (number) |scope| {
        let (client, number) = (client()?, scope.get_u32(number)?);
        match client.with_core(|core| core.function(number).cloned()) {
            Some(blob) => read_blob(scope, &client, &blob, Label::Arguments),
            None => Ok(scope.undefined()),
        }
    }

    /// Adds a result to those of a running task.
    fn add_result = c"addResult" (execution, header, header_len, buffers, refs) |scope| {
        let (client, execution) = (client()?, scope.get_u32(execution)?);
        with_parts(scope, [header, header_len, buffers, refs], |given| {
            let (index, inline) = results(|all| {
                let entry = all.entry(execution).or_default();
                (entry.values.len() as u32, entry.inline)
            });
            let spec = client.with_core(|core| core.execution(execution).map(|e| (e.spec.task, e.spec.seat, e.spec.stream)));
            let (task, caller, stream) = spec.ok_or_else(|| Thrown::argument("a running task"))?;
            // That of a stream's end comes before its items.
            let id = task.object(if stream.is_some() { 0 } else { index + 1 });
            let blob = if inline > MAX_INLINE { given.stored(&client, id, caller)? } else { given.blob(&client, id, caller)? };
            results(|all| {
                let entry = all.entry(execution).or_default();
                entry.inline += if let heliostat_proto::Blob::Inline(bytes) = &blob { bytes.len() } else { 0 };
                entry.values.push(heliostat_proto::Value::Ready(blob));
                entry.contains.extend_from_slice(given.parts.refs);
            });
            Ok(scope.undefined())
        })
    }

    /// Adds a failure to the results of a running task: code, message, facts as [name, value, ...], and what was
    /// thrown (four parts; an empty header for nothing).
    fn add_failure = c"addFailure" (execution, code, message, facts, header, header_len, buffers, refs) |scope| {
        let (client, execution) = (client()?, scope.get_u32(execution)?);
        let mut failure = Failure::new(&scope.get_string(code)?, scope.get_string(message)?);
        for pair in scope.elements(facts)?.chunks_exact(2) {
            let fact = match scope.get_f64(pair[1]) {
                Ok(number) => Fact::Number(number as i64),
                Err(_) => Fact::Text(scope.get_string(pair[1])?),
            };
            failure = failure.fact(&scope.get_string(pair[0])?, fact);
        }
        with_parts(scope, [header, header_len, buffers, refs], |given| {
            let buffers = given.parts.buffers.iter().map(|buffer| buffer.len()).sum::<usize>();
            let size = given.parts.header.len() + buffers;
            if results(|all| all.entry(execution).or_default().inline) + size > MAX_THROWN {
                return Err(Thrown::new("SERIALIZATION", "what was thrown is too large to be sent"));
            }
            results(|all| all.entry(execution).or_default().inline += size);
            if !given.parts.header.is_empty() {
                failure.thrown = Some(client.inline(given.parts));
            }
            results(|all| {
                let entry = all.entry(execution).or_default();
                entry.values.push(heliostat_proto::Value::Failed(Box::new(failure)));
                entry.contains.extend_from_slice(given.parts.refs);
            });
            Ok(scope.undefined())
        })
    }

    /// Forgets the results added so far.
    fn drop_results = c"dropResults" (execution) |scope| {
        let (client, execution) = (client()?, scope.get_u32(execution)?);
        let dropped = results(|all| all.remove(&execution)).unwrap_or_default();
        client.with_core(|core| core.discard(&dropped.values));
        Ok(scope.undefined())
    }

    /// Ends a running task with the results added, after the nanoseconds that its function ran; whether it threw an error
    /// after which its caller wants to try again.
    fn finish_task = c"finishTask" (execution, nanos, again) |scope| {
        let (client, execution, nanos) = (client()?, scope.get_u32(execution)?, scope.get_f64(nanos)?);
        let again = scope.get_bool(again)?;
        let nanos = if nanos < 0.0 { crate::small::ran() } else { nanos as u64 };
        let Results { values, contains, .. } = results(|all| all.remove(&execution)).unwrap_or_default();
        client.with_core(|core| core.finish(execution, values, &contains, nanos, again));
        Ok(scope.undefined())
    }
}
