//! Two processes share an object: one seals it, the other reads the same bytes, without a copy.
//!
//! `cargo run -p heliostat-store --example two_processes`
//!
//! The parent makes the store and serves as its daemon. The child, this program again, gets a seat over a Unix socket
//! (numbers as data, descriptors by `SCM_RIGHTS`), and asks for memory over the same socket.
#![allow(clippy::print_stdout)] // it shows something

use std::error::Error;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use heliostat_proto::{Locator, ObjectId, TaskId, WorkerId};
use heliostat_shm::process::{Identity, ProcessFd};
use heliostat_store::{
    DaemonLink, LeaseError, LeaseGrant, LeaseRequest, LocalLink, SEAT_FDS, Seat, SeatParams, StoreClient, StoreConfig,
    StoreDaemon,
};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What the child sends to the daemon.
#[derive(Serialize, Deserialize)]
enum Request {
    Lease(LeaseRequest),
    Free(Vec<Locator>),
    /// The child has sealed an object, and read the parent's.
    Done(Locator, Vec<u8>),
}

fn id(index: u32) -> ObjectId {
    TaskId::root(WorkerId([1; 16])).object(index)
}

/// A message: its length, then itself.
fn send(mut socket: &UnixStream, message: &impl Serialize) -> Result<()> {
    let body = postcard::to_stdvec(message)?;
    socket.write_all(&(body.len() as u32).to_le_bytes())?;
    Ok(socket.write_all(&body)?)
}

fn receive<T: DeserializeOwned>(mut socket: &UnixStream) -> Result<T> {
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let mut body = vec![0; u32::from_le_bytes(length) as usize];
    socket.read_exact(&mut body)?;
    Ok(postcard::from_bytes(&body)?)
}

fn send_seat(socket: &UnixStream, seat: &Seat) -> Result<()> {
    let fds = seat.fds.each_ref().map(AsFd::as_fd);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SEAT_FDS))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    rights.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(socket, &[IoSlice::new(b"s")], &mut rights, SendFlags::empty())?;
    send(socket, &seat.params)
}

fn receive_seat(socket: &UnixStream) -> Result<Seat> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SEAT_FDS))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    recvmsg(socket, &mut [IoSliceMut::new(&mut [0])], &mut rights, RecvFlags::CMSG_CLOEXEC)?;
    let fds: Vec<OwnedFd> = rights
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    let params: SeatParams = receive(socket)?;
    Ok(Seat::from_parts(params, fds)?)
}

/// The child's way to the daemon.
struct SocketLink(Mutex<UnixStream>);

impl DaemonLink for SocketLink {
    fn lease(&self, request: LeaseRequest) -> std::result::Result<LeaseGrant, LeaseError> {
        let socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = send(&socket, &Request::Lease(request)).and_then(|()| receive(&socket));
        answer.unwrap_or_else(|error| Err(LeaseError::Disconnected { reason: error.to_string() }))
    }

    fn free(&self, locators: &[Locator]) {
        // If the daemon is gone, so is the store.
        let _ = send(&self.0.lock().unwrap_or_else(PoisonError::into_inner), &Request::Free(locators.to_vec()));
    }
}

fn child() -> Result<()> {
    let socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let seat = receive_seat(&socket)?;
    let link = Arc::new(SocketLink(Mutex::new(socket.try_clone()?)));
    let store = StoreClient::attach(seat, link)?;
    let from_parent = store.get(&id(1))?.ok_or("the parent's object is missing")?;
    let sealed = store.put(id(2), b"hello from the child")?;
    send(&socket, &Request::Done(sealed, from_parent.bytes().to_vec()))
}

fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some("child") {
        return child();
    }
    // The store, and a seat in it for this process too.
    let daemon = Arc::new(Mutex::new(StoreDaemon::create(StoreConfig::new(64 << 20))?));
    let lock = || daemon.lock().unwrap_or_else(PoisonError::into_inner);
    let seat = lock().join(Identity::current()?)?;
    let link = LocalLink::new(Arc::clone(&daemon), seat.params.client);
    let store = StoreClient::attach(seat, Arc::new(link))?;
    store.put(id(1), b"hello from the parent")?;

    let (ours, theirs) = UnixStream::pair()?;
    let mut child =
        Command::new(std::env::current_exe()?).arg("child").stdin(Stdio::from(OwnedFd::from(theirs))).spawn()?;
    let who = Identity::of(child.id())?;
    let watch = ProcessFd::open(who)?; // tells of its end, however it ends
    let seat = lock().join(who)?;
    let number = seat.params.client;
    send_seat(&ours, &seat)?;
    drop(seat);
    let locator = loop {
        match receive(&ours)? {
            Request::Lease(request) => {
                let answer = lock().lease(number, request);
                send(&ours, &answer)?;
            }
            Request::Free(locators) => lock().free(&locators),
            Request::Done(locator, read) => {
                println!("the child read {:?}", String::from_utf8_lossy(&read));
                break locator;
            }
        }
    };
    child.wait()?;
    println!("the child has ended: {}", watch.has_ended());
    let reclaimed = lock().client_gone(number);
    println!("the store took back what it had in hand: {reclaimed:?}");
    // What it sealed stays, until its owner frees it.
    let pin = store.pin(&locator)?;
    println!("the parent reads {:?} at {} bytes", String::from_utf8_lossy(&pin), locator.offset);
    Ok(())
}
