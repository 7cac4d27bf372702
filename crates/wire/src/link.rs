//! A connection between two processes of one node: messages through shared memory, bells to wake each other.
//!
//! Frames cross a pair of rings as a stream of bytes, so that a message may be longer than a ring. What does not fit
//! waits in the sender's outbox, which the sender's thread flushes when the receiver says that it has read.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use heliostat_proto::frame::{self, FrameError};
use heliostat_shm::bell::{BELL_FDS, Bell, BellError, Ringer};
use heliostat_shm::ring::{self, Broken, Gauge, Side};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Sent;

/// Descriptors that each side of a link gets: the rings, then the other side's bell.
pub const LINK_FDS: usize = 1 + BELL_FDS;

/// A link could not be made, or carries no more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Its rings could not be made.
    #[error(transparent)]
    Memory(#[from] heliostat_shm::memfd::MemfdError),
    /// Its descriptors could not be passed.
    #[error("cannot pass the descriptors of a link: {0}")]
    Descriptors(#[from] std::io::Error),
    /// Its rings could not be opened.
    #[error(transparent)]
    Rings(#[from] ring::OpenError),
    /// The other side's bell could not be opened.
    #[error(transparent)]
    Bell(#[from] BellError),
    /// The other side does not follow the protocol.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// What arrived is no message.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Makes a link between the owners of two bells: the descriptors for the near side, then those for the far one.
pub fn introduce(near: &Bell, far: &Bell) -> Result<[Vec<OwnedFd>; 2], LinkError> {
    let rings = ring::create()?;
    let end = |other: &Bell| -> Result<Vec<OwnedFd>, LinkError> {
        let mut fds = vec![rings.share()?];
        fds.extend(other.share()?);
        Ok(fds)
    };
    Ok([end(far)?, end(near)?])
}

/// One side of a link. Any thread may send or receive.
///
/// ```
/// use heliostat_shm::{bell::Bell, ring::Side};
/// use heliostat_wire::{Link, Sent, introduce};
///
/// // Who knows both makes the link, and passes each side its descriptors.
/// let (one, two) = (Bell::create()?, Bell::create()?);
/// let [near, far] = introduce(&one, &two)?;
/// let near = Link::open(Side::Near, near.try_into().expect("as many as LINK_FDS"))?;
/// let far = Link::open(Side::Far, far.try_into().expect("as many as LINK_FDS"))?;
///
/// assert_eq!(near.send(&"hello")?, Sent::All); // and rings the bell `two`
/// let long = "long ".repeat(20_000);
/// assert_eq!(near.send(&long)?, Sent::Waiting, "more than the ring holds");
///
/// let mut got: Vec<String> = Vec::new();
/// while got.len() < 2 {
///     far.receive(|messages| got.extend::<Vec<String>>(messages))?; // and rings the bell `one`, which tells of room:
///     near.flush()?;
/// }
/// assert_eq!(got, ["hello", &long]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Link {
    sending: Mutex<Sending>,
    receiving: Mutex<Receiving>,
    gauge: Gauge,
    bell: Ringer,
}

#[derive(Debug)]
struct Sending {
    writer: ring::Writer,
    scratch: Vec<u8>,
    /// What the ring has no room for yet, oldest first, and how much of the first is gone.
    outbox: VecDeque<Vec<u8>>,
    sent: usize,
}

#[derive(Debug)]
struct Receiving {
    reader: ring::Reader,
    bytes: Vec<u8>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    /// Opens this side with the descriptors that [`introduce`] made for it.
    pub fn open(side: Side, fds: [OwnedFd; LINK_FDS]) -> Result<Self, LinkError> {
        let [rings, bell @ ..] = fds;
        let (writer, reader) = ring::open(rings, side)?;
        Ok(Self {
            gauge: reader.gauge(),
            sending: Mutex::new(Sending { writer, scratch: Vec::new(), outbox: VecDeque::new(), sent: 0 }),
            receiving: Mutex::new(Receiving { reader, bytes: Vec::new() }),
            bell: Ringer::open(bell)?,
        })
    }

    /// Sends a message after those that wait already, and wakes the other side. Never blocks.
    pub fn send<M: Serialize>(&self, message: &M) -> Result<Sent, LinkError> {
        let mut sending = lock(&self.sending);
        let Sending { writer, scratch, outbox, .. } = &mut *sending;
        scratch.clear();
        frame::write(scratch, message)?;
        let written = if outbox.is_empty() { writer.write(scratch)? } else { 0 };
        if written == scratch.len() {
            self.bell.ring();
            return Ok(Sent::All);
        }
        outbox.push_back(scratch.split_off(written));
        scratch.clear();
        give_back(scratch);
        self.flush_locked(&mut sending)
    }

    /// Sends what waits in the outbox, as far as there is room.
    pub fn flush(&self) -> Result<Sent, LinkError> {
        let mut sending = lock(&self.sending);
        if sending.outbox.is_empty() { Ok(Sent::All) } else { self.flush_locked(&mut sending) }
    }

    /// Whether something waits in the outbox until the other side has read.
    pub fn is_waiting(&self) -> bool {
        !lock(&self.sending).outbox.is_empty()
    }

    fn flush_locked(&self, sending: &mut Sending) -> Result<Sent, LinkError> {
        while let Some(front) = sending.outbox.front() {
            sending.sent += sending.writer.write(&front[sending.sent..])?;
            if sending.sent == front.len() {
                sending.outbox.pop_front();
                sending.sent = 0;
            } else if !sending.writer.starve() {
                self.bell.ring();
                return Ok(Sent::Waiting);
            }
        }
        self.bell.ring();
        Ok(Sent::All)
    }

    /// Whether something arrived that was not received yet.
    #[inline]
    pub fn has_news(&self) -> bool {
        !self.gauge.is_empty()
    }

    /// Takes all messages that arrived, in order, while others wait for their turn. What came whole before an error is
    /// taken too.
    ///
    /// # Errors
    /// What the other side sent is no message: nothing more can be understood, now or later.
    pub fn receive<M: DeserializeOwned>(&self, take: impl FnOnce(Vec<M>)) -> Result<(), LinkError> {
        let mut receiving = lock(&self.receiving);
        let Receiving { reader, bytes } = &mut *receiving;
        let read = reader.read(bytes);
        if read == Ok(true) {
            // Its thread flushes, whatever its event loop does.
            self.bell.knock();
        }
        let mut messages = Vec::new();
        let parsed = parse(bytes, &mut messages);
        if !messages.is_empty() {
            take(messages);
        }
        read?;
        Ok(parsed?)
    }
}

/// Moves the whole messages at the start of `bytes` to `messages`.
fn parse<M: DeserializeOwned>(bytes: &mut Vec<u8>, messages: &mut Vec<M>) -> Result<(), FrameError> {
    let mut start = 0;
    let parsed = loop {
        match frame::length(&bytes[start..]) {
            Ok(Some(length)) if length <= bytes.len() - start => {
                match frame::read(&bytes[start + frame::PREFIX..start + length]) {
                    Ok(message) => messages.push(message),
                    Err(error) => break Err(error),
                }
                start += length;
            }
            Ok(_) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    bytes.drain(..start);
    give_back(bytes);
    parsed
}

/// One large message is no reason to keep as much for ever.
fn give_back(bytes: &mut Vec<u8>) {
    if bytes.is_empty() && bytes.capacity() > 4 * ring::LANE as usize {
        *bytes = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use heliostat_proto::message::ToPeer;
    use heliostat_proto::{Blob, Bytes};

    use super::*;

    fn pair() -> (Link, Link) {
        let (near, far) = (Bell::create().unwrap(), Bell::create().unwrap());
        let [one, two] = introduce(&near, &far).unwrap();
        (
            Link::open(Side::Near, one.try_into().unwrap()).unwrap(),
            Link::open(Side::Far, two.try_into().unwrap()).unwrap(),
        )
    }

    fn define(index: u32, length: usize) -> ToPeer {
        let mut function = [0; 32];
        function[..4].copy_from_slice(&index.to_le_bytes());
        ToPeer::Define { function, blob: Blob::Inline(Bytes::new(vec![index as u8; length])) }
    }

    #[test]
    fn messages_longer_than_the_ring_cross_whole_and_in_order() {
        let (near, far) = pair();
        let lengths = [10, 200_000, 0, 70_000, 65_536, 1_000_000, 3];
        let mut waiting = false;
        for (index, length) in lengths.iter().enumerate() {
            waiting |= near.send(&define(index as u32, *length)).unwrap() == Sent::Waiting;
        }
        assert!(waiting, "more than a megabyte does not fit into the ring");
        let mut got = Vec::new();
        while got.len() < lengths.len() {
            assert!(far.has_news());
            far.receive(|messages: Vec<ToPeer>| got.extend(messages)).unwrap();
            near.flush().unwrap();
        }
        let sent: Vec<ToPeer> =
            lengths.iter().enumerate().map(|(index, length)| define(index as u32, *length)).collect();
        assert!(got == sent && !far.has_news());
    }

    #[test]
    fn bytes_that_are_no_message_are_refused() {
        let (near, far) = pair();
        lock(&near.sending).writer.write(&[9, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255]).unwrap();
        assert!(matches!(far.receive(|_: Vec<ToPeer>| ()), Err(LinkError::Frame(_))));
    }

    #[test]
    fn what_came_before_an_error_is_taken_once() {
        let (near, far) = pair();
        near.send(&define(1, 10)).unwrap();
        near.send(&define(2, 10)).unwrap();
        lock(&near.sending).writer.write(&[1, 0, 0, 0, 255]).unwrap();
        near.send(&define(3, 10)).unwrap();
        let mut got = Vec::new();
        for _ in 0..2 {
            assert!(matches!(far.receive(|messages: Vec<ToPeer>| got.extend(messages)), Err(LinkError::Frame(_))));
        }
        assert_eq!(got, [define(1, 10), define(2, 10)]);
    }
}
