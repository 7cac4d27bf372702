//! The store's file: what the memory can't take lies there, and is read like anything else.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use heliostat_proto::{Locator, ObjectId, TaskId, WorkerId};
use heliostat_shm::process::Identity;
use heliostat_store::{
    BeginRestoreError, CreateError, FILE_SEGMENT, Layout, LeaseError, LocalLink, PutError, Restore, Spilled,
    StoreClient, StoreConfig, StoreDaemon,
};

const MIB: u64 = 1 << 20;

struct Store(Arc<Mutex<StoreDaemon>>);

impl Store {
    /// With `file` bytes for what the memory can't take; `None` for no file.
    fn new(capacity: u64, file: Option<u64>) -> Self {
        let mut config = StoreConfig::new(capacity);
        config.slots = 1 << 10;
        let mut daemon = StoreDaemon::create(config).unwrap();
        if let Some(size) = file {
            daemon.keep_file_in(Path::new("/var/tmp"), size).unwrap();
        }
        Self(Arc::new(Mutex::new(daemon)))
    }

    fn daemon(&self) -> MutexGuard<'_, StoreDaemon> {
        self.0.lock().unwrap()
    }

    fn client(&self) -> StoreClient {
        let seat = self.daemon().join(Identity::current().unwrap()).unwrap();
        let link = LocalLink::new(Arc::clone(&self.0), seat.params.client);
        StoreClient::attach(seat, Arc::new(link)).unwrap()
    }

    /// Takes an object out of the memory, with its bytes.
    fn spill(&self, locator: &Locator) -> Vec<u8> {
        let mut daemon = self.daemon();
        let content = daemon.begin_spill(locator).unwrap().unwrap();
        let bytes = content.as_ref().to_vec();
        assert_eq!(daemon.finish_spill(&[(*locator, true)]), [Spilled::Gone]);
        bytes
    }

    fn restore_to_file(&self, locator: &Locator, bytes: &[u8]) {
        let begun = self.daemon().begin_restore_to_file(locator).unwrap();
        let Restore::IntoFile(target) = begun else { panic!("{begun:?}") };
        assert_eq!(target.length(), bytes.len() as u64);
        let half = bytes.len() / 2;
        target.write_at(half as u64, &bytes[half..]).unwrap();
        target.write_at(0, &bytes[..half]).unwrap();
        assert!(target.write_at(1, bytes).is_err(), "nothing is written behind the object");
        assert!(self.daemon().finish_restore(locator, true));
    }

    fn assert_empty(&self) {
        let mut daemon = self.daemon();
        daemon.sweep_deferred();
        daemon.recall();
        let stats = daemon.stats();
        assert_eq!((stats.small, stats.large, stats.file, stats.objects, stats.refused), (0, 0, 0, 0, 0), "{stats:?}");
        assert_eq!(stats.sum(), stats.capacity);
    }
}

fn id(index: u32) -> ObjectId {
    TaskId::root(WorkerId([3; 16])).object(index)
}

fn content(length: u64) -> Vec<u8> {
    (0..length).map(|n| (n.wrapping_mul(7) >> 3) as u8).collect()
}

#[test]
fn an_object_above_the_capacity_is_put_filled_read_and_freed() {
    let store = Store::new(MIB, Some(1 << 36));
    let (writer, reader) = (store.client(), store.client());
    let bytes = content(5 * MIB + 77);
    let put = writer.put(id(1), &bytes).unwrap();
    assert_eq!(put.segment, FILE_SEGMENT);
    assert_eq!(store.daemon().stats().large, 0, "the memory is free");

    let layout = Layout::new(3 * MIB).whole_pages().zeroed();
    let mut draft = writer.create(id(2), layout).unwrap();
    assert!(draft.bytes_mut().iter().all(|byte| *byte == 0));
    assert!(!draft.expose().unwrap().is_null());
    draft.bytes_mut()[..3].copy_from_slice(b"abc");
    let filled = draft.seal().unwrap();

    let (one, two) = (reader.pin(&put).unwrap(), reader.get(&id(2)).unwrap().unwrap());
    assert!(one.bytes() == bytes && &two.bytes()[..4] == b"abc\0");
    assert_ne!(one.window_address(), two.window_address());
    assert_eq!(reader.lookup(&id(1)), Some(put));
    assert!(store.daemon().stats().file >= 8 * MIB);

    writer.free(&[put, filled]);
    assert!(reader.pin(&put).is_err() && one.bytes() == bytes, "a pin keeps it");
    drop((one, two));
    store.assert_empty();
    // What comes next to the same place begins as zeros.
    let mut draft = writer.create(id(3), layout).unwrap();
    assert!(draft.bytes_mut().iter().all(|byte| *byte == 0));
    drop(draft);
    store.assert_empty();
}

#[test]
fn what_a_client_leaves_unfinished_in_the_file_goes_with_it() {
    let store = Store::new(MIB, Some(1 << 30));
    let (writer, dying) = (store.client(), store.client());
    let kept = dying.put(id(1), &content(2 * MIB)).unwrap();
    let unfinished = dying.create(id(2), Layout::new(2 * MIB)).unwrap();
    assert_eq!(store.daemon().stats().file, 4 * MIB);
    let seat = dying.params().client;
    store.daemon().client_gone(seat);
    assert_eq!(store.daemon().stats().file, 2 * MIB, "a sealed object is its owner's");
    assert_eq!(writer.pin(&kept).unwrap().bytes(), content(2 * MIB));
    store.daemon().rebuild().unwrap();
    drop(unfinished);
    writer.free(&[kept]);
    store.assert_empty();
}

#[test]
fn what_was_brought_back_to_the_file_leaves_it_when_nobody_reads_it() {
    let store = Store::new(MIB, Some(1 << 20));
    let client = store.client();
    let small = client.put(id(1), &content(100)).unwrap();
    let large = client.put(id(2), &content(600_000)).unwrap();
    for locator in [small, large] {
        let bytes = store.spill(&locator);
        store.restore_to_file(&locator, &bytes);
    }
    let pin = client.pin(&large).unwrap();
    assert_eq!((pin.locator().segment, pin.bytes()), (FILE_SEGMENT, &content(600_000)[..]));
    assert!(store.daemon().has_visitors_in_file());
    assert_eq!(store.daemon().leave_file(|_| false), 1, "the one that nobody reads");
    assert_eq!(store.daemon().leave_file(|_| true), 0);
    drop(pin);
    assert_eq!(store.daemon().leave_file(|_| false), 1);
    assert!(!store.daemon().has_visitors_in_file());
    let stats = store.daemon().stats();
    assert_eq!((stats.file, stats.spilled_objects), (0, 2));
    // And from there to the memory again.
    let begun = store.daemon().begin_restore(&small).unwrap();
    let Restore::Into(mut target) = begun else { panic!("{begun:?}") };
    target.as_mut().copy_from_slice(&content(100));
    drop(target);
    assert!(store.daemon().finish_restore(&small, true));
    assert_eq!(client.pin(&small).unwrap().locator().segment, 0);
    client.free(&[small, large]);
    assert_eq!(store.daemon().take_dropped().len(), 2);
    store.assert_empty();
}

#[test]
fn the_file_makes_room_of_what_can_be_brought_back_again() {
    let store = Store::new(4 * MIB, Some(5 * MIB));
    let client = store.client();
    let back = client.put(id(1), &content(2 * MIB)).unwrap();
    let bytes = store.spill(&back);
    store.restore_to_file(&back, &bytes);
    let larger = client.put(id(2), &content(4 * MIB + 1)).unwrap();
    assert_eq!(store.daemon().stats().spilled_objects, 1, "it left for the larger one");
    let refused = store.daemon().begin_restore_to_file(&back);
    assert!(matches!(refused, Err(BeginRestoreError::Memory(LeaseError::NoFile { disk: false, .. }))), "{refused:?}");
    client.free(&[back, larger]);
    store.assert_empty();
}

#[test]
fn without_a_file_the_capacity_is_the_limit() {
    let store = Store::new(MIB, None);
    let client = store.client();
    let refused = client.put(id(1), &content(2 * MIB));
    assert!(matches!(refused, Err(PutError::Create(CreateError::TooLarge { .. }))), "{refused:?}");
    let small = client.put(id(2), &content(100)).unwrap();
    store.spill(&small);
    let refused = store.daemon().begin_restore_to_file(&small);
    assert!(matches!(refused, Err(BeginRestoreError::Memory(LeaseError::NoFile { .. }))), "{refused:?}");
    client.free(&[small]);
    store.assert_empty();
}

#[test]
fn a_disk_that_is_nearly_full_refuses() {
    let store = Store::new(MIB, Some(1 << 43));
    let refused = store.client().create(id(1), Layout::new(1 << 42)).map(|_| ());
    assert!(matches!(refused, Err(CreateError::Lease(LeaseError::NoFile { disk: true, .. }))), "{refused:?}");
    store.assert_empty();
}
