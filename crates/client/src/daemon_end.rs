//! This process's end of the connection to its daemon, which the store uses too.

use std::os::fd::OwnedFd;

use heliostat_proto::message::ToDaemon;
use heliostat_proto::{Locator, frame};
use heliostat_store::{DaemonLink, LeaseError, LeaseGrant, LeaseRequest};
use heliostat_wire::{Channel, ChannelError, Sent};
use rustix::event::{EventfdFlags, eventfd};

use crate::room::patience;
use crate::rpc::Calls;

/// The connection, and what wakes the thread that reads it.
#[derive(Debug)]
pub(crate) struct DaemonEnd {
    pub(crate) channel: Channel,
    pub(crate) leases: Calls<Vec<u8>>,
    /// Wakes the reading thread to look at time and orders again.
    pub(crate) wake: OwnedFd,
}

impl DaemonEnd {
    pub(crate) fn new(channel: Channel) -> Result<Self, ChannelError> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { channel, leases: Calls::default(), wake })
    }

    pub(crate) fn send(&self, message: &ToDaemon) {
        match self.channel.send(message, Vec::new()) {
            Ok(Sent::All) => {}
            // The reading thread flushes when there is room; or sees the end of the connection and tells everybody.
            Ok(Sent::Waiting) | Err(_) => self.wake(),
        }
    }

    pub(crate) fn wake(&self) {
        // A full counter wakes as well.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    fn ask(&self, request: LeaseRequest) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        frame::write(&mut body, &request).ok()?;
        let (id, answer) = self.leases.begin()?;
        self.send(&ToDaemon::StoreLease { request: id, body: body.split_off(frame::PREFIX), patience: patience() });
        answer.recv().ok()
    }
}

impl DaemonLink for DaemonEnd {
    fn lease(&self, request: LeaseRequest) -> Result<LeaseGrant, LeaseError> {
        let gone = || LeaseError::Disconnected { reason: "its connection was closed".into() };
        let body = self.ask(request).ok_or_else(gone)?;
        frame::read::<Result<LeaseGrant, LeaseError>>(&body)
            .unwrap_or_else(|error| Err(LeaseError::Disconnected { reason: error.to_string() }))
    }

    fn free(&self, locators: &[Locator]) {
        self.send(&ToDaemon::StoreFree { locators: locators.to_vec() });
    }
}
