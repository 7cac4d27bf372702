//! Damage of every kind is found: exact bytes or a typed error, never anything else.

mod common;

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use common::{KIB, MIB, Random, Spill, content, segments};
use heliostat_spill::{Corruption, RestoreError, format};

/// How many corruptions: 10,000, or what this variable says.
const COUNT: &str = "HELIOSTAT_CORRUPTIONS";

/// Memory, where there is some to be had as files: this is about bytes, and there are many of them.
fn dir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    tempfile::tempdir_in(if memory.is_dir() { memory } else { Path::new(env!("CARGO_TARGET_TMPDIR")) }).unwrap()
}

/// A segment file and what lies in it.
struct File {
    path: PathBuf,
    bytes: Vec<u8>,
    /// Number of the object, where it begins, its length.
    objects: Vec<(u32, usize, usize)>,
}

impl File {
    fn load(path: PathBuf) -> Self {
        let bytes = std::fs::read(&path).unwrap();
        let (.., records) = format::read(&bytes).unwrap();
        let number = |id: [u8; 28]| u32::from_le_bytes(id[..4].try_into().unwrap());
        let objects = records
            .iter()
            .map(|record| (number(record.key.id.0), record.offset as usize, record.length as usize))
            .collect();
        Self { path, bytes, objects }
    }

    /// Numbers and lengths of the objects of which a byte differs.
    fn damaged(&self, now: &[u8]) -> Vec<(u32, usize)> {
        let touched = |&&(_, start, length): &&(u32, usize, usize)| {
            now.get(start..start + length) != self.bytes.get(start..start + length)
        };
        self.objects.iter().filter(touched).map(|&(number, _, length)| (number, length)).collect()
    }

    /// Whether a byte that means something differs.
    fn is_damaged(&self, now: &[u8]) -> bool {
        let index = u64::from_le_bytes(self.bytes[self.bytes.len() - 56..][..8].try_into().unwrap()) as usize;
        let length = u64::from_le_bytes(self.bytes[self.bytes.len() - 48..][..8].try_into().unwrap()) as usize;
        let known = [(0, 4096), (index, length), (self.bytes.len() - 64, 64)];
        let parts = known.into_iter().chain(self.objects.iter().map(|&(_, start, length)| (start, length)));
        now.len() != self.bytes.len() || { parts }
            .any(|(start, length)| now[start..start + length] != self.bytes[start..start + length])
    }
}

/// Damages bytes, one way or another. May leave them as they are.
fn damage(random: &mut Random, files: &[File], which: usize) -> Vec<u8> {
    let file = &files[which];
    let mut bytes = file.bytes.clone();
    let length = bytes.len() as u64;
    // Half of the time inside an object: those are what a user gets.
    let &(_, start, size) = &file.objects[random.below(file.objects.len() as u64) as usize];
    let inside = size > 0 && random.below(2) == 0;
    let at = if inside { start + random.below(size as u64) as usize } else { random.below(length) as usize };
    let span = (1 + random.below_one_of(&[1, 64, 4096, length])).min(bytes.len() - at);
    match random.below(6) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at..at + span].fill(0),
        2 => bytes[at..at + span].fill(0xFF),
        3 => bytes.truncate(at),
        // Another place of the same file: blocks that went astray.
        4 => {
            let from = random.below(length - span as u64 + 1) as usize;
            bytes.copy_within(from..from + span, at);
        }
        // Another file in its place, or a part of it.
        _ => {
            let other = &files[(which + 1 + random.below(files.len() as u64 - 1) as usize) % files.len()].bytes;
            if random.below(2) == 0 {
                bytes.clone_from(other);
            } else {
                let (start, end) = (at.min(other.len()), (at + span).min(other.len()));
                bytes[start..end].copy_from_slice(&other[start..end]);
            }
        }
    }
    bytes
}

#[test]
fn random_damage_is_always_found() {
    let count: u64 = std::env::var(COUNT).map_or(10_000, |text| text.parse().unwrap());
    let dir = dir();
    let spill = Spill::open([dir.path().to_str().unwrap()], |_| {});
    let mut random = Random(6);
    for batch in 0..12 {
        // Every third has the very lengths of the one before: only the content and the names differ.
        let seed = batch - u32::from(batch % 3 == 2);
        let mut shape = Random(seed.into());
        let lengths: Vec<usize> =
            (0..2 + shape.below(12)).map(|_| shape.below_one_of(&[100, 5_000, 20_000, 90_000])).collect();
        spill.put_all(batch * 100, &lengths);
    }
    let files: Vec<_> = segments(dir.path()).into_iter().map(File::load).collect();
    assert_eq!(files.len(), 12);
    let (mut done, mut objects) = (0, 0);
    while done < count {
        let which = random.below(files.len() as u64) as usize;
        let file = &files[which];
        let bytes = damage(&mut random, &files, which);
        if bytes == file.bytes {
            continue;
        }
        done += 1;
        let handle = std::fs::OpenOptions::new().write(true).open(&file.path).unwrap();
        handle.set_len(bytes.len() as u64).unwrap();
        handle.write_all_at(&bytes, 0).unwrap();
        let damaged = file.damaged(&bytes);
        objects += damaged.len();
        for &(number, length) in &damaged {
            match spill.get(number, length) {
                Err(RestoreError::Corrupted { .. }) => {}
                other => panic!("corruption {done}, object {number}: {:?}", other.map(|bytes| bytes.len())),
            }
            let (start, part) = (random.below(length as u64), random.below(length as u64) as usize);
            let part = part.min(length - start as usize);
            if let Ok(bytes) = spill.range(number, start, part) {
                assert!(bytes == content(number, length)[start as usize..][..part], "corruption {done}, a range");
            }
        }
        let &(number, _, length) = &file.objects[random.below(file.objects.len() as u64) as usize];
        if !damaged.contains(&(number, length)) {
            assert!(
                spill.get(number, length).unwrap() == content(number, length),
                "undamaged neighbours stay readable"
            );
        }
        // The file tells by itself as well, headers and index included.
        // A whole other file is a good file: what gives it away is that it is not the one that was asked for.
        let is_another = files.iter().any(|other| other.bytes == bytes);
        assert_eq!(format::read(&bytes).is_err(), file.is_damaged(&bytes) && !is_another);
        handle.set_len(file.bytes.len() as u64).unwrap();
        handle.write_all_at(&file.bytes, 0).unwrap();
    }
    for file in &files {
        for &(number, _, length) in &file.objects {
            assert!(spill.get(number, length).unwrap() == content(number, length));
        }
    }
    println!("{done} corruptions, {objects} objects damaged, all found");
    assert!(objects as u64 > count / 2);
}

#[test]
fn damage_is_told_by_its_kind_and_once_for_a_segment() {
    let dir = dir();
    let spill = Spill::open([dir.path().to_str().unwrap()], |_| {});
    let size = 3 * MIB + 100;
    spill.put_all(0, &[size, KIB]);
    spill.put_all(10, &[size, KIB]);
    let files = segments(dir.path());
    let good: Vec<_> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    let kind = |number, length| match spill.get(number, length) {
        Err(RestoreError::Corrupted { what, .. }) => what,
        other => panic!("{:?}", other.map(|bytes| bytes.len())),
    };

    std::fs::write(&files[0], &good[1]).unwrap();
    std::fs::write(&files[1], &good[0]).unwrap();
    assert_eq!(kind(0, size), Corruption::OtherSegment);
    assert_eq!(kind(11, KIB), Corruption::OtherSegment);

    let mut flipped = good[0].clone();
    flipped[4096 + 2 * MIB] ^= 0x80;
    std::fs::write(&files[0], &flipped).unwrap();
    assert_eq!(kind(0, size), Corruption::Checksum { chunk: 2 });

    for length in [0, 4096, 4096 + MIB, good[0].len() / 4096 * 4096 - 8192] {
        std::fs::write(&files[0], &good[0][..length]).unwrap();
        assert_eq!(kind(0, size), Corruption::CutOff, "{length}");
    }
    // Torn: as long as it should be, but the end was never written.
    let mut torn = good[0].clone();
    torn[4096 + MIB..].fill(0);
    std::fs::write(&files[0], &torn).unwrap();
    assert_eq!(kind(0, size), Corruption::Checksum { chunk: 1 });

    std::fs::remove_file(&files[0]).unwrap();
    assert!(matches!(spill.get(1, KIB), Err(RestoreError::Lost { .. })));
    let events = spill.events.try_iter().count();
    assert_eq!(events, 2, "one line for each segment");
}

#[test]
fn compaction_moves_no_damaged_object() {
    let dir = dir();
    let spill = Spill::open([dir.path().to_str().unwrap()], |_| {});
    spill.put_all(0, &[100 * KIB; 10]);
    let file = segments(dir.path()).remove(0);
    let mut file = File::load(file);
    file.bytes[file.objects[0].1] ^= 1;
    std::fs::write(&file.path, &file.bytes).unwrap();
    (3..10).for_each(|number| spill.free(number));
    spill.until(|stats| stats.segments == 2 && stats.compacted_bytes > 0);
    for _ in 0..2 {
        assert!(matches!(spill.get(0, 100 * KIB), Err(RestoreError::Corrupted { .. })));
        (1..3).for_each(|number| assert!(spill.get(number, 100 * KIB).unwrap() == content(number, 100 * KIB)));
    }
    (0..3).for_each(|number| spill.free(number));
    spill.until(|stats| stats.segments == 0);
}
