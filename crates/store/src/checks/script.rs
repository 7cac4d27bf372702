//! What a client does while it is watched: every operation, in every form.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use heliostat_proto::{Locator, ObjectId, TaskId, WorkerId};

use crate::word::step;
use crate::{DaemonLink, Layout, LeaseError, LeaseGrant, LeaseRequest, StoreClient};

/// A link with steps before and after each call, that can lose what needs no answer.
pub(super) struct SteppedLink<L> {
    pub(super) inner: L,
    pub(super) lose_frees: AtomicBool,
}

impl<L: DaemonLink> SteppedLink<L> {
    pub(super) fn new(inner: L) -> Arc<Self> {
        Arc::new(Self { inner, lose_frees: AtomicBool::new(false) })
    }
}

impl<L: DaemonLink> DaemonLink for SteppedLink<L> {
    fn lease(&self, request: LeaseRequest) -> Result<LeaseGrant, LeaseError> {
        step();
        let answer = self.inner.lease(request);
        step();
        answer
    }

    fn free(&self, locators: &[Locator]) {
        step();
        if !self.lose_frees.load(Ordering::Relaxed) {
            self.inner.free(locators);
        }
        step();
    }
}

/// Told what objects must, may or must not be there from now on.
pub(super) trait Witness {
    /// The object may become visible from now on.
    fn may_appear(&self, id: ObjectId, bytes: &[u8]);
    /// The object must stay visible from now on.
    fn must_stay(&self, id: ObjectId, locator: &Locator);
    /// The object may be gone from now on.
    fn may_go(&self, id: ObjectId);
}

pub(super) fn content(seed: u32, length: u64) -> Vec<u8> {
    (0..length).map(|n| (n * 7 + u64::from(seed) * 31 + 1) as u8).collect()
}

pub(super) fn id(seed: u32) -> ObjectId {
    TaskId::root(WorkerId([9; 16])).object(seed)
}

pub(super) const OPERATIONS: [&str; 7] = ["small", "large", "put", "dropped", "pins", "delete", "lost"];

/// Runs one of [`OPERATIONS`].
pub(super) fn run<L: DaemonLink>(name: &str, client: &StoreClient, link: &SteppedLink<L>, witness: &dyn Witness) {
    let put = |seed: u32, layout: Layout, length: u64| {
        let bytes = content(seed, length);
        let mut draft = client.create(id(seed), layout).unwrap();
        draft.bytes_mut().copy_from_slice(&bytes);
        witness.may_appear(id(seed), &bytes);
        let locator = draft.seal().unwrap();
        witness.must_stay(id(seed), &locator);
        locator
    };
    match name {
        // Two leases: each holds 4096 bytes.
        "small" => {
            for seed in 0..7 {
                let length = u64::from(seed) * 300;
                put(seed, Layout::new(length), length);
            }
        }
        "large" => {
            put(20, Layout::new(70_000), 70_000);
            put(21, Layout::new(10).whole_pages().zeroed(), 10);
            put(22, Layout::new(0).whole_pages(), 0);
        }
        // Memory without pages, twice, and then what these have left.
        "put" => {
            for seed in 25..28 {
                let bytes = content(seed, 66_000);
                witness.may_appear(id(seed), &bytes);
                let locator = client.put(id(seed), &bytes).unwrap();
                witness.must_stay(id(seed), &locator);
                witness.may_go(id(seed));
                client.free(&[locator]);
            }
        }
        "dropped" => {
            for (seed, length) in [(30, 0), (31, 100), (32, 5000), (33, 70_000)] {
                client.create(id(seed), Layout::new(length)).unwrap().bytes_mut().fill(1);
            }
        }
        "pins" => {
            let (small, large) = (put(40, Layout::new(900), 900), put(41, Layout::new(66_000), 66_000));
            let first = client.pin(&small).unwrap();
            let second = client.get(&id(40)).unwrap().unwrap();
            let third = client.pin(&large).unwrap();
            assert!(client.pin(&Locator { generation: small.generation + 1, ..small }).is_err());
            drop(first);
            witness.may_go(id(41));
            client.free(&[large]); // stays, pinned, until the end
            assert_eq!(second.bytes(), content(40, 900));
            drop((second, third));
        }
        "delete" => {
            let all =
                [put(50, Layout::new(0), 0), put(51, Layout::new(500), 500), put(52, Layout::new(70_000), 70_000)];
            (50..53).for_each(|seed| witness.may_go(id(seed)));
            client.free(&all);
            // The same slots, next generation.
            put(50, Layout::new(64), 64);
        }
        "lost" => {
            link.lose_frees.store(true, Ordering::Relaxed);
            for (seed, length) in [(60, 200), (61, 70_000)] {
                drop(client.create(id(seed), Layout::new(length)).unwrap());
            }
            link.lose_frees.store(false, Ordering::Relaxed);
        }
        other => panic!("no such operation: {other}"),
    }
}
