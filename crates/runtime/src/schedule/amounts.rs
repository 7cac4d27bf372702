//! Exact sums of named amounts.

use std::collections::BTreeMap;

use heliostat_proto::message::Resources;

/// The resource that a waiting worker lends.
pub(super) const CPU: &str = "CPU";
/// One of the processes that the node may have; every lease holds one. No request can name it.
pub(super) const SLOT: &str = "";

/// Amounts by name in thousandths (slots are counted whole); names without an amount are not there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Amounts(BTreeMap<String, u64>);

impl Amounts {
    /// Takes nothing on trust: a name may come twice, and amounts may be as large as they like.
    pub(super) fn from_resources(resources: &Resources) -> Self {
        let mut amounts = Self::default();
        for (name, amount) in resources.iter().filter(|(name, amount)| *name != SLOT && *amount > 0) {
            let sum = amounts.get(name).saturating_add(amount);
            amounts.set(name, sum);
        }
        amounts
    }

    pub(super) fn to_resources(&self) -> Resources {
        Resources::new(self.iter().map(|(name, amount)| (name.to_owned(), amount as f64 * Resources::UNIT)))
    }

    pub(super) fn slot() -> Self {
        Self(BTreeMap::from([(SLOT.to_owned(), 1)]))
    }

    pub(super) fn with_slot(mut self) -> Self {
        self.set(SLOT, 1);
        self
    }

    pub(super) fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    pub(super) fn set(&mut self, name: &str, amount: u64) {
        if amount == 0 {
            self.0.remove(name);
        } else {
            self.0.insert(name.to_owned(), amount);
        }
    }

    /// The named amounts, without slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().filter(|(name, _)| *name != SLOT).map(|(name, amount)| (name.as_str(), *amount))
    }

    pub(super) fn only(&self, name: &str) -> Self {
        let mut one = Self::default();
        one.set(name, self.get(name));
        one
    }

    pub(super) fn without(&self, name: &str) -> Self {
        let mut rest = self.clone();
        rest.set(name, 0);
        rest
    }

    pub(super) fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|(name, amount)| self.get(name) >= *amount)
    }

    /// How often `other`, which holds a slot, fits.
    pub(super) fn fits(&self, other: &Self) -> u64 {
        other.0.iter().map(|(name, amount)| self.get(name) / amount).min().unwrap_or(0)
    }

    /// Whether some of `other` is of a name that `self` lacks for `wanted`.
    pub(super) fn is_helped_by(&self, other: &Self, wanted: &Self) -> bool {
        wanted.0.iter().any(|(name, amount)| self.get(name) < *amount && other.get(name) > 0)
    }

    pub(super) fn put(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let sum = self.get(name).saturating_add(*amount);
            self.set(name, sum);
        }
    }

    /// Takes `other` away, down to nothing.
    pub(super) fn take(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let rest = self.get(name).saturating_sub(*amount);
            self.set(name, rest);
        }
    }

    pub(super) fn less(&self, other: &Self) -> Self {
        let mut rest = self.clone();
        rest.take(other);
        rest
    }

    pub(super) fn times(&self, count: u64) -> Self {
        Self(self.0.iter().map(|(name, amount)| (name.clone(), amount.saturating_mul(count))).collect())
    }
}

/// Thousandths as a reader writes them.
pub(super) fn decimal(thousandths: u64) -> String {
    let (whole, rest) = (thousandths / 1000, thousandths % 1000);
    if rest == 0 { whole.to_string() } else { format!("{whole}.{rest:03}").trim_end_matches('0').to_owned() }
}
