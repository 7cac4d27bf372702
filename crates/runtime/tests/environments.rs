//! Tasks and the environments that they need.
#![allow(dead_code)] // parts of the support are for other tests

mod support;

use heliostat_proto::{EnvId, Failure};
use heliostat_runtime::Counts;
use support::Cluster;

const ENV: EnvId = EnvId([7; 32]);

#[test]
fn tasks_of_two_environments_share_no_worker() {
    let mut c = Cluster::new(3);
    let plain = c.submit(0, &[], &[]);
    let other = c.submit_with(0, &[], &[], |submission| submission.env = ENV);
    let later = c.submit(0, &[], &[]);
    c.grant(1).expect("for the first");
    c.quiet();
    let execution = c.cores[1].next_execution().expect("the plain one");
    c.finish(1, execution, &[]);
    c.quiet();
    // Its function is known to be quick by now, so that several would be sent ahead.
    let execution = c.cores[1].next_execution().expect("the later plain one");
    assert!(c.cores[1].next_execution().is_none(), "not the one of the other environment");
    c.finish(1, execution, &[]);
    while c.grant(2).is_none() {}
    c.quiet();
    let execution = c.cores[2].next_execution().expect("the other one");
    c.finish(2, execution, &[]);
    c.quiet();
    for handle in [plain, other, later] {
        assert_eq!(c.code(0, handle), None);
        c.release(0, handle);
    }
}

#[test]
fn a_task_without_its_environment_fails_at_once_and_leaves_nothing() {
    let mut c = Cluster::new(1);
    let failure = Failure::new("RUNTIME_ENV_SETUP", "no such directory");
    let handle = c.submit_with(0, &[], &[], |submission| submission.unfit = Some(Box::new(failure)));
    assert_eq!(c.code(0, handle), Some("RUNTIME_ENV_SETUP"));
    let dependant = c.submit(0, &[], &[handle]);
    assert_eq!(c.code(0, dependant), Some("RUNTIME_ENV_SETUP"));
    assert!(c.grant(0).is_none(), "nobody asks for a worker");
    c.release(0, handle);
    c.release(0, dependant);
    c.pass(1_000_000);
    assert_eq!(c.cores[0].counts(), Counts::default());
}
