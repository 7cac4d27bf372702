//! What workers write, in files of the session: `logs/worker-PID.out` and `.err`, written by a thread of their own, since a
//! disk may be slow.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use heliostat_proto::Bytes;

use crate::output::Stream;

/// A file that is longer becomes `….old`, in place of the one before.
const FILE_MAX: u64 = 8 << 20;
/// Files of so many ended workers are kept.
const ENDED_KEPT: usize = 32;
/// More than this is not kept for a disk that does not take it.
const QUEUE_MAX: usize = 16 << 20;

/// Where lines are handed over; nobody waits.
#[derive(Debug, Clone)]
pub(crate) struct Logs {
    sender: Sender<Entry>,
    queued: Arc<AtomicUsize>,
}

#[derive(Debug)]
enum Entry {
    Lines {
        pid: u32,
        stream: Stream,
        lines: Bytes,
        /// Bytes before these that found no room.
        lost: usize,
    },
    Ended(u32),
}

/// The thread's side.
#[derive(Debug)]
pub(crate) struct Writer {
    directory: PathBuf,
    entries: Receiver<Entry>,
    queued: Arc<AtomicUsize>,
}

/// A file that is open, and its bytes.
struct Log {
    file: File,
    bytes: u64,
}

impl Logs {
    pub(crate) fn new(directory: PathBuf) -> (Self, Writer) {
        let (sender, entries) = channel();
        let queued = Arc::<AtomicUsize>::default();
        (Self { sender, queued: Arc::clone(&queued) }, Writer { directory, entries, queued })
    }

    /// Hands lines over. `lost` counts what found no room since the last that did.
    pub(crate) fn write(&self, pid: u32, stream: Stream, lines: &Bytes, lost: &mut usize) {
        if self.queued.load(Ordering::Relaxed) + lines.len() > QUEUE_MAX {
            *lost += lines.len();
            return;
        }
        self.queued.fetch_add(lines.len(), Ordering::Relaxed);
        let lost = std::mem::take(lost);
        // The thread ends after the last that could give it something.
        let _ = self.sender.send(Entry::Lines { pid, stream, lines: lines.clone(), lost });
    }

    /// The worker writes no more.
    pub(crate) fn ended(&self, pid: u32) {
        let _ = self.sender.send(Entry::Ended(pid));
    }
}

impl Writer {
    /// Writes until nobody can give anything any more.
    pub(crate) fn run(self) {
        let mut open: HashMap<(u32, Stream), Option<Log>> = HashMap::new();
        let mut ended = VecDeque::new();
        for entry in &self.entries {
            match entry {
                Entry::Lines { pid, stream, lines, lost } => {
                    self.queued.fetch_sub(lines.len(), Ordering::Relaxed);
                    let path = self.path(pid, stream);
                    let log = open.entry((pid, stream)).or_insert_with(|| Log::open(&path).ok());
                    // A file that cannot be written is given up: the lines are for whoever looks, and the driver has them.
                    let written = log.as_mut().is_none_or(|log| log.write(&path, &lines, lost).is_ok());
                    if !written {
                        *log = None;
                    }
                }
                Entry::Ended(pid) => {
                    open.retain(|(of, _), _| *of != pid);
                    ended.push_back(pid);
                    if ended.len() > ENDED_KEPT
                        && let Some(oldest) = ended.pop_front()
                        && !ended.contains(&oldest)
                    {
                        for path in [Stream::Out, Stream::Err].map(|stream| self.path(oldest, stream)) {
                            // Most workers wrote little.
                            let _ = (fs::remove_file(old(&path)), fs::remove_file(path));
                        }
                    }
                }
            }
        }
    }

    fn path(&self, pid: u32, stream: Stream) -> PathBuf {
        let ending = if stream == Stream::Out { "out" } else { "err" };
        self.directory.join(format!("worker-{pid}.{ending}"))
    }
}

impl Log {
    fn open(path: &Path) -> io::Result<Self> {
        let directory = path.parent().unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { file, bytes })
    }

    fn write(&mut self, path: &Path, lines: &[u8], lost: usize) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + lines.len() as u64 > FILE_MAX {
            fs::rename(path, old(path))?;
            *self = Self::open(path)?;
        }
        if lost > 0 {
            writeln!(self.file, "(heliostat) {lost} bytes are missing here: the disk was too slow")?;
        }
        self.file.write_all(lines)?;
        self.bytes += lines.len() as u64;
        Ok(())
    }
}

fn old(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".old");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(directory: &Path, entries: impl FnOnce(&Logs)) {
        let (logs, writer) = Logs::new(directory.join("logs"));
        let thread = std::thread::spawn(move || writer.run());
        entries(&logs);
        drop(logs);
        thread.join().unwrap();
    }

    #[test]
    fn each_stream_of_a_worker_has_its_file() {
        let temp = tempfile::tempdir().unwrap();
        written(temp.path(), |logs| {
            for (pid, stream, text) in [(1, Stream::Out, "a\n"), (1, Stream::Err, "b\n"), (1, Stream::Out, "c\n")] {
                logs.write(pid, stream, &Bytes::new(text.as_bytes()), &mut 0);
            }
            logs.write(2, Stream::Out, &Bytes::new(*b"d\n"), &mut 7);
        });
        let read = |name: &str| fs::read_to_string(temp.path().join("logs").join(name)).unwrap();
        assert_eq!((read("worker-1.out"), read("worker-1.err")), ("a\nc\n".into(), "b\n".into()));
        assert_eq!(read("worker-2.out"), "(heliostat) 7 bytes are missing here: the disk was too slow\nd\n");
    }

    #[test]
    fn a_worker_that_writes_much_keeps_its_latest_lines() {
        let temp = tempfile::tempdir().unwrap();
        written(temp.path(), |logs| {
            for round in 0..40_u8 {
                let lines = Bytes::new(vec![b'a' + round; 1 << 20]);
                // As fast as the disk takes it.
                while logs.queued.load(Ordering::Relaxed) > QUEUE_MAX / 2 {
                    std::thread::yield_now();
                }
                logs.write(1, Stream::Out, &lines, &mut 0);
            }
        });
        let [now, before] =
            ["worker-1.out", "worker-1.out.old"].map(|name| fs::read(temp.path().join("logs").join(name)).unwrap());
        assert!(now.len() as u64 <= FILE_MAX && before.len() as u64 <= FILE_MAX);
        assert_eq!(now.last(), Some(&(b'a' + 39)));
    }

    #[test]
    fn files_of_workers_that_ended_long_ago_go() {
        let temp = tempfile::tempdir().unwrap();
        written(temp.path(), |logs| {
            for pid in 0..40 {
                logs.write(pid, Stream::Out, &Bytes::new(*b"x\n"), &mut 0);
                logs.ended(pid);
            }
        });
        assert_eq!(fs::read_dir(temp.path().join("logs")).unwrap().count(), ENDED_KEPT);
    }

    #[test]
    fn what_a_full_queue_does_not_take_is_counted() {
        let temp = tempfile::tempdir().unwrap();
        let (logs, _writer) = Logs::new(temp.path().to_owned());
        let mut lost = 0;
        for _ in 0..18 {
            logs.write(1, Stream::Out, &Bytes::new(vec![0; 1 << 20]), &mut lost);
        }
        assert_eq!(lost, 2 << 20);
    }
}
