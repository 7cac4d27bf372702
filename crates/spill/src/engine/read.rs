//! Objects on their way back.

use std::sync::Arc;

use super::lane::Class;
use super::{DELETE_PAUSE, Engine, Shared, contained};
use crate::config::Event;
use crate::error::RestoreError;
use crate::map::Location;
use crate::{Key, verify};

impl Engine {
    /// Reads a whole object into `target`, which has its length. With `Ok`, every byte was verified; with an error, the
    /// target holds anything. The copy in storage stays until it is freed.
    pub fn restore<T: AsMut<[u8]> + Send + 'static>(
        &self,
        key: &Key,
        target: T,
        done: impl FnOnce(T, Result<(), RestoreError>) + Send + 'static,
    ) {
        self.read(key, 0, true, target, done);
    }

    /// Reads as many bytes as `target` has, from the object's byte `start` on. Reads and verifies the chunks of 1 MiB that
    /// the range touches, nothing else.
    pub fn read_range<T: AsMut<[u8]> + Send + 'static>(
        &self,
        key: &Key,
        start: u64,
        target: T,
        done: impl FnOnce(T, Result<(), RestoreError>) + Send + 'static,
    ) {
        self.read(key, start, false, target, done);
    }

    fn read<T: AsMut<[u8]> + Send + 'static>(
        &self,
        key: &Key,
        start: u64,
        whole: bool,
        mut target: T,
        done: impl FnOnce(T, Result<(), RestoreError>) + Send + 'static,
    ) {
        let length = target.as_mut().len() as u64;
        let mut state = self.shared.lock();
        let fits = |stored: u64| {
            let within = start.checked_add(length).is_some_and(|end| end <= stored);
            within && (!whole || length == stored)
        };
        let error = match state.map.find(key).map(|at| at.length) {
            _ if state.closed => RestoreError::ShutDown,
            None => RestoreError::NotSpilled,
            Some(stored) if !fits(stored) => RestoreError::OutOfRange { start, length, stored },
            Some(_) => {
                let at = state.map.begin_read(key).expect("it was just found");
                state.restoring.begin();
                // Under the lock: no thread of a target ends while a read is on its way to it.
                self.shared.push(at.target, Class::Read, move |shared| {
                    let result = shared.fetch(&at, start, target.as_mut());
                    shared.read_ended(&at, length, &result);
                    done(target, result);
                });
                return;
            }
        };
        self.shared.notify(state, move || done(target, Err(error)));
    }
}

impl Shared {
    pub(super) fn fetch(&self, at: &Location, start: u64, into: &mut [u8]) -> Result<(), RestoreError> {
        if self.lock().closed {
            return Err(RestoreError::ShutDown);
        }
        let lane = &self.lanes[at.target];
        let helpers = lane.idle().min(self.threads - 1);
        let read = || {
            let segment = lane.storage.open(at.segment)?;
            verify::read(&*segment, &lane.buffers, (self.session, at), start, into, helpers)
        };
        contained(read).map_err(|error| RestoreError::of(error, lane.storage.uri()))
    }

    fn read_ended(self: &Arc<Self>, at: &Location, length: u64, result: &Result<(), RestoreError>) {
        let mut state = self.lock();
        match result {
            Ok(()) => state.restoring.end((1, length), 0),
            Err(_) => state.restoring.end((0, 0), 1),
        }
        let doomed = state.map.end_read(at.segment);
        drop(state);
        if let Some(doomed) = doomed {
            self.push_delete(doomed, DELETE_PAUSE);
        }
        self.tell_damage(at, result);
    }

    /// Tells of a damaged segment, once.
    pub(super) fn tell_damage(&self, at: &Location, result: &Result<(), RestoreError>) {
        let (Err(error @ (RestoreError::Corrupted { uri, .. } | RestoreError::Lost { uri })), segment) =
            (result, at.segment)
        else {
            return;
        };
        if self.lock().damaged.insert(segment) {
            self.tell(Event::Damaged { uri: uri.clone(), segment, detail: error.to_string() });
        }
    }
}
