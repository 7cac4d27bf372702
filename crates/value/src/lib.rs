//! Reads Heliostat's values without JavaScript. [`BlobView`](heliostat_proto::blob::BlobView) gives the references and
//! buffers of a value without looking into it; [`Header`] says whether code is inside and which memory the value shows;
//! [`decode`] reads plain data: primitives, arrays, plain objects, dates, maps, sets, buffers and typed arrays, all
//! borrowed from the bytes. `docs/design/values.md` describes the format.
#![forbid(unsafe_code)]

mod decode;
mod header;
mod reader;
mod text;

pub use decode::{Member, Numbers, Plain, decode};
pub use header::{Header, Region, Storage, StorageBytes, ViewKind};
pub use text::Text;

/// Bytes that can't be read as plain data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Of another version of the format.
    #[error("version {0} of the header is unknown: this program reads version 2")]
    Version(u8),
    /// Not what a writer makes.
    #[error("the header is damaged at byte {at}: {what}")]
    Malformed {
        /// Where, in bytes from the header's beginning.
        at: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// A value that only JavaScript can rebuild: a function, an instance, a symbol, an error and the like.
    #[error("the record with tag {tag:#04x} at byte {at} is not plain data: read it with JavaScript")]
    NotPlain {
        /// The record's tag.
        tag: u8,
        /// Where it stands, in bytes from the header's beginning.
        at: usize,
    },
    /// Nested deeper than this reader goes.
    #[error("the value is nested more than {0} levels deep")]
    TooDeep(usize),
}
