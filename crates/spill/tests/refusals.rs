//! Directories that are full, read-only, missing or removed: the next one takes their share, and a log hears of it once.

mod common;

use std::time::Duration;

use common::{KIB, MIB, Mount, Spill, content, segments};
use heliostat_spill::{Event, Refusal, RestoreError, SpillError};

fn dir() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn small() -> Option<Mount> {
    Mount::new("tmpfs", "size=4m,mode=700")
}

fn refusals(error: &SpillError) -> Vec<Refusal> {
    let SpillError::OutOfDisk { refusals } = error else { panic!("{error}") };
    refusals.iter().map(|refusal| refusal.1).collect()
}

/// Spills objects of 1 MiB until one is refused; returns how many there are.
fn fill(spill: &Spill) -> (u32, SpillError) {
    let mut number = 0;
    loop {
        match spill.put(number, content(number, MIB)) {
            Ok(()) => number += 1,
            Err(error) => return (number, error),
        }
    }
}

#[test]
fn a_full_directory_hands_over_to_the_next_and_is_told_of_once() {
    let Some(mount) = small() else { return };
    let dir = dir();
    let spill = Spill::open([mount.uri(), dir.path().to_str().unwrap()], |_| {});
    for number in 0..16 {
        spill.put(number, content(number, MIB)).unwrap();
    }
    for number in 0..16 {
        assert!(spill.get(number, MIB).unwrap() == content(number, MIB));
    }
    assert_eq!(segments(mount.path()).len() + segments(dir.path()).len(), 16, "nothing is left of what was refused");
    assert_eq!(segments(mount.path()).len(), 3);
    let events: Vec<_> = spill.events.try_iter().collect();
    let [Event::Suspended { uri, why: Refusal::Full, detail }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(uri, mount.uri());
    assert!(detail.contains("No space left"), "{detail}");
}

#[test]
fn when_all_are_full_objects_stay_and_later_ones_go_where_there_is_room_again() {
    let (Some(one), Some(two)) = (small(), small()) else { return };
    let spill = Spill::open([one.uri(), two.uri()], |_| {});
    let (count, error) = fill(&spill);
    assert_eq!(count, 6);
    assert_eq!(refusals(&error), [Refusal::Full, Refusal::Full]);
    let text = error.to_string();
    assert!(text.contains(one.uri()) && text.contains(two.uri()) && text.contains("it is full"), "{text}");
    for number in 0..count {
        assert!(spill.get(number, MIB).unwrap() == content(number, MIB));
    }
    // While they are left alone nothing is tried: the answer is the same, and comes at once.
    assert_eq!(refusals(&spill.put(50, content(50, MIB)).unwrap_err()), [Refusal::Full, Refusal::Full]);
    assert_eq!(spill.engine.stats().spilled.failures, 2);

    (0..count).for_each(|number| spill.free(number));
    common::wait(|| spill.put(60, content(60, MIB)).ok());
    assert!(spill.get(60, MIB).unwrap() == content(60, MIB));
    let events: Vec<_> = spill.events.try_iter().collect();
    let suspended = events.iter().filter(|event| matches!(event, Event::Suspended { .. })).count();
    assert_eq!(suspended, 2, "{events:?}");
    assert!(events.iter().any(|event| matches!(event, Event::Recovered { .. })), "{events:?}");
}

#[test]
fn a_directory_that_turns_read_only_keeps_what_it_has() {
    let Some(mount) = small() else { return };
    let dir = dir();
    let spill = Spill::open([mount.uri()], |_| {});
    spill.put(1, content(1, MIB)).unwrap();
    mount.remount("ro");
    assert_eq!(refusals(&spill.put(2, content(2, KIB)).unwrap_err()), [Refusal::ReadOnly]);
    assert!(spill.get(1, MIB).unwrap() == content(1, MIB));
    let event = spill.events.recv().unwrap();
    assert!(matches!(event, Event::Suspended { why: Refusal::ReadOnly, .. }), "{event:?}");

    // Deletion waits until it can be done.
    spill.free(1);
    spill.until(|stats| stats.undeleted_segments == 1);
    mount.remount("rw");
    spill.until(|stats| stats.deleted_segments == 1 && stats.undeleted_segments == 0);
    assert_eq!(segments(mount.path()).len(), 0);

    // Read-only from the start: nothing goes there at all.
    mount.remount("ro");
    let spill = Spill::open([mount.uri(), dir.path().to_str().unwrap()], |_| {});
    for number in 0..4 {
        spill.put(number, content(number, KIB)).unwrap();
    }
    assert_eq!(segments(dir.path()).len(), 4);
}

#[test]
fn a_missing_directory_is_made_and_one_that_can_not_be_is_passed_over() {
    let dir = dir();
    let made = dir.path().join("a/b");
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let spill = Spill::open([&file, &file.join("below"), &made].map(|path| path.to_str().unwrap()), |_| {});
    for number in 0..4 {
        spill.put(number, content(number, KIB)).unwrap();
    }
    assert_eq!(segments(&made).len(), 4);
    let events: Vec<_> = spill.events.try_iter().collect();
    let missing = events.iter().filter(|event| matches!(event, Event::Suspended { why: Refusal::Missing, .. })).count();
    assert_eq!((missing, events.len()), (2, 2), "{events:?}");
}

#[test]
fn a_directory_that_is_removed_loses_its_objects_and_serves_again_when_it_is_back() {
    let dir = dir();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let spill = Spill::open([&one, &two].map(|path| path.to_str().unwrap()), |_| {});
    for number in 0..4 {
        spill.put(number, content(number, KIB)).unwrap();
    }
    std::fs::remove_dir_all(&one).unwrap();
    // A file in its place: it can't be made again yet.
    std::fs::write(&one, "").unwrap();
    let (mut lost, mut kept) = (0, 0);
    for number in 0..4 {
        match spill.get(number, KIB) {
            Ok(bytes) => {
                assert!(bytes == content(number, KIB));
                kept += 1;
            }
            Err(RestoreError::Lost { .. }) => lost += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((lost, kept), (2, 2));
    for number in 10..14 {
        spill.put(number, content(number, KIB)).unwrap();
    }
    assert_eq!(segments(&two).len(), 6);
    std::fs::remove_file(&one).unwrap();
    let mut number = 20;
    common::wait(|| {
        spill.put(number, content(number, KIB)).unwrap();
        number += 1;
        (!segments(&one).is_empty()).then_some(())
    });
    let events: Vec<_> = spill.events.try_iter().collect();
    let kinds = events.iter().map(|event| match event {
        Event::Damaged { .. } => "damaged",
        Event::Suspended { why: Refusal::Missing, .. } => "missing",
        Event::Recovered { .. } => "recovered",
        other => panic!("{other:?}"),
    });
    let kinds: Vec<_> = kinds.collect();
    assert_eq!(kinds, ["damaged", "damaged", "missing", "recovered"]);
    spill.shut();
    assert_eq!(std::fs::read_dir(&one).unwrap().count() + std::fs::read_dir(&two).unwrap().count(), 0);
}

#[test]
fn compaction_that_finds_no_room_leaves_everything_readable() {
    let Some(mount) = small() else { return };
    let spill = Spill::open([mount.uri()], |_| {});
    // One segment of which 1.2 of 3 MiB will be in use: more than there is room for.
    spill.put_all(0, &[600 * KIB; 5]);
    (2..5).for_each(|number| spill.free(number));
    let event = spill.events.recv_timeout(Duration::from_secs(600)).unwrap();
    assert!(matches!(event, Event::Suspended { why: Refusal::Full, .. }), "{event:?}");
    for number in 0..2 {
        assert!(spill.get(number, 600 * KIB).unwrap() == content(number, 600 * KIB));
    }
    common::wait(|| (segments(mount.path()).len() == 1).then_some(())); // nothing is left of the try
    (0..2).for_each(|number| spill.free(number));
    spill.until(|stats| stats.segments == 0 && stats.deleted_segments > 0);
}
