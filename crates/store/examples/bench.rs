//! What the store costs: a table, then one line of JSON. All ratios are within the run.
//!
//! `cargo run --release -p heliostat-store --example bench`; `HELIOSTAT_ROUNDS` (by default 7) of which the median counts.
#![allow(clippy::print_stdout)] // figures

use std::error::Error;
use std::fmt::Write;
use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use heliostat_proto::{Locator, ObjectId, TaskId, WorkerId};
use heliostat_shm::memfd::Memfd;
use heliostat_shm::process::Identity;
use heliostat_store::{Layout, LocalLink, StoreClient, StoreConfig, StoreDaemon};

const LARGE: usize = 100_000_000;
const SMALL: usize = 10_000;

fn store(capacity: u64) -> Result<StoreClient, Box<dyn Error>> {
    let mut daemon = StoreDaemon::create(StoreConfig::new(capacity))?;
    let seat = daemon.join(Identity::current()?)?;
    let link = LocalLink::new(Arc::new(Mutex::new(daemon)), seat.params.client);
    Ok(StoreClient::attach(seat, Arc::new(link))?)
}

fn id(n: usize) -> ObjectId {
    TaskId::root(WorkerId([5; 16])).object(n as u32)
}

/// Seconds that something takes.
fn time<R>(run: impl FnOnce() -> R) -> (f64, R) {
    let start = Instant::now();
    let result = run();
    (start.elapsed().as_secs_f64(), result)
}

/// The named figures of each round; the median of each at the end.
#[derive(Default)]
struct Figures(Vec<(&'static str, &'static str, Vec<f64>)>);

impl Figures {
    fn add(&mut self, name: &'static str, unit: &'static str, value: f64) {
        match self.0.iter_mut().find(|(known, ..)| *known == name) {
            Some((_, _, values)) => values.push(value),
            None => self.0.push((name, unit, vec![value])),
        }
    }

    fn print(mut self) {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().unwrap_or("0");
        println!("| | median | best | worst | |\n|---|---|---|---|---|");
        let mut json = format!("{{\"load\":{load}");
        for (name, unit, values) in &mut self.0 {
            values.sort_by(f64::total_cmp);
            let (median, first, last) = (values[values.len() / 2], values[0], values[values.len() - 1]);
            println!("| {name} | {median:.3} | {first:.3} | {last:.3} | {unit} |");
            write!(json, ",\"{}\":{median:.4}", name.replace([' ', ','], "_"))
                .expect("strings take all that is written");
        }
        println!("{json}}}");
    }
}

/// Puts, gets and deletes of 1 KiB by one client: microseconds for each.
fn small(figures: &mut Figures) -> Result<(), Box<dyn Error>> {
    let bytes = vec![7; 1024];
    // A process that also does something else: 5 us of it between two puts, which aren't counted.
    for name in ["put 1 KiB, fresh, paced", "put 1 KiB, fresh, paced, prepared in the background"] {
        let client = store(1 << 30)?;
        if name.ends_with("background") {
            client.prefault_in_background()?;
        }
        let mut sum = 0.0;
        for n in 0..SMALL {
            let (seconds, result) = time(|| client.put(id(n), &bytes));
            result?;
            sum += seconds;
            let pause = Instant::now();
            while pause.elapsed().as_nanos() < 5_000 {
                std::hint::spin_loop();
            }
        }
        figures.add(name, "us", sum * 1e6 / SMALL as f64);
    }
    let client = store(1 << 30)?;
    // Half of a round each: memory that is used for the first time, and memory that was used before.
    for name in ["put 1 KiB, fresh", "put 1 KiB"] {
        let (seconds, all) = time(|| (0..SMALL).map(|n| client.put(id(n), &bytes)).collect::<Result<Vec<_>, _>>());
        figures.add(name, "us", seconds * 1e6 / SMALL as f64);
        let all = all?;
        if name == "put 1 KiB" {
            let get = |locators: &[Locator]| -> Result<(), Box<dyn Error>> {
                for locator in locators {
                    black_box(client.pin(locator)?.bytes().first());
                }
                Ok(())
            };
            let (seconds, result) = time(|| get(&all));
            result?;
            figures.add("get 1 KiB", "us", seconds * 1e6 / SMALL as f64);
            let (seconds, found) = time(|| (0..SMALL).filter(|n| client.contains(&id(*n))).count());
            figures.add("lookup by id", "us", seconds * 1e6 / found as f64);
        }
        let (seconds, ()) = time(|| all.chunks(64).for_each(|batch| client.free(batch)));
        figures.add("delete, 64 at a time", "us", seconds * 1e6 / SMALL as f64);
    }
    let locators: Vec<Locator> = (0..64).map(|n| client.put(id(n), &bytes)).collect::<Result<_, _>>()?;
    let (seconds, ()) = time(|| locators.iter().for_each(|locator| client.free(&[*locator])));
    figures.add("delete, one by one", "us", seconds * 1e6 / locators.len() as f64);
    for (name, length) in [("get 1 KiB again", 1 << 10), ("get 1 MiB again", 1 << 20), ("get 256 MiB again", 256 << 20)]
    {
        let locator = client.create(id(1), Layout::new(length))?.seal()?;
        let (seconds, ()) = time(|| (0..SMALL).for_each(|_| drop(black_box(client.pin(&locator)))));
        figures.add(name, "us", seconds * 1e6 / SMALL as f64);
        client.free(&[locator]);
    }
    Ok(())
}

/// Puts of 100 MB beside what the machine does at its best: GB/s, and the shares of those.
fn large(figures: &mut Figures, source: &[u8], warm: &mut [u8]) -> Result<(), Box<dyn Error>> {
    let rate = |seconds: f64| LARGE as f64 / seconds / 1e9;
    let file = Memfd::create("bench", LARGE as u64)?;
    let (write, result) = time(|| file.write_at(0, source));
    result?;
    drop(file);
    let client = store(256 << 20)?;
    let (fresh, result) = time(|| client.put(id(1), source));
    client.free(&[result?]);
    let (second, result) = time(|| client.put(id(2), source));
    client.free(&[result?]);
    figures.add("write() of 100 MB into a fresh memfd", "GB/s", rate(write));
    figures.add("put of 100 MB into fresh memory", "GB/s", rate(fresh));
    figures.add("put of 100 MB, the second time", "GB/s", rate(second));
    figures.add("put into fresh memory over write()", "", write / fresh);
    for _ in 0..3 {
        let (copy, ()) = time(|| black_box(&mut *warm).copy_from_slice(black_box(source)));
        let (put, result) = time(|| client.put(id(3), source));
        client.free(&[result?]);
        figures.add("memcpy of 100 MB into warm memory", "GB/s", rate(copy));
        figures.add("put of 100 MB into warm memory", "GB/s", rate(put));
        figures.add("put into warm memory over memcpy", "", copy / put);
    }
    // The same by filling a draft: each page costs a fault the first time.
    let client = store(256 << 20)?;
    for name in ["draft of 100 MB, fresh", "draft of 100 MB, warm"] {
        let (seconds, result) = time(|| -> Result<Locator, Box<dyn Error>> {
            let mut draft = client.create(id(4), Layout::new(LARGE as u64))?;
            draft.bytes_mut().copy_from_slice(source);
            Ok(draft.seal()?)
        });
        client.free(&[result?]);
        figures.add(name, "GB/s", rate(seconds));
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let rounds = std::env::var("HELIOSTAT_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(7);
    let mut figures = Figures::default();
    let (source, mut warm) = (vec![7; LARGE], vec![1; LARGE]);
    for _ in 0..rounds {
        small(&mut figures)?;
        large(&mut figures, &source, &mut warm)?;
    }
    figures.print();
    Ok(())
}
