//! Who wants memory of a full store waits here while room is made: first come, first served, but requests for little
//! memory pass those for much, and nobody who waits keeps the daemon from anything.
//!
//! Room is made in this order: freed objects that nobody reads any more are swept; objects that nobody reads are
//! spilled; all processes are asked to let go of garbage; then whoever waits does so as long as anybody could still make
//! room, or until his time is over, and is told who holds the memory.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use heliostat_proto::message::{FromDaemon, Patience, WorkerActivity};
use heliostat_proto::{Failure, Locator, WorkerId};
use heliostat_store::{HolderKind, LeaseError, LeaseGrant, LeaseRequest, StoreDaemon};
use tokio::time::Instant;

use crate::daemon::Daemon;
use crate::restore::{self, Admitted, Restores, Whereto};
use crate::spilling::{Place, Traces, place};
use crate::store::SHORT_MAX;

/// Requests for at most so many bytes pass those that wait for more.
const SMALL: u64 = 1 << 20;
/// How often those who wait are looked at, besides whenever there is news.
const TICK: Duration = Duration::from_millis(50);
/// A place in line is kept for so long between two requests of the one who has it.
const GRACE: Duration = Duration::from_secs(2);
/// Nobody can make room any more if nobody did for so long.
const STILL: Duration = Duration::from_secs(1);
/// Pauses between two requests to let go of garbage: the first, doubled up to the last.
const COLLECT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(4));
/// Of those who wait for other things than memory.
const PLAIN: Patience = Patience { millis: 0, ticket: 0, last: false, spilling: false };
/// How many holders of memory a refusal names.
const HOLDERS: usize = 5;

/// Those who wait for memory.
#[derive(Debug)]
pub(crate) struct Room {
    line: VecDeque<Waiter>,
    next: u64,
    ticking: bool,
    /// When somebody made room last.
    progress: Instant,
    /// When garbage may be asked for again, and the pause after that.
    collect: (Instant, Duration),
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    from: WorkerId,
    ticket: u64,
    want: Want,
    bytes: u64,
    since: Instant,
    until: Option<Instant>,
    /// How it waits for memory.
    patience: Patience,
    /// The store's file was tried, in vain.
    no_file: bool,
    /// It is being tried: its answer comes from that.
    trying: bool,
    error: LeaseError,
}

#[derive(Debug, Clone, Copy)]
enum Want {
    Memory {
        request: u64,
        wish: LeaseRequest,
        seat: u32,
    },
    Restore(u64),
    /// The place is kept for somebody who is about to ask again.
    Nothing,
}

/// A request as it came.
#[derive(Debug, Clone, Copy)]
struct Asked {
    from: WorkerId,
    request: u64,
    seat: u32,
    wish: LeaseRequest,
    patience: Patience,
}

enum Try {
    Memory(u32, LeaseRequest),
    Restore(Vec<Locator>),
}

enum Tried {
    Memory(Result<LeaseGrant, LeaseError>),
    Restore(Result<Admitted, LeaseError>),
}

impl Room {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self { line: VecDeque::new(), next: 0, ticking: false, progress: now, collect: (now, COLLECT.0) }
    }

    /// Bytes that whoever is first in line wants.
    pub(crate) fn wanted(&self) -> u64 {
        self.line.front().map_or(0, |waiter| waiter.bytes)
    }

    /// Objects that whoever is first in line wants in memory.
    pub(crate) fn wanted_objects(&self, restores: &Restores) -> HashSet<Place> {
        match self.line.front().map(|waiter| waiter.want) {
            Some(Want::Restore(id)) => restores.locators(id).iter().map(place).collect(),
            _ => HashSet::new(),
        }
    }

    pub(crate) fn waiting(&self) -> u64 {
        self.line.iter().filter(|waiter| !matches!(waiter.want, Want::Nothing)).count() as u64
    }

    fn position(&self, from: WorkerId, ticket: u64) -> Option<usize> {
        self.line.iter().position(|waiter| ticket != 0 && (waiter.from, waiter.ticket) == (from, ticket))
    }

    /// Takes the place that belongs to a ticket, or the last one.
    fn enter(
        &mut self,
        from: WorkerId,
        ticket: u64,
        want: Want,
        bytes: u64,
        until: Option<Instant>,
        error: LeaseError,
    ) {
        let number = self.next;
        self.next += 1;
        let since = Instant::now();
        let (patience, no_file, trying) = (PLAIN, false, false);
        let waiter = Waiter { number, from, ticket, want, bytes, since, until, patience, no_file, trying, error };
        match self.position(from, ticket) {
            Some(at) => self.line[at] = Waiter { since: self.line[at].since, ..waiter },
            None => self.line.push_back(waiter),
        }
    }

    /// `no_file`: the store's file can't take it either.
    pub(crate) fn enter_restore(&mut self, from: WorkerId, id: u64, bytes: u64, error: LeaseError, no_file: bool) {
        self.enter(from, 0, Want::Restore(id), bytes, None, error);
        if let Some(waiter) = self.line.back_mut() {
            waiter.no_file = no_file;
        }
    }

    fn leave(&mut self, from: WorkerId, ticket: u64) {
        if let Some(at) = self.position(from, ticket) {
            self.line.remove(at);
        }
    }
}

fn bytes_of(wish: &LeaseRequest) -> u64 {
    match wish {
        LeaseRequest::Small { least, .. } => *least,
        LeaseRequest::Extent { bytes, .. }
        | LeaseRequest::Unbacked { bytes, .. }
        | LeaseRequest::File { bytes, .. } => *bytes,
        LeaseRequest::Table { .. } => 0,
    }
}

fn is_long(wish: &LeaseRequest) -> bool {
    match wish {
        LeaseRequest::Small { least: bytes, .. } | LeaseRequest::Extent { bytes, .. } => *bytes > SHORT_MAX,
        LeaseRequest::Unbacked { .. } => false,
        LeaseRequest::Table { .. } | LeaseRequest::File { .. } => true,
    }
}

/// The same object in the store's file.
fn in_file(wish: &LeaseRequest) -> Option<LeaseRequest> {
    match *wish {
        LeaseRequest::Extent { slot, generation, bytes } | LeaseRequest::Unbacked { slot, generation, bytes } => {
            Some(LeaseRequest::File { slot, generation, bytes })
        }
        _ => None,
    }
}

/// There is memory enough, but not in one piece.
fn is_scattered(error: &LeaseError) -> bool {
    matches!(error, LeaseError::Full { requested, free, .. } if free >= requested)
}

fn is_short_of_memory(error: &LeaseError) -> bool {
    matches!(error, LeaseError::Full { .. } | LeaseError::NoMemory { .. })
}

impl Daemon {
    /// Answers a request for memory, now or when there is room; `false` when it is not one.
    pub(crate) fn lease_memory(&mut self, from: WorkerId, request: u64, body: &[u8], patience: Patience) -> bool {
        let Some(seat) = self.processes.get(&from).map(|process| process.seat) else { return false };
        let Ok(wish) = postcard::from_bytes::<LeaseRequest>(body) else { return false };
        let asked = Asked { from, request, seat, wish, patience };
        let first = match self.room.position(from, patience.ticket) {
            Some(at) => at == 0,
            None => self.room.line.is_empty(),
        };
        let in_file = matches!(wish, LeaseRequest::File { .. });
        if !first && !in_file && bytes_of(&wish) > SMALL {
            let error = LeaseError::Full { requested: bytes_of(&wish), free: 0, largest: 0 };
            self.wait_for_room(&asked, error);
            return true;
        }
        let work = self.store.work(is_long(&wish), move |daemon| (daemon.lease(seat, wish), Traces::of(daemon)));
        self.when(work, move |daemon, (result, traces)| {
            daemon.note(traces);
            match result {
                Err(error) if is_short_of_memory(&error) => daemon.wait_for_room(&asked, error),
                result => {
                    daemon.room.leave(from, patience.ticket);
                    if in_file && result.is_ok() {
                        daemon.tell_of_file(bytes_of(&wish));
                    }
                    daemon.answer_lease(from, request, &result);
                    daemon.spill_if_needed();
                }
            }
        });
        true
    }

    fn answer_lease(&self, to: WorkerId, request: u64, result: &Result<LeaseGrant, LeaseError>) {
        // Plain data of a known size: it cannot fail to be encoded.
        let body = postcard::to_stdvec(result).unwrap_or_default();
        self.send(to, FromDaemon::StoreLeased { request, body }, Vec::new());
    }

    fn wait_for_room(&mut self, asked: &Asked, error: LeaseError) {
        let Asked { from, request, seat, wish, patience } = *asked;
        let bytes = bytes_of(&wish);
        if !self.processes.contains_key(&from) {
            return;
        }
        let now = Instant::now();
        let impossible = bytes > self.config.store_capacity;
        if patience.millis == 0 || impossible || patience.spilling && !self.spills() {
            if patience.ticket != 0 && !patience.last && !impossible {
                self.room.enter(from, patience.ticket, Want::Nothing, bytes, Some(now + GRACE), error.clone());
            }
            if patience.last || impossible {
                self.room.leave(from, patience.ticket);
                self.refuse(from, request, error, Duration::ZERO);
            } else {
                self.answer_lease(from, request, &Err(error));
            }
        } else {
            let until = now + Duration::from_millis(patience.millis.into());
            self.room.enter(from, patience.ticket, Want::Memory { request, wish, seat }, bytes, Some(until), error);
            if let Some(waiter) = self.room.line.iter_mut().find(|waiter| waiter.number + 1 == self.room.next) {
                waiter.patience = patience;
            }
        }
        self.make_room();
    }

    /// Room was made: whoever waits tries again.
    pub(crate) fn room_was_made(&mut self) {
        self.room.progress = Instant::now();
        self.spilling.look_again();
        self.try_line();
        self.spill_if_needed();
    }

    /// Does what can be done for those who wait.
    pub(crate) fn make_room(&mut self) {
        self.spill_if_needed();
        if self.room.line.is_empty() {
            self.room.collect = (Instant::now(), COLLECT.0);
            return;
        }
        if !self.spilling.is_busy() {
            self.ask_for_garbage();
        }
        if !std::mem::replace(&mut self.room.ticking, true) {
            self.tick_later();
        }
    }

    fn tick_later(&self) {
        self.after(TICK, |daemon| {
            daemon.room.ticking = false;
            daemon.expire();
            daemon.give_files_if_still();
            daemon.give_up_if_still();
            daemon.try_line();
            daemon.make_room();
        });
    }

    /// Asks all processes but those with a thread that waits for memory, which did so before, to let go of garbage.
    fn ask_for_garbage(&mut self) {
        let now = Instant::now();
        let (at, pause) = self.room.collect;
        if now < at {
            return;
        }
        self.room.collect = (now + pause, (pause * 2).min(COLLECT.1));
        for (id, process) in &self.processes {
            let blocked = |waiter: &Waiter| waiter.from == *id && matches!(waiter.want, Want::Memory { .. });
            if !self.room.line.iter().any(blocked) {
                process.conn.send(FromDaemon::Collect, Vec::new());
            }
        }
    }

    fn is_waiting(&self, process: WorkerId) -> bool {
        self.room.line.iter().any(|waiter| waiter.from == process && !matches!(waiter.want, Want::Nothing))
    }

    /// Tries the first in line, and all that want little.
    pub(crate) fn try_line(&mut self) {
        if self.room.line.iter().any(|waiter| waiter.trying) {
            return;
        }
        let mut tries = Vec::new();
        let mut first = true;
        for waiter in &mut self.room.line {
            let attempt = match waiter.want {
                Want::Memory { wish, seat, .. } if first || waiter.bytes <= SMALL => Try::Memory(seat, wish),
                Want::Restore(id) if first => Try::Restore(self.restores.locators(id).to_vec()),
                Want::Memory { .. } | Want::Restore(_) | Want::Nothing => continue,
            };
            first = false;
            waiter.trying = true;
            tries.push((waiter.number, attempt));
        }
        if tries.is_empty() {
            return;
        }
        let work = self.store.work(true, move |daemon: &mut StoreDaemon| {
            let tried: Vec<(u64, Tried)> = tries
                .into_iter()
                .map(|(number, attempt)| {
                    let tried = match attempt {
                        Try::Memory(seat, wish) => Tried::Memory(daemon.lease(seat, wish)),
                        Try::Restore(locators) => Tried::Restore(restore::admit(daemon, &locators, Whereto::Memory)),
                    };
                    (number, tried)
                })
                .collect();
            (tried, Traces::of(daemon))
        });
        self.when(work, |daemon, (tried, traces)| {
            daemon.note(traces);
            let mut any = false;
            for (number, tried) in tried {
                any |= daemon.on_tried(number, tried);
            }
            if any {
                daemon.room_was_made();
            }
        });
    }

    /// Returns whether somebody has what he waited for.
    fn on_tried(&mut self, number: u64, tried: Tried) -> bool {
        // Whose process has ended meanwhile is not there any more; what it was granted went with its seat.
        let at = self.room.line.iter().position(|waiter| waiter.number == number);
        let error = match tried {
            Tried::Memory(Err(error)) if is_short_of_memory(&error) => error,
            Tried::Memory(result) => {
                let Some(waiter) = at.and_then(|at| self.room.line.remove(at)) else { return false };
                if let Want::Memory { request, .. } = waiter.want {
                    self.answer_lease(waiter.from, request, &result);
                }
                return true;
            }
            Tried::Restore(Ok(admitted)) => {
                // Also for one that nobody waits for: what was begun has to be ended.
                let waiter = at.and_then(|at| self.room.line.remove(at));
                let id = waiter.map(|waiter| waiter.want);
                self.begin_restores(if let Some(Want::Restore(id)) = id { id } else { u64::MAX }, admitted);
                return true;
            }
            Tried::Restore(Err(error)) => error,
        };
        if let Some(at) = at {
            let waiter = &mut self.room.line[at];
            (waiter.trying, waiter.error) = (false, error);
        }
        false
    }

    /// Answers those whose time is over.
    fn expire(&mut self) {
        let now = Instant::now();
        let spills = self.spills();
        let over = |waiter: &Waiter| {
            let late = waiter.until.is_some_and(|until| until <= now) || waiter.patience.spilling && !spills;
            late && !waiter.trying
        };
        let numbers: Vec<u64> = self.room.line.iter().filter(|w| over(w)).map(|waiter| waiter.number).collect();
        for number in numbers {
            let Some(at) = self.room.line.iter().position(|waiter| waiter.number == number) else { continue };
            let waiter = &mut self.room.line[at];
            match waiter.want {
                Want::Memory { request, .. } if !waiter.patience.last && waiter.ticket != 0 => {
                    (waiter.want, waiter.until, waiter.patience) = (Want::Nothing, Some(now + GRACE), PLAIN);
                    let (from, error) = (waiter.from, waiter.error.clone());
                    self.answer_lease(from, request, &Err(error));
                }
                _ => self.turn_away(number),
            }
        }
    }

    /// Refuses for good what a waiter wants.
    fn turn_away(&mut self, number: u64) {
        let Some(at) = self.room.line.iter().position(|waiter| waiter.number == number) else { return };
        let Some(waiter) = self.room.line.remove(at) else { return };
        let waited = waiter.since.elapsed();
        match waiter.want {
            Want::Memory { request, .. } => self.refuse(waiter.from, request, waiter.error, waited),
            Want::Restore(id) => {
                let message = format!("there is no room to bring a spilled object back: {}", waiter.error);
                let failure = Failure::new("OBJECT_STORE_FULL", message)
                    .hint("release views, dispose references, or give the store more memory");
                self.refuse_restore(id, &failure);
            }
            Want::Nothing => {}
        }
    }

    /// Whether spilling makes room, or can.
    fn spills(&self) -> bool {
        self.spilling.is_busy() || self.spilling.may_help()
    }

    /// Whether nothing makes room at the moment.
    fn is_still(&self) -> bool {
        self.room.progress.elapsed() > STILL && !self.spills() && !self.restores.is_reading()
    }

    /// Who reads does not wait for those who hold the memory: when nothing makes room, objects are brought back to the
    /// store's file.
    fn give_files_if_still(&mut self) {
        let waits = |waiter: &Waiter| !waiter.trying && !waiter.no_file && waiter.since.elapsed() > STILL;
        while self.is_still()
            && let Some(at) = self.room.line.iter().position(|w| matches!(w.want, Want::Restore(_)) && waits(w))
            && let Some(Waiter { want: Want::Restore(id), .. }) = self.room.line.remove(at)
        {
            self.restore_to_file(id);
        }
        if !self.is_still() || self.spilling.engine.is_none() {
            return;
        }
        let scattered: Vec<u64> = self
            .room
            .line
            .iter_mut()
            .filter(|waiter| waits(waiter) && is_scattered(&waiter.error))
            .filter_map(|waiter| {
                waiter.trying = matches!(waiter.want, Want::Memory { wish, .. } if in_file(&wish).is_some());
                waiter.trying.then_some(waiter.number)
            })
            .collect();
        for number in scattered {
            self.put_in_file(number);
        }
    }

    /// Who puts has the store's file as well where memory is free, but in too many pieces for the object.
    fn put_in_file(&mut self, number: u64) {
        let Some(waiter) = self.room.line.iter().find(|waiter| waiter.number == number) else { return };
        let Want::Memory { wish, seat, .. } = waiter.want else { return };
        let (Some(wish), bytes) = (in_file(&wish), waiter.bytes) else { return };
        let work = self.store.work(true, move |daemon| daemon.lease(seat, wish));
        self.when(work, move |daemon, result| {
            // Whose process has ended meanwhile is not there any more; what it was granted went with its seat.
            let Some(at) = daemon.room.line.iter().position(|waiter| waiter.number == number) else { return };
            if result.is_err() {
                let waiter = &mut daemon.room.line[at];
                (waiter.trying, waiter.no_file) = (false, true);
                return;
            }
            daemon.tell_of_file(bytes);
            daemon.on_tried(number, Tried::Memory(result));
        });
    }

    /// When nobody is left who could make room, the first in line is told.
    fn give_up_if_still(&mut self) {
        let still = self.is_still();
        let Some(first) = self.room.line.iter().find(|waiter| !matches!(waiter.want, Want::Nothing)) else { return };
        if !still || first.trying || first.since.elapsed() < STILL {
            return;
        }
        let busy = self.schedule.workers().filter(|(.., activity)| *activity == WorkerActivity::Busy);
        let mut able = busy.map(|(worker, ..)| worker).chain(self.drivers().map(|(driver, _)| driver));
        let (number, nobody) = (first.number, able.all(|process| self.is_waiting(process)));
        drop(able);
        if nobody {
            self.room.progress = Instant::now();
            self.turn_away(number);
        }
    }

    /// Tells a process that there is no memory, what was tried, and who holds it.
    fn refuse(&mut self, from: WorkerId, request: u64, error: LeaseError, waited: Duration) {
        let refused = self.spilling.refused.as_ref().map(|(why, _)| why.clone());
        let spilling = match (&self.spilling.engine, &refused) {
            (None, _) => "spilling is off".to_owned(),
            (Some(_), Some(why)) => format!("spilling failed: {why}"),
            (Some(_), None) => "everything that nobody reads was spilled".to_owned(),
        };
        let mut tried = vec![spilling];
        if !waited.is_zero() {
            tried.push(format!("others were asked to let go of garbage, for {} ms", waited.as_millis()));
        }
        let work = self.store.work(true, |daemon| daemon.holders(HOLDERS).unwrap_or_default());
        self.when(work, move |daemon, holders| {
            let disk = refused.is_some();
            let pids = holders.iter().map(|holder| holder.pid).collect();
            // The one who is refused knows his own.
            daemon.ask_sites(&pids, from, move |daemon, mut told| {
                let mut holders = holders;
                for holder in holders.iter_mut().filter(|holder| holder.kind == HolderKind::Owner) {
                    holder.sites = told.remove(&holder.pid).unwrap_or_default();
                }
                let exhausted = LeaseError::Exhausted { error: Box::new(error), tried, holders, disk };
                daemon.answer_lease(from, request, &Err(exhausted));
            });
        });
    }

    /// A process ended: it waits for nothing.
    pub(crate) fn forget_waiting(&mut self, from: WorkerId) {
        self.room.line.retain(|waiter| waiter.from != from);
        self.forget_restores(from);
    }
}
