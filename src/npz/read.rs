//! Reading numbers out of `.npz` and `.npy` files that others wrote.
//!
//! Only plain numbers are read, little-endian and in C order; nothing is unpickled.

use std::io::{Read, Seek};

use zip::ZipArchive;

/// The most bytes one array may claim to have: 16 GiB, twice the key statistics of the largest
/// GPT-J layer in float64.
const LARGEST: u64 = 16 << 30;

/// A file that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No zip archive, or a damaged one.
    #[error("is not a whole .npz file: {0}")]
    Archive(#[from] zip::result::ZipError),
    /// An array that is not there.
    #[error("has no array {name:?}; it holds {present}")]
    Missing {
        /// The array asked for.
        name: String,
        /// The arrays there are.
        present: String,
    },
    /// An array that is not what was asked for.
    #[error("array {name:?} {problem}")]
    Array {
        /// The array.
        name: String,
        /// What is wrong with it, and what would be read.
        problem: String,
    },
}

/// An array of numbers as double precision, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Numbers {
    /// Sizes, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// As many as the shape holds.
    pub values: Vec<f64>,
}

/// An opened `.npz` file.
#[derive(Debug)]
pub struct Reader<R> {
    archive: ZipArchive<R>,
}

impl<R: Read + Seek> Reader<R> {
    /// Opens an archive.
    ///
    /// # Errors
    /// [`Error::Archive`].
    pub fn open(file: R) -> Result<Self, Error> {
        Ok(Self {
            archive: ZipArchive::new(file)?,
        })
    }

    /// Names of the arrays.
    pub fn names(&self) -> Vec<String> {
        self.archive
            .file_names()
            .filter_map(Result::ok)
            .map(|name| name.strip_suffix(".npy").unwrap_or(&name).to_owned())
            .collect()
    }

    /// Reads one array of `float16`, `float32`, `float64` or an integer type.
    ///
    /// # Errors
    /// [`Error::Missing`]; [`Error::Array`] for other types, Fortran order, or a damaged array.
    pub fn numbers(&mut self, name: &str) -> Result<Numbers, Error> {
        self.read(name, |mut entry| npy(&mut entry))
    }

    /// The shape of an array, without its numbers.
    ///
    /// # Errors
    /// As [`Reader::numbers`].
    pub fn shape(&mut self, name: &str) -> Result<Vec<usize>, Error> {
        self.read(name, |mut entry| Ok(header(&mut entry)?.shape))
    }

    /// Gives the rows of a matrix one by one, from the first, to `take`, which may say what is
    /// wrong with one. No more than a row is in memory.
    ///
    /// # Errors
    /// As [`Reader::numbers`], and for an array that is no matrix; what `take` gives, as
    /// [`Error::Array`].
    pub fn rows(
        &mut self,
        name: &str,
        mut take: impl FnMut(usize, &[f64]) -> Result<(), String>,
    ) -> Result<(), Error> {
        self.read(name, |mut entry| {
            let Header { shape, number, .. } = header(&mut entry)?;
            let &[rows, columns] = &shape[..] else {
                return Err(format!("has the shape {shape:?}: it must be a matrix"));
            };
            let mut bytes = vec![0; columns * number.size];
            let mut row = Vec::with_capacity(columns);
            for at in 0..rows {
                entry.read_exact(&mut bytes).map_err(cut)?;
                row.clear();
                row.extend(bytes.chunks_exact(number.size).map(number.read));
                take(at, &row)?;
            }
            Ok(())
        })
    }

    fn read<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(zip::read::ZipFile<'_, R>) -> Result<T, String>,
    ) -> Result<T, Error> {
        let wrong = |problem: String| Error::Array {
            name: name.to_owned(),
            problem,
        };
        let present = self.names().join(", ");
        let entry = match self.archive.by_name(&format!("{name}.npy")) {
            Ok(entry) => entry,
            Err(zip::result::ZipError::FileNotFound) => {
                return Err(Error::Missing {
                    name: name.to_owned(),
                    present,
                });
            }
            Err(zip::result::ZipError::UnsupportedArchive(_)) => {
                return Err(wrong(
                    "is compressed: write the file with numpy.savez, not savez_compressed"
                        .to_owned(),
                ));
            }
            Err(error) => return Err(error.into()),
        };
        if entry.size() > LARGEST {
            return Err(wrong(format!("claims {} bytes", entry.size())));
        }
        read(entry).map_err(wrong)
    }
}

fn cut(error: std::io::Error) -> String {
    format!("cannot be read to its end: {error}")
}

/// What stands before the numbers of a `.npy` stream.
struct Header {
    shape: Vec<usize>,
    number: Number,
    /// Of all numbers.
    bytes: usize,
}

fn header(source: &mut impl Read) -> Result<Header, String> {
    let mut start = [0; 8];
    source.read_exact(&mut start).map_err(cut)?;
    if &start[..6] != b"\x93NUMPY" {
        return Err("is no .npy array".to_owned());
    }
    let length = match start[6] {
        1 => {
            let mut length = [0; 2];
            source.read_exact(&mut length).map_err(cut)?;
            u32::from(u16::from_le_bytes(length))
        }
        2 | 3 => {
            let mut length = [0; 4];
            source.read_exact(&mut length).map_err(cut)?;
            u32::from_le_bytes(length)
        }
        version => return Err(format!("is of .npy version {version}; 1 to 3 are read")),
    };
    if length > 1 << 20 {
        return Err(format!("has a header of {length} bytes"));
    }
    let mut header = vec![0; length as usize];
    source.read_exact(&mut header).map_err(cut)?;
    let header = String::from_utf8_lossy(&header).into_owned();
    let field = |name: &str| {
        let after = header.split_once(&format!("'{name}':"))?.1;
        Some(after.trim_start().to_owned())
    };
    let descr = field("descr").ok_or("has no 'descr' in its header")?;
    let descr = descr.split('\'').nth(1).unwrap_or_default().to_owned();
    if field("fortran_order").is_none_or(|order| !order.starts_with("False")) {
        return Err("is in Fortran order: save a C-contiguous copy".to_owned());
    }
    let shape = field("shape").ok_or("has no 'shape' in its header")?;
    let shape: Vec<usize> = shape
        .trim_start_matches('(')
        .split(')')
        .next()
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|size| !size.is_empty())
        .map(|size| size.parse().map_err(|_| format!("has the size {size:?}")))
        .collect::<Result<_, _>>()?;
    let count = shape
        .iter()
        .try_fold(1usize, |n, &size| n.checked_mul(size));
    let number = number(&descr)
        .ok_or_else(|| format!("holds {descr:?}; little-endian floats and integers are read"))?;
    let bytes = count
        .and_then(|count| count.checked_mul(number.size))
        .filter(|&bytes| bytes as u64 <= LARGEST)
        .ok_or_else(|| format!("claims the shape {shape:?}"))?;
    Ok(Header {
        shape,
        number,
        bytes,
    })
}

/// Reads a `.npy` stream.
fn npy(source: &mut impl Read) -> Result<Numbers, String> {
    let Header {
        shape,
        number,
        bytes,
    } = header(source)?;
    // Grown while it is read: a header that lies about a size shall not allocate it.
    let mut values = Vec::new();
    let mut left = bytes;
    let mut chunk = vec![0; (1 << 20).min(bytes.max(1))];
    while left > 0 {
        // Whole numbers: every size divides a MiB.
        let part = chunk.len().min(left);
        let part = &mut chunk[..part];
        source.read_exact(part).map_err(cut)?;
        values.extend(part.chunks_exact(number.size).map(number.read));
        left -= part.len();
    }
    Ok(Numbers { shape, values })
}

struct Number {
    size: usize,
    read: fn(&[u8]) -> f64,
}

/// The number format of a NumPy type name.
fn number(descr: &str) -> Option<Number> {
    macro_rules! of {
        ($type:ty, $size:literal) => {
            Number {
                size: $size,
                read: |bytes| {
                    let mut array = [0; $size];
                    array.copy_from_slice(bytes);
                    <$type>::from_le_bytes(array) as f64
                },
            }
        };
    }
    Some(match descr {
        "<f8" => of!(f64, 8),
        "<f4" => of!(f32, 4),
        "<f2" => Number {
            size: 2,
            read: |bytes| half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f64(),
        },
        "<i8" => of!(i64, 8),
        "<i4" => of!(i32, 4),
        "<u8" => of!(u64, 8),
        "<u4" => of!(u32, 4),
        _ => return None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Cursor;

    use super::super::Npz;
    use super::*;

    fn archive(npz: &Npz) -> Reader<Cursor<Vec<u8>>> {
        Reader::open(Cursor::new(npz.to_bytes().unwrap())).unwrap()
    }

    #[test]
    fn what_was_written_is_read_back() {
        let mut npz = Npz::new();
        npz.f32("a", &[2, 3], &[1.0, 2.5, -3.0, 4.0, 5.0, 1e-20])
            .unwrap()
            .f64("b", &[2], &[0.1, f64::MAX])
            .unwrap()
            .i64("c", &[], &[-7])
            .unwrap();
        let mut file = archive(&npz);
        assert_eq!(file.numbers("a").unwrap().shape, [2, 3]);
        assert_eq!(file.numbers("a").unwrap().values[1], 2.5);
        assert_eq!(file.numbers("b").unwrap().values, [0.1, f64::MAX]);
        assert_eq!(file.shape("a").unwrap(), [2, 3]);
        let mut rows = Vec::new();
        let mut take = |at, row: &[f64]| {
            rows.push((at, row.to_vec()));
            Ok(())
        };
        file.rows("a", &mut take).unwrap();
        assert_eq!(rows[0], (0, vec![1.0, 2.5, -3.0]));
        assert_eq!((rows.len(), rows[1].0, rows[1].1[1]), (2, 1, 5.0));
        let stop = file.rows("a", |at, _| Err(format!("has a bad row {at}")));
        assert!(stop.unwrap_err().to_string().contains("has a bad row 0"));
        assert!(file.rows("b", |_, _| Ok(())).is_err());
        let scalar = file.numbers("c").unwrap();
        assert_eq!((scalar.shape.len(), scalar.values[0]), (0, -7.0));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let mut npz = Npz::new();
        npz.strings("text", &[1], &["a"]).unwrap();
        let mut file = archive(&npz);
        let missing = file.numbers("mom2").unwrap_err().to_string();
        assert!(missing.contains("it holds text"), "{missing}");
        let text = file.numbers("text").unwrap_err().to_string();
        assert!(text.contains("<U1"), "{text}");
        assert!(Reader::open(Cursor::new(b"PK".to_vec())).is_err());
        for broken in [
            &b"\x93NUMPY\x01\x00"[..],
            b"\x93NUMPY\x09\x00\x00\x00",
            b"\x93NUMPY\x01\x00\x05\x00{'a':",
        ] {
            assert!(npy(&mut &broken[..]).is_err());
        }
        let lying = b"\x93NUMPY\x01\x00\x3e\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1000000,)}\n\n";
        let said = npy(&mut &lying[..]).unwrap_err();
        assert!(said.contains("to its end"), "{said}");
    }
}
