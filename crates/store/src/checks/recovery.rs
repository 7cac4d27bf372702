//! After every step of every operation: would a recovery of the state as it is now lose or leak anything?
//!
//! A hook before and after each change of a shared word, and around each message, copies the table, all clients' pages
//! and the daemon's private state, ends the client in the copy, and judges the result. One run of an operation checks
//! all its steps, so the work is linear in their number. Five futures are judged at each step: the client dies; the
//! daemon takes all tails of leases back and the client dies; the daemon takes all objects out and the client dies; the
//! daemon rebuilds its allocator from the table, which must change nothing, and the client dies; the daemon spills
//! all objects, the client dies, and they are brought back.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use heliostat_proto::{Locator, ObjectId};
use heliostat_shm::process::Identity;

use super::script::{self, OPERATIONS, SteppedLink, Witness};
use crate::daemon::replica::Forget;
use crate::word::step;
use crate::word::steps::with_hook;
use crate::{LocalLink, PinError, Restore, Spilled, StoreClient, StoreConfig, StoreDaemon};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Future {
    Death,
    RecallThenDeath,
    FreeAllThenDeath,
    RebuildThenDeath,
    SpillThenDeath,
}

/// An object's contents, and whether it must be there.
struct Expected {
    bytes: Vec<u8>,
    must: bool,
}

struct Checker {
    daemon: Arc<Mutex<StoreDaemon>>,
    victim: u32,
    forget: Forget,
    expected: RefCell<BTreeMap<ObjectId, Expected>>,
    steps: Cell<usize>,
    faults: RefCell<Vec<String>>,
}

impl Witness for Rc<Checker> {
    fn may_appear(&self, id: ObjectId, bytes: &[u8]) {
        self.expected.borrow_mut().insert(id, Expected { bytes: bytes.to_vec(), must: false });
    }

    fn must_stay(&self, id: ObjectId, _: &Locator) {
        self.expected.borrow_mut().get_mut(&id).unwrap().must = true;
    }

    fn may_go(&self, id: ObjectId) {
        self.expected.borrow_mut().get_mut(&id).unwrap().must = false;
    }
}

impl Checker {
    /// Judges the state between two steps. While the daemon itself is at work no death is seen: it is at the end of it.
    fn check(&self) {
        let Ok(daemon) = self.daemon.try_lock() else { return };
        self.steps.set(self.steps.get() + 1);
        let futures = [
            Future::Death,
            Future::RecallThenDeath,
            Future::FreeAllThenDeath,
            Future::RebuildThenDeath,
            Future::SpillThenDeath,
        ];
        for future in futures {
            let mut copy = daemon.replica();
            let faults = self.judge(&mut copy, future);
            let at = |fault| format!("step {}, {future:?}: {fault}; slots {:?}", self.steps.get(), copy.describe());
            self.faults.borrow_mut().extend(faults.into_iter().map(at));
        }
    }

    fn judge(&self, copy: &mut StoreDaemon, future: Future) -> Vec<String> {
        let mut spilled = Vec::new();
        match future {
            Future::Death => {}
            Future::RecallThenDeath => drop(copy.recall()),
            Future::FreeAllThenDeath => free_all(copy),
            Future::SpillThenDeath => spilled = spill_all(copy),
            Future::RebuildThenDeath => {
                let rebuilt = copy.rebuild().unwrap();
                if rebuilt.free_before != rebuilt.free_after || rebuilt.refused > 0 {
                    return vec![format!("the table and the allocator disagree: {rebuilt:?}")];
                }
            }
        }
        copy.forget(self.victim, self.forget);
        copy.client_gone(self.victim);
        let mut faults = copy.faults();
        for (locator, bytes) in &spilled {
            match copy.begin_restore(locator) {
                Ok(Restore::Into(mut target)) => target.as_mut().copy_from_slice(bytes),
                other => faults.push(format!("{locator:?} can't be restored: {other:?}")),
            }
            if !copy.finish_restore(locator, true) {
                faults.push(format!("{locator:?} did not come back"));
            }
        }
        let sealed = copy.sealed();
        for (id, _, bytes) in &sealed {
            match self.expected.borrow().get(id) {
                None => faults.push(format!("{id} is visible, unsealed")),
                Some(expected) if expected.bytes != *bytes => faults.push(format!("{id} has other contents")),
                Some(_) => {}
            }
        }
        if future != Future::FreeAllThenDeath {
            for (id, expected) in self.expected.borrow().iter() {
                if expected.must && copy.lookup(id).is_none() {
                    faults.push(format!("{id} is lost"));
                }
            }
        }
        // Then all objects go, and nothing may be left, although the other client lives on.
        free_all(copy);
        copy.end_transfers();
        copy.sweep_deferred();
        copy.recall();
        let stats = copy.stats();
        if (stats.small, stats.large, stats.leased, stats.deferred_objects) != (0, 0, 0, 0)
            || stats.largest_free != stats.capacity
        {
            faults.push(format!("memory leaked: {stats:?}"));
        }
        faults.extend(copy.faults());
        faults
    }
}

fn free_all(copy: &mut StoreDaemon) {
    let all: Vec<Locator> =
        (0..=2).flat_map(|owner| copy.owned_by(owner).unwrap()).map(|(_, locator)| locator).collect();
    copy.free(&all);
}

/// Spills what can be; gives it with its contents.
fn spill_all(copy: &mut StoreDaemon) -> Vec<(Locator, Vec<u8>)> {
    let all = copy.spill_candidates(u64::MAX, |_| false).unwrap();
    let begun: Vec<_> = all
        .iter()
        .filter_map(|one| Some((one.locator, copy.begin_spill(&one.locator).unwrap()?.as_ref().to_vec())))
        .collect();
    let ends = copy.finish_spill(&begun.iter().map(|(locator, _)| (*locator, true)).collect::<Vec<_>>());
    begun.into_iter().zip(ends).filter(|(_, end)| *end == Spilled::Gone).map(|(one, _)| one).collect()
}

/// Objects leave and come back, are read and freed at every moment of it.
fn spill(client: &StoreClient, daemon: &Mutex<StoreDaemon>, witness: &dyn Witness) {
    let lock = || daemon.lock().unwrap();
    let put = |seed: u32, length: u64| {
        let bytes = script::content(seed, length);
        witness.may_appear(script::id(seed), &bytes);
        let locator = client.put(script::id(seed), &bytes).unwrap();
        witness.must_stay(script::id(seed), &locator);
        (locator, bytes)
    };
    let free = |seed: u32, locator: Locator| {
        witness.may_go(script::id(seed));
        step();
        client.free(&[locator]);
        step();
    };
    for (seed, length) in [(70, 900), (74, 70_000)] {
        let (locator, bytes) = put(seed, length);
        assert_eq!(lock().begin_spill(&locator).unwrap().unwrap().as_ref(), bytes);
        step();
        let pin = client.pin(&locator).unwrap();
        assert_eq!(lock().finish_spill(&[(locator, true)]), [Spilled::Pinned]);
        step();
        drop(pin);
        assert_eq!(lock().finish_spill(&[(locator, false)]), [Spilled::Gone], "it was written before");
        step();
        assert_eq!(client.pin(&locator).unwrap_err(), PinError::Spilled { locator });
        let other = put(seed + 1, length); // takes the place
        let Restore::Into(mut target) = lock().begin_restore(&locator).unwrap() else { panic!("it has no memory") };
        step();
        target.as_mut().copy_from_slice(&bytes);
        step();
        assert!(lock().finish_restore(&locator, true));
        step();
        assert_eq!(client.pin(&locator).unwrap().bytes(), bytes);
        assert_eq!(client.pin(&other.0).unwrap().bytes(), other.1);
        // Freed while it is spilled, and while it is brought back; the other one while it is written.
        assert_eq!(lock().finish_spill(&[(locator, false)]), [Spilled::Gone]);
        if seed == 70 {
            assert!(matches!(lock().begin_restore(&locator), Ok(Restore::Into(_))));
            step();
        }
        free(seed, locator);
        assert!(!lock().finish_restore(&locator, true));
        let content = lock().begin_spill(&other.0).unwrap().unwrap();
        free(seed + 1, other.0);
        assert_eq!(content.as_ref(), other.1);
        assert_eq!(lock().finish_spill(&[(other.0, true)]), [Spilled::Freed]);
        step();
    }
}

/// Runs an operation under the checker; gives the number of steps and what was wrong.
fn check(operation: &str, forget: Forget) -> (usize, Vec<String>) {
    let mut config = StoreConfig::new(1 << 20);
    (config.slots, config.holds, config.small_lease) = (64, 32, 4096);
    let daemon = Arc::new(Mutex::new(StoreDaemon::create(config).unwrap()));
    let join = || daemon.lock().unwrap().join(Identity::current().unwrap()).unwrap();
    let _other = join();
    let seat = join();
    let victim = seat.params.client;
    let link = SteppedLink::new(LocalLink::new(Arc::clone(&daemon), victim));
    let client = StoreClient::attach(seat, link.clone()).unwrap();
    let checker = Rc::new(Checker {
        daemon,
        victim,
        forget,
        expected: RefCell::default(),
        steps: Cell::new(0),
        faults: RefCell::default(),
    });
    let watched = Rc::clone(&checker);
    with_hook(
        move || watched.check(),
        || match operation {
            "spilled" => spill(&client, &checker.daemon, &checker),
            _ => script::run(operation, &client, &link, &checker),
        },
    );
    checker.check();
    (checker.steps.get(), checker.faults.take())
}

#[test]
fn a_death_at_any_step_loses_and_leaks_nothing() {
    for operation in OPERATIONS.into_iter().chain(["spilled"]) {
        let (steps, faults) = check(operation, Forget::Nothing);
        assert!(faults.is_empty(), "{operation}: {} faults in {steps} steps, the first: {}", faults.len(), faults[0]);
        assert!(steps > 20, "{operation}: only {steps} steps were seen");
    }
}

#[test]
fn a_recovery_that_forgets_something_is_found() {
    let mutants = [
        ("small", Forget::Draft),
        ("large", Forget::Draft),
        ("dropped", Forget::Draft),
        ("lost", Forget::Draft),
        ("pins", Forget::Pin),
        ("small", Forget::Operation),
        ("small", Forget::Tail),
        ("spilled", Forget::Restore),
        ("spilled", Forget::Spill),
    ];
    for (operation, forget) in mutants {
        assert!(!check(operation, forget).1.is_empty(), "{forget:?} in {operation} was not found");
    }
}
