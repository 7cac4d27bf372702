//! A storage of the caller's own, and one that has a bug.

mod common;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use bytes::Bytes;
use common::{KIB, MIB, content, key};
use heliostat_spill::{
    Config, Engine, OpenError, RestoreError, Segment, Session, SpillError, Storage, StorageError, Swept,
};

/// Segments in memory; panics when it is told to.
#[derive(Debug, Default)]
struct Memory {
    segments: Mutex<HashMap<u64, Arc<Vec<u8>>>>,
    broken: AtomicBool,
}

impl Memory {
    fn check(&self) {
        assert!(!self.broken.load(Ordering::Relaxed), "a bug on purpose");
    }
}

struct InMemory(Arc<Vec<u8>>);

impl Segment for InMemory {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), StorageError> {
        let from = self.0.get(offset as usize..offset as usize + into.len()).ok_or(StorageError::CutOff)?;
        into.copy_from_slice(from);
        Ok(())
    }
}

impl Storage for Memory {
    fn uri(&self) -> &'static str {
        "memory"
    }

    fn device(&self) -> u64 {
        0
    }

    fn prepare(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn write(&self, segment: u64, body: &[Bytes], tail: &mut dyn FnMut() -> Bytes) -> Result<(), StorageError> {
        self.check();
        let bytes = [body.concat(), tail().to_vec()].concat();
        assert!(bytes.len().is_multiple_of(4096));
        self.segments.lock().unwrap().insert(segment, Arc::new(bytes));
        Ok(())
    }

    fn open(&self, segment: u64) -> Result<Box<dyn Segment + '_>, StorageError> {
        self.check();
        let segments = self.segments.lock().unwrap();
        Ok(Box::new(InMemory(Arc::clone(segments.get(&segment).ok_or(StorageError::Gone)?))))
    }

    fn remove(&self, segment: u64) -> Result<(), StorageError> {
        self.segments.lock().unwrap().remove(&segment);
        Ok(())
    }

    fn heartbeat(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn sweep(&self) -> Result<Swept, StorageError> {
        Ok(Swept::default())
    }

    fn cancel(&self) {}

    fn close(&self) -> Result<(), StorageError> {
        self.segments.lock().unwrap().clear();
        Ok(())
    }
}

fn put(engine: &Engine, number: u32, size: usize) -> Result<(), SpillError> {
    let (sender, results) = mpsc::channel();
    engine.spill(key(number), content(number, size), move |result| drop(sender.send(result)));
    engine.flush();
    results.recv().unwrap()
}

fn get(engine: &Engine, number: u32, size: usize) -> Result<Vec<u8>, RestoreError> {
    let (sender, results) = mpsc::channel();
    engine.restore(&key(number), vec![0; size], move |bytes, result| drop(sender.send(result.map(|()| bytes))));
    results.recv().unwrap()
}

#[test]
fn an_engine_runs_over_any_storage_and_a_bug_in_it_fails_requests_only() {
    let memory = Arc::new(Memory::default());
    let config = || Config::new([""; 0], Session([1; 16]));
    let engine = Engine::with_storages(config(), vec![Arc::clone(&memory) as _]).unwrap();
    put(&engine, 1, 20 * MIB).unwrap();
    assert!(get(&engine, 1, 20 * MIB).unwrap() == content(1, 20 * MIB));

    memory.broken.store(true, Ordering::Relaxed);
    assert!(matches!(put(&engine, 2, KIB), Err(SpillError::OutOfDisk { .. })));
    for _ in 0..10 {
        assert!(matches!(get(&engine, 1, 20 * MIB), Err(RestoreError::Unavailable { .. })));
    }
    memory.broken.store(false, Ordering::Relaxed);
    assert!(get(&engine, 1, 20 * MIB).unwrap() == content(1, 20 * MIB));
    common::wait(|| put(&engine, 3, KIB).ok());
    drop(engine);
    assert!(memory.segments.lock().unwrap().is_empty());
    assert!(matches!(Engine::with_storages(config(), vec![]), Err(OpenError::NoTarget)));
}
