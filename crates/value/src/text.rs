use std::fmt;

/// A string of JavaScript, as it lies in the header or, a long one, in a buffer: it may hold lone surrogates, which no `String` can.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Text<'a> {
    /// All units are below 256: one byte each.
    Latin1(&'a [u8]),
    /// UTF-16 units, little endian.
    Utf16(&'a [u8]),
}

impl Text<'_> {
    /// The UTF-16 units.
    pub fn units(&self) -> impl Iterator<Item = u16> + '_ {
        let (bytes, wide) = match *self {
            Self::Latin1(bytes) => (bytes, false),
            Self::Utf16(bytes) => (bytes, true),
        };
        let step = if wide { 2 } else { 1 };
        bytes.chunks_exact(step).map(|unit| unit.iter().rev().fold(0, |high, low| high << 8 | u16::from(*low)))
    }

    /// The text, unless a surrogate in it is alone.
    pub fn to_text(&self) -> Option<String> {
        char::decode_utf16(self.units()).collect::<Result<_, _>>().ok()
    }
}

/// Lone surrogates show as the replacement character.
impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        char::decode_utf16(self.units())
            .try_for_each(|unit| write!(f, "{}", unit.unwrap_or(char::REPLACEMENT_CHARACTER)))
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl PartialEq<str> for Text<'_> {
    fn eq(&self, other: &str) -> bool {
        self.units().eq(other.encode_utf16())
    }
}
