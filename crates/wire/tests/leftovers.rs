//! What links leave behind: nothing. In a program of its own, whose descriptors and mappings nobody else changes.

use std::os::fd::OwnedFd;

use heliostat_shm::bell::Bell;
use heliostat_shm::ring::Side;
use heliostat_wire::{Link, introduce};

/// Open descriptors, and mappings of memory files of ours.
fn counts() -> (usize, usize) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let ours = maps.lines().filter(|line| line.contains("/memfd:heliostat-")).count();
    (std::fs::read_dir("/proc/self/fd").unwrap().count(), ours)
}

#[test]
fn a_thousand_links_leave_no_descriptor_and_no_mapping() {
    let (near_bell, far_bell) = (Bell::create().unwrap(), Bell::create().unwrap());
    let open = |side, fds: Vec<OwnedFd>| Link::open(side, fds.try_into().unwrap()).unwrap();
    let before = counts();
    for round in 0..10 {
        let links: Vec<(Link, Link)> = (0..100)
            .map(|_| {
                let [near, far] = introduce(&near_bell, &far_bell).unwrap();
                (open(Side::Near, near), open(Side::Far, far))
            })
            .collect();
        for (index, (near, far)) in links.iter().enumerate().step_by(10) {
            near.send(&(round, index, vec![1_u8; 70_000])).unwrap(); // some of it stays in the outbox
            far.receive(|messages: Vec<(i32, usize, Vec<u8>)>| assert_eq!(messages.len(), 0)).unwrap();
        }
        let (fds, maps) = counts();
        assert!(fds >= before.0 + 200 && maps >= before.1 + 200, "{fds} descriptors, {maps} mappings");
    }
    assert_eq!(counts(), before);
    let [mut near, _] = introduce(&near_bell, &far_bell).unwrap();
    near.swap(0, 1);
    assert!(Link::open(Side::Near, near.try_into().unwrap()).is_err(), "a bell's memory is no ring");
    assert_eq!(counts(), before, "a link that could not be opened");
}
