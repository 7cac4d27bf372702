//! The first exchange with the daemon.

use std::os::fd::OwnedFd;

use heliostat_proto::message::{FromDaemon, PROTOCOL_VERSION, Role, ToDaemon, Welcome};
use heliostat_shm::bell::{BELL_FDS, Ringer};
use heliostat_store::{Seat, SeatParams};
use heliostat_wire::{Channel, ChannelError, Inbox};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde::de::DeserializeOwned;

use crate::error::ConnectError;

/// Says hello. What came behind the welcome stays in the inbox.
pub(crate) fn hello(daemon: &Channel, role: Role) -> Result<(Welcome, Seat, Ringer, Inbox), ConnectError> {
    daemon.send(&ToDaemon::Hello { version: PROTOCOL_VERSION, role }, Vec::new())?;
    let mut inbox = Inbox::default();
    let welcome = match receive_blocking(daemon, &mut inbox)? {
        FromDaemon::Welcome(welcome) => *welcome,
        FromDaemon::Refused(failure) => return Err(ConnectError::Refused(failure)),
        _ => return Err(ConnectError::Unexpected),
    };
    let params: SeatParams = heliostat_proto::frame::read(&welcome.seat)?;
    let fds = (0..params.descriptors()).map(|_| inbox.take_fd()).collect::<Result<Vec<OwnedFd>, _>>()?;
    let bell = Ringer::open(inbox.take_fds::<BELL_FDS>()?)?;
    Ok((welcome, Seat::from_parts(params, fds)?, bell, inbox))
}

/// Reads until the first message is whole.
fn receive_blocking<M: DeserializeOwned>(channel: &Channel, inbox: &mut Inbox) -> Result<M, ChannelError> {
    loop {
        if let Some(message) = inbox.next()? {
            return Ok(message);
        }
        let mut fds = [PollFd::new(channel, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        channel.receive(inbox)?;
    }
}
