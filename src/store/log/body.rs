//! What an entry holds: a batch, deflated where that is shorter. The records of an edit name the
//! same digests again and again, so that a batch of them comes to some two thirds.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use prost::Message as _;

use super::super::Batch;

/// Longer batches stay as they are: theirs are results, whose numbers hardly get shorter. It bounds
/// what a deflated one may become again.
const MOST: usize = 64 << 10;

/// A batch as an entry's body. `deflate` says whether the store's programs know deflated ones.
pub fn write(batch: &Batch, deflate: bool) -> Vec<u8> {
    let plain = batch.encode_to_vec();
    if !deflate || plain.len() > MOST {
        return plain;
    }
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    // A list in memory takes everything.
    let deflated = encoder.write_all(&plain).and_then(|()| encoder.finish());
    let shorter = deflated.map(|deflated| {
        Batch {
            deflated: Some(deflated),
            ..Batch::default()
        }
        .encode_to_vec()
    });
    match shorter {
        Ok(shorter) if shorter.len() < plain.len() => shorter,
        _ => plain,
    }
}

/// The batch of a body, or what is wrong with it.
pub fn read(body: &[u8]) -> Result<Batch, String> {
    let batch = Batch::decode(body).map_err(|e| e.to_string())?;
    let Some(deflated) = &batch.deflated else {
        return Ok(batch);
    };
    let mut plain = Vec::new();
    DeflateDecoder::new(deflated.as_slice())
        .take(MOST as u64 + 1)
        .read_to_end(&mut plain)
        .map_err(|e| format!("its batch cannot be inflated: {e}"))?;
    if plain.len() > MOST {
        return Err(format!("its batch is over {MOST} bytes when inflated"));
    }
    Batch::decode(plain.as_slice()).map_err(|e| e.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::super::Write;
    use super::*;

    fn batch(value: Vec<u8>) -> Batch {
        Batch {
            writes: vec![Write {
                key: b"key".to_vec(),
                value: Some(value),
            }],
            ..Batch::default()
        }
    }

    #[test]
    fn a_batch_comes_back_and_is_deflated_only_where_that_is_known_and_shorter() {
        let digests = batch(b"0123456789abcdef".repeat(50));
        let noise = batch(blake3::hash(b"noise").as_bytes().to_vec());
        let long = batch(vec![7; MOST]);
        for (batch, deflate, shorter) in [
            (&digests, true, true),
            (&digests, false, false),
            (&noise, true, false),
            (&long, true, false),
        ] {
            let body = write(batch, deflate);
            assert_eq!(body.len() < batch.encode_to_vec().len(), shorter);
            assert_eq!(&read(&body).unwrap(), batch);
        }
    }

    #[test]
    fn what_inflates_without_end_or_not_at_all_is_refused() {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&vec![0; 100 * MOST]).unwrap();
        for deflated in [encoder.finish().unwrap(), vec![0xff; 9]] {
            let batch = Batch {
                deflated: Some(deflated),
                ..Batch::default()
            };
            read(&batch.encode_to_vec()).unwrap_err();
        }
    }
}
