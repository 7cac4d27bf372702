//! Lines of workers on this process's standard output and error, written by a thread of their own: neither a busy
//! JavaScript thread nor a slow reader of the terminal holds anything else up.

use std::io::Write;
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use heliostat_proto::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// What a worker wrote.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) stream: u8,
    pub(crate) name: String,
    pub(crate) pid: u32,
    pub(crate) lines: Bytes,
}

/// The thread; it ends when the sender goes and all was written.
#[derive(Debug)]
pub(crate) struct Printer {
    sender: Sender<Output>,
    thread: JoinHandle<()>,
}

impl Printer {
    pub(crate) fn start() -> std::io::Result<Self> {
        let (sender, receiver) = channel();
        let thread = std::thread::Builder::new().name("heliostat-output".into()).spawn(move || run(&receiver))?;
        Ok(Self { sender, thread })
    }

    pub(crate) fn print(&self, output: Output) {
        // The thread only ends after this sender.
        let _ = self.sender.send(output);
    }

    /// Returns after everything was written.
    pub(crate) fn finish(self) {
        drop(self.sender);
        let _ = self.thread.join();
    }
}

fn run(receiver: &Receiver<Output>) {
    while let Ok(output) = receiver.recv() {
        let text = prefixed(&output);
        if output.stream == 2 {
            write_all(std::io::stderr().as_fd(), &text);
        } else {
            // Whatever this process buffered itself comes first.
            let _ = std::io::stdout().flush();
            write_all(std::io::stdout().as_fd(), &text);
        }
    }
}

/// `(name pid=123) line` for every line.
fn prefixed(output: &Output) -> Vec<u8> {
    // Before its first task a worker's lines have no other name.
    let name = if output.name.is_empty() { "worker" } else { &output.name };
    let prefix = format!("({name} pid={}) ", output.pid);
    let mut text = Vec::with_capacity(output.lines.len() + prefix.len());
    for line in output.lines.split_inclusive(|byte| *byte == b'\n') {
        text.extend_from_slice(prefix.as_bytes());
        text.extend_from_slice(line);
        if line.last() != Some(&b'\n') {
            text.push(b'\n');
        }
    }
    text
}

/// Node makes its standard streams non-blocking: wait for room instead of losing lines. A closed reader ends it.
fn write_all(fd: std::os::fd::BorrowedFd<'_>, mut text: &[u8]) {
    while !text.is_empty() {
        match rustix::io::write(fd, text) {
            Ok(count) => text = &text[count..],
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::new(&fd, PollFlags::OUT)];
                let _ = poll(&mut fds, Some(&Timespec { tv_sec: 1, tv_nsec: 0 }));
            }
            Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_says_who_wrote_it() {
        let output = Output { stream: 1, name: "echo".into(), pid: 9792, lines: Bytes::new(*b"a\n\nb") };
        assert_eq!(
            String::from_utf8(prefixed(&output)).unwrap(),
            "(echo pid=9792) a\n(echo pid=9792) \n(echo pid=9792) b\n"
        );
    }

    #[test]
    fn a_full_pipe_loses_nothing() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        rustix::io::ioctl_fionbio(&write, true).unwrap();
        let text = vec![b'x'; 1 << 20];
        let writer = std::thread::spawn(move || write_all(write.as_fd(), &text));
        let (mut total, mut buffer) = (0, vec![0; 65536]);
        loop {
            match rustix::io::read(&read, &mut buffer[..]).unwrap() {
                0 => break,
                count => total += count,
            }
        }
        writer.join().unwrap();
        assert_eq!(total, 1 << 20);
    }
}
