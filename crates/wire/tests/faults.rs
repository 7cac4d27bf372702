//! Links between real processes that are killed and stopped.
//!
//! The test binary runs itself again for each child, whose standard input is the socket that its link comes through. No
//! one looks at a link without having been rung for: a lost wake-up ends in the watchdog.

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use heliostat_shm::bell::{Bell, Ringer};
use heliostat_shm::ring::Side;
use heliostat_wire::{Channel, Inbox, Link, Sent, introduce, socket_pair};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

type Message = (u64, Vec<u8>);

const ROLE: &str = "HELIOSTAT_LINK_ROLE";
const WATCHDOG: Duration = Duration::from_secs(120);

/// A message that anybody can check, some longer than a ring.
fn message(index: u64) -> Message {
    let words = match index % 50 {
        0 => 25_000,
        1..5 => 2_500,
        rest => rest as usize,
    };
    (index, index.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes().repeat(words))
}

/// Sleeps until somebody rings, and listens again.
fn rung(bell: &Ringer) {
    let mut fds = [PollFd::from_borrowed_fd(bell.at_thread(), PollFlags::IN)];
    let watchdog = Timespec::try_from(WATCHDOG).unwrap();
    assert_eq!(poll(&mut fds, Some(&watchdog)), Ok(1), "nobody rang");
    bell.hush_thread();
    bell.listen();
}

/// Sends what is left of a link's messages before it sleeps.
fn push(link: &Link, bell: &Ringer) {
    while link.flush().unwrap() == Sent::Waiting {
        rung(bell);
    }
}

/// Not a test: what a child does, by its role.
#[test]
#[ignore = "the children of the tests below run this"]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let socket = Channel::new(std::io::stdin().as_fd().try_clone_to_owned().unwrap()).unwrap();
    let mut inbox = Inbox::default();
    while inbox.next::<u32>().unwrap().is_none() {
        let _ = poll(&mut [PollFd::new(&socket, PollFlags::IN)], None);
        socket.receive(&mut inbox).unwrap();
    }
    let bell = Ringer::open(inbox.take_fds().unwrap()).unwrap();
    let link = Link::open(Side::Far, inbox.take_fds().unwrap()).unwrap();
    match role.as_str() {
        "send" => {
            for index in 0.. {
                link.send(&message(index)).unwrap();
                push(&link, &bell);
            }
        }
        "echo" => loop {
            rung(&bell);
            link.receive(|messages: Vec<Message>| {
                for message in messages {
                    link.send(&message).unwrap();
                }
            })
            .unwrap();
            link.flush().unwrap();
        },
        other => panic!("no such role: {other}"),
    }
}

/// A child with a link to it; killed at the end.
struct Other {
    process: Child,
    link: Link,
    next: u64,
}

impl Other {
    fn start(role: &str, bell: &Bell) -> Self {
        let (ours, theirs) = socket_pair().unwrap();
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored", "--nocapture"])
            .env(ROLE, role)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let its_bell = Bell::create().unwrap();
        let [near, far] = introduce(bell, &its_bell).unwrap();
        let fds: Vec<OwnedFd> = its_bell.share().unwrap().into_iter().chain(far).collect();
        Channel::new(ours).unwrap().send(&1_u32, fds).unwrap();
        Self { process, link: Link::open(Side::Near, near.try_into().unwrap()).unwrap(), next: 0 }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Takes what came, which must be the next messages, whole.
    fn take(&mut self) {
        let next = &mut self.next;
        let received = self.link.receive(|messages: Vec<Message>| {
            for got in messages {
                assert!(got == message(*next), "instead of message {next}: {}, {} bytes", got.0, got.1.len());
                *next += 1;
            }
        });
        received.unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Numbers from a seed (Marsaglia's xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn a_writer_killed_anywhere_leaves_whole_messages_and_other_links_alone() {
    let seed = number("HELIOSTAT_SEED", 1);
    let mut random = Random(seed | 1);
    let bell = Bell::create().unwrap();
    let ear = Ringer::open(bell.share().unwrap()).unwrap();
    let mut friend = Other::start("echo", &bell);
    let (mut sent, mut under_way) = (0, 0);
    for _ in 0..number("HELIOSTAT_KILLS", 20) {
        let mut victim = Other::start("send", &bell);
        let until = random.below(300);
        while victim.next < until {
            rung(&ear);
            victim.take();
            friend.take();
            friend.link.flush().unwrap();
        }
        // Somewhere within its next messages.
        let pause = Instant::now() + Duration::from_micros(random.below(1000));
        while Instant::now() < pause {
            std::hint::spin_loop();
        }
        victim.process.kill().unwrap();
        victim.process.wait().unwrap();
        under_way += u32::from(victim.link.has_news());
        victim.take();
        assert!(!victim.link.has_news());
        // Whom nobody reads any more does not block either.
        for index in 0..20 {
            victim.link.send(&message(index)).unwrap();
        }
        drop(victim);
        friend.link.send(&message(sent)).unwrap();
        sent += 1;
        while friend.next < sent {
            rung(&ear);
            friend.take();
            friend.link.flush().unwrap();
        }
    }
    assert!(under_way > 0, "no writer was killed with messages under way: seed {seed}");
}

#[test]
fn a_stopped_reader_holds_nobody_up_and_gets_everything_later() {
    let bell = Bell::create().unwrap();
    let ear = Ringer::open(bell.share().unwrap()).unwrap();
    let mut other = Other::start("echo", &bell);
    let mut sent = 0;
    for _ in 0..3 {
        other.signal(Signal::STOP);
        waitpid(Some(Pid::from_child(&other.process)), WaitOptions::UNTRACED).unwrap();
        let mut waiting = 0;
        for _ in 0..500 {
            // Each of these returns while nobody reads.
            waiting += u64::from(other.link.send(&message(sent)).unwrap() == Sent::Waiting);
            sent += 1;
        }
        assert!(waiting > 400, "three megabytes do not fit into the ring: {waiting}");
        assert_eq!(other.link.flush().unwrap(), Sent::Waiting);
        other.signal(Signal::CONT);
        while other.next < sent {
            rung(&ear);
            other.take();
            other.link.flush().unwrap();
        }
        assert_eq!(other.link.flush().unwrap(), Sent::All);
    }
}
