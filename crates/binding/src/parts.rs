//! Parts of stored values, read without bringing the values back.

use std::sync::Arc;

use heliostat_client::Client;
use heliostat_proto::Locator;
use napi::bindgen_prelude::{AsyncTask, Uint8Array};
use napi::{Env, Error, Status, Task};
use napi_derive::napi;

use crate::runtime::client;
use crate::values::stored;

/// Reads on a thread of the pool.
pub struct Reading {
    client: Arc<Client>,
    locator: Locator,
    start: u64,
    length: u64,
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Reading").field(&self.locator).finish()
    }
}

impl Task for Reading {
    type Output = Vec<u8>;
    type JsValue = Uint8Array;

    fn compute(&mut self) -> napi::Result<Vec<u8>> {
        self.client
            .read_part(&self.locator, self.start, self.length)
            .map_err(|failure| Error::new(Status::GenericFailure, format!("{}: {}", failure.code, failure.message)))
    }

    fn resolve(&mut self, _env: Env, bytes: Vec<u8>) -> napi::Result<Uint8Array> {
        Ok(bytes.into())
    }
}

/// Bytes of a stored value, from memory or from storage.
#[napi(ts_return_type = "Promise<Uint8Array>")]
pub fn read_part(handle: u32, start: f64, length: f64) -> napi::Result<AsyncTask<Reading>> {
    let client = client()
        .map_err(|thrown| Error::new(Status::GenericFailure, format!("{}: {}", thrown.code, thrown.message)))?;
    let locator = stored(&client, handle)
        .ok_or_else(|| Error::new(Status::GenericFailure, "INTERNAL: the value is not in the store"))?;
    Ok(AsyncTask::new(Reading { client, locator, start: start as u64, length: length as u64 }))
}
