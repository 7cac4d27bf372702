//! Calls prepared once and made often: what all tasks of a remote function have in common.

use std::sync::{Arc, PoisonError, RwLock};

use heliostat_proto::message::Resources;
use heliostat_proto::{Blob, Bytes};
use heliostat_runtime::Submission;

use crate::raw::{Scope, Thrown, Value, raw_functions};
use crate::tasks::{hash, optional};

/// Prepared calls by their numbers, and the numbers that are free again.
struct Calls {
    prepared: Vec<Option<Arc<Submission>>>,
    free: Vec<u32>,
}

static CALLS: RwLock<Calls> = RwLock::new(Calls { prepared: Vec::new(), free: Vec::new() });

/// A prepared call: all of a submission but its arguments.
pub(crate) fn of(number: u32) -> Result<Arc<Submission>, Thrown> {
    let calls = CALLS.read().unwrap_or_else(PoisonError::into_inner);
    let call = calls.prepared.get(number as usize).and_then(Option::as_ref);
    call.map(Arc::clone).ok_or_else(|| Thrown::argument("a prepared call"))
}

fn resources(scope: Scope, pairs: Value) -> Result<Resources, Thrown> {
    let pairs = scope.elements(pairs)?;
    let amounts = pairs
        .chunks_exact(2)
        .map(|pair| Ok((scope.get_string(pair[0])?, scope.get_f64(pair[1])?)))
        .collect::<Result<Vec<_>, Thrown>>()?;
    Ok(Resources::new(amounts))
}

raw_functions! {
    /// Prepares a call: name, function, resources as [name, amount, ...], and numbers: results (-1: one value), retries,
    /// milliseconds that a run may take (-1: any), flags (1: tried again after errors, 2: after it ran too long); the
    /// environment's id (empty: the inherited one); and items of a stream that may be made before they are taken (0: it
    /// gives no stream). Returns its number, good until `dropCall`.
    fn prepare_call = c"prepareCall" (name, hash_bytes, needs, returns, retries, timeout, flags, env, stream) |scope| {
        let client = crate::runtime::client()?;
        let env = crate::envs::of(&client, &scope.get_string(env)?)?;
        let flags = scope.get_u32(flags)?;
        let timeout = scope.get_f64(timeout)?;
        let call = Submission {
            name: scope.get_string(name)?,
            function: hash(scope, hash_bytes)?,
            args: Blob::Inline(Bytes::default()),
            contains: Vec::new(),
            by_ref: Vec::new(),
            returns: optional(scope.get_f64(returns)?),
            stream: Some(scope.get_u32(stream)?).filter(|buffered| *buffered > 0),
            resources: resources(scope, needs)?,
            env,
            unfit: client.unfit(env),
            max_retries: scope.get_f64(retries)? as i64,
            retries_errors: flags & 1 != 0,
            retries_timeouts: flags & 2 != 0,
            timeout: (timeout >= 0.0).then_some(timeout as u64),
            cancelled: false,
            parent: None,
        };
        let mut calls = CALLS.write().unwrap_or_else(PoisonError::into_inner);
        let Calls { prepared, free } = &mut *calls;
        let number = free.pop().unwrap_or_else(|| {
            prepared.push(None);
            prepared.len() as u32 - 1
        });
        prepared[number as usize] = Some(Arc::new(call));
        Ok(scope.u32(number))
    }

    /// Nobody makes this call any more.
    fn drop_call = c"dropCall" (number) |scope| {
        let number = scope.get_u32(number)?;
        let mut calls = CALLS.write().unwrap_or_else(PoisonError::into_inner);
        let Calls { prepared, free } = &mut *calls;
        if prepared.get_mut(number as usize).and_then(Option::take).is_some() {
            free.push(number);
        }
        Ok(scope.undefined())
    }
}
