//! Spilled objects come back for those who need them: each is read once, however many ask, and what one request needs
//! is admitted as a whole.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use heliostat_proto::message::{FromDaemon, PART_MAX};
use heliostat_proto::{Bytes, Failure, Locator, WorkerId};
use heliostat_spill::Key;
use heliostat_spill::RestoreError;
use heliostat_store::{BeginRestoreError, FileTarget, LeaseError, Restore, StoreDaemon, Target};

use crate::daemon::Daemon;
use crate::spilling::{Done, Place, Traces, place};

/// What goes to the store's file is read in parts of so many bytes.
const POUR: u64 = 32 << 20;
/// How often objects that were brought back to the file are looked at: they leave when nobody reads them.
const LEAVE_FILE: Duration = Duration::from_secs(1);

/// Requests that are under way, or whose askers did not say yet that they have what they need.
#[derive(Debug, Default)]
pub(crate) struct Restores {
    next: u64,
    requests: HashMap<u64, Request>,
    /// Objects that are being read, and the requests that wait for each.
    reading: HashMap<Place, Vec<u64>>,
    /// Somebody looks, from time to time, which objects can leave the store's file.
    leaving: bool,
}

#[derive(Debug)]
struct Request {
    from: WorkerId,
    /// The asker's name of it.
    number: u64,
    locators: Vec<Locator>,
    /// Memory was taken for all.
    admitted: bool,
    missing: HashSet<Place>,
    failures: Vec<(u32, Failure)>,
}

/// What a request that was admitted needs.
#[derive(Debug, Default)]
pub(crate) struct Admitted {
    targets: Vec<(Locator, Target)>,
    /// Places in the store's file.
    files: Vec<(Locator, FileTarget)>,
    under_way: Vec<Place>,
    gone: Vec<Place>,
}

/// An object on its way to the store's file.
#[derive(Debug)]
pub(crate) struct Pour {
    locator: Locator,
    key: Key,
    target: FileTarget,
    /// So many bytes are there.
    at: u64,
    buffer: Vec<u8>,
}

impl Restores {
    /// Whether somebody needs the object in memory.
    pub(crate) fn is_kept(&self, object: Place) -> bool {
        self.admitted().any(|locator| place(locator) == object)
    }

    /// Objects that somebody needs in memory.
    pub(crate) fn kept(&self) -> HashSet<Place> {
        self.admitted().map(place).collect()
    }

    fn admitted(&self) -> impl Iterator<Item = &Locator> {
        self.requests.values().filter(|request| request.admitted).flat_map(|request| &request.locators)
    }

    pub(crate) fn locators(&self, id: u64) -> &[Locator] {
        self.requests.get(&id).map_or(&[], |request| &request.locators)
    }

    fn note_reading(&mut self, locator: &Locator, id: u64) {
        self.reading.insert(place(locator), vec![id]);
        if let Some(request) = self.requests.get_mut(&id) {
            request.missing.insert(place(locator));
        }
    }

    pub(crate) fn is_reading(&self) -> bool {
        !self.reading.is_empty()
    }
}

/// Where a request's objects go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whereto {
    Memory,
    File,
}

/// Takes memory, or places in the store's file, for all of a request's objects, or for none.
pub(crate) fn admit(daemon: &mut StoreDaemon, locators: &[Locator], whereto: Whereto) -> Result<Admitted, LeaseError> {
    let mut admitted = Admitted::default();
    for locator in locators {
        let begun = match whereto {
            Whereto::Memory => daemon.begin_restore(locator),
            Whereto::File => daemon.begin_restore_to_file(locator),
        };
        match begun {
            Ok(Restore::Present) => {}
            Ok(Restore::UnderWay) => admitted.under_way.push(place(locator)),
            Ok(Restore::Into(target)) => admitted.targets.push((*locator, target)),
            Ok(Restore::IntoFile(target)) => admitted.files.push((*locator, target)),
            Err(BeginRestoreError::Memory(error)) => {
                let Admitted { targets, files, .. } = admitted;
                let targets = targets.into_iter().map(|(locator, _)| locator);
                for locator in targets.chain(files.into_iter().map(|(locator, _)| locator)) {
                    daemon.finish_restore(&locator, false);
                }
                return Err(error);
            }
            Err(_) => admitted.gone.push(place(locator)),
        }
    }
    Ok(admitted)
}

impl Daemon {
    /// Brings objects back for a process.
    pub(crate) fn restore(&mut self, from: WorkerId, request: u64, locators: Vec<Locator>) {
        let id = self.restores.next;
        self.restores.next += 1;
        let wanted = locators.clone();
        let (missing, failures) = (HashSet::new(), Vec::new());
        self.restores
            .requests
            .insert(id, Request { from, number: request, locators, admitted: false, missing, failures });
        // Who reads does not stand in line behind those who write, unless there is no room.
        let work = self.store.work(true, move |daemon| admit(daemon, &wanted, Whereto::Memory));
        self.when(work, move |daemon, result| match result {
            Ok(admitted) => daemon.begin_restores(id, admitted),
            Err(error) => daemon.restore_waits(id, error),
        });
    }

    /// The memory can't take what a request needs: its objects are brought back to the store's file.
    pub(crate) fn restore_to_file(&mut self, id: u64) {
        let wanted = self.restores.locators(id).to_vec();
        let bytes = wanted.iter().map(|locator| locator.length).sum();
        let work = self.store.work(true, move |daemon| admit(daemon, &wanted, Whereto::File));
        self.when(work, move |daemon, result| match result {
            Ok(admitted) => {
                if !admitted.files.is_empty() {
                    daemon.tell_of_file(bytes);
                    daemon.leave_file_later();
                }
                daemon.begin_restores(id, admitted);
            }
            Err(error) => {
                let Some(request) = daemon.restores.requests.get(&id) else { return };
                daemon.room.enter_restore(request.from, id, bytes, error, true);
                daemon.make_room();
            }
        });
    }

    /// Objects that were brought back to the store's file leave it when nobody reads them any more.
    fn leave_file_later(&mut self) {
        if std::mem::replace(&mut self.restores.leaving, true) {
            return;
        }
        self.after(LEAVE_FILE, |daemon| {
            let keep = daemon.restores.kept();
            let work = daemon.store.work(true, move |store| {
                store.leave_file(|locator| keep.contains(&place(locator)));
                (store.has_visitors_in_file(), Traces::of(store))
            });
            daemon.when(work, |daemon, (any, traces)| {
                daemon.note(traces);
                daemon.restores.leaving = false;
                if any {
                    daemon.leave_file_later();
                }
            });
        });
    }

    /// Reads the next part of an object that goes to the store's file.
    pub(crate) fn pour(&self, pour: Pour) {
        let Pour { locator, key, target, at, mut buffer } = pour;
        let results = self.spilling.results.clone();
        let Some(engine) = self.spilling.engine.as_ref().filter(|_| at < target.length()) else {
            // After its end the node needs no answers.
            return drop(results.send(Done::Restored(locator, Ok(()))));
        };
        buffer.resize(POUR.min(target.length() - at) as usize, 0);
        engine.read_range(&key, at, buffer, move |buffer, result| {
            let written = result.and_then(|()| {
                let failed = |error: std::io::Error| RestoreError::Unavailable {
                    uri: "the store's file".into(),
                    detail: error.to_string(),
                };
                target.write_at(at, &buffer).map_err(failed)
            });
            let _ = results.send(match written {
                Ok(()) => {
                    let at = at + buffer.len() as u64;
                    Done::Poured(Pour { locator, key, target, at, buffer })
                }
                Err(error) => Done::Restored(locator, Err(error)),
            });
        });
    }

    fn restore_waits(&mut self, id: u64, error: LeaseError) {
        let Some(request) = self.restores.requests.get(&id) else { return };
        let bytes: u64 = request.locators.iter().map(|locator| locator.length).sum();
        if bytes > self.config.store_capacity {
            return self.restore_to_file(id);
        }
        self.room.enter_restore(request.from, id, bytes, error, false);
        self.make_room();
    }

    /// Memory was taken: reads what is not being read already.
    pub(crate) fn begin_restores(&mut self, id: u64, admitted: Admitted) {
        let Admitted { targets, files, under_way, gone } = admitted;
        for (locator, target) in files {
            self.restores.note_reading(&locator, id);
            match self.spilling.keys.get(&place(&locator)) {
                Some(key) => self.pour(Pour { locator, key: *key, target, at: 0, buffer: Vec::new() }),
                None => drop(self.spilling.results.send(Done::Restored(locator, Err(RestoreError::NotSpilled)))),
            }
        }
        for (locator, target) in targets {
            self.restores.note_reading(&locator, id);
            let object = place(&locator);
            let results = self.spilling.results.clone();
            match (self.spilling.keys.get(&object), &self.spilling.engine) {
                (Some(key), Some(engine)) => engine.restore(key, target, move |target, result| {
                    // The object is to be seen by others only when nobody can write it any more.
                    drop(target);
                    let _ = results.send(Done::Restored(locator, result));
                }),
                _ => drop(results.send(Done::Restored(locator, Err(RestoreError::NotSpilled)))),
            }
        }
        let Some(request) = self.restores.requests.get_mut(&id) else { return };
        request.admitted = true;
        for object in under_way {
            // It may have come meanwhile.
            if let Some(waiting) = self.restores.reading.get_mut(&object) {
                waiting.push(id);
                request.missing.insert(object);
            }
        }
        let freed = Failure::new("OBJECT_FREED", "the object's data is gone: it was freed");
        let gone = request.locators.iter().zip(0..).filter(|(locator, _)| gone.contains(&place(locator)));
        request.failures.extend(gone.map(|(_, index)| (index, freed.clone())));
        self.answer_restore(id);
    }

    pub(crate) fn finish_restores(&mut self, restored: Vec<(Locator, Result<(), RestoreError>)>) {
        let work = self.store.work(false, move |daemon| {
            let ends: Vec<_> = restored
                .into_iter()
                .map(|(locator, result)| {
                    let there = daemon.finish_restore(&locator, result.is_ok());
                    (locator, result, there)
                })
                .collect();
            (ends, Traces::of(daemon))
        });
        self.when(work, |daemon, (ends, traces)| {
            daemon.note(traces);
            for (locator, result, there) in ends {
                let failure = match result {
                    Ok(()) if there => None,
                    Ok(()) => Some(Failure::new("OBJECT_FREED", "the object was freed while it was brought back")),
                    Err(error) => Some(failure_of(&error)),
                };
                for id in daemon.restores.reading.remove(&place(&locator)).unwrap_or_default() {
                    let Some(request) = daemon.restores.requests.get_mut(&id) else { continue };
                    request.missing.remove(&place(&locator));
                    if let Some(failure) = &failure {
                        let at = request.locators.iter().position(|one| place(one) == place(&locator)).unwrap_or(0);
                        request.failures.push((at as u32, failure.clone()));
                    }
                    daemon.answer_restore(id);
                }
            }
            daemon.room_was_made();
        });
    }

    fn answer_restore(&mut self, id: u64) {
        let Some(request) = self.restores.requests.get_mut(&id) else { return };
        if request.missing.is_empty() {
            let failures = std::mem::take(&mut request.failures);
            let (from, request) = (request.from, request.number);
            self.send(from, FromDaemon::Restored { request, failures }, Vec::new());
        }
    }

    /// There will be no memory for a request.
    pub(crate) fn refuse_restore(&mut self, id: u64, failure: &Failure) {
        let Some(request) = self.restores.requests.remove(&id) else { return };
        let failures = (0..request.locators.len() as u32).map(|index| (index, failure.clone())).collect();
        self.send(request.from, FromDaemon::Restored { request: request.number, failures }, Vec::new());
    }

    /// A process has what it asked for in hand, or does not need it any more.
    pub(crate) fn end_restore(&mut self, from: WorkerId, request: u64) {
        self.restores.requests.retain(|_, one| (one.from, one.number) != (from, request));
        self.spilling.look_again();
        self.try_line();
        self.make_room();
    }

    /// A process ended: nobody waits for what it wanted.
    pub(crate) fn forget_restores(&mut self, from: WorkerId) {
        self.restores.requests.retain(|_, request| request.from != from);
    }

    /// Reads a part of a spilled object from storage.
    pub(crate) fn read_part(&mut self, from: WorkerId, request: u64, locator: &Locator, start: u64, length: u64) {
        let found = (self.spilling.keys.get(&place(locator)), &self.spilling.engine);
        let (Some(key), Some(engine)) = found else {
            return self.send(from, FromDaemon::Part { request, bytes: Ok(None) }, Vec::new());
        };
        let (sender, receiver) = tokio::sync::oneshot::channel();
        engine.read_range(key, start, vec![0; length.min(PART_MAX) as usize], move |bytes, result| {
            // After its end the node needs no answers.
            let _ = sender.send(result.map(|()| bytes));
        });
        let me = self.me.clone();
        self.tasks.spawn(async move {
            let bytes = match receiver.await {
                Ok(Ok(bytes)) => Ok(Some(Bytes::new(bytes))),
                Ok(Err(error)) => Err(failure_of(&error)),
                Err(_) => Err(failure_of(&RestoreError::ShutDown)),
            };
            if let Some(daemon) = me.upgrade() {
                daemon.borrow().send(from, FromDaemon::Part { request, bytes }, Vec::new());
            }
        });
    }

    /// Tells where a spilled object is kept.
    pub(crate) fn locate(&self, from: WorkerId, request: u64, locator: &Locator) {
        let found = (self.spilling.keys.get(&place(locator)), &self.spilling.engine);
        let uri = match found {
            (Some(key), Some(engine)) => engine.locate(key).map(|(uri, _)| uri.to_owned()),
            _ => None,
        };
        self.send(from, FromDaemon::Place { request, uri }, Vec::new());
    }
}

fn failure_of(error: &RestoreError) -> Failure {
    let code = match error {
        RestoreError::Corrupted { .. } | RestoreError::Lost { .. } => "OBJECT_CORRUPTED",
        RestoreError::ShutDown => "NODE_DIED",
        RestoreError::NotSpilled => "OBJECT_FREED",
        _ => "OBJECT_FETCH_TIMED_OUT",
    };
    Failure::new(code, error.to_string())
}
