//! Objects leave the store's memory for storage: when its use passes the threshold, and when somebody needs room.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use heliostat_proto::message::{FromDaemon, SpillingState};
use heliostat_proto::{Locator, ObjectId};
use heliostat_spill::{Config, Engine, Event, Key, OpenError, Options, RestoreError, Session, SpillError};
use heliostat_store::{Content, Spilled, StoreDaemon};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::Instant;

use crate::daemon::Daemon;
use crate::restore::Pour;

/// After a refusal of all storage nothing is written for so long.
const BACK_OFF: Duration = Duration::from_millis(500);
/// When nothing could leave, the next look comes after this: that a pin was dropped is told to nobody.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// The first line about the amount that was spilled comes at so many bytes, the next ones at each doubling.
const FIRST_LINE: u64 = 1 << 30;

/// Damaged segments of one target are told of together for so long after the first one.
const FOLD: Duration = Duration::from_secs(10);
/// So many of them are named.
const NAMED: usize = 8;

/// How a node spills.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SpillConfig {
    /// Directories or URIs; without any, a directory of the session.
    pub uris: Vec<String>,
    /// Smaller objects are fused until a file has so many bytes.
    pub min_spilling_size: u64,
    /// Remote files above this are uploaded in parts of this size.
    pub buffer_size: u64,
    /// Threads for each target.
    pub max_io_workers: usize,
    /// Part of the store's capacity above which objects leave that nobody reads.
    pub threshold: f64,
    /// Settings of the storage clients.
    pub storage: BTreeMap<String, String>,
}

impl Default for SpillConfig {
    fn default() -> Self {
        Self {
            uris: Vec::new(),
            min_spilling_size: 100 << 20,
            buffer_size: 100 << 20,
            max_io_workers: 4,
            threshold: 0.8,
            storage: BTreeMap::new(),
        }
    }
}

/// An object by its slot and generation.
pub(crate) type Place = (u32, u32);

pub(crate) fn place(locator: &Locator) -> Place {
    (locator.slot, locator.generation)
}

/// What the engine's threads tell the event loop.
#[derive(Debug)]
pub(crate) enum Done {
    Spilled(Locator, u64, Result<(), SpillError>),
    Restored(Locator, Result<(), RestoreError>),
    Poured(Pour),
    Event(Event),
}

/// The engine, before the node runs.
#[derive(Debug)]
pub(crate) struct Storage {
    pub(crate) engine: Option<Arc<Engine>>,
    pub(crate) results: UnboundedSender<Done>,
    pub(crate) done: UnboundedReceiver<Done>,
}

impl Storage {
    /// Starts the engine, if objects are to be spilled.
    pub(crate) fn open(config: Option<&SpillConfig>, session_dir: &std::path::Path) -> Result<Self, OpenError> {
        let (results, done) = tokio::sync::mpsc::unbounded_channel();
        let Some(config) = config else { return Ok(Self { engine: None, results, done }) };
        let mut uris = config.uris.clone();
        if uris.is_empty() {
            uris.push(session_dir.join("spill").to_string_lossy().into_owned());
        }
        let session = Session::random().map_err(|error| OpenError::Os(error.to_string()))?;
        let mut settings = Config::new(uris, session);
        settings.min_spilling_size = config.min_spilling_size;
        settings.buffer_size = config.buffer_size;
        settings.max_io_workers = config.max_io_workers;
        settings.storage = config.storage.clone().into_iter().collect::<Options>();
        let events = results.clone();
        settings.events = Arc::new(move |event| drop(events.send(Done::Event(event))));
        Ok(Self { engine: Some(Arc::new(Engine::open(settings)?)), results, done })
    }
}

/// What the node knows of spilled objects.
#[derive(Debug)]
pub(crate) struct Spilling {
    pub(crate) engine: Option<Arc<Engine>>,
    pub(crate) results: UnboundedSender<Done>,
    /// Bytes in use above which objects leave.
    threshold: u64,
    /// So many leave together, at least, where there are so many.
    batch: u64,
    /// So many are on their way out at a time, so that the storage always has something to write, unless somebody wants
    /// more at once.
    most: u64,
    /// Bytes in use, as the store's daemon said last.
    used: u64,
    /// Before, nobody looks for objects that can leave.
    next_look: Instant,
    /// Copies in storage, by their objects. The engine knows a copy by a number of its own: attempts of a task may make
    /// objects of the same id.
    pub(crate) keys: HashMap<Place, Key>,
    next: u32,
    /// Bytes that are being written.
    writing: u64,
    /// Somebody looks for objects that can leave.
    looking: bool,
    /// The last look found none.
    dry: bool,
    /// Why nothing was written the last time, and until when nothing is tried.
    pub(crate) refused: Option<(String, Instant)>,
    next_line: u64,
    /// It was told that the store has a file.
    told_of_file: bool,
    damaged: BTreeMap<String, Vec<u64>>,
}

/// What a look found.
struct Found {
    begun: Vec<(Locator, ObjectId, u64, Content)>,
    /// Objects that left without being written.
    left: usize,
    traces: Traces,
}

/// What the store's daemon says after its work.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    dropped: Vec<Place>,
    used: u64,
}

impl Traces {
    pub(crate) fn of(daemon: &mut StoreDaemon) -> Self {
        Self { dropped: daemon.take_dropped(), used: daemon.used() }
    }
}

impl Spilling {
    pub(crate) fn new(
        engine: Option<Arc<Engine>>,
        results: UnboundedSender<Done>,
        config: Option<&SpillConfig>,
        capacity: u64,
    ) -> Self {
        let threshold = config.map_or(u64::MAX, |config| (capacity as f64 * config.threshold) as u64);
        let batch = config.map_or(0, |config| config.min_spilling_size.min(capacity / 16));
        Self {
            engine,
            results,
            threshold,
            batch,
            most: capacity / 4,
            used: 0,
            next_look: Instant::now(),
            keys: HashMap::new(),
            next: 0,
            writing: 0,
            looking: false,
            dry: false,
            refused: None,
            next_line: FIRST_LINE,
            told_of_file: false,
            damaged: BTreeMap::new(),
        }
    }

    /// Whether objects are on their way out.
    pub(crate) fn is_busy(&self) -> bool {
        self.looking || self.writing > 0
    }

    /// Whether it makes sense to look for objects that can leave.
    pub(crate) fn can_help(&self) -> bool {
        let now = Instant::now();
        let refused = self.refused.as_ref().is_some_and(|(_, until)| *until > now);
        self.engine.is_some() && !refused && self.next_look <= now
    }

    /// Whether the last look found objects that can leave, or one is due since something changed.
    pub(crate) fn may_help(&self) -> bool {
        self.engine.is_some() && !self.dry && self.refused.is_none()
    }

    /// Something changed: the next look may find more.
    pub(crate) fn look_again(&mut self) {
        self.dry = false;
        self.next_look = Instant::now();
    }

    pub(crate) fn state(&self) -> SpillingState {
        let Some(stats) = self.engine.as_ref().map(|engine| engine.stats()) else { return SpillingState::default() };
        SpillingState {
            spilled_bytes: stats.spilled.bytes,
            spilled_objects: stats.spilled.objects,
            restored_bytes: stats.restored.bytes,
            restored_objects: stats.restored.objects,
            spill_throughput: stats.spilled.throughput(),
            restore_throughput: stats.restored.throughput(),
            waiting: 0,
        }
    }
}

impl Daemon {
    /// Serves what the engine tells, until nobody can tell any more.
    pub(crate) fn listen_to_storage(&self, mut done: UnboundedReceiver<Done>) {
        let me = self.me.clone();
        self.tasks.spawn(async move {
            let mut batch = Vec::new();
            while done.recv_many(&mut batch, 4096).await > 0 {
                let Some(daemon) = me.upgrade() else { return };
                daemon.borrow_mut().on_storage(std::mem::take(&mut batch));
            }
        });
    }

    fn on_storage(&mut self, batch: Vec<Done>) {
        let (mut spilled, mut restored) = (Vec::new(), Vec::new());
        for done in batch {
            match done {
                Done::Spilled(locator, bytes, result) => {
                    self.spilling.writing = self.spilling.writing.saturating_sub(bytes);
                    match &result {
                        Ok(()) => self.spilling.refused = None,
                        Err(SpillError::Freed | SpillError::ShutDown) => {}
                        Err(error) => {
                            self.spilling.refused = Some((error.to_string(), Instant::now() + BACK_OFF));
                        }
                    }
                    // Who needs it now shall not have to fetch it back at once.
                    let kept = self.restores.is_kept(place(&locator));
                    spilled.push((locator, result.is_ok() && !kept));
                }
                Done::Restored(locator, result) => restored.push((locator, result)),
                Done::Poured(pour) => self.pour(pour),
                Done::Event(event) => self.tell_event(&event),
            }
        }
        if !spilled.is_empty() {
            self.finish_spills(spilled);
        }
        if !restored.is_empty() {
            self.finish_restores(restored);
        }
    }

    /// Starts to spill when the store's use has passed the threshold, or somebody waits for room.
    pub(crate) fn spill_if_needed(&mut self) {
        let Spilling { threshold, batch, most, writing, used, .. } = self.spilling;
        // What is on its way out counts as gone; if it is not enough, that will be seen when it is.
        let wanted = self.room.wanted().saturating_sub(writing);
        let above = used.saturating_sub(writing).saturating_sub(threshold);
        let room = most.saturating_sub(writing);
        let bytes = if wanted > 0 { above.max(wanted).max(batch) } else { above.max(batch).min(room) };
        if self.spilling.looking || !self.spilling.can_help() || wanted.max(above) == 0 || bytes == 0 {
            return;
        }
        self.spilling.looking = true;
        let mut keep: HashSet<Place> = self.restores.kept();
        keep.extend(self.room.wanted_objects(&self.restores));
        let work = self.store.work(true, move |daemon| look(daemon, bytes, &keep));
        self.when(work, move |daemon, found| daemon.begin_spills(found, wanted > 0));
    }

    fn begin_spills(&mut self, found: Found, hurry: bool) {
        self.spilling.looking = false;
        let Found { begun, left, traces } = found;
        self.note(traces);
        let Some(engine) = self.spilling.engine.clone() else { return };
        // Until something changes, another look would find no more.
        self.spilling.dry = begun.is_empty() && left == 0;
        if self.spilling.dry {
            self.spilling.next_look = Instant::now() + LOOK_AGAIN;
        }
        let mut sum = 0;
        for (locator, id, bytes, content) in begun {
            sum += bytes;
            let key = Key { id, generation: self.spilling.next };
            self.spilling.next = self.spilling.next.wrapping_add(1);
            self.spilling.keys.insert(place(&locator), key);
            self.spilling.writing += bytes;
            let results = self.spilling.results.clone();
            engine.spill(key, Bytes::from_owner(content), move |result| {
                // After its end the node needs no answers.
                let _ = results.send(Done::Spilled(locator, bytes, result));
            });
        }
        if hurry || sum >= self.spilling.batch {
            engine.flush();
        }
        if left > 0 {
            self.room_was_made();
        } else if !self.spilling.dry {
            self.spill_if_needed();
        }
    }

    fn finish_spills(&mut self, spilled: Vec<(Locator, bool)>) {
        let work = self.store.work(false, move |daemon| {
            let ends = daemon.finish_spill(&spilled);
            (spilled, ends, Traces::of(daemon))
        });
        self.when(work, |daemon, (spilled, ends, traces)| {
            for ((locator, _), end) in spilled.iter().zip(ends) {
                if matches!(end, Spilled::Freed | Spilled::Failed) {
                    daemon.drop_copies(vec![place(locator)]);
                }
            }
            daemon.note(traces);
            daemon.room_was_made();
            daemon.tell_amount();
        });
    }

    /// Takes note of what work on the store changed.
    pub(crate) fn note(&mut self, traces: Traces) {
        self.spilling.used = traces.used;
        self.drop_copies(traces.dropped);
    }

    /// The copies of these objects are of no use any more.
    fn drop_copies(&mut self, objects: Vec<Place>) {
        for object in objects {
            if let Some(key) = self.spilling.keys.remove(&object)
                && let Some(engine) = &self.spilling.engine
            {
                engine.free(&key);
            }
        }
    }

    /// A line about how much was spilled, at 1 GiB and at each doubling.
    fn tell_amount(&mut self) {
        let state = self.spilling.state();
        if state.spilled_bytes < self.spilling.next_line {
            return;
        }
        self.spilling.next_line = state.spilled_bytes.next_power_of_two().max(state.spilled_bytes + 1);
        let mib = |bytes: f64| bytes / f64::from(1 << 20);
        self.tell_drivers(&format!(
            "spilled {:.0} MiB in {} objects at {:.0} MiB/s, restored {:.0} MiB in {} objects at {:.0} MiB/s",
            mib(state.spilled_bytes as f64),
            state.spilled_objects,
            mib(state.spill_throughput),
            mib(state.restored_bytes as f64),
            state.restored_objects,
            mib(state.restore_throughput),
        ));
    }

    /// A line, once, when the store's file is used for the first time.
    pub(crate) fn tell_of_file(&mut self, bytes: u64) {
        if std::mem::replace(&mut self.spilling.told_of_file, true) {
            return;
        }
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        self.tell_drivers(&format!(
            "{} MiB of objects find no room in the store's memory of {} MiB: they are kept in a file on disk, where reading \
             and writing is slower; raise objectStoreMemory to avoid that (this is said once)",
            mib(bytes),
            mib(self.config.store_capacity),
        ));
    }

    /// Tells of damaged storage: at once of the first segment of a target, of further ones in one line for some time.
    fn tell_damage(&mut self, uri: &str, segment: u64, detail: &str) {
        if let Some(more) = self.spilling.damaged.get_mut(uri) {
            return more.push(segment);
        }
        self.spilling.damaged.insert(uri.to_owned(), Vec::new());
        self.tell_drivers(&format!("segment {segment} in {uri} is damaged: {detail}"));
        self.tell_more_damage_later(uri.to_owned());
    }

    fn tell_more_damage_later(&self, uri: String) {
        self.after(FOLD, move |daemon| {
            let more = daemon.spilling.damaged.get_mut(&uri).map(std::mem::take).unwrap_or_default();
            if more.is_empty() {
                daemon.spilling.damaged.remove(&uri);
                return;
            }
            let named: Vec<String> = more.iter().take(NAMED).map(u64::to_string).collect();
            let rest = if more.len() > NAMED { ", ..." } else { "" };
            let (count, named) = (more.len(), named.join(", "));
            daemon.tell_drivers(&format!("{count} more segments in {uri} are damaged: {named}{rest}"));
            daemon.tell_more_damage_later(uri);
        });
    }

    fn tell_event(&mut self, event: &Event) {
        match event {
            Event::Suspended { uri, why, detail } => {
                self.tell_drivers(&format!("{uri} takes no spilled objects for now: {why} ({detail})"));
            }
            Event::Recovered { uri } => {
                self.spilling.refused = None;
                self.tell_drivers(&format!("{uri} takes spilled objects again"));
            }
            Event::SweepFailed { uri, detail } => {
                self.tell_drivers(&format!("what ended sessions left in {uri} cannot be removed: {detail}"));
            }
            Event::Damaged { uri, segment, detail } => {
                self.tell_damage(uri, *segment, detail);
            }
            _ => {}
        }
    }

    /// Writes a line to the standard error of all drivers.
    fn tell_drivers(&self, line: &str) {
        for (_, driver) in self.drivers() {
            let lines = heliostat_proto::Bytes::new(format!("{line}\n").into_bytes());
            let pid = std::process::id();
            driver.conn.send(FromDaemon::Output { stream: 2, name: "spilling".into(), pid, lines }, Vec::new());
        }
    }
}

/// Finds objects that can leave, until so many bytes come free.
fn look(daemon: &mut StoreDaemon, bytes: u64, keep: &HashSet<Place>) -> Found {
    let mut found = Found { begun: Vec::new(), left: 0, traces: Traces::default() };
    // An error says that the table's extent is unknown: then nothing can be found.
    let candidates = daemon.spill_candidates(bytes, |locator| keep.contains(&place(locator))).unwrap_or_default();
    let copied: Vec<(Locator, bool)> =
        candidates.iter().filter(|one| one.copied).map(|one| (one.locator, false)).collect();
    found.left = daemon.finish_spill(&copied).into_iter().filter(|end| *end == Spilled::Gone).count();
    for one in candidates.iter().filter(|one| !one.copied) {
        if let Ok(Some(content)) = daemon.begin_spill(&one.locator) {
            found.begun.push((one.locator, one.id, one.footprint, content));
        }
    }
    found.traces = Traces::of(daemon);
    found
}
