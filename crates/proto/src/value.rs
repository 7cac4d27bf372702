//! What a reference stands for once it is ready: bytes, a place in the store, or a failure.

use serde::{Deserialize, Serialize};

use crate::{Locator, WorkerId};

/// Serialised bytes of one value (see [`crate::blob`]), inside the message or in the node's store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Blob {
    /// The bytes themselves: at most the inline limit, or not shareable.
    Inline(Bytes),
    /// A sealed object of the node's store.
    Stored(Locator),
}

/// Immutable bytes shared by the messages and tables that carry them.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Bytes(std::sync::Arc<[u8]>);

impl Bytes {
    /// Takes over `bytes`.
    pub fn new(bytes: impl Into<std::sync::Arc<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// Whether both are the same memory, not only equal.
    pub fn is(&self, other: &Self) -> bool {
        std::sync::Arc::ptr_eq(&self.0, &other.0)
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bytes({})", self.0.len())
    }
}

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes::new(bytes))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

/// The settled state of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// A value.
    Ready(Blob),
    /// No value: a get throws.
    Failed(Box<Failure>),
}

/// Why an object has no value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The stable code of the public error class, such as `TASK_FAILED`.
    pub code: String,
    /// What happened, in one sentence.
    pub message: String,
    /// What to do about it, where something can be done.
    pub hint: Option<String>,
    /// Facts of the error class, by the name of its property.
    pub facts: Vec<(String, Fact)>,
    /// What the user's code threw, serialised, for `TASK_FAILED`.
    pub thrown: Option<Bytes>,
    /// Whether the failed task is another one, whose result this task needed.
    pub inherited: bool,
}

impl Failure {
    /// A failure without facts.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            hint: None,
            facts: Vec::new(),
            thrown: None,
            inherited: false,
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a fact.
    #[must_use]
    pub fn fact(mut self, name: &str, fact: Fact) -> Self {
        self.facts.push((name.into(), fact));
        self
    }

    /// The same failure as a dependant sees it.
    #[must_use]
    pub fn inherited(&self) -> Self {
        Self { inherited: true, ..self.clone() }
    }
}

/// A property of a public error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fact {
    /// `null`.
    Absent,
    /// A whole number.
    Number(i64),
    /// Text.
    Text(String),
}

/// A reference as it travels inside a value: which object, and who owns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RefEntry {
    /// The object.
    pub id: crate::ObjectId,
    /// The process that owns it.
    pub owner: WorkerId,
    /// The node of that process.
    pub node: crate::NodeId,
    /// The life of that process, so that a restarted one is not taken for it.
    pub epoch: u64,
}
