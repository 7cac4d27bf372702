//! Plain data, borrowed from the bytes that hold it.

use heliostat_proto::blob::BlobView;

use crate::header::PREFIX;
use crate::reader::{LATIN1, Reader, UTF16};
use crate::{Header, ReadError, Text, ViewKind};

/// Deeper values are refused rather than read recursively.
const DEEPEST: usize = 256;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Plain<'a> {
    /// `undefined`.
    Undefined,
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number; integers too, -0 and the bits of NaN as they were written.
    Number(f64),
    /// A bigint: its magnitude, big endian.
    BigInt {
        /// Whether it is below zero.
        negative: bool,
        /// The absolute value.
        magnitude: &'a [u8],
    },
    /// A string.
    String(Text<'a>),
    /// An array without holes.
    Array(Vec<Self>),
    /// An array with holes: its length, and the elements that exist.
    SparseArray {
        /// `length` of the array.
        length: u32,
        /// Index and element.
        elements: Vec<(u32, Self)>,
    },
    /// An array of numbers, not all integers.
    Numbers(Numbers<'a>),
    /// A plain object: its own properties in order.
    Object(Vec<Member<'a>>),
    /// A `Map`, in order.
    Map(Vec<(Self, Self)>),
    /// A `Set`, in order.
    Set(Vec<Self>),
    /// A `Date`: milliseconds since 1970, NaN for an invalid one.
    Date(f64),
    /// An `ArrayBuffer` or `SharedArrayBuffer`.
    Buffer(&'a [u8]),
    /// A typed array, `DataView` or Node `Buffer`: the bytes that it shows, little endian.
    View(ViewKind, &'a [u8]),
    /// The object with this number again: objects are numbered from 0 in the order in which they begin.
    Same(usize),
}

/// A property of a plain object.
pub type Member<'a> = (Text<'a>, Plain<'a>);

/// Numbers in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    /// The numbers.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = f64> + '_ {
        self.0.chunks_exact(8).map(|bytes| f64::from_le_bytes(bytes.try_into().expect("8 bytes")))
    }
}

/// Reads a value that is plain data. What it takes is in proportion to the header; buffers are not copied.
pub fn decode<'a>(blob: &BlobView<'a>) -> Result<Plain<'a>, ReadError> {
    let header = Header::parse(blob)?;
    let bytes = &blob.header()[..header.end];
    let mut decoder =
        Decoder { reader: Reader::new(bytes, PREFIX), blob, header: &header, shapes: Vec::new(), objects: 0 };
    let value = decoder.value(0)?;
    if !decoder.reader.is_at_end() {
        return Err(decoder.reader.damaged("bytes are left over"));
    }
    Ok(value)
}

struct Decoder<'a, 'b> {
    reader: Reader<'a>,
    blob: &'b BlobView<'a>,
    header: &'b Header<'a>,
    shapes: Vec<Vec<Text<'a>>>,
    /// Objects that have begun.
    objects: usize,
}

impl<'a> Decoder<'a, '_> {
    fn value(&mut self, depth: usize) -> Result<Plain<'a>, ReadError> {
        let at = self.reader.at;
        let tag = self.reader.byte()?;
        Ok(match tag {
            0x80.. => Plain::Number(f64::from(tag & 0x7f)),
            0x00 => Plain::Undefined,
            0x01 => Plain::Null,
            0x02 | 0x03 => Plain::Bool(tag == 0x03),
            0x04 => Plain::Number(f64::from(self.reader.zigzag()?)),
            0x05 => Plain::Number(self.reader.double()?),
            LATIN1 | UTF16 => Plain::String(self.reader.text_of(tag)?),
            0x25 => Plain::String(Text::Latin1(self.region(1)?)),
            0x26 => Plain::String(Text::Utf16(self.region(2)?)),
            0x08 | 0x09 => {
                let length = self.reader.count(1)?;
                Plain::BigInt { negative: tag == 0x09, magnitude: self.reader.raw(length)? }
            }
            0x0a => {
                let id = self.reader.varint()? as usize;
                if id >= self.objects {
                    return Err(self.reader.damaged("it refers to an object that does not come"));
                }
                Plain::Same(id)
            }
            _ if depth >= DEEPEST => return Err(ReadError::TooDeep(DEEPEST)),
            _ => self.object(tag, at, depth + 1)?,
        })
    }

    fn object(&mut self, tag: u8, at: usize, depth: usize) -> Result<Plain<'a>, ReadError> {
        self.objects += 1;
        Ok(match tag {
            0x0b => {
                let keys = (0..self.reader.count(2)?).map(|_| self.reader.text()).collect::<Result<Vec<_>, _>>()?;
                self.shapes.push(keys);
                self.shaped(self.shapes.len() - 1, depth)?
            }
            0x0c => {
                let shape = self.reader.varint()? as usize;
                self.shaped(shape, depth)?
            }
            0x0d => {
                let count = self.reader.count(2)?;
                Plain::Object(self.many(count, |this| Ok((this.reader.text()?, this.value(depth)?)))?)
            }
            0x0e => Plain::Array(self.values(depth)?),
            0x0f => {
                let length = self.reader.varint()?;
                let length = u32::try_from(length).map_err(|_| self.reader.damaged("an array is too long"))?;
                let count = self.reader.count(2)?;
                let elements = self.many(count, |this| {
                    let index = this.reader.varint()?;
                    let index = u32::try_from(index).ok().filter(|index| *index < length);
                    let index = index.ok_or_else(|| this.reader.damaged("an index is beyond its array"))?;
                    Ok((index, this.value(depth)?))
                })?;
                Plain::SparseArray { length, elements }
            }
            0x10 => {
                let count = self.reader.count(8)?;
                Plain::Numbers(Numbers(self.reader.raw(count * 8)?))
            }
            0x11 => {
                let count = self.reader.count(2)?;
                Plain::Map(self.many(count, |this| Ok((this.value(depth)?, this.value(depth)?)))?)
            }
            0x12 => Plain::Set(self.values(depth)?),
            0x13 => Plain::Date(self.reader.double()?),
            0x19 => Plain::Buffer(self.region(1)?),
            0x1a => {
                let kind = ViewKind::of(self.reader.byte()?);
                let kind = kind.ok_or_else(|| self.reader.damaged("a kind of view is unknown"))?;
                Plain::View(kind, self.region(kind.element_size())?)
            }
            _ => return Err(ReadError::NotPlain { tag, at }),
        })
    }

    fn shaped(&mut self, shape: usize, depth: usize) -> Result<Plain<'a>, ReadError> {
        let length = self.shapes.get(shape).ok_or_else(|| self.reader.damaged("a shape is missing"))?.len();
        let member = |this: &mut Self, index: usize| Ok((this.shapes[shape][index], this.value(depth)?));
        Ok(Plain::Object((0..length).map(|index| member(self, index)).collect::<Result<_, ReadError>>()?))
    }

    fn values(&mut self, depth: usize) -> Result<Vec<Plain<'a>>, ReadError> {
        let count = self.reader.count(1)?;
        self.many(count, |this| this.value(depth))
    }

    fn many<T>(
        &mut self,
        count: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, ReadError>,
    ) -> Result<Vec<T>, ReadError> {
        // Grows with what is read: a count alone reserves nothing.
        (0..count).map(|_| read(self)).collect()
    }

    fn region(&mut self, size: u64) -> Result<&'a [u8], ReadError> {
        let region = self.header.regions.get(self.reader.varint()? as usize);
        let region = region.ok_or_else(|| self.reader.damaged("a buffer is missing"))?;
        if region.offset % size != 0 || region.length % size != 0 {
            return Err(self.reader.damaged("a view is out of step"));
        }
        self.header.bytes(self.blob, region).ok_or_else(|| self.reader.damaged("a buffer is missing"))
    }
}
