//! What workers write reaches their driver: whole lines, with names, to the last one.

mod common;

use std::time::Duration;

use common::{Client, config, cpus, shell_config, start, until};
use heliostat_proto::message::{FromDaemon, ToDaemon};

#[test]
fn stand_in() {
    common::stand_in();
}

/// Everything on one stream under a name, until it is as long as `length`.
fn output(client: &mut Client, wanted: u8, under: &str, length: usize) -> String {
    let mut text = String::new();
    while text.len() < length {
        text += &client.expect("output", |message| match message {
            FromDaemon::Output { stream, name, lines, .. } if *stream == wanted && name == under => {
                Some(String::from_utf8_lossy(lines).into_owned())
            }
            _ => None,
        });
    }
    text
}

/// All that came with its names, until the farewell.
fn rest(client: &mut Client) -> Vec<(String, String)> {
    client.expect("goodbye", |message| matches!(message, FromDaemon::Goodbye).then_some(()));
    let messages = std::mem::take(&mut client.later).into_iter();
    messages
        .filter_map(|message| match message {
            FromDaemon::Output { name, lines, .. } => Some((name, String::from_utf8_lossy(&lines).into_owned())),
            _ => None,
        })
        .collect()
}

#[test]
fn lines_come_with_the_name_of_the_task_and_the_pid() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    let mut driver = Client::driver(&node);
    let mut worker = driver.lease(cpus(1.0));
    worker.run("echo", "print one\ntwo\n");
    worker.run("sum", "print \x1b[1mthree\x1b[0m\t4\n");
    worker.run("sum", "complain oops\n");
    assert_eq!(output(&mut driver, 1, "echo", 8), "one\ntwo\n");
    assert_eq!(output(&mut driver, 1, "sum", 15), "\x1b[1mthree\x1b[0m\t4\n");
    let pid = driver.expect("standard error", |message| match message {
        FromDaemon::Output { stream: 2, name, pid, lines } if name == "sum" && &lines[..] == b"oops\n" => Some(*pid),
        _ => None,
    });
    assert_eq!(pid, worker.pid);
}

#[test]
fn a_farewell_comes_after_everything_that_was_written() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 2.0));
    let mut driver = Client::driver(&node);
    let mut idle = driver.lease(cpus(1.0));
    let mut busy = driver.lease(cpus(1.0));
    idle.run("idle", "print done and no line feed");
    driver.send(&ToDaemon::ReturnLease { lease: idle.lease });
    busy.run("busy", "print before it hangs\n");
    busy.start("busy", "hang");
    driver.send(&ToDaemon::Leave);
    let lines = rest(&mut driver);
    assert!(lines.contains(&("idle".into(), "done and no line feed\n".into())), "{lines:?}");
    assert!(lines.contains(&("busy".into(), "before it hangs\n".into())), "{lines:?}");
    assert!(!common::runs(idle.pid) && !common::runs(busy.pid), "its workers are gone before it is told so");
    assert_eq!(driver.line.receive::<FromDaemon>(), None, "and the connection ends");
}

#[test]
fn the_last_lines_come_before_the_news_of_the_end() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    let mut driver = Client::driver(&node);
    let mut worker = driver.lease(cpus(1.0));
    let line = format!("{}\n", "x".repeat(999));
    worker.run("big", &format!("print {}", line.repeat(20)));
    worker.start("big", "exit 1");
    driver.expect("the end", |message| matches!(message, FromDaemon::LeaseBroken { .. }).then_some(()));
    let before: usize = driver
        .later
        .iter()
        .map(|message| match message {
            FromDaemon::Output { name, lines, .. } if name == "big" => lines.len(),
            _ => 0,
        })
        .sum();
    assert_eq!(before, 20_000);
}

#[test]
fn a_process_that_keeps_the_pipes_open_does_not_hold_up_the_news() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    let mut driver = Client::driver(&node);
    let mut worker = driver.lease(cpus(1.0));
    let orphan: u32 = worker.run("fork", "orphan echo from the orphan; exec sleep 1000").parse().unwrap();
    worker.start("fork", "exit 0");
    driver.expect("the end", |message| matches!(message, FromDaemon::LeaseBroken { .. }).then_some(()));
    assert_eq!(output(&mut driver, 1, "fork", 1), "from the orphan\n");
    assert!(common::runs(orphan), "it left the worker's group: it is its own master");
    common::kill(orphan);
}

#[test]
fn a_process_that_goes_on_writing_does_not_hold_up_the_news() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    let mut driver = Client::driver(&node);
    let mut worker = driver.lease(cpus(1.0));
    let orphan: u32 = worker.run("fork", "orphan while :; do echo more; sleep 0.1; done").parse().unwrap();
    worker.start("fork", "exit 0");
    driver.expect("the end", |message| matches!(message, FromDaemon::LeaseBroken { .. }).then_some(()));
    until("it ends by the closed pipe", || !common::runs(orphan));
}

#[test]
fn a_driver_that_reads_slowly_gets_every_line() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    let mut driver = Client::driver(&node);
    let worker = driver.lease(cpus(1.0));
    // Far more than pipes, sockets and the outbox hold: the worker has to wait for us.
    worker.start("flood", "count 2000000");
    worker.start("flood", "exit 0");
    std::thread::sleep(Duration::from_millis(300));
    let mut next = 0_u64;
    let mut carry = String::new();
    while next < 2_000_000 {
        let lines = driver.expect("output", |message| match message {
            FromDaemon::Output { name, lines, .. } if name == "flood" => {
                Some(String::from_utf8_lossy(lines).into_owned())
            }
            FromDaemon::LeaseBroken { .. } => panic!("the end came after {next} lines"),
            _ => None,
        });
        carry += &lines;
        for line in std::mem::take(&mut carry).lines() {
            assert_eq!(line, next.to_string());
            next += 1;
        }
    }
    driver.expect("the end", |message| matches!(message, FromDaemon::LeaseBroken { .. }).then_some(()));
}

#[test]
fn the_first_driver_gets_what_was_written_before_it_came() {
    let temp = tempfile::tempdir().unwrap();
    let written = temp.path().join("written");
    let script = format!("echo early; touch {}; exec sleep 1000", written.display());
    let node = start(shell_config(temp.path(), &script));
    until("the worker wrote", || written.exists());
    let mut driver = Client::driver(&node);
    assert_eq!(output(&mut driver, 1, "", 1), "early\n");
}

#[test]
fn output_stays_away_from_a_driver_that_does_not_want_it() {
    let temp = tempfile::tempdir().unwrap();
    let mut config = config(temp.path(), 1.0);
    config.log_to_driver = false;
    let node = start(config);
    let mut driver = Client::driver(&node);
    let mut worker = driver.lease(cpus(1.0));
    worker.run("quiet", "print hello\n");
    worker.run("quiet", "complain goodbye\n");
    worker.start("quiet", "exit 1");
    let message = driver.expect("the end", |message| match message {
        FromDaemon::LeaseBroken { failure, .. } => Some(failure.message.clone()),
        _ => None,
    });
    assert!(message.ends_with("\n  goodbye"), "{message}");
    assert!(!driver.later.iter().any(|message| matches!(message, FromDaemon::Output { .. })));
}

#[test]
fn each_driver_sees_its_own_tasks() {
    let temp = tempfile::tempdir().unwrap();
    let mut config = config(temp.path(), 1.0);
    config.prestart = 0;
    let node = start(config);
    let (mut one, mut two) = (Client::driver(&node), Client::driver(&node));
    let mut worker = one.lease(cpus(1.0));
    worker.run("first", "print for one\n");
    one.send(&ToDaemon::ReturnLease { lease: worker.lease });
    let mut same = two.lease(cpus(1.0));
    assert_eq!(same.pid, worker.pid);
    same.run("second", "print for two\n");
    assert_eq!(output(&mut one, 1, "first", 1), "for one\n");
    assert_eq!(output(&mut two, 1, "second", 1), "for two\n");
    // A task of a task works for the same driver.
    let inner = same.run("second", "lease 0");
    assert_ne!(inner, same.pid.to_string());
    for driver in [one, two] {
        let wrong = |message: &FromDaemon| matches!(message, FromDaemon::Output { name, .. } if name == "first" || name == "second");
        assert!(!driver.later.iter().any(wrong));
    }
}

#[test]
fn a_node_stops_although_its_driver_reads_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let node = start(config(temp.path(), 1.0));
    let mut driver = Client::driver(&node);
    let worker = driver.lease(cpus(1.0));
    worker.start("flood", "count 2000000");
    std::thread::sleep(Duration::from_millis(300));
    node.stop(Duration::from_millis(100));
    assert!(!common::runs(worker.pid) && !node.session_dir().exists());
}
