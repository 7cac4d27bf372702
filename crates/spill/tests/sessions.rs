//! What the dead left goes, what the living have stays; with real processes and real kills.

mod common;

use std::path::Path;

use common::{KIB, MIB, Process, ROLE, Spill, content, files, say, segments};
use heliostat_spill::{Config, Event, Session, Swept, sweep};

const DIR: &str = "HELIOSTAT_SPILL_DIR";

fn dir() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Not a test: what a child does, by its role.
#[test]
#[ignore = "the children of the tests below run this"]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let spill = Spill::open([std::env::var(DIR).unwrap()], |_| {});
    match role.as_str() {
        // Says what it has, and stays.
        "hold" => {
            spill.put_all(0, &[KIB, 3 * MIB]);
            say(&format!("holds {}", spill.session));
            std::thread::sleep(std::time::Duration::from_secs(600));
        }
        // Spills, frees and spills without end.
        "storm" => {
            for number in 0.. {
                spill.put(number, content(number % 7, 5 * MIB + number as usize % 5000)).unwrap();
                if number % 3 == 2 {
                    spill.free(number - 1);
                }
                say(&format!("spilled {number}"));
            }
        }
        other => panic!("no such role: {other}"),
    }
}

fn sweep_once(dir: &Path) -> Swept {
    let config = Config::new([dir.to_str().unwrap()], Session::random().unwrap());
    let mut results = sweep(&config).unwrap();
    results.remove(0).1.unwrap()
}

#[test]
fn what_a_killed_process_left_goes_at_the_next_start_and_nothing_of_the_living() {
    let dir = dir();
    let path = dir.path().to_str().unwrap();
    let mut living = Process::start("hold", &[(DIR, path)]);
    living.hears("holds ");
    let mine = Spill::open([path], |_| {});
    mine.put(1, content(1, MIB)).unwrap();
    let kept = files(dir.path());
    for round in 0..5 {
        let mut storm = Process::start("storm", &[(DIR, path)]);
        storm.hears(&format!("spilled {}", round * 3));
        storm.kill();
        assert!(files(dir.path()).len() > kept.len(), "it left something");

        let next = Spill::open([path], |config| config.sweep = true);
        let event = next.events.recv().unwrap();
        let Event::Swept { swept, .. } = event else { panic!("{event:?}") };
        assert_eq!((swept.sessions, swept.living), (1, 2), "{swept:?}");
        assert!(swept.files > 0 && swept.bytes > 0, "{swept:?}");
        assert_eq!(files(dir.path()), kept, "nothing but what the living have");
        next.put(1, content(1, KIB)).unwrap();
        next.shut();
        assert_eq!(files(dir.path()), kept);
    }
    assert!(mine.get(1, MIB).unwrap() == content(1, MIB));
    assert_eq!(sweep_once(dir.path()), Swept { living: 2, ..Swept::default() });
    living.kill();
    let swept = sweep_once(dir.path());
    assert_eq!((swept.sessions, swept.files, swept.living), (1, 1, 1));
    mine.shut();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "0 files, 0 directories");
}

#[test]
fn a_sweep_touches_nothing_else() {
    let (dir, other) = (dir(), dir());
    let session = Session::random().unwrap();
    let (dead, almost) = (dir.path().join(session.folder()), dir.path().join(session.folder() + "0"));
    let make = |path: &Path, mode| {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new().mode(mode).create(path).unwrap();
    };
    // A dead session without even a lock, with links that lead elsewhere.
    make(&dead, 0o700);
    std::fs::write(other.path().join("precious"), "data").unwrap();
    std::os::unix::fs::symlink(other.path().join("precious"), dead.join("0000000000000001.seg")).unwrap();
    std::os::unix::fs::symlink(other.path(), dead.join("link")).unwrap();
    // What only looks like one.
    make(&almost, 0o700);
    std::fs::write(almost.join("file"), "").unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let linked = dir.path().join(Session::random().unwrap().folder());
    std::os::unix::fs::symlink(other.path(), &linked).unwrap();
    let shared = dir.path().join(Session::random().unwrap().folder());
    make(&shared, 0o777);
    std::fs::set_permissions(&shared, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();

    let swept = sweep_once(dir.path());
    assert_eq!((swept.sessions, swept.files), (1, 2), "{swept:?}");
    assert!(!dead.exists());
    assert_eq!(std::fs::read_to_string(other.path().join("precious")).unwrap(), "data");
    assert!(almost.join("file").exists() && dir.path().join("file").exists() && shared.exists());
    assert!(linked.is_symlink());
    assert_eq!(sweep_once(&dir.path().join("missing")), Swept::default(), "what is not there needs no sweep");
}

/// Ends other threads, also when this one panics.
struct Stop<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn engines_that_start_while_others_sweep_lose_nothing() {
    let dir = dir();
    let path = dir.path().to_str().unwrap().to_owned();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    // Two sweeps may meet in one dead session: then one of them finds it half gone.
                    let config = Config::new([path.as_str()], Session::random().unwrap());
                    drop(sweep(&config));
                }
            });
        }
        let _stop = Stop(&stop);
        for number in 0..60 {
            let spill = Spill::open([path.as_str()], |_| {});
            spill.put(number, content(number, KIB)).unwrap();
            assert!(spill.get(number, KIB).unwrap() == content(number, KIB));
            assert_eq!(segments(&dir.path().join(spill.session.folder())).len(), 1);
            spill.shut();
        }
    });
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
