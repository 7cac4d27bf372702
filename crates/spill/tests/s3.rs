//! Object stores: a real S3 server, behind a proxy that fails in every way that networks and servers do.

mod common;
#[path = "common/s3.rs"]
mod s3;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{KIB, MIB, Process, ROLE, Spill, content, say, segments, wait};
use heliostat_spill::{Config, Corruption, Event, Refusal, RestoreError, Session, SpillError, sweep};
use s3::{Fault, KEY_ID, Proxy, SECRET, Server, options};

const ENDPOINT: &str = "HELIOSTAT_SPILL_ENDPOINT";

/// Several parts for what has more than 5 MiB, short pauses, and as much patience as a busy machine needs.
fn patient(address: std::net::SocketAddr) -> impl FnOnce(&mut Config) {
    move |config| {
        config.storage = options(address);
        config.buffer_size = 5 * MIB as u64;
        config.retry.pause = Duration::from_millis(5);
        config.retry.stall = Duration::from_secs(60);
    }
}

/// The same, but where a fault is a stall it need not last for long.
fn settings(address: std::net::SocketAddr, fault: Fault) -> impl FnOnce(&mut Config) {
    move |config| {
        patient(address)(config);
        if matches!(fault, Fault::Stall | Fault::StallInBody) {
            config.retry.stall = Duration::from_millis(1500);
            config.retry.slowest = 20 * MIB as u64;
            config.retry.tries = 12;
        }
    }
}

/// Not a test: what a child does, by its role.
#[test]
#[ignore = "the children of the tests below run this"]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let spill = Spill::open(["s3://bucket/spill"], patient(std::env::var(ENDPOINT).unwrap().parse().unwrap()));
    spill.put(1, content(1, KIB)).unwrap();
    say(&format!("holds {}", spill.session));
    match role.as_str() {
        "hold" => std::thread::sleep(Duration::from_secs(600)),
        "upload" => drop(spill.put(2, content(2, 12 * MIB))),
        other => panic!("no such role: {other}"),
    }
}

#[test]
fn objects_go_to_a_bucket_and_come_back_and_nothing_stays() {
    let Some(server) = Server::start() else { return };
    server.request("PUT", "/bucket/spill/other", b"not ours");
    let spill = Spill::open(["s3://bucket/spill", "s3://bucket/deep/er/"], patient(server.address));
    let sizes = [0, 1, 100 * KIB, MIB + 1, 2 * MIB];
    spill.put_all(0, &sizes);
    let large = 17 * MIB + 123;
    spill.put(100, content(100, large)).unwrap();
    for (number, &size) in (0..).zip(&sizes) {
        assert!(spill.get(number, size).unwrap() == content(number, size), "{size}");
    }
    assert!(spill.get(100, large).unwrap() == content(100, large));
    assert!(spill.range(100, 3 * MIB as u64 - 5, 10).unwrap() == content(100, large)[3 * MIB - 5..3 * MIB + 5]);
    let folder = spill.session.folder();
    for name in server.segments() {
        let prefix = [format!("spill/{folder}/"), format!("deep/er/{folder}/")];
        assert!(prefix.iter().any(|prefix| name.starts_with(prefix)), "{name}");
    }
    assert_eq!((server.segments().len(), server.uploads().len()), (2, 0));
    assert!(server.objects().iter().all(|name| !name.ends_with(".upload")));
    spill.free(100);
    spill.until(|stats| stats.deleted_segments == 1);
    assert_eq!(server.segments().len(), 1);
    spill.shut();
    assert_eq!(server.objects(), ["spill/other"]);
}

#[test]
fn answers_that_say_no_are_got_over() {
    get_over(&[Fault::Status(500), Fault::Status(503)]);
}

#[test]
fn a_server_that_says_nothing_is_got_over() {
    get_over(&[Fault::Stall]);
}

#[test]
fn a_server_that_stops_in_the_middle_is_got_over() {
    get_over(&[Fault::StallInBody]);
}

#[test]
fn connections_that_break_and_bodies_that_are_too_short_are_got_over() {
    get_over(&[Fault::Reset, Fault::Cut, Fault::Short, Fault::ResetRequest, Fault::LoseAnswer]);
}

fn get_over(faults: &[Fault]) {
    let Some(server) = Server::start() else { return };
    for &fault in faults {
        // Every other try of the same request fails.
        let tries = std::sync::Mutex::new(std::collections::HashMap::<String, usize>::new());
        let proxy = Proxy::start(server.address, move |line, _| {
            // Whose upload was begun, but never told its name, can't give it up; it has no parts then.
            if line.contains("?uploads") && !matches!(fault, Fault::Status(_) | Fault::Stall | Fault::ResetRequest) {
                return Fault::None;
            }
            // Each stall takes its time: those of the data alone.
            if matches!(fault, Fault::Stall | Fault::StallInBody) && !line.contains(".seg") {
                return Fault::None;
            }
            let mut tries = tries.lock().unwrap();
            let count = tries.entry(line.to_owned()).or_default();
            *count += 1;
            if *count % 2 == 1 { fault } else { Fault::None }
        });
        let spill = Spill::open(["s3://bucket/spill"], settings(proxy.address, fault));
        let sizes = [10, 100 * KIB, 2 * MIB];
        spill.put_all(0, &sizes);
        let large = 9 * MIB;
        spill.put(100, content(100, large)).unwrap();
        for (number, &size) in (0..).zip(&sizes) {
            assert!(spill.get(number, size).unwrap() == content(number, size), "{fault:?}, {size}");
        }
        assert!(spill.get(100, large).unwrap() == content(100, large), "{fault:?}");
        assert_eq!(server.uploads(), [""; 0], "{fault:?}");
        assert_eq!(spill.events.try_iter().collect::<Vec<_>>(), [], "{fault:?}");
        spill.shut();
        assert_eq!(server.objects(), [""; 0], "{fault:?}");
    }
}

#[test]
fn failures_that_last_end_and_leave_nothing_visible() {
    let Some(server) = Server::start() else { return };
    for fault in [Fault::Status(503), Fault::Stall, Fault::ResetRequest, Fault::LoseAnswer] {
        for size in [KIB, 12 * MIB] {
            // The data does not get through; everything else does.
            let proxy = Proxy::start(server.address, move |line, _| {
                let is_data = line.starts_with("PUT") && line.contains(".seg") && !line.contains(".upload");
                if is_data { fault } else { Fault::None }
            });
            let spill = Spill::open(["s3://bucket/spill"], |config| {
                settings(proxy.address, fault)(config);
                config.retry.tries = 3;
            });
            let error = spill.put(1, content(1, size)).unwrap_err();
            let SpillError::OutOfDisk { refusals } = &error else { panic!("{error}") };
            assert_eq!(refusals[..], [("s3://bucket/spill".to_owned(), Refusal::Failed)]);
            let puts = proxy.requests.lock().unwrap().iter().filter(|line| line.contains(".seg HTTP")).count();
            assert!(puts <= 3 + 1, "{puts} tries");
            assert_eq!((server.segments(), server.uploads()), (vec![], vec![]), "{fault:?}, {size}");
            assert!(server.objects().iter().all(|name| name.ends_with("/session")), "{:?}", server.objects());
            let event = spill.events.recv().unwrap();
            assert!(matches!(event, Event::Suspended { why: Refusal::Failed, .. }), "{event:?}");

            // When the server works again, so does the target.
            proxy.set(|_, _| Fault::None);
            wait(|| spill.put(2, content(2, KIB)).ok());
            assert!(spill.get(2, KIB).unwrap() == content(2, KIB));
            assert!(matches!(spill.events.recv().unwrap(), Event::Recovered { .. }));
            spill.shut();
        }
    }
    assert_eq!(server.objects(), [""; 0]);
}

#[test]
fn reads_that_fail_for_good_say_so_and_work_again_later() {
    let Some(server) = Server::start() else { return };
    let proxy = Proxy::start(server.address, |_, _| Fault::None);
    let spill = Spill::open(["s3://bucket/spill"], |config| {
        settings(proxy.address, Fault::Stall)(config);
        config.retry.tries = 3;
    });
    let size = 3 * MIB;
    spill.put(1, content(1, size)).unwrap();
    for fault in [Fault::Status(500), Fault::Stall, Fault::Status(403)] {
        proxy.set(move |line, _| if line.starts_with("GET") { fault } else { Fault::None });
        let error = spill.get(1, size).unwrap_err();
        assert!(matches!(&error, RestoreError::Unavailable { uri, .. } if uri == "s3://bucket/spill"), "{error}");
    }
    proxy.set(|_, _| Fault::None);
    assert!(spill.get(1, size).unwrap() == content(1, size));
    assert_eq!(spill.engine.stats().restored.failures, 3);
}

#[test]
fn damage_of_remote_objects_is_found() {
    let Some(server) = Server::start() else { return };
    let spill = Spill::open(["s3://bucket/spill"], patient(server.address));
    let size = 3 * MIB;
    spill.put(1, content(1, size)).unwrap();
    spill.put(2, content(2, size)).unwrap();
    let names: Vec<String> = server.segments().iter().map(|name| format!("/bucket/{name}")).collect();
    let good: Vec<Vec<u8>> = names.iter().map(|name| server.request("GET", name, &[]).1).collect();
    let kind = |bytes: &[u8]| {
        server.request("PUT", &names[0], bytes);
        spill.get(1, size).map(|bytes| bytes.len()).unwrap_err()
    };
    let damaged = |what| RestoreError::Corrupted { uri: "s3://bucket/spill".into(), what };
    let mut flipped = good[0].clone();
    flipped[4096 + MIB] ^= 2;
    assert_eq!(kind(&flipped), damaged(Corruption::Checksum { chunk: 1 }));
    assert_eq!(kind(&good[1]), damaged(Corruption::OtherSegment));
    assert_eq!(kind(&good[0][..2 * MIB]), damaged(Corruption::CutOff));
    assert_eq!(kind(&good[0][..100]), damaged(Corruption::CutOff));
    assert_eq!(kind(b""), damaged(Corruption::CutOff));
    server.request("DELETE", &names[0], &[]);
    assert_eq!(spill.get(1, size).unwrap_err(), RestoreError::Lost { uri: "s3://bucket/spill".into() });
    assert!(spill.get(2, size).unwrap() == content(2, size));
}

#[test]
fn what_a_killed_process_left_is_swept_uploads_too_and_nothing_of_the_living() {
    let Some(server) = Server::start() else { return };
    let address = server.address.to_string();
    let mut living = Process::start("hold", &[(ENDPOINT, &address)]);
    living.hears("holds ");
    // A session of another machine: nobody here can tell whether it lives.
    let elsewhere = format!("/bucket/spill/{}", Session([9; 16]).folder());
    let marker = "heliostat-spill 1\nboot another\npid-namespace pid:[1]\npid 1\nstart 1\nhost elsewhere\n";
    server.request("PUT", &format!("{elsewhere}/session"), marker.as_bytes());
    server.request("PUT", &format!("{elsewhere}/0000000000000001.seg"), b"data");
    server.request("PUT", "/bucket/spill/heliostat-spill-notes", b"only looks like it");
    let kept = server.objects();

    // The second part never arrives: the upload is not complete when the process dies.
    let stuck = std::sync::Arc::new(AtomicUsize::new(0));
    let seen = std::sync::Arc::clone(&stuck);
    let proxy = Proxy::start(server.address, move |line, _| {
        if line.contains("partNumber=2") {
            seen.fetch_add(1, Ordering::Relaxed);
            return Fault::Stall;
        }
        Fault::None
    });
    let mut dead = Process::start("upload", &[(ENDPOINT, &proxy.address.to_string())]);
    dead.hears("holds ");
    wait(|| (stuck.load(Ordering::Relaxed) > 0).then_some(()));
    dead.kill();
    assert_eq!(server.uploads().len(), 1);
    assert!(server.objects().len() > kept.len());

    let mut config = Config::new(["s3://bucket/spill"], Session::random().unwrap());
    patient(server.address)(&mut config);
    let swept = sweep(&config).unwrap().remove(0).1.unwrap();
    assert_eq!((swept.sessions, swept.files, swept.living), (1, 2, 2), "{swept:?}");
    assert_eq!((server.objects(), server.uploads()), (kept.clone(), vec![]));

    // An engine does the same when it starts.
    living.kill();
    let spill = Spill::open(["s3://bucket/spill"], |config| {
        patient(server.address)(config);
        config.sweep = true;
    });
    let event = spill.events.recv().unwrap();
    assert!(matches!(&event, Event::Swept { swept, .. } if (swept.sessions, swept.living) == (1, 1)), "{event:?}");
    spill.shut();
    assert_eq!(server.objects().len(), 3, "{:?}", server.objects());
}

#[test]
fn shutting_down_aborts_what_is_on_its_way() {
    let Some(server) = Server::start() else { return };
    let stuck = std::sync::Arc::new(AtomicUsize::new(0));
    let seen = std::sync::Arc::clone(&stuck);
    let proxy = Proxy::start(server.address, move |line, _| {
        if line.contains("partNumber=2") {
            seen.fetch_add(1, Ordering::Relaxed);
            return Fault::Stall;
        }
        Fault::None
    });
    let spill = Spill::open(["s3://bucket/spill"], patient(proxy.address));
    let result = spill.start(1, content(1, 12 * MIB));
    spill.engine.flush();
    wait(|| (stuck.load(Ordering::Relaxed) > 0).then_some(()));
    assert_eq!(server.uploads().len(), 1);
    spill.shut();
    assert_eq!(result.recv().unwrap(), Err(SpillError::ShutDown));
    assert_eq!((server.objects(), server.uploads()), (vec![], vec![]));
}

#[test]
fn a_stalled_server_holds_up_nothing_but_what_goes_to_it() {
    let Some(server) = Server::start() else { return };
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let proxy = Proxy::start(server.address, |_, _| Fault::None);
    let spill = Spill::open([dir.path().to_str().unwrap(), "s3://bucket/spill"], |config| {
        patient(proxy.address)(config);
        config.retry.stall = Duration::from_secs(3600);
        config.min_spilling_size = 1;
    });
    for number in 0..4 {
        spill.put(number, content(number, MIB)).unwrap();
    }
    assert_eq!((segments(dir.path()).len(), server.segments().len()), (2, 2));
    let remote: Vec<u32> = (0..4).filter(|&number| is_remote(&spill, number)).collect();
    // From now on the server takes requests and says nothing.
    proxy.set(|_, _| Fault::Stall);
    let (sender, reads) = std::sync::mpsc::channel();
    for &number in &remote {
        let sender = sender.clone();
        spill.engine.restore(&common::key(number), vec![0; MIB], move |_, result| drop(sender.send(result)));
    }
    let writes: Vec<_> = (10..12).map(|number| spill.start(number, content(number, MIB))).collect();
    spill.until(|stats| stats.objects == 5); // one of the two; the other is stuck
    for number in 100..120 {
        spill.put(number, content(number, KIB)).unwrap();
        assert!(spill.get(number, KIB).unwrap() == content(number, KIB));
        spill.free(number);
    }
    for number in (0..4).filter(|number| !remote.contains(number)) {
        assert!(spill.get(number, MIB).unwrap() == content(number, MIB));
    }
    assert!(reads.try_recv().is_err(), "the server still says nothing");
    assert_eq!(writes.iter().filter(|write| write.try_recv().is_ok()).count(), 1);
    proxy.set(|_, _| Fault::None);
    spill.shut();
    assert_eq!(reads.recv().unwrap(), Err(RestoreError::ShutDown));
    assert_eq!(server.objects(), [""; 0]);
}

fn is_remote(spill: &Spill, number: u32) -> bool {
    spill.engine.locate(&common::key(number)).unwrap().0.starts_with("s3:")
}

#[test]
fn credentials_are_in_no_text() {
    let Some(server) = Server::start() else { return };
    let mut texts = Vec::new();
    for fault in [Fault::Status(403), Fault::Status(500), Fault::Status(400), Fault::Status(404), Fault::ResetRequest] {
        let proxy = Proxy::start(server.address, move |_, _| fault);
        let spill = Spill::open(["s3://bucket/spill"], |config| {
            patient(proxy.address)(config);
            config.retry.tries = 2;
            config.sweep = true;
            texts.push(format!("{config:?}"));
        });
        let error = spill.put(1, content(1, KIB)).unwrap_err();
        texts.push(format!("{:?} {error} {error:?}", spill.engine));
        let (one, two) = (spill.events.recv().unwrap(), spill.events.recv().unwrap());
        texts.push(format!("{one:?} {two:?}"));
        texts.push(format!("{:?}", spill.engine.shutdown(Duration::from_secs(600))));
    }
    // A bad option, and a bad endpoint.
    for (key, value) in [("secret_acess_key", SECRET), ("endpoint", SECRET)] {
        let mut config = Config::new(["s3://bucket"], Session([1; 16]));
        config.storage = [(key, value), ("access_key_id", KEY_ID), ("secret_access_key", SECRET)].into_iter().collect();
        config.retry.tries = 1;
        match sweep(&config) {
            Ok(results) => texts.push(format!("{results:?}")),
            Err(error) => texts.push(format!("{error} {error:?}")),
        }
    }
    let texts = texts.join("\n");
    assert!(texts.contains("access is denied") && texts.contains("Injected"), "the errors say something: {texts}");
    assert!(!texts.contains(SECRET) && !texts.contains(KEY_ID), "{texts}");
}
