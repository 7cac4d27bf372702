//! Submitting tasks, and running those that arrive.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use heliostat_client::{Client, ReadyTask};
use heliostat_proto::message::{FunctionHash, Resources, TaskSpec};
use heliostat_proto::{Fact, Failure};
use heliostat_runtime::{ExecutionId, Handle, Submission};

use crate::raw::{Scope, Thrown, Value, raw_functions};
use crate::runtime::client;
use crate::values::{read_blob, with_parts};
use crate::views::Label;

/// Results of tasks that are being handed over one by one.
static RESULTS: Mutex<Option<HashMap<ExecutionId, Results>>> = Mutex::new(None);

#[derive(Default)]
struct Results {
    values: Vec<heliostat_proto::Value>,
    contains: Vec<Handle>,
}

fn results<R>(body: impl FnOnce(&mut HashMap<ExecutionId, Results>) -> R) -> R {
    body(RESULTS.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

fn hash(scope: Scope, value: Value) -> Result<FunctionHash, Thrown> {
    // SAFETY: the bytes are copied at once.
    let bytes = unsafe { scope.view(value)? };
    bytes.try_into().map_err(|_| Thrown::argument("a hash of 32 bytes"))
}

fn resources(scope: Scope, pairs: Value) -> Result<Resources, Thrown> {
    let pairs = scope.elements(pairs)?;
    let amounts = pairs
        .chunks_exact(2)
        .map(|pair| Ok((scope.get_string(pair[0])?, scope.get_f64(pair[1])?)))
        .collect::<Result<Vec<_>, Thrown>>()?;
    Ok(Resources::new(amounts))
}

fn optional(number: f64) -> Option<u32> {
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
        if let Some(client) = crate::runtime::current() {
            client.with_core(|core| core.drop_function(&function));
        }
        Ok(scope.undefined())
    }

    /// Submits a task: name, function, arguments by value (four parts), positions and handles of those by reference,
    /// number of results (-1: one value), resources as [name, amount, ...], retries, submitting task (-1: none).
    /// Returns the handles of its results.
    fn submit = c"submit" (name, hash_bytes, header, header_len, buffers, refs, positions, by_ref, returns, needs, retries, parent) |scope| {
        let client = client()?;
        let function = hash(scope, hash_bytes)?;
        let by_ref = scope.handles(positions)?.into_iter().zip(scope.handles(by_ref)?).collect();
        let (name, resources) = (scope.get_string(name)?, resources(scope, needs)?);
        let (returns, parent) = (optional(scope.get_f64(returns)?), optional(scope.get_f64(parent)?));
        let max_retries = scope.get_f64(retries)? as i64;
        with_parts(scope, [header, header_len, buffers, refs], |given| {
            let id = client.with_core(heliostat_runtime::Core::next_put_id);
            let args = given.blob(&client, id, client.seat())?;
            let submission =
                Submission { name, function, args, contains: given.parts.refs.to_vec(), by_ref, returns, resources, max_retries, parent };
            let handles = client.submit(submission);
            Ok(scope.array(handles.into_iter().map(|handle| scope.u32(handle))))
        })
    }

    /// Takes the next task to run: `{ execution, taskId, attempt, jobId, name, function, args, positions, values,
    /// returns }`; `undefined` when there is none.
    fn next_task = c"nextTask" () |scope| {
        let client = client()?;
        // The pins live until all arguments have been read, which pins what is viewed.
        let (id, spec, args, values, _pins) = loop {
            let Some(ReadyTask { execution, spec, pins }) = client.next_task() else { return Ok(scope.undefined()) };
            match arguments(scope, &client, &spec) {
                Ok((args, values)) => break (execution, spec, args, values, pins),
                // Damaged or gone: the task fails with that.
                Err(Thrown { code, message }) => {
                    let failure = heliostat_proto::Value::Failed(Box::new(Failure::new(&code, message)));
                    let results = vec![failure; spec.returns.map_or(1, |count| count as usize)];
                    client.with_core(|core| core.finish(execution, results, &[], 0));
                }
            }
        };
        let object = scope.object();
        scope.set(object, c"execution", scope.u32(id));
        scope.set(object, c"taskId", scope.string(&spec.task.to_string()));
        scope.set(object, c"attempt", scope.u32(spec.attempt));
        scope.set(object, c"jobId", scope.string(&spec.job.to_string()));
        scope.set(object, c"name", scope.string(&spec.name));
        scope.set(object, c"function", scope.bytes(&spec.function));
        scope.set(object, c"args", args);
        scope.set(object, c"positions", scope.array(spec.by_ref.iter().map(|(at, _)| scope.u32(*at)).collect::<Vec<_>>().into_iter()));
        scope.set(object, c"values", scope.array(values.into_iter()));
        scope.set(object, c"returns", scope.number(spec.returns.map_or(-1.0, f64::from)));
        Ok(object)
    }

    /// The hashes of functions that need not be kept any more; `undefined` when there are none.
    fn take_forgotten = c"takeForgotten" () |scope| {
        let forgotten = client()?.with_core(heliostat_runtime::Core::take_forgotten);
        if forgotten.is_empty() {
            return Ok(scope.undefined());
        }
        let hashes: Vec<Value> = forgotten.iter().map(|hash| scope.bytes(hash)).collect();
        Ok(scope.array(hashes.into_iter()))
    }

    /// A function that came with a task, serialised; `undefined` when it is not known.
    fn function_value = c"functionValue" (hash_bytes) |scope| {
        let (client, function) = (client()?, hash(scope, hash_bytes)?);
        match client.with_core(|core| core.function(&function).cloned()) {
            Some(blob) => read_blob(scope, &client, &blob, Label::Arguments),
            None => Ok(scope.undefined()),
        }
    }

    /// Adds a result to those of a running task.
    fn add_result = c"addResult" (execution, header, header_len, buffers, refs) |scope| {
        let (client, execution) = (client()?, scope.get_u32(execution)?);
        with_parts(scope, [header, header_len, buffers, refs], |given| {
            let index = results(|all| all.entry(execution).or_default().values.len() as u32);
            let spec = client.with_core(|core| core.execution(execution).map(|e| (e.spec.task, e.spec.seat)));
            let (task, caller) = spec.ok_or_else(|| Thrown::argument("a running task"))?;
            let blob = given.blob(&client, task.object(index + 1), caller)?;
            results(|all| {
                let entry = all.entry(execution).or_default();
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

    /// Ends a running task with the results added, after the nanoseconds that its function ran.
    fn finish_task = c"finishTask" (execution, nanos) |scope| {
        let (client, execution, nanos) = (client()?, scope.get_u32(execution)?, scope.get_f64(nanos)?);
        let Results { values, contains } = results(|all| all.remove(&execution)).unwrap_or_default();
        client.with_core(|core| core.finish(execution, values, &contains, nanos as u64));
        Ok(scope.undefined())
    }
}
