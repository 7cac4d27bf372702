//! Reading back: only verified bytes get out.

use std::sync::{Mutex, PoisonError};

use crate::Session;
use crate::error::{Corruption, ReadError};
use crate::format::{BLOCK, CHUNK, checksum, read_header};
use crate::map::Location;
use crate::storage::{Buffers, Segment};

/// Bytes of one ranged read: several of an object go on at a time.
const PIECE: usize = 8 << 20;

/// Fills `into` with the object's bytes from `start` on; with up to `helpers` further threads when there are many.
pub(crate) fn read(
    segment: &dyn Segment,
    buffers: &Buffers,
    (session, at): (Session, &Location),
    start: u64,
    into: &mut [u8],
    helpers: usize,
) -> Result<(), ReadError> {
    // The first piece ends where a chunk does, so that no chunk is read for two pieces.
    let first = into.len().min(PIECE - (start % CHUNK) as usize);
    let (head, rest) = into.split_at_mut(first);
    let result = if rest.is_empty() {
        read_piece(segment, buffers, at, start, head)
    } else {
        let later = rest.chunks_mut(PIECE).zip((start + first as u64..).step_by(PIECE));
        let pieces = Mutex::new(std::iter::once((head, start)).chain(later));
        let work = || {
            loop {
                let next = pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((piece, start)) = next else { return Ok(()) };
                read_piece(segment, buffers, at, start, piece)?;
            }
        };
        std::thread::scope(|scope| {
            let builder = || std::thread::Builder::new().name("spill-read".into());
            // Where there are no more threads, this one does it all.
            let others: Vec<_> = (0..helpers).map_while(|_| builder().spawn_scoped(scope, work).ok()).collect();
            let mine = work();
            let panicked = "reading does not panic";
            others.into_iter().map(|other| other.join().expect(panicked)).fold(mine, Result::and)
        })
    };
    match result {
        Err(ReadError::Corrupted(what)) => Err(ReadError::Corrupted(diagnose(segment, session, at, what))),
        result => result,
    }
}

fn read_piece(
    segment: &dyn Segment,
    buffers: &Buffers,
    at: &Location,
    mut start: u64,
    mut into: &mut [u8],
) -> Result<(), ReadError> {
    while !into.is_empty() {
        let chunk = start / CHUNK;
        let from = chunk * CHUNK;
        let length = (at.length - from).min(CHUNK) as usize;
        let count = if start == from && into.len() >= length {
            // Whole chunks go where they are wanted.
            let to_the_end = into.len() as u64 == at.length - start;
            let count = if to_the_end { into.len() } else { into.len() / CHUNK as usize * CHUNK as usize };
            segment.read_at(at.offset + start, &mut into[..count])?;
            for (bytes, number) in into[..count].chunks(CHUNK as usize).zip(chunk..) {
                verify(at, number, bytes)?;
            }
            count
        } else {
            let skip = (start - from) as usize;
            let count = (length - skip).min(into.len());
            buffers.with(|buffer| {
                let bytes = &mut buffer[..length];
                segment.read_at(at.offset + from, bytes)?;
                verify(at, chunk, bytes)?;
                into[..count].copy_from_slice(&bytes[skip..skip + count]);
                Ok::<(), ReadError>(())
            })?;
            count
        };
        start += count as u64;
        into = &mut into[count..];
    }
    Ok(())
}

fn verify(at: &Location, chunk: u64, bytes: &[u8]) -> Result<(), ReadError> {
    if at.checksums().get(chunk as usize) == Some(&checksum(bytes)) {
        return Ok(());
    }
    Err(ReadError::Corrupted(Corruption::Checksum { chunk }))
}

/// Tells a file that was damaged from one that took another's place.
fn diagnose(segment: &dyn Segment, session: Session, at: &Location, what: Corruption) -> Corruption {
    let mut block = vec![0; BLOCK as usize];
    match segment.read_at(0, &mut block).map(|()| read_header(&block)) {
        Ok(Ok(found)) if found != (session, at.segment) => Corruption::OtherSegment,
        _ => what,
    }
}
