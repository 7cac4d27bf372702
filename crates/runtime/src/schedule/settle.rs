//! What follows from a change: grants, starts of processes, recalls.

use heliostat_proto::{EnvId, WorkerId};

use super::amounts::{Amounts, CPU};
use super::pending::Group;
use super::{Action, Activity, Lease, Schedule, Worker};

/// One look at all that waits.
#[derive(Debug, Default)]
struct Plan {
    /// The first request that can be met, and by which worker.
    grant: Option<(Group, WorkerId)>,
    /// Requests that lack nothing but a process, by environment in their order.
    wanted: Vec<(EnvId, u64)>,
    /// Those that lack resources or a place for a process, in order.
    blocked: Vec<Group>,
}

impl Schedule {
    pub(super) fn settle(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        let plan = loop {
            let plan = self.plan();
            let Some((group, worker)) = plan.grant else { break plan };
            actions.extend(self.grant(group, worker));
        };
        self.spawn(plan.wanted, &mut actions);
        self.recall(&plan.blocked, &mut actions);
        actions
    }

    fn plan(&self) -> Plan {
        let mut plan = Plan::default();
        let mut groups: Vec<Group> = self.pending.groups().collect();
        groups.sort_by_cached_key(|group| (self.leases_of(group.client), group.oldest));
        let mut free = self.total.less(&self.used);
        // What later requests may have: less what the ones before them wait for.
        let mut unreserved = free.clone();
        let mut reachable = self.total.clone();
        for lease in self.leases.values().filter(|lease| lease.waiting) {
            reachable.take(&lease.amounts.without(CPU));
        }
        for group in groups {
            let nested = self.holder(group.client).is_some();
            let pool = if nested { &free } else { &unreserved };
            if !pool.covers(&group.amounts) {
                if reachable.covers(&group.amounts) {
                    unreserved.take(&group.amounts);
                }
                plan.blocked.push(group);
                continue;
            }
            if let Some(worker) = self.pick_idle(group.client, group.env) {
                plan.grant = Some((group, worker));
                return plan;
            }
            let count = group.count.min(pool.fits(&group.amounts));
            match plan.wanted.iter_mut().find(|(env, _)| *env == group.env) {
                Some((_, wanted)) => *wanted = wanted.saturating_add(count),
                None => plan.wanted.push((group.env, count)),
            }
            let promised = group.amounts.times(count);
            free.take(&promised);
            unreserved.take(&promised);
        }
        plan
    }

    fn leases_of(&self, client: WorkerId) -> usize {
        self.held.get(&client).map_or(0, std::collections::BTreeSet::len)
    }

    /// An idle worker for the client: one that worked for it before has its functions, a fresh one disturbs nobody
    /// else's. A worker never works for itself.
    fn pick_idle(&self, client: WorkerId, env: EnvId) -> Option<WorkerId> {
        self.workers
            .iter()
            .filter(|(id, worker)| worker.activity == Activity::Idle && worker.env == env && **id != client)
            .min_by_key(|(_, worker)| match worker.last {
                Some(last) if last == client => 0,
                None => 1,
                Some(_) => 2,
            })
            .map(|(id, _)| *id)
    }

    fn grant(&mut self, Group { client, amounts, env, .. }: Group, worker: WorkerId) -> Option<Action> {
        let request = self.pending.pop(client, (amounts.clone(), env))?;
        let state = self.workers.get_mut(&worker)?;
        self.last_lease += 1;
        let lease = self.last_lease;
        state.activity = Activity::Leased(lease);
        state.last = Some(client);
        let pid = state.pid;
        self.used.put(&amounts);
        let entry = Lease { client, worker, amounts, env, waiting: false, recalled: false, retriable: true };
        self.leases.insert(lease, entry);
        self.held.entry(client).or_default().insert(lease);
        Some(Action::Grant { client, request, lease, worker, pid })
    }

    fn spawn(&mut self, mut wanted: Vec<(EnvId, u64)>, actions: &mut Vec<Action>) {
        let (floor, ahead_env) = self.floor;
        if floor > 0 && wanted.iter().all(|(env, _)| *env != ahead_env) {
            wanted.push((ahead_env, 0));
        }
        for (env, wanted) in wanted {
            let starts = self.starts_of(env);
            if starts.held_back {
                continue;
            }
            let elsewhere = self.starting() - starts.starting;
            let ahead = if env != ahead_env || starts.is_hopeless() {
                0
            } else {
                floor.saturating_sub(self.usable() + elsewhere)
            };
            let mut count = ahead.max(wanted as usize).saturating_sub(starts.starting);
            if starts.failures > 0 || starts.killed > 0 {
                // One at a time until a start succeeds again.
                count = count.min(1_usize.saturating_sub(starts.starting));
            }
            self.make_room(env, count, actions);
            let count = count.min(self.cap.saturating_sub(self.workers.len() + self.starting()));
            if count > 0 {
                self.change_starts(env, |starts| starts.starting += count);
                actions.push(Action::Spawn { env, count });
            }
        }
    }

    fn usable(&self) -> usize {
        self.workers.values().filter(|worker| worker.activity != Activity::Ending).count()
    }

    /// Ends idle workers of other environments, so that half of the processes that there may be are in use or fit.
    fn make_room(&mut self, env: EnvId, count: usize, actions: &mut Vec<Action>) {
        let crowd = (self.usable() + self.starting() + count).saturating_sub(self.cap / 2).min(count);
        let idle = |(_, worker): &(&WorkerId, &Worker)| worker.activity == Activity::Idle && worker.env != env;
        let others: Vec<WorkerId> = self.workers.iter().filter(idle).map(|(id, _)| *id).take(crowd).collect();
        actions.extend(others.into_iter().filter_map(|worker| self.end_worker(worker)));
    }

    /// Asks for leases back until what the blocked requests lack is on its way, as far as that is fair.
    fn recall(&mut self, blocked: &[Group], actions: &mut Vec<Action>) {
        let mut coming = self.total.less(&self.used);
        for lease in self.leases.values().filter(|lease| lease.recalled) {
            coming.put(&lease.held());
        }
        for group in blocked {
            while !coming.covers(&group.amounts) {
                let Some(id) = self.pick_recall(group, &coming) else { break };
                let Some(lease) = self.leases.get_mut(&id) else { break };
                lease.recalled = true;
                coming.put(&lease.held());
                actions.push(Action::Recall { client: lease.client, lease: id });
            }
            coming.take(&group.amounts);
        }
    }

    /// Of another client only while that one holds clearly more, else two clients would hand one worker to and fro; of
    /// the same client only a lease of another shape or environment, since one of the same gains nothing.
    fn pick_recall(&self, group: &Group, coming: &Amounts) -> Option<u64> {
        let own = self.leases_of(group.client);
        self.leases
            .iter()
            .filter(|(_, lease)| !lease.recalled && coming.is_helped_by(&lease.held(), &group.amounts))
            .filter(|(_, lease)| {
                if lease.client == group.client {
                    (&lease.amounts, lease.env) != (&group.amounts, group.env)
                } else {
                    own == 0 || self.leases_of(lease.client) > own + 1
                }
            })
            .max_by_key(|(id, lease)| (self.leases_of(lease.client), *id))
            .map(|(id, _)| *id)
    }
}
