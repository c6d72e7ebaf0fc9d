//! Entries as they lie in a file of the log, and how a file is read.
//!
//! ```text
//! 0   magic       "PLG1"
//! 4   length      of the body, 32 bits; numbers are little-endian
//! 8   sequence    64 bits
//! 16  check       of the body: the first 8 bytes of its BLAKE3
//! 24  check       of the 24 bytes before: the first 4 bytes of their BLAKE3
//! 28  body
//! ```
//!
//! An entry is written only when the one before is on the disk, so that a crash can tear the last
//! one of the last file and no other. What is torn was never acknowledged; anything else that does
//! not fit is damage.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use super::super::Error;

const MAGIC: [u8; 4] = *b"PLG1";
/// Bytes before the body.
pub const HEADER: usize = 28;

/// By what a batch is told from another of the same number: its body's check.
pub type Mark = [u8; 8];

/// The mark of a batch with this body.
pub fn mark(body: &[u8]) -> Mark {
    *blake3::hash(body)
        .as_bytes()
        .first_chunk()
        .unwrap_or(&[0; 8])
}

/// An entry as it is written.
pub fn encode(sequence: u64, body: &[u8]) -> Result<Vec<u8>, Error> {
    let length = u32::try_from(body.len()).map_err(|_| Error::TooLarge { bytes: body.len() })?;
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend(MAGIC);
    bytes.extend(length.to_le_bytes());
    bytes.extend(sequence.to_le_bytes());
    bytes.extend(mark(body));
    let check = blake3::hash(&bytes);
    bytes.extend(&check.as_bytes()[..4]);
    bytes.extend(body);
    Ok(bytes)
}

struct Header {
    length: usize,
    sequence: u64,
    check: Mark,
}

fn header(bytes: &[u8]) -> Option<Header> {
    let bytes = bytes.first_chunk::<HEADER>()?;
    let fits = bytes[..4] == MAGIC && blake3::hash(&bytes[..24]).as_bytes()[..4] == bytes[24..];
    fits.then(|| Header {
        length: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as usize,
        sequence: u64::from_le_bytes(*bytes[8..].first_chunk().unwrap_or(&[0; 8])),
        check: *bytes[16..].first_chunk().unwrap_or(&[0; 8]),
    })
}

/// The body of an entry that is all of these bytes and has this number; none if they are something
/// else.
pub fn body(bytes: &[u8], sequence: u64) -> Option<&[u8]> {
    let head = header(bytes)?;
    let body = &bytes[HEADER..];
    let fits = head.sequence == sequence && head.length == body.len() && mark(body) == head.check;
    fits.then_some(body)
}

/// What comes next in a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A whole entry: its sequence number and its body.
    Entry(u64, Vec<u8>),
    /// The file ends behind a whole entry.
    End,
    /// The file ends inside an entry that a crash has torn.
    Torn,
}

/// Reads a file entry by entry.
#[derive(Debug)]
pub struct Reader {
    file: BufReader<File>,
    path: PathBuf,
    length: u64,
    offset: u64,
}

impl Reader {
    /// Opens a file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let length = file.metadata().map_err(Error::io("read", path))?.len();
        Ok(Self {
            file: BufReader::with_capacity(1 << 20, file),
            path: path.to_owned(),
            length,
            offset: 0,
        })
    }

    /// Where the next entry begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next entry.
    ///
    /// # Errors
    /// [`Error::DamagedLog`] when the bytes are no entry and no crash explains it; [`Error::Io`].
    pub fn next(&mut self) -> Result<Next, Error> {
        let left = self.length - self.offset;
        if left == 0 {
            return Ok(Next::End);
        }
        let head = self.read(left.min(HEADER as u64) as usize)?;
        let Some(Header {
            length,
            sequence,
            check,
        }) = header(&head)
        else {
            let rest = self.read((left as usize).saturating_sub(head.len()))?;
            let bytes = [head, rest].concat();
            // Whole entries behind it were written after this one was on the disk.
            let more = (1..bytes.len())
                .any(|at| bytes[at..].starts_with(&MAGIC) && header(&bytes[at..]).is_some());
            return if more {
                Err(self.damaged("an entry's header does not have its check"))
            } else {
                Ok(Next::Torn)
            };
        };
        let end = self.offset + (HEADER + length) as u64;
        if end > self.length {
            return Ok(Next::Torn);
        }
        let body = self.read(length)?;
        if mark(&body) != check {
            return if end == self.length {
                Ok(Next::Torn)
            } else {
                Err(self.damaged("an entry's body does not have its check"))
            };
        }
        self.offset = end;
        Ok(Next::Entry(sequence, body))
    }

    /// What is wrong where the reader stands.
    pub fn damaged(&self, what: impl Into<String>) -> Error {
        Error::DamagedLog {
            path: self.path.clone(),
            offset: self.offset,
            what: what.into(),
        }
    }

    fn read(&mut self, length: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; length];
        self.file
            .read_exact(&mut bytes)
            .map_err(Error::io("read", &self.path))?;
        Ok(bytes)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read_all(bytes: &[u8]) -> Result<(Vec<u64>, Next, u64), Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, bytes).unwrap();
        let mut reader = Reader::open(&path).unwrap();
        let mut sequences = Vec::new();
        loop {
            match reader.next()? {
                Next::Entry(sequence, body) => {
                    assert_eq!(body, vec![sequence as u8; 100]);
                    sequences.push(sequence);
                }
                end => return Ok((sequences, end, reader.offset())),
            }
        }
    }

    fn three() -> Vec<u8> {
        (1..=3)
            .flat_map(|n| encode(n, &[n as u8; 100]).unwrap())
            .collect()
    }

    #[test]
    fn a_file_cut_anywhere_gives_its_whole_entries_and_says_that_it_is_torn() {
        let bytes = three();
        let one = HEADER + 100;
        for cut in 0..=bytes.len() {
            let (sequences, end, offset) = read_all(&bytes[..cut]).unwrap();
            assert_eq!(sequences.len(), cut / one, "cut at {cut}");
            assert_eq!(offset, (cut / one * one) as u64);
            assert_eq!(end == Next::End, cut % one == 0, "cut at {cut}");
        }
    }

    #[test]
    fn a_tail_of_zeros_is_torn() {
        let mut bytes = three();
        bytes.extend([0; 5000]);
        let (sequences, end, _) = read_all(&bytes).unwrap();
        assert_eq!((sequences.len(), end), (3, Next::Torn));
    }

    #[test]
    fn a_changed_byte_before_the_last_entry_is_damage_and_in_it_a_torn_end() {
        let bytes = three();
        let one = HEADER + 100;
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x40;
            match read_all(&changed) {
                Err(Error::DamagedLog { offset, .. }) => {
                    assert!(at < 2 * one, "byte {at}");
                    assert_eq!(offset, (at / one * one) as u64);
                }
                Ok((sequences, end, _)) => {
                    assert!(at >= 2 * one, "byte {at}");
                    assert_eq!((sequences.len(), end), (2, Next::Torn));
                }
                Err(error) => panic!("byte {at}: {error}"),
            }
        }
    }
}
