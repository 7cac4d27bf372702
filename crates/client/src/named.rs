//! Objects that belong to the cluster, by their names.

use std::time::Duration;

use heliostat_proto::message::ToDaemon;
use heliostat_proto::{Blob, Failure, ObjectId, RefEntry, Value};
use heliostat_runtime::Handle;

use crate::client::{Client, Shared};

/// How long a thread waits for the daemon's word.
const PATIENCE: Duration = Duration::from_secs(5);

/// No object by that name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NamedError {
    /// The daemon refused: the name is taken, or nobody has it.
    #[error("{}", .0.message)]
    Refused(Failure),
    /// The daemon did not answer.
    #[error("the node's daemon did not answer within {} s: whether it did what it was asked is not known", PATIENCE.as_secs())]
    NoAnswer,
    /// The node ended.
    #[error("the node has ended")]
    NodeGone,
}

impl Client {
    /// Gives a value, laid out as an object of this process under `id`, to the cluster. The caller keeps `refs`, the
    /// references inside, alive until this returns. `ttl`: milliseconds after which the name goes.
    pub fn put_named(
        &self,
        id: ObjectId,
        blob: Blob,
        refs: &[Handle],
        name: String,
        ttl: Option<u64>,
    ) -> Result<Handle, NamedError> {
        let refs = self.entries(refs);
        let value = Value::Ready(blob.clone());
        let result = self.ask(|request| ToDaemon::PutNamed { request, name, ttl, id, blob, refs });
        if matches!(result, Err(NamedError::Refused(_))) {
            self.with_core(|core| core.discard(&[value]));
        }
        result
    }

    /// A reference to the object of a name.
    pub fn find_named(&self, name: String) -> Result<Handle, NamedError> {
        self.ask(|request| ToDaemon::FindNamed { request, name })
    }

    /// Sets the namespace of this driver and of its tasks.
    pub fn set_namespace(&self, name: String) {
        self.shared.daemon.send(&ToDaemon::Namespace { name });
    }

    fn ask(&self, message: impl FnOnce(u64) -> ToDaemon) -> Result<Handle, NamedError> {
        let (request, answer) = self.shared.named.begin().ok_or(NamedError::NodeGone)?;
        self.shared.daemon.send(&message(request));
        let result = answer.recv_timeout(PATIENCE).or_else(|_| {
            self.shared.named.give_up(request);
            // It may have come at the last moment.
            answer.try_recv()
        });
        match result {
            Ok(Ok(entry)) => Ok(self.with_core(|core| core.adopt(&entry))),
            Ok(Err(failure)) => Err(NamedError::Refused(failure)),
            Err(_) if self.is_gone() => Err(NamedError::NodeGone),
            Err(_) => Err(NamedError::NoAnswer),
        }
    }
}

impl Shared {
    /// The daemon's answer. What it lent to nobody goes back.
    pub(crate) fn on_named(&self, request: u64, result: Result<RefEntry, Failure>) {
        if let Some(Ok(entry)) = self.named.answer(request, result) {
            self.with_core(|core| {
                let handle = core.adopt(&entry);
                core.release(handle);
            });
        }
    }
}
