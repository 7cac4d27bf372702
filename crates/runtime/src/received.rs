//! Functions that other processes sent here, to run their tasks with.

use crate::hash::HashMap;
use heliostat_proto::message::FunctionHash;
use heliostat_proto::{Blob, WorkerId};

/// Names a received function in this process: short, and never used again for another.
pub type FunctionNumber = u32;

/// What was received. Several processes may send the same function, and each forgets it for itself.
#[derive(Debug, Default)]
pub(crate) struct Received {
    by_hash: HashMap<FunctionHash, Function>,
    by_number: HashMap<FunctionNumber, FunctionHash>,
    next: FunctionNumber,
    /// Functions that the program need not keep any more.
    forgotten: Vec<FunctionNumber>,
}

#[derive(Debug)]
struct Function {
    number: FunctionNumber,
    blob: Blob,
    senders: Vec<WorkerId>,
}

impl Received {
    pub(crate) fn define(&mut self, sender: WorkerId, hash: FunctionHash, blob: Blob) {
        let Self { by_hash, by_number, next, .. } = self;
        let function = by_hash.entry(hash).or_insert_with(|| {
            *next = next.wrapping_add(1);
            by_number.insert(*next, hash);
            Function { number: *next, blob, senders: Vec::new() }
        });
        if !function.senders.contains(&sender) {
            function.senders.push(sender);
        }
    }

    /// The sender will run it no more. Returns whether nobody will.
    pub(crate) fn forget(&mut self, sender: WorkerId, hash: &FunctionHash) -> bool {
        let Some(function) = self.by_hash.get_mut(hash) else { return false };
        function.senders.retain(|other| *other != sender);
        if !function.senders.is_empty() {
            return false;
        }
        let number = function.number;
        self.by_hash.remove(hash);
        self.by_number.remove(&number);
        self.forgotten.push(number);
        true
    }

    /// A sender ended. Returns whether functions went with it.
    pub(crate) fn sender_gone(&mut self, sender: WorkerId) -> bool {
        let theirs: Vec<FunctionHash> = self
            .by_hash
            .iter()
            .filter(|(_, function)| function.senders.contains(&sender))
            .map(|(hash, _)| *hash)
            .collect();
        theirs.into_iter().filter(|hash| self.forget(sender, hash)).count() > 0
    }

    pub(crate) fn number(&self, hash: &FunctionHash) -> Option<FunctionNumber> {
        self.by_hash.get(hash).map(|function| function.number)
    }

    pub(crate) fn blob(&self, number: FunctionNumber) -> Option<&Blob> {
        self.by_hash.get(self.by_number.get(&number)?).map(|function| &function.blob)
    }

    pub(crate) fn take_forgotten(&mut self) -> Vec<FunctionNumber> {
        std::mem::take(&mut self.forgotten)
    }
}

#[cfg(test)]
mod tests {
    use heliostat_proto::Bytes;

    use super::*;

    #[test]
    fn a_function_stays_until_all_who_sent_it_forgot_it() {
        let (one, two) = (WorkerId([1; 16]), WorkerId([2; 16]));
        let (hash, blob) = ([7; 32], Blob::Inline(Bytes::new(*b"f")));
        let mut received = Received::default();
        for sender in [one, two, one] {
            received.define(sender, hash, blob.clone());
        }
        let number = received.number(&hash).unwrap();
        assert!(!received.forget(one, &hash), "the other still sends tasks of it");
        assert_eq!(received.blob(number), Some(&blob));
        assert!(!received.forget(one, &hash));
        assert!(received.sender_gone(two));
        assert_eq!((received.blob(number), received.number(&hash)), (None, None));
        assert_eq!(received.take_forgotten(), [number]);
        received.define(one, hash, blob);
        assert_ne!(received.number(&hash), Some(number), "what was revived for the old one is another function");
    }
}
