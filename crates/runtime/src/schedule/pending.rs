//! Requests that wait, by client and by what they ask for: of equal requests only the oldest needs a look.

use std::collections::BTreeMap;

use heliostat_proto::WorkerId;

use super::amounts::Amounts;

#[derive(Debug, Default)]
pub(super) struct Pending {
    groups: BTreeMap<(WorkerId, Amounts), BTreeMap<u64, u64>>,
    /// Where each request is.
    index: BTreeMap<(WorkerId, u64), (Amounts, u64)>,
    next: u64,
}

/// Equal requests of one client.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) client: WorkerId,
    pub(super) amounts: Amounts,
    pub(super) count: u64,
    /// Place of the oldest in the order of arrival.
    pub(super) oldest: u64,
}

impl Pending {
    pub(super) fn push(&mut self, client: WorkerId, request: u64, amounts: Amounts) {
        if self.index.contains_key(&(client, request)) {
            return;
        }
        let place = self.next;
        self.next += 1;
        self.index.insert((client, request), (amounts.clone(), place));
        self.groups.entry((client, amounts)).or_default().insert(place, request);
    }

    pub(super) fn remove(&mut self, client: WorkerId, request: u64) {
        let Some((amounts, place)) = self.index.remove(&(client, request)) else { return };
        let key = (client, amounts);
        if let Some(group) = self.groups.get_mut(&key) {
            group.remove(&place);
            if group.is_empty() {
                self.groups.remove(&key);
            }
        }
    }

    /// Takes the oldest request of a group.
    pub(super) fn pop(&mut self, client: WorkerId, amounts: &Amounts) -> Option<u64> {
        let request = *self.groups.get(&(client, amounts.clone()))?.values().next()?;
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

    pub(super) fn take_all(&mut self) -> impl Iterator<Item = (WorkerId, u64)> + use<> {
        self.groups.clear();
        std::mem::take(&mut self.index).into_keys()
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = Group> {
        self.groups.iter().filter_map(|((client, amounts), requests)| {
            let oldest = *requests.keys().next()?;
            Some(Group { client: *client, amounts: amounts.clone(), count: requests.len() as u64, oldest })
        })
    }
}
