//! `bench DIR [MIB]`: objects of 64 MiB out to DIR and back, beside what the disk gives in the same run to plain direct I/O
//! with as many threads.
#![allow(clippy::print_stdout)] // figures

use std::error::Error;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::mpsc;
use std::time::Instant;

use bytes::Bytes;
use heliostat_proto::ObjectId;
use heliostat_spill::{Config, Engine, Key, Session};
use rustix::fs::{Mode, OFlags};

const OBJECT: usize = 64 << 20;
const PIECE: usize = 8 << 20;
const THREADS: usize = 4;

/// Memory that begins at a page.
struct Pages(Vec<u8>, usize, usize);

impl Pages {
    fn new(length: usize) -> Self {
        let bytes = vec![0; length + 4096];
        let start = bytes.as_ptr().align_offset(4096);
        Self(bytes, start, length)
    }
}

impl AsRef<[u8]> for Pages {
    fn as_ref(&self) -> &[u8] {
        &self.0[self.1..][..self.2]
    }
}

impl AsMut<[u8]> for Pages {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0[self.1..][..self.2]
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("usage: bench DIR [MIB]")?;
    let count = arguments.next().map_or(Ok(1024), |text| text.parse::<usize>())? / 64;
    let objects: Vec<Bytes> = (0..count).map(|number| Bytes::from_owner(filled(number as u64))).collect();
    let bytes = count * OBJECT;

    let plain_out = plain(&dir, &objects, bytes, true)?;
    let plain_back = plain(&dir, &objects, bytes, false)?;

    let engine = Engine::open(Config { max_io_workers: THREADS, ..Config::new([dir], Session::random()?) })?;
    let key = |number: usize| Key { id: ObjectId([number as u8; 28]), generation: 0 };
    let (done, results) = mpsc::channel();
    let begun = Instant::now();
    for (number, object) in objects.iter().enumerate() {
        let done = done.clone();
        engine.spill(key(number), object.clone(), move |result| drop(done.send(result)));
    }
    engine.flush();
    results.iter().take(count).collect::<Result<Vec<_>, _>>()?;
    let out = report("spill", bytes, begun);

    let (done, results) = mpsc::channel();
    // Touched beforehand, as the store's pages are: fresh memory is slower than the disk.
    let targets: Vec<Pages> = (0..count).map(|_| touched()).collect();
    let begun = Instant::now();
    for (number, target) in targets.into_iter().enumerate() {
        let done = done.clone();
        engine.restore(&key(number), target, move |target, result| drop(done.send((number, target, result))));
    }
    let mut restored = Vec::new();
    for (number, target, result) in results.iter().take(count) {
        result?;
        restored.push((number, target));
    }
    let back = report("restore", bytes, begun);
    assert!(restored.iter().all(|(number, target)| objects[*number] == target.as_ref()), "the same bytes came back");
    println!("of the disk: {:.0} % out, {:.0} % back", 100.0 * out / plain_out, 100.0 * back / plain_back);
    println!("{:?}", engine.stats());
    Ok(())
}

fn filled(seed: u64) -> Pages {
    let mut pages = Pages::new(OBJECT);
    let mut state = seed | 1;
    for word in pages.as_mut().chunks_exact_mut(8) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        word.copy_from_slice(&state.to_le_bytes());
    }
    pages
}

fn touched() -> Pages {
    let mut pages = Pages::new(OBJECT);
    pages.as_mut().fill(1);
    pages
}

fn report(what: &str, bytes: usize, begun: Instant) -> f64 {
    let rate = bytes as f64 / begun.elapsed().as_secs_f64() / 1e9;
    println!("{what:<12} {rate:.2} GB/s");
    rate
}

/// Each object as a file of its own, in pieces, and nothing else.
fn plain(dir: &str, objects: &[Bytes], bytes: usize, write: bool) -> Result<f64, Box<dyn Error>> {
    let paths: Vec<_> = (0..objects.len()).map(|number| Path::new(dir).join(format!("plain-{number}"))).collect();
    let mut buffers: Vec<Pages> = if write { Vec::new() } else { objects.iter().map(|_| touched()).collect() };
    let flags = if write { OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY } else { OFlags::RDONLY };
    let open = |path: &Path| rustix::fs::open(path, flags | OFlags::DIRECT, Mode::RUSR | Mode::WUSR);
    let files = paths.iter().map(|path| open(path)).collect::<Result<Vec<OwnedFd>, _>>()?;
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let per_thread = objects.len().div_ceil(THREADS);
        let mut threads = Vec::new();
        let mut buffers = buffers.chunks_mut(per_thread);
        for (files, objects) in files.chunks(per_thread).zip(objects.chunks(per_thread)) {
            let buffers = buffers.next();
            threads.push(scope.spawn(move || -> rustix::io::Result<()> {
                let mut buffers = buffers.into_iter().flatten();
                for (file, object) in files.iter().zip(objects) {
                    let mut buffer = buffers.next();
                    for offset in (0..OBJECT).step_by(PIECE) {
                        let count = match &mut buffer {
                            Some(buffer) => {
                                rustix::io::pread(file, &mut buffer.as_mut()[offset..][..PIECE], offset as u64)?
                            }
                            None => rustix::io::pwrite(file, &object[offset..][..PIECE], offset as u64)?,
                        };
                        assert_eq!(count, PIECE);
                    }
                }
                Ok(())
            }));
        }
        threads.into_iter().try_for_each(|thread| thread.join().expect("it does not panic"))
    })?;
    let rate = report(if write { "plain write" } else { "plain read" }, bytes, begun);
    if !write {
        paths.iter().try_for_each(std::fs::remove_file)?;
    }
    Ok(rate)
}
