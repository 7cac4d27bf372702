//! The layout of a serialised value: what Rust reads of it without decoding it.
//!
//! ```text
//! 0   4  magic "HLV1"
//! 4   4  length of the header
//! 8   4  number of out-of-band buffers (b)
//! 12  4  number of references (r)
//! 16  16 b     offset and length of each buffer
//! ..  72 r     references: object id 28, owner 16, node 16, epoch 8, 4 zero
//! ..           header (the codec's own format)
//! ..           padding, zero
//! ..           buffers, each at a multiple of 64; those of at least `VIEW_MIN` bytes of a stored value at a multiple of 4096
//! ```
//! All numbers are little-endian.

use crate::{Bytes, NodeId, ObjectId, RefEntry, WorkerId};

/// First bytes of every serialised value.
pub const MAGIC: [u8; 4] = *b"HLV1";
/// Buffers of a stored value from this size on start on a page and are read as views; smaller ones are copied.
pub const VIEW_MIN: u64 = 64 * 1024;

const FIXED: usize = 16;
const BUFFER_ENTRY: usize = 16;
const REF_ENTRY: usize = 72;
const ALIGN: u64 = 64;
const PAGE: u64 = 4096;

/// Bytes of a value that is a header of this length and nothing else.
pub const fn plain_len(header: usize) -> usize {
    FIXED + header
}

/// A value that is a header and nothing else.
pub fn plain(header: &[u8]) -> Bytes {
    let mut bytes = vec![0; plain_len(header.len())];
    write_plain(header, &mut bytes);
    Bytes::new(bytes)
}

/// Writes a value that is a header and nothing else to the start of `out`, and returns its length; `None` when there is
/// no room for it.
pub fn write_plain(header: &[u8], out: &mut [u8]) -> Option<usize> {
    let length = plain_len(header.len());
    let out = out.get_mut(..length)?;
    out[..4].copy_from_slice(&MAGIC);
    out[4..8].copy_from_slice(&(header.len() as u32).to_le_bytes());
    out[8..FIXED].fill(0);
    out[FIXED..].copy_from_slice(header);
    Some(length)
}

/// Where the parts of a value go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    header: usize,
    header_len: usize,
    buffers: Vec<(u64, u64)>,
    refs: usize,
    total: u64,
}

impl Layout {
    /// Lays out a value of these parts; `stored` places large buffers on pages.
    pub fn new(header_len: usize, buffer_lens: impl IntoIterator<Item = u64>, refs: usize, stored: bool) -> Self {
        let lens: Vec<u64> = buffer_lens.into_iter().collect();
        let header = FIXED + lens.len() * BUFFER_ENTRY + refs * REF_ENTRY;
        let mut at = (header + header_len) as u64;
        let buffers = lens
            .into_iter()
            .map(|len| {
                at = at.next_multiple_of(if stored && len >= VIEW_MIN { PAGE } else { ALIGN });
                let entry = (at, len);
                at += len;
                entry
            })
            .collect();
        Self { header, header_len, buffers, refs, total: at }
    }

    /// Lays out a value whose one buffer, of `len` bytes, is in place already at `offset`; `None` when the rest does not
    /// fit before it.
    pub fn around(header_len: usize, offset: u64, len: u64, refs: usize) -> Option<Self> {
        let header = FIXED + BUFFER_ENTRY + refs * REF_ENTRY;
        let fits = (header + header_len) as u64 <= offset;
        fits.then(|| Self { header, header_len, buffers: vec![(offset, len)], refs, total: offset + len })
    }

    /// Offset and length of each buffer.
    pub fn buffers(&self) -> impl ExactSizeIterator<Item = (u64, u64)> + '_ {
        self.buffers.iter().copied()
    }

    /// Length of the whole value in bytes.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Writes the value into `out` (exactly [`Self::total`] bytes); padding is zeroed.
    pub fn write(&self, out: &mut [u8], header: &[u8], buffers: &[&[u8]], refs: &[RefEntry]) {
        debug_assert_eq!(out.len() as u64, self.total);
        let mut end = self.write_head(out, header, refs);
        for ((offset, len), bytes) in self.buffers.iter().zip(buffers) {
            let (offset, len) = (*offset as usize, *len as usize);
            out[end..offset].fill(0);
            out[offset..offset + len].copy_from_slice(bytes);
            end = offset + len;
        }
    }

    /// Writes everything before the buffers and returns where it ends; what lies between there and the first buffer is
    /// left as it is.
    pub fn write_head(&self, out: &mut [u8], header: &[u8], refs: &[RefEntry]) -> usize {
        debug_assert!(header.len() == self.header_len);
        let at = self.write_tables(out, refs);
        out[at..at + header.len()].copy_from_slice(header);
        at + header.len()
    }

    /// Writes everything before the header and returns where it ends: there the header begins.
    pub fn write_tables(&self, out: &mut [u8], refs: &[RefEntry]) -> usize {
        debug_assert!(refs.len() == self.refs);
        out[..4].copy_from_slice(&MAGIC);
        out[4..8].copy_from_slice(&(self.header_len as u32).to_le_bytes());
        out[8..12].copy_from_slice(&(self.buffers.len() as u32).to_le_bytes());
        out[12..16].copy_from_slice(&(self.refs as u32).to_le_bytes());
        let mut at = FIXED;
        for (offset, len) in &self.buffers {
            out[at..at + 8].copy_from_slice(&offset.to_le_bytes());
            out[at + 8..at + 16].copy_from_slice(&len.to_le_bytes());
            at += BUFFER_ENTRY;
        }
        for entry in refs {
            write_ref(&mut out[at..at + REF_ENTRY], entry);
            at += REF_ENTRY;
        }
        at
    }

    /// Where the header begins.
    pub fn header_at(&self) -> usize {
        self.header
    }
}

fn write_ref(out: &mut [u8], entry: &RefEntry) {
    out[..28].copy_from_slice(&entry.id.0);
    out[28..44].copy_from_slice(&entry.owner.0);
    out[44..60].copy_from_slice(&entry.node.0);
    out[60..68].copy_from_slice(&entry.epoch.to_le_bytes());
    out[68..].fill(0);
}

/// A serialised value is not one: its bytes were not written by this version, or are damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// The first bytes are not [`MAGIC`].
    #[error("these {0} bytes are not a serialised value")]
    NotAValue(usize),
    /// A length or offset points outside.
    #[error("the serialised value of {len} bytes is damaged: its {part} does not fit")]
    OutOfBounds {
        /// Length of what was given.
        len: usize,
        /// The part that does not fit.
        part: &'static str,
    },
}

/// A checked look at a serialised value.
#[derive(Debug, Clone, Copy)]
pub struct BlobView<'a> {
    bytes: &'a [u8],
    header: usize,
    header_len: usize,
    buffers: usize,
    refs: usize,
}

impl<'a> BlobView<'a> {
    /// Checks every length and offset of `bytes` against its size.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BlobError> {
        if bytes.len() < FIXED || bytes[..4] != MAGIC {
            return Err(BlobError::NotAValue(bytes.len()));
        }
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes")) as usize;
        let (header_len, buffers, refs) = (word(4), word(8), word(12));
        let out = |part| BlobError::OutOfBounds { len: bytes.len(), part };
        // Each count is below 2^32, so the sum cannot wrap in 64 bits.
        let header = FIXED + buffers * BUFFER_ENTRY + refs * REF_ENTRY;
        if header + header_len > bytes.len() {
            return Err(out("header"));
        }
        let view = Self { bytes, header, header_len, buffers, refs };
        for index in 0..buffers {
            let (offset, len) = view.entry(index);
            if offset.checked_add(len).is_none_or(|end| end > bytes.len() as u64) {
                return Err(out("buffer table"));
            }
        }
        Ok(view)
    }

    fn entry(&self, index: usize) -> (u64, u64) {
        let at = FIXED + index * BUFFER_ENTRY;
        let word = |at: usize| u64::from_le_bytes(self.bytes[at..at + 8].try_into().expect("8 bytes"));
        (word(at), word(at + 8))
    }

    /// The codec's header.
    pub fn header(&self) -> &'a [u8] {
        &self.bytes[self.header..self.header + self.header_len]
    }

    /// Offset and length of each out-of-band buffer within the value.
    pub fn buffers(&self) -> impl ExactSizeIterator<Item = (u64, u64)> + '_ {
        (0..self.buffers).map(|index| self.entry(index))
    }

    /// The bytes of an out-of-band buffer.
    pub fn buffer(&self, index: usize) -> Option<&'a [u8]> {
        let (offset, len) = (index < self.buffers).then(|| self.entry(index))?;
        self.bytes.get(offset as usize..(offset + len) as usize)
    }

    /// Number of references in the value.
    pub fn ref_count(&self) -> usize {
        self.refs
    }

    /// The references inside the value.
    pub fn refs(&self) -> impl ExactSizeIterator<Item = RefEntry> + 'a {
        let start = FIXED + self.buffers * BUFFER_ENTRY;
        self.bytes[start..start + self.refs * REF_ENTRY].chunks_exact(REF_ENTRY).map(|entry| RefEntry {
            id: ObjectId(entry[..28].try_into().expect("28 bytes")),
            owner: WorkerId(entry[28..44].try_into().expect("16 bytes")),
            node: NodeId(entry[44..60].try_into().expect("16 bytes")),
            epoch: u64::from_le_bytes(entry[60..68].try_into().expect("8 bytes")),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(seed: u8) -> RefEntry {
        RefEntry {
            id: ObjectId([seed; 28]),
            owner: WorkerId([seed ^ 1; 16]),
            node: NodeId([seed ^ 2; 16]),
            epoch: u64::from(seed) << 40,
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back(
            header in proptest::collection::vec(any::<u8>(), 0..300),
            buffers in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..5000), 0..6),
            refs in 0u8..5,
            stored in any::<bool>(),
        ) {
            let refs: Vec<_> = (0..refs).map(entry).collect();
            let layout = Layout::new(header.len(), buffers.iter().map(|b| b.len() as u64), refs.len(), stored);
            let mut bytes = vec![0xff; layout.total() as usize];
            layout.write(&mut bytes, &header, &buffers.iter().map(Vec::as_slice).collect::<Vec<_>>(), &refs);
            let view = BlobView::parse(&bytes).unwrap();
            prop_assert_eq!(view.header(), &header[..]);
            prop_assert_eq!(view.refs().collect::<Vec<_>>(), refs);
            for ((offset, len), buffer) in view.buffers().zip(&buffers) {
                prop_assert_eq!(offset % 64, 0);
                prop_assert_eq!(&bytes[offset as usize..(offset + len) as usize], &buffer[..]);
            }
        }

        #[test]
        fn hostile_bytes_are_refused_or_read_within_bounds(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&MAGIC);
            }
            if let Ok(view) = BlobView::parse(&bytes) {
                prop_assert!(view.refs().count() == view.ref_count());
                for (offset, len) in view.buffers() {
                    prop_assert!(offset + len <= bytes.len() as u64);
                }
            }
        }
    }

    #[test]
    fn a_plain_value_is_one_without_buffers_and_references() {
        let mut expected = vec![0; FIXED + 3];
        Layout::new(3, [], 0, false).write(&mut expected, b"abc", &[], &[]);
        assert_eq!(plain(b"abc")[..], expected);
        assert_eq!(write_plain(b"abc", &mut [0; FIXED + 2]), None);
    }

    #[test]
    fn a_value_is_laid_out_around_a_buffer_that_is_in_place() {
        let layout = Layout::around(100, PAGE, 5000, 1).unwrap();
        let mut bytes = vec![0; layout.total() as usize];
        bytes[PAGE as usize..].fill(7);
        layout.write_head(&mut bytes, &[9; 100], &[entry(1)]);
        let view = BlobView::parse(&bytes).unwrap();
        assert_eq!(view.header(), [9; 100]);
        assert_eq!(view.refs().collect::<Vec<_>>(), [entry(1)]);
        assert_eq!(view.buffers().collect::<Vec<_>>(), [(PAGE, 5000)]);
        assert!(bytes[PAGE as usize..].iter().all(|byte| *byte == 7));
        assert_eq!(Layout::around(4096, PAGE, 1, 0), None);
    }

    #[test]
    fn large_buffers_of_stored_values_start_on_a_page() {
        let layout = Layout::new(10, [100, VIEW_MIN, 8], 0, true);
        assert_eq!(layout.buffers[0].0 % ALIGN, 0);
        assert_eq!(layout.buffers[1].0 % PAGE, 0);
        assert_eq!(Layout::new(10, [VIEW_MIN], 0, false).buffers[0].0, 64);
    }
}
