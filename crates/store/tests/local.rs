//! The store within one process: sizes, memory, pins, accounts, hostile words.

use std::sync::{Arc, Mutex};

use heliostat_proto::{Locator, ObjectId, TaskId, WorkerId};
use heliostat_shm::guard::Guard;
use heliostat_shm::map::ReadMap;
use heliostat_shm::memfd::Memfd;
use heliostat_shm::process::Identity;
use heliostat_store::{
    CreateError, Layout, LeaseError, LocalLink, PinError, PutError, StoreClient, StoreConfig, StoreDaemon, StoreStats,
};

const MIB: u64 = 1 << 20;

struct Store {
    daemon: Arc<Mutex<StoreDaemon>>,
}

impl Store {
    fn new(capacity: u64) -> Self {
        Self::with(StoreConfig::new(capacity))
    }

    fn with(mut config: StoreConfig) -> Self {
        config.slots = config.slots.min(1 << 16);
        Self { daemon: Arc::new(Mutex::new(StoreDaemon::create(config).unwrap())) }
    }

    fn client(&self) -> StoreClient {
        let seat = self.daemon.lock().unwrap().join(Identity::current().unwrap()).unwrap();
        let link = LocalLink::new(Arc::clone(&self.daemon), seat.params.client);
        StoreClient::attach(seat, Arc::new(link)).unwrap()
    }

    /// Statistics, after checking that no byte is missing by our counters or the system's.
    fn stats(&self) -> StoreStats {
        let stats = self.daemon.lock().unwrap().stats();
        assert_eq!(stats.sum(), stats.capacity, "{stats:?}");
        assert_eq!(stats.resident, stats.capacity - stats.free_cold, "{stats:?}");
        assert_eq!(stats.refused, 0, "{stats:?}");
        stats
    }

    fn sweep(&self) -> usize {
        self.daemon.lock().unwrap().sweep_deferred()
    }

    fn gone(&self, client: StoreClient) -> heliostat_store::Reclaimed {
        let number = client.params().client;
        drop(client);
        self.daemon.lock().unwrap().client_gone(number)
    }

    /// Everything is free again.
    fn assert_empty(&self) {
        self.sweep();
        self.daemon.lock().unwrap().recall();
        let stats = self.stats();
        assert_eq!((stats.small, stats.large, stats.leased, stats.deferred), (0, 0, 0, 0), "{stats:?}");
        assert_eq!(stats.largest_free, stats.capacity);
    }
}

fn id(index: u32) -> ObjectId {
    TaskId::root(WorkerId([3; 16])).object(index)
}

fn content(seed: u64, length: usize) -> Vec<u8> {
    (0..length as u64).map(|n| (n.wrapping_mul(seed * 2 + 1) >> 3) as u8).collect()
}

#[test]
fn every_size_comes_back_as_it_went() {
    let store = Store::new(64 * MIB);
    let (writer, reader) = (store.client(), store.client());
    let sizes = [0, 1, 63, 64, 65, 4095, 4096, 65_535, 65_536, 65_537, 1_048_577, 20_000_000];
    let mut all = Vec::new();
    for (n, size) in sizes.into_iter().enumerate() {
        let bytes = content(n as u64, size);
        let locator = writer.put(id(n as u32), &bytes).unwrap();
        assert_eq!(reader.pin(&locator).unwrap().bytes(), bytes, "{size}");
        assert_eq!(reader.get(&id(n as u32)).unwrap().unwrap().bytes(), bytes);
        assert_eq!(reader.lookup(&id(n as u32)), Some(locator));
        if size >= 65_536 {
            assert!(locator.offset.is_multiple_of(4096), "{locator:?}");
        }
        all.push(locator);
    }
    assert_eq!((writer.held(), reader.held()), (0, 0));
    reader.free(&all);
    assert!(all.iter().all(|locator| matches!(writer.pin(locator), Err(PinError::Gone { .. }))));
    store.assert_empty();
}

#[test]
fn an_object_beyond_4_gib_is_addressed_rightly() {
    // Only its pages' existence costs: the bytes in the middle are never touched.
    let store = Store::new((4 << 30) + 64 * MIB);
    let client = store.client();
    let length = (4_u64 << 30) + 5;
    let Ok(mut draft) = client.create(id(1), Layout::new(length)) else {
        // A machine with less memory must say so instead of killing.
        assert!(matches!(
            client.create(id(1), Layout::new(length)),
            Err(CreateError::Lease(LeaseError::NoMemory { .. }))
        ));
        return;
    };
    let bytes = draft.bytes_mut();
    bytes[0] = 1;
    bytes[length as usize - 1] = 2;
    let locator = draft.seal().unwrap();
    let pin = client.pin(&locator).unwrap();
    assert_eq!((pin.len() as u64, pin[0], pin[length as usize - 1], pin[1 << 32]), (length, 1, 2, 0));
    drop(pin);
    client.free(&[locator]);
    store.assert_empty();
}

#[test]
fn drafts_are_invisible_and_give_their_memory_back() {
    let store = Store::new(16 * MIB);
    let client = store.client();
    for length in [0, 100, 100_000] {
        let draft = client.create(id(9), Layout::new(length)).unwrap();
        assert!(!client.contains(&id(9)));
        assert!(matches!(client.pin(draft.locator()), Err(PinError::Gone { .. })));
        assert_eq!(client.held(), 1);
        drop(draft);
        assert_eq!(client.held(), 0);
    }
    store.assert_empty();
}

#[test]
fn zeroed_drafts_and_padding_are_zero_in_recycled_memory() {
    let store = Store::new(4 * MIB);
    let client = store.client();
    let locator = client.put(id(1), &vec![0xff; 3 << 20]).unwrap();
    client.free(&[locator]);
    let mut draft = client.create(id(2), Layout::new(2_000_001).zeroed()).unwrap();
    assert!(draft.bytes_mut().iter().all(|byte| *byte == 0));
    let locator = draft.seal().unwrap();
    client.free(&[locator]);
    // Objects that aren't zeroed, in memory that was full of 0xff: what lies behind them up to the next object is.
    let full = client.put(id(3), &vec![0xff; 3 << 20]).unwrap();
    client.free(&[full]);
    let seat = store.daemon.lock().unwrap().join(Identity::current().unwrap()).unwrap();
    let [segment, ..] = seat.fds;
    let stored = ReadMap::new(&Memfd::from_fd(segment).unwrap()).unwrap();
    for (layout, footprint) in
        [(Layout::new(1).whole_pages(), 4096), (Layout::new(70_000), 73_728), (Layout::new(70), 128)]
    {
        let length = client.create(id(4), layout).unwrap().bytes_mut().len() as u64;
        let locator = client.create(id(4), layout).unwrap().seal().unwrap();
        assert!(locator.offset + footprint <= 4 * MIB);
        let padding = stored.bytes(locator.offset + length, footprint - length).unwrap();
        assert!(padding.iter().all(|byte| *byte == 0), "{length}");
    }
}

#[test]
fn a_pinned_object_outlives_its_freeing_and_its_memory_is_not_reused() {
    let store = Store::new(MIB);
    let (writer, reader) = (store.client(), store.client());
    let bytes = content(5, 500_000);
    let locator = writer.put(id(1), &bytes).unwrap();
    let (first, second) = (reader.pin(&locator).unwrap(), reader.pin(&locator).unwrap());
    writer.free(&[locator, locator]);
    assert!(matches!(reader.pin(&locator), Err(PinError::Gone { .. })));
    assert_eq!((store.stats().deferred_objects, store.sweep()), (1, 0));
    assert!(matches!(
        writer.create(id(2), Layout::new(600_000)),
        Err(CreateError::Lease(LeaseError::Full { requested: 602_112, .. }))
    ));
    assert_eq!(first.bytes(), bytes);
    drop(first);
    assert_eq!(store.sweep(), 0);
    drop(second);
    // Swept by itself when memory is wanted.
    let again = writer.put(id(2), &content(6, 600_000)).unwrap();
    assert_eq!(store.stats().deferred, 0);
    writer.free(&[again]);
    store.assert_empty();
}

#[test]
fn parts_are_stored_one_behind_the_other() {
    let store = Store::new(4 * MIB);
    let (writer, reader) = (store.client(), store.client());
    let (short, long) = (content(1, 777), content(2, 200_001));
    let cases: [&[&[u8]]; 5] =
        [&[], &[&short, &[], &short], &[&short, &long], &[&long, &short, &long], &[short.as_slice(); 100]];
    // The second round meets memory that is not zero.
    for round in 0..2 {
        for (n, parts) in cases.into_iter().enumerate() {
            let locator =
                writer.put_parts(id(n as u32), Layout::new(0).owned_by(reader.params().client), parts).unwrap();
            assert_eq!(reader.pin(&locator).unwrap().bytes(), parts.concat(), "case {n}, round {round}");
            let owned = store.daemon.lock().unwrap().owned_by(reader.params().client).unwrap();
            assert_eq!(owned, [(id(n as u32), locator)]);
            store.stats();
            writer.free(&[locator]);
        }
    }
    store.assert_empty();
}

#[test]
fn copied_bytes_are_counted_and_drafts_are_not_copied() {
    let store = Store::new(4 * MIB);
    let (writer, other) = (store.client(), store.client());
    let (short, long) = (content(1, 777), content(2, 200_001));
    let first = writer.put_parts(id(1), Layout::new(0), &[&short, &long]).unwrap();
    let second = other.put(id(2), &short).unwrap();
    let mut draft = writer.create(id(3), Layout::new(100_000)).unwrap();
    draft.bytes_mut().fill(1);
    let third = draft.seal().unwrap();
    assert_eq!(store.stats().copied, 777 + 200_001 + 777);
    let seat = other.params().client;
    drop(other);
    store.daemon.lock().unwrap().client_gone(seat);
    assert_eq!(store.stats().copied, 777 + 200_001 + 777, "what a process that is gone had copied counts on");
    writer.free(&[first, second, third]);
}

#[test]
fn objects_pins_and_drafts_are_counted() {
    let store = Store::new(4 * MIB);
    let (writer, reader) = (store.client(), store.client());
    let counts = || {
        let stats = store.stats();
        (stats.objects, stats.pins, stats.drafts)
    };
    assert_eq!(counts(), (0, 0, 0));
    let (small, large) = (writer.create(id(1), Layout::new(10)).unwrap(), writer.create(id(2), Layout::new(70_000)));
    assert_eq!(counts(), (0, 0, 2));
    let small = small.seal().unwrap();
    drop(large);
    assert_eq!(counts(), (1, 0, 0));
    let pins = [reader.pin(&small).unwrap(), reader.pin(&small).unwrap(), writer.pin(&small).unwrap()];
    assert_eq!(counts(), (1, 3, 0));
    writer.free(&[small]);
    assert_eq!(counts(), (0, 3, 0), "it is gone for all but those who have it");
    drop(pins);
    store.sweep();
    assert_eq!(counts(), (0, 0, 0));
    let open = writer.create(id(3), Layout::new(70_000)).unwrap();
    assert_eq!(counts(), (0, 0, 1));
    store.gone(writer);
    assert_eq!(counts(), (0, 0, 0), "nothing counts of a client that is gone");
    drop(open);
    store.assert_empty();
}

#[test]
fn an_adopted_object_outlives_the_seat_that_made_it() {
    let store = Store::new(16 * MIB);
    let maker = store.client();
    let number = maker.params().client;
    let [kept, small] =
        [2 * MIB, 100].map(|length| maker.create(id(length as u32), Layout::new(length)).unwrap().seal().unwrap());
    let mut daemon = store.daemon.lock().unwrap();
    assert!(daemon.adopt(&kept) && daemon.adopt(&small));
    assert!(!daemon.adopt(&Locator { generation: kept.generation + 1, ..kept }), "nothing is there");
    assert_eq!(daemon.owned_by(number).unwrap(), []);
    drop(daemon);
    store.gone(maker);
    let reader = store.client();
    assert_eq!(reader.pin(&kept).unwrap().bytes().len(), 2 << 20);
    assert_eq!(reader.lookup(&id(100)), Some(small));
    store.daemon.lock().unwrap().free(&[kept, small]);
    assert!(!store.daemon.lock().unwrap().adopt(&kept), "it is gone");
    drop(reader);
}

#[test]
fn a_draft_changes_its_owner_before_it_is_sealed() {
    let store = Store::new(4 * MIB);
    let (owner, worker) = (store.client(), store.client());
    let (seat, bytes) = (owner.params().client, content(3, 100_000));
    let mut draft = worker.create(id(1), Layout::new(100_000).whole_pages()).unwrap();
    draft.bytes_mut().copy_from_slice(&bytes);
    draft.set_owner(u32::MAX);
    draft.set_owner(seat);
    let locator = draft.seal().unwrap();
    let number = worker.params().client;
    let owned_by = |seat| store.daemon.lock().unwrap().owned_by(seat).unwrap();
    assert!(owned_by(number).is_empty());
    assert_eq!(owned_by(seat), [(id(1), locator)]);
    store.gone(worker);
    assert_eq!(owner.lookup(&id(1)), Some(locator), "the id is what it was");
    assert_eq!(owner.pin(&locator).unwrap().bytes(), bytes);
    owner.free(&[locator]);
    store.assert_empty();
}

#[test]
fn a_pin_outlives_its_client() {
    let store = Store::new(MIB);
    let client = store.client();
    let locator = client.put(id(1), b"still here").unwrap();
    let pin = client.pin(&locator).unwrap();
    drop(client);
    assert_eq!(std::thread::spawn(move || pin.bytes().to_vec()).join().unwrap(), b"still here");
}

#[test]
fn a_full_store_is_an_error_that_names_what_is_missing() {
    let store = Store::new(MIB);
    let client = store.client();
    let error = client.create(id(0), Layout::new(2 * MIB)).unwrap_err();
    assert_eq!(error, CreateError::TooLarge { length: 2 * MIB, capacity: MIB });
    let mut kept = Vec::new();
    let error = loop {
        match client.create(id(kept.len() as u32), Layout::new(10_000)) {
            Ok(draft) => kept.push(draft.seal().unwrap()),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, CreateError::Lease(LeaseError::Full { requested: 10_048, free: ..10_048, .. })), "{error}");
    assert_eq!(kept.len() as u64, MIB / 10_048);
    // One more fits as soon as one is freed, and nothing else was disturbed.
    client.free(&kept[50..51]);
    kept.push(client.create(id(1), Layout::new(10_000)).unwrap().seal().unwrap());
    client.free(&kept);
    store.assert_empty();
}

#[test]
fn memory_that_the_system_lacks_counts_as_full() {
    let mut config = StoreConfig::new(16 * MIB);
    config.memory_reserve = u64::MAX / 2;
    let store = Store::with(config);
    for length in [100, 100_000] {
        let error = store.client().create(id(1), Layout::new(length)).unwrap_err();
        assert!(matches!(&error, CreateError::Lease(LeaseError::NoMemory { .. })), "{error}");
    }
    store.assert_empty();
}

#[test]
fn the_table_and_the_holds_do_not_grow_into_memory_that_the_system_lacks() {
    let mut config = StoreConfig::new(16 * MIB);
    config.memory_reserve = u64::MAX / 2;
    let store = Store::with(config);
    let client = store.client();
    let error = client.put(id(0), &vec![1; 100_000]).unwrap_err();
    assert!(matches!(&error, PutError::Create(CreateError::Lease(LeaseError::NoMemory { .. }))), "{error}");
    // Objects without bytes ask for no memory but that of their slots.
    let mut all = Vec::new();
    let error = loop {
        match client.create(id(all.len() as u32), Layout::new(0)) {
            Ok(draft) => all.push(draft.seal().unwrap()),
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, CreateError::Lease(LeaseError::NoMemory { .. })), "{error}");
    assert!(all.len() > 12_000, "{}: the slots that there are were used", all.len());
    let mut pins = Vec::new();
    let error = loop {
        match client.pin(&all[pins.len()]) {
            Ok(pin) => pins.push(pin),
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, PinError::Memory(LeaseError::NoMemory { .. })), "{error}");
    assert!(pins.len() > 7_000, "{}", pins.len());
    drop(pins);
    client.free(&all);
    store.assert_empty();
}

#[test]
fn the_limits_of_the_table_and_of_holds_are_errors() {
    let mut config = StoreConfig::new(MIB);
    (config.slots, config.holds) = (64, 40);
    let store = Store::with(config);
    let client = store.client();
    let all: Vec<_> = (0..64).map(|n| client.put(id(n), &[]).unwrap()).collect();
    assert_eq!(client.create(id(64), Layout::new(1)).unwrap_err(), CreateError::IndexFull { slots: 64 });
    let pins: Vec<_> = all[..40].iter().map(|locator| client.pin(locator).unwrap()).collect();
    assert_eq!(client.pin(&all[40]).unwrap_err(), PinError::TooManyHolds { limit: 40 });
    assert_eq!(client.create(id(65), Layout::new(1)).unwrap_err(), CreateError::TooManyHolds { limit: 40 });
    drop(pins);
    client.free(&all);
    assert!(client.put(id(65), &[1]).is_ok());
}

#[test]
fn freed_extents_are_leased_back_to_who_mapped_them_and_their_pages_are_kept() {
    let store = Store::new(64 * MIB);
    let (a, b) = (store.client(), store.client());
    let (first, second) = (a.put(id(1), &vec![1; 1 << 20]).unwrap(), b.put(id(2), &vec![2; 1 << 20]).unwrap());
    let resident = store.stats().resident;
    a.free(&[first, second]);
    assert_eq!(b.put(id(3), &vec![3; 1 << 20]).unwrap().offset, second.offset);
    assert_eq!(a.put(id(4), &vec![4; 1 << 20]).unwrap().offset, first.offset);
    assert_eq!(store.stats().resident, resident);
    a.free(&[first, a.lookup(&id(4)).unwrap()]);
    assert_eq!(store.daemon.lock().unwrap().punch(u64::MAX).unwrap(), 1 << 20);
    assert_eq!(store.stats().resident, resident - (1 << 20));
}

#[test]
fn a_lease_tail_is_taken_back_for_whoever_needs_it() {
    let mut config = StoreConfig::new(MIB);
    config.small_lease = 512 << 10;
    let store = Store::with(config);
    let (a, b) = (store.client(), store.client());
    let kept = a.put(id(1), &[7; 100]).unwrap();
    assert!(store.stats().leased > 500_000);
    // More than half of the store: only without a's lease.
    let large = b.put(id(2), &vec![1; 900_000]).unwrap();
    assert_eq!(store.stats().leased, 0);
    // a notices that its tail is gone and gets another lease.
    let next = a.put(id(3), &[8; 100]).unwrap();
    assert_eq!(a.pin(&kept).unwrap().bytes(), [7; 100]);
    a.free(&[kept, large, next]);
    store.assert_empty();
}

#[test]
fn a_client_that_leaves_gives_everything_back_but_its_sealed_objects() {
    let store = Store::new(16 * MIB);
    let (owner, worker) = (store.client(), store.client());
    let kept = worker.create(id(1), Layout::new(1000).owned_by(owner.params().client)).unwrap().seal().unwrap();
    let big = worker.put(id(2), &vec![1; 1 << 20]).unwrap();
    let pinned = owner.put(id(3), &[1; 10]).unwrap();
    // Forgotten as if the process had been killed: their destructors never run.
    let left = (
        worker.pin(&pinned).unwrap(),
        worker.create(id(4), Layout::new(500)).unwrap(),
        worker.create(id(5), Layout::new(1 << 20)).unwrap(),
    );
    owner.free(&[pinned]);
    assert_eq!(store.stats().deferred_objects, 1);
    let number = worker.params().client;
    let reclaimed = store.daemon.lock().unwrap().client_gone(number);
    assert_eq!((reclaimed.pins, reclaimed.drafts), (1, 2));
    assert_eq!(store.stats().deferred_objects, 0);
    // Whoever was declared gone without being dead is refused from then on.
    assert!(matches!(worker.pin(&kept), Err(PinError::Fenced)));
    assert!(matches!(worker.create(id(6), Layout::new(1)), Err(CreateError::Fenced)));
    assert!(matches!(left.1.seal(), Err(heliostat_store::SealError::Fenced)));
    drop((left.0, left.2));
    assert_eq!(owner.pin(&kept).unwrap().len(), 1000);
    let daemon = store.daemon.lock().unwrap();
    assert_eq!(daemon.owned_by(owner.params().client).unwrap(), [(id(1), kept)]);
    assert_eq!(daemon.owned_by(number).unwrap(), [(id(2), big)]);
    drop(daemon);
    owner.free(&[kept, big]);
    store.gone(owner);
    store.assert_empty();
}

#[test]
fn two_attempts_of_one_id_are_told_apart() {
    let store = Store::new(MIB);
    let client = store.client();
    let (first, second) = (client.put(id(1), b"first").unwrap(), client.put(id(1), b"second").unwrap());
    assert_ne!(first, second);
    client.free(&[first]);
    assert_eq!(client.get(&id(1)).unwrap().unwrap().bytes(), b"second");
    assert_eq!(client.pin(&second).unwrap().bytes(), b"second");
}

#[test]
fn stale_and_forged_locators_do_no_harm() {
    let store = Store::new(MIB);
    let client = store.client();
    let old = client.put(id(1), b"old").unwrap();
    client.free(&[old]);
    let new = client.put(id(1), b"new").unwrap();
    assert_eq!(new.slot, old.slot);
    let forged = [
        old,
        Locator { segment: 2, ..new },
        Locator { slot: u32::MAX, ..new },
        Locator { length: u64::MAX, ..new },
        Locator { length: new.length + 1, ..new },
        Locator { generation: new.generation + 1, ..new },
    ];
    assert!(forged.iter().all(|locator| client.pin(locator).is_err()));
    // Where the bytes are, the slot says.
    for offset in [0, new.offset + 64, u64::MAX] {
        assert_eq!(client.pin(&Locator { offset, ..new }).unwrap().bytes(), b"new");
    }
    client.free(&forged);
    assert_eq!((client.held(), client.pin(&new).unwrap().bytes()), (0, &b"new"[..]));
    client.free(&[new]);
    store.assert_empty();
}

#[test]
fn threads_share_one_client() {
    let store = Store::new(64 * MIB);
    let client = store.client();
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let client = client.clone();
            scope.spawn(move || {
                let mut mine = std::collections::VecDeque::new();
                for n in 0..2_000 {
                    let length = (n * 37 % 3_000) as usize + if n % 100 == 0 { 100_000 } else { 0 };
                    let bytes = content(u64::from(thread * 10_000 + n), length);
                    let locator = client.put(id(thread << 20 | n), &bytes).unwrap();
                    mine.push_back((locator, bytes));
                    if mine.len() > 50 {
                        let (locator, bytes) = mine.pop_front().unwrap();
                        assert_eq!(client.pin(&locator).unwrap().bytes(), bytes);
                        client.free(&[locator]);
                    }
                }
                let rest: Vec<_> = mine.into_iter().map(|(locator, _)| locator).collect();
                client.free(&rest);
            });
        }
    });
    assert_eq!(client.held(), 0);
    store.assert_empty();
}

#[test]
fn leases_that_are_prepared_in_the_background_are_used_and_given_back() {
    let mut config = StoreConfig::new(64 * MIB);
    config.small_lease = 64 << 10;
    let store = Store::with(config);
    let client = store.client();
    client.prefault_in_background().unwrap();
    client.prefault_in_background().unwrap();
    let all: Vec<_> = (0..5_000).map(|n| client.put(id(n), &content(n.into(), 1_000)).unwrap()).collect();
    for (n, locator) in all.iter().enumerate() {
        assert_eq!(client.pin(locator).unwrap().bytes(), content(n as u64, 1_000));
    }
    client.free(&all);
    store.gone(client);
    store.assert_empty();
}

#[test]
fn a_draft_filled_by_parts_in_any_memory_is_whole() {
    let store = Store::new(16 * MIB);
    let client = store.client();
    let bytes = content(11, 3_000_000);
    // Memory that is new, that was written by call, and that was written through the mapping.
    for _ in 0..3 {
        let mut draft = client.create(id(1), Layout::new(bytes.len() as u64)).unwrap();
        assert!(draft.write_at(1, &bytes).is_err() && draft.write_at(u64::MAX, &[1]).is_err());
        draft.write_at(5, &bytes[5..2_500_000]).unwrap();
        draft.write_at(2_500_000, &bytes[2_500_000..]).unwrap();
        draft.bytes_mut()[..5].copy_from_slice(&bytes[..5]);
        let locator = draft.seal().unwrap();
        assert!(client.pin(&locator).unwrap().bytes() == bytes);
        client.free(&[locator]);
        store.stats();
    }
    store.assert_empty();
}

#[test]
fn a_draft_filled_through_its_own_mapping_is_closed_by_sealing() {
    let store = Store::new(4 * MIB);
    let client = store.client();
    assert!(client.create(id(1), Layout::new(10)).unwrap().expose().is_err());
    let mut draft = client.create(id(2), Layout::new(5000).whole_pages().zeroed()).unwrap();
    assert!(!draft.expose().unwrap().is_null());
    let locator = draft.seal().unwrap();
    assert_eq!(client.pin(&locator).unwrap().len(), 5000);
}

#[test]
fn the_window_can_be_guarded_and_shows_what_is_stored() {
    let store = Store::new(4 * MIB);
    let client = store.client();
    let guard = Guard::watch(Arc::clone(client.window())).unwrap();
    let locator = client.put(id(1), &vec![9; 100_000]).unwrap();
    let pin = client.pin(&locator).unwrap();
    assert_eq!(Some(pin.window_address()), client.window().address(locator.offset, locator.length));
    assert!(!guard.is_dirty());
}

#[test]
fn a_seat_of_another_store_is_refused() {
    let (one, other) = (Store::new(MIB), Store::new(MIB));
    let seat = one.daemon.lock().unwrap().join(Identity::current().unwrap()).unwrap();
    let mut wrong = other.daemon.lock().unwrap().join(Identity::current().unwrap()).unwrap();
    wrong.params = seat.params;
    let link = Arc::new(LocalLink::new(Arc::clone(&one.daemon), 1));
    assert!(matches!(
        StoreClient::attach(wrong, link),
        Err(heliostat_store::AttachError::Mismatch { field: "the epoch", .. })
    ));
    assert!(heliostat_store::Seat::from_parts(seat.params, Vec::new()).is_err());
}
