//! Packages by real bytes that mean harm: refused, with nothing written outside and nothing left inside.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use heliostat_package::{Limits, UnpackError, hash, unpack};
use proptest::prelude::*;
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

const LIMITS: Limits = Limits { bytes: 1 << 20, entries: 50 };

/// An entry with a name and a link written as they are, which the library's own setters would refuse.
fn entry(kind: EntryType, name: &str, link: &str, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(size);
    header.set_cksum();
    header
}

fn archive(entries: &[(EntryType, &str, &str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (kind, name, link, data) in entries {
        builder.append(&entry(*kind, name, link, data.len() as u64), *data).unwrap();
    }
    builder.into_inner().unwrap()
}

fn write(temp: &TempDir, tar: &[u8]) -> std::path::PathBuf {
    let package = temp.path().join("package.tar.zst");
    fs::write(&package, zstd::encode_all(tar, 1).unwrap()).unwrap();
    package
}

fn open(tar: &[u8]) -> (TempDir, Result<(), UnpackError>) {
    let temp = tempfile::tempdir().unwrap();
    let package = write(&temp, tar);
    let inner = temp.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let result = unpack(&package, &hash(tar), &inner.join("copy"), LIMITS, &AtomicBool::new(false));
    if result.is_err() {
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 0, "nothing is left inside");
    }
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 2, "nothing was written outside");
    (temp, result)
}

#[track_caller]
fn refused(entries: &[(EntryType, &str, &str, &[u8])], why: &str) {
    let (_temp, result) = open(&archive(entries));
    match result {
        Err(error) => assert!(error.to_string().contains(why), "{error}"),
        Ok(()) => panic!("unpacked what {why}"),
    }
}

use EntryType::{Block, Char, Continuous, Directory, Fifo, GNUSparse, Link, Regular, Symlink};

#[test]
fn the_same_bytes_without_harm_are_unpacked() {
    let tar = archive(&[(Directory, "d/", "", b""), (Regular, "d/f", "", b"x"), (Symlink, "d/l", "../d/f", b"")]);
    let (temp, result) = open(&tar);
    result.unwrap();
    assert_eq!(fs::read_to_string(temp.path().join("inner/copy/d/l")).unwrap(), "x");
}

#[test]
fn paths_that_lead_out_are_refused() {
    refused(&[(Regular, "../evil", "", b"x")], "leads upwards");
    refused(&[(Regular, "/tmp/evil", "", b"x")], "is absolute");
    refused(&[(Directory, "d", "", b""), (Regular, "d/../../evil", "", b"x")], "leads upwards");
    refused(&[(Regular, "a/b", "", b"x")], "is in no directory");
    refused(&[(Directory, "./", "", b"")], "has no name");
}

#[test]
fn links_that_lead_out_are_refused() {
    for target in ["/etc", "..", "../x", "./../x", "d/../..", "d/..", ""] {
        refused(&[(Directory, "d", "", b""), (Symlink, "l", target, b"")], "is a link");
    }
    refused(&[(Directory, "d", "", b""), (Symlink, "d/l", "../..", b"")], "leads out");
    // By way of another link, of which the text alone says nothing.
    refused(
        &[(Directory, "d", "", b""), (Symlink, "d/up", "..", b""), (Symlink, "out", "d/up/..", b"")],
        "leads out, or may",
    );
}

#[test]
fn nothing_is_written_through_a_link() {
    refused(&[(Symlink, "l", "d", b""), (Directory, "d", "", b""), (Regular, "l/f", "", b"x")], "is in no directory");
    refused(&[(Regular, "t", "", b"1"), (Symlink, "l", "t", b""), (Regular, "l", "", b"2")], "comes twice");
    refused(&[(Directory, "d", "", b""), (Symlink, "d", "x", b"")], "comes twice");
}

#[test]
fn other_kinds_are_refused() {
    for kind in [Link, Char, Block, Fifo, Continuous, GNUSparse] {
        let (_temp, result) = open(&archive(&[(Regular, "f", "", b"x"), (kind, "g", "f", b"")]));
        assert!(matches!(result, Err(UnpackError::Refused { .. } | UnpackError::Read(_))), "{kind:?}: {result:?}");
    }
}

#[test]
fn bombs_are_refused_by_what_they_hold() {
    // 1 GiB of zeros in some kilobytes.
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(entry(Regular, "zeros", "", 1 << 30).as_bytes()).unwrap();
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), 1 << 30), &mut encoder).unwrap();
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < 1 << 20);
    let temp = tempfile::tempdir().unwrap();
    let package = temp.path().join("bomb");
    fs::write(&package, bomb).unwrap();
    let result = unpack(&package, &[0; 32], &temp.path().join("copy"), LIMITS, &AtomicBool::new(false));
    assert!(matches!(result, Err(UnpackError::TooLarge(_))), "{result:?}");
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);

    let names: Vec<String> = (0..60).map(|index| format!("f{index}")).collect();
    let many: Vec<_> = names.iter().map(|name| (Regular, &**name, "", &b""[..])).collect();
    refused(&many, "more than 50 entries");
}

#[test]
fn a_long_name_takes_no_more_memory_than_a_package_may_have() {
    // 64 MiB that are declared to be a name.
    let mut tar = Vec::from(entry(EntryType::GNULongName, "././@LongLink", "", 64 << 20).as_bytes());
    tar.resize(tar.len() + (64 << 20), b'a');
    tar.extend(archive(&[(Regular, "f", "", b"x")]));
    let (_temp, result) = open(&tar);
    assert!(matches!(result, Err(UnpackError::TooLarge(_))), "{result:?}");
}

#[test]
fn declared_and_real_sizes_must_agree() {
    let mut tar = Vec::from(entry(Regular, "f", "", 5000).as_bytes());
    tar.extend([1; 700]);
    let (_temp, result) = open(&tar);
    assert!(result.is_err());
    let mut tar = Vec::from(entry(Regular, "f", "", u64::MAX >> 12).as_bytes());
    tar.extend([1; 700]);
    let (_temp, result) = open(&tar);
    assert!(result.is_err());
}

#[test]
fn contents_of_another_hash_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let package = write(&temp, &archive(&[(Regular, "f", "", b"x")]));
    let other = hash(&archive(&[(Regular, "f", "", b"y")]));
    let result = unpack(&package, &other, &temp.path().join("copy"), LIMITS, &AtomicBool::new(false));
    assert!(matches!(result, Err(UnpackError::WrongHash)), "{result:?}");
    assert!(!temp.path().join("copy").exists());
}

#[test]
fn it_stops_when_told_and_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let tar = archive(&[(Regular, "f", "", b"x")]);
    let package = write(&temp, &tar);
    let result = unpack(&package, &hash(&tar), &temp.path().join("copy"), LIMITS, &AtomicBool::new(true));
    assert!(matches!(result, Err(UnpackError::Stopped)), "{result:?}");
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
}

fn tree(root: &Path) -> usize {
    fs::read_dir(root).map_or(0, |entries| entries.flatten().map(|entry| 1 + tree(&entry.path())).sum())
}

proptest! {
    #[test]
    fn damaged_packages_are_errors_and_nothing_else(at in 0_usize..4096, byte in any::<u8>(), cut in 0_usize..4096) {
        let tar = archive(&[(Directory, "d/", "", b""), (Regular, "d/f", "", &[7; 700]), (Symlink, "l", "d/f", b"")]);
        let temp = tempfile::tempdir().unwrap();
        let mut damaged = tar.clone();
        damaged.truncate(cut.max(1));
        let at = at % damaged.len();
        damaged[at] = byte;
        let package = write(&temp, &damaged);
        let result = unpack(&package, &hash(&tar), &temp.path().join("copy"), LIMITS, &AtomicBool::new(false));
        prop_assert_eq!(result.is_ok(), damaged == tar);
        if result.is_err() {
            prop_assert_eq!(tree(temp.path()), 1, "the package alone");
        }
    }

    #[test]
    fn any_bytes_are_errors(bytes in proptest::collection::vec(any::<u8>(), 0..2000), compressed in any::<bool>()) {
        let temp = tempfile::tempdir().unwrap();
        let package = temp.path().join("package");
        fs::write(&package, if compressed { zstd::encode_all(&bytes[..], 1).unwrap() } else { bytes }).unwrap();
        let result = unpack(&package, &[1; 32], &temp.path().join("copy"), LIMITS, &AtomicBool::new(false));
        prop_assert!(result.is_err());
        prop_assert_eq!(tree(temp.path()), 1);
    }
}
