//! Messages of Heliostat between processes of a node: over Unix sockets, which pass descriptors and end with their
//! process ([`Channel`], to the daemon), and through shared memory ([`Link`], between the others). Neither ever blocks the
//! sender.
//!
//! A [`Channel`] is one end of a connected stream socket in non-blocking mode. Any thread may send; one thread reads.
//! Descriptors travel with the first byte of the frame that carries them, and are taken in the order of the messages
//! that say how many they bring.
//!
//! ```
//! use heliostat_proto::message::ToPeer;
//! use heliostat_wire::{Channel, Inbox};
//!
//! let (a, b) = Channel::pair()?;
//! a.send(&ToPeer::Borrowed, Vec::new())?;
//! let mut inbox = Inbox::default();
//! b.receive(&mut inbox)?;
//! assert_eq!(inbox.next::<ToPeer>()?, Some(ToPeer::Borrowed));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod link;

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use heliostat_proto::frame::{self, FrameError};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use crate::link::{LINK_FDS, Link, LinkError, introduce};

/// Most descriptors that one message brings.
pub const MAX_FDS: usize = 8;
/// Bytes read by one call.
const READ_CHUNK: usize = 64 * 1024;
/// Descriptors that may wait for their message; more come only from a peer that does not follow the protocol.
const MAX_WAITING_FDS: usize = 256;

/// A message could not be sent or received.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The other end is closed.
    #[error("the other process closed the connection")]
    Closed,
    /// The operating system refused.
    #[error("the connection failed: {0}")]
    Os(#[from] Errno),
    /// What arrived is not a frame or not a message.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A message says that it brings a descriptor, but none came.
    #[error("a message came without its descriptor")]
    MissingDescriptor,
    /// More descriptors came than messages say.
    #[error("descriptors came that belong to no message")]
    TooManyDescriptors,
}

/// Whether all bytes left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Everything is with the kernel.
    All,
    /// Some bytes wait in the outbox: call [`Channel::flush`] when the socket is writable.
    Waiting,
}

/// One end of a connection.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    outbox: Mutex<Outbox>,
}

/// What the kernel did not take yet, oldest first.
#[derive(Debug, Default)]
struct Outbox {
    frames: VecDeque<(Vec<u8>, usize, Vec<OwnedFd>)>,
}

impl Channel {
    /// Takes over a connected stream socket and makes it non-blocking.
    pub fn new(socket: OwnedFd) -> Result<Self, ChannelError> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self { socket, outbox: Mutex::default() })
    }

    /// A connected pair.
    pub fn pair() -> Result<(Self, Self), ChannelError> {
        let (a, b) = socket_pair()?;
        Ok((Self::new(a)?, Self::new(b)?))
    }

    /// Sends a message with its descriptors, after those that wait already. Never blocks: what the kernel does not take
    /// stays in the outbox.
    pub fn send<M: Serialize>(&self, message: &M, fds: Vec<OwnedFd>) -> Result<Sent, ChannelError> {
        let mut bytes = Vec::new();
        frame::write(&mut bytes, message)?;
        let mut outbox = self.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        outbox.frames.push_back((bytes, 0, fds));
        self.flush_locked(&mut outbox)
    }

    /// Whether something waits in the outbox until the socket is writable.
    pub fn is_waiting(&self) -> bool {
        !self.outbox.lock().unwrap_or_else(PoisonError::into_inner).frames.is_empty()
    }

    /// Sends what waits in the outbox.
    pub fn flush(&self) -> Result<Sent, ChannelError> {
        self.flush_locked(&mut self.outbox.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn flush_locked(&self, outbox: &mut Outbox) -> Result<Sent, ChannelError> {
        while let Some((bytes, sent, fds)) = outbox.frames.front_mut() {
            match self.send_some(&bytes[*sent..], fds) {
                Ok(count) => {
                    fds.clear();
                    *sent += count;
                    if *sent == bytes.len() {
                        outbox.frames.pop_front();
                    }
                }
                Err(Errno::AGAIN) => return Ok(Sent::Waiting),
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(ChannelError::Closed),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(Sent::All)
    }

    fn send_some(&self, bytes: &[u8], fds: &[OwnedFd]) -> Result<usize, Errno> {
        let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !borrowed.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)) {
            return Err(Errno::TOOBIG);
        }
        rustix::net::sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)
    }

    /// Reads what is there into `inbox`; returns whether there may be more. `Closed` when the other end is gone and all
    /// it sent has been read.
    pub fn receive(&self, inbox: &mut Inbox) -> Result<bool, ChannelError> {
        inbox.compact();
        let filled = inbox.bytes.len();
        inbox.bytes.resize(filled + READ_CHUNK, 0);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let result = loop {
            let mut target = [IoSliceMut::new(&mut inbox.bytes[filled..])];
            match rustix::net::recvmsg(&self.socket, &mut target, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                other => break other,
            }
        };
        let count = result.as_ref().map_or(0, |message| message.bytes);
        inbox.bytes.truncate(filled + count);
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                inbox.fds.extend(fds);
            }
        }
        if inbox.fds.len() > MAX_WAITING_FDS {
            return Err(ChannelError::TooManyDescriptors);
        }
        match result {
            Ok(_) if count == 0 => Err(ChannelError::Closed),
            Ok(_) => Ok(count == READ_CHUNK),
            Err(Errno::AGAIN) => Ok(false),
            Err(Errno::CONNRESET) => Err(ChannelError::Closed),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Two connected stream sockets, closed on exec.
pub fn socket_pair() -> Result<(OwnedFd, OwnedFd), ChannelError> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

/// Bytes and descriptors that arrived and were not taken yet.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    start: usize,
    fds: VecDeque<OwnedFd>,
}

impl Inbox {
    /// Takes the next whole message.
    #[expect(clippy::should_implement_trait, reason = "its type is chosen at the call, which an iterator cannot do")]
    pub fn next<M: DeserializeOwned>(&mut self) -> Result<Option<M>, ChannelError> {
        let rest = &self.bytes[self.start..];
        match frame::length(rest)? {
            Some(length) if length <= rest.len() => {
                let message = frame::read(&rest[frame::PREFIX..length])?;
                self.start += length;
                Ok(Some(message))
            }
            _ => Ok(None),
        }
    }

    /// Takes the next descriptor, which the message just read brings.
    pub fn take_fd(&mut self) -> Result<OwnedFd, ChannelError> {
        self.fds.pop_front().ok_or(ChannelError::MissingDescriptor)
    }

    /// Takes the next `N` descriptors.
    pub fn take_fds<const N: usize>(&mut self) -> Result<[OwnedFd; N], ChannelError> {
        if self.fds.len() < N {
            return Err(ChannelError::MissingDescriptor);
        }
        Ok(std::array::from_fn(|_| self.fds.pop_front().expect("as many are there")))
    }

    /// Bytes that are not a whole message yet.
    pub fn pending(&self) -> usize {
        self.bytes.len() - self.start
    }

    fn compact(&mut self) {
        if self.start == self.bytes.len() {
            self.bytes.clear();
        } else if self.start > READ_CHUNK {
            self.bytes.drain(..self.start);
        } else {
            return;
        }
        self.start = 0;
    }
}

#[cfg(test)]
mod tests {
    use heliostat_proto::message::ToPeer;
    use heliostat_proto::{Blob, Bytes, ObjectId};

    use super::*;

    #[test]
    fn a_full_socket_keeps_messages_in_the_outbox_in_order() {
        let (a, b) = Channel::pair().unwrap();
        let mut waiting = false;
        for index in 0..200_u32 {
            let blob = Blob::Inline(Bytes::new(vec![index as u8; 10_000]));
            let mut hash = [0; 32];
            hash[..4].copy_from_slice(&index.to_le_bytes());
            waiting |= a.send(&ToPeer::Define { function: hash, blob }, Vec::new()).unwrap() == Sent::Waiting;
        }
        assert!(waiting, "two megabytes do not fit into a socket's buffer");
        let mut inbox = Inbox::default();
        let mut seen = 0_u32;
        while seen < 200 {
            while b.receive(&mut inbox).unwrap() {}
            while let Some(message) = inbox.next::<ToPeer>().unwrap() {
                let ToPeer::Define { function, blob: Blob::Inline(bytes) } = message else { panic!("{message:?}") };
                assert_eq!(function[..4], seen.to_le_bytes());
                assert!(bytes.len() == 10_000 && bytes.iter().all(|byte| *byte == seen as u8));
                seen += 1;
            }
            a.flush().unwrap();
        }
    }

    #[test]
    fn descriptors_come_with_their_messages() {
        let (a, b) = Channel::pair().unwrap();
        for index in 0..3_u8 {
            let (read, write) = rustix::pipe::pipe().unwrap();
            rustix::io::write(&write, &[index]).unwrap();
            a.send(&ToPeer::Fetch { object: ObjectId([index; 28]) }, vec![read]).unwrap();
        }
        let mut inbox = Inbox::default();
        let mut got = Vec::new();
        while got.len() < 3 {
            b.receive(&mut inbox).unwrap();
            while let Some(ToPeer::Fetch { object }) = inbox.next().unwrap() {
                let mut byte = [0];
                rustix::io::read(inbox.take_fd().unwrap(), &mut byte).unwrap();
                got.push((object.0[0], byte[0]));
            }
        }
        assert_eq!(got, [(0, 0), (1, 1), (2, 2)]);
        assert!(matches!(inbox.take_fd(), Err(ChannelError::MissingDescriptor)));
    }

    #[test]
    fn the_end_of_the_other_process_is_seen_after_its_last_message() {
        let (a, b) = Channel::pair().unwrap();
        a.send(&ToPeer::Borrowed, Vec::new()).unwrap();
        drop(a);
        let mut inbox = Inbox::default();
        assert!(!b.receive(&mut inbox).unwrap());
        assert_eq!(inbox.next::<ToPeer>().unwrap(), Some(ToPeer::Borrowed));
        assert!(matches!(b.receive(&mut inbox), Err(ChannelError::Closed)));
        assert!(matches!(b.send(&ToPeer::Borrowed, Vec::new()), Err(ChannelError::Closed)));
    }
}
