//! A day of mixed sizes, replayed from a seed, and a million objects at once.
//!
//! `HELIOSTAT_SEED` and `HELIOSTAT_DAY` (operations, by default fewer than a day's) replay others.
#![allow(clippy::print_stdout)] // figures

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use heliostat_proto::{Locator, ObjectId, TaskId, WorkerId};
use heliostat_shm::process::Identity;
use heliostat_store::{CreateError, Layout, LeaseError, LocalLink, StoreClient, StoreConfig, StoreDaemon};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A xorshift generator: the same numbers from the same seed, everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Uniform in the logarithm: as many between 1 and 10 as between 10 and 100.
    fn spread(&mut self, from: u64, to: u64) -> u64 {
        let part = self.below(1 << 20) as f64 / f64::from(1 << 20);
        (from as f64 * (to as f64 / from as f64).powf(part)) as u64
    }
}

fn join(daemon: &Arc<Mutex<StoreDaemon>>) -> StoreClient {
    let seat = daemon.lock().unwrap().join(Identity::current().unwrap()).unwrap();
    let link = LocalLink::new(Arc::clone(daemon), seat.params.client);
    StoreClient::attach(seat, Arc::new(link)).unwrap()
}

fn id(n: u64) -> ObjectId {
    TaskId::root(WorkerId([4; 16])).child(0, n >> 31).object((n & 0x7fff_ffff) as u32)
}

/// Objects of some lifetime each, in the order in which they go.
#[derive(Default)]
struct Alive {
    /// By the operation at which they go, in coarse steps.
    until: VecDeque<Vec<Locator>>,
    bytes: u64,
}

const STEP: u64 = 16;

impl Alive {
    fn add(&mut self, locator: Locator, lifetime: u64) {
        let place = (lifetime / STEP) as usize;
        if place >= self.until.len() {
            self.until.resize_with(place + 1, Vec::new);
        }
        self.until[place].push(locator);
        self.bytes += locator.length;
    }

    fn next(&mut self) -> Vec<Locator> {
        let gone = self.until.pop_front().unwrap_or_default();
        self.bytes -= gone.iter().map(|locator| locator.length).sum::<u64>();
        gone
    }
}

/// A store, four processes, and values of 100 bytes to a sixteenth of the store.
struct Day {
    seed: u64,
    daemon: Arc<Mutex<StoreDaemon>>,
    clients: Vec<StoreClient>,
    alive: Alive,
    /// Share of the free bytes that is in one piece: busy hours, then the least that was seen.
    busy: Vec<f64>,
    refused: u64,
}

impl Day {
    const CAPACITY: u64 = 512 << 20;

    fn new(seed: u64) -> Self {
        let mut config = StoreConfig::new(Self::CAPACITY);
        config.slots = 1 << 18;
        let daemon = Arc::new(Mutex::new(StoreDaemon::create(config).unwrap()));
        let clients = (0..4).map(|_| join(&daemon)).collect();
        Self { seed, daemon, clients, alive: Alive::default(), busy: Vec::new(), refused: 0 }
    }

    /// Values come and go, at up to three quarters of the store; a process is replaced now and then. Four of five live for
    /// less than 200 operations, most others for up to 5,000, some 400 of up to a MiB for the day.
    fn work(&mut self, operations: u64) {
        let mut random = Random(self.seed | 1);
        for n in 0..operations {
            if n % STEP == 0 {
                self.clients[0].free(&self.alive.next());
            }
            let length = match random.below(10) {
                0..6 => random.spread(100, 10_000),
                6..9 => random.spread(10_000, 1 << 20),
                _ => random.spread(1 << 20, Self::CAPACITY / 16),
            };
            let lifetime = match random.below(operations) {
                0..400 if length <= 1 << 20 => 2 * operations,
                n if n < operations / 5 => random.spread(200, 5_000),
                _ => random.below(200),
            };
            if self.alive.bytes + length <= Self::CAPACITY / 4 * 3 {
                match self.clients[random.below(4) as usize].create(id(n), Layout::new(length)) {
                    Ok(draft) => self.alive.add(draft.seal().unwrap(), lifetime),
                    Err(CreateError::Lease(LeaseError::Full { .. })) => self.refused += 1,
                    Err(error) => panic!("HELIOSTAT_SEED={}, operation {n}: {error}", self.seed),
                }
            }
            if random.below(5_000) == 0 {
                let fresh = join(&self.daemon);
                let gone = std::mem::replace(&mut self.clients[random.below(4) as usize], fresh);
                let number = gone.params().client;
                drop(gone);
                self.daemon.lock().unwrap().client_gone(number);
            }
            if n % 1_000 == 999 {
                let share = self.share();
                self.busy.push(share);
            }
        }
    }

    /// The share of the free bytes that is in one piece.
    fn share(&self) -> f64 {
        let stats = self.daemon.lock().unwrap().stats();
        assert_eq!((stats.sum(), stats.refused), (stats.capacity, 0), "HELIOSTAT_SEED={}", self.seed);
        stats.largest_free as f64 / (stats.free_warm + stats.free_cold) as f64
    }
}

#[test]
fn a_day_of_mixed_sizes_leaves_half_of_the_free_bytes_in_one_piece() {
    let (seed, operations) = (number("HELIOSTAT_SEED", 20_250_101), number("HELIOSTAT_DAY", 30_000));
    let mut day = Day::new(seed);
    day.work(operations);
    // In the evening what doesn't live for the day goes.
    for _ in 0..=5_000 / STEP {
        day.clients[0].free(&day.alive.next());
    }
    day.daemon.lock().unwrap().recall();
    let (share, stats) = (day.share(), day.daemon.lock().unwrap().stats());
    day.busy.sort_by(f64::total_cmp);
    println!(
        "seed {seed}, {operations} operations: {} of {} MiB stay in use, {share:.2} of the free bytes in one piece; by day \
         {:.2} at the median; {} refused although a quarter of the store was free",
        (stats.small + stats.large) >> 20,
        stats.capacity >> 20,
        day.busy[day.busy.len() / 2],
        day.refused,
    );
    assert!(share >= 0.5, "HELIOSTAT_SEED={seed}: {} bytes in one piece, {stats:?}", stats.largest_free);
}

fn count(directory: &str) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

#[test]
fn a_million_objects_take_few_mappings_and_descriptors() {
    let (maps, fds) = (mappings(), count("/proc/self/fd"));
    let daemon = Arc::new(Mutex::new(StoreDaemon::create(StoreConfig::new(256 << 20)).unwrap()));
    let (writer, reader) = (join(&daemon), join(&daemon));
    let all: Vec<Locator> = (0..1_000_000).map(|n| writer.put(id(n), &n.to_le_bytes()).unwrap()).collect();
    let pins: Vec<_> = all.iter().step_by(10).map(|locator| reader.pin(locator).unwrap()).collect();
    for (n, pin) in pins.iter().enumerate() {
        assert_eq!(pin.bytes(), (n as u64 * 10).to_le_bytes());
    }
    for n in (0..1_000_000).step_by(997) {
        assert_eq!(reader.lookup(&id(n)), Some(all[n as usize]));
    }
    let (maps, fds) = (mappings() - maps, count("/proc/self/fd") - fds);
    println!("a million objects, {} pinned: {maps} more mappings, {fds} more descriptors", pins.len());
    assert!(maps < 100 && fds < 1_000, "{maps} mappings, {fds} descriptors");
    drop(pins);
    writer.free(&all);
    let stats = daemon.lock().unwrap().stats();
    assert_eq!((stats.small, stats.large, stats.deferred_objects), (0, 0, 0));
}
