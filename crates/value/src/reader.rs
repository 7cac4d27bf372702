//! The primitive encodings, every bound checked.

use crate::{ReadError, Text};

pub(crate) const LATIN1: u8 = 0x06;
pub(crate) const UTF16: u8 = 0x07;

/// 2^53 - 1: larger integers are no numbers of JavaScript.
const LARGEST: u64 = (1 << 53) - 1;

#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    pub(crate) at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    pub(crate) fn damaged(&self, what: &'static str) -> ReadError {
        ReadError::Malformed { at: self.at, what }
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub(crate) fn byte(&mut self) -> Result<u8, ReadError> {
        let byte = *self.bytes.get(self.at).ok_or_else(|| self.damaged("it ends early"))?;
        self.at += 1;
        Ok(byte)
    }

    pub(crate) fn raw(&mut self, length: usize) -> Result<&'a [u8], ReadError> {
        let end = self.at.checked_add(length).ok_or_else(|| self.damaged("a length is too large"))?;
        let bytes = self.bytes.get(self.at..end).ok_or_else(|| self.damaged("it ends early"))?;
        self.at = end;
        Ok(bytes)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, ReadError> {
        let mut value = 0;
        for shift in (0..56).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return if value <= LARGEST { Ok(value) } else { Err(self.damaged("an integer is too large")) };
            }
        }
        Err(self.damaged("an integer is too long"))
    }

    /// A count of things of at least `size` bytes each: never more than the bytes left could hold.
    pub(crate) fn count(&mut self, size: usize) -> Result<usize, ReadError> {
        let count = self.varint()? as usize;
        let left = self.bytes.len() - self.at;
        if count.checked_mul(size).is_none_or(|bytes| bytes > left) {
            return Err(self.damaged("a count is beyond the bytes that are there"));
        }
        Ok(count)
    }

    pub(crate) fn zigzag(&mut self) -> Result<i32, ReadError> {
        let value = u32::try_from(self.varint()?).map_err(|_| self.damaged("an integer is too large"))?;
        Ok((value >> 1) as i32 ^ -((value & 1) as i32))
    }

    pub(crate) fn double(&mut self) -> Result<f64, ReadError> {
        Ok(f64::from_le_bytes(self.raw(8)?.try_into().expect("8 bytes")))
    }

    /// A tagged string.
    pub(crate) fn text(&mut self) -> Result<Text<'a>, ReadError> {
        let tag = self.byte()?;
        self.text_of(tag)
    }

    /// The string of a tag that was read.
    pub(crate) fn text_of(&mut self, tag: u8) -> Result<Text<'a>, ReadError> {
        match tag {
            LATIN1 => {
                let length = self.count(1)?;
                Ok(Text::Latin1(self.raw(length)?))
            }
            UTF16 => {
                let length = self.count(2)?;
                Ok(Text::Utf16(self.raw(length * 2)?))
            }
            _ => Err(self.damaged("a string is missing")),
        }
    }
}
