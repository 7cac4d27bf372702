//! Requests that wait, by client and by what they ask for: of equal requests only the oldest needs a look.

use std::collections::BTreeMap;

use heliostat_proto::{EnvId, WorkerId};

use super::amounts::Amounts;

/// What a request asks for, and the environment of the worker.
type Wish = (Amounts, EnvId);

#[derive(Debug, Default)]
pub(super) struct Pending {
    groups: BTreeMap<(WorkerId, Wish), BTreeMap<u64, u64>>,
    /// Where each request is.
    index: BTreeMap<(WorkerId, u64), (Wish, u64)>,
    next: u64,
}

/// Equal requests of one client.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) client: WorkerId,
    pub(super) amounts: Amounts,
    pub(super) env: EnvId,
    pub(super) count: u64,
    /// Place of the oldest in the order of arrival.
    pub(super) oldest: u64,
}

impl Pending {
    pub(super) fn push(&mut self, client: WorkerId, request: u64, wish: Wish) {
        if self.index.contains_key(&(client, request)) {
            return;
        }
        let place = self.next;
        self.next += 1;
        self.index.insert((client, request), (wish.clone(), place));
        self.groups.entry((client, wish)).or_default().insert(place, request);
    }

    pub(super) fn remove(&mut self, client: WorkerId, request: u64) {
        let Some((wish, place)) = self.index.remove(&(client, request)) else { return };
        let key = (client, wish);
        if let Some(group) = self.groups.get_mut(&key) {
            group.remove(&place);
            if group.is_empty() {
                self.groups.remove(&key);
            }
        }
    }

    /// Takes the oldest request of a group.
    pub(super) fn pop(&mut self, client: WorkerId, wish: Wish) -> Option<u64> {
        let request = *self.groups.get(&(client, wish))?.values().next()?;
        self.remove(client, request);
        Some(request)
    }

    pub(super) fn remove_client(&mut self, client: WorkerId) {
        let requests: Vec<u64> =
            self.index.range((client, 0)..=(client, u64::MAX)).map(|((_, request), _)| *request).collect();
        for request in requests {
            self.remove(client, request);
        }
    }

    /// Takes all requests for an environment.
    pub(super) fn take_all(&mut self, env: EnvId) -> Vec<(WorkerId, u64)> {
        let of_env = self.index.iter().filter(|(_, ((_, of), _))| *of == env);
        let taken: Vec<(WorkerId, u64)> = of_env.map(|(key, _)| *key).collect();
        for (client, request) in &taken {
            self.remove(*client, *request);
        }
        taken
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = Group> {
        self.groups.iter().filter_map(|((client, (amounts, env)), requests)| {
            let oldest = *requests.keys().next()?;
            let (amounts, env) = (amounts.clone(), *env);
            Some(Group { client: *client, amounts, env, count: requests.len() as u64, oldest })
        })
    }
}
