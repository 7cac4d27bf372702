//! Names of objects that belong to the cluster instead of a process.
//!
//! A name keeps one object until its time is over. The table is a state machine; [`Names`] is what a control store for
//! several nodes offers as well.

use std::collections::{BTreeSet, HashMap};

use crate::action::Handle;

/// A namespace and a name in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// Another object has the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name is taken")]
pub struct Taken;

/// Who has which name.
pub trait Names {
    /// Gives a free name to an object, until `until` (milliseconds on the caller's clock) if that is given.
    fn claim(&mut self, key: Key, object: Handle, until: Option<u64>) -> Result<(), Taken>;

    /// The object of a name.
    fn find(&self, key: &Key) -> Option<Handle>;

    /// Takes an object's name away. Returns whether it had one.
    fn forget(&mut self, object: Handle) -> bool;

    /// Takes the names whose time is over away, and returns their objects.
    fn expire(&mut self, now: u64) -> Vec<Handle>;

    /// When [`Names::expire`] has something to do next.
    fn next_due(&self) -> Option<u64>;
}

/// The names of one node, in memory.
///
/// ```
/// use heliostat_runtime::names::{Key, NameTable, Names, Taken};
///
/// let key = Key { namespace: "default".into(), name: "model".into() };
/// let mut names = NameTable::default();
/// assert_eq!(names.claim(key.clone(), 7, Some(1_000)), Ok(()));
/// assert_eq!(names.claim(key.clone(), 8, None), Err(Taken));
/// assert_eq!(names.find(&key), Some(7));
/// assert_eq!(names.expire(1_000), [7]);
/// assert_eq!(names.find(&key), None);
/// ```
#[derive(Debug, Default)]
pub struct NameTable {
    by_key: HashMap<Key, (Handle, Option<u64>)>,
    by_object: HashMap<Handle, Key>,
    due: BTreeSet<(u64, Key)>,
}

impl NameTable {
    fn remove(&mut self, key: &Key) -> Option<Handle> {
        let (object, until) = self.by_key.remove(key)?;
        self.by_object.remove(&object);
        if let Some(until) = until {
            self.due.remove(&(until, key.clone()));
        }
        Some(object)
    }
}

impl Names for NameTable {
    fn claim(&mut self, key: Key, object: Handle, until: Option<u64>) -> Result<(), Taken> {
        if self.by_key.contains_key(&key) {
            return Err(Taken);
        }
        if let Some(until) = until {
            self.due.insert((until, key.clone()));
        }
        self.by_object.insert(object, key.clone());
        self.by_key.insert(key, (object, until));
        Ok(())
    }

    fn find(&self, key: &Key) -> Option<Handle> {
        self.by_key.get(key).map(|(object, _)| *object)
    }

    fn forget(&mut self, object: Handle) -> bool {
        let key = self.by_object.get(&object).cloned();
        key.is_some_and(|key| self.remove(&key).is_some())
    }

    fn expire(&mut self, now: u64) -> Vec<Handle> {
        let mut gone = Vec::new();
        while let Some((_, key)) = self.due.first().filter(|(until, _)| *until <= now).cloned() {
            gone.extend(self.remove(&key));
        }
        gone
    }

    fn next_due(&self) -> Option<u64> {
        self.due.first().map(|(until, _)| *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: &str, name: &str) -> Key {
        Key { namespace: namespace.into(), name: name.into() }
    }

    #[test]
    fn a_name_is_free_again_when_its_time_is_over_or_its_object_gone() {
        let mut names = NameTable::default();
        names.claim(key("a", "x"), 1, Some(10)).unwrap();
        names.claim(key("b", "x"), 2, None).unwrap();
        names.claim(key("a", "y"), 3, Some(5)).unwrap();
        assert_eq!(names.next_due(), Some(5));
        assert_eq!(names.expire(4), []);
        assert_eq!(names.expire(10), [3, 1]);
        assert_eq!(names.next_due(), None);
        assert_eq!(names.find(&key("b", "x")), Some(2));
        assert!(names.forget(2) && !names.forget(2));
        names.claim(key("b", "x"), 4, None).unwrap();
        assert_eq!(names.claim(key("b", "x"), 5, None), Err(Taken));
    }
}
