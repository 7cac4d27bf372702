//! Frames on a byte stream: a little-endian length of 4 bytes, then a message in postcard.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes before the body of a frame.
pub const PREFIX: usize = 4;
/// Longest body that is accepted: inline values are far below it, larger ones go through the store.
pub const MAX_BODY: usize = 64 << 20;

/// A frame could not be made or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The body is longer than [`MAX_BODY`].
    #[error("a frame of {0} bytes is above the limit of {MAX_BODY}")]
    TooLong(usize),
    /// The body is not such a message.
    #[error("the bytes of the frame are not a message of this version: {0}")]
    Malformed(#[from] postcard::Error),
}

/// Appends `message` as a frame.
pub fn write<M: Serialize>(out: &mut Vec<u8>, message: &M) -> Result<(), FrameError> {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX]);
    let taken = std::mem::take(out);
    *out = postcard::to_extend(message, taken)?;
    let body = out.len() - start - PREFIX;
    if body > MAX_BODY {
        out.truncate(start);
        return Err(FrameError::TooLong(body));
    }
    out[start..start + PREFIX].copy_from_slice(&(body as u32).to_le_bytes());
    Ok(())
}

/// Length of the frame at the start of `bytes`, prefix included; `None` while the prefix is not whole.
pub fn length(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(prefix) = bytes.first_chunk::<PREFIX>() else { return Ok(None) };
    let body = u32::from_le_bytes(*prefix) as usize;
    if body > MAX_BODY { Err(FrameError::TooLong(body)) } else { Ok(Some(PREFIX + body)) }
}

/// Reads the body of a frame.
pub fn read<M: DeserializeOwned>(body: &[u8]) -> Result<M, FrameError> {
    Ok(postcard::from_bytes(body)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::{Role, ToDaemon, ToPeer};
    use crate::{Blob, Bytes, ObjectId, TaskId, Value};

    #[test]
    fn a_message_comes_back_whole_and_a_cut_one_is_not_there_yet() {
        let message = ToPeer::Done {
            task: TaskId([3; 24]),
            attempt: 1,
            values: vec![Value::Ready(Blob::Inline(Bytes::new(vec![1, 2, 3])))],
            nanos: 5,
            again: false,
        };
        let mut out = Vec::new();
        write(&mut out, &message).unwrap();
        assert_eq!(length(&out).unwrap(), Some(out.len()));
        assert_eq!(length(&out[..3]).unwrap(), None);
        assert_eq!(read::<ToPeer>(&out[PREFIX..]).unwrap(), message);
    }

    #[test]
    fn an_oversize_length_is_refused_before_anything_is_allocated() {
        assert!(matches!(length(&u32::MAX.to_le_bytes()), Err(FrameError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = read::<ToPeer>(&bytes);
            let _ = read::<ToDaemon>(&bytes);
        }

        #[test]
        fn ids_survive(seed in any::<[u8; 28]>(), token in any::<u128>()) {
            let mut out = Vec::new();
            write(&mut out, &ToPeer::Fetch { object: ObjectId(seed) }).unwrap();
            prop_assert_eq!(read::<ToPeer>(&out[PREFIX..]).unwrap(), ToPeer::Fetch { object: ObjectId(seed) });
            out.clear();
            let hello = ToDaemon::Hello { version: 1, role: Role::Worker { token } };
            write(&mut out, &hello).unwrap();
            prop_assert_eq!(read::<ToDaemon>(&out[PREFIX..]).unwrap(), hello);
        }
    }
}
