//! Random operations of several clients, compared with a plain model after each.
//!
//! A failure prints the seed; `HELIOSTAT_SEED` runs one again, `HELIOSTAT_CASES` says how many cases to run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use heliostat_proto::{Locator, ObjectId, TaskId, WorkerId};
use heliostat_shm::process::Identity;
use heliostat_store::{
    BeginRestoreError, Content, CreateError, Draft, Layout, LeaseError, LocalLink, PAGE, Pin, PinError, Restore,
    Spilled, StoreClient, StoreConfig, StoreDaemon, Target, UNIT,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

const CLIENTS: usize = 3;
const CAPACITY: u64 = 1 << 20;

#[derive(Debug, Clone)]
enum Op {
    /// Client, length, whole pages, owner.
    Create(usize, u64, bool, usize),
    Seal(usize),
    DropDraft(usize),
    /// Client, object.
    Pin(usize, usize),
    Unpin(usize),
    /// Client, object.
    Free(usize, usize),
    /// Frees by a locator of an object that is gone already.
    FreeAgain(usize, usize),
    /// The client's process ends; another takes its place.
    Die(usize),
    Sweep,
    Recall,
    Punch,
    /// Bytes wanted: begins to spill what the daemon finds.
    Spill(u64),
    /// Ends all spills that are under way; whether they were written.
    Spilled(bool),
    /// Object.
    Restore(usize),
    /// Which restore, whether the bytes are good.
    Restored(usize, bool),
}

fn op() -> impl Strategy<Value = Op> {
    let client = 0..CLIENTS;
    let one = 0..64_usize;
    let length = prop_oneof![4 => 0..3_000_u64, 2 => 3_000..70_000_u64, 1 => 70_000..500_000_u64];
    prop_oneof![
        8 => (client.clone(), length, any::<bool>(), client.clone()).prop_map(|(a, b, c, d)| Op::Create(a, b, c, d)),
        8 => one.clone().prop_map(Op::Seal),
        2 => one.clone().prop_map(Op::DropDraft),
        6 => (client.clone(), one.clone()).prop_map(|(a, b)| Op::Pin(a, b)),
        4 => one.clone().prop_map(Op::Unpin),
        5 => (client.clone(), one.clone()).prop_map(|(a, b)| Op::Free(a, b)),
        1 => (client.clone(), one.clone()).prop_map(|(a, b)| Op::FreeAgain(a, b)),
        1 => client.prop_map(Op::Die),
        1 => Just(Op::Sweep),
        1 => Just(Op::Recall),
        1 => Just(Op::Punch),
        4 => (0..400_000_u64).prop_map(Op::Spill),
        4 => prop_oneof![4 => Just(true), 1 => Just(false)].prop_map(Op::Spilled),
        4 => one.clone().prop_map(Op::Restore),
        4 => (one.clone(), any::<u8>()).prop_map(|(a, b)| Op::Restored(a, b > 50)),
    ]
}

struct Object {
    id: ObjectId,
    locator: Locator,
    bytes: Vec<u8>,
    whole_pages: bool,
    owner: u32,
    freed: bool,
    spilled: bool,
}

impl Object {
    fn footprint(&self) -> u64 {
        self.locator.length.next_multiple_of(if self.whole_pages { PAGE } else { UNIT })
    }
}

/// Drafts and pins with the seat that holds them.
struct Machine {
    daemon: Arc<Mutex<StoreDaemon>>,
    clients: Vec<StoreClient>,
    drafts: Vec<(u32, Draft, Object)>,
    pins: Vec<(u32, Pin, u64)>,
    /// Live objects and freed ones that are still pinned, by their number.
    objects: BTreeMap<u64, Object>,
    gone: Vec<Locator>,
    /// Objects whose bytes are being written elsewhere, and those bytes as they are now.
    spilling: Vec<(u64, Locator, Content)>,
    /// Objects that are being brought back.
    restoring: Vec<(u64, Locator, Target)>,
    /// Objects with a copy elsewhere.
    copied: BTreeSet<u64>,
    /// What dead clients had in hand: their destructors never ran.
    graves: Vec<(Vec<Draft>, Vec<Pin>, StoreClient)>,
    next: u32,
}

impl Machine {
    fn new() -> Self {
        let mut config = StoreConfig::new(CAPACITY);
        (config.slots, config.small_lease) = (1 << 10, 16 << 10);
        let daemon = Arc::new(Mutex::new(StoreDaemon::create(config).unwrap()));
        let mut machine = Self {
            daemon,
            clients: Vec::new(),
            drafts: Vec::new(),
            pins: Vec::new(),
            objects: BTreeMap::new(),
            gone: Vec::new(),
            spilling: Vec::new(),
            restoring: Vec::new(),
            copied: BTreeSet::new(),
            graves: Vec::new(),
            next: 0,
        };
        machine.clients = (0..CLIENTS).map(|_| machine.join()).collect();
        machine
    }

    fn daemon(&self) -> MutexGuard<'_, StoreDaemon> {
        self.daemon.lock().unwrap()
    }

    fn join(&self) -> StoreClient {
        let seat = self.daemon().join(Identity::current().unwrap()).unwrap();
        let link = LocalLink::new(Arc::clone(&self.daemon), seat.params.client);
        StoreClient::attach(seat, Arc::new(link)).unwrap()
    }

    fn pick(&self, n: usize, live: bool) -> Option<u64> {
        let found: Vec<u64> = self.objects.iter().filter(|(_, o)| o.freed != live).map(|(number, _)| *number).collect();
        (!found.is_empty()).then(|| found[n % found.len()])
    }

    fn create(&mut self, client: usize, length: u64, whole_pages: bool, owner: usize) -> Result<(), TestCaseError> {
        self.next += 1;
        let id = TaskId::root(WorkerId([7; 16])).object(self.next);
        let whole_pages = (whole_pages || length >= 64 << 10) && length > 0;
        let owner = self.clients[owner].params().client;
        let layout = Layout::new(length).owned_by(owner);
        let layout = if whole_pages { layout.whole_pages() } else { layout };
        let seed = u64::from(self.next);
        match self.clients[client].create(id, layout) {
            Ok(mut draft) => {
                let bytes: Vec<u8> = (0..length).map(|n| ((n * seed) >> 2) as u8).collect();
                draft.bytes_mut().copy_from_slice(&bytes);
                let object =
                    Object { id, locator: *draft.locator(), bytes, whole_pages, owner, freed: false, spilled: false };
                self.drafts.push((self.clients[client].params().client, draft, object));
            }
            Err(CreateError::Lease(LeaseError::Full { requested, .. })) => {
                // Only if it really doesn't fit: all tails were recalled, and what isn't pinned any more was swept.
                self.forget_unpinned();
                let largest = self.daemon().stats().largest_free;
                // A place for whole pages must also begin on one.
                let usable = if whole_pages { largest.saturating_sub(2 * PAGE) } else { largest };
                prop_assert!(usable < requested, "{requested} refused, {largest} free in one piece");
            }
            Err(error) => return Err(TestCaseError::fail(format!("create: {error}"))),
        }
        Ok(())
    }

    /// The daemon took back what was freed and isn't pinned any more.
    fn forget_unpinned(&mut self) {
        let gone = self.objects.iter().filter(|(n, o)| o.freed && !self.is_kept(**n));
        let gone: Vec<u64> = gone.map(|(number, _)| *number).collect();
        for number in gone {
            self.gone.extend(self.objects.remove(&number).map(|object| object.locator));
        }
    }

    /// Whether the memory of a freed object is still needed.
    fn is_kept(&self, number: u64) -> bool {
        self.pins.iter().any(|(_, _, pinned)| *pinned == number)
            || self.spilling.iter().any(|(spilling, ..)| *spilling == number)
            || self.restoring.iter().any(|(restoring, ..)| *restoring == number)
    }

    fn spill(&mut self, bytes: u64) -> Result<(), TestCaseError> {
        let candidates = self.daemon().spill_candidates(bytes, |_| false).unwrap();
        let found: u64 = candidates.iter().map(|candidate| candidate.footprint).sum();
        let numbers: Vec<u64> = candidates.iter().map(|candidate| candidate.id.index().into()).collect();
        for (candidate, number) in candidates.iter().zip(&numbers) {
            let object = &self.objects[number];
            prop_assert!(!object.freed && !object.spilled && !self.is_kept(*number), "{} may not leave", number);
            prop_assert_eq!(
                (candidate.footprint, candidate.copied),
                (object.footprint(), self.copied.contains(number))
            );
        }
        if found < bytes {
            let rest = self.objects.iter().filter(|(n, o)| {
                !numbers.contains(n) && !o.freed && !o.spilled && o.footprint() > 0 && !self.is_kept(**n)
            });
            prop_assert_eq!(rest.count(), 0, "some that could leave were not found");
        }
        for (candidate, number) in candidates.iter().zip(numbers) {
            let content = self.daemon().begin_spill(&candidate.locator).unwrap().unwrap();
            prop_assert!(self.daemon().begin_spill(&candidate.locator).unwrap().is_none(), "it is leaving already");
            self.spilling.push((number, candidate.locator, content));
        }
        Ok(())
    }

    fn end_spills(&mut self, written: bool) -> Result<(), TestCaseError> {
        let all = std::mem::take(&mut self.spilling);
        for (number, _, content) in &all {
            prop_assert!(content.as_ref() == self.objects[number].bytes, "{} changed while it was written", number);
        }
        let objects: Vec<_> = all.iter().map(|(_, locator, _)| (*locator, written)).collect();
        let ends = self.daemon().finish_spill(&objects);
        for ((number, ..), end) in all.into_iter().zip(ends) {
            let pinned = self.pins.iter().any(|(_, _, pinned)| *pinned == number);
            let object = self.objects.get_mut(&number).unwrap();
            if written && !object.freed {
                self.copied.insert(number);
            }
            let copied = self.copied.contains(&number);
            let expected = match (object.freed, copied, pinned) {
                (true, ..) => Spilled::Freed,
                (_, false, _) => Spilled::Failed,
                (_, _, true) => Spilled::Pinned,
                _ => Spilled::Gone,
            };
            object.spilled = expected == Spilled::Gone;
            prop_assert_eq!(end, expected);
        }
        self.forget_unpinned();
        Ok(())
    }

    fn restore(&mut self, n: usize) -> Result<(), TestCaseError> {
        let Some(number) = self.pick(n, true) else { return Ok(()) };
        let locator = self.objects[&number].locator;
        let begun = self.daemon().begin_restore(&locator);
        let under_way = self.restoring.iter().any(|(restoring, ..)| *restoring == number);
        match begun {
            Ok(Restore::Present) => prop_assert!(!self.objects[&number].spilled),
            Ok(Restore::UnderWay) => prop_assert!(under_way),
            Ok(Restore::Into(mut target)) => {
                prop_assert!(self.objects[&number].spilled && !under_way);
                target.as_mut().copy_from_slice(&self.objects[&number].bytes);
                self.restoring.push((number, locator, target));
            }
            Err(BeginRestoreError::Memory(LeaseError::Full { .. })) => self.forget_unpinned(),
            Ok(Restore::IntoFile(_)) => return Err(TestCaseError::fail("there is no file")),
            Err(error) => return Err(TestCaseError::fail(format!("restore: {error}"))),
        }
        Ok(())
    }

    fn end_restore(&mut self, n: usize, good: bool) -> Result<(), TestCaseError> {
        let (number, locator, mut target) = self.restoring.swap_remove(n % self.restoring.len());
        if !good {
            target.as_mut().fill(0xee);
        }
        let there = self.daemon().finish_restore(&locator, good);
        let object = self.objects.get_mut(&number).unwrap();
        prop_assert_eq!(there, good && !object.freed);
        object.spilled = !there;
        if object.freed {
            self.gone.extend(self.objects.remove(&number).map(|object| object.locator));
        }
        Ok(())
    }

    fn free(&mut self, client: usize, number: u64) {
        let object = self.objects.get_mut(&number).unwrap();
        self.clients[client].free(&[object.locator]);
        object.freed = true;
        if !self.is_kept(number) {
            self.gone.extend(self.objects.remove(&number).map(|object| object.locator));
        }
    }

    fn die(&mut self, client: usize) -> Result<(), TestCaseError> {
        let fresh = self.join();
        let dead = std::mem::replace(&mut self.clients[client], fresh);
        let seat = dead.params().client;
        let (lost, drafts) = std::mem::take(&mut self.drafts).into_iter().partition(|(of, ..)| *of == seat);
        let (unpinned, pins) = std::mem::take(&mut self.pins).into_iter().partition(|(of, ..)| *of == seat);
        (self.drafts, self.pins) = (drafts, pins);
        let (lost, unpinned): (Vec<_>, Vec<_>) = (lost, unpinned);
        let reclaimed = self.daemon().client_gone(seat);
        prop_assert_eq!((reclaimed.drafts, reclaimed.pins), (lost.len() as u64, unpinned.len() as u64));
        let drafts = lost.into_iter().map(|(_, draft, _)| draft).collect();
        let pins = unpinned.into_iter().map(|(_, pin, _)| pin).collect();
        self.graves.push((drafts, pins, dead));
        self.forget_unpinned();
        let owned = self.daemon().owned_by(seat).unwrap().len();
        prop_assert_eq!(owned, self.objects.values().filter(|o| !o.freed && o.owner == seat).count());
        Ok(())
    }

    fn apply(&mut self, op: &Op) -> Result<(), TestCaseError> {
        match *op {
            Op::Create(client, length, whole_pages, owner) => self.create(client, length, whole_pages, owner)?,
            Op::Seal(n) if !self.drafts.is_empty() => {
                let (_, draft, object) = self.drafts.swap_remove(n % self.drafts.len());
                prop_assert_eq!(draft.seal().unwrap(), object.locator);
                self.objects.insert(u64::from(object.id.index()), object);
            }
            Op::DropDraft(n) if !self.drafts.is_empty() => {
                drop(self.drafts.swap_remove(n % self.drafts.len()));
            }
            Op::Pin(client, n) => {
                if let Some(number) = self.pick(n, true) {
                    let pin = self.clients[client].pin(&self.objects[&number].locator);
                    if self.objects[&number].spilled {
                        prop_assert!(matches!(pin, Err(PinError::Spilled { .. })), "pinned without memory");
                    } else {
                        self.pins.push((self.clients[client].params().client, pin.unwrap(), number));
                    }
                }
                if let Some(number) = self.pick(n, false) {
                    let freed = self.clients[client].pin(&self.objects[&number].locator);
                    prop_assert!(matches!(freed, Err(PinError::Gone { .. })), "a freed object was pinned");
                }
            }
            Op::Unpin(n) if !self.pins.is_empty() => drop(self.pins.swap_remove(n % self.pins.len())),
            Op::Free(client, n) => {
                if let Some(number) = self.pick(n, true) {
                    self.free(client, number);
                }
            }
            Op::FreeAgain(client, n) if !self.gone.is_empty() => {
                self.clients[client].free(&[self.gone[n % self.gone.len()]]);
            }
            Op::Die(client) => self.die(client)?,
            Op::Sweep => {
                self.daemon().sweep_deferred();
                self.forget_unpinned();
            }
            Op::Recall => drop(self.daemon().recall()),
            Op::Punch => drop(self.daemon().punch(256 << 10).unwrap()),
            Op::Spill(bytes) => self.spill(bytes)?,
            Op::Spilled(written) => self.end_spills(written)?,
            Op::Restore(n) => self.restore(n)?,
            Op::Restored(n, good) if !self.restoring.is_empty() => self.end_restore(n, good)?,
            _ => {}
        }
        Ok(())
    }

    /// The store is what the model says.
    fn check(&mut self) -> Result<(), TestCaseError> {
        let stats = self.daemon().stats();
        if stats.deferred_objects < self.objects.values().filter(|o| o.freed && !o.spilled).count() as u64 {
            self.forget_unpinned(); // swept while memory was short
        }
        prop_assert_eq!((stats.sum(), stats.refused), (CAPACITY, 0), "{:?}", stats);
        prop_assert_eq!(stats.resident, CAPACITY - stats.free_cold, "{:?}", stats);
        let restoring = |number: &u64| self.restoring.iter().any(|(restoring, ..)| restoring == number);
        let in_memory = self.objects.iter().filter(|(number, o)| !o.spilled || restoring(number)).map(|(_, o)| o);
        let in_memory: Vec<&Object> = in_memory.collect();
        let all = || in_memory.iter().copied().chain(self.drafts.iter().map(|(_, _, object)| object));
        let spilled = || self.objects.values().filter(|object| object.spilled);
        let spilled_bytes: u64 = spilled().map(Object::footprint).sum();
        prop_assert_eq!(
            (stats.spilled, stats.spilled_objects),
            (spilled_bytes, spilled().count() as u64),
            "{:?}",
            stats
        );
        let bytes = |whole: bool| all().filter(|o| o.whole_pages == whole).map(Object::footprint).sum::<u64>();
        prop_assert_eq!((stats.small, stats.large), (bytes(false), bytes(true)), "{:?}", stats);
        for object in self.objects.values() {
            let found = self.clients[0].lookup(&object.id).map(|locator| (locator.slot, locator.generation));
            let (slot, generation) = (object.locator.slot, object.locator.generation);
            prop_assert_eq!(found, (!object.freed).then_some((slot, generation)));
        }
        for (_, draft, object) in &self.drafts {
            prop_assert!(!self.clients[0].contains(&object.id) && *draft.locator() == object.locator);
        }
        let dropped = self.daemon().take_dropped();
        for (slot, generation) in dropped {
            let is_it = |number: &u64| match self.objects.get(number) {
                Some(object) => object.freed && (object.locator.slot, object.locator.generation) == (slot, generation),
                None => true,
            };
            let gone = self.copied.iter().copied().find(is_it);
            prop_assert!(
                gone.is_some_and(|number| self.copied.remove(&number)),
                "the copy of a living object was dropped"
            );
        }
        let rest = self.copied.iter().filter(|number| !self.objects.contains_key(number)).count();
        prop_assert_eq!(rest, 0, "the copy of a dead object was not dropped");
        for (_, pin, number) in &self.pins {
            prop_assert!(pin.bytes() == self.objects[number].bytes, "object {} changed", number);
        }
        let held: usize = self.clients.iter().map(StoreClient::held).sum();
        prop_assert_eq!(held, self.drafts.len() + self.pins.len());
        Ok(())
    }

    /// Everything is let go: everything is free again.
    fn end(mut self) -> Result<(), TestCaseError> {
        self.pins.clear();
        self.drafts.clear();
        self.end_spills(true)?;
        let rest: Vec<Locator> = self.objects.values().map(|object| object.locator).collect();
        self.clients[0].free(&rest);
        for (_, locator, _) in std::mem::take(&mut self.restoring) {
            self.daemon().finish_restore(&locator, true);
        }
        self.daemon().sweep_deferred();
        self.daemon().recall();
        let stats = self.daemon().stats();
        prop_assert_eq!((stats.small, stats.large, stats.leased, stats.deferred_objects), (0, 0, 0, 0), "{:?}", stats);
        prop_assert_eq!(stats.largest_free, CAPACITY);
        Ok(())
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn random_operations_do_what_a_plain_model_does() {
    let clock = || std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_nanos() as u64);
    let seed = number("HELIOSTAT_SEED").unwrap_or_else(clock);
    let config = Config {
        cases: number("HELIOSTAT_CASES").unwrap_or(48) as u32,
        failure_persistence: None,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let result = runner.run(&prop::collection::vec(op(), 1..120), |ops| {
        let mut machine = Machine::new();
        for (n, op) in ops.iter().enumerate() {
            machine
                .apply(op)
                .and_then(|()| machine.check())
                .map_err(|error| TestCaseError::fail(format!("operation {n}, {op:?}: {error}")))?;
        }
        machine.end()
    });
    if let Err(error) = result {
        panic!("HELIOSTAT_SEED={seed} fails: {error}");
    }
}
