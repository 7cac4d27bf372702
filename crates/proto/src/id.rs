//! Ids: who made an object or runs a task, in bytes that stay the same over retries.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An id was not written as the expected number of hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id of {bytes} bytes ({digits} hexadecimal digits)", digits = bytes * 2)]
pub struct ParseIdError {
    /// What was given.
    pub text: String,
    /// Length of the id that was wanted, in bytes.
    pub bytes: usize,
}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], ParseIdError> {
    let fail = || ParseIdError { text: text.chars().take(80).collect(), bytes: N };
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return Err(fail());
    }
    let nibble = |c: u8| char::from(c).to_digit(16).map(|d| d as u8);
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        match (nibble(pair[0]), nibble(pair[1])) {
            (Some(high), Some(low)) => *byte = high << 4 | low,
            _ => return Err(fail()),
        }
    }
    Ok(out)
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Reads the id from its hexadecimal digits.
            pub fn parse(text: &str) -> Result<Self, ParseIdError> {
                parse_hex(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(f, &self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "("))?;
                write_hex(f, &self.0)?;
                f.write_str(")")
            }
        }
    };
}

byte_id!(
    /// Names a runtime environment by the hash of what it is; all zeros for what the node itself is started with.
    EnvId,
    32
);
byte_id!(
    /// Names a package of a directory by the hash of what it holds.
    PackageHash,
    32
);
byte_id!(
    /// A process that takes part in a cluster: a driver or a worker.
    WorkerId, 16
);
byte_id!(
    /// One machine's daemon and store.
    NodeId, 16
);
byte_id!(
    /// One driver's session with a cluster.
    JobId, 16
);

/// A task, or the root of what a process puts: the first 24 bytes of the ids of its objects.
///
/// Bytes 0-15 say where the id began (the process that submitted, or a hash of the parent and its counter);
/// bytes 16-23 count. See [`TaskId::child`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskId(pub [u8; 24]);

impl TaskId {
    /// Length in bytes.
    pub const LEN: usize = 24;

    /// The root id of a process: the parent of what it submits and puts outside of any task.
    pub fn root(process: WorkerId) -> Self {
        let mut bytes = [0; 24];
        bytes[..16].copy_from_slice(&process.0);
        Self(bytes)
    }

    /// The id of the `counter`-th task that `self` submits in its `attempt`-th run.
    ///
    /// The same (parent, attempt, counter) always gives the same id; a retried parent has another attempt, so that it
    /// never gives an old id to another child.
    #[must_use]
    pub fn child(&self, attempt: u32, counter: u64) -> Self {
        // Two 64-bit lanes of a multiply-xorshift hash over the parent's bytes; ids need spreading, not secrecy.
        let mut lanes = [0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(attempt), 0xd1b5_4a32_d192_ed03_u64];
        for word in self.0.chunks_exact(8) {
            let word = u64::from_le_bytes(word.try_into().expect("chunks of 8 bytes"));
            for lane in &mut lanes {
                *lane = mix(*lane ^ word);
            }
            lanes[1] = lanes[1].rotate_left(23);
        }
        lanes[1] = mix(lanes[1] ^ (u64::from(attempt) << 32));
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&lanes[0].to_le_bytes());
        bytes[8..16].copy_from_slice(&lanes[1].to_le_bytes());
        bytes[16..].copy_from_slice(&counter.wrapping_add(1).to_le_bytes());
        Self(bytes)
    }

    /// Reads the id from its 48 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, ParseIdError> {
        parse_hex(text).map(Self)
    }

    /// The id of the object with this index in the task's space.
    pub fn object(&self, index: u32) -> ObjectId {
        let mut bytes = [0; 28];
        bytes[..24].copy_from_slice(&self.0);
        bytes[24..].copy_from_slice(&index.to_be_bytes());
        ObjectId(bytes)
    }
}

fn mix(mut x: u64) -> u64 {
    // The finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA'14): a bijection, so distinct inputs stay distinct.
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskId({self})")
    }
}

/// An immutable object: its task's id, then a big-endian index.
///
/// Index 0 is the completion of a stream, 1 to 2^31 - 1 are returns and stream items, from 2^31 on puts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(pub [u8; 28]);

impl ObjectId {
    /// Length in bytes.
    pub const LEN: usize = 28;
    /// First index of the space of puts.
    pub const FIRST_PUT: u32 = 1 << 31;

    /// The task (or process root) that this object belongs to.
    pub fn task(&self) -> TaskId {
        TaskId(self.0[..24].try_into().expect("24 of 28 bytes"))
    }

    /// The index within its task.
    pub fn index(&self) -> u32 {
        u32::from_be_bytes(self.0[24..].try_into().expect("4 of 28 bytes"))
    }

    /// Whether `put` made it, so that no task can make it again.
    pub fn is_put(&self) -> bool {
        self.index() >= Self::FIRST_PUT
    }

    /// Reads the id from its 56 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, ParseIdError> {
        parse_hex(text).map(Self)
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectId({self})")
    }
}

// serde derives arrays only up to 32 bytes as tuples; that is what postcard wants, byte for byte.
impl Serialize for ObjectId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ObjectId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <[u8; 28]>::deserialize(deserializer).map(Self)
    }
}

/// The default id names nothing: no process has the worker id zero.
impl Default for ObjectId {
    fn default() -> Self {
        Self([0; 28])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_id_gives_back_its_task_and_index() {
        let task = TaskId::root(WorkerId([7; 16])).child(0, 3);
        let id = task.object(ObjectId::FIRST_PUT + 5);
        assert_eq!(id.task(), task);
        assert_eq!(id.index(), ObjectId::FIRST_PUT + 5);
        assert!(id.is_put());
        assert!(!task.object(1).is_put());
    }

    #[test]
    fn hexadecimal_digits_round_trip_and_other_text_is_refused() {
        let id = TaskId::root(WorkerId([0xab; 16])).object(1);
        let text = id.to_string();
        assert_eq!(text.len(), 56);
        assert_eq!(ObjectId::parse(&text), Ok(id));
        assert!(ObjectId::parse(&text[1..]).is_err());
        assert!(ObjectId::parse(&text.replace('a', "g")).is_err());
        assert!(WorkerId::parse("é".repeat(16).as_str()).is_err());
    }

    #[test]
    fn a_retried_parent_never_gives_an_old_id_to_another_child() {
        let parent = TaskId::root(WorkerId([1; 16])).child(0, 0);
        let mut seen = std::collections::HashSet::new();
        for attempt in 0..50 {
            for counter in 0..200 {
                assert!(seen.insert(parent.child(attempt, counter)));
            }
        }
        assert_eq!(parent.child(4, 9), parent.child(4, 9));
    }
}
