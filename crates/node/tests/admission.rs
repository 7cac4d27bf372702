//! Who gets in, and what a connection that does not follow the protocol can do: nothing.

mod common;

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Client, Line, config, cpus, start};
use heliostat_node::NodeHandle;
use heliostat_proto::Failure;
use heliostat_proto::message::{FromDaemon, PROTOCOL_VERSION, Patience, Resources, Role, ToDaemon};
use heliostat_wire::Sent;

#[test]
fn stand_in() {
    common::stand_in();
}

fn socket(node: &NodeHandle) -> PathBuf {
    PathBuf::from(node.address().strip_prefix("unix:").expect("a Unix socket"))
}

/// The refusal of a greeting.
fn refusal(path: &Path, hello: &ToDaemon) -> Failure {
    let mut line = Line::dial(path);
    line.send(hello);
    match line.receive() {
        Some(FromDaemon::Refused(failure)) => {
            assert_eq!(line.receive::<FromDaemon>(), None, "a refused connection is closed");
            failure
        }
        other => panic!("not refused: {other:?}"),
    }
}

/// What the node sends until it closes the connection.
fn answer(path: &Path, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(path).unwrap();
    // The node may close before it has read everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn drivers_may_also_come_through_the_socket() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    let mut driver = Client::join(Line::dial(&socket(&node)), Role::Driver);
    assert_eq!(driver.lease(cpus(1.0)).run("echo", "echo hi"), "hi");
}

#[test]
fn another_version_is_refused_with_both_numbers() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    let failure = refusal(&socket(&node), &ToDaemon::Hello { version: PROTOCOL_VERSION + 1, role: Role::Driver });
    let other = PROTOCOL_VERSION + 1;
    let expected = format!("this process speaks version {other} of the protocol, the node version {PROTOCOL_VERSION}");
    assert_eq!(failure.message, expected);
}

#[test]
fn a_token_that_was_not_given_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    let hello = ToDaemon::Hello { version: PROTOCOL_VERSION, role: Role::Worker { token: 42 } };
    assert_eq!(refusal(&socket(&node), &hello).code, "AUTHENTICATION");
}

#[test]
fn a_greeting_must_come_first_and_only_once() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    assert_eq!(refusal(&socket(&node), &ToDaemon::Leave).code, "TRANSPORT");
    let mut driver = Client::driver(&node);
    driver.send(&ToDaemon::Hello { version: PROTOCOL_VERSION, role: Role::Driver });
    driver.expect_end();
}

/// The same bytes in every run (xorshift).
struct Random(u64);

impl Random {
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut next = || {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 32) as u8
        };
        (0..count).map(|_| next()).collect()
    }
}

#[test]
fn garbage_closes_only_its_own_connection() {
    let temp = tempfile::tempdir().unwrap();
    let mut config = config(temp.path(), 1.0);
    config.hello_timeout = Duration::from_millis(100);
    let node = start(config);
    let mut driver = Client::driver(&node);
    let path = socket(&node);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for length in 0..60 {
        answer(&path, &random.bytes(length * 7));
    }
    assert_eq!(driver.lease(cpus(1.0)).run("echo", "echo unharmed"), "unharmed");
}

#[test]
fn a_long_frame_is_not_waited_for_before_the_greeting() {
    let temp = tempfile::tempdir().unwrap();
    let mut config = config(temp.path(), 1.0);
    config.hello_timeout = Duration::from_secs(100_000);
    let node = start(config);
    // A length beyond all limits, and one that is allowed later on.
    for (length, sent) in [(u32::MAX, 0), (1_000_000, 200_000)] {
        let bytes = [&length.to_le_bytes()[..], &vec![0; sent]].concat();
        assert!(answer(&socket(&node), &bytes).is_empty());
    }
}

#[test]
fn a_process_that_never_reads_is_disconnected_before_it_costs_much() {
    const STATES: usize = 1500;
    let temp = tempfile::tempdir().unwrap();
    let mut config = config(temp.path(), 1.0);
    config.labels = (0..1000).map(|n| (format!("label {n}"), "x".repeat(100))).collect();
    let node = start(config);
    let mut other = Client::driver(&node);
    let mut driver = Client::driver(&node);
    for request in 0..STATES as u64 {
        let mut sent = driver.line.channel.send(&ToDaemon::State { request }, Vec::new());
        while matches!(sent, Ok(Sent::Waiting)) {
            sent = driver.line.channel.flush();
        }
        // Refused once the node has had enough.
        if sent.is_err() {
            break;
        }
    }
    assert_eq!(other.lease(cpus(1.0)).run("echo", "echo unharmed"), "unharmed");
    let mut answers = 0;
    while let Some(message) = driver.line.receive::<FromDaemon>() {
        answers += usize::from(matches!(message, FromDaemon::State { .. }));
    }
    assert!(answers < STATES, "all {answers} answers were kept");
}

#[test]
fn an_admitted_process_that_talks_nonsense_harms_nobody_else() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    let mut driver = Client::driver(&node);
    let path = socket(&node);
    let mut random = Random(7);
    for round in 0..200 {
        let mut bytes = Vec::new();
        let hello = ToDaemon::Hello { version: PROTOCOL_VERSION, role: Role::Driver };
        heliostat_proto::frame::write(&mut bytes, &hello).unwrap();
        // Frames of each kind of message, with random contents: some of them are messages.
        for kind in 0..12 {
            let body = random.bytes(round % 40);
            bytes.extend_from_slice(&(body.len() as u32 + 1).to_le_bytes());
            bytes.push((kind + round as u8) % 12);
            bytes.extend_from_slice(&body);
        }
        let mut stream = UnixStream::connect(&path).unwrap();
        let _ = stream.write_all(&bytes);
        let mut first = [0; 1];
        stream.read_exact(&mut first).expect("it was welcome first");
    }
    assert_eq!(driver.lease(cpus(1.0)).run("echo", "echo unharmed"), "unharmed");
}

#[test]
fn requests_for_absurd_amounts_are_answered() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    let mut driver = Client::driver(&node);
    let absurd = Resources::new([("CPU".to_owned(), f64::MAX), (String::new(), 1e9), ("\u{1b}[2J".to_owned(), 1.0)]);
    let wanted = driver.request(absurd);
    let failure = driver.expect("a refusal", |message| match message {
        FromDaemon::LeaseRefused { request, failure } if *request == wanted => Some(failure.clone()),
        _ => None,
    });
    assert_eq!(failure.code, "UNSCHEDULABLE");
    assert!(!failure.message.contains('\u{1b}'), "{failure:?}");
}

#[test]
fn a_message_with_a_body_that_is_none_ends_the_connection() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    let mut driver = Client::driver(&node);
    driver.send(&ToDaemon::StoreLease { request: 1, body: vec![0xff; 30], patience: Patience::default() });
    driver.expect_end();
}

#[test]
fn descriptors_that_nobody_asked_for_end_the_connection() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    let mut driver = Client::driver(&node);
    let (read, _write) = rustix::pipe::pipe().unwrap();
    driver.line.channel.send(&ToDaemon::State { request: 1 }, vec![read]).unwrap();
    driver.expect_end();
}

#[test]
fn a_connection_that_says_nothing_is_closed() {
    let temp = tempfile::tempdir().unwrap();
    let mut config = config(temp.path(), 1.0);
    config.hello_timeout = Duration::from_millis(50);
    let node = start(config);
    assert!(answer(&socket(&node), &[]).is_empty());
}

#[test]
fn another_user_is_refused_even_with_access_to_the_socket() {
    if !rustix::process::geteuid().is_root() {
        return; // nobody else can be impersonated
    }

    let temp = tempfile::tempdir().unwrap();
    let open = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    // Before the node starts processes: one that is just being started would still hold the copy open for writing.
    let program = temp.path().join("intruder");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    open(&program, 0o755);
    let node = start(config(temp.path(), 1.0));
    let path = socket(&node);
    for dir in [temp.path(), node.session_dir().parent().unwrap(), node.session_dir()] {
        open(dir, 0o755);
    }
    open(&path, 0o666);
    let output = std::process::Command::new(&program)
        .args(["--exact", "intruder", "--nocapture"])
        .env("HELIOSTAT_INTRUDE", &path)
        .current_dir("/")
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("refused: AUTHENTICATION"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn intruder() {
    if let Some(path) = std::env::var_os("HELIOSTAT_INTRUDE") {
        let hello = ToDaemon::Hello { version: PROTOCOL_VERSION, role: Role::Driver };
        let failure = refusal(Path::new(&path), &hello);
        writeln!(std::io::stdout(), "refused: {}", failure.code).unwrap();
    }
}
