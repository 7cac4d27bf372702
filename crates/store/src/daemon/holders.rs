//! Who holds the store's memory: for the message of whom it is refused.

use std::collections::HashMap;

use super::StoreDaemon;
use crate::layout::{self, Phase, hold};
use crate::link::{Holder, HolderKind};

impl StoreDaemon {
    /// The processes that hold most memory, by what they hold it for; the biggest first. Looks at the touched part of
    /// the object table and at all pins.
    pub fn holders(&self, most: usize) -> std::io::Result<Vec<Holder>> {
        let mut readers: HashMap<u64, u32> = HashMap::new();
        for (seat, client) in &self.clients {
            let deferred = client.pages.held().filter(|word| self.deferred.contains_key(word));
            readers.extend(deferred.map(|word| (word, *seat)));
        }
        let mut holders: HashMap<(u32, HolderKind), Holder> = HashMap::new();
        for slot in self.table.touched(&self.table_file)? {
            let Some((state, record)) = slot.read_consistent() else { continue };
            let word = hold(slot.index, state.generation);
            let (seat, kind) = match state.phase {
                Phase::Sealed => (record.owner, HolderKind::Owner),
                Phase::Draft => (state.seat, HolderKind::Draft),
                Phase::Closing => (readers.get(&word).copied().unwrap_or(0), HolderKind::Reader),
                _ => continue,
            };
            let bytes = layout::footprint(record.length, record.whole_pages).unwrap_or(0);
            let pid = self.clients.get(&seat).map_or(0, |client| client.identity.pid);
            let new = Holder { pid, kind, bytes: 0, objects: 0, largest: 0, sites: Vec::new() };
            let holder = holders.entry((pid, kind)).or_insert(new);
            holder.bytes = holder.bytes.saturating_add(bytes);
            holder.objects += 1;
            holder.largest = holder.largest.max(bytes);
        }
        let mut holders: Vec<Holder> = holders.into_values().filter(|holder| holder.bytes > 0).collect();
        holders.sort_unstable_by_key(|holder| (std::cmp::Reverse(holder.bytes), holder.pid, holder.kind));
        holders.truncate(most);
        Ok(holders)
    }
}
