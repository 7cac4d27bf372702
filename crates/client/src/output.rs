//! Lines of workers on this process's standard output and error, written by a thread of their own: neither a busy
//! JavaScript thread nor a slow reader of the terminal holds anything else up. The daemon is told what was written, and
//! reads no more of what workers write while much of it is not.

use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use heliostat_proto::Bytes;
use heliostat_proto::message::ToDaemon;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::daemon_end::DaemonEnd;
use crate::fold::{Folder, Line, Shown};

/// Bytes after which the daemon is told at the latest.
const TELL_EACH: u64 = 256 * 1024;

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
    /// `folds`: lines that several workers write alike are counted.
    pub(crate) fn start(daemon: Arc<DaemonEnd>, folds: bool) -> std::io::Result<Self> {
        let (sender, receiver) = channel();
        let printing = Printing { folder: folds.then(Folder::default), started: Instant::now() };
        let run = move || printing.run(&receiver, |bytes| daemon.send(&ToDaemon::Printed { bytes }));
        let thread = std::thread::Builder::new().name("heliostat-output".into()).spawn(run)?;
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

struct Printing {
    folder: Option<Folder>,
    started: Instant,
}

impl Printing {
    fn run(mut self, receiver: &Receiver<Output>, printed: impl Fn(u64)) {
        let mut untold = 0;
        loop {
            // Whenever there is nothing to write, all that was written is told.
            let output = receiver.try_recv().or_else(|_| {
                if untold > 0 {
                    printed(std::mem::take(&mut untold));
                }
                self.wait(receiver)
            });
            match output {
                Ok(output) => {
                    untold += output.lines.len() as u64;
                    self.print(&output);
                    if untold >= TELL_EACH {
                        printed(std::mem::take(&mut untold));
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.show_held(Folder::tick),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.show_held(Folder::finish);
    }

    /// Waits for output, or until something that is held back is due.
    fn wait(&self, receiver: &Receiver<Output>) -> Result<Output, RecvTimeoutError> {
        match self.folder.as_ref().and_then(Folder::due) {
            Some(due) => receiver.recv_timeout(Duration::from_millis(due.saturating_sub(self.now()))),
            None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn show_held(&mut self, which: impl FnOnce(&mut Folder, u64) -> Vec<Shown>) {
        let now = self.now();
        let shown = self.folder.as_mut().map(|folder| which(folder, now));
        write(&shown.unwrap_or_default());
    }

    fn print(&mut self, Output { stream, name, pid, lines }: &Output) {
        let now = self.now();
        let mut shown = Vec::new();
        for text in lines.split_inclusive(|byte| *byte == b'\n') {
            let text = text.strip_suffix(b"\n").unwrap_or(text).to_owned();
            let line = Line { stream: *stream, name: name.clone(), text };
            match &mut self.folder {
                Some(folder) => shown.extend(folder.push(line, *pid, now)),
                None => shown.push(Shown { line, pid: *pid, count: 1 }),
            }
        }
        write(&shown);
    }
}

/// Writes lines, each with who wrote it; those of one stream that follow each other at once.
fn write(shown: &[Shown]) {
    for run in shown.chunk_by(|one, next| one.line.stream == next.line.stream) {
        let text: Vec<u8> = run.iter().flat_map(prefixed).collect();
        if run[0].line.stream == 2 {
            write_all(std::io::stderr().as_fd(), &text);
        } else {
            // Whatever this process buffered itself comes first.
            let _ = std::io::stdout().flush();
            write_all(std::io::stdout().as_fd(), &text);
        }
    }
}

/// `(name pid=123) line`
fn prefixed(Shown { line, pid, count }: &Shown) -> Vec<u8> {
    // Before its first task a worker's lines have no other name.
    let name = if line.name.is_empty() { "worker" } else { &line.name };
    let mut text = format!("({name} pid={pid}) ").into_bytes();
    text.extend_from_slice(&line.text);
    if *count > 1 {
        text.extend_from_slice(format!(" [repeated {count}x across workers]").as_bytes());
    }
    text.push(b'\n');
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
        let shown = |text: &str, count| Shown {
            line: Line { stream: 1, name: "echo".into(), text: text.into() },
            pid: 9792,
            count,
        };
        let text: Vec<u8> = [shown("a", 1), shown("", 1), shown("b", 12)].iter().flat_map(prefixed).collect();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "(echo pid=9792) a\n(echo pid=9792) \n(echo pid=9792) b [repeated 12x across workers]\n"
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
