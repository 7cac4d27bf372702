//! A segment's bytes: header, objects, index, footer. `docs/design/spill.md` has the table.

use bytes::Bytes;

use crate::{Key, Session};

/// Header and file lengths are multiples of this, and large objects start at one: direct I/O asks for it.
pub const BLOCK: u64 = 4096;
/// Every checksum covers this much of an object, the last one the rest: what a ranged read reads and verifies.
pub const CHUNK: u64 = 1 << 20;
/// Objects from this size on start at a block, so that they go to the disk from where they lie.
pub const ALIGNED_FROM: u64 = 64 << 10;
/// The version that this crate writes and reads.
pub const VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"HELIOSPL";
const FOOTER_MAGIC: [u8; 8] = *b"HELIOEND";
const FOOTER: u64 = 64;
const RECORD: u64 = 48;
/// Small objects start at a cache line.
const LINE: u64 = 64;

/// Why bytes are not a whole segment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a whole segment: {0}")]
pub struct FormatError(pub &'static str);

/// Where the parts of a segment lie; known before anything is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Of each object, in bytes from the file's start.
    pub offsets: Vec<u64>,
    /// Where the index begins.
    pub index: u64,
    /// Of the whole segment.
    pub length: u64,
}

impl Layout {
    /// Places objects of these lengths.
    pub fn of(lengths: impl IntoIterator<Item = u64>) -> Self {
        let (mut end, mut index_length, mut offsets) = (BLOCK, 0, Vec::new());
        for length in lengths {
            let offset = end.next_multiple_of(if length >= ALIGNED_FROM { BLOCK } else { LINE });
            offsets.push(offset);
            end = offset + length;
            index_length += record_length(length);
        }
        let index = end.next_multiple_of(LINE);
        Self { offsets, index, length: (index + index_length + FOOTER).next_multiple_of(BLOCK) }
    }
}

/// An object in a segment's index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Which copy of which object.
    pub key: Key,
    /// Where its bytes begin in the segment.
    pub offset: u64,
    /// How many they are.
    pub length: u64,
    /// CRC-64/NVME of each [`CHUNK`].
    pub checksums: Vec<u64>,
}

/// Checksums in an object of this length.
pub fn chunks(length: u64) -> u64 {
    length.div_ceil(CHUNK)
}

fn record_length(length: u64) -> u64 {
    RECORD + 8 * chunks(length)
}

/// What an object takes of a segment that is not padding: the measure of how much of a segment is in use.
pub(crate) fn footprint(length: u64) -> u64 {
    length + record_length(length)
}

/// CRC-64/NVME.
pub fn checksum(bytes: &[u8]) -> u64 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes)
}

/// The checksum of each chunk.
pub fn checksums(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.chunks(CHUNK as usize).map(checksum)
}

/// The segment's first block.
pub fn header(session: Session, segment: u64) -> Bytes {
    let mut block = vec![0; BLOCK as usize];
    block[0..8].copy_from_slice(&MAGIC);
    block[8..12].copy_from_slice(&VERSION.to_le_bytes());
    block[12..16].copy_from_slice(&(BLOCK as u32).to_le_bytes());
    block[16..32].copy_from_slice(&session.0);
    block[32..40].copy_from_slice(&segment.to_le_bytes());
    let sum = checksum(&block[..4088]);
    block[4088..].copy_from_slice(&sum.to_le_bytes());
    block.into()
}

/// Whose segment, and which one, a first block begins.
pub fn read_header(block: &[u8]) -> Result<(Session, u64), FormatError> {
    let block: &[u8; BLOCK as usize] = block.try_into().map_err(|_| FormatError("its header is not one block"))?;
    if block[0..8] != MAGIC {
        return Err(FormatError("it does not begin with HELIOSPL"));
    }
    if word(block, 4088) != checksum(&block[..4088]) {
        return Err(FormatError("its header's checksum is wrong"));
    }
    if u32::from_le_bytes(array(block, 8)) != VERSION {
        return Err(FormatError("another version wrote it"));
    }
    Ok((Session(array(block, 16)), word(block, 32)))
}

/// Everything from the index to the segment's end.
pub fn tail(segment: u64, layout: &Layout, keys: &[(Key, u64)], sums: &[u64]) -> Bytes {
    let mut bytes = Vec::with_capacity((layout.length - layout.index) as usize);
    let mut sums = sums.iter();
    for ((key, length), offset) in keys.iter().zip(&layout.offsets) {
        bytes.extend_from_slice(&key.id.0);
        bytes.extend_from_slice(&key.generation.to_le_bytes());
        bytes.extend_from_slice(&offset.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        sums.by_ref().take(chunks(*length) as usize).for_each(|sum| bytes.extend_from_slice(&sum.to_le_bytes()));
    }
    let (index_length, index_sum) = (bytes.len() as u64, checksum(&bytes));
    bytes.resize((layout.length - layout.index - FOOTER) as usize, 0);
    let footer = bytes.len();
    bytes.extend_from_slice(&FOOTER_MAGIC);
    for word in [layout.index, index_length, keys.len() as u64, index_sum, layout.length, segment] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    let sum = checksum(&bytes[footer..]);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes.into()
}

/// Reads a whole segment and verifies every byte that means something: whose it is, its number, its objects.
pub fn read(bytes: &[u8]) -> Result<(Session, u64, Vec<Record>), FormatError> {
    let length = bytes.len() as u64;
    if length < 2 * BLOCK || !length.is_multiple_of(BLOCK) {
        return Err(FormatError("its length is wrong"));
    }
    let (session, segment) = read_header(&bytes[..BLOCK as usize])?;
    let footer = &bytes[bytes.len() - FOOTER as usize..];
    if footer[..8] != FOOTER_MAGIC || word(footer, 56) != checksum(&footer[..56]) {
        return Err(FormatError("it has no footer"));
    }
    if word(footer, 40) != length || word(footer, 48) != segment {
        return Err(FormatError("its footer is another segment's"));
    }
    let index = slice(bytes, word(footer, 8), word(footer, 16)).ok_or(FormatError("its index is out of bounds"))?;
    if word(footer, 32) != checksum(index) {
        return Err(FormatError("its index's checksum is wrong"));
    }
    let (mut rest, mut records) = (index, Vec::new());
    while !rest.is_empty() {
        let (record, more) = read_record(rest).ok_or(FormatError("its index is cut off"))?;
        let data = slice(bytes, record.offset, record.length).ok_or(FormatError("an object is out of bounds"))?;
        if !checksums(data).eq(record.checksums.iter().copied()) {
            return Err(FormatError("an object's checksum is wrong"));
        }
        records.push(record);
        rest = more;
    }
    if records.len() as u64 != word(footer, 24) {
        return Err(FormatError("its index has another number of objects"));
    }
    Ok((session, segment, records))
}

fn read_record(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let (fixed, rest) = bytes.split_at_checked(RECORD as usize)?;
    let key = Key { id: heliostat_proto::ObjectId(array(fixed, 0)), generation: u32::from_le_bytes(array(fixed, 28)) };
    let (offset, length) = (word(fixed, 32), word(fixed, 40));
    let (sums, rest) = rest.split_at_checked(usize::try_from(chunks(length)).ok()?.checked_mul(8)?)?;
    let checksums = sums.chunks_exact(8).map(|sum| word(sum, 0)).collect();
    Some((Record { key, offset, length, checksums }, rest))
}

fn slice(bytes: &[u8], offset: u64, length: u64) -> Option<&[u8]> {
    bytes.get(usize::try_from(offset).ok()?..usize::try_from(offset.checked_add(length)?).ok()?)
}

/// `N` bytes at an offset that is known to be inside.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}
