//! What is packed comes out again, and what comes out depends on contents alone.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use heliostat_package::{Limits, PackError, Packed, pack, unpack};
use proptest::prelude::*;
use tempfile::TempDir;

/// What is at a path: a directory, a file's bytes and whether it is executable, or a link's target.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    Directory,
    File(Vec<u8>, bool),
    Link(PathBuf),
}

fn look(root: &Path) -> BTreeMap<PathBuf, Found> {
    let mut found = BTreeMap::new();
    let mut next = vec![root.to_owned()];
    while let Some(directory) = next.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let what = if metadata.is_symlink() {
                Found::Link(fs::read_link(&path).unwrap())
            } else if metadata.is_dir() {
                next.push(path.clone());
                Found::Directory
            } else {
                Found::File(fs::read(&path).unwrap(), metadata.permissions().mode() & 0o111 != 0)
            };
            found.insert(path.strip_prefix(root).unwrap().to_owned(), what);
        }
    }
    found
}

struct Place {
    temp: TempDir,
    source: PathBuf,
    packages: PathBuf,
}

impl Place {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let [source, packages] = ["source", "packages"].map(|name| temp.path().join(name));
        fs::create_dir(&source).unwrap();
        fs::create_dir(&packages).unwrap();
        Self { temp, source, packages }
    }

    fn write(&self, path: &str, contents: impl AsRef<[u8]>) {
        let path = self.source.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    fn pack(&self) -> Result<Packed, PackError> {
        pack(&self.source, &self.packages, &[], Limits::default())
    }

    fn names(&self) -> Vec<String> {
        let packed = self.pack().unwrap();
        let copy = self.temp.path().join(format!("copy-{}", heliostat_package::hex(&packed.hash)));
        unpack(&packed.file, &packed.hash, &copy, Limits::default(), &AtomicBool::new(false)).unwrap();
        look(&copy).into_keys().map(|path| path.to_str().unwrap().to_owned()).collect()
    }
}

/// Names that are hard on archives: long, not ASCII, with blanks and line feeds.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![6 => "[a-z]{1,3}", 1 => "[a-z]{90,120}", 1 => "[äß☃ \n*?\\[]{1,4}", 1 => Just("...".to_owned())]
}

#[derive(Debug, Clone)]
enum Make {
    File(Vec<u8>, bool),
    Directory,
    Link(usize),
}

fn make() -> impl Strategy<Value = Make> {
    prop_oneof![
        4 => (proptest::collection::vec(any::<u8>(), 0..2000), any::<bool>()).prop_map(|(bytes, x)| Make::File(bytes, x)),
        1 => Just(Make::Directory),
        1 => (0_usize..8).prop_map(Make::Link),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_comes_out_is_what_went_in(
        things in proptest::collection::vec((proptest::collection::vec(name(), 1..5), make()), 0..25),
    ) {
        let place = Place::new();
        let mut made: Vec<PathBuf> = Vec::new();
        for (path, make) in things {
            let path = place.source.join(path.iter().collect::<PathBuf>());
            // A path may lead through a file, or exist already.
            if fs::create_dir_all(path.parent().unwrap()).is_err() || fs::symlink_metadata(&path).is_ok() {
                continue;
            }
            match make {
                Make::Directory => fs::create_dir(&path).unwrap(),
                Make::File(bytes, executable) => {
                    fs::write(&path, bytes).unwrap();
                    let mode = if executable { 0o755 } else { 0o600 };
                    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
                }
                Make::Link(nth) => {
                    let Some(target) = made.get(nth) else { continue };
                    let real = fs::canonicalize(path.parent().unwrap()).unwrap();
                    let root = fs::canonicalize(&place.source).unwrap();
                    let up = real.strip_prefix(root).unwrap().components().count();
                    let way: PathBuf = (0..up).map(|_| "..").collect();
                    symlink(way.join(target.strip_prefix(&place.source).unwrap()), &path).unwrap();
                }
            }
            made.push(path);
        }
        let before = look(&place.source);
        let packed = place.pack().unwrap();
        let copy = place.temp.path().join("copy");
        unpack(&packed.file, &packed.hash, &copy, Limits::default(), &AtomicBool::new(false)).unwrap();
        prop_assert_eq!(look(&copy), before);
        // Packed again, from the copy: the same name.
        let again = pack(&copy, &place.packages, &[], Limits::default()).unwrap();
        prop_assert_eq!(again.hash, packed.hash);
        prop_assert_eq!(fs::read_dir(&place.packages).unwrap().count(), 1, "nothing else is left");
    }
}

#[test]
fn times_and_owners_do_not_count_and_contents_do() {
    let place = Place::new();
    place.write("a.js", "1");
    let first = place.pack().unwrap();
    place.write("a.js", "1");
    let file = fs::File::options().write(true).open(place.source.join("a.js")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(place.pack().unwrap().hash, first.hash);
    place.write("a.js", "2");
    assert_ne!(place.pack().unwrap().hash, first.hash);
}

#[test]
fn ignore_files_count_nearest_first_and_ours_before_gits() {
    let place = Place::new();
    place.write(".gitignore", "dist/\n*.log\nsecret.env\n");
    place.write(".heliostatignore", "data/\n!dist/\n!lib/node_modules/\n");
    place.write("deep/.heliostatignore", "!kept.log\n/only-here\n");
    for path in [
        "dist/out.js",
        "data/big.bin",
        "a.log",
        "secret.env",
        "deep/kept.log",
        "deep/b.log",
        "deep/only-here",
        "only-here",
        "node_modules/x/index.js",
        "deep/node_modules/y.js",
        "lib/node_modules/kept.js",
        ".git/HEAD",
        ".hidden",
    ] {
        place.write(path, path);
    }
    let files: Vec<String> = place.names();
    assert_eq!(
        files,
        [
            ".gitignore",
            ".heliostatignore",
            ".hidden",
            "deep",
            "deep/.heliostatignore",
            "deep/kept.log",
            "dist",
            "dist/out.js",
            "lib",
            "lib/node_modules",
            "lib/node_modules/kept.js",
            "only-here"
        ]
    );
}

#[test]
fn what_is_excepted_stays_out() {
    let place = Place::new();
    place.write("tmp/session/node.sock", "");
    place.write("a", "");
    let packed = pack(&place.source, &place.packages, &[place.source.join("tmp")], Limits::default()).unwrap();
    let copy = place.temp.path().join("copy");
    unpack(&packed.file, &packed.hash, &copy, Limits::default(), &AtomicBool::new(false)).unwrap();
    assert_eq!(look(&copy).len(), 1);
}

#[test]
fn too_large_names_the_biggest_files_without_reading_them() {
    let place = Place::new();
    place.write("small", "x");
    for (name, size) in [("huge.bin", 1 << 40), ("big.bin", 1 << 30)] {
        fs::File::create(place.source.join(name)).unwrap().set_len(size).unwrap();
    }
    let error = place.pack().unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, PackError::TooLarge { .. }), "{text}");
    assert!(text.contains("huge.bin (1048576.0 MiB), big.bin (1024.0 MiB), small (1 bytes)"), "{text}");
    assert!(error.hint().contains(".heliostatignore"));
    assert_eq!(fs::read_dir(&place.packages).unwrap().count(), 0);
}

#[test]
fn too_many_names_the_directory_with_most() {
    let place = Place::new();
    for index in 0..30 {
        place.write(&format!("many/{index}"), "");
    }
    place.write("a/b", "");
    let limits = Limits { entries: 20, ..Limits::default() };
    let error = pack(&place.source, &place.packages, &[], limits).unwrap_err().to_string();
    assert!(error.contains("more than 20 files and directories; many alone has 18"), "{error}");
}

#[test]
fn links_stay_inside_or_are_refused_by_name() {
    let place = Place::new();
    place.write("dir/file", "text");
    let inside = place.source.join("dir/file");
    symlink(&inside, place.source.join("absolute")).unwrap();
    symlink("dir/../dir/file", place.source.join("winding")).unwrap();
    symlink("..", place.source.join("dir/up")).unwrap();
    symlink("nowhere", place.source.join("dangling")).unwrap();
    let packed = place.pack().unwrap();
    let copy = place.temp.path().join("copy");
    unpack(&packed.file, &packed.hash, &copy, Limits::default(), &AtomicBool::new(false)).unwrap();
    let found = look(&copy);
    assert_eq!(found[Path::new("absolute")], Found::Link("dir/file".into()));
    assert_eq!(found[Path::new("winding")], Found::Link("dir/file".into()));
    assert_eq!(found[Path::new("dir/up")], Found::Link("..".into()));
    assert_eq!(found[Path::new("dangling")], Found::Link("nowhere".into()));

    for target in ["../../etc/passwd", "/etc/passwd", "/nowhere/at/all", "dir/up/../.."] {
        let out = place.source.join("out");
        symlink(target, &out).unwrap();
        let error = place.pack().unwrap_err();
        assert!(matches!(&error, PackError::LinkOut { path, .. } if path.ends_with("out")), "{target}: {error}");
        fs::remove_file(&out).unwrap();
    }
    symlink("/etc", place.source.join("ignored")).unwrap();
    place.write(".heliostatignore", "ignored\n");
    place.pack().unwrap();
}

#[test]
fn a_missing_directory_and_a_file_are_no_directories() {
    let place = Place::new();
    place.write("file", "");
    for path in [place.source.join("missing"), place.source.join("file")] {
        let error = pack(&path, &place.packages, &[], Limits::default()).unwrap_err();
        assert!(matches!(error, PackError::NoDirectory { .. }), "{error}");
    }
}

#[test]
fn sockets_are_left_out() {
    let place = Place::new();
    let _socket = std::os::unix::net::UnixListener::bind(place.source.join("sock")).unwrap();
    assert_eq!(place.names(), Vec::<String>::new());
}

#[test]
fn a_packages_directory_that_is_none_is_said() {
    let place = Place::new();
    fs::remove_dir(&place.packages).unwrap();
    fs::write(&place.packages, "").unwrap();
    assert!(matches!(place.pack().unwrap_err(), PackError::Write { .. }));
}
