//! Random histories of a node against plain bookkeeping.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// One thing that happens; the numbers choose among what is there.
#[derive(Debug, Clone)]
enum Event {
    Ready { env: usize },
    SpawnFailed { env: usize },
    Killed { env: usize },
    Cancelled { env: usize },
    Resume { env: usize },
    Prestart { count: usize, env: usize },
    Request { client: usize, shape: usize, env: usize },
    RequestNested { worker: usize, shape: usize, env: usize },
    Cancel { nth: usize },
    Return { nth: usize },
    Waiting { nth: usize, waiting: bool },
    Gone { nth: usize },
    ClientGone { client: usize },
    Retire { nth: usize },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        5 => (0..2_usize).prop_map(|env| Event::Ready { env }),
        1 => (0..2_usize).prop_map(|env| Event::SpawnFailed { env }),
        1 => (0..2_usize).prop_map(|env| Event::Killed { env }),
        1 => (0..2_usize).prop_map(|env| Event::Cancelled { env }),
        2 => (0..2_usize).prop_map(|env| Event::Resume { env }),
        1 => (0..12_usize, 0..2_usize).prop_map(|(count, env)| Event::Prestart { count, env }),
        6 => (0..3_usize, 0..6_usize, 0..2_usize)
            .prop_map(|(client, shape, env)| Event::Request { client, shape, env }),
        3 => (0..9_usize, 0..6_usize, 0..2_usize)
            .prop_map(|(worker, shape, env)| Event::RequestNested { worker, shape, env }),
        1 => (0..9_usize).prop_map(|nth| Event::Cancel { nth }),
        6 => (0..9_usize).prop_map(|nth| Event::Return { nth }),
        4 => (0..9_usize, any::<bool>()).prop_map(|(nth, waiting)| Event::Waiting { nth, waiting }),
        2 => (0..9_usize).prop_map(|nth| Event::Gone { nth }),
        1 => (0..3_usize).prop_map(|client| Event::ClientGone { client }),
        1 => (0..9_usize).prop_map(|nth| Event::Retire { nth }),
    ]
}

fn shape(index: usize) -> Resources {
    let amounts: &[(&str, f64)] = match index {
        0 => &[("CPU", 1.0)],
        1 => &[("CPU", 2.0)],
        2 => &[("CPU", 0.25)],
        3 => &[],
        4 => &[("CPU", 1.0), ("GPU", 0.5)],
        _ => &[("GPU", 1.0)],
    };
    Resources::new(amounts.iter().map(|(name, amount)| ((*name).to_owned(), *amount)))
}

/// Two environments.
fn env(index: usize) -> EnvId {
    EnvId([(index % 2) as u8; 32])
}

const NAMES: [&str; 2] = ["CPU", "GPU"];

struct Held {
    client: WorkerId,
    worker: WorkerId,
    resources: Resources,
    waiting: bool,
    recalled: bool,
}

/// What an observer of events and actions knows.
struct World {
    schedule: Schedule,
    total: Resources,
    cap: usize,
    starting: BTreeMap<EnvId, usize>,
    paused: BTreeSet<EnvId>,
    /// What each worker that ever was ready was started for.
    envs: BTreeMap<WorkerId, EnvId>,
    idle: BTreeSet<WorkerId>,
    ending: BTreeSet<WorkerId>,
    leases: BTreeMap<u64, Held>,
    pending: BTreeMap<(WorkerId, u64), (Resources, EnvId)>,
    answered: BTreeSet<(WorkerId, u64)>,
    next: u64,
}

impl World {
    fn new() -> Self {
        let total = Resources::new([("CPU".to_owned(), 2.0), ("GPU".to_owned(), 1.0)]);
        let mut world = Self {
            schedule: Schedule::new(&total),
            total,
            cap: 16,
            starting: BTreeMap::new(),
            paused: BTreeSet::new(),
            envs: BTreeMap::new(),
            idle: BTreeSet::new(),
            ending: BTreeSet::new(),
            leases: BTreeMap::new(),
            pending: BTreeMap::new(),
            answered: BTreeSet::new(),
            next: 0,
        };
        let actions = world.schedule.prestart(2, env(0));
        world.apply(actions);
        world
    }

    fn used(&self, name: &str) -> u64 {
        let held = self.leases.values().filter(|held| !(held.waiting && name == "CPU"));
        held.map(|held| held.resources.amount(name)).sum()
    }

    fn apply(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Spawn { env, count } => {
                    assert!(!self.paused.contains(&env), "started during the pause");
                    *self.starting.entry(env).or_default() += count;
                }
                Action::BackOff { env, .. } => drop(self.paused.insert(env)),
                Action::Grant { client, request, lease, worker, .. } => {
                    let (resources, env) = self.pending.remove(&(client, request)).expect("granted what was asked");
                    assert_eq!(self.envs[&worker], env, "a worker of another environment");
                    assert!(self.answered.insert((client, request)), "answered twice");
                    assert!(self.idle.remove(&worker), "a worker is leased that is not idle");
                    assert_ne!(client, worker);
                    let held = Held { client, worker, resources, waiting: false, recalled: false };
                    let wanted = held.resources.clone();
                    assert!(self.leases.insert(lease, held).is_none(), "a lease's name was used again");
                    for (name, _) in wanted.iter() {
                        assert!(self.used(name) <= self.total.amount(name), "granted what is not there: {name}");
                    }
                }
                Action::Refuse { client, request, .. } => {
                    self.pending.remove(&(client, request)).expect("refused what was asked");
                    assert!(self.answered.insert((client, request)), "answered twice");
                }
                Action::Recall { client, lease } => {
                    let held = self.leases.get_mut(&lease).expect("recalled a lease that is held");
                    assert_eq!(held.client, client);
                    assert!(!std::mem::replace(&mut held.recalled, true), "recalled twice");
                }
                Action::Break { client, lease, worker } => {
                    let held = self.leases.remove(&lease).expect("broke a lease that is held");
                    assert!(held.client == client && held.worker == worker);
                }
                Action::Reap { worker } => {
                    self.leases.retain(|_, held| held.worker != worker);
                    self.idle.remove(&worker);
                    assert!(self.ending.insert(worker), "ended twice");
                }
            }
        }
        self.check();
    }

    fn check(&self) {
        let available = self.schedule.available();
        for name in NAMES {
            let expected = self.total.amount(name).saturating_sub(self.used(name));
            assert_eq!(available.amount(name), expected, "{name}");
        }
        let leased: BTreeSet<WorkerId> = self.leases.values().map(|held| held.worker).collect();
        assert_eq!(leased.len(), self.leases.len(), "a worker is leased twice");
        let starting: usize = self.starting.values().sum();
        let processes = starting + self.idle.len() + self.ending.len() + self.leases.len();
        assert!(processes <= self.cap, "{processes} processes");
    }

    fn happen(&mut self, event: &Event) {
        let pick = |nth: usize, len: usize| if len == 0 { None } else { Some(nth % len) };
        let workers: Vec<WorkerId> =
            self.idle.iter().copied().chain(self.leases.values().map(|held| held.worker)).collect();
        match *event {
            Event::Ready { env: nth } => self.ready(env(nth)),
            Event::SpawnFailed { env: nth } if self.begun(env(nth)) => {
                let failure = Failure::new("WORKER_CRASHED", "no");
                let actions = self.schedule.worker_spawn_failed(env(nth), &failure);
                assert!(self.only_refuses(&actions, env(nth)), "a failed start of another environment");
                self.apply(actions);
            }
            Event::Killed { env: nth } if self.begun(env(nth)) => {
                let actions = self.schedule.start_killed(env(nth), &Failure::new("WORKER_CRASHED", "no"));
                self.apply(actions);
            }
            Event::Cancelled { env: nth } if self.begun(env(nth)) => {
                let actions = self.schedule.start_cancelled(env(nth));
                self.apply(actions);
            }
            Event::Resume { env: nth } => self.resume(env(nth)),
            Event::Prestart { count, env: nth } => {
                let actions = self.schedule.prestart(count, env(nth));
                self.apply(actions);
            }
            Event::Request { client, shape, env: nth } => {
                self.request(WorkerId([client as u8 + 1; 16]), shape, env(nth));
            }
            Event::RequestNested { worker, shape, env: of } => {
                if let Some(nth) = pick(worker, workers.len()) {
                    self.request(workers[nth], shape, env(of));
                }
            }
            Event::Cancel { nth } => {
                let Some(key) = self.pending.keys().nth(nth).copied() else { return };
                self.pending.remove(&key);
                let actions = self.schedule.cancel_lease(key.0, key.1);
                self.apply(actions);
            }
            Event::Return { nth } => {
                let Some(lease) = self.leases.keys().nth(nth).copied() else { return };
                self.give_back(lease);
            }
            Event::Waiting { nth, waiting } => {
                let Some(held) = self.leases.values_mut().nth(nth) else { return };
                held.waiting = waiting;
                let worker = held.worker;
                let actions = self.schedule.worker_waiting(worker, waiting);
                self.apply(actions);
            }
            Event::Gone { nth } => {
                let ended: Vec<WorkerId> = self.ending.iter().copied().chain(workers).collect();
                if let Some(nth) = pick(nth, ended.len()) {
                    self.gone(ended[nth]);
                }
            }
            Event::ClientGone { client } => self.client_gone(WorkerId([client as u8 + 1; 16])),
            Event::Retire { nth } => {
                if let Some(nth) = pick(nth, workers.len()) {
                    let actions = self.schedule.retire(workers[nth]);
                    self.apply(actions);
                }
            }
            Event::SpawnFailed { .. } | Event::Killed { .. } | Event::Cancelled { .. } => {}
        }
    }

    /// Whether a start was under way for the environment, which is over now.
    fn begun(&mut self, env: EnvId) -> bool {
        let starting = self.starting.entry(env).or_default();
        let any = *starting > 0;
        *starting = starting.saturating_sub(1);
        any
    }

    fn only_refuses(&self, actions: &[Action], env: EnvId) -> bool {
        actions.iter().all(|action| match action {
            Action::Refuse { client, request, .. } => {
                self.pending.get(&(*client, *request)).is_some_and(|(_, of)| *of == env)
            }
            _ => true,
        })
    }

    fn ready(&mut self, env: EnvId) {
        if !self.begun(env) {
            return;
        }
        self.next += 1;
        let mut id = [0xee; 16];
        id[..8].copy_from_slice(&self.next.to_le_bytes());
        self.paused.remove(&env);
        self.idle.insert(WorkerId(id));
        self.envs.insert(WorkerId(id), env);
        let actions = self.schedule.worker_ready(WorkerId(id), 1, env);
        self.apply(actions);
    }

    fn resume(&mut self, env: EnvId) {
        self.paused.remove(&env);
        let actions = self.schedule.resume_spawning(env);
        self.apply(actions);
    }

    fn request(&mut self, client: WorkerId, index: usize, env: EnvId) {
        self.next += 1;
        self.pending.insert((client, self.next), (shape(index), env));
        let actions = self.schedule.request_lease(client, self.next, &shape(index), env);
        self.apply(actions);
    }

    fn give_back(&mut self, lease: u64) {
        let Some(held) = self.leases.remove(&lease) else { return };
        self.idle.insert(held.worker);
        let actions = self.schedule.return_lease(held.client, lease);
        self.apply(actions);
    }

    fn client_gone(&mut self, client: WorkerId) {
        self.pending.retain(|(asker, _), _| *asker != client);
        let actions = self.schedule.client_gone(client);
        self.apply(actions);
        assert!(self.leases.values().all(|held| held.client != client), "a lease outlives its holder");
    }

    fn gone(&mut self, worker: WorkerId) {
        self.idle.remove(&worker);
        self.ending.remove(&worker);
        let actions = self.schedule.worker_gone(worker);
        self.apply(actions);
        self.client_gone(worker);
    }

    /// Everything that runs ends, starts succeed: until nothing happens any more.
    fn run_dry(&mut self) {
        for _ in 0..10_000 {
            (0..2).for_each(|nth| self.resume(env(nth)));
            let starting = self.starting.iter().find(|(_, count)| **count > 0).map(|(env, _)| *env);
            if let Some(env) = starting {
                self.ready(env);
            } else if let Some(worker) = self.ending.first().copied() {
                self.gone(worker);
            } else if let Some(lease) = self.leases.keys().next().copied() {
                self.give_back(lease);
            } else {
                return;
            }
        }
        panic!("it never ends: {} pending", self.pending.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_request_is_answered_once_and_nothing_is_given_twice(
        events in proptest::collection::vec(event(), 0..150),
    ) {
        let mut world = World::new();
        for event in &events {
            world.happen(event);
        }
        world.run_dry();
        prop_assert!(world.pending.is_empty(), "never answered: {:?}", world.pending.keys());
        prop_assert_eq!(world.schedule.available(), world.total.clone());
    }
}
