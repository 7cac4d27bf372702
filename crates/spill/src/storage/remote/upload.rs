//! Segments on their way up: one request for small ones, parts for large ones. Others see all of a segment or nothing.

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt as _, PutPayload};

use super::{Failure, Remote};
use crate::storage::StorageError;

/// The least that S3 takes as a part, and the most parts it takes.
const LEAST_PART: u64 = 5 << 20;
const MOST_PARTS: u64 = 10_000;

/// Of the object that names an upload which is not complete yet, after the segment's name.
pub(super) const UPLOAD: &str = ".upload";

impl Remote {
    pub(super) fn upload(&self, segment: u64, bytes: &[Bytes]) -> Result<(), StorageError> {
        let path = self.path(segment);
        let length: u64 = bytes.iter().map(|bytes| bytes.len() as u64).sum();
        let result = if length > self.shared.buffer_size.max(LEAST_PART) {
            self.upload_parts(&path, bytes, length)
        } else {
            self.wait(async {
                let put = self.attempt(length, || self.client.objects.put(&path, payload(bytes))).await;
                put.map(|_| ()).map_err(|failure| self.explain("upload a segment", &failure))
            })
        };
        if result.is_err() {
            // The answer alone may have been lost. Nothing refers to this number, so what is left of it can go.
            self.last_words(self.delete(&path));
        }
        result
    }

    fn upload_parts(&self, path: &Path, bytes: &[Bytes], length: u64) -> Result<(), StorageError> {
        let part = self.shared.buffer_size.max(LEAST_PART).max(length.div_ceil(MOST_PARTS));
        let parts = split(bytes, part);
        let note = note_of(path);
        let begun = self.wait(async {
            let create = self.attempt(0, || self.client.uploads.create_multipart(path)).await;
            create.map_err(|failure| self.explain("begin an upload", &failure))
        });
        let id = &begun?;
        let result = self.wait(async {
            // If this process dies now, whoever sweeps finds the upload by this note: servers keep parts for ever.
            let put = self.attempt(0, || self.client.objects.put(&note, PutPayload::from(id.clone()))).await;
            put.map_err(|failure| self.explain("note an upload", &failure))?;
            let sent = stream::iter(parts.iter().enumerate())
                .map(|(index, bytes)| {
                    let length = bytes.iter().map(|bytes| bytes.len() as u64).sum();
                    self.attempt(length, move || self.client.uploads.put_part(path, id, index, payload(bytes)))
                })
                .buffered(self.shared.parallel)
                .try_collect::<Vec<_>>();
            let sent = sent.await.map_err(|failure| self.explain("upload a part", &failure))?;
            let complete = self.attempt(0, || self.client.uploads.complete_multipart(path, id, sent.clone())).await;
            match complete {
                Ok(_) => Ok(()),
                // An earlier try may have succeeded, with its answer lost: then there is no such upload any more.
                Err(Failure::Answer(Error::NotFound { .. })) if self.has(path, length).await => Ok(()),
                Err(failure) => Err(self.explain("complete an upload", &failure)),
            }
        });
        self.last_words(async {
            if result.is_err() && self.abort(path, id).await.is_err() {
                return; // the note stays, for the sweep
            }
            let _ = self.delete(&note).await;
        });
        result
    }

    async fn has(&self, path: &Path, length: u64) -> bool {
        self.attempt(0, || self.client.objects.head(path)).await.is_ok_and(|found| found.size == length)
    }

    /// Gives an upload up; one that is unknown is given up already.
    pub(super) async fn abort(&self, path: &Path, id: &String) -> Result<(), StorageError> {
        match self.attempt(0, || self.client.uploads.abort_multipart(path, id)).await {
            Ok(()) | Err(Failure::Answer(Error::NotFound { .. })) => Ok(()),
            Err(failure) => Err(self.explain("abort an upload", &failure)),
        }
    }
}

fn note_of(path: &Path) -> Path {
    Path::from(format!("{path}{UPLOAD}"))
}

/// No copy: the request sends from where the bytes lie, and holds them as long as it needs them.
fn payload(bytes: &[Bytes]) -> PutPayload {
    bytes.iter().cloned().collect()
}

/// Cuts a segment into parts of this many bytes; the last is shorter.
fn split(bytes: &[Bytes], part: u64) -> Vec<Vec<Bytes>> {
    let mut parts = vec![Vec::new()];
    let mut room = part as usize;
    for piece in bytes {
        let mut rest = piece.clone();
        while !rest.is_empty() {
            if room == 0 {
                parts.push(Vec::new());
                room = part as usize;
            }
            let now = rest.split_to(rest.len().min(room));
            room -= now.len();
            parts.last_mut().expect("there is always one").push(now);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_equal_but_for_the_last_and_keep_the_order() {
        let pieces: Vec<Bytes> = [3, 0, 10, 1, 7].iter().map(|&count| Bytes::from(vec![count as u8; count])).collect();
        let parts = split(&pieces, 4);
        let lengths: Vec<usize> = parts.iter().map(|part| part.iter().map(Bytes::len).sum()).collect();
        assert_eq!(lengths, [4, 4, 4, 4, 4, 1]);
        assert_eq!(parts.concat().concat(), pieces.concat());
    }
}
