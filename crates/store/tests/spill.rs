//! Objects that leave the memory and come back, one rule after the other.

use std::sync::{Arc, Mutex, MutexGuard};

use heliostat_proto::{Locator, ObjectId, TaskId, WorkerId};
use heliostat_shm::process::Identity;
use heliostat_store::{
    BeginRestoreError, Layout, LeaseError, LocalLink, PinError, Restore, Spilled, StoreClient, StoreConfig, StoreDaemon,
};

const CAPACITY: u64 = 1 << 20;

struct Store(Arc<Mutex<StoreDaemon>>);

impl Store {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(StoreDaemon::create(StoreConfig::new(CAPACITY)).unwrap())))
    }

    fn daemon(&self) -> MutexGuard<'_, StoreDaemon> {
        self.0.lock().unwrap()
    }

    fn client(&self) -> StoreClient {
        let seat = self.daemon().join(Identity::current().unwrap()).unwrap();
        let link = LocalLink::new(Arc::clone(&self.0), seat.params.client);
        StoreClient::attach(seat, Arc::new(link)).unwrap()
    }

    fn spill(&self, locator: &Locator) -> Vec<u8> {
        let content = self.daemon().begin_spill(locator).unwrap().expect("it is there");
        let bytes = content.as_ref().to_vec();
        assert_eq!(self.daemon().finish_spill(&[(*locator, true)]), [Spilled::Gone]);
        bytes
    }

    fn restore(&self, locator: &Locator, bytes: &[u8]) {
        let Restore::Into(mut target) = self.daemon().begin_restore(locator).unwrap() else { panic!("it has memory") };
        target.as_mut().copy_from_slice(bytes);
        assert!(self.daemon().finish_restore(locator, true));
    }
}

fn id(n: u32) -> ObjectId {
    TaskId::root(WorkerId([3; 16])).object(n)
}

#[test]
fn a_locator_stays_good_wherever_the_bytes_come_back() {
    let (store, bytes) = (Store::new(), vec![5; 300_000]);
    let client = store.client();
    let locator = client.put(id(1), &bytes).unwrap();
    let copy = store.spill(&locator);
    assert_eq!(copy, bytes);
    assert_eq!(client.pin(&locator).unwrap_err(), PinError::Spilled { locator });
    assert_eq!(client.lookup(&id(1)).map(|found| found.generation), Some(locator.generation));
    assert_eq!(store.daemon().owned_by(client.params().client).unwrap().len(), 1);
    // Its memory is another's now.
    let others: Vec<_> = (2..4).map(|n| client.put(id(n), &vec![n as u8; 300_000]).unwrap()).collect();
    store.restore(&locator, &copy);
    let pin = client.pin(&locator).unwrap();
    assert_eq!(pin.bytes(), bytes);
    assert_ne!(pin.locator().offset, locator.offset);
    assert!(others.iter().zip(2..).all(|(other, n)| client.pin(other).unwrap().iter().all(|byte| *byte == n)));
    let stats = store.daemon().stats();
    assert_eq!((stats.sum(), stats.spilled_objects, stats.objects), (CAPACITY, 0, 3));
}

#[test]
fn a_spilled_object_that_was_adopted_outlives_the_seat_that_made_it() {
    let store = Store::new();
    let (maker, reader) = (store.client(), store.client());
    let number = maker.params().client;
    let [gone, back] = [1, 2].map(|n| maker.put(id(n), &vec![n as u8; 300_000]).unwrap());
    let copy = store.spill(&back);
    store.spill(&gone);
    store.restore(&back, &copy);
    assert!(store.daemon().adopt(&gone) && store.daemon().adopt(&back), "without memory, and with other memory");
    assert_eq!(store.daemon().owned_by(number).unwrap(), []);
    drop(maker);
    store.daemon().client_gone(number);
    store.restore(&gone, &vec![1; 300_000]);
    assert_eq!(reader.pin(&gone).unwrap().bytes(), vec![1; 300_000]);
    assert_eq!(reader.pin(&back).unwrap().bytes(), copy);
}

#[test]
fn what_is_read_stays_and_can_leave_later_without_being_written_again() {
    let store = Store::new();
    let client = store.client();
    let locator = client.put(id(1), &vec![1; 100_000]).unwrap();
    let content = store.daemon().begin_spill(&locator).unwrap().unwrap();
    assert_eq!(content.as_ref(), vec![1; 100_000]);
    let pin = client.pin(&locator).unwrap();
    assert_eq!(store.daemon().finish_spill(&[(locator, true)]), [Spilled::Pinned]);
    assert_eq!(client.pin(&locator).unwrap().bytes(), pin.bytes());
    assert!(store.daemon().spill_candidates(1, |_| false).unwrap().is_empty(), "pinned");
    drop(pin);
    let candidates = store.daemon().spill_candidates(1, |_| false).unwrap();
    assert!(candidates[0].copied);
    assert_eq!(store.daemon().finish_spill(&[(locator, false)]), [Spilled::Gone]);
    assert_eq!(store.daemon().spilled(), (102_400, 1));
}

#[test]
fn what_was_not_written_stays() {
    let store = Store::new();
    let client = store.client();
    let locator = client.put(id(1), &vec![1; 100_000]).unwrap();
    drop(store.daemon().begin_spill(&locator).unwrap().unwrap());
    assert_eq!(store.daemon().finish_spill(&[(locator, false)]), [Spilled::Failed]);
    assert_eq!(client.pin(&locator).unwrap().bytes(), vec![1; 100_000]);
}

#[test]
fn bytes_stay_in_place_while_they_are_written_although_the_object_was_freed() {
    let store = Store::new();
    let client = store.client();
    let locator = client.put(id(1), &vec![1; 600_000]).unwrap();
    let content = store.daemon().begin_spill(&locator).unwrap().unwrap();
    client.free(&[locator]);
    assert!(matches!(client.pin(&locator), Err(PinError::Gone { .. })));
    // Half of the store is still taken.
    assert!(client.put(id(2), &vec![2; 600_000]).is_err());
    assert_eq!(content.as_ref(), vec![1; 600_000]);
    assert_eq!(store.daemon().finish_spill(&[(locator, true)]), [Spilled::Freed]);
    assert!(store.daemon().take_dropped().is_empty(), "the caller was told in another way");
    client.put(id(2), &vec![2; 600_000]).unwrap();
}

#[test]
fn copies_of_objects_that_are_gone_are_told_once() {
    let store = Store::new();
    let client = store.client();
    let all: Vec<_> = (0..3).map(|n| client.put(id(n), &vec![n as u8; 100_000]).unwrap()).collect();
    let copies: Vec<_> = all.iter().map(|locator| store.spill(locator)).collect();
    store.restore(&all[1], &copies[1]);
    client.free(&all[..2]);
    let mut dropped = store.daemon().take_dropped();
    dropped.sort_unstable();
    let mut expected = [all[0], all[1]].map(|locator| (locator.slot, locator.generation));
    expected.sort_unstable();
    assert_eq!(dropped, expected);
    assert!(store.daemon().take_dropped().is_empty());
    assert!(matches!(store.daemon().begin_restore(&all[0]), Err(BeginRestoreError::Gone)));
    // The end of its owner takes the third.
    let seat = client.params().client;
    let owned: Vec<_> = store.daemon().owned_by(seat).unwrap().into_iter().map(|(_, locator)| locator).collect();
    store.daemon().free(&owned);
    assert_eq!(store.daemon().take_dropped(), [(all[2].slot, all[2].generation)]);
    assert_eq!(store.daemon().stats().sum(), CAPACITY);
}

#[test]
fn a_restore_takes_memory_once_and_gives_it_back_if_it_fails() {
    let store = Store::new();
    let client = store.client();
    let locator = client.put(id(1), &vec![1; 100_000]).unwrap();
    let copy = store.spill(&locator);
    let first = store.daemon().begin_restore(&locator).unwrap();
    assert!(matches!(first, Restore::Into(_)));
    assert!(matches!(store.daemon().begin_restore(&locator).unwrap(), Restore::UnderWay));
    assert_eq!(store.daemon().stats().restoring, 102_400);
    assert!(client.pin(&locator).is_err(), "nobody sees it yet");
    assert!(!store.daemon().finish_restore(&locator, false));
    assert_eq!(store.daemon().stats().large, 0);
    store.restore(&locator, &copy);
    assert!(matches!(store.daemon().begin_restore(&locator).unwrap(), Restore::Present));
    // Freed while it is brought back.
    store.daemon().finish_spill(&[(locator, false)]);
    let under_way = store.daemon().begin_restore(&locator).unwrap();
    client.free(&[locator]);
    assert_eq!(store.daemon().stats().large, 102_400, "its memory is being written");
    drop(under_way);
    assert!(!store.daemon().finish_restore(&locator, true));
    let stats = store.daemon().stats();
    assert_eq!((stats.large, stats.spilled, stats.sum()), (0, 0, CAPACITY));
}

#[test]
fn a_restore_into_a_full_store_says_so() {
    let store = Store::new();
    let client = store.client();
    let locator = client.put(id(1), &vec![1; 600_000]).unwrap();
    store.spill(&locator);
    let other = client.put(id(2), &vec![2; 600_000]).unwrap();
    let refused = store.daemon().begin_restore(&locator);
    assert!(matches!(refused, Err(BeginRestoreError::Memory(LeaseError::Full { .. }))), "{refused:?}");
    assert_eq!(client.pin(&other).unwrap().bytes(), vec![2; 600_000]);
}

#[test]
fn the_oldest_large_objects_leave_first_and_small_ones_last() {
    let store = Store::new();
    let client = store.client();
    let small = client.put(id(1), &[1; 1000]).unwrap();
    let large: Vec<_> = (2..5).map(|n| client.put(id(n), &vec![n as u8; 70_000]).unwrap()).collect();
    let stays = client.put_parts(id(5), Layout::new(0).unspillable(), &[&vec![5; 70_000]]).unwrap();
    let candidates = |bytes, keep: Option<Locator>| -> Vec<Locator> {
        let found = store.daemon().spill_candidates(bytes, |locator| Some(*locator) == keep).unwrap();
        found.into_iter().map(|candidate| candidate.locator).collect()
    };
    assert_eq!(candidates(1, None), large[..1]);
    assert_eq!(candidates(80_000, Some(large[0])), large[1..]);
    assert_eq!(candidates(u64::MAX, None), [large[0], large[1], large[2], small]);
    // Who was away is young again.
    let copy = store.spill(&large[0]);
    store.restore(&large[0], &copy);
    let offset = client.pin(&large[0]).unwrap().locator().offset;
    assert_eq!(candidates(u64::MAX, None), [large[1], large[2], Locator { offset, ..large[0] }, small]);
    assert_eq!(client.pin(&stays).unwrap().bytes(), vec![5; 70_000]);
}

#[test]
fn a_slot_that_somebody_scribbled_on_is_not_believed() {
    let store = Store::new();
    let client = store.client();
    let locator = client.put(id(1), &vec![1; 100_000]).unwrap();
    let other = Locator { generation: locator.generation + 1, ..locator };
    assert!(matches!(store.daemon().begin_restore(&other), Err(BeginRestoreError::Gone)));
    assert!(store.daemon().begin_spill(&other).unwrap().is_none());
    assert_eq!(store.daemon().finish_spill(&[(other, true)]), [Spilled::Freed]);
    let longer = Locator { length: 99_999, ..locator };
    assert!(store.daemon().begin_spill(&longer).unwrap().is_none());
    assert!(client.pin(&longer).is_err());
    assert_eq!(client.pin(&Locator { offset: 0, ..locator }).unwrap().bytes(), vec![1; 100_000], "the slot says where");
}
