//! Records of edits and versions are half digests in hexadecimal: packed, two digits take a byte.
//!
//! Packed bytes are pieces, each a number and what it says: the lowest bit is 0 for bytes as they
//! are and 1 for such that each stand for two lower-case digits, the others are how many follow.

use prost::encoding::{decode_varint, encode_varint};

/// Fewer digits in a row stay as they are.
const RUN: usize = 16;

/// Packs bytes. They come out as they were.
pub fn pack(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(bytes.len() / 2 + 16);
    let mut piece = |bytes: &[u8], digits: u64| {
        if !bytes.is_empty() {
            encode_varint((bytes.len() as u64) << 1 | digits, &mut packed);
            packed.extend_from_slice(bytes);
        }
    };
    let (mut begun, mut at) = (0, 0);
    while at < bytes.len() {
        let run = bytes[at..].iter().map_while(|byte| digit(*byte));
        let digits: Vec<u8> = run.collect();
        let pairs = digits.as_chunks::<2>().0;
        if digits.len() < RUN {
            at += digits.len() + 1;
            continue;
        }
        piece(&bytes[begun..at], 0);
        let both: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
        piece(&both, 1);
        at += 2 * pairs.len();
        begun = at;
    }
    piece(&bytes[begun..], 0);
    packed
}

/// The bytes that were packed; none where that cannot be.
pub fn unpack(mut packed: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(2 * packed.len());
    while !packed.is_empty() {
        let number = decode_varint(&mut packed).ok()?;
        let (piece, rest) = packed.split_at_checked(usize::try_from(number >> 1).ok()?)?;
        packed = rest;
        match number & 1 {
            0 => bytes.extend_from_slice(piece),
            _ => bytes.extend(piece.iter().flat_map(|byte| {
                [byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)])
            })),
        }
    }
    Some(bytes)
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_come_out_as_they_were(bytes in "([0-9a-f]{0,70}|[ -~]{0,9}|[é\u{0}]{0,3}){0,6}") {
            let packed = pack(bytes.as_bytes());
            prop_assert_eq!(unpack(&packed).unwrap(), bytes.as_bytes());
            prop_assert!(packed.len() <= bytes.len() + 3);
        }

        #[test]
        fn what_is_not_packed_is_refused_or_bounded(
            bytes in proptest::collection::vec(any::<u8>(), 0..99)
        ) {
            let unpacked = unpack(&bytes).unwrap_or_default();
            prop_assert!(unpacked.len() <= 2 * bytes.len());
        }
    }

    #[test]
    fn a_digest_takes_half() {
        let digest = "0123456789abcdef".repeat(4);
        let text = format!("models/m/versions/{digest} {digest}0");
        assert_eq!(pack(text.as_bytes()).len(), 1 + 18 + 33 + 2 + 33 + 2);
        assert_eq!(pack(b"").len(), 0);
    }
}
