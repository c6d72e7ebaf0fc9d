//! NumPy's `.npz`: named arrays in a zip of `.npy` files.
//!
//! So that results can be read by `numpy.load` and by every program written for the published
//! causal tracing code, [`Trace`] writes that code's file: the same names, shapes and kinds of
//! values. Nothing is pickled: `numpy.load` reads it with `allow_pickle=False`. The bytes depend on
//! the values alone: entries stand in the order given, stored uncompressed as `numpy.savez` does,
//! and dated 1980-01-01.

pub mod read;

use std::io::{Cursor, Seek, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

/// Most dimensions of an array in every NumPy so far (2 allows 64, 1 allowed 32).
const MAX_RANK: usize = 32;

/// An array or a file that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The values do not fill the shape.
    #[error(
        "array {name:?} has {found} values where its shape {shape:?} holds {expected}: give as many values as the shape holds"
    )]
    Shape {
        /// The array's name.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Product of the shape; none where it overflows.
        expected: String,
        /// Values given.
        found: usize,
    },
    /// More dimensions than NumPy has.
    #[error("array {name:?} has {rank} dimensions and NumPy reads at most {MAX_RANK}: reshape it")]
    Rank {
        /// The array's name.
        name: String,
        /// Length of its shape.
        rank: usize,
    },
    /// Two arrays of one name: `numpy.load` would show only one of them.
    #[error("array {name:?} is given twice: rename one of them")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// A name that would not be one file in the archive.
    #[error(
        "array name {name:?} is empty, or holds a path separator or a control character: use letters, digits and underscores"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// A text that a NumPy string array cannot hold.
    #[error(
        "array {name:?}, text {index} ends in a NUL character, which NumPy strips from its strings: remove it or write it another way"
    )]
    TrailingNul {
        /// The array's name.
        name: String,
        /// Position of the text, row by row, from 0.
        index: usize,
    },
    /// The destination failed.
    #[error("writing the .npz: {0}")]
    Io(#[from] std::io::Error),
    /// The archive could not be put together.
    #[error("writing the .npz archive: {0}")]
    Zip(#[from] zip::result::ZipError),
}

/// Arrays on the way into one `.npz` file, in the order they were added.
///
/// A shape of `[]` makes a 0-d array (a scalar), which holds one value. Values are given row by
/// row (C order).
#[derive(Clone, Debug, Default)]
pub struct Npz {
    arrays: Vec<(String, Vec<u8>)>,
}

impl Npz {
    /// An archive without arrays.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an array of `float32`.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Rank`], [`Error::Duplicate`] and [`Error::Name`], as for every kind of value.
    pub fn f32(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Result<&mut Self, Error> {
        self.add(
            name,
            "<f4",
            shape,
            values.len(),
            values.iter().flat_map(|v| v.to_le_bytes()),
        )
    }

    /// Adds an array of `float64`.
    ///
    /// # Errors
    /// As [`Npz::f32`].
    pub fn f64(&mut self, name: &str, shape: &[usize], values: &[f64]) -> Result<&mut Self, Error> {
        self.add(
            name,
            "<f8",
            shape,
            values.len(),
            values.iter().flat_map(|v| v.to_le_bytes()),
        )
    }

    /// Adds an array of `int64`.
    ///
    /// # Errors
    /// As [`Npz::f32`].
    pub fn i64(&mut self, name: &str, shape: &[usize], values: &[i64]) -> Result<&mut Self, Error> {
        self.add(
            name,
            "<i8",
            shape,
            values.len(),
            values.iter().flat_map(|v| v.to_le_bytes()),
        )
    }

    /// Adds an array of `bool`.
    ///
    /// # Errors
    /// As [`Npz::f32`].
    pub fn bool(
        &mut self,
        name: &str,
        shape: &[usize],
        values: &[bool],
    ) -> Result<&mut Self, Error> {
        self.add(
            name,
            "|b1",
            shape,
            values.len(),
            values.iter().map(|&v| u8::from(v)),
        )
    }

    /// Adds an array of unicode strings (`<U` and the length of the longest, at least 1).
    ///
    /// # Errors
    /// As [`Npz::f32`], and [`Error::TrailingNul`] for a text that would not come back whole.
    pub fn strings<T: AsRef<str>>(
        &mut self,
        name: &str,
        shape: &[usize],
        values: &[T],
    ) -> Result<&mut Self, Error> {
        if let Some(index) = values.iter().position(|v| v.as_ref().ends_with('\0')) {
            return Err(Error::TrailingNul {
                name: name.to_owned(),
                index,
            });
        }
        let lengths = values.iter().map(|v| v.as_ref().chars().count());
        let width = lengths.max().unwrap_or(0).max(1);
        let bytes = values.iter().flat_map(|v| {
            let padded = v
                .as_ref()
                .chars()
                .map(u32::from)
                .chain(std::iter::repeat(0));
            padded.take(width).flat_map(u32::to_le_bytes)
        });
        self.add(name, &format!("<U{width}"), shape, values.len(), bytes)
    }

    fn add(
        &mut self,
        name: &str,
        descr: &str,
        shape: &[usize],
        found: usize,
        bytes: impl Iterator<Item = u8>,
    ) -> Result<&mut Self, Error> {
        if name.is_empty() || name.contains(['/', '\\']) || name.contains(char::is_control) {
            return Err(Error::Name {
                name: name.to_owned(),
            });
        }
        if self.arrays.iter().any(|(other, _)| other == name) {
            return Err(Error::Duplicate {
                name: name.to_owned(),
            });
        }
        if shape.len() > MAX_RANK {
            return Err(Error::Rank {
                name: name.to_owned(),
                rank: shape.len(),
            });
        }
        let expected = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if expected != Some(found) {
            return Err(Error::Shape {
                name: name.to_owned(),
                shape: shape.to_vec(),
                expected: expected
                    .map_or("more values than can be counted".into(), |n| n.to_string()),
                found,
            });
        }
        let mut npy = header(descr, shape);
        npy.extend(bytes);
        self.arrays.push((name.to_owned(), npy));
        Ok(self)
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Zip`] when the destination fails.
    pub fn write(&self, destination: impl Write + Seek) -> Result<(), Error> {
        let mut zip = ZipWriter::new(destination);
        for (name, npy) in &self.arrays {
            let options = SimpleFileOptions::default()
                .compression_method(CompressionMethod::Stored)
                .last_modified_time(DateTime::default())
                .unix_permissions(0o644)
                // Without the 64-bit extension an entry may not exceed 4 GiB.
                .large_file(npy.len() as u64 >= u64::from(u32::MAX));
            zip.start_file(format!("{name}.npy"), options)?;
            zip.write_all(npy)?;
        }
        zip.finish()?.flush()?;
        Ok(())
    }

    /// The archive's bytes.
    ///
    /// # Errors
    /// [`Error::Zip`] when an array exceeds what a zip holds.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut out = Cursor::new(Vec::new());
        self.write(&mut out)?;
        Ok(out.into_inner())
    }
}

/// The header of a version 1.0 `.npy` file: magic, version, length, and a Python dictionary padded
/// so that the values start at a multiple of 64 bytes.
fn header(descr: &str, shape: &[usize]) -> Vec<u8> {
    // A Python tuple: "()", "(3,)", "(3, 4)".
    let mut tuple = shape
        .iter()
        .map(usize::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    if shape.len() == 1 {
        tuple.push(',');
    }
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({tuple}), }}");
    const FIXED: usize = 6 + 2 + 2;
    let padding = 63 - (FIXED + text.len()) % 64;
    text.extend(std::iter::repeat_n(' ', padding));
    text.push('\n');
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    // Version 1.0 counts in 16 bits, ample for MAX_RANK dimensions of at most 20 digits each.
    out.extend((text.len() as u16).to_le_bytes());
    out.extend(text.bytes());
    out
}

/// The trace of one fact and kind as the published causal tracing code stores it.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace<'a> {
    /// p(answer) with each state restored, row by row.
    pub scores: &'a [f32],
    /// Their shape: `[tokens, layers]`; of heads `[tokens, heads, layers]`, or `[heads, layers]`
    /// where every token is restored at once.
    pub shape: &'a [usize],
    /// p(answer) in the corrupted run.
    pub low_score: f64,
    /// p(answer) in the clean run.
    pub high_score: f64,
    /// Ids of the prompt's tokens.
    pub input_ids: &'a [i64],
    /// Their texts.
    pub input_tokens: &'a [String],
    /// The subject's tokens.
    pub subject_range: std::ops::Range<usize>,
    /// Text of the answer.
    pub answer: &'a str,
    /// Layers restored together.
    pub window: usize,
    /// `""` for hidden states, `"mlp"`, `"attn"`; other kinds by their names.
    pub kind: &'a str,
}

impl Trace<'_> {
    /// The file: `scores` float32 of [`Trace::shape`]; `low_score`, `high_score` float64 scalars;
    /// `input_ids` int64 `[tokens]`; `input_tokens` strings `[tokens]`; `subject_range` int64
    /// `[2]`; `answer` and `kind` string scalars; `window` int64 scalar; `correct_prediction` true.
    ///
    /// # Errors
    /// [`Error::Shape`] when ids and texts, or scores and their shape, do not agree, and
    /// [`Error::TrailingNul`] for a token that NumPy cannot hold.
    pub fn to_npz(&self) -> Result<Npz, Error> {
        let tokens = self.input_ids.len();
        let range = [
            self.subject_range.start as i64,
            self.subject_range.end as i64,
        ];
        let mut npz = Npz::new();
        npz.f32("scores", self.shape, self.scores)?
            .f64("low_score", &[], &[self.low_score])?
            .f64("high_score", &[], &[self.high_score])?
            .i64("input_ids", &[tokens], self.input_ids)?
            .strings("input_tokens", &[tokens], self.input_tokens)?
            .i64("subject_range", &[2], &range)?
            .strings("answer", &[], &[self.answer])?
            .i64("window", &[], &[self.window as i64])?
            .bool("correct_prediction", &[], &[true])?
            .strings("kind", &[], &[self.kind])?;
        Ok(npz)
    }

    /// The file of a fact that was not traced: because the model does not know it, in which case
    /// the published code leaves `correct_prediction`, false, as its only array; or for another
    /// reason, a string scalar `untraced` beside it.
    ///
    /// # Errors
    /// None in practice; the archive's own are passed on.
    pub fn untraced(reason: Option<&str>) -> Result<Npz, Error> {
        let mut npz = Npz::new();
        npz.bool("correct_prediction", &[], &[reason.is_some()])?;
        if let Some(reason) = reason {
            npz.strings("untraced", &[], &[reason])?;
        }
        Ok(npz)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// The entries of an archive, read back: name, header dictionary, data.
    fn entries(bytes: Vec<u8>) -> Vec<(String, String, Vec<u8>)> {
        let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
        (0..zip.len())
            .map(|i| {
                let mut entry = zip.by_index(i).unwrap();
                assert_eq!(entry.compression(), CompressionMethod::Stored);
                let mut npy = Vec::new();
                entry.read_to_end(&mut npy).unwrap();
                assert_eq!(&npy[..8], b"\x93NUMPY\x01\x00");
                let length = usize::from(u16::from_le_bytes([npy[8], npy[9]]));
                assert_eq!((10 + length) % 64, 0, "values must be aligned");
                let head = String::from_utf8(npy[10..10 + length].to_vec()).unwrap();
                assert!(head.ends_with('\n'));
                (
                    entry.name().unwrap().into_owned(),
                    head.trim_end().to_owned(),
                    npy[10 + length..].to_vec(),
                )
            })
            .collect()
    }

    #[test]
    fn arrays_come_back_as_they_went_in() {
        let mut npz = Npz::new();
        npz.f32(
            "a",
            &[2, 3],
            &[0.0, -1.5, f32::NAN, f32::INFINITY, 4.0, f32::MIN_POSITIVE],
        )
        .unwrap()
        .i64("b", &[], &[i64::MIN])
        .unwrap()
        .bool("c", &[2], &[true, false])
        .unwrap()
        .strings("d", &[3], &["", "é日", "🧑"])
        .unwrap()
        .f64("e", &[0, 4], &[])
        .unwrap();
        let found = entries(npz.to_bytes().unwrap());
        let heads: Vec<(&str, &str)> = found.iter().map(|e| (e.0.as_str(), e.1.as_str())).collect();
        assert_eq!(
            heads,
            [
                (
                    "a.npy",
                    "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"
                ),
                (
                    "b.npy",
                    "{'descr': '<i8', 'fortran_order': False, 'shape': (), }"
                ),
                (
                    "c.npy",
                    "{'descr': '|b1', 'fortran_order': False, 'shape': (2,), }"
                ),
                (
                    "d.npy",
                    "{'descr': '<U2', 'fortran_order': False, 'shape': (3,), }"
                ),
                (
                    "e.npy",
                    "{'descr': '<f8', 'fortran_order': False, 'shape': (0, 4), }"
                ),
            ]
        );
        let bits: Vec<u32> = found[0]
            .2
            .chunks(4)
            .map(|c| u32::from_le_bytes(c.try_into().unwrap()))
            .collect();
        let given = [0.0, -1.5, f32::NAN, f32::INFINITY, 4.0, f32::MIN_POSITIVE].map(f32::to_bits);
        assert_eq!(bits, given);
        assert_eq!(found[1].2, i64::MIN.to_le_bytes());
        assert_eq!(found[2].2, [1, 0]);
        let text: Vec<u32> = found[3]
            .2
            .chunks(4)
            .map(|c| u32::from_le_bytes(c.try_into().unwrap()))
            .collect();
        assert_eq!(text, [0, 0, 0xe9, 0x65e5, 0x1f9d1, 0]);
        assert!(found[4].2.is_empty());
    }

    #[test]
    fn the_same_values_give_the_same_bytes_at_any_time() {
        let build = || {
            let mut npz = Npz::new();
            npz.f32("scores", &[2], &[0.25, 0.5]).unwrap();
            npz.to_bytes().unwrap()
        };
        let first = build();
        // A zip counts time in steps of two seconds.
        std::thread::sleep(std::time::Duration::from_millis(2100));
        assert_eq!(first, build());
        // The date of the first entry: 1980-01-01 00:00.
        assert_eq!(first[10..14], [0, 0, 0x21, 0]);
    }

    #[test]
    fn what_numpy_could_not_read_back_is_refused_by_name() {
        let mut npz = Npz::new();
        let message = npz
            .f32("scores", &[2, 3], &[0.0; 5])
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("\"scores\" has 5 values where its shape [2, 3] holds 6"),
            "{message}"
        );
        assert!(matches!(
            npz.f32("x", &[usize::MAX, 2], &[]),
            Err(Error::Shape { .. })
        ));
        npz.f32("x", &[], &[1.0]).unwrap();
        assert!(matches!(
            npz.i64("x", &[], &[1]),
            Err(Error::Duplicate { .. })
        ));
        assert!(matches!(
            npz.i64("r", &[1; 33], &[1]),
            Err(Error::Rank { rank: 33, .. })
        ));
        assert!(matches!(
            npz.i64("../x", &[], &[1]),
            Err(Error::Name { .. })
        ));
        assert!(matches!(npz.i64("", &[], &[1]), Err(Error::Name { .. })));
        let nul = npz.strings("t", &[2], &["a\0b", "c\0"]);
        assert!(matches!(nul, Err(Error::TrailingNul { index: 1, .. })));
    }
}
