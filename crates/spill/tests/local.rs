//! Directories: what goes out comes back, and nothing stays.

mod common;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use common::{KIB, MIB, Mount, Random, Spill, aligned, content, files, key, segments, wait};
use heliostat_spill::{Corruption, RestoreError, SpillError, format};

const SIZES: [usize; 14] =
    [0, 1, 63, 64, 4095, 4096, 4097, 64 * KIB - 1, 64 * KIB, MIB - 1, MIB, MIB + 1, 9 * MIB + 5, 33 * MIB + 4096];

/// The directory of the build: on a disk, as far as there is one.
fn dir() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn uri(dir: &tempfile::TempDir) -> String {
    dir.path().to_str().unwrap().to_owned()
}

#[test]
fn objects_of_every_size_come_back_exactly_from_aligned_and_unaligned_memory() {
    let dir = dir();
    let spill = Spill::open([uri(&dir)], |_| {});
    spill.put_all(0, &SIZES);
    for (number, &size) in (100..).zip(&SIZES) {
        spill.put(number, aligned(&content(number, size))).unwrap();
    }
    for first in [0, 100] {
        for (number, &size) in (first..).zip(&SIZES) {
            assert!(spill.get(number, size).unwrap() == content(number, size), "{number}: {size} bytes");
        }
    }
    let stats = spill.engine.stats();
    assert_eq!((stats.spilled.objects, stats.restored.objects), (28, 28));
    assert_eq!(stats.spilled.bytes, 2 * SIZES.iter().sum::<usize>() as u64);
    assert_eq!(stats.spilled.bytes, stats.restored.bytes);
    assert!(stats.spilled.throughput() > 0.0 && stats.restored.throughput() > 0.0);
    assert_eq!((stats.objects, stats.segments), (28, 15));
    spill.shut();
    assert_eq!(files(dir.path()), [""; 0].map(std::path::PathBuf::from));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the session's directory is gone");
}

/// A part of some memory: where it begins, how long it is.
struct Part(Vec<u8>, usize, usize);

impl AsMut<[u8]> for Part {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0[self.1..self.1 + self.2]
    }
}

#[test]
fn aligned_targets_are_filled_where_they_lie() {
    let dir = dir();
    let spill = Spill::open([uri(&dir)], |_| {});
    let size = 20 * MIB + 777;
    spill.put(1, aligned(&content(1, size))).unwrap();
    let space = vec![0xEE; size + 4096];
    let start = space.as_ptr().align_offset(4096);
    let (sender, results) = mpsc::channel();
    spill.engine.restore(&key(1), Part(space, start, size), move |part, result| sender.send((part, result)).unwrap());
    let (mut part, result) = results.recv().unwrap();
    assert_eq!(result, Ok(()));
    assert!(*part.as_mut() == content(1, size));
    assert!(part.0[start + size..].iter().all(|&byte| byte == 0xEE), "nothing behind the target was touched");
}

#[test]
fn ranges_are_exact_wherever_they_begin_and_end() {
    let dir = dir();
    let spill = Spill::open([uri(&dir)], |_| {});
    let sizes = [100, 70 * KIB, 3 * MIB + 17, 20 * MIB];
    spill.put_all(0, &sizes);
    let mut random = Random(1);
    for (number, &size) in (0..).zip(&sizes) {
        let whole = content(number, size);
        let mut ranges = vec![(0, 0), (size, 0), (0, size), (size - 1, 1), (0, 1)];
        for _ in 0..40 {
            let start = random.below(size as u64) as usize;
            ranges.push((start, random.below((size - start) as u64 + 1) as usize));
        }
        for (start, length) in ranges {
            let bytes = spill.range(number, start as u64, length).unwrap();
            assert!(bytes == whole[start..start + length], "{start} + {length} of {size}");
        }
        for (start, length) in [(0, size + 1), (size + 1, 0), (size, 1)] {
            let error = spill.range(number, start as u64, length).unwrap_err();
            assert!(matches!(error, RestoreError::OutOfRange { .. }), "{error}");
        }
        assert!(matches!(spill.range(number, u64::MAX, 2), Err(RestoreError::OutOfRange { .. })));
        assert!(matches!(spill.get(number, size - 1), Err(RestoreError::OutOfRange { .. })), "a part is not the whole");
    }
}

#[test]
fn a_range_reads_its_own_chunks_only() {
    let dir = dir();
    let spill = Spill::open([uri(&dir)], |_| {});
    let size = 8 * MIB;
    spill.put(1, content(1, size)).unwrap();
    let file = segments(dir.path()).remove(0);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[4096 + 5 * MIB + 3] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let whole = content(1, size);
    assert!(spill.range(1, 0, 5 * MIB).unwrap() == whole[..5 * MIB]);
    assert!(spill.range(1, 6 * MIB as u64, 2 * MIB).unwrap() == whole[6 * MIB..]);
    for (start, length) in [(5 * MIB, 1), (6 * MIB - 1, 2), (0, size), (5 * MIB - 1, 2)] {
        let error = spill.range(1, start as u64, length).unwrap_err();
        let damage = |what| matches!(what, Corruption::Checksum { chunk: 5 });
        assert!(matches!(error, RestoreError::Corrupted { what, .. } if damage(what)), "{error}");
    }
}

#[test]
fn small_objects_are_fused_until_a_segment_is_full_or_the_time_is_over() {
    let dir = dir();
    let spill = Spill::open([uri(&dir)], |config| {
        config.min_spilling_size = 100 * KIB as u64;
    });
    let results: Vec<_> = (0..100).map(|number| spill.start(number, content(number, KIB))).collect();
    for result in results {
        result.recv().unwrap().unwrap();
    }
    assert_eq!(segments(dir.path()).len(), 1);
    let waiting = spill.start(100, content(100, KIB));
    assert!(waiting.try_recv().is_err());
    spill.engine.flush();
    waiting.recv().unwrap().unwrap();
    assert_eq!(segments(dir.path()).len(), 2);
    spill.start(101, content(101, 200 * KIB)).recv().unwrap().unwrap();
    assert_eq!(segments(dir.path()).len(), 3, "a large one waits for nobody");

    let patient = Spill::open([uri(&dir)], |config| config.flush_after = Duration::MAX);
    patient.put(0, content(0, KIB)).unwrap();
    let hasty = Spill::open([uri(&dir)], |config| config.flush_after = Duration::from_millis(1));
    hasty.start(0, content(0, KIB)).recv().unwrap().unwrap();
}

#[test]
fn files_are_as_documented_private_and_of_this_session() {
    let dir = dir();
    let spill = Spill::open([uri(&dir)], |_| {});
    let sizes = [10, 0, 70 * KIB, MIB + 1, 3];
    spill.put_all(7, &sizes);
    let folder = dir.path().join(spill.session.folder());
    assert_eq!(std::fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
    for file in files(dir.path()) {
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
    let file = segments(&folder).remove(0);
    let bytes = std::fs::read(&file).unwrap();
    let (session, number, records) = format::read(&bytes).unwrap();
    assert_eq!((session, file.file_name().unwrap().to_str().unwrap()), (spill.session, &*format!("{number:016x}.seg")));
    for ((number, size), record) in (7..).zip(sizes).zip(&records) {
        assert_eq!((record.key, record.length), (key(number), size as u64));
        assert!(bytes[record.offset as usize..][..size] == content(number, size));
        assert!(record.offset.is_multiple_of(if size >= 64 * KIB { 4096 } else { 64 }));
    }
    assert_eq!(records.len(), sizes.len());
}

#[test]
fn a_link_in_a_files_place_is_not_followed() {
    let (dir, other) = (dir(), dir());
    let spill = Spill::open([uri(&dir)], |_| {});
    spill.put(1, content(1, KIB)).unwrap();
    let file = segments(dir.path()).remove(0);
    let moved = other.path().join("moved");
    std::fs::rename(&file, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &file).unwrap();
    assert!(matches!(spill.get(1, KIB), Err(RestoreError::Lost { .. })));

    // Neither is a directory in the session's place that others could write to.
    let session = heliostat_spill::Session::random().unwrap();
    std::fs::create_dir(other.path().join(session.folder())).unwrap();
    let spill = Spill::open([uri(&other)], |config| config.session = session);
    let error = spill.put(1, content(1, KIB)).unwrap_err();
    assert!(error.to_string().contains("access is denied"), "{error}");
}

#[test]
fn freed_objects_take_their_segment_with_them() {
    let dir = dir();
    let spill = Spill::open([uri(&dir)], |_| {});
    spill.put_all(0, &[KIB; 10]);
    spill.put_all(10, &[KIB; 10]);
    (0..10).for_each(|number| spill.free(number));
    spill.until(|stats| stats.segments == 1); // on the way it is compacted, perhaps
    wait(|| (segments(dir.path()).len() == 1).then_some(()));
    assert_eq!(spill.get(3, KIB), Err(RestoreError::NotSpilled));
    assert!(!spill.engine.free(&key(3)), "it is gone already");
    (10..20).for_each(|number| spill.free(number));
    let stats = spill.until(|stats| stats.segments == 0 && stats.deleted_segments >= 2);
    assert_eq!((stats.objects, stats.object_bytes, stats.file_bytes), (0, 0, 0));
    wait(|| segments(dir.path()).is_empty().then_some(()));
}

#[test]
fn segments_under_half_in_use_are_compacted_and_the_rest_stays_readable() {
    let dir = dir();
    let spill = Spill::open([uri(&dir)], |_| {});
    let sizes = [10 * KIB, 200 * KIB, MIB + 9, 100];
    for first in [0, 100, 200] {
        let lengths: Vec<usize> = sizes.iter().copied().cycle().take(20).collect();
        spill.put_all(first, &lengths);
    }
    let before = spill.engine.stats();
    for first in [0, 100, 200] {
        (first..first + 20).filter(|number| number % 4 != 0 || number % 20 == 4).for_each(|number| spill.free(number));
    }
    let stats = spill.until(|stats| stats.deleted_segments >= 3 && stats.objects == 12);
    assert!(stats.compacted_bytes >= 12 * 10 * KIB as u64, "{stats:?}");
    assert!(stats.file_bytes < before.file_bytes / 10, "{stats:?}");
    for first in [0, 100, 200] {
        for number in (first..first + 20).filter(|number| number % 4 == 0 && number % 20 != 4) {
            assert!(spill.get(number, 10 * KIB).unwrap() == content(number, 10 * KIB));
        }
    }
    wait(|| (segments(dir.path()).len() as u64 == spill.engine.stats().segments).then_some(()));
    let on_disk: u64 = segments(dir.path()).iter().map(|file| file.metadata().unwrap().len()).sum();
    assert_eq!(on_disk, spill.engine.stats().file_bytes);
}

#[test]
fn an_object_freed_before_it_is_written_completes_as_freed() {
    let dir = dir();
    let spill = Spill::open([uri(&dir)], |_| {});
    let (one, other) = (spill.start(1, content(1, KIB)), spill.start(2, content(2, KIB)));
    assert_eq!(spill.start(2, content(2, KIB)).recv().unwrap(), Err(SpillError::AlreadySpilled));
    spill.free(1);
    assert_eq!(one.recv().unwrap(), Err(SpillError::Freed));
    spill.engine.flush();
    assert_eq!(other.recv().unwrap(), Ok(()));
    assert_eq!(spill.start(2, content(2, KIB)).recv().unwrap(), Err(SpillError::AlreadySpilled));

    // While it is being written: either way the engine has it no more, and no file stays.
    let large = spill.start(3, content(3, 40 * MIB));
    spill.engine.flush();
    spill.free(3);
    assert!(matches!(large.recv().unwrap(), Ok(()) | Err(SpillError::Freed)));
    assert_eq!(spill.get(3, 40 * MIB), Err(RestoreError::NotSpilled));
    wait(|| (segments(dir.path()).len() == 1).then_some(()));
}

#[test]
fn a_copy_of_another_generation_is_another_object() {
    let dir = dir();
    let spill = Spill::open([uri(&dir)], |_| {});
    spill.put(1, content(1, KIB)).unwrap();
    let (sender, results) = mpsc::channel();
    let next = heliostat_spill::Key { generation: 9, ..key(1) };
    spill.engine.restore(&next, vec![0; KIB], move |_, result| sender.send(result).unwrap());
    assert_eq!(results.recv().unwrap(), Err(RestoreError::NotSpilled));
}

#[test]
fn bytes_are_let_go_before_their_completion() {
    struct Pin(Vec<u8>, mpsc::Sender<()>);
    impl AsRef<[u8]> for Pin {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    impl Drop for Pin {
        fn drop(&mut self) {
            self.1.send(()).unwrap();
        }
    }
    let dir = dir();
    let spill = Spill::open([uri(&dir)], |_| {});
    for size in [KIB, 10 * MIB] {
        let (sender, dropped) = mpsc::channel();
        let pinned = Bytes::from_owner(Pin(vec![1; size], sender));
        let (sender, results) = mpsc::channel();
        spill.engine.spill(key(size as u32), pinned, move |result| sender.send((result, dropped.try_recv())).unwrap());
        spill.engine.flush();
        assert_eq!(results.recv().unwrap(), (Ok(()), Ok(())), "{size}");
    }
}

#[test]
fn segments_go_to_all_directories() {
    let (one, two) = (dir(), dir());
    let spill = Spill::open([uri(&one), format!("file://{}", uri(&two))], |_| {});
    for number in 0..8 {
        spill.put(number, content(number, KIB)).unwrap();
    }
    assert_eq!((segments(one.path()).len(), segments(two.path()).len()), (4, 4));
    let (path, length) = spill.engine.locate(&key(0)).unwrap();
    assert!(length == KIB as u64 && [uri(&one), uri(&two)].iter().any(|uri| uri == path), "{path}");
}

#[test]
fn a_file_system_without_direct_io_is_used_through_the_cache() {
    let Some(mount) = Mount::new("ramfs", "mode=700") else { return };
    let spill = Spill::open([mount.uri()], |_| {});
    spill.put_all(0, &SIZES);
    for (number, &size) in (0..).zip(&SIZES) {
        assert!(spill.get(number, size).unwrap() == content(number, size), "{size}");
    }
    assert!(format::read(&std::fs::read(segments(mount.path()).remove(0)).unwrap()).is_ok());
}

#[test]
fn after_shutdown_everything_completes_and_nothing_is_left() {
    let dir = dir();
    let spill = Spill::open([uri(&dir)], |_| {});
    spill.put(1, content(1, KIB)).unwrap();
    let waiting = spill.start(2, content(2, KIB));
    let large: Vec<_> = (10..20).map(|number| spill.start(number, content(number, 101 * MIB))).collect();
    spill.shut();
    assert_eq!(waiting.recv().unwrap(), Err(SpillError::ShutDown));
    for result in large {
        assert!(matches!(result.recv().unwrap(), Ok(()) | Err(SpillError::ShutDown)));
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    spill.shut();
    // Who comes later is told so.
    assert_eq!(spill.put(30, content(30, KIB)), Err(SpillError::ShutDown));
    assert_eq!(spill.get(1, KIB), Err(RestoreError::ShutDown));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn settings_that_can_not_work_are_refused_with_a_reason() {
    use heliostat_spill::{Config, Engine, Session};
    let open = |uris: &[&str], change: fn(&mut Config)| {
        let mut config = Config::new(uris.iter().copied(), Session([1; 16]));
        change(&mut config);
        Engine::open(config).unwrap_err().to_string()
    };
    assert!(open(&[], |_| {}).contains("no directory"));
    assert!(
        open(&["/tmp"], |config| config.max_io_workers = 0).contains("maxIoWorkers is 0, but must be from 1 to 64")
    );
    assert!(open(&["/tmp"], |config| config.min_spilling_size = 0).contains("minSpillingSize"));
    assert!(open(&["gs://bucket/prefix"], |_| {}).contains("experimental"));
    assert!(open(&["ftp://host"], |_| {}).contains("use a path"));
    let unknown = |config: &mut Config| config.storage = [("colour", "blue")].into_iter().collect();
    let error = open(&["s3://bucket"], unknown);
    assert!(error.contains("`colour` is not known") && !error.contains("blue"), "{error}");
}
