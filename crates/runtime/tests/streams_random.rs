//! Streams in random orders of messages, deaths, retries and cancellations.

mod support;

use std::collections::{HashMap, HashSet, VecDeque};

use heliostat_proto::message::ToPeer;
use heliostat_proto::{Blob, Failure, Locator, TaskId, Value};
use heliostat_runtime::{Counts, ExecutionId, Handle, Next, Room};
use proptest::prelude::*;
use support::{Cluster, worker};

/// What the test knows of a stream that it takes.
struct Taker {
    name: Handle,
    task: TaskId,
    buffered: u64,
    taken: u64,
    retries: i64,
    /// 1 when its runs make other items than each other.
    fickle: u64,
    /// Most items that a run made, and whether another ended well with fewer.
    longest: u64,
    short: bool,
    /// Told of a failure, which is the last item.
    failed: bool,
    open: bool,
}

struct Run {
    at: usize,
    id: ExecutionId,
    task: TaskId,
    attempt: u32,
    made: u64,
}

/// A driver with streams, and workers that come, make items and die.
struct World {
    c: Cluster,
    streams: Vec<Taker>,
    runs: Vec<Run>,
    held: Vec<Handle>,
    leases: HashMap<u64, usize>,
    live: HashSet<Locator>,
    slots: u32,
}

const PROCESSES: usize = 8;

impl World {
    fn new() -> Self {
        let c = Cluster::new(PROCESSES);
        let (streams, runs, held) = Default::default();
        Self { c, streams, runs, held, leases: HashMap::new(), live: HashSet::new(), slots: 0 }
    }

    fn start(&mut self, y: u16) {
        let (buffered, retries) = (u32::from(y % 4) + 1, i64::from(y / 4 % 3));
        let name = self.c.submit_with(0, &[], &[], |submission| {
            submission.stream = Some(buffered);
            submission.max_retries = retries;
            submission.retries_errors = true;
            submission.timeout = (y.is_multiple_of(5)).then_some(20);
            submission.retries_timeouts = y.is_multiple_of(10);
        });
        let task = self.c.cores[0].id(name).expect("alive").task();
        let fickle = y.is_multiple_of(11).into();
        let buffered = buffered.into();
        self.streams.push(Taker {
            name,
            task,
            buffered,
            taken: 0,
            retries,
            fickle,
            longest: 0,
            short: false,
            failed: false,
            open: true,
        });
    }

    fn living(&self, choice: usize) -> Option<usize> {
        let living: Vec<usize> = (1..PROCESSES).filter(|at| !self.c.dead.contains(at)).collect();
        (!living.is_empty()).then(|| living[choice % living.len()])
    }

    fn grant(&mut self, choice: usize) {
        let free = |at: &usize| !self.c.dead.contains(at) && !self.leases.values().any(|busy| busy == at);
        let free: Vec<usize> = (1..PROCESSES).filter(free).collect();
        if !free.is_empty()
            && let Some(lease) = self.c.grant(free[choice % free.len()])
        {
            self.leases.insert(lease, free[choice % free.len()]);
        }
        for lease in std::mem::take(&mut self.c.returned) {
            self.leases.remove(&lease);
        }
    }

    fn begin(&mut self, at: usize) {
        // One at a time, as workers do.
        if self.c.dead.contains(&at) || self.runs.iter().any(|run| run.at == at) {
            return;
        }
        if let Some(id) = self.c.cores[at].next_execution() {
            self.c.cores[at].begin(id);
            self.c.perform(at);
            let spec = &self.c.cores[at].execution(id).expect("taken").spec;
            let (task, attempt) = (spec.task, spec.attempt);
            self.runs.push(Run { at, id, task, attempt, made: 0 });
        }
    }

    fn make(&mut self, run: usize, y: u16) {
        let Run { at, id, task, attempt, made } = self.runs[run];
        if self.c.cores[at].room(id) != Room::Free {
            return;
        }
        let stream = self.streams.iter().find(|stream| stream.task == task).expect("one of ours");
        let place = self.c.cores[at].next_place(id).expect("streams");
        let digest = made * 10 + stream.fickle * u64::from(attempt);
        let mut contains = Vec::new();
        let blob = (!place.known).then(|| {
            if y.is_multiple_of(3) {
                self.slots += 1;
                let locator = Locator { segment: 0, slot: self.slots, offset: 0, length: 10, generation: attempt };
                let before = self.c.values.stored.borrow_mut().insert(place.id, locator);
                assert_eq!(before, None, "two runs of one task sealed {:?}", place.id);
                self.live.insert(locator);
                return Blob::Stored(locator);
            }
            if y % 3 == 1 {
                contains.push(self.c.put(at, &[]));
            }
            let entries = contains.iter().map(|handle| self.c.cores[at].export(*handle).expect("alive")).collect();
            self.c.values.blob(entries)
        });
        if made > 0 && y.is_multiple_of(29) {
            // Its process dies between sealing and telling.
            return self.kill(at, usize::from(y));
        }
        self.c.cores[at].push_item(id, blob, &contains, digest);
        self.c.perform(at);
        for handle in contains {
            self.c.release(at, handle);
        }
        self.runs[run].made += 1;
        let stream = self.streams.iter_mut().find(|stream| stream.task == task).expect("one of ours");
        stream.longest = stream.longest.max(made + 1);
    }

    fn kill(&mut self, at: usize, delivered: usize) {
        // What it sent arrives up to some point.
        let sent: VecDeque<ToPeer> = self.c.wires.remove(&(at, 0)).unwrap_or_default();
        for message in sent.into_iter().take(delivered % 4) {
            self.c.cores[0].on_peer(worker(at), message, self.c.now, &self.c.values);
            self.c.perform(0);
        }
        self.c.wires.retain(|(from, to), _| *from != at && *to != at);
        self.runs.retain(|run| run.at != at);
        self.c.dead.insert(at);
        self.settle();
        let killed = Failure::new("WORKER_CRASHED", "killed");
        for (lease, _) in self.leases.extract_if(|_, holder| *holder == at).collect::<Vec<_>>() {
            self.c.cores[0].on_lease_broken(lease, &killed, self.c.now, &self.c.values);
        }
        self.c.cores[0].on_peer_gone(worker(at));
        self.c.perform(0);
    }

    fn take(&mut self, which: usize) {
        let stream = &mut self.streams[which];
        if !stream.open {
            return;
        }
        match self.c.cores[0].take_item(stream.name, self.c.now) {
            Next::Item(handle) => {
                assert!(!stream.failed, "an item after the failure");
                let id = self.c.cores[0].id(handle).expect("a handle of ours");
                assert_eq!((id.task(), u64::from(id.index())), (stream.task, stream.taken + 1));
                stream.taken += 1;
                stream.failed = matches!(self.c.cores[0].value(handle), Some(Value::Failed(_)));
                self.held.push(handle);
            }
            Next::Ended => assert!(self.c.cores[0].value(stream.name).is_some(), "ended before its end"),
            Next::Pending => {}
        }
        self.c.perform(0);
    }

    fn drop_stream(&mut self, which: usize) {
        let stream = &mut self.streams[which];
        if std::mem::replace(&mut stream.open, false) {
            self.c.cores[0].drop_stream(stream.name, self.c.now);
            self.c.perform(0);
        }
    }

    fn end(&mut self, run: usize, how: u16) {
        let Run { at, id, task, made, .. } = self.runs.swap_remove(run);
        if how.is_multiple_of(3) {
            self.c.fail(at, id, how.is_multiple_of(2));
        } else {
            let stream = self.streams.iter_mut().find(|stream| stream.task == task).expect("one of ours");
            stream.short |= made < stream.longest;
            self.c.finish(at, id, &[]);
        }
    }

    /// Frees what is to be freed, and checks what holds at any time.
    fn settle(&mut self) {
        for locator in std::mem::take(&mut self.c.freed) {
            assert!(self.live.remove(&locator), "{locator:?} was freed twice");
            self.c.values.stored.borrow_mut().retain(|_, stored| *stored != locator);
        }
        for (_, lease) in std::mem::take(&mut self.c.kills) {
            if let Some(at) = (1..PROCESSES).find(|at| worker(*at) == lease && !self.c.dead.contains(at)) {
                self.kill(at, 3);
            }
        }
        for run in &self.runs {
            let stream = self.streams.iter().find(|stream| stream.task == run.task).expect("one of ours");
            assert!(run.made <= stream.taken + stream.buffered, "too far ahead");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever order messages, deaths, retries and cancellations take: items come in order and each once, nobody is too
    /// far ahead, every stream ends, and nothing is left.
    #[test]
    fn no_order_of_events_loses_repeats_or_leaks_an_item(steps in proptest::collection::vec((0u8..20, any::<u16>(), any::<u16>()), 1..200)) {
        let mut w = World::new();
        for (kind, x, y) in steps {
            let (x, streams, runs) = (x as usize, w.streams.len(), w.runs.len());
            match kind {
                0 => w.start(y),
                1 | 2 => w.grant(x),
                3 | 4 => { if let Some(at) = w.living(x) { w.begin(at) } }
                5..=9 if runs > 0 => w.make(x % runs, y),
                10 if runs > 0 => w.end(x % runs, y),
                11 | 12 if streams > 0 => w.take(x % streams),
                13 if streams > 0 && y.is_multiple_of(3) => w.drop_stream(x % streams),
                14 if streams > 0 && y.is_multiple_of(4) => {
                    let name = w.streams[x % streams].name;
                    w.c.cancel(0, name, y.is_multiple_of(8), true);
                }
                15 if y.is_multiple_of(2) => { if let Some(at) = w.living(x) { w.kill(at, y as usize / 2) } }
                16 => w.c.pass(u64::from(y % 40)),
                17 if streams > 0 && w.streams[x % streams].open => {
                    // Somebody waits, and gives up or not.
                    let name = w.streams[x % streams].name;
                    if let Some(wait) = w.c.cores[0].wait_item(name) {
                        w.c.perform(0);
                        w.c.deliver(y as usize);
                        w.c.cores[0].end_wait(wait);
                    }
                }
                18 if runs > 0 => {
                    let Run { at, id, .. } = w.runs[x % runs];
                    if let Some(wait) = w.c.cores[at].wait_room(id) {
                        w.c.deliver(y as usize);
                        w.c.cores[at].end_wait(wait);
                    }
                }
                _ => drop(w.c.deliver(y as usize)),
            }
            w.settle();
        }
        // Everything ends: workers are there again, makers make a little more, takers take.
        for turn in 0.. {
            prop_assert!(turn < 100_000, "a stream never ends");
            w.c.quiet();
            w.settle();
            for which in 0..w.streams.len() {
                w.take(which);
            }
            w.c.quiet();
            if w.living(0).is_none() {
                break;
            }
            w.grant(turn);
            for at in 1..PROCESSES {
                w.begin(at);
            }
            if let Some(run) = w.runs.len().checked_sub(1) {
                if w.c.cores[w.runs[run].at].room(w.runs[run].id) == Room::Free && w.runs[run].made < 3 {
                    w.make(run, 2);
                } else if w.c.cores[w.runs[run].at].room(w.runs[run].id) != Room::Full {
                    w.end(run, 1);
                }
            } else if w.c.cores[0].counts().tasks > 0 {
                w.c.pass(10_000);
            } else {
                break;
            }
        }
        if w.living(0).is_none() {
            let gone = Failure::new("NODE_DIED", "gone");
            w.c.cores[0].on_node_gone(&gone);
            w.c.perform(0);
            w.settle();
        }
        for which in 0..w.streams.len() {
            while w.streams[which].open {
                let before = w.streams[which].taken;
                w.take(which);
                if w.streams[which].taken == before { break }
            }
            let Taker { name, retries, .. } = w.streams[which];
            prop_assert!(w.c.cores[0].value(name).is_some(), "no end after {} retries", retries);
            let code = w.c.code(0, name).map(str::to_owned);
            let known = ["TASK_CANCELLED", "TASK_TIMEOUT", "TASK_FAILED", "WORKER_CRASHED", "STREAM_REPLAY", "NODE_DIED"];
            prop_assert!(code.as_deref().is_none_or(|code| known.contains(&code)), "{:?}", code);
            let unlike = w.streams[which].fickle > 0 || w.streams[which].short;
            prop_assert!(unlike || code.as_deref() != Some("STREAM_REPLAY"));
            prop_assert!(!w.streams[which].open || w.streams[which].failed == code.is_some());
            w.drop_stream(which);
            w.c.release(0, name);
        }
        for handle in std::mem::take(&mut w.held) {
            w.c.release(0, handle);
        }
        w.c.quiet();
        if w.living(0).is_some() {
            w.settle();
            w.c.pass(100_000_000);
            w.c.quiet();
            w.settle();
            prop_assert!(w.live.is_empty(), "left in the store: {:?}", w.live);
            for at in (0..PROCESSES).filter(|at| !w.c.dead.contains(at)) {
                prop_assert_eq!(w.c.cores[at].counts(), Counts::default(), "process {}", at);
            }
        }
    }
}
