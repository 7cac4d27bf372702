//! Names: of an object's copy, and of the session that spills.

use std::fmt;

use heliostat_proto::ObjectId;

/// One attempt's copy of an object. Copies of different generations are different objects here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The object.
    pub id: ObjectId,
    /// The attempt that made it.
    pub generation: u32,
}

/// Names everything that one engine stores, so that a later one can tell what was left behind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session(pub [u8; 16]);

/// What the names of session directories and remote prefixes begin with; the session's 32 hexadecimal digits follow.
pub const SESSION_PREFIX: &str = "heliostat-spill-";

impl Session {
    /// A name that nobody else has.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The directory's or prefix's name.
    pub fn folder(&self) -> String {
        format!("{SESSION_PREFIX}{self}")
    }

    /// Reads a directory's or prefix's name.
    pub fn from_folder(name: &str) -> Option<Self> {
        let digits = name.strip_prefix(SESSION_PREFIX)?.as_bytes();
        if digits.len() != 32 || digits.iter().any(|digit| !matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({self})")
    }
}

/// A segment's file name: its number in 16 hexadecimal digits.
pub(crate) fn segment_name(segment: u64) -> String {
    format!("{segment:016x}.seg")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_name_their_session() {
        let session = Session::random().unwrap();
        assert_eq!(Session::from_folder(&session.folder()), Some(session));
        for other in ["heliostat-spill-", "heliostat-spill-zz", "other", &session.folder().to_uppercase()] {
            assert_eq!(Session::from_folder(other), None, "{other}");
        }
        let longer = session.folder() + "0";
        assert_eq!(Session::from_folder(&longer), None);
    }
}
