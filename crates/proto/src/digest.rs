//! What content comes to in 64 bits, to tell whether two runs made the same: fast, and good against accidents, not
//! against somebody who looks for two contents with one digest.

const P1: u64 = 0x9e37_79b1_85eb_ca87;
const P2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const LANES: usize = 4;
const STRIDE: usize = LANES * 8;

/// Adds up content piece by piece, after xxHash (Collet): four lanes, which a processor works on at once.
#[derive(Debug, Clone)]
pub struct Digest {
    lanes: [u64; LANES],
    pieces: u64,
}

impl Default for Digest {
    fn default() -> Self {
        Self { lanes: [P1.wrapping_add(P2), P2, 0, P1.wrapping_neg()], pieces: 0 }
    }
}

fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(P2)).rotate_left(31).wrapping_mul(P1)
}

fn word(bytes: &[u8]) -> u64 {
    let mut padded = [0; 8];
    padded[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(padded)
}

impl Digest {
    /// Adds a piece; where pieces end counts.
    pub fn add(&mut self, bytes: &[u8]) {
        self.pieces += 1;
        let (strides, rest) = bytes.as_chunks::<STRIDE>();
        for stride in strides {
            let (words, _) = stride.as_chunks::<8>();
            for (lane, bytes) in self.lanes.iter_mut().zip(words) {
                *lane = round(*lane, u64::from_le_bytes(*bytes));
            }
        }
        for (at, bytes) in rest.chunks(8).enumerate() {
            self.lanes[at] = round(self.lanes[at], word(bytes));
        }
        self.lanes[0] = round(self.lanes[0], (bytes.len() as u64) ^ self.pieces.rotate_left(48));
    }

    /// What it comes to.
    pub fn finish(&self) -> u64 {
        let sum = self.lanes.iter().zip([1, 7, 12, 18]).fold(self.pieces, |sum, (lane, turn)| {
            (sum.wrapping_add(lane.rotate_left(turn)) ^ round(0, *lane)).wrapping_mul(P1)
        });
        mix(sum)
    }
}

/// What a serialised value comes to; of its references only how many there are, since each run makes its own.
pub fn of_value<'a>(header: &[u8], references: usize, buffers: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut digest = Digest::default();
    digest.add(header);
    digest.add(&(references as u64).to_le_bytes());
    buffers.into_iter().for_each(|buffer| digest.add(buffer));
    digest.finish()
}

/// What a sequence comes to, given what it came to before its latest element.
pub fn chain(before: u64, element: u64) -> u64 {
    mix(round(before.rotate_left(27).wrapping_add(P1), element))
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 33)).wrapping_mul(P2);
    x = (x ^ (x >> 29)).wrapping_mul(P1);
    x ^ (x >> 32)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn digest(pieces: &[&[u8]]) -> u64 {
        let mut digest = Digest::default();
        for piece in pieces {
            digest.add(piece);
        }
        digest.finish()
    }

    #[test]
    fn lengths_borders_and_single_bits_count() {
        let zeros = [0; 300];
        let lengths: HashSet<u64> = (0..300).map(|length| digest(&[&zeros[..length]])).collect();
        assert_eq!(lengths.len(), 300);
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
        assert_ne!(digest(&[b"ab"]), digest(&[b"ab", b""]));
        let mut bytes = [7; 200];
        let mut seen = HashSet::from([digest(&[&bytes])]);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(seen.insert(digest(&[&bytes])), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    proptest! {
        #[test]
        fn sequences_are_told_apart(a in any::<Vec<u64>>(), b in any::<Vec<u64>>()) {
            let of = |list: &[u64]| list.iter().fold(0, |sum, element| chain(sum, *element));
            prop_assert_eq!(a == b, of(&a) == of(&b));
        }
    }
}
