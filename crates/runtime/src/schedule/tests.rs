//! Single promises of the scheduler; `model` checks them over random histories.

use super::*;

const PLAIN: EnvId = EnvId([0; 32]);
const DRIVER: WorkerId = WorkerId([1; 16]);
const OTHER: WorkerId = WorkerId([2; 16]);

fn worker(index: u8) -> WorkerId {
    WorkerId([100 + index; 16])
}

fn resources(amounts: &[(&str, f64)]) -> Resources {
    Resources::new(amounts.iter().map(|(name, amount)| ((*name).to_owned(), *amount)))
}

fn cpu(count: f64) -> Resources {
    resources(&[("CPU", count)])
}

/// A node whose first workers are ready and idle.
fn node(total: &Resources, workers: u8) -> Schedule {
    let mut schedule = Schedule::new(total);
    schedule.prestart(workers.into(), PLAIN);
    for index in 0..workers {
        assert_eq!(schedule.worker_ready(worker(index), 1000 + u32::from(index), PLAIN), []);
    }
    schedule
}

fn grants(actions: &[Action]) -> Vec<(WorkerId, u64)> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Grant { client, request, .. } => Some((*client, *request)),
            _ => None,
        })
        .collect()
}

fn recalls(actions: &[Action]) -> Vec<(WorkerId, u64)> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Recall { client, lease } => Some((*client, *lease)),
            _ => None,
        })
        .collect()
}

/// Requests and returns the lease.
fn take(schedule: &mut Schedule, client: WorkerId, request: u64, wanted: &Resources) -> u64 {
    let actions = schedule.request_lease(client, request, wanted, PLAIN);
    match &actions[..] {
        [Action::Grant { lease, .. }] => *lease,
        other => panic!("not granted at once: {other:?}"),
    }
}

#[test]
fn workers_are_started_ahead_and_up_to_the_cap() {
    let mut schedule = Schedule::new(&cpu(2.0));
    assert_eq!(schedule.prestart(2, PLAIN), [Action::Spawn { env: PLAIN, count: 2 }]);
    assert_eq!(schedule.prestart(100, PLAIN), [Action::Spawn { env: PLAIN, count: 14 }], "4 for each CPU and 8 more");
    assert_eq!(schedule.prestart(100, PLAIN), []);
}

#[test]
fn a_lease_ends_with_its_return_and_only_by_its_holder() {
    let mut schedule = node(&cpu(1.0), 1);
    let lease = take(&mut schedule, DRIVER, 1, &cpu(1.0));
    assert_eq!(schedule.available(), Resources::default());
    assert_eq!(schedule.return_lease(OTHER, lease), []);
    assert_eq!(schedule.holder(worker(0)), Some(DRIVER));
    assert_eq!(schedule.return_lease(DRIVER, lease), []);
    assert_eq!(schedule.return_lease(DRIVER, lease), []);
    assert_eq!(schedule.available(), cpu(1.0));
}

#[test]
fn what_the_node_does_not_have_is_refused_by_name() {
    let mut schedule = node(&resources(&[("CPU", 2.0), ("GPU", 0.5)]), 0);
    let actions = schedule.request_lease(DRIVER, 9, &resources(&[("CPU", 1.0), ("GPU", 1.25)]), PLAIN);
    let [Action::Refuse { client: DRIVER, request: 9, failure }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(failure.code, "UNSCHEDULABLE");
    assert_eq!(failure.message, "no worker can have 1.25 GPU: the node has 0.5 GPU in all");
}

#[test]
fn fractions_add_up_exactly() {
    let mut schedule = node(&cpu(1.0), 0);
    for index in 0..10 {
        schedule.request_lease(DRIVER, index, &cpu(0.1), PLAIN);
    }
    let granted: usize = (0..10).map(|index| grants(&schedule.worker_ready(worker(index), 1, PLAIN)).len()).sum();
    assert_eq!(granted, 10);
    assert_eq!(schedule.available(), Resources::default());
}

#[test]
fn a_request_for_nothing_takes_a_worker_and_no_cpu() {
    let mut schedule = node(&cpu(1.0), 2);
    take(&mut schedule, DRIVER, 1, &cpu(1.0));
    take(&mut schedule, DRIVER, 2, &Resources::default());
}

#[test]
fn a_waiting_worker_lends_its_cpu_and_takes_it_back_at_once() {
    let mut schedule = node(&cpu(1.0), 2);
    take(&mut schedule, DRIVER, 1, &cpu(1.0));
    let busy = schedule.workers().find(|(_, _, activity)| *activity == WorkerActivity::Busy).unwrap().0;
    assert_eq!(grants(&schedule.request_lease(busy, 1, &cpu(1.0), PLAIN)), []);
    assert_eq!(grants(&schedule.worker_waiting(busy, true)), [(busy, 1)]);
    assert_eq!(schedule.worker_waiting(busy, true), []);
    assert_eq!(schedule.worker_waiting(busy, false), [], "taken back, and the node is oversubscribed");
    assert_eq!(schedule.available(), Resources::default());
    // The second lease ends: its CPU pays the debt.
    schedule.return_lease(busy, 2);
    assert_eq!(schedule.available(), Resources::default());
    schedule.return_lease(DRIVER, 1);
    assert_eq!(schedule.available(), cpu(1.0));
}

#[test]
fn a_lease_returned_while_its_worker_waits_gives_back_what_it_still_held() {
    let all = resources(&[("CPU", 1.0), ("GPU", 1.0)]);
    let mut schedule = node(&all, 1);
    let lease = take(&mut schedule, DRIVER, 1, &all);
    schedule.worker_waiting(worker(0), true);
    assert_eq!(schedule.available(), cpu(1.0));
    schedule.return_lease(DRIVER, lease);
    assert_eq!(schedule.available(), all);
    assert_eq!(schedule.worker_waiting(worker(0), false), [], "it came late");
    assert_eq!(schedule.available(), all);
}

#[test]
fn the_client_with_fewest_leases_is_next_then_the_oldest_request() {
    let mut schedule = node(&cpu(3.0), 3);
    let first = take(&mut schedule, DRIVER, 1, &cpu(1.0));
    let second = take(&mut schedule, DRIVER, 2, &cpu(1.0));
    take(&mut schedule, DRIVER, 3, &cpu(1.0));
    schedule.request_lease(DRIVER, 4, &cpu(1.0), PLAIN);
    schedule.request_lease(DRIVER, 5, &cpu(1.0), PLAIN);
    schedule.request_lease(OTHER, 1, &cpu(1.0), PLAIN);
    assert_eq!(grants(&schedule.return_lease(DRIVER, first)), [(OTHER, 1)]);
    assert_eq!(grants(&schedule.return_lease(DRIVER, second)), [(DRIVER, 4)]);
}

#[test]
fn a_large_request_is_not_starved_by_small_ones() {
    let mut schedule = node(&cpu(2.0), 2);
    let first = take(&mut schedule, DRIVER, 1, &cpu(1.0));
    let second = take(&mut schedule, DRIVER, 2, &cpu(1.0));
    schedule.request_lease(OTHER, 1, &cpu(2.0), PLAIN);
    schedule.request_lease(DRIVER, 3, &cpu(1.0), PLAIN);
    assert_eq!(grants(&schedule.return_lease(DRIVER, first)), []);
    assert_eq!(grants(&schedule.return_lease(DRIVER, second)), [(OTHER, 1)]);
}

#[test]
fn what_a_blocked_request_does_not_need_stays_available_to_others() {
    let mut schedule = node(&resources(&[("CPU", 2.0), ("GPU", 1.0)]), 2);
    take(&mut schedule, DRIVER, 1, &resources(&[("GPU", 1.0)]));
    schedule.request_lease(DRIVER, 2, &resources(&[("GPU", 1.0)]), PLAIN);
    take(&mut schedule, DRIVER, 3, &cpu(2.0));
}

#[test]
fn a_request_for_what_a_waiting_worker_keeps_blocks_nobody() {
    let mut schedule = node(&resources(&[("CPU", 1.0), ("GPU", 1.0)]), 2);
    take(&mut schedule, DRIVER, 1, &resources(&[("CPU", 1.0), ("GPU", 1.0)]));
    schedule.request_lease(OTHER, 1, &resources(&[("CPU", 1.0), ("GPU", 1.0)]), PLAIN);
    schedule.request_lease(DRIVER, 2, &cpu(1.0), PLAIN);
    // The worker may wait for the very task that the driver asks a worker for.
    let waiting = schedule.workers().find(|(_, _, activity)| *activity == WorkerActivity::Busy).unwrap().0;
    assert_eq!(grants(&schedule.worker_waiting(waiting, true)), [(DRIVER, 2)]);
}

#[test]
fn requests_of_running_tasks_pass_a_blocked_one() {
    let mut schedule = node(&cpu(2.0), 2);
    take(&mut schedule, DRIVER, 1, &cpu(1.0));
    let busy = schedule.workers().find(|(_, _, activity)| *activity == WorkerActivity::Busy).unwrap().0;
    schedule.request_lease(OTHER, 1, &cpu(2.0), PLAIN);
    assert_eq!(grants(&schedule.request_lease(busy, 1, &cpu(1.0), PLAIN)), [(busy, 1)]);
}

#[test]
fn leases_are_recalled_from_the_client_that_holds_most_once() {
    let mut schedule = node(&cpu(3.0), 3);
    take(&mut schedule, OTHER, 1, &cpu(1.0));
    take(&mut schedule, DRIVER, 1, &cpu(1.0));
    let second = take(&mut schedule, DRIVER, 2, &cpu(1.0));
    let third = WorkerId([3; 16]);
    assert_eq!(recalls(&schedule.request_lease(third, 1, &cpu(1.0), PLAIN)), [(DRIVER, second)]);
    assert_eq!(recalls(&schedule.request_lease(third, 2, &cpu(1.0), PLAIN)), [], "one is on its way");
    assert_eq!(grants(&schedule.return_lease(DRIVER, second)), [(third, 1)]);
    // Now each holds one: to hand leases to and fro would gain nothing.
    assert_eq!(recalls(&schedule.request_lease(DRIVER, 3, &cpu(1.0), PLAIN)), []);
}

#[test]
fn a_client_gives_back_leases_of_another_shape_for_its_own_request() {
    let mut schedule = node(&cpu(2.0), 2);
    let lease = take(&mut schedule, DRIVER, 1, &cpu(2.0));
    assert_eq!(recalls(&schedule.request_lease(DRIVER, 2, &cpu(2.0), PLAIN)), [], "the same shape gains nothing");
    assert_eq!(recalls(&schedule.request_lease(DRIVER, 3, &cpu(1.0), PLAIN)), [(DRIVER, lease)]);
}

#[test]
fn a_client_gets_the_worker_that_has_its_functions() {
    let mut schedule = node(&cpu(4.0), 3);
    take(&mut schedule, DRIVER, 1, &cpu(1.0));
    let lease = take(&mut schedule, DRIVER, 2, &cpu(1.0));
    let known = schedule.leases[&lease].worker;
    schedule.return_lease(DRIVER, lease);
    let actions = schedule.request_lease(OTHER, 1, &cpu(1.0), PLAIN);
    assert!(!matches!(&actions[..], [Action::Grant { worker, .. }] if *worker == known), "a fresh one is there");
    let actions = schedule.request_lease(DRIVER, 3, &cpu(1.0), PLAIN);
    assert!(matches!(&actions[..], [Action::Grant { worker, .. }] if *worker == known), "{actions:?}");
}

#[test]
fn a_worker_never_works_for_itself() {
    let mut schedule = node(&cpu(2.0), 1);
    assert_eq!(schedule.request_lease(worker(0), 1, &cpu(1.0), PLAIN), [Action::Spawn { env: PLAIN, count: 1 }]);
    assert_eq!(grants(&schedule.worker_ready(worker(1), 7, PLAIN)), [(worker(0), 1)]);
}

#[test]
fn the_end_of_a_worker_breaks_its_lease_and_is_made_up_for() {
    let mut schedule = node(&cpu(1.0), 1);
    let lease = take(&mut schedule, DRIVER, 1, &cpu(1.0));
    let broken = Action::Break { client: DRIVER, lease, worker: worker(0) };
    assert_eq!(schedule.worker_gone(worker(0)), [broken, Action::Spawn { env: PLAIN, count: 1 }]);
    assert_eq!(schedule.available(), cpu(1.0));
    assert_eq!(schedule.worker_gone(worker(0)), []);
}

#[test]
fn a_client_that_goes_takes_its_workers_along_and_an_ending_one_holds_its_place() {
    let mut schedule = node(&cpu(0.0), 8);
    for request in 0..8 {
        take(&mut schedule, DRIVER, request, &Resources::default());
    }
    schedule.request_lease(DRIVER, 8, &Resources::default(), PLAIN);
    schedule.request_lease(OTHER, 1, &Resources::default(), PLAIN);
    let actions = schedule.client_gone(DRIVER);
    let reaped = actions.iter().filter(|action| matches!(action, Action::Reap { .. })).count();
    assert_eq!(reaped, 8);
    assert_eq!(grants(&actions), []);
    assert!(!actions.iter().any(|action| matches!(action, Action::Spawn { .. })), "the cap counts processes");
    assert_eq!(schedule.worker_gone(worker(0)), [Action::Spawn { env: PLAIN, count: 1 }]);
    assert_eq!(grants(&schedule.worker_ready(worker(20), 1, PLAIN)), [(OTHER, 1)]);
}

#[test]
fn a_retired_worker_finishes_its_lease_and_gets_no_other() {
    let mut schedule = node(&cpu(1.0), 1);
    let lease = take(&mut schedule, DRIVER, 1, &cpu(1.0));
    assert_eq!(schedule.retire(worker(0)), []);
    schedule.request_lease(OTHER, 1, &cpu(1.0), PLAIN);
    let actions = schedule.return_lease(DRIVER, lease);
    assert_eq!(actions, [Action::Reap { worker: worker(0) }, Action::Spawn { env: PLAIN, count: 1 }]);
}

#[test]
fn starts_that_fail_are_tried_again_with_pauses_then_requests_are_refused() {
    let crash = Failure::new("WORKER_CRASHED", "exited with code 1");
    let mut schedule = Schedule::new(&cpu(1.0));
    assert_eq!(schedule.request_lease(DRIVER, 1, &cpu(1.0), PLAIN), [Action::Spawn { env: PLAIN, count: 1 }]);
    for failures in 1..START_FAILURES {
        assert_eq!(schedule.worker_spawn_failed(PLAIN, &crash), [Action::BackOff { env: PLAIN, failures }]);
        assert_eq!(schedule.request_lease(DRIVER, 1, &cpu(1.0), PLAIN), [], "asked twice, and the pause is not over");
        assert_eq!(schedule.resume_spawning(PLAIN), [Action::Spawn { env: PLAIN, count: 1 }]);
    }
    let refused = Action::Refuse { client: DRIVER, request: 1, failure: crash.clone() };
    assert_eq!(
        schedule.worker_spawn_failed(PLAIN, &crash),
        [Action::BackOff { env: PLAIN, failures: START_FAILURES }, refused]
    );
    assert_eq!(schedule.resume_spawning(PLAIN), [], "nobody asks");
    assert_eq!(
        schedule.request_lease(DRIVER, 2, &cpu(1.0), PLAIN),
        [Action::Spawn { env: PLAIN, count: 1 }],
        "it may work by now"
    );
    assert_eq!(grants(&schedule.worker_ready(worker(0), 1, PLAIN)), [(DRIVER, 2)]);
}

#[test]
fn starts_that_somebody_else_ends_are_tried_again_for_long() {
    let killed = Failure::new("WORKER_CRASHED", "was killed by SIGKILL");
    let mut schedule = Schedule::new(&cpu(4.0));
    assert_eq!(schedule.prestart(4, PLAIN), [Action::Spawn { env: PLAIN, count: 4 }]);
    schedule.request_lease(DRIVER, 1, &cpu(1.0), PLAIN);
    for failures in 1..=4 {
        assert_eq!(schedule.start_killed(PLAIN, &killed), [Action::BackOff { env: PLAIN, failures }]);
    }
    assert_eq!(
        schedule.resume_spawning(PLAIN),
        [Action::Spawn { env: PLAIN, count: 1 }],
        "one at a time until one succeeds"
    );
    for _ in 4..KILLED_STARTS - 1 {
        assert!(!schedule.start_killed(PLAIN, &killed).iter().any(|action| matches!(action, Action::Refuse { .. })));
        assert_eq!(schedule.resume_spawning(PLAIN), [Action::Spawn { env: PLAIN, count: 1 }]);
    }
    let actions = schedule.start_killed(PLAIN, &killed);
    assert!(
        actions.iter().any(|action| matches!(action, Action::Refuse { request: 1, .. })),
        "it has to end some time"
    );
}

#[test]
fn a_lease_says_whether_its_tasks_are_tried_again() {
    let mut schedule = node(&cpu(2.0), 1);
    assert_eq!(schedule.lease_of(worker(0)), None);
    let lease = take(&mut schedule, DRIVER, 1, &cpu(1.0));
    assert_eq!(schedule.lease_of(worker(0)), Some((lease, true)));
    schedule.lease_retriable(OTHER, lease, false);
    assert_eq!(schedule.lease_of(worker(0)), Some((lease, true)), "not its lease");
    schedule.lease_retriable(DRIVER, lease, false);
    assert_eq!(schedule.lease_of(worker(0)), Some((lease, false)));
    schedule.return_lease(DRIVER, lease);
    assert_eq!(schedule.lease_of(worker(0)), None);
}

#[test]
fn failed_starts_refuse_nobody_while_a_worker_makes_progress() {
    let crash = Failure::new("WORKER_CRASHED", "exited with code 1");
    let mut schedule = node(&cpu(2.0), 1);
    take(&mut schedule, DRIVER, 1, &cpu(1.0));
    assert_eq!(schedule.request_lease(DRIVER, 2, &cpu(1.0), PLAIN), [Action::Spawn { env: PLAIN, count: 1 }]);
    for _ in 0..START_FAILURES {
        assert!(
            !schedule.worker_spawn_failed(PLAIN, &crash).iter().any(|action| matches!(action, Action::Refuse { .. }))
        );
        schedule.resume_spawning(PLAIN);
    }
    // Once it waits, it may wait for the very task that has no worker.
    schedule.worker_waiting(worker(0), true);
    let actions = schedule.worker_spawn_failed(PLAIN, &crash);
    assert!(actions.iter().any(|action| matches!(action, Action::Refuse { request: 2, .. })), "{actions:?}");
}

#[test]
fn a_start_ended_on_purpose_is_no_failure() {
    let mut schedule = Schedule::new(&cpu(1.0));
    assert_eq!(schedule.prestart(1, PLAIN), [Action::Spawn { env: PLAIN, count: 1 }]);
    assert_eq!(schedule.prestart(0, PLAIN), []);
    assert_eq!(schedule.start_cancelled(PLAIN), []);
    assert_eq!(schedule.prestart(1, PLAIN), [Action::Spawn { env: PLAIN, count: 1 }]);
}

#[test]
fn hostile_amounts_are_only_large() {
    let mut hostile = Resources::default();
    let most = Resources::new([("CPU".to_owned(), f64::MAX), (String::new(), 5.0)]);
    hostile.add(&most);
    let mut schedule = node(&cpu(1.0), 1);
    let actions = schedule.request_lease(DRIVER, 1, &hostile, PLAIN);
    assert!(matches!(&actions[..], [Action::Refuse { .. }]), "{actions:?}");
    let slots = Resources::new([(String::new(), 100.0)]);
    take(&mut schedule, DRIVER, 2, &slots);
    let mut schedule = Schedule::new(&most);
    schedule.request_lease(DRIVER, 1, &most, PLAIN);
    schedule.worker_ready(worker(0), 1, PLAIN);
    schedule.worker_waiting(worker(0), true);
    schedule.request_lease(OTHER, 1, &most, PLAIN);
    schedule.worker_ready(worker(1), 1, PLAIN);
    schedule.worker_waiting(worker(0), false);
}

const ONE: EnvId = EnvId([1; 32]);
const TWO: EnvId = EnvId([2; 32]);

#[test]
fn a_worker_is_leased_for_its_own_environment_alone() {
    let mut schedule = node(&cpu(4.0), 2);
    assert_eq!(schedule.request_lease(DRIVER, 1, &cpu(1.0), ONE), [Action::Spawn { env: ONE, count: 1 }]);
    let actions = schedule.worker_ready(worker(9), 9, ONE);
    assert_eq!(actions, [Action::Grant { client: DRIVER, request: 1, lease: 1, worker: worker(9), pid: 9 }]);
    schedule.return_lease(DRIVER, 1);
    assert_eq!(schedule.request_lease(DRIVER, 2, &cpu(1.0), TWO), [Action::Spawn { env: TWO, count: 1 }]);
    assert_eq!(grants(&schedule.request_lease(DRIVER, 3, &cpu(1.0), ONE)), [(DRIVER, 3)]);
}

#[test]
fn an_environment_that_fails_holds_up_no_other() {
    let mut schedule = node(&cpu(4.0), 0);
    schedule.request_lease(DRIVER, 1, &cpu(1.0), ONE);
    schedule.request_lease(DRIVER, 2, &cpu(1.0), TWO);
    let failure = Failure::new("RUNTIME_ENV_SETUP", "no");
    for round in 1..=START_FAILURES {
        let actions = schedule.worker_spawn_failed(ONE, &failure);
        assert_eq!(actions[0], Action::BackOff { env: ONE, failures: round });
        let refused = actions.iter().any(|action| matches!(action, Action::Refuse { request: 1, .. }));
        assert_eq!(refused, round == START_FAILURES);
        schedule.resume_spawning(ONE);
    }
    assert_eq!(grants(&schedule.worker_ready(worker(2), 2, TWO)), [(DRIVER, 2)]);
    // Whoever asks later learns it after one further try.
    assert_eq!(schedule.request_lease(DRIVER, 3, &cpu(1.0), ONE), [Action::Spawn { env: ONE, count: 1 }]);
    let actions = schedule.worker_spawn_failed(ONE, &failure);
    assert!(actions.iter().any(|action| matches!(action, Action::Refuse { request: 3, .. })), "{actions:?}");
}

#[test]
fn idle_workers_of_other_environments_make_room() {
    let mut schedule = node(&cpu(2.0), 0);
    // Half of the 16 processes that 2 CPUs may have.
    for index in 0..8 {
        schedule.prestart(usize::from(index) + 1, PLAIN);
        schedule.worker_ready(worker(index), 1, PLAIN);
    }
    let actions = schedule.request_lease(DRIVER, 1, &cpu(1.0), ONE);
    let [Action::Reap { worker: ended }, Action::Spawn { env: ONE, count: 1 }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(grants(&schedule.worker_ready(worker(20), 1, ONE)), [(DRIVER, 1)]);
    assert_eq!(schedule.worker_gone(*ended), [], "nobody takes its place");
}

#[test]
fn a_lease_of_another_environment_is_asked_back() {
    let mut schedule = node(&cpu(1.0), 1);
    let lease = take(&mut schedule, DRIVER, 1, &cpu(1.0));
    assert_eq!(recalls(&schedule.request_lease(DRIVER, 2, &cpu(1.0), PLAIN)), []);
    assert_eq!(recalls(&schedule.request_lease(DRIVER, 3, &cpu(1.0), ONE)), [(DRIVER, lease)]);
}
