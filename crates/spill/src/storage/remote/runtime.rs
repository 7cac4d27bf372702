//! The threads that drive connections.

use std::future::Future;

use crate::OpenError;

/// One for all remote storages of an engine. Its end waits for nothing, not even for a name server.
#[derive(Debug)]
pub(crate) struct Runtime(Option<tokio::runtime::Runtime>);

impl Runtime {
    pub(crate) fn new() -> Result<Self, OpenError> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).thread_name("spill-net").enable_all().build();
        Ok(Self(Some(runtime.map_err(|error| OpenError::Os(error.to_string()))?)))
    }

    /// Runs a future on the calling thread until it is done.
    pub(super) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.0.as_ref().expect("it ends with the last storage").block_on(future)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
