//! What a header says before its value: flags, and the memory that the value shows.

use heliostat_proto::blob::BlobView;

use crate::ReadError;
use crate::reader::Reader;

const VERSION: u8 = 2;
pub(crate) const PREFIX: usize = 6;
const CODE: u8 = 1;
const MODULES: u8 = 2;

const INLINE: u8 = 1;
const SHARED: u8 = 2;
const RESIZABLE: u8 = 4;

/// The bytes of a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageBytes<'a> {
    /// In the header.
    Inline(&'a [u8]),
    /// In the out-of-band buffer with this number.
    OutOfBand(usize),
}

/// Memory that became one buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Storage<'a> {
    /// Length in bytes.
    pub length: u64,
    /// Whether it was a `SharedArrayBuffer`.
    pub shared: bool,
    /// The size in bytes up to which it may be resized, if it may.
    pub limit: Option<u64>,
    /// Where the bytes are.
    pub bytes: StorageBytes<'a>,
}

/// The part of a storage that a view, or a whole buffer, shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Number of the storage.
    pub storage: usize,
    /// First byte in it.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
}

/// Kinds of views; the numbers are those of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs)] // the names are JavaScript's
pub enum ViewKind {
    DataView = 0,
    Int8Array = 1,
    Uint8Array = 2,
    Uint8ClampedArray = 3,
    Int16Array = 4,
    Uint16Array = 5,
    Int32Array = 6,
    Uint32Array = 7,
    Float32Array = 8,
    Float64Array = 9,
    BigInt64Array = 10,
    BigUint64Array = 11,
    Buffer = 12,
    Float16Array = 13,
}

impl ViewKind {
    pub(crate) fn of(code: u8) -> Option<Self> {
        use ViewKind::{
            BigInt64Array, BigUint64Array, Buffer, DataView, Float16Array, Float32Array, Float64Array, Int8Array,
            Int16Array, Int32Array, Uint8Array, Uint8ClampedArray, Uint16Array, Uint32Array,
        };
        const ALL: [ViewKind; 14] = [
            DataView,
            Int8Array,
            Uint8Array,
            Uint8ClampedArray,
            Int16Array,
            Uint16Array,
            Int32Array,
            Uint32Array,
            Float32Array,
            Float64Array,
            BigInt64Array,
            BigUint64Array,
            Buffer,
            Float16Array,
        ];
        ALL.get(usize::from(code)).copied()
    }

    /// Bytes of an element.
    pub fn element_size(self) -> u64 {
        match self {
            Self::DataView | Self::Int8Array | Self::Uint8Array | Self::Uint8ClampedArray | Self::Buffer => 1,
            Self::Int16Array | Self::Uint16Array | Self::Float16Array => 2,
            Self::Int32Array | Self::Uint32Array | Self::Float32Array => 4,
            Self::Float64Array | Self::BigInt64Array | Self::BigUint64Array => 8,
        }
    }
}

/// What a header says beside its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header<'a> {
    /// Whether functions, classes or things that are found by name are inside: reading it in JavaScript runs code.
    pub code: bool,
    /// Whether modules must be imported first.
    pub modules: bool,
    /// The memory of the value.
    pub storages: Vec<Storage<'a>>,
    /// What views and buffers show of it, by number.
    pub regions: Vec<Region>,
    /// Where the value ends.
    pub(crate) end: usize,
}

impl<'a> Header<'a> {
    /// Reads flags and tables of a value's header; the value itself is not looked at.
    pub fn parse(blob: &BlobView<'a>) -> Result<Self, ReadError> {
        let bytes = blob.header();
        let mut reader = Reader::new(bytes, 0);
        let version = reader.byte()?;
        if version != VERSION {
            return Err(ReadError::Version(version));
        }
        let flags = reader.byte()?;
        let tables = u32::from_le_bytes(reader.raw(4)?.try_into().expect("4 bytes")) as usize;
        let (code, modules) = (flags & CODE != 0, flags & MODULES != 0);
        let mut header = Self { code, modules, storages: Vec::new(), regions: Vec::new(), end: bytes.len() };
        if tables == 0 {
            return Ok(header);
        }
        if tables < PREFIX || tables > bytes.len() {
            return Err(reader.damaged("its tables are missing"));
        }
        header.end = tables;
        reader.at = tables;
        if modules {
            for _ in 0..reader.count(7)? {
                reader.byte()?;
                for _ in 0..3 {
                    reader.text()?;
                }
            }
        }
        header.read_storages(&mut reader, blob)?;
        header.read_regions(&mut reader)?;
        // Behind them are the tables of code, if there is any.
        if !code && !reader.is_at_end() {
            return Err(reader.damaged("bytes are left over"));
        }
        Ok(header)
    }

    fn read_storages(&mut self, reader: &mut Reader<'a>, blob: &BlobView<'a>) -> Result<(), ReadError> {
        let mut out_of_band = blob.buffers().enumerate();
        for _ in 0..reader.count(2)? {
            let (flags, length) = (reader.byte()?, reader.varint()?);
            let limit = if flags & RESIZABLE == 0 { None } else { Some(reader.varint()?) };
            if limit.is_some_and(|limit| limit < length) {
                return Err(reader.damaged("a buffer has odd limits"));
            }
            let bytes = if flags & INLINE != 0 {
                StorageBytes::Inline(reader.raw(length as usize)?)
            } else {
                let (index, (_, found)) = out_of_band.next().ok_or_else(|| reader.damaged("a buffer is missing"))?;
                if found != length {
                    return Err(reader.damaged("a buffer has another length"));
                }
                StorageBytes::OutOfBand(index)
            };
            self.storages.push(Storage { length, shared: flags & SHARED != 0, limit, bytes });
        }
        Ok(())
    }

    fn read_regions(&mut self, reader: &mut Reader<'a>) -> Result<(), ReadError> {
        for _ in 0..reader.count(3)? {
            let (storage, offset, length) = (reader.varint()? as usize, reader.varint()?, reader.varint()?);
            // Both are below 2^53, so the sum cannot wrap.
            if self.storages.get(storage).is_none_or(|storage| offset + length > storage.length) {
                return Err(reader.damaged("a view is out of bounds"));
            }
            self.regions.push(Region { storage, offset, length });
        }
        Ok(())
    }

    /// The bytes of a region.
    pub fn bytes(&self, blob: &BlobView<'a>, region: &Region) -> Option<&'a [u8]> {
        let bytes = match self.storages.get(region.storage)?.bytes {
            StorageBytes::Inline(bytes) => bytes,
            StorageBytes::OutOfBand(index) => blob.buffer(index)?,
        };
        bytes.get(region.offset as usize..(region.offset + region.length) as usize)
    }
}
