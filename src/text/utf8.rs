//! Bytes that should be a text in UTF-8. What is none is said in one way, with what helps, wherever
//! people bring a file.

use std::io::{self, Read};
use std::path::Path;

/// The byte order mark that some editors write before a text: no part of it.
pub const MARK: &str = "\u{feff}";

/// Bytes that are no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not UTF-8 at byte {at}: {remedy}")]
pub struct NotText {
    /// The first byte that is not.
    pub at: usize,
    /// What helps, by what the first bytes are.
    pub remedy: &'static str,
}

impl NotText {
    /// What a reader of [`Checked`] failed with, where it was this.
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl From<NotText> for io::Error {
    fn from(found: NotText) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, found)
    }
}

/// The text of a whole file, without a byte order mark.
///
/// # Errors
/// [`NotText`].
pub fn text(bytes: Vec<u8>) -> Result<String, NotText> {
    let mut checked = Checked::new(io::empty());
    checked.look(&bytes)?;
    checked.end()?;
    let text = String::from_utf8(bytes).unwrap_or_default(); // it was looked at
    Ok(match text.strip_prefix(MARK) {
        Some(text) => text.to_owned(),
        None => text,
    })
}

/// The text of a file, without a byte order mark: for small files.
///
/// # Errors
/// The file system's, and [`NotText`] as one.
pub fn read(path: &Path) -> io::Result<String> {
    Ok(text(std::fs::read(path)?)?)
}

/// Hands bytes on as long as they are a text; else fails with [`NotText`].
pub struct Checked<R> {
    source: R,
    /// The first bytes, which say what a file is.
    start: Vec<u8>,
    /// Bytes that were looked at, up to the last whole character.
    at: usize,
    /// The beginning of a character that goes on in what comes next.
    open: Vec<u8>,
}

impl<R> Checked<R> {
    /// What a source says, looked at.
    pub fn new(source: R) -> Self {
        Self {
            source,
            start: Vec::new(),
            at: 0,
            open: Vec::new(),
        }
    }

    /// Looks at what comes next.
    fn look(&mut self, next: &[u8]) -> Result<(), NotText> {
        if self.at == 0 && self.open.is_empty() {
            self.start = next[..next.len().min(4)].to_vec();
            // Such a text without a mark is UTF-8 as well, with a zero behind every letter.
            if is_wide(&self.start) {
                return Err(self.none(0));
            }
        }
        let joined = match self.open.is_empty() {
            true => None,
            false => Some([&self.open, next].concat()),
        };
        let bytes = joined.as_deref().unwrap_or(next);
        let whole = match std::str::from_utf8(bytes) {
            Ok(text) => text.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(error) => return Err(self.none(self.at + error.valid_up_to())),
        };
        self.open = bytes[whole..].to_vec();
        self.at += whole;
        Ok(())
    }

    /// Nothing comes any more.
    fn end(&self) -> Result<(), NotText> {
        match self.open.is_empty() {
            true => Ok(()),
            false => Err(self.none(self.at)),
        }
    }

    fn none(&self, at: usize) -> NotText {
        let remedy = remedy(&self.start);
        NotText { at, remedy }
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        match read {
            0 if !buffer.is_empty() => self.end()?,
            _ => self.look(&buffer[..read])?,
        }
        Ok(read)
    }
}

/// Whether a file that begins so is of characters of two or four bytes.
fn is_wide(start: &[u8]) -> bool {
    match *start {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, 0, 0xfe, 0xff] => true,
        // Without a mark: a zero before or behind the first letters.
        [a, b, c, d] => {
            let zeros = [a == 0, b == 0, c == 0, d == 0];
            matches!(
                zeros,
                [false, true, false, true]
                    | [true, false, true, false]
                    | [false, true, true, true]
                    | [true, true, true, false]
            )
        }
        _ => false,
    }
}

/// What makes a text of a file that is none, by its first bytes.
fn remedy(start: &[u8]) -> &'static str {
    match start {
        [0x1f, 0x8b, ..] => "it is compressed by gzip, unpack it with gunzip first",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "it is compressed by zstd, unpack it with unzstd first",
        [b'P', b'K', ..] => "it is a zip archive, unpack it first",
        [b'P', b'A', b'R', b'1', ..] => "it is a Parquet file, write it as JSON lines",
        start if is_wide(start) => "it is UTF-16, save it as UTF-8",
        _ => "save it as UTF-8",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A source that gives a byte at a time, so that every character is cut.
    struct Slowly<'a>(&'a [u8]);

    impl Read for Slowly<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let one = buffer.len().min(1);
            self.0.read(&mut buffer[..one])
        }
    }

    fn both(bytes: &[u8]) -> Result<String, NotText> {
        let mut streamed = String::new();
        let read = Checked::new(Slowly(bytes)).read_to_string(&mut streamed);
        let whole = text(bytes.to_vec());
        match (&whole, read) {
            (Ok(whole), Ok(_)) => {
                assert_eq!(streamed.strip_prefix(MARK).unwrap_or(&streamed), whole)
            }
            // The first byte alone does not say what a file is.
            (Err(found), Err(error)) => {
                let same = NotText::of(&error).unwrap();
                assert!(same.at == found.at || found.remedy.contains("UTF-16"));
            }
            (Err(found), Ok(_)) => assert!(found.remedy.contains("UTF-16"), "{found}"),
            other => panic!("{other:?}"),
        }
        whole
    }

    #[test]
    fn bytes_that_are_no_text_are_named_with_what_helps() {
        assert_eq!(both("\u{feff}[\"é€\"]".as_bytes()).unwrap(), "[\"é€\"]");
        assert_eq!(both(b"").unwrap(), "");
        let wide = |text: &str, big: bool| {
            let units = text.encode_utf16();
            let bytes = units.map(|unit| match big {
                true => unit.to_be_bytes(),
                false => unit.to_le_bytes(),
            });
            bytes.collect::<Vec<_>>().concat()
        };
        for (bytes, at, what) in [
            (wide("\u{feff}[\"é\"]", false), 0, "UTF-16"),
            (wide("\u{feff}[\"é\"]", true), 0, "UTF-16"),
            (wide("[\"a\"]", false), 0, "UTF-16"),
            (wide("[\"a\"]", true), 0, "UTF-16"),
            (b"\x1f\x8b\x08\x00\xff".to_vec(), 1, "gunzip"),
            (b"PK\x03\x04\xff".to_vec(), 4, "zip"),
            (b"PAR1\x15\x80".to_vec(), 5, "Parquet"),
            (b"[\"\xe9\"]".to_vec(), 2, "save it as UTF-8"),
            (b"abc\xe2\x82".to_vec(), 3, "save it as UTF-8"),
        ] {
            let found = both(&bytes).unwrap_err();
            assert_eq!(found.at, at, "{found}");
            assert!(found.to_string().contains(what), "{found}");
        }
    }
}
