//! What can go wrong on the client's side, per operation.

use heliostat_proto::Failure;
use heliostat_store::{AttachError, SeatFdsError};
use heliostat_wire::ChannelError;

/// A process could not join a node.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The socket failed, or the daemon closed it.
    #[error("the node's daemon could not be reached: {0}")]
    Channel(#[from] ChannelError),
    /// The daemon refused.
    #[error("{}", .0.message)]
    Refused(Failure),
    /// The daemon's first answer was not an answer.
    #[error("the node's daemon answered with an unexpected message")]
    Unexpected,
    /// The daemon's description of the store could not be read.
    #[error("the node's daemon described its store in a way that this version does not know: {0}")]
    Seat(#[from] heliostat_proto::frame::FrameError),
    /// The store's descriptors did not come along.
    #[error(transparent)]
    SeatFds(#[from] SeatFdsError),
    /// The bell that others ring could not be opened.
    #[error(transparent)]
    Bell(#[from] heliostat_shm::bell::BellError),
    /// The store could not be mapped.
    #[error("the node's store could not be mapped: {0}")]
    Attach(#[from] AttachError),
    /// The operating system refused.
    #[error("the process could not set up its connection: {0}")]
    Os(#[from] std::io::Error),
}

/// A value could not be stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PutError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] heliostat_store::PutError),
    /// The memory could not be opened for the program.
    #[error(transparent)]
    Expose(heliostat_store::ExposeError),
    /// The node ended.
    #[error("the node has ended")]
    NodeGone,
}
