//! A vector whose places are used again.

/// Values by small integers that stay the same while the value lives.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    entries: Vec<Entry<T>>,
    free: Option<u32>,
    len: usize,
}

#[derive(Debug)]
enum Entry<T> {
    Full(T),
    /// The next free place.
    Free(Option<u32>),
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), free: None, len: 0 }
    }
}

impl<T> Slab<T> {
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        let Some(index) = self.free else {
            self.entries.push(Entry::Full(value));
            return (self.entries.len() - 1) as u32;
        };
        let entry = &mut self.entries[index as usize];
        if let Entry::Free(next) = entry {
            self.free = *next;
        }
        *entry = Entry::Full(value);
        index
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        let value = self.vacate(index)?;
        self.reuse(index);
        Some(value)
    }

    /// Removes a value whose place is not to be used again before [`Self::reuse`].
    pub(crate) fn vacate(&mut self, index: u32) -> Option<T> {
        let entry = self.entries.get_mut(index as usize)?;
        if matches!(entry, Entry::Free(_)) {
            return None;
        }
        let Entry::Full(value) = std::mem::replace(entry, Entry::Free(None)) else { return None };
        self.len -= 1;
        Some(value)
    }

    /// Lets a vacated place be used again.
    pub(crate) fn reuse(&mut self, index: u32) {
        if let Some(entry @ Entry::Free(_)) = self.entries.get_mut(index as usize) {
            *entry = Entry::Free(self.free);
            self.free = Some(index);
        }
    }

    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        match self.entries.get(index as usize) {
            Some(Entry::Full(value)) => Some(value),
            _ => None,
        }
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        match self.entries.get_mut(index as usize) {
            Some(Entry::Full(value)) => Some(value),
            _ => None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        self.entries.iter_mut().enumerate().filter_map(|(index, entry)| match entry {
            Entry::Full(value) => Some((index as u32, value)),
            Entry::Free(_) => None,
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.entries.iter().enumerate().filter_map(|(index, entry)| match entry {
            Entry::Full(value) => Some((index as u32, value)),
            Entry::Free(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Slab;

    #[test]
    fn places_are_used_again_and_removed_ones_are_gone() {
        let mut slab = Slab::default();
        let (a, b) = (slab.insert('a'), slab.insert('b'));
        assert_eq!(slab.remove(a), Some('a'));
        assert_eq!(slab.remove(a), None);
        assert_eq!(slab.get(a), None);
        assert_eq!(slab.insert('c'), a);
        assert_eq!(slab.iter().collect::<Vec<_>>(), [(a, &'c'), (b, &'b')]);
        assert_eq!(slab.len(), 2);
    }
}
